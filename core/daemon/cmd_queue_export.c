/* cmd_queue_export.c - tern queue export DIR: messages into files, each with its envelope.
 *
 * Layer: daemon. Interface: cmd_queue.h. Reads the spool itself, beside the router or without one, so it needs a
 * user who may: root, or the router's. ID.eml is the message octet for octet, ID.json its
 * envelope, with those of its recipients that the filter means. Files are written under other names, synced and
 * renamed, the .json last: what was broken off leaves no half files, and no .json without its .eml.
 *
 * A queue's index brings a message once for each of its recipients, at different places: what is written is remembered
 * (16 octets a message, in a table that is at most half full).
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/glob.h"
#include "base/hash.h"
#include "daemon/cmd_queue.h"
#include "daemon/columns.h"
#include "daemon/control_lookup.h"
#include "daemon/load.h"
#include "daemon/queue_walk.h"
#include "spool/spool.h"

enum { MATCHES = 64, ENTRIES = 256, WRITTEN_MIN = 1024 };

/* Ids; all zeros is a free place, and no id of a message. */
struct written {
    struct msgid *ids;
    size_t n, cap; /* cap: a power of two, or 0 */
};

struct exporter {
    struct spool *spool;
    struct port_spool *port;
    struct queue_filter filter;
    struct queue_walk *walk;
    const char *path; /* of the folder */
    int dir;
    struct found found;
    struct buf piece;
    struct written written;
    uint64_t messages, recipients, octets, gone, damaged;
};

/* ---- what is written -------------------------------------------------------------------------- */

/* Where the id stands, or would. There is a free place. */
static struct msgid *written_place(const struct written *w, const struct msgid *id)
{
    static const struct msgid none;
    size_t i = hash_bytes(id->b, sizeof(id->b)) & (w->cap - 1);

    while (msgid_cmp(&w->ids[i], &none) != 0 && msgid_cmp(&w->ids[i], id) != 0)
        i = (i + 1) & (w->cap - 1);
    return &w->ids[i];
}

static bool is_written(const struct written *w, const struct msgid *id)
{
    return w->cap && msgid_cmp(written_place(w, id), id) == 0;
}

static int written_grow(struct written *w)
{
    struct written more = { .cap = w->cap ? w->cap * 2 : WRITTEN_MIN, .n = w->n };
    static const struct msgid none;

    more.ids = calloc(more.cap, sizeof(*more.ids));
    if (!more.ids)
        return -ENOMEM;
    for (size_t i = 0; i < w->cap; i++)
        if (msgid_cmp(&w->ids[i], &none) != 0)
            *written_place(&more, &w->ids[i]) = w->ids[i];
    free(w->ids);
    *w = more;
    return 0;
}

static int written_add(struct written *w, const struct msgid *id)
{
    int e = w->n + 1 > w->cap / 2 ? written_grow(w) : 0;

    if (e < 0)
        return e;
    *written_place(w, id) = *id;
    w->n++;
    return 0;
}

/* ---- one file --------------------------------------------------------------------------------- */

static int failed(const struct exporter *x, const char *name, int e, struct failure *f)
{
    return failure_set(f, e == -ENOSPC ? EX_CANTCREAT : exit_code_of(e), "cannot write %s/%s: %s",
                       x->path, name, strerror(-e));
}

