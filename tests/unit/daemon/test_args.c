/* The command line of subcommands: options, values, operands, what is said when it is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/args.h"
#include "daemon/cmd.h"

struct line {
    const char *config;
    bool json, verbose;
    struct arg_list listen, operands;
    char error[ARGS_ERROR_TEXT];
};

static enum args_result read_line(struct line *l, size_t min, size_t max, ...)
{
    const struct arg_option options[] = {
        ARG_CONFIG(&l->config),
        ARG_JSON(&l->json),
        ARG_FLAG('v', "verbose", &l->verbose, "say more"),
        ARG_LIST('l', "listen", "ADDR", &l->listen, "where"),
    };
    const struct arg_command command = {
        .name = "thing",
        .usage = "thing ID [-c FILE]\nthing --other",
        .about = "Does things.",
        .options = options,
        .n_options = ARRAY_LEN(options),
        .min_operands = min,
        .max_operands = max,
    };
    char *argv[32] = { (char *)"thing" };
    int argc = 1;
    va_list ap;

    *l = (struct line){ .config = "default" };
    va_start(ap, max);
    while ((argv[argc] = va_arg(ap, char *)))
        argc++;
    va_end(ap);
    return args_read(&command, argc, argv, &l->operands, l->error);
}

static void test_nothing(void **state)
{
    struct line l;

    assert_int_equal(read_line(&l, 0, 0, NULL), ARGS_GO);
    assert_string_equal(l.config, "default");
    assert_false(l.json);
    assert_int_equal(l.operands.n, 0);
}

static void test_forms_of_options(void **state)
{
    struct line l;

    assert_int_equal(read_line(&l, 0, 0, "-c", "a.lua", NULL), ARGS_GO);
    assert_string_equal(l.config, "a.lua");
    assert_int_equal(read_line(&l, 0, 0, "-ca.lua", NULL), ARGS_GO);
    assert_string_equal(l.config, "a.lua");
    assert_int_equal(read_line(&l, 0, 0, "--config", "a.lua", NULL), ARGS_GO);
    assert_string_equal(l.config, "a.lua");
    assert_int_equal(read_line(&l, 0, 0, "--config=a.lua", "--json", NULL), ARGS_GO);
    assert_string_equal(l.config, "a.lua");
    assert_true(l.json);
    assert_int_equal(read_line(&l, 0, 0, "-vc", "a.lua", NULL), ARGS_GO);
    assert_true(l.verbose);
    assert_string_equal(l.config, "a.lua");
    assert_int_equal(read_line(&l, 0, 0, "--config=", NULL), ARGS_GO);
    assert_string_equal(l.config, "");
}

static void test_last_text_counts_and_lists_gather(void **state)
{
    struct line l;

    assert_int_equal(
        read_line(&l, 0, 0, "-c", "a", "-c", "b", "-l1", "--listen=2", "-l", "3", NULL), ARGS_GO);
    assert_string_equal(l.config, "b");
    assert_int_equal(l.listen.n, 3);
    assert_string_equal(l.listen.v[0], "1");
    assert_string_equal(l.listen.v[1], "2");
    assert_string_equal(l.listen.v[2], "3");
}

static void test_operands(void **state)
{
    struct line l;

    assert_int_equal(read_line(&l, 1, 2, "one", "--json", "two", NULL), ARGS_GO);
    assert_int_equal(l.operands.n, 2);
    assert_string_equal(l.operands.v[1], "two");
    assert_true(l.json);
    /* "-" is one; behind "--" all are */
    assert_int_equal(read_line(&l, 0, 3, "-", "--", "--json", "-c", NULL), ARGS_GO);
    assert_int_equal(l.operands.n, 3);
    assert_false(l.json);
    assert_int_equal(read_line(&l, 1, 1, NULL), ARGS_BAD);
    assert_string_equal(l.error, "something is missing: tern thing ID [-c FILE]");
    assert_int_equal(read_line(&l, 1, 1, "a", "b", NULL), ARGS_BAD);
    assert_string_equal(l.error, "'b' is too much: tern thing ID [-c FILE]");
}

static void test_help(void **state)
{
    struct line l;

    assert_int_equal(read_line(&l, 1, 1, "--help", NULL), ARGS_HELP);
    assert_int_equal(read_line(&l, 1, 1, "a", "b", "-h", NULL), ARGS_HELP);
    assert_int_equal(read_line(&l, 1, 1, "-vh", NULL), ARGS_HELP);
}

static void test_mistakes(void **state)
{
    struct line l;

    assert_int_equal(read_line(&l, 0, 0, "--jsn", NULL), ARGS_BAD);
    assert_string_equal(l.error, "unknown option '--jsn'; did you mean '--json'?");
    assert_int_equal(read_line(&l, 0, 0, "--conf=x", NULL), ARGS_BAD);
    assert_string_equal(l.error, "unknown option '--conf'; did you mean '--config'?");
    assert_int_equal(read_line(&l, 0, 0, "--frobnicate", NULL), ARGS_BAD);
    assert_string_equal(l.error, "unknown option '--frobnicate'");
    assert_int_equal(read_line(&l, 0, 0, "-x", NULL), ARGS_BAD);
    assert_string_equal(l.error, "unknown option '-x'");
    assert_int_equal(read_line(&l, 0, 0, "--json=1", NULL), ARGS_BAD);
    assert_string_equal(l.error, "option '--json' takes no value");
    assert_int_equal(read_line(&l, 0, 0, "-c", NULL), ARGS_BAD);
    assert_string_equal(l.error, "option '--config' needs a value: --config FILE");
}

static void test_too_many(void **state)
{
    const struct arg_command command = { .name = "x", .usage = "x", .max_operands = ARGS_MAX };
    static char *argv[ARGS_MAX + 2];
    static struct arg_list operands;
    char error[ARGS_ERROR_TEXT];

    for (size_t i = 0; i < ARRAY_LEN(argv); i++)
        argv[i] = (char *)"a";
    assert_int_equal(args_read(&command, ARGS_MAX + 1, argv, &operands, error), ARGS_GO);
    assert_int_equal(args_read(&command, ARGS_MAX + 2, argv, &operands, error), ARGS_BAD);
}

static void test_nearest(void **state)
{
    static const char *const names[] = { "run", "check", "status", "queue", "etrn", "reload" };
    const size_t n = ARRAY_LEN(names);

    assert_string_equal(nearest_name("staus", names, n), "status");
    assert_string_equal(nearest_name("stat", names, n), "status");
    assert_string_equal(nearest_name("qeue", names, n), "queue");
    assert_string_equal(nearest_name("ertn", names, n), "etrn");
    assert_string_equal(nearest_name("Reload", names, n), "reload");
    assert_null(nearest_name("x", names, n));
    assert_null(nearest_name("", names, n));
    assert_null(nearest_name("completely-different", names, n));
    assert_null(nearest_name("a-word-that-is-longer-than-any-name-here-could-be", names, n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_forms_of_options),
        cmocka_unit_test(test_last_text_counts_and_lists_gather),
        cmocka_unit_test(test_operands),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
