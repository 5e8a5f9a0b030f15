/* world.c - the engines of a simulated world: made, started, stopped, crashed. Layer: sim. Interface:
 * world.h. What surrounds them is in world_around.c. */
#include "sim/world.h"

#include "engine/clients.h"
#include "engine/lanes.h"
#include "engine/limits.h"
#include "engine/sources.h"
#include "sim/world_impl.h"

/* ---- workers ---------------------------------------------------------------------------------- */

static void run_mailbox(struct worker *wk)
{
    while (wk->first && wk->engine) {
        struct worker_message *m = wk->first;
        wk->first = m->next;
        m->run(wk->engine, m);
    }
}

static void mailbox_due(struct timer *t)
{
    run_mailbox(CONTAINER_OF(t, struct worker, mail));
}

static void post(struct port_workers *self, int worker, struct worker_message *m)
{
    struct sim_world *w = CONTAINER_OF(self, struct worker, workers)->world;
    CHECK(worker >= 0 && worker < w->n_workers);
    struct worker *wk = &w->worker[worker];
    struct worker_message **at = &wk->first;
    while (*at)
        at = &(*at)->next;
    m->next = NULL;
    *at = m;
    if (!timer_armed(&wk->mail))
        sim_timer_in(&w->around->clock, &wk->mail, 0);
}

static void worker_init(struct sim_world *w, int i, uint64_t seed)
{
    struct worker *wk = &w->worker[i];
    wk->world = w;
    wk->workers = (struct port_workers){ .self = i, .count = w->n_workers, .post = post };
    timer_init(&wk->mail, mailbox_due);
    sim_random_init(&wk->random, seed, 100 + (uint64_t)i);
    wk->ports = (struct ports){
        .clock = &w->around->clock.port,
        .net = sim_uplink_port(w->uplink),
        .dns = sim_dns_port(w->around->dns),
        .spool = sim_spool_port(w->spool),
        .random = &wk->random.port,
        .workers = &wk->workers,
        .journal = sim_journal_port(w->journal),
        .passwords = &w->passwords.port,
    };
}

/* ---- listeners -------------------------------------------------------------------------------- */

static void accept_client(struct sim_listener *l, struct stream *s)
{
    struct listening *at = CONTAINER_OF(l, struct listening, listener);
    struct sim_world *w = at->world;
    int i = w->accept_by >= 0 ? w->accept_by
                              : (int)sim_random_below(&w->accept_random, (uint64_t)w->n_workers);
    sim_stream_set_engine(s, w->uplink);
    engine_accept(w->worker[i].engine, s, at->settings);
}

static void listen_at(struct sim_world *w, const struct listen_settings *ls, struct net_addr addr)
{
    CHECK(w->n_listening < SIM_MAX_LISTENERS);
    struct listening *at = &w->listening[w->n_listening++];
    addr.port = ls->addr.port;
    *at = (struct listening){ .world = w, .settings = ls };
    at->listener = (struct sim_listener){ .addr = addr, .latency_ms = -1, .accept = accept_client };
    list_init(&at->listener.link);
    sim_net_listen(w->around->net, &at->listener);
}

static void stop_listening(struct sim_world *w)
{
    for (size_t i = 0; i < w->n_listening; i++)
        sim_net_unlisten(w->around->net, &w->listening[i].listener);
    w->n_listening = 0;
}

static void listen_all(struct sim_world *w)
{
    const struct listen_settings *ls = w->settings->n_listen ? w->settings->listen : &w->usual;
    size_t n = w->settings->n_listen ? w->settings->n_listen : 1;
    stop_listening(w);
    for (size_t i = 0; i < n; i++) {
        if (!net_addr_is_any(&ls[i].addr))
            listen_at(w, &ls[i], ls[i].addr);
        else
            listen_at(w, &ls[i], w->shared.self[ls[i].addr.family == NET_IPV6]);
    }
}

/* ---- engines ---------------------------------------------------------------------------------- */

static struct snapshot *make_snapshot(struct sim_world *w, int i)
{
    struct hooks *hooks = w->hooks(w->hooks_arg, &w->worker[i].ports, i, w->settings);
    struct snapshot *s = snapshot_new(w->generation, settings_ref(w->settings), hooks);
    CHECK(hooks != NULL && s != NULL);
    return s;
}

