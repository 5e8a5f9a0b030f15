/* cmd_queue.h - what the files of `tern queue` share.
 *
 * Layer: daemon. cmd_queue.c: the command line, and queues; cmd_queue_list.c: messages; cmd_queue_order.c: what
 * operators do to them; cmd_queue_export.c and cmd_queue_import.c: messages and files.
 */
#ifndef TERN_DAEMON_CMD_QUEUE_H
#define TERN_DAEMON_CMD_QUEUE_H

#include "daemon/args.h"
#include "daemon/control_client.h"

enum { QUEUE_CONDITIONS = 12 };

struct queue_command_line {
    struct client client;
    const char *filter[QUEUE_CONDITIONS]; /* in the order of queue_filter_names; NULL: not given */
    const char *limit, *after, *reason, *to;
    bool content, all, dry_run;
    struct arg_list operands; /* the verb first */
};

/* ---- cmd_queue.c ---- */

/* Encodes `before` + one part + `after` of a path. On the heap; NULL: out of memory. */
char *queue_target(const char *before, const char *part, const char *after);
/* path?limit=...&after=..., and the conditions of the filter. On the heap; NULL: out of memory. limit and after
 * may be NULL. */
char *queue_page_target(const struct queue_command_line *q, const char *path, const char *limit,
                        const char *after);
/* "There is more", when there is. */
void queue_print_more(const json_t *answer, const char *command);
/* How many conditions are given. */
size_t queue_conditions(const struct queue_command_line *q);
/* The name of one queue and nothing else: it is meant as a whole. NULL: not so. */
const char *queue_only(const struct queue_command_line *q);
int queue_no_memory(struct failure *f); /* -1 */

/* ---- cmd_queue_list.c ---- */

int queue_list(struct queue_command_line *q, struct failure *f);
int queue_show(struct queue_command_line *q, struct failure *f);
/* A table of what a list of messages, as the API tells it, contains. False: it is empty. */
bool queue_print_messages(const json_t *messages);

/* ---- cmd_queue_export.c, cmd_queue_import.c ---- */

int queue_export(struct queue_command_line *q, struct failure *f);
int queue_import(struct queue_command_line *q, struct failure *f);

/* ---- cmd_queue_order.c ---- */

/* NULL-pointed: the verb is none of these. */
struct queue_verb;
const struct queue_verb *queue_verb_of(const char *name);
/* The exit code; <0: *f says why. */
int queue_order(struct queue_command_line *q, const struct queue_verb *v, struct failure *f);
int queue_operations(struct queue_command_line *q, struct failure *f);
int queue_cancel(struct queue_command_line *q, struct failure *f);

#endif
