-- The one table of what operators can write: configuration keys, hooks, what ctx holds,
-- constructors, functions. Validation, hints, the reference pages and the editor definitions are
-- made from it. Long, because it is one table that is read like a page and holds no logic.
--
-- A field is { name, type, doc = , default = , required = , ... }; `default` is for people (the
-- values that C uses stand in core/engine/settings.c; a test compares them). Types are in
-- check.lua and validate.lua: plain ones by name, and list (of), table (fields), tuple. `single`:
-- one value may stand for a list. `later`: part of the contract, and not in this version yet.
local schema = {}

local function enum(values)
  return { type = "enum", values = values }
end

local function list(of, more)
  local t = { type = "list", of = of, single = true }
  for k, v in pairs(more or {}) do t[k] = v end
  return t
end

local function field(name, spec, more)
  local t = type(spec) == "table" and spec or { type = spec }
  for k, v in pairs(more) do t[k] = v end
  t.name = name
  return t
end

-- ---- the configuration -------------------------------------------------------------------------

schema.configuration = {
  type = "table",
  fields = {
    field("hostname", "domain", { required = true, example = '"mx.example.com"',
      doc = "The name of this router: in its greeting, in EHLO, in Received headers." }),
    field("spool", "path", { default = '"/var/spool/tern"',
      doc = "The folder of the queue. It must be on a local file system." }),
    field("control", "path", { default = "control.sock in the spool",
      doc = "The Unix socket by which the command line reaches the daemon." }),
    field("log", "string", { default = '"stdout"', doc = '"stdout", or a file to append to.' }),
    field("user", "string", { default = '"tern"',
      doc = "Whom the router becomes when root starts it, after its ports are bound; see "
        .. '[security](security.md). "root": it stays root. Started by another user it stays that '
        .. "one." }),
    field("sandbox", "boolean", { default = "true",
      doc = "Once started, the router keeps to the system calls, files and folders that it needs; "
        .. "see [security](security.md)." }),
    field("core_dumps", "boolean", { default = "false",
      doc = "A crash may leave a core file, which holds mail and passwords." }),
    field("workers", "workers", { default = '"auto"',
      doc = 'How many threads do the work; "auto": one for each processor.' }),
    field("listen", "list", { of = { type = "listen" }, single = true, max = 64,
      default = '{ "0.0.0.0:25", "[::]:25" }',
      doc = 'Where to listen: addresses with ports, or tables of them with options.' }),
    field("tls", "table", { doc = "Certificate of the listeners, and whom to trust.", fields = {
      field("cert", "path", { doc = "PEM file: the certificate, then the intermediate ones." }),
      field("key", "path", { doc = "PEM file: the private key." }),
      field("ca", "path", { default = "the system's",
        doc = "PEM file of authorities, for the certificates of hosts." }),
      field("certificates", "list", { of = { type = "certificate" }, max = 256,
        doc = "More certificates, chosen by the name that a client asks for (SNI); see below." }),
      field("client_ca", "path", {
        doc = "PEM file of authorities, for the certificates of clients, which are then asked for "
          .. "one; see `client_certificates` of [listen](#listen)." }),
    } }),
    field("auth", "table", {
      doc = "How clients authenticate (AUTH); see [authentication](authentication.md).", fields = {
        field("passwords", "path", {
          doc = "File of users and password entries, `user:entry` a line; relative to the "
            .. "configuration." }),
        field("mechanisms", list(enum { "PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5" }), {
          default = "what every entry of the file serves; without one PLAIN and LOGIN",
          doc = "What is offered." }),
        field("without_tls", "boolean", { default = "false",
          doc = "PLAIN and LOGIN also in clear: passwords cross the wire for all to read." }),
        field("attempts", "integer", { default = "3", min = 1, max = 100,
          doc = "Failed ones until a session is ended." }),
      } }),
    field("dns", "table", { doc = "The resolvers.", fields = {
      field("servers", list { type = "endpoint", port = 53 }, { default = "the system's",
        doc = "Addresses of resolvers, with a port where it is not 53." }),
      field("timeout", "duration", { default = '"10s"', min = 1,
        doc = "For one look-up, tries included." }),
      field("trust_ad", "boolean", { default = "false",
        doc = "Believes resolvers on other machines, too, that an answer is secure (DNSSEC). "
          .. "Those on a loopback address are always believed. For `tls = \"dane\"`." }),
      field("allow_loopback_mx", "boolean", { default = "false",
        doc = "Lets an MX point to this machine, for tests and demonstrations." }),
    } }),
    field("relay_from", list { type = "cidr" }, { default = "{}",
      doc = "Clients that may relay to any domain." }),
    field("priority_from", list { type = "cidr" }, { default = "{}",
      doc = "Clients whose MT-PRIORITY counts, besides those that may relay. That of others is "
        .. "lowered to 0, and they are told." }),
    field("xclient_from", list { type = "cidr" }, { default = "{}",
      doc = "Clients (filters, proxies) that may say by XCLIENT who the client is: what they say "
        .. "counts for `relay_from`, for policies and in logs. Nobody else is offered it." }),
    field("self", "table", { doc = "What else is this router, besides its name and addresses.",
      fields = {
        field("names", list { type = "domain" }, { doc = "Further names, as they stand in MX." }),
        field("addresses", list { type = "ip" },
          { doc = "Further addresses, such as those outside of a NAT." }),
      } }),
    field("sources", "sources", { default = "{}",
      doc = 'What each local address may do in all, over all workers, where a route names it as '
        .. '`source`: keys are addresses, as in `{ ["192.0.2.1"] = { hostname = "out1.example.com" '
        .. "} }`; see [sources and rates](sources.md)." }),
    field("clients", "table", {
      doc = "What one client may do, counted over all workers and listeners. A client is an "
        .. "address, or the network of it that these prefixes say. What is too much is refused "
        .. "for now (421 or 450 4.7.0), never for good; see [defence](defence.md).",
      fields = {
        field("connections", "integer", { default = "100", max = 1000000,
          doc = "At once; 0: any number." }),
        field("connection_rate", "rate", { default = "nil",
          doc = 'Connections in a time, such as "60/m" or "60/m,burst=20"; nil: any number.' }),
        field("message_rate", "rate", { default = "nil", doc = "Messages (MAIL) in a time." }),
        field("recipient_rate", "rate", { default = "nil", doc = "Recipients (RCPT) in a time." }),
        field("ipv4_prefix", "integer", { default = "32", min = 8, max = 32,
          doc = "Bits of an IPv4 address that make a client." }),
        field("ipv6_prefix", "integer", { default = "64", min = 16, max = 128,
          doc = "Bits of an IPv6 address that make a client." }),
        field("exempt", list { type = "cidr" }, { default = '{ "127.0.0.0/8", "::1" }',
          doc = "Clients to which none of this applies, nor `greeting_delay`." }),
      } }),
    field("limits", "table", { doc = "How much of everything.", fields = {
      field("message_size", "size", { default = '"50M"', min = 1024,
        doc = "Of a message; told to clients by SIZE." }),
      field("recipients", "integer", { default = "1000", min = 100,
        doc = "Of one transaction (RFC 5321 §4.5.3.1.8: at least 100). Clients are told by "
          .. "LIMITS." }),
      field("messages", "integer", { default = "0", min = 0,
        doc = "MAIL commands in one session; the next one gets 421. 0: any number. Clients are "
          .. "told by LIMITS." }),
      field("sessions", "integer", { default = "10000", min = 1, doc = "At once, per worker." }),
      field("errors", "integer", { default = "20", min = 1,
        doc = "Rejected commands before a session is ended." }),
      field("stress", "integer", { default = "80", min = 1, max = 100,
        doc = "Percentage of `sessions` from which a worker is under stress: `timeouts.stress` and "
          .. "`stress_errors` apply until it has a tenth of `sessions` less." }),
      field("stress_errors", "integer", { default = "3", min = 1,
        doc = "As `errors`, under stress." }),
      field("memory", "size", { default = '"256M"', min = 1024 * 1024,
        doc = "Of all messages that are being received, for each worker." }),
      field("received_headers", "integer", { default = "100", min = 1,
        doc = "More Received headers than this are a loop." }),
      field("etrn_per_session", "integer", { default = "100", min = 1,
        doc = "ETRN and ATRN requests of one session." }),
      field("etrn_per_client", "integer", { default = "600", min = 1,
        doc = "ETRN and ATRN requests of one client (IPv6: of its /64) in an hour, for each "
          .. "worker." }),
      field("etrn_queues", "integer", { default = "1000", min = 1,
        doc = "Queues that one request (`@domain`, `#name`) lets go; for the rest it takes "
          .. "another." }),
      field("hook_cpu", "duration", { default = '"50ms"', min = 10,
        doc = "Processor time of a hook between two waits." }),
      field("hook_memory", "size", { default = '"16M"', min = 1024 * 1024,
        doc = "Memory that a hook may take between two waits." }),
      field("script_memory", "size", { default = '"64M"', min = 8 * 1024 * 1024,
        doc = "Of all scripts, for each worker." }),
    } }),
    field("timeouts", "table", {
      doc = "How long to wait for others: clients (command, data, session), remote hosts (connect "
        .. "to quit), hooks.",
      fields = {
        field("command", "duration", { default = '"5m"', min = 1, doc = "Client: next command." }),
        field("data", "duration", { default = '"5m"', min = 1,
          doc = "Client: next bytes of a message." }),
        field("session", "duration", { default = '"24h"', min = 1, doc = "Client: in all." }),
        field("stress", "duration", { default = '"10s"', min = 1,
          doc = "Client: `command` and `data` are at most this while sessions are scarce "
            .. "(`limits.stress`)." }),
        field("connect", "duration", { default = '"30s"', min = 1, doc = "Host: connection." }),
        field("greeting", "duration", { default = '"5m"', min = 1, doc = "Host: its greeting." }),
        field("helo", "duration", { default = '"5m"', min = 1, doc = "Host: reply to EHLO." }),
        field("mail", "duration", { default = '"5m"', min = 1, doc = "Host: reply to MAIL." }),
        field("rcpt", "duration", { default = '"5m"', min = 1, doc = "Host: reply to RCPT." }),
        field("data_command", "duration", { default = '"2m"', min = 1,
          doc = "Host: reply to DATA." }),
        field("body", "duration", { default = '"3m"', min = 1,
          doc = "Host: takes the next bytes of the message." }),
        field("final", "duration", { default = '"10m"', min = 1,
          doc = "Host: reply to the end of the message." }),
        field("quit", "duration", { default = '"5s"', min = 1, doc = "Host: reply to QUIT." }),
        field("proxy", "duration", { default = '"5s"', min = 1,
          doc = "Load balancer: its PROXY header." }),
        field("hook", "duration", { default = '"30s"', min = 1,
          doc = "One call of a hook, waiting included." }),
        field("shutdown", "duration", { default = '"10s"', min = 1,
          doc = "This router, when it is told to stop: transactions and deliveries that have begun "
            .. "may end until then. What does not is in the queue as it was." }),
      } }),
    field("queue", "table", { doc = "When and how fast mail goes out, where a route does not say.",
      fields = {
        field("retry", "schedule", { default = '"1m,5m,15m,30m,1h,2h..."',
          doc = "Delays after the first, second... attempt; `*4` repeats, `...` goes on with the "
            .. "last." }),
        field("lifetime", "duration", { default = '"5d"', min = 1,
          doc = "How long a message is tried before it is returned." }),
        field("warn_after", "duration", { default = '"4h"', never = true,
          doc = 'When its sender is told of a delay; "never": not at all.' }),
        field("concurrency", "integer", { default = "5", min = 1,
          doc = "Connections to one destination, at the start." }),
        field("max_concurrency", "integer", { default = "20", min = 1,
          doc = "Connections to one destination, at most." }),
        field("connections", "integer", { default = "1000", min = 1,
          doc = "Outgoing connections, for each worker. A quarter of them is kept for "
            .. "destinations that are known to work." }),
        field("host_connections", "integer", { default = "50", min = 1,
          doc = "Connections to one address and port, of all destinations together, for each "
            .. "worker. Not set, it is never less than `max_concurrency`." }),
        field("per_connection", "integer", { default = "100", min = 1,
          doc = "Messages over one connection." }),
        field("idle", "duration", { default = '"2s"',
          doc = "How long a connection is kept for the next message." }),
        field("connection_age", "duration", { default = '"5m"',
          doc = "Age at which a connection is not used again." }),
        field("recipients", "integer", { default = "100", min = 1,
          doc = "Recipients in one outgoing transaction." }),
        field("host_retry", "duration", { default = '"1m"', min = 1000,
          doc = "How long a host that failed is left alone, at first." }),
        field("host_retry_max", "duration", { default = '"15m"', min = 1000,
          doc = "How long a host that failed is left alone, at most." }),
      } }),
    field("domains", "domains", { default = "{}",
      doc = 'Where mail to a domain goes; this also authorises relaying to it. Keys: '
        .. '"example.com", ".example.com" (its subdomains only), "*"; the most specific wins. '
        .. "Values: policies, or routes. Or a map from a file (tern.map.file). Or a function from "
        .. "a name to a policy or nil." }),
    field("senders", "senders", { default = "{}",
      doc = 'Where mail from a sender goes: keys are a whole address, a domain, ".example.com", '
        .. '"*", or "<>" for the null sender. Mail to a domain that stands in `domains` does not '
        .. "ask it for a route. Or a map from a file (tern.map.file). Or a function from an "
        .. "address (\"\": the null sender) to a policy or nil." }),
    field("default_route", "default_route", { default = "nil",
      doc = "The route where no policy has one, or a policy that is asked for it, such as "
        .. "smart_host { \"mail.isp.example\" }; nil: by MX. Mail to a domain that stands in "
        .. "`domains` does not use it." }),
    field("policies", "list", { of = { type = "policy" }, single = true, default = "{}",
      doc = "Policies that are asked for all mail, in this order." }),
    field("on_error", enum { "defer", "reject", "ignore" }, { default = '"defer"',
      doc = 'What happens when a hook fails: "defer": 451 4.3.0, a later retry in the queue; '
        .. '"reject": 554 5.3.0; "ignore": as if it had no opinion.' }),
    field("reload", "table", { later = true, doc = "What a reload does.", fields = {} }),
  },
}

