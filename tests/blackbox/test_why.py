"""`tern why` (ROUTING.md Q12): where each recipient is, what decided that, what was tried, and what would
make it go sooner. Real DNS, real hosts, all four policies."""
import datetime
import json
import os

import pytest

from clients import send
from daemon import HOSTNAME, tern_binary, to_hosts
from processes import run
from waiting import until

SLOW = '  queue = { retry = "1h...", host_retry = "1h", host_retry_max = "1h" },\n'
FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def show(router, *args):
    """What people see; printed, so that `pytest -s` shows it."""
    text = router.ok("why", *args)
    if os.environ.get("SHOW"):
        print("\n" + text)
    return text


def the_id(router):
    return router.queued()[0]["id"]


def why(router):
    """The answer for the one message, and that for its one recipient."""
    answer = router.json("why", the_id(router))
    assert len(answer["recipients"]) == 1
    return answer, answer["recipients"][0]


def commands(recipient):
    return [s["command"] for s in recipient["waits"]["sooner"] if s["command"]]


@pytest.fixture
def at_dns(new_tern, nsd):
    """at_dns(records, fields, prelude): a router that asks a real nameserver."""
    def make(records, fields, prelude=""):
        server = nsd("")
        router = new_tern(dns=server)
        server.set(records.replace("@SELF@", router.ip))
        router.configure(fields + f"""
  dns = {{ servers = {{ "{server.server}" }}, timeout = "3s", allow_loopback_mx = true }},
""", prelude)
        return router.start()
    return make


def test_Q12_backup_waits_for_its_primary(at_dns, sink):
    primary = sink(up=False)
    router = at_dns(f"""\
example.test. MX 10 primary.example.test.
example.test. MX 20 {HOSTNAME}.
primary.example.test. A {primary.ip}
{HOSTNAME}. A @SELF@
""", '  domains = { ["example.test"] = backup() },\n' + SLOW,
                    'local backup = require "policies.backup"\n')
    send(router, "u@example.test", test_id="one")
    router.wait_for("queue_backoff")
    answer, r = why(router)
    assert r["waits"]["cause"] == "queue_backoff"
    assert r["waits"]["since"] and r["waits"]["until"] > r["waits"]["since"]
    assert "refused" in r["waits"]["text"]
    assert commands(r) == ["tern queue retry --queue example.test"]
    assert r["expires"] is None  # for ever
    assert r["route"] == "mx example.test below self" and r["reason"] == "backup MX"
    assert r["decided_by"].startswith("policies/backup.lua:") and r["policy_is_current"]
    assert r["history"]["attempts"] == [] and r["attempts"] == 0
    queue, = answer["queues"]
    assert queue["name"] == "example.test" and queue["failures"] == 1 and queue["failing_since"]
    attempt, = queue["history"]["attempts"]
    assert attempt["outcome"] == "host_failed"
    assert attempt["tries"][0]["stage"] == "connect" and "refused" in attempt["tries"][0]["text"]
    assert primary.ip in attempt["tries"][0]["host"]
    plan = queue["history"]["plan"]
    assert [(h["preference"], primary.ip in h["host"]) for h in plan["hosts"]] == [(10, True)]
    assert plan["discarded"][0]["what"] == f"20 {HOSTNAME}"
    assert plan["discarded"][0]["reason"] == "ourselves"
    text = show(router, answer["id"])
    for part in ["u@example.test", "policies/backup.lua:", "tern queue retry --queue example.test",
                 f"20 {HOSTNAME}: ourselves", "refused", "never"]:
        assert part in text
    primary.up()
    run(["sh", "-c", f"{tern_binary()} {commands(r)[0][5:]} -c {router.config}"], timeout=20)
    primary.wait_ids({"one"})


def test_Q12_each_attempt_with_its_reply(tern, sink):
    host = sink()
    host.replies["RCPT"] = "451 4.7.1 greylisted"
    router = tern(to_hosts(host) + FAST)
    send(router, test_id="one")
    router.wait_for("deferred", count=3)
    until(lambda: len(why(router)[1]["history"]["attempts"]) >= 3, "three attempts")
    answer, r = why(router)
    assert r["waits"]["cause"] in ("deferred", "turn", "under_way")
    for n, attempt in enumerate(r["history"]["attempts"], 1):
        assert attempt["number"] == n and attempt["outcome"] == "deferred"
        reply, = attempt["tries"]
        assert reply["code"] == 451 and reply["enhanced"] == "4.7.1"
        assert reply["text"] == "greylisted" and reply["stage"] == "RCPT TO"
        assert host.ip in reply["host"] and reply["tls"] is None
    assert r["expires"]
    assert "451 4.7.1 greylisted" in show(router, answer["id"])
    # A restart, and a kill, leave it as it is.
    router.stop()
    router.start()
    before = why(router)[1]["history"]["attempts"]
    assert before[0]["number"] == 1 and len(before) >= 3
    router.kill9()
    router.start()
    assert why(router)[1]["history"]["attempts"][0] == before[0]