static int write_all(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno != EINTR)
            return -errno;
        s = str_from(s, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

static int open_temporary(const struct exporter *x, const char *name, char *tmp, size_t size)
{
    snprintf(tmp, size, ".%s.tmp", name);
    /* What a run that was killed has left, or somebody else has put there, is not written into. */
    if (unlinkat(x->dir, tmp, 0) < 0 && errno != ENOENT)
        return -errno;
    int fd = openat(x->dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

/* Makes what stands under the other name durable, and visible; or removes it. */
static int put_in_place(const struct exporter *x, int fd, const char *tmp, const char *name, int e)
{
    if (e == 0 && fsync(fd) < 0)
        e = -errno;
    if (close(fd) < 0 && e == 0)
        e = -errno;
    if (e == 0 && renameat(x->dir, tmp, x->dir, name) < 0)
        e = -errno;
    if (e < 0)
        unlinkat(x->dir, tmp, 0);
    return e;
}

/* -ENOENT: it has been delivered meanwhile. */
static int copy_content(struct exporter *x, int fd)
{
    const struct message *m = x->found.message;
    uint64_t size = 0;

    for (uint32_t chunk = 0; chunk < m->n_chunks; chunk++) {
        int e = x->port->read_chunk(x->port, &m->id, chunk, &x->piece);
        if (e == 0)
            e = write_all(fd, buf_str(&x->piece));
        if (e < 0)
            return e;
        size += buf_len(&x->piece);
    }
    return size == m->size ? 0 : -EIO;
}

static int write_content(struct exporter *x, const char *name)
{
    char tmp[64];
    int fd = open_temporary(x, name, tmp, sizeof(tmp));

    return fd < 0 ? fd : put_in_place(x, fd, tmp, name, copy_content(x, fd));
}

static int write_envelope(struct exporter *x, const char *name, const json_t *envelope)
{
    AUTO_FREE char *text = json_dumps(envelope, JSON_INDENT(2));
    char tmp[64];
    int fd = text ? open_temporary(x, name, tmp, sizeof(tmp)) : -ENOMEM;

    if (fd < 0)
        return fd;
    int e = write_all(fd, str_of(text));
    if (e == 0)
        e = write_all(fd, STR("\n"));
    return put_in_place(x, fd, tmp, name, e);
}

/* ---- one message ------------------------------------------------------------------------------ */

static json_t *notify_json(uint8_t notify)
{
    json_t *list = json_array();

    if (notify & SMTP_NOTIFY_NEVER)
        json_array_append_new(list, json_string("never"));
    if (notify & SMTP_NOTIFY_SUCCESS)
        json_array_append_new(list, json_string("success"));
    if (notify & SMTP_NOTIFY_FAILURE)
        json_array_append_new(list, json_string("failure"));
    if (notify & SMTP_NOTIFY_DELAY)
        json_array_append_new(list, json_string("delay"));
    return list;
}

/* Who removes what was exported must know of it. */
static void tell_damaged(struct exporter *x, const struct msgid *id, const char *what)
{
    char text[MSGID_TEXT];

    x->damaged++;
    fprintf(stderr, "tern: %s: %s cannot be read and is in no file; see 'tern spool check'\n",
            msgid_text(id, text), what);
}

/* Adds the recipient to the list, when the filter means it. */
static int add_recipient(struct exporter *x, const struct msgid *id, uint32_t n, json_t *list)
{
    struct spool_entry entry;
    struct queue_match match;
    int e = queue_walk_test(x->walk, id, n, &match);

    if (e > 0)
        e = control_find_recipient(x->port, id, n, &entry, &x->found);
    else
        return e == -ENOENT || e == -EBADMSG ? 0 : e;
    if (e == -EBADMSG) {
        char what[32];
        snprintf(what, sizeof(what), "recipient %u", n);
        tell_damaged(x, id, what);
    }
    if (e < 0)
        return e == -ENOENT || e == -EBADMSG ? 0 : e;
    const struct recipient *r = &x->found.recipient;
    json_t *o = control_recipient_json(&entry, r);
    if (!o || json_object_set_new(o, "notify", notify_json(r->notify)) < 0 ||
        json_object_set_new(o, "orcpt", control_text_or_null(r->orcpt)) < 0)
        e = -ENOMEM;
    if (json_array_append_new(list, o) < 0)
        e = -ENOMEM;
    return e;
}

static int add_recipients(struct exporter *x, const struct msgid *id, json_t *list)
{
    struct spool_entry *entries = calloc(ENTRIES, sizeof(*entries));
    uint32_t after = 0;
    int e = entries ? add_recipient(x, id, 0, list) : -ENOMEM, n = ENTRIES;

    while (e == 0 && n == ENTRIES) {
        n = x->port->scan_entries(x->port, id, after, entries, ENTRIES);
        e = MIN(n, 0);
        for (int i = 0; e == 0 && i < n; i++) {
            if (msgid_cmp(&entries[i].id, id) != 0) {
                n = i;
                break;
            }
            after = entries[i].n;
            e = add_recipient(x, id, after, list);
        }
    }
    free(entries);
    return e;
}

static json_t *envelope_json(const struct message *m, json_t *recipients)
{
    json_t *o = control_message_json(m);
    enum smtp_ret ret = message_ret(m);
    const char *text = ret == SMTP_RET_FULL ? "full" : ret == SMTP_RET_HDRS ? "hdrs" : NULL;

    if (o && json_object_set_new(o, "ret", text ? json_string(text) : json_null()) == 0 &&
        json_object_set(o, "recipients", recipients) == 0)
        return o;
    json_decref(o);
    return NULL;
}

static int write_message(struct exporter *x, const struct msgid *id, struct failure *f)
{
    char text[MSGID_TEXT], eml[40], name[40];
    json_t *recipients = json_array(), *envelope = NULL;

    msgid_text(id, text);
    snprintf(eml, sizeof(eml), "%s.eml", text);
    snprintf(name, sizeof(name), "%s.json", text);
    uint64_t damaged = x->damaged;
    int e = control_find_message(x->port, id, &x->found);
    if (e == -EBADMSG)
        tell_damaged(x, id, "its envelope");
    if (e == 0)
        e = add_recipients(x, id, recipients);
    size_t n = json_array_size(recipients);
    if ((e == 0 || e == -EBADMSG) && n == 0 && x->damaged > damaged) {
        json_decref(recipients);
        return written_add(&x->written, id) < 0 ? queue_no_memory(f) : 0;
    }
    if (e == 0 && n == 0)
        e = -ENOENT; /* those that are meant were delivered, or moved: then they are found again */
    if (e == 0)
        envelope = envelope_json(x->found.message, recipients);
    json_decref(recipients);
    if (e == 0)
        e = envelope ? write_content(x, eml) : -ENOMEM;
    if (e == 0)
        e = write_envelope(x, name, envelope);
    json_decref(envelope);
    if (e == -ENOENT) {
        x->gone++;
        return 0;
    }
    if (e < 0)
        return failed(x, name, e, f);
    x->messages++;
    x->recipients += n;
    x->octets += x->found.message->size;
    return written_add(&x->written, id) < 0 ? queue_no_memory(f) : 0;
}

/* ---- all -------------------------------------------------------------------------------------- */

static int write_all_messages(struct exporter *x, struct failure *f)
{
    struct queue_match *match = calloc(MATCHES, sizeof(*match));
    bool tty = isatty(STDERR_FILENO);
    int e = 0;

    if (!match)
        return queue_no_memory(f);
    while (e == 0 && !queue_walk_ended(x->walk)) {
        int n = queue_walk_next(x->walk, match, MATCHES);
        if (n < 0)
            e = failure_set(f, EX_IOERR, "cannot read the spool: %s", strerror(-n));
        for (int i = 0; e == 0 && i < n; i++)
            if (!is_written(&x->written, &match[i].id))
                e = write_message(x, &match[i].id, f);
        if (tty && n)
            fprintf(stderr, "\r%llu messages\033[K", (unsigned long long)x->messages);
    }
    if (tty)
        fprintf(stderr, "\r\033[K");
    free(match);
    if (e == 0 && fsync(x->dir) < 0)
        e = failed(x, "", -errno, f);
    return e;
}

static int open_spool(struct exporter *x, const char *config, struct port_workers *workers,
                      struct failure *f)
{
    struct loaded l;
    char why[512] = "out of memory";

    if (load_policies(config, NULL, &l, f) < 0)
        return -1;
    AUTO_FREE char *path = str_dup(l.settings->spool);
    loaded_done(&l);
    int e = path ? spool_open_readonly(path, &x->spool, why, sizeof(why)) : -ENOMEM;
    if (e < 0)
        return failure_set(f, exit_code_of(e),
                           "%s; export reads the spool itself: run it as root or as the router's "
                           "user",
                           why);
    x->port = spool_port(x->spool, workers);
    return x->port ? 0 : queue_no_memory(f);
}

static int open_folder(struct exporter *x, struct failure *f)
{
    if (mkdir(x->path, 0700) < 0 && errno != EEXIST)
        return failure_set(f, EX_CANTCREAT, "cannot make the folder %s: %s", x->path,
                           strerror(errno));
    x->dir = open(x->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (x->dir < 0)
        return failure_set(f, EX_CANTCREAT, "cannot write into %s: %s", x->path, strerror(errno));
    return 0;
}

static int read_filter(struct exporter *x, const struct queue_command_line *q, struct failure *f)
{
    char error[QUEUE_FILTER_ERROR];

    for (size_t i = 0; i < QUEUE_CONDITIONS; i++)
        if (q->filter[i] && queue_filter_set(&x->filter, str_of(queue_filter_names[i]),
                                             str_of(q->filter[i]), error) < 0)
            return failure_set(f, EX_USAGE, "%s", error);
    if (x->filter.state == FILTER_ACTIVE)
        return failure_set(f, EX_USAGE,
                           "what is being delivered is known to the running router only: export "
                           "takes no --state active");
    x->walk = queue_walk_new(x->port, &x->filter, NULL, 0, wall_now());
    return x->walk ? 0 : queue_no_memory(f);
}

static void print_sum(const struct exporter *x, bool json)
{
    char size[16];

    if (json) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "folder", x->path, "messages",
                              (json_int_t)x->messages, "recipients", (json_int_t)x->recipients,
                              "octets", (json_int_t)x->octets, "gone", (json_int_t)x->gone,
                              "damaged", (json_int_t)x->damaged);
        client_print_json(o);
        json_decref(o);
        return;
    }
    printf("%llu message%s for %llu recipient%s (%s) in %s; they are in the queue as before\n",
           (unsigned long long)x->messages, x->messages == 1 ? "" : "s",
           (unsigned long long)x->recipients, x->recipients == 1 ? "" : "s",
           size_text((int64_t)x->octets, size), x->path);
    if (x->gone)
        printf("%llu were delivered meanwhile\n", (unsigned long long)x->gone);
    if (x->damaged)
        printf("%llu cannot be read: see above\n", (unsigned long long)x->damaged);
}

int queue_export(struct queue_command_line *q, struct failure *f)
{
    struct exporter x = { .dir = -1 };
    struct port_workers workers = { .count = 1 }; /* nothing is submitted: nobody is told */

    if (q->operands.n != 2)
        return failure_set(f, EX_USAGE, "where to? tern queue export DIR [FILTER]");
    x.path = q->operands.v[1];
    queue_filter_init(&x.filter);
    found_init(&x.found);
    buf_init(&x.piece, 0);
    int r = open_spool(&x, q->client.config, &workers, f);
    if (r == 0)
        r = read_filter(&x, q, f);
    if (r == 0)
        r = open_folder(&x, f);
    if (r == 0)
        r = write_all_messages(&x, f);
    if (r == 0)
        print_sum(&x, q->client.json);
    if (r == 0 && x.damaged)
        r = EX_DATAERR;
    if (x.dir >= 0)
        close(x.dir);
    queue_walk_free(x.walk);
    buf_done(&x.piece);
    free(x.written.ids);
    found_done(&x.found);
    queue_filter_done(&x.filter);
    spool_close(x.spool);
    return r;
}
