/* TLS: both sides against each other, against garbage, and against openssl s_client where there
 * is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <cmocka.h>

#include "certificate.h"
#include "io/stream.h"
#include "proto/dane.h"
#include "world.h"

static struct world world;
static struct end server, client;
static char dir[] = "/tmp/tern-tls-XXXXXX";

/* ---- certificates ---------------------------------------------------------------------------- */

static char *path_of(const char *name)
{
    static char path[8][128];
    static unsigned next;
    char *p = path[next++ % 8];

    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    return p;
}

/* <name>.pem and <name>.key: self-signed, hence also a root that can be trusted. */
static void make_certificate(const char *name, const char *common_name, const char *names,
                             long from_s, long to_s)
{
    char cert[64], key[64];

    snprintf(cert, sizeof(cert), "%s.pem", name);
    snprintf(key, sizeof(key), "%s.key", name);
    certificate_write(path_of(cert), path_of(key), common_name, names, from_s, to_s);
}

static struct tls_context *context(const char *cert, const char *ca)
{
    char c[64], k[64], error[TLS_ERROR_TEXT] = "";
    struct tls_context *ret = NULL;

    snprintf(c, sizeof(c), "%s.pem", cert);
    snprintf(k, sizeof(k), "%s.key", cert);
    char *ca_file = ca ? path_of(ca) : NULL;
    int r = tls_context_new(str_of(path_of(c)), str_of(path_of(k)), str_of(ca_file), &ret, error);
    if (r < 0)
        fail_msg("%s", error);
    return ret;
}

static int make_files(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    make_certificate("good", "mx.example.org\nEvil: yes", "DNS:mx.example.org,IP:127.0.0.1", -1000,
                     86400);
    make_certificate("expired", "mx.example.org", "DNS:mx.example.org", -5000, -1000);
    FILE *f = fopen(path_of("junk.pem"), "w");
    fputs("not a certificate\n", f);
    fclose(f);
    return 0;
}

