"""The dialogue as others see it: order, framing, relaying, STARTTLS."""
import ssl

import pytest

from clients import Closed, Raw, message, send
from daemon import to_hosts
from waiting import until


@pytest.fixture
def router(tern, sink):
    host = sink()
    made = tern(to_hosts(host, domain="rcpt.test"))
    made.host = host
    return made


def alive(router, host, test_id="alive"):
    """The next session is served, and its mail arrives."""
    send(router, test_id=test_id)
    host.wait_ids({test_id})


# ---- relaying ----

@pytest.mark.parametrize("to", [
    "u@other.test", "u%rcpt.test@other.test", "u@rcpt.test.other.test", "u@[127.0.0.1]",
    "u@[IPv6:::1]", '"u@rcpt.test"@other.test', "rcpt.test!u@other.test", "u@xrcpt.test"])
@pytest.mark.parametrize("sender", ["a@sender.test", "", "a@rcpt.test", "root@localhost"])
def test_I702_I704_relaying_is_denied(router, to, sender):
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, f"MAIL FROM:<{sender}>")
        reply = raw.expect(550, f"RCPT TO:<{to}>")
        assert reply.enhanced == "5.7.1"
        raw.expect(554, "DATA")


@pytest.mark.parametrize("to", ["@rcpt.test:u@other.test", "u@other.test@rcpt.test", "u@rcpt.test.",
                                "u@2130706433", "u@１２７.test", "u@rcpt..test"])
def test_I703_addresses_that_are_none(router, to):
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        assert 500 <= raw.cmd(f"RCPT TO:<{to}>").code < 560


def test_I701_the_local_part_is_not_looked_into(router):
    """u%third@own is a mailbox of our own domain, delivered there as it is."""
    for n, local in enumerate(["u%third.test", "third.test!u", '"u@third.test"']):
        with Raw(router) as raw:
            raw.hello()
            assert raw.mail(f"{local}@rcpt.test", content=message(f"m{n}")).code == 250
    mails = router.host.wait(3)
    assert all(m.recipients[0].endswith("@rcpt.test") for m in mails)


def test_clients_that_may_relay(tern, sink):
    host = sink()
    router = tern(f"""
  relay_from = {{ "127.0.0.1/32" }},
  default_route = route.hosts {{ "{host.address}" }},
""")
    send(router, "u@anywhere.test", test_id="one")
    host.wait_ids({"one"})
    with Raw(router, source="127.9.9.9") as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(550, "RCPT TO:<u@anywhere.test>")


