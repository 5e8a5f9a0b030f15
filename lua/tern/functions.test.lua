-- `domains` and `senders` as functions: what they may return, and that they may wait.
local sim = require "tern.sim"
local tern = require "tern"
local route = require "tern.route"
local relay_to_host = require "policies.relay_to_host"

local function world(config, zone)
  config.hostname = "mx.isp.example"
  return sim.world { zone = zone or "", config = config }
end

local function send(w, to, from)
  return w:send { from = from or "a@sender.example", to = to, body = "hello" }
end

test("H3: what the function knows is authorised, and the rest is no relay", function()
  local names = {}
  local w = world { domains = function(name)
    names[#names + 1] = name
    if name == "example.com" then return relay_to_host { "192.0.2.1:25" } end
  end }
  expect(send(w, "u@Example.COM").code).equal(250)
  expect(send(w, "u@other.example").code).equal(550)
  expect(names[1]).equal "example.com" -- in normal form
  w:advance "1m"
  expect(w:host("192.0.2.1"):inbox()).size(1)
end)

test("a route may stand for a policy", function()
  local w = world { domains = function() return route.hosts { "192.0.2.1:25" } end }
  expect(send(w, "u@any.example").code).equal(250)
  w:advance "1m"
  expect(w:host("192.0.2.1"):inbox()).size(1)
end)

test("it may ask DNS: the mail waits for the answer, and nothing else does", function()
  local w = world({ domains = function(name)
    local found = tern.dns.txt("_route." .. name)
    return found and relay_to_host { found[1] } or nil
  end }, [[_route.example.com. TXT "192.0.2.1:25"]])
  expect(send(w, "u@example.com").code).equal(250)
  expect(send(w, "u@other.example").code).equal(550)
  w:advance "1m"
  expect(w:host("192.0.2.1"):inbox()).size(1)
  expect(w:asked("_route.example.com", "TXT")).above(0)
end)

test("one that raises: 451 4.3.0, and it is told of", function()
  local w = world { domains = function(name)
    if name == "bad.example" then error "no database" end
    return relay_to_host { "192.0.2.1:25" }
  end }
  local reply = send(w, "u@bad.example")
  expect(reply.code).equal(451)
  expect(reply.enhanced).equal "4.3.0"
  expect(w:events("policy_error")[1].message).contains "no database"
  expect(send(w, "u@good.example").code).equal(250)
end)

test("one that returns no policy: 451, and the log says what it was", function()
  local typo = { rctp = function() end }
  for _, wrong in ipairs { { true, "boolean" }, { typo, "did you mean 'rcpt'" } } do
    local w = world { domains = function() return wrong[1] end }
    expect(send(w, "u@bad.example").code).equal(451)
    local message = w:events("policy_error")[1].message
    expect(message).contains "what the function 'domains' returned: "
    expect(message).contains(wrong[2])
  end
end)

test("one that fails in the queue: the mail waits", function()
  local down = false
  local w = world { domains = function()
    if down then error "no database" end
    return { route = function() return route.hosts { "192.0.2.1:25" } end }
  end }
  w:host("192.0.2.1"):down()
  expect(send(w, "u@example.com").code).equal(250)
  w:advance "10s"
  down = true
  w:host("192.0.2.1"):up()
  w:reload { hostname = "mx.isp.example", domains = function()
    if down then error "no database" end
    return { route = function() return route.hosts { "192.0.2.2:25" } end }
  end }
  w:advance "1h"
  expect(w:queue()).size(1)
  expect(w:events "bounced").size(0)
  down = false
  w:advance "1d"
  expect(w:queue()).size(0)
  expect(w:host("192.0.2.2"):inbox()).size(1)
end)

test("S1: senders by function: it gets the address, \"\" for the null sender", function()
  local asked = {}
  local w = world { relay_from = { "0.0.0.0/0" }, senders = function(sender)
    asked[sender] = true
    if sender == "boss@firm.example" then return route.hosts { "192.0.2.1:25" } end
    if sender == "" then return route.hosts { "192.0.2.2:25" } end
    local found = tern.dns.a "relay.example"
    return found and route.hosts { found[1] .. ":25" } or nil
  end }
  w:zone "relay.example. A 192.0.2.3"
  send(w, "u@far.example", "Boss@firm.example")
  send(w, "u@far.example", "x@firm.example")
  w:send { from = "", to = "u@far.example", body = "report" }
  w:advance "1m"
  expect(w:host("192.0.2.1"):inbox()).size(1)
  expect(w:host("192.0.2.2"):inbox()).size(1)
  expect(w:host("192.0.2.3"):inbox()).size(1)
  expect(asked["boss@firm.example"] and asked[""]).truthy()
end)
