/* Memory runs out while mail is taken: a session in TLS with AUTH, DSN, a recipient who is refused, DATA and BDAT, a large
 * message that is staged; hooks that wait, the commit, and the queue that learns of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "dialogue.h"

#define ENVID  "RET=HDRS ENVID=envelope+2B1"
#define NOTIFY "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old+2Bname@old.example"

static const struct str content =
    STR("From: <client@sender.example>\r\nTo: <u@a.example>\r\nSubject: a letter\r\n"
        "X-Long: it is folded,\r\n and goes on here\r\n\r\n"
        "The first line of the letter.\r\nThe last line of the letter.\r\n");
static struct listen_settings listener;
static struct buf large;

static bool ask(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret)
{
    if (h != HOOK_RCPT || !str_starts(in->recipient->address->text, STR("refused@")))
        return false;
    ret->verdict = VERDICT_REJECT;
    ret->reply = REPLY(550, ENH(5, 1, 1), "no such user");
    return true;
}

static void begin(void)
{
    char why[PASSWORD_FILE_ERROR];
    unsigned line;

    listener = (struct listen_settings){ .addr = sim_addr("0.0.0.0:25"),
                                         .service = STR("smtp"),
                                         .tls = LISTEN_TLS_OFFER,
                                         .chunking = true,
                                         .binarymime = true };
    f.settings->tls_cert = STR("cert.pem");
    f.settings->listen = &listener;
    f.settings->n_listen = 1;
    f.settings->auth.offered = true;
    f.settings->auth.passwords = STR("users");
    f.settings->auth.mechanisms = ~0u;
    f.policy.ask = ask;
    f.policy.asks = 1u << HOOK_CONNECT | 1u << HOOK_HELO | 1u << HOOK_AUTH | 1u << HOOK_MAIL |
                    1u << HOOK_RCPT | 1u << HOOK_DATA | 1u << HOOK_RESULT;
    f.policy.delay_ms = 5;
    assert_int_equal(
        sim_passwords_set(sim_world_passwords(f.w), STR("ana:{PLAIN}secret"), &line, why), 0);
}

/* What becomes of it in the queue, and the first attempt. */
static void some_time(void)
{
    sim_world_advance(f.w, 2 * SIM_SECOND);
}

static void envelope(struct dialogue *d)
{
    dialogue_mail(d, " BODY=8BITMIME SIZE=500 " ENVID);
    if (!d->s || d->reply.code != 250)
        return;
    dialogue_rcpt(d, "a.example", " " NOTIFY);
    dialogue_say(d, "RCPT TO:<refused@a.example>", 550);
    for (int i = 0; i < 5; i++) /* more than an intake has room for at first */
        dialogue_rcpt(d, i % 2 ? "a.example" : "b.example", "");
}

static void session(bool (*give)(struct dialogue *d, struct str content), struct str what)
{
    struct dialogue d;

    if (dialogue_open(&d) && dialogue_hello(&d)) {
        dialogue_auth(&d, SASL_SCRAM_SHA_256, "ana", "secret");
        envelope(&d);
        give(&d, what);
        dialogue_say(&d, "RSET", 250);
        dialogue_say(&d, "QUIT", 221);
    }
    dialogue_close(&d);
    some_time();
}

static void act_data(void)
{
    session(dialogue_data, content);
}

static void act_bdat(void)
{
    session(dialogue_bdat, content);
}

static void act_large(void)
{
    session(dialogue_data, buf_str(&large));
}

/* Plain, without TLS; and a second one in the same session. */
static void act_short(void)
{
    struct dialogue d;

    if (dialogue_open(&d) && dialogue_say(&d, "HELO client.example", 250)) {
        for (int i = 0; i < 2; i++)
            if (dialogue_mail(&d, "") && dialogue_rcpt(&d, "a.example", ""))
                dialogue_data(&d, content);
            else
                dialogue_say(&d, "RSET", 250);
    }
    dialogue_close(&d);
    some_time();
}

/* The first recipient asked for notices; his address is not that of another. */
static void check_received(const struct sim_received *m, struct str body)
{
    assert_true(str_ends(m->content, body));
    assert_true(str_find(m->content, STR("Received: ")) == 0);
    if (m->dsn.n == 0)
        return; /* not one of `envelope` */
    assert_true(str_eq(m->dsn, STR(ENVID)));
    for (size_t i = 0; i < m->n_recipients; i++)
        if (str_starts(m->recipients[i], STR("r0@")))
            assert_true(str_eq(m->rcpt_dsn[i], STR(NOTIFY)));
}

static void look_for(struct str body)
{
    for (size_t i = 0; i < sim_host_inbox(host_a); i++)
        check_received(sim_host_received(host_a, i), body);
}

static void look(const struct ledger_sum *sum)
{
    look_for(content);
}

static void look_large(const struct ledger_sum *sum)
{
    look_for(buf_str(&large));
}

static void look_envelope(const struct ledger_sum *sum)
{
    look(sum);
    for (size_t i = 0; i < sim_host_inbox(host_a); i++)
        assert_true(sim_host_received(host_a, i)->dsn.n > 0);
}

static void test_data(void **state)
{
    static const struct starved_case c = {
        .name = "data", .begin = begin, .act = act_data, .look = look_envelope
    };

    starved_each(&c);
    starved_spells(&c, 4, 2);
    starved_spells(&c, 4, 25);
    starved_by_chance(&c, 30, 10000);
    starved_by_chance(&c, 15, 100000);
}

static void test_bdat(void **state)
{
    static const struct starved_case c = {
        .name = "bdat", .begin = begin, .act = act_bdat, .look = look_envelope
    };

    starved_each(&c);
    starved_by_chance(&c, 20, 10000);
}

static void test_short(void **state)
{
    starved_each(
        &(struct starved_case){ .name = "short", .begin = begin, .act = act_short, .look = look });
}

static void test_large(void **state)
{
    buf_init(&large, 0);
    buf_add_str(&large, content);
    while (buf_len(&large) < 700000)
        buf_add_str(&large, STR("One line of many, which are all the same, and that is long.\r\n"));
    starved_each(&(struct starved_case){
        .name = "large", .begin = begin, .act = act_large, .look = look_large });
    buf_done(&large);
}

#define T(test) cmocka_unit_test_teardown(test, starved_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_data),
        T(test_bdat),
        T(test_short),
        T(test_large),
    };

    allocation_init();
    return cmocka_run_group_tests_name("allocations of a session in", tests, NULL, NULL);
}
