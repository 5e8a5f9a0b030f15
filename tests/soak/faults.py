"""What happens to the router meanwhile: one fault after the other, in random order, each as often as the
others. What each one did, and when, is kept for the audit."""
import os
import random
import signal
import time

ALL = ("kill", "term", "reload", "operator", "full", "eio", "stop")


class Faults:
    def __init__(self, router, names, seed, seconds):
        self.router = router
        self.chance = random.Random(seed * 13 + 5)
        self.names = [n for n in names if n != "full" or router.mounted]
        self.filler = os.path.join(router.spool, "filler")
        self.bag = []
        self.patience = max(0.5, min(4.0, seconds / 60))  # how long a fault lasts, and the pause after it
        self.count = {}
        self.kills_under_way = None
        self.kills = []  # (before, after): wall time
        self.removed = []  # (time, recipient)
        self.perhaps_removed = []  # the command got no answer
        self.notes = []

    def step(self):
        """One fault, from its begin to its end."""
        if not self.names:
            return
        if not self.bag:
            self.bag = list(self.names)
            self.chance.shuffle(self.bag)
        name = self.bag.pop()
        self.count[name] = self.count.get(name, 0) + 1
        getattr(self, name)()

    def mend(self):
        """Whatever was under way when it was broken off."""
        for path in (self.filler, self.router.disk_faults):
            if os.path.exists(path):
                os.unlink(path)
        if self.router.process.poll() is None and not self.router.expected:
            self.router.signal(signal.SIGCONT)
            return
        if self.router.process.poll() is None:
            self.router.process.wait(60)
        if self.kills_under_way:
            self.kills.append((self.kills_under_way, time.time()))
        self.router.start()

    def last(self):
        time.sleep(self.patience * self.chance.uniform(0.5, 1.5))

    def note(self, text):
        self.notes.append(text)

    def kill(self):
        self.kills_under_way = time.time()
        self.kills.append(self.router.kill())
        self.kills_under_way = None
        self.router.start()

    def term(self):
        self.router.stop()
        self.router.start()

    def reload(self):
        self.router.configure(self.chance)
        before = self.router.status()["generation"]
        self.router.signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while self.router.status()["generation"] == before:
            if time.monotonic() > end:
                raise RuntimeError("SIGHUP: the new configuration was not loaded within 20 s")
            time.sleep(0.05)

    def stop(self):
        self.router.signal(signal.SIGSTOP)
        self.last()
        self.router.signal(signal.SIGCONT)

    def eio(self):
        with open(self.router.disk_faults, "w") as f:
            f.write("sync EIO\n")
        self.last()
        os.unlink(self.router.disk_faults)

    def full(self):
        with open(self.filler, "w") as f:
            block = 64 << 20
            at = 0
            while block >= 4096:
                try:
                    os.posix_fallocate(f.fileno(), at, block)
                    at += block
                except OSError:
                    block //= 2
        self.last()
        os.unlink(self.filler)

    def operator(self):
        """Somebody at the command line: one queue is held, looked through, let go."""
        queues = [q["name"] for q in self.router.queues() if "sender.test" not in q["name"]]
        if not queues:
            return
        name = self.chance.choice(queues)
        status, answer = self.router.queue(name, "hold")
        if status != 200:
            self.note(f"hold {name}: {status} {answer}")
            return
        self.last()
        if self.chance.random() < 0.7:
            self.remove_some(name)
        done = self.router.cli("queue", "release", "--queue", name)
        if done.returncode != 0:
            self.note(f"queue release: {done.returncode} {done.stderr}")
        status, answer = self.router.queue(name, "retry")
        if status != 200:
            self.note(f"retry {name}: {status} {answer}")

    def remove_some(self, name):
        """Of mail in a queue that is held, so that it is known what was there."""
        status, answer = self.router.call("GET", "messages", queue=name, limit=100)
        if status != 200:
            return
        found = sorted({entry["id"] for entry in answer["messages"] if entry["sender"]})
        for ident in self.chance.sample(found, min(3, len(found))):
            there = self.recipients_of(ident)
            status, answer = self.router.call("POST", f"messages/{ident}/remove")
            if status == 200 and answer["affected"] == len(there):
                self.removed += [(time.time(), r) for r in there]
            elif status != 404:
                self.perhaps_removed += there

    def recipients_of(self, ident):
        status, answer = self.router.call("GET", f"messages/{ident}", limit=1000)
        return [r["address"] for r in answer["recipients"]] if status == 200 else []
