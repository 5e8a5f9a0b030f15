/* cmd_reload.c - tern reload: the running router loads its configuration anew. Layer: daemon. */
#include <inttypes.h>
#include <sysexits.h>

#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/control_client.h"

int cmd_reload(int argc, char **argv)
{
    struct client client = { .config = DEFAULT_CONFIG };
    const struct arg_option options[] = { CLIENT_OPTIONS(&client) };
    const struct arg_command command = {
        .name = "reload",
        .usage = "reload [-c FILE] [--json]",
        .about =
            "Makes the running router load its configuration, policies and certificates anew.\n"
            "When anything is wrong with them it says so, and goes on with those it has.\n"
            "Sessions and deliveries that have begun end as they began.",
        .options = options,
        .n_options = ARRAY_LEN(options),
    };
    struct arg_list operands;
    struct failure f = { 0 };
    json_t *answer;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    if (client_ask(&client, "POST", "/v1/reload", NULL, &answer, &f) < 0)
        return failure_print(&f);
    if (client.json)
        client_print_json(answer);
    else if (json_is_true(json_object_get(answer, "reloaded")))
        printf("reloaded: generation %" PRId64 "\n", json_int_of(answer, "generation"));
    else
        printf("%s\n", json_text_of(answer, "message"));
    json_decref(answer);
    return EX_OK;
}
