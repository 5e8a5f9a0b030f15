#include "dns_server.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/sockaddr.h"

struct dns_server {
    int udp, tcp;
    struct net_addr addr;
    pthread_t thread;
    atomic_bool stop;
    atomic_int n_udp, n_tcp;
};

static void add_question(struct buf *b, struct str question)
{
    buf_add_str(b, question);
}

/* Owner: a pointer to the question. */
static void add_record(struct buf *b, uint16_t type, uint32_t ttl, const void *data, size_t n)
{
    buf_add_u16(b, 0xc00c);
    buf_add_u16(b, type);
    buf_add_u16(b, 1);
    buf_add_u32(b, ttl);
    buf_add_u16(b, (uint16_t)n);
    buf_add(b, data, n);
}

static void add_header(struct buf *b, uint16_t id, uint16_t flags, uint16_t answers, uint16_t auth)
{
    buf_add_u16(b, id);
    buf_add_u16(b, (uint16_t)(0x8180 | flags));
    buf_add_u16(b, 1);
    buf_add_u16(b, answers);
    buf_add_u16(b, auth);
    buf_add_u16(b, 0);
}

static void add_usual(struct buf *b, uint16_t id, struct str question, uint16_t type)
{
    static const unsigned char a[] = { 192, 0, 2, 1 };
    static const unsigned char mx[] = { 0, 10, 4, 'm', 'a', 'i', 'l', 0xc0, 12 };
    bool known = type == 1 || type == 15;

    add_header(b, id, 0, known, 0);
    add_question(b, question);
    if (type == 1)
        add_record(b, type, 60, a, sizeof(a));
    else if (type == 15)
        add_record(b, type, 60, mx, sizeof(mx));
}

/* A CNAME to `label` beside the name asked for, and nothing of that. */
static void add_alias(struct buf *b, uint16_t id, struct str question, const char *label)
{
    const unsigned char *q = (const unsigned char *)question.p;
    unsigned char data[66];
    size_t n = strlen(label);

    data[0] = (unsigned char)n;
    memcpy(data + 1, label, n);
    data[n + 1] = 0xc0;
    data[n + 2] = (unsigned char)(12 + 1 + q[0]); /* what is behind its first label */
    add_header(b, id, 0, 1, 0);
    add_question(b, question);
    add_record(b, 5, 30, data, n + 3);
}

static bool is(const unsigned char *q, const char *label)
{
    size_t n = strlen(label);
    return q[0] >= n && memcmp(q + 1, label, n) == 0;
}

/* Appends the answer, if any. q: the question section. */
static void answer(struct buf *b, const unsigned char *in, struct str question, uint16_t type,
                   bool edns, bool tcp)
{
    static const unsigned char soa[] = { 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0,
                                         0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 30 };
    const unsigned char *q = (const unsigned char *)question.p;
    uint16_t id = (uint16_t)(in[0] << 8 | in[1]);

    if (is(q, "ok") || is(q, "many") || is(q, "late") || (is(q, "noedns") && !edns)) {
        if (is(q, "late"))
            usleep(300000);
        add_usual(b, id, question, type);
    } else if (is(q, "signed")) {
        size_t at = buf_len(b);
        add_usual(b, id, question, type);
        b->data[b->start + at + 3] |= 0x20; /* AD */
    } else if (is(q, "noedns")) {
        add_header(b, id, 1, 0, 0);
        add_question(b, question);
    } else if (is(q, "nx") || is(q, "empty")) {
        add_header(b, id, is(q, "nx") ? 3 : 0, 0, 1);
        add_question(b, question);
        add_record(b, 6, 3600, soa, sizeof(soa));
    } else if (is(q, "servfail")) {
        add_header(b, id, 2, 0, 0);
        add_question(b, question);
    } else if (is(q, "big")) {
        add_header(b, id, tcp ? 0 : 0x0200, tcp ? 100 : 0, 0);
        add_question(b, question);
        for (unsigned char i = 0; tcp && i < 100; i++)
            add_record(b, 1, 60, (unsigned char[]){ 10, 0, 0, i }, 4);
    } else if (is(q, "edns")) {
        unsigned char text[1004];
        memset(text, 'x', sizeof(text));
        for (size_t i = 0; i < sizeof(text); i += 251)
            text[i] = 250;
        add_header(b, id, edns ? 0 : 0x0200, edns, 0);
        add_question(b, question);
        if (edns)
            add_record(b, 16, 60, text, sizeof(text));
    } else if (is(q, "hop")) {
        char next[16];
        snprintf(next, sizeof(next), q[4] == '0' ? "ok" : "hop%c", q[4] - 1);
        add_alias(b, id, question, next);
    } else if (is(q, "ping") || is(q, "pong")) {
        add_alias(b, id, question, is(q, "ping") ? "pong" : "ping");
    } else if (is(q, "tonx")) {
        add_alias(b, id, question, "nx");
    } else if (is(q, "tofail")) {
        add_alias(b, id, question, "servfail");
    } else if (is(q, "loop")) {
        add_header(b, id, 0, 1, 0);
        add_question(b, question);
        size_t at = buf_len(b);
        buf_add_u16(b, (uint16_t)(0xc000 | at)); /* its own name */
        buf_add(b, "\0\1\0\1\0\0\0\74\0\4\1\2\3\4", 14);
    }
}

