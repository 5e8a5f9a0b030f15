/* queue.h - what waits for one destination, and when it goes.
 *
 * Layer: engine. Each queue belongs to the worker that engine_queue_owner names; only there does it exist in memory.
 * The spool knows everything; memory holds a bounded window: jobs that are ready or under way, and per
 * queue a few counters. Arrivals enter the window straight away while it has room (their body is still
 * warm), else the queue remembers that there is more on disk and reads by cursor when it has room.
 *
 * Which one goes next? Those in the window in the order of their due times. A message with more recipients than one
 * transaction takes has one transaction for each pass over the window, behind the others. While older mail waits on
 * disk, every second one is of the newest arrivals: a few of them (QUEUE_FRESH) stay in memory, those of the senders
 * with the fewest among them first, and go from there. So a small message waits neither for a big one nor for the
 * backlog that a busy sender has made, and the old ones have at least every second turn.
 *
 * Mail of a higher priority (MT-PRIORITY) goes first, and none waits for ever because of it: for each level it is due as if
 * it had come QUEUE_HEAD_START_MS earlier, so it goes before others that came up to that much before it, whoever they
 * are, and behind older ones. That order is the spool's, and holds over a restart. Beyond that the order in which mail
 * came holds, and among the fresh ones three of four turns are those of the highest priority. What has a lower priority
 * than usual stands back likewise, but in memory only: on disk it would not be due.
 *
 * What its sender wants to be held (FUTURERELEASE) is due then, and until then on disk. What is to be there in time
 * (DELIVERBY) is looked for when the time is over, whatever its queue waits for: queue_by.c.
 *
 * What waits for a source address (`source`, `sources`) is parked: others of its queue, that have another one or go
 * elsewhere, go on (queue_park.c).
 *
 * How many go at once is engine/pace.h's; a host that has no room for one more is waited for in line (engine/hosts.h).
 *
 * A failure of the host is the queue's state, not each recipient's: the queue backs off, and then probes with one
 * connection; what waits behind costs neither writes nor memory. A failure of a message or a recipient
 * gives that recipient a new due time in the spool.
 */
#ifndef TERN_ENGINE_QUEUE_H
#define TERN_ENGINE_QUEUE_H

#include "base/table.h"
#include "engine/context.h"
#include "engine/throttle.h"
#include "mail/history.h"
#include "mail/message.h"

enum {
    QUEUE_WINDOW = 256, /* jobs of one queue in memory */
    QUEUE_FRESH = 16,   /* arrivals among them that need not wait for what is on disk */
    QUEUE_HOSTS = 8,    /* hosts of an attempt that a queue remembers */
    QUEUE_HEAD_START_MS = 5 * 60 * 1000, /* of each level of priority */
};

static inline int64_t queue_head_start(const struct message *m)
{
    return MAX(m->times.priority, 0) * (int64_t)QUEUE_HEAD_START_MS;
}

/* By their addresses, whatever the port. */
struct queue_hosts {
    uint64_t ip[QUEUE_HOSTS]; /* net_addr_hash_ip */
    uint8_t n;
};

struct queue;

enum job_mode {
    JOB_DELIVER,
    JOB_EXPIRE,  /* too old while its hosts are down: bounces without an attempt */
    JOB_WARN,    /* delayed while its hosts are down: its sender is told */
    JOB_BOUNCE,  /* an operator said so */
    JOB_REROUTE, /* the policy has changed, or an operator said so: only the route is asked for */
    JOB_LOCKED,  /* a change of it is under way in the spool: nobody else begins with it */
    JOB_DAMAGED, /* its rows in the spool are damaged: left where it is, in queue.damaged */
};

/* Queues that wait for a connection, by what is known of their destinations: queue_line.c. */
enum queue_line {
    LINE_PROVEN, /* it works */
    LINE_NEW,    /* not known, and there is an occasion: new mail, or somebody has asked for it */
    LINE_OLD,    /* not known, or known to have failed */
    LINE_LAST,   /* likewise, and one is being tried */
    QUEUE_LINES
};

