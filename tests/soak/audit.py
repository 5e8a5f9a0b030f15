"""Conservation of mail: each recipient that was acknowledged has been delivered, returned, or removed, once.

What happened more than once must be explained: the first time a host took the message and said nothing (it
broke off), or the router was killed about then, or its spool could not be written then, which it says in its log.
"""
import collections
import json

KILL_S = 1.0  # what was delivered less than this before a kill may not have been on disk as such
SHOWN = 20


class Log:
    """What the router's log says of trouble."""

    def __init__(self, path):
        self.errors = collections.Counter()
        self.examples = {}
        self.unwritten = collections.Counter()  # router's id: results that could not be written
        self.stray = 0
        with open(path, errors="replace") as f:
            for line in f:
                self.take(line)

    def take(self, line):
        if '"level":"error"' not in line and not line.startswith("{"):
            self.stray += 1
            return
        if '"level":"error"' not in line:
            return
        try:
            event = json.loads(line)
        except ValueError:  # cut off by a kill
            self.stray += 1
            return
        key = f"{event['event']}: {event.get('error') or event.get('why') or ''}"
        self.errors[key] += 1
        self.examples.setdefault(key, event)
        if event["event"] == "spool_failed":
            self.unwritten[event.get("id")] += 1


class Audit:
    def __init__(self, sent, records, faults, log, queued):
        self.sent, self.log, self.kills = sent["records"], log, faults.kills
        self.acts = collections.defaultdict(list)  # recipient: (time, what, replied, opened)
        self.refused = collections.Counter()
        self.told = collections.defaultdict(list)  # recipient: (time, action, Message-ID) of notifications
        self.queue_id = {}
        self.wrong = []
        self.queued = set(queued)
        for what, time, *rest in records:
            self.take(what, time, rest)
        for time, recipient in faults.removed:
            self.acts[recipient].append((time, "removed", True, time))
        self.perhaps_removed = set(faults.perhaps_removed)

    def take(self, what, time, rest):
        if what == "took":
            recipient, queue_id, opened, replied = rest
            self.acts[recipient].append((time, "delivered", replied, opened))
            self.queue_id[recipient] = queue_id
        elif what == "refused":
            self.refused[rest[0]] += 1
        elif what == "report":
            name, recipient, action = rest
            self.told[recipient].append((time, action, name))
            if action == "failed" and not self.same_report(recipient, name):
                self.acts[recipient].append((time, "bounced", True, time))
        else:
            self.wrong.append(rest[0])

    def same_report(self, recipient, name):
        """The notification itself came twice: it is one."""
        return sum(1 for _, a, n in self.told[recipient] if (a, n) == ("failed", name)) > 1

    def by_kill(self, time, opened):
        """Taken shortly before the kill, or behind it over a connection that the dead one had opened."""
        return any(time >= before - KILL_S and opened <= after for before, after in self.kills)

    def explained(self, act, recipient):
        """Could the router not know that this had happened?"""
        time, what, replied, opened = act
        if what == "delivered" and not replied:
            return "the host broke off after the dot"
        if self.by_kill(time, opened):
            return "the router was killed"
        if self.log.unwritten[self.queue_id.get(recipient)]:
            return "the spool could not be written"
        return None

    def run(self):
        r = self.result = collections.Counter()
        self.reasons = collections.Counter()
        self.lost, self.twice, self.odd = [], [], []
        for ident, m in self.sent.items():
            r[m["fate"]] += 1
            for recipient in m["to"]:
                self.recipient(ident, m, recipient)
        known = {a for m in self.sent.values() for a in m["to"]}
        for recipient in self.acts.keys() - known:
            self.odd.append(f"{recipient}: nobody had a 250 for it, and yet: {self.acts[recipient]}")
        return self

    def recipient(self, ident, m, recipient):
        r, acts = self.result, sorted(self.acts.get(recipient, ()))
        acknowledged = m["fate"] == "acknowledged"
        r["recipients_acknowledged"] += acknowledged
        if m["fate"] in ("broken", "refused") and acts:
            self.odd.append(f"{recipient}: {m['fate']}, and yet: {acts}")
        if acknowledged:
            kinds = [a[1] for a in acts]
            if kinds:
                r[kinds[-1]] += 1  # what became of it at last
            elif recipient in self.queued:
                r["queued"] += 1
            elif recipient in self.perhaps_removed:
                r["removed"] += 1
            else:
                self.lost.append(f"{recipient} ({m['queue_id']}) was acknowledged, and is nowhere")
        self.repeated(recipient, acts)
        self.notifications(m, recipient, acts)

    def repeated(self, recipient, acts):
        if len(acts) > 1:
            self.result["repeated"] += 1
        for act in acts[:-1]:
            why = self.explained(act, recipient)
            if why:
                self.reasons[why] += 1
            else:
                self.twice.append(f"{recipient} ({self.queue_id.get(recipient)}): {acts}")

    def notifications(self, m, recipient, acts):
        """Nobody is told of a failure that none was, and who asked to be told of a delivery is told once."""
        kinds = collections.Counter(a[1] for a in acts)
        if kinds["bounced"] and not self.refused[recipient]:
            self.odd.append(f"{recipient}: returned, and no host had refused it for good")
        success = {n for _, a, n in self.told[recipient] if a in ("relayed", "delivered", "expanded")}
        if success and (not m["told"] or not kinds["delivered"]):
            self.odd.append(f"{recipient}: {len(success)} notifications of success, told={m['told']}, {acts}")
        if len(success) > max(1, kinds["delivered"]):
            self.odd.append(f"{recipient}: {len(success)} notifications of success, {acts}")
        self.result["told_of_success"] += len(success)

    @property
    def balance(self):
        r = self.result
        return r["recipients_acknowledged"] - r["delivered"] - r["bounced"] - r["removed"] - r["queued"]

    def problems(self):
        """What makes the soak fail, in words."""
        found = []
        for title, items in (("lost", self.lost), ("unexplained duplicates", self.twice),
                             ("wrong", self.odd), ("wrong at a host", self.wrong)):
            if items:
                found.append(f"{len(items)} {title}:")
                found += ["  " + i for i in items[:SHOWN]]
        if self.balance != len(self.lost):
            found.append(f"the sum does not close: {self.balance} are missing, {len(self.lost)} lost")
        if self.result["queued"]:
            found.append(f"{self.result['queued']} recipients are still queued")
        return found
