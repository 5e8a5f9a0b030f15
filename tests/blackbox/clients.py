"""Clients: raw bytes, smtplib, swaks, smtp-source, and many sessions with exact accounts."""
import asyncio
import contextlib
import itertools
import smtplib
import socket
import ssl
import threading

from processes import Child, run

_numbers = itertools.count(1)


def message(test_id=None, subject="test", body="hello", sender="a@sender.test", to="b@rcpt.test"):
    """A message in CRLF. test_id: what Mail.id of a sink gives."""
    lines = [f"From: <{sender}>", f"To: <{to}>", f"Subject: {subject}",
             "Date: Thu, 01 Jan 2026 00:00:00 +0000", f"Message-ID: <{next(_numbers)}@sender.test>"]
    if test_id is not None:
        lines.append(f"X-Test-Id: {test_id}")
    return "\r\n".join([*lines, "", *body.split("\n"), ""])


class Reply:
    def __init__(self, lines):
        self.lines = lines
        self.code = int(lines[-1][:3])
        self.text = "\n".join(l[4:] for l in lines)

    def __repr__(self):
        return "\n".join(self.lines)

    @property
    def enhanced(self):
        word = self.lines[-1][4:].split(" ", 1)[0]
        return word if word.count(".") == 2 else None


class Closed(Exception):
    """The server ended the connection."""


