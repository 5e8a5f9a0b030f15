-- The reference pages and the editor's definitions, made from schema.lua by scripts/reference:
-- docs/configuration.md, docs/hooks.md, lua/stubs/tern.lua. Plain Lua; needs only the schema.
local schema = require "tern.schema"

local reference = {}

local made = "<!-- Made by scripts/reference from lua/tern/schema.lua. Change that, not this. -->\n"

-- ---- words for types ---------------------------------------------------------------------------

local words = {
  string = "text", text = "text", path = "path", domain = "host name", boolean = "true or false",
  integer = "number", duration = "duration", size = "size", ip = "IP address",
  endpoint = "address with port", listen_address = "address with port, or path",
  file_mode = "mode", group_name = "name", cidr = "network", schedule = "schedule",
  workers = "number",
  route = "route", policy = "policy", target = "host", lmtp = "path or host", queue = "text",
  enhanced = "enhanced code", listen = "see below", domains = "table, map or function",
  senders = "table, map or function", recipients = "list, map or function", table = "table",
  clients = "list: network, or a function", group = "name", between = "two times of the day",
  hours = "hours", row_policy = "policy or function", row_policies = "table of policies",
  host_or_group = "host, or list of hosts", default_route = "route or policy", auth = "table",
  password = "text or secret", user = "text",
  password_entry = "text", rate = "rate", source = "IP address",
  sources = "table, see below", certificate = "table, see below", sni = "host name",
  route_or_mx = 'route, or `"mx"`',
}

local function type_words(f)
  if f.type == "enum" then
    local values = {}
    for i, v in ipairs(f.values) do values[i] = '`"' .. v .. '"`' end
    return table.concat(values, ", ")
  end
  if f.type == "list" then
    local of = type_words(f.of)
    return f.of.type == "listen" and "list, see below" or "list: " .. of
  end
  local text = words[f.type] or f.type
  if f.type == "workers" then text = 'number, or `"auto"`' end
  if f.forever then text = text .. ', or `"forever"`' end
  if f.never then text = text .. ', or `"never"`' end
  return text
end

local function cell(text)
  return (text:gsub("|", "\\|"):gsub("\n", " "))
end

local function code(text)
  return "`" .. text .. "`"
end

local function default_words(f)
  if f.required then return "required" end
  if not f.default then return "" end
  local plain = f.default:find "^the " or f.default:find " in " or f.default:find " with "
  return plain and f.default or code(f.default)
end

-- A table of fields; fields that have fields of their own are left to the caller.
local function field_rows(fields, prefix)
  local rows = { "| key | value | default | what it is |", "|---|---|---|---|" }
  for _, f in ipairs(fields) do
    if not f.later and not f.fields then
      rows[#rows + 1] = ("| %s | %s | %s | %s |"):format(code((prefix or "") .. f.name),
        cell(type_words(f)), cell(default_words(f)), cell(f.doc or ""))
    end
  end
  return #rows > 2 and table.concat(rows, "\n") .. "\n" or ""
end

-- ---- docs/configuration.md ----------------------------------------------------------------------

local configuration_head = [[
# Configuration

The configuration is a Lua file that returns a table; by default `/etc/tern/tern.lua`. `tern
check` reads it and says what is wrong, with file and line. A key that is not listed here is an
error.

Durations are written `"500ms"`, `"30s"`, `"15m"`, `"2h"`, `"5d"`, `"1w"`, or as a number of
seconds; sizes `"64K"`, `"50M"`, `"1G"`, or as a number of octets. A list of one may be written
without braces.

`require` finds modules beside the file, then in its `policies/`, then in the program (the
policies that come with Tern: `require "policies.backup"`). Names have letters, digits, `_` and
`-`, in parts joined by dots. `secret "name"` stands for the text of the file `secrets/name`
beside the configuration, which must be closed to all but the daemon's user; it never prints.
Everything is read when the configuration is loaded, and not again before the next `tern reload`
(but for the password file, see [authentication](authentication.md), and maps).

## The top

]]

local configuration_tail = [[
## What is kept from scripts

No `io`, `debug`, `package`, `dofile`, `loadfile`, no bytecode, no finalizers (`__gc`), of `os`
only `time`, `date`, `clock` and `difftime`. Global variables cannot be assigned. Time and chance
come from the router, so that they can be simulated: `os.time()` without argument and `tern.now()`
work in hooks only. A hook has `timeouts.hook` in all, `limits.hook_cpu` of processor time and
`limits.hook_memory` of memory between two waits, and all scripts of a worker share
`limits.script_memory`. String patterns are given up
after a number of steps, `string.rep` makes at most 1 MiB, one call of `table.move`, `insert` or
`remove` moves at most a million items, `table.sort` sorts at most 200,000.
]]

