/* reload.c - a new configuration takes the place of the running one. Layer: daemon. Interface: reload.h. */
#include "daemon/reload.h"

#include <stdio.h>
#include <sysexits.h>

#include "daemon/control.h"
#include "daemon/local_sources.h"
#include "daemon/maps.h"
#include "daemon/notify.h"
#include "daemon/router.h"
#include "daemon/sandbox.h"
#include "daemon/sockets.h"

/* What one worker is handed. */
struct handover {
    struct worker_message to_worker, to_main;
    struct reloads *reloads;
    struct worker *worker;
    struct snapshot *snapshot; /* one reference */
    int result;                /* of worker_configure */
};

struct reloads {
    struct router *router;
    struct list waiting; /* for the next one */
    struct list served;  /* by the one under way */
    const char *why;
    struct later start;
    bool under_way;
    int left; /* workers that have not taken over yet */
    uint64_t generation;
    struct loaded loaded;
    struct sockets sockets;
    struct snapshot *snapshots[WORKERS_MAX];
    struct handover handover[WORKERS_MAX];
    struct reload_status status;
};

/* ---- what cannot change ----------------------------------------------------------------------- */

static int refuse(struct failure *f, struct str file, const char *key, struct str now,
                  struct str next)
{
    return failure_set(f, EX_CONFIG,
                       STR_FMT ": '%s' cannot change while the router runs (it is " STR_FMT
                               ", the file says " STR_FMT
                               "): restart the router, or change it back",
                       STR_ARG(file), key, STR_ARG(now), STR_ARG(next));
}

static struct str truth(bool value)
{
    return value ? STR("true") : STR("false");
}

static int check_fixed(const struct settings *now, const struct settings *next, struct failure *f)
{
    char a[16], b[16];

    if (!str_eq(now->spool, next->spool))
        return refuse(f, next->file, "spool", now->spool, next->spool);
    if (!str_eq(now->control, next->control))
        return refuse(f, next->file, "control", now->control, next->control);
    if (!str_eq(now->user, next->user))
        return refuse(f, next->file, "user", now->user, next->user);
    if (now->sandbox != next->sandbox)
        return refuse(f, next->file, "sandbox", truth(now->sandbox), truth(next->sandbox));
    if (now->core_dumps != next->core_dumps)
        return refuse(f, next->file, "core_dumps", truth(now->core_dumps), truth(next->core_dumps));
    if (now->workers != next->workers) {
        snprintf(a, sizeof(a), "%u", now->workers);
        snprintf(b, sizeof(b), "%u", next->workers);
        return refuse(f, next->file, "workers", str_of(a), str_of(b));
    }
    return 0;
}

/* ---- the end of one --------------------------------------------------------------------------- */

static void clean_up(struct reloads *rs)
{
    for (int i = 0; i < rs->router->n_workers; i++)
        rs->snapshots[i] = snapshot_unref(rs->snapshots[i]);
    sockets_done(&rs->sockets);
    loaded_done(&rs->loaded);
}

static void tell(struct reloads *rs, const struct failure *f)
{
    struct router *r = rs->router;
    struct list *link;

    rs->status.at_ms = router_wall(r);
    rs->status.ok = !f;
    if (f)
        rs->status.failure = *f;
    if (f)
        journal_event(&r->journal,
                      EVENT(EVENT_ERROR, "reload_failed", F_STRZ("asked_by", rs->why),
                            F_STRZ("error", f->text),
                            F_STR("detail", f->detail[0] ? str_of(f->detail) : STR_NONE),
                            F_INT("generation", (int64_t)r->generation)));
    else
        journal_event(&r->journal, EVENT(EVENT_INFO, "reload", F_STRZ("asked_by", rs->why),
                                         F_INT("generation", (int64_t)r->generation)));
    notify("READY=1");
    rs->under_way = false;
    while ((link = list_pop(&rs->served))) {
        struct reload_waiter *w = LIST_ENTRY(link, struct reload_waiter, link);
        w->done(w, r->generation, f);
    }
    if (!list_empty(&rs->waiting))
        io_loop_later(r->loop, &rs->start);
}

static void finish(struct reloads *rs)
{
    struct router *r = rs->router;

    settings_unref(r->settings);
    r->settings = settings_ref(rs->loaded.settings);
    tls_context_unref(r->tls);
    r->tls = tls_context_ref(rs->loaded.tls);
    maps_retire(r->maps, r->source);
    r->source = policy_source_ref(rs->loaded.source);
    r->generation = rs->generation;
    router_note_listeners(r);
    local_sources_note(r);
    router_tell_certificates(r);
    clean_up(rs);
    tell(rs, NULL);
}

/* ---- handing over ----------------------------------------------------------------------------- */

static void on_taken(struct engine *none, struct worker_message *m)
{
    struct handover *h = CONTAINER_OF(m, struct handover, to_main);
    struct reloads *rs = h->reloads;

    if (h->result < 0)
        journal_event(&rs->router->journal,
                      EVENT(EVENT_ERROR, "reload_incomplete", F_INT("worker", h->worker->number),
                            F_STRZ("error", strerror(-h->result))));
    if (--rs->left == 0)
        finish(rs);
}

