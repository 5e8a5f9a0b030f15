/* etrn.c - the answer to ETRN.
 *
 * Layer: engine. Interface: etrn.h. A request is one heap block; the command that it sends to the
 * queue's owner is another, which belongs to that worker and frees itself there.
 */
#include "engine/etrn.h"

#include <stdio.h>

#include "engine/queue.h"
#include "engine/verdict.h"

struct etrn {
    struct engine *e;
    struct snapshot *snapshot;
    const struct session_view *session;
    etrn_done *done;
    void *owner;
    struct hook_call *call;
    struct later later; /* tells an answer that was there at once */
    struct etrn_view view;
    struct hook_input input;
    struct smtp_reply reply;
    uint64_t messages;                   /* for the log */
    char node[SPOOL_MAX_QUEUE_NAME + 8]; /* as the client said it, with its option */
    char domain[DOMAIN_TEXT];
    char text[1024]; /* of the reply */
};

static struct etrn *etrn_free(struct etrn *r)
{
    snapshot_unref(r->snapshot);
    free(r);
    return NULL;
}

/* before + node + after, as RFC 1985 §5.3 words its replies. */
static void set_reply(struct etrn *r, uint16_t code, struct smtp_enhanced enhanced,
                      const char *before, const char *after)
{
    snprintf(r->text, sizeof(r->text), "%s%s%s", before, r->node, after);
    r->reply = (struct smtp_reply){ code, enhanced, str_of(r->text) };
}

static void log_answer(const struct etrn *r)
{
    char client[NET_ADDR_TEXT] = "";
    bool granted = smtp_reply_positive(&r->reply);

    if (r->session)
        net_addr_ip_text(&r->session->client, client);
    engine_event(r->e,
                 EVENT(granted ? EVENT_INFO : EVENT_WARN, "etrn",
                       F_INT("session", r->session ? (int64_t)r->session->id : 0),
                       F_STRZ("client", client), F_STRZ("domain", r->node),
                       F_INT("code", r->reply.code), F_INT("messages", (int64_t)r->messages)));
}

static void tell(struct etrn *r)
{
    log_answer(r);
    r->done(r->owner, &r->reply);
    etrn_free(r);
}

static void tell_later(struct later *l)
{
    tell(CONTAINER_OF(l, struct etrn, later));
}

/* In the owner's thread: nobody here waits for it. */
static void command_done(struct queue_command *c)
{
    route_unref(c->route);
    free(c);
}

static int send_release(struct etrn *r, const struct hook_result *result)
{
    struct queue_command *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->type = QUEUE_RELEASE;
    c->route = route_ref(result->route);
    c->window_ms = result->window_ms;
    c->done = command_done;
    str_copy(result->queue, c->queue, sizeof(c->queue));
    queue_command_send(r->e->ports.workers, c);
    return 0;
}

static void release(struct etrn *r, const struct hook_result *result)
{
    struct port_spool *spool = r->e->ports.spool;
    struct spool_queue q;
    char before[64];
    int err = -EINVAL;

    if (result->queue.n && result->queue.n <= SPOOL_MAX_QUEUE_NAME)
        err = spool->read_queue(spool, result->queue, &q);
    if (err == -ENOENT || (err == 0 && q.waiting == 0)) {
        set_reply(r, 251, ENH(2, 0, 0), "OK, no messages waiting for node ", "");
        return;
    }
    if (err == 0)
        err = send_release(r, result);
    if (err < 0) {
        set_reply(r, 458, ENH(4, 3, 0), "Unable to queue messages for node ", "");
        return;
    }
    r->messages = q.waiting;
    snprintf(before, sizeof(before), "OK, %llu pending messages for node ",
             (unsigned long long)q.waiting);
    set_reply(r, 253, ENH(2, 0, 0), before, " started");
}

static void decide(struct etrn *r, const struct hook_result *result)
{
    switch (result->verdict) {
    case VERDICT_RELEASE: release(r, result); return;
    case VERDICT_FAILED:
        COUNT(r->e, hooks_failed, 1);
        set_reply(r, 458, ENH(4, 3, 0), "Unable to queue messages for node ", "");
        return;
    case VERDICT_REJECT:
    case VERDICT_DEFER:
        if (result->reply.code >= 400) {
            r->reply = result->reply;
            str_copy(result->reply.text, r->text, sizeof(r->text));
            r->reply.text = str_of(r->text);
            return;
        }
        break;
    default: break;
    }
    /* The same words whether the domain exists or not (E4). */
    set_reply(r, 459, ENH(4, 7, 1), "Node ", " not allowed");
}

static void hook_answered(void *owner, struct hook_result *result)
{
    struct etrn *r = owner;

    r->call = NULL;
    decide(r, result);
    tell(r);
}

/* A domain in its normal form, or the name of a queue as it is. */
static int read_node(struct etrn *r, char option, struct str node)
{
    ptrdiff_t n;

    r->view.option = option;
    r->view.operator_ = !r->session;
    r->node[0] = option;
    if (!str_copy(node, r->node + (option ? 1 : 0), sizeof(r->node) - 1))
        return -EINVAL;
    if (option == '#') {
        if (!str_copy(node, r->domain, sizeof(r->domain)))
            return -EINVAL;
        n = (ptrdiff_t)node.n;
    } else {
        n = domain_normalize(node, r->domain, sizeof(r->domain));
        if (n < 0)
            return (int)n;
    }
    r->view.domain = str_make(r->domain, (size_t)n);
    return 0;
}

/* True: r->reply is there. */
static bool ask(struct etrn *r)
{
    struct hooks *hooks = r->snapshot->hooks;
    struct hook_result result;
    int answered = 1;

    r->input = (struct hook_input){ .session = r->session, .etrn = &r->view };
    hook_result_init(&result);
    if (hooks_have(hooks, HOOK_ETRN))
        answered = hooks->run(hooks, HOOK_ETRN, &r->input, &result, hook_answered, r, &r->call);
    if (answered)
        decide(r, &result);
    hook_result_done(&result);
    return answered;
}

struct etrn *etrn_start(struct engine *e, struct snapshot *snapshot,
                        const struct session_view *session, char option, struct str node,
                        etrn_done *done, void *owner)
{
    struct etrn *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->e = e;
    r->snapshot = snapshot_ref(snapshot);
    r->session = session;
    r->done = done;
    r->owner = owner;
    later_init(&r->later, tell_later);
    bool answered = true;
    if (read_node(r, option, node) < 0)
        set_reply(r, 501, ENH(5, 5, 4), "Syntax error: not a domain: ", "");
    else
        answered = ask(r);
    if (answered)
        engine_later(e, &r->later);
    return r;
}

void etrn_cancel(struct etrn *r)
{
    if (!r)
        return;
    if (r->call)
        r->snapshot->hooks->cancel(r->snapshot->hooks, r->call);
    list_remove(&r->later.link);
    etrn_free(r);
}
