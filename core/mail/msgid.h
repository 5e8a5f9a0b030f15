/* msgid.h - identity of a message: 16 bytes, ordered by time, unique across restarts and nodes.
 *
 * Layer: mail. 48 bits of milliseconds since 1970, 16 bits of counter, 64 bits drawn at random per
 * generator (a worker has its own). As text: 26 characters of Crockford's base32, upper case,
 * sorting like the bytes.
 */
#ifndef TERN_MAIL_MSGID_H
#define TERN_MAIL_MSGID_H

#include "base/err.h"
#include "base/str.h"

enum { MSGID_TEXT = 27 }; /* with NUL */

struct msgid {
    uint8_t b[16];
};

struct msgid_source {
    uint64_t node; /* random */
    int64_t last_ms;
    uint16_t counter;
};

void msgid_source_init(struct msgid_source *s, uint64_t random);
/* Never returns the same twice, and never one smaller than the last, even when the clock steps back. */
struct msgid msgid_next(struct msgid_source *s, int64_t wall_ms);
int64_t msgid_time(const struct msgid *id); /* ms since 1970 */
struct msgid msgid_first(int64_t wall_ms);  /* no id of that millisecond is smaller */
const char *msgid_text(const struct msgid *id, char *dst); /* dst has MSGID_TEXT bytes */
int msgid_parse(struct str s, struct msgid *ret);          /* any case; -EINVAL */
static inline int msgid_cmp(const struct msgid *a, const struct msgid *b)
{
    return memcmp(a->b, b->b, sizeof a->b);
}

#endif
