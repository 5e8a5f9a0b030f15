/* spool_helper.h - what the tests of the spool share: a folder, a worker without a loop, units. */
#ifndef SPOOL_HELPER_H
#define SPOOL_HELPER_H

#include <pthread.h>

#include "spool/spool.h"

/* A new folder's path for a spool (not made yet), and its removal with all that is in it. */
char *spool_folder(void);
void spool_folder_remove(char *path);

/* Stands for a worker: posted messages wait until it runs them. */
struct worker {
    struct port_workers workers;
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct worker_message *head, **tail;
    size_t posts; /* messages run */
    struct port_spool *port;
};
void worker_init(struct worker *w, int number, struct spool *s);
void worker_done(struct worker *w);
/* Waits for messages and runs all of them. */
void worker_turn(struct worker *w);

/* A unit under construction, with what it points to. */
enum { UNIT_CHANGES = 16, UNIT_SIZE = 100 };
struct unit {
    struct spool_op op;
    struct spool_change change[UNIT_CHANGES];
    struct body *body;
    bool done;
    void (*then)(struct unit *u);
    void *owner;
};
void unit_init(struct unit *u);
void unit_message(struct unit *u, struct msgid id, struct str envelope, struct body *body);
void unit_stage(struct unit *u, struct msgid id, uint32_t chunk, struct str bytes);
void unit_unstage(struct unit *u, struct msgid id);
void unit_put(struct unit *u, struct msgid id, uint32_t n, const char *queue, enum spool_class c,
              int64_t due, const char *record);
void unit_delete(struct unit *u, struct msgid id, uint32_t n);
void unit_queue(struct unit *u, const char *queue, struct str record);
void unit_free(struct unit *u); /* the body; not the unit */

void unit_submit(struct unit *u, struct worker *w);
/* Submits and waits; frees the body; the result. */
int unit_run(struct unit *u, struct worker *w);

/* A message with one recipient (number 0, record "r", envelope "e"). size: of its body. */
int put_simple(struct worker *w, struct msgid id, const char *queue, int64_t due, size_t size);
int delete_simple(struct worker *w, struct msgid id, uint32_t n);

/* Ids that sort like their numbers. */
struct msgid id_of(uint64_t number);
/* A body of n bytes that depend on `seed`. */
struct body *body_of(size_t n, unsigned seed);
bool body_matches(struct port_spool *port, struct msgid id, size_t n, unsigned seed);

/* Opens; fails the test with the text when it cannot. */
struct spool *open_spool(const struct spool_options *o);
/* spool_check with its problems on standard error. */
int64_t check_spool(struct spool *s);

#endif
