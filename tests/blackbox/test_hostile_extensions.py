"""docs/hostile-input.md, 12 to 17: what is not as old as SMTP, in hostile hands: LMTP, names and certificates in TLS,
parameters of MAIL, what hosts announce, PROXY, header tools, files to import, policies of domains."""
import contextlib
import dataclasses
import gzip
import itertools
import json
import socket
import ssl
import threading

import pytest

from addresses import fresh_ip
from certificates import make_certificates
from clients import Closed, Raw, message, send
from daemon import to_hosts
from hostile import Watched
from processes import run
from test_hostile_hosts import serve
from test_lmtp import Lmtp, lmtp
from test_proxy import SIGNATURE, v2
from test_tls import pair, self_signed
from test_tls_report import reports, sums
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def codes(replies):
    return [r.code for r in replies]


# ---- 12: LMTP ----

@pytest.fixture
def lmtp_watched(new_tern, sink):
    """A router with LMTP at port 24 and on router.path."""
    host, router = sink(), new_tern()
    router.path = router.folder / "lmtp.sock"
    router.configure(to_hosts(host, domain="rcpt.test") + lmtp(router, router.path))
    return Watched(router.start(), host)


@pytest.fixture(params=["tcp", "unix"])
def where(request):
    return request.param


def session(w, where):
    raw = Lmtp(w.router, w.router.path if where == "unix" else None)
    raw.hello()
    return raw


def recipients(n, block=0):
    return "".join(f"RCPT TO:<r{block}x{i}@rcpt.test>\r\n" for i in range(n))


def test_I1201_a_hundred_thousand_recipients(lmtp_watched, where):
    """1000 are taken, a thousand or so refused, and the session ends."""
    w = lmtp_watched
    with session(w, where) as raw:
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        told = []
        with contextlib.suppress(Closed, OSError):
            for block in range(1000):
                raw.send(recipients(100, block))
                told += codes(raw.replies(100))
        assert told[:1000] == [250] * 1000 and set(told[1000:]) <= {452, 421} and len(told) < 100_000
    w.unharmed()
    assert w.others() == []


def test_I1202_a_thousand_replies_that_nobody_reads(lmtp_watched, where):
    """The messages of who reads his replies at the end, or never, are taken; the others are served meanwhile."""
    w = lmtp_watched
    transaction = ("MAIL FROM:<a@sender.test>\r\n" + recipients(1000) + "DATA\r\n").encode()
    mute, late = session(w, where), session(w, where)
    with mute, late:
        for raw in (mute, late):
            raw.send(transaction)
            assert set(codes(raw.replies(1001))) == {250}
            assert raw.reply().code == 354
        mute.socket.setblocking(False)
        with contextlib.suppress(OSError):
            for _ in range(200):  # commands after the message, until neither side takes any more
                mute.send(message("mute") + ".\r\n" + "NOOP\r\n" * 100_000)
        late.send(message("late") + ".\r\nNOOP\r\n")
        w.alive()
        assert codes(late.replies(1001)) == [250] * 1001
    until(lambda: [sum(len(m.recipients) for m in w.others() if m.id == i) for i in ("late", "mute")] == [1000, 1000],
          "both went to all")
    w.unharmed()


@pytest.mark.parametrize("port, words, right", [(24, ("EHLO", "HELO"), "LHLO"), (25, ("LHLO",), "EHLO")],
                         ids=["LMTP", "SMTP"])
def test_I1203_the_other_protocols_hello(lmtp_watched, port, words, right):
    """502 in every state, and the state is what it was."""
    w = lmtp_watched
    with Raw(w.router, port=port) as raw:
        for word in words:
            raw.expect(502, f"{word} client.test")
            raw.expect(502, f"{word} " + "x" * 400)
            assert raw.cmd(word).code in (501, 502)
        assert raw.cmd("MAIL FROM:<a@sender.test>").code == 503
        raw.expect(250, f"{right} client.test")
        raw.envelope("a@sender.test", "b@rcpt.test")
        for word in words:
            raw.expect(502, f"{word} client.test")
        raw.expect(354, "DATA")
        raw.send(message("both") + ".\r\n")
        assert raw.reply().code == 250
    assert w.host.wait_ids({"both"})["both"].recipients == ["b@rcpt.test"]
    w.unharmed()


@pytest.mark.parametrize("cut", ["behind the dot", "in the message", "in the envelope"])
def test_I1204_half_closed(lmtp_watched, where, cut):
    """What has no end is no message. Who ends his side behind the dot hears what became of the message."""
    w = lmtp_watched
    with session(w, where) as raw:
        raw.send("MAIL FROM:<a@sender.test>\r\n" + recipients(3))
        assert codes(raw.replies(4)) == [250] * 4
        if cut != "in the envelope":
            raw.expect(354, "DATA")
            raw.send(message("half") + (".\r\n" if cut == "behind the dot" else ""))
        raw.socket.shutdown(socket.SHUT_WR)
        told = codes(raw.until_closed())
    w.unharmed()
    until(lambda: not w.router.queued(), "the queue is empty")
    if cut == "behind the dot":
        assert told == [250] * 3
        assert [len(m.recipients) for m in w.others()] == [3]
    else:
        assert 250 not in told and w.others() == []


