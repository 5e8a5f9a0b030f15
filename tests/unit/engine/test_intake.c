/* test_intake.c - a message on its way into the spool, against a world of fakes.
 *
 * Long, because a message has many ways out of its few steps, and each is a case on the same client. */
#include "unit/engine/in_world.h"

struct client {
    struct world *w;
    struct net_addr client, local;
    struct session_view view;
    struct intake *in;
    size_t ready, done;
    uint16_t code;
    char reply[256];
};

static int setup(void **state)
{
    struct client *c = calloc(1, sizeof(*c));

    c->w = world_new();
    c->view.id = 5;
    c->view.helo = STR("client.example");
    c->view.extended = true;
    net_addr_parse_ip(STR("203.0.113.9"), &c->client);
    c->view.client = &c->client;
    c->view.local = &c->local;
    *state = c;
    return 0;
}

static int teardown(void **state)
{
    struct client *c = *state;

    intake_abort(c->in);
    settle(c->w);
    world_free(c->w);
    free(c);
    return 0;
}

static void on_ready(void *owner)
{
    struct client *c = owner;

    c->ready++;
}

static void on_done(void *owner, const struct smtp_reply *reply)
{
    struct client *c = owner;
    char enhanced[16];

    c->in = NULL;
    c->done++;
    c->code = reply->code;
    snprintf(c->reply, sizeof(c->reply), "%u %s" STR_FMT, (unsigned)reply->code,
             smtp_enhanced_text(reply->enhanced, enhanced), STR_ARG(reply->text));
}

static void begin_as(struct client *c, const struct session_view *view, const char *sender,
                     uint32_t flags)
{
    struct intake_source src = { .session = view, .snapshot = c->w->snapshot, .flags = flags };
    struct arena a;

    arena_init(&a, 0);
    assert_int_equal(address_parse(&a, str_of(sender), &src.sender), 0);
    c->in = intake_new(&c->w->e, &src, c);
    assert_non_null(c->in);
    arena_done(&a);
    c->done = c->ready = 0;
}

static void begin(struct client *c)
{
    begin_as(c, &c->view, "a@b.example", 0);
}

static void to(struct client *c, const char *recipient)
{
    struct address address;
    struct arena a;

    arena_init(&a, 0);
    assert_int_equal(address_parse(&a, str_of(recipient), &address), 0);
    assert_int_equal(intake_add_recipient(c->in, &address, NULL, STR("rcpt.lua:1")), 0);
    arena_done(&a);
}

static void finish(struct client *c)
{
    intake_finish(c->in, on_done);
    assert_int_equal(c->done, 0); /* never from inside the call */
    settle(c->w);
}

static void message(struct client *c, const char *text)
{
    begin(c);
    to(c, "u@own.example");
    assert_int_equal(intake_body(c->in, str_of(text), on_ready), 0);
    finish(c);
}

static void assert_reply(const struct client *c, const char *reply)
{
    assert_int_equal(c->done, 1);
    assert_string_equal(c->reply, reply);
}

static void assert_queued(const struct client *c)
{
    assert_int_equal(c->done, 1);
    assert_int_equal(c->code, 250);
}

/* What follows our Received. */
static struct str original(struct client *c, size_t n)
{
    struct str content = content_of(c->w, n);
    ptrdiff_t end = str_find(content, STR(" +0000\r\n"));

    assert_true(str_starts(content, STR("Received: from client.example")));
    assert_true(end > 0);
    return str_from(content, (size_t)end + 8);
}

static void assert_str(struct str s, const char *expected)
{
    if (!str_eq(s, str_of(expected)))
        fail_msg("\"" STR_FMT "\" is not \"%s\"", STR_ARG(s), expected);
}

/* ---- content ---- */

static void test_small(void **state)
{
    struct client *c = *state;

    message(c, "Subject: x\r\n\r\nbody\r\n");
    assert_queued(c);
    assert_str(original(c, 0), "Subject: x\r\n\r\nbody\r\n");
    assert_int_equal(c->w->units, 1);
    assert_int_equal(c->w->arrived_recipients, 1);
    assert_int_equal(c->w->messages_closed, 1);
    assert_str(c->w->recipients[0].r.decided_by, "rcpt.lua:1");
}

