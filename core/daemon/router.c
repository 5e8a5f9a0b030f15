/* router.c - the running daemon. Layer: daemon. Interface: router.h. */
#include "daemon/router.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "daemon/control.h"
#include "daemon/heartbeat.h"
#include "daemon/local_sources.h"
#include "daemon/maps.h"
#include "daemon/notify.h"
#include "daemon/reload.h"
#include "daemon/sandbox.h"
#include "daemon/sockets.h"
#include "engine/clients.h"
#include "engine/lanes.h"
#include "engine/limits.h"
#include "engine/sources.h"

/* ---- the process ------------------------------------------------------------------------------ */

/* Sessions and deliveries need one descriptor each. */
static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void our_signals(sigset_t *ret)
{
    sigemptyset(ret);
    sigaddset(ret, SIGTERM);
    sigaddset(ret, SIGINT);
    sigaddset(ret, SIGHUP);
    sigaddset(ret, SIGUSR1);
}

/* ---- signals ---------------------------------------------------------------------------------- */

static void on_worker_idle(struct worker *w, void *owner)
{
    struct router *r = owner;

    if (++r->n_idle == r->n_workers)
        io_loop_stop(r->loop);
}

static void on_stop_deadline(struct timer *t)
{
    struct router *r = CONTAINER_OF(t, struct router, stop_deadline);

    journal_event(&r->journal, EVENT(EVENT_WARN, "stop_deadline",
                                     F_INT("after_ms", r->settings->timeouts.shutdown_ms),
                                     F_INT("workers_busy", r->n_workers - r->n_idle)));
    io_loop_stop(r->loop);
}

static void begin_stop(struct router *r, const char *why)
{
    if (r->stopping) { /* asked twice: at once */
        io_loop_stop(r->loop);
        return;
    }
    r->stopping = true;
    atomic_store(&r->shared.stopping, true);
    notify("STOPPING=1");
    socket_files_keep(&r->socket_files, NULL);
    journal_event(&r->journal, EVENT(EVENT_INFO, "stop", F_STRZ("signal", why)));
    io_loop_timer_set(r->loop, &r->stop_deadline,
                      io_loop_now(r->loop) + r->settings->timeouts.shutdown_ms);
    for (int i = 0; i < r->n_workers; i++)
        worker_stop(r->workers[i], r->ports.workers, on_worker_idle, r);
}

static void reopen_log(struct router *r)
{
    char error[LOG_SINK_ERROR_TEXT];

    if (log_sink_reopen(r->log, r->settings->log, error) < 0)
        journal_event(&r->journal, EVENT(EVENT_ERROR, "log_reopen_failed", F_STRZ("error", error)));
    else
        journal_event(&r->journal,
                      EVENT(EVENT_INFO, "log_reopened", F_STR("log", r->settings->log)));
}

static void on_signal(void *owner)
{
    struct router *r = owner;
    struct signalfd_siginfo info;

    while (read(r->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGTERM: begin_stop(r, "SIGTERM"); break;
        case SIGINT: begin_stop(r, "SIGINT"); break;
        case SIGHUP: reload_ask(r->reloads, "SIGHUP", NULL); break;
        case SIGUSR1: reopen_log(r); break;
        default: break;
        }
    }
}

static int watch_signals(struct router *r, struct failure *f)
{
    sigset_t set;
    int e;

    our_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* threads made from now on inherit it */
    signal(SIGPIPE, SIG_IGN);
    r->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (r->signal_fd < 0)
        return failure_set(f, EX_OSERR, "cannot wait for signals: %s", strerror(errno));
    e = io_watch_new(r->loop, r->signal_fd, on_signal, r, &r->signal_watch);
    return e < 0 ? failure_set(f, EX_SOFTWARE, "out of memory") : 0;
}

/* ---- the start -------------------------------------------------------------------------------- */

