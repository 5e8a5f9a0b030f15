"""Memory runs out at one allocation of a session, or at a few in a row (starve.c): the router goes on, its replies are
those of RFC 5321 for now (4yz) or the connection ends, and nothing that was told 250 is lost.

A run takes every STEP-th allocation; scripts/starve takes each of them, in many minutes ($TERN_STARVE_STEP,
$TERN_STARVE_SECONDS)."""
import os
import signal
import socket
import ssl
import time

import pytest

from clients import Closed, Raw, message
from daemon import to_hosts
from starve import ALL, OTHERS, PROGRAM, Memory, compile_starve
from waiting import until

SECONDS = float(os.environ.get("TERN_STARVE_SECONDS", 8))
STEP = int(os.environ.get("TERN_STARVE_STEP", 0))  # 0: what fits into SECONDS
FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
PATIENCE = 10


@pytest.fixture(scope="session")
def starve_library(session_folder):
    return compile_starve(session_folder)


@pytest.fixture
def starved(new_tern, starve_library):
    """starved(fields, ...): a daemon that has not been started, with `memory`, which runs out at command."""
    def make(fields="", **options):
        router = new_tern(fields, **options)
        router.memory = Memory(router, starve_library)
        return router
    return make


class GaveUp(Exception):
    """The router said 4yz where the dialogue cannot go on."""


class Session:
    """One message to one recipient, in a session of its own, as a client sends it that takes no for an answer."""

    def __init__(self, router, tls=None, bdat=False):
        self.router = router
        self.tls = tls
        self.bdat = bdat

    def _say(self, raw, line, code):
        reply = raw.cmd(line)
        if reply.code == code:
            return reply
        assert 400 <= reply.code < 500, f"{reply!r} to {line!r}"
        raise GaveUp(repr(reply))

    def _content(self, raw, content):
        if self.bdat:
            raw.send(f"BDAT {len(content)} LAST\r\n{content}")
        else:
            self._say(raw, "DATA", 354)
            raw.send(content + ".\r\n")
        reply = raw.reply()
        assert reply.code == 250 or 400 <= reply.code < 500, reply
        return reply.code == 250

    def send(self, test_id):
        """True: it was acknowledged."""
        try:
            with Raw(self.router, greet=False, timeout=PATIENCE) as raw:
                if raw.reply().code != 220:
                    return False
                self._say(raw, "EHLO client.test", 250)
                if self.tls:
                    self._say(raw, "STARTTLS", 220)
                    raw.socket = self.tls.wrap_socket(raw.socket, server_hostname="mx.test")
                    self._say(raw, "EHLO client.test", 250)
                self._say(raw, "MAIL FROM:<a@sender.test> ENVID=e1 RET=HDRS", 250)
                self._say(raw, "RCPT TO:<b@rcpt.test> NOTIFY=FAILURE", 250)
                return self._content(raw, message(test_id))
        except socket.timeout:
            raise AssertionError(f"no reply within {PATIENCE} s") from None
        except (GaveUp, Closed, ConnectionError, ssl.SSLError):
            return False


class Sweep:
    """Session after session, whose n-th allocation fails, for n after n."""

    def __init__(self, router, host, who, more=0):
        self.router = router
        self.host = host
        self.who = who
        self.more = more
        self.acknowledged = set()
        self.runs = self.hits = 0

    def _arrived(self, test_id):
        deadline = time.monotonic() + 0.1  # what is tried again comes later
        while not self.host.ids()[test_id] and time.monotonic() < deadline:
            time.sleep(0.002)

    def one(self, session, n):
        """How many allocations there were."""
        test_id = f"{self.who}-{self.more}-{self.runs}"
        self.runs += 1
        self.router.memory.fails(n, self.more, self.who)
        yes = session.send(test_id)
        if yes:
            self.acknowledged.add(test_id)
            self._arrived(test_id)
        asked = self.router.memory.heal()
        self.hits += self.router.memory.failed > 0
        assert self.router.running, f"the router has gone: allocation {n}\n{self.router.child.stderr()}"
        return asked

    def go(self, session, seconds):
        self.one(session, 0)
        began = time.monotonic()
        most = max(self.one(session, 0) for _ in range(3))
        each = (time.monotonic() - began) / 3
        step = STEP or max(1, int(most * each * 1.5 / seconds) + 1)
        n = 1
        while self.one(session, n) >= n:
            n += step
        assert self.runs > 10
        print(f"{self.runs} sessions of {most} allocations, {self.hits} failed")


def settle(router, host, sweep):
    """Memory is back: all is there that was acknowledged, and the next mail is taken."""
    assert Session(router).send("after")
    host.wait_ids(sweep.acknowledged | {"after"})
    until(lambda: not router.queued(), "the queue is empty")
    extra = set(host.ids()) - sweep.acknowledged - {"after"}
    # committed, and its reply was lost: the client does not know, and comes again
    assert len(extra) <= sweep.hits
    again = {i: k for i, k in host.ids().items() if k > 1}
    assert len(again) <= sweep.hits, again
    found = router.json("spool", "check")
    assert found["ok"], found
    router.stop()


