/* check.c - verifies what spool.h says to be always true of a committed state.
 *
 * Layer: spool. Memory does not grow with the spool. What a row is compared with is read in the same
 * transaction, so that nothing is called wrong because it changed meanwhile.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/units.h"
#include "mail/history.h"
#include "mail/message.h"
#include "spool/internal.h"
#include "spool/record.h"
#include "spool/walk.h"

enum { KEY_TEXT = 2200, PROBLEM_TEXT = 512, RECORD_MEMORY = 1 << 20 };

struct check;
typedef void check_row(struct check *k, struct str key, struct str value);

struct check {
    struct spool_check *c;
    struct reader *reader;
    check_row *row;
    enum store_table table;
    int rows_are;     /* enum spool_row; -1: of several kinds, the row tells */
    const char *what; /* the row that is looked at: spool_row_name; and its key */
    struct str key;
    bool unsure;     /* what belongs to this row could not be read: all else may be right */
    bool lost_table; /* not all rows were seen */
    uint64_t total;  /* rows of the table, when it was begun */
    struct walk walk;
    int64_t problems;
    const char *file_end; /* in this slice; NULL: not looked for yet */
    struct due_key due;   /* the last queue whose row was looked for, by its entries */
    /* of the message that was decoded last */
    struct msgid known;
    bool known_valid;
    uint64_t known_size;
    struct arena arena;
};

/* The row that is looked at is one of these. */
static void is_a(struct check *k, enum spool_row row)
{
    k->what = spool_row_name(row);
    k->c->rows[row]++;
}

/* ---- keys for people -------------------------------------------------------------------------- */

struct id_text {
    char z[MSGID_TEXT];
};
static struct id_text text_of(const struct msgid *id)
{
    struct id_text t;

    msgid_text(id, t.z);
    return t;
}

struct time_text {
    char z[32];
};
static struct time_text time_of(int64_t ms)
{
    struct time_text t;

    if (ms == INT64_MAX)
        snprintf(t.z, sizeof(t.z), "never");
    else
        date_iso8601(ms, t.z);
    return t;
}

static const char *class_name(enum spool_class c)
{
    static const char *const names[] = { "scheduled", "waiting", "held" };

    return names[c];
}

/* Names are of strangers: octets that cannot be shown become "\xNN". */
struct name_text {
    char z[SPOOL_MAX_QUEUE_NAME * 4 + 1];
};
static struct name_text name_of(struct str s)
{
    struct name_text t;
    size_t at = 0;

    for (size_t i = 0; i < s.n && at + 5 < sizeof(t.z); i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c >= ' ' && c < 0x7f && c != '\\')
            t.z[at++] = (char)c;
        else
            at += (size_t)snprintf(t.z + at, sizeof(t.z) - at, "\\x%02x", c);
    }
    t.z[at] = '\0';
    return t;
}

static void raw_key(struct str key, char *dst)
{
    size_t at = (size_t)snprintf(dst, KEY_TEXT, "0x");

    for (size_t i = 0; i < MIN(key.n, (size_t)32); i++)
        at += (size_t)snprintf(dst + at, KEY_TEXT - at, "%02x", (uint8_t)key.p[i]);
    snprintf(dst + at, KEY_TEXT - at, "%s (%zu octets)", key.n > 32 ? "..." : "", key.n);
}

static void due_text(struct str queue, enum spool_class c, const struct spool_due *due, char *dst)
{
    snprintf(dst, KEY_TEXT, "%s %s %s %s.%" PRIu32, name_of(queue).z, class_name(c),
             time_of(due->due_ms).z, text_of(&due->id).z, due->n);
}

static bool message_text(struct str key, char *dst)
{
    enum spool_part part;
    struct msgid id;
    uint32_t n;

    if (!part_key_take(key, &id, &part, &n))
        return false;
    switch (part) {
    case PART_PIECE: snprintf(dst, KEY_TEXT, "%s piece %" PRIu32, text_of(&id).z, n); break;
    case PART_RECIPIENT: snprintf(dst, KEY_TEXT, "%s.%" PRIu32, text_of(&id).z, n); break;
    default: snprintf(dst, KEY_TEXT, "%s", text_of(&id).z); break;
    }
    return true;
}

