/* control_why.c - why a message is still here: GET /v1/messages/ID/why (ROUTING.md Q12).
 *
 * Layer: daemon, main thread. Interface: control_call.h. The record of each recipient is read from the
 * spool; how its queue fares, and whether an attempt is under way, only the queue's owner knows: each
 * worker fills in its part. From both follows what a recipient waits for, and what would make it go
 * sooner.
 */
#include "base/table.h"
#include "daemon/control_call.h"
#include "daemon/control_lookup.h"
#include "engine/context.h"
#include "engine/queue.h"

/* A queue in which recipients of the message wait. Filled in by its owner. */
struct why_queue {
    UT_hash_handle hh; /* by name */
    struct spool_queue row;
    struct queue_status status;
    bool known;
    struct buf history;
};

struct why_recipient {
    json_t *json;
    struct spool_entry entry;
    struct why_queue *queue;
    enum job_place place;
    uint32_t concurrency; /* of its route; 0: none */
    struct hours hours;   /* likewise */
    bool tried;           /* there was an attempt */
    int64_t expires[2];   /* wall, by whether the host failed; INT64_MAX: never */
    char domain[256];
};

struct why_part {
    struct worker_message message;
    struct why *why;
    int worker;
};

struct why {
    struct control_work work;
    struct router *router;
    json_t *answer;
    struct message_times times;
    struct why_queue *queues;
    struct why_recipient *recipients;
    size_t n;
    struct why_part part[WORKERS_MAX];
};

static void why_free(struct why *w)
{
    struct why_queue *q, *next;

    if (!w)
        return;
    for (size_t i = 0; i < w->n; i++)
        json_decref(w->recipients[i].json);
    q = w->queues;
    HASH_CLEAR(hh, w->queues);
    for (; q; q = next) {
        next = q->hh.next;
        buf_done(&q->history);
        free(q);
    }
    json_decref(w->answer);
    free(w->recipients);
    free(w);
}

/* ---- what is waited for ------------------------------------------------------------------------ */

struct wait {
    const char *cause;
    int64_t since, until; /* wall; 0: not known */
    char text[512];
    json_t *sooner;
};

static void PRINTF_LIKE(4, 5)
    say(struct wait *w, const char *cause, int64_t until, const char *fmt, ...)
{
    va_list ap;

    w->cause = cause;
    w->until = until;
    va_start(ap, fmt);
    vsnprintf(w->text, sizeof(w->text), fmt, ap);
    va_end(ap);
}

static void add_sooner(struct wait *w, const char *text, const char *command)
{
    json_array_append_new(w->sooner, json_pack("{s:o, s:o}", "text", control_text(str_of(text)),
                                               "command", control_text_or_null(str_of(command))));
}

/* As a shell takes it. */
static const char *quoted(const char *name, char *dst, size_t size)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:@,";
    size_t n = 0;

    if (*name && strspn(name, plain) == strlen(name)) {
        str_copy(str_of(name), dst, size);
        return dst;
    }
    dst[n++] = '\'';
    for (; *name && n + 6 < size; name++) {
        if (*name == '\'') {
            memcpy(dst + n, "'\\''", 4);
            n += 4;
        } else {
            dst[n++] = *name;
        }
    }
    dst[n++] = '\'';
    dst[n] = '\0';
    return dst;
}

static void command(struct wait *w, const char *text, const char *verb, const char *name)
{
    char quote[2 * SPOOL_MAX_QUEUE_NAME + 16], line[2 * SPOOL_MAX_QUEUE_NAME + 80];

    snprintf(line, sizeof(line), "tern %s %s", verb, quoted(name, quote, sizeof(quote)));
    add_sooner(w, text, line);
}

static void queue_on_hold(struct wait *w, const struct why_recipient *r)
{
    say(w, "queue_held", 0, "an operator holds its whole queue");
    command(w, "ends the hold", "queue release --queue", r->queue->row.name);
}

static void backs_off(struct wait *w, const struct why_recipient *r, int64_t now)
{
    const struct queue_status *st = &r->queue->status;
    char times[64] = "";

    if (st->failures == 0 && st->last_error[0]) {
        say(w, "held_back", now + st->retry_in_ms, "its queue waits, and nothing has failed: %s",
            st->last_error);
        return;
    }
    if (st->failures == 0) {
        say(w, "pause", now + st->retry_in_ms,
            "its queue pauses for a moment, for a reason of this machine (memory, descriptors, the disk)");
        return;
    }
    if (st->failures > 1)
        snprintf(times, sizeof(times), ", %u times in a row, at last", st->failures);
    say(w, "queue_backoff", now + st->retry_in_ms,
        "its queue backs off: no host could be used%s: %s", times, st->last_error);
    w->since = st->failing_since_ms;
    add_sooner(w, "when a host works again: the next probe finds out, and all that waits goes", "");
    command(w, "probes now", "queue retry --queue", r->queue->row.name);
}

