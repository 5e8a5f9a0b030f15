/* bind_map.c - the module tern.map: look-ups in files that reload by themselves. Layer: lua.
 *
 * Interface: sandbox.h, bind_map.h. A row becomes a policy when mail asks for it; what was made is kept,
 * for a bounded number of rows, in two generations: when the young one is full, the old one goes and the
 * young one takes its place. Both go when the file has changed.
 */
#include "lua/bind_map.h"

#include <stdio.h>

#include "lua/maps.h"
#include "lua/policies.h"
#include "lua/sandbox.h"
#include "lua/task.h"
#include "lua/value.h"

static const char map_type[] = "map";

enum {
    KEPT_ROWS = 1000, /* policies in one generation */
    MAX_VALUES = MAP_MAX_FIELDS,
};

/* User values. */
enum { MAP_POLICIES = 1, MAP_YOUNG, MAP_OLD, MAP_USER_VALUES = MAP_OLD };

enum rows { ROWS_PLAIN, ROWS_ONE_POLICY, ROWS_NAME_POLICY };

struct map_value {
    struct map_view *view; /* the VM's */
    enum rows rows;
    unsigned version; /* of what is kept */
    unsigned n_young;
    bool makes_any; /* some function may make policies with any hook */
};

bool map_value_is(lua_State *L, int index)
{
    return luaL_testudata(L, index, map_type) != NULL;
}

static struct map_value *to_map(lua_State *L, int index)
{
    return luaL_checkudata(L, index, map_type);
}

/* ---- looking up ------------------------------------------------------------------------------- */

static bool find_mail(lua_State *L, const struct map *m, struct str key, struct map_row *ret)
{
    char normal[MAP_MAX_KEY];
    ptrdiff_t n = map_key_normalize(map_keys(m), key, normal);

    if (n == -ENOMEM)
        vm_raise_no_memory(L);
    if (n < 0)
        return false;
    struct str name = str_make(normal, (size_t)n);
    return map_keys(m) == MAP_KEYS_MAIL ? map_find_mail(m, name, ret) : map_find(m, name, ret);
}

/* An address as text (with or without a port), or what session.client is. */
static bool find_net(lua_State *L, const struct map *m, int index, struct map_row *ret)
{
    struct net_addr addr;

    if (lua_type(L, index) == LUA_TTABLE) {
        lua_pushliteral(L, "address");
        lua_rawget(L, index);
        lua_replace(L, index);
    }
    if (lua_type(L, index) != LUA_TSTRING || net_addr_parse(lua_str(L, index), 0, &addr) < 0)
        vm_raise(L, "get() of a map of networks needs an IP address");
    return map_find_net(m, &addr, ret);
}

static int push_values(lua_State *L, struct str fields)
{
    struct str value;
    int n = 0;

    luaL_checkstack(L, MAX_VALUES, NULL);
    while (map_row_next(&fields, &value)) {
        push_str(L, value);
        n++;
    }
    if (n == 0)
        lua_pushboolean(L, 1);
    return n ? n : 1;
}

static int map_get(lua_State *L)
{
    const struct map *m = to_map(L, 1)->view->map;
    struct map_row row;
    bool found = false;

    lua_settop(L, 2);
    if (lua_isnil(L, 2))
        return 0;
    if (map_keys(m) == MAP_KEYS_NETS)
        found = find_net(L, m, 2, &row);
    else if (lua_type(L, 2) == LUA_TSTRING)
        found = find_mail(L, m, lua_str(L, 2), &row);
    else
        return vm_raise(L, "get() of a map needs a text");
    return found ? push_values(L, row.fields) : 0;
}

static int map_size(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)map_count(to_map(L, 1)->view->map));
    return 1;
}

/* ---- a row as an argument --------------------------------------------------------------------- */

