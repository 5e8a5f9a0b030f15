"""What a service manager gives and gets: sockets, notifications, a watchdog; and the unit for systemd."""
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket

import pytest

from addresses import fresh_ip
from clients import send
from daemon import to_hosts
from processes import run
from waiting import until

UNITS = pathlib.Path(__file__).resolve().parents[2] / "scripts/systemd"

needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


# ---- sockets -----------------------------------------------------------------------------------

class Manager:
    """Holds listening sockets, and starts daemons with them as systemd does."""

    def __init__(self, names):
        self.sockets = {}
        for name, (ip, port) in names.items():
            self.sockets[name] = socket.create_server((ip, port))

    def start(self, router, ready=True):
        """The sockets become descriptors 3, 4..."""
        high = [fcntl.fcntl(s, fcntl.F_DUPFD, 50) for s in self.sockets.values()]
        moves = " ".join(f"{3 + n}<&{fd} {fd}<&-" for n, fd in enumerate(high))
        router.env = {**router.env, "LISTEN_FDS": str(len(high)), "LISTEN_FDNAMES": ":".join(self.sockets)}
        try:
            router.start(ready, wrapper=["bash", "-c", f'export LISTEN_PID=$$; exec "$@" {moves}', "bash"],
                         pass_fds=high)
        finally:
            for fd in high:
                os.close(fd)

    def close(self):
        for s in self.sockets.values():
            s.close()


@pytest.fixture
def manager(closing):
    return lambda names: closing(Manager(names))


def refused(router):
    assert router.child.wait(20) == 78
    return router.child.stderr()


def test_sockets_of_the_service_manager_are_used(new_tern, sink, manager):
    host, elsewhere = sink(), fresh_ip()
    router = new_tern(to_hosts(host))
    router.configure(to_hosts(host) + f'  listen = {{ "{router.address}",'
                     f' {{ "{router.ip}:2600", socket = "second" }} }},\n')
    both = manager({"first": (router.ip, 25), "second": (elsewhere, 2601)})
    both.start(router)
    assert set(router.json("status")["listen"]) == {router.address, f"{elsewhere}:2601"}
    send(router, test_id="one")
    router.ip, before = elsewhere, router.ip
    router.port = 2601
    send(router, test_id="two")
    host.wait_ids({"one", "two"})
    router.ip, router.port = before, 25
    router.reload()
    send(router, test_id="three")
    host.wait_ids({"three"})


def test_no_client_is_turned_away_by_a_restart(new_tern, sink, manager):
    host = sink()
    router = new_tern(to_hosts(host))
    sockets = manager({"smtp": (router.ip, 25)})
    sockets.start(router)
    router.stop()
    with socket.create_connection((router.ip, 25), timeout=20) as waiting:
        sockets.start(router)
        assert waiting.recv(100).startswith(b"220 ")


def test_a_socket_without_listener_is_told(new_tern, manager):
    router = new_tern()
    sockets = manager({"smtp": (router.ip, 25), "forgotten": (router.ip, 2600)})
    sockets.start(router, ready=False)
    said = refused(router)
    assert f"'forgotten' on {router.ip}:2600" in said and "'listen'" in said


def test_a_listener_without_its_socket_is_told(new_tern, manager):
    router = new_tern()
    router.configure(f'  listen = {{ "{router.address}", {{ "{router.ip}:2600", socket = "submission" }} }},\n')
    manager({"smtp": (router.ip, 25)}).start(router, ready=False)
    assert "no socket named 'submission'" in refused(router)


def test_a_listener_beside_the_sockets_is_opened(new_tern, sink, manager):
    host = sink()
    router = new_tern()
    router.configure(to_hosts(host) + f'  listen = {{ "{router.address}", "{router.ip}:2600" }},\n')
    manager({"smtp": (router.ip, 25)}).start(router)
    router.port = 2600
    send(router, test_id="one")
    host.wait_ids({"one"})


