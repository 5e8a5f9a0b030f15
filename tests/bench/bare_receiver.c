/* bare_receiver.c - what a mail server cannot do without: takes messages and commits them, nothing else.
 *
 * The measure of what is possible with epoll, SMTP and LMDB: no routing, no headers, no delivery, one
 * transaction for whatever has arrived meanwhile (group commit in a thread), 250 after its sync.
 *
 *   --spool DIR   as said: `accept only` is compared with it
 *   --null        nothing is kept and 250 comes at once: a next hop that costs next to nothing
 *   --commits N   no SMTP: N transactions of one value each, one after the other, and their times
 *
 * In the spool at most --keep messages stay; each transaction deletes what is beyond, so that the file
 * is in the state of a queue that lives. LMDB with its default, full synchronisation.
 *
 * Threads: the loop owns connections, the committer owns what it has taken from `todo`; both lists have
 * one lock. Last line of output: one JSON object, at SIGTERM, or as soon as --count messages are here
 * (then it goes on until SIGTERM: connections are not cut under the router's hands).
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <lmdb.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, ROOM = 65536, NULL_KEEPS = 4 /* bytes in which "\r\n.\r\n" may begin */ };

struct connection {
    int fd;
    bool data; /* between 354 and the dot */
    bool over;
    bool waits; /* for the committer, which reads `in` */
    char *in;
    size_t n, size, seen; /* seen: no dot before this */
    size_t content;       /* bytes before the dot, of a message that is here */
    char out[1024];
    size_t n_out;
    struct connection *next;
};

struct receiver {
    int port, listener, ep, wake;
    bool null, any;
    const char *folder;
    uint64_t count, keep, messages, commits, head, tail, told;
    size_t time_commits, time_size;
    unsigned time_gap_ms;
    MDB_env *env;
    MDB_dbi dbi;
    struct connection *arrived; /* in this turn of the loop */
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct connection *todo, *done;
};

static volatile sig_atomic_t told_to_stop;

static void on_signal(int number)
{
    told_to_stop = 1;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int result, const char *what)
{
    if (result == 0)
        return;
    fprintf(stderr, "bare_receiver: %s: %s\n", what, mdb_strerror(result));
    exit(1);
}

/* ---- LMDB ------------------------------------------------------------------------------------- */

static void open_spool(struct receiver *r)
{
    char path[4096];
    MDB_txn *t;

    if (mkdir(r->folder, 0700) < 0 && errno != EEXIST)
        must(errno, r->folder);
    snprintf(path, sizeof(path), "%s/data.mdb", r->folder);
    unlink(path);
    must(mdb_env_create(&r->env), "mdb_env_create");
    must(mdb_env_set_mapsize(r->env, (size_t)8 << 30), "mdb_env_set_mapsize");
    must(mdb_env_open(r->env, r->folder, 0, 0600), "mdb_env_open");
    must(mdb_txn_begin(r->env, NULL, 0, &t), "mdb_txn_begin");
    must(mdb_dbi_open(t, NULL, 0, &r->dbi), "mdb_dbi_open");
    must(mdb_txn_commit(t), "mdb_txn_commit");
}

static MDB_val key_of(uint64_t number, unsigned char bytes[8])
{
    for (int i = 7; i >= 0; i--, number >>= 8)
        bytes[i] = (unsigned char)number;
    return (MDB_val){ 8, bytes };
}

static void put(struct receiver *r, MDB_txn *t, const char *p, size_t n)
{
    unsigned char bytes[8];
    MDB_val key = key_of(r->head++, bytes), value = { n, NULL };

    must(mdb_put(t, r->dbi, &key, &value, MDB_RESERVE | MDB_APPEND), "mdb_put");
    memcpy(value.mv_data, p, n);
}

static void drop_old(struct receiver *r, MDB_txn *t)
{
    unsigned char bytes[8];

    while (r->head - r->tail > r->keep) {
        MDB_val key = key_of(r->tail++, bytes);
        must(mdb_del(t, r->dbi, &key, NULL), "mdb_del");
    }
}

