/* dsn_text.c - what a delivery status notification tells a person: what happened, why, and what to
 * do now.
 *
 * Layer: mail. Interface: dsn_text.h. The reader is someone who wrote a mail, not who runs a router:
 * the reason comes in words first, then as the other side said it.
 */
#include "mail/dsn_text.h"

#include "base/units.h"
#include "mail/headers.h"

enum { MAX_SUBJECT = 150, MAX_LINES = 12, MAX_LINE = 500 };

/* RFC 3463 §3 in words. A detail that is not listed has the words of detail 0 of its subject. */
static const struct {
    uint16_t subject, detail;
    const char *words;
} reasons[] = {
    { 1, 0, "There is a problem with this address." },
    { 1, 1, "There is no such mailbox. The part before the @ may be misspelt." },
    { 1, 2, "This domain does not exist or takes no mail. The part after the @ may be misspelt." },
    { 1, 3, "This address is not written correctly." },
    { 1, 4, "This address could mean more than one mailbox." },
    { 1, 6, "The mailbox has moved, and nobody knows where to." },
    { 1, 7, "The sender's address is not written correctly." },
    { 1, 8, "The recipient's mail system does not accept the sender's address." },
    { 1, 10, "This domain says that it receives no mail at all." },
    { 2, 0, "There is a problem with this mailbox." },
    { 2, 1, "The mailbox is switched off." },
    { 2, 2, "The mailbox is full." },
    { 2, 3, "The message is larger than this mailbox allows." },
    { 3, 0, "The recipient's mail system has a problem of its own." },
    { 3, 1, "The recipient's mail system has no room left." },
    { 3, 4, "The message is larger than the recipient's mail system allows." },
    { 4, 0, "The recipient's mail system could not be reached." },
    { 4, 1, "The recipient's mail server does not answer." },
    { 4, 2, "The connection to the recipient's mail server broke." },
    { 4, 3, "The recipient's mail server could not be looked up." },
    { 4, 4, "The recipient's mail server could not be found." },
    { 4, 5, "The recipient's mail system is too busy." },
    { 4, 6, "The mail went round in a circle between mail servers." },
    { 4, 7, "It could not be delivered in the time allowed." },
    { 5, 0, "The mail servers did not understand each other." },
    { 5, 3, "The message has too many recipients." },
    { 6, 0, "The recipient's mail system cannot take content of this kind." },
    { 6, 7, "The recipient's mail system does not know addresses with such letters." },
    { 7, 0, "The recipient's mail system refused it by its rules." },
    { 7, 1,
      "The recipient's mail system refused it by its rules: it may take the message for "
      "unwanted mail, or not allow you to write to this address." },
    { 7, 10,
      "A secure connection to the recipient's mail server is required and was not possible." },
};

static const char *reason_words(struct smtp_enhanced e)
{
    const char *words = NULL;

    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].subject == e.subject &&
            (reasons[i].detail == 0 || reasons[i].detail == e.detail))
            words = reasons[i].words;
    return words;
}

void dsn_add_clean(struct buf *out, struct str s, bool utf8)
{
    char *room = buf_room(out, s.n ? s.n : 1);
    bool keep = utf8 && str_is_utf8(s);

    if (!room)
        return;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char u = (unsigned char)s.p[i];
        bool clean = u >= 0x80 ? keep : u >= 0x20 && u != 0x7f;
        room[i] = clean ? s.p[i] : '?';
    }
    buf_added(out, s.n);
}

struct smtp_enhanced dsn_status(const struct dsn_recipient *r)
{
    if (r->status.class_)
        return r->status;
    return r->action == DSN_FAILED    ? ENH(5, 0, 0)
           : r->action == DSN_DELAYED ? ENH(4, 0, 0)
                                      : ENH(2, 0, 0);
}

bool dsn_looks_like_reply(struct str s)
{
    return s.n >= 3 && s.p[0] >= '2' && s.p[0] <= '5' && ascii_digit(s.p[1]) &&
           ascii_digit(s.p[2]) && (s.n == 3 || s.p[3] == ' ' || s.p[3] == '-' || s.p[3] == '\n');
}

