/* client.h - who sends mail to an engine: the real proto/smtp_client, and raw sessions line by line.
 *
 * Layer: sim. Both dial an address (of one of the engine's listeners, as a rule) from an address of
 * their own. They run as the world's clock does; the world has calls that wait for their end.
 */
#ifndef TERN_SIM_CLIENT_H
#define TERN_SIM_CLIENT_H

#include "base/arena.h"
#include "proto/smtp_client.h"
#include "sim/net.h"

/* ---- one message ------------------------------------------------------------------------------ */

struct sim_mail {
    struct net_addr to;   /* where the engine listens */
    struct net_addr from; /* the client's own address; port 0: any */
    struct str helo;      /* empty: "client.example" */
    struct str sender;    /* empty: null */
    const struct str *recipients;
    size_t n_recipients;
    struct str content; /* headers, empty line, body; lines are sent with CRLF */
    bool starttls;      /* when it is offered */
    bool implicit_tls;  /* from the start */
    bool eight_bit, smtputf8, requiretls;
    bool lmtp;                            /* the engine speaks it there */
    struct smtp_dsn_mail dsn;             /* envid, orcpt: plain text, which must live as long */
    const struct smtp_dsn_rcpt *rcpt_dsn; /* of each recipient, as long; NULL: nothing */
    struct smtp_by by;                    /* where the engine offers it, as is priority */
    int8_t priority;
    int64_t timeout_ms; /* without progress; 0: 10 minutes */
};

struct sim_outcome {
    bool done;
    /* How far it came, and the reply there: FINAL with 250 when it was accepted. For a message none
     * of whose recipients was accepted: RCPT, with the first refusal. code 0: the connection ended without
     * one; `why` says how. LMTP: FINAL with the first refusal, else 250; each recipient's own is in rcpt. */
    enum smtp_stage stage;
    struct smtp_reply reply;
    struct str why;
    struct smtp_reply *rcpt; /* for each recipient; code 0: none came */
    size_t accepted;         /* recipients that were, when the message was */
    bool tls;
    int64_t took_ms;
};

struct sim_client;
typedef void sim_client_done(void *owner, struct sim_client *c);

/* The mail is copied. done (may be NULL) is called once, when all replies are there. */
struct sim_client *sim_client_send(struct sim_clock *clock, struct sim_net *net,
                                   const struct sim_mail *mail, sim_client_done *done, void *owner);
/* Lives with the client. */
const struct sim_outcome *sim_client_outcome(const struct sim_client *c);
struct sim_client *sim_client_free(struct sim_client *c); /* breaks off what is under way */

/* ---- raw sessions ----------------------------------------------------------------------------- */

struct sim_session;
struct sim_host;

struct sim_session *sim_session_open(struct sim_clock *clock, struct sim_net *net,
                                     const struct net_addr *to, const struct net_addr *from);
struct sim_session *sim_session_close(struct sim_session *s); /* NULL is fine */
/* As it stands, without a line end of our own. */
void sim_session_write(struct sim_session *s, struct str bytes);
/* The next reply that has come, taken off the queue. False: none is there (yet). Its text lives until the
 * session is closed. */
bool sim_session_reply(struct sim_session *s, struct smtp_reply *ret);
bool sim_session_closed(const struct sim_session *s); /* by the engine */
void sim_session_starttls(struct sim_session *s);     /* after a 220 */
bool sim_session_tls(const struct sim_session *s);
/* From now on the host is at this end, as if the engine had dialled it (ATRN). */
void sim_session_serve(struct sim_session *s, struct sim_host *h);
void sim_session_half_close(struct sim_session *s);
void sim_session_reset(struct sim_session *s); /* breaks the connection */

#endif