/* False: it is not what that table's keys look like. */
static bool key_text(enum store_table t, struct str key, char *dst)
{
    struct str name, rest;
    enum spool_class class_;
    struct spool_due due;
    int64_t expires;

    switch (t) {
    case TABLE_MESSAGE: return message_text(key, dst);
    case TABLE_STAGING: return key.n == SPOOL_ID_KEY && message_text(key, dst);
    case TABLE_DUE:
        if (queue_name_valid(key)) {
            snprintf(dst, KEY_TEXT, "%s", name_of(key).z);
            return true;
        }
        if (!due_key_take(key, &name, &class_, &due))
            return false;
        due_text(name, class_, &due, dst);
        return true;
    case TABLE_KV:
        if (!kv_key_take(key, &name, &rest))
            return false;
        snprintf(dst, KEY_TEXT, "%s/%s", name_of(name).z, name_of(rest).z);
        return true;
    case TABLE_KV_END:
        if (!kv_end_take(key, &name, &expires, &rest))
            return false;
        snprintf(dst, KEY_TEXT, "%s/%s %s", name_of(name).z, name_of(rest).z, time_of(expires).z);
        return true;
    default: snprintf(dst, KEY_TEXT, "%s", name_of(key).z); return key.n > 0;
    }
}

PRINTF_LIKE(3, 4)
static void problem(struct check *k, enum spool_remedy remedy, const char *fmt, ...)
{
    char text[PROBLEM_TEXT], key[KEY_TEXT];
    struct spool_problem p = { .kind = k->what, .key = key, .text = text, .remedy = remedy };
    va_list ap;

    if (k->unsure)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (!k->key.n)
        snprintf(key, sizeof(key), "-");
    else if (!key_text(k->table, k->key, key))
        raw_key(k->key, key);
    k->problems++;
    if (k->c->problem)
        k->c->problem(k->c->arg, &p);
}

/* ---- other rows ------------------------------------------------------------------------------- */

/* True: it was read. An error is told as one, and nothing more of this row then: a row that cannot be read is not
 * missing, and no repair brings it back. After such an error LMDB refuses all reads of the transaction. */
static bool was_read(struct check *k, enum store_table t, int rc)
{
    if (rc && rc != MDB_NOTFOUND) {
        problem(k, SPOOL_LOSES_TABLE, "what belongs to it in %s cannot be read: %s",
                spool_table_name(t), mdb_strerror(rc));
        k->unsure = true;
        k->walk.renew = true;
    }
    return rc == 0;
}

static bool there(struct check *k, enum store_table t, struct str key, struct str *ret)
{
    struct str ignored;

    return was_read(k, t, reader_get(k->reader, t, key, ret ? ret : &ignored));
}

static bool part_is_there(struct check *k, struct part_key key, struct str *ret)
{
    return there(k, TABLE_MESSAGE, part_key_str(&key), ret);
}

/* The end of a message's pieces; of a row that cannot be read nobody knows it. False: there is no such row. */
static bool pieces_of_message(struct check *k, const struct msgid *id, uint32_t *ret_end)
{
    struct str row, envelope;

    *ret_end = UINT32_MAX;
    if (!part_is_there(k, message_key(id), &row))
        return false;
    message_row_take(row, ret_end, &envelope);
    return true;
}
static bool pieces_of_staging(struct check *k, const struct msgid *id, uint32_t *ret_end)
{
    struct str row;

    if (!there(k, TABLE_STAGING, str_make(id->b, sizeof(id->b)), &row) || row.n != 4)
        return false;
    *ret_end = get_be32(row.p) + 1;
    return true;
}

