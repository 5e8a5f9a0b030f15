/* etrn.c - a request for waiting mail: what may be let go. Interface: etrn.h.
 *
 * Layer: engine. A request is one heap block. Questions are put to the hook one after another: about what
 * the client said, then about the members of what that granted, as a walk over the queues finds them. When
 * all are answered, etrn_release.c goes on.
 */
#include "engine/etrn_internal.h"

#include <stdio.h>

#include "base/hash.h"
#include "engine/turn.h"
#include "engine/verdict.h"

/* ---- the end ---------------------------------------------------------------------------------- */

static struct etrn *etrn_free(struct etrn *r)
{
    list_remove(&r->link);
    list_remove(&r->step.link);
    for (size_t i = 0; i < r->n_grants; i++)
        route_unref(r->grants[i].route);
    turn_free(r->turn);
    snapshot_unref(r->snapshot);
    free(r->grants);
    free(r->rows);
    free(r);
    return NULL;
}

void etrn_set_reply(struct etrn *r, uint16_t code, struct smtp_enhanced enhanced,
                    const char *before, const char *after)
{
    snprintf(r->text, sizeof(r->text), "%s%s%s", before, r->argument, after);
    r->reply = (struct smtp_reply){ code, enhanced, str_of(r->text) };
}

static const char *origin_name(enum etrn_origin o)
{
    static const char *const names[] = {
        [ETRN_CLIENT] = "client", [ETRN_OPERATOR] = "operator", [ETRN_SCHEDULE] = "schedule"
    };
    return names[o];
}

static void log_answer(const struct etrn *r)
{
    char client[NET_ADDR_TEXT] = "";
    bool granted = smtp_reply_positive(&r->reply);
    bool idle = r->request.origin == ETRN_SCHEDULE && r->reply.code == 251;

    if (r->session)
        net_addr_ip_text(r->session->client, client);
    engine_event(r->e,
                 EVENT(!granted ? EVENT_WARN
                       : idle   ? EVENT_DEBUG
                                : EVENT_INFO,
                       r->request.atrn ? "atrn" : "etrn",
                       F_INT("session", r->session ? (int64_t)r->session->id : 0),
                       F_STRZ("client", client),
                       F_STR("identity", r->session ? r->session->identity : STR_NONE),
                       F_STRZ("by", origin_name(r->request.origin)), F_STRZ("domain", r->argument),
                       F_INT("code", r->reply.code), F_INT("messages", (int64_t)r->messages)));
}

static void tell(struct later *l)
{
    struct etrn *r = CONTAINER_OF(l, struct etrn, step);
    struct turn *turn = TAKE(r->turn);

    log_answer(r);
    r->done(r->owner, &r->reply, turn);
    etrn_free(r);
}

void etrn_end(struct etrn *r)
{
    list_remove(&r->step.link);
    r->step.run = tell;
    engine_later(r->e, &r->step);
}

static void not_allowed(struct etrn *r)
{
    bool stranger = r->session && r->session->identity.n == 0;

    if (r->request.atrn)
        etrn_set_reply(r, 450, ENH(4, 7, 1), "ATRN request refused", "");
    else if (stranger && r->snapshot->hooks->etrn_wants_identity)
        /* The same whether the domain exists or not (E4). */
        etrn_set_reply(r, 530, ENH(5, 7, 0), "Authentication required for node ", "");
    else
        etrn_set_reply(r, 459, ENH(4, 7, 1), "Node ", " not allowed");
    if (r->request.atrn)
        r->reply.text = STR("ATRN request refused");
}

static void obstacle(struct etrn *r)
{
    if (r->request.atrn)
        r->reply = REPLY(451, ENH(4, 3, 0), "Unable to process ATRN request now");
    else
        etrn_set_reply(r, 458, ENH(4, 3, 0), "Unable to queue messages for node ", "");
}

/* ---- grants ----------------------------------------------------------------------------------- */

