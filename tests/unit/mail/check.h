/* check.h - what the tests of the mail layer share. */
#ifndef TERN_TEST_MAIL_CHECK_H
#define TERN_TEST_MAIL_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"

/* s is a struct str, z a string literal or char pointer. */
#define assert_str(s, z)                                                                           \
    do {                                                                                           \
        struct str assert_str_ = (s);                                                              \
        assert_int_equal(assert_str_.n, strlen(z));                                                \
        if (assert_str_.n)                                                                         \
            assert_memory_equal(assert_str_.p, (z), assert_str_.n);                                \
    } while (0)
#define assert_has(b, z)   assert_true(str_find(buf_str(&(b)), STR(z)) >= 0)
#define assert_lacks(b, z) assert_true(str_find(buf_str(&(b)), STR(z)) < 0)

#endif
