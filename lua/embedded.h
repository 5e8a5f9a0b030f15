/*
 * The Lua modules that the binary carries: lua/tern and policies, without their tests.
 *
 * Layer: lua. The table is constant and generated at build time (scripts/cmake/embed.cmake).
 */
#ifndef LUA_EMBEDDED_H
#define LUA_EMBEDDED_H

#include <stddef.h>

struct embedded_module {
    const char *name; /* as for require(): "tern", "tern.route", "policies.backup" */
    const char *data; /* the source text; a NUL follows its last byte */
    size_t size;      /* in bytes, without that NUL */
};

/* Grouped by origin, not sorted. An entry whose name is NULL follows the last one. */
extern const struct embedded_module embedded_modules[];
extern const size_t embedded_modules_count;

#endif
