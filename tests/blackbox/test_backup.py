"""The backup MX: mail waits for the primary, whatever happens, and goes to nobody else."""
import pytest

from clients import Raw, send
from daemon import HOSTNAME

CONFIG = """\
  domains = { ["example.test"] = backup() },
  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },
"""
PRELUDE = 'local backup = require "policies.backup"\n'


def zone(router_ip, primary_ip, more=""):
    return f"""\
example.test. MX 10 primary.example.test.
example.test. MX 20 {HOSTNAME}.
primary.example.test. A {primary_ip}
{HOSTNAME}. A {router_ip}
{more}"""


@pytest.fixture
def backup_mx(new_tern, nsd):
    """backup_mx(records, fields): the router is `mx.test`, the second MX of example.test."""
    def make(primary_ip, more="", fields=CONFIG):
        server = nsd("")
        router = new_tern(dns=server)
        server.set(zone(router.ip, primary_ip, more))
        router.configure(fields + f"""
  dns = {{ servers = {{ "{server.server}" }}, timeout = "3s", allow_loopback_mx = true }},
""", PRELUDE)
        return router.start()
    return make


def test_primary_up(backup_mx, sink):
    primary = sink()
    router = backup_mx(primary.ip)
    send(router, "u@example.test", test_id="one")
    mail = primary.wait()[0]
    assert mail.recipients == ["u@example.test"]


def test_B2_B10_mail_waits_for_the_primary(backup_mx, sink):
    """The first MX is down, then up. A worse MX than ours is there all the time and gets nothing."""
    primary, worse = sink(up=False), sink()
    router = backup_mx(primary.ip, f"example.test. MX 30 worse.test.\nworse.test. A {worse.ip}")
    for n in range(5):
        send(router, "u@example.test", test_id=f"m{n}")
    router.wait_for("queue_backoff", count=2)
    primary.up()
    primary.wait_ids({f"m{n}" for n in range(5)})
    assert worse.mails == [] and worse.greeted == []
    assert max(primary.ids().values()) == 1
    assert router.log.all("bounced") == []


def test_B10_it_survives_a_restart_and_a_second_outage(backup_mx, sink):
    primary = sink(up=False)
    router = backup_mx(primary.ip)
    send(router, "u@example.test", test_id="one")
    router.wait_for("queue_backoff")
    router.restart()
    primary.up()
    primary.wait_ids({"one"})
    primary.down()
    send(router, "u@example.test", test_id="two")
    router.wait_for("queue_backoff")
    primary.up()
    primary.wait_ids({"two"})


def test_B4_a_better_mx_without_an_address_is_no_reason_for_a_worse_one(backup_mx, sink):
    """B4: a name that does not resolve means waiting, not the worse MX, and not a loop."""
    worse = sink()
    router = backup_mx("127.0.0.9", f"""\
lost.test. MX 10 nowhere.test.
lost.test. MX 20 {HOSTNAME}.
lost.test. MX 30 worse.test.
worse.test. A {worse.ip}""", CONFIG.replace("example.test", "lost.test"))
    send(router, "u@lost.test", test_id="one")
    failed = router.wait_for("queue_backoff", queue="lost.test", count=2)
    assert failed["why"]
    assert worse.greeted == [] and router.log.all("bounced") == []


def test_B5_we_are_not_in_its_mx(backup_mx, sink):
    """B5: nobody but a better MX gets the mail, and where we are no MX none is better."""
    other = sink()
    router = backup_mx("127.0.0.9", f"other.test. MX 10 mx.other.test.\nmx.other.test. A {other.ip}",
                       CONFIG.replace("example.test", "other.test"))
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        reply = raw.expect(550, "RCPT TO:<u@other.test>")
        assert reply.enhanced == "5.7.1"
    assert other.greeted == []


def test_B5_dns_is_broken(new_tern, scripted_dns):
    """B5: whether we are an MX cannot be found out: 451, so that nothing is accepted for strangers."""
    server = scripted_dns()
    server.fail("broken.test", "servfail")
    router = new_tern(dns=server)
    router.configure(CONFIG.replace("example.test", "broken.test") + f"""
  dns = {{ servers = {{ "{server.server}" }}, timeout = "3s" }},
""", PRELUDE)
    router.start()
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        reply = raw.expect(451, "RCPT TO:<u@broken.test>")
        assert reply.enhanced == "4.4.3"


def test_B10_what_the_primary_refuses_is_returned(backup_mx, sink):
    """B10: 5yz of a primary that is alive bounces at once, to the sender's own host."""
    primary, home = sink(), sink()
    primary.replies["RCPT"] = lambda a: "550 5.1.1 no such user" if a.startswith("nobody") else None
    router = backup_mx(primary.ip, f"sender.test. MX 10 home.sender.test.\nhome.sender.test. A {home.ip}")
    send(router, "nobody@example.test", test_id="one")
    dsn = home.wait()[0]
    assert dsn.sender == "" and dsn.recipients == ["a@sender.test"]
    assert b"no such user" in dsn.content
    assert primary.mails == []


def test_B6_a_null_mx_is_refused_at_rcpt(backup_mx, sink):
    router = backup_mx("127.0.0.9", "null.test. MX 0 .",
                       CONFIG.replace("example.test", "null.test"))
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        reply = raw.expect(556, "RCPT TO:<u@null.test>")
        assert reply.enhanced == "5.1.10"


def test_B3_being_the_best_mx_is_a_loop(backup_mx):
    """B3: nothing is better than we are: 5.4.6 at RCPT, so that nobody has to be told later."""
    router = backup_mx("127.0.0.9", f"best.test. MX 10 {HOSTNAME}.",
                       CONFIG.replace("example.test", "best.test"))
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        reply = raw.expect(554, "RCPT TO:<u@best.test>")
        assert reply.enhanced == "5.4.6"


def test_B13_mail_from_the_primary_is_a_sign_of_life(new_tern, nsd, sink):
    """The pauses are long: without the sign the mail would wait for hours."""
    primary = sink(up=False)
    server = nsd("")
    router = new_tern(dns=server)
    server.set(zone(router.ip, primary.ip))
    router.configure(f"""\
  domains = {{ ["example.test"] = backup() }},
  relay_from = {{ "{primary.ip}" }},
  default_route = require("tern.route").discard(),
  queue = {{ retry = "5h...", host_retry = "5h", host_retry_max = "5h" }},
  dns = {{ servers = {{ "{server.server}" }}, timeout = "3s", allow_loopback_mx = true }},
""", PRELUDE)
    router.start()
    send(router, "u@example.test", test_id="one")
    router.wait_for("queue_backoff")
    primary.up()
    with Raw(router, source=primary.ip) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<u@example.test>")
    primary.wait_ids({"one"})
