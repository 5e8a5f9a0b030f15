/* spool_check names each kind of damage, exactly; and spool_repair mends what can be made anew.
 *
 * Long, because each kind of damage is a case, and check and repair are tried on the same damage. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mail/message.h"
#include "raw_spool.h"
#include "spool/record.h"
#include "spool_helper.h"

#include <cmocka.h>

enum { BODY = 150000, PIECES = 3, LINES = 16, LINE = 700 };

/* ---- a spool with something of everything ------------------------------------------------------ */

static struct str encoded_envelope(struct buf *b)
{
    struct message *m = message_new();

    m->size = BODY;
    m->n_chunks = PIECES;
    m->received_ms = 1700000000000;
    m->n_recipients = 2;
    assert_int_equal(message_encode(m, b), 0);
    message_unref(m);
    return buf_str(b);
}

static struct address test_address(struct arena *a)
{
    struct address address;

    assert_int_equal(address_parse(a, STR("b@rcpt.test"), &address), 0);
    return address;
}

static void encoded_recipient(struct buf *b, struct str history)
{
    struct arena a;

    arena_init(&a, 0);
    struct recipient r = { .address = test_address(&a), .history = history };
    assert_int_equal(recipient_encode(&r, b), 0);
    buf_add(b, "", 1); /* as text for unit_put it needs an end */
    arena_done(&a);
}

static void put_all(struct worker *w)
{
    struct buf envelope, record;
    struct unit u;

    buf_init(&envelope, 0);
    buf_init(&record, 0);
    encoded_recipient(&record, STR_NONE);
    struct str r = str_first(buf_str(&record), buf_len(&record) - 1);

    unit_init(&u);
    unit_message(&u, id_of(1), encoded_envelope(&envelope), body_of(BODY, 1));
    unit_put(&u, id_of(1), 0, "q", SPOOL_SCHEDULED, 5, "");
    unit_put(&u, id_of(1), 1, "w", SPOOL_WAITING, 6, "");
    for (size_t i = 1; i <= 2; i++) {
        u.change[i].recipient.record = r;
        u.change[i].recipient.size = BODY;
    }
    assert_int_equal(unit_run(&u, w), 0);
    unit_init(&u);
    unit_queue(&u, "h", STR("H"));
    unit_stage(&u, id_of(9), 1, STR("a piece"));
    assert_int_equal(unit_run(&u, w), 0);
    for (int i = 0; i < 2; i++) {
        unit_init(&u);
        u.change[0] = (struct spool_change){ .type = SPOOL_KV_SET };
        u.change[0].kv = (struct spool_kv_change){ .name = STR("n"),
                                                   .key = i ? STR("b") : STR("a"),
                                                   .value = STR("v"),
                                                   .expires_ms = 100 + i,
                                                   .max = 10 };
        u.op.n_changes = 1;
        assert_int_equal(unit_run(&u, w), 0);
    }
    buf_done(&envelope);
    buf_done(&record);
}

/* ---- damage ------------------------------------------------------------------------------------ */

static struct str id(uint64_t number)
{
    static struct msgid m;

    m = id_of(number);
    return str_make(m.b, sizeof(m.b));
}

static struct str piece(uint64_t number, uint32_t n)
{
    static struct part_key k;
    struct msgid m = id_of(number);

    k = piece_key(&m, n);
    return part_key_str(&k);
}

static struct str recipient(uint64_t number, uint32_t n)
{
    static struct part_key k;
    struct msgid m = id_of(number);

    k = recipient_key(&m, n);
    return part_key_str(&k);
}

static struct str due(const char *queue, enum spool_class c, int64_t ms, uint32_t n)
{
    static struct due_key k;

    due_key_make(&k, str_of(queue), c, &(struct spool_due){ id_of(1), n, ms });
    return due_key_str(&k);
}

static struct str kv(const char *key)
{
    static struct kv_key k;

    kv_key_make(&k, STR("n"), str_of(key));
    return kv_key_str(&k);
}

static struct str kv_end(const char *key, int64_t ends)
{
    static struct kv_key k;

    kv_end_make(&k, STR("n"), ends, str_of(key));
    return kv_key_str(&k);
}

static void put_queue(const char *name, struct queue_row q)
{
    char row[SPOOL_QUEUE_HEAD + 8 + SPOOL_MAX_QUEUE_RECORD];

    queue_row_make(&q, row);
    raw_put("due", str_of(name), str_make(row, queue_row_size(&q)));
}

