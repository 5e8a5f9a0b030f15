/* Routes: targets as they are written, checks, names of queues, records. */
#include "check.h"

#include "mail/route.h"

struct target_case {
    const char *text;
    const char *host; /* NULL: an address */
    const char *addr; /* net_addr_text, NULL: none */
    uint16_t port;
    bool use_mx, lmtp; /* use_mx: when names are looked up by MX first */
};

static const struct target_case targets[] = {
    { "mail.example", "mail.example", NULL, 25, true, false },
    { "Mail.EXAMPLE.", "mail.example", NULL, 25, true, false },
    { "mail.example:587", "mail.example", NULL, 587, true, false },
    { "localhost:2525", "localhost", NULL, 2525, true, false },
    { "b\xc3\xbc"
      "cher.example:26",
      "xn--bcher-kva.example", NULL, 26, true, false },
    { "[mail.example]", "mail.example", NULL, 25, false, false },
    { "[mail.example]:465", "mail.example", NULL, 465, false, false },
    { "192.0.2.1", NULL, "192.0.2.1:25", 25, false, false },
    { "192.0.2.1:65535", NULL, "192.0.2.1:65535", 65535, false, false },
    { "[192.0.2.1]", NULL, "192.0.2.1:25", 25, false, false },
    { "[192.0.2.1]:26", NULL, "192.0.2.1:26", 26, false, false },
    { "2001:db8::1", NULL, "[2001:db8::1]:25", 25, false, false },
    { "2001:db8::1:25", NULL, "[2001:db8::1:25]:25", 25, false, false },
    { "[2001:DB8::1]", NULL, "[2001:db8::1]:25", 25, false, false },
    { "[2001:db8::1]:2525", NULL, "[2001:db8::1]:2525", 2525, false, false },
    { "[IPv6:2001:db8::1]:2525", NULL, "[2001:db8::1]:2525", 2525, false, false },
    { "[::ffff:192.0.2.1]:26", NULL, "192.0.2.1:26", 26, false, false },
    { "lmtp://mail.example", "mail.example", NULL, 24, false, true },
    { "LMTP://mail.example:2003", "mail.example", NULL, 2003, false, true },
    { "lmtp://[mail.example]:2003", "mail.example", NULL, 2003, false, true },
    { "lmtp://127.0.0.1:2003", NULL, "127.0.0.1:2003", 2003, false, true },
    { "lmtp://[::1]", NULL, "[::1]:24", 24, false, true },
    { "lmtp:/run/dovecot/lmtp", NULL, "unix:/run/dovecot/lmtp", 0, false, true },
};

static void check_target(const struct target_case *c, bool mx_first)
{
    struct arena a;
    struct route_target t;
    char text[NET_ADDR_TEXT];

    arena_init(&a, 0);
    assert_int_equal(route_target_parse(&a, str_of(c->text), mx_first, &t), 0);
    assert_str(t.text, c->text);
    assert_int_equal(t.port, c->port);
    assert_int_equal(t.use_mx, c->use_mx && mx_first);
    assert_int_equal(t.lmtp, c->lmtp);
    assert_str(t.host, c->host ? c->host : "");
    if (c->addr)
        assert_string_equal(net_addr_text(&t.addr, text), c->addr);
    else
        assert_int_equal(t.addr.family, NET_NONE);
    arena_done(&a);
}

static void test_targets(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        check_target(&targets[i], true);
        check_target(&targets[i], false);
    }
}

#define LONG_PATH                                                                                  \
    "lmtp:/234567890123456789012345678901234567890123456789012345678901234567890123456789"         \
    "012345678901234567890123456789"

