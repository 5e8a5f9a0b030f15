/* passwords.c - looking users up and checking passwords, in threads of their own.
 *
 * Layer: daemon. Interface: passwords.h. A question is a heap block: made by the worker, queued,
 * worked on by a thread, posted back to the worker, which tells its owner and frees it. Only the
 * worker looks at `done`, so that cancelling needs no lock. What was cancelled before a thread has
 * begun it costs nothing: clients that ask and hang up must not keep others from logging in.
 */
#include "daemon/passwords.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>

#include "crypto/password_file.h"
#include "lua/files.h"

enum { MAX_FILE = 64 * 1024 * 1024, LOOK_EVERY_S = 1, ERROR_TEXT = 512 };

/* By what a file that was changed is known. */
struct stamp {
    bool taken; /* else of no file; one that is not there has a stamp, too: all else is 0 */
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec modified, changed;
};

struct password_list {
    atomic_uint refs;
    struct password_file *file;
    struct stamp stamp;
    char path[];
};

struct password_ask {
    struct worker_message message;
    struct list link;
    struct passwords_port *port;
    password_done *done; /* NULL: cancelled */
    void *owner;
    atomic_bool unwanted; /* cancelled: the thread need not begin */
    struct password_question q;
    struct password_answer answer;
    struct password_entry entry;
    struct password_list *list; /* what entry points into */
    size_t text_n;
    char text[]; /* user, password, entry */
};

struct passwords {
    pthread_mutex_t lock; /* of all but mechanisms */
    pthread_cond_t work;
    struct list queue;
    size_t waiting;
    pthread_t threads[PASSWORDS_THREADS];
    int n_threads;
    bool stopping;
    struct password_list *list;
    time_t looked;        /* at the file, monotonic */
    struct stamp refused; /* of a file that was wrong: told once */
    _Atomic(uint32_t) mechanisms;

    struct port_workers *main;
    struct journal *journal;
    const uint8_t *salt_key;
    struct worker_message notice;
    bool notice_posted;
    char notice_text[ERROR_TEXT]; /* empty: all is well */
};

/* ---- lists ------------------------------------------------------------------------------------ */

struct password_list *password_list_unref(struct password_list *l)
{
    if (l && atomic_fetch_sub(&l->refs, 1) == 1) {
        password_file_free(l->file);
        free(l);
    }
    return NULL;
}

static struct password_list *list_ref(struct password_list *l)
{
    if (l)
        atomic_fetch_add(&l->refs, 1);
    return l;
}

size_t password_list_count(const struct password_list *l)
{
    return password_file_count(l->file);
}

static bool stamp_of(const char *path, struct stamp *ret)
{
    struct stat st;

    *ret = (struct stamp){ .taken = true };
    if (stat(path, &st) < 0)
        return false;
    ret->dev = st.st_dev;
    ret->ino = st.st_ino;
    ret->size = st.st_size;
    ret->modified = st.st_mtim;
    ret->changed = st.st_ctim;
    return true;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_stamp(const struct stamp *a, const struct stamp *b)
{
    return a->taken == b->taken && a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           same_time(&a->modified, &b->modified) && same_time(&a->changed, &b->changed);
}

static int cannot_read(const char *path, int r, struct failure *f)
{
    if (r == -EPERM)
        return failure_set(f, EX_NOPERM,
                           "%s: the password file can be read by others: chmod 600 and give it to "
                           "the user that the router runs as, or to root",
                           path);
    if (r == -EFBIG)
        return failure_set(f, EX_CONFIG, "%s: the password file is larger than 64 MiB", path);
    if (r == -ENOMEM)
        return failure_set(f, EX_SOFTWARE, "cannot read the password file %s: out of memory", path);
    return failure_set(f, r == -ENOENT ? EX_NOINPUT : EX_CONFIG,
                       "cannot read the password file %s: %s", path, strerror(-r));
}

int password_list_load(const char *path, struct password_list **ret, struct failure *f)
{
    struct password_list *l = calloc(1, sizeof(*l) + strlen(path) + 1);
    char why[PASSWORD_FILE_ERROR] = "";
    unsigned line = 0;
    struct buf text;
    int r;

    if (!l)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    atomic_init(&l->refs, 1);
    memcpy(l->path, path, strlen(path) + 1);
    stamp_of(path, &l->stamp); /* first: what changes from here on is seen later */
    buf_init(&text, MAX_FILE);
    r = policy_files_disk.read(&policy_files_disk, path, true, &text);
    if (r < 0) {
        cannot_read(path, r, f);
    } else {
        r = password_file_parse(buf_str(&text), &l->file, &line, why);
        if (r == -EINVAL)
            failure_set(f, EX_CONFIG, "%s:%u: %s", path, line, why);
        else if (r < 0)
            failure_set(f, EX_SOFTWARE, "out of memory");
    }
    secret_wipe(text.data, text.cap);
    buf_done(&text);
    if (r < 0) {
        password_list_unref(l);
        return -1;
    }
    *ret = l;
    return 0;
}

/* ---- the list in force ------------------------------------------------------------------------ */

static uint32_t allowed_by(const struct password_list *l)
{
    uint32_t all = SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_LOGIN);

    if (!l)
        return 0;
    if (password_file_all_scram(l->file))
        all |= SASL_BIT(SASL_SCRAM_SHA_256);
    if (password_file_all_plain(l->file))
        all |= SASL_BIT(SASL_CRAM_MD5);
    return all;
}