static int remove_files(void **state)
{
    static const char *const names[] = { "good.pem", "good.key", "expired.pem", "expired.key",
                                         "junk.pem" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unlink(path_of(names[i]));
    rmdir(dir);
    return 0;
}

static int setup(void **state)
{
    struct tls_context *tls = context("good", "good.pem");

    (void)state;
    world_open(&world, tls);
    tls_context_unref(tls);
    end_init(&server, &world);
    end_init(&client, &world);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    end_done(&server);
    end_done(&client);
    world_close(&world);
    return 0;
}

static void connect_both(enum listen_tls tls)
{
    world_listen(&world, "127.0.0.1", tls, &server);
    end_dial(&client, &world.at);
    world_until(&world, end_opened, &client);
    world_until(&world, end_accepted, &server);
}

static void start_client(const char *name, enum tls_verify verify)
{
    const struct tls_request req = { .name = str_of(name), .verify = verify };

    client.in_call = true;
    assert_int_equal(stream_starttls(client.s, &req), 0);
    client.in_call = false;
}

static void start_server(void)
{
    server.in_call = true;
    assert_int_equal(stream_starttls(server.s, &(struct tls_request){ .server = true }), 0);
    server.in_call = false;
}

static size_t awaited;
static bool client_got_all(void *arg)
{
    (void)arg;
    return buf_len(&client.got) >= awaited;
}
static bool all_gone(void *arg)
{
    (void)arg;
    return io_net_streams(world.net) == 0;
}

/* ---- contexts -------------------------------------------------------------------------------- */

static void expect_fault(const char *cert, const char *key, const char *ca, int error,
                         const char *words)
{
    char text[TLS_ERROR_TEXT] = "";
    struct tls_context *c = NULL;

    assert_int_equal(tls_context_new(str_of(cert), str_of(key), str_of(ca), &c, text), error);
    assert_null(c);
    if (!strstr(text, words))
        fail_msg("\"%s\" does not say \"%s\"", text, words);
}

static void test_context_faults(void **state)
{
    struct tls_context *c;
    char text[TLS_ERROR_TEXT];

    (void)state;
    expect_fault("/nonexistent.pem", NULL, NULL, -ENOENT,
                 "tls.cert /nonexistent.pem: No such file");
    expect_fault(path_of("junk.pem"), NULL, NULL, -EINVAL, "tls.cert");
    expect_fault(path_of("good.pem"), path_of("good.pem"), NULL, -EINVAL, "tls.key");
    expect_fault(path_of("good.pem"), path_of("expired.key"), NULL, -EINVAL, "key values mismatch");
    expect_fault(NULL, NULL, path_of("junk.pem"), -EINVAL, "tls.ca");
    expect_fault(NULL, NULL, "/nonexistent.pem", -ENOENT, "tls.ca /nonexistent.pem");
    /* Without a certificate there is the client's side. */
    assert_int_equal(tls_context_new(STR_NONE, STR_NONE, STR_NONE, &c, text), 0);
    assert_false(tls_context_serves(c));
    io_net_set_tls(world.net, c);
    assert_false(world.ports.net->can_serve_tls(world.ports.net));
    c = tls_context_unref(c);
    connect_both(LISTEN_TLS_NONE);
    assert_int_equal(stream_starttls(server.s, &(struct tls_request){ .server = true }), -ENOTSUP);
    assert_int_equal(stream_starttls(client.s, &(struct tls_request){ .verify = TLS_VERIFY_NAME }),
                     -EINVAL);
}

/* ---- handshakes ------------------------------------------------------------------------------ */

static void test_starttls(void **state)
{
    (void)state;
    server.echo = true;
    connect_both(LISTEN_TLS_OFFER);
    assert_true(world.ports.net->can_serve_tls(world.ports.net));
    /* In clear first, in the same turn; the reply goes before the handshake. */
    end_write(&server, "220 ready\r\n", 11, 0);
    start_server();
    world_until(&world, end_has_data, &client);
    assert_true(str_eq(buf_str(&client.got), STR("220 ready\r\n")));
    buf_clear(&client.got);
    start_client("mx.example.org", TLS_VERIFY_NAME);
    assert_int_equal(client.secured, 0);
    assert_int_equal(stream_starttls(client.s, &(struct tls_request){ 0 }), -EALREADY);
    world_until(&world, end_secured, &client);
    world_until(&world, end_secured, &server);
    assert_string_equal(client.version, "TLSv1.3");
    assert_string_equal(server.version, "TLSv1.3");
    assert_string_equal(client.cipher, server.cipher);
    assert_true(client.verified);
    assert_false(server.verified);
    assert_string_equal(client.subject, "CN=mx.example.org\\0AEvil: yes");
    assert_string_equal(server.subject, "");

    end_write(&client, "hello", 5, 1);
    awaited = 5;
    world_until(&world, client_got_all, NULL);
    assert_true(str_eq(buf_str(&client.got), STR("hello")));
    assert_int_equal(server.data, 1);
    end_close(&client);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, 0);
    assert_string_equal(server.why, "closed by peer"); /* close_notify came */
    world_until(&world, all_gone, NULL);
}

static void test_implicit(void **state)
{
    (void)state;
    server.greeting = "220 hello\r\n"; /* written at once: waits for the handshake */
    connect_both(LISTEN_TLS_IMPLICIT);
    assert_true(server.s->tls);
    start_client("", TLS_VERIFY_NONE);
    awaited = 11;
    world_until(&world, client_got_all, NULL);
    assert_int_equal(server.secured, 1);
    assert_true(str_eq(buf_str(&client.got), STR("220 hello\r\n")));
    end_close(&server);
    world_until(&world, end_closed, &client);
    assert_int_equal(client.error, 0);
}

static void test_large_both_ways(void **state)
{
    enum { SIZE = 5 << 20 };
    char *p = malloc(SIZE);

    (void)state;
    for (size_t i = 0; i < SIZE; i++)
        p[i] = (char)(i * i >> 7);
    server.echo = true;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("mx.example.org", TLS_VERIFY_NAME);
    world_until(&world, end_secured, &client);
    end_write(&client, p, SIZE / 2, 0);
    end_write(&client, p + SIZE / 2, SIZE - SIZE / 2, 77777);
    awaited = SIZE;
    world_until(&world, client_got_all, NULL);
    assert_int_equal(buf_len(&client.got), SIZE);
    assert_memory_equal(buf_str(&client.got).p, p, SIZE);
    assert_int_equal(stream_unsent(client.s) + stream_unsent(server.s), 0);
    assert_true(client.drained >= 1);
    free(p);
}

