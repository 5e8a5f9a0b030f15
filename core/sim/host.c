/* host.c - what a simulated host is told, and what it has got. Layer: sim. Interface: host.h. Its sessions
 * are in host_session.c. */
#include "sim/host.h"

#include "proto/sasl.h"
#include "sim/host_impl.h"

struct sim_host *sim_host_new(struct sim_clock *clock, struct sim_net *net,
                              const struct net_addr *addr, struct str name)
{
    struct sim_host *h = sim_alloc(sizeof *h);
    h->clock = clock;
    h->net = net;
    h->name = sim_dup(name);
    h->size_limit = UINT64_C(100) << 20;
    list_init(&h->rules);
    list_init(&h->retired);
    list_init(&h->sessions);
    list_init(&h->users);
    h->mechanisms = SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_LOGIN) | SASL_BIT(SASL_CRAM_MD5) |
                    SASL_BIT(SASL_SCRAM_SHA_256);
    h->listener = (struct sim_listener){ .addr = *addr, .latency_ms = -1, .accept = host_accept };
    list_init(&h->listener.link);
    sim_net_listen(net, &h->listener);
    return h;
}

static void free_rules(struct list *rules)
{
    LIST_FOREACH(it, rules)
    {
        struct rule *r = LIST_ENTRY(it, struct rule, link);
        list_remove(&r->link);
        free((char *)r->is.address.p);
        free((char *)r->is.reply.text.p);
        free(r);
    }
}

static void free_users(struct sim_host *h)
{
    LIST_FOREACH(it, &h->users)
    {
        struct user *u = LIST_ENTRY(it, struct user, link);
        list_remove(&u->link);
        free(u->name);
        free(u->password);
        free(u);
    }
}

struct sim_host *sim_host_free(struct sim_host *h)
{
    if (!h)
        return NULL;
    sim_net_unlisten(h->net, &h->listener);
    host_drop_sessions(h);
    free_rules(&h->rules);
    free_rules(&h->retired);
    free_users(h);
    sim_host_forget(h);
    for (size_t i = 0; i < h->n_hidden; i++)
        free(h->hidden[i]);
    free((char *)h->cert.name.p);
    free((char *)h->cert.fails.p);
    free(h->inbox);
    free(h->name);
    free(h);
    return NULL;
}

const struct net_addr *sim_host_addr(const struct sim_host *h)
{
    return &h->listener.addr;
}

void sim_host_set_reach(struct sim_host *h, enum sim_reach reach)
{
    h->listener.reach = reach;
    if (reach != SIM_ACCEPTS)
        host_drop_sessions(h);
}

void sim_host_up(struct sim_host *h)
{
    sim_host_set_reach(h, SIM_ACCEPTS);
}

void sim_host_down(struct sim_host *h)
{
    sim_host_set_reach(h, SIM_REFUSES);
}

bool sim_host_is_up(const struct sim_host *h)
{
    return h->listener.reach == SIM_ACCEPTS;
}

/* ---- rules ------------------------------------------------------------------------------------ */

void sim_host_add_rule(struct sim_host *h, const struct sim_rule *rule)
{
    struct rule *r = sim_alloc(sizeof *r);
    struct str text = rule->reply.text.p ? rule->reply.text : STR("");
    r->is = *rule;
    r->is.address = str_make(sim_dup(rule->address.p ? rule->address : STR("")), rule->address.n);
    r->is.reply.text = str_make(sim_dup(text), text.n);
    list_init(&r->link);
    list_push(&h->rules, &r->link);
}

void sim_host_reply(struct sim_host *h, enum smtp_stage stage, uint16_t code, struct str text)
{
    struct sim_rule rule = { .stage = stage, .reply = { .code = code, .text = text } };
    sim_host_add_rule(h, &rule);
}

/* A session that answers after a delay still looks at its rule. */
void sim_host_clear_rules(struct sim_host *h)
{
    list_join(&h->retired, &h->rules);
}

static bool address_fits(struct str pattern, struct str address)
{
    if (pattern.n == 0 || str_caseeq(pattern, address))
        return true;
    return pattern.p[0] == '@' && str_caseends(address, pattern);
}

const struct sim_rule *host_find_rule(struct sim_host *h, enum smtp_stage stage, struct str address,
                                      bool extended)
{
    LIST_FOREACH(it, &h->rules)
    {
        struct rule *r = LIST_ENTRY(it, struct rule, link);
        if (r->is.stage != stage || !address_fits(r->is.address, address) ||
            (r->is.extended_only && !extended) || (r->is.times && r->used == r->is.times))
            continue;
        r->used++;
        return &r->is;
    }
    return NULL;
}

bool host_has_rule(const struct sim_host *h, enum smtp_stage stage)
{
    LIST_FOREACH(it, &h->rules)
    {
        const struct rule *r = LIST_ENTRY(it, struct rule, link);
        if (r->is.stage == stage && (!r->is.times || r->used < r->is.times))
            return true;
    }
    return false;
}

/* ---- settings --------------------------------------------------------------------------------- */

void sim_host_set_name(struct sim_host *h, struct str name)
{
    host_drop_sessions(h); /* they borrow it */
    free(h->name);
    h->name = sim_dup(name);
}

void sim_host_set_latency(struct sim_host *h, int64_t one_way_ms)
{
    h->listener.latency_ms = one_way_ms;
}

