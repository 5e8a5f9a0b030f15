/* cmd_run.c - tern run: the router, until a signal ends it. Layer: daemon. */
#include <malloc.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/router.h"

/* --debug, else $TERN_LOG, else info. */
static int read_level(bool debug, enum event_level *ret)
{
    const char *text = getenv("TERN_LOG");

    *ret = debug ? EVENT_DEBUG : EVENT_INFO;
    if (debug || !text || !*text || event_level_parse(text, ret))
        return 0;
    fprintf(stderr, "tern: TERN_LOG is '%s'; it may be debug, info, warn or error\n", text);
    return -1;
}

/* A message takes and gives back memory in pieces of up to 64 KiB: by default nearly each of them ends in a system
 * call, because the end of a thread's heap is given back at 128 KiB. */
static void keep_some_memory(void)
{
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

int cmd_run(int argc, char **argv)
{
    struct router_options o = { .config = DEFAULT_CONFIG, .user = getenv("TERN_USER") };
    bool debug = false;
    const struct arg_option options[] = {
        ARG_CONFIG(&o.config),
        ARG_TEXT('u', "user", "NAME", &o.user,
                 "whom to become when root starts it, instead of the 'user' of the\n"
                 "configuration (as does TERN_USER); root: stay root"),
        ARG_FLAG(0, "debug", &debug, "log more: each session, each step (as does TERN_LOG=debug)"),
    };
    const struct arg_command command = {
        .name = "run",
        .usage = "run [-c FILE] [--user NAME] [--debug]",
        .about = "Runs the router in the foreground. The log goes where 'log' of the configuration "
                 "says,\nby default to stdout. Started by root it takes its ports and becomes an "
                 "ordinary user:\nwhom 'user' of the configuration names, by default tern.\n\n"
                 "SIGTERM, SIGINT  end it: what was begun may end within timeouts.shutdown\n"
                 "SIGHUP           loads the configuration anew, like 'tern reload'\n"
                 "SIGUSR1          opens the log file anew",
        .options = options,
        .n_options = ARRAY_LEN(options),
    };
    struct arg_list operands;
    struct failure f = { 0 };
    struct router *r;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    if (read_level(debug, &o.level) < 0)
        return EX_USAGE;
    umask(0027);
    keep_some_memory();
    if (router_new(&o, &r, &f) < 0)
        return failure_print(&f);
    router_run(r);
    router_free(r);
    return EX_OK;
}
