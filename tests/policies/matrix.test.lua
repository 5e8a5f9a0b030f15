-- The four routing systems, and what may be wrong with the host that mail goes to: each cell says
-- what becomes of one message, and how many hosts were spoken to before that was known.
--
-- Outcomes:
--   delivered       at the host at once (a slow one: within the hour)
--   waiting         in the queue after a day; delivered within three hours when all is well again
--   held            ETRN released it, that failed, and it is held again; when all is well nothing
--                   happens until the next ETRN, which delivers it
--   returned X      the sender is told X (an enhanced status code)
--   refused C       at RCPT, with reply C
--
-- The tag behind it is the statement of docs/routing.md that says so.
local sim           = require "tern.sim"
local backup        = require "policies.backup"
local smart_host    = require "policies.smart_host"
local relay_to_host = require "policies.relay_to_host"
local etrn          = require "policies.etrn"

local HOST, HOST6 = "192.0.2.1", "2001:db8::1"
local OTHER = "192.0.2.66" -- what is in DNS as well, and must not be used
local WORSE = "192.0.2.67" -- an MX of worse preference than ours
local SENDER = "192.0.2.80"

-- ---- the systems --------------------------------------------------------------------------------

-- Those that look up MX find the host behind it, and another at the name's own address; those that
-- look up addresses find the host at the name's own address, and another behind its MX.
local BY_MX = {
  name = "target.example. A " .. OTHER,
  mx = "target.example. MX 10 mx.target.example.",
  host = "mx.target.example.",
}
local BY_ADDRESS = {
  name = "mx.target.example. A " .. OTHER,
  mx = "target.example. MX 10 mx.target.example.",
  host = "target.example.",
}

local systems = {
  backup = {
    names = BY_MX, to = "u@target.example",
    more = "target.example. MX 20 mx2.isp.example.\ntarget.example. MX 30 worse.example.",
    config = function(options)
      return { domains = { ["target.example"] = backup(options) } }
    end,
  },
  smart_host = {
    names = BY_MX, to = "u@dest.example",
    config = function(options, target)
      return { senders = { ["sender.example"] = smart_host { target, tls = options.tls } },
        relay_from = { "203.0.113.0/24" } }
    end,
  },
  relay_to_host = {
    names = BY_ADDRESS, to = "u@dest.example", -- a domain that is in no DNS
    config = function(options, target)
      return { domains = { ["dest.example"] = relay_to_host { target, tls = options.tls } } }
    end,
  },
  etrn = {
    names = BY_ADDRESS, to = "u@dest.example",
    config = function(options, target)
      return { domains = { ["dest.example"] = etrn { deliver_to = target, tls = options.tls,
        allow = "203.0.113.0/24" } } }
    end,
  },
}

-- ---- what may be wrong --------------------------------------------------------------------------
--
-- zone(names): the records of the target, where they are others than usual; only: without ours.
-- break_(w, host): what else is done to it; late: when the mail has been accepted already (the host
-- was down meanwhile).
-- tls, target: options of the policy.    days: how long it is so; otherwise one.

