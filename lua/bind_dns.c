/* bind_dns.c - the module tern.dns: look-ups that wait.
 *
 * Layer: lua. Interface: sandbox.h. An answer is kept (one reference) until the task runs on and
 * has made Lua values of it. A name that cannot be in the DNS at all is answered at once as
 * nxdomain: names come from strangers.
 */
#include <stdio.h>

#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "mail/address.h"

/* ---- results -------------------------------------------------------------------------------- */

static void push_host(lua_State *L, const struct dns_record *r)
{
    push_str(L, r->name);
    lua_setfield(L, -2, "host");
}

static void push_number(lua_State *L, const char *key, lua_Integer n)
{
    lua_pushinteger(L, n);
    lua_setfield(L, -2, key);
}

static void push_record(lua_State *L, enum dns_type type, const struct dns_record *r)
{
    char ip[NET_ADDR_TEXT];

    switch (type) {
    case DNS_A:
    case DNS_AAAA: lua_pushstring(L, net_addr_ip_text(&r->addr, ip)); return;
    case DNS_MX:
        lua_createtable(L, 0, 2);
        push_host(L, r);
        push_number(L, "preference", r->preference);
        return;
    case DNS_SRV:
        lua_createtable(L, 0, 4);
        push_host(L, r);
        push_number(L, "priority", r->preference);
        push_number(L, "weight", r->weight);
        push_number(L, "port", r->port);
        return;
    case DNS_TLSA:
        lua_createtable(L, 0, 4);
        push_number(L, "usage", r->usage);
        push_number(L, "selector", r->selector);
        push_number(L, "matching", r->matching);
        push_str(L, r->name);
        lua_setfield(L, -2, "data");
        return;
    default: push_str(L, r->name); return;
    }
}

/* Appends the records to the array on top, those of MX and SRV in order of preference. */
static void push_records(lua_State *L, const struct dns_answer *a)
{
    bool ordered = a->type == DNS_MX || a->type == DNS_SRV;
    uint16_t order[DNS_MAX_RECORDS];
    size_t n = MIN(a->n, (size_t)DNS_MAX_RECORDS);

    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; ordered && at > 0 && a->records[order[at - 1]].preference > a->records[i].preference;
             at--)
            order[at] = order[at - 1];
        order[at] = (uint16_t)i;
    }
    lua_Integer next = (lua_Integer)lua_rawlen(L, -1);
    for (size_t i = 0; i < n; i++) {
        push_record(L, a->type, &a->records[order[i]]);
        lua_rawseti(L, -2, ++next);
    }
}

static int push_failure(lua_State *L, enum dns_status status)
{
    lua_pushnil(L);
    lua_createtable(L, 0, 1);
    lua_pushstring(L, dns_status_name(status));
    lua_setfield(L, -2, "kind");
    return 2;
}

/* Of two failures, the one that says less about the name: a passing one, then nodata. */
static enum dns_status weaker(enum dns_status a, enum dns_status b)
{
    static const int rank[] = {
        [DNS_OK] = 0, [DNS_NXDOMAIN] = 1, [DNS_NODATA] = 2, [DNS_SERVFAIL] = 3, [DNS_TIMEOUT] = 4
    };

    return rank[a] >= rank[b] ? a : b;
}

static int dns_finish(lua_State *L, struct task *task)
{
    enum dns_status status = DNS_OK;
    bool found = false;

    lua_newtable(L);
    for (size_t i = 0; i < ARRAY_LEN(task->wait.answer); i++) {
        const struct dns_answer *a = task->wait.answer[i];
        if (!a)
            continue;
        if (a->status == DNS_OK)
            push_records(L, a);
        else
            status = weaker(status, a->status);
        found = found || a->status == DNS_OK;
    }
    return found ? 1 : push_failure(L, status);
}

/* ---- asking --------------------------------------------------------------------------------- */

static void dns_answered(struct task *task, unsigned which, const struct dns_answer *answer)
{
    struct policy_observer *observer = task->policies->observer;

    task->wait.query[which] = NULL;
    task->wait.answer[which] = dns_answer_ref((struct dns_answer *)answer);
    if (observer && observer->dns)
        observer->dns(observer, answer);
    if (--task->wait.pending == 0)
        task_ready(task);
}

