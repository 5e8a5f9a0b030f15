"""One run of one server, and runs of several in turn."""
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from benchlib import machine, servers
from benchlib.tools import Sink, run_load, run_smtp_source

SETTLE = 0.2  # seconds after the last delivery, in which what belongs to it is written


class Context:
    """What all runs of one call of the program share."""

    def __init__(self, tools, args):
        self.tools = tools
        self.dir, self.keep, self.timeout = args.dir, args.keep, args.timeout
        self.quick = args.quick
        self.rounds = args.rounds
        self.perf = args.perf
        self.postfix, self.backlog = args.postfix, args.backlog

    def others(self):
        """The Postfixes to compare with."""
        return ["postfix", "postfix-tuned"] if self.postfix else []

    @contextlib.contextmanager
    def folder(self, name):
        path = tempfile.mkdtemp(prefix=f"tern-bench-{name}-", dir=self.dir)
        os.chmod(path, 0o755)
        try:
            yield path
        finally:
            if not self.keep:
                shutil.rmtree(path, ignore_errors=True)


class Work:
    """What is sent, and where it goes."""

    def __init__(self, count=5000, size=10240, sessions=50, per_connection=0, domains=1, destinations=1, up=True,
                 recipients=1, sink="null", load="load", pipelining=False, server=None):
        self.count, self.size, self.sessions, self.per_connection = count, size, sessions, per_connection
        self.domains, self.destinations, self.recipients = max(domains, destinations), destinations, recipients
        self.up, self.sink, self.load, self.pipelining = up, sink, load, pipelining
        self.server = server or {}

    def describe(self):
        return {k: v for k, v in vars(self).items() if k != "server"} | self.server

    def send(self, ctx, port):
        if self.load == "smtp-source":
            return run_smtp_source(port, self.count, self.size, self.sessions, self.per_connection, ctx.timeout)
        return run_load(ctx.tools, port, sessions=self.sessions, messages=self.count, size=self.size,
                        per_connection=self.per_connection, domains=self.domains, recipients=self.recipients,
                        pipelining=self.pipelining, timeout=ctx.timeout)


class Meter:
    """The counters of a server and of the disk, from here to done()."""

    def __init__(self, pid, folder):
        self.pid, self.folder = pid, folder
        os.sync()
        self.peak = machine.Peak(pid)
        self.first = self.read()

    def read(self):
        return (machine.cpu_seconds(self.pid), *machine.device_counters(self.folder))

    def done(self, count):
        cpu = machine.cpu_seconds(self.pid)
        peak = self.peak.stop()
        os.sync()
        device = machine.device_counters(self.folder)
        row = {
            "cpu_s_per_1000": round((cpu - self.first[0]) * 1000 / count, 4),
            "peak_pss_mib": peak["Pss"],
            "peak_anonymous_mib": peak["Anonymous"],
        }
        if device[0] is not None and self.first[1] is not None:
            row["device_bytes_per_message"] = round((device[0] - self.first[1]) / count)
        if device[1] is not None and self.first[2] is not None:
            row["device_flushes_per_message"] = round((device[1] - self.first[2]) / count, 3)
        return row


@contextlib.contextmanager
def profiling(ctx, kind, pid):
    """Samples Tern by the processor's clock, when that was asked for: hardware counters are not everywhere."""
    if not ctx.perf or kind != "tern":
        yield
        return
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2500", "-g", "-o", ctx.perf, "-p", str(pid)]
    perf = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(0.5)  # perf says nowhere that it has begun
    try:
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait(60)


