/* history.h - what was tried for a recipient, or for a queue: the record of attempts (ROUTING.md Q12).
 *
 * Layer: mail. A history is a string of bytes with a version in front, which its owner keeps without
 * looking into it: in the spool with the recipient, in memory with the queue. It is bounded: the first
 * attempt and the last ones are kept, those between are counted; texts are cut. An attempt adds to it only
 * when it did not succeed, so mail that is delivered at once has none.
 *
 * Times are wall milliseconds. Strings that come out point into the arena.
 */
#ifndef TERN_MAIL_HISTORY_H
#define TERN_MAIL_HISTORY_H

#include "base/arena.h"
#include "base/buf.h"
#include "proto/smtp_reply.h"

enum {
    HISTORY_FIRST = 1,      /* attempts that are never let go */
    HISTORY_LAST = 8,       /* and the newest ones */
    HISTORY_TRIES = 8,      /* hosts of one attempt */
    HISTORY_HOPS = 16,      /* of a plan; as many records that were left out of it */
    HISTORY_TEXT = 240,     /* octets of a text */
    HISTORY_NAME = 160,     /* of a host, a place, a stage */
    HISTORY_MAX = 6 * 1024, /* of all */
    HISTORY_SMALL = 1024,   /* of all, where memory is short */
};

/* One host, or what went wrong before there was any. */
struct history_try {
    struct str host;         /* "mx.example.com [192.0.2.1]:25"; empty: none */
    struct str tls;          /* "TLSv1.3"; empty: in clear, or it did not come that far */
    struct str stage;        /* "connect", "RCPT TO"; empty: none */
    struct smtp_reply reply; /* code 0: none was given; the text says why */
};

/* Numbers are in the records: new ones at the end. */
enum history_fate { HISTORY_DEFERRED, HISTORY_REROUTED, HISTORY_HOST_FAILED };
const char *history_fate_name(enum history_fate f); /* "deferred", "rerouted", "host_failed" */

struct history_attempt {
    int64_t at_ms;
    uint32_t took_ms;
    uint32_t number; /* of the recipient's attempts, or of the queue's failures in a row; from 1 */
    enum history_fate fate;
    struct str decided_by; /* the `result` hook that decided; empty: none */
    const struct history_try *tries;
    size_t n_tries;
};

struct history_hop {
    struct str host;     /* "mx.example.com [192.0.2.1]:25" */
    uint32_t preference; /* HISTORY_NO_PREFERENCE: a target that was given, not an MX */
};
#define HISTORY_NO_PREFERENCE UINT32_MAX
struct history_discarded {
    struct str what, reason; /* "20 mx2.isp.example", "ourselves" */
};
/* Where the newest attempt could go: what was made of the DNS then. */
struct history_plan {
    int64_t at_ms; /* 0: there is none */
    const struct history_hop *hops;
    size_t n_hops;
    const struct history_discarded *discarded;
    size_t n_discarded;
};

struct history {
    uint32_t left_out; /* attempts between the first and the others */
    struct history_attempt *attempts;
    size_t n;
    struct history_plan plan;
};

/* Empty bytes are an empty history. -EBADMSG, -ENOMEM. */
int history_decode(struct arena *a, struct str in, struct history *ret);
/* Writes `old` with one attempt more, and the plan in place of the one before (NULL, or one without a time:
 * that stays), in at most max octets. An old one that cannot be read is given up. The arena is for scratch.
 * 0, -ENOMEM or the error of `out`. */
int history_add(struct arena *a, struct str old, const struct history_attempt *attempt,
                const struct history_plan *plan, size_t max, struct buf *out);

#endif
