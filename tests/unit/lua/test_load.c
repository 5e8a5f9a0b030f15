/* Loading: messages for what is wrong, settings for what is right, modules, fingerprints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "unit/lua/fake.h"

static const struct fake_file tree[] = {
    { "/etc/tern/policies/greylist.lua",
      "local tern = require 'tern'\n\nreturn function()\n  return {\n"
      "    rcpt_to = function(ctx) end,\n  }\nend\n",
      0 },
    { "/etc/tern/policies/named.lua",
      "return { name = 'named',\n  rcpt = function() end,\n  nmae = 'x' }\n", 0 },
    { "/etc/tern/site/rules.lua", "return { data = function() end }\n", 0 },
    { "/etc/tern/broken.lua", "return {\n  x = = 1 }\n", 0 },
    { "/etc/tern/circle.lua", "return require 'circle2'\n", 0 },
    { "/etc/tern/circle2.lua", "return require 'circle'\n", 0 },
    { "/etc/tern/closed.lua", NULL, -EACCES },
    { "/etc/tern/boom.lua", "local t = nil\nlocal x = t.y\nreturn x\n", 0 },
    { "/etc/tern/secrets/good", "hunter2\n", 0 },
    { "/etc/tern/secrets/open", NULL, -EPERM },
    { "/etc/tern/secrets/empty", "\n", 0 },
    { "/etc/tern/options.lua",
      "local policy = require 'tern.policy'\n"
      "return policy.define { name = 'opt', options = {\n"
      "  { name = 'when', type = 'enum', values = { 'bounce', 'defer' }, default = 'bounce' },\n"
      "  { name = 'wait', type = 'duration', default = '10m' },\n"
      "  { name = 'nets', type = 'list', of = { type = 'cidr' }, single = true } },\n"
      "  make = function(o) return { route = function() end } end }\n",
      0 },
    { NULL, NULL, 0 },
};

struct golden {
    const char *config;
    const char *message;
    int exit_code;
};

#define HEAD "return {\n  hostname = 'mx.example',\n"

static const struct golden golden[] = {
    { "return {\n  hostnam = 'mx.example',\n}\n",
      "tern.lua:2: unknown key 'hostnam' in the configuration; did you mean 'hostname'?", 78 },
    { "-- nothing\nreturn {}\n",
      "tern.lua:2: 'hostname' is missing: it must be a host name such as \"mx.example.com\"", 78 },
    { "local x = 1\n", "tern.lua: the file must end with 'return { ... }'", 78 },
    { "local x\nerror()\n", "tern.lua:2: an error without a message", 78 },
    { "local function f() error('', 0) end\nf()\n", "tern.lua:1: an error without a message", 78 },
    { "error({})\n", "tern.lua:1: an error that is no text, but a table", 78 },
    { "error('\\0a\\0b', 0)\n", "?a?b", 78 },
    { "return 3\n", "tern.lua:1: the configuration must be a table, got 3", 78 },
    { HEAD "  limits = {\n    message_size = true,\n  },\n}\n",
      "tern.lua:4: 'limits.message_size' must be a size such as \"50M\", got a boolean", 78 },
    { HEAD "  limits = { message_size = '50X' } }\n",
      "tern.lua:3: 'limits.message_size' must be a size such as \"50M\", got \"50X\"", 78 },
    { HEAD "  limits = { recipients = 5 } }\n",
      "tern.lua:3: 'limits.recipients' must be a whole number of at least 100, got 5", 78 },
    { HEAD "  limits = { recipient = 500 } }\n",
      "tern.lua:3: unknown key 'recipient' in 'limits'; did you mean 'recipients'?", 78 },
    { HEAD "  limits = '50M' }\n", "tern.lua:3: 'limits' must be a table, got \"50M\"", 78 },
    { HEAD "  workers = 'many' }\n",
      "tern.lua:3: 'workers' must be \"auto\" or a whole number from 1 to 256, got \"many\"", 78 },
    { HEAD "  listen = { { '0.0.0.0:25' },\n    { '0.0.0.0:587', servce = 'submission' } } }\n",
      "tern.lua:4: unknown key 'servce' in 'listen[2]'; did you mean 'service'?", 78 },
    { HEAD "  listen = { { '0.0.0.0:587', service = 'submission' } } }\n",
      "tern.lua:3: 'listen[1]' asks for AUTH, and nothing says who may: set auth = { passwords = "
      "\"FILE\" }, or have a policy with the hook 'auth'",
      78 },
    { HEAD "  auth = { passwords = 'u' },\n  listen = { { '0.0.0.0:25', auth = 'require' } } }\n",
      "tern.lua:4: 'listen[1]' asks for AUTH and has no TLS, without which passwords are not taken: "
      "set tls = { cert = ..., key = ... }, or auth = { without_tls = true }",
      78 },
    { HEAD "  auth = { mechanisms = { 'PLAIN', 'SCRAM-SHA256' } } }\n",
      "tern.lua:3: 'auth.mechanisms[2]' must be \"PLAIN\", \"LOGIN\", \"SCRAM-SHA-256\" or "
      "\"CRAM-MD5\", got \"SCRAM-SHA256\"; did you mean \"SCRAM-SHA-256\"?",
      78 },
    { HEAD "  listen = { { '0.0.0.0:25', tls = 'implict' } } }\n",
      "tern.lua:3: 'listen[1].tls' must be \"offer\", \"none\", \"require\" or \"implicit\", got "
      "\"implict\"; did you mean \"implicit\"?",
      78 },
    { HEAD "  listen = { 'smtp.example:25' } }\n",
      "tern.lua:3: 'listen[1][1]' must be an address with a port, such as \"192.0.2.1:25\" or "
      "\"[::]:25\", or the path of a Unix socket, got \"smtp.example:25\"",
      78 },
    { HEAD "  listen = { { '127.0.0.1:25',\n service = 'lmtp' } } }\n",
      "tern.lua:3: 'listen[1]' speaks LMTP on port 25, where hosts speak SMTP: give it another port "
      "(24 is usual), or a Unix socket",
      78 },
    { HEAD "  listen = { { '127.0.0.1:25',\n mode = '600' } } }\n",
      "tern.lua:4: 'listen[1].mode' is of no use: it is for Unix sockets, and there is no path of one",
      78 },
    { HEAD "  listen = { { service = 'smtp' } } }\n",
      "tern.lua:3: 'listen[1]' needs at least one item: an address with a port, such as "
      "\"192.0.2.1:25\" or \"[::]:25\", or the path of a Unix socket",
      78 },
    { HEAD "  listen = {\n    { '0.0.0.0:465', tls = 'implicit' } } }\n",
      "tern.lua:4: 'listen[1].tls' is \"implicit\", but 'tls' has no cert and key", 78 },
    { HEAD "  listen = { '0.0.0.0:465', tls = 'implicit' } }\n",
      "tern.lua:3: 'listen[1].tls' is \"implicit\", but 'tls' has no cert and key", 78 },
    { HEAD "  tls = { cert = '/x' } }\n", "tern.lua:3: 'tls' needs both cert and key", 78 },
    { HEAD "  tls = {\n    certificates = { { cert = '/x' } } } }\n",
      "tern.lua:4: 'tls.certificates[1].key' is missing: it must be a path such as "
      "\"/etc/tern/key.pem\"",
      78 },
    { HEAD
      "  tls = { certificates = {\n    { cert = '/x', key = '/y', names = { 'a.*.b' } } } } }\n",
      "tern.lua:4: 'tls.certificates[1].names[1]' must be a name such as \"mx.example.com\" or "
      "\"*.example.com\", got \"a.*.b\"",
      78 },
    { HEAD "  listen = { { '0.0.0.0:465', client_certificates = 'require' } } }\n",
      "tern.lua:3: 'listen[1].client_certificates' is \"require\", but there is no TLS with clients: "
      "set tls = { cert = ..., key = ... }",
      78 },
    { HEAD "  tls = { cert = '/c', key = '/k' },\n"
           "  listen = { { '0.0.0.0:25', tls = 'none', client_ca = '/a' } } }\n",
      "tern.lua:4: 'listen[1].client_ca' is of no use: no certificates of clients are asked for there",
      78 },
    { HEAD "  clients = { connection_rate = '5 a minute' } }\n",
      "tern.lua:3: 'clients.connection_rate' must be a rate such as \"100/m\", \"2/s\" or "
      "\"1000/h,burst=20\", got \"5 a minute\"",
      78 },
    { HEAD "  relay_from = { '10.0.0.0/8', '10.0.0.1/8' } }\n",
      "tern.lua:3: 'relay_from[2]' must be a network such as \"10.0.0.0/8\", got \"10.0.0.1/8\"",
      78 },
    { HEAD "  relay_from = '10.0.0.0/99' }\n",
      "tern.lua:3: 'relay_from' must be a network such as \"10.0.0.0/8\", got \"10.0.0.0/99\"",
      78 },
    { HEAD "  timeouts = { hook = '30 seconds' } }\n",
      "tern.lua:3: 'timeouts.hook' must be a duration such as \"30s\", \"15m\" or \"5d\", got \"30 "
      "seconds\"",
      78 },
    { HEAD "  queue = { retry = '5m,banana' } }\n",
      "tern.lua:3: 'queue.retry' must be a schedule such as \"1m,5m,15m*4,1h...\", got "
      "\"5m,banana\"",
      78 },
    { HEAD "  queue = { concurrency = 30, max_concurrency = 20 } }\n",
      "tern.lua:3: 'queue.concurrency' is more than 'queue.max_concurrency'", 78 },
    { HEAD "  on_error = 'explode' }\n",
      "tern.lua:3: 'on_error' must be \"defer\", \"reject\" or \"ignore\", got \"explode\"", 78 },
    { HEAD "  domains = { ['exa mple.com'] = {} } }\n",
      "tern.lua:3: \"exa mple.com\" is not a domain, \".domain\" (its subdomains) or \"*\"", 78 },
    { HEAD "  domains = {\n    ['Example.com'] = {},\n    ['example.com.'] = {} } }\n",
      "tern.lua:5: 'domains' names \"example.com\" twice", 78 },
    { HEAD "  domains = { ['example.com'] = 'backup' } }\n",
      "tern.lua:3: 'domains[\"example.com\"]' must be a policy (a table of hooks) or a route, got "
      "\"backup\"",
      78 },
    { HEAD "  policies = { require 'policies.greylist' } }\n",
      "tern.lua:3: 'policies[1]' must be a policy (a table of hooks) or a route, got a function "
      "(call it: a function that makes one is not one)",
      78 },
    { HEAD "  policies = { require 'policies.greylist' () } }\n",
      "unknown hook 'rcpt_to' in policy 'greylist' (policies/greylist.lua:5); did you mean 'rcpt'?",
      78 },
    { HEAD "  policies = { require 'policies.named' } }\n",
      "unknown field 'nmae' in policy 'named' (policies/named.lua:3); did you mean 'name'?", 78 },
    { HEAD "  policies = { { rcpt = 'no' } } }\n",
      "tern.lua:3: hook 'rcpt' in policy 'policy' must be a function, got \"no\"", 78 },
    { HEAD "  default_route = require 'tern.route' }\n",
      "tern.lua:3: 'default_route' must be a route, such as route.mx { domain = \"example.com\" }, "
      "or a policy that has `route`, got a table",
      78 },
    { HEAD "  sources = { ['192.0.2.1'] = {},\n    ['mx.example'] = {} } }\n",
      "tern.lua:4: \"mx.example\" is not an address that connections can be made from, such as "
      "\"192.0.2.1\"",
      78 },
    { HEAD "  sources = { ['255.255.255.255'] = {} } }\n",
      "tern.lua:3: \"255.255.255.255\" is not an address that connections can be made from, such as "
      "\"192.0.2.1\"",
      78 },
    { HEAD "  sources = { ['192.0.2.1'] = {\n    rate = '100' } } }\n",
      "tern.lua:4: 'sources[\"192.0.2.1\"].rate' must be a rate such as \"100/m\", \"2/s\" or "
      "\"1000/h,burst=20\", got \"100\"",
      78 },
    { HEAD "  sources = { ['192.0.2.1'] = { name = 'a.example' } } }\n",
      "tern.lua:3: unknown key 'name' in 'sources[\"192.0.2.1\"]'", 78 },
    { HEAD "  reload = { test = true } }\n",
      "tern.lua:3: 'reload' is not available in this version", 78 },
    { "local route = require 'tern.route'\n" HEAD
      "  default_route = route.hosts { 'a', blance = 1 } }\n",
      "tern.lua:4: unknown option 'blance' in route.hosts; did you mean 'balance'?", 78 },
    { "local route = require 'tern.route'\n" HEAD
      "  default_route = route.hosts { 'a', tls = 'yes' } }\n",
      "tern.lua:4: route.hosts: 'tls' must be \"opportunistic\", \"none\", \"require\", "
      "\"verify\" or \"dane\", got \"yes\"",
      78 },
    { "local route = require 'tern.route'\nlocal r = route.hosts { { 'a', tls = 'yes' } }\n",
      "tern.lua:2: route.hosts: '[1].tls' must be \"opportunistic\", \"none\", \"require\", "
      "\"verify\" or \"dane\", got \"yes\"",
      78 },
    { "local route = require 'tern.route'\nlocal r = route.hosts { { tls = 'none' } }\n",
      "tern.lua:2: route.hosts: '[1]' needs at least one item: a host such as "
      "\"mail.example.com:587\", \"[192.0.2.1]:25\" or \"lmtp:/path\"",
      78 },
    /* S7: no message quotes what may be a password. */
    { "local route = require 'tern.route'\nlocal r = route.hosts { 'a', auth = 'me:hunter2' }\n",
      "tern.lua:2: route.hosts: 'auth' must be a table, got a string", 78 },
    { "local route = require 'tern.route'\nlocal r = route.hosts { 'a', auth = { user = 'me' } }\n",
      "tern.lua:2: route.hosts: 'auth.password' is missing: it must be a text of 1 to 1024 octets, "
      "or a secret, as in secret \"name\"",
      78 },
    { "local route = require 'tern.route'\n"
      "local r = route.hosts { 'a', auth = { user = 'me', password = 12345 } }\n",
      "tern.lua:2: route.hosts: 'auth.password' must be a text of 1 to 1024 octets, or a secret, as "
      "in secret \"name\", got a number",
      78 },
    { "local route = require 'tern.route'\n"
      "local r = route.hosts { 'a', auth = { user = 'me', pasword = 'hunter2' } }\n",
      "tern.lua:2: route.hosts: unknown key 'pasword' in 'auth'; did you mean 'password'?", 78 },
    { "local route = require 'tern.route'\n"
      "local r = route.hosts { 'a', auth = { user = 'me', password = secret 'empty' } }\n",
      "tern.lua:2: auth: the secret must hold a password of 1 to 1024 octets", 78 },
    { "local route = require 'tern.route'\n"
      "error(tostring(route.hosts { 'a', auth = { user = 'me', password = 'hunter2' } }))\n",
      "tern.lua:2: hosts a, auth me", 78 },
    { "local route = require 'tern.route'\n" HEAD "  default_route = route.mx {} }\n",
      "tern.lua:4: route.mx: 'domain' is missing (only a hook with a recipient may leave it out)",
      78 },
    { "local opt = require 'options'\n" HEAD "  domains = { a = opt { wehn = 'defer' } } }\n",
      "tern.lua:4: unknown option 'wehn' in opt; did you mean 'when'?", 78 },
    { "local opt = require 'options'\n" HEAD "  domains = { a = opt { when = 'dfer' } } }\n",
      "tern.lua:4: opt: 'when' must be \"bounce\" or \"defer\", got \"dfer\"; did you mean "
      "\"defer\"?",
      78 },
    { "return {\n  x = = 1 }\n", "tern.lua:2: unexpected symbol near '='", 78 },
    { "require 'broken'\n", "broken.lua:2: unexpected symbol near '='", 78 },
    { "require 'boom'\n", "boom.lua:2: attempt to index a nil value (local 't')", 78 },
    { "\nrequire 'nowhere'\n",
      "tern.lua:2: there is no module \"nowhere\": neither beside the configuration (in /etc/tern "
      "and its policies/) nor in the program",
      78 },
    { "require '../etc/passwd'\n",
      "tern.lua:1: \"../etc/passwd\" is not the name of a module: parts of letters, digits, '_' "
      "and '-', joined by dots",
      78 },
    { "require 'a..b'\n",
      "tern.lua:1: \"a..b\" is not the name of a module: parts of letters, digits, '_' and '-', "
      "joined by dots",
      78 },
    { "require 'tern.validate'\n", "tern.lua:1: the module \"tern.validate\" is not for scripts",
      78 },
    { "require 'circle'\n",
      "circle2.lua:1: require \"circle\": it is being loaded (modules require each other in a "
      "circle)",
      78 },
    { "require 'closed'\n", "tern.lua:1: cannot read /etc/tern/closed.lua: Permission denied", 77 },
    { "local s = secret 'open'\n",
      "tern.lua:1: secret \"open\": /etc/tern/secrets/open can be read by others: chmod 600 and "
      "give it to the daemon's user",
      77 },
    { "local s = secret 'gone'\n",
      "tern.lua:1: secret \"gone\": cannot read /etc/tern/secrets/gone: No such file or directory",
      66 },
    { "local s = secret '../x'\n",
      "tern.lua:1: \"../x\" is not the name of a secret: parts of letters, digits, '_' and '-', "
      "joined by dots",
      78 },
    { "tren = 1\n", "tern.lua:1: assignment to the global variable 'tren': write 'local tren'",
      78 },
    { "local x = strng.format('x')\n",
      "tern.lua:1: undefined variable 'strng'; did you mean 'string'?", 78 },
    { "local x = tern.accept()\n",
      "tern.lua:1: undefined variable 'tern': write local tern = require \"tern\"", 78 },
    { "local tern = require 'tern'\nlocal x = tern.rate('a')\n",
      "tern.lua:2: tern has no field 'rate'", 78 },
    { "local tern = require 'tern'\nlocal x = tern.rejct {}\n",
      "tern.lua:2: tern has no field 'rejct'; did you mean 'reject'?", 78 },
    { "local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end\n",
      "scripts need more than the 64 MiB of memory they may have", 78 },
};

