/* Records of messages and recipients: round trips, and bytes that are not to be trusted. */
#include "check.h"

#include "mail/message.h"

static const struct msgid some_id = { { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } };

static struct message *sample(void)
{
    struct message *m = message_new();

    assert_non_null(m);
    m->id = some_id;
    assert_int_equal(address_parse(&m->arena,
                                   STR("User@B\xc3\xbc"
                                       "cher.Example"),
                                   &m->sender),
                     0);
    m->received_ms = 1700000000123;
    m->size = UINT64_C(0x123456789ab);
    m->n_chunks = 17;
    m->n_recipients = 1000;
    m->flags = MESSAGE_8BIT | MESSAGE_SMTPUTF8 | MESSAGE_RET_FULL;
    assert_int_equal(net_addr_parse(STR("[2001:db8::9]:4711"), 0, &m->client), 0);
    m->helo = arena_str(&m->arena, STR("client.example"));
    m->identity = arena_str(&m->arena, STR("user"));
    m->service = STR("submission");
    m->envid = STR("QQ314159");
    m->client_tls = true;
    return m;
}

static void test_message_round_trip(void **state)
{
    struct message *m = sample(), *back;
    struct buf b, again;

    (void)state;
    buf_init(&b, 0);
    buf_init(&again, 0);
    assert_int_equal(message_encode(m, &b), 0);
    assert_int_equal(message_decode(&some_id, buf_str(&b), &back), 0);
    assert_int_equal(message_encode(back, &again), 0);
    assert_true(str_eq(buf_str(&b), buf_str(&again)));
    memset(b.data, 'x', b.end); /* the copy is its own */
    assert_int_equal(msgid_cmp(&back->id, &some_id), 0);
    assert_str(back->sender.text, "User@B\xc3\xbc"
                                  "cher.Example");
    assert_str(back->sender.local, "User");
    assert_str(back->sender.domain, "xn--bcher-kva.example");
    assert_int_equal(back->received_ms, m->received_ms);
    assert_int_equal(back->size, m->size);
    assert_int_equal(back->n_chunks, 17);
    assert_int_equal(back->n_recipients, 1000);
    assert_int_equal(back->flags, m->flags);
    assert_true(net_addr_eq(&back->client, &m->client));
    assert_str(back->helo, "client.example");
    assert_str(back->identity, "user");
    assert_str(back->service, "submission");
    assert_str(back->envid, "QQ314159");
    assert_true(back->client_tls);
    assert_null(back->body);
    assert_null(back->arena.blocks);
    buf_done(&b);
    buf_done(&again);
    message_unref(back);
    message_unref(m);
}

/* Changes of the header make the record longer, and nothing else about it different: what was written before there
 * were any is read as before. */
static void test_message_with_changes(void **state)
{
    struct message *m = sample(), *back;
    struct buf without, with;

    (void)state;
    buf_init(&without, 0);
    buf_init(&with, 0);
    assert_int_equal(message_encode(m, &without), 0);
    m->changes = STR("what was changed");
    assert_int_equal(message_encode(m, &with), 0);
    assert_int_equal(with.data[0], 2);
    assert_int_equal(buf_len(&with), buf_len(&without) + 5 + m->changes.n);
    assert_int_equal(message_decode(&some_id, buf_str(&with), &back), 0);
    assert_str(back->changes, "what was changed");
    assert_str(back->envid, "QQ314159");
    assert_true(back->client_tls);
    message_unref(back);
    for (size_t n = 0; n < buf_len(&with); n++)
        assert_int_equal(message_decode(&some_id, str_first(buf_str(&with), n), &back), -EBADMSG);
    /* One record for each message: none of no octets. */
    buf_clear(&with);
    buf_add_str(&with, buf_str(&without));
    with.data[0] = 2;
    buf_add_u8(&with, 2);
    buf_add_u32(&with, 0);
    assert_int_equal(message_decode(&some_id, buf_str(&with), &back), -EBADMSG);
    assert_int_equal(message_decode(&some_id, buf_str(&without), &back), 0);
    assert_int_equal(back->changes.n, 0);
    message_unref(back);
    buf_done(&without);
    buf_done(&with);
    message_unref(m);
}

static int decoded(const char *octets, size_t n)
{
    struct message *back = NULL;
    int r = message_decode(&some_id, str_make(octets, n), &back);

    message_unref(back);
    return r;
}

