/* spool.c - opening and closing a spool, and what it tells of itself. Layer: spool. Interface: spool.h. */
#include <stdio.h>

#include "spool/internal.h"
#include "spool/upgrade.h"

enum { SWEEP_DROPS = 4096 };
static const uint64_t DEFAULT_GROUP_BYTES = UINT64_C(16) << 20;
static const uint64_t DEFAULT_MIN_FREE = UINT64_C(64) << 20;

/* Rows of formats 1 and 2. */
static int upgrade(struct spool *s, const struct spool_options *o, char *ret_why, size_t why_size)
{
    uint64_t map_max = s->store.map_max;

    /* The limit is for new mail: what is there already must get through. */
    s->store.map_max = UINT64_MAX;
    int r = upgrade_run(&s->apply, o->waiting, o->waiting_arg);
    s->store.map_max = map_max;
    if (r < 0 && why_size)
        snprintf(ret_why, why_size,
                 "the spool %s is of an older version, and could not be made one of format %d: %s. "
                 "Nothing is lost; the next start goes on with it",
                 s->store.path, SPOOL_FORMAT, strerror(-r));
    return r;
}

int spool_make(const struct spool_options *o, bool readonly, struct spool **ret, char *ret_why,
               size_t why_size)
{
    struct spool *s = calloc(1, sizeof(*s));
    int r = s ? store_open(&s->store, o, readonly, ret_why, why_size) : -ENOMEM;

    if (r == 0 && !readonly)
        store_keep_reserve(&s->store);
    if (!s && why_size)
        snprintf(ret_why, why_size, "out of memory");
    if (r < 0) {
        free(s);
        return r;
    }
    s->min_free = o->min_free ? o->min_free : DEFAULT_MIN_FREE;
    s->group_bytes = o->group_bytes ? o->group_bytes : DEFAULT_GROUP_BYTES;
    s->group_ops = o->group_ops && o->group_ops < SPOOL_MAX_GROUP ? o->group_ops : SPOOL_MAX_GROUP;
    s->clock_us = o->clock_us;
    pthread_mutex_init(&s->queue_lock, NULL);
    pthread_cond_init(&s->work, NULL);
    list_init(&s->submitted);
    list_init(&s->backlog);
    apply_init(&s->apply, &s->store);
    reader_init(&s->reader, &s->store);
    r = readonly ? 0 : upgrade(s, o, ret_why, why_size);
    if (r < 0)
        s = spool_close(s);
    *ret = s;
    return r;
}

static int sweep_some(struct apply *a, void *arg, bool *ret_more)
{
    (void)arg;
    return apply_sweep(a, SWEEP_DROPS, ret_more);
}

/* Pieces whose message never came. A disk without room keeps them until the next start: that must
 * not keep the daemon from delivering, which is what makes room. */
static int sweep(struct spool *s)
{
    int r = store_error(apply_steps(&s->apply, sweep_some, NULL));

    return r == -ENOSPC ? 0 : r;
}

int spool_open(const struct spool_options *o, struct spool **ret, char *ret_why, size_t why_size)
{
    struct spool *s;
    int r = spool_make(o, false, &s, ret_why, why_size);

    if (r < 0)
        return r;
    r = sweep(s);
    if (r == 0)
        r = writer_start(s);
    if (r < 0) {
        if (why_size)
            snprintf(ret_why, why_size, "cannot start on the spool %s: %s", o->path, strerror(-r));
        spool_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

int spool_open_readonly(const char *path, struct spool **ret, char *ret_why, size_t why_size)
{
    return spool_make(&(struct spool_options){ .path = path }, true, ret, ret_why, why_size);
}

void spool_stop(struct spool *s)
{
    writer_stop(s);
}

struct spool *spool_close(struct spool *s)
{
    if (!s)
        return NULL;
    writer_stop(s);
    for (int i = 0; i < s->n_ports; i++)
        port_free(s->port[i]);
    reader_done(&s->reader);
    apply_done(&s->apply);
    store_close(&s->store);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->queue_lock);
    free(s);
    return NULL;
}

/* ---- figures ---------------------------------------------------------------------------------- */

static uint64_t read_counter(atomic_uint_fast64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

static int table_stats(struct spool *s, struct reader *r, struct spool_stats *ret)
{
    uint64_t *entries[STORE_TABLES] = {
        [TABLE_STAGING] = &ret->staging,
        [TABLE_KV] = &ret->remembered,
    };
    uint64_t overhead = 0, totals[SPOOL_TOTALS];
    MDB_envinfo info;
    int rc = mdb_env_info(s->store.env, &info);

    if (rc == 0)
        rc = reader_totals(r, totals);
    if (rc == MDB_CORRUPTED) /* spool_check tells of it; the other figures are right */
        rc = 0;
    if (rc == 0)
        rc = reader_used(r, &ret->used);
    if (rc == 0)
        rc = reader_overhead(r, &overhead);
    for (int i = 0; i < STORE_TABLES && rc == 0; i++) {
        MDB_stat st;
        if (!store_has(&s->store, (enum store_table)i))
            continue;
        rc = mdb_stat(r->txn, s->store.table[i], &st);
        if (rc)
            break;
        if (entries[i])
            *entries[i] = st.ms_entries;
        ret->table[i].rows = st.ms_entries;
        ret->table[i].bytes =
            (st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages) * (uint64_t)st.ms_psize;
        ret->file_size = (info.me_last_pgno + 1) * (uint64_t)st.ms_psize;
    }
    if (rc)
        return store_error(rc);
    ret->messages = totals[SPOOL_ROW_MESSAGE];
    ret->chunks = totals[SPOOL_ROW_PIECE];
    ret->recipients = totals[SPOOL_ROW_RECIPIENT];
    ret->queues = totals[SPOOL_ROW_QUEUE];
    ret->map_size = info.me_mapsize;
    /* The end of the file is of the last commit, the pages are of this read: a commit may lie between. */
    overhead += ret->used;
    ret->free = ret->file_size > overhead ? ret->file_size - overhead : 0;
    ret->disk_free = store_room(&s->store);
    return 0;
}

int spool_stats(struct spool *s, struct spool_stats *ret)
{
    struct spool_stats st = { 0 };
    struct reader reader;

    reader_init(&reader, &s->store);
    int r = reader_begin(&reader);
    if (r == 0) {
        r = table_stats(s, &reader, &st);
        reader_end(&reader);
    }
    reader_done(&reader);
    if (r < 0)
        return r;
    st.commits = read_counter(&s->counters.commits);
    st.syncs = 2 * st.commits;
    st.ops = read_counter(&s->counters.ops);
    st.failed_ops = read_counter(&s->counters.failed_ops);
    st.bytes = read_counter(&s->counters.bytes);
    st.max_group = read_counter(&s->counters.max_group);
    st.reruns = read_counter(&s->counters.reruns);
    st.reopened = read_counter(&s->store.reopened);
    st.disk_errors = read_counter(&s->counters.disk_errors);
    st.free_space = read_counter(&s->counters.free_space);
    latency_read(&s->counters.commit, &st.commit);
    latency_read(&s->counters.unit, &st.unit);
    *ret = st;
    return 0;
}
