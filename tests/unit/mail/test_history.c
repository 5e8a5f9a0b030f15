/* The record of attempts: what goes in comes out, it is bounded, and bytes are not to be trusted. */
#include "check.h"

#include "mail/history.h"
#include "mail/message.h"

static struct arena arena;
static struct buf bytes;

static int setup(void **state)
{
    arena_init(&arena, 0);
    buf_init(&bytes, 0);
    return 0;
}

static int teardown(void **state)
{
    arena_done(&arena);
    buf_done(&bytes);
    return 0;
}

/* The text is so long. */
static struct str long_text(size_t n)
{
    char *p = arena_alloc(&arena, n + 1);
    assert_non_null(p);
    memset(p, 'x', n);
    return str_make(p, n);
}

static void add_one(uint32_t number, struct str text, const struct history_plan *plan, size_t max)
{
    const struct history_try tries[] = {
        { .host = STR("mx1.example.com [192.0.2.1]:25"),
          .stage = STR("connect"),
          .reply = { .text = STR("connection refused") } },
        { .host = STR("mx2.example.com [192.0.2.2]:25"),
          .tls = STR("TLSv1.3"),
          .stage = STR("RCPT TO"),
          .reply = { .code = 451, .enhanced = ENH(4, 7, 1), .text = text } },
    };
    const struct history_attempt a = { .at_ms = 1700000000000 + number,
                                       .took_ms = 120,
                                       .number = number,
                                       .fate = HISTORY_DEFERRED,
                                       .decided_by = STR("site.lua:7"),
                                       .tries = tries,
                                       .n_tries = 2 };
    struct buf next;
    buf_init(&next, 0);
    assert_int_equal(history_add(&arena, buf_str(&bytes), &a, plan, max, &next), 0);
    assert_true(buf_len(&next) <= max);
    buf_done(&bytes);
    bytes = next;
}

static struct history read_back(void)
{
    struct history h;
    assert_int_equal(history_decode(&arena, buf_str(&bytes), &h), 0);
    return h;
}

static const struct history_hop hops[] = { { STR("mx1.example.com [192.0.2.1]:25"), 10 } };
static const struct history_discarded discarded[] = { { STR("20 mx2.isp.example"),
                                                        STR("ourselves") } };
static const struct history_plan plan = { 1700000000777, hops, 1, discarded, 1 };

static void test_Q12_an_attempt_comes_back_as_it_was(void **state)
{
    add_one(1, STR("try later"), &plan, HISTORY_MAX);
    struct history h = read_back();
    assert_int_equal(h.left_out, 0);
    assert_int_equal(h.n, 1);
    const struct history_attempt *a = &h.attempts[0];
    assert_int_equal(a->at_ms, 1700000000001);
    assert_int_equal(a->took_ms, 120);
    assert_int_equal(a->number, 1);
    assert_int_equal(a->fate, HISTORY_DEFERRED);
    assert_str(a->decided_by, "site.lua:7");
    assert_int_equal(a->n_tries, 2);
    assert_str(a->tries[0].stage, "connect");
    assert_int_equal(a->tries[0].reply.code, 0);
    assert_str(a->tries[0].reply.text, "connection refused");
    assert_str(a->tries[1].host, "mx2.example.com [192.0.2.2]:25");
    assert_str(a->tries[1].tls, "TLSv1.3");
    assert_int_equal(a->tries[1].reply.code, 451);
    assert_int_equal(a->tries[1].reply.enhanced.subject, 7);
    assert_str(a->tries[1].reply.text, "try later");
    assert_int_equal(h.plan.at_ms, plan.at_ms);
    assert_int_equal(h.plan.hops[0].preference, 10);
    assert_str(h.plan.hops[0].host, "mx1.example.com [192.0.2.1]:25");
    assert_str(h.plan.discarded[0].reason, "ourselves");
}

static void test_Q12_an_attempt_without_a_plan_keeps_the_one_before(void **state)
{
    add_one(1, STR("try later"), &plan, HISTORY_MAX);
    add_one(2, STR("try later"), NULL, HISTORY_MAX);
    assert_int_equal(read_back().plan.n_hops, 1);
}

static void test_Q12_the_first_and_the_last_attempts_are_kept(void **state)
{
    for (uint32_t i = 1; i <= 1000; i++)
        add_one(i, STR("try later"), &plan, HISTORY_MAX);
    struct history h = read_back();
    assert_int_equal(h.n, HISTORY_FIRST + HISTORY_LAST);
    assert_int_equal(h.left_out, 1000 - h.n);
    assert_int_equal(h.attempts[0].number, 1);
    assert_int_equal(h.attempts[1].number, 1000 - HISTORY_LAST + 1);
    assert_int_equal(h.attempts[h.n - 1].number, 1000);
}

