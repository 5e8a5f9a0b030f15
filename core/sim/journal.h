/* journal.h - all that the engines reported: kept in memory, counted by name.
 *
 * Layer: sim. Implements port_journal. Events are copied. When more than `max` are kept, the oldest are
 * let go (the counts stay).
 */
#ifndef TERN_SIM_JOURNAL_H
#define TERN_SIM_JOURNAL_H

#include "base/arena.h"
#include "sim/clock.h"

struct sim_journal;

struct sim_entry {
    struct list link; /* the journal's */
    struct arena arena;
    struct event event; /* a copy */
    int64_t wall_ms;
};

struct sim_journal *sim_journal_new(struct sim_clock *clock, size_t max);
struct sim_journal *sim_journal_free(struct sim_journal *j);
struct port_journal *sim_journal_port(struct sim_journal *j);
/* While muted nothing is recorded (an engine that is being torn down). */
void sim_journal_mute(struct sim_journal *j, bool muted);
/* Writes each event to stderr too, as a line of JSON. */
void sim_journal_echo(struct sim_journal *j, bool echo);

uint64_t sim_journal_count(const struct sim_journal *j, const char *name);
/* The next kept one of that name (NULL: any) after `after` (NULL: from the oldest); NULL: none. */
const struct sim_entry *sim_journal_next(const struct sim_journal *j, const char *name,
                                         const struct sim_entry *after);
/* A field of an event; NULL: it has none of that name. */
const struct event_field *sim_entry_field(const struct sim_entry *e, const char *name);
/* The kept ones as lines of JSON. */
void sim_journal_json(const struct sim_journal *j, struct buf *out);
/* The same for the same events in the same order at the same times, forgotten ones too. */
uint64_t sim_journal_fingerprint(const struct sim_journal *j);

#endif