/* 0; -ENOSPC: enough for one request; -ENOMEM. */
static int add_grant(struct etrn *r, const struct spool_queue *q, const struct hook_result *result)
{
    size_t most = r->snapshot->settings->limits.etrn_queues;

    for (size_t i = 0; i < r->n_grants; i++)
        if (strcmp(r->grants[i].queue, q->name) == 0)
            return 0;
    if (r->n_grants >= most)
        return -ENOSPC;
    if (r->n_grants == r->cap_grants) {
        size_t cap = MIN(MAX(r->cap_grants * 2, (size_t)4), most);
        struct etrn_grant *more = realloc(r->grants, cap * sizeof(*more));
        if (!more)
            return -ENOMEM;
        r->grants = more;
        r->cap_grants = cap;
    }
    struct etrn_grant *g = &r->grants[r->n_grants++];
    *g = (struct etrn_grant){ .route = r->request.atrn ? NULL : route_ref(result->route),
                              .window_ms = result->window_ms,
                              .waiting = q->waiting };
    memcpy(g->queue, q->name, sizeof(g->queue));
    return 0;
}

/* One queue that the policy named: granted when there is anything in it. */
static int grant_queue(struct etrn *r, struct str name, const struct hook_result *result)
{
    struct port_spool *spool = r->e->ports.spool;
    struct spool_queue q;
    int err = name.n <= SPOOL_MAX_QUEUE_NAME ? spool->read_queue(spool, name, &q) : -EINVAL;

    if (err == -ENOENT || (err == 0 && q.waiting == 0))
        return 0;
    if (err == 0)
        str_copy(name, q.name, sizeof(q.name));
    return err == 0 ? add_grant(r, &q, result) : err;
}

static void take_release(struct etrn *r, const struct hook_result *result)
{
    struct str rest = result->queue;

    while (rest.n && !r->cut) {
        ptrdiff_t end = str_chr(rest, '\n');
        struct str name = end < 0 ? rest : str_first(rest, (size_t)end);
        rest = end < 0 ? STR_NONE : str_from(rest, (size_t)end + 1);
        int err = name.n ? grant_queue(r, name, result) : 0;
        r->cut = err == -ENOSPC;
        r->failed = r->failed || (err < 0 && err != -ENOSPC);
    }
    if (r->view.member)
        return;
    r->subdomains = result->subdomains && r->request.option == '@';
    r->group = result->group && r->request.option == '#';
}

/* About what the client said: the first answer decides. */
static void take_first(struct etrn *r, const struct hook_result *result)
{
    bool routed = r->request.atrn || result->route || result->group;

    switch (result->verdict) {
    case VERDICT_RELEASE:
        if (routed)
            take_release(r, result);
        else
            not_allowed(r);
        return;
    case VERDICT_FAILED:
        COUNT(r->e, hooks_failed, 1);
        obstacle(r);
        return;
    case VERDICT_REJECT:
    case VERDICT_DEFER:
        if (result->reply.code >= 400) {
            r->reply = result->reply;
            str_copy(result->reply.text, r->text, sizeof(r->text));
            r->reply.text = str_of(r->text);
            return;
        }
        break;
    default: break;
    }
    not_allowed(r);
}

static void take_answer(struct etrn *r, const struct hook_result *result)
{
    if (!r->view.member) {
        take_first(r, result);
    } else if (result->verdict == VERDICT_RELEASE && (r->request.atrn || result->route)) {
        take_release(r, result);
    } else if (result->verdict == VERDICT_FAILED) {
        COUNT(r->e, hooks_failed, 1);
        r->failed = true;
    }
}

/* ---- questions -------------------------------------------------------------------------------- */

/* The next of the domains that the client named. False: there are no more, or it is none. */
static bool next_named(struct etrn *r)
{
    ptrdiff_t comma = str_chr(r->rest, ',');
    struct str name = str_trim(comma < 0 ? r->rest : str_first(r->rest, (size_t)comma));

    r->rest = comma < 0 ? STR_NONE : str_from(r->rest, (size_t)comma + 1);
    ptrdiff_t n = domain_normalize(name, r->domain, sizeof(r->domain));
    if (r->request.option == '#')
        n = str_copy(name, r->domain, sizeof(r->domain)) ? (ptrdiff_t)name.n : -EINVAL;
    if (n <= 0) {
        etrn_set_reply(r, 501, ENH(5, 5, 4), "Syntax error: not a domain: ", "");
        return false;
    }
    r->view.domain = str_make(r->domain, (size_t)n);
    return true;
}

