"""TLS-RPT (RFC 8460): `tern tls-report` of a router that meets domains whose policies and certificates are good and bad."""
import datetime
import ipaddress
import json
import pathlib
import re

import pytest

from certificates import make_certificates
from clients import send
from test_dane import digest_of_key
from test_mta_sts import FAST, PRELUDE, Web, policy
from waiting import until

GOLDEN = pathlib.Path(__file__).parents[1] / "unit/daemon"
RESULTS = {"starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted",
           "validation-failure", "tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error",
           "sts-policy-invalid", "sts-webpki-invalid"}
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def text(value):
    assert isinstance(value, str) and value, value
    return value


def number(value):
    assert isinstance(value, int) and not isinstance(value, bool) and value >= 0, value
    return value


def texts(value):
    assert isinstance(value, list) and value, value
    return [text(v) for v in value]


def date(value):
    assert DATE.fullmatch(value), value
    return datetime.datetime.fromisoformat(value[:-1])


def only(table, required, optional=()):
    """The object has these fields and no others: (name, check)."""
    def check(value):
        assert isinstance(value, dict), value
        known = {**dict(required), **dict(optional)}
        assert set(dict(required)) <= set(value) <= set(known), set(value) ^ set(known)
        for name, field in value.items():
            known[name](field)
        return value
    return check(table)


def one_of(*values):
    def check(value):
        assert value in values, value
        return value
    return check


def valid_failure(f):
    only(f, {"result-type": one_of(*RESULTS), "failed-session-count": number},
         {"sending-mta-ip": ipaddress.ip_address, "receiving-ip": ipaddress.ip_address,
          "receiving-mx-hostname": text, "receiving-mx-helo": text, "additional-information": text,
          "failure-reason-code": text})


def valid_policy(p):
    only(p, {"policy": dict, "summary": dict}, {"failure-details": list})
    only(p["policy"], {"policy-type": one_of("tlsa", "sts", "no-policy-found"), "policy-domain": text},
         {"policy-string": texts, "mx-host": texts})
    only(p["summary"], {"total-successful-session-count": number, "total-failure-session-count": number})
    for f in p.get("failure-details", []):
        valid_failure(f)
    assert sum(f["failed-session-count"] for f in p.get("failure-details", [])) == \
        p["summary"]["total-failure-session-count"]


def valid(report):
    """As section 4.4 has it."""
    only(report, {"organization-name": text, "date-range": dict, "contact-info": text, "report-id": text,
                  "policies": list})
    only(report["date-range"], {"start-datetime": date, "end-datetime": date})
    begins, ends = (date(report["date-range"][k]) for k in ("start-datetime", "end-datetime"))
    assert ends - begins == datetime.timedelta(days=1, seconds=-1) and begins.hour == 0
    assert re.fullmatch(r"[^@\s]+@[^@\s]+", report["contact-info"])
    assert report["policies"]
    for p in report["policies"]:
        valid_policy(p)
    return report


def reports(router, *args):
    """What `tern tls-report --json` prints: one report behind the other."""
    rest, found = router.ok("tls-report", *args, "--json").strip(), []
    while rest:
        one, end = json.JSONDecoder().raw_decode(rest)
        found.append(valid(one))
        rest = rest[end:].strip()
    return found


def sums(report):
    """{(policy type, result): sessions}"""
    found = {}
    for p in report["policies"]:
        kind = p["policy"]["policy-type"]
        good = p["summary"]["total-successful-session-count"]
        if good:
            found[kind, "good"] = found.get((kind, "good"), 0) + good
        for f in p.get("failure-details", []):
            key = kind, f["result-type"]
            found[key] = found.get(key, 0) + f["failed-session-count"]
    return found


@pytest.mark.parametrize("name", ["tls_report_example.json", "tls_report_kinds.json"])
def test_the_golden_reports_are_valid(name):
    report = valid(json.loads((GOLDEN / name).read_text()))
    if name == "tls_report_example.json":
        assert sums(report) == {("sts", "good"): 5326, ("sts", "certificate-expired"): 100,
                                ("sts", "starttls-not-supported"): 200, ("sts", "validation-failure"): 3}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("rpt"), ("in.there.test", "mta-sts.there.test"))


def router_to(tern, zone, chain, domains):
    listed = ", ".join(f'["{d}"] = route.mx {{ domain = "{d}"{options} }}' for d, options in domains.items())
    return tern(f"""{FAST}  dns = {{ servers = {{ "{zone.server}" }}, timeout = "10s", allow_loopback_mx = true }},
  tls = {{ ca = "{chain.ca}" }}, workers = 2,
  domains = {{ {listed} }},
""", PRELUDE, dns=zone)


