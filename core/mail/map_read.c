/* map_read.c - a text becomes a map. Interface: map.h. Layer: mail.
 *
 * Each line is brought into the form of map_internal.h where it stands; rows never grow there. Only a
 * row whose key is longer in normal form (an IDN) is copied out.
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/hash.h"
#include "mail/address.h"
#include "mail/map.h"
#include "mail/map_internal.h"

struct reader {
    struct map *m;
    struct map_error *err;
    unsigned line;
    bool lengths[2][129];
};

static int PRINTF_LIKE(2, 3) fault(struct reader *r, const char *fmt, ...)
{
    va_list ap;

    r->err->line = r->line;
    va_start(ap, fmt);
    vsnprintf(r->err->text, sizeof(r->err->text), fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* What came from a file, as a message may show it. */
struct shown {
    char text[64];
};

static struct shown show(struct str s)
{
    struct shown ret = { "" };
    size_t n = 0;

    for (size_t i = 0; i < s.n && n + 5 < sizeof(ret.text); i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < ' ' || c == 0x7f)
            n += (size_t)snprintf(ret.text + n, sizeof(ret.text) - n, "\\x%02x", c);
        else
            ret.text[n++] = (char)c;
    }
    while (n && !str_is_utf8(str_make(ret.text, n))) /* not in the middle of a character */
        n--;
    ret.text[n] = '\0';
    return ret;
}

/* ---- keys ------------------------------------------------------------------------------------- */

static ptrdiff_t normalize_domain(struct str s, char *dst)
{
    if (str_starts(s, STR("*.")))
        s = str_from(s, 1); /* how others write ".example.com" */
    return domain_normalize(s, dst, MAP_MAX_KEY);
}

/* Local part and domain in lower case. */
static ptrdiff_t normalize_address(struct str s, char *dst)
{
    struct arena arena;
    struct address a;

    arena_init(&arena, 0);
    ptrdiff_t n = address_parse(&arena, s, &a);
    if (n == 0 && (!a.domain.n || a.local.n + 1 + a.domain.n > MAP_MAX_KEY))
        n = -EINVAL;
    if (n == 0) {
        for (size_t i = 0; i < a.local.n; i++)
            dst[i] = ascii_lower(a.local.p[i]);
        dst[a.local.n] = '@';
        memcpy(dst + a.local.n + 1, a.domain.p, a.domain.n);
        n = (ptrdiff_t)(a.local.n + 1 + a.domain.n);
    }
    arena_done(&arena);
    return n == -E2BIG ? -EINVAL : n;
}

ptrdiff_t map_key_normalize(enum map_keys keys, struct str key, char *dst)
{
    if (keys == MAP_KEYS_TEXT || str_eq(key, STR("<>"))) {
        if (!key.n || key.n > MAP_MAX_KEY)
            return -EINVAL;
        memcpy(dst, key.p, key.n);
        return (ptrdiff_t)key.n;
    }
    if (str_starts(key, STR("@")))
        return normalize_domain(str_from(key, 1), dst);
    return str_rchr(key, '@') > 0 ? normalize_address(key, dst) : normalize_domain(key, dst);
}

/* ---- a line into fields ----------------------------------------------------------------------- */

static char *skip_blanks(char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    return p;
}

/* Reads "..." at *from, behind its first quote, and writes what is in it to *to. */
static int read_quoted(struct reader *r, char **from, const char *end, char **to)
{
    char *p = *from, *w = *to;

    for (;; p++) {
        if (p == end)
            return fault(r, "a quote (\") is not closed in its line");
        if (*p == '"' && (p + 1 == end || p[1] != '"'))
            break;
        p += *p == '"';
        *w++ = *p;
    }
    *from = skip_blanks(p + 1, end);
    *to = w;
    return 0;
}

static void read_plain(char **from, const char *end, char **to)
{
    char *p = *from, *w = *to;

    while (p < end && *p != ',')
        *w++ = *p++;
    while (w > *to && (w[-1] == ' ' || w[-1] == '\t'))
        w--;
    *from = p;
    *to = w;
}

/* Rewrites the fields of the line from `begin` on, with NULs between them. Returns their number and the
 * end of the last in *end. */
