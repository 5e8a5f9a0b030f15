/* dane.c - TLSA records to octets and back. Layer: proto. Interface: dane.h.
 *
 * base NUL domain NUL, then of each record usage, selector, matching, two octets of length, data. */
#include "proto/dane.h"

enum { HEAD = 5 };

bool dane_usable(const struct dns_record *r)
{
    size_t n = r->name.n;

    if ((r->usage != DANE_USAGE_TA && r->usage != DANE_USAGE_EE) || r->selector > 1)
        return false;
    switch (r->matching) {
    case 0: return n > 0 && n <= DANE_MAX_DATA;
    case 1: return n == 32; /* SHA-256 */
    case 2: return n == 64; /* SHA-512 */
    }
    return false;
}

static int compare(const void *a, const void *b)
{
    const struct dns_record *x = *(const struct dns_record *const *)a;
    const struct dns_record *y = *(const struct dns_record *const *)b;
    const uint8_t left[] = { x->usage, x->selector, x->matching };
    const uint8_t right[] = { y->usage, y->selector, y->matching };
    int r = memcmp(left, right, sizeof(left));

    if (r == 0 && x->name.n == y->name.n)
        return memcmp(x->name.p, y->name.p, x->name.n);
    return r ? r : x->name.n < y->name.n ? -1 : 1;
}

int dane_write(struct str base, struct str domain, const struct dns_answer *a, struct buf *out)
{
    const struct dns_record *kept[DNS_MAX_RECORDS];
    size_t n = 0;
    int r = 0;

    for (size_t i = 0; i < a->n && n < ARRAY_LEN(kept); i++)
        if (dane_usable(&a->records[i]))
            kept[n++] = &a->records[i];
    if (n == 0)
        return 0;
    qsort(kept, n, sizeof(kept[0]), compare);
    n = MIN(n, (size_t)DANE_MAX_RECORDS);
    r |= buf_add_str(out, base);
    r |= buf_add(out, "", 1);
    r |= buf_add_str(out, domain);
    r |= buf_add(out, "", 1);
    for (size_t i = 0; i < n; i++) {
        const struct dns_record *k = kept[i];
        const uint8_t head[HEAD] = { k->usage, k->selector, k->matching, (uint8_t)(k->name.n >> 8),
                                     (uint8_t)k->name.n };
        r |= buf_add(out, head, sizeof(head));
        r |= buf_add_str(out, k->name);
    }
    return r < 0 ? -ENOMEM : (int)n;
}

bool dane_read(struct str octets, struct dane *ret)
{
    struct str *const names[] = { &ret->base, &ret->domain };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ptrdiff_t end = str_chr(octets, '\0');
        if (end < 0)
            return false;
        *names[i] = str_first(octets, (size_t)end);
        octets = str_from(octets, (size_t)end + 1);
    }
    ret->records = octets;
    return ret->base.n > 0;
}

bool dane_take(struct str *records, struct dane_record *ret)
{
    const uint8_t *p = (const uint8_t *)records->p;

    if (records->n < HEAD)
        return false;
    size_t n = (size_t)p[3] << 8 | p[4];
    if (records->n - HEAD < n)
        return false;
    *ret = (struct dane_record){ p[0], p[1], p[2], str_make(records->p + HEAD, n) };
    *records = str_from(*records, HEAD + n);
    return true;
}

size_t dane_count(struct str octets)
{
    struct dane d;
    struct dane_record r;
    size_t n = 0;

    if (!dane_read(octets, &d))
        return 0;
    while (dane_take(&d.records, &r))
        n++;
    return n;
}
