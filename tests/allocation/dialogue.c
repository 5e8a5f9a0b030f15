/* See dialogue.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "dialogue.h"

#define PATIENCE_MS SIM_MINUTE

void dialogue_close(struct dialogue *d)
{
    d->s = sim_session_close(d->s);
}

static bool reply_came(void *arg)
{
    struct dialogue *d = arg;

    return sim_session_reply(d->s, &d->reply) || sim_session_closed(d->s);
}

/* True: that is the code. */
static bool hear(struct dialogue *d, const char *line, uint16_t code)
{
    d->reply = (struct smtp_reply){ 0 };
    if (!sim_world_until(f.w, reply_came, d, PATIENCE_MS))
        fail_msg("no reply to %s", line);
    if (d->reply.code == code)
        return true;
    if (d->reply.code == 0 || d->reply.code == 421)
        dialogue_close(d);
    else if (d->reply.code / 100 != 4)
        fail_msg("%u " STR_FMT " in reply to %s, not %u", d->reply.code, STR_ARG(d->reply.text),
                 line, code);
    return false;
}

bool dialogue_open(struct dialogue *d)
{
    struct net_addr to = sim_world_listener(f.w, 0), from = sim_addr("203.0.113.9");

    *d = (struct dialogue){ 0 };
    d->s = sim_session_open(sim_world_clock(f.w), sim_world_net(f.w), &to, &from);
    return hear(d, "the connection", 220);
}

bool dialogue_say(struct dialogue *d, const char *line, uint16_t code)
{
    if (!d->s)
        return false;
    sim_session_write(d->s, str_of(line));
    sim_session_write(d->s, STR("\r\n"));
    return hear(d, line, code);
}

static bool secured(void *arg)
{
    const struct dialogue *d = arg;

    return sim_session_tls(d->s) || sim_session_closed(d->s);
}

bool dialogue_hello(struct dialogue *d)
{
    if (!dialogue_say(d, "EHLO client.example", 250))
        return false;
    if (str_find(d->reply.text, STR("STARTTLS")) < 0)
        return true;
    if (!dialogue_say(d, "STARTTLS", 220))
        return d->s != NULL; /* in clear, then */
    sim_session_starttls(d->s);
    if (!sim_world_until(f.w, secured, d, PATIENCE_MS))
        fail_msg("neither TLS nor the end");
    if (!sim_session_tls(d->s)) {
        dialogue_close(d);
        return false;
    }
    return dialogue_say(d, "EHLO client.example", 250);
}

bool dialogue_auth(struct dialogue *d, enum sasl_mechanism m, const char *user,
                   const char *password)
{
    struct sasl_credentials cred = { str_of(user), str_of(password), STR("") };
    int64_t began = sim_world_clock(f.w)->now;

    if (!d->s)
        return false;
    d->reply = sim_world_auth(f.w, d->s, m, &cred);
    assert_true(sim_world_clock(f.w)->now - began < PATIENCE_MS);
    if (d->reply.code == 0 || d->reply.code == 421)
        dialogue_close(d);
    else if (d->reply.code != 235 && d->reply.code / 100 != 4)
        fail_msg("%u " STR_FMT " in reply to AUTH", d->reply.code, STR_ARG(d->reply.text));
    return d->reply.code == 235;
}

bool dialogue_mail(struct dialogue *d, const char *parameters)
{
    char line[500];

    d->n_to = 0;
    snprintf(line, sizeof line, "MAIL FROM:<client@sender.example>%s", parameters);
    return dialogue_say(d, line, 250);
}

bool dialogue_rcpt(struct dialogue *d, const char *domain, const char *parameters)
{
    char line[500];
    size_t number = ledger.n++;

    assert_true(d->n_to < DIALOGUE_TO);
    snprintf(line, sizeof line, "RCPT TO:<r%zu@%s>%s", number, domain, parameters);
    if (!dialogue_say(d, line, 250))
        return false;
    d->to[d->n_to++] = number;
    return true;
}

static bool taken(struct dialogue *d, bool yes)
{
    for (size_t i = 0; i < d->n_to && yes; i++)
        ledger.r[d->to[i]].acked = true;
    d->n_to = 0;
    return yes;
}

bool dialogue_data(struct dialogue *d, struct str content)
{
    if (!d->s || !d->n_to || !dialogue_say(d, "DATA", 354))
        return false;
    sim_session_write(d->s, content);
    return taken(d, dialogue_say(d, ".", 250));
}

bool dialogue_bdat(struct dialogue *d, struct str content)
{
    struct str first = str_first(content, content.n / 2), rest = str_from(content, first.n);
    char line[40];

    if (!d->s || !d->n_to)
        return false;
    snprintf(line, sizeof line, "BDAT %zu\r\n", first.n);
    sim_session_write(d->s, str_of(line));
    sim_session_write(d->s, first);
    if (!hear(d, "the first BDAT", 250))
        return false;
    snprintf(line, sizeof line, "BDAT %zu LAST\r\n", rest.n);
    sim_session_write(d->s, str_of(line));
    sim_session_write(d->s, rest);
    return taken(d, hear(d, "BDAT LAST", 250));
}
