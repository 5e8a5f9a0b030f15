/* Notifications about mail of strangers, to strangers, with the words of strangers: whatever these are, what is made
 * is a message of good form with the parts and fields that are meant, no more and no less.
 *
 * The input is a byte of settings, then fields parted by 0x1e: sender, ENVID, the head of the original; then five for
 * each recipient: a letter for the action and three digits of the status, address, ORCPT, host, diagnostic.
 * The original is brought into lines first, as the server takes no other. */
#include <stdio.h>

#include "base/err.h"
#include "mail/dsn.h"
#include "mail/headers.h"
#include "mail/parts.h"

enum { FIELD_END = 0x1e, RECIPIENTS = 6, MAX_LINE = 998, OUR_FIELDS = 8 };
enum { UTF8 = 1, FULL = 2, OPEN_END = 4, BY = 8, HOLD_FOR = 16, HOLD_UNTIL = 32, NO_TIMES = 64 };

struct made {
    struct dsn d;
    struct message *m;
    struct dsn_recipient r[RECIPIENTS];
    struct arena arena;
    struct buf head, out;
    char boundary[128];
};

/* ---- what is reported ---- */

static struct str field(struct str *in)
{
    struct str s;

    return str_cut(in, FIELD_END, &s) ? s : STR("");
}

/* Lines as they come through SMTP: CRLF, at most 998 octets, no NUL. */
static void add_lines(struct buf *out, struct str in, bool open)
{
    struct str line;
    size_t n = 0;

    while (str_cut(&in, '\n', &line)) {
        n = 0;
        for (size_t i = 0; i < line.n && n < MAX_LINE; i++)
            if (line.p[i] != '\r' && line.p[i] != '\0') {
                buf_add_char(out, line.p[i]);
                n++;
            }
        if (in.p || !open)
            buf_add_str(out, STR("\r\n"));
    }
}

static enum dsn_action action_of(char c)
{
    return c == 'd'   ? DSN_DELAYED
           : c == 'r' ? DSN_RELAYED
           : c == 's' ? DSN_DELIVERED
           : c == 'e' ? DSN_EXPANDED
                      : DSN_FAILED;
}

static uint16_t class_of(enum dsn_action action)
{
    return action == DSN_FAILED ? 5 : action == DSN_DELAYED ? 4 : 2;
}

static uint16_t digit(struct str s, size_t at)
{
    return s.n > at && ascii_digit(s.p[at]) ? (uint16_t)(s.p[at] - '0') : 0;
}

static bool take_recipient(struct made *m, struct str *in)
{
    struct dsn_recipient *r = &m->r[m->d.n_recipients];
    struct address address;
    struct str how = field(in), text = field(in);

    *r = (struct dsn_recipient){ .action = action_of(how.n ? *how.p : 'f') };
    if (digit(how, 1))
        r->status = ENH(class_of(r->action), digit(how, 2), (uint16_t)(digit(how, 3) * 3));
    r->orcpt = field(in);
    r->remote_host = field(in);
    r->diagnostic = field(in);
    r->last_attempt_ms = digit(how, 1) * INT64_C(300000000000);
    r->retry_until_ms = digit(how, 2) * INT64_C(300000000000);
    if (address_parse(&m->arena, text, &address) < 0 || address.text.n == 0)
        return false;
    r->address = address.text;
    m->d.n_recipients++;
    return true;
}

static bool take_message(struct made *m, uint8_t how, struct str *in)
{
    struct str sender = field(in);
    struct message *msg = m->m;

    msg->received_ms = how & NO_TIMES ? 0 : INT64_C(1700000000000);
    msg->flags = how & UTF8 ? MESSAGE_SMTPUTF8 : 0;
    if (address_parse(&msg->arena, sender, &msg->sender) < 0)
        return false;
    msg->envid = field(in);
    if (how & BY) {
        msg->times.by = SMTP_BY_RETURN;
        msg->times.by_ms = INT64_C(1700000600000);
    }
    msg->times.hold_s = how & HOLD_FOR ? 3600 : 0;
    msg->times.hold_ms = how & (HOLD_FOR | HOLD_UNTIL) ? INT64_C(1700003600000) : 0;
    add_lines(&m->head, field(in), how & OPEN_END);
    m->d.original_head = buf_str(&m->head);
    return true;
}

