/* smtp_server_xclient.c - XCLIENT attribute=value... (Postfix, XCLIENT_README): a trusted client, such
 * as a proxy or a filter, says who another client is.
 *
 * Layer: proto. See smtp_server_impl.h. Values are xtext, "[UNAVAILABLE]" or "[TEMPUNAVAIL]". They are decoded
 * where they stand, which is our own buffer. Names of attributes are taken in any case, each once.
 */
#include "proto/smtp_server_impl.h"

enum { MAX_LOGIN = 255 };

static const struct attribute {
    const char *name;
    uint32_t bit;
} attributes[] = {
    { "NAME", SMTP_XCLIENT_NAME },         { "ADDR", SMTP_XCLIENT_ADDR },
    { "PORT", SMTP_XCLIENT_PORT },         { "PROTO", SMTP_XCLIENT_PROTO },
    { "HELO", SMTP_XCLIENT_HELO },         { "LOGIN", SMTP_XCLIENT_LOGIN },
    { "DESTADDR", SMTP_XCLIENT_DESTADDR }, { "DESTPORT", SMTP_XCLIENT_DESTPORT },
};

static uint32_t find_attribute(struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(attributes); i++)
        if (str_caseeq(name, str_of(attributes[i].name)))
            return attributes[i].bit;
    return 0;
}

static bool take_address(struct str text, struct net_addr *ret)
{
    const struct str ipv6 = STR("IPV6:");

    bool prefixed = str_casestarts(text, ipv6);
    if (prefixed)
        text = str_from(text, ipv6.n);
    return prefixed == (str_chr(text, ':') >= 0) && net_addr_parse_ip(text, ret) == 0 &&
           !net_addr_is_any(ret);
}

static bool take_port(struct str text, uint16_t *ret)
{
    uint64_t n;

    if (str_to_u64(text, &n) < 0 || n > UINT16_MAX)
        return false;
    *ret = (uint16_t)n;
    return true;
}

static bool take_proto(struct str text, bool *ret)
{
    *ret = str_caseeq(text, STR("ESMTP"));
    return *ret || str_caseeq(text, STR("SMTP"));
}

/* What is decoded may hold nothing that a log line or a header must not. */
static bool take_text(struct str text, size_t longest, struct str *ret)
{
    *ret = text;
    return text.n <= longest && str_is_utf8(text);
}

static bool take_value(struct smtp_xclient *x, uint32_t bit, struct str text)
{
    switch (bit) {
    case SMTP_XCLIENT_NAME:
        return smtp_parse_domain(text, false) == 0 && take_text(text, 255, &x->name);
    case SMTP_XCLIENT_ADDR: return take_address(text, &x->addr);
    case SMTP_XCLIENT_PORT: return take_port(text, &x->port);
    case SMTP_XCLIENT_PROTO: return take_proto(text, &x->extended);
    case SMTP_XCLIENT_HELO:
        return smtp_parse_helo(text, false) == 0 && take_text(text, 255, &x->helo);
    case SMTP_XCLIENT_LOGIN: return take_text(text, MAX_LOGIN, &x->login);
    case SMTP_XCLIENT_DESTADDR: return take_address(text, &x->dest);
    default: return take_port(text, &x->dest_port);
    }
}

static bool take_attribute(struct smtp_xclient *x, struct str word)
{
    struct str name = STR_NONE;

    if (!str_cut(&word, '=', &name) || !word.p)
        return false;
    uint32_t bit = find_attribute(name);
    if (!bit || x->said & bit)
        return false;
    x->said |= bit;
    if (word.n == 0 || str_caseeq(word, STR("[UNAVAILABLE]")) ||
        str_caseeq(word, STR("[TEMPUNAVAIL]"))) {
        x->empty |= bit;
        return true;
    }
    char *at = (char *)word.p;
    ptrdiff_t n = smtp_xtext_decode(word, at, word.n);
    return n > 0 && take_value(x, bit, str_make(at, (size_t)n));
}

enum step server_on_xclient(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    struct smtp_xclient *x = &ret->xclient;
    struct str word;

    *x = (struct smtp_xclient){ .name = STR(""), .helo = STR(""), .login = STR("") };
    while (str_cut(&arg, ' ', &word))
        if (word.n && !take_attribute(x, word))
            return server_reply(s, 501, ENH(5, 5, 4), "Bad XCLIENT attribute or value");
    if (!x->said)
        return server_reply(s, 501, ENH(5, 5, 4), "Syntax: XCLIENT attribute=value...");
    if (x->said & SMTP_XCLIENT_LOGIN)
        s->xclient_login = x->login.n > 0;
    return server_ask(s, SMTP_SERVER_XCLIENT, ret);
}
