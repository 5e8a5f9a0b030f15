/* cmd_test_files.c - `native` of lua/tern/sim.lua: files that a test writes, for maps. Layer: daemon.
 * Interface: cmd_test.h.
 *
 * They stand in front of those on the disk, at the place where a map of that name is looked for. */
#include <stdio.h>

#include "daemon/cmd_test.h"

struct test_text {
    struct list link;
    char *path;
    struct buf bytes; /* of one that is `gone`: none */
    bool gone;
    int64_t version;
};

static struct test_text *find(const struct test_run *run, const char *path)
{
    for (struct list *it = run->texts.next; it != &run->texts; it = it->next) {
        struct test_text *t = LIST_ENTRY(it, struct test_text, link);
        if (strcmp(t->path, path) == 0)
            return t;
    }
    return NULL;
}

static const struct test_run *run_of(const struct policy_files *files)
{
    return (const struct test_run *)(const void *)((const char *)files -
                                                   offsetof(struct test_run, files));
}

static int read_file(const struct policy_files *self, const char *path, bool secret,
                     struct buf *ret)
{
    const struct test_text *t = find(run_of(self), path);

    if (!t)
        return policy_files_disk.read(&policy_files_disk, path, secret, ret);
    if (t->gone)
        return -ENOENT;
    int r = buf_add_str(ret, buf_str(&t->bytes));
    return r == -EMSGSIZE ? -EFBIG : r;
}

static void file_state(const struct policy_files *self, const char *path,
                       struct policy_file_state *ret)
{
    const struct test_text *t = find(run_of(self), path);

    if (t)
        *ret = (struct policy_file_state){ .size = buf_len(&t->bytes), .changed_ns = t->version };
    else
        policy_files_disk.state(&policy_files_disk, path, ret);
}

void test_files_init(struct test_run *run)
{
    list_init(&run->texts);
    run->files = (struct policy_files){ .read = read_file, .state = file_state };
}

static void free_text(struct test_text *t)
{
    buf_done(&t->bytes);
    free(t->path);
    free(t);
}

void test_files_done(struct test_run *run)
{
    for (struct list *it; (it = list_pop(&run->texts));)
        free_text(LIST_ENTRY(it, struct test_text, link));
}

static struct test_text *text_at(struct test_run *run, const char *path)
{
    struct test_text *t = find(run, path);

    if (t)
        return t;
    t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    list_init(&t->link);
    buf_init(&t->bytes, 0);
    t->path = strdup(path);
    if (!t->path) {
        free(t);
        return NULL;
    }
    list_push(&run->texts, &t->link);
    return t;
}

static void tell_engines(struct test_run *run)
{
    LIST_FOREACH(it, &run->worlds)
    {
        struct test_world *w = LIST_ENTRY(it, struct test_world, link);
        for (int i = 0; i < sim_world_workers(w->sim); i++)
            if (sim_world_engine(w->sim, i))
                engine_policy_changed(sim_world_engine(w->sim, i));
    }
}

/* upvalue: the run. write_file(name, text or nil) -> nothing, or what is wrong with it. */
static int native_write_file(lua_State *L)
{
    struct test_run *run = lua_touserdata(L, lua_upvalueindex(1));
    struct policy_error err;
    char path[4096];
    size_t n = 0;
    const char *name = luaL_checkstring(L, 1), *text = luaL_optlstring(L, 2, NULL, &n);
    bool plain = *name == '/' || strcmp(run->folder, ".") == 0;

    int length =
        snprintf(path, sizeof path, "%s%s%s", plain ? "" : run->folder, plain ? "" : "/", name);
    if (length < 0 || (size_t)length >= sizeof path)
        return luaL_error(L, "the name of that file is too long");
    struct test_text *t = text_at(run, path);
    if (!t)
        return luaL_error(L, "out of memory");
    buf_clear(&t->bytes);
    if (text && buf_add(&t->bytes, text, n) < 0)
        return luaL_error(L, "out of memory");
    t->gone = !text;
    t->version = ++run->versions;
    int r = policy_vm_refresh_maps(run->vm, &err);
    tell_engines(run);
    if (r == 0)
        return 0;
    lua_pushstring(L, err.message);
    return 1;
}

void test_add_file_functions(struct test_run *run)
{
    lua_pushlightuserdata(run->L, run);
    lua_pushcclosure(run->L, native_write_file, 1);
    lua_setfield(run->L, -2, "write_file");
}