static void test_targets_refused(void **state)
{
    static const char *const bad[] = {
        "",
        ":",
        ":25",
        "[",
        "]",
        "[]",
        "[]:25",
        "[mail.example",
        "mail.example]",
        "mail.example:",
        "mail.example:0",
        "mail.example:65536",
        "mail.example:x",
        "mail.example:25:26",
        "mail.example:+25",
        "mail.example:025000",
        "[mail.example]25",
        "[mail.example]:",
        "[192.0.2.1]x",
        "192.0.2",
        "192.0.2.256",
        "2130706433",
        "0.0.0.0",
        "[::]:25",
        "[IPv6:192.0.2.1]",
        "2001:db8::g",
        "mail example",
        " mail.example",
        "mail.example\r\n",
        ".example",
        "*",
        "*.example",
        "lmtp:",
        "lmtp:/",
        "lmtp://",
        "lmtp://:24",
        "lmtp:mail.example",
        "smtp://mail.example",
        "/run/lmtp",
        "unix:/run/lmtp",
        "lmtp:///run/lmtp",
        "u@mail.example",
        "a/b",
        "xn--a.example",
        LONG_PATH,
    };
    struct arena a;
    struct route_target t;

    (void)state;
    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(route_target_parse(&a, str_of(bad[i]), true, &t), -EINVAL);
    assert_int_equal(route_target_parse(&a, str_make("a\0b", 3), true, &t), -EINVAL);
    assert_int_equal(route_target_parse(&a, str_make("lmtp:/a\0b", 9), true, &t), -EINVAL);
    arena_done(&a);
}

static struct route *hosts(const char *const *texts, size_t n)
{
    struct route *r = route_new(ROUTE_HOSTS);

    assert_non_null(r);
    r->targets = ARENA_ARRAY(&r->arena, struct route_target, n);
    r->n_targets = n;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(route_target_parse(&r->arena, str_of(texts[i]), true, &r->targets[i]), 0);
    return r;
}

static struct route *mx(const char *domain)
{
    struct route *r = route_new(ROUTE_MX);

    assert_non_null(r);
    r->domain = arena_str(&r->arena, str_of(domain));
    return r;
}

/* One with every field in use. */
static struct route *rich(void)
{
    static const char *const texts[] = { "mail.example:587", "[2001:db8::1]:26", "lmtp:/run/l" };
    struct route *r = hosts(texts, 3);

    r->balance = ROUTE_ROUND_ROBIN;
    r->tls = ROUTE_TLS_VERIFY;
    r->auth = STR("isp");
    r->targets[1].own_tls = true;
    r->targets[1].tls = ROUTE_TLS_NONE;
    r->targets[1].auth = STR("me/0123456789abcdef");
    r->targets[2].new_group = true;
    r->source = STR("192.0.2.99 2001:db8::99");
    assert_int_equal(rate_parse(STR("100/m,burst=20"), &r->rate), 0);
    r->reason = STR("because");
    assert_int_equal(schedule_parse(STR("1m,5m*3,2h"), &r->retry), 0);
    assert_int_equal(hours_parse(STR("22:00-06:00"), &r->hours), 0);
    r->lifetime_ms = INT64_MAX;
    r->warn_after_ms = -1;
    r->concurrency = 7;
    r->host_failure_forever = true;
    r->fallback = mx("example.com");
    r->fallback->below_self = true;
    r->fallback->when_best_defer = true;
    assert_int_equal(route_finish(r->fallback), 0);
    assert_int_equal(route_finish(r), 0);
    return r;
}

/* Written before there were rates and lists of sources: "hosts 192.0.2.1:25", source 192.0.2.99, concurrency 7. */
static void test_old_record(void **state)
{
    struct route *r = hosts((const char *const[]){ "192.0.2.1:25" }, 1), *back;
    struct net_addr from[ROUTE_MAX_SOURCES];
    struct buf b;

    (void)state;
    r->source = STR("192.0.2.99");
    r->concurrency = 7;
    assert_int_equal(route_finish(r), 0);
    buf_init(&b, 0);
    assert_int_equal(route_encode(r, &b), 0);
    assert_int_equal(buf_str(&b).p[8] & 32,
                     0); /* version, length, targets, kind, flags: as it was */
    struct str in = buf_str(&b);
    assert_int_equal(route_decode(&in, &back), 0);
    assert_int_equal(back->concurrency, 7);
    assert_int_equal(back->rate.count, 0);
    assert_int_equal(route_sources(back, from), 1);
    assert_int_equal(from[0].family, NET_IPV4);
    route_unref(back);

    assert_int_equal(rate_parse(STR("2/s"), &r->rate), 0);
    r->source = STR("192.0.2.1 192.0.2.2 2001:db8::1");
    buf_clear(&b);
    assert_int_equal(route_encode(r, &b), 0);
    in = buf_str(&b);
    assert_int_equal(route_decode(&in, &back), 0);
    assert_int_equal(back->rate.count, 2);
    assert_int_equal(back->rate.burst, 0);
    assert_int_equal(back->rate.period_ms, 1000);
    assert_int_equal(route_sources(back, from), 3);
    assert_int_equal(from[2].family, NET_IPV6);
    assert_false(route_same(r, NULL));
    assert_true(route_same(r, back));
    back->rate.count = 3;
    assert_false(route_same(r, back));
    route_unref(back);

    r->source = STR("192.0.2.1 not-an-address");
    assert_int_equal(route_finish(r), -EINVAL);
    r->source = STR("192.0.2.1");
    r->rate.period_ms = 0;
    assert_int_equal(route_finish(r), -EINVAL);
    buf_done(&b);
    route_unref(r);
}