-- One entry of `listen`.
schema.listen = {
  type = "table", what = "'listen'",
  items = { type = "listen_address" }, min_items = 1,
  fields = {
    field("service", enum { "smtp", "submission", "odmr", "lmtp" }, { default = '"smtp"',
      doc = "smtp: mail from other routers; submission: from users; odmr: no mail, but ATRN, for "
        .. "domains that fetch theirs (RFC 2645, port 366); lmtp: mail from routers that speak "
        .. "LMTP (RFC 2033, port 24), see [LMTP](smtp.md#lmtp)." }),
    field("auth", enum { "offer", "none", "require" }, {
      default = 'submission: "require"; smtp: "offer"; lmtp: "none"',
      doc = "offer: where there is anything to authenticate by; require: no mail without it." }),
    field("tls", enum { "offer", "none", "require", "implicit" }, {
      default = 'with a certificate "offer", for submission "require"; else, and on Unix sockets, '
        .. '"none"',
      doc = "offer: STARTTLS; require: no mail without it; implicit: TLS from the first byte." }),
    field("chunking", "boolean", { default = "true",
      doc = "Messages may come by BDAT (CHUNKING, RFC 3030)." }),
    field("binarymime", "boolean", { default = "true",
      doc = "They may be BODY=BINARYMIME; needs chunking. On to hosts that do not take such mail "
        .. "they go in quoted-printable and base64." }),
    field("requiretls", "boolean", { default = "true",
      doc = "Inside TLS clients may demand by REQUIRETLS (RFC 8689) that a message goes on over "
        .. "verified TLS only, or comes back." }),
    field("deliver_by", "boolean", { default = "true",
      doc = "Senders may say within what time their mail is to be there (DELIVERBY, RFC 2852); see "
        .. "[SMTP](smtp.md#mail-with-a-time)." }),
    field("deliver_by_min", "duration", { default = '"0s"',
      doc = "What mail that is to be returned when its time is over (BY with R) must leave at "
        .. "least; with less it is refused." }),
    field("future_release", "duration", { default = 'submission: "30d"; else "0s"',
      doc = "For how long, at most, clients that may relay can have a message held before it goes "
        .. '(FUTURERELEASE, RFC 4865); "0s": not at all. See [SMTP](smtp.md#mail-with-a-time).' }),
    field("priority", enum { "offer", "none", "MIXER", "STANAG4406", "NSEP" }, {
      default = '"offer"',
      doc = "Senders may say how urgent their mail is (MT-PRIORITY, RFC 6710); whose word counts "
        .. "says `priority_from`. A name: offered with that profile of the RFC." }),
    field("client_certificates", enum { "none", "ask", "require" }, {
      default = 'with a client_ca "ask"; else "none"',
      doc = "ask: clients may show one; policies see it in `session.tls`, and whether it is in "
        .. "order. require: TLS only, and the handshake fails without one that `client_ca` has "
        .. "signed (without a `client_ca`: any)." }),
    field("client_ca", "path", { default = "the one of `tls`",
      doc = "PEM file of authorities, for the certificates of clients." }),
    field("greeting_delay", "duration", { default = '"0s"',
      doc = "Clients must wait so long for the greeting. Who talks before it is refused (554) "
        .. "at once. Not for `clients.exempt`." }),
    field("socket", "string", {
      doc = "The service manager's name (FileDescriptorName=) of the socket to take. Without it "
        .. "the one with the same address is taken, if there is one." }),
    field("mode", "file_mode", { default = '"660"',
      doc = "Of a Unix socket: who may connect, as `chmod` writes it. Its owner is the user of the "
        .. "router." }),
    field("group", "group_name", { default = "the router's",
      doc = "Of a Unix socket: its group. When the router was not started by root, one of its "
        .. "user's." }),
    field("proxy", list { type = "cidr" }, { default = "{}",
      doc = "Load balancers: their connections must begin with a header of the PROXY protocol "
        .. "(version 1 or 2), before TLS too, and the client is who that says. From others such "
        .. "a header is no command." }),
  },
}

