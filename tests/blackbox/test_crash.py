"""kill -9 in the middle of traffic: what was acknowledged arrives."""
import pytest

from clients import Flood, Raw, message, send, smtp_source
from daemon import to_hosts
from waiting import until

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def account(flood, host):
    """Prints what came more than once; returns it."""
    times = host.ids()
    twice = {i: n for i, n in times.items() if n > 1}
    again = sum(1 for i in twice if flood.attempts[i] > 1)
    print(f"{len(flood.acknowledged)} acknowledged, {len(times)} arrived, {len(twice)} more than "
          f"once ({again} of them were sent more than once)")
    return twice


@pytest.mark.heavy
def test_I1008_kill_9_while_mail_comes_and_goes(tern, sink):
    host = sink()
    router = tern(to_hosts(host) + FAST)
    flood = Flood(router, 1000, sessions=20).start()
    for part in (250, 500, 750):
        flood.wait_acknowledged(part)
        router.kill9()
        flood.join()
        assert len(flood.acknowledged) < 1000, "it was killed too late to prove anything"
        router.start()
        flood.again()
    flood.join()
    assert len(flood.acknowledged) == 1000, flood.failures[:5]
    host.wait_ids(flood.acknowledged)
    # who was told 250 sent it once; a delivery whose end was not yet on disk is made again
    twice = account(flood, host)
    assert len(twice) <= 300


@pytest.mark.heavy
def test_kill_9_under_smtp_source(tern, sink):
    """smtp-source counts the messages it has sent, each to a recipient of its own. It counts before it
    has read the reply, so of each of its 20 sessions one may not have been acknowledged."""
    host = sink()
    router = tern(to_hosts(host) + FAST)
    source = smtp_source(router, 1000, 20, "b@rcpt.test", "-c")
    router.wait_for("message_accepted", count=300, timeout=60)
    router.kill9()
    assert source.wait(60) != 0, "it was killed too late to prove anything"
    acknowledged = int(source.out[-1].split("\r")[-2]) - 20
    assert 250 <= acknowledged < 1000
    router.start()
    until(lambda: len(recipients(host)) >= acknowledged,
          lambda: f"{len(recipients(host))} of {acknowledged} arrived", timeout=60)
    print(f"{acknowledged} acknowledged, {len(recipients(host))} arrived, {len(host.mails)} with doubles")


def recipients(host):
    return {r for m in host.mails for r in m.recipients}


@pytest.mark.heavy
def test_kill_9_while_nothing_can_go_out(tern, sink):
    """All that was acknowledged is on disk: nothing has left before the crash."""
    host = sink(up=False)
    router = tern(to_hosts(host) + FAST)
    flood = Flood(router, 1000, sessions=20).start()
    flood.wait_acknowledged(400)
    router.kill9()
    flood.join()
    acknowledged = set(flood.acknowledged)
    assert 400 <= len(acknowledged) < 1000
    router.start()
    host.up()
    host.wait_ids(acknowledged)
    extra = set(host.ids()) - acknowledged
    assert len(extra) <= 20, "more than one unacknowledged message of each session"
    account(flood, host)


def test_a_client_that_was_cut_off_gets_no_message_through(tern, sink):
    """A message whose end never came is no message, also after a restart."""
    host = sink()
    router = tern(to_hosts(host) + FAST)
    with Raw(router) as raw:
        raw.hello()
        raw.envelope("a@sender.test", "b@rcpt.test")
        raw.expect(354, "DATA")
        raw.send(message("half", body="x" * 200 + "\n" + "y" * 100))
        raw.send("\r\n.\r")  # all but the last octet
        router.kill9()
    router.start()
    send(router, test_id="whole")
    host.wait_ids({"whole"})
    assert set(host.ids()) == {"whole"}


def test_restart_in_order_loses_nothing(tern, sink):
    host = sink(up=False)
    router = tern(to_hosts(host) + FAST)
    for n in range(20):
        send(router, test_id=f"m{n}")
    router.restart()
    host.up()
    host.wait_ids({f"m{n}" for n in range(20)})
    router.restart()
    send(router, test_id="last")
    host.wait_ids({"last"})
    assert max(host.ids().values()) == 1
