/* policy.c - hooks in C. Layer: sim. Interface: policy.h. */
#include "sim/policy.h"

struct entry {
    struct list link;
    char *key;
    struct route *route;
};

struct hook_call {
    struct list link;
    struct sim_policy *policy;
    struct timer timer;
    enum hook hook;
    struct hook_input in; /* the views live until we have answered */
    hook_done *done;
    void *owner;
};

struct policy_hooks {
    struct hooks hooks;
    struct sim_policy *policy;
    struct list calls;
};

/* ---- the table -------------------------------------------------------------------------------- */

void sim_policy_init(struct sim_policy *p, struct sim_clock *clock)
{
    *p = (struct sim_policy){ .clock = clock };
    list_init(&p->domains);
    list_init(&p->senders);
}

static void entry_free(struct entry *e)
{
    list_remove(&e->link);
    route_unref(e->route);
    free(e->key);
    free(e);
}

void sim_policy_done(struct sim_policy *p)
{
    CHECK(p->live == 0 && p->pending == 0); /* a snapshot or a call was forgotten */
    LIST_FOREACH(it, &p->domains)
    entry_free(LIST_ENTRY(it, struct entry, link));
    LIST_FOREACH(it, &p->senders)
    entry_free(LIST_ENTRY(it, struct entry, link));
    p->default_route = route_unref(p->default_route);
    sim_policy_forget_credentials(p);
}

static struct entry *find(struct list *in, struct str key)
{
    LIST_FOREACH(it, in)
    {
        struct entry *e = LIST_ENTRY(it, struct entry, link);
        if (str_caseeq(str_of(e->key), key))
            return e;
    }
    return NULL;
}

static void set(struct list *in, const char *key, struct route *route)
{
    struct entry *e = find(in, str_of(key));
    if (e)
        entry_free(e);
    e = sim_alloc(sizeof *e);
    e->key = sim_dup(str_of(key));
    e->route = route;
    list_init(&e->link);
    list_push(in, &e->link);
}

void sim_policy_domain(struct sim_policy *p, const char *domain, struct route *route)
{
    set(&p->domains, domain, route);
}

void sim_policy_sender(struct sim_policy *p, const char *domain, struct route *route)
{
    set(&p->senders, domain, route);
}

void sim_policy_default(struct sim_policy *p, struct route *route)
{
    route_unref(p->default_route);
    p->default_route = route;
}

/* ---- deciding --------------------------------------------------------------------------------- */

static void take_route(struct hook_result *ret, struct route *route, const char *by)
{
    ret->verdict = VERDICT_ROUTE;
    ret->route = route_ref(route);
    ret->decided_by = arena_str(&ret->arena, str_of(by));
}

static void decide_route(struct sim_policy *p, const struct hook_input *in, struct hook_result *ret)
{
    struct entry *d = find(&p->domains, in->recipient->address->domain);
    struct entry *s = in->message ? find(&p->senders, in->message->sender->domain) : NULL;
    if (d && d->route)
        take_route(ret, d->route, "domain");
    else if (!d && s && s->route)
        take_route(ret, s->route, "sender");
    else if (!d && p->default_route)
        take_route(ret, p->default_route, "default_route");
}

static void decide(struct sim_policy *p, enum hook h, const struct hook_input *in,
                   struct hook_result *ret)
{
    if (h == HOOK_RCPT)
        ret->known_domain = find(&p->domains, in->recipient->address->domain) != NULL;
    if (p->ask && ((p->asks >> h) & 1) && p->ask(p->arg, h, in, ret))
        return;
    if (h == HOOK_ROUTE)
        decide_route(p, in, ret);
}

/* ---- hooks ------------------------------------------------------------------------------------ */

static void answer_late(struct timer *t)
{
    struct hook_call *c = CONTAINER_OF(t, struct hook_call, timer);
    struct hook_result r;
    hook_done *done = c->done;
    void *owner = c->owner;
    hook_result_init(&r);
    decide(c->policy, c->hook, &c->in, &r);
    c->policy->pending--;
    free(c);
    done(owner, &r);
    hook_result_done(&r);
}

