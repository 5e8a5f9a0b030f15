/* sasl_text.h - what both roles of sasl.h share: the texts of SCRAM and CRAM-MD5.
 *
 * Layer: proto; only sasl_*.c include it.
 */
#ifndef TERN_PROTO_SASL_TEXT_H
#define TERN_PROTO_SASL_TEXT_H

#include "base/base64.h"
#include "proto/sasl.h"

/* Takes "k=value" and its comma off the front; false when it is not there. */
bool scram_take(struct str *text, char key, struct str *ret_value);
/* Printable ASCII without a comma, 1 to SASL_MAX_NONCE. */
bool scram_nonce_ok(struct str nonce);
/* A saslname: ',' and '=' are written =2C and =3D. */
void scram_add_name(struct buf *out, struct str name);
/* Into dst, which has SASL_MAX_USER octets: 0, -EINVAL. */
int scram_read_name(struct str text, char *dst, size_t *ret_n);
/* What is told of a user: UTF-8 without control characters, 1 to SASL_MAX_USER. */
bool sasl_user_ok(struct str user);
/* Lower-case digits of HMAC-MD5: 32 characters. */
int cram_md5_proof(struct str password, struct str challenge, char ret[2 * DIGEST_MD5_SIZE]);
/* A buffer whose bytes never move, so that wiping it leaves no copy. 0, -ENOMEM. */
int sasl_buf_init(struct buf *b);
void sasl_buf_done(struct buf *b);
void sasl_buf_clear(struct buf *b);

#endif
