/* spool_kv.c - what policies remember, in the simulated spool. Layer: sim. Interface: spool_impl.h.
 * The meaning of the changes stands in engine/ports.h. */
#include "sim/spool_impl.h"

enum { SWEEP = 8 };

static struct kv_row *of_node(struct sim_node *n)
{
    return n ? CONTAINER_OF(n, struct kv_row, node) : NULL;
}

static struct kv_row *of_end(struct sim_node *n)
{
    return n ? CONTAINER_OF(n, struct kv_row, end) : NULL;
}

static int cmp_key(const struct sim_node *a, const struct sim_node *b)
{
    const struct kv_row *x = CONTAINER_OF(a, const struct kv_row, node);
    const struct kv_row *y = CONTAINER_OF(b, const struct kv_row, node);
    int c = str_cmp(x->name, y->name);
    return c ? c : str_cmp(x->key, y->key);
}

static int cmp_end(const struct sim_node *a, const struct sim_node *b)
{
    const struct kv_row *x = CONTAINER_OF(a, const struct kv_row, end);
    const struct kv_row *y = CONTAINER_OF(b, const struct kv_row, end);
    int c = str_cmp(x->name, y->name);
    if (c == 0)
        c = (x->expires_ms > y->expires_ms) - (x->expires_ms < y->expires_ms);
    return c ? c : str_cmp(x->key, y->key);
}

static struct str copy(struct str s)
{
    return str_make(sim_dup(s.p ? s : STR("")), s.n);
}

static struct kv_row *find(const struct tables *t, struct str name, struct str key)
{
    struct kv_row at = { .name = name, .key = key };
    return of_node(sim_tree_find(&t->kv, &at.node));
}

const struct kv_row *sim_kv_find(const struct tables *t, struct str name, struct str key)
{
    return find(t, name, key);
}

const struct kv_row *sim_kv_next(const struct tables *t, struct str name, struct str key,
                                 bool at_least)
{
    struct kv_row at = { .name = name, .key = key };
    const struct kv_row *r = at_least ? find(t, name, key) : NULL;
    if (!r)
        r = of_node(sim_tree_after(&t->kv, &at.node));
    return r && str_eq(r->name, name) ? r : NULL;
}

static void drop(struct tables *t, struct kv_row *r)
{
    sim_tree_remove(&t->kv, &r->node);
    sim_tree_remove(&t->kv_end, &r->end);
    free((char *)r->name.p);
    free((char *)r->key.p);
    free((char *)r->value.p);
    free(r);
}

static void put(struct tables *t, const struct spool_kv_change *c)
{
    struct kv_row *r = sim_alloc(sizeof *r);
    r->expires_ms = c->expires_ms;
    r->name = copy(c->name);
    r->key = copy(c->key);
    r->value = copy(c->value);
    sim_tree_add(&t->kv, &r->node);
    sim_tree_add(&t->kv_end, &r->end);
}

static uint64_t count(const struct tables *t, struct str name)
{
    uint64_t n = 0;
    for (const struct kv_row *r = sim_kv_next(t, name, STR(""), true); r;
         r = sim_kv_next(t, name, r->key, false))
        n++;
    return n;
}

static struct kv_row *first_to_end(const struct tables *t, struct str name)
{
    struct kv_row at = { .name = name, .key = STR(""), .expires_ms = INT64_MIN };
    struct kv_row *r = of_end(sim_tree_after(&t->kv_end, &at.end));
    return r && str_eq(r->name, name) ? r : NULL;
}

static void sweep(struct tables *t, struct str name, int64_t now_ms)
{
    for (int i = 0; i < SWEEP; i++) {
        struct kv_row *r = first_to_end(t, name);
        if (!r || r->expires_ms > now_ms)
            return;
        drop(t, r);
    }
}

int sim_kv_apply(struct tables *t, enum spool_change_type type, const struct spool_kv_change *c)
{
    struct kv_row *r = find(t, c->name, c->key);
    bool there = r && r->expires_ms > c->now_ms;
    if (type == SPOOL_KV_ADD && there)
        return -EEXIST;
    if (type == SPOOL_KV_DELETE && !there)
        return -ENOENT;
    if (!r && count(t, c->name) >= c->max) {
        struct kv_row *first = first_to_end(t, c->name);
        if (!first || first->expires_ms == INT64_MAX)
            return -EDQUOT;
        drop(t, first);
    }
    if (r)
        drop(t, r);
    if (type != SPOOL_KV_DELETE)
        put(t, c);
    sweep(t, c->name, c->now_ms);
    return 0;
}

void sim_kv_init(struct tables *t)
{
    sim_tree_init(&t->kv, cmp_key);
    sim_tree_init(&t->kv_end, cmp_end);
}

void sim_kv_done(struct tables *t)
{
    while (t->kv.root)
        drop(t, of_node(t->kv.root));
}