/* ---- what is told ---- */

/* Lines of text; of ours, not even a control byte. */
static void check_lines(struct str rest, bool ours)
{
    struct str line;

    while (rest.n) {
        CHECK(str_cut(&rest, '\n', &line) && rest.p);
        CHECK(line.n > 0 && line.p[line.n - 1] == '\r' && line.n - 1 <= MAX_LINE);
        for (size_t i = 0; i + 1 < line.n; i++) {
            unsigned char c = (unsigned char)line.p[i];
            CHECK(c != '\r' && c != '\0');
            CHECK(!ours || c == '\t' || (c >= 0x20 && c != 0x7f));
        }
    }
}

static size_t count(struct str s, struct str what)
{
    size_t n = 0;

    for (ptrdiff_t at; (at = str_find(s, what)) >= 0; n++)
        s = str_from(s, (size_t)at + what.n);
    return n;
}

/* Cuts at `mark`, which must be there. */
static struct str before(struct str *s, struct str mark)
{
    ptrdiff_t at = str_find(*s, mark);

    CHECK(at >= 0);
    struct str head = str_first(*s, (size_t)at);
    *s = str_from(*s, (size_t)at + mark.n);
    return head;
}

static struct str value(const struct headers *h, struct str name)
{
    CHECK(headers_count(h, name) == 1);
    return headers_get(h, name, 0)->value;
}

static struct str check_head(struct made *m, struct arena *a, struct str all)
{
    static const struct str names[] = { STR("Date"),         STR("From"),
                                        STR("To"),           STR("Subject"),
                                        STR("Message-ID"),   STR("Auto-Submitted"),
                                        STR("MIME-Version"), STR("Content-Type") };
    struct headers h;
    struct str type;

    CHECK(headers_parse(a, all, &h) == 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        CHECK(headers_count(&h, names[i]) == 1);
    size_t encodings = headers_count(&h, STR("Content-Transfer-Encoding"));
    CHECK(h.n == OUR_FIELDS + encodings && encodings == !str_is_ascii(str_from(all, h.length)));
    CHECK(m->m->flags & MESSAGE_SMTPUTF8 || str_is_ascii(str_first(all, h.length)));
    CHECK(str_starts(str_from(all, h.length), STR("\r\n")));
    type = headers_unfold(a, value(&h, STR("Content-Type")));
    before(&type, STR("boundary=\""));
    CHECK(str_copy(before(&type, STR("\"")), m->boundary, sizeof(m->boundary)));
    CHECK(type.n == 0);
    return str_from(all, h.length);
}

static void check_parts(struct arena *a, const struct made *m, struct str all, struct str body)
{
    struct headers h;

    CHECK(headers_parse(a, all, &h) == 0);
    struct str type = headers_unfold(a, value(&h, STR("Content-Type")));
    struct parts *p = parts_new(type, STR(""), STR(""));
    CHECK(p && parts_look(p, str_from(body, 2)) == 0 && parts_end(p) == 0);
    CHECK(parts_count(p) >= 3 && (m->d.full || (parts_count(p) == 3 && parts_complete(p))));
    CHECK(str_eq(parts_at(p, 0)->type, STR("text/plain")));
    CHECK(str_eq(parts_at(p, 1)->type, STR("message/delivery-status")));
    struct str third = parts_at(p, 2)->type;
    CHECK(m->d.full ? str_eq(third, STR("message/rfc822")) || str_eq(third, STR("message/global"))
                    : str_eq(third, STR("text/rfc822-headers")) ||
                          str_eq(third, STR("message/global-headers")));
    for (size_t i = 0; i < 3; i++)
        CHECK(parts_at(p, i)->depth == 1);
    parts_free(p);
}

/* ---- the part for programs ---- */

static size_t put_utf8(uint32_t c, char *dst)
{
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    for (size_t i = n; i-- > 1; c >>= 6)
        dst[i] = (char)(0x80 | (c & 0x3f));
    dst[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xffu) | c);
    return n;
}

