-- Relay to host (hard routing): all mail addressed to a domain goes to given hosts, without
-- looking the domain up. See docs/policies/relay_to_host.md.
--
--     domains = { ["intranet.example"] = relay_to_host { "10.1.2.3:25", "10.1.2.4:25" } }
--
-- No MX query is ever sent for the domain: whether it exists in DNS is irrelevant. Names of
-- hosts are looked up by address.
local policy = require "tern.policy"
local route = require "tern.route"
local recipient_check = require "policies.recipient_check"
local route_options = require "policies.route_options"

return policy.define {
  name = "relay_to_host",
  doc = "Sends mail for a domain to given hosts.",
  items = { type = "host_or_group" },
  min_items = 1,
  max_items = 64,
  options = route_options.with(recipient_check.with {
    { name = "balance", type = "enum", values = { "failover", "random", "round_robin" },
      default = "failover", doc = "In which order several hosts are tried, within each group." },
  }),
  make = function(options)
    local hosts = route_options.apply(options, {
      balance = options.balance,
      reason = "hard route",
    })
    for i, target in ipairs(options) do hosts[i] = target end
    local to_hosts = route.hosts(hosts)

    local check = recipient_check.make(options)

    return {
      rcpt = check and function(ctx) return check(ctx, to_hosts) end,

      route = function()
        return to_hosts
      end,
    }
  end,
}
