/* etrn_release.c - a request for waiting mail: tells the owners of the queues, and words the reply.
 *
 * Layer: engine. See etrn_internal.h. Each queue's owner gets one command, in a heap block that comes back
 * with its result. A request that has been cancelled meanwhile is found by no id, and the block is freed. */
#include "engine/etrn_internal.h"

#include <stdio.h>

#include "engine/turn.h"

struct order {
    struct queue_command command;
    struct worker_message back;
    struct port_workers *workers; /* of the worker that asks */
    uint64_t etrn;
};

static void obstacle(struct etrn *r, const char *why)
{
    char after[64];

    snprintf(after, sizeof(after), "%s%s", *why ? ": " : "", why);
    etrn_set_reply(r, 458, ENH(4, 3, 0), "Unable to queue messages for node ", after);
}

static struct turn *make_turn(struct etrn *r)
{
    struct turn *t = r->session ? turn_new(r->e, r->snapshot, r->session->client) : NULL;

    for (size_t i = 0; t && i < r->n_grants; i++)
        if (turn_add(t, str_of(r->grants[i].queue)) < 0)
            t = turn_free(t);
    return t;
}

/* RFC 2645 §5.2.1 */
static void word_atrn_reply(struct etrn *r)
{
    if (!r->busy && !r->failed && r->started == 0) {
        r->reply = REPLY(453, ENH(4, 0, 0), "You have no mail");
        return;
    }
    if (!r->busy && !r->failed)
        r->turn = make_turn(r);
    r->reply = r->turn ? REPLY(250, ENH(2, 0, 0), "OK, now reversing the connection")
                       : REPLY(451, ENH(4, 3, 0), "Unable to process ATRN request now");
}

/* What can be said of all queues together (RFC 1985 §5.3). */
static void word_reply(struct etrn *r)
{
    char before[64];
    bool some = r->started + r->merged > 0;

    if (r->request.atrn)
        word_atrn_reply(r);
    else if (!some && r->busy)
        obstacle(r, "already running");
    else if (!some && r->failed)
        obstacle(r, "");
    else if (!some)
        etrn_set_reply(r, 251, ENH(2, 0, 0), "OK, no messages waiting for node ", "");
    else if (r->cut || r->failed || r->busy) /* the number is not known */
        etrn_set_reply(r, 250, ENH(2, 0, 0), "OK, queuing for node ", " started");
    else if (!r->started) /* this one was merged into one that is under way (E10) */
        etrn_set_reply(r, 252, ENH(2, 0, 0), "OK, pending messages for node ", " started");
    else {
        snprintf(before, sizeof(before), "OK, %llu pending messages for node ",
                 (unsigned long long)r->messages);
        etrn_set_reply(r, 253, ENH(2, 0, 0), before, " started");
    }
    etrn_end(r);
}

static struct etrn *find(struct etrns *all, uint64_t id)
{
    LIST_FOREACH(it, &all->active)
    {
        struct etrn *r = LIST_ENTRY(it, struct etrn, link);
        if (r->id == id)
            return r;
    }
    return NULL;
}

static void take_result(struct etrn *r, const struct order *o)
{
    const struct queue_command *c = &o->command;

    if (c->result == 0 && c->affected) {
        r->started += !c->merged;
        r->merged += c->merged;
        r->messages += c->affected;
    }
    r->busy += c->result == -EBUSY;
    r->failed = r->failed || (c->result < 0 && c->result != -EBUSY);
}

static void order_back(struct engine *e, struct worker_message *m)
{
    struct order *o = CONTAINER_OF(m, struct order, back);
    struct etrn *r = find(e->etrns, o->etrn);

    if (r) {
        take_result(r, o);
        if (--r->orders == 0)
            word_reply(r);
    }
    free(o);
}

/* In the owner's thread. */
static void order_done(struct queue_command *c)
{
    struct order *o = CONTAINER_OF(c, struct order, command);

    c->route = route_unref(c->route);
    if (c->result == -ESHUTDOWN) { /* nobody is there to be told */
        free(o);
        return;
    }
    o->back.run = order_back;
    o->workers->post(o->workers, o->workers->self, &o->back);
}

static int give_order(struct etrn *r, const struct etrn_grant *g)
{
    struct order *o = calloc(1, sizeof(*o));

    if (!o)
        return -ENOMEM;
    o->workers = r->e->ports.workers;
    o->etrn = r->id;
    o->command.type = QUEUE_RELEASE;
    o->command.route = route_ref(g->route);
    o->command.window_ms = g->window_ms;
    o->command.replace = r->request.origin == ETRN_OPERATOR;
    o->command.probe = r->request.atrn; /* they go when the connection has turned */
    o->command.done = order_done;
    memcpy(o->command.queue, g->queue, sizeof(o->command.queue));
    r->orders++;
    queue_command_send(o->workers, &o->command);
    return 0;
}

void etrn_release(struct etrn *r)
{
    for (size_t i = 0; i < r->n_grants; i++)
        if (give_order(r, &r->grants[i]) < 0)
            r->failed = true;
    if (r->orders == 0)
        word_reply(r);
}
