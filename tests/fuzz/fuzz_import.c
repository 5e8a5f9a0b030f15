/* Messages that are handed in, as `tern queue import` does it: an envelope in a line of JSON, and behind it the message
 * (docs/queue.md). What is accepted is what was given, octet for octet, to whom it was given, and is allowed to be in
 * a queue; of what is refused nothing is left.
 *
 * The input: a byte that says how long the flights are in which it comes (0: one), the envelope, a line feed, the
 * message. */
#include <jansson.h>

#include "control_world.h"
#include "daemon/control_client.h"

enum { HEAD_TEXT = 200, MAX_LINE = 998 };

static unsigned answer_to(struct run *x, struct str request, struct str *ret_body)
{
    struct http_head head;

    talk(x, request);
    struct str out = buf_str(&x->answer);
    if (http_head_parse(out, &head) != 1)
        return 0;
    *ret_body = str_from(out, head.head);
    CHECK(head.length >= 0 && (uint64_t)head.length == ret_body->n);
    return head.status;
}

static json_t *get(struct run *x, const char *id)
{
    char request[HEAD_TEXT];
    struct str body;

    snprintf(request, sizeof(request), "GET /v1/messages/%s HTTP/1.1\r\nHost: t\r\n\r\n", id);
    CHECK(answer_to(x, str_of(request), &body) == 200);
    json_t *o = json_loadb(body.p, body.n, 0, NULL);
    CHECK(json_is_object(o));
    return o;
}

/* Text is made of lines; in binary mail the header block is. */
static void check_text(struct str s, bool binary)
{
    size_t line = 0;

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\r' && i + 1 < s.n && s.p[i + 1] == '\n') {
            if (binary && line == 0)
                return;
            line = 0;
            i++;
            continue;
        }
        CHECK(s.p[i] != '\r' && s.p[i] != '\n' && s.p[i] != '\0');
        CHECK(++line <= MAX_LINE);
    }
}

static void check_content(struct run *x, const char *id, struct str content)
{
    char request[HEAD_TEXT];
    struct http_head head;

    snprintf(request, sizeof(request),
             "GET /v1/messages/%s/content HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", id);
    talk(x, str_of(request));
    CHECK(http_head_parse(buf_str(&x->answer), &head) == 1 && head.status == 200);
    CHECK(str_ends(buf_str(&x->answer), content) ||
          str_ends(str_first(buf_str(&x->answer), buf_len(&x->answer) - 2), content));
}

static struct str text_of(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);

    return json_is_string(v) ? str_make(json_string_value(v), json_string_length(v)) : STR_NONE;
}

/* The envelope that was given, beside what is in the queue. */
static void check_accepted(struct run *x, struct str envelope, struct str content, struct str body)
{
    json_t *given = json_loadb(envelope.p, envelope.n, JSON_REJECT_DUPLICATES, NULL);
    json_t *answer = json_loadb(body.p, body.n, 0, NULL), *list;
    const char *id = json_text_of(answer, "id");

    CHECK(json_is_object(given) && json_is_object(answer));
    list = json_object_get(given, "recipients");
    CHECK(json_is_array(list) && json_array_size(list) > 0);
    CHECK((size_t)json_int_of(answer, "recipients") == json_array_size(list));
    check_text(content, json_is_true(json_object_get(given, "binary")));
    json_t *stored = get(x, id);
    const json_t *of = json_object_get(stored, "message");
    CHECK(str_eq(text_of(of ? of : stored, "sender"), text_of(given, "sender")));
    check_content(x, id, content);
    json_decref(stored);
    json_decref(given);
    json_decref(answer);
}

/* The request, in flights of so many octets. */
static void write_request(struct buf *out, struct str in, size_t step)
{
    buf_printf(out, "POST /v1/messages HTTP/1.1\r\nHost: t\r\nContent-Length: %zu\r\n\r\n", in.n);
    for (; in.n; in = str_from(in, step)) {
        buf_add_str(out, str_first(in, step));
        if (in.n > step)
            buf_add_char(out, FLIGHT_END);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_make(data + 1, size ? size - 1 : 0), content = in, envelope, body = STR("");
    struct buf request;
    struct run x;

    if (size == 0 || str_chr(in, FLIGHT_END) >= 0 || !str_cut(&content, '\n', &envelope))
        return 0;
    begin(&x);
    size_t before = sim_spool_messages(sim_world_spool(x.w));
    buf_init(&request, 0);
    write_request(&request, in, data[0] ? 16u * data[0] : in.n + 1);
    unsigned status = answer_to(&x, buf_str(&request), &body);
    size_t after = sim_spool_messages(sim_world_spool(x.w));
    if (status == 201 && after > before) {
        struct buf kept; /* the next answer takes its place */
        buf_init(&kept, 0);
        CHECK(buf_add_str(&kept, body) == 0);
        check_accepted(&x, envelope, content.p ? content : STR(""), buf_str(&kept));
        buf_done(&kept);
    } else if (status != 201) {
        CHECK(status == 0 || (status >= 400 && status != 500));
        CHECK(after == before);
    }
    sim_world_advance(x.w, SIM_MINUTE);
    CHECK(sim_spool_staged(sim_world_spool(x.w)) == 0);
    buf_done(&request);
    end(&x);
    return 0;
}
