-- Authentication to smart hosts: whose credentials go where, and what happens when they do not fit.
local sim = require "tern.sim"
local tern = require "tern"
local route = require "tern.route"
local smart_host = require "policies.smart_host"
local relay_to_host = require "policies.relay_to_host"

local ZONE = [[
  smart.isp.example.  A  192.0.2.25
  dest.example.       MX 10 mx.dest.example.
  mx.dest.example.    A  192.0.2.80
  customer.example.   MX 10 mx.customer.example.
  mx.customer.example. A 192.0.2.90
]]
local ME = { user = "me", password = "hunter2" }
local YOU = { user = "you", password = "correct horse" }

local function config(senders, more)
  local c = { hostname = "out.isp.example", relay_from = { "10.0.0.0/8" }, senders = senders }
  for key, value in pairs(more or {}) do c[key] = value end
  return c
end

local function world(senders, more)
  return sim.world { zone = ZONE, config = config(senders, more) }
end

local function customer(options)
  return world { ["customer.example"] = smart_host(options) }
end

-- CRAM-MD5 unless said otherwise: SCRAM is made to cost time.
local function with(host, account, more)
  local given = { user = account.user, password = account.password, mechanisms = { "CRAM-MD5" } }
  for key, value in pairs(more or {}) do given[key] = value end
  return host:auth(given)
end

local function send(w, from, to)
  return w:send { client = "10.1.1.1", from = from or "u@customer.example",
    to = to or "v@dest.example", body = "hello" }
end

test("S7: we authenticate as the policy says, by every mechanism there is", function()
  for _, mechanism in ipairs { "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN" } do
    local w = customer { "[smart.isp.example]", auth = ME, tls = "require" }
    local smart = with(w:host("192.0.2.25"):starttls "offered", ME, { mechanisms = { mechanism } })
    send(w)
    w:advance "1s"
    expect(smart:inbox()).size(1)
    expect(smart:inbox()[1].identity).equal "me"
    expect(smart:inbox()[1].tls).equal(true)
  end
end)

test("S7: the password never crosses a connection in clear, unless that is allowed", function()
  local function attempt(mechanism, allow_clear)
    local w = customer { "[smart.isp.example]",
      auth = { user = "me", password = "hunter2", allow_clear = allow_clear } }
    local smart = with(w:host "192.0.2.25", ME, { mechanisms = { mechanism }, allow_clear = true })
    send(w)
    w:advance "1s"
    return smart:inbox()[1] ~= nil
  end
  for _, mechanism in ipairs { "PLAIN", "LOGIN" } do
    expect(attempt(mechanism)).equal(false)
    expect(attempt(mechanism, true)).equal(true)
  end
  expect(attempt "CRAM-MD5").equal(true)
  expect(attempt "SCRAM-SHA-256").equal(true)
end)

test("S7: mechanisms can be left out", function()
  local w = customer { "[smart.isp.example]",
    auth = { user = "me", password = "hunter2", mechanisms = "PLAIN" } }
  local smart = with(w:host "192.0.2.25", ME, { mechanisms = { "SCRAM-SHA-256", "PLAIN" } })
  send(w)
  w:advance "1m"
  expect(smart:inbox()).size(0) -- PLAIN alone, and that in clear
  smart:starttls "offered"
  w:advance "1h"
  expect(smart:inbox()).size(1)
end)

test("S7: two senders at one host never share a connection", function()
  local w = world({
    ["mine.example"] = smart_host { "[smart.isp.example]", auth = ME },
    ["yours.example"] = smart_host { "[smart.isp.example]", auth = YOU },
    ["nobody.example"] = smart_host { "[smart.isp.example]" },
  }, { queue = { idle = "1h" } })
  local smart = with(with(w:host "192.0.2.25", ME), YOU)
  for _ = 1, 5 do
    send(w, "u@mine.example")
    send(w, "u@yours.example")
    w:advance "1s"
  end
  send(w, "u@nobody.example") -- the host takes it from users only
  w:advance "1s"
  local inbox = smart:inbox()
  expect(inbox).size(10)
  local whose, connections = {}, 0
  for _, message in ipairs(inbox) do
    local should = message.from == "u@mine.example" and "me" or "you"
    expect(message.identity).equal(should)
    if not whose[message.session] then connections = connections + 1 end
    expect(whose[message.session] or should).equal(should)
    whose[message.session] = should
  end
  expect(connections).equal(2) -- each was used again, for its own
end)

