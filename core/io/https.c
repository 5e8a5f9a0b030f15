/* https.c - libcurl on the loop. Layer: io. Interface: https.h.
 *
 * curl tells which sockets it wants to hear of (on_socket) and when it wants to be called (on_timer). What is done is
 * told on a later turn, so that no owner is called from within curl or from within port_get.
 */
#include "io/https.h"

#include <curl/curl.h>
#include <ev.h>
#include <pthread.h>
#include <stdio.h>

enum { URL_TEXT = 600 };

struct https_fetch {
    struct list link; /* io_https.waiting, running or done */
    struct io_https *all;
    https_done *done;
    void *owner;
    CURL *easy; /* NULL: not begun, or over */
    struct curl_slist *addresses;
    struct timer deadline; /* of what waits, too */
    struct buf content;
    int error;
    unsigned status;
    char type[100];
    char why[CURL_ERROR_SIZE];
    char url[URL_TEXT];
};

/* A socket that curl wants to hear of. */
struct watch {
    ev_io io; /* data: the io_https */
};

struct io_https {
    struct port_https port;
    struct io_loop *loop;
    CURLM *multi;
    char *ca; /* NULL: the system's */
    struct list waiting, running, done;
    size_t n_waiting, n_running;
    struct timer timer; /* curl's */
    struct later tell;
};

/* ---- the end of a fetch ----------------------------------------------------------------------- */

/* Takes it away from curl. */
static void let_go(struct https_fetch *f)
{
    if (f->easy) {
        curl_multi_remove_handle(f->all->multi, f->easy);
        curl_easy_cleanup(f->easy);
        f->all->n_running--;
    }
    f->easy = NULL;
    curl_slist_free_all(f->addresses);
    f->addresses = NULL;
    io_loop_timer_stop(f->all->loop, &f->deadline);
}

static void fetch_free(struct https_fetch *f)
{
    let_go(f);
    list_remove(&f->link);
    buf_done(&f->content);
    free(f);
}

/* error: 0 or -errno; why is not looked at when there is a text already. */
static void finish(struct https_fetch *f, int error, const char *why)
{
    f->error = error;
    if (error && !f->why[0])
        str_copy(str_of(why), f->why, sizeof(f->why));
    let_go(f);
    list_remove(&f->link);
    list_push(&f->all->done, &f->link);
    io_loop_later(f->all->loop, &f->all->tell);
}

static void tell_one(struct https_fetch *f)
{
    char *end = strchr(f->type, ';');
    struct str type = str_trim(str_make(f->type, end ? (size_t)(end - f->type) : strlen(f->type)));
    struct https_answer a = { .error = f->error, .why = f->why, .status = f->status, .type = type };

    if (f->status == 200)
        a.content = buf_str(&f->content);
    list_remove(&f->link);
    f->done(f->owner, &a);
    fetch_free(f);
}

static void begin_waiting(struct io_https *h);

static void on_tell(struct later *l)
{
    struct io_https *h = CONTAINER_OF(l, struct io_https, tell);

    for (struct list *it; (it = list_first(&h->done));)
        tell_one(LIST_ENTRY(it, struct https_fetch, link));
    begin_waiting(h);
}

static int error_of(CURLcode r)
{
    switch (r) {
    case CURLE_OK: return 0;
    case CURLE_OUT_OF_MEMORY: return -ENOMEM;
    case CURLE_OPERATION_TIMEDOUT: return -ETIMEDOUT;
    case CURLE_COULDNT_CONNECT: return -ECONNREFUSED;
    case CURLE_WRITE_ERROR:
    case CURLE_FILESIZE_EXCEEDED: return -EMSGSIZE;
    case CURLE_PEER_FAILED_VERIFICATION: return -EKEYREJECTED;
    default: return -EPROTO;
    }
}

/* What curl has finished with. */
static void collect(struct io_https *h)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(h->multi, &left))) {
        struct https_fetch *f = NULL;
        CURL *easy = m->easy_handle;
        CURLcode r = m->data.result;
        const char *type = NULL;
        long status = 0;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &f);
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type);
        f->status = (unsigned)status;
        str_copy(str_of(type), f->type, sizeof(f->type));
        finish(f, error_of(r), curl_easy_strerror(r));
    }
}

