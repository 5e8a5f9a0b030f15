/* syscalls.h - which system calls the router makes; all others are refused by a seccomp filter.
 *
 * Layer: daemon, main thread. Of what is not in the list some calls end the process at once, for no mistake of
 * ours leads there: running a program, looking into another process, mounting, loading modules, becoming another
 * user. Every other call fails with EPERM, and its number is told: so a library that learnt something new makes
 * a line in the log, and no outage.
 *
 * Builds with sanitizers may call what these need, ptrace among it.
 */
#ifndef TERN_DAEMON_SYSCALLS_H
#define TERN_DAEMON_SYSCALLS_H

#include "base/err.h"

/* For all threads, and for good. After PR_SET_NO_NEW_PRIVS. 0, or -errno: nothing has changed, and *ret_why says
 * why. */
int syscalls_confine(const char **ret_why) MUST_USE;
/* A descriptor to wait on for refused calls, for the process's life; -1: they are not told on this machine. */
int syscalls_refused_fd(void);
/* The next call that was refused; false: none. Puts its name into name[size]. */
bool syscalls_refused(char *name, size_t size, int *ret_number);

#endif
