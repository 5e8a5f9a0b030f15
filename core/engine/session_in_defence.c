/* session_in_defence.c - what protects the router from clients: how much each may do, and what changes when
 * sessions become scarce.
 *
 * Layer: engine. See session_in_internal.h. Stress is the state of one worker, as the limit of sessions is:
 * from limits.stress percent of it on, until a tenth of it less are open. Clients that are slow then make
 * room for others: their timeouts are those of `timeouts.stress`, and few errors end a session.
 */
#include "engine/session_in_internal.h"

enum {
    ODMR_IDLE_MS = 10 * 60 * 1000,
    STRESS_STEP = 10, /* percent */
};

/* ---- what one client may do ---- */

/* Who speaks for other clients is not one of them. */
static uint64_t key_of(const struct session *s)
{
    const struct settings *set = s->snapshot->settings;

    if (s->may_xclient && s->view.client == &s->stream->peer)
        return 0;
    return clients_key(set, s->view.client);
}

const char *session_admit(struct session *s)
{
    const struct settings *set = s->snapshot->settings;
    struct clients *clients = s->e->shared->clients;
    uint64_t key = key_of(s);

    if (!key)
        s->greeting_delay_ms = 0;
    if (!clients_enter(clients, key, set->clients.connections)) {
        COUNT(s->e, clients_limited, 1);
        return "too many connections from your address";
    }
    s->counted = key;
    if (!clients_may(clients, key, set, CLIENTS_CONNECTION, engine_now(s->e))) {
        COUNT(s->e, clients_limited, 1);
        return "connections from your address come too often";
    }
    return NULL;
}

void session_discharge(struct session *s)
{
    clients_leave(s->e->shared->clients, s->counted);
    s->counted = 0;
}

bool session_client_may(struct session *s, enum clients_use use)
{
    if (clients_may(s->e->shared->clients, key_of(s), s->snapshot->settings, use, engine_now(s->e)))
        return true;
    COUNT(s->e, clients_limited, 1);
    return false;
}

/* ---- stress ---- */

uint32_t session_max_errors(const struct session *s)
{
    const struct settings *set = s->snapshot->settings;
    uint32_t errors = set->limits.errors;

    if (!s->all->stressed)
        return errors;
    return errors ? MIN(errors, set->limits.stress_errors) : set->limits.stress_errors;
}

int64_t session_idle_ms(const struct session *s)
{
    const struct settings *set = s->snapshot->settings;
    int64_t idle =
        smtp_server_in_data(s->server) ? set->timeouts.data_ms : set->timeouts.command_ms;

    if (s->odmr) /* RFC 2645 section 6 */
        return MAX(idle, (int64_t)ODMR_IDLE_MS);
    return s->all->stressed ? MIN(idle, set->timeouts.stress_ms) : idle;
}

/* Those that were there before feel it, too. */
static void tell_sessions(struct sessions_in *all)
{
    LIST_FOREACH(it, &all->open)
    {
        struct session *s = LIST_ENTRY(it, struct session, link);
        session_set_options(s);
        if (all->stressed)
            session_hurry(s, session_idle_ms(s));
    }
}

void sessions_look_at_stress(struct sessions_in *all)
{
    const struct settings *set = all->e->snapshot->settings;
    uint64_t limit = set->limits.sessions, enter = set->limits.stress;
    uint64_t leave = enter - MIN((uint64_t)STRESS_STEP, enter / 2);
    uint64_t share = all->n * 100;

    if (all->e->freeing) /* nobody is told any more */
        return;
    if (all->stressed ? limit && share >= limit * leave : !limit || share < limit * enter)
        return;
    all->stressed = !all->stressed;
    if (all->stressed) {
        COUNT(all->e, stress_entered, 1);
        COUNT(all->e, workers_stressed, 1);
        engine_event(all->e, EVENT(EVENT_WARN, "stress", F_INT("sessions", (int64_t)all->n),
                                   F_INT("limit", (int64_t)limit),
                                   F_INT("timeout_ms", set->timeouts.stress_ms)));
    } else {
        atomic_fetch_sub_explicit(&all->e->shared->counters.workers_stressed, 1,
                                  memory_order_relaxed);
        engine_event(all->e, EVENT(EVENT_INFO, "stress_over", F_INT("sessions", (int64_t)all->n),
                                   F_INT("limit", (int64_t)limit)));
    }
    tell_sessions(all);
}
