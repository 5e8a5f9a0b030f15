/* delivery_tls.c - what an attempt finds out about the TLS of a domain's MX, counted for the reports of RFC 8460.
 *
 * Layer: engine. Interface: delivery_impl.h. Only routes by MX are counted, for there the domain says what is to be
 * expected; a host that an operator names, or a route with tls = "none", says nothing about anybody's policy. Counted are
 * connections, not messages: each once, when TLS stands or has failed, and attempts that connect to nobody because of
 * what the domain says. Which policy: that of the host's TLSA records, else of MTA-STS, else none (RFC 8461 section 2).
 */
#include "engine/delivery_impl.h"
#include "engine/tls_reports.h"

enum { SMTP_SERVICE_NOT_AVAILABLE = 421 };

static bool is_counted(const struct delivery *d)
{
    return d->route->kind == ROUTE_MX && d->route->tls != ROUTE_TLS_NONE &&
           delivery_wish(d) != NEXT_HOP_TLS_OPTIONAL; /* for that no policy was looked up */
}

/* Of the domain as a whole, whatever its hosts have. */
static struct tls_policy domain_policy(const struct delivery *d, struct arena *scratch)
{
    struct str domain = d->route->domain;

    if (d->policy.sts)
        return tls_policy_of_sts(scratch, domain, d->policy.sts);
    return (struct tls_policy){ .type = TLS_POLICY_NONE, .domain = domain };
}

/* Its TLSA records are what the connection is held to: by the route, or for REQUIRETLS. */
static bool by_dane(const struct delivery *d, const struct hop *h)
{
    return h->dane.n && (h->tls == ROUTE_TLS_DANE ||
                         (delivery_guards(d, h) && hop_guarded_tls(h) == ROUTE_TLS_DANE));
}

static struct tls_policy hop_policy(const struct delivery *d, const struct hop *h,
                                    struct arena *scratch)
{
    if (by_dane(d, h))
        return tls_policy_of_tlsa(scratch, h->dane);
    if (h->tlsa_unusable)
        return (struct tls_policy){ .type = TLS_POLICY_TLSA, .domain = h->name };
    return domain_policy(d, scratch);
}

static void count(const struct delivery *d, const struct tls_policy *p, enum tls_result result,
                  struct tls_session *s, struct str reason)
{
    s->result = result;
    s->reason = reason;
    tls_reports_count(d->engine, d->route->domain, p, s);
}

/* The policy of MTA-STS is not to be had: told beside what became of the session. */
static void count_policy_fault(const struct delivery *d, struct arena *scratch)
{
    static const enum tls_result results[] = {
        [STS_NOT_FETCHED] = TLS_RESULT_STS_FETCH,
        [STS_INVALID] = TLS_RESULT_STS_INVALID,
        [STS_WEBPKI] = TLS_RESULT_STS_WEBPKI,
    };
    struct tls_session s = { .result = TLS_RESULT_SUCCESS };
    struct tls_policy p = domain_policy(d, scratch);

    if (d->policy.fault == STS_FINE)
        return;
    p.type = TLS_POLICY_STS;
    count(d, &p, results[d->policy.fault], &s, d->policy.why);
}

/* What is wrong with a session that has TLS; for what a policy that is only tested would have refused, too. The reason
 * may be in scratch. */
static enum tls_result result_of(const struct delivery *d, const struct hop *h,
                                 const struct session_out_tls *tls, struct arena *scratch,
                                 struct str *reason)
{
    static const enum tls_result results[] = {
        [TLS_OTHER_NAME] = TLS_RESULT_HOST_MISMATCH, [TLS_EXPIRED] = TLS_RESULT_EXPIRED,
        [TLS_NOT_TRUSTED] = TLS_RESULT_NOT_TRUSTED,  [TLS_NOT_TLSA] = TLS_RESULT_TLSA_INVALID,
        [TLS_FAILED] = TLS_RESULT_VALIDATION,
    };
    bool tested = d->policy.sts && d->policy.sts->mode == MTA_STS_TESTING && !by_dane(d, h);

