/* faults.c - a disk that fails: LD_PRELOAD before the daemon. Compiled by the tests (faults.py) and by scripts/soak.
 *
 * Every descriptor of a file named data.mdb is watched, all others are left alone. $TERN_FAULTS names a
 * file that is read at each call; one line for each kind of call that is to suffer:
 *
 *   sync EIO          fdatasync and fsync fail
 *   write EIO         pages cannot be written
 *   root EIO          nor can the root pages (LMDB writes less than 512 octets of them)
 *   grow ENOSPC       writes behind the present end of the file fail
 *   sync delay 200    each takes 200 ms more (any kind, `map` too: when LMDB's map changes its size)
 *   sync hold         waits until that line is gone
 *
 * $TERN_FAULTS.log gets a line with the kind for each call that suffered. $TERN_FAULTS_MAP: octets of the
 * map to begin with, less than the daemon asks for.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static bool watched(int fd)
{
    static const char name[] = "/data.mdb";
    char link[64], path[4096];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path));
    return n >= (ssize_t)sizeof(name) - 1 &&
           memcmp(path + n - (sizeof(name) - 1), name, sizeof(name) - 1) == 0;
}

static void pause_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

    nanosleep(&t, NULL);
}

/* What stands behind the kind in its line. False: there is none. */
static bool told(const char *kind, char *what, size_t size)
{
    const char *path = getenv("TERN_FAULTS");
    char text[512], *rest = text, *line;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    size_t k = strlen(kind);
    while ((line = strsep(&rest, "\n")))
        if (strncmp(line, kind, k) == 0 && line[k] == ' ') {
            snprintf(what, size, "%s", line + k + 1);
            return true;
        }
    return false;
}

static int notes = -1;

/* Before the daemon confines itself to other files. */
__attribute__((constructor)) static void open_notes(void)
{
    const char *faults = getenv("TERN_FAULTS");
    char path[4096];

    if (!faults)
        return;
    snprintf(path, sizeof(path), "%s.log", faults);
    notes = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void note(const char *kind)
{
    char line[32];
    int n = snprintf(line, sizeof(line), "%s\n", kind);

    if (notes >= 0 && write(notes, line, (size_t)n) < 0)
        abort();
}

/* True: the call is to fail, errno is set. */
static bool suffers(const char *kind)
{
    char what[64];

    if (!told(kind, what, sizeof(what)))
        return false;
    note(kind);
    if (strncmp(what, "delay ", 6) == 0)
        pause_ms(strtol(what + 6, NULL, 10));
    while (strcmp(what, "hold") == 0 && told(kind, what, sizeof(what)))
        pause_ms(5);
    errno = strcmp(what, "EIO") == 0 ? EIO : strcmp(what, "ENOSPC") == 0 ? ENOSPC : 0;
    return errno != 0;
}

static bool write_suffers(int fd, size_t n, off_t at)
{
    struct stat sb;

    if (!watched(fd))
        return false;
    if (n < 512)
        return suffers("root");
    if (suffers("write"))
        return true;
    return fstat(fd, &sb) == 0 && at + (off_t)n > sb.st_size && suffers("grow");
}

int fdatasync(int fd)
{
    return watched(fd) && suffers("sync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return watched(fd) && suffers("sync") ? -1 : (int)syscall(SYS_fsync, fd);
}

int ftruncate(int fd, off_t size)
{
    return watched(fd) && suffers("grow") ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    return write_suffers(fd, n, at) ? -1 : syscall(SYS_pwrite64, fd, bytes, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int count)
{
    size_t n = 0;

    for (int i = 0; i < count; i++)
        n += v[i].iov_len;
    return write_suffers(fd, n, lseek(fd, 0, SEEK_CUR)) ? -1 : syscall(SYS_writev, fd, v, count);
}

int mdb_env_set_mapsize(void *env, size_t size)
{
    static int (*real)(void *env, size_t size);
    static bool begun;
    const char *first = getenv("TERN_FAULTS_MAP");

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "mdb_env_set_mapsize");
    if (!begun && first)
        size = strtoul(first, NULL, 10);
    else
        (void)suffers("map");
    begun = true;
    return real(env, size);
}
