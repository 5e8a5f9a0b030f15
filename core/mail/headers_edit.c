/* headers_edit.c - changes of a header block.
 *
 * Layer: mail. Interface: headers.h. Each edit does first all that may fail, then changes the array of
 * fields, which is copied before when headers_undo may want it back.
 */
#include "mail/headers_internal.h"

enum { FIRST_CHANGES = 8 };

static bool is_ours(const struct headers *h, size_t at)
{
    return headers_received_by(&h->fields[at], h->by);
}

static int refuse_ours(struct headers *h)
{
    return headers_refuse(
        h, -EPERM,
        "a Received field that this router wrote stays as it is: mail that goes in circles "
        "is known by them");
}

/* ---- the record of changes ---- */

/* The places of many changes are the same. */
static int keep_place(struct headers *h, struct str *ret)
{
    const struct header_change *last = h->n_changes ? &h->changes[h->n_changes - 1] : NULL;

    *ret = last && str_eq(last->place, h->place) ? last->place : arena_str(h->arena, h->place);
    return h->place.n && !ret->p ? -ENOMEM : 0;
}

/* Makes room for one more; *ret_place is to be given to `record`. */
static int record_room(struct headers *h, struct str *ret_place)
{
    if (h->n_changes == HEADERS_MAX_CHANGES)
        return headers_refuse(h, -E2BIG, "more than 500 changes of one message's header");
    if (h->n_changes == h->changes_cap) {
        size_t cap = h->changes_cap ? h->changes_cap * 2 : FIRST_CHANGES;
        struct header_change *more = ARENA_ARRAY(h->arena, struct header_change, cap);
        if (!more)
            return -ENOMEM;
        if (h->n_changes)
            memcpy(more, h->changes, h->n_changes * sizeof(*more));
        h->changes = more;
        h->changes_cap = cap;
    }
    return keep_place(h, ret_place);
}

static void record(struct headers *h, enum header_op op, struct str name, size_t n,
                   struct str place)
{
    h->changes[h->n_changes++] =
        (struct header_change){ .op = op, .name = name, .n = (uint32_t)n, .place = place };
    h->changed = true;
}

/* ---- the array ---- */

void headers_begin(struct headers *h)
{
    h->mark = (struct headers_mark){ .fields = h->fields,
                                     .n = h->n,
                                     .cap = h->cap,
                                     .octets = h->octets,
                                     .n_changes = h->n_changes,
                                     .changed = h->changed };
    h->shared = true;
}

void headers_undo(struct headers *h)
{
    h->fields = h->mark.fields;
    h->n = h->mark.n;
    h->cap = h->mark.cap;
    h->octets = h->mark.octets;
    h->n_changes = h->mark.n_changes;
    h->changed = h->mark.changed;
    h->shared = true;
}

/* The array is ours alone afterwards, with room for `more` fields. */
static int own(struct headers *h, size_t more)
{
    if (h->n + more > HEADERS_MAX_FIELDS)
        return headers_refuse(h, -E2BIG, "the message would have more than 2000 header fields");
    if (h->shared) {
        size_t cap = h->n + more + 8;
        struct header_field *copy = ARENA_ARRAY(h->arena, struct header_field, cap);
        if (!copy)
            return -ENOMEM;
        if (h->n)
            memcpy(copy, h->fields, h->n * sizeof(*copy));
        h->fields = copy;
        h->cap = cap;
        h->shared = false;
    }
    return more ? headers_grow(h) : 0;
}

/* May a field of so many octets come, where others of `gone` octets go? */
static int weigh(struct headers *h, size_t n, size_t gone)
{
    if (h->added + n > HEADERS_MAX_ADDED)
        return headers_refuse(h, -E2BIG, "more than 64 KiB of fields added to one message");
    if (h->octets - gone + n > HEADERS_MAX_BYTES)
        return headers_refuse(h, -E2BIG, "the message's header would be larger than 256 KiB");
    return 0;
}

/* ---- edits ---- */

/* All that may fail, for a new field that takes the place of `gone` octets, or of none with `more` fields. */
static int prepare(struct headers *h, struct str name, struct str value, size_t gone, size_t more,
                   struct header_field *ret, struct str *ret_place)
{
    int r = headers_make(h, name, value, ret);

