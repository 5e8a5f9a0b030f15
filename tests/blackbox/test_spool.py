"""tern spool: what the files of the queue say, beside a running daemon and without one."""
import json
import os
import re

import pytest

from clients import Flood, send
from daemon import tern_binary, to_hosts
from processes import run
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def spool_cli(*args):
    return run([tern_binary(), "spool", *args])


@pytest.fixture
def with_mail(new_tern, sink):
    """A daemon that has been stopped, with 30 messages of 50 KB in its spool."""
    host = sink(up=False)
    router = new_tern(to_hosts(host) + FAST).start()
    flood = Flood(router, 30, sessions=5, body="\n".join(["x" * 70] * 700)).start().join()
    assert len(flood.acknowledged) == 30
    router.stop()
    router.host = host
    return router


def test_help_and_wrong_usage():
    done = spool_cli("--help")
    assert done.returncode == 0 and all(len(line) <= 100 for line in done.stdout.splitlines())
    assert spool_cli("chek").returncode == 64 and "did you mean 'check'?" in spool_cli("chek").stderr
    assert spool_cli().returncode == 64


@pytest.mark.parametrize("form", ["check", "stats", "repair"])
def test_no_spool(tmp_path, form):
    done = spool_cli(form, "--spool", tmp_path / "nothing")
    assert done.returncode == 66 and "there is no spool in" in done.stderr
    assert not (tmp_path / "nothing").exists()
    assert spool_cli(form, "--spool", tmp_path).returncode == 66
    assert list(tmp_path.iterdir()) == []


def test_check(with_mail):
    found = with_mail.json("spool", "check")
    assert found["ok"] and found["rows"]["message"] == 30 and found["rows"]["recipient"] == 30
    text = with_mail.ok("spool", "check")
    assert text.startswith("ok: ") and "0 problems" in text
    assert spool_cli("check", "--spool", with_mail.spool).stdout == text
    with_mail.start()
    assert with_mail.json("spool", "check")["ok"]


def test_check_beside_traffic(tern, sink):
    host = sink()
    router = tern(to_hosts(host) + FAST)
    flood = Flood(router, 1000, sessions=20).start()
    checks = 0
    while len(flood.acknowledged) < 1000 and flood._thread.is_alive():
        assert router.json("spool", "check")["ok"]
        checks += 1
    flood.join()
    host.wait_ids(flood.ids)
    assert checks >= 2 and router.json("spool", "check")["ok"]


def test_stats(new_tern, sink):
    host = sink()
    router = new_tern(to_hosts(host, options="") + FAST).start()
    for n in range(5):
        send(router, test_id=f"m{n}")
    host.wait(5)
    until(lambda: router.json("spool", "stats")["messages"] == 0, "all are out")
    host.down()
    send(router, test_id="stays", body="\n".join(["x" * 70] * 150))
    stats = router.json("spool", "stats", "--messages")
    writer = stats["writer"]
    assert stats["messages"] == stats["recipients"] == stats["scheduled"] == 1 and stats["held"] == 0
    assert writer["messages_accepted"] == 6 and writer["syncs"] == 2 * writer["commits"]
    assert writer["commits"] >= 6 and writer["ops"] >= 11 and writer["disk_errors"] == 0
    assert writer["commit"]["count"] == writer["commits"]
    assert 0 < writer["commit"]["p50_us"] <= writer["commit"]["p99_us"]
    assert writer["unit"]["count"] == writer["ops"]
    assert sum(c["count"] for c in writer["unit"]["classes"]) == writer["ops"]
    assert stats["pieces"] == 1
    assert {t["name"]: t["rows"] for t in stats["tables"]}["message"] == 3  # itself, a piece, a recipient
    assert 0 < stats["used"] and stats["used"] + stats["free"] <= stats["file_size"] <= stats["map_size"]
    assert stats["survey"]["messages"] == 1 and stats["survey"]["by_age"][0]["count"] == 1
    assert stats["survey"]["by_size"][1]["count"] == 1 and stats["survey"]["octets"] > 10_000
    text = router.ok("spool", "stats", "--messages")
    assert "waits for the disk" in text and "of 6 messages accepted" in text
    router.stop()
    stopped = router.json("spool", "stats")
    assert stopped["writer"] is None and stopped["messages"] == 1
    assert stopped["tables"] == stats["tables"]
    assert "only to a running router" in router.ok("spool", "stats")
    router.start()


