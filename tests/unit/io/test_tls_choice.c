/* Certificates chosen by name; keys of tickets; sessions that are taken up again, and those that are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "certificate.h"
#include "io/stream.h"
#include "io/tls_sessions.h"
#include "io/tls_tickets.h"
#include "world.h"

static struct world world;
static struct end server, client;
static char dir[] = "/tmp/tern-tls-XXXXXX";
static const char *const files[] = { "mx", "star", "exact", "expired" };

static char *path_of(const char *name, const char *end)
{
    static char path[8][128];
    static unsigned next;
    char *p = path[next++ % 8];

    snprintf(p, sizeof(path[0]), "%s/%s.%s", dir, name, end);
    return p;
}

static void make(const char *name, const char *common_name, const char *names, long to_s)
{
    certificate_write(path_of(name, "pem"), path_of(name, "key"), common_name, names, -1000, to_s);
}

static int make_files(void **state)
{
    assert_non_null(mkdtemp(dir));
    make("mx", "mx.example", "DNS:mx.example", 86400);
    make("star", "star", "DNS:*.star.example,DNS:STAR.example", 86400);
    make("exact", "exact", "DNS:a.star.example", 86400);
    make("expired", "expired", "IP:192.0.2.1", -500); /* no DNS name: its common name counts */
    return 0;
}

static int remove_files(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        unlink(path_of(files[i], "pem"));
        unlink(path_of(files[i], "key"));
    }
    rmdir(dir);
    return 0;
}

static void add(struct tls_context *c, const char *name, const struct str *names, size_t n)
{
    char error[TLS_ERROR_TEXT] = "";

    if (tls_context_add(c, "tls.certificates[1]", str_of(path_of(name, "pem")),
                        str_of(path_of(name, "key")), names, n, error) < 0)
        fail_msg("%s", error);
}

/* Trusts "mx" only. */
static struct tls_context *context(void)
{
    char error[TLS_ERROR_TEXT] = "";
    struct tls_context *c = NULL;
    char *mx = path_of("mx", "pem");

    if (tls_context_new(str_of(mx), str_of(path_of("mx", "key")), str_of(mx), &c, error) < 0)
        fail_msg("%s", error);
    return c;
}

static int setup(void **state)
{
    static const struct str given[] = { STR("given.example") };
    struct tls_context *c = context();

    add(c, "star", NULL, 0);
    add(c, "exact", NULL, 0);
    add(c, "expired", given, 1);
    world_open(&world, c);
    tls_context_unref(c);
    world_listen(&world, "127.0.0.1", LISTEN_TLS_IMPLICIT, &server);
    return 0;
}

static int teardown(void **state)
{
    world_close(&world);
    return 0;
}

static struct str shown = { NULL, 0 }; /* which certificate of its own the client shows */

