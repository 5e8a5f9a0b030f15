-- An example router that harms nobody: it listens on the loopback interface only, and whatever it
-- delivers goes to a sink on the same machine. `scripts/run` builds Tern and starts both; started
-- by hand, from the top of the repository, that is:
--
--     tern sink --listen 127.0.0.1:2526 --dns 127.0.0.1:2553 --zone docs/example/zone
--     tern run -c docs/example/tern.lua
--
-- docs/configuration.md lists every key, docs/policies/ has a page for each of the four policies.

local backup        = require "policies.backup"
local smart_host    = require "policies.smart_host"
local relay_to_host = require "policies.relay_to_host"
local etrn          = require "policies.etrn"
local route         = require "tern.route"

-- The hosts of this demonstration are all the same sink.
local sink = "127.0.0.1:2526"

return {
  hostname = "mx2.isp.example",
  listen   = "127.0.0.1:2525",

  -- Where the queue lives. It is kept when the router stops: start it again, and what had not
  -- been delivered is still there. A real one stands in /var/spool/tern.
  spool = "build/demo",

  -- These clients may send mail to anywhere; all others only to `domains`.
  relay_from = { "127.0.0.0/8", "::1" },

  -- No look-up leaves this machine: the sink answers, from docs/example/zone. Without `servers` the
  -- system's resolvers are asked. A real router never follows an MX to its own machine.
  dns = { servers = "127.0.0.1:2553", timeout = "2s", allow_loopback_mx = true },

  -- A demonstration is impatient: without this table the first pause is a minute, the longest of
  -- a host that is down 15 minutes.
  queue = { retry = "10s,20s,30s...", host_retry = "10s", host_retry_max = "30s" },

  -- ---- mail TO a domain. What stands here is also what strangers may send to.
  domains = {
    -- Backup MX. We are the second MX of this domain: its mail is kept until a better MX is back,
    -- for as long as that takes. Who is better than we are stands in DNS: nothing else has to be
    -- configured. Here (docs/example/zone) the primary is down, and `tern queue` says so.
    ["customer.example"] = backup(),

    -- Relay to host (hard routing). Mail for this domain goes to these hosts and nowhere else;
    -- DNS is not asked. Several hosts are tried in this order.
    ["intranet.example"] = relay_to_host { sink },
    -- The same for all subdomains of branch.example, but not for branch.example itself.
    [".branch.example"] = relay_to_host { sink, balance = "random" },

    -- ETRN. Mail for this domain is kept and goes nowhere until its server says ETRN from one of
    -- these networks, or the operator says `tern etrn shop.example`.
    ["shop.example"] = etrn { deliver_to = sink, allow = { "127.0.0.0/8" } },
  },

  -- ---- mail FROM a sender, where no domain above has the last word.
  senders = {
    -- Smart host. What users of this domain send outward goes to a given host for final delivery.
    ["smartmax.example"] = smart_host { sink },
  },

  -- All other mail would go where the MX of its recipient points. A demonstration must not send
  -- mail into the world: here it goes to the sink too. Remove this line in a router of your own.
  default_route = route.hosts { sink, reason = "demonstration: nothing leaves this machine" },
}
