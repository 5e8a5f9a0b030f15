-- tern.sim tested by itself.
local sim = require "tern.sim"

local ZONE = [[
  example.com.      MX 10 mx1.example.com.
  mx1.example.com.  A  192.0.2.1
  b.example.        MX 10 mx.b.example.
  mx.b.example.     A  192.0.2.80
]]

-- A policy that authorises the domain and leaves the rest to the engine.
local open = { name = "open", rcpt = function() end }

local function world(more)
  local config = { hostname = "mx.isp.example", domains = { ["example.com"] = open } }
  for key, value in pairs(more or {}) do config[key] = value end
  return sim.world { zone = ZONE, config = config }
end

local function send(w, more)
  local mail = { from = "a@b.example", to = "u@example.com", body = "hello" }
  for key, value in pairs(more or {}) do mail[key] = value end
  return w:send(mail)
end

test("a message arrives with all that was said of it", function()
  local w = world()
  local reply = send(w, { client = "203.0.113.7", helo = "me.example", subject = "greetings",
    headers = { ["X-Test"] = "yes" }, body = "one\ntwo" })
  expect(reply.code).equal(250)
  expect(reply.stage).equal("end of data")
  expect(reply.accepted).equal(1)
  expect(tostring(reply)).matches "^250 2%.0%.0 "
  w:advance "1m"
  local mail = w:host("192.0.2.1"):inbox()[1]
  expect(mail.from).equal("a@b.example")
  expect(mail.to).equal { "u@example.com" }
  expect(mail.body).equal("one\r\ntwo")
  expect(mail.helo).equal("mx.isp.example")
  expect(mail.content).contains "Subject: greetings\r\n"
  expect(mail.content).contains "X-Test: yes\r\n"
  expect(mail.content).contains "Received: from me.example"
  expect(mail.content).contains "203.0.113.7"
end)

test("hosts do as they are told", function()
  local w = world()
  local mx, back = w:host("192.0.2.1"), w:host("192.0.2.80")
  mx:reject { rcpt = { 550, "5.1.1", "nobody here" },
    ["late@example.com"] = { 450, "4.2.1", "full" } }
  send(w)
  send(w, { to = "late@example.com" })
  w:advance "1m"
  expect(mx:inbox()).size(0)
  expect(w:queue()).size(1)
  expect(w:queue()[1].recipient).equal("late@example.com")
  expect(w:queue()[1].last_reply).contains "full"
  expect(back:inbox()).size(1)
  expect(back:inbox()[1].content).contains "nobody here"
  expect(back:inbox()[1].from).equal("")
  mx:accept()
  w:advance "1h"
  expect(mx:inbox()).size(1)
  expect(w:queue()).size(0)
end)

test("a greeting, a broken connection, silence", function()
  local w = world()
  local mx = w:host("192.0.2.1"):greet { 421, "busy" }
  send(w)
  w:advance "10s"
  expect(mx:inbox()).size(0)
  mx:accept():drop("final", { taken = true, times = 1 })
  w:advance "1d"
  expect(mx:inbox()).size(2) -- once without a reply, and once more
  mx:silent()
  send(w)
  w:advance "1h"
  expect(w:queue()).size(1)
  mx:up()
  w:advance "1h"
  expect(w:queue()).size(0)
end)

test("hosts offer TLS, or fail in it", function()
  local w = world()
  local mx = w:host("192.0.2.1"):starttls "offered"
  send(w)
  w:advance "1m"
  expect(mx:inbox()[1].tls).truthy()
  mx:starttls "broken"
  send(w)
  w:advance "1m"
  expect(mx:inbox()[2].tls).falsy()
  expect(mx:connections()).equal(3)
end)

