local sim = require "tern.sim"
local route = require "tern.route"
local relay_to_host = require "policies.relay_to_host"

local ZONE = [[
  b.example.        MX 10 mx.b.example.
  mx.b.example.     A  192.0.2.77
]]

local function world(domains, zone, config)
  local c = { hostname = "mx.isp.example", domains = domains }
  for k, v in pairs(config or {}) do c[k] = v end
  return sim.world { zone = ZONE .. (zone or ""), config = c }
end

local function send(w, to)
  return w:send { from = "a@b.example", to = to, body = "hello" }
end

test("H1: all mail for the domain goes to the host, and DNS is not asked about it", function()
  local w = world { ["intranet.example"] = relay_to_host { "192.0.2.3:25" } }
  send(w, "u@intranet.example")
  w:advance "1s"
  expect(w:host("192.0.2.3"):inbox()).size(1)
  for _, type in ipairs { "MX", "A", "AAAA" } do
    expect(w:asked("intranet.example", type)).equal(0)
  end
end)

test("H1: its public MX is irrelevant, null or not; a host's name is asked for its address only",
  function()
    for _, mx in ipairs { "10 mx.public.example.", "0 ." } do
      local w = world({ ["intranet.example"] = relay_to_host { "inside.example" } },
        "intranet.example. MX " .. mx .. "\ninside.example. MX 5 wrong.example.\n" .. [[
        inside.example. A 192.0.2.3
        wrong.example. A 192.0.2.98
        mx.public.example. A 192.0.2.99 ]])
      send(w, "u@intranet.example")
      w:advance "1s"
      expect(w:host("192.0.2.3"):inbox()).size(1)
      expect(w:asked("intranet.example", "MX")).equal(0)
      expect(w:asked("inside.example", "MX")).equal(0)
    end
  end)

