-- tern.kv and tern.limit, as policies see them: over workers, restarts, crashes, and time.
local sim = require "tern.sim"
local tern = require "tern"
local relay_to_host = require "policies.relay_to_host"

local seen = tern.kv "seen"
local small = tern.kv("small", { max = 3 })

-- One command to each hook: HELO says what to do, the reply is what came of it.
local commands = {}
local function world(workers)
  return sim.world {
    workers = workers,
    config = {
      hostname = "mx.isp.example",
      policies = { {
        name = "commands",
        helo = function(ctx)
          local name, rest = ctx.session.helo:match "^([^.]+)%.?(.*)%.x$"
          return tern.reject { 550, "5.7.1", tostring(commands[name](rest)) }
        end,
      } },
    },
  }
end

local function ask(w, line)
  local s = w:session {}
  local reply = s:line("EHLO " .. line .. ".x")
  s:close()
  return reply.text
end

function commands.set(key) return (seen:set(key, "v", { ttl = "1h" })) end
function commands.keep(key) return (seen:set(key, { n = 1, list = { true, "x" } })) end
function commands.add(key) return (seen:add(key, 7, { ttl = "1h" })) end
function commands.delete(key) return (seen:delete(key)) end
function commands.get(key)
  local value, left = seen:get(key)
  if type(value) == "table" then value = value.n .. value.list[2] .. tostring(value.list[1]) end
  return tostring(value) .. " " .. tostring(left and math.ceil(left / 60))
end
function commands.each(prefix)
  local all = {}
  for key in seen:each(prefix) do all[#all + 1] = key end
  return #all > 0 and table.concat(all, " ") or "none"
end
function commands.fill()
  for i = 1, 5 do assert(small:set("k" .. i, i, { ttl = i .. "m" })) end
  local all = {}
  for key, value in small:each() do all[#all + 1] = key .. value end
  return table.concat(all, " ")
end
function commands.full()
  for i = 1, 3 do assert(small:set("k" .. i, i)) end
  local _, why = small:set("one_more", 1)
  return why.kind
end
function commands.large()
  local _, value = seen:set("k", ("x"):rep(8192))
  local _, key = seen:set(("k"):rep(401), 1)
  return value.kind .. key.kind .. tostring(seen:get(("k"):rep(401)))
    .. tostring(seen:delete(("k"):rep(401)))
end
function commands.many()
  for i = 1, 150 do assert(seen:set(("%03d"):format(i), i)) end
  local n, sum = 0, 0
  for _, value in seen:each() do n, sum = n + 1, sum + value end
  return n .. " " .. sum
end
function commands.limit(key)
  local good, wait = tern.limit("test", "60/m,burst=2", { key = key })
  return good and "yes" or "no " .. wait
end

test("values are there until their end", function()
  local w = world()
  expect(ask(w, "get.a")).contains "nil nil"
  expect(ask(w, "set.a")).contains "true"
  expect(ask(w, "get.a")).contains "v 60"
  w:advance "30m"
  expect(ask(w, "get.a")).contains "v 30"
  expect(ask(w, "each")).contains "a"
  w:advance "30m"
  expect(ask(w, "get.a")).contains "nil nil"
  expect(ask(w, "each")).contains "none"
end)

test("tables come back as tables, and what has no end stays", function()
  local w = world()
  ask(w, "keep.t")
  w:advance "400d"
  expect(ask(w, "get.t")).contains "1xtrue nil"
end)

test("add says whether it was there", function()
  local w = world()
  expect(ask(w, "add.a")).contains "true"
  expect(ask(w, "add.a")).contains "false"
  expect(ask(w, "get.a")).contains "7 60"
  expect(ask(w, "delete.a")).contains "true"
  expect(ask(w, "delete.a")).contains "false"
  expect(ask(w, "add.a")).contains "true"
  w:advance "1h"
  expect(ask(w, "add.a")).contains "true"
end)

test("all workers share it, and one of them adds", function()
  local w = world(4)
  local added = 0
  for _ = 1, 8 do
    if ask(w, "add.other"):find "true" then added = added + 1 end
  end
  expect(added).equal(1)
  for _ = 1, 8 do expect(ask(w, "get.other")).contains "7 60" end
end)

test("a restart and a crash keep what was put", function()
  local w = world(2)
  ask(w, "set.a")
  w:restart()
  expect(ask(w, "get.a")).contains "v 60"
  ask(w, "set.b")
  w:crash()
  w:advance "1s"
  expect(ask(w, "get.b")).contains "v 60"
  expect(ask(w, "each")).contains "a b"
end)

test("what ends first makes room, and what has no end never does", function()
  local w = world()
  expect(ask(w, "fill")).contains "k33 k44 k55"
  expect(ask(world(), "full")).contains "full"
end)

test("what is too large is told, and read as not there", function()
  expect(ask(world(), "large")).contains "sizesizenilfalse"
end)

test("each goes through all of them, in batches", function()
  expect(ask(world(), "many")).contains "150 11325"
end)

test("each takes a prefix", function()
  local w = world()
  for _, key in ipairs { "ab", "a", "b", "abc" } do ask(w, "set." .. key) end
  expect(ask(w, "each.ab")).contains "ab abc"
end)

test("a limit holds for all workers, by key, and fills again", function()
  local w = world(3)
  expect(ask(w, "limit.a")).contains "yes"
  expect(ask(w, "limit.a")).contains "yes"
  expect(ask(w, "limit.a")).contains "no "
  expect(ask(w, "limit.b")).contains "yes"
  w:advance "1s"
  expect(ask(w, "limit.a")).contains "yes"
  expect(ask(w, "limit.a")).contains "no "
  w:restart()
  expect(ask(w, "limit.a")).contains "yes"
end)

test("an event hook can write, too", function()
  local delivered = tern.kv "delivered"
  local w = sim.world {
    config = {
      hostname = "mx.isp.example",
      domains = { ["example.com"] = relay_to_host { "192.0.2.1:25" } },
      policies = { {
        name = "learns",
        event = function(ctx)
          if ctx.event.name == "delivered" then delivered:set(ctx.event.recipient, tern.now()) end
        end,
        helo = function(ctx)
          if ctx.session.helo ~= "ask.x" then return end
          return tern.reject { 550, "5.7.1", tostring(delivered:get "u@example.com" ~= nil) }
        end,
      } },
    },
  }
  expect(ask(w, "ask")).contains "false"
  w:send { from = "a@b.example", to = "u@example.com", body = "hello" }
  w:advance "1s"
  expect(ask(w, "ask")).contains "true"
end)

test("mistakes are told where they are", function()
  local w = world()
  function commands.wrong() return (seen:set("k", "v", { tll = "1h" })) end
  expect(ask(w, "wrong")).contains "policy error"
  expect(w:events "policy_error"[1].message).contains "did you mean 'ttl'"
  expect(function() tern.kv "" end).fails "1 to 64 octets"
  expect(function() tern.kv("x", { maxx = 1 }) end).fails "did you mean 'max'"
  expect(function() seen:get "k" end).fails "inside of a hook"
  expect(function() return seen.put end).fails "kv has no field 'put'"
  expect(function() tern.limit("x", "lots") end).fails "is not a rate"
end)
