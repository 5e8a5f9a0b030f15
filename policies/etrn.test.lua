local sim = require "tern.sim"
local etrn = require "policies.etrn"

local function world(options)
  options = options or {}
  options.deliver_to = options.deliver_to or "192.0.2.10"
  options.allow = options.allow or { "192.0.2.0/24" }
  return sim.world {
    config = { hostname = "mx.isp.example", domains = { ["shop.example"] = etrn(options) } },
  }
end

local function send(w)
  return w:send { from = "a@b.example", to = "u@shop.example", body = "hello" }
end

test("E7: mail accumulates and goes nowhere", function()
  local w = world()
  send(w)
  send(w)
  w:advance "3d"
  expect(w:queue()).size(2)
  expect(w:host("192.0.2.10"):inbox()).size(0)
end)

test("E4, E5: ETRN from an allowed address de-spools to the domain's host", function()
  local w = world()
  send(w)
  local reply = w:etrn { client = "192.0.2.77", domain = "shop.example" }
  expect(reply.code).equal(253)
  w:advance "1m"
  expect(w:host("192.0.2.10"):inbox()).size(1)
  expect(w:host("192.0.2.77"):inbox()).size(0)
  expect(w:queue()).size(0)
end)

test("E3, E4: from elsewhere, or for a domain that is none of ours, it is refused alike", function()
  local w = world()
  send(w)
  local foreign = w:etrn { client = "203.0.113.9", domain = "shop.example" }
  local unknown = w:etrn { client = "192.0.2.77", domain = "other.example" }
  expect(foreign.code).equal(459)
  expect(unknown.code).equal(459)
  w:advance "1d"
  expect(w:queue()).size(1)
end)

test("E4: nothing waiting is told so", function()
  local w = world()
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(251)
end)

test("E7: what comes after the release is held again", function()
  local w = world()
  send(w)
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "1h"
  send(w)
  w:advance "1d"
  expect(w:host("192.0.2.10"):inbox()).size(1)
  expect(w:queue()).size(1)
end)

test("E8: a host that is down leaves the mail held", function()
  local w = world()
  local host = w:host("192.0.2.10"):down()
  send(w)
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "1d"
  expect(w:queue()).size(1)
  host:up()
  w:advance "1d"
  expect(w:queue()).size(1)
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "1m"
  expect(host:inbox()).size(1)
end)

test("E5: the mail can go to the client that asked", function()
  local w = world { deliver_to = "client" }
  send(w)
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "1m"
  expect(w:host("192.0.2.77"):inbox()).size(1)
end)

-- Two shops, a third one of a subdomain with a policy of its own.
local function shops(more)
  local function keep(host, options)
    local o = { deliver_to = host, allow = "192.0.2.0/24" }
    for k, v in pairs(options or {}) do o[k] = v end
    return etrn(o)
  end
  local domains = {
    ["shop.example"]        = keep("192.0.2.10", more),
    [".shop.example"]       = keep("192.0.2.11", more),
    ["alone.shop.example"]  = keep("192.0.2.12"),
    ["other.example"]       = keep("192.0.2.13", more),
  }
  return sim.world { workers = 3, config = { hostname = "mx.isp.example", domains = domains } }
end

local function send_to_all(w)
  for _, domain in ipairs { "shop.example", "a.shop.example", "b.shop.example",
                            "alone.shop.example", "other.example", "myshop.example" } do
    w:send { from = "a@b.example", to = "u@" .. domain, body = "hello" }
  end
end

test("E6: @domain is the domain and its subdomains, where their policies agree", function()
  local w = shops { subdomains = true }
  send_to_all(w)
  local reply = w:etrn { client = "192.0.2.77", domain = "@Shop.Example" }
  expect(reply.code).equal(253)
  expect(reply.text).contains " 3 "
  w:advance "1m"
  expect(w:host("192.0.2.10"):inbox()).size(1)
  expect(w:host("192.0.2.11"):inbox()).size(2)
  expect(w:host("192.0.2.12"):inbox()).size(0) -- it has not granted "@"
  expect(w:host("192.0.2.13"):inbox()).size(0)
end)

test("E6: @domain and #name need a grant of their own", function()
  local w = shops()
  send_to_all(w)
  expect(w:etrn { client = "192.0.2.77", domain = "@shop.example" }.code).equal(459)
  expect(w:etrn { client = "192.0.2.77", domain = "#shop.example" }.code).equal(459)
  expect(w:etrn { client = "192.0.2.77", domain = "#shops" }.code).equal(459)
  w:advance "1h"
  expect(w:queue()).size(5)
end)

