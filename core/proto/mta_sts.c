/* mta_sts.c - records and policies of MTA-STS. Layer: proto. Interface: mta_sts.h.
 *
 * Kept as: version u8, mode u8, max_age u32, id, then each MX. Version 2, only when its lines are other ones than we would
 * write ourselves: the same with a u8 before the MX, how many there are, and the lines behind them. */
#include "proto/mta_sts.h"

#include <stdio.h>

enum { VERSION = 1, VERSION_LINES = 2, MAX_KEPT = 8192 };

const char *mta_sts_mode_name(enum mta_sts_mode m)
{
    switch (m) {
    case MTA_STS_NONE: return "none";
    case MTA_STS_TESTING: return "testing";
    case MTA_STS_ENFORCE: return "enforce";
    }
    return "";
}

/* ---- the record ------------------------------------------------------------------------------- */

static bool id_valid(struct str id)
{
    for (size_t i = 0; i < id.n; i++)
        if (!ascii_alnum(id.p[i]))
            return false;
    return id.n >= 1 && id.n <= MTA_STS_MAX_ID;
}

static struct str trim_blanks(struct str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = str_from(s, 1);
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* "v=STSv1; id=20160831085700Z;": fields that are not known are passed over. */
static bool record_id(struct str text, struct str *ret_id)
{
    struct str field;
    bool version = false, id = false;

    while (str_cut(&text, ';', &field)) {
        field = trim_blanks(field);
        if (!version) {
            if (!str_eq(field, STR("v=STSv1")))
                return false;
            version = true;
        } else if (!id && str_starts(field, STR("id="))) {
            *ret_id = str_from(field, 3);
            id = true;
        }
    }
    return id && id_valid(*ret_id);
}

bool mta_sts_record(const struct dns_answer *txt, struct str *ret_id)
{
    const struct dns_record *found = NULL;

    if (txt->status != DNS_OK)
        return false;
    for (size_t i = 0; i < txt->n; i++) {
        if (!str_starts(txt->records[i].name, STR("v=STSv1")))
            continue;
        if (found)
            return false;
        found = &txt->records[i];
    }
    return found && record_id(found->name, ret_id);
}

/* ---- the policy ------------------------------------------------------------------------------- */

/* A name of letters, digits, hyphens and dots, without empty labels; "*." may stand before it. */
static bool pattern_valid(struct str s)
{
    bool label = false;

    if (str_starts(s, STR("*.")))
        s = str_from(s, 2);
    if (s.n == 0 || s.n > DNS_MAX_NAME)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.' ? !label : !ascii_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_')
            return false;
        label = s.p[i] != '.';
    }
    return label;
}

struct parser {
    struct mta_sts_policy *policy;
    bool version, mode, max_age;
    const char *why;
};

static bool parse_version(struct parser *p, struct str value)
{
    if (!p->version && !str_eq(value, STR("STSv1")))
        p->why = "its version is not STSv1";
    p->version = true;
    return !p->why;
}

static bool parse_mode(struct parser *p, struct str value)
{
    if (p->mode)
        return true;
    p->mode = true;
    for (int m = MTA_STS_NONE; m <= MTA_STS_ENFORCE; m++)
        if (str_eq(value, str_of(mta_sts_mode_name((enum mta_sts_mode)m)))) {
            p->policy->mode = (enum mta_sts_mode)m;
            return true;
        }
    p->why = "its mode is none of enforce, testing, none";
    return false;
}

static bool parse_max_age(struct parser *p, struct str value)
{
    uint64_t n;

    if (p->max_age)
        return true;
    p->max_age = true;
    if (value.n > 10 || str_to_u64(value, &n) < 0) {
        p->why = "its max_age is no number of seconds";
        return false;
    }
    p->policy->max_age_s = (uint32_t)MIN(n, (uint64_t)MTA_STS_MAX_AGE_S);
    return true;
}

static bool parse_mx(struct parser *p, struct str value)
{
    struct mta_sts_policy *policy = p->policy;

    if (!pattern_valid(value))
        p->why = "one of its mx is no name";
    else if (policy->n_mx == MTA_STS_MAX_MX)
        p->why = "it has more than 30 mx";
    else
        policy->mx[policy->n_mx++] = value;
    return !p->why;
}

static bool parse_field(struct parser *p, struct str line)
{
    struct str name;

    if (!str_cut(&line, ':', &name) || !line.p) {
        p->why = "a line has no colon";
        return false;
    }
    struct str value = trim_blanks(line);
    name = trim_blanks(name);
    if (str_eq(name, STR("version")))
        return parse_version(p, value);
    if (str_eq(name, STR("mode")))
        return parse_mode(p, value);
    if (str_eq(name, STR("max_age")))
        return parse_max_age(p, value);
    return str_eq(name, STR("mx")) ? parse_mx(p, value) : true;
}

int mta_sts_parse(struct str text, struct mta_sts_policy *ret, const char **ret_why)
{
    struct parser p = { .policy = ret };
    struct str line;

    *ret = (struct mta_sts_policy){ .text = text };
    if (text.n > MTA_STS_MAX_TEXT)
        p.why = "it is too long";
    while (!p.why && str_cut(&text, '\n', &line)) {
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (trim_blanks(line).n)
            parse_field(&p, line);
    }
    if (!p.why && !p.version)
        p.why = "it has no version";
    if (!p.why && !p.mode)
        p.why = "it has no mode";
    if (!p.why && !p.max_age)
        p.why = "it has no max_age";
    if (!p.why && ret->mode != MTA_STS_NONE && ret->n_mx == 0)
        p.why = "it has no mx";
    *ret_why = p.why;
    return p.why ? -EBADMSG : 0;
}

