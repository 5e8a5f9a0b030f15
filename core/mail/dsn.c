/* dsn.c - delivery status notifications (RFC 3461, 3464, 6522, 6533, 3834).
 *
 * Layer: mail. Interface: dsn.h. Three parts: what a person reads (dsn_text.c), what a program reads,
 * and the original or its headers. All that a stranger chose passes through dsn_add_clean,
 * which leaves no control byte in it; the original is given as it came.
 */
#include "mail/dsn.h"

#include <stdio.h>

#include "base/hash.h"
#include "base/units.h"
#include "mail/dsn_text.h"

enum { FOLD_COLUMN = 76, MAX_WORD = 900, MAX_DIAGNOSTIC = 2048 };
enum { BOUNDARY = 2 + MSGID_TEXT + 16 + 1 };

struct writer {
    const struct dsn *d;
    struct buf *out;
    struct str returned; /* of the original */
    struct buf text;     /* the part for people */
    bool utf8;           /* SMTPUTF8: non-ASCII stays */
    bool text_8bit, returned_8bit;
    char boundary[BOUNDARY];
};

/* What is sent back of the original, ending with a line end. */
static struct str returned_part(const struct dsn *d)
{
    struct str s = d->original_head;

    if (!d->full) {
        ptrdiff_t end = str_find(s, STR("\r\n\r\n"));
        if (str_starts(s, STR("\r\n")))
            s.n = 0;
        else if (end >= 0)
            s = str_first(s, (size_t)end + 2);
    }
    if (s.n > DSN_MAX_RETURNED) {
        s = str_first(s, DSN_MAX_RETURNED);
        while (s.n && !str_ends(s, STR("\r\n")))
            s.n--;
    }
    return s;
}

/* A boundary that the original cannot hold, even if its author knew our ids: the hash has a secret
 * key. */
static void choose_boundary(struct writer *w)
{
    char id[MSGID_TEXT];

    snprintf(w->boundary, sizeof(w->boundary), "=_%s_%016llx", msgid_text(&w->d->id, id),
             (unsigned long long)hash_bytes(w->returned.p, w->returned.n));
}

static void add_boundary(struct writer *w, struct str end)
{
    buf_add_str(w->out, STR("--"));
    buf_add_str(w->out, str_of(w->boundary));
    buf_add_str(w->out, end);
    buf_add_str(w->out, STR("\r\n"));
}

static void add_date_field(struct buf *out, struct str name, int64_t wall_ms)
{
    char date[40];

    if (wall_ms == 0)
        return;
    buf_add_str(out, name);
    buf_add_str(out, str_of(date_rfc5322(wall_ms, date)));
    buf_add_str(out, STR("\r\n"));
}

static bool any_action(const struct dsn *d, enum dsn_action action)
{
    for (size_t i = 0; i < d->n_recipients; i++)
        if (d->recipients[i].action == action)
            return true;
    return false;
}

static struct str subject(const struct dsn *d)
{
    if (any_action(d, DSN_FAILED))
        return STR("Undelivered Mail Returned to Sender");
    if (any_action(d, DSN_DELAYED))
        return STR("Delayed Mail");
    return STR("Successful Mail Delivery Report");
}

static void add_head(struct writer *w)
{
    const struct dsn *d = w->d;
    struct buf *out = w->out;
    char id[MSGID_TEXT];

    add_date_field(out, STR("Date: "), d->wall_ms);
    buf_add_str(out, STR("From: Mail Delivery System <MAILER-DAEMON@"));
    dsn_add_clean(out, d->hostname, false);
    buf_add_str(out, STR(">\r\nTo: <"));
    dsn_add_clean(out, d->original->sender.text, w->utf8);
    buf_add_str(out, STR(">\r\nSubject: "));
    buf_add_str(out, subject(d));
    buf_add_str(out, STR("\r\nMessage-ID: <"));
    buf_add_str(out, str_of(msgid_text(&d->id, id)));
    buf_add_char(out, '@');
    dsn_add_clean(out, d->hostname, false);
    buf_add_str(out, STR(">\r\nAuto-Submitted: auto-replied\r\n"
                         "MIME-Version: 1.0\r\n"
                         "Content-Type: multipart/report; report-type=delivery-status;\r\n"
                         "\tboundary=\""));
    buf_add_str(out, str_of(w->boundary));
    buf_add_str(out, STR("\"\r\n"));
    if (w->text_8bit || w->returned_8bit)
        buf_add_str(out, STR("Content-Transfer-Encoding: 8bit\r\n"));
    buf_add_str(out, STR("\r\nThis is a report in MIME format.\r\n\r\n"));
}

static void add_text_part(struct writer *w)
{
    add_boundary(w, STR(""));
    buf_add_str(w->out, w->text_8bit ? STR("Content-Type: text/plain; charset=utf-8\r\n"
                                           "Content-Transfer-Encoding: 8bit\r\n")
                                     : STR("Content-Type: text/plain; charset=us-ascii\r\n"));
    buf_add_str(w->out, STR("Content-Description: Notification\r\n\r\n"));
    buf_add_str(w->out, buf_str(&w->text));
    buf_add_str(w->out, STR("\r\n"));
}

