/* queue_impl.h - what the files of queues share: queue.c, queue_*.c. Layer: engine, internal. */
#ifndef TERN_ENGINE_QUEUE_IMPL_H
#define TERN_ENGINE_QUEUE_IMPL_H

#include "engine/hosts.h"
#include "engine/pace.h"
#include "engine/queue.h"
#include "engine/sources.h"

/* What a route allows its queue. */
struct queue_terms {
    uint32_t concurrency; /* 0: what the settings say */
    struct rate rate;
};

struct queue {
    UT_hash_handle hh; /* queues.by_name */
    struct queues *all;
    struct list ready;    /* jobs in the order in which they go */
    struct list fresh;    /* arrivals that do not wait for what is on disk; at most QUEUE_FRESH */
    bool fresh_turn;      /* one of these is next */
    uint32_t fresh_taken; /* of these: so many have gone */
    struct list parked;   /* jobs that wait for a source: queue_park.c */
    int64_t read_again;   /* monotonic: too many do: nothing is read until then; 0: it is */
    int64_t parked_at;    /* monotonic: the first that was tried is due; INT64_MAX: none */
    struct host_place place; /* in the line of a host without room */
    struct list runnable;    /* in queues.runnable: to be looked at in this turn */
    struct list starving;    /* in one of queues.line: no connection was left for it */
    enum queue_line line;    /* which */
    uint64_t stands;         /* its number in that line */
    bool its_turn;           /* one has become free, for it */
    bool proven;             /* it has worked, and not failed since: queue_line.c */
    struct list under_way;   /* jobs, by `way` */
    struct list source_wait; /* in queues.source_waiters */
    struct list chore_wait;  /* in queues.chore_waiters */
    struct throttle throttle;
    enum queue_gate gate;     /* why the first that is ready does not go */
    int64_t gate_at;          /* monotonic: asked again then; INT64_MAX: when something ends */
    struct queue_terms terms; /* of the route that was last asked for again */
    uint64_t terms_policy;    /* the policy that chose it */
    bool terms_known;
    struct list damaged; /* jobs that can never be loaded: known, so that they are passed over */
    size_t n_damaged;
    size_t n_jobs;       /* in memory: ready, under way, damaged */
    size_t n_waiting;    /* of n_jobs: of class SPOOL_WAITING, not damaged */
    uint32_t active;     /* under way */
    uint32_t delivering; /* of these: attempts to deliver */
    struct pace pace;    /* how many may be under way */
    uint32_t failures;   /* of the host, in a row */
    int64_t retry_at;    /* monotonic: its hosts are left alone until then, or a success; 0: none */
    int64_t pause_until; /* likewise, for a reason of our own; no success ends it */
    int64_t next_due;    /* wall: of what is on disk with a later time, as far as known */
    struct timer wake;
    bool on_disk;      /* scheduled recipients that are due may be in the spool and not in memory */
    bool unread;       /* its state in the spool could not be read yet: no attempts */
    bool forced;       /* the next attempt ignores what was known of hosts then: */
    int64_t forced_at; /* monotonic */
    uint64_t overridden_by; /* the operation that ended its back-off last; 0: none */
    bool held;              /* by an operator: no attempts */
    bool released; /* waiting mail goes out by release_route, until released_until (monotonic) */
    bool waiting_left;     /* released: more waiting mail may be in the spool */
    int64_t release_upto;  /* wall: this pass takes what came, or failed, until then */
    int64_t release_again; /* monotonic: the next pass, for what failed; 0: one is under way */
    uint32_t release_passes;
    struct queue_command *release_once; /* one pass, for this command; NULL: a release as usual */
    bool release_over;                  /* its host has failed: it ends */
    uint32_t releasing;                 /* attempts with waiting mail under way */
    uint32_t expiring;                  /* jobs of mode JOB_EXPIRE under way */
    struct spool_due expire_after;      /* how far it was looked for what is too old */
    bool expire_begun;
    struct spool_due warn_after; /* how far it was looked for what is delayed */
    bool warn_begun, warn_more;  /* more: behind it there may be some */
    uint32_t warning;            /* jobs of mode JOB_WARN under way */
    int64_t by_next;             /* wall: the first known DELIVERBY to come; INT64_MAX: none */
    int64_t by_not_before;       /* monotonic: the next walk */
    bool by_walking;             /* it is looked for what is over its time */
    bool by_begun;               /* by_after holds */
    enum spool_class by_class;
    struct spool_due by_after; /* how far that has come */
    uint32_t by_seen;
    bool reroute;                   /* waiting mail is being routed anew */
    int64_t reroute_at;             /* monotonic: not before, after an error */
    struct spool_due reroute_after; /* how far that has come */
    bool reroute_begun;
    int64_t released_until;
    struct route *release_route;
    struct queue_hosts hosts; /* because of which it backs off */
    char last_error[256];
    int64_t failing_since_ms; /* wall; 0: its hosts work, as far as known */
    char *history;            /* heap: mail/history.h, of its failures */
    size_t history_n;
    size_t name_n;
    char name[];
};

