/* cmd_spool_check.c - tern spool check and repair. Layer: daemon. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/cmd_spool.h"

enum { SHOWN = 10000 }; /* problems that are listed; the others are counted */

struct checking {
    bool json, terminal, repairing;
    uint64_t n;        /* problems */
    uint64_t mendable; /* of these: spool_repair mends them */
    json_t *list;
};

/* ---- what is wrong ---------------------------------------------------------------------------- */

static bool mendable(enum spool_remedy r)
{
    return r == SPOOL_MEND_INDEX || r == SPOOL_MEND_RUBBISH;
}

static const char *remedy_text(enum spool_remedy r)
{
    switch (r) {
    case SPOOL_NO_REMEDY: return "nothing needs to be done";
    case SPOOL_MEND_INDEX:
    case SPOOL_MEND_RUBBISH: return "stop the router and run 'tern spool repair'";
    case SPOOL_LOSES_MESSAGE:
        return "a part of the message is lost: 'tern queue bounce ID' or 'tern queue remove ID'";
    case SPOOL_LOSES_RECORD:
        return "the router sets it aside; if no newer version wrote it: 'tern queue remove ID'";
    case SPOOL_LOSES_TABLE:
        return "pages of data.mdb are damaged: look at the disk, then put a copy in its place";
    }
    return "";
}

static void clear_progress(const struct checking *k)
{
    if (k->terminal)
        fputs("\r\033[K", stderr);
}

static void on_problem(void *arg, const struct spool_problem *p)
{
    struct checking *k = arg;

    k->mendable += mendable(p->remedy);
    if (++k->n > SHOWN)
        return;
    if (k->json) {
        json_array_append_new(k->list,
                              json_pack("{s:s, s:s, s:s, s:s, s:b}", "kind", p->kind, "key", p->key,
                                        "problem", p->text, "remedy", remedy_text(p->remedy),
                                        "repairable", (int)mendable(p->remedy)));
        return;
    }
    clear_progress(k);
    printf("%s %s: %s; %s\n", p->kind, p->key, p->text, remedy_text(p->remedy));
}

static void on_progress(void *arg, const char *table, uint64_t done, uint64_t total)
{
    const struct checking *k = arg;

    if (k->terminal && total)
        fprintf(stderr, "\r\033[K%s %" PRIu64 " of %" PRIu64 " (%" PRIu64 " %%)", table, done,
                total, done * 100 / total);
}

/* ---- pages that are none ---------------------------------------------------------------------- */

static char damaged[1024];
static size_t damaged_n;

/* LMDB believes what stands in a page: one that is damaged can send it anywhere. */
static void on_crash(int number)
{
    (void)number;
    if (write(STDERR_FILENO, damaged, damaged_n) < 0)
        _exit(EX_SOFTWARE);
    _exit(EX_DATAERR);
}

static void expect_damage(const char *path)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE };

    int n =
        snprintf(damaged, sizeof(damaged),
                 "\ntern: %s/data.mdb is damaged: reading it led to a place that does not exist. "
                 "It was cut off, or pages were overwritten. Look at the disk, then put a copy of "
                 "the folder in its place\n",
                 path);
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was found by then is told all the same */
    damaged_n = MIN((size_t)n, sizeof(damaged) - 1);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        signal(signals[i], on_crash);
}

/* ---- check ------------------------------------------------------------------------------------ */

static json_t *rows_json(const struct spool_check *c)
{
    json_t *o = json_object();

    for (size_t i = 0; i < SPOOL_ROWS; i++)
        json_object_set_new(o, spool_row_name(i), json_integer((json_int_t)c->rows[i]));
    return o;
}

