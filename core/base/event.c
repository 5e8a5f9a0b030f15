/* event.c - events and strings as JSON (RFC 8259).
 *
 * Layer: base. Interface: event.h. Runs several times per mail: strings are copied in runs up to
 * the next byte that needs work, numbers and times are written without printf.
 */
#include "base/event.h"

#include <math.h>
#include <stdio.h>

#include "base/units.h"

/* What a byte of a string becomes: 0: itself; 'u': \u00XX; HIGH: part of a UTF-8 sequence, to be
 * checked; else: '\' and that letter. */
enum { HIGH = 1 };

static const unsigned char escapes[256] = {
    [0x00 ... 0x07] = 'u', ['\b'] = 'b',  ['\t'] = 't',           ['\n'] = 'n',
    [0x0b] = 'u',          ['\f'] = 'f',  ['\r'] = 'r',           ['"'] = '"',
    [0x0e ... 0x1f] = 'u', ['\\'] = '\\', [0x80 ... 0xff] = HIGH,
};

static void add_escape(struct buf *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";

    switch (escapes[c]) {
    case HIGH:
        buf_add(out, "\xef\xbf\xbd", 3); /* U+FFFD */
        break;
    case 'u': buf_add(out, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6); break;
    default: buf_add(out, (char[]){ '\\', (char)escapes[c] }, 2);
    }
}

/* How many of the first bytes need no escape. */
static size_t plain_run(struct str s)
{
    size_t i = 0;

    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = escapes[c] == 0 ? 1 : escapes[c] == HIGH ? str_utf8_len(str_from(s, i)) : 0;
        if (len == 0)
            break;
        i += len;
    }
    return i;
}

void json_add_str(struct buf *out, struct str s)
{
    /* Room for all of it at once: most strings are one plain run. */
    char *p = s.n < SIZE_MAX - 2 ? buf_room(out, s.n + 2) : NULL;
    size_t run = plain_run(s);

    if (p && run == s.n) {
        *p++ = '"';
        if (run)
            memcpy(p, s.p, run);
        p[run] = '"';
        buf_added(out, run + 2);
        return;
    }
    buf_add_char(out, '"');
    for (;;) {
        buf_add(out, s.p, run);
        s = str_from(s, run);
        if (s.n == 0)
            break;
        add_escape(out, (unsigned char)*s.p);
        s = str_from(s, 1);
        run = plain_run(s);
    }
    buf_add_char(out, '"');
}

/* JSON has no infinities: null. */
static void add_real(struct buf *out, double r)
{
    const double exact = 9007199254740992.0; /* 2^53: integers below are their own text */
    char text[40], *comma;

    if (!isfinite(r)) {
        buf_add_str(out, STR("null"));
        return;
    }
    if (r > -exact && r < exact && r == (double)(int64_t)r) {
        buf_add_int(out, (int64_t)r);
        return;
    }
    snprintf(text, sizeof(text), "%.15g", r);
    comma = strchr(text, ','); /* a locale that Lua or a library may have set */
    if (comma)
        *comma = '.';
    buf_add_str(out, str_of(text));
}

static void add_value(struct buf *out, const struct event_field *f)
{
    switch (f->type) {
    case FIELD_STR: json_add_str(out, f->s); break;
    case FIELD_INT: buf_add_int(out, f->i); break;
    case FIELD_BOOL: buf_add_str(out, f->i ? STR("true") : STR("false")); break;
    case FIELD_REAL: add_real(out, f->r); break;
    }
}

static bool left_out(const struct event_field *f)
{
    return !f->name || !*f->name || (f->type == FIELD_STR && !f->s.p);
}

void event_to_json(const struct event *e, int64_t wall_ms, struct buf *out)
{
    static const struct str levels[] = {
        [EVENT_DEBUG] = STR("debug"),
        [EVENT_INFO] = STR("info"),
        [EVENT_WARN] = STR("warn"),
        [EVENT_ERROR] = STR("error"),
    };
    char time[32];

    CHECK((size_t)e->level < ARRAY_LEN(levels));
    buf_add_str(out, STR("{\"time\":\""));
    buf_add_str(out, str_of(date_iso8601(wall_ms, time)));
    buf_add_str(out, STR("\",\"level\":\""));
    buf_add_str(out, levels[e->level]);
    buf_add_str(out, STR("\",\"event\":"));
    json_add_str(out, str_of(e->name));
    for (size_t i = 0; i < e->n; i++) {
        const struct event_field *f = &e->fields[i];
        if (left_out(f))
            continue;
        buf_add_char(out, ',');
        json_add_str(out, str_of(f->name)); /* Lua may have named it: not to be trusted */
        buf_add_char(out, ':');
        add_value(out, f);
    }
    buf_add_str(out, STR("}\n"));
}