def test_I1205_all_in_one_piece(lmtp_watched, where):
    """The end of a message and the whole of the next envelope come together, a hundred times: each transaction gets the
    replies that are its own."""
    w, before, asked = lmtp_watched, "", 0
    with session(w, where) as raw:
        for n in range(100):
            bad, good = "RCPT TO:<x@elsewhere.test>\r\n" * (n % 20 == 0), 1 + n % 4
            raw.send(before + "MAIL FROM:<a@sender.test>\r\n" + bad + recipients(good, n) + "DATA\r\n")
            told = codes(raw.replies(asked + 2 + (n % 20 == 0) + good))
            assert told == [250] * asked + [250] + [550] * (n % 20 == 0) + [250] * good + [354], n
            before, asked = message(f"m{n}") + ".\r\n", good
        raw.send(before + "QUIT\r\n")
        assert codes(raw.until_closed()) == [250] * asked + [221]
    w.host.wait_ids({f"m{n}" for n in range(100)})
    w.unharmed()
    assert set(w.host.ids()[f"m{n}"] for n in range(100)) == {1}


# ---- 13: names and certificates in TLS ----

@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    self_signed(folder, "default", ["mx.test"])
    self_signed(folder, "other", ["other.test", "*.other.test"])
    return folder


@pytest.fixture
def named(watched, made):
    """A router with two certificates, by name."""
    return watched(f"""  tls = {{ {pair(made, "default")}, certificates = {{ {{ {pair(made, "other")} }} }} }},
""")


PLACE = "place.holder.test"


def client_hello(name, length=None):
    """One of TLS 1.2 that asks for these octets as a name, whose length is told to be another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=PLACE)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = bytearray(out.read())
    at, more = hello.index(PLACE.encode()), len(name) - len(PLACE)
    extensions = 5 + 4 + 2 + 32
    extensions += 1 + hello[extensions]
    extensions += 2 + int.from_bytes(hello[extensions:extensions + 2], "big")
    extensions += 1 + hello[extensions]
    # record, handshake, extensions, this one, its list, the name
    for place, size in ((3, 2), (6, 3), (extensions, 2), (at - 7, 2), (at - 5, 2), (at - 2, 2)):
        told = int.from_bytes(hello[place:place + size], "big") + more
        hello[place:place + size] = told.to_bytes(size, "big")
    if length is not None:
        hello[at - 2:at] = length.to_bytes(2, "big")
    return bytes(hello[:at]) + name + bytes(hello[at + len(PLACE):])


NAMES = {
    "of 255 octets": (b"a." * 127 + b"a", None), "of 256": (b"a" * 256, None), "of 10,000": (b"a." * 5000, None),
    "NUL": (b"other.test\0.evil.test", None), "NUL at the end": (b"other.test\0", None),
    "above 127": (b"\xff\xfe\x80.test", None), "controls": (b"\r\n\x1b[2Jmx.test", None),
    "a wildcard": (b"*.other.test", None), "stars": (b"*", None), "dots": (b"." * 250, None), "empty": (b"", None),
    "an address": (b"127.0.0.1", None), "longer than it is": (b"other.test", 60000), "shorter": (b"other.test", 3),
    "a label without a name": (b".other.test", None),
}


@pytest.mark.parametrize("name", NAMES)
def test_I1301_names_that_are_none(named, name):
    """The default certificate, or an alert; never that of another name, and never a word in clear."""
    text, length = NAMES[name]
    with Raw(named.router) as raw:
        raw.hello()
        raw.expect(220, "STARTTLS")
        raw.send(client_hello(text, length))
        raw.socket.settimeout(10)
        answer = b""
        with contextlib.suppress(OSError):
            while len(answer) < 600 and not (answer and answer[0] == 21):
                more = raw.socket.recv(65536)
                if not more:
                    break
                answer += more
    assert answer[:1] in (b"\x15", b"\x16"), answer[:40]
    if answer[:1] == b"\x16":
        assert b"mx.test" in answer, "another certificate than the default one"
        assert b"*.other.test" not in answer
    named.unharmed()


@pytest.fixture(scope="module")
def long_chain(made):
    """A certificate with ninety-nine authorities above it, one behind the other, and its key."""
    key, files = made / "long.key", []
    assert run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key]).returncode == 0
    for n in range(100):
        file = made / f"long{n}.pem"
        above = ["-CA", files[-1], "-CAkey", key] if files else []
        done = run(["openssl", "req", "-x509", "-new", "-key", key, *above, "-days", "30", "-subj", f"/CN=number {n}",
                    "-addext", "subjectAltName=DNS:sink.test", "-out", file])
        assert done.returncode == 0, done.stderr
        files.append(file)
    (made / "long.pem").write_bytes(b"".join(f.read_bytes() for f in reversed(files)))
    (made / "huge.pem").write_bytes((made / "default.pem").read_bytes() * 1000)
    return made


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown, key", [("long", "long"), ("huge", "default")])
def test_I1302_chains_of_clients(watched, new_tern, sink, long_chain, shown, key, version):
    """A hundred certificates, and half a megabyte of them: judged or refused, and nobody waits for it."""
    router, host = new_tern(), sink()
    router.configure(to_hosts(host, domain="rcpt.test") + f"""  tls = {{ {pair(long_chain, "default")} }},
  listen = {{ {{ "{router.address}", client_certificates = "ask", client_ca = "{long_chain}/default.pem" }} }},
