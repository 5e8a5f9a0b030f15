/* smtp_server_answer.c - what the application's answers do to the session.
 *
 * Layer: proto. See smtp_server_impl.h. The table says for each event which code is a yes; any 4xx
 * or 5xx is a no, other codes are refused (-EINVAL).
 */
#include "proto/smtp_server_impl.h"

typedef void answer_handler(struct smtp_server *s, const struct smtp_reply *reply, bool yes);

/* Only 5xx counts: who gets 4xx for good reason, a whole list of recipients perhaps, is to come
 * again and must not be cut off for it. */
static void count_refusal(struct smtp_server *s, const struct smtp_reply *reply)
{
    if (smtp_reply_permanent(reply))
        server_count_error(s);
}

static bool text_has_enhanced(struct str text, unsigned class_)
{
    struct str word = STR_NONE;
    struct smtp_enhanced e;

    return str_cut(&text, ' ', &word) && smtp_enhanced_parse(word, &e) == 0 && e.class_ == class_;
}

/* What we advertise we keep: every reply but the greeting, those to EHLO and 354 has an enhanced
 * code (RFC 2034 section 3), and none is without a text. */
static struct smtp_reply completed(const struct smtp_server *s, struct smtp_reply reply)
{
    unsigned class_ = reply.code / 100;

    if (reply.text.n == 0)
        reply.text = reply.code == 354   ? STR("End data with <CR><LF>.<CR><LF>")
                     : reply.code == 220 ? STR("Ready to start TLS")
                     : class_ == 2       ? STR("OK")
                     : class_ == 4       ? STR("Try again later")
                                         : STR("Refused");
    if (s->asked != SMTP_SERVER_CONNECT && s->asked != SMTP_SERVER_XCLIENT &&
        s->asked != SMTP_SERVER_HELO && class_ != 3 && reply.enhanced.class_ != class_ &&
        !text_has_enhanced(reply.text, class_))
        reply.enhanced = ENH((uint8_t)class_, 0, 0);
    return reply;
}

static void write_answer(struct smtp_server *s, const struct smtp_reply *reply)
{
    struct smtp_reply full = completed(s, *reply);

    server_write(s, &full);
    count_refusal(s, reply);
}

static void answer_connect(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (!yes) {
        bool early = server_talked_early(s);
        write_answer(s, reply);
        if (reply->code == 554 && !early) /* QUIT is to be waited for (RFC 5321 §3.1) */
            s->state = SERVER_REFUSED;
        else
            server_close(s, "refused at the greeting");
    } else if (server_talked_early(s)) {
        server_reply_close(s, 554, ENH(5, 5, 1), "Talking before the greeting",
                           "talking before the greeting");
    } else {
        server_greet(s, reply);
        s->state = SERVER_HELO;
    }
}

/* An EHLO that is accepted acts as RSET does; one that is not changes nothing (RFC 5321 §4.1.4). */
static void answer_helo(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (!yes) {
        write_answer(s, reply);
        return;
    }
    if (server_in(s, IN_TRANSACTION))
        server_end_transaction(s, true);
    s->state = SERVER_READY;
    server_write_capabilities(s);
}

static void answer_mail(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (yes)
        s->state = SERVER_MAIL;
    write_answer(s, reply);
}

static void answer_rcpt(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (yes) {
        s->state = SERVER_RCPT;
        s->recipients++;
        s->commands--; /* a long list of recipients is not idle talk */
    }
    write_answer(s, reply);
}

static void answer_data(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (yes && server_talked_early(s)) {
        server_reply_close(s, 554, ENH(5, 5, 0), "Message text before the reply to DATA",
                           "data sent before 354");
        return;
    }
    write_answer(s, reply);
    if (yes)
        server_begin_data(s);
    else
        server_refused_data(s);
}

/* One of several (RFC 2033 §4.2). What they mean for the session shows behind the last: a client that
 * misses a reply sends the message to that recipient again. */