/* In the worker's thread. */
static void on_take(struct engine *e, struct worker_message *m)
{
    struct handover *h = CONTAINER_OF(m, struct handover, to_worker);
    struct reloads *rs = h->reloads;
    struct worker *w = h->worker;

    /* After the listeners have stopped for good none is begun again. */
    if (!w->stopped)
        h->result = worker_configure(w, rs->loaded.settings, rs->loaded.tls,
                                     sockets_of(&rs->sockets, w->number));
    engine_reload(e, h->snapshot);
    h->snapshot = snapshot_unref(h->snapshot);
    router_tell(rs->router, &h->to_main);
}

static void hand_over(struct reloads *rs)
{
    struct router *r = rs->router;

    passwords_set(r->passwords, rs->loaded.passwords);
    socket_files_keep(&r->socket_files, rs->loaded.settings);
    rs->left = r->n_workers;
    for (int i = 0; i < r->n_workers; i++) {
        struct handover *h = &rs->handover[i];
        *h = (struct handover){
            .to_worker = { .run = on_take },
            .to_main = { .run = on_taken },
            .reloads = rs,
            .worker = r->workers[i],
            .snapshot = TAKE(rs->snapshots[i]),
        };
        router_post(r, i, &h->to_worker);
    }
}

/* ---- the beginning ---------------------------------------------------------------------------- */

/* What cannot be is said before certificates are read: outside of the sandbox they could not. */
static int load_again(struct reloads *rs, struct failure *f)
{
    struct router *r = rs->router;

    if (load_source(r->config, sandbox_files(r->sandbox), &r->journal.port, &rs->loaded, f) < 0) {
        sandbox_explain(r->sandbox, f);
        return -1;
    }
    if (load_check(&rs->loaded, f) < 0 || check_fixed(r->settings, rs->loaded.settings, f) < 0 ||
        sandbox_check(r->sandbox, rs->loaded.settings, f) < 0)
        return -1;
    return load_credentials(&rs->loaded, f);
}

/* Everything that can fail. */
static int prepare(struct reloads *rs, struct failure *f)
{
    struct router *r = rs->router;
    char error[LOG_SINK_ERROR_TEXT];

    if (r->stopping)
        return failure_set(f, EX_TEMPFAIL, "the router is stopping");
    if (load_again(rs, f) < 0)
        return -1;
    const struct settings *next = rs->loaded.settings;
    tls_context_continue(rs->loaded.tls, r->tls); /* sessions are taken up across reloads */
    rs->generation = r->generation + 1;
    if (router_make_snapshots(r, &rs->loaded, rs->generation, rs->snapshots, f) < 0)
        return -1;
    const struct sockets_from from = {
        .in = &r->inherited, .id = &r->identity, .present = r->workers[0], .files = &r->socket_files
    };
    if (sockets_open(next, r->n_workers, &from, &rs->sockets, f) < 0)
        return -1;
    if (!str_eq(next->log, r->settings->log)) {
        int e = log_sink_reopen(r->log, next->log, error);
        if (e < 0)
            return failure_set(f, exit_code_of(e), "%s", error);
    }
    return 0;
}

static void on_start(struct later *l)
{
    struct reloads *rs = CONTAINER_OF(l, struct reloads, start);
    struct failure f;

    if (rs->under_way)
        return;
    list_join(&rs->served, &rs->waiting);
    rs->under_way = true;
    notify("RELOADING=1");
    if (prepare(rs, &f) < 0) {
        if (!rs->router->stopping) /* then they are gone */
            socket_files_restore(&rs->router->socket_files, rs->router->settings,
                                 &rs->router->identity);
        clean_up(rs);
        tell(rs, &f);
        return;
    }
    hand_over(rs);
}

void reload_ask(struct reloads *rs, const char *why, struct reload_waiter *w)
{
    rs->why = why;
    if (w)
        list_push(&rs->waiting, &w->link);
    io_loop_later(rs->router->loop, &rs->start);
}

void reload_forget(struct reload_waiter *w)
{
    list_remove(&w->link);
}

const struct reload_status *reload_get_status(const struct reloads *rs)
{
    return &rs->status;
}

struct reloads *reloads_new(struct router *r)
{
    struct reloads *rs = calloc(1, sizeof(*rs));

    if (!rs)
        return NULL;
    rs->router = r;
    rs->why = "";
    list_init(&rs->waiting);
    list_init(&rs->served);
    later_init(&rs->start, on_start);
    return rs;
}

struct reloads *reloads_free(struct reloads *rs)
{
    if (!rs)
        return NULL;
    list_remove(&rs->start.link);
    for (int i = 0; i < rs->router->n_workers; i++)
        snapshot_unref(rs->handover[i].snapshot); /* one that was never taken */
    clean_up(rs);
    free(rs);
    return NULL;
}
