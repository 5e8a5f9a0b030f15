"""The soak's hosts: a process with the servers that mail goes to, which fail at random.

Each host has a mood for some seconds: it works; refuses connections; takes only a few; is slow; or fails
at some stage with some chance. What it does is recorded, in order:

    ("took", time, recipient, router's id, opened, replied)   the message is its own; opened: when the connection
                                                      was; replied: it said 250
    ("refused", time, recipient, code)                5yz: a bounce is due
    ("report", time, Message-ID, recipient, action)   a notification came back to the sender
    ("wrong", time, text)                             what must never come
"""
import asyncio
import logging
import random
import time

import mails

STAGES = ("greeting", "helo", "mail", "rcpt", "data", "body", "final")
MOODS = ("works", "works", "works", "refuses", "limits", "slow", "fails", "fails", "picks")
IDLE_S = 300
BIGGEST = 1 << 21


class Left(Exception):
    """The session is over."""


class Session:
    def __init__(self, host, reader, writer):
        self.host, self.reader, self.writer = host, reader, writer
        self.opened = time.time()
        self.recipients = []
        self.begun = self.null = False
        self.unheard = []  # records of what it took last; the next command shows that its reply came

    async def say(self, text):
        if self.host.pause:
            await self.writer.drain()
            await asyncio.sleep(self.host.pause)
        self.writer.write(text.encode() + b"\r\n")

    def fault(self, stage):
        """None, a reply, "close" or "421": what this host does now."""
        host = self.host
        if host.mood != "fails" or stage != host.stage or host.chance.random() > 0.3:
            return None
        choices = ["close", "421", "451 4.3.0 not now", "421"]
        if stage in ("rcpt", "data", "final") and host.chance.random() < 0.2:
            choices = ["550 5.7.1 no"]
        return host.chance.choice(choices)

    async def refuse(self, stage, whom):
        """True: this stage was answered with a failure."""
        fault = self.fault(stage)
        if fault is None:
            return False
        if fault == "close":
            raise Left
        if fault == "421":
            await self.say("421 4.3.2 bad luck")
            raise Left
        if fault[0] == "5":
            for address in whom:
                self.host.record("refused", address, fault[:3])
        await self.say(fault)
        return True

    async def line(self):
        async with asyncio.timeout(IDLE_S):
            line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Left
        return line.decode("latin-1").rstrip("\r\n")

    async def run(self):
        if self.host.mood == "limits" and len(self.host.sessions) > self.host.most:
            await self.say("421 4.7.0 too many connections")
            raise Left
        if await self.refuse("greeting", ()):
            raise Left
        await self.say("220 sink.soak.test ESMTP")
        while True:
            line = await self.line()
            self.unheard = []
            await self.command(line)

    async def command(self, line):
        verb = line[:4].upper()
        if verb == "EHLO":
            if not await self.refuse("helo", ()):
                dsn = "250-DSN\r\n" if self.host.dsn else ""
                await self.say("250-sink.soak.test\r\n250-8BITMIME\r\n250-SIZE 100000000\r\n" + dsn
                               + "250 PIPELINING")
        elif verb == "MAIL":
            self.recipients, self.null = [], "FROM:<>" in line.upper()
            self.begun = not await self.refuse("mail", ())
            if self.begun:
                await self.say("250 2.1.0 OK")
        elif verb == "RCPT":
            await self.rcpt(line)
        elif verb == "DATA":
            await self.data()
        elif verb == "RSET":
            self.recipients = []
            await self.say("250 2.0.0 OK")
        elif verb == "QUIT":
            await self.say("221 2.0.0 bye")
            raise Left
        else:
            await self.say("250 2.0.0 OK" if verb in ("HELO", "NOOP") else "500 5.5.1 what?")

    async def rcpt(self, line):
        address = line[line.index("<") + 1:line.index(">")]
        if not self.begun:
            await self.say("503 5.5.1 no sender")
            return
        if self.host.mood == "picks" and self.host.chance.random() < 0.2:
            code = self.host.chance.choice(("450 4.2.1 later", "452 4.2.2 full", "550 5.1.1 nobody"))
            if code[0] == "5":
                self.host.record("refused", address, code[:3])
            await self.say(code)
            return
        if await self.refuse("rcpt", (address,)):
            return
        self.recipients.append(address)
        await self.say("250 2.1.5 OK")

    async def data(self):
        if not self.recipients:
            await self.say("554 5.5.1 no recipients")
            return
        if await self.refuse("data", self.recipients):
            return
        await self.say("354 go on")
        async with asyncio.timeout(IDLE_S):
            if self.fault("body") is not None:
                await self.reader.read(4000)
                raise Left
            content = await self.reader.readuntil(b"\r\n.\r\n")
        content = content[:-3]
        fault = self.fault("final")
        if fault == "close":
            if self.host.chance.random() < 0.5:
                self.take(content, False)
            raise Left
        if fault == "421":
            await self.say("421 4.3.2 bad luck")
            raise Left
        if fault is None:
            self.take(content, True)
        elif fault[0] == "5":
            for address in self.recipients:
                self.host.record("refused", address, fault[:3])
        await self.say(fault or "250 2.0.0 taken")
        self.recipients = []

    def take(self, content, replied):
        host = self.host
        if self.null:
            name, found = mails.report_of(content)
            for recipient, action in found:
                host.record("report", name, recipient, action)
            if not found:
                host.record("wrong", f"a notification that tells nothing: {name}")
            return
        ident, whole, queue_id = mails.decompose(content)
        if not whole:
            host.record("wrong", f"{ident} is damaged")
        for address in self.recipients:
            if not address.startswith(f"{ident}-"):
                host.record("wrong", f"{ident} came to {address}")
            self.unheard.append(host.record("took", address, queue_id, self.opened, replied))

    def broken_off(self):
        """By the host itself: a reply that is under way does not come."""
        for record in self.unheard:
            record[-1] = False


