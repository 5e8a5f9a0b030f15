"""Cases in which mail or sessions wait: the commit of one message, a backlog, idle sessions."""
import concurrent.futures
import contextlib
import json
import os
import subprocess
import time
import urllib.parse

from benchlib import machine, servers
from benchlib.goals import goal, ratio
from benchlib.runs import Work, command_seconds, in_turns, log, median, run
from benchlib.tools import Control, IdleSessions, Sink, run_load

# ---- one message on an idle router ----------------------------------------------------------------


def commit(ctx):
    """From the last byte of the dot to the first of 250, one message at a time with pauses: Tern, the bare receiver,
    a receiver that commits nothing. And the same value as a bare transaction of LMDB, on the same file system."""
    count, gap, size = (20, 2, 10240) if ctx.quick else (100, 5, 10240)

    def smtp(kind):
        def once():
            port, down = machine.free_port(), machine.free_port()
            with ctx.folder(kind) as folder, contextlib.ExitStack() as stack:
                if kind == "null":
                    stack.callback(Sink(ctx.tools, "null", port, count).stop)
                else:
                    server = servers.make(kind, ctx.tools, folder, port, down)
                    stack.callback(server.stop)
                    server.start()
                machine.greeting(port)
                sent = run_load(ctx.tools, port, messages=count, sessions=1, size=size, gap=gap)
                return {"p50_us": sent["p50_us"], "p99_us": sent["p99_us"]}
        return once

    def bare():
        with ctx.folder("lmdb") as folder:
            out = subprocess.run([ctx.tools.receiver, "--spool", f"{folder}/spool", "--commits", str(count),
                                  "--size", str(size), "--gap", str(gap)], check=True, stdout=subprocess.PIPE, timeout=300)
            return {k: v for k, v in json.loads(out.stdout).items() if k.endswith("_us")}

    runs = {"tern": smtp("tern"), "transaction": bare, "bare receiver": smtp("bare"), "no commit": smtp("null")}
    measured = in_turns(ctx, runs, ctx.rounds if ctx.quick else max(ctx.rounds, 9))
    p50 = {k: m["median"]["p50_us"] for k, m in measured.items()}
    own = p50["tern"] - p50["no commit"]
    return {
        "title": "One message on an idle router: from the dot to 250",
        "work": {"size": size, "messages": count, "gap_ms": gap, "sessions": 1},
        "measured": measured,
        "goals": [
            goal("p50 from dot to 250, of a bare LMDB transaction of that size: at most 1.3",
                 ratio(p50["tern"], p50["transaction"]), 1.3),
            goal("the same without what loopback and waking up take (dot to 250 of a receiver that commits nothing): at "
                 "most 1.3", ratio(own, p50["transaction"]), 1.3),
        ],
        "over_bare_receiver": round(p50["tern"] / p50["bare receiver"], 3),
    }


# ---- a backlog ------------------------------------------------------------------------------------


def queue_names(control):
    after = ""
    while after is not None:
        page = control.ask("GET", "/v1/queues?limit=1000" + (f"&after={urllib.parse.quote(after)}" if after else ""))
        yield from (q["name"] for q in page["queues"])
        after = page["next"]


def retry_all(server, at_once=16):
    """The operator lets all queues go. Each request waits for the worker that has the queue, so several are made
    at once."""
    control = Control(server.control)
    names = list(queue_names(control))
    control.close()

    def some(part):
        mine = Control(server.control)
        for name in part:
            mine.ask("POST", f"/v1/queues/{urllib.parse.quote(name, safe='')}/retry")
        mine.close()

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        list(pool.map(some, (names[n::at_once] for n in range(at_once))))


def memory_of(pid):
    kib = machine.memories_kib(pid, ("Anonymous", "Pss"))
    return {"anonymous_mib": round(kib["Anonymous"] / 1024, 1), "pss_mib": round(kib["Pss"] / 1024, 1)}


