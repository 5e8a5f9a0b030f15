/* internal.h - struct spool and its ports, for the files of this folder only.
 *
 * Layer: spool.
 *
 * Locks, none held while another is taken: queue_lock (what was submitted, ports, closing), each
 * port's lock (what is done and not told yet), store.lock (see store.h).
 */
#ifndef TERN_SPOOL_INTERNAL_H
#define TERN_SPOOL_INTERNAL_H

#include <stdatomic.h>

#include "spool/apply.h"
#include "spool/spool.h"
#include "spool/store.h"

/* Set in op->result while the writer has the op: neither done nor failed. */
enum { OP_OPEN = 1 };

struct spool_port {
    struct port_spool ops;
    struct spool *spool;
    struct port_workers *workers;
    int number;           /* in spool->port; op->worker */
    struct reader reader; /* the worker's */
    struct list finished; /* the writer's: done in the present group */

    pthread_mutex_t lock;
    struct list told; /* done, waiting for the worker's next turn */
    bool posted;      /* message is on its way to the worker */
    struct worker_message message;
};

struct writer_counters {
    atomic_uint_fast64_t commits, ops, failed_ops, bytes, max_group, reruns, free_space,
        disk_errors;
    struct latency_counter commit, unit;
};

struct spool {
    struct store store;
    uint64_t min_free, group_bytes;
    uint32_t group_ops;
    uint64_t (*clock_us)(void); /* may be NULL */

    pthread_mutex_t queue_lock;
    pthread_cond_t work; /* something was submitted while the writer slept, or closing */
    struct list submitted;
    size_t n_urgent, n_patient; /* units in it */
    uint64_t patient_since_us;  /* when the first patient one came */
    size_t company;             /* urgent units that the last group had */
    uint64_t gather_until_us;   /* until then the writer waits for as many again; 0: it does not */
    bool sleeping, closing;
    struct spool_port *port[SPOOL_MAX_PORTS];
    int n_ports;

    /* the writer's own */
    bool running;
    pthread_t thread;
    struct apply apply;
    struct reader reader;
    struct list backlog; /* taken, in the order in which they were submitted */
    struct spool_op *group[SPOOL_MAX_GROUP];
    uint64_t groups_n;            /* since the start */
    uint64_t room, room_known_us; /* free on the disk, and when that was asked; 0: never */
    struct writer_counters counters;
};

/* spool.c: opens, without a writer. */
int spool_make(const struct spool_options *o, bool readonly, struct spool **ret, char *ret_why,
               size_t why_size);

/* writer.c */
int writer_start(struct spool *s);
void writer_stop(struct spool *s); /* drains and joins */
void writer_submit(struct port_spool *self, struct spool_op *op);

/* port.c */
void port_free(struct spool_port *p);
/* Hands what is in `done` to the worker, with one message at most. */
void port_tell(struct spool_port *p, struct list *done);

#endif
