/* test_session_in_extensions.c - sessions of clients that say STARTTLS, ETRN, XCLIENT, or come behind a PROXY header. */
#include "unit/engine/session_in_world.h"

/* ---- TLS ---- */

static void secure(struct world *w)
{
    const struct tls_facts facts = { .version = STR("TLSv1.3"), .cipher = STR("AES") };

    w->stream.s.ev->secured(&w->stream.s, w->stream.s.owner, &facts);
    settle(w);
}

static void test_starttls(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    connect_from(w, STRANGER);
    assert_non_null(strstr(say(w, HELLO), "STARTTLS"));
    assert_string_equal(say(w, "STARTTLS\r\n"), "220 2.0.0 Ready to start TLS\r\n");
    assert_int_equal(w->stream.tls_starts, 1);
    secure(w);
    assert_memory_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), "503", 3);
    assert_null(strstr(say(w, HELLO), "STARTTLS"));
    say(w, TO_OWN "DATA\r\n");
    assert_memory_equal(say(w, ".\r\n"), "250", 3);
    assert_true(str_find(content_of(w, 0), STR(" with ESMTPS\r\n\t(TLSv1.3 AES)\r\n")) > 0);
    assert_logged(w, "tls=1");
    assert_memory_equal(say(w, "STARTTLS\r\n"), "503", 3);
}

static void test_starttls_injection(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    connect_from(w, STRANGER);
    said(w);
    say(w, HELLO);
    assert_non_null(strstr(say(w, "STARTTLS\r\nEHLO evil.example\r\n"), "554 5.5.0"));
    assert_true(w->stream.closed);
    assert_int_equal(w->stream.tls_starts, 0);
}

static void test_tls_not_to_be_had(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    w->listener.tls = LISTEN_TLS_NONE;
    connect_from(w, STRANGER);
    assert_null(strstr(say(w, HELLO), "STARTTLS"));
    w->listener.tls = LISTEN_TLS_OFFER;
    connect_from(w, STRANGER);
    say(w, HELLO);
    w->serves_tls = false;
    assert_memory_equal(say(w, "STARTTLS\r\n"), "454 4.7.0", 9);
    connect_from(w, STRANGER);
    assert_null(strstr(say(w, HELLO), "STARTTLS"));
}

static void test_tls_required(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    w->listener.tls = LISTEN_TLS_REQUIRE;
    greeted(w, STRANGER);
    assert_memory_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), "530 5.7.0", 9);
    say(w, "STARTTLS\r\n");
    secure(w);
    say(w, HELLO);
    assert_string_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), OK_MAIL);
}

static void test_tls_implicit(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    w->listener.tls = LISTEN_TLS_IMPLICIT;
    w->listener.service = STR("submission");
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "");
    assert_int_equal(w->stream.tls_starts, 1);
    secure(w);
    assert_memory_equal(said(w), "220 ", 4);
    assert_null(strstr(say(w, HELLO), "STARTTLS"));
    assert_string_equal(say(w, "MAIL FROM:<a@b.example>\r\n"), OK_MAIL);
    w->stream.s.ev->closed(&w->stream.s, w->stream.s.owner, -EPROTO, "TLS: bad record");
    assert_logged(w, "why=TLS: bad record");
}

static void test_I506_handshake_deadline(void **state)
{
    struct world *w = *state;

    w->serves_tls = true;
    greeted(w, STRANGER);
    say(w, "STARTTLS\r\n");
    pass(w, 300 * 1000);
    assert_true(w->stream.aborted);
    assert_logged(w, "why=timeout in the TLS handshake");
}

/* ---- ETRN ---- */

static struct hook_result etrn_result;

static void on_etrn(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    (void)w;
    assert_non_null(in->etrn);
    assert_int_equal(in->etrn->origin, ETRN_CLIENT);
    if (!in->etrn->option)
        assert_true(str_eq(in->etrn->domain, STR("shop.example")));
    r->verdict = etrn_result.verdict;
    r->reply = etrn_result.reply;
    r->queue = STR("shop.example");
    r->window_ms = 1234;
    if (r->verdict == VERDICT_RELEASE)
        r->route = route_new(ROUTE_HOLD);
}

