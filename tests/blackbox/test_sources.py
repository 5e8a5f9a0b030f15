"""Local addresses and rates: hosts see the address and the name that the configuration says, at the pace it says."""
import collections
import time

from addresses import fresh_ip
from clients import send
from daemon import HOSTNAME, to_hosts
from waiting import until

ABSENT = "192.0.2.9"  # documentation only: on no machine


def sources(*entries):
    return "  sources = {\n" + "".join(f'    ["{ip}"] = {{ {options} }},\n' for ip, options in entries) + "  },\n"


def listed(tern):
    return {s["address"]: s for s in tern.json("status")["sources"]}


def test_two_sources_with_names_of_their_own(tern, sink):
    host, one, two = sink(), fresh_ip(), fresh_ip()
    router = tern(to_hosts(host, options=f'source = {{ "{one}", "{two}" }}')
                  + sources((one, 'hostname = "out1.isp.test"'), (two, 'hostname = "out2.isp.test"'))
                  + "  queue = { per_connection = 1 },\n")
    for i in range(10):
        send(router, test_id=f"m{i}")
    mails = host.wait(10)
    names = {one: "out1.isp.test", two: "out2.isp.test"}
    assert {m.peer for m in mails} == {one, two}
    assert all(m.helo == names[m.peer] for m in mails)
    count = collections.Counter(m.peer for m in mails)
    assert abs(count[one] - count[two]) <= 4, count

    until(lambda: all(s["open"] == 0 for s in listed(router).values()), "connections that have ended")
    told = listed(router)
    assert [told[ip]["messages"] for ip in (one, two)] == [count[one], count[two]]
    assert told[one]["hostname"] == "out1.isp.test"
    assert f"{one}: 0 connections now, {count[one]} messages" in router.ok("status")


def test_one_source_in_the_old_way(tern, sink):
    host, one = sink(), fresh_ip()
    router = tern(to_hosts(host, options=f'source = "{one}"'))
    send(router, test_id="m")
    [mail] = host.wait(1)
    assert (mail.peer, mail.helo) == (one, HOSTNAME)


def test_a_source_that_is_not_on_this_machine(tern, sink):
    """The next one is taken; and where there is none, the mail waits, and the host is not to blame."""
    host, other, one = sink(), sink(), fresh_ip()
    router = tern(f"""
  domains = {{
    ["a.test"] = route.hosts {{ "{host.address}", source = {{ "{ABSENT}", "{one}" }} }},
    ["b.test"] = route.hosts {{ "{other.address}", source = "{ABSENT}" }},
  }},
""" + sources((ABSENT, "")))
    assert router.wait_for("source_missing")  # when it starts
    for i in range(4):
        send(router, f"u{i}@a.test", test_id=f"m{i}")
    assert {m.peer for m in host.wait(4)} == {one}
    event = router.log.wait("source_missing", 2)
    assert event["why"] == f"source address {ABSENT} is not on this machine"

    send(router, "u@b.test", test_id="waits")
    until(lambda: router.queued(), "it in the queue")
    [mail] = router.queued()
    until(lambda: (t := router.ok("why", mail["id"])) and "not on this machine" in t, "its reason")
    assert router.log.all("host_failed") == [] and router.log.all("queue_backoff") == []
    assert listed(router)[ABSENT]["missing"] is True
    assert "NOT ON THIS MACHINE" in router.ok("status")


def test_check_warns(new_tern):
    router = new_tern(sources((ABSENT, "concurrency = 5")))
    checked = router.cli("check")
    assert checked.returncode == 0
    assert f"warning: source address {ABSENT} is not on this machine" in checked.stderr
    assert router.json("check")["warnings"] == [f"source address {ABSENT} is not on this machine"]


def test_check_refuses(new_tern):
    for entry, message in [
            (("mx.test", ""), '"mx.test" is not an address that connections can be made from'),
            (("0.0.0.0", ""), '"0.0.0.0" is not an address that connections can be made from'),
            (("127.0.0.2", "rat = 1"), "unknown key 'rat' in 'sources[\"127.0.0.2\"]'; did you mean 'rate'?"),
            (("127.0.0.2", 'rate = "1/x"'), "must be a rate such as"),
            (("127.0.0.2", "concurrency = 0"), "must be a whole number from 1 to 65535")]:
        router = new_tern(sources(entry))
        checked = router.cli("check")
        assert checked.returncode == 78, checked
        assert message in checked.stderr
        assert "tern.lua:" in checked.stderr


def test_rate_of_a_route(tern, sink):
    """Ten a second: forty messages take about four seconds, and nothing has failed."""
    host = sink()
    router = tern(to_hosts(host, options='rate = "10/s"') + "  workers = 2,\n")
    for i in range(40):
        send(router, test_id=f"m{i}")
    began = time.monotonic()
    host.wait(12)
    waiting = next(q for q in router.queues() if q["name"] == host.address)
    assert waiting["waits_for"] == "rate"
    assert "rate, in" in router.ok("queue")
    host.wait(40)
    assert time.monotonic() - began > 1.5
    assert router.log.all("deferred") == [] and router.log.all("queue_backoff") == []


def test_concurrency_of_a_source_over_all_workers(tern, sink):
    """Eight destinations of several workers, one address, two connections; a reload raises that."""
    one, hosts = fresh_ip(), [sink() for _ in range(8)]
    domains = "".join(f'    ["d{i}.test"] = route.hosts {{ "{h.address}", source = "{one}" }},\n'
                      for i, h in enumerate(hosts))
    fields = "  domains = {\n" + domains + "  },\n  workers = 4,\n"
    router = tern(fields + sources((one, "concurrency = 2")))
    for k in range(3):
        for i in range(8):
            send(router, f"u@d{i}.test", test_id=f"m{i}-{k}")
    most = 0

    def all_there():
        nonlocal most
        most = max(most, listed(router)[one]["open"])
        return sum(len(h.mails) for h in hosts) == 24
    until(all_there, "all of the mail", timeout=60)
    assert 1 <= most <= 2
    assert router.log.all("queue_backoff") == []
    router.configure(fields + sources((one, 'concurrency = 7, rate = "100/s"')))
    router.reload()
    assert (listed(router)[one]["concurrency"], listed(router)[one]["rate"]) == (7, "100/s")
    assert listed(router)[one]["messages"] == 24