/* One connection; then `client` tells. */
static void shake(const char *name, enum tls_verify verify)
{
    const struct tls_request req = { .name = str_of(name), .verify = verify, .certificate = shown };

    end_init(&server, &world);
    end_init(&client, &world);
    server.greeting = "220 hello\r\n";
    end_dial(&client, &world.at);
    world_until(&world, end_opened, &client);
    client.in_call = true;
    assert_int_equal(stream_starttls(client.s, &req), 0);
    client.in_call = false;
    world_until(&world, end_has_data, &client); /* behind the greeting there are tickets, too */
    assert_int_equal(client.resumed, server.resumed);
    end_close(&client);
    world_until(&world, end_closed, &server);
    end_done(&server);
    end_done(&client);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void expect(const char *name, const char *subject)
{
    shake(name, TLS_VERIFY_NONE);
    assert_string_equal(client.subject, subject);
}

static void test_chosen_by_name(void **state)
{
    expect("mx.example", "CN=mx.example");
    expect("", "CN=mx.example");
    expect("nobody.example", "CN=mx.example");
    expect("star.example", "CN=star");
    expect("b.star.example", "CN=star");
    expect("B.Star.EXAMPLE", "CN=star");
    expect("a.star.example", "CN=exact");        /* before the wildcard */
    expect("c.b.star.example", "CN=mx.example"); /* it stands for one label */
    expect("given.example", "CN=expired");
    expect("expired", "CN=mx.example"); /* names that are given replace those in it */
}

static void test_told_to_operators(void **state)
{
    struct tls_context *c = context();

    add(c, "star", NULL, 0);
    add(c, "expired", NULL, 0);
    assert_int_equal(tls_context_certificates(c), 3);
    assert_true(str_eq(tls_context_certificate(c, 1)->names, STR("*.star.example, star.example")));
    assert_true(str_eq(tls_context_certificate(c, 2)->names, STR("expired")));
    assert_string_equal(tls_context_certificate(c, 0)->key_type, "EC");
    assert_true(tls_context_certificate(c, 2)->not_after < time(NULL));
    assert_true(tls_context_certificate(c, 0)->not_after > time(NULL));
    tls_context_unref(c);
}

static void test_faults_name_their_place(void **state)
{
    struct tls_context *c = context();
    char error[TLS_ERROR_TEXT];

    assert_int_equal(tls_context_add(c, "tls.certificates[2]", STR("/nonexistent.pem"), STR("/x"),
                                     NULL, 0, error),
                     -ENOENT);
    assert_string_equal(error,
                        "tls.certificates[2].cert /nonexistent.pem: No such file or directory");
    assert_int_equal(tls_context_add(c, "tls.certificates[2]", str_of(path_of("star", "pem")),
                                     str_of(path_of("mx", "key")), NULL, 0, error),
                     -EINVAL);
    assert_non_null(strstr(error, "star.pem"));
    assert_non_null(strstr(error, "mx.key does not belong to"));
    assert_int_equal(tls_context_add_client_ca(c, "listen[1]", STR("/nonexistent.pem"), error),
                     -ENOENT);
    assert_string_equal(error, "listen[1].client_ca /nonexistent.pem: No such file or directory");
    assert_int_equal(tls_context_add_client_ca(c, "listen[1]", str_of(path_of("mx", "key")), error),
                     -EINVAL);
    tls_context_unref(c);
}

/* ---- sessions taken up again ----------------------------------------------------------------- */

static void test_taken_up_again(void **state)
{
    shake("mx.example", TLS_VERIFY_NAME);
    assert_false(client.resumed);
    for (int i = 0; i < 3; i++) {
        shake("mx.example", TLS_VERIFY_NAME);
        assert_true(client.resumed);
        assert_true(client.verified);
        assert_string_equal(client.subject, "CN=mx.example");
    }
}

/* What one policy found good enough does not count for another. */
static void test_not_across_policies(void **state)
{
    shake("star.example", TLS_VERIFY_NONE);
    assert_false(client.verified);
    shake("mx.example", TLS_VERIFY_NONE);
    assert_false(client.resumed);
    shake("mx.example", TLS_VERIFY_NAME);
    assert_false(client.resumed);
    shake("", TLS_VERIFY_NONE);
    assert_false(client.resumed);
    shake("star.example", TLS_VERIFY_NONE);
    assert_true(client.resumed);
    assert_false(client.verified); /* it was not then, it is not now */
    assert_int_equal(tls_sessions_count(world.net->sessions), 4);
}

/* Nor after a reload: other authorities may be trusted. The server's tickets go on, if it says so. */
static void test_not_across_reloads(void **state)
{
    struct tls_context *c = context();

    shake("mx.example", TLS_VERIFY_NAME);
    tls_context_continue(c, world.net->tls);
    io_net_set_tls(world.net, c);
    tls_context_unref(c);
    assert_int_equal(tls_sessions_count(world.net->sessions), 0);
    shake("mx.example", TLS_VERIFY_NAME);
    assert_false(client.resumed);
    shake("mx.example", TLS_VERIFY_NAME);
    assert_true(client.resumed);
}

static void add_own(struct tls_context *c, const char *name)
{
    char error[TLS_ERROR_TEXT] = "";

    if (tls_context_add_own(c, "tern.lua:3", str_of(path_of(name, "pem")),
                            str_of(path_of(name, "key")), error) < 0)
        fail_msg("%s", error);
}

/* Our certificate for hosts: who asks sees the one that the connection is to show, and a session that began with one is
 * taken up again with no other. */
static void test_own_certificates(void **state)
{
    static const char *const order[] = { "star", "exact", "star", NULL, "exact", NULL };
    static const bool again[] = { false, false, true, false, true, true };
    struct tls_context *c = context();

    add_own(c, "star");
    add_own(c, "exact");
    io_net_set_tls(world.net, c);
    tls_context_unref(c);
    world.listen.clients = LISTEN_CLIENTS_ASK;
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        shown = order[i] ? str_of(path_of(order[i], "pem")) : STR_NONE;
        shake("mx.example", TLS_VERIFY_NAME);
        shown = STR_NONE;
        assert_true(client.verified);
        assert_int_equal(client.resumed, again[i]);
        char subject[40] = "";
        if (order[i])
            snprintf(subject, sizeof(subject), "CN=%s", order[i]);
        assert_string_equal(server.subject, subject);
    }
    world.listen.clients = LISTEN_CLIENTS_NONE; /* it is not forced upon anybody */
    shown = str_of(path_of("star", "pem"));
    shake("mx.example", TLS_VERIFY_NAME);
    shown = STR_NONE;
    assert_string_equal(server.subject, "");
}

