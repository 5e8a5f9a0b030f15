/* bind_mime.c - tern.mime: words beyond ASCII in header fields, and back.
 *
 * Layer: lua. Interface: sandbox.h.
 */
#include "lua/sandbox.h"
#include "mail/encoded_word.h"

enum { MAX_TEXT = 64 * 1024 };

static struct str check_text(lua_State *L, const char *what)
{
    size_t n = 0;
    const char *p = luaL_checklstring(L, 1, &n);

    if (n > MAX_TEXT)
        vm_raise(L, "%s takes a text of at most 64 KiB", what);
    return str_make(p, n);
}

static int mime_encode(lua_State *L)
{
    struct str text = check_text(L, "tern.mime.encode");
    luaL_Buffer b;

    if (!str_is_utf8(text))
        return vm_raise(L, "tern.mime.encode takes a text in UTF-8");
    char *dst = luaL_buffinitsize(L, &b, ENCODED_WORD_ROOM(text.n));
    luaL_pushresultsize(&b, encoded_word_encode(text, 0, dst));
    return 1;
}

static int mime_decode(lua_State *L)
{
    struct str text = check_text(L, "tern.mime.decode");
    luaL_Buffer b;
    char *dst = luaL_buffinitsize(L, &b, DECODED_WORD_ROOM(text.n));

    luaL_pushresultsize(&b, encoded_word_decode(text, dst));
    return 1;
}

void bind_mime_push(lua_State *L)
{
    static const luaL_Reg functions[] = { { "encode", mime_encode },
                                          { "decode", mime_decode },
                                          { NULL, NULL } };

    luaL_newlib(L, functions);
    sandbox_seal(L, "tern.mime");
}
