/* strings.c - the string library of scripts: Lua's, but with a matcher that cannot explode.
 *
 * Layer: lua. Interface: sandbox.h. Patterns mean what they mean in Lua 5.4. Lua's own matcher can
 * backtrack for hours inside C, where no hook reaches it; this one counts its steps and gives up
 * with an error.
 *
 * The language of patterns and the shape of the matcher follow lstrlib.c of Lua 5.4:
 * Copyright (C) 1994-2022 Lua.org, PUC-Rio.
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software
 * and associated documentation files (the "Software"), to deal in the Software without
 * restriction, including without limitation the rights to use, copy, modify, merge, publish,
 * distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
 * Software is furnished to do so, subject to the following conditions: The above copyright notice
 * and this permission notice shall be included in all copies or substantial portions of the
 * Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
 * INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE
 * AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
 * DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 */
#include <ctype.h>
#include <lualib.h>

#include "lua/sandbox.h"
#include "lua/watchdog.h"

enum {
    MAX_REPEATED = 1024 * 1024, /* octets that string.rep may make */
    MAX_PATTERN = 1024,
    MAX_CAPTURES = 32,
    MAX_DEPTH = 200,      /* of the matcher's recursion */
    STEPS_FREE = 1000000, /* that any match may take, */
    STEPS_PER_OCTET = 64, /* and further ones for each octet of its subject */
    LOOK_EVERY = 4096,    /* steps between two looks at the watchdog */
};

enum { CAPTURE_OPEN = -1, CAPTURE_POSITION = -2 };

struct match {
    lua_State *L;
    const char *subject, *end;
    const char *pattern, *pattern_end;
    uint64_t steps, max_steps;
    int depth;
    int n_captures;
    struct {
        const char *at;
        ptrdiff_t n;
    } capture[MAX_CAPTURES];
};

static void count_steps(struct match *m, uint64_t n)
{
    uint64_t before = m->steps;

    m->steps += n;
    if (m->steps > m->max_steps)
        luaL_error(m->L, "the pattern takes too many steps on this text (over %d)",
                   (int)MIN(m->max_steps, (uint64_t)INT32_MAX));
    if (before / LOOK_EVERY != m->steps / LOOK_EVERY && watchdog_overdue())
        luaL_error(m->L, "processor time: used up inside a pattern");
}

static int check_capture(struct match *m, int l)
{
    l -= '1';
    if (l < 0 || l >= m->n_captures || m->capture[l].n == CAPTURE_OPEN)
        return luaL_error(m->L, "invalid capture index %%%d", l + 1);
    return l;
}

static int capture_to_close(struct match *m)
{
    for (int l = m->n_captures - 1; l >= 0; l--)
        if (m->capture[l].n == CAPTURE_OPEN)
            return l;
    return luaL_error(m->L, "invalid pattern capture");
}

/* The end of the single item that starts at p. */
static const char *class_end(struct match *m, const char *p)
{
    char c = *p++;

    if (c == '%') {
        if (p == m->pattern_end)
            luaL_error(m->L, "malformed pattern (ends with '%%')");
        return p + 1;
    }
    if (c != '[')
        return p;
    if (p < m->pattern_end && *p == '^')
        p++;
    do { /* look for a ']' */
        if (p >= m->pattern_end)
            luaL_error(m->L, "malformed pattern (missing ']')");
        if (*p++ == '%') {
            if (p >= m->pattern_end)
                luaL_error(m->L, "malformed pattern (missing ']')");
            p++; /* skip escapes such as '%]' */
        }
    } while (p >= m->pattern_end || *p != ']');
    return p + 1;
}

static bool match_class(int c, int class_)
{
    bool r;

    switch (tolower(class_)) {
    case 'a': r = isalpha(c); break;
    case 'c': r = iscntrl(c); break;
    case 'd': r = isdigit(c); break;
    case 'g': r = isgraph(c); break;
    case 'l': r = islower(c); break;
    case 'p': r = ispunct(c); break;
    case 's': r = isspace(c); break;
    case 'u': r = isupper(c); break;
    case 'w': r = isalnum(c); break;
    case 'x': r = isxdigit(c); break;
    case 'z': r = c == 0; break; /* as old scripts write it */
    default: return class_ == c;
    }
    return isupper(class_) ? !r : r;
}