static int open_loop(struct router *r, struct failure *f)
{
    int e = io_loop_new(0, 1, &r->loop);

    if (e < 0)
        return failure_set(f, exit_code_of(e), "cannot make an event loop: %s", strerror(-e));
    io_loop_ports(r->loop, &r->ports);
    hash_seed(io_loop_random(r->loop), io_loop_random(r->loop));
    return 0;
}

static int open_log(struct router *r, struct failure *f)
{
    char error[LOG_SINK_ERROR_TEXT];
    int e = log_sink_open(r->settings->log, &r->log, error);

    if (e < 0)
        return failure_set(f, e == -EACCES ? EX_NOPERM : EX_CANTCREAT, "%s", error);
    journal_init(&r->journal, r->log, r->loop, r->level);
    r->ports.journal = &r->journal.port;
    return 0;
}

static uint64_t clock_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

enum { UPGRADE_TOLD_MS = 5000, UPGRADE_MORE_S = 60 };

/* Rows of an older format are moved: whoever waits for us is told, and how far it is. */
static void tell_upgrade(void *arg, uint64_t rows, uint64_t of)
{
    struct router *r = arg;
    int64_t now = r->ports.clock->now(r->ports.clock);
    char state[128];

    if (r->upgrade_told && now < r->upgrade_told + UPGRADE_TOLD_MS)
        return;
    r->upgrade_told = now;
    snprintf(state, sizeof(state), "EXTEND_TIMEOUT_USEC=%d000000\nSTATUS=moving the spool, %d %%",
             UPGRADE_MORE_S, (int)(of ? rows * 100 / of : 0));
    notify(state);
    journal_event(&r->journal, EVENT(EVENT_INFO, "spool_upgrade", F_INT("rows", (int64_t)rows),
                                     F_INT("of", (int64_t)of)));
}

static int open_spool(struct router *r, struct failure *f)
{
    AUTO_FREE char *path = str_dup(r->settings->spool);
    char why[512] = "out of memory";
    struct spool_options o = {
        .path = path, .clock_us = clock_us, .waiting = tell_upgrade, .waiting_arg = r
    };
    int code, e = path ? spool_open(&o, &r->spool, why, sizeof(why)) : -ENOMEM;

    switch (e) {
    case 0: break;
    case -EBUSY: code = EX_TEMPFAIL; break;
    case -EPROTONOSUPPORT:
    case -EBADMSG: code = EX_DATAERR; break;
    default: code = exit_code_of(e);
    }
    if (e == -ENOENT || e == -EACCES || e == -ENOTDIR || e == -EROFS)
        return failure_set(f, code,
                           "%s; 'spool' in the configuration must name a folder of this user's, or "
                           "one that it may make",
                           why);
    if (e < 0)
        return failure_set(f, code, "%s", why);
    r->ports.spool = spool_port(r->spool, r->ports.workers);
    return r->ports.spool ? 0 : failure_set(f, EX_SOFTWARE, "out of memory");
}

static int open_passwords(struct router *r, const struct loaded *l, struct failure *f)
{
    for (size_t i = 0; i < sizeof(r->shared.auth_key) / sizeof(uint64_t); i++) {
        uint64_t chance = io_loop_random(r->loop);
        memcpy(r->shared.auth_key + i * sizeof(chance), &chance, sizeof(chance));
    }
    r->passwords = passwords_new(r->ports.workers, &r->journal, r->shared.auth_key);
    if (!r->passwords)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    passwords_set(r->passwords, l->passwords);
    return 0;
}

static int make_workers(struct router *r, const struct loaded *l, struct failure *f)
{
    const struct worker_options options = {
        .settings = l->settings,
        .tls = l->tls,
        .spool = r->spool,
        .log = r->log,
        .passwords = r->passwords,
        .level = r->level,
    };

    for (int i = 0; i < (int)l->settings->workers; i++) {
        int e = worker_new(i, (int)l->settings->workers, &options, &r->workers[i]);
        if (e < 0)
            return failure_set(f, exit_code_of(e), "cannot make worker %d of %u: %s", i + 1,
                               l->settings->workers, strerror(-e));
        r->n_workers = i + 1;
        r->loops[i] = r->workers[i]->loop;
    }
    for (int i = 0; i < r->n_workers; i++)
        io_loop_join(r->loops[i], r->loops, r->n_workers);
    return 0;
}

