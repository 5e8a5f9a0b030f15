/* tree.h - an ordered set of embedded nodes, whose shape is the same in every run.
 *
 * Layer: sim. A treap whose priorities come from a counter. Owns nothing. Order is `cmp`'s, total.
 */
#ifndef TERN_SIM_TREE_H
#define TERN_SIM_TREE_H

#include "base/err.h"

struct sim_node {
    struct sim_node *left, *right;
    uint64_t priority;
};

struct sim_tree {
    struct sim_node *root;
    int (*cmp)(const struct sim_node *a, const struct sim_node *b);
    uint64_t counter;
    size_t n;
};

void sim_tree_init(struct sim_tree *t,
                   int (*cmp)(const struct sim_node *a, const struct sim_node *b));
/* The same must not be there. */
void sim_tree_add(struct sim_tree *t, struct sim_node *n);
/* It must be there. */
void sim_tree_remove(struct sim_tree *t, struct sim_node *n);
/* key: a node of the caller's that compares as the one that is looked for. NULL: there is none. */
struct sim_node *sim_tree_find(const struct sim_tree *t, const struct sim_node *key);
/* The least that is greater than key; key NULL: the least of all. */
struct sim_node *sim_tree_after(const struct sim_tree *t, const struct sim_node *key);

/* In order, from the least that is greater than key (NULL: from the least of all). The tree does not
 * change meanwhile. */
struct sim_walk {
    struct sim_node *path[128];
    int n;
};
void sim_walk_begin(struct sim_walk *w, const struct sim_tree *t, const struct sim_node *key);
struct sim_node *sim_walk_next(struct sim_walk *w); /* NULL: no more */

#endif