/* "name=value": the name of an option. */
static bool option_of(struct str field, struct str *ret_name, struct str *ret_value)
{
    ptrdiff_t at = str_chr(field, '=');

    if (at <= 0 || !(ascii_alpha(*field.p) && *field.p == ascii_lower(*field.p)))
        return false;
    for (ptrdiff_t i = 0; i < at; i++)
        if (!ascii_digit(field.p[i]) && field.p[i] != '_' &&
            !(ascii_alpha(field.p[i]) && field.p[i] == ascii_lower(field.p[i])))
            return false;
    *ret_name = str_trim(str_first(field, (size_t)at));
    *ret_value = str_trim(str_from(field, (size_t)at + 1));
    return true;
}

/* As an option of a policy wants it. */
static void push_option(lua_State *L, struct str value)
{
    int64_t number;

    if (str_eq(value, STR("true")) || str_eq(value, STR("false")))
        lua_pushboolean(L, value.n == 4);
    else if (value.n < 18 && str_to_i64(value, &number) == 0)
        lua_pushinteger(L, number);
    else
        push_str(L, value);
}

/* The value on top into the table below it; a name that comes again makes a list. */
static void add_option(lua_State *L, struct str name)
{
    int table = lua_gettop(L) - 1;

    push_str(L, name);
    int type = lua_rawget(L, table);
    if (type == LUA_TTABLE) {
        lua_pushvalue(L, -2);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    } else if (type != LUA_TNIL) {
        lua_createtable(L, 2, 0);
        lua_insert(L, -2);
        lua_rawseti(L, -2, 1);
        lua_pushvalue(L, -2);
        lua_rawseti(L, -2, 2);
    } else {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
    }
    push_str(L, name);
    lua_insert(L, -2);
    lua_rawset(L, table);
    lua_settop(L, table);
}

/* Pushes the row as a function gets it: values in its array part, "name=value" as fields; and by its
 * metatable, out of the way of those who look at what stands in it, `key` and `policy`. */
static void push_row(lua_State *L, const struct map_row *row, struct str policy, struct str fields)
{
    struct str field, name, value;
    lua_Integer n = 0;

    luaL_checkstack(L, 8, NULL);
    lua_newtable(L);
    while (map_row_next(&fields, &field)) {
        if (option_of(field, &name, &value)) {
            push_option(L, value);
            add_option(L, name);
        } else if (field.n) {
            push_str(L, field);
            lua_rawseti(L, -2, ++n);
        }
    }
    lua_createtable(L, 0, 2);
    lua_createtable(L, 0, 2);
    push_str(L, row->key);
    lua_setfield(L, -2, "key");
    push_str_or_nil(L, policy);
    lua_setfield(L, -2, "policy");
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "row");
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
}

/* ---- a row as a policy ------------------------------------------------------------------------ */

/* What is wrong with a row is on top: raises it with the row's place. */
static int row_fault(lua_State *L, const struct map_view *view, const struct map_row *row)
{
    lua_pushfstring(L, "%s:%d: ", view->file->name, (int)map_line(view->map, row));
    luaL_tolstring(L, -2, NULL);
    lua_concat(L, 2);
    return lua_error(L);
}

/* Checks the policy on top as one that stands in the configuration is. */
static bool check_made(lua_State *L)
{
    if (lua_isnil(L, -1) || value_to_route(L, -1))
        return true;
    vm_push_validate(L, "policy");
    lua_pushvalue(L, -2);
    lua_call(L, 1, 2);
    if (lua_isnil(L, -2))
        return false; /* the message is on top */
    lua_pop(L, 2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, SLOT_MARKS);
    lua_pushvalue(L, -2);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    return true;
}

/* The function on top makes the policy of the row, which takes its place; or nil. */
static void make_policy(lua_State *L, const struct map_view *view, const struct map_row *row,
                        struct str policy, struct str fields)
{
    push_row(L, row, policy, fields);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK || !check_made(L))
        row_fault(L, view, row);
}

