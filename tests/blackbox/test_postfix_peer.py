"""DANE (RFC 7672) and MTA-STS (RFC 8461) with peers that are not ours: a Postfix takes the router's mail and sends mail to it, NSD
serves a signed zone, and Unbound validates it."""
import dataclasses
import os
import re
import shutil

import pytest

from certificates import make_certificates
from clients import send
from postfix import Postfix
from processes import run
from signed_dns import SignedDns, need_programs
from test_dane import digest_of_key
from test_mta_sts import PRELUDE, Web, policy
from test_tls import pair, self_signed
from test_tls_report import reports, sums
from waiting import until

pytestmark = pytest.mark.skipif(not shutil.which("postfix"), reason="there is no Postfix: run scripts/deps test")
# A connection serves one message, so that each finds out for itself.
FAST = '  queue = { idle = "0s", retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
WRONG = "3 1 1 " + "5a" * 32
STS_DOMAINS = [f"{name}.sts.test" for name in ("good", "unlisted", "named", "testing", "fresh", "kept", "doubt", "signed")]
MAIN = """\
smtp_dns_support_level = dnssec
smtp_tls_security_level = dane
smtp_tls_loglevel = 1
smtp_host_lookup = dns
smtpd_tls_loglevel = 1
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
"""


# ---- the peers, once for all tests of a worker ----

@pytest.fixture(scope="module")
def peers(session_folder):
    path = session_folder / "peers"
    path.mkdir()
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def zone(peers):
    need_programs()
    made = SignedDns(peers / "dns")
    yield made
    made.close()


@pytest.fixture(scope="module")
def certs(peers):
    """By name, each of an authority of its own. ee, next: for names that nobody here has; ta: with its authority behind it."""
    def make(name, *names):
        (peers / name).mkdir()
        return make_certificates(peers / name, names)
    ta = make("ta", "in.ta.test", "in.behind.test")
    chain = peers / "ta/chain.pem"
    chain.write_bytes(ta.cert.read_bytes() + ta.ca.read_bytes())
    hosts = ["new.doubt.sts.test", *(f"in.{domain}" for domain in STS_DOMAINS)]
    return {"ee": make("ee", "ee.elsewhere.test"), "next": make("next", "next.elsewhere.test"),
            "ta": dataclasses.replace(ta, cert=chain),
            "sts": make("sts", *hosts, *(f"mta-sts.{domain}" for domain in STS_DOMAINS))}


@pytest.fixture(scope="module")
def asking_us(zone):
    """A command in front of others, which then ask our resolver; none where nobody may mount anything."""
    words = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', zone.resolv_conf()]
    return words if shutil.which("unshare") and run([*words, "true"]).returncode == 0 else []


@pytest.fixture(scope="module")
def host(peers, certs, asking_us):
    """A Postfix that has a listener for each certificate, and one without TLS."""
    def tls(name):
        return {"smtpd_tls_cert_file": certs[name].cert, "smtpd_tls_key_file": certs[name].key}
    (peers / "postfix").mkdir()
    server = Postfix(peers / "postfix", certs["ee"], MAIN, {".us.test": "smtp:"}, wrapper=asking_us, services={
        "ee": tls("ee"), "wrong": tls("ee"), "next": tls("next"), "ta": tls("ta"), "sts": tls("sts"),
        "clear": {"smtpd_tls_security_level": "none"}})
    yield server
    server.close()


@pytest.fixture
def router(tern, zone, certs):
    return tern(f"""{FAST}  dns = {{ servers = {{ "{zone.server}" }}, timeout = "3s", allow_loopback_mx = true }},
  tls = {{ ca = "{certs["sts"].ca}" }}, relay_from = "127.0.0.0/8",
  policies = {{ {{ name = "all", route = function() return route.mx {{ tls = "dane" }} end }} }},
""", PRELUDE)


# ---- what is asked, and what comes of it ----

def ee(certificates):
    return "3 1 1 " + digest_of_key(certificates.cert)


def domain_of(name, *hosts):
    """Its records. Hosts in the order of preference: (label, address, its TLSA records...)."""
    lines = []
    for n, (label, ip, *tlsa) in enumerate(hosts):
        lines += [f"{name}. MX {10 * (n + 1)} {label}.{name}.", f"{label}.{name}. A {ip}"]
        lines += [f"_25._tcp.{label}.{name}. TLSA {t}" for t in tlsa]
    return "\n".join(lines)


