"""Reload: in the middle of traffic, for mail that waits already, and with a configuration that is wrong."""
import signal

import pytest

from addresses import fresh_ip
from clients import Flood, Raw, message, send
from daemon import to_hosts
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


@pytest.mark.heavy
def test_in_the_middle_of_traffic(tern, sink):
    """No session is dropped, nothing is refused, nothing is lost."""
    first, second = sink(), sink()
    router = tern(to_hosts(first) + FAST)
    flood = Flood(router, 20_000, sessions=10, pause=0.01).start()
    for n in range(6):
        flood.wait_acknowledged(len(flood.acknowledged) + 100)
        router.configure(to_hosts((second, first)[n % 2]) + FAST)
        router.reload()
    flood.wait_acknowledged(len(flood.acknowledged) + 50)
    flood.finish()
    assert len(flood.ids) < 20_000, "the traffic was over too early"
    assert flood.failures == [] and flood.opened == 10
    assert flood.acknowledged == set(flood.ids)

    def arrived():
        return set(first.ids()) | set(second.ids())
    until(lambda: arrived() >= set(flood.ids), lambda: f"{len(arrived())} arrived", 60)
    assert first.mails and second.mails, "both configurations were in force for a while"


def test_queued_mail_follows_the_new_policy(tern, sink):
    """H7: its target is down; a corrected policy rescues it."""
    dead, host = sink(up=False), sink()
    router = tern(to_hosts(dead) + FAST)
    for n in range(10):
        send(router, test_id=f"m{n}")
    router.wait_for("queue_backoff")
    router.configure(to_hosts(host) + FAST)
    router.reload()
    host.wait_ids({f"m{n}" for n in range(10)})
    assert max(host.ids().values()) == 1


def test_deferred_mail_follows_the_new_policy(tern, sink):
    busy, host = sink(), sink()
    busy.replies["RCPT"] = "450 4.2.1 not now"
    router = tern(to_hosts(busy) + FAST)
    send(router, test_id="one")
    router.wait_for("deferred")
    router.configure(to_hosts(host) + FAST)
    router.reload()
    host.wait_ids({"one"})


def test_held_mail_follows_the_new_policy(tern, sink):
    host = sink()
    router = tern('  domains = { ["*"] = route.hold { queue = "later" } },\n' + FAST)
    send(router, test_id="one")
    router.configure(to_hosts(host) + FAST)
    router.reload()
    host.wait_ids({"one"})


BROKEN = {
    "syntax": ("return {\n  hostname = \n}\n", "tern.lua:3:"),
    "unknown key": ('return {\n  hostname = "mx.test",\n  lissten = "127.0.0.1:1",\n}\n', "tern.lua:3:"),
    "run-time error": ('local x = nil\nlocal y = x.z\nreturn {}\n', "tern.lua:2:"),
}


@pytest.mark.parametrize("text, where", BROKEN.values(), ids=BROKEN)
def test_a_broken_configuration_changes_nothing(tern, sink, text, where):
    """The old one stays in force; whoever asks is told the file and the line."""
    host = sink()
    router = tern(to_hosts(host))
    good = router.config.read_text()
    with Raw(router) as raw:
        raw.hello()
        router.write(text)
        done = router.cli("reload")
        assert done.returncode == 78, (done.returncode, done.stdout, done.stderr)
        assert where in done.stderr and len(done.stderr.splitlines()) <= 8, done.stderr
        assert raw.mail("b@rcpt.test", content=message("during")).code == 250
    send(router, test_id="after")
    host.wait_ids({"during", "after"})
    router.write(good)
    router.reload()
    send(router, test_id="mended")
    host.wait_ids({"mended"})


def test_sighup_reloads(tern, sink):
    one, two = sink(), sink()
    router = tern(to_hosts(one))
    router.configure(to_hosts(two))
    router.child.signal(signal.SIGHUP)
    router.wait_for("reload")
    send(router, test_id="one")
    two.wait_ids({"one"})
    router.write("return {")
    router.child.signal(signal.SIGHUP)
    failed = router.wait_for("reload_failed")
    assert "tern.lua:1:" in failed["error"]
    send(router, test_id="two")
    two.wait_ids({"two"})


def test_listeners_come_and_go_and_sessions_stay(tern, sink):
    host, second = sink(), fresh_ip()
    router = tern(to_hosts(host))
    with Raw(router) as old:
        old.hello()
        router.configure(to_hosts(host) + f'  listen = {{ "{second}:25" }},\n')
        router.reload()
        first, router.ip = router.ip, second
        with Raw(router) as new:
            new.hello()
            assert new.mail("b@rcpt.test", content=message("new")).code == 250
        router.ip = first
        with pytest.raises(ConnectionRefusedError):
            Raw(router)
        assert old.mail("b@rcpt.test", content=message("old")).code == 250
    host.wait_ids({"new", "old"})


def test_a_session_ends_on_the_policy_that_it_began_with(tern, sink):
    """A session sees one policy; the next session sees the new one."""
    host = sink()
    router = tern('  domains = { ["old.test"] = route.hosts { "%s" } },\n' % host.address)
    with Raw(router) as old:
        old.hello()
        router.configure('  domains = { ["new.test"] = route.hosts { "%s" } },\n' % host.address)
        router.reload()
        assert old.mail("u@old.test", content=message("old")).code == 250
        old.expect(250, "MAIL FROM:<a@sender.test>")
        old.expect(550, "RCPT TO:<u@new.test>")
    with Raw(router) as new:
        new.hello()
        new.expect(250, "MAIL FROM:<a@sender.test>")
        new.expect(550, "RCPT TO:<u@old.test>")
        new.expect(250, "RCPT TO:<u@new.test>")


def test_modules_are_read_again(new_tern, sink):
    one, two = sink(), sink()
    router = new_tern("  domains = site,", 'local site = require "site.domains"\n')

    def point_to(host):
        router.write(f"""\
local route = require "tern.route"
return {{ ["*"] = route.hosts {{ "{host.address}" }} }}
""", "site/domains.lua")
    point_to(one)
    router.start()
    send(router, test_id="one")
    one.wait_ids({"one"})
    point_to(two)
    router.reload()
    send(router, test_id="two")
    two.wait_ids({"two"})


@pytest.mark.parametrize("field, key", [
    ('  spool = "/nonexistent",', "spool"), ("  workers = 1,", "workers")])
def test_what_cannot_change(tern, sink, field, key):
    """It is refused with its name, and says what to do."""
    host = sink()
    router = tern(to_hosts(host) + "  workers = 2,\n")
    good = router.config.read_text()
    router.configure(to_hosts(host) + f"  workers = 2,\n{field}\n")
    if key == "spool":  # else the command would look for another daemon
        router.configure(to_hosts(host) + f'  workers = 2,\n{field}\n  control = "{router.spool}/control.sock",\n')
    done = router.cli("reload")
    assert done.returncode == 78 and f"'{key}'" in done.stderr and "restart" in done.stderr, done.stderr
    router.write(good)
    router.reload()
    send(router, test_id="one")
    host.wait_ids({"one"})
