"""docs/hostile-input.md, 10: clients that take up room, and what others notice."""
import os
import resource
import socket
import statistics
import threading
import time

import pytest

from clients import Raw, message
from daemon import to_hosts
from hostile import Watched

# TERN_SLOW_CLIENTS=10000 is the full size; the suite makes do with fewer.
SLOW = int(os.environ.get("TERN_SLOW_CLIENTS", "1000"))
GOOD = 50
EVERY = 5  # seconds between two octets of a slow client
MAILS = 8  # of each good one, in a round


class SlowClients:
    """Sessions that send an octet every few seconds, in the middle of EHLO; all in one thread."""

    def __init__(self, router, count):
        self._sockets, self._ending = [], threading.Event()
        for n in range(count):
            s = socket.create_connection((router.ip, router.port), timeout=30,
                                         source_address=(f"127.1.{n // 5000}.1", 0))
            self._sockets.append(s)
        self.sent = self.lost = 0
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self):
        text = b"EHLO " + b"slow" * 100
        began = time.monotonic()
        for turn in range(len(text)):
            for n, s in enumerate(self._sockets):
                due = began + EVERY * (turn + n / len(self._sockets))
                if self._ending.wait(max(0, due - time.monotonic())):
                    return
                try:
                    s.send(text[turn:turn + 1])
                    self.sent += 1
                except OSError:
                    self.lost += 1

    def close(self):
        self._ending.set()
        self._thread.join(30)
        for s in self._sockets:
            s.close()


def good_ones(router):
    """Seconds of each mail that GOOD clients send at the same time, MAILS in each session."""
    times, faults, lock = [], [], threading.Lock()
    start = threading.Barrier(GOOD)

    def client(n):
        try:
            with Raw(router, timeout=60) as raw:
                raw.hello()
                start.wait(30)
                for k in range(MAILS):
                    began = time.monotonic()
                    assert raw.mail("alive@rcpt.test", content=message(f"alive-{n}-{k}")).code == 250
                    with lock:
                        times.append(time.monotonic() - began)
        except Exception as e:  # noqa: BLE001 - told by the one who waits
            faults.append(repr(e))
    threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(GOOD)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert faults == [] and len(times) == GOOD * MAILS, faults[:3]
    return times


def p99(times):
    return statistics.quantiles(times, n=100)[98]


def rounds(router, seconds):
    """Rounds of good ones for that long: the median of their 99th percentiles."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        found.append(p99(good_ones(router)))
    return statistics.median(found)


@pytest.mark.heavy
def test_I1001_slow_clients(new_tern, sink):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SLOW + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} descriptors are needed, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    host = sink()
    router = new_tern(to_hosts(host, domain="rcpt.test")).start()
    w = Watched(router, host)
    good_ones(router)  # the first round is not measured
    alone = rounds(router, 3)
    slow = SlowClients(router, SLOW)
    try:
        among = rounds(router, EVERY + 1)
        counters = router.json("status")["counters"]
        print(f"p99 {alone * 1000:.1f} ms alone, {among * 1000:.1f} ms among {SLOW} slow clients; "
              f"{counters['sessions_open']} sessions, {slow.sent} octets, memory {router.memory() / 1e6:.0f} MB")
        assert slow.lost == 0 and slow.sent >= SLOW and counters["sessions_open"] >= SLOW
        assert among < 2 * alone + 0.02  # the clients of this test take the same processors
    finally:
        slow.close()
    w.unharmed(grown=20e6 + SLOW * 4000)


def test_I1003_a_message_without_an_end(watched):
    """The limit is kept, and its end is waited for: 552; nobody else waits for it."""
    w = watched('  limits = { message_size = "1M" },\n')
    with Raw(w.router) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        for _ in range(100):
            raw.send(b"x" * 998 + b"\r\n" + (b"y" * 70 + b"\r\n") * 14_000)
        w.alive()
        raw.send(b".\r\n")
        assert raw.reply().code == 552
        assert raw.mail("b@rcpt.test", content=message("next")).code == 250
    w.unharmed()
    assert [m.id for m in w.others()] == ["next"]
