/* control_filtered.c - a page of the messages that a filter means.
 *
 * Layer: daemon, main thread. Interface: control_call.h. A page looks at a bounded number of entries, so it may
 * be short, or empty, and still have a next one. Whether a recipient is being delivered only its
 * owner knows: it is asked where the filter wants to know.
 */
#include "base/glob.h"
#include "daemon/control_lookup.h"
#include "daemon/queue_walk.h"
#include "engine/queue_batch.h"

enum { LOOK_AT = 2048 }; /* entries a page */

struct filtered;
struct filtered_part {
    struct queue_batch batch;
    struct filtered *page;
    uint32_t place[QUEUE_BATCH]; /* of each item in page->match */
};

struct filtered {
    struct control_work work;
    struct router *router;
    struct queue_filter filter;
    struct queue_walk *walk;
    struct queue_match *match;
    bool *under_way; /* of each match, as far as it was asked */
    size_t n, limit;
    struct filtered_part *part[WORKERS_MAX];
};

bool control_is_filtered(const struct control_call *c)
{
    for (size_t i = 1; queue_filter_names[i]; i++)
        if (control_request_arg(&c->request, queue_filter_names[i]).p)
            return true;
    return glob_is_pattern(control_request_arg(&c->request, "queue"));
}

static void page_free(struct filtered *p)
{
    for (int i = 0; i < WORKERS_MAX; i++)
        free(p->part[i]);
    queue_walk_free(p->walk);
    queue_filter_done(&p->filter);
    free(p->under_way);
    free(p->match);
    free(p);
}

static bool asks_owners(const struct filtered *p)
{
    return p->filter.state == FILTER_ACTIVE || p->filter.state == FILTER_READY;
}

static void answer(struct filtered *p, struct control_call *c)
{
    json_t *list = json_array();
    char cursor[QUEUE_WALK_CURSOR];
    struct found f;

    found_init(&f);
    for (size_t i = 0; i < p->n; i++) {
        if (asks_owners(p) && p->under_way[i] != (p->filter.state == FILTER_ACTIVE))
            continue;
        json_t *entry =
            control_entry_json(p->router->ports.spool, &p->match[i].id, p->match[i].n, &f);
        if (entry)
            json_array_append_new(list, entry);
    }
    found_done(&f);
    control_answer(c, 200,
                   json_pack("{s:o, s:o, s:I}", "messages", list, "next",
                             queue_walk_ended(p->walk)
                                 ? json_null()
                                 : control_text(str_of(queue_walk_cursor(p->walk, cursor))),
                             "scanned", (json_int_t)queue_walk_scanned(p->walk)));
}

/* ---- asking the owners ------------------------------------------------------------------------- */

static void finish(struct control_work *work)
{
    struct filtered *p = CONTAINER_OF(work, struct filtered, work);

    if (work->call)
        answer(p, work->call);
    page_free(p);
}

static void on_part_back(struct engine *none, struct worker_message *m)
{
    struct filtered_part *part =
        CONTAINER_OF(CONTAINER_OF(m, struct queue_batch, wm), struct filtered_part, batch);

    for (size_t i = 0; i < part->batch.n; i++)
        part->page->under_way[part->place[i]] = part->batch.item[i].result == BATCH_BUSY;
    control_work_done(&part->page->work);
}

/* In the owner's thread. */
static void on_part_done(struct queue_batch *b)
{
    b->wm.run = on_part_back;
    router_tell(CONTAINER_OF(b, struct filtered_part, batch)->page->router, &b->wm);
}

/* 0, -ENOMEM. */
static int add_to_part(struct filtered *p, size_t i)
{
    const struct queue_match *m = &p->match[i];
    int owner = engine_queue_owner(str_of(m->queue), p->router->n_workers);
    struct filtered_part *part = p->part[owner];

    if (!part)
        part = p->part[owner] = calloc(1, sizeof(*part));
    if (!part)
        return -ENOMEM;
    part->page = p;
    part->batch.type = BATCH_LOOK;
    part->batch.done = on_part_done;
    part->place[part->batch.n] = (uint32_t)i;
    struct queue_batch_item *item = &part->batch.item[part->batch.n++];
    item->id = m->id;
    item->n = m->n;
    memcpy(item->queue, m->queue, sizeof(item->queue));
    return 0;
}