""")
    w = Watched(router.start(), host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(long_chain / f"{shown}.pem", long_chain / f"{key}.key")
    with contextlib.suppress(OSError, Closed):
        with Raw(w.router) as raw:
            raw.hello()
            raw.start_tls(context)
            raw.hello()
    w.unharmed()


def test_I1303_names_in_certificates_of_clients(new_tern, sink, made):
    """What a client writes into its certificate is no line of the log, and no header."""
    router, host = new_tern(), sink()
    evil = 'evil\r\n{"event": "delivered"}\x1b[2J\x7f\u202e'
    config = made / "evil.cnf"
    config.write_text("[req]\ndistinguished_name=dn\nprompt=no\nx509_extensions=v3\nutf8=yes\nstring_mask=utf8only\n"
                      "[dn]\nCN=EVIL\n[v3]\nsubjectAltName=otherName:1.2.3.4;UTF8:x,email:a@evil.test,DNS:evil.test\n")
    done = run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-utf8",
                "-keyout", made / "evil.key", "-out", made / "evil.pem", "-days", "30", "-config", config,
                "-subj", "/CN=" + evil.replace("/", "\\/")])
    assert done.returncode == 0, done.stderr
    router.configure(to_hosts(host, domain="rcpt.test") + f"""  tls = {{ {pair(made, "default")} }},
  listen = {{ {{ "{router.address}", client_certificates = "ask" }} }},
  policies = {{ {{ name = "seen", data = function(ctx)
    local t = ctx.session.tls
    if t then
      tern.log.info {{ "seen", subject = t.subject, issuer = t.issuer, names = table.concat(t.names or {{}}, " ") }}
      ctx.message.headers:add("X-Subject", t.subject or "none")
    end
  end }} }},
""")
    w = Watched(router.start(), host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(made / "evil.pem", made / "evil.key")
    with Raw(w.router) as raw:
        raw.hello()
        raw.start_tls(context)
        raw.hello()
        assert raw.mail("b@rcpt.test", content=message("evil")).code in (250, 451)
    seen = router.wait_for("policy_log", text="seen")
    assert not any(ord(c) < 32 or ord(c) == 127 for c in seen["subject"] + seen["issuer"] + seen["names"]), seen
    assert router.log.stray == []
    for mail in w.others():
        assert b'\n{"event"' not in mail.content and b"\x1b" not in mail.content
    w.unharmed()


def test_I1304_chains_of_hosts(new_tern, sink, long_chain, certificates):
    """A host's hundred certificates do not verify, and half a megabyte of them is too much: its mail waits."""
    hosts = {name: sink(certificates=dataclasses.replace(certificates, cert=long_chain / f"{name}.pem", key=key))
             for name, key in (("long", long_chain / "long.key"), ("huge", long_chain / "default.key"))}
    router, good = new_tern(), sink()
    router.configure("  domains = { " + "".join(
        f'["{name}.test"] = route.hosts {{ "{h.address}", tls = "verify" }}, ' for name, h in hosts.items())
        + f'["rcpt.test"] = route.hosts {{ "{good.address}" }} }},\n' + FAST)
    w = Watched(router.start(), good)
    for name in hosts:
        send(router, f"u@{name}.test", test_id=name)
        router.wait_for("host_failed", recipient=f"u@{name}.test", stage="TLS handshake")
    w.unharmed(grown=40e6)
    assert all(h.mails == [] for h in hosts.values()) and len(router.queued()) == 2


# ---- 14: parameters of MAIL ----

HUGE = ["-1", "100000000000000000000", "18446744073709551617", "9223372036854775808", "4294967297", "1e9", "0x10", "",
        "+5", " 5", "5;", "1.5", "\0", "٣"]