/* Recipient 0 with one thing changed. */
static void put_recipient(enum spool_class c, uint64_t size, struct str *record)
{
    static char row[2000];
    struct spool_recipient r;

    assert_true(recipient_row_take(raw_get("message", recipient(1, 0)), &r));
    r.class_ = c;
    r.size = size;
    if (record)
        r.record = *record;
    recipient_row_make(&r, row);
    raw_put("message", recipient(1, 0), str_make(row, recipient_row_size(&r)));
}

static void put_message(uint32_t n_chunks, struct str envelope)
{
    char row[500];

    message_row_make(n_chunks, envelope, row);
    raw_put("message", id(1), str_make(row, message_row_size(envelope)));
}

static void due_gone(void)
{
    raw_delete("due", due("q", SPOOL_SCHEDULED, 5, 0));
}
static void due_extra(void)
{
    raw_put("due", due("q", SPOOL_SCHEDULED, 5, 9), STR_NONE);
}
static void due_value(void)
{
    raw_put("due", due("q", SPOOL_SCHEDULED, 5, 0), STR("xx"));
}
static void due_key(void)
{
    raw_put("due", STR("sh\0rt"), STR_NONE);
}
static void due_time(void)
{
    raw_delete("due", due("q", SPOOL_SCHEDULED, 5, 0));
    raw_put("due", due("q", SPOOL_SCHEDULED, 7, 0), STR_NONE);
}
static void wrong_class(void)
{
    put_recipient(SPOOL_HELD, BODY, NULL);
}
static void wrong_size(void)
{
    put_recipient(SPOOL_SCHEDULED, BODY + 1, NULL);
}
static void bad_record(void)
{
    put_recipient(SPOOL_SCHEDULED, BODY, &STR("no record"));
}
static void bad_history(void)
{
    struct buf b;

    buf_init(&b, 0);
    encoded_recipient(&b, STR("\x07garbage"));
    struct str record = str_first(buf_str(&b), buf_len(&b) - 1);
    put_recipient(SPOOL_SCHEDULED, BODY, &record);
    buf_done(&b);
}
static void count_off(void)
{
    put_queue("q", (struct queue_row){ .count = { 7, 0, 1 } });
}
static void octets_off(void)
{
    put_queue("w", (struct queue_row){ .count = { 0, 1 }, .octets = 9 });
}
static void no_queue(void)
{
    raw_delete("due", STR("q"));
}
static void idle_queue(void)
{
    put_queue("x", (struct queue_row){ .octets = 0 });
}
static void short_queue(void)
{
    raw_put("due", STR("q"), STR("short"));
}
static void queue_record(void)
{
    put_queue("q", (struct queue_row){ .count = { 1 }, .record = STR("?") });
}
static void no_piece(void)
{
    raw_delete("message", piece(1, 1));
}
static void orphan_piece(void)
{
    raw_put("message", piece(5, 0), STR("x"));
}
static void extra_piece(void)
{
    raw_put("message", piece(1, 3), STR("x"));
}
static void short_piece(void)
{
    raw_put("message", piece(1, 2), STR("x"));
}
static void part_key(void)
{
    raw_put("message", STR("\x01\x02"), STR("x"));
}
static void no_message(void)
{
    raw_delete("message", id(1));
}
static void short_message(void)
{
    raw_put("message", id(1), STR("xy"));
}
static void fewer_pieces(void)
{
    struct str row = raw_get("message", id(1));

    put_message(2, str_from(row, SPOOL_MESSAGE_HEAD));
}
static void bad_envelope(void)
{
    put_message(PIECES, STR("no envelope"));
}
static void no_recipients(void)
{
    raw_delete("message", recipient(1, 0));
    raw_delete("message", recipient(1, 1));
}
static void no_recipient(void)
{
    raw_delete("message", recipient(1, 0));
}
static void short_recipient(void)
{
    raw_put("message", recipient(1, 0), STR("x"));
}
static void staged_too(void)
{
    raw_put("staging", id(1), STR("\0\0\0\1"));
}
static void bad_staging(void)
{
    raw_put("staging", id(9), STR("\0\0\1"));
}
static void no_staged_piece(void)
{
    raw_delete("message", piece(9, 1));
}
static void kv_no_end(void)
{
    raw_delete("kv_end", kv_end("a", 100));
}
static void kv_end_extra(void)
{
    raw_put("kv_end", kv_end("c", 100), STR_NONE);
}
static void kv_end_differs(void)
{
    raw_put("kv_end", kv_end("a", 77), STR_NONE);
}
static void kv_count(void)
{
    raw_put("kv_name", STR("n"), STR("\0\0\0\0\0\0\0\x05"));
}
static void kv_no_name(void)
{
    raw_delete("kv_name", STR("n"));
}
static void kv_bad(void)
{
    raw_put("kv", kv("a"), STR("x"));
}

