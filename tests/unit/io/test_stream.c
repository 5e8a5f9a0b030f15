/* Streams in clear over the loopback: transfer, marks, pauses, every kind of end; listeners. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/sockaddr.h"
#include "io/stream.h"
#include "world.h"

static struct world world;
static struct end server, client;

static int setup(void **state)
{
    (void)state;
    world_open(&world, NULL);
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

static void connect_both(void)
{
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    end_dial(&client, &world.at);
    world_until(&world, end_opened, &client);
    world_until(&world, end_accepted, &server);
}

static char *pattern(size_t n)
{
    char *p = malloc(n);
    uint32_t x = 1;

    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        p[i] = (char)(x >> 24);
    }
    return p;
}

static size_t awaited;
static bool client_got_all(void *arg)
{
    (void)arg;
    return buf_len(&client.got) >= awaited;
}
static bool server_got_all(void *arg)
{
    (void)arg;
    return buf_len(&server.got) >= awaited;
}
static bool all_gone(void *arg)
{
    (void)arg;
    return io_net_streams(world.net) == 0;
}

/* ---- transfer -------------------------------------------------------------------------------- */

static void test_size(void **state)
{
    (void)state;
    assert_true(net_stream_bytes() < 700);
    printf("an idle stream: %zu bytes\n", net_stream_bytes());
}

static void test_addresses(void **state)
{
    char text[NET_ADDR_TEXT];

    (void)state;
    connect_both();
    assert_true(net_addr_eq(&client.s->peer, &world.at));
    assert_true(net_addr_eq(&server.s->local, &world.at));
    assert_true(net_addr_eq(&client.s->local, &server.s->peer));
    assert_string_equal(net_addr_ip_text(&server.s->peer, text), "127.0.0.1");
    assert_false(client.s->tls);
    assert_int_equal(io_net_streams(world.net), 2);
    assert_false(world.ports.net->can_serve_tls(world.ports.net));
    assert_int_equal(stream_starttls(client.s, &(struct tls_request){ 0 }), -ENOTSUP);
}

static void test_echo_in_pieces(void **state)
{
    char *p = pattern(5000);

    (void)state;
    server.echo = true;
    connect_both();
    end_write(&client, p, 5000, 7);
    awaited = 5000;
    world_until(&world, client_got_all, NULL);
    assert_memory_equal(buf_str(&client.got).p, p, 5000);
    /* Hundreds of pieces written in one turn left together. */
    assert_true(server.data <= 2);
    assert_int_equal(stream_unsent(client.s), 0);
    free(p);
}

static void test_large_both_ways(void **state)
{
    enum { SIZE = 6 << 20 };
    char *p = pattern(SIZE);

    (void)state;
    server.echo = true;
    connect_both();
    end_write(&client, p, SIZE, 100000);
    assert_true(stream_unsent(client.s) > 0);
    awaited = SIZE;
    world_until(&world, client_got_all, NULL);
    assert_int_equal(buf_len(&client.got), SIZE);
    assert_memory_equal(buf_str(&client.got).p, p, SIZE);
    assert_int_equal(client.drained, 1);
    free(p);
}

static void test_backpressure(void **state)
{
    enum { SIZE = 12 << 20 };
    char *p = pattern(SIZE);

    (void)state;
    server.stubborn = true;
    connect_both();
    end_write(&client, p, SIZE, 0);
    world_turn(&world, 50);
    /* The reader that does not take stops the writer; nothing is read behind its back. */
    assert_int_equal(server.data, 1);
    assert_true(stream_unsent(client.s) > NET_HIGH_MARK);
    assert_int_equal(client.drained, 0);
    assert_true(stream_input(server.s).n <= NET_READ_MAX);

    server.stubborn = false;
    stream_resume(server.s);
    assert_int_equal(server.data, 1); /* not from inside the call */
    awaited = SIZE;
    world_until(&world, server_got_all, NULL);
    assert_memory_equal(buf_str(&server.got).p, p, SIZE);
    assert_int_equal(client.drained, 1);
    free(p);
}

