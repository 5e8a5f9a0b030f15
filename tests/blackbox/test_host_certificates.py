"""Our certificate towards hosts (the route options certificate and key): shown to Postfix, OpenSSL and Tern itself, read and
checked with the configuration, replaced by a reload; connections and sessions of two certificates are never one."""
import os
import shutil
import smtplib
import socket
import threading

import pytest

from addresses import fresh_ip
from clients import send
from postfix import Postfix
from processes import Child, run
from test_dane import digest_of_key
from test_tls import fingerprints, self_signed
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
ONE_EACH = '  queue = { idle = "0s", retry = "1s...", host_retry = "1s", host_retry_max = "1s" }, workers = 1,\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """a and b are ours, both.pem is what a host trusts; c is a stranger's."""
    folder = tmp_path_factory.mktemp("own")
    folder.chmod(0o755)
    for name in "abc":
        self_signed(folder, name, [f"{name}.router.test"], "rsa" if name == "b" else "ec")
    (folder / "both.pem").write_bytes((folder / "a.pem").read_bytes() + (folder / "b.pem").read_bytes())
    (folder / "together.pem").write_bytes((folder / "a.pem").read_bytes() + (folder / "a.key").read_bytes())
    return folder


def own(made, name):
    return f'certificate = "{made}/{name}.pem", key = "{made}/{name}.key"'


HOST = """\
  hostname = "next.test", default_route = route.discard {{}},
  listen = {{ {{ "{address}", client_certificates = "{clients}", client_ca = "{ca}" }} }},
  policies = {{ {{ name = "partners",
    mail = function(ctx)
      local t = ctx.session.tls
      tern.log.info {{ "seen", subject = t and t.subject or "none", ok = t and tostring(t.verified) or "clear",
        resumed = t and tostring(t.resumed) or "clear" }}
    end,
    rcpt = function(ctx)
      if ctx.session.tls and ctx.session.tls.verified then return tern.accept() end
    end }} }},
"""


@pytest.fixture
def host(new_tern, made, certificates):
    """A Tern that relays for who shows a certificate of ours."""
    def make(clients="ask", ca=None):
        h = new_tern(certificates=certificates)
        h.configure(HOST.format(address=h.address, clients=clients, ca=ca or f"{made}/both.pem"))
        return h.start()
    return make


def seen(host, count):
    """(subject, resumed) of the first so many transactions."""
    until(lambda: len(host.log.all("policy_log")) >= count, f"{count} mails came", timeout=15)
    return [(e["subject"], e["resumed"]) for e in host.log.all("policy_log")[:count]]


def router_with(new_tern, fields, certificates=None, dns=None):
    r = new_tern(certificates=certificates, dns=dns)
    r.configure('  relay_from = "127.0.0.0/8",\n' + fields)
    return r.start()


# ---- what hosts see ----

def test_a_host_knows_us_by_it(new_tern, host, made):
    h = host()
    router = router_with(new_tern, f"""{FAST}  domains = {{
    ["a.test"] = route.hosts {{ "{h.address}", {own(made, "a")} }},
    ["t.test"] = route.hosts {{ "{h.address}", certificate = "{made}/together.pem" }},
    ["c.test"] = route.hosts {{ "{h.address}", {own(made, "c")} }},
    ["none.test"] = route.hosts {{ "{h.address}" }} }},
""")
    send(router, to="x@a.test")
    send(router, to="x@t.test")
    router.wait_for("delivered", count=2)
    assert seen(h, 2) == [("CN=a", "false"), ("CN=a", "false")]
    for n, domain in enumerate(["c.test", "none.test"]):  # a stranger, nobody
        send(router, to=f"x@{domain}")
        assert router.wait_for("bounced", recipient=f"x@{domain}")["code"] == 550
    assert seen(h, 4)[2:] == [("CN=c", "false"), ("none", "false")]
    assert f"certificate {made}/a.pem" in router.ok("explain", "--from", "a@sender.test", "--to", "x@a.test",
                                                    "--client", "127.0.0.1")


@pytest.mark.parametrize("idle", ["0s", "20s"])
def test_two_certificates_share_nothing(new_tern, host, made, idle):
    """Neither a connection that is idle nor a session of TLS."""
    h = host()
    router = router_with(new_tern, ONE_EACH.replace('"0s"', f'"{idle}"') + f"""  domains = {{
    ["a.test"] = route.hosts {{ "{h.address}", {own(made, "a")} }},
    ["b.test"] = route.hosts {{ "{h.address}", {own(made, "b")} }},
    ["none.test"] = route.hosts {{ "{h.address}", tls = "require" }} }},
