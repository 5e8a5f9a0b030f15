/* Parameters of MAIL and RCPT (RFC 2852, 3461, 4865, 6533, 6710) and the words of LIMITS (RFC 9422): what is taken is
 * what the grammar allows, and what is written for the next host means the same there.
 *
 * The first byte says whether UTF-8 is allowed and what is offered; the rest are parameters. */
#include <stdlib.h>

#include "proto/smtp_dsn.h"
#include "proto/smtp_limits.h"
#include "proto/smtp_syntax.h"
#include "proto/smtp_times.h"

enum { ALL = SMTP_TIMES_BY | SMTP_TIMES_HOLD | SMTP_TIMES_PRIORITY };

/* ---- the grammars, once more --------------------------------------------------------------------
 *
 * pattern: '9' a digit, '1' one that is not 0, else that character in any case. Behind one '*' means any
 * number of it, '?' at most one. */

static bool is(char what, char c)
{
    return what == '9'   ? ascii_digit(c)
           : what == '1' ? ascii_digit(c) && c != '0'
                         : ascii_lower(what) == ascii_lower(c);
}

static bool fits(const char *p, struct str s)
{
    if (!*p)
        return s.n == 0;
    bool here = s.n > 0 && is(*p, *s.p);
    if (p[1] == '*')
        return fits(p + 2, s) || (here && fits(p, str_from(s, 1)));
    if (p[1] == '?')
        return fits(p + 2, s) || (here && fits(p + 2, str_from(s, 1)));
    return here && fits(p + 1, str_from(s, 1));
}

static bool by_fits(struct str s)
{
    return fits("+?99?9?9?9?9?9?9?9?;nt?", s) || fits("-99?9?9?9?9?9?9?9?;nt?", s) ||
           fits("+?99?9?9?9?9?9?9?9?;rt?", s);
}

static bool date_fits(struct str s)
{
    return fits("9999-99-99t99:99:99z", s) || fits("9999-99-99t99:99:99.99*z", s) ||
           fits("9999-99-99t99:99:99+99:99", s) || fits("9999-99-99t99:99:99.99*+99:99", s) ||
           fits("9999-99-99t99:99:99-99:99", s) || fits("9999-99-99t99:99:99.99*-99:99", s);
}

/* ---- times ---- */

static void parse_again(struct str params, unsigned offered, struct smtp_times *ret)
{
    struct str key, value;

    *ret = (struct smtp_times){ .hold = false };
    while (smtp_next_param(&params, &key, &value) == 1)
        CHECK(smtp_times_param(key, value, offered, ret) == 0);
    CHECK(params.n == 0);
}

static void check_by(struct str value, const struct smtp_times *t)
{
    struct smtp_times again;
    struct buf out;

    CHECK(by_fits(value) && t->by.mode != SMTP_BY_NONE);
    CHECK(t->by.seconds >= -SMTP_BY_MOST && t->by.seconds <= SMTP_BY_MOST);
    CHECK(t->by.mode != SMTP_BY_RETURN || t->by.seconds > 0);
    buf_init(&out, 0);
    smtp_by_write(&t->by, &out);
    parse_again(buf_str(&out), SMTP_TIMES_BY, &again);
    CHECK(again.by.mode == t->by.mode && again.by.trace == t->by.trace &&
          again.by.seconds == t->by.seconds);
    buf_done(&out);
}

static void check_hold(struct str value, const struct smtp_times *t, bool until)
{
    char text[SMTP_DATE_TIME_TEXT];
    int64_t again;

    CHECK(t->hold && (t->hold_s != 0) != until);
    if (!until) {
        CHECK(fits("19?9?9?9?9?9?9?9?", value) && t->hold_s <= SMTP_HOLD_MOST);
        return;
    }
    CHECK(date_fits(value));
    if (t->hold_until_ms < 0) /* a zone may have it before 1970 */
        return;
    CHECK(smtp_date_time_parse(str_of(smtp_date_time_text(t->hold_until_ms, text)), &again) == 0);
    CHECK(again == t->hold_until_ms / 1000 * 1000 || t->hold_until_ms > INT64_C(253402300799999));
}

static void check_priority(struct str value, const struct smtp_times *t)
{
    struct smtp_times again;
    struct buf out;

    CHECK(t->prioritized && t->priority >= -SMTP_PRIORITY_MOST &&
          t->priority <= SMTP_PRIORITY_MOST);
    CHECK(fits("0", value) || fits("-?1", value));
    buf_init(&out, 0);
    smtp_priority_write(t->priority, &out);
    parse_again(buf_str(&out), SMTP_TIMES_PRIORITY, &again);
    CHECK(again.priority == t->priority);
    buf_done(&out);
}

static void try_times(struct str params, unsigned offered)
{
    struct smtp_times t = { .hold = false };
    struct str key, value;

    while (smtp_next_param(&params, &key, &value) == 1) {
        struct smtp_times before = t;
        int r = smtp_times_param(key, value, offered, &t);
        CHECK(r == 0 || r == -ENOENT || r == -EINVAL);
        if (r < 0)
            continue;
        if (str_caseeq(key, STR("BY"))) {
            CHECK(before.by.mode == SMTP_BY_NONE && (offered & SMTP_TIMES_BY));
            check_by(value, &t);
        } else if (str_caseeq(key, STR("MT-PRIORITY"))) {
            CHECK(!before.prioritized && (offered & SMTP_TIMES_PRIORITY));
            check_priority(value, &t);
        } else {
            CHECK(!before.hold && (offered & SMTP_TIMES_HOLD));
            check_hold(value, &t, str_caseeq(key, STR("HOLDUNTIL")));
        }
    }
}