/* Input left, and close_notify right behind it: the end is told after the input is taken. */
static void test_end_behind_input(void **state)
{
    (void)state;
    server.take = 2;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("", TLS_VERIFY_NONE);
    world_until(&world, end_secured, &client);
    end_write(&client, "abcd", 4, 0);
    end_close(&client);
    world_until(&world, end_has_data, &server);
    world_turn(&world, 10);
    assert_int_equal(server.closed, 0);
    stream_resume(server.s);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, 0);
    assert_true(str_eq(buf_str(&server.got), STR("abcd")));
}

static void test_close_flushes(void **state)
{
    enum { SIZE = 3 << 20 };
    char *p = calloc(1, SIZE);

    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("", TLS_VERIFY_NONE);
    world_until(&world, end_secured, &client);
    end_write(&client, p, SIZE, 0);
    end_close(&client);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, 0);
    assert_string_equal(server.why, "closed by peer");
    assert_int_equal(buf_len(&server.got), SIZE);
    world_until(&world, all_gone, NULL);
    free(p);
}

/* Pieces of every size in both directions, taken and left as the dice fall. */
static void random_traffic(bool tls, uint32_t seed)
{
    enum { SIZE = 3 << 20 };
    char *p = malloc(SIZE);
    size_t sent = 0;

    client.dice = seed;
    for (size_t i = 0; i < SIZE; i++)
        p[i] = (char)end_roll(&client, 256);
    server.dice = seed + 1;
    server.echo = true;
    connect_both(tls ? LISTEN_TLS_IMPLICIT : LISTEN_TLS_NONE);
    if (tls)
        start_client("mx.example.org", TLS_VERIFY_NAME);
    while (sent < SIZE) {
        static const uint32_t bounds[] = { 20, 2000, 40000, 100000 };
        for (uint32_t i = end_roll(&client, 20); i > 0 && sent < SIZE; i--) {
            size_t n = MIN(end_roll(&client, bounds[end_roll(&client, 4)]) + 1, SIZE - sent);
            end_write(&client, p + sent, n, 0);
            sent += n;
        }
        awaited = sent > 500000 ? sent - 500000 : 0;
        world_until(&world, client_got_all, NULL);
    }
    end_close(&client);
    client.s = NULL;
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, 0);
    assert_int_equal(buf_len(&server.got), SIZE);
    assert_memory_equal(buf_str(&server.got).p, p, SIZE);
    assert_memory_equal(buf_str(&client.got).p, p, buf_len(&client.got));
    free(p);
}

static void test_random_clear(void **state)
{
    (void)state;
    random_traffic(false, 7);
}

static void test_random_tls(void **state)
{
    (void)state;
    random_traffic(true, 8);
}

/* ---- verification ---------------------------------------------------------------------------- */

static void expect_refused(const char *name, const char *why)
{
    start_client(name, TLS_VERIFY_NAME);
    world_until(&world, end_closed, &client);
    assert_int_equal(client.error, -EPROTO);
    assert_string_equal(client.why, why);
    assert_int_equal(client.secured, 0);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, -EPROTO); /* it got the alert */
    if (!strstr(server.why, "alert"))
        fail_msg("%s", server.why);
}

static void test_wrong_name(void **state)
{
    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    expect_refused("other.example.org", "TLS: hostname mismatch");
}

static void test_expired(void **state)
{
    struct tls_context *c = context("expired", "expired.pem");

    (void)state;
    io_net_set_tls(world.net, c);
    tls_context_unref(c);
    connect_both(LISTEN_TLS_IMPLICIT);
    expect_refused("mx.example.org", "TLS: certificate has expired");
}

static void test_untrusted(void **state)
{
    struct tls_context *c = context("good", "expired.pem");

    (void)state;
    io_net_set_tls(world.net, c);
    tls_context_unref(c);
    connect_both(LISTEN_TLS_IMPLICIT);
    expect_refused("mx.example.org", "TLS: self-signed certificate");
}

