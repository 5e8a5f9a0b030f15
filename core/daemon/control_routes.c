/* control_routes.c - which function serves what. Layer: daemon. Interface: control_call.h. */
#include "daemon/control_call.h"

/* A '?' is one part of the path, whatever it says. Arguments of the query that are not listed are errors. */
static const struct {
    const char *method, *path, *arguments;
    void (*serve)(struct control_call *c);
} routes[] = {
    { "GET", "v1/status", "", control_serve_status },
    { "GET", "v1/spool", "", control_serve_spool },
    { "GET", "metrics", "", control_serve_metrics },
    { "POST", "v1/reload", "", control_serve_reload },
    { "GET", "v1/queues", "after limit", control_serve_queues },
    { "GET", "v1/queues/?", "", control_serve_queue },
    { "POST", "v1/queues/?/hold", "", control_serve_queue_command },
    { "POST", "v1/queues/?/unhold", "", control_serve_queue_command },
    { "POST", "v1/queues/?/retry", "", control_serve_queue_command },
    { "POST", "v1/queues/?/remove", "", control_serve_queue_command },
    { "GET", "v1/messages",
      "after limit queue destination sender recipient older newer larger smaller state reply route "
      "policy",
      control_serve_messages },
    { "POST", "v1/messages", "", control_serve_import },
    { "GET", "v1/messages/?", "after limit", control_serve_message },
    { "GET", "v1/messages/?/content", "", control_serve_content },
    { "GET", "v1/messages/?/why", "after limit", control_serve_why },
    { "POST", "v1/messages/?/hold", "", control_serve_message_command },
    { "POST", "v1/messages/?/unhold", "", control_serve_message_command },
    { "POST", "v1/messages/?/retry", "", control_serve_message_command },
    { "POST", "v1/messages/?/remove", "", control_serve_message_command },
    { "POST", "v1/messages/?/bounce", "", control_serve_message_command },
    { "GET", "v1/queue/operations", "", control_serve_operations },
    { "POST", "v1/queue/operations", "", control_serve_operation_start },
    { "GET", "v1/queue/operations/?", "wait", control_serve_operation },
    { "DELETE", "v1/queue/operations/?", "", control_serve_operation_cancel },
    { "GET", "v1/tls-reports", "day after limit", control_serve_tls_reports },
    { "GET", "v1/tls-reports/?", "day", control_serve_tls_reports },
    { "POST", "v1/etrn", "", control_serve_etrn },
};

void control_route(struct control_call *c)
{
    const struct control_request *r = &c->request;
    /* HEAD is GET without the body, which the library leaves out. */
    const char *method = str_eq(r->method, STR("HEAD")) ? "GET" : r->method.p;
    bool path_known = false;

    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (!control_request_path_is(r, routes[i].path))
            continue;
        path_known = true;
        if (!str_eq(str_of(method), str_of(routes[i].method)))
            continue;
        const char *unknown = control_request_unknown(r, routes[i].arguments);
        if (unknown)
            control_error(c, 400, "bad_argument", "there is no argument '%s' here", unknown);
        else
            routes[i].serve(c);
        return;
    }
    if (path_known)
        control_error(c, 405, "bad_method", "that cannot be done with %s", r->method.p);
    else
        control_error(c, 404, "no_such_endpoint", "there is nothing under that path");
}
