/* smtp_server_bdat.c - BDAT and the chunks behind it (RFC 3030).
 *
 * Layer: proto. See smtp_server_impl.h.
 *
 * In LMTP (RFC 2033 §4.3) the chunk that says LAST has a reply for each accepted recipient, whatever
 * becomes of it: none where nobody was accepted. The others have one. Where a chunk was refused, the transaction is over
 * and has no recipients any more: each chunk that follows has one reply.
 *
 * The length is read before anything else is judged: whatever becomes of the chunk, its octets are
 * read to their end and are never commands. What cannot be counted (no number, or one that no
 * integer holds) closes the session. Nothing of a chunk is kept here: pieces are told as they come,
 * or thrown away.
 *
 * A message that is not declared BINARYMIME is held to the rules of DATA: lines end in CRLF, no bare
 * CR or LF, no NUL, no line too long. So what is accepted can be sent on by DATA as it is, and no
 * next hop sees an end of data that we did not. Of a BINARYMIME message this holds for the header
 * block; the rest is never sent by DATA without being encoded first.
 */
#include "proto/smtp_server_impl.h"

/* Why a chunk is refused; 0: it is not. */
enum refused {
    REFUSED_TLS = 1,
    REFUSED_EHLO,
    REFUSED_MAIL,
    REFUSED_RCPT,
    REFUSED_NOBODY,
    REFUSED_LHLO,
    REFUSED_NOBODY_LMTP,
    REFUSED_DEAD,
    REFUSED_SIZE,
    REFUSED_BARE,
    REFUSED_LINE,
};

static const struct {
    uint16_t code;
    struct smtp_enhanced enhanced;
    const char *text;
} refusals[] = {
    [REFUSED_TLS] = { 530, ENH(5, 7, 0), "Must issue a STARTTLS command first" },
    [REFUSED_EHLO] = { 503, ENH(5, 5, 1), "Send EHLO first" },
    [REFUSED_MAIL] = { 503, ENH(5, 5, 1), "Send MAIL first" },
    [REFUSED_RCPT] = { 503, ENH(5, 5, 1), "Send RCPT first" },
    [REFUSED_NOBODY] = { 554, ENH(5, 5, 1), "No valid recipients" },
    [REFUSED_LHLO] = { 503, ENH(5, 5, 1), "Send LHLO first" },
    [REFUSED_NOBODY_LMTP] = { 503, ENH(5, 5, 1), "No valid recipients" },
    [REFUSED_DEAD] = { 503, ENH(5, 5, 1), "A chunk before this one was refused" },
    [REFUSED_SIZE] = { 552, ENH(5, 3, 4), "Message too large" },
    [REFUSED_BARE] = { 550, ENH(5, 6, 0), "Bare CR, bare LF or NUL in the message" },
    [REFUSED_LINE] = { 550, ENH(5, 6, 0), "A line of the message is too long" },
};

/* ---- the command ---- */

bool server_is_bdat(struct str line)
{
    return str_casestarts(line, STR("BDAT")) &&
           (line.n == 4 || !(ascii_digit(line.p[4]) || ascii_alpha(line.p[4])));
}

/* "BDAT" SP 1*20DIGIT [SP "LAST"]. 0, -EINVAL, -ERANGE. */
static int parse(struct str line, uint64_t *ret_size, bool *ret_last)
{
    struct str rest = str_trim(str_from(line, 5)), word;

    if (line.n < 6 || line.p[4] != ' ' || !ascii_digit(line.p[5]))
        return -EINVAL;
    (void)str_cut(&rest, ' ', &word);
    if (rest.p && !str_caseeq(rest, STR("LAST")))
        return -EINVAL;
    int r = word.n > 20 ? -ERANGE : str_to_u64(word, ret_size);
    *ret_last = rest.p != NULL;
    return r;
}

static enum refused judge(const struct smtp_server *s)
{
    if (s->opt.require_tls && !s->tls)
        return REFUSED_TLS;
    if (server_in(s, IN(RCPT) | IN(BDAT)))
        return 0;
    if (s->chunks_dead)
        return REFUSED_DEAD;
    if (s->state == SERVER_HELO)
        return s->opt.lmtp ? REFUSED_LHLO : REFUSED_EHLO;
    if (s->state == SERVER_READY)
        return REFUSED_MAIL;
    if (!s->rcpt_seen)
        return REFUSED_RCPT;
    return s->opt.lmtp ? REFUSED_NOBODY_LMTP : REFUSED_NOBODY;
}

/* The message is lost, and with it the transaction; what is left of the chunk is thrown away. */
static void refuse(struct smtp_server *s, enum refused why)
{
    s->chunk_refused = (uint8_t)why;
    s->finals = s->chunk_last ? s->recipients : 0;
    server_end_transaction(s, true);
}

static void begin_message(struct smtp_server *s)
{
    s->state = SERVER_BDAT;
    s->size = 0;
    s->bad = 0;
    s->line_octets = 0;
    s->cr_open = s->binary_body = false;
}

enum step server_on_bdat(struct smtp_server *s, struct str line)
{
    uint64_t size = 0;
    bool last = false;
    int r = parse(line, &size, &last);

