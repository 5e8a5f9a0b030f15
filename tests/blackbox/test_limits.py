"""The limits of RFC 5321 §4.5.3.1: what is just allowed, and one more."""
import pytest

from clients import Raw, message
from daemon import to_hosts

LABEL = "d" * 63


def domain(octets):
    """A domain of exactly so many octets, in labels of 63 at most."""
    text = ".".join([LABEL] * 4)[:octets - 5].rstrip(".")
    text += "x" * (octets - 5 - len(text)) + ".test"
    assert len(text) == octets and max(map(len, text.split("."))) <= 63, text
    return text


@pytest.fixture
def raw(tern, sink):
    """A session after EHLO; the router relays for this client to raw.host."""
    host = sink()
    router = tern(to_hosts(host) + '  relay_from = { "127.0.0.0/8" },\n')
    with Raw(router) as session:
        session.hello()
        session.host = host
        session.router = router
        yield session


def address(local, domain_octets):
    return "l" * local + "@" + domain(domain_octets)


PATHS = [
    ("local part of 64", address(64, 20), True),
    ("local part of 65", address(65, 20), False),
    ("path of 256", address(64, 256 - 64 - 3), True),
    ("path of 257", address(64, 257 - 64 - 3), False),
    ("longest domain in a path", address(1, 252), True),
    ("domain one longer", address(1, 253), False),
]


@pytest.mark.parametrize("path, good", [p[1:] for p in PATHS], ids=[p[0] for p in PATHS])
def test_paths(raw, path, good):
    sender = raw.cmd(f"MAIL FROM:<{path}>")
    assert (sender.code, sender.enhanced) == ((250, "2.1.0") if good else (501, "5.1.7")), sender
    if not good:
        raw.expect(250, "MAIL FROM:<a@sender.test>")
    recipient = raw.cmd(f"RCPT TO:<{path}>")
    assert (recipient.code, recipient.enhanced) == ((250, "2.1.5") if good else (501, "5.1.3"))


def test_the_longest_path_is_delivered(raw):
    path = address(64, 256 - 64 - 3)
    assert raw.mail(path, sender=path).code == 250
    mail = raw.host.wait()[0]
    assert mail.sender == path and mail.recipients == [path]


@pytest.mark.parametrize("verb", ["EHLO", "HELO"])
def test_domain_of_hello(raw, verb):
    assert raw.cmd(f"{verb} {domain(255)}").code == 250
    assert raw.cmd(f"{verb} {domain(256)}").code == 501


def test_a_label_of_64(raw):
    raw.expect(501, f"MAIL FROM:<a@{LABEL}d.test>")
    raw.expect(250, f"MAIL FROM:<a@{LABEL}.test>")


def test_command_line(raw):
    """512 octets with CRLF."""
    raw.expect(250, "NOOP " + "x" * (512 - 5 - 2))
    reply = raw.expect(500, "NOOP " + "x" * (513 - 5 - 2))
    assert reply.enhanced == "5.5.2"
    raw.expect(250, "NOOP")


def test_text_line(raw):
    """1000 octets with CRLF; the longest line arrives whole."""
    line = "x" * 998
    assert raw.mail("b@rcpt.test", content=message("edge", body=line)).code == 250
    content = raw.host.wait_ids({"edge"})["edge"].content
    assert content.endswith(b"\r\n\r\n" + line.encode() + b"\r\n")
    reply = raw.mail("b@rcpt.test", content=message("beyond", body=line + "x"))
    assert (reply.code, reply.enhanced) == (550, "5.6.0")
    assert raw.mail("b@rcpt.test", content=message("next")).code == 250
    raw.host.wait_ids({"next"})
    assert "beyond" not in raw.host.ids()


def test_a_leading_dot_does_not_count(raw):
    """§4.5.3.1.6: 1000 octets without the dot that was added."""
    line = "." + "x" * 997
    assert raw.mail("b@rcpt.test", content=message("edge", body=line)).code == 250
    content = raw.host.wait_ids({"edge"})["edge"].content
    assert content.endswith(b"\r\n" + line.encode() + b"\r\n")


def test_a_hundred_recipients(raw):
    """§4.5.3.1.8: at least 100 without configuration; all of them are delivered."""
    recipients = [f"r{n}@rcpt.test" for n in range(100)]
    assert raw.mail(*recipients, content=message("many")).code == 250
    raw.host.wait()
    raw.router.wait_for("delivered", count=100)
    assert sorted(r for m in raw.host.mails for r in m.recipients) == sorted(recipients)


def test_one_recipient_beyond_the_limit(tern, sink):
    """limits.recipients: 452 for what is too much, and the others are served."""
    host = sink()
    router = tern(to_hosts(host) + "  limits = { recipients = 100 },\n")
    with Raw(router) as raw:
        raw.hello()
        raw.envelope("a@sender.test", *(f"r{n}@rcpt.test" for n in range(100)))
        for n in (100, 101):
            assert raw.expect(452, f"RCPT TO:<r{n}@rcpt.test>").enhanced == "4.5.3"
        assert raw.data(message("many")).code == 250
    router.wait_for("delivered", count=100)
    got = [r for m in host.mails for r in m.recipients]
    assert sorted(got) == sorted(f"r{n}@rcpt.test" for n in range(100))


def exactly(octets, test_id):
    """A message of so many octets."""
    head = message(test_id, body="")
    lines, last = divmod(octets - len(head), 80)
    if last < 2 and last:
        lines, last = lines - 1, last + 80
    text = head + ("x" * 78 + "\r\n") * lines + ("y" * (last - 2) + "\r\n" if last else "")
    assert len(text) == octets
    return text


def test_message_size(tern, sink):
    host = sink()
    router = tern(to_hosts(host) + '  limits = { message_size = "20K" },\n')
    limit = 20 * 1024
    at_the_edge = exactly(limit, "edge")  # its headers are of the moment: made once
    with Raw(router) as raw:
        assert f"SIZE {limit}" in raw.hello().text.split("\n")
        assert raw.expect(552, f"MAIL FROM:<a@sender.test> SIZE={limit + 1}").enhanced == "5.3.4"
        assert raw.expect(552, "MAIL FROM:<a@sender.test> SIZE=99999999999999999999").enhanced == "5.3.4"
        raw.expect(250, f"MAIL FROM:<a@sender.test> SIZE={limit}")
        raw.expect(250, "RCPT TO:<b@rcpt.test>")
        assert raw.data(at_the_edge).code == 250
        reply = raw.mail("b@rcpt.test", content=exactly(limit + 1, "beyond"))
        assert (reply.code, reply.enhanced) == (552, "5.3.4")
        # who lies about the size gets no further
        raw.expect(250, "MAIL FROM:<a@sender.test> SIZE=10")
        raw.expect(250, "RCPT TO:<b@rcpt.test>")
        assert raw.data(exactly(limit + 5000, "liar")).code == 552
        assert raw.mail("b@rcpt.test", content=message("next")).code == 250
    host.wait_ids({"edge", "next"})
    assert set(host.ids()) == {"edge", "next"}
    edge = host.wait_ids({"edge"})["edge"].content
    assert edge.endswith(at_the_edge.split("\r\n\r\n", 1)[1].encode())


def test_reply_lines(raw):
    """§4.5.3.1.5: 512 octets with CRLF, also where the client gave much text."""
    for line in ("EHLO " + domain(255), "MAIL FROM:<" + address(64, 189) + ">",
                 "RCPT TO:<" + address(64, 189) + ">", "HELP", "VRFY " + address(64, 189)):
        reply = raw.cmd(line)
        assert all(len(part.encode()) <= 510 for part in reply.lines), reply