local conditions = {
  { "the host is up",
    backup        = "delivered      1  B10",
    smart_host    = "delivered      1  S3",
    relay_to_host = "delivered      1  H1",
    etrn          = "delivered      1  E5" },

  { "it is down", -- the host's failure: a backup and a smart host wait without end
    break_ = function(_, host) host:down() end,
    backup        = "waiting        0  B10",
    smart_host    = "waiting        0  S5",
    relay_to_host = "waiting        0  H5",
    etrn          = "held           0  E8" },

  { "it is down for six days", days = 6, -- the others' mail has a lifetime, of five days
    break_ = function(_, host) host:down() end,
    backup        = "waiting        0  B10",
    smart_host    = "waiting        0  S5",
    relay_to_host = "returned 5.4.7 0  H5",
    etrn          = "held           0  E8" },

  { "it does not answer",
    break_ = function(_, host) host:silent() end,
    backup        = "waiting        0  B10",
    smart_host    = "waiting        0  S5",
    relay_to_host = "waiting        0  H5",
    etrn          = "held           0  E8" },

  { "it refuses the recipient", -- its word on the recipient: final, whoever asks
    break_ = function(_, host) host:reject { rcpt = { 550, "5.1.1", "no such user" } } end,
    backup        = "returned 5.1.1 1  B10",
    smart_host    = "returned 5.1.1 1  S10",
    relay_to_host = "returned 5.1.1 1  H5",
    etrn          = "returned 5.1.1 1  E5" },

  { "it defers the recipient", -- by the retry schedule
    break_ = function(_, host) host:reject { rcpt = { 451, "4.7.1", "greylisted" } } end,
    backup        = "waiting        1  B10",
    smart_host    = "waiting        1  S5",
    relay_to_host = "waiting        1  H5",
    etrn          = "held           1  E8" },

  { "it greets with 421",
    break_ = function(_, host) host:greet { 421, "4.3.2", "not now" } end,
    backup        = "waiting        1  B10",
    smart_host    = "waiting        1  S5",
    relay_to_host = "waiting        1  H5",
    etrn          = "held           1  E8" },

  { "it greets with 554", -- says nothing of this message: the host's failure too
    break_ = function(_, host) host:greet { 554, "5.3.2", "no mail here" } end,
    backup        = "waiting        1  B10",
    smart_host    = "waiting        1  S6",
    relay_to_host = "waiting        1  H5",
    etrn          = "held           1  E8" },

  { "it is slow", -- half a minute before each reply is not a failure
    break_ = function(_, host) host:slow "30s" end,
    backup        = "delivered      1  B10",
    smart_host    = "delivered      1  S5",
    relay_to_host = "delivered      1  H5",
    etrn          = "delivered      1  E5" },

  { "its TLS is broken", -- opportunistic: better in clear than not at all
    break_ = function(_, host) host:starttls "broken" end,
    backup        = "delivered      1  B10",
    smart_host    = "delivered      1  S8",
    relay_to_host = "delivered      1  H5",
    etrn          = "delivered      1  E5" },

  { "its TLS is broken, and required",
    tls = "require", break_ = function(_, host) host:starttls "broken" end,
    backup        = "waiting        1  B10",
    smart_host    = "waiting        1  S8",
    relay_to_host = "waiting        1  H5",
    etrn          = "held           1  E8" },

  { "DNS fails (SERVFAIL)",
    break_ = function(w) w:dns { name = "target.example", status = "servfail" } end,
    backup        = "refused 451    0  B5",
    smart_host    = "waiting        0  S5",
    relay_to_host = "waiting        0  H4",
    etrn          = "held           0  E8" },

  { "DNS fails (SERVFAIL) while mail waits", late = true,
    break_ = function(w) w:dns { name = "target.example", status = "servfail" } end,
    backup        = "waiting        0  B6",
    smart_host    = "waiting        0  S5",
    relay_to_host = "waiting        0  H4",
    etrn          = "held           0  E8" },

  { "the name does not exist (NXDOMAIN)", -- a backup's domain is gone; others wait for the operator
    break_ = function(w) w:dns { name = "target.example", status = "nxdomain" } end,
    backup        = "refused 550    0  B6",
    smart_host    = "waiting        0  S5",
    relay_to_host = "waiting        0  H4",
    etrn          = "held           0  E8" },

  { "the name vanishes (NXDOMAIN) while mail waits", late = true,
    break_ = function(w) w:dns { name = "target.example", status = "nxdomain" } end,
    backup        = "returned 5.1.2 0  B6",
    smart_host    = "waiting        0  S5",
    relay_to_host = "waiting        0  H4",
    etrn          = "held           0  E8" },

  { "its MX is null", only = true, -- to who looks up addresses, MX does not matter
    -- a smart host that the operator named is asked all the same, at its own address
    zone = function() return "target.example. MX 0 .", "target.example. A " .. HOST end,
    backup        = "refused 556    0  B6",
    smart_host    = "delivered      1  S3",
    relay_to_host = "delivered      1  H1",
    etrn          = "delivered      1  E5" },

  { "the MX has no address", -- never a reason for the worse one
    zone = function(names)
      return names == BY_MX and names.name or nil, "target.example. MX 10 mx.target.example."
    end,
    backup        = "waiting        0  B4",
    smart_host    = "waiting        0  S5",
    relay_to_host = "waiting        0  H4",
    etrn          = "held           0  E8" },

  { "the host's name is a CNAME",
    zone = function(names)
      local mx = names == BY_MX and names.mx or nil
      return mx, names.host .. " CNAME real.example.", "real.example. A " .. HOST
    end,
    backup        = "delivered      1  B8",
    smart_host    = "delivered      1  S3",
    relay_to_host = "delivered      1  H8",
    etrn          = "delivered      1  E5" },

  { "the MX is an address literal", -- that is none: MX names hosts (RFC 5321, 5.1)
    zone = function(names)
      return names.host .. " A " .. HOST, "target.example. MX 10 " .. HOST .. "."
    end,
    backup        = "waiting        0  B8",
    smart_host    = "waiting        0  S5",
    relay_to_host = "delivered      1  H1",
    etrn          = "delivered      1  E5" },

  { "the target is an address",
    target = HOST .. ":25", zone = function() end,
    smart_host    = "delivered      1  S3",
    relay_to_host = "delivered      1  H8",
    etrn          = "delivered      1  E5" },

  { "the host has IPv6 only", host = HOST6,
    zone = function(names) return names.mx, names.host .. " AAAA " .. HOST6 end,
    backup        = "delivered      1  B8",
    smart_host    = "delivered      1  S3",
    relay_to_host = "delivered      1  H8",
    etrn          = "delivered      1  E5" },
}