""")
    order = ["a", "b", "a", "b", "b", "none", "a"]
    for n, name in enumerate(order, 1):
        send(router, to=f"x@{name}.test")
        router.wait_for(("delivered", "bounced"), count=n)
    shown = seen(h, len(order))
    assert [s for s, _ in shown] == [name if name == "none" else f"CN={name}" for name in order]
    counters = h.json("status")["counters"]
    if idle == "0s":
        assert [r for _, r in shown] == ["false", "false", "true", "true", "true", "false", "true"]
        assert counters["tls_sessions"] == 7 and counters["tls_resumed"] == 4
    else:
        assert counters["tls_sessions"] == 3
        assert router.json("status")["counters"]["connections_out_reused"] == 4


def test_a_host_that_demands_one(new_tern, host, made):
    h = host(clients="require")
    router = router_with(new_tern, f"""{FAST}  domains = {{
    ["a.test"] = route.hosts {{ "{h.address}", {own(made, "a")} }},
    ["none.test"] = route.hosts {{ "{h.address}", tls = "require" }} }},
""")
    send(router, to="x@none.test")
    router.wait_for("host_failed", recipient="x@none.test")
    assert router.queued()
    send(router, to="x@a.test")
    router.wait_for("delivered", recipient="x@a.test")
    assert {q["name"] for q in router.queues()} == {h.address}


def test_no_tls_no_mail(new_tern, sink, made):
    """Who is to be shown a certificate gets nothing in clear, though the route does not ask for TLS."""
    h = sink()
    router = router_with(new_tern, f"""{FAST}  domains = {{
    ["a.test"] = route.hosts {{ "{h.address}", {own(made, "a")} }} }},
""")
    send(router, to="x@a.test")
    router.wait_for("host_failed", why="TLS is required, and the host does not offer it")
    assert h.mails == []


def test_with_verify(new_tern, host, made, certificates, scripted_dns):
    h = host()
    zone = scripted_dns(f"sink.test. A {h.ip}\nother.test. A {h.ip}")
    router = router_with(new_tern, f"""{FAST}  dns = {{ servers = {{ "{zone.server}" }} }},
  domains = {{
    ["a.test"] = route.hosts {{ "[sink.test]", tls = "verify", {own(made, "a")} }},
    ["b.test"] = route.hosts {{ "[other.test]", tls = "verify", {own(made, "b")} }} }},
""", certificates=certificates, dns=zone)
    send(router, to="x@a.test")
    send(router, to="x@b.test")
    router.wait_for("delivered", recipient="x@a.test")
    router.wait_for("host_failed", recipient="x@b.test", why="TLS: hostname mismatch")
    assert seen(h, 1) == [("CN=a", "false")] and len(h.log.all("policy_log")) == 1


@pytest.mark.parametrize("secure", [True, False])
def test_with_dane(new_tern, host, made, certificates, scripted_dns, secure):
    h = host()
    zone = scripted_dns(f"sink.test. A {h.ip}")
    zone.add_tlsa("_25._tcp.sink.test", bytes.fromhex("030101" + digest_of_key(certificates.cert)))
    zone.secure = secure
    router = router_with(new_tern, f"""{FAST}  dns = {{ servers = {{ "{zone.server}" }} }},
  domains = {{ ["a.test"] = route.hosts {{ "[sink.test]", tls = "dane", {own(made, "a")} }} }},