/* The octets of the pieces from..end. False: one is missing; that is told. */
static bool check_pieces(struct check *k, const struct msgid *id, uint32_t from, uint32_t end,
                         enum spool_remedy remedy, uint64_t *ret_octets)
{
    *ret_octets = 0;
    for (uint32_t chunk = from; chunk < end; chunk++) {
        struct str bytes;
        if (!part_is_there(k, piece_key(id, chunk), &bytes)) {
            /* a count that is wrong would say so four billion times */
            problem(k, remedy, "piece %" PRIu32 " of %" PRIu32 " is missing", chunk, end);
            return false;
        }
        *ret_octets += bytes.n;
    }
    return true;
}

/* How many keys of a table begin like that, in this transaction; stops behind `max`. */
static uint64_t count_prefix(struct check *k, enum store_table t, struct str prefix, uint64_t max)
{
    MDB_val at = store_val(prefix), v;
    MDB_cursor *cursor;
    uint64_t n = 0;
    int rc = reader_cursor(k->reader, t, &cursor);

    if (rc == 0)
        rc = mdb_cursor_get(cursor, &at, &v, MDB_SET_RANGE);
    for (; rc == 0 && n < max && str_starts(store_str(at), prefix); n++)
        rc = mdb_cursor_get(cursor, &at, &v, MDB_NEXT);
    was_read(k, t, rc);
    return n;
}

/* ---- records ---------------------------------------------------------------------------------- */

/* The envelope of a message as the engine reads it. Takes a reference; NULL: unreadable. */
static struct message *decode_message(struct check *k, const struct msgid *id, struct str envelope)
{
    struct message *m = NULL;

    k->known = *id;
    k->known_valid = message_decode(id, envelope, &m) == 0;
    k->known_size = k->known_valid ? m->size : 0;
    return k->known_valid ? m : NULL;
}

static void check_envelope(struct check *k, const struct msgid *id, struct str envelope,
                           uint32_t n_chunks, bool whole, uint64_t octets)
{
    struct message *m = decode_message(k, id, envelope);

    if (!m) {
        problem(k, SPOOL_LOSES_RECORD,
                "the envelope (%zu octets) cannot be read: damaged, or of a newer version",
                envelope.n);
        return;
    }
    if (m->n_chunks != n_chunks)
        problem(k, SPOOL_LOSES_MESSAGE,
                "the envelope tells of %" PRIu32 " pieces, the row of %" PRIu32, m->n_chunks,
                n_chunks);
    else if (whole && m->size != octets)
        problem(k, SPOOL_LOSES_MESSAGE,
                "the envelope tells of %" PRIu64 " octets, the pieces have %" PRIu64, m->size,
                octets);
    message_unref(m);
}

static void check_recipient_record(struct check *k, const struct msgid *id, uint32_t n,
                                   const struct spool_recipient *row)
{
    struct recipient r = { 0 };
    struct history h;

    arena_reset(&k->arena);
    int e = recipient_decode(&k->arena, n, row->record, &r);
    if (e < 0) {
        problem(k, SPOOL_LOSES_RECORD,
                "the record (%zu octets) cannot be read: damaged, or of a newer version",
                row->record.n);
        return;
    }
    if (history_decode(&k->arena, r.history, &h) < 0)
        problem(k, SPOOL_NO_REMEDY, "the history of its attempts (%zu octets) cannot be read",
                r.history.n);
    recipient_done(&r);

    struct str message, envelope;
    uint32_t n_chunks;
    if (msgid_cmp(&k->known, id) != 0 && part_is_there(k, message_key(id), &message) &&
        message_row_take(message, &n_chunks, &envelope))
        message_unref(decode_message(k, id, envelope));
    bool known = k->known_valid && msgid_cmp(&k->known, id) == 0;
    if (known && row->size && row->size != k->known_size)
        problem(k, SPOOL_NO_REMEDY,
                "the row tells of a message of %" PRIu64 " octets, its envelope of %" PRIu64,
                row->size, k->known_size);
}

/* ---- messages --------------------------------------------------------------------------------- */

static void bad_key(struct check *k)
{
    problem(k, SPOOL_LOSES_RECORD, "this is not a key of that table");
}

