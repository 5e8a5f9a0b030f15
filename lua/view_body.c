/* view_body.c - message.body: pieces, lines, a digest. Interface: view.h. Layer: lua.
 *
 * One piece is in memory at a time, however large the message is: pieces that are staged are read from the
 * spool. Whoever reads much waits for the next turn after each BODY_TURN octets, so that other work goes on and
 * the budget of processor time, which counts between two waits, begins anew; where waiting is not possible
 * (in a coroutine of the script's own) the budget ends it.
 */
#include "crypto/digest.h"
#include "lua/view.h"

enum {
    DEFAULT_TEXT = 1024 * 1024,
    BODY_TURN = 1024 * 1024,
    LONGEST_LINE = 64 * 1024, /* longer ones come in parts */
};

static const char READING[] = "reading message.body";

bool view_next_piece(lua_State *L, struct task *task, uint64_t *cursor, struct str *ret)
{
    const struct message_view *m = task->in.message;
    int r = m->read_body(m, cursor, ret);

    if (r < 0)
        vm_raise(L, "the body cannot be read: %s", strerror(-r));
    if (r == 1)
        task->body_read += ret->n;
    return r == 1;
}

bool view_out_of_breath(lua_State *L, const struct task *task)
{
    return task->body_read >= BODY_TURN && task_can_wait(L);
}

static int body_size(lua_State *L, struct task *t)
{
    lua_pushinteger(L, (lua_Integer)t->in.message->body_size);
    return 1;
}

/* ---- pieces --------------------------------------------------------------------------------- */

static int push_piece(lua_State *L, struct task *task)
{
    struct view *v = lua_touserdata(L, 1);
    struct str piece;

    if (view_next_piece(L, task, &v->cursor, &piece))
        push_str(L, piece);
    else
        lua_pushnil(L);
    return 1;
}

int view_body_step(lua_State *L)
{
    struct task *task = view_check(L, VIEW_BODY);

    if (view_out_of_breath(L, task))
        return task_breathe(L, task, push_piece, READING);
    return push_piece(L, task);
}

/* Each view is an iterator of its own. */
static int body_chunks(lua_State *L)
{
    view_push(L, view_check(L, VIEW_BODY), VIEW_BODY);
    return 1;
}

static int body_text(lua_State *L)
{
    struct task *task = view_check(L, VIEW_BODY);
    lua_Integer max = luaL_optinteger(L, 2, DEFAULT_TEXT);
    uint64_t cursor = 0, n = 0;
    struct str piece;
    luaL_Buffer b;
    bool all = true;

    if (max < 0)
        return vm_raise(L, "body:text() needs a limit of at least 0");
    luaL_buffinit(L, &b);
    while (all && view_next_piece(L, task, &cursor, &piece)) {
        all = piece.n <= (uint64_t)max - n;
        piece = str_first(piece, (size_t)((uint64_t)max - n));
        luaL_addlstring(&b, piece.p, piece.n);
        n += piece.n;
    }
    luaL_pushresult(&b);
    lua_pushboolean(L, all);
    return 2;
}

/* ---- lines ---------------------------------------------------------------------------------- */

/* upvalues of its function */
enum { LINES_BODY = 1, LINES_CURSOR /* -1: all is read */, LINES_PIECE, LINES_AT };

static void lines_set(lua_State *L, int which, lua_Integer n)
{
    lua_pushinteger(L, n);
    lua_replace(L, lua_upvalueindex(which));
}

/* What is left and the next piece become the piece; false at the end. */
static bool lines_read(lua_State *L, struct task *task, struct str left)
{
    uint64_t cursor = (uint64_t)lua_tointeger(L, lua_upvalueindex(LINES_CURSOR));
    struct str piece;
    luaL_Buffer b;

    if (!view_next_piece(L, task, &cursor, &piece)) {
        lines_set(L, LINES_CURSOR, -1);
        return false;
    }
    char *p = luaL_buffinitsize(L, &b, left.n + piece.n + 1);
    if (left.n)
        memcpy(p, left.p, left.n);
    memcpy(p + left.n, piece.p, piece.n);
    luaL_pushresultsize(&b, left.n + piece.n);
    lua_replace(L, lua_upvalueindex(LINES_PIECE));
    lines_set(L, LINES_CURSOR, (lua_Integer)cursor);
    lines_set(L, LINES_AT, 0);
    return true;
}