test("E6: #name is all domains of a group", function()
  local w = shops { group = "shops" }
  send_to_all(w)
  expect(w:etrn { client = "203.0.113.9", domain = "#shops" }.code).equal(459)
  local reply = w:etrn { client = "192.0.2.77", domain = "#shops" }
  expect(reply.code).equal(253)
  expect(reply.text).contains " 4 "
  w:advance "1m"
  expect(w:host("192.0.2.10"):inbox()).size(1)
  expect(w:host("192.0.2.11"):inbox()).size(2)
  expect(w:host("192.0.2.13"):inbox()).size(1)
  expect(w:queue()).size(1)
end)

test("E9: a group does not make one queue of its domains", function()
  local w = shops { group = "shops" }
  w:send { from = "a@b.example", to = { "u@shop.example", "u@other.example" }, body = "hello" }
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(253)
  w:advance "1m"
  expect(w:host("192.0.2.10"):inbox()[1].to).equal { "u@shop.example" }
  expect(w:queue()).size(1)
  expect(w:queue()[1].recipient).equal "u@other.example"
end)

test("E10: the same request again is merged into the one that runs", function()
  local w = world()
  local host = w:host("192.0.2.10"):down()
  send(w)
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(253)
  w:advance "5s"
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(252)
  host:up()
  expect(w:etrn { client = "192.0.2.78", domain = "shop.example" }.code).equal(252)
  w:advance "5s"
  expect(host:inbox()).size(1)
  expect(w:events "queue_release_ended").size(1)
end)

test("E3: one that runs to another host is not merged", function()
  local w = world { deliver_to = "client" }
  w:host("192.0.2.77"):down()
  send(w)
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(253)
  w:advance "5s"
  expect(w:etrn { client = "192.0.2.78", domain = "shop.example" }.code).equal(458)
  w:advance "1h"
  expect(w:etrn { client = "192.0.2.78", domain = "shop.example" }.code).equal(253)
  w:advance "5s"
  expect(w:host("192.0.2.78"):inbox()).size(1)
end)

test("E10: requests of one session are limited", function()
  local w = sim.world {
    config = {
      hostname = "mx.isp.example", limits = { etrn_per_session = 2, etrn_per_client = 3 },
      domains = { ["shop.example"] = etrn { deliver_to = "192.0.2.10", allow = "192.0.2.0/24" } },
    },
  }
  local s = w:session { client = "192.0.2.77" }
  s:line "EHLO shop.example"
  expect(s:line "ETRN shop.example".code).equal(251)
  expect(s:line "ETRN shop.example".code).equal(251)
  expect(s:line "ETRN shop.example".enhanced).equal "4.7.0"
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(251)
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(458)
  expect(w:etrn { client = "192.0.2.78", domain = "shop.example" }.code).equal(251)
end)

