---@meta
-- luacheck: ignore
-- Made by scripts/reference from lua/tern/schema.lua: change that, not this.
-- For editors (LuaLS); never run.

---@class tern.Listen
---@field [integer] string
---@field service? "smtp"|"submission"|"odmr"|"lmtp" smtp: mail from other routers; submission: from users; odmr: no mail, but ATRN, for domains that fetch theirs (RFC 2645, port 366); lmtp: mail from routers that speak LMTP (RFC 2033, port 24), see [LMTP](smtp.md#lmtp).
---@field auth? "offer"|"none"|"require" offer: where there is anything to authenticate by; require: no mail without it.
---@field tls? "offer"|"none"|"require"|"implicit" offer: STARTTLS; require: no mail without it; implicit: TLS from the first byte.
---@field chunking? boolean Messages may come by BDAT (CHUNKING, RFC 3030).
---@field binarymime? boolean They may be BODY=BINARYMIME; needs chunking. On to hosts that do not take such mail they go in quoted-printable and base64.
---@field requiretls? boolean Inside TLS clients may demand by REQUIRETLS (RFC 8689) that a message goes on over verified TLS only, or comes back.
---@field deliver_by? boolean Senders may say within what time their mail is to be there (DELIVERBY, RFC 2852); see [SMTP](smtp.md#mail-with-a-time).
---@field deliver_by_min? string|number What mail that is to be returned when its time is over (BY with R) must leave at least; with less it is refused.
---@field future_release? string|number For how long, at most, clients that may relay can have a message held before it goes (FUTURERELEASE, RFC 4865); "0s": not at all. See [SMTP](smtp.md#mail-with-a-time).
---@field priority? "offer"|"none"|"MIXER"|"STANAG4406"|"NSEP" Senders may say how urgent their mail is (MT-PRIORITY, RFC 6710); whose word counts says `priority_from`. A name: offered with that profile of the RFC.
---@field client_certificates? "none"|"ask"|"require" ask: clients may show one; policies see it in `session.tls`, and whether it is in order. require: TLS only, and the handshake fails without one that `client_ca` has signed (without a `client_ca`: any).
---@field client_ca? string PEM file of authorities, for the certificates of clients.
---@field greeting_delay? string|number Clients must wait so long for the greeting. Who talks before it is refused (554) at once. Not for `clients.exempt`.
---@field socket? string The service manager's name (FileDescriptorName=) of the socket to take. Without it the one with the same address is taken, if there is one.
---@field mode? string Of a Unix socket: who may connect, as `chmod` writes it. Its owner is the user of the router.
---@field group? string Of a Unix socket: its group. When the router was not started by root, one of its user's.
---@field proxy? string[]|string Load balancers: their connections must begin with a header of the PROXY protocol (version 1 or 2), before TLS too, and the client is who that says. From others such a header is no command.

---@class tern.Certificate
---@field cert string PEM file: the certificate, then the intermediate ones.
---@field key string PEM file: the private key.
---@field names? string[]|string The names for which it is used: "mx.example.com", "*.example.com".

---@class tern.Source
---@field hostname? string The name that it says in EHLO; the one that its PTR record has.
---@field concurrency? integer Connections at once, idle ones among them; nil: any number.
---@field rate? string Messages in a time, such as "1000/h"; evenly, or with a burst: "1000/h,burst=20"; nil: as many as there are.

---@class tern.ConfigurationTls
---@field cert? string PEM file: the certificate, then the intermediate ones.
---@field key? string PEM file: the private key.
---@field ca? string PEM file of authorities, for the certificates of hosts.
---@field certificates? string[]|string More certificates, chosen by the name that a client asks for (SNI); see below.
---@field client_ca? string PEM file of authorities, for the certificates of clients, which are then asked for one; see `client_certificates` of [listen](#listen).

---@class tern.ConfigurationAuth
---@field passwords? string File of users and password entries, `user:entry` a line; relative to the configuration.
---@field mechanisms? ("PLAIN"|"LOGIN"|"SCRAM-SHA-256"|"CRAM-MD5")[]|"PLAIN"|"LOGIN"|"SCRAM-SHA-256"|"CRAM-MD5" What is offered.
---@field without_tls? boolean PLAIN and LOGIN also in clear: passwords cross the wire for all to read.
---@field attempts? integer Failed ones until a session is ended.

---@class tern.ConfigurationDns
---@field servers? string[]|string Addresses of resolvers, with a port where it is not 53.
---@field timeout? string|number For one look-up, tries included.
---@field trust_ad? boolean Believes resolvers on other machines, too, that an answer is secure (DNSSEC). Those on a loopback address are always believed. For `tls = "dane"`.
---@field allow_loopback_mx? boolean Lets an MX point to this machine, for tests and demonstrations.

---@class tern.ConfigurationSelf
---@field names? string[]|string Further names, as they stand in MX.
---@field addresses? string[]|string Further addresses, such as those outside of a NAT.

---@class tern.ConfigurationClients
---@field connections? integer At once; 0: any number.
---@field connection_rate? string Connections in a time, such as "60/m" or "60/m,burst=20"; nil: any number.
---@field message_rate? string Messages (MAIL) in a time.
---@field recipient_rate? string Recipients (RCPT) in a time.
---@field ipv4_prefix? integer Bits of an IPv4 address that make a client.
---@field ipv6_prefix? integer Bits of an IPv6 address that make a client.
---@field exempt? string[]|string Clients to which none of this applies, nor `greeting_delay`.

---@class tern.ConfigurationLimits
---@field message_size? string|integer Of a message; told to clients by SIZE.
---@field recipients? integer Of one transaction (RFC 5321 §4.5.3.1.8: at least 100). Clients are told by LIMITS.
---@field messages? integer MAIL commands in one session; the next one gets 421. 0: any number. Clients are told by LIMITS.
---@field sessions? integer At once, per worker.
---@field errors? integer Rejected commands before a session is ended.
---@field stress? integer Percentage of `sessions` from which a worker is under stress: `timeouts.stress` and `stress_errors` apply until it has a tenth of `sessions` less.
---@field stress_errors? integer As `errors`, under stress.
---@field memory? string|integer Of all messages that are being received, for each worker.
---@field received_headers? integer More Received headers than this are a loop.
---@field etrn_per_session? integer ETRN and ATRN requests of one session.
---@field etrn_per_client? integer ETRN and ATRN requests of one client (IPv6: of its /64) in an hour, for each worker.
---@field etrn_queues? integer Queues that one request (`@domain`, `#name`) lets go; for the rest it takes another.
---@field hook_cpu? string|number Processor time of a hook between two waits.
---@field hook_memory? string|integer Memory that a hook may take between two waits.
---@field script_memory? string|integer Of all scripts, for each worker.

---@class tern.ConfigurationTimeouts
---@field command? string|number Client: next command.
---@field data? string|number Client: next bytes of a message.
---@field session? string|number Client: in all.
---@field stress? string|number Client: `command` and `data` are at most this while sessions are scarce (`limits.stress`).
---@field connect? string|number Host: connection.
---@field greeting? string|number Host: its greeting.
---@field helo? string|number Host: reply to EHLO.
---@field mail? string|number Host: reply to MAIL.
---@field rcpt? string|number Host: reply to RCPT.
---@field data_command? string|number Host: reply to DATA.
---@field body? string|number Host: takes the next bytes of the message.
---@field final? string|number Host: reply to the end of the message.
---@field quit? string|number Host: reply to QUIT.
---@field proxy? string|number Load balancer: its PROXY header.
---@field hook? string|number One call of a hook, waiting included.
---@field shutdown? string|number This router, when it is told to stop: transactions and deliveries that have begun may end until then. What does not is in the queue as it was.

---@class tern.ConfigurationQueue
---@field retry? string Delays after the first, second... attempt; `*4` repeats, `...` goes on with the last.
---@field lifetime? string|number How long a message is tried before it is returned.
---@field warn_after? string|number When its sender is told of a delay; "never": not at all.
---@field concurrency? integer Connections to one destination, at the start.
---@field max_concurrency? integer Connections to one destination, at most.
---@field connections? integer Outgoing connections, for each worker. A quarter of them is kept for destinations that are known to work.
---@field host_connections? integer Connections to one address and port, of all destinations together, for each worker. Not set, it is never less than `max_concurrency`.
---@field per_connection? integer Messages over one connection.
---@field idle? string|number How long a connection is kept for the next message.
---@field connection_age? string|number Age at which a connection is not used again.
---@field recipients? integer Recipients in one outgoing transaction.
---@field host_retry? string|number How long a host that failed is left alone, at first.
---@field host_retry_max? string|number How long a host that failed is left alone, at most.

---@class tern.Configuration
---@field hostname string The name of this router: in its greeting, in EHLO, in Received headers.
---@field spool? string The folder of the queue. It must be on a local file system.
---@field control? string The Unix socket by which the command line reaches the daemon.
---@field log? string "stdout", or a file to append to.
---@field user? string Whom the router becomes when root starts it, after its ports are bound; see [security](security.md). "root": it stays root. Started by another user it stays that one.
---@field sandbox? boolean Once started, the router keeps to the system calls, files and folders that it needs; see [security](security.md).
---@field core_dumps? boolean A crash may leave a core file, which holds mail and passwords.
---@field workers? string|integer How many threads do the work; "auto": one for each processor.
---@field listen? (string|tern.Listen)[]|string|tern.Listen Where to listen: addresses with ports, or tables of them with options.
---@field tls? tern.ConfigurationTls Certificate of the listeners, and whom to trust.
---@field auth? tern.ConfigurationAuth How clients authenticate (AUTH); see [authentication](authentication.md).
---@field dns? tern.ConfigurationDns The resolvers.
---@field relay_from? string[]|string Clients that may relay to any domain.
---@field priority_from? string[]|string Clients whose MT-PRIORITY counts, besides those that may relay. That of others is lowered to 0, and they are told.
---@field xclient_from? string[]|string Clients (filters, proxies) that may say by XCLIENT who the client is: what they say counts for `relay_from`, for policies and in logs. Nobody else is offered it.
---@field self? tern.ConfigurationSelf What else is this router, besides its name and addresses.
---@field sources? table<string, tern.Source> What each local address may do in all, over all workers, where a route names it as `source`: keys are addresses, as in `{ ["192.0.2.1"] = { hostname = "out1.example.com" } }`; see [sources and rates](sources.md).
---@field clients? tern.ConfigurationClients What one client may do, counted over all workers and listeners. A client is an address, or the network of it that these prefixes say. What is too much is refused for now (421 or 450 4.7.0), never for good; see [defence](defence.md).
---@field limits? tern.ConfigurationLimits How much of everything.
---@field timeouts? tern.ConfigurationTimeouts How long to wait for others: clients (command, data, session), remote hosts (connect to quit), hooks.
---@field queue? tern.ConfigurationQueue When and how fast mail goes out, where a route does not say.
---@field domains? table<string, tern.Policy|tern.Route>|tern.Map|function Where mail to a domain goes; this also authorises relaying to it. Keys: "example.com", ".example.com" (its subdomains only), "*"; the most specific wins. Values: policies, or routes. Or a map from a file (tern.map.file). Or a function from a name to a policy or nil.
---@field senders? table<string, tern.Policy|tern.Route>|tern.Map|function Where mail from a sender goes: keys are a whole address, a domain, ".example.com", "*", or "<>" for the null sender. Mail to a domain that stands in `domains` does not ask it for a route. Or a map from a file (tern.map.file). Or a function from an address ("": the null sender) to a policy or nil.
---@field default_route? string The route where no policy has one, or a policy that is asked for it, such as smart_host { "mail.isp.example" }; nil: by MX. Mail to a domain that stands in `domains` does not use it.
---@field policies? tern.Policy[]|tern.Policy Policies that are asked for all mail, in this order.
---@field on_error? "defer"|"reject"|"ignore" What happens when a hook fails: "defer": 451 4.3.0, a later retry in the queue; "reject": 554 5.3.0; "ignore": as if it had no opinion.

--- What a hook is called with; which fields there are depends on the hook.
---@class tern.Ctx
---@field session tern.Session? the client's session; nil in `route` and `result` of queued mail
---@field message tern.Message? from `mail` on
---@field recipient tern.Recipient? in `rcpt`, `route` and `result`
---@field attempt tern.Attempt? in `result`
---@field request tern.Request? in `etrn`
---@field credentials tern.Credentials? in `auth`
---@field event table? in `event`: name, level, and the fields of the event

--- A client's session, as far as it has come.
---@class tern.Session
---@field id integer unique in this process
---@field client table who connected; by a Unix socket its path stands for the address: `"unix:/run/tern/lmtp.sock"`
---@field local table where it connected to: `session["local"]`, because `local` is a word of Lua's
---@field server table the same as `local`
---@field proxy table? who connected in truth, where `client` is what PROXY or XCLIENT told; nil: the client itself
---@field helo string? the argument of EHLO, HELO or LHLO; nil before
---@field esmtp boolean it was EHLO or LHLO
---@field tls table? nil: in clear. What begins with subject is of the client's certificate, nil where it showed none: names are those of its subjectAltName (a list), the fingerprints are SHA-256 in lower-case hex, of the whole and of the public key; verified: it is in order, signed by one of `client_ca`; resumed: all this was found out in an earlier session
---@field identity string? authenticated as; nil: not
---@field listener string service of the listener: "smtp", "submission", "odmr" or "lmtp"
---@field may_relay boolean the client is in relay_from, or authenticated
---@field data table yours; lives as long as the session

--- A message, as far as it has come.
---@class tern.Message
---@field id string? its name in the queue and in the log; nil: none yet
---@field sender string envelope sender; "": the null sender
---@field sender_domain string its domain in normal form; "" for the null sender
---@field size integer octets: as declared, from `data` on as it came, with our Received
---@field params table of MAIL: body ("7BIT", "8BITMIME" or "BINARYMIME"), smtputf8
---@field requiretls boolean its sender demands verified TLS all the way (RFC 8689)
---@field deliver_by table? its sender wants it to be there in time (DELIVERBY); nil: it did not say
---@field hold_until number? its sender wants it to go not before that (FUTURERELEASE), in seconds since 1970; nil: it did not say
---@field priority integer -9 to 9, as far as the client's word counts (MT-PRIORITY); 0: as usual
---@field set_priority fun(self, priority: integer) in `mail`, `rcpt` and `data`: whatever the client asked for
---@field headers tern.Headers? nil before `data`
---@field body tern.Body? nil before `data`
---@field parts fun(self): table[], boolean what it consists of (MIME), in order, as its sender says: type, filename (UTF-8 where it can be read), disposition, encoding, size (as it stands, encoded), depth. Multiparts are no parts, what is in them is; a message in a message is one, and what is in it follows. And whether that is all: there are at most 1000, in 20 levels
---@field received number? when it came, in seconds since 1970; nil: not yet
---@field client table? who sent it to us, also when the session is gone
---@field helo string? what it said in EHLO
---@field identity string? authenticated as
---@field listener string? service that took it
---@field data table yours; lives until the message is queued

--- Header fields of a message, as they came; our own Received, which stands above them, is not among them. Names in any case. `n` says which of that name: 1 is the first, and what is meant without it; -1 is the last. Changes in `data` only: see *Changing headers*.
---@class tern.Headers
---@field get fun(self, name: string, n: integer?): string? value of the first of that name (or the n-th), unfolded; nil: there is none
---@field raw fun(self, name: string, n: integer?): string? the same as it stands, with its line breaks
---@field decoded fun(self, name: string, n: integer?): string? the same with its encoded words (RFC 2047) as UTF-8; those in another charset than UTF-8, US-ASCII and ISO-8859-1 stay as they are written
---@field all fun(self, name: string): string[] values of all of that name, unfolded, from the top
---@field count fun(self, name: string): integer how many of that name there are
---@field each fun(self): fun(): string, string, string `for name, value, raw in headers:each() do`: all fields from the top, as they stood when it began
---@field add fun(self, name: string, value: string) adds one at the end
---@field prepend fun(self, name: string, value: string) adds one on top, below our Received
---@field set fun(self, name: string, value: string) replaces the first of that name in its place and removes the others; adds one where there is none
---@field replace fun(self, name: string, value: string, n: integer?): boolean replaces the first of that name (or the n-th) in its place; false: there is none, and nothing has changed
---@field remove fun(self, name: string, n: integer?): integer removes all of that name (or the n-th); how many. Received fields that this router wrote stay

--- Content behind the headers, piece by piece, however large it is: `for chunk in message.body:chunks() do`, or `in message.body do`. After each MiB the hook waits for a moment, so that other work goes on.
---@class tern.Body
---@field size integer octets
---@field chunks fun(self): fun(): string? all of it, in pieces of mostly 64 KiB
---@field lines fun(self): fun(): string?, boolean `for line, whole in message.body:lines() do`: without their ends. A line of more than 64 KiB comes in parts, `whole` is true with the last of them only
---@field sha256 fun(self): string the digest of all of it, in lower-case hex
---@field text fun(self, max: integer?): string, boolean all as one string, but at most max octets (default 1 MiB); and whether that is all

--- One recipient.
---@class tern.Recipient
---@field address string as written
---@field local_part string as written, quotes kept
---@field domain string in normal form: lower case, A-labels
---@field params table of RCPT

--- An attempt that did not succeed.
---@class tern.Attempt
---@field number integer from 1
---@field host string? name of the host tried last
---@field address string? its address and port
---@field stage string how far it came
---@field reply table? what the host said; nil: nothing
---@field reason string what went wrong, in words
---@field scope "host"|"message"|"recipient" whose failure it is
---@field permanent boolean without a hook's answer it would be returned to its sender
---@field elapsed number seconds that the attempt took
---@field queued_for number seconds since the message came

--- A file to look things up in, from `tern.map`.
---@class tern.Map
---@field get fun(self, key: string|table): string?, ... the values of the row that fits best (true: a row without any); nil: none
---@field count fun(self): integer rows

--- What a client presents in AUTH.
---@class tern.Credentials
---@field mechanism string "PLAIN", "LOGIN", "CRAM-MD5" or "SCRAM-SHA-256"
---@field user string as the client says it
---@field password string? nil with CRAM-MD5 and SCRAM-SHA-256, which prove to know it

--- A request for waiting mail.
---@class tern.Request
---@field kind string "ETRN" or "ATRN"
---@field domain string what is asked about: a domain in normal form; the name behind `#`
---@field option string? "@": the domain and its subdomains; "#": a group of queues
---@field argument string as the client said it, with the option; ATRN without one: empty
---@field member boolean `domain` was not said itself: it belongs to what was (`@`, `#`, or ATRN without an argument) and has mail waiting
---@field operator boolean no client asked, but the operator or the schedule
---@field scheduled boolean the schedule asked

--- What `tern.kv` gives: values that all workers share and that outlive a restart. Keys have 1 to 400 octets; values are strings, numbers, booleans and tables (as tern.json writes them), at most 8 KiB. set, add and delete wait until it is on disk, and give `nil, {kind = "full"|"disk"|"size"|"stopping", text = }` when it cannot be. get and each do not wait.
---@class tern.Kv
---@field get fun(self, key: string): any, number? the value and the seconds until it ends (nil: never); nil: there is none
---@field set fun(self, key: string, value: any, options: table?): true?, table? puts or replaces it
---@field add fun(self, key: string, value: any, options: table?): boolean?, table? puts it where there is none: true; false: there is one. Of many who add the same at once, in all workers, one gets true
---@field delete fun(self, key: string): boolean?, table? false: there was none
---@field each fun(self, prefix: string?): fun(): string, any, number? `for key, value, left in kv:each() do`, in the order of keys; with a prefix only keys that begin with it. It sees changes that are made meanwhile behind where it stands

---@class tern.Policy
---@field name? string
---@field connect? fun(ctx: tern.Ctx): tern.Verdict|nil a client was accepted, before the greeting
---@field helo? fun(ctx: tern.Ctx): tern.Verdict|nil EHLO, HELO or LHLO
---@field auth? fun(ctx: tern.Ctx): tern.Verdict|nil a client presents credentials (AUTH)
---@field mail? fun(ctx: tern.Ctx): tern.Verdict|nil MAIL FROM
---@field rcpt? fun(ctx: tern.Ctx): tern.Verdict|nil each RCPT TO
---@field data? fun(ctx: tern.Ctx): tern.Verdict|nil the message is here, before its reply; once for each policy
---@field route? fun(ctx: tern.Ctx): tern.Route|tern.Verdict|nil once for each recipient before it is queued, and again when policy has changed since
---@field result? fun(ctx: tern.Ctx): tern.Route|tern.Verdict|nil an attempt did not succeed
---@field etrn? fun(ctx: tern.Ctx): tern.Verdict|nil ETRN, or the operator's release
---@field event? fun(ctx: tern.Ctx) anything worth recording happened

---@class tern.Route
---@class tern.Verdict

local tern, route = {}, {}

---@class tern.TernAcceptOptions
---@field identity? string In `auth`: who it is, as `session.identity` will say; default: the user.
---@field password? string In `auth`: what the client must prove to know, a password or an entry of a password file (`{SCRAM-SHA-256}...`).

--- Stop asking, accept.
---@param options? tern.TernAcceptOptions
---@return tern.Verdict
function tern.accept(options) end

---@class tern.TernRejectOptions
---@field [integer] string|integer

--- Refuse for good, by a 5yz reply (in `etrn` 458 and 459 as well).
---@param options? tern.TernRejectOptions
---@return tern.Verdict
function tern.reject(options) end

---@class tern.TernDeferOptions
---@field [integer] string|integer
---@field retry? string|number For queued mail: not before this has passed.

--- Refuse for now, by a 4yz reply; keep queued mail.
---@param options? tern.TernDeferOptions
---@return tern.Verdict
function tern.defer(options) end

--- Accept and drop; recorded.
---@return tern.Verdict
function tern.discard() end

---@class tern.TernBounceOptions
---@field [integer] string|integer

--- Return queued mail to its sender now. Without a reply: that of the attempt.
---@param options? tern.TernBounceOptions
---@return tern.Verdict
function tern.bounce(options) end

---@class tern.TernReleaseOptions
---@field queue? string[]|string Which queues; default: the one named like the domain of the request.
---@field subdomains? boolean To `ETRN @domain`: the queues of all subdomains as well, if their policies agree.
---@field group? boolean To `ETRN #name`: all queues `name/DOMAIN`, if the policies of those domains agree.
---@field deliver_to? string[]|string Hosts that get it, or "client": the address that asked. Not needed for ATRN.
---@field route? tern.Route Instead of deliver_to.
---@field window? string|number How long failures are tried again before the mail is held again.

--- Let go what is held.
---@param options? tern.TernReleaseOptions
---@return tern.Verdict
function tern.release(options) end

---@class tern.RouteMxOptions
---@field domain? string Whose MX; in a hook the default is the recipient's.
---@field below? "self" self: only hosts preferred to this router (a backup MX).
---@field when_best? "bounce"|"defer" With `below`, where this router is itself the best.
---@field mta_sts? boolean Follow the domain's MTA-STS policy (RFC 8461): only the MX that it names, and only by TLS with a good certificate. With `tls = "none"` it is not looked at; hosts with TLSA records are taken at their word instead.
---@field queue? string The name it is accounted and throttled under; default: from the domain or the hosts.
---@field retry? string As `queue.retry` of the configuration.
---@field hours? string The part of the day, in local time, in which mail is tried: "22:00-06:00"; default: all of it. Until then it waits; `tern queue retry` and ETRN do not.
---@field lifetime? string|number As `queue.lifetime`; "forever": never given up.
---@field warn_after? string|number As `queue.warn_after`.
---@field concurrency? integer As `queue.concurrency`.
---@field source? string[]|string Local address to connect from, or a list of them, over which connections are spread; see [sources and rates](sources.md).
---@field tls? "opportunistic"|"none"|"require"|"verify"|"dane" opportunistic: where offered; require: else defer; verify: with a good certificate; dane: by the host's TLSA records where DNS is secure, else opportunistic (RFC 7672).
---@field fallback? tern.Route Another route, for when this one's hosts fail.
---@field on_host_failure? "lifetime"|"forever" forever: failures of the host (not of the message) never end it.
---@field reason? string Shown by `tern why`.
---@field rate? string Messages that its queue hands over in a time: "100/m", evenly; "100/m,burst=20": up to 20 of them at once; see [sources and rates](sources.md).
---@field auth? string Who we are to the hosts: user, password.
---@field certificate? string PEM file: our certificate, then the intermediate ones, shown to hosts that ask for one; TLS is then required at least. See [TLS](tls.md#our-certificate-for-hosts).
---@field key? string PEM file: its private key.

--- By MX.
---@param options? tern.RouteMxOptions
---@return tern.Route
function route.mx(options) end

---@class tern.RouteHostsOptions
---@field [integer] string
---@field balance? "failover"|"random"|"round_robin" In which order hosts are tried, within each group.
---@field mx? boolean Look MX up for names without brackets (a smart host).
---@field queue? string The name it is accounted and throttled under; default: from the domain or the hosts.
---@field retry? string As `queue.retry` of the configuration.
---@field hours? string The part of the day, in local time, in which mail is tried: "22:00-06:00"; default: all of it. Until then it waits; `tern queue retry` and ETRN do not.
---@field lifetime? string|number As `queue.lifetime`; "forever": never given up.
---@field warn_after? string|number As `queue.warn_after`.
---@field concurrency? integer As `queue.concurrency`.
---@field source? string[]|string Local address to connect from, or a list of them, over which connections are spread; see [sources and rates](sources.md).
---@field tls? "opportunistic"|"none"|"require"|"verify"|"dane" opportunistic: where offered; require: else defer; verify: with a good certificate; dane: by the host's TLSA records where DNS is secure, else opportunistic (RFC 7672).
---@field fallback? tern.Route Another route, for when this one's hosts fail.
---@field on_host_failure? "lifetime"|"forever" forever: failures of the host (not of the message) never end it.
---@field reason? string Shown by `tern why`.
---@field rate? string Messages that its queue hands over in a time: "100/m", evenly; "100/m,burst=20": up to 20 of them at once; see [sources and rates](sources.md).
---@field auth? string Who we are to the hosts: user, password.
---@field certificate? string PEM file: our certificate, then the intermediate ones, shown to hosts that ask for one; TLS is then required at least. See [TLS](tls.md#our-certificate-for-hosts).
---@field key? string PEM file: its private key.

--- Given hosts: "host", "host:port", "[host]", "192.0.2.1:25", "[2001:db8::1]:25", "lmtp://host:port", "lmtp:/path"; or groups of them, tried in their order: `{ { "a", "b" }, { "c", tls = "verify" } }`.
---@param options? tern.RouteHostsOptions
---@return tern.Route
function route.hosts(options) end

---@class tern.RouteLmtpOptions
---@field [integer] string
---@field balance? "failover"|"random"|"round_robin" In which order hosts are tried.
---@field queue? string The name it is accounted and throttled under; default: from the domain or the hosts.
---@field retry? string As `queue.retry` of the configuration.
---@field hours? string The part of the day, in local time, in which mail is tried: "22:00-06:00"; default: all of it. Until then it waits; `tern queue retry` and ETRN do not.
---@field lifetime? string|number As `queue.lifetime`; "forever": never given up.
---@field warn_after? string|number As `queue.warn_after`.
---@field concurrency? integer As `queue.concurrency`.
---@field source? string[]|string Local address to connect from, or a list of them, over which connections are spread; see [sources and rates](sources.md).
---@field tls? "opportunistic"|"none"|"require"|"verify"|"dane" opportunistic: where offered; require: else defer; verify: with a good certificate; dane: by the host's TLSA records where DNS is secure, else opportunistic (RFC 7672).
---@field fallback? tern.Route Another route, for when this one's hosts fail.
---@field on_host_failure? "lifetime"|"forever" forever: failures of the host (not of the message) never end it.
---@field reason? string Shown by `tern why`.
---@field rate? string Messages that its queue hands over in a time: "100/m", evenly; "100/m,burst=20": up to 20 of them at once; see [sources and rates](sources.md).
---@field auth? string Who we are to the hosts: user, password.
---@field certificate? string PEM file: our certificate, then the intermediate ones, shown to hosts that ask for one; TLS is then required at least. See [TLS](tls.md#our-certificate-for-hosts).
---@field key? string PEM file: its private key.

--- Given servers of LMTP: a path, or host:port.
---@param options? tern.RouteLmtpOptions
---@return tern.Route
function route.lmtp(options) end

---@class tern.RouteHoldOptions
---@field release_every? string|number Lets it go by the clock, so often, as the operator could by `tern etrn`: the hook `etrn` is asked with `request.scheduled`.
---@field release_between? string Only between these times of the day, such as `{ "01:00", "05:00" }`, in the local time of the machine.
---@field warn_messages? integer With so many recipients waiting in its queue, the event `queue_filling` tells.
---@field warn_bytes? string|integer The same for the sum of their sizes.
---@field queue? string The name it is accounted and throttled under; default: from the domain or the hosts.
---@field retry? string As `queue.retry` of the configuration.
---@field hours? string The part of the day, in local time, in which mail is tried: "22:00-06:00"; default: all of it. Until then it waits; `tern queue retry` and ETRN do not.
---@field lifetime? string|number As `queue.lifetime`; "forever": never given up.
---@field warn_after? string|number As `queue.warn_after`.
---@field concurrency? integer As `queue.concurrency`.
---@field source? string[]|string Local address to connect from, or a list of them, over which connections are spread; see [sources and rates](sources.md).
---@field tls? "opportunistic"|"none"|"require"|"verify"|"dane" opportunistic: where offered; require: else defer; verify: with a good certificate; dane: by the host's TLSA records where DNS is secure, else opportunistic (RFC 7672).
---@field fallback? tern.Route Another route, for when this one's hosts fail.
---@field on_host_failure? "lifetime"|"forever" forever: failures of the host (not of the message) never end it.
---@field reason? string Shown by `tern why`.
---@field rate? string Messages that its queue hands over in a time: "100/m", evenly; "100/m,burst=20": up to 20 of them at once; see [sources and rates](sources.md).
---@field auth? string Who we are to the hosts: user, password.
---@field certificate? string PEM file: our certificate, then the intermediate ones, shown to hosts that ask for one; TLS is then required at least. See [TLS](tls.md#our-certificate-for-hosts).
---@field key? string PEM file: its private key.

--- Kept, not tried, until released. Without `lifetime` it is kept for ever. A queue is minded by the oldest that waits in it: give all that is held in one queue the same `lifetime`, `release_...` and `warn_...`.
---@param options? tern.RouteHoldOptions
---@return tern.Route
function route.hold(options) end

---@class tern.RouteDiscardOptions
---@field reason? string Shown by `tern why`.

--- Dropped; recorded.
---@param options? tern.RouteDiscardOptions
---@return tern.Route
function route.discard(options) end

---@class tern.RouteBounceOptions
---@field [integer] string|integer

--- Returned to its sender at once.
---@param options? tern.RouteBounceOptions
---@return tern.Route
function route.bounce(options) end

---  -> number: seconds since 1970, with a fraction
function tern.now(...) end

--- duration -> : goes on when it has passed
function tern.sleep(...) end

--- duration -> number: seconds: of "15m", 900
function tern.duration(...) end

--- name, {max} -> kv: values under that name, kept in the spool: see *kv*
function tern.kv(...) end

--- name, rate, {key, cost} -> boolean, number?: takes one from a bucket that all workers share: true; or false and the seconds until it may be. rate: "100/m", "5/10s,burst=20"; the burst is the count where it is not said. Buckets are in memory: a restart fills them
function tern.limit(...) end

--- name -> {scheduled=, waiting=, held=, waiting_bytes=}: how many recipients the queue holds, in all workers
function tern.queued(...) end

---@type string version of the program (a field)
tern.version = nil

tern.dns = {}

--- name -> { {host=, preference=}... }: in order of preference
function tern.dns.mx(...) end

--- name -> { "192.0.2.1"... }: IPv4 addresses
function tern.dns.a(...) end

--- name -> { "2001:db8::1"... }: IPv6 addresses
function tern.dns.aaaa(...) end

--- name -> { address... }: both, asked for at the same time
function tern.dns.addresses(...) end

--- name -> { text... }: texts, parts of one joined
function tern.dns.txt(...) end

--- address or name -> { name... }: names of an address
function tern.dns.ptr(...) end

--- name -> { {usage=, selector=, matching=, data=}... }: data in bytes
function tern.dns.tlsa(...) end

--- name -> { {host=, port=, priority=, weight=}... }: in order of priority
function tern.dns.srv(...) end

tern.route = {}

--- route -> plan: the hosts to which that route leads at present, as a delivery would find them: `plan.status` "ok", "defer" or "permanent"; `plan.hosts`, an array of {name, address, port, preference} in the order of trying; `plan.discarded`, an array of {what, reason}: records that are not used; where there is no host, `plan.reply` ({code, enhanced, text}) and `plan.reason`: "null_mx", "nxdomain", "dns_failure", "we_are_best", "not_an_mx", "own_listener", "no_address", "mta_sts"
function tern.route.resolve(...) end

tern.smtp = {}

--- {host or route, sender, recipient, tls, timeout} -> {code, enhanced, text, stage, host, address}: asks a host whether it answers, or whether it takes a recipient, without a message (call-forward): what it said to EHLO, MAIL or RCPT. Hosts that failed lately are not asked
function tern.smtp.probe(...) end

tern.net = {}

--- text, or a list of texts -> networks: `networks:contains(address)` says whether an address lies in one of them
function tern.net.cidr(...) end

tern.map = {}

--- name, {policies=, policy=, keys=} -> map: a file of domains, addresses or texts with values; see [maps](maps.md)
function tern.map.file(...) end

--- name -> map: a file of networks with values; see [maps](maps.md)
function tern.map.cidr(...) end

tern.json = {}

--- value -> string: a table with t[1] (or none at all) is an array
function tern.json.encode(...) end

--- text -> value, or nil and a message: null is tern.json.null
function tern.json.decode(...) end

tern.mime = {}

--- text -> string: words beyond ASCII as encoded words (RFC 2047), for a comment or the name before an address; ASCII stays as it is
function tern.mime.encode(...) end

--- text -> string: the same back, as `headers:decoded` does
function tern.mime.decode(...) end

tern.log = {}

--- text or table -> : 
function tern.log.debug(...) end

--- text or table -> : a line of the log: a text, or fields as in `{ "seen", client = a }`
function tern.log.info(...) end

--- text or table -> : 
function tern.log.warn(...) end

--- text or table -> : 
function tern.log.error(...) end

tern.policy = {}

--- definition -> function(options) -> policy: see *Policies with options*
function tern.policy.define(...) end

tern.route = route

return tern