static void test_own_certificates_that_are_not_there(void **state)
{
    struct tls_request req = { .name = STR("mx.example"), .certificate = STR("/nonexistent.pem") };
    struct tls_context *c = context();
    char error[TLS_ERROR_TEXT];

    assert_int_equal(
        tls_context_add_own(c, "tern.lua:3", STR("/nonexistent.pem"), STR("/x"), error), -ENOENT);
    assert_string_equal(error, "route.certificate /nonexistent.pem: No such file or directory");
    assert_int_equal(tls_context_add_own(c, "tern.lua:3", str_of(path_of("star", "pem")),
                                         str_of(path_of("mx", "key")), error),
                     -EINVAL);
    assert_non_null(strstr(error, "mx.key does not belong to route.certificate "));
    assert_int_equal(tls_context_certificates(c), 1);
    add_own(c, "expired");
    assert_int_equal(tls_context_certificates(c), 2);
    assert_true(str_eq(tls_context_certificate(c, 1)->place, STR("tern.lua:3")));
    assert_true(str_empty(tls_context_certificate(c, 0)->place));
    tls_context_unref(c);

    end_init(&server, &world);
    end_init(&client, &world);
    end_dial(&client, &world.at);
    world_until(&world, end_opened, &client);
    assert_int_equal(stream_starttls(client.s, &req), -ENOENT);
    end_close(&client);
    world_until(&world, end_closed, &server);
    end_done(&server);
    end_done(&client);
}

/* A listener that asks for certificates takes no session of one that does not. */
static void test_not_across_listeners(void **state)
{
    shake("mx.example", TLS_VERIFY_NAME);
    world.listen.clients = LISTEN_CLIENTS_ASK;
    shake("mx.example", TLS_VERIFY_NAME);
    assert_false(client.resumed);
    shake("mx.example", TLS_VERIFY_NAME);
    assert_true(client.resumed);
}

/* ---- the cache ------------------------------------------------------------------------------- */

enum { NOW = 1000000 };

static SSL_SESSION *session(uint8_t number, long since)
{
    SSL_SESSION *s = SSL_SESSION_new();

    assert_int_equal(SSL_SESSION_set1_id(s, &number, 1), 1);
    SSL_SESSION_set_time(s, since);
    SSL_SESSION_set_timeout(s, 600);
    return s;
}

static int number_of(SSL_SESSION *s)
{
    unsigned n;
    int number = s ? SSL_SESSION_get_id(s, &n)[0] : -1;

    SSL_SESSION_free(s);
    return number;
}

static void test_cache_of_sessions(void **state)
{
    struct tls_sessions *c = tls_sessions_new();
    uint8_t key[TLS_SESSIONS_KEY] = { 1 }, other[TLS_SESSIONS_KEY] = { 2 };

    for (uint8_t i = 1; i <= TLS_SESSIONS_EACH + 1; i++)
        tls_sessions_put(c, key, session(i, NOW), NOW);
    assert_int_equal(number_of(tls_sessions_take(c, other, NOW)), -1);
    for (int i = TLS_SESSIONS_EACH + 1; i > 1; i--) /* the newest first; the oldest had to go */
        assert_int_equal(number_of(tls_sessions_take(c, key, NOW)), i);
    assert_int_equal(number_of(tls_sessions_take(c, key, NOW)), -1);
    assert_int_equal(tls_sessions_count(c), 0);

    tls_sessions_put(c, key, session(1, NOW), NOW);
    assert_int_equal(number_of(tls_sessions_take(c, key, NOW + 600)), -1); /* too old */
    assert_int_equal(tls_sessions_count(c), 0);
    tls_sessions_put(c, key, session(1, NOW - 600), NOW);
    assert_int_equal(tls_sessions_count(c), 0);
    tls_sessions_put(c, key, SSL_SESSION_new(), NOW); /* one that cannot be taken up */
    assert_int_equal(tls_sessions_count(c), 0);

    for (unsigned i = 0; i < 2 * TLS_SESSIONS_MAX; i++) {
        memcpy(key, &i, sizeof(i));
        tls_sessions_put(c, key, session(1, NOW), NOW);
        assert_true(tls_sessions_count(c) <= TLS_SESSIONS_MAX);
    }
    assert_int_equal(number_of(tls_sessions_take(c, key, NOW)), 1);
    unsigned first = 0;
    memcpy(key, &first, sizeof(first));
    assert_int_equal(number_of(tls_sessions_take(c, key, NOW)), -1);
    tls_sessions_clear(c);
    assert_int_equal(tls_sessions_count(c), 0);
    tls_sessions_free(c);
}