static void totals_off(void)
{
    char bytes[SPOOL_TOTALS_ROW];

    totals_row_make((uint64_t[SPOOL_TOTALS]){ 1, 5, 2, 0 }, bytes);
    raw_put(NULL, STR("totals"), str_make(bytes, sizeof(bytes)));
}
static void totals_short(void)
{
    raw_put(NULL, STR("totals"), STR("short"));
}

#define T5          "1970-01-01T00:00:00.005Z"
#define NO_PIECE(n) "piece @ piece " #n ": it belongs to no message and to nothing in staging"
/* '@' stands for the id of message 1, '%' for that of number 9. */
static const struct damage {
    void (*make)(void);
    bool lasting; /* a repair cannot mend it, or needs not */
    const char *problems[8];
} damages[] = {
    { due_gone,
      false,
      { "recipient @.0: its entry in due is missing: q scheduled " T5 " @.0",
        "queue q: the row counts 1 scheduled, due has 0" } },
    { due_extra,
      false,
      { "due q scheduled " T5 " @.9: there is no recipient @.9",
        "queue q: the row counts 1 scheduled, due has 2" } },
    { due_value, false, { "due q scheduled " T5 " @.0: it has a value of 2 octets" } },
    { due_key, false, { "due 0x7368007274 (5 octets): this is not a key of that table" } },
    { due_time,
      false,
      { "recipient @.0: its entry in due is missing: q scheduled " T5 " @.0",
        "due q scheduled 1970-01-01T00:00:00.007Z @.0: its recipient's row says q scheduled " T5 } },
    { wrong_class,
      false,
      { "recipient @.0: its entry in due is missing: q held " T5 " @.0",
        "due q scheduled " T5 " @.0: its recipient's row says q held " T5 } },
    { wrong_size,
      true,
      { "recipient @.0: the row tells of a message of 150001 octets, its envelope of 150000" } },
    { bad_record, true, { "recipient @.0: the record (9 octets) cannot be read" } },
    { bad_history,
      true,
      { "recipient @.0: the history of its attempts (8 octets) cannot be read" } },
    { count_off,
      false,
      { "queue q: the row counts 7 scheduled, due has 1",
        "queue q: the row counts 1 held, due has 0" } },
    { octets_off,
      false,
      { "queue w: the row tells of 9 octets that wait, their recipients of 150000" } },
    { no_queue, false, { "due q scheduled " T5 " @.0: its queue q has no row" } },
    { idle_queue, false, { "queue x: the row says nothing, and should not be there" } },
    { short_queue, false, { "queue q: the row (5 octets) cannot be read" } },
    { queue_record, true, { "queue q: its record (1 octets) is none of this version" } },
    { no_piece, true, { "message @: piece 1 of 3 is missing" } },
    { orphan_piece, false, { "piece 0: it belongs to no message and to nothing in staging" } },
    { extra_piece, false, { NO_PIECE(3) } },
    { short_piece, true, { "message @: the envelope tells of 150000 octets, the pieces have 13" } },
    { part_key, true, { "message 0x0102 (2 octets): this is not a key of that table" } },
    { no_message,
      false,
      { NO_PIECE(0), NO_PIECE(1), NO_PIECE(2), "recipient @.0: there is no message @",
        "recipient @.1: there is no message @" } },
    { short_message, true, { "message @: the row has 2 octets, its head alone has 4" } },
    { fewer_pieces,
      true,
      { "message @: the envelope tells of 3 pieces, the row of 2", NO_PIECE(2) } },
    { bad_envelope, true, { "message @: the envelope (11 octets) cannot be read" } },
    { no_recipients,
      false,
      { "message @: it has no recipient", "due q scheduled " T5 " @.0: there is no recipient @.0",
        "@.1: there is no recipient @.1",
        "queue w: the row tells of 150000 octets that wait, their recipients of 0" } },
    { no_recipient, false, { "due q scheduled " T5 " @.0: there is no recipient @.0" } },
    { short_recipient,
      true,
      { "recipient @.0: the row (1 octets) cannot be read",
        "due q scheduled " T5 " @.0: the row of recipient @.0 cannot be read" } },
    { staged_too, false, { "message @: it is complete, and its pieces stand in staging as well" } },
    { bad_staging,
      false,
      { "staging %: the row is no number of pieces: it has 3 octets",
        "piece % piece 1: it belongs to no message" } },
    { no_staged_piece, false, { "staging %: piece 1 of 2 is missing" } },
    { kv_no_end,
      false,
      { "kv n/a: its entry in kv_end is missing: it ends 1970-01-01T00:00:00.100Z" } },
    { kv_end_extra,
      false,
      { "kv_end n/c 1970-01-01T00:00:00.100Z: there is no such entry in kv" } },
    { kv_end_differs,
      false,
      { "kv_end n/a 1970-01-01T00:00:00.077Z: the entry in kv ends 1970-01-01T00:00:00.100Z" } },
    { kv_count, false, { "kv_name n: the row counts 5 entries, kv has 2" } },
    { kv_no_name,
      false,
      { "kv n/a: its name has no row in kv_name", "kv n/b: its name has no row in kv_name" } },
    { kv_bad,
      true,
      { "kv n/a: the row (1 octets) cannot be read",
        "kv_end n/a 1970-01-01T00:00:00.100Z: there is no such entry in kv" } },
    { totals_off,
      false,
      { "totals -: it says 5 pieces, there are 4", "totals -: it says 0 queues, there are 3" } },
    { totals_short, false, { "totals -: it cannot be read" } },
};

