/* The reader of replies on any bytes: whole and byte by byte it must give the same replies, free of
 * control bytes and within the limits; what the writer makes of them must be read as a reply. */
#include "base/buf.h"
#include "proto/smtp_reply.h"
#include "proto/smtp_syntax.h"

static void write_again(const struct smtp_reply *reply)
{
    struct smtp_reply_reader reader;
    struct smtp_reply again;
    struct buf out;
    struct str in, rest, line;

    buf_init(&out, 0);
    CHECK(smtp_reply_write(reply, &out) == 0);
    rest = buf_str(&out);
    while (rest.n > 0 && str_cut(&rest, '\n', &line))
        CHECK(line.n < SMTP_MAX_REPLY_LINE);
    in = buf_str(&out);
    smtp_reply_reader_init(&reader);
    int r = smtp_reply_read(&reader, &in, &again);
    CHECK(r == 1 || r == -EPROTO); /* too many lines after splitting */
    if (r == 1)
        CHECK(in.n == 0 && again.code == reply->code);
    smtp_reply_reader_done(&reader);
    buf_done(&out);
}

static void check_reply(const struct smtp_reply *reply)
{
    CHECK(reply->code >= 200 && reply->code <= 599 && reply->text.n <= 16384);
    CHECK(reply->enhanced.class_ == 0 || reply->enhanced.class_ == reply->code / 100);
    for (size_t i = 0; i < reply->text.n; i++) {
        unsigned char c = (unsigned char)reply->text.p[i];
        CHECK((c >= 32 || c == '\n') && c != 127);
    }
}

static void read_all(struct str in, size_t piece, struct buf *log)
{
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    char enhanced[16];
    int r = 0;

    smtp_reply_reader_init(&reader);
    while (in.n > 0 && r >= 0) {
        struct str now = str_first(in, piece);
        in = str_from(in, now.n);
        while ((r = smtp_reply_read(&reader, &now, &reply)) == 1) {
            check_reply(&reply);
            buf_printf(log, "%u %s" STR_FMT "\n", reply.code,
                       smtp_enhanced_text(reply.enhanced, enhanced), STR_ARG(reply.text));
            if (piece > 1)
                write_again(&reply);
        }
    }
    buf_printf(log, "%d\n", r);
    smtp_reply_reader_done(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_make(data, size);
    struct buf whole, bytewise;
    struct smtp_enhanced e;
    char text[16];

    buf_init(&whole, 0);
    buf_init(&bytewise, 0);
    read_all(in, SIZE_MAX, &whole);
    read_all(in, 1, &bytewise);
    CHECK(str_eq(buf_str(&whole), buf_str(&bytewise)));
    buf_done(&whole);
    buf_done(&bytewise);

    write_again(&(struct smtp_reply){ .code = 550, .enhanced = ENH(5, 1, 1), .text = in });
    if (smtp_enhanced_parse(in, &e) == 0) {
        smtp_enhanced_text(e, text);
        CHECK(str_starts(str_of(text), in) && strlen(text) == size + 1);
    }
    return 0;
}
