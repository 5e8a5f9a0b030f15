/* import.h - a message that comes without a session: from a file, handed in by an operator.
 *
 * Layer: engine. It is accepted like any other: the `route` hooks are asked, one commit puts it into the
 * spool, and what is told comes after the sync. No `data` hook is asked and no Received is added: it has been accepted
 * before, and stays octet for octet as it is.
 *
 * Who hands it in lives in another thread and owns the struct. It gives the content in pieces, one step at a time:
 * import_post, then `told` in the worker's thread, then the next. BEGIN comes first; FINISH or ABORT
 * last. After the engine has gone nothing is told any more.
 */
#ifndef TERN_ENGINE_IMPORT_H
#define TERN_ENGINE_IMPORT_H

#include "engine/intake.h"

enum import_step {
    IMPORT_BEGIN,
    IMPORT_PIECE,  /* `piece` */
    IMPORT_FINISH, /* `reply` and `id` tell what became of it */
    IMPORT_ABORT,  /* as if it had never been */
};

struct import_recipient {
    struct address address;
    struct smtp_dsn_rcpt dsn;
};

struct import {
    struct worker_message wm;
    struct list link;      /* engine.imports, from BEGIN to the end */
    struct arena *arena;   /* owns the strings here and below; of who hands it in */
    enum import_step step; /* who hands it in writes it, also while the worker looks around */

    /* in */
    struct address sender;
    struct intake_origin origin;
    struct smtp_dsn_mail dsn;
    struct message_times times;
    bool eight_bit, binary, smtputf8, notification, requiretls;
    const struct import_recipient *recipients;
    size_t n;
    struct str piece;

    /* out */
    int error; /* of any step: -ENOMEM, -ENOSPC, -EIO, -ESHUTDOWN; then it can only be aborted */
    struct smtp_reply reply;
    char text[512]; /* of the reply */
    struct msgid id;

    /* the worker's */
    enum import_step taken; /* begun last */
    struct engine *engine;
    struct intake *intake;
    bool waits; /* for room; told when there is some */
    void (*told)(struct import *i);
};

void import_post(struct port_workers *workers, int worker, struct import *i, enum import_step step);

/* ---- for engine.c: those that are open are given up, and told of it when somebody waits ---- */
void imports_stop(struct engine *e);
/* Nothing comes back any more. */
void imports_forget(struct engine *e);

#endif
