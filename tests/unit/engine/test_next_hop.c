/* From a route to hosts: ROUTING.md B1-B8, S3-S5, H1, Q5. */
#include "out_world.h"

#include "proto/dane.h"

static struct {
    bool done;
    enum next_hop_status status;
    enum next_hop_reason reason;
    uint16_t code;
    struct smtp_enhanced enhanced;
    bool alarm;
    size_t n;
    char hops[1024]; /* "name address:port, ..." */
    uint8_t family[NEXT_HOP_MAX];
    enum route_tls tls[NEXT_HOP_MAX];
    size_t tlsa[NEXT_HOP_MAX]; /* records */
    bool vouched[NEXT_HOP_MAX];
    char base[256];       /* of the first hop */
    char discarded[4096]; /* "what: reason; ..." */
} got;

static void on_done(void *owner, const struct next_hops *r)
{
    struct buf hops, discarded;
    char text[NET_ADDR_TEXT];
    (void)owner;
    buf_init(&hops, 0);
    buf_init(&discarded, 0);
    memset(&got, 0, sizeof got);
    for (size_t i = 0; i < r->n; i++) {
        buf_printf(&hops, "%s" STR_FMT " %s", i ? ", " : "", STR_ARG(r->hops[i].name),
                   net_addr_text(&r->hops[i].addr, text));
        got.family[i] = r->hops[i].addr.family;
        got.tls[i] = r->hops[i].tls;
        got.tlsa[i] = dane_count(r->hops[i].dane);
        got.vouched[i] = r->hops[i].vouched;
        struct dane d;
        if (i == 0 && dane_read(r->hops[i].dane, &d))
            str_copy(d.base, got.base, sizeof got.base);
    }
    for (size_t i = 0; i < r->n_discarded; i++)
        buf_printf(&discarded, STR_FMT ": " STR_FMT "; ", STR_ARG(r->discarded[i].what),
                   STR_ARG(r->discarded[i].reason));
    str_copy(buf_str(&hops), got.hops, sizeof got.hops);
    str_copy(buf_str(&discarded), got.discarded, sizeof got.discarded);
    got.status = r->status;
    got.reason = r->reason;
    got.code = r->reply.code;
    got.enhanced = r->reply.enhanced;
    got.alarm = r->alarm;
    got.n = r->n;
    got.done = true;
    buf_done(&hops);
    buf_done(&discarded);
}

static bool is_done(void *arg)
{
    return got.done;
}

/* Takes over the route. */
static void resolve(struct route *r)
{
    got.done = false;
    assert_non_null(next_hop_resolve(engine0(), r, set, on_done, NULL));
    assert_false(got.done); /* never from inside the call */
    assert_true(sim_world_until(w, is_done, NULL, SIM_MINUTE));
    route_unref(r);
}

enum by { MX, BACKUP, BACKUP_DEFERS };

struct a_case {
    const char *tag, *zone;
    enum by by;
    enum next_hop_status status;
    uint16_t code;
    uint16_t subject, detail;
    bool alarm;
    const char *hops;      /* all of it */
    const char *discarded; /* a part of it; NULL: whatever */
};