def test_Q12_the_tls_of_an_attempt(tern, sink, certificates):
    host = sink(certificates=certificates)
    host.replies["RCPT"] = "451 4.7.1 greylisted"
    router = tern(to_hosts(host) + SLOW)
    send(router)
    router.wait_for("deferred")
    answer, r = why(router)
    assert r["history"]["attempts"][0]["tries"][0]["tls"] == "TLSv1.3"
    assert r["waits"]["cause"] == "deferred" and "greylisted" in r["waits"]["text"]
    assert commands(r) == [f"tern queue retry {answer['id']}"]
    show(router, answer["id"])


def test_Q12_relay_to_host_is_down(tern, sink):
    """A name of a queue that a shell must not take apart is quoted."""
    one, two = sink(up=False), sink(up=False)
    router = tern(f"""\
  domains = {{ ["rcpt.test"] = relay_to_host {{ "{one.address}", "{two.address}",
                                             queue = "it's down" }} }},
{SLOW}""", 'local relay_to_host = require "policies.relay_to_host"\n')
    send(router, test_id="one")
    router.wait_for("queue_backoff")
    answer, r = why(router)
    assert r["waits"]["cause"] == "queue_backoff" and r["expires"]
    tries = answer["queues"][0]["history"]["attempts"][0]["tries"]
    assert [h in t["host"] for h, t in zip([one.ip, two.ip], tries)] == [True, True]
    assert commands(r) == ["""tern queue retry --queue 'it'\\''s down'"""]
    show(router, answer["id"])
    two.up()
    done = run(["sh", "-c", commands(r)[0].replace("tern", tern_binary(), 1) + f" -c {router.config}"],
               timeout=20)
    assert done.returncode == 0, done.stderr
    two.wait_ids({"one"})


def test_Q12_smart_host_does_not_resolve(at_dns):
    router = at_dns("", """\
  domains = { ["elsewhere.test"] = route.hold { queue = "x" } },
  senders = { ["sender.test"] = smart_host { "nowhere.test:587" } },
  relay_from = { "127.0.0.0/8" },
""" + SLOW, 'local smart_host = require "policies.smart_host"\n')
    send(router, "b@far.test")
    router.wait_for("queue_backoff")
    answer, r = why(router)
    assert r["waits"]["cause"] == "queue_backoff" and r["expires"] is None
    assert r["reason"] == "smart host"
    attempt = answer["queues"][0]["history"]["attempts"][0]
    assert attempt["tries"][0]["code"] == 451 and attempt["tries"][0]["host"] is None
    plan = answer["queues"][0]["history"]["plan"]
    assert plan["hosts"] == []
    assert plan["discarded"] == [{"what": "nowhere.test", "reason": "has no address"}]
    show(router, answer["id"])


def test_Q12_etrn_mail_waits_for_its_release(tern, sink):
    host = sink()
    router = tern(f"""\
  domains = {{ ["shop.test"] = etrn {{ deliver_to = "{host.address}", allow = "127.0.0.0/8" }} }},
{SLOW}""", 'local etrn = require "policies.etrn"\n')
    send(router, "u@shop.test", test_id="one")
    answer, r = why(router)
    assert r["state"] == "waiting" and r["waits"]["cause"] == "release" and r["waits"]["since"]
    assert "waiting for ETRN" in r["waits"]["text"]
    assert commands(r) == ["tern etrn shop.test"]
    show(router, answer["id"])
    router.ok("etrn", "shop.test")
    host.wait_ids({"one"})


def test_Q12_held_by_an_operator(tern, sink):
    host = sink(up=False)
    router = tern(to_hosts(host) + SLOW)
    send(router, test_id="one")
    router.wait_for("queue_backoff")
    router.ok("queue", "hold", the_id(router))
    answer, r = why(router)
    assert r["waits"]["cause"] == "held" and r["waits"]["since"]
    assert commands(r) == [f"tern queue release {answer['id']}"]
    show(router, answer["id"])
    router.ok("queue", "release", answer["id"])
    router.ok("queue", "hold", "--queue", host.address)
    r = why(router)[1]
    assert r["waits"]["cause"] == "queue_held"
    assert commands(r) == [f"tern queue release --queue {host.address}"]
    shown = router.ok("queue", "show", answer["id"])
    assert "an operator holds its whole queue" in shown
    host.up()
    router.ok("queue", "release", "--queue", host.address)
    router.ok("queue", "retry", "--queue", host.address)
    host.wait_ids({"one"})