/* ---- curl's sockets and timer ----------------------------------------------------------------- */

static void on_ready(EV_P_ ev_io *io, int events)
{
    struct io_https *h = io->data;
    int running;

    curl_multi_socket_action(h->multi, io->fd,
                             (events & EV_READ ? CURL_CSELECT_IN : 0) |
                                 (events & EV_WRITE ? CURL_CSELECT_OUT : 0),
                             &running);
    collect(h);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *owner, void *of_socket)
{
    struct io_https *h = owner;
    struct watch *w = of_socket;
    struct ev_loop *ev = io_loop_ev(h->loop);

    (void)easy;
    if (w)
        ev_io_stop(ev, &w->io);
    if (what == CURL_POLL_REMOVE) {
        free(w);
        curl_multi_assign(h->multi, fd, NULL);
        return 0;
    }
    if (!w) {
        w = calloc(1, sizeof(*w));
        if (!w)
            return -1;
        curl_multi_assign(h->multi, fd, w);
    }
    ev_io_init(&w->io, on_ready, fd,
               (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));
    w->io.data = h;
    ev_io_start(ev, &w->io);
    return 0;
}

static void on_timeout(struct timer *t)
{
    struct io_https *h = CONTAINER_OF(t, struct io_https, timer);
    int running;

    curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect(h);
}

static int on_timer(CURLM *multi, long ms, void *owner)
{
    struct io_https *h = owner;

    (void)multi;
    if (ms < 0)
        io_loop_timer_stop(h->loop, &h->timer);
    else
        io_loop_timer_set(h->loop, &h->timer, io_loop_now(h->loop) + ms);
    return 0;
}

/* ---- one fetch -------------------------------------------------------------------------------- */

static size_t on_content(char *bytes, size_t one, size_t n, void *owner)
{
    struct https_fetch *f = owner;

    if (buf_add(&f->content, bytes, n) == 0)
        return n;
    str_copy(STR("its answer is too long"), f->why, sizeof(f->why));
    return 0;
}

/* "host:443:192.0.2.1,[2001:db8::1]" */
static bool add_addresses(struct https_fetch *f, const struct https_request *r)
{
    struct buf b;
    char ip[NET_ADDR_TEXT];

    buf_init(&b, 0);
    buf_printf(&b, STR_FMT ":443:", STR_ARG(r->host));
    for (size_t i = 0; i < r->n_addrs; i++)
        buf_printf(&b, r->addrs[i].family == NET_IPV6 ? "%s[%s]" : "%s%s", i ? "," : "",
                   net_addr_ip_text(&r->addrs[i], ip));
    buf_add(&b, "", 1);
    if (!b.failed)
        f->addresses = curl_slist_append(NULL, buf_str(&b).p);
    buf_done(&b);
    return f->addresses != NULL;
}

static bool set_up(CURL *c, struct https_fetch *f)
{
    struct io_https *h = f->all;
    int r = 0;

    r |= curl_easy_setopt(c, CURLOPT_URL, f->url);
    r |= curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
    r |= curl_easy_setopt(c, CURLOPT_RESOLVE, f->addresses);
    r |= curl_easy_setopt(c, CURLOPT_PROXY, "");
    r |= curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    r |= curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    r |= curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L);
    r |= curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    r |= curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    r |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    r |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    if (h->ca) {
        r |= curl_easy_setopt(c, CURLOPT_CAINFO, h->ca);
        r |= curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
    }
    r |= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_content);
    r |= curl_easy_setopt(c, CURLOPT_WRITEDATA, f);
    r |= curl_easy_setopt(c, CURLOPT_ERRORBUFFER, f->why);
    r |= curl_easy_setopt(c, CURLOPT_PRIVATE, f);
    return r == CURLE_OK;
}

static void begin(struct https_fetch *f)
{
    struct io_https *h = f->all;
    CURL *c = curl_easy_init();

    list_remove(&f->link);
    list_push(&h->running, &f->link);
    if (!c || !set_up(c, f) || curl_multi_add_handle(h->multi, c) != CURLM_OK) {
        curl_easy_cleanup(c);
        finish(f, -ENOMEM, "out of memory");
        return;
    }
    f->easy = c;
    h->n_running++;
}

