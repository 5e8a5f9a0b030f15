-- What one client may do (`clients`), as it shows in a test of policies.
local sim = require "tern.sim"
local tern = require "tern"
local route = require "tern.route"

local ZONE = [[
  example.com. MX 10 mx.example.com.
  mx.example.com. A 192.0.2.1 ]]

local function world(clients)
  return sim.world { zone = ZONE, config = {
    hostname = "mx2.isp.example", clients = clients,
    domains = { ["example.com"] = route.hosts { "192.0.2.1" } },
  } }
end

local function mail(client)
  return { from = "a@b.example", to = "u@example.com", body = "hello", client = client }
end

test("a client may send so much, others what they like", function()
  local w = world { message_rate = "2/h" }
  w:host "192.0.2.1"
  for _ = 1, 2 do expect(w:send(mail "192.0.2.50").code).equal(250) end
  local refused = w:send(mail "192.0.2.50")
  expect(refused.code).equal(450)
  expect(refused.text).matches "Too many messages from your address"
  expect(w:send(mail "192.0.2.51").code).equal(250)
  w:advance "31m"
  expect(w:send(mail "192.0.2.50").code).equal(250)
end)

test("a /64 is one client", function()
  local w = world { message_rate = "1/h" }
  w:host "192.0.2.1"
  expect(w:send(mail "2001:db8:7:7::1").code).equal(250)
  expect(w:send(mail "2001:db8:7:7::2").code).equal(450)
  expect(w:send(mail "2001:db8:7:8::1").code).equal(250)
end)

test("a client that is not named stands for many", function()
  local w = world { message_rate = "1/h", connections = 1 }
  w:host "192.0.2.1"
  for _ = 1, 5 do expect(w:send(mail()).code).equal(250) end
end)

-- RFC 5321, section 3.1: QUIT is waited for; but who goes on about other things is not.
test("who is refused at the greeting has ten seconds to say QUIT", function()
  local w = sim.world { config = {
    hostname = "mx2.isp.example",
    policies = { { connect = function() return tern.reject { 554, "5.7.1", "not you" } end } },
  } }
  local s, began = w:session(), w:now()
  for _ = 1, 3 do
    expect(s:line("NOOP").code).equal(503)
    w:advance "3s"
  end
  expect(s:line("NOOP").code).equal(503)
  expect(s:reply().code).equal(421)
  expect(w:now() - began).below(12)
  local polite = w:session()
  expect(polite:line("QUIT").code).equal(221)
end)
