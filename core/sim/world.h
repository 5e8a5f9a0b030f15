/* world.h - everything together: N workers' engines, their ports, the network around them, and time.
 *
 * Layer: sim. In order of use:
 *
 *     struct sim_world *w = sim_world_new(seed, workers);
 *     sim_world_zone(w, "example.com. MX 10 mx.example.com.\n mx.example.com. A 192.0.2.1");
 *     struct sim_host *mx = sim_world_host(w, "192.0.2.1");
 *     sim_world_configure(w, settings, sim_policy_hooks, &policy);
 *     sim_world_start(w);
 *     sim_world_send(w, &mail)           a client's message, until its reply
 *     sim_world_advance(w, 12 * SIM_DAY)
 *     sim_world_free(w);
 *
 * Several routers in one network: sim_world_join.
 *
 * All in one thread; the same seed and the same calls give the same run, event by event. Nobody calls into
 * the world from within a callback of it, but for what says that it may be.
 */
#ifndef TERN_SIM_WORLD_H
#define TERN_SIM_WORLD_H

#include "engine/engine.h"
#include "sim/client.h"
#include "sim/dns.h"
#include "sim/host.h"
#include "sim/https.h"
#include "sim/journal.h"
#include "sim/net.h"
#include "sim/passwords.h"
#include "sim/spool.h"

#define SIM_SECOND INT64_C(1000)
#define SIM_MINUTE (60 * SIM_SECOND)
#define SIM_HOUR   (60 * SIM_MINUTE)
#define SIM_DAY    (24 * SIM_HOUR)

enum { SIM_MAX_WORKERS = 16, SIM_JOURNAL_MAX = 20000 };

struct sim_world;

/* Makes the hooks of one worker's snapshot. Never NULL. */
typedef struct hooks *sim_hooks_cb(void *arg, struct ports *ports, int worker,
                                   struct settings *settings);

struct sim_world *sim_world_new(uint64_t seed, int workers);
/* Another router in the network of that one, at the next address (198.51.100.26, 2001:db8:25::26 for the
 * second): time, names, network and hosts are the same, whichever of the worlds is asked; spool, journal and
 * engines are its own. Advancing one advances all. They are freed in any order. */
struct sim_world *sim_world_join(struct sim_world *with, uint64_t seed, int workers);
/* Engines that still run are dropped as in a crash. The last world of a network frees its hosts. NULL is
 * fine. */
struct sim_world *sim_world_free(struct sim_world *w);

/* ---- the engines ------------------------------------------------------------------------------ */

/* For the next start or reload. Takes a reference of settings. Listeners: those of the settings; none:
 * port 25 of the world's own addresses (198.51.100.25, 2001:db8:25::25 for the first router), where
 * "0.0.0.0" and "::" listen too.
 * With settings->tls_cert the engine can do TLS. */
void sim_world_configure(struct sim_world *w, struct settings *settings, sim_hooks_cb *hooks,
                         void *arg);
void sim_world_start(struct sim_world *w);
/* In order: engine_stop, then time goes on until all are idle, at most max_ms. False: they were not, and
 * were dropped; or a planned crash came first. The world is down in either case. */
bool sim_world_stop(struct sim_world *w, int64_t max_ms);
/* The machine stops at once: what is not committed is lost, connections break. */
void sim_world_crash(struct sim_world *w);
bool sim_world_running(const struct sim_world *w);
void sim_world_reload(struct sim_world *w);
/* When the n-th commit from now on stands (`synced`), or just before: crash, and start again after down_ms. */
void sim_world_crash_at(struct sim_world *w, uint64_t n, bool synced, int64_t down_ms);
uint64_t sim_world_crashes(const struct sim_world *w);

/* ---- time ------------------------------------------------------------------------------------- */

void sim_world_advance(struct sim_world *w, int64_t ms);
/* Goes on until `until` says true, at most max_ms; returns what it said last. */
bool sim_world_until(struct sim_world *w, bool (*until)(void *arg), void *arg, int64_t max_ms);