bool mta_sts_allows(const struct mta_sts_policy *p, struct str mx)
{
    if (mx.n && mx.p[mx.n - 1] == '.')
        mx.n--;
    for (size_t i = 0; i < p->n_mx; i++) {
        struct str pattern = p->mx[i];
        if (str_caseeq(pattern, mx))
            return true;
        if (!str_starts(pattern, STR("*.")))
            continue;
        ptrdiff_t dot = str_chr(mx, '.');
        if (dot > 0 && str_caseeq(str_from(mx, (size_t)dot), str_from(pattern, 1)))
            return true;
    }
    return false;
}

/* ---- as lines --------------------------------------------------------------------------------- */

/* False: it would be too much. */
static bool add_line(struct buf *out, size_t before, size_t max, struct str name, struct str value)
{
    if (buf_len(out) - before + name.n + value.n + 1 > max)
        return false;
    buf_add_str(out, name);
    buf_add_str(out, value);
    buf_add_char(out, '\n');
    return true;
}

static int lines_made(const struct mta_sts_policy *p, size_t max, struct buf *out)
{
    size_t before = buf_len(out);
    char age[32];
    int n = snprintf(age, sizeof(age), "max_age: %u\n", p->max_age_s);
    size_t room = max > (size_t)n ? max - (size_t)n : 0;

    add_line(out, before, room, STR("version: "), STR("STSv1"));
    add_line(out, before, room, STR("mode: "), str_of(mta_sts_mode_name(p->mode)));
    for (size_t i = 0; i < p->n_mx; i++)
        if (!add_line(out, before, room, STR("mx: "), p->mx[i]))
            break;
    return buf_add_str(out, str_of(age));
}

int mta_sts_lines(const struct mta_sts_policy *p, size_t max, struct buf *out)
{
    size_t before = buf_len(out);
    struct str text = p->text, line;

    if (!text.n)
        return lines_made(p, max, out);
    while (str_cut(&text, '\n', &line)) {
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n && !add_line(out, before, max, line, STR("")))
            break;
    }
    return out->failed;
}

/* ---- as it is kept ---------------------------------------------------------------------------- */

/* Its lines, when they say more than its fields. Empty: they do not, or are not known. */
static struct str lines_to_keep(const struct mta_sts_policy *p, struct buf *room)
{
    struct mta_sts_policy bare = *p;
    struct str made, told;

    bare.text = STR_NONE;
    if (!p->text.n || mta_sts_lines(&bare, MTA_STS_MAX_LINES, room) < 0)
        return STR_NONE;
    size_t n = buf_len(room);
    if (mta_sts_lines(p, MTA_STS_MAX_LINES, room) < 0)
        return STR_NONE;
    made = str_first(buf_str(room), n);
    told = str_from(buf_str(room), n);
    return str_eq(made, told) ? STR_NONE : told;
}

int mta_sts_encode(struct str id, const struct mta_sts_policy *p, struct buf *out)
{
    size_t octets = 7 + 4 + id.n, before = buf_len(out);
    struct buf room;

    buf_init(&room, 0);
    struct str lines = lines_to_keep(p, &room);
    for (size_t i = 0; i < p->n_mx; i++)
        octets += 4 + p->mx[i].n;
    if (octets + 4 + lines.n > MAX_KEPT)
        lines = STR_NONE;
    buf_add_u8(out, lines.n ? VERSION_LINES : VERSION);
    buf_add_u8(out, (uint8_t)p->mode);
    buf_add_u32(out, p->max_age_s);
    buf_add_lstr(out, id);
    if (lines.n)
        buf_add_u8(out, (uint8_t)p->n_mx);
    for (size_t i = 0; i < p->n_mx; i++)
        buf_add_lstr(out, p->mx[i]);
    if (lines.n)
        buf_add_lstr(out, lines);
    buf_done(&room);
    CHECK(out->failed || buf_len(out) - before <= MAX_KEPT);
    return out->failed;
}

static bool take_mx(struct str *octets, struct mta_sts_policy *ret)
{
    struct str mx;

    if (ret->n_mx == MTA_STS_MAX_MX || !take_lstr(octets, &mx) || !pattern_valid(mx))
        return false;
    ret->mx[ret->n_mx++] = mx;
    return true;
}

bool mta_sts_decode(struct str octets, struct str *ret_id, struct mta_sts_policy *ret)
{
    uint8_t version, mode, n = 0;

    *ret = (struct mta_sts_policy){ 0 };
    if (!take_u8(&octets, &version) || (version != VERSION && version != VERSION_LINES) ||
        !take_u8(&octets, &mode) || mode > MTA_STS_ENFORCE || !take_u32(&octets, &ret->max_age_s) ||
        ret->max_age_s > MTA_STS_MAX_AGE_S || !take_lstr(&octets, ret_id) || !id_valid(*ret_id))
        return false;
    ret->mode = (enum mta_sts_mode)mode;
    if (version == VERSION_LINES) {
        if (!take_u8(&octets, &n))
            return false;
        while (n--)
            if (!take_mx(&octets, ret))
                return false;
        if (!take_lstr(&octets, &ret->text) || !ret->text.n || octets.n ||
            ret->text.n > MTA_STS_MAX_LINES)
            return false;
    }
    while (octets.n)
        if (!take_mx(&octets, ret))
            return false;
    return ret->mode == MTA_STS_NONE || ret->n_mx;
}
