/* policy.h - a configuration file and its policies: loading, checking, and one Lua VM per worker.
 *
 * Layer: lua. This is all that the daemon needs of this folder. In order of use:
 *
 *     policy_load(path, &options, &source, &settings, &err)      once per (re)load, main thread
 *     policy_vm_new(source, settings, ports, &hooks, &err)       once per worker
 *     snapshot_new(generation, settings_ref(settings), hooks)    the worker runs hooks
 *     hooks->free(hooks)                                         by the last user of the snapshot
 *     policy_source_unref(source), settings_unref(settings)
 *
 * `tern test` has its configurations as Lua values inside a VM of its own: policy_vm_bare,
 * policy_from_value.
 */
#ifndef TERN_LUA_POLICY_H
#define TERN_LUA_POLICY_H

#include "engine/hook.h"
#include "engine/settings.h"
#include "lua/files.h"

struct lua_State;
struct policy_source;
struct vm;

/* Classes of failure, as exit codes (sysexits.h). */
enum {
    POLICY_EX_SOFTWARE = 70, /* out of memory, a bug of ours */
    POLICY_EX_NOINPUT = 66,  /* a file is missing or cannot be read */
    POLICY_EX_NOPERM = 77,   /* a file may not be read, or a secret is open to others */
    POLICY_EX_CONFIG = 78,   /* anything that is wrong in what was read */
};

struct policy_error {
    int exit_code;
    int line;           /* 0: unknown */
    char file[256];     /* as in the message; "" when unknown */
    char message[1024]; /* "tern.lua:12: unknown key 'hostnam' in the configuration; did ..." */
    char detail[2048];  /* a traceback, for errors raised by scripts; else "" */
};

/* All zero is the default. */
struct policy_options {
    const struct policy_files *files; /* NULL: the disk */
    /* Further folders to find modules in, after the file's own; NULL ends. */
    const char *const *paths;
    size_t memory;                /* bytes a VM may hold while loading; 0: 512 MiB */
    unsigned load_ms;             /* processor time that loading may take; 0: 10 s */
    unsigned cpus;                /* what workers = "auto" is; 0: asks the system */
    struct port_journal *journal; /* for print and tern.log while loading; NULL: dropped */
};

/* All text of one load (the file, each module it required, secrets), unchanging once loaded and
 * counted atomically: every worker builds its VM from the same bytes. */
struct policy_source *policy_source_ref(struct policy_source *s);
struct policy_source *policy_source_unref(struct policy_source *s); /* returns NULL; NULL is fine */
bool policy_source_is_last(const struct policy_source *s); /* nobody else has a reference */
uint64_t policy_source_fingerprint(const struct policy_source *s);
/* Each file that it was read from, secrets and maps among them, until cb returns something else than 0, which is
 * returned. */
typedef int policy_file_cb(void *owner, const char *path);
int policy_source_files(const struct policy_source *s, policy_file_cb *cb, void *owner);

/* Reads and checks config_path in a VM that is thrown away. 0: both outputs carry one reference.
 * Else -errno (-ENOENT, -EACCES, -EINVAL: what it says is wrong, -ENOMEM) and *err is filled in. */
int policy_load(const char *config_path, const struct policy_options *options,
                struct policy_source **ret, struct settings **ret_settings,
                struct policy_error *err);

/* One worker's VM. May be called in another thread than the worker's; ports are used only when
 * hooks run, and must outlive the hooks. 0 or -errno with *err. */
int policy_vm_new(struct policy_source *source, struct settings *settings, struct ports *ports,
                  struct hooks **ret, struct policy_error *err);

/* ---- maps: files that are read again when they change (lua/maps.h) -------------------------- */

struct map;
struct map_file; /* one file of a source; lives with it */

/* Main thread, now and then. The next map whose file has changed and has come to rest, that is, has
 * not changed since the call before; NULL: none. Each change is told once. */
struct map_file *policy_maps_changed(struct policy_source *s);
const char *policy_map_name(const struct map_file *f);
/* Main thread: that file could not be read for a reason of ours; it is told again after so many calls of the
 * function above, though it has not changed. */
void policy_map_later(struct map_file *f, unsigned calls);
/* Any thread, one at a time: reads and checks the file. 0 and one reference, or -errno with *err. -EAGAIN: it
 * has changed meanwhile, so what was read may be half of it; it will be told again. */
int policy_map_read(const struct policy_source *s, const struct map_file *f, struct map **ret,
                    struct policy_error *err);
/* Main thread: VMs that are made from now on have it. Takes m over; returns the former one. */
struct map *policy_map_adopt(struct map_file *f, struct map *m);
/* In the thread of the hooks: they look into m from now on. Takes m over; returns the reference to let
 * go of, in a thread that may wait: the former one, or m when these hooks do not know the file. */
struct map *policy_map_give(struct hooks *hooks, const struct map_file *f, struct map *m);

/* ---- for programs that run Lua of their own around policies (`tern test`) ------------------- */

/* A VM with the sandbox and all modules, in which nothing has been loaded. config_path says where
 * modules are looked for (beside it); the file itself is not read. */
int policy_vm_bare(const char *config_path, const struct policy_options *options, struct vm **ret,
                   struct policy_error *err);
struct vm *policy_vm_free(struct vm *vm); /* after all hooks that were made from it */
struct lua_State *policy_vm_state(struct vm *vm);

/* Reads a file as a Lua chunk in the sandbox and leaves it as a function on the stack. */
int policy_vm_read(struct vm *vm, const char *path, struct policy_error *err);
/* A further global for what runs in that VM (`test`, `expect`): takes the top of the stack. */
void policy_vm_set_global(struct vm *vm, const char *name);
/* A further module for require: takes the top of the stack. */
void policy_vm_set_module(struct vm *vm, const char *name);

/* Reads the maps again whose files have changed, for all hooks made in that VM. 0, or -errno with the first
 * failure in *err: that map stays as it was. */
int policy_vm_refresh_maps(struct vm *vm, struct policy_error *err);
/* Forgets what maps had to hold for the configurations so far. */
void policy_vm_release_maps(struct vm *vm);

/* The configuration table at `index` of L (a state of that VM) becomes settings and hooks, which
 * keep the table. where: "policies/backup.test.lua:9", put in front of messages. Hooks run in the
 * same VM, also while a C function called from it is active. */
int policy_from_value(struct vm *vm, struct lua_State *L, int index, const char *where,
                      struct ports *ports, struct settings **ret_settings, struct hooks **ret,
                      struct policy_error *err);

/* ---- observing ------------------------------------------------------------------------------ */

/* One step of a chain, as `tern explain` shows it. Strings live during the call. */
struct policy_step {
    enum hook hook;
    struct str part;   /* of the configuration: "domains", "policies", "senders", "default_route" */
    struct str key;    /* in domains or senders: "example.com", ".example.com", "*"; else empty */
    struct str policy; /* "backup"; "route" for an entry that is only a route */
    struct str place;  /* "policies/backup.lua:31": what decided, else the hook; empty: none */
    struct str outcome; /* "no opinion", "reject 550 5.7.1 not here", "mx example.com below self" */
    bool asked;         /* false: it has no such hook, and outcome is empty */
    bool failed;        /* outcome is the error */
};
/* Each policy that came up, and each DNS answer that a hook asked for. Both may be NULL. */
struct policy_observer {
    void (*step)(struct policy_observer *self, const struct policy_step *step);
    void (*dns)(struct policy_observer *self, const struct dns_answer *answer);
};
/* NULL: nobody. */
void policy_observe(struct hooks *hooks, struct policy_observer *observer);

#endif
