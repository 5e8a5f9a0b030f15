/* smtp_server_impl.h - what the files of the SMTP server share; nobody else includes it.
 *
 * Layer: proto. smtp_server.c holds the life of a session, the lines, the table of verbs and the
 * dispatcher; smtp_server_answer.c what an answer of the application does; the other files are one
 * verb each. A verb's handler either replies (server_reply and its like) or asks the application
 * (server_ask).
 */
#ifndef TERN_PROTO_SMTP_SERVER_IMPL_H
#define TERN_PROTO_SMTP_SERVER_IMPL_H

#include "proto/smtp_server.h"

enum server_state {
    SERVER_CONNECT, /* the greeting is not decided */
    SERVER_HELO,    /* greeted; EHLO or HELO is awaited */
    SERVER_READY,   /* no transaction */
    SERVER_MAIL,    /* a sender, no recipient yet */
    SERVER_RCPT,    /* a sender and recipients */
    SERVER_DATA,    /* from 354 to the reply to the final dot */
    SERVER_BDAT,    /* a chunk was taken, to the reply to the last one */
    SERVER_AUTH,    /* a challenge was sent, its response is awaited */
    SERVER_TLS,     /* STARTTLS is granted, the handshake is awaited */
    SERVER_REFUSED, /* 554 was the greeting: nothing is served but QUIT */
};
#define IN(state)      (1u << SERVER_##state)
#define IN_ANY         (IN(HELO) | IN(READY) | IN(MAIL) | IN(RCPT) | IN(BDAT))
#define IN_TRANSACTION (IN(MAIL) | IN(RCPT) | IN(DATA) | IN(BDAT))

/* Why a message is not to be had: bits. */
enum { BAD_BARE = 1, BAD_SIZE = 2, BAD_LINE = 4 };

enum {
    SERVER_MIN_RECIPIENTS = 100,     /* RFC 5321 §4.5.3.1.8 */
    SERVER_MAX_OVERSHOOT = 1000,     /* recipients past the limit until they count as errors */
    SERVER_INPUT = 32 << 10,         /* what is buffered at most */
    SERVER_OUTPUT = 1 << 20,         /* past that the session is dead: nobody takes the output */
    SERVER_OUTPUT_EACH = 1024,       /* more of it for each recipient that LMTP allows */
    SERVER_KEPT_BLOCK = 512,         /* in a transaction; outside no buffer is kept */
    SERVER_LONGEST_LINE = 640,       /* no command line may be longer, whatever the verb */
    SERVER_LONGEST_AUTH = 640 + 500, /* the same where AUTH is offered, which lengthens MAIL */
    SERVER_AUTH_LINE = 12288 - 2,    /* in an exchange of AUTH (RFC 4954 section 4) */
    SERVER_ENDLESS_LINE = 64 << 10,  /* a line that is drained at most */
};

enum step {
    STEP_EVENT, /* *ret is filled */
    STEP_AGAIN, /* something was done, look again */
    STEP_WAIT,  /* needs input */
};

struct smtp_server {
    struct smtp_server_options opt;
    struct buf in, out;
    const char *close_why; /* set: CLOSE is due, or told */
    uint64_t size;         /* octets of the message so far */
    uint64_t chunk_left;   /* octets of the chunk that are still to come */
    uint32_t ticket;       /* of the undecided event, 0: none */
    uint32_t last_ticket;
    uint32_t errors, commands;
    uint32_t mails;                 /* MAIL commands, refused ones too (RFC 9422 section 4.1) */
    uint32_t recipients, overshoot; /* of the transaction: accepted; refused for their number */
    uint32_t finals;                /* LMTP: replies that the refusal of this chunk takes */
    uint32_t line_dropped;          /* octets of an overlong command line that are gone */
    uint16_t line_octets;           /* of the current line of the message, without CRLF */
    int failed;                     /* -errno: dead */
    uint8_t state;                  /* enum server_state */
    uint8_t line_is;                /* of an overlong command line, by its beginning */
    uint8_t asked;                  /* the type of the undecided event */
    uint8_t bad;                    /* of the message in DATA: BAD_* */
    uint8_t chunk_refused;          /* why its octets are thrown away; 0: they are of the message */
    uint32_t auth_failures;
    bool tls : 1, extended : 1;
    bool authenticated : 1;
    bool xclient_login : 1; /* by the LOGIN of XCLIENT */
    bool auth_end_due : 1;  /* AUTH_END is to be told */
    bool closed : 1;        /* CLOSE has been told */
    bool reset_due : 1;     /* RESET is to be told */
    bool smtputf8 : 1;      /* of the transaction */
    bool rcpt_seen : 1;     /* of the transaction: any RCPT, accepted or not */
    bool data_refused : 1;  /* the last command was a DATA that got no 354 */
    bool line_bare : 1;     /* a bare CR was in what line_dropped counts */
    bool at_bol : 1;        /* the next octet of the message begins a line */
    bool in_chunk : 1;      /* octets of a chunk are awaited, whatever the state */
    bool chunk_last : 1;    /* it said LAST */
    bool chunks_dead : 1;   /* a chunk was refused and its message goes on: more will come */
    bool cr_open : 1;       /* the chunk before ended in a CR */
    bool binary : 1;        /* of the transaction: BODY=BINARYMIME */
    bool binary_body : 1;   /* and its header block is over: any octet may come */
    bool final_yes : 1;     /* LMTP, of the answers to END so far: a yes was among them, */
    bool final_no : 1;      /* a 5xx, */
    bool final_421 : 1;     /* a 421 */
};