-- ---- one cell -----------------------------------------------------------------------------------

local function zone_of(more, ...)
  local lines = { more or "", "mx2.isp.example. A 198.51.100.25", "worse.example. A " .. WORSE,
    "sender.example. MX 10 mx.sender.example.", "mx.sender.example. A " .. SENDER }
  for i = 1, select("#", ...) do lines[#lines + 1] = select(i, ...) or "" end
  return table.concat(lines, "\n")
end

local function usual_zone(system, address)
  local names = system.names
  return zone_of(system.more, names.name, names.mx,
    names.host .. (address == HOST6 and " AAAA " or " A ") .. address)
end

local function cell_world(system, condition)
  local config = system.config({ tls = condition.tls }, condition.target or "target.example")
  config.hostname = "mx2.isp.example"
  return sim.world { config = config, zone = usual_zone(system, condition.host or HOST) }
end

-- Hosts that took a connection, other than the sender's.
local function spoken_to(w)
  local n = 0
  for _, address in ipairs { HOST, HOST6, OTHER, WORSE } do
    if w:host(address):connections() > 0 then n = n + 1 end
  end
  return n
end

local function break_it(w, system, condition, host)
  if condition.zone then
    w:zone(zone_of(not condition.only and system.more, condition.zone(system.names)))
  end
  if condition.break_ then condition.break_(w, host) end
end

local function mend_it(w, system, condition, host)
  host:up():accept():starttls(condition.tls and "offered" or "none"):slow "0s"
  w:dns { name = "target.example", status = "ok" }
  w:zone(usual_zone(system, condition.host or HOST))
end

local function release(w)
  local reply = w:etrn { client = "203.0.113.9", domain = "dest.example" }
  expect(reply.code).equal(253)
end

local function send(w, system)
  return w:send { client = "203.0.113.9", from = "a@sender.example", to = system.to, body = "x" }
end

-- What the sender was told; nil: nothing that ends it.
local function returned(w)
  for _, mail in ipairs(w:host(SENDER):inbox()) do
    if mail.content:find "\nAction: failed" then
      return mail.content:match "\nStatus: (%d%.%d+%.%d+)"
    end
  end
end

local outcomes = {}

function outcomes.delivered(w, host)
  expect(host:inbox()).size(1)
  expect(w:queue()).size(0)
  expect(returned(w)).equal(nil)
end

function outcomes.waiting(w, host, system, condition)
  expect(host:inbox()).size(0)
  expect(w:queue()).size(1)
  expect(w:queue()[1].state).never.equal "waiting" -- for ETRN
  mend_it(w, system, condition, host)
  w:advance "3h"
  outcomes.delivered(w, host)
end

function outcomes.held(w, host, system, condition)
  expect(host:inbox()).size(0)
  expect(w:queue()).size(1)
  expect(w:queue()[1].state).equal "waiting" -- for ETRN
  mend_it(w, system, condition, host)
  w:advance "1d"
  expect(w:queue()).size(1)
  release(w)
  w:advance "1m"
  outcomes.delivered(w, host)
end

function outcomes.returned(w, host, _, _, status)
  expect(host:inbox()).size(0)
  expect(w:queue()).size(0)
  expect(returned(w)).equal(status)
end

local function run(system, condition, cell)
  local outcome, detail, hosts = cell:match "^(%a+) ?([%d.]*) +(%d+) "
  local w = cell_world(system, condition)
  local host = w:host(condition.host or HOST)
  if condition.late then host:down() else break_it(w, system, condition, host) end
  local reply = send(w, system)
  if outcome == "refused" then
    expect(reply.code).equal(tonumber(detail))
    expect(spoken_to(w)).equal(tonumber(hosts))
    return
  end
  expect(reply.code).equal(250)
  if system == systems.etrn then
    w:advance "1h"
    expect(spoken_to(w)).equal(0) -- held mail goes nowhere
  end
  if condition.late then
    break_it(w, system, condition, host)
    host:up()
  end
  if system == systems.etrn then release(w) end
  w:advance(outcome == "delivered" and "1h" or (condition.days or 1) .. "d")
  expect(spoken_to(w)).equal(tonumber(hosts))
  outcomes[outcome](w, host, system, condition, detail)
  expect(w:host(OTHER):connections() + w:host(WORSE):connections()).equal(0)
end

for _, condition in ipairs(conditions) do
  for _, name in ipairs { "backup", "smart_host", "relay_to_host", "etrn" } do
    local cell = condition[name]
    if cell then
      local outcome, hosts, tag = cell:match "^(.-) +(%d+) +(%w+)$"
      local title = "%s: %s, %s: %s, %s spoken to"
      test(title:format(tag, name, condition[1], outcome, hosts), function()
        run(systems[name], condition, cell)
      end)
    end
  end
end