test("S7: the same user with another password is somebody else", function()
  local w = world({
    ["mine.example"] = smart_host { "[smart.isp.example]", auth = ME },
    ["wrong.example"] = smart_host { "[smart.isp.example]",
      auth = { user = "me", password = "hunter3" } },
  }, { queue = { idle = "1h" } })
  local smart = with(w:host "192.0.2.25", ME)
  send(w, "u@mine.example")
  w:advance "1s"
  send(w, "u@wrong.example")
  w:advance "1s"
  expect(smart:inbox()).size(1)
  expect(smart:connections()).equal(2)
end)

test("S7: what one customer has wrong holds up nobody else's mail", function()
  local w = world {
    ["wrong.example"] = smart_host { "[smart.isp.example]",
      auth = { user = "you", password = "wrong" } },
    ["mine.example"] = smart_host { "[smart.isp.example]", auth = ME },
  }
  local smart = with(with(w:host "192.0.2.25", ME), YOU)
  send(w, "u@wrong.example")
  w:advance "1s"
  expect(w:events "auth_failed").size(1)
  send(w, "u@mine.example")
  w:advance "1s"
  expect(smart:inbox()).size(1)
  expect(smart:inbox()[1].identity).equal "me"
end)

test("S7: a group has credentials of its own: no host gets those of another", function()
  local w = customer { { "192.0.2.101", auth = ME }, { "192.0.2.102", auth = YOU }, "192.0.2.103" }
  local first = with(w:host "192.0.2.101", YOU)  -- it knows the others', and not ours
  local second = with(w:host "192.0.2.102", ME)
  send(w)
  w:advance "1s"
  expect(first:inbox()).size(0)
  expect(second:inbox()).size(0)
  local third = w:host("192.0.2.103"):inbox()
  expect(third).size(1)
  expect(third[1].identity).equal(nil)
end)