static void commit(struct receiver *r, struct connection *first)
{
    MDB_txn *t;

    must(mdb_txn_begin(r->env, NULL, 0, &t), "mdb_txn_begin");
    for (struct connection *c = first; c; c = c->next)
        put(r, t, c->in, c->content);
    drop_old(r, t);
    must(mdb_txn_commit(t), "mdb_txn_commit");
    r->commits++;
}

static struct connection **end_of(struct connection **list)
{
    while (*list)
        list = &(*list)->next;
    return list;
}

static void *committer(void *arg)
{
    struct receiver *r = arg;

    for (;;) {
        uint64_t one = 1;
        pthread_mutex_lock(&r->lock);
        while (!r->todo)
            pthread_cond_wait(&r->work, &r->lock);
        struct connection *batch = r->todo;
        r->todo = NULL;
        pthread_mutex_unlock(&r->lock);
        commit(r, batch);
        pthread_mutex_lock(&r->lock);
        *end_of(&r->done) = batch;
        pthread_mutex_unlock(&r->lock);
        if (write(r->wake, &one, sizeof(one)) < 0)
            must(errno, "eventfd");
    }
    return NULL;
}

/* ---- SMTP ------------------------------------------------------------------------------------- */

static void answer(struct connection *c, const char *text)
{
    size_t n = strlen(text);

    if (c->n_out + n > sizeof(c->out))
        c->over = true;
    else
        memcpy(c->out + c->n_out, text, n), c->n_out += n;
}

/* A reply is short and its reader waits for it: one that does not fit into the socket is a broken peer. */
static void send_answers(struct connection *c)
{
    if (c->n_out && send(c->fd, c->out, c->n_out, MSG_NOSIGNAL) != (ssize_t)c->n_out)
        c->over = true;
    c->n_out = 0;
}

static void end_connection(struct connection *c)
{
    close(c->fd);
    free(c->in);
    free(c);
}

/* The content is done with: what follows the dot comes first now. */
static void drop_content(struct connection *c)
{
    size_t end = c->content + 3;

    memmove(c->in, c->in + end, c->n - end);
    c->n -= end;
    c->content = c->seen = 0;
}

static void message_here(struct receiver *r, struct connection *c, size_t end)
{
    c->content = end;
    c->data = false;
    r->messages++;
    if (r->null) {
        answer(c, "250 2.0.0 ok\r\n");
        drop_content(c);
        return;
    }
    c->waits = true;
    c->next = r->arrived;
    r->arrived = c;
}

static void on_content(struct receiver *r, struct connection *c)
{
    size_t from = c->seen > NULL_KEEPS ? c->seen - NULL_KEEPS : 0;
    char *dot = memmem(c->in + from, c->n - from, "\r\n.\r\n", 5);

    c->seen = c->n;
    if (dot) {
        message_here(r, c, (size_t)(dot + 2 - c->in));
    } else if (r->null && c->n > NULL_KEEPS) {
        memmove(c->in, c->in + c->n - NULL_KEEPS, NULL_KEEPS);
        c->n = c->seen = NULL_KEEPS;
    }
}

static void on_commands(struct connection *c)
{
    size_t done = 0;
    char *end;

    while (!c->data && !c->over && (end = memchr(c->in + done, '\n', c->n - done))) {
        char *line = c->in + done;
        done = (size_t)(end + 1 - c->in);
        if (!strncasecmp(line, "DATA", 4)) {
            answer(c, "354 go on\r\n");
            c->data = true;
            c->seen = 0;
        } else if (!strncasecmp(line, "QUIT", 4)) {
            answer(c, "221 2.0.0 bye\r\n");
            send_answers(c);
            c->over = true;
        } else if (!strncasecmp(line, "EHLO", 4)) {
            answer(
                c,
                "250-bare.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE\r\n");
        } else {
            answer(c, "250 2.0.0 ok\r\n");
        }
    }
    memmove(c->in, c->in + done, c->n - done);
    c->n -= done;
}

