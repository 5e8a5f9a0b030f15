"""TLS of the listeners, as other implementations see it: certificates by name, sessions taken up again,
certificates of clients, what is refused, and a change of certificates while the router runs."""
import os
import pathlib
import shutil
import smtplib
import socket
import ssl

import pytest

from certificates import make_certificates
from clients import Raw, message, send, swaks
from daemon import to_hosts
from processes import run

IMPLICIT, STRICT, ASKING = 2465, 2466, 2467
ALGORITHMS = {"rsa": ["-newkey", "rsa:2048"],
              "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]}


def self_signed(folder, name, names, algorithm="ec"):
    """NAME.pem and NAME.key, for these names."""
    made = run(["openssl", "req", "-x509", *ALGORITHMS[algorithm], "-nodes",
                "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem",
                "-days", 30, "-subj", f"/CN={name}",
                "-addext", "subjectAltName=" + ",".join(f"DNS:{n}" for n in names)])
    assert made.returncode == 0, made.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    self_signed(folder, "rsa", ["mx.test"], "rsa")
    self_signed(folder, "ec", ["mx.test"])
    self_signed(folder, "other", ["other.test", "*.other.test"])
    self_signed(folder, "client", ["client.test"])
    self_signed(folder, "stranger", ["client.test"])
    return folder


def pair(folder, name):
    return f'cert = "{folder}/{name}.pem", key = "{folder}/{name}.key"'


def fields(made, more=""):
    return f"""\
  tls = {{ {pair(made, "rsa")}, certificates = {{ {{ {pair(made, "ec")} }}, {{ {pair(made, "other")} }} }} }},
  default_route = route.discard {{}}, relay_from = "127.0.0.0/8",
{more}"""


def listening(router, more=""):
    ip = router.ip
    return f"""\
  listen = {{ "{router.address}", {{ "{ip}:{IMPLICIT}", tls = "implicit" }}, {more} }},
"""


def s_client(router, *options, port=IMPLICIT, say=""):
    """What openssl s_client printed, after the greeting has come and these commands were answered."""
    commands = "".join(line + "\r\n" for line in ["EHLO c.test", *say.splitlines(), "QUIT"])
    return run(["openssl", "s_client", "-connect", f"{router.ip}:{port}", "-ign_eof", "-crlf",
                *options], stdin=None, timeout=20,
               input=commands.replace("\r\n", "\n"))


@pytest.fixture
def router(new_tern, made):
    r = new_tern()
    r.configure(fields(made) + listening(r) + "  workers = 3,\n")
    return r.start()


def counter(router, name):
    return router.json("status")["counters"][name]


# ---- which certificate ----

BY_NAME = [
    ((), "CN = ec", "ECDSA"),
    (("-noservername",), "CN = ec", "ECDSA"),
    (("-servername", "mx.test", "-sigalgs", "rsa_pss_rsae_sha256"), "CN = rsa", "RSA-PSS"),
    (("-servername", "mx.test", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), "CN = rsa", "RSA"),
    (("-servername", "nobody.test"), "CN = ec", "ECDSA"),
    (("-servername", "other.test"), "CN = other", "ECDSA"),
    (("-servername", "A.Other.test"), "CN = other", "ECDSA"),
    (("-servername", "b.a.other.test"), "CN = ec", "ECDSA"),
]


def test_certificate_by_name(router):
    for options, subject, signature in BY_NAME:
        shown = s_client(router, *options).stdout
        assert f"subject={subject}\n" in shown, (options, shown)
        assert f"Peer signature type: {signature}" in shown, (options, shown)


# ---- sessions ----

@pytest.mark.parametrize("options", [("-tls1_3",), ("-tls1_2",), ("-tls1_2", "-no_ticket")],
                         ids=["1.3", "1.2", "1.2 without tickets"])
def test_sessions_are_taken_up_by_any_worker(router, folder, options):
    kept = folder / "session"
    first = s_client(router, *options, "-sess_out", kept).stdout
    assert "\nNew, TLSv1." in first and "221 2.0.0" in first, first
    for _ in range(6):
        again = s_client(router, *options, "-sess_in", kept).stdout
        assert "\nReused, TLSv1." in again and "221 2.0.0" in again, again
    assert counter(router, "tls_resumed") == 6 and counter(router, "tls_sessions") == 7


def test_sessions_of_clients_that_hang_up(router, folder):
    """Without QUIT, and without close_notify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    session = None
    for n in range(3):
        with socket.create_connection((router.ip, IMPLICIT), timeout=15) as raw:
            secure = context.wrap_socket(raw, session=session)
            assert secure.recv(1000).startswith(b"220 ")
            assert secure.session_reused == (n > 0)
            session = secure.session
            os.close(secure.detach())


def test_sessions_outlive_a_reload(router, folder, made):
    kept = folder / "session"
    s_client(router, "-sess_out", kept)
    router.reload()
    assert "\nReused, TLSv1.3" in s_client(router, "-sess_in", kept).stdout
    assert "\nReused, TLSv1.3" in s_client(router, "-starttls", "smtp", "-sess_in", kept,
                                           port=router.port).stdout


def test_no_early_data(router, folder):
    kept, early = folder / "session", folder / "early"
    early.write_text("EHLO early.test\r\n")
    assert "Max Early Data: 0" in s_client(router, "-sess_out", kept).stdout
    shown = s_client(router, "-sess_in", kept, "-early_data", early).stdout
    assert "Early data was not sent" in shown or "Early data was rejected" in shown, shown


def test_towards_hosts(new_tern, made, certificates):
    """Each mail goes over a connection of its own; from the second on the session is taken up again, but
    not by a route that asks for more."""
    host = new_tern(certificates=certificates)
    host.configure('  hostname = "next.test", default_route = route.discard {}, relay_from = "127.0.0.0/8",\n')
    host.start()
    router = new_tern(certificates=certificates)
    router.configure(f"""\
  queue = {{ idle = "0s" }}, workers = 1,
  domains = {{ ["a.test"] = route.hosts {{ "{host.address}", tls = "require" }},
               ["b.test"] = route.hosts {{ "{host.address}", tls = "require" }},
               ["c.test"] = route.hosts {{ "{host.address}", tls = "verify" }} }},
""")
    router.start()
    for n, to in enumerate(["x@a.test", "x@a.test", "x@b.test", "y@b.test"], 1):
        send(router, to=to)
        router.wait_for("delivered", count=n)
    assert counter(host, "tls_sessions") == 4 and counter(host, "tls_resumed") == 3
    send(router, to="x@c.test")  # its certificate is for mx.test, not for the address
    router.wait_for("host_failed", recipient="x@c.test", why="TLS: IP address mismatch")
    assert counter(host, "tls_resumed") == 3


# ---- certificates of clients ----

SHOW = """
  policies = { { name = "show", mail = function(ctx)
    local t = ctx.session.tls
    tern.log.info { "shown", subject = t.subject or "none", issuer = t.issuer, fingerprint = t.fingerprint,
      key = t.key_fingerprint, names = t.names and table.concat(t.names, ","), ok = tostring(t.verified),
      resumed = tostring(t.resumed) }
  end } },
"""


@pytest.fixture
def asking(new_tern, made):
    r = new_tern()
    ca = f'client_ca = "{made}/client.pem"'
    r.configure(fields(made, SHOW) + listening(r, f"""
    {{ "{r.ip}:{STRICT}", tls = "implicit", client_certificates = "require", {ca} }},
    {{ "{r.ip}:{ASKING}", client_certificates = "ask", {ca} }}"""))
    return r.start()


def shows(made, name):
    return ("-cert", made / f"{name}.pem", "-key", made / f"{name}.key")


def fingerprints(path):
    whole = run(["sh", "-c", f"openssl x509 -in {path} -outform DER | sha256sum"]).stdout.split()[0]
    key = run(["sh", "-c", f"openssl x509 -in {path} -noout -pubkey | openssl pkey -pubin "
               "-outform DER | sha256sum"]).stdout.split()[0]
    return whole, key


def test_client_certificate_required(asking, made):
    mail = "MAIL FROM:<a@sender.test>"
    shown = s_client(asking, port=STRICT, say=mail)
    assert "certificate required" in shown.stderr and "250 2.1.0" not in shown.stdout
    asking.wait_for("session_closed", why="TLS: peer did not return a certificate")
    shown = s_client(asking, *shows(made, "stranger"), port=STRICT, say=mail)
    assert "250 2.1.0" not in shown.stdout
    assert not asking.log.all("policy_log")
    shown = s_client(asking, *shows(made, "client"), port=STRICT, say=mail)
    assert "250 2.1.0" in shown.stdout, shown
    seen = asking.wait_for("policy_log")
    whole, key = fingerprints(made / "client.pem")
    assert (seen["subject"], seen["issuer"], seen["names"]) == ("CN=client", "CN=client", "client.test")
    assert (seen["fingerprint"], seen["key"]) == (whole, key)
    assert (seen["ok"], seen["resumed"]) == ("true", "false")


def test_client_certificate_asked_for(asking, made, folder):
    mail = "MAIL FROM:<a@sender.test>"
    options = {"port": ASKING, "say": mail}
    assert "Acceptable client certificate CA names\nCN = client\n" in \
        s_client(asking, "-starttls", "smtp", **options).stdout
    assert asking.wait_for("policy_log")["subject"] == "none"
    s_client(asking, "-starttls", "smtp", *shows(made, "stranger"), **options)
    seen = asking.wait_for("policy_log", count=2)
    assert (seen["subject"], seen["ok"]) == ("CN=stranger", "false")
    # A session that is taken up again shows what it began with.
    kept = folder / "session"
    s_client(asking, "-starttls", "smtp", *shows(made, "client"), "-sess_out", kept, **options)
    s_client(asking, "-starttls", "smtp", "-sess_in", kept, **options)
    seen = asking.wait_for("policy_log", count=4)
    assert (seen["subject"], seen["ok"], seen["resumed"]) == ("CN=client", "true", "true")
    assert seen["fingerprint"] == fingerprints(made / "client.pem")[0]
    # It does not open the door that asks for more.
    shown = s_client(asking, "-sess_in", kept, port=STRICT, say=mail)
    assert "certificate required" in shown.stderr and "250 2.1.0" not in shown.stdout


def test_required_means_tls(new_tern, made):
    r = new_tern()
    r.configure(fields(made) + f"""\
  listen = {{ {{ "{r.address}", client_certificates = "require", client_ca = "{made}/client.pem" }} }},
""")
    r.start()
    with Raw(r) as raw:
        raw.hello()
        assert raw.cmd("MAIL FROM:<a@sender.test>").code == 530
    done = swaks(r, "--to", "b@rcpt.test", "--tls", "--tls-cert", made / "client.pem", "--tls-key",
                 made / "client.key")
    assert done.returncode == 0 and "250 2.0.0" in done.stdout, done.stdout
    assert swaks(r, "--to", "b@rcpt.test", "--tls").returncode != 0


# ---- other implementations ----

def gnutls(router, *options, port):
    return run(["gnutls-cli", "--insecure", "-p", str(port), *options, router.ip], timeout=30,
               stdin=None, input="EHLO c.test\r\nQUIT\r\n")


@pytest.mark.skipif(not shutil.which("gnutls-cli"), reason="no gnutls-cli")
def test_gnutls(router):
    shown = gnutls(router, "--resume", port=IMPLICIT)
    assert "This is a resumed session" in shown.stdout, shown
    assert "(TLS1.3-X.509)" in shown.stdout and "221 2.0.0 Bye" in shown.stdout, shown
    shown = gnutls(router, "--resume", "--sni-hostname=a.other.test", "--priority",
                   "NORMAL:-VERS-ALL:+VERS-TLS1.2", port=IMPLICIT)
    assert "This is a resumed session" in shown.stdout, shown
    assert "subject `CN=other'" in shown.stdout and "(TLS1.2-X.509)" in shown.stdout, shown


def test_python(router, made):
    context = ssl.create_default_context(cafile=made / "other.pem")
    with smtplib.SMTP(router.ip, router.port, timeout=20) as smtp:
        smtp._host = "a.other.test"  # what it asks for, and verifies
        smtp.starttls(context=context)
        assert smtp.sock.version() == "TLSv1.3"
        assert smtp.sendmail("a@sender.test", ["b@rcpt.test"], message().encode()) == {}


# ---- what is refused ----

REFUSED = [("-tls1",), ("-tls1_1",), ("-tls1_2", "-cipher", "AES128-SHA"),
           ("-tls1_2", "-cipher", "AES256-GCM-SHA384"), ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA"),
           ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384"),
           ("-tls1_2", "-cipher", "ADH-AES256-SHA256")]


def test_refused(router):
    """Old versions; ciphers without forward secrecy, without AEAD, without authentication."""
    for options in REFUSED:
        if "-cipher" in options:
            options = (*options[:-1], options[-1] + "@SECLEVEL=0")
        else:
            options = (*options, "-cipher", "DEFAULT@SECLEVEL=0")
        shown = s_client(router, *options)
        assert "Cipher is (NONE)" in shown.stdout and "220 " not in shown.stdout, (options, shown)
        with Raw(router):
            pass  # the next one is served


def test_the_server_prefers(router):
    """Whatever the order in which the client offers."""
    offered = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    assert "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305" in s_client(
        router, "-tls1_2", "-cipher", offered).stdout  # first there: a client without AES in hardware
    offered = offered.split(":", 1)[1]
    assert "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384" in s_client(
        router, "-tls1_2", "-cipher", offered).stdout


# ---- certificates that change ----

def serial(router):
    shown = s_client(router).stdout
    return run(["openssl", "x509", "-noout", "-serial"], stdin=None,
               input=shown[shown.index("-----BEGIN"):]).stdout


def test_reload_of_certificates(new_tern, folder):
    made, new = folder / "old", folder / "new"
    made.mkdir(), new.mkdir()
    c, other = make_certificates(made), make_certificates(new)
    r = new_tern(certificates=c)
    r.configure(listening(r))
    r.start()
    before = serial(r)
    with Raw(r) as raw:
        raw.hello()
        raw.start_tls(ssl.create_default_context(cafile=c.ca))
        raw.hello()
        # Half a change: the key does not fit. Nothing changes, and the message says which files.
        shutil.copy(other.key, c.key)
        done = r.cli("reload")
        assert done.returncode == 78, done
        assert f"tls.key {c.key} does not belong to tls.cert {c.cert}" in done.stderr
        assert serial(r) == before
        assert r.cli("check").returncode == 78
        pathlib.Path(c.cert).rename(folder / "away")
        done = r.cli("reload")
        assert done.returncode == 66 and f"tls.cert {c.cert}: No such file" in done.stderr, done
        assert serial(r) == before
        shutil.copy(other.cert, c.cert)
        r.reload()
        assert serial(r) != before
        raw.expect(250, "NOOP")  # a session that was there goes on
        assert not r.log.all("certificate")


def test_expired(new_tern, folder, made):
    """It serves (senders rarely look), but the operator is told."""
    self_signed(folder, "old", ["mx.test"])
    signed = run(["openssl", "x509", "-in", folder / "old.pem", "-signkey", folder / "old.key",
                  "-days", -1, "-out", folder / "old.pem"])
    assert signed.returncode == 0, signed.stderr
    r = new_tern()
    r.configure(f"  tls = {{ {pair(made, 'ec')}, certificates = {{ {{ {pair(folder, 'old')} }} }} }},\n"
                + listening(r))
    r.start()
    told = [e for e in r.log.all("certificate") if "has expired" in e["why"]]
    assert [e["file"] for e in told] == [f"{folder}/old.pem"] and told[0]["level"] == "warn"
    assert "mx.test" in told[0]["names"]
    checked = r.cli("check")
    assert checked.returncode == 0 and f"{folder}/old.pem" in checked.stderr
    assert "has expired" in checked.stderr
    assert any("has expired" in w for w in r.json("check")["warnings"])
    assert "220 mx.test" in s_client(r).stdout


def test_encrypted_key(new_tern, folder, made):
    """Nobody is asked for a passphrase."""
    run(["openssl", "pkey", "-in", made / "ec.key", "-aes256", "-passout", "pass:x", "-out",
         folder / "locked.key"])
    r = new_tern()
    r.configure(f'  tls = {{ cert = "{made}/ec.pem", key = "{folder}/locked.key" }},\n')
    done = r.cli("check", timeout=10)
    assert done.returncode == 78 and "locked.key is encrypted" in done.stderr, done
