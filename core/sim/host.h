/* host.h - a remote mail host that does as it is told: the real proto/smtp_server under a script.
 *
 * Layer: sim. Listens at one address (port 0: on every port), takes messages into its inbox, and fails by
 * rules. A host belongs to its network's clock; free it before the network.
 *
 * At each stage of a session the first rule that fits decides; without one the host says yes. A
 * host that is down or silent keeps its inbox and its rules.
 */
#ifndef TERN_SIM_HOST_H
#define TERN_SIM_HOST_H

#include "base/arena.h"
#include "proto/smtp_client.h" /* enum smtp_stage */
#include "sim/net.h"

struct sim_host;

enum sim_action {
    SIM_REPLY,   /* with the rule's reply */
    SIM_CLOSE,   /* ends the connection in order, without a reply */
    SIM_RESET,   /* breaks the connection */
    SIM_SILENCE, /* says nothing any more, and stays connected */
};

struct sim_rule {
    /* GREETING, HELO (EHLO only when `extended_only`), AUTH, MAIL, RCPT, DATA, BODY (in the middle of the content),
     * FINAL. */
    enum smtp_stage stage;
    enum sim_action action;
    struct str address; /* RCPT: recipient, MAIL: sender; "@domain" fits all of one; empty: any */
    struct smtp_reply reply; /* its text is copied */
    uint32_t times;          /* fits so often, then never again; 0: always */
    bool taken;              /* FINAL: the message is in the inbox before the action */
    bool extended_only;      /* HELO: fits EHLO, not HELO */
};

enum sim_starttls {
    SIM_STARTTLS_NONE,
    SIM_STARTTLS_OFFERED,
    SIM_STARTTLS_BROKEN,  /* offered, and the handshake fails */
    SIM_STARTTLS_REFUSED, /* offered, and answered 454 */
};

/* Lives as long as the host, or until sim_host_forget. */
struct sim_received {
    struct str sender;
    struct str *recipients;
    size_t n_recipients;
    struct str dsn;       /* of MAIL: "RET=HDRS ENVID=xyz", "" */
    struct str *rcpt_dsn; /* of each RCPT: "NOTIFY=NEVER ORCPT=rfc822;a+2Bb@c", "" */
    struct str times;     /* of MAIL: "BY=120;R MT-PRIORITY=3", "" */
    struct str content;   /* as it came, dots unstuffed */
    struct str helo;
    struct net_addr from;
    bool tls, requiretls;
    /* The file of the client's certificate that a route named; empty: it has shown none. */
    struct str certificate;
    struct str identity; /* authenticated as; empty: not */
    int64_t wall_ms;
    int64_t began_ms, opened_ms; /* wall: its MAIL came; its connection was accepted */
    uint64_t session;            /* messages of one connection have the same */
};

/* name: in its greeting, and of its certificate. */
struct sim_host *sim_host_new(struct sim_clock *clock, struct sim_net *net,
                              const struct net_addr *addr, struct str name);
struct sim_host *sim_host_free(struct sim_host *h); /* NULL is fine */
const struct net_addr *sim_host_addr(const struct sim_host *h);

/* SIM_ACCEPTS is up. Going down breaks the connections that stand. */
void sim_host_set_reach(struct sim_host *h, enum sim_reach reach);
void sim_host_up(struct sim_host *h);
void sim_host_down(struct sim_host *h);
bool sim_host_is_up(const struct sim_host *h);

void sim_host_add_rule(struct sim_host *h, const struct sim_rule *rule);
/* Shorter: a reply at a stage, always. */
void sim_host_reply(struct sim_host *h, enum smtp_stage stage, uint16_t code, struct str text);
void sim_host_clear_rules(struct sim_host *h);

void sim_host_set_name(struct sim_host *h, struct str name);
void sim_host_set_latency(struct sim_host *h, int64_t one_way_ms);
void sim_host_set_delay(struct sim_host *h, int64_t ms); /* before each reply */
void sim_host_set_starttls(struct sim_host *h, enum sim_starttls how);
void sim_host_set_certificate(struct sim_host *h, const struct sim_certificate *c);
/* Knows that user, offers AUTH, and takes mail from users only (else 530). More calls: more users. */
void sim_host_add_user(struct sim_host *h, struct str user, struct str password);
/* Which mechanisms it offers, as SASL_BIT (default: all), and whether PLAIN and LOGIN without TLS, too. */
void sim_host_set_auth(struct sim_host *h, uint32_t mechanisms, bool in_clear);
void sim_host_set_size_limit(struct sim_host *h, uint64_t octets); /* SIZE; 0: none told */
void sim_host_set_smtputf8(struct sim_host *h, bool offered);
/* BDAT is taken; binary: BODY=BINARYMIME too. Not at first. */
void sim_host_set_chunking(struct sim_host *h, bool offered, bool binary);
void sim_host_set_requiretls(struct sim_host *h, bool offered); /* inside TLS */
/* Tells them by LIMITS. What is beyond them gets 452 4.5.3, and is counted. */
void sim_host_set_limits(struct sim_host *h, const struct smtp_limits *limits);
uint64_t sim_host_over_limits(const struct sim_host *h);
/* DELIVERBY (min_s: what mode R needs; 0: none told) and MT-PRIORITY. Not at first. */
void sim_host_set_deliver_by(struct sim_host *h, bool offered, uint32_t min_s);
void sim_host_set_priority(struct sim_host *h, bool offered);
/* Leaves that keyword ("8BITMIME", "PIPELINING") out of its EHLO reply. At most 8. */
void sim_host_hide(struct sim_host *h, struct str keyword);
/* Takes so many connections at once (0: any number). To what is beyond it says 421 in place of its greeting
 * and closes (SIM_REPLY), or does without a word what `beyond` says. */
void sim_host_set_most(struct sim_host *h, size_t connections, enum sim_action beyond);
void sim_host_set_lmtp(struct sim_host *h, bool lmtp); /* LHLO, a reply for each recipient */
/* Chances in a million at each stage that the host breaks the connection, falls silent or answers 4yz;
 * drawn from `random`. */
void sim_host_set_chaos(struct sim_host *h, struct sim_random *random, uint32_t reset,
                        uint32_t silence, uint32_t transient);

size_t sim_host_inbox(const struct sim_host *h);
const struct sim_received *sim_host_received(const struct sim_host *h, size_t i);
/* Copies of messages whose content has that text. */
size_t sim_host_count_with(const struct sim_host *h, struct str text);
void sim_host_forget(struct sim_host *h);             /* empties the inbox */
uint64_t sim_host_sessions(const struct sim_host *h); /* connections that it accepted */
size_t sim_host_open(const struct sim_host *h);       /* that stand now */
size_t sim_host_peak(
    const struct sim_host *h); /* most that stood at once; those turned away count */
uint64_t sim_host_turned_away(const struct sim_host *h); /* by sim_host_set_most */
uint64_t sim_host_auths(const struct sim_host *h);       /* exchanges that began */
uint64_t sim_host_quits(const struct sim_host *h);       /* connections that ended by QUIT */
uint64_t sim_host_rsets(const struct sim_host *h);       /* transactions that were given up */
/* Connections that have not come to their first MAIL yet, or are in a transaction: not idle. */
size_t sim_host_busy(const struct sim_host *h);

#endif
