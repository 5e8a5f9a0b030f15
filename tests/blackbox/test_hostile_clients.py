"""docs/hostile-input.md, 6 and 7: what parsers get to see, and who tries to have mail relayed."""
import contextlib
import itertools
import socket

import pytest

from clients import Closed, Raw, message
from processes import run


def commands(w, *lines):
    """The codes of these commands in one session after EHLO."""
    with Raw(w.router) as raw:
        raw.hello()
        return [raw.cmd(line).code for line in lines]


def stream(raw, pieces, end=False):
    """Sends until the other side has enough: the codes of all replies. end: says that no more will come."""
    with contextlib.suppress(OSError):
        for piece in pieces:
            raw.send(piece)
        if end:
            raw.socket.shutdown(socket.SHUT_WR)
    return [r.code for r in raw.until_closed()]


# ---- 6: parsers ----

def test_I601_a_megabyte_of_ehlo(watched):
    w = watched()
    with Raw(w.router) as raw:
        assert raw.expect(500, "EHLO " + "x" * 4000).enhanced == "5.5.2"
        raw.hello()
    with Raw(w.router) as raw:
        assert stream(raw, [b"EHLO " + b"RSET\nNOOP " * 100_000 + b"\r\nNOOP\r\n"]) in ([500], [])
    w.unharmed()


BAD_XTEXT = ["a+0D+0ADATA", "a+0A", "a+00b", "a+0", "a+", "a+0d", "a=b", "a+7F", "+0D+0A.+0D+0A"]


def test_I602_xtext(watched):
    """Refused with 501; what decodes to nothing bad is passed on, encoded again."""
    w = watched()
    for bad in BAD_XTEXT:
        assert commands(w, f"MAIL FROM:<a@sender.test> ENVID={bad}") == [501], bad
        assert commands(w, "MAIL FROM:<a@sender.test>", f"RCPT TO:<b@rcpt.test> ORCPT=rfc822;{bad}")[1] == 501, bad
        assert commands(w, f"MAIL FROM:<a@sender.test> AUTH={bad}")[0] in (501, 555), bad
    w.unharmed()
    assert w.others() == []
    assert not any("\r" in line or "\\r" in line or "\\n" in line for line in w.router.child.out)


@pytest.mark.parametrize("address", [
    '"a@rcpt.test', 'a"@rcpt.test', '"a\\"@rcpt.test', '"a\\', "a\\@rcpt.test", '"a"b@rcpt.test', '"', "\\",
    'a@rcpt.test\\', '"a@b@rcpt.test', "a@[127.0.0.1", "a@[IPv6:::1", "a@rcpt.test>", "<a@rcpt.test"])
def test_I603_quotes_and_backslashes(watched, address):
    w = watched()
    assert commands(w, f"MAIL FROM:<{address}>", "MAIL FROM:<a@sender.test>", f"RCPT TO:<{address}>",
                    f"RCPT TO:{address}", "RCPT TO:<b@rcpt.test>") == [501, 250, 501, 501, 250]
    w.unharmed()


def in_data(w, pieces):
    """What a message of these pieces gets, and what the session says to QUIT."""
    with Raw(w.router, timeout=60) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        codes = stream(raw, itertools.chain(pieces, [b"\r\n.\r\nQUIT\r\n"]))
    return codes


@pytest.mark.parametrize("pieces, code, grown", [
    (itertools.chain([b"X: y\r\n"], itertools.repeat(b" " + b"x" * 62 + b"\r\n" + b" y\r\n" * 2000, 13_000)), 552, 60e6),
    (itertools.repeat(b"X: y\r\n" * 1000, 1000), 552, 20e6),
    (itertools.chain([b"X: y\r\n\r\n"], itertools.repeat(b"x" * 10_000, 100)), 550, 20e6),
    (itertools.chain([b"X: "], itertools.repeat(b"x" * 10_000, 100)), 550, 20e6)],
    ids=["I604: a folded header of 100 MB", "I606: a million headers", "I605: a line of a megabyte",
         "I605: a header line of a megabyte"])
def test_large_messages(watched, pieces, code, grown):
    w = watched()
    assert in_data(w, pieces) == [code, 221]
    w.unharmed(grown)
    assert w.others() == []


