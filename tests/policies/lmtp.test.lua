-- A listener that speaks LMTP, as it shows in a test of policies.
local sim = require "tern.sim"
local tern = require "tern"
local route = require "tern.route"

local ZONE = [[
  example.com. MX 10 mx.example.com.
  mx.example.com. A 192.0.2.1
  b.example. MX 10 mx.b.example.
  mx.b.example. A 192.0.2.2 ]]

local SOCKET = "/run/tern/lmtp.sock"

-- policy: of example.com, whose mail goes to 192.0.2.1 where it says nothing.
local function world(policy, more)
  policy = policy or {}
  local opinion = policy.route
  policy.route = function(ctx)
    return opinion and opinion(ctx) or route.hosts { "192.0.2.1" }
  end
  local config = {
    hostname = "mx2.isp.example",
    listen = { "0.0.0.0:25", { "198.51.100.25:24", SOCKET, service = "lmtp" } },
    domains = { ["example.com"] = policy },
  }
  for key, value in pairs(more or {}) do config[key] = value end
  return sim.world { zone = ZONE, config = config }
end

local function session(w, port)
  local s = w:session { port = port }
  expect(s:line("LHLO mail.example").code).equal(250)
  return s
end

-- The replies to a message to these.
local function replies(s, to, sender)
  local accepted, got = 0, {}
  expect(s:line("MAIL FROM:<" .. (sender or "a@b.example") .. ">").code).equal(250)
  for _, address in ipairs(to) do
    if s:line("RCPT TO:<" .. address .. ">").code == 250 then accepted = accepted + 1 end
  end
  expect(s:line("DATA").code).equal(354)
  got[1] = s:line(".").code
  for i = 2, accepted do got[i] = s:reply().code end
  return got
end

test("each recipient is answered, in the order of RCPT", function()
  local w = world {
    rcpt = function(ctx)
      if ctx.recipient.local_part == "nobody" then return tern.reject { 550, "5.1.1", "who?" } end
    end,
    route = function(ctx)
      local who = ctx.recipient.local_part
      if who == "spam" then return tern.bounce { 554, "5.7.1", "no spam here" } end
      if who == "later" then return tern.defer { 450, "4.2.1", "later" } end
      if who == "error" then error "a fault of the policy" end
    end,
  }
  local reply = w:send { from = "a@b.example", port = 24, to = {
    "u@example.com", "spam@example.com", "nobody@example.com", "later@example.com",
    "v@example.com", "error@example.com" } }
  local codes = {}
  for i, each in ipairs(reply.recipients) do codes[i] = each.code end
  expect(codes).equal { 250, 554, 550, 450, 250, 451 }
  expect(reply.accepted).equal(2)
  expect(reply.recipients[2].text).contains "no spam here"
  w:advance "1h"
  expect(w:host("192.0.2.1"):inbox()).size(1)
  expect(w:host("192.0.2.1"):inbox()[1].to).size(2)
  -- The client sends the notifications: we have taken nothing that we could return.
  expect(w:host("192.0.2.2"):inbox()).size(0)
  expect(w:queue()).size(0)
  expect(w:events "message_accepted"[1].recipients).equal(2)
  expect(w:events "recipient_rejected").size(4)
end)

test("the same policy by SMTP returns what is refused behind the message", function()
  local w = world { route = function(ctx)
    if ctx.recipient.local_part == "spam" then return tern.bounce { 554, "5.7.1", "no" } end
  end }
  expect(w:send { from = "a@b.example", port = 25,
    to = { "u@example.com", "spam@example.com" } }.code).equal(250)
  w:advance "1h"
  expect(w:host("192.0.2.2"):inbox()).size(1)
end)

