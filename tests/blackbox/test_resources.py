"""Clients that want too much, and too little room: limits hold, others are served, all recovers."""
import contextlib
import os
import resource
import shutil
import socket
import time

import pytest

from clients import Closed, Flood, Raw, message, send
from daemon import memory_limit, to_hosts
from processes import run
from waiting import until


def test_I1011_idle_clients_are_told_to_go(tern, sink):
    """timeouts.command and timeouts.data: 421 4.4.2, and the end."""
    router = tern(to_hosts(sink()) + '  timeouts = { command = "1s", data = "1s" },\n')
    with Raw(router) as idle, Raw(router) as dribble:
        dribble.hello()
        dribble.envelope("a@sender.test", "b@rcpt.test")
        dribble.expect(354, "DATA")
        dribble.send("Subject: half")
        for raw in (idle, dribble):
            replies = raw.until_closed()
            assert [(r.code, r.enhanced) for r in replies] == [(421, "4.4.2")]


def test_I1011_a_byte_at_a_time_is_no_progress_for_ever(tern, sink):
    """timeouts.session bounds the whole of a session."""
    router = tern(to_hosts(sink()) + '  timeouts = { session = "2s" },\n')
    with Raw(router) as raw:
        began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 8:
                raw.send("X")
                time.sleep(0.05)  # the pace of this client is the test
        assert time.monotonic() - began < 8, "it was never cut off"


def test_I1010_limit_of_sessions(tern, sink):
    host = sink()
    router = tern(to_hosts(host) + "  workers = 1,\n  limits = { sessions = 20 },\n")
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(Raw(router)).hello()
        for _ in range(5):
            with Raw(router) as more:
                assert more.greeting.code == 421 and more.until_closed() == []
        router.wait_for("sessions_turned_away")
    until(lambda: greeted(router) == 220, "sessions end and make room")
    send(router, test_id="one")
    host.wait_ids({"one"})


def greeted(router):
    with Raw(router) as raw:
        return raw.greeting.code


@pytest.mark.heavy
def test_many_idle_clients(tern, sink):
    """Two thousand that say nothing cost little, and the next one is served at once."""
    host = sink()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5000:
        pytest.skip("too few descriptors for this test")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    router = tern(to_hosts(host))
    before = router.memory()
    idle = []
    try:
        for _ in range(2000):
            idle.append(socket.create_connection((router.ip, router.port), timeout=20))
        for s in idle:
            assert s.recv(512).startswith(b"220 ")
            s.sendall(b"EHLO client.test\r\n")
        for s in idle:
            assert s.recv(4096).startswith(b"250-")
        cost = (router.memory() - before) / len(idle)
        print(f"{cost:.0f} octets of memory for an idle session")
        assert cost < memory_limit(2048 + 256)  # the rest is what belongs to none of them
        began = time.monotonic()
        send(router, test_id="one")
        assert time.monotonic() - began < 2
        host.wait_ids({"one"})
    finally:
        for s in idle:
            s.close()
    until(lambda: router.json("status")["counters"]["sessions_open"] == 0, "all sessions are over")


def test_I1002_descriptors_run_out(new_tern, sink):
    """Connections wait or are turned away; when there is room again all goes on."""
    host = sink()
    router = new_tern(to_hosts(host))
    router.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    taken = []
    try:
        for _ in range(200):
            taken.append(socket.create_connection((router.ip, router.port), timeout=20))
        assert router.json("status")["state"] == "running"
    finally:
        for s in taken:
            s.close()
    until(lambda: attempt(router, "one"), "mail is taken again", interval=0.2)
    host.wait_ids({"one"})


def attempt(router, test_id):
    try:
        send(router, test_id=test_id)
        return True
    except OSError:  # smtplib's errors are
        return False


def test_I607_too_many_recipients_in_the_end_close(tern, sink):
    """452 for each that is too much; who goes on for ever is cut off."""
    router = tern(to_hosts(sink()) + "  limits = { recipients = 100 },\n")
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        codes = []
        with contextlib.suppress(Closed, BrokenPipeError, ConnectionResetError):
            for block in range(40):
                raw.send("".join(f"RCPT TO:<r{block}x{n}@rcpt.test>\r\n" for n in range(100)))
                codes += [r.code for r in raw.replies(100)]
        assert codes[:100] == [250] * 100 and set(codes[100:1000]) == {452}
        assert len(codes) < 4000, "nobody stopped it"


