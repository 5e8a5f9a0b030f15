/* view_parts.c - message:parts(). Interface: view.h. Layer: lua. */
#include "lua/view.h"
#include "mail/parts.h"

struct walking {
    struct parts *parts;
    uint64_t cursor;
};

static int walking_gc(lua_State *L)
{
    struct walking *w = lua_touserdata(L, 1);

    w->parts = parts_free(w->parts);
    return 0;
}

/* Pushes the unfolded value of the first field of that name. */
static struct str push_field(lua_State *L, const struct headers *h, struct str name)
{
    const struct header_field *f = headers_get(h, name, 0);

    return view_push_unfolded(L, f ? f->value : STR(""));
}

static void push_walking(lua_State *L, const struct headers *h)
{
    struct walking *w = lua_newuserdatauv(L, sizeof(*w), 0);

    *w = (struct walking){ .parts = NULL };
    if (luaL_newmetatable(L, "walking")) {
        lua_pushcfunction(L, walking_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    struct str type = push_field(L, h, STR("Content-Type"));
    struct str disposition = push_field(L, h, STR("Content-Disposition"));
    struct str encoding = push_field(L, h, STR("Content-Transfer-Encoding"));
    w->parts = parts_new(type, disposition, encoding);
    if (!w->parts)
        vm_raise_no_memory(L);
    lua_pop(L, 3);
}

static void set_text(lua_State *L, const char *name, struct str s)
{
    push_str_or_nil(L, s);
    lua_setfield(L, -2, name);
}

static int push_parts(lua_State *L, const struct parts *p)
{
    size_t n = parts_count(p);

    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        const struct part *part = parts_at(p, i);
        lua_createtable(L, 0, 6);
        set_text(L, "type", part->type);
        set_text(L, "filename", part->name);
        set_text(L, "disposition", part->disposition);
        set_text(L, "encoding", part->encoding);
        lua_pushinteger(L, (lua_Integer)part->size);
        lua_setfield(L, -2, "size");
        lua_pushinteger(L, part->depth);
        lua_setfield(L, -2, "depth");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushboolean(L, parts_complete(p));
    return 2;
}

/* The stack: the message, the walk. */
static int parts_go(lua_State *L, struct task *task)
{
    struct walking *w = lua_touserdata(L, 2);
    struct str piece;

    while (view_next_piece(L, task, &w->cursor, &piece)) {
        if (parts_look(w->parts, piece) < 0)
            return vm_raise_no_memory(L);
        if (view_out_of_breath(L, task))
            return task_breathe(L, task, parts_go, "reading message:parts()");
    }
    if (parts_end(w->parts) < 0)
        return vm_raise_no_memory(L);
    return push_parts(L, w->parts);
}

int view_message_parts(lua_State *L)
{
    struct task *task = view_check(L, VIEW_MESSAGE);
    const struct message_view *m = task->in.message;

    if (!m->headers || !m->read_body)
        return vm_raise(
            L, "message:parts() needs the content, which is there from the hook 'data' on");
    lua_settop(L, 1);
    push_walking(L, m->headers);
    return parts_go(L, task);
}
