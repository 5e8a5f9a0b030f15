/* sasl.h - SASL without I/O, both roles: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login),
 * CRAM-MD5 (RFC 2195), SCRAM-SHA-256 (RFC 5802, RFC 7677; no channel binding).
 *
 * Layer: proto. Messages go in and out as bytes: base64, the lines of SMTP and "*" are the
 * caller's. No clock, no chance: nonces are given. Buffers that held secrets are wiped.
 *
 * Names and passwords are compared as they are, without SASLprep (RFC 4013): text that is not
 * ASCII must be typed in the same normal form that the server keeps.
 */
#ifndef TERN_PROTO_SASL_H
#define TERN_PROTO_SASL_H

#include "crypto/password.h"

enum sasl_mechanism {
    SASL_NONE, /* no such mechanism */
    SASL_PLAIN,
    SASL_LOGIN,
    SASL_CRAM_MD5,
    SASL_SCRAM_SHA_256,
};
enum { SASL_MECHANISMS = SASL_SCRAM_SHA_256 + 1 };
/* A set of mechanisms is a bit for each. */
#define SASL_BIT(mechanism) (1u << (mechanism))

enum {
    SASL_MAX_USER = 255, /* octets (RFC 4616 section 2) */
    SASL_MAX_PASSWORD = PASSWORD_MAX,
    SASL_MAX_MESSAGE = 4096, /* octets of any message, either way */
    SASL_MAX_NONCE = 128,
};

/* "PLAIN"; NULL for SASL_NONE. */
const char *sasl_name(enum sasl_mechanism m);
/* Whatever the case; SASL_NONE when it is not known. */
enum sasl_mechanism sasl_find(struct str name);
/* The password itself crosses the wire (PLAIN, LOGIN). */
static inline bool sasl_is_clear(enum sasl_mechanism m)
{
    return m == SASL_PLAIN || m == SASL_LOGIN;
}

/* ---- client ---- */

struct sasl_credentials {
    struct str user, password;
    struct str authzid; /* whom to act for; usually empty. PLAIN and SCRAM only */
};

struct sasl_client;

/* Copies what it needs. `nonce` is for SCRAM only: 18 octets of chance or more, as text (base64):
 * printable ASCII without a comma, at most SASL_MAX_NONCE. -EINVAL for what the mechanism cannot
 * carry: an empty or overlong user or password, NUL, a bad nonce. -ENOMEM. */
int sasl_client_new(enum sasl_mechanism m, const struct sasl_credentials *cred, struct str nonce,
                    struct sasl_client **ret);
struct sasl_client *sasl_client_free(struct sasl_client *c);

/* True when the mechanism lets the client speak first (PLAIN, SCRAM-SHA-256): then *ret is the
 * initial response, to go with the command. Who does not ask gives it at the first, empty
 * challenge (step). Lives until the next call. */
bool sasl_client_initial(struct sasl_client *c, struct str *ret);
/* The response to a challenge; it may be empty, and lives until the next call.
 *   0            *ret is the response
 *   -EPROTO      the server's challenge is not of this mechanism, or one too many: cancel ("*")
 *   -EKEYREJECTED  the server could not show that it knows the password: cancel, and do not trust
 *                it with mail (SCRAM)
 *   -ENOTSUP, -ENOMEM  see digest.h */
int sasl_client_step(struct sasl_client *c, struct str challenge, struct str *ret);
/* The exchange is complete for this side. A server's success before that is a lie: for SCRAM it
 * would mean that the server never proved to know the password. */
bool sasl_client_done(const struct sasl_client *c);
/* The response that was given last; empty before the first. Mostly a secret. */
struct str sasl_client_last(const struct sasl_client *c);

/* ---- server ---- */

enum sasl_event {
    SASL_CHALLENGE = 1, /* send `message`, wait for the response */
    SASL_VERIFY,        /* user and password are here: answer with sasl_server_verified */
    SASL_SECRET,        /* the user is known, a proof comes: answer with sasl_server_secret */
    SASL_OK,            /* who it is: `user` */
    SASL_FAILED,        /* `why` for the log; the peer is told the same whatever it is */
};

struct sasl_server_event {
    enum sasl_event type;
    struct str message;  /* CHALLENGE */
    struct str user;     /* VERIFY, SECRET, OK; and FAILED when it was reached: 1 to SASL_MAX_USER
                            octets of UTF-8 without control characters */
    struct str password; /* VERIFY: 1 to SASL_MAX_PASSWORD octets without NUL */
    const char *why;     /* FAILED: static */
};

struct sasl_server_options {
    struct str host;  /* in the challenge of CRAM-MD5 */
    struct str nonce; /* text as the client's; CRAM-MD5 and SCRAM */
    /* Makes up the salts of users that do not exist, or whose entry has none: the same user gets
     * the same salt each time. 32 octets of chance, one key for the whole process. */
    const uint8_t *salt_key;
};

struct sasl_server;

/* NULL when out of memory. Nothing of *opt is kept. */
struct sasl_server *sasl_server_new(enum sasl_mechanism m, const struct sasl_server_options *opt);
struct sasl_server *sasl_server_free(struct sasl_server *s);
enum sasl_mechanism sasl_server_mechanism(const struct sasl_server *s);
/* The client may begin (all but CRAM-MD5; LOGIN's user name is taken, as much software sends it). */
bool sasl_server_takes_initial(const struct sasl_server *s);

/* All return 0 with *ret filled, or -ENOMEM, -ENOTSUP (see digest.h). What *ret points at lives
 * until the next call. After OK or FAILED the server is spent. */
/* `initial`: NULL when the client sent none. */
int sasl_server_start(struct sasl_server *s, const struct str *initial,
                      struct sasl_server_event *ret);
int sasl_server_step(struct sasl_server *s, struct str response, struct sasl_server_event *ret);
/* After VERIFY. */
int sasl_server_verified(struct sasl_server *s, bool fits, struct sasl_server_event *ret);
/* After SECRET. known: `entry` is this user's. Else it is a decoy, some other user's entry: the
 * exchange looks and lasts as it would for that one, with a salt made up, and fails. NULL, or one
 * that the mechanism cannot use (CRAM-MD5 needs PLAIN, SCRAM that or its own), is as unknown. */
int sasl_server_secret(struct sasl_server *s, const struct password_entry *entry, bool known,
                       struct sasl_server_event *ret);
/* Makes SCRAM's entry of one that is the password itself, with the salt that the exchange would make
 * up. The exchange can do that by itself, but it takes some milliseconds: for who has a thread to
 * spare. Leaves other entries alone. 0, or as above. */
int sasl_entry_derive(struct password_entry *entry, struct str user, const uint8_t *salt_key);
/* The entry serves the mechanism. */
bool sasl_entry_serves(const struct password_entry *entry, enum sasl_mechanism m);

#endif
