/* queue_walk.c - through the spool in small steps. Layer: daemon. Interface: queue_walk.h. */
#include "daemon/queue_walk.h"

#include <stdio.h>

#include "daemon/columns.h"
#include "daemon/control_request.h"

enum { QUEUES_AT_ONCE = 16, ALL_CLASSES = 7 };

enum way { BY_ID, BY_IDS, BY_QUEUE };

struct queue_walk {
    struct port_spool *spool;
    const struct queue_filter *filter;
    const struct msgid *ids;
    size_t n_ids;
    int64_t now_ms, last_ms;
    unsigned classes;
    enum way way;
    bool ended;
    uint64_t scanned;

    /* the place */
    bool begun; /* BY_ID: `id`, `n` is one that was looked at; BY_QUEUE: in `queue`, `after` is */
    struct msgid id;
    uint32_t n;
    size_t at_id; /* BY_IDS; begun: behind n of it */
    char queue[SPOOL_MAX_QUEUE_NAME + 1];
    bool in_queue;
    int class_;
    struct spool_due after;

    /* scratch */
    struct message *message; /* the one that was read last */
    struct arena arena;
    struct buf bytes;
    struct spool_entry entries[QUEUE_WALK_LOOK];
    struct spool_due dues[QUEUE_WALK_LOOK];
    struct spool_queue queues[QUEUES_AT_ONCE];
};

struct queue_walk *queue_walk_new(struct port_spool *spool, const struct queue_filter *filter,
                                  const struct msgid *ids, size_t n_ids, int64_t now_ms)
{
    struct queue_walk *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->spool = spool;
    w->filter = filter;
    w->ids = ids;
    w->n_ids = n_ids;
    w->now_ms = now_ms;
    w->last_ms = queue_filter_last_ms(filter, now_ms);
    w->classes = ALL_CLASSES;
    w->way = ids ? BY_IDS : filter->queue.p ? BY_QUEUE : BY_ID;
    arena_init(&w->arena, 0);
    buf_init(&w->bytes, 0);
    if (w->way == BY_QUEUE && !filter->queue_is_pattern) {
        str_copy(filter->queue, w->queue, sizeof(w->queue));
        w->in_queue = true;
    }
    if (w->way == BY_ID && queue_filter_first_ms(filter, now_ms) > 0) {
        w->begun = true;
        w->id = msgid_first(queue_filter_first_ms(filter, now_ms));
    }
    return w;
}

struct queue_walk *queue_walk_free(struct queue_walk *w)
{
    if (!w)
        return NULL;
    message_unref(w->message);
    arena_done(&w->arena);
    buf_done(&w->bytes);
    free(w);
    return NULL;
}

void queue_walk_classes(struct queue_walk *w, unsigned classes)
{
    w->classes = classes;
}

bool queue_walk_ended(const struct queue_walk *w)
{
    return w->ended;
}

uint64_t queue_walk_scanned(const struct queue_walk *w)
{
    return w->scanned;
}

/* ---- one recipient ---------------------------------------------------------------------------- */

static int read_message(struct queue_walk *w, const struct msgid *id)
{
    if (w->message && msgid_cmp(&w->message->id, id) == 0)
        return 0;
    w->message = message_unref(w->message);
    int e = w->spool->read_message(w->spool, id, &w->bytes);
    if (e == 0)
        e = message_decode(id, buf_str(&w->bytes), &w->message);
    return e;
}

static bool class_wanted(const struct queue_walk *w, enum spool_class c)
{
    return w->classes >> c & 1 && queue_filter_class(w->filter, c);
}

/* Its record, which stands in w->bytes. 1: it fits; a record that cannot be read fits nothing. */
static int test_record(struct queue_walk *w, uint32_t n)
{
    struct recipient r = { 0 };

    arena_reset(&w->arena);
    int e = recipient_decode(&w->arena, n, buf_str(&w->bytes), &r);
    bool fits = e == 0 && queue_filter_recipient(w->filter, &r, &w->arena);
    recipient_done(&r);
    return e < 0 && e != -EBADMSG ? e : fits;
}

/* What is known without its record fits. The rest, from what costs least on. */
static int test_rest(struct queue_walk *w, const struct spool_entry *entry, bool have_record)
{
    const struct queue_filter *f = w->filter;
    bool sized = f->larger || f->smaller != UINT64_MAX;
    bool needs_message = f->sender.kind || (sized && entry->size == 0);

    if (sized && entry->size && !queue_filter_size(f, entry->size))
        return 0;
    if (queue_filter_needs_recipient(f)) {
        struct spool_entry now;
        int e = have_record
                    ? 0
                    : w->spool->read_recipient(w->spool, &entry->id, entry->n, &now, &w->bytes);
        int r = e < 0 ? e : test_record(w, entry->n);
        if (r <= 0)
            return r;
    }
    if (!needs_message)
        return 1;
    int e = read_message(w, &entry->id);
    if (e < 0)
        return e == -EBADMSG ? 0 : e;
    return queue_filter_sender(f, &w->message->sender) &&
           (!sized || queue_filter_size(f, w->message->size));
}