class Raw:
    """A connection in which a test decides on every byte."""

    def __init__(self, tern, source=None, port=None, greet=True, timeout=15):
        self.socket = socket.create_connection((tern.ip, port or tern.port), timeout=timeout,
                                               source_address=(source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = b""
        self.greeting = self.reply() if greet else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("utf-8"))

    def send_last(self, data):
        """And that is all there is to come: our side ends, in the same segment."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self.send(data)
        if isinstance(self.socket, ssl.SSLSocket):
            timeout = self.socket.gettimeout()
            self.socket.setblocking(False)
            with contextlib.suppress(ssl.SSLWantReadError):
                self.socket.unwrap()  # sends close_notify, and would wait for theirs
            self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        if not isinstance(self.socket, ssl.SSLSocket):
            self.socket.shutdown(socket.SHUT_WR)

    def _line(self):
        while b"\n" not in self._in:
            try:
                more = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLZeroReturnError):
                more = b""
            if not more:
                raise Closed(self._in)
            self._in += more
        line, self._in = self._in.split(b"\n", 1)
        assert line.endswith(b"\r"), f"a reply line ends in bare LF: {line!r}"
        return line[:-1].decode("utf-8", "replace")

    def reply(self):
        lines = []
        while True:
            line = self._line()
            lines.append(line)
            assert len(line) >= 3 and line[:3].isdigit() and line[3:4] in ("", " ", "-"), line
            if line[3:4] != "-":
                return Reply(lines)

    def replies(self, n):
        return [self.reply() for _ in range(n)]

    def cmd(self, line):
        self.send(line + "\r\n")
        return self.reply()

    def expect(self, code, line):
        reply = self.cmd(line)
        assert reply.code == code, f"{line!r}: {reply!r}"
        return reply

    def hello(self, name="client.test"):
        return self.expect(250, f"EHLO {name}")

    def envelope(self, sender="a@sender.test", *recipients):
        self.expect(250, f"MAIL FROM:<{sender}>")
        for r in recipients:
            self.expect(250, f"RCPT TO:<{r}>")

    def data(self, content):
        """DATA and content (CRLF text, dots not stuffed yet): the reply to the final dot."""
        self.expect(354, "DATA")
        self.send(content.replace("\r\n.", "\r\n..") + ".\r\n")
        return self.reply()

    def mail(self, *recipients, sender="a@sender.test", content=None):
        """One transaction after EHLO: the reply to the final dot."""
        self.envelope(sender, *recipients)
        return self.data(content if content is not None else message())

    def until_closed(self):
        """All replies up to the end of the connection."""
        lines = []
        try:
            while True:
                lines.append(self.reply())
        except Closed:
            return lines

    def start_tls(self, context):
        self.expect(220, "STARTTLS")
        assert self._in == b""
        self.socket = context.wrap_socket(self.socket, server_hostname="mx.test")


def queue_id(reply):
    """The id in `250 2.0.0 ... <id>` at the end of a transaction."""
    return reply.text.split()[-1]


def send(tern, to="b@rcpt.test", sender="a@sender.test", test_id=None, source=None, **fields):
    """One mail by smtplib. Returns nothing; raises what smtplib raises."""
    to = [to] if isinstance(to, str) else to
    content = message(test_id, sender=sender or "a@sender.test", to=to[0], **fields)
    with smtplib.SMTP(tern.ip, tern.port, local_hostname="client.test", timeout=20,
                      source_address=(source, 0) if source else None) as smtp:
        refused = smtp.sendmail(sender, to, content.encode())
        assert not refused, refused


def swaks(tern, *args, port=None, timeout=30):
    """swaks: a CompletedProcess; stdout holds the dialogue."""
    return run(["swaks", "--server", tern.ip, "--port", port or tern.port, "--helo", "client.test",
                "--from", "a@sender.test", *args], timeout=timeout)


def smtp_source(tern, messages, sessions, to="b@rcpt.test", *args):
    """Starts smtp-source: each message goes to its own recipient (1b@..., 2b@...)."""
    return Child(["smtp-source", "-N", "-m", messages, "-s", sessions, "-f", "a@sender.test",
                  "-t", to, "-M", "client.test", *args, f"{tern.ip}:{tern.port}"])


class Refused(Exception):
    """The server did not say what was hoped for; its line."""


class Flood:
    """Sends `count` messages, each with an id, over many sessions at once, in a thread of its own.

    acknowledged holds the ids for which the server took responsibility: 250 to the final dot was
    read. A session that breaks gives its message up; `failures` says why. again() sends those that
    were not acknowledged; patient clients come back by themselves after a 4yz.
    """

    def __init__(self, tern, count, sessions=20, to="b@rcpt.test", prefix="m", body="x" * 500,
                 pause=0, patient=False):
        self.tern = tern
        self.sessions = sessions
        self.to = to
        self.patient = patient
        self.body = body
        self.pause = pause
        self.ids = [f"{prefix}{n}" for n in range(count)]
        self.acknowledged = set()
        self.attempts = {i: 0 for i in self.ids}
        self.failures = []
        self.opened = 0
        self._changed = threading.Condition()
        self._thread = None
        self._left = []  # those at the end come next

    def start(self):
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def wait_acknowledged(self, count, timeout=60):
        with self._changed:
            self._changed.wait_for(lambda: len(self.acknowledged) >= count, timeout)
            assert len(self.acknowledged) >= count, (len(self.acknowledged), self.failures[:3])

    def join(self, timeout=90):
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the clients do not come to an end"
        return self

    def again(self):
        self.failures = []
        return self.start()

    def finish(self):
        """No new messages: the sessions end. `ids` are then those that were sent."""
        self._left.clear()
        self.join()
        self.ids = [i for i in self.ids if self.attempts[i]]
        return self

    async def _run(self):
        self._left = [i for i in reversed(self.ids) if i not in self.acknowledged]
        await asyncio.gather(*(self._worker(self._left) for _ in range(self.sessions)))

    async def _worker(self, left):
        while left:
            try:
                await self._session(left)
            except (OSError, asyncio.IncompleteReadError, Refused, asyncio.TimeoutError) as e:
                self.failures.append(repr(e))
                if isinstance(e, ConnectionRefusedError):
                    return

    async def _session(self, left):
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(self.tern.ip, self.tern.port), 20)
        self.opened += 1
        try:
            await self._expect(reader, "220")
            await self._say(reader, writer, "EHLO client.test", "250")
            while left:
                test_id = left.pop()
                try:
                    await self._mail(reader, writer, test_id)
                except Refused as e:
                    self.failures.append(repr(e))
                    if not self.patient or not e.args[0].startswith(b"4"):
                        continue
                    left.insert(0, test_id)
                    await self._say(reader, writer, "RSET", "250")
                    await asyncio.sleep(0.1)
                if self.pause:
                    await asyncio.sleep(self.pause)
            await self._say(reader, writer, "QUIT", "221")
        finally:
            writer.close()

    async def _mail(self, reader, writer, test_id):
        self.attempts[test_id] += 1
        await self._say(reader, writer, "MAIL FROM:<a@sender.test>", "250")
        await self._say(reader, writer, f"RCPT TO:<{self.to}>", "250")
        await self._say(reader, writer, "DATA", "354")
        await self._say(reader, writer, message(test_id, body=self.body) + ".", "250")
        with self._changed:
            self.acknowledged.add(test_id)
            self._changed.notify_all()

    async def _say(self, reader, writer, line, code):
        writer.write(line.encode() + b"\r\n")
        await self._expect(reader, code)

    @staticmethod
    async def _expect(reader, code):
        while True:
            line = await asyncio.wait_for(reader.readuntil(b"\n"), 60)
            if line[3:4] != b"-":
                if not line.startswith(code.encode()):
                    raise Refused(line)
                return
