"""REQUIRETLS (RFC 8689): a message whose sender says so goes over verified TLS, to hosts that promise the same, or
comes back; and what `TLS-Required: No` asks for."""
import json
import smtplib
import ssl

import pytest

from certificates import make_certificates
from clients import Raw, message, send
from strict_host import StrictHost
from test_mta_sts import Web, policy
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
SLOW = '  queue = { retry = "1h...", host_retry = "1h", host_retry_max = "1h" },\n'
SECRET = "nobody else is to read this"


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("requiretls"), ("mx.test", "in.there.test", "second.there.test"))


@pytest.fixture
def strict(closing, chain):
    def make(certificates=chain, **options):
        return closing(StrictHost(certificates, **options))
    return make


@pytest.fixture
def zone(scripted_dns, sink):
    """zone(host, ...): there.test by MX, and back.test, to which notifications go."""
    def make(*hosts, secure=True):
        back = sink()
        lines = ["back.test. MX 10 mx.back.test.", f"mx.back.test. A {back.ip}"]
        for n, (name, host) in enumerate(hosts):
            lines += [f"there.test. MX {10 * (n + 1)} {name}.", f"{name}. A {host.ip}"]
        made = scripted_dns("\n".join(lines))
        made.secure = secure
        made.back = back
        return made
    return make


@pytest.fixture
def router(tern, chain):
    def make(zone, more=""):
        return tern(f"""{FAST}  dns = {{ servers = {{ "{zone.server}" }}, timeout = "5s", allow_loopback_mx = true }},
  tls = {{ cert = "{chain.cert}", key = "{chain.key}", ca = "{chain.ca}" }},
  domains = {{ ["there.test"] = route.mx {{ domain = "there.test" }} }},
{more}""", dns=zone)
    return make


def trusting(chain):
    context = ssl.create_default_context(cafile=chain.ca)
    context.check_hostname = False  # smtplib would look for the address in it
    return context


def send_safely(router, chain, to="u@there.test", test_id=None, sender="a@back.test", options=("REQUIRETLS",),
                headers=""):
    """By smtplib, which knows nothing of the extension but how to add a parameter."""
    to = [to] if isinstance(to, str) else to
    with smtplib.SMTP(router.ip, router.port, local_hostname="client.test", timeout=20) as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("requiretls"), "it is no use in clear"
        smtp.starttls(context=trusting(chain))
        smtp.ehlo()
        assert smtp.has_extn("requiretls")
        content = headers + message(test_id, sender=sender, to=to[0], body=SECRET)
        assert not smtp.sendmail(sender, to, content.encode(), mail_options=options)


def returned(zone, timeout=20):
    note = zone.back.wait(1, timeout)[0]
    assert note.sender == "" and SECRET.encode() not in note.content
    return note.content.decode()


# ---- as a server ----

def test_what_a_listener_says(router, zone, strict, chain):
    tern = router(zone(("in.there.test", strict())))
    with Raw(tern) as raw:
        assert "REQUIRETLS" not in raw.hello().text.split()
        assert raw.cmd("MAIL FROM:<a@back.test> REQUIRETLS").enhanced == "5.7.10"
        raw.start_tls(trusting(chain))
        assert "REQUIRETLS" in raw.hello().text.split()
        raw.expect(501, "MAIL FROM:<a@back.test> REQUIRETLS=1")
        raw.expect(250, "MAIL FROM:<a@back.test> requiretls SIZE=100")


def test_a_listener_without(new_tern, chain):
    router = new_tern(f"""  tls = {{ cert = "{chain.cert}", key = "{chain.key}" }},
  domains = {{ ["there.test"] = route.hosts {{ "127.0.0.1:1" }} }},
""")
    router.config.write_text(router.config.read_text().replace(
        f'listen = {{ "{router.address}" }}', f'listen = {{ {{ "{router.address}", requiretls = false }} }}'))
    router.start()
    with Raw(router) as raw:
        raw.hello()
        raw.start_tls(trusting(chain))
        assert "REQUIRETLS" not in raw.hello().text.split()
        raw.expect(555, "MAIL FROM:<a@back.test> REQUIRETLS")


def test_policies_see_it(router, zone, strict, chain):
    host = strict()
    tern = router(zone(("in.there.test", host)), """  policies = { {
    name = "safe_only",
    mail = function(ctx)
      if not ctx.message.requiretls then return tern.reject { 550, "5.7.10", "say REQUIRETLS" } end
    end,
  } },
""")
    with pytest.raises(smtplib.SMTPSenderRefused, match="say REQUIRETLS"):
        send(tern, "u@there.test")
    send_safely(tern, chain, test_id="one")
    until(lambda: host.mails, "it came")


# ---- as a client ----

def test_on_over_verified_tls(router, zone, strict, chain):
    host = strict()
    tern = router(zone(("in.there.test", host)))
    send_safely(tern, chain)
    until(lambda: host.mails, "it came")
    assert host.mails[0].tls and "REQUIRETLS" in host.mails[0].params.split()
    assert tern.log.wait("message_accepted")["tls_required"] == "yes"
    send(tern, "u@there.test", sender="a@back.test")
    until(lambda: len(host.mails) == 2, "so does other mail, without it")
    assert "REQUIRETLS" not in host.mails[1].params
    assert host.broken == []