static void ask_owners(struct control_call *c, struct filtered *p)
{
    struct router *r = p->router;

    for (size_t i = 0; i < p->n; i++)
        if (add_to_part(p, i) < 0) {
            page_free(p);
            control_errno(c, -ENOMEM);
            return;
        }
    for (int i = 0; i < r->n_workers; i++)
        p->work.left += p->part[i] != NULL;
    p->work.finish = finish;
    control_wait(c, &p->work);
    for (int i = 0; i < r->n_workers; i++)
        if (p->part[i])
            queue_batch_send(r->workers[0]->ports.workers, i, &p->part[i]->batch);
}

/* ---- the page --------------------------------------------------------------------------------- */

static struct filtered *page_new(struct router *r)
{
    struct filtered *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->router = r;
    queue_filter_init(&p->filter);
    return p;
}

/* False: the call has been answered. */
static bool read_filter(struct control_call *c, struct queue_filter *f)
{
    char error[QUEUE_FILTER_ERROR];
    int e = 0;

    for (size_t i = 0; e == 0 && queue_filter_names[i]; i++) {
        struct str value = control_request_arg(&c->request, queue_filter_names[i]);
        if (value.p)
            e = queue_filter_set(f, str_of(queue_filter_names[i]), value, error);
    }
    if (e == 0)
        e = queue_filter_check(f, error);
    if (e < 0)
        control_error(c, e == -ENOMEM ? 500 : 400, e == -ENOMEM ? "failed" : "bad_filter", "%s",
                      error);
    return e == 0;
}

/* -EINVAL: `after` is no place. */
static int find(struct filtered *p, struct str after)
{
    struct port_spool *spool = p->router->ports.spool;

    if (asks_owners(p))
        p->limit = MIN(p->limit, (size_t)QUEUE_BATCH);
    p->match = calloc(p->limit, sizeof(*p->match));
    p->under_way = calloc(p->limit, sizeof(*p->under_way));
    p->walk = queue_walk_new(spool, &p->filter, NULL, 0, router_wall(p->router));
    if (!p->match || !p->under_way || !p->walk)
        return -ENOMEM;
    if (!str_empty(after) && !queue_walk_resume(p->walk, after))
        return -EINVAL;
    while (p->n < p->limit && !queue_walk_ended(p->walk) && queue_walk_scanned(p->walk) < LOOK_AT) {
        int n = queue_walk_next(p->walk, p->match + p->n, p->limit - p->n);
        if (n < 0)
            return n;
        p->n += (size_t)n;
    }
    return 0;
}

void control_serve_filtered(struct control_call *c)
{
    struct filtered *p = page_new(c->router);
    uint64_t limit;

    if (!p) {
        control_errno(c, -ENOMEM);
        return;
    }
    if (!control_request_number(&c->request, "limit", CONTROL_PAGE_MAX, 100, &limit) || !limit) {
        page_free(p);
        control_error(c, 400, "bad_argument", "'limit' must be a number from 1 to %d",
                      CONTROL_PAGE_MAX);
        return;
    }
    p->limit = limit;
    if (!read_filter(c, &p->filter)) {
        page_free(p);
        return;
    }
    int e = find(p, control_request_arg(&c->request, "after"));
    if (e == -EINVAL)
        control_error(c, 400, "bad_argument",
                      "'after' must be the 'next' of an answer to the same question");
    else if (e < 0)
        control_errno(c, e);
    if (e == 0 && asks_owners(p) && p->n) {
        ask_owners(c, p);
        return;
    }
    if (e == 0)
        answer(p, c);
    page_free(p);
}
