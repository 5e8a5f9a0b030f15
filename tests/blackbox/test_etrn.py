"""ETRN: mail accumulates until the domain's server asks for it, from the right address."""
import base64
import hmac
import json
import shutil
import ssl

import pytest

from addresses import fresh_ip
from certificates import make_certificates
from clients import Raw, send
from processes import run

PRELUDE = 'local etrn = require "policies.etrn"\n'


def fields(deliver_to, allow, more="", queue=""):
    return f"""
  queue = {{ retry = "1s...", host_retry = "1s", host_retry_max = "1s" }},
  domains = {{ ["shop.test"] = etrn {{ deliver_to = "{deliver_to}", allow = {{ "{allow}" }} }} }},
{more}"""


@pytest.fixture
def shop(tern, sink):
    """The router, the shop's mail host, and the address of the shop from which it may ask."""
    host, client = sink(), fresh_ip()
    router = tern(fields(host.address, client + "/32"), PRELUDE)
    return router, host, client


def ask(router, source, argument="shop.test"):
    with Raw(router, source=source) as raw:
        raw.hello()
        return raw.cmd("ETRN " + argument)


def test_E5_E7_mail_is_held_and_then_released(shop):
    router, host, client = shop
    for n in range(3):
        send(router, "u@shop.test", test_id=f"m{n}")
    refused = ask(router, "127.0.0.1")
    assert refused.code == 459, refused
    assert "3" not in refused.text, "a stranger learns how much waits"
    assert host.greeted == []
    granted = ask(router, client)
    assert granted.code == 253 and " 3 " in granted.text, granted
    host.wait_ids({"m0", "m1", "m2"})
    router.wait_for("queue_release_ended", queue="shop.test")
    assert ask(router, client).code == 251
    assert max(host.ids().values()) == 1


def test_nothing_waits(shop):
    router, host, client = shop
    assert ask(router, client).code == 251


def test_mail_that_comes_later_is_held_again(shop):
    router, host, client = shop
    send(router, "u@shop.test", test_id="first")
    assert ask(router, client).code == 253
    host.wait_ids({"first"})
    router.wait_for("queue_release_ended", queue="shop.test")
    greeted = len(host.greeted)
    send(router, "u@shop.test", test_id="second")
    router.restart()  # E7: nor does a restart release it
    assert ask(router, "127.0.0.1").code == 459
    assert len(host.greeted) == greeted and "second" not in host.ids()
    assert ask(router, client).code == 253
    host.wait_ids({"second"})


def test_E9_only_that_domains_recipients(tern, sink):
    """E9: they share a message with others."""
    shop, other, client = sink(), sink(), fresh_ip()
    router = tern(f"""
  domains = {{
    ["shop.test"] = etrn {{ deliver_to = "{shop.address}", allow = "{client}/32" }},
    ["store.test"] = etrn {{ deliver_to = "{other.address}", allow = "{client}/32" }},
  }},
""", PRELUDE)
    send(router, ["u@shop.test", "v@store.test"], test_id="both")
    assert ask(router, client).code == 253
    assert shop.wait()[0].recipients == ["u@shop.test"]
    router.wait_for("queue_release_ended", queue="shop.test")
    assert other.greeted == []
    assert ask(router, client, "STORE.test").code == 253
    assert other.wait()[0].recipients == ["v@store.test"]


def test_a_host_that_is_down_when_it_is_released(tern, sink):
    """E8: what fails is tried again for a while."""
    host, client = sink(up=False), fresh_ip()
    router = tern(fields(host.address, client + "/32"), PRELUDE)
    send(router, "u@shop.test", test_id="one")
    assert ask(router, client).code == 253
    router.wait_for("queue_backoff", queue="shop.test")
    host.up()
    host.wait_ids({"one"})