/* The original's subject, if it can be shown as it is; else it is known by its date. */
static void add_message_line(const struct dsn *d, struct buf *out)
{
    struct arena a;
    struct headers h;
    char date[40];

    buf_add_str(out, STR("Your message"));
    arena_init(&a, 0);
    if (headers_parse(&a, d->original_head, &h) == 0) {
        const struct header_field *f = headers_get(&h, STR("Subject"), 0);
        struct str s = f ? str_trim(headers_unfold(&a, f->value)) : STR_NONE;
        if (s.n && str_is_ascii(s) && str_find(s, STR("=?")) < 0) {
            buf_add_str(out, STR("\r\n\r\n    "));
            dsn_add_clean(out, str_first(s, MAX_SUBJECT), false);
            buf_add_str(out, s.n > MAX_SUBJECT ? STR("...\r\n\r\n") : STR("\r\n\r\n"));
        } else {
            buf_add_char(out, ' ');
        }
    } else {
        buf_add_char(out, ' ');
    }
    arena_done(&a);
    buf_add_str(out, STR("of "));
    buf_add_str(out, str_of(date_rfc5322(d->original->received_ms, date)));
}

static void add_intro(const struct dsn *d, enum dsn_action action, struct buf *out)
{
    static const char *const words[] = {
        [DSN_FAILED] = "could not be delivered to:",
        [DSN_DELAYED] = "has not been delivered yet to:",
        [DSN_RELAYED] = "was handed on to a mail system that sends no further reports, for:",
        [DSN_DELIVERED] = "was delivered to:",
        [DSN_EXPANDED] = "was delivered to a list, which passes it on to its members:",
    };

    add_message_line(d, out);
    buf_add_str(out, STR("\r\n"));
    buf_add_str(out, str_of(words[action]));
    buf_add_str(out, STR("\r\n"));
}

static void add_answer(const struct dsn_recipient *r, bool utf8, struct buf *out)
{
    struct str s = r->diagnostic, line;
    size_t lines = 0;

    if (s.n == 0)
        return;
    buf_add_str(out, STR("    "));
    if (r->remote_host.n) {
        dsn_add_clean(out, str_first(r->remote_host, MAX_LINE), false);
        buf_add_str(out, dsn_looks_like_reply(s) ? STR(" answered:\r\n") : STR(":\r\n"));
    } else {
        buf_add_str(out, STR("In detail:\r\n"));
    }
    while (lines++ < MAX_LINES && str_cut(&s, '\n', &line)) {
        buf_add_str(out, STR("        "));
        dsn_add_clean(out, str_first(str_trim(line), MAX_LINE), utf8);
        buf_add_str(out, STR("\r\n"));
    }
}

static void add_recipient(const struct dsn_recipient *r, bool utf8, struct buf *out)
{
    bool trouble = r->action == DSN_FAILED || r->action == DSN_DELAYED;
    const char *words = trouble ? reason_words(dsn_status(r)) : NULL;
    char date[40];

    buf_add_str(out, STR("\r\n<"));
    dsn_add_clean(out, r->address, utf8);
    buf_add_str(out, STR(">\r\n"));
    if (words) {
        buf_add_str(out, STR("    "));
        buf_add_str(out, str_of(words));
        buf_add_str(out, STR("\r\n"));
    }
    add_answer(r, utf8, out);
    if (r->action == DSN_DELAYED && r->retry_until_ms) {
        buf_add_str(out, STR("    Delivery will be tried until "));
        buf_add_str(out, str_of(date_rfc5322(r->retry_until_ms, date)));
        buf_add_str(out, STR(".\r\n"));
    }
}

static void add_advice(enum dsn_action action, struct buf *out)
{
    if (action == DSN_FAILED)
        buf_add_str(out, STR("\r\nThis will not be tried again. If the reason is one that you can "
                             "mend,\r\nplease send the message again. If it is not, please ask the "
                             "recipient in\r\nanother way, or show this report to whoever runs "
                             "your mail.\r\n"));
    else if (action == DSN_DELAYED)
        buf_add_str(out, STR("\r\nYou need not do anything: the message is kept and tried again. "
                             "You will\r\nbe told if it cannot be delivered.\r\n"));
}

static void add_section(const struct dsn *d, enum dsn_action action, bool utf8, struct buf *out)
{
    bool begun = false;

    for (size_t i = 0; i < d->n_recipients; i++) {
        if (d->recipients[i].action != action)
            continue;
        if (!begun) {
            buf_add_str(out, STR("\r\n"));
            add_intro(d, action, out);
        }
        begun = true;
        add_recipient(&d->recipients[i], utf8, out);
    }
    if (begun)
        add_advice(action, out);
}

void dsn_add_text(const struct dsn *d, bool utf8, struct buf *out)
{
    buf_add_str(out, STR("This is the mail system at "));
    dsn_add_clean(out, d->hostname, false);
    buf_add_str(out, STR(".\r\n"));
    for (int action = DSN_FAILED; action <= DSN_EXPANDED; action++)
        add_section(d, (enum dsn_action)action, utf8, out);
    buf_add_str(out, STR("\r\nBelow are a report for mail software and "));
    buf_add_str(out, d->full ? STR("your message.\r\n") : STR("the headers of your message.\r\n"));
}
