"""A disk that fails, fills or is slow (faults.c): nothing that was acknowledged is lost, nothing that was
not is answered 250, and all goes on when the disk is well again. After each of them `tern spool check`
finds the spool in order."""
import os
import socket
import threading
import time

import pytest

from clients import Flood, Raw, message, send
from daemon import to_hosts
from waiting import never, until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def in_order(router):
    """tern spool check, beside the daemon and without it."""
    found = router.json("spool", "check")
    assert found["ok"] and found["problem_count"] == 0
    return found


def writer(router):
    return router.json("spool", "stats")["writer"]


def empty(router):
    return not router.queued()


def crash(router):
    """kill -9; what is on the disk then is in order."""
    router.kill9()
    router.disk.heal()
    in_order(router)
    return router.start()


def one_mail(router, test_id):
    """The reply to one mail in a session of its own."""
    with Raw(router) as raw:
        raw.hello()
        return raw.mail("b@rcpt.test", content=message(test_id))


@pytest.mark.parametrize("fault", ["sync EIO", "write EIO", "root EIO"])
def test_I1006_errors_while_mail_comes(on_disk, sink, fault):
    """4xx, never 250, for as long as it lasts; then mail is taken again, without a restart."""
    host = sink(up=False)
    router = on_disk(to_hosts(host) + FAST).start()
    assert one_mail(router, "before").code == 250
    with router.disk.doing(fault):
        for n in range(3):
            reply = one_mail(router, f"during{n}")
            assert (reply.code, reply.enhanced) == (451, "4.3.0"), reply
        flood = Flood(router, 60, sessions=20, prefix="flood").start().join()
        assert flood.acknowledged == set() and all("b'4" in f for f in flood.failures)
        assert router.disk.count() >= 4
        with Raw(router) as raw:  # and sessions are served
            raw.hello()
    assert one_mail(router, "after").code == 250
    trouble = writer(router)
    assert trouble["disk_errors"] >= 4 and trouble["failed_ops"] >= 63
    assert "its disk failed " in router.ok("status")
    if fault == "root EIO":
        assert trouble["reopened"] >= 1
    in_order(router)
    crash(router)
    host.up()
    host.wait_ids({"before", "after"})
    until(lambda: empty(router), "the queue is empty")
    assert host.ids() == {"before": 1, "after": 1}
    in_order(router)


@pytest.mark.parametrize("fault", ["sync EIO", "root EIO"])
def test_errors_that_come_and_go_under_load(on_disk, sink, fault):
    """Each message that was told 250 arrives once; what was refused comes again, and that once."""
    host = sink()
    router = on_disk(to_hosts(host) + FAST).start()
    flood = Flood(router, 400, sessions=20, patient=True).start()
    for part in (50, 120, 200):
        flood.wait_acknowledged(part)
        hits = router.disk.count()
        with router.disk.doing(fault):
            until(lambda hits=hits: router.disk.count() > hits + 1, "the disk fails")
    flood.join()
    assert flood.acknowledged == set(flood.ids), flood.failures[:3]
    host.wait_ids(flood.ids)
    until(lambda: empty(router), "the queue is empty")
    assert max(host.ids().values()) == 1
    in_order(router)


def test_the_result_of_a_delivery_cannot_be_written(on_disk, sink):
    """The host has the message, the spool cannot say so: it is not delivered again by this process, also
    when the next attempt would be due and an operator asks for one; then the disk is well, and it goes."""
    host = sink(up=False)
    router = on_disk(to_hosts(host) + FAST).start()
    send(router, test_id="one")
    router.wait_for("queue_backoff")
    with router.disk.doing("sync EIO"):
        host.up()
        host.wait_ids({"one"})
        until(lambda: router.disk.count("sync") >= 2, "it is tried to be written again")
        router.cli("queue", "retry", "--queue", router.queues()[0]["name"])
        never(lambda: host.ids()["one"] > 1, "it was delivered twice", during=2.5)
        assert not empty(router)
    until(lambda: empty(router), "the result is written")
    assert host.ids() == {"one": 1}
    in_order(router)


def test_a_crash_before_the_result_is_written(on_disk, sink):
    """Then it is not known that it was delivered: once more, and that is all."""
    host = sink(up=False)
    router = on_disk(to_hosts(host) + FAST).start()
    send(router, test_id="one")
    router.wait_for("queue_backoff")
    with router.disk.doing("sync EIO"):
        host.up()
        host.wait_ids({"one"})
        until(lambda: router.disk.count("sync") >= 1, "the result was not written")
        router.kill9()
    router.start()
    until(lambda: empty(router), "the queue is empty")
    assert host.ids() == {"one": 2}
    in_order(router)


