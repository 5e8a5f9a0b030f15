/* The reader of DNS answers on any bytes. The first byte chooses the type asked for; with its upper
 * bit set, the rest is the whole message; else the header's twelve bytes and what follows the
 * question, which is put in, so that most inputs get past it. */
#include "base/buf.h"
#include "proto/dns_message.h"

static const enum dns_type types[] = { DNS_A,    DNS_NS,  DNS_CNAME,
                                       DNS_PTR,  DNS_MX,  DNS_TXT,
                                       DNS_AAAA, DNS_SRV, (enum dns_type)DNS_TLSA };
static const struct str qname = STR("a.example");

static void check_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        CHECK(s.p[i] > 32 && s.p[i] < 127);
        CHECK(s.p[i] < 'A' || s.p[i] > 'Z');
    }
    CHECK(s.n == 0 || s.p[s.n - 1] != '.' || (s.n > 1 && s.p[s.n - 2] == '\\'));
}

static void check_answer(struct dns_answer *a, enum dns_type type)
{
    uint64_t sum = 0;

    CHECK(a->type == type && str_eq(a->question, qname));
    CHECK(a->n <= DNS_MAX_RECORDS && (a->status == DNS_OK) == (a->n > 0));
    check_name(a->canonical);
    for (size_t i = 0; i < a->n; i++) {
        const struct dns_record *r = &a->records[i];
        if (type == DNS_TXT || type == DNS_TLSA)
            for (size_t k = 0; k < r->name.n; k++)
                sum += (unsigned char)r->name.p[k];
        else
            check_name(r->name);
        CHECK((r->addr.family != NET_NONE) == (type == DNS_A || type == DNS_AAAA));
    }
    CHECK(sum < UINT64_MAX);

    struct dns_answer *copy =
        dns_answer_make(a->question, a->type, a->status, a->records, a->n, a->ttl);
    CHECK(copy && copy->n == a->n);
    for (size_t i = 0; i < a->n; i++)
        CHECK(str_eq(copy->records[i].name, a->records[i].name));
    dns_answer_unref(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns_answer *a = NULL;
    struct buf m;

    if (size < 1)
        return 0;
    enum dns_type type = types[(data[0] & 0x7f) % ARRAY_LEN(types)];
    bool raw = data[0] & 0x80;
    data++;
    size--;
    if (!raw && size < 12)
        return 0;
    buf_init(&m, 0);
    if (raw) {
        buf_add(&m, data, size);
    } else {
        buf_add(&m, data, 12);
        m.data[2] = (char)(m.data[2] | 0x80); /* an answer */
        m.data[2] = (char)(m.data[2] & 0x87);
        m.data[4] = 0; /* to one question */
        m.data[5] = 1;
        buf_add_str(&m, STR("\1a\7example\0"));
        buf_add_u16(&m, (uint16_t)type);
        buf_add_u16(&m, 1);
        buf_add(&m, data + 12, size - 12);
    }

    /* A copy of its own size: the sanitizer sees each step beyond it. */
    char *copy = malloc(buf_len(&m));
    if (buf_len(&m))
        memcpy(copy, buf_str(&m).p, buf_len(&m));
    int r = dns_message_parse(copy, buf_len(&m), qname, type, &a);
    free(copy);
    buf_done(&m);
    CHECK(r == 0 || r == -EBADMSG);
    if (r == 0) {
        check_answer(a, type);
        dns_answer_unref(a);
    }
    return 0;
}