static int run(struct hooks *self, enum hook h, const struct hook_input *in,
               struct hook_result *ret, hook_done *done, void *owner, struct hook_call **ret_call)
{
    struct policy_hooks *ph = CONTAINER_OF(self, struct policy_hooks, hooks);
    struct sim_policy *p = ph->policy;
    p->calls[h]++;
    if (h == HOOK_EVENT || p->delay_ms == 0) {
        decide(p, h, in, ret);
        return 1;
    }
    struct hook_call *c = sim_alloc(sizeof *c);
    *c = (struct hook_call){ .policy = p, .hook = h, .in = *in, .done = done, .owner = owner };
    timer_init(&c->timer, answer_late);
    sim_timer_in(p->clock, &c->timer, p->delay_ms);
    p->pending++;
    *ret_call = c;
    return 0;
}

static void cancel(struct hooks *self, struct hook_call *c)
{
    sim_timer_stop(c->policy->clock, &c->timer);
    c->policy->pending--;
    free(c);
}

struct str sim_policy_credentials(struct sim_policy *p, const char *user, const char *password)
{
    CHECK(p->n_credentials < ARRAY_LEN(p->credentials));
    struct credentials *c = credentials_new(str_of(user), str_of(password), 0, false);
    CHECK(c != NULL);
    p->credentials[p->n_credentials++] = c;
    return c->name;
}

void sim_policy_forget_credentials(struct sim_policy *p)
{
    while (p->n_credentials)
        credentials_unref(p->credentials[--p->n_credentials]);
}

static struct credentials *find_credentials(struct hooks *self, struct str name)
{
    const struct sim_policy *p = CONTAINER_OF(self, struct policy_hooks, hooks)->policy;
    for (size_t i = 0; i < p->n_credentials; i++)
        if (str_eq(p->credentials[i]->name, name))
            return p->credentials[i];
    return NULL;
}

static void closed(struct hooks *self, uint64_t key)
{
}

static void hooks_free(struct hooks *self)
{
    struct policy_hooks *ph = CONTAINER_OF(self, struct policy_hooks, hooks);
    ph->policy->live--;
    free(ph);
}

struct hooks *sim_policy_hooks(void *policy, struct ports *ports, int worker,
                               struct settings *settings)
{
    struct sim_policy *p = policy;
    struct policy_hooks *ph = sim_alloc(sizeof *ph);
    ph->policy = p;
    ph->hooks = (struct hooks){
        .present = p->asks | 1u << HOOK_RCPT | 1u << HOOK_ROUTE,
        .run = run,
        .cancel = cancel,
        .session_closed = closed,
        .message_closed = closed,
        .offers_etrn = p->offers_etrn,
        .credentials = find_credentials,
        .free = hooks_free,
    };
    p->live++;
    return &ph->hooks;
}

/* ---- routes ----------------------------------------------------------------------------------- */

static struct route *finished(struct route *r)
{
    CHECK(route_finish(r) == 0);
    return r;
}

static struct route *new_route(enum route_kind kind)
{
    struct route *r = route_new(kind);
    CHECK(r != NULL);
    return r;
}

struct route *sim_route_mx(const char *domain)
{
    struct route *r = new_route(ROUTE_MX);
    r->domain = arena_str(&r->arena, str_of(domain));
    return finished(r);
}

struct route *sim_route_backup(const char *domain)
{
    struct route *r = new_route(ROUTE_MX);
    r->domain = arena_str(&r->arena, str_of(domain));
    r->below_self = true;
    r->host_failure_forever = true;
    return finished(r);
}

struct route *sim_route_hosts(const char *targets, bool mx_first)
{
    struct route *r = new_route(ROUTE_HOSTS);
    struct str rest = str_of(targets), one;
    r->targets = ARENA_ARRAY(&r->arena, struct route_target, ROUTE_MAX_TARGETS);
    CHECK(r->targets != NULL);
    while (str_cut(&rest, ',', &one))
        CHECK(route_target_parse(&r->arena, str_trim(one), mx_first, &r->targets[r->n_targets++]) ==
              0);
    return finished(r);
}

struct route *sim_route_hold(const char *queue)
{
    struct route *r = new_route(ROUTE_HOLD);
    r->queue = arena_str(&r->arena, str_of(queue));
    r->reason = arena_str(&r->arena, STR("held by the test"));
    return finished(r);
}

struct route *sim_route_bounce(uint16_t code, const char *text)
{
    struct route *r = new_route(ROUTE_BOUNCE);
    r->reply_code = code;
    r->reply_text = arena_str(&r->arena, str_of(text));
    return finished(r);
}

struct route *sim_route_discard(void)
{
    return finished(new_route(ROUTE_DISCARD));
}
