/* landlock.c - the kernel's Landlock. Layer: daemon. Interface: landlock.h. */
#include "daemon/landlock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As in linux/landlock.h of Linux 6.12. The numbers of the system calls are the same everywhere. */
enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 };
enum { ASK_VERSION = 1, RULE_PATH_BENEATH = 1 };

#define FS_EXECUTE     (1ULL << 0)
#define FS_WRITE_FILE  (1ULL << 1)
#define FS_READ_FILE   (1ULL << 2)
#define FS_READ_DIR    (1ULL << 3)
#define FS_REMOVE_FILE (1ULL << 5)
#define FS_MAKE_REG    (1ULL << 8)
#define FS_MAKE_SOCK   (1ULL << 9)
#define FS_TRUNCATE    (1ULL << 14)
#define FS_IOCTL_DEV   (1ULL << 15)
#define FS_OF_A_FILE   (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define SCOPE_SIGNAL   (1ULL << 1)

struct ruleset {
    uint64_t fs, net, scoped;
};

struct path_beneath {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

/* All that the version knows: what no rule allows is forbidden. */
static uint64_t handled_of(int version)
{
    static const int bits[] = { 0, 13, 14, 15, 15, 16 }; /* by version; no more later on */

    return (1ULL << bits[MIN(version, (int)ARRAY_LEN(bits) - 1)]) - 1;
}

int landlock_version(const char **ret_why)
{
    long version = syscall(CREATE_RULESET, NULL, 0, ASK_VERSION);

    if (version > 0)
        return (int)version;
    *ret_why = errno == ENOSYS       ? "this kernel has no Landlock"
               : errno == EOPNOTSUPP ? "Landlock is switched off at boot (lsm=)"
                                     : "Landlock is forbidden here, as some containers do";
    return 0;
}

int landlock_new(int version)
{
    struct ruleset set = { .fs = handled_of(version), .scoped = version >= 6 ? SCOPE_SIGNAL : 0 };
    /* An older kernel refuses fields that it does not know only when they are not zero. */
    long fd = syscall(CREATE_RULESET, &set, sizeof(set), 0);

    return fd < 0 ? -errno : (int)fd;
}

static uint64_t rights_of(unsigned may)
{
    return (may & LANDLOCK_MAY_READ ? FS_READ_FILE | FS_READ_DIR : 0) |
           (may & LANDLOCK_MAY_WRITE ? FS_WRITE_FILE | FS_TRUNCATE : 0) |
           (may & LANDLOCK_MAY_MAKE ? FS_MAKE_REG : 0) |
           (may & LANDLOCK_MAY_REMOVE ? FS_REMOVE_FILE : 0) |
           (may & LANDLOCK_MAY_SOCKETS ? FS_MAKE_SOCK : 0);
}

int landlock_allow(int set, int version, const char *path, unsigned may)
{
    struct path_beneath rule = { .allowed = rights_of(may) & handled_of(version) };
    struct stat sb;
    int r = 0;

    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return -errno;
    if (fstat(rule.parent_fd, &sb) < 0)
        r = -errno;
    else if (!S_ISDIR(sb.st_mode))
        rule.allowed &= FS_OF_A_FILE;
    if (r == 0 && rule.allowed && syscall(ADD_RULE, set, RULE_PATH_BENEATH, &rule, 0) < 0)
        r = -errno;
    close(rule.parent_fd);
    return r;
}

int landlock_enforce(int set)
{
    return syscall(RESTRICT_SELF, set, 0) < 0 ? -errno : 0;
}
