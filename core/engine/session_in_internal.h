/* session_in_internal.h - what the files of session_in share. Layer: engine, internal.
 *
 * session_in.c: sessions, their streams, deadlines, the loop that moves bytes. session_in_events.c:
 * what each event of the SMTP server asks, and how it is answered. session_in_told.c: PROXY and XCLIENT.
 * session_in_defence.c: what one client may do, and stress.
 */
#ifndef TERN_ENGINE_SESSION_IN_INTERNAL_H
#define TERN_ENGINE_SESSION_IN_INTERNAL_H

#include "engine/auth.h"
#include "engine/clients.h"
#include "engine/etrn.h"
#include "engine/intake.h"
#include "engine/session_in.h"
#include "proto/proxy_header.h"
#include "proto/smtp_server.h"

struct sessions_in {
    struct engine *e;
    struct list open;
    size_t n;
    bool stopping;
    uint64_t turned_away;
    int64_t told_ms; /* when the log last said so */
    bool stressed;   /* sessions are scarce: timeouts and error limits are tighter */
};

/* Addresses that somebody else told. */
struct told_addresses {
    struct net_addr client, local;
};

/* Ten thousand of these may be idle: what few of them need is elsewhere on the heap. */
struct session {
    struct list link;
    struct sessions_in *all;
    struct engine *e;
    struct stream *stream; /* NULL: it has gone */
    struct smtp_server *server;
    struct snapshot *snapshot;
    struct session_view view; /* its addresses are the stream's, or told */
    struct told_addresses *told;

    /* The one undecided event. */
    uint32_t ticket; /* 0: none */
    enum hook asking;
    struct hook_call *call;
    struct etrn *etrn;
    struct auth *auth; /* an exchange of AUTH, also between its lines */
    struct hook_input input;
    struct recipient_view recipient;
    struct address address; /* of MAIL or RCPT, in scratch */
    struct smtp_dsn_rcpt rcpt_dsn;
    struct arena scratch; /* let go with the transaction */

    struct intake *intake; /* of the transaction */
    uint32_t recipients;   /* accepted, dropped ones too */
    int body_error;        /* the rest of the body is drained, then answered */
    uint32_t messages;     /* accepted */
    uint32_t etrns;        /* ETRN and ATRN requests */

    struct timer timer;    /* armed for no later than deadline and end */
    int64_t deadline, end; /* monotonic */
    int64_t answer_by;     /* the reply to a message that is here; 0: none is awaited */

    struct timer greeting;     /* while `delayed` */
    int64_t greeting_delay_ms; /* 0: none */
    uint64_t counted;          /* as this client it is counted (clients.h); 0: it is not */

    struct proxy_header *header; /* of PROXY: awaited; else NULL */
    bool told_login;             /* the identity is XCLIENT's */
    bool may_xclient;

    enum listen_auth listen_auth;
    enum tls_clients tls_clients;
    const char *client_ca; /* in texts */
    bool tls_required, offers_tls;
    bool chunking, binarymime, requiretls;
    bool deliver_by, priority;
    struct str priority_profile; /* a name of the RFC's, or empty */
    uint32_t deliver_by_min_s, future_release_s;
    bool delayed;         /* the greeting waits for its delay: who talks now talks too early */
    bool progress;        /* the client has done something: its deadline moves */
    bool broken;          /* a reply could not be written */
    bool pumping;         /* in the loop: nothing below it starts another one */
    bool held;            /* the stream: bytes were left in it, or by session_hold */
    bool choked;          /* the client does not read: until drained */
    bool paused;          /* the spool does not keep up: until ready */
    bool want_tls;        /* 220 is to be written, then the handshake begins */
    bool securing;        /* in the handshake */
    bool stopped;         /* smtp_server_stop was called */
    bool refused;         /* something was: the log tells of its end */
    bool odmr;            /* a listener for ATRN: no mail is taken */
    bool discard_session; /* policy: all its mail is dropped */
    bool discard;         /* this transaction's */
    bool prioritized;     /* it has an MT-PRIORITY */
    int8_t told_priority; /* what its client takes it to be: what it said, or was told since */

    char *helo, *tls_text, *identity, *client_name; /* heap: what view points to */
    char *client;                                   /* heap: its address as text, for logs */
    char *service;                                  /* in texts */
    char listener[];                                /* as text; then service, then client_ca */
};

/* session_in.c. Goes on after an answer; s may be gone afterwards. */
void session_pump(struct session *s);
/* 421 or the like, and the end. Whatever is undecided is let go. session_pump is to follow. */
void session_stop(struct session *s, struct smtp_reply reply, const char *why);
/* The connection is somebody else's from now on. s is gone afterwards. */
void session_hand_over(struct session *s, struct turn *turn);
void session_set_options(struct session *s);
/* Feeds the server what the stream has. False: nothing (more) to do now. */
bool session_feed(struct session *s);

/* Forgets who the client said it is. */
void session_forget_identity(struct session *s);
/* TLS or the greeting. secures_itself: the handshake is under way. s may be gone afterwards. */
void session_begin(struct session *s, bool secures_itself);
/* Not in order: what is unsent is lost. s is gone afterwards. */
void session_drop(struct session *s, const char *why);

/* session_in_told.c: who the client is, as others tell. */
bool session_await_header(struct session *s); /* false: out of memory */
void session_read_header(struct session *s);  /* s may be gone afterwards */
/* Both live as long as the session. False: out of memory. */
bool session_set_client(struct session *s, const struct net_addr *client,
                        const struct net_addr *local);
/* What XCLIENT says is so from now on. False: out of memory. */
bool session_take_xclient(struct session *s, const struct smtp_xclient *x);

/* session_in_defence.c */
/* Counts its connection. NULL, or why it is turned away. */
const char *session_admit(struct session *s);
void session_discharge(struct session *s);
/* After one came or went: sessions become scarce, or are so no more. */
void sessions_look_at_stress(struct sessions_in *all);
uint32_t session_max_errors(const struct session *s);
/* Of the client, as it is now. */
int64_t session_idle_ms(const struct session *s);
/* Nothing is read, nor the end of the client's side heard of, until session_pump finds that it is its turn again.
 * (session_in.c) */
void session_hold(struct session *s);
/* Its deadline is at most so far away from now on. (session_in.c) */
void session_hurry(struct session *s, int64_t ms);

/* session_in_events.c */
void session_event(struct session *s, const struct smtp_server_event *ev); /* all but CLOSE */
void session_cancel(struct session *s);                                    /* what is undecided */
void session_end_transaction(struct session *s);
/* The greeting's delay is over, or the client did not wait for it. s may be gone afterwards. */
void session_greet(struct session *s);
/* One more of that use; false: this client has had its share. */
bool session_client_may(struct session *s, enum clients_use use);
bool session_keep_identity(struct session *s, struct str identity); /* false: out of memory */

#endif