/* [set] from p to its last ']'. */
static bool match_set(int c, const char *p, const char *last)
{
    bool found = true;

    if (p[1] == '^') {
        found = false;
        p++;
    }
    while (++p < last) {
        if (*p == '%') {
            p++;
            if (match_class(c, (unsigned char)*p))
                return found;
        } else if (p[1] == '-' && p + 2 < last) {
            p += 2;
            if ((unsigned char)p[-2] <= c && c <= (unsigned char)*p)
                return found;
        } else if ((unsigned char)*p == c) {
            return found;
        }
    }
    return !found;
}

static bool match_single(struct match *m, const char *s, const char *p, const char *ep)
{
    if (s >= m->end)
        return false;
    int c = (unsigned char)*s;
    switch (*p) {
    case '.': return true;
    case '%': return match_class(c, (unsigned char)p[1]);
    case '[': count_steps(m, (uint64_t)(ep - p) / 4); return match_set(c, p, ep - 1);
    default: return (unsigned char)*p == c;
    }
}

static const char *do_match(struct match *m, const char *s, const char *p);

static const char *match_balance(struct match *m, const char *s, const char *p)
{
    if (p >= m->pattern_end - 1)
        luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    if (s >= m->end || *s != *p)
        return NULL;
    char open = p[0], close = p[1];
    int level = 1;
    while (++s < m->end) {
        count_steps(m, 1);
        if (*s == close) {
            if (--level == 0)
                return s + 1;
        } else if (*s == open) {
            level++;
        }
    }
    return NULL;
}

static const char *match_longest(struct match *m, const char *s, const char *p, const char *ep)
{
    ptrdiff_t i = 0;

    while (match_single(m, s + i, p, ep))
        i++;
    count_steps(m, (uint64_t)i);
    for (; i >= 0; i--) {
        const char *r = do_match(m, s + i, ep + 1);
        if (r)
            return r;
    }
    return NULL;
}

static const char *match_shortest(struct match *m, const char *s, const char *p, const char *ep)
{
    for (;;) {
        const char *r = do_match(m, s, ep + 1);
        if (r)
            return r;
        if (!match_single(m, s, p, ep))
            return NULL;
        s++;
    }
}

static const char *open_capture(struct match *m, const char *s, const char *p, ptrdiff_t what)
{
    if (m->n_captures >= MAX_CAPTURES)
        luaL_error(m->L, "too many captures");
    m->capture[m->n_captures].at = s;
    m->capture[m->n_captures].n = what;
    m->n_captures++;
    const char *r = do_match(m, s, p);
    if (!r)
        m->n_captures--;
    return r;
}

static const char *close_capture(struct match *m, const char *s, const char *p)
{
    int l = capture_to_close(m);

    m->capture[l].n = s - m->capture[l].at;
    const char *r = do_match(m, s, p);
    if (!r)
        m->capture[l].n = CAPTURE_OPEN;
    return r;
}

static const char *match_capture(struct match *m, const char *s, int l)
{
    l = check_capture(m, l);
    size_t n = (size_t)m->capture[l].n;
    if (m->capture[l].n == CAPTURE_POSITION || (size_t)(m->end - s) < n)
        return NULL;
    count_steps(m, n / 16);
    return memcmp(m->capture[l].at, s, n) == 0 ? s + n : NULL;
}

/* %f[set] */
static bool at_frontier(struct match *m, const char *s, const char *p, const char **ret_end)
{
    if (p >= m->pattern_end || *p != '[')
        luaL_error(m->L, "missing '[' after '%%f' in pattern");
    const char *ep = class_end(m, p);
    int before = s == m->subject ? 0 : (unsigned char)s[-1];
    int here = s == m->end ? 0 : (unsigned char)*s;
    *ret_end = ep;
    return !match_set(before, p, ep - 1) && match_set(here, p, ep - 1);
}

/* One item of the pattern that is not the last of its kind: 1 go on at *s, *p; 0 *ret is the
 * result. */
