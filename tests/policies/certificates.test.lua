-- Our certificate towards hosts: which file a route names, and what it means for TLS.
local sim = require "tern.sim"
local route = require "tern.route"
local backup = require "policies.backup"
local etrn = require "policies.etrn"
local relay_to_host = require "policies.relay_to_host"
local smart_host = require "policies.smart_host"

local ZONE = [[
  dest.example.       MX 10 mx.dest.example.
  dest.example.       MX 20 me.example.
  mx.dest.example.    A  192.0.2.80
  other.example.      MX 10 mx.other.example.
  mx.other.example.   A  192.0.2.81
]]
local PAIR = { certificate = "/etc/tern/relay.pem", key = "/etc/tern/relay.key" }

local function with_pair(options)
  for key, value in pairs(PAIR) do options[key] = value end
  return options
end

local function world(config)
  config.hostname, config.relay_from = "me.example", { "10.0.0.0/8" }
  return sim.world { zone = ZONE, config = config }
end

local function send(w, to)
  w:send { client = "10.1.1.1", from = "u@customer.example", to = to or "v@dest.example",
    body = "hello" }
  w:advance "1s"
end

test("each policy shows it to its hosts", function()
  local policies = {
    relay_to_host(with_pair { "192.0.2.80" }),
    smart_host(with_pair { "192.0.2.80" }),
    backup(with_pair {}),
    route.mx(with_pair { domain = "dest.example" }),
    route.hosts(with_pair { "192.0.2.80" }),
  }
  for _, policy in ipairs(policies) do
    local w = world { domains = { ["dest.example"] = policy } }
    local host = w:host("192.0.2.80"):starttls "offered"
    send(w)
    expect(host:inbox()).size(1)
    expect(host:inbox()[1].certificate).equal "/etc/tern/relay.pem"
  end
end)

test("without one none is shown, also where the router has one for clients", function()
  local w = world { tls = { cert = "/etc/tern/mx.pem", key = "/etc/tern/mx.key" },
    domains = { ["dest.example"] = route.hosts { "192.0.2.80" } } }
  local host = w:host("192.0.2.80"):starttls "offered"
  send(w)
  expect(host:inbox()[1].tls).equal(true)
  expect(host:inbox()[1].certificate).equal(nil)
end)

test("it demands TLS", function()
  for _, tls in ipairs { "opportunistic", "dane" } do
    local w = world { domains = {
      ["dest.example"] = route.hosts(with_pair { "[mx.dest.example]", tls = tls }) } }
    local host = w:host "192.0.2.80"
    send(w)
    expect(host:inbox()).size(0)
    host:starttls "offered"
    w:advance "1h"
    expect(host:inbox()[1].certificate).equal "/etc/tern/relay.pem"
  end
end)

test("two hosts with two certificates, over connections of their own", function()
  local w = world { domains = {
    ["dest.example"] = route.hosts(with_pair { "192.0.2.80" }),
    ["other.example"] = route.hosts { "192.0.2.80", certificate = "/etc/tern/other.pem" },
  } }
  local host = w:host("192.0.2.80"):starttls "offered"
  send(w)
  send(w, "v@other.example")
  expect(host:inbox()[1].certificate).equal "/etc/tern/relay.pem"
  expect(host:inbox()[2].certificate).equal "/etc/tern/other.pem"
  expect(host:inbox()[1].session ~= host:inbox()[2].session).equal(true)
end)

test("the option of etrn is another: who may ask", function()
  local w = world { domains = { ["dest.example"] =
    etrn { deliver_to = "192.0.2.80", certificate = "CN=gw.dest.example" } } }
  local host = w:host("192.0.2.80"):starttls "offered"
  send(w)
  expect(host:inbox()).size(0)
  expect(w:queue()).size(1)
end)