PARAMETERS = {
    "HOLDFOR": [f"HOLDFOR={v}" for v in [*HUGE, "0"]],
    "HOLDUNTIL": [f"HOLDUNTIL={v}" for v in [
        *HUGE, "99999-01-01T00:00:00Z", "2999-13-01T00:00:00Z", "2999-02-30T00:00:00Z", "-001-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z", "2999-01-01T00:00:00+99:99", "2999-01-01T00:00:00." + "9" * 400 + "Z",
        "1970-01-01T00:00:00Z", "2999-01-01T00:00:00"]],
    "BY": [f"BY={v}" for v in [*HUGE, "-1;R", "0;R", "100000000000000000000;R", "10000000000;N", ";R", "5;X", "5;RR", "5;RTT",
                               "5;TR", "5;R;R", "--5;N", "-99999999999;N", "5;R BY=6;R", "R;5"]],
    "MT-PRIORITY": [f"MT-PRIORITY={v}" for v in ["10", "-10", "+3", "00", "-0", "1e0", "", "3.0", "99999999999999999999", "--1",
                                                 "1 MT-PRIORITY=2"]],
    "REQUIRETLS": ["REQUIRETLS=", "REQUIRETLS=x", "REQUIRETLS REQUIRETLS"],
    "all": ["HOLDFOR=5 HOLDUNTIL=2999-01-01T00:00:00Z", "HOLDFOR=100 BY=50;R", "X=" * 500, "SIZE=5 " * 200,
            " ".join(f"X{n}=y" for n in range(150))],
}


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("service", ["I1401: default", "I1402: future_release"])
def test_parameters(new_tern, sink, service, name):
    """Refused, each one, and the session and its next message are as they were. Nothing is kept of them."""
    router, host = new_tern(), sink()
    more = ', future_release = "1h"' if "future_release" in service else ""
    router.configure(to_hosts(host, domain="rcpt.test") + f"""  relay_from = "127.0.0.0/8", limits = {{ errors = 1000 }},
  listen = {{ {{ "{router.address}"{more} }} }},
""")
    w = Watched(router.start(), host)
    with Raw(router) as raw:
        raw.hello()
        for bad in PARAMETERS[name]:
            told = raw.cmd(f"MAIL FROM:<a@sender.test> {bad}")
            assert told.code in (500, 501, 504, 530, 555), (bad, told)
            assert raw.cmd("RCPT TO:<b@rcpt.test>").code == 503, bad
        assert raw.mail("b@rcpt.test", content=message("after")).code == 250
    w.host.wait_ids({"after"})
    w.unharmed()
    until(lambda: not router.queued(), "the queue is empty")


# ---- 15: what hosts announce ----

def announced(lines):
    return "".join(f"250-{line}\r\n" for line in ["odd.test", *lines]).encode() + b"250 PIPELINING\r\n"


