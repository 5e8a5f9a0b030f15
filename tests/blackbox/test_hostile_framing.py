"""docs/hostile-input.md, 1 and 2: where a message ends and where a command does, and what a next hop
makes of it."""
import re
import ssl

import pytest

from clients import Raw, message
from daemon import to_hosts
from hostile import FALSE_ENDS, shared_data
from waiting import until

SMUGGLED = "MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@rcpt.test>\r\nDATA\r\n" + message("evil")


def false_ends():
    """(name, octets) of each in the reference data."""
    lines = shared_data("smuggling", "eod-sequences.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    assert len(rows) >= 10
    return [(row[0], bytes.fromhex(row[1])) for row in rows]


def by_data(raw, name, end):
    """First half, false end, a smuggled message, a true end: the replies."""
    raw.hello()
    raw.envelope("a@sender.test", "b@rcpt.test")
    raw.expect(354, "DATA")
    raw.send(message(f"first-{name}").encode().rstrip(b"\r\n") + end + SMUGGLED.encode() + b".\r\n")
    return raw.until_closed()


def by_bdat(raw, name, end):
    """The same in one chunk."""
    raw.envelope("a@sender.test", "b@rcpt.test")
    chunk = message(f"first-{name}").encode().rstrip(b"\r\n") + end + SMUGGLED.encode() + b".\r\n"
    raw.send(b"BDAT %d LAST\r\n" % len(chunk) + chunk)
    return [raw.reply()]


@pytest.fixture(params=["clear", "tls"])
def connect(request, certificates):
    """connect(router): a session, and in TLS in one of the two cases."""
    def make(router):
        raw = Raw(router)
        if request.param == "tls":
            raw.hello()
            raw.start_tls(ssl.create_default_context(cafile=certificates.ca))
        return raw
    return make


def smuggle(router, connect):
    """Each sequence of the reference data, by DATA and, where it is offered, by BDAT: the names of those
    whose message was taken, as one."""
    taken = []
    for name, end in false_ends():
        with connect(router) as raw:
            replies = by_data(raw, name, end)
            assert len(replies) == 1 and replies[0].code in range(500, 600), (name, replies)
        with connect(router) as raw:
            if "CHUNKING" in raw.hello().text.split("\n"):
                reply = by_bdat(raw, name, end)[0]
                assert reply.code == 250 or reply.code in range(500, 600), (name, reply)
                if reply.code == 250:
                    taken.append(name)
    return taken


def test_I101_I102_I104_smuggling_to_aiosmtpd(watched, connect, certificates):
    w = watched(certificates=certificates)
    taken = smuggle(w.router, connect)
    w.unharmed()
    until(lambda: not w.router.queued(), "the queue is empty")
    assert len(w.others()) == len(taken) and all(m.sender == "a@sender.test" for m in w.others())
    assert {m.id for m in w.others()} == {f"first-{name}" for name in taken}


def test_I104_smuggling_to_smtp_sink(tern, smtp_sink, connect, certificates):
    router = tern(to_hosts(smtp_sink, domain="rcpt.test"), certificates=certificates)
    taken = smuggle(router, connect)
    with Raw(router) as raw:
        raw.hello()
        assert raw.mail("alive@rcpt.test").code == 250
    until(lambda: ["alive@rcpt.test"] in smtp_sink.mails(), "smtp-sink has the last of them")
    until(lambda: not router.queued(), "the queue is empty")
    others = [r for r in smtp_sink.mails() if r != ["alive@rcpt.test"]]
    assert others == [["b@rcpt.test"]] * len(taken)


def test_I104_smuggling_to_postfix(tern, postfix, connect, certificates):
    router = tern(to_hosts(postfix, domain="rcpt.test"), certificates=certificates)
    before = len(postfix.mails())
    taken = smuggle(router, connect)
    with Raw(router) as raw:
        raw.hello()
        assert raw.mail("alive@rcpt.test", content=message("after-smuggling")).code == 250
    postfix.wait_mail(b"after-smuggling")
    until(lambda: not router.queued(), "the queue is empty")
    until(lambda: len(postfix.mails()) >= before + 1 + len(taken), "all are in the mailbox")
    assert len(postfix.mails()) == before + 1 + len(taken)
    assert not any(b"Return-Path: <evil@" in m for m in postfix.mails())


def test_I101_I102_I104_false_ends(watched, connect, certificates):
    """One router for all of them; no octet that follows becomes a command."""
    w = watched(certificates=certificates)
    for name, end in FALSE_ENDS.items():
        with connect(w.router) as raw:
            replies = by_data(raw, name, end)
        assert len(replies) == 1 and replies[0].code in range(500, 600), (name, replies)
    w.unharmed()
    assert w.others() == []


def test_I103_dots_and_line_ends(tern, scripted_host):
    """The octets on the wire: every dot that begins a line is doubled, each CR and LF has the other."""
    wire = []

    def talk(stream):
        stream.write(b"220 wire.test\r\n")
        for line in iter(stream.readline, b""):
            verb = line[:4].upper()
            stream.write(b"354 go on\r\n" if verb == b"DATA" else b"250 OK\r\n")
            if verb == b"DATA":
                content = b""
                for text in iter(stream.readline, b".\r\n"):
                    content += text
                wire.append(content)
                stream.write(b"250 2.0.0 taken\r\n")
    host = scripted_host(talk)
    router = tern(to_hosts(host, domain="rcpt.test"))
    body = "\r\n".join([".", "..", "...", ".x", "", ". ", "\t.", "x.", "." * 400, "end"])
    with Raw(router) as raw:
        raw.hello()
        assert raw.mail("b@rcpt.test", content=f"Subject: dots\r\n\r\n{body}\r\n").code == 250
    until(lambda: wire, "the message at the next hop")
    assert re.search(rb"(?<!\r)\n|\r(?!\n)", wire[0]) is None
    stuffed = "\r\n".join("." + line if line.startswith(".") else line for line in body.split("\r\n"))
    assert wire[0].endswith(b"\r\n\r\n" + stuffed.encode() + b"\r\n")


# ---- commands ----

@pytest.mark.parametrize("sent, codes", [
    (b"NOOP\nMAIL FROM:<a@sender.test>\r\n", [500]),
    (b"NOOP\n", [500]),
    (b"MAIL FROM:<a@sender.test>\nRCPT TO:<b@rcpt.test>\nDATA\n", [500]),
    (b"NOOP\rNOOP\r\n", [500]), (b"NOOP\r\r\n", [500]), (b"NOOP\n\r", [500]),
], ids=["I201: LF inside", "I201: LF at the end", "I201: a transaction in LF", "I202: CR inside",
        "I202: CRCRLF", "I201, I202: LFCR"])
def test_line_ends_of_commands(watched, sent, codes):
    w = watched()
    with Raw(w.router) as raw:
        raw.hello()
        raw.send(sent)
        replies = raw.until_closed()
        assert [r.code for r in replies] == codes and replies[0].enhanced == "5.5.2"
    w.unharmed()


def test_I203_nul_in_commands(watched):
    w = watched()
    with Raw(w.router) as raw:
        raw.hello()
        for line in (b"NOOP\0", b"\0NOOP", b"MAIL FROM:<a\0@sender.test>", b"\0\0\0"):
            raw.send(line + b"\r\n")
            assert raw.reply().code == 500, line
        assert raw.mail("b@rcpt.test", content=message("after")).code == 250
    w.unharmed()


@pytest.mark.parametrize("content", [b"Sub\0ject: x\r\n\r\nx\r\n", b"Subject: \0\r\n\r\nx\r\n",
                                     b"Subject: x\r\n\r\n\0\r\n", b"Subject: x\r\n\r\nx" + b"\0" * 9000 + b"\r\n"],
                         ids=["I204: in a name", "I204: in a value", "I205: alone", "I205: many"])
def test_nul_in_a_message(watched, content):
    w = watched()
    with Raw(w.router) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        raw.send(content + b".\r\n")
        replies = raw.until_closed()
        assert [(r.code, r.enhanced) for r in replies] == [(550, "5.6.0")]
    w.unharmed()
    assert w.others() == []


def test_I206_an_octet_at_a_time(watched):
    """Commands, text and end, and what would be false ends if octets were looked at alone."""
    w = watched()
    with Raw(w.router) as raw:
        for c in "EHLO client.test\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\nDATA\r\n":
            raw.send(c)
        assert [r.code for r in raw.replies(4)] == [250, 250, 250, 354]
        for c in message("slow", body="..\n..x\n x.\n") + ".\r\nNOOP\r\n":
            raw.send(c)
        assert [r.code for r in raw.replies(2)] == [250, 250]
    w.unharmed()
    assert [m.id for m in w.others()] == ["slow"]
    assert w.others()[0].content.endswith(b"\r\n\r\n.\r\n.x\r\n x.\r\n\r\n")


TEXT = "RSET\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@rcpt.test>\r\nDATA\r\n" + SMUGGLED


@pytest.mark.parametrize("to, allowed", [("b@rcpt.test", [250, 250, 554]), ("x@other.test", [250, 550, 554])],
                         ids=["I207: accepted recipients", "I208: refused recipients"])
def test_text_before_354(watched, to, allowed):
    w = watched()
    with Raw(w.router) as raw:
        raw.hello()
        raw.send(f"MAIL FROM:<a@sender.test>\r\nRCPT TO:<{to}>\r\nDATA\r\n" + TEXT + ".\r\nQUIT\r\n")
        assert [r.code for r in raw.until_closed()] == allowed
    w.unharmed()
    assert w.others() == []
