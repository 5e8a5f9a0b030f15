"""DNS servers of the tests, each on a loopback address of its own.

Nsd is a real authoritative server: it serves one zone, the root, so that every name which the test
did not write down is NXDOMAIN. ScriptedDns answers from the same text, keeps a record of what it was
asked, and can be made to keep silent or to fail.
"""
import os
import pathlib
import signal
import threading

import dnslib
import dnslib.server
import dns.exception
import dns.message
import dns.query
import dns.rcode

from addresses import fresh_ip
from processes import Child
from waiting import until

PORT = 5353
SOA = "{origin} 60 IN SOA ns.test. hostmaster.test. {serial} 3600 600 86400 1\n"


def zone_text(records, serial, origin="."):
    lines = [SOA.format(serial=serial, origin=origin), f"{origin} 60 IN NS ns.test.\n"]
    if origin == ".":
        lines.append("ns.test. 60 IN A 127.0.0.1\n")
    return "$TTL 1\n" + "".join(lines) + "\n".join(r.strip() for r in records.splitlines()) + "\n"


def ask(server, name, kind, timeout=1):
    ip, port = server.rsplit(":", 1)
    query = dns.message.make_query(name, kind)
    return dns.query.udp(query, ip, port=int(port), timeout=timeout)


class Nsd:
    """broken: names at and below which it answers SERVFAIL, for there it has a zone without a file."""

    def __init__(self, folder, records="", broken=()):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ip = fresh_ip()
        self.serial = 0
        self.zone = self.folder / "zone"
        self._write(records)
        config = self.folder / "nsd.conf"
        config.write_text(f"""\
server:
    ip-address: {self.ip}@{PORT}
    username: ""
    zonesdir: "{self.folder}"
    database: ""
    pidfile: "{self.folder}/pid"
    xfrdfile: "{self.folder}/xfrd"
    zonelistfile: "{self.folder}/zones"
    server-count: 1
    hide-version: yes
remote-control:
    control-enable: no
zone:
    name: "."
    zonefile: "zone"
""" + "".join(f'zone:\n    name: "{name}"\n    zonefile: "missing"\n' for name in broken))
        self.child = Child(["nsd", "-d", "-c", config])
        self._wait_for_serial()

    @property
    def server(self):
        return f"{self.ip}:{PORT}"

    def _write(self, records):
        self.serial += 1
        fresh = self.folder / "zone.new"
        fresh.write_text(zone_text(records, self.serial))
        os.replace(fresh, self.zone)

    def _wait_for_serial(self):
        def served():
            assert self.child.running, self.child.stderr()
            try:
                answer = ask(self.server, ".", "SOA", timeout=0.1)
            except (OSError, dns.exception.Timeout):
                return False
            return any(self.serial == rr.serial for a in answer.answer for rr in a)
        until(served, "nsd serves the zone")

    def set(self, records):
        """Replaces the zone; returns when the new one is served."""
        self._write(records)
        self.child.signal(signal.SIGHUP)
        self._wait_for_serial()

    def mend(self, name, records):
        """What was broken gets its zone file: those of the records that are its own."""
        own = [r for r in records.splitlines() if r.split()[0].endswith(f"{name}.")]
        (self.folder / "missing").write_text(zone_text("\n".join(own), 1, f"{name}."))
        self.set(records)

    def close(self):
        self.child.end()


class ScriptedDns(dnslib.server.BaseResolver):
    """mode: "answer", "servfail" or "silent", for all names, or for some: fail("name", mode)."""

    def __init__(self, records=""):
        self.ip = fresh_ip()
        self.mode = "answer"
        self.asked = []  # (name in lower case without its dot, type)
        self._modes = {}
        self.secure = False  # answers have the AD bit
        self._lock = threading.Lock()
        self.set(records)
        logger = dnslib.server.DNSLogger("-request,-reply,-truncated,-error", False)
        self._udp = dnslib.server.DNSServer(self, address=self.ip, port=PORT, logger=logger)
        self._tcp = dnslib.server.DNSServer(self, address=self.ip, port=PORT, logger=logger, tcp=True)
        self._udp.start_thread()
        self._tcp.start_thread()

    @property
    def server(self):
        return f"{self.ip}:{PORT}"

    def set(self, records):
        self._records = [rr for rr in dnslib.RR.fromZone(zone_text(records, 1))
                         if rr.rtype != dnslib.QTYPE.SOA]

    def add_tlsa(self, name, data):
        """dnslib knows no TLSA: its octets."""
        self._records.append(dnslib.RR(name, 52, rdata=dnslib.RD(data), ttl=1))

    def add_ptr(self, name, target):
        """target: a DNSLabel, which may have octets in it that no text of a zone can."""
        self._records.append(dnslib.RR(name, dnslib.QTYPE.PTR, rdata=dnslib.PTR(target), ttl=1))

    def fail(self, name, mode):
        self._modes[name] = mode

    def questions(self, name=None, kind=None):
        with self._lock:
            return [q for q in self.asked if name in (None, q[0]) and kind in (None, q[1])]

    def resolve(self, request, handler):
        name = str(request.q.qname).rstrip(".").lower()
        kind = dnslib.QTYPE[request.q.qtype]
        with self._lock:
            self.asked.append((name, kind))
        mode = self._modes.get(name, self.mode)
        reply = request.reply()
        reply.header.ad = int(self.secure)
        if mode == "silent":
            raise dnslib.DNSError("kept silent")  # nothing is sent
        if mode == "servfail":
            reply.header.rcode = dnslib.RCODE.SERVFAIL
            return reply
        known = False
        for rr in self._records:
            if rr.rname == request.q.qname:
                known = True
                if dnslib.QTYPE[rr.rtype] in (kind, "CNAME"):
                    reply.add_answer(rr)
        if not known:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        if not reply.rr:
            reply.add_auth(*dnslib.RR.fromZone(SOA.format(serial=1, origin=".")))
        return reply

    def close(self):
        self._udp.stop()
        self._tcp.stop()