/* ---- around the engines ----------------------------------------------------------------------- */

/* Replaces the zone, or adds to it. Text that is wrong aborts with its reason. */
void sim_world_zone(struct sim_world *w, const char *text);
void sim_world_zone_add(struct sim_world *w, const char *text);
/* The host at that address ("192.0.2.1", "[2001:db8::1]:2525", "/run/lmtp"), made when it is not there:
 * up, on all ports unless one is named. Its name is the first that the zone gives that address. */
struct sim_host *sim_world_host(struct sim_world *w, const char *addr);
/* From now on a host is made, up and on all ports, at each address that somebody dials and that is not the
 * world's own. sim_world_host finds it, whatever port it is asked for. */
void sim_world_populate(struct sim_world *w);

/* Sends and waits for the end. `to` none: the first listener; `from` none: 203.0.113.9. LMTP where the listener speaks it. The outcome lives until
 * the world ends. */
const struct sim_outcome *sim_world_send(struct sim_world *w, const struct sim_mail *mail);
/* The same for one recipient and plain text; returns the reply's code (0: the connection was lost). */
int sim_world_mail(struct sim_world *w, const char *sender, const char *recipient,
                   const char *text);
/* Begins it and does not wait. */
const struct sim_outcome *sim_world_post(struct sim_world *w, const struct sim_mail *mail);
/* A raw session, greeted. `to` and `from` none (or NULL) as above. */
struct sim_session *sim_world_session(struct sim_world *w, const struct net_addr *from);
struct sim_session *sim_world_session_to(struct sim_world *w, const struct net_addr *to,
                                         const struct net_addr *from);
/* Sends the line with CRLF and waits for its reply; code 0: closed. */
struct smtp_reply sim_world_line(struct sim_world *w, struct sim_session *s, const char *line);
/* The next one that comes: LMTP has several behind a message. */
struct smtp_reply sim_world_reply(struct sim_world *w, struct sim_session *s);

/* A whole exchange of AUTH; the last reply. A server that cannot prove to know the password is cancelled: 501. */
struct smtp_reply sim_world_auth(struct sim_world *w, struct sim_session *s, enum sasl_mechanism m,
                                 const struct sasl_credentials *cred);

/* ---- looking ---------------------------------------------------------------------------------- */

/* An address is not on the machine of the router, or is again. */
void sim_world_absent(struct sim_world *w, const struct net_addr *addr, bool absent);
struct sim_clock *sim_world_clock(struct sim_world *w);
struct sim_net *sim_world_net(struct sim_world *w);
struct sim_dns *sim_world_dns(struct sim_world *w);
struct sim_spool *sim_world_spool(struct sim_world *w);
struct sim_journal *sim_world_journal(struct sim_world *w);
struct sim_random *sim_world_random(struct sim_world *w); /* for the test's own dice */
struct sim_passwords *sim_world_passwords(struct sim_world *w);
/* Engines have no HTTPS, and so no MTA-STS, until this is asked for, before the start. */
struct sim_https *sim_world_https(struct sim_world *w);
struct engine *sim_world_engine(struct sim_world *w, int worker);
struct ports *sim_world_ports(struct sim_world *w, int worker);
struct engine_shared *sim_world_shared(struct sim_world *w);
int sim_world_workers(const struct sim_world *w);
/* Where a client finds the index-th listener; past the last: port 25 of the world's own address. */
struct net_addr sim_world_listener(const struct sim_world *w, size_t index);
size_t sim_world_listeners(const struct sim_world *w);
/* Clients are accepted by that worker; <0: any (the default). */
void sim_world_accept_by(struct sim_world *w, int worker);
/* Recipients in the spool. */
size_t sim_world_queued(struct sim_world *w);
/* Its own address: 0 IPv4, 1 IPv6. */
struct net_addr sim_world_address(const struct sim_world *w, int which);
struct net_addr sim_addr(const char *text); /* aborts when it is none */

#endif
