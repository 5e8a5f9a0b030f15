/* Sockets of the service manager: which listener takes which, and what is wrong with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/inherited.h"
#include "io/listener.h"

/* ---- taking them ------------------------------------------------------------------------------ */

static int open_socket(const char *where)
{
    char error[LISTEN_ERROR_TEXT];
    struct net_addr addr;

    CHECK(net_addr_parse(str_of(where), 0, &addr) == 0);
    return io_listen_open(&addr, error);
}

static void set_number(const char *name, long n)
{
    char text[24];

    snprintf(text, sizeof(text), "%ld", n);
    setenv(name, text, 1);
}

/* A child, whose descriptors 3 and 4 are given. */
static int take(int first, int second, const char *names, int (*look)(int r, struct inherited *in))
{
    static struct inherited in;
    struct failure f;
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        int a = fcntl(first, F_DUPFD, 10), b = fcntl(second, F_DUPFD, 10);
        dup2(a, 3);
        dup2(b, 4);
        set_number("LISTEN_PID", getpid());
        set_number("LISTEN_FDS", 2);
        setenv("LISTEN_FDNAMES", names, 1);
        _exit(look(inherited_take(&in, &f), &in));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(first);
    close(second);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int two_with_names(int r, struct inherited *in)
{
    return r == 0 && in->n == 2 && strcmp(in->v[0].name, "smtp") == 0 &&
                   strcmp(in->v[1].name, "other") == 0 && in->v[0].addr.family == NET_IPV4 &&
                   in->v[0].addr.port && !getenv("LISTEN_FDS") &&
                   (fcntl(3, F_GETFD) & FD_CLOEXEC) && (fcntl(4, F_GETFL) & O_NONBLOCK)
               ? 0
               : 1;
}

static int refused(int r, struct inherited *in)
{
    return r < 0 ? 0 : 1;
}

static void they_are_taken(void **state)
{
    assert_int_equal(
        take(open_socket("127.0.0.1:0"), open_socket("127.0.0.1:0"), "smtp:other", two_with_names),
        0);
}

static void only_listening_streams_are(void **state)
{
    assert_int_equal(
        take(open_socket("127.0.0.1:0"), socket(AF_INET, SOCK_DGRAM, 0), "a:b", refused), 0);
    assert_int_equal(
        take(open_socket("127.0.0.1:0"), socket(AF_INET, SOCK_STREAM, 0), "a:b", refused), 0);
}

static void both_families_in_one_are_refused(void **state)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0);

    if (fd < 0)
        skip();
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(take(open_socket("127.0.0.1:0"), fd, "a:b", refused), 0);
}

static void another_process_is_meant(void **state)
{
    struct inherited in = { .n = 7 };
    struct failure f;

    set_number("LISTEN_PID", getpid() + 1L);
    set_number("LISTEN_FDS", 2);
    assert_int_equal(inherited_take(&in, &f), 0);
    assert_int_equal(in.n, 0);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
}

/* ---- whose they are --------------------------------------------------------------------------- */

static struct listen_settings listener(const char *where, const char *socket)
{
    struct listen_settings l = { .text = str_of(where), .socket = str_of(socket) };

    CHECK(net_addr_parse(l.text, 25, &l.addr) == 0);
    return l;
}

static struct inherited_socket given(const char *where, const char *name)
{
    struct inherited_socket s = { .fd = -1 };

    CHECK(net_addr_parse(str_of(where), 25, &s.addr) == 0);
    str_copy(str_of(name), s.name, sizeof(s.name));
    return s;
}

static void by_address_and_by_name(void **state)
{
    struct listen_settings listen[] = {
        listener("0.0.0.0:25", ""),
        listener("127.0.0.1:2525", ""),
        listener("0.0.0.0:587", "submission"),
    };
    struct settings set = { .listen = listen, .n_listen = 3 };
    struct inherited in = {
        .n = 2, .v = { given("192.0.2.1:587", "submission"), given("0.0.0.0:25", "smtp") }
    };
    struct failure f;
    int index[3];

    assert_int_equal(inherited_assign(&in, &set, index, &f), 0);
    assert_int_equal(index[0], 1);
    assert_int_equal(index[1], -1);
    assert_int_equal(index[2], 0);
}

static void one_name_several_addresses(void **state)
{
    struct listen_settings listen[] = { listener("[::]:25", "smtp"),
                                        listener("0.0.0.0:25", "smtp") };
    struct settings set = { .listen = listen, .n_listen = 2 };
    struct inherited in = { .n = 2,
                            .v = { given("0.0.0.0:25", "smtp"), given("[::]:25", "smtp") } };
    struct failure f;
    int index[2];

    assert_int_equal(inherited_assign(&in, &set, index, &f), 0);
    assert_int_equal(index[0], 1);
    assert_int_equal(index[1], 0);
}

static void what_does_not_fit_is_told(void **state)
{
    struct listen_settings listen[] = { listener("0.0.0.0:25", ""),
                                        listener("0.0.0.0:587", "submission") };
    struct settings set = { .listen = listen, .n_listen = 1 };
    struct inherited in = { .n = 2,
                            .v = { given("0.0.0.0:25", "smtp"), given("0.0.0.0:26", "late") } };
    struct failure f;
    int index[2];

    assert_int_equal(inherited_assign(&in, &set, index, &f), -1);
    assert_non_null(strstr(f.text, "'late' on 0.0.0.0:26"));
    set.n_listen = 2;
    assert_int_equal(inherited_assign(&in, &set, index, &f), -1);
    assert_non_null(strstr(f.text, "no socket named 'submission' for the listener 0.0.0.0:587"));
    in.n = 0; /* started by hand: it makes them itself */
    assert_int_equal(inherited_assign(&in, &set, index, &f), 0);
    assert_int_equal(index[1], -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_taken),
        cmocka_unit_test(only_listening_streams_are),
        cmocka_unit_test(both_families_in_one_are_refused),
        cmocka_unit_test(another_process_is_meant),
        cmocka_unit_test(by_address_and_by_name),
        cmocka_unit_test(one_name_several_addresses),
        cmocka_unit_test(what_does_not_fit_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