def arrives(router, host, domain, test_id=None, **fields):
    """The mail, and what the router says of its delivery."""
    test_id = test_id or f"to-{domain}"
    send(router, f"u@{domain}", test_id=test_id, **fields)
    mail = host.wait_mail(test_id.encode())
    count = len(router.log.all("message_accepted"))
    return mail, router.wait_for("delivered", count)


def waits(router, domain, why, test_id=None):
    """Its mail is tried, and tried again, and stays, for that reason."""
    send(router, f"u@{domain}", test_id=test_id or f"to-{domain}")
    for count in (1, 2):
        router.wait_for(("host_failed", "queue_backoff"), count, why=lambda w: w and re.search(why, w))
    assert [m["recipient"] for m in router.queued()] == [f"u@{domain}"]


def nothing_came(host, service, domain):
    """Nor was a word of the envelope said."""
    assert not any(f"to-{domain}".encode() in m for m in host.mails())
    assert not any(" mail=" in line for line in host.said(service)), host.said(service)


# ---- DANE: the router sends ----

def test_S8_dane_ee_with_its_key(router, host, zone, certs):
    """Nobody has signed the certificate, and its name is another one: only the key counts (RFC 7672 section 3.1.1)."""
    zone.set("right.test", domain_of("right.test", ("in", host.ips["ee"], ee(certs["ee"]))))
    mail, told = arrives(router, host, "right.test")
    assert told["verified"] == "dane" and told["tls"] == "TLSv1.3" and b"using TLSv1.3" in mail
    assert sums(reports(router, "right.test")[0]) == {("tlsa", "good"): 1}


def test_S8_dane_ee_with_another_key(router, host, zone):
    zone.set("wrong.test", domain_of("wrong.test", ("in", host.ips["wrong"], WRONG)))
    waits(router, "wrong.test", "no matching DANE TLSA records")
    nothing_came(host, "wrong", "wrong.test")
    assert set(sums(reports(router, "wrong.test")[0])) == {("tlsa", "tlsa-invalid")}


def test_S8_dane_the_next_host_may_have_the_key(router, host, zone, certs):
    zone.set("two.test", domain_of("two.test", ("a", host.ips["wrong"], WRONG), ("b", host.ips["ee"], ee(certs["ee"]))))
    _, told = arrives(router, host, "two.test")
    assert told["host"].startswith("b.two.test ") and told["verified"] == "dane"
    nothing_came(host, "wrong", "none")


@pytest.mark.parametrize("domain, matching", [("ta.test", 0), ("ta.test", 1), ("ta.test", 2), ("named.test", 1)])
def test_S8_dane_authority_of_the_zone(domain, matching, router, host, zone, certs):
    """Usage 2: the certificate is one of that authority's, and for the name of the host, which named.test has not."""
    kinds = [(0, 0, ""), (1, 1, "-sha256"), (1, 2, "-sha512")]
    selector, _, digest = kinds[matching]
    data = octets_of(certs["ta"].ca, selector, digest)
    zone.set("ta", domain_of(domain, ("in", host.ips["ta"], f"2 {selector} {matching} {data}")))
    if domain == "ta.test":
        _, told = arrives(router, host, domain, f"ta-{matching}")
        assert told["verified"] == "dane"
    else:
        waits(router, domain, "hostname mismatch")
        assert not any(f"to-{domain}".encode() in m for m in host.mails())


def octets_of(certificate, selector, digest):
    """What openssl thinks of a TLSA record's data."""
    key = "openssl x509 -in {0} -noout -pubkey | openssl pkey -pubin -outform DER"
    whole = "openssl x509 -in {0} -outform DER"
    command = (key if selector else whole).format(certificate)
    command += f" | openssl dgst {digest} -binary" if digest else ""
    return run(["sh", "-c", command + " | od -An -v -tx1 | tr -d ' \\n'"]).stdout


def test_S8_dane_records_of_an_unsigned_zone_are_none(router, host, zone):
    zone.set("plain", domain_of("plain.test", ("in", host.ips["ee"], WRONG)))
    assert zone.is_secure("_25._tcp.in.plain.test", "TLSA") is False
    _, told = arrives(router, host, "plain.test")
    assert told["tls"] and "verified" not in told


