/* queue_by.c - mail that is to be there in time (DELIVERBY, RFC 2852): what is over its time is returned, or its sender is
 * told, also while its queue backs off or waits for something and nothing of it is tried. See queue.h.
 *
 * What is deferred on its own has that moment as its due time, on disk. The rest stands in no order of these times. So a
 * queue knows the first of them, in memory, and walks over its entries when it has come: a batch a turn, and the more
 * there were, the longer until the next walk. What it has not read since the start is found as it is read, or by the
 * looks for what is too old (queue_age.c). */
#include "engine/queue_impl.h"

enum {
    BY_AT_ONCE = 32,     /* jobs of this kind under way */
    BY_PAUSE_MS = 1000,  /* between two walks, and a millisecond more for each ten entries */
    BY_RETRY_MS = 60000, /* after an error */
};

static int64_t by_of(const struct message *m)
{
    return MIN(message_return_at(m), message_tell_at(m));
}

/* Something is to be done then. */
static void want(struct queue *q, int64_t wall_ms)
{
    q->by_next = MIN(q->by_next, wall_ms);
}

int64_t queue_by_at(const struct queue *q)
{
    struct engine *e = q->all->engine;
    int64_t now = engine_now(e);
    if (q->by_next == INT64_MAX || q->by_walking || q->held)
        return INT64_MAX;
    int64_t wait = MAX(q->by_next - engine_wall(e), (int64_t)0);
    return MAX(now + wait, q->by_not_before);
}

void queue_note_by(struct queue *q, const struct message *m)
{
    int64_t at = by_of(m);
    bool told = at == message_tell_at(m) && at <= engine_wall(q->all->engine);
    if (at >= q->by_next || told) /* once, when an attempt has failed, if not before */
        return;
    want(q, at);
    queue_arm(q);
}

/* ---- one message ------------------------------------------------------------------------------ */

/* The message of an entry, when it has a time. 1: *ret is a reference; 0: it has none; -errno. */
static int read_times(struct queue *q, const struct msgid *id, struct message **ret)
{
    struct buf *b = &q->all->bytes;
    int r = queue_spool(q)->read_message(queue_spool(q), id, b);
    if (r < 0 || !message_may_say_times(buf_str(b)))
        return r;
    r = message_decode(id, buf_str(b), ret);
    if (r < 0)
        return r;
    if (by_of(*ret) != INT64_MAX)
        return 1;
    *ret = message_unref(*ret);
    return 0;
}

static void start(struct queue *q, struct job *j, enum job_mode mode)
{
    j->mode = mode;
    q->warning += mode == JOB_WARN;
    queue_start_job(q, j);
}

/* These are over their time. What is under way ends by itself; what only waits for its turn is called off. */
static void act(struct queue *q, const struct spool_due *d, size_t n, bool give_back)
{
    int64_t now = engine_wall(q->all->engine);
    struct job *j = job_find(q->all, q, &d->id);
    if ((j && list_empty(&j->link)) || (j && j->mode != JOB_DELIVER) ||
        q->expiring + q->warning >= BY_AT_ONCE) {
        want(q, now + BY_PAUSE_MS);
        return;
    }
    if (j && !give_back && queue_load_job(q, j) == 0 && queue_warn_at(q, j) > now)
        return; /* it has been told */
    if (j)
        queue_call_off(q, j);
    j = queue_job_of(q, d, n, q->by_class);
    if (!j) {
        want(q, now + BY_PAUSE_MS);
        return;
    }
    j->mode =
        give_back ? JOB_EXPIRE : JOB_WARN; /* not JOB_DELIVER, which a release would be asked for */
    int r = queue_load_job(q, j);
    if (r == 0 && give_back) {
        start(q, j, JOB_EXPIRE);
        want(q, now + BY_RETRY_MS); /* should that not be written down now */
    } else if (r == 0 && queue_warn_at(q, j) <= now) {
        start(q, j, JOB_WARN);
    } else {
        job_drop(q->all, j);
    }
}

static void look_at(struct queue *q, const struct spool_due *d, size_t n)
{
    int64_t now = engine_wall(q->all->engine);
    struct message *m = NULL;
    if (read_times(q, &d->id, &m) != 1)
        return; /* none, gone, or damaged: others say so */
    if (now >= message_return_at(m))
        act(q, d, n, true);
    else if (now >= message_tell_at(m))
        act(q, d, n, false);
    else
        want(q, by_of(m));
    message_unref(m);
}

/* ---- the walk --------------------------------------------------------------------------------- */

static bool begin(struct queue *q)
{
    struct engine *e = q->all->engine;
    if (q->by_next > engine_wall(e) || q->by_not_before > engine_now(e))
        return false;
    q->by_walking = true;
    q->by_begun = false;
    q->by_class = SPOOL_SCHEDULED;
    q->by_seen = 0;
    q->by_next = INT64_MAX; /* found anew */
    return true;
}

static void end(struct queue *q, int64_t pause_ms)
{
    q->by_walking = false;
    q->by_not_before = engine_now(q->all->engine) + pause_ms;
}

void queue_mind_by(struct queue *q)
{
    if (!q->by_walking && !begin(q))
        return;
    struct spool_due *d = q->all->dues;
    size_t most = queue_most_recipients(q);
    int n = queue_spool(q)->scan_due(queue_spool(q), queue_name(q), q->by_class,
                                     q->by_begun ? &q->by_after : NULL, INT64_MAX, d, QUEUE_WINDOW);
    if (n < 0) {
        want(q, engine_wall(q->all->engine));
        end(q, BY_RETRY_MS);
        return;
    }
    if (n > 0)
        q->by_after = d[n - 1];
    q->by_begun = n == QUEUE_WINDOW;
    q->by_seen += (uint32_t)n;
    for (int i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && (size_t)(k - i) < most && !msgid_cmp(&d[k].id, &d[i].id);)
            k++;
        look_at(q, &d[i], (size_t)(k - i));
    }
    if (!q->by_begun && q->by_class == SPOOL_WAITING) {
        end(q, BY_PAUSE_MS + q->by_seen / 10);
        return;
    }
    if (!q->by_begun)
        q->by_class = SPOOL_WAITING;
    queue_run_soon(q);
}