def test_the_certificate_is_anothers(router, zone, strict, chain, tmp_path):
    host = strict(make_certificates(tmp_path, ("in.there.test",)))  # signed by an authority that nobody knows
    where = zone(("in.there.test", host))
    tern = router(where)
    send_safely(tern, chain)
    note = returned(where)
    assert "5.7.10" in note and "REQUIRETLS" in note
    assert host.mails == [] and not any("MAIL" in line for _, _, line in host.commands)


def test_a_host_without_tls_or_without_the_extension(router, zone, strict, chain):
    first, second = strict(certificates=None, in_clear=["REQUIRETLS"]), strict(requiretls=False)
    where = zone(("in.there.test", first), ("second.there.test", second))
    tern = router(where)
    send_safely(tern, chain)
    assert "5.7.30" in returned(where)
    assert first.mails == second.mails == []
    send(tern, "u@there.test", sender="a@back.test", test_id="plain")
    until(lambda: first.mails, "other mail goes to the first, in clear")


def test_the_second_host_has_all(router, zone, strict, chain):
    first, second = strict(requiretls=False), strict()
    tern = router(zone(("in.there.test", first), ("second.there.test", second)))
    send_safely(tern, chain)
    until(lambda: second.mails, "it came")
    assert first.mails == [] and "REQUIRETLS" in second.mails[0].params


def test_nobody_vouches_for_the_mx(router, zone, strict, chain):
    host = strict()
    where = zone(("in.there.test", host), secure=False)
    tern = router(where)
    send_safely(tern, chain)
    assert "neither DNSSEC nor MTA-STS" in " ".join(returned(where).split())
    assert host.sessions == 0


def test_a_long_body_is_not_returned(router, zone, strict, chain):
    host = strict(requiretls=False)
    where = zone(("in.there.test", host))
    tern = router(where)
    send_safely(tern, chain, options=("REQUIRETLS", "RET=FULL"))
    assert "Subject: test" in returned(where)


def test_explain_says_which_hosts_are_left(router, zone, strict, chain):
    where = zone(("in.there.test", strict()))
    tern = router(where)
    mail = ("explain", "--from", "a@back.test", "--to", "u@there.test", "--client", "127.0.0.1")
    assert "TLS opportunistic" in tern.ok(*mail)
    assert "TLS verify" in tern.ok(*mail, "--requiretls")
    where.secure = False
    text = tern.ok(*mail, "--requiretls")
    assert "neither DNSSEC nor MTA-STS" in text and "is returned to its sender: 550" in text


# ---- the queue ----

def test_it_stays_with_the_message(tern, chain, empty_dns, folder):
    fields = f"""{SLOW}  tls = {{ cert = "{chain.cert}", key = "{chain.key}" }},
  domains = {{ ["there.test"] = route.hosts {{ "127.0.0.1:1" }} }},
"""
    router = tern(fields)
    send_safely(router, chain)
    until(lambda: len(router.queued()) == 1, "it waits")
    (entry,) = router.queued()
    for command in (("queue", "show"), ("why",)):
        assert "REQUIRETLS" in router.ok(*command, entry["id"])
        assert router.json(*command, entry["id"])["requiretls"] is True
    out = folder / "out"
    router.json("queue", "export", out)
    (envelope,) = out.glob("*.json")
    assert json.loads(envelope.read_text())["requiretls"] is True
    router.json("queue", "remove", entry["id"])
    until(lambda: not router.queued(), "it is removed")
    router.json("queue", "import", out)
    until(lambda: len(router.queued()) == 1, "and back")
    assert router.json("queue", "show", router.queued()[0]["id"])["requiretls"] is True
    router.restart()
    assert router.json("queue", "show", router.queued()[0]["id"])["requiretls"] is True


# ---- TLS-Required: No ----

def test_tls_required_no(router, scripted_dns, strict, chain, tmp_path, closing, sink):
    bad = strict(make_certificates(tmp_path, ("in.there.test",)))
    site = make_certificates(tmp_path_of(tmp_path), ("mta-sts.there.test",))
    web = closing(Web(site, policy()))
    where = scripted_dns("\n".join([
        '_mta-sts.there.test. TXT "v=STSv1; id=1;"', f"mta-sts.there.test. A {web.ip}",
        "there.test. MX 10 in.there.test.", f"in.there.test. A {bad.ip}"]))
    both = tmp_path / "both.pem"
    both.write_text(chain.ca.read_text() + site.ca.read_text())
    tern = router(where)
    tern.config.write_text(tern.config.read_text().replace(f'ca = "{chain.ca}"', f'ca = "{both}"'))
    tern.restart()
    send(tern, "u@there.test", sender="a@back.test", test_id="policy")
    tern.log.wait("host_failed", host=lambda h: h and "in.there.test" in h)
    assert bad.mails == []
    send_safely(tern, chain, options=(), headers="TLS-Required: No\r\n")
    until(lambda: bad.mails, "the one that says so went to it")
    assert bad.mails[0].tls and b"TLS-Required: No" in bad.mails[0].content
    assert tern.log.wait("message_accepted", count=2)["tls_required"] == "no"


def tmp_path_of(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return folder
