/* queue_filter.h - which recipients in the queue an operator means.
 *
 * Layer: daemon; no I/O. A filter is a set of conditions that must all hold. They are given one by one, by
 * name and as text, as the command line and the control API have them (docs/queue.md), and tested in the
 * order of what they cost: the keys of the spool's indexes (queue, class, due time, age), rows (size),
 * then decoded records of recipients, then envelopes.
 *
 * Ownership: the filter has its own arena; it is freed by queue_filter_done. Times are wall milliseconds.
 */
#ifndef TERN_DAEMON_QUEUE_FILTER_H
#define TERN_DAEMON_QUEUE_FILTER_H

#include "base/err.h"
#include "engine/ports.h"
#include "mail/message.h"

enum { QUEUE_FILTER_TEXT = 1024, QUEUE_FILTER_ERROR = 1536 };

enum queue_filter_state {
    FILTER_ANY_STATE,
    FILTER_READY,     /* its time has come */
    FILTER_ACTIVE,    /* being delivered: only its queue's owner knows */
    FILTER_DEFERRED,  /* its time has not come */
    FILTER_SCHEDULED, /* these three */
    FILTER_WAITING,   /* for ETRN */
    FILTER_HELD,      /* by an operator, one by one */
};

/* An address, all of a domain, the null sender, or a pattern. */
struct filter_address {
    enum { FILTER_NO_ADDRESS, FILTER_ADDRESS, FILTER_DOMAIN, FILTER_NULL_SENDER, FILTER_GLOB } kind;
    struct str local;
    struct str text; /* ADDRESS, DOMAIN: the domain's normal form or a pattern; GLOB */
};

/* "451", "4xx", "4.7.1", "4.x.x" or a text. -1: anything. */
struct filter_reply {
    enum { FILTER_NO_REPLY, FILTER_CODE, FILTER_ENHANCED, FILTER_TEXT } kind;
    int part[3]; /* digits of the code; class, subject, detail */
    struct str text;
};

struct queue_filter {
    struct arena arena;
    struct str queue;
    bool queue_is_pattern;
    struct str destination; /* domain of the recipient */
    struct filter_address sender, recipient;
    int64_t older_ms, newer_ms; /* -1: any */
    uint64_t larger, smaller;   /* 0 and UINT64_MAX: any */
    enum queue_filter_state state;
    struct filter_reply reply;
    struct str route, policy;
    unsigned n; /* conditions */
};

void queue_filter_init(struct queue_filter *f);
void queue_filter_done(struct queue_filter *f);
/* The names of all conditions: "queue", ..., "policy", NULL. */
extern const char *const queue_filter_names[];
/* One condition. -ENOENT: there is none of that name; -EINVAL: the value is none; -EEXIST: it was given
 * before; -ENOMEM. Then `error` (QUEUE_FILTER_ERROR bytes) says what is wrong. */
int queue_filter_set(struct queue_filter *f, struct str name, struct str value, char *error);
/* When all are there: conditions that nothing can fulfil are an error (-EINVAL, as above). */
int queue_filter_check(const struct queue_filter *f, char *error);

/* Which indexes can hold what is meant. */
bool queue_filter_class(const struct queue_filter *f, enum spool_class c);
bool queue_filter_queue(const struct queue_filter *f, struct str queue);
/* Class, due time and age. An ACTIVE one is any that can be. */
bool queue_filter_key(const struct queue_filter *f, enum spool_class c, int64_t due_ms,
                      const struct msgid *id, int64_t now_ms);
bool queue_filter_size(const struct queue_filter *f, uint64_t size);
bool queue_filter_needs_recipient(const struct queue_filter *f);
/* The arena is for scratch. */
bool queue_filter_recipient(const struct queue_filter *f, const struct recipient *r,
                            struct arena *scratch);
bool queue_filter_sender(const struct queue_filter *f, const struct address *sender);
/* Messages that came before this time, or after, are not meant: ids are ordered by time. */
int64_t queue_filter_first_ms(const struct queue_filter *f, int64_t now_ms);
int64_t queue_filter_last_ms(const struct queue_filter *f, int64_t now_ms);

#endif
