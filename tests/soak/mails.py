"""What the soak sends: messages that can be told apart, and that show whether they arrived whole.

A message is known by its id, "m<number>"; each of its recipients by an address that no other message has,
"m<number>-<k>@d<n>.soak.test". The sum of the body stands in a header.
"""
import random
import re
import zlib

SENDER_DOMAIN = "sender.test"  # where notifications go
ADDRESS = re.compile(rb"m\d+-\d+@d\d+\.soak\.test")
ID = re.compile(rb"^X-Soak-Id: (m\d+)\r$", re.M)
SUM = re.compile(rb"^X-Soak-Sum: (\d+) (\d+)\r$", re.M)
QUEUE_ID = re.compile(rb"^\s+id ([0-9A-Z]{26})", re.M)
LINE = 78  # octets, CRLF included
SMALLEST, LARGEST = 512, 300 * 1024


class Pool:
    """Lines of random text, some of which begin with a dot; bodies are pieces of it."""

    def __init__(self, seed):
        chance = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ,0123456789"
        lines = []
        for n in range(2 * LARGEST // LINE):
            text = "".join(chance.choices(letters, k=LINE - 2))
            lines.append(("." + text[1:] if n % 50 == 0 else text) + "\r\n")
        self.text = "".join(lines).encode()
        self.lines = len(lines)

    def body(self, chance):
        size = SMALLEST * (LARGEST / SMALLEST) ** (chance.random() ** 1.5)  # small ones are common
        lines = max(1, int(size) // LINE)
        first = chance.randrange(self.lines - lines)
        return self.text[first * LINE:(first + lines) * LINE]


def compose(ident, recipients, body):
    """The content as it stands after DATA, dots doubled, the end included."""
    to = ",\r\n ".join(recipients)
    head = (f"From: <soak@{SENDER_DOMAIN}>\r\nTo: {to}\r\nSubject: soak {ident}\r\n"
            f"Message-ID: <{ident}@{SENDER_DOMAIN}>\r\nX-Soak-Id: {ident}\r\n"
            f"X-Soak-Sum: {zlib.crc32(body)} {len(body)}\r\n\r\n").encode()
    return (head + body).replace(b"\r\n.", b"\r\n..") + b".\r\n"


def decompose(content):
    """(id, is it whole, the router's id) of what came between DATA and the dot, dots doubled; id None: it
    is none of ours."""
    content = content.replace(b"\r\n..", b"\r\n.")
    head, _, body = content.partition(b"\r\n\r\n")
    head += b"\r\n"
    ident, told, queue_id = ID.search(head), SUM.search(head), QUEUE_ID.search(head)
    whole = bool(told) and (zlib.crc32(body), len(body)) == (int(told[1]), int(told[2]))
    return (ident[1].decode() if ident else None, whole, queue_id[1].decode() if queue_id else None)


def report_of(content):
    """(Message-ID, [(recipient, action)]) of a notification."""
    text = content.replace(b"\r\n ", b" ")
    name = re.search(rb"^Message-ID:\s*(\S+)", text, re.M | re.I)
    found = []
    for block in text.split(b"\r\n\r\n"):
        who = re.search(rb"^Final-Recipient:\s*rfc822;\s*(\S+)", block, re.M | re.I)
        what = re.search(rb"^Action:\s*(\S+)", block, re.M | re.I)
        if who and what:
            found.append((who[1].decode(), what[1].decode().lower()))
    return (name[1].decode() if name else None, found)
