/* event.h - one thing that happened, as named fields: becomes a line of the log, a call of the
 * `event` hook, a counter.
 *
 * Layer: base. An event lives on the stack of who reports it; whoever keeps it copies it. Names
 * of events and fields are public (docs/logging.md): lower case, words joined by '_'.
 */
#ifndef TERN_BASE_EVENT_H
#define TERN_BASE_EVENT_H

#include "base/buf.h"
#include "base/str.h"

enum event_level { EVENT_DEBUG, EVENT_INFO, EVENT_WARN, EVENT_ERROR };
enum event_field_type { FIELD_STR, FIELD_INT, FIELD_BOOL, FIELD_REAL };

struct event_field {
    const char *name;
    enum event_field_type type;
    struct str s;
    int64_t i; /* FIELD_INT, FIELD_BOOL */
    double r;
};

struct event {
    const char *name; /* "message_accepted" */
    enum event_level level;
    const struct event_field *fields;
    size_t n;
};

#define F_STR(name_, v) ((struct event_field){ .name = (name_), .type = FIELD_STR, .s = (v) })
#define F_STRZ(name_, v)                                                                           \
    ((struct event_field){ .name = (name_), .type = FIELD_STR, .s = str_of(v) })
#define F_INT(name_, v)  ((struct event_field){ .name = (name_), .type = FIELD_INT, .i = (v) })
#define F_BOOL(name_, v) ((struct event_field){ .name = (name_), .type = FIELD_BOOL, .i = (v) })
/* EVENT(EVENT_INFO, "queued", F_STR("id", id), F_INT("size", n)) */
#define EVENT(level_, name_, ...)                                                                  \
    (&(const struct event){ .name = (name_),                                                       \
                            .level = (level_),                                                     \
                            .fields = (const struct event_field[]){ __VA_ARGS__ },                 \
                            .n = sizeof((struct event_field[]){ __VA_ARGS__ }) /                   \
                                 sizeof(struct event_field) })

/* One line: {"time":"2026-11-23T17:35:39.123Z","level":"info","event":"queued","id":...}\n
 * Strings are escaped to valid JSON; bytes that are not UTF-8 become U+FFFD, fields with an
 * empty name or a NULL string are left out. wall_ms: milliseconds since 1970 UTC. */
void event_to_json(const struct event *e, int64_t wall_ms, struct buf *out);
/* Adds s as a JSON string with quotes. */
void json_add_str(struct buf *out, struct str s);

#endif