def test_E8_what_fails_is_held_again(tern, sink):
    """E8: after the window it waits for the next request."""
    host, client = sink(up=False), fresh_ip()
    router = tern(fields(host.address, client + "/32").replace("allow =", 'window = "2s", allow ='),
                  PRELUDE)
    send(router, "u@shop.test", test_id="one")
    assert ask(router, client).code == 253
    router.wait_for("queue_backoff", queue="shop.test")
    router.wait_for("queue_release_ended", queue="shop.test")
    host.up()
    assert ask(router, "127.0.0.1").code == 459
    assert host.greeted == []
    assert ask(router, client).code == 253
    host.wait_ids({"one"})


def test_E5_deliver_to_client(tern, sink):
    """E5: only when the policy says so, the address that asked gets the mail (at port 25)."""
    client = sink()
    router = tern(fields("client", client.ip + "/32"), PRELUDE)
    send(router, "u@shop.test", test_id="one")
    assert ask(router, client.ip).code == 253
    client.wait_ids({"one"})


@pytest.mark.parametrize("argument, code", [
    ("", 500), ("not_a..domain", 501), ("-bad-.test", 501), ("unknown.test", 459),
    ("sub.shop.test", 459), ("@shop.test", 459), ("#nosuch", 459)])
def test_E2_E3_E6_arguments(shop, argument, code):
    """E2, E3, E6."""
    router, _, client = shop
    assert ask(router, client, argument).code == code


def test_E2_states(shop):
    """ETRN before EHLO and inside a transaction: 503."""
    router, host, client = shop
    with Raw(router, source=client) as raw:
        assert raw.cmd("ETRN shop.test").code == 503
        assert "ETRN" in raw.hello().text.split("\n")
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(503, "ETRN shop.test")
        raw.expect(250, "RSET")
        raw.expect(251, "ETRN shop.test")


def test_E1_not_offered_without_etrn_domains(tern, sink):
    """E1."""
    router = tern('  domains = { ["a.test"] = route.hosts { "127.0.0.9:25" } },\n')
    with Raw(router) as raw:
        assert "ETRN" not in raw.hello().text.split("\n")
        assert raw.cmd("ETRN a.test").code in (459, 500, 502)


def test_E14_the_operator_asks(shop):
    router, host, _ = shop
    send(router, "u@shop.test", test_id="one")
    router.ok("etrn", "shop.test")
    host.wait_ids({"one"})
    refused = router.cli("etrn", "unknown.test")
    assert refused.returncode != 0 and "unknown.test" in refused.stderr


def test_E14_an_http_call_does_the_same(shop):
    router, host, _ = shop
    send(router, "u@shop.test", test_id="one")
    done = run(["curl", "-sS", "--unix-socket", router.spool / "control.sock", "-d",
                '{"domain": "shop.test"}', "http://x/v1/etrn"])
    assert done.returncode == 0 and json.loads(done.stdout)["code"] == 253, done
    host.wait_ids({"one"})


@pytest.mark.skipif(not shutil.which("fetchmail"), reason="fetchmail is not installed")
def test_fetchmail_asks(tern, sink, folder):
    """A client that others use: fetchmail --protocol ETRN."""
    host = sink()
    router = tern(fields(host.address, "127.0.0.1/32"), PRELUDE)
    send(router, "u@shop.test", test_id="one")
    rc = folder / "fetchmailrc"
    rc.write_text(f"""\
set no syslog
set pidfile "{folder}/fetchmail.pid"
poll {router.ip} protocol ETRN service 25 fetchdomains shop.test
""")
    rc.chmod(0o600)
    done = run(["fetchmail", "-v", "-f", rc], env={"PATH": "/usr/bin:/bin", "HOME": str(folder),
                                                  "FETCHMAILHOME": str(folder)})
    assert "ETRN< 253" in done.stdout + done.stderr, done.stdout + done.stderr
    host.wait_ids({"one"})


