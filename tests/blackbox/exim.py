"""A real Exim of our own: configuration, queue and mailbox in a private folder, one loopback address, one
user, no DNS. It takes mail for every domain into one maildir, with these exceptions:

    nobody@...   550 5.1.1 at RCPT        later@...   451 4.7.1 at RCPT
    closed()     554 instead of a greeting, until opened()
    users=       a table of names and passwords: it takes mail from these only, who authenticate by one of
                 `mechanisms` (PLAIN and LOGIN in TLS only); others get 530

The program is not installed (Debian allows one mail server): scripts/deps unpacks its package."""
import pathlib
import pwd
import shutil
import socket

from addresses import fresh_ip
from processes import Child
from waiting import until

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/peers/exim4/usr/sbin/exim4"

CONFIG = """\
exim_path = {folder}/exim4
exim_user = nobody
exim_group = nogroup
never_users =
deliver_drop_privilege
primary_hostname = exim.test
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
pid_file_path = {folder}/log/pid
log_selector = +smtp_connection
local_interfaces = {ip}
daemon_smtp_ports = 25
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
tls_advertise_hosts = {tls_hosts}
tls_certificate = {cert}
tls_privatekey = {key}
acl_smtp_connect = connect
acl_smtp_mail = mail
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
begin acl
connect:
  drop condition = ${{if exists{{{folder}/closed}}}}
       message = 554 5.3.2 no mail here now
  accept
mail:
  deny condition = {users_only}
       ! authenticated = *
       message = 530 5.7.0 authentication required
  accept
rcpt:
  deny local_parts = nobody
       message = 550 5.1.1 no such user
  defer local_parts = later
       message = 451 4.7.1 try again later
  accept
begin routers
inbox:
  driver = accept
  transport = inbox
begin transports
inbox:
  driver = appendfile
  maildir_format
  create_directory
  directory = {folder}/mail
  user = nobody
  group = nogroup
begin retry
* * F,1h,1s
begin authenticators
"""
PASSWORD = "${{lookup{{{name}}}lsearch{{{folder}/users}}{{$value}}fail}}"
AUTHENTICATORS = {
    "PLAIN": """\
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_advertise_condition = ${{if def:tls_in_cipher}}
  server_condition = ${{if eq{{$auth3}}{{{password2}}}}}
  server_set_id = $auth2
""",
    "LOGIN": """\
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_advertise_condition = ${{if def:tls_in_cipher}}
  server_condition = ${{if eq{{$auth2}}{{{password1}}}}}
  server_set_id = $auth1
""",
    "CRAM-MD5": """\
cram:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = {password1}
  server_set_id = $auth1
""",
}


class Exim:
    """tls: "good", "broken" (offered, and there is no key for it) or None."""

    def __init__(self, folder, certificates, tls=None, users=None, mechanisms=()):
        assert PROGRAM.exists(), f"there is no {PROGRAM}: run scripts/deps test"
        self.folder = pathlib.Path(folder)
        self.ip = fresh_ip()
        self.address = f"{self.ip}:25"
        self.child = None
        owner = pwd.getpwnam("nobody")
        self.folder.chmod(0o755)
        for name in ("spool", "log", "mail"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, owner.pw_uid, owner.pw_gid)
        # a copy: the checkout may be one that its user cannot read
        shutil.copy(PROGRAM, self.folder / "exim4")
        (self.folder / "exim4").chmod(0o755)
        keys = {}
        for name in ("cert", "key"):
            keys[name] = pathlib.Path(shutil.copy(getattr(certificates, name), self.folder / name))
            keys[name].chmod(0o644)
        self.good_key = keys["key"].read_text()
        if tls == "broken":
            keys["key"].write_text("this is no key\n")
        config = CONFIG.format(folder=self.folder, ip=self.ip, tls_hosts="*" if tls else "",
                               users_only="yes" if users else "no", **keys)
        passwords = {f"password{i}": PASSWORD.format(name=f"$auth{i}", folder=self.folder)
                     for i in (1, 2)}
        for mechanism in mechanisms:
            config += AUTHENTICATORS[mechanism].format(**passwords)
        (self.folder / "conf").write_text(config)
        self.set_users(users or {})

    def up(self):
        self.child = Child([self.folder / "exim4", "-C", self.folder / "conf", "-bdf", "-q10s"],
                           cwd=self.folder)
        until(self._listens, lambda: f"Exim answers\n{self.child.stderr()}\n{self.log()}", timeout=30)
        return self

    def _listens(self):
        try:
            socket.create_connection((self.ip, 25), timeout=5).close()
            return True
        except OSError:
            return False

    def set_users(self, users):
        """From the next session on."""
        (self.folder / "users").write_text("".join(f"{n}: {p}\n" for n, p in users.items()))

    def down(self):
        if self.child:
            self.child.end()
            self.child = None

    def closed(self):
        (self.folder / "closed").touch()

    def opened(self):
        (self.folder / "closed").unlink()

    def mend_tls(self):
        (self.folder / "key").write_text(self.good_key)

    def log(self):
        path = self.folder / "log/main"
        return path.read_text(errors="replace") if path.exists() else ""

    def mails(self):
        """What is in the mailbox, as bytes."""
        inbox = self.folder / "mail/new"
        return [p.read_bytes() for p in inbox.iterdir()] if inbox.is_dir() else []

    def wait_mail(self, text, timeout=30):
        """The first mail that contains this."""
        def found():
            return next((m for m in self.mails() if text in m), None)
        return until(found, lambda: f"Exim has {text!r}\n{self.log()[-3000:]}", timeout)

    def close(self):
        self.down()
