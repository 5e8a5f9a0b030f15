/* smtp_server_rcpt.c - RCPT TO:<path>. No parameter is offered.
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

enum step server_on_rcpt(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    struct str keyword, value;
    struct server_path path;

    s->rcpt_seen = true;
    if (!str_casestarts(arg, STR("TO:")))
        return server_reply(s, 501, ENH(5, 5, 4), "Syntax: RCPT TO:<address>");
    int r = server_parse_path(arg, STR("TO:"), false, &path);
    if (r < 0)
        return server_reply(s, 501, ENH(5, 1, 3),
                            r == -E2BIG ? "Recipient's address too long"
                                        : "Bad syntax of the recipient's address");
    r = smtp_next_param(&path.params, &keyword, &value);
    if (r < 0)
        return server_reply(s, 501, ENH(5, 5, 4), "Bad syntax of a parameter");
    if (r > 0)
        return server_reply(s, 555, ENH(5, 5, 4), "Parameter not recognized");
    if (!s->smtputf8 && !str_is_ascii(path.address))
        return server_reply(s, 553, ENH(5, 6, 7), "Non-ASCII address without SMTPUTF8");
    if (s->recipients >= s->opt.max_recipients)
        return too_many(s);

    ret->rcpt.recipient = path.box;
    ret->rcpt.address = path.address;
    return server_ask(s, SMTP_SERVER_RCPT, ret);
}
