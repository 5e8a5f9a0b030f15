/* fake.c - see fake.h. */
#include "unit/lua/fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/event.h"

/* ---- files ----------------------------------------------------------------------------------- */

static int fake_read(const struct policy_files *self, const char *path, bool secret,
                     struct buf *ret)
{
    struct fake *f = CONTAINER_OF((struct policy_files *)(uintptr_t)self, struct fake, files);

    f->reads++;
    for (const struct fake_file *t = f->tree; t && t->path; t++) {
        if (strcmp(t->path, path) != 0)
            continue;
        if (t->error)
            return t->error;
        int r = buf_add_str(ret, str_of(t->text));
        return r == -EMSGSIZE ? -EFBIG : r;
    }
    return -ENOENT;
}

static void fake_state(const struct policy_files *self, const char *path,
                       struct policy_file_state *ret)
{
    const struct fake *f = CONTAINER_OF((struct policy_files *)(uintptr_t)self, struct fake, files);

    *ret = (struct policy_file_state){ .id = 0 };
    for (const struct fake_file *t = f->tree; t && t->path; t++)
        if (strcmp(t->path, path) == 0)
            *ret = (struct policy_file_state){ .id = 1, .size = strlen(t->text) };
}

/* ---- ports ----------------------------------------------------------------------------------- */

static int64_t clock_now(struct port_clock *self)
{
    return CONTAINER_OF(self, struct fake, clock)->now;
}

static int64_t clock_wall(struct port_clock *self)
{
    return CONTAINER_OF(self, struct fake, clock)->now + INT64_C(1800000000000);
}

static void clock_set(struct port_clock *self, struct timer *t, int64_t at)
{
    timer_heap_set(&CONTAINER_OF(self, struct fake, clock)->heap, t, at);
}

static void clock_stop(struct port_clock *self, struct timer *t)
{
    timer_heap_stop(&CONTAINER_OF(self, struct fake, clock)->heap, t);
}

static void clock_later(struct port_clock *self, struct later *l)
{
    struct fake *f = CONTAINER_OF(self, struct fake, clock);

    if (list_empty(&l->link))
        list_push(&f->laters, &l->link);
}

static struct dns_query *dns_query(struct port_dns *self, struct str name, enum dns_type type,
                                   dns_done *done, void *owner)
{
    struct fake *f = CONTAINER_OF(self, struct fake, dns);
    struct fake_query *q = calloc(1, sizeof(*q));
    const struct fake_record *z = f->zone;

    assert_non_null(q);
    q->done = done;
    q->owner = owner;
    q->type = type;
    str_copy(name, q->name, sizeof(q->name));
    while (z && z->name && (!str_eq(str_of(z->name), name) || z->type != type))
        z++;
    if (z && z->name)
        q->answer = dns_answer_make(name, type, z->status, z->records, z->n, 60);
    else
        q->answer = dns_answer_make(name, type, DNS_NXDOMAIN, NULL, 0, 60);
    assert_non_null(q->answer);
    list_push(&f->queries, &q->link);
    return (struct dns_query *)q;
}

static void query_free(struct fake_query *q)
{
    list_remove(&q->link);
    dns_answer_unref(q->answer);
    free(q);
}

static void dns_cancel(struct port_dns *self, struct dns_query *q)
{
    CONTAINER_OF(self, struct fake, dns)->cancelled++;
    query_free((struct fake_query *)q);
}

static uint64_t random_next(struct port_random *self)
{
    struct fake *f = CONTAINER_OF(self, struct fake, random);
    return f->next_random += 0x9e3779b97f4a7c15;
}

