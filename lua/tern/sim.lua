-- tern.sim: what tests of policies are written with (`tern test`): simulated time, DNS and
-- hosts around the real engine.
--
-- Runs among our own modules, with `native` from the test runner; a policy that requires it
-- elsewhere is told so. The reference for operators is docs/testing.md.
local _, native = ...
if not native then
  error("the module \"tern.sim\" is for tests only: name the file *.test.lua, run 'tern test'", 0)
end
local suggest = require "tern.suggest"

-- ---- arguments ----------------------------------------------------------------------------------

-- Errors are raised at the line of the test: `level` counts from the one that calls fail.
local function fail(level, message, ...)
  error(select("#", ...) > 0 and message:format(...) or message, level + 2)
end

local function check(what, given, allowed, level)
  if type(given) ~= "table" then fail(level + 1, "%s takes a table { ... }", what) end
  for key in next, given do
    if type(key) == "string" and not allowed[key] then
      local names = {}
      for name in next, allowed do names[#names + 1] = name end
      table.sort(names)
      local near = suggest.nearest(key, names)
      fail(level + 1, "%s has no '%s'%s", what, key,
        near and ("; did you mean '%s'?"):format(near) or "")
    end
  end
end

local function typed(what, value, wanted, level)
  if type(value) ~= wanted then
    fail(level + 1, "%s must be a %s, not %s", what, wanted, type(value))
  end
  return value
end

local function milliseconds(what, value, level)
  local ms = native.duration(value)
  if not ms then fail(level + 1, "%s must be a duration like \"12d\" or seconds", what) end
  return ms
end

local function set(list)
  local s = {}
  for _, name in ipairs(list) do s[name] = true end
  return s
end

-- ---- replies ------------------------------------------------------------------------------------

local Reply = {}
function Reply.__tostring(r)
  if r.code == 0 then return "no reply: " .. r.text end
  return ("%d %s%s"):format(r.code, r.enhanced and r.enhanced .. " " or "", r.text)
end

local function reply(r)
  if r.recipients then
    for _, each in ipairs(r.recipients) do setmetatable(each, Reply) end
  end
  return setmetatable(r, Reply)
end

-- { 550, "5.1.1", "no such user" } or { 550, "no such user" }
local function rule_of(what, given, level)
  check(what, given, set { "times" }, level + 1)
  local code, second, third = given[1], given[2], given[3]
  if math.type(code) ~= "integer" or code < 200 or code > 599 then
    fail(level + 1, "%s begins with a reply code, as in { 550, \"5.1.1\", \"no such user\" }", what)
  end
  if third == nil and type(second) == "string" and not second:find "^%d%.%d+%.%d+$" then
    second, third = nil, second
  end
  if second ~= nil and not (type(second) == "string" and second:find "^%d%.%d+%.%d+$") then
    fail(level + 1, "%s: '%s' is no enhanced status code", what, tostring(second))
  end
  return { code = code, enhanced = second, text = third, times = given.times }
end

-- ---- hosts --------------------------------------------------------------------------------------

local Host = {}
Host.__index = Host
function Host.__tostring(h) return "host " .. h.address end

local reaches = { "up", "down", "silent", "unreachable" }
for _, reach in ipairs(reaches) do
  Host[reach] = function(h)
    native.host_reach(h.world, h.address, reach)
    return h
  end
end

local stages = set { "greeting", "helo", "auth", "mail", "rcpt", "data", "final" }

local function add_rule(h, key, given, level)
  local what = ("reject's '%s'"):format(key)
  typed(what, given, "table", level + 1)
  local rule = rule_of(what, given, level + 1)
  if key:find("@", 1, true) then
    rule.stage, rule.address = "rcpt", key
  elseif stages[key] then
    rule.stage = key
  else
    fail(level + 1, "reject knows greeting, helo, auth, mail, rcpt, data, final, and addresses; "
      .. "not '%s'", key)
  end
  native.host_rule(h.world, h.address, rule)
end

-- host:reject { rcpt = { 550, "5.1.1", "unknown" }, ["u@example.com"] = { 450, "4.2.1", "full" } }
function Host:reject(what)
  typed("reject", what, "table", 1)
  if what[1] then what = { rcpt = what } end
  local keys = {}
  for key in next, what do keys[#keys + 1] = tostring(key) end
  -- Addresses go before "rcpt", which fits all of them.
  table.sort(keys, function(a, b)
    local x, y = a:find("@", 1, true) and 0 or 1, b:find("@", 1, true) and 0 or 1
    if x ~= y then return x < y end
    return a < b
  end)
  for _, key in ipairs(keys) do add_rule(self, key, what[key], 1) end
  return self
end

-- host:greet { 421, "4.3.2", "busy" }
function Host:greet(given)
  typed("greet", given, "table", 1)
  local rule = rule_of("greet", given, 1)
  rule.stage = "greeting"
  native.host_rule(self.world, self.address, rule)
  return self
end

-- host:drop "final": the connection ends there without a reply. taken: the message had arrived.
function Host:drop(stage, options)
  options = options or {}
  check("drop", options, set { "times", "taken", "silent" }, 1)
  if not stages[stage] and stage ~= "body" then
    fail(1, "drop takes a stage: greeting, helo, mail, rcpt, data, body, final")
  end
  native.host_rule(self.world, self.address, { stage = stage, times = options.times,
    action = options.silent and "silence" or "close", taken = options.taken })
  return self
end

-- What reject, greet and drop said is forgotten.
function Host:accept()
  native.host_clear(self.world, self.address)
  return self
end

function Host:slow(delay)
  native.host_option(self.world, self.address, "delay", milliseconds("slow", delay, 1))
  return self
end

-- "offered", "broken", "refused", "none"
function Host:starttls(how)
  if not native.host_option(self.world, self.address, "starttls", how) then
    fail(1, "starttls takes \"offered\", \"broken\", \"refused\" or \"none\"")
  end
  return self
end

-- host:auth { user = "me", password = "hunter2" }: offers AUTH, knows that user (a further call: a
-- further one), and takes mail from users only.
function Host:auth(given)
  check("auth", given, set { "user", "password", "mechanisms", "allow_clear" }, 1)
  typed("auth's 'user'", given.user, "string", 1)
  typed("auth's 'password'", given.password, "string", 1)
  if given.mechanisms ~= nil then typed("auth's 'mechanisms'", given.mechanisms, "table", 1) end
  local unknown = native.host_auth(self.world, self.address, given.user, given.password,
    given.mechanisms, given.allow_clear)
  if unknown then fail(1, "there is no mechanism '%s'", unknown) end
  return self
end

-- Offers REQUIRETLS inside TLS.
function Host:requiretls()
  native.host_option(self.world, self.address, "requiretls", true)
  return self
end

-- host:limits { rcptmax = 2, mailmax = 10, rcptdomainmax = 1 }: tells them by LIMITS, and says 452
-- to what is beyond.
function Host:limits(given)
  check("limits", given, set { "rcptmax", "mailmax", "rcptdomainmax" }, 1)
  for key, value in next, given do
    if math.type(value) ~= "integer" or value < 1 or value > 999999 then
      fail(1, "limits: '%s' must be a number from 1 to 999999", key)
    end
  end
  native.host_limits(self.world, self.address, given)
  return self
end

-- How many MAIL and RCPT were beyond them.
function Host:over_limits()
  return native.host_over_limits(self.world, self.address)
end

function Host:lmtp()
  native.host_option(self.world, self.address, "lmtp", true)
  return self
end

-- The name that it greets with.
function Host:named(name)
  native.host_option(self.world, self.address, "name", typed("named", name, "string", 1))
  return self
end

-- Leaves a keyword out of its EHLO reply.
function Host:without(keyword)
  native.host_option(self.world, self.address, "hide", typed("without", keyword, "string", 1))
  return self
end

-- Adds to its EHLO reply what it does not offer at first: "DELIVERBY", "DELIVERBY 60" (seconds),
-- "MT-PRIORITY".
function Host:offers(keyword)
  if not native.host_option(self.world, self.address, "offers",
      typed("offers", keyword, "string", 1)) then
    fail(1, "offers takes \"DELIVERBY\", \"DELIVERBY 60\" (seconds) or \"MT-PRIORITY\"")
  end
  return self
end

function Host:inbox()
  return native.host_inbox(self.world, self.address)
end

-- How many connections it has taken so far.
function Host:connections()
  return native.host_connections(self.world, self.address)
end

-- ---- sessions, line by line ---------------------------------------------------------------------

local Session = {}
Session.__index = Session

function Session:line(text)
  typed("line", text, "string", 1)
  if text:find "[\r\n]" then fail(1, "line takes one line, without its end") end
  return reply(native.session_line(self.world, self.number, text))
end

-- The next reply. LMTP has one for each recipient behind a message: `line "."` gave the first.
function Session:reply()
  return reply(native.session_reply(self.world, self.number))
end

-- session:auth { user = "ana", password = "pencil", mechanism = "PLAIN" }: the last reply of the
-- exchange. authzid: whom to act for.
function Session:auth(with)
  check("auth", with, set { "user", "password", "mechanism", "authzid" }, 1)
  local said = native.session_auth(self.world, self.number, with.mechanism or "PLAIN",
    typed("auth's 'user'", with.user, "string", 1),
    typed("auth's 'password'", with.password, "string", 1), with.authzid)
  if not said then
    fail(1, "auth takes PLAIN, LOGIN, CRAM-MD5 or SCRAM-SHA-256, and a user and a password")
  end
  return reply(said)
end

-- After ATRN: the client is the server now, and takes mail as that host does.
function Session:serve(host)
  native.session_serve(self.world, self.number, host.address)
  return host
end

function Session:close()
  native.session_close(self.world, self.number)
end

-- ---- worlds -------------------------------------------------------------------------------------

local World = {}
World.__index = World

function World:host(address)
  typed("host", address, "string", 1)
  local normal = native.host(self.native, address)
  if not normal then
    fail(1, "'%s' is no address, like \"192.0.2.1\" or \"[2001:db8::1]:2525\"", address)
  end
  local h = self.hosts[normal]
  if not h then
    h = setmetatable({ world = self.native, address = normal }, Host)
    self.hosts[normal] = h
  end
  return h
end

local function content_of(mail, from, to)
  if mail.content then return mail.content end
  local lines = {}
  local named = {}
  for name, value in next, mail.headers or {} do
    named[name:lower()] = true
    lines[#lines + 1] = ("%s: %s"):format(name, tostring(value))
  end
  table.sort(lines)
  local usual = { { "From", "<" .. from .. ">" }, { "To", "<" .. table.concat(to, ">, <") .. ">" },
    { "Subject", mail.subject or "test" } }
  for i, field in ipairs(usual) do
    if not named[field[1]:lower()] then
      table.insert(lines, math.min(i, #lines + 1), field[1] .. ": " .. field[2])
    end
  end
  return table.concat(lines, "\n") .. "\n\n" .. (mail.body or "") .. "\n"
end

local mail_keys = set { "from", "to", "body", "content", "subject", "headers", "client", "helo",
  "port", "tls", "requiretls", "priority", "deliver_by" }

-- deliver_by = "30m", or { "30m", "notify", trace = true }: what BY says (else: "return").
local function by_of(given, level)
  if given == nil then return {} end
  if type(given) ~= "table" then given = { given } end
  check("send's 'deliver_by'", given, set { "trace" }, level + 1)
  local mode = given[2] or "return"
  if mode ~= "return" and mode ~= "notify" then
    fail(level + 1, "send's 'deliver_by' ends in \"return\" or \"notify\", not '%s'",
      tostring(mode))
  end
  local ms = milliseconds("send's 'deliver_by'", given[1], level + 1)
  return { seconds = ms // 1000, mode = mode, trace = given.trace }
end

local function priority_of(given, level)
  if given == nil then return nil end
  if math.type(given) ~= "integer" or given < -9 or given > 9 then
    fail(level + 1, "send's 'priority' is a number from -9 to 9")
  end
  return given
end

-- One message from a client, until its reply. to: an address or a list of them.
function World:send(mail)
  check("send", mail, mail_keys, 1)
  local from = mail.from or "sender@client.example"
  local to = mail.to
  if type(to) == "string" then to = { to } end
  if type(to) ~= "table" or #to == 0 then fail(1, "send needs 'to': an address or a list") end
  for _, address in ipairs(to) do typed("an address in 'to'", address, "string", 1) end
  typed("'from'", from, "string", 1)
  local by = by_of(mail.deliver_by, 1)
  local result, wrong = native.send(self.native, { from = from, to = to, client = mail.client,
    helo = mail.helo, port = mail.port, tls = mail.tls, requiretls = mail.requiretls,
    content = content_of(mail, from, to), priority = priority_of(mail.priority, 1),
    by_seconds = by.seconds, by_mode = by.mode, by_trace = by.trace })
  if not result then fail(1, wrong) end
  return reply(result)
end

function World:advance(duration)
  native.advance(self.native, milliseconds("advance", duration, 1))
  return self
end

-- The recipients that are in the queue, in the order in which their messages came.
function World:queue()
  return native.queue(self.native)
end

-- The message as it is queued, of an entry of the queue, or of an id.
function World:content(entry)
  local id = type(entry) == "table" and entry.id or entry
  local content = native.content(self.native, typed("content's entry", id, "string", 1))
  return content or fail(1, "there is no message '%s' in the queue", id)
end

function World:session(options)
  options = options or {}
  check("session", options, set { "client", "port" }, 1)
  local number, wrong = native.session_open(self.native, options.client, options.port)
  if not number then fail(1, wrong) end
  return setmetatable({ world = self.native, number = number }, Session)
end

-- What a client's ETRN is answered.
function World:etrn(request)
  check("etrn", request, set { "client", "domain", "helo" }, 1)
  typed("etrn's 'domain'", request.domain, "string", 1)
  local number, wrong = native.session_open(self.native, request.client)
  if not number then fail(1, wrong) end
  local helo = native.session_line(self.native, number,
    "EHLO " .. (request.helo or "client.example"))
  local said = helo
  if helo.code == 250 then
    said = native.session_line(self.native, number, "ETRN " .. request.domain)
    native.session_line(self.native, number, "QUIT")
  end
  native.session_close(self.native, number)
  return reply(said)
end

-- The whole zone, anew.
function World:zone(text)
  local wrong = native.zone(self.native, typed("zone", text, "string", 1))
  if wrong then fail(1, "the zone: %s", wrong) end
  return self
end

local statuses = set { "servfail", "timeout", "nxdomain", "nodata", "ok" }

-- world:dns { name = "example.com", type = "MX", status = "servfail" }; "ok": as the zone says.
function World:dns(fault)
  check("dns", fault, set { "name", "type", "status" }, 1)
  typed("dns's 'name'", fault.name, "string", 1)
  if not statuses[fault.status] then
    fail(1, "dns's 'status' is \"servfail\", \"timeout\", \"nxdomain\", \"nodata\" or \"ok\"")
  end
  if not native.dns_fail(self.native, fault.name, fault.type, fault.status) then
    fail(1, "dns's 'type' is no type of record: '%s'", tostring(fault.type))
  end
  return self
end

-- Answers about that name and those below it are secure (DNSSEC), or no more; "*": all names.
function World:secure(name, secure)
  native.dns_secure(self.native, typed("secure", name, "string", 1), secure ~= false)
  return self
end

-- How often DNS was asked that.
function World:asked(name, kind)
  local n = native.asked(self.native, typed("asked", name, "string", 1), kind)
  return n or fail(1, "'%s' is no type of record", tostring(kind))
end

function World:reload(config)
  local wrong = native.reload(self.native, typed("reload", config, "table", 1), native.where(2))
  if wrong then error(wrong, 0) end
  return self
end

-- The router stops in order and starts again; crash: it is killed.
function World:restart()
  native.restart(self.native, false)
  return self
end

function World:crash()
  native.restart(self.native, true)
  return self
end

-- Events of that name (all without one), oldest first: tables of their fields.
function World:events(name)
  if name ~= nil then typed("events", name, "string", 1) end
  return native.events(self.native, name)
end

-- That address is not on the router's machine; world:lacks(address, false): it is again.
function World:lacks(address, absent)
  if not native.absent(self.native, typed("lacks", address, "string", 1), absent ~= false) then
    fail(1, "'%s' is no address, like \"192.0.2.1\"", address)
  end
  return self
end

-- Seconds since 1970, in the world.
function World:now()
  return native.now(self.native)
end

-- Another router in the same network: names, hosts and time are the same, and so is what changes
-- them, whichever of the two is asked. Mail, queue, events and life are each router's own.
function World:router(options)
  check("router", options, set { "config", "seed", "workers" }, 1)
  typed("router's 'config'", options.config, "table", 1)
  local world, wrong = native.world(options.config, native.where(2), options.seed, options.workers,
    self.native)
  if not world then error(wrong, 0) end
  return setmetatable({ native = world, hosts = self.hosts }, World)
end

local sim = {}

-- Writes a file that a map is read from, as if it stood beside the test; nil: it goes. Maps that
-- are open have it at once. True, or nil and what is wrong with it (then they stay as they were).
function sim.file(name, text)
  typed("the name of a file", name, "string", 1)
  if text ~= nil then typed("the text of a file", text, "string", 1) end
  local wrong = native.write_file(name, text)
  if wrong then return nil, wrong end
  return true
end

function sim.world(options)
  check("sim.world", options, set { "zone", "config", "seed", "workers" }, 1)
  typed("sim.world's 'config'", options.config, "table", 1)
  local world, wrong = native.world(options.config, native.where(2), options.seed, options.workers)
  if not world then error(wrong, 0) end
  wrong = options.zone and native.zone(world, typed("the zone", options.zone, "string", 1))
  if wrong then fail(1, "the zone: %s", wrong) end
  return setmetatable({ native = world, hosts = {} }, World)
end

-- ---- expect -------------------------------------------------------------------------------------

local function quoted(value, depth)
  if type(value) == "string" then return ("%q"):format(value):gsub("\\\n", "\\n") end
  if type(value) ~= "table" then return tostring(value) end
  if native.has_text(value) then return tostring(value) end
  if (depth or 0) >= 3 then return "{...}" end
  local keys, out = {}, {}
  for key in next, value do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return type(a) < type(b)
  end)
  for i, key in ipairs(keys) do
    if i > 12 then
      out[#out + 1] = "..."
      break
    end
    local text = quoted(value[key], (depth or 0) + 1)
    out[#out + 1] = key == i and text or ("%s = %s"):format(tostring(key), text)
  end
  return "{ " .. table.concat(out, ", ") .. " }"
end

local function same(a, b, depth)
  if a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" or depth > 32 then return false end
  for key, value in next, a do
    if not same(value, b[key], depth + 1) then return false end
  end
  for key in next, b do
    if a[key] == nil then return false end
  end
  return true
end

local function contains(value, wanted)
  if type(value) == "string" then return value:find(tostring(wanted), 1, true) ~= nil end
  if type(value) == "table" then
    for _, each in next, value do
      if same(each, wanted, 0) then return true end
    end
  end
  return false
end

-- Each is a function of (value, ...) that returns whether it is so, and what was expected.
local matchers = {
  equal = function(value, wanted) return same(value, wanted, 0), "to equal " .. quoted(wanted) end,
  size = function(value, n)
    local t = type(value)
    if t ~= "table" and t ~= "string" then return false, "to have a size" end
    return #value == n, ("to have size %s, not %d"):format(tostring(n), #value)
  end,
  contains = function(value, wanted)
    return contains(value, wanted), "to contain " .. quoted(wanted)
  end,
  matches = function(value, pattern)
    return type(value) == "string" and value:find(pattern) ~= nil, "to match " .. quoted(pattern)
  end,
  truthy = function(value) return not not value, "to be true" end,
  falsy = function(value) return not value, "to be false" end,
  above = function(value, n) return value > n, "to be above " .. tostring(n) end,
  below = function(value, n) return value < n, "to be below " .. tostring(n) end,
  -- expect(function() ... end).fails "part of the message"
  fails = function(value, part)
    local ok, message = pcall(value)
    if ok then return false, "to fail" end
    message = tostring(message)
    return part == nil or message:find(part, 1, true) ~= nil,
      ("to fail with %s, not %s"):format(quoted(part), quoted(message))
  end,
}

-- expect(x).size(1); expect(x).never.contains "y"
local function expectation(value, wanted)
  return setmetatable({}, {
    __index = function(_, name)
      if name == "never" then return expectation(value, not wanted) end
      local matcher = matchers[name]
      if not matcher then
        local names = { "never" }
        for known in next, matchers do names[#names + 1] = known end
        table.sort(names)
        local near = suggest.nearest(tostring(name), names)
        fail(1, "expect has no '%s'%s", tostring(name),
          near and ("; did you mean '%s'?"):format(near) or "")
      end
      return function(...)
        local is, words = matcher(value, ...)
        if is ~= wanted then
          error(("expected %s%s %s"):format(quoted(value), wanted and "" or " never", words), 2)
        end
        return value
      end
    end,
  })
end

-- ---- tests --------------------------------------------------------------------------------------

local tests = {}

local function test(name, run)
  typed("the name of a test", name, "string", 1)
  typed("what a test does", run, "function", 1)
  tests[#tests + 1] = { name = name, run = run }
end

return {
  sim = sim,
  test = test,
  expect = function(value) return expectation(value, true) end,
  tests = tests,
}