static void check_message(struct check *k, const struct msgid *id, struct str value)
{
    struct part_key recipients = recipient_key(id, 0);
    struct str envelope;
    uint32_t n_chunks, staged;
    uint64_t octets;

    if (!message_row_take(value, &n_chunks, &envelope)) {
        problem(k, SPOOL_LOSES_MESSAGE, "the row has %zu octets, its head alone has %d", value.n,
                SPOOL_MESSAGE_HEAD);
        return;
    }
    if (count_prefix(k, TABLE_MESSAGE, str_first(part_key_str(&recipients), SPOOL_ID_KEY + 1), 1) ==
        0)
        problem(k, SPOOL_MEND_RUBBISH, "it has no recipient");
    if (pieces_of_staging(k, id, &staged))
        problem(k, SPOOL_MEND_RUBBISH, "it is complete, and its pieces stand in staging as well");
    bool whole = check_pieces(k, id, 0, n_chunks, SPOOL_LOSES_MESSAGE, &octets);
    if (k->c->records)
        check_envelope(k, id, envelope, n_chunks, whole, octets);
}

static void check_staging(struct check *k, struct str key, struct str value)
{
    enum spool_part part;
    struct msgid id;
    uint32_t none;
    uint64_t octets;

    if (!part_key_take(key, &id, &part, &none) || part != PART_MESSAGE)
        bad_key(k);
    else if (value.n != 4 || get_be32(value.p) == 0)
        problem(k, SPOOL_MEND_RUBBISH, "the row is no number of pieces: it has %zu octets",
                value.n);
    else
        check_pieces(k, &id, 1, get_be32(value.p) + 1, SPOOL_NO_REMEDY, &octets);
}

static void check_piece(struct check *k, const struct msgid *id, uint32_t chunk, struct str value)
{
    uint32_t end;

    /* Only its place is looked at: a piece that is not read costs nothing. */
    if (value.n && !k->file_end)
        k->file_end = store_file_end(k->reader->store, value.p);
    if (value.n && k->file_end && value.p + value.n > k->file_end)
        problem(k, SPOOL_LOSES_MESSAGE, "its %zu octets lie behind the end of the file", value.n);
    if (!(pieces_of_message(k, id, &end) && chunk < end) &&
        !(pieces_of_staging(k, id, &end) && chunk > 0 && chunk < end))
        problem(k, SPOOL_MEND_RUBBISH, "it belongs to no message and to nothing in staging");
}

static void check_recipient(struct check *k, const struct msgid *id, uint32_t n, struct str value)
{
    struct spool_recipient r;
    struct due_key due;
    uint32_t n_chunks;

    if (!recipient_row_take(value, &r)) {
        problem(k, SPOOL_LOSES_RECORD, "the row (%zu octets) cannot be read", value.n);
        return;
    }
    if (!pieces_of_message(k, id, &n_chunks))
        problem(k, SPOOL_MEND_RUBBISH, "there is no message %s", text_of(id).z);
    const struct spool_due at = { *id, n, r.due_ms };
    due_key_make(&due, r.queue, r.class_, &at);
    if (!there(k, TABLE_DUE, due_key_str(&due), NULL)) {
        char text[KEY_TEXT];
        due_text(r.queue, r.class_, &at, text);
        problem(k, SPOOL_MEND_INDEX, "its entry in due is missing: %.400s", text);
    }
    if (k->c->records)
        check_recipient_record(k, id, n, &r);
}

static void check_part(struct check *k, struct str key, struct str value)
{
    enum spool_part part;
    struct msgid id;
    uint32_t n;

    if (!part_key_take(key, &id, &part, &n)) {
        bad_key(k);
        return;
    }
    is_a(k, part_row_kind(part));
    switch (part) {
    case PART_PIECE: check_piece(k, &id, n, value); break;
    case PART_RECIPIENT: check_recipient(k, &id, n, value); break;
    default: check_message(k, &id, value); break;
    }
}

/* ---- queues ----------------------------------------------------------------------------------- */

