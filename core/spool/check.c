/* check.c - verifies what spool.h says to be always true of a committed state.
 *
 * Layer: spool. Walks each table once under one read transaction; memory does not grow with the spool.
 */
#include <stdarg.h>
#include <stdio.h>

#include "spool/internal.h"
#include "spool/record.h"

struct check {
    struct reader *reader;
    void (*report)(void *arg, const char *problem);
    void *arg;
    int64_t problems;
    /* the queue whose due entries are being counted */
    char queue[SPOOL_MAX_QUEUE_NAME + 1];
    uint64_t count[SPOOL_CLASSES];
    uint64_t octets; /* of those that wait */
};

PRINTF_LIKE(2, 3) static void problem(struct check *k, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    k->problems++;
    if (k->report)
        k->report(k->arg, text);
}

/* ---- small helpers ---------------------------------------------------------------------------- */

struct id_text {
    char z[MSGID_TEXT];
};
static struct id_text text_of(const struct msgid *id)
{
    struct id_text t;

    msgid_text(id, t.z);
    return t;
}

static bool there(struct check *k, enum store_table t, struct str key, struct str *ret)
{
    struct str ignored;

    return reader_get(k->reader, t, key, ret ? ret : &ignored) == 0;
}

static bool item_there(struct check *k, enum store_table t, const struct msgid *id, uint32_t n)
{
    struct item_key key = item_key(id, n);

    return there(k, t, str_make(key.b, sizeof(key.b)), NULL);
}

/* The numbers of a message's pieces: first and end. False: there is no such row. */
static bool pieces_of_message(struct check *k, const struct msgid *id, uint32_t *ret_end)
{
    struct str row, envelope;

    return there(k, TABLE_MESSAGE, str_make(id->b, sizeof(id->b)), &row) &&
           message_row_take(row, ret_end, &envelope);
}
static bool pieces_of_staging(struct check *k, const struct msgid *id, uint32_t *ret_end)
{
    struct str row;

    if (!there(k, TABLE_STAGING, str_make(id->b, sizeof(id->b)), &row) || row.n != 4)
        return false;
    *ret_end = get_be32(row.p) + 1;
    return true;
}

static void check_pieces(struct check *k, const struct msgid *id, uint32_t from, uint32_t end)
{
    for (uint32_t chunk = from; chunk < end; chunk++)
        if (!item_there(k, TABLE_BODY, id, chunk)) {
            problem(k, "message %s: piece %u of %u is missing", text_of(id).z, chunk, end);
            return; /* a count that is wrong would say so four billion times */
        }
}

/* ---- one entry of each table ------------------------------------------------------------------ */

typedef void check_entry(struct check *k, struct str key, struct str value);

static bool id_of(struct str key, struct msgid *ret)
{
    if (key.n != SPOOL_ID_KEY)
        return false;
    memcpy(ret->b, key.p, SPOOL_ID_KEY);
    return true;
}

static bool has_recipient(struct check *k, const struct msgid *id)
{
    struct item_key first = item_key(id, 0);
    MDB_val key = store_val(str_make(first.b, sizeof(first.b))), v;
    MDB_cursor *cursor;

    return reader_cursor(k->reader, TABLE_RECIPIENT, &cursor) == 0 &&
           mdb_cursor_get(cursor, &key, &v, MDB_SET_RANGE) == 0 &&
           item_key_is_of(store_str(key), id);
}

static void check_message(struct check *k, struct str key, struct str value)
{
    struct str envelope;
    struct msgid id;
    uint32_t n_chunks, staged;

    if (!id_of(key, &id) || !message_row_take(value, &n_chunks, &envelope)) {
        problem(k, "a message's row cannot be read");
        return;
    }
    if (!has_recipient(k, &id))
        problem(k, "message %s: no recipient", text_of(&id).z);
    if (pieces_of_staging(k, &id, &staged))
        problem(k, "message %s: complete and staged at once", text_of(&id).z);
    check_pieces(k, &id, 0, n_chunks);
}

static void check_staging(struct check *k, struct str key, struct str value)
{
    struct msgid id;

    if (!id_of(key, &id) || value.n != 4 || get_be32(value.p) == 0) {
        problem(k, "a row of staging cannot be read");
        return;
    }
    uint32_t n = get_be32(value.p);
    check_pieces(k, &id, 1, n + 1);
}

