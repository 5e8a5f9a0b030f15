/* certificates.c - certificates of ours for hosts. Layer: lua. Interface: certificates.h. */
#include "lua/certificates.h"

#include <stdarg.h>
#include <stdio.h>

#include "lua/source.h"
#include "lua/value.h"

struct own_certificate {
    struct list link;
    char *cert, *key; /* files; key empty: in that of the certificate */
    char *place;      /* "tern.lua:12": the first route that named it */
};

struct certificates {
    struct list all;
    unsigned n;
};

/* ---- the list --------------------------------------------------------------------------------- */

static void own_free(struct own_certificate *own)
{
    free(own->cert);
    free(own->key);
    free(own->place);
    free(own);
}

void certificates_free(struct vm *vm)
{
    if (!vm->certificates)
        return;
    for (struct list *it; (it = list_pop(&vm->certificates->all));)
        own_free(LIST_ENTRY(it, struct own_certificate, link));
    free(vm->certificates);
    vm->certificates = NULL;
}

static struct own_certificate *find(const struct vm *vm, struct str cert)
{
    if (vm->certificates)
        LIST_FOREACH(it, &vm->certificates->all)
        {
            struct own_certificate *own = LIST_ENTRY(it, struct own_certificate, link);
            if (str_eq(str_of(own->cert), cert))
                return own;
        }
    return NULL;
}

/* NULL: out of memory. */
static struct own_certificate *add(struct vm *vm, struct str cert, struct str key,
                                   const char *place)
{
    struct own_certificate *own = calloc(1, sizeof(*own));

    if (!vm->certificates && (vm->certificates = calloc(1, sizeof(*vm->certificates))))
        list_init(&vm->certificates->all);
    if (!own || !vm->certificates) {
        free(own);
        return NULL;
    }
    own->cert = str_dup(cert);
    own->key = str_dup(key);
    own->place = strdup(place);
    if (!own->cert || !own->key || !own->place) {
        own_free(own);
        return NULL;
    }
    list_init(&own->link);
    list_push(&vm->certificates->all, &own->link);
    vm->certificates->n++;
    return own;
}

int certificates_copy(const struct vm *vm, struct settings *s)
{
    size_t n = vm->certificates ? vm->certificates->n : 0;

    if (!n)
        return 0;
    s->own_certificates = ARENA_ARRAY(&s->arena, struct own_certificate_settings, n);
    if (!s->own_certificates)
        return -ENOMEM;
    LIST_FOREACH(it, &vm->certificates->all)
    {
        const struct own_certificate *own = LIST_ENTRY(it, struct own_certificate, link);
        struct own_certificate_settings *to = &s->own_certificates[s->n_own_certificates++];
        to->cert = arena_str(&s->arena, str_of(own->cert));
        to->key = arena_str(&s->arena, str_of(own->key));
        to->place = arena_str(&s->arena, str_of(own->place));
        if (!to->cert.p || !to->key.p || !to->place.p)
            return -ENOMEM;
    }
    return 0;
}

/* ---- routes ----------------------------------------------------------------------------------- */

/* Where in a file of the operator's, not in a module of ours, the route is made: the innermost place. */
static void place_of(lua_State *L, char *dst, size_t size)
{
    const struct policy_source *source = vm_of(L)->source;
    lua_Debug ar;

    for (int level = 1; lua_getstack(L, level, &ar) && lua_getinfo(L, "Sl", &ar); level++) {
        const struct source_text *text =
            ar.source[0] == '@' ? source_by_chunk(source, ar.source + 1) : NULL;
        if (text && text->path) {
            snprintf(dst, size, "%s:%d", text->path, ar.currentline);
            return;
        }
    }
    snprintf(dst, size, "%s", source->config_path);
}

PRINTF_LIKE(2, 3) NEVER_RETURNS static void complain(lua_State *L, const char *fmt, ...)
{
    char place[512], text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    place_of(L, place, sizeof(place));
    lua_pushfstring(L, "%s: %s", place, text);
    lua_error(L);
    __builtin_unreachable();
}

/* The one of that name, which is new only while the configuration is loaded. */
static struct own_certificate *named(lua_State *L, const char *function, struct str cert,
                                     struct str key)
{
    struct vm *vm = vm_of(L);
    struct own_certificate *own = find(vm, cert);
    char place[512];

    if (own && !str_eq(str_of(own->key), key))
        complain(L,
                 "%s: the certificate " STR_FMT " has another key at %s: one certificate, one key",
                 function, STR_ARG(cert), own->place);
    if (!own && !vm->loading)
        complain(L,
                 "%s: the certificate " STR_FMT " is not loaded: files are read with the "
                 "configuration, so make a route that names it outside of hooks, too",
                 function, STR_ARG(cert));
    if (own)
        return own;
    if (vm->certificates && vm->certificates->n >= CERTIFICATES_MAX)
        complain(L, "%s: at most %d certificates can be used towards hosts", function,
                 CERTIFICATES_MAX);
    place_of(L, place, sizeof(place));
    own = add(vm, cert, key, place);
    if (!own)
        vm_raise_no_memory(L);
    return own;
}

void certificates_take(lua_State *L, const char *function, struct route *r)
{
    struct str cert = STR_NONE, key = STR("");
    bool has_key = field_str(L, 2, "key", &key);

    if (!field_str(L, 2, "certificate", &cert)) {
        if (has_key)
            complain(L, "%s: 'key' is of no use without 'certificate'", function);
        return;
    }
    r->certificate = arena_str(&r->arena, str_of(named(L, function, cert, key)->cert));
    if (!r->certificate.n)
        vm_raise_no_memory(L);
}

static void demand(lua_State *L, const char *function, enum route_tls *tls)
{
    if (*tls == ROUTE_TLS_NONE)
        complain(L, "%s: 'certificate' needs TLS, and tls is \"none\"", function);
    if (*tls == ROUTE_TLS_OPPORTUNISTIC)
        *tls = ROUTE_TLS_REQUIRE;
}

void certificates_demand_tls(lua_State *L, const char *function, struct route *r)
{
    if (!r->certificate.n)
        return;
    demand(L, function, &r->tls);
    for (size_t i = 0; i < r->n_targets; i++)
        if (r->targets[i].own_tls)
            demand(L, function, &r->targets[i].tls);
}
