/* journal.h - port_journal of one thread: events become lines of the log (docs/logging.md).
 *
 * Layer: daemon. Lines of one turn of the loop gather here and go to the sink together, at its end or
 * when there are 32 KiB. Belongs to the thread of its loop.
 */
#ifndef TERN_DAEMON_JOURNAL_H
#define TERN_DAEMON_JOURNAL_H

#include "daemon/log_sink.h"
#include "engine/ports.h"
#include "io/loop.h"

struct journal {
    struct port_journal port;
    struct log_sink *sink;
    struct io_loop *loop;
    enum event_level level; /* what is below is not written */
    struct buf lines;
    size_t n_lines;
    struct later flush;
};

/* The sink and the loop are borrowed. */
void journal_init(struct journal *j, struct log_sink *sink, struct io_loop *loop,
                  enum event_level level);
void journal_flush(struct journal *j);
/* Flushes. Before io_loop_free. */
void journal_done(struct journal *j);
static inline void journal_event(struct journal *j, const struct event *e)
{
    j->port.record(&j->port, e);
}

/* "debug", "info", "warn", "error". False: none of them. */
bool event_level_parse(const char *text, enum event_level *ret);

#endif
