/* control_request.c - what a request asks for. Layer: daemon. Interface: control_request.h. */
#include "daemon/control_request.h"

#include <inttypes.h>
#include <stdio.h>

#include "engine/ports.h"

/* ---- percent encoding (RFC 3986 §2.1) --------------------------------------------------------- */

static int hex_digit(char c)
{
    c = ascii_lower(c);
    if (ascii_digit(c))
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool control_decode(struct arena *a, struct str s, struct str *ret)
{
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;

    if (!out)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '%') {
            int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
            int low = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (!c)
            return false;
        out[n++] = c;
    }
    *ret = str_make(out, n);
    return true;
}

int control_encode(struct str s, struct buf *out)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (ascii_alnum(c) || (c && strchr("-._~", c)))
            buf_add_char(out, c);
        else
            buf_printf(out, "%%%02X", (unsigned char)c);
    }
    return out->failed;
}

/* ---- the request ------------------------------------------------------------------------------ */

static void split_path(struct control_request *r, struct str path)
{
    struct str part;

    if (path.n && path.p[0] == '/')
        path = str_from(path, 1);
    while (str_cut(&path, '/', &part)) {
        if (r->n_segments == CONTROL_SEGMENTS) {
            r->error = "the path has too many parts";
            return;
        }
        if (!control_decode(&r->arena, part, &r->segment[r->n_segments])) {
            r->error = "the path has a bad % escape, or is too long";
            return;
        }
        r->n_segments++;
    }
    /* One slash at the end is nothing. */
    if (r->n_segments && str_empty(r->segment[r->n_segments - 1]))
        r->n_segments--;
}

void control_request_init(struct control_request *r, const char *method, const char *path)
{
    *r = (struct control_request){ 0 };
    arena_init(&r->arena, CONTROL_REQUEST_BYTES);
    r->method = arena_str(&r->arena, str_of(method));
    split_path(r, str_of(path));
}

void control_request_add(struct control_request *r, const char *name, const char *value)
{
    if (r->error)
        return;
    if (r->n_args == CONTROL_ARGS)
        r->error = "the query has too many arguments";
    else if (!control_decode(&r->arena, str_of(name), &r->arg[r->n_args].name) ||
             !control_decode(&r->arena, str_of(value ? value : ""), &r->arg[r->n_args].value))
        r->error = "the query has a bad % escape, or is too long";
    else
        r->n_args++;
}

void control_request_done(struct control_request *r)
{
    arena_done(&r->arena);
}

struct str control_request_arg(const struct control_request *r, const char *name)
{
    for (size_t i = 0; i < r->n_args; i++)
        if (str_eq(r->arg[i].name, str_of(name)))
            return r->arg[i].value;
    return STR_NONE;
}

bool control_request_number(const struct control_request *r, const char *name, uint64_t max,
                            uint64_t otherwise, uint64_t *ret)
{
    struct str text = control_request_arg(r, name);
    uint64_t n = otherwise;

    if (text.p && (str_to_u64(text, &n) < 0 || n > max))
        return false;
    *ret = n;
    return true;
}

const char *control_request_unknown(const struct control_request *r, const char *known)
{
    for (size_t i = 0; i < r->n_args; i++) {
        struct str all = str_of(known), name;
        bool found = false;
        while (!found && str_cut(&all, ' ', &name))
            found = str_eq(name, r->arg[i].name);
        if (!found)
            return r->arg[i].name.p; /* control_decode's memory is zeroed behind it */
    }
    return NULL;
}

bool control_request_path_is(const struct control_request *r, const char *pattern)
{
    struct str rest = str_of(pattern), part;
    size_t i = 0;

    for (; str_cut(&rest, '/', &part); i++) {
        if (i == r->n_segments)
            return false;
        if (str_eq(part, STR("?")) ? str_empty(r->segment[i]) : !str_eq(part, r->segment[i]))
            return false;
    }
    return i == r->n_segments;
}

/* ---- cursors ---------------------------------------------------------------------------------- */

const char *control_cursor_text(const struct control_cursor *c, char *dst)
{
    char id[MSGID_TEXT];

    msgid_text(&c->id, id);
    if (c->class_ < 0)
        snprintf(dst, CONTROL_CURSOR_TEXT, "%s.%" PRIu32, id, c->n);
    else
        snprintf(dst, CONTROL_CURSOR_TEXT, "%d.%" PRId64 ".%s.%" PRIu32, c->class_, c->due_ms, id,
                 c->n);
    return dst;
}

static bool cursor_number(struct str *s, uint64_t max, uint64_t *ret)
{
    struct str part;

    return str_cut(s, '.', &part) && str_to_u64(part, ret) == 0 && *ret <= max;
}

bool control_cursor_parse(struct str s, bool in_queue, struct control_cursor *ret)
{
    struct control_cursor c = { .class_ = -1 };
    struct str part;
    uint64_t n;

    if (in_queue) {
        if (!cursor_number(&s, SPOOL_HELD, &n))
            return false;
        c.class_ = (int)n;
        if (!str_cut(&s, '.', &part) || str_to_i64(part, &c.due_ms) < 0)
            return false;
    }
    if (!str_cut(&s, '.', &part) || msgid_parse(part, &c.id) < 0)
        return false;
    if (!cursor_number(&s, UINT32_MAX, &n) || s.p)
        return false;
    c.n = (uint32_t)n;
    *ret = c;
    return true;
}
