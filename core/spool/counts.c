/* counts.c - sums of a group's changes per queue. Layer: spool. Interface: counts.h. */
#include "spool/counts.h"

#include "base/hash.h"

enum { FIRST_ENTRIES = 64 };

void counts_init(struct counts *c)
{
    *c = (struct counts){ 0 };
}

void counts_done(struct counts *c)
{
    free(c->entry);
    free(c->slot);
    free(c->names);
    *c = (struct counts){ 0 };
}

void counts_clear(struct counts *c)
{
    if (c->n)
        memset(c->slot, 0, c->slots * sizeof(*c->slot));
    c->n = 0;
    c->names_n = 0;
}

/* The slot of the queue, or the free one where it belongs. */
static uint32_t *find(const struct counts *c, uint64_t hash, struct str queue)
{
    for (size_t i = hash & (c->slots - 1);; i = (i + 1) & (c->slots - 1)) {
        uint32_t at = c->slot[i];
        if (at == 0)
            return &c->slot[i];
        const struct count_entry *e = &c->entry[at - 1];
        if (e->hash == hash && str_eq(counts_name(c, e), queue))
            return &c->slot[i];
    }
}

static bool grow_entries(struct counts *c)
{
    size_t cap = c->cap ? c->cap * 2 : FIRST_ENTRIES;
    uint32_t *slot = calloc(cap * 2, sizeof(*slot));
    struct count_entry *entry = slot ? realloc(c->entry, cap * sizeof(*entry)) : NULL;

    if (!entry) {
        free(slot);
        return false;
    }
    free(c->slot);
    c->slot = slot;
    c->slots = cap * 2;
    c->entry = entry;
    c->cap = cap;
    for (size_t i = 0; i < c->n; i++)
        *find(c, entry[i].hash, counts_name(c, &entry[i])) = (uint32_t)i + 1;
    return true;
}

static bool room_for_name(struct counts *c, size_t n)
{
    if (c->names_n + n <= c->names_cap)
        return true;

    size_t cap = MAX(c->names_cap * 2, (size_t)4096);
    char *names = realloc(c->names, cap); /* 4096 is more than a name has */
    if (!names)
        return false;
    c->names = names;
    c->names_cap = cap;
    return true;
}

struct count_entry *counts_of(struct counts *c, struct str queue)
{
    uint64_t hash = hash_bytes(queue.p, queue.n);

    CHECK(queue_name_valid(queue));
    if (c->n == c->cap && !grow_entries(c))
        return NULL;
    uint32_t *slot = find(c, hash, queue);
    if (*slot)
        return &c->entry[*slot - 1];
    if (!room_for_name(c, queue.n))
        return NULL;

    struct count_entry *e = &c->entry[c->n];
    *e = (struct count_entry){ .hash = hash, .name_at = c->names_n, .name_n = queue.n };
    memcpy(c->names + c->names_n, queue.p, queue.n);
    c->names_n += queue.n;
    *slot = (uint32_t)++c->n;
    return e;
}
