"""The soak's sender: a process that offers mail at a steady rate, and keeps a record of every message.

Its record of a message: what became of it ("acknowledged", "refused", "unknown": no reply was heard,
"broken": the sender broke off on purpose), when, the router's id, and its recipients that were accepted.
"""
import asyncio
import logging
import random
import re
import ssl
import time

import mails

WORKERS = 80
REPLY_S = 120


class Gone(Exception):
    """The connection has ended."""


class Connection:
    def __init__(self, address):
        self.address = address
        self.reader = self.writer = None

    async def open(self, tls):
        host, port = self.address
        self.reader, self.writer = await asyncio.open_connection(host, port)
        await self.expect(220)
        await self.hello()
        if tls:
            self.writer.write(b"STARTTLS\r\n")
            await self.expect(220)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            await self.writer.start_tls(context)
            await self.hello()

    async def hello(self):
        self.writer.write(b"EHLO client.soak.test\r\n")
        await self.expect(250)

    async def reply(self):
        text = b""
        async with asyncio.timeout(REPLY_S):
            while True:
                line = await self.reader.readline()
                if not line.endswith(b"\n"):
                    raise Gone
                text += line
                if line[3:4] != b"-":
                    return int(line[:3]), text.decode("ascii", "replace")

    async def expect(self, code):
        got, _ = await self.reply()
        if got != code:
            raise Gone

    def close(self):
        if self.writer:
            self.writer.transport.abort()


class Sender:
    def __init__(self, options, stop):
        self.options = options
        self.stop = stop
        self.chance = random.Random(options["seed"] * 7 + 1)
        self.pool = mails.Pool(options["seed"])
        self.turns = asyncio.Queue(2 * WORKERS)
        self.records = {}
        self.number = 0
        self.refusals = {}  # reply: how often
        self.skipped = 0  # the router was not there, or too slow

    async def pace(self):
        """One turn for each message; those for which nobody is free are skipped."""
        gap = 1 / self.options["rate"]
        due = time.monotonic()
        while not self.stop.is_set():
            due += gap
            await asyncio.sleep(max(0, due - time.monotonic()))
            try:
                self.turns.put_nowait(True)
            except asyncio.QueueFull:
                self.skipped += 1
        for _ in range(WORKERS):
            await self.turns.put(False)

    def new_message(self):
        chance = self.chance
        self.number += 1
        ident = f"m{self.number}"
        n = chance.choice((1, 1, 1, 1, 1, 1, 2, 3, 5, 8))
        to = [f"{ident}-{k}@d{chance.randrange(self.options['domains'])}.soak.test" for k in range(n)]
        return ident, to, self.pool.body(chance), chance.random() < 0.05

    async def message(self, c, pipelined):
        """One transaction. Raises when the connection cannot be used any more."""
        ident, to, body, told = self.new_message()
        broken = self.chance.random() < 0.01
        ret = self.chance.choice(("HDRS", "FULL"))
        record = {"fate": "unknown", "time": None, "queue_id": None, "to": [], "told": told}
        self.records[ident] = record
        commands = [f"MAIL FROM:<soak@{mails.SENDER_DOMAIN}> RET={ret} ENVID={ident}"]
        notify = " NOTIFY=SUCCESS,FAILURE" if told else ""
        commands += [f"RCPT TO:<{a}>{notify}" for a in to] + ["DATA"]
        codes = []
        if pipelined:
            c.writer.write("".join(line + "\r\n" for line in commands).encode())
        for line in commands:
            if not pipelined:
                c.writer.write((line + "\r\n").encode())
            codes.append((await c.reply())[0])
            if codes[-1] >= 400:
                self.refused(line[:4] + f" {codes[-1]}")
        record["to"] = [a for a, code in zip(to, codes[1:-1]) if code == 250]
        if codes[-1] != 354:
            record["fate"] = "refused"
            c.writer.write(b"RSET\r\n")
            await c.reply()
            return
        content = mails.compose(ident, to, body)
        if broken:
            record["fate"] = "broken"
            c.writer.write(content[:len(content) // 2])
            raise Gone
        c.writer.write(content)
        await c.writer.drain()
        code, text = await c.reply()
        record["time"] = time.time()
        record["fate"] = "acknowledged" if code == 250 else "refused"
        if code != 250:
            self.refused("dot " + text.strip())
        found = re.search(r"\b[0-9A-Z]{26}\b", text)
        record["queue_id"] = found[0] if code == 250 and found else None

    def refused(self, what):
        self.refusals[what] = self.refusals.get(what, 0) + 1

    async def session(self, seed):
        chance = random.Random(seed)
        left = 1 if chance.random() < 0.4 else chance.randint(2, 50)
        c = Connection(self.options["address"])
        try:
            await c.open(self.options["tls"] and chance.random() < 0.2)
            pipelined = chance.random() < 0.7
            while left and await self.turns.get():
                await self.message(c, pipelined)
                left -= 1
            c.writer.write(b"QUIT\r\n")
            await c.reply()
        except (Gone, OSError, ssl.SSLError, asyncio.TimeoutError, ValueError):
            await asyncio.sleep(chance.uniform(0.02, 0.2))
        finally:
            c.close()

    async def worker(self):
        while not self.stop.is_set():
            await self.session(self.chance.random())

    async def run(self):
        workers = [asyncio.ensure_future(self.worker()) for _ in range(WORKERS)]
        await self.pace()
        await asyncio.gather(*workers)


def main(options, stop, pipe):
    """In its own process: sends until `stop`, then hands over what it knows."""
    async def run():
        sender = Sender(options, stop)
        await sender.run()
        return sender
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # writing to who has gone is no news here
    sender = asyncio.run(run())
    pipe.send({"records": sender.records, "skipped": sender.skipped, "offered": sender.number,
               "refusals": sender.refusals})
    pipe.close()