static bool match_item(struct match *m, const char **s, const char **p, const char **ret)
{
    const char *ep = class_end(m, *p);
    char suffix = ep < m->pattern_end ? *ep : '\0';

    switch (suffix) {
    case '*': *ret = match_longest(m, *s, *p, ep); return false;
    case '-': *ret = match_shortest(m, *s, *p, ep); return false;
    case '+':
        *ret = match_single(m, *s, *p, ep) ? match_longest(m, *s + 1, *p, ep) : NULL;
        return false;
    case '?':
        if (match_single(m, *s, *p, ep) && (*ret = do_match(m, *s + 1, ep + 1)))
            return false;
        *p = ep + 1;
        return true;
    default:
        *ret = NULL;
        if (!match_single(m, *s, *p, ep))
            return false;
        ++*s;
        *p = ep;
        return true;
    }
}

/* Items that begin with '%' and are no class: 1 went on, 0 *ret is the result, -1 none of them. */
static int match_escape(struct match *m, const char **s, const char **p, const char **ret)
{
    const char *after = *p + 2;

    *ret = NULL;
    if (*p + 1 >= m->pattern_end)
        return -1;
    switch ((*p)[1]) {
    case 'b':
        if (!(*s = match_balance(m, *s, after)))
            return 0;
        *p = after + 2;
        return 1;
    case 'f':
        if (!at_frontier(m, *s, after, p))
            return 0;
        return 1;
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        if (!(*s = match_capture(m, *s, (unsigned char)(*p)[1])))
            return 0;
        *p = after;
        return 1;
    default: return -1;
    }
}

static const char *match_from(struct match *m, const char *s, const char *p)
{
    const char *r = NULL;

    while (p != m->pattern_end) {
        count_steps(m, 1);
        if (*p == '(') {
            bool position = p + 1 < m->pattern_end && p[1] == ')';
            return open_capture(m, s, position ? p + 2 : p + 1,
                                position ? CAPTURE_POSITION : CAPTURE_OPEN);
        }
        if (*p == ')')
            return close_capture(m, s, p + 1);
        if (*p == '$' && p + 1 == m->pattern_end)
            return s == m->end ? s : NULL;
        if (*p == '%') {
            int e = match_escape(m, &s, &p, &r);
            if (e == 0)
                return r;
            if (e == 1)
                continue;
        }
        if (!match_item(m, &s, &p, &r))
            return r;
    }
    return s;
}

static const char *do_match(struct match *m, const char *s, const char *p)
{
    if (m->depth++ >= MAX_DEPTH)
        luaL_error(m->L, "pattern too complex");
    const char *r = match_from(m, s, p);
    m->depth--;
    return r;
}

/* ---- results -------------------------------------------------------------------------------- */

static void push_capture(struct match *m, int l, const char *s, const char *e)
{
    if (l >= m->n_captures) {
        if (l != 0)
            luaL_error(m->L, "invalid capture index %%%d", l + 1);
        lua_pushlstring(m->L, s, (size_t)(e - s)); /* the whole match */
        return;
    }
    ptrdiff_t n = m->capture[l].n;
    if (n == CAPTURE_OPEN)
        luaL_error(m->L, "unfinished capture");
    else if (n == CAPTURE_POSITION)
        lua_pushinteger(m->L, m->capture[l].at - m->subject + 1);
    else
        lua_pushlstring(m->L, m->capture[l].at, (size_t)n);
}

static int push_captures(struct match *m, const char *s, const char *e)
{
    int n = m->n_captures == 0 && s ? 1 : m->n_captures;

    luaL_checkstack(m->L, n, "too many captures");
    for (int i = 0; i < n; i++)
        push_capture(m, i, s, e);
    return n;
}

static void prepare(struct match *m, lua_State *L, struct str subject, struct str pattern)
{
    if (pattern.n > MAX_PATTERN)
        luaL_error(L, "the pattern is too long (over %d octets)", MAX_PATTERN);
    m->L = L;
    m->subject = subject.p;
    m->end = subject.p + subject.n;
    m->pattern = pattern.p;
    m->pattern_end = pattern.p + pattern.n;
    m->steps = 0;
    m->max_steps = STEPS_FREE + (uint64_t)STEPS_PER_OCTET * subject.n;
    m->depth = 0;
}

