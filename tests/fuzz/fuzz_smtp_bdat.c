/* BDAT against its rules: whatever is in a message and however it is cut, it is told octet for octet
 * or refused for a reason that stands in it, and the command behind it is a command.
 *
 * Input: a byte of settings, then pieces: a byte that says how long (times 3; odd: half of it is in
 * a flight of its own), and the octets. Each becomes a chunk; the last one is LAST. A NOOP with a name
 * of its own stands behind them. By a bit of the settings it is LMTP, with several recipients, each of which
 * has a reply to the last chunk.
 */
#include "proto/smtp_server.h"

enum { SIZE_LIMIT = 2000 };
enum { BINARY = 1, BYTEWISE = 2, NO_RCPT = 4, EMPTY_LAST = 8, LMTP = 16, MORE_RCPT = 32 };

struct run {
    struct smtp_server *server;
    struct buf told, output;
    unsigned ends, resets, recipients;
    bool bytewise, lmtp;
};

static void take(struct run *r, const struct smtp_server_event *e)
{
    struct smtp_reply yes = { .code = 250 };

    switch (e->type) {
    case SMTP_SERVER_CONNECT: yes.code = 220; break;
    case SMTP_SERVER_BODY:
        CHECK(e->body.n > 0 && r->ends == 0 && r->resets == 0);
        buf_add_str(&r->told, e->body);
        return;
    case SMTP_SERVER_END:
        CHECK(e->end.size == buf_len(&r->told));
        r->ends++;
        break;
    case SMTP_SERVER_RESET: r->resets++; return;
    case SMTP_SERVER_HELO:
    case SMTP_SERVER_MAIL:
    case SMTP_SERVER_RCPT: break;
    default: CHECK(!"an event that was not asked for");
    }
    for (unsigned i = 1; e->type == SMTP_SERVER_END && r->lmtp && i < r->recipients; i++)
        CHECK(smtp_server_answer(r->server, e->ticket, &yes) == 0);
    CHECK(smtp_server_answer(r->server, e->ticket, &yes) == 0);
}

static void say(struct run *r, struct str bytes)
{
    struct smtp_server_event e;

    do {
        size_t n =
            smtp_server_feed(r->server, bytes.p, r->bytewise ? MIN(bytes.n, (size_t)1) : bytes.n);
        int did;
        bytes = str_from(bytes, n);
        while ((did = smtp_server_next(r->server, &e)) == 1)
            take(r, &e);
        CHECK(did == 0);
        struct str out = smtp_server_output(r->server);
        buf_add_str(&r->output, out);
        smtp_server_sent(r->server, out.n);
    } while (bytes.n);
}

/* Octet by octet, by the book. */
static bool text_is_good(struct str s, bool binary)
{
    size_t line = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\r' && i + 1 < s.n && s.p[i + 1] == '\n') {
            if (binary && line == 0)
                return true; /* the header block was good */
            line = 0;
            i++;
        } else if (s.p[i] == '\r' || s.p[i] == '\n' || s.p[i] == '\0' || ++line > 998) {
            return false;
        }
    }
    return true;
}

static void say_chunk(struct run *r, struct str piece, bool last, bool halved)
{
    struct buf b;
    size_t half = halved ? piece.n / 2 : 0;

    buf_init(&b, 0);
    buf_printf(&b, "BDAT %zu%s\r\n", piece.n, last ? " LAST" : "");
    buf_add_str(&b, str_first(piece, half));
    say(r, buf_str(&b));
    say(r, str_from(piece, half));
    buf_done(&b);
}

/* The code of the line with that index. */
static unsigned code_at(struct str out, size_t index)
{
    struct str line = STR_NONE;

    for (size_t i = 0; i <= index; i++)
        CHECK(str_cut(&out, '\n', &line) && line.n > 4);
    return (unsigned)(line.p[0] - '0') * 100 + (unsigned)(line.p[1] - '0') * 10 +
           (unsigned)(line.p[2] - '0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct smtp_server_options opt = { .hostname = STR("mx.example"),
                                       .size_limit = SIZE_LIMIT,
                                       .chunking = true,
                                       .binarymime = true,
                                       .lmtp = size > 0 && data[0] & LMTP };
    struct run r = { 0 };
    struct buf message;
    size_t chunks = 0;

    if (size < 1)
        return 0;
    unsigned how = data[0];
    struct str rest = str_make(data + 1, size - 1);
    buf_init(&r.told, 0);
    buf_init(&r.output, 0);
    buf_init(&message, 0);
    r.bytewise = how & BYTEWISE;
    r.lmtp = how & LMTP;
    r.server = smtp_server_new(&opt);
    CHECK(r.server);
    say(&r, STR("")); /* the greeting */
    say(&r, r.lmtp ? STR("LHLO c.example\r\n") : STR("EHLO c.example\r\n"));
    buf_clear(&r.output);
    say(&r, how & BINARY ? STR("MAIL FROM:<a@b.example> BODY=BINARYMIME\r\n")
                         : STR("MAIL FROM:<a@b.example>\r\n"));
    r.recipients = how & NO_RCPT ? 0 : how & MORE_RCPT ? 5 : 1;
    for (unsigned i = 0; i < r.recipients; i++)
        say(&r, STR("RCPT TO:<c@d.example>\r\n"));
    buf_clear(&r.output);
    bool over = false, lost = false; /* before the last chunk */
    while (!over && chunks < 400) {
        size_t n = rest.n ? (size_t)(uint8_t)rest.p[0] * 3 : 0;
        struct str piece = str_first(str_from(rest, 1), n);
        rest = str_from(rest, 1 + piece.n);
        over = rest.n == 0 && !(how & EMPTY_LAST && piece.n);
        lost = r.resets > 0;
        say_chunk(&r, piece, over || chunks == 399, n % 2);
        buf_add_str(&message, piece);
        chunks++;
    }
    size_t replies = 0;
    struct str out = buf_str(&r.output), line;
    while (out.n && str_cut(&out, '\n', &line))
        replies++;
    /* One for each, in order; by LMTP the last has one for each recipient. */
    CHECK(replies == chunks - 1 + (r.lmtp && !lost ? r.recipients : 1));

    struct str all = buf_str(&message);
    bool good = !(how & NO_RCPT) && all.n <= SIZE_LIMIT && text_is_good(all, how & BINARY);
    CHECK((r.ends == 1) == good && r.ends + r.resets == (how & NO_RCPT ? 0 : 1));
    if (good)
        CHECK(str_eq(buf_str(&r.told), all));
    for (size_t i = 0; i < chunks; i++)
        CHECK(!good || code_at(buf_str(&r.output), i) == 250);
    for (size_t i = chunks - 1; i < replies; i++)
        CHECK(good ? code_at(buf_str(&r.output), i) == 250 : code_at(buf_str(&r.output), i) >= 500);
    buf_clear(&r.output);
    say(&r, STR("NOOP behind\r\n"));
    CHECK(str_starts(buf_str(&r.output), STR("250 2.0.0")));
    smtp_server_free(r.server);
    buf_done(&r.told);
    buf_done(&r.output);
    buf_done(&message);
    return 0;
}
