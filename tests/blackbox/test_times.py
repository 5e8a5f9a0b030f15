"""When mail is to go: DELIVERBY (RFC 2852), FUTURERELEASE (RFC 4865), MT-PRIORITY (RFC 6710), through the real
binary, with smtplib as the client and hosts in Python."""
import datetime
import json
import smtplib
import time

import pytest

from clients import message
from daemon import to_hosts
from waiting import never, until


class Host:
    """Takes mail by DATA; its EHLO has these lines. `refuse`: RCPT is answered 450."""

    def __init__(self, *keywords):
        self.keywords = keywords
        self.mails = []  # (parameters of MAIL, content, when)
        self.refuse = False
        self.asked = 0

    def talk(self, stream):
        stream.write(b"220 host.test ESMTP\r\n")
        data = b""
        params = content = None
        while True:
            while b"\r\n" not in data:
                more = stream.read(65536)
                if not more:
                    return
                data += more
            line, data = data.split(b"\r\n", 1)
            if content is not None:
                if line == b".":
                    self.mails.append((params, b"\r\n".join(content).decode(), time.time()))
                    content = None
                    stream.write(b"250 2.0.0 taken\r\n")
                else:
                    content.append(line)
                continue
            verb = line[:4].upper()
            if verb == b"EHLO":
                lines = ["host.test", *self.keywords]
                stream.write("".join(f"250{' ' if n == len(lines) - 1 else '-'}{l}\r\n"
                                     for n, l in enumerate(lines)).encode())
                continue
            if verb == b"MAIL":
                params = line.split(b">", 1)[1].decode().split()
            if verb == b"RCPT":
                self.asked += 1
                if self.refuse:
                    stream.write(b"450 4.2.0 not now\r\n")
                    continue
            if verb == b"DATA":
                content = []
                stream.write(b"354 go on\r\n")
                continue
            stream.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 2.0.0 ok\r\n")
            if verb == b"QUIT":
                return


@pytest.fixture
def host(scripted_host):
    """host(keyword, ...): a host with these extensions."""
    def make(*keywords):
        h = Host(*keywords)
        h.address = scripted_host(h.talk).address
        return h
    return make


RELAY = '  relay_from = { "127.0.0.0/8" },\n'
QUICK = '  queue = { retry = "2s...", host_retry = "1s", host_retry_max = "2s" },\n'


def listen(router, options):
    return f'  listen = {{ {{ "{router.address}", {options} }} }},\n'


def begin(new_tern, fields, options='future_release = "1h"'):
    router = new_tern()
    router.configure(listen(router, options) + fields)
    return router.start()


def send(router, *params, to="u@rcpt.test", test_id="x"):
    """By smtplib; the reply to MAIL, and to the end of the message (None: MAIL was refused)."""
    with smtplib.SMTP(router.ip, router.port, timeout=15) as smtp:
        smtp.ehlo("client.test")
        mail = smtp.mail("a@sender.test", options=params)
        if mail[0] != 250:
            return mail, None
        assert smtp.rcpt(to)[0] == 250
        return mail, smtp.data(message(test_id, to=to))


def entry(router):
    entries = router.queued()
    assert len(entries) == 1, entries
    return entries[0]


# ---- what is offered ----

