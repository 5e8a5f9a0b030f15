"""Hosts that take mail: aiosmtpd with an inbox and answers that a test chooses, smtp-sink, and a host
that follows a script byte by byte."""
import collections
import dataclasses
import email
import re
import ssl
import socket
import threading

from aiosmtpd.controller import Controller

from addresses import fresh_ip
from processes import Child
from waiting import until

ID = re.compile(rb"^X-Test-Id: *([^\r\n]+)", re.M | re.I)


@dataclasses.dataclass
class Mail:
    sender: str
    recipients: list
    content: bytes  # dots removed, as the host sees it
    peer: str  # address that it came from
    tls: bool
    helo: str
    options: list

    @property
    def id(self):
        """Of X-Test-Id, by which the clients of these tests mark what they send."""
        found = ID.search(self.content)
        return found.group(1).decode() if found else None

    @property
    def message(self):
        return email.message_from_bytes(self.content)

    @property
    def subject(self):
        return self.message["Subject"]


class _Handler:
    def __init__(self, sink):
        self.sink = sink

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        self.sink.greeted.append(session.peer[0])
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        reply = self.sink.answer("MAIL", address)
        if reply:
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        reply = self.sink.answer("RCPT", address)
        if reply:
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = Mail(envelope.mail_from.replace("<>", ""), list(envelope.rcpt_tos), envelope.original_content,
                    session.peer[0], session.ssl is not None, session.host_name,
                    list(envelope.mail_options))
        reply = self.sink.answer("DATA", mail)
        if reply:
            return reply
        self.sink.take(mail)
        return "250 2.0.0 taken"


class Sink:
    """aiosmtpd at an address of its own. replies: {"RCPT": reply or function of the address (None: go
    on), "MAIL": ..., "DATA": ... of the Mail}; can be changed at any time."""

    def __init__(self, ip=None, port=25, hostname="sink.test", certificates=None, implicit=None):
        self.ip = ip or fresh_ip()
        self.port = port
        self.hostname = hostname
        self.certificates = certificates
        self.replies = {}
        self.greeted = []  # peers, one for each EHLO
        self._mails = []
        self._changed = threading.Condition()
        self._controller = None

    @property
    def address(self):
        return f"{self.ip}:{self.port}"

    def answer(self, verb, what):
        reply = self.replies.get(verb)
        return reply(what) if callable(reply) else reply

    def take(self, mail):
        with self._changed:
            self._mails.append(mail)
            self._changed.notify_all()

    @property
    def mails(self):
        with self._changed:
            return list(self._mails)

    def ids(self):
        """How often each id came."""
        return collections.Counter(m.id for m in self.mails)

    def wait(self, count=1, timeout=20):
        """The mails, when there are at least so many."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._mails) >= count, timeout)
            assert len(self._mails) >= count, f"{len(self._mails)} of {count} mails came"
            return list(self._mails)

    def wait_ids(self, ids, timeout=60):
        """Waits until each of these came; the mails by id."""
        wanted = set(ids)
        with self._changed:
            self._changed.wait_for(lambda: wanted <= {m.id for m in self._mails}, timeout)
            missing = wanted - {m.id for m in self._mails}
            assert not missing, f"{len(missing)} of {len(wanted)} never came: {sorted(missing)[:5]}"
            return {m.id: m for m in self._mails}

    def up(self):
        assert self._controller is None
        context = None
        if self.certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificates.cert, self.certificates.key)
        self._controller = Controller(
            _Handler(self), hostname=self.ip, port=self.port, server_hostname=self.hostname,
            tls_context=context, data_size_limit=None, ready_timeout=20)
        self._controller.start()
        return self

    def down(self):
        if self._controller:
            self._controller.stop()
            self._controller = None
        return self

    close = down



class SmtpSink:
    """Postfix's smtp-sink: takes as much as can be sent, keeps each mail in a file. lmtp: it speaks LMTP,
    at a TCP port ("tcp") or a socket ("unix") with the path `address`."""

    def __init__(self, folder, lmtp=None):
        self.folder = folder / "smtp-sink"
        self.folder.mkdir()
        self.ip = fresh_ip()
        self.port = 24 if lmtp else 25
        self.address = str(folder / "lmtp") if lmtp == "unix" else f"{self.ip}:{self.port}"
        where = "unix:" + self.address if lmtp == "unix" else self.address
        self.child = Child(["smtp-sink", *(["-L"] if lmtp else []), "-u", "root", "-d", "%s.", where,
                            "1000"], cwd=self.folder)
        until(self._answers, lambda: "smtp-sink answers" + self.child.stderr())

    def _answers(self):
        unix = self.address.startswith("/")
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as s:
            s.settimeout(5)
            try:
                s.connect(self.address if unix else (self.ip, self.port))
                return s.recv(3) == b"220"
            except OSError:
                return False

    def mails(self):
        """Recipients of each mail that is there whole."""
        found = []
        for path in self.folder.iterdir():
            text = path.read_bytes()
            recipients = re.findall(rb"^X-Rcpt-Args: <([^>]*)>", text, re.M)
            if recipients and b"\nReceived:" in text:
                found.append([r.decode() for r in recipients])
        return found

    def close(self):
        self.child.end()


class ScriptedHost:
    """A host that says what a function tells it: talk(connection) runs in a thread for each
    connection, where connection is a file-like object of bytes in both directions."""

    def __init__(self, talk, ip=None, port=25):
        self.ip = ip or fresh_ip()
        self.port = port
        self.connections = 0
        self._talk = talk
        self._listener = socket.create_server((self.ip, port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return f"{self.ip}:{self.port}"

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            connection.settimeout(30)
            with connection.makefile("rwb", buffering=0) as stream:
                try:
                    self._talk(stream)
                except OSError:
                    pass  # the other side has gone

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
