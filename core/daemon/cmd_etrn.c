/* cmd_etrn.c - tern etrn: lets waiting mail of a domain go. Layer: daemon. */
#include <inttypes.h>
#include <sysexits.h>

#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/control_client.h"

int cmd_etrn(int argc, char **argv)
{
    struct client client = { .config = DEFAULT_CONFIG };
    const struct arg_option options[] = { CLIENT_OPTIONS(&client) };
    const struct arg_command command = {
        .name = "etrn",
        .usage = "etrn DOMAIN [-c FILE] [--json]",
        .about =
            "Lets the mail go that waits for DOMAIN, as if its server had said ETRN DOMAIN: the "
            "policy\nof the domain is asked in the same way. '@DOMAIN' means its subdomains "
            "too, '#NAME' a queue.",
        .options = options,
        .n_options = ARRAY_LEN(options),
        .min_operands = 1,
        .max_operands = 1,
    };
    struct arg_list operands;
    struct failure f = { 0 };
    json_t *answer;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    const char *domain = operands.v[0];
    char option[2] = { *domain == '@' || *domain == '#' ? *domain : '\0', '\0' };
    json_t *body = json_pack("{s:s, s:s}", "domain", domain + (*option ? 1 : 0), "option", option);
    if (!body) {
        failure_set(&f, EX_DATAERR, "the domain must be UTF-8");
        return failure_print(&f);
    }
    if (client_ask(&client, "POST", "/v1/etrn", body, &answer, &f) < 0)
        return failure_print(&f);
    if (client.json)
        client_print_json(answer);
    else
        printf("%" PRId64 " %s\n", json_int_of(answer, "code"), json_text_of(answer, "message"));
    json_decref(answer);
    return EX_OK;
}