static void messages_are_exact(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        struct fake f;
        fake_init(&f, tree);
        int r = fake_load(&f, golden[i].config);
        if (r == 0 || strcmp(f.err.message, golden[i].message) != 0 ||
            f.err.exit_code != golden[i].exit_code)
            fail_msg("configuration %zu:\n%s\nwanted: (%d) %s\ngot:    (%d) %s\n%s", i,
                     golden[i].config, golden[i].exit_code, golden[i].message, f.err.exit_code,
                     r == 0 ? "no error" : f.err.message, f.err.detail);
        assert_null(f.source);
        assert_null(f.settings);
        fake_done(&f);
    }
}

static void a_large_configuration_needs_leave(void **state)
{
    static const char large[] =
        "local d = {} for i = 1, 80000 do d['host' .. i .. '.example'] = {} end\n"
        "return { hostname = 'mx.example', domains = d, limits = { script_memory = '%s' } }";
    char config[256];
    struct fake f;

    fake_init(&f, NULL);
    snprintf(config, sizeof(config), large, "8M");
    assert_int_equal(fake_load(&f, config), 0);
    assert_true(policy_vm_new(f.source, f.settings, &f.ports, &f.hooks, &f.err) < 0);
    assert_non_null(strstr(f.err.message, "the configuration alone takes"));
    fake_done(&f);

    fake_init(&f, NULL);
    snprintf(config, sizeof(config), large, "32M");
    fake_start(&f, config);
    fake_done(&f);
}

