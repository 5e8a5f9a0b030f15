/* privileges.h - who the router runs as, and how it stops being root.
 *
 * Layer: daemon, main thread, before any other thread is there. Started by root it opens its ports, makes the
 * folders that are missing, and becomes an ordinary user for good: identity_find, identity_make_folder,
 * privileges_drop. Started by another user it stays that one. Errors are a struct failure, for people.
 */
#ifndef TERN_DAEMON_PRIVILEGES_H
#define TERN_DAEMON_PRIVILEGES_H

#include <sys/types.h>

#include "base/str.h"
#include "daemon/failure.h"

enum { IDENTITY_NAME = 64 };

struct identity {
    uid_t uid;
    gid_t gid;
    char name[IDENTITY_NAME]; /* of the user; its number where it has none */
    bool changes;             /* we are root, and become that user */
    bool stays_root;
};

/* asked: by the command line or the environment, or NULL; configured: by the configuration, or empty. In this
 * order, else `tern`. -1 with *f: no such user, or only root could become it. */
int identity_find(const char *asked, struct str configured, struct identity *ret,
                  struct failure *f) MUST_USE;
/* When root becomes another user: makes the folder if it is missing and its parent is there, for that user. A
 * folder that is there stays whose it is. -1 with *f. */
int identity_make_folder(const struct identity *id, const char *path, mode_t mode,
                         struct failure *f) MUST_USE;
/* Becomes that user, with its groups; gives up all capabilities (unless it stays root), and what a later exec
 * could win; proves that there is no way back. core_dumps: a crash may leave one. -1 with *f: the process must
 * end. */
int privileges_drop(const struct identity *id, bool core_dumps, struct failure *f) MUST_USE;

#endif