def listing(ctx, server):
    """The first 100 messages: by the command, its start included, and what of it the router takes."""
    command = [ctx.tools.tern, "queue", "list", "--limit", "100", "--control", server.control]
    control, took = Control(server.control), []
    for _ in range(5):
        began = time.monotonic()
        assert len(control.ask("GET", "/v1/messages?limit=100")["messages"]) == 100
        took.append((time.monotonic() - began) * 1000)
    control.close()
    return {"list_100_ms": round(command_seconds(command) * 1000, 1), "list_100_request_ms": round(sorted(took)[2], 2)}


class Backlog:
    """Messages that wait for dead destinations."""

    def __init__(self, ctx, stack, size, destinations):
        self.ctx, self.size, self.destinations = ctx, size, destinations
        self.folder = stack.enter_context(ctx.folder("backlog"))
        self.port, self.sink_port = machine.free_port(), machine.free_port()
        self.server = servers.Tern(ctx.tools, self.folder, self.port, self.sink_port, destinations=destinations)
        stack.callback(lambda: self.server.stop())
        self.pid = self.server.start()
        machine.greeting(self.port)
        self.queued = 0
        self.anonymous_empty = memory_of(self.pid)["anonymous_mib"]

    def fill(self, count):
        peak = machine.Peak(self.pid, 1)
        cpu = machine.cpu_seconds(self.pid)
        sent = run_load(self.ctx.tools, self.port, messages=count, size=self.size, domains=self.destinations,
                        timeout=7200)
        self.queued += count
        row = {"queued": self.queued, "accepted_per_s": sent["per_s"],
               "cpu_s_per_1000": round((machine.cpu_seconds(self.pid) - cpu) * 1000 / count, 4)}
        time.sleep(1)
        row |= {"peak_anonymous_mib": peak.stop()["Anonymous"]} | memory_of(self.pid) | listing(self.ctx, self.server)
        row["file_bytes_per_message"] = round(os.stat(f"{self.folder}/spool/data.mdb").st_blocks * 512 / self.queued)
        log(f"   {row}")
        return row

    def restart(self):
        began = time.monotonic()
        self.server.stop()
        stopped = time.monotonic()
        self.pid = self.server.start()
        greeted = machine.greeting(self.port, 120)
        row = {"stop_s": round(stopped - began, 3), "restart_to_greeting_s": round(greeted - stopped, 3)}
        row |= listing(self.ctx, self.server)
        time.sleep(2)
        row |= memory_of(self.pid)
        log(f"   {row}")
        return row

    def drain(self):
        sink = Sink(self.ctx.tools, "null", self.sink_port, self.queued, everywhere=True)
        try:
            time.sleep(0.2)
            peak = machine.Peak(self.pid, 1)
            cpu, began = machine.cpu_seconds(self.pid), time.monotonic()
            retry_all(self.server)
            asked = time.monotonic()
            seconds = sink.wait(7200) - began
            row = {"delivered_per_s": round(self.queued / seconds, 1), "retry_all_s": round(asked - began, 2),
                   "cpu_s_per_1000": round((machine.cpu_seconds(self.pid) - cpu) * 1000 / self.queued, 4),
                   "peak_anonymous_mib": peak.stop()["Anonymous"]}
        finally:
            sink.stop()
        log(f"   {row}")
        return row


def backlog(ctx):
    count, destinations = (1000, 50) if ctx.quick else (ctx.backlog, 10000)
    size = 4096
    fresh_work = Work(count=min(count, 100_000), size=size, destinations=destinations)
    with contextlib.ExitStack() as stack:
        b = Backlog(ctx, stack, size, destinations)
        filled, restarted, drained = b.fill(count), b.restart(), b.drain()
    fresh = in_turns(ctx, {"fresh": lambda: run(ctx, "tern", fresh_work)}, 1 if ctx.quick else min(ctx.rounds, 3))["fresh"]
    share = ratio(drained["delivered_per_s"], fresh["median"]["delivered_per_s"])
    anonymous = max(filled["anonymous_mib"], restarted["anonymous_mib"])
    return {
        "title": f"{count:,} messages of 4 KiB for {destinations:,} dead destinations",
        "work": {"messages": count, "size": size, "destinations": destinations},
        "steps": {"filled": filled, "restarted": restarted, "drained": drained, "fresh": fresh["median"],
                  "empty_anonymous_mib": b.anonymous_empty},
        "goals": [
            goal("resident memory without the map's page cache, MB: at most 100", anonymous * 1.048576, 100),
            goal("restart to first greeting, s: less than 1", restarted["restart_to_greeting_s"], 1),
            goal("listing the first 100, ms: less than 50", max(filled["list_100_ms"], restarted["list_100_ms"]), 50),
            goal("delivery when the destinations return, of the rate of fresh mail: at least 0.7", share, 0.7,
                 at_most=False),
        ],
        "notes": ["Fresh mail: the same size, the same number of destinations, all up, until the last is delivered. "
                  "The drain counts from the first request to retry a queue until the last message is at the next hop."],
    }


