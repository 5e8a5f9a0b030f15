/* explain_ports.c - real time and real DNS, no spool, no connections. Layer: daemon.
 * Interface: explain_ports.h. */
#include "daemon/explain_ports.h"

/* ---- DNS: the resolver's, watched --------------------------------------------------------------- */

/* One look-up; what the engine knows as its struct dns_query. */
struct watched {
    struct explain_ports *ports;
    struct dns_query *inner;
    dns_done *done;
    void *owner;
};

static void on_answer(void *owner, const struct dns_answer *answer)
{
    struct watched *w = owner;
    struct explain_ports *p = w->ports;
    dns_done *done = w->done;
    void *asker = w->owner;

    free(w);
    p->answered(p->owner, answer);
    done(asker, answer);
}

static struct dns_query *dns_query_(struct port_dns *self, struct str name, enum dns_type type,
                                    dns_done *done, void *owner)
{
    struct explain_ports *p = CONTAINER_OF(self, struct explain_ports, dns);
    struct port_dns *dns = io_resolver_port(p->resolver);
    struct watched *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    *w = (struct watched){ .ports = p, .done = done, .owner = owner };
    w->inner = dns->query(dns, name, type, on_answer, w);
    if (w->inner)
        return (struct dns_query *)w;
    free(w);
    return NULL;
}

static void dns_cancel(struct port_dns *self, struct dns_query *q)
{
    struct explain_ports *p = CONTAINER_OF(self, struct explain_ports, dns);
    struct port_dns *dns = io_resolver_port(p->resolver);
    struct watched *w = (struct watched *)q;

    dns->cancel(dns, w->inner);
    free(w);
}

/* ---- connections: none --------------------------------------------------------------------------- */

static struct stream *net_dial(struct port_net *self, const struct net_addr *to,
                               const struct net_addr *source, const struct stream_events *ev,
                               void *owner)
{
    struct explain_ports *p = CONTAINER_OF(self, struct explain_ports, net);

    p->dialled(p->owner, to);
    return NULL;
}

static bool net_can_serve_tls(struct port_net *self)
{
    return false;
}

/* ---- the spool: nothing is there, and what is written is lost ------------------------------------ */

static void tell_submitted(struct later *l)
{
    struct explain_ports *p = CONTAINER_OF(l, struct explain_ports, tell);
    struct list batch, *it;

    list_init(&batch);
    list_join(&batch, &p->submitted);
    while ((it = list_pop(&batch))) {
        struct spool_op *op = LIST_ENTRY(it, struct spool_op, link);
        op->result = 0;
        op->done(op);
    }
}

static void spool_submit(struct port_spool *self, struct spool_op *op)
{
    struct explain_ports *p = CONTAINER_OF(self, struct explain_ports, spool);

    list_init(&op->link);
    list_push(&p->submitted, &op->link);
    io_loop_later(p->loop, &p->tell);
}

static int no_message(struct port_spool *self, const struct msgid *id, struct buf *ret)
{
    return -ENOENT;
}

static int no_chunk(struct port_spool *self, const struct msgid *id, uint32_t chunk,
                    struct buf *ret)
{
    return -ENOENT;
}

static int no_recipient(struct port_spool *self, const struct msgid *id, uint32_t n,
                        struct spool_entry *ret, struct buf *ret_record)
{
    return -ENOENT;
}

static int no_due(struct port_spool *self, struct str queue, enum spool_class c,
                  const struct spool_due *after, int64_t until_ms, struct spool_due *ret,
                  size_t max)
{
    return 0;
}

static int no_entries(struct port_spool *self, const struct msgid *after_id, uint32_t after_n,
                      struct spool_entry *ret, size_t max)
{
    return 0;
}

static int no_queues(struct port_spool *self, struct str after, struct spool_queue *ret, size_t max)
{
    return 0;
}

static int no_queue(struct port_spool *self, struct str name, struct spool_queue *ret)
{
    return -ENOENT;
}

static int no_value(struct port_spool *self, struct str name, struct str key, int64_t *ret_expires,
                    struct buf *ret_value)
{
    return -ENOENT;
}

static int no_values(struct port_spool *self, struct str name, struct str prefix, struct str after,
                     struct buf *ret, size_t max)
{
    return 0;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

static void journal_record(struct port_journal *self, const struct event *e)
{
    struct explain_ports *p = CONTAINER_OF(self, struct explain_ports, journal);

    p->happened(p->owner, e);
}

int explain_ports_init(struct explain_ports *p, const struct settings *settings)
{
    *p = (struct explain_ports){
        .dns = { .query = dns_query_, .cancel = dns_cancel },
        .net = { .dial = net_dial, .can_serve_tls = net_can_serve_tls },
        .spool = { .submit = spool_submit,
                   .read_message = no_message,
                   .read_chunk = no_chunk,
                   .read_recipient = no_recipient,
                   .scan_due = no_due,
                   .scan_entries = no_entries,
                   .scan_queues = no_queues,
                   .read_queue = no_queue,
                   .kv_read = no_value,
                   .kv_scan = no_values },
        .journal = { .record = journal_record },
    };
    list_init(&p->submitted);
    later_init(&p->tell, tell_submitted);
    int e = io_loop_new(0, 1, &p->loop);
    if (e == 0)
        e = io_resolver_new(p->loop, settings->dns_servers, settings->n_dns_servers,
                            settings->dns_timeout_ms, settings->dns_trust_ad, &p->resolver);
    if (e == 0)
        e = io_https_new(p->loop, settings->tls_ca, &p->https);
    if (e < 0) {
        explain_ports_done(p);
        return e;
    }
    io_loop_ports(p->loop, &p->ports);
    p->ports.https = io_https_port(p->https);
    p->ports.dns = &p->dns;
    p->ports.net = &p->net;
    p->ports.spool = &p->spool;
    p->ports.journal = &p->journal;
    return 0;
}

void explain_ports_done(struct explain_ports *p)
{
    tell_submitted(&p->tell); /* what nobody waits for frees itself */
    list_remove(&p->tell.link);
    p->https = io_https_free(p->https);
    p->resolver = io_resolver_free(p->resolver);
    p->loop = io_loop_free(p->loop);
}
