"""CHUNKING and BINARYMIME (RFC 3030), in and out, and mail that is converted for hosts that take less.

The smuggling tests send each false end of data within chunks, in clear and over TLS, and relay what was
accepted to hosts that would fall for it: as many messages arrive as were accepted."""
import email
import email.policy
import json
import random
import re
import smtplib
import ssl
import subprocess

import pytest

from clients import Raw, message, send
from daemon import tern_binary, to_hosts
from hostile import FALSE_ENDS
from waiting import until


TRUE_ENDS = {"CRLF.CRLF": b"\r\n.\r\n", "CRLF.CRLF.CRLF": b"\r\n.\r\n.\r\n", "CRLF..CRLF": b"\r\n..\r\n"}
SMUGGLED = b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@rcpt.test>\r\nDATA\r\n"
ANY_END = re.compile(rb"(?:\r\n|\r|\n)\.(?:\r\n|\r|\n)")


class NaiveHost:
    """Takes mail by DATA and BDAT as carelessly as any: each of the false ends ends the data."""

    def __init__(self, *keywords):
        self.keywords = keywords
        self.mails = []  # (octets, parameters of MAIL, "DATA" or "BDAT")

    def talk(self, stream):
        stream.write(b"220 naive.test ESMTP\r\n")
        data, params, chunks = b"", b"", b""
        while True:
            while b"\r\n" not in data:
                more = stream.read(65536)
                if not more:
                    return
                data += more
            line, data = data.split(b"\r\n", 1)
            verb = line[:4].upper()
            if verb == b"EHLO":
                lines = ["naive.test", *self.keywords]
                stream.write("".join(f"250{'-' if l is not lines[-1] else ' '}{l}\r\n"
                                     for l in lines).encode())
                continue
            if verb == b"MAIL":
                params, chunks = line.split(b">", 1)[1].strip(), b""
            elif verb == b"DATA":
                stream.write(b"354 go on\r\n")
                while not ANY_END.search(b"\r\n" + data):
                    more = stream.read(65536)
                    if not more:
                        return
                    data += more
                end = ANY_END.search(b"\r\n" + data)
                self.mails.append((data[:max(end.start(), 0)].replace(b"\r\n..", b"\r\n."), params.decode(),
                                   "DATA"))
                data = data[end.end() - 2:]
            elif verb == b"BDAT":
                size = int(line.split()[1])
                while len(data) < size:
                    more = stream.read(65536)
                    if not more:
                        return
                    data += more
                chunks, data = chunks + data[:size], data[size:]
                if line.upper().endswith(b"LAST"):
                    self.mails.append((chunks, params.decode(), "BDAT"))
            elif verb == b"QUIT":
                stream.write(b"221 bye\r\n")
                return
            stream.write(b"250 2.0.0 ok\r\n")


@pytest.fixture
def naive(scripted_host):
    """naive(keyword, ...): a careless host with these extensions."""
    def make(*keywords):
        host = NaiveHost(*keywords)
        host.address = scripted_host(host.talk).address
        return host
    return make


def chunk(octets, last=True):
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets


def by_bdat(raw, *pieces, to="b@rcpt.test", body=""):
    """One message in chunks, all in one flight: the reply to the last one."""
    octets = b"".join(chunk(p, n == len(pieces) - 1) for n, p in enumerate(pieces))
    raw.send(f"MAIL FROM:<a@sender.test>{body}\r\nRCPT TO:<{to}>\r\n".encode() + octets)
    return raw.replies(2 + len(pieces))[-1]


def received(content):
    """The message below the Received field that the router added."""
    assert content.startswith(b"Received: "), content[:200]
    return re.sub(rb"^Received:.*?\r\n(?![ \t])", b"", content, count=1, flags=re.S)


def binary_message(test_id, octets, kind="application/octet-stream"):
    return (f"MIME-Version: 1.0\r\nX-Test-Id: {test_id}\r\nContent-Type: {kind}\r\n"
            "Content-Transfer-Encoding: binary\r\n\r\n").encode() + octets


# ---- the dialogue ----

