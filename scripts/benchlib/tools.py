"""Load generators and next hops."""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

from benchlib.machine import cpu_seconds

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Tools:
    """Where the programs are; the same for the whole run."""

    def __init__(self, tern):
        self.tern = tern
        build = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(tern))))
        self.load = os.path.join(build, "tests/bench/load")
        self.receiver = os.path.join(build, "tests/bench/bare_receiver")

    def missing(self):
        return [p for p in (self.tern, self.load, self.receiver) if not os.access(p, os.X_OK)]


def stays_itself():
    """The environment of a router: started by root it stays root, and reads what root wrote."""
    root = {"TERN_USER": "root"} if os.geteuid() == 0 else {}
    return {**root, **os.environ}


def stop(process, seconds=30):
    """Ends what we started, and waits for it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Control(http.client.HTTPConnection):
    """The control API of a running Tern."""

    def __init__(self, path):
        super().__init__("tern", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, method, path):
        self.request(method, path)
        return json.loads(self.getresponse().read())


# ---- load -----------------------------------------------------------------------------------------


def load_command(tools, port, **options):
    command = [tools.load, "--to", str(port)]
    for key, value in options.items():
        name = "--" + key.replace("_", "-")
        if value is True:
            command.append(name)
        elif value is not None and value is not False:
            command += [name, str(value)]
    return command


def run_load(tools, port, **options):
    """Sends mail and returns what load says. Raises when not all was accepted."""
    timeout = options.setdefault("timeout", 300)
    done = subprocess.run(load_command(tools, port, **options), stdout=subprocess.PIPE, text=True,
                          timeout=timeout + 30, check=False)
    result = json.loads(done.stdout) if done.stdout else {}
    if done.returncode != 0:
        raise SystemExit(f"bench: not all mail was accepted: {result or done.returncode}")
    return result


def run_smtp_source(port, messages, size, sessions, per_connection, timeout):
    command = ["/usr/sbin/smtp-source", "-4", "-l", str(size), "-s", str(sessions), "-m", str(messages),
               "-M", "client.test", "-f", "from@client.test", "-t", "rcpt@dest-000001.test", f"127.0.0.1:{port}"]
    if per_connection != 1:
        command.insert(1, "-d")
    began, cpu = time.monotonic(), os.times()
    subprocess.run(command, check=True, timeout=timeout)
    seconds, now = time.monotonic() - began, os.times()
    spent = now.children_user + now.children_system - cpu.children_user - cpu.children_system
    return {"accepted": messages, "seconds": seconds, "per_s": messages / seconds, "cpu_s": spent}


class IdleSessions:
    """Holds sessions open, between EHLO and nothing."""

    def __init__(self, tools, port, sessions, starttls, timeout=120):
        self.process = subprocess.Popen(
            load_command(tools, port, sessions=sessions, idle=True, starttls=starttls, timeout=timeout),
            stdout=subprocess.PIPE, text=True)
        self.result = json.loads(self.process.stdout.readline() or "{}")

    def stop(self):
        stop(self.process)
        self.process.stdout.close()


# ---- next hops ------------------------------------------------------------------------------------


class Sink:
    """A next hop that takes everything; wait() returns when so many messages are there."""

    def __init__(self, tools, kind, port, count, everywhere=False):
        self.kind, self.count = kind, count
        null = subprocess.DEVNULL
        if kind == "null":
            command = [tools.receiver, "--null", "--port", str(port), "--count", str(count)]
            if everywhere:
                command.append("--any")
        elif kind == "tern":
            command = [tools.tern, "sink", "--listen", f"127.0.0.1:{port}", "--print", "summary"]
        else:
            command = ["/usr/sbin/smtp-sink", "-4", "-u", "nobody", "-m", "4000", "-M", str(count),
                       f"127.0.0.1:{port}", "2048"]
        pipe = null if kind == "smtp-sink" else subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=null)
        if kind != "smtp-sink":
            os.set_blocking(self.process.stdout.fileno(), False)
        self.lines = 0

    def here(self):
        """All of it has come."""
        if self.kind == "smtp-sink":
            return self.process.poll() is not None
        self.lines += (self.process.stdout.read() or b"").count(b"\n")
        return self.lines >= (1 if self.kind == "null" else self.count)

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while not self.here():
            if self.process.poll() not in (None, 0):
                raise SystemExit("bench: the next hop has ended: perhaps its port was taken meanwhile")
            if time.monotonic() > end:
                raise SystemExit(f"bench: the next hop did not get all {self.count} messages in {seconds} s")
            time.sleep(0.005)
        return time.monotonic()

    def cpu(self):
        return cpu_seconds(self.process.pid) if self.process.poll() is None else 0

    def stop(self):
        stop(self.process)
        if self.process.stdout:
            self.process.stdout.close()
