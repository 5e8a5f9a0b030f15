/* control_client.h - asks the running daemon: HTTP on its control socket, for the command line.
 *
 * Layer: daemon. One request, one connection; waits.
 */
#ifndef TERN_DAEMON_CONTROL_CLIENT_H
#define TERN_DAEMON_CONTROL_CLIENT_H

#include <jansson.h>
#include <stdio.h>

#include "base/str.h"
#include "daemon/failure.h"

/* How to find the daemon, and what to do with its answers: options of all such commands. */
struct client {
    const char *config;
    const char *socket; /* NULL: as the configuration says */
    bool json;
};
#define CLIENT_OPTIONS(c)                                                                          \
    ARG_CONFIG(&(c)->config),                                                                      \
        ARG_TEXT(0, "control", "SOCKET", &(c)->socket,                                             \
                 "the daemon's control socket; default: as the configuration says"),               \
        ARG_JSON(&(c)->json)

/* body: taken over; NULL: none. 0 with the answer's object when it is a 2xx, else -1 with *f: not running, not
 * allowed, what the daemon says. target: encoded. With c->json an error that the daemon tells is
 * printed as its JSON on stdout as well. */
int client_ask(const struct client *c, const char *method, const char *target, json_t *body,
               json_t **ret, struct failure *f) MUST_USE;
/* POSTs `head` and then the file's content from where it stands, `length` octets; with crlf each LF without a CR
 * before it becomes CRLF (they count in `length`). As client_ask. */
int client_upload(const struct client *c, const char *target, struct str head, FILE *content,
                  bool crlf, uint64_t length, json_t **ret, struct failure *f) MUST_USE;
/* Writes the answer's bytes to `out`. */
int client_fetch(const struct client *c, const char *target, FILE *out, struct failure *f) MUST_USE;
/* An answer as --json prints it. */
void client_print_json(const json_t *answer);

/* The head of an HTTP answer. length: -1 when it is not told. 1: *ret_head is its length; 0: not complete;
 * -EPROTO. */
struct http_head {
    unsigned status;
    int64_t length;
    size_t head;
};
int http_head_parse(struct str in, struct http_head *ret);

/* The value of a field as text; "" when it is null or not there. Lives as long as o. */
const char *json_text_of(const json_t *o, const char *name);
int64_t json_int_of(const json_t *o, const char *name);
/* "removed 3 Received  (policies/strip.lua:12)" of a change of headers; control bytes become '?'. Returns dst. */
const char *change_text(const json_t *change, char *dst, size_t size);

#endif
