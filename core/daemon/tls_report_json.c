/* tls_report_json.c - reports of RFC 8460. Layer: daemon. Interface: tls_report_json.h. */
#include "daemon/tls_report_json.h"

#include "daemon/control_call.h"

/* ---- days ------------------------------------------------------------------------------------- */

static bool number_at(struct str day, size_t at, size_t n, unsigned *ret)
{
    uint64_t v;

    if (str_to_u64(str_first(str_from(day, at), n), &v) < 0)
        return false;
    *ret = (unsigned)v;
    return true;
}

bool tls_report_day(struct str day)
{
    static const uint8_t days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    unsigned year, month, d;

    if (day.n != 10 || day.p[4] != '-' || day.p[7] != '-' || !number_at(day, 0, 4, &year) ||
        !number_at(day, 5, 2, &month) || !number_at(day, 8, 2, &d))
        return false;
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return year >= 1970 && month >= 1 && month <= 12 && d >= 1 && d <= days[month - 1] &&
           (month != 2 || d <= 28u + leap);
}

/* ---- JSON ------------------------------------------------------------------------------------- */

/* What is not known is left out. */
static void set_text(json_t *o, const char *name, struct str s)
{
    if (s.n)
        json_object_set_new(o, name, control_text(s));
}

static void set_address(json_t *o, const char *name, const struct net_addr *a)
{
    char text[NET_ADDR_TEXT];

    set_text(o, name, str_of(net_addr_ip_text(a, text)));
}

/* An array of the strings, each with a '\n' behind it; no strings: nothing. */
static void set_strings(json_t *o, const char *name, struct str strings)
{
    struct str one;
    json_t *list = strings.n ? json_array() : NULL;

    while (list && strings.n && str_cut(&strings, '\n', &one))
        json_array_append_new(list, control_text(one));
    if (list)
        json_object_set_new(o, name, list);
}

static json_t *failure_json(enum tls_result result, uint64_t count)
{
    return json_pack("{s:s, s:I}", "result-type", tls_result_name(result), "failed-session-count",
                     (json_int_t)count);
}

static json_t *failures_json(const struct tls_policy_count *p)
{
    json_t *list = json_array();

    for (size_t i = 0; i < p->n; i++) {
        const struct tls_failure *f = &p->failures[i];
        struct net_addr sending = tls_failure_sending(f), receiving = tls_failure_receiving(f);
        json_t *o = failure_json(f->result, f->count);
        set_address(o, "sending-mta-ip", &sending);
        set_text(o, "receiving-mx-hostname", f->mx);
        set_address(o, "receiving-ip", &receiving);
        set_text(o, "failure-reason-code", f->reason);
        json_array_append_new(list, o);
    }
    for (int i = 0; i < TLS_RESULTS; i++)
        if (p->other[i])
            json_array_append_new(list, failure_json((enum tls_result)i, p->other[i]));
    return list;
}

static json_t *policy_json(const struct tls_policy_count *p, struct str domain)
{
    json_t *policy = json_pack("{s:s}", "policy-type", tls_policy_type_name(p->policy.type));
    json_t *o;

    set_strings(policy, "policy-string", p->policy.strings);
    set_text(policy, "policy-domain", p->policy.domain.n ? p->policy.domain : domain);
    set_strings(policy, "mx-host", p->policy.mx);
    o = json_pack("{s:o, s:{s:I, s:I}}", "policy", policy, "summary",
                  "total-successful-session-count", (json_int_t)p->successes,
                  "total-failure-session-count", (json_int_t)tls_policy_failures(p));
    if (tls_policy_failures(p))
        json_object_set_new(o, "failure-details", failures_json(p));
    return o;
}

json_t *tls_report_json(const struct tls_report *r, struct str day, struct str domain,
                        struct str hostname)
{
    const struct tls_policy_count *p;
    json_t *policies = json_array();

    for (size_t i = 0; (p = tls_report_policy(r, i)); i++)
        json_array_append_new(policies, policy_json(p, domain));
    return json_pack("{s:o, s:{s:o, s:o}, s:o, s:o, s:o}", "organization-name",
                     control_text(hostname), "date-range", "start-datetime",
                     json_sprintf(STR_FMT "T00:00:00Z", STR_ARG(day)), "end-datetime",
                     json_sprintf(STR_FMT "T23:59:59Z", STR_ARG(day)), "contact-info",
                     json_sprintf("postmaster@" STR_FMT, STR_ARG(hostname)), "report-id",
                     json_sprintf(STR_FMT "." STR_FMT "@" STR_FMT, STR_ARG(day), STR_ARG(domain),
                                  STR_ARG(hostname)),
                     "policies", policies);
}