""", dns=zone)
    send(router, to="x@a.test")
    router.wait_for("delivered")
    assert seen(h, 1) == [("CN=a", "false")]


def test_postfix_permits_tls_clientcerts(new_tern, folder, closing, made, certificates):
    whole = fingerprints(made / "a.pem")[0]
    digest = ":".join(whole[i:i + 2] for i in range(0, 64, 2)).upper()
    (folder / "known").write_text(f"{digest} a\n")
    folder.chmod(0o755)
    (folder / "postfix").mkdir()
    relay = closing(Postfix(folder / "postfix", certificates, f"""smtpd_tls_ask_ccert = yes
smtpd_tls_CAfile = {made}/both.pem
smtpd_tls_fingerprint_digest = sha256
relay_clientcerts = texthash:{folder}/known
smtpd_relay_restrictions = permit_tls_clientcerts, reject
"""))
    router = router_with(new_tern, f"""{FAST}  domains = {{
    ["a.test"] = route.hosts {{ "{relay.address}", {own(made, "a")} }},
    ["b.test"] = route.hosts {{ "{relay.address}", {own(made, "b")} }},
    ["none.test"] = route.hosts {{ "{relay.address}" }} }},
""")
    for name in ("b", "none", "a"):
        send(router, to=f"x@{name}.test", test_id=f"for-{name}")
    mail = relay.wait_mail(b"for-a")
    assert b'Client CN "a"' in mail, mail
    for name in ("b", "none"):
        assert router.wait_for("bounced", recipient=f"x@{name}.test")["code"] == 554
    assert not any(b"for-b" in m or b"for-none" in m for m in relay.mails())


def test_postfix_that_requires_one(new_tern, folder, closing, made, certificates):
    folder.chmod(0o755)
    (folder / "postfix").mkdir()
    relay = closing(Postfix(folder / "postfix", certificates, f"""smtpd_tls_security_level = encrypt
smtpd_tls_req_ccert = yes
smtpd_tls_CAfile = {made}/both.pem
"""))
    router = router_with(new_tern, f"""{FAST}  domains = {{
    ["a.test"] = route.hosts {{ "{relay.address}", {own(made, "a")} }},
    ["none.test"] = route.hosts {{ "{relay.address}" }} }},
""")
    send(router, to="x@a.test", test_id="for-a")
    relay.wait_mail(b"for-a")
    send(router, to="x@none.test", test_id="for-none")
    router.wait_for(("host_failed", "deferred", "bounced"), recipient="x@none.test")
    assert not any(b"for-none" in m for m in relay.mails())


class Server:
    """`openssl s_server -Verify` behind a STARTTLS of our own: takes one mail, keeps what it printed."""

    def __init__(self, made, certificates, version):
        self.ip, self.said = fresh_ip(), []
        self.listener = socket.create_server((self.ip, 25))
        inner = socket.create_server((self.ip, 0))
        port = inner.getsockname()[1]
        inner.close()
        self.child = Child(["openssl", "s_server", "-accept", f"{self.ip}:{port}", "-cert", certificates.cert, "-key",
                            certificates.key, "-Verify", "3", "-verify_return_error", "-CAfile", made / "both.pem",
                            "-naccept", "1", "-rev", version])
        self.inner = (self.ip, port)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        until(lambda: any("ACCEPT" in line for line in self.child.out), "s_server is there")
        outer, _ = self.listener.accept()
        outer.sendall(b"220 server.test\r\n")
        outer.recv(1000)
        outer.sendall(b"250-server.test\r\n250 STARTTLS\r\n")
        outer.recv(1000)
        with socket.create_connection(self.inner) as tls:
            outer.sendall(b"220 go\r\n")
            back = threading.Thread(target=self.splice, args=(tls, outer), daemon=True)
            back.start()
            self.splice(outer, tls)
            back.join(10)
        outer.close()

    @staticmethod
    def splice(source, to):
        try:
            while data := source.recv(65536):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.close()
        self.child.end()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_server(new_tern, closing, made, certificates, version):
    """It verifies what it is shown; then it says what it is told backwards, which is no SMTP."""
    server = closing(Server(made, certificates, version))
    router = router_with(new_tern, f"""{FAST}  domains = {{
    ["a.test"] = route.hosts {{ "{server.ip}", {own(made, "a")} }} }},
