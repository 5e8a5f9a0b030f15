/* recode_internal.h - what the files of recode share. Layer: mail, internal.
 *
 * recode.c: the structure of a message and what is decided of each part. recode_field.c: Content-Type
 * and Content-Transfer-Encoding. recode_encode.c: quoted-printable and base64.
 */
#ifndef TERN_MAIL_RECODE_INTERNAL_H
#define TERN_MAIL_RECODE_INTERNAL_H

#include "mail/recode.h"

/* ---- fields ---- */

enum { RECODE_BOUNDARY = 200 }; /* RFC 2046 allows 70 */

enum recode_kind {
    RECODE_TEXT, /* or nothing said */
    RECODE_OTHER,
    RECODE_MULTIPART,
    RECODE_SIGNED,
    RECODE_MESSAGE,       /* message/rfc822 and its like: a message is in it */
    RECODE_OTHER_MESSAGE, /* message/..., which must not be encoded */
    RECODE_UNREADABLE,
};

struct recode_type {
    enum recode_kind kind;
    bool digest; /* multipart/digest: parts are messages unless they say otherwise */
    size_t boundary_n;
    char boundary[RECODE_BOUNDARY];
};

/* The value of a Content-Type field, unfolded. */
void recode_read_type(struct str value, struct recode_type *ret);

enum recode_cte { CTE_NONE, CTE_7BIT, CTE_8BIT, CTE_BINARY, CTE_ENCODED };
enum recode_cte recode_read_cte(struct str value);

/* ---- encoders ---- */

enum { RECODE_B64_LINE = 57 };

struct recode_encoder {
    struct buf *out;
    size_t n;   /* base64: octets that wait; quoted-printable: characters in the line */
    bool lines; /* base64: there is one already */
    bool soft;  /* quoted-printable: the line began behind a soft break */
    char blank; /* quoted-printable: that waits for what follows it; 0: none */
    char octets[RECODE_B64_LINE];
};

void recode_qp_text(struct recode_encoder *e, struct str text); /* no line ends: they are encoded */
void recode_qp_break(struct recode_encoder *e);                 /* a line's end */
/* open: the line's end that follows in the output is none of the content. */
void recode_qp_end(struct recode_encoder *e, bool open);
void recode_b64(struct recode_encoder *e, struct str octets);
void recode_b64_end(struct recode_encoder *e);

#endif