enum { QUEUES_PROVEN = 8192 }; /* destinations that are remembered without a queue, at most */

struct queues {
    struct engine *engine;
    struct queue *by_name;
    struct job *jobs;          /* all in memory, by job_key */
    size_t active;             /* jobs under way */
    size_t delivering;         /* of these: attempts to deliver; the others need no connection */
    struct list chore_waiters; /* queues with some of the others to do: too many are under way */
    struct list runnable;
    struct list source_waiters; /* queues whose sources may do no more at present */
    struct timer source_timer;  /* when the first of those can go on, or others are looked for */
    uint32_t source_expected[SOURCES_PLACES]; /* jobs that have begun and are to choose that one */
    struct route *refused; /* this pump: its sources may do no more, for refused_ms; a reference */
    int64_t refused_ms;
    struct list line[QUEUE_LINES]; /* queues that wait for a connection, longest first */
    uint64_t stood;                /* so many came into a line until now */
    uint32_t unproven;             /* attempts under way to destinations that are not proven */
    uint32_t unproven_old;         /* of these: without an occasion */
    uint32_t old_limit;            /* how many of those there may be */
    uint32_t old_ended;            /* of those, since the timer was set */
    struct timer old_timer;
    uint32_t proven[QUEUES_PROVEN]; /* parts of the hashes of their names */
    struct list asides;             /* records on their way out of the way: queue_load.c */
    struct list commands;           /* under way: queue_command.c */
    struct list batches;            /* under way: queue_batch.c */
    size_t warm;                    /* octets of bodies of jobs in memory */
    size_t histories;               /* octets of all histories */
    struct timer rescan;            /* something was lost sight of: look at the spool again */
    bool rescan_others;             /* what was lost sight of may be another worker's */
    struct later pump;
    struct later scan; /* own queues in the spool, a batch a turn */
    char scan_after[SPOOL_MAX_QUEUE_NAME + 1];
    bool scan_reroute; /* it looks for waiting mail to be routed anew */
    bool scan_clock;   /* it looks for what a clock that was ahead has written: queue_clock.c */
    uint32_t clock_mending; /* queues whose entries are being mended */
    bool scan_waits;        /* for these: there are CLOCK_AT_ONCE */
    bool clock_missed;      /* and could not mend all of it: the next scan does */
    int64_t ahead;          /* wall - monotonic */
    int64_t set_back_ms;    /* the wall's clock, since that was looked for last */
    int64_t age_ahead;      /* as ahead, as far as it is believed for the age of mail */
    int64_t doubted_since;  /* monotonic: that it is more; <0: it is not */
    bool reroute_missed;    /* and could not remember a queue that has some */
    struct spool_queue row; /* scratch */
    struct spool_due dues[QUEUE_WINDOW];
    struct buf bytes;
    struct spool_queue rows[16];
    bool stopping;
};

struct job *job_new(struct str name, size_t n);
struct job *job_find(struct queues *all, const struct queue *q, const struct msgid *id);
bool job_register(struct queues *all, struct queue *q, struct job *j);
void job_forget(struct queues *all, struct job *j);

