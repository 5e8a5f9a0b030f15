/* When memory runs out: each allocation of core/io and core/base fails in turn, alone or with
 * all after it, while a connection in TLS is made, used and closed and names are looked up.
 * Whatever happens is told by an error; nothing leaks, and the next connection is served.
 *
 * malloc and its like are defined here and hand on to the system's (or the sanitizer's). Only
 * calls out of this program fail: libev aborts when it gets no memory, as CHECK does.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "certificate.h"
#include "dns_server.h"
#include "io/resolver.h"
#include "world.h"

/* ---- allocation ------------------------------------------------------------------------------ */

#ifdef __SANITIZE_THREAD__
/* Its start does not bear a malloc of ours. */
int main(void)
{
    return 0;
}
#else

extern const char __executable_start, etext;
static _Thread_local bool armed;
static unsigned long allocations, fail_at;
static bool fail_on;

static bool fails(const void *caller)
{
    if (!armed || (const char *)caller < &__executable_start || (const char *)caller > &etext)
        return false;
    allocations++;
    return allocations == fail_at || (fail_on && allocations > fail_at);
}

/* The one that would have been called. */
static void *next_of(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

void *malloc(size_t n)
{
    static void *(*real)(size_t);
    if (fails(__builtin_return_address(0)))
        return NULL;
    if (!real)
        *(void **)&real = next_of("malloc");
    return real(n);
}

void *realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);
    if (fails(__builtin_return_address(0)))
        return NULL;
    if (!real)
        *(void **)&real = next_of("realloc");
    return real(p, n);
}

void *calloc(size_t n, size_t size)
{
    static void *(*real)(size_t, size_t);
    if (fails(__builtin_return_address(0)))
        return NULL;
    if (!real)
        *(void **)&real = next_of("calloc");
    return real(n, size);
}

/* ---- the scene ------------------------------------------------------------------------------- */

static struct world world;
static struct end server, client;
static struct io_resolver *resolver;
static struct dns_server *dns;
static struct tls_context *tls;
static int told;
enum { SIZE = 100000 };

static void on_done(void *owner, const struct dns_answer *answer)
{
    assert_non_null(answer);
    assert_ptr_equal(owner, &told);
    told++;
}

static bool settled(void *arg)
{
    (void)arg;
    return !client.s || buf_len(&client.got) >= SIZE || client.got.failed || server.got.failed;
}

static void dial(const char *data)
{
    struct port_net *net = world.ports.net;
    const struct tls_request req = { .name = STR("x.test") };

    client.s = net->dial(net, &world.at, NULL, &end_events, &client);
    if (client.s && stream_write(client.s, data, SIZE) < 0) {
        stream_abort(client.s);
        client.s = NULL;
    }
    world_until(&world, settled, NULL); /* in clear */
    if (!client.s || client.got.failed || server.got.failed || !server.s)
        return;
    buf_clear(&client.got);
    if (stream_starttls(server.s, &(struct tls_request){ .server = true }) < 0 ||
        stream_starttls(client.s, &req) < 0 || stream_write(client.s, data, SIZE) < 0) {
        stream_abort(client.s);
        client.s = NULL;
    }
    world_until(&world, settled, NULL);
}

/* All that can be asked of the module, with every result allowed. */
static void act(const char *data)
{
    struct port_dns *d = io_resolver_port(resolver);
    struct dns_query *q[3];
    int asked = 0;

    armed = true;
    q[0] = d->query(d, STR("ok.test"), DNS_A, on_done, &told);
    q[1] = d->query(d, STR("nx.test"), DNS_MX, on_done, &told);
    q[2] = d->query(d, STR("localhost"), DNS_A, on_done, &told);
    for (size_t i = 0; i < ARRAY_LEN(q); i++)
        asked += q[i] != NULL;
    dial(data);
    while (told < asked)
        world_turn(&world, 1);
    if (client.s)
        end_close(&client);
    world_turn(&world, 2);
    armed = false;
    assert_int_equal(told, asked);
}

static void serve_the_next(void)
{
    end_done(&client);
    end_done(&server);
    end_init(&client, &world);
    end_init(&server, &world);
    server.echo = true;
    end_dial(&client, &world.at);
    end_write(&client, "x", 1, 0);
    world_until(&world, end_has_data, &client);
    end_done(&client);
    end_done(&server);
}

/* False: there was no such allocation. */
static bool once(unsigned long at, bool on)
{
    static char data[SIZE];

    world_open(&world, tls);
    end_init(&server, &world);
    end_init(&client, &world);
    server.echo = true;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    assert_int_equal(io_resolver_new(world.loop, dns_server_addr(dns), 1, 200, false, &resolver),
                     0);
    world_turn(&world, 1); /* the heap of timers is there */
    told = 0;
    allocations = 0;
    fail_at = at;
    fail_on = on;
    act(data);
    serve_the_next();
    resolver = io_resolver_free(resolver);
    world_close(&world);
    return at <= allocations;
}

static void test_each_fails(void **state)
{
    unsigned long n = 0;

    (void)state;
    while (once(n + 1, false))
        n++;
    assert_true(n > 20);
    printf("%lu allocations failed, one at a time\n", n);
}

static void test_all_fail_from_one_on(void **state)
{
    (void)state;
    for (unsigned long n = 1; once(n, true); n++)
        ;
}

static int setup(void **state)
{
    char cert[] = "/tmp/tern-oom-XXXXXX", key[] = "/tmp/tern-oom-XXXXXX", error[TLS_ERROR_TEXT];
    int fds[] = { mkstemp(cert), mkstemp(key) };

    (void)state;
    certificate_write(cert, key, "x.test", "DNS:x.test", -100, 10000);
    int r = tls_context_new(str_of(cert), str_of(key), STR_NONE, &tls, error);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    unlink(cert);
    unlink(key);
    dns = dns_server_start();
    return r;
}

static int teardown(void **state)
{
    (void)state;
    dns_server_stop(dns);
    tls_context_unref(tls);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fails),
        cmocka_unit_test(test_all_fail_from_one_on),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
#endif
