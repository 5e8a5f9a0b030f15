/* AUTH as clients meet it: password file, policies, listeners for submission, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fixture.h"

/* password "pencil" */
#define SCRAM                                                                                      \
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"   \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static struct fixture f;
static struct listen_settings listener; /* as long as the settings */

static int setup(void **state)
{
    fixture_init(&f, 1, 1);
    f.settings->auth.offered = true;
    f.settings->auth.without_tls = true;
    f.settings->auth.passwords = STR("users");
    return 0;
}

static int teardown(void **state)
{
    fixture_done(&f);
    return 0;
}

static void passwords(const char *text)
{
    char why[PASSWORD_FILE_ERROR];
    unsigned line;

    assert_int_equal(sim_passwords_set(sim_world_passwords(f.w), str_of(text), &line, why), 0);
}

static void listen_for_submission(enum listen_tls tls, enum listen_auth auth)
{
    listener = (struct listen_settings){
        .addr = sim_addr("0.0.0.0:587"), .service = STR("submission"), .tls = tls, .auth = auth
    };
    f.settings->listen = &listener;
    f.settings->n_listen = 1;
}

static int line(struct sim_session *s, const char *text)
{
    return sim_world_line(f.w, s, text).code;
}

static struct smtp_reply auth(struct sim_session *s, enum sasl_mechanism m, const char *user,
                              const char *password)
{
    struct sasl_credentials cred = { str_of(user), str_of(password), STR("") };

    return sim_world_auth(f.w, s, m, &cred);
}

static struct sim_session *greeted(struct str *ret_ehlo)
{
    struct sim_session *s = sim_world_session(f.w, NULL);
    struct smtp_reply reply = sim_world_line(f.w, s, "EHLO me.example");

    assert_int_equal(reply.code, 250);
    if (ret_ehlo)
        *ret_ehlo = reply.text;
    return s;
}

static bool offers(struct str ehlo, const char *line_)
{
    struct str each;

    while (str_cut(&ehlo, '\n', &each))
        if (str_eq(each, str_of(line_)))
            return true;
    return false;
}

/* ---- the password file ------------------------------------------------------------------------ */

static void test_each_mechanism(void **state)
{
    static const struct {
        const char *user, *password;
        int code[SASL_MECHANISMS];
    } cases[] = {
        { "ana", "secret", { 0, 235, 235, 235, 235 } },
        { "ana", "wrong", { 0, 535, 535, 535, 535 } },
        { "ben", "pencil", { 0, 235, 235, 535, 235 } },
        { "ben", "wrong", { 0, 535, 535, 535, 535 } },
        { "nobody", "secret", { 0, 535, 535, 535, 535 } },
    };

    f.settings->auth.mechanisms = ~0u;
    fixture_start(&f);
    passwords("ana:{PLAIN}secret\nben:" SCRAM);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (int m = SASL_PLAIN; m < SASL_MECHANISMS; m++) {
            struct sim_session *s = greeted(NULL);
            int code = auth(s, (enum sasl_mechanism)m, cases[i].user, cases[i].password).code;
            if (code != cases[i].code[m])
                fail_msg("%s %s %s: %d", sasl_name((enum sasl_mechanism)m), cases[i].user,
                         cases[i].password, code);
            sim_session_close(s);
        }
    assert_int_equal(counted(&f, "authenticated"), 7);
    assert_int_equal(counted(&f, "auth_failed"), 13);
}

static void test_offered_is_what_all_entries_serve(void **state)
{
    static const struct {
        const char *file, *offered;
    } cases[] = {
        { "a:{PLAIN}x", "AUTH SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5" },
        { "a:{PLAIN}x\nb:" SCRAM, "AUTH SCRAM-SHA-256 PLAIN LOGIN" },
        { "a:$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi.\nb:" SCRAM,
          "AUTH PLAIN LOGIN" },
        { "", "AUTH PLAIN LOGIN" },
    };
    struct str ehlo;

    fixture_start(&f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        passwords(cases[i].file);
        struct sim_session *s = greeted(&ehlo);
        assert_true(offers(ehlo, cases[i].offered));
        sim_session_close(s);
    }
}

