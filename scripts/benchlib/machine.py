"""What a tree of processes costs, and what the machine is."""
import glob
import os
import platform
import re
import socket
import subprocess
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    """On all addresses: a next hop may listen on all of 127.0.0.0/8."""
    with socket.socket() as s:
        s.bind(("0.0.0.0", 0))
        return s.getsockname()[1]


def greeting(port, seconds=30):
    """Waits until a server greets on 127.0.0.1:port. Returns the moment."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as s:
            s.settimeout(seconds)
            if s.connect_ex(("127.0.0.1", port)) == 0 and s.recv(3) == b"220":
                return time.monotonic()
        time.sleep(0.002)
    raise SystemExit(f"bench: nothing greets on 127.0.0.1:{port} after {seconds} s")


# ---- processes ------------------------------------------------------------------------------------


def stat_of(pid, task=""):
    try:
        with open(f"/proc/{pid}{task}/stat") as f:
            text = f.read()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return {"name": text[text.index("(") + 1 : text.rindex(")")], "ppid": int(fields[1]),
            "own": int(fields[11]) + int(fields[12]), "reaped": int(fields[13]) + int(fields[14])}


def tree(root):
    """The process and all below it. A stranger that ends meanwhile does no harm."""
    children = {}
    for path in glob.glob("/proc/[0-9]*"):
        pid = int(path[6:])
        s = stat_of(pid)
        if s:
            children.setdefault(s["ppid"], []).append(pid)
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def exact_seconds(pid, task):
    try:
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            return int(f.read().split()[0]) / 1e9
    except OSError:
        return 0


def cpu_seconds(root):
    """Of the living, and of the dead that were waited for. Ticks of 10 ms are too coarse for many short-lived
    processes, so the scheduler's own nanoseconds count, unless threads have ended that they do not know."""
    total = 0
    for pid in tree(root):
        s = stat_of(pid)
        if s:
            try:
                tasks = os.listdir(f"/proc/{pid}/task")
            except OSError:
                tasks = []
            total += max(s["own"] / TICK, sum(exact_seconds(pid, t) for t in tasks)) + s["reaped"] / TICK
    return total


def cpu_of_threads(pid):
    """Seconds by the name of the thread, for one process."""
    sums = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        s = stat_of(pid, f"/task/{task}")
        if s:
            sums[s["name"]] = sums.get(s["name"], 0) + exact_seconds(pid, task)
    return sums


def memories_kib(root, fields=("Pss", "Anonymous")):
    """Sums over the tree of fields of smaps_rollup."""
    sums = dict.fromkeys(fields, 0)
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                text = f.read()
        except OSError:
            continue
        for field in fields:
            if m := re.search(rf"^{field}:\s+(\d+)", text, re.M):
                sums[field] += int(m.group(1))
    return sums


def thread_wrote(pid, name):
    """Octets that threads of that name have written. (What the kernel calls write_bytes is of no use: it counts
    whole folios of the page cache.)"""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        s = stat_of(pid, f"/task/{task}")
        if s and s["name"] == name:
            total += int(find(r"^wchar: (\d+)", f"/proc/{pid}/task/{task}/io", "0"))
    return total


class Peak(threading.Thread):
    """Watches the memory of a tree of processes: all of it (Pss), and what is not pages of files (Anonymous)."""

    def __init__(self, root, every=0.5):
        super().__init__(daemon=True)
        self.root, self.every, self.peak, self.done = root, every, {}, threading.Event()
        self.start()

    def look(self):
        for field, kib in memories_kib(self.root).items():
            self.peak[field] = max(self.peak.get(field, 0), kib)

    def run(self):
        while not self.done.wait(self.every):
            self.look()

    def stop(self):
        """MiB of each."""
        self.done.set()
        self.join()
        self.look()
        return {field: round(kib / 1024, 1) for field, kib in self.peak.items()}


# ---- the disk -------------------------------------------------------------------------------------


def device_of(path):
    """Name of the whole device that holds path, such as vda; None: not a device of its own."""
    dev = os.stat(path).st_dev
    link = os.path.realpath(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}")
    if not os.path.exists(link):
        return None
    name = os.path.basename(link)
    return os.path.basename(os.path.dirname(link)) if os.path.exists(f"{link}/partition") else name


def device_counters(path):
    """Bytes written to and flushes of the device under path; None where the kernel does not say. Whoever else
    writes there meanwhile is in it."""
    name = device_of(path)
    if not name:
        return None, None
    with open("/proc/diskstats") as f:
        for line in f:
            fields = line.split()
            if fields[2] == name:
                return int(fields[9]) * 512, int(fields[18]) if len(fields) > 18 else None
    return None, None


# ---- the machine ----------------------------------------------------------------------------------


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except OSError:
        return ""


def find(pattern, path, default="?"):
    try:
        with open(path) as f:
            m = re.search(pattern, f.read(), re.M)
    except OSError:
        m = None
    return m.group(1).strip() if m else default


def describe(folder, tern):
    memory = find(r"^MemTotal:\s+(\d+)", "/proc/meminfo", "0")
    return {
        "processor": find(r"^model name\s*: (.*)", "/proc/cpuinfo", platform.machine()),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "kernel": platform.release(),
        "system": find(r'^PRETTY_NAME="(.*)"', "/etc/os-release"),
        "file_system": output_of("findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", folder).replace("\n", " "),
        "load_at_start": round(os.getloadavg()[0], 2),
        "tern": output_of(tern, "--version"),
        "postfix": output_of("/usr/sbin/postconf", "-d", "-h", "mail_version"),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
