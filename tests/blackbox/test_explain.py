"""`tern explain` (ROUTING.md Q12): what each policy says at which line, which DNS records are seen and left
out, and where the mail would go. Real DNS, all four policies, nothing is running and nothing changes."""
import json
import os

import pytest

from clients import send
from daemon import HOSTNAME

PRELUDE = """\
local backup = require "policies.backup"
local smart_host = require "policies.smart_host"
local relay_to_host = require "policies.relay_to_host"
local etrn = require "policies.etrn"
"""
ZONE = f"""\
example.test. MX 10 mx1.example.test.
example.test. MX 10 mx1b.example.test.
example.test. MX 20 {HOSTNAME}.
example.test. MX 30 mx3.example.test.
mx1.example.test. A 203.0.113.1
mx1.example.test. AAAA 2001:db8::1
mx1b.example.test. A 203.0.113.2
mx3.example.test. A 203.0.113.3
{HOSTNAME}. A 203.0.113.99
smart.test. A 203.0.113.5
far.test. MX 5 mx.far.test.
mx.far.test. A 203.0.113.6
null.test. MX 0 .
notmx.test. MX 5 mx.far.test.
lost.test. MX 5 nowhere.lost.test.
"""
FIELDS = """\
  domains = {
    ["example.test"] = backup(),
    ["notmx.test"] = backup(),
    ["null.test"] = backup(),
    ["intranet.test"] = relay_to_host { "10.1.2.3:2525", "[2001:db8::7]", tls = "require" },
    [".branch.test"] = relay_to_host { "lmtp:/run/lmtp" },
    ["shop.test"] = etrn { deliver_to = "203.0.113.10", allow = "203.0.113.0/24" },
    ["fallback.test"] = route.mx { domain = "lost.test", below = nil,
                                   fallback = route.hosts { "smart.test:26" } },
  },
  senders = { ["user.test"] = smart_host { "smart.test:587", tls = "verify" } },
  relay_from = { "10.0.0.0/8" },
"""


@pytest.fixture
def router(new_tern, nsd):
    """router(fields, prelude): a configuration; nothing is started."""
    server = nsd(ZONE)

    def make(fields=FIELDS, prelude=""):
        made = new_tern(dns=server)
        made.configure(fields, PRELUDE + prelude)
        return made
    return make


def explain(router, sender, to, *args):
    answer = router.json("explain", "--from", sender, "--to", to, *args)
    if os.environ.get("SHOW"):
        print("\n" + text(router, sender, to, *args))
    return answer


def text(router, sender, to, *args):
    return router.ok("explain", "--from", sender, "--to", to, *args)


def hook(answer, name):
    return next(h for h in answer["hooks"] if h["hook"] == name)


def hosts(plan):
    return [(h["address"], h["port"]) for h in plan["hosts"]]


def looked_up(things):
    return {(a["name"], a["type"]): a["records"] for a in things}


def test_Q12_backup(router):
    answer = explain(router(), "a@b.test", "u@example.test")
    assert answer["outcome"] == "delivered"
    assert [h["hook"] for h in answer["hooks"]] == ["connect", "helo", "mail", "rcpt", "data", "route"]
    assert not hook(answer, "connect")["asked"] and hook(answer, "connect")["reply"]["code"] == 220
    rcpt = hook(answer, "rcpt")
    policy, = rcpt["policies"]
    assert policy["policy"] == "backup" and policy["part"] == "domains"
    assert policy["key"] == "example.test" and policy["outcome"] == "no opinion"
    assert policy["place"].startswith("policies/backup.lua:")
    assert ("example.test", "MX") in looked_up(policy["dns"])
    assert rcpt["reply"] == {"code": 250, "enhanced": "2.1.5", "text": "OK"}
    assert "content" in hook(answer, "data")["why"]
    route = answer["route"]
    assert route["text"] == "mx example.test below self" and route["reason"] == "backup MX"
    assert route["queue"] == "example.test" and route["lifetime_while_hosts_fail"] == "forever"
    assert route["decided_by"] == hook(answer, "route")["policies"][0]["place"]
    plan, = route["plans"]
    seen = looked_up(plan["dns"])
    assert seen["example.test", "MX"] == ["10 mx1.example.test", "10 mx1b.example.test", f"20 {HOSTNAME}",
                                          "30 mx3.example.test"]
    assert seen["mx1.example.test", "A"] == ["203.0.113.1"]
    assert seen["mx1.example.test", "AAAA"] == ["2001:db8::1"]
    assert {h["address"] for h in plan["hosts"]} == {"203.0.113.1", "203.0.113.2", "2001:db8::1"}
    assert all(h["preference"] == 10 and h["port"] == 25 and h["tls"] == "opportunistic"
               for h in plan["hosts"])
    assert {d["what"]: d["reason"] for d in plan["discarded"]} == {
        f"20 {HOSTNAME}": "ourselves", "30 mx3.example.test": "not preferred to our own"}


