/* args.c - the command line of a subcommand. Layer: daemon. Interface: args.h. */
#include "daemon/args.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/str.h"

/* ---- nearest name ----------------------------------------------------------------------------- */

enum { NAME_MAX_LEN = 31 };

/* Edits (a letter more, less or other, two exchanged) that make b of a; long words are far away. */
static size_t distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b), d[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1];

    if (na > NAME_MAX_LEN || nb > NAME_MAX_LEN)
        return NAME_MAX_LEN;
    for (size_t i = 0; i <= na; i++)
        d[i][0] = i;
    for (size_t j = 0; j <= nb; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        for (size_t j = 1; j <= nb; j++) {
            size_t other = d[i - 1][j - 1] + (ascii_lower(a[i - 1]) != ascii_lower(b[j - 1]));
            size_t more = MIN(d[i - 1][j], d[i][j - 1]) + 1;
            d[i][j] = MIN(other, more);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[na][nb];
}

const char *nearest_name(const char *word, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t best_distance = 0, len = strlen(word);

    for (size_t i = 0; i < n; i++) {
        size_t d =
            len >= 2 && str_starts(str_of(names[i]), str_of(word)) ? 1 : distance(word, names[i]);
        if (d <= 1 + len / 4 && d < len && (!best || d < best_distance)) {
            best = names[i];
            best_distance = d;
        }
    }
    return best;
}

/* ---- reading ---------------------------------------------------------------------------------- */

struct reading {
    const struct arg_command *command;
    int argc, at;
    char **argv;
    struct arg_list *operands;
    char *error;
};

PRINTF_LIKE(2, 3)
static enum args_result bad(struct reading *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(r->error, ARGS_ERROR_TEXT, fmt, ap);
    va_end(ap);
    return ARGS_BAD;
}

static enum args_result unknown(struct reading *r, const char *name)
{
    const char *names[ARGS_MAX];
    size_t n = 0;

    for (; n < r->command->n_options && n < ARGS_MAX - 1; n++)
        names[n] = r->command->options[n].name;
    names[n++] = "help";
    const char *near = nearest_name(name, names, n);
    if (near)
        return bad(r, "unknown option '--%s'; did you mean '--%s'?", name, near);
    return bad(r, "unknown option '--%s'", name);
}

static enum args_result add(struct reading *r, struct arg_list *list, const char *value)
{
    if (list->n == ARGS_MAX)
        return bad(r, "more than %d arguments of one kind", ARGS_MAX);
    list->v[list->n++] = value;
    return ARGS_GO;
}

/* value: what stood behind '=' or the letter, or NULL. */
static enum args_result set(struct reading *r, const struct arg_option *o, const char *value)
{
    if (!o->value) {
        if (value)
            return bad(r, "option '--%s' takes no value", o->name);
        *o->flag = true;
        return ARGS_GO;
    }
    if (!value && r->at + 1 < r->argc)
        value = r->argv[++r->at];
    if (!value)
        return bad(r, "option '--%s' needs a value: --%s %s", o->name, o->name, o->value);
    if (o->list)
        return add(r, o->list, value);
    *o->text = value;
    return ARGS_GO;
}

static enum args_result read_long(struct reading *r, const char *arg)
{
    const char *equals = strchr(arg, '=');
    struct str name = equals ? str_make(arg, (size_t)(equals - arg)) : str_of(arg);
    char text[64];

    if (str_eq(name, STR("help")))
        return ARGS_HELP;
    for (size_t i = 0; i < r->command->n_options; i++)
        if (str_eq(name, str_of(r->command->options[i].name)))
            return set(r, &r->command->options[i], equals ? equals + 1 : NULL);
    str_copy(name, text, sizeof(text));
    return unknown(r, text);
}

static const struct arg_option *by_letter(const struct arg_command *c, char letter)
{
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].letter == letter)
            return &c->options[i];
    return NULL;
}

/* "-cFILE", "-c FILE", "-ab" for two flags. */
static enum args_result read_short(struct reading *r, const char *arg)
{
    for (; *arg; arg++) {
        if (*arg == 'h')
            return ARGS_HELP;
        const struct arg_option *o = by_letter(r->command, *arg);
        if (!o)
            return bad(r, "unknown option '-%c'", *arg);
        if (o->value)
            return set(r, o, arg[1] ? arg + 1 : NULL);
        *o->flag = true;
    }
    return ARGS_GO;
}

static enum args_result check_operands(struct reading *r)
{
    const struct arg_command *c = r->command;

    if (r->operands->n < c->min_operands)
        return bad(r, "something is missing: tern %.*s", (int)strcspn(c->usage, "\n"), c->usage);
    if (r->operands->n > c->max_operands)
        return bad(r, "'%s' is too much: tern %.*s", r->operands->v[c->max_operands],
                   (int)strcspn(c->usage, "\n"), c->usage);
    return ARGS_GO;
}

enum args_result args_read(const struct arg_command *c, int argc, char **argv,
                           struct arg_list *ret_operands, char *error)
{
    struct reading r = { c, argc, 1, argv, ret_operands, error };
    bool options = true;

    ret_operands->n = 0;
    for (; r.at < argc; r.at++) {
        const char *arg = argv[r.at];
        enum args_result result;
        if (options && strcmp(arg, "--") == 0) {
            options = false;
            continue;
        }
        if (options && arg[0] == '-' && arg[1] == '-')
            result = read_long(&r, arg + 2);
        else if (options && arg[0] == '-' && arg[1])
            result = read_short(&r, arg + 1);
        else
            result = add(&r, ret_operands, arg);
        if (result != ARGS_GO)
            return result;
    }
    return check_operands(&r);
}

/* ---- printing --------------------------------------------------------------------------------- */

/* Each line of text behind so many blanks but the first. */
static void print_lines(const char *text, int indent)
{
    for (;;) {
        size_t n = strcspn(text, "\n");
        printf("%.*s\n", (int)n, text);
        if (!text[n])
            return;
        text += n + 1;
        printf("%*s", indent, "");
    }
}

static void print_option(char letter, const char *name, const char *value, const char *help)
{
    char left[80];

    snprintf(left, sizeof(left), "%c%c%s --%s%s%s", letter ? '-' : ' ', letter ? letter : ' ',
             letter ? "," : " ", name, value ? " " : "", value ? value : "");
    printf("  %-26s  ", left);
    if (strlen(left) > 26)
        printf("\n%*s", 30, "");
    print_lines(help, 30);
}

static void print_help(const struct arg_command *c)
{
    printf("Usage: tern ");
    for (const char *u = c->usage;;) {
        size_t n = strcspn(u, "\n");
        printf("%.*s\n", (int)n, u);
        if (!u[n])
            break;
        u += n + 1;
        printf("       tern ");
    }
    printf("\n%s\n\nOptions:\n", c->about);
    for (size_t i = 0; i < c->n_options; i++) {
        const struct arg_option *o = &c->options[i];
        print_option(o->letter, o->name, o->value, o->help);
    }
    print_option('h', "help", NULL, "this text");
}

bool args_get(const struct arg_command *c, int argc, char **argv, struct arg_list *ret_operands,
              int *ret_exit)
{
    char error[ARGS_ERROR_TEXT];

    switch (args_read(c, argc, argv, ret_operands, error)) {
    case ARGS_GO: return true;
    case ARGS_HELP:
        print_help(c);
        *ret_exit = EX_OK;
        return false;
    case ARGS_BAD: break;
    }
    fprintf(stderr, "tern %s: %s\nTry 'tern %s --help'.\n", c->name, error, c->name);
    *ret_exit = EX_USAGE;
    return false;
}