struct job_key {
    const struct queue *queue;
    struct msgid id;
};

/* Recipients of one message that wait in one queue and go out in one transaction. Owned by its queue
 * while it is ready, by a delivery and then an outcome while it is under way. */
struct job {
    struct worker_message wm; /* on its way to the queue's owner */
    struct list link;
    struct queue *queue; /* NULL until it has reached its owner */
    struct msgid id;
    struct job_key key; /* in the table of all jobs in memory */
    UT_hash_handle hh;
    enum job_mode mode;
    enum spool_class class_; /* which index its recipients stand in */
    struct message *
        message; /* one reference; NULL until loaded. Its body may be NULL: read it from the spool */
    struct arena arena;           /* owns the strings of the recipients */
    struct recipient *recipients; /* behind the name; only n is set until loaded */
    size_t n;
    bool more;       /* further recipients of this message wait in the same queue */
    bool arrived;    /* came from an intake, not from the disk: looked up there before it goes */
    struct list way; /* queue.under_way */
    struct throttle_ticket ticket; /* of its queue's rate, until its transaction begins */
    uint32_t concurrency;          /* that its route allows the queue; 0: any */
    bool going;                    /* its route is known and allows it */
    bool asking;                   /* what the present policy allows */
    bool expects_source;           /* it is to choose a source that is limited, perhaps */
    size_t source_place;           /* the one in this place (engine/sources.h) */
    bool wants_source; /* its attempt ended for want of a source: it waits, and not its queue */
    enum { NOT_PARKED, PARKED_BY_GATE, PARKED_TRIED_IN_VAIN } parked; /* in queue.parked, and why */
    int64_t parked_until;                                             /* TRIED_IN_VAIN: monotonic */
    bool fresh;        /* it came as one of queue.fresh */
    bool forced;       /* an operator or ETRN asked for it: back-offs of hosts do not count (E8), */
    int64_t forced_at; /* if they failed before this (monotonic) */
    bool called;       /* under way: it is what a place in a host's line is for */
    bool is_new;       /* it came from an intake */
    uint8_t broken_off;   /* how often a host that works for others said 421 in its transaction */
    bool damaged;         /* counted in queue.n_damaged */
    enum queue_line line; /* under way: which limit it counts for */
    bool whole;           /* given back as it was, nothing of it is decided */
    uint32_t mark;        /* under way: successes of its queue when it began */
    uint64_t sender;      /* hash; of arrivals */
    int64_t order;        /* wall: those before which it goes have a later one */
    int8_t priority;      /* of arrivals */
    size_t warm;          /* octets of its body in memory */
    struct queue_hosts hosts; /* that this attempt turned to, or left alone */
    struct batch_run *batch;  /* that it is a part of: queue_batch.c; NULL: none */
    struct str reason;        /* BOUNCE: what the sender is told; empty: the usual. In the arena */
    struct route *route;      /* one reference: what this attempt follows; NULL until loaded */
    char name[];              /* of the queue, until it has reached its owner */
};
struct job *job_free(struct job *j);
void job_note_host(struct job *j, const struct net_addr *addr);

struct queues *queues_new(struct engine *e);
struct queues *queues_free(struct queues *q);
/* Scans the spool for own queues, a batch a turn. */
void queues_start(struct queues *q);
/* No new attempts. */
void queues_stop(struct queues *q);
/* Commands and changes of their own under way. */
bool queues_busy(const struct queues *q);
size_t queues_active(const struct queues *q); /* deliveries under way */

/* After a commit: tells each queue's owner (this worker or another). recipients are copied, the message
 * is referenced. Recipients with a ROUTE_HOLD are told too (a released queue takes them). */
void queues_arrived(struct engine *e, struct message *m, const struct recipient *recipients,
                    size_t n);