static void test_empty(void **state)
{
    struct client *c = *state;

    begin(c);
    to(c, "u@own.example");
    finish(c);
    assert_queued(c);
    assert_str(original(c, 0), "");
}

/* It would become a part of our Received. */
static void test_begins_with_space(void **state)
{
    struct client *c = *state;

    message(c, " evil\r\nSubject: x\r\n");
    assert_str(original(c, 0), "\r\n evil\r\nSubject: x\r\n");
    message(c, "\tevil\r\n");
    assert_str(original(c, 1), "\r\n\tevil\r\n");
}

static void count_received(struct client *c, const char *text, size_t piece, const char *reply)
{
    struct str s = str_of(text);

    begin(c);
    to(c, "u@own.example");
    for (; s.n; s = str_from(s, piece))
        assert_int_equal(intake_body(c->in, str_first(s, piece), on_ready), 0);
    finish(c);
    if (reply)
        assert_reply(c, reply);
    else
        assert_queued(c);
}

static void test_Q10_loop(void **state)
{
    struct client *c = *state;
    const char *loop = "554 5.4.6 too many hops: this message loops";
    const char *three = "Received: 1\r\nreceived:\r\n x\r\nSubject: y\r\nRECEIVED : 3\r\n\r\n";

    c->w->settings->limits.received_headers = 2;
    for (size_t piece = 1; piece < 20; piece++)
        count_received(c, three, piece, loop);
    assert_int_equal(c->w->shared.counters.loops, 19);
    assert_logged(c->w, "loop_detected id=");
    assert_logged(c->w, "received=3");
    c->w->settings->limits.received_headers = 3;
    count_received(c, three, 7, NULL);
    c->w->settings->limits.received_headers = 0;
    for (size_t piece = 1; piece < 3; piece++) {
        count_received(c,
                       "Receivedx: 1\r\nxReceived: 2\r\n Received: 3\r\nRec: e\r\n\r\nReceived: 4",
                       piece, NULL);
        count_received(c, "no header\r\nReceived: 1\r\n", piece, NULL);
        count_received(c, "\r\nReceived: 1\r\n", piece, NULL);
    }
}

static void test_too_many_headers(void **state)
{
    struct client *c = *state;

    begin(c);
    to(c, "u@own.example");
    for (int i = 0; i < HEADERS_MAX_FIELDS + 1; i++)
        intake_body(c->in, STR("x: y\r\n"), on_ready);
    finish(c);
    assert_reply(c, "552 5.3.4 message header too large");
    begin(c);
    to(c, "u@own.example");
    intake_body(c->in, STR("x:\r\n"), on_ready);
    for (int i = 0; i < 4000; i++)
        intake_body(
            c->in,
            STR(" 0123456789012345678901234567890123456789012345678901234567890123456789\r\n"),
            on_ready);
    finish(c);
    assert_reply(c, "552 5.3.4 message header too large");
    assert_int_equal(c->w->units, 0);
}

/* ---- staging ---- */

/* n octets that are all different places, in lines. */
static char *make_body(size_t n)
{
    char *p = malloc(n + 1);
    size_t at = (size_t)snprintf(p, n + 1, "Subject: big\r\n\r\n");

    while (at < n)
        at += (size_t)snprintf(p + at, n + 1 - at, "%08zx 345678901234567890123456789\r\n", at);
    return p;
}

/* Gives it in pieces of 30000; waits where it has to. Returns how often. */
static size_t give(struct client *c, const char *p, size_t n)
{
    size_t waits = 0;

    for (struct str s = str_make(p, n); s.n; s = str_from(s, 30000)) {
        int r = intake_body(c->in, str_first(s, 30000), on_ready);
        assert_true(r >= 0);
        if (r == 0)
            continue;
        size_t ready = c->ready;
        waits++;
        while (c->ready == ready)
            assert_true(spool_step(c->w));
    }
    return waits;
}