/* Pushes what was made of that row, or pushes nothing. nil that was made is kept as false. */
static bool push_kept(lua_State *L, int map, const struct map_row *row)
{
    for (int slot = MAP_YOUNG; slot <= MAP_OLD; slot++) {
        if (lua_getiuservalue(L, map, slot) == LUA_TTABLE) {
            lua_rawgeti(L, -1, (lua_Integer)row->at);
            lua_remove(L, -2);
            if (!lua_isnil(L, -1))
                return true;
        }
        lua_pop(L, 1);
    }
    return false;
}

/* Pushes the young generation, a new one when there is none or it is full. */
static void push_young(lua_State *L, int map, struct map_value *v)
{
    if (lua_getiuservalue(L, map, MAP_YOUNG) == LUA_TTABLE && v->n_young < KEPT_ROWS)
        return;
    lua_setiuservalue(L, map, MAP_OLD);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, map, MAP_YOUNG);
    v->n_young = 0;
}

/* Keeps the policy on top, which stays. */
static void keep(lua_State *L, int map, struct map_value *v, const struct map_row *row)
{
    push_young(L, map, v);
    if (lua_isnil(L, -2))
        lua_pushboolean(L, 0);
    else
        lua_pushvalue(L, -2);
    lua_rawseti(L, -2, (lua_Integer)row->at);
    lua_pop(L, 1);
    v->n_young++;
}

/* What was made of rows of a former version goes. */
static void forget_former(lua_State *L, int map, struct map_value *v)
{
    if (v->version == v->view->version)
        return;
    for (int slot = MAP_YOUNG; slot <= MAP_OLD; slot++) {
        lua_pushnil(L);
        lua_setiuservalue(L, map, slot);
    }
    v->version = v->view->version;
    v->n_young = 0;
}

/* Pushes what `policies` has for the row, and cuts the policy's name from *fields. */
static void push_given(lua_State *L, int map, const struct map_value *v, struct str *fields,
                       struct str *ret_name)
{
    *ret_name = STR_NONE;
    if (v->rows == ROWS_NAME_POLICY)
        map_row_next(fields, ret_name);
    lua_getiuservalue(L, map, MAP_POLICIES);
    push_str(L, *ret_name);
    lua_rawget(L, -2);
    lua_remove(L, -2);
}

/* Puts the policy of the row, or nil, on top. False: there is a function on top, of that name, which must
 * make it of the fields. */
static bool push_made(lua_State *L, int map, struct map_value *v, const struct map_row *row,
                      struct str *ret_name, struct str *ret_fields)
{
    *ret_fields = row->fields;
    push_given(L, map, v, ret_fields, ret_name);
    if (!lua_isfunction(L, -1))
        return true;
    forget_former(L, map, v);
    if (!push_kept(L, map, row))
        return false;
    if (lua_isboolean(L, -1))
        lua_pushnil(L);
    return true;
}

/* Puts the policy of the row, or nil, on top. */
static void push_policy(lua_State *L, int map, struct map_value *v, const struct map_row *row)
{
    struct str name, fields;

    if (push_made(L, map, v, row, &name, &fields))
        return;
    make_policy(L, v->view, row, name, fields);
    keep(L, map, v, row);
}

/* For who observes a chain (`tern explain`): which row it was. */
static void note_row(lua_State *L, const struct map_value *v, const struct map_row *row)
{
    struct task *task = vm_of(L)->current;
    struct policies *p = task ? task->policies : NULL;

    if (p && p->observer)
        snprintf(p->observed_key, sizeof(p->observed_key), STR_FMT " %.100s:%u",
                 STR_ARG(str_first(row->key, 160)), v->view->file->name,
                 map_line(v->view->map, row));
}

/* The name is in normal form, as those of mail are. */
static bool find_row(const struct map_value *v, struct str name, struct map_row *ret)
{
    return map_find_mail(v->view->map, name.n ? name : STR("<>"), ret);
}

/* upvalue 1: the map; name -> policy or nil. */
static int look_up(lua_State *L)
{
    const int map = lua_upvalueindex(1);
    struct map_value *v = lua_touserdata(L, map);
    struct map_row row;

    if (!find_row(v, lua_str(L, 1), &row))
        return 0;
    note_row(L, v, &row);
    lua_pushvalue(L, map);
    push_policy(L, lua_gettop(L), v, &row);
    return 1;
}