def test_no_room_before_anybody_has_noticed(on_disk, sink):
    """The file system says that there is room, and the file cannot grow: 452, and what is there goes."""
    host = sink(up=False)
    router = on_disk(to_hosts(host) + FAST).start()
    for n in range(10):
        send(router, test_id=f"old{n}")
    with router.disk.doing("grow ENOSPC"):
        big = message("big", body="\n".join(["x" * 70] * 40000))
        with Raw(router) as raw:
            raw.hello()
            replies = [raw.mail("b@rcpt.test", content=big) for _ in range(2)]
        assert [(r.code, r.enhanced) for r in replies] == [(452, "4.3.1")] * 2, replies
        host.up()
        host.wait_ids({f"old{n}" for n in range(10)})
        until(lambda: empty(router), "the queue is empty")
    assert one_mail(router, "after").code == 250
    host.wait_ids({"after"})
    assert set(host.ids().values()) == {1} and len(host.ids()) == 11
    crash(router)
    in_order(router)


def test_I1006_no_reply_before_the_sync(on_disk, sink):
    """While the disk holds a sync back nobody is told 250, and others are served."""
    router = on_disk(to_hosts(sink(up=False)) + FAST).start()
    with Raw(router) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        with router.disk.doing("sync hold"):
            raw.send(message("held") + ".\r\n")
            until(lambda: router.disk.count("sync") == 1, "the sync has begun")
            raw.socket.settimeout(0.5)
            with pytest.raises(socket.timeout):
                raw.reply()
            began = time.monotonic()
            with Raw(router) as other:
                other.hello()
                other.envelope("a@sender.test", "b@rcpt.test")
            router.json("status")
            assert time.monotonic() - began < 5
        raw.socket.settimeout(15)
        assert raw.reply().code == 250
    in_order(router)


def test_a_slow_disk(on_disk, sink):
    """200 ms for each sync: groups grow, so that many senders need few of them; alone one waits for one."""
    host = sink()
    router = on_disk(to_hosts(host) + FAST).start()
    with router.disk.doing("sync delay 200"):
        began = time.monotonic()
        assert one_mail(router, "alone").code == 250
        alone = time.monotonic() - began
        assert 0.2 <= alone < 2
        host.wait_ids({"alone"})
        until(lambda: empty(router), "the queue is empty")
        before = writer(router)
        flood = Flood(router, 200, sessions=40).start().join()
        assert flood.acknowledged == set(flood.ids), flood.failures[:3]
        host.wait_ids(flood.ids)
        until(lambda: empty(router), "the queue is empty")
        after = writer(router)
    commits = after["commits"] - before["commits"]
    print(f"alone {alone:.3f} s; 200 messages in and out: {commits} commits, "
          f"{after['max_group']} changes in the largest; one commit {after['commit']}")
    assert commits < 150 and after["max_group"] >= 10
    assert after["commit"]["p50_us"] >= 190_000 and after["unit"]["p99_us"] >= 200_000
    assert set(host.ids().values()) == {1}
    in_order(router)


@pytest.mark.heavy
def test_I1005_the_map_grows_under_load(on_disk, sink):
    """From one mebibyte, while mail comes, goes and is looked at; killed at the moment of growing."""
    host = sink(up=False)
    router = on_disk(to_hosts(host) + FAST, first_map=1 << 20).start()
    assert router.json("spool", "stats")["map_size"] == 1 << 20
    stop = threading.Event()

    def look():
        while not stop.is_set():
            router.json("queue", "list")
            router.cli("spool", "check")

    looker = threading.Thread(target=look)
    looker.start()
    try:
        flood = Flood(router, 150, sessions=10, body="\n".join(["x" * 70] * 700)).start().join()
    finally:
        stop.set()
        looker.join()
    assert flood.acknowledged == set(flood.ids), flood.failures[:3]
    assert router.json("spool", "stats")["map_size"] >= 8 << 20
    with router.disk.doing("map hold"):
        more = Flood(router, 400, sessions=10, prefix="n", body="\n".join(["x" * 70] * 700)).start()
        until(lambda: router.disk.count("map") >= 1, "the map is about to grow", timeout=60)
        router.kill9()
    more.join()
    in_order(router)
    router.start()
    host.up()
    host.wait_ids(flood.acknowledged | more.acknowledged)
    in_order(router)


def test_reads_go_on_when_the_file_is_opened_anew(on_disk, sink):
    """After a failed root page LMDB is closed and opened; what is committed is still there to be read."""
    router = on_disk(to_hosts(sink(up=False)) + FAST).start()
    send(router, test_id="one")
    with router.disk.doing("root EIO"):
        assert 400 <= one_mail(router, "two").code < 500
        assert [m["sender"] for m in router.queued()] == ["a@sender.test"]
    assert one_mail(router, "three").code == 250
    assert len(router.queued()) == 2
    in_order(router)


def test_a_copy_that_cannot_be_synced(on_disk, sink):
    """Who removes the spool after `tern spool copy` said that all is well must have the copy."""
    router = on_disk(to_hosts(sink(up=False)) + FAST).start()
    send(router, test_id="one")
    to = router.folder / "copy"
    with router.disk.doing("sync EIO"):
        done = router.cli("spool", "copy", to, env={**os.environ, **router.env})
    assert done.returncode == 74 and f"cannot write {to}/data.mdb to the disk" in done.stderr, done
    assert router.disk.count("sync") >= 1 and not (to / "data.mdb").exists()  # the router syncs, too
    assert router.ok("spool", "copy", to) == ""
    assert router.cli("spool", "check", "--spool", to).returncode == 0