static int read_fields(struct reader *r, char *begin, char **end, size_t *ret_key_n)
{
    char *from = begin, *to = begin;
    int n = 0;

    for (;;) {
        char *field = to;
        from = skip_blanks(from, *end);
        if (from < *end && *from == '"') {
            from++;
            if (read_quoted(r, &from, *end, &to) < 0)
                return -EINVAL;
            if (from < *end && *from != ',')
                return fault(r, "there is something behind a closing quote (\")");
        } else {
            read_plain(&from, *end, &to);
        }
        if (n++ == 0)
            *ret_key_n = (size_t)(to - field);
        if (from == *end)
            break;
        if (n == MAP_MAX_FIELDS)
            return fault(r, "more than %d fields", MAP_MAX_FIELDS);
        from++;
        *to++ = '\0';
    }
    *end = to;
    return n;
}

/* ---- rows ------------------------------------------------------------------------------------- */

static int take_slot(struct reader *r, struct str key, uint32_t at, struct str shown)
{
    struct map *m = r->m;
    uint32_t tag;
    struct map_slot *s = map_slot_of(m, key, &tag);

    if (s->at) {
        struct map_row first;
        map_row_at(m, s->at - 1, &first);
        unsigned line = map_line(m, &first);
        return fault(r, "\"%s\" stands twice: the first time in line %u", show(shown).text, line);
    }
    *s = (struct map_slot){ .tag = tag, .at = at + 1 };
    m->count++;
    return 0;
}

/* The row [key, end) ends where its line does; what is in front of it becomes blank. */
static char *settle(char *line, char *key, const char *end, char *line_end)
{
    size_t n = (size_t)(end - key);
    char *at = line_end - n;

    memmove(at, key, n);
    memset(line, ' ', (size_t)(at - line));
    return at;
}

static int add_more(struct reader *r, char *line, struct str key, struct str fields)
{
    struct buf *b = &r->m->more;

    buf_add_u32(b, r->line);
    size_t at = buf_len(b);
    buf_add_str(b, key);
    if (fields.p)
        buf_add_char(b, '\0');
    buf_add_str(b, fields);
    buf_add_char(b, '\n');
    if (b->failed)
        return b->failed == -EMSGSIZE ? -EFBIG : b->failed;
    *line = '#';
    return take_slot(r, key, (uint32_t)at | MAP_IN_MORE, key);
}

static int add_net(struct reader *r, struct str key, uint32_t at)
{
    struct net_cidr net;
    uint8_t bytes[MAP_NET_KEY];

    if (net_cidr_parse(key, &net) < 0)
        return fault(r,
                     "\"%s\" is not an address, nor a network such as 10.0.0.0/8 (without bits "
                     "behind its prefix)",
                     show(key).text);
    r->lengths[net.base.family == NET_IPV6][net.bits] = true;
    return take_slot(r, map_net_key(&net.base, net.bits, bytes), at, key);
}

static int bad_key(struct reader *r, struct str key)
{
    const char *why = NULL;

    if (!key.n)
        why = "the first field, its key, is empty";
    else if (key.n > MAP_MAX_KEY)
        why = "its key is longer than 512 octets";
    else if (*key.p == '#' || *key.p == ' ')
        why = "its key begins with '#' or a blank";
    if (why)
        return fault(r, "%s", why);
    return fault(r, "\"%s\" is not a domain, \".domain\" (its subdomains), \"*\", or an address",
                 show(key).text);
}

static void note_key(struct map *m, struct str key)
{
    m->has_suffixes |= str_starts(key, STR("."));
    m->has_any |= str_eq(key, STR("*"));
}

