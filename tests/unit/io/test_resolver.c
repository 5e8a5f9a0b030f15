/* The resolver against a small DNS server of ours: answers, failures, cache, merging, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <cmocka.h>

#include "dns_server.h"
#include "io/dns_cache.h"
#include "io/resolver.h"
#include "io/sockaddr.h"
#include "world.h"

static struct world world;
static struct dns_server *server;
static struct io_resolver *resolver;
static struct port_dns *dns;

static int setup(void **state)
{
    (void)state;
    world_open(&world, NULL);
    server = dns_server_start();
    assert_int_equal(
        io_resolver_new(world.loop, dns_server_addr(server), 1, 2000, false, &resolver), 0);
    dns = io_resolver_port(resolver);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    resolver = io_resolver_free(resolver);
    dns_server_stop(server);
    world_close(&world);
    return 0;
}

struct asked {
    struct dns_query *q;
    struct dns_answer *answer;
    bool in_call;
};

static void on_done(void *owner, const struct dns_answer *answer)
{
    struct asked *a = owner;

    assert_false(a->in_call);
    assert_null(a->answer);
    assert_non_null(answer);
    a->answer = dns_answer_ref((struct dns_answer *)(uintptr_t)answer);
    a->q = NULL;
}

static void start(struct asked *a, const char *name, enum dns_type type)
{
    *a = (struct asked){ .in_call = true };
    a->q = dns->query(dns, str_of(name), type, on_done, a);
    assert_non_null(a->q);
    a->in_call = false;
}

static bool answered(void *asked)
{
    return ((struct asked *)asked)->answer != NULL;
}

static enum dns_status wait_for(struct asked *a)
{
    world_until(&world, answered, a);
    return a->answer->status;
}

static void done(struct asked *a)
{
    a->answer = dns_answer_unref(a->answer);
}

static struct io_resolver_stats stats(void)
{
    struct io_resolver_stats s;
    io_resolver_get_stats(resolver, &s);
    return s;
}

static bool idle(void *arg)
{
    (void)arg;
    return stats().in_flight == 0;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void test_ok(void **state)
{
    struct asked a;
    char text[NET_ADDR_TEXT];

    (void)state;
    start(&a, "OK.Test.", DNS_A);
    assert_int_equal(wait_for(&a), DNS_OK);
    assert_int_equal(a.answer->n, 1);
    assert_string_equal(net_addr_ip_text(&a.answer->records[0].addr, text), "192.0.2.1");
    assert_int_equal(a.answer->ttl, 60);
    assert_true(str_eq(a.answer->question, STR("ok.test")));
    done(&a);

    start(&a, "ok.test", DNS_MX);
    assert_int_equal(wait_for(&a), DNS_OK);
    assert_int_equal(a.answer->records[0].preference, 10);
    assert_true(str_eq(a.answer->records[0].name, STR("mail.ok.test")));
    done(&a);
}

static void test_statuses(void **state)
{
    static const struct {
        const char *name;
        enum dns_type type;
        enum dns_status status;
    } cases[] = {
        { "nx.test", DNS_A, DNS_NXDOMAIN },    { "empty.test", DNS_A, DNS_NODATA },
        { "ok.test", DNS_TLSA, DNS_NODATA },   { "servfail.test", DNS_A, DNS_SERVFAIL },
        { "silent.test", DNS_A, DNS_TIMEOUT }, { "garbage.test", DNS_A, DNS_TIMEOUT },
        { "loop.test", DNS_A, DNS_SERVFAIL },
    };

    (void)state;
    assert_int_equal(io_resolver_configure(resolver, dns_server_addr(server), 1, 700, false), 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct asked a;
        start(&a, cases[i].name, cases[i].type);
        assert_int_equal(wait_for(&a), cases[i].status);
        assert_int_equal(a.answer->type, cases[i].type);
        assert_true(str_eq(a.answer->question, str_of(cases[i].name)));
        assert_int_equal(a.answer->n, 0);
        done(&a);
    }
    assert_int_equal(stats().timeouts, 2);
    assert_int_equal(stats().failures, 2);
}

/* A server without recursion tells one step at a time. */
static void test_B8_cnames_are_followed_over_messages(void **state)
{
    struct asked a;

    (void)state;
    start(&a, "hop3.test", DNS_MX);
    assert_int_equal(wait_for(&a), DNS_OK);
    assert_true(str_eq(a.answer->question, STR("hop3.test")));
    assert_true(str_eq(a.answer->canonical, STR("ok.test")));
    assert_true(str_eq(a.answer->records[0].name, STR("mail.ok.test")));
    assert_int_equal(a.answer->records[0].preference, 10);
    assert_int_equal(a.answer->ttl, 30); /* of the way there */
    done(&a);
    assert_int_equal(dns_server_udp(server), 5);
    start(&a, "hop3.test", DNS_MX);
    assert_int_equal(wait_for(&a), DNS_OK);
    done(&a);
    assert_int_equal(dns_server_udp(server), 5); /* from the cache, as one */

    start(&a, "tonx.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_NXDOMAIN);
    done(&a);
    start(&a, "tofail.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_SERVFAIL);
    done(&a);
}

static void test_B8_cnames_have_an_end(void **state)
{
    struct asked a;

    (void)state;
    start(&a, "hop7.test", DNS_A); /* eight of them */
    assert_int_equal(wait_for(&a), DNS_OK);
    done(&a);
    start(&a, "hop8.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_SERVFAIL);
    done(&a);
    int before = dns_server_udp(server);
    start(&a, "ping.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_SERVFAIL);
    done(&a);
    assert_int_equal(dns_server_udp(server), before + 9);
}

/* Nothing is left behind when who asked goes, or the time is over, in the middle of a chain. */
static void test_a_chain_that_is_cut(void **state)
{
    struct asked a;

    (void)state;
    assert_int_equal(io_resolver_configure(resolver, dns_server_addr(server), 1, 500, false), 0);
    start(&a, "hop3.test", DNS_A);
    dns->cancel(dns, a.q);
    start(&a, "hop2.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_OK);
    done(&a);
}

static void test_truncated_goes_to_tcp(void **state)
{
    struct asked a;

    (void)state;
    start(&a, "big.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_OK);
    assert_int_equal(a.answer->n, 100);
    assert_int_equal(dns_server_tcp(server), 1);
    done(&a);
}

static void test_edns(void **state)
{
    struct asked a;

    (void)state;
    start(&a, "edns.test", DNS_TXT);
    assert_int_equal(wait_for(&a), DNS_OK);
    assert_int_equal(a.answer->records[0].name.n, 1000);
    assert_int_equal(dns_server_tcp(server), 0);
    done(&a);
    for (int i = 0; i < 2; i++) { /* c-ares gives up on EDNS once, we each time */
        start(&a, i ? "noedns2.test" : "noedns.test", DNS_A);
        assert_int_equal(wait_for(&a), DNS_OK);
        done(&a);
    }
}

static void test_without_asking(void **state)
{
    static const char *const no_names[] = {
        "a..b",
        ".a",
        "a b.test",
        "x\\.test",
        "a\001b",
        "caf\303\251.test",
        "labelthatistoolonglabelthatistoolonglabelthatistoolonglabelthati.test",
    };
    struct asked a;
    char text[NET_ADDR_TEXT];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(no_names); i++) {
        start(&a, no_names[i], DNS_A);
        assert_int_equal(wait_for(&a), DNS_NXDOMAIN);
        done(&a);
    }
    char *huge = malloc(1 << 16);
    memset(huge, 'x', 1 << 16);
    huge[(1 << 16) - 1] = '\0';
    start(&a, huge, DNS_A);
    assert_int_equal(wait_for(&a), DNS_NXDOMAIN);
    done(&a);
    free(huge);

    start(&a, "LocalHost.", DNS_A);
    assert_int_equal(wait_for(&a), DNS_OK);
    assert_string_equal(net_addr_ip_text(&a.answer->records[0].addr, text), "127.0.0.1");
    done(&a);
    start(&a, "x.localhost", DNS_AAAA);
    assert_int_equal(wait_for(&a), DNS_OK);
    assert_string_equal(net_addr_ip_text(&a.answer->records[0].addr, text), "::1");
    done(&a);
    start(&a, "localhost", DNS_MX);
    assert_int_equal(wait_for(&a), DNS_NODATA);
    done(&a);
    assert_int_equal(dns_server_udp(server), 0);
}

/* ---- whom to believe that an answer is secure (RFC 7672 section 2.2) --------------------------- */

static bool said_to_be_secure(const char *name)
{
    struct asked a;

    start(&a, name, DNS_A);
    assert_int_equal(wait_for(&a), DNS_OK);
    bool authentic = a.answer->authentic;
    done(&a);
    return authentic;
}

static void test_S8_a_resolver_on_this_machine_is_believed(void **state)
{
    (void)state;
    assert_true(said_to_be_secure("signed.test"));
    assert_true(said_to_be_secure("signed.test")); /* out of the cache, too */
    assert_false(said_to_be_secure("ok.test"));
}

/* An address of this machine that is not a loopback one. False: it has none. */
static bool own_address(struct net_addr *ret)
{
    struct ifaddrs *all, *i;
    bool found = false;

    assert_int_equal(getifaddrs(&all), 0);
    for (i = all; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || i->ifa_flags & IFF_LOOPBACK)
            continue;
        sockaddr_to_net((const void *)i->ifa_addr, sizeof(struct sockaddr_in), ret);
        found = true;
    }
    freeifaddrs(all);
    return found;
}

static void test_S8_a_resolver_elsewhere_is_believed_when_told_so(void **state)
{
    struct net_addr both[2] = { *dns_server_addr(server) }, elsewhere;

    (void)state;
    if (!own_address(&elsewhere)) {
        print_message("this machine has no address but loopback ones\n");
        skip();
    }
    struct dns_server *other = dns_server_start_at(&elsewhere);
    both[1] = *dns_server_addr(other);
    assert_true(said_to_be_secure("signed.test"));
    /* One that is elsewhere is enough: any of them may have answered. What is remembered was believed by
     * the rule before. */
    assert_int_equal(io_resolver_configure(resolver, both, 2, 2000, false), 0);
    assert_false(said_to_be_secure("signed.test"));
    assert_int_equal(io_resolver_configure(resolver, &both[1], 1, 2000, false), 0);
    assert_false(said_to_be_secure("signed2.test"));
    assert_int_equal(io_resolver_configure(resolver, &both[1], 1, 2000, true), 0);
    assert_true(said_to_be_secure("signed.test"));
    assert_false(said_to_be_secure("ok.test"));
    dns_server_stop(other);
}

static void test_unreachable(void **state)
{
    struct asked a;
    struct net_addr to = *dns_server_addr(server);

    (void)state;
    dns_server_stop(server);
    start(&a, "ok.test", DNS_A);
    assert_true(wait_for(&a) >= DNS_SERVFAIL);
    done(&a);
    server = dns_server_start();
    /* A reload to where it is now. */
    to = *dns_server_addr(server);
    assert_int_equal(io_resolver_configure(resolver, &to, 1, 2000, false), 0);
    io_resolver_flush(resolver);
    start(&a, "ok.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_OK);
    done(&a);
}

/* With two servers the second is asked when the first fails. */
static void test_second_server(void **state)
{
    struct net_addr both[2];
    struct asked a;

    (void)state;
    both[0] = both[1] = *dns_server_addr(server);
    net_addr_parse_ip(STR("127.0.0.2"), &both[0]);
    both[0].port = both[1].port; /* nobody there */
    assert_int_equal(io_resolver_configure(resolver, both, 2, 3000, false), 0);
    start(&a, "ok.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_OK);
    done(&a);
    start(&a, "servfail.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_SERVFAIL);
    done(&a);

    struct net_addr bad = { .family = NET_UNIX };
    assert_int_equal(io_resolver_configure(resolver, &bad, 1, 3000, false), -EINVAL);
}

/* ---- cache and merging ----------------------------------------------------------------------- */

static void test_cache(void **state)
{
    struct asked a;

    (void)state;
    for (int i = 0; i < 10; i++) {
        start(&a, i % 2 ? "ok.test" : "OK.TEST.", DNS_A);
        assert_int_equal(wait_for(&a), DNS_OK);
        done(&a);
        start(&a, "nx.test", DNS_A);
        assert_int_equal(wait_for(&a), DNS_NXDOMAIN);
        done(&a);
        start(&a, "servfail.test", DNS_A);
        assert_int_equal(wait_for(&a), DNS_SERVFAIL);
        done(&a);
    }
    assert_int_equal(dns_server_udp(server), 3);
    assert_int_equal(stats().hits, 27);
    assert_int_equal(stats().queries, 30);
    assert_int_equal(stats().cached, 3);
    io_resolver_flush(resolver);
    assert_int_equal(stats().cached, 0);
    start(&a, "ok.test", DNS_A);
    wait_for(&a);
    done(&a);
    assert_int_equal(dns_server_udp(server), 4);
}

static void test_merged(void **state)
{
    struct asked a[20];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        start(&a[i], i % 2 ? "many.test" : "Many.Test", DNS_A);
    for (size_t i = 0; i < ARRAY_LEN(a); i++) {
        assert_int_equal(wait_for(&a[i]), DNS_OK);
        assert_ptr_equal(a[i].answer, a[0].answer);
    }
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        done(&a[i]);
    assert_int_equal(dns_server_udp(server), 1);
    assert_int_equal(stats().merged, 19);
    assert_int_equal(stats().sent, 1);
}

static void test_cancel(void **state)
{
    struct asked a[3];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        start(&a[i], "late.test", DNS_A);
    dns->cancel(dns, a[0].q);
    assert_int_equal(wait_for(&a[1]), DNS_OK);
    assert_int_equal(wait_for(&a[2]), DNS_OK);
    assert_null(a[0].answer);
    done(&a[1]);
    done(&a[2]);

    start(&a[0], "late.test", DNS_A); /* ready at once, and cancelled before it is told */
    dns->cancel(dns, a[0].q);
    world_turn(&world, 5);
    assert_null(a[0].answer);

    start(&a[0], "late2.test", DNS_A); /* nobody waits any more: it is asked, for the cache */
    dns->cancel(dns, a[0].q);
    world_until(&world, idle, NULL);
    start(&a[0], "late2.test", DNS_A);
    assert_int_equal(wait_for(&a[0]), DNS_OK);
    done(&a[0]);
    assert_int_equal(stats().sent, 2);
    start(&a[0], "late3.test", DNS_A); /* still open when the resolver goes */
    start(&a[1], "ok.test", DNS_A);
}

/* An answer that comes after the deadline is not lost on those who ask later. */
static void test_late_answer(void **state)
{
    struct asked a;

    (void)state;
    assert_int_equal(io_resolver_configure(resolver, dns_server_addr(server), 1, 150, false), 0);
    start(&a, "late.test", DNS_A);
    assert_int_equal(wait_for(&a), DNS_TIMEOUT);
    done(&a);
    world_until(&world, idle, NULL);
    start(&a, "late.test", DNS_A);
    wait_for(&a);
    assert_int_equal(stats().hits, 1);
    done(&a);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

enum { STORM = 3000 };

static void test_storm_of_silence(void **state)
{
    static struct asked a[STORM];
    char name[40];

    (void)state;
    assert_int_equal(io_resolver_configure(resolver, dns_server_addr(server), 1, 1000, false), 0);
    int64_t begin = io_loop_now(world.loop);
    for (int i = 0; i < STORM; i++) {
        snprintf(name, sizeof(name), "silent-%d.test", i);
        start(&a[i], name, DNS_A);
    }
    assert_int_equal(stats().in_flight, 1000);
    assert_int_equal(stats().waiting, STORM - 1000);
    for (int i = 0; i < STORM; i += 100) /* what waits for a place can be cancelled, too */
        dns->cancel(dns, a[i].q);
    for (int i = 0; i < STORM; i++) {
        if (i % 100 == 0)
            continue;
        assert_int_equal(wait_for(&a[i]), DNS_TIMEOUT);
        done(&a[i]);
    }
    assert_in_range(io_loop_now(world.loop) - begin, 900, 3000);
    assert_int_equal(stats().waiting, 0);
    /* It is over, and the next question is asked. */
    world_until(&world, idle, NULL);
    start(&a[0], "ok.test", DNS_A);
    assert_int_equal(wait_for(&a[0]), DNS_OK);
    done(&a[0]);
}

static void test_storm_of_answers(void **state)
{
    static struct asked a[STORM];
    char name[40];

    (void)state;
    assert_int_equal(io_resolver_configure(resolver, dns_server_addr(server), 1, 15000, false), 0);
    for (int i = 0; i < STORM; i++) {
        snprintf(name, sizeof(name), "ok-%d.test", i);
        start(&a[i], name, DNS_A);
    }
    for (int i = 0; i < STORM; i++) {
        assert_int_equal(wait_for(&a[i]), DNS_OK);
        done(&a[i]);
    }
    assert_int_equal(stats().cached, STORM);
}

static void test_cache_bounds(void **state)
{
    struct dns_cache c;
    struct dns_key k;
    char name[40];

    (void)state;
    dns_cache_init(&c);
    for (int i = 0; i < DNS_CACHE_ENTRIES + 100; i++) {
        snprintf(name, sizeof(name), "n%d.test", i);
        assert_true(dns_key_make(&k, str_of(name), DNS_A));
        struct dns_answer *a = dns_answer_make(str_of(name), DNS_A, DNS_NXDOMAIN, NULL, 0, 60);
        dns_cache_put(&c, &k, a, 0);
        dns_answer_unref(a);
    }
    assert_int_equal(c.n, DNS_CACHE_ENTRIES);
    dns_key_make(&k, STR("n99.test"), DNS_A);
    assert_null(dns_cache_get(&c, &k, 0)); /* the oldest went */
    dns_key_make(&k, STR("N100.test."), DNS_A);
    assert_non_null(dns_cache_get(&c, &k, 59999));
    assert_null(dns_cache_get(&c, &k, 60000));
    assert_int_equal(c.n, DNS_CACHE_ENTRIES - 1);
    dns_cache_done(&c);
    assert_int_equal(c.n + c.bytes, 0);

    /* Few but large ones are bounded by bytes. */
    char *text = calloc(1, 60000);
    struct dns_record record = { .name = str_make(text, 60000) };
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "t%d.test", i);
        dns_key_make(&k, str_of(name), DNS_TXT);
        struct dns_answer *a = dns_answer_make(str_of(name), DNS_TXT, DNS_OK, &record, 1, 0);
        dns_cache_put(&c, &k, a, 0);
        dns_answer_unref(a);
    }
    free(text);
    assert_in_range(c.bytes, DNS_CACHE_BYTES - 100000, DNS_CACHE_BYTES);
    assert_non_null(dns_cache_get(&c, &k, DNS_TTL_MIN_S * 1000 - 1)); /* ttl 0 lives a little */
    dns_cache_done(&c);
}

/* Whatever a stranger's zone says: RFC 2308 §5 and 7, bounded. */
static void test_how_long_answers_live(void **state)
{
    static const struct {
        enum dns_status status;
        uint32_t ttl;
        int64_t lives_s;
    } cases[] = {
        { DNS_OK, 300, 300 },
        { DNS_OK, 0, DNS_TTL_MIN_S },
        { DNS_OK, INT32_MAX, DNS_TTL_MAX_S },
        { DNS_NXDOMAIN, 30, 30 },
        { DNS_NXDOMAIN, INT32_MAX, DNS_TTL_NEGATIVE_MAX_S },
        { DNS_NODATA, 0, DNS_TTL_MIN_S },
        { DNS_NODATA, 86400, DNS_TTL_NEGATIVE_MAX_S },
        { DNS_SERVFAIL, 86400, DNS_TTL_FAILURE_S },
        { DNS_TIMEOUT, 86400, DNS_TTL_FAILURE_S },
    };
    struct dns_cache c;
    struct dns_key k;

    (void)state;
    dns_cache_init(&c);
    dns_key_make(&k, STR("a.test"), DNS_A);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct dns_answer *a =
            dns_answer_make(STR("a.test"), DNS_A, cases[i].status, NULL, 0, cases[i].ttl);
        dns_cache_put(&c, &k, a, 0);
        dns_answer_unref(a);
        assert_non_null(dns_cache_get(&c, &k, cases[i].lives_s * 1000 - 1));
        assert_null(dns_cache_get(&c, &k, cases[i].lives_s * 1000));
    }
    dns_cache_done(&c);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_ok),
        T(test_statuses),
        T(test_B8_cnames_are_followed_over_messages),
        T(test_B8_cnames_have_an_end),
        T(test_a_chain_that_is_cut),
        T(test_truncated_goes_to_tcp),
        T(test_edns),
        T(test_without_asking),
        T(test_S8_a_resolver_on_this_machine_is_believed),
        T(test_S8_a_resolver_elsewhere_is_believed_when_told_so),
        T(test_unreachable),
        T(test_second_server),
        T(test_cache),
        T(test_merged),
        T(test_cancel),
        T(test_late_answer),
        T(test_storm_of_silence),
        T(test_storm_of_answers),
        T(test_cache_bounds),
        T(test_how_long_answers_live),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
