/* control_client.c - asks the running daemon. Layer: daemon. Interface: control_client.h. */
#include "daemon/control_client.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "daemon/columns.h"
#include "daemon/load.h"

enum { HEAD_MAX = 16 * 1024, ANSWER_MAX = 64 * 1024 * 1024, PIECE = 64 * 1024, WAIT_S = 60 };

/* ---- the answer's head ------------------------------------------------------------------------ */

int http_head_parse(struct str in, struct http_head *ret)
{
    ptrdiff_t end = str_find(in, STR("\r\n\r\n"));
    struct http_head h = { .length = -1 };
    struct str head, line;
    uint64_t n;

    if (end < 0)
        return in.n >= HEAD_MAX ? -EPROTO : 0;
    h.head = (size_t)end + 4;
    head = str_first(in, (size_t)end);
    str_cut(&head, '\n', &line);
    if (!str_starts(line, STR("HTTP/1.")) || line.n < 12 ||
        str_to_u64(str_first(str_from(line, 9), 3), &n) < 0 || n < 100 || n > 599)
        return -EPROTO;
    h.status = (unsigned)n;
    while (str_cut(&head, '\n', &line)) {
        if (!str_casestarts(line, STR("content-length:")))
            continue;
        if (str_to_u64(str_trim(str_from(line, 15)), &n) < 0 || n > INT64_MAX)
            return -EPROTO;
        h.length = (int64_t)n;
    }
    *ret = h;
    return 1;
}

/* ---- one request ------------------------------------------------------------------------------ */

static int not_running(const char *path, struct failure *f)
{
    return failure_set(
        f, EX_UNAVAILABLE,
        "the router is not running: nobody answers on %s; start it with 'tern run', or "
        "name the configuration of the one that runs with -c",
        path);
}

