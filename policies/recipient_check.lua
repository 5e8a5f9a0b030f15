-- Which recipients of a domain there are, said at RCPT: for the policies that take mail for hosts
-- which know better (backup, relay_to_host). See docs/policies/backup.md.
--
-- Whoever is not known not to exist is accepted. A host that is down, slow, or says 4yz is no
-- reason to refuse or to defer: the mail is queued, which is what the router is for.
local tern = require "tern"
local route = require "tern.route"

local recipient_check = {}

-- What the hosts said of recipients: true, or their refusal { code, enhanced, text }. When it is
-- full, refusals go first: they end sooner. So who tries random names cannot push out the others,
-- nor fill the disk.
local answers = tern.kv("recipient_check", { max = 250000 })
-- Whether one of these hosts answers in time: by their addresses.
local alive = tern.kv("primary_is_up", { max = 10000 })
local ALIVE_TTL <const> = "30s"

recipient_check.options = {
  { name = "recipients", type = "recipients",
    doc = 'Which recipients there are: a list of addresses or local parts, a map, a function(ctx) '
      .. 'that says true, false or nil (not known), or "call-forward": the host is asked.' },
  { name = "cache", type = "table", default = {}, doc = "How long answers of the host hold.",
    fields = {
      { name = "positive", type = "duration", default = "31d", doc = "That it takes a recipient." },
      { name = "negative", type = "duration", default = "3h", doc = "That it does not." },
    } },
  { name = "probe_timeout", type = "duration", min = 100, default = "8s",
    doc = "How long the host is waited for." },
  { name = "probe_sender", type = "string", default = "",
    doc = "The sender it is asked with; empty: the null sender." },
}

-- The policy's own options, then those of the check.
function recipient_check.with(own)
  local all = {}
  for _, option in ipairs(own) do all[#all + 1] = option end
  for _, option in ipairs(recipient_check.options) do all[#all + 1] = option end
  return all
end

local function unknown()
  return tern.reject { 550, "5.1.1", "no such user here" }
end

local function names_of(r)
  local local_part = r.local_part:lower()
  return local_part .. "@" .. r.domain, local_part
end

-- ---- lists and maps ----------------------------------------------------------------------------

-- RFC 5321 §4.5.1: postmaster is always there.
local function by_look_up(known)
  return function(ctx)
    local address, local_part = names_of(ctx.recipient)
    if local_part ~= "postmaster" and not known(address) and not known(local_part) then
      return unknown()
    end
  end
end

local function by_list(list)
  local known = {}
  for _, name in ipairs(list) do known[name] = true end
  return by_look_up(function(name) return known[name] end)
end

local function by_function(f)
  return function(ctx)
    local answer = f(ctx)
    if answer == false then return unknown() end
    if answer ~= true then return answer end -- nil: not known; or a verdict of its own
  end
end

-- ---- asking the host ---------------------------------------------------------------------------

-- Some hosts refuse at RCPT what has nothing to do with the recipient (5.7.1: who we are; 5.5.1).
local function subject_of(answer)
  return answer.enhanced and answer.enhanced:match "^5%.(%d+)%." or "0"
end

local function is_about_recipient(answer)
  local subject = subject_of(answer)
  return answer.code >= 500 and (subject == "0" or subject == "1" or subject == "2")
end

local function refusal(answer)
  local text = ("%s said: %s"):format(answer.host, answer.text):gsub("[^\10\32-\126]", "?")
  return {
    answer.code < 560 and answer.code or 550,
    subject_of(answer) == "0" and "5.1.1" or answer.enhanced,
    text:sub(1, 200),
  }
end

local function remember(key, what, ttl)
  if ttl > 0 then answers:set(key, what, { ttl = ttl }) end
end

-- ---- do they answer at all? -------------------------------------------------------------------

local function key_of(hosts)
  local names = {}
  for i = 1, math.min(#hosts, 5) do names[i] = hosts[i].address .. ":" .. hosts[i].port end
  table.sort(names)
  return table.concat(names, " ")
end

-- Asks. Hosts that are up are remembered where that is asked for; those that did not answer in
-- time always, so that a session with a thousand recipients waits for them once. (Those that
-- refuse the connection the engine remembers, and it learns soon when they are back.)
local function probe(options, to, key, recipient)
  local answer, failure = tern.smtp.probe {
    route = to, sender = options.probe_sender, recipient = recipient,
    timeout = options.probe_timeout,
  }
  if not answer and failure.kind == "timeout" then
    alive:set(key, false, { ttl = ALIVE_TTL })
  elseif answer and options.defer_while_primary_is_up and not alive:get(key) then
    alive:set(key, true, { ttl = ALIVE_TTL })
  end
  return answer
end

local function is_up(options, to, key)
  local up = alive:get(key)
  if up == nil then up = probe(options, to, key) ~= nil end
  return up
end

local function call_forward(ctx, options, to, hosts_key)
  local key = names_of(ctx.recipient)
  local known = answers:get(key)
  if known == nil then
    if alive:get(hosts_key) == false then return end
    local answer = probe(options, to, hosts_key, ctx.recipient.address)
    if not answer or answer.stage ~= "RCPT TO" then return end
    if answer.code < 300 then
      remember(key, true, options.cache.positive)
    elseif is_about_recipient(answer) then
      known = refusal(answer)
      remember(key, known, options.cache.negative)
    end
  end
  if type(known) == "table" then return tern.reject(known) end
end

-- ---- all of it ---------------------------------------------------------------------------------

local function is_one_of(hosts, client)
  for _, host in ipairs(hosts) do
    if host.address == client.address then return true end
  end
  return false
end

local function checker(options)
  local recipients = options.recipients
  if recipients == nil then return nil end
  if recipients == "call-forward" then return call_forward end
  if type(recipients) == "table" then return by_list(recipients) end
  if type(recipients) == "function" then return by_function(recipients) end
  return by_look_up(function(name) return recipients:get(name) end)
end

-- From a policy's options: what its `rcpt` hook returns, by a function of ctx, the route to the
-- hosts, and their plan (of route.resolve) where it is known already. nil: there is nothing to
-- check.
function recipient_check.make(options)
  local check = checker(options)
  local defers = options.defer_while_primary_is_up
  local asks = check == call_forward or defers
  if not check and not defers then return nil end
  return function(ctx, to, plan)
    local session = ctx.session
    if asks then
      plan = plan or route.resolve(to)
      -- The hosts themselves: to ask them back would be a loop, and they are where it would go.
      if plan.status == "ok" and not is_one_of(plan.hosts, session.client) then
        local key = key_of(plan.hosts)
        -- Clients that rely on this router have no other one to go to.
        if defers and not session.may_relay and is_up(options, to, key) then
          return tern.defer { 451, "4.3.2",
            "the primary mail host of this domain is up: deliver to it" }
        end
        if check == call_forward then return call_forward(ctx, options, to, key) end
      end
    end
    if check and check ~= call_forward then return check(ctx) end
  end
end

return recipient_check
