/* Records of the spool: whatever decodes is encoded to the same bytes again. */
#include "mail/history.h"
#include "mail/message.h"
#include "mail/schedule.h"

static void check_message(struct str in)
{
    static const struct msgid id;
    struct message *m;
    struct buf out;

    if (message_decode(&id, in, &m) < 0)
        return;
    buf_init(&out, 0);
    if (message_encode(m, &out) == 0)
        CHECK(str_eq(buf_str(&out), in));
    buf_done(&out);
    message_unref(m);
}

static void check_recipient(struct str in)
{
    struct recipient r;
    struct arena a;
    struct buf out;

    arena_init(&a, 0);
    if (recipient_decode(&a, 1, in, &r) == 0) {
        buf_init(&out, 0);
        CHECK(recipient_encode(&r, &out) == 0);
        CHECK(str_eq(buf_str(&out), in));
        recipient_done(&r);
        buf_done(&out);
    }
    arena_done(&a);
}

static void check_route(struct str in)
{
    struct str rest = in;
    struct route *r;
    struct buf out;

    if (route_decode(&rest, &r) < 0)
        return;
    buf_init(&out, 0);
    CHECK(route_finish(r) == 0);
    CHECK(route_encode(r, &out) == 0);
    CHECK(str_eq(buf_str(&out), str_first(in, in.n - rest.n)));
    buf_clear(&out);
    route_describe(r, &out);
    CHECK(schedule_delay(&r->retry, 100) >= 1000);
    buf_done(&out);
    route_unref(r);
}

/* Texts that operators write: their values have texts that give the same values. */
static void check_texts(struct str in)
{
    struct schedule s, again;
    struct route_target t;
    struct arena a;
    char text[512];

    if (schedule_parse(in, &s) == 0) {
        CHECK(schedule_parse(str_of(schedule_text(&s, text, sizeof(text))), &again) == 0);
        CHECK(memcmp(&s, &again, sizeof(s)) == 0);
    }
    arena_init(&a, 0);
    if (route_target_parse(&a, in, true, &t) == 0) {
        CHECK(str_eq(t.text, in));
        CHECK((t.host.n > 0) == (t.addr.family == NET_NONE));
    }
    arena_done(&a);
}

/* Whatever is there, an attempt more is within the limit, and stands at the end. */
static void check_history(struct str in)
{
    const struct history_try try = { .host = in,
                                     .stage = in,
                                     .reply = { .code = 451, .text = in } };
    const struct history_attempt attempt = { .number = 77, .tries = &try, .n_tries = 1 };
    struct history h;
    struct arena a;
    struct buf out;

    arena_init(&a, 0);
    buf_init(&out, 0);
    CHECK(history_add(&a, in, &attempt, NULL, HISTORY_SMALL, &out) == 0);
    CHECK(buf_len(&out) <= HISTORY_SMALL);
    CHECK(history_decode(&a, buf_str(&out), &h) == 0);
    CHECK(h.n >= 1 && h.attempts[h.n - 1].number == 77);
    buf_done(&out);
    arena_done(&a);
}

/* The first byte says what the rest is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;

    struct str in = str_make(data + 1, size - 1);
    switch (data[0] % 5) {
    case 0: check_message(in); break;
    case 1: check_recipient(in); break;
    case 2: check_route(in); break;
    case 3: check_texts(in); break;
    default: check_history(in); break;
    }
    return 0;
}