static void test_E3_E4_etrn(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    connect_from(w, STRANGER);
    assert_non_null(strstr(say(w, HELLO), "ETRN"));
    etrn_result.verdict = VERDICT_NONE;
    assert_string_equal(say(w, "ETRN Shop.example\r\n"),
                        "459 4.7.1 Node Shop.example not allowed\r\n");
    etrn_result.verdict = VERDICT_REJECT;
    etrn_result.reply = REPLY(530, ENH(5, 7, 0), "authenticate first");
    assert_string_equal(say(w, "ETRN shop.example\r\n"), "530 5.7.0 authenticate first\r\n");
    etrn_result.verdict = VERDICT_FAILED;
    assert_string_equal(say(w, "ETRN shop.example\r\n"),
                        "458 4.3.0 Unable to queue messages for node shop.example\r\n");
    etrn_result.verdict = VERDICT_RELEASE;
    assert_string_equal(say(w, "ETRN shop.example\r\n"),
                        "251 2.0.0 OK, no messages waiting for node shop.example\r\n");
    str_copy(STR("shop.example"), w->queue.name, sizeof(w->queue.name));
    w->queue_result = -EIO;
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "458 4.3.0", 9);
    w->queue_result = 0;
    w->queue.waiting = 17;
    assert_null(w->command);
    assert_string_equal(say(w, "ETRN SHOP.example\r\n"), "");
    assert_non_null(w->command);
    assert_int_equal(w->command->type, QUEUE_RELEASE);
    assert_string_equal(w->command->queue, "shop.example");
    assert_int_equal(w->command->window_ms, 1234);
    assert_non_null(w->command->route);
    answer_command(w, 0, 17, false);
    assert_string_equal(said(w),
                        "253 2.0.0 OK, 17 pending messages for node SHOP.example started\r\n");
    assert_logged(w, "etrn session=1 client=203.0.113.9 identity= by=client domain=SHOP.example "
                     "code=253 messages=17");
}

/* What the queue's owner says of one that is running already. */
static void test_E3_E10_etrn_again(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    etrn_result.verdict = VERDICT_RELEASE;
    str_copy(STR("shop.example"), w->queue.name, sizeof(w->queue.name));
    w->queue.waiting = 17;
    greeted(w, STRANGER);
    say(w, "ETRN shop.example\r\n");
    answer_command(w, 0, 16, true);
    assert_string_equal(said(w),
                        "252 2.0.0 OK, pending messages for node shop.example started\r\n");
    say(w, "ETRN shop.example\r\n");
    answer_command(w, -EBUSY, 0, false);
    assert_string_equal(said(w), "458 4.3.0 Unable to queue messages for node shop.example: "
                                 "already running\r\n");
    say(w, "ETRN shop.example\r\n");
    answer_command(w, -EPERM, 0, false);
    assert_string_equal(said(w), "458 4.3.0 Unable to queue messages for node shop.example\r\n");
    /* Gone before the owner says anything. */
    say(w, "ETRN shop.example\r\n");
    hang_up(w);
    answer_command(w, 0, 17, false);
}

/* Who is not authenticated is told the same of each domain, when some of them ask for it. */
static void test_E3_E4_etrn_of_the_authenticated(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = w->hooks.etrn_wants_identity = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    etrn_result.verdict = VERDICT_NONE;
    greeted(w, STRANGER);
    assert_string_equal(say(w, "ETRN shop.example\r\n"),
                        "530 5.7.0 Authentication required for node shop.example\r\n");
    etrn_result.verdict = VERDICT_RELEASE;
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "251", 3);
}

