"""Recipients are asked of the hosts that know them, and the answers are kept: real hosts, several workers,
restarts, kill -9, routers that ask each other."""
import time

import pytest

from clients import Raw, send
from daemon import HOSTNAME
from sinks import Sink

PRELUDE = """\
local backup = require "policies.backup"
local relay_to_host = require "policies.relay_to_host"
"""


def rcpt(router, recipient, sender="a@sender.test"):
    """The reply to RCPT, over a connection of its own."""
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, f"MAIL FROM:<{sender}>")
        return raw.cmd(f"RCPT TO:<{recipient}>")


def asking(tern, target, options=""):
    return tern(f"""\
  workers = 4,
  domains = {{ ["example.test"] = relay_to_host {{ "{target}", recipients = "call-forward", {options} }} }},
""", PRELUDE)


@pytest.fixture
def asked(sink):
    """A sink that knows no user whose name begins with "nobody", and keeps what it was asked."""
    def make(**options):
        made = sink(**options)
        made.asked = []

        def answer(address):
            made.asked.append(address)
            return "550 5.1.1 no such user" if address.startswith("nobody") else None
        made.replies["RCPT"] = answer
        return made
    return make


def test_H8_a_real_postfix_is_asked(tern, postfix):
    """Over TLS, since it offers it; one connection for several questions; no message is sent."""
    router = asking(tern, postfix.address)
    before = len(postfix.mails())
    refused = rcpt(router, "nobody@example.test")
    assert refused.code == 550 and refused.enhanced == "5.1.1"
    assert "User unknown" in refused.text
    assert rcpt(router, "someone@example.test").code == 250
    assert len(postfix.mails()) == before
    send(router, "someone@example.test", test_id="after-the-question")
    postfix.wait_mail(b"after-the-question")
    assert rcpt(router, "nobody@example.test").code == 550


def test_B11_answers_are_shared_by_all_workers(tern, asked):
    host = asked()
    router = asking(tern, host.address)
    for _ in range(20):
        assert rcpt(router, "nobody@example.test").code == 550
        assert rcpt(router, "u@example.test").code == 250
    assert sorted(host.asked) == ["nobody@example.test", "u@example.test"]
    assert host.mails == []


@pytest.mark.parametrize("how", ["stop", "kill9"])
def test_B11_answers_outlive_a_restart(tern, asked, how):
    host = asked()
    router = asking(tern, host.address)
    assert rcpt(router, "nobody@example.test").code == 550
    host.down()
    getattr(router, how)()
    router.start()
    assert rcpt(router, "nobody@example.test").code == 550
    assert rcpt(router, "other@example.test").code == 250, "the host is down: accepted"


def test_B11_the_primary_is_down_then_up(new_tern, nsd, asked):
    primary = asked(up=False)
    server = nsd("")
    router = new_tern(dns=server)
    server.set(f"""\
example.test. MX 10 primary.example.test.
example.test. MX 20 {HOSTNAME}.
primary.example.test. A {primary.ip}
{HOSTNAME}. A {router.ip}""")
    router.configure(f"""\
  domains = {{ ["example.test"] = backup {{ recipients = "call-forward" }} }},
  queue = {{ retry = "1s...", host_retry = "1s", host_retry_max = "1s" }},
  dns = {{ servers = {{ "{server.server}" }}, timeout = "3s", allow_loopback_mx = true }},
""", PRELUDE)
    router.start()
    send(router, "u@example.test", test_id="one")
    router.wait_for("queue_backoff")
    primary.up()
    primary.wait_ids({"one"})
    assert rcpt(router, "nobody@example.test").code == 550


def test_B12_senders_are_sent_to_a_primary_that_is_up(new_tern, nsd, sink):
    primary, dead = sink(), Sink()
    server = nsd("")
    router = new_tern(dns=server)
    server.set(f"""\
up.test. MX 10 primary.test.
up.test. MX 20 {HOSTNAME}.
down.test. MX 10 dead.test.
down.test. MX 20 {HOSTNAME}.
primary.test. A {primary.ip}
dead.test. A {dead.ip}
{HOSTNAME}. A {router.ip}""")
    router.configure(f"""\
  workers = 4,
  domains = {{ ["*"] = backup {{ defer_while_primary_is_up = true }} }},
  dns = {{ servers = {{ "{server.server}" }}, timeout = "3s", allow_loopback_mx = true }},
""", PRELUDE)
    router.start()
    for _ in range(10):
        reply = rcpt(router, "u@up.test")
        assert reply.code == 451 and reply.enhanced == "4.3.2"
        assert rcpt(router, "u@down.test").code == 250
    assert len(primary.greeted) == 1, "asked once, for all workers"
    with Raw(router, source=primary.ip) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(250, "RCPT TO:<u@up.test>")


