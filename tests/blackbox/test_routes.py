"""What a route may say besides its hosts: LMTP, a fallback, a source address, how many at once."""
import threading

import pytest

from addresses import fresh_ip
from clients import Flood, send
from daemon import to_hosts
from sinks import SmtpSink
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_H8_lmtp(tern, folder, closing, kind):
    """Each recipient gets its own reply after the message."""
    store = closing(SmtpSink(folder, lmtp=kind))
    router = tern(f'  domains = {{ ["*"] = route.lmtp {{ "{store.address}" }} }},\n')
    send(router, ["one@rcpt.test", "two@rcpt.test"], test_id="one")
    router.wait_for("delivered", count=2)
    mails = until(store.mails, "the message is in the store")
    assert [sorted(m) for m in mails] == [["one@rcpt.test", "two@rcpt.test"]]


def test_fallback(tern, sink):
    """When its hosts fail the other route is taken at once; when they work it is not."""
    down, other = sink(up=False), sink()
    router = tern(to_hosts(down, options=f'fallback = route.hosts {{ "{other.address}" }}') + FAST)
    send(router, test_id="first")
    other.wait_ids({"first"})
    down.up()
    until(lambda: send(router, test_id="probe") or len(down.mails) > 0,
          "the first host is tried again", interval=0.3)


def test_no_fallback_for_what_the_host_refuses(tern, sink):
    host, other = sink(), sink()
    host.replies["RCPT"] = "550 5.1.1 no such user"
    router = tern(to_hosts(host, options=f'fallback = route.hosts {{ "{other.address}" }}') + FAST)
    send(router, sender="", test_id="one")
    router.wait_for("bounced")
    assert other.greeted == []


def test_source_address(tern, sink):
    host, source = sink(), fresh_ip()
    router = tern(to_hosts(host, options=f'source = "{source}"'))
    send(router, test_id="one")
    assert host.wait()[0].peer == source


@pytest.mark.parametrize("balance", ["random", "round_robin"])
def test_S4_balance(tern, sink, balance):
    hosts = [sink() for _ in range(3)]
    router = tern(to_hosts(*hosts, options=f'balance = "{balance}"') + "  workers = 1,\n")
    count = 60
    for n in range(count):
        send(router, test_id=f"m{n}")
    until(lambda: sum(len(h.mails) for h in hosts) == count, "all are delivered")
    assert all(h.mails for h in hosts), [len(h.mails) for h in hosts]


def test_S4_failover_keeps_to_the_first(tern, sink):
    first, second = sink(), sink()
    router = tern(to_hosts(first, second))
    for n in range(20):
        send(router, test_id=f"m{n}")
    first.wait_ids({f"m{n}" for n in range(20)})
    assert second.greeted == []


def test_connections_at_once(tern, scripted_host):
    """max_concurrency of a destination: never more, however much waits."""
    lock, now, most, taken = threading.Lock(), [0], [0], [0]

    def talk(stream):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        try:
            stream.write(b"220 busy.test ESMTP\r\n")
            lines = iter(stream.readline, b"")
            for line in lines:
                verb = line[:4].upper()
                if verb == b"DATA":
                    stream.write(b"354 go on\r\n")
                    if not any(text == b".\r\n" for text in lines):
                        return
                    with lock:
                        taken[0] += 1
                stream.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 busy.test\r\n")
        finally:
            with lock:
                now[0] -= 1
    host = scripted_host(talk)
    router = tern(to_hosts(host) + "  queue = { concurrency = 2, max_concurrency = 3 },\n")
    Flood(router, 200, sessions=10).start().join()
    until(lambda: taken[0] >= 200, lambda: f"{taken[0]} of 200 delivered", timeout=40)
    assert 2 <= most[0] <= 3, most


def test_queue_names(tern, sink):
    """Domains that share a queue share its state; the name is what operators see."""
    down = sink(up=False)
    router = tern(f"""
  domains = {{
    ["one.test"] = route.hosts {{ "{down.address}", queue = "customers" }},
    ["two.test"] = route.hosts {{ "{down.address}", queue = "customers" }},
  }},
""")
    send(router, ["u@one.test", "u@two.test"], test_id="one")
    router.wait_for("queue_backoff", queue="customers")
    assert [(q["name"], q["scheduled"]) for q in router.queues()] == [("customers", 2)]
