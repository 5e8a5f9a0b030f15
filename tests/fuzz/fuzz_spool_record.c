/* Rows and keys of the spool's tables as a damaged file could hold them: no taker reads outside, and what
 * it accepts, the maker writes back byte by byte.
 *
 * The first byte of the input chooses the taker.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "spool/record.h"

static void same(const void *made, size_t n, struct str bytes)
{
    CHECK(n == bytes.n && (n == 0 || memcmp(made, bytes.p, n) == 0));
}

static void try_due(struct str s)
{
    struct spool_due due;
    struct due_key k;
    struct str queue;
    enum spool_class c;

    if (!due_key_take(s, &queue, &c, &due))
        return;
    due_key_make(&k, queue, c, &due);
    same(k.b, k.n, s);
}

static void try_part(struct str s)
{
    enum spool_part part;
    struct msgid id;
    uint32_t n;

    if (!part_key_take(s, &id, &part, &n))
        return;
    struct part_key k = part == PART_MESSAGE ? message_key(&id)
                        : part == PART_PIECE ? piece_key(&id, n)
                                             : recipient_key(&id, n);
    same(k.b, k.n, s);
}

static void try_rows(uint8_t which, struct str s)
{
    struct spool_recipient r = { 0 };
    struct queue_row q;
    struct str envelope;
    uint32_t n_chunks;
    void *made = malloc(s.n + 1);
    size_t n = 0;

    CHECK(made);
    if (which == 2 && recipient_row_take(s, &r)) {
        n = recipient_row_size(&r);
        CHECK(n == s.n);
        recipient_row_make(&r, made);
        same(made, n, s);
    } else if (which == 3 && queue_row_take(s, &q)) {
        n = queue_row_size(&q);
        CHECK(n == s.n);
        queue_row_make(&q, made);
        same(made, n, s);
    } else if (which == 4 && message_row_take(s, &n_chunks, &envelope)) {
        n = message_row_size(envelope);
        CHECK(n == s.n);
        message_row_make(n_chunks, envelope, made);
        same(made, n, s);
    }
    free(made);
}

static void try_kv(uint8_t which, struct str s)
{
    struct str name, key, value;
    struct kv_key k;
    int64_t expires;

    if (which == 5 && kv_key_take(s, &name, &key)) {
        kv_key_make(&k, name, key);
        same(k.b, k.n, s);
    } else if (which == 6 && kv_end_take(s, &name, &expires, &key)) {
        kv_end_make(&k, name, expires, key);
        same(k.b, k.n, s);
    } else if (which == 7 && kv_row_take(s, &expires, &value)) {
        char made[SPOOL_KV_HEAD + SPOOL_KV_MAX_VALUE];
        kv_row_make(expires, value, made);
        same(made, SPOOL_KV_HEAD + value.n, s);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str s = str_make(data + 1, size - 1);
    uint8_t which = data[0] % 8;

    if (which == 0)
        try_due(s);
    else if (which == 1)
        try_part(s);
    else if (which < 5)
        try_rows(which, s);
    else
        try_kv(which, s);
    return 0;
}