void passwords_set(struct passwords *p, struct password_list *l)
{
    pthread_mutex_lock(&p->lock);
    struct password_list *before = p->list;
    p->list = list_ref(l);
    p->refused = (struct stamp){ 0 };
    atomic_store(&p->mechanisms, allowed_by(l));
    pthread_mutex_unlock(&p->lock);
    password_list_unref(before);
}

/* In the main thread. */
static void on_notice(struct engine *none, struct worker_message *m)
{
    struct passwords *p = CONTAINER_OF(m, struct passwords, notice);
    char text[ERROR_TEXT];
    size_t users;

    pthread_mutex_lock(&p->lock);
    p->notice_posted = false;
    str_copy(str_of(p->notice_text), text, sizeof(text));
    users = p->list ? password_list_count(p->list) : 0;
    pthread_mutex_unlock(&p->lock);
    if (text[0])
        journal_event(p->journal, EVENT(EVENT_ERROR, "passwords_wrong", F_STRZ("error", text)));
    else
        journal_event(p->journal,
                      EVENT(EVENT_INFO, "passwords_read", F_INT("users", (int64_t)users)));
}

/* With the lock held. */
static void notify_main(struct passwords *p, const char *text)
{
    str_copy(str_of(text), p->notice_text, sizeof(p->notice_text));
    if (!p->notice_posted)
        p->main->post(p->main, 0, &p->notice);
    p->notice_posted = true;
}

/* Reads `before` again when its file has changed. */
static void look_at_file(struct passwords *p, struct password_list *before)
{
    struct password_list *next = NULL;
    struct stamp now;
    struct failure f = { 0 };

    stamp_of(before->path, &now);
    pthread_mutex_lock(&p->lock);
    bool known = same_stamp(&now, &before->stamp) || same_stamp(&now, &p->refused);
    pthread_mutex_unlock(&p->lock);
    if (known)
        return;
    int r = password_list_load(before->path, &next, &f);
    pthread_mutex_lock(&p->lock);
    if (p->list != before) { /* a reload came first */
        pthread_mutex_unlock(&p->lock);
        password_list_unref(next);
        return;
    }
    if (r < 0) {
        if (f.exit_code != EX_SOFTWARE) /* without memory: it is read again at the next look */
            p->refused = now;
        notify_main(p, f.text);
    } else {
        p->list = next; /* `before` is still held by the caller */
        atomic_store(&p->mechanisms, allowed_by(next));
        notify_main(p, "");
    }
    pthread_mutex_unlock(&p->lock);
    if (r == 0)
        password_list_unref(before);
}

static time_t seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* The list in force, looked at when it is time; one reference. NULL: none. */
static struct password_list *take_list(struct passwords *p)
{
    pthread_mutex_lock(&p->lock);
    struct password_list *l = list_ref(p->list);
    bool look = l && seconds() - p->looked >= LOOK_EVERY_S;
    if (look)
        p->looked = seconds();
    pthread_mutex_unlock(&p->lock);
    if (!look)
        return l;
    look_at_file(p, l);
    password_list_unref(l);
    pthread_mutex_lock(&p->lock);
    l = list_ref(p->list);
    pthread_mutex_unlock(&p->lock);
    return l;
}

/* ---- the work --------------------------------------------------------------------------------- */

static int check_entry(const struct password_entry *e, struct str password, bool counts)
{
    bool fits = false;
    int r = password_check(e, password, &fits);

    return r < 0 ? r : fits && counts;
}

/* Against the entry that the question brought. */
static int check_given(const struct password_question *q)
{
    struct password_entry e;
    const char *why;

    if (password_parse(q->entry, &e, &why) < 0)
        return -EINVAL;
    return check_entry(&e, q->password, true);
}

static int check_user(struct password_ask *a)
{
    const struct password_file *file = a->list ? a->list->file : NULL;

    if (file && password_file_find(file, a->q.user, &a->entry))
        return check_entry(&a->entry, a->q.password, true);
    if (file && password_file_decoy(file, a->q.user, PASSWORD_WANT_ANY, &a->entry))
        return check_entry(&a->entry, a->q.password, false);
    return 0;
}

/* SCRAM's keys of a password that is kept as it is: made here, not in the worker. */
static int derive(const struct passwords *p, struct password_ask *a)
{
    return a->q.mechanism == SASL_SCRAM_SHA_256
               ? sasl_entry_derive(&a->entry, a->q.user, p->salt_key)
               : 0;
}

