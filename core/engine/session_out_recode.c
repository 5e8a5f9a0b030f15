/* session_out_recode.c - a message for a host that takes less than what is in it: 8-bit content for one
 * without 8BITMIME, binary content for one without BINARYMIME (Q11).
 *
 * Layer: engine. See session_out_impl.h; what is converted, and how, is mail/recode.h.
 *
 * The message is read twice. First it is looked at, a piece each turn, so that a large one does not keep the
 * worker from others: whether it can be converted is known, and told like a refused MAIL, before the
 * host has heard of it. Then it is sent by DATA, converted on the way.
 */
#include <stdio.h>

#include "engine/session_out_impl.h"
#include "mail/recode.h"

struct recoding {
    struct session_out *session;
    struct recode *recode;
    struct later step;
    struct buf out;
    const struct smtp_dsn_rcpt *dsn;
    size_t n;
    struct str recipients[];
};

struct recoding *recoding_free(struct recoding *c)
{
    if (!c)
        return NULL;
    list_remove(&c->step.link);
    recode_free(c->recode);
    buf_done(&c->out);
    free(c);
    return NULL;
}

static int begin(struct session_out *s)
{
    const struct recoding *c = s->recoding;
    const struct message *m = s->message;
    struct smtp_client_mail mail = {
        .sender = m->sender.text,
        .recipients = c->recipients,
        .n_recipients = c->n,
        .size = recode_estimate(c->recode),
        .body = recode_is_eight_bit(c->recode) ? SMTP_BODY_8BITMIME : SMTP_BODY_7BIT,
        .smtputf8 = (m->flags & MESSAGE_SMTPUTF8) != 0,
        .requiretls = s->requiretls,
        .dsn = { .ret = message_ret(m), .envid = m->envid },
        .rcpt_dsn = c->dsn,
        .by = message_by(m, engine_wall(s->all->engine)),
        .prioritized = true,
        .priority = m->times.priority,
    };
    return smtp_client_begin(s->client, &mail);
}

/* Without the host having been asked. */
static void refuse(struct session_out *s, const struct smtp_reply *reply)
{
    const struct session_out_events *ev = s->ev;

    s->recoding = recoding_free(s->recoding);
    s->message = message_unref(s->message);
    s->requiretls = false;
    if (ev)
        ev->result(s->owner, SIZE_MAX, SMTP_STAGE_MAIL, reply);
    if (s->ev)
        s->ev->done(s->owner);
}

static void refuse_for(struct session_out *s, int error)
{
    char text[200];
    bool binary = s->message->flags & MESSAGE_BINARY;
    struct smtp_reply reply = REPLY(553, ENH(5, 1, 3), "an address cannot be written in SMTP");

    if (error == -EMSGSIZE)
        reply = REPLY(552, ENH(5, 3, 4), "the message is larger than the host takes");
    if (error == -EILSEQ) {
        snprintf(text, sizeof(text),
                 "the host cannot take %s content, and it cannot be converted: %s",
                 binary ? "binary" : "8-bit", recode_why(s->recoding->recode));
        reply = (struct smtp_reply){ 554, ENH(5, 6, 3), str_of(text) };
    }
    refuse(s, &reply);
}

/* One more piece; 1: there are others. */
static int look(struct session_out *s)
{
    struct recode *r = s->recoding->recode;
    struct str piece;
    int did = session_out_piece(s, &piece);

    if (did < 0)
        return did;
    int err = did ? recode_look(r, piece) : recode_looked(r);
    return err < 0 ? err : did;
}

static void step(struct later *l)
{
    struct recoding *c = CONTAINER_OF(l, struct recoding, step);
    struct session_out *s = c->session;
    int r = look(s);

    if (r > 0) {
        engine_later(s->all->engine, &c->step);
        session_out_set_deadline(s, true);
        return;
    }
    s->working = true;
    /* To read it has taken time. */
    const char *late = r == 0 ? session_out_why_not_in_time(s, s->message) : NULL;
    if (late)
        refuse(s, &(struct smtp_reply){ 554, ENH(5, 4, 7), str_of(late) });
    else if (r == 0)
        r = begin(s);
    if (r == -EILSEQ || r == -EMSGSIZE || r == -EINVAL)
        refuse_for(s, r);
    else if (r < 0 && r != -EBUSY) /* else it is lost already, and told below */
        smtp_client_lost(s->client, r);
    s->working = false;
    if (s->state == GONE)
        session_out_free(s);
    else
        session_out_work(s);
}

int recoding_begin(struct session_out *s, const struct str *recipients,
                   const struct smtp_dsn_rcpt *dsn, size_t n)
{
    struct recoding *c = calloc(1, sizeof(*c) + n * sizeof(c->recipients[0]));
    bool eight_bit = smtp_client_caps(s->client)->eightbit;

    if (!c)
        return -ENOMEM;
    later_init(&c->step, step);
    buf_init(&c->out, 0);
    c->session = s;
    c->recode = recode_new(eight_bit);
    c->dsn = dsn;
    c->n = n;
    memcpy(c->recipients, recipients, n * sizeof(c->recipients[0]));
    if (!c->recode) {
        recoding_free(c);
        return -ENOMEM;
    }
    s->recoding = c;
    session_out_rewind(s);
    engine_later(s->all->engine, &c->step);
    return 0;
}

int recoding_give(struct session_out *s, const struct str *piece)
{
    struct recoding *c = s->recoding;
    int r = piece ? recode_write(c->recode, *piece, &c->out) : recode_written(c->recode, &c->out);
    struct str out = buf_str(&c->out);

    if (r == 0 && out.n)
        r = smtp_client_body(s->client, out.p, out.n);
    buf_clear(&c->out);
    return r;
}
