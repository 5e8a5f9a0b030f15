local sim = require "tern.sim"
local route = require "tern.route"
local smart_host = require "policies.smart_host"
local relay_to_host = require "policies.relay_to_host"

local ZONE = [[
  smart.isp.example.   A    192.0.2.25
  bounce.isp.example.  A    192.0.2.26
  global.isp.example.  A    192.0.2.27
  by-mx.example.       MX   10 mx1.by-mx.example.
  by-mx.example.       MX   20 mx2.by-mx.example.
  by-mx.example.       A    192.0.2.39
  mx1.by-mx.example.   A    192.0.2.31
  mx2.by-mx.example.   A    192.0.2.32
  with-us.example.     MX   10 mx.with-us.example.
  with-us.example.     MX   20 out.isp.example.
  with-us.example.     MX   30 worse.with-us.example.
  mx.with-us.example.  A    192.0.2.41
  worse.with-us.example. A  192.0.2.43
  only-us.example.     MX   10 out.isp.example.
  out.isp.example.     A    198.51.100.25
  v6.isp.example.      AAAA 2001:db8::25
  dest.example.        MX   10 mx.dest.example.
  mx.dest.example.     A    192.0.2.80
  customer.example.    MX   10 mx.customer.example.
  mx.customer.example. A    192.0.2.90
  third.example.       MX   10 mx.third.example.
  mx.third.example.    A    192.0.2.81
]]

-- `more`: further keys of the configuration; senders and so on.
local function world(more)
  local config = {
    hostname = "out.isp.example",
    relay_from = { "10.0.0.0/8" },
    domains = { ["local.example"] = relay_to_host { "192.0.2.7:25" } },
  }
  for key, value in pairs(more) do config[key] = value end
  return sim.world { zone = ZONE, config = config }
end

local function customer(targets)
  return world { senders = { ["customer.example"] = smart_host(targets) } }
end

local function send(w, from, to)
  return w:send { client = "10.1.1.1", from = from, to = to or "v@dest.example", body = "hello" }
end

local function got(w, address)
  return #w:host(address):inbox()
end

-- ---- S1: keys -----------------------------------------------------------------------------------

test("S1: the whole address, then its domain, then .domain for subdomains, then *", function()
  local w = world { senders = {
    ["boss@customer.example"] = smart_host { "192.0.2.101" },
    ["customer.example"] = smart_host { "192.0.2.102" },
    [".customer.example"] = smart_host { "192.0.2.103" },
    ["*"] = smart_host { "192.0.2.104" },
    ["<>"] = smart_host { "192.0.2.105" },
  } }
  local wanted = { ["Boss@Customer.Example"] = "192.0.2.101",
    ["u@CUSTOMER.example"] = "192.0.2.102", ["u@shop.customer.example"] = "192.0.2.103",
    ["boss@other.example"] = "192.0.2.104",
    [""] = "192.0.2.105" }
  for from, address in pairs(wanted) do
    w:host(address)
    send(w, from)
  end
  w:advance "1s"
  for from, address in pairs(wanted) do
    local inbox = w:host(address):inbox()
    expect(inbox).size(1)
    expect(inbox[1].from:lower()).equal(from:lower())
  end
  expect(got(w, "192.0.2.80")).equal(0)
end)

test("S1: the null sender has only its own key: neither * nor a domain fits it", function()
  local w = world { senders = { ["*"] = smart_host { "192.0.2.104" } } }
  send(w, "")
  w:advance "1s"
  expect(got(w, "192.0.2.80")).equal(1)
  expect(got(w, "192.0.2.104")).equal(0)
end)

-- ---- S2: precedence -----------------------------------------------------------------------------

