-- Recipient checks of backup and relay_to_host: ROUTING.md B11, B12, H8.
local sim = require "tern.sim"
local tern = require "tern"
local backup = require "policies.backup"
local relay_to_host = require "policies.relay_to_host"

local ZONE = [[
  example.com.      MX 10 mx1.example.com.
  example.com.      MX 20 mx2.isp.example.
  mx1.example.com.  A  192.0.2.1
  mx2.isp.example.  A  198.51.100.25
  b.example.        MX 10 mx.b.example.
  mx.b.example.     A  192.0.2.80
]]

local function world(policy, more)
  local config = {
    hostname = "mx2.isp.example",
    domains = { ["example.com"] = policy },
  }
  for k, v in pairs(more or {}) do config[k] = v end
  return sim.world { zone = ZONE, workers = 2, config = config }
end

local function send(w, to, client)
  return w:send { from = "a@b.example", to = to, body = "hello", client = client }
end

local function asking_primary(options)
  options = options or {}
  options.recipients = "call-forward"
  local w = world(backup(options))
  local primary = w:host("192.0.2.1"):reject {
    ["nobody@example.com"] = { 550, "5.1.1", "no such user" },
  }
  return w, primary
end

-- ---- lists, maps, functions --------------------------------------------------------------------

test("B11: a list says which recipients there are, also while the primary is down", function()
  local w = world(backup { recipients = { "Alice@example.com", "bob" } })
  w:host("192.0.2.1"):down()
  expect(send(w, "alice@EXAMPLE.com").code).equal(250)
  expect(send(w, "Bob@example.com").code).equal(250)
  expect(send(w, "PostMaster@example.com").code).equal(250)
  local reply = send(w, "carol@example.com")
  expect(reply.code).equal(550)
  expect(reply.enhanced).equal "5.1.1"
  expect(w:host("192.0.2.1"):connections()).equal(0)
end)

test("B11: a function says it; nil is not known, and accepted", function()
  local w = world(backup { recipients = function(ctx)
    local known = { yes = true, no = false }
    if ctx.recipient.local_part == "later" then
      return tern.defer { 450, "4.2.1", "this one is being moved" }
    end
    return known[ctx.recipient.local_part]
  end })
  expect(send(w, "yes@example.com").code).equal(250)
  expect(send(w, "perhaps@example.com").code).equal(250)
  expect(send(w, "no@example.com").code).equal(550)
  expect(send(w, "later@example.com").text).contains "being moved"
end)

test("what is no recipient check is told where it is written", function()
  expect(function() backup { recipients = "callforward" } end).fails '"call-forward"'
  expect(function() backup { recipients = { "a b" } } end).fails "no address or local part"
  expect(function() backup { recipients = {} } end).fails "a list of addresses"
  expect(function() backup { cache = { positve = "1d" } } end).fails "did you mean 'positive'"
end)

test("B11: a map says it, and follows its file", function()
  sim.file("users.txt", "alice@example.com\nbob@example.com\n")
  local w = world(backup { recipients = tern.map.file "users.txt" })
  expect(send(w, "Alice@example.com").code).equal(250)
  expect(send(w, "postmaster@example.com").code).equal(250)
  expect(send(w, "carol@example.com").code).equal(550)
  sim.file("users.txt", "carol@example.com\n")
  w:advance "1m"
  expect(send(w, "carol@example.com").code).equal(250)
  expect(send(w, "alice@example.com").code).equal(550)
end)

-- ---- call-forward ------------------------------------------------------------------------------

test("B11: the primary is asked, without a message", function()
  local w, primary = asking_primary()
  expect(send(w, "u@example.com").code).equal(250)
  local reply = send(w, "nobody@example.com")
  expect(reply.code).equal(550)
  expect(reply.enhanced).equal "5.1.1"
  expect(reply.text).contains "mx1.example.com said: no such user"
  w:advance "1m"
  expect(primary:inbox()).size(1)
end)