static int find_secret(const struct passwords *p, struct password_ask *a)
{
    const struct password_file *file = a->list ? a->list->file : NULL;
    enum password_want want =
        a->q.mechanism == SASL_CRAM_MD5 ? PASSWORD_WANT_PLAIN : PASSWORD_WANT_SCRAM;

    if (!file)
        return 0;
    a->answer.entry = &a->entry;
    if (password_file_find(file, a->q.user, &a->entry) &&
        sasl_entry_serves(&a->entry, a->q.mechanism)) {
        int r = derive(p, a);
        return r < 0 ? r : 1;
    }
    if (password_file_decoy(file, a->q.user, want, &a->entry))
        return derive(p, a);
    a->answer.entry = NULL;
    return 0;
}

static void work(struct passwords *p, struct password_ask *a)
{
    if (a->q.type == PASSWORD_CHECK && a->q.entry.n) {
        a->answer.result = check_given(&a->q);
        return;
    }
    a->list = take_list(p);
    a->answer.result = a->q.type == PASSWORD_CHECK ? check_user(a) : find_secret(p, a);
}

static void post_back(struct password_ask *a)
{
    a->port->workers->post(a->port->workers, a->port->workers->self, &a->message);
}

static void *run(void *arg)
{
    struct passwords *p = arg;
    struct list *link;

    pthread_setname_np(pthread_self(), "tern-passwords");
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stopping && list_empty(&p->queue))
            pthread_cond_wait(&p->work, &p->lock);
        if (!(link = list_pop(&p->queue)))
            break;
        struct password_ask *a = LIST_ENTRY(link, struct password_ask, link);
        bool stopping = p->stopping;
        p->waiting--;
        pthread_mutex_unlock(&p->lock);
        if (stopping || atomic_load(&a->unwanted))
            a->answer.result = -EAGAIN;
        else
            work(p, a);
        post_back(a);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- the port --------------------------------------------------------------------------------- */

static void ask_free(struct password_ask *a)
{
    password_list_unref(a->list);
    secret_wipe(a, sizeof(*a) + a->text_n);
    free(a);
}

/* In the worker's thread again. */
static void on_answered(struct engine *e, struct worker_message *m)
{
    struct password_ask *a = CONTAINER_OF(m, struct password_ask, message);

    if (a->done)
        a->done(a->owner, &a->answer);
    ask_free(a);
}

static struct str put(char **at, struct str s)
{
    struct str copy = str_make(*at, s.n);

    if (s.n)
        memcpy(*at, s.p, s.n);
    *at += s.n;
    return copy;
}

/* With the lock held: threads begin with the first question. False: there is none to do the work. */
static bool have_threads(struct passwords *p)
{
    while (p->n_threads < PASSWORDS_THREADS &&
           pthread_create(&p->threads[p->n_threads], NULL, run, p) == 0)
        p->n_threads++;
    return p->n_threads > 0;
}

static struct password_ask *port_ask(struct port_passwords *self, const struct password_question *q,
                                     password_done *done, void *owner)
{
    struct passwords_port *port = CONTAINER_OF(self, struct passwords_port, port);
    struct passwords *p = port->passwords;
    size_t n = q->user.n + q->password.n + q->entry.n;
    struct password_ask *a = calloc(1, sizeof(*a) + n + 1);
    char *at;

    if (!a)
        return NULL;
    at = a->text;
    *a = (struct password_ask){ .message = { .run = on_answered },
                                .port = port,
                                .done = done,
                                .owner = owner,
                                .q = *q,
                                .text_n = n };
    a->q.user = put(&at, q->user);
    a->q.password = put(&at, q->password);
    a->q.entry = put(&at, q->entry);
    list_init(&a->link);
    pthread_mutex_lock(&p->lock);
    bool possible = !p->stopping && have_threads(p);
    bool full = p->waiting >= PASSWORDS_WAITING;
    if (possible && !full) {
        list_push(&p->queue, &a->link);
        p->waiting++;
        pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
    if (!possible) {
        ask_free(a);
        return NULL;
    }
    if (full) {
        a->answer.result = -EAGAIN;
        post_back(a);
    }
    return a;
}

static void port_cancel(struct port_passwords *self, struct password_ask *a)
{
    a->done = NULL;
    atomic_store(&a->unwanted, true);
}

static uint32_t port_mechanisms(struct port_passwords *self)
{
    return atomic_load(&CONTAINER_OF(self, struct passwords_port, port)->passwords->mechanisms);
}

void passwords_port_init(struct passwords_port *port, struct passwords *p,
                         struct port_workers *workers)
{
    *port = (struct passwords_port){
        .port = { .mechanisms = port_mechanisms, .ask = port_ask, .cancel = port_cancel },
        .passwords = p,
        .workers = workers,
    };
}

/* ---- life ------------------------------------------------------------------------------------- */

struct passwords *passwords_new(struct port_workers *main, struct journal *journal,
                                const uint8_t *salt_key)
{
    struct passwords *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    list_init(&p->queue);
    p->main = main;
    p->journal = journal;
    p->salt_key = salt_key;
    p->notice.run = on_notice;
    return p;
}

void passwords_stop(struct passwords *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    p->n_threads = 0;
}

struct passwords *passwords_free(struct passwords *p)
{
    if (!p)
        return NULL;
    passwords_stop(p);
    password_list_unref(p->list);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
    return NULL;
}