static const struct a_case cases[] = {
    { "B1 by preference",
      "d.example. MX 20 b.d.example.\nd.example. MX 10 a.d.example.\n"
      "a.d.example. A 192.0.2.1\nb.d.example. A 192.0.2.2\n",
      MX, NEXT_HOP_OK, .hops = "a.d.example 192.0.2.1:25, b.d.example 192.0.2.2:25" },
    { "B1 self by address",
      "d.example. MX 10 a.d.example.\nd.example. MX 20 we.d.example.\n"
      "a.d.example. A 192.0.2.1\nwe.d.example. A 198.51.100.25\n",
      BACKUP, NEXT_HOP_OK, .hops = "a.d.example 192.0.2.1:25", .discarded = "ourselves" },
    { "B2 peers of equal preference go, too",
      "d.example. MX 10 a.d.example.\nd.example. MX 20 mx2.isp.example.\n"
      "d.example. MX 20 peer.d.example.\nd.example. MX 30 c.d.example.\n"
      "a.d.example. A 192.0.2.1\npeer.d.example. A 192.0.2.2\nc.d.example. A 192.0.2.3\n",
      BACKUP, NEXT_HOP_OK, .hops = "a.d.example 192.0.2.1:25",
      .discarded = "20 peer.d.example: not preferred" },
    { "B2 holds without a backup route",
      "d.example. MX 10 a.d.example.\nd.example. MX 20 mx2.isp.example.\n"
      "d.example. MX 30 c.d.example.\na.d.example. A 192.0.2.1\nc.d.example. A 192.0.2.3\n",
      MX, NEXT_HOP_OK, .hops = "a.d.example 192.0.2.1:25" },
    { "B3 best", "d.example. MX 10 mx2.isp.example.\n", BACKUP, NEXT_HOP_PERMANENT, 554, 4, 6, true,
      "", NULL },
    { "B3 best, kept", "d.example. MX 10 mx2.isp.example.\n", BACKUP_DEFERS, NEXT_HOP_DEFER, 451, 4,
      6, true, "", NULL },
    { "B4 the better one has no address",
      "d.example. MX 10 a.d.example.\nd.example. MX 20 mx2.isp.example.\n", BACKUP, NEXT_HOP_DEFER,
      451, 4, 4, false, "", "has no address" },
    { "B4 the better one is an address, which is none",
      "d.example. MX 10 192.0.2.1.\nd.example. MX 20 mx2.isp.example.\n", BACKUP, NEXT_HOP_DEFER,
      451, 4, 4, false, "", "an address where a name must stand" },
    { "B5 we are none of them", "d.example. MX 10 a.d.example.\na.d.example. A 192.0.2.1\n", BACKUP,
      NEXT_HOP_DEFER, 451, 4, 4, true, "", NULL },
    { "B6 never the domain's own address beside MX",
      "d.example. MX 10 a.d.example.\nd.example. A 192.0.2.9\na.d.example. A 192.0.2.1\n", MX,
      NEXT_HOP_OK, .hops = "a.d.example 192.0.2.1:25" },
    { "B6 implicit", "d.example. A 192.0.2.9\n", MX, NEXT_HOP_OK,
      .hops = "d.example 192.0.2.9:25" },
    { "B6 NXDOMAIN", "", MX, NEXT_HOP_PERMANENT, 550, 1, 2, false, "", NULL },
    { "B6 null MX", "d.example. MX 0 .\nd.example. A 192.0.2.9\n", MX, NEXT_HOP_PERMANENT, 556, 1,
      10, false, "", NULL },
    { "B8 CNAME",
      "d.example. MX 10 c.d.example.\nc.d.example. CNAME a.d.example.\n"
      "a.d.example. A 192.0.2.1\n",
      MX, NEXT_HOP_OK, .hops = "c.d.example 192.0.2.1:25" },
    { "B8 CNAME in a circle",
      "d.example. MX 10 c.d.example.\nc.d.example. CNAME e.d.example.\n"
      "e.d.example. CNAME c.d.example.\n",
      MX, NEXT_HOP_DEFER, 451, 4, 3, false, "", NULL },
    { "B8 an address as MX", "d.example. MX 10 192.0.2.1.\n", MX, NEXT_HOP_PERMANENT, 550, 4, 4,
      false, "", "an address where a name must stand" },
    { "loopback",
      "d.example. MX 10 a.d.example.\na.d.example. A 127.0.0.1\n"
      "a.d.example. AAAA ::1\na.d.example. A 0.0.0.0\n",
      MX, NEXT_HOP_PERMANENT, 550, 4, 4, false, "", "loopback" },
};