ANNOUNCED = {
    "I1501: limits that are none": ["LIMITS RCPTMAX=0 MAILMAX=0 RCPTDOMAINMAX=0", "LIMITS RCPTMAX=-1", "LIMITS RCPTMAX=" + "9" * 400,
                                    "LIMITS RCPTMAX= MAILMAX", "LIMITS =5 = ==", "LIMITS", "LIMITS " + "RCPTMAX=0 " * 50],
    "I1501: limits of 2^31 to 2^64": [f"LIMITS RCPTMAX={2 ** n + d} MAILMAX={2 ** n + d} RCPTDOMAINMAX={2 ** n + d}"
                                      for n in (31, 32, 63, 64) for d in (-1, 0, 1)],
    "I1501: a thousand limits": [f"LIMITS X{n}=1" for n in range(200)],
    "I1502: each extension with nonsense": [
        "SIZE=", "SIZE -1", "DELIVERBY -1", "DELIVERBY " + "9" * 30, "DELIVERBY x", "FUTURERELEASE", "FUTURERELEASE -5 x",
        "FUTURERELEASE " + "9" * 40 + " 2999-99-99T00:00:00Z", "MT-PRIORITY", "MT-PRIORITY \x01\x02", "REQUIRETLS x y", "AUTH",
        "AUTH " + "X " * 200, "AUTH=", "CHUNKING x", "BINARYMIME 5", "DSN ;", "8BITMIME 7", "SMTPUTF8 \xff", 
        "ETRN", "ATRN", "  ", "-", "=", "\x00"],
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_announcements(tern, scripted_host, name):
    """Nonsense is passed over: all recipients get the mail in one transaction of one session."""
    taken = []
    host = scripted_host(noting(serve({"EHLO": announced(ANNOUNCED[name])}), taken))
    router = tern(to_hosts(host) + FAST)
    send(router, [f"u{n}@rcpt.test" for n in range(30)], test_id="x")
    router.wait_for("delivered", 30)
    assert sum(line.startswith(b"MAIL") for line in taken) == 1, taken
    until(lambda: not router.queued(), "the queue is empty")
    assert router.running


class noting:
    """A talk() whose stream keeps the lines that it read."""

    def __init__(self, talk, lines):
        self.talk, self.lines = talk, lines

    def __call__(self, stream):
        self.stream = stream
        self.talk(_Noted(stream, self.lines))


class _Noted:
    def __init__(self, stream, lines):
        self.write = stream.write
        self._stream, self._lines = stream, lines

    def readline(self):
        line = self._stream.readline()
        self._lines.append(line)
        return line


def test_I1503_one_of_everything(tern, scripted_host):
    """LIMITS of one recipient, one message, one domain: a hundred recipients in ten domains all get it, once each."""
    taken = []
    host = scripted_host(noting(serve({"EHLO": announced(["LIMITS RCPTMAX=1 MAILMAX=1 RCPTDOMAINMAX=1"])}), taken))
    router = tern(to_hosts(host) + FAST + '  relay_from = "127.0.0.0/8",\n')
    everybody = [f"u{n}@d{n % 10}.test" for n in range(100)]
    send(router, everybody, test_id="x")
    router.wait_for("delivered", 100, timeout=60)
    asked = [line.decode().split("<")[1].split(">")[0] for line in list(taken) if line.startswith(b"RCPT")]
    assert sorted(asked) == sorted(everybody)
    until(lambda: not router.queued(), "the queue is empty")


@pytest.mark.parametrize("replies, delivered", [
    (["250 ok"] * 3, 3), (["250 ok"], 1), ([], 0), (["250 ok"] * 1000, 3), (["250 ok", "354 more", "250 ok"], None),
    (["250 ok", "550 5.1.1 no", "250 ok"], 2), (["250-x"] * 5, 0), (["999 what", "000 what", "250 ok"], None)],
    ids=["each", "one", "none", "a thousand", "354", "550", "no end", "no codes"])
def test_I1504_replies_of_an_lmtp_host(tern, scripted_host, replies, delivered):
    """Behind the dot there is one for each recipient: of whom none came is not said that he has it, and none of what is
    too much stands for the next message."""
    def talk(stream):
        stream.write(b"220 odd.test LMTP\r\n")
        for line in iter(stream.readline, b""):
            verb = line[:4].upper()
            if verb == b"LHLO":
                stream.write(b"250-odd.test\r\n250 PIPELINING\r\n")
            elif verb == b"DATA":
                stream.write(b"354 go on\r\n")
                if not any(text == b".\r\n" for text in iter(stream.readline, b"")):
                    return
                stream.write("".join(f"{r}\r\n" for r in replies).encode())
                if len(replies) < 3 or delivered in (0, None):
                    return
            else:
                stream.write(b"250 2.0.0 ok\r\n")
    host = scripted_host(talk, port=24)
    router = tern(f"""  domains = {{ ["rcpt.test"] = route.lmtp {{ "{host.address}" }} }},
  queue = {{ retry = "1h...", host_retry = "1h" }},
""")
    send(router, [f"u{n}@rcpt.test" for n in range(3)], test_id="x")
    ended = ("delivered", "bounced", "deferred", "host_failed")
    everybody = {f"u{n}@rcpt.test" for n in range(3)}
    until(lambda: {e.get("recipient") for e in router.log.all() if e["event"] in ended} >= everybody
          or delivered == 0 and any(e["event"] in ended for e in router.log.all()), lambda: router.log.tail())
    got = {e["recipient"] for e in router.log.all("delivered")}
    if delivered is not None:
        assert len(got) == delivered
    waiting = {m["recipient"] for m in router.queued() if m["sender"]}
    bounced = {e["recipient"] for e in router.log.all("bounced") if e["sender"]}
    assert got | waiting | bounced == everybody
    assert not got & waiting and not got & bounced


# ---- 16: PROXY, header tools, imports ----

TLVS = {
    "longer than the header": b"\x03\xff\xff", "half a TLV": b"\x03\x00", "one octet": b"\x03",
    "a length of nothing": b"\x03\x00\x00" * 500, "nested SSL": b"\x20\x00\x08\x01\x00\x00\x00\x00\x21\xff\xff",
    "an authority with control octets": b"\x02\x00\x05a\r\n\x00b", "unique id too long": b"\x05\x01\x00" + b"x" * 256,
    "a wrong checksum": b"\x03\x00\x04\0\0\0\0",
}


@pytest.mark.parametrize("name", TLVS)
def test_I1601_tlvs_of_proxy(new_tern, sink, name):
    """They say nothing that is needed: passed over or the end, and nothing of them becomes a command."""
    router, host, balancer = new_tern(), sink(), fresh_ip()
    router.configure(to_hosts(host, domain="rcpt.test")
                     + f'  listen = {{ {{ "{router.address}", proxy = "{balancer}/32" }} }},\n')
    w = Watched(router.start(), host)
    with Raw(router, source=balancer, greet=False) as raw:
        raw.send(v2(tlv=TLVS[name]))
        with contextlib.suppress(Closed):
            assert raw.reply().code == 220
            raw.hello()
            assert raw.mail("b@rcpt.test", content=message("proxied")).code == 250
    w.unharmed()
    assert router.log.stray == []


@pytest.mark.parametrize("header", [
    SIGNATURE + b"\x21\x31" + (216).to_bytes(2, "big") + b"/" * 108 + b"\0" * 108,  # Unix sockets
    SIGNATURE + b"\x21\x00\x00\x00", SIGNATURE + b"\x20\x11\x10\x00" + b"\xff" * 4096, SIGNATURE + b"\x21\x11\x00\x0b" + b"x" * 11,
    SIGNATURE + b"\x21\x21\x00\x0c" + b"x" * 12, SIGNATURE + b"\x21\xff\x00\x0c" + b"x" * 12,
    SIGNATURE + b"\x2f\x11\x00\x0c" + b"x" * 12, SIGNATURE * 2, b"PROXY " + b"x" * 100 + b"\r\n", b"PROXY UNKNOWN " + b"\xff" * 80 + b"\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 25\r\n", b"PROXY TCP4 01.2.3.4 1.2.3.4 1 25\r\n", b"PROXY TCP6 1.2.3.4 1.2.3.4 1 25\r\n"])
def test_I1602_headers_of_proxy(new_tern, sink, header):
    router, host, balancer = new_tern(), sink(), fresh_ip()
    router.configure(to_hosts(host, domain="rcpt.test") + f"""  relay_from = "1.2.3.4/32", timeouts = {{ proxy = "1s" }},
  listen = {{ {{ "{router.address}", proxy = "{balancer}/32" }} }},
""")
    w = Watched(router.start(), host)
    with Raw(router, source=balancer, greet=False) as raw, contextlib.suppress(Closed):
        raw.send(header)
        assert raw.reply().code == 220
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        assert raw.cmd("RCPT TO:<u@third.test>").code == 550
    w.unharmed()


TOOLS = """
local function tools(ctx)
  local m = ctx.message
  local n = 0
  for name, value, raw in m.headers:each() do n = n + #name + #value + #raw end
  m.headers:decoded("Subject")
  m.headers:raw("Subject")
  m.headers:all("X-Many")
  m.headers:count("X-Many")
  m:parts()
  m.headers:remove "X-Many"
  m.headers:set("Subject", "seen")
  m.headers:prepend("X-Seen", tostring(n))
  for line in m.body:lines() do n = n + #line end
end
"""


def nested(depth):
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))