static void test_input_left(void **state)
{
    (void)state;
    server.take = 3;
    connect_both();
    end_write(&client, "abcdefgh", 8, 0);
    world_until(&world, end_has_data, &server);
    world_turn(&world, 5);
    assert_int_equal(server.data, 1);
    assert_true(str_eq(stream_input(server.s), STR("defgh")));
    stream_consume(server.s, 1);
    assert_true(str_eq(stream_input(server.s), STR("efgh")));
    end_write(&client, "ij", 2, 0); /* waits behind */
    world_turn(&world, 5);
    assert_int_equal(server.data, 1);
    stream_resume(server.s);
    world_turn(&world, 5);
    assert_true(str_eq(buf_str(&server.got), STR("abcefg")));
    assert_true(str_eq(stream_input(server.s), STR("h")));
    stream_resume(server.s);
    world_turn(&world, 5);
    assert_true(str_eq(buf_str(&server.got), STR("abcefghij")));
    assert_int_equal(server.data, 4);
}

static void test_resume_inside_data(void **state)
{
    (void)state;
    server.take = 1;
    server.resumes = true;
    connect_both();
    end_write(&client, "abcdefgh", 8, 0);
    awaited = 8;
    world_until(&world, server_got_all, NULL);
    assert_true(str_eq(buf_str(&server.got), STR("abcdefgh")));
    assert_int_equal(server.data, 8);
}

static void test_write_before_opened(void **state)
{
    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    end_dial(&client, &world.at);
    end_write(&client, "early", 5, 0);
    world_until(&world, end_has_data, &server);
    assert_true(str_eq(buf_str(&server.got), STR("early")));
}

static void test_unix(void **state)
{
    char path[64], error[LISTEN_ERROR_TEXT];

    (void)state;
    snprintf(path, sizeof(path), "/tmp/tern-test-%d.sock", (int)getpid());
    server.echo = true;
    world_listen(&world, path, LISTEN_TLS_NONE, &server);
    end_dial(&client, &world.at);
    assert_int_equal(client.opened, 0);
    end_write(&client, "hello", 5, 0);
    awaited = 5;
    world_until(&world, client_got_all, NULL);
    assert_int_equal(client.opened, 1);
    assert_int_equal(server.s->peer.family, NET_UNIX);
    assert_string_equal(server.s->local.path, path);

    assert_int_equal(io_listen_open(&world.listen.addr, error), -EADDRINUSE);
    world.listener = io_listener_free(world.listener);
    int fd = io_listen_open(&world.listen.addr, error); /* what is left behind is replaced */
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
}

static bool is_there(const char *path, mode_t mode)
{
    struct stat sb;

    return lstat(path, &sb) == 0 && S_ISSOCK(sb.st_mode) && (sb.st_mode & 0777) == mode;
}