-- One entry of `tls.certificates`.
schema.certificate = {
  type = "table", noun = "key",
  fields = {
    field("cert", "path", { required = true,
      doc = "PEM file: the certificate, then the intermediate ones." }),
    field("key", "path", { required = true, doc = "PEM file: the private key." }),
    field("names", list({ type = "sni" }, { max = 100 }), { default = "the names in it",
      doc = 'The names for which it is used: "mx.example.com", "*.example.com".' }),
  },
}

-- One entry of `sources`.
schema.source = {
  type = "table", noun = "key",
  fields = {
    field("hostname", "domain", { default = "the router's",
      doc = "The name that it says in EHLO; the one that its PTR record has." }),
    field("concurrency", "integer", { min = 1, max = 65535, default = "nil",
      doc = "Connections at once, idle ones among them; nil: any number." }),
    field("rate", "rate", { default = "nil",
      doc = 'Messages in a time, such as "1000/h"; evenly, or with a burst: "1000/h,burst=20"; '
        .. "nil: as many as there are." }),
  },
}

-- Who we are to a host: the option `auth`. The password stands in no message, log or spool.
schema.auth = {
  type = "table", secret = true, noun = "key",
  fields = {
    field("user", "user", { required = true, doc = "The name." }),
    field("password", "password", { required = true, secret = true,
      doc = 'The password, or better `secret "name"`.' }),
    field("mechanisms", list(enum { "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN" }), {
      doc = "Which may be used; default: all. Of those that the host offers the first of this list "
        .. "is taken." }),
    field("allow_clear", "boolean", {
      doc = "true: PLAIN and LOGIN may be used on a connection without TLS." }),
  },
}

