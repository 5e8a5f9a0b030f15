/* args.h - the command line of a subcommand: one table gives the parser, the help and the hints.
 *
 * Layer: daemon. Tables are constant and live on the command's stack; texts that are found are
 * pointers into argv.
 */
#ifndef TERN_DAEMON_ARGS_H
#define TERN_DAEMON_ARGS_H

#include "base/err.h"

enum { ARGS_MAX = 256, ARGS_ERROR_TEXT = 512 };

struct arg_list {
    const char *v[ARGS_MAX];
    size_t n;
};

struct arg_option {
    char letter;           /* 0: none */
    const char *name;      /* the long form, without dashes */
    const char *value;     /* its value's name in the help; NULL: a flag */
    const char *help;      /* lines are joined by '\n' */
    bool *flag;            /* one of these three */
    const char **text;     /* the last one given counts */
    struct arg_list *list; /* may be given several times */
};

struct arg_command {
    const char *name;  /* "queue" */
    const char *usage; /* "queue [list | show ID] [--json]"; further forms behind '\n' */
    const char *about; /* paragraph(s) for --help */
    const struct arg_option *options;
    size_t n_options;
    size_t min_operands, max_operands;
};

#define ARG_FLAG(letter_, name_, target, help_)                                                    \
    {                                                                                              \
        .letter = (letter_), .name = (name_), .help = (help_), .flag = (target)                    \
    }
#define ARG_TEXT(letter_, name_, value_, target, help_)                                            \
    {                                                                                              \
        .letter = (letter_), .name = (name_), .value = (value_), .help = (help_), .text = (target) \
    }
#define ARG_LIST(letter_, name_, value_, target, help_)                                            \
    {                                                                                              \
        .letter = (letter_), .name = (name_), .value = (value_), .help = (help_), .list = (target) \
    }
/* What most commands have. */
#define ARG_CONFIG(target)                                                                         \
    ARG_TEXT('c', "config", "FILE", target, "the configuration (default " DEFAULT_CONFIG ")")
#define ARG_JSON(target) ARG_FLAG(0, "json", target, "print JSON, for programs")

enum args_result { ARGS_GO, ARGS_HELP, ARGS_BAD };

/* Reads argv[1..]. Options and operands may be mixed; behind "--" all are operands. --help and -h are
 * understood in each command. ARGS_BAD: `error` (ARGS_ERROR_TEXT bytes) says what is wrong. Prints
 * nothing. */
enum args_result args_read(const struct arg_command *c, int argc, char **argv,
                           struct arg_list *ret_operands, char *error);
/* The same, and prints the help or the error. True: go on. False: *ret_exit is the exit code. */
bool args_get(const struct arg_command *c, int argc, char **argv, struct arg_list *ret_operands,
              int *ret_exit);

/* The name that was most likely meant; NULL: none is near. */
const char *nearest_name(const char *word, const char *const *names, size_t n);

#endif
