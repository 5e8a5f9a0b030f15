/* smtp_client_text.c - what the SMTP client reads out of EHLO and writes into MAIL and DATA: pure
 * functions, see smtp_client_internal.h.
 *
 * Layer: proto.
 */
#include "proto/smtp_client_internal.h"

/* Far above any real path (RFC 5321 allows 256), well below what a command line buffer holds. */
enum { MAX_ADDRESS = 1000 };

const char *smtp_stage_name(enum smtp_stage s)
{
    static const char *const names[] = {
        [SMTP_STAGE_CONNECT] = "connect",
        [SMTP_STAGE_GREETING] = "greeting",
        [SMTP_STAGE_HELO] = "HELO",
        [SMTP_STAGE_STARTTLS] = "STARTTLS",
        [SMTP_STAGE_TLS] = "TLS handshake",
        [SMTP_STAGE_AUTH] = "AUTH",
        [SMTP_STAGE_READY] = "between messages",
        [SMTP_STAGE_MAIL] = "MAIL FROM",
        [SMTP_STAGE_RCPT] = "RCPT TO",
        [SMTP_STAGE_DATA] = "DATA",
        [SMTP_STAGE_BODY] = "message body",
        [SMTP_STAGE_FINAL] = "end of data",
        [SMTP_STAGE_QUIT] = "QUIT",
    };

    return (size_t)s < ARRAY_LEN(names) ? names[s] : "unknown";
}

static bool *cap_flag(struct smtp_client_caps *caps, struct str keyword)
{
    const struct {
        struct str keyword;
        bool *flag;
    } known[] = {
        { STR("PIPELINING"), &caps->pipelining },
        { STR("SIZE"), &caps->size },
        { STR("8BITMIME"), &caps->eightbit },
        { STR("STARTTLS"), &caps->starttls },
        { STR("SMTPUTF8"), &caps->smtputf8 },
        { STR("CHUNKING"), &caps->chunking },
        { STR("BINARYMIME"), &caps->binarymime },
        { STR("DSN"), &caps->dsn },
        { STR("DELIVERBY"), &caps->deliver_by },
        { STR("MT-PRIORITY"), &caps->priority },
        { STR("ENHANCEDSTATUSCODES"), &caps->enhanced },
        { STR("REQUIRETLS"), &caps->requiretls },
    };

    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (str_caseeq(keyword, known[i].keyword))
            return known[i].flag;
    return NULL;
}

/* "AUTH PLAIN LOGIN"; old servers write "AUTH=PLAIN LOGIN", often besides. */
static bool take_auth(struct str line, struct smtp_client_caps *caps)
{
    struct str word, names;

    if (!str_casestarts(line, STR("AUTH ")) && !str_casestarts(line, STR("AUTH=")))
        return false;
    names = str_from(line, 5);
    while (str_cut(&names, ' ', &word))
        caps->auth |= SASL_BIT(sasl_find(word)) & ~SASL_BIT(SASL_NONE);
    return true;
}

/* Of more than one line the last counts, as of any parameter that is told again. */
static bool take_limits(struct str line, struct smtp_client_caps *caps)
{
    if (!str_casestarts(line, STR("LIMITS ")))
        return false;
    smtp_limits_parse(str_from(line, 7), &caps->limits);
    return true;
}

/* deliverby-param = min-by-time *( "," extension-token ) */
static uint32_t least_by(struct str params)
{
    struct str word = STR_NONE;
    uint64_t seconds;

    if (!str_cut(&params, ',', &word) || str_to_u64(str_trim(word), &seconds) < 0)
        return 0;
    return (uint32_t)MIN(seconds, (uint64_t)SMTP_BY_MOST);
}

void smtp_client_parse_caps(struct str text, struct smtp_client_caps *ret)
{
    struct smtp_client_caps caps = { 0 };
    struct str line, keyword;

    if (!str_cut(&text, '\n', &line)) /* the host's name */
        line = STR_NONE;
    while (str_cut(&text, '\n', &line)) {
        struct str rest = str_trim(line);
        bool *flag;

        if (take_limits(rest, &caps) || take_auth(rest, &caps) || !str_cut(&rest, ' ', &keyword) ||
            !(flag = cap_flag(&caps, keyword)))
            continue;
        *flag = true;
        if (flag == &caps.deliver_by)
            caps.deliver_by_min_s = least_by(str_trim(rest));
        if (flag == &caps.size) {
            caps.size_limit = 0; /* no number, or not one that we can hold: none told */
            (void)str_to_u64(str_trim(rest), &caps.size_limit);
        }
    }
    *ret = caps;
}

bool smtp_client_address_ok(struct str address, bool utf8)
{
    bool quoted = false;

    if (address.n > MAX_ADDRESS)
        return false;
    for (size_t i = 0; i < address.n; i++) {
        unsigned char ch = (unsigned char)address.p[i];

        if (ch < 0x20 || ch == 0x7f || (ch > 0x7f && !utf8))
            return false;
        if (quoted && ch == '\\') {
            if (++i == address.n || (unsigned char)address.p[i] < 0x20 ||
                (unsigned char)address.p[i] >= 0x7f)
                return false;
        } else if (ch == '"') {
            quoted = !quoted;
        } else if (!quoted && (ch == '<' || ch == '>' || ch == ' ')) {
            return false;
        }
    }
    return !quoted;
}

/* One piece is walked line by line, but copied in runs as long as nothing has to be changed: a
 * clean message without leading dots is one copy a piece. */
int smtp_stuff(struct smtp_stuffing *s, struct str piece, struct buf *out)
{
    const char *p, *end, *run, *lf = NULL;

    if (piece.n == 0)
        return out->failed;
    p = piece.p;
    end = p + piece.n;
    if (s->skip_lf && *p == '\n')
        p++;
    s->skip_lf = false;
    for (run = p; p < end;) {
        const char *cr;

        if (s->line_start && *p == '.') {
            buf_add(out, run, (size_t)(p - run));
            buf_add_char(out, '.');
            run = p;
        }
        if (!lf || lf < p) { /* the next one, or the end */
            lf = memchr(p, '\n', (size_t)(end - p));
            lf = lf ? lf : end;
        }
        cr = memchr(p, '\r', (size_t)(lf - p));
        s->line_start = lf < end || cr;
        if (!s->line_start)
            break; /* the piece ends within a line */
        if (lf < end && cr && cr + 1 == lf) {
            p = lf + 1;
            continue;
        }
        /* A bare CR, a bare LF, or a CR whose LF may come with the next piece. */
        p = cr ? cr : lf;
        buf_add(out, run, (size_t)(p - run));
        buf_add(out, "\r\n", 2);
        run = ++p;
        s->skip_lf = cr && p == end;
    }
    return buf_add(out, run, (size_t)(end - run));
}

int smtp_stuff_end(struct smtp_stuffing *s, struct buf *out)
{
    if (!s->line_start)
        buf_add(out, "\r\n", 2);
    s->line_start = true;
    s->skip_lf = false;
    return buf_add(out, ".\r\n", 3);
}
