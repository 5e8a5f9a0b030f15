/* Header blocks: found, read, edited; what nobody touched stays byte for byte. */
#include "check.h"

#include <stdio.h>

#include "mail/headers.h"

static const char sample[] = "Received: from a\r\n\tby b;\r\n Mon, 1 Jan 2024 00:00:00 +0000\r\n"
                             "received : two\r\n"
                             "Subject:no space\r\n"
                             "X-Empty:\r\n"
                             "X-Empty-Too: \r\n"
                             "__index: 1\r\n"
                             "From:  \"A\"\r\n <a@b.example> \r\n";

struct fixture {
    struct arena arena;
    struct headers h;
    struct buf out;
};

static void begin(struct fixture *f, const char *text)
{
    arena_init(&f->arena, 0);
    buf_init(&f->out, 0);
    assert_int_equal(headers_parse(&f->arena, str_of(text), &f->h), 0);
}

static struct str written(struct fixture *f)
{
    buf_clear(&f->out);
    assert_int_equal(headers_write(&f->h, &f->out), 0);
    return buf_str(&f->out);
}

static void end(struct fixture *f)
{
    buf_done(&f->out);
    arena_done(&f->arena);
}

static void test_read(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, sample);
    assert_int_equal(f.h.n, 7);
    assert_int_equal(f.h.length, sizeof(sample) - 1);
    assert_false(f.h.changed);
    assert_int_equal(headers_count(&f.h, STR("RECEIVED")), 2);
    assert_str(headers_get(&f.h, STR("received"), 0)->value,
               "from a\r\n\tby b;\r\n Mon, 1 Jan 2024 00:00:00 +0000");
    assert_str(headers_get(&f.h, STR("received"), 1)->name, "received");
    assert_str(headers_get(&f.h, STR("received"), 1)->value, "two");
    assert_null(headers_get(&f.h, STR("received"), 2));
    assert_null(headers_get(&f.h, STR("Nothing"), 0));
    assert_str(headers_get(&f.h, STR("subject"), 0)->value, "no space");
    assert_str(headers_get(&f.h, STR("x-empty"), 0)->value, "");
    assert_str(headers_get(&f.h, STR("x-empty-too"), 0)->value, "");
    assert_str(headers_get(&f.h, STR("from"), 0)->value, " \"A\"\r\n <a@b.example> ");
    assert_str(headers_unfold(&f.arena, headers_get(&f.h, STR("from"), 0)->value),
               " \"A\" <a@b.example> ");
    assert_str(headers_unfold(&f.arena, STR("as is")), "as is");
    assert_str(written(&f), sample);
    end(&f);
}

static void check_block(const char *text, size_t fields, size_t length)
{
    struct fixture f;

    begin(&f, text);
    assert_int_equal(f.h.n, fields);
    assert_int_equal(f.h.length, length);
    struct str w = written(&f);
    assert_true(str_eq(w, str_first(str_of(text), length)));
    end(&f);
}

static void test_where_it_ends(void **state)
{
    (void)state;
    check_block("", 0, 0);
    check_block("\r\n", 0, 0);
    check_block("\r\nA: b\r\n", 0, 0);
    check_block("A: b\r\n\r\nC: d\r\n", 1, 6);
    check_block("A: b\r\nno field\r\nC: d\r\n", 1, 6);
    check_block("A: b\r\n: no name\r\n", 1, 6);
    check_block(" begins folded\r\nA: b\r\n", 0, 0);
    check_block("From a@b Mon Jan  1 00:00:00 2024\r\nA: b\r\n", 0, 0);
    check_block("A: b", 1, 4);
    check_block("A: b\r\n c", 1, 8);
    check_block("A: b\r\n \r\n\r\nbody", 1, 9); /* a line of blanks folds, it does not end */
    check_block("A: b\nC: d\n\nbody", 2, 10);
    check_block("A: b\r\nC", 1, 6);
    check_block("A\r\n", 0, 0);
    check_block("\xc3\xbc: b\r\n", 0, 0);
    check_block("A: \xff\xc3\r\n\r\n", 1, 7);
}

