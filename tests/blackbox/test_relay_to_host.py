"""Relay to host: all mail to a domain goes to given hosts, and DNS is not asked about the domain."""
from clients import Raw, send

PRELUDE = 'local relay_to_host = require "policies.relay_to_host"\n'
FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def fields(*targets, domain="intranet.test", more=""):
    hosts = ", ".join(f'"{t}"' for t in targets)
    return FAST + f'  domains = {{ ["{domain}"] = relay_to_host {{ {hosts} }} }},\n' + more


def test_H1_a_domain_that_does_not_exist(tern, sink, scripted_dns):
    """H1: it is NXDOMAIN, and nobody asks: neither for MX nor for addresses."""
    host, dns = sink(port=2525), scripted_dns()
    router = tern(fields(host.address), PRELUDE, dns=dns)
    send(router, "u@intranet.test", test_id="one")
    assert host.wait()[0].recipients == ["u@intranet.test"]
    assert [q for q in dns.questions() if q[0].endswith("intranet.test")] == []
    assert dns.questions(kind="MX") == []


def test_H1_a_domain_whose_mx_points_elsewhere(tern, sink, scripted_dns):
    host, public = sink(), sink()
    dns = scripted_dns(f"intranet.test. MX 10 mx.intranet.test.\nmx.intranet.test. A {public.ip}")
    router = tern(fields(host.address), PRELUDE, dns=dns)
    send(router, "u@intranet.test", test_id="one")
    host.wait_ids({"one"})
    assert public.greeted == [] and dns.questions(kind="MX") == []


def test_H8_a_host_by_name(tern, sink, scripted_dns):
    host = sink()
    dns = scripted_dns(f"inside.test. A {host.ip}")
    router = tern(fields("inside.test"), PRELUDE, dns=dns)
    send(router, "u@intranet.test", test_id="one")
    host.wait_ids({"one"})
    assert dns.questions(kind="MX") == [] and dns.questions("inside.test", "A")


def test_H4_a_host_whose_name_does_not_resolve(tern, sink, scripted_dns):
    """H4: defer, alarm, never a bounce; when DNS is mended the mail goes."""
    host, dns = sink(), scripted_dns()
    router = tern(fields("inside.test"), PRELUDE, dns=dns)
    send(router, "u@intranet.test", test_id="one")
    router.wait_for("queue_backoff")
    assert router.log.all("bounced") == []
    dns.set(f"inside.test. A {host.ip}")
    host.wait_ids({"one"}, timeout=30)


def test_H5_the_next_host(tern, sink, scripted_host):
    """H5: refused connections, and a greeting of 4yz, lead on to the next."""
    down, last = sink(up=False), sink()
    busy = scripted_host(lambda stream: stream.write(b"421 4.3.2 busy\r\n"))
    router = tern(fields(down.address, busy.address, last.address), PRELUDE)
    send(router, "u@intranet.test", test_id="one")
    last.wait_ids({"one"})
    assert busy.connections == 1


def test_H6_recipients_part(tern, sink):
    """H6: recipients of one transaction take different routes."""
    one, two = sink(), sink()
    router = tern(FAST + f"""
  domains = {{ ["one.test"] = relay_to_host {{ "{one.address}" }},
              ["two.test"] = relay_to_host {{ "{two.address}" }} }},
""", PRELUDE)
    send(router, ["a@one.test", "b@two.test"], test_id="both")
    assert one.wait()[0].recipients == ["a@one.test"]
    assert two.wait()[0].recipients == ["b@two.test"]


def test_H2_keys(tern, sink):
    """H2: a domain, its subdomains only, the most specific wins, IDN as A-labels, any case."""
    exact, below, deep, rest = sink(), sink(), sink(), sink()
    router = tern(f"""
  domains = {{
    ["example.test"] = relay_to_host {{ "{exact.address}" }},
    [".example.test"] = relay_to_host {{ "{below.address}" }},
    ["deep.sub.example.test"] = relay_to_host {{ "{deep.address}" }},
    ["bücher.test"] = relay_to_host {{ "{exact.address}" }},
    ["*"] = relay_to_host {{ "{rest.address}" }},
  }},
""", PRELUDE)
    for n, (to, host) in enumerate([
            ("u@example.test", exact), ("u@EXAMPLE.Test", exact), ("u@sub.example.test", below),
            ("u@a.b.example.test", below), ("u@deep.sub.example.test", deep),
            ("u@xn--bcher-kva.test", exact), ("u@badexample.test", rest)]):
        send(router, to, test_id=f"m{n}")
        host.wait_ids({f"m{n}"})
    assert sum(len(h.mails) for h in (exact, below, deep, rest)) == 7


def test_H3_it_authorises_that_domain_alone(tern, sink):
    """H3."""
    host = sink()
    router = tern(fields(host.address), PRELUDE)
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(250, "RCPT TO:<u@intranet.test>")
        for to in ("u@sub.intranet.test", "u@other.test", "u@intranet.test.other.test"):
            assert raw.expect(550, f"RCPT TO:<{to}>").enhanced == "5.7.1"