/* Who is authenticated may relay, and the message remembers who it was. */
static void test_H3_who_is_authenticated_may_relay(void **state)
{
    struct sim_host *mx = sim_world_host(f.w, "192.0.2.9");

    sim_world_zone_add(f.w, "other.example. MX 10 mx.other.example.\n"
                            "mx.other.example. A 192.0.2.9\n");
    fixture_start(&f);
    passwords("ana:{PLAIN}secret");
    struct sim_session *s = greeted(NULL);
    assert_int_equal(line(s, "MAIL FROM:<ana@sender.example>"), 250);
    assert_int_equal(line(s, "RCPT TO:<u@other.example>"), 550);
    assert_int_equal(line(s, "RSET"), 250);
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 235);
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 503);
    assert_int_equal(line(s, "MAIL FROM:<ana@sender.example> AUTH=<>"), 250);
    assert_int_equal(line(s, "RCPT TO:<u@other.example>"), 250);
    assert_int_equal(line(s, "DATA"), 354);
    assert_int_equal(line(s, "Subject: x\r\n\r\nhello\r\n."), 250);
    sim_world_advance(f.w, SIM_MINUTE);
    assert_int_equal(got(mx, "with ESMTPA"), 1);
    sim_session_close(s);
}

static void test_third_failure_ends_the_session(void **state)
{
    fixture_start(&f);
    passwords("ana:{PLAIN}secret");
    struct sim_session *s = greeted(NULL);
    struct smtp_reply reply = auth(s, SASL_PLAIN, "ana", "a");
    assert_int_equal(reply.code, 535);
    assert_int_equal(reply.enhanced.detail, 8);
    assert_int_equal(line(s, "AUTH PLAIN"), 334);
    assert_int_equal(line(s, "*"), 501); /* is none */
    assert_int_equal(auth(s, SASL_LOGIN, "ana", "b").code, 535);
    assert_int_equal(auth(s, SASL_PLAIN, "ghost", "c").code, 535);
    sim_world_advance(f.w, SIM_SECOND);
    assert_true(sim_session_reply(s, &reply));
    assert_int_equal(reply.code, 421);
    assert_true(sim_session_closed(s));
    assert_int_equal(counted(&f, "auth_failed"), 3);
    sim_session_close(s);
}

static void test_busy_is_a_temporary_failure(void **state)
{
    fixture_start(&f);
    passwords("ana:{PLAIN}secret");
    sim_world_passwords(f.w)->busy = true;
    struct sim_session *s = greeted(NULL);
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 454);
    sim_world_passwords(f.w)->busy = false;
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 235);
    sim_session_close(s);
}

/* A client that leaves while its password is being checked, or in the middle of an exchange. */
static void test_client_leaves(void **state)
{
    fixture_start(&f);
    passwords("ana:{PLAIN}secret");
    struct sim_session *s = greeted(NULL);
    sim_session_write(s, STR("AUTH PLAIN AGFuYQBzZWNyZXQ=\r\n"));
    sim_world_advance(f.w, 5);
    sim_session_reset(s);
    sim_world_advance(f.w, SIM_SECOND);
    sim_session_close(s);
    s = greeted(NULL);
    assert_int_equal(line(s, "AUTH LOGIN"), 334);
    sim_session_reset(s);
    sim_world_advance(f.w, SIM_SECOND);
    sim_session_close(s);
    assert_int_equal(counted(&f, "authenticated"), 0);
    assert_true(sim_world_stop(f.w, SIM_MINUTE));
}

/* ---- submission ------------------------------------------------------------------------------- */