def test_E12_certificate_of_the_client(tern, sink, certificates, folder):
    """Only a certificate of that subject, signed by an authority that we trust for clients, may ask."""
    host = sink()
    foreign = folder / "foreign"
    foreign.mkdir()
    foreign = make_certificates(foreign)
    c = certificates
    router = tern(f"""
  tls = {{ cert = "{c.cert}", key = "{c.key}", client_ca = "{c.ca}" }},
  domains = {{ ["shop.test"] = etrn {{ deliver_to = "{host.address}", certificate = "CN=mx.test" }} }},
""", PRELUDE)
    send(router, "u@shop.test", test_id="one")

    def asks(mine):
        with Raw(router) as raw:
            raw.hello()
            raw.expect(220, "STARTTLS")
            context = ssl.create_default_context(cafile=c.ca)
            if mine:
                context.load_cert_chain(mine.cert, mine.key)
            raw.socket = context.wrap_socket(raw.socket, server_hostname="mx.test")
            raw.hello()
            return raw.cmd("ETRN shop.test")

    assert ask(router, "127.0.0.1").code == 459
    assert asks(None).code == 459
    assert asks(foreign).code == 459
    assert host.greeted == []
    assert asks(certificates).code == 253
    host.wait_ids({"one"})


ODMR = """
  listen = {{ "{address}", {{ "{odmr}", service = "odmr" }} }},
  auth = {{ mechanisms = "CRAM-MD5" }},
  policies = {{ {{ name = "directory", auth = function(ctx)
    return require("tern").accept {{ identity = ctx.credentials.user, password = "pencil" }}
  end }} }},
  domains = {{
    ["shop.test"] = etrn {{ identity = "ana" }},
    ["store.test"] = etrn {{ identity = "ana" }},
    ["other.test"] = etrn {{ identity = "bob" }},
  }},
"""


@pytest.fixture
def odmr(new_tern):
    """A router with a listener for ATRN on port 366."""
    router = new_tern()
    router.configure(ODMR.format(address=router.address, odmr=f"{router.ip}:366"), PRELUDE)
    return router.start()


def authenticate(raw, user):
    challenge = raw.expect(334, "AUTH CRAM-MD5").text
    digest = hmac.new(b"pencil", base64.b64decode(challenge), "md5").hexdigest()
    raw.expect(235, base64.b64encode(f"{user} {digest}".encode()).decode())


def test_E13_raw_dialogue(odmr):
    """The whole of RFC 2645 by hand, with the mail of two queues over one connection."""
    send(odmr, "u@shop.test", test_id="one")
    send(odmr, "u@store.test", test_id="two")
    send(odmr, "u@other.test", test_id="three")
    with Raw(odmr, port=366) as raw:
        assert "ATRN" in raw.hello().text.split("\n")
        raw.expect(530, "ATRN shop.test")
        authenticate(raw, "ana")
        raw.expect(450, "ATRN shop.test,other.test")
        raw.expect(250, "ATRN shop.test,store.test")
        raw.send("220 shop.test ready\r\n")
        got, quit_seen = 0, False
        while not quit_seen:
            line = raw._line()
            if line == "DATA":
                raw.send("354 go on\r\n")
                while raw._line() != ".":
                    pass
                got += 1
            quit_seen = line == "QUIT"
            assert line.split(" ")[0] in ("EHLO", "MAIL", "RCPT", "DATA", "RSET", "QUIT"), line
            raw.send("221 2.0.0 bye\r\n" if quit_seen else "250 2.0.0 OK\r\n")
        assert got == 2
    assert odmr.wait_for("delivered", recipient="u@shop.test")["host"].endswith("by ATRN")
    with Raw(odmr, port=366) as raw:
        raw.hello()
        authenticate(raw, "ana")
        raw.expect(453, "ATRN")
    with Raw(odmr) as raw:
        assert "ATRN" not in raw.hello().text.split("\n")
        raw.expect(502, "ATRN shop.test")