/* What earlier routers cannot know is written behind what they can, and only when it is there. */
static void test_message_with_fields(void **state)
{
    struct message *m = sample(), *back;
    struct buf plain, b;

    (void)state;
    buf_init(&plain, 0);
    buf_init(&b, 0);
    assert_int_equal(message_encode(m, &plain), 0);
    assert_int_equal(plain.data[0], 1);
    for (uint32_t flag = MESSAGE_REQUIRETLS; flag <= MESSAGE_TLS_OPTIONAL; flag *= 2) {
        m->flags = MESSAGE_8BIT | flag;
        buf_clear(&b);
        assert_int_equal(message_encode(m, &b), 0);
        assert_int_equal(b.data[0], 2);
        assert_int_equal(buf_len(&b), buf_len(&plain) + 9);
        assert_int_equal(message_decode(&some_id, buf_str(&b), &back), 0);
        assert_int_equal(back->flags, MESSAGE_8BIT | flag);
        assert_str(back->envid, "QQ314159");
        message_unref(back);
    }
    size_t at = buf_len(&plain), n = buf_len(&b);
    for (size_t cut = at; cut < n; cut++) /* a version 2 without them, or with half of them */
        assert_int_equal(decoded(b.data, cut), -EBADMSG);
    b.data[at + 8] = 8; /* a flag of version 1 in the place of the others */
    assert_int_equal(decoded(b.data, n), -EBADMSG);
    b.data[at + 8] = (char)128;
    assert_int_equal(decoded(b.data, n), 0);
    b.data[at + 6] = 2; /* one that there is not */
    assert_int_equal(decoded(b.data, n), -EBADMSG);
    b.data[at + 6] = 0;
    b.data[at] = 9; /* a field that there is not */
    assert_int_equal(decoded(b.data, n), -EBADMSG);
    b.data[at] = 1;
    assert_int_equal(buf_add(&b, b.data + at, 9), 0); /* twice */
    assert_int_equal(decoded(b.data, n + 9), -EBADMSG);
    b.data[0] = 3;
    assert_int_equal(decoded(b.data, n), -EBADMSG);
    buf_done(&plain);
    buf_done(&b);
    message_unref(m);
}

/* A message whose sender said nothing of time or rank is written as it always was, so that an older program reads it. */
static void test_message_with_times(void **state)
{
    struct message *m = sample(), *back;
    struct buf plain, b, again;

    buf_init(&plain, 0);
    buf_init(&b, 0);
    buf_init(&again, 0);
    assert_int_equal(message_encode(m, &plain), 0);
    assert_int_equal(plain.data[plain.start], 1);
    assert_false(message_may_say_times(buf_str(&plain)));
    m->times = (struct message_times){ .by = SMTP_BY_RETURN,
                                       .by_trace = true,
                                       .by_ms = 1700000060123,
                                       .hold_ms = 1700000030000,
                                       .hold_s = 30,
                                       .priority = -9 };
    assert_int_equal(message_encode(m, &b), 0);
    assert_int_equal(b.data[b.start], 2);
    assert_true(message_may_say_times(buf_str(&b)));
    assert_true(
        str_eq(str_from(str_first(buf_str(&b), buf_len(&plain)), 1), str_from(buf_str(&plain), 1)));
    assert_int_equal(message_decode(&some_id, buf_str(&b), &back), 0);
    assert_memory_equal(&back->times.by_ms, &m->times.by_ms, sizeof(m->times.by_ms));
    assert_int_equal(back->times.by, SMTP_BY_RETURN);
    assert_true(back->times.by_trace);
    assert_int_equal(back->times.hold_ms, m->times.hold_ms);
    assert_int_equal(back->times.hold_s, 30);
    assert_int_equal(back->times.priority, -9);
    assert_int_equal(message_encode(back, &again), 0);
    assert_true(str_eq(buf_str(&b), buf_str(&again)));
    message_unref(back);
    for (size_t n = 0; n < buf_len(&b); n++) /* cut off anywhere */
        assert_int_equal(message_decode(&some_id, str_first(buf_str(&b), n), &back), -EBADMSG);
    assert_int_equal(buf_len(&b), buf_len(&plain) + 5 + 22);
    char *tail = b.data + b.end - 22; /* by, by_ms, hold_ms, hold_s, priority */
    static const struct {
        size_t at;
        char is;
    } wrong[] = { { 0, 3 }, { 0, 8 }, { 21, 19 } };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char was = tail[wrong[i].at];
        tail[wrong[i].at] = wrong[i].is;
        assert_int_equal(message_decode(&some_id, buf_str(&b), &back), -EBADMSG);
        tail[wrong[i].at] = was;
    }
    memset(tail, 0, 21); /* says nothing: one message has one record */
    tail[21] = 9;
    assert_int_equal(message_decode(&some_id, buf_str(&b), &back), -EBADMSG);
    buf_done(&plain);
    buf_done(&b);
    buf_done(&again);
    message_unref(m);
}