/* key: the row [key, end), of which the first key_n octets are its key; line_end: of its line. */
static int add_row(struct reader *r, char *line, char *key, size_t key_n, char *end, char *line_end)
{
    struct map *m = r->m;
    struct str raw = str_make(key, key_n);
    char normal[MAP_MAX_KEY];

    if (!key_n || key_n > MAP_MAX_KEY || *key == '#' || *key == ' ')
        return bad_key(r, raw); /* the latter two begin lines without a row: map_internal.h */
    if (m->keys == MAP_KEYS_NETS) {
        char *at = settle(line, key, end, line_end);
        return add_net(r, str_make(at, key_n), (uint32_t)(at - m->text));
    }
    ptrdiff_t n = map_key_normalize(m->keys, raw, normal);
    if (n < 0)
        return n == -ENOMEM ? -ENOMEM : bad_key(r, raw);
    struct str wanted = str_make(normal, (size_t)n);
    note_key(m, wanted);
    if ((size_t)n > key_n) {
        bool more = end > key + key_n;
        return add_more(r, line, wanted,
                        more ? str_make(key + key_n + 1, (size_t)(end - key - 1) - key_n)
                             : STR_NONE);
    }
    key += key_n - (size_t)n;
    memcpy(key, normal, (size_t)n);
    char *at = settle(line, key, end, line_end);
    return take_slot(r, str_make(at, (size_t)n), (uint32_t)(at - m->text), wanted);
}

static int check_bytes(struct reader *r, struct str line)
{
    bool high = false;

    for (size_t i = 0; i < line.n; i++) {
        unsigned char c = (unsigned char)line.p[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return fault(r, "there is a control character (\\x%02x)", c);
        high |= c >= 0x80;
    }
    return high && !str_is_utf8(line) ? fault(r, "this is not UTF-8") : 0;
}

/* line_end: where its LF stands. */
static int read_line(struct reader *r, char *line, char *line_end)
{
    char *end = line_end, *begin;
    size_t key_n = 0;

    if (end > line && end[-1] == '\r')
        end--;
    begin = skip_blanks(line, end);
    if (begin == end || *begin == '#') {
        memset(line, begin == end ? ' ' : '#', (size_t)(line_end - line));
        return 0;
    }
    int n = check_bytes(r, str_make(begin, (size_t)(end - begin)));
    if (n == 0)
        n = read_fields(r, begin, &end, &key_n);
    return n < 0 ? n : add_row(r, line, begin, key_n, end, line_end);
}

/* ---- the whole -------------------------------------------------------------------------------- */

static size_t count_lines(const char *p, size_t n)
{
    const char *end = p + n;
    size_t lines = 0;

    while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
        p++;
        lines++;
    }
    return lines;
}

static int make_slots(struct map *m)
{
    size_t n = 16, rows = count_lines(m->text, m->n);

    while (n < 2 * rows)
        n *= 2;
    m->slots = calloc(n, sizeof(*m->slots));
    m->mask = n - 1;
    return m->slots ? 0 : -ENOMEM;
}

static int read_lines(struct reader *r)
{
    struct map *m = r->m;
    char *p = m->text, *text_end = m->text + m->n;
    int error = 0;

    while (error == 0 && p < text_end) {
        char *end = memchr(p, '\n', (size_t)(text_end - p));
        r->line++;
        error = read_line(r, p, end);
        p = end + 1;
    }
    return error;
}

static void sort_lengths(struct reader *r)
{
    for (int six = 0; six < 2; six++)
        for (int bits = 128; bits >= 0; bits--)
            if (r->lengths[six][bits])
                r->m->bits[six][r->m->n_bits[six]++] = (uint8_t)bits;
}

int map_new(char *bytes, size_t n, enum map_keys keys, struct map **ret, struct map_error *err)
{
    struct map *m = n > MAP_MAX_BYTES ? NULL : calloc(1, sizeof(*m));
    struct reader r = { .m = m, .err = err };

    if (!m) {
        free(bytes);
        return n > MAP_MAX_BYTES ? -EFBIG : -ENOMEM;
    }
    atomic_init(&m->refs, 1);
    m->keys = keys;
    m->text = bytes;
    m->n = n;
    m->fingerprint = hash_stable(bytes, n);
    buf_init(&m->more, MAP_MAX_BYTES);
    if (n && bytes[n - 1] != '\n')
        m->text[m->n++] = '\n';
    if (str_starts(str_make(m->text, m->n), STR("\xef\xbb\xbf")))
        memset(m->text, ' ', 3);
    int error = make_slots(m);
    if (error == 0)
        error = read_lines(&r);
    if (error < 0) {
        map_unref(m);
        return error;
    }
    sort_lengths(&r);
    *ret = m;
    return 0;
}