static void place_is_told_apart(void **state)
{
    struct fake f;

    fake_init(&f, tree);
    assert_int_equal(fake_load(&f, "return {\n  hostnam = 'mx.example',\n}\n"), -EINVAL);
    assert_string_equal(f.err.file, "tern.lua");
    assert_int_equal(f.err.line, 2);
    assert_int_equal(fake_load(&f, HEAD "policies = { require 'policies.greylist' () } }"),
                     -EINVAL);
    assert_string_equal(f.err.file, "policies/greylist.lua");
    assert_int_equal(f.err.line, 5);
    assert_int_equal(fake_load(&f, "require 'boom'\n"), -EINVAL);
    assert_string_equal(f.err.file, "boom.lua");
    assert_int_equal(f.err.line, 2);
    assert_non_null(strstr(f.err.detail, "stack traceback"));
    fake_done(&f);
}

static void a_missing_file_is_told(void **state)
{
    const struct policy_options options = { .files = NULL };
    struct policy_source *source = NULL;
    struct settings *settings = NULL;
    struct policy_error err;

    assert_int_equal(policy_load("/nonexistent/tern.lua", &options, &source, &settings, &err),
                     -ENOENT);
    assert_int_equal(err.exit_code, 66);
    assert_string_equal(err.message,
                        "cannot read /nonexistent/tern.lua: No such file or directory");
    assert_int_equal(policy_load("/", &options, &source, &settings, &err), -EISDIR);
    assert_int_equal(err.exit_code, 66);
}