/* ---- the check --------------------------------------------------------------------------------- */

struct found {
    size_t n;
    char line[LINES][LINE];
};

static void on_problem(void *arg, const struct spool_problem *p)
{
    struct found *f = arg;

    if (f->n < LINES)
        snprintf(f->line[f->n], LINE, "%s %s: %s", p->kind, p->key, p->text);
    f->n++;
}

static void check(const char *path, uint32_t slice, struct found *f)
{
    char why[256] = "";
    struct spool *s;
    struct spool_check c = { .records = true, .slice = slice, .problem = on_problem, .arg = f };

    *f = (struct found){ 0 };
    assert_int_equal(spool_open_readonly(path, &s, why, sizeof(why)), 0); /* sweeps nothing */
    int64_t problems = spool_check(s, &c);
    assert_int_equal(problems, f->n);
    spool_close(s);
}

static void expand(const char *pattern, char *dst)
{
    char one[MSGID_TEXT], nine[MSGID_TEXT];
    struct msgid a = id_of(1), b = id_of(9);
    size_t at = 0;

    msgid_text(&a, one);
    msgid_text(&b, nine);
    for (; *pattern; pattern++)
        at += *pattern == '@' || *pattern == '%'
                  ? (size_t)snprintf(dst + at, LINE - at, "%s", *pattern == '@' ? one : nine)
                  : (size_t)snprintf(dst + at, LINE - at, "%c", *pattern);
}

static void expect(const struct damage *d, const struct found *f)
{
    size_t n = 0;

    for (; n < ARRAY_LEN(d->problems) && d->problems[n]; n++) {
        char text[LINE] = "";
        bool there = false;
        expand(d->problems[n], text);
        for (size_t i = 0; i < MIN(f->n, (size_t)LINES); i++)
            there |= strstr(f->line[i], text) != NULL;
        if (!there)
            fprintf(stderr, "damage %td: not told: %s\n", d - damages, text);
        assert_true(there);
    }
    if (f->n != n)
        for (size_t i = 0; i < MIN(f->n, (size_t)LINES); i++)
            fprintf(stderr, "damage %td: told: %s\n", d - damages, f->line[i]);
    assert_int_equal(f->n, n);
}

static char *new_spool(void)
{
    char *path = spool_folder();
    struct spool *s = open_spool(&(struct spool_options){ .path = path });
    struct worker w;

    worker_init(&w, 0, s);
    put_all(&w);
    spool_close(s);
    worker_done(&w);
    return path;
}

static void damage(const char *path, void (*make)(void))
{
    raw_begin(path);
    make();
    if (make != totals_off && make != totals_short)
        raw_count();
    raw_commit();
}

