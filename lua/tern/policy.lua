-- tern.policy: policies that take options. A policy's file says what its options are, once:
--
--     return policy.define {
--       name = "backup",
--       options = { { name = "lifetime", type = "duration", default = "forever", doc = "..." } },
--       make = function(options) return { rcpt = function(ctx) ... end } end,
--     }
--
-- and gets what a configuration calls: backup { lifetime = "30d" }. What is wrong in the call is
-- said at the place of the call. Types are those of schema.lua; durations arrive as seconds,
-- sizes as octets. `items` (with min_items, max_items) says what stands in the array part.
local _, native = ...
local validate = require "tern.validate"

local policy = {}

local known = { name = "string", doc = "string", options = "table", items = "table",
  min_items = "number", max_items = "number", make = "function" }

local function check_definition(d)
  if type(d) ~= "table" then return "policy.define takes a table" end
  for key, value in next, d do
    if not known[key] then
      return validate.no_field("the definition of a policy", key,
        { "name", "doc", "options", "items", "min_items", "max_items", "make" })
    end
    if type(value) ~= known[key] then
      return ("policy.define: '%s' must be a %s"):format(key, known[key])
    end
  end
  if not d.name or not d.name:find "^[%w_.-]+$" or not d.make then
    return "policy.define needs name (letters, digits, '_', '-', '.') and make"
  end
  return validate.option_specs(d.options or {}, d.items)
end

-- Both functions run as `guard(f)`: what they return as nil and a message is raised at the caller.
policy.define = native.guard(function(definition)
  local wrong = check_definition(definition)
  if wrong then return nil, wrong end
  local d = {}
  for k, v in next, definition do d[k] = v end
  return native.guard(function(given, extra)
    if extra ~= nil then
      return nil, ("%s takes one argument: write %s { ... }"):format(d.name, d.name)
    end
    local options, message = validate.options(d.name, d, given)
    if not options then return nil, message end
    local p, wrong_together = d.make(options) -- nil and a message: the options do not fit together
    if p == nil and wrong_together then return nil, d.name .. ": " .. wrong_together end
    if native.kind(p) == "table" and rawget(p, "name") == nil then rawset(p, "name", d.name) end
    return p
  end)
end)

return policy