def test_Q12_the_hours_of_its_route(tern, sink):
    """By the clock on the wall: they begin in two hours. An operator need not wait for them."""
    host, now = sink(), datetime.datetime.now()
    hours = "-".join(f"{now + datetime.timedelta(hours=h):%H:%M}" for h in (2, 3))
    router = tern(to_hosts(host, options=f'hours = "{hours}"'))
    send(router, test_id="one")
    router.wait_for("postponed")
    _, r = why(router)
    assert r["waits"]["cause"] == "hours" and hours in r["waits"]["text"]
    begin = (now + datetime.timedelta(hours=2)).astimezone(datetime.timezone.utc)
    assert router.queued()[0]["due"] == f"{begin:%Y-%m-%dT%H:%M}:00.000Z"
    show(router, the_id(router))
    assert host.greeted == []
    router.ok("queue", "retry", the_id(router))
    host.wait_ids({"one"})


def test_Q12_the_connections_are_in_use(tern, scripted_host):
    """One message is on its way and takes its time; the next waits for the only connection."""
    def talk(stream):
        stream.write(b"220 slow.test ESMTP\r\n")
        while stream.readline():
            pass
    host = scripted_host(talk)
    router = tern(to_hosts(host, options="concurrency = 1"))
    send(router, test_id="one")
    send(router, test_id="two")

    def causes():
        ids = {m["id"] for m in router.queued()}
        return sorted(router.json("why", i)["recipients"][0]["waits"]["cause"] for i in ids)
    until(lambda: causes() == ["concurrency", "under_way"], "one waits for the other")
    show(router, router.queued()[0]["id"])
    show(router, router.queued()[1]["id"])


def test_Q3_the_host_has_no_room(tern, scripted_host):
    """Two queues lead to one host, which may have one connection: the second stands in line."""
    def talk(stream):
        stream.write(b"220 slow.test ESMTP\r\n")
        while stream.readline():
            pass
    host = scripted_host(talk)
    router = tern(f"""\
  domains = {{ ["one.test"] = route.hosts {{ "{host.address}", queue = "one" }},
              ["two.test"] = route.hosts {{ "{host.address}", queue = "two" }} }},
  queue = {{ host_connections = 1, host_retry = "2s" }},
  workers = 1,
""")
    send(router, "a@one.test", test_id="one")
    until(lambda: router.queues()[0]["active"] == 1, "the first is under way")
    send(router, "b@two.test", test_id="two")

    def waiting():
        two = [q for q in router.queues() if q["name"] == "two"]
        return two and two[0]["waits_for_host"]
    until(waiting, "the second waits for room")
    assert waiting() == {"host": host.address, "connections": 1, "limit": 1, "queues": 1}
    message = next(m for m in router.queued() if m["queue"] == "two")
    r = router.json("why", message["id"])["recipients"][0]
    assert r["waits"]["cause"] == "host_connections"
    assert f"{host.address} has as many connections as it may have now (1 of 1)" in r["waits"]["text"]
    assert "queue.host_connections" in r["waits"]["sooner"][0]["text"]
    show(router, message["id"])
    assert f"room at {host.address}" in router.ok("queue")


def test_Q12_many_recipients_come_in_pages(tern, sink):
    down, busy = sink(up=False), sink()
    busy.replies["RCPT"] = lambda a: None if a.startswith("ok") else "452 4.2.2 full"
    router = tern(f"""\
  domains = {{ ["down.test"] = route.hosts {{ "{down.address}" }},
              ["busy.test"] = route.hosts {{ "{busy.address}" }} }},
{SLOW}""")
    to = [f"u{n}@{d}.test" for n in range(20) for d in ("down", "busy")] + ["ok@busy.test"]
    send(router, to)
    busy.wait()
    router.wait_for("queue_backoff")
    router.wait_for("deferred", count=20)
    whole = router.json("why", the_id(router))
    assert whole["next"] is None and whole["recipients_at_first"] == 41
    assert sorted(r["address"] for r in whole["recipients"]) == sorted(to[:-1])
    assert {r["waits"]["cause"] for r in whole["recipients"]} == {"queue_backoff", "deferred"}
    assert {q["name"] for q in whole["queues"]} == {down.address, busy.address}
    seen, after = [], []
    while True:
        page = router.json("why", the_id(router), "--limit", "7", *after)
        assert len(page["recipients"]) <= 7
        seen += [r["address"] for r in page["recipients"]]
        if page["next"] is None:
            break
        after = ["--after", page["next"]]
    assert seen == [r["address"] for r in whole["recipients"]]
    assert "There are more recipients" in router.ok("why", the_id(router), "--limit", "7")


