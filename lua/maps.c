/* maps.c - files that are read again when they change. Interface: maps.h, policy.h. Layer: lua. */
#include "lua/maps.h"

#include <stdio.h>

#include "base/hash.h"
#include "lua/policies.h"
#include "lua/watchdog.h"

enum { MAX_PATH = 4096, MAX_MAPS = 1000 };

/* Names that the second field may have. */
struct map_check {
    struct list link;
    size_t n;
    char *names[];
};

/* ---- life ------------------------------------------------------------------------------------- */

static struct map_check *check_free(struct map_check *c)
{
    for (size_t i = 0; c && i < c->n; i++)
        free(c->names[i]);
    free(c);
    return NULL;
}

static struct map_file *file_free(struct map_file *f)
{
    if (!f)
        return NULL;
    LIST_FOREACH(link, &f->checks)
    check_free(LIST_ENTRY(link, struct map_check, link));
    map_unref(f->current);
    free(f->name);
    free(f->path);
    free(f);
    return NULL;
}

void map_files_free(struct policy_source *s)
{
    LIST_FOREACH(link, &s->maps)
    file_free(LIST_ENTRY(link, struct map_file, link));
}

void map_views_free(struct vm *vm)
{
    LIST_FOREACH(link, &vm->maps)
    {
        struct map_view *v = LIST_ENTRY(link, struct map_view, link);
        map_unref(v->map);
        free(v);
    }
}

static struct map_file *file_new(const struct policy_source *s, struct str name, enum map_keys keys)
{
    struct map_file *f = calloc(1, sizeof(*f));
    char path[MAX_PATH];
    int n;

    if (!f)
        return NULL;
    list_init(&f->link);
    list_init(&f->checks);
    f->keys = keys;
    if (str_starts(name, STR("/")) || strcmp(s->dir, ".") == 0)
        n = snprintf(path, sizeof(path), STR_FMT, STR_ARG(name));
    else
        n = snprintf(path, sizeof(path), "%s/" STR_FMT, s->dir, STR_ARG(name));
    if (n > 0 && (size_t)n < sizeof(path))
        f->path = strdup(path);
    f->name = str_dup(name);
    return f->name && f->path ? f : file_free(f);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static int fault(const struct map_file *f, int r, unsigned line, const char *text,
                 struct policy_error *err)
{
    char message[512];

    if (r == -ENOMEM) {
        policy_error_set(err, POLICY_EX_SOFTWARE, NULL, 0, false, STR("out of memory"));
        return r;
    }
    if (r == -EINVAL && text) {
        policy_error_set(err, POLICY_EX_CONFIG, f->name, (int)line, true, str_of(text));
        return r;
    }
    snprintf(message, sizeof(message), "cannot read %.300s: %s", f->path,
             r == -EFBIG ? "it is larger than 1 GiB" : strerror(-r));
    policy_error_set(err, r == -EACCES || r == -EPERM ? POLICY_EX_NOPERM : POLICY_EX_NOINPUT,
                     f->name, 0, false, str_of(message));
    return r;
}

static bool allowed(const struct map_check *c, struct str name)
{
    for (size_t i = 0; i < c->n; i++)
        if (str_eq(name, str_of(c->names[i])))
            return true;
    return false;
}

static int wrong_policy(const struct map_file *f, const struct map_check *c, unsigned line,
                        struct str name, struct policy_error *err)
{
    char text[480];
    int n;

    if (name.n)
        n = snprintf(text, sizeof(text), "unknown policy \"" STR_FMT "\"; there ",
                     STR_ARG(str_first(name, 60)));
    else
        n = snprintf(text, sizeof(text), "the second field must name a policy; there ");
    n += snprintf(text + n, sizeof(text) - (size_t)n, c->n == 1 ? "is" : "are");
    for (size_t i = 0; i < c->n && (size_t)n < sizeof(text); i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%s %s", i ? "," : "", c->names[i]);
    return fault(f, -EINVAL, line, text, err);
}

static int check_rows(const struct map_file *f, const struct map_check *c, const struct map *m,
                      struct policy_error *err)
{
    struct map_row row;
    size_t cursor = 0;

    while (map_next(m, &cursor, &row)) {
        struct str name = STR_NONE;
        map_row_next(&row.fields, &name);
        if (!allowed(c, name))
            return wrong_policy(f, c, map_line(m, &row), name, err);
    }
    return 0;
}

static void state_of(const struct policy_files *files, const char *path,
                     struct policy_file_state *ret)
{
    *ret = (struct policy_file_state){ 0 };
    if (files->state)
        files->state(files, path, ret);
}

static int read_map(const struct policy_files *files, const struct map_file *f, struct map **ret,
                    struct policy_error *err)
{
    struct map_error wrong = { .line = 0 };
    struct map *m = NULL;
    struct buf bytes;