static void test_staging(void **state)
{
    struct client *c = *state;
    static const size_t sizes[] = { INTAKE_STAGE_ABOVE - 1000, INTAKE_STAGE_ABOVE + 1,
                                    INTAKE_STAGE_ABOVE + 3 * BODY_CHUNK + 17, 6 * 1000 * 1000 };

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char *body = make_body(sizes[i]);
        begin(c);
        to(c, "u@own.example");
        to(c, "v@own.example");
        size_t waits = give(c, body, sizes[i]);
        assert_true(c->w->e.intake_memory <= 3 * 1024 * 1024);
        if (i == 3)
            assert_true(waits > 3);
        finish(c);
        assert_queued(c);
        struct str content = original(c, i);
        assert_int_equal(content.n, sizes[i]);
        assert_memory_equal(content.p, body, sizes[i]);
        assert_int_equal(c->w->n_pieces, 0);
        free(body);
    }
    assert_int_equal(c->w->unstaged, 0);
    assert_int_equal(c->w->e.intake_memory, 0);
}

static void test_abort_while_staging(void **state)
{
    struct client *c = *state;
    char *body = make_body(3 * 1000 * 1000);

    for (int in_flight = 0; in_flight < 2; in_flight++) {
        begin(c);
        to(c, "u@own.example");
        give(c, body, 3 * 1000 * 1000);
        if (!in_flight)
            settle(c->w);
        intake_abort(c->in);
        c->in = NULL;
        assert_int_equal(c->w->e.intake_memory, 0);
        assert_int_equal(c->w->e.intakes, 0);
        settle(c->w);
        assert_int_equal(c->w->n_pieces, 0);
    }
    /* While the last pieces are on their way, and behind them the commit. */
    for (int steps = 0; steps < 4; steps++) {
        begin(c);
        to(c, "u@own.example");
        give(c, body, 3 * 1000 * 1000);
        intake_finish(c->in, on_done);
        for (int i = 0; i < steps; i++)
            spool_step(c->w);
        if (c->in)
            intake_abort(c->in);
        c->in = NULL;
        settle(c->w);
        assert_int_equal(c->w->n_pieces, 0);
        assert_int_equal(c->w->e.intakes, 0);
    }
    free(body);
}

static void test_staging_fails(void **state)
{
    struct client *c = *state;
    char *body = make_body(3 * 1000 * 1000);
    int r = 0;

    c->w->stage_result = -ENOSPC;
    begin(c);
    to(c, "u@own.example");
    for (size_t at = 0; r >= 0 && at < 3 * 1000 * 1000; at += 10000) {
        r = intake_body(c->in, str_make(body + at, 10000), on_ready);
        settle(c->w);
    }
    assert_int_equal(r, -ENOSPC);
    intake_fail(c->in, r, on_done);
    settle(c->w);
    assert_reply(c, "452 4.3.1 insufficient storage, try again later");
    /* Known only after the last octet. */
    c->w->stage_result = 0;
    begin(c);
    to(c, "u@own.example");
    give(c, body, 3 * 1000 * 1000);
    c->w->stage_result = -EIO;
    finish(c);
    assert_reply(c, "451 4.3.0 local error in processing");
    assert_int_equal(c->w->n_stored, 0);
    assert_true(c->w->unstaged > 0);
    /* All staged, but the commit fails. */
    c->w->stage_result = 0;
    c->w->put_result = -ENOSPC;
    begin(c);
    to(c, "u@own.example");
    give(c, body, 3 * 1000 * 1000);
    finish(c);
    assert_reply(c, "452 4.3.1 insufficient storage, try again later");
    assert_int_equal(c->w->n_pieces, 0);
    free(body);
}

