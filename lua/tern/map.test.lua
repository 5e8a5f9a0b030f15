-- Maps from files (docs/maps.md), as domains, as senders, and in hooks; and files that change.
local sim = require "tern.sim"
local tern = require "tern"
local route = require "tern.route"
local backup = require "policies.backup"
local relay_to_host = require "policies.relay_to_host"
local etrn = require "policies.etrn"

local ZONE = [[
  sender.example.   MX 10 mx.sender.example.
  mx.sender.example. A 192.0.2.80
]]

local function by_file(more)
  local config = {
    hostname = "mx.isp.example",
    domains = tern.map.file("domains.csv", { policies = {
      relay = relay_to_host, backup = backup(), etrn = etrn, hold = route.hold { queue = "later" },
    } }),
  }
  for key, value in pairs(more or {}) do config[key] = value end
  return sim.world { zone = ZONE, config = config }
end

local function send(w, to, from)
  return w:send { from = from or "a@sender.example", to = to, body = "hello" }
end

test("H2, H3: rows authorise and route; suffixes, '*' and IDNs as in a table", function()
  sim.file("domains.csv", [[
# who goes where
example.com,      relay, 192.0.2.1:25
.example.com,     relay, 192.0.2.2:25, 192.0.2.3:25
münchen.example,  relay, "192.0.2.4:25"
]])
  local w = by_file()
  expect(send(w, "u@Example.com").code).equal(250)
  expect(send(w, "u@sub.example.com").code).equal(250)
  expect(send(w, "u@xn--mnchen-3ya.example").code).equal(250)
  local refused = send(w, "u@other.example")
  expect(refused.code).equal(550)
  expect(refused.enhanced).equal "5.7.1"
  w:advance "1m"
  expect(w:host("192.0.2.1"):inbox()).size(1)
  expect(w:host("192.0.2.2"):inbox()).size(1)
  expect(w:host("192.0.2.4"):inbox()).size(1)
  expect(w:asked("example.com", "MX")).equal(0)
end)

