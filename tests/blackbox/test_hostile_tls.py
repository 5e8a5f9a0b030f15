"""docs/hostile-input.md, 3 to 5: TLS with clients and hosts that have something else in mind."""
import contextlib
import socket
import ssl

import pytest

from certificates import make_certificates
from clients import Raw, message, send
from processes import run

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


@pytest.fixture
def secure(watched, certificates):
    made = watched(certificates=certificates)
    made.context = ssl.create_default_context(cafile=certificates.ca)
    return made


def in_tls(w):
    raw = Raw(w.router)
    raw.hello()
    raw.start_tls(w.context)
    raw.hello()
    return raw


def plain_socket(raw):
    """The connection below the TLS of a session."""
    return socket.socket(fileno=raw.socket.detach())


# ---- clients: STARTTLS ----

@pytest.mark.parametrize("injected", [
    "EHLO evil.test\r\n", "MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@rcpt.test>\r\nDATA\r\n",
    "RCPT TO:<victim@rcpt.test>\r\n", "AUTH PLAIN AGEAYg==\r\n", "NOOP\r\n", "X", "\r\n"])
def test_I301_injection(secure, injected):
    with Raw(secure.router) as raw:
        raw.hello()
        raw.send("STARTTLS\r\n" + injected)
        first = raw.reply()
        if first.code == 220:
            raw.socket = secure.context.wrap_socket(raw.socket, server_hostname="mx.test")
            assert raw.cmd("RSET").code == 250, "an injected command was answered"
            assert raw.cmd("RCPT TO:<b@rcpt.test>").code == 503
            assert raw.cmd("MAIL FROM:<a@sender.test>").code == 503, "the injected EHLO counts"
        else:
            assert first.code >= 500 and raw.until_closed() == []
    secure.unharmed()
    assert secure.others() == []


# ---- clients: inside of TLS ----

@pytest.mark.parametrize("clean", [True, False], ids=["I501: close_notify", "I502: no close_notify"])
def test_the_end_in_the_middle_of_data(secure, clean):
    """Nothing becomes a message, and what comes behind in clear is neither text nor command."""
    with in_tls(secure) as raw:
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        raw.send(message("half"))
        if clean:
            with contextlib.suppress(OSError):
                raw.socket.settimeout(2)
                raw.socket.unwrap()  # also waits for the other side's, which may come or not
        with plain_socket(raw) as s, contextlib.suppress(OSError):
            s.settimeout(10)
            s.sendall(b".\r\nMAIL FROM:<evil@sender.test>\r\n")
            s.shutdown(socket.SHUT_WR)
            rest = b"".join(iter(lambda: s.recv(4096), b""))
            assert b"250" not in rest and b"queued" not in rest
    closed = secure.router.wait_for("session_closed", why=lambda why: why)
    secure.unharmed()
    assert secure.others() == [], closed


def test_I503_the_end_in_the_middle_of_a_chunk(secure):
    with in_tls(secure) as raw:
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.send("BDAT 100000 LAST\r\n" + message("half"))
        with contextlib.suppress(OSError):
            raw.socket.settimeout(2)
            raw.socket.unwrap()
        with plain_socket(raw) as s, contextlib.suppress(OSError):
            s.settimeout(10)
            s.sendall(b"x" * 100_000 + b"\r\nMAIL FROM:<evil@sender.test>\r\n")
            s.shutdown(socket.SHUT_WR)
            rest = b"".join(iter(lambda: s.recv(4096), b""))
            assert b"250 " not in rest
    secure.unharmed()
    assert secure.others() == []


def test_I504_renegotiation(secure):
    """R at the beginning of a line makes s_client ask for it: refused, so s_client fails."""
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.sendall(b"R\n")
        done = run(["openssl", "s_client", "-tls1_2", "-starttls", "smtp", "-connect",
                    secure.router.address], stdin=reader, timeout=30)
    out = done.stdout + done.stderr
    assert "RENEGOTIATING" in out and done.returncode != 0, out[-500:]
    assert "no renegotiation" in out.lower(), out[-500:]
    secure.unharmed()


@pytest.mark.parametrize("offered, accepted", [(["http/1.1"], False), (["h2", "http/1.1"], False),
                                               (["smtp"], True), (["http/1.1", "smtp"], True), (None, True)])
def test_I507_alpn(secure, certificates, offered, accepted):
    context = ssl.create_default_context(cafile=certificates.ca)
    if offered:
        context.set_alpn_protocols(offered)
    with Raw(secure.router) as raw:
        raw.hello()
        if accepted:
            raw.start_tls(context)
            raw.hello()
        else:
            with pytest.raises((ssl.SSLError, ConnectionResetError)) as refused:
                raw.start_tls(context)
            assert "no application protocol" in str(refused.value).lower().replace("_", " ")
    secure.unharmed()