static void check_body(struct check *k, struct str key, struct str value)
{
    struct msgid id;
    uint32_t chunk, end;

    if (!item_key_take(key, &id, &chunk))
        problem(k, "a piece's key cannot be read");
    else if (!(pieces_of_message(k, &id, &end) && chunk < end) &&
             !(pieces_of_staging(k, &id, &end) && chunk > 0 && chunk < end))
        problem(k, "piece %u of %s belongs to nothing", chunk, text_of(&id).z);
}

static void check_recipient(struct check *k, struct str key, struct str value)
{
    struct spool_recipient r;
    struct due_key due;
    struct msgid id;
    uint32_t n, n_chunks;

    if (!item_key_take(key, &id, &n) || !recipient_row_take(value, &r)) {
        problem(k, "a recipient's row cannot be read");
        return;
    }
    if (!pieces_of_message(k, &id, &n_chunks))
        problem(k, "recipient %u of %s: no such message", n, text_of(&id).z);
    due_key_make(&due, r.queue, r.class_, &(struct spool_due){ id, n, r.due_ms });
    if (!there(k, TABLE_DUE, due_key_str(&due), NULL))
        problem(k, "recipient %u of %s: not in the index of its queue", n, text_of(&id).z);
}

/* The due entries of a queue lie together: at their end they are compared with its row. */
static void end_of_queue(struct check *k)
{
    struct str row, name = str_of(k->queue);
    struct queue_row q;

    if (!name.n)
        return;
    if (!there(k, TABLE_QUEUE, name, &row) || !queue_row_take(row, &q))
        problem(k, "queue %s: has entries and no row", k->queue);
    else if (memcmp(q.count, k->count, sizeof(k->count)) != 0)
        problem(k, "queue %s: counts %ju %ju %ju, entries %ju %ju %ju", k->queue,
                (uintmax_t)q.count[0], (uintmax_t)q.count[1], (uintmax_t)q.count[2],
                (uintmax_t)k->count[0], (uintmax_t)k->count[1], (uintmax_t)k->count[2]);
    else if (q.octets != k->octets)
        problem(k, "queue %s: %ju octets wait, its row says %ju", k->queue, (uintmax_t)k->octets,
                (uintmax_t)q.octets);
}

static void check_due(struct check *k, struct str key, struct str value)
{
    struct str queue, row;
    struct spool_due due;
    struct spool_recipient r;
    enum spool_class c;

    if (!due_key_take(key, &queue, &c, &due)) {
        problem(k, "an entry of the index cannot be read");
        return;
    }
    if (!str_eq(queue, str_of(k->queue))) {
        end_of_queue(k);
        str_copy(queue, k->queue, sizeof(k->queue));
        for (size_t i = 0; i < SPOOL_CLASSES; i++)
            k->count[i] = 0;
        k->octets = 0;
    }
    k->count[c]++;

    struct item_key item = item_key(&due.id, due.n);
    if (!there(k, TABLE_RECIPIENT, str_make(item.b, sizeof(item.b)), &row) ||
        !recipient_row_take(row, &r))
        problem(k, "queue %s: entry of recipient %u of %s, which is not there", k->queue, due.n,
                text_of(&due.id).z);
    else if (!str_eq(r.queue, queue) || r.class_ != c || r.due_ms != due.due_ms)
        problem(k, "queue %s: entry of recipient %u of %s, whose row says otherwise", k->queue,
                due.n, text_of(&due.id).z);
    else if (c == SPOOL_WAITING)
        k->octets += r.size;
}

/* Rows of queues with entries were compared by check_due: here, that those with counts have some. */
static void check_queue(struct check *k, struct str key, struct str value)
{
    struct spool_due start = { .due_ms = INT64_MIN };
    struct queue_row q;
    struct due_key first;
    MDB_cursor *cursor;

    if (!queue_name_valid(key) || !queue_row_take(value, &q)) {
        problem(k, "a queue's row cannot be read");
        return;
    }
    if (queue_row_empty(&q))
        problem(k, "queue " STR_FMT ": a row that says nothing", STR_ARG(key));
    if (!(q.count[0] | q.count[1] | q.count[2]))
        return;
    due_key_make(&first, key, SPOOL_SCHEDULED, &start);
    MDB_val at = store_val(due_key_str(&first)), v;
    struct str prefix = str_first(due_key_str(&first), first.queue_n + 1);
    if (reader_cursor(k->reader, TABLE_DUE, &cursor) != 0 ||
        mdb_cursor_get(cursor, &at, &v, MDB_SET_RANGE) != 0 || !str_starts(store_str(at), prefix))
        problem(k, "queue " STR_FMT ": counts, but no entries", STR_ARG(key));
}