static void test_E1_submission_requires_tls_then_auth_and_has_no_etrn(void **state)
{
    struct str ehlo;

    f.settings->tls_cert = STR("cert.pem");
    f.settings->auth.without_tls = false;
    listen_for_submission(LISTEN_TLS_REQUIRE, LISTEN_AUTH_REQUIRE);
    f.policy.offers_etrn = true;
    fixture_start(&f);
    passwords("ana:{PLAIN}secret");
    struct sim_session *s = greeted(&ehlo);
    assert_false(offers(ehlo, "ETRN"));
    assert_true(str_find(ehlo, STR("AUTH")) < 0);
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 530);
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 530);
    assert_int_equal(line(s, "STARTTLS"), 220);
    sim_session_starttls(s);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(line(s, "EHLO me.example"), 250);
    struct smtp_reply reply = sim_world_line(f.w, s, "MAIL FROM:<a@b.example>");
    assert_int_equal(reply.code, 530);
    assert_int_equal(reply.enhanced.subject, 7);
    assert_int_equal(line(s, "ETRN example.com"), 502);
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 235);
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 250);
    sim_session_close(s);
}

/* RFC 3207 §4.2: who somebody was in clear does not count in TLS. */
static void test_I302_starttls_forgets_who_it_was(void **state)
{
    f.settings->tls_cert = STR("cert.pem");
    listen_for_submission(LISTEN_TLS_OFFER, LISTEN_AUTH_REQUIRE);
    fixture_start(&f);
    passwords("ana:{PLAIN}secret");
    struct sim_session *s = greeted(NULL);
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 235);
    assert_int_equal(line(s, "STARTTLS"), 220);
    sim_session_starttls(s);
    sim_world_advance(f.w, SIM_SECOND);
    assert_int_equal(line(s, "EHLO me.example"), 250);
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 530);
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 235);
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 250);
    assert_int_equal(line(s, "RCPT TO:<u@elsewhere.example>"), 250);
    sim_session_close(s);
}

static void test_no_auth_where_the_listener_says_none(void **state)
{
    listen_for_submission(LISTEN_TLS_NONE, LISTEN_AUTH_NONE);
    fixture_start(&f);
    passwords("ana:{PLAIN}secret");
    struct sim_session *s = greeted(NULL);
    assert_int_equal(auth(s, SASL_PLAIN, "ana", "secret").code, 502);
    assert_int_equal(line(s, "MAIL FROM:<a@b.example>"), 250);
    sim_session_close(s);
}

/* ---- policies --------------------------------------------------------------------------------- */

static bool opinion(void *arg, enum hook h, const struct hook_input *in, struct hook_result *ret)
{
    const struct credentials_view *c = in->credentials;

    assert_int_equal(h, HOOK_AUTH);
    assert_int_equal(c->password.p == NULL, !sasl_is_clear(c->mechanism));
    ret->decided_by = STR("test:1");
    ret->verdict = VERDICT_ACCEPT;
    if (str_eq(c->user, STR("plain")))
        ret->password = STR("pencil");
    else if (str_eq(c->user, STR("hash")))
        ret->password = STR(SCRAM);
    else if (str_eq(c->user, STR("broken")))
        ret->password = STR("{SCRAM-SHA-256}what");
    else if (str_eq(c->user, STR("renamed")))
        ret->identity = STR("somebody else");
    else if (str_eq(c->user, STR("banned")))
        ret->verdict = VERDICT_REJECT;
    else if (str_eq(c->user, STR("later")))
        ret->verdict = VERDICT_DEFER;
    else
        ret->verdict = VERDICT_NONE;
    return ret->verdict != VERDICT_NONE;
}

