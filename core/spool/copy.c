/* copy.c - a copy of the spool in another folder. Layer: spool. Interface: spool.h. */
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/internal.h"

PRINTF_LIKE(4, 5)
static int because(int error, char *why, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (size)
        vsnprintf(why, size, fmt, ap);
    va_end(ap);
    return error;
}

/* Root copies for the router's user. */
static int give(const char *path, const struct stat *owner)
{
    return geteuid() == 0 && lchown(path, owner->st_uid, owner->st_gid) < 0 ? -errno : 0;
}

int spool_copy(struct spool *s, const char *folder, char *ret_why, size_t why_size)
{
    AUTO_FREE char *file = NULL;
    struct stat owner;
    int fd;

    if (mdb_env_get_fd(s->store.env, &fd) != 0 || fstat(fd, &owner) < 0)
        return because(-EIO, ret_why, why_size, "cannot look at %s", s->store.path);
    if (asprintf(&file, "%s/data.mdb", folder) < 0) {
        file = NULL;
        return because(-ENOMEM, ret_why, why_size, "out of memory");
    }
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return because(-errno, ret_why, why_size, "cannot make the folder %s: %s", folder,
                       strerror(errno));
    if (access(file, F_OK) == 0)
        return because(-EEXIST, ret_why, why_size, "there is a spool in %s already", folder);
    int rc = mdb_env_copy2(s->store.env, folder, MDB_CP_COMPACT);
    if (rc) {
        unlink(file);
        return because(store_error(rc), ret_why, why_size, "cannot copy to %s: %s", folder,
                       mdb_strerror(rc));
    }
    int e = give(folder, &owner);
    if (e == 0)
        e = give(file, &owner);
    return e < 0 ? because(e, ret_why, why_size, "cannot give %s to its user: %s", folder,
                           strerror(-e))
                 : 0;
}