/* Not required, but told. */
static void test_unverified(void **state)
{
    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("other.example.org", TLS_VERIFY_NONE);
    world_until(&world, end_secured, &client);
    assert_false(client.verified);
}

static void test_address_as_name(void **state)
{
    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("127.0.0.1", TLS_VERIFY_NAME);
    world_until(&world, end_secured, &client);
    assert_true(client.verified);
}

/* ---- DANE ------------------------------------------------------------------------------------ */

/* The record that fits <name>.pem, by the SHA-256 of its key or of the whole. */
static struct str dane_of(const char *name, const char *base, const char *domain, uint8_t usage,
                          uint8_t selector, struct buf *out)
{
    unsigned char *der = NULL, digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char file[64];

    snprintf(file, sizeof(file), "%s.pem", name);
    FILE *f = fopen(path_of(file), "r");
    assert_non_null(f);
    X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    int size = selector ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der) : i2d_X509(cert, &der);
    assert_true(size > 0);
    assert_int_equal(EVP_Digest(der, (size_t)size, digest, &n, EVP_sha256(), NULL), 1);
    OPENSSL_free(der);
    X509_free(cert);
    struct dns_record r = {
        .usage = usage, .selector = selector, .matching = 1, .name = str_make((char *)digest, n)
    };
    struct dns_answer a = { .n = 1, .records = &r };
    buf_init(out, 0);
    assert_int_equal(dane_write(str_of(base), str_of(domain), &a, out), 1);
    return buf_str(out);
}

/* The server has good.pem, which nothing but the records says anything about: the client trusts "expired". */
static void shake_by_dane(const char *record_of, const char *base, const char *domain,
                          uint8_t usage, uint8_t selector)
{
    struct tls_context *c = context("good", "expired.pem");
    struct buf octets;
    const struct tls_request req = { .name = STR("mx.example.org"),
                                     .verify = TLS_VERIFY_DANE,
                                     .dane = dane_of(record_of, base, domain, usage, selector,
                                                     &octets) };

    io_net_set_tls(world.net, c);
    tls_context_unref(c);
    connect_both(LISTEN_TLS_IMPLICIT);
    client.in_call = true;
    assert_int_equal(stream_starttls(client.s, &req), 0);
    client.in_call = false;
    buf_done(&octets);
}

static void expect_dane(bool fits)
{
    world_until(&world, fits ? end_secured : end_closed, &client);
    assert_int_equal(client.secured, fits);
    assert_int_equal(client.verified, fits);
    if (!fits) {
        assert_int_equal(client.error, -EPROTO);
        assert_true(strncmp(client.why, "TLS: ", 5) == 0);
    }
}

static void test_S8_dane_key_of_the_host(void **state)
{
    (void)state;
    shake_by_dane("good", "any.name.example", "", 3, 1); /* names do not count */
    expect_dane(true);
}

static void test_S8_dane_another_key(void **state)
{
    (void)state;
    shake_by_dane("expired", "mx.example.org", "", 3, 1);
    expect_dane(false);
}

/* A context that is replaced serves the handshakes that had begun. */
static void test_replaced(void **state)
{
    struct tls_context *c = context("expired", "expired.pem");

    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("mx.example.org", TLS_VERIFY_NAME);
    io_net_set_tls(world.net, c);
    tls_context_unref(c);
    world_until(&world, end_secured, &client);
    assert_true(client.verified);
}

/* ---- hostile peers --------------------------------------------------------------------------- */

/* What came in clear in the same segment as STARTTLS is never seen, in clear or in TLS. */
static void test_nothing_carried_over(void **state)
{
    (void)state;
    server.starttls_on_data = true;
    server.tls.server = true;
    connect_both(LISTEN_TLS_OFFER);
    end_write(&client, "STARTTLS\r\nEHLO evil\r\n", 21, 0);
    world_until(&world, end_has_data, &server);
    buf_clear(&server.got);
    start_client("", TLS_VERIFY_NONE);
    end_write(&client, "EHLO good\r\n", 11, 0);
    world_until(&world, end_has_data, &server);
    world_turn(&world, 10);
    assert_true(str_eq(buf_str(&server.got), STR("EHLO good\r\n")));
}