def test_I607_a_million_recipients(watched):
    """1000 are taken, a thousand or so refused with 452, and nobody waits for the rest."""
    w = watched()
    with Raw(w.router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        codes = []
        with contextlib.suppress(Closed, BrokenPipeError, ConnectionResetError):
            for block in range(10_000):
                raw.send("".join(f"RCPT TO:<r{block}x{n}@rcpt.test>\r\n" for n in range(100)))
                codes += [r.code for r in raw.replies(100)]
        assert codes[:1000] == [250] * 1000 and set(codes[1000:]) <= {452, 421}
        assert len(codes) < 10_000, "nobody stopped it"
    w.unharmed()


def chunks(w, *pieces, end=True):
    """A transaction up to RCPT, then these octets: all replies, as codes, until QUIT or the end."""
    with Raw(w.router) as raw:
        offered = "CHUNKING" in raw.hello().text.split("\n")
        # what was announced may never come; who closes while a message is committed hears no more of it
        return offered, stream(raw, [*pieces, b"QUIT\r\n"], end=end)


SMUGGLED = b"RSET\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@rcpt.test>\r\nBDAT 3 LAST\r\nabc"
ENVELOPE = b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\n"


@pytest.mark.parametrize("size", [b"-1", b"4294967296", b"100000000000000000000", b"18446744073709551616",
                                  b"0x10", b"", b"1e9", b"+5", b"5 LAST x"])
def test_I608_sizes_of_chunks(watched, size):
    """The announced size takes no memory; one that is no number is an error."""
    w = watched()
    _, codes = chunks(w, ENVELOPE, b"BDAT " + size + b"\r\n")
    assert codes[:2] == [250, 250] and 354 not in codes
    assert all(500 <= code < 560 or code in (221, 421) for code in codes[2:]), codes
    w.unharmed(grown=8e6)
    assert w.others() == []


@pytest.mark.parametrize("before", [b"", b"MAIL FROM:<a@sender.test>\r\n", ENVELOPE + b"BDAT 5 WRONG\r\n",
                                    ENVELOPE + b"BDAT 999999999\r\n"],
                         ids=["I609: nothing", "I609: no recipient", "I610: a wrong one before", "I610: too large"])
def test_chunks_that_are_refused(watched, before):
    """Their octets are drained, or the session ends: never commands."""
    w = watched()
    chunks(w, before, b"BDAT %d LAST\r\n" % len(SMUGGLED) + SMUGGLED)
    w.unharmed()
    assert w.others() == []


def test_I611_rset_in_a_chunk(watched):
    """It is text of the message where BDAT is known, and never a command where it is not."""
    w = watched()
    text = message("chunk").encode() + b"RSET\r\nQUIT\r\n.\r\n"
    offered, codes = chunks(w, ENVELOPE, b"BDAT %d LAST\r\n" % len(text) + text, end=False)
    if offered:
        assert codes == [250, 250, 250, 221]
        assert w.host.wait_ids({"chunk"})["chunk"].content.endswith(b"RSET\r\nQUIT\r\n.\r\n")
    else:
        assert codes[:2] == [250, 250] and codes[2:] in ([502], [503])
    w.unharmed()


def test_I616_commands_in_every_state(watched):
    """Each command in each state: what is refused leaves the state as it was."""
    w = watched()
    way = {"connected": [], "greeted": ["EHLO c.test"], "mail": ["EHLO c.test", "MAIL FROM:<a@sender.test>"],
           "rcpt": ["EHLO c.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>"]}
    wrong = {"connected": ["MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA", "BDAT 0 LAST", "STARTTLS",
                           "AUTH PLAIN AGEAYg==", "ETRN rcpt.test"],
             "greeted": ["RCPT TO:<b@rcpt.test>", "DATA", "AUTH PLAIN AGEAYg==", "XCLIENT ADDR=127.0.0.1"],
             "mail": ["MAIL FROM:<x@sender.test>", "DATA", "STARTTLS", "AUTH PLAIN AGEAYg==", "ETRN rcpt.test",
                      "XCLIENT ADDR=127.0.0.1"],
             "rcpt": ["MAIL FROM:<x@sender.test>", "STARTTLS", "AUTH PLAIN AGEAYg==", "ETRN rcpt.test",
                      "XCLIENT ADDR=127.0.0.1"]}
    for number, (state, lines) in enumerate(wrong.items()):
        with Raw(w.router) as raw:
            for line in way[state]:
                raw.expect(250, line)
            for line in lines:
                if line.startswith("BDAT"):
                    continue  # one that nobody knows ends the session
                assert raw.cmd(line).code in range(500, 560), (state, line)
            for line in way["rcpt"][len(way[state]):]:
                raw.expect(250, line)  # the state is what it was
            assert raw.data(message(f"state{number}")).code == 250
    w.unharmed()
    assert {m.id for m in w.others()} == {f"state{n}" for n in range(len(wrong))}
    assert all(m.sender == "a@sender.test" for m in w.others())


@pytest.mark.parametrize("octets, codes", [
    ("ä".encode(), (553, 250)), ("a\u0308".encode(), (553, 250)), (b"\xc3", (553, 501)), (b"\xe2\x82", (553, 501)),
    (b"\xff", (553, 501)), (b"\xc0\xaf", (553, 501)), (b"\xed\xa0\x80", (553, 501)), (b"\xf5\x80\x80\x80", (553, 501))])
def test_I617_octets_above_127(watched, octets, codes):
    w = watched()
    for parameter, code in zip((b"", b" SMTPUTF8"), codes):
        with Raw(w.router) as raw:
            raw.hello()
            raw.send(b"MAIL FROM:<" + octets + b"@sender.test>" + parameter + b"\r\n")
            assert raw.reply().code in ({code} if code != 553 else {553, 501}), (octets, parameter)
            raw.send(b"EHLO " + octets + b"\r\n")
            assert raw.reply().code == 501
    w.unharmed()


def test_I618_mime_that_nests(watched):
    w = watched()
    depth = 10_000
    content = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n" for n in range(depth))
    content = "X-Test-Id: nested\r\n" + content + "\r\nx\r\n" + "".join(
        f"--b{n}--\r\n" for n in reversed(range(depth)))
    with Raw(w.router) as raw:
        raw.hello()
        assert raw.mail("b@rcpt.test", content=content).code == 250
    assert w.host.wait_ids({"nested"})["nested"].content.endswith(content.encode())
    w.unharmed()


def test_I619_names_of_lua(watched):
    """Neither names nor values of header fields mean anything to the interpreter."""
    names = ["__index", "__gc", "__newindex", "__metatable", "__close", "__call", "__name", "nil", "self", "get"]
    w = watched("""
  policies = { { data = function(ctx)
    local h = ctx.message.headers
    h:add("X-Index", (h:get("__index") or "none") .. #h:all("__gc") .. tostring(h:get("__nosuch")))
  end } },
""")
    content = "".join(f"{name}: function() end\r\n" for name in names) + message("names")
    with Raw(w.router) as raw:
        raw.hello()
        assert raw.mail("b@rcpt.test", content=content).code == 250
    mail = w.host.wait_ids({"names"})["names"].message
    assert mail["X-Index"] == "function() end1nil" and all(mail[n] == "function() end" for n in names)
    w.unharmed()


# ---- 7: relaying ----



def plain(address):
    """Without quotes: aiosmtpd takes some of them off."""
    return address.replace(chr(34), "")


SENDERS = ["", "root@localhost.test", "a@rcpt.test", "a@sender.test", "postmaster@rcpt.test", '"u@rcpt.test"@x.test']
REFUSED = {
    "I702": (550, ["u@third.test", "u%rcpt.test@third.test", "rcpt.test!u@third.test", '"u@rcpt.test"@third.test',
                   "u@rcpt.test.third.test", "u@xrcpt.test", "u@sub.rcpt.test"]),
    "I703": (501, ["u@third.test@rcpt.test", "u@rcpt.test@third.test", "@rcpt.test:u@third.test",
                   "@third.test:u@rcpt.test", "@a.test,@b.test:u@rcpt.test", "rcpt.test!u", '"u@third.test"',
                   "u@2130706433", "u@127.1", "u@0x7f.0.0.1.", "u@rcpt.test.", "u@rcpt..test", "u@.rcpt.test",
                   "u@", "@rcpt.test", "u@xn--rcpt-.test.third.test", "u@xn--a.rcpt.test", "u@-rcpt.test"]),
    "I704": (550, ["u@[127.0.0.1]", "u@[IPv6:::1]", "u@[10.0.0.1]", "u@[IPv6:::ffff:127.0.0.1]"]),
}


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("tag", REFUSED, ids=["I702: other domains", "I703: no addresses", "I704: literals"])
def test_never_relayed(watched, tag, sender):
    w = watched()
    code, addresses = REFUSED[tag]
    for some in (addresses[n:n + 8] for n in range(0, len(addresses), 8)):
        with Raw(w.router) as raw:
            raw.hello()
            raw.expect(250, f"MAIL FROM:<{sender}>")
            for address in some:
                reply = raw.expect(code, f"RCPT TO:<{address}>")
                assert reply.enhanced == ("5.7.1" if code == 550 else "5.1.3"), (address, reply)
            raw.expect(554, "DATA")
    w.unharmed()
    assert w.others() == []


def test_I701_the_local_part_is_the_hosts_affair(watched):
    w = watched()
    locals_ = ["u%third.test", "third.test!u", '"u@third.test"', '"u%third.test"', "u+x", "|cat", '"a b"']
    for n, local in enumerate(locals_):
        with Raw(w.router) as raw:
            raw.hello()
            assert raw.mail(f"{local}@rcpt.test", content=message(f"local{n}")).code == 250
    mails = w.host.wait_ids({f"local{n}" for n in range(len(locals_))})
    for n, local in enumerate(locals_):
        assert plain(mails[f"local{n}"].recipients[0]) == plain(f"{local}@rcpt.test")
    w.unharmed()


@pytest.mark.parametrize("domain, ours", [
    ("RCPT.test", True), ("rCpT.TeSt", True), ("ｒｃｐｔ.test", True), ("rcpt。test", None), ("rcpt．test", None), ("ｒcpt｡test", None),
    ("rcрt.test", False), ("rcpt.test.", None), ("rcpt。test。", None), ("xn--rcpt.test", None), ("rc\u200bpt.test", True),
    ("rcpt\u2024test", None), ("xn--.test", None), ("ß.test", False)])
def test_I705_domains_in_disguise(watched, domain, ours):
    """With SMTPUTF8, so that the form alone does not decide. ours: None when it is no domain at all."""
    w = watched()
    with Raw(w.router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test> SMTPUTF8")
        code = raw.cmd(f"RCPT TO:<u@{domain}>").code
        print(domain, code)
        assert code == (501 if ours is None else 250 if ours else 550)
    w.unharmed()


SHELL = ["|/bin/sh", "$HOME", "`id`", "a;reboot", "a&b", "a'b", '"$(touch x)"', '"; touch x #"', '"../../x"', '"/etc/passwd"',
         '"a|b"', "{a,b}", "*", "?", "~root", '"-oQ/tmp"', "-oQ", '"%s%n"', "%s%n", "#x", "a=b", "!"]


def test_I706_shell_and_paths(watched):
    """In recipients and senders; files below the router's folder and its processes are as before."""
    w = watched()
    before = {p.name for p in w.router.folder.rglob("*")}
    n = 0
    for local in SHELL:
        with Raw(w.router) as raw:
            raw.hello()
            if raw.cmd(f"MAIL FROM:<{local}@sender.test>").code != 250:
                continue
            raw.expect(250, f"RCPT TO:<{local}@rcpt.test>")
            assert raw.data(message(f"shell{n}")).code == 250
            mail = w.host.wait_ids({f"shell{n}"})[f"shell{n}"]
            assert plain(mail.recipients[0]) == plain(f"{local}@rcpt.test")
            n += 1
    assert n >= 18
    after = {p.name for p in w.router.folder.rglob("*")}
    assert after == before, after ^ before
    children = run(["ps", "--ppid", str(w.router.child.pid), "-o", "pid="])
    assert children.stdout.split() == []
    w.unharmed()


def test_I707_line_ends_in_quotes(watched):
    w = watched()
    for sent in (b'RCPT TO:<"a\rRSET"@rcpt.test>\r\n', b'RCPT TO:<"a\nDATA"@rcpt.test>\r\n', b'RCPT TO:<"a\\\n"@rcpt.test>\r\n',
                 b'RCPT TO:<"a\0b"@rcpt.test>\r\n', b'RCPT TO:<"a\\\0b"@rcpt.test>\r\n'):
        with Raw(w.router) as raw:
            raw.hello()
            raw.expect(250, "MAIL FROM:<a@sender.test>")
            raw.send(sent)
            assert raw.reply().code == 500, sent
            if b"\0" not in sent:
                assert raw.until_closed() == [], sent
    for sent in (b'RCPT TO:<"a\r\nRSET"@rcpt.test>\r\n', b'RCPT TO:<"a\\\r\nDATA\r\n"@rcpt.test>\r\n'):
        with Raw(w.router) as raw:
            raw.hello()
            raw.expect(250, "MAIL FROM:<a@sender.test>")
            raw.send(sent)
            assert all(code.code in range(500, 560) for code in raw.replies(2)), sent
    w.unharmed()
    assert w.others() == []