test("B11: a primary that is down is no reason to refuse, or to defer", function()
  local w, primary = asking_primary()
  primary:down()
  expect(send(w, "u@example.com").code).equal(250)
  expect(send(w, "nobody@example.com").code).equal(250)
  primary:silent()
  w:advance "1h"
  expect(send(w, "v@example.com").code).equal(250)
  expect(w:queue()).size(3)
  primary:up()
  w:advance "1h"
  expect(primary:inbox()).size(2)
end)

test("B11: a primary that is slow, or refuses all of us, is none either", function()
  for _, change in ipairs {
    function(h) h:slow "1m" end,
    function(h) h:greet { 421, "busy" } end,
    function(h) h:greet { 554, "go away" } end,
    function(h) h:reject { mail = { 550, "5.7.1", "no null senders" } } end,
    function(h) h:reject { rcpt = { 421, "4.3.2", "going down" } } end,
    function(h) h:drop "rcpt" end,
    function(h) h:reject { rcpt = { 554, "5.7.1", "your address is blocked" } } end,
  } do
    local w, primary = asking_primary()
    primary:accept()
    change(primary)
    expect(send(w, "u@example.com").code).equal(250)
  end
end)

test("B11: a primary that says nothing is waited for once, not for each recipient", function()
  local w, primary = asking_primary { probe_timeout = "8s" }
  primary:slow "1m"
  local began, to = w:now(), {}
  for i = 1, 50 do to[i] = ("u%d@example.com"):format(i) end
  expect(send(w, to).accepted).equal(50)
  expect(w:now() - began).below(10)
end)

test("B11: 4yz of the primary is accepted, and not remembered", function()
  local w, primary = asking_primary()
  primary:reject { ["grey@example.com"] = { 450, "4.2.0", "greylisted" } }
  expect(send(w, "grey@example.com").code).equal(250)
  primary:accept():reject { ["grey@example.com"] = { 550, "5.1.1", "no such user" } }
  expect(send(w, "grey@example.com").code).equal(550)
end)

test("B11: what the primary said is remembered: yes for 31 days, no for 3 hours", function()
  local w, primary = asking_primary()
  send(w, "u@example.com")
  send(w, "nobody@example.com")
  w:advance "1m"
  local asked = primary:connections()
  primary:reject { rcpt = { 550, "5.1.1", "not any more" } }
  expect(send(w, "U@example.com").code).equal(250)
  expect(send(w, "nobody@example.com").code).equal(550)
  primary:accept()
  w:advance "2h"
  expect(send(w, "nobody@example.com").code).equal(550)
  w:advance "1h"
  expect(send(w, "nobody@example.com").code).equal(250)
  primary:reject { rcpt = { 550, "5.1.1", "not any more" } }
  w:advance "30d"
  expect(send(w, "u@example.com").code).equal(250)
  w:advance "1d"
  expect(send(w, "u@example.com").code).equal(550)
  expect(primary:connections()).above(asked)
end)

test("B11: both times can be set", function()
  local w, primary = asking_primary { cache = { positive = "1h", negative = "1m" } }
  send(w, "u@example.com")
  send(w, "nobody@example.com")
  primary:accept():reject { rcpt = { 550, "5.1.1", "not any more" } }
  w:advance "59m"
  expect(send(w, "u@example.com").code).equal(250)
  w:advance "2m"
  expect(send(w, "u@example.com").code).equal(550)
  primary:accept()
  w:advance "61s"
  expect(send(w, "u@example.com").code).equal(250)
end)

test("B11: a restart and a crash remember it, with the primary down since", function()
  for _, how in ipairs { "restart", "crash" } do
    local w, primary = asking_primary()
    expect(send(w, "nobody@example.com").code).equal(550)
    primary:down()
    w[how](w)
    w:advance "1m"
    expect(send(w, "nobody@example.com").code).equal(550)
    expect(send(w, "other@example.com").code).equal(250)
  end
end)

test("B11: mail of the primary itself is not asked back about", function()
  local w, primary = asking_primary()
  expect(send(w, "nobody@example.com", "192.0.2.1").code).equal(250)
  expect(primary:inbox()).size(0)
end)

-- ---- defer while the primary is up -------------------------------------------------------------