static void test_edits(void **state)
{
    struct fixture f;
    size_t removed = 99;

    (void)state;
    begin(&f, "A: 1\r\nB: 2\r\n\tfolded\r\nA: 3\r\nC : 4\r\n\r\nbody");
    assert_int_equal(headers_add(&f.h, STR("D"), STR("5")), 0);
    assert_true(f.h.changed);
    assert_int_equal(headers_prepend(&f.h, STR("Top"), STR("")), 0);
    assert_str(written(&f), "Top: \r\nA: 1\r\nB: 2\r\n\tfolded\r\nA: 3\r\nC : 4\r\nD: 5\r\n");
    assert_int_equal(headers_set(&f.h, STR("a"), STR("one")), 0);
    assert_str(written(&f), "Top: \r\na: one\r\nB: 2\r\n\tfolded\r\nC : 4\r\nD: 5\r\n");
    assert_int_equal(headers_set(&f.h, STR("E"), STR("new")), 0);
    assert_str(headers_get(&f.h, STR("e"), 0)->value, "new");
    assert_int_equal(headers_remove(&f.h, STR("b"), &removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(headers_remove(&f.h, STR("b"), &removed), 0);
    assert_int_equal(removed, 0);
    assert_int_equal(headers_remove(&f.h, STR("TOP"), NULL), 0);
    assert_str(written(&f), "a: one\r\nC : 4\r\nD: 5\r\nE: new\r\n");
    assert_int_equal(f.h.length, 34);
    end(&f);
}

static void test_last_line_without_end(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "A: 1\r\nB: 2");
    assert_int_equal(headers_add(&f.h, STR("C"), STR("3")), 0);
    assert_str(written(&f), "A: 1\r\nB: 2\r\nC: 3\r\n");
    end(&f);
    begin(&f, "");
    assert_int_equal(headers_remove(&f.h, STR("A"), NULL), 0);
    assert_false(f.h.changed);
    assert_int_equal(headers_prepend(&f.h, STR("A"), STR("1")), 0);
    assert_str(written(&f), "A: 1\r\n");
    end(&f);
}

static void test_nothing_is_smuggled(void **state)
{
    static const char *const names[] = {
        "", "A:", "A B", "A\r\nB", " A", "A\t", "\x7f", "\xc3\xbc"
    };
    static const char *const values[] = { "a\r\nB: c", "a\nb", "a\rb", "\r\n", "\n" };
    struct fixture f;

    (void)state;
    begin(&f, sample);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(headers_add(&f.h, str_of(names[i]), STR("v")), -EINVAL);
        assert_int_equal(headers_set(&f.h, str_of(names[i]), STR("v")), -EINVAL);
        assert_int_equal(headers_prepend(&f.h, str_of(names[i]), STR("v")), -EINVAL);
    }
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        assert_int_equal(headers_add(&f.h, STR("A"), str_of(values[i])), -EINVAL);
        assert_int_equal(headers_set(&f.h, STR("Subject"), str_of(values[i])), -EINVAL);
        assert_int_equal(headers_prepend(&f.h, STR("A"), str_of(values[i])), -EINVAL);
    }
    assert_int_equal(headers_add(&f.h, STR("A"), str_make("a\0b", 3)), -EINVAL);
    assert_false(f.h.changed);
    assert_str(written(&f), sample);
    end(&f);
}

/* Adds the value, reads it back, and looks at the lines that were made. */
static void check_folding(struct str value, bool fits)
{
    struct fixture f;
    struct headers again;
    struct str line, all;

    begin(&f, "");
    assert_int_equal(headers_add(&f.h, STR("X-Long"), value), 0);
    all = written(&f);
    assert_int_equal(headers_parse(&f.arena, all, &again), 0);
    assert_int_equal(again.n, 1);
    assert_int_equal(again.length, all.n);
    assert_true(str_eq(headers_unfold(&f.arena, again.fields[0].value), value));
    while (all.n && str_cut(&all, '\n', &line)) {
        assert_true(str_trim(line).n > 0);
        if (fits)
            assert_true(line.n <= 79);
    }
    end(&f);
}

static void test_folding(void **state)
{
    char words[2000], blanks[300];

    (void)state;
    for (size_t i = 0; i < sizeof(words); i++)
        words[i] = i % 7 == 6 ? (i % 3 ? ' ' : '\t') : 'w';
    for (size_t n = 0; n < 400; n++)
        check_folding(str_make(words, n), true);
    check_folding(str_make(words, sizeof(words) - 1), true);
    memset(words, 'w', 900);
    check_folding(str_make(words, 900), false);
    check_folding(str_make(words, sizeof(words) - 1), false);
    memset(blanks, ' ', sizeof(blanks));
    check_folding(str_make(blanks, sizeof(blanks)), false);
    blanks[0] = blanks[100] = 'x';
    check_folding(str_make(blanks, sizeof(blanks)), false);
    blanks[299] = 'x';
    check_folding(str_make(blanks, sizeof(blanks)), false);
}