static void fill(struct queue_match *ret, const struct spool_entry *entry)
{
    *ret = (struct queue_match){ .id = entry->id,
                                 .n = entry->n,
                                 .class_ = entry->class_,
                                 .due_ms = entry->due_ms,
                                 .size = entry->size };
    str_copy(str_of(entry->queue), ret->queue, sizeof(ret->queue));
}

/* Came after the walk has begun. An id that is later than the clock is not new: the clock was set back since. */
static bool came_later(const struct queue_walk *w, const struct msgid *id)
{
    int64_t came = msgid_time(id);

    return w->way != BY_IDS && came > w->now_ms && came <= wall_now();
}

static int test_entry(struct queue_walk *w, const struct spool_entry *entry, bool have_record,
                      struct queue_match *ret)
{
    if (came_later(w, &entry->id) || !class_wanted(w, entry->class_) ||
        !queue_filter_key(w->filter, entry->class_, entry->due_ms, &entry->id, w->now_ms) ||
        !queue_filter_queue(w->filter, str_of(entry->queue)))
        return 0;
    int r = test_rest(w, entry, have_record);
    if (r > 0)
        fill(ret, entry);
    /* Gone meanwhile, or damaged: nobody can tell whether it is meant. */
    return r == -ENOENT || r == -EBADMSG ? 0 : r;
}

int queue_walk_test(struct queue_walk *w, const struct msgid *id, uint32_t n,
                    struct queue_match *ret)
{
    struct spool_entry entry;
    int e = w->spool->read_recipient(w->spool, id, n, &entry, &w->bytes);

    if (e < 0)
        return e;
    return test_entry(w, &entry, true, ret);
}

/* ---- along ids -------------------------------------------------------------------------------- */

/* Entries of the scan until max matches are found. *ret_done: how many were looked at. */
static int test_entries(struct queue_walk *w, int n, struct queue_match *ret, size_t max)
{
    size_t found = 0;

    for (int i = 0; i < n && found < max; i++) {
        const struct spool_entry *entry = &w->entries[i];
        if (w->way == BY_IDS && msgid_cmp(&entry->id, &w->ids[w->at_id]) != 0) {
            w->at_id++;
            w->begun = false;
            return (int)found;
        }
        if (w->way == BY_ID && msgid_time(&entry->id) > w->last_ms) {
            w->ended = true;
            break;
        }
        w->begun = true;
        w->id = entry->id;
        w->n = entry->n;
        w->scanned++;
        int r = test_entry(w, entry, false, &ret[found]);
        if (r < 0)
            return r;
        found += r > 0;
    }
    return (int)found;
}

static int next_by_id(struct queue_walk *w, struct queue_match *ret, size_t max)
{
    int n = w->spool->scan_entries(w->spool, w->begun ? &w->id : NULL, w->n, w->entries,
                                   QUEUE_WALK_LOOK);

    if (n < 0)
        return n;
    w->ended = n == 0;
    return test_entries(w, n, ret, max);
}

/* The first recipient is asked for by itself: scans begin behind a place. */
static int next_by_ids(struct queue_walk *w, struct queue_match *ret, size_t max)
{
    if (w->at_id == w->n_ids) {
        w->ended = true;
        return 0;
    }
    const struct msgid *id = &w->ids[w->at_id];
    if (!w->begun) {
        w->begun = true;
        w->n = 0;
        w->scanned++;
        int r = queue_walk_test(w, id, 0, ret);
        return r == -ENOENT || r == -EBADMSG ? 0 : r;
    }
    int n = w->spool->scan_entries(w->spool, id, w->n, w->entries, QUEUE_WALK_LOOK);
    if (n <= 0) {
        w->at_id++;
        w->begun = false;
        return n;
    }
    return test_entries(w, n, ret, max);
}

/* ---- along the indexes of queues --------------------------------------------------------------- */

/* The next queue whose name fits; a step may find none. */
static int find_queue(struct queue_walk *w)
{
    int n = w->spool->scan_queues(w->spool, str_of(w->queue), w->queues, QUEUES_AT_ONCE);

    if (n < 0)
        return n;
    w->ended = n == 0;
    for (int i = 0; i < n; i++) {
        str_copy(str_of(w->queues[i].name), w->queue, sizeof(w->queue));
        w->scanned++;
        if (!queue_filter_queue(w->filter, str_of(w->queue)))
            continue;
        w->in_queue = true;
        w->class_ = SPOOL_SCHEDULED;
        w->begun = false;
        break;
    }
    return 0;
}