static void test_file_of_a_unix_socket(void **state)
{
    struct io_socket_file file = { .mode = 0602, .uid = (uid_t)-1, .gid = getegid() }, later;
    struct net_addr addr = { .family = NET_UNIX };
    char error[LISTEN_ERROR_TEXT], link[128];

    (void)state;
    snprintf(addr.path, sizeof(addr.path), "/tmp/tern-test-%d.file", (int)getpid());
    snprintf(link, sizeof(link), "%s.link", addr.path);
    int fd = io_listen_open_file(&addr, &file, error);
    assert_true(fd >= 0 && is_there(addr.path, 0602));
    later = file;
    later.mode = 0660;
    assert_int_equal(io_socket_file_apply(addr.path, &later), 0);
    assert_true(is_there(addr.path, 0660));
    assert_true(later.dev == file.dev && later.ino == file.ino);
    /* Where a link leads, nothing is changed. */
    assert_int_equal(symlink(addr.path, link), 0);
    later.mode = 0777;
    assert_int_equal(io_socket_file_apply(link, &later), -EPERM);
    assert_true(is_there(addr.path, 0660));
    unlink(link);
    /* Another file of that name is not ours. */
    later.ino++;
    io_socket_file_remove(addr.path, &later);
    assert_true(is_there(addr.path, 0660));
    io_socket_file_remove(addr.path, &file);
    assert_int_equal(access(addr.path, F_OK), -1);
    close(fd);
    /* A file that is no socket refuses connections, and stays. */
    int other = open(addr.path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(other >= 0);
    close(other);
    assert_int_equal(io_listen_open(&addr, error), -EADDRINUSE);
    assert_int_equal(access(addr.path, F_OK), 0);
    later.mode = 0600;
    assert_int_equal(io_socket_file_apply(addr.path, &later), -EPERM);
    unlink(addr.path);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void test_refused(void **state)
{
    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    world.listener = io_listener_free(world.listener);
    end_dial(&client, &world.at);
    assert_int_equal(client.closed, 0);
    world_until(&world, end_closed, &client);
    assert_int_equal(client.error, -ECONNREFUSED);
    assert_string_equal(client.why, "connection refused");
    assert_int_equal(client.opened, 0);
    assert_int_equal(io_net_streams(world.net), 0);
}

static void test_dial_nonsense(void **state)
{
    struct net_addr to;

    (void)state;
    assert_int_equal(net_addr_parse(STR("unix:/nonexistent/socket"), 0, &to), 0);
    end_dial(&client, &to);
    world_until(&world, end_closed, &client);
    assert_int_equal(client.error, -ENOENT);

    end_init(&client, &world);
    net_addr_parse(STR("255.255.255.255:25"), 0, &to);
    end_dial(&client, &to);
    world_until(&world, end_closed, &client);
    assert_true(client.error < 0);
}

static void test_dial_source(void **state)
{
    struct net_addr source;

    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    net_addr_parse_ip(STR("127.0.0.9"), &source);
    client.source = &source;
    end_dial(&client, &world.at);
    world_until(&world, end_accepted, &server);
    assert_true(net_addr_same_ip(&server.s->peer, &source));
    end_close(&client);

    net_addr_parse_ip(STR("192.0.2.1"), &source); /* not ours */
    end_dial(&client, &world.at);
    world_until(&world, end_closed, &client);
    assert_int_equal(client.error, -EADDRNOTAVAIL);
}

static void test_orderly_end(void **state)
{
    (void)state;
    connect_both();
    end_write(&client, "bye", 3, 0);
    end_close(&client);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, 0);
    assert_string_equal(server.why, "closed by peer");
    assert_true(str_eq(buf_str(&server.got), STR("bye")));
    world_until(&world, all_gone, NULL);
    assert_int_equal(client.closed, 0); /* who closes is not called */
}

/* Input that is not taken holds back the end. */
static void test_end_behind_input(void **state)
{
    (void)state;
    server.take = 2;
    connect_both();
    end_write(&client, "abcd", 4, 0);
    end_close(&client);
    world_turn(&world, 20);
    assert_int_equal(server.closed, 0);
    stream_resume(server.s);
    world_until(&world, end_closed, &server);
    assert_true(str_eq(buf_str(&server.got), STR("abcd")));
}

/* A half-closed peer gets what was written before the end was seen. */
static void test_half_close(void **state)
{
    char in[16];

    (void)state;
    server.echo = true;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    int fd = raw_connect(&world.at);
    assert_int_equal(write(fd, "ping", 4), 4);
    shutdown(fd, SHUT_WR);
    world_until(&world, end_closed, &server);
    world_until(&world, all_gone, NULL);
    assert_int_equal(recv(fd, in, sizeof(in), MSG_WAITALL), 4);
    assert_memory_equal(in, "ping", 4);
    close(fd);
}

/* Whoever holds a stream hears neither bytes nor the end until it resumes, and can write meanwhile. */
static void test_hold(void **state)
{
    char in[16];

    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    int fd = raw_connect(&world.at);
    world_until(&world, end_accepted, &server);
    stream_hold(server.s);
    assert_int_equal(write(fd, "ping", 4), 4);
    shutdown(fd, SHUT_WR);
    world_turn(&world, 5);
    assert_int_equal(server.data, 0);
    assert_int_equal(server.closed, 0);
    end_write(&server, "pong", 4, 0);
    world_turn(&world, 5);
    assert_int_equal(recv(fd, in, sizeof(in), MSG_DONTWAIT), 4);
    assert_memory_equal(in, "pong", 4);
    stream_resume(server.s);
    world_until(&world, end_closed, &server);
    assert_true(str_eq(buf_str(&server.got), STR("ping")));
    assert_int_equal(server.error, 0);
    close(fd);
}

/* From inside of the callback: held, and not held any more. */
static void test_hold_in_data(void **state)
{
    (void)state;
    server.holds = true;
    connect_both();
    end_write(&client, "one", 3, 0);
    awaited = 3;
    world_until(&world, server_got_all, NULL);
    end_write(&client, "two", 3, 0);
    world_turn(&world, 5);
    assert_int_equal(server.data, 1);
    server.resumes_held = true;
    stream_resume(server.s);
    awaited = 6;
    world_until(&world, server_got_all, NULL);
    end_write(&client, "three", 5, 0);
    awaited = 11;
    world_until(&world, server_got_all, NULL);
    assert_true(str_eq(buf_str(&server.got), STR("onetwothree")));
}

static void test_reset(void **state)
{
    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    int fd = raw_connect(&world.at);
    world_until(&world, end_accepted, &server);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
    close(fd);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, -ECONNRESET);
    assert_string_equal(server.why, "connection reset by peer");
}

