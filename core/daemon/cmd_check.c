/* cmd_check.c - tern check: is this configuration right? Layer: daemon. */
#include <jansson.h>
#include <stdio.h>
#include <sysexits.h>
#include <time.h>

#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/load.h"
#include "daemon/local_sources.h"

/* Policies are set up as a worker would, so that what only shows then is found too. */
static int check_policies(struct loaded *l, uint32_t *ret_hooks, struct failure *f)
{
    struct policy_error *err = calloc(1, sizeof(*err));
    struct ports none = { 0 };
    struct hooks *hooks = NULL;
    int r = err ? policy_vm_new(l->source, l->settings, &none, &hooks, err) : -ENOMEM;

    if (r == 0) {
        *ret_hooks = hooks->present;
        hooks->free(hooks);
    } else if (err) {
        failure_from_policy(f, err);
    } else {
        failure_set(f, EX_SOFTWARE, "out of memory");
    }
    free(err);
    return r < 0 ? -1 : 0;
}

static void print_summary(const struct loaded *l, uint32_t hooks)
{
    const struct settings *set = l->settings;

    printf("ok: " STR_FMT ": " STR_FMT " listens on", STR_ARG(set->file), STR_ARG(set->hostname));
    for (size_t i = 0; i < set->n_listen; i++)
        printf("%s " STR_FMT, i ? "," : "", STR_ARG(set->listen[i].text));
    printf("; spool " STR_FMT "; %u worker%s; TLS %s; hooks:", STR_ARG(set->spool), set->workers,
           set->workers == 1 ? "" : "s", tls_context_serves(l->tls) ? "offered" : "not offered");
    for (int h = 0; h < HOOK_COUNT; h++)
        if (hooks >> h & 1)
            printf(" %s", hook_name((enum hook)h));
    putchar('\n');
}

/* Into the list, or, where there is none, to the terminal. */
static void check_certificates(const struct loaded *l, json_t *warnings)
{
    char text[LOAD_TROUBLE_TEXT];

    for (size_t i = 0; i < tls_context_certificates(l->tls); i++) {
        if (!load_certificate_trouble(tls_context_certificate(l->tls, i), time(NULL), text))
            continue;
        if (warnings)
            json_array_append_new(warnings, json_string(text));
        else
            fprintf(stderr, "tern: warning: %s\n", text);
    }
}

static void print_json(const struct loaded *l, uint32_t hooks)
{
    const struct settings *set = l->settings;
    json_t *listen = json_array(), *names = json_array(), *warnings = json_array();

    for (size_t i = 0; i < set->n_listen; i++)
        json_array_append_new(listen, json_stringn(set->listen[i].text.p, set->listen[i].text.n));
    for (int h = 0; h < HOOK_COUNT; h++)
        if (hooks >> h & 1)
            json_array_append_new(names, json_string(hook_name((enum hook)h)));
    local_sources_check(set, warnings);
    check_certificates(l, warnings);
    json_t *o = json_pack(
        "{s:b, s:s%, s:s%, s:s%, s:s%, s:i, s:b, s:o, s:o, s:o}", "ok", 1, "config", set->file.p,
        set->file.n, "hostname", set->hostname.p, set->hostname.n, "spool", set->spool.p,
        set->spool.n, "control", set->control.p, set->control.n, "workers", (int)set->workers,
        "tls", tls_context_serves(l->tls), "listen", listen, "hooks", names, "warnings", warnings);
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

static int complain(const struct failure *f, bool json)
{
    if (json) {
        json_t *o = json_pack("{s:b, s:s, s:s, s:i}", "ok", 0, "message", f->text, "detail",
                              f->detail, "exit_code", f->exit_code);
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
    }
    return failure_print(f);
}

int cmd_check(int argc, char **argv)
{
    const char *config = DEFAULT_CONFIG;
    bool json = false;
    const struct arg_option options[] = { ARG_CONFIG(&config), ARG_JSON(&json) };
    const struct arg_command command = {
        .name = "check",
        .usage = "check [-c FILE] [--json]",
        .about = "Loads the configuration with its policies and certificates, as the router would, "
                 "and says\nwhat is wrong with it. Opens no spool and no port.",
        .options = options,
        .n_options = ARRAY_LEN(options),
    };
    struct arg_list operands;
    struct failure f = { 0 };
    struct loaded l;
    uint32_t hooks = 0;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    if (load_configuration(config, NULL, &l, &f) < 0)
        return complain(&f, json);
    int r = check_policies(&l, &hooks, &f);
    if (r == 0 && json)
        print_json(&l, hooks);
    else if (r == 0)
        print_summary(&l, hooks);
    if (r == 0 && !json) {
        local_sources_check(l.settings, NULL);
        check_certificates(&l, NULL);
    }
    loaded_done(&l);
    return r < 0 ? complain(&f, json) : EX_OK;
}