static void each_damage_is_named(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
        char *path = new_spool(), why[256] = "";
        struct spool_repaired done;
        struct found f;
        check(path, 0, &f);
        assert_int_equal(f.n, 0);
        damage(path, damages[i].make);
        check(path, 0, &f);
        expect(&damages[i], &f);
        check(path, 1, &f); /* each row in a transaction of its own */
        expect(&damages[i], &f);
        assert_int_equal(spool_repair(path, &done, why, sizeof(why)), 0);
        check(path, 0, &f);
        if (f.n && !damages[i].lasting)
            fprintf(stderr, "damage %zu after the repair: %s\n", i, f.line[0]);
        assert_int_equal(f.n > 0, damages[i].lasting);
        spool_folder_remove(path);
    }
}

static void a_repair_changes_nothing_that_is_right(void **state)
{
    char *path = new_spool(), why[256] = "";
    struct spool_repaired done;
    struct spool_queue q, h;
    struct worker w;
    struct found f;

    assert_int_equal(spool_repair(path, &done, why, sizeof(why)), 0);
    assert_int_equal(done.due, 2);
    assert_int_equal(done.kv, 2);
    assert_int_equal(done.messages + done.recipients + done.unreadable, 0);
    assert_int_equal(done.staging, 1); /* of a message that can never come */
    assert_int_equal(done.pieces, 1);
    check(path, 0, &f);
    assert_int_equal(f.n, 0);

    struct spool *s = open_spool(&(struct spool_options){ .path = path });
    assert_int_equal(spool_repair(path, &done, why, sizeof(why)), -EBUSY);
    worker_init(&w, 0, s);
    assert_true(body_matches(w.port, id_of(1), BODY, 1));
    assert_int_equal(w.port->read_queue(w.port, STR("w"), &q), 0);
    assert_int_equal(q.waiting, 1);
    assert_int_equal(q.waiting_octets, BODY);
    assert_int_equal(w.port->read_queue(w.port, STR("h"), &h), 0);
    assert_int_equal(h.record_n, 1);
    assert_int_equal(spool_sum_queues(s, &q), 0);
    assert_int_equal(q.scheduled, 1);
    assert_int_equal(q.waiting, 1);
    assert_int_equal(delete_simple(&w, id_of(1), 0), 0);
    assert_int_equal(delete_simple(&w, id_of(1), 1), 0);
    spool_close(s);
    worker_done(&w);
    check(path, 0, &f);
    assert_int_equal(f.n, 0);
    spool_folder_remove(path);
}

static void flagged_without_octets(void)
{
    char row[SPOOL_QUEUE_HEAD + 8 + 1] = { (char)0x80 };

    row[sizeof(row) - 1] = 'H';
    raw_put("due", STR("q"), str_make(row, sizeof(row)));
}