test("E12: a function decides, and sees the request and who asks", function()
  local seen = {}
  local w = world {
    allow = function(ctx)
      seen[#seen + 1] = ctx.request.kind .. " " .. ctx.request.argument .. " "
        .. tostring(ctx.request.option) .. " " .. ctx.request.domain .. " "
        .. ctx.session.client.address .. " " .. tostring(ctx.session.helo)
      require "tern".sleep "1s"
      return ctx.session.client.address == "203.0.113.5"
    end,
    subdomains = true,
  }
  send(w)
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(459)
  expect(w:etrn { client = "203.0.113.5", domain = "@SHOP.example", helo = "me.example" }.code)
    .equal(253)
  expect(seen).equal {
    "ETRN shop.example nil shop.example 192.0.2.77 client.example",
    "ETRN @SHOP.example @ shop.example 203.0.113.5 me.example",
  }
end)

test("E3, E4: who must authenticate is told so, whatever the domain", function()
  local w = world { identity = "shop" }
  send(w)
  local ours = w:etrn { client = "192.0.2.77", domain = "shop.example" }
  local none = w:etrn { client = "192.0.2.77", domain = "none.example" }
  local foreign = w:etrn { client = "203.0.113.9", domain = "shop.example" }
  expect(ours.code).equal(530)
  expect(ours.enhanced).equal "5.7.0"
  expect(none.code).equal(530)
  expect(foreign.code).equal(530)
  expect(none.text:gsub("none", "shop")).equal(ours.text)
end)

test("E12: nobody may ask unless somebody is named", function()
  local w = sim.world {
    config = { hostname = "mx.isp.example",
               domains = { ["shop.example"] = etrn { deliver_to = "192.0.2.10" } } },
  }
  send(w)
  expect(w:etrn { client = "127.0.0.1", domain = "shop.example" }.code).equal(459)
end)

test("E11: what nobody asks for is returned when its lifetime ends", function()
  local w = sim.world {
    zone = "b.example. MX 1 mx.b.example.\nmx.b.example. A 192.0.2.80",
    config = { hostname = "mx.isp.example", domains = {
      ["shop.example"] = etrn { deliver_to = "192.0.2.10", allow = "192.0.2.0/24",
                                lifetime = "7d" },
    } },
  }
  send(w)
  w:advance "3d"
  send(w)
  w:advance "95h"
  expect(w:queue()).size(2)
  w:restart()
  w:advance "2h"
  expect(w:queue()).size(1)
  local returned = w:host("192.0.2.80"):inbox()
  expect(returned).size(1)
  expect(returned[1].from).equal ""
  expect(returned[1].to).equal { "a@b.example" }
  expect(returned[1].content).contains "not delivered within 1w"
  expect(returned[1].content).contains "did not ask for it"
  expect(w:host("192.0.2.10"):connections()).equal(0)
  w:advance "3d"
  expect(w:queue()).size(0)
end)

test("E11: a changed lifetime holds for what waits already", function()
  local function config(lifetime)
    return { hostname = "mx.isp.example", domains = {
      ["shop.example"] = etrn { deliver_to = "192.0.2.10", lifetime = lifetime } } }
  end
  local w = sim.world { config = config "2d", workers = 3 }
  send(w)
  w:advance "1d"
  w:reload(config "9d")
  w:advance "7d"
  expect(w:queue()).size(1)
  w:reload(config "8d")
  w:advance "1h"
  expect(w:queue()).size(0)
end)

test("E11: a full queue is 452 at RCPT, for that domain alone, in all workers", function()
  local w = sim.world {
    workers = 4,
    config = { hostname = "mx.isp.example", domains = {
      ["*"] = etrn { deliver_to = "192.0.2.10", allow = "192.0.2.0/24",
                     quota = { messages = 5 } } } },
  }
  for _ = 1, 4 do expect(send(w).code).equal(250) end
  -- What this transaction has brought counts, too.
  local reply = w:send { from = "a@b.example", body = "hello",
                         to = { "u@shop.example", "v@shop.example", "u@other.example" } }
  expect(reply.recipients[1].code).equal(250)
  expect(reply.recipients[2].code).equal(452)
  expect(reply.recipients[2].enhanced).equal "4.2.2"
  expect(reply.recipients[3].code).equal(250)
  expect(send(w).code).equal(452)
  w:restart()
  expect(send(w).code).equal(452)
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(253)
  w:advance "1m"
  expect(w:host("192.0.2.10"):inbox()).size(5)
  expect(send(w).code).equal(250)
end)

test("E11: the quota in bytes, and one warning when it fills", function()
  local w = sim.world {
    workers = 2,
    config = { hostname = "mx.isp.example", domains = {
      ["shop.example"] = etrn { deliver_to = "192.0.2.10", allow = "192.0.2.0/24",
                                quota = { bytes = "10K", warn = 50 } } } },
  }
  local function mail(n)
    return w:send { from = "a@b.example", to = "u@shop.example", body = ("x"):rep(70 - 2, "") ..
      ("\r\n" .. ("y"):rep(68)):rep(n // 70) }.code
  end
  expect(mail(3000)).equal(250)
  expect(w:events "queue_filling").size(0)
  expect(mail(3000)).equal(250)
  expect(w:events "queue_filling").size(1)
  expect(w:events "queue_filling"[1].waiting).equal(2)
  expect(w:events "queue_filling"[1].octets).above(6000)
  expect(mail(3000)).equal(250)
  expect(mail(3000)).equal(452)
  w:restart()
  w:advance "2h"
  expect(mail(100)).equal(250)
  expect(w:events "queue_filling").size(1) -- the same crossing
  w:etrn { client = "192.0.2.77", domain = "shop.example" }
  w:advance "2h"
  expect(mail(6000)).equal(250)
  expect(w:events "queue_filling").size(2)
end)

test("E14: a schedule lets mail go, between its hours", function()
  local w = sim.world { -- a world begins at midnight; local time is UTC
    workers = 3,
    config = { hostname = "mx.isp.example", domains = {
      ["*"] = etrn { deliver_to = "192.0.2.10",
                     schedule = { every = "15m", between = { "01:00", "02:00" } } } } },
  }
  send(w)
  w:send { from = "a@b.example", to = "u@other.example", body = "hello" }
  w:advance "59m"
  expect(w:queue()).size(2)
  w:advance "2m"
  expect(w:host("192.0.2.10"):inbox()).size(2)
  w:advance "10m" -- 01:11
  send(w)
  w:advance "3m" -- 01:14
  expect(w:host("192.0.2.10"):inbox()).size(2)
  w:advance "2m" -- 01:16
  expect(w:host("192.0.2.10"):inbox()).size(3)
  w:advance "44m" -- 02:00
  send(w)
  w:advance "22h"
  expect(w:queue()).size(1)
  w:advance "70m"
  expect(w:queue()).size(0)
  for _, e in ipairs(w:events "etrn") do
    expect(e.by).equal "schedule"
    expect(e.code).equal(253)
  end
  expect(w:events "etrn").size(4)
end)

test("E14: a schedule survives a reload and a restart, and joins a release that runs", function()
  local function config(every)
    return { hostname = "mx.isp.example", domains = {
      ["shop.example"] = etrn { deliver_to = "192.0.2.10", allow = "192.0.2.0/24", window = "2h",
                                schedule = { every = every } } } }
  end
  local w = sim.world { workers = 3, config = config "6h" }
  send(w)
  w:advance "1h"
  w:reload(config "2h")
  w:advance "50m"
  expect(w:queue()).size(1)
  w:restart()
  w:advance "11m" -- 02:01
  expect(w:queue()).size(0)
  local host = w:host("192.0.2.10"):down()
  send(w)
  w:advance "110m" -- 03:51
  expect(w:etrn { client = "192.0.2.77", domain = "shop.example" }.code).equal(253)
  w:advance "10m" -- 04:01: both are one
  expect(w:events "etrn"[3].code).equal(252)
  host:up()
  w:advance "20m"
  expect(host:inbox()).size(2)
  expect(w:events "queue_release_ended").size(2)
end)

test("E14: what a schedule cannot do is said when the file is loaded", function()
  expect(function() etrn { deliver_to = "client", schedule = { every = "1h" } } end)
    .fails "'schedule' needs hosts in 'deliver_to'"
  expect(function() etrn { deliver_to = "192.0.2.1", schedule = { every = "1s" } } end)
    .fails "must be at least 60s"
  expect(function()
    etrn { deliver_to = "192.0.2.1", schedule = { every = "1h", between = { "25:00", "1:00" } } }
  end).fails "two times of the day"
end)

test("E4: 250 where the number is not known: more than one request may let go", function()
  local w = sim.world {
    workers = 2,
    config = { hostname = "mx.isp.example", limits = { etrn_queues = 2 }, domains = {
      ["*"] = etrn { deliver_to = "192.0.2.10", allow = "192.0.2.0/24", group = "all" } } },
  }
  for i = 1, 5 do
    w:send { from = "a@b.example", to = ("u@d%d.example"):format(i), body = "hello" }
  end
  expect(w:etrn { client = "192.0.2.77", domain = "#all" }.code).equal(250)
  w:advance "1m"
  expect(w:queue()).size(3)
  expect(w:etrn { client = "192.0.2.77", domain = "#all" }.code).equal(250)
  w:advance "1m"
  expect(w:etrn { client = "192.0.2.77", domain = "#all" }.code).equal(253)
  w:advance "1m"
  expect(w:etrn { client = "192.0.2.77", domain = "#all" }.code).equal(251)
  expect(w:host("192.0.2.10"):inbox()).size(5)
end)

test("E11: the oldest is returned first, also after a restart", function()
  local w = world { lifetime = "1d" }
  send(w)
  w:advance "23h"
  w:restart()
  send(w)
  w:advance "2h"
  expect(w:queue()).size(1)
  w:advance "1d"
  expect(w:queue()).size(0)
end)
