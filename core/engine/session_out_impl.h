/* session_out_impl.h - what the files of session_out share. Layer: engine, internal.
 *
 * session_out_open.c: which connection a user gets. session_out.c: one connection, from dial to its end.
 * session_out_pool.c: those that are idle, and which of them makes room. session_out_recode.c: messages for hosts that
 * take less.
 */
#ifndef TERN_ENGINE_SESSION_OUT_IMPL_H
#define TERN_ENGINE_SESSION_OUT_IMPL_H

#include "engine/session_out.h"
#include "engine/sources.h"

enum session_out_state { OPENING, BUSY, IDLE, QUITTING, GONE };
enum { SESSION_OUT_BUCKETS = 256 };

struct session_out {
    struct list link;   /* connections.open or .quitting */
    struct list bucket; /* IDLE: connections.idle[] */
    struct connections *all;
    struct snapshot *snapshot;
    const struct session_out_events *ev; /* of the user, while OPENING or BUSY */
    void *owner;
    struct stream *stream;
    struct smtp_client *client;
    struct arena arena; /* of the key's strings and facts */
    struct session_out_key key;
    struct host *host;               /* which counts it; NULL: nobody, any more */
    struct credentials *credentials; /* or NULL */
    struct source *source;           /* where it is counted, or NULL */
    enum session_out_fault fault;
    enum session_out_state state;
    bool working, reused, dialled, done_told, leaving; /* done_told: it is not kept after that */
    bool requiretls;                                   /* of the transaction: MAIL says so */
    int error;                                         /* of `failed` */
    struct later later;                                /* READY to a user of an idle connection */
    struct timer timer;
    int64_t deadline;
    enum smtp_stage timed_stage;
    int64_t opened_ms;
    uint32_t transactions;
    struct str tls_version;
    struct session_out_tls tls;
    bool tls_told;
    char why[160]; /* it broke off */

    /* the body under way */
    struct message *message;
    const struct body_chunk *piece; /* next in memory */
    uint32_t chunk;                 /* next in the spool */
    bool sending;
    struct recoding *recoding; /* the host takes less than what is in it; NULL: it goes as it is */
};

struct connections {
    struct engine *engine;
    struct list open; /* all but quitting */
    struct list idle[SESSION_OUT_BUCKETS];
    struct list quitting;
    size_t n; /* open */
    struct buf bytes;
    uint32_t idle_at[SOURCES_PLACES]; /* IDLE, from the source of that place */
};

/* session_out.c */
extern const struct stream_events session_out_stream_events; /* of a session as owner */
void session_out_on_timer(struct timer *t);
void session_out_free(struct session_out *s); /* now, or when its events have been worked through */
void session_out_count(struct session_out *s, int more); /* as idle, at its source */
void session_out_quit(struct session_out *s);
int session_out_flush(struct session_out *s);
void session_out_close(struct session_out *s);

/* Goes on with what the client has to say; s may be gone afterwards. */
void session_out_work(struct session_out *s);
void session_out_set_deadline(struct session_out *s, bool progress);
/* From the first piece of the message that is under way. */
void session_out_rewind(struct session_out *s);
/* The next piece: from memory while it is there, else from the spool. 1, 0: no more, -errno. */
int session_out_piece(struct session_out *s, struct str *ret);

/* session_out_recode.c */
/* Looks at the whole message on later turns, then begins the transaction, or tells that it cannot be
 * converted. 0, -ENOMEM. */
int recoding_begin(struct session_out *s, const struct str *recipients,
                   const struct smtp_dsn_rcpt *dsn, size_t n);
struct recoding *recoding_free(struct recoding *c);
/* Gives the client what the piece becomes; NULL: the end of the message. 0, -errno. */
int recoding_give(struct session_out *s, const struct str *piece);

/* session_out_pool.c */
struct session_out *pool_find_idle(struct connections *all, const struct session_out_key *key,
                                   struct snapshot *snapshot);
void pool_add_idle(struct session_out *s);
/* Closes an idle one: from that source (NULL: any), or at that host. */
bool pool_make_room(struct connections *all, const struct net_addr *source);
void pool_make_room_at(struct connections *all, const struct net_addr *addr);

#endif