/* How an attempt ended for the queue; delivery calls it once, when its results are in the spool, and
 * gives the job back. */
enum attempt_end {
    ATTEMPT_DONE,        /* the host works */
    ATTEMPT_BROKEN,      /* a connection was lost behind MAIL: the host's fault or the message's */
    ATTEMPT_HOST_FAILED, /* no host could be used: back off. The recipients stay as they were */
    ATTEMPT_NOT_MADE,    /* shutting down, no resources: try again soon. Nobody was asked */
    ATTEMPT_UNTRIED,     /* no host was spoken to: says nothing about it */
    ATTEMPT_CROWDED,     /* a host that works refused one more. queue_stand_for_host came before */
    ATTEMPT_FULL,        /* a host has no room for one more, and was not asked. Likewise */
    ATTEMPT_HELD_BACK,   /* its route, or its source, does not allow it now: nothing has failed.
                          * job.wants_source: the job waits, else its queue */
    ATTEMPT_STUCK, /* its sources are not on this machine, or its hosts failed and the fallback is busy:
                      * likewise, but what waits grows old */
};
static inline bool attempt_says_nothing(enum attempt_end how) /* of what it left as it was */
{
    return how == ATTEMPT_UNTRIED || how == ATTEMPT_CROWDED || how == ATTEMPT_FULL ||
           how == ATTEMPT_HELD_BACK || how == ATTEMPT_NOT_MADE;
}
void queue_attempt_ended(struct job *j, enum attempt_end how, struct str why, int64_t retry_ms);

/* Before a connection for that job: may that host be asked for one? Who waits in line for it comes first. */
bool queue_host_room(const struct job *j, const struct net_addr *addr);
/* It has got one there. */
void queue_host_taken(struct job *j, const struct net_addr *addr);
/* Its queue waits until that host has room. */
void queue_stand_for_host(struct job *j, const struct net_addr *addr);
/* Its route is known now; asked: by asking these policies for it, or NULL. False: by its concurrency or rate it may not go on:
 * ATTEMPT_HELD_BACK. */
bool queue_route_is_known(struct job *j, const struct snapshot *asked, int64_t *ret_wait_ms);
/* It begins to hand the message over (MAIL), by its own route. */
void queue_transaction_begins(struct job *j);
/* It has a source, or needs none. */
void queue_source_is_chosen(struct job *j);
/* In this worker a source may do more than before: queues that wait for one look again. NULL is fine. */
void queues_source_freed(struct queues *all);

/* Other settings, or other policies: who waits by the old ones looks again. */
void queues_terms_changed(struct queues *all);

/* The wall's clock as far as it is believed for the age of mail: a jump forward is not, for a day. */
int64_t queues_age_wall(struct queues *all);

/* That host gives a sign of life: queues that back off because of it try now (B13). */
void queues_heard_from(struct queues *all, const struct net_addr *ip);

/* An attempt that could use no host: what it found, for `tern why`. Kept in memory, bounded. */
void queue_note_failure(struct queue *q, struct history_attempt *a,
                        const struct history_plan *plan);
/* A recipient of that queue has a new due time (wall) in the spool. */
void queue_note_due(struct queue *q, int64_t due_ms);
struct str queue_name(const struct queue *q);

/* Commands of operators and of ETRN, carried out by the owner; from any thread by queue_command_send. `done` is
 * called in the owner's thread, after the changes are in the spool. */