static void consume(struct receiver *r, struct connection *c)
{
    bool before;

    do {
        before = c->data;
        if (before)
            on_content(r, c);
        else
            on_commands(c);
    } while (!c->waits && !c->over && c->data != before);
}

static void on_input(struct receiver *r, struct connection *c)
{
    while (!c->over && !c->waits) {
        if (c->size - c->n < ROOM) {
            c->size = c->size ? c->size * 2 : 2 * (size_t)ROOM;
            c->in = realloc(c->in, c->size);
            if (!c->in)
                must(ENOMEM, "a message");
        }
        size_t room = c->size - c->n;
        ssize_t n = recv(c->fd, c->in + c->n, room, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0) {
            c->over = true;
            break;
        }
        c->n += (size_t)n;
        consume(r, c);
        if ((size_t)n < room)
            break;
    }
    send_answers(c);
    if (c->over && !c->waits)
        end_connection(c);
}

static void on_connection(struct receiver *r)
{
    int fd, one = 1;

    while ((fd = accept4(r->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = calloc(1, sizeof(*c));
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
        if (!c)
            must(ENOMEM, "a connection");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        c->fd = fd;
        if (epoll_ctl(r->ep, EPOLL_CTL_ADD, fd, &ev) < 0)
            must(errno, "epoll_ctl");
        answer(c, "220 bare.test ESMTP\r\n");
        send_answers(c);
    }
}

/* The committer is done with these. */
static void on_done(struct receiver *r)
{
    uint64_t n;

    if (read(r->wake, &n, sizeof(n)) < 0 && errno != EAGAIN)
        must(errno, "eventfd");
    pthread_mutex_lock(&r->lock);
    struct connection *c = r->done;
    r->done = NULL;
    pthread_mutex_unlock(&r->lock);
    for (struct connection *next; c; c = next) {
        next = c->next;
        c->next = NULL;
        c->waits = false;
        drop_content(c);
        answer(c, "250 2.0.0 queued\r\n");
        consume(r, c);
        send_answers(c);
        if (c->over)
            end_connection(c);
    }
}

static void hand_over(struct receiver *r)
{
    if (!r->arrived)
        return;
    pthread_mutex_lock(&r->lock);
    *end_of(&r->arrived) = r->todo;
    r->todo = r->arrived;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
    r->arrived = NULL;
}

/* ---- the whole -------------------------------------------------------------------------------- */

static void listen_there(struct receiver *r)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)r->port) };
    int one = 1;

    a.sin_addr.s_addr = htonl(r->any ? INADDR_ANY : INADDR_LOOPBACK);
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (r->listener < 0)
        must(errno, "socket");
    setsockopt(r->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (r->any && setsockopt(r->listener, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0)
        must(errno, "binding to the loopback interface");
    if (bind(r->listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(r->listener, 4096) < 0)
        must(errno, "listening");
    r->ep = epoll_create1(EPOLL_CLOEXEC);
    r->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &r->listener };
    if (r->ep < 0 || r->wake < 0 || epoll_ctl(r->ep, EPOLL_CTL_ADD, r->listener, &ev) < 0)
        must(errno, "epoll");
    ev.data.ptr = &r->wake;
    if (epoll_ctl(r->ep, EPOLL_CTL_ADD, r->wake, &ev) < 0)
        must(errno, "epoll");
}

static void print_result(struct receiver *r)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    printf("{\"messages\":%" PRIu64 ",\"commits\":%" PRIu64 ",\"cpu_s\":%.3f}\n", r->messages,
           r->commits, cpu);
    fflush(stdout);
}

static void serve(struct receiver *r)
{
    struct epoll_event events[EVENTS];

    while (!told_to_stop) {
        int n = epoll_wait(r->ep, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &r->listener)
                on_connection(r);
            else if (events[i].data.ptr == &r->wake)
                on_done(r);
            else if (!((struct connection *)events[i].data.ptr)->waits)
                on_input(r, events[i].data.ptr);
        }
        hand_over(r);
        if (r->count && r->messages >= r->count && !r->told++)
            print_result(r);
    }
    if (!r->told)
        print_result(r);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* One value a transaction, with a pause between: what an idle server waits for. */
