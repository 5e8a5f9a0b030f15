-- Checks a value against a spec of schema.lua: one function for each type, and what tables, lists
-- and tuples are made of. A value comes back in its normal form; what is wrong with it is raised as
-- a table with the path to it and the message, which `guarded` catches.
--
-- validate.lua adds the types of what is Tern's own: policies, maps, listeners.
local _, native = ...
local schema = require "tern.schema"
local suggest = require "tern.suggest"

local FOREVER <const> = math.maxinteger

-- ---- saying what is wrong ----------------------------------------------------------------------

-- Where the value stands that is being checked, as keys from the outermost table; checks that go
-- deeper enter and leave.
local path = {}

local function enter(key) path[#path + 1] = key end
local function leave() path[#path] = nil end

-- An error on its way out. where: the path to what it is about; at: another place (file, line) that
-- is better than that.
local function raise(where, message, at)
  error({ path = where, message = message, at = at }, 0)
end

-- The same about the value that is being checked.
local function fail(message, at)
  raise({ table.unpack(path) }, message, at)
end

-- The path as one would write it, or its first `n` keys.
local function path_text(n)
  local text = ""
  for i = 1, n or #path do
    local key = path[i]
    if type(key) == "number" then text = text .. "[" .. key .. "]"
    elseif key:find("^[%a_][%w_]*$") then text = text .. (i > 1 and "." or "") .. key
    else text = text .. '["' .. key .. '"]' end
  end
  return text
end

local function quoted(s)
  if #s > 60 then s = s:sub(1, 57) .. "..." end
  return '"' .. s:gsub('[%c"\\]', function(c)
    return c:find '["\\]' and "\\" .. c or ("\\x%02x"):format(c:byte())
  end) .. '"'
end

local function got(value)
  local kind = native.kind(value)
  if kind == "nil" then return "nothing" end
  if kind == "string" then return quoted(value) end
  if kind == "number" then return tostring(value) end
  return (kind:find "^[aeiou]" and "an " or "a ") .. kind
end

-- What holds a password must not be quoted in a message.
local function got_for(value, spec)
  if not spec.secret or value == nil then return got(value) end
  return "a " .. native.kind(value)
end

local function is_call_missing(value)
  return type(value) == "function" and " (call it: a function that makes one is not one)" or ""
end

local function either(values)
  local all = {}
  for i, v in ipairs(values) do all[i] = '"' .. v .. '"' end
  local last = table.remove(all)
  return #all > 0 and table.concat(all, ", ") .. " or " .. last or last
end

local function whole_number(spec)
  local from, to = spec.min, spec.max
  return "a whole number" .. (from and to and (" from %d to %d"):format(from, to)
    or from and (" of at least %d"):format(from) or to and (" of at most %d"):format(to) or "")
end

local function duration_words(spec)
  return 'a duration such as "30s", "15m" or "5d"'
    .. (spec.forever and ', or "forever"' or spec.never and ', or "never"' or "")
end

-- ---- types: name -> { what is expected, how to check } -----------------------------------------

-- check(value, spec) returns the normal form, or nil and perhaps a more exact complaint.
local types = {}
-- options of policies keep seconds and octets as numbers, since scripts go on with them
local for_script = false

local function simple(what, check)
  return { what = what, check = check }
end

local function string_by(parse)
  return function(value, spec)
    if type(value) ~= "string" then return nil end
    return parse(value, spec)
  end
end

types.any = simple("a value", function(v) return v end)
types.string = simple("a string", string_by(function(s) return s end))
types.text = simple("a line of text", string_by(function(s)
  if s:find "[%c]" then return nil, "must not contain line breaks or other control characters" end
  return s
end))
types.path = simple('a path such as "/etc/tern/key.pem"', string_by(function(s)
  return s ~= "" and not s:find "%c" and s or nil
end))
types.queue = simple("the name of a queue (1 to 255 octets)", string_by(function(s)
  return #s >= 1 and #s <= 255 and not s:find "%c" and s or nil
end))
types.boolean = simple("true or false", function(v)
  if type(v) == "boolean" then return v end
  return nil
end)
types.integer = simple(whole_number, function(v, spec)
  if type(v) ~= "number" then return nil end
  v = math.tointeger(v)
  if not v or v < (spec.min or 0) or v > (spec.max or 0x7fffffff) then return nil end
  return v
end)
types.number = simple("a number", function(v) return type(v) == "number" and v or nil end)
types["function"] = simple("a function", function(v) return type(v) == "function" and v or nil end)
types.domain = simple('a host name such as "mx.example.com"', string_by(native.domain))
types.ip = simple('an IP address such as "192.0.2.1"', string_by(native.ip))
types.rate = simple('a rate such as "100/m", "2/s" or "1000/h,burst=20"',
  string_by(native.rate))
types.source = simple('an address of this machine such as "192.0.2.1"', string_by(native.source_ip))
-- Where to listen. "/path" may be written as "unix:/path", too.
types.listen_address = simple('an address with a port, such as "192.0.2.1:25" or "[::]:25", or the '
  .. "path of a Unix socket", string_by(function(s)
    if native.listen_port(s, 0) then return s end
    if #s:gsub("^unix:", "") > 103 and s:find "^[unix:]*/" then
      return nil, "is too long: the path of a Unix socket has at most 103 octets"
    end
    return nil
  end))
types.file_mode = simple('what a file permits, such as "660"', string_by(function(s)
  return s:find "^0?[0-7][0-7][0-7]$" and s or nil
end))
types.group_name = simple("the name of a group of this system", string_by(function(s)
  return s:find "^[%w_][%w_.-]*$" and #s <= 64 and s or nil
end))
types.endpoint = simple('an address with a port, such as "192.0.2.1:25" or "[::]:25"',
  string_by(function(s, spec) return native.endpoint(s, spec.port or 0) end))
types.cidr = simple('a network such as "10.0.0.0/8"', string_by(native.cidr))
types.schedule = simple('a schedule such as "1m,5m,15m*4,1h..."', string_by(native.schedule))
types.hours = simple('a part of the day such as "22:00-06:00"', string_by(native.hours))
types.target = simple('a host such as "mail.example.com:587", "[192.0.2.1]:25" or "lmtp:/path"',
  string_by(native.target))
types.lmtp = simple('a path such as "/run/dovecot/lmtp", or "host:port"', string_by(function(s)
  if not s:find "^lmtp:" then s = (s:find "^/" and "lmtp:" or "lmtp://") .. s end
  return native.target(s)
end))
types.group = simple("a name without blanks and '/'", string_by(function(s)
  return s:find "^[!-.0-~]+$" and #s <= 100 and s:lower() or nil
end))
types.enhanced = simple('an enhanced status code such as "5.7.1"', string_by(function(s)
  return native.enhanced(s) and s
end))
types.size = simple('a size such as "50M"', function(v, spec)
  if math.type(v) == "integer" and v >= 0 then v = tostring(v) end
  local n = type(v) == "string" and native.size(v) or nil
  if n and spec.min and n < spec.min then
    return nil, ("must be at least %d octets"):format(spec.min)
  end
  return n
end)
types.duration = simple(duration_words, function(v, spec)
  if v == "forever" and spec.forever then return for_script and v or FOREVER end
  if spec.never and (v == "never" or v == false) then return for_script and "never" or -1 end
  local ms
  if type(v) == "number" and v >= 0 and v < 1e12 then ms = math.floor(v * 1000)
  elseif type(v) == "string" then ms = native.duration(v) end
  if not ms or ms >= FOREVER then return nil end
  if spec.min and ms < spec.min then
    return nil, ("must be at least %gs"):format(spec.min / 1000)
  end
  return for_script and (ms % 1000 == 0 and ms // 1000 or ms / 1000) or ms
end)
types.workers = simple('"auto" or a whole number from 1 to 256', function(v)
  if v == "auto" then return 0 end
  v = math.type(v) == "integer" and v or nil
  return v and v >= 1 and v <= 256 and v or nil
end)
types.enum = simple(function(spec) return either(spec.values) end, function(v, spec)
  for _, allowed in ipairs(spec.values) do
    if v == allowed then return v end
  end
  if v == spec.later_value then
    fail(("'%s': %s is not available in this version"):format(path_text(), quoted(v)))
  end
  if type(v) == "string" then
    return nil, nil, suggest.hint(v, spec.values, '"')
  end
  return nil
end)
types.route = simple("a route, such as route.mx { domain = \"example.com\" }", function(v)
  return native.kind(v) == "route" and v or nil
end)
types.route_or_mx = simple('a route, or "mx"', function(v)
  return (v == "mx" or native.kind(v) == "route") and v or nil
end)
types.password = simple('a text of 1 to 1024 octets, or a secret, as in secret "name"', function(v)
  if native.kind(v) == "secret" then return v end
  return type(v) == "string" and #v >= 1 and #v <= 1024 and not v:find "\0" and v or nil
end)
-- A password or an entry of a password file; of either kind at most what C takes.
types.password_entry = simple("a text of 1 to 1024 octets (an entry: 2048)", string_by(function(s)
  return #s >= 1 and #s <= (s:find "^[{$]" and 2048 or 1024) and not s:find "\0" and s or nil
end))
types.user = simple("a text of 1 to 255 octets", string_by(function(s)
  return #s >= 1 and #s <= 255 and not s:find "%c" and s or nil
end))

-- ---- checking ----------------------------------------------------------------------------------

local check_table, check_list, check_tuple

local function check(value, spec)
  if spec.later then
    fail(("%s is not available in this version"):format("'" .. path_text() .. "'"))
  end
  if spec.type == "table" then return check_table(value, spec) end
  if spec.type == "list" then return check_list(value, spec) end
  local t = types[spec.type]
  local normal, complaint, hint = t.check(value, spec)
  if normal ~= nil then return normal end
  local name = #path > 0 and "'" .. path_text() .. "' " or ""
  if complaint then fail(("%s%s, got %s"):format(name, complaint, got_for(value, spec))) end
  local what = type(t.what) == "function" and t.what(spec) or t.what
  local makes = spec.type == "route" or spec.type == "policy" or spec.type == "default_route"
  fail(("%smust be %s, got %s%s%s"):format(name, what, got_for(value, spec), hint or "",
    makes and is_call_missing(value) or ""))
end

local function minutes(v)
  local h, m = tostring(v):match "^(%d%d):(%d%d)$"
  if h then
    h, m = tonumber(h), tonumber(m)
    return (h < 24 and m < 60 or h == 24 and m == 0) and h * 60 + m or nil
  end
  return math.type(v) == "integer" and v >= 0 and v <= 1440 and v or nil
end
types.between = simple('two times of the day such as { "22:00", "06:00" }', function(v)
  if native.kind(v) ~= "table" or rawlen(v) ~= 2 then return nil end
  local from, to = minutes(rawget(v, 1)), minutes(rawget(v, 2))
  return from and to and { from, to } or nil
end)
types.clients = simple('networks such as "10.0.0.0/8", or a function', function(v)
  if type(v) == "function" then return v end
  return check_list(v, { type = "list", of = { type = "cidr" }, single = true })
end)

local function at(key, value, spec)
  enter(key)
  local normal = check(value, spec)
  leave()
  return normal
end

local names_of = setmetatable({}, { __mode = "k" })

-- fields: array of specs. Names in order, and a table by name, made once.
local function index(fields)
  local known = names_of[fields]
  if not known then
    known = { names = {}, by_name = {} }
    for i, f in ipairs(fields) do
      known.names[i], known.by_name[f.name] = f.name, f
    end
    names_of[fields] = known
  end
  return known
end

local function sorted_keys(t)
  local keys = {}
  for k in next, t do keys[#keys + 1] = k end
  table.sort(keys, function(a, b)
    local ta, tb = type(a), type(b)
    if ta ~= tb then return ta < tb end
    if ta == "number" or ta == "string" then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function unknown(key, spec, known)
  local inside = #path > 0 and "'" .. path_text() .. "'" or spec.what or "the configuration"
  if type(key) ~= "string" then
    local takes = #known.names > 0 and "; it takes " .. table.concat(known.names, ", ") or ""
    fail(("%s does not take an item [%s]%s"):format(inside, tostring(key), takes))
  end
  enter(key)
  fail(("unknown %s '%s' in %s%s"):format(spec.noun or "key", key, inside,
    suggest.hint(key, known.names)))
end

local function refuse_unknown(value, spec, items)
  local known = index(spec.fields)
  for key in next, value do
    if not known.by_name[key] and not (items and math.type(key) == "integer"
        and key >= 1 and key <= items) then
      for _, k in ipairs(sorted_keys(value)) do -- the same one in every run
        if not known.by_name[k] and not (items and math.type(k) == "integer"
            and k >= 1 and k <= items) then
          unknown(k, spec, known)
        end
      end
    end
  end
end

local function check_items(value, spec, n)
  local normal = {}
  local name = #path > 0 and "'" .. path_text() .. "'" or spec.what or "this"
  if n < (spec.min_items or 0) then
    local t = types[spec.items.type]
    fail(("%s needs at least one item: %s"):format(name,
      type(t.what) == "function" and t.what(spec.items) or t.what))
  end
  if n > (spec.max_items or spec.max or 100000) then
    fail(("%s may have at most %d items"):format(name, spec.max_items or spec.max or 100000))
  end
  for i = 1, n do normal[i] = at(i, rawget(value, i), spec.items or spec.of) end
  return normal
end

function check_table(value, spec)
  local fields = spec.fields
  if type(value) ~= "table" and spec.items and type(value) == "string" then value = { value } end
  if type(value) ~= "table" or native.kind(value) ~= "table" then
    local name = #path > 0 and "'" .. path_text() .. "'" or spec.what or "the configuration"
    fail(("%s must be a table, got %s%s"):format(name, got_for(value, spec),
      is_call_missing(value)))
  end
  local n = (spec.items or spec.tuple) and rawlen(value) or nil
  refuse_unknown(value, spec, n)
  local normal = spec.items and check_items(value, spec, n) or {}
  if spec.tuple then check_tuple(value, spec, n, normal) end
  for _, f in ipairs(fields) do
    local v = rawget(value, f.name)
    if v ~= nil then
      normal[f.name] = at(f.name, v, f)
    elseif f.required then
      local t = types[f.type]
      local what = type(t.what) == "function" and t.what(f) or t.what
      enter(f.name)
      fail(("'%s' is missing: it must be %s"):format(path_text(), what))
    elseif for_script and type(f.default) ~= "nil" then
      normal[f.name] = at(f.name, f.default, f)
    end
  end
  return normal
end

function check_list(value, spec)
  local kind = native.kind(value)
  if spec.single and kind ~= "table" then
    enter(1)
    local ok, e = pcall(check, value, spec.of)
    leave()
    if ok then return { e } end
    if type(e) == "table" and #e.path == #path + 1 then -- name the key, not its first item
      table.remove(e.path)
      e.message = e.message:gsub("%[1%]' ", "' ", 1)
    end
    error(e, 0)
  end
  if kind ~= "table" then
    fail(("'%s' must be a list, got %s"):format(path_text(), got(value)))
  end
  if spec.of.type == "listen" or spec.of.type == "policy" then
    -- one table with named fields stands for a list of one
    for key in next, value do
      if spec.single and type(key) == "string" then
        value = { value }
        break
      end
    end
  end
  local n = rawlen(value)
  for key in next, value do
    if math.type(key) ~= "integer" or key < 1 or key > n then
      fail(("'%s' is a list: it does not take a key '%s'"):format(path_text(),
        tostring(key)))
    end
  end
  return check_items(value, spec, n)
end

-- { 550, "5.7.1", "text" }; the enhanced code, or all, may be left out.
function check_tuple(value, spec, n, normal)
  local code, enhanced, text = rawget(value, 1), rawget(value, 2), rawget(value, 3)
  if n == 2 and type(enhanced) == "string" and not native.enhanced(enhanced) then
    enhanced, text = nil, enhanced
  end
  if n > 3 then fail("a reply has three parts: code, enhanced code, text") end
  if n > 0 then
    local class = math.type(code) == "integer" and code // 100 or nil
    local etrn = spec.class == 5 and (code == 458 or code == 459)
    if not class or (class ~= spec.class and not etrn) then
      local other = class == 4 and "; use tern.defer for replies that are not for good"
        or class == 5 and "; use tern.reject for replies that are for good" or ""
      fail(("the code of its reply must be from %d00 to %d59, got %s%s"):format(spec.class,
        spec.class, got(code), other))
    end
    if code % 100 > 59 then
      fail(("the code of its reply must be from %d00 to %d59, got %d"):format(spec.class,
        spec.class, code))
    end
    if enhanced ~= nil then
      enhanced = at(2, enhanced, spec.tuple[2])
      if native.enhanced(enhanced) ~= class then
        fail(("code %d and enhanced code %s do not agree"):format(code, quoted(enhanced)))
      end
    end
    if text ~= nil then text = at(3, text, { type = "reply_text" }) end
  end
  normal.code = code or spec.default[1]
  normal.enhanced = enhanced or n == 0 and spec.default[2] or ""
  normal.text = text or n == 0 and spec.default[3] or spec.default[3]
end

-- A host, or a group of hosts with what holds for them alone.
types.host_or_group = simple(types.target.what .. ", or a list of those", function(v, spec)
  if native.kind(v) == "table" then return check_table(v, schema.group) end
  return types.target.check(v, spec)
end)
types.auth = simple("a table with user and password", function(v)
  return check_table(v, schema.auth)
end)

types.recipients = simple("a list of addresses or local parts, a map, a function, or "
  .. '"call-forward"', function(v)
    local kind = native.kind(v)
    if v == "call-forward" or kind == "function" or kind == "map" then return v end
    if kind ~= "table" or rawlen(v) == 0 then return nil end
    local names = {}
    for i = 1, rawlen(v) do
      local name = rawget(v, i)
      local normal = type(name) == "string" and (name:find "@" and native.sender_key(name)
        or not name:find "[@%s%c]" and name ~= "" and name:lower())
      if not normal or normal:find "^[.*]" then
        return nil, ("has %s, which is no address or local part"):format(
          type(name) == "string" and quoted(name) or native.kind(name))
      end
      names[i] = normal
    end
    return names
  end)
types.reply_text = simple("a text", string_by(function(s)
  if s:find "[%z\1-\9\11-\31\127]" then return nil, "must not contain control characters" end
  if #s > 2000 then return nil, "must have at most 2000 octets" end
  return s
end))

local function run(f, ...)
  local ok, result = pcall(f, ...)
  if ok then return result end
  if type(result) ~= "table" then error(result, 0) end
  return nil, result
end

-- Runs f(...) and returns its result, or nil and the error as a table.
local function guarded(f, ...)
  path, for_script = {}, false
  return run(f, ...)
end

-- The same for options of a policy: durations and sizes stay numbers of seconds and octets, and
-- defaults are filled in.
local function guarded_for_script(f, ...)
  path, for_script = {}, true
  return run(f, ...)
end

return {
  types = types, simple = simple, string_by = string_by,
  value = check, at = at, table = check_table,
  enter = enter, leave = leave, path_text = path_text, fail = fail, raise = raise,
  quoted = quoted, got = got, sorted_keys = sorted_keys,
  guarded = guarded, guarded_for_script = guarded_for_script,
}
