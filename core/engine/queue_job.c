/* queue_job.c - recipients of one message that go together: made, found, let go. See queue.h. */
#include "engine/queue_impl.h"

struct job *job_free(struct job *j)
{
    if (!j)
        return NULL;
    for (size_t i = 0; i < j->n; i++)
        recipient_done(&j->recipients[i]);
    route_unref(j->route);
    message_unref(j->message);
    arena_done(&j->arena);
    free(j);
    return NULL;
}

struct job *job_new(struct str name, size_t n)
{
    size_t align = _Alignof(struct recipient), size;
    size_t at = (sizeof(struct job) + name.n + align) / align * align;
    if (__builtin_mul_overflow(n, sizeof(struct recipient), &size) ||
        __builtin_add_overflow(size, at, &size))
        return NULL;
    struct job *j = calloc(1, size);
    if (!j)
        return NULL;
    if (name.n)
        memcpy(j->name, name.p, name.n);
    list_init(&j->link);
    list_init(&j->way);
    arena_init(&j->arena, 0);
    j->recipients = (struct recipient *)((char *)j + at);
    return j;
}

void job_note_host(struct job *j, const struct net_addr *addr)
{
    uint64_t ip = net_addr_hash_ip(addr);
    for (size_t i = 0; i < j->hosts.n; i++)
        if (j->hosts.ip[i] == ip)
            return;
    if (j->hosts.n < QUEUE_HOSTS)
        j->hosts.ip[j->hosts.n++] = ip;
}

/* Is it in memory already? Then what is on disk is known. */
struct job *job_find(struct queues *all, const struct queue *q, const struct msgid *id)
{
    struct job_key key;
    struct job *j = NULL;
    memset(&key, 0, sizeof key);
    key.queue = q;
    key.id = *id;
    HASH_FIND(hh, all->jobs, &key, sizeof key, j);
    return j;
}

bool job_register(struct queues *all, struct queue *q, struct job *j)
{
    memset(&j->key, 0, sizeof j->key);
    j->key.queue = q;
    j->key.id = j->id;
    HASH_ADD(hh, all->jobs, key, sizeof j->key, j);
    if (!j->hh.tbl)
        return false;
    j->queue = q;
    q->n_jobs++;
    q->n_waiting += j->class_ == SPOOL_WAITING;
    all->warm += j->warm;
    return true;
}

void job_forget(struct queues *all, struct job *j)
{
    HASH_DELETE(hh, all->jobs, j);
    j->queue->n_jobs--;
    j->queue->n_waiting -= j->class_ == SPOOL_WAITING && !j->damaged;
    j->queue->n_damaged -= j->damaged;
    j->queue = NULL;
    all->warm -= j->warm;
}

void job_drop(struct queues *all, struct job *j)
{
    list_remove(&j->link);
    job_forget(all, j);
    job_free(j);
}
