/* https.c - web servers of the simulated world. Layer: sim. Interface: https.h. */
#include "sim/https.h"

struct https_fetch {
    struct list link;
    struct timer timer;
    struct sim_https *all;
    https_done *done;
    void *owner;
    char host[300];
};

static void fetch_free(struct https_fetch *f)
{
    sim_timer_stop(f->all->clock, &f->timer);
    list_remove(&f->link);
    free(f);
}

static const struct sim_https_site *site_of(const struct sim_https *h, struct str host)
{
    for (size_t i = 0; i < h->n; i++)
        if (str_caseeq(h->site[i].host, host))
            return &h->site[i];
    return NULL;
}

static void on_due(struct timer *t)
{
    struct https_fetch *f = CONTAINER_OF(t, struct https_fetch, timer);
    const struct sim_https_site *s = site_of(f->all, str_of(f->host));
    struct https_answer a = { .error = -ETIMEDOUT, .why = "its web server does not answer" };

    if (s)
        a = (struct https_answer){ .error = s->error,
                                   .why = s->why,
                                   .status = s->status,
                                   .type = s->type,
                                   .content = s->content };
    f->done(f->owner, &a);
    fetch_free(f);
}

static struct https_fetch *port_get(struct port_https *self, const struct https_request *r,
                                    https_done *done, void *owner)
{
    struct sim_https *h = CONTAINER_OF(self, struct sim_https, port);
    if (SIM_STARVED())
        return NULL;
    struct https_fetch *f = sim_alloc(sizeof *f);

    f->all = h;
    f->done = done;
    f->owner = owner;
    CHECK(str_copy(r->host, f->host, sizeof(f->host)) && r->n_addrs > 0);
    list_push(&h->fetches, &f->link);
    h->asked++;
    timer_init(&f->timer, on_due);
    sim_timer_in(h->clock, &f->timer, site_of(h, r->host) ? SIM_HTTPS_MS : r->timeout_ms);
    return f;
}

static void port_cancel(struct port_https *self, struct https_fetch *f)
{
    fetch_free(f);
}

void sim_https_init(struct sim_https *h, struct sim_clock *clock)
{
    *h = (struct sim_https){ .port = { .get = port_get, .cancel = port_cancel }, .clock = clock };
    list_init(&h->fetches);
}

void sim_https_done(struct sim_https *h)
{
    for (struct list *it; (it = list_first(&h->fetches));)
        fetch_free(LIST_ENTRY(it, struct https_fetch, link));
}

void sim_https_set(struct sim_https *h, const struct sim_https_site *site)
{
    for (size_t i = 0; i < h->n; i++)
        if (str_caseeq(h->site[i].host, site->host)) {
            h->site[i] = *site;
            return;
        }
    CHECK(h->n < SIM_HTTPS_SITES);
    h->site[h->n++] = *site;
}

void sim_https_page(struct sim_https *h, const char *host, const char *content)
{
    sim_https_set(h, &(struct sim_https_site){ .host = str_of(host),
                                               .status = 200,
                                               .type = STR("text/plain"),
                                               .content = str_of(content) });
}
