-- When mail is to go, as policies see it: DELIVERBY, FUTURERELEASE, MT-PRIORITY.
local sim = require "tern.sim"
local tern = require "tern"
local route = require "tern.route"

local ZONE = [[
  example.com. MX 10 mx.example.com.
  mx.example.com. A 192.0.2.1
  sender.example. MX 10 mx.sender.example.
  mx.sender.example. A 192.0.2.77 ]]

-- What the hooks saw, by name.
local seen
local of_all, of_domain = { name = "of_all" }, { name = "of_domain" }
for hook, where in next, { mail = of_all, data = of_all, route = of_domain, result = of_domain } do
  where[hook] = function(ctx)
    local m = ctx.message
    if m.sender == "" then return end -- a notification
    seen[hook] = { by = m.deliver_by, hold = m.hold_until, priority = m.priority }
    if hook == "route" then return route.hosts { "192.0.2.1" } end
  end
end

local function world(config)
  seen = {}
  config = config or {}
  config.hostname = "mx2.isp.example"
  config.domains = config.domains or { ["example.com"] = of_domain }
  config.policies = config.policies or { of_all }
  local w = sim.world { zone = ZONE, config = config }
  w:host "192.0.2.77"
  return w
end

local function mail(more)
  local m = { from = "client@sender.example", to = "u@example.com", body = "hello" }
  for key, value in next, more or {} do m[key] = value end
  return m
end

-- A message by hand; the replies to MAIL and to its end.
local function by_hand(w, params, helo)
  local s = w:session()
  s:line("EHLO " .. (helo or "me.example"))
  local done
  local reply = s:line("MAIL FROM:<client@sender.example> " .. params)
  if reply.code == 250 then
    s:line "RCPT TO:<u@example.com>"
    done = s:line "BDAT 0 LAST"
    expect(done.code).equal(250)
  end
  s:close()
  return reply, done
end