int router_make_snapshots(struct router *r, const struct loaded *l, uint64_t generation,
                          struct snapshot **ret, struct failure *f)
{
    struct policy_error *err = calloc(1, sizeof(*err));
    int i = 0, e = err ? 0 : -ENOMEM;

    if (!err)
        failure_set(f, EX_SOFTWARE, "out of memory");
    for (; e == 0 && i < r->n_workers; i++) {
        struct hooks *hooks;
        e = policy_vm_new(l->source, l->settings, &r->workers[i]->ports, &hooks, err);
        if (e < 0) {
            failure_from_policy(f, err);
            break;
        }
        ret[i] = snapshot_new(generation, settings_ref(l->settings), hooks);
        if (!ret[i]) {
            hooks->free(hooks);
            settings_unref(l->settings);
            e = failure_set(f, EX_SOFTWARE, "out of memory");
        }
    }
    free(err);
    for (int j = 0; e < 0 && j < i; j++)
        ret[j] = snapshot_unref(ret[j]);
    return e < 0 ? -1 : 0;
}

static int make_engines(struct router *r, const struct loaded *l, struct failure *f)
{
    struct snapshot *snapshots[WORKERS_MAX] = { 0 };
    int e = 0;

    r->generation = 1;
    if (router_make_snapshots(r, l, r->generation, snapshots, f) < 0)
        return -1;
    for (int i = 0; i < r->n_workers; i++) {
        struct worker *w = r->workers[i];
        if (e == 0)
            e = engine_new(&w->ports, &r->shared, snapshots[i], &w->engine);
        if (e == 0)
            io_loop_set_engine(w->loop, w->engine);
        snapshot_unref(snapshots[i]);
    }
    return e < 0 ? failure_set(f, EX_SOFTWARE, "out of memory") : 0;
}

static int listen_all(struct router *r, const struct loaded *l, struct sockets *sockets,
                      struct failure *f)
{
    int e = 0;

    for (int i = 0; i < r->n_workers && e == 0; i++)
        e = worker_configure(r->workers[i], l->settings, l->tls, sockets_of(sockets, i));
    if (e < 0)
        return failure_set(f, EX_SOFTWARE, "cannot prepare worker: %s", strerror(-e));
    router_note_listeners(r);
    return 0;
}

void router_note_listeners(struct router *r)
{
    const struct worker *w = r->workers[0];
    char text[NET_ADDR_TEXT];

    buf_clear(&r->listening);
    for (size_t i = 0; i < w->n_listeners; i++)
        buf_printf(&r->listening, "%s%s", i ? ", " : "",
                   net_addr_text(io_listener_addr(w->listeners[i].io), text));
}

void router_tell_certificates(struct router *r)
{
    char text[LOAD_TROUBLE_TEXT];

    for (size_t i = 0; i < tls_context_certificates(r->tls); i++) {
        const struct tls_certificate_info *c = tls_context_certificate(r->tls, i);
        if (load_certificate_trouble(c, router_wall(r) / 1000, text))
            journal_event(&r->journal, EVENT(EVENT_WARN, "certificate", F_STR("file", c->file),
                                             F_STR("names", c->names), F_STRZ("why", text)));
    }
}

static int start_threads(struct router *r, struct failure *f)
{
    for (int i = 0; i < r->n_workers; i++) {
        int e = worker_start(r->workers[i]);
        if (e < 0)
            return failure_set(f, EX_OSERR, "cannot start worker %d: %s", i + 1, strerror(-e));
    }
    return 0;
}

