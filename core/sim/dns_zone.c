/* dns_zone.c - reads the text of a zone. Layer: sim. Interface: dns.h, dns_impl.h. */
#include <stdio.h>

#include "sim/dns_impl.h"

enum { MAX_WORDS = 16, DEFAULT_TTL = 300 };

struct line {
    struct arena *arena;
    struct str word[MAX_WORDS];
    size_t n;
    const char *why; /* set: what is wrong */
};

struct str zone_name(struct arena *a, struct str name)
{
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    char *copy = arena_strz(a, name.p ? name : STR(""));
    CHECK(copy != NULL);
    for (size_t i = 0; i < name.n; i++)
        copy[i] = ascii_lower(copy[i]);
    return str_make(copy, name.n);
}

/* "..." loses its quotes; ';' begins a comment. */
static bool next_word(struct str *s, struct str *ret)
{
    while (s->n && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r'))
        *s = str_from(*s, 1);
    if (s->n == 0 || *s->p == ';')
        return false;
    if (*s->p == '"') {
        *s = str_from(*s, 1);
        ptrdiff_t end = str_chr(*s, '"');
        size_t n = end < 0 ? s->n : (size_t)end;
        *ret = str_first(*s, n);
        *s = str_from(*s, n + 1);
        return true;
    }
    size_t n = 0;
    while (n < s->n && !strchr(" \t\r;", s->p[n]))
        n++;
    *ret = str_first(*s, n);
    *s = str_from(*s, n);
    return true;
}

static void split(struct line *l, struct str text)
{
    struct str word;
    l->n = 0;
    while (next_word(&text, &word)) {
        if (l->n == MAX_WORDS) {
            l->why = "too many words";
            return;
        }
        l->word[l->n++] = word;
    }
}

static uint32_t number(struct line *l, size_t i, uint64_t max)
{
    uint64_t v = 0;
    if (i >= l->n || str_to_u64(l->word[i], &v) < 0 || v > max)
        l->why = "a number is missing or too large";
    return (uint32_t)v;
}

static struct str name_at(struct line *l, size_t i)
{
    if (i < l->n)
        return zone_name(l->arena, l->word[i]);
    l->why = "a name is missing";
    return STR("");
}

static void parse_addr(struct line *l, size_t i, enum net_family family, struct dns_record *r)
{
    if (i >= l->n || net_addr_parse_ip(l->word[i], &r->addr) < 0 || r->addr.family != family)
        l->why = family == NET_IPV4 ? "not an IPv4 address" : "not an IPv6 address";
}

static void parse_hex(struct line *l, size_t i, struct dns_record *r)
{
    struct str hex = i < l->n ? l->word[i] : STR("");
    char *out = arena_alloc(l->arena, hex.n / 2 + 1);
    CHECK(out != NULL);
    for (size_t k = 0; k + 1 < hex.n; k += 2) {
        unsigned byte = 0;
        char pair[3] = { hex.p[k], hex.p[k + 1], 0 };
        if (sscanf(pair, "%2x", &byte) != 1)
            l->why = "not hexadecimal";
        out[k / 2] = (char)byte;
    }
    r->name = str_make(out, hex.n / 2);
}

static void parse_text(struct line *l, size_t i, struct dns_record *r)
{
    struct buf b;
    buf_init(&b, 0);
    for (; i < l->n; i++)
        buf_add_str(&b, l->word[i]);
    r->name = arena_str(l->arena, b.data ? buf_str(&b) : STR(""));
    CHECK(r->name.p != NULL);
    buf_done(&b);
}

/* The data of a record, from word i on. */
static void parse_data(struct line *l, size_t i, enum dns_type type, struct dns_record *r)
{
    switch (type) {
    case DNS_A: parse_addr(l, i, NET_IPV4, r); break;
    case DNS_AAAA: parse_addr(l, i, NET_IPV6, r); break;
    case DNS_MX:
        r->preference = (uint16_t)number(l, i, UINT16_MAX);
        r->name = name_at(l, i + 1);
        break;
    case DNS_SRV:
        r->preference = (uint16_t)number(l, i, UINT16_MAX);
        r->weight = (uint16_t)number(l, i + 1, UINT16_MAX);
        r->port = (uint16_t)number(l, i + 2, UINT16_MAX);
        r->name = name_at(l, i + 3);
        break;
    case DNS_TLSA:
        r->usage = (uint8_t)number(l, i, UINT8_MAX);
        r->selector = (uint8_t)number(l, i + 1, UINT8_MAX);
        r->matching = (uint8_t)number(l, i + 2, UINT8_MAX);
        parse_hex(l, i + 3, r);
        break;
    case DNS_TXT: parse_text(l, i, r); break;
    default: r->name = name_at(l, i); break;
    }
}

static struct zone_record *parse_line(struct line *l)
{
    struct zone_record *r = ARENA_NEW(l->arena, struct zone_record);
    uint64_t ttl;
    size_t i = 1;
    CHECK(r != NULL);
    list_init(&r->link);
    r->owner = zone_name(l->arena, l->word[0]);
    r->ttl = DEFAULT_TTL;
    if (i < l->n && str_to_u64(l->word[i], &ttl) == 0 && ttl <= UINT32_MAX) {
        r->ttl = (uint32_t)ttl;
        i++;
    }
    if (i < l->n && str_caseeq(l->word[i], STR("IN")))
        i++;
    r->type = i < l->n ? dns_type_from_name(l->word[i]) : 0;
    if (r->type == 0) {
        l->why = i < l->n ? "unknown type of record" : "a type of record is missing";
        return NULL;
    }
    parse_data(l, i + 1, r->type, &r->data);
    return r;
}

int zone_parse(struct arena *a, struct str text, struct list *into, char *ret_why, size_t size)
{
    struct str rest = text.p ? text : STR(""), one;
    struct list found;
    list_init(&found);
    for (int n = 1; str_cut(&rest, '\n', &one); n++) {
        struct line l = { .arena = a };
        split(&l, one);
        struct zone_record *r = l.n && !l.why ? parse_line(&l) : NULL;
        if (l.why) {
            snprintf(ret_why, size, "line %d: %s: " STR_FMT, n, l.why, STR_ARG(str_trim(one)));
            return -EINVAL;
        }
        if (r)
            list_push(&found, &r->link);
    }
    list_join(into, &found);
    return 0;
}
