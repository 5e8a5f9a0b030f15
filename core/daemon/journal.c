/* journal.c - events become lines of the log. Layer: daemon. Interface: journal.h. */
#include "daemon/journal.h"

enum { FLUSH_BYTES = 32 * 1024, LINES_MAX = 1024 * 1024 };

void journal_flush(struct journal *j)
{
    if (j->n_lines)
        log_sink_add(j->sink, buf_str(&j->lines), j->n_lines);
    buf_clear(&j->lines);
    j->n_lines = 0;
}

static void on_turn_end(struct later *l)
{
    journal_flush(CONTAINER_OF(l, struct journal, flush));
}

static void record(struct port_journal *self, const struct event *e)
{
    struct journal *j = CONTAINER_OF(self, struct journal, port);
    size_t before = buf_len(&j->lines);

    if (e->level < j->level)
        return;
    event_to_json(e, io_loop_clock(j->loop)->wall(io_loop_clock(j->loop)), &j->lines);
    if (j->lines.failed) { /* part of a line may be there */
        j->lines.failed = 0;
        j->lines.end = j->lines.start + before;
        log_sink_lost(j->sink, 1);
        return;
    }
    j->n_lines++;
    if (buf_len(&j->lines) >= FLUSH_BYTES)
        journal_flush(j);
    else
        io_loop_after(j->loop, &j->flush);
}

void journal_init(struct journal *j, struct log_sink *sink, struct io_loop *loop,
                  enum event_level level)
{
    *j = (struct journal){
        .port = { record },
        .sink = sink,
        .loop = loop,
        .level = level,
    };
    buf_init(&j->lines, LINES_MAX);
    later_init(&j->flush, on_turn_end);
}

void journal_done(struct journal *j)
{
    if (!j->sink)
        return;
    list_remove(&j->flush.link);
    journal_flush(j);
    buf_done(&j->lines);
}

bool event_level_parse(const char *text, enum event_level *ret)
{
    static const char *const names[] = {
        [EVENT_DEBUG] = "debug",
        [EVENT_INFO] = "info",
        [EVENT_WARN] = "warn",
        [EVENT_ERROR] = "error",
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum event_level)i;
            return true;
        }
    }
    return false;
}