""")
    send(router, to="x@a.test")
    router.wait_for("host_failed")
    until(lambda: any("CN = a" in line for line in server.child.out + server.child.err), "it has seen the certificate")
    told = "\n".join(server.child.out + server.child.err)
    assert "verify return:1" in told and "verify error" not in told, told
    assert "CONNECTION FAILURE" not in told, told


# ---- what is read, and when ----

CHECKED = [
    ("missing", 'certificate = "{m}/nothing.pem", key = "{m}/a.key"', 66,
     "route.certificate {m}/nothing.pem: No such file or directory"),
    ("no key", 'certificate = "{m}/a.pem", key = "{m}/nothing.key"', 66,
     "route.key {m}/nothing.key: No such file or directory"),
    ("another's key", 'certificate = "{m}/a.pem", key = "{m}/b.key"', 78,
     "route.key {m}/b.key does not belong to route.certificate {m}/a.pem"),
    ("no certificate", 'certificate = "{m}/a.key", key = "{m}/a.key"', 78, "route.certificate {m}/a.key: "),
    ("key alone", 'key = "{m}/a.key"', 78, "'key' is of no use without 'certificate'"),
    ("no key in it", 'certificate = "{m}/a.pem"', 78, "route.key {m}/a.pem: "),
    ("in clear", 'certificate = "{m}/a.pem", key = "{m}/a.key", tls = "none"', 78, "'certificate' needs TLS"),
]


@pytest.mark.parametrize("policy", ["route.hosts", "smart_host"])
@pytest.mark.parametrize("name, options, status, words", CHECKED, ids=[c[0] for c in CHECKED])
def test_check_says_what_is_wrong_and_where(new_tern, made, policy, name, options, status, words):
    router = new_tern()
    route = policy + ' { "192.0.2.1", ' + options.format(m=made) + " }"
    router.configure(f'  senders = {{ ["a.test"] = {route} }},\n', 'local smart_host = require "policies.smart_host"\n')
    done = router.cli("check")
    line = next(n for n, text in enumerate(router.config.read_text().splitlines(), 1) if "192.0.2.1" in text)
    assert done.returncode == status, done.stderr
    assert f"{router.config}:{line}: " in done.stderr and words.format(m=made) in done.stderr, done.stderr


def test_two_keys_for_one_certificate(new_tern, made):
    router = new_tern()
    router.configure(f"""  domains = {{ ["a.test"] = route.hosts {{ "192.0.2.1", {own(made, "a")} }},
    ["b.test"] = route.hosts {{ "192.0.2.2", certificate = "{made}/a.pem", key = "{made}/b.key" }} }},
""")
    done = router.cli("check")
    assert done.returncode == 78 and "one certificate, one key" in done.stderr, done.stderr


def test_one_that_has_expired_is_told(new_tern, made, folder):
    """It is the host's to refuse: the router starts, and says so with the place of the route."""
    assert run(["openssl", "req", "-new", "-key", made / "a.key", "-out", folder / "old.csr", "-subj", "/CN=old"]
               ).returncode == 0
    assert run(["openssl", "x509", "-req", "-in", folder / "old.csr", "-signkey", made / "a.key", "-days", "-1", "-out",
                folder / "old.pem"]).returncode == 0
    router = new_tern()
    router.configure(f"""  domains = {{
    ["a.test"] = route.hosts {{ "192.0.2.1", certificate = "{folder}/old.pem", key = "{made}/a.key" }} }},
""")
    line = next(n for n, text in enumerate(router.config.read_text().splitlines(), 1) if "192.0.2.1" in text)
    done = router.cli("check")
    assert done.returncode == 0
    assert f"{router.config}:{line}: the certificate {folder}/old.pem (old) has expired" in done.stderr, done.stderr
    assert any("has expired" in w for w in router.json("check")["warnings"])
    router.start()
    assert "has expired" in router.wait_for("certificate", file=f"{folder}/old.pem")["why"]


