"""PROXY (versions 1 and 2) and XCLIENT: the client is who a trusted peer says, and nobody else's word
counts."""
import re
import socket
import ssl

import pytest

from addresses import fresh_ip
from clients import Closed, Raw, send, swaks

ETRN = 'local etrn = require "policies.etrn"\n'
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT = "192.0.2.7"
CLIENT6 = "2001:db8::7"


def v1(client=CLIENT, server="198.51.100.1"):
    family = "TCP6" if ":" in client else "TCP4"
    server = "2001:db8::1" if ":" in client else server
    return f"PROXY {family} {client} {server} 4711 25\r\n".encode()


def v2(client=CLIENT, tlv=b""):
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    server = "2001:db8::1" if ":" in client else "198.51.100.1"
    body = socket.inet_pton(family, client) + socket.inet_pton(family, server) \
        + (4711).to_bytes(2, "big") + (25).to_bytes(2, "big") + tlv
    kind = b"\x21" if ":" in client else b"\x11"
    return SIGNATURE + b"\x21" + kind + len(body).to_bytes(2, "big") + body


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
HEADERS = pytest.mark.parametrize("header", [v1(), v2(), v2(tlv=b"\x03\x00\x04abcd")],
                                  ids=["v1", "v2", "v2 with a TLV"])


@pytest.fixture
def router(new_tern, certificates, sink):
    """Ports 25 and 465 expect PROXY from `balancer`, and XCLIENT is `filter`'s; both ways of asking hang
    on the client's address: ETRN for shop.test, and relaying."""
    host, balancer, filter_ = sink(), fresh_ip(), fresh_ip()
    tern = new_tern("", certificates=certificates)
    networks = f'"{CLIENT}/32", "{CLIENT6}/128"'
    tern.configure(f"""
  listen = {{ {{ "{tern.address}", proxy = "{balancer}/32" }},
             {{ "{tern.ip}:465", tls = "implicit", proxy = {{ "{balancer}/32" }} }} }},
  xclient_from = {{ "{filter_}/32" }},
  relay_from = {{ {networks} }},
  timeouts = {{ proxy = "2s" }},
  domains = {{ ["shop.test"] = etrn {{ deliver_to = "{host.address}", allow = {{ {networks} }} }} }},
  default_route = route.hosts {{ "{host.address}" }},
  policies = {{ {{ name = "seen", mail = function(ctx)
    local s = ctx.session
    tern.log.info {{ "seen", client = s.client.address, port = s.client.port, name = s.client.name,
      server = s.server.address, proxy = s.proxy and s.proxy.address or "none",
      identity = s.identity or "none" }}
  end }} }},
""", ETRN)
    tern.start()
    tern.host, tern.balancer, tern.filter = host, balancer, filter_
    return tern


def proxied(router, header, source=None, port=None):
    raw = Raw(router, source=source or router.balancer, port=port, greet=False)
    raw.send(header)
    return raw


def greeted(router, header, **how):
    raw = proxied(router, header, **how)
    raw.greeting = raw.reply()
    assert raw.greeting.code == 220
    return raw


def text(mail):
    return mail.content.decode()


def closed_without_a_word(raw):
    with pytest.raises(Closed) as e:
        raw.reply()
    return e.value.args[0] == b""


# ---- PROXY -----------------------------------------------------------------------------------------

@HEADERS
def test_E12_the_address_told_by_proxy_decides_etrn(router, header):
    send_held(router)
    with greeted(router, v1("192.0.2.99")) as raw:
        raw.hello()
        assert raw.cmd("ETRN shop.test").code == 459
    with greeted(router, header) as raw:
        raw.hello()
        assert raw.cmd("ETRN shop.test").code == 253
    router.host.wait_ids({"held"})


def send_held(router):
    send(router, "u@shop.test", test_id="held", source=fresh_ip())


@pytest.mark.parametrize("make", [v1, v2])
def test_E12_ipv6(router, make):
    with greeted(router, make(CLIENT6)) as raw:
        raw.hello()
        assert raw.cmd("ETRN shop.test").code == 251
        assert raw.mail("x@far.test").code == 250
    mail = router.host.wait()[0]
    assert f"[IPv6:{CLIENT6}]" in text(mail)
    assert router.log.wait("policy_log", client=CLIENT6)["server"] == "2001:db8::1"