@pytest.mark.skipif(not shutil.which("fetchmail"), reason="fetchmail is not installed")
def test_E13_fetchmail_fetches(odmr, sink, folder):
    """A client that others use: fetchmail --protocol ODMR."""
    host = sink()
    for n in range(5):
        send(odmr, "u@shop.test", test_id=f"m{n}")
    rc = folder / "fetchmailrc"
    rc.write_text(f"""\
set no syslog
set pidfile "{folder}/fetchmail.pid"
poll {odmr.ip} protocol ODMR service 366 user "ana" password "pencil"
  fetchdomains shop.test smtphost {host.address.replace(":", "/")}
""")
    rc.chmod(0o600)
    done = run(["fetchmail", "-v", "-f", rc], env={"PATH": "/usr/bin:/bin", "HOME": str(folder),
                                                  "FETCHMAILHOME": str(folder)})
    assert "ODMR< 250" in done.stdout + done.stderr, done.stdout + done.stderr
    host.wait_ids({f"m{n}" for n in range(5)})
    odmr.wait_for("turn_ended")
    assert max(host.ids().values()) == 1


def test_E13_tls_is_kept(new_tern, certificates):
    """RFC 2645 §5.2: what was agreed before the roles turned holds afterwards."""
    router = new_tern(certificates=certificates)
    router.configure(ODMR.format(address=router.address, odmr=f"{router.ip}:366"), PRELUDE)
    router.start()
    body = "x" * 70 + "\n"
    send(router, "u@shop.test", test_id="large", body=body * 4000)
    with Raw(router, port=366) as raw:
        raw.hello()
        raw.expect(220, "STARTTLS")
        context = ssl.create_default_context(cafile=certificates.ca)
        raw.socket = context.wrap_socket(raw.socket, server_hostname="mx.test")
        raw.hello()
        authenticate(raw, "ana")
        raw.expect(250, "ATRN shop.test")
        raw.send("220 shop.test ready\r\n")
        assert raw._line().startswith("EHLO ")
        raw.send("250-shop.test\r\n250 SIZE\r\n")
        for command, code in (("MAIL", 250), ("RCPT", 250), ("DATA", 354)):
            assert raw._line().startswith(command)
            raw.send(f"{code} go on\r\n")
        octets = 0
        while (line := raw._line()) != ".":
            octets += len(line) + 2
        assert octets > 4000 * 72
        raw.send("250 taken\r\n")
        assert raw._line() == "QUIT"
        raw.send("221 bye\r\n")
    router.wait_for("turn_ended", why="done")


def test_E14_the_operator_asks_for_several(tern, sink):
    """E6 by the command line, which is the control API."""
    host = sink()
    keep = f'etrn {{ deliver_to = "{host.address}", subdomains = true, group = "shops" }}'
    router = tern(f"""
  domains = {{ ["shop.test"] = {keep}, [".shop.test"] = {keep}, ["store.test"] = {keep} }},
""", PRELUDE)
    for domain in ("shop.test", "a.shop.test", "store.test"):
        send(router, f"u@{domain}", test_id=domain)
    assert " 2 " in router.ok("etrn", "@shop.test")
    host.wait_ids({"shop.test", "a.shop.test"})
    assert "store.test" not in host.ids()
    router.ok("etrn", "#shops")
    host.wait_ids({"store.test"})


def test_E11_the_quota_holds_after_a_crash(tern, sink):
    """What waits is counted by the spool: in each worker, and after kill -9."""
    host, client = sink(), fresh_ip()
    router = tern(fields(host.address, client + "/32").replace(
        "allow =", "quota = { messages = 3 }, allow ="), PRELUDE)
    for n in range(3):
        send(router, "u@shop.test", test_id=f"m{n}")

    def refused():
        with Raw(router) as raw:
            raw.hello()
            raw.expect(250, "MAIL FROM:<a@sender.test>")
            return raw.cmd("RCPT TO:<u@shop.test>")

    for _ in range(4):  # whichever worker takes it
        reply = refused()
        assert reply.code == 452 and reply.text.startswith("4.2.2"), reply
    router.kill9()
    router.start()
    assert refused().code == 452
    assert ask(router, client).code == 253
    host.wait_ids({"m0", "m1", "m2"})
    router.wait_for("queue_release_ended", queue="shop.test")
    send(router, "u@shop.test", test_id="m3")
