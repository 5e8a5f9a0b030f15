/* columns.h - tables for people: aligned columns on stdout; and times as people say them.
 *
 * Layer: daemon. Texts are copied; control bytes in them become '?': they come from strangers.
 */
#ifndef TERN_DAEMON_COLUMNS_H
#define TERN_DAEMON_COLUMNS_H

#include "base/arena.h"

enum { COLUMNS_MAX = 16 };

struct columns {
    struct arena arena;
    const char *heading[COLUMNS_MAX]; /* "SIZE>" is aligned to the right, without the sign */
    size_t n;
    char **cells; /* row after row */
    size_t n_cells, cap;
};

/* headings end with NULL. */
void columns_init(struct columns *c, const char *const *headings);
void columns_done(struct columns *c);
void columns_add(struct columns *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* With the headings, when there is a row. */
void columns_print(const struct columns *c);
/* Replaces control bytes (those of UTF-8 sequences stay). */
void clean_text(char *text);

/* "2026-11-23T17:35:39.123Z" -> ms since 1970; 0: it is none. */
int64_t time_parse_iso(const char *text);
/* "in 4m10s", "4m10s ago", "now"; "" for an empty text. dst has 40 bytes; returns dst. */
const char *time_relative(const char *iso, int64_t now_ms, char *dst);
/* "12.3M"; dst has 16 bytes; returns dst. */
const char *size_text(int64_t bytes, char *dst);
int64_t wall_now(void);

#endif