static void time_commits(struct receiver *r)
{
    size_t commits = r->time_commits, size = r->time_size;
    unsigned gap_ms = r->time_gap_ms;
    double *took = calloc(commits, sizeof(*took));
    char *value = calloc(1, size);
    MDB_txn *t;

    if (!took || !value)
        must(ENOMEM, "values");
    for (size_t i = 0; i < commits; i++) {
        struct timespec gap = { gap_ms / 1000, (long)(gap_ms % 1000) * 1000000 };
        nanosleep(&gap, NULL);
        double t0 = seconds();
        must(mdb_txn_begin(r->env, NULL, 0, &t), "mdb_txn_begin");
        put(r, t, value, size);
        drop_old(r, t);
        must(mdb_txn_commit(t), "mdb_txn_commit");
        took[i] = seconds() - t0;
    }
    qsort(took, commits, sizeof(*took), by_value);
    printf("{\"commits\":%zu,\"size\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", commits, size,
           took[(commits - 1) / 2] * 1e6, took[(size_t)((double)(commits - 1) * 0.99)] * 1e6);
    free(took);
    free(value);
}

static const char help[] =
    "usage: bare_receiver --port PORT --null|--spool DIR [--count N] [--keep N] [--any]\n"
    "       bare_receiver --spool DIR --commits N [--size BYTES] [--gap MS] [--keep N]\n"
    "  --port PORT   of 127.0.0.1; --any: of all addresses of the loopback interface (127.0.0.0/8)\n"
    "  --count N     print the result as soon as so many messages are here\n"
    "  --keep N      messages that stay in the spool (2000)\n"
    "  --size, --gap value of a transaction (10240), pause before it (0)\n";

static unsigned long number(const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (*end || end == text) {
        fprintf(stderr, "bare_receiver: %s: a number is wanted here\n%s", text, help);
        exit(2);
    }
    return n;
}

static void parse(struct receiver *r, int argc, char **argv)
{
    static const struct option names[] = {
        { "port", 1, NULL, 'p' },    { "null", 0, NULL, 'n' }, { "spool", 1, NULL, 'd' },
        { "count", 1, NULL, 'c' },   { "keep", 1, NULL, 'k' }, { "any", 0, NULL, 'a' },
        { "commits", 1, NULL, 'C' }, { "size", 1, NULL, 'l' }, { "gap", 1, NULL, 'g' },
        { "help", 0, NULL, 'h' },    { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1)
        switch (c) {
        case 'p': r->port = (int)number(optarg); break;
        case 'n': r->null = true; break;
        case 'd': r->folder = optarg; break;
        case 'c': r->count = number(optarg); break;
        case 'k': r->keep = number(optarg); break;
        case 'a': r->any = true; break;
        case 'C': r->time_commits = number(optarg); break;
        case 'l': r->time_size = number(optarg); break;
        case 'g': r->time_gap_ms = (unsigned)number(optarg); break;
        case 'h': fputs(help, stdout); exit(0);
        default: fputs(help, stderr); exit(2);
        }
    bool place = r->time_commits ? r->folder != NULL : r->port > 0 && r->port <= 65535;
    if (optind != argc || !place || r->null == (r->folder != NULL)) {
        fputs(help, stderr);
        exit(2);
    }
}

static void prepare(void)
{
    struct sigaction stop = { .sa_handler = on_signal };
    struct rlimit files = { 0 };

    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv)
{
    struct receiver r = { .keep = 2000,
                          .time_size = 10240,
                          .lock = PTHREAD_MUTEX_INITIALIZER,
                          .work = PTHREAD_COND_INITIALIZER };

    parse(&r, argc, argv);
    if (r.folder)
        open_spool(&r);
    if (r.time_commits) {
        time_commits(&r);
        mdb_env_close(r.env);
        return 0;
    }
    prepare();
    listen_there(&r);
    if (r.folder) {
        pthread_t thread;
        must(pthread_create(&thread, NULL, committer, &r), "pthread_create");
    }
    serve(&r);
    return 0;
}
