/* net_impl.h - what net.c and net_stream.c share. Layer: sim, internal. */
#ifndef TERN_SIM_NET_IMPL_H
#define TERN_SIM_NET_IMPL_H

#include "sim/net.h"

enum end_state {
    END_CONNECTING,
    END_OPEN,
    END_LEFT, /* no owner: sends what it has to send */
    END_DEAD, /* in the graveyard until this turn is over */
};

enum item_kind { ITEM_BYTES, ITEM_HELLO, ITEM_FIN, ITEM_RESET };

/* Something under way to the peer. Bytes themselves are in end.flight. */
struct item {
    struct list link;
    enum item_kind kind;
    size_t n; /* octets of ITEM_BYTES */
    int64_t at;
};

struct end {
    struct stream stream; /* first */
    struct sim_net *net;
    struct list link;
    struct end *peer; /* NULL: not connected yet, or dead */
    enum end_state state;
    struct sim_uplink *uplink; /* of the engine that owns it; NULL: a host's or client's */
    int64_t latency_ms;

    struct buf in; /* arrived and not consumed */
    bool paused;   /* the owner left input: nothing arrives until resume */
    bool in_data;  /* inside ev->data */

    struct buf out;    /* written, not under way yet */
    bool above_high;   /* `drained` is owed */
    struct buf flight; /* under way */
    struct list items;
    int64_t last_at;      /* no item arrives before the one in front of it */
    struct timer arrive;  /* the first item */
    struct timer window;  /* the peer has made room */
    struct timer linger;  /* END_LEFT for too long */
    struct timer connect; /* END_CONNECTING: how it ends */
    struct later resume;  /* input waits, and the owner wants it */
    struct sim_listener *to;
    enum sim_reach reach;
    bool no_source;                             /* what it dials from is not on the machine */
    bool close_wanted, fin_sent, frozen, heard; /* heard: some bytes have come */

    bool tls_wanted, hello_sent, hello_seen;
    struct tls_request tls; /* name and dane are copies */
    struct sim_certificate cert;
    bool has_cert;
};

struct sim_net {
    struct sim_clock *clock;
    struct sim_random random;
    struct list listeners, ends, graveyard;
    struct timer reaper;
    struct sim_net_faults faults;
    enum sim_reach unknown;
    void (*make)(void *arg, const struct net_addr *to);
    void *make_arg;
    int64_t latency_ms;
    uint16_t next_port;
    uint64_t dials, accepted;
};

struct sim_uplink {
    struct port_net port;
    struct sim_net *net;
    struct net_addr source4, source6;
    struct net_addr absent[SIM_MAX_ABSENT]; /* addresses that are not on its machine */
    size_t n_absent;
    struct sim_certificate cert;
    bool has_cert;
};

static inline struct end *end_of(struct stream *s)
{
    return CONTAINER_OF(s, struct end, stream);
}

struct end *end_new(struct sim_net *n, int64_t latency_ms);
void end_bury(struct end *e);
void end_free(struct end *e);
/* Tells the owner and lets the end go; what is under way still arrives. error is told to the owner; the
 * peer gets a FIN for 0, else a reset. */
void end_lose(struct end *e, int error, const char *why);
void cert_copy(struct sim_certificate *to, const struct sim_certificate *from);
void cert_done(struct sim_certificate *c);

#endif
