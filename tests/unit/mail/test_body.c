/* Bodies: pieces, growth, sharing, a new head. */
#include "check.h"

#include "mail/body.h"

/* n bytes that differ from place to place. */
static char *pattern(size_t n)
{
    char *p = malloc(n ? n : 1);

    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)('a' + (i * 7 + i / 251) % 26);
    return p;
}

static char *flatten(const struct body *b)
{
    char *all = malloc(b->size + 1);
    size_t n = 0, chunks = 0;

    assert_non_null(all);
    for (const struct body_chunk *c = b->first; c; c = c->next) {
        memcpy(all + n, c->data, c->n);
        n += c->n;
        chunks++;
        assert_true(c->n > 0 && c->n <= c->cap);
        assert_true(!c->next || c->n == BODY_CHUNK);
        assert_true(c->next || c == b->last);
    }
    assert_int_equal(n, b->size);
    assert_int_equal(chunks, b->n_chunks);
    return all;
}

static void check_append(size_t total, size_t step)
{
    char *p = pattern(total);
    struct body *b = body_new();

    assert_non_null(b);
    for (size_t at = 0; at < total; at += step)
        assert_int_equal(body_append(b, str_first(str_make(p + at, total - at), step)), 0);
    assert_int_equal(b->size, total);
    assert_int_equal(b->n_chunks, (total + BODY_CHUNK - 1) / BODY_CHUNK);
    char *all = flatten(b);
    assert_memory_equal(all, p, total);
    assert_true(body_memory(b) >= total);
    assert_true(body_memory(b) < 2 * total + BODY_CHUNK + 256);
    assert_false(b->eight_bit);
    free(all);
    free(p);
    body_unref(b);
}

/* The first piece takes more while it may; the others keep their size. */
static void test_large_first_piece(void **state)
{
    static const size_t firsts[] = {
        1, BODY_CHUNK - 1, BODY_CHUNK, BODY_CHUNK + 1, 150000, 300000
    };
    size_t total = 500000;
    char *p = pattern(total);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(firsts); i++) {
        struct body *b = body_new();
        b->first_max = 300000;
        for (size_t at = 0; at < firsts[i]; at += 10000)
            assert_int_equal(body_append(b, str_first(str_make(p + at, firsts[i] - at), 10000)), 0);
        assert_int_equal(b->n_chunks, 1);
        b->first_max = 0;
        assert_int_equal(body_append(b, str_make(p + firsts[i], total - firsts[i])), 0);
        assert_int_equal(b->size, total);
        char *all = malloc(total);
        size_t n = 0;
        for (const struct body_chunk *c = b->first; c; c = c->next) {
            assert_true(c == b->first || c == b->last || c->n == BODY_CHUNK);
            memcpy(all + n, c->data, c->n);
            n += c->n;
        }
        assert_true(b->first->n >= MAX(firsts[i], (size_t)BODY_CHUNK));
        assert_int_equal(n, total);
        assert_memory_equal(all, p, total);
        free(all);
        body_unref(b);
    }
    free(p);
}

static void test_append(void **state)
{
    static const size_t totals[] = { 0, 1, 2047, 2048, 2049, 65535, 65536, 65537, 200000, 262144 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(totals); i++) {
        check_append(totals[i], totals[i] ? totals[i] : 1);
        check_append(totals[i], 1000);
        check_append(totals[i], 4096);
    }
    check_append(70000, 1);
}

static void test_small_is_small(void **state)
{
    struct body *b = body_new();

    (void)state;
    assert_int_equal(body_append(b, STR("hello\r\n")), 0);
    assert_true(body_memory(b) < 4096);
    assert_int_equal(body_append(b, STR_NONE), 0);
    assert_int_equal(b->size, 7);
    body_unref(b);
}

static void test_eight_bit(void **state)
{
    char line[40] = "0123456789012345678901234567890123456789";

    (void)state;
    for (size_t i = 0; i < sizeof(line); i++) {
        struct body *b = body_new();
        char was = line[i];
        assert_int_equal(body_append(b, str_make(line, sizeof(line))), 0);
        assert_false(b->eight_bit);
        line[i] = (char)0x80;
        assert_int_equal(body_append(b, str_make(line, sizeof(line))), 0);
        assert_true(b->eight_bit);
        line[i] = was;
        assert_int_equal(body_append(b, str_make(line, sizeof(line))), 0);
        assert_true(b->eight_bit);
        body_unref(b);
    }
}

static void test_refs(void **state)
{
    struct body *b = body_new();

    (void)state;
    assert_ptr_equal(body_ref(b), b);
    assert_null(body_unref(b));
    assert_int_equal(body_append(b, STR("still here")), 0);
    assert_null(body_unref(b));
    assert_null(body_unref(NULL));
    assert_null(body_ref(NULL));
}

static void check_with_head(size_t total, size_t head_n, size_t skip)
{
    char *p = pattern(total), *head = pattern(head_n);
    struct body *b = body_new();

    assert_int_equal(body_append(b, str_make(p, total)), 0);
    struct body *n = body_with_head(b, str_make(head, head_n), skip);
    assert_non_null(n);
    assert_int_equal(n->size, head_n + total - skip);
    char *all = flatten(n);
    assert_memory_equal(all, head, head_n);
    assert_memory_equal(all + head_n, p + skip, total - skip);
    assert_int_equal(b->size, total);
    free(all);
    body_unref(n);
    body_unref(b);
    free(p);
    free(head);
}

static void test_with_head(void **state)
{
    struct body *b = body_new();

    (void)state;
    check_with_head(100, 10, 20);
    check_with_head(100, 0, 100);
    check_with_head(100, 10, 0);
    check_with_head(70000, 10, 20);
    check_with_head(70000, 66000, 20);
    check_with_head(200000, 100, 66000);
    check_with_head(65536, 10, 65536);
    check_with_head(131072, 1, 65537);
    assert_int_equal(body_append(b, STR("x")), 0);
    assert_null(body_with_head(b, STR("h"), 2));
    body_unref(b);
}

static void test_with_head_staged(void **state)
{
    struct body *b = body_new();

    (void)state;
    assert_int_equal(body_append(b, STR("Old: 1\r\n\r\nbegin")), 0);
    b->staged = true;
    b->n_chunks = 5;
    b->size = 300000;
    b->eight_bit = true;
    struct body *n = body_with_head(b, STR("New: two\r\n"), 8);
    assert_non_null(n);
    assert_str(str_make(n->first->data, n->first->n), "New: two\r\n\r\nbegin");
    assert_null(n->first->next);
    assert_int_equal(n->size, 300002);
    assert_int_equal(n->n_chunks, 5);
    assert_true(n->staged && n->eight_bit);
    assert_null(body_with_head(b, STR("h"), 16));
    body_unref(n);
    body_unref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_large_first_piece),
        cmocka_unit_test(test_small_is_small),
        cmocka_unit_test(test_eight_bit),
        cmocka_unit_test(test_refs),
        cmocka_unit_test(test_with_head),
        cmocka_unit_test(test_with_head_staged),
    };

    return cmocka_run_group_tests_name("body", tests, NULL, NULL);
}
