/* control_lookup.h - messages and recipients in the spool, read and told as JSON.
 *
 * Layer: daemon, main thread. What control_messages.c and control_why.c share. Reads are short and go to the
 * spool only: what the owners of queues know is not here.
 */
#ifndef TERN_DAEMON_CONTROL_LOOKUP_H
#define TERN_DAEMON_CONTROL_LOOKUP_H

#include "daemon/control_call.h"
#include "mail/message.h"

/* One message and one of its recipients, decoded. */
struct found {
    struct message *message;
    struct msgid id; /* of `message` */
    struct arena arena;
    struct recipient recipient;
    struct buf bytes;
};

/* Entries of a page, from the recipients' table or a queue's index. */
struct listing {
    struct spool_entry *entries;
    size_t n;
    struct control_cursor last;
    bool more;
};

void found_init(struct found *f);
void found_done(struct found *f);
/* 0, -ENOENT, -EBADMSG, -EIO, -ENOMEM. The message that was found last is read once. */
int control_find_message(struct port_spool *spool, const struct msgid *id, struct found *f);
int control_find_recipient(struct port_spool *spool, const struct msgid *id, uint32_t n,
                           struct spool_entry *entry, struct found *f);
/* Entries of one message behind (id, n), in order; 0 is asked for by itself when from_start. */
int control_list_recipients(struct port_spool *spool, const struct msgid *id, bool from_start,
                            uint32_t after, size_t limit, struct listing *l, struct buf *scratch);

/* `limit` and `after` of the query, and the id in the path. False: the call has been answered. */
bool control_page_arguments(struct control_call *c, bool in_queue, uint64_t *ret_limit,
                            struct control_cursor *ret_after, bool *ret_from_start);
bool control_message_id(struct control_call *c, struct msgid *ret);
/* Answers a read that failed. */
void control_no_such_message(struct control_call *c, int e);

const char *control_class_name(enum spool_class c); /* "scheduled", "waiting", "held" */
/* One line of a list. NULL: it has gone meanwhile. */
json_t *control_entry_json(struct port_spool *spool, const struct msgid *id, uint32_t n,
                           struct found *f);
/* A list of messages is narrowed by more than the name of one queue: control_filtered.c serves it. */
bool control_is_filtered(const struct control_call *c);
json_t *control_message_json(const struct message *m);
/* An array of { op, name, count, place }. */
json_t *control_changes_json(const struct header_change *list, size_t n);
json_t *control_recipient_json(const struct spool_entry *entry, const struct recipient *r);
/* {"attempts": [...], "left_out": 0, "plan": {...}}: bytes of mail/history.h. */
json_t *control_history_json(struct str history);

#endif