def run(ctx, kind, work, prefix=()):
    """One run; the row of its figures."""
    port, sink_port = machine.free_port(), machine.free_port()
    delivers = work.up and kind != "bare"
    with ctx.folder(kind) as folder, contextlib.ExitStack() as stack:
        server = servers.make(kind, ctx.tools, folder, port, sink_port, destinations=work.destinations, **work.server)
        sink = None
        if delivers:
            sink = Sink(ctx.tools, work.sink, sink_port, work.count, everywhere=work.destinations > 1)
            stack.callback(sink.stop)
        stack.callback(server.stop)
        pid = server.start(prefix)
        machine.greeting(port)
        meter = Meter(pid, folder)
        threads, wrote = machine.cpu_of_threads(pid), machine.thread_wrote(pid, "spool-writer")
        sink_cpu = sink.cpu() if sink else 0
        with profiling(ctx, kind, pid):
            began = time.monotonic()
            sent = work.send(ctx, port)
            row = {"server": kind, "accepted_per_s": round(sent["per_s"], 1)}
            if delivers:
                row["delivered_per_s"] = round(work.count / (sink.wait(ctx.timeout) - began), 1)
                time.sleep(SETTLE)
        if delivers:
            row["sink_cpu_s_per_1000"] = round((sink.cpu() - sink_cpu) * 1000 / work.count, 4)
        row |= meter.done(work.count)
        row["load_cpu_s_per_1000"] = round(sent["cpu_s"] * 1000 / work.count, 4)
        row |= {k: sent[k] for k in ("p50_us", "p99_us") if k in sent}
        if kind == "tern":
            spool = server.status()["spool"]
            row["commits_per_message"] = round(spool["commits"] / work.count, 4)
            row["spool_syncs_per_message"] = round(spool["syncs"] / work.count, 4)
        if kind == "tern" and not prefix:
            spent = {k: v - threads.get(k, 0) for k, v in machine.cpu_of_threads(pid).items()}
            row["spool_bytes_per_message"] = round((machine.thread_wrote(pid, "spool-writer") - wrote) / work.count)
            row["threads_cpu_s"] = {k: round(v, 4) for k, v in spent.items() if v > 0.0005}
    return row


SYNCS = "fsync,fdatasync,msync,sync_file_range,syncfs,sync"


def count_calls(ctx, kind, work, options=()):
    """System calls by name, of a run of its own under strace."""
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as out:
        run(ctx, kind, work, ["strace", "-f", "-c", "-U", "calls,name", "-o", out.name, *options])
        found = (re.match(r"\s*(\d+)\s+(\w+)\s*$", line) for line in out)
        return {m.group(2): int(m.group(1)) for m in found if m and m.group(2) != "total"}


def count_syncs(ctx, kind, work):
    """Calls that flush the disk, for each message. strace stops the server only at these calls (seccomp), so that groups
    have the size that they have without it."""
    calls = count_calls(ctx, kind, work, ["--seccomp-bpf", "-e", "trace=" + SYNCS])
    return {"per_message": round(sum(calls.values()) / work.count, 4), "calls": calls}


def median(rows, key):
    values = [r[key] for r in rows if isinstance(r.get(key), (int, float))]
    return statistics.median(values) if values else None


def medians(rows):
    keys = dict.fromkeys(k for r in rows for k in r)
    return {k: m for k in keys if (m := median(rows, k)) is not None}


def log(text):
    print(text, file=sys.stderr, flush=True)


def in_turns(ctx, runs, rounds=None):
    """runs: name -> function that makes a row. Each round runs all of them, in alternating order, since machines
    drift. Returns name -> {"rows", "median"}."""
    rows = {name: [] for name in runs}
    for n in range(rounds or ctx.rounds):
        for name in list(runs) if n % 2 == 0 else reversed(list(runs)):
            row = runs[name]()
            rows[name].append(row)
            log(f"   {name}: " + json.dumps({k: v for k, v in row.items() if k != "server"}))
    return {name: {"rows": r, "median": medians(r)} for name, r in rows.items()}


def command_seconds(command, rounds=5):
    """Median time of a command that succeeds."""
    took = []
    for _ in range(rounds):
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
        took.append(time.monotonic() - began)
    return statistics.median(took)