void map_value_push_lookup(lua_State *L, int index)
{
    lua_pushvalue(L, index);
    lua_pushcclosure(L, look_up, 1);
}

bool map_value_find_made(lua_State *L, int index, struct str name)
{
    int top = lua_gettop(L);
    struct str policy, fields;
    struct map_row row;

    lua_getupvalue(L, index, 1);
    struct map_value *v = lua_touserdata(L, -1);
    if (!find_row(v, name, &row)) {
        lua_pushnil(L);
    } else if (!push_made(L, top + 1, v, &row, &policy, &fields)) {
        lua_settop(L, top);
        return false;
    }
    lua_replace(L, top + 1);
    lua_settop(L, top + 1);
    return true;
}

void map_value_push_policies(lua_State *L, int index, bool made)
{
    if (lua_getiuservalue(L, index, made ? MAP_YOUNG : MAP_POLICIES) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    lua_newtable(L);
}

bool map_value_makes_any(lua_State *L, int index)
{
    return to_map(L, index)->makes_any;
}

const char *map_value_unusable(lua_State *L, int index)
{
    const struct map_value *v = to_map(L, index);

    if (v->rows != ROWS_PLAIN)
        return NULL;
    if (map_keys(v->view->map) == MAP_KEYS_NETS)
        return "is a map of networks: write tern.map.file(\"...\", { policies = { ... } })";
    return "is a map without policies: write tern.map.file(\"...\", { policies = { ... } }), or "
           "{ policy = ... } for a list of names";
}

/* ---- trying ----------------------------------------------------------------------------------- */

static bool first_row_of(const struct map_value *v, struct str policy, struct map_row *ret)
{
    size_t cursor = 0;

    while (map_next(v->view->map, &cursor, ret)) {
        struct str fields = ret->fields, name = STR_NONE;
        if (v->rows == ROWS_NAME_POLICY)
            map_row_next(&fields, &name);
        if (str_eq(name, policy))
            return true;
    }
    return false;
}

/* The functions that tern.policy made give policies of one kind; of others nothing is known. */
static void try_one(lua_State *L, int map, struct map_value *v, struct str name, bool guarded)
{
    struct map_row row;

    if (!first_row_of(v, name, &row)) {
        v->makes_any = true;
        return;
    }
    v->makes_any |= !guarded;
    push_policy(L, map, v, &row);
}

void map_value_try(lua_State *L, int index)
{
    struct map_value *v = to_map(L, index);
    int map = lua_absindex(L, index), top = lua_gettop(L);

    v->makes_any = false;
    lua_getiuservalue(L, map, MAP_POLICIES);
    lua_pushnil(L);
    while (lua_next(L, top + 1)) {
        if (lua_isfunction(L, -1))
            try_one(L, map, v, lua_str(L, top + 2), native_is_guarded(L, -1));
        lua_settop(L, top + 2);
    }
    lua_settop(L, top);
}

/* ---- the module ------------------------------------------------------------------------------- */

/* 2: the options in normal form */
static enum rows rows_of(lua_State *L)
{
    if (lua_getfield(L, 2, "policies") == LUA_TTABLE) {
        lua_pop(L, 1);
        return ROWS_NAME_POLICY;
    }
    lua_pop(L, 1);
    bool one = lua_getfield(L, 2, "policy") != LUA_TNIL;
    lua_pop(L, 1);
    return one ? ROWS_ONE_POLICY : ROWS_PLAIN;
}

static void open_failed(lua_State *L, int r, const char *what, const struct policy_error *err)
{
    if (r == -ENOMEM)
        vm_raise_no_memory(L);
    if (r == -EBUSY)
        vm_raise(L,
                 "%s(\"%s\"): files are opened while the configuration is loaded, not inside of a "
                 "hook (write it at the top of the file)",
                 what, lua_tostring(L, 1));
    lua_pushstring(L, err->message);
    raise_fault(L, err->exit_code);
}

/* The policies' names, which stay alive in the table on top. */
static void check_names(lua_State *L, struct map_view *view)
{
    struct policy_error err;
    size_t n = 0;

    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
        n++;
    struct str *names = lua_newuserdatauv(L, MAX(n, (size_t)1) * sizeof(*names), 0);
    n = 0;
    for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1))
        names[n++] = lua_str(L, -2);
    int r = map_view_check(vm_of(L), view, names, n, &err);
    if (r < 0)
        open_failed(L, r, "tern.map.file", &err);
    lua_pop(L, 1);
}

