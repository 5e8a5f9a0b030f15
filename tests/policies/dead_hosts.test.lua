-- What is known of a host belongs to its address, not to the domains behind it.
local sim = require "tern.sim"
local relay_to_host = require "policies.relay_to_host"

local HOST = "192.0.2.1"

local function world(domains)
  local routes = {}
  for _, domain in ipairs(domains) do
    routes[domain] = relay_to_host { HOST, queue = domain }
  end
  return sim.world {
    zone = "sender.example. MX 1 mx.sender.example.\nmx.sender.example. A 192.0.2.80",
    config = { hostname = "mx.isp.example", domains = routes },
  }
end

local function send(w, domain)
  local reply = w:send { from = "a@sender.example", to = "u@" .. domain, body = "hello" }
  expect(reply.code).equal(250)
end

-- How often the host is spoken to in a day, with mail waiting for each of the domains.
local function a_day(domains)
  local w = world(domains)
  local host = w:host(HOST):greet { 421, "4.3.2", "not now" }
  for _, domain in ipairs(domains) do send(w, domain) end
  w:advance "1d"
  return host:connections()
end

test("Q3: ten domains behind a dead host cost hardly more probes than one", function()
  local ten = {}
  for i = 1, 10 do ten[i] = ("d%d.example"):format(i) end
  local alone, together = a_day { "d1.example" }, a_day(ten)
  expect(alone).above(50) -- at least every 15 minutes, and more often at first
  expect(together).below(alone + 20)
end)

test("Q3: when the one that probes gets through, all the others go", function()
  local domains = {}
  for i = 1, 10 do domains[i] = ("d%d.example"):format(i) end
  local w = world(domains)
  local host = w:host(HOST):down()
  for _, domain in ipairs(domains) do send(w, domain) end
  w:advance "1d"
  host:up()
  for _ = 1, 16 * 60 do
    if #host:inbox() > 0 then break end
    w:advance "1s"
  end
  w:advance "5s"
  expect(host:inbox()).size(10)
end)

test("Q3: the one that probes goes on in clear where TLS fails", function()
  local w = world { "d1.example" }
  local host = w:host(HOST):down()
  send(w, "d1.example")
  w:advance "1d"
  host:up():starttls "broken"
  w:advance "16m"
  expect(host:inbox()).size(1)
end)

test("Q3: a host that has been dead for long makes no new mail bounce", function()
  local w = world { "d1.example" }
  local host = w:host(HOST):down()
  send(w, "d1.example")
  w:advance "6d" -- its time is over: that one is returned
  expect(w:events "bounced").size(1)
  send(w, "d1.example")
  w:advance "4d"
  expect(w:events "bounced").size(1)
  expect(w:queue()).size(1)
  host:up()
  w:advance "1h"
  expect(host:inbox()).size(1)
end)
