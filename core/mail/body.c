/* body.c - the content of a message in pieces.
 *
 * Layer: mail. Interface: body.h. The first piece grows by doubling, because most messages fit into
 * a few KiB; a message that needs a second piece is large enough to waste a part of it.
 */
#include "mail/body.h"

enum { FIRST_PIECE = 2048 };

struct body *body_new(void)
{
    struct body *b = calloc(1, sizeof(*b));

    if (b)
        atomic_init(&b->refs, 1);
    return b;
}

struct body *body_ref(struct body *b)
{
    if (b)
        atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

struct body *body_unref(struct body *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    for (struct body_chunk *c = b->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(b);
    return NULL;
}

static bool has_eight_bit(struct str s)
{
    uint64_t seen = 0, word;

    for (; s.n >= sizeof(word); s.p += sizeof(word), s.n -= sizeof(word)) {
        memcpy(&word, s.p, sizeof(word));
        seen |= word;
    }
    for (; s.n; s.p++, s.n--)
        seen |= (unsigned char)*s.p;
    return (seen & UINT64_C(0x8080808080808080)) != 0;
}

static struct body_chunk *add_chunk(struct body *b, size_t cap)
{
    struct body_chunk *c = malloc(sizeof(*c) + cap);

    if (!c)
        return NULL;
    *c = (struct body_chunk){ .cap = cap };
    if (b->last)
        b->last->next = c;
    else
        b->first = c;
    b->last = c;
    b->n_chunks++;
    return c;
}

static size_t first_max(const struct body *b)
{
    return MAX((size_t)BODY_CHUNK, (size_t)b->first_max);
}

/* Room for up to `want` more bytes in the first piece. */
static int grow_first(struct body *b, size_t want)
{
    struct body_chunk *c = b->first;
    size_t need = MIN(c->n + want, first_max(b));
    size_t cap = c->cap;

    while (cap < need)
        cap *= 2;
    cap = MIN(cap, first_max(b));
    c = realloc(c, sizeof(*c) + cap);
    if (!c)
        return -ENOMEM;
    c->cap = cap;
    b->first = b->last = c;
    return 0;
}

/* The piece that takes the next bytes, with room for one at least. */
static struct body_chunk *open_chunk(struct body *b, size_t want)
{
    struct body_chunk *c = b->last;

    if (c && c->n + want > c->cap && c->cap < first_max(b) && c == b->first) {
        if (grow_first(b, want) < 0)
            return NULL;
        c = b->last;
    }
    if (c && c->n < c->cap)
        return c;
    size_t cap = BODY_CHUNK;
    if (!c)
        for (cap = FIRST_PIECE; cap < want && cap < BODY_CHUNK;)
            cap *= 2;
    return add_chunk(b, cap);
}

static void note_end(struct body *b, struct str bytes)
{
    char before = bytes.n > 1 ? bytes.p[bytes.n - 2] : b->last_octet;

    if (bytes.n == 0)
        return;
    b->last_octet = bytes.p[bytes.n - 1];
    b->open_end = before != '\r' || b->last_octet != '\n';
}

int body_append(struct body *b, struct str bytes)
{
    note_end(b, bytes);
    while (bytes.n) {
        struct body_chunk *c = open_chunk(b, bytes.n);
        if (!c)
            return -ENOMEM;
        struct str part = str_first(bytes, c->cap - c->n);
        if (!b->eight_bit)
            b->eight_bit = has_eight_bit(part);
        memcpy(c->data + c->n, part.p, part.n);
        c->n += part.n;
        b->size += part.n;
        bytes = str_from(bytes, part.n);
    }
    return 0;
}

/* The pieces behind the first are in the spool under their numbers: the new first piece takes
 * whatever size it needs, so that they stay as they are. */
static int staged_with_head(struct body *n, const struct body *b, struct str head, uint64_t skip)
{
    if (!b->first || skip > b->first->n)
        return -EINVAL;
    struct str rest = str_from(str_make(b->first->data, b->first->n), (size_t)skip);
    struct body_chunk *c = add_chunk(n, MAX(head.n + rest.n, (size_t)1));
    if (!c)
        return -ENOMEM;
    if (head.n)
        memcpy(c->data, head.p, head.n);
    if (rest.n)
        memcpy(c->data + head.n, rest.p, rest.n);
    c->n = head.n + rest.n;
    n->size = b->size - skip + head.n;
    n->n_chunks = b->n_chunks;
    n->staged = true;
    n->eight_bit = b->eight_bit || has_eight_bit(head);
    n->open_end = b->open_end;
    n->last_octet = b->last_octet;
    return 0;
}

static int copy_with_head(struct body *n, const struct body *b, struct str head, uint64_t skip)
{
    int r = body_append(n, head);

    for (const struct body_chunk *c = b->first; c && r == 0; c = c->next) {
        size_t cut = (size_t)MIN(skip, (uint64_t)c->n);
        skip -= cut;
        r = body_append(n, str_from(str_make(c->data, c->n), cut));
    }
    return r;
}

struct body *body_with_head(const struct body *b, struct str head, uint64_t skip)
{
    struct body *n = skip <= b->size ? body_new() : NULL;

    if (!n)
        return NULL;
    int r = b->staged ? staged_with_head(n, b, head, skip) : copy_with_head(n, b, head, skip);
    return r < 0 ? body_unref(n) : n;
}

size_t body_memory(const struct body *b)
{
    size_t n = sizeof(*b);

    for (const struct body_chunk *c = b->first; c; c = c->next)
        n += sizeof(*c) + c->cap;
    return n;
}
