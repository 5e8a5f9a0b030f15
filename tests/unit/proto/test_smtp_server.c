/* The SMTP server: the transcripts of tests/transcripts/server, and what they cannot say. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <dirent.h>
#include <stdio.h>

#include "base/buf.h"
#include "proto/smtp_server_impl.h"
#include "server_transcript.h"

#define TRANSCRIPTS TERN_TEST_DIR "/transcripts/server"

static void transcript(void **state)
{
    server_transcript_check(*state);
}

/* ---- by hand ---- */

static const struct smtp_server_options options = {
    .hostname = STR("mx.example"), .size_limit = 1 << 20, .max_errors = 20, .etrn = true
};

static void say_yes(struct smtp_server *s, const struct smtp_server_event *e)
{
    struct smtp_reply yes = server_transcript_yes(e->type);

    assert_int_equal(smtp_server_answer(s, e->ticket, &yes), 0);
}

struct total {
    uint64_t body;
    unsigned ends, resets;
    size_t most_buffered;
};

/* Feeds all of it, saying yes to everything. */
static int talk(struct smtp_server *s, struct str bytes, struct total *t)
{
    struct smtp_server_event e;
    int r = 0;

    do {
        bytes = str_from(bytes, smtp_server_feed(s, bytes.p, bytes.n));
        t->most_buffered = MAX(t->most_buffered, s->in.cap);
        while ((r = smtp_server_next(s, &e)) == 1) {
            if (e.type == SMTP_SERVER_BODY)
                t->body += e.body.n;
            t->ends += e.type == SMTP_SERVER_END;
            t->resets += e.type == SMTP_SERVER_RESET;
            if (e.ticket)
                say_yes(s, &e);
        }
    } while (bytes.n > 0 && r == 0);
    return r;
}

static struct smtp_server *session(struct total *t, const char *first)
{
    struct smtp_server *s = smtp_server_new(&options);

    assert_non_null(s);
    *t = (struct total){ 0 };
    assert_int_equal(talk(s, STR(""), t), 0);
    assert_int_equal(talk(s, str_of(first), t), 0);
    return s;
}

#define TO_DATA "EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"

static void take_all_output(struct smtp_server *s)
{
    smtp_server_sent(s, smtp_server_output(s).n);
}

static void an_idle_session_is_small(void **state)
{
    struct total t;
    struct smtp_server *s = session(&t, TO_DATA);
    char line[] = "a line of the message, long enough to fill the buffer when repeated\r\n";

    assert_true(sizeof(struct smtp_server) <= 400);
    for (int i = 0; i < 3000; i++)
        talk(s, str_of(line), &t);
    talk(s, STR(".\r\n"), &t);
    assert_int_equal(t.ends, 1);
    assert_int_equal(t.body, 3000 * (sizeof(line) - 1));
    take_all_output(s);
    assert_true(s->in.cap == 0 && s->out.cap == 0);
    assert_false(smtp_server_buffered(s));
    smtp_server_free(s);
}

static void commands_of_a_transaction_do_not_allocate(void **state)
{
    struct total t;
    struct smtp_server *s = session(&t, "EHLO c.example\r\n");
    const char *in, *out;

    talk(s, STR("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"), &t);
    take_all_output(s);
    talk(s, STR("NOOP\r\n"), &t);
    in = s->in.data;
    out = s->out.data;
    for (int i = 0; i < 1000; i++) {
        talk(s, STR("RCPT TO:<c@d.example>\r\nVRFY c\r\nNOOP\r\n"), &t);
        take_all_output(s);
    }
    assert_ptr_equal(s->in.data, in);
    assert_ptr_equal(s->out.data, out);
    smtp_server_free(s);
}

/* A megabyte of each, fed in large pieces: bounded memory, and an end. */
static void a_megabyte_of_anything(void **state)
{
    static const char *const units[] = {
        "E",    "EHLO ", "\r",   "\n",       "\r\n",
        "\0",   ".",     "\xff", "RSET\r\n", "RCPT TO:<a@b.example>\r\n",
        "QUIT "
    };
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        size_t n = MAX(strlen(units[i]), (size_t)1);
        for (int in_data = 0; in_data < 2; in_data++) {
            struct total t;
            struct smtp_server *s = session(&t, in_data ? TO_DATA : "EHLO c.example\r\n");
            char block[16384];
            int r = 0;

            for (size_t k = 0; k + n <= sizeof(block); k += n)
                memcpy(block + k, units[i], n);
            for (int k = 0; k < 64 && r == 0; k++) {
                r = talk(s, str_make(block, sizeof(block) / n * n), &t);
                take_all_output(s);
            }
            assert_true(r == 0 || r == -EPIPE);
            assert_true(t.most_buffered <= SERVER_INPUT);
            if (!in_data && strcmp(units[i], "RSET\r\n") != 0)
                assert_int_equal(r, -EPIPE);
            smtp_server_free(s);
        }
    }
}

static void input_waits_for_the_answer(void **state)
{
    struct total t;
    struct smtp_server *s = session(&t, "");
    struct smtp_server_event e;
    size_t taken = 0, n;

    assert_int_equal(smtp_server_feed(s, "EHLO c.example\r\n", 16), 16);
    assert_int_equal(smtp_server_next(s, &e), 1);
    while ((n = smtp_server_feed(s, "NOOP 890123456789012345678901234\r\n", 32)) > 0)
        taken += n;
    assert_int_equal(taken, SERVER_INPUT);
    assert_int_equal(smtp_server_next(s, &e), 0);
    assert_true(smtp_server_buffered(s));
    say_yes(s, &e);
    smtp_server_free(s);
}

