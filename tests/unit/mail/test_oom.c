/* Out of memory: every allocation of bodies, routes and records fails in its turn; nothing is lost
 * or broken.
 *
 * The sources are included here with their allocator replaced, so that no other code is hit. */
#include "check.h"

#include <stdio.h>

static int until_failure = -1; /* allocations that still succeed; -1: all */

static bool fails(void)
{
    return until_failure == 0 || (until_failure > 0 && until_failure-- == 0);
}

static void *try_malloc(size_t n)
{
    return fails() ? NULL : malloc(n);
}

static void *try_calloc(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

static void *try_realloc(void *p, size_t n)
{
    return fails() ? NULL : realloc(p, n);
}

#define malloc  try_malloc
#define calloc  try_calloc
#define realloc try_realloc
#include "../../../core/base/arena.c"
#include "../../../core/base/buf.c"
#include "../../../core/mail/body.c"
#include "../../../core/mail/changes.c"
#include "../../../core/mail/headers_make.c"
#include "../../../core/mail/history.c"
#include "../../../core/mail/map.c"
#include "../../../core/mail/map_read.c"
#include "../../../core/mail/message.c"
#include "../../../core/mail/route.c"
#undef malloc
#undef calloc
#undef realloc

#include "mail/dsn.h"
#include "mail/headers.h"

/* Runs `step` with ever more memory until it has enough: it says 0 then, and -ENOMEM before. */
static void starve(int (*step)(void))
{
    int r = -ENOMEM, n = 0;

    for (; r != 0; n++) {
        assert_true(n < 100);
        until_failure = n;
        r = step();
        until_failure = -1;
        assert_true(r == 0 || r == -ENOMEM);
    }
    assert_true(n > 1);
}

static int body_step(void)
{
    static const char piece[3000];
    struct body *b = body_new(), *n = NULL;
    int r = b ? 0 : -ENOMEM;

    for (int i = 0; i < 50 && r == 0; i++)
        r = body_append(b, str_make(piece, sizeof(piece)));
    if (r == 0 && !(n = body_with_head(b, STR("head"), 10)))
        r = -ENOMEM;
    body_unref(n);
    if (b)
        body_unref(b);
    return r;
}

static int route_step(void)
{
    struct route *r = route_new(ROUTE_HOSTS), *back = NULL;
    struct buf b;
    int e = -ENOMEM;

    buf_init(&b, 0);
    if (r && (r->targets = ARENA_ARRAY(&r->arena, struct route_target, 1))) {
        r->n_targets = 1;
        e = route_target_parse(&r->arena,
                               STR("b\xc3\xbc"
                                   "cher.example"),
                               true, r->targets);
    }
    if (e == 0 && !(r->fallback = route_new(ROUTE_DISCARD)))
        e = -ENOMEM;
    if (e == 0)
        e = route_finish(r->fallback);
    if (e == 0)
        e = route_finish(r);
    if (e == 0)
        e = route_encode(r, &b);
    struct str in = buf_str(&b);
    if (e == 0)
        e = route_decode(&in, &back);
    route_unref(back);
    route_unref(r);
    buf_done(&b);
    return e;
}

/* Two attempts, or what was there before: never the second without the first. */
static int history_step(void)
{
    const struct history_try try = { .host = STR("mx"), .reply = { .text = STR("why") } };
    struct history_attempt attempt = { .number = 1, .tries = &try, .n_tries = 1 };
    struct history h = { 0 };
    struct buf first, second;
    struct arena a;

    arena_init(&a, 0);
    buf_init(&first, 0);
    buf_init(&second, 0);
    int e = history_add(&a, STR_NONE, &attempt, NULL, HISTORY_MAX, &first);
    attempt.number = 2;
    if (e == 0)
        e = history_add(&a, buf_str(&first), &attempt, NULL, HISTORY_MAX, &second);
    if (e == 0)
        e = history_decode(&a, buf_str(&second), &h);
    if (e == 0)
        assert_int_equal(h.n, 2);
    buf_done(&first);
    buf_done(&second);
    arena_done(&a);
    return e;
}

static int record_step(void)
{
    struct message *m = message_new(), *back = NULL;
    struct recipient r = { 0 }, again = { 0 };
    struct arena a;
    struct buf b;
    int e = -ENOMEM;

    arena_init(&a, 0);
    buf_init(&b, 0);
    if (m)
        e = address_parse(&m->arena, STR("a@Example.com"), &m->sender);
    if (e == 0)
        e = message_encode(m, &b);
    if (e == 0)
        e = message_decode(&m->id, buf_str(&b), &back);
    if (e == 0) {
        buf_clear(&b);
        r.address = m->sender;
        e = (r.route = route_new(ROUTE_DISCARD)) ? route_finish(r.route) : -ENOMEM;
    }
    if (e == 0)
        e = recipient_encode(&r, &b);
    if (e == 0)
        e = recipient_decode(&a, 0, buf_str(&b), &again);
    recipient_done(&again);
    recipient_done(&r);
    message_unref(back);
    message_unref(m);
    buf_done(&b);
    arena_done(&a);
    return e;
}

/* One edit that may lack memory: then nothing has changed. */
static int check_edit(struct headers *h, int e)
{
    static struct str before;
    static char copy[8192];
    struct buf b;

    buf_init(&b, 0);
    int was = until_failure;
    until_failure = -1;
    assert_int_equal(headers_write(h, &b), 0);
    if (e < 0)
        assert_true(str_eq(buf_str(&b), before));
    assert_true(buf_len(&b) <= sizeof(copy));
    memcpy(copy, buf_str(&b).p, buf_len(&b));
    before = str_make(copy, buf_len(&b));
    buf_done(&b);
    until_failure = was;
    return e;
}

static int edits_step(struct headers *h)
{
    int e = check_edit(h, 0);

    headers_begin(h);
    h->place = STR("somewhere.lua:12");
    if (e == 0)
        e = check_edit(h, headers_add(h, STR("Subject"),
                                      STR("gr\xc3\xbc\xc3\x9f"
                                          "e")));
    if (e == 0)
        e = check_edit(h, headers_replace(h, 0, STR("X"), STR("y")));
    if (e == 0)
        e = check_edit(h, headers_remove_at(h, 1));
    if (e == 0)
        e = check_edit(h, headers_remove(h, STR("X"), NULL));
    headers_undo(h);
    assert_int_equal(headers_count(h, STR("X")), 100);
    return e;
}

static int changes_step(void)
{
    const struct header_change change = { HEADER_ADDED, 1, STR("X"), STR("a.lua:1") };
    struct header_changes c = { 0 };
    struct arena a;
    struct buf b;

    arena_init(&a, 0);
    buf_init(&b, 0);
    int e = changes_encode(&change, 1, 0, &b);
    if (e == 0)
        e = changes_decode(&a, buf_str(&b), &c);
    if (e == 0)
        assert_int_equal(c.n, 1);
    buf_done(&b);
    arena_done(&a);
    return e;
}

static int headers_step(void)
{
    struct headers h;
    struct arena a;
    struct buf b;

    arena_init(&a, 0);
    buf_init(&b, 0);
    int e = headers_parse(&a, STR("A: b\r\n c\r\n"), &h);
    for (int i = 0; i < 100 && e == 0; i++)
        e = headers_prepend(&h, STR("X"), STR("a value that takes its place, and some more"));
    if (e == 0)
        e = headers_set(&h, STR("a"), STR("e"));
    if (e == 0)
        e = headers_write(&h, &b);
    if (e == 0)
        e = edits_step(&h);
    arena_done(&a);
    buf_done(&b);
    return e;
}

static int dsn_step(void)
{
    struct message m = { .sender = { .text = STR("a@example.com") } };
    struct dsn_recipient r = { .address = STR("b@example.com"), .diagnostic = STR("550 no") };
    struct dsn d = { .original = &m,
                     .original_head = STR("Subject: a\r\n b\r\n\r\n"),
                     .hostname = STR("mx.example"),
                     .recipients = &r,
                     .n_recipients = 1 };
    struct buf b;

    buf_init(&b, 0);
    int e = dsn_write(&d, &b);
    buf_done(&b);
    return e;
}

/* With a key that grows, and an address. */
static int map_step(void)
{
    static const char text[] = "a.example,1\nm\xc3\xbcnchen.example,2\nu@b.example,3\n";
    char *bytes = strdup(text);
    struct map_error err;
    struct map *m = NULL;
    int e = map_new(bytes, strlen(text), MAP_KEYS_MAIL, &m, &err);

    map_unref(m);
    return e;
}

/* Who makes it does not look at each string: one that has lost any is not finished. */
static int route_is_whole(void)
{
    struct route *r = route_new(ROUTE_HOSTS);

    if (!r)
        return -ENOMEM;
    r->targets = ARENA_NEW(&r->arena, struct route_target);
    if (r->targets && route_target_parse(&r->arena, STR("192.0.2.1"), false, r->targets) == 0)
        r->n_targets = 1;
    r->reason = arena_printf(&r->arena, "%01500d", 1); /* needs a block of its own */
    r->auth = arena_str(&r->arena, STR("credentials"));
    int e = route_finish(r);
    assert_true(e < 0 || (r->reason.n == 1500 && r->auth.n && r->n_targets == 1));
    route_unref(r);
    return e;
}

static void test_all(void **state)
{
    static int (*const steps[])(void) = { body_step,    route_step,  route_is_whole,
                                          history_step, record_step, headers_step,
                                          dsn_step,     map_step,    changes_step };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(steps); i++)
        starve(steps[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_all) };

    return cmocka_run_group_tests_name("mail out of memory", tests, NULL, NULL);
}