static void test_what_is_left_of_the_time(void **state)
{
    struct message *m = message_new();

    assert_int_equal(message_by(m, 0).mode, SMTP_BY_NONE);
    assert_true(message_return_at(m) == INT64_MAX && message_tell_at(m) == INT64_MAX);
    m->received_ms = 1000;
    m->times = (struct message_times){ .by = SMTP_BY_NOTIFY, .by_ms = 61000 };
    assert_int_equal(message_by(m, 1000).seconds, 60);
    assert_int_equal(message_by(m, 1001).seconds, 59);
    assert_int_equal(message_by(m, 60999).seconds, 0);
    assert_int_equal(message_by(m, 61000).seconds, 0);
    assert_int_equal(message_by(m, 61001).seconds, -1);
    assert_int_equal(message_by(m, 62000).seconds, -1);
    assert_int_equal(message_by(m, 62001).seconds, -2);
    assert_int_equal(message_by(m, INT64_C(9000000000000)).seconds, -SMTP_BY_MOST);
    assert_int_equal(message_tell_at(m), 61000);
    assert_true(message_return_at(m) == INT64_MAX);
    m->times.by_ms = 1000; /* over when it came: who had it before has told */
    assert_true(message_tell_at(m) == INT64_MAX);
    m->times.by = SMTP_BY_RETURN;
    assert_int_equal(message_return_at(m), 1000);
    message_unref(m);
}

static void test_empty_message(void **state)
{
    struct message *m = message_new(), *back;
    struct buf b;

    (void)state;
    assert_int_equal(address_parse(&m->arena, STR(""), &m->sender), 0);
    buf_init(&b, 0);
    assert_int_equal(message_encode(m, &b), 0);
    assert_int_equal(message_decode(&some_id, buf_str(&b), &back), 0);
    assert_str(back->sender.text, "");
    assert_str(back->sender.domain, "");
    assert_int_equal(back->client.family, NET_NONE);
    assert_null(m->arena.blocks);
    buf_done(&b);
    message_unref(back);
    message_unref(m);
}

static void test_message_owns_its_body(void **state)
{
    struct message *m = message_new();

    (void)state;
    m->body = body_new();
    assert_int_equal(body_append(m->body, STR("x")), 0);
    assert_ptr_equal(message_ref(m), m);
    assert_null(message_unref(m));
    assert_int_equal(m->body->size, 1);
    assert_null(message_unref(m));
    assert_null(message_unref(NULL));
}

static void test_message_mangled(void **state)
{
    struct message *m = sample(), *back = NULL;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    assert_int_equal(message_encode(m, &b), 0);
    for (size_t n = 0; n < buf_len(&b); n++) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, b.data, n);
        assert_int_equal(message_decode(&some_id, str_make(exact, n), &back), -EBADMSG);
        assert_null(back);
        free(exact);
    }
    for (size_t i = 0; i < buf_len(&b) * 8; i++) {
        b.data[i / 8] ^= (char)(1 << i % 8);
        if (message_decode(&some_id, buf_str(&b), &back) == 0)
            message_unref(back);
        b.data[i / 8] ^= (char)(1 << i % 8);
    }
    buf_add_u8(&b, 0);
    assert_int_equal(message_decode(&some_id, buf_str(&b), &back), -EBADMSG);
    buf_done(&b);
    message_unref(m);
}

static struct recipient sample_recipient(struct arena *a)
{
    struct recipient r = {
        .n = 3,
        .state = RECIPIENT_DEFERRED,
        .attempts = 12,
        .due_ms = 1700000360000,
        .warned = true,
        .host_failure = true,
        .policy = UINT64_C(0xdeadbeefcafe),
        .notify = SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY,
        .orcpt = STR("rfc822;u@example.com"),
        .decided_by = STR("policies/backup.lua:31"),
        .last_ms = 1700000000456,
        .last_host = STR("mx1.example.com [192.0.2.1]:25"),
        .last_reply = STR("451 4.3.0 try later\nsecond line"),
    };

    assert_int_equal(address_parse(a, STR("u@example.com"), &r.address), 0);
    r.route = route_new(ROUTE_MX);
    r.route->domain = STR("example.com");
    assert_int_equal(route_finish(r.route), 0);
    return r;
}