def test_good_and_bad(tern, sink, scripted_dns, closing, chain, certificates):
    """there.test has a policy, which is kept and then is not; plain.test has none, and no TLS; a mail to each."""
    web = closing(Web(chain, policy(mode="testing")))
    mx, plain = sink(certificates=chain), sink()
    zone = scripted_dns(f"""_mta-sts.there.test. TXT "v=STSv1; id=1;"
mta-sts.there.test. A {web.ip}
there.test. MX 10 in.there.test.
in.there.test. A {mx.ip}
plain.test. MX 10 mx.plain.test.
mx.plain.test. A {plain.ip}""")
    router = router_to(tern, zone, chain, {"there.test": "", "plain.test": ""})
    assert "Nothing was counted" in router.ok("tls-report")
    send(router, "u@there.test", test_id="one")
    send(router, "u@plain.test", test_id="two")
    mx.wait_ids({"one"})
    plain.wait_ids({"two"})
    router.wait_for("delivered", count=2)

    by_domain = {r["report-id"].split(".", 1)[1].split("@")[0]: r for r in reports(router)}
    assert set(by_domain) == {"there.test", "plain.test"}
    there, without = by_domain["there.test"], by_domain["plain.test"]
    assert sums(there) == {("sts", "good"): 1}
    assert there["policies"][0]["policy"] == {
        "policy-type": "sts", "policy-domain": "there.test", "mx-host": ["in.there.test"],
        "policy-string": ["version: STSv1", "mode: testing", "mx: in.there.test", "max_age: 86400"]}
    assert sums(without) == {("no-policy-found", "starttls-not-supported"): 1}
    assert without["policies"][0]["failure-details"] == [
        {"result-type": "starttls-not-supported", "failed-session-count": 1, "receiving-ip": plain.ip,
         "receiving-mx-hostname": "mx.plain.test", "sending-mta-ip": plain.mails[0].peer}]
    table = router.ok("tls-report")
    assert re.search(r"^there\.test +sts +1 +0", table, re.M), table
    assert re.search(r"^plain\.test +none +0 +1 +starttls-not-supported", table, re.M), table
    details = router.ok("tls-report", "There.Test")
    assert "policy sts of there.test: 1 good, 0 failed" in details and "  mode: testing\n" in details
    counters = router.json("status")["counters"]
    assert (counters["tls_out_sessions"], counters["tls_out_failures"]) == (1, 1)
    assert "TLS to MX      1 connections, 1 failures" in router.ok("status")

    # Whatever was shown is on disk: a kill loses nothing of it, a start counts on.
    router.kill9()
    router.start()
    assert reports(router, "there.test") == [there]
    mx.certificates = certificates  # of an authority that nobody trusts here: tested only, so it goes
    mx.down()
    mx.up()
    send(router, "u@there.test", test_id="three")
    mx.wait_ids({"three"})
    router.wait_for("delivered", count=1)
    [there] = reports(router, "there.test")
    assert sums(there) == {("sts", "good"): 1, ("sts", "certificate-not-trusted"): 1}
    failure = there["policies"][0]["failure-details"][0]
    assert "mode testing" in failure["failure-reason-code"] and failure["receiving-ip"] == mx.ip
    router.restart()
    assert sums(reports(router, "there.test")[0]) == sums(there)


def test_dane(tern, sink, scripted_dns, chain):
    good, bad = sink(certificates=chain), sink(certificates=chain)
    zone = scripted_dns(f"good.test. MX 10 mx.good.test.\nmx.good.test. A {good.ip}\n"
                        f"bad.test. MX 10 mx.bad.test.\nmx.bad.test. A {bad.ip}")
    digest = digest_of_key(chain.cert)
    zone.add_tlsa("_25._tcp.mx.good.test", bytes.fromhex("030101" + digest))
    zone.add_tlsa("_25._tcp.mx.bad.test", bytes.fromhex("030101" + "00" * 32))
    zone.secure = True
    dane = ', tls = "dane", mta_sts = false'
    router = router_to(tern, zone, chain, {"good.test": dane, "bad.test": dane})
    send(router, "u@good.test", test_id="one")
    send(router, "u@bad.test", test_id="two")
    good.wait_ids({"one"})
    router.wait_for("host_failed")
    [report] = reports(router, "good.test")
    assert report["policies"][0]["policy"] == {"policy-type": "tlsa", "policy-domain": "mx.good.test",
                                               "policy-string": ["3 1 1 " + digest.upper()]}
    assert sums(report) == {("tlsa", "good"): 1}
    [report] = reports(router, "bad.test")
    assert set(sums(report)) == {("tlsa", "tlsa-invalid")}
    assert bad.mails == []


def test_what_is_asked_wrongly(tern):
    router = tern()
    done = router.cli("tls-report", "--day", "30.11.2026")
    assert done.returncode == 64 and "--day 30.11.2026" in done.stderr
    done = router.cli("tls-report", "nobody.test")
    assert done.returncode != 0 and "no session with an MX of nobody.test was counted on 20" in done.stderr
    done = router.cli("tls-report", "-d", "yesterday")
    assert done.returncode == 0 and "Nothing was counted on 20" in done.stdout
    assert router.cli("tls-report", "a..b").returncode != 0
    assert "RFC 8460" in router.ok("tls-report", "--help")


def test_pages(tern, sink, scripted_dns, chain):
    """More domains than a page has: each once, in order."""
    mx = sink()
    names = [f"d{n:03}.test" for n in range(130)]
    zone = scripted_dns("\n".join(f"{n}. MX 10 mx.{n}.\nmx.{n}. A {mx.ip}" for n in names))
    router = router_to(tern, zone, chain, {n: ", mta_sts = false" for n in names})
    for start in range(0, len(names), 65):
        send(router, [f"u@{n}" for n in names[start:start + 65]])
    until(lambda: router.json("status")["counters"]["delivered"] == len(names), "all are delivered", timeout=60)
    found = [r["policies"][0]["policy"]["policy-domain"] for r in reports(router)]
    assert found == names
    counters = router.json("status")["counters"]
    assert sum(sum(sums(r).values()) for r in reports(router)) == counters["tls_out_failures"]
