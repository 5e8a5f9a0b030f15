/* tree.c - a treap. Layer: sim. Interface: tree.h. */
#include "sim/tree.h"

#include "base/hash.h"

void sim_tree_init(struct sim_tree *t,
                   int (*cmp)(const struct sim_node *a, const struct sim_node *b))
{
    *t = (struct sim_tree){ .cmp = cmp };
}

/* Into those before `at` and those after it. */
static void split(const struct sim_tree *t, struct sim_node *n, const struct sim_node *at,
                  struct sim_node **less, struct sim_node **more)
{
    while (n) {
        int c = t->cmp(n, at);
        CHECK(c != 0);
        if (c < 0) {
            *less = n;
            less = &n->right;
            n = n->right;
        } else {
            *more = n;
            more = &n->left;
            n = n->left;
        }
    }
    *less = *more = NULL;
}

static struct sim_node *merge(struct sim_node *a, struct sim_node *b)
{
    struct sim_node *root, **at = &root;
    while (a && b) {
        if (a->priority > b->priority) {
            *at = a;
            at = &a->right;
            a = a->right;
        } else {
            *at = b;
            at = &b->left;
            b = b->left;
        }
    }
    *at = a ? a : b;
    return root;
}

void sim_tree_add(struct sim_tree *t, struct sim_node *n)
{
    struct sim_node **at = &t->root;
    t->counter++;
    n->priority = hash_stable(&t->counter, sizeof t->counter);
    while (*at && (*at)->priority >= n->priority) {
        int c = t->cmp(n, *at);
        CHECK(c != 0);
        at = c < 0 ? &(*at)->left : &(*at)->right;
    }
    split(t, *at, n, &n->left, &n->right);
    *at = n;
    t->n++;
}

void sim_tree_remove(struct sim_tree *t, struct sim_node *n)
{
    struct sim_node **at = &t->root;
    while (*at != n) {
        CHECK(*at != NULL);
        at = t->cmp(n, *at) < 0 ? &(*at)->left : &(*at)->right;
    }
    *at = merge(n->left, n->right);
    n->left = n->right = NULL;
    t->n--;
}

struct sim_node *sim_tree_find(const struct sim_tree *t, const struct sim_node *key)
{
    struct sim_node *n = t->root;
    while (n) {
        int c = t->cmp(key, n);
        if (c == 0)
            return n;
        n = c < 0 ? n->left : n->right;
    }
    return NULL;
}

struct sim_node *sim_tree_after(const struct sim_tree *t, const struct sim_node *key)
{
    struct sim_node *n = t->root, *best = NULL;
    while (n) {
        if (!key || t->cmp(key, n) < 0) {
            best = n;
            n = n->left;
        } else {
            n = n->right;
        }
    }
    return best;
}

static void walk_push(struct sim_walk *w, struct sim_node *n)
{
    CHECK((size_t)w->n < ARRAY_LEN(w->path));
    w->path[w->n++] = n;
}

void sim_walk_begin(struct sim_walk *w, const struct sim_tree *t, const struct sim_node *key)
{
    struct sim_node *n = t->root;
    w->n = 0;
    while (n) {
        if (!key || t->cmp(key, n) < 0) {
            walk_push(w, n);
            n = n->left;
        } else {
            n = n->right;
        }
    }
}

struct sim_node *sim_walk_next(struct sim_walk *w)
{
    if (w->n == 0)
        return NULL;
    struct sim_node *found = w->path[--w->n];
    for (struct sim_node *n = found->right; n; n = n->left)
        walk_push(w, n);
    return found;
}