static void print_result(const struct checking *k, const struct spool_check *c, const char *path,
                         int64_t problems)
{
    if (k->json) {
        json_t *o = json_pack("{s:b, s:s, s:I, s:o, s:I, s:I, s:O}", "ok", problems == 0, "spool",
                              path, "format", (json_int_t)SPOOL_FORMAT, "rows", rows_json(c),
                              "problem_count", (json_int_t)problems, "repairable",
                              (json_int_t)k->mendable, "problems", k->list);
        client_print_json(o);
        json_decref(o);
        return;
    }
    clear_progress(k);
    if (k->n > SHOWN)
        printf("... and %" PRIu64 " more\n", k->n - SHOWN);
    uint64_t rows = 0;
    for (size_t i = 0; i < SPOOL_ROWS; i++)
        rows += c->rows[i];
    printf("%s: %s: ", problems ? "PROBLEMS" : "ok", path);
    for (size_t i = 0; i < SPOOL_ROWS; i++)
        if (c->rows[i])
            printf("%s %" PRIu64 ", ", spool_row_name(i), c->rows[i]);
    printf("%" PRIu64 " rows; %" PRId64 " problem%s", rows, problems, problems == 1 ? "" : "s");
    if (problems)
        printf(", of which 'tern spool repair' mends %" PRIu64, k->mendable);
    putchar('\n');
}

/* The exit code. *ret_mendable: problems that a repair mends. */
static int check_folder(const struct spool_command_line *l, const char *path,
                        uint64_t *ret_mendable)
{
    struct checking k = { .json = l->client.json,
                          .terminal = isatty(STDERR_FILENO) && !l->client.json,
                          .list = json_array() };
    struct spool_check c = {
        .records = true, .problem = on_problem, .progress = on_progress, .arg = &k
    };
    struct failure f = { 0 };
    struct spool *s;

    expect_damage(path);
    int e = spool_open_for_tool(path, &s, &f);
    int64_t problems = e < 0 ? 0 : spool_check(s, &c);
    if (e == 0)
        spool_close(s);
    if (e == 0 && problems < 0)
        e = failure_set(&f, exit_code_of((int)problems), "cannot read the spool %s: %s", path,
                        strerror((int)-problems));
    if (e == 0)
        print_result(&k, &c, path, problems);
    json_decref(k.list);
    *ret_mendable = k.mendable;
    return e < 0 ? failure_print(&f) : problems ? EX_DATAERR : EX_OK;
}

int spool_command_check(const struct spool_command_line *l)
{
    struct failure f = { 0 };
    uint64_t ignored;
    char *path;

    if (spool_folder_of(l, &path, &f) < 0)
        return failure_print(&f);
    int code = check_folder(l, path, &ignored);
    free(path);
    return code;
}

/* ---- repair ----------------------------------------------------------------------------------- */

static int repair_folder(const char *path)
{
    struct spool_repaired done;
    struct failure f = { 0 };
    char why[512] = "out of memory";
    int e = spool_repair(path, &done, why, sizeof(why));

    if (e < 0) {
        spool_open_failed(e, why, &f);
        return failure_print(&f);
    }
    printf("repaired: %s: %" PRIu64 " entries of due and %" PRIu64
           " of kv_end made anew; dropped: %" PRIu64 " messages without recipients, %" PRIu64
           " recipients without a message, %" PRIu64 " pieces of nothing, %" PRIu64
           " rows of staging\n",
           path, done.due, done.kv, done.messages, done.recipients, done.pieces, done.staging);
    if (done.unreadable)
        printf("%" PRIu64 " rows cannot be read and were left as they are\n", done.unreadable);
    if (done.queues)
        printf("%" PRIu64 " rows of queues could not be read and were made anew: they are not held "
               "now; after the start look at 'tern queue', and hold again what was held\n",
               done.queues);
    return EX_OK;
}

int spool_command_repair(const struct spool_command_line *l)
{
    struct spool_command_line text = *l;
    struct failure f = { 0 };
    uint64_t n;
    char *path;

    text.client.json = false;
    if (spool_folder_of(l, &path, &f) < 0)
        return failure_print(&f);
    int code = check_folder(&text, path, &n);
    if (code == EX_DATAERR && n && !l->yes) {
        printf(
            "Nothing was changed. Stop the router, make a copy of %s, then run this with --yes.\n",
            path);
    } else if (code == EX_DATAERR && n) {
        code = repair_folder(path);
        if (code == EX_OK)
            code = check_folder(&text, path, &n);
    }
    free(path);
    return code;
}
