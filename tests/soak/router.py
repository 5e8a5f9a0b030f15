"""The router under soak: the real binary, its spool on a file system of its own where that can be had."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

DISK = 3 << 30  # octets of the spool's own file system
START_S = 30
STOP_S = 60

CONFIG = """\
local relay_to_host = require "policies.relay_to_host"
return {{
  hostname = "mx.soak.test",
  spool = "{spool}",
  log = "{folder}/tern.log",
  workers = 2,
  listen = {{ "{ip}:2525" }},
  relay_from = {{ "127.0.0.0/8" }},
{tls}  queue = {{ retry = "1s,2s,4s...", host_retry = "1s", host_retry_max = "4s", lifetime = "1d",
            max_concurrency = {most}, connections = 200, per_connection = {each} }},
  domains = {{
{domains}  }},
}}
"""


class Call(http.client.HTTPConnection):
    """HTTP to the control socket."""

    def __init__(self, path):
        super().__init__("tern", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Router:
    def __init__(self, binary, folder, ip, hosts, certificate, fault_library):
        self.binary, self.folder, self.ip = binary, folder, ip
        self.hosts = hosts  # (address, port): the first is where notifications go
        self.certificate = certificate
        self.spool = os.path.join(folder, "spool")
        self.config = os.path.join(folder, "tern.lua")
        self.disk_faults = os.path.join(folder, "disk-faults")  # tests/blackbox/faults.c reads it
        self.fault_library = fault_library
        self.process = None
        self.expected = False  # it is being ended on purpose
        self.policies = 0
        self.ready_s = []
        os.mkdir(self.spool, 0o700)
        self.mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "soak",
                                       self.spool], capture_output=True).returncode == 0

    # ---- configuration ----

    def configure(self, chance):
        """Another policy each time: hosts in other orders, limits, and which host gets which domain."""
        self.policies += 1
        home, *others = self.hosts
        domains = f'    ["sender.test"] = relay_to_host {{ "{home[0]}:{home[1]}" }},\n'
        for n, (ip, port) in enumerate(others):
            to = f'"{ip}:{port}"'
            if self.policies > 1 and chance.random() < 0.3:
                ip, port = chance.choice(others)
                to += f', "{ip}:{port}"'
            if chance.random() < 0.3:
                to += f", concurrency = {chance.randint(1, 5)}"
            domains += f'    ["d{n}.soak.test"] = relay_to_host {{ {to} }},\n'
        tls = ""
        if self.certificate:
            tls = f'  tls = {{ cert = "{self.certificate[0]}", key = "{self.certificate[1]}" }},\n'
        text = CONFIG.format(spool=self.spool, folder=self.folder, ip=self.ip, tls=tls, domains=domains,
                             most=chance.choice((5, 20)), each=chance.choice((20, 100)))
        with open(self.config + ".new", "w") as f:
            f.write(text)
        os.rename(self.config + ".new", self.config)

    # ---- life ----

    def start(self):
        env = dict(os.environ)
        if os.geteuid() == 0:
            env.setdefault("TERN_USER", "root")  # it reads what the soak writes
        if self.fault_library:
            env.update(LD_PRELOAD=self.fault_library, TERN_FAULTS=self.disk_faults)
            env.setdefault("ASAN_OPTIONS", "verify_asan_link_order=0")  # where it is built with that
        began = time.monotonic()
        with open(os.path.join(self.folder, "tern.err"), "ab") as err:
            self.process = subprocess.Popen([self.binary, "run", "-c", self.config], env=env,
                                            stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                                            start_new_session=True)
        while not self.greets():
            if self.process.poll() is not None:
                raise RuntimeError(f"tern ended at its start, status {self.process.returncode}")
            if time.monotonic() - began > START_S:
                raise RuntimeError(f"tern is not there after {START_S} s")
            time.sleep(0.01)
        self.ready_s.append(time.monotonic() - began)
        self.expected = False

    def greets(self):
        with socket.socket() as s:
            s.settimeout(5)
            try:
                s.connect((self.ip, 2525))
                return s.recv(3) == b"220"
            except OSError:
                return False

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """The wall time around its death."""
        self.expected = True
        before = time.time()
        self.signal(signal.SIGKILL)
        self.process.wait(STOP_S)
        return before, time.time()

    def stop(self):
        self.expected = True
        self.signal(signal.SIGTERM)
        status = self.process.wait(STOP_S)
        if status != 0:
            raise RuntimeError(f"tern ended with status {status} after SIGTERM")

    def check(self):
        if not self.expected and self.process.poll() is not None:
            raise RuntimeError(f"tern ended by itself, status {self.process.returncode}")

    def close(self):
        self.expected = True
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(STOP_S)
        if self.mounted:
            subprocess.run(["umount", self.spool], check=False)
            self.mounted = False

    # ---- asking and telling ----

    def cli(self, *args):
        return subprocess.run([self.binary, *args, "-c", self.config], capture_output=True, text=True,
                              timeout=60, stdin=subprocess.DEVNULL)

    def call(self, method, path, **query):
        """(status, answer) of the control API."""
        text = "?" + urllib.parse.urlencode(query) if query else ""
        c = Call(os.path.join(self.spool, "control.sock"))
        try:
            c.request(method, "/v1/" + path + text)
            answer = c.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            c.close()

    def pages(self, path, field, **query):
        found, after = [], {}
        while True:
            status, answer = self.call("GET", path, limit=1000, **query, **after)
            if status != 200:
                raise RuntimeError(f"GET {path}: {status} {answer}")
            found += answer[field]
            if not answer["next"]:
                return found
            after = {"after": answer["next"]}

    def queues(self):
        return self.pages("queues", "queues")

    def queue(self, name, action):
        return self.call("POST", f"queues/{urllib.parse.quote(name, safe='')}/{action}")

    def status(self):
        return self.call("GET", "status")[1]

    # ---- what it costs ----

    def memory_kib(self):
        """(all, without the spool's pages), or None when it is not there."""
        try:
            with open(f"/proc/{self.process.pid}/smaps_rollup") as f:
                text = f.read()
            return tuple(int(re.search(rf"^{key}:\s+(\d+)", text, re.M)[1]) for key in ("Pss", "Pss_Anon"))
        except (OSError, TypeError):
            return None

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Memory(threading.Thread):
    """The most that it ever had."""

    def __init__(self, router):
        super().__init__(daemon=True)
        self.router, self.peak, self.done = router, (0, 0), threading.Event()

    def run(self):
        while not self.done.wait(0.5):
            now = self.router.memory_kib()
            if now:
                self.peak = tuple(max(a, b) for a, b in zip(self.peak, now))

    def stop(self):
        self.done.set()
        self.join()
