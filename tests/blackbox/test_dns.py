"""DNS that fails, is silent, or is hostile: mail waits, nothing is returned by mistake."""
import contextlib
import os
import socket
import threading

import dnslib
import pytest

from addresses import fresh_ip
from clients import send
from daemon import memory_limit
from waiting import until

PRELUDE = 'local backup = require "policies.backup"\n'
FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def fields(server):
    return FAST + f"""\
  relay_from = {{ "127.0.0.0/8" }},
  dns = {{ servers = {{ "{server}" }}, timeout = "1s", allow_loopback_mx = true }},
"""


def test_by_mx(tern, sink, nsd):
    """The better host first; the next one when that is down; never the domain's own address."""
    first, second, own = sink(up=False), sink(), sink()
    zone = nsd(f"""\
there.test. MX 10 a.there.test.
there.test. MX 20 b.there.test.
there.test. A {own.ip}
a.there.test. A {first.ip}
b.there.test. A {second.ip}""")
    router = tern(fields(zone.server), dns=zone)
    send(router, "u@there.test", test_id="one")
    second.wait_ids({"one"})
    assert own.greeted == []


def test_implicit_mx(tern, sink, nsd):
    """No MX at all: the domain's own address (RFC 5321 §5.1)."""
    own = sink()
    zone = nsd(f"there.test. A {own.ip}")
    router = tern(fields(zone.server), dns=zone)
    send(router, "u@there.test", test_id="one")
    own.wait_ids({"one"})


@pytest.mark.parametrize("records, status", [
    ("", "5.1.2"), ("there.test. MX 0 .", "5.1.10")], ids=["nxdomain", "null MX"])
def test_definite_answers_return_mail(tern, nsd, sink, records, status):
    home = sink()
    zone = nsd(records + f"\nsender.test. A {home.ip}")
    router = tern(fields(zone.server), dns=zone)
    send(router, "u@there.test", test_id="one")
    dsn = home.wait()[0]
    report = dsn.message.get_payload()[1].get_payload()[1]
    assert report["Status"] == status, report.as_string()


def test_cname_to_the_mx(tern, sink, nsd):
    host = sink()
    zone = nsd(f"there.test. MX 10 alias.test.\nalias.test. CNAME real.test.\nreal.test. A {host.ip}")
    router = tern(fields(zone.server), dns=zone)
    send(router, "u@there.test", test_id="one")
    host.wait_ids({"one"})


@pytest.mark.parametrize("target", ["127.0.0.1", "0.0.0.0"])
def test_I812_an_mx_at_ourselves(tern, sink, nsd, target):
    """Without allow_loopback_mx nobody's DNS sends us to our own machine."""
    zone = nsd(f"evil.test. MX 10 evil.test.\nevil.test. A {target}")
    router = tern(FAST + '  relay_from = { "127.0.0.0/8" },\n', dns=zone)
    send(router, "u@evil.test", sender="", test_id="one")
    event = router.wait_for(("bounced", "host_failed", "deferred"), recipient="u@evil.test")
    assert event.get("host") is None or event["stage"] == "connect", event
    assert router.json("status")["counters"]["connections_out"] == 0


@pytest.mark.parametrize("mode", ["silent", "servfail"])
def test_dns_is_down(tern, sink, scripted_dns, mode):
    """Mail is taken and waits; when DNS is back it goes."""
    host = sink()
    dns = scripted_dns(f"there.test. MX 10 mx.there.test.\nmx.there.test. A {host.ip}")
    dns.mode = mode
    router = tern(fields(dns.server), dns=dns)
    send(router, "u@there.test", test_id="one")
    router.wait_for("queue_backoff", count=2)
    assert router.log.all("bounced") == []
    dns.mode = "answer"
    host.wait_ids({"one"}, timeout=30)


class Liar:
    """Answers DNS questions over UDP with what a function makes of them."""

    def __init__(self, answer):
        self.ip = fresh_ip()
        self.server = f"{self.ip}:5353"
        self.asked = 0
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.ip, 5353))
        self._ending = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            question, peer = self._socket.recvfrom(4096)
            if self._ending:
                return
            self.asked += 1
            for reply in self._answer(question):
                self._socket.sendto(reply, peer)

    def close(self):
        self._ending = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", (self.ip, 5353))
        self._thread.join(5)
        self._socket.close()


