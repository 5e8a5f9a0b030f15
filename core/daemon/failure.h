/* failure.h - why something that an operator asked for was not done: a text for people, an exit code.
 *
 * Layer: daemon. A value. The text says what is wrong, with which file or address, and how to mend it.
 */
#ifndef TERN_DAEMON_FAILURE_H
#define TERN_DAEMON_FAILURE_H

#include "base/err.h"

struct failure {
    int exit_code; /* sysexits.h; the list is in cmd.h */
    char text[1536];
    char detail[2048]; /* a traceback; or "" */
};

/* Fills in *f. Always returns -1. */
int failure_set(struct failure *f, int exit_code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The exit code for a refusal of the system, 0 or -errno. */
int exit_code_of(int error);
/* Control octets but those of kept become '?'. */
void failure_clean(char *text, const char *kept);
/* "tern: <text>" on stderr, and the detail. Returns the exit code. */
int failure_print(const struct failure *f);

#endif