test("values of a row become options: names, numbers, lists", function()
  sim.file("domains.csv", "example.com, relay, 192.0.2.1:25, concurrency=1, tls=require\n"
    .. "two.example, etrn, deliver_to=192.0.2.5, allow=198.51.100.0/24, allow=203.0.113.0/24\n")
  local w = by_file()
  send(w, "u@example.com")
  w:advance "1s"
  expect(w:host("192.0.2.1"):inbox()).size(0) -- it offers no TLS
  w:host("192.0.2.1"):starttls "offered"
  w:advance "1h"
  expect(w:host("192.0.2.1"):inbox()).size(1)

  send(w, "u@two.example")
  expect(w:etrn { client = "192.0.2.99", domain = "two.example" }.code).equal(459)
  expect(w:etrn { client = "203.0.113.1", domain = "two.example" }.code // 10).equal(25)
  w:advance "1m"
  expect(w:host("192.0.2.5"):inbox()).size(1)
end)

test("E1: ETRN is offered when rows may have such a policy", function()
  sim.file("domains.csv", "shop.example, etrn, deliver_to=192.0.2.5, allow=192.0.2.0/24\n")
  local w = by_file()
  expect(w:session({}):line("EHLO x.example").text).contains "ETRN"

  sim.file("domains.csv", "example.com, relay, 192.0.2.1:25\n")
  w = sim.world { zone = ZONE, config = { hostname = "mx.isp.example",
    domains = tern.map.file("domains.csv", { policies = { relay = relay_to_host } }) } }
  expect(w:session({}):line("EHLO x.example").text).never.contains "ETRN"
end)

test("H7: a changed file holds at once, also for what waits", function()
  sim.file("domains.csv", "example.com, relay, 192.0.2.1:25\nheld.example, hold\n")
  local w = by_file()
  w:host("192.0.2.1"):down()
  send(w, "u@example.com")
  send(w, "u@held.example")
  w:advance "1m"
  expect(send(w, "u@new.example").code).equal(550)
  expect(sim.file("domains.csv", "example.com, relay, 192.0.2.2:25\n"
    .. "held.example, relay, 192.0.2.2:25\nnew.example, relay, 192.0.2.2:25\n")).truthy()
  expect(send(w, "u@new.example").code).equal(250)
  w:advance "1h"
  expect(w:host("192.0.2.2"):inbox()).size(3)
  expect(w:queue()).size(0)
end)

test("a broken file is refused with its line, and the former one stays", function()
  sim.file("domains.csv", "example.com, relay, 192.0.2.1:25\n")
  local w = by_file()
  for _, broken in ipairs {
    { "example.com, relay, 192.0.2.2:25\nexample.com, hold\n", "domains.csv:2: \"example.com\" " },
    { "\nexample.com, relya\n", 'domains.csv:2: unknown policy "relya"; there are backup, ' },
    { "example.com\n", "domains.csv:1: the second field must name a policy" },
    { "exa mple, hold\n", 'domains.csv:1: "exa mple" is not a domain' },
  } do
    local ok, message = sim.file("domains.csv", broken[1])
    expect(ok).falsy()
    expect(message).contains(broken[2])
  end
  local ok, message = sim.file("domains.csv", nil)
  expect(ok).falsy()
  expect(message).contains "cannot read "
  send(w, "u@example.com")
  w:advance "1m"
  expect(w:host("192.0.2.1"):inbox()).size(1)
end)

test("a row that makes no policy: its mail is deferred, and the log names the row", function()
  sim.file("domains.csv", "example.com, relay, 192.0.2.1:25\nbad.example, relay\n")
  local w = by_file()
  expect(send(w, "u@bad.example").code).equal(451)
  expect(w:events("policy_error")[1].message).contains "domains.csv:2: relay_to_host needs "
  expect(send(w, "u@example.com").code).equal(250)
end)

test("the first row of each function is tried when the configuration is loaded", function()
  sim.file("domains.csv", "example.com, relay, not:a:host\n")
  expect(by_file).fails "domains.csv:1: relay_to_host: "
end)

test("a function gets the row: its values, key and policy; and is called once for each", function()
  local calls = {}
  sim.file("domains.csv", "one.example, to, 192.0.2.1, note=first\n.two.example, to, 192.0.2.2\n")
  local w = sim.world { zone = ZONE, config = { hostname = "mx.isp.example",
    domains = tern.map.file("domains.csv", { policies = { to = function(row)
      calls[#calls + 1] = { row.key, row.policy, row[1], row.note or "-" }
      return relay_to_host { row[1] .. ":25" }
    end } }) } }
  for _ = 1, 3 do
    send(w, "u@one.example")
    send(w, "u@sub.two.example")
  end
  expect(calls).equal { { "one.example", "to", "192.0.2.1", "first" },
    { ".two.example", "to", "192.0.2.2", "-" } }
  w:advance "1m"
  expect(w:host("192.0.2.2"):inbox()).size(3)
  -- a new version: nothing that was made of the former one is used
  sim.file("domains.csv", "one.example, to, 192.0.2.3\n")
  send(w, "u@one.example")
  w:advance "1m"
  expect(w:host("192.0.2.3"):inbox()).size(1)
end)

test("a function that returns nil: as if the row were not there", function()
  sim.file("domains.csv", "one.example, 2020\ntwo.example, 2030\n")
  local w = sim.world { zone = ZONE, config = { hostname = "mx.isp.example",
    domains = tern.map.file("domains.csv", { policy = function(row)
      if tonumber(row[1]) > 2025 then return relay_to_host { "192.0.2.1:25" } end
    end }) } }
  expect(send(w, "u@one.example").code).equal(550)
  expect(send(w, "u@two.example").code).equal(250)
end)

test("one policy for a list of names; its data hook is asked once for a message", function()
  local asked = 0
  sim.file("domains.csv", "one.example\ntwo.example\n")
  local w = sim.world { zone = ZONE, config = { hostname = "mx.isp.example",
    domains = tern.map.file("domains.csv", { policy = {
      route = function() return route.hosts { "192.0.2.1:25" } end,
      data = function() asked = asked + 1 end,
    } }) } }
  expect(send(w, { "u@one.example", "u@two.example", "v@one.example" }).code).equal(250)
  expect(asked).equal(1)
end)

test("more rows than are kept", function()
  local rows, made = {}, 0
  for i = 1, 2500 do rows[i] = ("d%d.example, x%d"):format(i, i) end
  sim.file("domains.csv", table.concat(rows, "\n"))
  local w = sim.world { zone = ZONE, config = { hostname = "mx.isp.example",
    domains = tern.map.file("domains.csv", { policy = function(row)
      made = made + 1
      return { rcpt = function() return tern.reject { 550, "5.7.1", row.key .. row[1] } end }
    end }) } }
  local s = w:session {}
  s:line "EHLO x.example"
  s:line "MAIL FROM:<a@sender.example>"
  local function ask(i)
    expect(s:line(("RCPT TO:<u@d%d.example>"):format(i)).text).contains(
      ("d%d.examplex%d"):format(i, i))
  end
  for i = 1, 2500, 250 do ask(i) end
  local before = made
  for i = 1, 2500, 250 do ask(i) end
  expect(made).equal(before)
end)

test("S1: senders by file: the address, its domain, the null sender", function()
  sim.file("senders.csv", [[
Boss@firm.example,   192.0.2.1
@firm.example,       192.0.2.2
<>,                  192.0.2.3
]])
  local w = sim.world { zone = ZONE, config = { hostname = "mx.isp.example",
    relay_from = { "0.0.0.0/0" },
    senders = tern.map.file("senders.csv", { policy = function(row)
      return route.hosts { row[1] .. ":25" }
    end }) } }
  send(w, "u@far.example", "boss@Firm.example")
  send(w, "u@far.example", "clerk@firm.example")
  w:send { from = "", to = "u@far.example", body = "report" }
  w:advance "1m"
  expect(w:host("192.0.2.1"):inbox()[1].from).equal "boss@Firm.example"
  expect(w:host("192.0.2.2"):inbox()[1].from).equal "clerk@firm.example"
  expect(w:host("192.0.2.3"):inbox()).size(1)
end)

test("get: domains, addresses, texts, networks", function()
  sim.file("any.csv", "example.com, a, \"b, c\"\n.example.com, below\nu@example.com\nx.example,\n")
  local map = tern.map.file "any.csv"
  expect({ map:get "EXAMPLE.com." }).equal { "a", "b, c" }
  expect({ map:get "v@example.com" }).equal { "a", "b, c" }
  expect(map:get "U@example.com").equal(true)
  expect(map:get "sub.example.com").equal "below"
  expect(map:get "x.example").equal ""
  expect(map:get "y.example").equal(nil)
  expect(map:get "not a domain").equal(nil)
  expect(map:get(nil)).equal(nil)
  expect(map:count()).equal(4)
  expect(tostring(map)).equal "map of any.csv"
  expect(function() map:get(12) end).fails "needs a text"
  expect(function() return map.size end).fails "map has no field 'size'"

  sim.file("texts.csv", "One Two,3\n")
  local texts = tern.map.file("texts.csv", { keys = "text" })
  expect(texts:get "One Two").equal "3"
  expect(texts:get "one two").equal(nil)

  sim.file("nets.txt", "10.0.0.0/8, ten\n10.1.0.0/16, one, more\n2001:db8::/32, six\n")
  local nets = tern.map.cidr "nets.txt"
  expect({ nets:get "10.1.2.3" }).equal { "one", "more" }
  expect(nets:get "10.2.2.3:25").equal "ten"
  expect(nets:get { address = "2001:db8::1" }).equal "six"
  expect(nets:get "192.0.2.1").equal(nil)
  expect(function() nets:get "example.com" end).fails "needs an IP address"
end)

test("what is wrong with the call is said at its place", function()
  local hold = route.hold {}
  sim.file("any.csv", "example.com\n")
  for _, case in ipairs {
    { function() tern.map.file() end, "needs the name of a file" },
    { function() tern.map.file "none.csv" end, "cannot read " },
    { function() tern.map.file("any.csv", { polcies = {} }) end, "did you mean 'policies'?" },
    { function() tern.map.file("any.csv", { policy = 1 }) end, "must be a policy, a route, or" },
    { function() tern.map.file("any.csv", { policies = { a = 1 } }) end, "'policies.a' must be" },
    { function() tern.map.file("any.csv", { policy = hold, policies = {} }) end, "'policy' is" },
    { function() tern.map.file("any.csv", { keys = "text", policy = hold }) end, "keys of mail" },
    { function() tern.map.cidr "any.csv" end, 'any.csv:1: "example.com" is not an address' },
  } do
    expect(case[1]).fails(case[2])
  end
  local plain = tern.map.file "any.csv"
  expect(function() sim.world { config = { hostname = "mx.isp.example", domains = plain } } end)
    .fails "'domains' is a map without policies"
end)