local function deferring(more, options)
  options = options or {}
  options.defer_while_primary_is_up = true
  local w = world(backup(options), more)
  return w, w:host "192.0.2.1"
end

test("B12: senders are sent to the primary as long as it answers", function()
  local w, primary = deferring()
  local reply = send(w, "u@example.com")
  expect(reply.code).equal(451)
  expect(reply.enhanced).equal "4.3.2"
  expect(reply.text).contains "deliver to it"
  primary:down()
  w:advance "31s"
  expect(send(w, "u@example.com").code).equal(250)
  w:advance "12d"
  expect(send(w, "u@example.com").code).equal(250)
  primary:up()
  w:advance "1h"
  expect(primary:inbox()).size(2)
  expect(send(w, "u@example.com").code).equal(451)
end)

test("B12: a primary that says 421 or nothing is not up", function()
  local w, primary = deferring()
  primary:greet { 421, "busy" }
  expect(send(w, "u@example.com").code).equal(250)
  w, primary = deferring()
  primary:silent()
  expect(send(w, "u@example.com").code).equal(250)
end)

test("B12: it is asked at most every 30 seconds, by all workers together", function()
  local w, primary = deferring()
  for _ = 1, 10 do
    expect(send(w, "u@example.com").code).equal(451)
    w:advance "2s"
  end
  expect(primary:connections()).equal(1)
  w:advance "30s"
  expect(send(w, "u@example.com").code).equal(451)
  expect(primary:connections()).equal(2)
end)

test("B12: mail of the primary, and of clients that rely on us, is taken", function()
  local w = deferring { relay_from = { "203.0.113.7/32" } }
  expect(send(w, "u@example.com", "192.0.2.1").code).equal(250)
  expect(send(w, "u@example.com", "203.0.113.7").code).equal(250)
  expect(send(w, "u@example.com", "203.0.113.8").code).equal(451)
end)

test("B11 B12: together: to the primary while it is up, anybody while it is down", function()
  local w, primary = deferring(nil, { recipients = "call-forward" })
  primary:reject { ["nobody@example.com"] = { 550, "5.1.1", "no such user" } }
  expect(send(w, "nobody@example.com").code).equal(451)
  primary:down()
  w:advance "1m"
  expect(send(w, "nobody@example.com").code).equal(250)
end)

-- ---- relay_to_host -----------------------------------------------------------------------------

test("H8: a hard route takes a list", function()
  local w = world(relay_to_host { "192.0.2.3:25", recipients = { "u" } })
  expect(send(w, "u@example.com").code).equal(250)
  expect(send(w, "v@example.com").code).equal(550)
end)

test("H8: a hard route asks its hosts, and remembers", function()
  local w = world(relay_to_host { "192.0.2.3:2525", "192.0.2.4:25", recipients = "call-forward" })
  local first = w:host("192.0.2.3:2525"):reject { ["v@example.com"] = { 550, "no" } }
  local second = w:host("192.0.2.4"):reject { rcpt = { 550, "5.1.1", "nobody here" } }
  expect(send(w, "u@example.com").code).equal(250)
  expect(send(w, "v@example.com").enhanced).equal "5.1.1"
  first:down()
  w:advance "1m"
  expect(send(w, "u@example.com").code).equal(250)
  expect(send(w, "w@example.com").code).equal(550)
  second:down()
  w:advance "1m"
  expect(send(w, "x@example.com").code).equal(250)
  expect(w:asked("example.com", "MX")).equal(0)
end)

test("H8: two routers that ask each other end by their deadline, and accept", function()
  local w = world(relay_to_host { "192.0.2.3:25", recipients = "call-forward" })
  w:host("192.0.2.3"):slow "20s"
  expect(send(w, "u@example.com").code).equal(250)
end)

test("H8: LMTP hosts are asked too", function()
  local w = world(relay_to_host { "lmtp://192.0.2.3:24", recipients = "call-forward" })
  w:host("192.0.2.3:24"):lmtp():reject { ["v@example.com"] = { 550, "5.1.1", "no" } }
  expect(send(w, "u@example.com").code).equal(250)
  expect(send(w, "v@example.com").code).equal(550)
end)
