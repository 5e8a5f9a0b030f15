-- Backup MX: keeps a domain's mail and tries the hosts whose MX preference is lower (better)
-- than our own, for as long as it takes until one is back. See docs/policies/backup.md.
--
--     domains = { ["example.com"] = backup() }
--
-- Failures of the host (it is down, or says 421) never end it. What a primary that is alive says
-- of a message or a recipient counts as anywhere else: 4yz is tried again by the schedule, 5yz
-- is returned at once.
local policy = require "tern.policy"
local route = require "tern.route"
local tern = require "tern"
local route_options = require "policies.route_options"

-- RFC 7505: the domain says that it takes no mail at all.
local function is_null_mx(records)
  return #records == 1 and records[1].host == ""
end

return policy.define {
  name = "backup",
  doc = "Keeps mail until a server with a better MX preference is back.",
  options = route_options.with {
    { name = "when_best", type = "enum", values = { "bounce", "defer" }, default = "bounce",
      doc = "What happens where we are the best MX ourselves: the mail is returned, or kept." },
  },
  make = function(options)
    local by_domain = route_options.by_domain(function(domain)
      return route.mx(route_options.apply(options, {
        domain = domain,
        below = "self",
        when_best = options.when_best,
        on_host_failure = "forever",
        reason = "backup MX",
      }))
    end)

    return {
      rcpt = function(ctx)
        local records, failure = tern.dns.mx(ctx.recipient.domain)
        if records and is_null_mx(records) then
          return tern.reject { 556, "5.1.10", "this domain does not accept mail" }
        end
        if failure and failure.kind == "nxdomain" then
          return tern.reject { 550, "5.1.2", "this domain does not exist" }
        end
      end,

      route = function(ctx)
        return by_domain(ctx.recipient.domain)
      end,
    }
  end,
}
