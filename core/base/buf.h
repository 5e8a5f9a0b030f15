/* buf.h - a growable byte buffer with a limit, consumed from the front.
 *
 * Layer: base. Owns its heap block. Embedded in its owner: buf_init / buf_done.
 * Bytes between start and end are the content. An error is sticky: after a failed append
 * (-ENOMEM, or -EMSGSIZE past max) `failed` stays set until buf_clear, so that a run of appends
 * needs one check at its end.
 */
#ifndef TERN_BASE_BUF_H
#define TERN_BASE_BUF_H

#include <stdarg.h>

#include "base/err.h"
#include "base/str.h"

struct buf {
    char *data;
    size_t start, end, cap;
    size_t max; /* bytes of content allowed; 0: no limit but memory */
    int failed; /* 0 or -errno of the first append that did not fit */
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b); /* frees; may be used again after buf_init */

static inline size_t buf_len(const struct buf *b)
{
    return b->end - b->start;
}
/* Valid until the next change of the buffer. */
static inline struct str buf_str(const struct buf *b)
{
    /* NULL + 0 is undefined in C, hence the test. */
    return (struct str){ b->data ? b->data + b->start : NULL, b->end - b->start };
}

/* Appends: 0 or the sticky error. An append adds all or nothing. The bytes must not lie in the
 * buffer itself. */
int buf_add(struct buf *b, const void *bytes, size_t n);
int buf_add_str(struct buf *b, struct str s);
int buf_add_char(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
int buf_vprintf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
int buf_add_int(struct buf *b, int64_t v); /* in decimal */
/* Big-endian integers, and a length-prefixed string (u32 length): for records. */
int buf_add_u8(struct buf *b, uint8_t v);
int buf_add_u16(struct buf *b, uint16_t v);
int buf_add_u32(struct buf *b, uint32_t v);
int buf_add_u64(struct buf *b, uint64_t v);
int buf_add_lstr(struct buf *b, struct str s);

/* Room for n more bytes: pointer to write at, or NULL (failed is set). Then buf_added(n). */
char *buf_room(struct buf *b, size_t n);
void buf_added(struct buf *b, size_t n);

/* Drops n bytes at the front. The block stays for the next append; buf_shrink lets it go, so that
 * idle sessions hold no buffers. */
void buf_consume(struct buf *b, size_t n);
void buf_clear(struct buf *b);
/* Frees the block when the buffer is empty. */
void buf_shrink(struct buf *b);

/* Reading records back: each takes from the front of *s; false when too short (then *s is spent). */
bool take_u8(struct str *s, uint8_t *ret);
bool take_u16(struct str *s, uint16_t *ret);
bool take_u32(struct str *s, uint32_t *ret);
bool take_u64(struct str *s, uint64_t *ret);
bool take_lstr(struct str *s, struct str *ret);
bool take_bytes(struct str *s, size_t n, struct str *ret);

#endif