/* The reset is noticed by writing, and told although the owner is not reading. */
static void test_write_after_reset(void **state)
{
    (void)state;
    server.stubborn = true;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    int fd = raw_connect(&world.at);
    assert_int_equal(write(fd, "x", 1), 1);
    world_until(&world, end_accepted, &server);
    world_turn(&world, 5);
    assert_int_equal(server.data, 1);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
    close(fd);
    world_turn(&world, 5);
    assert_int_equal(server.closed, 0);
    end_write(&server, "reply", 5, 0);
    world_until(&world, end_closed, &server);
    assert_true(server.error == -ECONNRESET || server.error == -EPIPE);
}

/* Last words of a peer that closed are delivered also when our writing has failed by then. */
static void test_last_words(void **state)
{
    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    end_dial(&client, &world.at);
    world_until(&world, end_accepted, &server);
    end_write(&server, "421 go away\r\n", 13, 0);
    end_close(&server);
    world_until(&world, end_has_data, &client);
    world_until(&world, end_closed, &client);
    assert_true(str_eq(buf_str(&client.got), STR("421 go away\r\n")));
}

/* stream_close with much unsent: all of it arrives, however slow the reader begins. */
static void test_close_flushes(void **state)
{
    enum { SIZE = 4 << 20 };
    char *p = pattern(SIZE);

    (void)state;
    server.stubborn = true;
    connect_both();
    end_write(&client, p, SIZE, 50000);
    end_close(&client);
    world_turn(&world, 30);
    assert_int_equal(io_net_streams(world.net), 2);
    server.stubborn = false;
    stream_resume(server.s);
    world_until(&world, end_closed, &server);
    assert_int_equal(server.error, 0);
    assert_int_equal(buf_len(&server.got), SIZE);
    assert_memory_equal(buf_str(&server.got).p, p, SIZE);
    world_until(&world, all_gone, NULL);
    free(p);
}

