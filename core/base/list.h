/* list.h - intrusive doubly linked list with a head node.
 *
 * Layer: base. The list owns nothing. A node that is in no list points to itself.
 */
#ifndef TERN_BASE_LIST_H
#define TERN_BASE_LIST_H

#include "base/err.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_insert_before_(struct list *at, struct list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}
static inline void list_push(struct list *head, struct list *node) /* at the end */
{
    list_insert_before_(head, node);
}
static inline void list_unshift(struct list *head, struct list *node) /* at the front */
{
    list_insert_before_(head->next, node);
}
static inline void list_remove(struct list *node) /* harmless when in no list */
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}
static inline struct list *list_first(const struct list *head) /* NULL when empty */
{
    return list_empty(head) ? NULL : head->next;
}
static inline struct list *list_pop(struct list *head) /* from the front; NULL when empty */
{
    struct list *n = list_first(head);
    if (n)
        list_remove(n);
    return n;
}
/* Moves all of `from` to the end of `to`. */
static inline void list_join(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define LIST_ENTRY(node, type, member) CONTAINER_OF(node, type, member)
/* `it` may be removed from the list (or freed) inside the loop. */
#define LIST_FOREACH(it, head)                                                                     \
    for (struct list *it = (head)->next, *it##_next_ = it->next; it != (head);                     \
         it = it##_next_, it##_next_ = it->next)

#endif