static void test_recipient_round_trip(void **state)
{
    struct arena a;
    struct buf b, again;
    struct recipient back;

    (void)state;
    arena_init(&a, 0);
    buf_init(&b, 0);
    buf_init(&again, 0);
    struct recipient r = sample_recipient(&a);
    assert_int_equal(recipient_encode(&r, &b), 0);
    assert_int_equal(recipient_decode(&a, 3, buf_str(&b), &back), 0);
    assert_int_equal(recipient_encode(&back, &again), 0);
    assert_true(str_eq(buf_str(&b), buf_str(&again)));
    memset(b.data, 'x', b.end);
    assert_int_equal(back.n, 3);
    assert_int_equal(back.state, RECIPIENT_DEFERRED);
    assert_int_equal(back.attempts, 12);
    assert_int_equal(back.due_ms, r.due_ms);
    assert_true(back.warned && back.host_failure);
    assert_int_equal(back.policy, r.policy);
    assert_int_equal(back.notify, r.notify);
    assert_int_equal(back.last_ms, r.last_ms);
    assert_str(back.address.domain, "example.com");
    assert_str(back.orcpt, "rfc822;u@example.com");
    assert_str(back.decided_by, "policies/backup.lua:31");
    assert_str(back.last_host, "mx1.example.com [192.0.2.1]:25");
    assert_str(back.last_reply, "451 4.3.0 try later\nsecond line");
    assert_true(route_same(r.route, back.route));
    recipient_done(&r);
    recipient_done(&back);
    assert_null(back.route);
    recipient_done(&back);
    buf_done(&b);
    buf_done(&again);
    arena_done(&a);
}

static void test_recipient_without_route(void **state)
{
    struct arena a;
    struct buf b;
    struct recipient r = { 0 }, back;

    (void)state;
    arena_init(&a, 0);
    buf_init(&b, 0);
    assert_int_equal(address_parse(&a, STR("postmaster"), &r.address), 0);
    assert_int_equal(recipient_encode(&r, &b), 0);
    assert_int_equal(recipient_decode(&a, 0, buf_str(&b), &back), 0);
    assert_null(back.route);
    assert_str(back.address.text, "postmaster");
    assert_str(back.address.domain, "");
    buf_done(&b);
    arena_done(&a);
}

static void test_recipient_mangled(void **state)
{
    struct arena a;
    struct buf b;
    struct recipient back = { .n = 77 };

    (void)state;
    arena_init(&a, 0);
    buf_init(&b, 0);
    struct recipient r = sample_recipient(&a);
    assert_int_equal(recipient_encode(&r, &b), 0);
    for (size_t n = 0; n < buf_len(&b); n++) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, b.data, n);
        assert_int_equal(recipient_decode(&a, 3, str_make(exact, n), &back), -EBADMSG);
        assert_int_equal(back.n, 77);
        free(exact);
    }
    for (size_t i = 0; i < buf_len(&b) * 8; i++) {
        b.data[i / 8] ^= (char)(1 << i % 8);
        if (recipient_decode(&a, 3, buf_str(&b), &back) == 0)
            recipient_done(&back);
        b.data[i / 8] ^= (char)(1 << i % 8);
    }
    recipient_done(&r);
    buf_done(&b);
    arena_done(&a);
}

static void test_small_buffer_is_told(void **state)
{
    struct arena a;
    struct buf b;

    (void)state;
    arena_init(&a, 0);
    struct recipient r = sample_recipient(&a);
    for (size_t max = 1; max < 200; max += 7) {
        buf_init(&b, max);
        assert_int_equal(recipient_encode(&r, &b), -EMSGSIZE);
        buf_done(&b);
    }
    recipient_done(&r);
    arena_done(&a);
}

static void test_state_names(void **state)
{
    (void)state;
    assert_string_equal(recipient_state_name(RECIPIENT_READY), "ready");
    assert_string_equal(recipient_state_name(RECIPIENT_DEFERRED), "deferred");
    assert_string_equal(recipient_state_name(RECIPIENT_HELD), "held");
    assert_string_equal(recipient_state_name(RECIPIENT_WAITING), "waiting");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_round_trip),
        cmocka_unit_test(test_message_with_changes),
        cmocka_unit_test(test_message_with_fields),
        cmocka_unit_test(test_message_with_times),
        cmocka_unit_test(test_what_is_left_of_the_time),
        cmocka_unit_test(test_empty_message),
        cmocka_unit_test(test_message_owns_its_body),
        cmocka_unit_test(test_message_mangled),
        cmocka_unit_test(test_recipient_round_trip),
        cmocka_unit_test(test_recipient_without_route),
        cmocka_unit_test(test_recipient_mangled),
        cmocka_unit_test(test_small_buffer_is_told),
        cmocka_unit_test(test_state_names),
    };

    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
