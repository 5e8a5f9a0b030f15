"""Maps from files: what stands in them, and files that change while the router runs."""
import os

import pytest

from clients import Flood, Raw, send
from waiting import never, until

PRELUDE = """\
local relay_to_host = require "policies.relay_to_host"
local etrn = require "policies.etrn"
"""
BY_FILE = """\
  workers = 2,
  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },
  domains = tern.map.file("domains.csv", { policies = {
    relay = relay_to_host, etrn = etrn, hold = route.hold { queue = "later" },
  } }),
"""


def replace(router, text, name="domains.csv"):
    """As one should: written beside, then renamed."""
    fresh = router.write(text, name + ".new")
    os.replace(fresh, router.folder / name)


@pytest.fixture
def mapped(new_tern):
    """A router whose domains stand in a file."""
    def make(rows, fields=BY_FILE, prelude=PRELUDE):
        router = new_tern(fields, prelude)
        router.write(rows, "domains.csv")
        return router.start()
    return make


def rcpt(router, recipient, sender="a@sender.test"):
    """The reply to RCPT."""
    with Raw(router) as client:
        client.hello()
        client.envelope(sender)
        return client.cmd(f"RCPT TO:<{recipient}>")


def test_H2_H3_rows_route_and_authorise(mapped, sink):
    """Keys as in a table: ".there.test" is subdomains only, IDNs are A-labels; all else is no relay."""
    first, second = sink(), sink()
    router = mapped(f"""\
# comment
there.test,       relay, {first.address}

.there.test,      relay, "{second.address}", tls=none
münchen.test,     relay, {second.address}
""")
    send(router, "u@there.test", test_id="itself")
    first.wait_ids({"itself"})
    send(router, "u@sub.There.test", test_id="below")
    send(router, "u@xn--mnchen-3ya.test", test_id="idn")
    second.wait_ids({"below", "idn"})
    reply = rcpt(router, "u@elsewhere.test")
    assert (reply.code, reply.enhanced) == (550, "5.7.1")


def test_a_changed_file_is_read_without_a_reload(mapped, sink):
    """In all workers, while mail comes; and what waited goes the new way (H7)."""
    first, second, dead = sink(), sink(), sink(up=False)
    router = mapped(f"there.test, relay, {first.address}\nlate.test, relay, {dead.address}\n")
    send(router, "u@there.test", test_id="before")
    first.wait_ids({"before"})
    send(router, "u@late.test", test_id="late")
    router.wait_for("queue_backoff")
    assert rcpt(router, "u@more.test").code == 550

    rows = [f"{d}.test, relay, {second.address}\n" for d in ("there", "late", "more")]
    replace(router, "".join(rows))
    event = router.wait_for("map_read")
    assert (event["file"], event["rows"]) == ("domains.csv", 3)
    for n in range(10):  # whichever worker takes it
        send(router, "u@there.test", test_id=f"there{n}")
        send(router, "u@more.test", test_id=f"more{n}")
    second.wait_ids({"late", *(f"{d}{n}" for d in ("there", "more") for n in range(10))})
    assert first.ids() == {"before": 1}


def test_H7_held_mail_follows_a_changed_file(mapped, sink):
    host = sink()
    router = mapped("there.test, hold\n")
    send(router, "u@there.test", test_id="one")
    assert [m["queue"] for m in router.queued()] == ["later"]
    replace(router, f"there.test, relay, {host.address}\n")
    host.wait_ids({"one"})


@pytest.mark.parametrize("rows, error", [
    ("there.test, hold\n\nthere.test, hold\n", "domains.csv:3: "),
    ("there.test, hold\nmore.test, relya, x\n", 'domains.csv:2: unknown policy "relya"'),
    (None, "cannot read "),
], ids=["twice", "unknown policy", "gone"])
def test_a_broken_file_changes_nothing(mapped, sink, rows, error):
    """The old map stays; one event tells of it, once; a good one is taken again."""
    host = sink()
    router = mapped(f"there.test, relay, {host.address}\n")
    if rows:
        replace(router, rows)
    else:
        (router.folder / "domains.csv").unlink()
    event = router.wait_for("map_failed")
    assert event["level"] == "error" and error in event["error"]
    send(router, "u@there.test", test_id="one")
    host.wait_ids({"one"})
    never(lambda: len(router.log.all("map_failed")) > 1, "it is told again", 2.5)
    replace(router, f"more.test, relay, {host.address}\n")
    router.wait_for("map_read")
    send(router, "u@more.test", test_id="two")
    host.wait_ids({"two"})


def test_a_file_that_is_still_being_written(mapped, sink):
    """It is read when it has come to rest, not half."""
    host = sink()
    router = mapped(f"there.test, relay, {host.address}\n")
    with open(router.folder / "domains.csv", "w", encoding="utf-8") as f:
        for n in range(30):
            f.write(f"d{n}.test, relay, {host.address}\n")
            f.flush()
            never(lambda: router.log.all("map_read"), "it was read half", 0.1)
    assert router.wait_for("map_read")["rows"] == 30
    assert len(router.log.all("map_read")) == 1