function reference.configuration()
  local out = { made, configuration_head, field_rows(schema.configuration.fields) }
  for _, f in ipairs(schema.configuration.fields) do
    if f.name == "listen" then
      out[#out + 1] = "\n## listen\n\nA list of addresses with ports and paths of Unix sockets, or "
        .. "of tables: their items are such, and they may have\n\n"
        .. field_rows(schema.listen.fields)
      out[#out + 1] = '\n```lua\nlisten = {\n  "0.0.0.0:25", "[::]:25",\n  { "0.0.0.0:587", '
        .. 'service = "submission" },\n  { "0.0.0.0:465", service = "submission", '
        .. 'tls = "implicit" },\n  { "/run/tern/lmtp.sock", service = "lmtp", group = "postfix" },'
        .. '\n}\n```\n'
    elseif f.name == "sources" then
      out[#out + 1] = "\n## sources\n\nA table from addresses of this machine to what each may "
        .. "do.\n\n" .. field_rows(schema.source.fields)
      out[#out + 1] = '\n```lua\nsources = {\n  ["192.0.2.1"] = { hostname = "out1.isp.example", '
        .. 'concurrency = 50 },\n  ["192.0.2.9"] = { hostname = "out9.isp.example", '
        .. 'rate = "1000/d" },\n}\n```\n'
    elseif f.fields and not f.later then
      out[#out + 1] = ("\n## %s\n\n%s\n\n%s"):format(f.name, f.doc, field_rows(f.fields))
      if f.name == "tls" then
        out[#out + 1] = "\nEach of `certificates` has\n\n"
          .. field_rows(schema.certificate.fields)
          .. "\nWho asks for a name that none of them has, or for none, gets `cert`; where there "
          .. "is no `cert`, the first of them. See [TLS](tls.md).\n"
      end
    end
  end
  out[#out + 1] = "\n" .. configuration_tail
  return table.concat(out)
end

-- ---- docs/hooks.md ------------------------------------------------------------------------------

local hooks_head = [[
# Hooks

A policy is a table of functions, its hooks. Each gets one argument, `ctx`, and returns one value,
or nothing for *no opinion*. Asked are, in this order: the policy of the recipient's domain
(`domains`), those in `policies`, the sender's (`senders`), then the default applies. The first
that says something wins. `data` asks each policy once for a message, whatever the number of
recipients: those of the domains that were accepted, then `policies`, then the sender's.
`connect`, `helo` and `event` ask `policies` only, `mail` asks no domain's. Mail to a domain that
stands in `domains` never gets its route from the sender's policy.

A policy may have a `name`, for messages and the log; without one it has that of its file.
Anything else in it is an error. [writing.md](policies/writing.md) shows how one is written.

## When each is called

]]

local hooks_rules = [[

A hook that fails (an error, a budget used up, a value that it may not return) gets the failure
action `on_error` of the [configuration](configuration.md). The error is told in the log as
`policy_error`, with its traceback the first time, then when it has come 10, 100, ... times. What
fails because the machine has no memory left defers where others would reject.

## What ctx holds

These are handles, good while their hook runs; used later they raise an error. A field that is not
there is an error with the nearest name. What is nil is marked by `?`.

]]

local headers_part = [[
## Changing headers

```lua
data = function(ctx)
  local headers = ctx.message.headers
  headers:remove "X-Spam-Flag" -- whatever the outside says
  if (headers:decoded "Subject" or ""):lower():find("viagra", 1, true) then
    headers:add("X-Spam-Flag", "YES")
  end
end
```
What no hook asks for is not rewritten: a message that none changed is passed on byte for byte as
it came, below our Received; in one that was changed, all other fields and the body are, with
their order, their folding and the blanks at their ends. So a DKIM signature still verifies unless
a field that it covers was changed. Lines that are no fields are kept as they are; the first of
them ends the headers, for hooks too, and what is added stands before it.

- **Several policies** see the same headers one after another, each with what those before it have
  changed. What a hook changed that fails (an error, a budget) is undone; what `on_error` says
  decides what becomes of the message. When it is refused in the end, nothing has been changed.
- **Names** are printable ASCII without blanks and colon. **Values** may not contain CR, LF or
  NUL, so no second field can be smuggled in; anything else is an error of the script, told with
  its line.
- **Long values** are folded at their blanks, to 78 columns where that is possible; a word that
  does not fit into a line of 998 octets is refused.
- **Beyond ASCII** a value must be UTF-8. In mail that came with SMTPUTF8 it stands as it is; in
  other mail it becomes encoded words (RFC 2047). In fields with a grammar of their own
  (addresses, dates, ids, `Content-...`) that is refused: write the parts that may be encoded by
  `tern.mime.encode`.
- **Received** fields that this router wrote (`by` and its `hostname`) stay when others are
  removed, and replacing one is an error: mail that goes in circles is known by them. All have been
  counted when the message came, before the hooks.
- **Limits** for one message: 500 changes, 64 KiB of fields added, 2000 fields and 256 KiB in all.
- Mail that is binary (BODY=BINARYMIME) has headers of lines like any other; its body is never
  touched.
- What was changed, and at which line, is in the log (`headers_changed`), in `tern why`, in `tern
  explain --message FILE`, and in tests (`w:queue()[1].changes`).

]]

local functions_head = [[
## What hooks can call

Modules are got by `require`; `tern.dns`, `tern.log`, `tern.net`, `tern.json`, `tern.map`,
`tern.mime`, `tern.smtp` and `tern.route` are fields of `tern` too. Functions that wait suspend the
hook only; all else goes on. They cannot wait in a callback of `string.gsub` or `table.sort`, and
not in a coroutine of the script's own.

| function | gives | what it does |
|---|---|---|
]]

local policies_part = [[

## Policies with options

```lua
-- policies/greet.lua
local policy = require "tern.policy"
local tern   = require "tern"

return policy.define {
  name = "greet",
  options = {
    { name = "refuse", type = "list", of = { type = "domain" }, single = true, default = {} },
    { name = "wait", type = "duration", default = "2s", doc = "before the first word" },
  },
  make = function(options)
    return {
      connect = function(ctx) tern.sleep(options.wait) end,
    }
  end,
}
```
`require "policies.greet"` is then a function from options to a policy: `greet { wait = "5s" }`.
What is wrong with the options is said at the place of that call. An option has a `name`, a
`type`, and if need be `default`, `required`, `min`, `max`, `doc`. Types:
%s;
`enum` (with `values`), `list` (with `of`; `single = true`: one value stands for a list), `table`
(with `fields`). Durations arrive as seconds, sizes as octets, all else as it is written.
`items = { type = ... }` (with `min_items`, `max_items`) beside `options` says what stands in the
array part: `greet { "a", "b" }`.
]]

local function list_words(names)
  local all = {}
  for i, n in ipairs(names) do all[i] = code(n) end
  return #all > 0 and table.concat(all, ", ") or "nothing"
end

local function hook_rows()
  local rows = { "| hook | when | `ctx` holds | may return |\n|---|---|---|---|\n" }
  for _, h in ipairs(schema.hooks) do
    rows[#rows + 1] = ("| `%s` | %s | %s | %s |\n"):format(h.name, cell(h.when),
      list_words(h.ctx), list_words(h.returns))
  end
  return table.concat(rows)
end

local function object_part(o)
  local rows = { ("### %s\n\n%s\n\n| field | type | what it is |\n|---|---|---|\n"):format(o.name,
    o.doc) }
  for _, f in ipairs(o.fields) do
    rows[#rows + 1] = ("| `%s` | `%s` | %s |\n"):format(f[1], cell(f[2]), cell(f[3]))
  end
  return table.concat(rows) .. "\n"
end

local function constructor_part(c)
  local out = { ("### %s\n\n%s\n"):format(c.name, c.doc) }
  local spec = c.spec or { fields = c.fields }
  if spec.type == "reply" then
    local d = spec.default
    out[#out + 1] = ("\n`%s { code, enhanced code, text }`; %s\n"):format(c.name, d[1] == 0
      and "all may be left out." or ('left out: `{ %d, "%s", "%s" }`.'):format(d[1], d[2], d[3]))
  end
  local rows = field_rows(spec.fields)
  if rows ~= "" then out[#out + 1] = "\n" .. rows end
  return table.concat(out) .. "\n"
end

-- Options that each of these constructors has are listed once.
local function split_common(constructors)
  local seen, n = {}, 0
  for _, c in ipairs(constructors) do
    if c.name:find "^route%.[mhl]" then
      n = n + 1
      for _, f in ipairs(c.spec.fields) do seen[f.name] = (seen[f.name] or 0) + 1 end
    end
  end
  local common, plain = {}, {}
  for _, c in ipairs(constructors) do
    local copy = {}
    for k, v in pairs(c) do copy[k] = v end
    if c.name:find "^route%.[mhl]" then
      local own, all = {}, {}
      for _, f in ipairs(c.spec.fields) do
        if seen[f.name] == n then all[#all + 1] = f else own[#own + 1] = f end
      end
      if #common == 0 then common = all end
      copy.spec = { type = c.spec.type, fields = own }
      copy.doc = c.doc .. " Takes the options of every route."
    end
    plain[#plain + 1] = copy
  end
  return plain, common
end

local function type_names()
  local names = {}
  for name in pairs(words) do
    if name ~= "listen" and name ~= "domains" and name ~= "senders" and name ~= "recipients"
        and name ~= "sources" and name ~= "certificate" and name ~= "table"
        and name ~= "workers" and name ~= "enhanced" then
      names[#names + 1] = code(name)
    end
  end
  table.sort(names)
  return table.concat(names, ", ")
end

local function function_rows()
  local rows = {}
  for _, f in ipairs(schema.functions) do
    local call = f[3] and ("%s.%s(%s)"):format(f[1], f[2], f[3]) or f[1] .. "." .. f[2]
    local gives = f[4] ~= "" and code(f[4]) or ""
    if f.failure then gives = gives .. "; or " .. code(f.failure) end
    rows[#rows + 1] = ("| `%s` | %s | %s%s |\n"):format(cell(call), cell(gives), cell(f[5]),
      f.waits and f[5] ~= "waits" and " (waits)" or "")
  end
  return table.concat(rows)
end

function reference.hooks()
  local out = { made, hooks_head, hook_rows(), hooks_rules }
  for _, o in ipairs(schema.objects) do out[#out + 1] = object_part(o) end
  out[#out + 1] = "## What hooks return\n\n`local tern, route = require \"tern\", require "
    .. "\"tern.route\"`\n\n"
  local constructors, common = split_common(schema.constructors)
  for _, c in ipairs(constructors) do out[#out + 1] = constructor_part(c) end
  out[#out + 1] = "### Options of every route\n\n" .. field_rows(common) .. "\n"
  out[#out + 1] = "### auth\n\nWho we are to a host. The password stands in no message, log or "
    .. "spool.\n\n" .. field_rows(schema.auth.fields) .. "\n"
  out[#out + 1] = "### Groups of hosts\n\nA list of hosts that stands for a host may have these "
    .. "keys; they hold for its hosts instead of the route's.\n\n"
    .. field_rows(schema.group.fields) .. "\n"
  out[#out + 1] = headers_part .. functions_head .. function_rows()
  for _, a in ipairs(schema.arguments) do
    out[#out + 1] = ("\n### Options of %s\n\n%s"):format(a.name, field_rows(a.fields))
  end
  out[#out + 1] = policies_part:format(type_names())
  return table.concat(out)
end

-- ---- lua/stubs/tern.lua: definitions for LuaLS --------------------------------------------------

local stub_types = {
  boolean = "boolean", integer = "integer", duration = "string|number", size = "string|integer",
  table = "table", route = "tern.Route", policy = "tern.Policy", number = "number",
  workers = "string|integer", domains = "table<string, tern.Policy|tern.Route>|tern.Map|function",
  senders = "table<string, tern.Policy|tern.Route>|tern.Map|function",
  listen = "string|tern.Listen", sources = "table<string, tern.Source>",
}

local function stub_type(f)
  if f.type == "enum" then
    local values = {}
    for i, v in ipairs(f.values) do values[i] = '"' .. v .. '"' end
    return table.concat(values, "|")
  end
  if f.type == "list" then
    local of = stub_type(f.of)
    return of:find "|" and ("(%s)[]|%s"):format(of, of) or of .. "[]|" .. of
  end
  return stub_types[f.type] or "string"
end

local function class_name(name)
  return "tern." .. name:gsub("^%l", string.upper):gsub("[._](%l)", string.upper)
end

-- One class, and those of its tables before it.
local function stub_class(out, name, fields, items)
  for _, f in ipairs(fields) do
    if f.fields and not f.later then stub_class(out, name .. "." .. f.name, f.fields) end
  end
  out[#out + 1] = "---@class " .. class_name(name) .. "\n"
  if items then out[#out + 1] = "---@field [integer] " .. stub_type(items) .. "\n" end
  for _, f in ipairs(fields) do
    if not f.later then
      local t = f.fields and class_name(name .. "." .. f.name) or stub_type(f)
      out[#out + 1] = ("---@field %s%s %s %s\n"):format(f.name, f.required and "" or "?", t,
        f.doc and f.doc:gsub("\n", " ") or "")
    end
  end
  out[#out + 1] = "\n"
end

-- "session?" in the schema is tern.Session? here; plain types stay.
local function object_type(t, known)
  local bare, maybe = t:match "^(%a+)(%??)$"
  if bare and known[bare] then return class_name(bare) .. maybe end
  if t:find "^{" then return "table" .. (t:find "%?$" and "?" or "") end
  return t
end

local function stub_objects(out)
  local known = {}
  for _, o in ipairs(schema.objects) do known[o.name] = true end
  for _, o in ipairs(schema.objects) do
    out[#out + 1] = ("--- %s\n---@class %s\n"):format(o.doc, class_name(o.name))
    for _, f in ipairs(o.fields) do
      out[#out + 1] = ("---@field %s %s %s\n"):format(f[1], object_type(f[2], known), f[3])
    end
    out[#out + 1] = "\n"
  end
end

local function stub_policy(out)
  out[#out + 1] = "---@class tern.Policy\n---@field name? string\n"
  for _, h in ipairs(schema.hooks) do
    local returns = {}
    for _, r in ipairs(h.returns) do
      returns[r:find "^route" and "tern.Route" or "tern.Verdict"] = true
    end
    local names = {}
    for r in pairs(returns) do names[#names + 1] = r end
    table.sort(names)
    out[#out + 1] = ("---@field %s? fun(ctx: tern.Ctx)%s %s\n"):format(h.name,
      #names > 0 and ": " .. table.concat(names, "|") .. "|nil" or "", h.when)
  end
  out[#out + 1] = "\n"
end

local function stub_constructors(out, module)
  for _, c in ipairs(schema.constructors) do
    local of, name = c.name:match "^(%a+)%.(%a+)$"
    if of == module then
      local spec = c.spec or { fields = c.fields }
      local arg = class_name(c.name .. ".options")
      if #spec.fields > 0 or spec.items or spec.type == "reply" then
        stub_class(out, c.name .. ".options", spec.fields, spec.items
          or spec.type == "reply" and { type = "enum", values = {} } or nil)
        out[#out] = out[#out]
      end
      local has = #spec.fields > 0 or spec.items or spec.type == "reply"
      out[#out + 1] = ("--- %s\n%s---@return %s\nfunction %s.%s(%s) end\n\n"):format(c.doc,
        has and ("---@param options? %s\n"):format(arg) or "",
        module == "route" and "tern.Route" or "tern.Verdict", module, name,
        has and "options" or "")
    end
  end
end

function reference.stubs()
  local out = { "---@meta\n-- luacheck: ignore\n-- Made by scripts/reference from "
    .. "lua/tern/schema.lua: change that, not this.\n-- For editors (LuaLS); never run.\n\n" }
  stub_class(out, "listen", schema.listen.fields, schema.listen.items)
  stub_class(out, "certificate", schema.certificate.fields)
  stub_class(out, "source", schema.source.fields)
  stub_class(out, "configuration", schema.configuration.fields)
  stub_objects(out)
  stub_policy(out)
  out[#out + 1] = "---@class tern.Route\n---@class tern.Verdict\n\nlocal tern, route = {}, {}\n\n"
  stub_constructors(out, "tern")
  stub_constructors(out, "route")
  local modules = {}
  for _, f in ipairs(schema.functions) do
    local module = f[1]
    if module ~= "tern" and not modules[module] then
      modules[module] = true
      out[#out + 1] = module .. " = {}\n\n"
    end
    out[#out + 1] = f[3] and ("--- %s -> %s: %s\nfunction %s.%s(...) end\n\n"):format(f[3], f[4],
      f[5], module, f[2]) or ("---@type string %s\n%s.%s = nil\n\n"):format(f[5], module, f[2])
  end
  out[#out + 1] = "tern.route = route\n\nreturn tern\n"
  return (table.concat(out):gsub("%[integer%] \n", "[integer] string|integer\n"))
end

-- Path in the tree -> its text.
function reference.files()
  return {
    ["docs/configuration.md"] = reference.configuration(),
    ["docs/hooks.md"] = reference.hooks(),
    ["lua/stubs/tern.lua"] = reference.stubs(),
  }
end

return reference