    if (!tls->secured)
        return tls->fault == TLS_FINE ? TLS_RESULT_VALIDATION : results[tls->fault];
    if (h->tlsa_unusable || (by_dane(d, h) && tls->fault != TLS_FINE)) {
        *reason = STR("none of the TLSA records can be used (RFC 7672 3.1)");
        return TLS_RESULT_TLSA_INVALID;
    }
    if (tested && !mta_sts_allows(d->policy.sts, h->name)) {
        *reason = STR("the policy, in mode testing, does not name this MX");
        return TLS_RESULT_VALIDATION;
    }
    if (!tested || tls->fault == TLS_FINE)
        return TLS_RESULT_SUCCESS;
    *reason = arena_printf(scratch, "%s (sent all the same: the policy is in mode testing)",
                           tls->why ? tls->why : tls_result_name(results[tls->fault]));
    return results[tls->fault];
}

static void count_session(struct delivery *d, const struct session_out_tls *tls, struct str why)
{
    const struct hop *h = &d->hops[d->hop - 1];
    struct tls_session s = { .sending = tls->local, .receiving = h->addr, .mx = h->name };
    struct arena scratch;

    arena_init(&scratch, 0);
    struct tls_policy p = hop_policy(d, h, &scratch);
    enum tls_result result =
        tls->offered ? result_of(d, h, tls, &scratch, &why) : TLS_RESULT_NO_STARTTLS;
    count(d, &p, result, &s, why);
    count_policy_fault(d, &scratch);
    arena_done(&scratch);
}

void delivery_tls_found(struct delivery *d, const struct next_hops *r)
{
    struct tls_session s = { .mx = r->tlsa_host };
    struct arena scratch;

    d->policy.sts = NULL;
    d->policy.fault = r->sts_fault;
    d->policy.why = arena_str(&d->arena, r->sts_why);
    if (!is_counted(d))
        return;
    if (r->sts) {
        struct mta_sts_policy *copy = ARENA_NEW(&d->arena, struct mta_sts_policy);
        if (!copy)
            return; /* counted as without one */
        *copy = *r->sts;
        copy->text = r->sts->text.n ? arena_str(&d->arena, r->sts->text) : STR_NONE;
        for (size_t i = 0; i < copy->n_mx; i++)
            copy->mx[i] = arena_str(&d->arena, r->sts->mx[i]);
        d->policy.sts = copy;
    }
    if (r->reason != NEXT_HOP_NOT_IN_STS && !r->tlsa_host.n)
        return; /* sessions follow, or nothing that concerns TLS */
    arena_init(&scratch, 0);
    if (r->reason == NEXT_HOP_NOT_IN_STS) {
        struct tls_policy p = domain_policy(d, &scratch);
        count(d, &p, TLS_RESULT_VALIDATION, &s, STR("the policy names none of the MX"));
    } else {
        struct tls_policy p = { .type = TLS_POLICY_TLSA, .domain = r->tlsa_host };
        count(d, &p, TLS_RESULT_DNSSEC_INVALID, &s, STR("the look-up of the TLSA records failed"));
    }
    count_policy_fault(d, &scratch);
    arena_done(&scratch);
}

void delivery_tls_ready(struct delivery *d)
{
    struct session_out_tls tls;

    if (!is_counted(d) || !session_out_tls(d->session, &tls))
        return;
    bool refused = tls.offered && !tls.secured; /* and mail goes in clear */
    tls.offered = tls.secured;
    count_session(d, &tls, refused ? STR("STARTTLS is offered, and refused") : STR_NONE);
}

/* Who says that he has no time has said nothing about TLS, nor has a connection that broke before it. */
void delivery_tls_failed(struct delivery *d, enum smtp_stage stage, const struct smtp_reply *reply,
                         struct str why)
{
    struct session_out_tls tls;

    if (!is_counted(d) || (stage != SMTP_STAGE_STARTTLS && stage != SMTP_STAGE_TLS) ||
        reply->code == SMTP_SERVICE_NOT_AVAILABLE || !session_out_tls(d->session, &tls))
        return;
    if (stage == SMTP_STAGE_STARTTLS && tls.offered && !reply->code)
        return;
    tls.secured = false;
    tls.offered &= stage == SMTP_STAGE_TLS; /* to refuse it is not to have it */
    count_session(d, &tls, reply->code ? reply->text : why);
}
