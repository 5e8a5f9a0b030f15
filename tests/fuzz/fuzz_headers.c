/* Header blocks: an index that covers the block exactly, and edits beside a model that knows nothing of arrays
 * that are shared, undone and folded. With no edit the bytes are those that came; with some the fields that
 * nobody touched are, in their order, and what was made is read back as it was meant.
 *
 * The input is a block; each line behind it is an edit: a letter, a digit (which of that name), then
 * "name:value". See `edit`. */
#include "mail/encoded_word.h"
#include "mail/headers.h"

enum { MODEL = HEADERS_MAX_FIELDS };

struct model_field {
    struct str raw;         /* of the input; NULL: it was made */
    struct str name, value; /* as meant */
};

struct model {
    struct model_field f[MODEL];
    size_t n;
};

static struct model model, mark;

static void check_index(const struct headers *h, struct str in)
{
    size_t at = 0;

    for (size_t i = 0; i < h->n; i++) {
        const struct header_field *f = &h->fields[i];
        CHECK(f->raw.p == in.p + at && f->name.p == f->raw.p && f->name.n > 0);
        CHECK(f->value.p > f->name.p && f->value.p + f->value.n <= f->raw.p + f->raw.n);
        CHECK(headers_count(h, f->name) >= 1);
        CHECK(headers_find(h, f->name, 1) <= i && headers_find(h, f->name, -1) >= i);
        at += f->raw.n;
    }
    CHECK(at == h->length && at == h->octets);
}

/* ---- the model ---- */

static bool is_ours(size_t i, struct str by)
{
    struct header_field f = { .name = model.f[i].name, .value = model.f[i].value };

    return headers_received_by(&f, by);
}

static size_t find(struct str name, int64_t n)
{
    int64_t left = n < 0 ? -n : n;

    for (size_t i = 0; i < model.n; i++) {
        size_t at = n > 0 ? i : model.n - 1 - i;
        if (str_caseeq(model.f[at].name, name) && --left == 0)
            return at;
    }
    return model.n;
}

static void insert(size_t at, struct str name, struct str value)
{
    memmove(model.f + at + 1, model.f + at, (model.n - at) * sizeof(model.f[0]));
    model.f[at] = (struct model_field){ .name = name, .value = value };
    model.n++;
}

static void drop(size_t at)
{
    model.n--;
    memmove(model.f + at, model.f + at + 1, (model.n - at) * sizeof(model.f[0]));
}

static size_t drop_all(struct str name, size_t from, struct str by)
{
    size_t dropped = 0;

    for (size_t i = from; i < model.n;)
        if (str_caseeq(model.f[i].name, name) && !is_ours(i, by)) {
            drop(i);
            dropped++;
        } else {
            i++;
        }
    return dropped;
}

/* ---- edits ---- */

static void edit_set(struct headers *h, struct str name, struct str value)
{
    size_t at = find(name, 1);

    if (headers_set(h, name, value) < 0)
        return;
    if (at == model.n) {
        insert(at, name, value);
    } else {
        model.f[at] = (struct model_field){ .name = name, .value = value };
        drop_all(name, at + 1, h->by);
    }
}

static void edit_one(struct headers *h, char what, int64_t which, struct str name, struct str value)
{
    size_t at = find(name, which), removed = 0;

    CHECK(headers_find(h, name, which) == at);
    if (what == 'r' && headers_replace(h, at, name, value) == 0)
        model.f[at] = (struct model_field){ .name = name, .value = value };
    else if (what == 'd' && headers_remove_at(h, at) == 0)
        drop(at);
    else if (what == '-' && headers_remove(h, name, &removed) == 0)
        CHECK(drop_all(name, 0, h->by) == removed);
}

static void edit(struct headers *h, struct str line)
{
    char what = line.n ? *line.p : '\0';
    int64_t which = line.n > 1 && ascii_digit(line.p[1]) ? line.p[1] - '4' : 1;
    struct str value = str_from(line, 2), name;

    if (!str_cut(&value, ':', &name) || !value.p)
        value = STR("");
    switch (what) {
    case '+':
        if (headers_add(h, name, value) == 0)
            insert(model.n, name, value);
        break;
    case '^':
        if (headers_prepend(h, name, value) == 0)
            insert(0, name, value);
        break;
    case '=': edit_set(h, name, value); break;
    case 'b':
        headers_begin(h);
        mark = model;
        break;
    case 'u':
        if (mark.n == SIZE_MAX) /* there was no begin */
            break;
        headers_undo(h);
        model = mark;
        break;
    default: edit_one(h, what, which, name, value); break;
    }
}

/* ---- what came of it ---- */

static void check_made(struct arena *a, const struct headers *h, const struct header_field *f,
                       const struct model_field *m)
{
    struct str value = headers_unfold(a, f->value);

    CHECK(str_eq(f->name, m->name));
    if (!h->utf8 && !str_is_ascii(m->value)) {
        char *decoded = arena_alloc(a, DECODED_WORD_ROOM(value.n));
        char *meant = arena_alloc(a, DECODED_WORD_ROOM(m->value.n));
        CHECK(decoded && meant && str_is_ascii(value));
        if (str_find(m->value, STR("=?")) < 0) /* that would be decoded, too */
            CHECK(str_eq(str_make(decoded, encoded_word_decode(value, decoded)),
                         str_make(meant, encoded_word_decode(m->value, meant))));
        return;
    }
    CHECK(str_eq(value, m->value));
    for (struct str rest = f->raw, line; rest.n && str_cut(&rest, '\n', &line);)
        CHECK(line.n <= 999);
}

static void check_result(struct arena *a, const struct headers *h)
{
    struct headers again;
    struct buf out;
    size_t n = 0;

    buf_init(&out, 0);
    CHECK(headers_write(h, &out) == 0);
    CHECK(h->n == model.n);
    for (size_t i = 0; i < h->n; i++) {
        CHECK(!model.f[i].raw.p || str_eq(h->fields[i].raw, model.f[i].raw));
        n += h->fields[i].raw.n;
    }
    CHECK(n == h->octets && h->octets <= HEADERS_MAX_BYTES);
    int r = headers_parse(a, buf_str(&out), &again);
    CHECK(r == 0 || (r == -E2BIG && buf_len(&out) > HEADERS_MAX_BYTES));
    if (r == 0) {
        CHECK(again.n == model.n && again.length == buf_len(&out));
        for (size_t i = 0; i < again.n; i++) {
            const struct model_field *m = &model.f[i];
            if (m->raw.p)
                CHECK(str_starts(again.fields[i].raw, m->raw) &&
                      again.fields[i].raw.n - m->raw.n <= 2);
            else
                check_made(a, h, &again.fields[i], m);
        }
    }
    buf_done(&out);
}

static void run(struct arena *a, struct headers *h, struct str edits)
{
    struct str line;

    model.n = h->n;
    mark.n = SIZE_MAX;
    for (size_t i = 0; i < h->n; i++)
        model.f[i] = (struct model_field){ .raw = h->fields[i].raw,
                                           .name = h->fields[i].name,
                                           .value = h->fields[i].value };
    h->by = STR("mx.example");
    for (int i = 0; i < 60 && str_cut(&edits, '\n', &line); i++)
        edit(h, line);
    check_result(a, h);
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
        h.utf8 = size & 1;
        run(&a, &h, str_from(in, h.length));
    }
    buf_done(&out);
    arena_done(&a);
    return 0;
}
