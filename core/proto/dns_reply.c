/* dns_reply.c - questions in, answers out. See dns_reply.h. */
#include "proto/dns_reply.h"

enum {
    HEADER = 12,
    CLASS_IN = 1,
    FLAG_QR = 0x8000,
    FLAG_AA = 0x0400,
    FLAG_TC = 0x0200,
    FLAG_RD = 0x0100,
    FLAG_RA = 0x0080,
    OPCODE = 0x7800,
};

/* ---- the question ----------------------------------------------------------------------------- */

static bool take_label(struct str *in, size_t n, char *dst, size_t *at)
{
    struct str label;
    if (!take_bytes(in, n, &label) || *at + n + 1 > DNS_MAX_NAME)
        return false;
    if (*at)
        dst[(*at)++] = '.';
    for (size_t i = 0; i < n; i++) {
        if (label.p[i] <= ' ' || label.p[i] >= 127 || label.p[i] == '.')
            return false;
        dst[(*at)++] = ascii_lower(label.p[i]);
    }
    return true;
}

int dns_question_parse(const void *bytes, size_t n, struct dns_question *ret)
{
    struct str in = str_make(bytes, n);
    uint16_t flags, questions, other, type, class_;
    struct dns_question q = { .id = 0 };
    size_t at = 0;
    if (!take_u16(&in, &q.id) || !take_u16(&in, &flags) || !take_u16(&in, &questions) ||
        (flags & (FLAG_QR | OPCODE)) || questions != 1)
        return -EBADMSG;
    for (int i = 0; i < 3; i++)
        if (!take_u16(&in, &other))
            return -EBADMSG;
    for (uint8_t len; take_u8(&in, &len);) {
        if (len == 0) {
            if (!take_u16(&in, &type) || !take_u16(&in, &class_) || class_ != CLASS_IN)
                return -EBADMSG;
            q.type = (enum dns_type)type;
            q.recursion = flags & FLAG_RD;
            *ret = q;
            return 0;
        }
        if (len > 63 || !take_label(&in, len, q.name, &at))
            return -EBADMSG;
    }
    return -EBADMSG;
}

/* ---- the answer ------------------------------------------------------------------------------- */

static void write_name(struct buf *out, struct str name)
{
    struct str label;
    while (name.n && str_cut(&name, '.', &label)) {
        buf_add_u8(out, (uint8_t)label.n);
        buf_add_str(out, label);
    }
    buf_add_u8(out, 0);
}

static void write_data(struct buf *out, enum dns_type type, const struct dns_record *r)
{
    switch (type) {
    case DNS_A: buf_add(out, r->addr.ip, 4); break;
    case DNS_AAAA: buf_add(out, r->addr.ip, 16); break;
    case DNS_MX:
        buf_add_u16(out, r->preference);
        write_name(out, r->name);
        break;
    case DNS_SRV:
        buf_add_u16(out, r->preference);
        buf_add_u16(out, r->weight);
        buf_add_u16(out, r->port);
        write_name(out, r->name);
        break;
    case DNS_TXT:
        for (size_t i = 0; i == 0 || i < r->name.n; i += 255) {
            struct str part = str_first(str_from(r->name, i), MIN(r->name.n - i, (size_t)255));
            buf_add_u8(out, (uint8_t)part.n);
            buf_add_str(out, part);
        }
        break;
    case DNS_TLSA:
        buf_add_u8(out, r->usage);
        buf_add_u8(out, r->selector);
        buf_add_u8(out, r->matching);
        buf_add_str(out, r->name);
        break;
    case DNS_NS:
    case DNS_CNAME:
    case DNS_PTR: write_name(out, r->name); break;
    }
}

static void write_record(struct buf *out, struct str owner, enum dns_type type, uint32_t ttl,
                         const struct dns_record *r)
{
    struct buf data;
    buf_init(&data, 0);
    write_data(&data, type, r);
    write_name(out, owner);
    buf_add_u16(out, (uint16_t)type);
    buf_add_u16(out, CLASS_IN);
    buf_add_u32(out, ttl);
    buf_add_u16(out, (uint16_t)buf_len(&data));
    buf_add_str(out, buf_str(&data));
    if (data.failed)
        out->failed = data.failed;
    buf_done(&data);
}

static uint16_t rcode_of(enum dns_status status)
{
    return status == DNS_NXDOMAIN ? 3 : status == DNS_SERVFAIL || status == DNS_TIMEOUT ? 2 : 0;
}

/* The answer section; how many records it has. *ret_cut: not all of them fit. */
static uint16_t write_answers(const struct dns_question *q, const struct dns_answer *a, size_t room,
                              struct buf *out, bool *ret_cut)
{
    uint16_t n = 0;
    bool renamed = a->status == DNS_OK && !str_eq(a->canonical, str_of(q->name));
    if (renamed) {
        struct dns_record alias = { .name = a->canonical };
        write_record(out, str_of(q->name), DNS_CNAME, a->ttl, &alias);
        n++;
    }
    for (size_t i = 0; i < a->n; i++) {
        struct buf one;
        buf_init(&one, 0);
        write_record(&one, a->canonical, a->type, a->ttl, &a->records[i]);
        *ret_cut = buf_len(out) + buf_len(&one) > room;
        if (!*ret_cut)
            buf_add_str(out, buf_str(&one));
        if (one.failed)
            out->failed = one.failed;
        buf_done(&one);
        if (*ret_cut)
            break;
        n++;
    }
    return n;
}

int dns_reply_write(const struct dns_question *q, const struct dns_answer *a, size_t max,
                    struct buf *out)
{
    struct buf answers;
    bool cut = false;
    size_t question = HEADER + strlen(q->name) + 2 + 4;
    buf_init(&answers, 0);
    uint16_t n = write_answers(q, a, max > question ? max - question : 0, &answers, &cut);
    buf_add_u16(out, q->id);
    buf_add_u16(out, (uint16_t)(FLAG_QR | FLAG_AA | FLAG_RA | (cut ? FLAG_TC : 0) |
                                (q->recursion ? FLAG_RD : 0) | rcode_of(a->status)));
    buf_add_u16(out, 1);
    buf_add_u16(out, n);
    buf_add_u32(out, 0); /* neither authority nor additional records */
    write_name(out, str_of(q->name));
    buf_add_u16(out, (uint16_t)q->type);
    buf_add_u16(out, CLASS_IN);
    buf_add_str(out, buf_str(&answers));
    int err = answers.failed ? answers.failed : out->failed;
    buf_done(&answers);
    return err;
}
