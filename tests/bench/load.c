/* load.c - sends mail as fast as a server takes it, cheaply, and says how fast that was.
 *
 * One thread and epoll, so that most of a small machine is left to the server. What smtp-source cannot do and
 * the measurements need: as many recipient domains as one likes, a limit of messages per connection,
 * latencies, and sessions that stay open and say nothing (--idle), in clear or after STARTTLS.
 *
 * Each session sends MAIL, RCPT, DATA and the content, and waits for each reply, as smtp-source does
 * (--pipelining: the first three at once). The last line of output is one JSON object. Exit code: 0 when
 * all messages were accepted, 1 when not, 2 when the arguments are wrong.
 *
 * Ownership: everything belongs to `struct load`, and ends with the process. Times are microseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    IN_MAX = 4096,        /* of one reply */
    OUT_MAX = 256 * 1024, /* commands that wait to be written: 1,000 recipients and more */
    EVENTS = 256,
    OPENING_MAX = 200, /* connections on their way at once, in --idle */
    ERRORS_MAX = 1000, /* then it gives up */
    DOMAINS_MAX = 999999,
};

enum state {
    CLOSED,
    CONNECTING,
    GREETING,
    EHLO,
    STARTTLS,
    HANDSHAKE,
    MAIL,
    RCPT,
    DATA,
    FINAL,
    QUIT,
    IDLE
};

struct session {
    int fd; /* -1: closed */
    enum state state;
    SSL *ssl; /* NULL: in clear */
    bool want_out;
    uint32_t sent_here; /* messages begun on this connection */
    uint32_t rcpt_left; /* replies to RCPT to come */
    uint32_t refused;   /* of these, recipients refused */
    bool body;          /* the content is being written */
    size_t body_done;
    int64_t dot_at, due; /* due: when the next message may begin, with --gap */
    size_t n_in, n_out, out_done;
    char *out;
    size_t out_size;
    char in[IN_MAX];
};

struct options {
    struct sockaddr_in to;
    uint32_t sessions, messages, per_connection, domains, recipients, timeout_s, gap_ms;
    size_t size;
    const char *sender, *prefix;
    bool pipelining, idle, starttls;
};

struct load {
    struct options o;
    struct session *sessions;
    SSL_CTX *tls;
    int ep;
    char *content;
    size_t content_n;
    uint32_t begun, ended, accepted, errors;
    uint32_t opened, open, opening; /* sessions: ever, now, on their way */
    uint32_t *latency;              /* of each accepted message, by time of arrival of the reply */
    uint64_t domain;                /* the next one */
    char first_error[256];
};

static volatile sig_atomic_t told_to_stop;

static void on_signal(int number)
{
    told_to_stop = 1;
}

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* ---- a connection ----------------------------------------------------------------------------- */

static void watch(struct load *l, struct session *s, bool out)
{
    struct epoll_event ev = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = s };

    if (out != s->want_out && epoll_ctl(l->ep, EPOLL_CTL_MOD, s->fd, &ev) < 0)
        die("epoll_ctl");
    s->want_out = out;
}

static void close_session(struct load *l, struct session *s)
{
    if (s->fd < 0)
        return;
    if (s->state < MAIL && s->state != CLOSED && l->opening > 0)
        l->opening--;
    if (s->ssl)
        SSL_free(s->ssl);
    s->ssl = NULL;
    close(s->fd);
    s->fd = -1;
    s->state = CLOSED;
    l->open--;
}

/* The message under way, if any, has failed, and so has the connection. */
static void fail(struct load *l, struct session *s, const char *what)
{
    if (l->errors++ == 0)
        snprintf(l->first_error, sizeof(l->first_error), "%.200s", what);
    if (s->state >= MAIL && s->state <= FINAL)
        l->ended++;
    close_session(l, s);
}

static void open_session(struct load *l, struct session *s)
{
    int one = 1;

    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        die("socket");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    s->n_in = s->n_out = s->out_done = s->sent_here = 0;
    s->body = false;
    s->state = CONNECTING;
    l->open++;
    l->opening++;
    if (connect(s->fd, (struct sockaddr *)&l->o.to, sizeof(l->o.to)) < 0 && errno != EINPROGRESS) {
        fail(l, s, strerror(errno));
        return;
    }
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT, .data.ptr = s };
    s->want_out = true;
    if (epoll_ctl(l->ep, EPOLL_CTL_ADD, s->fd, &ev) < 0)
        die("epoll_ctl");
}