static void tell_start(struct router *r)
{
    const struct settings *set = r->settings;

    journal_event(&r->journal,
                  EVENT(EVENT_INFO, "start", F_STRZ("version", TERN_VERSION),
                        F_INT("pid", getpid()), F_STR("hostname", set->hostname),
                        F_STR("listen", buf_str(&r->listening)), F_INT("workers", r->n_workers),
                        F_STR("spool", set->spool), F_STR("control", set->control),
                        F_STRZ("config", r->config), F_STRZ("user", r->identity.name),
                        F_STRZ("sandbox", sandbox_text(r->sandbox))));
    if (isatty(STDERR_FILENO))
        fprintf(stderr,
                "tern %s: " STR_FMT " listens on " STR_FMT "; spool " STR_FMT "; %d worker%s\n",
                TERN_VERSION, STR_ARG(set->hostname), STR_ARG(buf_str(&r->listening)),
                STR_ARG(set->spool), r->n_workers, r->n_workers == 1 ? "" : "s");
    router_tell_certificates(r);
    notify("READY=1");
}

/* ---- from root to nobody in particular -------------------------------------------------------- */

static int make_parent(const struct identity *id, struct str file, mode_t mode, struct failure *f)
{
    ptrdiff_t slash = str_rchr(file, '/');
    AUTO_FREE char *folder = slash > 0 ? str_dup(str_first(file, (size_t)slash)) : NULL;

    return folder ? identity_make_folder(id, folder, mode, f) : 0;
}

/* What that user could not make: the spool in /var/spool, a folder in /run or /var/log. Through those of sockets others
 * pass: the socket says who may connect. */
static int make_folders(const struct identity *id, const struct settings *set, struct failure *f)
{
    AUTO_FREE char *spool = str_dup(set->spool);

    if (!spool)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    if (identity_make_folder(id, spool, 0700, f) < 0 || make_parent(id, set->control, 0750, f) < 0)
        return -1;
    mode_t before = umask(0022);
    int r = 0;
    for (size_t i = 0; i < set->n_listen && r == 0; i++)
        if (set->listen[i].addr.family == NET_UNIX)
            r = make_parent(id, str_of(set->listen[i].addr.path), 0755, f);
    umask(before);
    if (r < 0)
        return -1;
    return str_eq(set->log, STR("stdout")) ? 0 : make_parent(id, set->log, 0750, f);
}

/* All that needs root, and then no more of it. There is no other thread yet. */
static int give_up_privileges(struct router *r, const struct router_options *o, struct loaded *l,
                              struct sockets *ret, struct failure *f)
{
    struct identity *id = &r->identity;
    struct settings *set = l->settings;
    const struct sockets_from from = { .in = &r->inherited, .id = id, .files = &r->socket_files };

    if (identity_find(o->user, set->user, id, f) < 0 || make_folders(id, set, f) < 0 ||
        inherited_take(&r->inherited, f) < 0 ||
        sockets_open(set, (int)set->workers, &from, ret, f) < 0)
        return -1;
    return privileges_drop(id, set->core_dumps, f) < 0
               ? -1
               : sandbox_new(set, l->source, id, &r->sandbox, f);
}

/* ---- the start, as a whole -------------------------------------------------------------------- */

static int start_services(struct router *r, struct loaded *l, struct sockets *sockets,
                          struct failure *f)
{
    if (open_log(r, f) < 0 || open_spool(r, f) < 0 || open_passwords(r, l, f) < 0 ||
        make_workers(r, l, f) < 0 || make_engines(r, l, f) < 0 ||
        listen_all(r, l, sockets, f) < 0 || control_new(r, &r->control, f) < 0)
        return -1;
    r->maps = maps_new(r);
    r->heartbeat = heartbeat_new(r);
    if (!r->maps || !r->heartbeat || sandbox_tell(r->sandbox, r->loop, &r->journal) < 0)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    return 0;
}

