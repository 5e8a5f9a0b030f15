/* What the control API makes of requests before it does anything, and what the command line makes of its answers.
 *
 * The first byte chooses: 0 the path and query of a request, 1 a cursor, 2 conditions of a filter, "name=value" a
 * line, 3 the head of an HTTP answer. Whatever is taken must mean the same when it is written and taken again. */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/control_client.h"
#include "daemon/control_request.h"
#include "daemon/queue_filter.h"

static const int64_t now_ms = INT64_C(1700000000000);

/* ---- requests ---- */

/* The request line ends at a NUL: a copy that the sanitizer can guard. */
static char *text(struct str s)
{
    ptrdiff_t nul = str_chr(s, '\0');
    char *copy = str_dup(nul < 0 ? s : str_first(s, (size_t)nul));

    CHECK(copy);
    return copy;
}

static void parse(struct control_request *r, struct str line)
{
    struct str path, pair, name;

    if (!str_cut(&line, '?', &path))
        path = STR("");
    char *p = text(path);
    control_request_init(r, "GET", p);
    free(p);
    while (str_cut(&line, '&', &pair)) {
        str_cut(&pair, '=', &name);
        char *n = text(name.p ? name : STR("")), *v = pair.p ? text(pair) : NULL;
        control_request_add(r, n, v);
        free(n);
        free(v);
    }
}

static void write_request(const struct control_request *r, struct buf *out)
{
    for (size_t i = 0; i < r->n_segments; i++) {
        buf_add_char(out, '/');
        CHECK(control_encode(r->segment[i], out) == 0);
    }
    /* a slash at the end is nothing, but an empty part before it is one */
    if (r->n_segments && str_empty(r->segment[r->n_segments - 1]))
        buf_add_char(out, '/');
    for (size_t i = 0; i < r->n_args; i++) {
        buf_add_char(out, i ? '&' : '?');
        control_encode(r->arg[i].name, out);
        buf_add_char(out, '=');
        control_encode(r->arg[i].value, out);
    }
}

static void check_request(const struct control_request *r)
{
    uint64_t n = 0;

    CHECK(r->n_segments <= CONTROL_SEGMENTS && r->n_args <= CONTROL_ARGS);
    for (size_t i = 0; i < r->n_segments; i++)
        CHECK(str_chr(r->segment[i], '\0') < 0);
    for (size_t i = 0; i < r->n_args; i++) {
        CHECK(str_chr(r->arg[i].name, '\0') < 0 && str_chr(r->arg[i].value, '\0') < 0);
        char *name = text(r->arg[i].name);
        struct str found = control_request_arg(r, name);
        CHECK(found.p != NULL);
        if (control_request_number(r, name, 1000, 7, &n))
            CHECK(n <= 1000 && found.n > 0);
        free(name);
    }
    if (!control_request_arg(r, "limit").p)
        CHECK(control_request_number(r, "limit", 1000, 7, &n) && n == 7);
    bool named = false; /* "" is a name that "" lists */
    for (size_t i = 0; i < r->n_args; i++)
        named |= r->arg[i].name.n > 0;
    CHECK((control_request_unknown(r, "") != NULL) == named);
}

static void try_request(struct str in)
{
    struct control_request r, again;
    struct buf line;

    parse(&r, in);
    if (!r.error) {
        check_request(&r);
        buf_init(&line, 0);
        write_request(&r, &line);
        parse(&again, buf_str(&line));
        /* Encoded it may be longer, but not decoded. */
        CHECK(!again.error && again.n_segments == r.n_segments && again.n_args == r.n_args);
        for (size_t i = 0; i < r.n_segments; i++)
            CHECK(str_eq(again.segment[i], r.segment[i]));
        for (size_t i = 0; i < r.n_args; i++)
            CHECK(str_eq(again.arg[i].name, r.arg[i].name) &&
                  str_eq(again.arg[i].value, r.arg[i].value));
        buf_done(&line);
        control_request_done(&again);
    }
    control_request_done(&r);
}

static void try_cursor(struct str s)
{
    char line[CONTROL_CURSOR_TEXT];
    struct control_cursor c, again;

    for (int in_queue = 0; in_queue < 2; in_queue++) {
        if (!control_cursor_parse(s, in_queue, &c))
            continue;
        CHECK((c.class_ >= 0) == (in_queue == 1) && c.class_ <= SPOOL_HELD);
        control_cursor_text(&c, line);
        CHECK(strlen(line) + 1 < sizeof(line));
        CHECK(control_cursor_parse(str_of(line), in_queue, &again));
        CHECK(again.class_ == c.class_ && again.n == c.n && msgid_cmp(&again.id, &c.id) == 0);
        CHECK(!in_queue || again.due_ms == c.due_ms);
    }
}