    if (r == 0)
        r = weigh(h, ret->raw.n, gone);
    if (r == 0)
        r = own(h, more);
    return r == 0 ? record_room(h, ret_place) : r;
}

static int insert(struct headers *h, enum header_op op, struct str name, struct str value)
{
    size_t at = op == HEADER_PREPENDED ? 0 : h->n;
    struct header_field f;
    struct str place;
    int r = prepare(h, name, value, 0, 1, &f, &place);

    if (r < 0)
        return r;
    memmove(h->fields + at + 1, h->fields + at, (h->n - at) * sizeof(f));
    h->fields[at] = f;
    h->n++;
    h->octets += f.raw.n;
    h->added += f.raw.n;
    record(h, op, f.name, 1, place);
    return 0;
}

int headers_add(struct headers *h, struct str name, struct str value)
{
    return insert(h, HEADER_ADDED, name, value);
}

int headers_prepend(struct headers *h, struct str name, struct str value)
{
    return insert(h, HEADER_PREPENDED, name, value);
}

/* Removes those of that name from index `from` on, but ours. */
static size_t remove_from(struct headers *h, struct str name, size_t from)
{
    size_t kept = from;

    for (size_t i = from; i < h->n; i++) {
        if (!str_caseeq(h->fields[i].name, name) || is_ours(h, i))
            h->fields[kept++] = h->fields[i];
        else
            h->octets -= h->fields[i].raw.n;
    }
    size_t removed = h->n - kept;
    h->n = kept;
    return removed;
}

/* Puts the new field at `at`, and when `others` removes those of its name behind it. */
static int put(struct headers *h, size_t at, struct str name, struct str value, bool others)
{
    struct header_field f;
    struct str place;
    int r = prepare(h, name, value, h->fields[at].raw.n, 0, &f, &place);

    if (r < 0)
        return r;
    h->octets += f.raw.n - h->fields[at].raw.n;
    h->added += f.raw.n;
    h->fields[at] = f;
    record(h, HEADER_REPLACED, f.name, 1 + (others ? remove_from(h, f.name, at + 1) : 0), place);
    return 0;
}

int headers_set(struct headers *h, struct str name, struct str value)
{
    size_t at = headers_next(h, name, 0);

    for (size_t i = at; i < h->n; i = headers_next(h, name, i + 1))
        if (is_ours(h, i))
            return refuse_ours(h);
    return at == h->n ? headers_add(h, name, value) : put(h, at, name, value, true);
}

static int check_index(struct headers *h, size_t at)
{
    if (at >= h->n)
        return headers_refuse(h, -ENOENT, "there is no such field");
    return is_ours(h, at) ? refuse_ours(h) : 0;
}

int headers_replace(struct headers *h, size_t at, struct str name, struct str value)
{
    int r = check_index(h, at);

    return r < 0 ? r : put(h, at, name, value, false);
}

int headers_remove(struct headers *h, struct str name, size_t *ret_removed)
{
    size_t at = headers_next(h, name, 0);
    struct str place;
    int r = 0;

    while (at < h->n && is_ours(h, at))
        at = headers_next(h, name, at + 1);
    if (at == h->n) {
        if (ret_removed)
            *ret_removed = 0;
        return 0;
    }
    r = own(h, 0);
    if (r == 0)
        r = record_room(h, &place);
    if (r < 0)
        return r;
    struct str written = h->fields[at].name;
    size_t removed = remove_from(h, name, at);
    record(h, HEADER_REMOVED, written, removed, place);
    if (ret_removed)
        *ret_removed = removed;
    return 0;
}

int headers_remove_at(struct headers *h, size_t at)
{
    struct str place;
    int r = check_index(h, at);

    if (r == 0)
        r = own(h, 0);
    if (r == 0)
        r = record_room(h, &place);
    if (r < 0)
        return r;
    struct str written = h->fields[at].name;
    h->octets -= h->fields[at].raw.n;
    h->n--;
    memmove(h->fields + at, h->fields + at + 1, (h->n - at) * sizeof(h->fields[0]));
    record(h, HEADER_REMOVED, written, 1, place);
    return 0;
}