void sim_host_set_delay(struct sim_host *h, int64_t ms)
{
    h->delay_ms = ms;
}

void sim_host_set_starttls(struct sim_host *h, enum sim_starttls how)
{
    h->starttls = how;
}

void sim_host_set_certificate(struct sim_host *h, const struct sim_certificate *c)
{
    free((char *)h->cert.name.p);
    free((char *)h->cert.fails.p);
    h->cert = *c;
    h->cert.name = str_make(sim_dup(c->name), c->name.n);
    h->cert.fails = str_make(sim_dup(c->fails), c->fails.n);
    h->has_cert = true;
}

void sim_host_add_user(struct sim_host *h, struct str user, struct str password)
{
    struct user *u = sim_alloc(sizeof *u);
    u->name = sim_dup(user);
    u->password = sim_dup(password);
    list_init(&u->link);
    list_unshift(&h->users, &u->link); /* the newest word on a user counts */
}

const struct user *host_find_user(const struct sim_host *h, struct str name)
{
    LIST_FOREACH(it, &h->users)
    {
        const struct user *u = LIST_ENTRY(it, struct user, link);
        if (str_eq(str_of(u->name), name))
            return u;
    }
    return NULL;
}

void sim_host_set_auth(struct sim_host *h, uint32_t mechanisms, bool in_clear)
{
    if (mechanisms)
        h->mechanisms = mechanisms;
    h->auth_in_clear = in_clear;
}

void sim_host_set_size_limit(struct sim_host *h, uint64_t octets)
{
    h->size_limit = octets;
}

void sim_host_set_smtputf8(struct sim_host *h, bool offered)
{
    h->smtputf8 = offered;
}

void sim_host_set_deliver_by(struct sim_host *h, bool offered, uint32_t min_s)
{
    h->deliver_by = offered;
    h->deliver_by_min_s = min_s;
}

void sim_host_set_priority(struct sim_host *h, bool offered)
{
    h->priority = offered;
}

void sim_host_set_chunking(struct sim_host *h, bool offered, bool binary)
{
    h->chunking = offered;
    h->binarymime = binary;
}

void sim_host_set_requiretls(struct sim_host *h, bool offered)
{
    h->requiretls = offered;
}

void sim_host_set_limits(struct sim_host *h, const struct smtp_limits *limits)
{
    h->limits = *limits;
}

uint64_t sim_host_over_limits(const struct sim_host *h)
{
    return h->over_limits;
}

void sim_host_hide(struct sim_host *h, struct str keyword)
{
    CHECK(h->n_hidden < MAX_HIDDEN);
    h->hidden[h->n_hidden++] = sim_dup(keyword);
}

void sim_host_set_most(struct sim_host *h, size_t connections, enum sim_action beyond)
{
    h->most = connections;
    h->beyond = beyond;
}

void sim_host_set_lmtp(struct sim_host *h, bool lmtp)
{
    h->lmtp = lmtp;
}

void sim_host_set_chaos(struct sim_host *h, struct sim_random *random, uint32_t reset,
                        uint32_t silence, uint32_t transient)
{
    h->chaos = random;
    h->chaos_reset = reset;
    h->chaos_silence = silence;
    h->chaos_transient = transient;
}

/* ---- the inbox -------------------------------------------------------------------------------- */

struct received *received_new(void)
{
    struct received *r = sim_alloc(sizeof *r);
    arena_init(&r->arena, 0);
    return r;
}

void received_free(struct received *r)
{
    if (!r)
        return;
    arena_done(&r->arena);
    free(r);
}

void host_take(struct sim_host *h, struct received *r)
{
    if (h->n_inbox == h->cap_inbox) {
        h->cap_inbox = h->cap_inbox ? 2 * h->cap_inbox : 16;
        h->inbox = reallocarray(h->inbox, h->cap_inbox, sizeof(struct received *));
        CHECK(h->inbox != NULL);
    }
    h->inbox[h->n_inbox++] = r;
}

size_t sim_host_inbox(const struct sim_host *h)
{
    return h->n_inbox;
}

const struct sim_received *sim_host_received(const struct sim_host *h, size_t i)
{
    CHECK(i < h->n_inbox);
    return &h->inbox[i]->is;
}

size_t sim_host_count_with(const struct sim_host *h, struct str text)
{
    size_t n = 0;
    for (size_t i = 0; i < h->n_inbox; i++)
        n += str_find(h->inbox[i]->is.content, text) >= 0;
    return n;
}

void sim_host_forget(struct sim_host *h)
{
    for (size_t i = 0; i < h->n_inbox; i++)
        received_free(h->inbox[i]);
    h->n_inbox = 0;
}

uint64_t sim_host_sessions(const struct sim_host *h)
{
    return h->accepted;
}

size_t sim_host_open(const struct sim_host *h)
{
    return h->open;
}

size_t sim_host_busy(const struct sim_host *h)
{
    return h->busy;
}

size_t sim_host_peak(const struct sim_host *h)
{
    return h->peak;
}

uint64_t sim_host_turned_away(const struct sim_host *h)
{
    return h->turned_away;
}

uint64_t sim_host_auths(const struct sim_host *h)
{
    return h->auths;
}

uint64_t sim_host_quits(const struct sim_host *h)
{
    return h->quits;
}

uint64_t sim_host_rsets(const struct sim_host *h)
{
    return h->rsets;
}