/* A peer that goes on talking while it is told to go still reads the reply. */
static void test_last_reply_survives(void **state)
{
    static const char reply[] = "554 go away\r\n";
    char in[64], *junk = pattern(200000);

    (void)state;
    server.greeting = reply;
    server.closes_after_greeting = true;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    int fd = raw_connect(&world.at);
    assert_int_equal(send(fd, junk, 200000, MSG_NOSIGNAL), 200000);
    world_turn(&world, 50);
    send(fd, junk, 100, MSG_NOSIGNAL);
    assert_int_equal(recv(fd, in, sizeof(in), 0), sizeof(reply) - 1);
    assert_memory_equal(in, reply, sizeof(reply) - 1);
    assert_int_equal(io_net_streams(world.net), 1); /* lingers */
    close(fd);
    world_until(&world, all_gone, NULL);
    free(junk);
}

/* A peer that never reads holds a closed stream for ten seconds (brought forward), not longer. */
static void test_flush_ends(void **state)
{
    enum { SIZE = 8 << 20 };
    char *p = calloc(1, SIZE);

    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    int fd = raw_connect(&world.at);
    world_until(&world, end_accepted, &server);
    end_write(&server, p, SIZE, 0);
    struct timer *t = &((struct io_stream *)server.s)->timer;
    end_close(&server);
    world_turn(&world, 20);
    assert_int_equal(io_net_streams(world.net), 1);
    assert_in_range(t->at - io_loop_now(world.loop), NET_CLOSE_MS - 1000, NET_CLOSE_MS);
    io_loop_timer_set(world.loop, t, io_loop_now(world.loop) + 10);
    world_until(&world, all_gone, NULL);
    close(fd);
    free(p);
}

/* Nor does it hold us for long when it never goes. */
static void test_linger_ends(void **state)
{
    (void)state;
    server.greeting = "221 bye\r\n";
    server.closes_after_greeting = true;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    int fd = raw_connect(&world.at);
    world_until(&world, end_accepted, &server);
    int64_t start = io_loop_now(world.loop);
    world_until(&world, all_gone, NULL);
    assert_in_range(io_loop_now(world.loop) - start, NET_LINGER_MS - 10, NET_LINGER_MS + 1000);
    close(fd);
}

static void test_abort_in_callback(void **state)
{
    (void)state;
    server.aborts_on_data = true;
    connect_both();
    end_write(&client, "x", 1, 0);
    world_until(&world, end_closed, &client);
    assert_int_equal(server.closed, 0);
    assert_int_equal(server.data, 1);
    world_until(&world, all_gone, NULL);
}

static void test_abort_while_connecting(void **state)
{
    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    end_dial(&client, &world.at);
    stream_abort(client.s);
    client.s = NULL;
    world_turn(&world, 10);
    assert_int_equal(client.opened + client.closed, 0);
}

/* ---- listening ------------------------------------------------------------------------------- */

static void test_port_in_use(void **state)
{
    char error[LISTEN_ERROR_TEXT], expected[LISTEN_ERROR_TEXT], text[NET_ADDR_TEXT];
    struct net_addr at;

    (void)state;
    net_addr_parse(STR("127.0.0.1:0"), 0, &at);
    int fd = io_listen_open(&at, error);
    assert_true(fd >= 0);
    struct io_listener *l;
    assert_int_equal(io_listener_new(world.net, fd, &world.listen, NULL, NULL, &l), 0);
    at = *io_listener_addr(l);
    /* Another worker of ours may share it, */
    int fd2 = io_listen_open(&at, error);
    assert_true(fd2 >= 0);
    close(fd2);
    io_listener_free(l);
    /* a stranger's port is another matter. */
    fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_storage to;
    socklen_t len = sizeof(to);
    assert_int_equal(listen(fd, 1), 0); /* binds to a free port */
    getsockname(fd, (struct sockaddr *)&to, &len);
    at.port = (uint16_t)(((unsigned char *)&to)[2] << 8 | ((unsigned char *)&to)[3]);
    assert_int_equal(io_listen_open(&at, error), -EADDRINUSE);
    snprintf(expected, sizeof(expected), "cannot listen on %s: address already in use",
             net_addr_text(&at, text));
    assert_string_equal(error, expected);
    close(fd);

    net_addr_parse(STR("192.0.2.7:2525"), 0, &at);
    assert_int_equal(io_listen_open(&at, error), -EADDRNOTAVAIL);
}

