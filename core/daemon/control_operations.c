/* control_operations.c - operations on the queue: what is asked for, and how they fare.
 *
 * Layer: daemon, main thread. Interface: control_call.h; the work is done in operations.c.
 */
#include "daemon/operations.h"
#include "mail/address.h"

static const struct action {
    const char *name;
    enum queue_batch_type type;
} actions[] = {
    { "hold", BATCH_HOLD },       { "release", BATCH_RELEASE }, { "retry", BATCH_RETRY },
    { "reroute", BATCH_REROUTE }, { "remove", BATCH_REMOVE },   { "bounce", BATCH_BOUNCE },
    { "edit", BATCH_EDIT },
};

/* ---- the body --------------------------------------------------------------------------------- */

/* A mistake in what is about to change much must not go by in silence. */
static bool known_fields(struct control_call *c)
{
    static const char *const names[] = { "action",  "filter", "ids", "all",
                                         "dry_run", "reason", "to",  NULL };
    const char *name;
    json_t *value;

    json_object_foreach(c->input, name, value)
    {
        size_t i = 0;
        while (names[i] && strcmp(names[i], name) != 0)
            i++;
        if (!names[i]) {
            control_error(c, 400, "bad_body", "there is no field '%.80s' here", name);
            return false;
        }
    }
    return true;
}

/* False: the call has been answered. */
static bool input_flag(struct control_call *c, const char *name, bool *ret)
{
    json_t *value = json_object_get(c->input, name);

    *ret = json_is_true(value);
    if (!value || json_is_boolean(value))
        return true;
    control_error(c, 400, "bad_body", "'%s' must be true or false", name);
    return false;
}

static bool read_action(struct control_call *c, struct operation_order *o)
{
    struct str name;

    if (!control_input_text(c, "action", true, &name))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        if (str_eq(name, str_of(actions[i].name))) {
            o->action = actions[i].name;
            o->type = actions[i].type;
            return true;
        }
    control_error(c, 400, "bad_body",
                  "'action' must be hold, release, retry, reroute, remove, bounce or edit");
    return false;
}

static bool read_filter(struct control_call *c, struct operation_order *o)
{
    json_t *filter = json_object_get(c->input, "filter"), *value;
    char error[QUEUE_FILTER_ERROR];
    const char *name;
    int e = 0;

    if (filter && !json_is_object(filter)) {
        control_error(c, 400, "bad_body", "'filter' must be an object");
        return false;
    }
    o->told_filter = filter ? json_incref(filter) : json_object();
    json_object_foreach(filter, name, value)
    {
        if (!json_is_string(value)) {
            control_error(c, 400, "bad_filter", "'%.80s' must be a string", name);
            return false;
        }
        e = queue_filter_set(&o->filter, str_of(name),
                             str_make(json_string_value(value), json_string_length(value)), error);
        if (e < 0)
            break;
    }
    if (e == 0)
        e = queue_filter_check(&o->filter, error);
    if (e < 0)
        control_error(c, e == -ENOMEM ? 500 : 400, e == -ENOMEM ? "failed" : "bad_filter", "%s",
                      error);
    return e == 0;
}

static int by_id(const void *a, const void *b)
{
    return msgid_cmp(a, b);
}

/* Ids that are given twice (those of a list of recipients are) mean the message once. */
static void drop_repeated_ids(struct operation_order *o)
{
    size_t kept = 1;

    qsort(o->ids, o->n_ids, sizeof(*o->ids), by_id);
    for (size_t i = 1; i < o->n_ids; i++)
        if (msgid_cmp(&o->ids[i], &o->ids[kept - 1]) != 0)
            o->ids[kept++] = o->ids[i];
    o->n_ids = kept;
}

static bool read_ids(struct control_call *c, struct operation_order *o)
{
    json_t *ids = json_object_get(c->input, "ids"), *value;
    size_t i;

    if (!ids)
        return true;
    if (!json_is_array(ids) || json_array_size(ids) == 0 || json_array_size(ids) > OPERATION_IDS) {
        control_error(c, 400, "bad_body", "'ids' must be an array of 1 to %d ids of messages",
                      OPERATION_IDS);
        return false;
    }
    o->ids = calloc(json_array_size(ids), sizeof(*o->ids));
    if (!o->ids) {
        control_errno(c, -ENOMEM);
        return false;
    }
    json_array_foreach(ids, i, value)
    {
        const char *text = json_string_value(value);
        if (!text || msgid_parse(str_of(text), &o->ids[o->n_ids++]) < 0) {
            control_error(c, 400, "bad_id",
                          "'%.64s' is no id of a message: it has 26 letters and digits",
                          text ? text : "");
            return false;
        }
    }
    drop_repeated_ids(o);
    return true;
}

