/* landlock.h - the kernel's Landlock (Linux 5.13 on): a thread, and all threads that it makes from then on, can
 * open only what was allowed before, for good, whoever they are.
 *
 * Layer: daemon. The system calls and their flags: neither glibc nor the kernel's headers of all systems that we
 * build on have them. Opening is what is governed: descriptors that are open already, stat(2), names that are
 * looked up on the way, and connections to Unix sockets are not.
 */
#ifndef TERN_DAEMON_LANDLOCK_H
#define TERN_DAEMON_LANDLOCK_H

#include "base/err.h"

/* What is allowed below a folder, or of a file. Together by '|'. */
enum landlock_may {
    LANDLOCK_MAY_READ = 1,     /* files, and the list of them */
    LANDLOCK_MAY_WRITE = 2,    /* present files */
    LANDLOCK_MAY_MAKE = 4,     /* new files */
    LANDLOCK_MAY_REMOVE = 8,   /* files and sockets */
    LANDLOCK_MAY_SOCKETS = 16, /* make Unix sockets */
};

/* The version of it that the kernel has: 1, 2, ...; or 0, and *ret_why says why not. */
int landlock_version(const char **ret_why);
/* A set of rules: a descriptor, to be closed, or -errno. */
int landlock_new(int version) MUST_USE;
/* -ENOENT and others of open(2): there is no such path, and nothing changed. */
int landlock_allow(int set, int version, const char *path, unsigned may);
/* From now on. After PR_SET_NO_NEW_PRIVS. 0 or -errno. */
int landlock_enforce(int set) MUST_USE;

#endif