enum queue_command_type {
    QUEUE_HOLD, /* a queue (no attempts), or one message's recipients in it */
    QUEUE_UNHOLD,
    QUEUE_RETRY,   /* now, whatever the back-off */
    QUEUE_REMOVE,  /* without notification */
    QUEUE_BOUNCE,  /* one message fails now, with notification */
    QUEUE_RELEASE, /* ETRN: waiting mail goes out by `route` */
    QUEUE_CLOCK,   /* the owner's own: what a clock that was ahead has written (queue_clock.c) */
};
struct queue_command {
    struct worker_message wm;
    enum queue_command_type type;
    char queue[SPOOL_MAX_QUEUE_NAME + 1];
    bool one_message; /* else the whole queue */
    struct msgid id;
    struct route *route; /* RELEASE; owned by the command */
    int64_t window_ms;   /* RELEASE; 0: default 15 m */
    bool replace;        /* RELEASE: also when one is under way by another route; else -EBUSY */
    bool once;  /* RELEASE: one pass without a second try; done is called when it has ended */
    bool probe; /* RELEASE: nothing is done; affected says what waits */
    int64_t set_back_ms;   /* CLOCK: by so much, as far as known */
    struct queues *sender; /* CLOCK */
    bool merged;           /* RELEASE: one was under way by the same route, and begins anew; out */
    uint64_t affected;     /* recipients, out */
    int result;            /* 0, -ENOENT, -EBUSY, -EPERM (held by an operator), -EIO, out */
    void (*done)(struct queue_command *c);
};
void queue_command_send(struct port_workers *workers, struct queue_command *c);

/* How long mail on this route is kept: by the route, else by the settings. INT64_MAX: for ever, as a
 * backup MX keeps it while its primary is down (B10). */
int64_t route_lifetime(const struct settings *set, const struct route *r, bool host_failure);

/* When a recipient of m on that route is returned at the latest (wall); INT64_MAX: never. */
int64_t queue_expires(const struct settings *set, const struct message *m, const struct route *r,
                      bool host_failure);
/* Has it come to that? age_wall_ms: queues_age_wall. */
bool queue_is_expired(const struct settings *set, const struct message *m, const struct route *r,
                      bool host_failure, int64_t wall_ms, int64_t age_wall_ms);

/* For status: state of a queue in its owner. Called in the owner's thread. */
enum queue_gate { GATE_OPEN, GATE_CONCURRENCY, GATE_RATE, GATE_SOURCE };
const char *queue_gate_name(enum queue_gate g); /* "rate"...; NULL: open */
struct queue_status {
    enum queue_gate gate; /* what keeps its next message from going, though nothing has failed */
    int64_t gate_in_ms;   /* until when; <0: until another one ends */
    uint32_t active, in_memory, concurrency;
    int64_t retry_in_ms;      /* <0: neither backing off nor pausing */
    uint32_t failures;        /* host failures in a row */
    int64_t failing_since_ms; /* wall: the first of them; 0: none */
    int64_t released_ms;      /* how long the release goes on at most */
    bool starving;            /* no connection of the worker is left for it, and it waits for one */
    bool unproven;            /* it has not worked since the start, or has failed since */
    char host[128]; /* whose connections are all in use, and it waits for one; empty: none */
    uint32_t host_connections, host_limit, host_line; /* of it; line: queues that wait for it */
    uint32_t ceiling; /* connections at which it refused lately; 0: none */
    char last_error[256];
    bool held, released;
};
bool queue_status(struct queues *q, struct str name, struct queue_status *ret);
/* Its last failures of hosts, as mail/history.h writes them; nothing: there were none lately. */
int queue_history(struct queues *q, struct str name, struct buf *ret);
/* Is the recipient in memory: ready to go, waiting for a source, under way, being changed? */
enum job_place { JOB_NOT_HERE, JOB_READY, JOB_PARKED, JOB_UNDER_WAY, JOB_BEING_CHANGED };
enum job_place queue_job_place(struct queues *q, struct str name, const struct msgid *id,
                               uint32_t n);
/* What waits in that queue for longer than its lifetime is returned, some of it at a time. False: nothing of it
 * is begun now. */
bool queue_expire_waiting(struct queues *q, struct str name);
/* The policy has changed: waiting mail is routed anew, a batch a turn. */
void queues_policy_changed(struct queues *q);

#endif
