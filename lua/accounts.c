/* accounts.c - the credentials that routes name. Layer: lua. Interface: accounts.h. */
#include "lua/accounts.h"

#include "base/table.h"
#include "lua/sandbox.h"
#include "lua/value.h"
#include "proto/sasl.h"

struct account {
    struct credentials *is;
    struct list link; /* of those made at run time: the one used longest ago in front */
    UT_hash_handle hh;
};

struct accounts {
    struct account *by_name;
    struct list at_run_time;
    unsigned n_at_run_time;
};

static void drop(struct accounts *all, struct account *a)
{
    HASH_DEL(all->by_name, a);
    list_remove(&a->link);
    credentials_unref(a->is);
    free(a);
}

void accounts_free(struct vm *vm)
{
    struct accounts *all = vm->accounts;
    struct account *a, *next;

    if (!all)
        return;
    HASH_ITER(hh, all->by_name, a, next)
        drop(all, a);
    free(all);
    vm->accounts = NULL;
}

static struct account *find(struct accounts *all, struct str name)
{
    struct account *a = NULL;

    if (all && name.n)
        HASH_FIND(hh, all->by_name, name.p, name.n, a);
    if (a && !list_empty(&a->link)) { /* used now */
        list_remove(&a->link);
        list_push(&all->at_run_time, &a->link);
    }
    return a;
}

struct credentials *accounts_find(struct vm *vm, struct str name)
{
    struct account *a = find(vm->accounts, name);

    return a ? a->is : NULL;
}

static struct accounts *table_of(struct vm *vm)
{
    if (!vm->accounts && (vm->accounts = calloc(1, sizeof(*vm->accounts))))
        list_init(&vm->accounts->at_run_time);
    return vm->accounts;
}

/* One reference of c is taken over, whatever happens. */
static int keep(struct vm *vm, struct credentials *c)
{
    struct accounts *all = table_of(vm);
    struct account *a = all ? calloc(1, sizeof(*a)) : NULL;

    if (!a) {
        credentials_unref(c);
        return -ENOMEM;
    }
    a->is = c;
    list_init(&a->link);
    HASH_ADD_KEYPTR(hh, all->by_name, c->name.p, c->name.n, a);
    if (!a->hh.tbl) {
        credentials_unref(c);
        free(a);
        return -ENOMEM;
    }
    if (vm->loading)
        return 0;
    list_push(&all->at_run_time, &a->link);
    if (++all->n_at_run_time > ACCOUNTS_AT_RUN_TIME) {
        all->n_at_run_time--;
        drop(all, LIST_ENTRY(all->at_run_time.next, struct account, link));
    }
    return 0;
}

/* SASL_BIT of those in the list `mechanisms` of the table at `index`. */
static uint32_t mechanisms_of(lua_State *L, int index)
{
    uint32_t set = 0;

    if (lua_getfield(L, index, "mechanisms") == LUA_TTABLE)
        for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, -1); i <= n; i++) {
            lua_rawgeti(L, -1, i);
            set |= SASL_BIT(sasl_find(lua_str(L, -1)));
            lua_pop(L, 1);
        }
    lua_pop(L, 1);
    return set;
}

struct str accounts_take(lua_State *L, int index)
{
    struct vm *vm = vm_of(L);
    struct str user = STR(""), password = STR("");

    index = lua_absindex(L, index);
    field_str(L, index, "user", &user);
    lua_getfield(L, index, "password"); /* stays: it is read from where it stands */
    if (!secret_read(L, -1, &password))
        password = lua_str(L, -1);
    else if (password.n == 0 || password.n > CREDENTIALS_MAX_PASSWORD ||
             str_chr(password, '\0') >= 0)
        vm_raise(L, "auth: the secret must hold a password of 1 to %d octets",
                 CREDENTIALS_MAX_PASSWORD);
    lua_getfield(L, index, "allow_clear");
    bool allow_clear = lua_toboolean(L, -1);
    struct credentials *c = credentials_new(user, password, mechanisms_of(L, index), allow_clear);
    lua_pop(L, 2);
    if (!c)
        vm_raise_no_memory(L);
    struct account *known = find(vm->accounts, c->name);
    if (known) {
        credentials_unref(c);
        return known->is->name;
    }
    if (keep(vm, c) < 0)
        vm_raise_no_memory(L);
    return c->name;
}