/* The part for programs */

/* The value of one field, folded; `column` octets of its line are written already. None: a line has just been begun,
 * and there is no other way than to go on in it, for an empty one would end the fields. */
static void add_folded(struct buf *out, struct str s, size_t column)
{
    struct str word;

    while (str_cut(&s, ' ', &word)) {
        for (bool glued = false; word.n; glued = true) {
            struct str piece = str_first(word, MAX_WORD);
            if (column > 0 && (glued || column + 1 + piece.n > FOLD_COLUMN)) {
                buf_add_str(out, STR("\r\n"));
                column = 0;
            }
            buf_add_char(out, ' ');
            dsn_add_clean(out, piece, false);
            column += 1 + piece.n;
            word = str_from(word, piece.n);
        }
    }
}

/* RFC 6533 §3, utf-8-addr-xtext: all in ASCII, with \x{20AC} for the rest. */
static void add_utf8_xtext(struct buf *out, struct str s)
{
    while (s.n) {
        size_t n = str_utf8_len(s);
        unsigned char lead = (unsigned char)*s.p;
        uint32_t point = n > 1 ? lead & (0x7fu >> n) : lead;
        for (size_t i = 1; i < n; i++)
            point = point << 6 | ((unsigned char)s.p[i] & 0x3f);
        if (n == 0)
            buf_add_char(out, '?');
        else if (point <= 0x20 || point >= 0x7f || strchr("\\+=", (int)point))
            buf_printf(out, "\\x{%02X}", (unsigned)point);
        else
            buf_add_char(out, *s.p);
        s = str_from(s, n ? n : 1);
    }
}

static void add_address_field(struct writer *w, struct str name, struct str address)
{
    buf_add_str(w->out, name);
    if (w->utf8 && !str_is_ascii(address)) {
        buf_add_str(w->out, STR(" utf-8; "));
        add_utf8_xtext(w->out, address);
    } else {
        buf_add_str(w->out, STR(" rfc822; "));
        dsn_add_clean(w->out, address, false);
    }
    buf_add_str(w->out, STR("\r\n"));
}

/* ORCPT has its own address type: "rfc822;a@b". One without is left out, and so is one that fits in no line: escaped,
 * UTF-8 takes up to three and a half times its octets, and there is no blank to fold at. */
static void add_original_recipient(struct writer *w, struct str orcpt)
{
    struct str type;
    struct buf address;

    if (str_chr(orcpt, ';') < 0 || !str_cut(&orcpt, ';', &type) || type.n == 0 || orcpt.n == 0)
        return;
    buf_init(&address, 0);
    if (str_caseeq(type, STR("utf-8")) && !str_is_ascii(orcpt))
        add_utf8_xtext(&address, orcpt);
    else
        dsn_add_clean(&address, orcpt, false);
    if (address.failed)
        w->out->failed = address.failed;
    if (type.n + buf_len(&address) <= MAX_WORD) {
        buf_add_str(w->out, STR("Original-Recipient: "));
        dsn_add_clean(w->out, type, false);
        buf_add_str(w->out, STR("; "));
        buf_add_str(w->out, buf_str(&address));
        buf_add_str(w->out, STR("\r\n"));
    }
    buf_done(&address);
}

static struct str action_name(enum dsn_action a)
{
    static const char *const names[] = {
        [DSN_FAILED] = "failed",       [DSN_DELAYED] = "delayed",   [DSN_RELAYED] = "relayed",
        [DSN_DELIVERED] = "delivered", [DSN_EXPANDED] = "expanded",
    };

    CHECK((unsigned)a < ARRAY_LEN(names));
    return str_of(names[a]);
}

static void add_status(struct buf *out, const struct dsn_recipient *r)
{
    struct smtp_enhanced e = dsn_status(r);

    buf_printf(out, "Status: %u.%u.%u\r\n", e.class_, e.subject, e.detail);
}

/* "mx.example.com [192.0.2.1]" is written as the name alone: the field holds no more. */
static void add_remote(struct buf *out, struct str host)
{
    struct str name = str_first(host, 255);
    ptrdiff_t space = str_chr(name, ' ');

    if (space > 0)
        name = str_first(name, (size_t)space);
    buf_add_str(out, STR("Remote-MTA: dns; "));
    dsn_add_clean(out, name, false);
    buf_add_str(out, STR("\r\n"));
}