@pytest.mark.parametrize("content", [
    "X: " + " x\r\n" * 250_000 + "\r\nbody\r\n",  # a folded header of a megabyte
    "X: y\r\n" * 200_000 + "\r\nbody\r\n",
    "\r\n" * 500_000,
    ":\r\n" * 1000 + "no header at all\r\n", "\r\n", "",
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + "--b\r\n" * 50_000,
    "__index: 1\r\n__gc: 2\r\n__metatable: 3\r\n\r\nx\r\n",
], ids=["folded", "headers", "empty lines", "colons", "one empty line", "nothing", "parts", "names"])
def test_odd_messages(tern, sink, content):
    """Accepted and delivered, or refused: never a crash, and the session goes on."""
    host = sink()
    router = tern(to_hosts(host) + """
  policies = { { data = function(ctx)
    local h = ctx.message.headers
    h:add("X-Count", tostring(#h:all("X") + #h:all("__index")))
    for _ in ctx.message.body do end
  end } },
""")
    with Raw(router) as raw:
        raw.hello()
        reply = raw.mail("b@rcpt.test", content=content)
        assert reply.code in (250, 451, 552, 554), reply
        assert raw.mail("b@rcpt.test", content=message("next")).code == 250
    mails = host.wait_ids({"next"})
    if reply.code == 250:
        odd = next(m for m in host.wait(2) if m.id is None)
        assert b"X-Count:" in odd.content
    assert router.peak_memory() < memory_limit(300e6) and mails


@pytest.mark.heavy
def test_I1012_memory_for_messages_is_bounded(tern, sink):
    """limits.memory: many large messages at once wait for room or get 452; none is lost."""
    host = sink()
    router = tern(to_hosts(host) + """
  workers = 1,
  limits = { message_size = "20M", memory = "8M" },
""")
    body = "\n".join(["x" * 76] * (4 * 1024 * 1024 // 78))
    flood = Flood(router, 24, sessions=12, body=body, patient=True).start().join()
    assert flood.acknowledged == set(flood.ids), flood.failures[:3]
    host.wait_ids(flood.ids)
    print(f"{router.peak_memory() / 1e6:.0f} MB at most")
    assert router.peak_memory() < memory_limit(300e6)


@pytest.fixture
def small_disk(folder):
    """A file system of 100 MB of our own."""
    path = folder / "disk"
    path.mkdir()
    done = run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", path])
    if done.returncode != 0:
        pytest.skip("cannot mount a file system here")
    yield path
    until(lambda: run(["umount", path]).returncode == 0, "the file system is let go")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a file system")
@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
def test_I1004_disk_full(tern, small_disk, sink):
    """452 while there is no room, all that was taken before is delivered, then all goes on without a
    restart."""
    host, before = sink(up=False), {f"before{n}" for n in range(30)}
    router = tern(to_hosts(host) + f"""
  spool = "{small_disk}/spool",
  queue = {{ retry = "1s...", host_retry = "1s", host_retry_max = "1s" }},
""")
    try:
        for test_id in before:
            send(router, test_id=test_id, body="x" * 900)
        filler = small_disk / "filler"
        filler.write_bytes(bytes(60_000_000))
        with Raw(router) as raw:
            raw.hello()
            reply = refused(raw)
            assert (reply.code, reply.enhanced) == (452, "4.3.1"), reply
            host.up()
            host.wait_ids(before)
            until(lambda: not router.queued(), "all are out of the queue, while it is full")
            raw.cmd("RSET")
            assert refused(raw).code == 452
            assert router.json("spool", "check")["ok"]
            filler.unlink()
            raw.cmd("RSET")
            until(lambda: raw.mail("b@rcpt.test", content=message("after")).code == 250,
                  "mail is taken again", interval=0.5)
        host.wait_ids({"after"})
        assert max(host.ids().values()) == 1 and router.starts == 1
        assert router.json("spool", "check")["ok"]
    finally:
        router.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a file system")
@pytest.mark.skipif(not shutil.which("mount"), reason="needs mount")
def test_disk_full_to_the_last_octet(tern, small_disk, sink):
    """Somebody else takes the reserve, too: what is queued goes out in the pages that the file has, or
    when there is room again; nothing twice, and nothing is lost."""
    host, before = sink(up=False), {f"before{n}" for n in range(30)}
    router = tern(to_hosts(host) + f"""
  spool = "{small_disk}/spool",
  queue = {{ retry = "1s...", host_retry = "1s", host_retry_max = "1s" }},
""")
    try:
        for test_id in before:
            send(router, test_id=test_id, body="x" * 900)
        filler = fill(small_disk)
        with Raw(router) as raw:
            raw.hello()
            assert refused(raw).code == 452
        host.up()
        host.wait_ids(before)
        with Raw(router) as raw:
            raw.hello()
            assert refused(raw).code == 452
        filler.unlink()
        until(lambda: attempt(router, "after"), "mail is taken again", interval=0.2)
        host.wait_ids({"after"})
        until(lambda: not router.queued(), "the queue is empty")
        assert max(host.ids().values()) == 1 and router.starts == 1
        assert router.json("spool", "check")["ok"]
    finally:
        router.stop()


def fill(folder):
    """A file that takes all the room there is."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as f, contextlib.suppress(OSError):
        while f.write(bytes(65536)):
            pass
    return filler


def refused(raw):
    """The first reply that is no 2yz, in a mail."""
    for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA"):
        reply = raw.cmd(line)
        if reply.code >= 400:
            return reply
    raw.send(message("during") + ".\r\n")
    return raw.reply()
