/* journal.c - events kept and counted. Layer: sim. Interface: journal.h. */
#include "sim/journal.h"

#include <stdio.h>

#include "base/hash.h"

struct tally {
    struct list link;
    char *name;
    uint64_t n;
};

struct sim_journal {
    struct port_journal port;
    struct sim_clock *clock;
    struct list entries, tallies;
    size_t n, max;
    uint64_t fingerprint;
    bool muted, echo;
};

static struct str keep(struct arena *a, struct str s)
{
    struct str copy = arena_str(a, s.p ? s : STR(""));
    CHECK(copy.p != NULL);
    return copy;
}

static void tally(struct sim_journal *j, const char *name)
{
    LIST_FOREACH(it, &j->tallies)
    {
        struct tally *t = LIST_ENTRY(it, struct tally, link);
        if (strcmp(t->name, name) == 0) {
            t->n++;
            return;
        }
    }
    struct tally *t = sim_alloc(sizeof *t);
    t->name = sim_dup(str_of(name));
    t->n = 1;
    list_init(&t->link);
    list_push(&j->tallies, &t->link);
}

static void forget_oldest(struct sim_journal *j)
{
    struct sim_entry *e = LIST_ENTRY(list_pop(&j->entries), struct sim_entry, link);
    arena_done(&e->arena);
    free(e);
    j->n--;
}

static struct sim_entry *copy_event(const struct event *ev, int64_t wall_ms)
{
    struct sim_entry *e = sim_alloc(sizeof *e);
    arena_init(&e->arena, 0);
    struct event_field *fields = ARENA_ARRAY(&e->arena, struct event_field, ev->n + 1);
    CHECK(fields != NULL);
    for (size_t i = 0; i < ev->n; i++) {
        fields[i] = ev->fields[i];
        fields[i].name = keep(&e->arena, str_of(ev->fields[i].name)).p;
        if (ev->fields[i].type == FIELD_STR && ev->fields[i].s.p)
            fields[i].s = keep(&e->arena, ev->fields[i].s);
    }
    e->event = *ev;
    e->event.name = keep(&e->arena, str_of(ev->name)).p;
    e->event.fields = fields;
    e->wall_ms = wall_ms;
    list_init(&e->link);
    return e;
}

static void record(struct port_journal *self, const struct event *ev)
{
    struct sim_journal *j = CONTAINER_OF(self, struct sim_journal, port);
    if (j->muted)
        return;
    struct sim_entry *e = copy_event(ev, sim_wall(j->clock));
    struct buf line;
    buf_init(&line, 0);
    event_to_json(ev, e->wall_ms, &line);
    struct str text = buf_str(&line);
    j->fingerprint = hash_stable_more(j->fingerprint, text.p, text.n);
    if (j->echo)
        fprintf(stderr, STR_FMT, STR_ARG(text));
    buf_done(&line);
    tally(j, ev->name);
    list_push(&j->entries, &e->link);
    if (++j->n > j->max)
        forget_oldest(j);
}

struct sim_journal *sim_journal_new(struct sim_clock *clock, size_t max)
{
    struct sim_journal *j = sim_alloc(sizeof *j);
    j->port.record = record;
    j->clock = clock;
    j->max = max;
    list_init(&j->entries);
    list_init(&j->tallies);
    return j;
}

struct sim_journal *sim_journal_free(struct sim_journal *j)
{
    if (!j)
        return NULL;
    while (j->n)
        forget_oldest(j);
    for (struct list *it; (it = list_pop(&j->tallies));) {
        struct tally *t = LIST_ENTRY(it, struct tally, link);
        free(t->name);
        free(t);
    }
    free(j);
    return NULL;
}

struct port_journal *sim_journal_port(struct sim_journal *j)
{
    return &j->port;
}

void sim_journal_mute(struct sim_journal *j, bool muted)
{
    j->muted = muted;
}

void sim_journal_echo(struct sim_journal *j, bool echo)
{
    j->echo = echo;
}

uint64_t sim_journal_count(const struct sim_journal *j, const char *name)
{
    LIST_FOREACH(it, &j->tallies)
    {
        const struct tally *t = LIST_ENTRY(it, struct tally, link);
        if (strcmp(t->name, name) == 0)
            return t->n;
    }
    return 0;
}

const struct sim_entry *sim_journal_next(const struct sim_journal *j, const char *name,
                                         const struct sim_entry *after)
{
    const struct list *at = after ? after->link.next : j->entries.next;
    for (; at != &j->entries; at = at->next) {
        const struct sim_entry *e = CONTAINER_OF(at, const struct sim_entry, link);
        if (!name || strcmp(e->event.name, name) == 0)
            return e;
    }
    return NULL;
}

const struct event_field *sim_entry_field(const struct sim_entry *e, const char *name)
{
    for (size_t i = 0; i < e->event.n; i++)
        if (strcmp(e->event.fields[i].name, name) == 0)
            return &e->event.fields[i];
    return NULL;
}

void sim_journal_json(const struct sim_journal *j, struct buf *out)
{
    LIST_FOREACH(it, &j->entries)
    {
        const struct sim_entry *e = LIST_ENTRY(it, struct sim_entry, link);
        event_to_json(&e->event, e->wall_ms, out);
    }
}

uint64_t sim_journal_fingerprint(const struct sim_journal *j)
{
    return j->fingerprint;
}
