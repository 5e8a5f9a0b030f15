/* engine.h - one worker's engine: everything between the ports. What the daemon and the simulation
 * drive.
 *
 * Layer: engine. One per worker; all calls from that worker's thread, but where noted. The engine owns
 * its sessions, queues and deliveries; it borrows the ports and the shared block, which outlive it.
 *
 * Modules, each with its header: session_in (a client's session), intake (a message on its way into
 * the spool), queue (what waits for one destination), delivery (one attempt), next_hop (a route's
 * hosts), session_out (a connection to a host, and the pool), hosts (what is known of each address),
 * outcome (what becomes of an attempt's results), etrn, probe (asking a host without a message), limits
 * (how often something may happen, for all workers), clients (what each client does, likewise).
 */
#ifndef TERN_ENGINE_ENGINE_H
#define TERN_ENGINE_ENGINE_H

#include <stdatomic.h>

#include "engine/ports.h"
#include "engine/settings.h"
#include "engine/snapshot.h"

/* Shared by all workers; counters only ever grow. Read from any thread. */
struct engine_counters {
    atomic_ullong connections, sessions_open; /* the latter is a gauge */
    atomic_ullong messages_accepted, messages_rejected, recipients_accepted, recipients_rejected;
    atomic_ullong octets_accepted;
    atomic_ullong delivered, deferred, bounced, expired, discarded; /* recipients */
    atomic_ullong connections_out, connections_out_open, connections_out_reused;
    atomic_ullong host_failures, hooks_failed, dsn_sent, loops;
    atomic_ullong auth_ok, auth_failed;
    atomic_ullong tls_sessions, tls_resumed;          /* of clients */
    atomic_ullong tls_out_sessions, tls_out_failures; /* as counted for reports: tls_reports.h */
    atomic_ullong clients_limited, early_talkers;     /* refused: too much of something; too soon */
    atomic_ullong stress_entered, workers_stressed;   /* the latter is a gauge */
};

enum { FAILING_SLOTS = 4096 };

struct limits;
struct sources;
struct lanes;
struct clients;
struct engine_shared {
    struct engine_counters counters;
    struct limits *limits;   /* of tern.limit; its own lock. NULL: nothing is limited */
    struct sources *sources; /* local addresses (sources.h). NULL: nothing is limited */
    struct lanes *lanes;     /* of fallbacks (lanes.h); its own lock. NULL: nothing is limited */
    struct clients
        *clients; /* what each does (clients.h); its own lock. NULL: nothing is limited */
    /* By a hash of the address, how many hosts that fail the workers know: whether mail from somewhere may
     * be a sign of life that somebody waits for (hosts.h). */
    atomic_ushort failing[FAILING_SLOTS];
    uint8_t auth_key[32];     /* chance: makes up what strangers see (sasl.h); fixed at start */
    struct net_addr self[64]; /* addresses of interfaces and listeners: fixed at start */
    size_t n_self;
    atomic_bool stopping; /* no new sessions, no new deliveries */
};

struct engine;

/* The engine takes one reference of the snapshot. -ENOMEM. */
int engine_new(const struct ports *ports, struct engine_shared *shared, struct snapshot *snapshot,
               struct engine **ret);
/* Drops sessions and deliveries in progress (nothing is lost: what was acknowledged is in the spool). */
struct engine *engine_free(struct engine *e);

/* Looks up its queues in the spool, a batch a turn, and begins delivery. */
void engine_start(struct engine *e);
/* Takes over an incoming stream. */
void engine_accept(struct engine *e, struct stream *s, const struct listen_settings *listener);
/* New sessions and attempts use it from now on. Takes one reference. Held mail is routed anew. */
void engine_reload(struct engine *e, struct snapshot *snapshot);
/* Those of the snapshot in force. */
struct hooks *engine_hooks(struct engine *e);
/* What these hooks look things up in has changed (hooks->data_fingerprint): held mail is routed anew. */
void engine_policy_changed(struct engine *e);
/* Graceful: sessions are told 421 when they are between transactions, deliveries end. */
void engine_stop(struct engine *e);
/* Nothing is in progress any more (after engine_stop). */
bool engine_idle(const struct engine *e);

/* Which worker owns a queue. From any thread. */
int engine_queue_owner(struct str queue, int workers);

#endif
