/* explain_content.c - the message that `tern explain --message` is given. Layer: daemon. Interface: explain_impl.h.
 *
 * All of it is in memory, bounded by limits.message_size of the configuration. Lines that end in LF alone become such
 * with CRLF, as a client would send them.
 */
#include <stdio.h>
#include <sysexits.h>

#include "daemon/explain_impl.h"

static int read_body(const struct message_view *v, uint64_t *cursor, struct str *ret)
{
    const struct explain *x = v->content;
    struct str rest = str_from(buf_str(&x->content), x->body_at + (size_t)*cursor);

    if (rest.n == 0)
        return 0;
    *ret = str_first(rest, BODY_CHUNK);
    *cursor += ret->n;
    return 1;
}

/* With CRLF; *last is the octet before. */
static int add_lines(struct buf *out, struct str s, char *last)
{
    while (s.n) {
        ptrdiff_t lf = str_chr(s, '\n');
        size_t n = lf < 0 ? s.n : (size_t)lf;
        char before = n ? s.p[n - 1] : *last;
        buf_add(out, s.p, n);
        if (lf >= 0)
            buf_add_str(out, before == '\r' ? STR("\n") : STR("\r\n"));
        *last = lf >= 0 ? '\n' : before;
        s = str_from(s, n + (lf >= 0));
    }
    return out->failed;
}

static int read_file(struct explain *x, FILE *file, struct failure *f)
{
    uint64_t limit = x->settings->limits.message_size;
    char piece[16 * 1024], last = '\n';
    int e = 0;
    size_t n;

    while (e == 0 && (n = fread(piece, 1, sizeof(piece), file)) > 0) {
        e = add_lines(&x->content, str_make(piece, n), &last);
        if (e == 0 && limit && buf_len(&x->content) > limit)
            return failure_set(
                f, EX_DATAERR,
                "--message %s: larger than limits.message_size, so it would be refused",
                x->request->content);
    }
    if (ferror(file))
        return failure_set(f, EX_IOERR, "--message %s: cannot be read", x->request->content);
    return e < 0 ? failure_set(f, EX_SOFTWARE, "out of memory") : 0;
}

int explain_read_content(struct explain *x, struct failure *f)
{
    const char *name = x->request->content;
    bool standard = strcmp(name, "-") == 0;
    FILE *file = standard ? stdin : fopen(name, "r");

    if (!file)
        return failure_set(f, EX_NOINPUT, "--message %s: %s", name, strerror(errno));
    int e = read_file(x, file, f);
    if (!standard)
        fclose(file);
    if (e < 0)
        return e;
    struct str all = buf_str(&x->content);
    e = headers_parse(&x->arena, all, &x->headers);
    if (e == -E2BIG)
        return failure_set(f, EX_DATAERR, "--message %s: its header is too large to be accepted",
                           name);
    if (e < 0)
        return failure_set(f, EX_SOFTWARE, "out of memory");
    x->headers.by = x->settings->hostname;
    struct str rest = str_from(all, x->headers.length);
    x->body_at = x->headers.length + (str_starts(rest, STR("\r\n")) ? 2 : 0);
    x->message.headers = &x->headers;
    x->message.read_body = read_body;
    x->message.content = x;
    x->message.size = all.n;
    x->message.body_size = all.n - x->body_at;
    x->message.eight_bit = !str_is_ascii(all);
    return 0;
}
