"""DANE (RFC 7672): a resolver that validates says which certificate a host has."""
import base64
import dataclasses
import hashlib

import pytest

from clients import send
from processes import run
from waiting import until

PRELUDE = 'local smart_host = require "policies.smart_host"\n'
FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def digest_of_key(path):
    """SHA-256 of the public key of a certificate, as TLSA 3 1 1 has it."""
    pem = run(["openssl", "x509", "-in", path, "-noout", "-pubkey"]).stdout
    pem = pem if isinstance(pem, str) else pem.decode()
    body = "".join(line for line in pem.splitlines() if not line.startswith("-"))
    return hashlib.sha256(base64.b64decode(body)).hexdigest()


def router_to(tern, zone, host="mx.test"):
    return tern(f"""  relay_from = {{ "127.0.0.0/8" }},
{FAST}  dns = {{ servers = {{ "{zone.server}" }}, timeout = "1s" }},
  senders = {{ ["branch.test"] = smart_host {{ "[{host}]", tls = "dane" }} }},
""", PRELUDE, dns=zone)


@pytest.fixture
def signed(scripted_dns):
    def make(host, digest, secure=True):
        zone = scripted_dns(f"mx.test. A {host.ip}")
        zone.add_tlsa("_25._tcp.mx.test", bytes.fromhex("030101" + digest))
        zone.secure = secure
        return zone
    return make


def test_S8_dane_delivers_to_the_host_with_that_key(tern, sink, signed, certificates):
    host = sink(certificates=certificates)
    router = router_to(tern, signed(host, digest_of_key(certificates.cert)))
    send(router, "u@there.test", sender="a@branch.test", test_id="one")
    assert host.wait_ids({"one"})["one"].tls


def test_S8_dane_waits_while_the_key_is_another(tern, sink, signed, certificates):
    host = sink(certificates=certificates)
    zone = signed(host, "00" * 32)
    router = router_to(tern, zone)
    send(router, "u@there.test", sender="a@branch.test", test_id="one")
    until(lambda: zone.questions("_25._tcp.mx.test", "TLSA"), "TLSA was asked")
    until(lambda: len(host.greeted) >= 2, "the host was tried twice")
    assert host.mails == []
    assert len(router.queued()) == 1


def test_S8_dane_an_insecure_zone_says_nothing(tern, sink, signed, certificates):
    host = sink(certificates=certificates)
    zone = signed(host, "00" * 32, secure=False)
    router = router_to(tern, zone)
    send(router, "u@there.test", sender="a@branch.test", test_id="one")
    host.wait_ids({"one"})
    assert zone.questions("_25._tcp.mx.test", "TLSA") == []


@pytest.mark.parametrize("name, fits", [("mx.test", True), ("other.test", False)])
def test_S8_dane_authority_and_name(name, fits, folder, tern, sink, scripted_dns, certificates):
    """TLSA 2 1 1: the authority's key, and a certificate of it that has the base domain."""
    chain = folder / "chain.pem"
    chain.write_bytes(certificates.cert.read_bytes() + certificates.ca.read_bytes())
    host = sink(certificates=dataclasses.replace(certificates, cert=chain))
    zone = scripted_dns(f"{name}. A {host.ip}")
    zone.add_tlsa(f"_25._tcp.{name}", bytes.fromhex("020101" + digest_of_key(certificates.ca)))
    zone.secure = True
    router = router_to(tern, zone, name)
    send(router, "u@there.test", sender="a@branch.test", test_id="one")
    if fits:
        assert host.wait_ids({"one"})["one"].tls
    else:
        until(lambda: len(host.greeted) >= 2, "the host was tried twice")
        assert host.mails == []
