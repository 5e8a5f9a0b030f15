local sim = require "tern.sim"
local tern = require "tern"
local route = require "tern.route"
local backup = require "policies.backup"
local relay_to_host = require "policies.relay_to_host"

local ZONE = [[
  example.com.      MX 10 mx1.example.com.
  example.com.      MX 20 mx2.isp.example.
  example.com.      MX 30 mx3.isp.example.
  mx1.example.com.  A  192.0.2.1
  mx2.isp.example.  A  198.51.100.2
  mx3.isp.example.  A  198.51.100.3
  b.example.        MX 10 mx.b.example.
  mx.b.example.     A  192.0.2.77
]]

-- more: lines of the zone. config: keys besides.
local function world(options, more, config)
  local c = { hostname = "mx2.isp.example", domains = {} }
  for _, domain in ipairs { "example.com", "d.example", "null.example", "gone.example",
    "mine.example" } do
    c.domains[domain] = backup(options)
  end
  for k, v in pairs(config or {}) do c[k] = v end
  return sim.world { zone = ZONE .. (more or ""), config = c }
end

local function send(w, to, from)
  return w:send { from = from or "a@b.example", to = to or "u@example.com", body = "hello" }
end

test("B10: mail waits for the primary, however long it takes", function()
  local w = world()
  local primary = w:host("192.0.2.1"):down()
  send(w)
  w:advance "12d"
  expect(w:queue()).size(1)
  primary:up()
  w:advance "1h"
  expect(primary:inbox()).size(1)
  expect(w:queue()).size(0)
end)

test("B10: so for each failure of the host: greeting, EHLO, 421, a lost connection", function()
  for _, stage in ipairs { "greeting", "helo", "mail" } do
    local w = world()
    local primary = w:host("192.0.2.1"):reject { [stage] = { 421, "4.3.2", "not now" } }
    send(w)
    w:advance "12d"
    expect(w:queue()).size(1)
    primary:accept():drop(stage)
    w:advance "12d"
    expect(w:queue()).size(1)
    primary:accept()
    w:advance "1h"
    expect(primary:inbox()).size(1)
  end
end)

test("B10: a lifetime bounds failures of the host, too", function()
  local w = world { lifetime = "2d" }
  w:host("192.0.2.1"):down()
  send(w)
  w:advance "3d"
  expect(w:queue()).size(0)
  local told = w:host("192.0.2.77"):inbox()
  expect(told[1].content).contains "Action: delayed"
  expect(told[2].content).contains "not delivered within 2d"
end)

test("B10: 4yz of a living primary follows the schedule and the ordinary lifetime", function()
  local w = world()
  local primary = w:host("192.0.2.1"):reject { rcpt = { 450, "4.2.1", "greylisted", times = 2 } }
  send(w)
  w:advance "30s"
  expect(w:queue()[1].attempts).equal(1)
  w:advance "10m"
  expect(primary:inbox()).size(1)
  primary:reject { rcpt = { 450, "4.2.1", "mailbox busy" } }
  send(w)
  w:advance "6d"
  expect(w:queue()).size(0)
  expect(w:host("192.0.2.77"):inbox()[1].content).contains "mailbox busy"
end)

test("B10: what a living primary refuses is returned to its sender at once", function()
  local w = world()
  local primary = w:host("192.0.2.1"):reject { rcpt = { 550, "5.1.1", "no such user" } }
  send(w)
  w:advance "1m"
  expect(primary:inbox()).size(0)
  expect(w:queue()).size(0)
  expect(w:host("192.0.2.77"):inbox()[1].content).contains "no such user"
end)

test("mail goes to the primary at once while it is up", function()
  local w = world()
  local primary = w:host("192.0.2.1")
  send(w)
  w:advance "1s"
  expect(primary:inbox()).size(1)
end)

test("B1: the better ones in order of preference, equals shuffled", function()
  local first = { 0, 0 }
  for seed = 1, 40 do
    local w = sim.world { seed = seed, zone = [[
      d.example.      MX 5  best.d.example.
      d.example.      MX 10 one.d.example.
      d.example.      MX 10 two.d.example.
      d.example.      MX 20 mx2.isp.example.
      best.d.example. A 192.0.2.3
      one.d.example.  A 192.0.2.1
      two.d.example.  A 192.0.2.2 ]],
      config = { hostname = "mx2.isp.example", domains = { ["d.example"] = backup() } } }
    local best = w:host("192.0.2.3"):down()
    send(w, "u@d.example")
    w:advance "1s"
    expect(best:connections()).equal(0)
    for i = 1, 2 do first[i] = first[i] + #w:host("192.0.2." .. i):inbox() end
  end
  expect(first[1] + first[2]).equal(40)
  expect(first[1]).above(5)
  expect(first[2]).above(5)
end)