static struct route *route_of(enum by by)
{
    struct route *r = by == MX ? sim_route_mx("d.example") : sim_route_backup("d.example");
    r->when_best_defer = by == BACKUP_DEFERS;
    return r;
}

/* The cases of one statement. */
static void check_cases(const char *tag)
{
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct a_case *c = &cases[i];
        if (!str_starts(str_of(c->tag), str_of(tag)))
            continue;
        n++;
        out_begin(1, 1);
        sim_world_zone_add(w, c->zone);
        out_start();
        resolve(route_of(c->by));
        bool as_told = got.status == c->status && got.code == c->code && got.alarm == c->alarm &&
                       strcmp(got.hops, c->hops) == 0 &&
                       (!c->code ||
                        (got.enhanced.subject == c->subject && got.enhanced.detail == c->detail)) &&
                       (!c->discarded || strstr(got.discarded, c->discarded));
        if (!as_told)
            print_message("%s: status %d, %u %u.%u.%u, alarm %d, hops '%s', discarded '%s'\n",
                          c->tag, got.status, got.code, got.enhanced.class_, got.enhanced.subject,
                          got.enhanced.detail, got.alarm, got.hops, got.discarded);
        assert_true(as_told);
        out_end();
    }
    assert_true(n > 0);
}

static void test_B1_sorted_by_preference_and_self_by_name_or_address(void **state)
{
    check_cases("B1 ");
}

static void test_B2_equal_and_worse_preferences_are_discarded(void **state)
{
    check_cases("B2 ");
}

static void test_B3_self_is_the_best(void **state)
{
    check_cases("B3 ");
}

static void test_B4_a_better_one_without_address_is_waited_for(void **state)
{
    check_cases("B4 ");
}

static void test_B5_not_listed_is_never_any_mx(void **state)
{
    check_cases("B5 ");
}

static void test_B6_no_null_or_absent_mx(void **state)
{
    check_cases("B6 ");
}

static void test_B8_cname_and_literal(void **state)
{
    check_cases("B8 ");
}

static void test_loopback(void **state)
{
    check_cases("loopback");
}

/* B5: what cannot be looked up may be our own name. */
static void test_B5_unknown_addresses_say_nothing_definite(void **state)
{
    sim_world_zone_add(w, "d.example. MX 10 a.d.example.\na.d.example. A 192.0.2.1\n");
    out_start();
    resolve(sim_route_backup("d.example"));
    assert_int_equal(got.reason, NEXT_HOP_NOT_AN_MX);
    sim_dns_fail(sim_world_dns(w), STR("a.d.example"), 0, DNS_SERVFAIL);
    resolve(sim_route_backup("d.example"));
    assert_int_equal(got.reason, NEXT_HOP_DNS_FAILURE);
    assert_int_equal(got.status, NEXT_HOP_DEFER);
}

static void test_broken_names(void **state)
{
    sim_world_zone_add(w, "d.example. MX 10 a.d.example.\na.d.example. A 192.0.2.1\n");
    out_start();
    sim_dns_fail(sim_world_dns(w), STR("d.example"), DNS_MX, DNS_SERVFAIL);
    resolve(sim_route_mx("d.example"));
    assert_int_equal(got.status, NEXT_HOP_DEFER);
    sim_dns_fail(sim_world_dns(w), STR("d.example"), DNS_MX, DNS_TIMEOUT);
    resolve(sim_route_mx("d.example"));
    assert_int_equal(got.status, NEXT_HOP_DEFER);
    sim_dns_fail(sim_world_dns(w), STR("d.example"), DNS_MX, DNS_OK);
    sim_dns_fail(sim_world_dns(w), STR("a.d.example"), 0, DNS_SERVFAIL);
    resolve(sim_route_mx("d.example"));
    assert_int_equal(got.status, NEXT_HOP_DEFER);
    assert_int_equal(got.enhanced.detail, 3);
}