/* 1: path, 2: options in normal form, 3: the new value. Leaves the table of policies in it. */
static void take_policies(lua_State *L, struct map_value *v)
{
    if (v->rows == ROWS_PLAIN)
        return;
    if (v->rows == ROWS_ONE_POLICY) {
        lua_createtable(L, 0, 1);
        lua_pushliteral(L, "");
        lua_getfield(L, 2, "policy");
        lua_rawset(L, -3);
    } else {
        lua_getfield(L, 2, "policies");
        check_names(L, v->view);
    }
    lua_setiuservalue(L, 3, MAP_POLICIES);
}

/* 1: path, 2: options in normal form or nil */
static int open_map(lua_State *L, const char *what, enum map_keys keys, enum rows rows)
{
    struct policy_error err;
    struct map_view *view;
    int r = map_view_open(vm_of(L), lua_str(L, 1), keys, &view, &err);

    if (r < 0)
        open_failed(L, r, what, &err);
    struct map_value *v = lua_newuserdatauv(L, sizeof(*v), MAP_USER_VALUES); /* 3 */
    *v = (struct map_value){ .view = view, .rows = rows, .version = view->version };
    luaL_setmetatable(L, map_type);
    take_policies(L, v);
    return 1;
}

static void check_path(lua_State *L, const char *what)
{
    if (lua_type(L, 1) != LUA_TSTRING || lua_rawlen(L, 1) == 0 || str_chr(lua_str(L, 1), '\0') >= 0)
        vm_raise(L, "%s needs the name of a file, as in %s \"%s\"", what, what,
                 strcmp(what, "tern.map.cidr") == 0 ? "nets.txt" : "domains.csv");
}

static int map_file(lua_State *L)
{
    lua_settop(L, 2);
    check_path(L, "tern.map.file");
    vm_push_validate(L, "map_options");
    lua_insert(L, 2);
    lua_call(L, 1, 2);
    if (lua_isnil(L, 2))
        return vm_raise_top(L);
    lua_settop(L, 2);
    lua_getfield(L, 2, "keys");
    bool text = lua_type(L, -1) == LUA_TSTRING && str_eq(lua_str(L, -1), STR("text"));
    lua_settop(L, 2);
    return open_map(L, "tern.map.file", text ? MAP_KEYS_TEXT : MAP_KEYS_MAIL, rows_of(L));
}

static int map_cidr(lua_State *L)
{
    check_path(L, "tern.map.cidr");
    lua_settop(L, 1);
    lua_pushnil(L);
    return open_map(L, "tern.map.cidr", MAP_KEYS_NETS, ROWS_PLAIN);
}

static int map_text(lua_State *L)
{
    const struct map_value *v = to_map(L, 1);

    lua_pushfstring(L, "map of %s", v->view->file->name);
    return 1;
}

void bind_map_push(lua_State *L)
{
    static const luaL_Reg methods[] = { { "get", map_get }, { "count", map_size }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "file", map_file },
                                          { "cidr", map_cidr },
                                          { NULL, NULL } };

    luaL_newmetatable(L, map_type);
    luaL_newlib(L, methods);
    sandbox_seal(L, "map");
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, map_text);
    lua_setfield(L, -2, "__tostring");
    lua_pushstring(L, map_type);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);

    luaL_newlib(L, functions);
    sandbox_seal(L, "tern.map");
}
