"""A part of the matrix (tests/policies/matrix.test.lua) again, with real neighbours: the DNS is nsd, the
target is Exim or Postfix, and Postfix is the MX that is worse than we are.

Outcomes as there: delivered; waiting, and delivered when it is mended; held again, until the next ETRN;
returned to the sender; refused at RCPT."""
import smtplib

import pytest

from clients import Raw, send
from daemon import HOSTNAME
from waiting import until

SYSTEMS = ("backup", "smart_host", "relay_to_host", "etrn")

MATRIX = {
    #                           backup              smart_host          relay_to_host       etrn
    "postfix":                 ("delivered B10",    "delivered S3",     "delivered H1",     "delivered E5"),
    "exim":                    ("delivered B10",    "delivered S3",     "delivered H1",     "delivered E5"),
    "down":                    ("waiting B10",      "waiting S5",       "waiting H5",       "held E8"),
    "refuses the recipient":   ("returned B10",     "returned S10",     "returned H5",      "returned E5"),
    "greets with 554":         ("waiting B10",      "waiting S6",       "waiting H5",       "held E8"),
    "tls broken":              ("delivered B10",    "delivered S8",     "delivered H5",     "delivered E5"),
    "tls broken and required": ("waiting B10",      "waiting S8",       "waiting H5",       "held E8"),
    "nxdomain":                ("refused-550 B6",   "waiting S5",       "waiting H4",       "held E8"),
    "servfail":                ("refused-451 B5",   "waiting S5",       "waiting H4",       "held E8"),
    "null mx":                 ("refused-556 B6",   "delivered S3",     "delivered H1",     "delivered E5"),
    "cname":                   ("delivered B8",     "delivered S3",     "delivered H8",     "delivered E5"),
}


def cells():
    for condition, row in MATRIX.items():
        for system, cell in zip(SYSTEMS, row):
            outcome, tag = cell.split()
            yield pytest.param(condition, system, outcome,
                               id=f"{tag}-{system}-{condition.replace(' ', '_')}-{outcome}")


