"""The queue: retries, what operators do to it, notifications, lifetimes, restarts."""

import pytest

from clients import Raw, message, send
from daemon import to_hosts
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
SLOW = '  queue = { retry = "1h...", host_retry = "1h", host_retry_max = "1h" },\n'


@pytest.fixture
def home(sink):
    """The host of sender.test, where notifications arrive."""
    return sink()


def with_home(host, home, more=FAST):
    return f"""
  domains = {{ ["rcpt.test"] = route.hosts {{ "{host.address}" }},
              ["sender.test"] = route.hosts {{ "{home.address}" }} }},
{more}"""


# ---- retries ----

@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_a_temporary_refusal_is_tried_again(tern, sink, verb):
    host = sink()
    host.replies[verb] = "450 4.2.1 not now"
    router = tern(to_hosts(host) + FAST)
    send(router, test_id="one")
    for attempt in (1, 2):
        deferred = router.wait_for("deferred", count=attempt)
        assert deferred["code"] == 450 and "not now" in deferred["reply"]
        assert deferred["attempt"] == attempt
    assert host.mails == []
    host.replies.clear()
    host.wait_ids({"one"})
    router.wait_for("delivered", recipient="b@rcpt.test")
    assert len(host.mails) == 1


def test_each_recipient_has_its_own_result(tern, sink, home):
    host = sink()
    host.replies["RCPT"] = lambda a: {"later@rcpt.test": "450 4.2.1 not now",
                                      "never@rcpt.test": "550 5.1.1 no such user"}.get(a)
    router = tern(with_home(host, home))
    send(router, ["now@rcpt.test", "later@rcpt.test", "never@rcpt.test"], test_id="one")
    assert host.wait()[0].recipients == ["now@rcpt.test"]
    assert b"never@rcpt.test" in home.wait()[0].content
    host.replies.clear()
    assert host.wait(2)[1].recipients == ["later@rcpt.test"]


def test_Q4_lost_after_the_final_dot(tern, scripted_host):
    """Q4: no reply to the dot: tried again, a duplicate rather than a loss."""
    def talk(stream):
        stream.write(b"220 raw.test ESMTP\r\n")
        reader = iter(stream.readline, b"")
        for line in reader:
            verb = line[:4].upper()
            if verb == b"DATA":
                stream.write(b"354 go on\r\n")
                for text in reader:
                    if text == b".\r\n":
                        return
            stream.write(b"250 raw.test\r\n")
    host = scripted_host(talk)
    router = tern(to_hosts(host) + FAST)
    send(router, test_id="one")
    assert router.wait_for("deferred", count=2)["attempt"] == 2
    assert router.log.all("bounced") == []


# ---- notifications ----

def test_a_permanent_failure_is_reported_to_the_sender(tern, sink, home):
    host = sink()
    host.replies["RCPT"] = "550 5.1.1 no such user here"
    router = tern(with_home(host, home))
    send(router, "nobody@rcpt.test", test_id="one", subject="the original")
    dsn = home.wait()[0]
    assert dsn.sender == "" and dsn.recipients == ["a@sender.test"]
    report = dsn.message
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    assert report["Auto-Submitted"] == "auto-replied"
    assert "a@sender.test" in report["To"]
    text, status, original = report.get_payload()
    assert "nobody@rcpt.test" in text.get_payload() and "no such user here" in text.get_payload()
    assert status.get_content_type() == "message/delivery-status"
    fields = status.get_payload()[1]
    assert fields["Action"] == "failed" and fields["Status"] == "5.1.1"
    assert fields["Final-Recipient"].lower() == "rfc822; nobody@rcpt.test"
    assert "550" in fields["Diagnostic-Code"] and "no such user here" in fields["Diagnostic-Code"]
    assert "the original" in original.as_string()


def test_no_notification_for_the_null_sender(tern, sink, home):
    host = sink()
    host.replies["RCPT"] = "550 5.1.1 no such user"
    router = tern(with_home(host, home))
    send(router, "nobody@rcpt.test", sender="", test_id="one")
    router.wait_for("bounced", recipient="nobody@rcpt.test")
    until(lambda: not router.queued(), "the queue is empty")
    send(router, "ok@sender.test", test_id="after")
    home.wait_ids({"after"})
    assert len(home.mails) == 1


def test_a_notification_that_cannot_be_delivered_makes_no_other(tern, sink, home):
    host = sink()
    host.replies["RCPT"] = home.replies["RCPT"] = "550 5.1.1 no"
    router = tern(with_home(host, home))
    send(router, "nobody@rcpt.test", test_id="one")
    router.wait_for("bounced", recipient="nobody@rcpt.test")
    router.wait_for("bounced", recipient="a@sender.test", sender="")
    until(lambda: not router.queued(), "the queue is empty")
    assert len(router.log.all("bounced")) == 2