def test_Q12_a_changed_policy_is_told(tern, sink):
    host = sink(up=False)
    router = tern(to_hosts(host) + SLOW)
    send(router)
    router.wait_for("queue_backoff")
    assert why(router)[1]["policy_is_current"]
    router.configure("-- other text\n" + to_hosts(host) + SLOW)
    router.reload()
    answer, r = why(router)
    assert not r["policy_is_current"]
    assert "the policies have changed since" in show(router, answer["id"])


def test_Q12_errors_and_exit_codes(tern):
    router = tern()
    assert router.cli("why").returncode == 64
    assert router.cli("why", "not-an-id").returncode == 65
    done = router.cli("why", "01M84VZHTJ0001EFA3WDPE7FVS")
    assert done.returncode == 66 and "there is no message" in done.stderr
    done = router.cli("why", "01M84VZHTJ0001EFA3WDPE7FVS", "--json")
    assert json.loads(done.stdout)["error"] == "no_such_message"
    router.stop()
    assert router.cli("why", "01M84VZHTJ0001EFA3WDPE7FVS").returncode == 69


# What programs rely on: names and types of all fields. A field may be added, never lost or changed.
TEXT, MAYBE, NUMBER, YES = str, (str, type(None)), int, bool
SCHEMA = {
    "message": {"id": TEXT, "sender": TEXT, "size": NUMBER, "received": TEXT,
                "recipients_at_first": NUMBER, "client": MAYBE, "helo": MAYBE, "identity": MAYBE,
                "service": MAYBE, "tls": YES, "eight_bit": YES, "binary": YES, "smtputf8": YES,
                "notification": YES, "envid": MAYBE, "requiretls": YES, "tls_optional": YES,
                "recipients": list, "queues": list, "next": MAYBE},
    "recipient": {"n": NUMBER, "address": TEXT, "queue": TEXT, "state": TEXT, "detail": TEXT,
                  "due": TEXT, "attempts": NUMBER, "route": TEXT, "reason": MAYBE,
                  "decided_by": MAYBE, "host_failure": YES, "warned": YES, "last_attempt": MAYBE,
                  "last_host": MAYBE, "last_reply": MAYBE, "policy_is_current": YES,
                  "history": dict, "waits": dict, "expires": MAYBE},
    "waits": {"cause": TEXT, "text": TEXT, "since": MAYBE, "until": MAYBE, "sooner": list},
    "sooner": {"text": TEXT, "command": MAYBE},
    "history": {"attempts": list, "left_out": NUMBER, "plan": dict},
    "attempt": {"number": NUMBER, "time": TEXT, "took_ms": NUMBER, "outcome": TEXT,
                "decided_by": MAYBE, "tries": list},
    "try": {"host": MAYBE, "tls": MAYBE, "stage": MAYBE, "code": (int, type(None)),
            "enhanced": MAYBE, "text": MAYBE},
    "plan": {"time": TEXT, "hosts": list, "discarded": list},
    "host": {"host": TEXT, "preference": (int, type(None))},
    "queue": {"name": TEXT, "scheduled": NUMBER, "waiting": NUMBER, "held": NUMBER,
              "on_hold": YES, "released": YES, "active": NUMBER, "in_memory": NUMBER,
              "concurrency": NUMBER, "ceiling": (int, type(None)),
              "waits_for_host": (dict, type(None)), "retry_in_ms": (int, type(None)), "failures": NUMBER,
              "failing_since": MAYBE, "last_error": MAYBE, "worker": NUMBER, "history": dict},
}


def fits(value, name):
    for field, kind in SCHEMA[name].items():
        assert field in value, f"{name} has no {field}: {value}"
        assert isinstance(value[field], kind), f"{name}.{field} is {value[field]!r}"


def test_Q12_the_json_is_stable(tern, sink):
    host = sink()
    host.replies["RCPT"] = "451 4.7.1 greylisted"
    router = tern(to_hosts(host) + SLOW)
    send(router)
    router.wait_for("deferred")
    answer, r = why(router)
    fits(answer, "message")
    fits(r, "recipient")
    fits(r["waits"], "waits")
    fits(r["waits"]["sooner"][0], "sooner")
    fits(r["history"], "history")
    fits(r["history"]["attempts"][0], "attempt")
    fits(r["history"]["attempts"][0]["tries"][0], "try")
    fits(r["history"]["plan"], "plan")
    fits(r["history"]["plan"]["hosts"][0], "host")
    fits(answer["queues"][0], "queue")