class World:
    """One router, one target and the names that lead to it."""

    def __init__(self, condition, system, make):
        self.condition, self.system = condition, system
        self.postfix = make["postfix"]
        tls = {"tls broken": "broken", "tls broken and required": "broken"}.get(condition)
        self.exim = make["exim"](tls)
        self.target = self.postfix if condition == "postfix" else self.exim
        self.home = make["sink"]()
        broken = ("target.test",) if condition == "servfail" else ()
        self.dns = make["nsd"]("", broken)
        self.router = make["new_tern"](dns=self.dns)
        self.id = f"for {self.router.ip}."
        self.domain = "target.test" if system == "backup" else "dest.test"
        self.configure()

    # ---- as it should be, and as it is ----

    @property
    def by_mx(self):
        return self.system in ("backup", "smart_host")

    def zone(self, condition=None):
        host = "mx.target.test." if self.by_mx else "target.test."
        lines = [f"{HOSTNAME}. A {self.router.ip}", f"worse.test. A {self.postfix.ip}",
                 "sender.test. MX 10 home.test.", f"home.test. A {self.home.ip}"]
        if condition == "nxdomain":
            return "\n".join(lines)
        if condition == "null mx":
            lines.append("target.test. MX 0 .")
            host = "target.test."
        elif self.by_mx:
            lines.append("target.test. MX 10 mx.target.test.")
        if self.system == "backup" and condition != "null mx":
            lines += [f"target.test. MX 20 {HOSTNAME}.", "target.test. MX 30 worse.test."]
        if condition == "cname":
            lines += [f"{host} CNAME real.test.", f"real.test. A {self.target.ip}"]
        else:
            lines.append(f"{host} A {self.target.ip}")
        return "\n".join(lines)

    def options(self):
        return ', tls = "require"' if self.condition == "tls broken and required" else ""

    def policy(self):
        target, options = '"target.test"', self.options()
        if self.system == "backup":
            return f'domains = {{ ["target.test"] = backup {{ {options.lstrip(", ")} }} }},'
        if self.system == "smart_host":
            return (f'senders = {{ ["sender.test"] = smart_host {{ {target}{options} }} }},'
                    ' relay_from = { "127.0.0.0/8" },')
        if self.system == "relay_to_host":
            return f'domains = {{ ["dest.test"] = relay_to_host {{ {target}{options} }} }},'
        return (f'domains = {{ ["dest.test"] = etrn {{ deliver_to = {target}, window = "2s",'
                f' allow = "127.0.0.0/8"{options} }} }},')

    def configure(self):
        self.router.configure(f"""
  dns = {{ servers = {{ "{self.dns.server}" }}, timeout = "3s", allow_loopback_mx = true }},
  queue = {{ retry = "1s...", host_retry = "1s", host_retry_max = "1s" }},
  {self.policy()}
""", "".join(f'local {s} = require "policies.{s}"\n' for s in SYSTEMS))

    def begin(self):
        if self.target is self.exim and self.condition != "down":
            self.exim.up()
        if self.condition == "greets with 554":
            self.exim.closed()
        self.dns.set(self.zone(self.condition))
        self.router.start()

    def mend(self):
        if self.condition == "down":
            self.exim.up()
        if self.condition == "greets with 554":
            self.exim.opened()
        if self.condition == "tls broken and required":
            self.exim.mend_tls()
        if self.condition == "servfail":
            self.dns.mend("target.test", self.zone())
        else:
            self.dns.set(self.zone())

    # ---- what happens ----

    def recipient(self):
        return f"{'nobody' if self.condition == 'refuses the recipient' else 'u'}@{self.domain}"

    def send(self):
        send(self.router, self.recipient(), test_id=self.id)

    def ask(self):
        with Raw(self.router) as raw:
            raw.hello()
            assert raw.cmd("ETRN dest.test").code == 253

    def queued(self):
        return [m["recipient"] for m in self.router.queued()]

    def arrived_at(self, host):
        return self.id.encode() in b"".join(host.mails())

    # ---- outcomes ----

    def delivered(self):
        self.target.wait_mail(self.id.encode())
        until(lambda: not self.queued(), "the queue is empty")

    def waiting(self):
        self.router.wait_for(("queue_backoff", "deferred", "host_failed"), count=2)
        assert self.queued() == [self.recipient()] and not self.arrived_at(self.exim)
        self.mend()
        self.delivered()

    def held(self):
        self.router.wait_for("queue_release_ended")
        assert self.queued() == [self.recipient()] and not self.arrived_at(self.exim)
        self.mend()
        self.router.restart()
        assert self.queued() == [self.recipient()] and not self.arrived_at(self.exim)
        self.ask()
        self.delivered()

    def returned(self):
        dsn = self.home.wait()[0]
        assert dsn.sender == "" and b"5.1.1" in dsn.content
        until(lambda: not self.queued(), "the queue is empty")


@pytest.mark.parametrize("condition, system, outcome", cells())
def test_matrix(condition, system, outcome, new_tern, nsd, exim, postfix, sink):
    world = World(condition, system, {"new_tern": new_tern, "nsd": nsd, "exim": exim,
                                      "postfix": postfix, "sink": sink})
    world.begin()
    if outcome.startswith("refused"):
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            world.send()
        assert refused.value.recipients[world.recipient()][0] == int(outcome.split("-")[1])
        assert world.queued() == []
        return
    world.send()
    if system == "etrn":
        assert world.queued() == [world.recipient()] and not world.arrived_at(world.exim)
        world.ask()
    getattr(world, outcome)()
    if world.target is world.exim:  # the worse MX was there all the time
        assert not world.arrived_at(world.postfix)
    if outcome != "returned":
        assert world.home.mails == []
