/* kv_meaning.h - what engine/ports.h says of SPOOL_KV_*: the same tests for the real spool and the simulated
 * one. The includer gives `run`: submits one change and waits; its result. */
#ifndef KV_MEANING_H
#define KV_MEANING_H

#include <stdio.h>

#include "engine/ports.h"

typedef int kv_run(const struct spool_change *c);

static struct spool_change kv_change(enum spool_change_type type, const char *key,
                                     const char *value, int64_t now, int64_t expires)
{
    return (struct spool_change){ .type = type,
                                  .kv = { .name = STR("n"),
                                          .key = str_of(key),
                                          .value = str_of(value),
                                          .now_ms = now,
                                          .expires_ms = expires,
                                          .max = 5 } };
}

static int kv_do(kv_run *run, enum spool_change_type type, const char *key, const char *value,
                 int64_t now, int64_t expires)
{
    struct spool_change c = kv_change(type, key, value, now, expires);
    return run(&c);
}

/* The value under that key and when it ends ("v 10"); "-": none. */
static void kv_is(struct port_spool *port, const char *name, const char *key, const char *expected)
{
    struct buf value;
    int64_t expires;
    char text[128] = "-";

    buf_init(&value, 0);
    int r = port->kv_read(port, str_of(name), str_of(key), &expires, &value);
    if (r == 0)
        snprintf(text, sizeof(text), STR_FMT " %jd", STR_ARG(buf_str(&value)), (intmax_t)expires);
    else
        assert_int_equal(r, -ENOENT);
    buf_done(&value);
    assert_string_equal(text, expected);
}

/* The keys of a name by kv_scan, `batch` at a time, each with its value's first octet: "a1 b2 ". */
static void kv_keys_are(struct port_spool *port, const char *name, const char *prefix, size_t batch,
                        const char *expected)
{
    char text[512] = "", last[SPOOL_KV_MAX_KEY + 1] = "";
    struct buf rows;
    int n;

    buf_init(&rows, 0);
    while ((n = port->kv_scan(port, str_of(name), str_of(prefix), str_of(last), &rows, batch)) >
           0) {
        struct str in = buf_str(&rows), key, value;
        int64_t expires;
        for (; spool_kv_take(&in, &expires, &key, &value); n--) {
            size_t at = strlen(text);
            snprintf(text + at, sizeof(text) - at, STR_FMT "%.1s ", STR_ARG(key), value.p);
            str_copy(key, last, sizeof(last));
        }
        assert_int_equal(n, 0);
    }
    assert_int_equal(n, 0);
    buf_done(&rows);
    assert_string_equal(text, expected);
}

static void kv_puts_and_drops(kv_run *run, struct port_spool *port)
{
    kv_is(port, "n", "a", "-");
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "a", "1", 0, 100), 0);
    kv_is(port, "n", "a", "1 100");
    kv_is(port, "m", "a", "-");
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "a", "", 0, 50), 0);
    kv_is(port, "n", "a", " 50");
    assert_int_equal(kv_do(run, SPOOL_KV_ADD, "a", "3", 49, 100), -EEXIST);
    kv_is(port, "n", "a", " 50");
    /* What has ended counts as not there. */
    assert_int_equal(kv_do(run, SPOOL_KV_DELETE, "a", "", 50, 0), -ENOENT);
    assert_int_equal(kv_do(run, SPOOL_KV_ADD, "a", "3", 50, 100), 0);
    kv_is(port, "n", "a", "3 100");
    assert_int_equal(kv_do(run, SPOOL_KV_DELETE, "a", "", 60, 0), 0);
    kv_is(port, "n", "a", "-");
    assert_int_equal(kv_do(run, SPOOL_KV_DELETE, "a", "", 60, 0), -ENOENT);
}