/* The same for replies that a client finds behind the 220, kept or not. */
static void test_kept_input_is_dropped(void **state)
{
    (void)state;
    client.stubborn = true;
    connect_both(LISTEN_TLS_OFFER);
    end_write(&server, "250 injected\r\n", 14, 0);
    world_turn(&world, 10);
    assert_int_equal(stream_input(client.s).n, 14);
    start_server();
    start_client("", TLS_VERIFY_NONE);
    assert_int_equal(stream_input(client.s).n, 0);
    client.stubborn = false;
    world_until(&world, end_secured, &client);
    end_write(&server, "250 real\r\n", 10, 0);
    world_until(&world, end_has_data, &client);
    assert_true(str_eq(buf_str(&client.got), STR("250 real\r\n")));
}

static void test_garbage(void **state)
{
    static const char *const junk[] = { "EHLO x\r\nMAIL FROM:<a@b>\r\n", "GET / HTTP/1.1\r\n\r\n",
                                        "\x16\x03\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" };

    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_IMPLICIT, &server);
    for (size_t i = 0; i < ARRAY_LEN(junk); i++) {
        char in[64];
        int fd = raw_connect(&world.at);
        assert_int_equal(send(fd, junk[i], strlen(junk[i]), MSG_NOSIGNAL), strlen(junk[i]));
        world_until(&world, end_closed, &server);
        assert_int_equal(server.error, -EPROTO);
        assert_true(strncmp(server.why, "TLS: ", 5) == 0);
        assert_int_equal(server.secured + server.data, 0);
        world_turn(&world, 5);
        ssize_t n = recv(fd, in, sizeof(in), 0);
        assert_true(n == 0 || n == 7); /* an alert, where the junk looked like TLS */
        close(fd);
        world_until(&world, all_gone, NULL);
        end_init(&server, &world);
    }
}

static void test_silent_peer_hangs_up(void **state)
{
    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_IMPLICIT, &server);
    int fd = raw_connect(&world.at);
    world_until(&world, end_accepted, &server);
    close(fd);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, -EPROTO);
    assert_string_equal(server.why, "TLS: closed by peer in the handshake");
}

static int fd_of(struct end *e)
{
    return ((struct io_stream *)e->s)->watcher.fd;
}

/* After the handshake: what is not a record of this connection is an error with an alert. What
 * came before it is delivered, what came behind it is not. */
static void test_clear_text_behind(void **state)
{
    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("", TLS_VERIFY_NONE);
    world_until(&world, end_secured, &client);
    world_until(&world, end_secured, &server);
    end_write(&client, "DATA\r\n", 6, 0);
    world_turn(&world, 0);
    assert_int_equal(send(fd_of(&client), "QUIT\r\nQUIT\r\nQUIT\r\n", 18, MSG_NOSIGNAL), 18);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, -EPROTO);
    assert_true(str_eq(buf_str(&server.got), STR("DATA\r\n")));
    world_until(&world, end_closed, &client);
    assert_int_equal(client.error, -EPROTO);
    assert_non_null(strstr(client.why, "alert"));
}

/* The same after close_notify: nothing is parsed (in the middle of BDAT, say). */
static void test_clear_text_after_close_notify(void **state)
{
    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("", TLS_VERIFY_NONE);
    world_until(&world, end_secured, &client);
    end_write(&client, "BDAT 100\r\n", 10, 0);
    int fd = dup(fd_of(&client));
    server.take = 4;
    end_close(&client);
    world_until(&world, end_has_data, &server);
    send(fd, "RSET\r\n", 6, MSG_NOSIGNAL);
    server.take = 0;
    stream_resume(server.s);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, 0);
    assert_true(str_eq(buf_str(&server.got), STR("BDAT 100\r\n")));
    close(fd);
}

static void test_end_without_close_notify(void **state)
{
    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("", TLS_VERIFY_NONE);
    world_until(&world, end_secured, &server);
    shutdown(fd_of(&client), SHUT_WR);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, 0);
    assert_string_equal(server.why, "closed by peer without close_notify");
}

