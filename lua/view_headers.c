/* view_headers.c - message.headers: reading and changing. Interface: view.h. Layer: lua.
 *
 * Values are read from the bytes of the message; what is made of them lives in Lua. Changes are the
 * business of mail/headers.h, and who makes them is told with each: the line of the script.
 */
#include <stdio.h>

#include "lua/view.h"
#include "mail/encoded_word.h"

enum { MAX_PLACE = 128 };

/* The headers of the view at index 1, and the name at index 2. */
static struct headers *check_headers(lua_State *L, struct str *ret_name)
{
    struct task *task = view_check(L, VIEW_HEADERS);
    size_t n;
    const char *name = luaL_checklstring(L, 2, &n);

    *ret_name = str_make(name, n);
    return task->in.message->headers;
}

/* Which of that name, at `index`: 1 unless it is said; -1 is the last. */
static lua_Integer check_number(lua_State *L, int index)
{
    lua_Integer n = luaL_optinteger(L, index, 1);

    if (n == 0)
        vm_raise(L, "fields of a name are counted from 1 (and from the last one: -1)");
    return n;
}

/* ---- reading -------------------------------------------------------------------------------- */

struct str view_push_unfolded(lua_State *L, struct str value)
{
    luaL_Buffer b;
    char *out = luaL_buffinitsize(L, &b, value.n ? value.n : 1);
    size_t n = 0;

    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] != '\r' && value.p[i] != '\n')
            out[n++] = value.p[i];
    luaL_pushresultsize(&b, n);
    return lua_str(L, -1);
}

static void push_decoded(lua_State *L, struct str value)
{
    struct str unfolded = view_push_unfolded(L, value);
    luaL_Buffer b;
    char *out = luaL_buffinitsize(L, &b, DECODED_WORD_ROOM(unfolded.n));

    luaL_pushresultsize(&b, encoded_word_decode(unfolded, out));
}

/* The field that is asked for; NULL: there is none. */
static const struct header_field *asked_field(lua_State *L)
{
    struct str name;
    const struct headers *h = check_headers(L, &name);
    size_t at = headers_find(h, name, check_number(L, 3));

    return at < h->n ? &h->fields[at] : NULL;
}

static int headers_get_(lua_State *L)
{
    const struct header_field *f = asked_field(L);

    if (f)
        view_push_unfolded(L, f->value);
    else
        lua_pushnil(L);
    return 1;
}

static int headers_raw(lua_State *L)
{
    const struct header_field *f = asked_field(L);

    if (f)
        push_str(L, f->value);
    else
        lua_pushnil(L);
    return 1;
}

static int headers_decoded(lua_State *L)
{
    const struct header_field *f = asked_field(L);

    if (f)
        push_decoded(L, f->value);
    else
        lua_pushnil(L);
    return 1;
}

static int headers_all(lua_State *L)
{
    struct str name;
    const struct headers *h = check_headers(L, &name);
    lua_Integer n = 0;

    lua_newtable(L);
    for (size_t i = 0; i < h->n; i++)
        if (str_caseeq(h->fields[i].name, name)) {
            view_push_unfolded(L, h->fields[i].value);
            lua_rawseti(L, -2, ++n);
        }
    return 1;
}

static int headers_number(lua_State *L)
{
    struct str name;
    const struct headers *h = check_headers(L, &name);

    lua_pushinteger(L, (lua_Integer)headers_count(h, name));
    return 1;
}

/* The fields as they stood when it began: what is changed on the way does not disturb it. */
struct walk {
    size_t n, at;
    struct header_field fields[];
};

/* upvalues: the view, the walk */
static int walk_step(lua_State *L)
{
    struct walk *w = lua_touserdata(L, lua_upvalueindex(2));

    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    view_check(L, VIEW_HEADERS);
    if (w->at == w->n)
        return 0;
    const struct header_field *f = &w->fields[w->at++];
    push_str(L, f->name);
    view_push_unfolded(L, f->value);
    push_str(L, f->value);
    return 3;
}

static int headers_each(lua_State *L)
{
    const struct headers *h = view_check(L, VIEW_HEADERS)->in.message->headers;

    lua_settop(L, 1);
    struct walk *w = lua_newuserdatauv(L, sizeof(*w) + h->n * sizeof(w->fields[0]), 0);
    w->n = h->n;
    w->at = 0;
    if (h->n)
        memcpy(w->fields, h->fields, h->n * sizeof(w->fields[0]));
    lua_pushcclosure(L, walk_step, 2);
    return 1;
}