def test_reload_takes_a_new_one(new_tern, host, made, folder):
    h = host()
    for kind in ("pem", "key"):
        shutil.copy(made / f"a.{kind}", folder / f"ours.{kind}")
    router = router_with(new_tern, f"""  queue = {{ idle = "60s" }}, workers = 1, domains = {{
    ["a.test"] = route.hosts {{ "{h.address}", {own(folder, "ours")} }} }},
""")
    send(router, to="x@a.test")
    router.wait_for("delivered")
    for kind in ("pem", "key"):
        shutil.copy(made / f"b.{kind}", folder / f"ours.{kind}")
    router.reload()
    send(router, to="x@a.test")
    router.wait_for("delivered", count=2)
    assert seen(h, 2) == [("CN=a", "false"), ("CN=b", "false")]
    shutil.copy(made / "a.key", folder / "ours.key")
    done = router.cli("reload")
    assert done.returncode != 0 and "does not belong to" in done.stderr
    send(router, to="x@a.test")
    router.wait_for("delivered", count=3)
    assert seen(h, 3)[2][0] == "CN=b"


def test_mail_that_names_one_which_is_gone_is_routed_anew(new_tern, host, sink, made):
    down, h = sink(up=False), host()
    router = router_with(new_tern, f"""{FAST}  domains = {{
    ["a.test"] = route.hosts {{ "{down.address}", {own(made, "a")} }} }},
""")
    send(router, to="x@a.test")
    router.wait_for("host_failed")
    router.configure(f"""  relay_from = "127.0.0.0/8",
{FAST}  domains = {{ ["a.test"] = route.hosts {{ "{h.address}", {own(made, "b")} }} }},
""")
    router.restart()
    router.wait_for("delivered")
    assert seen(h, 1)[0][0] == "CN=b"


def test_hooks_name_what_is_loaded(new_tern, host, made):
    """A route of a hook's may name one that a route of the configuration names; others are not there to be read."""
    h = host()
    router = router_with(new_tern, f"""{FAST}
  policies = {{ {{ name = "made", route = function(ctx)
    if ctx.recipient.domain == "a.test" then return route.hosts {{ "{h.address}", {own(made, "a")} }} end
    if ctx.recipient.domain == "b.test" then return route.hosts {{ "{h.address}", {own(made, "b")} }} end
  end }} }},
  domains = {{ ["c.test"] = route.hosts {{ "{h.address}", {own(made, "a")} }} }},
""")
    send(router, to="x@a.test")
    router.wait_for("delivered", recipient="x@a.test")
    assert seen(h, 1) == [("CN=a", "false")]
    with pytest.raises(smtplib.SMTPDataError):
        send(router, to="x@b.test")
    error = router.wait_for("policy_error")
    assert f"the certificate {made}/b.pem is not loaded" in str(error), error


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_keys_are_read_as_the_user(new_tern, host, made, folder):
    """At the start as root, but a reload reads them as the user: what that could not do is told at once."""
    h = host()
    folder.chmod(0o755)
    for kind in ("pem", "key"):
        shutil.copy(made / f"a.{kind}", folder / f"ours.{kind}")
    (folder / "ours.key").chmod(0o600)
    router = new_tern()
    router.folder.parent.chmod(0o755)
    router.env = {"TERN_USER": "nobody"}
    router.configure(f"""  relay_from = "127.0.0.0/8", domains = {{
    ["a.test"] = route.hosts {{ "{h.address}", {own(folder, "ours")} }} }},
""")
    router.start(ready=False)
    assert router.child.wait(20) == 77
    assert f"cannot read {folder}/ours.key as user nobody" in router.child.stderr()
    shutil.chown(folder / "ours.key", "nobody")
    router.start()
    send(router, to="x@a.test")
    router.wait_for("delivered")
    for kind in ("pem", "key"):
        shutil.copy(made / f"b.{kind}", folder / f"new.{kind}")
        os.replace(folder / f"new.{kind}", folder / f"ours.{kind}")
    shutil.chown(folder / "ours.key", "nobody")
    router.reload()
    send(router, to="x@a.test")
    router.wait_for("delivered", count=2)
    assert [s for s, _ in seen(h, 2)] == ["CN=a", "CN=b"]