def head(question, answers, flags=b"\x84\x00"):
    """Header and question of a reply; what the asker added behind its question is left out."""
    end = question.index(b"\0", 12) + 5
    return (question[:2] + flags + b"\0\1" + answers.to_bytes(2, "big") + b"\0\0\0\0"
            + question[12:end])


def with_record(question, owner, data):
    """A reply with one MX record: the octets of its owner, and of its length and data."""
    return head(question, 1) + owner + b"\0\x0f\0\1\0\0\0\x3c" + data


def pointer(offset):
    return b"\xc0" + bytes([offset])


def with_cnames(question, *names):
    """A reply that leads from the name asked for to each of these in turn, and has nothing of the last."""
    reply, owner = head(question, len(names)), pointer(12)
    for name in names:
        reply += owner + b"\0\5\0\1\0\0\0\x3c" + len(name).to_bytes(2, "big") + name
        owner = name
    return reply


LIES = {
    "I901: nothing": lambda q: [b""],
    "I901: one octet": lambda q: [b"\0"],
    "I901: noise": lambda q: [os.urandom(512), q[:2] + os.urandom(200)],
    "I901: another id": lambda q: [bytes([q[0] ^ 1]) + head(q, 0)[1:]],
    "I901: the question again": lambda q: [q],
    "I901: answers that are not there": lambda q: [head(q, 60_000)],
    "I902: an owner that points to itself": lambda q: [
        with_record(q, pointer(len(head(q, 1))), b"\0\4\0\x0a\xc0\x0c")],
    "I902: a host that points to itself": lambda q: [
        with_record(q, pointer(12), b"\0\4\0\x0a" + pointer(len(head(q, 1)) + 14))],
    "I901: a length beyond the end": lambda q: [with_record(q, pointer(12), b"\xff\xff\0\x0a")],
    "I903: truncated, and nobody at TCP": lambda q: [head(q, 0, b"\x86\x00")],
    "I905: a name that is its own alias": lambda q: [with_cnames(q, pointer(12))],
    "I905: aliases without an end": lambda q: [with_cnames(q, *(b"\2a%d" % n + pointer(12) for n in range(9)))],
}


@pytest.mark.parametrize("answer", LIES.values(), ids=LIES)
def test_lies(tern, sink, closing, answer):
    """The look-up fails for now: the mail waits."""
    liar, host = closing(Liar(answer)), sink()
    router = tern(fields(liar.server)
                  + f'  domains = {{ ["good.test"] = route.hosts {{ "{host.address}" }} }},\n')
    send(router, "u@there.test", test_id="one")
    router.wait_for(("host_failed", "deferred", "queue_backoff"))
    assert liar.asked > 0 and router.log.all("bounced") == []
    send(router, "u@good.test", test_id="two")
    host.wait_ids({"two"})


@pytest.mark.parametrize("mode", ["silent", "servfail"])
def test_the_next_server(tern, sink, nsd, scripted_dns, mode):
    """Several servers: when one keeps silent or fails, another one is asked."""
    host, broken = sink(), scripted_dns()
    broken.mode = mode
    good = nsd(f"there.test. MX 10 mx.there.test.\nmx.there.test. A {host.ip}")
    router = tern(FAST + f"""\
  relay_from = {{ "127.0.0.0/8" }},
  dns = {{ servers = {{ "{broken.server}", "{good.server}" }}, timeout = "5s", allow_loopback_mx = true }},
""")
    send(router, "u@there.test", test_id="one")
    host.wait_ids({"one"}, timeout=30)
    assert broken.questions(), "the first of them was never asked"