static void test_loopback_allowed(void **state)
{
    set->allow_loopback_mx = true;
    sim_world_zone_add(w, "d.example. MX 10 a.d.example.\na.d.example. A 127.0.0.1\n");
    out_start();
    resolve(sim_route_mx("d.example"));
    assert_string_equal(got.hops, "a.d.example 127.0.0.1:25");
}

/* More MX than are looked at: the best are, and we still see ourselves. */
static void test_many_mx(void **state)
{
    char line[128];
    sim_world_zone_add(w, "d.example. MX 900 mx2.isp.example.\n");
    for (int i = 200; i > 0; i--) {
        snprintf(line, sizeof line,
                 "d.example. MX %d h%d.d.example.\nh%d.d.example. A 192.0.2.%d\n", i, i, i, i);
        sim_world_zone_add(w, line);
    }
    out_start();
    resolve(sim_route_backup("d.example"));
    assert_int_equal(got.status, NEXT_HOP_OK);
    assert_true(str_starts(str_of(got.hops), STR("h1.d.example 192.0.2.1:25, h2.d.example")));
    assert_in_range(got.n, 5, 32);
}

static void test_Q5_both_families_among_the_first(void **state)
{
    sim_world_zone_add(w, "d.example. MX 10 a.d.example.\nd.example. MX 20 b.d.example.\n"
                          "a.d.example. AAAA 2001:db8::1\na.d.example. AAAA 2001:db8::2\n"
                          "a.d.example. AAAA 2001:db8::3\na.d.example. AAAA 2001:db8::4\n"
                          "a.d.example. AAAA 2001:db8::5\na.d.example. AAAA 2001:db8::6\n"
                          "b.d.example. A 192.0.2.2\n");
    out_start();
    resolve(sim_route_mx("d.example"));
    bool four = false;
    for (int i = 0; i < 5; i++)
        four |= got.family[i] == NET_IPV4;
    assert_true(four);
    assert_int_equal(got.family[0], NET_IPV6);
}

/* However many addresses of one family a host has. */
static void test_Q5_one_family_does_not_crowd_out_the_other(void **state)
{
    char zone[1024] = "d.example. MX 10 a.d.example.\na.d.example. A 192.0.2.2\n";
    for (int i = 1; i <= 12; i++) {
        size_t n = strlen(zone);
        snprintf(zone + n, sizeof zone - n, "a.d.example. AAAA 2001:db8::%d\n", i);
    }
    sim_world_zone_add(w, zone);
    out_start();
    resolve(sim_route_mx("d.example"));
    size_t four = 0;
    for (size_t i = 0; i < got.n; i++)
        four += got.family[i] == NET_IPV4;
    assert_int_equal(four, 1);
    assert_int_equal(got.n, 8);
    assert_int_equal(got.family[1], NET_IPV4);
}

/* ---- given hosts ---- */

static void test_S3_H1_H8_targets(void **state)
{
    sim_world_zone_add(w, "smart.example. MX 10 a.smart.example.\nsmart.example. A 192.0.2.5\n"
                          "a.smart.example. A 192.0.2.6\nplain.example. A 192.0.2.7\n");
    out_start();
    static const struct {
        const char *target;
        bool mx_first;
        const char *hops;
    } targets[] = {
        { "smart.example", true, "a.smart.example 192.0.2.6:25" },
        { "smart.example:587", true, "a.smart.example 192.0.2.6:587" },
        { "[smart.example]", true, "smart.example 192.0.2.5:25" },
        { "[smart.example]:26", true, "smart.example 192.0.2.5:26" },
        { "smart.example", false, "smart.example 192.0.2.5:25" },
        { "plain.example", true, "plain.example 192.0.2.7:25" },
        { "192.0.2.8:2525", true, "192.0.2.8 192.0.2.8:2525" },
        { "[2001:db8::9]:25", true, "2001:db8::9 [2001:db8::9]:25" },
        { "192.0.2.9, 192.0.2.8", true, "192.0.2.9 192.0.2.9:25, 192.0.2.8 192.0.2.8:25" },
    };
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        resolve(sim_route_hosts(targets[i].target, targets[i].mx_first));
        assert_string_equal(got.hops, targets[i].hops);
    }
    uint64_t asked = sim_dns_asked(sim_world_dns(w), STR("*"), DNS_MX);
    resolve(sim_route_hosts("smart.example", false));
    assert_int_equal(sim_dns_asked(sim_world_dns(w), STR("*"), DNS_MX), asked); /* H1 */
}

