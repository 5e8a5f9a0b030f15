-- Two routers as backups of one primary, all three MX of a domain: 30 days in which the primary
-- goes away and comes back as it likes, and mail enters wherever a sender finds somebody.
--
--     example.com.  MX 10  mx1.example.com.   the primary
--     example.com.  MX 20  mx2.isp.example.   first backup
--     example.com.  MX 30  mx3.isp.example.   second backup: the first is better than it is
local sim    = require "tern.sim"
local backup = require "policies.backup"

local ZONE = [[
  example.com.      MX 10 mx1.example.com.
  example.com.      MX 20 mx2.isp.example.
  example.com.      MX 30 mx3.isp.example.
  mx1.example.com.  A  192.0.2.1
  mx2.isp.example.  A  198.51.100.25
  mx3.isp.example.  A  198.51.100.26
  sender.example.   MX 10 mx.sender.example.
  mx.sender.example. A 192.0.2.80
]]

local PRIMARY, FIRST, SECOND = "192.0.2.1", "198.51.100.25", "198.51.100.26"
local DAYS = 30
local STEP = 60 -- seconds
-- Connections to the primary in any minute, of both routers: queue.max_concurrency of one of them.
local PER_MINUTE = 20

-- Dice of our own, so that the seed of the test alone decides.
local function dice(seed)
  local state = seed
  return function(n)
    state = (state * 6364136223846793005 + 1442695040888963407) & math.maxinteger
    return (state >> 33) % n
  end
end

local function network(seed)
  local function config(name)
    return { hostname = name, domains = { ["example.com"] = backup() } }
  end
  local first = sim.world { zone = ZONE, config = config "mx2.isp.example", seed = seed }
  local second = first:router { config = config "mx3.isp.example", seed = seed + 1000 }
  return first, second, first:host(PRIMARY)
end

-- A third of the senders take the primary, when it is there: then nothing of ours is involved. The
-- others choose a backup, with and without a reason.
local function send(routers, roll, up, n)
  local entry = roll(3)
  if entry == 0 and up then return nil end
  local router = routers[entry == 2 and 2 or 1]
  local reply = router:send { from = "a@sender.example", to = "u@example.com",
    subject = "number " .. n, body = "hello" }
  expect(reply.code).equal(250)
  return tostring(n)
end

local function went_to(router, address)
  local n = 0
  for _, event in ipairs(router:events "delivered") do
    if event.host:find("[" .. address .. "]", 1, true) then n = n + 1 end
  end
  return n
end

local function received(content)
  local _, n = content:gsub("\nReceived:", "")
  return n + (content:find "^Received:" and 1 or 0)
end

-- Each number once, over at most two routers.
local function assert_each_once(primary, sent)
  local times = {}
  for _, mail in ipairs(primary:inbox()) do
    local n = mail.content:match "Subject: number (%d+)"
    times[n] = (times[n] or 0) + 1
    expect(received(mail.content)).below(3)
  end
  for n in next, sent do
    if times[n] ~= 1 then error(("number %s arrived %d times"):format(n, times[n] or 0)) end
  end
end

local function thirty_days(seed)
  local roll = dice(seed)
  local first, second, primary = network(seed)
  local routers, sent = { first, second }, {}
  local up, change, n, most = true, 3600, 0, 0
  for now = 0, DAYS * 86400, STEP do
    if now >= change then
      up = not up
      if up then primary:up() else primary:down() end
      -- away for ten minutes to two days, back for as long
      change = now + 600 + roll(2) * roll(7200) + roll(3) // 2 * roll(172800)
    end
    if roll(30) == 0 then
      n = n + 1
      local number = send(routers, roll, up, n)
      if number then sent[number] = true end
    end
    if roll(5000) == 0 then routers[1 + roll(2)]:restart() end
    local before = primary:connections()
    first:advance(STEP)
    most = math.max(most, primary:connections() - before)
  end
  primary:up()
  first:advance "1d"
  return first, second, primary, sent, most
end

for seed = 1, 3 do
  test(("B2, B10, B13: 30 days of two backups and a primary that comes and goes (%d)"):format(seed),
    function()
      local first, second, primary, sent, most = thirty_days(seed)
      expect(first:queue()).size(0)
      expect(second:queue()).size(0)
      assert_each_once(primary, sent)
      expect(first:events "bounced").size(0)
      expect(second:events "bounced").size(0)
      -- The second hands over to the first while the primary is away, never the other way round.
      expect(went_to(first, FIRST) + went_to(first, SECOND)).equal(0)
      expect(went_to(second, FIRST)).above(20)
      expect(most).below(PER_MINUTE + 1)
    end)
end

-- Each has 300 messages: the second cannot hand over to the first, which DNS does not find.
test("B13: a backlog of two routers does not stampede when the primary is back", function()
  local first, second, primary = network(7)
  primary:down()
  first:dns { name = "mx2.isp.example", status = "servfail" }
  local sent = {}
  for i = 1, 600 do
    local router = i <= 300 and first or second
    router:send { from = "a@sender.example", to = "u@example.com", subject = "number " .. i,
      body = "hello" }
    sent[tostring(i)] = true
  end
  first:advance "2d"
  expect(first:queue()).size(300)
  expect(second:queue()).size(300)
  primary:up()
  -- Within the bound of queue.host_retry_max (15 minutes) each probes it with one connection. What
  -- goes well brings another one, up to queue.max_concurrency (20) of each router.
  local last, most = 0, 0
  for _ = 1, 16 * 60 * 10 do
    first:advance(0.1)
    local now = primary:connections()
    if last == 0 then expect(now).below(3) end
    last, most = now, math.max(most, now - last)
  end
  expect(most).below(5)
  expect(last).below(41)
  assert_each_once(primary, sent)
end)
