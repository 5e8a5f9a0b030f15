"""All cases, or some, one after the other; results into one file."""
import json
import time

from benchlib import machine, relay_cases, state_cases
from benchlib.runs import log

CASES = {**relay_cases.CASES, **state_cases.CASES}
ONLY_WHEN_NAMED = {"backlog-large"}


def verdict(g):
    if g["met"] is None:
        return "not measured"
    return "met" if g["met"] else f"MISSED by {g['missed_by']:g} times"


def run_suite(ctx, names, path):
    """Each case is written as soon as it is there: one that fails takes nothing with it."""
    results = {"machine": machine.describe(ctx.dir or "/tmp", ctx.tools.tern), "quick": ctx.quick,
               "rounds": ctx.rounds, "cases": {}}
    for name in names or [n for n in CASES if n not in ONLY_WHEN_NAMED]:
        log(f"== {name}")
        began = time.monotonic()
        case = CASES[name](ctx)
        case["took_s"] = round(time.monotonic() - began, 1)
        results["cases"][name] = case
        for g in case["goals"]:
            log(f"   {g['goal']}: {g['value']} ({verdict(g)})")
        if path:
            with open(path, "w") as f:
                json.dump(results, f, indent=1)
                f.write("\n")
    return results
