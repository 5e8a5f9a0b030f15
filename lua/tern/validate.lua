-- Checks what operators write against schema.lua, says what is wrong and where, and brings it
-- into the form that C reads: durations in milliseconds, sizes in octets, one value of a list in
-- a list.
--
-- Loaded by C only (it hands over `native`, the parsers of core/). Nothing here raises to the
-- caller: the public functions return nil and the message (or a table with file, line and
-- message).
local _, native = ...
local schema = require "tern.schema"
local suggest = require "tern.suggest"
local locate = require "tern.locate"

local validate = {}
local FOREVER <const> = math.maxinteger

-- ---- saying what is wrong ----------------------------------------------------------------------

-- An error on its way out. path: where in the table; at: another place (file, line) that is better.
local function fail(path, message, at)
  error({ path = { table.unpack(path) }, message = message, at = at }, 0)
end

local function path_text(path)
  local text = ""
  for i, key in ipairs(path) do
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
-- path of the value being checked, for messages; checks that go deeper push and pop
local path = {}
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
    fail(path, ("'%s': %s is not available in this version"):format(path_text(path), quoted(v)))
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
    fail(path, ("%s is not available in this version"):format("'" .. path_text(path) .. "'"))
  end
  if spec.type == "table" then return check_table(value, spec) end
  if spec.type == "list" then return check_list(value, spec) end
  local t = types[spec.type]
  local normal, complaint, hint = t.check(value, spec)
  if normal ~= nil then return normal end
  local name = #path > 0 and "'" .. path_text(path) .. "' " or ""
  if complaint then fail(path, ("%s%s, got %s"):format(name, complaint, got_for(value, spec))) end
  local what = type(t.what) == "function" and t.what(spec) or t.what
  local makes = spec.type == "route" or spec.type == "policy" or spec.type == "default_route"
  fail(path, ("%smust be %s, got %s%s%s"):format(name, what, got_for(value, spec), hint or "",
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
  path[#path + 1] = key
  local normal = check(value, spec)
  path[#path] = nil
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
  local inside = #path > 0 and "'" .. path_text(path) .. "'" or spec.what or "the configuration"
  if type(key) ~= "string" then
    local takes = #known.names > 0 and "; it takes " .. table.concat(known.names, ", ") or ""
    fail(path, ("%s does not take an item [%s]%s"):format(inside, tostring(key), takes))
  end
  path[#path + 1] = key
  fail(path, ("unknown %s '%s' in %s%s"):format(spec.noun or "key", key, inside,
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
  local name = #path > 0 and "'" .. path_text(path) .. "'" or spec.what or "this"
  if n < (spec.min_items or 0) then
    local t = types[spec.items.type]
    fail(path, ("%s needs at least one item: %s"):format(name,
      type(t.what) == "function" and t.what(spec.items) or t.what))
  end
  if n > (spec.max_items or spec.max or 100000) then
    fail(path, ("%s may have at most %d items"):format(name, spec.max_items or spec.max or 100000))
  end
  for i = 1, n do normal[i] = at(i, rawget(value, i), spec.items or spec.of) end
  return normal
end

function check_table(value, spec)
  local fields = spec.fields
  if type(value) ~= "table" and spec.items and type(value) == "string" then value = { value } end
  if type(value) ~= "table" or native.kind(value) ~= "table" then
    local name = #path > 0 and "'" .. path_text(path) .. "'" or spec.what or "the configuration"
    fail(path, ("%s must be a table, got %s%s"):format(name, got_for(value, spec),
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
      path[#path + 1] = f.name
      fail(path, ("'%s' is missing: it must be %s"):format(path_text(path), what))
    elseif for_script and type(f.default) ~= "nil" then
      normal[f.name] = at(f.name, f.default, f)
    end
  end
  return normal
end

function check_list(value, spec)
  local kind = native.kind(value)
  if spec.single and kind ~= "table" then
    path[#path + 1] = 1
    local ok, e = pcall(check, value, spec.of)
    path[#path] = nil
    if ok then return { e } end
    if type(e) == "table" and #e.path == #path + 1 then -- name the key, not its first item
      table.remove(e.path)
      e.message = e.message:gsub("%[1%]' ", "' ", 1)
    end
    error(e, 0)
  end
  if kind ~= "table" then
    fail(path, ("'%s' must be a list, got %s"):format(path_text(path), got(value)))
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
      fail(path, ("'%s' is a list: it does not take a key '%s'"):format(path_text(path),
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
  if n > 3 then fail(path, "a reply has three parts: code, enhanced code, text") end
  if n > 0 then
    local class = math.type(code) == "integer" and code // 100 or nil
    local etrn = spec.class == 5 and (code == 458 or code == 459)
    if not class or (class ~= spec.class and not etrn) then
      local other = class == 4 and "; use tern.defer for replies that are not for good"
        or class == 5 and "; use tern.reject for replies that are for good" or ""
      fail(path, ("the code of its reply must be from %d00 to %d59, got %s%s"):format(spec.class,
        spec.class, got(code), other))
    end
    if code % 100 > 59 then
      fail(path, ("the code of its reply must be from %d00 to %d59, got %d"):format(spec.class,
        spec.class, code))
    end
    if enhanced ~= nil then
      enhanced = at(2, enhanced, spec.tuple[2])
      if native.enhanced(enhanced) ~= class then
        fail(path, ("code %d and enhanced code %s do not agree"):format(code, quoted(enhanced)))
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

-- Runs f(...) and returns its result, or nil and the error as a table.
local function guarded(f, ...)
  path, for_script = {}, false
  local ok, result = pcall(f, ...)
  if ok then return result end
  if type(result) ~= "table" then error(result, 0) end
  return nil, result
end

-- ---- policies ----------------------------------------------------------------------------------

local hook_names = {}
for i, h in ipairs(schema.hooks) do hook_names[i] = h.name end
local is_hook = {}
for _, name in ipairs(hook_names) do is_hook[name] = true end
local policy_fields = { "name", "etrn_identity", table.unpack(hook_names) }

-- File and line of the function in a policy that stands first.
local function policy_place(p)
  local file, line
  for _, v in next, p do
    if type(v) == "function" then
      local f, l = native.place(v)
      if f and (not line or l < line) then file, line = f, l end
    end
  end
  return file, line
end

function validate.policy_name(p)
  if native.kind(p) == "route" then return "route" end
  if type(p) ~= "table" then return "configuration" end
  local name = rawget(p, "name")
  if type(name) == "string" then return name end
  local file = policy_place(p)
  return file and file:match "([^/]+)%.lua$" or "policy"
end

-- Where the wrong field of a policy is written.
local function field_place(p, key)
  local v = rawget(p, key)
  if type(v) == "function" and native.place(v) then return native.place(v) end
  local file = policy_place(p)
  local source = file and native.source(file)
  return file, source and locate.key(source, tostring(key)) or nil
end

-- what: "hook 'rcpt'"; wrong: the rest of the sentence.
local function policy_fault(p, key, what, wrong)
  local file, line = field_place(p, key)
  local place = file and (" (%s%s)"):format(file, line and ":" .. line or "") or ""
  fail(path, what .. " in policy '" .. validate.policy_name(p) .. "'" .. place .. wrong,
    file and { file = file, line = line, inside = true })
end

local function check_policy(p)
  local kind = native.kind(p)
  if kind == "route" then return p end
  if kind ~= "table" then return nil end
  for _, key in ipairs(sorted_keys(p)) do
    local value = rawget(p, key)
    if is_hook[key] then
      if type(value) ~= "function" then
        policy_fault(p, key, ("hook '%s'"):format(key), " must be a function, got " .. got(value))
      end
    elseif key == "name" then
      if type(value) ~= "string" or not value:find "^[%w_.-]+$" or #value > 64 then
        policy_fault(p, key, "'name'", " must be letters, digits, '_', '-' and '.', got "
          .. got(value))
      end
    elseif key == "etrn_identity" then
      if type(value) ~= "boolean" then
        policy_fault(p, key, "'etrn_identity'", " must be true or false, got " .. got(value))
      end
    else
      local noun = type(value) == "function" and "hook" or "field"
      policy_fault(p, key, ("unknown %s '%s'"):format(noun, tostring(key)),
        suggest.hint(tostring(key), policy_fields))
    end
  end
  return p
end

types.policy = simple("a policy (a table of hooks) or a route", check_policy)

types.default_route = simple("a route, such as route.mx { domain = \"example.com\" }, "
  .. "or a policy that has `route`", function(v)
  local p = check_policy(v)
  if native.kind(p) == "table" and not rawget(p, "route") then return nil end
  return p
end)

-- Checks one policy that a function gave at run time: true, or nil and the message.
function validate.policy(p)
  local ok, e = guarded(check, p, { type = "policy" })
  if ok then return true end
  return nil, e.message
end

-- What is wrong with the value that a hook returned. place: where the hook is written.
function validate.wrong_return(hook, value, place)
  local may = {}
  for _, h in ipairs(schema.hooks) do
    if h.name == hook then
      for i, name in ipairs(h.returns) do may[i] = name end
    end
  end
  local kind = native.kind(value)
  local what = kind == "verdict" and "tern." .. tostring(value):match "^%w+"
    or kind == "route" and "a route" or got(value)
  may[#may + 1] = "nothing"
  return ("%s: hook '%s' returned %s; it may return %s"):format(place, hook, what,
    table.concat(may, ", "))
end

-- ---- domains and senders -----------------------------------------------------------------------

-- The table itself when its keys are in normal form already (a large one is not copied).
local function check_map(value, noun, normalize)
  if type(value) == "function" then return value end
  if native.kind(value) ~= "table" then return nil end
  local wrong, changed
  local seen = {}
  for key, p in next, value do
    local normal = type(key) == "string" and normalize(key) or nil
    if not normal then
      wrong = wrong or {}
      wrong[#wrong + 1] = tostring(key)
    elseif normal ~= key then
      changed = true
    end
    if not seen[p] then
      seen[p] = true
      at(tostring(key), p, { type = "policy" })
    end
  end
  if wrong then
    table.sort(wrong)
    path[#path + 1] = wrong[1]
    fail(path, ("%s is not %s"):format(quoted(wrong[1]), noun))
  end
  if not changed then return value end
  local map = {}
  for _, key in ipairs(sorted_keys(value)) do
    local normal, p = normalize(key), rawget(value, key)
    if map[normal] ~= nil then
      path[#path + 1] = key
      fail(path, ("'%s' names %s twice"):format(path_text { path[1] }, quoted(normal)))
    end
    map[normal] = p
  end
  return map
end

-- Policies of a checked map that have the hook, each once, in the order of their keys.
function validate.distinct(map, hook)
  local found, seen = {}, {}
  for _, key in ipairs(sorted_keys(map)) do
    local p = rawget(map, key)
    if type(p) == "table" and rawget(p, hook) and not seen[p] then
      seen[p] = true
      found[#found + 1] = p
    end
  end
  return found
end

-- A map from a file: what is wrong with its rows has their place in front.
local function check_map_file(value)
  local ok, wrong = pcall(native.map_wrong, value)
  if not ok then
    local file, line = tostring(wrong):match "^([^:\n]+):(%d+): "
    fail(path, tostring(wrong), { file = file, line = math.tointeger(line) })
  end
  if wrong then fail(path, ("'%s' %s"):format(path_text(path), wrong)) end
  return value
end

types.domains = simple("a table from domains to policies, a map, or a function", function(v)
  if native.kind(v) == "map" then return check_map_file(v) end
  return check_map(v, 'a domain, ".domain" (its subdomains) or "*"', native.domain_key)
end)
types.senders = simple("a table from senders to policies, a map, or a function", function(v)
  if native.kind(v) == "map" then return check_map_file(v) end
  return check_map(v, 'an address, a domain, ".domain" (its subdomains), "*" or "<>"',
    native.sender_key)
end)

-- A table from local addresses to what each may do. Normal form: a list, each with its address.
types.sources = simple("a table from local addresses to what each may do", function(v)
  if native.kind(v) ~= "table" then return nil end
  local normal, seen = {}, {}
  for _, key in ipairs(sorted_keys(v)) do
    local address = type(key) == "string" and native.source_ip(key) or nil
    path[#path + 1] = key
    if not address then
      fail(path, ("%s is not an address that connections can be made from, such as \"192.0.2.1\"")
        :format(type(key) == "string" and quoted(key) or "[" .. tostring(key) .. "]"))
    end
    if seen[address] then
      fail(path, ("'sources' names %s twice"):format(quoted(address)))
    end
    seen[address] = true
    local entry = check(rawget(v, key), schema.source)
    path[#path] = nil
    entry.address = address
    normal[#normal + 1] = entry
  end
  if #normal > 256 then return nil, "may have at most 256 addresses" end
  return normal
end)

types.sni = simple('a name such as "mx.example.com" or "*.example.com"', string_by(function(s)
  local star = s:find "^%*%."
  local name = native.domain(star and s:sub(3) or s)
  return name and (star and "*." .. name or name) or nil
end))
types.certificate = simple("a table with cert and key", function(v)
  return check_table(v, schema.certificate)
end)

types.listen = simple("an address with a port, or a table of them", function(v)
  return check_table(v, schema.listen)
end)

-- ---- public ------------------------------------------------------------------------------------

local function has_certificate(tls)
  return tls.cert ~= nil or tls.certificates ~= nil and #tls.certificates > 0
end

-- A listener's TLS, where there can be none.
local function check_listener_tls(i, l, tls)
  local certificate = has_certificate(tls)
  if not certificate and (l.tls == "require" or l.tls == "implicit" or l.tls == "offer") then
    fail({ "listen", i, "tls" }, ("'listen[%d].tls' is %s, but 'tls' has no cert and key"):format(
      i, quoted(l.tls)))
  end
  local asks = l.client_certificates == "ask" or l.client_certificates == "require"
  if asks and (not certificate or l.tls == "none") then
    fail({ "listen", i, "client_certificates" }, ("'listen[%d].client_certificates' is %s, but "
      .. "there is no TLS with clients: set tls = { cert = ..., key = ... }%s"):format(i,
      quoted(l.client_certificates), certificate and ", and not tls = \"none\" here" or ""))
  end
  if l.client_ca and (not certificate or l.tls == "none" or l.client_certificates == "none") then
    fail({ "listen", i, "client_ca" }, ("'listen[%d].client_ca' is of no use: no certificates of "
      .. "clients are asked for there"):format(i))
  end
end

-- A listener that asks for AUTH, where nobody could: there is nobody to ask, or no way to say it.
local function check_auth(i, l, n, local_only)
  local auth, tls, hook = n.auth or {}, n.tls or {}, false
  if (l.auth or l.service == "submission" and "require") ~= "require" then return end
  for _, p in ipairs(n.policies or {}) do
    hook = hook or type(p) == "table" and rawget(p, "auth") ~= nil
  end
  if not hook and not auth.passwords then
    fail({ "listen", i }, ("'listen[%d]' asks for AUTH, and nothing says who may: set auth = { "
      .. "passwords = \"FILE\" }, or have a policy with the hook 'auth'"):format(i))
  end
  local clear = true -- only mechanisms that need TLS
  for _, m in ipairs(auth.mechanisms or {}) do
    clear = clear and (m == "PLAIN" or m == "LOGIN")
  end
  if (not has_certificate(tls) or l.tls == "none") and clear and not auth.without_tls
      and not local_only then
    fail({ "listen", i }, ("'listen[%d]' asks for AUTH and has no TLS, without which passwords are "
      .. "not taken: set tls = { cert = ..., key = ... }, or auth = { without_tls = true }")
      :format(i))
  end
end

-- LMTP has no place on the port where SMTP is expected (RFC 2033 §5). Files have modes, ports have
-- none. True: all are Unix sockets.
local function check_listener_place(i, l)
  local paths = 0
  for k, where in ipairs(l) do
    local port = native.listen_port(where, l.service == "lmtp" and 24 or 25)
    if port == -1 then paths = paths + 1 end
    if l.service == "lmtp" and port == 25 then
      fail({ "listen", i, k }, ("'listen[%d]' speaks LMTP on port 25, where hosts speak SMTP: give "
        .. "it another port (24 is usual), or a Unix socket"):format(i))
    end
  end
  for _, key in ipairs { "mode", "group" } do
    if l[key] and paths == 0 then
      fail({ "listen", i, key }, ("'listen[%d].%s' is of no use: it is for Unix sockets, and there "
        .. "is no path of one"):format(i, key))
    end
  end
  return paths == #l
end

-- What no single key can say.
local function check_whole(n)
  local tls = n.tls or {}
  if (tls.cert == nil) ~= (tls.key == nil) then
    fail({ "tls" }, "'tls' needs both cert and key")
  end
  if tls.client_ca and not has_certificate(tls) then
    fail({ "tls", "client_ca" }, "'tls.client_ca' needs 'tls.cert': there is no TLS with clients")
  end
  for i, l in ipairs(n.listen or {}) do
    check_listener_tls(i, l, tls)
    check_auth(i, l, n, check_listener_place(i, l))
  end
  local q = n.queue or {}
  if q.concurrency and q.max_concurrency and q.concurrency > q.max_concurrency then
    fail({ "queue", "concurrency" }, "'queue.concurrency' is more than 'queue.max_concurrency'")
  end
end

-- The whole configuration in normal form; or nil and { file =, line =, message = }. file: the
-- name of the chunk it was read from, or nil.
function validate.configuration(config, file)
  local n, e = guarded(function()
    local normal = check(config, schema.configuration)
    check_whole(normal)
    return normal
  end)
  if n then return n end
  if e.at then return nil, { file = e.at.file, line = e.at.line, message = e.message } end
  local source = file and native.source(file)
  local line = source and locate.path(source, e.path) or nil
  if source and not line and #e.path <= 1 then -- a key that is missing, or the whole
    line = locate.last_return(source)
  end
  return nil, { file = file, line = line, message = e.message, prefix = true }
end

types.row_policy = simple("a policy, a route, or a function from a row to one", function(v)
  return type(v) == "function" and v or check_policy(v)
end)
types.row_policies = simple("a table from names to policies", function(v)
  if native.kind(v) ~= "table" then return nil end
  for _, key in ipairs(sorted_keys(v)) do
    if type(key) ~= "string" or key == "" then
      fail(path, "'policies' is a table from names, as they stand in the file, to policies")
    end
    at(key, rawget(v, key), { type = "row_policy" })
  end
  return v
end)

local constructors = {}
for _, c in ipairs(schema.constructors) do
  local spec = {}
  for k, v in pairs(c.spec or { type = "table", fields = c.fields }) do spec[k] = v end
  if spec.type == "reply" then spec.type = "table" end
  spec.what, spec.noun = c.name, "option"
  constructors[c.name] = spec
end

for _, a in ipairs(schema.arguments) do
  constructors[a.name] = { type = "table", what = a.name, noun = "option", fields = a.fields }
end

-- Arguments of a constructor, or options of a function (schema.arguments), in normal form; or nil
-- and the message.
function validate.construct(name, args)
  local spec = constructors[name]
  if args == nil then args = {} end
  local n, e = guarded(check, args, spec)
  if n then return n end
  local message = e.message
  if #e.path > 0 and message:sub(1, 7) ~= "unknown" then message = name .. ": " .. message
  elseif not message:find(name, 1, true) then message = name .. ": " .. message end
  return nil, message
end

-- Options of tern.map.file: the same, and what no single one can say.
function validate.map_options(options)
  local n, message = validate.construct("tern.map.file", options)
  if n and n.policy ~= nil and n.policies then
    n, message = nil, "tern.map.file: 'policy' is for all rows, 'policies' by their second field"
  elseif n and n.keys == "text" and (n.policy ~= nil or n.policies) then
    n, message = nil, "tern.map.file: rows with policies have the keys of mail, not texts"
  end
  return n, message
end

-- Options of a policy (fields as in schema.lua) for scripts, defaults filled in; or nil and the
-- message.
function validate.options(what, spec, given)
  spec = { type = "table", what = what, noun = "option", fields = spec.options or {},
    items = spec.items, min_items = spec.min_items, max_items = spec.max_items }
  if given == nil then given = {} end
  local n, e = guarded(function()
    for_script = true
    return check(given, spec)
  end)
  if n then return n end
  local message = e.message
  if not message:find(what, 1, true) then message = what .. ": " .. message end
  return nil, message
end

-- Is a table of options well formed? For tern.policy: nil, or what is wrong.
function validate.option_specs(specs, items)
  if items and not types[items.type] then return "'items' needs a known type" end
  for i, s in ipairs(specs) do
    local good = type(s) == "table" and type(s.name) == "string"
      and (s.type == "list" and type(s.of) == "table" and types[s.of.type]
        or s.type == "table" and type(s.fields) == "table" or types[s.type])
    if not good then
      return ("option %s: needs a name and a known type"):format(
        type(s) == "table" and s.name or i)
    end
  end
  return nil
end

local object_fields = {}
for _, o in ipairs(schema.objects) do
  local names = {}
  for i, f in ipairs(o.fields) do names[i] = f[1] end
  object_fields[o.name] = names
end

-- "undefined variable 'tren'; did you mean 'tern'?" (names: the globals there are)
function validate.undefined(name, names)
  name = tostring(name)
  local hint = suggest.hint(name, names)
  if name == "tern" or name == "route" then
    hint = (": write local %s = require \"%s\""):format(name,
      name == "tern" and name or "tern.route")
  elseif name == "io" or name == "debug" or name == "package" then
    hint = ": it is not available to scripts"
  end
  return ("undefined variable '%s'%s"):format(name, hint)
end

-- "session has no field 'clinet'; did you mean 'client'?"
function validate.no_field(object, key, names)
  key = tostring(key)
  return ("%s has no field '%s'%s"):format(object, key,
    suggest.hint(key, names or object_fields[object] or {}))
end

return validate
