/* smtp_server_mail.c - MAIL FROM:<path> with SIZE (RFC 1870), BODY (RFC 6152, 3030), SMTPUTF8 (RFC 6531),
 * RET and ENVID (RFC 3461), AUTH (RFC 4954), REQUIRETLS (RFC 8689), BY (RFC 2852), HOLDFOR and HOLDUNTIL (RFC 4865),
 * MT-PRIORITY (RFC 6710).
 *
 * Layer: proto. See smtp_server_impl.h. Blanks between the colon and the path are tolerated: much
 * software writes them, and they mean nothing else.
 */
#include "proto/smtp_server_impl.h"

int server_parse_path(struct str arg, struct str prefix, bool is_sender, struct server_path *ret)
{
    struct server_path path;

    if (!str_casestarts(arg, prefix))
        return -EINVAL;

    struct str at = str_trim(str_from(arg, prefix.n));
    int r = smtp_parse_path(at, is_sender, !is_sender, true, &path.box, &path.params);
    if (r < 0)
        return r;
    path.address = str_make(at.p + 1, at.n - path.params.n - 2);
    *ret = path;
    return 0;
}

enum { PARAM_SIZE = 1, PARAM_BODY = 2, PARAM_UTF8 = 4, PARAM_AUTH = 8, PARAM_REQUIRETLS = 16 };

struct mail_params {
    uint64_t size;
    enum smtp_body_type body;
    struct smtp_dsn_mail dsn;
    struct smtp_times times;
    unsigned seen;
};

enum param { PARAM_OK, PARAM_SYNTAX, PARAM_UNKNOWN, PARAM_NEEDS_TLS };

/* size-value = 1*20DIGIT. What no integer holds is over every limit. */
static enum param take_size(struct str value, struct mail_params *p)
{
    int r = value.n > 20 ? -EINVAL : str_to_u64(value, &p->size);

    if (r == -ERANGE)
        p->size = UINT64_MAX;
    return r == -EINVAL ? PARAM_SYNTAX : PARAM_OK;
}

static enum param take_body(const struct smtp_server *s, struct str value, struct mail_params *p)
{
    if (str_caseeq(value, STR("8BITMIME")))
        p->body = SMTP_BODY_8BITMIME;
    else if (str_caseeq(value, STR("BINARYMIME")) && s->opt.binarymime)
        p->body = SMTP_BODY_BINARYMIME;
    else if (!str_caseeq(value, STR("7BIT")))
        return PARAM_SYNTAX;
    return PARAM_OK;
}

/* What has its own module: RET, ENVID, and when the mail is to go. */
static enum param take_other(const struct smtp_server *s, struct str keyword, struct str value,
                             struct mail_params *p)
{
    unsigned offered = (s->opt.deliver_by ? SMTP_TIMES_BY : 0u) |
                       (s->opt.hold_max_s ? SMTP_TIMES_HOLD : 0u) |
                       (s->opt.priority ? SMTP_TIMES_PRIORITY : 0u);
    int r = s->opt.dsn ? smtp_dsn_mail_param(keyword, value, &p->dsn) : -ENOENT;

    if (r == -ENOENT)
        r = smtp_times_param(keyword, value, offered, &p->times);
    return r == 0 ? PARAM_OK : r == -ENOENT ? PARAM_UNKNOWN : PARAM_SYNTAX;
}

/* Who says it in clear has misunderstood it: the message is on the wire already (RFC 8689 section 2). */
static enum param take_requiretls(const struct smtp_server *s, struct str value)
{
    return value.p ? PARAM_SYNTAX : s->tls ? PARAM_OK : PARAM_NEEDS_TLS;
}