static void test_H4_S5_target_without_address_waits(void **state)
{
    out_start();
    resolve(sim_route_hosts("nowhere.example", true)); /* S5, H4 */
    assert_int_equal(got.status, NEXT_HOP_DEFER);
    assert_true(got.alarm);
}

static void test_H4_S5_own_listener(void **state)
{
    struct listen_settings listen = { .addr = sim_addr("198.51.100.25:25"),
                                      .service = STR("smtp") };
    set->listen = &listen;
    set->n_listen = 1;
    out_start();
    resolve(sim_route_hosts("198.51.100.25", false)); /* H4 */
    assert_int_equal(got.status, NEXT_HOP_PERMANENT);
    struct route *r = sim_route_hosts("198.51.100.25", false);
    r->host_failure_forever = true;
    resolve(r); /* S5 */
    assert_int_equal(got.status, NEXT_HOP_DEFER);
    resolve(sim_route_hosts("198.51.100.25:2525", false)); /* another port is another server */
    assert_int_equal(got.status, NEXT_HOP_OK);
}

/* ---- DANE (RFC 7672) ---- */

#define KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void resolve_dane(const char *host, const char *insecure)
{
    struct route *r = host ? sim_route_hosts(host, false) : sim_route_mx("d.example");
    sim_dns_set_secure(sim_world_dns(w), STR("*"), true);
    if (insecure)
        sim_dns_set_secure(sim_world_dns(w), str_of(insecure), false);
    r->tls = ROUTE_TLS_DANE;
    resolve(r);
}

static void dane_zone(void)
{
    sim_world_zone_add(w, "d.example. MX 10 a.d.example.\nd.example. MX 20 b.d.example.\n"
                          "a.d.example. CNAME real.host.example.\nreal.host.example. A 192.0.2.1\n"
                          "b.d.example. A 192.0.2.2\n"
                          "_25._tcp.real.host.example. TLSA 3 1 1 " KEY "\n"
                          "_25._tcp.real.host.example. TLSA 1 1 1 " KEY "\n"
                          "_25._tcp.real.host.example. TLSA 2 0 1 " KEY "\n"
                          "_25._tcp.real.host.example. TLSA 3 1 1 00\n");
    out_start();
}

static void test_S8_dane_by_the_name_behind_cnames(void **state)
{
    dane_zone();
    resolve_dane(NULL, NULL);
    assert_string_equal(got.hops, "a.d.example 192.0.2.1:25, b.d.example 192.0.2.2:25");
    assert_int_equal(got.tls[0], ROUTE_TLS_DANE);
    assert_int_equal(got.tlsa[0], 2); /* those that can be used */
    assert_string_equal(got.base, "real.host.example");
    assert_int_equal(got.tls[1], ROUTE_TLS_OPPORTUNISTIC); /* it has none */
    resolve_dane("a.d.example", NULL); /* given by us: there is no MX to be secure */
    assert_int_equal(got.tls[0], ROUTE_TLS_DANE);
    resolve_dane("192.0.2.1", NULL);
    assert_int_equal(got.tls[0], ROUTE_TLS_OPPORTUNISTIC);
}

static void test_S8_dane_needs_each_answer_to_be_secure(void **state)
{
    static const char *const insecure[] = { "d.example", "a.d.example", "real.host.example",
                                            "_tcp.real.host.example" };
    dane_zone();
    for (size_t i = 0; i < ARRAY_LEN(insecure); i++) {
        resolve_dane(NULL, insecure[i]);
        assert_int_equal(got.tls[0], ROUTE_TLS_OPPORTUNISTIC);
        assert_int_equal(got.tlsa[0], 0);
    }
}

