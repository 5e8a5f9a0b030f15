/* cmd_spool.c - tern spool: looks after the queue's files. Layer: daemon. */
#include <sys/stat.h>
#include <sysexits.h>

#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/cmd_spool.h"
#include "daemon/load.h"

int spool_folder_of(const struct spool_command_line *l, char **ret, struct failure *f)
{
    struct loaded loaded;

    if (l->folder) {
        *ret = str_dup(str_of(l->folder));
    } else {
        if (load_policies(l->client.config, NULL, &loaded, f) < 0)
            return -1;
        *ret = str_dup(loaded.settings->spool);
        loaded_done(&loaded);
    }
    return *ret ? 0 : failure_set(f, EX_SOFTWARE, "out of memory");
}

int spool_open_failed(int error, const char *why, struct failure *f)
{
    int code;

    switch (error) {
    case -ENOENT:
    case -ENOTDIR: code = EX_NOINPUT; break;
    case -EBUSY: code = EX_TEMPFAIL; break;
    case -EPROTONOSUPPORT:
    case -EBADMSG: code = EX_DATAERR; break;
    default: code = exit_code_of(error);
    }
    if (error == -EACCES)
        return failure_set(f, code, "%s; run this as root or as the router's user", why);
    return failure_set(f, code, "%s", why);
}

int spool_open_for_tool(const char *path, struct spool **ret, struct failure *f)
{
    char why[512] = "out of memory";
    int e = spool_open_readonly(path, ret, why, sizeof(why));

    return e < 0 ? spool_open_failed(e, why, f) : 0;
}

int spool_command_copy(const struct spool_command_line *l)
{
    char why[512], *path;
    struct failure f = { 0 };
    struct spool *s;

    if (spool_folder_of(l, &path, &f) < 0)
        return failure_print(&f);
    umask(0077);
    int r = spool_open_for_tool(path, &s, &f);
    free(path);
    if (r < 0)
        return failure_print(&f);
    r = spool_copy(s, l->to, why, sizeof(why));
    spool_close(s);
    if (r == 0)
        return EX_OK;
    failure_set(&f, r == -EEXIST ? EX_CANTCREAT : exit_code_of(r), "%s", why);
    return failure_print(&f);
}

static const struct {
    const char *name;
    int (*run)(const struct spool_command_line *l);
} forms[] = {
    { "check", spool_command_check },
    { "stats", spool_command_stats },
    { "repair", spool_command_repair },
    { "copy", spool_command_copy },
};

static int run_form(const struct spool_command_line *l, const char *name)
{
    const char *names[ARRAY_LEN(forms)];

    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        names[i] = forms[i].name;
        if (strcmp(forms[i].name, name) == 0)
            return forms[i].run(l);
    }
    const char *near = nearest_name(name, names, ARRAY_LEN(names));
    fprintf(stderr, "tern spool: there is no '%s'%s%s%s; it is check, stats, repair or copy\n",
            name, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return EX_USAGE;
}

int cmd_spool(int argc, char **argv)
{
    struct spool_command_line l = { .client = { .config = DEFAULT_CONFIG } };
    const struct arg_option options[] = {
        CLIENT_OPTIONS(&l.client),
        ARG_TEXT(0, "spool", "FOLDER", &l.folder, "the spool; default: as the configuration says"),
        ARG_FLAG(0, "messages", &l.messages,
                 "stats: also count messages by age and size (reads each one's row)"),
        ARG_FLAG(0, "yes", &l.yes, "repair: do it, instead of saying what would be done"),
    };
    const struct arg_command command = {
        .name = "spool",
        .usage = "spool check [-c FILE | --spool FOLDER] [--json]\n"
                 "spool stats [-c FILE | --spool FOLDER] [--messages] [--json]\n"
                 "spool repair [-c FILE | --spool FOLDER] [--yes]\n"
                 "spool copy FOLDER [-c FILE | --spool FOLDER]",
        .about =
            "check   reads the whole spool and says what in it is wrong, one line for each\n"
            "        problem; beside a running router too, and changes nothing. Ends with 0\n"
            "        when all is well, with 65 when there are problems.\n"
            "stats   sizes, what is in it, and how commits fare: of the running router, or of\n"
            "        the files when none runs (or with --spool).\n"
            "repair  makes indexes and counts anew and drops rows that nothing refers to. The\n"
            "        router must be stopped. Without --yes it only says what is wrong.\n"
            "copy    copies the spool into another folder as it is at this moment, without the\n"
            "        room that is free in its file; beside a running router too.",
        .options = options,
        .n_options = ARRAY_LEN(options),
        .min_operands = 1,
        .max_operands = 2,
    };
    struct arg_list operands;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    l.to = operands.n > 1 ? operands.v[1] : NULL;
    bool copy = strcmp(operands.v[0], "copy") == 0;
    if (copy != (operands.n > 1)) {
        fprintf(stderr, "tern spool%s%s%s\n", copy ? " copy" : ": '",
                copy ? ": which folder shall it go to?" : l.to, copy ? "" : "' is too much");
        return EX_USAGE;
    }
    return run_form(&l, operands.v[0]);
}