def test_search_domains_are_never_applied(tern, sink, scripted_dns, monkeypatch):
    """Whatever the system's resolver would do with short names."""
    monkeypatch.setenv("LOCALDOMAIN", "search.test")
    monkeypatch.setenv("RES_OPTIONS", "ndots:5")
    host = sink()
    dns = scripted_dns(f"there.search.test. A {host.ip}\nshort.search.test. A {host.ip}")
    router = tern(fields(dns.server), dns=dns)
    for domain in ("short", "there"):
        send(router, f"u@{domain}", sender="", test_id=domain)
        router.wait_for("bounced", recipient=f"u@{domain}")
    assert dns.questions("short", "MX")
    assert [q for q in dns.questions() if q[0].endswith("search.test")] == []


def test_more_than_fits_a_datagram(tern, sink, nsd):
    """The answer by UDP is truncated; by TCP it is whole, and the best of it is used."""
    host = sink()
    names = "\n".join(f"there.test. MX 20 {n:03}.{'x' * 60}.test." for n in range(100))
    zone = nsd(f"{names}\nthere.test. MX 10 best.test.\nbest.test. A {host.ip}")
    router = tern(fields(zone.server), dns=zone)
    send(router, "u@there.test", test_id="one")
    host.wait_ids({"one"})


def test_B8_aliases_one_at_a_time(tern, sink, scripted_dns):
    """A server that does not follow its own CNAMEs: they are asked for in their turn."""
    host = sink()
    dns = scripted_dns(f"""\
there.test. CNAME other.test.
other.test. MX 10 a0.test.
a0.test. CNAME a1.test.
a1.test. CNAME a2.test.
a2.test. A {host.ip}""")
    router = tern(fields(dns.server), dns=dns)
    send(router, "u@there.test", test_id="one")
    host.wait_ids({"one"})


def test_no_answers_are_kept_for_their_time(tern, sink, scripted_dns):
    """A domain that is not there costs one question, not one for each message."""
    dns = scripted_dns("")
    router = tern(fields(dns.server), dns=dns)
    for n in range(20):
        send(router, f"u{n}@there.test", sender="", test_id=f"m{n}")
    router.wait_for("bounced", count=20)
    assert len(dns.questions("there.test", "MX")) <= 4  # one for each worker


def test_I904_a_thousand_mx(tern, sink, closing):
    """Fifty addresses each: a few are looked up, memory is bounded, and the mail arrives at one of them."""
    host = sink()
    counts = {"MX": 0, "A": 0}

    def answer(question):
        query = dnslib.DNSRecord.parse(question)
        reply, kind = query.reply(), dnslib.QTYPE[query.q.qtype]
        if kind == "MX":
            counts["MX"] += 1
            for n in range(1000):
                reply.add_answer(dnslib.RR(query.q.qname, 15, ttl=60, rdata=dnslib.MX(f"m{n}.there.test", 10)))
        elif kind == "A":
            counts["A"] += 1
            for _ in range(50):
                reply.add_answer(dnslib.RR(query.q.qname, 1, ttl=60, rdata=dnslib.A(host.ip)))
        return reply.pack()
    server = closing(TcpLiar(answer))
    router = tern(fields(server.server))
    before = router.memory()
    send(router, "u@there.test", test_id="one")
    host.wait_ids({"one"})
    router.wait_for("delivered")
    assert counts["MX"] and counts["A"] <= 40, counts
    assert router.peak_memory() - before < 30e6


class TcpLiar:
    """By UDP all is truncated; by TCP a function makes the answer, None: hangs up."""

    def __init__(self, answer):
        self._liar = Liar(lambda q: [head(q, 0, b"\x86\x00")])
        self.server = self._liar.server
        self._answer = answer
        self._listener = socket.create_server((self._liar.ip, 5353))
        self.asked = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        connection.settimeout(20)
        with connection, connection.makefile("rwb", buffering=0) as stream, contextlib.suppress(OSError):
            while len(length := stream.read(2)) == 2:
                question = stream.read(int.from_bytes(length, "big"))
                self.asked += 1
                reply = self._answer(question)
                if reply is None:
                    return
                stream.write(reply if isinstance(reply, Raw) else len(reply).to_bytes(2, "big") + reply)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._liar.close()


class Raw(bytes):
    """Octets that are sent without a length in front."""


