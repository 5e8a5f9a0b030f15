/* record.h - keys and values of the tables as bytes (spool.h lists them). Pure: no LMDB, no memory.
 *
 * Layer: spool. What is taken apart points into the bytes given. Takers return false on bytes that
 * no maker makes; they never read outside of what they were given.
 */
#ifndef TERN_SPOOL_RECORD_H
#define TERN_SPOOL_RECORD_H

#include "spool/spool.h"

enum {
    SPOOL_ID_KEY = sizeof(struct msgid),
    SPOOL_PART_KEY = SPOOL_ID_KEY + 1 + 4,         /* id, what it is, number */
    SPOOL_DUE_TAIL = 1 + 1 + 8 + SPOOL_ID_KEY + 4, /* NUL, class, due, id, n */
    SPOOL_DUE_KEY = SPOOL_MAX_QUEUE_NAME + SPOOL_DUE_TAIL,
    SPOOL_CLASSES = SPOOL_HELD + 1,
    SPOOL_MAX_QUEUE_RECORD = sizeof(((struct spool_queue *)0)->record),
    SPOOL_MESSAGE_HEAD = 4,
    SPOOL_QUEUE_HEAD = 8 * SPOOL_CLASSES,
};

/* ---- the table of messages --------------------------------------------------------------------- */

/* What stands in it: the values are those of the octet behind the id, in the order in which a message is
 * written, so that all of it is appended. */
enum spool_part {
    PART_MESSAGE, /* the id alone, without that octet */
    PART_PIECE,
    PART_RECIPIENT,
};
struct part_key {
    size_t n;
    uint8_t b[SPOOL_PART_KEY];
};
struct part_key message_key(const struct msgid *id);
struct part_key piece_key(const struct msgid *id, uint32_t chunk);
struct part_key recipient_key(const struct msgid *id, uint32_t n);
/* *ret_number is 0 for the message itself. */
bool part_key_take(struct str key, struct msgid *ret_id, enum spool_part *ret_part,
                   uint32_t *ret_number);
_Static_assert((int)PART_MESSAGE == (int)SPOOL_ROW_MESSAGE &&
                   (int)PART_PIECE == (int)SPOOL_ROW_PIECE &&
                   (int)PART_RECIPIENT == (int)SPOOL_ROW_RECIPIENT,
               "a part is counted as the row of that name");
static inline enum spool_row part_row_kind(enum spool_part part)
{
    return (enum spool_row)part;
}
static inline struct str part_key_str(const struct part_key *k)
{
    return str_make(k->b, k->n);
}

/* ---- the table of what is due ------------------------------------------------------------------ */

struct due_key {
    size_t queue_n, n; /* bytes of the name; of all */
    char b[SPOOL_DUE_KEY];
};
/* The queue's name must be valid. */
void due_key_make(struct due_key *k, struct str queue, enum spool_class c,
                  const struct spool_due *due);
bool due_key_take(struct str key, struct str *ret_queue, enum spool_class *ret_class,
                  struct spool_due *ret_due);
static inline struct str due_key_str(const struct due_key *k)
{
    return str_make(k->b, k->n);
}
static inline struct str due_key_queue(const struct due_key *k)
{
    return str_make(k->b, k->queue_n);
}
/* All entries of one queue and class begin with these many bytes. */
static inline size_t due_key_prefix(const struct due_key *k)
{
    return k->queue_n + 2;
}

size_t recipient_row_size(const struct spool_recipient *r);
void recipient_row_make(const struct spool_recipient *r, void *dst);
/* All of ret but n. */
bool recipient_row_take(struct str row, struct spool_recipient *ret);

struct queue_row {
    uint64_t count[SPOOL_CLASSES];
    uint64_t octets; /* of those that wait */
    struct str record;
};
size_t queue_row_size(const struct queue_row *q);
void queue_row_make(const struct queue_row *q, void *dst);
bool queue_row_take(struct str row, struct queue_row *ret);
/* Of a row that queue_row_take refuses: its record, where its place can be told; else empty. */
struct str queue_row_record(struct str row);
static inline bool queue_row_empty(const struct queue_row *q)
{
    return q->count[SPOOL_SCHEDULED] == 0 && q->count[SPOOL_WAITING] == 0 &&
           q->count[SPOOL_HELD] == 0 && q->record.n == 0;
}

size_t message_row_size(struct str envelope);
void message_row_make(uint32_t n_chunks, struct str envelope, void *dst);
bool message_row_take(struct str row, uint32_t *ret_n_chunks, struct str *ret_envelope);

/* ---- what policies remember ------------------------------------------------------------------- */

enum {
    SPOOL_KV_KEY = SPOOL_KV_MAX_NAME + 1 + 8 + SPOOL_KV_MAX_KEY,
    SPOOL_KV_HEAD = 8, /* of a row: when it ends */
};
struct kv_name {
    size_t n;
    char b[SPOOL_KV_MAX_NAME];
};
/* A key of `kv` (name, NUL, key) or `kv_end` (name, NUL, end, key). */
struct kv_key {
    size_t n;
    char b[SPOOL_KV_KEY];
};
/* name and key are within their limits; key may be empty (the beginning of all of that name). */
void kv_key_make(struct kv_key *k, struct str name, struct str key);
void kv_end_make(struct kv_key *k, struct str name, int64_t expires_ms, struct str key);
bool kv_key_take(struct str key, struct str *ret_name, struct str *ret_key);
bool kv_end_take(struct str key, struct str *ret_name, int64_t *ret_expires, struct str *ret_key);
static inline struct str kv_key_str(const struct kv_key *k)
{
    return str_make(k->b, k->n);
}
void kv_row_make(int64_t expires_ms, struct str value, void *dst); /* SPOOL_KV_HEAD + value.n */
bool kv_row_take(struct str row, int64_t *ret_expires, struct str *ret_value);

/* 1 to SPOOL_MAX_QUEUE_NAME bytes, none of them NUL: the key of a queue's row, too. Keys of due entries have a NUL. */
bool queue_name_valid(struct str name);

/* ---- how many of each there are ---------------------------------------------------------------- */

enum { SPOOL_TOTALS_ROW = 8 * SPOOL_TOTALS };
void totals_row_make(const uint64_t totals[SPOOL_TOTALS], void *dst); /* SPOOL_TOTALS_ROW */
bool totals_row_take(struct str row, uint64_t ret[SPOOL_TOTALS]);

void put_be64(void *dst, uint64_t v);
uint64_t get_be64(const void *src);
void put_be32(void *dst, uint32_t v);
uint32_t get_be32(const void *src);

#endif
