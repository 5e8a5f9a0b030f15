/* dialogue.h - a client that says its lines one by one, and bears what a router without memory may answer: a reply for now
 * (4yz), or the end of the connection. Anything else than that and what was expected fails the test: a refusal for good
 * above all, and silence.
 */
#ifndef TERN_TESTS_DIALOGUE_H
#define TERN_TESTS_DIALOGUE_H

#include "starved.h"

enum { DIALOGUE_TO = 16 };

struct dialogue {
    struct sim_session *s; /* NULL: over */
    struct smtp_reply reply;
    size_t to[DIALOGUE_TO]; /* of the transaction: numbers in the ledger */
    size_t n_to;
};

/* Connects, and hears the greeting. False: it is over; so with all that follow. */
bool dialogue_open(struct dialogue *d);
void dialogue_close(struct dialogue *d);
/* True: the reply has that code. */
bool dialogue_say(struct dialogue *d, const char *line, uint16_t code);
/* EHLO, and STARTTLS and EHLO when it is offered. */
bool dialogue_hello(struct dialogue *d);
bool dialogue_auth(struct dialogue *d, enum sasl_mechanism m, const char *user,
                   const char *password);
bool dialogue_mail(struct dialogue *d, const char *parameters);
/* To a new recipient of the ledger in that domain. */
bool dialogue_rcpt(struct dialogue *d, const char *domain, const char *parameters);
/* DATA, or BDAT in two pieces. What is acknowledged by 250 is, in the ledger. */
bool dialogue_data(struct dialogue *d, struct str content);
bool dialogue_bdat(struct dialogue *d, struct str content);

#endif
