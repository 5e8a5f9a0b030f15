/* base64.h - base64 (RFC 4648 section 4) to and from bytes, strictly.
 *
 * Layer: base. Strict: no blanks or line ends, padding where it belongs, and no bits set that no
 * byte carries, so that there is one text for each value. Nothing here allocates but base64_add.
 */
#ifndef TERN_BASE_BASE64_H
#define TERN_BASE_BASE64_H

#include "base/buf.h"

/* Characters that n bytes become, and bytes that n characters become at most. */
#define BASE64_TEXT(n)  (((n) + 2) / 3 * 4)
#define BASE64_BYTES(n) ((n) / 4 * 3)

/* Appends the text of `bytes`: 0 or the buffer's sticky error. */
int base64_add(struct buf *b, struct str bytes);
/* Writes BASE64_TEXT(bytes.n) characters to dst, no NUL; returns how many. */
size_t base64_encode(struct str bytes, char *dst);
/* Writes the bytes of `text` to dst, which has `size` bytes: 0; -EINVAL when it is no base64,
 * -EMSGSIZE when they do not fit (nothing is written then). dst may be where the text stands. */
int base64_decode(struct str text, void *dst, size_t size, size_t *ret_n);

#endif