static void test_E10_etrn_limits(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    etrn_result.verdict = VERDICT_NONE;
    w->settings->limits.etrn_per_session = 3;
    w->settings->limits.etrn_per_client = 5;
    greeted(w, STRANGER);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(say(w, "ETRN shop.example\r\n"), "459", 3);
    assert_string_equal(say(w, "ETRN shop.example\r\n"),
                        "458 4.7.0 Too many requests, try again later\r\n");
    greeted(w, STRANGER);
    for (int i = 0; i < 2; i++)
        assert_memory_equal(say(w, "ETRN shop.example\r\n"), "459", 3);
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "458 4.7.0", 9);
    greeted(w, "203.0.113.10");
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "459", 3);
    w->now += 3600 * 1000; /* a new hour */
    greeted(w, STRANGER);
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "459", 3);
    /* Thousands of clients do not take more memory: some of them are forgotten. */
    for (uint32_t i = 0; i < 20000; i++) {
        struct net_addr a = { .family = NET_IPV6, .ip = { 0x20, 1, 0xd, 0xb8 } };
        a.ip[6] = (uint8_t)(i >> 8);
        a.ip[7] = (uint8_t)i;
        assert_true(etrn_client_may(&w->e, &a));
    }
    struct net_addr one = { .family = NET_IPV6, .ip = { 0x20, 2 } };
    for (uint8_t i = 0; i < 5; i++) { /* a network of a client's own counts as one */
        one.ip[15] = i;
        assert_true(etrn_client_may(&w->e, &one));
    }
    assert_false(etrn_client_may(&w->e, &one));
}

static void test_etrn_that_waits(void **state)
{
    struct world *w = *state;

    w->hooks.offers_etrn = true;
    have_hook(w, HOOK_ETRN, on_etrn);
    w->wait[HOOK_ETRN] = true;
    etrn_result.verdict = VERDICT_NONE;
    greeted(w, STRANGER);
    assert_string_equal(say(w, "ETRN @shop.example\r\n"), "");
    answer_hook(w);
    assert_string_equal(said(w), "459 4.7.1 Node @shop.example not allowed\r\n");
    say(w, "ETRN #queue\r\n");
    hang_up(w);
    assert_int_equal(w->cancels, 1);
    /* Gone between the hook's answer and the reply. */
    w->wait[HOOK_ETRN] = false;
    greeted(w, STRANGER);
    buf_add_str(&w->stream.in, STR("ETRN shop.example\r\n"));
    stream_step(w);
    hang_up(w);
}

static void test_E1_etrn_is_not_offered(void **state)
{
    struct world *w = *state;

    greeted(w, STRANGER);
    assert_memory_equal(say(w, "ETRN shop.example\r\n"), "502", 3);
    w->hooks.offers_etrn = true;
    w->listener.service = STR("submission");
    connect_from(w, STRANGER);
    assert_null(strstr(say(w, HELLO), "ETRN"));
}

/* ---- PROXY and XCLIENT ---- */

#define BALANCER "10.0.0.5"
#define TOLD     "PROXY TCP4 203.0.113.9 192.0.2.25 4711 25\r\n"

static void behind_balancer(struct world *w)
{
    static struct net_cidr nets[1];

    assert_int_equal(net_cidr_parse(STR(BALANCER), &nets[0]), 0);
    w->listener.proxy = nets;
    w->listener.n_proxy = 1;
}

static void test_proxy_header(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    connect_from(w, BALANCER);
    for (const char *p = TOLD; *p; p++) {
        char octet[2] = { *p, 0 };
        assert_int_equal(w->asked[HOOK_CONNECT], 0);
        const char *got = say(w, octet);
        assert_string_equal(got, p[1] ? "" : "220 mx.own.example ESMTP Tern\r\n");
    }
    say(w, HELLO);
    say(w, TO_OWN "DATA\r\n");
    say(w, "\r\nx\r\n.\r\n");
    assert_true(str_find(content_of(w, 0), STR("([203.0.113.9])")) > 0);
    assert_logged(w,
                  "session_opened session=1 client=203.0.113.9 listener=0.0.0.0:25 proxy=10.0.0.5");
    assert_logged(w, "client=203.0.113.9 helo=client.example");
}