static void check_due(struct check *k, struct str key, struct str value)
{
    struct str queue, row;
    struct spool_due due;
    struct spool_recipient r;
    enum spool_class c;

    if (!due_key_take(key, &queue, &c, &due)) {
        bad_key(k);
        return;
    }
    if (!part_is_there(k, recipient_key(&due.id, due.n), &row))
        problem(k, SPOOL_MEND_INDEX, "there is no recipient %s.%" PRIu32, text_of(&due.id).z,
                due.n);
    else if (!recipient_row_take(row, &r))
        problem(k, SPOOL_MEND_INDEX, "the row of recipient %s.%" PRIu32 " cannot be read",
                text_of(&due.id).z, due.n);
    else if (!str_eq(r.queue, queue) || r.class_ != c || r.due_ms != due.due_ms)
        problem(k, SPOOL_MEND_INDEX, "its recipient's row says %.200s %s %s", name_of(r.queue).z,
                class_name(r.class_), time_of(r.due_ms).z);
    if (value.n)
        problem(k, SPOOL_MEND_INDEX, "it has a value of %zu octets, and should have none", value.n);
    if (str_eq(queue, due_key_queue(&k->due)))
        return;
    due_key_make(&k->due, queue, c, &due); /* entries of a queue lie together */
    if (!there(k, TABLE_DUE, queue, NULL))
        problem(k, SPOOL_MEND_INDEX, "its queue %.200s has no row", name_of(queue).z);
}

/* Counts the entries of one queue. */
static void count_queue(struct check *k, struct str name, struct queue_row *ret)
{
    struct spool_due start = { .due_ms = INT64_MIN };
    struct due_key first;
    MDB_cursor *cursor;

    *ret = (struct queue_row){ 0 };
    due_key_make(&first, name, SPOOL_SCHEDULED, &start);
    struct str prefix = str_first(due_key_str(&first), first.queue_n + 1);
    MDB_val at = store_val(due_key_str(&first)), v;
    int rc = reader_cursor(k->reader, TABLE_DUE, &cursor);
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &at, &v, MDB_SET_RANGE);
    for (; rc == 0 && str_starts(store_str(at), prefix);
         rc = mdb_cursor_get(cursor, &at, &v, MDB_NEXT)) {
        struct spool_recipient r;
        struct spool_due due;
        enum spool_class c;
        struct str queue, row;
        if (!due_key_take(store_str(at), &queue, &c, &due))
            continue;
        ret->count[c]++;
        if (c == SPOOL_WAITING && part_is_there(k, recipient_key(&due.id, due.n), &row) &&
            recipient_row_take(row, &r))
            ret->octets += r.size;
    }
    was_read(k, TABLE_DUE, rc);
}

static void check_queue(struct check *k, struct str key, struct str value)
{
    struct queue_row q, is;

    if (!queue_row_take(value, &q)) {
        problem(k, SPOOL_MEND_INDEX,
                "the row (%zu octets) cannot be read; whether the queue was held may be lost",
                value.n);
        return;
    }
    if (queue_row_empty(&q))
        problem(k, SPOOL_MEND_INDEX, "the row says nothing, and should not be there");
    count_queue(k, key, &is);
    for (int c = 0; c < SPOOL_CLASSES; c++)
        if (q.count[c] != is.count[c])
            problem(k, SPOOL_MEND_INDEX, "the row counts %" PRIu64 " %s, due has %" PRIu64,
                    q.count[c], class_name((enum spool_class)c), is.count[c]);
    if (q.octets != is.octets)
        problem(k, SPOOL_MEND_INDEX,
                "the row tells of %" PRIu64 " octets that wait, their recipients of %" PRIu64,
                q.octets, is.octets);
    if (k->c->records && q.record.n && !str_eq(q.record, STR("H")))
        problem(k, SPOOL_NO_REMEDY,
                "its record (%zu octets) is none of this version, and counts as none", q.record.n);
}

static void check_queue_or_due(struct check *k, struct str key, struct str value)
{
    if (queue_name_valid(key)) {
        is_a(k, SPOOL_ROW_QUEUE);
        check_queue(k, key, value);
    } else {
        is_a(k, SPOOL_ROW_DUE);
        check_due(k, key, value);
    }
}