static void apply_tls(struct sim_world *w)
{
    struct sim_certificate cert = { .name = w->settings->hostname };
    bool has = w->settings->tls_cert.n || w->settings->n_certificates;
    sim_uplink_set_certificate(w->uplink, has ? &cert : NULL);
}

void sim_world_configure(struct sim_world *w, struct settings *settings, sim_hooks_cb *hooks,
                         void *arg)
{
    const struct net_addr everybody = sim_addr(CLIENT_ADDR);

    CHECK(settings_exempt(settings, &everybody) == 0);
    settings_ref(settings);
    settings_unref(w->settings);
    w->settings = settings;
    w->hooks = hooks;
    w->hooks_arg = arg;
}

void sim_world_start(struct sim_world *w)
{
    CHECK(w->settings && !w->running);
    w->generation++;
    atomic_store(&w->shared.stopping, false);
    limits_free(w->shared.limits); /* a process that begins knows nothing of the one before */
    sources_free(w->shared.sources);
    lanes_free(w->shared.lanes);
    w->shared.lanes = lanes_new();
    clients_free(w->shared.clients);
    w->shared.clients = clients_new();
    w->shared.limits = limits_new();
    w->shared.sources = sources_new();
    CHECK(w->shared.limits != NULL && w->shared.sources != NULL && w->shared.lanes != NULL &&
          w->shared.clients != NULL);
    apply_tls(w);
    for (int i = 0; i < w->n_workers; i++) {
        struct snapshot *s = make_snapshot(w, i);
        CHECK(engine_new(&w->worker[i].ports, &w->shared, s, &w->worker[i].engine) == 0);
        snapshot_unref(s);
    }
    w->running = true;
    for (int i = 0; i < w->n_workers; i++)
        engine_start(w->worker[i].engine);
    listen_all(w);
}

void sim_world_reload(struct sim_world *w)
{
    CHECK(w->running);
    w->generation++;
    apply_tls(w);
    for (int i = 0; i < w->n_workers; i++) {
        struct snapshot *s = make_snapshot(w, i);
        engine_reload(w->worker[i].engine, s);
        snapshot_unref(s);
    }
    listen_all(w);
}

/* Messages between workers belong to whom they are sent to: they are handed over before the engines
 * go, or nobody would free them. Nothing that this does reaches the disk, the network or the journal. */
static void drop_engines(struct sim_world *w)
{
    stop_listening(w);
    sim_journal_mute(w->journal, true);
    sim_spool_crash(w->spool);
    for (bool again = true; again;) {
        again = false;
        for (int i = 0; i < w->n_workers; i++) {
            again = again || w->worker[i].first;
            run_mailbox(&w->worker[i]);
        }
    }
    for (int i = 0; i < w->n_workers; i++) {
        sim_timer_stop(&w->around->clock, &w->worker[i].mail);
        w->worker[i].engine = engine_free(w->worker[i].engine);
    }
    w->running = false;
    sim_spool_settle(w->spool);
    sim_journal_mute(w->journal, false);
    CHECK(sim_uplink_streams(w->uplink) == 0); /* an engine left a stream behind */
    for (int i = 0; i < w->n_workers; i++)
        CHECK(w->worker[i].first == NULL); /* posted while engines were freed */
}

void sim_world_crash(struct sim_world *w)
{
    CHECK(w->running);
    w->crashes++;
    drop_engines(w);
    sim_spool_check(w->spool);
}

static bool all_idle(void *arg)
{
    const struct sim_world *w = arg;
    for (int i = 0; w->running && i < w->n_workers; i++)
        if (!engine_idle(w->worker[i].engine) || w->worker[i].first)
            return false;
    return sim_spool_open(w->spool) == 0;
}

bool sim_world_stop(struct sim_world *w, int64_t max_ms)
{
    CHECK(w->running);
    stop_listening(w);
    atomic_store(&w->shared.stopping, true);
    for (int i = 0; i < w->n_workers; i++)
        engine_stop(w->worker[i].engine);
    uint64_t crashes = w->crashes;
    bool idle = sim_world_until(w, all_idle, w, max_ms);
    sim_timer_stop(&w->around->clock, &w->come_back);
    if (w->running)
        drop_engines(w);
    return idle && w->crashes == crashes;
}

/* ---- time ------------------------------------------------------------------------------------- */