def test_Q12_backup_that_is_no_mx_is_refused(router):
    answer = explain(router(), "a@b.test", "u@notmx.test")
    assert answer["outcome"] == "refused" and not answer["route"]["plans"][0]["hosts"]
    rcpt = hook(answer, "rcpt")
    assert rcpt["reply"]["code"] == 550 and rcpt["reply"]["enhanced"] == "5.7.1"
    assert rcpt["policies"][0]["outcome"].startswith("reject 550 5.7.1")
    assert rcpt["decided_by"].startswith("policies/backup.lua:")
    assert hook(explain(router(), "a@b.test", "u@null.test"), "rcpt")["reply"]["code"] == 556


def test_Q12_relay_to_host(router):
    answer = explain(router(), "a@b.test", "u@intranet.test")
    plan, = answer["route"]["plans"]
    assert plan["dns"] == []  # H1: nothing is looked up
    assert hosts(plan) == [("10.1.2.3", 2525), ("2001:db8::7", 25)]
    assert all(h["tls"] == "require" and h["preference"] is None for h in plan["hosts"])
    step, = hook(answer, "rcpt")["policies"]
    assert step["policy"] == "relay_to_host" and not step["has_hook"] and step["outcome"] is None
    assert hook(answer, "rcpt")["why"] == "its domain is in `domains`"
    answer = explain(router(), "a@b.test", "u@x.branch.test")
    assert hook(answer, "route")["policies"][0]["key"] == ".branch.test"
    host, = answer["route"]["plans"][0]["hosts"]
    assert host["protocol"] == "lmtp" and host["address"] == "unix:/run/lmtp" and host["port"] is None


def test_Q12_smart_host(router):
    answer = explain(router(), "me@user.test", "u@far.test", "--client", "10.1.1.1")
    assert answer["session"]["may_relay"]
    assert hook(answer, "rcpt")["why"] == "the client is in `relay_from`, so it may relay"
    step, = hook(answer, "route")["policies"]
    assert (step["policy"], step["part"], step["key"]) == ("smart_host", "senders", "user.test")
    plan, = answer["route"]["plans"]
    assert hosts(plan) == [("203.0.113.5", 587)]
    assert plan["hosts"][0]["tls"] == "verify"
    assert looked_up(plan["dns"])["smart.test", "MX"] == []
    # S2: mail to a domain that the router routes itself never goes there.
    answer = explain(router(), "me@user.test", "u@intranet.test", "--client", "10.1.1.1")
    assert hosts(answer["route"]["plans"][0])[0] == ("10.1.2.3", 2525)


def test_Q12_secrets_are_not_shown(router):
    made = router(FIELDS.replace('tls = "verify" }', 'tls = "verify", auth = { user = "joe", '
                                 'password = "open sesame" } }'))
    question = ("me@user.test", "u@far.test", "--client", "10.1.1.1")
    answer = explain(made, *question)
    assert answer["route"]["plans"][0]["hosts"][0]["user"] == "joe"
    assert "as joe" in text(made, *question)
    for shown in (json.dumps(answer), text(made, *question)):
        assert "sesame" not in shown


def test_Q12_etrn(router):
    answer = explain(router(), "a@b.test", "u@shop.test")
    assert answer["outcome"] == "held" and answer["route"]["kind"] == "hold"
    assert answer["route"]["queue"] == "shop.test"
    made = router()
    answer = made.json("explain", "--etrn", "shop.test", "--client", "203.0.113.77")
    if os.environ.get("SHOW"):
        print(made.ok("explain", "--etrn", "shop.test", "--client", "203.0.113.77"))
    assert answer["outcome"] == "released" and hook(answer, "etrn")["queue"] == "shop.test"
    assert hosts(answer["route"]["plans"][0]) == [("203.0.113.10", 25)]
    answer = made.json("explain", "--etrn", "shop.test", "--client", "198.51.100.7")
    assert answer["outcome"] == "refused" and hook(answer, "etrn")["reply"]["code"] == 459


