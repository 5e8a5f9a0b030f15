/* The parts of a message: the same however it is cut, and never larger than it is. */
#include "mail/parts.h"

static struct parts *walk(struct str type, struct str body, size_t step)
{
    struct parts *p = parts_new(type, type, type);

    CHECK(p);
    for (; body.n; body = str_from(body, step))
        CHECK(parts_look(p, str_first(body, step)) == 0);
    CHECK(parts_end(p) == 0);
    return p;
}

/* The first line is the value of the three fields. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str body = str_make(data, size), type;

    if (!size || !str_cut(&body, '\n', &type))
        return 0;
    if (!body.p)
        body = STR("");
    struct parts *whole = walk(type, body, body.n + 1), *cut = walk(type, body, 1 + size % 7);
    uint64_t sum = 0;
    CHECK(parts_count(whole) == parts_count(cut) && parts_count(whole) <= PARTS_MAX);
    CHECK(parts_complete(whole) == parts_complete(cut));
    for (size_t i = 0; i < parts_count(whole); i++) {
        const struct part *a = parts_at(whole, i), *b = parts_at(cut, i);
        CHECK(str_eq(a->type, b->type) && str_eq(a->name, b->name) &&
              str_eq(a->disposition, b->disposition) && str_eq(a->encoding, b->encoding));
        CHECK(a->size == b->size && a->depth == b->depth && a->depth <= PARTS_DEPTH);
        sum += a->size;
    }
    CHECK(sum <= body.n);
    parts_free(whole);
    parts_free(cut);
    return 0;
}