static enum param take_param(const struct smtp_server *s, struct str keyword, struct str value,
                             struct mail_params *p)
{
    unsigned which = str_caseeq(keyword, STR("SIZE"))                          ? PARAM_SIZE
                     : str_caseeq(keyword, STR("BODY"))                        ? PARAM_BODY
                     : str_caseeq(keyword, STR("SMTPUTF8")) && s->opt.smtputf8 ? PARAM_UTF8
                     : str_caseeq(keyword, STR("AUTH")) && s->opt.mechanisms   ? PARAM_AUTH
                     : str_caseeq(keyword, STR("REQUIRETLS")) && s->opt.requiretls
                         ? PARAM_REQUIRETLS
                         : 0u;
    if (!which)
        return take_other(s, keyword, value, p);
    if (p->seen & which)
        return PARAM_SYNTAX;
    p->seen |= which;
    if (which == PARAM_SIZE)
        return take_size(value, p);
    if (which == PARAM_BODY)
        return take_body(s, value, p);
    if (which == PARAM_AUTH)
        return server_auth_param_ok(value) ? PARAM_OK : PARAM_SYNTAX;
    if (which == PARAM_REQUIRETLS)
        return take_requiretls(s, value);
    return value.p ? PARAM_SYNTAX : PARAM_OK;
}

static enum param take_params(const struct smtp_server *s, struct str params, struct mail_params *p)
{
    struct str keyword, value;
    int r;

    while ((r = smtp_next_param(&params, &keyword, &value)) == 1) {
        enum param result = take_param(s, keyword, value, p);
        if (result != PARAM_OK)
            return result;
    }
    return r < 0 ? PARAM_SYNTAX : PARAM_OK;
}

/* Beyond what EHLO told. RFC 4865 has its limits with the syntax (501). */
static bool refuse_times(struct smtp_server *s, const struct smtp_times *t)
{
    const struct smtp_server_options *opt = &s->opt;

    if (t->by.mode == SMTP_BY_RETURN && (uint32_t)t->by.seconds < opt->deliver_by_min_s)
        server_reply(s, 555, ENH(5, 5, 4),
                     "BY with R must leave the time that EHLO tells, at least");
    else if (t->hold && t->hold_s > opt->hold_max_s)
        server_reply(s, 501, ENH(5, 5, 4), "HOLDFOR is longer than EHLO allows");
    else if (t->hold && !t->hold_s && t->hold_until_ms > opt->hold_max_ms)
        server_reply(s, 501, ENH(5, 5, 4), "HOLDUNTIL is later than EHLO allows");
    else
        return false;
    return true;
}

enum step server_on_mail(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    struct mail_params params = { .body = SMTP_BODY_7BIT };
    struct server_path path;

    if (s->opt.max_messages && s->mails >= s->opt.max_messages)
        return server_reply_close(s, 421, ENH(4, 7, 0), "Too many messages in one session",
                                  "too many messages");
    s->mails++;
    if (!str_casestarts(arg, STR("FROM:")))
        return server_reply(s, 501, ENH(5, 5, 4), "Syntax: MAIL FROM:<address>");
    int r = server_parse_path(arg, STR("FROM:"), true, &path);
    if (r < 0)
        return server_reply(s, 501, ENH(5, 1, 7),
                            r == -E2BIG ? "Sender's address too long"
                                        : "Bad syntax of the sender's address");
    switch (take_params(s, path.params, &params)) {
    case PARAM_SYNTAX: return server_reply(s, 501, ENH(5, 5, 4), "Bad syntax of a parameter");
    case PARAM_UNKNOWN: return server_reply(s, 555, ENH(5, 5, 4), "Parameter not recognized");
    case PARAM_NEEDS_TLS:
        return server_reply(s, 530, ENH(5, 7, 10),
                            "REQUIRETLS must come inside TLS: STARTTLS first");
    case PARAM_OK: break;
    }
    s->smtputf8 = params.seen & PARAM_UTF8;
    s->binary = params.body == SMTP_BODY_BINARYMIME;
    if (!s->smtputf8 && !str_is_ascii(path.address))
        return server_reply(s, 553, ENH(5, 6, 7), "Non-ASCII address without SMTPUTF8");
    if (s->opt.size_limit && params.size > s->opt.size_limit)
        return server_reply(s, 552, ENH(5, 3, 4), "Message too large");
    if (refuse_times(s, &params.times))
        return STEP_AGAIN;

    ret->mail.sender = path.box;
    ret->mail.address = path.address;
    ret->mail.size = params.size;
    ret->mail.body = params.body;
    ret->mail.smtputf8 = s->smtputf8;
    ret->mail.requiretls = params.seen & PARAM_REQUIRETLS;
    ret->mail.dsn = params.dsn;
    ret->mail.times = params.times;
    return server_ask(s, SMTP_SERVER_MAIL, ret);
}