static void test_memory_is_bounded(void **state)
{
    struct client *c = *state;

    c->w->settings->limits.memory = 10;
    begin(c);
    to(c, "u@own.example");
    assert_int_equal(intake_body(c->in, STR("12345678"), on_ready), 0);
    assert_int_equal(intake_body(c->in, STR("123"), on_ready), -ENOMEM);
    intake_fail(c->in, -ENOMEM, on_done);
    settle(c->w);
    assert_reply(c, "452 4.3.1 insufficient storage, try again later");
}

/* ---- the data hook ---- */

static char seen[1 << 16]; /* what the hook read behind the headers */
static size_t seen_n;

static void read_all(const struct message_view *m)
{
    uint64_t cursor = 0;
    struct str piece;
    int r;

    seen_n = 0;
    while ((r = m->read_body(m, &cursor, &piece)) == 1) {
        if (seen_n + piece.n < sizeof(seen))
            memcpy(seen + seen_n, piece.p, piece.n);
        seen_n += piece.n;
    }
    assert_int_equal(r, 0);
}

static void edit(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    struct headers *h = in->message->headers;

    (void)w;
    (void)r;
    assert_non_null(h);
    read_all(in->message);
    assert_int_equal(headers_prepend(h, STR("X-Top"), STR("1")), 0);
    assert_int_equal(headers_set(h, STR("Subject"), STR("new")), 0);
    assert_int_equal(headers_add(h, STR("X-Last"), STR("2")), 0);
}

static void look(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    (void)w;
    (void)r;
    assert_non_null(in->message->headers);
    read_all(in->message);
}

static void test_edits(void **state)
{
    struct client *c = *state;

    have_hook(c->w, HOOK_DATA, edit);
    have_hook(c->w, HOOK_ROUTE, look);
    message(c, "From:   x\r\n\ty\r\nsubject: old\r\nSubject: older\r\nOdd:\r\n\r\nbody\r\n");
    assert_queued(c);
    assert_str(original(c, 0),
               "X-Top: 1\r\nFrom:   x\r\n\ty\r\nSubject: new\r\nOdd:\r\nX-Last: 2\r\n\r\nbody\r\n");
    assert_str(str_make(seen, seen_n), "body\r\n"); /* the route hook sees the edited one */
    message(c, "\r\nonly a body\r\n");
    assert_str(original(c, 1), "X-Top: 1\r\nSubject: new\r\nX-Last: 2\r\n\r\nonly a body\r\n");
    assert_str(str_make(seen, seen_n), "only a body\r\n");
    message(c, "A: b\r\n");
    assert_str(original(c, 2), "X-Top: 1\r\nA: b\r\nSubject: new\r\nX-Last: 2\r\n");
    assert_int_equal(seen_n, 0);
    /* A body that begins with a blank: what is added stands before the empty line, not in it. */
    message(c, " no header\r\n");
    assert_str(original(c, 3), "X-Top: 1\r\nSubject: new\r\nX-Last: 2\r\n\r\n no header\r\n");
    assert_str(str_make(seen, seen_n), " no header\r\n");
}

static void keep_loops(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    struct headers *h = in->message->headers;
    size_t removed;

    (void)w;
    (void)r;
    h->place = STR("a.lua:3");
    assert_int_equal(headers_remove(h, STR("received"), &removed), 0);
    assert_int_equal(removed, 1);
    assert_int_equal(headers_remove_at(h, 0), -EPERM);
    assert_int_equal(headers_set(h, STR("Received"), STR("x")), -EPERM);
}

/* Those of ours are what loops are found by. What was changed is in the log and goes with the message. */
static void test_received_of_ours_stay(void **state)
{
    struct client *c = *state;

    have_hook(c->w, HOOK_DATA, keep_loops);
    message(
        c,
        "Received: from a\r\n\tby mx.own.example with SMTP\r\nReceived: from b by c\r\n\r\nx\r\n");
    assert_queued(c);
    assert_str(original(c, 0), "Received: from a\r\n\tby mx.own.example with SMTP\r\n\r\nx\r\n");
    assert_logged(c->w, "changes=1 what=removed Received at a.lua:3");
}