def test_I508_no_handshake(secure):
    for sent in (b"EHLO x\r\nMAIL FROM:<evil@sender.test>\r\n", bytes(range(256)) * 40,
                 b"\x16\x03\x01\xff\xff" + b"\0" * 70000, b"\x80\x2e\x01\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
        with Raw(secure.router) as raw:
            raw.hello()
            raw.expect(220, "STARTTLS")
            with contextlib.suppress(OSError):
                raw.send(sent)
                raw.socket.shutdown(socket.SHUT_WR)
                rest = b"".join(iter(lambda: raw.socket.recv(4096), b""))
                assert len(rest) < 100 and b"50" not in rest and b"25" not in rest, rest
    secure.unharmed()
    assert secure.others() == []


# ---- hosts ----

class Answers:
    """A host that keeps what it was told, and answers STARTTLS as a test says. offers: STARTTLS in
    EHLO. after: octets, or a function of the stream."""

    def __init__(self, scripted_host, after, offers=True):
        self.heard = []
        self.behaves = False

        def talk(stream):
            stream.write(b"220 odd.test\r\n")
            for line in iter(stream.readline, b""):
                self.heard.append(line)
                verb = line[:4].upper()
                if verb == b"EHLO":
                    stream.write(b"250-odd.test\r\n250 STARTTLS\r\n" if offers else b"250 odd.test\r\n")
                elif verb == b"STAR":
                    stream.write(after)
                elif verb == b"QUIT":
                    return stream.write(b"221 bye\r\n")
                else:
                    stream.write(b"354 go\r\n" if verb == b"DATA" else b"250 OK\r\n")
        self.host = scripted_host(talk)

    def verbs(self):
        return {line[:4].upper() for line in self.heard}


INJECTED = b"220 go ahead\r\n250-odd.test\r\n250 AUTH PLAIN\r\n250 OK\r\n250 OK\r\n354 go\r\n250 taken\r\n"


@pytest.mark.parametrize("after, offers", [
    (INJECTED, True), (b"", False), (b"454 4.7.0 not now\r\n", True), (b"502 5.5.1 no\r\n", True),
    (b"250 OK\r\n" * 2000, True), (b"220\r\n" * 2000, True), (b"454 no\r\n" * 10 + b"250 OK\r\n" * 10, True)],
    ids=["I401: injected replies", "I402: not offered", "I403: 454", "I403: 502", "I404: a burst of 250",
         "I404: a burst of 220", "I404: a refusal and a burst"])
@pytest.mark.parametrize("tls", ["require", "verify"])
def test_no_tls_where_it_is_required(watched, scripted_host, tls, after, offers):
    odd = Answers(scripted_host, after, offers)
    w = watched(FAST + f"""
  relay_from = {{ "127.0.0.0/8" }},
  default_route = route.hosts {{ "{odd.host.address}", tls = "{tls}" }},
""")
    send(w.router, "u@odd.test", test_id="secret")
    w.router.wait_for(("host_failed", "deferred"), count=2, recipient="u@odd.test")
    failed = w.router.log.all(("host_failed", "deferred"))[0]
    assert failed["stage"] == "STARTTLS" and (failed["why"] or failed["reply"]), failed
    assert [line["recipient"] for line in w.router.queued()] == ["u@odd.test"]
    assert w.router.log.all("bounced") == []
    assert not odd.verbs() & {b"MAIL", b"RCPT", b"DATA", b"BDAT", b"AUTH"}, odd.verbs()
    w.unharmed()


def certificate(folder, certificates, kind):
    """A chain that must not be believed: (cert, key)."""
    folder.mkdir()
    if kind == "unknown":
        other = make_certificates(folder)
        return other.cert, other.key
    name = "other.test" if kind == "name" else "sink.test"
    key, request, cert, extra = (folder / n for n in ("key", "request", "cert", "extra"))
    extra.write_text(f"subjectAltName=DNS:{name}\n")
    dates = ["-not_before", "20200101000000Z", "-not_after", "20200201000000Z"]
    for args in (["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                  "-out", request, "-subj", f"/CN={name}"],
                 signed(folder, certificates, request, cert, extra, dates if kind == "expired" else [])):
        done = run(["openssl", *args])
        assert done.returncode == 0, done.stderr
    return cert, key


def signed(folder, certificates, request, cert, extra, dates):
    """openssl's arguments; a date in the past can only be set by `ca`."""
    authority = ["-CA", certificates.ca, "-CAkey", certificates.ca.parent / "ca.key"]
    if not dates:
        return ["x509", "-req", "-in", request, *authority, "-set_serial", "7", "-out", cert, "-days", "2",
                "-extfile", extra]
    (folder / "index").write_text("")
    (folder / "conf").write_text(
        f"[ca]\ndefault_ca=x\n[x]\ndatabase={folder}/index\nnew_certs_dir={folder}\n"
        f"default_md=sha256\npolicy=p\nrand_serial=yes\n[p]\ncommonName=supplied\n")
    return ["ca", "-batch", "-config", folder / "conf", "-in", request, "-cert", certificates.ca,
            "-keyfile", certificates.ca.parent / "ca.key", "-out", cert, "-notext", "-extfile", extra,
            "-startdate", dates[1], "-enddate", dates[3]]


@pytest.mark.parametrize("kind, words", [("unknown", "unable to get local issuer"), ("expired", "expired"),
                                         ("name", "hostname mismatch"), ("good", None)],
                         ids=["I405: unknown authority", "I406: expired", "I407: another name", "good"])
def test_certificates(watched, sink, nsd, certificates, folder, kind, words):
    class Pair:
        cert, key = certificate(folder / "pair", certificates, kind)
    host = sink(certificates=Pair)
    w = watched(FAST + """
  relay_from = { "127.0.0.0/8" },
  default_route = route.hosts { "sink.test", tls = "verify" },
""", certificates=certificates, dns=nsd(f"sink.test. A {host.ip}"))
    send(w.router, "u@odd.test", test_id="secret")
    if kind == "good":
        assert host.wait_ids({"secret"})["secret"].tls
        return
    failed = w.router.wait_for(("host_failed", "deferred"), count=2, recipient="u@odd.test")
    assert words in failed["why"], failed
    why = w.router.ok("why", w.router.queued()[0]["id"])
    assert words in why, why
    assert host.mails == [] and w.router.log.all("bounced") == []
    w.unharmed()
