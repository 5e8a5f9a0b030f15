"""A real Postfix of our own: configuration, queue and mailboxes in a private folder, one loopback
address, no relaying and no DNS. It takes mail for every domain into one maildir, and knows no user whose
name begins with "nobody"."""
import pathlib
import pwd
import shutil
import socket

from addresses import fresh_ip
from processes import run
from waiting import until

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
meta_directory = /etc/postfix
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
local_recipient_maps =
alias_maps =
alias_database =
smtp_dns_support_level = disabled
virtual_mailbox_domains = regexp:{folder}/conf/every_domain
virtual_mailbox_maps = regexp:{folder}/conf/mailboxes
virtual_mailbox_base = {folder}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_tls_security_level = may
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_tls_received_header = yes
"""
MASTER = """\
{ip}:25 inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    def __init__(self, folder, certificates, main="", transports=None, services=None, wrapper=()):
        """main: further lines of main.cf, which replace those of the same parameters. transports: what it does with mail
        to some domains. services: {name: {parameter: value}} of further listeners, each at an address of its own in
        `ips`, which log under their names. wrapper: a command in front of the one that starts it."""
        self.folder = pathlib.Path(folder)
        self.ip = fresh_ip()
        self.ips = {name: fresh_ip() for name in services or {}}
        self.address = f"{self.ip}:25"
        owner = pwd.getpwnam("nobody")
        postfix = pwd.getpwnam("postfix")
        self.folder.chmod(0o755)
        for name in ("conf", "queue", "data", "mail"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", postfix.pw_uid)
        shutil.chown(self.folder / "mail", owner.pw_uid, owner.pw_gid)
        values = dict(folder=self.folder, ip=self.ip, uid=owner.pw_uid, gid=owner.pw_gid,
                      cert=certificates.cert, key=certificates.key)
        given = {line.split(" = ")[0] for line in main.splitlines()}
        kept = [line for line in MAIN.format(**values).splitlines() if line.split(" =")[0] not in given]
        if transports:
            kept.append(f"transport_maps = texthash:{self.folder}/conf/transports")
        (self.folder / "conf/main.cf").write_text("\n".join(kept) + "\n" + main)
        (self.folder / "conf/transports").write_text(
            "".join(f"{domain} {there}\n" for domain, there in (transports or {}).items()))
        (self.folder / "conf/master.cf").write_text(
            MASTER.format(**values) + "".join(self._service(name, services[name]) for name in self.ips))
        (self.folder / "conf/every_domain").write_text("/./ yes\n")
        (self.folder / "conf/mailboxes").write_text("!/^nobody/ inbox/\n")
        self._command("start", wrapper)
        until(self._answers, lambda: f"Postfix answers\n{self.log()}", timeout=30)

    def _service(self, name, parameters):
        lines = [f"{self.ips[name]}:25 inet n - n - - smtpd", f"  -o syslog_name={name}"]
        return "\n".join([*lines, *(f"  -o {{{k} = {v}}}" for k, v in parameters.items())]) + "\n"

    def _command(self, verb, wrapper=()):
        done = run([*wrapper, "postfix", "-c", self.folder / "conf", verb], timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr + self.log()

    def _answers(self):
        try:
            with socket.create_connection((self.ip, 25), timeout=5) as s:
                return s.recv(3) == b"220"
        except OSError:
            return False

    def log(self):
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def said(self, service):
        """What a further listener has logged."""
        return [line for line in self.log().splitlines() if f" {service}/smtpd[" in line]

    def mails(self):
        """What is in the mailbox, as bytes."""
        inbox = self.folder / "mail/inbox/new"
        return [p.read_bytes() for p in inbox.iterdir()] if inbox.is_dir() else []

    def wait_mail(self, text, timeout=30):
        """The first mail that contains this."""
        def found():
            return next((m for m in self.mails() if text in m), None)
        return until(found, lambda: f"Postfix has {text!r}\n{self.log()[-3000:]}", timeout)

    def close(self):
        run(["postfix", "-c", self.folder / "conf", "stop"], timeout=60)