static void on_commit(void *arg, uint64_t n, bool synced)
{
    struct sim_world *w = arg;
    if (w->crash_after == 0 || synced != w->crash_synced)
        return;
    if (--w->crash_after > 0)
        return;
    w->crash_due = true;
    sim_clock_interrupt(&w->around->clock);
}

void sim_world_crash_at(struct sim_world *w, uint64_t n, bool synced, int64_t down_ms)
{
    w->crash_after = n;
    w->crash_synced = synced;
    w->crash_down_ms = down_ms;
}

static void come_back(struct timer *t)
{
    sim_world_start(CONTAINER_OF(t, struct sim_world, come_back));
}

/* Of any router of the network. False: nothing happens until then. */
static bool turn(struct sim_world *any, int64_t until)
{
    if (!sim_clock_turn(&any->around->clock, until))
        return false;
    LIST_FOREACH(it, &any->around->worlds)
    {
        struct sim_world *w = LIST_ENTRY(it, struct sim_world, link);
        if (!w->crash_due)
            continue;
        w->crash_due = false;
        sim_world_crash(w);
        sim_timer_in(&w->around->clock, &w->come_back, w->crash_down_ms);
    }
    return true;
}

void sim_world_advance(struct sim_world *w, int64_t ms)
{
    int64_t until = w->around->clock.now + ms;
    while (turn(w, until))
        ;
    sim_clock_pass(&w->around->clock, until);
}

bool sim_world_until(struct sim_world *w, bool (*until)(void *arg), void *arg, int64_t max_ms)
{
    int64_t end = w->around->clock.now + max_ms;
    while (!until(arg))
        if (!turn(w, end)) {
            sim_clock_pass(&w->around->clock, end);
            return until(arg);
        }
    return true;
}

/* ---- the world -------------------------------------------------------------------------------- */

static struct sim_world *make_world(struct around *a, uint64_t seed, int workers)
{
    struct sim_world *w = sim_alloc(sizeof *w);
    CHECK(workers > 0 && workers <= SIM_MAX_WORKERS);
    w->n_workers = workers;
    w->accept_by = -1;
    w->usual = (struct listen_settings){ .addr = sim_addr("0.0.0.0:25"),
                                         .chunking = true,
                                         .binarymime = true,
                                         .requiretls = true,
                                         .deliver_by = true,
                                         .future_release_ms = 30 * 24 * 3600 * (int64_t)1000,
                                         .priority = true,
                                         .service = STR("smtp"),
                                         .tls = LISTEN_TLS_OFFER,
                                         .text = STR("0.0.0.0:25") };
    around_join(a, w);
    sim_random_init(&w->random, seed, 2);
    sim_random_init(&w->accept_random, seed, 3);
    w->spool = sim_spool_new(&a->clock);
    w->journal = sim_journal_new(&a->clock, SIM_JOURNAL_MAX);
    sim_spool_on_commit(w->spool, on_commit, w);
    sim_passwords_init(&w->passwords, &a->clock);
    sim_https_init(&w->https, &a->clock);
    timer_init(&w->come_back, come_back);
    list_init(&w->mails);
    for (int i = 0; i < workers; i++)
        worker_init(w, i, seed);
    return w;
}

struct sim_world *sim_world_new(uint64_t seed, int workers)
{
    return make_world(around_new(seed), seed, workers);
}

struct sim_world *sim_world_join(struct sim_world *with, uint64_t seed, int workers)
{
    return make_world(with->around, seed, workers);
}

struct sim_world *sim_world_free(struct sim_world *w)
{
    if (!w)
        return NULL;
    if (w->running)
        drop_engines(w);
    sim_timer_stop(&w->around->clock, &w->come_back);
    sim_spool_check(w->spool);
    settings_unref(w->settings);
    sim_passwords_done(&w->passwords);
    sim_https_done(&w->https);
    sim_spool_free(w->spool);
    sim_journal_free(w->journal);
    around_leave(w);
    limits_free(w->shared.limits);
    sources_free(w->shared.sources);
    lanes_free(w->shared.lanes);
    clients_free(w->shared.clients);
    free(w);
    return NULL;
}

bool sim_world_running(const struct sim_world *w)
{
    return w->running;
}

uint64_t sim_world_crashes(const struct sim_world *w)
{
    return w->crashes;
}
