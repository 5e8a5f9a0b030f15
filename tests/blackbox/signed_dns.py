"""DNS with DNSSEC, made of real servers: a signed root zone that NSD serves, and Unbound, which validates what it says by the
key of that zone, and tells by the AD bit what is secure.

Names in plain.test are in a zone of their own that nobody has signed. What is forged is changed after the signature.
"""
import os
import pathlib
import shutil

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from addresses import fresh_ip
from nameserver import PORT, ask, zone_text
from processes import Child, run
from waiting import until

PROGRAMS = ("nsd", "unbound", "ldns-keygen", "ldns-signzone")
UNSIGNED = "plain.test."
NSD = """\
server:
    ip-address: {ip}@{port}
    username: ""
    zonesdir: "{folder}"
    database: ""
    pidfile: "{folder}/nsd.pid"
    xfrdfile: "{folder}/xfrd"
    zonelistfile: "{folder}/zones"
    server-count: 1
remote-control:
    control-enable: no
zone:
    name: "."
    zonefile: "root.signed"
zone:
    name: "plain.test"
    zonefile: "plain"
"""
# Nothing is kept, so that a test sees what it wrote at once.
UNBOUND = """\
server:
    interface: {own}
    port: 53
    access-control: 127.0.0.0/8 allow
    chroot: ""
    directory: "{folder}"
    username: ""
    pidfile: "{folder}/unbound.pid"
    use-syslog: no
    do-daemonize: no
    do-ip6: no
    num-threads: 1
    module-config: "validator iterator"
    trust-anchor-file: "{anchor}"
    do-not-query-localhost: no
    local-zone: "test." nodefault
    cache-max-ttl: 0
    cache-max-negative-ttl: 0
    val-bogus-ttl: 0
    aggressive-nsec: no
    infra-host-ttl: 0
remote-control:
    control-enable: no
stub-zone:
    name: "."
    stub-addr: {ip}@{port}
    stub-no-cache: yes
stub-zone:
    name: "plain.test"
    stub-addr: {ip}@{port}
    stub-no-cache: yes
"""


def need_programs():
    missing = [p for p in PROGRAMS if not shutil.which(p)]
    if missing:
        pytest.skip(f"there is no {' and no '.join(missing)}: run scripts/deps test")


class SignedDns:
    """server: the resolver's address. set(name, records): what there is at and below a name."""

    def __init__(self, folder):
        need_programs()
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ip, self.own, self.serial = fresh_ip(), fresh_ip(), 0
        self._records = {}
        self._forged = {}
        made = run(["ldns-keygen", "-a", "ECDSAP256SHA256", "-k", "-r", "/dev/urandom", "."], cwd=self.folder)
        assert made.returncode == 0, made.stderr
        self._key = made.stdout.strip()
        self._write()
        values = dict(ip=self.ip, own=self.own, port=PORT, folder=self.folder, anchor=self.folder / f"{self._key}.ds")
        (self.folder / "nsd.conf").write_text(NSD.format(**values))
        (self.folder / "unbound.conf").write_text(UNBOUND.format(**values))
        self.unbound = Child(["unbound", "-d", "-c", self.folder / "unbound.conf"])
        self._serve()

    @property
    def server(self):
        return f"{self.own}:53"

    def resolv_conf(self):
        """For programs that ask whom the system asks."""
        path = self.folder / "resolv.conf"
        path.write_text(f"nameserver {self.own}\noptions trust-ad\n")
        return path

    def set(self, name, records, forged=None):
        """Replaces them; returns when the resolver gives the new ones. forged: (old, new) text that somebody changed behind
        the signer's back."""
        self._records[name] = records
        self._forged.pop(name, None)
        if forged:
            self._forged[name] = forged
        self._write()
        self.nsd.end()  # at a reload the old process would answer beside the new one for a moment
        self._serve()

    def _write(self):
        self.serial += 1
        lines = [line.strip() for records in self._records.values() for line in records.splitlines() if line.strip()]
        plain = [line for line in lines if line.split()[0].endswith(UNSIGNED)]
        signed = [line for line in lines if line not in plain]
        delegation = f"{UNSIGNED} 60 IN NS ns.test."
        (self.folder / "root").write_text(zone_text("\n".join([delegation, *signed]), self.serial))
        done = run(["ldns-signzone", "-o", ".", "-f", "fresh", "root", self._key], cwd=self.folder)
        assert done.returncode == 0, done.stderr
        text = (self.folder / "fresh").read_text()
        for old, new in self._forged.values():
            assert old.lower() in text.lower(), f"nothing of {old} to forge"
            text = text.replace(old, new)
        (self.folder / "fresh").write_text(text)
        os.replace(self.folder / "fresh", self.folder / "root.signed")
        (self.folder / "plain").write_text(zone_text("\n".join(plain), self.serial, UNSIGNED))

    def _serve(self):
        self.nsd = Child(["nsd", "-d", "-c", self.folder / "nsd.conf"])

        def served():
            assert self.nsd.running and self.unbound.running, self.nsd.stderr() + self.unbound.stderr()
            try:
                answers = [ask(self.server, name, "SOA", timeout=0.2).answer for name in (".", UNSIGNED)]
            except (OSError, dns.exception.Timeout):
                return False
            return all(any(self.serial == rr.serial for rrs in answer for rr in rrs) for answer in answers)
        until(served, lambda: f"the zone is served\n{self.unbound.stderr()}")

    def is_secure(self, name, kind):
        """True or False: the AD bit; None: SERVFAIL."""
        query = dns.message.make_query(name, kind, want_dnssec=True)
        answer = dns.query.udp(query, self.own, port=53, timeout=5)
        return None if answer.rcode() == dns.rcode.SERVFAIL else bool(answer.flags & dns.flags.AD)

    def close(self):
        self.unbound.end()
        self.nsd.end()

