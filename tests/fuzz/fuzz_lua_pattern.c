/* The matcher of scripts beside Lua's own: on what cannot explode, both find the same, or both raise an error. What
 * could explode is given to ours alone, which must come to an end (by its own count of steps), and only when the upper
 * five bits of the first byte are set.
 *
 * The input: a byte for the function, a byte for the third argument (the start, or how many replacements), then
 * pattern, subject and replacement, parted by 0x1e. */
#include <lauxlib.h>
#include <lualib.h>

#include "lua/sandbox.h"

enum { FIELD_END = 0x1e, SMALL = 40, REPEATS = 3, MAY_EXPLODE = 0xf8 };

static const char compare[] =
    "local own, ref = ...\n"
    "local function run(lib, how, s, p, at, r)\n"
    "  if how == 0 then return lib.find(s, p, at) end\n"
    "  if how == 1 then return lib.match(s, p, at) end\n"
    "  if how == 2 then\n"
    "    local all = {}\n"
    "    for a, b, c in lib.gmatch(s, p, at) do\n"
    "      all[#all + 1] = tostring(a) .. '|' .. tostring(b) .. '|' .. tostring(c)\n"
    "    end\n"
    "    return table.concat(all, '&')\n"
    "  end\n"
    "  if how == 3 then return lib.gsub(s, p, r, at) end\n"
    "  if how == 4 then\n"
    "    local all = {}\n"
    "    local text, n = lib.gsub(s, p, function(a, b)\n"
    "      all[#all + 1] = tostring(a) .. '|' .. tostring(b)\n"
    "      return b\n"
    "    end, at)\n"
    "    return text, n, table.concat(all, '&')\n"
    "  end\n"
    "  if how == 5 then return lib.gsub(s, p, { a = r, [r] = 'b', [1] = 2 }) end\n"
    "  if how == 6 then return lib.gsub(s, p, r) end\n"
    "  return lib.find(s, p, at, true)\n"
    "end\n"
    "return function(both, ...)\n"
    "  local x = table.pack(pcall(run, own, ...))\n"
    "  if not both then return true end\n"
    "  local y = table.pack(pcall(run, ref, ...))\n"
    "  if x[1] ~= y[1] then return false end\n"
    "  if not x[1] then return true end\n"
    "  for i = 1, math.max(x.n, y.n) do\n"
    "    if x[i] ~= y[i] then return false end\n"
    "  end\n"
    "  return x.n == y.n\n"
    "end\n";

/* The comparing function stays on the stack. */
static lua_State *begin(void)
{
    lua_State *L = luaL_newstate();

    CHECK(L);
    luaL_requiref(L, "_G", luaopen_base, 1);
    luaL_requiref(L, "table", luaopen_table, 1);
    luaL_requiref(L, "math", luaopen_math, 1);
    lua_settop(L, 0);
    CHECK(luaL_loadbufferx(L, compare, sizeof(compare) - 1, "=compare", "t") == LUA_OK);
    strings_push(L);
    luaL_requiref(L, "string", luaopen_string, 0);
    CHECK(lua_pcall(L, 2, 1, 0) == LUA_OK);
    return L;
}

static bool is_small(struct str pattern, struct str subject)
{
    size_t repeats = 0;

    for (size_t i = 0; i < pattern.n; i++)
        repeats += memchr("*+-?", pattern.p[i], 4) != NULL;
    return repeats <= REPEATS && pattern.n <= SMALL && subject.n <= SMALL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in, part[3] = { STR(""), STR(""), STR("") };

    if (size < 2)
        return 0;
    in = str_make(data + 2, size - 2);
    for (size_t i = 0; i < ARRAY_LEN(part) && str_cut(&in, FIELD_END, &part[i]); i++) {}
    bool small = is_small(part[0], part[1]);
    if (!small &&
        (data[0] & MAY_EXPLODE) != MAY_EXPLODE) /* most of the time goes to what is compared */
        return 0;
    lua_State *L = begin();
    lua_pushboolean(L, small);
    lua_pushinteger(L, data[0] % 8);
    lua_pushlstring(L, part[1].p ? part[1].p : "", part[1].n);
    lua_pushlstring(L, part[0].p ? part[0].p : "", part[0].n);
    lua_pushinteger(L, (int8_t)data[1]);
    lua_pushlstring(L, part[2].p ? part[2].p : "", part[2].n);
    CHECK(lua_pcall(L, 6, 1, 0) == LUA_OK);
    CHECK(lua_toboolean(L, -1));
    lua_close(L);
    return 0;
}
