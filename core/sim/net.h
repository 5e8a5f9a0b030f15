/* net.h - the virtual network: full-duplex streams with latency, fragmentation, resets and TLS.
 *
 * Layer: sim. Implements port_net and stream_ops of engine/ports.h. One network for the whole world.
 * Whoever can be reached registers a listener; who dials names an address. A stream has two ends,
 * each with an owner; an end lives until its owner closed it or was told `closed`, and then as long
 * as what it sent is under way. What the owner of an end may expect is what ports.h says, taken at
 * its most unfriendly: bytes come in any pieces, nothing is told before the next turn, a paused
 * reader stops the writer after a window of 64 KiB.
 *
 * TLS is a flag: both ends ask for it, their hellos cross, and both are secured - or not.
 */
#ifndef TERN_SIM_NET_H
#define TERN_SIM_NET_H

#include "sim/clock.h"
#include "sim/random.h"

struct sim_net;

/* Where the engines of one router meet the network: what they dial from, their certificate, their streams. */
struct sim_uplink;

enum {
    SIM_WINDOW = 65536,    /* octets under way and not consumed, in each direction */
    SIM_HIGH_MARK = 65536, /* see stream_events.drained */
    SIM_LOW_MARK = 16384,
    SIM_CLOSE_MS = 10000,   /* stream_close: to send what is unsent */
    SIM_CONNECT_MS = 127000 /* the system's deadline for a host that is silent */
};

enum sim_reach {
    SIM_ACCEPTS,
    SIM_REFUSES,     /* -ECONNREFUSED after the latency */
    SIM_SILENT,      /* -ETIMEDOUT after SIM_CONNECT_MS */
    SIM_UNREACHABLE, /* -EHOSTUNREACH after the latency */
};

/* Embedded in who can be reached. Removed before it is freed. */
struct sim_listener {
    struct list link;
    struct net_addr addr; /* port 0: all ports that no other listener has */
    enum sim_reach reach;
    int64_t latency_ms; /* one way; <0: the network's */
    /* A connection stands. The new owner sets s->ev and s->owner before it returns, or aborts it. */
    void (*accept)(struct sim_listener *l, struct stream *s);
};

/* What one end is in TLS. Strings are copied. */
struct sim_certificate {
    struct str name;  /* whom it is for; empty: none, the subject is empty then */
    bool untrusted;   /* verification fails */
    bool expired;     /* likewise */
    struct str fails; /* not empty: every handshake fails with this reason */
};

/* Chances in a million at each arrival of bytes, but for the first. */
struct sim_net_faults {
    uint32_t split;  /* bytes come in two pieces or more */
    uint32_t reset;  /* both ends are told -ECONNRESET */
    uint32_t freeze; /* nothing arrives any more, on neither side */
    int64_t jitter_ms;
};

struct sim_net *sim_net_new(struct sim_clock *clock, uint64_t seed);
/* Streams that are left are dropped without callbacks. Returns NULL. */
struct sim_net *sim_net_free(struct sim_net *n);

struct sim_uplink *sim_uplink_new(struct sim_net *n);
struct sim_uplink *sim_uplink_free(
    struct sim_uplink *u); /* its streams are not used any more; NULL is fine */
/* For engines: streams dialled here are theirs. */
struct port_net *sim_uplink_port(struct sim_uplink *u);
/* Local addresses of what engines dial without a source; default 198.51.100.25 and 2001:db8:25::25. */
void sim_uplink_set_source(struct sim_uplink *u, const struct net_addr *addr);
/* That address is not on the machine (or is again): who dials from it is told -EADDRNOTAVAIL. At most SIM_MAX_ABSENT. */
enum { SIM_MAX_ABSENT = 16 };
void sim_uplink_set_absent(struct sim_uplink *u, const struct net_addr *addr, bool absent);
/* can_serve_tls of the port, and the certificate of its engines. NULL: none. */
void sim_uplink_set_certificate(struct sim_uplink *u, const struct sim_certificate *c);
/* Ends that its engines still own. */
size_t sim_uplink_streams(const struct sim_uplink *u);

/* For hosts and clients of the simulation. */
struct stream *sim_net_dial(struct sim_net *n, const struct net_addr *to,
                            const struct net_addr *source, const struct stream_events *ev,
                            void *owner);

void sim_net_listen(struct sim_net *n, struct sim_listener *l);
void sim_net_unlisten(struct sim_net *n, struct sim_listener *l);

void sim_net_set_latency(struct sim_net *n, int64_t one_way_ms); /* default 5 */
void sim_net_set_faults(struct sim_net *n, const struct sim_net_faults *f);
/* What addresses without a listener do; default SIM_UNREACHABLE. */
void sim_net_set_unknown(struct sim_net *n, enum sim_reach reach);
/* Asked when somebody dials an address without a listener: may register one. */
void sim_net_on_unknown(struct sim_net *n, void (*make)(void *arg, const struct net_addr *to),
                        void *arg);

/* Of this end (when it is the server in TLS, or fails a handshake). */
void sim_stream_set_certificate(struct stream *s, const struct sim_certificate *c);
/* This end sends no more, but goes on reading; what it had written arrives first. */
void sim_stream_half_close(struct stream *s);
/* Makes an accepted end one of that uplink's engines, as those are that it dialled. */
void sim_stream_set_engine(struct stream *s, struct sim_uplink *u);

/* Connections that were asked for, and those that came to stand. */
uint64_t sim_net_dials(const struct sim_net *n);
uint64_t sim_net_accepted(const struct sim_net *n);

#endif
