/* files.c - reads the configuration, its modules and secrets from the disk. Interface: files.h.
 *
 * Layer: lua. The one file of this layer that opens anything: at load, before there is a loop, and
 * maps in a thread of their own (lua/maps.h).
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
    /* To root it may be anybody's: it is read on behalf of the user that the router will run as. */
    if (secret &&
        ((st.st_mode & 077) || (st.st_uid != geteuid() && st.st_uid != 0 && geteuid() != 0)))
        return -EPERM;
    return max && (uint64_t)st.st_size > max ? -EFBIG : 0;
}

/* All at once: growing step by step would need twice the memory of a large file. */
static int make_room(int fd, struct buf *out)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    return st.st_size <= READ_AT_ONCE || buf_room(out, (size_t)st.st_size) ? 0 : -ENOMEM;
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
        r = make_room(fd, ret);
    if (r == 0)
        r = read_all(fd, ret);
    close(fd);
    return r;
}

static void disk_state(const struct policy_files *self, const char *path,
                       struct policy_file_state *ret)
{
    struct stat st;

    *ret = (struct policy_file_state){ 0 };
    if (stat(path, &st) < 0)
        return;
    ret->id = (uint64_t)st.st_dev << 48 ^ st.st_ino;
    ret->size = (uint64_t)st.st_size;
    /* The time of the inode: a file with an old date that takes the place of another is noticed too. */
    ret->changed_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
}

const struct policy_files policy_files_disk = { .read = disk_read, .state = disk_state };