static void first_done(void *owner, const struct dns_answer *answer)
{
    dns_answered(owner, 0, answer);
}

static void second_done(void *owner, const struct dns_answer *answer)
{
    dns_answered(owner, 1, answer);
}

static void dns_cancel(struct task *task)
{
    struct port_dns *dns = task->policies->ports->dns;

    for (size_t i = 0; i < ARRAY_LEN(task->wait.query); i++) {
        if (task->wait.query[i])
            dns->cancel(dns, task->wait.query[i]);
        task->wait.query[i] = NULL;
    }
}

/* The name as it is asked for, into dst (DOMAIN_TEXT bytes); false: it cannot exist. */
static bool query_name(struct str s, char *dst)
{
    ptrdiff_t n = domain_normalize(s, dst, DOMAIN_TEXT);

    return n > 0 && *dst != '.' && *dst != '*';
}

/* "192.0.2.1" -> "1.2.0.192.in-addr.arpa". */
static void reverse_name(const struct net_addr *a, char *dst)
{
    size_t n = 0;

    if (a->family == NET_IPV4) {
        snprintf(dst, DOMAIN_TEXT, "%u.%u.%u.%u.in-addr.arpa", a->ip[3], a->ip[2], a->ip[1],
                 a->ip[0]);
        return;
    }
    for (int i = 15; i >= 0; i--)
        n += (size_t)snprintf(dst + n, DOMAIN_TEXT - n, "%x.%x.", a->ip[i] & 15, a->ip[i] >> 4);
    snprintf(dst + n, DOMAIN_TEXT - n, "ip6.arpa");
}

/* second: 0, or a further type to ask for at the same time. */
static int ask(lua_State *L, const char *what, enum dns_type first, enum dns_type second)
{
    char name[DOMAIN_TEXT];
    struct net_addr addr;

    if (lua_type(L, 1) != LUA_TSTRING)
        return vm_raise(L, "%s needs a name, got %s", what, luaL_typename(L, 1));
    struct task *task = task_may_wait(L, what);
    if (first == DNS_PTR && net_addr_parse_ip(lua_str(L, 1), &addr) == 0)
        reverse_name(&addr, name);
    else if (!query_name(lua_str(L, 1), name))
        return push_failure(L, DNS_NXDOMAIN);
    struct port_dns *dns = task->policies->ports->dns;
    struct task_wait *w = &task->wait;
    w->query[0] = dns->query(dns, str_of(name), first, first_done, task);
    w->pending = 1;
    if (second && w->query[0]) {
        w->query[1] = dns->query(dns, str_of(name), second, second_done, task);
        w->pending = 2;
    }
    if (!w->query[0] || (second && !w->query[1])) {
        dns_cancel(task);
        return vm_raise_no_memory(L);
    }
    return task_wait(L, task, dns_cancel, dns_finish, "%s %s", what, name);
}

#define LOOK_UP(name, first, second)                                                               \
    static int dns_##name(lua_State *L)                                                            \
    {                                                                                              \
        return ask(L, "tern.dns." #name, first, second);                                           \
    }
LOOK_UP(mx, DNS_MX, 0)
LOOK_UP(a, DNS_A, 0)
LOOK_UP(aaaa, DNS_AAAA, 0)
LOOK_UP(addresses, DNS_A, DNS_AAAA)
LOOK_UP(txt, DNS_TXT, 0)
LOOK_UP(ptr, DNS_PTR, 0)
LOOK_UP(tlsa, DNS_TLSA, 0)
LOOK_UP(srv, DNS_SRV, 0)

void bind_dns_push(lua_State *L)
{
    static const luaL_Reg functions[] = { { "mx", dns_mx },     { "a", dns_a },
                                          { "aaaa", dns_aaaa }, { "addresses", dns_addresses },
                                          { "txt", dns_txt },   { "ptr", dns_ptr },
                                          { "tlsa", dns_tlsa }, { "srv", dns_srv },
                                          { NULL, NULL } };

    luaL_newlib(L, functions);
    sandbox_seal(L, "tern.dns");
}