static void send_garbage(struct dns_server *s, const struct sockaddr_storage *to, socklen_t len,
                         const unsigned char *in, struct str question)
{
    unsigned char noise[300] = { in[0], in[1], 0x81, 0x80, 0, 1, 0, 9 };
    struct buf b;

    for (size_t i = 8; i < sizeof(noise); i++)
        noise[i] = (unsigned char)(i * 37);
    sendto(s->udp, noise, sizeof(noise), 0, (const struct sockaddr *)to, len);
    sendto(s->udp, noise, 0, 0, (const struct sockaddr *)to, len);
    sendto(s->udp, noise, 11, 0, (const struct sockaddr *)to, len);
    buf_init(&b, 0);
    add_usual(&b, (uint16_t)((in[0] << 8 | in[1]) ^ 1), question, 1); /* a foreign id */
    sendto(s->udp, buf_str(&b).p, buf_len(&b), 0, (const struct sockaddr *)to, len);
    buf_clear(&b);
    add_usual(&b, (uint16_t)(in[0] << 8 | in[1]), STR("\3foo\0\0\1\0\1"), 1);
    sendto(s->udp, buf_str(&b).p, buf_len(&b), 0, (const struct sockaddr *)to, len);
    buf_done(&b);
}

/* The question section of a message; false when there is none. */
static bool find_question(const unsigned char *in, size_t n, struct str *ret, uint16_t *ret_type)
{
    size_t i = 12;

    while (i < n && in[i])
        i += in[i] + 1u;
    if (i + 5 > n)
        return false;
    *ret = str_make(in + 12, i + 5 - 12);
    *ret_type = (uint16_t)(in[i + 1] << 8 | in[i + 2]);
    return true;
}

static void serve_udp(struct dns_server *s)
{
    unsigned char in[2000];
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    ssize_t n = recvfrom(s->udp, in, sizeof(in), 0, (struct sockaddr *)&from, &len);
    struct str question;
    uint16_t type;
    struct buf b;

    if (n < 12 || !find_question(in, (size_t)n, &question, &type))
        return;
    s->n_udp++;
    if (is((const unsigned char *)question.p, "garbage")) {
        send_garbage(s, &from, len, in, question);
        return;
    }
    buf_init(&b, 0);
    answer(&b, in, question, type, in[11] != 0, false);
    if (buf_len(&b))
        sendto(s->udp, buf_str(&b).p, buf_len(&b), 0, (struct sockaddr *)&from, len);
    buf_done(&b);
}

static void serve_tcp(struct dns_server *s)
{
    unsigned char in[2000], size[2];
    int fd = accept(s->tcp, NULL, NULL);
    struct str question;
    uint16_t type;
    struct buf b;

    if (fd < 0)
        return;
    if (recv(fd, size, 2, MSG_WAITALL) == 2) {
        size_t n = (size_t)(size[0] << 8 | size[1]);
        if (n <= sizeof(in) && recv(fd, in, n, MSG_WAITALL) == (ssize_t)n &&
            find_question(in, n, &question, &type)) {
            s->n_tcp++;
            buf_init(&b, 0);
            answer(&b, in, question, type, in[11] != 0, true);
            size[0] = (unsigned char)(buf_len(&b) >> 8);
            size[1] = (unsigned char)buf_len(&b);
            send(fd, size, 2, MSG_NOSIGNAL);
            send(fd, buf_str(&b).p, buf_len(&b), MSG_NOSIGNAL);
            buf_done(&b);
        }
    }
    close(fd);
}

static void *serve(void *arg)
{
    struct dns_server *s = arg;

    while (!s->stop) {
        struct pollfd fds[] = { { s->udp, POLLIN, 0 }, { s->tcp, POLLIN, 0 } };
        poll(fds, 2, 20);
        if (fds[0].revents)
            serve_udp(s);
        if (fds[1].revents)
            serve_tcp(s);
    }
    return NULL;
}

struct dns_server *dns_server_start_at(const struct net_addr *ip)
{
    struct dns_server *s = calloc(1, sizeof(*s));
    struct sockaddr_storage at;
    int len, big = 4 << 20;

    s->addr = *ip;
    for (;;) { /* until one port is free in both worlds */
        s->udp = socket(AF_INET, SOCK_DGRAM, 0);
        s->tcp = socket(AF_INET, SOCK_STREAM, 0);
        s->addr.port = 0;
        len = sockaddr_from_net(&s->addr, &at);
        CHECK(bind(s->udp, (struct sockaddr *)&at, (socklen_t)len) == 0);
        sockaddr_local(s->udp, &s->addr);
        len = sockaddr_from_net(&s->addr, &at);
        if (bind(s->tcp, (struct sockaddr *)&at, (socklen_t)len) == 0)
            break;
        close(s->udp);
        close(s->tcp);
    }
    setsockopt(s->udp, SOL_SOCKET, SO_RCVBUF, &big, sizeof(big));
    CHECK(listen(s->tcp, 100) == 0);
    CHECK(pthread_create(&s->thread, NULL, serve, s) == 0);
    return s;
}

struct dns_server *dns_server_start(void)
{
    struct net_addr ip;

    net_addr_parse_ip(STR("127.0.0.1"), &ip);
    return dns_server_start_at(&ip);
}

void dns_server_stop(struct dns_server *s)
{
    s->stop = true;
    pthread_join(s->thread, NULL);
    close(s->udp);
    close(s->tcp);
    free(s);
}

const struct net_addr *dns_server_addr(const struct dns_server *s)
{
    return &s->addr;
}

int dns_server_udp(struct dns_server *s)
{
    return s->n_udp;
}

int dns_server_tcp(struct dns_server *s)
{
    return s->n_tcp;
}