test("S2: recipient's route, then sender's smart host, then the global one", function()
  local w = world {
    senders = { ["customer.example"] = smart_host { "[smart.isp.example]" } },
    default_route = smart_host { "[global.isp.example]" },
  }
  send(w, "u@customer.example", { "a@local.example", "b@dest.example" })
  send(w, "u@another.example", "c@dest.example")
  w:advance "1s"
  expect(w:host("192.0.2.7"):inbox()[1].to).equal { "a@local.example" }
  expect(w:host("192.0.2.25"):inbox()[1].to).equal { "b@dest.example" }
  expect(w:host("192.0.2.27"):inbox()[1].to).equal { "c@dest.example" }
  expect(got(w, "192.0.2.80")).equal(0)
end)

test("S2: the global smart host can be a route, and without one mail goes by MX", function()
  local w = world { default_route = route.hosts { "[global.isp.example]" } }
  send(w, "u@customer.example")
  w:advance "1s"
  expect(got(w, "192.0.2.27")).equal(1)
  w = world {}
  send(w, "u@customer.example")
  w:advance "1s"
  expect(got(w, "192.0.2.80")).equal(1)
end)

test("S2: mail to a domain of ours never goes to a smart host, whatever its policy says", function()
  local w = world {
    domains = { ["dest.example"] = { name = "checks-only", rcpt = function() end } },
    senders = { ["customer.example"] = smart_host { "[smart.isp.example]" } },
    default_route = smart_host { "[global.isp.example]" },
  }
  send(w, "u@customer.example")
  w:advance "1s"
  expect(got(w, "192.0.2.80")).equal(1)
  expect(got(w, "192.0.2.25") + got(w, "192.0.2.27")).equal(0)
end)

test("S2: a policy of the list goes before the sender's smart host", function()
  local w = world {
    policies = { { name = "mine", route = function(ctx)
      if ctx.recipient.local_part == "v" then return route.hosts { "192.0.2.66" } end
    end } },
    senders = { ["customer.example"] = smart_host { "[smart.isp.example]" } },
  }
  send(w, "u@customer.example")
  w:advance "1s"
  expect(got(w, "192.0.2.66")).equal(1)
end)

-- ---- S3: targets --------------------------------------------------------------------------------

test("S3: a bare name is looked up by MX, in order, and its own address is not used", function()
  local w = customer { "by-mx.example:587" }
  local first = w:host("192.0.2.31:587"):down()
  send(w, "u@customer.example")
  w:advance "1s"
  expect(got(w, "192.0.2.32:587")).equal(1)
  expect(got(w, "192.0.2.39:587")).equal(0)
  first:up()
  w:advance "1d"
  send(w, "u@customer.example")
  w:advance "1m"
  expect(got(w, "192.0.2.31:587")).equal(1)
end)

test("S3: a bare name without MX is looked up by address", function()
  local w = customer { "smart.isp.example" }
  send(w, "u@customer.example")
  w:advance "1s"
  expect(got(w, "192.0.2.25")).equal(1)
  expect(w:asked("smart.isp.example", "MX")).equal(1)
end)

test("S3: brackets, addresses and ports: nothing is looked up by MX", function()
  local wanted = {
    ["[by-mx.example]"] = "192.0.2.39:25", ["[by-mx.example]:587"] = "192.0.2.39:587",
    ["192.0.2.50"] = "192.0.2.50:25", ["192.0.2.50:26"] = "192.0.2.50:26",
    ["[192.0.2.51]"] = "192.0.2.51:25", ["[192.0.2.51]:26"] = "192.0.2.51:26",
    ["2001:db8::5"] = "[2001:db8::5]:25", ["[2001:db8::5]:26"] = "[2001:db8::5]:26",
    ["[IPv6:2001:db8::6]"] = "[2001:db8::6]:25", ["[v6.isp.example]:587"] = "[2001:db8::25]:587",
  }
  for target, address in pairs(wanted) do
    local w = customer { target }
    w:host(address)
    send(w, "u@customer.example")
    w:advance "1s"
    expect(w:host(address):inbox()).size(1)
    expect(w:asked("by-mx.example", "MX")).equal(0)
  end
end)

