/* passwords.h - a password file in memory, as the engine's port.
 *
 * Layer: sim. Answers a moment later, as threads of the daemon would. The text may be replaced at
 * any time.
 */
#ifndef TERN_SIM_PASSWORDS_H
#define TERN_SIM_PASSWORDS_H

#include "crypto/password_file.h"
#include "sim/clock.h"

enum { SIM_PASSWORDS_MS = 20 };

struct sim_passwords {
    struct port_passwords port;
    struct sim_clock *clock;
    struct password_file *file; /* NULL: none */
    struct list asks;
    bool busy; /* every question is answered -EAGAIN */
};

void sim_passwords_init(struct sim_passwords *p, struct sim_clock *clock);
void sim_passwords_done(struct sim_passwords *p);
/* Lines of "user:entry"; "" for none. 0, or -EINVAL with the line and why (PASSWORD_FILE_ERROR). */
int sim_passwords_set(struct sim_passwords *p, struct str text, unsigned *ret_line, char *ret_why);

#endif
