/* copy.c - a copy of the spool in another folder. Layer: spool. Interface: spool.h.
 *
 * LMDB syncs nothing of what it copies, so that is done here: first the file, then the names that lead to it.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/internal.h"

struct copy {
    struct spool *spool;
    const char *folder;
    char *file;
    struct stat owner; /* of the spool's file */
    char *why;
    size_t why_size;
};

PRINTF_LIKE(3, 4)
static int because(const struct copy *c, int error, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (c->why_size)
        vsnprintf(c->why, c->why_size, fmt, ap);
    va_end(ap);
    return error;
}

/* Root copies for the router's user. */
static int give(const struct copy *c, int fd, const char *what)
{
    if (geteuid() != 0 || fchown(fd, c->owner.st_uid, c->owner.st_gid) == 0)
        return 0;
    return because(c, -errno, "cannot give %s to its user: %s", what, strerror(errno));
}

/* Past the cache, as mdb_env_copy2 does: a copy must not push the queue out of memory. Where the file system
 * has no such writes, through it. */
static void spare_cache(const struct copy *c, int fd)
{
    MDB_stat st;
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && mdb_env_stat(c->spool->store.env, &st) == 0 &&
        (long)st.ms_psize >= sysconf(_SC_PAGESIZE))
        (void)fcntl(fd, F_SETFL, flags | O_DIRECT);
}

static int fill_file(const struct copy *c, int fd)
{
    spare_cache(c, fd);
    int rc = mdb_env_copyfd2(c->spool->store.env, fd, MDB_CP_COMPACT);
    if (rc)
        return because(c, store_error(rc), "cannot copy to %s: %s", c->folder, mdb_strerror(rc));
    int e = give(c, fd, c->file);
    if (e == 0 && fsync(fd) < 0)
        e = because(c, -errno, "cannot write %s to the disk: %s", c->file, strerror(errno));
    return e;
}

/* The file is ours from its first moment: of two copies to the same folder one is refused, and removes nothing. */
static int make_file(const struct copy *c)
{
    int fd = open(c->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 && errno == EEXIST)
        return because(c, -EEXIST, "there is a spool in %s already", c->folder);
    if (fd < 0)
        return because(c, -errno, "cannot make %s: %s", c->file, strerror(errno));
    int e = fill_file(c, fd);
    if (close(fd) < 0 && e == 0)
        e = because(c, -errno, "cannot write %s to the disk: %s", c->file, strerror(errno));
    if (e < 0)
        unlink(c->file);
    return e;
}

/* A name is on the disk when the folder that it stands in is. Some file systems cannot sync folders (EINVAL);
 * and one that cannot be read is synced with all its file system. */
static int sync_names(const struct copy *c, int folder)
{
    int parent = openat(folder, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = 0;

    if (fsync(folder) < 0 && errno != EINVAL)
        error = errno;
    if ((parent >= 0 ? fsync(parent) : syncfs(folder)) < 0 && errno != EINVAL && !error)
        error = errno;
    if (parent >= 0)
        close(parent);
    return error ? because(c, -error, "cannot write the folder %s to the disk: %s", c->folder,
                           strerror(error))
                 : 0;
}

static int copy(const struct copy *c)
{
    int e = make_file(c);
    if (e < 0)
        return e;

    int folder = open(c->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        e = because(c, -errno, "cannot open the folder %s: %s", c->folder, strerror(errno));
    } else {
        e = give(c, folder, c->folder);
        if (e == 0)
            e = sync_names(c, folder);
        close(folder);
    }
    if (e < 0)
        unlink(c->file); /* what may not survive is no copy */
    return e;
}

int spool_copy(struct spool *s, const char *folder, char *ret_why, size_t why_size)
{
    AUTO_FREE char *file = NULL;
    struct copy c = { .spool = s, .folder = folder, .why = ret_why, .why_size = why_size };
    int fd;

    if (mdb_env_get_fd(s->store.env, &fd) != 0 || fstat(fd, &c.owner) < 0)
        return because(&c, -EIO, "cannot look at %s", s->store.path);
    if (asprintf(&file, "%s/data.mdb", folder) < 0) {
        file = NULL;
        return because(&c, -ENOMEM, "out of memory");
    }
    c.file = file;
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return because(&c, -errno, "cannot make the folder %s: %s", folder, strerror(errno));
    return copy(&c);
}