static void kv_refuses_what_is_too_large(kv_run *run, struct port_spool *port)
{
    char long_key[SPOOL_KV_MAX_KEY + 2];
    memset(long_key, 'k', sizeof(long_key));
    long_key[sizeof(long_key) - 1] = 0;

    assert_int_equal(kv_do(run, SPOOL_KV_SET, long_key, "1", 0, 100), -EINVAL);
    kv_is(port, "n", long_key, "-");
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "", "1", 0, 100), -EINVAL);
    long_key[SPOOL_KV_MAX_KEY] = 0;
    assert_int_equal(kv_do(run, SPOOL_KV_SET, long_key, "1", 0, 100), 0);
    kv_is(port, "n", long_key, "1 100");

    struct spool_change c = kv_change(SPOOL_KV_SET, "a", "1", 0, 100);
    c.kv.name = STR("");
    assert_int_equal(run(&c), -EINVAL);
    c.kv.name = str_of(long_key);
    assert_int_equal(run(&c), -EINVAL);
    char large[SPOOL_KV_MAX_VALUE + 1];
    memset(large, 'v', sizeof(large));
    c.kv.name = STR("n");
    c.kv.value = str_make(large, sizeof(large));
    assert_int_equal(run(&c), -EINVAL);
    c.kv.value.n--;
    assert_int_equal(run(&c), 0);
}

/* At most 5: the one that ends first makes room, those without an end never do. */
static void kv_full(kv_run *run, struct port_spool *port)
{
    static const char *const keys[] = { "e", "d", "c", "b", "a" };

    for (int i = 0; i < 5; i++)
        assert_int_equal(kv_do(run, SPOOL_KV_SET, keys[i], "1", 0, i == 3 ? INT64_MAX : 100 + i),
                         0);
    kv_keys_are(port, "n", "", 2, "a1 b1 c1 d1 e1 ");
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "f", "2", 0, INT64_MAX), 0);
    kv_keys_are(port, "n", "", 3, "a1 b1 c1 d1 f2 ");
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "a", "3", 0, 104), 0); /* replaced: no room needed */
    kv_keys_are(port, "n", "", 100, "a3 b1 c1 d1 f2 ");
    for (int i = 0; i < 3; i++) {
        char key[2] = { (char)('t' + i), 0 };
        assert_int_equal(kv_do(run, SPOOL_KV_ADD, key, "4", 0, INT64_MAX), 0);
    }
    kv_keys_are(port, "n", "", 1, "b1 f2 t4 u4 v4 ");
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "z", "5", 0, 200), -EDQUOT);
    assert_int_equal(kv_do(run, SPOOL_KV_DELETE, "f", "", 0, 0), 0);
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "z", "5", 0, 200), 0);
    kv_keys_are(port, "n", "", 1, "b1 t4 u4 v4 z5 ");
}

static void kv_scans_a_prefix(kv_run *run, struct port_spool *port)
{
    struct spool_change other = kv_change(SPOOL_KV_SET, "xa", "9", 0, 100);
    other.kv.name = STR("n2");
    assert_int_equal(run(&other), 0);
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "x", "1", 0, 100), 0);
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "xa", "2", 0, 100), 0);
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "y", "3", 0, 100), 0);
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "w", "4", 0, 100), 0);
    kv_keys_are(port, "n", "x", 1, "x1 xa2 ");
    kv_keys_are(port, "n", "", 1, "w4 x1 xa2 y3 ");
    kv_keys_are(port, "n", "q", 1, "");
    kv_keys_are(port, "n2", "", 9, "xa9 ");
    kv_keys_are(port, "", "", 9, "");
}

/* Each change drops some that have ended. */
static void kv_sweeps(kv_run *run, struct port_spool *port)
{
    for (char k[2] = "a"; *k < 'f'; k[0]++)
        assert_int_equal(kv_do(run, SPOOL_KV_SET, k, "1", 0, 10), 0);
    assert_int_equal(kv_do(run, SPOOL_KV_SET, "x", "2", 20, 30), 0);
    kv_keys_are(port, "n", "", 9, "x2 ");
}

#endif