/* The type smtp is for what an SMTP server said; reasons of our own have a type of our own. */
static void add_diagnostic(struct buf *out, const struct dsn_recipient *r)
{
    bool reply = r->remote_host.n && dsn_looks_like_reply(r->diagnostic);
    struct str lead = reply ? STR("Diagnostic-Code: smtp;") : STR("Diagnostic-Code: x-tern;");
    struct str s = str_first(r->diagnostic, MAX_DIAGNOSTIC), line;
    size_t column = lead.n;
    bool first = true;

    buf_add_str(out, lead);
    while (str_cut(&s, '\n', &line)) {
        line = str_trim(line);
        if (line.n == 0)
            continue;
        if (!first) {
            buf_add_str(out, STR("\r\n"));
            column = 0;
        }
        first = false;
        add_folded(out, line, column);
    }
    buf_add_str(out, STR("\r\n"));
}

static void add_recipient(struct writer *w, const struct dsn_recipient *r)
{
    struct buf *out = w->out;

    buf_add_str(out, STR("\r\n"));
    add_original_recipient(w, str_first(r->orcpt, 500));
    add_address_field(w, STR("Final-Recipient:"), r->address);
    buf_add_str(out, STR("Action: "));
    buf_add_str(out, action_name(r->action));
    buf_add_str(out, STR("\r\n"));
    add_status(out, r);
    if (r->remote_host.n)
        add_remote(out, r->remote_host);
    if (r->diagnostic.n)
        add_diagnostic(out, r);
    add_date_field(out, STR("Last-Attempt-Date: "), r->last_attempt_ms);
    if (r->action == DSN_DELAYED)
        add_date_field(out, STR("Will-Retry-Until: "), r->retry_until_ms);
}

/* Fields that RFC 2852 and RFC 4865 add. */
static void add_times(struct buf *out, const struct message_times *t)
{
    char until[SMTP_DATE_TIME_TEXT];

    if (t->by != SMTP_BY_NONE)
        add_date_field(out, STR("Deliver-By-Date: "), t->by_ms);
    if (t->hold_s)
        buf_printf(out, "Future-Release-Request: for;%u\r\n", (unsigned)t->hold_s);
    else if (t->hold_ms)
        buf_printf(out, "Future-Release-Request: until;%s\r\n",
                   smtp_date_time_text(t->hold_ms, until));
}

static void add_status_part(struct writer *w)
{
    struct buf *out = w->out;
    const struct message *m = w->d->original;

    add_boundary(w, STR(""));
    buf_add_str(out, STR("Content-Type: message/delivery-status\r\n"
                         "Content-Description: Delivery report\r\n\r\n"
                         "Reporting-MTA: dns; "));
    dsn_add_clean(out, w->d->hostname, false);
    buf_add_str(out, STR("\r\n"));
    if (m->envid.n) {
        buf_add_str(out, STR("Original-Envelope-Id: "));
        dsn_add_clean(out, str_first(m->envid, 100), false);
        buf_add_str(out, STR("\r\n"));
    }
    add_date_field(out, STR("Arrival-Date: "), m->received_ms);
    add_times(out, &m->times);
    for (size_t i = 0; i < w->d->n_recipients; i++)
        add_recipient(w, &w->d->recipients[i]);
    buf_add_str(out, STR("\r\n"));
}

static void add_returned_part(struct writer *w)
{
    bool global = w->utf8 && w->returned_8bit;
    struct buf *out = w->out;

    add_boundary(w, STR(""));
    if (w->d->full)
        buf_add_str(out, global ? STR("Content-Type: message/global\r\n")
                                : STR("Content-Type: message/rfc822\r\n"));
    else
        buf_add_str(out, global ? STR("Content-Type: message/global-headers\r\n")
                                : STR("Content-Type: text/rfc822-headers\r\n"));
    if (w->returned_8bit)
        buf_add_str(out, STR("Content-Transfer-Encoding: 8bit\r\n"));
    buf_add_str(out, w->d->full ? STR("Content-Description: Undelivered message\r\n\r\n")
                                : STR("Content-Description: Undelivered message headers\r\n\r\n"));
    buf_add_str(out, w->returned);
    buf_add_str(out, str_ends(w->returned, STR("\r\n")) ? STR("\r\n") : STR("\r\n\r\n"));
}

static int write_parts(struct writer *w)
{
    dsn_add_text(w->d, w->utf8, &w->text);
    if (w->text.failed)
        return w->text.failed;
    w->text_8bit = !str_is_ascii(buf_str(&w->text));
    w->returned_8bit = !str_is_ascii(w->returned);
    choose_boundary(w);
    add_head(w);
    add_text_part(w);
    add_status_part(w);
    add_returned_part(w);
    add_boundary(w, STR("--"));
    return w->out->failed;
}

int dsn_write(const struct dsn *d, struct buf *out)
{
    struct writer w = { .d = d, .out = out, .returned = returned_part(d) };

    if (str_empty(d->original->sender.text) || d->n_recipients == 0)
        return -EINVAL;
    w.utf8 = d->original->flags & MESSAGE_SMTPUTF8;
    buf_init(&w.text, 0);
    int r = write_parts(&w);
    buf_done(&w.text);
    return r;
}
