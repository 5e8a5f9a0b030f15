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
local recipient_check = require "policies.recipient_check"
local route_options = require "policies.route_options"

return policy.define {
  name = "backup",
  doc = "Keeps mail until a server with a better MX preference is back.",
  options = route_options.with(recipient_check.with {
    { name = "when_best", type = "enum", values = { "bounce", "defer" }, default = "bounce",
      doc = "What happens where we are the best MX ourselves: the mail is returned, or kept." },
    { name = "defer_while_primary_is_up", type = "boolean", default = false,
      doc = "Senders are told to go to the primary (451) as long as it answers." },
  }),
  make = function(options)
    local by_domain = route_options.by_domain(function(domain)
      return route.mx(route_options.apply(options, {
        domain = domain,
        below = "self",
        when_best = options.when_best,
        on_host_failure = "forever",
        reason = "backup MX",
      }))
    end, options)
    local check = recipient_check.make(options)

    return {
      -- What would be known of this mail in the queue is known now, while its sender can be told.
      -- Hosts that cannot be reached are no reason to refuse: that is what a backup is for.
      rcpt = function(ctx)
        local plan = route.resolve(by_domain(ctx.recipient.domain))
        if plan.reason == "not_an_mx" then
          return tern.reject { 550, "5.7.1", "we are not an MX of this domain" }
        elseif plan.reason == "dns_failure" then
          return tern.defer { 451, "4.4.3", plan.reply[3] }
        elseif plan.status == "permanent" then
          return tern.reject(plan.reply)
        end
        return check and check(ctx, by_domain(ctx.recipient.domain), plan)
      end,

      route = function(ctx)
        return by_domain(ctx.recipient.domain)
      end,
    }
  end,
}