def test_expired_mail_is_returned(tern, sink, home):
    """queue.lifetime: its host is down all the time."""
    host = sink(up=False)
    router = tern(with_home(host, home, """
  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s", lifetime = "3s" },
"""))
    send(router, "u@rcpt.test", test_id="one")
    dsn = home.wait()[0]
    assert dsn.sender == "" and b"u@rcpt.test" in dsn.content
    status = dsn.message.get_payload()[1].get_payload()[1]
    assert status["Action"] == "failed" and status["Status"] == "5.4.7", status.as_string()
    bounced = router.wait_for("bounced")
    assert bounced["queued_ms"] >= 3000


# ---- what operators see and do ----

@pytest.fixture
def stuck(tern, sink):
    """A router with three messages for a host that is down."""
    host = sink(up=False)
    router = tern(to_hosts(host) + SLOW)
    router.host = host
    for n in range(3):
        send(router, f"r{n}@rcpt.test", test_id=f"m{n}")
    router.wait_for("queue_backoff")
    return router


def test_Q8_list_and_show(stuck):
    queues = stuck.queues()
    assert [(q["name"], q["scheduled"], q["waiting"], q["held"]) for q in queues] == [
        (stuck.host.address, 3, 0, 0)]
    assert queues[0]["failures"] == 1 and queues[0]["last_error"] == "connection refused"
    assert sorted(m["recipient"] for m in stuck.queued()) == [f"r{n}@rcpt.test" for n in range(3)]
    assert stuck.host.address in stuck.ok("queue")
    assert "r1@rcpt.test" in stuck.ok("queue", "list")
    assert [m["recipient"] for m in stuck.json("queue", "list", "-n", "1")["messages"]] == [
        "r0@rcpt.test"]
    accepted = stuck.wait_for("message_accepted", count=3)
    shown = stuck.json("queue", "show", accepted["id"])
    assert shown["sender"] == "a@sender.test" and shown["id"] == accepted["id"], shown
    assert [r["address"] for r in shown["recipients"]] == ["r2@rcpt.test"]
    assert "r2@rcpt.test" in stuck.ok("queue", "show", accepted["id"])


def test_retry(stuck):
    """Now, whatever the back-off says."""
    stuck.host.up()
    stuck.ok("queue", "retry", "--queue", stuck.host.address)
    stuck.host.wait_ids({"m0", "m1", "m2"})


def test_Q8_hold_and_release(stuck):
    stuck.ok("queue", "hold", "--queue", stuck.host.address)
    stuck.host.up()
    send(stuck, test_id="later")
    stuck.ok("queue", "retry", "--queue", stuck.host.address)
    assert stuck.host.greeted == [], "held mail went out"
    stuck.ok("queue", "release", "--queue", stuck.host.address)
    stuck.host.wait_ids({"m0", "m1", "m2", "later"})


def test_remove(stuck):
    accepted = stuck.wait_for("message_accepted")["id"]
    stuck.ok("queue", "remove", accepted)
    stuck.host.up()
    stuck.ok("queue", "retry", "--queue", stuck.host.address)
    stuck.host.wait_ids({"m1", "m2"})
    until(lambda: not stuck.queued(), "the queue is empty")
    assert "m0" not in stuck.host.ids()
    assert stuck.cli("queue", "show", accepted).returncode == 66


def test_hold_and_release_of_one_message(stuck):
    held = stuck.wait_for("message_accepted")["id"]
    stuck.ok("queue", "hold", held)
    states = {m["recipient"]: m["state"] for m in stuck.queued()}
    assert states == {"r0@rcpt.test": "held", "r1@rcpt.test": "scheduled", "r2@rcpt.test": "scheduled"}
    stuck.host.up()
    stuck.ok("queue", "retry", "--queue", stuck.host.address)
    stuck.host.wait_ids({"m1", "m2"})
    until(lambda: len(stuck.queued()) == 1, "the others have gone")
    stuck.restart()
    assert [m["id"] for m in stuck.queued()] == [held] and len(stuck.host.mails) == 2
    stuck.ok("queue", "release", held)
    stuck.host.wait_ids({"m0"})


