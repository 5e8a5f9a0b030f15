/* queue_walk.h - through the spool in small steps, for what a filter means.
 *
 * Layer: daemon. Reads by the port that it is given (the main thread's, or that of a tool beside the router), in that
 * port's thread. Each step looks at a bounded number of entries and keeps only its place: neither memory
 * nor the time that others wait grows with the queue.
 *
 * The way is the cheapest one: along the ids that were given; through the indexes of the queues whose names
 * fit, when the filter names some; else through all recipients in the order of ids, from the age where
 * the filter begins to the one where it ends. What comes after the walk has begun is passed over, and so are rows that
 * are damaged (tern spool check tells of those). Ids that are given mean what they name, whenever it came.
 * Along an index a recipient that is moved forward meanwhile is found twice: what is done to
 * what is found must bear that.
 */
#ifndef TERN_DAEMON_QUEUE_WALK_H
#define TERN_DAEMON_QUEUE_WALK_H

#include "daemon/queue_filter.h"

enum { QUEUE_WALK_LOOK = 256, QUEUE_WALK_CURSOR = 512 };

/* One recipient that is meant. */
struct queue_match {
    struct msgid id;
    uint32_t n;
    enum spool_class class_;
    int64_t due_ms;
    uint64_t size; /* of its message */
    char queue[SPOOL_MAX_QUEUE_NAME + 1];
};

struct queue_walk;
/* filter and ids are borrowed. ids: at most n_ids messages, and no others; NULL: any. NULL: no memory. */
struct queue_walk *queue_walk_new(struct port_spool *spool, const struct queue_filter *filter,
                                  const struct msgid *ids, size_t n_ids, int64_t now_ms);
struct queue_walk *queue_walk_free(struct queue_walk *w);
/* Which classes are looked at besides what the filter says: a bit each. Default: all. */
void queue_walk_classes(struct queue_walk *w, unsigned classes);
/* One step: how many matches (at most max), or -errno. None does not mean the end. */
int queue_walk_next(struct queue_walk *w, struct queue_match *ret, size_t max);
bool queue_walk_ended(const struct queue_walk *w);
uint64_t queue_walk_scanned(const struct queue_walk *w); /* entries looked at */

/* The place, for who goes on later with the same filter; not along ids. dst: QUEUE_WALK_CURSOR bytes. */
const char *queue_walk_cursor(const struct queue_walk *w, char *dst);
bool queue_walk_resume(struct queue_walk *w, struct str cursor);

/* Does the filter mean this recipient too? Reads it. 1 with *ret, 0, or -errno. */
int queue_walk_test(struct queue_walk *w, const struct msgid *id, uint32_t n,
                    struct queue_match *ret);

#endif