static void journal_record(struct port_journal *self, const struct event *e)
{
    struct fake *f = CONTAINER_OF(self, struct fake, journal);

    event_to_json(e, clock_wall(&f->clock), &f->log);
    if (f->told) {
        struct hook_input in = { .event = e };
        struct hook_result result;
        struct hook_call *call = NULL;
        hook_result_init(&result);
        assert_int_equal(f->told->run(f->told, HOOK_EVENT, &in, &result, NULL, NULL, &call), 1);
        hook_result_done(&result);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

void fake_init(struct fake *f, const struct fake_file *tree)
{
    *f = (struct fake){ .tree = tree, .now = 1000000 };
    f->files.read = fake_read;
    f->clock =
        (struct port_clock){ clock_now, clock_wall, clock_set, clock_stop, clock_later, NULL };
    f->files.state = fake_state;
    f->dns = (struct port_dns){ .query = dns_query, .cancel = dns_cancel };
    f->random.next = random_next;
    f->journal.record = journal_record;
    timer_heap_init(&f->heap);
    list_init(&f->laters);
    list_init(&f->queries);
    buf_init(&f->log, 0);
    f->ports = (struct ports){
        .clock = &f->clock, .dns = &f->dns, .random = &f->random, .journal = &f->journal
    };
}

void fake_done(struct fake *f)
{
    if (f->hooks)
        f->hooks->free(f->hooks);
    settings_unref(f->settings);
    policy_source_unref(f->source);
    assert_true(list_empty(&f->queries));
    assert_true(list_empty(&f->laters));
    assert_int_equal(timer_heap_next(&f->heap), INT64_MAX);
    timer_heap_done(&f->heap);
    buf_done(&f->log);
}

int fake_load(struct fake *f, const char *config)
{
    const struct policy_options options = {
        .files = &f->files, .cpus = 3, .memory = 64 << 20, .journal = &f->journal
    };
    struct fake_file tree[64] = { { "/etc/tern/tern.lua", config, 0 } };
    const struct fake_file *was = f->tree;
    size_t n = 1;

    if (config) {
        for (const struct fake_file *t = was; t && t->path && n < ARRAY_LEN(tree) - 1; t++)
            tree[n++] = *t;
        f->tree = tree;
    }
    int r = policy_load("/etc/tern/tern.lua", &options, &f->source, &f->settings, &f->err);
    f->tree = was;
    return r;
}

void fake_start(struct fake *f, const char *config)
{
    if (fake_load(f, config) < 0)
        fail_msg("%s\n%s", f->err.message, f->err.detail);
    if (policy_vm_new(f->source, f->settings, &f->ports, &f->hooks, &f->err) < 0)
        fail_msg("%s\n%s", f->err.message, f->err.detail);
}

void fake_turn(struct fake *f)
{
    timer_heap_run(&f->heap, f->now, 0);
    if (!f->silent) {
        struct list due;
        list_init(&due);
        list_join(&due, &f->queries);
        struct list *link;
        while ((link = list_first(&due))) {
            struct fake_query *q = LIST_ENTRY(link, struct fake_query, link);
            list_remove(&q->link);
            q->done(q->owner, q->answer);
            query_free(q);
        }
    }
    struct list laters, *link;
    list_init(&laters);
    list_join(&laters, &f->laters);
    while ((link = list_pop(&laters))) {
        struct later *l = LIST_ENTRY(link, struct later, link);
        l->run(l);
    }
}

void fake_advance(struct fake *f, int64_t ms)
{
    int64_t until = f->now + ms;

    fake_turn(f);
    while (f->now < until) {
        int64_t next = timer_heap_next(&f->heap);
        f->now = next <= f->now ? f->now + 1 : MIN(next, until);
        fake_turn(f);
    }
    fake_turn(f);
}

bool fake_logged(struct fake *f, const char *text)
{
    return str_find(buf_str(&f->log), str_of(text)) >= 0;
}

size_t fake_count(struct fake *f, const char *text)
{
    struct str s = buf_str(&f->log);
    size_t n = 0;
    ptrdiff_t at;

    for (; (at = str_find(s, str_of(text))) >= 0; n++)
        s = str_from(s, (size_t)at + strlen(text));
    return n;
}

/* ---- calls ----------------------------------------------------------------------------------- */

void fake_mail_init(struct fake_mail *m, const char *sender, const char *recipient)
{
    *m = (struct fake_mail){ .session = { .id = 1,
                                          .client_name = STR("client.example"),
                                          .helo = STR("helo.example"),
                                          .extended = true,
                                          .service = STR("smtp") },
                             .message = { .key = 7, .size = 1234 },
                             .etrn = { .domain = STR("held.example") } };
    arena_init(&m->arena, 0);
    net_addr_parse(STR("192.0.2.7:4711"), 0, &m->session_client);
    net_addr_parse(STR("198.51.100.25:25"), 0, &m->session_local);
    m->session.client = &m->session_client;
    m->session.local = &m->session_local;
    assert_int_equal(address_parse(&m->arena, str_of(sender), &m->sender), 0);
    assert_int_equal(address_parse(&m->arena, str_of(recipient), &m->rcpt), 0);
    m->message.sender = &m->sender;
    m->recipient.address = &m->rcpt;
    m->attempt = (struct attempt_view){ .number = 3,
                                        .host = STR("mx.example"),
                                        .reply = REPLY(452, ENH(4, 2, 2), "full"),
                                        .why = STR("mailbox full"),
                                        .scope = SCOPE_RECIPIENT,
                                        .elapsed_ms = 1500,
                                        .queued_ms = 60000 };
    m->in.session = &m->session;
    m->in.message = &m->message;
    m->in.recipient = &m->recipient;
}

void fake_mail_done(struct fake_mail *m)
{
    arena_done(&m->arena);
}

static void take(struct fake_call *c)
{
    str_copy(c->result.decided_by, c->decided_by, sizeof(c->decided_by));
    str_copy(c->result.reply.text, c->text, sizeof(c->text));
}

static void call_answered(void *owner, struct hook_result *result)
{
    struct fake_call *c = owner;

    c->done++;
    c->call = NULL;
    c->result = *result;
    hook_result_init(result);
    take(c);
}

void fake_begin(struct fake *f, enum hook h, const struct fake_mail *m, struct fake_call *ret)
{
    struct hook_input in = m->in;

    *ret = (struct fake_call){ .waits = false };
    hook_result_init(&ret->result);
    if (h != HOOK_RESULT)
        in.attempt = NULL;
    else
        in.attempt = &m->attempt;
    if (h == HOOK_ETRN)
        in = (struct hook_input){ .session = &m->session, .etrn = &m->etrn };
    int r = f->hooks->run(f->hooks, h, &in, &ret->result, call_answered, ret, &ret->call);
    ret->waits = r == 0;
    if (r)
        take(ret);
}

void fake_run(struct fake *f, enum hook h, const struct fake_mail *m, struct fake_call *ret)
{
    fake_begin(f, h, m, ret);
    for (int i = 0; i < 60 && ret->waits && !ret->done; i++)
        fake_advance(f, MS_PER_S);
    assert_true(!ret->waits || ret->done == 1);
}

void fake_call_done(struct fake_call *c)
{
    hook_result_done(&c->result);
    hook_result_init(&c->result);
}

const char *fake_eval(struct fake *f, const char *lua)
{
    static char out[65536];
    char config[16384];
    struct fake_mail m;
    struct fake_call c;
    struct fake own;

    if (!f) {
        fake_init(&own, NULL);
        f = &own;
    }
    snprintf(
        config, sizeof(config),
        "local tern, route = require 'tern', require 'tern.route'\n"
        "return { hostname = 'mx.example', limits = { hook_cpu = '9s' }, policies = { { name = 'eval', rcpt = function(ctx)\n"
        "%s\nend } } }\n",
        lua);
    fake_start(f, config);
    fake_mail_init(&m, "a@sender.example", "u@rcpt.example");
    fake_run(f, HOOK_RCPT, &m, &c);
    str_copy(buf_str(&f->log), out, sizeof(out));
    fake_call_done(&c);
    fake_mail_done(&m);
    if (f == &own)
        fake_done(f);
    return out;
}
