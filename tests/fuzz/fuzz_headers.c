/* Header blocks: an index that covers the block exactly, and edits that stay inside it. */
#include "mail/headers.h"

static void check_index(const struct headers *h, struct str in)
{
    size_t at = 0;

    for (size_t i = 0; i < h->n; i++) {
        const struct header_field *f = &h->fields[i];
        CHECK(f->raw.p == in.p + at && f->name.p == f->raw.p && f->name.n > 0);
        CHECK(f->value.p > f->name.p && f->value.p + f->value.n <= f->raw.p + f->raw.n);
        CHECK(headers_count(h, f->name) >= 1);
        at += f->raw.n;
    }
    CHECK(at == h->length);
}

/* Adds a part of the input as a value and reads it back. */
static void check_edit(struct arena *a, struct headers *h, struct str value)
{
    struct buf out;
    struct headers again;
    size_t n = h->n;

    if (headers_prepend(h, STR("X-Fuzz"), value) < 0)
        return;
    CHECK(h->n == n + 1);
    buf_init(&out, 0);
    CHECK(headers_write(h, &out) == 0);
    CHECK(headers_parse(a, buf_str(&out), &again) == 0 || out.end > HEADERS_MAX_BYTES);
    if (out.end <= HEADERS_MAX_BYTES) {
        CHECK(again.n == n + 1 && again.length == buf_len(&out));
        CHECK(str_eq(headers_unfold(a, again.fields[0].value), value));
    }
    CHECK(headers_set(h, STR("x-fuzz"), value) == 0);
    CHECK(headers_count(h, STR("X-FUZZ")) == 1);
    buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_make(data, size);
    struct arena a;
    struct headers h;
    struct buf out;

    arena_init(&a, 0);
    buf_init(&out, 0);
    if (headers_parse(&a, in, &h) == 0) {
        check_index(&h, in);
        CHECK(headers_write(&h, &out) == 0);
        CHECK(str_eq(buf_str(&out), str_first(in, h.length)));
        struct str rest = in, value;
        for (int i = 0; i < 3 && str_cut(&rest, '\n', &value); i++)
            check_edit(&a, &h, value);
    }
    buf_done(&out);
    arena_done(&a);
    return 0;
}