static void settings_are_filled_in(void **state)
{
    struct fake f;

    fake_init(&f, tree);
    fake_start(&f,
               "return {\n"
               "  hostname = 'MX2.isp.example', spool = '/var/s', log = '/var/log/tern',\n"
               "  workers = 'auto',\n"
               "  listen = { { '0.0.0.0:25', '[::]:25' },\n"
               "    { '0.0.0.0:587', service = 'submission' }, '127.0.0.1' },\n"
               "  auth = { passwords = 'users', mechanisms = { 'PLAIN', 'SCRAM-SHA-256' } },\n"
               "  tls = { cert = '/c', key = '/k' },\n"
               "  dns = { servers = { '127.0.0.1', '10.0.0.53:5353' }, allow_loopback_mx = true,\n"
               "    timeout = '3s' },\n"
               "  relay_from = { '127.0.0.0/8', '10.0.0.0/8' },\n"
               "  self = { names = 'mx.other.example', addresses = { '203.0.113.1' } },\n"
               "  sources = { ['192.0.2.2'] = {}, ['192.0.2.1'] = { hostname = 'Out1.example',\n"
               "    concurrency = 50, rate = '1000/m' } },\n"
               "  limits = { message_size = '10M', recipients = 500, memory = '1G' },\n"
               "  timeouts = { hook = 5, command = '1m' },\n"
               "  queue = { retry = '1m,2m', lifetime = '2d', warn_after = false },\n"
               "}\n");
    const struct settings *s = f.settings;
    assert_true(str_eq(s->hostname, STR("mx2.isp.example")));
    assert_true(str_eq(s->spool, STR("/var/s")));
    assert_true(str_eq(s->control, STR("/var/s/control.sock")));
    assert_true(str_eq(s->log, STR("/var/log/tern")));
    assert_true(str_eq(s->file, STR("/etc/tern/tern.lua")));
    assert_int_equal(s->workers, 3);
    assert_int_equal(s->n_listen, 4);
    assert_int_equal(s->listen[0].tls, LISTEN_TLS_OFFER);
    assert_true(str_eq(s->listen[1].text, STR("[::]:25")));
    assert_int_equal(s->listen[1].addr.family, NET_IPV6);
    assert_true(str_eq(s->listen[2].service, STR("submission")));
    assert_int_equal(s->listen[2].tls, LISTEN_TLS_REQUIRE);
    assert_int_equal(s->listen[2].auth, LISTEN_AUTH_REQUIRE);
    assert_int_equal(s->listen[0].auth, LISTEN_AUTH_OFFER);
    assert_int_equal(s->listen[2].addr.port, 587);
    assert_true(s->auth.offered);
    assert_true(str_eq(s->auth.passwords, STR("/etc/tern/users")));
    assert_int_equal(s->auth.mechanisms, SASL_BIT(SASL_PLAIN) | SASL_BIT(SASL_SCRAM_SHA_256));
    assert_int_equal(s->listen[3].addr.port, 25);
    assert_int_equal(s->n_dns_servers, 2);
    assert_int_equal(s->dns_servers[0].port, 53);
    assert_int_equal(s->dns_servers[1].port, 5353);
    assert_true(s->allow_loopback_mx);
    assert_int_equal(s->dns_timeout_ms, 3000);
    assert_int_equal(s->n_relay_from, 2);
    assert_int_equal(s->n_self_names, 1);
    assert_true(str_eq(s->self_names[0], STR("mx.other.example")));
    assert_int_equal(s->n_self_addresses, 1);
    assert_int_equal(s->n_sources, 2);
    assert_true(str_eq(s->sources[0].hostname, STR("out1.example")));
    assert_true(settings_is_self_name(s, STR("OUT1.example")));
    assert_int_equal(s->sources[0].concurrency, 50);
    assert_int_equal(s->sources[0].rate.count, 1000);
    assert_int_equal(s->sources[0].addr.family, NET_IPV4);
    assert_int_equal(s->sources[1].addr.ip[3], 2);
    assert_int_equal(s->sources[1].concurrency, 0);
    assert_int_equal(s->limits.message_size, 10 << 20);
    assert_int_equal(s->limits.recipients, 500);
    assert_int_equal(s->limits.memory, 1 << 30);
    assert_int_equal(s->timeouts.hook_ms, 5000);
    assert_int_equal(s->timeouts.command_ms, 60000);
    assert_int_equal(s->queue.retry.n, 2);
    assert_int_equal(s->queue.lifetime_ms, INT64_C(172800000));
    assert_true(s->queue.warn_after_ms < 0);
    fake_done(&f);
}