/* ---- what policies remember ------------------------------------------------------------------- */

static void check_kv(struct check *k, struct str key, struct str value)
{
    struct str name, of, v;
    struct kv_key end;
    int64_t expires;

    if (!kv_key_take(key, &name, &of) || !kv_row_take(value, &expires, &v)) {
        problem(k, "a row of kv cannot be read");
        return;
    }
    kv_end_make(&end, name, expires, of);
    if (!there(k, TABLE_KV_END, kv_key_str(&end), NULL))
        problem(k, "kv " STR_FMT ": an entry is not in the index of ends", STR_ARG(name));
}

static void check_kv_end(struct check *k, struct str key, struct str value)
{
    struct str name, of, row, v;
    struct kv_key entry;
    int64_t expires, says;

    if (!kv_end_take(key, &name, &expires, &of)) {
        problem(k, "an entry of kv_end cannot be read");
        return;
    }
    kv_key_make(&entry, name, of);
    if (!there(k, TABLE_KV, kv_key_str(&entry), &row) || !kv_row_take(row, &says, &v) ||
        says != expires)
        problem(k, "kv_end " STR_FMT ": no entry ends then", STR_ARG(name));
}

static void check_kv_name(struct check *k, struct str key, struct str value)
{
    MDB_cursor *cursor;
    struct kv_key first;
    uint64_t n = 0;

    if (key.n < 1 || key.n > SPOOL_KV_MAX_NAME || value.n != 8) {
        problem(k, "a row of kv_name cannot be read");
        return;
    }
    kv_key_make(&first, key, STR_NONE);
    MDB_val at = store_val(kv_key_str(&first)), v;
    int rc = reader_cursor(k->reader, TABLE_KV, &cursor);
    if (rc == 0)
        rc = mdb_cursor_get(cursor, &at, &v, MDB_SET_RANGE);
    for (; rc == 0 && str_starts(store_str(at), kv_key_str(&first)); n++)
        rc = mdb_cursor_get(cursor, &at, &v, MDB_NEXT);
    if (n != get_be64(value.p))
        problem(k, "kv " STR_FMT ": count %ju, entries %ju", STR_ARG(key),
                (uintmax_t)get_be64(value.p), (uintmax_t)n);
}

/* ---- all -------------------------------------------------------------------------------------- */

static int walk(struct check *k, enum store_table t, check_entry *entry)
{
    MDB_cursor *cursor; /* its own: the checks use the reader's */
    MDB_val key, v;

    if (!store_has(k->reader->store, t))
        return 0;
    int rc = mdb_cursor_open(k->reader->txn, k->reader->store->table[t], &cursor);
    if (rc)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &key, &v, MDB_NEXT)) == 0)
        entry(k, store_str(key), store_str(v));
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int64_t spool_check(struct spool *s, void (*report)(void *arg, const char *problem), void *arg)
{
    static const struct {
        enum store_table table;
        check_entry *entry;
    } walks[] = {
        { TABLE_MESSAGE, check_message },
        { TABLE_BODY, check_body },
        { TABLE_RECIPIENT, check_recipient },
        { TABLE_STAGING, check_staging },
        { TABLE_DUE, check_due },
        { TABLE_QUEUE, check_queue },
        { TABLE_KV, check_kv },
        { TABLE_KV_END, check_kv_end },
        { TABLE_KV_NAME, check_kv_name },
    };
    struct reader reader;
    struct check k = { .reader = &reader, .report = report, .arg = arg };

    reader_init(&reader, &s->store);
    int r = reader_begin(&reader);
    if (r == 0) {
        for (size_t i = 0; i < ARRAY_LEN(walks) && r == 0; i++)
            r = store_error(walk(&k, walks[i].table, walks[i].entry));
        end_of_queue(&k);
        reader_end(&reader);
    }
    reader_done(&reader);
    return r < 0 ? r : k.problems;
}