    buf_init(&bytes, MAP_MAX_BYTES);
    int r = files->read(files, f->path, false, &bytes);
    if (r == 0 && !buf_room(&bytes, 1))
        r = bytes.failed == -EMSGSIZE ? -EFBIG : -ENOMEM;
    if (r < 0) {
        buf_done(&bytes);
        return fault(f, r, 0, NULL, err);
    }
    CHECK(bytes.start == 0);
    r = map_new(bytes.data, buf_len(&bytes), f->keys, &m, &wrong); /* takes the block over */
    if (r < 0)
        return fault(f, r, wrong.line, wrong.text, err);
    for (const struct list *it = f->checks.next; r == 0 && it != &f->checks; it = it->next)
        r = check_rows(f, CONTAINER_OF(it, struct map_check, link), m, err);
    if (r < 0)
        map_unref(m);
    else
        *ret = m;
    return r;
}

/* ---- of a source ------------------------------------------------------------------------------ */

static struct map_file *find_file(const struct policy_source *s, struct str name,
                                  enum map_keys keys)
{
    for (struct list *it = s->maps.next; it != &s->maps; it = it->next) {
        struct map_file *f = LIST_ENTRY(it, struct map_file, link);
        if (f->keys == keys && str_eq(name, str_of(f->name)))
            return f;
    }
    return NULL;
}

static int open_file(struct policy_source *s, struct str name, enum map_keys keys,
                     struct map_file **ret, struct policy_error *err)
{
    struct map_file *f = file_new(s, name, keys);

    if (!f) {
        policy_error_set(err, POLICY_EX_SOFTWARE, NULL, 0, false, STR("out of memory"));
        return -ENOMEM;
    }
    state_of(s->files, f->path, &f->taken);
    f->seen = f->taken;
    struct watch_pause pause;
    watchdog_pause(&pause);
    int r = read_map(s->files, f, &f->current, err);
    watchdog_resume(&pause);
    if (r < 0) {
        file_free(f);
        return r;
    }
    list_push(&s->maps, &f->link);
    *ret = f;
    return 0;
}

static bool same_state(const struct policy_file_state *a, const struct policy_file_state *b)
{
    return a->id == b->id && a->size == b->size && a->changed_ns == b->changed_ns;
}

struct map_file *policy_maps_changed(struct policy_source *s)
{
    LIST_FOREACH(link, &s->maps)
    {
        struct map_file *f = LIST_ENTRY(link, struct map_file, link);
        struct policy_file_state now;
        state_of(s->files, f->path, &now);
        bool rests = same_state(&now, &f->seen);
        bool again = f->later && --f->later == 0;
        f->seen = now;
        if (rests && (again || !same_state(&now, &f->taken))) {
            f->later = 0;
            f->taken = now; /* one that is wrong is read once */
            return f;
        }
    }
    return NULL;
}

void policy_map_later(struct map_file *f, unsigned calls)
{
    f->later = calls;
}

const char *policy_map_name(const struct map_file *f)
{
    return f->name;
}

int policy_map_read(const struct policy_source *s, const struct map_file *f, struct map **ret,
                    struct policy_error *err)
{
    struct policy_file_state now;
    struct map *m = NULL;
    int r = read_map(s->files, f, &m, err);

    state_of(s->files, f->path, &now);
    if (!same_state(&now, &f->taken)) {
        map_unref(m);
        return fault(f, -EAGAIN, 0, NULL, err);
    }
    if (r == 0)
        *ret = m;
    return r;
}

struct map *policy_map_adopt(struct map_file *f, struct map *m)
{
    struct map *former = f->current;

    f->current = m;
    return former;
}

/* ---- of a VM ---------------------------------------------------------------------------------- */

static void note_fingerprint(struct vm *vm)
{
    uint64_t h = 0;

    for (struct list *it = vm->maps.next; it != &vm->maps; it = it->next) {
        uint64_t one = map_fingerprint(LIST_ENTRY(it, struct map_view, link)->map);
        h = hash_stable_more(h, &one, sizeof(one));
    }
    vm->maps_fingerprint = h;
}

static struct map *give(struct vm *vm, struct map_view *v, struct map *m)
{
    struct map *former = v->map;