static void kept_by_policy(struct wait *w, const struct why_recipient *r, int64_t now)
{
    const struct queue_status *st = &r->queue->status;
    const char *reason = json_string_value(json_object_get(r->json, "reason"));

    if (st->released && st->retry_in_ms >= 0) {
        backs_off(w, r, now);
    } else if (st->released) {
        say(w, "released", 0, "its queue has been released, and its turn comes");
    } else {
        say(w, "release", 0, "a policy keeps it until its queue is released%s%s",
            reason ? ": " : "", reason ? reason : "");
        w->since = r->entry.due_ms;
        add_sooner(w, "when its server asks for it, by ETRN", "");
        command(w, "asks the policy in its place", "etrn", r->domain);
    }
}

static void for_host(struct wait *w, const struct queue_status *st)
{
    say(w, "host_connections", 0,
        "%s has as many connections as it may have now (%u of %u), and %u queue%s for one",
        st->host, st->host_connections, st->host_limit, st->host_line,
        st->host_line == 1 ? " waits" : "s wait in turn");
    add_sooner(
        w,
        "when one of them ends; with each success it may have more, up to queue.host_connections",
        "");
}

static void for_source(struct wait *w, const struct queue_status *st)
{
    bool known = st->failures == 0 && st->last_error[0];

    say(w, "source", 0,
        "the source addresses of its route may do no more at present, or are not on this machine "
        "(`tern status`): it waits for one%s%s",
        known ? "; " : "", known ? st->last_error : "");
    add_sooner(w, "with higher limits in `sources`, or one more address in `source`", "");
}

static void in_turn(struct wait *w, const struct why_recipient *r, uint32_t connections,
                    int64_t now)
{
    const struct queue_status *st = &r->queue->status;
    uint32_t limit = st->concurrency;

    if (r->concurrency)
        limit = MIN(limit, r->concurrency);
    if (r->place == JOB_PARKED) {
        for_source(w, st);
    } else if (st->starving) {
        say(w, "connections", 0,
            st->unproven
                ? "all connections that a worker has for destinations not known to work are in use (of %u at "
                  "most three quarters), and its queue waits for one"
                : "all %u connections that a worker may have are in use, and its queue waits for one",
            connections);
        add_sooner(w, "with a higher queue.connections in the configuration", "");
    } else if (st->host[0]) {
        for_host(w, st);
    } else if (st->gate == GATE_RATE) {
        say(w, "rate", st->gate_in_ms >= 0 ? now + st->gate_in_ms : 0,
            "its queue has used up its rate for the moment, and goes on as the rate allows");
        add_sooner(w, "with a higher `rate` of its route", "");
    } else if (st->gate == GATE_SOURCE) {
        for_source(w, st);
    } else if (st->failures && st->active) {
        say(w, "probe", 0, "its queue probes its hosts now with another message");
    } else if (st->active && st->active >= limit) {
        say(w, "concurrency", 0, "%u of %u connections of its queue are in use by others",
            st->active, limit);
        if (st->ceiling && limit < st->ceiling)
            add_sooner(
                w,
                "when its hosts take more at once: they refused lately, and are asked again in a while",
                "");
        add_sooner(w, "with a higher queue.concurrency, or `concurrency` of its route", "");
    } else {
        say(w, "turn", 0, "it is due, and goes as soon as its turn comes");
    }
}

/* Until its sender lets it go. */
static void held_by_sender(struct wait *w, int64_t until, const char *id)
{
    say(w, "future_release", until, "its sender wants it to be held until then (FUTURERELEASE)");
    command(w, "lets it go now", "queue release", id);
}

static void deferred(struct wait *w, const struct why_recipient *r, int64_t now, const char *id)
{
    const struct queue_status *st = &r->queue->status;
    int64_t until = r->entry.due_ms;
    const char *reply = json_string_value(json_object_get(r->json, "last_reply"));

    if (st->retry_in_ms >= 0)
        until = MAX(until, now + st->retry_in_ms);
    if (!r->tried && hours_given(&r->hours)) {
        char text[HOURS_TEXT];
        say(w, "hours", until, "its route is tried in one part of the day only: %s",
            hours_text(&r->hours, text));
        command(w, "tries now", "queue retry", id);
        return;
    }
    say(w, "deferred", until, "its next attempt is due later; the last one ended with%s%s",
        reply ? ": " : " nothing", reply ? reply : "");
    command(w, "tries now", "queue retry", id);
}

