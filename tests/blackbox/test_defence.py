"""Listeners that defend themselves: what one client may do, the delayed greeting, stress."""
import time

import pytest

from clients import Closed, Raw
from waiting import until

OPEN = '  default_route = route.discard {}, relay_from = "127.0.0.0/8",\n'


def counter(router, name):
    return router.json("status")["counters"][name]


def test_connections_of_a_client(tern):
    """Over all workers; networks that are exempt go free."""
    router = tern(OPEN + '  workers = 4, clients = { connections = 5, exempt = "127.0.0.9" },\n')
    held = [Raw(router, source="127.0.0.8") for _ in range(5)]
    for _ in range(8):
        with Raw(router, source="127.0.0.8", greet=False) as raw:
            assert raw.until_closed()[0].lines == [
                "421 4.7.0 too many connections from your address, try again later"]
    with Raw(router, source="127.0.0.7") as other:
        assert other.greeting.code == 220
    free = [Raw(router, source="127.0.0.9") for _ in range(10)]
    assert all(raw.greeting.code == 220 for raw in free)
    assert counter(router, "clients_limited") == 8
    told = router.wait_for("sessions_turned_away")
    assert told["client"] == "127.0.0.8" and "from your address" in told["why"]
    held.pop().close()

    def served():
        try:
            held.append(Raw(router, source="127.0.0.8"))
        except Closed:
            return False
        return held[-1].greeting.code == 220
    until(served, "a place is free again")
    for raw in held + free:
        raw.close()


def test_rates_of_a_client(tern):
    router = tern(OPEN + """\
  workers = 2,
  clients = { connection_rate = "6/h", message_rate = "3/h", recipient_rate = "4/h", exempt = {} },
""")
    replies = []
    for _ in range(3):
        with Raw(router) as raw:
            raw.hello()
            for _ in range(2):
                replies.append(raw.cmd("MAIL FROM:<a@sender.test>"))
                raw.expect(250, "RSET")
    assert [r.code for r in replies] == [250] * 3 + [450] * 3
    assert "Too many messages from your address" in replies[3].text
    for n in range(4):
        with Raw(router, source="127.0.0.5") as raw:
            raw.hello()
            raw.expect(250, "MAIL FROM:<a@sender.test>") if n < 3 else None
            if n == 0:
                codes = [raw.cmd("RCPT TO:<b@rcpt.test>").code for _ in range(6)]
                assert codes == [250] * 4 + [450] * 2
    codes = []
    for _ in range(5):
        with Raw(router, greet=False) as raw:
            codes.append(raw.reply().code)
    assert codes == [220] * 3 + [421] * 2


@pytest.mark.parametrize("tls", [False, True])
def test_delayed_greeting(new_tern, certificates, tls):
    router = new_tern(certificates=certificates)
    router.configure(OPEN + f"""\
  clients = {{ exempt = "127.0.0.9" }},
  listen = {{ {{ "{router.address}", greeting_delay = "700ms", tls = "{'offer' if tls else 'none'}" }} }},
""")
    router.start()
    began = time.monotonic()
    with Raw(router) as raw:
        assert raw.greeting.code == 220 and time.monotonic() - began >= 0.65
        raw.hello()
    with Raw(router, source="127.0.0.9"):
        pass
    with Raw(router, greet=False) as raw:
        raw.send("EHLO c.test\r\nMAIL FROM:<a@sender.test>\r\n")
        assert [r.lines for r in raw.until_closed()] == [["554 5.5.1 Talking before the greeting"]]
    router.wait_for("session_closed", why="talking before the greeting")
    assert counter(router, "early_talkers") == 1


def test_stress(tern):
    """Slow clients make room when sessions are scarce; those that are quick are served all the while."""
    router = tern(OPEN + """\
  workers = 1, limits = { sessions = 20, stress = 50 }, timeouts = { stress = "1s" },
""")
    slow = [Raw(router) for _ in range(9)]
    assert counter(router, "workers_stressed") == 0
    with Raw(router) as quick:  # the tenth
        told = router.wait_for("stress")
        assert (told["sessions"], told["limit"], told["timeout_ms"]) == (10, 20, 1000)
        assert counter(router, "workers_stressed") == 1
        assert "UNDER STRESS: sessions are scarce in 1 worker," in router.ok("status")
        for _ in range(8):
            assert quick.hello() and quick.mail("b@rcpt.test").code == 250
            time.sleep(0.2)
        for raw in slow:
            assert raw.reply().lines == ["421 4.4.2 timeout, closing connection"]
        router.wait_for("stress_over")
        time.sleep(1.2)
        quick.expect(250, "NOOP")
    assert counter(router, "workers_stressed") == 0 and counter(router, "stress_entered") == 1
    assert len(router.log.all("stress")) == 1
