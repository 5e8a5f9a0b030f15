/* credentials.h - who we are to a host that asks for it (ROUTING.md S7).
 *
 * Layer: mail. Counted without atomics: one worker's. The bytes are wiped when the last user lets go.
 *
 * A route names its credentials and does not hold them, because it is written into the spool and
 * shown to people. The name is "user/" and 16 hex digits, made of all that stands in here under the
 * key of this process: other credentials have another name; the same ones have the same name in all
 * workers and after a reload; and it says nothing of the password to who reads it. After a restart
 * the names in the spool are strange: the queued recipient's route is asked for anew.
 */
#ifndef TERN_MAIL_CREDENTIALS_H
#define TERN_MAIL_CREDENTIALS_H

#include "base/str.h"

enum { CREDENTIALS_MAX_USER = 255, CREDENTIALS_MAX_PASSWORD = 1024 }; /* octets */

struct credentials {
    unsigned refs;
    struct str name, user, password;
    uint32_t mechanisms; /* that may be used, as SASL_BIT (proto/sasl.h); 0: all */
    bool allow_clear;    /* PLAIN and LOGIN may be used without TLS */
};

/* Copies all. NULL: out of memory. user: not empty; both within their limits. */
struct credentials *credentials_new(struct str user, struct str password, uint32_t mechanisms,
                                    bool allow_clear);
struct credentials *credentials_ref(struct credentials *c);   /* NULL is fine */
struct credentials *credentials_unref(struct credentials *c); /* returns NULL */
/* The part of a name that people may see. */
struct str credentials_user(struct str name);

#endif