static const char *match_at(struct match *m, const char *s, const char *p)
{
    m->n_captures = 0;
    m->depth = 0;
    return do_match(m, s, p);
}

static struct str check_str(lua_State *L, int arg)
{
    size_t n;
    const char *p = luaL_checklstring(L, arg, &n);

    CHECK(p != NULL);
    return str_make(p, n);
}

static size_t start_position(lua_State *L, int arg, size_t n)
{
    lua_Integer at = luaL_optinteger(L, arg, 1);

    if (at > 0)
        return (size_t)at - 1;
    if (at == 0 || at < -(lua_Integer)n)
        return 0;
    return n - (size_t)-at;
}

static bool has_specials(struct str p)
{
    for (size_t i = 0; i < p.n; i++)
        if (p.p[i] && strchr("^$*+?.([%-", p.p[i]))
            return true;
    return false;
}

static int find_plain(lua_State *L, struct str s, struct str p, size_t init)
{
    ptrdiff_t at = str_find(str_from(s, init), p);

    if (at < 0) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)init + at + 1);
    lua_pushinteger(L, (lua_Integer)init + at + (lua_Integer)p.n);
    return 2;
}

static int find_or_match(lua_State *L, bool find)
{
    struct str s = check_str(L, 1), p = check_str(L, 2);
    size_t init = start_position(L, 3, s.n);
    struct match m;

    if (init > s.n) {
        lua_pushnil(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || !has_specials(p)))
        return find_plain(L, s, p, init);
    prepare(&m, L, s, p);
    bool anchor = p.n && *p.p == '^';
    for (const char *at = s.p + init; at <= m.end; at++) {
        const char *e = match_at(&m, at, p.p + anchor);
        if (e && find) {
            lua_pushinteger(L, at - s.p + 1);
            lua_pushinteger(L, e - s.p);
            return push_captures(&m, NULL, NULL) + 2;
        }
        if (e)
            return push_captures(&m, at, e);
        if (anchor)
            break;
    }
    lua_pushnil(L);
    return 1;
}

static int safe_find(lua_State *L)
{
    return find_or_match(L, true);
}

static int safe_match(lua_State *L)
{
    return find_or_match(L, false);
}

/* upvalues: subject, pattern, where to go on, end of the last match (an empty one there is not
 * taken) */
static int gmatch_step(lua_State *L)
{
    struct str s = lua_str(L, lua_upvalueindex(1)), p = lua_str(L, lua_upvalueindex(2));
    lua_Integer from = lua_tointeger(L, lua_upvalueindex(3));
    lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
    struct match m;

    prepare(&m, L, s, p);
    for (const char *at = s.p + from; at <= m.end; at++) {
        const char *e = match_at(&m, at, p.p);
        if (e && e - s.p != last) {
            lua_pushinteger(L, e - s.p);
            lua_copy(L, -1, lua_upvalueindex(3));
            lua_replace(L, lua_upvalueindex(4));
            return push_captures(&m, at, e);
        }
    }
    lua_pushinteger(L, (lua_Integer)s.n + 1);
    lua_replace(L, lua_upvalueindex(3));
    return 0;
}

static int safe_gmatch(lua_State *L)
{
    struct str s = check_str(L, 1);

    check_str(L, 2);
    size_t init = MIN(start_position(L, 3, s.n), s.n + 1);
    lua_settop(L, 2);
    lua_pushinteger(L, (lua_Integer)init);
    lua_pushinteger(L, -1);
    lua_pushcclosure(L, gmatch_step, 4);
    return 1;
}

/* Adds the replacement text with %0 to %9 filled in. */
static void add_text(struct match *m, luaL_Buffer *b, const char *s, const char *e)
{
    size_t n;
    const char *text = lua_tolstring(m->L, 3, &n);

    for (size_t i = 0; i < n; i++) {
        if (text[i] != '%') {
            luaL_addchar(b, text[i]);
            continue;
        }
        i++;
        char c = i < n ? text[i] : '\0';
        if (c == '%') {
            luaL_addchar(b, c);
        } else if (c == '0') {
            luaL_addlstring(b, s, (size_t)(e - s));
        } else if (ascii_digit(c)) {
            push_capture(m, c - '1', s, e);
            luaL_tolstring(m->L, -1, NULL);
            lua_remove(m->L, -2);
            luaL_addvalue(b);
        } else {
            luaL_error(m->L, "invalid use of '%%' in replacement string");
        }
    }
}

