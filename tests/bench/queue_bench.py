#!/usr/bin/env python3
"""How long an operation on the whole queue takes, and how fresh mail fares meanwhile.

Fills a router with MESSAGES messages for DESTINATIONS dead hosts (smtp-source of Postfix), sends fresh mail
to a host that works at RATE a second, and holds everything meanwhile. Prints one JSON object: seconds of each
operation, and the milliseconds from the client's connection to the host's acceptance (p50, p99, max), idle and
during each operation.

    tests/bench/queue_bench.py [MESSAGES [DESTINATIONS [RATE]]]     (TERN_BIN: the program)
"""
import asyncio
import json
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "blackbox"))
from daemon import Tern, tern_binary  # noqa: E402
from nameserver import ScriptedDns  # noqa: E402

MESSAGES, DESTINATIONS, RATE = (int(a) for a in (sys.argv[1:] + ["200000", "1000", "50"][len(sys.argv) - 1:]))


class Host(asyncio.Protocol):
    """The smallest host: notes when the dot of each message came."""
    arrived = {}

    def connection_made(self, transport):
        self.out, self.data, self.content = transport, b"", False
        transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, more):
        self.data += more
        while b"\n" in self.data:
            line, self.data = self.data.split(b"\n", 1)
            if self.content:
                if line.startswith(b"X-Number: "):
                    self.number = int(line[10:])
                if line == b".\r":
                    self.content = False
                    self.arrived[self.number] = time.monotonic()
                    self.out.write(b"250 2.0.0 taken\r\n")
                continue
            verb = line[:4].upper()
            self.content = verb == b"DATA"
            self.out.write(b"354 go on\r\n" if self.content else b"250 sink.test\r\n")


def serve(ip, ready):
    async def run():
        server = await asyncio.get_running_loop().create_server(Host, ip, 25)
        ready.set()
        await server.serve_forever()
    asyncio.run(run())


class Fresh(threading.Thread):
    """Sends mail at a steady rate, each over a connection of its own."""

    def __init__(self, router):
        super().__init__(daemon=True)
        self.router, self.sent, self.phase, self.stop = router, {}, "idle", False

    def run(self):
        at = time.monotonic()
        while not self.stop:
            at += 1 / RATE
            time.sleep(max(0, at - time.monotonic()))
            self.one(len(self.sent))

    def one(self, number):
        began = time.monotonic()
        with socket.create_connection((self.router.ip, 25), timeout=60) as s, s.makefile("rwb") as f:
            f.readline()
            for line in (b"HELO c.test", b"MAIL FROM:<f@fresh.test>", b"RCPT TO:<u@fresh.test>", b"DATA",
                         b"Subject: fresh\r\nX-Number: %d\r\n\r\nhello\r\n." % number):
                f.write(line + b"\r\n")
                f.flush()
                f.readline()
        self.sent[number] = (self.phase, began)

    def figures(self, phase):
        ms = [1000 * (Host.arrived[n] - began) for n, (p, began) in self.sent.items()
              if p == phase and n in Host.arrived]
        if len(ms) < 2:
            return {"n": len(ms)}
        return {"n": len(ms), "p50": round(statistics.median(ms), 1),
                "p99": round(statistics.quantiles(ms, n=100)[98], 1), "max": round(max(ms), 1)}


def cpu(router):
    fields = pathlib.Path(f"/proc/{router.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tern-bench-"))
    host_ip, result = "127.77.0.1", {"messages": MESSAGES, "destinations": DESTINATIONS}
    ready = threading.Event()
    threading.Thread(target=serve, args=(host_ip, ready), daemon=True).start()
    ready.wait()
    names = ScriptedDns()
    router = Tern(folder, names.server)
    try:
        router.configure(f"""
  policies = {{ {{ name = "dead", rcpt = function() return tern.accept() end,
    route = function(ctx)
      local n = tonumber(ctx.recipient.local_part:match("^%d+"))
      if not n then return route.hosts {{ "{host_ip}" }} end
      n = n % {DESTINATIONS}
      return route.hosts {{ ("127.78.%d.%d"):format(n // 250, n % 250 + 1) }}
    end }} }},
  queue = {{ retry = "1h...", host_retry = "1h", host_retry_max = "1h" }},
""")
        router.start()
        began = time.monotonic()
        subprocess.run(["smtp-source", "-N", "-d", "-c", "-m", str(MESSAGES), "-s", "20", "-l", "1024",
                        "-f", "bulk@sender.test", "-t", "b@rcpt.test", f"{router.ip}:25"], check=True,
                       stdout=subprocess.DEVNULL)
        result["fill_s"] = round(time.monotonic() - began, 1)
        fresh = Fresh(router)
        fresh.start()
        time.sleep(8)
        for args in (["hold", "--sender", "bulk@sender.test", "--dry-run"],
                     ["hold", "--sender", "bulk@sender.test"], ["release", "--sender", "@sender.test"],
                     ["remove", "--sender", "bulk@*"]):
            phase = " ".join(args[::2] if len(args) > 3 else args[:1])
            used, began = cpu(router), time.monotonic()
            fresh.phase = phase
            op = router.json("queue", *args, timeout=600)
            took = time.monotonic() - began
            fresh.phase = "idle"
            time.sleep(1)
            result[phase] = {"seconds": round(took, 2), "changed": op["changed"], "matched": op["matched"],
                             "busy": op["busy"], "cpu_s": round(cpu(router) - used, 2),
                             "fresh_ms": fresh.figures(phase)}
        fresh.stop = True
        fresh.join()
        time.sleep(2)
        result["idle_fresh_ms"] = fresh.figures("idle")
        result["rss_mb"] = router.memory("RssAnon") // 2**20
        result["fresh_lost"] = len(fresh.sent) - len(Host.arrived)
    finally:
        router.close()
        names.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=2))


main()
