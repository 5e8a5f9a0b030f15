/* smtp_server_rcpt.c - RCPT TO:<path> with NOTIFY and ORCPT (RFC 3461).
 *
 * Layer: proto. See smtp_server_impl.h.
 */
#include "proto/smtp_server_impl.h"

/* RFC 5321 §4.5.3.1.10. A sender that goes on regardless is cut off in the end. */
static enum step too_many(struct smtp_server *s)
{
    server_reply(s, 452, ENH(4, 5, 3), "Too many recipients");
    if (++s->overshoot > SERVER_MAX_OVERSHOOT)
        server_count_error(s);
    return STEP_AGAIN;
}

/* 0, -EINVAL, -ENOENT: one that is not offered. */
static int take_params(const struct smtp_server *s, struct str params, struct smtp_dsn_rcpt *ret)
{
    struct str keyword, value;
    int r;

    while ((r = smtp_next_param(&params, &keyword, &value)) == 1) {
        r = s->opt.dsn ? smtp_dsn_rcpt_param(keyword, value, s->smtputf8, ret) : -ENOENT;
        if (r < 0)
            return r;
    }
    return r;
}

enum step server_on_rcpt(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    struct smtp_dsn_rcpt dsn = { .notify = 0 };
    struct server_path path;

    s->rcpt_seen = true;
    if (!str_casestarts(arg, STR("TO:")))
        return server_reply(s, 501, ENH(5, 5, 4), "Syntax: RCPT TO:<address>");
    int r = server_parse_path(arg, STR("TO:"), false, &path);
    if (r < 0)
        return server_reply(s, 501, ENH(5, 1, 3),
                            r == -E2BIG ? "Recipient's address too long"
                                        : "Bad syntax of the recipient's address");
    r = take_params(s, path.params, &dsn);
    if (r == -EINVAL)
        return server_reply(s, 501, ENH(5, 5, 4), "Bad syntax of a parameter");
    if (r < 0)
        return server_reply(s, 555, ENH(5, 5, 4), "Parameter not recognized");
    if (!s->smtputf8 && !str_is_ascii(path.address))
        return server_reply(s, 553, ENH(5, 6, 7), "Non-ASCII address without SMTPUTF8");
    if (s->recipients >= s->opt.max_recipients)
        return too_many(s);

    ret->rcpt.recipient = path.box;
    ret->rcpt.address = path.address;
    ret->rcpt.dsn = dsn;
    return server_ask(s, SMTP_SERVER_RCPT, ret);
}
