/* passwords.h - the password file of the running router, and the threads that check passwords.
 *
 * Layer: daemon. One for the process. Workers ask through a port each (engine/ports.h); what they
 * ask is done by PASSWORDS_THREADS threads of its own, because a check may take a quarter of a
 * second (crypto/password.h) and the file may have to be read again. At most PASSWORDS_WAITING
 * questions wait; who comes then is told to try again.
 *
 * The file is looked at before a question is answered, at most once a second. When it has changed
 * it is read again; when it is wrong then, what was read before stays in force, and the log says
 * which line is wrong.
 */
#ifndef TERN_DAEMON_PASSWORDS_H
#define TERN_DAEMON_PASSWORDS_H

#include "daemon/failure.h"
#include "daemon/journal.h"
#include "engine/ports.h"

enum { PASSWORDS_THREADS = 2, PASSWORDS_WAITING = 256 };

/* One reading of a file. */
struct password_list;

/* -1 with *f: it cannot be read, others can read it, or a line is wrong. */
int password_list_load(const char *path, struct password_list **ret, struct failure *f) MUST_USE;
struct password_list *password_list_unref(struct password_list *l);
size_t password_list_count(const struct password_list *l);

struct passwords;

/* main, journal: the main thread's, for what is to be logged. salt_key: of struct engine_shared; it
 * outlives this. NULL: out of memory. */
struct passwords *passwords_new(struct port_workers *main, struct journal *journal,
                                const uint8_t *salt_key);
/* After the workers have ended. NULL is fine; returns NULL. */
struct passwords *passwords_free(struct passwords *p);
/* From now on this list is in force (NULL: none); takes a reference of its own. Any thread. */
void passwords_set(struct passwords *p, struct password_list *l);
/* Answers what waits with a refusal, and ends the threads; further questions are refused. */
void passwords_stop(struct passwords *p);

/* Embedded in its worker, whose ports->workers outlive it. */
struct passwords_port {
    struct port_passwords port;
    struct passwords *passwords;
    struct port_workers *workers;
};
void passwords_port_init(struct passwords_port *port, struct passwords *p,
                         struct port_workers *workers);

#endif