@pytest.mark.parametrize("size", [500, 900_000, 1_500_000, 5_000_000])
@pytest.mark.parametrize("end", ["dot", "dot and QUIT", "BDAT"])
def test_a_client_that_ends_its_side(router, end, size):
    """As a script with netcat does: it has said all, and still waits for what becomes of it."""
    times = 20 if size < 1000 else 4
    for n in range(times):
        content = message(f"m{n}", body="\n".join(["x" * 70] * (size // 72)))
        with Raw(router) as raw:
            raw.hello()
            raw.envelope("a@sender.test", "b@rcpt.test")
            if end == "BDAT":
                raw.send_last(f"BDAT {len(content)} LAST\r\n{content}")
            else:
                raw.expect(354, "DATA")
                raw.send_last(content + ".\r\n" + "QUIT\r\n" * (end != "dot"))
            assert [r.code for r in raw.until_closed()] == [250] + [221] * (end == "dot and QUIT")
    router.host.wait_ids({f"m{n}" for n in range(times)})
    assert set(router.host.ids().values()) == {1}


@pytest.mark.parametrize("clear", [True, False])
def test_a_client_that_ends_its_side_is_refused(tern, certificates, clear):
    """The refusal comes from the policy, on a later turn; by TLS the end of the client's side may come with the dot."""
    router = tern("""
  domains = { ["rcpt.test"] = { name = "p",
    data = function(ctx) return tern.reject { 550, "5.7.1", "not that" } end,
    route = function(ctx) return route.hold {} end } },
""", certificates=certificates)
    for _ in range(5):
        with Raw(router) as raw:
            raw.hello()
            if not clear:
                raw.start_tls(ssl.create_default_context(cafile=certificates.ca))
                raw.hello()
            raw.envelope("a@sender.test", "b@rcpt.test")
            raw.expect(354, "DATA")
            raw.send_last(message("x") + ".\r\n")
            assert [r.code for r in raw.until_closed()] == [550]


# ---- order ----

def test_I616_commands_in_the_wrong_order(router):
    with Raw(router) as raw:
        for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<b@rcpt.test>", "DATA"):
            assert raw.expect(503, line).enhanced == "5.5.1"
        raw.hello()
        raw.expect(503, "RCPT TO:<b@rcpt.test>")
        raw.expect(503, "DATA")
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(503, "MAIL FROM:<a@sender.test>")
        raw.expect(503, "DATA")
        raw.expect(250, "RSET")
        raw.expect(503, "RCPT TO:<b@rcpt.test>")
        raw.expect(221, "QUIT")
        assert raw.until_closed() == []


def test_small_commands(router):
    with Raw(router) as raw:
        raw.expect(250, "NOOP")
        raw.expect(250, "NOOP what ever")
        assert "MAIL" in raw.expect(214, "HELP").text
        raw.expect(250, "RSET")
        raw.expect(252, "VRFY someone")
        raw.expect(501, "VRFY")
        raw.expect(502, "EXPN list")
        raw.expect(500, "XYZZY")
        raw.expect(500, "")
        raw.expect(501, "RSET now")
        raw.expect(501, "EHLO")
        raw.expect(501, "EHLO [not-an-address]")
        raw.expect(250, "ehlo [127.0.0.1]")
        raw.expect(250, "mail from:<a@sender.test>")
        raw.expect(250, "rcpt to:<b@rcpt.test>")


def test_capabilities(router):
    with Raw(router) as raw:
        words = raw.hello().text.split("\n")
        assert words[0] == "mx.test"
        assert {"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"} <= set(words)
        assert "STARTTLS" not in words and "ETRN" not in words
        assert raw.greeting.code == 220 and raw.greeting.text.startswith("mx.test ESMTP")
        assert raw.expect(250, "HELO client.test").lines == ["250 mx.test"]


def test_rset_forgets_the_transaction(router):
    with Raw(router) as raw:
        raw.hello()
        raw.envelope("lost@sender.test", "lost@rcpt.test")
        raw.expect(250, "RSET")
        assert raw.mail("b@rcpt.test", content=message("kept")).code == 250
    mail = router.host.wait_ids({"kept"})["kept"]
    assert mail.recipients == ["b@rcpt.test"] and mail.sender == "a@sender.test"


def test_many_errors_end_a_session(router):
    with Raw(router) as raw:
        for _ in range(100):
            reply = raw.cmd("XYZZY")
            if reply.code == 421:
                break
        assert reply.code == 421 and raw.until_closed() == []
    alive(router, router.host)


def test_parameters(router):
    with Raw(router) as raw:
        raw.hello()
        raw.expect(555, "MAIL FROM:<a@sender.test> FOO=bar")
        raw.expect(501, "MAIL FROM:<a@sender.test> SIZE=x")
        raw.expect(501, "MAIL FROM:<a@sender.test> BODY=9BIT")
        raw.expect(501, "MAIL FROM:a@sender.test")
        raw.expect(250, "MAIL FROM:<a@sender.test> SIZE=1000 BODY=8BITMIME")
        raw.expect(555, "RCPT TO:<b@rcpt.test> FOO=bar")


# ---- framing ----

def test_pipelining_in_one_segment(router):
    with Raw(router) as raw:
        raw.hello()
        raw.send("MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\nRCPT TO:<x@other.test>\r\n"
                 "RCPT TO:<c@rcpt.test>\r\nDATA\r\n")
        assert [r.code for r in raw.replies(5)] == [250, 250, 550, 250, 354]
        raw.send(message("one") + ".\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\nDATA\r\n")
        assert [r.code for r in raw.replies(4)] == [250, 250, 250, 354]
        raw.send(message("two") + ".\r\nQUIT\r\n")
        assert [r.code for r in raw.replies(2)] == [250, 221]
    mails = router.host.wait_ids({"one", "two"})
    assert sorted(mails["one"].recipients) == ["b@rcpt.test", "c@rcpt.test"]


def test_I206_one_octet_per_segment(router):
    with Raw(router) as raw:
        text = ("EHLO client.test\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@rcpt.test>\r\n")
        for c in text:
            raw.send(c)
        assert [r.code for r in raw.replies(3)] == [250, 250, 250]
        raw.expect(354, "DATA")
        for c in message("slow", body="..x\n.y") + ".\r\n":
            raw.send(c)
        assert raw.reply().code == 250
    router.host.wait_ids({"slow"})


def test_I601_an_overlong_line(router):
    """It is drained, not cut into several commands; without an end the session closes."""
    with Raw(router) as raw:
        raw.hello()
        assert raw.expect(500, "NOOP " + "x" * 3000).enhanced == "5.5.2"
        raw.expect(250, "NOOP")
        try:
            raw.send("x" * 2_000_000)
        except (BrokenPipeError, ConnectionResetError):
            return  # closed while we were still talking: that is what is wanted
        assert [r.code for r in raw.until_closed()] in ([500], [])
    alive(router, router.host)


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST / HTTP/1.0", "CONNECT x:25 HTTP/1.1",
                                  "PUT /x HTTP/1.1", "HEAD / HTTP/1.1", "OPTIONS * HTTP/1.1"])
def test_I209_http(router, line):
    with Raw(router) as raw:
        raw.send(f"{line}\r\nHost: x\r\n\r\nMAIL FROM:<a@sender.test>\r\n")
        assert [r.code for r in raw.until_closed()] == [554]


def test_I103_the_next_hop_sees_clean_lines(tern, scripted_host):
    """Whatever came, what goes out has CRLF only, and dots are stuffed."""
    wire = []

    def talk(stream):
        stream.write(b"220 raw.test ESMTP\r\n")
        data = b""
        while True:
            more = stream.read(65536)
            if not more:
                return
            data += more
            if data.endswith(b"\r\n.\r\n"):
                wire.append(data)
                stream.write(b"250 2.0.0 taken\r\n")
                data = b""
                continue
            while b"\r\n" in data:
                line, rest = data.split(b"\r\n", 1)
                verb = line[:4].upper()
                if verb == b"DATA":
                    stream.write(b"354 go on\r\n")
                    data = rest
                    break
                if verb not in (b"EHLO", b"MAIL", b"RCPT", b"QUIT", b"RSET"):
                    break
                stream.write(b"250 raw.test\r\n" if verb == b"EHLO" else b"250 2.0.0 OK\r\n")
                data = rest
    host = scripted_host(talk)
    router = tern(to_hosts(host))
    body = ".\n..\n.x\n\n.\ttab\nend"
    with Raw(router) as raw:
        raw.hello()
        assert raw.mail("b@rcpt.test", content=message("one", body=body)).code == 250
    until(lambda: wire, "the message at the next hop")
    content = wire[0]
    bare = content.replace(b"\r\n", b"")
    assert b"\r" not in bare and b"\n" not in bare
    assert content.endswith(b"\r\n\r\n..\r\n...\r\n..x\r\n\r\n..\ttab\r\nend\r\n.\r\n")


# ---- loops ----

def test_received_headers(router):
    """100 of them pass, 101 are a loop."""
    def looped(n, test_id):
        return "".join(f"Received: from h{i}.test by h{i + 1}.test; Thu, 01 Jan 2026 00:00:00 +0000\r\n"
                       for i in range(n)) + message(test_id)
    with Raw(router) as raw:
        raw.hello()
        assert raw.mail("b@rcpt.test", content=looped(100, "edge")).code == 250
        reply = raw.mail("b@rcpt.test", content=looped(101, "loop"))
        assert (reply.code, reply.enhanced) == (554, "5.4.6")
        assert raw.mail("b@rcpt.test", content=message("next")).code == 250
    router.host.wait_ids({"edge", "next"})
    assert "loop" not in router.host.ids()


def test_mail_that_comes_back_to_ourselves(new_tern):
    """The target is one of our own listeners: 5.4.6, and it ends."""
    router = new_tern()
    router.configure(f'  domains = {{ ["*"] = route.hosts {{ "{router.address}" }} }},\n')
    router.start()
    send(router, sender="", test_id="one")
    bounced = router.wait_for("bounced", recipient="b@rcpt.test")
    assert bounced["code"] == 554 and "this router itself" in bounced["reply"], bounced
    assert len(router.log.all("message_accepted")) == 1


# ---- STARTTLS ----

@pytest.fixture
def secure(tern, sink, certificates):
    host = sink()
    router = tern(to_hosts(host, domain="rcpt.test"), certificates=certificates)
    router.host = host
    router.context = ssl.create_default_context(cafile=certificates.ca)
    return router


def test_I302_I303_starttls_forgets_what_was_before(secure):
    with Raw(secure) as raw:
        assert "STARTTLS" in raw.hello().text.split("\n")
        raw.start_tls(secure.context)
        raw.expect(503, "MAIL FROM:<a@sender.test>")
        assert "STARTTLS" not in raw.hello().text.split("\n")
        raw.expect(503, "STARTTLS")
        assert raw.mail("b@rcpt.test", content=message("one")).code == 250
    secure.host.wait_ids({"one"})


def test_I304_starttls_in_the_wrong_place(secure):
    with Raw(secure) as raw:
        raw.expect(503, "STARTTLS")
        raw.hello()
        raw.expect(501, "STARTTLS now")
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(503, "STARTTLS")
        raw.expect(250, "RCPT TO:<b@rcpt.test>")
        assert raw.data(message("in-clear")).code == 250
    secure.host.wait_ids({"in-clear"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_I505_old_tls_is_refused(secure):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Raw(secure) as raw:
        raw.hello()
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            raw.start_tls(context)
    with Raw(secure) as raw:
        raw.hello()
        raw.start_tls(secure.context)
        assert raw.socket.version() in ("TLSv1.2", "TLSv1.3")


def test_I508_garbage_instead_of_a_handshake(secure):
    with Raw(secure) as raw:
        raw.hello()
        raw.expect(220, "STARTTLS")
        raw.send("EHLO client.test\r\nMAIL FROM:<evil@sender.test>\r\n")
        with pytest.raises((Closed, AssertionError, OSError)):
            raw.reply()  # at most an alert, then the end: no SMTP
    alive(secure, secure.host)


def test_I305_starttls_without_a_certificate(router):
    with Raw(router) as raw:
        raw.hello()
        assert raw.cmd("STARTTLS").code in (502, 454)
        raw.expect(250, "NOOP")
