/* source.c - all text of one load. Interface: source.h. Layer: lua. */
#include "lua/source.h"

#include <stdio.h>

#include "base/hash.h"
#include "lua/maps.h"

enum { DEFAULT_MEMORY = 512 * 1024 * 1024, DEFAULT_LOAD_MS = 10000 };

static struct source_text *text_free(struct source_text *t)
{
    if (!t)
        return NULL;
    if (t->kind == SOURCE_SECRET && t->bytes.data)
        explicit_bzero(t->bytes.data, t->bytes.cap);
    buf_done(&t->bytes);
    free(t->name);
    free(t->chunk);
    free(t->path);
    free(t);
    return NULL;
}

static struct policy_source *source_free(struct policy_source *s)
{
    LIST_FOREACH(link, &s->texts)
    text_free(LIST_ENTRY(link, struct source_text, link));
    map_files_free(s);
    for (char **p = s->paths; p && *p; p++)
        free(*p);
    free(s->paths);
    free(s->config_path);
    free(s->dir);
    free(s);
    return NULL;
}

static char *folder_of(const char *path)
{
    struct str s = str_of(path);
    ptrdiff_t slash = str_rchr(s, '/');

    if (slash < 0)
        return strdup(".");
    return str_dup(str_first(s, slash == 0 ? 1 : (size_t)slash));
}

static int copy_paths(struct policy_source *s, const char *const *paths)
{
    size_t n = 0;

    while (paths && paths[n])
        n++;
    s->paths = calloc(n + 1, sizeof(*s->paths));
    for (size_t i = 0; s->paths && i < n; i++)
        if (!(s->paths[i] = strdup(paths[i])))
            return -ENOMEM;
    return s->paths ? 0 : -ENOMEM;
}

struct policy_source *source_new(const char *config_path, const struct policy_options *options)
{
    struct policy_source *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    list_init(&s->texts);
    list_init(&s->maps);
    s->files = options && options->files ? options->files : &policy_files_disk;
    s->memory = options && options->memory ? options->memory : DEFAULT_MEMORY;
    s->load_ms = options && options->load_ms ? options->load_ms : DEFAULT_LOAD_MS;
    s->cpus = options ? options->cpus : 0;
    s->config_path = strdup(config_path);
    s->dir = folder_of(config_path);
    if (!s->config_path || !s->dir || copy_paths(s, options ? options->paths : NULL) < 0)
        return source_free(s);
    return s;
}

struct policy_source *policy_source_ref(struct policy_source *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

struct policy_source *policy_source_unref(struct policy_source *s)
{
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        source_free(s);
    return NULL;
}

bool policy_source_is_last(const struct policy_source *s)
{
    return atomic_load_explicit(&s->refs, memory_order_acquire) == 1;
}

uint64_t policy_source_fingerprint(const struct policy_source *s)
{
    return s->fingerprint;
}

static int by_kind_and_name(const void *a, const void *b)
{
    const struct source_text *x = *(const struct source_text *const *)a;
    const struct source_text *y = *(const struct source_text *const *)b;

    return x->kind != y->kind ? (int)x->kind - (int)y->kind : strcmp(x->name, y->name);
}

/* Of names and bytes, in the order of names: not of the order of loading, and not of where the
 * files lie. A changed secret changes no route. */
void source_close(struct policy_source *s)
{
    const struct source_text *sorted[1024];
    size_t n = 0;
    uint64_t h = 0;

    LIST_FOREACH(link, &s->texts)
    {
        const struct source_text *t = LIST_ENTRY(link, struct source_text, link);
        if (t->kind != SOURCE_SECRET && n < ARRAY_LEN(sorted))
            sorted[n++] = t;
    }
    qsort(sorted, n, sizeof(*sorted), /* NOLINT(bugprone-sizeof-expression): of a pointer */
          by_kind_and_name);
    for (size_t i = 0; i < n; i++) {
        struct str bytes = buf_str(&sorted[i]->bytes);
        h = hash_stable_more(h, sorted[i]->name, strlen(sorted[i]->name));
        h = hash_stable_more(h, bytes.n ? bytes.p : "", bytes.n);
    }
    s->fingerprint = h ? h : 1;
    s->closed = true;
}

struct source_text *source_find(const struct policy_source *s, enum source_kind kind,
                                const char *name)
{
    LIST_FOREACH(link, &s->texts)
    {
        struct source_text *t = LIST_ENTRY(link, struct source_text, link);
        if (t->kind == kind && strcmp(t->name, name) == 0)
            return t;
    }
    return NULL;
}

const struct source_text *source_by_chunk(const struct policy_source *s, const char *chunk)
{
    LIST_FOREACH(link, &s->texts)
    {
        const struct source_text *t = LIST_ENTRY(link, struct source_text, link);
        if (t->kind != SOURCE_SECRET && strcmp(t->chunk, chunk) == 0)
            return t;
    }
    return NULL;
}

static struct source_text *text_new(enum source_kind kind, const char *name, const char *chunk)
{
    struct source_text *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    list_init(&t->link);
    t->kind = kind;
    buf_init(&t->bytes, kind == SOURCE_SECRET ? (size_t)POLICY_MAX_SECRET : POLICY_MAX_FILE);
    t->name = strdup(name);
    t->chunk = strdup(chunk);
    return t->name && t->chunk ? t : text_free(t);
}

static int text_keep(struct policy_source *s, struct source_text *t, int r,
                     struct source_text **ret)
{
    if (r < 0) {
        text_free(t);
        return r;
    }
    list_push(&s->texts, &t->link);
    *ret = t;
    return 0;
}

int source_read(struct policy_source *s, enum source_kind kind, const char *name, const char *chunk,
                const char *path, struct source_text **ret)
{
    CHECK(!s->closed);
    struct source_text *t = text_new(kind, name, chunk);
    if (!t || !(t->path = strdup(path))) {
        text_free(t);
        return -ENOMEM;
    }
    return text_keep(s, t, s->files->read(s->files, path, kind == SOURCE_SECRET, &t->bytes), ret);
}

int source_add(struct policy_source *s, enum source_kind kind, const char *name, const char *chunk,
               struct str bytes, struct source_text **ret)
{
    CHECK(!s->closed);
    struct source_text *t = text_new(kind, name, chunk);
    if (!t)
        return -ENOMEM;
    return text_keep(s, t, buf_add_str(&t->bytes, bytes), ret);
}

int policy_source_files(const struct policy_source *s, policy_file_cb *cb, void *owner)
{
    int r = 0;

    LIST_FOREACH(link, &s->texts)
    {
        const struct source_text *t = LIST_ENTRY(link, struct source_text, link);
        if (r == 0 && t->path)
            r = cb(owner, t->path);
    }
    LIST_FOREACH(link, &s->maps)
    if (r == 0)
        r = cb(owner, LIST_ENTRY(link, struct map_file, link)->path);
    return r;
}
