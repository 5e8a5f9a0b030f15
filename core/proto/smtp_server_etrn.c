/* smtp_server_etrn.c - ETRN [@|#]node (RFC 1985) and ATRN [domain[,domain]...] (RFC 2645): only the
 * syntax is judged here.
 *
 * Layer: proto. See smtp_server_impl.h.
 */
#include "proto/smtp_server_impl.h"

/* "#name" names a queue by private agreement: printable, no blanks. */
static bool valid_queue_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= 32 || s.p[i] > 126)
            return false;
    return s.n > 0 && s.n <= SMTP_MAX_DOMAIN;
}

enum step server_on_etrn(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    char option = 0;

    if (arg.n == 0)
        return server_reply(s, 500, ENH(5, 5, 4), "Syntax: ETRN domain");
    if (*arg.p == '@' || *arg.p == '#') {
        option = *arg.p;
        arg = str_from(arg, 1);
    }
    if (option == '#' ? !valid_queue_name(arg) : smtp_parse_domain(arg, false) < 0)
        return server_reply(s, 501, ENH(5, 5, 4), "Not a domain");
    ret->etrn.option = option;
    ret->etrn.node = arg;
    return server_ask(s, SMTP_SERVER_ETRN, ret);
}

enum step server_on_atrn(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    if (!s->authenticated)
        return server_reply(s, 530, ENH(5, 7, 0), "Authentication required");
    for (struct str rest = arg; rest.n;) {
        ptrdiff_t comma = str_chr(rest, ',');
        struct str domain = str_trim(comma < 0 ? rest : str_first(rest, (size_t)comma));
        if (smtp_parse_domain(domain, false) < 0 || (size_t)comma + 1 == rest.n)
            return server_reply(s, 501, ENH(5, 5, 4), "Not a list of domains");
        rest = comma < 0 ? STR_NONE : str_from(rest, (size_t)comma + 1);
    }
    ret->etrn.option = 0;
    ret->etrn.node = arg;
    return server_ask(s, SMTP_SERVER_ATRN, ret);
}
