/* trace.c - the Received header (RFC 5321 §4.4, RFC 3848, RFC 6531 §4.3, RFC 6710 §7).
 *
 * Layer: mail. Interface: trace.h. Written for each message: plain appends. Each clause has a line
 * of its own, so that no line comes near 998 octets whatever a client calls itself.
 */
#include "mail/trace.h"

#include "base/units.h"

enum { MAX_NAME = 255, MAX_PATH = 512 };

/* Bytes that would end the clause they stand in, or the header, or its date. */
static bool harmless(char c, bool utf8)
{
    unsigned char u = (unsigned char)c;

    if (u >= 0x80)
        return utf8;
    return u > 0x20 && u != 0x7f && !strchr("()\\;<>", u);
}

static void add_clean(struct buf *out, struct str s, size_t max, bool utf8)
{
    s = str_first(s, max);
    utf8 = utf8 && str_is_utf8(s);
    char *room = buf_room(out, s.n ? s.n : 1);
    if (!room)
        return;
    for (size_t i = 0; i < s.n; i++)
        room[i] = harmless(s.p[i], utf8) ? s.p[i] : '?';
    buf_added(out, s.n);
}

/* "[192.0.2.1]", "[IPv6:2001:db8::1]" */
static void add_literal(struct buf *out, const struct net_addr *a)
{
    char text[NET_ADDR_TEXT];

    buf_add_str(out, a->family == NET_IPV6 ? STR("[IPv6:") : STR("["));
    buf_add_str(out, str_of(net_addr_ip_text(a, text)));
    buf_add_char(out, ']');
}

static void add_from(const struct trace *t, struct buf *out)
{
    bool ip = t->client.family == NET_IPV4 || t->client.family == NET_IPV6;

    buf_add_str(out, STR("Received: from "));
    if (t->helo.n)
        add_clean(out, t->helo, MAX_NAME, t->utf8);
    else if (ip)
        add_literal(out, &t->client);
    else
        buf_add_str(out, STR("localhost"));
    if (ip) {
        buf_add_str(out, STR(" ("));
        add_literal(out, &t->client);
        buf_add_char(out, ')');
    }
}

static void add_with(const struct trace *t, struct buf *out)
{
    buf_add_str(out, STR(" with "));
    if (!t->extended && !t->lmtp) {
        buf_add_str(out, STR("SMTP"));
        return;
    }
    if (t->lmtp)
        buf_add_str(out, t->utf8 ? STR("UTF8LMTP") : STR("LMTP"));
    else
        buf_add_str(out, t->utf8 ? STR("UTF8SMTP") : STR("ESMTP"));
    if (t->tls)
        buf_add_char(out, 'S');
    if (t->authenticated)
        buf_add_char(out, 'A');
}

static void add_tls(const struct trace *t, struct buf *out)
{
    if (!t->tls_version.n)
        return;
    buf_add_str(out, STR("\r\n\t("));
    add_clean(out, t->tls_version, 64, false);
    if (t->tls_cipher.n) {
        buf_add_char(out, ' ');
        add_clean(out, t->tls_cipher, 128, false);
    }
    buf_add_char(out, ')');
}

int trace_write(const struct trace *t, struct buf *out)
{
    char id[MSGID_TEXT], date[40];

    add_from(t, out);
    buf_add_str(out, STR("\r\n\tby "));
    add_clean(out, t->by, MAX_NAME, t->utf8);
    add_with(t, out);
    add_tls(t, out);
    buf_add_str(out, STR("\r\n\tid "));
    buf_add_str(out, str_make(msgid_text(&t->id, id), MSGID_TEXT - 1));
    if (t->for_.n) {
        buf_add_str(out, STR("\r\n\tfor <"));
        add_clean(out, t->for_, MAX_PATH, t->utf8);
        buf_add_char(out, '>');
    }
    if (t->priority)
        buf_printf(out, "\r\n\tPRIORITY %d", *t->priority);
    buf_add_str(out, STR(";\r\n\t"));
    buf_add_str(out, str_of(date_rfc5322(t->wall_ms, date)));
    return buf_add_str(out, STR("\r\n"));
}