def test_what_is_offered(tern, sink):
    router = tern(to_hosts(sink()))
    with Raw(router) as raw:
        words = {l.split()[0] for l in raw.hello().text.split("\n")}
        assert {"CHUNKING", "BINARYMIME"} <= words


def test_a_listener_without(new_tern, sink):
    router = new_tern(to_hosts(sink()))
    router.configure(f'  listen = {{ {{ "{router.address}", chunking = false }},\n'
                     f'             {{ "{router.ip}:26", binarymime = false }} }},\n' + to_hosts(sink()))
    router.start()
    with Raw(router) as raw:
        words = {l.split()[0] for l in raw.hello().text.split("\n")}
        assert not {"CHUNKING", "BINARYMIME"} & words
        assert raw.cmd("MAIL FROM:<a@sender.test> BODY=BINARYMIME").code == 501
        raw.send("BDAT 6\r\nRSET\r\nNOOP\r\n")
        assert [r.code for r in raw.until_closed()] == [502], "the octets behind it never become commands"
    with Raw(router, port=26) as raw:
        words = {l.split()[0] for l in raw.hello().text.split("\n")}
        assert "CHUNKING" in words and "BINARYMIME" not in words


def test_chunks_arrive(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    octets = message("chunks", body="..\n.\nx" * 1000).encode()
    with Raw(router) as raw:
        raw.hello()
        assert by_bdat(raw, octets[:1000], octets[1000:1001], b"", octets[1001:]).code == 250
        for c in b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\n" + chunk(message("slow").encode()):
            raw.send(bytes([c]))
        assert [r.code for r in raw.replies(3)] == [250, 250, 250]
    assert received(host.wait_ids({"chunks", "slow"})["chunks"].content) == octets


def test_over_tls(tern, sink, certificates):
    host = sink()
    router = tern(to_hosts(host), certificates=certificates)
    context = ssl.create_default_context(cafile=certificates.ca)
    with Raw(router) as raw:
        raw.hello()
        raw.start_tls(context)
        raw.hello()
        assert by_bdat(raw, message("secure").encode(), b"more\r\n").code == 250
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.send(b"BDAT 1000 LAST\r\nSubject: half\r\n\r\n")
        raw.socket = raw.socket.unwrap()  # close_notify in the middle
        raw.close()
    host.wait_ids({"secure"})
    until(lambda: router.log.all("session_closed"), "the session is over")
    assert len(router.log.all("message_accepted")) == 1


def test_smtplib_and_a_hook(tern, sink):
    host = sink()
    router = tern(to_hosts(host))
    with smtplib.SMTP(router.ip, router.port, local_hostname="client.test", timeout=20) as smtp:
        smtp.ehlo()
        assert smtp.has_extn("chunking") and smtp.has_extn("binarymime")
        assert smtp.mail("a@sender.test", ["BODY=8BITMIME"])[0] == 250
        assert smtp.rcpt("b@rcpt.test")[0] == 250
        octets = message("smtplib", body="grüße").encode()
        smtp.send(chunk(octets))
        assert smtp.getreply()[0] == 250
    (mail,) = host.wait(1)
    assert received(mail.content) == octets
    assert b" with ESMTP " in mail.content.replace(b"\r\n", b" ")


def test_refused_chunks_are_swallowed(tern, sink):
    host = sink()
    router = tern(to_hosts(host, domain="rcpt.test") + '  limits = { message_size = "2K" },\n')
    with Raw(router) as raw:
        raw.hello()
        raw.send(chunk(SMUGGLED) + b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<x@other.test>\r\n"
                 + chunk(SMUGGLED, False) + chunk(SMUGGLED) + b"RSET\r\n")
        assert [r.code for r in raw.replies(6)] == [503, 250, 550, 554, 503, 250]
        raw.send(b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\n"
                 + chunk(b"x" * 990 + b"\r\n", False) * 3 + chunk(SMUGGLED) + b"NOOP\r\n")
        assert [r.code for r in raw.replies(7)] == [250, 250, 250, 250, 552, 503, 250]
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.send(b"BDAT x\r\n" + SMUGGLED)
        assert [r.code for r in raw.until_closed()] == [501]
    send(router, test_id="alive")
    assert set(host.wait_ids({"alive"})) == {"alive"}


@pytest.mark.parametrize("length", [2**32, 2**63, 10**20, 10**400],
                         ids=["2^32", "2^63", "10^20", "10^400"])
def test_a_length_alone_costs_nothing(tern, sink, length):
    router = tern(to_hosts(sink()))
    with Raw(router) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.send(f"BDAT {length} LAST\r\nxyz")
        with Raw(router) as other:
            other.hello()
    assert int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{router.child.pid}/status").read()).group(1)) < 2**19


def test_a_chunk_that_does_not_come(tern, sink):
    router = tern(to_hosts(sink()) + '  timeouts = { data = "1s", command = "1s" },\n')
    with Raw(router) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.send("BDAT 100\r\nSubject")
        assert [r.code for r in raw.until_closed()] == [421]
    assert not router.log.all("message_accepted")


# ---- smuggling ----

def session(router, context):
    raw = Raw(router)
    raw.hello()
    if context:
        raw.start_tls(context)
        raw.hello()
    return raw


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
def test_I105_smuggling_in_chunks(tern, naive, sink, smtp_sink, certificates, secure):
    """§1: each end, false or true, within a chunk and cut by chunks, as text and as BINARYMIME; then to a
    host that falls for all of them, to aiosmtpd, and to Postfix's smtp-sink."""
    careless, host = naive("PIPELINING", "8BITMIME"), sink()
    router = tern(f"""  domains = {{ ["naive.test"] = route.hosts {{ "{careless.address}" }},
              ["aio.test"] = route.hosts {{ "{host.address}" }},
              ["sink.test"] = route.hosts {{ "{smtp_sink.address}" }} }},
""", certificates=certificates)
    context = ssl.create_default_context(cafile=certificates.ca) if secure else None
    accepted = {}
    for n, (name, end) in enumerate({**FALSE_ENDS, **TRUE_ENDS}.items()):
        for binary in (False, True):
            for cut in (0, 1, 2):
                payload = b"first" + end + SMUGGLED + message(f"evil{n}").encode() + b".\r\nQUIT\r\n"
                head = binary_message(f"{n}-{binary}-{cut}", b"") if binary else (
                    f"X-Test-Id: {n}-{binary}-{cut}\r\n\r\n".encode())
                octets, at = head + payload, len(head) + 5 + cut
                for domain in ("naive.test", "aio.test", "sink.test"):
                    with session(router, context) as raw:
                        pieces = [octets[:at], octets[at:]] if cut else [octets]
                        code = by_bdat(raw, *pieces, to=f"u{n}{int(binary)}{cut}@{domain}",
                                       body=" BODY=BINARYMIME" if binary else "").code
                    good = binary or name in TRUE_ENDS
                    assert (code == 250) == good, (name, binary, cut, code)
                    if good:
                        accepted.setdefault(domain, []).append(payload)
    count = len(accepted["naive.test"])
    until(lambda: len(router.log.all("delivered")) >= 3 * count, "all is delivered", timeout=60)
    for mails in ([email.message_from_bytes(m) for m, _, _ in careless.mails],
                  [m.message for m in host.mails]):
        assert len(mails) == count
        assert sorted(body_of(m) for m in mails) == sorted(accepted["naive.test"])
    assert len(smtp_sink.mails()) == count
    assert all(not r.startswith("victim") for rs in smtp_sink.mails() for r in rs)
    until(lambda: not router.queued(), "the queue is empty")


def body_of(m):
    if m["Content-Transfer-Encoding"]:
        return m.get_payload(decode=True)
    return m.as_bytes(policy=email.policy.SMTP).split(b"\r\n\r\n", 1)[1]


# ---- on to hosts with CHUNKING ----

def test_octet_for_octet(tern, naive):
    host = naive("PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME")
    router = tern(to_hosts(host))
    binary = binary_message("binary", b"\n.\n\r.\r\0\xff\r\n.\r\n" + b"x" * 5000)
    with Raw(router) as raw:
        raw.hello()
        assert by_bdat(raw, binary, body=" BODY=BINARYMIME").code == 250
        assert by_bdat(raw, b"X-Test-Id: open\r\n\r\nno end").code == 250
        assert by_bdat(raw, message("text").encode()).code == 250
    until(lambda: len(host.mails) == 3, "all is delivered")
    how = {re.search(rb"X-Test-Id: (\w+)", m).group(1): (received(m), params, by)
           for m, params, by in host.mails}
    assert how[b"binary"][0] == binary and "BODY=BINARYMIME" in how[b"binary"][1]
    assert how[b"open"][0] == b"X-Test-Id: open\r\n\r\nno end"
    assert {k: v[2] for k, v in how.items()} == {b"binary": "BDAT", b"open": "BDAT", b"text": "DATA"}


def test_large_and_binary(tern, naive):
    """Staged into the spool, then as it is, and converted."""
    binary, plain = naive("CHUNKING", "BINARYMIME"), naive()
    router = tern(f"""  domains = {{ ["binary.test"] = route.hosts {{ "{binary.address}" }},
              ["plain.test"] = route.hosts {{ "{plain.address}" }} }},
""")
    octets = random.Random(1).randbytes(5_000_000)
    content = binary_message("large", octets)
    with Raw(router) as raw:
        raw.hello()
        for to in ("u@binary.test", "u@plain.test"):
            pieces = [content[n:n + 700_000] for n in range(0, len(content), 700_000)]
            assert by_bdat(raw, *pieces, to=to, body=" BODY=BINARYMIME").code == 250
    until(lambda: binary.mails and plain.mails, "both are delivered", timeout=60)
    assert received(binary.mails[0][0]) == content
    assert max(plain.mails[0][0]) < 128
    assert email.message_from_bytes(plain.mails[0][0]).get_payload(decode=True) == octets


def test_postfix_takes_chunks(tern, postfix):
    router = tern(to_hosts(postfix))
    with Raw(router) as raw:
        raw.hello()
        assert by_bdat(raw, b"X-Test-Id: open-end\r\n\r\n.\r\n..\r\nno end").code == 250
        assert by_bdat(raw, binary_message("to-postfix", b"\n.\n\0"), body=" BODY=BINARYMIME").code == 250
    assert postfix.wait_mail(b"X-Test-Id: open-end").endswith(b"\n\n.\n..\nno end\n")
    mail = email.message_from_bytes(postfix.wait_mail(b"X-Test-Id: to-postfix"))
    assert mail.get_payload(decode=True) == b"\n.\n\0"


def test_binary_mail_in_and_out_of_the_spool(tern, sink, folder):
    host = sink(up=False)
    router = tern(to_hosts(host) + '  queue = { retry = "1h...", host_retry = "1h", host_retry_max = "1h" },\n')
    content = binary_message("kept", b"\n.\r\0" * 1000)
    with Raw(router) as raw:
        raw.hello()
        assert by_bdat(raw, content, body=" BODY=BINARYMIME").code == 250
    until(lambda: all(not q["active"] for q in router.queues()), "its host is down")
    out = folder / "out"
    router.ok("queue", "export", out)
    assert received(next(out.glob("*.eml")).read_bytes()) == content
    assert json.loads(next(out.glob("*.json")).read_text())["binary"] is True
    router.json("queue", "remove", "--all")
    assert router.json("queue", "import", out)["accepted"] == 1
    (queued,) = router.queued()
    stored = subprocess.run([tern_binary(), "queue", "show", queued["id"], "--content", "-c", router.config],
                            stdout=subprocess.PIPE, timeout=20, check=True).stdout
    assert received(stored) == content
    host.up()
    router.ok("queue", "retry", "--all")
    assert host.wait_ids({"kept"})["kept"].message.get_payload(decode=True) == b"\n.\r\0" * 1000


# ---- converted (Q11) ----

TEXTS = ["grüße\n", "Zeile = 1 \n\n.\n--x\nFrom me\n", "日本語のテキスト" * 40 + "\n", "plain\n", ""]


def random_part(rng, depth):
    kind = rng.choice(["text", "text", "image", "qp", "multi", "message"] if depth < 4 else ["text", "image"])
    crlf = lambda s: s.replace("\n", "\r\n").encode()
    if kind == "text":
        label = rng.choice([b"Content-Transfer-Encoding: 8bit\r\n", b""])
        return label + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + crlf(rng.choice(TEXTS))
    if kind == "image":
        octets = b"\r\n".join(rng.randbytes(rng.randrange(200)).translate(None, b"\r\n\0") for _ in range(4))
        return b"Content-Type: image/x\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + octets
    if kind == "qp":
        return (b"Content-Type: text/plain; charset=utf-8\r\ncontent-transfer-encoding: Quoted-Printable"
                b"\r\n\r\ngr=C3=BC=C3=9Fe=\r\n")
    if kind == "message":
        return (b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
                b"Subject: inner\r\nMIME-Version: 1.0\r\n" + random_part(rng, depth + 1))
    boundary = f"b{rng.randrange(10**9)}".encode()
    parts = [random_part(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
    return (b'Content-Type: multipart/mixed;\r\n boundary="' + boundary + b'"\r\n'
            b"Content-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n"
            + b"".join(b"--" + boundary + b"\r\n" + p + b"\r\n" for p in parts)
            + b"--" + boundary + b"--\r\n")


def leaves(m):
    """What readers see: types and decoded contents, in order, and the fields that are nobody's to change."""
    found = []
    for part in m.walk():
        fields = [(k, v) for k, v in part.items()
                  if k.lower() not in ("content-transfer-encoding", "mime-version", "received")]
        found.append((fields, None if part.is_multipart() else part.get_payload(decode=True)))
    return found


def test_Q11_what_is_decoded_is_what_was_there(tern, naive):
    """Q11: random structures, read by another implementation before and behind."""
    host = naive("PIPELINING")
    router = tern(to_hosts(host))
    rng = random.Random(11)
    sent = {}
    with Raw(router) as raw:
        raw.hello()
        for n in range(150):
            sent[str(n)] = content = (f"X-Test-Id: {n}\r\nMIME-Version: 1.0\r\n".encode()
                                      + random_part(rng, 0))
            assert by_bdat(raw, content, body=" BODY=8BITMIME").code == 250
    until(lambda: len(host.mails) == 150, "all is delivered", timeout=60)
    for content, params, how in host.mails:
        assert how == "DATA" and "8BIT" not in params
        assert max(content) < 128
        arrived = email.message_from_bytes(content)
        was = email.message_from_bytes(sent[arrived["X-Test-Id"]])
        got, want = leaves(arrived), leaves(was)
        assert [g[0] for g in got] == [w[0] for w in want]
        for (_, g), (_, w) in zip(got, want):
            assert g == w or (g or b"").rstrip(b"\r\n") == (w or b"").rstrip(b"\r\n")


def test_Q11_signed_mail_is_returned(tern, naive, sink):
    """Q11: what cannot be converted without loss: 5.6.3, and the sender learns why."""
    host, home = naive("PIPELINING"), sink()
    router = tern(f"""  domains = {{ ["rcpt.test"] = route.hosts {{ "{host.address}" }},
              ["sender.test"] = route.hosts {{ "{home.address}" }} }},
""")
    content = ("X-Test-Id: signed\r\nMIME-Version: 1.0\r\n"
               'Content-Type: multipart/signed; boundary=b; protocol="application/pgp-signature"\r\n\r\n'
               "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
               "grüße\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\nxyz\r\n--b--\r\n").encode()
    with Raw(router) as raw:
        raw.hello()
        assert by_bdat(raw, content, body=" BODY=8BITMIME").code == 250
        assert by_bdat(raw, content.replace("grüße".encode(), b"ascii"), body=" BODY=8BITMIME").code == 250
    (dsn,) = home.wait(1)
    assert b"Status: 5.6.3" in dsn.content and b"signed part would not verify" in dsn.content.replace(
        b"\r\n ", b" ")
    until(lambda: len(host.mails) == 1, "the other one needs no conversion")
    assert b"Content-Transfer-Encoding: 8bit\r\n\r\nascii" in host.mails[0][0]
