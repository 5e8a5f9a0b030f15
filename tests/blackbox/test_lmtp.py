"""LMTP as a server (RFC 2033), by TCP and on a Unix socket: what each recipient is told, who may connect, what
becomes of the socket's file. Clients: raw bytes, smtplib, swaks, Postfix, and Tern itself."""
import grp
import os
import pwd
import signal
import smtplib
import socket
import ssl
import stat

import pytest

from clients import Raw, message
from daemon import to_hosts
from hostile import FALSE_ENDS
from postfix import Postfix
from processes import run
from test_hostile_framing import by_bdat, by_data, false_ends
from test_service_manager import Manager
from waiting import until

POLICY = """
local policy = {
  rcpt = function(ctx)
    if ctx.recipient.local_part == "nobody" then return tern.reject { 550, "5.1.1", "no such user" } end
    if ctx.recipient.local_part == "trap" then return tern.discard() end
  end,
  route = function(ctx)
    local who = ctx.recipient.local_part
    if who == "spam" then return tern.bounce { 554, "5.7.1", "no spam here" } end
    if who == "later" then return tern.defer { 450, "4.2.1", "come again" } end
    return route.hosts { NEXT_HOP }
  end,
}
"""


class Lmtp(Raw):
    """A session of LMTP: at the router's port 24, or at a Unix socket."""

    def __init__(self, tern, path=None, source=None, greet=True):
        if path is None:
            super().__init__(tern, source=source, port=24, greet=greet)
            return
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(15)
        self.socket.connect(str(path))
        self._in = b""
        self.greeting = self.reply() if greet else None

    def hello(self, name="client.test"):
        return self.expect(250, f"LHLO {name}")

    def message(self, recipients, test_id=None):
        """One transaction: the codes of RCPT, and those behind the dot."""
        self.expect(250, "MAIL FROM:<a@sender.test>")
        answers = [self.cmd(f"RCPT TO:<{r}@rcpt.test>").code for r in recipients]
        self.expect(354, "DATA")
        self.send(message(test_id) + ".\r\n")
        return answers, [r.code for r in self.replies(answers.count(250))]


def lmtp(router, path, options="", more=""):
    return (f'  listen = {{ "{router.address}", {{ "{router.ip}:24", "{path}", service = "lmtp"{options} }}'
            f'{more} }},\n')


@pytest.fixture
def serving(new_tern, sink, folder, certificates):
    """serving(options): a router with LMTP at port 24 and on router.path, and its host."""
    def make(options="", fields="", more=""):
        folder.chmod(0o755)
        host = sink()
        router = new_tern(certificates=certificates)
        router.folder.chmod(0o755)
        router.path = router.folder / "lmtp.sock"
        router.policy = POLICY.replace("NEXT_HOP", f'"{host.address}"')
        router.configure(lmtp(router, router.path, options, more) + '  domains = { ["rcpt.test"] = policy },\n'
                         + fields, prelude=router.policy)
        router.host = host
        return router.start()
    return make


@pytest.fixture(params=["tcp", "unix"])
def where(request):
    return request.param


def session(router, where):
    s = Lmtp(router, router.path if where == "unix" else None)
    s.hello()
    return s


# ---- the dialogue ------------------------------------------------------------------------------

def test_each_recipient_has_its_own_reply(serving, where):
    router = serving()
    with session(router, where) as s:
        assert s.greeting.text == "mx.test LMTP Tern"
        names = ["a", "spam", "nobody", "trap", "later", "b", "a"]
        codes, finals = s.message(names, "each")
        assert codes == [250, 250, 550, 250, 250, 250, 250]
        assert finals == [250, 554, 250, 450, 250, 250]
        assert s.cmd("NOOP").code == 250
    mail = router.host.wait_ids({"each"})["each"]
    assert sorted(mail.recipients) == ["a@rcpt.test", "a@rcpt.test", "b@rcpt.test"]
    text = mail.content.decode()
    peer = "\r\n" if where == "unix" else " (["
    assert text.startswith("Received: from client.test" + peer)
    assert "\r\n\tby mx.test with LMTP\r\n" in text
    told = router.log.wait("message_accepted")
    assert told["client"] == (f"unix:{router.path}" if where == "unix" else "127.0.0.1")
    assert [e["code"] for e in router.log.all("recipient_rejected")] == [550, 554, 450]
    until(lambda: not router.queued(), "the queue is empty")
    assert len(router.host.mails) == 1, "nothing is returned to the sender by us"