test("S3: what is no target is refused with its reason", function()
  for _, wrong in ipairs { "", "a b", "host:0", "host:70000", "[host", "http://host" } do
    expect(function() smart_host { wrong } end).fails "must be a host such as"
  end
  expect(function() smart_host {} end).fails "needs at least one item"
end)

-- ---- S4: several --------------------------------------------------------------------------------

test("S4: a list is tried in its order", function()
  local w = customer { "192.0.2.101", "192.0.2.102", "192.0.2.103" }
  w:host("192.0.2.101"):down()
  w:host("192.0.2.102"):down()
  send(w, "u@customer.example")
  w:advance "1m"
  expect(got(w, "192.0.2.103")).equal(1)
end)

local function counts(w, n)
  for _ = 1, n do
    send(w, "u@customer.example")
    w:advance "10s"
  end
  local all = {}
  for i, address in ipairs { "192.0.2.101", "192.0.2.102", "192.0.2.103", "192.0.2.104" } do
    all[i] = got(w, address)
  end
  return all
end

test("S4: round_robin and random use all of a flat list", function()
  local w = customer { "192.0.2.101", "192.0.2.102", balance = "round_robin" }
  expect(counts(w, 10)).equal { 5, 5, 0, 0 }
  w = customer { "192.0.2.101", "192.0.2.102", "192.0.2.103", balance = "random" }
  local n = counts(w, 30)
  for i = 1, 3 do expect(n[i]).above(2) end
end)

test("S4: groups are tried in order, and balanced inside", function()
  for _, balance in ipairs { "round_robin", "random" } do
    local w = customer { { "192.0.2.101", "192.0.2.102" }, { "192.0.2.103", "192.0.2.104" },
      balance = balance }
    local n = counts(w, 20)
    expect(n[1]).above(2)
    expect(n[2]).above(2)
    expect(n[3] + n[4]).equal(0)
    w:host("192.0.2.101"):down()
    w:host("192.0.2.102"):down()
    local later = counts(w, 20)
    expect(later[1] + later[2]).equal(20)
    expect(later[3]).above(2)
    expect(later[4]).above(2)
  end
end)

test("S4: beside a group a single host is a group of its own", function()
  local w = customer { { "192.0.2.101", "192.0.2.102" }, "192.0.2.103", balance = "round_robin" }
  expect(counts(w, 10)).equal { 5, 5, 0, 0 }
end)

test("S3: while its MX are not known, its own address is not used", function()
  for _, status in ipairs { "servfail", "timeout" } do
    local w = customer { "by-mx.example" }
    w:dns { name = "by-mx.example", type = "MX", status = status }
    send(w, "u@customer.example")
    w:advance "1h"
    expect(w:host("192.0.2.39"):connections()).equal(0)
    expect(w:queue()).size(1)
    w:dns { name = "by-mx.example", type = "MX", status = "ok" }
    w:advance "1h"
    expect(got(w, "192.0.2.31")).equal(1)
  end
end)

-- ---- S5: broken ---------------------------------------------------------------------------------

