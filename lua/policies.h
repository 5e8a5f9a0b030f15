/* policies.h - a configuration inside a VM as the engine's struct hooks.
 *
 * Layer: lua, internal. Owns its tables in the VM (by `key` in the registry), its settings and,
 * when it is a worker's, the VM.
 */
#ifndef TERN_LUA_POLICIES_H
#define TERN_LUA_POLICIES_H

#include "engine/hook.h"
#include "engine/settings.h"
#include "lua/vm.h"

struct fault;

/* What happens to a hook that failed. */
enum on_error { ON_ERROR_DEFER, ON_ERROR_REJECT, ON_ERROR_IGNORE };

/* What `domains` and `senders` are. */
enum map_kind {
    MAP_NONE,
    MAP_TABLE,
    MAP_FUNCTION, /* the operator's */
    MAP_FILE,     /* of tern.map: a function of ours, which does not wait */
};
struct map_facts {
    enum map_kind kind;
    bool has_suffixes, has_any; /* keys that begin with '.', and "*" */
    uint32_t hooks;             /* bit h: some policy in it has hook h */
};

/* Fields of the table that the registry keeps under &policies->key. */
enum policies_slot {
    P_DOMAINS = 1, /* table or function: map_kind */
    P_SENDERS,
    P_DEFAULT_ROUTE,   /* a route, or a policy that has `route` */
    P_LISTS,           /* array by 1 + hook of arrays { function, policy, function, policy... } */
    P_ETRN,            /* array { function, policy... } of `domains`, for '#' */
    P_SESSION_DATA,    /* session id -> table */
    P_MESSAGE_DATA,    /* message key -> table */
    P_MESSAGE_DOMAINS, /* message key -> array of policies with `data` */
};

struct policies {
    struct hooks base; /* first */
    struct vm *vm;
    bool owns_vm;
    struct settings *settings;
    struct ports *ports;
    struct list tasks; /* active ones */
    struct map_facts domains, senders;
    bool has_default_route;
    bool etrn_wants_identity;
    unsigned n_list[HOOK_COUNT]; /* policies with that hook in P_LISTS */
    enum on_error on_error;
    unsigned in_event; /* the code of an `event` hook is running, or its failure is being told */
    struct fault *faults;
    unsigned n_faults;
    struct policy_observer *observer;
    char observed_key[300]; /* for it: of the entry of `domains` or `senders` that was found last */
    char key;               /* its address is the key in the registry */
};

/* From the configuration in normal form (tern.validate) on top of the VM's main stack, which is
 * popped. Takes a reference of settings. 0, or -errno with *err. Takes over the VM when owns_vm
 * (on success). */
int policies_new(struct vm *vm, bool owns_vm, struct settings *settings, struct ports *ports,
                 struct policies **ret, struct policy_error *err);

/* Pushes the table of policies_slot. */
static inline void policies_push(lua_State *L, const struct policies *p)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &p->key);
}

/* A hook failed: tells the journal once for each place, and fills in *result by on_error. True
 * when the chain shall go on as if it had said nothing. traceback may be empty. */
bool fault_report(struct policies *p, enum hook h, struct str policy, struct str message,
                  struct str traceback, struct hook_result *result);
void fault_free(struct policies *p);

#endif