    if (!s->opt.chunking)
        return server_reply_close(s, 502, ENH(5, 5, 1), "BDAT is not implemented",
                                  "BDAT without CHUNKING");
    if (r == -ERANGE)
        return server_reply_close(s, 552, ENH(5, 3, 4), "Chunk too large",
                                  "length of a chunk that nobody can send");
    if (r < 0) /* where it ends, and commands go on, is not known */
        return server_reply_close(s, 501, ENH(5, 5, 4), "Syntax: BDAT length [LAST]",
                                  "BDAT without a length");
    s->in_chunk = true;
    s->chunk_left = size;
    s->chunk_last = last;
    s->finals = 0;
    s->chunk_refused = (uint8_t)judge(s);
    if (s->chunk_refused)
        return STEP_AGAIN;
    if (s->state == SERVER_RCPT)
        begin_message(s);
    if (s->opt.size_limit && (s->size > s->opt.size_limit || size > s->opt.size_limit - s->size))
        refuse(s, REFUSED_SIZE);
    else if (size > 0)
        s->commands--; /* many chunks of a large message are not idle talk */
    return STEP_AGAIN;
}

/* ---- the octets ---- */

/* Behind a CR that was the last octet of the chunk before. */
static size_t close_cr(struct smtp_server *s, char c, enum server_stop *ret)
{
    s->cr_open = false;
    if (c != '\n') {
        *ret = STOP_BARE;
        return 0;
    }
    s->binary_body = s->binary && s->line_octets == 0;
    s->line_octets = 0;
    return 1;
}

/* The empty line that ends a header block. */
static bool at_empty_line(const struct smtp_server *s, const char *p, const char *end)
{
    return s->line_octets == 0 && end - p >= 2 && p[0] == '\r' && p[1] == '\n';
}

/* How many octets at the front can be told; *ret: what stands behind them, valid when there are
 * none. */
static size_t scan(struct smtp_server *s, struct str in, enum server_stop *ret)
{
    const char *p = in.p, *end = in.p + in.n;
    size_t n = 1;

    *ret = STOP_NEED;
    if (s->binary_body || !in.n)
        return in.n;
    bool nul = str_chr(in, '\0') >= 0;
    if (s->cr_open)
        return close_cr(s, *p, ret);
    while (p < end && n > 0) {
        if (s->binary && at_empty_line(s, p, end)) {
            s->binary_body = true;
            return (size_t)(p + 2 - in.p);
        }
        n = server_scan_line(s, p, end, nul, ret);
        p += n;
    }
    /* A CR at the end of the chunk: its LF may begin the next one. */
    if (p == in.p && *ret == STOP_NEED && s->chunk_left == 1) {
        s->cr_open = true;
        return 1;
    }
    return (size_t)(p - in.p);
}

static enum step end_of_chunk(struct smtp_server *s, struct smtp_server_event *ret)
{
    s->in_chunk = false;
    if (s->chunk_last && s->cr_open && !s->chunk_refused)
        refuse(s, REFUSED_BARE);
    s->cr_open = s->cr_open && !s->chunk_refused;
    if (s->chunk_refused) {
        bool again = s->chunk_refused == REFUSED_DEAD;
        uint16_t code = refusals[s->chunk_refused].code;
        struct smtp_enhanced e = refusals[s->chunk_refused].enhanced;
        const char *text = refusals[s->chunk_refused].text;

        s->chunks_dead = !s->chunk_last;
        if (s->opt.lmtp && s->chunk_last && server_in(s, IN(MAIL))) {
            /* One for each recipient: there is none (RFC 2033 section 4.3). */
            if (!again)
                server_count_error(s);
            return STEP_AGAIN;
        }
        if (!again)
            return server_refuse_message(s, s->finals, code, e, text);
        /* It was on its way already; the fault is counted once. */
        server_write(s, &(struct smtp_reply){ code, e, str_of(text) });
        return STEP_AGAIN;
    }
    if (!s->chunk_last)
        return server_reply(s, 250, ENH(2, 0, 0), "OK");
    ret->end.size = s->size;
    return server_ask(s, SMTP_SERVER_END, ret);
}

enum step server_chunk(struct smtp_server *s, struct smtp_server_event *ret)
{
    struct str in = buf_str(&s->in);
    enum server_stop stop;

    if (s->chunk_left == 0)
        return end_of_chunk(s, ret);
    if (in.n == 0)
        return STEP_WAIT;
    if (in.n > s->chunk_left)
        in.n = (size_t)s->chunk_left;

    size_t n = s->chunk_refused ? in.n : scan(s, in, &stop);
    if (n == 0) {
        if (stop == STOP_NEED) /* a CR whose LF may follow */
            return STEP_WAIT;
        refuse(s, stop == STOP_LONG ? REFUSED_LINE : REFUSED_BARE);
        return STEP_AGAIN;
    }
    buf_consume(&s->in, n);
    s->chunk_left -= n;
    if (s->chunk_refused)
        return STEP_AGAIN;
    s->size += n;
    ret->type = SMTP_SERVER_BODY;
    ret->body = str_first(in, n);
    return STEP_EVENT;
}