/* RFC 7672 section 2.2.3: the name behind the alias has none, or lies in a zone that is not signed. */
static void test_S8_dane_by_the_alias_itself(void **state)
{
    static const char *const insecure[] = { NULL, "_tcp.real.host.example", "real.host.example" };
    sim_world_zone_add(w, "a.example. CNAME real.host.example.\nreal.host.example. A 192.0.2.1\n"
                          "_25._tcp.a.example. TLSA 3 1 1 " KEY "\n");
    out_start();
    for (size_t i = 0; i < ARRAY_LEN(insecure); i++) {
        resolve_dane("a.example", insecure[i]);
        assert_int_equal(got.tls[0], ROUTE_TLS_DANE);
        assert_string_equal(got.base, "a.example");
    }
    resolve_dane("a.example", "a.example"); /* who says that it is one? */
    assert_int_equal(got.tls[0], ROUTE_TLS_OPPORTUNISTIC);
    resolve_dane("a.example", "_tcp.a.example");
    assert_int_equal(got.tls[0], ROUTE_TLS_OPPORTUNISTIC);
    sim_dns_fail(sim_world_dns(w), STR("a.example"), DNS_CNAME, DNS_SERVFAIL);
    resolve_dane("a.example", "real.host.example");
    assert_int_equal(got.n, 0);
    sim_dns_fail(sim_world_dns(w), STR("_25._tcp.a.example"), 0, DNS_TIMEOUT);
    resolve_dane("a.example", NULL);
    assert_int_equal(got.n, 0);
}

static void test_S8_dane_records_that_cannot_be_used_require_tls(void **state)
{
    sim_world_zone_add(w, "h.example. A 192.0.2.1\n_2525._tcp.h.example. TLSA 1 1 1 " KEY "\n");
    out_start();
    resolve_dane("h.example:2525", NULL);
    assert_int_equal(got.tls[0], ROUTE_TLS_REQUIRE);
}

static void test_S8_dane_unknown_records_keep_a_host_out(void **state)
{
    static const enum dns_status faults[] = { DNS_SERVFAIL, DNS_TIMEOUT };
    dane_zone();
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        sim_dns_fail(sim_world_dns(w), STR("_25._tcp.real.host.example"), 0, faults[i]);
        resolve_dane(NULL, NULL);
        assert_string_equal(got.hops, "b.d.example 192.0.2.2:25");
        assert_string_equal(got.discarded, "a.d.example: TLSA look-up failed; ");
        resolve_dane("a.d.example", NULL);
        assert_int_equal(got.status, NEXT_HOP_DEFER);
        assert_int_equal(got.reason, NEXT_HOP_DNS_FAILURE);
        assert_int_equal(got.n, 0);
    }
    sim_dns_fail(sim_world_dns(w), STR("_25._tcp.b.d.example"), 0, DNS_SERVFAIL);
    resolve_dane(NULL, NULL);
    assert_int_equal(got.status, NEXT_HOP_DEFER);
    assert_int_equal(got.code, 451);
}

/* ---- what a message asks for (RFC 8689) ---- */

/* Takes over the route. */
static void resolve_for(enum next_hop_wish wish, struct route *r, enum route_tls tls)
{
    r->tls = tls;
    got.done = false;
    assert_non_null(next_hop_resolve_for(engine0(), r, set, wish, on_done, NULL));
    assert_true(sim_world_until(w, is_done, NULL, SIM_MINUTE));
    route_unref(r);
}

static void secure(const char *name, bool is)
{
    sim_dns_set_secure(sim_world_dns(w), str_of(name), is);
}

