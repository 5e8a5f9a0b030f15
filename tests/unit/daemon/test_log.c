/* The log: whole lines in a file, levels, opening anew, a pipe that nobody reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/journal.h"

static char dir[] = "/tmp/tern-test-log-XXXXXX";
static char path[64];

static int setup(void **state)
{
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/log", dir);
    return 0;
}

static int teardown(void **state)
{
    char other[80];

    snprintf(other, sizeof(other), "%s.1", path);
    unlink(path);
    unlink(other);
    rmdir(dir);
    return 0;
}

static char *content(const char *file)
{
    static char text[4 * 1024 * 1024];
    FILE *f = fopen(file, "r");
    size_t n;

    assert_non_null(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

static struct log_sink *open_sink(void)
{
    char error[LOG_SINK_ERROR_TEXT];
    struct log_sink *s;

    assert_int_equal(log_sink_open(str_of(path), &s, error), 0);
    return s;
}

static void test_appends(void **state)
{
    struct log_sink *s = open_sink();
    struct stat st;

    log_sink_add(s, STR("one\ntwo\n"), 2);
    log_sink_add(s, STR("three\n"), 1);
    assert_null(log_sink_close(s));
    assert_string_equal(content(path), "one\ntwo\nthree\n");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0007, 0);
    s = open_sink();
    log_sink_add(s, STR("four\n"), 1);
    log_sink_close(s);
    assert_string_equal(content(path), "one\ntwo\nthree\nfour\n");
    assert_null(log_sink_close(NULL));
}

static void test_cannot_open(void **state)
{
    char error[LOG_SINK_ERROR_TEXT] = "";
    struct log_sink *s;

    assert_int_equal(log_sink_open(STR("/nowhere/at/all"), &s, error), -ENOENT);
    assert_non_null(strstr(error, "/nowhere/at/all: No such file"));
    s = open_sink();
    assert_int_equal(log_sink_reopen(s, STR("/nowhere/at/all"), error), -ENOENT);
    log_sink_add(s, STR("still here\n"), 1);
    log_sink_close(s);
    assert_string_equal(content(path), "still here\n");
}

static void test_rotation(void **state)
{
    char other[80], error[LOG_SINK_ERROR_TEXT];
    struct log_sink *s = open_sink();
    struct log_sink_stats st;

    log_sink_add(s, STR("old\n"), 1);
    do
        log_sink_get_stats(s, &st);
    while (st.lines < 1);
    snprintf(other, sizeof(other), "%s.1", path);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(log_sink_reopen(s, str_of(path), error), 0);
    log_sink_add(s, STR("new\n"), 1);
    log_sink_close(s);
    assert_string_equal(content(other), "old\n");
    assert_string_equal(content(path), "new\n");
}

enum { WRITERS = 4, LINES_EACH = 5000 };

static void *write_lines(void *arg)
{
    struct log_sink *s = arg;

    for (int i = 0; i < LINES_EACH; i++)
        log_sink_add(s, STR("{\"a line\": \"that must stay whole\"}\n"), 1);
    return NULL;
}

static void test_threads(void **state)
{
    struct log_sink *s = open_sink();
    struct log_sink_stats st;
    pthread_t thread[WRITERS];
    size_t lines = 0;

    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, write_lines, s), 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(thread[i], NULL);
    do
        log_sink_get_stats(s, &st);
    while (st.lines < WRITERS * LINES_EACH);
    assert_int_equal(st.lost, 0);
    log_sink_close(s);
    for (char *p = content(path); *p; p = strchr(p, '\n') + 1, lines++)
        assert_memory_equal(p, "{\"a line\"", 9);
    assert_int_equal(lines, WRITERS * LINES_EACH);
}

/* How many lines the next log_lost behind *from tells of; 0: no whole one has come. */
static uint64_t next_lost(const char *text, size_t *from)
{
    const char *event = strstr(text + *from, "\"event\":\"log_lost\"");
    const char *lines = event ? strstr(event, "\"lines\":") : NULL;
    const char *end = lines ? strchr(lines, '\n') : NULL;

    if (!end)
        return 0;
    *from = (size_t)(end - text);
    return strtoull(lines + strlen("\"lines\":"), NULL, 10);
}

/* Whoever logs goes on; lines are counted, and the log says so later. */
static void test_full_pipe(void **state)
{
    static char line[64 * 1024];
    struct log_sink_stats st;
    char *text;

    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    struct log_sink *s = open_sink();
    memset(line, 'x', sizeof(line));
    line[sizeof(line) - 1] = '\n';
    for (int i = 0; i < 1000; i++)
        log_sink_add(s, str_make(line, sizeof(line)), 1);
    log_sink_get_stats(s, &st);
    assert_true(st.lost > 0);
    assert_true(st.lost < 1000);

    size_t got = 0, size = 64 * 1024 * 1024, lines = 0, events = 0;
    uint64_t told = 0;
    text = malloc(size + 1);
    assert_non_null(text);
    for (size_t from = 0; told < st.lost;) { /* told at once, or in parts */
        ssize_t n = read(reader, text + got, size - got);
        if (n > 0)
            got += (size_t)n;
        text[got] = '\0';
        for (uint64_t one; (one = next_lost(text, &from)) > 0; events++)
            told += one;
        from = got > from + 300 ? got - 300 : from;
    }
    assert_int_equal(told, st.lost);
    for (size_t i = 0; i < got; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, 1000 - st.lost + events);
    free(text);
    log_sink_close(s);
    close(reader);
}

static void test_journal(void **state)
{
    struct log_sink *s = open_sink();
    struct io_loop *loop;
    struct journal j;
    enum event_level level;

    assert_int_equal(io_loop_new(0, 1, &loop), 0);
    assert_true(event_level_parse("info", &level));
    assert_false(event_level_parse("loud", &level));
    journal_init(&j, s, loop, level);
    journal_event(&j, EVENT(EVENT_DEBUG, "unseen", F_INT("n", 1)));
    journal_event(&j, EVENT(EVENT_INFO, "seen", F_STRZ("who", "a\nb")));
    journal_done(&j);
    io_loop_free(loop);
    log_sink_close(s);
    assert_null(strstr(content(path), "unseen"));
    assert_non_null(strstr(content(path), "\"event\":\"seen\",\"who\":\"a\\nb\"}\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_appends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cannot_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_pipe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_journal, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