/* Bytes moved, 0: not now, -1: the connection is over. */
static ssize_t transfer(struct session *s, bool out, char *p, size_t n)
{
    ssize_t r;

    if (s->ssl) {
        r = out ? SSL_write(s->ssl, p, (int)n) : SSL_read(s->ssl, p, (int)n);
        if (r > 0)
            return r;
        int why = SSL_get_error(s->ssl, (int)r);
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    r = out ? send(s->fd, p, n, MSG_NOSIGNAL) : recv(s->fd, p, n, 0);
    if (r > 0 || (r == 0 && out))
        return r;
    return r < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

/* Commands first, then the content. */
static void flush(struct load *l, struct session *s)
{
    while (s->out_done < s->n_out || (s->body && s->body_done < l->content_n)) {
        bool command = s->out_done < s->n_out;
        char *p = command ? s->out + s->out_done : l->content + s->body_done;
        size_t n = command ? s->n_out - s->out_done : l->content_n - s->body_done;
        if (!command)
            s->dot_at = now_us(); /* of the last write: the dot is in it */
        ssize_t r = transfer(s, true, p, n);
        if (r < 0) {
            fail(l, s, "the connection ended while writing");
            return;
        }
        if (r == 0) {
            watch(l, s, true);
            return;
        }
        *(command ? &s->out_done : &s->body_done) += (size_t)r;
    }
    s->n_out = s->out_done = 0;
    s->body = false;
    watch(l, s, false);
}

static void say(struct session *s, const char *text)
{
    size_t n = strlen(text);

    if (s->n_out + n > s->out_size) {
        s->out_size = (s->n_out + n) * 2;
        s->out = realloc(s->out, s->out_size);
        if (!s->out)
            die("memory");
    }
    memcpy(s->out + s->n_out, text, n);
    s->n_out += n;
}

/* ---- the dialogue ----------------------------------------------------------------------------- */

static void say_recipients(struct load *l, struct session *s)
{
    char line[512];
    unsigned domain = (unsigned)(l->domain++ % l->o.domains) + 1;

    for (uint32_t i = 0; i < l->o.recipients; i++) {
        if (l->o.recipients == 1)
            snprintf(line, sizeof(line), "RCPT TO:<rcpt@%s-%06u.test>\r\n", l->o.prefix, domain);
        else
            snprintf(line, sizeof(line), "RCPT TO:<rcpt-%u@%s-%06u.test>\r\n", i, l->o.prefix,
                     domain);
        say(s, line);
    }
    s->rcpt_left = l->o.recipients;
    s->refused = 0;
}

/* The next message, or the end of the connection. */
static void next(struct load *l, struct session *s)
{
    char line[512];
    bool full = l->o.per_connection && s->sent_here >= l->o.per_connection;

    if (s->due > now_us()) {
        s->state = IDLE;
        return;
    }
    if (l->begun >= l->o.messages || full) {
        say(s, "QUIT\r\n");
        s->state = QUIT;
        flush(l, s);
        return;
    }
    l->begun++;
    s->sent_here++;
    s->state = MAIL;
    snprintf(line, sizeof(line), "MAIL FROM:<%s>\r\n", l->o.sender);
    say(s, line);
    if (l->o.pipelining) {
        say_recipients(l, s);
        say(s, "DATA\r\n");
    }
    flush(l, s);
}

static void after_ehlo(struct load *l, struct session *s)
{
    if (l->o.starttls && !s->ssl) {
        say(s, "STARTTLS\r\n");
        s->state = STARTTLS;
        flush(l, s);
        return;
    }
    l->opening--;
    l->opened++;
    s->state = IDLE;
    if (!l->o.idle)
        next(l, s);
}

static void handshake(struct load *l, struct session *s)
{
    int r = SSL_do_handshake(s->ssl);

    if (r == 1) {
        say(s, "EHLO client.test\r\n");
        s->state = EHLO;
        flush(l, s);
        return;
    }
    int why = SSL_get_error(s->ssl, r);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        watch(l, s, why == SSL_ERROR_WANT_WRITE);
    else
        fail(l, s, "the TLS handshake failed");
}

static void begin_tls(struct load *l, struct session *s)
{
    s->ssl = SSL_new(l->tls);
    if (!s->ssl || SSL_set_fd(s->ssl, s->fd) != 1)
        die("OpenSSL");
    SSL_set_connect_state(s->ssl);
    s->state = HANDSHAKE;
    handshake(l, s);
}

static void message_done(struct load *l, struct session *s)
{
    int64_t now = now_us();

    l->latency[l->accepted++] = (uint32_t)(now - s->dot_at);
    l->ended++;
    s->due = l->o.gap_ms ? now + (int64_t)l->o.gap_ms * 1000 : 0;
    s->state = IDLE;
    next(l, s);
}

static void on_rcpt_reply(struct load *l, struct session *s, bool ok, const char *line)
{
    s->refused += !ok;
    if (--s->rcpt_left > 0)
        return;
    if (s->refused > 0) {
        fail(l, s, line);
        return;
    }
    if (!l->o.pipelining)
        say(s, "DATA\r\n");
    s->state = DATA;
    flush(l, s);
}

/* One reply: its last line. */
static void on_reply(struct load *l, struct session *s, const char *line)
{
    char kind = line[0];
    bool ok = kind == (s->state == DATA ? '3' : '2');

    if (!ok && s->state != QUIT && s->state != RCPT) {
        fail(l, s, line);
        return;
    }
    switch (s->state) {
    case GREETING:
        say(s, "EHLO client.test\r\n");
        s->state = EHLO;
        flush(l, s);
        break;
    case EHLO: after_ehlo(l, s); break;
    case STARTTLS: begin_tls(l, s); break;
    case MAIL:
        if (!l->o.pipelining)
            say_recipients(l, s);
        s->state = RCPT;
        flush(l, s);
        break;
    case RCPT: on_rcpt_reply(l, s, ok, line); break;
    case DATA:
        s->body = true;
        s->body_done = 0;
        s->state = FINAL;
        flush(l, s);
        break;
    case FINAL: message_done(l, s); break;
    case QUIT: close_session(l, s); break;
    default: fail(l, s, "a reply to nothing");
    }
}

static void on_lines(struct load *l, struct session *s)
{
    size_t done = 0;
    char *end;

    while (s->fd >= 0 && (end = memchr(s->in + done, '\n', s->n_in - done))) {
        char *line = s->in + done;
        done = (size_t)(end + 1 - s->in);
        *end = '\0';
        if (end - line >= 4 && line[3] == '-')
            continue;
        on_reply(l, s, line);
    }
    if (s->fd < 0)
        return;
    memmove(s->in, s->in + done, s->n_in - done);
    s->n_in -= done;
    if (s->n_in == IN_MAX)
        fail(l, s, "a reply that does not end");
}

static void on_input(struct load *l, struct session *s)
{
    while (s->fd >= 0 && s->state != HANDSHAKE) {
        size_t room = IN_MAX - s->n_in;
        ssize_t r = transfer(s, false, s->in + s->n_in, room);
        if (r == 0)
            return;
        if (r < 0 && s->state == QUIT)
            close_session(l, s);
        else if (r < 0)
            fail(l, s, "the server ended the connection");
        else {
            s->n_in += (size_t)r;
            on_lines(l, s);
        }
        if ((size_t)r < room && !s->ssl)
            return; /* nothing more for now, most likely; epoll tells otherwise */
    }
}

static void on_event(struct load *l, struct session *s, uint32_t events)
{
    if (s->fd < 0)
        return;
    if (s->state == CONNECTING) {
        int error = 0;
        socklen_t n = sizeof(error);
        getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (error) {
            fail(l, s, strerror(error));
            return;
        }
        s->state = GREETING;
        watch(l, s, false);
        return;
    }
    if (s->state == HANDSHAKE) {
        handshake(l, s);
        return;
    }
    if (events & EPOLLOUT)
        flush(l, s);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        on_input(l, s);
}

/* ---- the whole -------------------------------------------------------------------------------- */

/* Opens what is to be open; the time until a session's pause ends, or -1. */
static int turn(struct load *l)
{
    int wait = -1;
    int64_t now = l->o.gap_ms ? now_us() : 0;

    if (l->open == l->o.sessions && !l->o.gap_ms)
        return -1;
    for (uint32_t i = 0; i < l->o.sessions; i++) {
        struct session *s = &l->sessions[i];
        bool more = l->o.idle ? l->opening < OPENING_MAX && l->opened + l->opening < l->o.sessions
                              : l->begun + l->opening < l->o.messages;
        if (s->fd < 0 && more && l->errors < ERRORS_MAX)
            open_session(l, s);
        if (!l->o.idle && s->state == IDLE && s->fd >= 0) {
            if (s->due <= now)
                next(l, s);
            else if (wait < 0 || s->due - now < (int64_t)wait * 1000)
                wait = (int)((s->due - now) / 1000) + 1;
        }
    }
    return wait;
}

static bool done(const struct load *l)
{
    if (told_to_stop || l->errors >= ERRORS_MAX)
        return true;
    if (l->o.idle)
        return l->opened >= l->o.sessions || (l->open == 0 && l->errors > 0);
    return l->ended >= l->o.messages && l->open == 0;
}

/* false: the time is over. */
static bool run(struct load *l)
{
    int64_t end = now_us() + (int64_t)l->o.timeout_s * 1000000;
    struct epoll_event events[EVENTS];

    while (!done(l)) {
        int wait = turn(l);
        int64_t left = (end - now_us()) / 1000;
        if (left <= 0)
            return false;
        wait = wait < 0 || wait > left ? (int)left : wait;
        int n = epoll_wait(l->ep, events, EVENTS, wait);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++)
            on_event(l, events[i].data.ptr, events[i].events);
    }
    return true;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static uint32_t quantile(const struct load *l, double q)
{
    return l->accepted ? l->latency[(size_t)((l->accepted - 1) * q)] : 0;
}

static void print_result(struct load *l, double seconds, bool in_time)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    for (char *p = l->first_error; *p; p++)
        *p = *p < ' ' || *p == '"' || *p == '\\' || *p > '~' ? ' ' : *p;
    qsort(l->latency, l->accepted, sizeof(*l->latency), by_value);
    printf(
        "{\"accepted\":%u,\"sessions\":%u,\"seconds\":%.4f,\"per_s\":%.1f,\"p50_us\":%u,\"p99_us\":%u,"
        "\"cpu_s\":%.3f,\"errors\":%u,\"first_error\":\"%s\",\"in_time\":%s}\n",
        l->accepted, l->opened, seconds, seconds > 0 ? l->accepted / seconds : 0, quantile(l, 0.5),
        quantile(l, 0.99), cpu, l->errors, l->first_error, in_time ? "true" : "false");
    fflush(stdout);
}

/* Lines of text to the size that was asked for, and the dot. */
static void make_content(struct load *l)
{
    static const char head[] = "From: <from@client.test>\r\nTo: <rcpt@dest.test>\r\n"
                               "Date: Mon, 30 Nov 2026 12:00:00 +0000\r\n"
                               "Message-Id: <load@client.test>\r\nSubject: load\r\n\r\n";
    size_t n = sizeof(head) - 1 > l->o.size ? sizeof(head) - 1 : l->o.size;

    l->content = malloc(n + 8);
    if (!l->content)
        die("memory");
    memcpy(l->content, head, sizeof(head) - 1);
    for (size_t i = sizeof(head) - 1, column = 0; i < n; i++, column = (column + 1) % 78)
        l->content[i] = column == 76 ? '\r' : column == 77 ? '\n' : (char)('A' + column % 26);
    if (l->content[n - 1] == '\r')
        l->content[n - 1] = 'X';
    memcpy(l->content + n, l->content[n - 1] == '\n' ? ".\r\n" : "\r\n.\r\n", 6);
    l->content_n = n + (l->content[n - 1] == '\n' ? 3 : 5);
}

static const char help[] =
    "usage: load --to [ADDRESS:]PORT [OPTION ...]      (IPv4; default 127.0.0.1)\n"
    "  --sessions N        in parallel (50)\n"
    "  --messages N        in all (5000)\n"
    "  --size BYTES        of each, headers included (10240)\n"
    "  --per-connection N  messages over one connection; 0: all (0)\n"
    "  --domains N         recipients' domains, in turn: dest-000001.test ... (1)\n"
    "  --prefix NAME       the first part of these domains' names (dest)\n"
    "  --recipients N      of each message (1)\n"
    "  --sender ADDRESS    (from@client.test)\n"
    "  --gap MS            a session waits so long before its next message (0)\n"
    "  --pipelining        MAIL, RCPT and DATA at once\n"
    "  --starttls          with TLS; the certificate is not checked\n"
    "  --idle              opens the sessions up to EHLO, prints the result, and holds them until SIGTERM\n"
    "  --timeout S         gives up after so long (300)\n";

static uint32_t number(const char *text, uint32_t min, uint32_t max)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (*end || end == text || n < min || n > max) {
        fprintf(stderr, "load: %s: a number from %u to %u is wanted here\n%s", text, min, max,
                help);
        exit(2);
    }
    return (uint32_t)n;
}