/* The deadline is brought forward, for the sake of the test. */
static void test_handshake_takes_too_long(void **state)
{
    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_IMPLICIT, &server);
    int fd = raw_connect(&world.at);
    assert_int_equal(send(fd, "\x16\x03\x01\x00", 4, MSG_NOSIGNAL), 4);
    world_until(&world, end_accepted, &server);
    struct timer *t = &((struct io_stream *)server.s)->timer;
    assert_in_range(t->at - io_loop_now(world.loop), NET_HANDSHAKE_MS - 1000, NET_HANDSHAKE_MS);
    io_loop_timer_set(world.loop, t, io_loop_now(world.loop) + 10);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, -ETIMEDOUT);
    assert_string_equal(server.why, "TLS: the handshake took too long");
    close(fd);
}

/* After it there is no deadline of the stream's any more. */
static void test_no_deadline_later(void **state)
{
    (void)state;
    connect_both(LISTEN_TLS_IMPLICIT);
    start_client("", TLS_VERIFY_NONE);
    world_until(&world, end_secured, &server);
    assert_false(timer_armed(&((struct io_stream *)server.s)->timer));
    assert_false(timer_armed(&((struct io_stream *)client.s)->timer));
}

/* s_client with these arguments against our server; what it wrote to its standard output. */
static void run_s_client(const char *arguments, const char *input, char *out, size_t size)
{
    char command[512];
    size_t n = 0;

    snprintf(command, sizeof(command),
             "(printf '%s'; sleep 0.3) | openssl s_client -connect 127.0.0.1:%d %s 2>&1", input,
             world.at.port, arguments);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    world_until(&world, end_closed, &server);
    world_until(&world, all_gone, NULL);
    while (n + 1 < size) {
        size_t got = fread(out + n, 1, size - 1 - n, p);
        if (got == 0)
            break;
        n += got;
    }
    out[n] = '\0';
    pclose(p);
}

static void test_s_client(void **state)
{
    static char out[20000];

    (void)state;
    if (system("openssl version >/dev/null 2>&1") != 0)
        skip();
    server.greeting = "220 hello from tern\r\n";
    world_listen(&world, "127.0.0.1", LISTEN_TLS_IMPLICIT, &server);
    run_s_client("-quiet -no_ign_eof -tls1_2", "NOOP\\r\\n", out, sizeof(out));
    assert_non_null(strstr(out, "220 hello from tern"));
    assert_string_equal(server.version, "TLSv1.2");
    assert_true(str_starts(buf_str(&server.got), STR("NOOP\r\n")));

    end_done(&server);
    end_init(&server, &world);
    run_s_client("-tls1_1 -cipher DEFAULT@SECLEVEL=0", "", out, sizeof(out));
    assert_int_equal(server.secured, 0);
    assert_int_equal(server.error, -EPROTO);

    end_done(&server);
    end_init(&server, &world);
    run_s_client("-alpn http/1.1", "", out, sizeof(out));
    assert_int_equal(server.secured, 0);
    assert_non_null(strstr(out, "no application protocol"));

    end_done(&server);
    end_init(&server, &world);
    run_s_client("-alpn smtp", "", out, sizeof(out));
    assert_int_equal(server.secured, 1);

    /* Renegotiation, asked for by a line "R". */
    end_done(&server);
    end_init(&server, &world);
    run_s_client("-tls1_2", "R\\n", out, sizeof(out));
    assert_int_equal(server.secured, 1);
    assert_non_null(strstr(out, "no renegotiation"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_context_faults),
        T(test_starttls),
        T(test_implicit),
        T(test_large_both_ways),
        T(test_end_behind_input),
        T(test_close_flushes),
        T(test_random_clear),
        T(test_random_tls),
        T(test_wrong_name),
        T(test_expired),
        T(test_untrusted),
        T(test_unverified),
        T(test_address_as_name),
        T(test_S8_dane_key_of_the_host),
        T(test_S8_dane_another_key),
        T(test_replaced),
        T(test_nothing_carried_over),
        T(test_kept_input_is_dropped),
        T(test_garbage),
        T(test_silent_peer_hangs_up),
        T(test_clear_text_behind),
        T(test_clear_text_after_close_notify),
        T(test_end_without_close_notify),
        T(test_handshake_takes_too_long),
        T(test_no_deadline_later),
        T(test_s_client),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