def test_in_clear(starved, sink):
    """From one router to the next host, both in clear."""
    host = sink()
    router = starved(to_hosts(host) + FAST).start()
    sweep = Sweep(router, host, ALL)
    sweep.go(Session(router), SECONDS)
    settle(router, host, sweep)


def test_by_bdat(starved, sink):
    host = sink()
    router = starved(to_hosts(host) + FAST).start()
    sweep = Sweep(router, host, PROGRAM)
    sweep.go(Session(router, bdat=True), SECONDS)
    settle(router, host, sweep)


def test_in_tls(starved, sink, certificates):
    """STARTTLS on both sides, every library: OpenSSL is asked for most of it."""
    host = sink(certificates=certificates)
    router = starved(to_hosts(host) + FAST, certificates=certificates).start()
    context = ssl.create_default_context(cafile=certificates.ca)
    sweep = Sweep(router, host, ALL)
    sweep.go(Session(router, tls=context), SECONDS)
    settle(router, host, sweep)


def test_by_mx_and_a_hook(starved, sink, scripted_dns):
    """Names are looked up, and Lua decides the way."""
    host = sink()
    dns = scripted_dns(f"rcpt.test. 60 MX 10 mx.rcpt.test.\nmx.rcpt.test. 60 A {host.ip}\n")
    fields = """
  dns = { servers = { "%s" }, timeout = "1s", allow_loopback_mx = true },
  relay_from = { "127.0.0.0/8" },
  policies = { {
    data = function(ctx) ctx.message.headers:add("X-Seen", "by " .. ctx.message.sender) end,
    route = function(ctx) return route.mx { domain = ctx.recipient.domain } end,
  } },
""" % dns.server
    router = starved(FAST + fields).start()
    sweep = Sweep(router, host, ALL)
    sweep.go(Session(router), SECONDS)
    settle(router, host, sweep)


@pytest.mark.parametrize("more", [3, 50])
def test_spells(starved, sink, certificates, more):
    """Several in a row, of all threads."""
    host = sink(certificates=certificates)
    router = starved(to_hosts(host) + FAST, certificates=certificates).start()
    context = ssl.create_default_context(cafile=certificates.ca)
    sweep = Sweep(router, host, ALL, more)
    sweep.go(Session(router, tls=context), SECONDS / 2)
    settle(router, host, sweep)


def test_commands(starved, sink):
    """The control socket: an answer, or an error in words; the daemon goes on."""
    host = sink(up=False)
    router = starved(to_hosts(host) + FAST).start()
    assert Session(router).send("one")
    n, began = 1, time.monotonic()
    while time.monotonic() - began < SECONDS / 2:
        router.memory.fails(n)
        done = router.cli("queue", "list") if n % 2 else router.cli("status")
        asked = router.memory.heal()
        assert router.running
        assert done.returncode == 0 or done.stderr.strip(), done
        if asked < n:
            break
        n += STEP or 3
    host.up()
    host.wait_ids({"one"})


def test_at_the_start(starved, sink):
    """It serves, or says why not and ends with a status that is not 0."""
    host = sink()
    router = starved(to_hosts(host) + FAST)
    n, step, began, gave_up = 1, STEP or 1, time.monotonic(), 0
    while True:
        print(f"allocation {n}")
        router.memory.fails(n)
        router.start(ready=False)
        until(lambda: router.log.all("start") or not router.running, "it serves or ends")
        asked = router.memory.heal()
        if router.running:
            router.stop()
        else:
            status = router.child.wait(5)
            assert status > 0, f"allocation {n}: {status}\n{router.child.stderr()}"
            said = router.child.stderr() + router.log.tail()
            assert "memory" in said.lower(), f"allocation {n}: {said}"
            gave_up += 1
        if asked < n or time.monotonic() - began > SECONDS:
            break
        n += step
        step = STEP or max(1, n // 4)
    router.memory.heal()
    router.start()
    assert Session(router).send("after")
    host.wait_ids({"after"})


def test_reload(starved, sink, certificates):
    """Whole or not at all: afterwards TLS is still offered, and mail goes where it went."""
    host = sink()
    router = starved(to_hosts(host) + FAST, certificates=certificates).start()
    context = ssl.create_default_context(cafile=certificates.ca)
    step, failed, n, began = STEP or 1, 0, 1, time.monotonic()
    while True:
        ended = len(router.log.all("reload")) + len(router.log.all("reload_failed"))
        router.memory.fails(n, who=ALL & ~OTHERS)
        router.child.signal(signal.SIGHUP)
        until(lambda: len(router.log.all("reload")) + len(router.log.all("reload_failed")) > ended,
              f"the reload has ended, allocation {n}")
        asked = router.memory.heal()
        assert router.running
        if router.log.all("reload_failed"):
            failed = len(router.log.all("reload_failed"))
        if n % 5 == 1:
            assert Session(router, tls=context).send(f"after{n}")
        if asked < n or time.monotonic() - began > SECONDS:
            break
        n += step
        step = STEP or max(1, n // 10)
    assert failed
    assert Session(router, tls=context).send("after")
    host.wait_ids({"after"})
