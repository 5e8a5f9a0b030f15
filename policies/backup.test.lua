local sim = require "tern.sim"
local backup = require "policies.backup"

local ZONE = [[
  example.com.      MX 10 mx1.example.com.
  example.com.      MX 20 mx2.isp.example.
  example.com.      MX 30 mx3.isp.example.
  mx1.example.com.  A  192.0.2.1
  mx2.isp.example.  A  198.51.100.2
  mx3.isp.example.  A  198.51.100.3
  null.example.     MX 0 .
]]

local function world(options)
  return sim.world {
    zone = ZONE,
    config = {
      hostname = "mx2.isp.example",
      domains = {
        ["example.com"] = backup(options),
        ["null.example"] = backup(options),
        ["gone.example"] = backup(options),
      },
    },
  }
end

test("mail waits for the primary, however long it takes", function()
  local w = world()
  local primary = w:host("192.0.2.1"):down()
  w:send { from = "a@b.example", to = "u@example.com", body = "hello" }
  w:advance "12d"
  expect(w:queue()).size(1)
  primary:up()
  w:advance "1h"
  expect(primary:inbox()).size(1)
  expect(w:queue()).size(0)
end)

test("mail goes to the primary at once while it is up", function()
  local w = world()
  local primary = w:host("192.0.2.1")
  w:send { from = "a@b.example", to = "u@example.com", body = "hello" }
  w:advance "1s"
  expect(primary:inbox()).size(1)
end)

test("a peer with a worse preference never gets it", function()
  local w = world()
  local primary, worse = w:host("192.0.2.1"):down(), w:host("198.51.100.3")
  w:send { from = "a@b.example", to = "u@example.com", body = "hello" }
  w:advance "3d"
  expect(worse:inbox()).size(0)
  expect(primary:inbox()).size(0)
  expect(w:queue()).size(1)
end)

test("what a living primary refuses is returned to its sender", function()
  local w = world()
  local primary = w:host("192.0.2.1")
  primary:reject { rcpt = { 550, "5.1.1", "no such user" } }
  w:send { from = "", to = "u@example.com", body = "hello" }
  w:advance "1m"
  expect(primary:inbox()).size(0)
  expect(w:queue()).size(0)
end)

test("a domain that takes no mail, or does not exist, is refused at RCPT", function()
  local w = world()
  expect(w:send { from = "a@b.example", to = "u@null.example", body = "x" }.code).equal(556)
  expect(w:send { from = "a@b.example", to = "u@gone.example", body = "x" }.code).equal(550)
end)

test("other domains are not relayed", function()
  local w = world()
  local reply = w:send { from = "a@b.example", to = "u@other.example", body = "x" }
  expect(reply.code).equal(550)
  expect(reply.text).contains("relay")
end)