static void test_queue_names(void **state)
{
    static const char *const two[] = { "10.1.2.3:25", "Mail.Example" };
    struct route *r;

    (void)state;
    r = mx("example.com");
    assert_int_equal(route_finish(r), 0);
    assert_str(r->queue, "example.com");
    route_unref(r);

    r = hosts(two, 2);
    assert_int_equal(route_finish(r), 0);
    assert_str(r->queue, "10.1.2.3:25,mail.example");
    route_unref(r);

    r = route_new(ROUTE_HOLD);
    r->reason = STR("waiting for ETRN\n");
    assert_int_equal(route_finish(r), 0);
    assert_str(r->queue, "hold:waiting for etrn?");
    route_unref(r);

    r = route_new(ROUTE_HOLD);
    r->queue = STR("shop.example");
    assert_int_equal(route_finish(r), 0);
    assert_str(r->queue, "shop.example");
    route_unref(r);

    r = route_new(ROUTE_DISCARD);
    assert_int_equal(route_finish(r), 0);
    assert_str(r->queue, "discard");
    route_unref(r);

    r = route_new(ROUTE_BOUNCE);
    r->reply_code = 550;
    assert_int_equal(route_finish(r), 0);
    assert_str(r->queue, "bounce");
    route_unref(r);
}

static void test_long_queue_names_differ(void **state)
{
    const char *texts[20];
    struct route *a, *b;

    (void)state;
    for (size_t i = 0; i < 20; i++)
        texts[i] = "a-host-with-a-long-name.example";
    a = hosts(texts, 20);
    texts[19] = "b-host-with-a-long-name.example";
    b = hosts(texts, 20);
    assert_int_equal(route_finish(a), 0);
    assert_int_equal(route_finish(b), 0);
    assert_int_equal(a->queue.n, ROUTE_MAX_QUEUE);
    assert_int_equal(b->queue.n, ROUTE_MAX_QUEUE);
    assert_false(str_eq(a->queue, b->queue));
    route_unref(a);
    route_unref(b);
}

static void refused(struct route *r)
{
    assert_int_equal(route_finish(r), -EINVAL);
    route_unref(r);
}

static void test_finish_refuses(void **state)
{
    static const char *const one[] = { "mail.example" };
    static char big[ROUTE_MAX_STRING + 1];
    struct route *r;

    (void)state;
    memset(big, 'x', sizeof(big));
    refused(route_new(ROUTE_MX));
    refused(route_new(ROUTE_HOSTS));
    refused(route_new(ROUTE_BOUNCE));
    refused(route_new((enum route_kind)0));
    refused(route_new((enum route_kind)6));
    r = hosts(one, 1);
    r->below_self = true;
    refused(r);
    r = hosts(one, 1);
    r->targets[0].port = 0;
    refused(r);
    r = hosts(one, 1);
    r->kind = ROUTE_DISCARD;
    refused(r);
    r = mx("a.example");
    r->queue = str_make(big, ROUTE_MAX_QUEUE + 1);
    refused(r);
    r = mx("a.example");
    r->queue = STR("a\nb");
    refused(r);
    r = mx("a.example");
    r->reason = str_make(big, sizeof(big));
    refused(r);
    r = mx("a.example");
    r->lifetime_ms = -1;
    refused(r);
    r = mx("a.example");
    r->tls = (enum route_tls)9;
    refused(r);
    r = mx("a.example");
    r->fallback = mx("not.finished");
    refused(r);
}