struct queue *queue_find(struct queues *all, struct str name);
struct queue *queue_get(struct queues *all, struct str name);
/* queue_release.c */
/* Waiting mail goes out from now on (again): a new pass over it. */
void queue_release_pass(struct queue *q);
/* What follows from what has gone, and from the time. */
void queue_mind_release(struct queue *q);
/* It ends as soon as nothing of it is under way. */
void queue_release_is_over(struct queue *q);
/* Whoever turned a connection for it is told that it has ended. */
void queue_answer_release(struct queue *q, int result);
void queues_scan(struct queues *all, bool reroute);
/* A step failed that would have shown a queue what it has: look at the spool in a while. */
void queues_look_again(struct queues *all, bool others);
/* Drops a job that is in memory only. */
void job_drop(struct queues *all, struct job *j);
void queue_run_soon(struct queue *q);
void queue_arm(struct queue *q);
void queue_drop_ready(struct queue *q);
bool queue_may_start(const struct queue *q);
/* Jobs that turn to no host: may it begin some? Else it is looked at again when others have ended. */
bool queue_may_do_chores(struct queue *q);
void queue_start_job(struct queue *q, struct job *j);
static inline size_t queue_jobs(const struct queue *q) /* that can be delivered */
{
    return q->n_jobs - q->n_damaged;
}
void queue_pause(struct queue *q, int64_t ms);
/* No attempt before (monotonic): the back-off, or a pause. */
static inline int64_t queue_waits_until(const struct queue *q)
{
    return MAX(q->retry_at, q->pause_until);
}
static inline bool queue_waits(const struct queue *q)
{
    return queue_waits_until(q) > engine_now(q->all->engine);
}
/* Released mail is to be read from the spool. */
static inline bool queue_has_released(const struct queue *q)
{
    return q->released && q->waiting_left && !q->release_over;
}
/* Something is to be done for it as soon as that is allowed. */
bool queue_has_work(const struct queue *q);
size_t queue_window(const struct queue *q);      /* jobs that it may have in memory */
size_t queue_load_window(const struct queue *q); /* likewise, of what is read for an attempt */
/* The next one in memory: by turns of those that waited and of the fresh ones. NULL: there is none. */
struct job *queue_first_job(const struct queue *q);

/* queue_load.c */
/* Fills `ready` from the spool. -errno: nothing could be read. */
int queue_load(struct queue *q);
/* Reads what an attempt needs. -ENOENT: it is gone, or no longer to be delivered; -EBADMSG: it cannot be
 * read by anybody; other errors pass. */
int queue_load_job(struct queue *q, struct job *j);
/* Holds what cannot be read, so that it is not in the way. Takes over the job, which is in no list. */
void queue_set_aside(struct queue *q, struct job *j);
void queue_asides_free(struct queues *all);
void queue_commands_free(struct queues *all);
/* Keeps others from the message until queue_unlock_job. -EBUSY: somebody is at it; -ENOMEM. */
int queue_lock_job(struct queue *q, const struct msgid *id, struct job **ret);
/* Is it not due because its sender wants it to wait (FUTURERELEASE)? What is meant by name goes all the same; what a
 * filter finds is left alone. */
bool queue_sender_holds(struct queues *all, const struct spool_entry *entry);
/* Likewise, whatever its due time says. */
bool queue_message_is_held(struct queues *all, const struct msgid *id);
/* As queue_command_send, in the owner's thread. */
void queue_command_here(struct engine *e, struct queue_command *c);
/* Drops the lock; the queue looks at the disk again. */
void queue_unlock_job(struct job *j);
/* Whatever the back-off, of the queue and of its hosts (E8). */
void queue_override_back_off(struct queue *q);
void queue_load_reroutes(struct queue *q); /* waiting mail after a change of policy */
void queue_reroute_again(struct queue *q); /* some of it could not be asked about: a little later */
void queues_scan_step(struct later *l);
bool queue_record_held(struct str record);
/* A job of n entries of one message, registered; only their numbers are known. NULL: out of memory. */
struct job *queue_job_of(struct queue *q, const struct spool_due *from, size_t n,
                         enum spool_class c);
