local sim = require "tern.sim"
local smart_host = require "policies.smart_host"
local relay_to_host = require "policies.relay_to_host"

local ZONE = [[
  smart.isp.example.   A  192.0.2.25
  dest.example.        MX 10 mx.dest.example.
  mx.dest.example.     A  192.0.2.80
]]

local function world(targets)
  return sim.world {
    zone = ZONE,
    config = {
      hostname = "out.isp.example",
      relay_from = { "10.0.0.0/8" },
      domains = { ["local.example"] = relay_to_host { "192.0.2.7:25" } },
      senders = { ["customer.example"] = smart_host(targets) },
    },
  }
end

local function send(w, from, to)
  return w:send { client = "10.1.1.1", from = from, to = to, body = "hello" }
end

test("a domain's outward mail goes to the smart host, by name", function()
  local w = world { "[smart.isp.example]" }
  send(w, "u@customer.example", "v@dest.example")
  w:advance "1s"
  expect(w:host("192.0.2.25"):inbox()).size(1)
  expect(w:host("192.0.2.80"):inbox()).size(0)
end)

test("and by address and port", function()
  local w = world { "192.0.2.26:587" }
  send(w, "u@customer.example", "v@dest.example")
  w:advance "1s"
  expect(w:host("192.0.2.26:587"):inbox()).size(1)
end)

test("mail of others goes by MX", function()
  local w = world { "[smart.isp.example]" }
  send(w, "u@another.example", "v@dest.example")
  w:advance "1s"
  expect(w:host("192.0.2.80"):inbox()).size(1)
end)

test("mail to a domain that we route ourselves never goes to the smart host", function()
  local w = world { "[smart.isp.example]" }
  send(w, "u@customer.example", "v@local.example")
  w:advance "1s"
  expect(w:host("192.0.2.7"):inbox()).size(1)
  expect(w:host("192.0.2.25"):inbox()).size(0)
end)

test("the second host gets it when the first is down", function()
  local w = world { "192.0.2.25", "192.0.2.26" }
  w:host("192.0.2.25"):down()
  send(w, "u@customer.example", "v@dest.example")
  w:advance "1m"
  expect(w:host("192.0.2.26"):inbox()).size(1)
end)

test("a broken smart host never makes mail bounce", function()
  local w = world { "[smart.isp.example]" }
  local smart = w:host("192.0.2.25"):down()
  send(w, "u@customer.example", "v@dest.example")
  w:advance "20d"
  expect(w:queue()).size(1)
  smart:up()
  w:advance "1h"
  expect(smart:inbox()).size(1)
end)

test("a sender's domain alone allows nobody to relay", function()
  local w = world { "[smart.isp.example]" }
  local reply = w:send { client = "203.0.113.9", from = "u@customer.example",
    to = "v@dest.example", body = "x" }
  expect(reply.code).equal(550)
end)