static void encode(const struct route *r, struct buf *out)
{
    buf_init(out, 0);
    assert_int_equal(route_encode(r, out), 0);
}

static void test_round_trip(void **state)
{
    struct route *r = rich(), *back;
    struct buf b, again;

    (void)state;
    encode(r, &b);
    buf_add_str(&b, STR("rest"));
    struct str in = buf_str(&b);
    assert_int_equal(route_decode(&in, &back), 0);
    assert_str(in, "rest");
    assert_true(route_same(r, back));
    assert_str(back->auth, "isp");
    assert_str(back->queue, "isp@mail.example:587,me@[2001:db8::1]:26,isp@lmtp:/run/l");
    assert_false(back->targets[1].new_group);
    assert_true(back->targets[2].new_group);
    assert_int_equal(route_target_tls(back, &back->targets[0]), ROUTE_TLS_VERIFY);
    assert_int_equal(route_target_tls(back, &back->targets[1]), ROUTE_TLS_NONE);
    assert_str(route_target_auth(back, &back->targets[0]), "isp");
    assert_str(route_target_auth(back, &back->targets[1]), "me/0123456789abcdef");
    assert_str(back->targets[0].host, "mail.example");
    assert_true(back->targets[0].use_mx);
    assert_int_equal(back->targets[1].addr.family, NET_IPV6);
    assert_string_equal(back->targets[2].addr.path, "/run/l");
    assert_int_equal(back->lifetime_ms, INT64_MAX);
    assert_int_equal(back->warn_after_ms, -1);
    assert_int_equal(schedule_delay(&back->retry, 9), 7200000);
    assert_int_equal(back->hours.from, 22 * 60);
    assert_int_equal(back->hours.to, 6 * 60);
    assert_true(back->fallback->below_self && back->fallback->when_best_defer);
    assert_null(back->arena.blocks);
    encode(back, &again);
    buf_add_str(&again, STR("rest"));
    assert_true(str_eq(buf_str(&b), buf_str(&again)));
    buf_done(&b);
    buf_done(&again);
    route_unref(back);
    route_unref(r);
}

static void test_truncated(void **state)
{
    struct route *r = rich(), *back = NULL;
    struct buf b;

    (void)state;
    encode(r, &b);
    for (size_t n = 0; n < buf_len(&b); n++) {
        char *exact = malloc(n ? n : 1); /* so that the sanitizer sees a byte too many */
        memcpy(exact, b.data + b.start, n);
        struct str in = str_make(exact, n);
        assert_int_equal(route_decode(&in, &back), -EBADMSG);
        assert_null(back);
        free(exact);
    }
    buf_done(&b);
    route_unref(r);
}

static void test_every_byte_changed(void **state)
{
    struct route *r = rich(), *back;
    struct buf b;

    (void)state;
    encode(r, &b);
    for (size_t i = 0; i < buf_len(&b); i++)
        for (int bit = 0; bit < 8; bit++) {
            b.data[b.start + i] ^= (char)(1 << bit);
            struct str in = buf_str(&b);
            if (route_decode(&in, &back) == 0)
                route_unref(back);
            b.data[b.start + i] ^= (char)(1 << bit);
        }
    buf_done(&b);
    route_unref(r);
}

/* A record says that it has a certificate by its version: who does not know it refuses the record, and one without stays
 * as it was. */