local tls = { "opportunistic", "none", "require", "verify", "dane" }

-- A group of hosts inside of a list of hosts.
schema.group = {
  type = "table", noun = "key", items = { type = "target" }, min_items = 1, max_items = 64,
  fields = {
    field("tls", enum(tls), { doc = "As the route's, for these hosts." }),
    field("auth", "auth", { secret = true, doc = "Who we are to these hosts." }),
  },
}

-- ---- hooks -------------------------------------------------------------------------------------

-- In the order in which mail meets them. ctx: what it holds. returns: constructors, as in
-- `constructors`.
schema.hooks = {
  { name = "connect", when = "a client was accepted, before the greeting", ctx = { "session" },
    returns = { "tern.accept", "tern.reject", "tern.defer" } },
  { name = "helo", when = "EHLO, HELO or LHLO", ctx = { "session" },
    returns = { "tern.accept", "tern.reject", "tern.defer" } },
  { name = "auth", when = "a client presents credentials (AUTH)",
    ctx = { "session", "credentials" }, returns = { "tern.accept", "tern.reject", "tern.defer" } },
  { name = "mail", when = "MAIL FROM", ctx = { "session", "message" },
    returns = { "tern.accept", "tern.reject", "tern.defer", "tern.discard" } },
  { name = "rcpt", when = "each RCPT TO", ctx = { "session", "message", "recipient" },
    returns = { "tern.accept", "tern.reject", "tern.defer", "tern.discard" } },
  { name = "data", when = "the message is here, before its reply; once for each policy",
    ctx = { "session", "message" },
    returns = { "tern.accept", "tern.reject", "tern.defer", "tern.discard" } },
  { name = "route", when = "once for each recipient before it is queued, and again when policy has "
      .. "changed since", ctx = { "session", "message", "recipient" },
    returns = { "route.*", "tern.bounce", "tern.discard", "tern.defer" } },
  { name = "result", when = "an attempt did not succeed",
    ctx = { "message", "recipient", "attempt" },
    returns = { "tern.defer", "tern.bounce", "tern.discard", "route.*" } },
  { name = "etrn", when = "ETRN, or the operator's release", ctx = { "session", "request" },
    returns = { "tern.release", "tern.reject", "tern.defer" } },
  { name = "event", when = "anything worth recording happened", ctx = { "event" }, returns = {} },
}

-- Fields of a policy besides its hooks.
schema.policy = {
  field("name", "string", { doc = "For messages and logs; default: the name of the file." }),
  field("etrn_identity", "boolean", {
    doc = "Its `etrn` hook lets authenticated sessions only: others are told so (530)." }),
}

-- ---- what ctx holds ----------------------------------------------------------------------------

local address = {
  { "address", "string", "in text form" },
  { "port", "integer", "" },
}
local client = { address[1], address[2],
  { "name", "string?", "by PTR, confirmed by its address; nil: none" } }