@HEADERS
def test_the_address_told_is_the_clients(router, header):
    """relay_from, policies, Received and the log have it."""
    with greeted(router, header) as raw:
        raw.hello()
        assert raw.mail("x@far.test").code == 250
    mail = router.host.wait()[0]
    assert f"([{CLIENT}])" in text(mail) and router.balancer not in text(mail)
    seen = router.log.wait("policy_log")
    assert (seen["client"], seen["port"], seen["server"]) == (CLIENT, 4711, "198.51.100.1")
    assert seen["proxy"] == router.balancer
    assert router.log.wait("message_accepted")["client"] == CLIENT


def test_who_else_comes_that_way_may_not_relay(router):
    with greeted(router, v1("192.0.2.99")) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(550, "RCPT TO:<x@far.test>")


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x21\x00\x00\x00"],
                         ids=["LOCAL", "UNKNOWN", "UNSPEC"])
def test_without_an_address_it_is_the_balancer_itself(router, header):
    with greeted(router, header) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(550, "RCPT TO:<x@far.test>")
    seen = router.log.wait("policy_log")
    assert (seen["client"], seen["proxy"]) == (router.balancer, "none")


@pytest.mark.parametrize("header", [v1(), v2()], ids=["v1", "v2"])
@pytest.mark.parametrize("pieces", ["whole", "octets"])
def test_implicit_tls_behind_it(router, certificates, header, pieces):
    """The header is in clear; the handshake may come in the same segment."""
    context = ssl.create_default_context(cafile=str(certificates.ca))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="mx.test")
    with Raw(router, source=router.balancer, port=465, greet=False) as raw:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        first = header + outgoing.read()
        for i in range(0, len(first), 1 if pieces == "octets" else len(first)):
            raw.send(first[i:i + (1 if pieces == "octets" else len(first))])

        def until(action):
            while True:
                try:
                    result = action()
                    raw.send(outgoing.read())
                    return result
                except ssl.SSLWantReadError:
                    raw.send(outgoing.read())
                    got = raw.socket.recv(65536)
                    assert got, "closed"
                    incoming.write(got)

        until(tls.do_handshake)
        assert until(lambda: tls.read(1000)).startswith(b"220 ")
        tls.write(b"EHLO client.test\r\n")
        raw.send(outgoing.read())
        assert b"250-mx.test" in until(lambda: tls.read(1000))
        tls.write(b"ETRN shop.test\r\n")
        raw.send(outgoing.read())
        assert until(lambda: tls.read(1000)).startswith(b"251 ")


def test_starttls_behind_it(router, certificates):
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with greeted(router, v2()) as raw:
        raw.hello()
        raw.start_tls(context)
        raw.hello()
        assert raw.cmd("ETRN shop.test").code == 251


def test_implicit_tls_of_others_needs_no_header(router, certificates):
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with Raw(router, port=465, greet=False) as raw:
        raw.socket = context.wrap_socket(raw.socket, server_hostname="mx.test")
        assert raw.reply().code == 220


@pytest.mark.parametrize("header", [
    b"EHLO client.test\r\n", b"PROXY TCP4 here there 1 2\r\n", v1()[:-2] + b" more\r\n",
    SIGNATURE + b"\x31\x11\x00\x0c", SIGNATURE + b"\x21\x11\xff\xff", b"\x16\x03\x01\x00\xff"],
    ids=["none", "bad address", "more words", "version 3", "too long", "TLS"])
def test_I614_a_bad_header_ends_the_connection(router, header):
    with proxied(router, header) as raw:
        assert closed_without_a_word(raw)
    assert router.log.wait("proxy_header_bad")["client"] == router.balancer


@pytest.mark.parametrize("header", [b"", v1()[:-1], v2()[:-1]], ids=["nothing", "v1", "v2"])
def test_I614_the_header_has_a_deadline(router, header):
    with proxied(router, header) as raw:
        assert closed_without_a_word(raw)
    assert "PROXY" in router.log.wait("session_closed", client=router.balancer)["why"]


def test_I210_talking_before_the_greeting_is_seen(router):
    with proxied(router, v1() + b"EHLO client.test\r\n") as raw:
        assert raw.reply().code == 554
        assert closed_without_a_word(raw)


def test_E12_I615_an_untrusted_peer_cannot_tell(router):
    """From anybody else the header is no command."""
    with Raw(router) as raw:
        assert raw.cmd(v1().decode().rstrip()).code == 500
        raw.hello()
        assert raw.cmd("ETRN shop.test").code == 459
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(550, "RCPT TO:<x@far.test>")