static void parse_server(struct options *o, char *text)
{
    char *colon = strrchr(text, ':');

    o->to.sin_family = AF_INET;
    o->to.sin_port = htons((uint16_t)number(colon ? colon + 1 : text, 1, 65535));
    o->to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!colon)
        return;
    *colon = '\0';
    if (inet_pton(AF_INET, text, &o->to.sin_addr) != 1) {
        fprintf(stderr, "load: %s is no IPv4 address\n%s", text, help);
        exit(2);
    }
}

static void parse(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        { "to", 1, NULL, 't' },
        { "sessions", 1, NULL, 's' },
        { "messages", 1, NULL, 'm' },
        { "size", 1, NULL, 'l' },
        { "per-connection", 1, NULL, 'c' },
        { "domains", 1, NULL, 'd' },
        { "recipients", 1, NULL, 'r' },
        { "sender", 1, NULL, 'f' },
        { "gap", 1, NULL, 'g' },
        { "prefix", 1, NULL, 'x' },
        { "pipelining", 0, NULL, 'p' },
        { "starttls", 0, NULL, 'S' },
        { "idle", 0, NULL, 'i' },
        { "timeout", 1, NULL, 'T' },
        { "help", 0, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1)
        switch (c) {
        case 't': parse_server(o, optarg); break;
        case 's': o->sessions = number(optarg, 1, 100000); break;
        case 'm': o->messages = number(optarg, 1, 100000000); break;
        case 'l': o->size = number(optarg, 1, 1 << 30); break;
        case 'c': o->per_connection = number(optarg, 0, 1 << 30); break;
        case 'd': o->domains = number(optarg, 1, DOMAINS_MAX); break;
        case 'r': o->recipients = number(optarg, 1, 10000); break;
        case 'f': o->sender = optarg; break;
        case 'g': o->gap_ms = number(optarg, 0, 3600000); break;
        case 'x': o->prefix = optarg; break;
        case 'p': o->pipelining = true; break;
        case 'S': o->starttls = true; break;
        case 'i': o->idle = true; break;
        case 'T': o->timeout_s = number(optarg, 1, 86400); break;
        case 'h': fputs(help, stdout); exit(0);
        default: fputs(help, stderr); exit(2);
        }
    if (o->to.sin_port == 0 || optind != argc) {
        fputs(help, stderr);
        exit(2);
    }
}