/* utf-8-addr-xtext of RFC 6533 back into what it means. */
static struct str unxtext(struct arena *a, struct str s)
{
    char *dst = arena_alloc(a, s.n + 1);
    size_t n = 0;

    CHECK(dst);
    while (s.n) {
        uint32_t c = 0;
        CHECK(*s.p > ' ' && *s.p < 0x7f && *s.p != '+' && *s.p != '=');
        if (*s.p != '\\') {
            dst[n++] = *s.p;
            s = str_from(s, 1);
            continue;
        }
        CHECK(str_starts(s, STR("\\x{")));
        s = str_from(s, 3);
        struct str digits = before(&s, STR("}"));
        CHECK(digits.n >= 2 && digits.n <= 6);
        for (size_t i = 0; i < digits.n; i++) {
            const char *at = memchr("0123456789ABCDEF", digits.p[i], 16);
            CHECK(at);
            c = c << 4 | (uint32_t)(at - (const char *)memchr("0123456789ABCDEF", '0', 16));
        }
        n += put_utf8(c, dst + n);
    }
    return str_make(dst, n);
}

/* "rfc822; a@b" or "utf-8; ..." that means that address. */
static void check_address(struct arena *a, struct str s, struct str address)
{
    struct str type = before(&s, STR("; "));

    if (str_eq(type, STR("utf-8")))
        CHECK(!str_is_ascii(address) && str_eq(unxtext(a, s), address));
    else
        CHECK(str_eq(type, STR("rfc822")) && s.n == address.n &&
              (!str_is_ascii(address) || str_eq(s, address)));
}

static void check_recipient(struct arena *a, const struct dsn_recipient *r, struct str group)
{
    static const char *const actions[] = { "failed", "delayed", "relayed", "delivered",
                                           "expanded" };
    struct headers h;

    CHECK(headers_parse(a, group, &h) == 0 && h.length == group.n);
    check_address(a, value(&h, STR("Final-Recipient")), r->address);
    CHECK(str_eq(value(&h, STR("Action")), str_of(actions[r->action])));
    struct str status = value(&h, STR("Status"));
    struct smtp_enhanced e;
    CHECK(smtp_enhanced_parse(status, &e) == 0 && e.class_ == class_of(r->action));
    CHECK(r->status.class_ == 0 ||
          (r->status.subject == e.subject && r->status.detail == e.detail));
    CHECK(headers_count(&h, STR("Remote-MTA")) == (r->remote_host.n > 0));
    CHECK(headers_count(&h, STR("Diagnostic-Code")) == (r->diagnostic.n > 0));
    CHECK(headers_count(&h, STR("Last-Attempt-Date")) == (r->last_attempt_ms != 0));
    CHECK(headers_count(&h, STR("Will-Retry-Until")) ==
          (r->action == DSN_DELAYED && r->retry_until_ms != 0));
    CHECK(headers_count(&h, STR("Original-Recipient")) <= (r->orcpt.n > 0));
    CHECK(h.n == 3 + headers_count(&h, STR("Remote-MTA")) +
                     headers_count(&h, STR("Diagnostic-Code")) +
                     headers_count(&h, STR("Last-Attempt-Date")) +
                     headers_count(&h, STR("Will-Retry-Until")) +
                     headers_count(&h, STR("Original-Recipient")));
}