/* ---- what policies remember ------------------------------------------------------------------- */

static void check_kv(struct check *k, struct str key, struct str value)
{
    struct str name, of, v;
    struct kv_key end;
    int64_t expires;

    if (!kv_key_take(key, &name, &of)) {
        bad_key(k);
        return;
    }
    if (!kv_row_take(value, &expires, &v)) {
        problem(k, SPOOL_LOSES_RECORD, "the row (%zu octets) cannot be read", value.n);
        return;
    }
    kv_end_make(&end, name, expires, of);
    if (!there(k, TABLE_KV_END, kv_key_str(&end), NULL))
        problem(k, SPOOL_MEND_INDEX, "its entry in kv_end is missing: it ends %s",
                time_of(expires).z);
    if (!there(k, TABLE_KV_NAME, name, NULL))
        problem(k, SPOOL_MEND_INDEX, "its name has no row in kv_name");
}

static void check_kv_end(struct check *k, struct str key, struct str value)
{
    struct str name, of, row, v;
    struct kv_key entry;
    int64_t expires, says;

    (void)value;
    if (!kv_end_take(key, &name, &expires, &of)) {
        bad_key(k);
        return;
    }
    kv_key_make(&entry, name, of);
    if (!there(k, TABLE_KV, kv_key_str(&entry), &row) || !kv_row_take(row, &says, &v))
        problem(k, SPOOL_MEND_INDEX, "there is no such entry in kv");
    else if (says != expires)
        problem(k, SPOOL_MEND_INDEX, "the entry in kv ends %s", time_of(says).z);
}

static void check_kv_name(struct check *k, struct str key, struct str value)
{
    struct kv_key first;

    if (key.n < 1 || key.n > SPOOL_KV_MAX_NAME || value.n != 8) {
        problem(k, SPOOL_MEND_INDEX, "the row is no count: it has %zu octets", value.n);
        return;
    }
    kv_key_make(&first, key, STR_NONE);
    uint64_t n = count_prefix(k, TABLE_KV, kv_key_str(&first), UINT64_MAX);
    if (n != get_be64(value.p))
        problem(k, SPOOL_MEND_INDEX, "the row counts %" PRIu64 " entries, kv has %" PRIu64,
                get_be64(value.p), n);
}

/* ---- all -------------------------------------------------------------------------------------- */

static void on_row(void *arg, struct str key, struct str value)
{
    struct check *k = arg;

    k->key = key;
    if (k->rows_are >= 0)
        is_a(k, (enum spool_row)k->rows_are);
    k->row(k, key, value);
    k->key = STR_NONE;
    k->what = spool_table_name(k->table);
    k->unsure = false;
}

static void on_slice(void *arg)
{
    struct check *k = arg;

    k->file_end = NULL; /* the map may move */
    if (k->c->progress)
        k->c->progress(k->c->arg, spool_table_name(k->table), k->walk.rows,
                       MAX(k->total, k->walk.rows));
}

static int count_rows(struct check *k, enum store_table t)
{
    MDB_stat st;
    int rc = reader_begin(k->reader);

    k->total = 0;
    if (rc < 0)
        return rc;
    if (store_has(k->reader->store, t))
        rc = mdb_stat(k->reader->txn, k->reader->store->table[t], &st);
    if (rc == 0 && store_has(k->reader->store, t))
        k->total = st.ms_entries;
    reader_end(k->reader);
    return rc;
}

static int check_table(struct check *k, enum store_table t, int rows_are, check_row *row)
{
    k->rows_are = rows_are;
    k->table = t;
    k->what = spool_table_name(t);
    k->row = row;
    k->due = (struct due_key){ 0 };
    k->walk = (struct walk){
        .reader = k->reader,
        .slice = k->c->slice,
        .row = on_row,
        .slice_done = on_slice,
        .arg = k,
    };
    int rc = count_rows(k, t);
    if (rc == 0)
        rc = walk_table(&k->walk, t);
    if (rc > 0 ||
        rc <= -30000) { /* LMDB's own codes: the pages are wrong; other tables may be right */
        problem(k, SPOOL_LOSES_TABLE, "behind row %" PRIu64 " of %" PRIu64 " it cannot be read: %s",
                k->walk.rows, k->total, mdb_strerror(rc));
        k->lost_table = true;
        return 0;
    }
    return rc;
}

