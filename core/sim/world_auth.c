/* world_auth.c - how a client of the world authenticates. Layer: sim. Interface: world.h. */
#include <stdio.h>

#include "base/base64.h"
#include "proto/sasl.h"
#include "sim/world.h"

/* "verb response" in base64; an empty initial response is "=". */
static struct smtp_reply send_response(struct sim_world *w, struct sim_session *s, const char *verb,
                                       struct str response, bool initial)
{
    struct buf line;

    buf_init(&line, 0);
    buf_add_str(&line, str_of(verb));
    if (initial && response.n == 0)
        buf_add_char(&line, '=');
    base64_add(&line, response);
    buf_add_char(&line, '\0');
    CHECK(!line.failed);
    struct smtp_reply reply = sim_world_line(w, s, line.data + line.start);
    buf_done(&line);
    return reply;
}

struct smtp_reply sim_world_auth(struct sim_world *w, struct sim_session *s, enum sasl_mechanism m,
                                 const struct sasl_credentials *cred)
{
    struct sasl_client *c = NULL;
    struct smtp_reply reply;
    char verb[64], challenge[SASL_MAX_MESSAGE];
    struct str response;
    size_t n;

    CHECK(sasl_client_new(m, cred, STR("a2nonce/of+clients"), &c) == 0);
    bool initial = sasl_client_initial(c, &response);
    snprintf(verb, sizeof(verb), "AUTH %s%s", sasl_name(m), initial ? " " : "");
    if (initial) {
        reply = send_response(w, s, verb, response, true);
    } else {
        reply = sim_world_line(w, s, verb);
    }
    while (reply.code == 334) {
        bool good = base64_decode(reply.text, challenge, sizeof(challenge), &n) == 0 &&
                    sasl_client_step(c, str_make(challenge, n), &response) == 0;
        reply = good ? send_response(w, s, "", response, false) : sim_world_line(w, s, "*");
    }
    if (reply.code == 235)
        CHECK(sasl_client_done(c)); /* the engine let somebody in too early */
    sasl_client_free(c);
    return reply;
}