static int start(struct router *r, const struct router_options *o, struct loaded *l,
                 struct failure *f)
{
    struct sockets sockets = { 0 };

    /* The loop first: it seeds the hash of all tables, and the configuration makes some. */
    if (open_loop(r, f) < 0 || load_configuration(r->config, NULL, l, f) < 0)
        return -1;
    r->settings = settings_ref(l->settings);
    r->tls = tls_context_ref(l->tls);
    r->source = policy_source_ref(l->source);
    r->reloads = reloads_new(r);
    if (!r->reloads)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    if (watch_signals(r, f) < 0)
        return -1;
    int e = give_up_privileges(r, o, l, &sockets, f);
    if (e == 0)
        e = start_services(r, l, &sockets, f);
    if (e < 0)
        socket_files_keep(&r->socket_files, NULL);
    sockets_done(&sockets);
    if (e < 0)
        return -1;
    local_sources_note(r);
    r->started_ms = router_wall(r);
    r->started = io_loop_now(r->loop);
    return start_threads(r, f);
}

int router_new(const struct router_options *o, struct router **ret, struct failure *f)
{
    struct router *r = calloc(1, sizeof(*r));
    struct loaded l = { 0 };

    if (!r)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    r->config = o->config;
    r->level = o->level;
    r->signal_fd = -1;
    buf_init(&r->listening, 0);
    timer_init(&r->stop_deadline, on_stop_deadline);
    raise_descriptors();
    sockets_learn_self(&r->shared);
    r->shared.limits = limits_new();
    r->shared.sources = sources_new();
    r->shared.lanes = lanes_new();
    r->shared.clients = clients_new();
    if (!r->shared.clients || !r->shared.limits || !r->shared.sources || !r->shared.lanes) {
        router_free(r);
        return failure_set(f, EX_SOFTWARE, "out of memory");
    }
    int e = start(r, o, &l, f);
    loaded_done(&l);
    if (e < 0) {
        router_free(r);
        return -1;
    }
    tell_start(r);
    *ret = r;
    return 0;
}

/* ---- the end ---------------------------------------------------------------------------------- */

void router_run(struct router *r)
{
    io_loop_run(r->loop);
}

/* The order: checks of passwords end; the spool commits and tells what it was given while the workers still run; then they end;
 * then engines go, who may still speak to their ports and to who gave them commands; then those, then the
 * spool, then the rest. */
struct router *router_free(struct router *r)
{
    if (!r)
        return NULL;
    passwords_stop(r->passwords);
    if (r->spool)
        spool_stop(r->spool);
    for (int i = 0; i < r->n_workers; i++)
        worker_join(r->workers[i]);
    for (int i = 0; i < r->n_workers; i++)
        worker_free_engine(r->workers[i]);
    r->control = control_free(r->control);
    r->reloads = reloads_free(r->reloads);
    r->maps = maps_free(r->maps);
    r->heartbeat = heartbeat_free(r->heartbeat);
    r->spool = spool_close(r->spool);
    if (r->log && r->started)
        journal_event(&r->journal,
                      EVENT(EVENT_INFO, "stopped",
                            F_INT("uptime_s", (io_loop_now(r->loop) - r->started) / 1000)));
    for (int i = 0; i < r->n_workers; i++)
        worker_free(r->workers[i]);
    r->passwords = passwords_free(r->passwords);
    io_watch_free(r->signal_watch);
    if (r->signal_fd >= 0)
        close(r->signal_fd);
    journal_done(&r->journal);
    log_sink_close(r->log);
    policy_source_unref(r->source);
    sandbox_free(r->sandbox); /* sources read by it, and it watches a descriptor */
    io_loop_free(r->loop);
    buf_done(&r->listening);
    settings_unref(r->settings);
    limits_free(r->shared.limits);
    sources_free(r->shared.sources);
    lanes_free(r->shared.lanes);
    clients_free(r->shared.clients);
    tls_context_unref(r->tls);
    free(r);
    return NULL;
}