    v->map = m;
    v->version++;
    note_fingerprint(vm);
    return former;
}

static struct map_view *find_view(struct vm *vm, const struct map_file *f)
{
    for (struct list *it = vm->maps.next; it != &vm->maps; it = it->next) {
        struct map_view *v = LIST_ENTRY(it, struct map_view, link);
        if (v->file == f)
            return v;
    }
    return NULL;
}

struct map *policy_map_give(struct hooks *hooks, const struct map_file *f, struct map *m)
{
    struct vm *vm = CONTAINER_OF(hooks, struct policies, base)->vm;
    struct map_view *v = find_view(vm, f);

    return v ? give(vm, v, m) : m;
}

int map_view_open(struct vm *vm, struct str name, enum map_keys keys, struct map_view **ret,
                  struct policy_error *err)
{
    struct map_file *f = find_file(vm->source, name, keys);
    int r = 0;

    /* A file's current version is the main thread's to look at: what runs elsewhere has its views. */
    if (!vm->loading && !(f && find_view(vm, f)))
        return -EBUSY;
    if (!f && vm->source->closed)
        return -EBUSY;
    if (!f)
        r = open_file(vm->source, name, keys, &f, err);
    if (r < 0)
        return r;
    struct map_view *v = find_view(vm, f);
    if (!v) {
        v = calloc(1, sizeof(*v));
        if (!v) {
            policy_error_set(err, POLICY_EX_SOFTWARE, NULL, 0, false, STR("out of memory"));
            return -ENOMEM;
        }
        v->file = f;
        v->map = map_ref(f->current);
        v->version = 1;
        list_push(&vm->maps, &v->link);
        note_fingerprint(vm);
    }
    *ret = v;
    return 0;
}

/* Was the same asked of it before? */
static bool has_check(const struct map_file *f, const struct map_check *c)
{
    for (const struct list *it = f->checks.next; it != &f->checks; it = it->next) {
        const struct map_check *other = CONTAINER_OF(it, struct map_check, link);
        size_t same = 0;
        while (same < c->n && other->n == c->n && strcmp(c->names[same], other->names[same]) == 0)
            same++;
        if (same == c->n && other->n == c->n)
            return true;
    }
    return false;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int map_view_check(struct vm *vm, struct map_view *view, const struct str *names, size_t n,
                   struct policy_error *err)
{
    struct map_file *f = find_file(vm->source, str_of(view->file->name), view->file->keys);

    if (vm->source->closed)
        return 0;
    struct map_check *c = calloc(1, sizeof(*c) + n * sizeof(c->names[0]));
    for (size_t i = 0; c && i < n; i++, c->n++)
        if (!(c->names[i] = str_dup(names[i])))
            c = check_free(c);
    if (!c)
        return fault(f, -ENOMEM, 0, NULL, err);
    qsort(c->names, c->n, sizeof(char *), by_text);
    bool had = has_check(f, c);
    struct watch_pause pause;
    watchdog_pause(&pause);
    int r = check_rows(f, c, view->map, err);
    watchdog_resume(&pause);
    if (r < 0 || had)
        check_free(c);
    else
        list_push(&f->checks, &c->link);
    return r;
}

static int refresh(struct vm *vm, struct map_file *f, struct policy_error *err)
{
    struct policy_file_state now;
    struct map_view *v = find_view(vm, f);
    struct map *m = NULL;

    state_of(vm->source->files, f->path, &now);
    if (same_state(&now, &f->taken))
        return 0;
    f->taken = f->seen = now;
    int r = read_map(vm->source->files, f, &m, err);
    if (r < 0)
        return r;
    if (v)
        map_unref(give(vm, v, map_ref(m)));
    map_unref(policy_map_adopt(f, m));
    return 0;
}

int policy_vm_refresh_maps(struct vm *vm, struct policy_error *err)
{
    struct policy_error other;
    int r = 0;

    LIST_FOREACH(link, &vm->source->maps)
    {
        int one = refresh(vm, LIST_ENTRY(link, struct map_file, link), r ? &other : err);
        r = r ? r : one;
    }
    return r;
}

static void free_checks(struct map_file *f)
{
    for (struct list *it; (it = list_pop(&f->checks));)
        check_free(LIST_ENTRY(it, struct map_check, link));
}

void policy_vm_release_maps(struct vm *vm)
{
    LIST_FOREACH(link, &vm->source->maps)
    free_checks(LIST_ENTRY(link, struct map_file, link));
}