static void certificates_and_clients(void **state)
{
    struct fake f;

    fake_init(&f, NULL);
    fake_start(&f,
               "return { hostname = 'mx.example',\n"
               "  listen = { { '0.0.0.0:25', greeting_delay = '3s' },\n"
               "    { '0.0.0.0:465', tls = 'implicit', client_certificates = 'require' },\n"
               "    { '0.0.0.0:466', client_certificates = 'none' },\n"
               "    { '0.0.0.0:467', client_ca = '/other' } },\n"
               "  tls = { client_ca = '/ca', certificates = {\n"
               "    { cert = '/c1', key = '/k1' },\n"
               "    { cert = '/c2', key = '/k2', names = { 'A.example', '*.B.example' } } } },\n"
               "  clients = { connections = 7, message_rate = '5/m', ipv6_prefix = 56,\n"
               "    exempt = {} },\n"
               "  limits = { stress = 50, stress_errors = 1 }, timeouts = { stress = '5s' } }");
    const struct settings *s = f.settings;
    assert_int_equal(s->n_certificates, 2);
    assert_true(str_eq(s->certificates[0].cert, STR("/c1")));
    assert_int_equal(s->certificates[0].n_names, 0);
    assert_true(str_eq(s->certificates[1].key, STR("/k2")));
    assert_true(str_eq(s->certificates[1].names[0], STR("a.example")));
    assert_true(str_eq(s->certificates[1].names[1], STR("*.b.example")));
    const enum listen_clients clients[] = { LISTEN_CLIENTS_ASK, LISTEN_CLIENTS_REQUIRE,
                                            LISTEN_CLIENTS_NONE, LISTEN_CLIENTS_ASK };
    for (size_t i = 0; i < s->n_listen; i++)
        assert_int_equal(s->listen[i].clients, clients[i]);
    assert_int_equal(s->listen[0].tls, LISTEN_TLS_OFFER);
    assert_int_equal(s->listen[0].greeting_delay_ms, 3000);
    assert_true(str_eq(s->listen[1].client_ca, STR("/ca")));
    assert_true(str_eq(s->listen[3].client_ca, STR("/other")));
    assert_int_equal(s->clients.connections, 7);
    assert_int_equal(s->clients.message_rate.count, 5);
    assert_int_equal(s->clients.message_rate.burst, 5);
    assert_int_equal(s->clients.recipient_rate.count, 0);
    assert_int_equal(s->clients.ipv6_prefix, 56);
    assert_int_equal(s->clients.n_exempt, 0);
    assert_int_equal(s->limits.stress, 50);
    assert_int_equal(s->limits.stress_errors, 1);
    assert_int_equal(s->timeouts.stress_ms, 5000);
    fake_done(&f);
}