def test_Q12_relaying_is_denied(router):
    answer = explain(router(), "a@b.test", "u@far.test")
    assert answer["outcome"] == "refused" and answer["route"] is None
    assert [h["hook"] for h in answer["hooks"]][-1] == "rcpt"
    assert hook(answer, "rcpt")["reply"] == {"code": 550, "enhanced": "5.7.1",
                                             "text": "relay access denied"}
    answer = explain(router(), "a@b.test", "u@far.test", "--identity", "joe", "--tls")
    assert answer["session"]["identity"] == "joe" and answer["session"]["tls"]
    assert answer["outcome"] == "delivered"
    assert answer["route"]["decided_by"] == "default" and answer["route"]["text"] == "mx far.test"
    assert hosts(answer["route"]["plans"][0]) == [("203.0.113.6", 25)]


def test_Q12_what_the_listener_requires(router):
    made = router(FIELDS + """
  listen = { "127.0.0.1:2525", { "127.0.0.1:2587", service = "submission" } },
  policies = { { name = "login", auth = function(ctx) return tern.reject() end } },
  auth = { without_tls = true },
""")
    question = ("a@b.test", "u@intranet.test", "--listener", "submission")
    answer = explain(made, *question)
    assert answer["session"]["listener"] == "127.0.0.1:2587"
    assert hook(answer, "mail")["reply"]["code"] == 530 and answer["outcome"] == "refused"
    assert explain(made, *question, "--identity", "joe")["outcome"] == "delivered"
    assert explain(made, *question[:3], "127.0.0.1:2525")["outcome"] == "delivered"


def test_Q12_a_nameserver_that_fails_is_told(router):
    made = router(FIELDS + '  dns = { servers = { "127.0.0.1:9" }, timeout = "1s" },\n')
    answer = explain(made, "a@b.test", "u@example.test")
    step, = hook(answer, "rcpt")["policies"]
    assert step["dns"][0]["status"] in ("servfail", "timeout") and step["dns"][0]["records"] == []
    assert answer["outcome"] == "refused" and hook(answer, "rcpt")["reply"]["code"] == 451
    plan, = answer["route"]["plans"]
    assert plan["status"] == "defer" and plan["reply"]["enhanced"] == "4.4.3"


def test_Q12_a_map_of_domains(router):
    made = router("""
  domains = tern.map.file("domains.csv", { policies = { relay = relay_to_host } }),
""")
    made.write(".branch.test, relay, 10.1.2.3:2525\n", "domains.csv")
    answer = explain(made, "a@b.test", "u@east.branch.test")
    step, = hook(answer, "route")["policies"]
    assert (step["policy"], step["part"]) == ("relay_to_host", "domains")
    assert hosts(answer["route"]["plans"][0]) == [("10.1.2.3", 2525)]


def test_Q12_probes_are_not_made(router, sink):
    """B11: a call-forward would connect; that is said, and the recipient counts as not known."""
    host = sink()
    made = router(FIELDS.replace("domains = {", f"""domains = {{
    ["asked.test"] = relay_to_host {{ "{host.address}", recipients = "call-forward" }},"""))
    answer = explain(made, "a@b.test", "u@asked.test")
    step, = hook(answer, "rcpt")["policies"]
    assert step["not_connected"] == [host.address] and step["outcome"] == "no opinion"
    assert answer["outcome"] == "delivered" and host.greeted == []
    assert f"would connect to {host.address}" in text(made, "a@b.test", "u@asked.test")


def test_Q12_a_fallback_is_shown_with_its_hosts(router):
    answer = explain(router(), "a@b.test", "u@fallback.test")
    first, second = answer["route"]["plans"]
    assert not first["fallback"] and first["status"] != "ok" and first["hosts"] == []
    assert first["discarded"] == [{"what": "nowhere.lost.test", "reason": "has no address"}]
    assert second["fallback"] and hosts(second) == [("203.0.113.5", 26)]


def test_Q12_failures_of_scripts_are_told(router):
    made = router('  policies = { { name = "broken", mail = function(ctx) error "oh no" end } },\n'
                  + FIELDS)
    answer = explain(made, "a@b.test", "u@intranet.test")
    step, = hook(answer, "mail")["policies"]
    assert step["failed"] and "oh no" in step["outcome"]
    assert answer["outcome"] == "refused" and hook(answer, "mail")["reply"]["code"] == 451
    assert answer["log"][0]["event"] == "policy_error"


def test_Q12_what_is_remembered_reads_as_empty_and_nothing_is_written(router):
    made = router("""
  policies = { { name = "grey", rcpt = function(ctx)
    local kv = tern.kv "grey"
    if kv:get "x" then return tern.accept() end
    kv:set("x", "1", { ttl = "1h" })
    return tern.defer { 451, "4.7.1", "come back" }
  end } },
""" + FIELDS)
    for _ in range(2):
        answer = explain(made, "a@b.test", "u@intranet.test")
        assert hook(answer, "rcpt")["reply"]["text"] == "come back"
    assert not made.spool.exists()
    # Beside a router that runs, too.
    made.start()
    assert explain(made, "a@b.test", "u@intranet.test")["outcome"] == "refused"
    with pytest.raises(Exception, match="451"):
        send(made, "u@intranet.test")
    send(made, "u@intranet.test")
    assert explain(made, "a@b.test", "u@intranet.test")["outcome"] == "refused"
    assert made.log.stray == []


