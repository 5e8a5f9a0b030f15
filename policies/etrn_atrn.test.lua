-- ATRN (RFC 2645): the mail goes out over the connection on which it was asked for.
local sim = require "tern.sim"
local tern = require "tern"
local etrn = require "policies.etrn"

local directory = { auth = function(ctx)
  return tern.accept { identity = ctx.credentials.user, password = "pencil" }
end }

local function config(domains, more)
  local c = {
    hostname = "mx.isp.example",
    listen = { "198.51.100.25:25", { "198.51.100.25:366", service = "odmr" } },
    policies = { directory },
    auth = { mechanisms = "CRAM-MD5" },
    domains = domains or {
      ["shop.example"]  = etrn { identity = "ana" },
      ["store.example"] = etrn { identity = { "ana", "bob" } },
      ["other.example"] = etrn { identity = "bob" },
      ["plain.example"] = etrn { deliver_to = "192.0.2.10", allow = "0.0.0.0/0" },
    },
  }
  for k, v in pairs(more or {}) do c[k] = v end
  return c
end

local function world(...)
  return sim.world {
    zone = "b.example. MX 1 mx.b.example.\nmx.b.example. A 192.0.2.80",
    workers = 4, config = config(...),
  }
end

local function send(w, ...)
  for _, to in ipairs { ... } do
    expect(w:send { from = "a@b.example", to = to, body = "for " .. to }.code).equal(250)
  end
end

local function asking(w, user)
  local s = w:session { client = "192.0.2.77", port = 366 }
  expect(s:line "EHLO shop.example".text).contains "ATRN"
  if user then
    expect(s:auth { mechanism = "CRAM-MD5", user = user, password = "pencil" }.code).equal(235)
  end
  return s
end

