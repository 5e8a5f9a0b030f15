/* cmd_test.h - what the files of `tern test` share.
 *
 * Layer: daemon. cmd_test.c: the command line and the files. cmd_test_run.c: one file, its VM and its
 * tests. cmd_test_world.c, cmd_test_host.c and cmd_test_files.c: `native` of lua/tern/sim.lua.
 *
 * Ownership: a file has one VM; the worlds that are made in it belong to the run, not to Lua: those of a
 * test end with the test. Functions of `native` raise only where nothing is owned.
 */
#ifndef TERN_DAEMON_CMD_TEST_H
#define TERN_DAEMON_CMD_TEST_H

#include <lauxlib.h>
#include <lua.h>

#include "lua/policy.h"
#include "sim/world.h"

enum { TEST_MAX_SESSIONS = 64 };

/* A world that a test made. Lua holds its address in a userdata, which may outlive the world. */
struct test_world {
    struct list link;
    struct test_run *run;
    struct sim_world *sim;                /* NULL: it has ended with its test */
    int config;                           /* luaL_ref of the configuration */
    char where[256];                      /* where it stands: for messages */
    struct hooks *ready[SIM_MAX_WORKERS]; /* made for the next start */
    struct sim_session *sessions[TEST_MAX_SESSIONS];
    size_t n_sessions;
};

/* One test file. */
struct test_run {
    struct vm *vm;
    lua_State *L;
    uint64_t seed;
    bool echo; /* events to stderr */
    struct list worlds, ended;
    char folder[4096];         /* where the file is, and its maps */
    struct policy_files files; /* those that tests write, then the disk */
    struct list texts;
    int64_t versions;
};

struct test_totals {
    unsigned passed, failed;
};

/* Runs the file's tests and prints a line for each. A file that cannot be loaded counts as one failure. */
void test_file(const char *path, uint64_t seed, bool echo, const char *only,
               struct test_totals *totals);

/* Pushes the table `native`. */
void test_push_native(struct test_run *run);
void test_add_world_functions(lua_State *L); /* to the table on top */
void test_add_host_functions(lua_State *L);
void test_add_file_functions(struct test_run *run);
void test_files_init(struct test_run *run);
void test_files_done(struct test_run *run);
/* Argument `index` is a world that has not ended, and L is the main state; else raises. */
struct test_world *test_world_at(lua_State *L, int index);
/* Ends the worlds that were made behind the first `keep`. */
void test_end_worlds(struct test_run *run, size_t keep);
size_t test_count_worlds(const struct test_run *run);
void test_free_worlds(struct test_run *run); /* all of them, and what Lua's handles point to */

/* The table { code =, enhanced =, text = }. */
void test_push_reply(lua_State *L, const struct smtp_reply *reply, struct str why);
void test_set_str(lua_State *L, const char *key, struct str value);

#endif
