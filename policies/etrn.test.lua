local sim = require "tern.sim"
local etrn = require "policies.etrn"

local function world(options)
  options = options or {}
  options.deliver_to = options.deliver_to or "192.0.2.10"
  options.allow = options.allow or { "192.0.2.0/24" }
  return sim.world {
    config = { hostname = "mx.isp.example", domains = { ["shop.example"] = etrn(options) } },
  }
end

local function send(w)
  return w:send { from = "a@b.example", to = "u@shop.example", body = "hello" }
end

test("mail accumulates and goes nowhere", function()
  local w = world()
  send(w)
  send(w)
  w:advance "3d"
  expect(w:queue()).size(2)
  expect(w:host("192.0.2.10"):inbox()).size(0)
end)

test("ETRN from an allowed address de-spools to the domain's host", function()
  local w = world()
  send(w)
  local reply = w:etrn { client = "192.0.2.77", domain = "shop.example" }
  expect(reply.code).equal(253)
  w:advance "1m"
  expect(w:host("192.0.2.10"):inbox()).size(1)
  expect(w:host("192.0.2.77"):inbox()).size(0)
  expect(w:queue()).size(0)
end)

test("ETRN from elsewhere, or for a domain that is none of ours, is refused alike", function()
  local w = world()
  send(w)
  local foreign = w:etrn { client = "203.0.113.9", domain = "shop.example" }
  local unknown = w:etrn { client = "192.0.2.77", domain = "other.example" }
  expect(foreign.code).equal(459)
  expect(unknown.code).equal(459)
  w:advance "1d"
  expect(w:queue()).size(1)
end)

test("nothing waiting is told so", function()
  local w = world()
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(251)
end)

test("what comes after the release is held again", function()
  local w = world()
  send(w)
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "1h"
  send(w)
  w:advance "1d"
  expect(w:host("192.0.2.10"):inbox()).size(1)
  expect(w:queue()).size(1)
end)

test("a host that is down leaves the mail held", function()
  local w = world()
  local host = w:host("192.0.2.10"):down()
  send(w)
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "1d"
  expect(w:queue()).size(1)
  host:up()
  w:advance "1d"
  expect(w:queue()).size(1)
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "1m"
  expect(host:inbox()).size(1)
end)

test("the mail can go to the client that asked", function()
  local w = world { deliver_to = "client" }
  send(w)
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "1m"
  expect(w:host("192.0.2.77"):inbox()).size(1)
end)