/* Hosts that talk much cost attempts, not octets. */
static void test_Q12_it_never_grows_past_its_limit(void **state)
{
    for (uint32_t i = 1; i <= 50; i++)
        add_one(i, long_text(4000), &plan, HISTORY_SMALL);
    struct history h = read_back();
    assert_true(h.n >= 2 && h.n < HISTORY_FIRST + HISTORY_LAST);
    assert_int_equal(h.attempts[0].number, 1);
    assert_int_equal(h.attempts[h.n - 1].number, 50);
    assert_int_equal(h.left_out + h.n, 50);
    assert_int_equal(h.attempts[0].tries[1].reply.text.n, HISTORY_TEXT);
    add_one(51, long_text(4000), &plan, 100); /* not even one: it shrinks to what fits */
    h = read_back();
    assert_int_equal(h.n, 1);
    assert_int_equal(h.attempts[0].number, 51);
}

static void test_texts_are_cut_between_characters(void **state)
{
    char text[HISTORY_TEXT + 10];
    for (size_t i = 0; i < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xbc", 2);
    text[0] = 'x';
    memmove(text + 1, text + 2, sizeof text - 2);
    add_one(1, str_make(text, sizeof text - 1), NULL, HISTORY_MAX);
    assert_int_equal(read_back().attempts[0].tries[1].reply.text.n, HISTORY_TEXT - 1);
}

static void test_many_hosts_end_with_the_last(void **state)
{
    struct history_try tries[20] = { 0 };
    for (size_t i = 0; i < 20; i++)
        tries[i].reply.code = (uint16_t)(400 + i);
    const struct history_attempt a = { .number = 1, .tries = tries, .n_tries = 20 };
    assert_int_equal(history_add(&arena, STR_NONE, &a, NULL, HISTORY_MAX, &bytes), 0);
    struct history h = read_back();
    assert_int_equal(h.attempts[0].n_tries, HISTORY_TRIES);
    assert_int_equal(h.attempts[0].tries[0].reply.code, 400);
    assert_int_equal(h.attempts[0].tries[HISTORY_TRIES - 1].reply.code, 419);
}

static void test_mangled(void **state)
{
    struct history h = { .left_out = 7 };
    add_one(1, STR("try later"), &plan, HISTORY_MAX);
    for (size_t n = 1; n < buf_len(&bytes); n++)
        assert_int_equal(history_decode(&arena, str_first(buf_str(&bytes), n), &h), -EBADMSG);
    assert_int_equal(h.left_out, 7);
    for (size_t i = 0; i < buf_len(&bytes); i++) {
        bytes.data[bytes.start + i] ^= (char)0xff;
        history_decode(&arena, buf_str(&bytes), &h);
        bytes.data[bytes.start + i] ^= (char)0xff;
    }
    /* What cannot be read is given up; what is new is written. */
    bytes.data[bytes.start] = 99;
    add_one(2, STR("try later"), &plan, HISTORY_MAX);
    assert_int_equal(read_back().n, 1);
}

static struct recipient recipient(struct str history)
{
    struct recipient r = { .attempts = 1, .history = history };
    assert_int_equal(address_parse(&arena, STR("u@example.com"), &r.address), 0);
    return r;
}

/* Records of spools from before histories are read, and what has none is written as it was then. */
static void test_Q12_recipients_without_history_are_version_1(void **state)
{
    struct recipient r = recipient(STR_NONE), back;
    assert_int_equal(recipient_encode(&r, &bytes), 0);
    assert_int_equal(buf_str(&bytes).p[0], 1);
    size_t n = buf_len(&bytes);
    assert_int_equal(recipient_decode(&arena, 0, buf_str(&bytes), &back), 0);
    assert_int_equal(back.history.n, 0);
    bytes.data[bytes.start] = 2; /* one that says it had some */
    assert_int_equal(recipient_decode(&arena, 0, buf_str(&bytes), &back), -EBADMSG);
    buf_add_u32(&bytes, 0);
    assert_int_equal(recipient_decode(&arena, 0, buf_str(&bytes), &back), -EBADMSG);
    buf_clear(&bytes);
    r.history = STR("bytes");
    assert_int_equal(recipient_encode(&r, &bytes), 0);
    assert_int_equal(buf_str(&bytes).p[0], 2);
    assert_int_equal(buf_len(&bytes), n + 4 + 5);
    assert_int_equal(recipient_decode(&arena, 0, buf_str(&bytes), &back), 0);
    assert_str(back.history, "bytes");
    bytes.data[bytes.start] = 3; /* of a later program */
    assert_int_equal(recipient_decode(&arena, 0, buf_str(&bytes), &back), -EBADMSG);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_Q12_an_attempt_comes_back_as_it_was),
        TEST(test_Q12_an_attempt_without_a_plan_keeps_the_one_before),
        TEST(test_Q12_the_first_and_the_last_attempts_are_kept),
        TEST(test_Q12_it_never_grows_past_its_limit),
        TEST(test_texts_are_cut_between_characters),
        TEST(test_many_hosts_end_with_the_last),
        TEST(test_mangled),
        TEST(test_Q12_recipients_without_history_are_version_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