static void answer_each(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    struct smtp_reply full = completed(s, *reply);

    server_write(s, &full);
    s->final_yes |= yes;
    s->final_no |= smtp_reply_permanent(reply);
    s->final_421 |= reply->code == 421;
    if (--s->recipients > 0) {
        s->ticket = s->last_ticket; /* undecided still */
        return;
    }
    bool wrong = !s->final_yes && s->final_no, over = s->final_421;
    if (s->final_yes)
        s->errors = s->commands = 0;
    s->final_yes = s->final_no = s->final_421 = false;
    server_end_transaction(s, false);
    if (wrong)
        server_count_error(s);
    if (over)
        server_close(s, "421");
}

static void answer_end(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (s->opt.lmtp) {
        answer_each(s, reply, yes);
        return;
    }
    server_end_transaction(s, false);
    if (yes)
        s->errors = s->commands = 0;
    write_answer(s, reply);
}

static void answer_starttls(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (yes && server_talked_early(s)) {
        server_reply_close(s, 554, ENH(5, 5, 0), "Commands behind STARTTLS",
                           "commands behind STARTTLS");
        return;
    }
    write_answer(s, reply);
    if (yes)
        s->state = SERVER_TLS;
}

static void answer_etrn(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    write_answer(s, reply);
}

/* The roles turn: what the client has sent ahead would be taken for its part in the other role. */
static void answer_atrn(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (yes && server_talked_early(s)) {
        server_reply_close(s, 554, ENH(5, 5, 0), "Commands behind ATRN", "commands behind ATRN");
        return;
    }
    write_answer(s, reply);
}

/* Of the session so far nothing counts but TLS; who it is only when XCLIENT said so. */
static void answer_xclient(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (!yes) {
        write_answer(s, reply);
        server_close(s, "refused at the greeting");
        return;
    }
    server_greet(s, reply);
    s->state = SERVER_HELO;
    s->extended = false;
    s->mails = 0; /* another client's session */
    s->authenticated = s->xclient_login;
}

/* What the client says of itself is judged by the application; here is only how it ends. */
static void answer_auth(struct smtp_server *s, const struct smtp_reply *reply, bool yes)
{
    if (yes && reply->code == 334) {
        server_write_challenge(s, reply->text);
        s->state = SERVER_AUTH;
        return;
    }
    s->state = SERVER_READY;
    s->authenticated = yes;
    write_answer(s, reply);
    if (smtp_reply_permanent(reply))
        server_count_auth_failure(s);
}

static const struct answer_rule {
    answer_handler *on;
    uint16_t least, most; /* codes that are a yes */
    uint16_t also;        /* one more code that is */
} rules[] = {
    [SMTP_SERVER_CONNECT] = { answer_connect, 220, 220, 0 },
    [SMTP_SERVER_HELO] = { answer_helo, 250, 250, 0 },
    [SMTP_SERVER_MAIL] = { answer_mail, 250, 250, 0 },
    [SMTP_SERVER_RCPT] = { answer_rcpt, 250, 252, 0 },
    [SMTP_SERVER_DATA] = { answer_data, 354, 354, 0 },
    [SMTP_SERVER_END] = { answer_end, 200, 299, 0 },
    [SMTP_SERVER_STARTTLS] = { answer_starttls, 220, 220, 0 },
    [SMTP_SERVER_ETRN] = { answer_etrn, 250, 253, 0 },
    [SMTP_SERVER_ATRN] = { answer_atrn, 250, 250, 0 },
    [SMTP_SERVER_XCLIENT] = { answer_xclient, 220, 220, 0 },
    [SMTP_SERVER_AUTH] = { answer_auth, 235, 235, 334 },
    [SMTP_SERVER_AUTH_RESPONSE] = { answer_auth, 235, 235, 334 },
};

int smtp_server_answer(struct smtp_server *s, uint32_t ticket, const struct smtp_reply *reply)
{
    const struct answer_rule *rule = &rules[s->asked];

    if (s->failed)
        return s->failed;
    if (ticket == 0 || ticket != s->ticket)
        return -ESTALE;

    bool yes = reply->code >= rule->least && reply->code <= rule->most;
    yes = yes || (rule->also && reply->code == rule->also);
    if (!yes && (reply->code < 400 || reply->code > 599))
        return -EINVAL;
    s->ticket = 0;
    rule->on(s, reply, yes);
    if (reply->code == 421 && !s->ticket)
        server_close(s, "421");
    if (s->out.failed)
        s->failed = -ENOMEM;
    return s->failed;
}