class Host:
    def __init__(self, ip, port, records, seed, steady):
        self.ip, self.port, self.records = ip, port, records
        self.steady = steady  # no moods: where notifications go
        self.chance = random.Random(seed)
        self.dsn = self.chance.random() < 0.5
        self.mood, self.stage, self.pause, self.most = "works", None, 0, 0
        self.sessions = set()
        self.server = None
        self.moods = {}

    def record(self, what, *fields):
        self.records.append([what, time.time(), *fields])
        return self.records[-1]

    async def up(self):
        if not self.server:
            self.server = await asyncio.start_server(self.accept, self.ip, self.port,
                                                     limit=BIGGEST, backlog=500)

    async def down(self):
        if self.server:
            self.server.close()
            self.server = None
        for session in list(self.sessions):
            session.broken_off()
            session.writer.transport.abort()

    async def accept(self, reader, writer):
        session = Session(self, reader, writer)
        self.sessions.add(session)
        try:
            await session.run()
        except (Left, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError,
                asyncio.LimitOverrunError):
            pass
        finally:
            self.sessions.discard(session)
            writer.close()  # sends what is unsent

    async def feel(self, mood):
        chance = self.chance
        self.moods[mood] = self.moods.get(mood, 0) + 1
        self.mood = mood
        self.stage = chance.choice(STAGES)
        self.most = chance.randint(0, 2)
        self.pause = chance.choice((0.05, 0.2, 1.0)) if mood == "slow" else 0
        if mood == "refuses":
            await self.down()
        else:
            await self.up()

    async def live(self, calm, patience):
        await self.up()
        while not self.steady and not calm.is_set():
            await self.feel(self.chance.choice(MOODS))
            end = time.monotonic() + patience * self.chance.uniform(0.4, 1.6)
            while time.monotonic() < end and not calm.is_set():
                await asyncio.sleep(0.1)
        await self.feel("works")


async def serve(options, calm, stop, pipe):
    records = []
    hosts = [Host(ip, port, records, options["seed"] * 100 + n, n == 0 or not options["faults"])
             for n, (ip, port) in enumerate(options["hosts"])]
    for host in hosts:
        await host.up()
    pipe.send("ready")
    lives = [asyncio.ensure_future(h.live(calm, options["patience"])) for h in hosts]
    while not stop.is_set():
        await asyncio.sleep(0.1)
        for life in lives:
            if life.done():
                life.result()
    for host in hosts:
        await host.down()
    moods = {}
    for host in hosts:
        for mood, times in host.moods.items():
            moods[mood] = moods.get(mood, 0) + times
    return {"records": records, "moods": moods}


def main(options, calm, stop, pipe):
    """In its own process: serves until `stop`, then hands over what came."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # writing to who has gone is no news here
    pipe.send(asyncio.run(serve(options, calm, stop, pipe)))
    pipe.close()