enum { MANY = 200 };

static bool many_accepted(void *arg)
{
    (void)arg;
    return server.accepted >= MANY;
}

/* More than one turn accepts; those that the owner does not take are closed. */
static void test_many(void **state)
{
    int fds[MANY];
    char c;

    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    for (int i = 0; i < MANY; i++)
        fds[i] = raw_connect(&world.at);
    world_until(&world, many_accepted, NULL);
    assert_int_equal(io_net_streams(world.net), 1);
    for (int i = 1; i < MANY; i++)
        assert_int_equal(recv(fds[i], &c, 1, 0), 0);
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
}

/* A listener that goes takes with it what had been waiting. */
static void test_listener_stop(void **state)
{
    int fds[5];

    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    for (int i = 0; i < 5; i++)
        fds[i] = raw_connect(&world.at);
    io_listener_stop(world.listener);
    world.listener = NULL;
    assert_int_equal(server.accepted, 0);
    world_turn(&world, 5);
    assert_int_equal(server.accepted, 5);
    end_write(&server, "still here", 10, 0);
    world_turn(&world, 5);
    char in[10];
    assert_int_equal(recv(fds[0], in, 10, MSG_WAITALL), 10);
    for (int i = 0; i < 5; i++)
        close(fds[i]);
}

/* Out of descriptors: the loop rests, and accepts when there are some again. */
static void test_out_of_descriptors(void **state)
{
    struct rlimit was, low;
    int fd, spare[256], n = 0;

    (void)state;
    world_listen(&world, "127.0.0.1", LISTEN_TLS_NONE, &server);
    fd = raw_connect(&world.at);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    low = was;
    low.rlim_cur = (rlim_t)fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    while (n < 256 && (spare[n] = dup(fd)) >= 0)
        n++;
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    world_turn(&world, 150);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    assert_int_equal(server.accepted, 0);
    int64_t busy =
        (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    assert_true(busy < 75);
    struct net_addr to = world.at;
    assert_null(world.ports.net->dial(world.ports.net, &to, NULL, NULL, NULL));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    world_until(&world, end_accepted, &server);
    while (n)
        close(spare[--n]);
    close(fd);
}

static void test_local_addresses(void **state)
{
    struct net_addr all[256];
    int n = io_local_addresses(all, ARRAY_LEN(all));
    bool loopback = false;

    (void)state;
    assert_true(n > 0);
    for (int i = 0; i < MIN(n, 256); i++) {
        assert_int_equal(all[i].port, 0);
        loopback = loopback || net_addr_is_loopback(&all[i]);
    }
    assert_true(loopback);
    assert_int_equal(io_local_addresses(all, 0), n);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_size),
        T(test_addresses),
        T(test_echo_in_pieces),
        T(test_large_both_ways),
        T(test_backpressure),
        T(test_input_left),
        T(test_resume_inside_data),
        T(test_write_before_opened),
        T(test_unix),
        T(test_file_of_a_unix_socket),
        T(test_refused),
        T(test_dial_nonsense),
        T(test_dial_source),
        T(test_orderly_end),
        T(test_end_behind_input),
        T(test_half_close),
        T(test_hold),
        T(test_hold_in_data),
        T(test_reset),
        T(test_write_after_reset),
        T(test_last_words),
        T(test_close_flushes),
        T(test_last_reply_survives),
        T(test_flush_ends),
        T(test_linger_ends),
        T(test_abort_in_callback),
        T(test_abort_while_connecting),
        T(test_port_in_use),
        T(test_many),
        T(test_listener_stop),
        T(test_out_of_descriptors),
        T(test_local_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
