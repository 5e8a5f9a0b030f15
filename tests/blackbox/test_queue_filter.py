"""What operators do to all that a filter means: lists, verbs, operations that run in the router."""
import json
import signal
import subprocess
import threading

import pytest

from clients import Raw, message, send
from daemon import tern_binary, to_hosts
from processes import Child, run
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
SLOW = '  queue = { retry = "1h...", host_retry = "1h", host_retry_max = "1h" },\n'


def domains(more=SLOW, **hosts):
    """rcpt_test=host: mail for rcpt.test goes to that host; each host has a queue of its own."""
    fields = ", ".join(f'["{name.replace("_", ".")}"] = route.hosts {{ "{host.address}" }}'
                       for name, host in hosts.items())
    return f"  domains = {{ {fields} }},\n{more}"


@pytest.fixture
def mixed(tern, sink):
    """Six messages in two queues, whose hosts are down: see MAILS."""
    one, two = sink(up=False), sink(up=False)
    router = tern(domains(one_test=one, two_test=two))
    router.one, router.two = one, two
    for test_id, (sender, recipient, size) in MAILS.items():
        send(router, recipient, sender=sender, test_id=test_id, body="\n".join(["x" * 70] * (size // 72)))
    until(lambda: len(router.queued()) == len(MAILS), "all is queued")
    until(lambda: all(q["retry_in_ms"] and not q["active"] for q in router.queues()),
          "both queues back off")
    return router


MAILS = {
    "a1": ("alice@sender.test", "u@one.test", 10),
    "a2": ("alice@sender.test", "u@two.test", 20000),
    "b1": ("bob@sender.test", "u@one.test", 10),
    "b2": ("bob@other.test", "v@two.test", 10),
    "n1": ("", "u@one.test", 10),
    "c1": ("Alice@Sender.test", "w@one.test", 20000),
}


def named(mails):
    """Test ids of entries of a list."""
    by_pair = {(s.lower(), r): i for i, (s, r, size) in MAILS.items() if i != "c1"}
    return {by_pair.get((m["sender"].lower(), m["recipient"]), "c1") for m in mails}


def listed(router, *args):
    return named(router.json("queue", "list", *args)["messages"])


# ---- filters ----

CONDITIONS = [
    (["--sender", "alice@sender.test"], "a1 a2 c1"),
    (["--sender", "@sender.test"], "a1 a2 b1 c1"),
    (["--sender", "@*.test"], "a1 a2 b1 b2 c1"),
    (["--sender", "bob@*"], "b1 b2"),
    (["--sender", "<>"], "n1"),
    (["--recipient", "u@one.test"], "a1 b1 n1"),
    (["--recipient", "@two.test"], "a2 b2"),
    (["--destination", "two.test"], "a2 b2"),
    (["--destination", "TWO.*"], "a2 b2"),
    (["--larger", "10K"], "a2 c1"),
    (["--smaller", "10K"], "a1 b1 b2 n1"),
    (["--older", "1h"], ""),
    (["--newer", "1h"], "a1 a2 b1 b2 n1 c1"),
    (["--state", "scheduled"], "a1 a2 b1 b2 n1 c1"),
    (["--state", "ready"], "a1 a2 b1 b2 n1 c1"),
    (["--state", "deferred"], ""),
    (["--state", "active"], ""),
    (["--state", "held"], ""),
    (["--state", "waiting"], ""),
    (["--reply", "451"], ""),
    (["--route", "hosts"], "a1 a2 b1 b2 n1 c1"),
    (["--route", "nothing like it"], ""),
    (["--policy", "*.lua:*"], ""),
    (["--sender", "@sender.test", "--larger", "10K", "--destination", "two.test"], "a2"),
]


def test_each_condition(mixed):
    for args, wanted in CONDITIONS:
        wanted = set(wanted.split())
        assert listed(mixed, *args) == wanted, args
        op = mixed.json("queue", "remove", *args, "--dry-run")
        assert op["matched"] == len(wanted) and op["changed"] == 0 and op["state"] == "done", op
        assert named(op["first"]) == wanted, args
    assert "nothing" in mixed.ok("queue", "hold", "--state", "waiting", "--dry-run")
    assert "Nothing in the queue" in mixed.ok("queue", "list", "--state", "waiting")


def test_queues_by_name_and_pattern(mixed):
    assert listed(mixed, "--queue", mixed.two.address) == {"a2", "b2"}
    assert listed(mixed, "--queue", mixed.one.ip + ":*") == {"a1", "b1", "n1", "c1"}
    assert listed(mixed, "--queue", "*", "--sender", "<>") == {"n1"}
    assert listed(mixed, "--queue", mixed.two.address, "--sender", "bob@other.test") == {"b2"}
    op = mixed.json("queue", "hold", "--queue", "127.*", "--dry-run")
    assert (op["matched"], op["messages"]) == (6, 6)


def test_pages_of_a_filtered_list(mixed):
    seen, after = [], []
    while True:
        page = mixed.json("queue", "list", "--queue", "*", "--newer", "1h", "-n", "2", *after)
        assert len(page["messages"]) <= 2
        seen += [m["id"] for m in page["messages"]]
        if not page["next"]:
            break
        after = ["--after", page["next"]]
    assert len(seen) == len(set(seen)) == 6
    text = mixed.ok("queue", "list", "--newer", "1h", "-n", "2")
    assert "There is more: tern queue list --after '" in text
    assert mixed.cli("queue", "list", "--newer", "1h", "--after", "nonsense").returncode == 65


MISTAKES = [
    (["--older", "soon"], ["older", "30m", "soon"]),
    (["--larger", "big"], ["larger", "100K", "big"]),
    (["--state", "lost"], ["state", "deferred", "lost"]),
    (["--sender", "example.com"], ["sender", "@example.com"]),
    (["--sender", "@"], ["sender", "empty"]),
    (["--destination", "not a domain"], ["destination", "not a domain"]),
    (["--older", "2h", "--newer", "1h"], ["older than 2h", "newer than 1h"]),
    (["--larger", "2K", "--smaller", "1K"], ["larger", "smaller"]),
    (["--recipient", ""], ["recipient", "empty"]),
    ([], ["hold what?", "--all"]),
    (["--all", "--newer", "1h"], ["--all means everything"]),
    (["--newer", "1h", "--to", "a@b.test"], ["--to", "edit"]),
    (["--newer", "1h", "--reason", "x"], ["--reason", "bounce"]),
]


def test_what_is_wrong_is_said(mixed):
    for args, words in MISTAKES:
        done = mixed.cli("queue", "hold", *args)
        assert done.returncode == 64 and all(w in done.stderr for w in words), done.stderr
    assert len(mixed.json("queue", "list", "--state", "scheduled")["messages"]) == 6


def test_what_is_wrong_in_a_request_is_said(mixed):
    import http.client
    import socket

    def ask(method, path, body=None):
        c = http.client.HTTPConnection("tern")
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.connect(str(mixed.spool / "control.sock"))
        c.request(method, path, body=json.dumps(body) if body is not None else None)
        r = c.getresponse()
        return r.status, json.loads(r.read())

    base = "/v1/queue/operations"
    for body, code, words in [
            ({}, "bad_body", "action"),
            ({"action": "explode", "all": True}, "bad_body", "hold"),
            ({"action": "hold"}, "bad_body", "all"),
            ({"action": "hold", "filter": {}}, "bad_body", "all"),
            ({"action": "hold", "all": 1}, "bad_body", "true or false"),
            ({"action": "hold", "all": True, "ids": ["0" * 26]}, "bad_body", "all"),
            ({"action": "hold", "ids": ["x"]}, "bad_id", "'x'"),
            ({"action": "hold", "ids": []}, "bad_body", "ids"),
            ({"action": "hold", "filter": {"sendr": "a@b"}}, "bad_filter", "did you mean 'sender'"),
            ({"action": "hold", "filter": {"older": 5}}, "bad_filter", "string"),
            ({"action": "hold", "filter": {"older": "x"}}, "bad_filter", "older"),
            ({"action": "hold", "filter": {"state": "active"}}, "bad_filter", "dry_run"),
            ({"action": "hold", "all": True, "dryrun": True}, "bad_body", "dryrun"),
            ({"action": "edit", "all": True}, "bad_body", "to"),
            ({"action": "edit", "all": True, "to": "nobody"}, "bad_body", "nobody"),
            ({"action": "edit", "all": True, "to": "a@bücher.example"}, "bad_body", "xn--"),
            ({"action": "bounce", "all": True, "reason": "a\r\nb"}, "bad_body", "one line"),
            ({"action": "bounce", "all": True, "reason": "x" * 600}, "bad_body", "511"),
            ({"action": "hold", "all": True, "reason": "x"}, "bad_body", "bounce"),
    ]:
        status, answer = ask("POST", base, body)
        assert status == 400 and answer["error"] == code and words in answer["message"], (body, answer)
    assert ask("GET", base + "/0000")[0] == 404
    assert ask("DELETE", base + "/0000")[0] == 404
    assert ask("GET", "/v1/messages?older=x")[1]["error"] == "bad_filter"
    assert ask("GET", base) == (200, {"operations": []})
    status, op = ask("POST", base, {"action": "hold", "all": True, "dry_run": True})
    assert status == 201 and op["state"] in ("running", "done")
    status, op = ask("GET", f"{base}/{op['id']}?wait=true")
    assert status == 200 and op["state"] == "done" and op["matched"] == 6
    assert ask("GET", f"{base}/{op['id']}?wait=maybe")[0] == 400
    assert [o["id"] for o in ask("GET", base)[1]["operations"]] == [op["id"]]


def test_replies(tern, sink):
    host = sink()
    host.replies["RCPT"] = lambda a: {"x@rcpt.test": "451 4.7.1 greylisted, come back",
                                      "y@rcpt.test": "452 4.2.2 mailbox full"}.get(a)
    router = tern(to_hosts(host) + SLOW)
    send(router, ["x@rcpt.test", "y@rcpt.test"], test_id="one")
    router.wait_for("deferred", count=2)
    until(lambda: len(router.queued()) == 2, "both are deferred")
    for reply, wanted in [("451", "x"), ("4xx", "xy"), ("45x", "xy"), ("550", ""), ("4.2.2", "y"),
                          ("4.7.x", "x"), ("4.x.x", "xy"), ("greylist", "x"), ("MAILBOX*", "y"),
                          ("452 4.2.2*", "y"), ("*back", "x"), ("nothing", "")]:
        found = router.json("queue", "list", "--reply", reply)["messages"]
        assert "".join(sorted(m["recipient"][0] for m in found)) == wanted, reply
    assert len(router.json("queue", "list", "--state", "deferred")["messages"]) == 2
    assert router.json("queue", "list", "--state", "ready")["messages"] == []


def test_Q8_what_is_under_way_is_active(tern, scripted_host):
    """--state active and ready ask the owner; verbs pass over what is under way."""
    arrived, go = threading.Event(), threading.Event()

    def talk(stream):
        stream.write(b"220 raw.test ESMTP\r\n")
        for line in iter(stream.readline, b""):
            verb = line[:4].upper()
            if verb == b"DATA":
                stream.write(b"354 go on\r\n")
                for text in iter(stream.readline, b".\r\n"):
                    assert text
                arrived.set()
                go.wait(60)
            stream.write(b"250 raw.test\r\n")

    host = scripted_host(talk)
    router = tern(to_hosts(host, options="concurrency = 1") + SLOW)
    send(router, "x@rcpt.test", test_id="x")
    assert arrived.wait(15)
    send(router, "y@rcpt.test", test_id="y")
    until(lambda: len(router.queued()) == 2, "both are queued")
    recipients = lambda *a: [m["recipient"] for m in router.json("queue", "list", *a)["messages"]]
    assert recipients("--state", "active") == ["x@rcpt.test"]
    assert recipients("--state", "ready") == ["y@rcpt.test"]
    assert router.json("queue", "hold", "--state", "active", "--dry-run")["matched"] == 1
    assert router.cli("queue", "hold", "--state", "active").returncode == 65
    op = router.json("queue", "hold", "--all")
    assert (op["matched"], op["changed"], op["busy"]) == (2, 1, 1), op
    assert recipients("--state", "held") == ["y@rcpt.test"]
    go.set()
    until(lambda: len(router.queued()) == 1, "the one under way was delivered")


# ---- verbs ----

def test_dry_run_changes_nothing(mixed):
    before = mixed.queued()
    for verb in ("hold", "release", "retry", "reroute", "remove", "bounce"):
        text = mixed.ok("queue", verb, "--all", "--dry-run")
        assert "Nothing was changed" in text or "nothing in the queue" in text
    mixed.ok("queue", "edit", "--all", "--to", "a@one.test", "--dry-run")
    assert "6 recipients of 6 messages" in mixed.ok("queue", "hold", "--all", "--dry-run")
    assert mixed.queued() == before


def test_hold_and_release_what_a_sender_sent(mixed):
    text = mixed.ok("queue", "hold", "--sender", "@sender.test")
    assert "hold: 4 recipients of 4 messages on hold" in text
    assert listed(mixed, "--state", "held") == {"a1", "a2", "b1", "c1"}
    assert mixed.json("queue", "hold", "--sender", "@sender.test")["matched"] == 0, "held already"
    mixed.one.up()
    mixed.two.up()
    mixed.json("queue", "retry", "--all")
    mixed.one.wait_ids({"n1"})
    mixed.two.wait_ids({"b2"})
    until(lambda: len(mixed.queued()) == 4, "only what is held is left")
    mixed.restart()
    assert listed(mixed, "--state", "held") == {"a1", "a2", "b1", "c1"}
    assert mixed.json("queue", "release", "--larger", "10K")["changed"] == 2
    mixed.two.wait_ids({"a2"})
    mixed.one.wait_ids({"c1"})
    mixed.ok("queue", "release", "--all")
    mixed.one.wait_ids({"a1", "b1"})
    assert max((mixed.one.ids() + mixed.two.ids()).values()) == 1


def test_retry_and_remove(mixed):
    assert mixed.json("queue", "remove", "--sender", "bob@*")["changed"] == 2
    mixed.one.up()
    assert mixed.json("queue", "retry", "--destination", "one.test")["changed"] == 3
    mixed.one.wait_ids({"a1", "n1", "c1"})
    until(lambda: len(mixed.queued()) == 1, "one is left")
    assert listed(mixed) == {"a2"} and "b1" not in mixed.one.ids()


def test_retry_of_what_was_deferred(tern, sink):
    host = sink()
    host.replies["RCPT"] = "450 4.2.1 not now"
    router = tern(to_hosts(host) + SLOW)
    for n in range(3):
        send(router, f"r{n}@rcpt.test", sender=f"s{n}@sender.test", test_id=f"m{n}")
    router.wait_for("deferred", count=3)
    host.replies.clear()
    assert router.json("queue", "retry", "--sender", "s1@sender.test", "--reply", "450")["changed"] == 1
    host.wait_ids({"m1"})
    until(lambda: len(router.queued()) == 2, "the others keep their time")
    assert set(host.ids()) == {"m1"}


def test_bounce_with_a_reason(tern, sink):
    host, home = sink(up=False), sink()
    router = tern(domains(rcpt_test=host, sender_test=home))
    for n in range(3):
        send(router, [f"r{n}@rcpt.test", f"s{n}@rcpt.test"], test_id=f"m{n}")
    send(router, "u@rcpt.test", sender="", test_id="null")
    until(lambda: len(router.json("queue", "list", "--queue", host.address)["messages"]) == 7, "queued")
    until(lambda: all(not q["active"] for q in router.queues()), "its host is down")
    op = router.json("queue", "bounce", "--recipient", "s*@rcpt.test",
                     "--reason", "this mailbox has been closed")
    assert (op["matched"], op["changed"], op["messages"]) == (3, 3, 3)
    for dsn in home.wait(3):
        assert dsn.sender == "" and dsn.recipients == ["a@sender.test"]
        assert b"this mailbox has been closed" in dsn.content
        assert b"Final-Recipient: rfc822; s" in dsn.content
        assert b"Final-Recipient: rfc822; r" not in dsn.content
    assert router.json("queue", "bounce", "--sender", "<>")["changed"] == 1
    until(lambda: len(router.queued()) == 3, "the other recipients wait on")
    assert {m["recipient"] for m in router.queued()} == {"r0@rcpt.test", "r1@rcpt.test", "r2@rcpt.test"}
    assert len(home.mails) == 3, "nobody is told of a null sender's mail"


def switching(old, new):
    """Policies that send mail to `old`, and to `new` once somebody has said switch@sender.test."""
    return f"""
  policies = {{ {{ name = "switch",
    rcpt = function(ctx) return tern.accept() end,
    mail = function(ctx)
      if ctx.message.sender == "switch@sender.test" then tern.kv("where"):set("host", "{new}") end
    end,
    route = function(ctx)
      return route.hosts {{ tern.kv("where"):get("host") or "{old}" }}
    end }} }},
{SLOW}"""


def switch(router):
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<switch@sender.test>")


def test_H7_reroute_asks_the_policy_now(tern, sink):
    """Whatever the policy said before, though it has not changed: scheduled mail goes the new way at once."""
    old, new = sink(up=False), sink()
    router = tern(switching(old.address, new.address))
    for n in range(3):
        send(router, [f"r{n}@rcpt.test", f"s{n}@rcpt.test"], sender=f"a{n}@sender.test", test_id=f"m{n}")
    until(lambda: len(router.queued()) == 6, "queued")
    until(lambda: all(not q["active"] for q in router.queues()), "its host is down")
    assert router.json("queue", "reroute", "--all")["changed"] == 6
    assert {m["queue"] for m in router.queued()} == {old.address}, "the policy says what it said"
    switch(router)
    op = router.json("queue", "reroute", "--sender", "a1@*")
    assert (op["matched"], op["changed"]) == (2, 2)
    assert new.wait()[0].id == "m1"
    until(lambda: len(router.queued()) == 4, "it has gone")
    assert {m["sender"] for m in router.queued()} == {"a0@sender.test", "a2@sender.test"}
    router.ok("queue", "hold", "--sender", "a2@*")
    assert router.json("queue", "reroute", "--all")["changed"] == 4
    new.wait_ids({"m0"})
    until(lambda: len(router.queued()) == 2, "held mail waits on")
    assert {(m["state"], m["queue"]) for m in router.queued()} == {("held", new.address)}
    router.ok("queue", "release", "--all")
    new.wait_ids({"m2"})
    assert new.ids() == {"m0": 1, "m1": 1, "m2": 1}


def test_H7_reroute_of_waiting_mail(tern, sink):
    """Mail that waits for ETRN goes at once, when the policy now says so."""
    host = sink()
    router = tern(f"""
  policies = {{ {{ name = "switch",
    rcpt = function(ctx) return tern.accept() end,
    mail = function(ctx)
      if ctx.message.sender == "switch@sender.test" then tern.kv("where"):set("host", "x") end
    end,
    route = function(ctx)
      if tern.kv("where"):get("host") then return route.hosts {{ "{host.address}" }} end
      return route.hold {{ queue = "rcpt.test" }}
    end }} }},
{SLOW}""")
    send(router, "u@rcpt.test", test_id="one")
    assert [m["state"] for m in router.queued()] == ["waiting"]
    assert len(router.json("queue", "list", "--state", "waiting")["messages"]) == 1
    switch(router)
    assert router.json("queue", "reroute", "--state", "waiting")["changed"] == 1
    host.wait_ids({"one"})


def test_hold_all_is_explicit(mixed):
    assert mixed.json("queue", "hold", "--all")["changed"] == 6
    assert mixed.json("queue", "list", "--state", "scheduled")["messages"] == []


def test_ids_and_conditions_together(mixed):
    ids = {m["sender"]: m["id"] for m in mixed.queued()}
    op = mixed.json("queue", "hold", ids["bob@other.test"], ids["bob@sender.test"], "--sender",
                    "@other.test")
    assert op["changed"] == 1 and op["ids"] == 2
    assert listed(mixed, "--state", "held") == {"b2"}
    assert mixed.cli("queue", "reroute", "0" * 26).returncode == 66


# ---- edit ----

def test_the_same_id_twice(tern, sink):
    """As `queue list` gives it, once for each recipient: the message is meant, once."""
    host = sink(up=False)
    router = tern(to_hosts(host) + SLOW)
    fill(router, 3, recipients=4)
    until(lambda: len(router.queued()) == 12, "all is queued")
    until(lambda: not router.queues()[0]["active"], "the host is down")
    ids = [m["id"] for m in router.queued()]
    for verb in ("hold", "release", "reroute"):
        op = router.json("queue", verb, *ids, "--queue", host.address)
        assert (op["ids"], op["matched"], op["changed"]) == (3, 12, 12), op
    router.ok("queue", "remove", *ids)  # each by itself
    assert router.queued() == []


def test_many_have_ended(mixed):
    """Only so many are remembered: those that ended last."""
    ids = []
    for _ in range(40):
        router_op = mixed.json("queue", "hold", "--all", "--dry-run")
        ids.append(router_op["id"])
    kept = [o["id"] for o in mixed.json("queue", "operations")["operations"]]
    assert kept == ids[::-1][:32]


def test_the_oldest_may_end_last(on_disk, sink):
    """Those that ended first are forgotten, not the one that was begun first and has just ended."""
    host = sink(up=False)
    router = on_disk(to_hosts(host) + SLOW).start()
    fill(router, 1)
    until(lambda: router.queued() and not router.queues()[0]["active"], "it is queued")
    with router.disk.doing("sync hold"):
        child = Child([tern_binary(), "queue", "hold", "--all", "-c", router.config], cwd=router.folder)
        until(lambda: router.json("queue", "operations")["operations"], "it waits for the disk")
        for _ in range(33):
            router.ok("queue", "release", "--all", "--dry-run")
        operations = router.json("queue", "operations")["operations"]
        assert operations[-1]["state"] == "running", operations[-1]
    assert child.wait(20) == 0
    oldest = router.json("queue", "operations")["operations"][-1]
    assert (oldest["id"], oldest["state"]) == (operations[-1]["id"], "done")


def test_edit_the_recipient(tern, sink):
    """Sent to another address, of another domain; its sender's ORCPT stays, else it is the old address."""
    wrong, right, home = sink(up=False), sink(), sink()
    router = tern(domains(wrong_test=wrong, right_test=right, sender_test=home))
    send(router, ["typo@wrong.test", "other@wrong.test"], test_id="one")
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(250, "RCPT TO:<typo@wrong.test> ORCPT=rfc822;first@old.test NOTIFY=FAILURE")
        assert raw.data(message("two")).code == 250
    until(lambda: len(router.queued()) == 3, "queued")
    until(lambda: all(not q["active"] for q in router.queues()), "its host is down")
    right.replies["RCPT"] = "550 5.1.1 no such user"
    op = router.json("queue", "edit", "--recipient", "typo@wrong.test", "--to", "name@right.test")
    assert (op["matched"], op["changed"]) == (2, 2), op
    dsns = home.wait(2)
    originals = sorted(d.message.get_payload()[1].get_payload()[1]["Original-Recipient"] for d in dsns)
    assert originals == ["rfc822; first@old.test", "rfc822; typo@wrong.test"], originals
    assert all(b"name@right.test" in d.content for d in dsns)
    until(lambda: len(router.queued()) == 1, "the other one waits on")
    right.replies.clear()
    op = router.json("queue", "edit", router.queued()[0]["id"], "--to", "name@right.test")
    assert op["changed"] == 1
    assert right.wait()[0].recipients == ["name@right.test"] and right.mails[0].id == "one"
    until(lambda: not router.queued(), "all has gone")


def test_edit_of_held_mail_keeps_it_held(tern, sink):
    wrong, right = sink(up=False), sink()
    router = tern(domains(wrong_test=wrong, right_test=right))
    send(router, "typo@wrong.test", test_id="one")
    router.wait_for("queue_backoff")
    router.ok("queue", "hold", "--all")
    assert router.json("queue", "edit", "--all", "--to", "name@right.test")["changed"] == 1
    (entry,) = router.queued()
    assert (entry["state"], entry["recipient"], entry["queue"]) == (
        "held", "name@right.test", right.address)
    assert router.json("queue", "edit", "--all", "--to", "name@right.test")["unchanged"] == 1
    assert right.mails == []
    router.ok("queue", "release", "--all")
    assert right.wait()[0].recipients == ["name@right.test"]


# ---- operations ----

def fill(router, n, recipients=1, domain="rcpt.test", sender="bulk@sender.test"):
    """n messages over one connection; their test ids."""
    with Raw(router) as raw:
        raw.hello()
        for i in range(n):
            to = [f"u{k}@{domain}" for k in range(recipients)]
            assert raw.mail(*to, sender=sender, content=message(f"{domain}-{i}")).code == 250
    return {f"{domain}-{i}" for i in range(n)}


def test_an_operation_while_mail_is_delivered(tern, sink):
    """Nothing twice, nothing lost: what was held is what is left, what went went once."""
    host = sink()
    router = tern(to_hosts(host) + FAST)
    wanted = set()
    done = []

    def operate():
        for _ in range(4):
            done.append(router.json("queue", "hold", "--all"))
            done.append(router.json("queue", "release", "--all"))
            done.append(router.json("queue", "reroute", "--all"))
            done.append(router.json("queue", "retry", "--all"))

    thread = threading.Thread(target=operate)
    thread.start()
    for part in range(4):
        with Raw(router) as raw:
            raw.hello()
            for i in range(100):
                wanted.add(f"p{part}-{i}")
                assert raw.mail("b@rcpt.test", content=message(f"p{part}-{i}")).code == 250
    thread.join()
    assert all(op["state"] == "done" for op in done)
    router.ok("queue", "release", "--all")
    ids = host.wait_ids(wanted)
    until(lambda: not router.queued(), "the queue is empty")
    assert set(ids) == wanted and max(host.ids().values()) == 1


def test_kill_in_the_middle_of_an_operation(tern, sink):
    """kill -9 while thousands are being held: the spool is consistent, each message is there once."""
    host = sink(up=False)
    router = tern(to_hosts(host) + SLOW)
    ids = fill(router, 1500)
    until(lambda: router.queues()[0]["scheduled"] == 1500, "all is queued")
    child = Child([tern_binary(), "queue", "hold", "--all", "-c", router.config], cwd=router.folder)
    until(lambda: router.queues()[0]["held"] > 0, "some are held", interval=0.001)
    router.kill9()
    child.wait(20)
    router.start()
    (queue,) = router.queues()
    assert queue["scheduled"] + queue["held"] == 1500 and queue["held"] > 0
    assert router.json("queue", "operations")["operations"] == []
    assert router.json("spool", "check")["ok"]
    host.up()
    router.ok("queue", "release", "--all")
    router.ok("queue", "retry", "--all")
    host.wait_ids(ids)
    until(lambda: not router.queued(), "the queue is empty")
    assert max(host.ids().values()) == 1


def test_interrupted_on_the_command_line(tern, sink):
    """Ctrl-C cancels the operation; what it has done stands, and is told."""
    host = sink(up=False)
    router = tern(to_hosts(host) + SLOW)
    fill(router, 1000, recipients=3)
    until(lambda: router.queues()[0]["scheduled"] == 3000, "all is queued")
    child = subprocess.Popen([tern_binary(), "queue", "hold", "--all", "-c", router.config],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: router.json("queue", "operations")["operations"], "it runs", interval=0.001)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    (op,) = router.json("queue", "operations")["operations"]
    if op["state"] == "cancelled":
        assert child.returncode == 130 and "cancelled" in err
    assert op["state"] in ("cancelled", "done")
    assert router.queues()[0]["held"] == op["changed"], op
    assert f"{op['changed']} recipient" in out


def test_only_so_many_at_once(tern, sink):
    host = sink(up=False)
    router = tern(to_hosts(host) + SLOW)
    fill(router, 600, recipients=3)
    until(lambda: router.queues()[0]["scheduled"] == 1800, "all is queued")
    children = [subprocess.Popen([tern_binary(), "queue", verb, "--all", "-c", router.config],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                for verb in ("hold", "release") * 4]
    results = [(c.communicate(timeout=60), c.returncode) for c in children]
    for (out, err), code in results:
        assert code == 0 or (code == 75 and "4 operations are running" in err), (out, err)
    assert sum(code == 0 for _, code in results) >= 4
    queue = router.queues()[0]
    assert queue["scheduled"] + queue["held"] == 1800
    text = router.ok("queue", "operations")
    assert "hold" in text and "done" in text
    op = router.json("queue", "operations")["operations"][0]
    assert "done: " in router.ok("queue", "cancel", op["id"]) or "done" in router.ok(
        "queue", "cancel", op["id"])
    assert run([tern_binary(), "queue", "cancel", "x", "-c", router.config]).returncode == 66