/* True when the match was replaced by something else. */
static bool add_value(struct match *m, luaL_Buffer *b, const char *s, const char *e, int type)
{
    lua_State *L = m->L;

    if (type == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        int n = push_captures(m, s, e);
        lua_call(L, n, 1);
    } else if (type == LUA_TTABLE) {
        push_capture(m, 0, s, e);
        lua_gettable(L, 3);
    } else {
        add_text(m, b, s, e);
        return true;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(b, s, (size_t)(e - s));
        return false;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(b);
    return true;
}

static int safe_gsub(lua_State *L)
{
    struct str s = check_str(L, 1), p = check_str(L, 2);
    int type = lua_type(L, 3);
    lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)s.n + 1), n = 0;
    bool anchor = p.n && *p.p == '^', changed = false;
    const char *at = s.p, *last = NULL;
    struct match m;
    luaL_Buffer b;

    luaL_argexpected(L,
                     type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
                         type == LUA_TTABLE,
                     3, "string/function/table");
    prepare(&m, L, s, p);
    luaL_buffinit(L, &b);
    while (n < max) {
        const char *e = match_at(&m, at, p.p + anchor);
        if (e && e != last) {
            n++;
            changed = add_value(&m, &b, at, e, type) || changed;
            at = last = e;
        } else if (at < m.end) {
            luaL_addchar(&b, *at++);
        } else {
            break;
        }
        if (anchor)
            break;
    }
    if (!changed) {
        lua_pushvalue(L, 1);
    } else {
        luaL_addlstring(&b, at, (size_t)(m.end - at));
        luaL_pushresult(&b);
    }
    lua_pushinteger(L, n);
    return 2;
}

static int safe_rep(lua_State *L)
{
    struct str s = check_str(L, 1);
    lua_Integer n = luaL_checkinteger(L, 2);
    size_t separator = 0, each, total;

    luaL_optlstring(L, 3, "", &separator);
    if (n > 0 && (__builtin_add_overflow(s.n, separator, &each) ||
                  __builtin_mul_overflow(each, (size_t)n, &total) || total > MAX_REPEATED))
        return luaL_error(L, "the result of string.rep is too large (over %d octets)",
                          MAX_REPEATED);
    if (n > MAX_REPEATED) /* of nothing */
        n = 0;
    lua_pushinteger(L, n);
    lua_replace(L, 2);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

/* ---- the table ------------------------------------------------------------------------------ */

/* Puts the functions into the table on top; `library` is Lua's. */
static void put_functions(lua_State *L, int library)
{
    static const luaL_Reg own[] = { { "find", safe_find },
                                    { "match", safe_match },
                                    { "gmatch", safe_gmatch },
                                    { "gsub", safe_gsub },
                                    { NULL, NULL } };
    static const char *const names[] = { "byte",     "char",    "format", "len",    "lower", "pack",
                                         "packsize", "reverse", "sub",    "unpack", "upper", NULL };

    luaL_setfuncs(L, own, 0);
    for (const char *const *name = names; *name; name++) {
        lua_getfield(L, library, *name);
        lua_setfield(L, -2, *name);
    }
    lua_getfield(L, library, "rep");
    lua_pushcclosure(L, safe_rep, 1);
    lua_setfield(L, -2, "rep");
}

/* Methods of strings find a table of their own, which scripts cannot reach. */
static void set_methods(lua_State *L, int library)
{
    lua_pushliteral(L, "");
    CHECK(lua_getmetatable(L, -1));
    lua_newtable(L);
    put_functions(L, library);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "string");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}

void strings_push(lua_State *L)
{
    luaL_requiref(L, "string", luaopen_string, 0);
    int library = lua_gettop(L);
    set_methods(L, library);
    lua_newtable(L);
    put_functions(L, library);
    lua_remove(L, library);
}