local function recipients(host)
  local all = {}
  for _, m in ipairs(host:inbox()) do
    for _, to in ipairs(m.to) do all[#all + 1] = to end
  end
  table.sort(all)
  return all
end

test("E13: AUTH first, then the roles turn, and what the identity owns goes out", function()
  local w = world()
  send(w, "u@shop.example", "v@shop.example", "u@store.example", "u@other.example",
    "u@plain.example")
  local s = asking(w)
  expect(s:line "ATRN".code).equal(530)
  expect(s:line "ATRN shop.example".enhanced).equal "5.7.0"
  expect(s:auth { mechanism = "CRAM-MD5", user = "ana", password = "pencil" }.code).equal(235)
  expect(s:line "ATRN".code).equal(250)
  local client = s:serve(w:host "192.0.2.77")
  w:advance "30s"
  expect(recipients(client)).equal { "u@shop.example", "u@store.example", "v@shop.example" }
  expect(client:connections()).equal(1)
  expect(client:inbox()[1].helo).equal "mx.isp.example"
  expect(w:queue()).size(2)
  expect(w:events "delivered"[1].host).equal "192.0.2.77 by ATRN"
  expect(w:events "turn_ended"[1].why).equal "done"
end)

test("E13: named domains go, others stay; one that is forbidden stops all", function()
  local w = world()
  send(w, "u@shop.example", "u@store.example", "u@other.example")
  local s = asking(w, "ana")
  expect(s:line "ATRN shop.example,other.example".code).equal(450)
  expect(s:line "ATRN nowhere.example".code).equal(450)
  expect(s:line "ATRN plain.example".code).equal(450)
  expect(s:line "ATRN not_a..domain".code).equal(501)
  expect(s:line "ATRN store.example,".code).equal(501)
  w:advance "1m"
  expect(w:queue()).size(3)
  expect(s:line "ATRN STORE.example".code).equal(250)
  expect(recipients(s:serve(w:host "192.0.2.77"))).size(0)
  w:advance "30s"
  expect(recipients(w:host "192.0.2.77")).equal { "u@store.example" }
  expect(w:queue()).size(2)
end)

test("E13: no mail is 453, one that runs already 451, elsewhere it is 502", function()
  local w = world({
    ["shop.example"] = etrn { identity = "ana", deliver_to = "192.0.2.10",
                              allow = function() return true end },
  })
  local s = asking(w, "ana")
  expect(s:line "ATRN".code).equal(453)
  expect(s:line "ATRN shop.example".code).equal(453)
  expect(s:line "MAIL FROM:<a@b.example>".code).equal(502)
  expect(s:line "ETRN shop.example".code).equal(502)
  w:host "192.0.2.10":down()
  send(w, "u@shop.example")
  local usual = w:session { client = "192.0.2.77" }
  expect(usual:line "EHLO shop.example".text).never.contains "ATRN"
  expect(usual:auth { mechanism = "CRAM-MD5", user = "ana", password = "pencil" }.code).equal(235)
  expect(usual:line "ATRN shop.example".code).equal(502)
  expect(usual:line "ETRN shop.example".code).equal(253)
  expect(s:line "ATRN shop.example".code).equal(451)
  w:advance "1h"
  s:close()
  s = asking(w, "ana")
  expect(s:line "ATRN shop.example".code).equal(250)
  s:serve(w:host "192.0.2.77")
  w:advance "30s"
  expect(w:queue()).size(0)
end)

test("E13: what the client refuses has its usual fate; what breaks off loses nothing", function()
  local w = world()
  send(w, "no@shop.example", "later@shop.example", "yes@shop.example", "u@store.example")
  local s = asking(w, "ana")
  local client = w:host "192.0.2.77":reject {
    ["no@shop.example"] = { 550, "5.1.1", "no such user" },
    ["later@shop.example"] = { 452, "4.2.2", "full" },
  }
  expect(s:line "ATRN".code).equal(250)
  s:serve(client)
  w:advance "1m"
  expect(recipients(client)).equal { "u@store.example", "yes@shop.example" }
  expect(w:events "bounced").size(1)
  expect(w:queue()[1].recipient).equal "later@shop.example"
  expect(w:queue()[1].state).equal "waiting"
  client:accept():drop("body", { times = 1 })
  send(w, "w@shop.example", "x@shop.example")
  w:advance "1h"
  s = asking(w, "ana")
  expect(s:line "ATRN".code).equal(250)
  s:serve(client)
  w:advance "1m"
  expect(#w:events "turn_ended").equal(2)
  local waiting = #w:queue()
  expect(waiting).above(0)
  w:advance "5h"
  expect(w:queue()).size(waiting)
  s = asking(w, "ana")
  expect(s:line "ATRN".code).equal(250)
  s:serve(client)
  w:advance "1m"
  local left = {}
  for _, r in ipairs(w:queue()) do
    if r.recipient:find "@s" then left[#left + 1] = r.recipient end
  end
  expect(left).equal {}
end)

test("E13: a hundred messages to many domains, and a client that says nothing", function()
  local w = world({ ["*"] = etrn { identity = "ana" } })
  for i = 1, 120 do send(w, ("u%d@d%d.example"):format(i, i % 7)) end
  local s = asking(w, "ana")
  expect(s:line "ATRN".code).equal(250)
  w:advance "9m" -- idle for less than ten minutes
  s:serve(w:host "192.0.2.77")
  w:advance "2m"
  expect(w:queue()).size(0)
  expect(recipients(w:host "192.0.2.77")).size(120)
  s = asking(w, "ana")
  w:advance "9m"
  expect(s:line "NOOP".code).equal(250) -- RFC 2645: idle for ten minutes at least
  -- One that never becomes a server.
  send(w, "u@d1.example")
  expect(s:line "ATRN".code).equal(250)
  w:advance "16m"
  expect(w:queue()).size(1)
  expect(w:events "turn_ended").size(2)
  s = asking(w, "ana")
  expect(s:line "ATRN".code).equal(250)
  s:serve(w:host "192.0.2.77")
  w:advance "2m"
  expect(w:queue()).size(0)
end)

test("E13: a crash or a reload in the middle loses nothing", function()
  for _, how in ipairs { "crash", "restart", "reload" } do
    for ms = 1, 40, 3 do
      local w = world()
      send(w, "u@shop.example", "v@shop.example", "u@store.example")
      local s = asking(w, "ana")
      expect(s:line "ATRN".code).equal(250)
      local client = s:serve(w:host "192.0.2.77":slow "4ms")
      w:advance(ms / 1000)
      if how == "reload" then w:reload(config()) else w[how](w) end
      w:advance "1h"
      s = asking(w, "ana")
      local code = s:line "ATRN".code
      if code == 250 then s:serve(client) else expect(code).equal(453) end
      w:advance "1m"
      expect(w:queue()).size(0)
      local got = {}
      for _, to in ipairs(recipients(client)) do got[to] = true end
      expect(got).equal { ["u@shop.example"] = true, ["v@shop.example"] = true,
                          ["u@store.example"] = true }
    end
  end
end)

test("E13: what is refused for now does not end the turn, however much it is", function()
  local w = world()
  local full = {}
  for i = 1, 130 do
    full[("u%d@shop.example"):format(i)] = { 452, "4.2.2", "full" }
    send(w, ("u%d@shop.example"):format(i))
  end
  send(w, "yes@shop.example", "u@store.example")
  local s = asking(w, "ana")
  expect(s:line "ATRN".code).equal(250)
  local client = s:serve(w:host "192.0.2.77":reject(full))
  w:advance "5m"
  expect(recipients(client)).equal { "u@store.example", "yes@shop.example" }
  expect(w:events "turn_ended"[1].why).equal "done"
  expect(client:connections()).equal(1)
  expect(w:queue()).size(130)
end)

test("E13: a reload does not end the turn", function()
  for ms = 1, 40, 3 do
    local w = world()
    send(w, "no@shop.example", "u@shop.example", "later@shop.example", "u@store.example")
    local s = asking(w, "ana")
    expect(s:line "ATRN".code).equal(250)
    local client = w:host "192.0.2.77":slow "2ms":reject {
      ["no@shop.example"] = { 452, "4.2.2", "full" },
      ["later@shop.example"] = { 452, "4.2.2", "full" },
    }
    s:serve(client)
    w:advance(ms / 1000)
    w:reload(config())
    w:advance "5m"
    expect(recipients(client)).equal { "u@shop.example", "u@store.example" }
    expect(w:events "turn_ended"[1].why).equal "done"
  end
end)

-- RFC 8689: nobody vouches for a client in that role. It is returned, and the others go.
test("E13: mail that demands TLS all the way does not go to a client that turns", function()
  local w = world(nil, { tls = { cert = "cert.pem", key = "cert.key" } })
  local reply = w:send { from = "a@b.example", to = "safe@shop.example", requiretls = true }
  expect(reply.code).equal(250)
  send(w, "u@shop.example")
  local s = asking(w, "ana")
  expect(s:line "ATRN shop.example".code).equal(250)
  local client = s:serve(w:host "192.0.2.77")
  w:advance "1m"
  expect(recipients(client)).equal { "u@shop.example" }
  expect(w:queue()).size(0)
  expect(w:host("192.0.2.80"):inbox()).size(1)
  expect(w:host("192.0.2.80"):inbox()[1].content).contains "5.7.10"
end)