static int connect_to(const char *path, struct failure *f)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    struct timeval wait = { .tv_sec = WAIT_S };
    int fd;

    if (!str_copy(str_of(path), to.sun_path, sizeof(to.sun_path)))
        return failure_set(f, EX_DATAERR, "the path of the control socket is too long: %s", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return failure_set(f, EX_OSERR, "cannot make a socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    int e = errno;
    close(fd);
    if (e == ENOENT || e == ECONNREFUSED || e == ENOTDIR)
        return not_running(path, f);
    if (e == EACCES || e == EPERM)
        return failure_set(
            f, EX_NOPERM,
            "this user may not use the control socket %s: run this as root or as the "
            "router's user, or join the socket's group",
            path);
    return failure_set(f, EX_UNAVAILABLE, "cannot reach the router on %s: %s", path, strerror(e));
}

static int send_all(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return -errno;
        s = str_from(s, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

static int send_request(int fd, const char *method, const char *target, const char *body,
                        struct failure *f)
{
    struct buf b;
    int e;

    buf_init(&b, 0);
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: tern\r\nConnection: close\r\n", method, target);
    if (body)
        buf_printf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    buf_printf(&b, "\r\n%s", body ? body : "");
    e = b.failed ? b.failed : send_all(fd, buf_str(&b));
    buf_done(&b);
    return e < 0 ? failure_set(f, EX_IOERR, "cannot ask the router: %s", strerror(-e)) : 0;
}

/* Reads some; 0 at the end. */
static ssize_t receive(int fd, struct buf *in, struct failure *f)
{
    char *room = buf_room(in, PIECE);
    ssize_t n;

    if (!room)
        return failure_set(f, EX_SOFTWARE, "the router's answer is too large");
    do
        n = recv(fd, room, PIECE, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return failure_set(f, EX_TEMPFAIL, "the router did not answer within %d seconds", WAIT_S);
    if (n < 0)
        return failure_set(f, EX_IOERR, "cannot read the router's answer: %s", strerror(errno));
    buf_added(in, (size_t)n);
    return n;
}

/* The head, with what came of the body left in *in. */
static int receive_head(int fd, struct buf *in, struct http_head *ret, struct failure *f)
{
    int r;

    while ((r = http_head_parse(buf_str(in), ret)) == 0) {
        ssize_t n = receive(fd, in, f);
        if (n < 0)
            return -1;
        if (n == 0)
            return failure_set(f, EX_TEMPFAIL, "the router ended the connection without an answer");
    }
    if (r < 0)
        return failure_set(f, EX_UNAVAILABLE, "what listens on the control socket is no router");
    buf_consume(in, ret->head);
    return 0;
}

static int receive_body(int fd, struct buf *in, const struct http_head *head, struct failure *f)
{
    while (head->length < 0 || buf_len(in) < (uint64_t)head->length) {
        ssize_t n = receive(fd, in, f);
        if (n < 0)
            return -1;
        if (n == 0 && head->length < 0)
            break;
        if (n == 0)
            return failure_set(f, EX_TEMPFAIL, "the router's answer is not complete");
    }
    return 0;
}

/* Connects and asks: a descriptor from which the answer can be read, or -1. */
static int open_request(const struct client *c, const char *method, const char *target,
                        const char *body, struct failure *f)
{
    AUTO_FREE char *path = NULL;
    int fd;

    if (!c->socket && load_control_path(c->config, &path, f) < 0)
        return -1;
    fd = connect_to(c->socket ? c->socket : path, f);
    if (fd >= 0 && send_request(fd, method, target, body, f) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int exit_code_of_status(unsigned status, const json_t *answer)
{
    switch (status) {
    case 400:
    case 413: return EX_DATAERR;
    case 403: return EX_NOPERM;
    case 404: return EX_NOINPUT;
    case 409:
    case 503:
    case 504: return EX_TEMPFAIL;
    case 422:
        return json_int_of(answer, "exit_code") ? (int)json_int_of(answer, "exit_code") : EX_CONFIG;
    case 507: return EX_CANTCREAT;
    default: return EX_SOFTWARE;
    }
}

static int refused(const struct client *c, unsigned status, const json_t *answer, struct failure *f)
{
    const char *text = json_text_of(answer, "message");

    if (c->json && answer)
        client_print_json(answer);
    failure_set(f, exit_code_of_status(status, answer), "%s",
                *text ? text : "the router refused, and did not say why");
    str_copy(str_of(json_text_of(answer, "detail")), f->detail, sizeof(f->detail));
    return -1;
}

/* The answer to what was asked on that descriptor, which is closed. */
static int take_answer(const struct client *c, int fd, json_t **ret, struct failure *f)
{
    struct http_head head;
    struct buf in;

    buf_init(&in, ANSWER_MAX);
    int r = receive_head(fd, &in, &head, f);
    if (r == 0)
        r = receive_body(fd, &in, &head, f);
    close(fd);
    json_t *answer = r == 0 ? json_loadb(buf_str(&in).p, buf_len(&in), 0, NULL) : NULL;
    buf_done(&in);
    if (r < 0)
        return -1;
    if (head.status < 200 || head.status > 299) {
        refused(c, head.status, answer, f);
        json_decref(answer);
        return -1;
    }
    if (!json_is_object(answer)) {
        json_decref(answer);
        return failure_set(f, EX_UNAVAILABLE, "what listens on the control socket is no router");
    }
    *ret = answer;
    return 0;
}

int client_ask(const struct client *c, const char *method, const char *target, json_t *body,
               json_t **ret, struct failure *f)
{
    AUTO_FREE char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

    json_decref(body);
    int fd = open_request(c, method, target, text, f);
    return fd < 0 ? -1 : take_answer(c, fd, ret, f);
}

/* One piece of the file as it is sent. *last: the octet before it. */
static int add_piece(struct buf *out, struct str piece, bool crlf, char *last)
{
    if (!crlf)
        return buf_add_str(out, piece);
    for (size_t i = 0; i < piece.n; i++) {
        if (piece.p[i] == '\n' && *last != '\r')
            buf_add_char(out, '\r');
        *last = piece.p[i];
        buf_add_char(out, *last);
    }
    return out->failed;
}

static int send_content(int fd, FILE *content, bool crlf, struct failure *f)
{
    AUTO_FREE char *piece = malloc(PIECE);
    struct buf out;
    char last = '\0';
    size_t n;
    int e = piece ? 0 : -ENOMEM;

    buf_init(&out, 0);
    while (e == 0 && (n = fread(piece, 1, PIECE, content)) > 0) {
        buf_clear(&out);
        e = add_piece(&out, str_make(piece, n), crlf, &last);
        if (e == 0)
            e = send_all(fd, buf_str(&out));
    }
    if (e == 0 && ferror(content))
        e = -EIO;
    buf_done(&out);
    return e < 0 ? failure_set(f, EX_IOERR, "cannot hand it to the router: %s", strerror(-e)) : 0;
}

int client_upload(const struct client *c, const char *target, struct str head, FILE *content,
                  bool crlf, uint64_t length, json_t **ret, struct failure *f)
{
    AUTO_FREE char *path = NULL;
    struct buf b;

    if (!c->socket && load_control_path(c->config, &path, f) < 0)
        return -1;
    int fd = connect_to(c->socket ? c->socket : path, f);
    if (fd < 0)
        return -1;
    buf_init(&b, 0);
    buf_printf(&b,
               "POST %s HTTP/1.1\r\nHost: tern\r\nConnection: close\r\n"
               "Content-Type: application/octet-stream\r\nContent-Length: %llu\r\n\r\n",
               target, (unsigned long long)head.n + length);
    buf_add_str(&b, head);
    int e = b.failed ? b.failed : send_all(fd, buf_str(&b));
    buf_done(&b);
    if (e < 0)
        failure_set(f, EX_IOERR, "cannot ask the router: %s", strerror(-e));
    else
        e = send_content(fd, content, crlf, f);
    if (e < 0) {
        close(fd);
        return -1;
    }
    return take_answer(c, fd, ret, f);
}

int client_fetch(const struct client *c, const char *target, FILE *out, struct failure *f)
{
    struct http_head head = { 0 };
    struct buf in;
    int64_t left;
    ssize_t n = 1;
    int fd = open_request(c, "GET", target, NULL, f), r;

    if (fd < 0)
        return -1;
    buf_init(&in, ANSWER_MAX);
    r = receive_head(fd, &in, &head, f);
    if (r == 0 && head.status != 200) {
        r = receive_body(fd, &in, &head, f);
        json_t *answer = r == 0 ? json_loadb(buf_str(&in).p, buf_len(&in), 0, NULL) : NULL;
        if (r == 0)
            r = refused(c, head.status, answer, f);
        json_decref(answer);
    }
    for (left = head.length; r == 0 && n > 0;) {
        size_t had = buf_len(&in);
        if (had && fwrite(buf_str(&in).p, 1, had, out) != had)
            r = failure_set(f, EX_IOERR, "cannot write: %s", strerror(errno));
        left -= (int64_t)had;
        buf_clear(&in);
        if (r == 0 && left > 0) {
            n = receive(fd, &in, f);
            r = n < 0 ? -1 : 0;
        } else {
            n = 0;
        }
    }
    if (r == 0 && left > 0)
        r = failure_set(f, EX_TEMPFAIL,
                        "the content ended early: the message has been delivered meanwhile");
    buf_done(&in);
    close(fd);
    return r;
}

/* ---- values ----------------------------------------------------------------------------------- */

void client_print_json(const json_t *answer)
{
    json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    putchar('\n');
}

const char *json_text_of(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text ? text : "";
}

int64_t json_int_of(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

const char *change_text(const json_t *change, char *dst, size_t size)
{
    const char *place = json_text_of(change, "place");
    int64_t n = json_int_of(change, "count");
    char count[32] = "";

    if (n > 1)
        snprintf(count, sizeof(count), "%" PRId64 " ", n);
    snprintf(dst, size, "%s %s%s%s%s%s", json_text_of(change, "op"), count,
             json_text_of(change, "name"), *place ? "  (" : "", place, *place ? ")" : "");
    clean_text(dst);
    return dst;
}