def test_reload_reads_maps_again(mapped, sink):
    host = sink()
    router = mapped(f"there.test, relay, {host.address}\n")
    router.write(f"more.test, relay, {host.address}\n", "domains.csv")
    router.reload()
    assert rcpt(router, "u@there.test").code == 550
    send(router, "u@more.test", test_id="one")
    host.wait_ids({"one"})
    replace(router, f"third.test, relay, {host.address}\n")  # the new source is watched as well
    router.wait_for("map_read")
    assert rcpt(router, "u@third.test").code == 250


def test_reload_with_a_broken_map(mapped, sink):
    host = sink()
    router = mapped(f"there.test, relay, {host.address}\n")
    router.write("there.test, relay, 192.0.2.1:99999\n", "domains.csv")
    done = router.cli("reload")
    assert done.returncode == 78 and "domains.csv:1: relay_to_host: " in done.stderr
    send(router, "u@there.test", test_id="one")
    host.wait_ids({"one"})


def test_a_row_that_makes_no_policy(mapped, sink):
    """Rows behind the first of their kind are tried when mail asks: 451, and the log says which row."""
    host = sink()
    router = mapped(f"there.test, relay, {host.address}\nbad.test, relay, 192.0.2.1:99999\n")
    reply = rcpt(router, "u@bad.test")
    assert (reply.code, reply.enhanced) == (451, "4.3.0")
    assert "domains.csv:2: relay_to_host: " in router.wait_for("policy_error")["message"]
    send(router, "u@there.test", test_id="one")
    host.wait_ids({"one"})


def test_E1_a_map_with_etrn_policies(mapped, sink):
    """EHLO offers it, and ETRN finds the row."""
    host = sink()
    router = mapped(f"shop.test, etrn, deliver_to={host.address}, allow=127.0.0.0/8\n")
    send(router, "u@shop.test", test_id="one")
    with Raw(router) as client:
        assert "ETRN" in client.hello().text.split("\n")
        assert client.cmd("ETRN shop.test").code in (250, 252, 253)
        assert client.cmd("ETRN other.test").code == 459
    host.wait_ids({"one"})


def test_explain_names_the_row(mapped):
    router = mapped("# comment\n.there.test, relay, 192.0.2.1:25\n")
    said = router.ok("explain", "--from", "a@b.example", "--to", "u@sub.there.test")
    assert "domains[.there.test domains.csv:2]" in said, said


def test_S1_senders_by_file(mapped, sink):
    """The full address, then its domain; the null sender has its own key."""
    one, all_, null = sink(), sink(), sink()
    fields = """\
  relay_from = { "127.0.0.0/8" },
  senders = tern.map.file("domains.csv", { policy = function(row)
    return route.hosts { row[1] }
  end }),
"""
    router = mapped(f"boss@firm.test, {one.address}\n@firm.test, {all_.address}\n"
                    f"<>, {null.address}\n", fields)
    send(router, "u@there.test", sender="Boss@firm.test", test_id="boss")
    send(router, "u@there.test", sender="x@firm.test", test_id="clerk")
    send(router, "u@there.test", sender="", test_id="null")
    one.wait_ids({"boss"})
    all_.wait_ids({"clerk"})
    null.wait_ids({"null"})


def test_networks_in_a_hook(new_tern):
    """tern.map.cidr: the longest prefix that holds the address; and it changes as well."""
    router = new_tern('  policies = { rules },\n  relay_from = { "127.0.0.0/8" },\n', """\
local nets = tern.map.cidr "nets.txt"
local rules = { rcpt = function(ctx)
  local kind, text = nets:get(ctx.session.client)
  if kind == "block" then return tern.reject { 550, "5.7.1", text } end
end }
""")
    router.write(f"127.0.0.0/8, block, not from here\n{router.ip}, pass\n", "nets.txt")
    router.start()
    with Raw(router, source=router.ip) as client:
        client.hello()
        client.envelope("a@sender.test", "u@there.test")
    with Raw(router, source="127.0.0.1") as client:
        client.hello()
        client.envelope("a@sender.test")
        assert "not from here" in client.cmd("RCPT TO:<u@there.test>").text
        replace(router, "127.0.0.0/16, block, still not\n127.0.0.0/8, pass\n", "nets.txt")
        router.wait_for("map_read")
        assert "still not" in client.cmd("RCPT TO:<u@there.test>").text


@pytest.mark.heavy
def test_changes_in_the_middle_of_traffic(mapped, sink):
    """Nothing is refused or lost, whichever version a session meets."""
    first, second = sink(), sink()
    router = mapped(f"rcpt.test, relay, {first.address}\n")
    flood = Flood(router, 20_000, sessions=10, pause=0.01).start()
    for n in range(3):
        host = (second, first)[n % 2]
        others = "".join(f"d{i}.test, relay, {host.address}\n" for i in range(20_000))
        replace(router, f"{others}rcpt.test, relay, {host.address}\n")
        router.wait_for("map_read", count=n + 1, timeout=30)
        flood.wait_acknowledged(len(flood.acknowledged) + 100)
    flood.finish()
    assert flood.failures == [] and flood.acknowledged == set(flood.ids)

    def arrived():
        return set(first.ids()) | set(second.ids())
    until(lambda: arrived() >= set(flood.ids), lambda: f"{len(arrived())} arrived", 60)
    assert first.mails and second.mails