test("a session on a Unix socket", function()
  local seen
  local w = world(nil, { policies = { {
    connect = function(ctx)
      seen = { listener = ctx.session.listener, client = ctx.session.client.address,
        here = ctx.session["local"].address, relay = ctx.session.may_relay }
    end,
    rcpt = function(ctx)
      if ctx.session.listener == "lmtp" and ctx.session.client.address == "unix:" .. SOCKET then
        return tern.accept()
      end
    end,
  } } })
  local s = session(w, SOCKET)
  expect(seen).equal { listener = "lmtp", client = "unix:" .. SOCKET, here = "unix:" .. SOCKET,
    relay = false }
  expect(s:line("EHLO mail.example").code).equal(502)
  expect(replies(s, { "u@example.com", "v@elsewhere.example" })).equal { 250, 250 }
  s:close()
  expect(w:queue()[1].sender).equal "a@b.example"
end)

test("relaying is denied there, too, and nobody accepted is 503", function()
  local w = world()
  local s = session(w, 24)
  expect(s:line("MAIL FROM:<a@b.example>").code).equal(250)
  expect(s:line("RCPT TO:<v@elsewhere.example>").code).equal(550)
  expect(s:line("DATA").code).equal(503)
end)

test("limits of clients are for addresses", function()
  local w = world(nil, { clients = { message_rate = "1/h" } })
  for _ = 1, 3 do
    expect(w:send { to = "u@example.com", port = SOCKET, client = "192.0.2.50" }.code).equal(250)
  end
  expect(w:send { to = "u@example.com", port = 24, client = "192.0.2.50" }.code).equal(250)
  expect(w:send { to = "u@example.com", port = 24, client = "192.0.2.50" }.code).equal(450)
end)

test("LHLO is nothing for SMTP", function()
  local w = world()
  local s = w:session { port = 25 }
  expect(s:line("LHLO mail.example").code).equal(502)
  expect(s:line("EHLO mail.example").code).equal(250)
end)

test("AUTH is not offered unless it is asked for, and in clear on a Unix socket", function()
  local known = { { auth = function(ctx)
    if ctx.credentials.user == "ana" then return tern.accept { password = "pencil" } end
  end } }
  local w = world(nil, { policies = known, auth = {} })
  expect(session(w, 24):line("AUTH PLAIN AGFuYQBwZW5jaWw=").code).equal(502)
  w = world(nil, { policies = known, auth = { mechanisms = "PLAIN" },
    listen = { { SOCKET, service = "lmtp", auth = "require" } } })
  local s = session(w, SOCKET)
  expect(s:line("MAIL FROM:<a@b.example>").code).equal(530)
  expect(s:auth { user = "ana", password = "pencil" }.code).equal(235)
  expect(replies(s, { "v@elsewhere.example" })).equal { 250 }
end)

test("what is wrong with a listener is said", function()
  local function listen(entry, part)
    expect(function() world(nil, { listen = { entry } }) end).fails(part)
  end
  listen({ "127.0.0.1:25", service = "lmtp" }, "'listen[1]' speaks LMTP on port 25")
  listen({ "127.0.0.1", mode = "666" }, "'listen[1].mode' is of no use")
  listen({ "127.0.0.1", group = "mail" }, "'listen[1].group' is of no use")
  listen({ SOCKET, mode = "999" }, "must be what a file permits")
  listen({ "run/lmtp.sock" }, "or the path of a Unix socket")
  listen({ "/" .. ("x"):rep(110) }, "at most 103 octets")
  listen({ SOCKET, service = "lmpt" }, "did you mean")
end)

test("LMTP has no place on port 25, of hosts neither", function()
  for _, name in ipairs { "mail.example:25", "192.0.2.5:25", "[2001:db8::1]:25" } do
    local ok, why = pcall(route.lmtp, { name })
    expect(ok).equal(false)
    expect(why).contains "must not be LMTP on port 25"
    ok, why = pcall(route.hosts, { "lmtp://" .. name })
    expect(ok).equal(false)
    expect(why).contains "must not be LMTP on port 25"
  end
  route.lmtp { "mail.example", "mail.example:24", "/run/lmtp" }
end)