/* ---- filters ---- */

/* An address that was asked for is found, in whatever way its domain is written. */
static void check_own_address(const struct queue_filter *f, struct str value)
{
    struct recipient r = { .n = 0 };
    struct arena a;

    arena_init(&a, 0);
    if (f->recipient.kind == FILTER_ADDRESS && !f->destination.p && !f->policy.p && !f->route.p &&
        !f->reply.kind && address_parse(&a, value, &r.address) == 0)
        CHECK(queue_filter_recipient(f, &r, &a));
    arena_done(&a);
}

static void check_keys(const struct queue_filter *f)
{
    const struct msgid id = msgid_first(now_ms - 3600000);
    int64_t first = queue_filter_first_ms(f, now_ms), last = queue_filter_last_ms(f, now_ms);

    CHECK(first >= 0 && last >= 0);
    for (int c = SPOOL_SCHEDULED; c <= SPOOL_HELD; c++)
        for (int due = -1; due <= 1; due++) {
            int64_t due_ms = now_ms + due;
            if (queue_filter_key(f, (enum spool_class)c, due_ms, &id, now_ms))
                CHECK(queue_filter_class(f, (enum spool_class)c) && msgid_time(&id) >= first &&
                      msgid_time(&id) <= last);
        }
    CHECK(f->larger == 0 || !queue_filter_size(f, f->larger));
    CHECK(f->smaller == UINT64_MAX || !queue_filter_size(f, f->smaller));
    if (f->queue.p && !f->queue_is_pattern && str_chr(f->queue, '\\') < 0)
        CHECK(queue_filter_queue(f, f->queue));
}

/* Some recipients, to go through what compares. */
static void check_records(const struct queue_filter *f)
{
    static const char *const addresses[] = { "u@example.com", "postmaster", "\"a b\"@[192.0.2.1]",
                                             "u@xn--bcher-kva.example" };
    struct recipient r = { .last_ms = 1,
                           .last_reply = STR("451 4.7.1 try later"),
                           .decided_by = STR("policies/backup.lua:31") };
    struct arena a;

    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        CHECK(address_parse(&a, str_of(addresses[i]), &r.address) == 0);
        bool fits = queue_filter_recipient(f, &r, &a);
        CHECK(fits || queue_filter_needs_recipient(f));
        CHECK(f->sender.kind || queue_filter_sender(f, &r.address));
    }
    arena_done(&a);
}

static void try_filter(struct str in)
{
    struct queue_filter f;
    struct str line, name, recipient = STR_NONE;
    char error[QUEUE_FILTER_ERROR];
    unsigned n = 0;

    queue_filter_init(&f);
    while (str_cut(&in, '\n', &line)) {
        unsigned before = f.n;
        str_cut(&line, '=', &name);
        if (!name.p || !line.p)
            continue;
        *error = '\0';
        int r = queue_filter_set(&f, name, line, error);
        CHECK(r == 0 || ((r == -ENOENT || r == -EINVAL || r == -EEXIST) && *error));
        CHECK((f.n != before) == (r == 0) && line.n + (r < 0) > 0);
        n += r == 0;
        if (r == 0 && str_eq(name, STR("recipient")))
            recipient = line;
        if (r < 0)
            break; /* as its users do */
    }
    *error = '\0';
    if (n && queue_filter_check(&f, error) == 0) {
        check_keys(&f);
        check_records(&f);
        if (recipient.p)
            check_own_address(&f, recipient);
    }
    queue_filter_done(&f);
}

/* ---- answers ---- */

static void try_answer(struct str in)
{
    struct http_head head = { .status = 0 }, cut;
    int r = http_head_parse(in, &head);

    CHECK(r == 0 || r == 1 || r == -EPROTO);
    if (r != 1)
        return;
    CHECK(head.status >= 100 && head.status <= 599 && head.length >= -1);
    CHECK(head.head <= in.n && str_ends(str_first(in, head.head), STR("\r\n\r\n")));
    CHECK(http_head_parse(str_first(in, head.head), &cut) == 1 && cut.length == head.length);
    CHECK(http_head_parse(str_first(in, head.head - 1), &cut) <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    /* A copy of its own size: the sanitizer sees each step beyond it. */
    char *copy = malloc(size);
    struct str in = str_make(copy, size - 1);
    CHECK(copy);
    memcpy(copy, data + 1, size - 1);
    switch (data[0] % 4) {
    case 0: try_request(in); break;
    case 1: try_cursor(in); break;
    case 2: try_filter(in); break;
    default: try_answer(in); break;
    }
    free(copy);
    return 0;
}