test("hosts say how much they take, and get no more", function()
  local w = world()
  local mx = w:host("192.0.2.1"):limits { rcptmax = 2, mailmax = 2 }
  local to = {}
  for i = 1, 5 do to[i] = "u" .. i .. "@example.com" end
  send(w, { to = to })
  w:advance "1m"
  expect(mx:inbox()).size(3)
  expect(#mx:inbox()[1].to).equal(2)
  expect(mx:connections()).equal(2)
  expect(mx:over_limits()).equal(0)
  expect(function() mx:limits { rcptmax = 0 } end).fails "rcptmax"
  expect(function() mx:limits { recipients = 1 } end).fails "recipients"
end)

test("a message demands verified TLS, and policies see that it does", function()
  local seen = {}
  local config = { tls = { cert = "cert.pem", key = "cert.key" },
    policies = { { name = "look", data = function(ctx)
      seen[#seen + 1] = ctx.message.requiretls
    end } } }
  local w = world(config)
  local mx = w:host("192.0.2.1"):starttls("offered"):requiretls()
  w:secure "example.com"
  expect(send(w, { requiretls = true }).code).equal(250)
  expect(send(w).code).equal(250)
  w:advance "1m"
  expect(seen).equal { true, false }
  expect(mx:inbox()).size(2)
  expect(mx:inbox()[1].requiretls).truthy()
  expect(mx:inbox()[2].requiretls).falsy()
  mx:starttls "none"
  w:advance "1m"
  expect(send(w, { requiretls = true }).code).equal(250)
  w:advance "1m"
  expect(mx:inbox()).size(2)
  expect(w:host("192.0.2.80"):inbox()[1].content).contains "5.7.10"
  local s = w:session {}
  s:line "EHLO me.example"
  expect(s:line("MAIL FROM:<a@b.example> REQUIRETLS").code).equal(530)
end)

test("TLS-Required counts as the message stands behind all hooks", function()
  local w = world { policies = { { name = "edit", data = function(ctx)
    local h = ctx.message.headers
    if h:get "X-Take-Out" then h:remove "TLS-Required" end
    if h:get "X-Put-In" then h:add("TLS-Required", "No") end
  end } } }
  w:host("192.0.2.1"):down()
  local no = { ["TLS-Required"] = "No" }
  local apart = "example.com (TLS-Required: No)"
  for i, case in ipairs {
    { headers = {}, queue = "example.com" },
    { headers = no, queue = apart },
    { headers = { ["TLS-Required"] = "No", ["X-Take-Out"] = "1" }, queue = "example.com" },
    { headers = { ["X-Put-In"] = "1" }, queue = apart },
    { headers = { ["TLS-Required"] = "No", ["X-Put-In"] = "1" }, queue = "example.com" }, -- twice
  } do
    expect(send(w, { headers = case.headers }).code).equal(250)
    expect(w:queue()[i].queue).equal(case.queue)
  end
end)

test("DNS fails, and changes", function()
  local w = world()
  w:dns { name = "example.com", type = "MX", status = "servfail" }
  send(w)
  w:advance "1h"
  expect(w:queue()).size(1)
  expect(w:asked("example.com", "MX")).above(1)
  expect(w:asked("example.com", "A")).equal(0)
  w:dns { name = "example.com", status = "ok" }
  w:zone "example.com. MX 10 new.example.com.\nnew.example.com. A 192.0.2.2"
  w:advance "1h"
  expect(w:host("192.0.2.2"):inbox()).size(1)
end)

test("a reload changes what comes next", function()
  local w = world()
  expect(send(w).code).equal(250)
  w:reload { hostname = "mx.isp.example", domains = {
    ["example.com"] = { name = "closed", rcpt = function()
      return require("tern").reject { 550, "5.7.1", "closed" }
    end } } }
  local reply = send(w)
  expect(reply.code).equal(550)
  expect(reply.enhanced).equal("5.7.1")
  expect(reply.text).equal("closed")
  expect(reply.stage).equal("RCPT TO")
  expect(function() w:reload { hostname = 1 } end).fails "hostname"
end)

test("the queue outlives a restart, and a crash", function()
  local w = world()
  local mx = w:host("192.0.2.1"):down()
  send(w)
  w:restart():advance "1m"
  w:crash():advance "1m"
  expect(w:queue()).size(1)
  mx:up()
  w:advance "1h"
  expect(mx:inbox()).size(1)
end)

test("a session line by line", function()
  local w = world()
  local s = w:session { client = "203.0.113.7" }
  expect(s:line("EHLO me.example").text).contains "PIPELINING"
  expect(s:line("MAIL FROM:<a@b.example>").code).equal(250)
  expect(s:line("RCPT TO:<u@elsewhere.example>").code).equal(550)
  expect(s:line("QUIT").code).equal(221)
  expect(s:line("NOOP").code).equal(0)
  s:close()
end)

test("events are told by name, with their fields", function()
  local w = world()
  send(w)
  w:advance "1m"
  expect(w:events "delivered").size(1)
  expect(w:events "delivered"[1].recipient).equal("u@example.com")
  expect(w:events "no_such").size(0)
  expect(#w:events()).above(2)
end)

test("time is the world's own", function()
  local w = world()
  local before = w:now()
  w:advance "12d"
  expect(w:now() - before).equal(12 * 86400)
  w:advance(1.5)
  expect(w:now() - before).equal(12 * 86400 + 1.5)
end)

test("the same seed gives the same run", function()
  local function run(seed)
    local w = sim.world { seed = seed, zone = ZONE, workers = 2,
      config = { hostname = "mx.isp.example", domains = { ["example.com"] = open } } }
    w:host("192.0.2.1"):down()
    for _ = 1, 5 do send(w) end
    w:advance "6h"
    local out = {}
    for _, event in ipairs(w:events()) do out[#out + 1] = event.event .. " " .. event.time end
    return table.concat(out, "\n")
  end
  expect(run(7)).equal(run(7))
  expect(run(7)).never.equal(run(8))
end)

test("what is wrong is said with a hint", function()
  local w = world()
  expect(function() sim.world { konfig = {} } end).fails "did you mean 'config'"
  expect(function() sim.world { config = { hostnam = "x" } } end).fails "did you mean 'hostname'"
  expect(function() w:send { to = "u@example.com", form = "x" } end).fails "did you mean 'from'"
  expect(function() w:send { from = "a@b.example" } end).fails "needs 'to'"
  expect(function() w:host "nowhere" end).fails "no address"
  expect(function() w:host("192.0.2.1"):reject { rcpt = { "no" } } end).fails "reply code"
  expect(function() w:host("192.0.2.1"):reject { rctp = { 550 } } end).fails "rctp"
  expect(function() w:zone "x. A nonsense" end).fails "line 1"
  expect(function() w:advance "12 parsecs" end).fails "duration"
  expect(function() w:send { to = "u@example.com", port = 2525 } end).fails "does not listen"
  expect(function() expect(1).eqaul(1) end).fails "did you mean 'equal'"
  expect(function() coroutine.wrap(function() w:queue() end)() end).fails "coroutine"
end)

test("expect tells both sides", function()
  expect(function() expect(1).equal(2) end).fails "expected 1 to equal 2"
  expect(function() expect({}).size(1) end).fails "to have size 1, not 0"
  expect(function() expect("abc").never.contains "b" end).fails "never to contain"
  expect { 1, { a = 2 } }.equal { 1, { a = 2 } }
  expect { 1, { a = 2 } }.never.equal { 1, { a = 3 } }
  expect { "x", "y" }.contains "y"
  expect(nil).falsy()
  expect(3).below(4)
end)

test("routers of one network live and die on their own", function()
  local first = world()
  local second = first:router { config = { hostname = "mx2.isp.example",
    domains = { ["example.com"] = open } } }
  first:host("192.0.2.1"):down()
  expect(send(first).code).equal(250)
  expect(send(second).code).equal(250)
  first:crash()
  second:advance "1m"
  expect(first:queue()).size(1)
  expect(second:queue()).size(1)
  expect(first:events "delivered").size(0)
  second:host("192.0.2.1"):up()
  second:advance "1h"
  expect(first:now()).equal(second:now())
  local clients = {}
  for _, mail in ipairs(first:host("192.0.2.1"):inbox()) do clients[#clients + 1] = mail.client end
  table.sort(clients)
  expect(clients).equal { "198.51.100.25", "198.51.100.26" }
end)

local kept
test("a world ends with its test", function()
  kept = world()
  expect(kept:queue()).size(0)
end)
test("and cannot be used in the next one", function()
  expect(function() kept:queue() end).fails "ended with the test"
end)