/* The state that is the last one; a negative errno. */
static int64_t state_of(struct check *k)
{
    int r = reader_begin(k->reader);
    size_t id = r == 0 ? mdb_txn_id(k->reader->txn) : 0;

    if (r == 0)
        reader_end(k->reader);
    return r < 0 ? r : (int64_t)id;
}

/* Beside a running router what was counted in many slices is the number of no state: then it is the rows of the
 * table of messages that must be as many as the sums say, which one look tells. */
static void compare_totals(struct check *k, const uint64_t totals[SPOOL_TOTALS], bool still)
{
    static const char *const noun[SPOOL_TOTALS] = { "messages", "pieces", "recipients", "queues" };
    MDB_stat st = { 0 };

    if (still) {
        for (size_t i = 0; i < SPOOL_TOTALS; i++)
            if (totals[i] != k->c->rows[i])
                problem(k, SPOOL_MEND_INDEX, "it says %" PRIu64 " %s, there are %" PRIu64,
                        totals[i], noun[i], k->c->rows[i]);
        return;
    }
    uint64_t sum =
        totals[SPOOL_ROW_MESSAGE] + totals[SPOOL_ROW_PIECE] + totals[SPOOL_ROW_RECIPIENT];
    if (was_read(k, TABLE_MESSAGE,
                 mdb_stat(k->reader->txn, k->reader->store->table[TABLE_MESSAGE], &st)) &&
        sum != st.ms_entries)
        problem(k, SPOOL_MEND_INDEX,
                "it says %" PRIu64 " messages, pieces and recipients, there are %zu", sum,
                st.ms_entries);
}

static int check_totals(struct check *k, int64_t state)
{
    uint64_t totals[SPOOL_TOTALS];
    int r = reader_begin(k->reader);

    if (r < 0)
        return r;
    k->what = "totals";
    int rc = reader_totals(k->reader, totals);
    if (rc == MDB_CORRUPTED)
        problem(k, SPOOL_MEND_INDEX, "it cannot be read");
    else if (rc)
        problem(k, SPOOL_LOSES_TABLE, "it cannot be read: %s", mdb_strerror(rc));
    else
        compare_totals(k, totals, (int64_t)mdb_txn_id(k->reader->txn) == state);
    reader_end(k->reader);
    return 0;
}

static int check_all(struct check *k)
{
    static const struct {
        enum store_table table;
        int rows_are;
        check_row *row;
    } tables[] = {
        { TABLE_MESSAGE, -1, check_part },
        { TABLE_STAGING, SPOOL_ROW_STAGING, check_staging },
        { TABLE_DUE, -1, check_queue_or_due },
        { TABLE_KV, SPOOL_ROW_KV, check_kv },
        { TABLE_KV_END, SPOOL_ROW_KV_END, check_kv_end },
        { TABLE_KV_NAME, SPOOL_ROW_KV_NAME, check_kv_name },
    };
    int64_t state = state_of(k);
    int r = state < 0 ? (int)state : 0;

    for (size_t i = 0; i < ARRAY_LEN(tables) && r == 0; i++)
        r = check_table(k, tables[i].table, tables[i].rows_are, tables[i].row);
    return r == 0 && !k->lost_table ? check_totals(k, state) : r;
}

int64_t spool_check(struct spool *s, struct spool_check *c)
{
    struct reader reader;
    struct check k = { .reader = &reader, .c = c };

    memset(c->rows, 0, sizeof(c->rows));
    arena_init(&k.arena, RECORD_MEMORY);
    reader_init(&reader, &s->store);
    int r = check_all(&k);
    reader_done(&reader);
    arena_done(&k.arena);
    return r < 0 ? r : k.problems;
}
