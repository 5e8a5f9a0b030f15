-- Rates and local addresses: options of each of the four policies, and of the configuration.
local sim = require "tern.sim"
local route = require "tern.route"

local HOST = "192.0.2.1"
local ONE, TWO = "198.51.100.1", "198.51.100.2"

local policies = {
  backup = function(options)
    return { domains = { ["example.com"] = require "policies.backup" (options) } }
  end,
  relay_to_host = function(options)
    options[1] = HOST
    return { domains = { ["example.com"] = require "policies.relay_to_host" (options) } }
  end,
  smart_host = function(options)
    options[1] = HOST
    return { relay_from = "0.0.0.0/0",
      senders = { ["sender.example"] = require "policies.smart_host" (options) } }
  end,
  etrn = function(options)
    options.deliver_to, options.allow = HOST, "192.0.2.0/24"
    return { domains = { ["example.com"] = require "policies.etrn" (options) } }
  end,
}

local function world(config)
  config.hostname = "mx2.isp.example"
  return sim.world {
    zone = [[
      example.com.       MX 10 mx1.example.com.
      example.com.       MX 20 mx2.isp.example.
      mx1.example.com.   A 192.0.2.1
      mx2.isp.example.   A 198.51.100.25
      sender.example.    MX 1 mx.sender.example.
      mx.sender.example. A 192.0.2.80 ]],
    config = config,
  }
end

local function send(w, count)
  for _ = 1, count do
    expect(w:send { from = "a@sender.example", to = "u@example.com", body = "x" }.code).equal(250)
  end
end

local function release(w, name)
  if name == "etrn" then
    expect(w:etrn { client = "192.0.2.77", domain = "example.com" }.code).equal(253)
  end
end

-- The most in any period of so many seconds.
local function most_in(inbox, seconds)
  local most, k = 0, 1
  for i, mail in ipairs(inbox) do
    while mail.time - inbox[k].time >= seconds - 1e-6 do k = k + 1 end
    most = math.max(most, i - k + 1)
  end
  return most
end

local function from(inbox)
  local count = {}
  for _, mail in ipairs(inbox) do count[mail.client] = (count[mail.client] or 0) + 1 end
  return count
end

for _, name in ipairs { "backup", "smart_host", "relay_to_host", "etrn" } do
  local config = policies[name]
  test(name .. ": rate", function()
    local w = world(config { rate = "6/m" })
    send(w, 20)
    release(w, name)
    w:advance "5m"
    local inbox = w:host(HOST):inbox()
    expect(#inbox).equal(20)
    expect(most_in(inbox, 60)).equal(6)
    expect(w:events "queue_backoff").size(0)
    expect(w:events "deferred").size(0)
  end)

  test(name .. ": one source", function()
    local w = world(config { source = ONE })
    send(w, 3)
    release(w, name)
    w:advance "1m"
    expect(from(w:host(HOST):inbox())).equal { [ONE] = 3 }
  end)

  test(name .. ": several sources, with limits and names of their own", function()
    local c = config { source = { ONE, TWO } }
    c.sources = { [ONE] = { hostname = "out1.isp.example", rate = "3/h,burst=3" },
      [TWO] = { hostname = "out2.isp.example", concurrency = 1 } }
    local w = world(c)
    send(w, 12)
    release(w, name)
    w:advance "1m"
    local inbox = w:host(HOST):inbox()
    expect(from(inbox)).equal { [ONE] = 3, [TWO] = 9 }
    for _, mail in ipairs(inbox) do
      expect(mail.helo).equal(mail.client == ONE and "out1.isp.example" or "out2.isp.example")
    end
  end)
end

test("a source that is not on this machine: another one, or none, and the host is not to blame",
  function()
    local w = world(policies.relay_to_host { source = { ONE, TWO } }):lacks(ONE)
    send(w, 4)
    w:advance "10s"
    expect(from(w:host(HOST):inbox())).equal { [TWO] = 4 }
    local missing = w:events "source_missing"
    expect(missing).size(1)
    expect(missing[1].why).equal("source address 198.51.100.1 is not on this machine")
    w:lacks(TWO)
    w:advance "10s"
    send(w, 2)
    w:advance "10m"
    expect(w:queue()).size(2)
    expect(w:events "host_failed").size(0)
    w:lacks(TWO, false)
    w:advance "2m"
    expect(w:queue()).size(0)
  end)

test("a rate for each destination, by a policy for all mail", function()
  local w = sim.world {
    zone = [[
      a.example. MX 1 mx.a.example.
      mx.a.example. A 192.0.2.10
      b.example. MX 1 mx.b.example.
      mx.b.example. A 192.0.2.20 ]],
    config = { hostname = "mx.isp.example", relay_from = "0.0.0.0/0",
      policies = { { name = "pace", route = function()
        return route.mx { rate = "2/m", source = ONE }
      end } } },
  }
  for _ = 1, 4 do
    w:send { to = { "u@a.example", "u@b.example" } }
  end
  w:advance "5m"
  for _, host in ipairs { "192.0.2.10", "192.0.2.20" } do
    expect(w:host(host):inbox()).size(4)
    expect(most_in(w:host(host):inbox(), 60)).equal(2)
  end
end)

test("what is written wrong is told with its place and an example", function()
  expect(function() route.mx { domain = "a.example", rate = "fast" } end).fails(
    "'rate' must be a rate such as \"100/m\", \"2/s\" or \"1000/h,burst=20\", got \"fast\"")
  expect(function() route.mx { domain = "a.example", source = "0.0.0.0" } end).fails(
    "'source' must be an address of this machine such as \"192.0.2.1\", got \"0.0.0.0\"")
  expect(function() route.mx { domain = "a.example", source = { ONE, "224.0.0.1" } } end).fails(
    "'source[2]' must be an address of this machine")
  expect(function() world { sources = { ["mx.example"] = {} } } end).fails(
    "\"mx.example\" is not an address that connections can be made from")
  expect(function() world { sources = { [ONE] = { hostnam = "a.example" } } } end).fails(
    "did you mean 'hostname'?")
  expect(function() world { sources = { [ONE] = { rate = "1/0s" } } } end).fails(
    "must be a rate such as")
  expect(function() world { sources = { "192.0.2.1" } } end).fails("is not an address")
  expect(function() world { sources = { ["::1"] = {}, ["0:0::1"] = {} } } end).fails("twice")
end)
