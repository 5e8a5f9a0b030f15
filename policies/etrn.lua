-- ETRN (RFC 1985): a domain's mail accumulates and goes nowhere until its server asks for it. We
-- decide by the address that the command came from, and deliver to the domain's mail host. See
-- docs/policies/etrn.md.
--
--     domains = { ["shop.example"] = etrn { deliver_to = "192.0.2.10", allow = "192.0.2.0/24" } }
--
-- Mail goes to deliver_to over a new connection, never to whoever asked, unless deliver_to =
-- "client".
local policy = require "tern.policy"
local route = require "tern.route"
local tern = require "tern"
local route_options = require "policies.route_options"

local function set_of(list)
  if not list then return nil end
  local set = {}
  for _, name in ipairs(list) do set[name] = true end
  return set
end

-- Who may ask, besides the operator and the schedule: all that is given must hold. Nothing given:
-- nobody.
local function judge(options)
  local networks = options.allow and type(options.allow) ~= "function"
    and tern.net.cidr(options.allow) or nil
  local decide = type(options.allow) == "function" and options.allow or nil
  local identities, subjects = set_of(options.identity), set_of(options.certificate)
  if not (networks or decide or identities or subjects) then
    return function() return false end
  end
  return function(ctx)
    local session = ctx.session
    if networks and not networks:contains(session.client.address) then return false end
    if identities and not identities[session.identity or ""] then return false end
    if subjects then
      local tls = session.tls
      if not (tls and tls.verified and subjects[tls.subject or ""]) then return false end
    end
    return not decide or decide(ctx) == true
  end
end

return policy.define {
  name = "etrn",
  doc = "Keeps mail until the domain's server asks for it by ETRN.",
  options = route_options.with({
    { name = "deliver_to", type = "list", of = { type = "target" }, single = true,
      doc = 'Hosts that get the mail, or "client": the address that asked. Without it there is '
        .. "ATRN only." },
    { name = "allow", type = "clients",
      doc = "Networks that may ask, or a function(ctx) that says true. The operator always may." },
    { name = "identity", type = "list", of = { type = "string" }, single = true,
      doc = "Identities that may ask: the session must be authenticated as one of them." },
    { name = "certificate", type = "list", of = { type = "string" }, single = true,
      doc = "Subjects that may ask: the session must have a client's certificate of one of them." },
    { name = "subdomains", type = "boolean", default = false,
      doc = "Lets them ask for the domain and all its subdomains: ETRN @domain." },
    { name = "group", type = "group",
      doc = "Lets them ask for all domains of that group at once: ETRN #group." },
    { name = "window", type = "duration", min = 1000, default = "15m",
      doc = "How long failed deliveries are tried again before the mail is held again." },
    { name = "lifetime", type = "duration", forever = true, min = 1000, default = "30d",
      doc = "How long mail waits before it is returned to its sender." },
    { name = "quota", type = "table",
      doc = "How much may wait for each domain; more is answered 452 4.2.2 at RCPT.", fields = {
        { name = "messages", type = "integer", min = 1,
          doc = "A message to two recipients counts as two." },
        { name = "bytes", type = "size", min = 1024, doc = "Of these messages together." },
        { name = "warn", type = "integer", min = 1, max = 100, default = 80,
          doc = "Percent of either at which the event queue_filling tells." },
      } },
    { name = "schedule", type = "table", doc = "Releases by the clock, without a client.",
      fields = {
        { name = "every", type = "duration", min = 60000, required = true, doc = "How often." },
        { name = "between", type = "between", doc = "Only between these times, local time." },
      } },
  }, { "queue", "key" }),
  make = function(options)
    local not_of_routes = { "certificate" } -- it is the client's here, not one of ours
    local may = judge(options)
    local hosts = options.deliver_to
    local to_client = hosts and hosts[1] == "client"
    -- ATRN brings the mail to who is authenticated: who that is must count.
    local atrn = options.identity or type(options.allow) == "function"
    local to_hosts
    if not hosts and not atrn then
      return nil, "needs 'deliver_to', or 'identity' for ATRN"
    end
    if hosts and not to_client then
      to_hosts = route.hosts(route_options.apply(options,
        { reason = "released by ETRN", table.unpack(hosts) }, not_of_routes))
    end
    -- Each domain has a queue of its own, so that a request for one lets no other go.
    local function queue_of(domain)
      return options.group and options.group .. "/" .. domain or domain
    end
    local quota, schedule = options.quota or {}, options.schedule or {}
    if options.schedule and not to_hosts then
      return nil, "'schedule' needs hosts in 'deliver_to': no client asks then"
    end
    local function part(n) return n and math.max(1, n * quota.warn // 100) end
    local by_domain = route_options.by_domain(function(domain)
      return route.hold(route_options.apply(options, {
        queue = queue_of(domain),
        reason = "waiting for ETRN",
        release_every = schedule.every,
        release_between = schedule.between,
        warn_messages = part(quota.messages),
        warn_bytes = part(quota.bytes),
      }, not_of_routes))
    end)

    -- What waits is known to all workers and after a restart; what this transaction has brought so
    -- far is not there yet. A message that does not tell its size counts when it has come.
    local function is_full(ctx)
      local queue, message = queue_of(ctx.recipient.domain), ctx.message
      local waits = tern.queued(queue)
      local mine = message.data[options] or {}
      local count = mine[queue] or 0
      if quota.messages and waits.waiting + count >= quota.messages
          or quota.bytes and waits.waiting_bytes >= quota.bytes
          or quota.bytes and waits.waiting_bytes + (count + 1) * message.size > quota.bytes then
        return true
      end
      mine[queue] = count + 1
      message.data[options] = mine
      return false
    end

    -- "@" and "#" need grants of their own. No opinion is 459 (or 530), in the same words as for
    -- a domain that is not here at all: a stranger learns nothing.
    local function grants(request)
      if request.kind == "ATRN" then return atrn end
      if not hosts then return false end
      if request.option == "@" then return options.subdomains end
      if request.option == "#" then
        return options.group and request.argument == "#" .. options.group
      end
      return true
    end

    return {
      etrn_identity = options.identity ~= nil or nil,

      route = function(ctx)
        return by_domain(ctx.recipient.domain)
      end,

      rcpt = options.quota and function(ctx)
        if is_full(ctx) then
          return tern.defer { 452, "4.2.2", "too much mail waits for this domain" }
        end
      end or nil,

      etrn = function(ctx)
        local request = ctx.request
        if not grants(request) then return nil end
        if not request.operator and not may(ctx) then return nil end
        local by_name = request.option == "#" and not request.member
        return tern.release {
          queue = not by_name and queue_of(request.domain) or nil,
          deliver_to = to_client and "client" or nil,
          route = to_hosts,
          window = options.window,
          subdomains = request.option == "@",
          group = by_name,
        }
      end,
    }
  end,
}
