/* engine.c - the root of one worker: makes the modules, lets them go, and answers what all of them ask.
 * See engine.h. */
#include "engine/engine.h"

#include "base/hash.h"
#include "engine/context.h"
#include "engine/delivery.h"
#include "engine/etrn.h"
#include "engine/held.h"
#include "engine/hosts.h"
#include "engine/import.h"
#include "engine/outcome.h"
#include "engine/probe.h"
#include "engine/queue.h"
#include "engine/session_in.h"
#include "engine/session_out.h"
#include "engine/sts.h"
#include "engine/tls_reports.h"
#include "engine/turn.h"

int engine_new(const struct ports *ports, struct engine_shared *shared, struct snapshot *snapshot,
               struct engine **ret)
{
    struct engine *e = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    e->ports = *ports;
    e->shared = shared;
    e->snapshot = snapshot_ref(snapshot);
    snapshot->hooks->engine = e;
    list_init(&e->imports);
    msgid_source_init(&e->ids, engine_random(e));
    e->sessions = sessions_in_new(e);
    e->queues = queues_new(e);
    e->hosts = hosts_new(e);
    e->connections = connections_new(e);
    e->deliveries = deliveries_new(e);
    e->outcomes = outcomes_new(e);
    e->etrns = etrns_new(e);
    e->probes = probes_new(e);
    e->sts = stses_new(e);
    e->tls_reports = tls_reports_new(e);
    e->held = held_new(e);
    e->turns = turns_new(e);
    if (!e->sessions || !e->queues || !e->hosts || !e->connections || !e->deliveries ||
        !e->outcomes || !e->etrns || !e->probes || !e->sts || !e->tls_reports || !e->held ||
        !e->turns) {
        engine_free(e);
        return -ENOMEM;
    }
    *ret = e;
    return 0;
}

struct engine *engine_free(struct engine *e)
{
    if (!e)
        return NULL;
    /* Users before what they use: sessions and deliveries, then connections, then queues. */
    e->stopping = e->freeing = true;
    if (e->queues)
        queues_stop(e->queues); /* what ends now begins nothing else */
    imports_forget(e);
    e->sessions = sessions_in_free(e->sessions);
    e->held = held_free(e->held);
    e->etrns = etrns_free(e->etrns);
    e->deliveries = deliveries_free(e->deliveries);
    e->outcomes = outcomes_free(e->outcomes);
    e->probes = probes_free(e->probes);
    e->sts = stses_free(e->sts);
    e->tls_reports = tls_reports_free(e->tls_reports);
    e->connections = connections_free(e->connections);
    e->turns = turns_free(e->turns);
    e->queues = queues_free(e->queues);
    e->hosts = hosts_free(e->hosts);
    e->snapshot = snapshot_unref(e->snapshot);
    free(e);
    return NULL;
}

void engine_start(struct engine *e)
{
    queues_start(e->queues);
    held_start(e->held);
}

void engine_accept(struct engine *e, struct stream *s, const struct listen_settings *listener)
{
    sessions_in_accept(e->sessions, s, listener);
}

void engine_reload(struct engine *e, struct snapshot *snapshot)
{
    bool policy_changed = snapshot_fingerprint(e->snapshot) != snapshot_fingerprint(snapshot);
    snapshot_ref(snapshot);
    snapshot_unref(e->snapshot);
    e->snapshot = snapshot;
    snapshot->hooks->engine = e;
    connections_close_idle(e->connections);
    queues_terms_changed(e->queues);
    if (policy_changed)
        queues_policy_changed(e->queues);
}

struct hooks *engine_hooks(struct engine *e)
{
    return e->snapshot->hooks;
}

void engine_policy_changed(struct engine *e)
{
    queues_policy_changed(e->queues);
}

void engine_stop(struct engine *e)
{
    e->stopping = true;
    imports_stop(e);
    sessions_in_stop(e->sessions);
    queues_stop(e->queues);
    turns_stop(e->turns);
    connections_close_idle(e->connections);
    tls_reports_stop(e->tls_reports);
}

bool engine_idle(const struct engine *e)
{
    return sessions_in_count(e->sessions) == 0 && e->intakes == 0 &&
           deliveries_active(e->deliveries) == 0 && outcomes_pending(e->outcomes) == 0 &&
           !queues_busy(e->queues) && !tls_reports_pending(e->tls_reports);
}

int engine_queue_owner(struct str queue, int workers)
{
    CHECK(workers > 0);
    return (int)(hash_stable(queue.p, queue.n) % (uint64_t)workers);
}

void engine_event(struct engine *e, const struct event *ev)
{
    e->ports.journal->record(e->ports.journal, ev);
    struct hooks *hooks = e->snapshot->hooks;
    if (!hooks_have(hooks, HOOK_EVENT))
        return;
    struct hook_input in = { .event = ev };
    struct hook_result result;
    struct hook_call *call = NULL;
    hook_result_init(&result);
    hooks->run(hooks, HOOK_EVENT, &in, &result, NULL, NULL, &call);
    hook_result_done(&result);
}

bool engine_is_self_name(const struct engine *e, struct str name)
{
    return settings_is_self_name(e->snapshot->settings, name);
}

bool engine_is_self_address(const struct engine *e, const struct net_addr *ip)
{
    const struct engine_shared *shared = e->shared;
    for (size_t i = 0; i < shared->n_self; i++)
        if (net_addr_same_ip(&shared->self[i], ip))
            return true;
    const struct settings *set = e->snapshot->settings;
    for (size_t i = 0; i < set->n_self_addresses; i++)
        if (net_addr_same_ip(&set->self_addresses[i], ip))
            return true;
    for (size_t i = 0; i < set->n_listen; i++)
        if (net_addr_same_ip(&set->listen[i].addr, ip))
            return true;
    return false;
}

bool engine_is_own_listener(const struct engine *e, const struct net_addr *addr)
{
    const struct settings *set = e->snapshot->settings;
    for (size_t i = 0; i < set->n_listen; i++) {
        const struct net_addr *l = &set->listen[i].addr;
        if (l->family == NET_UNIX && net_addr_eq(l, addr))
            return true;
        if (l->port != addr->port || l->family == NET_UNIX)
            continue;
        if (net_addr_same_ip(l, addr))
            return true;
        if (net_addr_is_any(l) && (engine_is_self_address(e, addr) || net_addr_is_loopback(addr)))
            return true;
    }
    return false;
}
