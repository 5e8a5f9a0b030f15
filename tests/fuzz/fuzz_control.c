/* The control API as a client sees it: any bytes on the socket, through the HTTP library, the routes and those who
 * serve them, to an engine with a few messages in its queue (simulated), and back.
 *
 * The input is what the client sends, in flights parted by 0x1e; then it sends no more. Whatever comes back is a
 * row of answers as docs/control-api.md promises, and the spool's tables agree. */
#include <jansson.h>

#include "control_world.h"
#include "daemon/control_client.h"

/* ---- what came back ---- */

static void check_json(unsigned status, struct str body)
{
    json_error_t error;

    CHECK(str_is_utf8(body) && str_ends(body, STR("\n")));
    json_t *o = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &error);
    CHECK(json_is_object(o));
    if (status >= 400)
        CHECK(json_is_string(json_object_get(o, "error")) &&
              json_is_string(json_object_get(o, "message")));
    json_decref(o);
}

static void check_answers(struct str out, bool bodies)
{
    struct http_head head;

    while (out.n) {
        int r = http_head_parse(out, &head);
        CHECK(r >= 0);
        if (r == 0)
            return; /* it was closed in the middle */
        CHECK(head.status != 500);
        struct str text = str_first(out, head.head);
        out = str_from(out, head.head);
        if (head.status == 100)
            continue;
        if (head.length < 0 || !bodies || (uint64_t)head.length > out.n)
            return;
        struct str body = str_first(out, (size_t)head.length);
        if (str_find(text, STR("\r\nContent-Type: application/json\r\n")) >= 0)
            check_json(head.status, body);
        out = str_from(out, body.n);
    }
}

static void run(struct str in, bool must_answer)
{
    struct run x;

    begin(&x);
    talk(&x, in);
    check_answers(buf_str(&x.answer), str_find(in, STR("HEAD")) < 0);
    CHECK(!must_answer || str_starts(buf_str(&x.answer), STR("HTTP/1.1 200 OK\r\n")));
    end(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool begun;

    if (!begun) /* that there is somebody who answers */
        run(STR("GET /v1/queues HTTP/1.1\r\nHost: t\r\n\r\n"), true);
    begun = true;
    run(str_make(data, size), false);
    return 0;
}