static inline bool server_in(const struct smtp_server *s, unsigned states)
{
    return 1u << s->state & states;
}
/* Bytes came without waiting for the reply that they should have waited for. */
static inline bool server_talked_early(const struct smtp_server *s)
{
    return buf_len(&s->in) > 0;
}

/* Writes a reply of our own; one of 5xx counts as an error. Always STEP_AGAIN. */
enum step server_reply(struct smtp_server *s, uint16_t code, struct smtp_enhanced e,
                       const char *text);
/* The same for the peer's breach of the protocol: not counted, the session closes. */
enum step server_reply_close(struct smtp_server *s, uint16_t code, struct smtp_enhanced e,
                             const char *text, const char *why);
void server_write(struct smtp_server *s, const struct smtp_reply *reply);
/* The fate of a message with n recipients: in LMTP it is said n times (once at least). */
void server_write_finals(struct smtp_server *s, uint32_t n, uint16_t code, struct smtp_enhanced e,
                         const char *text);
/* The same, and it counts as one error. Always STEP_AGAIN. */
enum step server_refuse_message(struct smtp_server *s, uint32_t n, uint16_t code,
                                struct smtp_enhanced e, const char *text);
/* At max_errors: 421 and close. */
void server_count_error(struct smtp_server *s);
void server_close(struct smtp_server *s, const char *why);
/* Forgets the transaction; tell: a RESET event is due. */
void server_end_transaction(struct smtp_server *s, bool tell);
/* Fills in type and ticket. Always STEP_EVENT. */
enum step server_ask(struct smtp_server *s, enum smtp_server_event_type type,
                     struct smtp_server_event *ret);

typedef enum step server_verb(struct smtp_server *s, struct str arg, struct smtp_server_event *ret);
server_verb server_on_ehlo, server_on_helo, server_on_lhlo, server_on_mail, server_on_rcpt,
    server_on_data, server_on_etrn, server_on_atrn, server_on_auth, server_on_xclient;

/* What XCLIENT takes, for EHLO. */
#define SERVER_XCLIENT_ATTRIBUTES "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"

/* smtp_server_helo.c: the replies that the server words itself. */
void server_greet(struct smtp_server *s, const struct smtp_reply *given);
void server_write_capabilities(struct smtp_server *s);

/* smtp_server_auth.c */
/* "\nAUTH PLAIN ...", for EHLO; nothing when none can be used now. */
void server_add_auth(const struct smtp_server *s, struct buf *out);
/* A line behind a challenge. */
enum step server_auth_line(struct smtp_server *s, struct str line, bool overlong,
                           struct smtp_server_event *ret);
void server_write_challenge(struct smtp_server *s, struct str challenge);
/* At max_auth_failures: 421 and close. */
void server_count_auth_failure(struct smtp_server *s);
bool server_auth_param_ok(struct str value); /* of MAIL */

/* smtp_server_data.c */
void server_begin_data(struct smtp_server *s);
enum step server_body(struct smtp_server *s, struct smtp_server_event *ret);
/* A DATA that got no 354: what is buffered behind it is message text, never commands. */
void server_refused_data(struct smtp_server *s);

enum server_stop { STOP_NEED, STOP_DOT, STOP_END, STOP_BARE, STOP_LONG };
/* The good octets at p, at most to the end of the line. 0: *ret says what stands there. nul: there may be
 * one. */
size_t server_scan_line(struct smtp_server *s, const char *p, const char *end, bool nul,
                        enum server_stop *ret);

/* smtp_server_bdat.c */
/* "BDAT", and what only looks like it: whatever follows must not become commands. */
bool server_is_bdat(struct str line);
/* The command line; step of what it does. */
enum step server_on_bdat(struct smtp_server *s, struct str line);
/* While in_chunk. */
enum step server_chunk(struct smtp_server *s, struct smtp_server_event *ret);

/* smtp_server_mail.c, also for RCPT: "<...>" and parameters behind "FROM:" or "TO:". */
struct server_path {
    struct smtp_mailbox box;
    struct str address; /* between the brackets */
    struct str params;
};
/* -EINVAL (also when the prefix is missing), -E2BIG. UTF-8 is accepted here. */
int server_parse_path(struct str arg, struct str prefix, bool is_sender, struct server_path *ret);

#endif