static void test_requiretls_needs_a_secure_mx(void **state)
{
    dane_zone();
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_int_equal(got.status, NEXT_HOP_PERMANENT);
    assert_int_equal(got.reason, NEXT_HOP_NOT_VOUCHED);
    assert_string_equal(next_hop_reason_name(got.reason), "requiretls");
    assert_true(got.code == 550 && got.enhanced.subject == 7 && got.enhanced.detail == 10);
    assert_non_null(strstr(got.discarded, "a.d.example: REQUIRETLS: neither DNSSEC nor MTA-STS"));
    /* all of it secure: TLSA is asked for though the route does not, and its own terms stay */
    secure("*", true);
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_string_equal(got.hops, "a.d.example 192.0.2.1:25, b.d.example 192.0.2.2:25");
    assert_true(got.vouched[0] && got.vouched[1]);
    assert_int_equal(got.tls[0], ROUTE_TLS_OPPORTUNISTIC);
    assert_int_equal(got.tlsa[0], 2);
    assert_int_equal(got.tlsa[1], 0);
    /* the MX is secure, its address is not: there is no DANE, but the name counts */
    secure("real.host.example", false);
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_NONE);
    assert_int_equal(got.n, 2);
    assert_true(got.vouched[0]);
    assert_int_equal(got.tlsa[0], 0);
}