size_t queue_most_recipients(const struct queue *q); /* of one job */
static inline struct port_spool *queue_spool(const struct queue *q)
{
    return q->all->engine->ports.spool;
}

/* queue_arrive.c */
/* The one of `fresh` that goes next; NULL: there is none. */
struct job *queue_next_fresh(const struct queue *q);
/* Into `ready`, where its order says. */
void queue_put_ready(struct queue *q, struct job *j);

/* queue_by.c */
/* That message waits in it. */
void queue_note_by(struct queue *q, const struct message *m);
/* Looks for what is over its time, a batch, when there may be some. */
void queue_mind_by(struct queue *q);
/* Monotonic: when to look; INT64_MAX: not. */
int64_t queue_by_at(const struct queue *q);

/* queue_rate.c */
void queue_rates_init(struct queues *all);
void queue_rates_done(struct queues *all);
/* May it go now? Then what it needs is taken, and it is to begin. */
bool queue_gate_passes(struct queue *q, struct job *j);
void queue_way_begun(struct queue *q, struct job *j);
void queue_way_ended(struct queue *q, struct job *j);
/* Until then (monotonic) the queue is remembered because of its rate; 0: it need not be. */
int64_t queue_rate_known_until(const struct queue *q);

/* In line for a source that can do more. */
void queue_wait_for_source(struct queue *q, int64_t wait_ms);

/* queue_clock.c */
void queue_clock_init(struct queues *all);
/* Each turn: has the clock been set back? Then all queues are looked through. */
void queues_mind_clock(struct queues *all);
/* So many queues are being mended that the scan goes on when one of them is done. */
bool queues_clock_is_busy(struct queues *all);
/* Mends what a clock that was ahead has written of that queue, if there may be some. */
void queue_mind_clock(struct queues *all, const struct spool_queue *row);
/* Behind which entries are looked at. set_back_ms: the step that was seen; 0: none. */
struct spool_due queue_clock_from(const struct queues *all, enum spool_class c,
                                  int64_t set_back_ms);
/* Of one entry: 0: its record, and when it is due, are other ones now; 1: it is as it should be; -errno. */
int queue_clock_mend(struct queue *q, const struct spool_entry *entry, int64_t set_back_ms,
                     struct buf *record, int64_t *ret_due);

/* queue_park.c */
/* The gate said GATE_SOURCE of that job, which is ready: out of the way. */
void queue_park(struct queue *q, struct job *j, int64_t wait_ms);
/* Its attempt ended for want of a source: out of the way; or there are too many of them (it is not `parked` then), and
 * the queue is slow for a while. */
void queue_park_tried(struct queue *q, struct job *j, int64_t wait_ms);
/* Those that may be asked for again are ready; all of them. */
void queue_unpark(struct queue *q);
void queue_unpark_all(struct queue *q);
/* In memory it is not needed any more: it is on disk as it was. */
void queue_call_off(struct queue *q, struct job *j);

/* queue_line.c */
void queue_lines_init(struct queues *all);
void queue_lines_done(struct queues *all);
/* It has worked, or is down. */
void queue_set_proven(struct queue *q, bool proven);
bool queue_was_proven(struct queues *all, struct str name);
void queue_line_begun(struct queue *q, struct job *j);
void queue_line_ended(struct queue *q, struct job *j);
/* May it begin one more attempt now? Else it is in line, if need be. turn: a connection is there for it; begun: it has
 * begun one just now. */
bool queue_gets_connection(struct queue *q, bool turn, bool begun);
/* Connections that are free go to those who have waited longest. */
void queue_lines_feed(struct queues *all);

/* queue_age.c */
/* When is the first recipient of the job to be told of a delay (wall)? INT64_MAX: never. */
int64_t queue_warn_at(const struct queue *q, const struct job *j);
/* Bounces what is too old, a batch; returns how many jobs. */
size_t queue_load_expired(struct queue *q, enum spool_class c);
/* Tells the senders of what is delayed, a batch; warn_more: there may be more. */
void queue_load_warnings(struct queue *q);

#endif
