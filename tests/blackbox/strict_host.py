"""A host for what no ready software has: it offers REQUIRETLS (RFC 8689) inside TLS and LIMITS (RFC 9422), and keeps a
record of every command that breaks them."""
import dataclasses
import socket
import ssl
import threading

from addresses import fresh_ip


@dataclasses.dataclass
class Taken:
    recipients: list
    params: str  # of MAIL
    content: bytes
    tls: bool
    session: int


class StrictHost:
    def __init__(self, certificates=None, requiretls=True, in_clear=(), inside=()):
        """in_clear, inside: further EHLO lines outside and inside of TLS."""
        self.context = None
        if certificates:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificates.cert, certificates.key)
        self.in_clear = list(in_clear)
        self.inside = list(inside) + (["REQUIRETLS"] if requiretls else [])
        self.mails, self.commands, self.broken, self.sessions = [], [], [], 0
        self.ip = fresh_ip()
        self._listener = socket.create_server((self.ip, 25))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return f"{self.ip}:25"

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.sessions += 1
            threading.Thread(target=self._serve, args=(connection, self.sessions), daemon=True).start()

    def _serve(self, connection, number):
        try:
            _Session(self, connection, number).run()
        except OSError:
            pass  # the other side has gone
        finally:
            connection.close()


def _limits(lines):
    told = {}
    for line in lines:
        if line.startswith("LIMITS "):
            told = dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)
    return {name: int(told.get(name, 0)) for name in ("RCPTMAX", "MAILMAX", "RCPTDOMAINMAX")}


class _Session:
    def __init__(self, host, connection, number):
        self.host, self.socket, self.number = host, connection, number
        self.socket.settimeout(30)
        self.buffer, self.tls = b"", False
        self.mails, self.domains = 0, set()
        self.limits = _limits([])

    def line(self):
        while b"\r\n" not in self.buffer:
            more = self.socket.recv(65536)
            if not more:
                return None
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode()

    def reply(self, text):
        self.socket.sendall((text + "\r\n").encode())

    def breach(self, what):
        self.host.broken.append((self.number, what))
        self.reply("452 4.5.3 more than was told")

    def hello(self):
        lines = ["strict.test", "PIPELINING", "8BITMIME"]
        lines += self.host.inside if self.tls else self.host.in_clear
        if self.host.context and not self.tls:
            lines.append("STARTTLS")
        self.limits = _limits(lines)
        for line in lines[:-1]:
            self.reply(f"250-{line}")
        self.reply(f"250 {lines[-1]}")

    def data(self):
        self.reply("354 go on")
        content = []
        while (line := self.line()) != ".":
            if line is None:
                raise OSError("broke off")
            content.append(line.removeprefix("."))
        text = "\r\n".join([*content, ""]).encode()
        self.host.mails.append(Taken(self.recipients, self.params, text, self.tls, self.number))
        self.reply("250 2.0.0 taken")

    def mail(self, line):
        self.mails += 1
        self.recipients, self.params = [], line.split(">", 1)[1].strip()
        if "REQUIRETLS" in self.params.split() and not (self.tls and "REQUIRETLS" in self.host.inside):
            self.breach(line)
        elif self.limits["MAILMAX"] and self.mails > self.limits["MAILMAX"]:
            self.breach(line)
        else:
            self.reply("250 2.1.0 ok")

    def rcpt(self, line):
        address = line.split("<", 1)[1].split(">", 1)[0]
        self.recipients.append(address)
        self.domains.add(address.rsplit("@", 1)[1].lower())
        if self.limits["RCPTMAX"] and len(self.recipients) > self.limits["RCPTMAX"] or \
                self.limits["RCPTDOMAINMAX"] and len(self.domains) > self.limits["RCPTDOMAINMAX"]:
            self.breach(line)
        else:
            self.reply("250 2.1.5 ok")

    def run(self):
        self.reply("220 strict.test ESMTP")
        while (line := self.line()) is not None:
            verb = line.split(" ", 1)[0].upper()
            self.host.commands.append((self.number, self.tls, line))
            if verb == "EHLO":
                self.hello()
            elif verb == "STARTTLS":
                self.reply("220 2.0.0 go")
                self.socket = self.host.context.wrap_socket(self.socket, server_side=True)
                self.tls, self.buffer = True, b""
            elif verb == "MAIL":
                self.mail(line)
            elif verb == "RCPT":
                self.rcpt(line)
            elif verb == "DATA":
                self.data()
            elif verb == "QUIT":
                self.reply("221 2.0.0 bye")
                return
            else:
                self.reply("250 2.0.0 ok")
