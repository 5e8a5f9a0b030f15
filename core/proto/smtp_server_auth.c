/* smtp_server_auth.c - AUTH (RFC 4954): the command, the lines of its exchange, its parameter of
 * MAIL. What the mechanisms say to each other is the application's (sasl.h): here it is base64.
 *
 * Layer: proto. See smtp_server_impl.h.
 */
#include "proto/smtp_server_impl.h"

#include "base/base64.h"

static bool usable(const struct smtp_server *s, enum sasl_mechanism m)
{
    if (!(s->opt.mechanisms & SASL_BIT(m)))
        return false;
    return s->tls || (!s->opt.require_tls && (s->opt.clear_auth || !sasl_is_clear(m)));
}

/* The strongest first: many clients take the first that they know. */
void server_add_auth(const struct smtp_server *s, struct buf *out)
{
    static const enum sasl_mechanism order[] = { SASL_SCRAM_SHA_256, SASL_PLAIN, SASL_LOGIN,
                                                 SASL_CRAM_MD5 };
    bool any = false;

    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        if (!usable(s, order[i]))
            continue;
        buf_printf(out, "%s %s", any ? "" : "\nAUTH", sasl_name(order[i]));
        any = true;
    }
}

/* The exchange ends here, and not by an answer of the application. */
static enum step end_exchange(struct smtp_server *s, uint16_t code, struct smtp_enhanced e,
                              const char *text)
{
    s->state = SERVER_READY;
    s->auth_end_due = true;
    return server_reply(s, code, e, text);
}

/* Decodes where it stands, which is our own buffer. */
static bool decode(struct str line, struct str *ret)
{
    char *at = (char *)line.p;
    size_t n;

    if (line.n == 0) {
        *ret = STR("");
        return true;
    }
    if (base64_decode(line, at, line.n, &n) < 0)
        return false;
    *ret = str_make(at, n);
    return true;
}

enum step server_on_auth(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    struct str rest = arg, word = STR("");
    enum sasl_mechanism m;

    if (s->authenticated)
        return server_reply(s, 503, ENH(5, 5, 1), "Authenticated already");
    if (!str_cut(&rest, ' ', &word) || word.n == 0)
        return server_reply(s, 501, ENH(5, 5, 4), "Syntax: AUTH mechanism [initial-response]");
    rest = str_trim(rest);
    m = sasl_find(word);
    if (m == SASL_NONE || !(s->opt.mechanisms & SASL_BIT(m)))
        return server_reply(s, 504, ENH(5, 5, 4), "Mechanism not supported");
    if (!usable(s, m))
        return server_reply(s, 538, ENH(5, 7, 11),
                            "Encryption required for requested authentication mechanism");
    if (rest.n > 0 && m == SASL_CRAM_MD5)
        return server_reply(s, 501, ENH(5, 7, 0), "This mechanism has no initial response");
    ret->auth.mechanism = m;
    ret->auth.initial = rest.n > 0;
    /* "=" is an empty one (RFC 4954 section 4). */
    if (!decode(str_eq(rest, STR("=")) ? STR("") : rest, &ret->auth.response))
        return server_reply(s, 501, ENH(5, 5, 2), "Not base64");
    return server_ask(s, SMTP_SERVER_AUTH, ret);
}

enum step server_auth_line(struct smtp_server *s, struct str line, bool overlong,
                           struct smtp_server_event *ret)
{
    if (overlong)
        return end_exchange(s, 500, ENH(5, 5, 6), "Line too long");
    if (str_eq(line, STR("*")))
        return end_exchange(s, 501, ENH(5, 7, 0), "Authentication cancelled");
    if (!decode(line, &ret->auth.response))
        return end_exchange(s, 501, ENH(5, 5, 2), "Not base64");
    return server_ask(s, SMTP_SERVER_AUTH_RESPONSE, ret);
}

void server_write_challenge(struct smtp_server *s, struct str challenge)
{
    buf_add_str(&s->out, STR("334 "));
    base64_add(&s->out, challenge);
    buf_add_str(&s->out, STR("\r\n"));
}

void server_count_auth_failure(struct smtp_server *s)
{
    s->auth_failures++;
    if (s->opt.max_auth_failures && s->auth_failures >= s->opt.max_auth_failures && !s->close_why)
        server_reply_close(s, 421, ENH(4, 7, 0), "Too many failed authentications",
                           "too many failed authentications");
}

/* "<>" or a mailbox in xtext: who submitted the message first, as the client says. It is not taken
 * over (RFC 4954 section 5: a server may treat every client as not trusted to say so). */
bool server_auth_param_ok(struct str value)
{
    char text[SMTP_MAX_PATH + 1];
    struct smtp_mailbox box;
    ptrdiff_t n = smtp_xtext_decode(value, text, sizeof(text));

    if (n < 0)
        return false;
    return str_eq(str_make(text, (size_t)n), STR("<>")) ||
           smtp_parse_mailbox(str_make(text, (size_t)n), true, &box) == 0;
}