def test_latencies_in_metrics(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    send(router, test_id="one")
    host.wait()
    done = run(["curl", "-s", "--unix-socket", router.spool / "control.sock", "http://tern/metrics"])
    for name in ("commit", "unit"):
        full = f"tern_spool_{name}_seconds"
        assert f"# TYPE {full} histogram" in done.stdout
        buckets = [int(n) for n in re.findall(rf'^{full}_bucket{{le="[^"]+"}} (\d+)$', done.stdout, re.M)]
        count = int(re.search(rf"^{full}_count (\d+)$", done.stdout, re.M)[1])
        assert len(buckets) == 20 and buckets == sorted(buckets) and buckets[-1] == count >= 1
        assert float(re.search(rf"^{full}_sum (\S+)$", done.stdout, re.M)[1]) > 0


# ---- damage --------------------------------------------------------------------------------------

def change(router, f):
    path = router.spool / "data.mdb"
    path.write_bytes(f(path.read_bytes()))


def refused(router, *words):
    """Neither the daemon nor a tool takes it, and each says why."""
    for args in (["run"], ["spool", "check"], ["spool", "stats"], ["spool", "repair", "--yes"]):
        done = router.cli(*args)
        assert done.returncode == 65, (args, done.returncode, done.stderr)
        for word in words:
            assert word in done.stderr, (args, done.stderr)


def test_a_newer_format(with_mail):
    change(with_mail, lambda b: b.replace(b"format\0\0\0\3", b"format\0\0\0\x63"))
    refused(with_mail, "has format 99, and this version reads formats 1 to 3: run the newer version")
    change(with_mail, lambda b: b.replace(b"format\0\0\0\x63", b"format\0\0\0\3"))
    assert with_mail.json("spool", "check")["ok"]


def test_garbage(with_mail):
    change(with_mail, lambda b: os.urandom(len(b)))
    refused(with_mail, "data.mdb is not an LMDB file, or its first pages are damaged")


def test_pages_of_zeros(with_mail):
    change(with_mail, lambda b: b[:8192] + bytes(len(b) - 8192))
    refused(with_mail, "pages are damaged: look at the disk")


def test_a_file_that_was_cut_off(with_mail):
    """Pieces behind its end are told one by one; where it is a page of an index that is gone, it ends."""
    behind = crashed = 0
    size = (with_mail.spool / "data.mdb").stat().st_size
    for end in range(size - 4096, 8192, -64 * 1024):
        os.truncate(with_mail.spool / "data.mdb", end)
        done = spool_cli("check", "--spool", with_mail.spool)
        if done.returncode == 0 and not behind and not crashed:
            continue  # nothing is in those pages
        assert done.returncode == 65, (end, done.returncode, done.stdout, done.stderr)
        behind += "octets lie behind the end of the file; a part of the message is lost" in done.stdout
        crashed += "damaged: reading it led to a place that does not exist" in done.stderr
    assert behind and crashed


def test_damage_is_told_and_repaired(with_mail):
    """A count that is wrong, by changing one octet of the queue's row."""
    def wrong_count(b):
        row = names[0] + (30).to_bytes(8, "big")
        assert row in b
        return b.replace(row, names[0] + (31).to_bytes(8, "big"))
    names = [q["name"].encode() for q in queues(with_mail)]
    change(with_mail, wrong_count)
    done = with_mail.cli("spool", "check")
    assert done.returncode == 65 and done.stderr == ""
    first, last = done.stdout.splitlines()
    assert "the row counts 31 scheduled, due has 30; stop the router and run 'tern spool repair'" in first
    assert last.startswith("PROBLEMS: ") and "1 problem, of which 'tern spool repair' mends 1" in last
    found = json.loads(with_mail.cli("spool", "check", "--json").stdout)
    assert found["problem_count"] == found["repairable"] == 1 and found["problems"][0]["kind"] == "queue"
    dry = with_mail.cli("spool", "repair")
    assert dry.returncode == 65 and "Nothing was changed" in dry.stdout
    with_mail.start()
    assert with_mail.cli("spool", "repair", "--yes").returncode == 75  # it is in use
    with_mail.stop()
    done = with_mail.cli("spool", "repair", "--yes")
    assert done.returncode == 0 and "repaired: " in done.stdout, (done.stdout, done.stderr)
    assert with_mail.json("spool", "check")["ok"]
    with_mail.start()
    with_mail.host.up()
    with_mail.host.wait_ids({f"m{n}" for n in range(30)})


def queues(router):
    router.start()
    found = router.queues()
    router.stop()
    return found


def test_copy(with_mail, new_tern):
    """Beside a running router; the copy is whole, private, small, and its own."""
    with_mail.start()
    to = with_mail.folder / "copy"
    assert with_mail.ok("spool", "copy", to) == ""
    assert (to.stat().st_mode & 0o777, (to / "data.mdb").stat().st_mode & 0o777) == (0o700, 0o600)
    assert (to / "data.mdb").stat().st_size <= (with_mail.spool / "data.mdb").stat().st_size
    checked = json.loads(spool_cli("check", "--spool", to, "--json").stdout)
    assert checked["ok"] and checked["rows"]["message"] == 30
    done = with_mail.cli("spool", "copy", to)
    assert done.returncode == 73 and "there is a spool in" in done.stderr
    assert spool_cli("copy").returncode == 64 and spool_cli("check", "x").returncode == 64


def test_a_copy_is_a_spool(with_mail, new_tern, sink, folder):
    """What docs/spool.md says of moving to another machine: data.mdb of a stopped router is all."""
    other = new_tern(to_hosts(with_mail.host) + FAST)
    other.spool.mkdir(mode=0o700)
    (other.spool / "data.mdb").write_bytes((with_mail.spool / "data.mdb").read_bytes())
    assert other.json("spool", "check")["ok"]
    other.start()
    with_mail.host.up()
    with_mail.host.wait_ids({f"m{n}" for n in range(30)})