static int test_due(struct queue_walk *w, const struct spool_due *due, struct queue_match *ret)
{
    enum spool_class c = (enum spool_class)w->class_;
    struct spool_entry entry;

    if (!queue_filter_key(w->filter, c, due->due_ms, &due->id, w->now_ms))
        return 0;
    int e = w->spool->read_recipient(w->spool, &due->id, due->n, &entry, &w->bytes);
    if (e < 0)
        return e == -ENOENT || e == -EBADMSG ? 0 : e;
    if (entry.class_ != c || strcmp(entry.queue, w->queue) != 0)
        return 0; /* moved meanwhile */
    return test_entry(w, &entry, true, ret);
}

/* Due times that the state of a filter leaves out need not be read. */
static int scan_class(struct queue_walk *w)
{
    enum spool_class c = (enum spool_class)w->class_;
    struct spool_due behind_now = { .due_ms = w->now_ms, .n = UINT32_MAX };
    bool later = w->filter->state == FILTER_DEFERRED && c == SPOOL_SCHEDULED;
    int64_t until = w->filter->state == FILTER_READY ? w->now_ms : INT64_MAX;

    memset(behind_now.id.b, 0xff, sizeof(behind_now.id.b));
    return w->spool->scan_due(w->spool, str_of(w->queue), c,
                              w->begun ? &w->after
                              : later  ? &behind_now
                                       : NULL,
                              until, w->dues, QUEUE_WALK_LOOK);
}

static int next_by_queue(struct queue_walk *w, struct queue_match *ret, size_t max)
{
    size_t found = 0;

    if (!w->in_queue)
        return find_queue(w);
    while (w->class_ <= SPOOL_HELD && !class_wanted(w, (enum spool_class)w->class_)) {
        w->class_++;
        w->begun = false;
    }
    if (w->class_ > SPOOL_HELD) {
        w->in_queue = false;
        w->ended = !w->filter->queue_is_pattern;
        return 0;
    }
    int n = scan_class(w);
    if (n <= 0) {
        w->class_++;
        w->begun = false;
        return n;
    }
    for (int i = 0; i < n && found < max; i++) {
        w->begun = true;
        w->after = w->dues[i];
        w->scanned++;
        int r = test_due(w, &w->dues[i], &ret[found]);
        if (r < 0)
            return r;
        found += r > 0;
    }
    return (int)found;
}

int queue_walk_next(struct queue_walk *w, struct queue_match *ret, size_t max)
{
    if (w->ended || max == 0)
        return 0;
    switch (w->way) {
    case BY_ID: return next_by_id(w, ret, max);
    case BY_IDS: return next_by_ids(w, ret, max);
    case BY_QUEUE: return next_by_queue(w, ret, max);
    }
    return -EINVAL;
}

/* ---- places ----------------------------------------------------------------------------------- */

/* "ID.N", or "CLASS.DUE.ID.N.QUEUE"; between two queues its class is the one behind the last. */
const char *queue_walk_cursor(const struct queue_walk *w, char *dst)
{
    struct control_cursor c = { .class_ = -1, .id = w->id, .n = w->n };
    char place[CONTROL_CURSOR_TEXT];

    if (w->way != BY_QUEUE)
        return control_cursor_text(&c, dst);
    c.class_ = w->in_queue ? w->class_ : SPOOL_HELD;
    c.due_ms = w->in_queue ? INT64_MIN : INT64_MAX;
    c.id = (struct msgid){ 0 };
    c.n = 0;
    if (w->in_queue && w->begun) {
        c.due_ms = w->after.due_ms;
        c.id = w->after.id;
        c.n = w->after.n;
    }
    snprintf(dst, QUEUE_WALK_CURSOR, "%s.%s", control_cursor_text(&c, place), w->queue);
    return dst;
}

bool queue_walk_resume(struct queue_walk *w, struct str cursor)
{
    struct control_cursor c;
    struct str rest = cursor, part;

    if (w->way == BY_IDS)
        return false;
    if (w->way == BY_ID) {
        if (!control_cursor_parse(cursor, false, &c))
            return false;
        w->begun = true;
        w->id = c.id;
        w->n = c.n;
        return true;
    }
    for (int i = 0; i < 4; i++)
        if (!str_cut(&rest, '.', &part))
            return false;
    if (!rest.p || rest.n > SPOOL_MAX_QUEUE_NAME ||
        !control_cursor_parse(str_first(cursor, cursor.n - rest.n - 1), true, &c) ||
        (!w->filter->queue_is_pattern && !str_eq(rest, w->filter->queue)))
        return false;
    str_copy(rest, w->queue, sizeof(w->queue));
    w->in_queue = rest.n > 0;
    w->class_ = c.class_;
    w->begun = true;
    w->after = (struct spool_due){ .id = c.id, .n = c.n, .due_ms = c.due_ms };
    return true;
}
