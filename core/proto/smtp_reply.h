/* smtp_reply.h - a reply of RFC 5321 §4.2 with its enhanced code (RFC 2034, 3463): writing and
 * reading.
 *
 * Layer: proto. A struct smtp_reply is a value that points to text owned by someone else.
 */
#ifndef TERN_PROTO_SMTP_REPLY_H
#define TERN_PROTO_SMTP_REPLY_H

#include "base/buf.h"
#include "base/str.h"

/* Enhanced status code; class 0: none. */
struct smtp_enhanced {
    uint8_t class_; /* 2, 4, 5 */
    uint16_t subject, detail;
};
#define ENH(c, s, d) ((struct smtp_enhanced){ (c), (s), (d) })
#define ENH_NONE     ((struct smtp_enhanced){ 0, 0, 0 })

struct smtp_reply {
    uint16_t code; /* 200-559; 0: no reply */
    struct smtp_enhanced enhanced;
    struct str text; /* lines joined by '\n', no CR */
};
#define REPLY(code_, enh_, text_) ((struct smtp_reply){ (code_), (enh_), STR(text_) })

static inline bool smtp_reply_positive(const struct smtp_reply *r)
{
    return r->code >= 200 && r->code < 300;
}
static inline bool smtp_reply_transient(const struct smtp_reply *r)
{
    return r->code >= 400 && r->code < 500;
}
static inline bool smtp_reply_permanent(const struct smtp_reply *r)
{
    return r->code >= 500 && r->code < 600;
}

/* Writes "250-5.1.1 text\r\n..." : control bytes in the text become '?', lines longer than 512
 * octets are split (at a space if there is one, never inside a UTF-8 sequence), the enhanced code
 * stands in every line (class and code must agree, else the enhanced code is left out). -EINVAL: a
 * code outside 200..599; nothing is written. Other errors are those of the buffer. */
int smtp_reply_write(const struct smtp_reply *r, struct buf *out);
/* "5.1.1 "; "" without one. dst has 16 bytes. */
const char *smtp_enhanced_text(struct smtp_enhanced e, char *dst);
/* "5.1.1" -> value; -EINVAL. */
int smtp_enhanced_parse(struct str s, struct smtp_enhanced *ret);

/* Incremental reader of one (multi-line) reply. Bounded: a line over 4096 octets (we are more
 * generous than the RFC), over 256 lines or over 64 KiB of text is -EPROTO; so are a bare LF, a
 * code outside 200..599, and codes that differ between lines. Text beyond 16 KiB is dropped. */
struct smtp_reply_reader {
    struct buf line; /* the part of a line that has come so far */
    struct buf text;
    uint32_t octets; /* of all lines, dropped ones too */
    uint16_t code;
    struct smtp_enhanced enhanced;
    uint16_t lines;
    bool done;
    int error; /* sticky */
};
void smtp_reply_reader_init(struct smtp_reply_reader *r);
void smtp_reply_reader_done(struct smtp_reply_reader *r);
/* A reply of a line that comes whole can then be read, whatever becomes of memory. The text of the last one is gone.
 * 0, -ENOMEM. */
int smtp_reply_reader_reserve(struct smtp_reply_reader *r) MUST_USE;
/* Takes bytes off *in. 1: *ret is complete (its text lives until the next call); 0: needs more, all
 * of *in is taken; -EPROTO, -ENOMEM: sticky, the reader is of no more use. Control bytes in the
 * text become '?'. The enhanced code is taken off each line that repeats it. */
int smtp_reply_read(struct smtp_reply_reader *r, struct str *in, struct smtp_reply *ret);

#endif
