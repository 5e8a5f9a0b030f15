/* smtp_reply.c - writing and reading replies.
 *
 * Layer: proto. Interface and limits: smtp_reply.h.
 */
#include "proto/smtp_reply.h"

#include <stdio.h>

#include "proto/smtp_syntax.h"

enum {
    MAX_LINE = 4096,       /* with CRLF, of a reply that we read */
    MAX_LINES = 256,       /* of one reply */
    MAX_OCTETS = 64 << 10, /* of one reply */
    MAX_TEXT = 16 << 10,   /* that is kept */
    KEPT_BLOCK = 512,      /* of a buffer, between replies */
};

static bool is_control(char c)
{
    return (unsigned char)c < 32 || c == 127;
}

/* ---- enhanced codes ---- */

/* ".", then a number of at most three digits. */
static char *add_number(char *p, unsigned n)
{
    *p++ = '.';
    if (n >= 100)
        *p++ = (char)('0' + n / 100);
    if (n >= 10)
        *p++ = (char)('0' + n / 10 % 10);
    *p++ = (char)('0' + n % 10);
    return p;
}

const char *smtp_enhanced_text(struct smtp_enhanced e, char *dst)
{
    char *p = dst;

    if (e.class_ > 0 && e.class_ < 10 && e.subject < 1000 && e.detail < 1000) {
        *p++ = (char)('0' + e.class_);
        p = add_number(p, e.subject);
        p = add_number(p, e.detail);
        *p++ = ' ';
    }
    *p = '\0';
    return dst;
}

/* RFC 3463 §2: one to three digits without leading zeros. Takes them off *s. */
static int take_number(struct str *s, uint16_t *ret)
{
    size_t n = 0;
    unsigned v = 0;

    while (n < s->n && n < 3 && ascii_digit(s->p[n]))
        v = v * 10 + (unsigned)(s->p[n++] - '0');
    if (n == 0 || (n > 1 && s->p[0] == '0'))
        return -EINVAL;
    *s = str_from(*s, n);
    *ret = (uint16_t)v;
    return 0;
}

static bool take_dot(struct str *s)
{
    if (s->n == 0 || *s->p != '.')
        return false;
    *s = str_from(*s, 1);
    return true;
}

/* Takes "5.1.1" off the front of *s. */
static int take_enhanced(struct str *s, struct smtp_enhanced *ret)
{
    struct str rest = *s;
    uint16_t class_, subject, detail;

    if (take_number(&rest, &class_) < 0 || (class_ != 2 && class_ != 4 && class_ != 5) ||
        !take_dot(&rest) || take_number(&rest, &subject) < 0 || !take_dot(&rest) ||
        take_number(&rest, &detail) < 0)
        return -EINVAL;
    *s = rest;
    *ret = ENH((uint8_t)class_, subject, detail);
    return 0;
}

int smtp_enhanced_parse(struct str s, struct smtp_enhanced *ret)
{
    struct smtp_enhanced e;

    if (take_enhanced(&s, &e) < 0 || s.n > 0)
        return -EINVAL;
    *ret = e;
    return 0;
}

/* ---- writing ---- */

/* How much of the line fits into `room` octets: up to a space if one is in the second half, else up
 * to the start of a character. */
static size_t cut_point(struct str line, size_t room)
{
    size_t at = room;

    if (line.n <= room)
        return line.n;
    while (at > room / 2 && line.p[at] != ' ')
        at--;
    if (line.p[at] == ' ')
        return at;
    for (at = room; at > room - 4; at--)
        if (((unsigned char)line.p[at] & 0xc0) != 0x80)
            return at;
    return room;
}

static void add_text(struct buf *out, struct str s)
{
    char *dst = buf_room(out, s.n);

    if (!dst)
        return;
    for (size_t i = 0; i < s.n; i++)
        dst[i] = is_control(s.p[i]) ? '?' : s.p[i];
    buf_added(out, s.n);
}

/* Replies are ASCII (RFC 5321 §4.2), where SMTPUTF8 is offered, too (RFC 6531 §3.7.4.2): a character that is none is one
 * "?". */
static void add_ascii(struct buf *out, struct str s)
{
    char *dst = buf_room(out, s.n ? s.n : 1), *p = dst;

    if (!dst)
        return;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c & 0xc0) == 0x80 && i > 0 && (unsigned char)s.p[i - 1] >= 0x80)
            continue;
        *p++ = c >= 0x80 || is_control(s.p[i]) ? '?' : s.p[i];
    }
    buf_added(out, (size_t)(p - dst));
}

int smtp_reply_write(const struct smtp_reply *r, struct buf *out)
{
    struct str rest = r->text.p ? r->text : STR(""), line;
    struct smtp_enhanced e = r->enhanced.class_ == r->code / 100 ? r->enhanced : ENH_NONE;
    char enhanced[16];

    if (r->code < 200 || r->code > 599)
        return -EINVAL;
    smtp_enhanced_text(e, enhanced);

    size_t room = SMTP_MAX_REPLY_LINE - 2 - 4 - strlen(enhanced);
    bool more = str_cut(&rest, '\n', &line);
    while (more) {
        size_t n = cut_point(line, room);
        struct str now = str_first(line, n);

        line = str_from(line, n < line.n && line.p[n] == ' ' ? n + 1 : n);
        more = line.n > 0 || str_cut(&rest, '\n', &line);
        buf_add_int(out, r->code);
        buf_add_char(out, more ? '-' : ' ');
        buf_add_str(out, str_of(enhanced));
        add_ascii(out, now);
        buf_add(out, "\r\n", 2);
    }
    return out->failed;
}