static void begin_waiting(struct io_https *h)
{
    while (h->n_running < HTTPS_MOST && !list_empty(&h->waiting)) {
        h->n_waiting--;
        begin(LIST_ENTRY(list_first(&h->waiting), struct https_fetch, link));
    }
}

static void on_deadline(struct timer *t)
{
    struct https_fetch *f = CONTAINER_OF(t, struct https_fetch, deadline);

    f->all->n_waiting -= !f->easy;
    f->why[0] = '\0';
    finish(f, -ETIMEDOUT, "its web server did not answer in time");
}

static struct https_fetch *port_get(struct port_https *self, const struct https_request *r,
                                    https_done *done, void *owner)
{
    struct io_https *h = CONTAINER_OF(self, struct io_https, port);
    struct https_fetch *f = h->n_waiting < HTTPS_MAX_QUEUED ? calloc(1, sizeof(*f)) : NULL;

    if (!f)
        return NULL;
    f->all = h;
    f->done = done;
    f->owner = owner;
    list_init(&f->link);
    timer_init(&f->deadline, on_deadline);
    buf_init(&f->content, r->max_content);
    int n = snprintf(f->url, sizeof(f->url), "https://" STR_FMT STR_FMT, STR_ARG(r->host),
                     STR_ARG(r->path));
    if (n < 0 || (size_t)n >= sizeof(f->url) || !add_addresses(f, r)) {
        fetch_free(f);
        return NULL;
    }
    io_loop_timer_set(h->loop, &f->deadline, io_loop_now(h->loop) + r->timeout_ms);
    list_push(&h->waiting, &f->link);
    h->n_waiting++;
    io_loop_later(h->loop, &h->tell); /* begun there, out of the caller's hands */
    return f;
}

static void port_cancel(struct port_https *self, struct https_fetch *f)
{
    struct io_https *h = CONTAINER_OF(self, struct io_https, port);

    LIST_FOREACH(it, &h->waiting)
    {
        if (it == &f->link) {
            h->n_waiting--;
            break;
        }
    }
    fetch_free(f);
}

/* ---- life ------------------------------------------------------------------------------------- */

int io_https_set_ca(struct io_https *h, struct str ca)
{
    char *copy = ca.n ? str_dup(ca) : NULL;

    if (ca.n && !copy)
        return -ENOMEM;
    free(h->ca);
    h->ca = copy;
    return 0;
}

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static bool library_ready;

static void init_library(void)
{
    library_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

int io_https_new(struct io_loop *l, struct str ca, struct io_https **ret)
{
    pthread_once(&library_once, init_library);
    if (!library_ready)
        return -EIO;

    struct io_https *h = calloc(1, sizeof(*h));

    if (!h)
        return -ENOMEM;
    h->port = (struct port_https){ .get = port_get, .cancel = port_cancel };
    h->loop = l;
    list_init(&h->waiting);
    list_init(&h->running);
    list_init(&h->done);
    timer_init(&h->timer, on_timeout);
    later_init(&h->tell, on_tell);
    h->multi = curl_multi_init();
    if (!h->multi || io_https_set_ca(h, ca) < 0) {
        io_https_free(h);
        return -ENOMEM;
    }
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    *ret = h;
    return 0;
}

static void drop_all(struct list *fetches)
{
    for (struct list *it; (it = list_first(fetches));)
        fetch_free(LIST_ENTRY(it, struct https_fetch, link));
}

struct io_https *io_https_free(struct io_https *h)
{
    if (!h)
        return NULL;
    drop_all(&h->waiting);
    drop_all(&h->running);
    drop_all(&h->done);
    if (h->multi)
        curl_multi_cleanup(h->multi);
    io_loop_timer_stop(h->loop, &h->timer);
    list_remove(&h->tell.link);
    free(h->ca);
    free(h);
    return NULL;
}

struct port_https *io_https_port(struct io_https *h)
{
    return &h->port;
}
