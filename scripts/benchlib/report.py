"""Tables of a suite's results, for docs/performance.md. Nothing in them is written by hand."""
import json
import sys

from benchlib import suite

BEGIN = "<!-- results: made by scripts/bench --report, do not change by hand -->"
END = "<!-- end of results -->"

# column, what it is called, how many digits
COLUMNS = [
    ("cpu_s_per_1000", "processor time, s per 1,000", 3),
    ("accepted_per_s", "accepted/s", 0),
    ("delivered_per_s", "delivered/s", 0),
    ("load_cpu_s_per_1000", "load's time", 3),
    ("syncs_per_message", "fsync, fdatasync per message", 3),
    ("commits_per_message", "commits per message", 3),
    ("spool_syncs_per_message", "synchronous writes", 3),
    ("device_flushes_per_message", "device flushes", 3),
    ("spool_bytes_per_message", "bytes by the committer", 0),
    ("device_bytes_per_message", "device bytes", 0),
    ("peak_pss_mib", "peak memory, MiB", 0),
    ("peak_anonymous_mib", "of it anonymous", 0),
    ("p50_us", "dot to 250, p50 µs", 0),
    ("p99_us", "p99", 0),
    ("cpu_us_per_recipient", "processor time, µs per recipient", 2),
    ("kib_per_session", "KiB per session", 2),
    ("anonymous_kib_per_session", "of it anonymous", 2),
    ("opened_per_s", "opened/s", 0),
    ("cpu_ms_per_session", "processor time, ms per session", 3),
]
STEPS = [
    ("queued", "messages", 0), ("accepted_per_s", "accepted/s", 0), ("delivered_per_s", "delivered/s", 0),
    ("cpu_s_per_1000", "processor time, s per 1,000", 3), ("anonymous_mib", "anonymous memory, MiB", 1),
    ("peak_anonymous_mib", "at most", 1), ("file_bytes_per_message", "octets in the file, per message", 0),
    ("restart_to_greeting_s", "start to greeting, s", 3), ("list_100_ms", "list 100, ms", 1),
    ("list_100_request_ms", "the router's part", 2),
]
NAMES = {"tern": "Tern", "postfix": "Postfix", "postfix-tuned": "Postfix tuned", "bare": "bare receiver"}


def number(value, digits):
    return "" if value is None else f"{value:,.{digits}f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(r) + " |" for r in rows]


def measured_table(rows, columns, first=""):
    used = [c for c in columns if any(c[0] in r for r in rows.values())]
    return table([first] + [c[1] for c in used],
                 [[NAMES.get(k, k)] + [number(r.get(c[0]), c[2]) for c in used] for k, r in rows.items()])


def off(g):
    """How far from the limit, in words."""
    if g["met"] is None:
        return "not measured"
    if g["met"]:
        return "reached"
    return f"**missed: {g['missed_by']:.2f} times too {'much' if g['at_most'] else 'little'}**"


def goals_table(case):
    return table(["goal", "measured", ""], [[g["goal"], number(g["value"], 3), off(g)] for g in case["goals"]])


def summary(results):
    """All goals of all cases: what a reader wants first."""
    rows = []
    for name, case in results["cases"].items():
        for g in case["goals"]:
            rows.append([f"[{name}](#{anchor(case['title'])})", g["goal"], number(g["value"], 3), off(g)])
    return table(["case", "goal", "measured", ""], rows)


def anchor(title):
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def render(results):
    m = results["machine"]
    lines = ["### The machine and the versions", "",
             f"{m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB; {m['system']}, Linux {m['kernel']}; spools on "
             f"{m['file_system']}. {m['tern']}; Postfix {m['postfix']}. {m['date']}; medians of {results['rounds']} rounds "
             f"(more where a case says so); load average at the start {m['load_at_start']}."]
    if m["load_at_start"] > 1:
        lines += ["", "**Others used this machine meanwhile.** Rates, latencies and figures of the device are theirs as well; "
                      "processor time and counts are less disturbed."]
    if results["quick"]:
        lines += ["", "**A run with --quick: it tries the code and measures nothing.**"]
    lines += ["", "### All goals", "", *summary(results)]
    for name, case in results["cases"].items():
        lines += ["", f"### {case['title']}", "", f"`scripts/bench --suite {name}`", ""]
        if "measured" in case:
            lines += measured_table({k: v["median"] for k, v in case["measured"].items()}, COLUMNS)
        if "steps" in case:
            lines += measured_table({k: v for k, v in case["steps"].items() if isinstance(v, dict)}, STEPS)
        for k, v in case.get("measured", {}).items():
            if "capacity_per_s" in v:
                parts = ", ".join(f"{t} {s:.3f}" for t, s in v["threads_cpu_s_per_1000"].items())
                lines += ["", f"{k}: by processor accounting {v['capacity_per_s']:,} messages per second; s per 1,000 by "
                              f"thread: {parts}."]
        lines += ["", *goals_table(case)]
        for note in case.get("notes", []):
            lines += ["", note]
    return "\n".join(lines) + "\n"


def merge(paths):
    """Later files replace cases of earlier ones; the machine is the first one's."""
    results = None
    for path in paths:
        with open(path) as f:
            more = json.load(f)
        if results is None:
            results = more
        else:
            results["cases"].update(more["cases"])
    order = [n for n in suite.CASES if n in results["cases"]]
    results["cases"] = {n: results["cases"][n] for n in order}
    return results


def write(paths, page):
    text = render(merge(paths))
    if not page:
        sys.stdout.write(text)
        return
    with open(page) as f:
        before, mark, rest = f.read().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        sys.exit(f"bench: {page} has no marks for results: {BEGIN} and {END}")
    with open(page, "w") as f:
        f.write(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
