"""The smart host: mail of a domain's users goes through a given host, by name or by address."""
from clients import send

PRELUDE = 'local smart_host = require "policies.smart_host"\n'
FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
RELAY = '  relay_from = { "127.0.0.0/8" },\n'


def fields(target, key="branch.test", more="", options=""):
    return RELAY + FAST + f'  senders = {{ ["{key}"] = smart_host {{ "{target}" {options} }} }},\n' + more


def test_S3_by_address(tern, sink, scripted_dns):
    """No look-up of the recipient's domain is needed."""
    hub, dns = sink(port=2525), scripted_dns()
    router = tern(fields(hub.address), PRELUDE, dns=dns)
    send(router, "u@elsewhere.test", sender="a@branch.test", test_id="one")
    assert hub.wait()[0].recipients == ["u@elsewhere.test"]
    assert dns.questions("elsewhere.test") == []


def test_S3_by_name_looks_for_mx(tern, sink, nsd):
    """S3: `host` by its MX first."""
    hub, other = sink(), sink()
    server = nsd(f"""\
smart.test. MX 10 hub.smart.test.
hub.smart.test. A {hub.ip}
smart.test. A {other.ip}""")
    router = tern(fields("smart.test") + allow(server), PRELUDE, dns=server)
    send(router, "u@elsewhere.test", sender="a@branch.test", test_id="one")
    hub.wait()
    assert other.mails == []


def test_S3_by_name_in_brackets_looks_for_addresses_only(tern, sink, nsd):
    hub, other = sink(), sink()
    server = nsd(f"""\
smart.test. MX 10 hub.smart.test.
hub.smart.test. A {other.ip}
smart.test. A {hub.ip}""")
    router = tern(fields("[smart.test]") + allow(server), PRELUDE, dns=server)
    send(router, "u@elsewhere.test", sender="a@branch.test", test_id="one")
    hub.wait()
    assert other.mails == []


def allow(server):
    return f"""\
  dns = {{ servers = {{ "{server.server}" }}, timeout = "3s", allow_loopback_mx = true }},
"""


def test_S2_only_that_domains_mail(tern, sink, nsd):
    """Other senders' mail goes by MX; mail to a domain of our own goes where that says (S2)."""
    hub, elsewhere, own = sink(), sink(), sink()
    server = nsd(f"elsewhere.test. MX 10 mx.elsewhere.test.\nmx.elsewhere.test. A {elsewhere.ip}")
    router = tern(fields(hub.address, more=allow(server) + f"""
  domains = {{ ["own.test"] = route.hosts {{ "{own.address}" }} }},
"""), PRELUDE, dns=server)
    send(router, "u@elsewhere.test", sender="a@branch.test", test_id="through")
    send(router, "u@elsewhere.test", sender="a@other.test", test_id="direct")
    send(router, "u@own.test", sender="a@branch.test", test_id="own")
    hub.wait_ids({"through"})
    elsewhere.wait_ids({"direct"})
    own.wait_ids({"own"})
    assert [len(s.mails) for s in (hub, elsewhere, own)] == [1, 1, 1]


def test_S1_address_before_domain(tern, sink):
    """S1: the whole sender is asked before its domain."""
    hub, special = sink(), sink()
    router = tern(RELAY + f"""
  senders = {{ ["branch.test"] = smart_host {{ "{hub.address}" }},
              ["boss@branch.test"] = smart_host {{ "{special.address}" }} }},
""", PRELUDE)
    send(router, "u@elsewhere.test", sender="boss@branch.test", test_id="boss")
    send(router, "u@elsewhere.test", sender="clerk@branch.test", test_id="clerk")
    special.wait_ids({"boss"})
    hub.wait_ids({"clerk"})


def test_S1_for_the_whole_system(tern, sink):
    hub = sink()
    router = tern(RELAY + f'  default_route = route.hosts {{ "{hub.address}" }},\n')
    send(router, "u@elsewhere.test", test_id="one")
    hub.wait_ids({"one"})


def test_S1_null_sender_has_its_own_key(tern, sink):
    hub, bounces = sink(), sink()
    router = tern(RELAY + f"""
  senders = {{ ["*"] = smart_host {{ "{hub.address}" }},
              ["<>"] = smart_host {{ "{bounces.address}" }} }},
""", PRELUDE)
    send(router, "u@elsewhere.test", sender="", test_id="bounce")
    send(router, "u@elsewhere.test", sender="a@b.test", test_id="mail")
    bounces.wait_ids({"bounce"})
    hub.wait_ids({"mail"})
    assert (len(hub.mails), len(bounces.mails)) == (1, 1)


def test_S5_a_broken_smart_host_never_bounces(tern, sink):
    """S5: refused connections are waited out, however long the mail's own lifetime is."""
    hub = sink(up=False)
    router = tern(fields(hub.address).replace('retry = "1s..."', 'retry = "1s...", lifetime = "2s"'),
                  PRELUDE)
    send(router, "u@elsewhere.test", sender="a@branch.test", test_id="one")
    router.wait_for("queue_backoff", count=4)
    assert router.log.all("bounced") == []
    hub.up()
    hub.wait_ids({"one"})


def test_S4_the_next_host_of_the_list(tern, sink):
    """S4, S6: one refuses connections, one greets with 554, the third takes it."""
    down, third = sink(up=False), sink()
    router = tern(RELAY + FAST + f"""
  senders = {{ ["branch.test"] = smart_host {{ "{down.address}", "{third.address}" }} }},
""", PRELUDE)
    send(router, "u@elsewhere.test", sender="a@branch.test", test_id="one")
    third.wait_ids({"one"})


def test_S10_recipients_of_several_domains_travel_together(tern, sink):
    """S10."""
    hub = sink()
    hub.replies["RCPT"] = lambda a: "550 5.1.1 no" if a == "c@three.test" else None
    router = tern(fields(hub.address), PRELUDE)
    send(router, ["a@one.test", "b@two.test", "c@three.test"], sender="x@branch.test", test_id="one")
    mail = hub.wait_ids({"one"})["one"]
    assert sorted(mail.recipients) == ["a@one.test", "b@two.test"]
    router.wait_for("bounced", recipient="c@three.test")