-- The mail waits through `days`, with that alarm, and goes when `mend` has been called.
local function waits(w, enhanced, mend, address)
  send(w, "u@customer.example")
  w:advance "20d"
  expect(w:queue()).size(1)
  expect(w:events "bounced").size(0)
  local alarms = w:events "route_alarm"
  expect(#alarms).above(0)
  for _, alarm in ipairs(alarms) do expect(alarm.enhanced).equal(enhanced) end
  mend()
  w:advance "1h"
  expect(got(w, address)).equal(1)
end

test("S5: a smart host that does not exist: the mail waits with an alarm", function()
  local w = customer { "nowhere.isp.example" }
  waits(w, "4.3.5", function()
    w:zone(ZONE .. "nowhere.isp.example. A 192.0.2.44\n")
  end, "192.0.2.44")
end)

test("S5: one whose look-up fails", function()
  local w = customer { "smart.isp.example" }
  w:dns { name = "smart.isp.example", status = "servfail" }
  waits(w, "4.4.3", function()
    w:dns { name = "smart.isp.example", status = "ok" }
  end, "192.0.2.25")
end)

test("S5: one that refuses the connection", function()
  local w = customer { "[smart.isp.example]" }
  local smart = w:host("192.0.2.25"):down()
  waits(w, "4.4.1", function() smart:up() end, "192.0.2.25")
end)

test("S5: one that is silent, or greets with 4yz, or says 421", function()
  for _, how in ipairs {
    { greeting = { 450, "4.3.2", "busy" } }, { helo = { 421, "4.3.2", "bye" } },
  } do
    local w = customer { "[smart.isp.example]" }
    local smart = w:host("192.0.2.25"):reject(how)
    waits(w, "4.4.1", function() smart:accept() end, "192.0.2.25")
  end
  local w = customer { "[smart.isp.example]" }
  local smart = w:host("192.0.2.25"):silent()
  waits(w, "4.4.1", function() smart:up() end, "192.0.2.25")
end)

test("S5: one that is ourselves by its address", function()
  local w = customer { "198.51.100.25" }
  send(w, "u@customer.example")
  w:advance "20d"
  expect(w:queue()).size(1)
  expect(w:events "route_alarm"[1].enhanced).equal "4.3.5"
end)

test("S5: one that greets with our name", function()
  local w = customer { "[smart.isp.example]" }
  local smart = w:host("192.0.2.25"):named "out.isp.example"
  waits(w, "4.3.5", function() smart:named "smart.isp.example" end, "192.0.2.25")
end)

test("S5: one whose only MX is ourselves", function()
  local w = customer { "only-us.example" }
  send(w, "u@customer.example")
  w:advance "20d"
  expect(w:queue()).size(1)
  expect(w:events "route_alarm"[1].why).contains "out.isp.example"
  expect(w:host("198.51.100.25"):connections()).equal(0)
end)

test("S5: of its MX only those better than ourselves are used", function()
  local w = customer { "with-us.example" }
  local better = w:host("192.0.2.41"):down()
  send(w, "u@customer.example")
  w:advance "1d"
  expect(w:host("192.0.2.43"):connections()).equal(0)
  better:up()
  w:advance "1h"
  expect(got(w, "192.0.2.41")).equal(1)
end)

test("S5: a global smart host that is broken makes nothing bounce either", function()
  local w = world { default_route = smart_host { "[global.isp.example]", null_sender = "mx" } }
  local smart = w:host("192.0.2.27"):down()
  waits(w, "4.4.1", function() smart:up() end, "192.0.2.27")
end)

-- ---- S8: TLS ------------------------------------------------------------------------------------

local function attempt(tls, starttls, name)
  local w = customer { { "[smart.isp.example]", tls = tls } }
  local smart = w:host("192.0.2.25"):starttls(starttls)
  if name then smart:named(name) end
  send(w, "u@customer.example")
  w:advance "1m"
  local message = smart:inbox()[1]
  return message and (message.tls and "tls" or "clear") or "waits"
end

test("S8: none never, opportunistic where it works", function()
  expect(attempt("none", "offered")).equal "clear"
  expect(attempt("opportunistic", "offered")).equal "tls"
  expect(attempt("opportunistic", "broken")).equal "clear"
  expect(attempt("opportunistic", "refused")).equal "clear"
  expect(attempt("opportunistic", "none")).equal "clear"
end)

test("S8: require and verify wait rather than go in clear; verify looks at the name", function()
  for _, tls in ipairs { "require", "verify" } do
    expect(attempt(tls, "offered")).equal "tls"
    for _, how in ipairs { "broken", "refused", "none" } do
      expect(attempt(tls, how)).equal "waits"
    end
  end
  expect(attempt("require", "offered", "someone.else.example")).equal "tls"
  expect(attempt("verify", "offered", "someone.else.example")).equal "waits"
end)

test("S8: each group has its own, beside the one of the whole", function()
  local w = customer { { "[smart.isp.example]", tls = "verify" }, { "192.0.2.102" }, tls = "none" }
  w:host("192.0.2.25"):starttls("offered"):named "someone.else.example"
  w:host("192.0.2.102"):starttls "offered"
  send(w, "u@customer.example")
  w:advance "1m"
  expect(got(w, "192.0.2.25")).equal(0)
  expect(w:host("192.0.2.102"):inbox()[1].tls).equal(false)
end)

test("S8: what one host could not do says nothing of the next one's TLS", function()
  local function next_one(first)
    local w = customer { { "[smart.isp.example]" }, { "192.0.2.102", tls = "require" } }
    first(w:host("192.0.2.25"):starttls "broken")
    local second = w:host("192.0.2.102"):starttls "offered"
    send(w, "u@customer.example")
    w:advance "1m"
    expect(#second:inbox()).equal(1)
    expect(second:inbox()[1].tls).equal(true)
  end
  next_one(function(h) h:reject { mail = { 530, "5.7.0", "STARTTLS first" } } end)
  next_one(function(h) h:named "out.isp.example" end)
end)

-- The octets of a simulated certificate are its name: a record "3 0 0" is that in hexadecimal.
local function tlsa(name)
  return "_25._tcp.smart.isp.example TLSA 3 0 0 " .. name:gsub(".", function(c)
    return string.format("%02x", c:byte())
  end)
end

-- What becomes of a mail to a host with tls = "dane", whose zone is signed.
local function by_dane(records, starttls, change)
  local w = customer { { "[smart.isp.example]", tls = "dane" } }
  w:zone("smart.isp.example A 192.0.2.25\n" .. records):secure "isp.example"
  local smart = w:host("192.0.2.25"):starttls(starttls):named "smart.isp.example"
  if change then change(w, smart) end
  send(w, "u@customer.example")
  w:advance "1m"
  local message = smart:inbox()[1]
  return message and (message.tls and "tls" or "clear") or "waits", w
end

test("S8: dane goes to the host whose certificate the records name, and to nobody else", function()
  expect(by_dane(tlsa "smart.isp.example", "offered")).equal "tls"
  for _, how in ipairs { "broken", "refused", "none" } do
    expect(by_dane(tlsa "smart.isp.example", how)).equal "waits"
  end
  local result, w = by_dane(tlsa "someone.else.example", "offered")
  expect(result).equal "waits"
  expect(w:events("route_alarm")[1].why).matches "DANE"
end)

test("S8: dane without secure records is opportunistic", function()
  expect(by_dane("", "offered")).equal "tls"
  expect(by_dane("", "none")).equal "clear"
  local wrong = tlsa "someone.else.example"
  local _, w = by_dane(wrong, "none", function(w) w:secure("isp.example", false) end)
  expect(w:queue()).equal {}
  expect(w:asked("_25._tcp.smart.isp.example", "TLSA")).equal(0)
  expect((by_dane(wrong, "none", function(x)
    x:secure("_tcp.smart.isp.example", false)
  end))).equal "clear"
end)

test("S8: dane with records that nobody can use still needs TLS", function()
  local useless = "_25._tcp.smart.isp.example TLSA 1 1 1 00"
  expect(by_dane(useless, "offered")).equal "tls"
  expect(by_dane(useless, "none")).equal "waits"
end)

test("S8: dane waits while the TLSA look-up fails", function()
  for _, status in ipairs { "servfail", "timeout" } do
    local result, w = by_dane("", "offered", function(w)
      w:dns { name = "_25._tcp.smart.isp.example", type = "TLSA", status = status }
    end)
    expect(result).equal "waits"
    expect(w:host("192.0.2.25"):connections()).equal(0)
    w:dns { name = "_25._tcp.smart.isp.example", type = "TLSA", status = "ok" }
    w:advance "1h"
    expect(#w:host("192.0.2.25"):inbox()).equal(1)
  end
end)

test("S8: dane does not take a connection that was made without it", function()
  local w = world { senders = {
    ["customer.example"] = smart_host { { "[smart.isp.example]", tls = "require" } },
    ["other.example"] = smart_host { { "[smart.isp.example]", tls = "dane" } },
  } }
  w:zone("smart.isp.example A 192.0.2.25\n" .. tlsa "someone.else.example"):secure "*"
  local smart = w:host("192.0.2.25"):starttls("offered"):named "smart.isp.example"
  send(w, "u@customer.example")
  w:advance "1s"
  expect(#smart:inbox()).equal(1)
  send(w, "u@other.example")
  w:advance "1s"
  expect(#smart:inbox()).equal(1)
  expect(w:queue()).size(1)
end)

-- ---- S9: bounces --------------------------------------------------------------------------------

test("S9: a target that refuses the null sender has another route for bounces", function()
  local w = world { default_route = smart_host { "[global.isp.example]",
    null_sender = route.hosts { "[bounce.isp.example]" } } }
  w:host("192.0.2.27"):reject { mail = { 553, "5.1.8", "no null sender", times = 1 } }
  send(w, "")
  w:advance "1m"
  expect(got(w, "192.0.2.26")).equal(1)
  expect(w:host("192.0.2.27"):connections()).equal(0)
end)

test("S9: or it goes by MX", function()
  local w = world { default_route = smart_host { "[global.isp.example]", null_sender = "mx" } }
  send(w, "")
  send(w, "u@customer.example")
  w:advance "1s"
  expect(got(w, "192.0.2.80")).equal(1)
  expect(got(w, "192.0.2.27")).equal(1)
end)

test("S9: notifications of our own take that way, too", function()
  local w = world {
    senders = { ["customer.example"] = smart_host { "[smart.isp.example]" },
      ["<>"] = smart_host { "[bounce.isp.example]" } },
  }
  w:host("192.0.2.25"):reject { rcpt = { 550, "5.1.1", "no such user" } }
  send(w, "u@customer.example")
  w:advance "1m"
  local inbox = w:host("192.0.2.26"):inbox()
  expect(inbox).size(1)
  expect(inbox[1].from).equal ""
  expect(inbox[1].to).equal { "u@customer.example" }
end)

-- ---- S10: one transaction -----------------------------------------------------------------------

test("S10: recipients of several domains travel together, each with its own result", function()
  local w = customer { "[smart.isp.example]" }
  local smart = w:host("192.0.2.25"):reject {
    ["b@third.example"] = { 550, "5.1.1", "no such user" },
    ["c@third.example"] = { 451, "4.2.0", "later", times = 1 },
  }
  send(w, "u@customer.example", { "a@dest.example", "b@third.example", "c@third.example" })
  w:advance "1s"
  expect(smart:inbox()).size(1)
  expect(smart:inbox()[1].to).equal { "a@dest.example" }
  expect(smart:connections()).equal(1)
  expect(w:events "delivered"[1].recipient).equal "a@dest.example"
  expect(w:events "bounced"[1].recipient).equal "b@third.example"
  expect(w:events "deferred"[1].recipient).equal "c@third.example"
  w:advance "1h"
  expect(smart:inbox()).size(2)
  expect(smart:inbox()[2].to).equal { "c@third.example" }
end)

test("a sender's domain alone allows nobody to relay", function()
  local w = customer { "[smart.isp.example]" }
  local reply = w:send { client = "203.0.113.9", from = "u@customer.example",
    to = "v@dest.example", body = "x" }
  expect(reply.code).equal(550)
end)
