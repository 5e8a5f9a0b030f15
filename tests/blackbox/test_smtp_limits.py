"""LIMITS (RFC 9422), told to clients and kept to with hosts."""
import smtplib

import pytest

from clients import Raw, message, send
from daemon import to_hosts
from strict_host import StrictHost
from waiting import until


@pytest.fixture
def strict(closing):
    def make(*limits):
        return closing(StrictHost(in_clear=limits))
    return make


# ---- as a server ----

def limits_of(reply):
    return [line for line in reply.text.split("\n") if line.startswith("LIMITS")]


def test_what_is_told_is_what_holds(tern, sink):
    router = tern(to_hosts(sink()) + "  limits = { recipients = 120, messages = 2 },\n")
    with Raw(router) as raw:
        assert limits_of(raw.hello()) == ["LIMITS RCPTMAX=120 MAILMAX=2"]
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.send("".join(f"RCPT TO:<u{n}@rcpt.test>\r\n" for n in range(121)))
        replies = raw.replies(121)
        assert [r.code for r in replies] == [250] * 120 + [452]
        assert raw.data(message()).code == 250
        assert raw.mail("u@rcpt.test").code == 250
        assert raw.cmd("MAIL FROM:<a@sender.test>").code == 421


def test_by_default(tern, sink):
    router = tern(to_hosts(sink()))
    with smtplib.SMTP(router.ip, router.port, timeout=20) as smtp:
        smtp.ehlo()
        assert smtp.esmtp_features["limits"] == "RCPTMAX=1000"


# ---- as a client ----

def test_recipients_of_a_transaction(tern, strict):
    host = strict("LIMITS RCPTMAX=3 FOO=1 BAR")
    router = tern(to_hosts(host))
    send(router, [f"u{n}@rcpt.test" for n in range(10)])
    until(lambda: sum(len(m.recipients) for m in host.mails) == 10, "all came")
    assert sorted(r for m in host.mails for r in m.recipients) == sorted(f"u{n}@rcpt.test" for n in range(10))
    assert [len(m.recipients) for m in host.mails] == [3, 3, 3, 1] and host.broken == []
    until(lambda: router.queued() == [], "nothing is left")


def test_messages_of_a_session(tern, strict):
    host = strict("LIMITS MAILMAX=2")
    router = tern(to_hosts(host))
    for n in range(6):
        send(router, "u@rcpt.test", test_id=f"m{n}")
    until(lambda: len(host.mails) == 6, "all came")
    assert host.broken == []
    for session in {m.session for m in host.mails}:
        assert sum(m.session == session for m in host.mails) <= 2
    until(lambda: sum(line == "QUIT" for _, _, line in host.commands) >= 3, "each was ended in order")


def test_domains_of_a_session(tern, strict):
    host = strict("LIMITS RCPTDOMAINMAX=1")
    router = tern(f"""  relay_from = {{ "127.0.0.0/8" }},
  default_route = route.hosts {{ "{host.address}" }},
""")
    send(router, ["a@one.test", "b@two.test", "c@one.test", "d@three.test"])
    until(lambda: sum(len(m.recipients) for m in host.mails) == 4, "all came")
    assert host.broken == []
    assert sorted(sorted(m.recipients) for m in host.mails) == [
        ["a@one.test", "c@one.test"], ["b@two.test"], ["d@three.test"]]


def test_absurd_limits(tern, strict):
    host = strict("LIMITS RCPTMAX=0 MAILMAX=99999999999999999999 RCPTDOMAINMAX=-1 " + "X=1 " * 40)
    router = tern(to_hosts(host))
    send(router, [f"u{n}@rcpt.test" for n in range(5)])
    until(lambda: host.mails, "it came")
    assert len(host.mails[0].recipients) == 5
