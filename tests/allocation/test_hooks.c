/* Memory runs out in policies in Lua: objects of the script, the arguments of a hook, what it said. A hook that fails so
 * defers, although the configuration says that those that fail reject: no reply is one for good, and nothing happens that
 * the policy has not said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>

#include <cmocka.h>

#include "dialogue.h"
#include "lua/policy.h"

static const char config[] =
    "local tern = require 'tern'\n"
    "local route = require 'tern.route'\n"
    "local seen = tern.kv('seen', { max = 100 })\n"
    "return { hostname = 'mx2.isp.example', spool = '/nowhere', relay_from = { '203.0.113.0/24' },\n"
    "  on_error = 'reject',\n"
    "  policies = { {\n"
    "    connect = function(ctx) ctx.session.data.from = ctx.session.client.address .. '!' end,\n"
    "    helo = function(ctx) ctx.session.data.name = ctx.session.helo:upper() end,\n"
    "    mail = function(ctx) ctx.message.data.who = { ctx.message.sender, ctx.session.data.name } "
    "end,\n"
    "    rcpt = function(ctx)\n"
    "      if ctx.recipient.local_part == 'refused' then\n"
    "        return tern.reject { 550, '5.1.1', 'no ' .. ctx.recipient.address }\n"
    "      end\n"
    "      return tern.accept()\n"
    "    end,\n"
    "    data = function(ctx)\n"
    "      assert(seen:set(ctx.message.sender, { n = #ctx.message.body:text() }))\n"
    "      ctx.message.headers:add('X-Seen', table.concat(ctx.message.data.who, ' '))\n"
    "    end,\n"
    "    route = function(ctx)\n"
    "      local a = assert(tern.dns.a('mx.' .. ctx.recipient.domain))\n"
    "      return route.hosts { a[1], reason = 'as ' .. ctx.recipient.domain }\n"
    "    end,\n"
    "    result = function(ctx) return nil end,\n"
    "  } } }\n";

#define CONTENT "Subject: a letter\r\n\r\nThe only line of the letter.\r\n"

static struct policy_source *source;
static struct settings *settings;

static int read_config(const struct policy_files *self, const char *path, bool secret,
                       struct buf *ret)
{
    return strcmp(path, "/etc/tern.lua") == 0 ? buf_add_str(ret, str_of(config)) : -ENOENT;
}

static void state_of(const struct policy_files *self, const char *path,
                     struct policy_file_state *ret)
{
    *ret = (struct policy_file_state){ .id = 0 };
}

static int load(void **state)
{
    static const struct policy_files files = { .read = read_config, .state = state_of };
    const struct policy_options options = { .files = &files, .cpus = 2 };
    struct policy_error err = { 0 };

    if (policy_load("/etc/tern.lua", &options, &source, &settings, &err) == 0)
        return 0;
    fprintf(stderr, "%s\n%s\n", err.message, err.detail);
    return -1;
}

static int unload(void **state)
{
    policy_source_unref(source);
    settings_unref(settings);
    return 0;
}

static struct hooks *new_hooks(void *arg, struct ports *ports, int worker, struct settings *s)
{
    struct policy_error err;
    struct hooks *hooks;

    if (policy_vm_new(source, s, ports, &hooks, &err) < 0)
        fail_msg("%s\n%s", err.message, err.detail);
    return hooks;
}

static void begin(void)
{
    settings_unref(f.settings);
    f.settings = settings_ref(settings);
    sim_world_accept_by(f.w, 0);
}

static void act(void)
{
    struct dialogue d;

    if (dialogue_open(&d) && dialogue_hello(&d) && dialogue_mail(&d, "")) {
        dialogue_rcpt(&d, "a.example", "");
        dialogue_say(&d, "RCPT TO:<refused@a.example>", 550);
        dialogue_rcpt(&d, "b.example", "");
        dialogue_data(&d, STR(CONTENT));
    }
    dialogue_close(&d);
    sim_world_advance(f.w, 2 * SIM_SECOND);
}

static void look_into(struct sim_host *h)
{
    for (size_t i = 0; i < sim_host_inbox(h); i++) {
        const struct sim_received *m = sim_host_received(h, i);
        if (!str_ends(m->content, STR(CONTENT)) &&
            !str_ends(m->content, STR("The only line of the letter.\r\n")))
            continue; /* of the end of the run */
        assert_true(str_find(m->content, STR("X-Seen: client@sender.example CLIENT.EXAMPLE\r\n")) >
                    0);
    }
}

static void look(const struct ledger_sum *sum)
{
    look_into(host_a);
    look_into(host_b);
    assert_int_equal(sim_host_inbox(host_c), 0);
    assert_int_equal(sum->bounced, 0);
}

static void test_hooks(void **state)
{
    static const struct starved_case c = {
        .name = "hooks", .begin = begin, .act = act, .look = look, .hooks = new_hooks
    };

    starved_spells(&c, 5, 0);
    starved_by_chance(&c, 10, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_teardown(test_hooks, starved_teardown) };

    allocation_init();
    return cmocka_run_group_tests_name("allocations of policies", tests, load, unload);
}
