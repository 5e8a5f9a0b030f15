-- Checks what operators write against schema.lua, says what is wrong and where, and brings it
-- into the form that C reads: durations in milliseconds, sizes in octets, one value of a list in
-- a list. How a single value is checked is check.lua's business.
--
-- Loaded by C only (it hands over `native`, the parsers of core/). Nothing here raises to the
-- caller: the public functions return nil and the message (or a table with file, line and
-- message).
local _, native = ...
local check = require "tern.check"
local schema = require "tern.schema"
local suggest = require "tern.suggest"
local locate = require "tern.locate"

local types, simple, string_by = check.types, check.simple, check.string_by
local fail, raise, enter, leave, path_text =
  check.fail, check.raise, check.enter, check.leave, check.path_text
local at, quoted, got, sorted_keys = check.at, check.quoted, check.got, check.sorted_keys
local guarded = check.guarded

local validate = {}

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
  fail(what .. " in policy '" .. validate.policy_name(p) .. "'" .. place .. wrong,
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
  local ok, e = guarded(check.value, p, { type = "policy" })
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
    enter(wrong[1])
    fail(("%s is not %s"):format(quoted(wrong[1]), noun))
  end
  if not changed then return value end
  local map = {}
  for _, key in ipairs(sorted_keys(value)) do
    local normal, p = normalize(key), rawget(value, key)
    if map[normal] ~= nil then
      enter(key)
      fail(("'%s' names %s twice"):format(path_text(1), quoted(normal)))
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
    fail(tostring(wrong), { file = file, line = math.tointeger(line) })
  end
  if wrong then fail(("'%s' %s"):format(path_text(), wrong)) end
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
    enter(key)
    if not address then
      fail(("%s is not an address that connections can be made from, such as \"192.0.2.1\"")
        :format(type(key) == "string" and quoted(key) or "[" .. tostring(key) .. "]"))
    end
    if seen[address] then
      fail(("'sources' names %s twice"):format(quoted(address)))
    end
    seen[address] = true
    local entry = check.value(rawget(v, key), schema.source)
    leave()
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
  return check.table(v, schema.certificate)
end)

types.listen = simple("an address with a port, or a table of them", function(v)
  return check.table(v, schema.listen)
end)

-- ---- public ------------------------------------------------------------------------------------

local function has_certificate(tls)
  return tls.cert ~= nil or tls.certificates ~= nil and #tls.certificates > 0
end

-- A listener's TLS, where there can be none.
local function check_listener_tls(i, l, tls)
  local certificate = has_certificate(tls)
  if not certificate and (l.tls == "require" or l.tls == "implicit" or l.tls == "offer") then
    raise({ "listen", i, "tls" }, ("'listen[%d].tls' is %s, but 'tls' has no cert and key"):format(
      i, quoted(l.tls)))
  end
  local asks = l.client_certificates == "ask" or l.client_certificates == "require"
  if asks and (not certificate or l.tls == "none") then
    raise({ "listen", i, "client_certificates" }, ("'listen[%d].client_certificates' is %s, but "
      .. "there is no TLS with clients: set tls = { cert = ..., key = ... }%s"):format(i,
      quoted(l.client_certificates), certificate and ", and not tls = \"none\" here" or ""))
  end
  if l.client_ca and (not certificate or l.tls == "none" or l.client_certificates == "none") then
    raise({ "listen", i, "client_ca" }, ("'listen[%d].client_ca' is of no use: no certificates of "
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
    raise({ "listen", i }, ("'listen[%d]' asks for AUTH, and nothing says who may: set auth = { "
      .. "passwords = \"FILE\" }, or have a policy with the hook 'auth'"):format(i))
  end
  local clear = true -- only mechanisms that need TLS
  for _, m in ipairs(auth.mechanisms or {}) do
    clear = clear and (m == "PLAIN" or m == "LOGIN")
  end
  if (not has_certificate(tls) or l.tls == "none") and clear and not auth.without_tls
      and not local_only then
    raise({ "listen", i },
      ("'listen[%d]' asks for AUTH and has no TLS, without which passwords are "
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
      raise({ "listen", i, k },
        ("'listen[%d]' speaks LMTP on port 25, where hosts speak SMTP: give "
        .. "it another port (24 is usual), or a Unix socket"):format(i))
    end
  end
  for _, key in ipairs { "mode", "group" } do
    if l[key] and paths == 0 then
      raise({ "listen", i, key },
        ("'listen[%d].%s' is of no use: it is for Unix sockets, and there "
        .. "is no path of one"):format(i, key))
    end
  end
  return paths == #l
end

-- What no single key can say.
local function check_whole(n)
  local tls = n.tls or {}
  if (tls.cert == nil) ~= (tls.key == nil) then
    raise({ "tls" }, "'tls' needs both cert and key")
  end
  if tls.client_ca and not has_certificate(tls) then
    raise({ "tls", "client_ca" }, "'tls.client_ca' needs 'tls.cert': there is no TLS with clients")
  end
  for i, l in ipairs(n.listen or {}) do
    check_listener_tls(i, l, tls)
    check_auth(i, l, n, check_listener_place(i, l))
  end
  local q = n.queue or {}
  if q.concurrency and q.max_concurrency and q.concurrency > q.max_concurrency then
    raise({ "queue", "concurrency" }, "'queue.concurrency' is more than 'queue.max_concurrency'")
  end
end

-- The whole configuration in normal form; or nil and { file =, line =, message = }. file: the
-- name of the chunk it was read from, or nil.
function validate.configuration(config, file)
  local n, e = guarded(function()
    local normal = check.value(config, schema.configuration)
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
      fail("'policies' is a table from names, as they stand in the file, to policies")
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
  local n, e = guarded(check.value, args, spec)
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
  local n, e = check.guarded_for_script(check.value, given, spec)
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
