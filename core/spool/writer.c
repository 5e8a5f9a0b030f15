/* writer.c - the one thread that changes the spool: group commit.
 *
 * Layer: spool.
 *
 * The thread sleeps until something is submitted, takes all that waits, and commits it in groups of
 * bounded size. Units for which a client waits are begun with at once; those that are patient (what became of
 * recipients) go with the next of these, and by themselves only when they have waited a moment or are many: a
 * message in and out then costs one sync rather than two, and what is accepted does not wait for what is
 * deleted. Behind a group of many, clients have been answered and send again: the writer waits for as many, for a
 * fraction of a millisecond at most, so groups are large under load and nobody waits when there is none. A group is run from its start until it commits: again when the map had to grow, when a
 * unit failed after it had changed something (it is marked and left out), or when room ran out (units
 * that bring new mail are marked and left out). Each run but those for the map leaves out one unit at
 * least, so it ends. Units fail half-way only when two workers' views of one message crossed, which
 * is rare: so nothing is checked twice, and no nested transactions are needed.
 *
 * When the disk fails under a commit, the whole group is told the error. LMDB has taken nothing of it, unless only the
 * last write, that of the root page, is in doubt: then what a client was told failed may be there, and come twice.
 */
#include <signal.h>

#include "spool/internal.h"

/* Pieces dropped in one group: a piece is some 17 pages to give back. */
enum { GROUP_DROPS = 8192 };

enum {
    PATIENCE_US = 1000,
    PATIENT_ENOUGH = 16, /* patient units that are a group of their own */
    GATHER_US = 400,
    GATHER_FROM = 8, /* urgent units in one group: that is load */
    ROOM_KNOWN_US = 100000,
    ROOM_PLENTY = 16, /* times what must stay free */
};

static void add(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- submitting ------------------------------------------------------------------------------- */

/* Under the lock. Returns whether a sleeping writer must hear of it: also of the first patient one, whose
 * time begins to run. */
static bool add_submitted(struct spool *s, struct spool_op *op)
{
    bool patient = op->patient && s->clock_us;

    list_push(&s->submitted, &op->link);
    if (!patient) {
        s->n_urgent++;
        return !s->gather_until_us || s->n_urgent >= s->company;
    }
    if (s->n_patient++ == 0)
        s->patient_since_us = op->submitted_us;
    return s->n_patient == 1 || s->n_patient == PATIENT_ENOUGH;
}

void writer_submit(struct port_spool *self, struct spool_op *op)
{
    struct spool_port *p = CONTAINER_OF(self, struct spool_port, ops);
    struct spool *s = p->spool;

    op->worker = p->number;
    op->result = OP_OPEN;
    op->submitted_us = s->clock_us ? s->clock_us() : 0;
    pthread_mutex_lock(&s->queue_lock);
    bool refused = s->closing || !s->running;
    bool wake = !refused && add_submitted(s, op) && s->sleeping;
    s->sleeping = s->sleeping && !wake;
    pthread_mutex_unlock(&s->queue_lock);

    if (wake)
        pthread_cond_signal(&s->work);
    if (refused) {
        struct list done;
        op->result = s->store.readonly ? -EROFS : -ESHUTDOWN;
        list_init(&done);
        list_push(&done, &op->link);
        port_tell(p, &done);
    }
}

/* Under the lock: until something is to be done at once. */
static void sleep_until_due(struct spool *s)
{
    /* While others are gathered, patient ones wait with them: their own time may be over already. */
    uint64_t until = s->gather_until_us ? s->gather_until_us
                     : s->n_patient     ? s->patient_since_us + PATIENCE_US
                                        : UINT64_MAX;
    struct timespec t = { .tv_sec = (time_t)(until / 1000000),
                          .tv_nsec = (long)(until % 1000000 * 1000) };

    s->sleeping = true;
    if (until != UINT64_MAX)
        pthread_cond_clockwait(&s->work, &s->queue_lock, CLOCK_MONOTONIC, &t);
    else
        pthread_cond_wait(&s->work, &s->queue_lock);
    s->sleeping = false;
}

/* The end of a group that had company. */
static void begin_gathering(struct spool *s)
{
    bool many = s->company >= GATHER_FROM && s->clock_us;

    s->gather_until_us = many ? s->clock_us() + GATHER_US : 0;
}

static bool is_gathering(struct spool *s)
{
    if (s->gather_until_us && (s->n_urgent >= s->company || s->clock_us() >= s->gather_until_us))
        s->gather_until_us = 0;
    return s->gather_until_us != 0;
}

static bool is_due(struct spool *s)
{
    if (s->closing || !list_empty(&s->backlog))
        return true;
    if (is_gathering(s))
        return false;
    return s->n_urgent || s->n_patient >= PATIENT_ENOUGH ||
           (s->n_patient && s->clock_us() >= s->patient_since_us + PATIENCE_US);
}

/* Under the lock, which it gives away meanwhile: with nothing to do the file is made ready for what comes next. */
static void be_idle(struct spool *s)
{
    bool more = true;

    while (more && !is_due(s) && !s->n_patient && !s->gather_until_us) {
        pthread_mutex_unlock(&s->queue_lock);
        more = store_write_ahead(&s->store);
        pthread_mutex_lock(&s->queue_lock);
    }
}

/* Waits for work and adds it to the backlog. False: there is none and never will be. */
static bool take_work(struct spool *s)
{
    pthread_mutex_lock(&s->queue_lock);
    begin_gathering(s);
    while (!is_due(s)) {
        be_idle(s);
        if (!is_due(s))
            sleep_until_due(s);
    }
    list_join(&s->backlog, &s->submitted);
    s->company = s->n_urgent;
    s->n_urgent = s->n_patient = 0;
    pthread_mutex_unlock(&s->queue_lock);
    return !list_empty(&s->backlog);
}

/* ---- one group -------------------------------------------------------------------------------- */

/* Marks units that bring new mail; returns whether there were any. */
static bool refuse_mail(struct spool *s, size_t n)
{
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        struct spool_op *op = s->group[i];
        if (op->result == OP_OPEN && apply_brings_mail(op)) {
            op->result = -ENOSPC;
            any = true;
        }
    }
    return any;
}

