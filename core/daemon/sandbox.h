/* sandbox.h - the router confines itself: to the files and folders that its configuration names (landlock.h), and
 * to the system calls that it makes (syscalls.h).
 *
 * Layer: daemon, main thread. Made once, after the configuration is known, ports are bound and privileges given
 * up, and before any other thread is there: all threads have it, for good. What a later configuration names must
 * lie within, else the reload is refused with the advice to restart. Where a kernel cannot do all of it the router
 * does what there is, and says so in the log and in `tern status`.
 */
#ifndef TERN_DAEMON_SANDBOX_H
#define TERN_DAEMON_SANDBOX_H

#include <jansson.h>

#include "daemon/failure.h"
#include "daemon/journal.h"
#include "daemon/privileges.h"
#include "engine/settings.h"
#include "lua/policy.h"

struct sandbox;

/* identity and settings->sandbox say what is to be done. The files of source must be readable to what we are now,
 * or it fails: a reload could not read them either. -1 with *f. */
int sandbox_new(const struct settings *settings, const struct policy_source *source,
                const struct identity *identity, struct sandbox **ret, struct failure *f) MUST_USE;
/* When nothing reads by sandbox_files any more. Lifts nothing. NULL is fine; returns NULL. */
struct sandbox *sandbox_free(struct sandbox *s);

/* From now on each kind of system call that is refused is told to the journal, once. Says there, too, what this
 * system could not do. -ENOMEM. */
int sandbox_tell(struct sandbox *s, struct io_loop *loop, struct journal *journal) MUST_USE;

/* May a reload take these settings? -1 with *f: something lies outside. */
int sandbox_check(const struct sandbox *s, const struct settings *next, struct failure *f) MUST_USE;
/* What reloads read policies with. */
const struct policy_files *sandbox_files(struct sandbox *s);
/* A reload failed: adds the advice to restart when a file was out of reach. */
void sandbox_explain(struct sandbox *s, struct failure *f);

/* "landlock 7, seccomp", "seccomp", "off": lives as long as s. */
const char *sandbox_text(const struct sandbox *s);
uint64_t sandbox_refused(const struct sandbox *s); /* system calls so far */
/* For the control API. */
json_t *sandbox_json(const struct sandbox *s);

#endif
