/* Files of maps that change: when a change is noticed, and that it reaches the VMs of its source only. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "mail/map.h"
#include "unit/lua/fake.h"

#define PATH "/etc/tern/domains.csv"
#define CONFIG                                                                                     \
    "local tern, route = require 'tern', require 'tern.route'\n"                                   \
    "local m = tern.map.file('domains.csv', { policies = { hold = route.hold { queue = 'x' } } })" \
    " return { hostname = 'mx.example', domains = m }"

static struct fake_file files[] = { { PATH, "a.example, hold\n", 0 }, { NULL, NULL, 0 } };

static bool knows(struct fake *f, const char *recipient)
{
    struct fake_mail m;
    struct fake_call c;

    fake_mail_init(&m, "a@sender.example", recipient);
    fake_run(f, HOOK_ROUTE, &m, &c);
    bool known = c.result.verdict == VERDICT_ROUTE;
    fake_call_done(&c);
    fake_mail_done(&m);
    return known;
}

static void start(struct fake *f)
{
    files[0].text = "a.example, hold\n";
    fake_init(f, files);
    fake_start(f, CONFIG);
}

static void a_change_is_told_when_it_rests(void **state)
{
    struct fake f;

    start(&f);
    assert_null(policy_maps_changed(f.source));
    files[0].text = "b.example, hold\nc.exa";
    assert_null(policy_maps_changed(f.source)); /* it may be still on its way */
    files[0].text = "b.example, hold\nc.example, hold\n";
    assert_null(policy_maps_changed(f.source));
    struct map_file *file = policy_maps_changed(f.source);
    assert_non_null(file);
    assert_string_equal(policy_map_name(file), "domains.csv");
    assert_null(policy_maps_changed(f.source)); /* once */
    fake_done(&f);
}

static void a_new_version_is_taken(void **state)
{
    struct fake f;
    struct map *m;
    struct policy_error err;

    start(&f);
    assert_true(knows(&f, "u@a.example"));
    assert_false(knows(&f, "u@b.example"));
    uint64_t before = *f.hooks->data_fingerprint;
    files[0].text = "b.example, hold\nc.example, hold\n";
    policy_maps_changed(f.source);
    struct map_file *file = policy_maps_changed(f.source);
    assert_int_equal(policy_map_read(f.source, file, &m, &err), 0);
    assert_int_equal(map_count(m), 2);
    assert_true(knows(&f, "u@a.example")); /* not yet */
    map_unref(policy_map_adopt(file, map_ref(m)));
    map_unref(policy_map_give(f.hooks, file, m));
    assert_false(knows(&f, "u@a.example"));
    assert_true(knows(&f, "u@c.example"));
    assert_true(*f.hooks->data_fingerprint != before);

    /* A VM that is built now begins with it. */
    struct hooks *more;
    assert_int_equal(policy_vm_new(f.source, f.settings, &f.ports, &more, &err), 0);
    assert_true(*more->data_fingerprint == *f.hooks->data_fingerprint);
    more->free(more);
    fake_done(&f);
}

static void a_wrong_one_is_refused(void **state)
{
    static const struct {
        const char *text, *says;
        int line;
    } cases[] = {
        { "a.example, hold\nb.example, hodl\n", "domains.csv:2: unknown policy \"hodl\"", 2 },
        { "a.example, hold\n\nA.example, hold\n", "domains.csv:3: \"a.example\" stands twice", 3 },
        { "a.example, hold, \"x\n", "domains.csv:1: a quote", 1 },
    };
    struct fake f;

    start(&f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct policy_error err;
        struct map *m = NULL;
        files[0].text = cases[i].text;
        policy_maps_changed(f.source);
        struct map_file *file = policy_maps_changed(f.source);
        assert_non_null(file);
        assert_int_equal(policy_map_read(f.source, file, &m, &err), -EINVAL);
        assert_null(m);
        assert_non_null(strstr(err.message, cases[i].says));
        assert_int_equal(err.line, cases[i].line);
        assert_string_equal(err.file, "domains.csv");
        assert_null(policy_maps_changed(f.source)); /* not again */
    }
    assert_true(knows(&f, "u@a.example"));
    fake_done(&f);
}

static void another_configuration_is_left_alone(void **state)
{
    struct fake f, other;
    struct policy_error err;
    struct map *m;

    start(&f);
    fake_init(&other, files);
    fake_start(&other, CONFIG);
    files[0].text = "b.example, hold\n ";
    policy_maps_changed(f.source);
    struct map_file *file = policy_maps_changed(f.source);
    assert_int_equal(policy_map_read(f.source, file, &m, &err), 0);
    assert_ptr_equal(policy_map_give(other.hooks, file, m), m); /* it does not know that file */
    map_unref(m);
    assert_true(knows(&other, "u@a.example"));
    fake_done(&other);
    fake_done(&f);
}

/* Writes on while the file is read: what was read may be half of the one and half of the other. */
static int read_while_written(const struct policy_files *self, const char *path, bool secret,
                              struct buf *ret)
{
    int r = buf_add_str(ret, STR("b.example, hold\n"));

    files[0].text = "b.example, hold\nc.example, hold\nd.example, hold\n";
    return r;
}

static void one_that_changes_while_it_is_read_is_left(void **state)
{
    struct fake f;
    struct policy_error err;
    struct map *m = NULL;

    start(&f);
    files[0].text = "b.example, hold\nc.exam";
    policy_maps_changed(f.source);
    struct map_file *file = policy_maps_changed(f.source);
    assert_non_null(file);
    int (*read)(const struct policy_files *, const char *, bool, struct buf *) = f.files.read;
    f.files.read = read_while_written;
    assert_int_equal(policy_map_read(f.source, file, &m, &err), -EAGAIN);
    assert_null(m);
    f.files.read = read;
    assert_null(policy_maps_changed(f.source)); /* until it rests */
    assert_ptr_equal(policy_maps_changed(f.source), file);
    assert_int_equal(policy_map_read(f.source, file, &m, &err), 0);
    assert_int_equal(map_count(m), 3);
    map_unref(m);
    fake_done(&f);
}

static void one_that_could_not_be_read_is_read_later(void **state)
{
    struct fake f;
    int looks = 0;

    start(&f);
    files[0].text = "bb.example, hold\n";
    policy_maps_changed(f.source);
    struct map_file *file = policy_maps_changed(f.source);
    assert_non_null(file);
    policy_map_later(file, 3);
    while (!policy_maps_changed(f.source))
        assert_true(++looks < 10);
    assert_int_equal(looks, 2);
    assert_null(policy_maps_changed(f.source)); /* once */
    fake_done(&f);
}

static void files_are_opened_at_load(void **state)
{
    struct fake f;

    fake_init(&f, files);
    fake_start(&f, "local tern = require 'tern'\n"
                   "return { hostname = 'mx.example', domains = function()\n"
                   "  return tern.map.file 'domains.csv' end }");
    assert_false(knows(&f, "u@a.example"));
    assert_true(fake_logged(&f, "files are opened while the configuration is loaded"));
    fake_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_is_told_when_it_rests),
        cmocka_unit_test(a_new_version_is_taken),
        cmocka_unit_test(a_wrong_one_is_refused),
        cmocka_unit_test(another_configuration_is_left_alone),
        cmocka_unit_test(one_that_changes_while_it_is_read_is_left),
        cmocka_unit_test(one_that_could_not_be_read_is_read_later),
        cmocka_unit_test(files_are_opened_at_load),
    };

    return cmocka_run_group_tests_name("maps", tests, NULL, NULL);
}