TCP_LIES = {
    "I903: TCP hangs up": lambda q: None,
    "I903: TCP answers nothing": lambda q: b"",
    "I903: TCP hangs up in the middle": lambda q: Raw(b"\xff\xff" + head(q, 1) + b"\xc0"),
    "I903: TCP is truncated, too": lambda q: head(q, 0, b"\x86\x00"),
    "I903: TCP noise": lambda q: os.urandom(2000),
    "I903: TCP of another id": lambda q: bytes([q[0] ^ 1]) + head(q, 0)[1:],
}


@pytest.mark.parametrize("answer", TCP_LIES.values(), ids=TCP_LIES)
def test_lies_by_tcp(tern, sink, closing, answer):
    """The look-up fails for now: the mail waits, and other mail goes."""
    liar, host = closing(TcpLiar(answer)), sink()
    router = tern(fields(liar.server)
                  + f'  domains = {{ ["good.test"] = route.hosts {{ "{host.address}" }} }},\n')
    send(router, "u@there.test", test_id="one")
    router.wait_for(("host_failed", "deferred", "queue_backoff"), timeout=30)
    assert liar.asked > 0 and router.log.all("bounced") == []
    send(router, "u@good.test", test_id="two")
    host.wait_ids({"two"})


def test_I906_ttl_of_zero(tern, sink, closing):
    """The attempt that asked uses the answer; the number of questions is that of attempts, not more."""
    host, asked = sink(), []

    def answer(question):
        query = dnslib.DNSRecord.parse(question)
        reply, kind = query.reply(), dnslib.QTYPE[query.q.qtype]
        asked.append(kind)
        if kind == "MX":
            reply.add_answer(dnslib.RR(query.q.qname, 15, ttl=0, rdata=dnslib.MX("mx.there.test", 10)))
        elif kind == "A":
            reply.add_answer(dnslib.RR(query.q.qname, 1, ttl=0, rdata=dnslib.A(host.ip)))
        return [reply.pack()]
    router = tern(fields(closing(Liar(answer)).server))
    for n in range(20):
        send(router, f"u{n}@there.test", test_id=f"m{n}")
    host.wait_ids({f"m{n}" for n in range(20)})
    assert 1 <= asked.count("MX") <= 60 and asked.count("A") <= 60, asked


def test_I907_silence(tern, sink, scripted_dns):
    """While DNS says nothing mail comes in at the usual pace, memory stays flat; then all goes out."""
    host = sink()
    dns = scripted_dns(f"there.test. MX 10 mx.there.test.\nmx.there.test. A {host.ip}")
    dns.mode = "silent"
    router = tern(fields(dns.server), dns=dns)
    for n in range(50):
        send(router, f"u@d{n}.test", test_id=f"lost{n}")
    before = router.memory()
    ids = {f"m{n}" for n in range(300)}
    for n, test_id in enumerate(sorted(ids)):
        send(router, "u@there.test", test_id=test_id)
    router.wait_for("queue_backoff", count=2, queue="there.test")
    assert router.memory() - before < memory_limit(8e6) and router.log.all("bounced") == []
    assert len(router.log.all("message_accepted")) == 350 and host.mails == []
    dns.mode = "answer"
    host.wait_ids(ids, timeout=30)


def test_I908_ptr_with_control_octets(tern, sink, scripted_dns):
    """A hook sees the name cleaned or not at all, and so does the log."""
    host = sink()
    dns = scripted_dns(f"there.test. MX 10 mx.there.test.\nmx.there.test. A {host.ip}")
    name = dnslib.DNSLabel([b"evil\x1b[31m", b"a\r\nb", b"\x00x", b"test"])
    dns.add_ptr("1.0.0.127.in-addr.arpa", name)
    router = tern(fields(dns.server) + """
  policies = { { mail = function(ctx)
    local names = tern.dns.ptr(ctx.session.client.address)
    local text = names and table.concat(names, " ") or "none"
    tern.log.info { "seen", name = text, bad = text:find("[%c\\127]") ~= nil }
  end } },
""", dns=dns)
    send(router, "u@there.test", test_id="one")
    seen = router.wait_for("policy_log", text="seen")
    assert dns.questions(kind="PTR") and not seen["bad"], seen
    host.wait_ids({"one"})
    assert all(line.isprintable() for line in router.child.out)