def test_B11_two_routers_that_ask_each_other(new_tern):
    """Each sends the domain to the other: a question about it ends by its deadline, and nobody hangs."""
    one, two = new_tern(), new_tern()
    for router, other in ((one, two), (two, one)):
        router.configure(f"""\
  self = {{ names = {{ "{'one' if router is one else 'two'}.test" }} }},
  domains = {{ ["example.test"] = relay_to_host {{ "{other.address}",
    recipients = "call-forward", probe_timeout = "2s" }} }},
""", PRELUDE)
        router.write(router.config.read_text().replace(
            f'hostname = "{HOSTNAME}"', f'hostname = "{"one" if router is one else "two"}.test"'))
    one.start()
    two.start()
    began = time.monotonic()
    assert rcpt(one, "u@example.test").code == 250
    assert time.monotonic() - began < 8


KV = """\
local seen = tern.kv "seen"
local commands = {
  add = function(key) return seen:add(key, 1, { ttl = "1h" }) end,
  get = function(key) return seen:get(key) end,
  set = function(key, value) return seen:set(key, value) end,
  limit = function(key) return (tern.limit("test", "5/h", { key = key })) end,
}
local function helo(ctx)
  local what, key, value = ctx.session.helo:match "^(%w+)%.(%w+)%.?(%w*)$"
  return tern.reject { 550, "5.7.1", tostring((commands[what](key, value))) }
end
"""


def ask(router, words):
    with Raw(router) as raw:
        return raw.cmd(f"EHLO {words}").text.split()[-1]


def test_kv_one_of_many_adds(tern):
    """All at once, over four workers: one of them was the first. kill -9 forgets nothing."""
    router = tern('workers = 4, policies = { { name = "kv", helo = helo } },', KV)
    for key in ("a", "b", "c"):
        connections = [Raw(router) for _ in range(30)]
        for raw in connections:
            raw.send(f"EHLO add.{key}\r\n")
        replies = [raw.reply().text.split()[-1] for raw in connections]
        for raw in connections:
            raw.close()
        assert sorted(replies) == ["false"] * 29 + ["true"]
    assert ask(router, "set.d.value") == "true"
    router.kill9()
    router.start()
    assert ask(router, "get.d") == "value"
    assert ask(router, "add.a") == "false"


def test_a_limit_holds_for_all_workers(tern):
    router = tern('workers = 4, policies = { { name = "kv", helo = helo } },', KV)
    for key in ("a", "b"):
        replies = [ask(router, f"limit.{key}") for _ in range(20)]
        assert sorted(replies) == ["false"] * 15 + ["true"] * 5


def test_clients_that_leave_while_a_hook_writes_or_asks(tern, sink):
    """What waits for the spool or for a host is let go with its client, also when the router stops."""
    slow = sink()
    slow.replies["MAIL"] = lambda _: time.sleep(0.2)
    router = tern(f"""\
  workers = 4, policies = {{ {{ name = "kv", helo = helo }} }},
  domains = {{ ["example.test"] = relay_to_host {{ "{slow.address}", recipients = "call-forward" }} }},
""", PRELUDE + KV.replace(
        "local function helo(ctx)", "local function helo(ctx)\n"
        "  if not ctx.session.helo:find '%.%w+%.' then return end"))
    for n in range(60):
        raw = Raw(router)
        if n % 2:
            raw.send(f"EHLO set.k{n}.v\r\n")
        else:
            raw.hello("client")
            raw.send(f"MAIL FROM:<a@b.test>\r\nRCPT TO:<u{n}@example.test>\r\n")
        raw.close()
    assert ask(router, "set.last.v") == "true"
    assert ask(router, "get.last.x") == "v"
    waiting = [Raw(router) for _ in range(10)]
    for n, raw in enumerate(waiting):
        raw.hello("client")
        raw.send(f"MAIL FROM:<a@b.test>\r\nRCPT TO:<w{n}@example.test>\r\n")
    router.stop()
    for raw in waiting:
        raw.close()
