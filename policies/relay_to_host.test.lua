local sim = require "tern.sim"
local relay_to_host = require "policies.relay_to_host"

local function world(domains, zone)
  return sim.world {
    zone = zone or "",
    config = { hostname = "mx.isp.example", domains = domains },
  }
end

local function send(w, to)
  return w:send { from = "a@b.example", to = to, body = "hello" }
end

test("all mail for the domain goes to the host, which DNS need not know", function()
  local w = world { ["intranet.example"] = relay_to_host { "192.0.2.3:25" } }
  send(w, "u@intranet.example")
  w:advance "1s"
  expect(w:host("192.0.2.3"):inbox()).size(1)
end)

test("its public MX is irrelevant", function()
  local w = world({ ["intranet.example"] = relay_to_host { "192.0.2.3:25" } }, [[
    intranet.example.     MX 10 mx.public.example.
    mx.public.example.    A  192.0.2.99 ]])
  send(w, "u@intranet.example")
  w:advance "1s"
  expect(w:host("192.0.2.3"):inbox()).size(1)
  expect(w:host("192.0.2.99"):inbox()).size(0)
end)

test("a pattern takes subdomains only, the most specific key wins", function()
  local w = world {
    [".branch.example"] = relay_to_host { "192.0.2.4:25" },
    ["north.branch.example"] = relay_to_host { "192.0.2.5:25" },
  }
  send(w, "u@south.branch.example")
  send(w, "u@north.branch.example")
  w:advance "1s"
  expect(w:host("192.0.2.4"):inbox()).size(1)
  expect(w:host("192.0.2.5"):inbox()).size(1)
  expect(send(w, "u@branch.example").code).equal(550)
end)

test("the second host gets it when the first is down", function()
  local w = world { ["intranet.example"] = relay_to_host { "192.0.2.3:25", "192.0.2.4:25" } }
  w:host("192.0.2.3"):down()
  send(w, "u@intranet.example")
  w:advance "1m"
  expect(w:host("192.0.2.4"):inbox()).size(1)
end)

test("it waits while the host is down, and is returned when its time is over", function()
  local w = world { ["intranet.example"] = relay_to_host { "192.0.2.3:25", lifetime = "2d" } }
  w:host("192.0.2.3"):down()
  w:send { from = "", to = "u@intranet.example", body = "hello" }
  w:advance "1d"
  expect(w:queue()).size(1)
  w:advance "2d"
  expect(w:queue()).size(0)
end)
