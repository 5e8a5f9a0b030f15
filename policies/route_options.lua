-- Options that each of the four policies takes, because each of them makes routes: how long, how
-- often, how many at once. See docs/policies/ for what they mean.
local route = require "tern.route"

local route_options = {}

local shared = {
  { name = "queue", type = "queue",
    doc = "Name of the queue; default: from the domain or the hosts." },
  { name = "retry", type = "schedule",
    doc = 'Pauses between attempts, such as "1m,5m,15m*4,1h..."; default: queue.retry.' },
  { name = "lifetime", type = "duration", forever = true, min = 1000,
    doc = "How long mail is kept that cannot be delivered; default: queue.lifetime." },
  { name = "warn_after", type = "duration", never = true,
    doc = "When the sender is told of a delay; default: queue.warn_after." },
  { name = "concurrency", type = "integer", min = 1, max = 10000,
    doc = "Connections at once; default: from queue.concurrency up to queue.max_concurrency." },
  { name = "tls", type = "enum", values = { "opportunistic", "none", "require", "verify", "dane" },
    default = "opportunistic", doc = "How TLS is used with the next host." },
  { name = "auth", type = "auth", secret = true,
    doc = "Who we are to the next host: { user =, password = }." },
  { name = "certificate", type = "path",
    doc = "PEM file: our certificate for the next host; TLS is then required at least." },
  { name = "key", type = "path",
    doc = "PEM file: its private key; default: it is in the file of the certificate." },
  { name = "rate", type = "rate",
    doc = 'Messages in a time, such as "100/m"; evenly, or with a burst: "100/m,burst=20".' },
  { name = "source", type = "list", of = { type = "source" }, single = true, max = 64,
    doc = "Local address to connect from, or a list of them." },
  { name = "reason", type = "text", doc = "Why, for people: shown with the queue." },
}

local names = {}
for i, option in ipairs(shared) do names[i] = option.name end

-- The policy's own options, then the shared ones, but for those in `without` and those that the
-- policy has words of its own for.
function route_options.with(own, without)
  local all, has = {}, {}
  for _, name in ipairs(without or {}) do has[name] = true end
  for _, option in ipairs(own) do all[#all + 1], has[option.name] = option, true end
  for _, option in ipairs(shared) do
    if not has[option.name] then all[#all + 1] = option end
  end
  return all
end

-- Arguments for a constructor of routes: `own`, and what was given of the shared options, but for
-- those in `without`, by which the policy means something else.
function route_options.apply(options, own, without)
  local skip = {}
  for _, name in ipairs(without or {}) do skip[name] = true end
  for _, name in ipairs(names) do
    if options[name] ~= nil and not skip[name] then own[name] = options[name] end
  end
  return own
end

-- A function from a domain to its route: made by `make` once, then remembered. Bounded, because
-- strangers can make up domains where the key is a pattern. A certificate of `options` is named
-- now, while files can be read, by a route that nothing uses.
function route_options.by_domain(make, options)
  local routes, count = {}, 0
  if options and (options.certificate or options.key) then
    route.hold { certificate = options.certificate, key = options.key, tls = options.tls }
  end
  return function(domain)
    local r = routes[domain]
    if not r then
      if count >= 1000 then routes, count = {}, 0 end
      r = make(domain)
      routes[domain], count = r, count + 1
    end
    return r
  end
end

return route_options