/* Looking changes nothing. */
static void test_unedited(void **state)
{
    struct client *c = *state;
    static const char *const odd[] = {
        "a:b\r\n c\r\n\td\r\nA :e\r\n\r\n\r\n",
        "no header at all\r\n",
        "x: y",
        "\r\n",
        "x:\r\n\r\n",
    };

    have_hook(c->w, HOOK_DATA, look);
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        message(c, odd[i]);
        assert_queued(c);
        assert_str(original(c, i), odd[i]);
    }
}

static void test_staged_edits(void **state)
{
    struct client *c = *state;
    size_t n = 2 * 1000 * 1000, head = strlen("Subject: big\r\n\r\n");
    const char *new_head = "X-Top: 1\r\nSubject: new\r\nX-Last: 2\r\n\r\n";
    char *body = make_body(n);

    have_hook(c->w, HOOK_DATA, edit);
    have_hook(c->w, HOOK_ROUTE, look);
    begin(c);
    to(c, "u@own.example");
    give(c, body, n);
    finish(c);
    assert_queued(c);
    struct str content = original(c, 0);
    assert_true(str_starts(content, str_of(new_head)));
    content = str_from(content, strlen(new_head));
    assert_int_equal(content.n, n - head);
    assert_memory_equal(content.p, body + head, n - head);
    assert_int_equal(seen_n, n - head);
    assert_memory_equal(seen, body + head, 1000);
    free(body);
}

/* Headers that fill more than the first piece: of one field of 800 octets each. */
static char *long_headers(size_t fields, size_t total)
{
    char *p = malloc(total + 1000), *at = p;

    at += sprintf(at, "Subject: old\r\n");
    for (size_t i = 0; i < fields; i++)
        at += sprintf(at, "X-%zu: %0*d\r\n\t%0*d\r\n", i, 400, 1, 380, 2);
    at += sprintf(at, "\r\n");
    memset(at, 'b', total - (size_t)(at - p));
    return p;
}

static void test_long_headers(void **state)
{
    struct client *c = *state;
    static const size_t sizes[] = { 300 * 1000, 1500 * 1000 };

    have_hook(c->w, HOOK_DATA, edit);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char *body = long_headers(120, sizes[i]); /* about 95,000 octets of headers */
        begin(c);
        to(c, "u@own.example");
        give(c, body, sizes[i]);
        finish(c);
        assert_queued(c);
        struct str content = original(c, i);
        assert_true(str_starts(content, STR("X-Top: 1\r\nSubject: new\r\nX-0: 0")));
        ptrdiff_t last = str_find(content, STR("X-Last: 2\r\n"));
        struct str behind = str_from(content, (size_t)last + 11);
        assert_true(last > 60000);
        assert_true(str_starts(behind, STR("\r\n")));
        assert_int_equal(content.n, sizes[i] + strlen("X-Top: 1\r\nX-Last: 2\r\n"));
        size_t tail = sizes[i] - (size_t)last + strlen("X-Top: 1\r\n");
        assert_int_equal(behind.n, tail);
        assert_memory_equal(behind.p, body + sizes[i] - tail, tail);
        free(body);
    }
}

static void look_at_last(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    const struct header_field *f = headers_get(in->message->headers, STR("X-Last"), 0);

    (void)w;
    (void)r;
    assert_non_null(f);
    assert_str(f->value, "here");
    read_all(in->message);
    assert_int_equal(seen_n, in->message->body_size);
    assert_memory_equal(seen, "body", 4);
}

/* A message of `total` octets whose header block, but for its last field and the empty line, has `at`. */
static char *block_of(size_t at, size_t total)
{
    static const char end[] = "\r\nX-Last: here\r\n\r\nbody";
    char *p = malloc(total);
    size_t head = 0;

    memset(p, 'z', total);
    for (; head + 100 < at; head += 50)
        memcpy(p + head, "X: 345678901234567890123456789012345678901234567\r\n", 50);
    memcpy(p + head, "Y: ", 3);
    memcpy(p + at, end, sizeof(end) - 1);
    return p;
}