@pytest.mark.parametrize("what", ["TLSA", "A", "MX"])
def test_S8_dane_forged_records_keep_the_mail(what, router, host, zone, certs):
    """Changed after the signature: the resolver says SERVFAIL, and nobody is connected to."""
    name = f"{what.lower()}.forged.test"
    forged = {"TLSA": ("5a" * 32, ee(certs["ee"])[6:]), "A": ("127.0.0.9", host.ips["wrong"]),
              "MX": (f"MX\t20 else.{name}.", f"MX\t10 in.{name}.")}[what]
    records = domain_of(name, ("in", host.ips["wrong"] if what != "A" else "127.0.0.9", WRONG))
    if what == "MX":
        records = records.replace(f"MX 10 in.{name}", f"MX 20 else.{name}")
    zone.set("forged", records, forged)
    asked = {"TLSA": f"_25._tcp.in.{name}", "A": f"in.{name}", "MX": name}[what]
    assert zone.is_secure(asked, what) is None
    waits(router, name, {"TLSA": "TLSA", "A": "no MX of .* has an address now", "MX": "MX look-up .* failed"}[what])
    nothing_came(host, "wrong", name)
    assert not router.log.all(host=lambda h: h)


def test_S8_dane_no_mail_in_clear(router, host, zone, certs):
    """Whoever stands between takes STARTTLS away; or the host has none."""
    zone.set("clear.test", domain_of("clear.test", ("in", host.ips["clear"], ee(certs["ee"]))))
    waits(router, "clear.test", "TLS is required, and the host does not offer it")
    nothing_came(host, "clear", "clear.test")


def test_S8_dane_rollover(router, host, zone, certs):
    """The next key stands beside the present one before the host has it; then the host has it; then the old one goes."""
    both = ee(certs["ee"]), ee(certs["next"])
    for n, (service, records) in enumerate([("ee", both), ("next", both), ("next", both[1:])]):
        zone.set("rollover.test", domain_of("rollover.test", ("in", host.ips[service], *records)))
        router.restart()  # it forgets what it knows of DNS
        _, told = arrives(router, host, "rollover.test", f"rollover-{n}")
        assert told["verified"] == "dane" and host.ips[service] in told["host"]


@pytest.mark.parametrize("at", ["behind", "in"])
def test_S8_dane_host_that_is_an_alias(at, router, host, zone, certs):
    """The records are those of the name behind it, else its own (RFC 7672 section 2.2.3)."""
    other = {"behind": "in", "in": "behind"}[at]
    lines = ["alias.test. MX 10 in.alias.test.", "in.alias.test. CNAME behind.alias.test.",
             f"behind.alias.test. A {host.ips['ee']}", f"_25._tcp.{at}.alias.test. TLSA {ee(certs['ee'])}"]
    if at == "behind":
        lines.append(f"_25._tcp.{other}.alias.test. TLSA {WRONG}")
    zone.set("alias.test", "\n".join(lines))
    _, told = arrives(router, host, "alias.test", f"alias-{at}")
    assert told["verified"] == "dane" and told["host"].startswith("in.alias.test ")


@pytest.mark.parametrize("tlsa, ends", [(True, "dane"), (False, "wrong"), (None, "none")])
def test_S8_dane_alias_into_an_unsigned_zone(tlsa, ends, router, host, zone, certs):
    """Its own records hold, for they are secure (RFC 7672 section 2.2.2, "Insecure CNAME")."""
    lines = ["out.test. MX 10 in.out.test.", "in.out.test. CNAME behind.plain.test."]
    if tlsa is not None:
        lines.append(f"_25._tcp.in.out.test. TLSA {ee(certs['ee']) if tlsa else WRONG}")
    service = "wrong" if ends == "wrong" else "ee"
    zone.set("out.test", "\n".join([*lines, f"behind.plain.test. A {host.ips[service]}"]))
    if ends == "wrong":
        waits(router, "out.test", "no matching DANE TLSA records")
        nothing_came(host, "wrong", "out.test")
    else:
        _, told = arrives(router, host, "out.test", f"out-{ends}")
        assert told.get("verified", "none") == ends and told["tls"]


# ---- MTA-STS: the router sends ----

def sts(zone, domain, web, *hosts, record="1"):
    """The domain with its policy's record."""
    zone.set(domain, domain_of(domain, *hosts) + f"""
_mta-sts.{domain}. TXT "v=STSv1; id={record};"
mta-sts.{domain}. A {web.ip}
""")


@pytest.fixture
def web(closing, certs):
    return closing(Web(certs["sts"], policy()))


def test_sts_enforced(router, host, zone, web):
    web.text = policy(mx="in.good.sts.test")
    sts(zone, "good.sts.test", web, ("in", host.ips["sts"]))
    _, told = arrives(router, host, "good.sts.test")
    assert told["verified"] == "mta-sts"
    assert sums(reports(router, "good.sts.test")[0]) == {("sts", "good"): 1}