schema.objects = {
  { name = "ctx", doc = "What a hook is called with; which fields there are depends on the hook.",
    fields = {
      { "session", "session?", "the client's session; nil in `route` and `result` of queued mail" },
      { "message", "message?", "from `mail` on" },
      { "recipient", "recipient?", "in `rcpt`, `route` and `result`" },
      { "attempt", "attempt?", "in `result`" },
      { "request", "request?", "in `etrn`" },
      { "credentials", "credentials?", "in `auth`" },
      { "event", "table?", "in `event`: name, level, and the fields of the event" },
    } },
  { name = "session", doc = "A client's session, as far as it has come.", fields = {
      { "id", "integer", "unique in this process" },
      { "client", "{address, port, name}", "who connected; by a Unix socket its path stands "
        .. 'for the address: `"unix:/run/tern/lmtp.sock"`', fields = client },
      { "local", "{address, port}", "where it connected to: `session[\"local\"]`, because `local` "
        .. "is a word of Lua's", fields = address },
      { "server", "{address, port}", "the same as `local`", fields = address },
      { "proxy", "{address, port}?", "who connected in truth, where `client` is what PROXY or "
        .. "XCLIENT told; nil: the client itself", fields = address },
      { "helo", "string?", "the argument of EHLO, HELO or LHLO; nil before" },
      { "esmtp", "boolean", "it was EHLO or LHLO" },
      { "tls", "{version, cipher, subject, issuer, names, fingerprint, key_fingerprint, verified, "
        .. "resumed}?", "nil: in clear. What begins with subject is of the client's certificate, "
        .. "nil where it showed none: names are those of its subjectAltName (a list), the "
        .. "fingerprints are SHA-256 in lower-case hex, of the whole and of the public key; "
        .. "verified: it is in order, signed by one of `client_ca`; resumed: all this was found "
        .. "out in an earlier session", fields = {
          { "version", "string", "" }, { "cipher", "string", "" },
          { "subject", "string?", "of the client's certificate" },
          { "issuer", "string?", "of the client's certificate" },
          { "names", "string[]?", "of its subjectAltName" },
          { "fingerprint", "string?", "SHA-256 of the client's certificate, in hex" },
          { "key_fingerprint", "string?", "SHA-256 of its public key, in hex" },
          { "verified", "boolean", "the client's certificate is in order" },
          { "resumed", "boolean", "an earlier session was taken up again" } } },
      { "identity", "string?", "authenticated as; nil: not" },
      { "listener", "string", 'service of the listener: "smtp", "submission", "odmr" or "lmtp"' },
      { "may_relay", "boolean", "the client is in relay_from, or authenticated" },
      { "data", "table", "yours; lives as long as the session" },
    } },
  { name = "message", doc = "A message, as far as it has come.", fields = {
      { "id", "string?", "its name in the queue and in the log; nil: none yet" },
      { "sender", "string", 'envelope sender; "": the null sender' },
      { "sender_domain", "string", 'its domain in normal form; "" for the null sender' },
      { "size", "integer", "octets: as declared, from `data` on as it came, with our Received" },
      { "params", "table", "of MAIL: body (\"7BIT\", \"8BITMIME\" or \"BINARYMIME\"), smtputf8" },
      { "requiretls", "boolean", "its sender demands verified TLS all the way (RFC 8689)" },
      { "deliver_by", "{mode, at, trace}?", "its sender wants it to be there in time (DELIVERBY); "
        .. "nil: it did not say", fields = {
          { "mode", '"return"|"notify"', "else it comes back, or its sender is told" },
          { "at", "number", "when the time is over, in seconds since 1970" },
          { "trace", "boolean", "who passes it on tells the sender" } } },
      { "hold_until", "number?", "its sender wants it to go not before that (FUTURERELEASE), in "
        .. "seconds since 1970; nil: it did not say" },
      { "priority", "integer", "-9 to 9, as far as the client's word counts (MT-PRIORITY); 0: as "
        .. "usual" },
      { "set_priority", "fun(self, priority: integer)",
        "in `mail`, `rcpt` and `data`: whatever the client asked for" },
      { "headers", "headers?", "nil before `data`" },
      { "body", "body?", "nil before `data`" },
      { "parts", "fun(self): table[], boolean",
        "what it consists of (MIME), in order, as its sender says: type, filename (UTF-8 "
        .. "where it can be read), disposition, encoding, size (as it stands, encoded), depth. "
        .. "Multiparts are no parts, what is in them is; a message in a message is one, and "
        .. "what is in it follows. And whether that is all: there are at most 1000, in 20 "
        .. "levels" },
      { "received", "number?", "when it came, in seconds since 1970; nil: not yet" },
      { "client", "{address, port}?", "who sent it to us, also when the session is gone",
        fields = address },
      { "helo", "string?", "what it said in EHLO" },
      { "identity", "string?", "authenticated as" },
      { "listener", "string?", "service that took it" },
      { "data", "table", "yours; lives until the message is queued" },
    } },
  { name = "headers", doc = "Header fields of a message, as they came; our own Received, which "
    .. "stands above them, is not among them. Names in any case. `n` says which of that name: 1 is "
    .. "the first, and what is meant without it; -1 is the last. Changes in `data` only: see "
    .. "*Changing headers*.",
    fields = {
      { "get", "fun(self, name: string, n: integer?): string?",
        "value of the first of that name (or the n-th), unfolded; nil: there is none" },
      { "raw", "fun(self, name: string, n: integer?): string?",
        "the same as it stands, with its line breaks" },
      { "decoded", "fun(self, name: string, n: integer?): string?",
        "the same with its encoded words (RFC 2047) as UTF-8; those in another charset than "
        .. "UTF-8, US-ASCII and ISO-8859-1 stay as they are written" },
      { "all", "fun(self, name: string): string[]",
        "values of all of that name, unfolded, from the top" },
      { "count", "fun(self, name: string): integer", "how many of that name there are" },
      { "each", "fun(self): fun(): string, string, string",
        "`for name, value, raw in headers:each() do`: all fields from the top, as they stood when "
        .. "it began" },
      { "add", "fun(self, name: string, value: string)", "adds one at the end" },
      { "prepend", "fun(self, name: string, value: string)",
        "adds one on top, below our Received" },
      { "set", "fun(self, name: string, value: string)",
        "replaces the first of that name in its place and removes the others; adds one where "
        .. "there is none" },
      { "replace", "fun(self, name: string, value: string, n: integer?): boolean",
        "replaces the first of that name (or the n-th) in its place; false: there is none, and "
        .. "nothing has changed" },
      { "remove", "fun(self, name: string, n: integer?): integer",
        "removes all of that name (or the n-th); how many. Received fields that this router "
        .. "wrote stay" },
    } },
  { name = "body", doc = "Content behind the headers, piece by piece, however large it is: `for "
    .. "chunk in message.body:chunks() do`, or `in message.body do`. After each MiB the hook "
    .. "waits for a moment, so that other work goes on.",
    fields = {
      { "size", "integer", "octets" },
      { "chunks", "fun(self): fun(): string?", "all of it, in pieces of mostly 64 KiB" },
      { "lines", "fun(self): fun(): string?, boolean",
        "`for line, whole in message.body:lines() do`: without their ends. A line of more than "
        .. "64 KiB comes in parts, `whole` is true with the last of them only" },
      { "sha256", "fun(self): string", "the digest of all of it, in lower-case hex" },
      { "text", "fun(self, max: integer?): string, boolean",
        "all as one string, but at most max octets (default 1 MiB); and whether that is all" },
    } },
  { name = "recipient", doc = "One recipient.", fields = {
      { "address", "string", "as written" },
      { "local_part", "string", "as written, quotes kept" },
      { "domain", "string", "in normal form: lower case, A-labels" },
      { "params", "table", "of RCPT" },
    } },
  { name = "attempt", doc = "An attempt that did not succeed.", fields = {
      { "number", "integer", "from 1" },
      { "host", "string?", "name of the host tried last" },
      { "address", "string?", "its address and port" },
      { "stage", "string", "how far it came" },
      { "reply", "{code, enhanced, text}?", "what the host said; nil: nothing", fields = {
          { "code", "integer", "" }, { "enhanced", "string?", "" }, { "text", "string", "" } } },
      { "reason", "string", "what went wrong, in words" },
      { "scope", '"host"|"message"|"recipient"', "whose failure it is" },
      { "permanent", "boolean", "without a hook's answer it would be returned to its sender" },
      { "elapsed", "number", "seconds that the attempt took" },
      { "queued_for", "number", "seconds since the message came" },
    } },
  { name = "map", doc = "A file to look things up in, from `tern.map`.", fields = {
      { "get", "fun(self, key: string|table): string?, ...",
        "the values of the row that fits best (true: a row without any); nil: none" },
      { "count", "fun(self): integer", "rows" },
    } },
  { name = "credentials", doc = "What a client presents in AUTH.", fields = {
      { "mechanism", "string", '"PLAIN", "LOGIN", "CRAM-MD5" or "SCRAM-SHA-256"' },
      { "user", "string", "as the client says it" },
      { "password", "string?", "nil with CRAM-MD5 and SCRAM-SHA-256, which prove to know it" },
    } },
  { name = "request", doc = "A request for waiting mail.", fields = {
      { "kind", "string", '"ETRN" or "ATRN"' },
      { "domain", "string", "what is asked about: a domain in normal form; the name behind `#`" },
      { "option", "string?", '"@": the domain and its subdomains; "#": a group of queues' },
      { "argument", "string", "as the client said it, with the option; ATRN without one: empty" },
      { "member", "boolean", "`domain` was not said itself: it belongs to what was (`@`, `#`, or "
        .. "ATRN without an argument) and has mail waiting" },
      { "operator", "boolean", "no client asked, but the operator or the schedule" },
      { "scheduled", "boolean", "the schedule asked" },
    } },
}