static void defaults_stay(void **state)
{
    struct settings *d = settings_new();
    struct fake f;

    fake_init(&f, NULL);
    fake_start(&f, "return { hostname = 'mx.example' }");
    assert_memory_equal(&f.settings->limits, &d->limits, sizeof(d->limits));
    assert_memory_equal(&f.settings->timeouts, &d->timeouts, sizeof(d->timeouts));
    assert_int_equal(f.settings->clients.connections, d->clients.connections);
    assert_int_equal(f.settings->clients.n_exempt, 2);
    assert_int_equal(f.settings->queue.lifetime_ms, d->queue.lifetime_ms);
    assert_int_equal(f.settings->n_listen, 2);
    assert_int_equal(f.settings->listen[0].tls, LISTEN_TLS_NONE);
    assert_int_equal(f.hooks->present, 1u << HOOK_RCPT | 1u << HOOK_ROUTE);
    assert_false(f.hooks->offers_etrn);
    settings_unref(d);
    fake_done(&f);
}

static uint64_t fingerprint(const char *config, const struct fake_file *files)
{
    struct fake f;

    fake_init(&f, files);
    assert_int_equal(fake_load(&f, config), 0);
    uint64_t h = f.settings->fingerprint;
    assert_int_equal(h, policy_source_fingerprint(f.source));
    fake_done(&f);
    return h;
}