def test_a_reload_keeps_its_sockets(new_tern, manager):
    router = new_tern()
    manager({"smtp": (router.ip, 25)}).start(router)
    router.configure(f'  listen = {{ "{router.ip}:2600" }},\n')
    done = router.cli("reload")
    assert done.returncode == 78 and "'smtp'" in done.stderr, done.stderr


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
def test_the_real_activator(new_tern, sink):
    """It starts the daemon at the first connection."""
    host = sink()
    router = new_tern(to_hosts(host))
    router.configure(to_hosts(host) + f'  listen = {{ {{ "{router.address}", socket = "smtp" }} }},\n')
    router.start(ready=False, wrapper=["systemd-socket-activate", "-l", router.address, "--fdname=smtp", "-E",
                                       f"TERN_USER={os.environ.get('TERN_USER', '')}"])
    until(lambda: any("Listening on" in line for line in router.child.err), "the activator listens")
    send(router, test_id="one")
    host.wait_ids({"one"})


# ---- notifications -----------------------------------------------------------------------------

class Notified:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(20)
        self.env = {"NOTIFY_SOCKET": str(path)}

    def next(self):
        return self.socket.recv(1000).decode().split("\n")[0]

    def wait(self, what):
        while self.next() != what:
            pass

    def close(self):
        self.socket.close()


def test_it_says_when_it_is_ready_reloads_and_stops(new_tern, folder, closing):
    manager = closing(Notified(folder / "notify"))
    router = new_tern()
    router.env = manager.env
    router.start()
    assert manager.next() == "READY=1"
    router.reload()
    assert [manager.next(), manager.next()] == ["RELOADING=1", "READY=1"]
    router.stop()
    assert manager.next() == "STOPPING=1"


def test_signs_of_life(new_tern, folder, closing):
    manager = closing(Notified(folder / "notify"))
    router = new_tern("  workers = 3,\n")
    router.env = {**manager.env, "WATCHDOG_USEC": "300000"}
    router.start()
    for _ in range(4):
        manager.wait("WATCHDOG=1")
    router.child.signal(signal.SIGSTOP)
    manager.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        while True:
            manager.next()
    router.child.signal(signal.SIGCONT)
    manager.socket.settimeout(20)
    manager.wait("WATCHDOG=1")


# ---- the unit ----------------------------------------------------------------------------------

@needs_analyze
def test_the_unit_is_hardened():
    """An exposure of 2.0 or less."""
    done = run(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20",
                UNITS / "tern.service"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(re.search(r"exposure level for tern.service: ([0-9.]+)", done.stdout).group(1)) <= 2.0


@needs_analyze
def test_the_units_are_understood(folder):
    """With the program where it is looked for, systemd has nothing to say about them."""
    for name in ("tern.service", "tern.socket"):
        text = (UNITS / name).read_text()
        (folder / name).write_text(re.sub(r"^(Exec\w+=)tern", r"\1/bin/true", text, flags=re.M))
    done = run(["systemd-analyze", "verify", "--man=no", folder / "tern.service", folder / "tern.socket"])
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stderr.splitlines() if "tern." in line]
    assert not ours, ours


def groups():
    """The sets of system calls: name -> members."""
    found, name = {}, None
    for line in run(["systemd-analyze", "syscall-filter", "--no-pager"]).stdout.splitlines():
        word = line.strip()
        if line.startswith("@"):
            name = word
            found[name] = set()
        elif name and word and not word.startswith("#"):
            found[name].add(word)
    return found


def members(sets, name):
    if not name.startswith("@"):
        return {name}
    return set().union(*(members(sets, m) for m in sets[name]))


@needs_analyze
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_the_units_filter_lets_the_router_start(new_tern, sink, folder):
    """systemd's list is wider than the router's own, and must hold what it does to get there."""
    sets = groups()
    allowed = set()
    for line in (UNITS / "tern.service").read_text().splitlines():
        if not line.startswith("SystemCallFilter="):
            continue
        words = line.split("=", 1)[1]
        named = set().union(*(members(sets, w) for w in words.lstrip("~").split()))
        allowed = allowed - named if words.startswith("~") else allowed | named
    host = sink()
    router = new_tern(to_hosts(host))
    trace = folder / "trace"
    router.env = {"ASAN_OPTIONS": "detect_leaks=0"}  # which asks for a process that nobody else traces
    router.start(wrapper=["strace", "-D", "-f", "-qq", "-o", trace])
    send(router, test_id="one")
    host.wait_ids({"one"})
    router.reload()
    router.stop()
    calls = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", trace.read_text(), flags=re.M))
    assert {"execve", "capset"} <= calls or os.geteuid() == 0
    # root's own, which User= of the unit has no use for
    assert calls - allowed <= {"chown", "fchown", "lchown"}, calls - allowed
