/* import.c - a message that comes without a session. Layer: engine. Interface: import.h. */
#include "engine/import.h"

static void forget(struct import *i)
{
    list_remove(&i->link);
    i->intake = NULL;
    i->waits = false;
}

static void give_up(struct import *i, int error)
{
    struct intake *in = i->intake;

    forget(i);
    i->error = error;
    intake_abort(in);
}

/* ---- steps ------------------------------------------------------------------------------------ */

static void begin(struct engine *e, struct import *i)
{
    struct intake_source src = {
        .snapshot = e->snapshot,
        .origin = &i->origin,
        .sender = i->sender,
        .flags = i->notification ? MESSAGE_DSN : 0,
        .eight_bit = i->eight_bit,
        .binary = i->binary,
        .smtputf8 = i->smtputf8,
        .requiretls = i->requiretls,
        .dsn = i->dsn,
        .times = i->times,
    };

    i->engine = e;
    i->error = 0;
    list_init(&i->link);
    if (e->stopping) {
        i->error = -ESHUTDOWN;
        return;
    }
    i->intake = intake_new(e, &src, i);
    if (!i->intake) {
        i->error = -ENOMEM;
        return;
    }
    list_push(&e->imports, &i->link);
    i->id = *intake_id(i->intake);
    for (size_t k = 0; k < i->n; k++)
        if (intake_add_recipient(i->intake, &i->recipients[k].address, &i->recipients[k].dsn,
                                 STR("import")) < 0) {
            give_up(i, -ENOMEM);
            return;
        }
}

static void on_ready(void *owner)
{
    struct import *i = owner;

    if (!i->waits)
        return;
    i->waits = false;
    i->told(i);
}

/* 1: it is told later. */
static int take(struct import *i)
{
    if (!i->intake)
        return 0;
    int r = intake_body(i->intake, i->piece, on_ready);
    if (r < 0)
        give_up(i, r);
    i->waits = r > 0;
    return r > 0;
}

static void on_done(void *owner, const struct smtp_reply *reply)
{
    struct import *i = owner;

    forget(i);
    i->reply = *reply;
    str_copy(reply->text, i->text, sizeof i->text);
    i->reply.text = str_of(i->text);
    i->told(i);
}

static int finish(struct import *i)
{
    if (!i->intake)
        return 0;
    intake_finish(i->intake, on_done);
    return 1;
}

static void run(struct engine *e, struct worker_message *m)
{
    struct import *i = CONTAINER_OF(m, struct import, wm);
    int later = 0;

    i->taken = i->step;
    switch (i->taken) {
    case IMPORT_BEGIN: begin(e, i); break;
    case IMPORT_PIECE: later = take(i); break;
    case IMPORT_FINISH: later = finish(i); break;
    case IMPORT_ABORT:
        if (i->intake)
            give_up(i, -ECANCELED);
        break;
    }
    if (!later)
        i->told(i);
}

void import_post(struct port_workers *workers, int worker, struct import *i, enum import_step step)
{
    i->step = step;
    i->wm.run = run;
    workers->post(workers, worker, &i->wm);
}

/* ---- the end ---------------------------------------------------------------------------------- */

/* A commit that is under way ends by itself. */
void imports_stop(struct engine *e)
{
    LIST_FOREACH(it, &e->imports)
    {
        struct import *i = LIST_ENTRY(it, struct import, link);
        bool waits = i->waits;
        if (i->taken == IMPORT_FINISH)
            continue;
        give_up(i, -ESHUTDOWN);
        if (waits)
            i->told(i);
    }
}

void imports_forget(struct engine *e)
{
    LIST_FOREACH(it, &e->imports)
    {
        give_up(LIST_ENTRY(it, struct import, link), -ESHUTDOWN);
    }
}