static void an_answer_must_fit_the_event(void **state)
{
    static const uint16_t wrong[] = { 0, 220, 252, 354, 600 };
    struct smtp_server_event e;
    struct total t;
    struct smtp_server *s = session(&t, "");

    smtp_server_feed(s, "EHLO c.example\r\n", 16);
    assert_int_equal(smtp_server_next(s, &e), 1);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(smtp_server_answer(s, e.ticket, &(struct smtp_reply){ .code = wrong[i] }),
                         -EINVAL);
    assert_int_equal(smtp_server_answer(s, 0, &(struct smtp_reply){ .code = 250 }), -ESTALE);
    say_yes(s, &e);
    smtp_server_free(s);
}

static void output_that_nobody_takes_ends_the_session(void **state)
{
    struct total t;
    struct smtp_server *s = session(&t, "EHLO c.example\r\n");
    int r = 0;

    for (int i = 0; i < 40000 && r == 0; i++)
        r = talk(s, STR("HELP\r\nRSET\r\n"), &t);
    assert_int_equal(r, -ENOMEM);
    assert_true(smtp_server_output(s).n <= SERVER_OUTPUT);
    smtp_server_free(s);
}

static void a_long_reply_is_split(void **state)
{
    struct total t;
    struct smtp_server *s = session(&t, "");
    struct smtp_server_event e;
    char text[2000];

    memset(text, 'x', sizeof(text));
    smtp_server_feed(s, "EHLO c.example\r\n", 16);
    assert_int_equal(smtp_server_next(s, &e), 1);
    take_all_output(s);
    assert_int_equal(
        smtp_server_answer(s, e.ticket,
                           &(struct smtp_reply){ 550, ENH(5, 7, 1), str_make(text, sizeof(text)) }),
        0);
    assert_true(str_starts(smtp_server_output(s), STR("550-5.7.1 xxx")));
    smtp_server_free(s);
}

static void after_close_nothing_is_read(void **state)
{
    struct total t;
    struct smtp_server *s = session(&t, "");
    struct smtp_server_event e;

    assert_int_equal(talk(s, STR("QUIT\r\nEHLO c.example\r\n"), &t), -EPIPE);
    take_all_output(s);
    assert_int_equal(smtp_server_feed(s, "NOOP\r\n", 6), 6);
    assert_int_equal(smtp_server_next(s, &e), -EPIPE);
    smtp_server_stop(s, &(struct smtp_reply){ .code = 421 }, "again");
    assert_int_equal(smtp_server_output(s).n, 0);
    smtp_server_free(s);
    assert_null(smtp_server_free(NULL));
}

static void in_data_tells_which_deadline_applies(void **state)
{
    struct total t;
    struct smtp_server *s = session(&t, TO_DATA);
    struct smtp_server_event e;

    assert_true(smtp_server_in_data(s));
    smtp_server_feed(s, "a\r\n.\r\n", 6);
    assert_true(smtp_server_in_data(s));
    assert_int_equal(smtp_server_next(s, &e), 1);
    assert_int_equal(e.type, SMTP_SERVER_BODY);
    assert_int_equal(smtp_server_next(s, &e), 1);
    assert_int_equal(e.type, SMTP_SERVER_END);
    assert_false(smtp_server_in_data(s));
    smtp_server_free(s);
}

static void the_size_limit_may_shrink_meanwhile(void **state)
{
    struct total t;
    struct smtp_server *s = session(&t, TO_DATA);
    struct smtp_server_options smaller = options;

    talk(s, STR("0123456789\r\n"), &t);
    smaller.size_limit = 4;
    smtp_server_set_options(s, &smaller);
    talk(s, STR("more\r\n.\r\n"), &t);
    assert_int_equal(t.body, 12);
    assert_int_equal(t.ends, 0);
    assert_int_equal(t.resets, 1);
    smtp_server_free(s);
}

/* ---- */

static char *path_of(const char *name)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", TRANSCRIPTS, name) < 0)
        abort();
    return path;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_transcript(const struct dirent *d)
{
    return str_ends(str_of(d->d_name), STR(".txt"));
}

int main(void)
{
    static struct CMUnitTest tests[200] = {
        cmocka_unit_test(an_idle_session_is_small),
        cmocka_unit_test(commands_of_a_transaction_do_not_allocate),
        cmocka_unit_test(a_megabyte_of_anything),
        cmocka_unit_test(input_waits_for_the_answer),
        cmocka_unit_test(an_answer_must_fit_the_event),
        cmocka_unit_test(output_that_nobody_takes_ends_the_session),
        cmocka_unit_test(a_long_reply_is_split),
        cmocka_unit_test(after_close_nothing_is_read),
        cmocka_unit_test(in_data_tells_which_deadline_applies),
        cmocka_unit_test(the_size_limit_may_shrink_meanwhile),
    };
    struct dirent **found;
    size_t by_hand = 0, n;
    int files = scandir(TRANSCRIPTS, &found, is_transcript, by_name);

    while (tests[by_hand].test_func)
        by_hand++;
    CHECK(files > 0 && (size_t)files + by_hand <= ARRAY_LEN(tests));
    n = by_hand;
    for (int i = 0; i < files; i++, n++) {
        char *path = path_of(found[i]->d_name);
        tests[n] = (struct CMUnitTest){ .name = path + strlen(TRANSCRIPTS) + 1,
                                        .test_func = transcript,
                                        .initial_state = path };
        free(found[i]);
    }
    free(found);

    int failed = _cmocka_run_group_tests("smtp_server", tests, n, NULL, NULL);
    for (size_t i = by_hand; i < n; i++)
        free(tests[i].initial_state);
    return failed;
}
