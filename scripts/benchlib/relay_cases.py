"""Cases in which mail flows: relaying in its varieties, accepting alone, workers, what a hook costs."""
import dataclasses

from benchlib.goals import cpu_goal, goal, rate_goal, ratio
from benchlib.runs import Work, count_syncs, in_turns, log, median, run

QUICK = 200  # messages of a run when only the code is tried
TERN_TIMES = 4  # a run of Tern has so many times Postfix's messages: it would be over too soon


@dataclasses.dataclass
class Relay:
    """A case of relaying against both Postfixes."""

    title: str
    count: int
    cpu_part: float | None = None
    delivered_times: float | None = None
    work: dict = dataclasses.field(default_factory=dict)
    hook: bool = False

    def __call__(self, ctx):
        def make(kind):
            count = QUICK if ctx.quick else self.count * (TERN_TIMES if kind == "tern" else 1)
            options = dict(self.work)
            if ctx.quick and options.get("destinations", 1) > 1:
                options["destinations"] = 20
            server = {"hook": True} if self.hook and kind == "tern" else {}
            work = Work(count=count, server=server, **options)
            return lambda: run(ctx, kind, work)

        measured = in_turns(ctx, {kind: make(kind) for kind in ["tern", *ctx.others()]})
        goals = []
        if self.cpu_part:
            goals.append(cpu_goal(measured, self.cpu_part))
        if self.delivered_times:
            goals.append(rate_goal(measured, "delivered_per_s", self.delivered_times))
        work = {"messages": self.count, **Work(**self.work).describe(), "hook": self.hook}
        del work["count"]
        return {"title": self.title, "work": work, "measured": measured, "goals": goals}


def accept(ctx):
    """Next hop down: what is compared is receiving and committing, with a bare receiver and with Postfix."""
    destinations = 20 if ctx.quick else 1000

    def make(kind):
        count = QUICK if ctx.quick else 2000 if kind.startswith("postfix") else 20000
        work = Work(count=count, size=4096, destinations=destinations, up=False)
        return lambda: run(ctx, kind, work)

    measured = in_turns(ctx, {kind: make(kind) for kind in ["tern", "bare", *ctx.others()]})
    tern, bare = measured["tern"]["median"], measured["bare"]["median"]
    return {
        "title": "Accepting alone: next hops down, 4 KiB, 1,000 domains, 50 sessions",
        "work": {"size": 4096, "destinations": destinations, "sessions": 50, "per_connection": 0},
        "measured": measured,
        "goals": [
            goal("accepted per second, of a bare receiver with a commit thread: at least 0.6",
                 ratio(tern["accepted_per_s"], bare["accepted_per_s"]), 0.6, at_most=False),
            rate_goal(measured, "accepted_per_s", 8),
        ],
        "notes": ["The bare receiver speaks SMTP, writes each message as one value of LMDB and syncs in a thread, for "
                  "all that have come meanwhile; it knows no queues, recipients, headers or log."],
    }


def workers(ctx):
    """One worker and two. Where load and next hop share the cores, the processor time says what two could do."""
    count = QUICK if ctx.quick else 20000

    def make(n):
        work = Work(count=count, destinations=20 if ctx.quick else 1000, server={"workers": n})
        return lambda: run(ctx, "tern", work)

    measured = in_turns(ctx, {"1 worker": make(1), "2 workers": make(2)}, max(ctx.rounds, 5))
    one, two = (measured[k]["median"] for k in ("1 worker", "2 workers"))
    capacity = {}
    for name, m in measured.items():
        n = int(name[0])
        # what the busiest thread allows: workers share, the committer and the log are one thread each
        parts = {}
        for row in m["rows"]:
            for thread, cpu in row["threads_cpu_s"].items():
                group = "worker" if thread.startswith("tern-worker") else thread
                parts.setdefault(group, []).append(cpu * 1000 / count)
        parts = {k: sum(v) / len(m["rows"]) for k, v in parts.items()}
        m["threads_cpu_s_per_1000"] = {k: round(v, 4) for k, v in parts.items()}
        limits = {k: 1000 / (v / (n if k == "worker" else 1)) for k, v in parts.items() if v > 0}
        capacity[name] = min(limits.values()) if limits else None
        m["capacity_per_s"] = round(capacity[name]) if limits else None
    return {
        "title": "One worker, two workers (10 KiB, 50 sessions, 1,000 destinations)",
        "work": {"size": 10240, "sessions": 50, "messages": count},
        "measured": measured,
        "goals": [
            goal("processor time per message, two workers over one: at most 1.1",
                 ratio(two["cpu_s_per_1000"], one["cpu_s_per_1000"]), 1.1),
            goal("throughput by processor accounting, two workers over one: at least 1.6",
                 ratio(capacity["2 workers"], capacity["1 worker"]), 1.6, at_most=False),
        ],
        "notes": ["A queue belongs to one worker, so one destination alone does not use two.",
                  "By accounting: messages per second at which the busiest thread (a worker, the committer, the log) would "
                  "use one core fully, from the processor time of each. What was delivered is bounded by the cores that "
                  "load and next hop share with the router."],
    }


