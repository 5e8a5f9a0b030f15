-- Headers that are nobody's business outside: removed from mail on its way out. See
-- docs/policies/headers.md.
--
--     policies = { strip_headers { "X-Mailer", "X-Internal-*", received_from = "10.0.0.0/8" } }
--
-- What is not named stays byte for byte as it came. Received fields that this router wrote stay in
-- any case: mail that goes in circles is known by them.
local policy = require "tern.policy"
local tern = require "tern"

-- The names as they are looked up: whole ones, and what those that end in "*" begin with.
local function sort_names(names)
  local whole, beginnings = {}, {}
  for _, name in ipairs(names) do
    local beginning = name:lower():match "^(.*)%*$"
    if beginning then
      beginnings[#beginnings + 1] = beginning
    else
      whole[name:lower()] = true
    end
  end
  return whole, beginnings
end

-- Who gave the mail to the host that wrote this Received: the address behind what it called itself,
-- "from pc7 (pc7.intern [10.1.2.3]) by ..."; nil: it does not say.
local function giver(received)
  local from = received:match "^%s*[Ff][Rr][Oo][Mm]%s(.-)%s[Bb][Yy]%s"
  local address = from and from:match ".*%[([^%[%]]*)%]"
  return address and address:gsub("^[Ii][Pp][Vv]6:", "")
end

local function is_one(networks, address)
  local ok, contained = pcall(function() return networks:contains(address) end)
  return ok and contained
end

return policy.define {
  name = "strip_headers",
  doc = "Removes headers from mail on its way out.",
  items = { type = "string" },
  max_items = 200,
  options = {
    { name = "received_from", type = "list", of = { type = "cidr" }, single = true, default = {},
      doc = "Received fields are removed that tell of a client in one of these networks." },
    { name = "clients", type = "enum", values = { "relaying", "strangers", "all" },
      default = "relaying", doc = "Whose mail: of clients that may relay, of others, or of all." },
  },
  make = function(options)
    local whole, beginnings = sort_names(options)
    local networks = #options.received_from > 0 and tern.net.cidr(options.received_from)

    local function goes(name)
      name = name:lower()
      if whole[name] then return true end
      for _, beginning in ipairs(beginnings) do
        if name:sub(1, #beginning) == beginning then return true end
      end
      return false
    end

    local function strip_received(headers)
      for n = headers:count "Received", 1, -1 do
        local address = giver(headers:get("Received", n))
        if address and is_one(networks, address) then headers:remove("Received", n) end
      end
    end

    return {
      data = function(ctx)
        if options.clients ~= "all"
          and ctx.session.may_relay ~= (options.clients == "relaying") then
          return
        end
        local headers, gone = ctx.message.headers, {}
        for name in headers:each() do
          local key = name:lower()
          if not gone[key] and goes(key) then
            gone[key] = true
            headers:remove(name)
          end
        end
        if networks then strip_received(headers) end
      end,
    }
  end,
}