/* ---- changing ------------------------------------------------------------------------------- */

/* Who calls: "policies/spam.lua:12". */
static struct str place_of_caller(lua_State *L, char *dst)
{
    lua_Debug ar;

    if (!lua_getstack(L, 1, &ar))
        return STR_NONE;
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0)
        return STR_NONE;
    snprintf(dst, MAX_PLACE, "%s:%d", ar.short_src, ar.currentline);
    return str_of(dst);
}

/* The headers of the view at index 1, to be changed. `place` must live until that is done. */
static struct headers *check_edit(lua_State *L, struct str *ret_name, char *place)
{
    struct headers *h = check_headers(L, ret_name);

    if (((struct view *)lua_touserdata(L, 1))->task->hook != HOOK_DATA)
        vm_raise(L, "headers can be changed in the hook 'data' only");
    h->place = place_of_caller(L, place);
    h->why = NULL;
    return h;
}

static struct str check_value(lua_State *L)
{
    size_t n;
    const char *value = luaL_checklstring(L, 3, &n);

    return str_make(value, n);
}

/* Raises when the edit was refused. */
static void check_done(lua_State *L, struct headers *h, int r)
{
    h->place = STR_NONE;
    if (r == -ENOMEM)
        vm_raise_no_memory(L);
    if (r < 0)
        vm_raise(L, "the header cannot be changed: %s", h->why ? h->why : strerror(-r));
}

static int edit(lua_State *L, int (*change)(struct headers *, struct str, struct str))
{
    char place[MAX_PLACE];
    struct str name;
    struct headers *h = check_edit(L, &name, place);

    check_done(L, h, change(h, name, check_value(L)));
    return 0;
}

static int headers_add_(lua_State *L)
{
    return edit(L, headers_add);
}
static int headers_prepend_(lua_State *L)
{
    return edit(L, headers_prepend);
}
static int headers_set_(lua_State *L)
{
    return edit(L, headers_set);
}

static int headers_replace_(lua_State *L)
{
    char place[MAX_PLACE];
    struct str name;
    struct headers *h = check_edit(L, &name, place);
    struct str value = check_value(L);
    size_t at = headers_find(h, name, check_number(L, 4));

    if (at < h->n)
        check_done(L, h, headers_replace(h, at, name, value));
    lua_pushboolean(L, at < h->n);
    return 1;
}

static int headers_remove_(lua_State *L)
{
    char place[MAX_PLACE];
    struct str name;
    struct headers *h = check_edit(L, &name, place);
    size_t removed = 0;

    if (lua_isnoneornil(L, 3)) {
        check_done(L, h, headers_remove(h, name, &removed));
    } else {
        int r = headers_remove_at(h, headers_find(h, name, check_number(L, 3)));
        if (r != -ENOENT &&
            r != -EPERM) /* a Received of ours stays, as it does where all are removed */
            check_done(L, h, r);
        removed = r == 0;
    }
    lua_pushinteger(L, (lua_Integer)removed);
    return 1;
}

VIEW_METHOD(headers_get_)
VIEW_METHOD(headers_raw)
VIEW_METHOD(headers_decoded)
VIEW_METHOD(headers_all)
VIEW_METHOD(headers_number)
VIEW_METHOD(headers_each)
VIEW_METHOD(headers_add_)
VIEW_METHOD(headers_prepend_)
VIEW_METHOD(headers_set_)
VIEW_METHOD(headers_replace_)
VIEW_METHOD(headers_remove_)

const struct view_field view_headers_fields[] = {
    { "get", push_headers_get_, 0 },        { "raw", push_headers_raw, 0 },
    { "decoded", push_headers_decoded, 0 }, { "all", push_headers_all, 0 },
    { "count", push_headers_number, 0 },    { "each", push_headers_each, 0 },
    { "add", push_headers_add_, 0 },        { "prepend", push_headers_prepend_, 0 },
    { "set", push_headers_set_, 0 },        { "replace", push_headers_replace_, 0 },
    { "remove", push_headers_remove_, 0 },  { NULL, NULL, 0 },
};