def test_retry_of_one_message(tern, sink):
    """One that was deferred by itself goes, the others keep their time."""
    host = sink()
    host.replies["RCPT"] = "450 4.2.1 not now"
    router = tern(to_hosts(host) + SLOW)
    send(router, "r0@rcpt.test", test_id="m0")
    send(router, "r1@rcpt.test", test_id="m1")
    router.wait_for("deferred", count=2)
    host.replies.clear()
    wanted = next(m for m in router.queued() if m["recipient"] == "r1@rcpt.test")
    assert wanted["attempts"] == 1 and "not now" in wanted["last_reply"]
    router.ok("queue", "retry", wanted["id"])
    host.wait_ids({"m1"})
    until(lambda: len(router.queued()) == 1, "it has left the queue")
    assert set(host.ids()) == {"m1"}


def test_bounce(tern, sink, home):
    host = sink(up=False)
    router = tern(with_home(host, home, SLOW))
    send(router, "u@rcpt.test", test_id="one")
    router.wait_for("queue_backoff")
    router.ok("queue", "bounce", router.wait_for("message_accepted")["id"])
    dsn = home.wait()[0]
    assert dsn.sender == "" and b"u@rcpt.test" in dsn.content


def test_what_is_not_there(stuck):
    for verb in ("show", "remove", "retry", "hold"):
        for what, code in ((["0" * 26], 66), (["x"], 65)):
            done = stuck.cli("queue", verb, *what)
            assert done.returncode == code, (verb, done.returncode, done.stderr)
            assert done.stderr.startswith("tern: ") and what[0] in done.stderr, done.stderr
    done = stuck.cli("queue", "retry", "--queue", "nosuch")
    assert done.returncode == 66 and "nosuch" in done.stderr
    assert stuck.cli("queue", "explode").returncode == 64


def test_the_id_in_the_reply_is_the_one_in_the_log(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    with Raw(router) as raw:
        raw.hello()
        reply = raw.mail("b@rcpt.test", content=message("one"))
    accepted = router.wait_for("message_accepted")
    assert accepted["id"] in reply.text, reply
    delivered = router.wait_for("delivered")
    assert delivered["id"] == accepted["id"]
    assert accepted["id"] in host.wait()[0].message["Received"]


def test_Q8_a_restart_keeps_states(stuck):
    """Held stays held, waiting stays waiting, nothing is lost."""
    stuck.ok("queue", "hold", "--queue", stuck.host.address)
    before = stuck.queued()
    stuck.restart()
    assert stuck.queued() == before and len(before) == 3
    assert [q["on_hold"] for q in stuck.queues()] == [True]
    stuck.host.up()
    stuck.ok("queue", "retry", "--queue", stuck.host.address)
    assert stuck.host.greeted == []
    stuck.ok("queue", "release", "--queue", stuck.host.address)
    stuck.host.wait_ids({"m0", "m1", "m2"})
    assert max(stuck.host.ids().values()) == 1


def test_one_dead_destination_delays_nobody(tern, sink):
    """B13: a backlog for a host that is silent, and mail for another one goes at once."""
    dead, host = sink(up=False), sink()
    router = tern(f"""
  workers = 1,
  domains = {{ ["dead.test"] = route.hosts {{ "{dead.address}" }},
              ["rcpt.test"] = route.hosts {{ "{host.address}" }} }},
{FAST}""")
    for n in range(50):
        send(router, "u@dead.test", test_id=f"d{n}")
    send(router, test_id="one")
    host.wait_ids({"one"}, timeout=5)


def test_Q6_connections_are_reused(tern, sink):
    """Q6: messages follow each other over one connection."""
    host = sink()
    router = tern(to_hosts(host, options="concurrency = 1"))
    for n in range(10):
        send(router, test_id=f"m{n}")
    host.wait_ids({f"m{n}" for n in range(10)})
    assert len(host.greeted) < 10, "a connection for each message"


def test_Q11_eight_bit_mail_is_not_sent_raw(tern, scripted_host, sink):
    """Q11: the next host lacks 8BITMIME: converted, never raw."""
    home = sink()
    wire = []

    def talk(stream):
        stream.write(b"220 old.test ESMTP\r\n")
        reader = iter(stream.readline, b"")
        for line in reader:
            verb = line[:4].upper()
            if verb == b"DATA":
                stream.write(b"354 go on\r\n")
                body = b"".join(iter(stream.readline, b".\r\n"))
                wire.append(body)
            elif verb == b"QUIT":
                stream.write(b"221 bye\r\n")
                return
            stream.write(b"250 old.test\r\n")
    host = scripted_host(talk)
    router = tern(with_home(host, home))
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test> BODY=8BITMIME")
        raw.expect(250, "RCPT TO:<b@rcpt.test>")
        assert raw.data(message("eight", body="grüße")).code == 250
    until(lambda: wire or home.mails, "it is converted or returned")
    assert all(max(body) < 128 for body in wire) and b"gr=C3=BC=C3=9Fe" in wire[0]
    assert not home.mails
