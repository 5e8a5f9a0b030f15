/* record.c - keys and values of the tables as bytes. Layer: spool. Interface: record.h. */
#include "spool/record.h"

void put_be64(void *dst, uint64_t v)
{
    uint8_t *p = dst;

    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
}

uint64_t get_be64(const void *src)
{
    const uint8_t *p = src;
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

void put_be32(void *dst, uint32_t v)
{
    uint8_t *p = dst;

    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

uint32_t get_be32(const void *src)
{
    const uint8_t *p = src;

    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

struct part_key message_key(const struct msgid *id)
{
    struct part_key k = { .n = SPOOL_ID_KEY };

    memcpy(k.b, id->b, SPOOL_ID_KEY);
    return k;
}

static struct part_key part_key(const struct msgid *id, enum spool_part part, uint32_t number)
{
    struct part_key k = message_key(id);

    k.b[SPOOL_ID_KEY] = (uint8_t)part;
    put_be32(k.b + SPOOL_ID_KEY + 1, number);
    k.n = SPOOL_PART_KEY;
    return k;
}

struct part_key piece_key(const struct msgid *id, uint32_t chunk)
{
    return part_key(id, PART_PIECE, chunk);
}

struct part_key recipient_key(const struct msgid *id, uint32_t n)
{
    return part_key(id, PART_RECIPIENT, n);
}

bool part_key_take(struct str key, struct msgid *ret_id, enum spool_part *ret_part,
                   uint32_t *ret_number)
{
    uint8_t part = PART_MESSAGE;

    if (key.n == SPOOL_PART_KEY) {
        part = (uint8_t)key.p[SPOOL_ID_KEY];
        if (part != PART_PIECE && part != PART_RECIPIENT)
            return false;
    } else if (key.n != SPOOL_ID_KEY) {
        return false;
    }
    memcpy(ret_id->b, key.p, SPOOL_ID_KEY);
    *ret_part = (enum spool_part)part;
    *ret_number = part == PART_MESSAGE ? 0 : get_be32(key.p + SPOOL_ID_KEY + 1);
    return true;
}

/* With the sign bit flipped, negative numbers sort before positive ones byte by byte. */
static uint64_t ordered(int64_t v)
{
    return (uint64_t)v ^ (uint64_t)1 << 63;
}

void due_key_make(struct due_key *k, struct str queue, enum spool_class c,
                  const struct spool_due *due)
{
    char *p = k->b + queue.n;

    CHECK(queue_name_valid(queue));
    memcpy(k->b, queue.p, queue.n);
    k->queue_n = queue.n;
    k->n = queue.n + SPOOL_DUE_TAIL;
    p[0] = '\0';
    p[1] = (char)c;
    put_be64(p + 2, ordered(due->due_ms));
    memcpy(p + 10, due->id.b, SPOOL_ID_KEY);
    put_be32(p + 10 + SPOOL_ID_KEY, due->n);
}

bool due_key_take(struct str key, struct str *ret_queue, enum spool_class *ret_class,
                  struct spool_due *ret_due)
{
    if (key.n <= SPOOL_DUE_TAIL || key.n > SPOOL_DUE_KEY)
        return false;

    struct str queue = str_first(key, key.n - SPOOL_DUE_TAIL);
    const char *p = key.p + queue.n;
    uint8_t c = (uint8_t)p[1];
    if (!queue_name_valid(queue) || p[0] != '\0' || c >= SPOOL_CLASSES)
        return false;
    *ret_queue = queue;
    *ret_class = (enum spool_class)c;
    ret_due->due_ms = (int64_t)ordered((int64_t)get_be64(p + 2));
    memcpy(ret_due->id.b, p + 10, SPOOL_ID_KEY);
    ret_due->n = get_be32(p + 10 + SPOOL_ID_KEY);
    return true;
}

enum { RECIPIENT_HEAD = 1 + 8 + 4, HAS_SIZE = 0x80 };

static size_t recipient_head(const struct spool_recipient *r)
{
    return RECIPIENT_HEAD + (r->size ? 8 : 0);
}

size_t recipient_row_size(const struct spool_recipient *r)
{
    return recipient_head(r) + r->queue.n + r->record.n;
}

void recipient_row_make(const struct spool_recipient *r, void *dst)
{
    uint8_t *p = dst;

    p[0] = (uint8_t)((unsigned)r->class_ | (r->size ? HAS_SIZE : 0));
    put_be64(p + 1, (uint64_t)r->due_ms);
    put_be32(p + 9, (uint32_t)r->queue.n);
    if (r->size)
        put_be64(p + RECIPIENT_HEAD, r->size);
    p += recipient_head(r);
    memcpy(p, r->queue.p, r->queue.n);
    if (r->record.n)
        memcpy(p + r->queue.n, r->record.p, r->record.n);
}

bool recipient_row_take(struct str row, struct spool_recipient *ret)
{
    if (row.n < RECIPIENT_HEAD)
        return false;

    uint8_t c = (uint8_t)row.p[0] & (uint8_t)~HAS_SIZE;
    size_t queue_n = get_be32(row.p + 9);
    struct str rest = str_from(row, RECIPIENT_HEAD);
    uint64_t size = 0;
    if ((uint8_t)row.p[0] & HAS_SIZE) {
        size = rest.n >= 8 ? get_be64(rest.p) : 0;
        if (size == 0)
            return false;
        rest = str_from(rest, 8);
    }
    if (c >= SPOOL_CLASSES || queue_n > rest.n || !queue_name_valid(str_first(rest, queue_n)))
        return false;
    ret->size = size;
    ret->class_ = (enum spool_class)c;
    ret->due_ms = (int64_t)get_be64(row.p + 1);
    ret->queue = str_first(rest, queue_n);
    ret->record = str_from(rest, queue_n);
    return true;
}

static size_t queue_head(const struct queue_row *q)
{
    return SPOOL_QUEUE_HEAD + (q->octets ? 8 : 0);
}

size_t queue_row_size(const struct queue_row *q)
{
    return queue_head(q) + q->record.n;
}

void queue_row_make(const struct queue_row *q, void *dst)
{
    uint8_t *p = dst;

    for (int i = 0; i < SPOOL_CLASSES; i++)
        put_be64(p + 8 * i, q->count[i]);
    if (q->octets) {
        p[0] |= HAS_SIZE;
        put_be64(p + SPOOL_QUEUE_HEAD, q->octets);
    }
    if (q->record.n)
        memcpy(p + queue_head(q), q->record.p, q->record.n);
}

bool queue_row_take(struct str row, struct queue_row *ret)
{
    if (row.n < SPOOL_QUEUE_HEAD)
        return false;
    for (int i = 0; i < SPOOL_CLASSES; i++)
        ret->count[i] = get_be64(row.p + 8 * i);
    ret->record = str_from(row, SPOOL_QUEUE_HEAD);
    ret->octets = 0;
    if ((uint8_t)row.p[0] & HAS_SIZE) {
        ret->count[0] &= ~((uint64_t)HAS_SIZE << 56);
        ret->octets = ret->record.n >= 8 ? get_be64(ret->record.p) : 0;
        if (ret->octets == 0)
            return false;
        ret->record = str_from(ret->record, 8);
    }
    return ret->record.n <= SPOOL_MAX_QUEUE_RECORD;
}

struct str queue_row_record(struct str row)
{
    size_t head = SPOOL_QUEUE_HEAD;

    if (row.n && (uint8_t)row.p[0] & HAS_SIZE)
        head += 8;
    if (row.n <= head || row.n - head > SPOOL_MAX_QUEUE_RECORD)
        return STR_NONE;
    return str_from(row, head);
}

size_t message_row_size(struct str envelope)
{
    return SPOOL_MESSAGE_HEAD + envelope.n;
}

void message_row_make(uint32_t n_chunks, struct str envelope, void *dst)
{
    put_be32(dst, n_chunks);
    if (envelope.n)
        memcpy((char *)dst + SPOOL_MESSAGE_HEAD, envelope.p, envelope.n);
}

bool message_row_take(struct str row, uint32_t *ret_n_chunks, struct str *ret_envelope)
{
    if (row.n < SPOOL_MESSAGE_HEAD)
        return false;
    *ret_n_chunks = get_be32(row.p);
    *ret_envelope = str_from(row, SPOOL_MESSAGE_HEAD);
    return true;
}

void totals_row_make(const uint64_t totals[SPOOL_TOTALS], void *dst)
{
    for (size_t i = 0; i < SPOOL_TOTALS; i++)
        put_be64((uint8_t *)dst + 8 * i, totals[i]);
}

bool totals_row_take(struct str row, uint64_t ret[SPOOL_TOTALS])
{
    if (row.n != SPOOL_TOTALS_ROW)
        return false;
    for (size_t i = 0; i < SPOOL_TOTALS; i++)
        ret[i] = get_be64(row.p + 8 * i);
    return true;
}

bool queue_name_valid(struct str name)
{
    return name.n > 0 && name.n <= SPOOL_MAX_QUEUE_NAME && !memchr(name.p, '\0', name.n);
}

static size_t kv_begin(struct kv_key *k, struct str name)
{
    CHECK(name.n >= 1 && name.n <= SPOOL_KV_MAX_NAME);
    memcpy(k->b, name.p, name.n);
    k->b[name.n] = '\0';
    return name.n + 1;
}

static void kv_finish(struct kv_key *k, size_t at, struct str key)
{
    CHECK(key.n <= SPOOL_KV_MAX_KEY);
    if (key.n)
        memcpy(k->b + at, key.p, key.n);
    k->n = at + key.n;
}

void kv_key_make(struct kv_key *k, struct str name, struct str key)
{
    kv_finish(k, kv_begin(k, name), key);
}

void kv_end_make(struct kv_key *k, struct str name, int64_t expires_ms, struct str key)
{
    size_t at = kv_begin(k, name);

    put_be64(k->b + at, ordered(expires_ms));
    kv_finish(k, at + 8, key);
}

/* What stands behind the name and its NUL. */
static bool kv_split(struct str key, struct str *ret_name, struct str *ret_rest)
{
    ptrdiff_t end = str_chr(key, '\0');

    if (end < 1 || end > SPOOL_KV_MAX_NAME)
        return false;
    *ret_name = str_first(key, (size_t)end);
    *ret_rest = str_from(key, (size_t)end + 1);
    return true;
}

bool kv_key_take(struct str key, struct str *ret_name, struct str *ret_key)
{
    struct str name, rest;

    if (!kv_split(key, &name, &rest) || rest.n < 1 || rest.n > SPOOL_KV_MAX_KEY)
        return false;
    *ret_name = name;
    *ret_key = rest;
    return true;
}

bool kv_end_take(struct str key, struct str *ret_name, int64_t *ret_expires, struct str *ret_key)
{
    struct str name, rest;

    if (!kv_split(key, &name, &rest) || rest.n < 8 + 1 || rest.n > 8 + SPOOL_KV_MAX_KEY)
        return false;
    *ret_name = name;
    *ret_expires = (int64_t)ordered((int64_t)get_be64(rest.p));
    *ret_key = str_from(rest, 8);
    return true;
}

void kv_row_make(int64_t expires_ms, struct str value, void *dst)
{
    put_be64(dst, (uint64_t)expires_ms);
    if (value.n)
        memcpy((char *)dst + SPOOL_KV_HEAD, value.p, value.n);
}

bool kv_row_take(struct str row, int64_t *ret_expires, struct str *ret_value)
{
    if (row.n < SPOOL_KV_HEAD || row.n > SPOOL_KV_HEAD + SPOOL_KV_MAX_VALUE)
        return false;
    *ret_expires = (int64_t)get_be64(row.p);
    *ret_value = str_from(row, SPOOL_KV_HEAD);
    return true;
}