test("B1: self is found by other names, by a listener's address, outside of a NAT", function()
  local same = {
    { self = { names = { "backup.example.net" } } },
    { self = { addresses = { "203.0.113.5" } } },
    { listen = { { "203.0.113.5:25" } } },
  }
  for _, config in ipairs(same) do
    local w = world(nil, [[
      d.example.          MX 10 mx.d.example.
      d.example.          MX 20 backup.example.net.
      mx.d.example.       A 192.0.2.5
      backup.example.net. A 203.0.113.5 ]], config)
    w:host("192.0.2.5"):down()
    expect(send(w, "u@d.example").code).equal(250)
    w:advance "1d"
    expect(w:host("203.0.113.5"):connections()).equal(0)
    w:host("192.0.2.5"):up()
    w:advance "1h"
    expect(w:host("192.0.2.5"):inbox()).size(1)
  end
end)

test("B2: whoever is as good as we are, or worse, never gets it", function()
  local w = world(nil, [[
    d.example.      MX 10 mx.d.example.
    d.example.      MX 20 mx2.isp.example.
    d.example.      MX 20 peer.d.example.
    d.example.      MX 30 worse.d.example.
    mx.d.example.   A 192.0.2.5
    peer.d.example. A 192.0.2.6
    worse.d.example. A 192.0.2.7 ]])
  w:host("192.0.2.5"):down()
  send(w, "u@d.example")
  w:advance "3d"
  expect(w:host("192.0.2.6"):connections()).equal(0)
  expect(w:host("192.0.2.7"):connections()).equal(0)
  expect(w:queue()).size(1)
end)

test("B3: where we are the best ourselves it is refused, and what is queued is returned", function()
  local best = "d.example. MX 10 mx2.isp.example.\n"
  local w = world(nil, best)
  local reply = send(w, "u@d.example")
  expect(reply.code).equal(554)
  expect(reply.enhanced).equal "5.4.6"
  -- it becomes so while mail waits
  w = world()
  w:host("192.0.2.1"):down()
  send(w)
  w:zone(ZONE .. "example.com. MX 5 mx2.isp.example.\n")
  w:advance "2h"
  expect(w:queue()).size(0)
  expect(w:host("192.0.2.77"):inbox()[1].content).contains "5.4.6"
end)

test('B3: when_best = "defer" keeps it, with an alarm', function()
  local w = world({ when_best = "defer" }, "d.example. MX 10 mx2.isp.example.\n")
  expect(send(w, "u@d.example").code).equal(250)
  w:advance "20d"
  expect(w:queue()).size(1)
  expect(w:events "route_alarm"[1].why).contains "we are the best MX"
end)

test("B4: a better one without an address now is waited for", function()
  for _, status in ipairs { "nxdomain", "nodata", "servfail", "timeout" } do
    local w = world()
    w:dns { name = "mx1.example.com", status = status }
    expect(send(w).code).equal(250)
    w:advance "6d"
    expect(w:queue()).size(1)
    expect(w:events "queue_backoff"[1].why).contains "no MX of example.com has an address now"
    expect(w:host("198.51.100.3"):connections()).equal(0)
    w:dns { name = "mx1.example.com", status = "ok" }
    w:advance "1h"
    expect(w:host("192.0.2.1"):inbox()).size(1)
  end
end)

test("B5: a domain that does not list us is refused at RCPT, and 451 while DNS fails", function()
  local w = world(nil, "d.example. MX 10 mx.d.example.\nmx.d.example. A 192.0.2.5\n")
  local reply = send(w, "u@d.example")
  expect(reply.code).equal(550)
  expect(reply.enhanced).equal "5.7.1"
  w:dns { name = "d.example", type = "MX", status = "servfail" }
  reply = send(w, "u@d.example")
  expect(reply.code).equal(451)
  expect(reply.enhanced).equal "4.4.3"
end)

test("B5: what was queued before waits with an alarm, and goes to no other MX", function()
  local w = world()
  w:host("192.0.2.1"):down()
  send(w)
  w:zone [[
    example.com.      MX 10 mx1.example.com.
    example.com.      MX 30 mx3.isp.example.
    mx1.example.com.  A  192.0.2.1
    mx3.isp.example.  A  198.51.100.3 ]]
  w:host("192.0.2.1"):up()
  w:advance "6d"
  expect(w:queue()).size(1)
  expect(w:events "route_alarm"[1].why).contains "we are not an MX of example.com"
  expect(w:host("192.0.2.1"):inbox()).size(0)
  expect(w:host("198.51.100.3"):connections()).equal(0)
end)

