/* files.h - how the embedding reads files: a small port, so that tests bring a tree in memory.
 *
 * Layer: lua.
 */
#ifndef TERN_LUA_FILES_H
#define TERN_LUA_FILES_H

#include "base/buf.h"

enum { POLICY_MAX_FILE = 16 * 1024 * 1024, POLICY_MAX_SECRET = 16 * 1024 };

/* By which a change of a file is noticed. All zero: there is none. */
struct policy_file_state {
    uint64_t id; /* device and number */
    uint64_t size;
    int64_t changed_ns;
};

struct policy_files {
    /* Appends the whole file to *ret (at most its max). 0, -ENOENT, -EACCES, -EISDIR, -EFBIG, -EIO,
     * -ENOMEM. secret: the file must belong to this user or root and be closed to all others, else
     * -EPERM. */
    int (*read)(const struct policy_files *self, const char *path, bool secret, struct buf *ret);
    /* NULL: files never change. */
    void (*state)(const struct policy_files *self, const char *path, struct policy_file_state *ret);
};

extern const struct policy_files policy_files_disk;

#endif