static bool any_open(const struct spool *s, size_t n, bool mail_only)
{
    for (size_t i = 0; i < n; i++)
        if (s->group[i]->result == OP_OPEN && (!mail_only || apply_brings_mail(s->group[i])))
            return true;
    return false;
}

/* What is free on the disk: of a moment ago, when it was plenty then. It is asked for each group near the limit. */
static uint64_t room_on_disk(struct spool *s)
{
    uint64_t now = s->clock_us ? s->clock_us() : 0;

    if (now && now < s->room_known_us + ROOM_KNOWN_US && s->room / ROOM_PLENTY >= s->min_free)
        return s->room;
    s->room = store_room(&s->store);
    s->room_known_us = now;
    atomic_store_explicit(&s->counters.free_space, s->room, memory_order_relaxed);
    return s->room;
}

/* The disk must keep what deletions and updates need; so must the map, once it has eaten into its
 * reserve: then only what deletions gave back beyond the reserve is for new mail. */
static bool room_for_mail(struct spool *s)
{
    const struct store *st = &s->store;
    uint64_t used;

    if (room_on_disk(s) < s->min_free)
        return false;
    if (st->map_size <= st->map_max)
        return true;
    if (reader_begin(&s->reader) < 0)
        return true; /* the write will tell */
    int rc = reader_used(&s->reader, &used);
    reader_end(&s->reader);
    return rc || used + MIN(store_reserve(st), st->map_max / 2) <= st->map_max;
}

static bool is_new_mail(const struct spool_op *op)
{
    return op->result == OP_OPEN && op->n_changes && op->changes[0].type == SPOOL_PUT_MESSAGE &&
           op->changes[0].message.body;
}

static int by_id(const void *a, const void *b)
{
    const struct spool_op *x = *(struct spool_op *const *)a, *y = *(struct spool_op *const *)b;

    return msgid_cmp(&x->changes[0].id, &y->changes[0].id);
}

/* New messages take one another's places so that they are written in the order of their ids, which is that of their
 * keys: what is appended fills its pages, and fewer are written when it goes. Nothing else of a group depends on them. */
static void order_new_mail(struct spool *s, size_t n)
{
    struct spool_op *mail[SPOOL_MAX_GROUP];
    size_t n_mail = 0, next = 0;

    for (size_t i = 0; i < n; i++)
        if (is_new_mail(s->group[i]))
            mail[n_mail++] = s->group[i];
    qsort(mail, n_mail, sizeof(mail[0]), by_id);
    for (size_t i = 0; i < n && next < n_mail; i++)
        if (is_new_mail(s->group[i]))
            s->group[i] = mail[next++];
}

static size_t choose_group(struct spool *s)
{
    size_t n = 0;
    bool mail = false;

    LIST_FOREACH(it, &s->backlog)
    {
        if (n == s->group_ops)
            break;
        struct spool_op *op = LIST_ENTRY(it, struct spool_op, link);
        int r = apply_validate(op);
        op->result = r ? r : OP_OPEN;
        mail = mail || apply_brings_mail(op);
        s->group[n++] = op;
    }
    if (mail && !room_for_mail(s))
        refuse_mail(s, n);
    order_new_mail(s, n);
    return n;
}

static int commit_group(struct spool *s)
{
    uint64_t began = s->clock_us ? s->clock_us() : 0;
    int rc = apply_commit(&s->apply);

    if (s->clock_us)
        latency_add(&s->counters.commit, s->clock_us() - began);
    return rc;
}

/* One run of the first *n units, as one transaction. 0: committed; *n may have become smaller.
 * Else nothing was, and the result is as apply_op's; *ret_unit is the unit that failed. */