/* Returns the line, and whether its end was seen, to the script. */
static int lines_give(lua_State *L, struct str line, lua_Integer next, bool whole)
{
    if (line.n && line.p[line.n - 1] == '\r' && whole)
        line.n--;
    push_str(L, line);
    lua_pushboolean(L, whole);
    lines_set(L, LINES_AT, next);
    return 2;
}

static int lines_go(lua_State *L, struct task *task)
{
    for (;;) {
        lua_Integer at = lua_tointeger(L, lua_upvalueindex(LINES_AT));
        struct str rest = str_from(lua_str(L, lua_upvalueindex(LINES_PIECE)), (size_t)at);
        ptrdiff_t lf = str_chr(rest, '\n');
        bool end = lua_tointeger(L, lua_upvalueindex(LINES_CURSOR)) < 0;
        if (lf >= 0 && lf <= LONGEST_LINE)
            return lines_give(L, str_first(rest, (size_t)lf), at + lf + 1, true);
        if (rest.n > LONGEST_LINE)
            return lines_give(L, str_first(rest, LONGEST_LINE), at + LONGEST_LINE, false);
        if (end && rest.n)
            return lines_give(L, rest, at + (lua_Integer)rest.n, true);
        if (end) {
            lua_pushnil(L);
            return 1;
        }
        if (view_out_of_breath(L, task))
            return task_breathe(L, task, lines_go, READING);
        lines_read(L, task, rest);
    }
}

static int lines_step(lua_State *L)
{
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(LINES_BODY));
    return lines_go(L, view_check(L, VIEW_BODY));
}

static int body_lines(lua_State *L)
{
    view_check(L, VIEW_BODY);
    lua_settop(L, 1);
    lua_pushinteger(L, 0);
    lua_pushliteral(L, "");
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, lines_step, 4);
    return 1;
}

/* ---- a digest ------------------------------------------------------------------------------- */

struct digesting {
    struct digest_run *run;
    uint64_t cursor;
};

static int digesting_gc(lua_State *L)
{
    struct digesting *d = lua_touserdata(L, 1);

    d->run = digest_free(d->run);
    return 0;
}

static struct digesting *push_digesting(lua_State *L)
{
    struct digesting *d = lua_newuserdatauv(L, sizeof(*d), 0);

    *d = (struct digesting){ .run = NULL };
    if (luaL_newmetatable(L, "digesting")) {
        lua_pushcfunction(L, digesting_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    d->run = digest_begin(DIGEST_SHA256);
    if (!d->run)
        vm_raise_no_memory(L);
    return d;
}

/* The stack: the body, the digest. */
static int sha256_go(lua_State *L, struct task *task)
{
    struct digesting *d = lua_touserdata(L, 2);
    uint8_t sum[DIGEST_SHA256_SIZE];
    char text[2 * DIGEST_SHA256_SIZE];
    struct str piece;

    while (view_next_piece(L, task, &d->cursor, &piece)) {
        if (digest_add(d->run, piece) < 0)
            return vm_raise(L, "the digest cannot be made");
        if (view_out_of_breath(L, task))
            return task_breathe(L, task, sha256_go, READING);
    }
    if (digest_end(d->run, sum) < 0)
        return vm_raise(L, "the digest cannot be made");
    for (size_t i = 0; i < sizeof(sum); i++) {
        text[2 * i] = "0123456789abcdef"[sum[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[sum[i] & 15];
    }
    lua_pushlstring(L, text, sizeof(text));
    return 1;
}

static int body_sha256(lua_State *L)
{
    struct task *task = view_check(L, VIEW_BODY);

    lua_settop(L, 1);
    push_digesting(L);
    return sha256_go(L, task);
}

VIEW_METHOD(body_chunks)
VIEW_METHOD(body_lines)
VIEW_METHOD(body_sha256)
VIEW_METHOD(body_text)

const struct view_field view_body_fields[] = {
    { "size", body_size, 0 },        { "chunks", push_body_chunks, 0 },
    { "lines", push_body_lines, 0 }, { "sha256", push_body_sha256, 0 },
    { "text", push_body_text, 0 },   { NULL, NULL, 0 },
};