schema.objects[#schema.objects + 1] = { name = "kv",
  doc = "What `tern.kv` gives: values that all workers share and that outlive a restart. Keys have "
    .. "1 to 400 octets; values are strings, numbers, booleans and tables (as tern.json writes "
    .. "them), at most 8 KiB. set, add and delete wait until it is on disk, and give `nil, {kind = "
    .. "\"full\"|\"disk\"|\"size\"|\"stopping\", text = }` when it cannot be. get and each do not "
    .. "wait.",
  fields = {
    { "get", "fun(self, key: string): any, number?",
      "the value and the seconds until it ends (nil: never); nil: there is none" },
    { "set", "fun(self, key: string, value: any, options: table?): true?, table?",
      "puts or replaces it" },
    { "add", "fun(self, key: string, value: any, options: table?): boolean?, table?",
      "puts it where there is none: true; false: there is one. Of many who add the same at once, "
        .. "in all workers, one gets true" },
    { "delete", "fun(self, key: string): boolean?, table?", "false: there was none" },
    { "each", "fun(self, prefix: string?): fun(): string, any, number?",
      "`for key, value, left in kv:each() do`, in the order of keys; with a prefix only keys that "
        .. "begin with it. It sees changes that are made meanwhile behind where it stands" },
  } }

-- ---- constructors ------------------------------------------------------------------------------

local reply_tuple = {
  { name = "code", type = "integer" },
  { name = "enhanced", type = "enhanced" },
  { name = "text", type = "text" },
}

local function reply(default, class, more)
  return { type = "reply", tuple = reply_tuple, class = class, default = default,
    fields = more or {} }
end

local route_options = {
  field("queue", "queue", { doc = "The name it is accounted and throttled under; default: from the "
    .. "domain or the hosts." }),
  field("retry", "schedule", { doc = "As `queue.retry` of the configuration." }),
  field("hours", "hours", { doc = 'The part of the day, in local time, in which mail is tried: '
    .. '"22:00-06:00"; default: all of it. Until then it waits; `tern queue retry` and ETRN '
    .. 'do not.' }),
  field("lifetime", "duration", { forever = true, min = 1,
    doc = 'As `queue.lifetime`; "forever": never given up.' }),
  field("warn_after", "duration", { never = true, doc = "As `queue.warn_after`." }),
  field("concurrency", "integer", { min = 1, max = 10000, doc = "As `queue.concurrency`." }),
  field("source", list({ type = "source" }, { max = 64 }), {
    doc = "Local address to connect from, or a list of them, over which connections are spread; "
      .. "see [sources and rates](sources.md)." }),
  field("tls", enum(tls), { default = '"opportunistic"',
    doc = "opportunistic: where offered; require: else defer; verify: with a good certificate; "
      .. "dane: by the host's TLSA records where DNS is secure, else opportunistic (RFC 7672)." }),
  field("fallback", "route", { doc = "Another route, for when this one's hosts fail." }),
  field("on_host_failure", enum { "lifetime", "forever" }, { default = '"lifetime"',
    doc = "forever: failures of the host (not of the message) never end it." }),
  field("reason", "text", { doc = "Shown by `tern why`." }),
  field("rate", "rate", { doc = 'Messages that its queue hands over in a time: "100/m", evenly; '
    .. '"100/m,burst=20": up to 20 of them at once; see [sources and rates](sources.md).' }),
  field("auth", "auth", { secret = true, doc = "Who we are to the hosts: user, password." }),
  field("certificate", "path", { doc = "PEM file: our certificate, then the intermediate ones, "
    .. "shown to hosts that ask for one; TLS is then required at least. See "
    .. "[TLS](tls.md#our-certificate-for-hosts)." }),
  field("key", "path", { default = "in the file of the certificate",
    doc = "PEM file: its private key." }),
}