def backlog_large(ctx):
    """Ten times as many, with small bodies: does memory grow with the queue?"""
    count, destinations = (500, 50) if ctx.quick else (ctx.backlog, 10000)
    with contextlib.ExitStack() as stack:
        b = Backlog(ctx, stack, 256, destinations)
        small = b.fill(count)
        large = b.fill(9 * count)
        restarted = b.restart()
    return {
        "title": f"{10 * count:,} messages with small bodies for {destinations:,} dead destinations",
        "work": {"messages": 10 * count, "size": 256, "destinations": destinations},
        "steps": {"filled": small, "filled ten times": large, "restarted": restarted},
        "goals": [
            goal("memory with ten times as many messages: at most 1.2 times",
                 ratio(large["anonymous_mib"], small["anonymous_mib"]), 1.2),
            goal("restart to first greeting, s: less than 1", restarted["restart_to_greeting_s"], 1),
        ],
    }


# ---- idle sessions --------------------------------------------------------------------------------


def make_certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", "/CN=mta.test", "-days", "30", "-keyout", f"{folder}/key.pem", "-out",
                    f"{folder}/cert.pem"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def idle(ctx):
    sessions = 50 if ctx.quick else 10000

    def once(tls):
        port = machine.free_port()
        with ctx.folder("idle") as folder, contextlib.ExitStack() as stack:
            make_certificate(folder)
            server = servers.Tern(ctx.tools, folder, port, machine.free_port(), tls=folder,
                                  extra="  limits = { sessions = 20000 },")
            stack.callback(server.stop)
            pid = server.start()
            machine.greeting(port)
            # one session of each kind first: what is made once is not a session's
            first = IdleSessions(ctx.tools, port, 20, tls)
            first.stop()
            time.sleep(0.3)
            before = machine.memories_kib(pid)
            cpu, began = machine.cpu_seconds(pid), time.monotonic()
            holding = IdleSessions(ctx.tools, port, sessions, tls)
            stack.callback(holding.stop)
            if holding.result.get("sessions") != sessions:
                raise SystemExit(f"bench: not all sessions were opened: {holding.result}")
            seconds = time.monotonic() - began
            time.sleep(1)
            after = machine.memories_kib(pid)
            return {"kib_per_session": round((after["Pss"] - before["Pss"]) / sessions, 3),
                    "anonymous_kib_per_session": round((after["Anonymous"] - before["Anonymous"]) / sessions, 3),
                    "opened_per_s": round(sessions / seconds),
                    "cpu_ms_per_session": round((machine.cpu_seconds(pid) - cpu) * 1000 / sessions, 4)}

    runs = {"clear": lambda: once(False), "TLS": lambda: once(True)}
    measured = in_turns(ctx, runs, 1 if ctx.quick else min(ctx.rounds, 3))
    return {
        "title": f"{sessions:,} idle sessions after EHLO",
        "work": {"sessions": sessions},
        "measured": measured,
        "goals": [
            goal("process memory of a session in clear, KiB: at most 2",
                 median(measured["clear"]["rows"], "anonymous_kib_per_session"), 2),
            goal("process memory of a session with TLS, KiB: at most 25",
                 median(measured["TLS"]["rows"], "anonymous_kib_per_session"), 25),
        ],
    }


CASES = {"commit": commit, "backlog": backlog, "idle": idle, "backlog-large": backlog_large}
