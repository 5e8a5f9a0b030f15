/* Encoded words: read from what others write, and written so that others can read them. */
#include "check.h"

#include "mail/encoded_word.h"

static void check_decoded(const char *value, const char *wanted)
{
    char dst[DECODED_WORD_ROOM(1000)];
    size_t n = encoded_word_decode(str_of(value), dst);

    if (!str_eq(str_make(dst, n), str_of(wanted)))
        fail_msg("%s\nis: %.*s\nnot: %s", value, (int)n, dst, wanted);
}

static void test_decode(void **state)
{
    static const char *const cases[][2] = {
        { "", "" },
        { "plain text", "plain text" },
        { "=?utf-8?q?gr=C3=BC=c3=9fe_an_alle?=", "gr\xc3\xbc\xc3\x9f"
                                                 "e an alle" },
        { "=?UTF-8?B?Z3LDvMOfZQ==?=", "gr\xc3\xbc\xc3\x9f"
                                      "e" },
        { "=?iso-8859-1?Q?M=FCller?= <m@x>", "M\xc3\xbcller <m@x>" },
        { "=?ISO-8859-1*de?b?TfxsbGVy?=", "M\xc3\xbcller" },
        { "=?us-ascii?q?a=20b?=", "a b" },
        /* RFC 2047 section 8 */
        { "(=?ISO-8859-1?Q?a?=)", "(a)" },
        { "(=?ISO-8859-1?Q?a?= b)", "(a b)" },
        { "(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)" },
        { "(=?ISO-8859-1?Q?a?=  \t=?ISO-8859-1?Q?b?=)", "(ab)" },
        { "(=?ISO-8859-1?Q?a_b?=)", "(a b)" },
        { "(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?_b?=)", "(a b)" },
        /* a character in two words, which is wrong but common */
        { "=?utf-8?b?w7w=?= =?utf-8?q?=C3?= =?utf-8?q?=BC?=", "\xc3\xbc\xc3\xbc" },
        { "x=?utf-8?q?y?=z", "xyz" },
        /* what cannot be read stays, to the last blank */
        { "=?koi8-r?q?=C3?=  =?koi8-r?q?a?=", "=?koi8-r?q?=C3?=  =?koi8-r?q?a?=" },
        { "=?utf-8?q?=C3?=", "=?utf-8?q?=C3?=" },
        { "=?utf-8?q?=ZZ?=", "=?utf-8?q?=ZZ?=" },
        { "=?utf-8?q?a=?=", "=?utf-8?q?a=?=" },
        { "=?utf-8?b?a?=", "=?utf-8?b?a?=" },
        { "=?utf-8?x?a?=", "=?utf-8?x?a?=" },
        { "=?us-ascii?q?=FC?=", "=?us-ascii?q?=FC?=" },
        { "=?utf-8?q?a b?=", "=?utf-8?q?a b?=" },
        { "=?utf-8?q?a?= =?koi8-r?q?b?=", "a =?koi8-r?q?b?=" },
        { "=?", "=?" },
        { "=?utf-8?q?a?", "=?utf-8?q?a?" },
        { "=?=?utf-8?q?a?=", "=?a" },
        { "\xff=?utf-8?q?a?=", "\xff"
                               "a" },
        { "=?utf-8?q?"
          "?=",
          "" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check_decoded(cases[i][0], cases[i][1]);
}

/* Encodes, looks at each word and line, and reads it back. */
static void check_both_ways(struct str text, size_t column)
{
    char *encoded = malloc(ENCODED_WORD_ROOM(text.n)), *back;
    size_t n = encoded_word_encode(text, column, encoded);
    struct str rest = str_make(encoded, n), word;
    bool first = true;

    assert_true(n <= ENCODED_WORD_ROOM(text.n));
    assert_true(str_is_ascii(rest));
    while (str_cut(&rest, ' ', &word)) {
        if (str_starts(word, STR("=?"))) {
            assert_true(word.n <= 75);
            if (first && column < 50)
                assert_true(column + word.n <= 76);
        }
        first = false;
    }
    back = malloc(DECODED_WORD_ROOM(n));
    size_t k = encoded_word_decode(str_make(encoded, n), back);
    if (!str_eq(str_make(back, k), text))
        fail_msg(STR_FMT "\nbecame %.*s\nand back %.*s", STR_ARG(text), (int)n, encoded, (int)k,
                 back);
    free(back);
    free(encoded);
}

static void test_encode(void **state)
{
    static const char *const pieces[] = { "a", "\xc3\xbc", " ", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                          "=", "_",        "?", "\t",           "word" };
    char text[600];

    (void)state;
    check_both_ways(STR(""), 0);
    check_both_ways(STR("plain"), 10);
    check_both_ways(STR("two  blanks and \xc3\xbc in the middle"), 10);
    for (unsigned seed = 1; seed < 300; seed++) {
        size_t n = 0;
        for (unsigned z = seed * 2654435761U; n < sizeof(text) - 8 && n < seed * 2;
             z = z * 1664525 + 1013904223) {
            const char *p = pieces[(z >> 16) % (seed % 2 ? 2 : ARRAY_LEN(pieces))];
            memcpy(text + n, p, strlen(p));
            n += strlen(p);
        }
        check_both_ways(str_make(text, n), seed % 90);
    }
    for (size_t i = 0; i < sizeof(text); i += 4)
        memcpy(text + i, "\xf0\x9f\x98\x80", 4);
    check_both_ways(str_make(text, sizeof(text)), 9);
}

static void test_readable_or_short(void **state)
{
    char dst[ENCODED_WORD_ROOM(100)];

    (void)state;
    assert_str(str_make(dst, encoded_word_encode(STR("J\xc3\xb6rg <j@x>"), 0, dst)),
               "=?utf-8?q?J=C3=B6rg?= <j@x>");
    assert_str(str_make(dst, encoded_word_encode(STR("\xd0\x9f\xd1\x80\xd0\xb8"), 0, dst)),
               "=?utf-8?b?0J/RgNC4?=");
    assert_str(str_make(dst, encoded_word_encode(STR("a na\xc3\xafve word c"), 0, dst)),
               "a =?utf-8?q?na=C3=AFve?= word c");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_readable_or_short),
    };

    return cmocka_run_group_tests_name("encoded_word", tests, NULL, NULL);
}