/* ---- notifications ---- */

/* As it is kept: the type, and the address without xtext. */
static struct str plain_orcpt(struct str orcpt, char *dst)
{
    struct str address = orcpt, type;

    str_cut(&address, ';', &type);
    memcpy(dst, orcpt.p, type.n + 1);
    ptrdiff_t n = smtp_xtext_decode(address, dst + type.n + 1, SMTP_MAX_ORCPT);
    return n < 0 ? orcpt : str_make(dst, type.n + 1 + (size_t)n);
}

static void check_mail(const struct smtp_dsn_mail *dsn)
{
    char plain[SMTP_MAX_ENVID], again_plain[SMTP_MAX_ENVID];
    struct smtp_dsn_mail given = *dsn, again = { .ret = SMTP_RET_NONE };
    struct str key, value;
    struct buf out;

    ptrdiff_t n = dsn->envid.n ? smtp_xtext_decode(dsn->envid, plain, sizeof(plain)) : 0;
    CHECK(n >= 0 && dsn->envid.n <= SMTP_MAX_ENVID);
    given.envid = str_make(plain, (size_t)n);
    buf_init(&out, 0);
    smtp_dsn_write_mail(&given, &out);
    for (struct str rest = buf_str(&out); smtp_next_param(&rest, &key, &value) == 1;)
        CHECK(smtp_dsn_mail_param(key, value, &again) == 0);
    CHECK(again.ret == dsn->ret && (again.envid.n > 0) == (n > 0));
    if (n > 0)
        CHECK(smtp_xtext_decode(again.envid, again_plain, sizeof(again_plain)) == n &&
              memcmp(plain, again_plain, (size_t)n) == 0);
    buf_done(&out);
}

static void check_rcpt(const struct smtp_dsn_rcpt *dsn, bool utf8)
{
    char plain[2 * SMTP_MAX_ORCPT], again_plain[2 * SMTP_MAX_ORCPT];
    struct smtp_dsn_rcpt given = *dsn, again = { .notify = 0 };
    struct str key, value;
    struct buf out;

    CHECK(!(dsn->notify & SMTP_NOTIFY_NEVER) || dsn->notify == SMTP_NOTIFY_NEVER);
    if (dsn->orcpt.n)
        given.orcpt = plain_orcpt(dsn->orcpt, plain);
    buf_init(&out, 0);
    smtp_dsn_write_rcpt(&given, utf8, &out);
    for (struct str rest = buf_str(&out); smtp_next_param(&rest, &key, &value) == 1;)
        CHECK(smtp_dsn_rcpt_param(key, value, utf8, &again) == 0);
    CHECK(again.notify == dsn->notify);
    if (again.orcpt.n)
        CHECK(str_eq(plain_orcpt(again.orcpt, again_plain), given.orcpt));
    else /* it comes shorter than it is written */
        CHECK(dsn->orcpt.n == 0 || given.orcpt.n * 3 > SMTP_MAX_ORCPT ||
              !str_is_ascii(given.orcpt) || str_ends(given.orcpt, STR(";")));
    buf_done(&out);
}

static void try_dsn(struct str params, bool utf8)
{
    struct smtp_dsn_mail mail = { .ret = SMTP_RET_NONE };
    struct smtp_dsn_rcpt rcpt = { .notify = 0 };
    struct str key, value;

    while (smtp_next_param(&params, &key, &value) == 1) {
        bool is_mail = str_caseeq(key, STR("RET")) || str_caseeq(key, STR("ENVID"));
        bool is_rcpt = str_caseeq(key, STR("NOTIFY")) || str_caseeq(key, STR("ORCPT"));
        CHECK((smtp_dsn_mail_param(key, value, &mail) == -ENOENT) == !is_mail);
        CHECK((smtp_dsn_rcpt_param(key, value, utf8, &rcpt) == -ENOENT) == !is_rcpt);
    }
    CHECK(rcpt.orcpt.n <= SMTP_MAX_ORCPT && (utf8 || str_is_ascii(rcpt.orcpt)));
    check_mail(&mail);
    check_rcpt(&rcpt, utf8);
}

/* ---- limits ---- */

static void try_limits(struct str s)
{
    struct smtp_limits l, again;
    struct buf out;

    smtp_limits_parse(s, &l);
    CHECK(l.rcptmax <= SMTP_LIMIT_MOST && l.mailmax <= SMTP_LIMIT_MOST &&
          l.rcptdomainmax <= SMTP_LIMIT_MOST);
    buf_init(&out, 0);
    smtp_limits_write(&l, &out);
    CHECK((buf_len(&out) > 0) == (l.rcptmax || l.mailmax || l.rcptdomainmax));
    smtp_limits_parse(str_from(buf_str(&out), sizeof("\nLIMITS") - 1), &again);
    CHECK(again.rcptmax == l.rcptmax && again.mailmax == l.mailmax &&
          again.rcptdomainmax == l.rcptdomainmax);
    buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    /* A copy of its own size: the sanitizer sees each step beyond it. */
    char *copy = malloc(size);
    struct str s = str_make(copy, size - 1);
    CHECK(copy);
    memcpy(copy, data + 1, size - 1);
    try_times(s, data[0] & ALL);
    try_dsn(s, data[0] & 8);
    try_limits(s);
    free(copy);
    return 0;
}