test("S6: refused for good, for now, or not offered: the mail waits with an alarm", function()
  local refusals = {
    function(h) return with(h, { user = "me", password = "other" }) end,
    function(h) return with(h, ME):reject { auth = { 535, "5.7.8", "no" } } end,
    function(h) return with(h, ME):reject { auth = { 454, "4.7.0", "later" } } end,
    function(h) return h end, -- no AUTH at all
  }
  for _, refuse in ipairs(refusals) do
    local w = customer { "[smart.isp.example]", auth = ME }
    local smart = refuse(w:host "192.0.2.25")
    send(w)
    w:advance "20d"
    expect(w:queue()).size(1)
    expect(w:events "bounced").size(0)
    local alarms = w:events "auth_failed"
    expect(#alarms).above(100)
    expect(alarms[1].host).contains "192.0.2.25"
    expect(alarms[1].queue).contains "me@"
    with(smart:accept(), ME)
    w:advance "1h"
    expect(smart:inbox()).size(1)
    expect(w:queue()).size(0)
  end
end)

test("S6: after a 5yz greeting, or a failure to authenticate, the next target is tried", function()
  for _, refuse in ipairs {
    function(h) return h:reject { greeting = { 554, "5.3.2", "go away" } } end,
    function(h) return with(h, YOU) end,
    function(h) return h end,
  } do
    local w = customer { "192.0.2.101", "192.0.2.102", auth = ME }
    refuse(w:host "192.0.2.101")
    local second = with(w:host "192.0.2.102", ME)
    send(w)
    w:advance "1s"
    expect(second:inbox()).size(1)
    expect(second:inbox()[1].identity).equal "me"
  end
end)

test("S6: a host that wants AUTH of which the policy knows nothing bounces no mail", function()
  local w = customer { "[smart.isp.example]" }
  local smart = with(w:host "192.0.2.25", ME)
  send(w)
  w:advance "20d"
  expect(w:queue()).size(1)
  expect(w:events "auth_failed"[1].code).equal(530)
  w:reload(config { ["customer.example"] = smart_host { "[smart.isp.example]", auth = ME } })
  w:advance "1h"
  expect(smart:inbox()).size(1)
end)

test("S6: AUTH that is wanted at RCPT only: the mail waits, one alarm for each attempt", function()
  local w = customer { "[smart.isp.example]" }
  w:host("192.0.2.25"):reject { rcpt = { 530, "5.7.0", "authenticate first" } }
  send(w, nil, { "a@dest.example", "b@dest.example", "c@dest.example" })
  w:advance "10s"
  expect(w:queue()).size(3)
  expect(w:events "bounced").size(0)
  expect(w:events "auth_failed").size(1)
end)

test("S7: a corrected password rescues what is queued", function()
  local function senders(password)
    return { ["customer.example"] = smart_host { "[smart.isp.example]",
      auth = { user = "me", password = password } } }
  end
  local w = world(senders "old")
  local smart = with(w:host "192.0.2.25", ME)
  send(w)
  w:advance "1d"
  expect(w:queue()).size(1)
  w:reload(config(senders "hunter2"))
  w:advance "1h"
  expect(smart:inbox()).size(1)
  expect(smart:inbox()[1].identity).equal "me"
end)

test("S7: no connection outlives a reload that takes its credentials away", function()
  local w = world({ ["customer.example"] = smart_host { "[smart.isp.example]", auth = ME } },
    { queue = { idle = "1h" } })
  local smart = with(with(w:host "192.0.2.25", ME), YOU)
  send(w)
  w:advance "1s"
  w:reload(config({ ["customer.example"] = smart_host { "[smart.isp.example]", auth = YOU } },
    { queue = { idle = "1h" } }))
  send(w)
  w:advance "1s"
  local inbox = smart:inbox()
  expect(inbox).size(2)
  expect(inbox[1].identity).equal "me"
  expect(inbox[2].identity).equal "you"
  expect(inbox[1].session ~= inbox[2].session).equal(true)
end)

test("S7: queued mail finds its credentials again after a restart and a crash", function()
  for _, how in ipairs { "restart", "crash" } do
    local w = customer { "[smart.isp.example]", auth = ME }
    local smart = with(w:host "192.0.2.25", ME):down()
    send(w)
    w:advance "1h"
    w[how](w)
    smart:up()
    w:advance "1h"
    expect(smart:inbox()).size(1)
    expect(smart:inbox()[1].identity).equal "me"
  end
end)

test("S7: with several workers each mail goes under its own name", function()
  local senders, accounts = {}, {}
  for i = 1, 8 do
    accounts[i] = { user = "user" .. i, password = "password" .. i }
    senders["s" .. i .. ".example"] = smart_host { "[smart.isp.example]", auth = accounts[i] }
  end
  local w = sim.world { zone = ZONE, workers = 3, config = config(senders) }
  local smart = w:host "192.0.2.25"
  for i = 1, 8 do with(smart, accounts[i]) end
  for _ = 1, 3 do
    for i = 1, 8 do send(w, "u@s" .. i .. ".example") end
    w:advance "10s"
  end
  expect(smart:inbox()).size(24)
  for _, message in ipairs(smart:inbox()) do
    expect(message.identity).equal("user" .. message.from:match "^u@s(%d)")
  end
end)

test("S7: credentials that a hook makes at run time serve, too", function()
  local w = world(nil, { policies = { { name = "mine", route = function(ctx)
    return route.hosts { "[smart.isp.example]",
      auth = { user = ctx.message.sender_domain, password = "of " .. ctx.message.sender_domain } }
  end } } })
  local smart = w:host "192.0.2.25"
  for _, domain in ipairs { "a.example", "b.example" } do
    with(smart, { user = domain, password = "of " .. domain })
    send(w, "u@" .. domain)
  end
  w:advance "1s"
  expect(smart:inbox()).size(2)
  for _, message in ipairs(smart:inbox()) do
    expect(message.from).equal("u@" .. message.identity)
  end
end)

test("S7: hard routes and routes by MX have credentials, too", function()
  local w = sim.world { zone = ZONE, config = {
    hostname = "out.isp.example",
    domains = { ["local.example"] = relay_to_host { "192.0.2.7", auth = ME },
      ["dest.example"] = route.mx { domain = "dest.example", auth = YOU } },
  } }
  local host, mx = with(w:host "192.0.2.7", ME), with(w:host "192.0.2.80", YOU)
  send(w, nil, { "a@local.example", "b@dest.example" })
  w:advance "1s"
  expect(host:inbox()[1].identity).equal "me"
  expect(mx:inbox()[1].identity).equal "you"
end)

test("S7: no password in what is shown, logged or told to hooks", function()
  local seen = {}
  local w = world({ ["customer.example"] = smart_host { "[smart.isp.example]", auth = ME } }, {
    policies = { { name = "watch", event = function(ctx)
      seen[#seen + 1] = tern.json.encode(ctx.event)
    end } },
  })
  with(w:host "192.0.2.25", YOU)
  send(w)
  w:advance "1h"
  local shown = w:queue()[1].route
  expect(shown).contains "auth me"
  seen[#seen + 1] = shown
  seen[#seen + 1] = tostring(route.hosts { "a", auth = ME })
  for _, text in ipairs(seen) do
    expect(text).never.contains "hunter2"
    expect(text).never.matches "%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x" -- nor the name made of it
  end
  expect(#seen).above(3)
end)

test("S5: a smart host that is ourselves is told as a loop, not as a wrong password", function()
  local w = customer { "[smart.isp.example]", auth = ME }
  with(w:host("192.0.2.25"):named "out.isp.example", YOU)
  send(w)
  w:advance "1h"
  expect(w:events "auth_failed").size(0)
  expect(w:events "route_alarm"[1].why).contains "loops back"
end)