CONTENTS = {
    "I1603: a header of a MiB": b"Subject: " + b"=?utf-8?q?=41?=\r\n " * 60_000 + b"x\r\n\r\n",
    "I1603: a megabyte of white space": b"Subject:" + b"\r\n " * 300_000 + b"x\r\n\r\n",
    "I1603: names of one kind": b"X-Many: 1\r\n" * 100_000 + b"\r\n",
    "I1603: no names": b": x\r\n" * 1000 + b"no colon\r\n\r\n", "I1603: names with octets above 127": b"\xff\xfe: x\r\n" * 1000 + b"\r\n",
    "I1603: encoded words that do not end": b"Subject: " + b"=?utf-8?b?" * 90 + b"\r\n " + b"=?" * 400 + b"\r\n\r\n",
    "I1604: MIME ten thousand deep": nested(10_000),
    "I1604: a boundary of many": b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\n" * 100_000,
    "I1604: boundaries that begin alike": b"Content-Type: multipart/mixed; boundary=\"" + b"-" * 500 + b"\"\r\n\r\n"
                                          + (b"-" * 990 + b"\r\n") * 3000,
    "I1604: parameters of many": b"Content-Type: text/plain" + b";\r\n name*0*=utf-8''%ff" * 20_000 + b"\r\n\r\n",
    "I1604: messages in messages": b"Content-Type: message/rfc822\r\n\r\n" * 50_000,
    "I1604: comments that nest": b"Content-Type: " + (b"(" * 900 + b"\r\n ") * 300 + b"text/plain\r\n\r\n",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_header_tools(new_tern, sink, name):
    """A policy looks at all of it: it gets through, or is stopped within its limits and the client told so. Others
    notice nothing."""
    router, host = new_tern(), sink()
    router.configure(to_hosts(host, domain="rcpt.test") + '  policies = { { name = "tools", data = tools } },\n', TOOLS)
    w = Watched(router.start(), host)
    with Raw(router, timeout=60) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        raw.send(CONTENTS[name] + b"the end\r\n.\r\n")
        told = raw.reply()
        assert told.code in (250, 451, 550, 552, 554), told
        assert raw.cmd("NOOP").code == 250
    w.unharmed(grown=60e6)


def test_I1607_a_header_of_a_mebibyte_in_one_line(new_tern, sink, folder):
    """From a file, for by SMTP it does not come so far: what the tools say of it, by explain and by import."""
    router, host = new_tern(), sink()
    router.configure(to_hosts(host, domain="rcpt.test") + '  policies = { { name = "tools", data = tools } },\n', TOOLS)
    w = Watched(router.start(), host)
    box = folder / "box"
    box.mkdir()
    content = b"X-Many: " + b"x" * 2 ** 20 + b"\r\nSubject: " + b"=?utf-8?q?=41?= " * 65_536 + b"\r\n\r\nhi\r\n"
    (box / "a.json").write_text(json.dumps({"sender": "", "recipients": ["b@rcpt.test"]}))
    (box / "a.eml").write_bytes(content)
    for args in (("explain", "--from", "a@sender.test", "--to", "b@rcpt.test", "--message", box / "a.eml"),
                 ("queue", "import", box)):
        done = router.cli(*args, timeout=60)
        assert done.returncode in (0, 65, 75), (args, done.returncode, done.stderr[:500])
        assert all(len(line) < 5000 for line in done.stderr.splitlines()), done.stderr[:500]
    w.unharmed(grown=60e6)


ENVELOPES = {
    "deep": '{"sender": ' + "[" * 100_000 + "]" * 100_000 + "}", "a megabyte of nothing": " " * 1_000_000,
    "numbers": '{"sender": "", "recipients": ["b@rcpt.test"], "arrived": 1e308, "expires": -1e308}',
    "a million recipients": '{"sender": "", "recipients": [' + ",".join(['"b@rcpt.test"'] * 1_000_000) + "]}",
    "twice": '{"sender": "", "sender": "a@sender.test", "recipients": ["b@rcpt.test"], "recipients": []}',
    "NUL": '{"sender": "a\\u0000@sender.test", "recipients": ["b@rcpt.test"]}',
    "surrogates": '{"sender": "\\ud800@sender.test", "recipients": ["b@rcpt.test"]}', "not UTF-8": b'{"sender": "\xff\xfe"}',
    "a key of a megabyte": '{"' + "x" * 1_000_000 + '": 1}',
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_I1605_envelopes_to_import(watched, folder, name):
    """Said what is wrong with it, in words of one line; the good one beside it is taken."""
    w = watched()
    box = folder / "box"
    box.mkdir()
    text = ENVELOPES[name]
    (box / "bad.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    (box / "bad.eml").write_bytes(b"X-Test-Id: bad\r\n\r\nhi\r\n")
    (box / "good.json").write_text(json.dumps({"sender": "", "recipients": ["b@rcpt.test"]}))
    (box / "good.eml").write_bytes(b"X-Test-Id: good\r\n\r\nhi\r\n")
    done = w.router.cli("queue", "import", box, timeout=60)
    assert done.returncode in (0, 65), (done.stdout, done.stderr[:500])
    assert all(len(line) < 2000 and line.isprintable() for line in done.stderr.splitlines()), done.stderr[:500]
    w.host.wait_ids({"good"})
    w.unharmed(grown=100e6)


@pytest.mark.parametrize("name", [".", "..", "line\nbreak.json", "\x1b[2J.json", "x" * 250 + ".json"])
def test_I1606_names_of_files_to_import(watched, folder, name):
    w = watched()
    box = folder / "box"
    box.mkdir()
    if name not in (".", ".."):
        (box / name).write_text("{")
    done = w.router.cli("queue", "import", box if name[0] != "." else box / name)
    assert done.returncode in (0, 64, 65, 66), done.stderr
    assert all(line.isprintable() for line in done.stderr.splitlines()), done.stderr
    w.unharmed()


# ---- 17: what domains say by DNS and HTTPS ----

class HostileWeb:
    """A server for policies that speaks TLS and then writes what it is told to, as long as the other side listens."""

    def __init__(self, certificates, pieces):
        self.ip, self.pieces, self.asked = fresh_ip(), pieces, 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates.cert, certificates.key)
        self.listener = socket.create_server((self.ip, 443))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(OSError), self.context.wrap_socket(connection, server_side=True) as tls:
            tls.settimeout(30)
            tls.recv(65536)
            self.asked += 1
            for piece in self.pieces():
                tls.sendall(piece)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
POLICY = b"version: STSv1\r\nmode: enforce\r\nmax_age: 86400\r\nmx: other.there.test\r\n"
FOREVER = itertools.repeat
WEBS = {
    "a body without end": lambda: itertools.chain([OK + b"\r\n" + POLICY], FOREVER(b"x: y\r\n" * 10_000)),
    "headers without end": lambda: itertools.chain([OK], FOREVER(b"X: y\r\n" * 10_000)),
    "a header of 100 MB": lambda: itertools.chain([OK + b"X: "], FOREVER(b"y" * 100_000, 1000)),
    "chunks without end": lambda: itertools.chain([OK + b"Transfer-Encoding: chunked\r\n\r\n"],
                                                  FOREVER(b"ffff\r\n" + b"#" * 0xffff + b"\r\n")),
    "a chunk of 2^64": lambda: [OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n" + POLICY],
    "a length of -1": lambda: [OK + b"Content-Length: -1\r\n\r\n" + POLICY],
    "a bomb": lambda: [OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(POLICY + b"x: y\r\n" * 10_000_000)],
    "1xx without end": lambda: FOREVER(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "HTTP/0.9": lambda: [POLICY],
    "another protocol": lambda: [b"220 here is SMTP\r\n"],
    "ten thousand mx": lambda: [OK + b"\r\n" + POLICY + b"mx: in.there.test\r\n" * 10_000],
    "not one octet": lambda: [],
}


@pytest.mark.parametrize("name", WEBS)
def test_I1701_servers_of_policies(new_tern, sink, scripted_dns, closing, tmp_path, name):
    """What is no policy is none, at once: mail goes as without one, and memory is bounded."""
    certs = make_certificates(tmp_path, ("in.there.test", "mta-sts.there.test"))
    web, mx, good = closing(HostileWeb(certs, WEBS[name])), sink(certificates=certs), sink()
    zone = scripted_dns(f'_mta-sts.there.test. TXT "v=STSv1; id=1;"\nmta-sts.there.test. A {web.ip}\n'
                        f"there.test. MX 10 in.there.test.\nin.there.test. A {mx.ip}\n")
    router = new_tern()
    router.configure(f"""  dns = {{ servers = {{ "{zone.server}" }}, timeout = "3s", allow_loopback_mx = true }},
  tls = {{ ca = "{certs.ca}" }}, domains = {{ ["there.test"] = route.mx {{ domain = "there.test" }},
    ["rcpt.test"] = route.hosts {{ "{good.address}" }} }},
""")
    w = Watched(router.start(), good)
    send(router, "u@there.test", test_id="x")
    mx.wait_ids({"x"}, timeout=20)
    assert web.asked
    w.unharmed(grown=40e6)


RECORDS = {
    "a thousand": [bytes([3, 1, 1]) + n.to_bytes(32, "big") for n in range(1000)],
    "none but the head": [b"\x03\x01\x01"], "half a head": [b"\x03\x01"], "empty": [b""],
    "too short a digest": [b"\x03\x01\x01" + b"x" * 31], "too long a digest": [b"\x03\x01\x01" + b"x" * 33],
    "60,000 octets": [b"\x03\x00\x00" + b"0" * 60_000], "numbers that are none": [b"\xff\xff\xff" + b"x" * 32],
    "a certificate that is none": [b"\x02\x00\x00" + b"\x30\x84\xff\xff\xff\xff" + b"x" * 500],
    "a key that is none": [b"\x02\x01\x00" + b"\x30\x80" * 1000],
}


@pytest.mark.parametrize("name", RECORDS)
def test_I1702_tlsa_records(new_tern, sink, scripted_dns, certificates, name):
    """Where none of them fits, nothing is delivered that they forbid; where none says anything, TLS is asked for or the
    mail waits. Never in clear."""
    host, good = sink(certificates=certificates), sink()
    zone = scripted_dns(f"mx.test. A {host.ip}")
    for data in RECORDS[name]:
        zone.add_tlsa("_25._tcp.mx.test", data)
    zone.secure = True
    router = new_tern()
    router.configure(f"""{FAST}  dns = {{ servers = {{ "{zone.server}" }}, timeout = "3s" }},
  domains = {{ ["there.test"] = route.hosts {{ "[mx.test]", tls = "dane" }}, ["rcpt.test"] = route.hosts {{ "{good.address}" }} }},
""")
    w = Watched(router.start(), good)
    send(router, "u@there.test", test_id="x")
    ended = router.wait_for(("host_failed", "delivered"), recipient="u@there.test")
    assert ended["event"] == "host_failed" or ended["tls"]
    assert all(m.tls for m in host.mails)
    w.unharmed()


def test_I1703_reports_of_what_hosts_say(new_tern, sink, scripted_dns, scripted_host):
    """STARTTLS is refused, each time with other words: the report is valid, and of a size that has a bound."""
    said = itertools.count()

    def refuse(stream):
        text = b'454 4.7.0 "%d" \\u0000 \x1b[2J \xff\xfe {"policies": []} </html> ' % next(said)
        stream.write(text + b"x" * 400 + b"\r\n")
    host, good = scripted_host(serve({"EHLO": b"250-odd.test\r\n250 STARTTLS\r\n", "STAR": refuse})), sink()
    zone = scripted_dns(f"there.test. MX 10 in.there.test.\nin.there.test. A {host.ip}\n")
    router = new_tern()
    router.configure(f"""  dns = {{ servers = {{ "{zone.server}" }}, timeout = "3s", allow_loopback_mx = true }},
  queue = {{ idle = "0s" }},
  domains = {{ ["there.test"] = route.mx {{ domain = "there.test" }}, ["rcpt.test"] = route.hosts {{ "{good.address}" }} }},
""")
    w = Watched(router.start(), good)
    for n in range(60):
        send(router, "u@there.test", test_id=f"x{n}")
    router.wait_for("delivered", 60, recipient="u@there.test", timeout=60)
    (report,) = reports(router, "there.test")
    assert sums(report)["no-policy-found", "starttls-not-supported"] >= 30
    assert len(json.dumps(report)) < 60_000
    assert all(line.isprintable() for line in router.ok("tls-report", "there.test").splitlines())
    w.unharmed()
