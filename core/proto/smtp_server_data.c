/* smtp_server_data.c - DATA and the message behind it (RFC 5321 §4.1.1.4, §4.5.2).
 *
 * Layer: proto. See smtp_server_impl.h.
 *
 * Only CRLF ends a line, only CRLF.CRLF the message. A piece that is told points into the input
 * buffer and ends before a dot that is removed. A message that breaks a rule is dropped at once
 * (RESET) and drained to its true end, where the one reply is given; what looks like an end to
 * others is thus never an end here, and what follows it never a command.
 *
 * The scan holds back a CR, or a dot that begins a line, until the next octet is known: the same
 * octets make the same pieces, put together, however they arrive. Lines are searched by memchr;
 * only a line in which something is wrong is looked at octet by octet.
 */
#include "proto/smtp_server_impl.h"

enum { MAX_TEXT = SMTP_MAX_TEXT_LINE - 2 };

enum step server_on_data(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    /* DATA is the last of a group (RFC 2920 §3.1): who goes on has not waited for 354. */
    if (server_talked_early(s))
        return server_reply_close(s, 554, ENH(5, 5, 0), "Message text before the reply to DATA",
                                  "data sent before 354");
    if (s->binary) /* RFC 3030 section 3 */
        return server_reply(s, 503, ENH(5, 5, 1), "BODY=BINARYMIME needs BDAT");
    return server_ask(s, SMTP_SERVER_DATA, ret);
}

void server_refused_data(struct smtp_server *s)
{
    s->data_refused = true;
    if (server_talked_early(s))
        server_close(s, "data sent before 354");
}

void server_begin_data(struct smtp_server *s)
{
    s->state = SERVER_DATA;
    s->size = 0;
    s->bad = 0;
    s->line_octets = 0;
    s->at_bol = true;
}

/* ---- the scan ---- */

/* At a dot that begins a line. */
static enum server_stop look_at_dot(const char *p, const char *end)
{
    if (end - p < 2)
        return STOP_NEED;
    if (p[1] != '\r')
        return STOP_DOT;
    if (end - p < 3)
        return STOP_NEED;
    return p[2] == '\n' ? STOP_END : STOP_DOT;
}

/* Octet by octet to the first that is wrong, or to the end. */
static size_t scan_slowly(struct smtp_server *s, const char *p, const char *end,
                          enum server_stop *ret)
{
    for (const char *at = p; at < end; at++) {
        if (*at == '\r' && at + 1 == end) {
            *ret = STOP_NEED;
            return (size_t)(at - p);
        }
        if (*at == '\0' || *at == '\n' || (*at == '\r' && at[1] != '\n')) {
            *ret = STOP_BARE;
            return (size_t)(at - p);
        }
        if (*at == '\r') {
            s->line_octets = 0;
            s->at_bol = true;
            return (size_t)(at + 2 - p);
        }
        if (s->line_octets == MAX_TEXT && !(s->bad & BAD_LINE)) {
            *ret = STOP_LONG;
            return (size_t)(at - p);
        }
        s->line_octets += s->line_octets < MAX_TEXT;
    }
    return (size_t)(end - p);
}

size_t server_scan_line(struct smtp_server *s, const char *p, const char *end, bool nul,
                        enum server_stop *ret)
{
    size_t n = MIN((size_t)(end - p), (size_t)SMTP_MAX_TEXT_LINE);
    const char *lf = memchr(p, '\n', n);
    size_t text = lf ? (size_t)(lf - p) : n;

    if (text > 0 && p[text - 1] == '\r')
        text--;
    else if (lf)
        return scan_slowly(s, p, end, ret);
    if (memchr(p, '\r', text) || (nul && memchr(p, '\0', text)) ||
        (s->line_octets + text > MAX_TEXT && !(s->bad & BAD_LINE)))
        return scan_slowly(s, p, end, ret);
    if (lf) {
        s->line_octets = 0;
        s->at_bol = true;
        return (size_t)(lf + 1 - p);
    }
    s->line_octets = (uint16_t)MIN(s->line_octets + text, (size_t)MAX_TEXT);
    *ret = STOP_NEED;
    return text;
}