/* ---- reading ---- */

void smtp_reply_reader_init(struct smtp_reply_reader *r)
{
    *r = (struct smtp_reply_reader){ 0 };
    buf_init(&r->line, MAX_LINE);
    buf_init(&r->text, MAX_TEXT);
}

void smtp_reply_reader_done(struct smtp_reply_reader *r)
{
    buf_done(&r->line);
    buf_done(&r->text);
}

static void forget_reply(struct smtp_reply_reader *r)
{
    buf_clear(&r->text);
    if (r->text.cap > KEPT_BLOCK)
        buf_shrink(&r->text);
    if (r->line.cap > KEPT_BLOCK)
        buf_shrink(&r->line);
    r->octets = 0;
    r->code = 0;
    r->lines = 0;
    r->enhanced = ENH_NONE;
    r->done = false;
}

int smtp_reply_reader_reserve(struct smtp_reply_reader *r)
{
    if (r->done)
        forget_reply(r);
    return buf_room(&r->text, KEPT_BLOCK) ? 0 : -ENOMEM;
}

static int take_code(struct str *line, uint16_t *ret_code, bool *ret_last)
{
    uint16_t code;

    if (line->n < 3 || take_number(line, &code) < 0 || code < 200 || code > 599)
        return -EPROTO;
    if (line->n > 0 && *line->p != ' ' && *line->p != '-')
        return -EPROTO;
    *ret_last = line->n == 0 || *line->p == ' ';
    *ret_code = code;
    *line = str_from(*line, 1);
    return 0;
}

/* Takes the enhanced code off the text of a line: the first line's decides. */
static struct str without_enhanced(struct smtp_reply_reader *r, struct str text)
{
    struct smtp_enhanced e;
    struct str rest = text;

    if (take_enhanced(&rest, &e) < 0 || (rest.n > 0 && *rest.p != ' ') || e.class_ != r->code / 100)
        return text;
    if (r->lines == 1)
        r->enhanced = e;
    else if (e.class_ != r->enhanced.class_ || e.subject != r->enhanced.subject ||
             e.detail != r->enhanced.detail)
        return text;
    return str_from(rest, 1);
}

static int keep_text(struct smtp_reply_reader *r, struct str text)
{
    if (r->lines > 1 && buf_len(&r->text) < MAX_TEXT)
        buf_add_char(&r->text, '\n');
    text = str_first(text, MAX_TEXT - buf_len(&r->text));
    add_text(&r->text, text);
    return r->text.failed;
}

/* A whole line without its CRLF. */
static int take_line(struct smtp_reply_reader *r, struct str line)
{
    uint16_t code;
    bool last;

    r->octets += (uint32_t)line.n + 2;
    if (++r->lines > MAX_LINES || r->octets > MAX_OCTETS || take_code(&line, &code, &last) < 0)
        return -EPROTO;
    if (r->lines > 1 && code != r->code)
        return -EPROTO;
    r->code = code;

    int error = keep_text(r, without_enhanced(r, line));
    if (error < 0)
        return error;
    r->done = last;
    return last;
}

/* 1: the reply is complete; 0: go on; or an error. `part` ends with the first LF of the input. */
static int end_line(struct smtp_reply_reader *r, struct str part)
{
    struct str line = part;

    if (buf_len(&r->line) > 0) {
        if (buf_add_str(&r->line, part) < 0)
            return r->line.failed;
        line = buf_str(&r->line);
    }
    if (line.n > MAX_LINE || !str_ends(line, STR("\r\n")))
        return -EPROTO;

    int result = take_line(r, str_first(line, line.n - 2));
    buf_clear(&r->line);
    return result;
}

static int read_lines(struct smtp_reply_reader *r, struct str *in)
{
    for (;;) {
        ptrdiff_t lf = str_chr(*in, '\n');
        if (lf < 0) {
            struct str rest = *in;
            *in = str_from(*in, in->n);
            return buf_add_str(&r->line, rest);
        }

        struct str part = str_first(*in, (size_t)lf + 1);
        *in = str_from(*in, part.n);
        int result = end_line(r, part);
        if (result != 0)
            return result;
    }
}

int smtp_reply_read(struct smtp_reply_reader *r, struct str *in, struct smtp_reply *ret)
{
    if (r->error < 0)
        return r->error;
    if (r->done)
        forget_reply(r);

    int result = read_lines(r, in);
    if (result < 0) {
        r->error = result == -EMSGSIZE ? -EPROTO : result;
        return r->error;
    }
    if (result == 1)
        *ret = (struct smtp_reply){ r->code, r->enhanced, buf_str(&r->text) };
    return result;
}