/* Wherever the block ends around the end of the first piece, and however it is cut. */
static void test_block_at_the_end_of_a_piece(void **state)
{
    struct client *c = *state;
    static const size_t totals[] = { 200 * 1000, 1200 * 1000 }, steps[] = { 30000, 1 << 17 };

    message(c, "x: y\r\n\r\n");
    size_t trace = content_of(c->w, 0).n - 8;
    have_hook(c->w, HOOK_DATA, look_at_last);
    for (size_t i = 0; i < ARRAY_LEN(totals) * ARRAY_LEN(steps); i++) {
        size_t total = totals[i / 2], step = steps[i % 2];
        for (size_t at = BODY_CHUNK - trace - 24; at < BODY_CHUNK - trace + 4; at += 2) {
            char *p = block_of(at, total);
            begin(c);
            to(c, "u@own.example");
            for (struct str s = str_make(p, total); s.n; s = str_from(s, step))
                if (intake_body(c->in, str_first(s, step), on_ready) == 1)
                    settle(c->w);
            finish(c);
            assert_queued(c);
            struct str content = original(c, c->w->n_stored - 1);
            assert_int_equal(content.n, total);
            assert_memory_equal(content.p, p, total);
            free(p);
        }
    }
}

static void refuse(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    (void)w;
    (void)in;
    r->verdict = VERDICT_REJECT;
    r->reply = REPLY(554, ENH(5, 7, 1), "spam");
}

static void discard(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    (void)w;
    (void)in;
    r->verdict = VERDICT_DISCARD;
    r->decided_by = STR("x.lua:9");
}

static void fail_hook(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    (void)w;
    (void)in;
    r->verdict = VERDICT_FAILED;
    r->reply = REPLY(451, ENH(4, 3, 0), "script error");
}

static void test_data_verdicts(void **state)
{
    struct client *c = *state;

    have_hook(c->w, HOOK_DATA, refuse);
    message(c, "x: y\r\n\r\n");
    assert_reply(c, "554 5.7.1 spam");
    assert_logged(c->w, "client=203.0.113.9 sender=a@b.example recipients=1 code=554 reply=spam");
    c->w->on[HOOK_DATA] = fail_hook;
    message(c, "x: y\r\n\r\n");
    assert_reply(c, "451 4.3.0 script error");
    c->w->on[HOOK_DATA] = discard;
    message(c, "x: y\r\n\r\n");
    assert_queued(c);
    assert_logged(c->w, "recipient=u@own.example policy=x.lua:9");
    assert_int_equal(c->w->units, 0);
}

/* ---- routes ---- */

/* By the local part: what to do with it. */
static void route_hook(struct world *w, const struct hook_input *in, struct hook_result *r)
{
    struct str local = in->recipient->address->local;
    bool host = str_starts(local, STR("host"));

    (void)w;
    r->decided_by = STR("route.lua:3");
    if (str_eq(local, STR("discard")))
        r->verdict = VERDICT_DISCARD;
    if (str_eq(local, STR("bounce")) || str_eq(local, STR("reject"))) {
        r->verdict = str_eq(local, STR("reject")) ? VERDICT_REJECT : VERDICT_BOUNCE;
        r->reply = REPLY(551, ENH(5, 1, 6), "moved away");
    }
    if (str_eq(local, STR("fail")))
        r->verdict = VERDICT_FAILED;
    if (str_eq(local, STR("defer")))
        r->verdict = VERDICT_DEFER;
    if (host || str_starts(local, STR("r-"))) {
        r->verdict = VERDICT_ROUTE;
        r->route = route_new(host                             ? ROUTE_HOSTS
                             : str_eq(local, STR("r-hold"))   ? ROUTE_HOLD
                             : str_eq(local, STR("r-bounce")) ? ROUTE_BOUNCE
                                                              : ROUTE_DISCARD);
        if (host) {
            r->route->targets = ARENA_NEW(&r->route->arena, struct route_target);
            route_target_parse(&r->route->arena, STR("192.0.2.1:25"), false, r->route->targets);
            r->route->n_targets = 1;
        }
        if (r->route->kind == ROUTE_BOUNCE) {
            r->route->reply_code = 550;
            r->route->reply_text = STR("5.1.1 nobody");
            r->route->queue = STR("elsewhere");
        }
        assert_int_equal(route_finish(r->route), 0);
    }
}