static void fingerprints_tell_changes(void **state)
{
    static const struct fake_file changed[] = {
        { "/etc/tern/site/rules.lua", "return { data = function() end } \n", 0 }, { NULL, NULL, 0 }
    };
    const char *plain = "return { hostname = 'mx.example' }";
    const char *rules = "return { hostname = 'mx.example', policies = { require 'site.rules' } }";

    assert_int_equal(fingerprint(plain, tree), fingerprint(plain, changed));
    assert_true(fingerprint(plain, tree) !=
                fingerprint("return { hostname = 'my.example' }", tree));
    assert_int_equal(fingerprint(rules, tree), fingerprint(rules, tree));
    assert_true(fingerprint(rules, tree) != fingerprint(rules, changed));
    assert_true(fingerprint(rules, tree) != 0);
}

static void workers_read_nothing_again(void **state)
{
    struct fake f;

    fake_init(&f, tree);
    assert_int_equal(fake_load(&f, "local s = secret 'good'\nassert(tostring(s) == 'secret')\n"
                                   "return { hostname = 'mx.example', "
                                   "policies = { require 'site.rules' } }"),
                     0);
    size_t reads = f.reads;
    f.tree = NULL;
    struct hooks *two[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(policy_vm_new(f.source, f.settings, &f.ports, &two[i], &f.err), 0);
    assert_int_equal(f.reads, reads);
    assert_true(hooks_have(two[0], HOOK_DATA));
    for (int i = 0; i < 2; i++)
        two[i]->free(two[i]);
    fake_done(&f);
}

static void loading_has_a_budget(void **state)
{
    const struct policy_options options = { .load_ms = 100 };
    struct fake f;

    fake_init(&f, NULL);
    const struct fake_file endless[] = {
        { "/etc/tern/tern.lua", "while true do pcall(function() while true do end end) end", 0 },
        { NULL, NULL, 0 }
    };
    f.tree = endless;
    struct policy_options with = options;
    with.files = &f.files;
    assert_int_equal(policy_load("/etc/tern/tern.lua", &with, &f.source, &f.settings, &f.err),
                     -EINVAL);
    assert_non_null(strstr(f.err.message, "processor time"));
    fake_done(&f);
}

/* What the schema says the defaults are is what C uses. */
static void the_schema_tells_the_defaults(void **state)
{
    struct settings *d = settings_new();
    struct fake f;

    fake_init(&f, NULL);
    fake_start(
        &f,
        "return { hostname = 'mx.example',\n"
        "limits = { message_size = '50M', recipients = 1000, sessions = 10000,\n"
        "  errors = 20, stress = 80, stress_errors = 3, memory = '256M', received_headers = 100 },\n"
        "timeouts = { command = '5m', data = '5m', session = '24h', connect = '30s',\n"
        "  stress = '10s',\n"
        "  greeting = '5m', helo = '5m', mail = '5m', rcpt = '5m', data_command = '2m',\n"
        "  body = '3m', final = '10m', quit = '5s', proxy = '5s',\n"
        "  hook = '30s', shutdown = '10s' },\n"
        "queue = { retry = '1m,5m,15m,30m,1h,2h...', lifetime = '5d', warn_after = '4h',\n"
        "  concurrency = 5, max_concurrency = 20, connections = 1000,\n"
        "  host_connections = 50,\n"
        "  per_connection = 100, idle = '2s', connection_age = '5m', recipients = 100,\n"
        "  host_retry = '1m', host_retry_max = '15m' },\n"
        "clients = { connections = 100, ipv4_prefix = 32, ipv6_prefix = 64,\n"
        "  exempt = { '127.0.0.0/8', '::1' } },\n"
        "auth = { attempts = 3, without_tls = false },\n"
        "dns = { timeout = '10s', allow_loopback_mx = false } }");
    assert_memory_equal(&f.settings->limits, &d->limits, sizeof(d->limits));
    assert_memory_equal(&f.settings->timeouts, &d->timeouts, sizeof(d->timeouts));
    assert_int_equal(f.settings->clients.connections, d->clients.connections);
    assert_int_equal(f.settings->clients.ipv4_prefix, d->clients.ipv4_prefix);
    assert_int_equal(f.settings->clients.ipv6_prefix, d->clients.ipv6_prefix);
    assert_int_equal(f.settings->clients.n_exempt, d->clients.n_exempt);
    assert_memory_equal(f.settings->clients.exempt, d->clients.exempt,
                        d->clients.n_exempt * sizeof(*d->clients.exempt));
    assert_memory_equal(&f.settings->queue, &d->queue, sizeof(d->queue));
    assert_int_equal(f.settings->auth.attempts, d->auth.attempts);
    assert_int_equal(f.settings->auth.without_tls, d->auth.without_tls);
    assert_int_equal(f.settings->dns_timeout_ms, d->dns_timeout_ms);
    settings_unref(d);
    fake_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_exact),
        cmocka_unit_test(a_large_configuration_needs_leave),
        cmocka_unit_test(place_is_told_apart),
        cmocka_unit_test(a_missing_file_is_told),
        cmocka_unit_test(settings_are_filled_in),
        cmocka_unit_test(certificates_and_clients),
        cmocka_unit_test(defaults_stay),
        cmocka_unit_test(fingerprints_tell_changes),
        cmocka_unit_test(workers_read_nothing_again),
        cmocka_unit_test(loading_has_a_budget),
        cmocka_unit_test(the_schema_tells_the_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