static void test_keys_of_sessions(void **state)
{
    struct net_addr a, b;
    struct tls_request req = { .name = STR("mx.example") };
    uint8_t key[7][TLS_SESSIONS_KEY];

    net_addr_parse(STR("192.0.2.1:25"), 0, &a);
    net_addr_parse(STR("192.0.2.1:26"), 0, &b);
    assert_true(tls_sessions_key(&a, &a, &req, key[0]));
    assert_true(tls_sessions_key(&b, &a, &req, key[1])); /* our own port does not count */
    assert_memory_equal(key[0], key[1], TLS_SESSIONS_KEY);
    tls_sessions_key(&a, &b, &req, key[1]);
    req.verify = TLS_VERIFY_DANE;
    tls_sessions_key(&a, &a, &req, key[2]);
    req.dane = STR("one");
    tls_sessions_key(&a, &a, &req, key[3]);
    req.dane = STR("two");
    tls_sessions_key(&a, &a, &req, key[4]);
    req.name = STR("mx2.example");
    tls_sessions_key(&a, &a, &req, key[5]);
    net_addr_parse(STR("192.0.2.2:25"), 0, &b);
    tls_sessions_key(&b, &a, &req, key[6]);
    for (size_t i = 0; i < ARRAY_LEN(key); i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(key[i], key[j], TLS_SESSIONS_KEY);
}

/* ---- tickets --------------------------------------------------------------------------------- */

static void test_keys_of_tickets(void **state)
{
    struct tls_tickets *t = tls_tickets_new();
    struct tls_ticket_key first, k;

    assert_true(tls_tickets_seal(t, 0, &first));
    assert_true(tls_tickets_seal(t, TLS_TICKET_ROTATE_S - 1, &k));
    assert_memory_equal(first.name, k.name, TLS_TICKET_NAME);
    assert_int_equal(tls_tickets_open(t, TLS_TICKET_ROTATE_S - 1, first.name, &k), 1);
    assert_memory_equal(first.aes, k.aes, sizeof(k.aes));
    /* Then another seals; the first still opens, as long as a ticket of its last moment lives. */
    assert_true(tls_tickets_seal(t, TLS_TICKET_ROTATE_S, &k));
    assert_memory_not_equal(first.name, k.name, TLS_TICKET_NAME);
    assert_memory_not_equal(first.aes, k.aes, sizeof(k.aes));
    for (int64_t now = TLS_TICKET_ROTATE_S; now < TLS_TICKET_ROTATE_S + TLS_TICKET_LIFE_S;
         now += 60) {
        assert_true(tls_tickets_seal(t, now, &k));
        assert_int_equal(tls_tickets_open(t, now, first.name, &k), 2);
    }
    assert_int_equal(tls_tickets_open(t, TLS_TICKET_ROTATE_S + TLS_TICKET_LIFE_S, first.name, &k),
                     0);
    /* Idle for a day: a new one. */
    assert_true(tls_tickets_seal(t, 86400, &k));
    assert_int_equal(k.since_s, 86400);
    assert_int_equal(tls_tickets_open(t, 86400, (const uint8_t *)"sixteen octets..", &k), 0);
    tls_tickets_unref(t);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_chosen_by_name),
        cmocka_unit_test(test_told_to_operators),
        cmocka_unit_test(test_faults_name_their_place),
        T(test_taken_up_again),
        T(test_not_across_policies),
        T(test_not_across_reloads),
        T(test_own_certificates),
        T(test_own_certificates_that_are_not_there),
        T(test_not_across_listeners),
        cmocka_unit_test(test_cache_of_sessions),
        cmocka_unit_test(test_keys_of_sessions),
        cmocka_unit_test(test_keys_of_tickets),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