@pytest.mark.parametrize("listed", [True, False])
def test_sts_an_mx_that_is_not_listed(listed, router, host, zone, web):
    web.text = policy(mx="in.unlisted.sts.test")
    others = [("in", host.ips["sts"])] if listed else []
    sts(zone, "unlisted.sts.test", web, ("evil", host.ips["wrong"]), *others)
    if listed:
        _, told = arrives(router, host, "unlisted.sts.test", "unlisted")
        assert told["host"].startswith("in.unlisted") and told["verified"] == "mta-sts"
    else:
        waits(router, "unlisted.sts.test", "allows none of its MX")
    nothing_came(host, "wrong", "unlisted.sts.test")


def test_sts_a_certificate_for_another_name(router, host, zone, web):
    """The authority is trusted; the names in the certificate are those of others."""
    web.text = policy(mx="*.named.sts.test")
    sts(zone, "named.sts.test", web, ("elsewhere", host.ips["sts"]))
    waits(router, "named.sts.test", "hostname mismatch")
    assert not any(b"to-named.sts.test" in m for m in host.mails())
    assert set(sums(reports(router, "named.sts.test")[0])) == {("sts", "certificate-host-mismatch")}


def test_sts_no_tls(router, host, zone, web):
    web.text = policy(mx="in.named.sts.test")
    sts(zone, "named.sts.test", web, ("in", host.ips["clear"]))
    waits(router, "named.sts.test", "TLS is required, and the host does not offer it", "sts-clear")
    nothing_came(host, "clear", "sts-clear")


@pytest.mark.parametrize("label, service, result", [
    ("elsewhere", "sts", "certificate-host-mismatch"), ("in", "ee", "certificate-not-trusted"),
    ("in", "clear", "starttls-not-supported")])
def test_sts_testing_is_counted_and_delivers(label, service, result, router, host, zone, web):
    web.text = policy("testing", mx="*.testing.sts.test")
    sts(zone, "testing.sts.test", web, (label, host.ips[service]))
    _, told = arrives(router, host, "testing.sts.test", f"testing-{result}")
    assert "verified" not in told and ("tls" in told) == (service != "clear")
    assert sums(reports(router, "testing.sts.test")[0]) == {("sts", result): 1}


def test_sts_another_id_is_another_policy(router, host, zone, web):
    web.text = policy(mx="in.fresh.sts.test")
    sts(zone, "fresh.sts.test", web, ("in", host.ips["sts"]))
    arrives(router, host, "fresh.sts.test", "fresh-1")
    web.text = policy(mx="other.fresh.sts.test")
    fetched = len(web.paths)
    router.restart()  # else it is not fetched again for five minutes
    arrives(router, host, "fresh.sts.test", "fresh-2")
    assert len(web.paths) == fetched
    router.restart()
    sts(zone, "fresh.sts.test", web, ("in", host.ips["sts"]), record="2")
    waits(router, "fresh.sts.test", "allows none of its MX")
    assert len(web.paths) > fetched


def test_sts_what_is_kept_holds_without_the_web_server(router, host, zone, web):
    """Who diverts the MX and cuts the web server off gets nothing, whatever he says of the record."""
    web.text = policy(mx="in.kept.sts.test")
    sts(zone, "kept.sts.test", web, ("in", host.ips["sts"]))
    arrives(router, host, "kept.sts.test", "kept-1")
    router.restart()
    web.close()
    sts(zone, "kept.sts.test", web, ("evil", host.ips["wrong"]), record="2")
    waits(router, "kept.sts.test", "allows none of its MX")
    nothing_came(host, "wrong", "kept.sts.test")
    zone.set("kept.sts.test", domain_of("kept.sts.test", ("in", host.ips["sts"])))  # no record any more
    router.restart()
    mail = host.wait_mail(b"to-kept.sts.test")
    assert b"using TLS" in mail and router.wait_for("delivered")["verified"] == "mta-sts"


def test_sts_a_policy_that_failed_is_looked_at_again(router, host, zone, web):
    """The hosts have moved, and the record was forgotten (RFC 8461 section 5.1)."""
    web.text = policy(mx="in.doubt.sts.test")
    sts(zone, "doubt.sts.test", web, ("in", host.ips["sts"]))
    arrives(router, host, "doubt.sts.test", "doubt-1")
    router.restart()
    web.text = policy(mx="new.doubt.sts.test")
    sts(zone, "doubt.sts.test", web, ("new", host.ips["sts"]))
    send(router, "u@doubt.sts.test", test_id="doubt-2")
    router.wait_for("host_failed", why=lambda w: w and "allows none of its MX" in w)
    host.wait_mail(b"doubt-2")
    assert router.wait_for("delivered")["verified"] == "mta-sts"


