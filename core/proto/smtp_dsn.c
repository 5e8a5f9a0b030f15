/* smtp_dsn.c - the parameters of RFC 3461. Layer: proto. Interface: smtp_dsn.h. */
#include "proto/smtp_dsn.h"

#include <stdio.h>

#include "proto/smtp_syntax.h"

static bool is_xtext(struct str s, size_t max)
{
    char decoded[SMTP_MAX_ORCPT];

    return s.n > 0 && s.n <= max && smtp_xtext_decode(s, decoded, sizeof(decoded)) >= 0;
}

int smtp_dsn_mail_param(struct str keyword, struct str value, struct smtp_dsn_mail *ret)
{
    if (str_caseeq(keyword, STR("ENVID"))) {
        if (ret->envid.n || !is_xtext(value, SMTP_MAX_ENVID))
            return -EINVAL;
        ret->envid = value;
        return 0;
    }
    if (!str_caseeq(keyword, STR("RET")))
        return -ENOENT;
    bool full = str_caseeq(value, STR("FULL"));
    if (ret->ret != SMTP_RET_NONE || (!full && !str_caseeq(value, STR("HDRS"))))
        return -EINVAL;
    ret->ret = full ? SMTP_RET_FULL : SMTP_RET_HDRS;
    return 0;
}

static const struct {
    const char *name;
    enum smtp_notify bit;
} notify_names[] = {
    { "NEVER", SMTP_NOTIFY_NEVER },
    { "SUCCESS", SMTP_NOTIFY_SUCCESS },
    { "FAILURE", SMTP_NOTIFY_FAILURE },
    { "DELAY", SMTP_NOTIFY_DELAY },
};

static int take_notify(struct str value, uint8_t *ret)
{
    struct str word;
    uint8_t set = 0;

    if (*ret || value.n == 0 || value.p[value.n - 1] == ',')
        return -EINVAL;
    while (str_cut(&value, ',', &word)) {
        uint8_t bit = 0;
        for (size_t i = 0; i < ARRAY_LEN(notify_names); i++)
            if (str_caseeq(word, str_of(notify_names[i].name)))
                bit = (uint8_t)notify_names[i].bit;
        if (!bit || (set & bit))
            return -EINVAL;
        set |= bit;
    }
    if ((set & SMTP_NOTIFY_NEVER) && set != SMTP_NOTIFY_NEVER)
        return -EINVAL;
    *ret = set;
    return 0;
}

/* An atom of RFC 5321: the address type. */
static bool is_atom(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ascii_alnum(s.p[i]) && !strchr("!#$%&'*+-/=?^_`{|}~", s.p[i]))
            return false;
    return s.n > 0;
}

/* RFC 6533 §3: an address of type utf-8 may stand as it is, where SMTPUTF8 is asked for. */
static bool is_utf8_address(struct str type, struct str address)
{
    for (size_t i = 0; i < address.n; i++)
        if ((unsigned char)address.p[i] <= ' ' || address.p[i] == 0x7f)
            return false;
    return str_caseeq(type, STR("utf-8")) && address.n > 0 && str_is_utf8(address);
}

static int take_orcpt(struct str value, bool utf8, struct str *ret)
{
    struct str address = value, type;

    if (ret->n || value.n > SMTP_MAX_ORCPT || str_chr(value, ';') < 0)
        return -EINVAL;
    str_cut(&address, ';', &type);
    if (!is_atom(type) ||
        (!is_xtext(address, SMTP_MAX_ORCPT) && !(utf8 && is_utf8_address(type, address))))
        return -EINVAL;
    *ret = value;
    return 0;
}

int smtp_dsn_rcpt_param(struct str keyword, struct str value, bool utf8, struct smtp_dsn_rcpt *ret)
{
    if (str_caseeq(keyword, STR("NOTIFY")))
        return take_notify(value, &ret->notify);
    if (str_caseeq(keyword, STR("ORCPT")))
        return take_orcpt(value, utf8, &ret->orcpt);
    return -ENOENT;
}

const char *smtp_notify_text(uint8_t notify, char *dst)
{
    size_t n = 0;

    dst[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(notify_names); i++)
        if (notify & notify_names[i].bit)
            n += (size_t)snprintf(dst + n, SMTP_NOTIFY_TEXT - n, "%s%s", n ? "," : "",
                                  notify_names[i].name);
    return dst;
}

static void write_xtext(const char *name, struct str type, struct str text, size_t max,
                        struct buf *out)
{
    char xtext[SMTP_MAX_ORCPT];
    size_t room = max - MIN(max, type.n + (type.n > 0));
    ptrdiff_t n = smtp_xtext_encode(text, xtext, MIN(room, sizeof(xtext)));

    if (text.n && n > 0)
        buf_printf(out, " %s=" STR_FMT "%s%.*s", name, STR_ARG(type), type.n ? ";" : "", (int)n,
                   xtext);
}

void smtp_dsn_write_mail(const struct smtp_dsn_mail *dsn, struct buf *out)
{
    if (dsn->ret != SMTP_RET_NONE)
        buf_printf(out, " RET=%s", dsn->ret == SMTP_RET_FULL ? "FULL" : "HDRS");
    write_xtext("ENVID", STR_NONE, dsn->envid, SMTP_MAX_ENVID, out);
}

void smtp_dsn_write_rcpt(const struct smtp_dsn_rcpt *dsn, bool utf8, struct buf *out)
{
    char notify[SMTP_NOTIFY_TEXT];
    struct str address = dsn->orcpt, type;

    if (dsn->notify)
        buf_printf(out, " NOTIFY=%s", smtp_notify_text(dsn->notify, notify));
    if (address.n == 0 || !str_cut(&address, ';', &type))
        return;
    if (str_is_ascii(address))
        write_xtext("ORCPT", type, address, SMTP_MAX_ORCPT, out);
    else if (utf8 && dsn->orcpt.n <= SMTP_MAX_ORCPT)
        buf_printf(out, " ORCPT=" STR_FMT, STR_ARG(dsn->orcpt));
}
