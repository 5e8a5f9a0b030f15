/* What a stranger's web server says is a policy, and what a damaged spool says was one: nothing outside is read, what
 * is accepted keeps its bounds and survives being kept.
 *
 * The first byte of the input chooses.
 */
#include "proto/mta_sts.h"

static void same(const struct mta_sts_policy *a, const struct mta_sts_policy *b)
{
    CHECK(a->mode == b->mode && a->max_age_s == b->max_age_s && a->n_mx == b->n_mx);
    for (size_t i = 0; i < a->n_mx; i++)
        CHECK(str_eq(a->mx[i], b->mx[i]));
}

static void try_policy(struct str text)
{
    struct mta_sts_policy p, q;
    const char *why;
    struct str id;
    struct buf b;

    int r = mta_sts_parse(text, &p, &why);
    CHECK(r == 0 || (r == -EBADMSG && why && *why));
    if (r < 0)
        return;
    CHECK(p.n_mx <= MTA_STS_MAX_MX && p.max_age_s <= MTA_STS_MAX_AGE_S);
    buf_init(&b, 0);
    CHECK(mta_sts_encode(STR("id"), &p, &b) == 0 && buf_len(&b) <= 8192);
    CHECK(mta_sts_decode(buf_str(&b), &id, &q) && str_eq(id, STR("id")));
    same(&p, &q);
    for (size_t i = 0; i < p.n_mx; i++)
        CHECK(str_starts(p.mx[i], STR("*.")) || mta_sts_allows(&p, p.mx[i]));
    buf_done(&b);
}

static void try_kept(struct str octets)
{
    struct mta_sts_policy p, q;
    struct str id, again;
    struct buf b;

    if (!mta_sts_decode(octets, &id, &p))
        return;
    buf_init(&b, 0);
    CHECK(mta_sts_encode(id, &p, &b) == 0 && buf_len(&b) <= 8192);
    CHECK(p.text.n || str_eq(buf_str(&b), octets));
    CHECK(mta_sts_decode(buf_str(&b), &again, &q) && str_eq(again, id));
    same(&p, &q);
    buf_done(&b);
}

static void try_record(struct str text)
{
    struct dns_record r = { .name = text };
    struct dns_answer *a = dns_answer_make(STR("_mta-sts.a.example"), DNS_TXT, DNS_OK, &r, 1, 1);
    struct str id;

    CHECK(a);
    if (mta_sts_record(a, &id))
        CHECK(id.n >= 1 && id.n <= MTA_STS_MAX_ID);
    dns_answer_unref(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str s = str_make(data + 1, size - 1);

    if (data[0] % 3 == 0)
        try_policy(s);
    else if (data[0] % 3 == 1)
        try_kept(s);
    else
        try_record(s);
    return 0;
}