def test_sts_dane_goes_before_it(router, host, zone, web, certs):
    """RFC 8461 section 2: a host with secure TLSA records is held to these."""
    web.text = policy(mx="other.signed.sts.test")
    sts(zone, "signed.sts.test", web, ("in", host.ips["ee"], ee(certs["ee"])))
    assert arrives(router, host, "signed.sts.test")[1]["verified"] == "dane"


# ---- Postfix sends: DANE with our listener ----

@pytest.fixture(scope="module")
def own(peers):
    """Certificates of ours: by host, and one for whoever asks for none of them."""
    for name in ("one", "two", "default"):
        self_signed(peers, name, [f"mx.{name}.us.test"])
    self_signed(peers, "rsa", ["mx.two.us.test"], "rsa")
    return peers


@pytest.fixture
def ours(new_tern, own, asking_us):
    """A listener that has them all. Who asks whom: that needs a file system of one's own."""
    if not asking_us:
        pytest.skip("unshare --mount is not permitted here: Postfix cannot be told which resolver to ask")
    made = new_tern()
    made.configure(f"""  tls = {{ {pair(own, "default")}, certificates = {{
    {{ {pair(own, "one")} }}, {{ {pair(own, "two")} }}, {{ {pair(own, "rsa")} }} }} }},
  relay_from = "127.0.0.0/8", default_route = route.discard {{}},
""")
    return made.start()


def key_of(own, name):
    return "3 1 1 " + digest_of_key(own / f"{name}.pem")


@dataclasses.dataclass
class Server:
    """What send() wants to know of one."""
    ip: str
    port: int = 25


def from_postfix(host, to):
    """Gives Postfix a mail: what became of it, and all that it logged."""
    before = len(host.log())
    send(Server(host.ip), to)

    def told():
        lines = [line for line in host.log()[before:].splitlines() if f"to=<{to}>" in line and "status=" in line]
        return lines and (lines[0], host.log()[before:])
    return until(told, lambda: f"Postfix has tried it\n{host.log()[before:]}", timeout=30)


@pytest.mark.parametrize("name", ["one", "two", "default"])
def test_postfix_verifies_our_listener(name, ours, host, zone, own):
    """It asks by SNI for the name that has the TLSA record, and gets the certificate that fits."""
    zone.set("us", domain_of(f"{name}.us.test", ("mx", ours.ip, key_of(own, name))))
    status, log = from_postfix(host, f"u@{name}.us.test")
    assert "status=sent" in status and f"Verified TLS connection established to mx.{name}.us.test" in log, log
    assert ours.wait_for("discarded")["recipient"] == f"u@{name}.us.test"


def test_postfix_does_not_take_another_key(ours, host, zone, own):
    """Of a host that no other test has: Postfix remembers the records of each for a second."""
    zone.set("us", domain_of("another.us.test", ("mx", ours.ip, key_of(own, "two"))))
    status, log = from_postfix(host, "u@another.us.test")
    assert "status=deferred" in status and "Server certificate not verified" in log, log
    assert not ours.log.all("discarded")


def test_postfix_and_a_new_certificate_of_ours(ours, host, zone, own, folder):
    """The record of the next key is there, then the certificate is: a reload, and no mail waits in between."""
    both = key_of(own, "one"), key_of(own, "default")
    zone.set("us", domain_of("roll.us.test", ("mx", ours.ip, *both)))
    text = ours.config.read_text()
    for n, name in enumerate(("one", "default")):
        ours.config.write_text(text.replace(pair(own, "default"), pair(own, name), 1))
        ours.reload()
        status, log = from_postfix(host, f"u{n}@roll.us.test")
        assert "status=sent" in status and "Verified TLS connection established" in log, log


@pytest.mark.parametrize("name, key, how", [("one", "one", "Verified"), ("two", "rsa", "Verified"),
                                            ("one", "two", "Untrusted")])
def test_posttls_finger(name, key, how, ours, host, zone, own, asking_us):
    zone.set("us", domain_of(f"{name}.us.test", ("mx", ours.ip, key_of(own, key))))
    algorithm = ["-o", "tls_medium_cipherlist=aRSA", "-p", "!TLSv1.3"] if key == "rsa" else []
    done = run([*asking_us, "posttls-finger", "-c", "-t", "20", "-l", "dane", "-L", "summary", *algorithm, f"{name}.us.test"],
               env={**os.environ, "MAIL_CONFIG": str(host.folder / "conf")})
    assert f"{how} TLS connection established to mx.{name}.us.test" in done.stdout + done.stderr, done.stdout + done.stderr
