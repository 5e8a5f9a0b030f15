/* notification.c - what senders are told. See notification.h. */
#include "engine/notification.h"

#include "mail/dsn.h"

/* RFC 2852 §4.1.4: a trace is told of each host that has taken it on; §4.1.4.2: so is who wanted to hear of a delay, when
 * that host will not tell. Unless the sender wants to hear of nothing. */
static bool is_traced(const struct outcome *o, size_t i)
{
    const struct message_times *t = &o->job->message->times;
    bool told_no_more = t->by == SMTP_BY_NOTIFY && !o->by_goes_on;
    return !o->lmtp && !(o->job->recipients[i].notify & SMTP_NOTIFY_NEVER) &&
           t->by != SMTP_BY_NONE && (t->by_trace || told_no_more);
}

/* RFC 3461 §4.1: a sender may ask not to be told, or to be told of success as well. Of that we tell where the
 * host that has the message will not (§5.2.2). */
static bool is_reported(const struct outcome *o, size_t i)
{
    uint8_t notify = o->job->recipients[i].notify;
    switch (o->results[i].fate) {
    case FATE_BOUNCE: return notify == 0 || (notify & SMTP_NOTIFY_FAILURE);
    case FATE_WARN: return true;
    case FATE_DEFER: return o->results[i].warn;
    case FATE_DELIVERED:
        return ((notify & SMTP_NOTIFY_SUCCESS) && !o->told_further) || is_traced(o, i);
    default: return false;
    }
}

int64_t notification_warn_at(const struct settings *set, const struct message *m,
                             const struct recipient *r)
{
    int64_t after =
        r->route && r->route->warn_after_ms ? r->route->warn_after_ms : set->queue.warn_after_ms;
    bool wanted = r->notify == 0 || (r->notify & SMTP_NOTIFY_DELAY);
    int64_t asked = message_tell_at(m); /* in place of the usual time: its sender knows better */
    if (!wanted || r->warned || m->sender.text.n == 0 || (asked == INT64_MAX && after < 0))
        return INT64_MAX;
    return asked != INT64_MAX ? asked : message_start(m) + after;
}

bool notification_due(const struct outcome *o)
{
    if (o->job->message->sender.text.n == 0)
        return false;
    for (size_t i = 0; i < o->job->n; i++)
        if (is_reported(o, i))
            return true;
    return false;
}

static struct smtp_enhanced failure_status(const struct result *res)
{
    if (res->reply.enhanced.class_ == 5)
        return res->reply.enhanced;
    switch (res->scope) {
    case SCOPE_HOST: return ENH(5, 4, 0);
    case SCOPE_MESSAGE: return ENH(5, 6, 0);
    case SCOPE_RECIPIENT: return ENH(5, 1, 0);
    }
    return ENH(5, 0, 0);
}

static struct smtp_enhanced delay_status(const struct outcome *o, const struct result *res)
{
    if (message_tell_at(o->job->message) != INT64_MAX)
        return ENH(4, 4, 7);
    return res->reply.enhanced.class_ == 4 ? res->reply.enhanced
           : res->scope == SCOPE_HOST      ? ENH(4, 4, 1)
                                           : ENH(4, 0, 0);
}

/* Until when it is tried; 0: without end. */
static int64_t retry_until(const struct settings *set, const struct outcome *o, size_t i)
{
    int64_t at = queue_expires(set, o->job->message, o->job->recipients[i].route,
                               o->results[i].scope == SCOPE_HOST);
    return at == INT64_MAX ? 0 : at;
}

/* -ENOMEM. */
static int describe(struct engine *e, const struct settings *set, struct outcome *o, size_t i,
                    struct dsn_recipient *ret)
{
    const struct result *res = &o->results[i];
    const struct recipient *r = &o->job->recipients[i];
    bool delivered = res->fate == FATE_DELIVERED, failed = res->fate == FATE_BOUNCE;
    bool tried =
        o->job->mode == JOB_DELIVER && o->end != ATTEMPT_UNTRIED; /* RFC 3464 section 2.3.7 */
    *ret = (struct dsn_recipient){ .address = r->address.text,
                                   .orcpt = r->orcpt,
                                   .remote_host = o->host,
                                   .diagnostic = res->why,
                                   .last_attempt_ms = tried ? engine_wall(e) : r->last_ms };
    ret->action = failed       ? DSN_FAILED
                  : !delivered ? DSN_DELAYED
                  : o->lmtp    ? DSN_DELIVERED
                               : DSN_RELAYED;
    ret->status = delivered ? ENH(2, 0, 0) : failed ? failure_status(res) : delay_status(o, res);
    if (ret->action == DSN_DELAYED)
        ret->retry_until_ms = retry_until(set, o, i);
    if (res->reply.code)
        ret->diagnostic =
            arena_printf(&o->arena, "%u " STR_FMT, res->reply.code, STR_ARG(res->reply.text));
    return res->reply.code && !ret->diagnostic.p ? -ENOMEM : 0;
}

/* The first piece of the original: in memory while it is fresh, else from the spool; empty when it cannot be read.
 * -ENOMEM: for now. */
static int original_head(struct engine *e, const struct message *m, struct buf *scratch,
                         struct str *ret)
{
    struct port_spool *spool = e->ports.spool;
    if (m->body && m->body->first) {
        *ret = str_make(m->body->first->data, m->body->first->n);
        return 0;
    }
    int r = spool->read_chunk(spool, &m->id, 0, scratch);
    *ret = r == 0 ? buf_str(scratch) : STR_NONE;
    return r == -ENOMEM ? r : 0;
}

int notification_write(struct engine *e, const struct settings *set, struct outcome *o,
                       const struct msgid *id, struct buf *out)
{
    const struct message *m = o->job->message;
    AUTO_FREE struct dsn_recipient *told = calloc(o->job->n, sizeof *told);
    struct str head = STR_NONE;
    struct buf scratch;
    size_t n = 0;
    bool failed = false;
    if (!told)
        return -ENOMEM;
    for (size_t i = 0; i < o->job->n; i++)
        if (is_reported(o, i)) {
            if (describe(e, set, o, i, &told[n++]) < 0)
                return -ENOMEM;
            failed |= o->results[i].fate == FATE_BOUNCE;
        }
    buf_init(&scratch, 0);
    int err = original_head(e, m, &scratch, &head);
    struct dsn d = {
        .original = m,
        .original_head = head,
        .full = failed && message_ret(m) == SMTP_RET_FULL && /* RFC 3461 §4.3 */
                /* not within lines of text; not over ways that are not known (RFC 8689 §5) */
                !(m->flags & (MESSAGE_BINARY | MESSAGE_REQUIRETLS)),
        .hostname = set->hostname,
        .id = *id,
        .wall_ms = engine_wall(e),
        .recipients = told,
        .n_recipients = n
    };
    if (err == 0)
        err = dsn_write(&d, out);
    buf_done(&scratch);
    return err;
}