test("B6: the domain's own address is never used beside MX", function()
  local w = world(nil, "example.com. A 192.0.2.9\n")
  w:host("192.0.2.1"):down()
  send(w)
  w:advance "1d"
  expect(w:host("192.0.2.9"):connections()).equal(0)
end)

test("B6: without MX the domain itself has preference 0; it is not we", function()
  local w = world(nil, "d.example. A 192.0.2.9\nmine.example. A 198.51.100.25\n")
  expect(send(w, "u@d.example").code).equal(550)
  expect(send(w, "u@mine.example").enhanced).equal "5.4.6"
end)

test("B6: null MX and NXDOMAIN are final, at RCPT and in the queue", function()
  local w = world(nil, "null.example. MX 0 .\n")
  local null = send(w, "u@null.example")
  expect(null.code).equal(556)
  expect(null.enhanced).equal "5.1.10"
  expect(send(w, "u@gone.example").code).equal(550)
  for _, zone in ipairs { "example.com. MX 0 .\n", "" } do
    w = world()
    w:host("192.0.2.1"):down()
    send(w)
    w:zone(zone .. "b.example. MX 10 mx.b.example.\nmx.b.example. A 192.0.2.77\n")
    w:advance "2h"
    expect(w:queue()).size(0)
    expect(w:host("192.0.2.77"):inbox()).size(1)
  end
end)

test("B6: in the queue SERVFAIL and timeouts are waited for", function()
  local w = world()
  w:host("192.0.2.1"):down()
  send(w)
  w:dns { name = "example.com", type = "MX", status = "servfail" }
  w:advance "6d"
  w:dns { name = "example.com", type = "MX", status = "timeout" }
  w:advance "6d"
  expect(w:queue()).size(1)
  w:dns { name = "example.com", type = "MX", status = "ok" }
  w:host("192.0.2.1"):up()
  w:advance "1h"
  expect(w:host("192.0.2.1"):inbox()).size(1)
end)

test("B7: neither the default route nor a fallback is used", function()
  local w = world(nil, nil, { default_route = route.hosts { "192.0.2.99" } })
  w:host("192.0.2.1"):down()
  send(w, nil, "")
  w:advance "6d"
  expect(w:host("192.0.2.99"):connections()).equal(0)
  expect(w:queue()).size(1)
  expect(function()
    route.mx { domain = "d.example", below = "self", fallback = route.hosts { "192.0.2.99" } }
  end).fails "a backup MX"
end)