static void test_limits(void **state)
{
    struct fixture f;
    char *text = malloc(HEADERS_MAX_BYTES + 2000), value[1000];
    struct headers h;

    (void)state;
    assert_non_null(text);
    arena_init(&f.arena, 0);
    for (size_t i = 0; i <= HEADERS_MAX_FIELDS; i++)
        memcpy(text + 4 * i, "A:\r\n", 4);
    size_t most = (size_t)4 * HEADERS_MAX_FIELDS;
    assert_int_equal(headers_parse(&f.arena, str_make(text, most), &h), 0);
    assert_int_equal(h.n, HEADERS_MAX_FIELDS);
    assert_int_equal(headers_add(&h, STR("B"), STR("")), -E2BIG);
    assert_int_equal(headers_set(&h, STR("A"), STR("")), 0);
    assert_int_equal(h.n, 1);
    assert_int_equal(headers_parse(&f.arena, str_make(text, most + 4), &h), -E2BIG);

    memset(text, 'x', HEADERS_MAX_BYTES + 2000);
    memcpy(text, "A: b", 4);
    for (size_t i = 100; i < HEADERS_MAX_BYTES + 1000; i += 100)
        memcpy(text + i, "\r\n ", 3);
    memcpy(text + HEADERS_MAX_BYTES - 2, "\r\n", 2);
    memcpy(text + HEADERS_MAX_BYTES, "\r\nbody", 6);
    assert_int_equal(headers_parse(&f.arena, str_make(text, HEADERS_MAX_BYTES + 6), &h), 0);
    assert_int_equal(h.length, HEADERS_MAX_BYTES);
    text[HEADERS_MAX_BYTES] = ' ';
    assert_int_equal(headers_parse(&f.arena, str_make(text, HEADERS_MAX_BYTES + 6), &h), -E2BIG);
    assert_int_equal(headers_add(&h, STR("A"), str_make(text + 200, 1200)), -EINVAL);
    memset(value, 'x', sizeof(value));
    assert_int_equal(headers_add(&h, STR("A"), str_make(value, 990)), -E2BIG);
    assert_string_equal(h.why, "the message's header would be larger than 256 KiB");
    assert_int_equal(headers_set(&h, STR("A"), str_make(value, 990)), 0);
    assert_int_equal(headers_add(&h, STR("A"), str_make(value, 990)), 0);
    assert_int_equal(headers_add(&h, STR("A"), str_make(value, 996)), -EINVAL);
    assert_int_equal(headers_add(&h, STR("A"), str_make(text, HEADERS_MAX_BYTES + 1)), -E2BIG);
    arena_done(&f.arena);
    free(text);
}

/* Of the n-th of a name, from either end. */
static void test_one_of_many(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "A: 1\r\nB: x\r\na: 2\r\n\tfolded \r\nA: 3\r\n");
    assert_int_equal(headers_find(&f.h, STR("a"), 1), 0);
    assert_int_equal(headers_find(&f.h, STR("a"), 2), 2);
    assert_int_equal(headers_find(&f.h, STR("a"), -1), 3);
    assert_int_equal(headers_find(&f.h, STR("a"), -3), 0);
    static const int64_t none[] = { 0, 4, -4, INT64_MAX, INT64_MIN };
    for (size_t i = 0; i < ARRAY_LEN(none); i++)
        assert_int_equal(headers_find(&f.h, STR("a"), none[i]), f.h.n);
    assert_int_equal(headers_find(&f.h, STR(""), 1), f.h.n);
    assert_int_equal(headers_replace(&f.h, 3, STR("A"), STR("three")), 0);
    assert_str(written(&f), "A: 1\r\nB: x\r\na: 2\r\n\tfolded \r\nA: three\r\n");
    assert_int_equal(headers_remove_at(&f.h, 0), 0);
    assert_str(written(&f), "B: x\r\na: 2\r\n\tfolded \r\nA: three\r\n");
    assert_int_equal(headers_remove_at(&f.h, 3), -ENOENT);
    assert_int_equal(headers_replace(&f.h, 3, STR("A"), STR("")), -ENOENT);
    assert_int_equal(f.h.octets, written(&f).n);
    end(&f);
}

