"""The program under test: configured, started, watched through its log, ended."""
import functools
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

from processes import Child, run
from addresses import fresh_ip

HOSTNAME = "mx.test"
PRELUDE = """\
local tern = require "tern"
local route = require "tern.route"
"""
SANITIZER = ("AddressSanitizer", "LeakSanitizer", "UndefinedBehaviorSanitizer", "runtime error:",
             "ThreadSanitizer")


def tern_binary():
    default = pathlib.Path(__file__).resolve().parents[2] / "build/release/core/daemon/tern"
    return os.environ.get("TERN_BIN") or str(default)


@functools.lru_cache
def sanitized():
    """The binary is one with the address or the thread sanitizer."""
    binary = pathlib.Path(tern_binary()).read_bytes()
    return b"__asan_init" in binary or b"__tsan_init" in binary


def memory_limit(octets):
    """What memory may be at most: sanitizers take several times as much, and give it back late."""
    return octets * 8 if sanitized() else octets


class Log:
    """The events that the daemon wrote so far; readers can wait for one."""

    def __init__(self):
        self.events = []
        self.stray = []  # lines that are no JSON
        self._changed = threading.Condition()

    def take(self, line):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        with self._changed:
            if isinstance(event, dict) and "event" in event:
                self.events.append(event)
            else:
                self.stray.append(line)
            self._changed.notify_all()

    def all(self, name=None, **fields):
        with self._changed:
            return [e for e in self.events if _matches(e, name, fields)]

    def wait(self, name, count=1, timeout=15, **fields):
        """The count-th event of that name (or of one of several) with those fields."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = [e for e in self.events if _matches(e, name, fields)]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"the log has {len(found)} of {count} events {name} {fields} after "
                        f"{timeout} s; its end:\n{self.tail()}")
                self._changed.wait(left)

    def tail(self, n=30):
        return "\n".join(json.dumps(e) for e in self.events[-n:]) + "\n" + "\n".join(self.stray[-n:])


def _matches(event, name, fields):
    names = (name,) if isinstance(name, str) else name
    if names is not None and event["event"] not in names:
        return False
    return all(v(event.get(k)) if callable(v) else event.get(k) == v for k, v in fields.items())


class Tern:
    """One daemon with a folder, a configuration and a loopback address of its own."""

    def __init__(self, folder, nameserver, certificates=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "tern.lua"
        self.spool = self.folder / "spool"
        self.nameserver = nameserver
        self.certificates = certificates
        self.ip = fresh_ip()
        self.port = 25
        self.log = Log()
        self.child = None
        self.starts = 0
        self.env = {}  # added to the environment of the daemon

    @property
    def address(self):
        return f"{self.ip}:{self.port}"

    # ---- configuration ----

    def configure(self, fields="", prelude=""):
        """Writes the configuration: what every test needs, then `fields`, which win."""
        tls = ""
        if self.certificates:
            c = self.certificates
            tls = f'  tls = {{ cert = "{c.cert}", key = "{c.key}", ca = "{c.ca}" }},\n'
        self.write(f"""\
{PRELUDE}{prelude}
return {{
  hostname = "{HOSTNAME}",
  spool = "{self.spool}",
  listen = {{ "{self.address}" }},
  dns = {{ servers = {{ "{self.nameserver}" }}, timeout = "3s" }},
{tls}{fields}
}}
""")

    def write(self, text, name="tern.lua"):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    # ---- life ----

    def start(self, ready=True, wrapper=(), **options):
        """wrapper: a command in front of it."""
        assert self.child is None or not self.child.running
        self.starts += 1
        self.log = Log()
        # of no meaning without the address sanitizer: with it, freed memory is soon used again
        env = {"ASAN_OPTIONS": "quarantine_size_mb=16", **os.environ, **self.env}
        self.child = Child([*wrapper, tern_binary(), "run", "-c", self.config], self.log.take,
                           cwd=self.folder, env=env, **options)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=20):
        deadline = time.monotonic() + timeout
        while not self.log.all("start"):
            if not self.child.running:
                status = self.child.wait(5)
                raise AssertionError(f"tern ended with {status}\n{self.child.stderr()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"tern is not ready\n{self.child.stderr()}\n{self.log.tail()}")
            time.sleep(0.005)

    @property
    def running(self):
        return self.child is not None and self.child.running

    def stop(self, timeout=20):
        """SIGTERM: it must end in order. The seconds that took."""
        began = time.monotonic()
        self.child.signal(signal.SIGTERM)
        try:
            status = self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not stopped within {timeout} s\n{self.log.tail()}") from None
        took = time.monotonic() - began
        assert status == 0, f"exit status {status}\n{self.child.stderr()}\n{self.log.tail()}"
        self.check_stderr()
        return took

    def kill9(self):
        self.child.signal(signal.SIGKILL)
        self.child.wait(10)
        self.check_stderr()

    def restart(self):
        self.stop()
        return self.start()

    def peak_memory(self):
        """The most memory that it has had so far, in octets."""
        return self.memory("VmHWM")

    def memory(self, which="VmRSS"):
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.split(which + ":")[1].split()[0]) * 1024

    def check_stderr(self):
        text = self.child.stderr()
        assert not any(s in text for s in SANITIZER), text

    def close(self):
        """At the end of a test: in order if it still runs, else it must not have crashed."""
        if self.child is None:
            return
        try:
            if self.child.running:
                self.stop()
            else:
                self.check_stderr()
                status = self.child.process.returncode
                assert status >= 0 or status == -signal.SIGKILL, f"ended by signal {-status}"
        finally:
            if self.child.running:
                self.child.process.kill()
                self.child.wait(10)

    # ---- the command line ----

    def cli(self, *args, timeout=20, **options):
        """`tern ARGS -c FILE`: the CompletedProcess."""
        return run([tern_binary(), *args, "-c", self.config], timeout=timeout, cwd=self.folder,
                   **options)

    def json(self, *args, **options):
        """`tern ARGS --json`, which must succeed: what it printed."""
        done = self.cli(*args, "--json", **options)
        assert done.returncode == 0, (done.args, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def ok(self, *args, **options):
        """`tern ARGS`, which must succeed: its stdout."""
        done = self.cli(*args, **options)
        assert done.returncode == 0, (done.args, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def reload(self):
        return self.ok("reload")

    def queues(self):
        return self.json("queue")["queues"]

    def queued(self):
        """What waits: one entry for each recipient."""
        return self.json("queue", "list")["messages"]

    def wait_for(self, name, count=1, timeout=15, **fields):
        return self.log.wait(name, count, timeout, **fields)


def to_hosts(*hosts, domain="*", options=""):
    """The `domains` field that sends all mail (or that of one domain) to these hosts."""
    targets = ", ".join(f'"{getattr(h, "address", h)}"' for h in hosts)
    return f'  domains = {{ ["{domain}"] = route.hosts {{ {targets}, {options} }} }},\n'