test("B8: a CNAME behind an MX is followed, 8 deep and no deeper", function()
  local lines = { "d.example. MX 10 c1.d.example.", "d.example. MX 20 mx2.isp.example." }
  for i = 1, 7 do lines[#lines + 1] = ("c%d.d.example. CNAME c%d.d.example."):format(i, i + 1) end
  lines[#lines + 1] = "c8.d.example. CNAME mx.d.example."
  lines[#lines + 1] = "mx.d.example. A 192.0.2.5"
  local w = world(nil, table.concat(lines, "\n") .. "\n")
  send(w, "u@d.example")
  w:advance "1m"
  expect(w:host("192.0.2.5"):inbox()).size(1)
  lines[1] = "d.example. MX 10 c0.d.example.\nc0.d.example. CNAME c1.d.example."
  w:zone(ZONE .. table.concat(lines, "\n") .. "\n")
  w:advance "1d"
  expect(send(w, "u@d.example").code).equal(250)
  w:advance "1h"
  expect(w:host("192.0.2.5"):inbox()).size(1)
  expect(w:queue()).size(1)
end)

test("B8: an MX that is an address is not used, and said so", function()
  local w = world(nil, "d.example. MX 10 192.0.2.5.\nd.example. MX 20 mx2.isp.example.\n", {
    policies = { { rcpt = function(ctx)
      for _, d in ipairs(route.resolve(route.mx { below = "self" }).discarded) do
        tern.log.info { "discarded", what = d.what, reason = d.reason }
      end
    end } } })
  expect(send(w, "u@d.example").code).equal(250)
  w:advance "6d"
  expect(w:host("192.0.2.5"):connections()).equal(0)
  expect(w:queue()).size(1)
end)

test("B9: a host that greets as ourselves is passed over", function()
  local w = world(nil, [[
    d.example.      MX 5  loop.d.example.
    d.example.      MX 10 mx.d.example.
    d.example.      MX 20 mx2.isp.example.
    loop.d.example. A 192.0.2.4
    mx.d.example.   A 192.0.2.5 ]])
  w:host("192.0.2.4"):named "mx2.isp.example"
  send(w, "u@d.example")
  w:advance "1m"
  expect(w:host("192.0.2.4"):inbox()).size(0)
  expect(w:host("192.0.2.5"):inbox()).size(1)
  -- and while the other one is down, it is waited for
  w:host("192.0.2.5"):down()
  send(w, "u@d.example")
  w:advance "6d"
  expect(w:queue()).size(1)
end)

test("B9: where there is nobody else, it is a loop, and the host is named", function()
  local w = world()
  w:host("192.0.2.1"):named "mx2.isp.example"
  send(w)
  w:advance "1m"
  expect(w:queue()).size(0)
  local notice = w:host("192.0.2.77"):inbox()[1].content
  expect(notice).contains "5.4.6"
  expect(notice).contains "192.0.2.1"
end)

test("B4: a loop beside a better MX that is not known now: that one is waited for", function()
  local w = world(nil, [[
    d.example.      MX 5  mx.d.example.
    d.example.      MX 10 loop.d.example.
    d.example.      MX 20 mx2.isp.example.
    loop.d.example. A 192.0.2.4
    mx.d.example.   A 192.0.2.5 ]])
  w:host("192.0.2.4"):named "mx2.isp.example"
  w:dns { name = "mx.d.example", status = "servfail" }
  expect(send(w, "u@d.example").code).equal(250)
  w:advance "6d"
  expect(w:queue()).size(1)
  w:dns { name = "mx.d.example", status = "ok" }
  w:advance "1h"
  expect(w:host("192.0.2.5"):inbox()).size(1)
end)

test("B9: our own listener behind a better MX is a loop, found by its address", function()
  local w = world(nil, [[
    d.example.     MX 10 mx.d.example.
    d.example.     MX 20 mx2.isp.example.
    mx.d.example.  A 198.51.100.25 ]])
  local reply = send(w, "u@d.example")
  expect(reply.code).equal(554)
  expect(reply.enhanced).equal "5.4.6"
  expect(w:host("198.51.100.25"):connections()).equal(0)
end)

test("B13: the primary's return is noticed within 15 minutes", function()
  local w = world()
  local primary = w:host("192.0.2.1"):down()
  send(w)
  w:advance "9d"
  primary:up()
  w:advance "15m"
  expect(primary:inbox()).size(1)
end)

test("B13: mail from the primary is a sign of life", function()
  local w = world(nil, nil, { relay_from = { "192.0.2.1" } })
  local primary = w:host("192.0.2.1"):down()
  send(w)
  w:advance "1d"
  primary:up()
  local before = #w:events "delivered"
  w:send { client = "192.0.2.1", from = "u@example.com", to = "a@b.example", body = "I am back" }
  w:advance "5s"
  expect(w:events "queue_probe"[1].heard_from).equal "192.0.2.1"
  expect(primary:inbox()).size(1)
  expect(#w:events "delivered").equal(before + 2)
end)

test("B13: who sends and does not answer is tried once a minute for it, no more", function()
  local w = world(nil, nil, { relay_from = { "192.0.2.1" } })
  local primary = w:host("192.0.2.1"):down()
  send(w)
  w:advance "1d"
  local before = #w:events "queue_backoff"
  for _ = 1, 60 do
    w:send { client = "192.0.2.1", from = "u@example.com", to = "a@b.example", body = "x" }
    w:advance "1s"
  end
  expect(#w:events "queue_backoff").below(before + 4)
  expect(primary:inbox()).size(0)
end)

test("B13: the backlog ramps up from one connection", function()
  local w = world()
  local primary = w:host("192.0.2.1"):down()
  for _ = 1, 60 do send(w) end
  w:advance "1d"
  primary:up():slow "5s"
  local before = primary:connections()
  local at_first
  for _ = 1, 90 do -- the probe comes within 15 minutes
    w:advance "10s"
    if primary:connections() > before then
      at_first = primary:connections() - before
      break
    end
  end
  expect(at_first).equal(1)
  w:advance "2h"
  expect(primary:inbox()).size(60)
end)

test("B13: a dead domain's backlog delays no other domain", function()
  local w = world(nil, [[
    d.example.    MX 10 mx.d.example.
    d.example.    MX 20 mx2.isp.example.
    mx.d.example. A 192.0.2.5 ]])
  w:host("192.0.2.1"):silent()
  for _ = 1, 200 do send(w) end
  send(w, "u@d.example")
  w:advance "2s"
  expect(w:host("192.0.2.5"):inbox()).size(1)
end)

test("other domains are not relayed", function()
  local w = sim.world { zone = ZONE, config = {
    hostname = "mx2.isp.example",
    domains = { ["example.com"] = backup(), ["here.example"] = relay_to_host { "192.0.2.8" } },
  } }
  local reply = send(w, "u@other.example")
  expect(reply.code).equal(550)
  expect(reply.text).contains "relay"
end)
