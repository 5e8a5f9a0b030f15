/* control.c - the control API: connections, bodies, answers, requests that wait.
 *
 * Layer: daemon, main thread. Interface: control.h, control_call.h.
 *
 * libmicrohttpd brings its own epoll descriptor, which is watched by the main loop; what it wants to do
 * later it says by MHD_get_timeout. A request that waits for workers is suspended, and resumed when they
 * have answered or after 10 s.
 *
 * Connections are accepted here, not by the library, which would spin when descriptors run out. One is
 * kept in reserve, so that an operator still gets in then.
 */
#include "daemon/control.h"

#include <fcntl.h>
#include <microhttpd.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/units.h"
#include "daemon/control_call.h"
#include "daemon/operations.h"

enum {
    CONNECTIONS_MAX = 128,
    IDLE_S = 30,
    CONNECTION_BYTES = 32 * 1024,
    BODY_ABORT = 1 << 20,
    ACCEPT_PAUSE_MS = 100, /* when descriptors run out */
    ACCEPT_PER_TURN = 16,
};

struct control {
    struct router *router;
    struct MHD_Daemon *mhd;
    int fd;      /* listens */
    int reserve; /* a descriptor to be given up; -1: it has been */
    char *path;
    struct io_watch *accept_watch; /* NULL: paused */
    struct timer accept_pause;
    struct io_watch *watch;
    struct timer timer;
    struct later run;
    struct list works;
};

/* ---- the library's turns ---------------------------------------------------------------------- */