static void test_proxy_header_of_others(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    connect_from(w, STRANGER);
    assert_string_equal(said(w), "220 mx.own.example ESMTP Tern\r\n");
    assert_memory_equal(say(w, TOLD), "500 5.5.2 ", 10);
}

static void test_proxy_header_bad(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    connect_from(w, BALANCER);
    assert_string_equal(say(w, HELLO), "");
    assert_true(w->stream.aborted);
    assert_int_equal(w->asked[HOOK_CONNECT], 0);
    assert_logged(
        w, "proxy_header_bad session=1 client=10.0.0.5 listener=0.0.0.0:25 why=no PROXY header");
}

static void test_proxy_header_deadline(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    connect_from(w, BALANCER);
    say(w, "PROXY TCP4 203");
    w->now += w->settings->timeouts.proxy_ms - 1;
    settle(w);
    assert_false(w->stream.aborted);
    say(w, ".0"); /* what trickles in moves nothing */
    w->now += 1;
    settle(w);
    assert_true(w->stream.aborted);
    assert_string_equal(said(w), "");
    assert_logged(w, "why=timeout before the PROXY header");
}

/* TLS from the first byte begins behind the header. */
static void test_proxy_header_before_tls(void **state)
{
    struct world *w = *state;

    behind_balancer(w);
    w->serves_tls = true;
    w->listener.tls = LISTEN_TLS_IMPLICIT;
    connect_from(w, BALANCER);
    assert_int_equal(w->stream.tls_starts, 0);
    say(w, TOLD);
    assert_int_equal(w->stream.tls_starts, 1);
}

static void test_xclient(void **state)
{
    struct world *w = *state;
    static struct net_cidr filter;

    assert_int_equal(net_cidr_parse(STR("10.0.0.9"), &filter), 0);
    w->settings->xclient_from = &filter;
    w->settings->n_xclient_from = 1;
    greeted(w, STRANGER);
    assert_memory_equal(say(w, "XCLIENT ADDR=192.0.2.7\r\n"), "550 5.7.1 ", 10);
    greeted(w, "10.0.0.9");
    assert_string_equal(say(w, "XCLIENT ADDR=192.0.2.7 LOGIN=ana\r\n"),
                        "220 mx.own.example ESMTP Tern\r\n");
    assert_int_equal(w->sessions_closed,
                     2); /* the stranger's, and what policies kept of this one */
    say(w, HELLO);
    say(w, "MAIL FROM:<a@b.example>\r\n");
    assert_string_equal(say(w, "RCPT TO:<x@far.example>\r\n"), OK_RCPT); /* ana may relay */
    say(w, "RSET\r\nXCLIENT ADDR=203.0.113.1 LOGIN=[UNAVAILABLE]\r\n");
    say(w, HELLO "MAIL FROM:<a@b.example>\r\n");
    assert_string_equal(say(w, "RCPT TO:<x@far.example>\r\n"), DENIED);
    assert_logged(w, "xclient session=2 client=192.0.2.7 identity=ana proxy=10.0.0.9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_starttls),
        T(test_starttls_injection),
        T(test_tls_not_to_be_had),
        T(test_tls_required),
        T(test_tls_implicit),
        T(test_I506_handshake_deadline),
        T(test_E3_E4_etrn),
        T(test_E3_E10_etrn_again),
        T(test_E3_E4_etrn_of_the_authenticated),
        T(test_E10_etrn_limits),
        T(test_etrn_that_waits),
        T(test_E1_etrn_is_not_offered),
        T(test_proxy_header),
        T(test_proxy_header_of_others),
        T(test_proxy_header_bad),
        T(test_proxy_header_deadline),
        T(test_proxy_header_before_tls),
        T(test_xclient),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
