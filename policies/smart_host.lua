-- Smart host: all mail that a domain's users send outward goes to a given host, by name or by
-- address. See docs/policies/smart_host.md.
--
--     senders = { ["smartmax.example"] = smart_host { "[mail.isp.example]:587", tls = "verify",
--                   auth = { user = "smartmax", password = secret "isp.password" } } }
--
-- A name without brackets is looked up by MX first, then by address; "[name]" and addresses are
-- not. Several are tried in order, or as `balance` says; groups of them one after another. Mail
-- never bounces because a smart host is broken: that is for its operator to mend.
local policy = require "tern.policy"
local route = require "tern.route"
local route_options = require "policies.route_options"

return policy.define {
  name = "smart_host",
  doc = "Sends mail of a sender through a given host.",
  items = { type = "host_or_group" },
  min_items = 1,
  max_items = 64,
  options = route_options.with {
    { name = "balance", type = "enum", values = { "failover", "random", "round_robin" },
      default = "failover", doc = "In which order several hosts are tried, within each group." },
    { name = "null_sender", type = "route_or_mx",
      doc = 'Another route for mail of the null sender (bounces), or "mx": by MX.' },
  },
  make = function(options)
    local hosts = route_options.apply(options, {
      mx = true,
      balance = options.balance,
      on_host_failure = "forever",
      reason = "smart host",
    })
    for i, target in ipairs(options) do hosts[i] = target end
    local to_smart_host = route.hosts(hosts)
    local of_null_sender = options.null_sender
    local by_mx = route_options.by_domain(function(domain)
      return route.mx { domain = domain, reason = "null sender" }
    end)

    return {
      route = function(ctx)
        if not of_null_sender or ctx.message.sender ~= "" then return to_smart_host end
        if of_null_sender ~= "mx" then return of_null_sender end
        local domain = ctx.recipient.domain
        if domain:find "^%[" then return nil end -- an address literal has no MX
        return by_mx(domain)
      end,
    }
  end,
}
