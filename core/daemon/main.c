/* main.c - the program: finds the subcommand and runs it. Layer: daemon. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/args.h"
#include "daemon/cmd.h"

static const struct {
    const char *name, *about;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "run", "start the router", cmd_run },
    { "check", "load a configuration and say whether it is right", cmd_check },
    { "test", "run the tests of policies on simulated hosts", cmd_test },
    { "status", "what the running router does", cmd_status },
    { "queue", "list, show, hold, release, retry, remove or bounce queued mail", cmd_queue },
    { "explain", "what would become of a mail, and why; changes nothing", cmd_explain },
    { "why", "why a message is still here, and what would make it go sooner", cmd_why },
    { "etrn", "let waiting mail of a domain go (as its ETRN would)", cmd_etrn },
    { "tls-report", "how TLS with the MX of domains fared, day by day", cmd_tls_report },
    { "spool", "check, measure, repair or copy the files of the queue", cmd_spool },
    { "reload", "make the running router load its configuration anew", cmd_reload },
    { "password", "make an entry of a password file", cmd_password },
    { "sink", "a mail server that takes everything, for tests and demonstrations", cmd_sink },
};

static int help(void)
{
    printf("Usage: tern COMMAND [OPTION ...]\n\n"
           "Tern is a mail router that Lua policies decide for.\n\nCommands:\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        printf("  %-10s  %s\n", commands[i].name, commands[i].about);
    printf("\n'tern COMMAND --help' says more of a command, 'tern --version' which version this "
           "is.\nThe configuration is %s; -c FILE names another one.\n",
           DEFAULT_CONFIG);
    return EX_OK;
}

static int unknown(const char *name)
{
    const char *names[ARRAY_LEN(commands)];

    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        names[i] = commands[i].name;
    const char *near = nearest_name(name, names, ARRAY_LEN(commands));
    fprintf(stderr, "tern: unknown command '%s'", name);
    if (near)
        fprintf(stderr, "; did you mean '%s'?", near);
    fprintf(stderr, "\nTry 'tern --help'.\n");
    return EX_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "tern: which command? Try 'tern --help'.\n");
        return EX_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("tern %s\n", TERN_VERSION);
        return EX_OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0)
        return help();
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return unknown(argv[1]);
}
