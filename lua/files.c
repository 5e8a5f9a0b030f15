/* files.c - reads the configuration, its modules and secrets from the disk. Interface: files.h.
 *
 * Layer: lua. The one file of this layer that opens anything: at load, before there is a loop.
 */
#include "lua/files.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_AT_ONCE = 16 * 1024 };

static int check_file(int fd, bool secret, size_t max)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if (secret && ((st.st_mode & 077) || (st.st_uid != geteuid() && st.st_uid != 0)))
        return -EPERM;
    return max && (uint64_t)st.st_size > max ? -EFBIG : 0;
}

static int read_all(int fd, struct buf *out)
{
    char piece[READ_AT_ONCE];
    ssize_t n;
    int r = 0;

    while (r == 0 && (n = read(fd, piece, sizeof(piece))) != 0) {
        if (n > 0)
            r = buf_add(out, piece, (size_t)n);
        else if (errno != EINTR)
            r = -errno;
    }
    explicit_bzero(piece, sizeof(piece)); /* it may have been a secret */
    return r == -EMSGSIZE ? -EFBIG : r;
}

static int disk_read(const struct policy_files *self, const char *path, bool secret,
                     struct buf *ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    int r = check_file(fd, secret, ret->max);
    if (r == 0)
        r = read_all(fd, ret);
    close(fd);
    return r;
}

const struct policy_files policy_files_disk = { .read = disk_read };