/* What the sender is told: one line of text. */
static bool read_reason(struct control_call *c, struct operation_order *o)
{
    struct str reason;

    if (!control_input_text(c, "reason", false, &reason))
        return false;
    if (reason.p && o->type != BATCH_BOUNCE) {
        control_error(c, 400, "bad_body", "only 'bounce' takes a 'reason'");
        return false;
    }
    for (size_t i = 0; i < reason.n; i++)
        if ((unsigned char)reason.p[i] < ' ' || reason.p[i] == 127) {
            control_error(c, 400, "bad_body", "'reason' must be one line of text");
            return false;
        }
    if (str_copy(reason, o->reason, sizeof(o->reason)))
        return true;
    control_error(c, 400, "bad_body", "'reason' has more than %d octets", QUEUE_BATCH_TEXT - 1);
    return false;
}

static bool read_address(struct control_call *c, struct operation_order *o)
{
    struct address address;
    struct arena scratch;
    struct str to;

    if (!control_input_text(c, "to", false, &to))
        return false;
    if ((to.p != NULL) != (o->type == BATCH_EDIT)) {
        control_error(c, 400, "bad_body",
                      to.p ? "only 'edit' takes 'to'" : "'to' is missing: the new address");
        return false;
    }
    if (!to.p)
        return true;
    arena_init(&scratch, 0);
    int e = str_is_ascii(to) ? address_parse(&scratch, to, &address) : -EINVAL;
    bool ok = e == 0 && address.domain.n && str_copy(to, o->address, sizeof(o->address));
    arena_done(&scratch);
    if (e == -ENOMEM)
        control_errno(c, e);
    else if (!ok)
        control_error(c, 400, "bad_body",
                      "'to': '" STR_FMT "' is no address user@example.com (in ASCII: an "
                      "international domain as xn--...)",
                      STR_ARG(str_first(to, 80)));
    return ok;
}

/* All of the queue is nobody's mistake. */
static bool check_scope(struct control_call *c, struct operation_order *o)
{
    bool all, narrowed = o->filter.n || o->ids;

    if (!input_flag(c, "all", &all) || !input_flag(c, "dry_run", &o->dry_run))
        return false;
    if (!narrowed && !all) {
        control_error(c, 400, "bad_body",
                      "neither 'ids' nor a 'filter': what is all of the queue needs \"all\": true");
        return false;
    }
    if (narrowed && all) {
        control_error(c, 400, "bad_body",
                      "\"all\" means everything: it does not go with 'ids' or a 'filter'");
        return false;
    }
    if (o->filter.state == FILTER_ACTIVE && !o->dry_run) {
        control_error(c, 400, "bad_filter",
                      "what is being delivered cannot be changed: 'state' may be active only when "
                      "it is listed or counted (dry_run)");
        return false;
    }
    return true;
}

static bool read_order(struct control_call *c, struct operation_order *o)
{
    return known_fields(c) && read_action(c, o) && read_filter(c, o) && read_ids(c, o) &&
           read_reason(c, o) && read_address(c, o) && check_scope(c, o);
}

/* ---- who serves ------------------------------------------------------------------------------- */

void control_serve_operation_start(struct control_call *c)
{
    struct operation_order *o = calloc(1, sizeof(*o));
    struct operation *op;

    if (!o) {
        control_errno(c, -ENOMEM);
        return;
    }
    queue_filter_init(&o->filter);
    if (!read_order(c, o)) {
        operation_order_done(o);
        free(o);
        return;
    }
    int e = operation_start(c->router->operations, o, &op);
    free(o);
    if (e == -EBUSY)
        control_error(c, 409, "too_many",
                      "%d operations are running, which is the most: wait for one of them, or "
                      "cancel it",
                      OPERATIONS_RUNNING);
    else if (e < 0)
        control_errno(c, e);
    else
        control_answer(c, 201, operation_json(op));
}

void control_serve_operations(struct control_call *c)
{
    control_answer(c, 200, operations_json(c->router->operations));
}

/* NULL: the call has been answered. */
static struct operation *named(struct control_call *c)
{
    struct operation *op = operation_find(c->router->operations, c->request.segment[3]);

    if (!op)
        control_error(c, 404, "no_such_operation",
                      "there is no operation " STR_FMT
                      ": the router has been started anew, or it ended long ago",
                      STR_ARG(str_first(c->request.segment[3], 64)));
    return op;
}

void control_serve_operation(struct control_call *c)
{
    struct operation *op = named(c);
    struct str wait = control_request_arg(&c->request, "wait");

    if (!op)
        return;
    if (wait.p && !str_eq(wait, STR("true")) && !str_eq(wait, STR("false"))) {
        control_error(c, 400, "bad_argument", "'wait' must be true or false");
        return;
    }
    if (!str_eq(wait, STR("true")) || operation_ended(op))
        control_answer(c, 200, operation_json(op));
    else if (operation_wait(op, c) < 0)
        control_errno(c, -ENOMEM);
}

void control_serve_operation_cancel(struct control_call *c)
{
    struct operation *op = named(c);

    if (!op)
        return;
    operation_cancel(op);
    control_answer(c, 200, operation_json(op));
}