static int run_group(struct spool *s, size_t *n, struct spool_op **ret_unit)
{
    struct apply *a = &s->apply;
    MDB_txn *txn;
    int rc = store_write(&s->store, &txn);

    if (rc)
        return rc;
    apply_begin(a, txn);
    for (size_t i = 0; i < *n; i++) {
        struct spool_op *op = s->group[i];
        if (op->result != OP_OPEN)
            continue;
        rc = apply_op(a, op);
        if (apply_failed_unit(rc) && !a->changed) {
            op->result = rc;
        } else if (rc) {
            *ret_unit = op;
            apply_abort(a);
            return rc;
        }
        if (a->bytes >= s->group_bytes || a->drops >= GROUP_DROPS)
            *n = i + 1;
    }
    return commit_group(s);
}

/* The disk, or the map: decides whether the group can be run again. */
static bool make_room(struct spool *s, size_t n, int rc)
{
    bool mail = any_open(s, n, true);

    if (rc == MDB_MAP_FULL && store_grow(&s->store, !mail))
        return true;
    return mail && refuse_mail(s, n);
}

static void fail_group(struct spool *s, size_t n, int error)
{
    for (size_t i = 0; i < n; i++)
        if (s->group[i]->result == OP_OPEN)
            s->group[i]->result = error;
}

/* After an error of the disk: at once, for the readers, and so that the error of one commit is not told to the next. */
static void recover(struct spool *s, int error)
{
    if (error == -EIO)
        store_reopen(&s->store);
}

/* Runs the group until nothing is open. Returns how many units at its front are settled. */
static size_t settle_group(struct spool *s, size_t n)
{
    while (any_open(s, n, false)) {
        struct spool_op *unit = NULL;
        size_t done = n;
        int rc = run_group(s, &done, &unit);
        if (rc == 0) {
            for (size_t i = 0; i < done; i++)
                if (s->group[i]->result == OP_OPEN)
                    s->group[i]->result = 0;
            add(&s->counters.commits, 1);
            add(&s->counters.bytes, s->apply.bytes);
            return done;
        }
        add(&s->counters.reruns, 1);
        if (apply_failed_unit(rc)) {
            CHECK(unit);
            unit->result = rc;
            continue;
        }
        /* A short write is told as EIO; whether the disk is full, the disk knows, and is asked anew. */
        s->room_known_us = 0;
        if (rc == EIO && room_on_disk(s) < s->min_free)
            rc = ENOSPC;
        if (store_error(rc) != -ENOSPC || !make_room(s, n, rc)) {
            add(&s->counters.disk_errors, 1);
            fail_group(s, n, store_error(rc));
            recover(s, store_error(rc));
        }
    }
    return n;
}

static void tell_group(struct spool *s, size_t n)
{
    uint64_t failed = 0, now = s->clock_us ? s->clock_us() : 0;

    for (size_t i = 0; i < n; i++) {
        struct spool_op *op = s->group[i];
        failed += op->result != 0;
        if (op->submitted_us)
            latency_add(&s->counters.unit, now - op->submitted_us);
        list_remove(&op->link);
        list_push(&s->port[op->worker]->finished, &op->link);
    }
    add(&s->counters.ops, n - failed);
    add(&s->counters.failed_ops, failed);
    if (n > atomic_load_explicit(&s->counters.max_group, memory_order_relaxed))
        atomic_store_explicit(&s->counters.max_group, n, memory_order_relaxed);

    pthread_mutex_lock(&s->queue_lock);
    int n_ports = s->n_ports;
    pthread_mutex_unlock(&s->queue_lock);
    for (int i = 0; i < n_ports; i++)
        if (!list_empty(&s->port[i]->finished))
            port_tell(s->port[i], &s->port[i]->finished);
}

/* Behind a commit, when those who waited for it have been told. */
static void keep_house(struct spool *s)
{
    store_keep_reserve(&s->store);
    if (++s->groups_n % SPOOL_READERS_EVERY == 0)
        store_forget_readers(&s->store);
}

static void *writer_main(void *arg)
{
    struct spool *s = arg;

    /* By itself: another's name is a file in /proc, which the daemon's sandbox does not write. */
    pthread_setname_np(pthread_self(), "spool-writer");
    while (take_work(s)) {
        size_t n = choose_group(s);
        tell_group(s, settle_group(s, n));
        keep_house(s);
    }
    return NULL;
}

/* ---- starting and stopping -------------------------------------------------------------------- */

int writer_start(struct spool *s)
{
    sigset_t all, before;

    /* Signals are for the main thread; but SIGSYS, by which a system call is refused, ends the process where it
     * is blocked. */
    sigfillset(&all);
    sigdelset(&all, SIGSYS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    s->running = true;
    int r = pthread_create(&s->thread, NULL, writer_main, s);
    if (r != 0)
        s->running = false;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

void writer_stop(struct spool *s)
{
    pthread_mutex_lock(&s->queue_lock);
    bool join = s->running && !s->closing;
    s->closing = true;
    s->sleeping = false;
    pthread_mutex_unlock(&s->queue_lock);
    if (!join)
        return;
    pthread_cond_signal(&s->work);
    pthread_join(s->thread, NULL);
}
