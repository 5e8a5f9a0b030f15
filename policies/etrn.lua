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

return policy.define {
  name = "etrn",
  doc = "Keeps mail until the domain's server asks for it by ETRN.",
  options = route_options.with {
    { name = "deliver_to", type = "list", of = { type = "target" }, single = true, required = true,
      doc = 'Hosts that get the mail, or "client": the address that asked.' },
    { name = "allow", type = "list", of = { type = "cidr" }, single = true, default = {},
      doc = "Networks that may ask. The operator always may (tern etrn)." },
    { name = "window", type = "duration", min = 1000, default = "15m",
      doc = "How long failed deliveries are tried again before the mail is held again." },
  },
  make = function(options)
    local allowed = tern.net.cidr(options.allow)
    local to_client = options.deliver_to[1] == "client"
    local to_hosts
    if not to_client then
      to_hosts = route.hosts(route_options.apply(options,
        { reason = "released by ETRN", table.unpack(options.deliver_to) }))
    end
    local by_domain = route_options.by_domain(function(domain)
      return route.hold(route_options.apply(options, {
        queue = domain,
        reason = "waiting for ETRN",
      }))
    end)

    return {
      route = function(ctx)
        return by_domain(ctx.recipient.domain)
      end,

      etrn = function(ctx)
        local request = ctx.request
        -- No opinion is 459, in the same words as for a domain that is not here at all: a stranger
        -- learns nothing. "@" and "#" need grants of their own, which this policy does not give.
        if request.option then return nil end
        if not request.operator and not allowed:contains(ctx.session.client.address) then
          return nil
        end
        return tern.release {
          queue = options.queue or request.domain,
          deliver_to = to_client and "client" or nil,
          route = to_hosts,
          window = options.window,
        }
      end,
    }
  end,
}