static void test_requiretls_waits_for_what_is_not_known(void **state)
{
    dane_zone();
    secure("*", true);
    sim_dns_fail(sim_world_dns(w), STR("_25._tcp.real.host.example"), 0, DNS_SERVFAIL);
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_string_equal(got.hops, "b.d.example 192.0.2.2:25");
    sim_dns_fail(sim_world_dns(w), STR("_25._tcp.b.d.example"), 0, DNS_TIMEOUT);
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_int_equal(got.status, NEXT_HOP_DEFER);
    assert_int_equal(got.reason, NEXT_HOP_NOT_VOUCHED);
    resolve_for(NEXT_HOP_AS_ROUTED, sim_route_mx("d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_int_equal(got.n, 2); /* others do not ask for it */
    /* authorities suffice by the route: then there is nothing to ask */
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_VERIFY);
    assert_int_equal(got.n, 2);
}

static void test_requiretls_to_hosts_that_are_named(void **state)
{
    dane_zone();
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_hosts("b.d.example, 192.0.2.7", false),
                ROUTE_TLS_OPPORTUNISTIC);
    assert_int_equal(got.n, 2);
    assert_true(got.vouched[0] && got.vouched[1]);
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_hosts("d.example", true), ROUTE_TLS_OPPORTUNISTIC);
    assert_int_equal(got.status, NEXT_HOP_PERMANENT); /* by MX, and that is not secure */
    assert_int_equal(got.reason, NEXT_HOP_NOT_VOUCHED);
    resolve_for(NEXT_HOP_REQUIRETLS, sim_route_mx("b.d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_true(got.n == 1 && got.vouched[0]); /* no MX: the domain itself */
}

static void test_a_notification_goes_to_all(void **state)
{
    dane_zone();
    resolve_for(NEXT_HOP_PREFER_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_int_equal(got.n, 2);
    assert_false(got.vouched[0] || got.vouched[1]);
    secure("*", true);
    resolve_for(NEXT_HOP_PREFER_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_true(got.vouched[0] && got.vouched[1]);
    assert_int_equal(got.tlsa[0], 2); /* one more way to be sure of a host, */
    assert_int_equal(got.tls[0], ROUTE_TLS_OPPORTUNISTIC);
    sim_dns_fail(sim_world_dns(w), STR("_25._tcp.real.host.example"), 0, DNS_SERVFAIL);
    resolve_for(NEXT_HOP_PREFER_REQUIRETLS, sim_route_mx("d.example"), ROUTE_TLS_OPPORTUNISTIC);
    assert_int_equal(got.n, 2); /* and not more than that */
}

static void test_tls_required_no_does_not_ask_for_dane(void **state)
{
    dane_zone();
    secure("*", true);
    sim_dns_fail(sim_world_dns(w), STR("_25._tcp.real.host.example"), 0, DNS_SERVFAIL);
    resolve_for(NEXT_HOP_TLS_OPTIONAL, sim_route_mx("d.example"), ROUTE_TLS_DANE);
    assert_string_equal(got.hops, "a.d.example 192.0.2.1:25, b.d.example 192.0.2.2:25");
    assert_int_equal(got.tls[0], ROUTE_TLS_OPPORTUNISTIC);
    resolve_for(NEXT_HOP_TLS_OPTIONAL, sim_route_mx("d.example"), ROUTE_TLS_VERIFY);
    assert_int_equal(got.tls[0], ROUTE_TLS_VERIFY); /* the operator's */
}

static void test_balance(void **state)
{
    unsigned first[3] = { 0 };
    out_start();
    for (int pass = 0; pass < 2; pass++) {
        memset(first, 0, sizeof first);
        for (int i = 0; i < 90; i++) {
            struct route *r = sim_route_hosts("192.0.2.1, 192.0.2.2, 192.0.2.3", false);
            r->balance = pass ? ROUTE_RANDOM : ROUTE_ROUND_ROBIN;
            resolve(r);
            assert_int_equal(got.n, 3);
            first[got.hops[8] - '1']++;
        }
        for (int i = 0; i < 3; i++)
            assert_in_range(first[i], pass ? 15 : 30, pass ? 45 : 30);
    }
}

static void test_cancelled(void **state)
{
    struct route *r = sim_route_mx("d.example");
    out_start();
    got.done = false;
    next_hop_cancel(next_hop_resolve(engine0(), r, set, on_done, NULL));
    sim_world_advance(w, SIM_MINUTE);
    assert_false(got.done);
    route_unref(r);
}

#define WITH_WORLD(t) cmocka_unit_test_setup_teardown(t, out_setup, out_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_B1_sorted_by_preference_and_self_by_name_or_address),
        cmocka_unit_test(test_B2_equal_and_worse_preferences_are_discarded),
        cmocka_unit_test(test_B3_self_is_the_best),
        cmocka_unit_test(test_B4_a_better_one_without_address_is_waited_for),
        cmocka_unit_test(test_B5_not_listed_is_never_any_mx),
        WITH_WORLD(test_B5_unknown_addresses_say_nothing_definite),
        cmocka_unit_test(test_B6_no_null_or_absent_mx),
        cmocka_unit_test(test_B8_cname_and_literal),
        cmocka_unit_test(test_loopback),
        WITH_WORLD(test_broken_names),
        WITH_WORLD(test_loopback_allowed),
        WITH_WORLD(test_many_mx),
        WITH_WORLD(test_Q5_both_families_among_the_first),
        WITH_WORLD(test_Q5_one_family_does_not_crowd_out_the_other),
        WITH_WORLD(test_S3_H1_H8_targets),
        WITH_WORLD(test_H4_S5_target_without_address_waits),
        WITH_WORLD(test_H4_S5_own_listener),
        WITH_WORLD(test_requiretls_needs_a_secure_mx),
        WITH_WORLD(test_requiretls_waits_for_what_is_not_known),
        WITH_WORLD(test_requiretls_to_hosts_that_are_named),
        WITH_WORLD(test_a_notification_goes_to_all),
        WITH_WORLD(test_tls_required_no_does_not_ask_for_dane),
        WITH_WORLD(test_balance),
        WITH_WORLD(test_S8_dane_by_the_name_behind_cnames),
        WITH_WORLD(test_S8_dane_by_the_alias_itself),
        WITH_WORLD(test_S8_dane_needs_each_answer_to_be_secure),
        WITH_WORLD(test_S8_dane_records_that_cannot_be_used_require_tls),
        WITH_WORLD(test_S8_dane_unknown_records_keep_a_host_out),
        WITH_WORLD(test_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