static void find_wait(struct wait *w, const struct why *y, const struct why_recipient *r,
                      const char *id)
{
    int64_t now = router_wall(y->router);
    const struct queue_status *st = &r->queue->status;

    w->sooner = json_array();
    if (r->place == JOB_UNDER_WAY) {
        say(w, "under_way", 0, "it is on its way at this moment");
    } else if (r->place == JOB_BEING_CHANGED) {
        say(w, "being_changed", 0, "a change that an operator asked for is being written");
    } else if (json_is_true(json_object_get(r->json, "unreadable"))) {
        say(w, "unreadable", 0,
            "its record in the spool cannot be read, so it is set aside; the log "
            "(spool_record_unreadable) says more");
    } else if (r->entry.class_ == SPOOL_HELD) {
        say(w, "held", 0, "an operator holds it");
        w->since = r->entry.due_ms;
        command(w, "ends the hold", "queue release", id);
    } else if (st->held) {
        queue_on_hold(w, r);
    } else if (r->entry.class_ == SPOOL_SCHEDULED && r->entry.due_ms > now &&
               y->times.hold_ms > now) {
        held_by_sender(w, r->entry.due_ms, id);
    } else if (r->entry.class_ == SPOOL_WAITING) {
        kept_by_policy(w, r, now);
    } else if (r->entry.due_ms > now) {
        deferred(w, r, now, id);
    } else if (st->retry_in_ms >= 0 && r->queue->known && r->place != JOB_PARKED) {
        backs_off(w, r, now);
    } else {
        in_turn(w, r, y->router->settings->queue.connections, now);
    }
}

static json_t *wait_json(const struct why *y, const struct why_recipient *r)
{
    const char *id = json_string_value(json_object_get(y->answer, "id"));
    struct wait w = { 0 };

    find_wait(&w, y, r, id ? id : "");
    return json_pack("{s:s, s:o, s:o, s:o, s:o}", "cause", w.cause, "text",
                     control_text(str_of(w.text)), "since", control_time(w.since), "until",
                     control_time(w.until), "sooner", w.sooner);
}

/* ---- the answer -------------------------------------------------------------------------------- */

static json_t *why_queue_json(const struct why *y, const struct why_queue *q)
{
    json_t *o = control_queue_json(y->router, &q->row, &q->status, q->known);

    json_object_set_new(o, "history", control_history_json(buf_str(&q->history)));
    return o;
}

static void finish(struct control_work *work)
{
    struct why *y = CONTAINER_OF(work, struct why, work);
    json_t *recipients = json_array(), *queues = json_array();

    for (size_t i = 0; work->call && i < y->n; i++) {
        struct why_recipient *r = &y->recipients[i];
        int64_t expires = r->expires[r->queue->status.failures > 0];
        json_object_set_new(r->json, "waits", wait_json(y, r));
        json_object_set_new(r->json, "expires", control_time(expires == INT64_MAX ? 0 : expires));
        json_array_append(recipients, r->json);
    }
    for (struct why_queue *q = y->queues; work->call && q; q = q->hh.next)
        json_array_append_new(queues, why_queue_json(y, q));
    if (work->call) {
        json_object_set(y->answer, "recipients", recipients);
        json_object_set(y->answer, "queues", queues);
        control_answer(work->call, 200, json_incref(y->answer));
    }
    json_decref(recipients);
    json_decref(queues);
    why_free(y);
}

/* ---- asking the owners ------------------------------------------------------------------------- */

static void on_part_back(struct engine *none, struct worker_message *m)
{
    control_work_done(&CONTAINER_OF(m, struct why_part, message)->why->work);
}

/* In a worker's thread: the queues, and the recipients in them, that are this one's. */
static void on_part(struct engine *e, struct worker_message *m)
{
    struct why_part *part = CONTAINER_OF(m, struct why_part, message);
    struct why *y = part->why;

    for (struct why_queue *q = y->queues; q; q = q->hh.next) {
        struct str name = str_of(q->row.name);
        if (engine_queue_owner(name, y->router->n_workers) != part->worker)
            continue;
        q->known = queue_status(e->queues, name, &q->status);
        queue_history(e->queues, name, &q->history);
        for (size_t i = 0; i < y->n; i++) {
            struct why_recipient *r = &y->recipients[i];
            if (r->queue == q)
                r->place = queue_job_place(e->queues, name, &r->entry.id, r->entry.n);
        }
    }
    m->run = on_part_back;
    router_tell(y->router, m);
}

