/* bind_json.c - the module tern.json: encode and decode (RFC 8259), small and bounded.
 *
 * Layer: lua. Interface: sandbox.h. Buffers are Lua's own, so that an error loses nothing. A table
 * is an array when its keys are 1 to n, and an object when they are strings; {} is an object.
 * json.null stands for null.
 */
#include <math.h>
#include <stdio.h>

#include "base/str.h"
#include "lua/sandbox.h"

enum { MAX_DEPTH = 64, MAX_TEXT = 4 * 1024 * 1024 };

/* ---- encoding ------------------------------------------------------------------------------- */

/* The text so far; pieces are kept in a table at index 2 and joined at the end. */
struct encoder {
    lua_State *L;
    size_t size;
    lua_Integer n;
};

/* Takes the string on top. */
static void add_top(struct encoder *e)
{
    size_t n;

    lua_tolstring(e->L, -1, &n);
    e->size += n;
    if (e->size > MAX_TEXT)
        luaL_error(e->L, "json: the text is too long (over %d octets)", MAX_TEXT);
    lua_rawseti(e->L, 2, ++e->n);
}

static void add(struct encoder *e, const char *text)
{
    lua_pushstring(e->L, text);
    add_top(e);
}

static void add_string(struct encoder *e, struct str s)
{
    luaL_Buffer b;
    char hex[8];

    luaL_buffinit(e->L, &b);
    luaL_addchar(&b, '"');
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t n = c < 0x80 ? 1 : str_utf8_len(str_from(s, i));
        if (n == 0) {
            luaL_addstring(&b, "\\ufffd");
            n = 1;
        } else if (c == '"' || c == '\\') {
            luaL_addchar(&b, '\\');
            luaL_addchar(&b, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            snprintf(hex, sizeof(hex), "\\u%04x", c);
            luaL_addstring(&b, hex);
        } else {
            luaL_addlstring(&b, s.p + i, n);
        }
        i += n;
    }
    luaL_addchar(&b, '"');
    luaL_pushresult(&b);
    add_top(e);
}

static void add_number(struct encoder *e, int index)
{
    char text[40];

    if (lua_isinteger(e->L, index)) {
        snprintf(text, sizeof(text), "%lld", (long long)lua_tointeger(e->L, index));
    } else {
        lua_Number v = lua_tonumber(e->L, index);
        if (!isfinite(v))
            luaL_error(e->L, "json: a number that is not finite");
        snprintf(text, sizeof(text), "%.17g", v);
    }
    add(e, text);
}

static void add_value(struct encoder *e, int index, int depth);

/* 1 to n without gaps, and nothing else; n > 0. */
static bool is_array(lua_State *L, int index, lua_Integer *ret_n)
{
    lua_Integer count = 0, max = 0;

    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 1) {
            lua_pop(L, 1);
            return false;
        }
        count++;
        max = lua_tointeger(L, -1) > max ? lua_tointeger(L, -1) : max;
    }
    *ret_n = count;
    return count > 0 && count == max;
}

static void add_object(struct encoder *e, int index, int depth)
{
    const char *lead = "";

    add(e, "{");
    lua_pushnil(e->L);
    while (lua_next(e->L, index)) {
        if (lua_type(e->L, -2) != LUA_TSTRING)
            luaL_error(e->L, "json: a table with both names and numbers, or with gaps");
        add(e, lead);
        add_string(e, lua_str(e->L, -2));
        add(e, ":");
        add_value(e, lua_gettop(e->L), depth);
        lua_pop(e->L, 1);
        lead = ",";
    }
    add(e, "}");
}

static void add_table(struct encoder *e, int index, int depth)
{
    lua_Integer n;

    if (depth > MAX_DEPTH)
        luaL_error(e->L, "json: too deep (over %d levels)", MAX_DEPTH);
    luaL_checkstack(e->L, 8, "json: too deep");
    if (!is_array(e->L, index, &n)) {
        add_object(e, index, depth);
        return;
    }
    add(e, "[");
    for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1)
            add(e, ",");
        lua_rawgeti(e->L, index, i);
        add_value(e, lua_gettop(e->L), depth);
        lua_pop(e->L, 1);
    }
    add(e, "]");
}