test("H2: the name is the domain alone, .name its subdomains alone, the most specific key wins",
  function()
    local w = world {
      ["branch.example"] = relay_to_host { "192.0.2.3" },
      [".branch.example"] = relay_to_host { "192.0.2.4" },
      [".north.branch.example"] = relay_to_host { "192.0.2.5" },
      ["far.north.branch.example"] = relay_to_host { "192.0.2.6" },
      ["*"] = relay_to_host { "192.0.2.7" },
    }
    local goes = {
      ["branch.example"] = 3, ["south.branch.example"] = 4, ["a.south.branch.example"] = 4,
      ["north.branch.example"] = 4, ["mid.north.branch.example"] = 5,
      ["far.north.branch.example"] = 6, ["a.far.north.branch.example"] = 5,
      ["xbranch.example"] = 7, ["other.example"] = 7,
    }
    for domain, host in pairs(goes) do
      send(w, "u@" .. domain)
      w:advance "1s"
      local inbox = w:host("192.0.2." .. host):inbox()
      expect(inbox[#inbox].to).equal { "u@" .. domain }
    end
  end)

test("H2: names in any case, IDN as A-labels", function()
  local w = world {
    ["Intranet.Example"] = relay_to_host { "192.0.2.3" },
    ["bücher.example"] = relay_to_host { "192.0.2.4" },
  }
  send(w, "u@INTRANET.example")
  send(w, "u@xn--bcher-kva.example")
  w:advance "1s"
  expect(w:host("192.0.2.3"):inbox()).size(1)
  expect(w:host("192.0.2.4"):inbox()).size(1)
end)

test("H3: the route authorises; without one, and from strangers, it is 550 5.7.1", function()
  local w = world({ [".branch.example"] = relay_to_host { "192.0.2.4" } }, nil,
    { relay_from = { "10.0.0.0/8" } })
  expect(send(w, "u@a.branch.example").code).equal(250)
  for _, domain in ipairs { "branch.example", "b.example" } do
    local reply = send(w, "u@" .. domain)
    expect(reply.code).equal(550)
    expect(reply.enhanced).equal "5.7.1"
  end
  expect(w:send { client = "10.1.1.1", from = "a@b.example", to = "u@b.example", body = "x" }.code)
    .equal(250)
end)

test("H4: a target that does not resolve is waited for, with an alarm", function()
  local w = world { ["intranet.example"] = relay_to_host { "inside.example" } }
  for _, status in ipairs { "nxdomain", "servfail" } do
    w:dns { name = "inside.example", status = status }
    send(w, "u@intranet.example")
    w:advance "1h"
  end
  expect(w:queue()).size(2)
  expect(w:events "route_alarm"[1].why).contains "inside.example"
  w:dns { name = "inside.example", status = "ok" }
  w:zone(ZONE .. "inside.example. A 192.0.2.3\n")
  w:advance "1h"
  expect(w:host("192.0.2.3"):inbox()).size(2)
end)

test("H4: a target that is one of our own listeners is a loop", function()
  local w = world { ["intranet.example"] = relay_to_host { "198.51.100.25" } }
  send(w, "u@intranet.example")
  w:advance "1m"
  expect(w:queue()).size(0)
  expect(w:host("192.0.2.77"):inbox()[1].content).contains "5.4.6"
end)

test("H4: ourselves beside a host that is not known now: the mail waits for that one", function()
  -- found by its address, then by how it greets
  for _, listen in ipairs { { { "203.0.113.5:25" } }, { { "203.0.113.6:25" } } } do
    local w = world({ ["intranet.example"] = relay_to_host { "203.0.113.5", "inside.example" } },
      nil, { listen = listen })
    w:host("203.0.113.5"):named "mx.isp.example"
    w:dns { name = "inside.example", status = "servfail" }
    send(w, "u@intranet.example")
    w:advance "10m"
    expect(w:events "bounced").size(0)
    expect(w:queue()).size(1)
    w:dns { name = "inside.example", status = "ok" }
    w:zone(ZONE .. "inside.example. A 192.0.2.3\n")
    w:advance "1h"
    expect(w:host("192.0.2.3"):inbox()).size(1)
  end
end)

test("a fallback that leads nowhere, or back to us, bounces nothing: hosts come back", function()
  for _, fallback in ipairs { route.mx { domain = "gone.example" }, route.hosts { "203.0.113.5" },
    route.hosts { "192.0.2.9" } } do
    local mine = { name = "mine" }
    function mine.route() return route.hosts { "192.0.2.3", fallback = fallback } end
    local w = world({ ["intranet.example"] = mine }, nil, { listen = { { "203.0.113.5:25" } } })
    w:host("192.0.2.3"):down()
    w:host("192.0.2.9"):named "mx.isp.example"
    send(w, "u@intranet.example")
    w:advance "1h"
    expect(w:queue()).size(1)
    w:host("192.0.2.3"):up()
    w:advance "1h"
    expect(w:host("192.0.2.3"):inbox()).size(1)
  end
end)

test("H5: a host that is down, says 421 or greets with 4yz leads on to the next", function()
  local w = world { ["intranet.example"] = relay_to_host { "192.0.2.3", "192.0.2.4", "192.0.2.5",
    "192.0.2.6" } }
  w:host("192.0.2.3"):down()
  w:host("192.0.2.4"):greet { 450, "4.3.2 not now" }
  w:host("192.0.2.5"):reject { mail = { 421, "4.3.2", "closing" } }
  send(w, "u@intranet.example")
  w:advance "1m"
  expect(w:host("192.0.2.6"):inbox()).size(1)
end)

test("H5: 5yz to one RCPT is that recipient's alone", function()
  local w = world { ["intranet.example"] = relay_to_host { "192.0.2.3", "192.0.2.4" } }
  w:host("192.0.2.3"):reject { ["nobody@intranet.example"] = { 550, "5.1.1", "no such user" } }
  send(w, { "nobody@intranet.example", "u@intranet.example" })
  w:advance "1m"
  expect(w:host("192.0.2.3"):inbox()[1].to).equal { "u@intranet.example" }
  expect(w:host("192.0.2.4"):connections()).equal(0)
  expect(w:host("192.0.2.77"):inbox()[1].content).contains "nobody@intranet.example"
end)

test("H6: recipients of one message take different routes, each with its own fate", function()
  local w = world {
    ["one.example"] = relay_to_host { "192.0.2.3" },
    ["two.example"] = relay_to_host { "192.0.2.4" },
    ["three.example"] = relay_to_host { "192.0.2.3" },
  }
  w:host("192.0.2.4"):down()
  send(w, { "a@one.example", "b@two.example", "c@three.example" })
  w:advance "1m"
  local inbox = w:host("192.0.2.3"):inbox()
  expect(inbox).size(1) -- the same hosts: one transaction
  expect(inbox[1].to).equal { "a@one.example", "c@three.example" }
  expect(w:queue()).size(1)
  w:host("192.0.2.4"):up()
  w:advance "1h"
  expect(w:host("192.0.2.4"):inbox()[1].to).equal { "b@two.example" }
end)

test("H7: a corrected policy rescues what is queued", function()
  local w = world { ["intranet.example"] = relay_to_host { "192.0.2.3" } }
  w:host("192.0.2.3"):down()
  send(w, "u@intranet.example")
  w:advance "1h"
  w:reload { hostname = "mx.isp.example",
    domains = { ["intranet.example"] = relay_to_host { "192.0.2.4" } } }
  w:advance "1h"
  expect(w:host("192.0.2.4"):inbox()).size(1)
  expect(w:queue()).size(0)
end)

test("H8: a host, host:port, [address]:port and LMTP are targets", function()
  local targets = {
    ["inside.example"] = "192.0.2.3:25", ["inside.example:2525"] = "192.0.2.3:2525",
    ["[inside.example]:26"] = "192.0.2.3:26", ["192.0.2.4"] = "192.0.2.4:25",
    ["[2001:db8::7]:2525"] = "[2001:db8::7]:2525", ["2001:db8::8"] = "[2001:db8::8]:25",
    ["lmtp://inside.example:2003"] = "192.0.2.3:2003", ["lmtp:/run/lmtp"] = "/run/lmtp",
  }
  for target, address in pairs(targets) do
    local w = world({ ["intranet.example"] = relay_to_host { target } },
      "inside.example. A 192.0.2.3\n")
    local host = w:host(address)
    if target:find "^lmtp" then host:lmtp() end
    send(w, "u@intranet.example")
    w:advance "1s"
    expect(host:inbox()).size(1)
  end
end)

test("H8: what is no target is said when the configuration is read", function()
  for _, target in ipairs { "", "inside.example:99999", "[192.0.2.3", "a b", "lmtp://" } do
    expect(function() relay_to_host { target } end).fails "must be a host such as"
  end
end)

test("it waits while the host is down, and is returned when its time is over", function()
  local w = world { ["intranet.example"] = relay_to_host { "192.0.2.3:25", lifetime = "2d" } }
  w:host("192.0.2.3"):down()
  w:send { from = "", to = "u@intranet.example", body = "hello" }
  w:advance "1d"
  expect(w:queue()).size(1)
  w:advance "2d"
  expect(w:queue()).size(0)
end)