static void check_status(const struct made *m, struct arena *a, struct str part)
{
    const struct message *msg = m->m;
    struct headers h;
    struct str group;

    CHECK(str_is_ascii(part));
    before(&part, STR("\r\n\r\n")); /* of the part itself */
    group = before(&part, STR("\r\n\r\n"));
    group.n += 2;
    CHECK(headers_parse(a, group, &h) == 0 && h.length == group.n);
    CHECK(value(&h, STR("Reporting-MTA")).n);
    CHECK(headers_count(&h, STR("Original-Envelope-Id")) == (msg->envid.n > 0));
    CHECK(headers_count(&h, STR("Deliver-By-Date")) == (msg->times.by != SMTP_BY_NONE));
    CHECK(headers_count(&h, STR("Future-Release-Request")) == (msg->times.hold_ms != 0));
    CHECK(h.n == 1 + (size_t)(msg->envid.n > 0) + (msg->times.by != SMTP_BY_NONE) +
                     (msg->times.hold_ms != 0) + (msg->received_ms != 0));
    for (size_t i = 0; i < m->d.n_recipients; i++) {
        group = before(&part, STR("\r\n\r\n"));
        group.n += 2;
        check_recipient(a, &m->r[i], group);
    }
    CHECK(part.n == 0);
}

static void check(struct made *m)
{
    struct str all = buf_str(&m->out), rest;
    char mark[sizeof(m->boundary) + 8];
    struct arena a;

    arena_init(&a, 0);
    check_lines(all, false);
    struct str body = rest = check_head(m, &a, all);
    /* Words of strangers may hold it, for here it can be guessed: never at the start of a line. */
    snprintf(mark, sizeof(mark), "\n--%s", m->boundary);
    CHECK(count(all, str_of(mark)) == 4);
    check_parts(&a, m, all, body);
    snprintf(mark, sizeof(mark), "\r\n--%s\r\n", m->boundary);
    before(&rest, str_of(mark));
    struct str text = before(&rest, str_of(mark));
    CHECK(str_is_ascii(text) || m->d.original->flags & MESSAGE_SMTPUTF8);
    CHECK(str_is_utf8(text));
    CHECK(str_is_ascii(text) == (str_find(text, STR("\r\nContent-Transfer-Encoding: 8bit")) < 0));
    struct str status = before(&rest, str_of(mark));
    status.n += 2;
    check_status(m, &a, status);
    check_lines(str_first(all, (size_t)(rest.p - all.p)), true);
    snprintf(mark, sizeof(mark), "\r\n--%s--\r\n", m->boundary);
    struct str returned = before(&rest, str_of(mark));
    CHECK(rest.n == 0);
    before(&returned, STR("\r\n\r\n"));
    CHECK(str_starts(m->d.original_head, returned) ||
          (returned.n >= 2 && str_starts(m->d.original_head, str_first(returned, returned.n - 2))));
    CHECK(returned.n <= DSN_MAX_RETURNED + 2);
    arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct made m = { .m = message_new() };
    struct str in = str_make(data, size);

    CHECK(m.m);
    arena_init(&m.arena, 0);
    buf_init(&m.head, 0);
    buf_init(&m.out, 0);
    m.d = (struct dsn){ .original = m.m,
                        .full = size > 0 && data[0] & FULL,
                        .hostname = STR("mx.example"),
                        .wall_ms = INT64_C(1700000900000),
                        .recipients = m.r };
    memset(m.d.id.b, 5, sizeof(m.d.id.b));
    in = str_from(in, 1);
    if (size > 0 && take_message(&m, data[0], &in)) {
        while (in.p && m.d.n_recipients < RECIPIENTS && take_recipient(&m, &in)) {}
        int r = dsn_write(&m.d, &m.out);
        CHECK(r == (m.m->sender.text.n && m.d.n_recipients ? 0 : -EINVAL));
        if (r == 0)
            check(&m);
    }
    buf_done(&m.head);
    buf_done(&m.out);
    arena_done(&m.arena);
    message_unref(m.m);
    return 0;
}
