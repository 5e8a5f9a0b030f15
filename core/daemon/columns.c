/* columns.c - tables for people. Layer: daemon. Interface: columns.h. */
#include "daemon/columns.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/units.h"

enum { GAP = 2, NOW_MS = 1000 };

void columns_init(struct columns *c, const char *const *headings)
{
    *c = (struct columns){ 0 };
    arena_init(&c->arena, 0);
    while (headings[c->n] && c->n < COLUMNS_MAX) {
        c->heading[c->n] = headings[c->n];
        c->n++;
    }
}

void columns_done(struct columns *c)
{
    arena_done(&c->arena);
    free(c->cells);
}

void clean_text(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

void columns_add(struct columns *c, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    clean_text(text);
    if (c->n_cells == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 64;
        char **grown = realloc(c->cells, cap * sizeof(*grown));
        if (!grown)
            return;
        c->cells = grown;
        c->cap = cap;
    }
    c->cells[c->n_cells++] = arena_strz(&c->arena, str_of(text));
}

static size_t heading_width(const char *heading)
{
    size_t n = strlen(heading);
    return heading[n - 1] == '>' ? n - 1 : n;
}

/* Characters, not bytes: what is no start of a UTF-8 sequence has no width. */
static size_t text_width(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void print_cell(const char *text, size_t n, size_t width, bool right, bool last)
{
    size_t used = MIN(text_width(text), width), pad = width - used;

    if (right)
        printf("%*s%.*s", (int)pad, "", (int)n, text);
    else if (last)
        printf("%.*s", (int)n, text);
    else
        printf("%.*s%*s", (int)n, text, (int)pad, "");
    printf("%*s", last ? 0 : GAP, "");
}

void columns_print(const struct columns *c)
{
    size_t width[COLUMNS_MAX];

    if (!c->n_cells || !c->n)
        return;
    for (size_t i = 0; i < c->n; i++)
        width[i] = heading_width(c->heading[i]);
    for (size_t i = 0; i < c->n_cells; i++)
        if (c->cells[i])
            width[i % c->n] = MAX(width[i % c->n], text_width(c->cells[i]));
    for (size_t i = 0; i < c->n; i++) {
        size_t n = heading_width(c->heading[i]);
        char text[32];
        str_copy(str_first(str_of(c->heading[i]), n), text, sizeof(text));
        print_cell(text, n, width[i], c->heading[i][n], i + 1 == c->n);
    }
    putchar('\n');
    for (size_t i = 0; i < c->n_cells; i++) {
        const char *cell = c->cells[i] ? c->cells[i] : "?";
        size_t column = i % c->n;
        bool right = c->heading[column][heading_width(c->heading[column])];
        print_cell(cell, strlen(cell), width[column], right, column + 1 == c->n);
        if (column + 1 == c->n)
            putchar('\n');
    }
}

/* ---- times and sizes -------------------------------------------------------------------------- */

int64_t wall_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t time_parse_iso(const char *text)
{
    struct tm tm = { 0 };
    int ms = 0;

    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms) < 6)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return (int64_t)timegm(&tm) * 1000 + ms;
}

const char *time_relative(const char *iso, int64_t now_ms, char *dst)
{
    int64_t at = time_parse_iso(iso), away = at - now_ms;
    char text[32];

    if (!at)
        dst[0] = '\0';
    else if (away > -NOW_MS && away < NOW_MS)
        str_copy(STR("now"), dst, 40);
    else if (away > 0)
        snprintf(dst, 40, "in %s", duration_text(away / 1000 * 1000, text));
    else
        snprintf(dst, 40, "%s ago", duration_text(-away / 1000 * 1000, text));
    return dst;
}

const char *size_text(int64_t bytes, char *dst)
{
    static const char units[] = "KMGTP";
    double n = (double)bytes;
    int unit = -1;

    while (n >= 1024 && units[unit + 1]) {
        n /= 1024;
        unit++;
    }
    if (unit < 0)
        snprintf(dst, 16, "%lld", (long long)bytes);
    else
        snprintf(dst, 16, n < 10 ? "%.1f%c" : "%.0f%c", n, units[unit]);
    return dst;
}
