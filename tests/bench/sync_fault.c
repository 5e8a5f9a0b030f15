/* sync_fault.c - a disk that cannot be written for a while: fdatasync, fsync and msync fail with EIO as long
 * as the file that SYNC_FAULT names is there.
 *
 * A library for LD_PRELOAD, compiled by scripts/soak: cc -shared -fPIC sync_fault.c -ldl. Everything else of the
 * program is as it was; without SYNC_FAULT nothing ever fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static bool broken(void)
{
    const char *path = getenv("SYNC_FAULT");
    int saved = errno;
    bool there = path && access(path, F_OK) == 0;
    errno = there ? EIO : saved;
    return there;
}

typedef int sync_fn(int fd);
typedef int msync_fn(void *at, size_t n, int flags);

/* POSIX gives no other way to turn what dlsym returns into a function. */
static sync_fn *real_sync(const char *name)
{
    union {
        void *object;
        sync_fn *function;
    } u = { .object = dlsym(RTLD_NEXT, name) };
    return u.function;
}

static msync_fn *real_msync(void)
{
    union {
        void *object;
        msync_fn *function;
    } u = { .object = dlsym(RTLD_NEXT, "msync") };
    return u.function;
}

int fdatasync(int fd)
{
    return broken() ? -1 : real_sync("fdatasync")(fd);
}

int fsync(int fd)
{
    return broken() ? -1 : real_sync("fsync")(fd);
}

int msync(void *at, size_t n, int flags)
{
    return broken() ? -1 : real_msync()(at, n, flags);
}