test("hooks see what the sender said", function()
  local w = world { priority_from = "0.0.0.0/0" }
  local host = w:host "192.0.2.1":offers "DELIVERBY":offers "MT-PRIORITY"
  host:reject { rcpt = { 450, "4.2.0", "later", times = 1 } }
  local now = w:now()
  w:send(mail { deliver_by = { "30m", "notify", trace = true }, priority = 4 })
  w:advance "10m"
  for _, hook in ipairs { "mail", "data", "route", "result" } do
    local s = seen[hook]
    expect(s.by.mode).equal "notify"
    expect(s.by.trace).equal(true)
    expect(math.abs(s.by.at - now - 1800) < 2).equal(true)
    expect(s.priority).equal(4)
    expect(s.hold).equal(nil)
  end
  expect(#host:inbox()).equal(1)
  expect(host:inbox()[1].params).matches "^BY=%d+;NT MT%-PRIORITY=4$"
end)

test("and nothing, when it said nothing", function()
  local w = world()
  w:host "192.0.2.1"
  w:send(mail())
  expect(seen.route.by).equal(nil)
  expect(seen.route.hold).equal(nil)
  expect(seen.route.priority).equal(0)
end)

test("a policy may refuse what comes too late", function()
  local w = world { policies = { {
    mail = function(ctx)
      local by = ctx.message.deliver_by
      if by and by.mode == "return" and by.at - tern.now() < 60 then
        return tern.reject { 550, "5.4.7", "that cannot be done in a minute" }
      end
    end } } }
  w:host "192.0.2.1":offers "DELIVERBY"
  expect(w:send(mail { deliver_by = "30s" }).code).equal(550)
  expect(w:send(mail { deliver_by = "2m" }).code).equal(250)
end)

test("mail is returned when its time is over", function()
  local w = world()
  w:host "192.0.2.1":offers "DELIVERBY":reject { rcpt = { 450, "4.2.0", "later" } }
  w:send(mail { deliver_by = "20m" })
  w:advance "19m"
  expect(w:queue()).size(1)
  w:advance "2m"
  expect(w:queue()).size(0)
  local back = w:host "192.0.2.77":inbox()
  expect(back).size(1)
  expect(back[1].content).contains "Status: 5.4.7"
end)

test("a host must offer DELIVERBY, and have the time", function()
  local w = world()
  w:host "192.0.2.1":offers "DELIVERBY 600"
  w:send(mail { deliver_by = "5m" })
  w:send(mail { deliver_by = "20m" })
  w:advance "1m"
  expect(w:host "192.0.2.1":inbox()).size(1)
  expect(w:host "192.0.2.77":inbox()).size(1)
end)

test("whose priority counts", function()
  local w = world()
  w:host "192.0.2.1":offers "MT-PRIORITY"
  local lowered = by_hand(w, "MT-PRIORITY=5")
  expect(lowered.enhanced).equal "2.3.6"
  expect(lowered.text).matches "^0 "
  expect(seen.mail.priority).equal(0)
  expect(by_hand(w, "MT-PRIORITY=-5").enhanced).equal "2.1.0"
  expect(seen.mail.priority).equal(-5)
end)

test("a policy may say how urgent mail is, whatever the client asked for", function()
  local w = world { policies = { {
    mail = function(ctx)
      if ctx.message.sender_domain == "sender.example" then ctx.message:set_priority(6) end
    end,
    data = function(ctx)
      if ctx.message.headers:get "Precedence" == "bulk" then ctx.message:set_priority(-6) end
    end } } }
  local host = w:host "192.0.2.1":offers "MT-PRIORITY"
  expect(by_hand(w, "MT-PRIORITY=6").enhanced).equal "2.1.0"
  expect(by_hand(w, "MT-PRIORITY=1").text).matches "^6 is the new priority"
  w:send(mail { headers = { Precedence = "bulk" } })
  w:advance "1m"
  expect(host:inbox()).size(3)
  expect(host:inbox()[1].params).equal "MT-PRIORITY=6"
  expect(host:inbox()[3].params).equal "MT-PRIORITY=-6"
end)

-- RFC 6710, section 4.1: X.3.6 in the reply to MAIL, or in the last one.
test("who asked for a priority is told which one holds when a later hook has changed it", function()
  local w = world { priority_from = "0.0.0.0/0", policies = { {
    rcpt = function(ctx)
      if ctx.message.priority == 3 then ctx.message:set_priority(2) end
    end,
    data = function(ctx)
      local to = ctx.message.headers:get "X-To" or ctx.message.helo:match "^to(.*)$"
      if to then ctx.message:set_priority(tonumber(to)) end
    end } } }
  local host = w:host "192.0.2.1":offers "MT-PRIORITY"
  local mailed, done = by_hand(w, "MT-PRIORITY=3")
  expect(mailed.enhanced).equal "2.1.0"
  expect(done.enhanced).equal "2.3.6"
  expect(done.text).matches "^2 is the new priority of this message, %w+ queued$"
  mailed, done = by_hand(w, "MT-PRIORITY=5", "to-7")
  expect(mailed.enhanced).equal "2.1.0"
  expect(done.text).matches "^%-7 is the new priority"
  -- what it was told before is not told again, and who does not know of priorities is told nothing
  mailed, done = by_hand(w, "MT-PRIORITY=5", "to5")
  expect(mailed.enhanced).equal "2.1.0"
  expect(done.enhanced).equal "2.0.0"
  mailed, done = by_hand(w, "", "to4")
  expect(mailed.enhanced).equal "2.1.0"
  expect(done.enhanced).equal "2.0.0"
  w:send(mail { priority = 1, headers = { ["X-To"] = "-9", Subject = "S" } })
  w:advance "1m"
  local inbox = host:inbox()
  expect(inbox).size(5)
  local said = {}
  for _, m in ipairs(inbox) do
    local priority = m.params:match "^MT%-PRIORITY=(.*)$"
    said[#said + 1] = priority
    -- section 7: Received names the one that holds, also when `data` has set it
    expect(m.content).contains("\r\n\tPRIORITY " .. priority .. ";\r\n")
    expect(select(2, m.content:gsub("Received:", ""))).equal(1)
  end
  table.sort(said)
  expect(table.concat(said, " ")).equal "-7 -9 2 4 5"
  -- nobody has said anything about it
  w:send(mail())
  w:advance "1m"
  expect(host:inbox()[6].content).never.contains "PRIORITY"
end)

test("what `data` has made of the priority is on disk with the message", function()
  local w = world { priority_from = "0.0.0.0/0", policies = { {
    data = function(ctx) ctx.message:set_priority(7) end } } }
  local host = w:host "192.0.2.1":offers "MT-PRIORITY"
  host:down()
  by_hand(w, "MT-PRIORITY=1")
  w:restart()
  host:up()
  w:advance "3h"
  expect(host:inbox()).size(1)
  expect(host:inbox()[1].params).contains "MT-PRIORITY=7"
  expect(host:inbox()[1].content).contains "PRIORITY 7;"
end)

test("but not when it is queued, and not any number", function()
  local said = {}
  local w = world { policies = { {
    mail = function(ctx)
      local _, e = pcall(ctx.message.set_priority, ctx.message, 10)
      said[#said + 1] = e
    end } }, domains = { ["example.com"] = {
    route = function(ctx)
      local _, e = pcall(ctx.message.set_priority, ctx.message, 1)
      said[#said + 1] = e
    end } } }
  w:host "192.0.2.1"
  w:send(mail())
  expect(said[1]).contains "from -9 to 9"
  expect(said[2]).contains "'mail', 'rcpt' and 'data' only"
end)

test("FUTURERELEASE: users may have mail held, nobody else", function()
  local w = world { listen = { { "198.51.100.25:25", future_release = "1d" } } }
  w:host "192.0.2.1"
  expect(by_hand(w, "HOLDFOR=3600").code).equal(530)

  w = world { relay_from = "0.0.0.0/0", listen = { { "198.51.100.25:25", future_release = "1d" } } }
  local host = w:host "192.0.2.1"
  local now = w:now()
  expect(by_hand(w, "HOLDFOR=90000").code).equal(501)
  expect(by_hand(w, "HOLDFOR=3600").code).equal(250)
  expect(math.abs(seen.route.hold - now - 3600) < 2).equal(true)
  w:advance "30m"
  w:restart()
  w:advance "29m"
  expect(host:inbox()).size(0)
  w:advance "2m"
  expect(host:inbox()).size(1)

  w = world { relay_from = "0.0.0.0/0", listen = { "198.51.100.25:25" } }
  expect(by_hand(w, "HOLDFOR=60").code).equal(555)
end)

test("what a listener does not offer", function()
  local w = world { listen = {
    { "198.51.100.25:25", deliver_by = false, priority = "none" },
    { "198.51.100.25:26", deliver_by_min = "2m", priority = "MIXER" },
  } }
  local s = w:session()
  local hello = s:line "EHLO me.example"
  expect(hello.text).never.contains "DELIVERBY"
  expect(hello.text).never.contains "MT-PRIORITY"
  expect(s:line("MAIL FROM:<a@b.example> BY=120;R").code).equal(555)
  s:close()
  s = w:session { port = 26 }
  hello = s:line "EHLO me.example"
  expect(hello.text).contains "DELIVERBY 120"
  expect(hello.text).contains "MT-PRIORITY MIXER"
  expect(s:line("MAIL FROM:<a@b.example> BY=119;R").code).equal(555)
  expect(s:line("MAIL FROM:<a@b.example> BY=120;R").code).equal(250)
end)
