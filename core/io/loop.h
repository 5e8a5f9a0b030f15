/* loop.h - the event loop of one worker: clock, timers, mailbox, chance.
 *
 * Layer: io. Implements port_clock, port_random and port_workers of engine/ports.h over libev. A
 * loop belongs to the thread that runs it: whatever is not said to be callable from any thread
 * is called from that one (or from the starting thread before io_loop_run, and after it has
 * returned).
 *
 * A turn: wait for the system; read the clock; call what became ready (streams, listeners,
 * watches); then the mailbox, timers that are due, the `later` list, the writes of the turn, and
 * then what nobody waits for: its log. Each step does a bounded amount of work; what is left over
 * waits for the next turn, which then does not block. Times are milliseconds.
 */
#ifndef TERN_IO_LOOP_H
#define TERN_IO_LOOP_H

#include "engine/ports.h"

struct io_loop;
struct ev_loop;

/* worker: this one's number, of `workers` in all. -ENOMEM, or -errno of the system (-EMFILE). */
int io_loop_new(int worker, int workers, struct io_loop **ret) MUST_USE;
/* All that was made on the loop (net, resolver, listeners, watches) is freed before. Messages
 * still in the mailbox are not run: they stay their sender's memory. Returns NULL; NULL is fine. */
struct io_loop *io_loop_free(struct io_loop *l);

/* Once before any loop runs: the loops of all workers, by number. The array (loops[count]) is
 * borrowed for the life of the loop. A loop that is alone needs no call. */
void io_loop_join(struct io_loop *l, struct io_loop *const *loops, int count);
/* What struct worker_message is run with. */
void io_loop_set_engine(struct io_loop *l, struct engine *e);

/* Runs until io_loop_stop; may be run again. SIGPIPE stays blocked in the calling thread. */
void io_loop_run(struct io_loop *l);
/* From any thread, also before io_loop_run: the run ends with its present turn. */
void io_loop_stop(struct io_loop *l);

/* Sets clock, random and workers. The others come from io/net.h, io/resolver.h and the spool. */
void io_loop_ports(struct io_loop *l, struct ports *ret);
struct port_clock *io_loop_clock(struct io_loop *l);

/* The same as the port's, shorter to write inside core/io. */
int64_t io_loop_now(const struct io_loop *l);
void io_loop_timer_set(struct io_loop *l, struct timer *t, int64_t at);
void io_loop_timer_stop(struct io_loop *l, struct timer *t);
void io_loop_later(struct io_loop *l, struct later *run);
/* Runs after the `later` list is empty: for what gathers the turn's writes. */
void io_loop_last(struct io_loop *l, struct later *run);
/* Runs when those writes are out: for what wakes others that could be in their way, as the log's thread. */
void io_loop_after(struct io_loop *l, struct later *run);
uint64_t io_loop_random(struct io_loop *l);

/* Calls ready(owner) each turn in which fd can be read (level-triggered), for what is no stream:
 * eventfds, signalfds, the epoll descriptor of another library. The descriptor stays the
 * caller's and is closed after io_watch_free. ready may free its own watch. -ENOMEM. */
struct io_watch;
int io_watch_new(struct io_loop *l, int fd, void (*ready)(void *owner), void *owner,
                 struct io_watch **ret) MUST_USE;
struct io_watch *io_watch_free(struct io_watch *w); /* NULL is fine; returns NULL */

/* For core/io, and for libraries that bring their own libev adapter. */
struct ev_loop *io_loop_ev(struct io_loop *l);

#endif