/* The part behind the last '/': queues of a group are GROUP/DOMAIN. */
static struct str domain_of_queue(struct str name)
{
    for (size_t i = name.n; i > 0; i--)
        if (name.p[i - 1] == '/')
            return str_from(name, i);
    return name;
}

static bool is_member(const struct etrn *r, struct str name, struct str domain)
{
    struct str node = str_of(r->node);

    if (r->group)
        return name.n > node.n && str_starts(name, node) && name.p[node.n] == '/';
    if (r->all)
        return true;
    return domain.n > node.n + 1 && str_caseeq(str_from(domain, domain.n - node.n), node) &&
           domain.p[domain.n - node.n - 1] == '.';
}

/* The next queue with waiting mail that belongs to what was granted, in the rows at hand. */
static bool next_member(struct etrn *r)
{
    while (r->row < r->n_rows) {
        const struct spool_queue *q = &r->rows[r->row++];
        struct str name = str_of(q->name), domain = domain_of_queue(name);
        if (q->waiting == 0 || !is_member(r, name, domain))
            continue;
        ptrdiff_t n = domain_normalize(domain, r->domain, sizeof(r->domain));
        if (n <= 0)
            continue;
        r->view.member = true;
        r->view.domain = str_make(r->domain, (size_t)n);
        return true;
    }
    return false;
}

static bool wants_members(const struct etrn *r)
{
    return (r->subdomains || r->group || r->all) && !r->scanned && !r->cut;
}

static void go_on(struct etrn *r);

static void scan(struct later *l)
{
    struct etrn *r = CONTAINER_OF(l, struct etrn, step);
    struct port_spool *spool = r->e->ports.spool;

    if (!r->rows)
        r->rows = calloc(ETRN_BATCH, sizeof(*r->rows));
    r->row = 0;
    r->n_rows =
        r->rows ? spool->scan_queues(spool, str_of(r->after), r->rows, ETRN_BATCH) : -ENOMEM;
    if (r->n_rows < 0) {
        r->failed = true;
        r->n_rows = 0;
    }
    r->scanned = r->n_rows < ETRN_BATCH;
    if (r->n_rows > 0)
        memcpy(r->after, r->rows[r->n_rows - 1].name, sizeof(r->after));
    /* Names are in order: behind those of the group there are no more. */
    if (r->group && r->n_rows > 0 && str_cmp(str_of(r->after), str_of(r->node)) > 0 &&
        !str_starts(str_of(r->after), str_of(r->node)))
        r->scanned = true;
    go_on(r);
}

static void hook_answered(void *owner, struct hook_result *result)
{
    struct etrn *r = owner;

    r->call = NULL;
    take_answer(r, result);
    go_on(r);
}

/* True: it was answered at once. */
static bool ask(struct etrn *r)
{
    struct hooks *hooks = r->snapshot->hooks;
    struct hook_result result;
    int answered = 1;

    r->input = (struct hook_input){ .session = r->session, .etrn = &r->view };
    hook_result_init(&result);
    if (hooks_have(hooks, HOOK_ETRN))
        answered = hooks->run(hooks, HOOK_ETRN, &r->input, &result, hook_answered, r, &r->call);
    if (answered)
        take_answer(r, &result);
    hook_result_done(&result);
    return answered;
}

/* Asks until a hook waits, or all is known. */
static void go_on(struct etrn *r)
{
    while (r->reply.code == 0) {
        bool question = false;
        if (r->rest.n)
            question = next_named(r);
        else
            question = next_member(r);
        if (r->reply.code)
            break;
        if (question) {
            if (!ask(r))
                return;
        } else if (wants_members(r)) {
            r->step.run = scan;
            engine_later(r->e, &r->step);
            return;
        } else {
            etrn_release(r);
            return;
        }
    }
    etrn_end(r);
}

/* ---- life ------------------------------------------------------------------------------------- */

