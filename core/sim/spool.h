/* spool.h - the durable queue in memory: what a disk would hold, and what can go wrong with it.
 *
 * Layer: sim. Implements port_spool of engine/ports.h with the meaning that core/spool gives it: units
 * are atomic and done in the order in which they were submitted, all that wait at the same time go
 * in one commit, and what is told is on disk. It outlives engines: a crash takes what was not
 * committed, a restart finds the rest.
 *
 * A commit begins on a later turn than its first unit was submitted, takes `latency_ms`, then stands
 * (is "synced"); its units are told on the turn after that. So a crash can fall before the sync or
 * between sync and telling.
 */
#ifndef TERN_SIM_SPOOL_H
#define TERN_SIM_SPOOL_H

#include "sim/clock.h"

struct sim_spool;

struct sim_spool *sim_spool_new(struct sim_clock *clock);
/* No unit may be open: sim_spool_crash and sim_spool_settle come first. Returns NULL; NULL is fine. */
struct sim_spool *sim_spool_free(struct sim_spool *s);
/* One port serves all workers: there is one thread. */
struct port_spool *sim_spool_port(struct sim_spool *s);

void sim_spool_set_latency(struct sim_spool *s, int64_t ms); /* default 2 */
/* The next n commits fail as a whole: -EIO or -ENOSPC. */
void sim_spool_fail_commits(struct sim_spool *s, uint32_t n, int error);
/* The next n reads fail. */
void sim_spool_fail_reads(struct sim_spool *s, uint32_t n, int error);
/* The row of that recipient cannot be parsed from now on. One at a time; NULL: none. */
void sim_spool_damage(struct sim_spool *s, const struct msgid *id, uint32_t n);
/* While the disk is full, units that bring new mail are told -ENOSPC; the others go on. */
void sim_spool_set_full(struct sim_spool *s, bool full);

/* The machine stops: units that are not committed are lost, and pieces that were staged. Units not yet
 * told stay aside, until sim_spool_settle tells them -ESHUTDOWN (so that their memory is freed; the
 * engines are gone by then). Units submitted in between go the same way. */
void sim_spool_crash(struct sim_spool *s);
void sim_spool_settle(struct sim_spool *s);

/* Called in each commit: before it stands, then after it stands and before its units are told. n: the
 * commit's number, from 1. May call sim_clock_interrupt and, later, sim_spool_crash. */
typedef void sim_spool_commit_cb(void *arg, uint64_t n, bool synced);
void sim_spool_on_commit(struct sim_spool *s, sim_spool_commit_cb *cb, void *arg);

/* Of the committed state. */
uint64_t sim_spool_commits(const struct sim_spool *s); /* that changed something */
size_t sim_spool_messages(const struct sim_spool *s);
size_t sim_spool_recipients(const struct sim_spool *s);
size_t sim_spool_staged(const struct sim_spool *s); /* messages with staged pieces */
size_t sim_spool_open(const struct sim_spool *s);   /* units submitted and not told */
/* Aborts when the tables contradict each other. */
void sim_spool_check(const struct sim_spool *s);

#endif
