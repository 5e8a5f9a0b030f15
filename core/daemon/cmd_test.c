/* cmd_test.c - tern test: finds the test files and runs them. Layer: daemon. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>

#include "base/str.h"
#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/cmd_test.h"

enum { MAX_DEPTH = 16 };

struct paths {
    char **v;
    size_t n;
};

static int add_path(struct paths *p, const char *path)
{
    char **more = reallocarray(p->v, p->n + 1, sizeof(char *));
    if (!more)
        return -ENOMEM;
    p->v = more;
    p->v[p->n] = strdup(path);
    return p->v[p->n] ? (p->n++, 0) : -ENOMEM;
}

static void free_paths(struct paths *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->v[i]);
    free(p->v);
}

static int skip_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

/* All *.test.lua of a folder and those below it, by name. */
static int add_folder(struct paths *p, const char *folder, int depth)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, skip_hidden, alphasort), r = n < 0 ? -errno : 0;
    for (int i = 0; i < n; i++) {
        AUTO_FREE char *path = NULL;
        struct stat sb;
        AUTO_FREE struct dirent *entry = entries[i];
        if (r < 0)
            continue;
        if (asprintf(&path, "%s/%s", folder, entry->d_name) < 0) {
            path = NULL;
            r = -ENOMEM;
        } else if (lstat(path, &sb) == 0 && S_ISDIR(sb.st_mode) && depth < MAX_DEPTH) {
            r = add_folder(p, path, depth + 1);
        } else if (str_ends(str_of(path), STR(".test.lua"))) {
            r = add_path(p, path);
        }
    }
    if (n >= 0)
        free(entries);
    return r;
}

static int add_operand(struct paths *p, const char *operand)
{
    struct stat sb;
    char trimmed[4096];
    if (stat(operand, &sb) < 0)
        return -errno;
    if (!S_ISDIR(sb.st_mode))
        return add_path(p, operand);
    struct str s = str_of(operand);
    while (s.n > 1 && s.p[s.n - 1] == '/')
        s.n--;
    return str_copy(s, trimmed, sizeof trimmed) ? add_folder(p, trimmed, 0) : -ENAMETOOLONG;
}

/* An exit code; 0: go on. */
static int find_files(const struct arg_list *operands, struct paths *ret)
{
    static const struct arg_list here = { .v = { "." }, .n = 1 };
    const struct arg_list *from = operands->n ? operands : &here;
    for (size_t i = 0; i < from->n; i++) {
        int r = add_operand(ret, from->v[i]);
        if (r == 0)
            continue;
        fprintf(stderr, "tern: cannot read %s: %s\n", from->v[i], strerror(-r));
        return EX_NOINPUT;
    }
    if (ret->n)
        return 0;
    fprintf(stderr, "tern: there are no tests here: their files are named *.test.lua\n");
    return EX_NOINPUT;
}

int cmd_test(int argc, char **argv)
{
    const char *seed_text = "1", *only = NULL;
    bool echo = false;
    const struct arg_option options[] = {
        ARG_TEXT('s', "seed", "N", &seed_text,
                 "the seed of all chance (default 1); the same seed gives\nthe same run"),
        ARG_TEXT('o', "only", "TEXT", &only, "run only tests whose name has this text"),
        ARG_FLAG('e', "events", &echo, "print each event of the routers, as JSON, on stderr"),
    };
    const struct arg_command command = {
        .name = "test",
        .usage = "test [--seed N] [--only TEXT] [--events] [PATH ...]",
        .about = "Runs tests of policies: files named *.test.lua, and folders with such files in\n"
                 "them (default: this folder). Time, DNS and remote hosts are simulated; router\n"
                 "and policies are the real ones. Nothing is sent anywhere.\n\n"
                 "The exit code is 0 when all tests passed, and 1 when one failed.",
        .options = options,
        .n_options = ARRAY_LEN(options),
        .max_operands = ARGS_MAX,
    };
    struct arg_list operands = { .n = 0 };
    struct paths files = { NULL, 0 };
    struct test_totals totals = { 0, 0 };
    uint64_t seed;
    int code;
    if (!args_get(&command, argc, argv, &operands, &code))
        return code;
    if (str_to_u64(str_of(seed_text), &seed) < 0) {
        fprintf(stderr, "tern test: the seed must be a number, not '%s'\n", seed_text);
        return EX_USAGE;
    }
    setenv("TZ", "UTC0", 1); /* of os.date: the same everywhere, and that of the worlds */
    tzset();
    code = find_files(&operands, &files);
    for (size_t i = 0; code == 0 && i < files.n; i++)
        test_file(files.v[i], seed, echo, only, &totals);
    free_paths(&files);
    if (code)
        return code;
    printf("%u passed, %u failed\n", totals.passed, totals.failed);
    return totals.failed ? 1 : EX_OK;
}