static void mail_to(struct client *c, const char *const *recipients)
{
    begin(c);
    for (; *recipients; recipients++)
        to(c, *recipients);
    assert_int_equal(intake_body(c->in, STR("x: y\r\n\r\n"), on_ready), 0);
    finish(c);
}
#define MAIL_TO(c, ...) mail_to((c), (const char *const[]){ __VA_ARGS__, NULL })

static void test_routes(void **state)
{
    struct client *c = *state;
    struct world *w = c->w;

    have_hook(w, HOOK_ROUTE, route_hook);
    MAIL_TO(c, "a@x.example", "host@y.example", "discard@x.example", "r-hold@z.example",
            "bounce@x.example", "r-discard@x.example", "r-bounce@x.example", "b@X.example");
    assert_queued(c);
    assert_int_equal(w->asked[HOOK_ROUTE], 8);
    assert_int_equal(w->n_recipients, 6);
    static const struct {
        const char *address, *queue, *decided;
        enum route_kind kind;
        enum spool_class class_;
    } expected[] = {
        { "a@x.example", "x.example", "rcpt.lua:1", ROUTE_MX, SPOOL_SCHEDULED },
        { "host@y.example", "192.0.2.1:25", "route.lua:3", ROUTE_HOSTS, SPOOL_SCHEDULED },
        { "r-hold@z.example", "hold:", "route.lua:3", ROUTE_HOLD, SPOOL_WAITING },
        { "bounce@x.example", "bounce", "route.lua:3", ROUTE_BOUNCE, SPOOL_SCHEDULED },
        { "r-bounce@x.example", "bounce", "route.lua:3", ROUTE_BOUNCE, SPOOL_SCHEDULED },
        { "b@X.example", "x.example", "rcpt.lua:1", ROUTE_MX, SPOOL_SCHEDULED },
    };
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        assert_str(w->recipients[i].r.address.text, expected[i].address);
        assert_string_equal(w->recipients[i].queue, expected[i].queue);
        assert_str(w->recipients[i].r.decided_by, expected[i].decided);
        assert_int_equal(w->recipients[i].r.route->kind, expected[i].kind);
        assert_int_equal(w->recipients[i].class_, expected[i].class_);
        assert_int_equal(w->recipients[i].n, i);
        assert_int_equal(w->recipients[i].due_ms, fake_wall(&w->clock));
        assert_int_equal(w->recipients[i].r.due_ms, w->recipients[i].due_ms);
    }
    assert_int_equal(w->recipients[2].r.state, RECIPIENT_WAITING);
    assert_int_equal(w->recipients[3].r.route->reply_code, 551);
    assert_str(w->recipients[3].r.route->reply_text, "5.1.6 moved away");
    assert_str(w->recipients[4].r.route->reply_text, "5.1.1 nobody");
    assert_int_equal(w->shared.counters.discarded, 2);
    assert_logged(w, "recipient=r-discard@x.example policy=route.lua:3");
}

static void test_all_bounce(void **state)
{
    struct client *c = *state;

    have_hook(c->w, HOOK_ROUTE, route_hook);
    MAIL_TO(c, "bounce@x.example", "r-bounce@x.example");
    assert_reply(c, "551 5.1.6 moved away");
    MAIL_TO(c, "discard@x.example", "r-bounce@x.example");
    assert_reply(c, "550 5.1.1 nobody");
    MAIL_TO(c, "discard@x.example", "r-discard@x.example");
    assert_queued(c);
    assert_int_equal(c->w->units, 0);
}

