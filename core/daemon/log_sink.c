/* log_sink.c - where the log goes. Layer: daemon. Interface: log_sink.h.
 *
 * Two buffers: one is filled by whoever logs, the other is being written. The lock is held for an
 * append or an exchange of the two only.
 */
#include "daemon/log_sink.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { CLOSE_S = 2 };

struct log_sink {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct buf filling; /* under the lock, like all that follows up to `writing` */
    size_t filling_lines;
    struct log_sink_stats stats;
    uint64_t lost_untold;
    int next_fd; /* to be used from the next write on; -1: none */
    bool closing;
    struct buf writing; /* the thread's */
    int fd;             /* the thread's */
    bool torn;          /* the last write ended within a line */
};

static int64_t wall_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* 0 or -errno: the rest could not be written. */
static int write_all(int fd, struct str s, bool *ret_torn)
{
    while (s.p && s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) { /* someone made the terminal non-blocking */
            nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
            continue;
        }
        if (n < 0)
            return -errno;
        if (n > 0)
            *ret_torn = s.p[n - 1] != '\n';
        s = str_from(s, (size_t)n);
    }
    return 0;
}

static void write_batch(struct log_sink *s, size_t lines, uint64_t lost)
{
    int r = 0;

    if (s->torn && buf_len(&s->writing))
        r = write_all(s->fd, STR("\n"), &s->torn);
    if (r == 0)
        r = write_all(s->fd, buf_str(&s->writing), &s->torn);
    if (r == 0 && lost) {
        buf_clear(&s->writing);
        event_to_json(EVENT(EVENT_ERROR, "log_lost", F_INT("lines", (int64_t)lost)), wall_ms(),
                      &s->writing);
        r = write_all(s->fd, buf_str(&s->writing), &s->torn);
    }
    buf_clear(&s->writing);
    pthread_mutex_lock(&s->lock);
    if (r == 0) {
        s->stats.lines += lines;
    } else { /* a full disk, a reader that is gone: told when writing works again */
        s->stats.lost += lines;
        s->lost_untold += lines + lost;
    }
    pthread_mutex_unlock(&s->lock);
}

/* Under the lock. */
static void take(struct log_sink *s, size_t *ret_lines, uint64_t *ret_lost)
{
    struct buf empty = s->writing;

    s->writing = s->filling;
    s->filling = empty;
    *ret_lines = s->filling_lines;
    *ret_lost = s->lost_untold;
    s->filling_lines = 0;
    s->lost_untold = 0;
    if (s->next_fd >= 0) {
        if (s->fd != STDOUT_FILENO)
            close(s->fd);
        s->fd = s->next_fd;
        s->next_fd = -1;
        s->torn = false;
    }
}

static void *run(void *arg)
{
    struct log_sink *s = arg;
    size_t lines;
    uint64_t lost;

    pthread_setname_np(pthread_self(), "tern-log");
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!buf_len(&s->filling) && s->next_fd < 0 && !s->closing)
            pthread_cond_wait(&s->work, &s->lock);
        bool end = s->closing && !buf_len(&s->filling);
        take(s, &lines, &lost);
        pthread_mutex_unlock(&s->lock);
        if (end)
            return NULL;
        write_batch(s, lines, lost);
    }
}

/* A descriptor, or -errno with a text. */
static int open_log(struct str where, char *error)
{
    AUTO_FREE char *path = NULL;

    if (str_eq(where, STR("stdout")))
        return STDOUT_FILENO;
    path = str_dup(where);
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640) : -1;
    if (fd >= 0)
        return fd;
    int e = path ? errno : ENOMEM;
    snprintf(error, LOG_SINK_ERROR_TEXT,
             "cannot open the log %s: %s; 'log' in the configuration must name a file that this "
             "user may write, or \"stdout\"",
             path ? path : "", strerror(e));
    return -e;
}

int log_sink_open(struct str where, struct log_sink **ret, char *error)
{
    struct log_sink *s = calloc(1, sizeof(*s));
    int r = s ? open_log(where, error) : -ENOMEM;

    if (r < 0) {
        free(s);
        return r;
    }
    s->fd = r;
    s->next_fd = -1;
    buf_init(&s->filling, LOG_SINK_WAITING);
    buf_init(&s->writing, LOG_SINK_WAITING);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    r = pthread_create(&s->thread, NULL, run, s);
    if (r) {
        snprintf(error, LOG_SINK_ERROR_TEXT, "cannot start a thread: %s", strerror(r));
        if (s->fd != STDOUT_FILENO)
            close(s->fd);
        free(s);
        return -r;
    }
    *ret = s;
    return 0;
}

struct log_sink *log_sink_close(struct log_sink *s)
{
    struct timespec until;

    if (!s)
        return NULL;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_S;
    if (pthread_timedjoin_np(s->thread, NULL, &until) != 0)
        return NULL; /* it stands in a write: the process ends without it */
    if (s->fd != STDOUT_FILENO)
        close(s->fd);
    buf_done(&s->filling);
    buf_done(&s->writing);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return NULL;
}

void log_sink_add(struct log_sink *s, struct str lines, size_t n)
{
    pthread_mutex_lock(&s->lock);
    bool first = buf_len(&s->filling) == 0;
    if (buf_add_str(&s->filling, lines) == 0) {
        s->filling_lines += n;
    } else {
        s->filling.failed = 0;
        s->stats.lost += n;
        s->lost_untold += n;
    }
    pthread_mutex_unlock(&s->lock);
    if (first) /* after the lock is free: who wakes up needs it at once */
        pthread_cond_signal(&s->work);
}

void log_sink_lost(struct log_sink *s, size_t n)
{
    pthread_mutex_lock(&s->lock);
    s->stats.lost += n;
    s->lost_untold += n;
    pthread_mutex_unlock(&s->lock);
}

int log_sink_reopen(struct log_sink *s, struct str where, char *error)
{
    int fd = open_log(where, error);

    if (fd < 0)
        return fd;
    pthread_mutex_lock(&s->lock);
    if (s->next_fd >= 0 && s->next_fd != STDOUT_FILENO)
        close(s->next_fd);
    s->next_fd = fd;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

void log_sink_get_stats(struct log_sink *s, struct log_sink_stats *ret)
{
    pthread_mutex_lock(&s->lock);
    *ret = s->stats;
    pthread_mutex_unlock(&s->lock);
}