static void test_certificate(void **state)
{
    struct route *plain = rich(), *r = rich(), *back;
    struct buf a, b, text;

    (void)state;
    r->certificate = STR("/etc/tern/tls/relay.pem");
    encode(plain, &a);
    encode(r, &b);
    assert_int_equal(a.data[a.start], 1);
    assert_int_equal(b.data[b.start], 2);
    struct str in = buf_str(&b);
    assert_int_equal(route_decode(&in, &back), 0);
    assert_true(route_same(r, back));
    assert_false(route_same(r, plain));
    assert_str(back->certificate, "/etc/tern/tls/relay.pem");
    buf_init(&text, 0);
    route_describe_one(back, &text);
    assert_has(text, ", certificate /etc/tern/tls/relay.pem");
    buf_done(&text);
    route_unref(back);
    for (size_t n = 0; n < buf_len(&b); n++) {
        in = str_first(buf_str(&b), n);
        assert_int_equal(route_decode(&in, &back), -EBADMSG);
    }
    for (size_t i = 0; i < buf_len(&b); i++)
        for (int bit = 0; bit < 8; bit++) {
            b.data[b.start + i] ^= (char)(1 << bit);
            in = buf_str(&b);
            if (route_decode(&in, &back) == 0)
                route_unref(back);
            b.data[b.start + i] ^= (char)(1 << bit);
        }
    buf_done(&a);
    buf_done(&b);
    route_unref(plain);
    route_unref(r);
    r = mx("a.example"); /* no queue is shared with those that show another one */
    r->certificate = STR("/etc/tern/tls/relay.pem");
    assert_int_equal(route_finish(r), 0);
    assert_str(r->queue, "relay.pem@a.example");
    route_unref(r);
}

static void test_depth(void **state)
{
    struct route *r = NULL, *back;
    struct buf b;

    (void)state;
    for (int i = 0; i <= ROUTE_MAX_DEPTH; i++) {
        struct route *next = mx("example.com");
        next->fallback = r;
        assert_int_equal(route_finish(next), 0);
        r = next;
    }
    encode(r, &b);
    struct str in = buf_str(&b);
    assert_int_equal(route_decode(&in, &back), 0);
    assert_true(route_same(r, back));
    route_unref(back);

    struct route *deep = mx("example.com");
    deep->fallback = r;
    assert_int_equal(route_finish(deep), -EINVAL);
    deep->queue = STR("q");
    buf_clear(&b);
    assert_int_equal(route_encode(deep, &b), 0);
    in = buf_str(&b);
    assert_int_equal(route_decode(&in, &back), -EBADMSG);
    buf_done(&b);
    route_unref(deep);
}

static void test_same(void **state)
{
    struct route *a = rich(), *b = rich();

    (void)state;
    assert_true(route_same(a, a));
    assert_true(route_same(a, b));
    assert_false(route_same(a, NULL));
    assert_true(route_same(NULL, NULL));
    b->concurrency = 8;
    assert_false(route_same(a, b));
    b->concurrency = 7;
    assert_true(route_same(a, b));
    b->fallback->below_self = false;
    assert_false(route_same(a, b));
    assert_ptr_equal(route_ref(a), a);
    assert_null(route_unref(a));
    assert_null(route_unref(a));
    assert_null(route_unref(b));
    assert_null(route_unref(NULL));
}

static void check_described(struct route *r, const char *text)
{
    struct buf b;

    buf_init(&b, 0);
    assert_int_equal(route_finish(r), 0);
    route_describe(r, &b);
    assert_str(buf_str(&b), text);
    buf_done(&b);
    route_unref(r);
}

static void test_describe(void **state)
{
    static const char *const two[] = { "10.1.2.3:25", "10.1.2.4:25" };
    struct route *r;

    (void)state;
    r = mx("example.com");
    r->below_self = true;
    check_described(r, "mx example.com below self");
    check_described(hosts(two, 2), "hosts 10.1.2.3:25, 10.1.2.4:25");
    check_described(
        rich(),
        "hosts mail.example:587, [2001:db8::1]:26 (tls none, auth me) | lmtp:/run/l, "
        "balance round_robin, tls verify, auth isp, source 192.0.2.99 or 2001:db8::99, rate 100/m,burst=20, hours 22:00-06:00; fallback mx example.com below self");
    r = route_new(ROUTE_HOLD);
    r->queue = STR("shop.example");
    check_described(r, "hold shop.example");
    check_described(route_new(ROUTE_DISCARD), "discard");
    r = route_new(ROUTE_BOUNCE);
    r->reply_code = 550;
    r->reply_text = STR("5.1.1 no such user");
    check_described(r, "bounce 550 5.1.1 no such user");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_targets_refused),
        cmocka_unit_test(test_old_record),
        cmocka_unit_test(test_queue_names),
        cmocka_unit_test(test_long_queue_names_differ),
        cmocka_unit_test(test_finish_refuses),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_certificate),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_describe),
    };

    return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
