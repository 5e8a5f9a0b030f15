/* session_in_told.c - who the client is, where somebody else says so: the header of the PROXY protocol
 * from load balancers, XCLIENT from proxies and filters.
 *
 * Layer: engine. See session_in_internal.h. Only peers that the configuration names get here; from all
 * others a PROXY line is an unknown command, and XCLIENT refused by proto/smtp_server. From then on the
 * address told is the client's, for policies, limits, Received headers and logs; view.proxy is who told it.
 */
#include "engine/session_in_internal.h"

bool session_set_client(struct session *s, const struct net_addr *client,
                        const struct net_addr *local)
{
    const struct settings *set = s->snapshot->settings;
    char text[NET_ADDR_TEXT];
    char *copy = str_dup(str_of(net_addr_ip_text(client, text)));

    if (!copy)
        return false;
    free(s->client);
    s->client = copy;
    s->view.client = client;
    s->view.local = local;
    s->view.may_relay =
        s->view.identity.n > 0 || net_cidrs_contain(set->relay_from, set->n_relay_from, client);
    return true;
}

/* By the peer, who may be believed. */
static bool set_told(struct session *s, const struct net_addr *client, const struct net_addr *local)
{
    if (!s->told)
        s->told = malloc(sizeof(*s->told));
    if (!s->told)
        return false;
    *s->told = (struct told_addresses){ *client, *local };
    s->view.proxy = &s->stream->peer;
    return session_set_client(s, &s->told->client, &s->told->local);
}

/* ---- PROXY ---- */

bool session_await_header(struct session *s)
{
    s->header = malloc(sizeof(*s->header));
    if (s->header)
        proxy_header_init(s->header);
    return s->header != NULL;
}

static void refuse_header(struct session *s)
{
    engine_event(s->e, EVENT(EVENT_WARN, "proxy_header_bad", F_INT("session", (int64_t)s->view.id),
                             F_STRZ("client", s->client), F_STRZ("listener", s->listener),
                             F_STRZ("why", s->header->why)));
    session_drop(s, "bad PROXY header");
}

void session_read_header(struct session *s)
{
    struct proxy_header *h = s->header;
    size_t taken;
    int r = proxy_header_feed(h, stream_input(s->stream), &taken);

    stream_consume(s->stream, taken);
    if (r < 0)
        refuse_header(s);
    if (r <= 0)
        return;
    if (h->told && !set_told(s, &h->client, &h->server)) {
        session_drop(s, "out of memory");
        return;
    }
    free(TAKE(s->header));
    /* So that the server sees who talks before the greeting. */
    if (!s->securing)
        session_feed(s);
    session_begin(s, false);
}

/* ---- XCLIENT ---- */

static bool keep_text(char **at, struct str *view, struct str text)
{
    char *copy = str_dup(text);

    if (!copy)
        return false;
    free(*at);
    *at = copy;
    *view = str_of(copy);
    return true;
}

static bool take_login(struct session *s, const struct smtp_xclient *x)
{
    if (x->said & SMTP_XCLIENT_LOGIN || !s->told_login)
        session_forget_identity(s);
    if (x->login.n == 0)
        return true;
    s->told_login = session_keep_identity(s, x->login);
    return s->told_login;
}

static bool take_addresses(struct session *s, const struct smtp_xclient *x)
{
    struct net_addr client = *s->view.client, local = *s->view.local;

    if (x->said & SMTP_XCLIENT_ADDR) {
        uint16_t port = client.port;
        client = x->addr;
        if (x->empty &
            SMTP_XCLIENT_ADDR)        /* nobody knows it: policies get an address all the same, */
            client.family = NET_IPV4; /* 0.0.0.0, which is nobody's */
        client.port = port;
    }
    if (x->said & SMTP_XCLIENT_PORT)
        client.port = x->port;
    if (x->said & SMTP_XCLIENT_DESTADDR && !(x->empty & SMTP_XCLIENT_DESTADDR)) {
        uint16_t port = local.port;
        local = x->dest;
        local.port = port;
    }
    if (x->said & SMTP_XCLIENT_DESTPORT)
        local.port = x->dest_port;
    return set_told(s, &client, &local);
}

bool session_take_xclient(struct session *s, const struct smtp_xclient *x)
{
    char proxy[NET_ADDR_TEXT];

    if ((x->said & SMTP_XCLIENT_NAME &&
         !keep_text(&s->client_name, &s->view.client_name, x->name)) ||
        !keep_text(&s->helo, &s->view.helo, x->helo) || !take_login(s, x))
        return false;
    s->view.extended = x->extended;
    if (!take_addresses(s, x))
        return false;
    engine_event(s->e, EVENT(EVENT_INFO, "xclient", F_INT("session", (int64_t)s->view.id),
                             F_STRZ("client", s->client), F_STR("identity", s->view.identity),
                             F_STRZ("proxy", net_addr_ip_text(s->view.proxy, proxy))));
    session_set_options(s);
    return true;
}
