/* auth.h - one exchange of AUTH: the SASL mechanism, the `auth` hook, the password file.
 *
 * Layer: engine. The session owns an exchange from its first line to its outcome, and speaks SMTP;
 * this decides. The hook is asked first; what it has no opinion on is looked up in the password
 * file. A user that is in neither gets the same answers as a wrong password, and, where there is a
 * file, in the same time.
 * Nothing here is logged, and secrets are wiped.
 */
#ifndef TERN_ENGINE_AUTH_H
#define TERN_ENGINE_AUTH_H

#include "engine/context.h"

struct auth_outcome {
    /* 334: go on, the text is the challenge's octets; 235: it is `identity`; else it failed. */
    struct smtp_reply reply;
    enum sasl_mechanism mechanism;
    struct str user;     /* as far as it is known */
    struct str identity; /* 235 */
    struct str policy;   /* who decided: place of the hook; "passwords"; empty: nobody could */
    const char *why;     /* failed: for the log */
};

struct auth;
/* The outcome lives during the call. */
typedef void auth_done(void *owner, const struct auth_outcome *outcome);

/* `session` outlives the exchange. NULL: out of memory. */
struct auth *auth_new(struct engine *e, struct snapshot *snapshot,
                      const struct session_view *session, enum sasl_mechanism m, auth_done *done,
                      void *owner);
struct auth *auth_free(struct auth *a); /* cancels; NULL is fine */
/* What the client says next; NULL: nothing (a command without an initial response). 1: *ret is
 * filled in, and lives until the next call; 0: done will be called, on a later turn. */
int auth_say(struct auth *a, const struct str *response, const struct auth_outcome **ret);

/* The mechanisms that a session may be offered: as configured, as the password file allows, or
 * PLAIN and LOGIN for a hook. 0: there is nothing to authenticate by. */
uint32_t auth_mechanisms(struct engine *e, const struct snapshot *snapshot);

#endif