static void test_any_defer_refuses_all(void **state)
{
    struct client *c = *state;

    have_hook(c->w, HOOK_ROUTE, route_hook);
    MAIL_TO(c, "a@x.example", "host@x.example", "fail@x.example", "b@x.example");
    assert_reply(c, "451 4.3.0 local error in processing");
    MAIL_TO(c, "a@x.example", "defer@x.example");
    assert_reply(c, "451 4.7.1 try again later");
    assert_int_equal(c->w->units, 0);
    assert_int_equal(c->w->asked[HOOK_ROUTE], 5);
}

/* One after another; those that wait hold up the next. */
static void test_routes_that_wait(void **state)
{
    struct client *c = *state;
    struct world *w = c->w;

    have_hook(w, HOOK_ROUTE, route_hook);
    w->wait[HOOK_ROUTE] = true;
    MAIL_TO(c, "a@x.example", "host@x.example", "b@x.example");
    for (size_t i = 1; i <= 3; i++) {
        assert_int_equal(w->asked[HOOK_ROUTE], i);
        assert_int_equal(c->done, 0);
        answer_hook(w);
    }
    assert_queued(c);
    assert_int_equal(w->n_recipients, 3);
}

static void test_many_recipients(void **state)
{
    struct client *c = *state;
    char address[64];

    begin(c);
    for (int i = 0; i < WORLD_RECIPIENTS; i++) {
        snprintf(address, sizeof(address), "user%d@x%d.example", i, i % 3);
        to(c, address);
    }
    assert_int_equal(intake_recipients(c->in), WORLD_RECIPIENTS);
    finish(c);
    assert_queued(c);
    for (int i = 0; i < WORLD_RECIPIENTS; i++) {
        snprintf(address, sizeof(address), "user%d@x%d.example", i, i % 3);
        assert_str(c->w->recipients[i].r.address.text, address);
        assert_string_equal(c->w->recipients[i].queue, strchr(address, '@') + 1);
    }
}

/* ---- our own mail ---- */

static void test_own_mail(void **state)
{
    struct client *c = *state;
    const struct spool_change also = { .type = SPOOL_DELETE_RECIPIENT, .recipient.n = 3 };

    have_hook(c->w, HOOK_DATA, refuse);
    have_hook(c->w, HOOK_ROUTE, route_hook);
    c->w->settings->limits.memory = 1;
    begin_as(c, NULL, "", MESSAGE_DSN);
    to(c, "host@x.example");
    assert_int_equal(intake_body(c->in, STR("Subject: failed\r\n\r\n"), on_ready), 0);
    intake_also(c->in, &also, 1);
    finish(c);
    assert_queued(c);
    assert_str(content_of(c->w, 0), "Subject: failed\r\n\r\n");
    assert_int_equal(c->w->asked[HOOK_DATA], 0);
    assert_int_equal(c->w->deleted, 1);
    assert_int_equal(c->w->units, 1);
    assert_int_equal(c->w->shared.counters.messages_accepted, 0);
    assert_int_equal(c->w->arrived, 1);
    struct message *m;
    assert_int_equal(message_decode(&c->w->stored[0].id, buf_str(&c->w->stored[0].envelope), &m),
                     0);
    assert_int_equal(m->flags, MESSAGE_DSN);
    assert_int_equal(m->sender.text.n, 0);
    message_unref(m);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_small),
        T(test_empty),
        T(test_begins_with_space),
        T(test_Q10_loop),
        T(test_too_many_headers),
        T(test_staging),
        T(test_abort_while_staging),
        T(test_staging_fails),
        T(test_memory_is_bounded),
        T(test_edits),
        T(test_unedited),
        T(test_staged_edits),
        T(test_long_headers),
        T(test_block_at_the_end_of_a_piece),
        T(test_received_of_ours_stay),
        T(test_data_verdicts),
        T(test_routes),
        T(test_all_bounce),
        T(test_any_defer_refuses_all),
        T(test_routes_that_wait),
        T(test_many_recipients),
        T(test_own_mail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