# ---- XCLIENT ---------------------------------------------------------------------------------------

def test_E12_the_address_told_by_xclient_decides_etrn(router):
    send_held(router)
    with Raw(router, source=router.filter) as raw:
        assert re.search(r"^XCLIENT .*\bADDR\b.*\bLOGIN\b", raw.hello().text, re.M)
        assert raw.cmd("ETRN shop.test").code == 459
        raw.expect(220, f"XCLIENT ADDR={CLIENT}")
        raw.expect(503, "ETRN shop.test")
        raw.hello()
        assert raw.cmd("ETRN shop.test").code == 253
        raw.expect(220, "XCLIENT ADDR=192.0.2.99")
        raw.hello()
        assert raw.cmd("ETRN shop.test").code == 459
        raw.expect(220, f"XCLIENT ADDR=IPV6:{CLIENT6}")
        raw.hello()
        assert raw.cmd("ETRN shop.test").code in (250, 251, 252)
    router.host.wait_ids({"held"})


def test_E12_I615_nobody_else_may_say_xclient(router):
    for source in (None, router.balancer):
        with greeted(router, v1("192.0.2.99")) if source else Raw(router) as raw:
            assert "XCLIENT" not in raw.hello().text
            assert raw.cmd(f"XCLIENT ADDR={CLIENT}").enhanced == "5.7.1"
            assert raw.cmd("ETRN shop.test").code == 459
            raw.expect(250, "MAIL FROM:<a@sender.test>")
            raw.expect(550, "RCPT TO:<x@far.test>")


def test_all_that_xclient_tells(router):
    with Raw(router, source=router.filter) as raw:
        raw.hello()
        raw.expect(220, f"XCLIENT NAME=spike.test ADDR={CLIENT} PORT=4711 PROTO=ESMTP HELO=spike.test "
                        "LOGIN=a+40b.test DESTADDR=198.51.100.1 DESTPORT=25")
        raw.hello("spike.test")
        assert raw.mail("x@far.test").code == 250
        seen = router.log.wait("policy_log")
        assert (seen["client"], seen["port"], seen["name"]) == (CLIENT, 4711, "spike.test")
        assert (seen["server"], seen["proxy"]) == ("198.51.100.1", router.filter)
        assert seen["identity"] == "a@b.test"
        raw.expect(501, "XCLIENT ADDR=nonsense")
        raw.expect(220, "XCLIENT ADDR=192.0.2.99 LOGIN=[UNAVAILABLE]")
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        assert router.log.wait("policy_log", 2)["identity"] == "none"
        raw.expect(550, "RCPT TO:<x@far.test>")
    assert f"([{CLIENT}])" in text(router.host.wait()[0])


def test_an_address_that_nobody_knows(router):
    """[UNAVAILABLE]: 0.0.0.0 to policies."""
    with Raw(router, source=router.filter) as raw:
        raw.hello()
        raw.expect(220, "XCLIENT ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]")
        raw.hello()
        assert raw.cmd("ETRN shop.test").code == 459
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        assert router.log.wait("policy_log")["client"] == "0.0.0.0"
        raw.expect(550, "RCPT TO:<x@far.test>")
        raw.expect(250, "RCPT TO:<u@shop.test>")
        raw.expect(354, "DATA")
        raw.send("Subject: x\r\n\r\nx\r\n.\r\n")
        assert raw.reply().code == 250
    router.restart()  # it is read from the spool as it was written


def test_swaks_says_xclient(router):
    told = ["--xclient-addr", CLIENT, "--xclient-name", "spike.test", "--to", "x@far.test"]
    done = swaks(router, "--local-interface", router.filter, *told)
    assert done.returncode == 0, done.stdout
    assert f"([{CLIENT}])" in text(router.host.wait()[0])
    assert swaks(router, *told).returncode != 0


@pytest.mark.parametrize("version", ["1", "2"])
def test_swaks_says_proxy(router, version):
    family = "TCP4" if version == "1" else "AF_INET"
    done = swaks(router, "--local-interface", router.balancer, "--to", "x@far.test",
                 "--proxy-version", version, "--proxy-family", family,
                 "--proxy-source", CLIENT, "--proxy-source-port", "4711",
                 "--proxy-dest", "198.51.100.1", "--proxy-dest-port", "25")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"([{CLIENT}])" in text(router.host.wait()[0])
