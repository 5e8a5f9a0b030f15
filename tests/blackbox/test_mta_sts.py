"""MTA-STS (RFC 8461): what a domain says on its web server about the MX that get its mail."""
import http.server
import ssl
import threading

import pytest

from addresses import fresh_ip
from certificates import make_certificates
from clients import send
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
PRELUDE = 'local route = require "tern.route"\n'


def policy(mode="enforce", mx="in.there.test", age=86400):
    return f"version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: {age}\r\n"


class Web:
    """An HTTPS server on port 443 of a loopback address of its own."""

    def __init__(self, certificates, text, kind="text/plain; charset=utf-8"):
        web = self
        self.ip, self.text, self.kind, self.status, self.paths = fresh_ip(), text, kind, 200, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                web.paths.append((self.headers["Host"], self.path))
                self.send_response(web.status)
                if web.status == 301:
                    self.send_header("Location", f"https://{self.headers['Host']}/elsewhere")
                self.send_header("Content-Type", web.kind)
                self.end_headers()
                self.wfile.write(web.text.encode())

            def log_message(self, *args):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert, certificates.key)
        self.server = http.server.ThreadingHTTPServer((self.ip, 443), Handler, bind_and_activate=False)
        self.server.daemon_threads = True
        self.server.allow_reuse_address = True
        self.server.server_bind()
        self.server.server_activate()
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("sts"), ("in.there.test", "mta-sts.there.test"))


@pytest.fixture
def web(closing, chain):
    return closing(Web(chain, policy()))


def zone_of(scripted_dns, web, *hosts, record="v=STSv1; id=1;"):
    lines = [f'_mta-sts.there.test. TXT "{record}"', f"mta-sts.there.test. A {web.ip}"]
    for n, (name, host) in enumerate(hosts):
        lines += [f"there.test. MX {10 * (n + 1)} {name}.", f"{name}. A {host.ip}"]
    return scripted_dns("\n".join(lines))


def router_to(tern, zone, chain, options=""):
    return tern(f"""{FAST}  dns = {{ servers = {{ "{zone.server}" }}, timeout = "10s", allow_loopback_mx = true }},
  tls = {{ ca = "{chain.ca}" }},
  domains = {{ ["there.test"] = route.mx {{ domain = "there.test"{options} }} }},
""", PRELUDE, dns=zone)


def test_the_policy_is_fetched_once_and_followed(tern, sink, scripted_dns, web, chain):
    mx, other = sink(certificates=chain), sink(certificates=chain)
    router = router_to(tern, zone_of(scripted_dns, web, ("other.there.test", other), ("in.there.test", mx)), chain)
    for n in range(3):
        send(router, "u@there.test", test_id=f"m{n}")
    mails = mx.wait_ids({"m0", "m1", "m2"})
    assert all(m.tls for m in mails.values()) and other.mails == []
    # two workers may have begun before the first one had kept it
    assert set(web.paths) == {("mta-sts.there.test", "/.well-known/mta-sts.txt")} and len(web.paths) <= 2
    before = len(web.paths)
    router.stop()
    router.start()
    send(router, "u@there.test", test_id="after")
    mx.wait_ids({"after"})
    assert len(web.paths) == before


def test_a_wrong_certificate_keeps_the_mail(tern, sink, scripted_dns, web, chain, certificates):
    """in.there.test has a certificate of another authority: not one octet of the mail leaves."""
    mx = sink(certificates=certificates)
    router = router_to(tern, zone_of(scripted_dns, web, ("in.there.test", mx)), chain)
    send(router, "u@there.test", test_id="one")
    until(lambda: len(mx.greeted) >= 2, "the host was tried twice")
    assert mx.mails == [] and len(router.queued()) == 1
    assert web.paths


def test_no_mx_of_the_policy(tern, sink, scripted_dns, web, chain):
    mx = sink(certificates=chain)
    web.text = policy(mx="*.elsewhere.test")
    router = router_to(tern, zone_of(scripted_dns, web, ("in.there.test", mx)), chain)
    send(router, "u@there.test", test_id="one")
    router.wait_for("host_failed", why="the MTA-STS policy of there.test allows none of its MX")
    assert mx.greeted == []


@pytest.mark.parametrize("how", ["certificate", "redirect", "html", "long", "garbage"])
def test_a_policy_that_cannot_be_had_is_none(how, tern, sink, scripted_dns, closing, chain, certificates):
    web = closing(Web(certificates if how == "certificate" else chain, policy(mx="other.there.test")))
    if how == "redirect":
        web.status = 301
    elif how == "html":
        web.kind = "text/html"
    elif how == "long":
        web.text += "x: " + "y" * 100_000
    elif how == "garbage":
        web.text = "\0" * 100
    mx = sink(certificates=chain)
    router = router_to(tern, zone_of(scripted_dns, web, ("in.there.test", mx)), chain)
    send(router, "u@there.test", test_id="one")
    mx.wait_ids({"one"})
    assert all(path == "/.well-known/mta-sts.txt" for _, path in web.paths)


def test_it_can_be_switched_off(tern, sink, scripted_dns, web, chain):
    mx = sink(certificates=chain)
    web.text = policy(mx="other.there.test")
    zone = zone_of(scripted_dns, web, ("in.there.test", mx))
    router = router_to(tern, zone, chain, ", mta_sts = false")
    send(router, "u@there.test", test_id="one")
    mx.wait_ids({"one"})
    assert web.paths == [] and zone.questions("_mta-sts.there.test", "TXT") == []


def test_explain_shows_what_the_policy_leaves(new_tern, sink, scripted_dns, web, chain):
    mx, other = sink(certificates=chain), sink(certificates=chain)
    zone = zone_of(scripted_dns, web, ("in.there.test", mx), ("other.there.test", other))
    router = router_to(new_tern_configured(new_tern), zone, chain)
    text = router.ok("explain", "--from", "a@sender.test", "--to", "u@there.test", "--client", "127.0.0.1")
    assert "TLS verify (MTA-STS)" in text and "not in the domain's MTA-STS policy" in text
    assert mx.greeted == [] and other.greeted == []


def new_tern_configured(new_tern):
    """As the fixture `tern`, without a start."""
    def make(fields, prelude, dns):
        made = new_tern(dns=dns)
        made.configure(fields, prelude)
        return made
    return make