/* The row of a queue is made anew whatever it is; that it is held stays, or its loss is told. */
static void a_repair_keeps_holds(void **state)
{
    static const struct {
        void (*make)(void);
        uint64_t lost, unreadable;
        size_t record_n;
    } tests[] = {
        { flagged_without_octets, 0, 0, 1 },
        { short_queue, 1, 0, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
        char *path = new_spool(), why[256] = "";
        struct spool_repaired done;
        struct spool_queue q;
        struct worker w;
        damage(path, tests[i].make);
        assert_int_equal(spool_repair(path, &done, why, sizeof(why)), 0);
        assert_int_equal(done.queues, tests[i].lost);
        assert_int_equal(done.unreadable, tests[i].unreadable);
        struct spool *s = open_spool(&(struct spool_options){ .path = path });
        worker_init(&w, 0, s);
        assert_int_equal(w.port->read_queue(w.port, STR("q"), &q), 0);
        assert_int_equal(q.scheduled, 1);
        assert_int_equal(q.record_n, tests[i].record_n);
        spool_close(s);
        worker_done(&w);
        spool_folder_remove(path);
    }
}

/* What root's repair makes in the folder is not root's alone: the router must be able to start. */
static void a_repair_by_root_leaves_the_folder_its_users(void **state)
{
    enum { USER = 54321 };
    static const char *const names[] = { "in-use", "lock.mdb", "data.mdb" };
    char *path = new_spool(), why[256] = "", file[300];
    struct spool_repaired done;
    struct stat sb;

    if (geteuid() != 0) {
        spool_folder_remove(path);
        print_message("only root can give files away\n");
        skip();
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(file, sizeof(file), "%s/%s", path, names[i]);
        assert_int_equal(i < 2 ? unlink(file) : chown(file, USER, USER), 0);
    }
    assert_int_equal(spool_repair(path, &done, why, sizeof(why)), 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(file, sizeof(file), "%s/%s", path, names[i]);
        assert_int_equal(stat(file, &sb), 0);
        assert_int_equal(sb.st_uid, USER);
        assert_int_equal(sb.st_gid, USER);
    }
    spool_folder_remove(path);
}

/* The root page of a table, which holds all its rows here, with zeros over it. LMDB keeps the page's number in
 * the last eight octets of the table's record. */
static void wipe(const char *path, const char *name)
{
    static const char zeros[4096];
    char file[300];
    MDB_env *env;
    MDB_dbi all;
    MDB_val k = { strlen(name), (void *)name }, v;
    MDB_stat st;
    uint64_t page;

    assert_int_equal(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 16);
    assert_int_equal(mdb_env_open(env, path, MDB_RDONLY, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &raw), 0);
    assert_int_equal(mdb_dbi_open(raw, NULL, 0, &all), 0);
    assert_int_equal(mdb_stat(raw, all, &st), 0);
    assert_int_equal(mdb_get(raw, all, &k, &v), 0);
    memcpy(&page, (char *)v.mv_data + v.mv_size - 8, 8);
    mdb_txn_abort(raw);
    mdb_env_close(env);
    snprintf(file, sizeof(file), "%s/data.mdb", path);
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    /* its number stays: LMDB looks at that first */
    assert_int_equal(pwrite(fd, zeros, 4000, (off_t)(page * st.ms_psize + 8)), 4000);
    close(fd);
}

/* Rows that cannot be read are not said to be missing: that a repair would mend, and it cannot. */
static void a_read_error_is_told_as_one(void **state)
{
    char *path = new_spool();
    struct found f;
    size_t errors = 0;

    wipe(path, "due");
    check(path, 0, &f);
    for (size_t i = 0; i < f.n; i++) {
        bool error = strstr(f.line[i], "cannot be read: MDB_CORRUPTED") != NULL;
        if (!error)
            fprintf(stderr, "told: %s\n", f.line[i]);
        assert_true(error);
        errors += strstr(f.line[i], "what belongs to it in due cannot be read") != NULL;
    }
    assert_int_equal(f.n, 3); /* two recipients, the table itself */
    assert_int_equal(errors, 2);
    spool_folder_remove(path);
}

/* ---- beside a writer --------------------------------------------------------------------------- */

static void cut_off_in_a_read(void *arg, const struct spool_problem *p)
{
    _exit(0);
}

/* A tool that died while it read must not make the file grow for ever. */
static void a_dead_reader_is_forgotten(void **state)
{
    char *path = new_spool(), why[256] = "";
    struct spool_stats st;
    struct worker w;
    int status;

    damage(path, count_off); /* what it is cut off by */
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct spool *tool;
        struct spool_check c = { .problem = cut_off_in_a_read };
        if (spool_open_readonly(path, &tool, why, sizeof(why)) == 0)
            spool_check(tool, &c);
        _exit(1);
    }
    struct spool *s = open_spool(&(struct spool_options){ .path = path });
    worker_init(&w, 0, s);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (uint64_t i = 100; i < 500; i++) {
        assert_int_equal(put_simple(&w, id_of(i), "q", 1, 20000), 0);
        assert_int_equal(delete_simple(&w, id_of(i), 0), 0);
    }
    assert_int_equal(spool_stats(s, &st), 0);
    assert_in_range(st.file_size, 100000,
                    4 << 20); /* 400 times 20000 and more, if it were pinned */
    spool_close(s);
    worker_done(&w);
    spool_folder_remove(path);
}