static void ask_owners(struct control_call *c, struct why *y)
{
    struct router *r = c->router;

    y->work.left = (unsigned)r->n_workers;
    y->work.finish = finish;
    control_wait(c, &y->work);
    for (int i = 0; i < r->n_workers; i++) {
        y->part[i] = (struct why_part){ .message = { .run = on_part }, .why = y, .worker = i };
        router_post(r, i, &y->part[i].message);
    }
}

/* ---- reading ----------------------------------------------------------------------------------- */

static struct why_queue *queue_of(struct why *y, const char *name)
{
    struct port_spool *spool = y->router->ports.spool;
    struct why_queue *q;
    unsigned n = (unsigned)strlen(name);

    HASH_FIND(hh, y->queues, name, n, q);
    if (q)
        return q;
    q = calloc(1, sizeof(*q));
    if (!q)
        return NULL;
    buf_init(&q->history, 0);
    q->status.retry_in_ms = -1;
    if (spool->read_queue(spool, str_of(name), &q->row) < 0)
        str_copy(str_of(name), q->row.name, sizeof(q->row.name));
    HASH_ADD(hh, y->queues, row.name, n, q);
    if (q->hh.tbl)
        return q;
    free(q);
    return NULL;
}

static int64_t expires_at(const struct why *y, const struct recipient *r, const struct message *m,
                          bool host_failure)
{
    return queue_expires(y->router->settings, m, r->route, host_failure);
}

/* One that nobody can read has been set aside, or will be: it is told as it stands. */
static json_t *unreadable_json(const struct spool_entry *entry)
{
    return json_pack("{s:I, s:n, s:o, s:s, s:o, s:b}", "n", (json_int_t)entry->n, "address",
                     "queue", control_text(str_of(entry->queue)), "state",
                     control_class_name(entry->class_), "due", control_time(entry->due_ms),
                     "unreadable", 1);
}

static int add_recipient(struct why *y, const struct spool_entry *at, struct found *f)
{
    struct port_spool *spool = y->router->ports.spool;
    struct why_recipient *r = &y->recipients[y->n];
    const struct recipient *value = &f->recipient;
    int e = control_find_recipient(spool, &at->id, at->n, &r->entry, f);

    if (e == -ENOENT)
        return 0; /* gone meanwhile */
    if (e < 0 && e != -EBADMSG)
        return e;
    r->queue = queue_of(y, r->entry.queue);
    if (!r->queue)
        return -ENOMEM;
    r->json = e == 0 ? control_recipient_json(&r->entry, value) : unreadable_json(&r->entry);
    if (e == 0) {
        json_object_set_new(r->json, "policy_is_current",
                            json_boolean(value->policy == y->router->settings->fingerprint));
        json_object_set_new(r->json, "history", control_history_json(value->history));
        r->concurrency = value->route ? value->route->concurrency : 0;
        r->hours = value->route ? value->route->hours : (struct hours){ 0 };
        r->tried = value->attempts > 0;
        str_copy(value->address.domain, r->domain, sizeof(r->domain));
    }
    r->expires[0] = expires_at(y, value, f->message, false);
    r->expires[1] = expires_at(y, value, f->message, true);
    y->n++;
    return 0;
}

static int read_all(struct why *y, const struct msgid *id, bool from_start, uint32_t after,
                    size_t limit)
{
    struct port_spool *spool = y->router->ports.spool;
    struct listing l = { .entries = calloc(limit, sizeof(*l.entries)) };
    char cursor[CONTROL_CURSOR_TEXT];
    struct found f;

    found_init(&f);
    y->recipients = calloc(limit, sizeof(*y->recipients));
    int e = l.entries && y->recipients ? control_find_message(spool, id, &f) : -ENOMEM;
    if (e == 0)
        e = control_list_recipients(spool, id, from_start, after, limit, &l, &f.bytes);
    for (size_t i = 0; e == 0 && i < l.n; i++)
        e = add_recipient(y, &l.entries[i], &f);
    if (e == 0) {
        y->times = f.message->times;
        y->answer = control_message_json(f.message);
        json_object_set_new(y->answer, "next",
                            l.more ? json_string(control_cursor_text(&l.last, cursor))
                                   : json_null());
    }
    free(l.entries);
    found_done(&f);
    return e;
}

void control_serve_why(struct control_call *c)
{
    struct control_cursor after = { 0 };
    struct msgid id;
    uint64_t limit;
    bool from_start;

    if (!control_message_id(c, &id) ||
        !control_page_arguments(c, false, &limit, &after, &from_start))
        return;
    struct why *y = calloc(1, sizeof(*y));
    if (y)
        y->router = c->router;
    int e = y ? read_all(y, &id, from_start, after.n, limit) : -ENOMEM;
    if (e < 0) {
        why_free(y);
        control_no_such_message(c, e);
        return;
    }
    ask_owners(c, y);
}