def hook(ctx):
    """Messages with 1,000 recipients each, none delivered: the difference, divided, is what a recipient's hook costs."""
    recipients = 100 if ctx.quick else 1000
    count = 5 if ctx.quick else 60

    def make(with_hook):
        work = Work(count=count, size=1024, sessions=4, recipients=recipients, up=False, pipelining=True,
                    server={"hook": with_hook, "workers": 1, "extra": "  limits = { script_memory = '256M' },"})
        return lambda: run(ctx, "tern", work)

    measured = in_turns(ctx, {"without": make(False), "hook": make(True)}, ctx.rounds if ctx.quick else max(ctx.rounds, 9))
    per = {k: [r["cpu_s_per_1000"] * 1000 / recipients for r in m["rows"]] for k, m in measured.items()}
    for k, m in measured.items():
        m["median"]["cpu_us_per_recipient"] = median([{"x": x} for x in per[k]], "x")
    # the least disturbed run of each, and the median of neighbours' differences
    least = min(per["hook"]) - min(per["without"])
    paired = median([{"x": a - b} for a, b in zip(per["hook"], per["without"])], "x")
    return {
        "title": "What a 20-line route hook costs, for each recipient",
        "work": {"recipients": recipients, "messages": count, "size": 1024, "workers": 1},
        "measured": measured,
        "us_per_recipient": {"least_over_least": round(least, 3), "median_of_pairs": round(paired, 3)},
        "goals": [goal("microseconds of processor time per recipient over no hook: less than 5", paired, 5)],
    }


def spool(ctx):
    """Flushes and bytes under load, and a single message on an idle router."""
    def make(kind):
        count = QUICK if ctx.quick else 20000 if kind == "tern" else 4000
        work = Work(count=count)
        return lambda: run(ctx, kind, work)

    kinds = ["tern", *ctx.others()]
    measured = in_turns(ctx, {k: make(k) for k in kinds})
    for kind in kinds:
        syncs = count_syncs(ctx, kind, Work(count=QUICK if ctx.quick else 5000 if kind == "tern" else 1000))
        log(f"   {kind}: " + str(syncs))
        measured[kind]["syncs"] = syncs
        measured[kind]["median"]["syncs_per_message"] = syncs["per_message"]
    tern = measured["tern"]["median"]
    size = 10240
    goals = [
        goal("synchronous writes of the spool (two a commit: data, then the meta page), per message under load: at most "
             "0.25", tern["spool_syncs_per_message"], 0.25),
        goal("flushes of the device per message under load: at most 0.25", tern.get("device_flushes_per_message"), 0.25),
        goal("bytes that the committer writes, of the message's size: at most 2",
             ratio(tern.get("spool_bytes_per_message"), size), 2),
        goal("bytes written to the device, of the message's size: at most 2",
             ratio(tern.get("device_bytes_per_message"), size), 2),
    ]
    return {"title": "The spool under load (relay, 10 KiB, 50 sessions)", "work": {"size": size, "sessions": 50},
            "measured": measured, "goals": goals,
            "notes": ["Device figures contain whatever else writes to that device meanwhile."]}


MANY = "several messages per connection"
CASES = {
    "relay": Relay(f"Relay, 10 KiB, 50 sessions, {MANY}", 5000, 14, 8),
    "relay-1": Relay("Relay, 10 KiB, 50 sessions, one message per connection", 5000, 10, 5, {"per_connection": 1}),
    "accept": accept,
    "relay-1k": Relay(f"Relay, 1 KiB, {MANY}", 5000, 10, None, {"size": 1024}),
    "relay-100k": Relay(f"Relay, 100 KiB, {MANY}", 1500, 8, None, {"size": 102400}),
    "relay-hosts": Relay(f"Relay, 10 KiB, 1,000 destinations, {MANY}", 5000, 10, None, {"destinations": 1000}),
    "relay-4": Relay(f"Relay, 10 KiB, 4 sessions, {MANY}", 3000, None, 2, {"sessions": 4}),
    "hook-10k": Relay("With a 20-line Lua route hook: 10 KiB", 5000, 10, None, {}, True),
    "hook-1k": Relay("With a 20-line Lua route hook: 1 KiB", 5000, 10, None, {"size": 1024}, True),
    "hook-100k": Relay("With a 20-line Lua route hook: 100 KiB", 1500, 8, None, {"size": 102400}, True),
    "hook-hosts": Relay("With a 20-line Lua route hook: 10 KiB, 1,000 destinations", 5000, 10, None,
                        {"destinations": 1000}, True),
    "hook": hook,
    "spool": spool,
    "workers": workers,
}
