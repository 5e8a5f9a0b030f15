/* Counts of TLS sessions: whatever a damaged spool says they were, and whatever strangers make them of, they stay
 * within their bounds, no session is lost from the sums, and the report is one.
 *
 * The first byte chooses: 0 a record, 1 sessions to be counted, fields parted by 0x1e: a digit for the policy and one
 * for the result, its domain, its strings, MX, reason; 2 what was kept of TLSA records. */
#include <jansson.h>
#include <stdlib.h>

#include "daemon/tls_report_json.h"

enum { FIELD_END = 0x1e, SESSIONS = 200 };

struct sums {
    uint64_t successes, failures;
};

static struct sums sums_of(const struct tls_report *r)
{
    const struct tls_policy_count *p;
    struct sums s = { 0 };

    for (size_t i = 0; (p = tls_report_policy(r, i)); i++) {
        s.successes += p->successes;
        s.failures += tls_policy_failures(p);
    }
    return s;
}

static void check_bounds(const struct tls_report *r)
{
    const struct tls_policy_count *p;

    CHECK(r->n <= TLS_REPORT_POLICIES && r->octets <= TLS_REPORT_MAX);
    for (size_t i = 0; (p = tls_report_policy(r, i)); i++) {
        CHECK(p->n <= TLS_REPORT_DETAILS && (unsigned)p->policy.type < TLS_POLICY_TYPES);
        CHECK(tls_policy_type_name(p->policy.type)[0]);
        for (size_t k = 0; k < p->n; k++) {
            CHECK(p->failures[k].result != TLS_RESULT_SUCCESS);
            CHECK(tls_result_name(p->failures[k].result)[0]);
            CHECK(tls_failure_sending(&p->failures[k]).family <= NET_IPV6);
            CHECK(tls_failure_receiving(&p->failures[k]).family <= NET_IPV6);
        }
    }
}

static uint64_t number(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);

    CHECK(json_is_integer(v));
    return (uint64_t)json_integer_value(v);
}

/* RFC 8460 section 4: what programs of others read. */
static void check_json(const struct tls_report *r, struct sums want)
{
    json_t *o = tls_report_json(r, STR("2026-11-30"), STR("example.com"), STR("mx.example")), *p;
    struct sums s = { 0 };
    size_t i;

    CHECK(json_is_object(o));
    char *text = json_dumps(o, JSON_COMPACT);
    CHECK(text && str_is_utf8(str_of(text)));
    free(text);
    json_array_foreach(json_object_get(o, "policies"), i, p)
    {
        const json_t *summary = json_object_get(p, "summary");
        s.successes += number(summary, "total-successful-session-count");
        s.failures += number(summary, "total-failure-session-count");
    }
    CHECK(s.successes == want.successes && s.failures == want.failures);
    json_decref(o);
}

/* Written and read it is the same, and the second time the very same octets. */
static void check(const struct tls_report *r)
{
    struct sums sums = sums_of(r), again_sums;
    struct tls_report *again, *both = tls_report_new();
    struct buf first, second;

    check_bounds(r);
    check_json(r, sums);
    buf_init(&first, 0);
    buf_init(&second, 0);
    CHECK(tls_report_encode(r, &first) == 0 && buf_len(&first) <= TLS_REPORT_MAX);
    CHECK(tls_report_decode(buf_str(&first), &again) == 0);
    CHECK(tls_report_encode(again, &second) == 0);
    CHECK(str_eq(buf_str(&first), buf_str(&second)));
    again_sums = sums_of(again);
    CHECK(again_sums.successes == sums.successes && again_sums.failures == sums.failures);
    CHECK(both);
    tls_report_merge(both, r);
    tls_report_merge(both, again);
    check_bounds(both);
    again_sums = sums_of(both);
    CHECK(again_sums.successes == 2 * sums.successes && again_sums.failures == 2 * sums.failures);
    tls_report_free(both);
    tls_report_free(again);
    buf_done(&first);
    buf_done(&second);
}

static void try_record(struct str in)
{
    struct tls_report *r = NULL;
    int e = tls_report_decode(in, &r);

    CHECK((e == 0 && r) || e == -EBADMSG);
    if (e == 0)
        check(r);
    tls_report_free(r);
}

static struct str field(struct str *in)
{
    struct str s;

    return str_cut(in, FIELD_END, &s) ? s : STR("");
}

static void try_sessions(struct str in)
{
    struct tls_report *r = tls_report_new();
    struct sums want = { 0 }, s;

    CHECK(r);
    for (int i = 0; in.p && i < SESSIONS; i++) {
        struct str how = field(&in);
        struct tls_policy p = { .domain = field(&in), .strings = field(&in) };
        struct tls_session session = { .mx = field(&in), .reason = field(&in) };
        p.type = (enum tls_policy_type)(how.n > 0 ? (unsigned char)how.p[0] % TLS_POLICY_TYPES : 0);
        p.mx = p.strings;
        session.result = (enum tls_result)(how.n > 1 ? (unsigned char)how.p[1] % TLS_RESULTS : 0);
        if (how.n > 2)
            (void)net_addr_parse_ip(str_from(how, 2), &session.receiving);
        tls_report_add(r, &p, &session);
        want.successes += session.result == TLS_RESULT_SUCCESS;
        want.failures += session.result != TLS_RESULT_SUCCESS;
    }
    s = sums_of(r);
    CHECK(s.successes == want.successes && s.failures == want.failures);
    check(r);
    tls_report_free(r);
}

static void try_tlsa(struct str in)
{
    struct arena a;
    struct tls_policy p;

    arena_init(&a, 0);
    p = tls_policy_of_tlsa(&a, in);
    CHECK(p.type == TLS_POLICY_TLSA && p.strings.n <= TLS_REPORT_STRINGS);
    CHECK(p.strings.n == 0 || p.strings.p[p.strings.n - 1] == '\n');
    CHECK(str_is_ascii(p.strings));
    arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str in = str_make(data + 1, size - 1);
    switch (data[0] % 3) {
    case 0: try_record(in); break;
    case 1: try_sessions(in); break;
    default: try_tlsa(in); break;
    }
    return 0;
}