/* A change, as "op n name place". */
static void assert_change(const struct headers *h, size_t i, const char *text)
{
    char is[200];

    assert_true(i < h->n_changes);
    snprintf(is, sizeof(is), "%s %u " STR_FMT " " STR_FMT, header_op_name(h->changes[i].op),
             h->changes[i].n, STR_ARG(h->changes[i].name), STR_ARG(h->changes[i].place));
    assert_string_equal(is, text);
}

static void test_changes_are_recorded(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "A: 1\r\nB: 2\r\na: 3\r\n");
    f.h.place = STR("p.lua:1");
    assert_int_equal(headers_remove(&f.h, STR("nothing"), NULL), 0);
    assert_int_equal(headers_add(&f.h, STR("A b"), STR("")), -EINVAL);
    assert_int_equal(f.h.n_changes, 0);
    assert_false(f.h.changed);
    assert_int_equal(headers_remove(&f.h, STR("a"), NULL), 0);
    assert_int_equal(headers_set(&f.h, STR("C"), STR("1")), 0);
    f.h.place = STR("p.lua:2");
    assert_int_equal(headers_prepend(&f.h, STR("c"), STR("2")), 0);
    assert_int_equal(headers_set(&f.h, STR("C"), STR("3")), 0);
    f.h.place = STR_NONE;
    assert_int_equal(headers_remove_at(&f.h, 0), 0);
    assert_change(&f.h, 0, "removed 2 A p.lua:1");
    assert_change(&f.h, 1, "added 1 C p.lua:1");
    assert_change(&f.h, 2, "prepended 1 c p.lua:2");
    assert_change(&f.h, 3, "replaced 2 C p.lua:2");
    assert_change(&f.h, 4, "removed 1 C ");
    assert_str(written(&f), "B: 2\r\n");
    for (size_t i = f.h.n_changes; i < HEADERS_MAX_CHANGES; i++)
        assert_int_equal(headers_set(&f.h, STR("X"), STR("v")), 0);
    assert_int_equal(headers_set(&f.h, STR("X"), STR("v")), -E2BIG);
    assert_int_equal(headers_remove(&f.h, STR("X"), NULL), -E2BIG);
    assert_int_equal(headers_remove_at(&f.h, 0), -E2BIG);
    assert_str(written(&f), "B: 2\r\nX: v\r\n");
    end(&f);
}

static void test_added_octets_are_bounded(void **state)
{
    char value[900];
    struct fixture f;
    size_t n = 0;

    (void)state;
    memset(value, 'v', sizeof(value));
    begin(&f, sample);
    /* Also when it goes away at once: each takes memory until the message is done with. */
    while (headers_set(&f.h, STR("X"), str_make(value, sizeof(value))) == 0)
        n++;
    assert_int_equal(n, HEADERS_MAX_ADDED / 905);
    assert_string_equal(f.h.why, "more than 64 KiB of fields added to one message");
    assert_true(f.arena.used < 3 * (size_t)HEADERS_MAX_ADDED);
    end(&f);
}

static void test_undone(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, sample);
    headers_begin(&f.h);
    assert_int_equal(headers_remove(&f.h, STR("Received"), NULL), 0);
    assert_int_equal(headers_prepend(&f.h, STR("X"), STR("1")), 0);
    headers_undo(&f.h);
    assert_false(f.h.changed);
    assert_int_equal(f.h.n_changes, 0);
    assert_str(written(&f), sample);
    /* What was before the mark stays; undoing twice is undoing once. */
    assert_int_equal(headers_remove(&f.h, STR("Received"), NULL), 0);
    headers_begin(&f.h);
    assert_int_equal(headers_set(&f.h, STR("Subject"), STR("s")), 0);
    assert_int_equal(headers_remove_at(&f.h, 1), 0);
    headers_undo(&f.h);
    assert_int_equal(headers_add(&f.h, STR("Y"), STR("2")), 0);
    headers_undo(&f.h);
    assert_true(f.h.changed);
    assert_int_equal(f.h.n_changes, 1);
    assert_int_equal(f.h.octets, written(&f).n);
    assert_str(written(&f), strstr(sample, "Subject:"));
    end(&f);
}