static void add_value(struct encoder *e, int index, int depth)
{
    lua_State *L = e->L;

    switch (lua_type(L, index)) {
    case LUA_TNIL: add(e, "null"); break;
    case LUA_TBOOLEAN: add(e, lua_toboolean(L, index) ? "true" : "false"); break;
    case LUA_TNUMBER: add_number(e, index); break;
    case LUA_TSTRING: add_string(e, lua_str(L, index)); break;
    case LUA_TTABLE: add_table(e, index, depth + 1); break;
    case LUA_TLIGHTUSERDATA: add(e, "null"); break;
    default: luaL_error(L, "json: cannot encode a %s", luaL_typename(L, index));
    }
}

static int json_encode(lua_State *L)
{
    struct encoder e = { .L = L };
    luaL_Buffer b;

    luaL_checkany(L, 1);
    lua_settop(L, 1);
    lua_newtable(L);
    add_value(&e, 1, 0);
    luaL_buffinitsize(L, &b, e.size);
    for (lua_Integer i = 1; i <= e.n; i++) {
        lua_rawgeti(L, 2, i);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    return 1;
}

/* ---- decoding ------------------------------------------------------------------------------- */

/* Functions return NULL or what is wrong; on success the value is on top of the stack. */
struct decoder {
    lua_State *L;
    const char *p, *end;
};

static const char *decode_value(struct decoder *d, int depth);

static void skip_space(struct decoder *d)
{
    while (d->p < d->end && (*d->p == ' ' || *d->p == '\t' || *d->p == '\n' || *d->p == '\r'))
        d->p++;
}

static bool take(struct decoder *d, char c)
{
    skip_space(d);
    if (d->p >= d->end || *d->p != c)
        return false;
    d->p++;
    return true;
}

static bool take_word(struct decoder *d, struct str word)
{
    if (!str_starts(str_make(d->p, (size_t)(d->end - d->p)), word))
        return false;
    d->p += word.n;
    return true;
}

static int hex4(struct decoder *d)
{
    int v = 0;

    if (d->end - d->p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = ascii_lower(*d->p++);
        if (!ascii_digit(c) && (c < 'a' || c > 'f'))
            return -1;
        v = v * 16 + (ascii_digit(c) ? c - '0' : c - 'a' + 10);
    }
    return v;
}

static void add_utf8(luaL_Buffer *b, unsigned c)
{
    if (c < 0x80) {
        luaL_addchar(b, (char)c);
        return;
    }
    if (c < 0x800) {
        luaL_addchar(b, (char)(0xc0 | (c >> 6)));
    } else {
        if (c < 0x10000) {
            luaL_addchar(b, (char)(0xe0 | (c >> 12)));
        } else {
            luaL_addchar(b, (char)(0xf0 | (c >> 18)));
            luaL_addchar(b, (char)(0x80 | ((c >> 12) & 63)));
        }
        luaL_addchar(b, (char)(0x80 | ((c >> 6) & 63)));
    }
    luaL_addchar(b, (char)(0x80 | (c & 63)));
}

/* Behind "\u". */
static const char *decode_escape_u(struct decoder *d, luaL_Buffer *b)
{
    int c = hex4(d), low;

    if (c < 0)
        return "bad \\u in a string";
    if (c >= 0xd800 && c < 0xe000) {
        if (c >= 0xdc00 || !take_word(d, STR("\\u")) || (low = hex4(d)) < 0xdc00 || low >= 0xe000)
            return "a surrogate alone in a string";
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    add_utf8(b, (unsigned)c);
    return NULL;
}

/* Behind the first quote. */
static const char *decode_string(struct decoder *d)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    luaL_Buffer b;

    luaL_buffinit(d->L, &b);
    while (d->p < d->end && *d->p != '"') {
        char c = *d->p++;
        const char *at;
        if ((unsigned char)c < 0x20)
            return "a control character in a string";
        if (c != '\\') {
            luaL_addchar(&b, c);
        } else if (d->p < d->end && *d->p == 'u') {
            d->p++;
            const char *wrong = decode_escape_u(d, &b);
            if (wrong)
                return wrong;
        } else if (d->p < d->end && *d->p && (at = strchr(names, *d->p))) {
            luaL_addchar(&b, values[at - names]);
            d->p++;
        } else {
            return "a bad escape in a string";
        }
    }
    if (d->p >= d->end)
        return "a string without an end";
    d->p++;
    luaL_pushresult(&b);
    return NULL;
}

static const char *decode_number(struct decoder *d)
{
    const char *from = d->p;
    char text[64];

    while (d->p < d->end && (ascii_digit(*d->p) || strchr("+-.eE", *d->p)) && *d->p)
        d->p++;
    struct str s = str_make(from, (size_t)(d->p - from));
    const char *digits = s.p + (s.n && *s.p == '-');
    if (s.n == 0 || s.n >= sizeof(text) || digits == d->p || !ascii_digit(*digits) ||
        (*digits == '0' && digits + 1 < d->p && ascii_digit(digits[1])) || !ascii_digit(d->p[-1]))
        return "a bad number";
    str_copy(s, text, sizeof(text));
    return lua_stringtonumber(d->L, text) == s.n + 1 ? NULL : "a bad number";
}

static const char *decode_array(struct decoder *d, int depth)
{
    lua_Integer n = 0;

    lua_newtable(d->L);
    if (take(d, ']'))
        return NULL;
    do {
        const char *wrong = decode_value(d, depth);
        if (wrong)
            return wrong;
        lua_rawseti(d->L, -2, ++n);
    } while (take(d, ','));
    return take(d, ']') ? NULL : "an array without ']'";
}

static const char *decode_object(struct decoder *d, int depth)
{
    const char *wrong;

    lua_newtable(d->L);
    if (take(d, '}'))
        return NULL;
    do {
        if (!take(d, '"'))
            return "an object without a name";
        if ((wrong = decode_string(d)))
            return wrong;
        if (!take(d, ':'))
            return "an object without ':'";
        if ((wrong = decode_value(d, depth)))
            return wrong;
        lua_rawset(d->L, -3);
    } while (take(d, ','));
    return take(d, '}') ? NULL : "an object without '}'";
}

static const char *decode_value(struct decoder *d, int depth)
{
    if (depth > MAX_DEPTH)
        return "too deep";
    luaL_checkstack(d->L, 8, "json: too deep");
    if (take(d, '"'))
        return decode_string(d);
    if (take(d, '['))
        return decode_array(d, depth + 1);
    if (take(d, '{'))
        return decode_object(d, depth + 1);
    if (take_word(d, STR("true")))
        lua_pushboolean(d->L, 1);
    else if (take_word(d, STR("false")))
        lua_pushboolean(d->L, 0);
    else if (take_word(d, STR("null")))
        lua_pushlightuserdata(d->L, NULL);
    else
        return decode_number(d);
    return NULL;
}

/* The value; or nil and what is wrong. */
static int json_decode(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    struct decoder d = { .L = L, .p = text, .end = text + n };
    const char *wrong = n > MAX_TEXT ? "the text is too long" : decode_value(&d, 0);

    if (!wrong) {
        skip_space(&d);
        wrong = d.p < d.end ? "more behind the value" : NULL;
    }
    if (!wrong)
        return 1;
    lua_settop(L, 1);
    lua_pushnil(L);
    lua_pushfstring(L, "%s at octet %d", wrong, (int)(d.p - text) + 1);
    return 2;
}

void bind_json_push(lua_State *L)
{
    static const luaL_Reg functions[] = { { "encode", json_encode },
                                          { "decode", json_decode },
                                          { NULL, NULL } };

    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    sandbox_seal(L, "tern.json");
}