def test_Q12_people_can_read_it(router):
    made = router()
    shown = text(made, "a@b.test", "u@example.test")
    for part in ["a@b.test -> u@example.test", "a stranger", "domains[example.test]",
                 "policies/backup.lua:", "no opinion", "mx example.test below self (backup MX)",
                 "10 mx1.example.test", "not preferred to our own", "ourselves",
                 "while its hosts fail forever", "=> u@example.test goes to mx1"]:
        assert part in shown, part
    assert not any(line != line.rstrip() for line in shown.splitlines())


def test_Q12_certificates_are_not_needed(router):
    made = router(FIELDS + '  tls = { cert = "/nowhere/cert.pem", key = "/nowhere/key.pem" },\n')
    assert made.cli("check").returncode != 0
    assert explain(made, "a@b.test", "u@intranet.test", "--tls")["outcome"] == "delivered"


def test_Q12_wrong_questions(router):
    made = router()
    assert made.cli("explain").returncode == 64
    assert made.cli("explain", "--from", "a@b.test").returncode == 64
    assert made.cli("explain", "--from", "a@b.test", "--to", "no address").returncode == 65
    assert made.cli("explain", "--from", "a@b.test", "--to", "<>").returncode == 65
    assert made.cli("explain", "--from", "<>", "--to", "u@example.test").returncode == 0
    for option, value in [("--client", "somewhere"), ("--listener", "9.9.9.9:25")]:
        done = made.cli("explain", "--from", "a@b.test", "--to", "u@x.test", option, value)
        assert done.returncode == 65 and option in done.stderr
    made.write("return { hostnam = 1 }")
    assert made.cli("explain", "--from", "a@b.test", "--to", "u@example.test").returncode == 78


# What programs rely on. A field may be added, never lost or changed.
TEXT, MAYBE, NUMBER, YES = str, (str, type(None)), int, bool
SCHEMA = {
    "answer": {"config": TEXT, "hostname": TEXT, "from": TEXT, "to": TEXT, "session": dict,
               "hooks": list, "route": dict, "log": list, "self": list, "outcome": TEXT, "summary": TEXT},
    "session": {"client": TEXT, "client_given": YES, "helo": TEXT, "tls": YES, "identity": MAYBE,
                "listener": MAYBE, "service": TEXT, "may_relay": YES},
    "hook": {"hook": TEXT, "asked": YES, "policies": list, "verdict": TEXT, "decided_by": MAYBE,
             "dns": list},
    "policy": {"policy": TEXT, "part": MAYBE, "key": MAYBE, "place": MAYBE, "has_hook": YES,
               "failed": YES, "outcome": MAYBE, "dns": list, "not_connected": list},
    "dns": {"name": TEXT, "type": TEXT, "status": TEXT, "ttl": (int, type(None)), "records": list},
    "route": {"text": TEXT, "kind": TEXT, "queue": TEXT, "reason": MAYBE, "decided_by": MAYBE,
              "retry": TEXT, "lifetime": TEXT, "lifetime_while_hosts_fail": TEXT,
              "concurrency": (int, type(None)), "source": MAYBE, "plans": list},
    "plan": {"route": TEXT, "kind": TEXT, "fallback": YES, "status": TEXT, "dns": list,
             "hosts": list, "discarded": list, "alarm": YES},
    "host": {"name": TEXT, "address": TEXT, "port": (int, type(None)),
             "preference": (int, type(None)), "protocol": TEXT, "tls": TEXT, "user": MAYBE},
}


def fits(value, name):
    for field, kind in SCHEMA[name].items():
        assert field in value, f"{name} has no {field}: {value}"
        assert isinstance(value[field], kind), f"{name}.{field} is {value[field]!r}"


def test_Q12_the_json_is_stable(router):
    answer = explain(router(), "a@b.test", "u@example.test")
    fits(answer, "answer")
    fits(answer["session"], "session")
    for h in answer["hooks"]:
        fits(h, "hook")
        for p in h["policies"]:
            fits(p, "policy")
    fits(answer["route"], "route")
    plan = answer["route"]["plans"][0]
    fits(plan, "plan")
    fits(plan["hosts"][0], "host")
    for a in plan["dns"]:
        fits(a, "dns")
    assert json.dumps(answer)
