/* explain_ports.h - ports with which an engine can be asked, and changes nothing: real time and real DNS, no
 * spool, no connections.
 *
 * Layer: daemon. For `tern explain`. Each look-up, each connection that something wanted to make and each
 * event is told to the owner. What policies remember (tern.kv) reads as empty, and what they write goes
 * nowhere.
 */
#ifndef TERN_DAEMON_EXPLAIN_PORTS_H
#define TERN_DAEMON_EXPLAIN_PORTS_H

#include "engine/settings.h"
#include "io/https.h"
#include "io/net.h"
#include "io/resolver.h"

struct explain_ports {
    struct ports ports; /* for the engine and the policies */
    struct io_loop *loop;

    /* To be set before use; they live during the call. */
    void (*answered)(void *owner, const struct dns_answer *answer);
    void (*dialled)(void *owner, const struct net_addr *to); /* a connection that was not made */
    void (*happened)(void *owner, const struct event *event);
    void *owner;

    struct io_resolver *resolver;
    struct io_https *https; /* policies of MTA-STS are fetched, and not kept */
    struct port_dns dns;
    struct port_net net;
    struct port_spool spool;
    struct port_journal journal;
    struct list submitted; /* operations for the spool that is not there */
    struct later tell;
};

/* -ENOMEM, -EMFILE, -EINVAL (the system's DNS configuration cannot be used). */
int explain_ports_init(struct explain_ports *p, const struct settings *settings) MUST_USE;
/* After what used them. */
void explain_ports_done(struct explain_ports *p);

#endif