static void prepare(struct load *l)
{
    struct rlimit files = { 0 };
    struct sigaction stop = { .sa_handler = on_signal };

    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    l->ep = epoll_create1(EPOLL_CLOEXEC);
    l->sessions = calloc(l->o.sessions, sizeof(*l->sessions));
    l->latency = calloc(l->o.messages, sizeof(*l->latency));
    if (l->ep < 0 || !l->sessions || !l->latency)
        die("start");
    for (uint32_t i = 0; i < l->o.sessions; i++)
        l->sessions[i].fd = -1;
    if (l->o.starttls) {
        l->tls = SSL_CTX_new(TLS_client_method());
        if (!l->tls)
            die("OpenSSL");
        SSL_CTX_set_mode(l->tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE);
    }
    make_content(l);
}

int main(int argc, char **argv)
{
    struct load l = { .o = { .sessions = 50,
                             .messages = 5000,
                             .domains = 1,
                             .recipients = 1,
                             .timeout_s = 300,
                             .size = 10240,
                             .prefix = "dest",
                             .sender = "from@client.test" } };

    parse(&l.o, argc, argv);
    prepare(&l);
    int64_t t0 = now_us();
    bool in_time = run(&l);
    print_result(&l, (double)(now_us() - t0) / 1e6, in_time);
    if (!l.o.idle)
        return l.accepted == l.o.messages ? 0 : 1;
    while (!told_to_stop)
        pause();
    return l.opened == l.o.sessions ? 0 : 1;
}