/* The check goes through the spool while another process writes it: nothing is called wrong. */
static void beside_a_writer(void **state)
{
    char *path = new_spool(), why[256] = "";
    int go[2], end[2];
    char c;

    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe(end), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct spool *s = open_spool(&(struct spool_options){ .path = path });
        struct worker w;
        close(end[1]);
        worker_init(&w, 0, s);
        uint64_t n = 100;
        struct pollfd ended = { .fd = end[0], .events = POLLIN };
        for (; poll(&ended, 1, 0) == 0; n++) {
            CHECK(put_simple(&w, id_of(n), n % 3 ? "q" : "r", (int64_t)n, 3000) == 0);
            CHECK(n < 200 || delete_simple(&w, id_of(n - 100), 0) == 0);
            if (n == 200)
                CHECK(write(go[1], "g", 1) == 1);
        }
        spool_close(s);
        _exit(0);
    }
    close(go[1]);
    close(end[0]);
    assert_int_equal(read(go[0], &c, 1), 1);
    for (int i = 0; i < 20; i++) {
        struct spool *s;
        assert_int_equal(spool_open_readonly(path, &s, why, sizeof(why)), 0);
        for (uint32_t slice = 1; slice <= 100; slice *= 10) {
            struct found f = { 0 };
            struct spool_check k = { .slice = slice, .problem = on_problem, .arg = &f };
            int64_t problems = spool_check(s, &k);
            if (problems)
                fprintf(stderr, "%s\n", f.line[0]);
            assert_int_equal(problems, 0);
        }
        spool_close(s);
    }
    int status;
    close(end[1]);
    close(go[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    spool_folder_remove(path);
}

/* ---- figures ----------------------------------------------------------------------------------- */

static void a_survey_counts_by_age_and_size(void **state)
{
    char *path = new_spool(), why[256] = "";
    struct spool_survey v;
    struct spool *s;

    assert_int_equal(spool_open_readonly(path, &s, why, sizeof(why)), 0);
    assert_int_equal(spool_survey_messages(s, 1700000000000 + 7200 * 1000, &v), 0);
    assert_int_equal(v.messages, 1);
    assert_int_equal(v.octets, BODY);
    assert_int_equal(v.by_age[2], 1); /* one to four hours */
    assert_int_equal(v.by_size[2], 1);
    assert_int_equal(v.oldest_ms, 1700000000000);
    assert_int_equal(v.unreadable, 0);
    spool_close(s);
    spool_folder_remove(path);
}

static uint64_t ticks(void)
{
    static atomic_uint_fast64_t now;

    return atomic_fetch_add(&now, 1000) + 1000; /* each look is a millisecond later */
}

static void latencies_are_counted(void **state)
{
    char *path = spool_folder();
    struct spool *s = open_spool(&(struct spool_options){ .path = path, .clock_us = ticks });
    struct spool_stats st;
    struct worker w;

    worker_init(&w, 0, s);
    for (uint64_t i = 1; i <= 100; i++)
        assert_int_equal(put_simple(&w, id_of(i), "q", 1, 100), 0);
    assert_int_equal(spool_stats(s, &st), 0);
    assert_int_equal(st.commit.n, 100);
    assert_int_equal(st.commit.sum_us, 100 * 1000); /* two looks, one after the other */
    assert_int_equal(st.unit.n, 100);
    assert_in_range(spool_latency_quantile(&st.commit, 500), 501, 1000);
    assert_in_range(spool_latency_quantile(&st.unit, 990), 2001, 5000);
    assert_true(st.free + st.used <= st.file_size && st.used > 20000);
    spool_close(s);
    worker_done(&w);
    spool_folder_remove(path);
}

static void quantiles(void **state)
{
    struct latency_counter c = { 0 };
    struct spool_latency l;

    latency_read(&c, &l);
    assert_int_equal(spool_latency_quantile(&l, 500), 0);
    for (int i = 0; i < 98; i++)
        latency_add(&c, 150);
    latency_add(&c, 0);
    latency_add(&c, UINT64_C(99000000));
    latency_read(&c, &l);
    assert_int_equal(l.n, 100);
    assert_in_range(spool_latency_quantile(&l, 500), 100, 200);
    assert_in_range(spool_latency_quantile(&l, 1), 1, 10);
    assert_int_equal(spool_latency_quantile(&l, 1000), 10000000); /* at least the longest class */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_damage_is_named),
        cmocka_unit_test(a_repair_changes_nothing_that_is_right),
        cmocka_unit_test(a_repair_keeps_holds),
        cmocka_unit_test(a_repair_by_root_leaves_the_folder_its_users),
        cmocka_unit_test(a_read_error_is_told_as_one),
        cmocka_unit_test(a_dead_reader_is_forgotten),
        cmocka_unit_test(beside_a_writer),
        cmocka_unit_test(a_survey_counts_by_age_and_size),
        cmocka_unit_test(latencies_are_counted),
        cmocka_unit_test(quantiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
