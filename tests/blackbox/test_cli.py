"""The command line, signals, the control socket."""
import json
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import time

import dns.rcode
import pytest

from addresses import fresh_ip
from clients import Raw, message, send
from daemon import tern_binary, to_hosts
from nameserver import PORT as DNS_PORT, ask
from processes import Child, run
from waiting import until

COMMANDS = ["run", "check", "status", "queue", "etrn", "spool", "reload", "sink"]


def tern_cli(*args, **options):
    return run([tern_binary(), *args], **options)


def test_version():
    done = tern_cli("--version")
    assert done.returncode == 0 and re.fullmatch(r"tern \d+\.\d+\.\d+\S*\n", done.stdout)


def test_help():
    done = tern_cli("--help")
    assert done.returncode == 0 and done.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", done.stdout, re.M), command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(command):
    done = tern_cli(command, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert f"tern {command}" in done.stdout and "--help" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


@pytest.mark.parametrize("args, words", [
    ((), ["--help"]), (("rnu",), ["unknown command 'rnu'", "did you mean 'run'?"]),
    (("run", "--confg", "x"), ["--confg", "did you mean '--config'?"]),
    (("check", "-c"), ["-c"]), (("queue", "lst"), ["lst"]), (("run", "x"), ["x"])])
def test_wrong_usage(args, words):
    done = tern_cli(*args)
    assert done.returncode == 64 and done.stdout == "", (done.returncode, done.stdout, done.stderr)
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("args", [("status",), ("reload",), ("queue", "list"), ("etrn", "a.test")])
def test_no_daemon(new_tern, args):
    router = new_tern()
    done = router.cli(*args)
    assert done.returncode == 69, (done.returncode, done.stderr)
    assert "running" in done.stderr and str(router.spool) in done.stderr, done.stderr


def test_status(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    send(router, test_id="one")
    host.wait()
    status = router.json("status")
    text = router.ok("status")
    assert status["hostname"] == "mx.test" and "mx.test" in text
    assert status["version"] in tern_cli("--version").stdout
    assert router.address in json.dumps(status["listen"])
    until(lambda: router.json("status")["counters"]["delivered"] == 1, "one delivery is counted")


def test_sigterm(tern, sink):
    """In order, within seconds, also while clients and deliveries are there."""
    host = sink()
    router = tern(to_hosts(host))
    with Raw(router) as idle, Raw(router) as busy:
        idle.hello()
        busy.hello()
        assert busy.mail("b@rcpt.test", content=message("one")).code == 250
        router.child.signal(signal.SIGTERM)
        router.wait_for("stop")
        replies = idle.until_closed()
        assert [r.code for r in replies] == [421], replies
        assert router.child.wait(20) == 0
    assert router.log.all("stopped")
    assert not (router.spool / "control.sock").exists()
    router.start()  # if it had not gone out, it does now
    host.wait_ids({"one"})
    assert len(host.mails) == 1


def test_shutdown_has_a_deadline(tern, sink):
    """timeouts.shutdown: a client that stays in its transaction is not waited for any longer."""
    router = tern(to_hosts(sink()) + '  timeouts = { shutdown = "500ms" },\n')
    with Raw(router) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        raw.send("Subject: half\r\n")
        took = router.stop()
    assert 0.5 <= took < 5, took
    assert router.log.all("stop_deadline")


def test_I1007_sigterm_in_the_middle_of_a_message(tern, sink):
    """What was not acknowledged is no message; what was is kept."""
    host = sink(up=False)
    router = tern(to_hosts(host) + '  queue = { host_retry = "1s", host_retry_max = "1s" },\n')
    with Raw(router) as raw:
        raw.hello()
        assert raw.mail("b@rcpt.test", content=message("kept")).code == 250
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        raw.send(message("half"))
        began = time.monotonic()
        router.stop(timeout=25)
        assert time.monotonic() - began < 20
    router.start()
    host.up()
    host.wait_ids({"kept"})
    assert set(host.ids()) == {"kept"}


def test_sigint_ends_it_too(tern):
    router = tern()
    router.child.signal(signal.SIGINT)
    assert router.child.wait(20) == 0


def test_the_log_can_be_rotated(new_tern, sink):
    host = sink()
    router = new_tern(to_hosts(host))
    log = router.folder / "log"
    router.configure(to_hosts(host) + f'  log = "{log}",\n')
    router.start(ready=False)
    until(lambda: log.exists() and '"event":"start"' in log.read_text(), "the log says that it runs")
    os.rename(log, router.folder / "log.1")
    router.child.signal(signal.SIGUSR1)
    until(lambda: log.exists(), "a new log file")
    send(router, test_id="one")
    until(lambda: '"message_accepted"' in log.read_text(), "lines go to the new file")
    assert all(json.loads(line)["event"] for line in log.read_text().splitlines())
    assert stat.S_IMODE(log.stat().st_mode) & 0o007 == 0, "everybody may read the log"


def test_the_spool_is_private(tern):
    router = tern()
    assert stat.S_IMODE(router.spool.stat().st_mode) & 0o007 == 0
    control = router.spool / "control.sock"
    assert stat.S_ISSOCK(control.stat().st_mode) and stat.S_IMODE(control.stat().st_mode) & 0o007 == 0


GARBAGE = {
    "nothing": b"", "noise": bytes(range(256)) * 100, "half a request": b"GET /v1/status HT",
    "no such thing": b"GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body without end": b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000,
    "a negative length": b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a long line": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    "a path upwards": b"GET /../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad escapes": b"GET /v1/queues/%zz%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    "wrong JSON": b"POST /v1/etrn HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{{{{{",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_I1009_garbage_on_the_control_socket(tern, sink, garbage):
    host = sink()
    router = tern(to_hosts(host))
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(0.5)  # some of it is half a request, which nobody can answer
            s.connect(str(router.spool / "control.sock"))
            try:
                s.sendall(garbage)
                s.shutdown(socket.SHUT_WR)
                answer = s.recv(65536)
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                answer = b""
            assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert router.json("status")["hostname"] == "mx.test"
    send(router, test_id="one")
    host.wait_ids({"one"})


def test_idle_connections_to_the_control_socket(tern):
    """Somebody who opens many and says nothing does not shut out the operator."""
    router = tern()
    idle = []
    try:
        for _ in range(50):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(5)
            s.connect(str(router.spool / "control.sock"))
            idle.append(s)
        assert router.json("status")
    finally:
        for s in idle:
            s.close()


def test_metrics(tern, sink):
    """Prometheus text, by curl."""
    host = sink()
    router = tern(to_hosts(host))
    send(router, test_id="one")
    host.wait()
    router.wait_for("delivered")
    done = run(["curl", "-sS", "--unix-socket", router.spool / "control.sock", "http://x/metrics"])
    assert done.returncode == 0, done.stderr
    samples = re.findall(r"^(tern_\w+)(?:\{[^}]*\})? ([0-9.e+-]+)$", done.stdout, re.M)
    assert dict(samples)["tern_messages_accepted_total"] == "1", done.stdout
    for line in done.stdout.splitlines():
        assert not line or line.startswith("#") or re.match(r"\w+(\{.*\})? [0-9.e+-]+$", line), line


def test_control_by_curl_and_jq(tern):
    """What docs/control-api.md shows works."""
    router = tern()
    done = subprocess.run(
        f"curl -sS --unix-socket {router.spool}/control.sock http://x/v1/status | jq -r .hostname",
        shell=True, capture_output=True, text=True, timeout=20)
    assert done.stdout == "mx.test\n", done


def test_sink(new_tern, tern):
    """`tern sink` takes what `tern run` delivers."""
    address = f"{fresh_ip()}:25"
    taker = Child([tern_binary(), "sink", "--listen", address])
    try:
        router = tern(f'  domains = {{ ["*"] = route.hosts {{ "{address}" }} }},\n')
        until(lambda: taker.out or taker.err or not taker.running, "the sink says something")
        for n in range(5):
            send(router, test_id=f"m{n}")
        router.wait_for("delivered", count=5)
    finally:
        assert taker.end() in (0, -signal.SIGTERM)


def test_commands_while_the_file_is_broken(tern, sink):
    """An operator who is editing the configuration can still see what the running router does."""
    router = tern(to_hosts(sink()))
    router.write("return {\n  hostname = \n")
    for args in (("status",), ("queue",), ("queue", "list")):
        done = router.cli(*args, "--control", router.spool / "control.sock")
        assert done.returncode == 0, (args, done.stderr)


def test_sink_answers_dns(tmp_path):
    """A world for demonstrations: the sink is its name server as well."""
    ip = fresh_ip()
    zone = tmp_path / "zone"
    zone.write_text("d.test. MX 10 mx.d.test.\nmx.d.test. A 192.0.2.1\n")
    sink = Child([tern_binary(), "sink", "--listen", f"{ip}:2526", "--dns", f"{ip}:{DNS_PORT}",
                  "--zone", zone])
    try:
        until(lambda: "listens on" in sink.stderr(), "the sink listens")
        answer = ask(f"{ip}:{DNS_PORT}", "D.test", "MX").answer
        assert [r.to_text() for r in answer[0]] == ["10 mx.d.test."]
        assert ask(f"{ip}:{DNS_PORT}", "none.test", "MX").rcode() == dns.rcode.NXDOMAIN
    finally:
        sink.end()


@pytest.mark.parametrize("text, says", [("d.test. MX mx", "line 1"), (None, "No such file")])
def test_sink_with_a_bad_zone(tmp_path, text, says):
    zone = tmp_path / "zone"
    if text:
        zone.write_text(text + "\n")
    done = tern_cli("sink", "--listen", f"{fresh_ip()}:2526", "--dns", f"{fresh_ip()}:5353",
                    "--zone", zone)
    assert done.returncode in (65, 66) and says in done.stderr