/* Loops are found by the Received that we wrote: they stay. */
static void test_our_received_stay(void **state)
{
    static const char block[] = "Received: from a by Mx.Example with SMTP; x\r\n"
                                "Received: from by by mx.example\r\n\tid 1\r\n"
                                "Received: from (by) ([192.0.2.1])\r\n by (x) other.example\r\n"
                                "X: by mx.example\r\n"
                                "Received: from b by mx.example.; y\r\n"
                                "Received: from mx.example by other.example\r\n"
                                "Received: from ((by mx.example\r\n";
    static const bool ours[] = { true, true, false, false, true, false, true };
    struct fixture f;
    size_t removed;

    (void)state;
    begin(&f, block);
    f.h.by = STR("mx.example");
    for (size_t i = 0; i < f.h.n; i++)
        assert_int_equal(headers_received_by(&f.h.fields[i], f.h.by), ours[i]);
    assert_false(headers_received_by(&f.h.fields[0], STR_NONE));
    assert_int_equal(headers_remove_at(&f.h, 0), -EPERM);
    assert_non_null(strstr(f.h.why, "Received"));
    assert_int_equal(headers_replace(&f.h, 4, STR("Received"), STR("x")), -EPERM);
    assert_int_equal(headers_set(&f.h, STR("received"), STR("x")), -EPERM);
    assert_str(written(&f), block);
    assert_int_equal(headers_remove_at(&f.h, 2), 0);
    assert_int_equal(headers_remove(&f.h, STR("Received"), &removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(headers_count(&f.h, STR("Received")), 4);
    assert_int_equal(headers_remove(&f.h, STR("Received"), &removed), 0);
    assert_int_equal(removed, 0);
    assert_int_equal(f.h.n_changes, 2);
    end(&f);
}

static void test_beyond_ascii(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, "");
    assert_int_equal(headers_add(&f.h, STR("Subject"),
                                 STR("gr\xc3\xbc\xc3\x9f"
                                     "e an alle")),
                     0);
    assert_int_equal(headers_add(&f.h, STR("Subject"), STR("\xff")), -EINVAL);
    assert_string_equal(f.h.why, "a header's value must be UTF-8");
    static const char *const structured[] = { "From", "to", "Message-Id", "Content-Type",
                                              "Resent-To" };
    for (size_t i = 0; i < ARRAY_LEN(structured); i++)
        assert_int_equal(headers_add(&f.h, str_of(structured[i]), STR("\xc3\xbc <a@b>")), -EINVAL);
    assert_int_equal(headers_add(&f.h, STR("Content-Description"), STR("\xc3\xbc")), 0);
    assert_str(written(&f), "Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?= an alle\r\n"
                            "Content-Description: =?utf-8?q?=C3=BC?=\r\n");
    f.h.utf8 = true;
    assert_int_equal(headers_set(&f.h, STR("Subject"), STR("\xc3\xbc")), 0);
    assert_int_equal(headers_add(&f.h, STR("From"), STR("\xc3\xbc <a@b>")), 0);
    assert_int_equal(headers_add(&f.h, STR("From"), STR("\xff")), -EINVAL);
    assert_int_equal(headers_remove(&f.h, STR("Content-Description"), NULL), 0);
    assert_str(written(&f), "Subject: \xc3\xbc\r\nFrom: \xc3\xbc <a@b>\r\n");
    end(&f);
}

static void test_out_of_memory(void **state)
{
    struct arena a;
    struct headers h;

    (void)state;
    arena_init(&a, 64);
    assert_int_equal(headers_parse(&a, str_of(sample), &h), -ENOMEM);
    arena_done(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_where_it_ends),
        cmocka_unit_test(test_edits),
        cmocka_unit_test(test_last_line_without_end),
        cmocka_unit_test(test_nothing_is_smuggled),
        cmocka_unit_test(test_folding),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_one_of_many),
        cmocka_unit_test(test_changes_are_recorded),
        cmocka_unit_test(test_added_octets_are_bounded),
        cmocka_unit_test(test_undone),
        cmocka_unit_test(test_our_received_stay),
        cmocka_unit_test(test_beyond_ascii),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests_name("headers", tests, NULL, NULL);
}