def test_what_is_no_lmtp(serving):
    router = serving()
    with Lmtp(router) as s:
        assert s.cmd("EHLO client.test").lines == ["502 5.5.1 This is LMTP: send LHLO"]
        assert s.cmd("HELO client.test").code == 502
        assert s.cmd("MAIL FROM:<a@sender.test>").lines == ["503 5.5.1 Send LHLO first"]
        words = {line.split()[0] for line in s.hello().text.split("\n")}
        assert words == {"mx.test", "PIPELINING", "SIZE", "STARTTLS", "ENHANCEDSTATUSCODES", "8BITMIME",
                         "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "LIMITS", "DELIVERBY", "MT-PRIORITY"}
        assert s.cmd("ETRN rcpt.test").code == 502
        s.expect(250, "MAIL FROM:<a@sender.test>")
        assert s.cmd("RCPT TO:<nobody@rcpt.test>").code == 550
        assert s.cmd("DATA").lines == ["503 5.5.1 No valid recipients"]
    with Raw(router) as smtp:
        assert smtp.cmd("LHLO client.test").lines == ["502 5.5.1 This is SMTP: send EHLO"]
        smtp.hello()


def test_chunks(serving, where):
    router = serving()
    octets = message("chunks").encode()
    with session(router, where) as s:
        s.send(b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<a@rcpt.test>\r\nRCPT TO:<spam@rcpt.test>\r\n"
               b"RCPT TO:<b@rcpt.test>\r\nBDAT 5\r\n" + octets[:5]
               + b"BDAT %d LAST\r\n" % (len(octets) - 5) + octets[5:] + b"NOOP\r\n")
        assert [r.code for r in s.replies(9)] == [250, 250, 250, 250, 250, 250, 554, 250, 250]
    assert router.host.wait_ids({"chunks"})["chunks"].recipients == ["a@rcpt.test", "b@rcpt.test"]


def test_tls_and_auth(serving, certificates):
    """Over TCP as for SMTP; a Unix socket has nobody in between, and offers neither unless it is told to."""
    router = serving(', auth = "offer"', fields='  auth = { mechanisms = "PLAIN" },\n'
                     '  policies = { { auth = function() return tern.accept { password = "pencil" } end } },\n')
    plain = "AUTH PLAIN AGFuYQBwZW5jaWw="
    with session(router, "tcp") as s:
        assert s.cmd(plain).code == 538
        s.start_tls(ssl.create_default_context(cafile=certificates.ca))
        assert "AUTH PLAIN" in s.hello().text
        assert s.cmd(plain).code == 235
        assert s.message(["a"], "secret") == ([250], [250])
    with session(router, "unix") as s:
        assert "STARTTLS" not in s.hello().text
        assert s.cmd(plain).code == 235
        assert s.message(["a"], "local") == ([250], [250])
    mails = router.host.wait_ids({"secret", "local"})
    assert "with LMTPSA\r\n" in mails["secret"].content.decode()
    assert "with LMTPA\r\n" in mails["local"].content.decode()


def test_proxy_and_xclient(new_tern, sink):
    host = sink()
    router = new_tern()
    router.configure(f'  listen = {{ {{ "{router.ip}:24", service = "lmtp", proxy = "127.0.0.1/32" }} }},\n'
                     '  xclient_from = { "192.0.2.7/32" },\n' + to_hosts(host, domain="rcpt.test"))
    router.port = 24
    router.start()
    with Lmtp(router, greet=False) as s:
        s.send(f"PROXY TCP4 192.0.2.7 {router.ip} 4711 24\r\n")
        assert s.reply().code == 220
        assert "XCLIENT" in s.hello().text
        assert s.cmd("XCLIENT ADDR=192.0.2.99 HELO=told.test PROTO=ESMTP").text == "mx.test LMTP Tern"
        assert s.cmd("MAIL FROM:<a@sender.test>").code == 503
        s.hello()
        assert s.message(["a"], "told") == ([250], [250])
    assert router.log.wait("message_accepted")["client"] == "192.0.2.99"
    text = host.wait_ids({"told"})["told"].content.decode()
    assert text.startswith("Received: from client.test ([192.0.2.99])\r\n\tby mx.test with LMTP\r\n")


def test_relaying_is_denied_as_everywhere(serving, where):
    router = serving()
    with session(router, where) as s:
        s.expect(250, "MAIL FROM:<a@sender.test>")
        assert s.cmd("RCPT TO:<x@elsewhere.test>").code == 550


# ---- hostile input -----------------------------------------------------------------------------

@pytest.fixture(params=["tcp", "unix", "tls"])
def connect(request, certificates):
    def make(router):
        s = Lmtp(router, router.path if request.param == "unix" else None)
        if request.param == "tls":
            s.hello()
            s.start_tls(ssl.create_default_context(cafile=certificates.ca))
        return s
    return make


def smuggle(router, connect, ends):
    """Each sequence by DATA and by BDAT: the names of those whose message was taken, as one."""
    taken = []
    for name, end in ends:
        with connect(router) as s:
            replies = by_data(s, name, end)
            assert len(replies) == 1 and replies[0].code in range(500, 600), (name, replies)
        with connect(router) as s:
            s.hello()
            reply = by_bdat(s, name, end)[0]
            assert reply.code == 250 or reply.code in range(500, 600), (name, reply)
            if reply.code == 250:
                taken.append(name)
            assert s.cmd("NOOP").code == 250
    return taken


def arrived_as_taken(router, taken):
    until(lambda: not router.queued(), "the queue is empty")
    assert all(m.sender == "a@sender.test" for m in router.host.mails)
    assert sorted(m.id for m in router.host.mails) == sorted(f"first-{name}" for name in taken)


def test_I106_smuggling_by_lmtp(serving, connect):
    router = serving()
    arrived_as_taken(router, smuggle(router, connect, FALSE_ENDS.items()))


def test_smuggling_with_the_reference_vectors(serving, connect):
    router = serving()
    arrived_as_taken(router, smuggle(router, connect, false_ends()))


def test_I106_a_message_that_is_bad_is_refused_for_each(serving, where):
    router = serving()
    with session(router, where) as s:
        s.envelope("a@sender.test", "a@rcpt.test", "b@rcpt.test", "c@rcpt.test")
        s.expect(354, "DATA")
        s.send(b"x\n.\nRSET\r\n.\r\nMAIL FROM:<evil@sender.test>\r\n")
        assert [r.code for r in s.until_closed()] == [550, 550, 550]
    with session(router, where) as s:
        s.envelope("a@sender.test", "a@rcpt.test", "b@rcpt.test")
        s.expect(354, "DATA")
        s.send("x" * 999 + "\r\n.\r\nNOOP\r\n")
        assert [r.code for r in s.replies(3)] == [550, 550, 250]


def test_errors_end_a_session(serving, where):
    router = serving()
    with session(router, where) as s:
        for _ in range(20):
            s.send("NONSENSE\r\n")
        assert [r.code for r in s.until_closed()] == [500] * 20 + [421]


def test_no_limit_of_clients_for_a_socket(serving):
    router = serving(fields='  clients = { connections = 2, exempt = {} },\n')
    open_ones = [session(router, "unix") for _ in range(5)]
    by_tcp = [Lmtp(router) for _ in range(3)]
    assert [s.greeting.code for s in by_tcp] == [220, 220, 421]
    for s in [*open_ones, *by_tcp]:
        s.close()


# ---- clients of others -------------------------------------------------------------------------

def test_smtplib(serving, where):
    router = serving()
    host, port = (str(router.path), 0) if where == "unix" else (router.ip, 24)
    with smtplib.LMTP(host, port, local_hostname="client.test") as client:
        client.ehlo_or_helo_if_needed()
        assert client.has_extn("pipelining") and client.does_esmtp
        client.mail("a@sender.test")
        assert [client.rcpt(f"{u}@rcpt.test")[0] for u in ("a", "nobody", "b")] == [250, 550, 250]
        # smtplib reads one reply behind the dot; the other one is read by hand
        assert client.data(message("smtplib").encode())[0] == 250
        assert client.getreply()[0] == 250
        assert client.noop()[0] == 250
    router.host.wait_ids({"smtplib"})


def test_swaks(serving, where):
    router = serving()
    there = ["--socket", router.path] if where == "unix" else ["--server", router.ip, "--port", 24]
    done = run(["swaks", *there, "--protocol", "LMTP", "--helo", "client.test", "--from", "a@sender.test", "--to",
                "a@rcpt.test", "--header", "X-Test-Id: swaks"], timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LHLO client.test" in done.stdout
    router.host.wait_ids({"swaks"})


def test_swaks_over_tls(serving):
    router = serving()
    done = run(["swaks", "--server", router.ip, "--port", 24, "--protocol", "LMTP", "--tls", "--helo", "client.test",
                "--from", "a@sender.test", "--to", "a@rcpt.test", "--header", "X-Test-Id: swaks"], timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with LMTPS\r\n" in router.host.wait_ids({"swaks"})["swaks"].content.decode()


def test_our_own_client(serving, new_tern, where):
    there = serving()
    here = new_tern(f'  default_route = route.lmtp {{ "{there.path if where == "unix" else there.ip + ":24"}" }},\n'
                    '  relay_from = { "127.0.0.0/8" },\n  hostname = "here.test",\n').start()
    with Raw(here) as raw:
        raw.hello()
        assert raw.mail("a@rcpt.test", "later@rcpt.test", "b@rcpt.test",
                        content=message("chain")).code == 250
    mail = there.host.wait_ids({"chain"})["chain"]
    assert mail.recipients == ["a@rcpt.test", "b@rcpt.test"]
    here.log.wait("delivered", count=2)
    waiting = until(here.queued, "the one that comes later waits")
    assert [r["recipient"] for r in waiting] == ["later@rcpt.test"]


@pytest.mark.heavy
def test_postfix(serving, folder, certificates, closing):
    """Postfix hands over by socket and by TCP, takes each recipient's reply, and returns what is refused."""
    router = serving(', group = "postfix"')
    path = folder / "postfix"
    path.mkdir()
    postfix = closing(Postfix(path, certificates, transports={
        "unix.test": f"lmtp:unix:{router.path}", "inet.test": f"lmtp:inet:[{router.ip}]:24"}))
    router.configure(lmtp(router, router.path, ', group = "postfix"')
                     + '  domains = { ["unix.test"] = policy, ["inet.test"] = policy },\n', prelude=router.policy)
    router.reload()
    for domain in ("unix.test", "inet.test"):
        with smtplib.SMTP(postfix.ip, 25, local_hostname="client.test") as smtp:
            to = [f"{u}@{domain}" for u in ("a", "spam", "later", "b")]
            smtp.sendmail("a@sender.test", to, message(domain).encode())
    mails = router.host.wait_ids({"unix.test", "inet.test"})
    for domain in mails:
        assert mails[domain].recipients == [f"a@{domain}", f"b@{domain}"]
        log = until(lambda d=domain: (lambda lines: lines if len(lines) >= 4 else None)(
            [l for l in postfix.log().split("\n") if "postfix/lmtp" in l and f"@{d}>, relay=" in l]),
            lambda: f"Postfix tells of four recipients\n{postfix.log()[-3000:]}")
        status = {l.split("to=<")[1].split("@")[0]: l.split("status=")[1].split()[0] for l in log}
        assert status == {"a": "sent", "b": "sent", "spam": "bounced", "later": "deferred"}
    assert b"no spam here" in postfix.wait_mail(b"554 5.7.1")


# ---- the file of the socket --------------------------------------------------------------------

def permissions(path):
    s = os.stat(path)
    assert stat.S_ISSOCK(s.st_mode)
    return stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid


def test_who_may_connect(serving):
    router = serving()
    me = (os.geteuid(), os.getegid())
    assert permissions(router.path) == (0o660, *me)


def test_mode_and_group_follow_a_reload(serving):
    router = serving(', mode = "600"')
    assert permissions(router.path)[0] == 0o600
    inode = router.path.stat().st_ino
    text = router.config.read_text()
    group = grp.getgrgid(os.getegid()).gr_name
    router.config.write_text(text.replace('mode = "600"', f'mode = "666", group = "{group}"'))
    router.reload()
    assert permissions(router.path) == (0o666, os.geteuid(), os.getegid())
    assert router.path.stat().st_ino == inode, "it is the same socket"
    router.config.write_text(text.replace('mode = "600"', 'mode = "640", group = "no-such-group"'))
    done = router.cli("reload")
    assert done.returncode != 0 and "no group 'no-such-group'" in done.stderr
    assert permissions(router.path)[0] == 0o666
    with session(router, "unix") as s:
        assert s.message(["a"], "after")[1] == [250]


def test_a_socket_comes_and_goes_with_reloads(serving):
    router = serving()
    text, other = router.config.read_text(), router.folder / "other.sock"
    router.config.write_text(text.replace(str(router.path), str(other)))
    router.reload()
    assert not router.path.exists() and permissions(other)[0] == 0o660
    router.config.write_text(text)
    router.reload()
    assert not other.exists()
    with session(router, "unix") as s:
        assert s.message(["a"], "back")[1] == [250]


def test_it_goes_at_the_end_and_not_by_a_crash(serving):
    router = serving()
    router.stop()
    assert not router.path.exists()
    router.start()
    router.kill9()
    assert router.path.exists(), "nobody could remove it"
    router.start()
    with session(router, "unix") as s:
        assert s.message(["a"], "again")[1] == [250]


def test_what_somebody_else_has_is_left_alone(serving, new_tern):
    router = serving()
    second = new_tern()
    second.configure(f'  listen = {{ {{ "{router.path}", service = "lmtp" }} }},\n')
    second.start(ready=False)
    assert second.child.wait(20) == 69
    assert "another process listens there" in second.child.stderr()
    with session(router, "unix") as s:
        assert s.cmd("NOOP").code == 250
    file = second.folder / "file"
    file.write_text("precious")
    second.configure(f'  listen = {{ {{ "{file}", service = "lmtp" }} }},\n')
    second.start(ready=False)
    assert second.child.wait(20) == 69
    assert "a file and no socket" in second.child.stderr()
    assert file.read_text() == "precious"
    second.configure(f'  listen = {{ {{ "{second.folder}/no/such/lmtp.sock", service = "lmtp" }} }},\n')
    second.start(ready=False)
    assert second.child.wait(20) not in (0, 70)
    assert "make the folder first" in second.child.stderr()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_gives_it_away(serving, sink, new_tern, folder):
    """The folder is made, for all to pass; the socket is the user's, and its group's."""
    folder.chmod(0o755)
    router = new_tern()
    router.folder.chmod(0o755)
    router.env["TERN_USER"] = "nobody"
    router.spool.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(router.spool, nobody.pw_uid, nobody.pw_gid)
    run_folder = router.folder / "run"
    router.path = run_folder / "lmtp.sock"
    router.host = sink()
    router.configure(lmtp(router, router.path, ', group = "mail"') + to_hosts(router.host, domain="rcpt.test"))
    router.start()
    assert stat.S_IMODE(run_folder.stat().st_mode) == 0o755 and run_folder.stat().st_uid == nobody.pw_uid
    assert permissions(router.path) == (0o660, nobody.pw_uid, grp.getgrnam("mail").gr_gid)
    with session(router, "unix") as s:
        assert s.message(["a"], "given")[1] == [250]
    router.host.wait_ids({"given"})
    router.config.write_text(router.config.read_text().replace(', group = "mail"', ', mode = "600"'))
    router.reload()
    assert permissions(router.path) == (0o600, nobody.pw_uid, nobody.pw_gid)
    router.config.write_text(router.config.read_text().replace(', mode = "600"', ', group = "mail"'))
    done = router.cli("reload")
    assert done.returncode != 0 and "is not in it" in done.stderr
    router.stop()
    assert not router.path.exists()


def test_a_socket_of_the_service_manager(new_tern, sink, closing):
    router = new_tern()
    router.path = router.folder / "lmtp.sock"
    router.host = sink()
    router.configure(f'  listen = {{ "{router.address}", {{ "{router.path}", service = "lmtp" }} }},\n'
                     + to_hosts(router.host, domain="rcpt.test"))
    manager = closing(Manager({"smtp": (router.ip, 25)}))
    manager.sockets["lmtp"] = s = socket.socket(socket.AF_UNIX)
    s.bind(str(router.path))
    os.chmod(router.path, 0o602)
    s.listen(16)
    manager.start(router)
    with session(router, "unix") as client:
        assert client.message(["a"], "handed")[1] == [250]
    router.host.wait_ids({"handed"})
    router.reload()
    assert permissions(router.path)[0] == 0o602, "it is the manager's"
    router.stop()
    assert router.path.exists(), "and stays"


def test_stop_in_a_transaction(serving, where):
    router = serving()
    with session(router, where) as idle, session(router, where) as busy:
        busy.envelope("a@sender.test", "a@rcpt.test", "spam@rcpt.test")
        busy.expect(354, "DATA")
        busy.send(message("last"))
        router.child.signal(signal.SIGTERM)
        assert [r.code for r in idle.until_closed()] == [421]
        busy.send(".\r\n")
        assert [r.code for r in busy.until_closed()] == [250, 554, 421]
    assert router.child.wait(20) == 0


def test_explain(new_tern, folder):
    router = new_tern()
    path = folder / "lmtp.sock"
    router.configure(f'  listen = {{ "{router.address}", {{ "{path}", service = "lmtp" }} }},\n'
                     '  policies = { { helo = function(ctx)\n'
                     '    if ctx.session.listener == "lmtp" then return tern.reject { 550, "no" } end\n  end } },\n')
    question = ("explain", "--from", "a@sender.test", "--to", "b@rcpt.test", "--listener", "lmtp")
    text = router.ok(*question)
    assert f"from unix:{path}, LHLO localhost, no TLS" in text and "refused at LHLO: 550" in text
    done = router.cli(*question, "--client", "192.0.2.7")
    assert done.returncode == 65 and "has no address" in done.stderr