/* In a message with a bare octet only its end is of interest. */
static size_t skip_line(struct smtp_server *s, const char *p, const char *end)
{
    const char *lf = memchr(p, '\n', (size_t)(end - p));

    if (!lf)
        return (size_t)(end - p) - (end[-1] == '\r');
    s->at_bol = lf > p && lf[-1] == '\r';
    return (size_t)(lf + 1 - p);
}

/* How many octets at the front are of the message as they are; *ret: what stands behind them, valid
 * when there are none. */
static size_t scan(struct smtp_server *s, struct str in, enum server_stop *ret)
{
    const char *p = in.p, *end = in.p + in.n;
    bool nul = p && memchr(p, '\0', in.n); /* once for all is cheaper than in each line */
    size_t n = 1;

    *ret = STOP_NEED;
    while (p < end && n > 0) {
        if (s->at_bol && *p == '.') {
            *ret = look_at_dot(p, end);
            break;
        }
        s->at_bol = false;
        n = s->bad & BAD_BARE ? skip_line(s, p, end) : server_scan_line(s, p, end, nul, ret);
        p += n;
    }
    return (size_t)(p - in.p);
}

/* ---- what is made of it ---- */

static void mark_bad(struct smtp_server *s, unsigned why)
{
    if (!s->bad)
        s->reset_due = true;
    s->bad = (uint8_t)(s->bad | why);
}

/* n good octets. */
static enum step take_text(struct smtp_server *s, struct str in, size_t n,
                           struct smtp_server_event *ret)
{
    uint64_t limit = s->opt.size_limit ? s->opt.size_limit : UINT64_MAX;
    uint64_t left = limit > s->size ? limit - s->size : 0;
    size_t told = s->bad ? 0 : (size_t)MIN((uint64_t)n, left);

    buf_consume(&s->in, n);
    if (s->bad)
        return STEP_AGAIN;
    if (told < n)
        mark_bad(s, BAD_SIZE);
    s->size += told;
    if (told == 0)
        return STEP_AGAIN;
    ret->type = SMTP_SERVER_BODY;
    ret->body = str_first(in, told);
    return STEP_EVENT;
}

static enum step end_of_data(struct smtp_server *s, struct smtp_server_event *ret)
{
    unsigned bad = s->bad;
    uint32_t n = s->recipients;

    if (!bad) {
        ret->end.size = s->size;
        return server_ask(s, SMTP_SERVER_END, ret);
    }
    server_end_transaction(s, false); /* RESET was told when it went bad */
    if (bad & BAD_SIZE && !(bad & BAD_BARE))
        return server_refuse_message(s, n, 552, ENH(5, 3, 4), "Message too large");
    if (!(bad & BAD_BARE))
        return server_refuse_message(s, n, 550, ENH(5, 6, 0), "A line of the message is too long");
    server_write_finals(s, n, 550, ENH(5, 6, 0), "Bare CR, bare LF or NUL in the message");
    server_close(s, "bare CR, bare LF or NUL in a message");
    return STEP_AGAIN;
}

enum step server_body(struct smtp_server *s, struct smtp_server_event *ret)
{
    struct str in = buf_str(&s->in);
    enum server_stop stop;
    size_t n = in.n ? scan(s, in, &stop) : 0;

    if (in.n == 0)
        return STEP_WAIT;
    if (n > 0)
        return take_text(s, in, n, ret);
    switch (stop) {
    case STOP_NEED: return STEP_WAIT;
    case STOP_END: buf_consume(&s->in, 3); return end_of_data(s, ret);
    case STOP_DOT:
        s->at_bol = false;
        buf_consume(&s->in, 1);
        break;
    case STOP_BARE: mark_bad(s, BAD_BARE); break;
    case STOP_LONG: mark_bad(s, BAD_LINE); break;
    }
    return STEP_AGAIN;
}