static void test_hook_decides(void **state)
{
    static const struct {
        const char *user, *password;
        int code[SASL_MECHANISMS];
    } cases[] = {
        { "plain", "pencil", { 0, 235, 235, 235, 235 } },
        { "plain", "wrong", { 0, 535, 535, 535, 535 } },
        { "hash", "pencil", { 0, 235, 235, 535, 235 } },
        { "hash", "wrong", { 0, 535, 535, 535, 535 } },
        { "broken", "x", { 0, 454, 454, 454, 454 } },
        { "renamed", "whatever", { 0, 235, 235, 535, 535 } },
        { "banned", "x", { 0, 535, 535, 535, 535 } },
        { "later", "x", { 0, 451, 451, 451, 451 } },
        { "file", "secret", { 0, 235, 235, 235, 235 } }, /* no opinion */
        { "nobody", "secret", { 0, 535, 535, 535, 535 } },
    };

    f.settings->auth.mechanisms = ~0u;
    f.policy.ask = opinion;
    f.policy.asks = 1u << HOOK_AUTH;
    fixture_start(&f);
    passwords("file:{PLAIN}secret");
    for (int64_t delay = 0; delay <= 100; delay += 100) {
        f.policy.delay_ms = delay;
        for (size_t i = 0; i < ARRAY_LEN(cases); i++)
            for (int m = SASL_PLAIN; m < SASL_MECHANISMS; m++) {
                struct sim_session *s = greeted(NULL);
                int code = auth(s, (enum sasl_mechanism)m, cases[i].user, cases[i].password).code;
                if (code != cases[i].code[m])
                    fail_msg("%s %s %s: %d", sasl_name((enum sasl_mechanism)m), cases[i].user,
                             cases[i].password, code);
                sim_session_close(s);
            }
    }
}

/* A hook alone makes AUTH offered, with what it can judge. */
static void test_hook_alone(void **state)
{
    struct str ehlo;

    f.settings->auth.offered = false;
    f.settings->auth.passwords = STR("");
    f.policy.ask = opinion;
    f.policy.asks = 1u << HOOK_AUTH;
    fixture_start(&f);
    struct sim_session *s = greeted(&ehlo);
    assert_true(offers(ehlo, "AUTH PLAIN LOGIN"));
    assert_int_equal(auth(s, SASL_PLAIN, "plain", "pencil").code, 235);
    sim_session_close(s);
    s = greeted(NULL);
    assert_int_equal(auth(s, SASL_PLAIN, "file", "secret").code, 535);
    sim_session_close(s);
}

static void test_nothing_to_authenticate_by(void **state)
{
    struct str ehlo;

    f.settings->auth.offered = false;
    f.settings->auth.passwords = STR("");
    fixture_start(&f);
    struct sim_session *s = greeted(&ehlo);
    assert_true(str_find(ehlo, STR("AUTH")) < 0);
    assert_int_equal(line(s, "AUTH PLAIN AGEAYg=="), 502);
    sim_session_close(s);
}

/* Only who is asked may act, and only as himself. */
static void test_authzid(void **state)
{
    struct sasl_credentials self = { STR("ana"), STR("secret"), STR("ana") };
    struct sasl_credentials other = { STR("ana"), STR("secret"), STR("root") };

    f.settings->auth.mechanisms = SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_SCRAM_SHA_256);
    fixture_start(&f);
    passwords("ana:{PLAIN}secret");
    for (int m = SASL_PLAIN; m < SASL_MECHANISMS; m += SASL_SCRAM_SHA_256 - SASL_PLAIN) {
        struct sim_session *s = greeted(NULL);
        assert_int_equal(sim_world_auth(f.w, s, (enum sasl_mechanism)m, &other).code, 535);
        assert_int_equal(sim_world_auth(f.w, s, (enum sasl_mechanism)m, &self).code, 235);
        sim_session_close(s);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each_mechanism),
        TEST(test_offered_is_what_all_entries_serve),
        TEST(test_H3_who_is_authenticated_may_relay),
        TEST(test_third_failure_ends_the_session),
        TEST(test_busy_is_a_temporary_failure),
        TEST(test_client_leaves),
        TEST(test_E1_submission_requires_tls_then_auth_and_has_no_etrn),
        TEST(test_I302_starttls_forgets_who_it_was),
        TEST(test_no_auth_where_the_listener_says_none),
        TEST(test_hook_decides),
        TEST(test_hook_alone),
        TEST(test_nothing_to_authenticate_by),
        TEST(test_authzid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