static int read_request(struct etrn *r, const struct etrn_request *request)
{
    struct str node = request->node;

    r->request = *request;
    r->argument[0] = request->option;
    if (!str_copy(node, r->node, sizeof(r->node)) ||
        !str_copy(node, r->argument + (request->option ? 1 : 0), sizeof(r->argument) - 1))
        return -EINVAL;
    r->request.node = str_of(r->node);
    r->view = (struct etrn_view){ .option = request->option,
                                  .atrn = request->atrn,
                                  .argument = str_of(r->argument),
                                  .origin = request->origin };
    if (request->option == '@') { /* as names of queues are: in normal form */
        char normal[DOMAIN_TEXT];
        ptrdiff_t n = domain_normalize(node, normal, sizeof(normal));
        if (n < 0)
            return (int)n;
        str_copy(str_make(normal, (size_t)n), r->node, sizeof(r->node));
    }
    if (request->option == '#')
        str_copy(str_of(r->node), r->after, sizeof(r->after));
    r->rest = str_of(r->node);
    r->all = r->rest.n == 0;
    return r->rest.n || request->atrn ? 0 : -EINVAL;
}

struct etrn *etrn_start(struct engine *e, struct snapshot *snapshot,
                        const struct session_view *session, const struct etrn_request *request,
                        etrn_done *done, void *owner)
{
    struct etrn *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    list_push(&e->etrns->active, &r->link);
    r->id = ++e->etrns->ids;
    r->e = e;
    r->snapshot = snapshot_ref(snapshot);
    r->session = session;
    r->done = done;
    r->owner = owner;
    later_init(&r->step, tell);
    if (read_request(r, request) < 0)
        etrn_set_reply(r, 501, ENH(5, 5, 4), "Syntax error: not a domain: ", "");
    go_on(r);
    return r;
}

void etrn_cancel(struct etrn *r)
{
    if (!r)
        return;
    if (r->call)
        r->snapshot->hooks->cancel(r->snapshot->hooks, r->call);
    etrn_free(r);
}

/* ---- how often a client may ask (E10) --------------------------------------------------------- */

enum { CLIENT_SETS = 1024, CLIENT_WAYS = 4, CLIENT_WINDOW_MS = 3600 * 1000 };

/* 4096 clients at most, in sets of four: the one of them that began first makes room. */
struct etrn_client {
    uint8_t ip[8]; /* IPv4, or the network of an IPv6 address */
    uint8_t family;
    uint32_t requests;
    int64_t since; /* monotonic; 0: free */
};

static struct etrn_client *client_of(struct etrns *all, const struct net_addr *a, int64_t now)
{
    size_t n = a->family == NET_IPV4 ? 4 : 8;
    struct etrn_client *set =
        all->clients + (hash_bytes(a->ip, n) ^ a->family) % CLIENT_SETS * CLIENT_WAYS;
    struct etrn_client *oldest = set;

    for (struct etrn_client *c = set; c < set + CLIENT_WAYS; c++) {
        if (c->since && c->family == a->family && memcmp(c->ip, a->ip, n) == 0) {
            if (now - c->since < CLIENT_WINDOW_MS)
                return c;
            oldest = c;
            break;
        }
        if (c->since < oldest->since)
            oldest = c;
    }
    *oldest = (struct etrn_client){ .family = a->family, .since = MAX(now, (int64_t)1) };
    memcpy(oldest->ip, a->ip, n);
    return oldest;
}

bool etrn_client_may(struct engine *e, const struct net_addr *client)
{
    struct etrns *all = e->etrns;

    if (!all->clients)
        all->clients = calloc((size_t)CLIENT_SETS * CLIENT_WAYS, sizeof(*all->clients));
    if (!all->clients)
        return false;
    struct etrn_client *c = client_of(all, client, engine_now(e));
    if (c->requests >= e->snapshot->settings->limits.etrn_per_client)
        return false;
    c->requests++;
    return true;
}

struct etrns *etrns_new(struct engine *e)
{
    struct etrns *all = calloc(1, sizeof(*all));

    if (!all)
        return NULL;
    all->e = e;
    list_init(&all->active);
    return all;
}

/* Those that nobody waits for any more: an operator's, whose answer has nowhere to go. */
struct etrns *etrns_free(struct etrns *all)
{
    if (!all)
        return NULL;
    LIST_FOREACH(it, &all->active)
    {
        struct etrn *r = LIST_ENTRY(it, struct etrn, link);
        if (r->done && !r->session)
            r->done(r->owner, &REPLY(458, ENH(4, 3, 2), "shutting down"), NULL);
        etrn_cancel(r);
    }
    free(all->clients);
    free(all);
    return NULL;
}