static void keep_reserve(struct control *c)
{
    if (c->reserve < 0)
        c->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void run(struct control *c)
{
    MHD_UNSIGNED_LONG_LONG ms;

    MHD_run(c->mhd);
    keep_reserve(c);
    if (MHD_get_timeout(c->mhd, &ms) == MHD_YES)
        io_loop_timer_set(c->router->loop, &c->timer,
                          io_loop_now(c->router->loop) + (int64_t)MIN(ms, 60000ULL));
    else
        io_loop_timer_stop(c->router->loop, &c->timer);
}

static void on_ready(void *owner)
{
    run(owner);
}

static void on_timer(struct timer *t)
{
    run(CONTAINER_OF(t, struct control, timer));
}

static void on_later(struct later *l)
{
    run(CONTAINER_OF(l, struct control, run));
}

/* ---- answers ---------------------------------------------------------------------------------- */

void control_resume(struct control_call *c)
{
    if (!c->suspended)
        return;
    c->suspended = false;
    MHD_resume_connection(c->connection);
    io_loop_later(c->router->loop, &c->control->run);
}

void control_answer_response(struct control_call *c, unsigned status, const char *type,
                             struct MHD_Response *response)
{
    CHECK(!c->response);
    if (response && (MHD_add_response_header(response, "Content-Type", type) != MHD_YES ||
                     MHD_add_response_header(response, "Cache-Control", "no-store") != MHD_YES)) {
        MHD_destroy_response(response);
        response = NULL;
    }
    c->response = response; /* NULL: out of memory; the connection is closed */
    c->status = status;
    io_loop_timer_stop(c->router->loop, &c->deadline);
    control_resume(c);
}

void control_answer_bytes(struct control_call *c, unsigned status, const char *type,
                          struct str bytes)
{
    control_answer_response(
        c, status, type,
        MHD_create_response_from_buffer(bytes.n, (void *)(uintptr_t)(bytes.p ? bytes.p : ""),
                                        MHD_RESPMEM_MUST_COPY));
}

void control_answer(struct control_call *c, unsigned status, json_t *answer)
{
    AUTO_FREE char *text =
        answer ? json_dumps(answer, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;

    json_decref(answer);
    if (!text) {
        control_answer_response(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "application/json", NULL);
        return;
    }
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the NUL: the length is known */
    control_answer_bytes(c, status, "application/json", str_make(text, n + 1));
}

void control_error(struct control_call *c, unsigned status, const char *code, const char *fmt, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    control_answer(c, status,
                   json_pack("{s:s, s:o}", "error", code, "message", control_text(str_of(text))));
}

void control_errno(struct control_call *c, int error)
{
    switch (error) {
    case -ENOENT: control_error(c, 404, "not_found", "there is no such message or queue"); break;
    case -EBUSY:
        control_error(c, 409, "busy", "it is being delivered at this moment; try again");
        break;
    case -ENOSPC: control_error(c, 507, "no_space", "the spool has no room on its disk"); break;
    case -ESHUTDOWN: control_error(c, 503, "stopping", "the router is stopping"); break;
    case -EBADMSG:
        control_error(c, 500, "damaged",
                      "a record of it in the spool is damaged; 'tern spool check' tells which");
        break;
    default: control_error(c, 500, "failed", "%s", strerror(-error));
    }
}

/* ---- JSON values ------------------------------------------------------------------------------ */

json_t *control_text(struct str s)
{
    struct buf clean;
    json_t *text;

    if (!s.p)
        s = STR("");
    if (str_is_utf8(s) && (text = json_stringn(s.p, s.n)))
        return text;
    buf_init(&clean, 0);
    while (s.n) {
        size_t n = str_utf8_len(s);
        if (n)
            buf_add(&clean, s.p, n);
        else
            buf_add_str(&clean, STR("\xef\xbf\xbd"));
        s = str_from(s, n ? n : 1);
    }
    text = json_stringn(buf_str(&clean).p ? buf_str(&clean).p : "", buf_len(&clean));
    buf_done(&clean);
    return text;
}

json_t *control_text_or_null(struct str s)
{
    return str_empty(s) ? json_null() : control_text(s);
}

json_t *control_time(int64_t wall_ms)
{
    char text[32];

    return wall_ms ? json_string(date_iso8601(wall_ms, text)) : json_null();
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static void on_deadline(struct timer *t)
{
    struct control_call *c = CONTAINER_OF(t, struct control_call, deadline);

    if (c->work)
        c->work->call = NULL;
    c->work = NULL;
    int seconds = (int)(c->wait_ms / 1000);
    if (c->goes_on)
        control_answer(c, 202,
                       json_pack("{s:b, s:o}", "under_way", 1, "message",
                                 json_sprintf("this takes longer than %d seconds; the router goes "
                                              "on with it",
                                              seconds)));
    else
        control_error(c, 504, "timeout", "a worker did not answer within %d seconds", seconds);
}

void control_wait_at_most(struct control_call *c, int64_t ms)
{
    c->wait_ms = ms;
    io_loop_timer_set(c->router->loop, &c->deadline, io_loop_now(c->router->loop) + ms);
}

void control_wait(struct control_call *c, struct control_work *w)
{
    CHECK(w->left > 0);
    w->call = c;
    c->work = w;
    list_init(&w->link);
    list_push(&c->control->works, &w->link);
    control_wait_at_most(c, CONTROL_WAIT_MS);
}

static void end_work(struct control_work *w)
{
    list_remove(&w->link);
    if (w->call)
        w->call->work = NULL;
    w->finish(w);
}

void control_work_done(struct control_work *w)
{
    if (--w->left == 0)
        end_work(w);
}

bool control_input_text(struct control_call *c, const char *name, bool required, struct str *ret)
{
    json_t *value = json_object_get(c->input, name);

    if (!value && !required) {
        *ret = STR_NONE;
        return true;
    }
    if (!json_is_string(value)) {
        control_error(c, 400, "bad_body", value ? "'%s' must be a string" : "'%s' is missing",
                      name);
        return false;
    }
    *ret = str_make(json_string_value(value), json_string_length(value));
    return true;
}

/* ---- requests --------------------------------------------------------------------------------- */

static struct control_call *call_new(struct control *control, struct MHD_Connection *connection)
{
    struct control_call *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->control = control;
    c->router = control->router;
    c->connection = connection;
    buf_init(&c->body, CONTROL_BODY_MAX);
    timer_init(&c->deadline, on_deadline);
    return c;
}

static enum MHD_Result add_argument(void *cls, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    control_request_add(cls, name, value);
    return MHD_YES;
}

static bool read_body(struct control_call *c)
{
    json_error_t error = { .line = 0 };

    if (c->too_large) {
        control_error(c, 413, "too_large", "the body is larger than %d bytes", CONTROL_BODY_MAX);
        return false;
    }
    struct str body = str_trim(buf_str(&c->body));
    if (str_empty(body))
        c->input = json_object();
    else
        c->input = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(c->input))
        return true;
    if (c->input)
        control_error(c, 400, "bad_body", "the body must be a JSON object");
    else
        control_error(c, 400, "bad_body", "the body is no JSON: line %d: %s", error.line,
                      error.text);
    return false;
}

static void serve(struct control_call *c)
{
    c->served = true;
    if (c->request.error)
        control_error(c, 400, "bad_request", "%s", c->request.error);
    else if (c->import || read_body(c))
        control_route(c);
    if (!c->response && c->work) {
        c->suspended = true;
        MHD_suspend_connection(c->connection);
    }
}

/* Called for the head of a request, for each piece of its body, at its end, and after it was resumed. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_size, void **con_cls)
{
    struct control_call *c = *con_cls;

    if (!c) {
        c = call_new(cls, connection);
        if (!c)
            return MHD_NO;
        *con_cls = c;
        control_request_init(&c->request, method, url);
        MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, add_argument, &c->request);
        return MHD_YES;
    }
    if (*data_size && (c->import || control_import_wants(c))) {
        struct str piece = str_make(data, *data_size);
        *data_size = 0;
        if (control_import_data(c, piece)) {
            c->suspended = true;
            MHD_suspend_connection(connection);
        }
        return MHD_YES;
    }
    if (*data_size) {
        if (!c->too_large && buf_add(&c->body, data, *data_size) < 0)
            c->too_large = true;
        c->received += *data_size;
        if (c->received > BODY_ABORT)
            return MHD_NO;
        *data_size = 0;
        return MHD_YES;
    }
    if (!c->served && !c->response)
        serve(c);
    if (c->suspended)
        return MHD_YES;
    return c->response ? MHD_queue_response(connection, c->status, c->response) : MHD_NO;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct control_call *c = *con_cls;

    *con_cls = NULL;
    if (!c)
        return;
    control_import_left(c);
    if (c->work)
        c->work->call = NULL;
    io_loop_timer_stop(c->router->loop, &c->deadline);
    if (c->response)
        MHD_destroy_response(c->response);
    json_decref(c->input);
    control_request_done(&c->request);
    buf_done(&c->body);
    free(c);
}

/* Paths and arguments stay as they came: control_request.c decodes. */
static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *s)
{
    return strlen(s);
}

/* What clients do wrong is no news. */
PRINTF_LIKE(2, 0) static void drop_log(void *cls, const char *fmt, va_list ap)
{
}

/* ---- life ------------------------------------------------------------------------------------- */

static int open_socket(struct control *c, struct failure *f)
{
    struct net_addr addr = { .family = NET_UNIX };
    char error[LISTEN_ERROR_TEXT];

    str_copy(str_of(c->path), addr.path, sizeof(addr.path));
    mode_t before = umask(0117);
    c->fd = io_listen_open(&addr, error);
    umask(before);
    if (c->fd == -EADDRINUSE)
        return failure_set(
            f, EX_UNAVAILABLE,
            "another process listens on the control socket %s: stop it, or set 'control' "
            "in the configuration to another path",
            c->path);
    if (c->fd < 0)
        return failure_set(
            f, exit_code_of(c->fd),
            "%s; 'control' in the configuration must name a socket in a folder that is "
            "there and that this user may write to",
            error);
    return 0;
}

/* ---- accepting -------------------------------------------------------------------------------- */

static void on_connection(void *owner);

static void on_accept_pause(struct timer *t)
{
    struct control *c = CONTAINER_OF(t, struct control, accept_pause);

    keep_reserve(c);
    if (io_watch_new(c->router->loop, c->fd, on_connection, c, &c->accept_watch) < 0)
        io_loop_timer_set(c->router->loop, t, io_loop_now(c->router->loop) + ACCEPT_PAUSE_MS);
}

static void pause_accepting(struct control *c)
{
    c->accept_watch = io_watch_free(c->accept_watch);
    io_loop_timer_set(c->router->loop, &c->accept_pause,
                      io_loop_now(c->router->loop) + ACCEPT_PAUSE_MS);
}

static int accept_one(struct control *c)
{
    struct sockaddr_un peer;
    socklen_t len = sizeof(peer);
    int fd = accept4(c->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && c->reserve >= 0) {
        close(c->reserve);
        c->reserve = -1;
        len = sizeof(peer);
        fd = accept4(c->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    if (fd < 0)
        return -errno;
    /* It closes what it does not take. */
    MHD_add_connection(c->mhd, fd, (struct sockaddr *)&peer, len);
    return 0;
}

static void on_connection(void *owner)
{
    struct control *c = owner;
    int e = 0;

    for (int i = 0; i < ACCEPT_PER_TURN && e == 0; i++)
        e = accept_one(c);
    if (e < 0 && e != -EAGAIN && e != -ECONNABORTED && e != -EINTR)
        pause_accepting(c);
    run(c);
}

static int start_http(struct control *c, struct failure *f)
{
    c->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_NO_LISTEN_SOCKET, 0,
        NULL, NULL, on_request, c, MHD_OPTION_EXTERNAL_LOGGER, drop_log, NULL,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, c, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_END);
    if (!c->mhd)
        return failure_set(f, EX_OSERR, "cannot start the control API: %s", strerror(errno));
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(c->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    int e = info ? io_watch_new(c->router->loop, info->epoll_fd, on_ready, c, &c->watch) : -EINVAL;
    if (e == 0)
        e = io_watch_new(c->router->loop, c->fd, on_connection, c, &c->accept_watch);
    if (e < 0)
        return failure_set(f, EX_SOFTWARE, "cannot start the control API: %s", strerror(-e));
    io_loop_later(c->router->loop, &c->run);
    return 0;
}

int control_new(struct router *r, struct control **ret, struct failure *f)
{
    struct control *c = calloc(1, sizeof(*c));

    if (!c)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    c->router = r;
    c->fd = c->reserve = -1;
    list_init(&c->works);
    control_imports_begin();
    timer_init(&c->timer, on_timer);
    timer_init(&c->accept_pause, on_accept_pause);
    later_init(&c->run, on_later);
    c->path = str_dup(r->settings->control);
    r->operations = operations_new(r);
    if (!c->path || !r->operations) {
        control_free(c);
        return failure_set(f, EX_SOFTWARE, "out of memory");
    }
    if (open_socket(c, f) < 0 || start_http(c, f) < 0) {
        control_free(c);
        return -1;
    }
    *ret = c;
    return 0;
}

struct control *control_free(struct control *c)
{
    struct list *link;

    if (!c)
        return NULL;
    /* Nothing may be suspended when the library stops. */
    LIST_FOREACH(it, &c->works)
    {
        struct control_call *call = LIST_ENTRY(it, struct control_work, link)->call;
        if (!call)
            continue;
        call->work->call = NULL;
        call->work = NULL;
        control_errno(call, -ESHUTDOWN);
    }
    control_imports_end();
    c->accept_watch = io_watch_free(c->accept_watch);
    io_loop_timer_stop(c->router->loop, &c->accept_pause);
    if (c->mhd) {
        MHD_run(c->mhd);
        c->watch = io_watch_free(c->watch);
        MHD_stop_daemon(c->mhd);
    }
    if (c->reserve >= 0)
        close(c->reserve);
    while ((link = list_first(&c->works)))
        end_work(LIST_ENTRY(link, struct control_work, link));
    c->router->operations = operations_free(c->router->operations);
    if (c->fd >= 0) {
        close(c->fd);
        unlink(c->path);
    }
    io_loop_timer_stop(c->router->loop, &c->timer);
    list_remove(&c->run.link);
    free(c->path);
    free(c);
    return NULL;
}