def test_ehlo(new_tern, host):
    router = begin(new_tern, to_hosts(host()), 'deliver_by_min = "2m", future_release = "1h", priority = "NSEP"')
    with smtplib.SMTP(router.ip, router.port, timeout=15) as smtp:
        smtp.ehlo("client.test")
        assert smtp.esmtp_features["deliverby"] == "120"
        assert smtp.esmtp_features["mt-priority"] == "NSEP"
        interval, until_ = smtp.esmtp_features["futurerelease"].split()
        assert interval == "3600"
        at = datetime.datetime.strptime(until_, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
        assert abs(at.timestamp() - time.time() - 3600) < 30


def test_not_from_strangers(new_tern, host):
    h = host("MT-PRIORITY")
    router = begin(new_tern, to_hosts(h))
    assert send(router, "HOLDFOR=60")[0][0] == 530
    mail, done = send(router, "MT-PRIORITY=7")
    assert (mail, done[0]) == ((250, b"2.3.6 0 is the new priority of this message"), 250)
    until(lambda: h.mails, "it arrives")
    assert h.mails[0][0] == ["MT-PRIORITY=0"]


# ---- FUTURERELEASE ----

def test_held_over_a_restart_until_its_time(new_tern, host):
    h = host()
    router = begin(new_tern, RELAY + to_hosts(h))
    before = time.time()
    assert send(router, "HOLDFOR=6")[1][0] == 250
    held = entry(router)
    assert held["state"] == "scheduled" and held["attempts"] == 0
    why = router.json("why", held["id"])
    assert why["recipients"][0]["waits"]["cause"] == "future_release"
    assert why["hold_for"] == 6
    text = router.ok("why", held["id"])
    assert "its sender wants it to be held until then (FUTURERELEASE)" in text
    assert f"tern queue release {held['id']}" in text
    assert " in " in router.ok("queue", "list")
    router.restart()
    assert h.asked == 0
    until(lambda: h.mails, "it arrives")
    assert 5.5 < h.mails[0][2] - before < 12
    until(lambda: not router.queued(), "the queue is empty")


@pytest.mark.parametrize("verb", ["release", "retry"])
def test_an_operator_lets_it_go_by_name(new_tern, host, verb):
    h = host()
    router = begin(new_tern, RELAY + to_hosts(h))
    assert send(router, "HOLDFOR=3000")[1][0] == 250
    id_ = entry(router)["id"]
    for rest in (["--queue", entry(router)["queue"]], ["--destination", "rcpt.test"], ["--all"]):
        router.cli("queue", verb, *rest)
    never(lambda: h.asked, "a filter does not mean what its sender holds", 1)
    router.ok("queue", verb, id_)
    until(lambda: h.mails, "it arrives")


def test_hold_until_and_what_is_refused(new_tern, host):
    h = host()
    router = begin(new_tern, RELAY + to_hosts(h))
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
    there = soon.astimezone(datetime.timezone(datetime.timedelta(hours=-3.5)))
    assert send(router, f"HOLDUNTIL={there.isoformat(timespec='milliseconds')}")[1][0] == 250
    for params, code in ((["HOLDFOR=5", "HOLDUNTIL=2099-01-01T00:00:00Z"], 501), (["HOLDFOR=3601"], 501),
                         (["HOLDUNTIL=2099-01-01T00:00:00Z"], 501), (["HOLDUNTIL=2001-01-01T00:00:00Z"], 501),
                         (["HOLDFOR=0"], 501), (["HOLDFOR=60", "BY=30;R"], 501)):
        assert send(router, *params)[0][0] == code, params
    until(lambda: h.mails, "it arrives")
    assert 0 <= h.mails[0][2] - soon.timestamp() < 5


# ---- DELIVERBY ----

def test_the_time_that_is_left_is_passed_on(new_tern, host):
    h = host("DELIVERBY", "DSN")
    h.refuse = True
    router = begin(new_tern, to_hosts(h) + QUICK)
    before = time.time()
    assert send(router, "BY=600;R")[1][0] == 250
    until(lambda: h.asked >= 2, "it is tried again")
    h.refuse = False
    until(lambda: h.mails, "it arrives")
    params, _, when = h.mails[0]
    by = next(p for p in params if p.startswith("BY="))
    assert by.endswith(";R")
    assert abs(int(by[3:-2]) - (600 - (when - before))) < 2.5


def test_returned_in_time(new_tern, host):
    """To a sender whose mail goes to the same host."""
    h = host("DELIVERBY 1")
    h.refuse = True
    router = begin(new_tern, to_hosts(h) + '  queue = { retry = "1h...", host_retry = "1h", host_retry_max = "1h" },\n')
    before = time.time()
    assert send(router, "BY=4;R")[1][0] == 250
    router.wait_for("deferred")
    h.refuse = False
    until(lambda: h.mails, "the notification arrives")
    _, content, when = h.mails[0]
    assert 3.5 < when - before < 9
    assert "Status: 5.4.7" in content and "Action: failed" in content and "Deliver-By-Date:" in content
    until(lambda: not router.queued(), "the queue is empty")
    assert len(h.mails) == 1


def test_a_host_that_does_not_mind_the_time(new_tern, host):
    h = host()
    router = begin(new_tern, to_hosts(h))
    assert send(router, "BY=600;R")[1][0] == 250
    assert send(router, "BY=600;N", test_id="n")[1][0] == 250
    until(lambda: len(h.mails) == 3, "one message, and what is told of both")
    contents = [content for _, content, _ in h.mails]
    assert sum("Action: failed" in c and "Status: 5.4.7" in c for c in contents) == 1
    assert sum("Action: relayed" in c for c in contents) == 1
    assert not any(p.startswith("BY=") for params, _, _ in h.mails for p in params)


# ---- MT-PRIORITY ----

def test_urgent_mail_first(new_tern, host):
    h = host("MT-PRIORITY")
    router = begin(new_tern, RELAY + to_hosts(h, options='concurrency = 1, queue = "one"'))
    router.ok("queue", "hold", "--queue", "one")
    for n in range(5):
        assert send(router, test_id=f"usual{n}")[1][0] == 250
    assert send(router, "MT-PRIORITY=6", test_id="urgent")[1][0] == 250
    router.ok("queue", "release", "--queue", "one")
    until(lambda: len(h.mails) == 6, "all arrive")
    assert "X-Test-Id: urgent" in h.mails[0][1] and "MT-PRIORITY=6" in h.mails[0][0]


# ---- in files ----

def test_export_and_import(new_tern, host, folder):
    h = host("DELIVERBY", "MT-PRIORITY")
    router = begin(new_tern, RELAY + to_hosts(h))
    assert send(router, "HOLDFOR=3000", "BY=3500;RT", "MT-PRIORITY=-4")[1][0] == 250
    out = folder / "out"
    router.ok("queue", "export", out)
    first = json.loads(next(out.glob("*.json")).read_text())
    assert (first["hold_for"], first["priority"]) == (3000, -4)
    assert (first["deliver_by"]["mode"], first["deliver_by"]["trace"]) == ("return", True)
    router.ok("queue", "remove", "--all")
    router.ok("queue", "import", out)
    never(lambda: h.asked, "it is still held", 1)
    back = router.json("why", entry(router)["id"])
    assert [back[k] for k in ("hold_for", "hold_until", "deliver_by", "priority")] == [
        first[k] for k in ("hold_for", "hold_until", "deliver_by", "priority")]
    router.ok("queue", "release", back["id"])
    until(lambda: h.mails, "it arrives")
    assert {"MT-PRIORITY=-4"} < set(h.mails[0][0])