local function with_route_options(own)
  local all = {}
  for _, f in ipairs(own) do all[#all + 1] = f end
  for _, f in ipairs(route_options) do all[#all + 1] = f end
  return all
end

schema.constructors = {
  { name = "tern.accept", spec = { type = "table", fields = {
      field("identity", "user", { doc = "In `auth`: who it is, as `session.identity` will say; "
        .. "default: the user." }),
      field("password", "password_entry", { secret = true,
        doc = "In `auth`: what the client must prove to know, a password or an entry of a password "
          .. "file (`{SCRAM-SHA-256}...`)." }),
    } }, doc = "Stop asking, accept." },
  { name = "tern.reject", spec = reply({ 550, "5.7.1", "rejected by policy" }, 5),
    doc = "Refuse for good, by a 5yz reply (in `etrn` 458 and 459 as well)." },
  { name = "tern.defer", spec = reply({ 451, "4.7.1", "try again later" }, 4, {
      field("retry", "duration", { min = 1000,
        doc = "For queued mail: not before this has passed." }) }),
    doc = "Refuse for now, by a 4yz reply; keep queued mail." },
  { name = "tern.discard", fields = {}, doc = "Accept and drop; recorded." },
  { name = "tern.bounce", spec = reply({ 0, "", "" }, 5),
    doc = "Return queued mail to its sender now. Without a reply: that of the attempt." },
  { name = "tern.release", spec = { type = "table", fields = {
      field("queue", list({ type = "queue" }, { max = 1000 }), {
        doc = "Which queues; default: the one named like the domain of the request." }),
      field("subdomains", "boolean", { default = "false",
        doc = "To `ETRN @domain`: the queues of all subdomains as well, if their policies "
          .. "agree." }),
      field("group", "boolean", { default = "false",
        doc = "To `ETRN #name`: all queues `name/DOMAIN`, if the policies of those domains "
          .. "agree." }),
      field("deliver_to", list { type = "target" }, {
        doc = 'Hosts that get it, or "client": the address that asked. Not needed for ATRN.' }),
      field("route", "route", { doc = "Instead of deliver_to." }),
      field("window", "duration", { min = 1000, default = '"15m"',
        doc = "How long failures are tried again before the mail is held again." }),
    } }, doc = "Let go what is held." },
  { name = "route.mx", spec = { type = "table", fields = with_route_options {
      field("domain", "domain", { doc = "Whose MX; in a hook the default is the recipient's." }),
      field("below", enum { "self" }, {
        doc = "self: only hosts preferred to this router (a backup MX)." }),
      field("when_best", enum { "bounce", "defer" }, { default = '"bounce"',
        doc = "With `below`, where this router is itself the best." }),
      field("mta_sts", "boolean", { default = "true",
        doc = "Follow the domain's MTA-STS policy (RFC 8461): only the MX that it names, and "
          .. "only by TLS with a good certificate. With `tls = \"none\"` it is not looked at; "
          .. "hosts with TLSA records are taken at their word instead." }),
    } }, doc = "By MX." },
  { name = "route.hosts", spec = { type = "table", items = { type = "host_or_group" },
      min_items = 1, max_items = 64, fields = with_route_options {
        field("balance", enum { "failover", "random", "round_robin" }, { default = '"failover"',
          doc = "In which order hosts are tried, within each group." }),
        field("mx", "boolean", { default = "false",
          doc = "Look MX up for names without brackets (a smart host)." }),
      } }, doc = 'Given hosts: "host", "host:port", "[host]", "192.0.2.1:25", "[2001:db8::1]:25", '
        .. '"lmtp://host:port", "lmtp:/path"; or groups of them, tried in their order: '
        .. '`{ { "a", "b" }, { "c", tls = "verify" } }`.' },
  { name = "route.lmtp", spec = { type = "table", items = { type = "lmtp" }, min_items = 1,
      max_items = 64, fields = with_route_options {
        field("balance", enum { "failover", "random", "round_robin" }, { default = '"failover"',
          doc = "In which order hosts are tried." }),
      } }, doc = "Given servers of LMTP: a path, or host:port." },
  { name = "route.hold", spec = { type = "table", fields = with_route_options {
      field("release_every", "duration", { min = 60000,
        doc = "Lets it go by the clock, so often, as the operator could by `tern etrn`: the "
          .. "hook `etrn` is asked with `request.scheduled`." }),
      field("release_between", "between", {
        doc = 'Only between these times of the day, such as `{ "01:00", "05:00" }`, in the local '
          .. "time of the machine." }),
      field("warn_messages", "integer", { min = 1,
        doc = "With so many recipients waiting in its queue, the event `queue_filling` tells." }),
      field("warn_bytes", "size", { min = 1, doc = "The same for the sum of their sizes." }),
    } },
    doc = "Kept, not tried, until released. Without `lifetime` it is kept for ever. A queue is "
      .. "minded by the oldest that waits in it: give all that is held in one queue the same "
      .. "`lifetime`, `release_...` and `warn_...`." },
  { name = "route.discard", spec = { type = "table", fields = { route_options[11] } },
    doc = "Dropped; recorded." },
  { name = "route.bounce", spec = reply({ 550, "5.7.1", "rejected by policy" }, 5),
    doc = "Returned to its sender at once." },
}

-- ---- options of functions ----------------------------------------------------------------------

schema.arguments = {
  { name = "tern.kv", fields = {
      field("max", "integer", { default = "100000", min = 1, max = 10000000,
        doc = "Entries at most. One more drops the one that ends first; those without an end are "
          .. "never dropped: then putting fails (`full`)." }),
    } },
  { name = "kv:set", fields = {
      field("ttl", "duration", { min = 1, doc = "When it ends; left out: never." }),
    } },
  { name = "kv:add", fields = {
      field("ttl", "duration", { min = 1, doc = "When it ends; left out: never." }),
    } },
  { name = "tern.limit", fields = {
      field("key", "string", { doc = "Whose: each key has a bucket of its own (a client's "
        .. "address, say). Left out: one for all." }),
      field("cost", "integer", { default = "1", min = 1,
        doc = "How much to take; at most the burst." }),
    } },
  { name = "tern.map.file", fields = {
      field("policies", "row_policies", {
        doc = "By the name that stands in the second field of a row: policies, routes, or "
          .. "functions from the row to one." }),
      field("policy", "row_policy", { doc = "The same for all rows: for a list of names." }),
      field("keys", enum { "mail", "text" }, { default = '"mail"',
        doc = "mail: domains and addresses, as in `domains` and `senders`; text: any text, as it "
          .. "is." }),
    } },
}

-- probe takes one table.
schema.arguments[#schema.arguments + 1] = { name = "tern.smtp.probe", fields = {
    field("host", list { type = "target" }, { max = 64,
      doc = "Hosts to ask, in this order, as in route.hosts." }),
    field("route", "route", { doc = "Instead of host: the hosts to which that route leads." }),
    field("sender", "string", { default = '""', doc = "For MAIL; empty: the null sender." }),
    field("recipient", "string", {
      doc = "For RCPT. Left out: only whether a host answers, up to EHLO." }),
    field("tls", enum { "opportunistic", "none", "require", "verify" }, {
      default = '"opportunistic"', doc = "With host: as for a route." }),
    field("timeout", "duration", { min = 1, default = '"10s"',
      doc = "For all of it; never more than what its hook has left." }),
  } }

-- ---- functions ---------------------------------------------------------------------------------

-- { module, name, arguments, result, doc }. `waits`: other work goes on meanwhile.
local failure = 'nil, {kind = "nxdomain"|"nodata"|"servfail"|"timeout"}'
schema.functions = {
  { "tern", "now", "", "number", "seconds since 1970, with a fraction" },
  { "tern", "sleep", "duration", "", "goes on when it has passed", waits = true },
  { "tern", "duration", "duration", "number", "seconds: of \"15m\", 900" },
  { "tern", "kv", "name, {max}", "kv", "values under that name, kept in the spool: see *kv*" },
  { "tern", "limit", "name, rate, {key, cost}", "boolean, number?",
    "takes one from a bucket that all workers share: true; or false and the seconds until it may "
      .. "be. rate: \"100/m\", \"5/10s,burst=20\"; the burst is the count where it is not said. "
      .. "Buckets are in memory: a restart fills them" },
  { "tern", "queued", "name", "{scheduled=, waiting=, held=, waiting_bytes=}",
    "how many recipients the queue holds, in all workers" },
  { "tern", "version", nil, "string", "version of the program (a field)" },
  { "tern.dns", "mx", "name", "{ {host=, preference=}... }", "in order of preference", waits = true,
    failure = failure },
  { "tern.dns", "a", "name", "{ \"192.0.2.1\"... }", "IPv4 addresses", waits = true,
    failure = failure },
  { "tern.dns", "aaaa", "name", "{ \"2001:db8::1\"... }", "IPv6 addresses", waits = true,
    failure = failure },
  { "tern.dns", "addresses", "name", "{ address... }", "both, asked for at the same time",
    waits = true, failure = failure },
  { "tern.dns", "txt", "name", "{ text... }", "texts, parts of one joined", waits = true,
    failure = failure },
  { "tern.dns", "ptr", "address or name", "{ name... }", "names of an address", waits = true,
    failure = failure },
  { "tern.dns", "tlsa", "name", "{ {usage=, selector=, matching=, data=}... }", "data in bytes",
    waits = true, failure = failure },
  { "tern.dns", "srv", "name", "{ {host=, port=, priority=, weight=}... }",
    "in order of priority", waits = true, failure = failure },
  { "tern.route", "resolve", "route", "plan",
    'the hosts to which that route leads at present, as a delivery would find them: `plan.status` '
    .. '"ok", "defer" or "permanent"; `plan.hosts`, an array of {name, address, port, '
    .. 'preference} in the order of trying; `plan.discarded`, an array of {what, reason}: records '
    .. 'that are not used; where there is no host, `plan.reply` ({code, enhanced, text}) and '
    .. '`plan.reason`: "null_mx", '
    .. '"nxdomain", "dns_failure", "we_are_best", "not_an_mx", "own_listener", "no_address", '
    .. '"mta_sts"',
    waits = true },
  { "tern.smtp", "probe", "{host or route, sender, recipient, tls, timeout}",
    "{code, enhanced, text, stage, host, address}",
    "asks a host whether it answers, or whether it takes a recipient, without a message "
      .. "(call-forward): what it said to EHLO, MAIL or RCPT. Hosts that failed lately are not "
      .. "asked", waits = true,
    failure = 'nil, {kind = "host"|"dns"|"loop"|"timeout"|"unsupported"|"busy", text=}' },
  { "tern.net", "cidr", "text, or a list of texts", "networks",
    "`networks:contains(address)` says whether an address lies in one of them" },
  { "tern.map", "file", "name, {policies=, policy=, keys=}", "map",
    "a file of domains, addresses or texts with values; see [maps](maps.md)" },
  { "tern.map", "cidr", "name", "map", "a file of networks with values; see [maps](maps.md)" },
  { "tern.json", "encode", "value", "string", "a table with t[1] (or none at all) is an array" },
  { "tern.json", "decode", "text", "value, or nil and a message", "null is tern.json.null" },
  { "tern.mime", "encode", "text", "string",
    "words beyond ASCII as encoded words (RFC 2047), for a comment or the name before an address; "
      .. "ASCII stays as it is" },
  { "tern.mime", "decode", "text", "string", "the same back, as `headers:decoded` does" },
  { "tern.log", "debug", "text or table", "", "" },
  { "tern.log", "info", "text or table", "",
    "a line of the log: a text, or fields as in `{ \"seen\", client = a }`" },
  { "tern.log", "warn", "text or table", "", "" },
  { "tern.log", "error", "text or table", "", "" },
  { "tern.policy", "define", "definition", "function(options) -> policy",
    "see *Policies with options*" },
}

return schema
