"""scripts/soak for a short while: the accounts close, and it would notice if they did not."""
import collections
import json
import pathlib
import random
import sys

import pytest

from daemon import tern_binary
from processes import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/soak"))

import audit  # noqa: E402
import mails  # noqa: E402


@pytest.mark.heavy
def test_a_short_soak(folder):
    results = folder / "soak.json"
    done = run([ROOT / "scripts/soak", "--seconds", "20", "--seed", "11", "--rate", "100", "--tern", tern_binary(),
                "--json", results], timeout=170)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    r = json.loads(results.read_text())
    assert r["acknowledged"] > 100 and r["delivered"] > 100
    assert r["recipients_acknowledged"] == r["delivered"] + r.get("bounced", 0) + r.get("removed", 0)
    assert r["lost"] == 0 and r["duplicates_unexplained"] == 0 and not r["problems"]


class Faults:
    kills = [(100.0, 100.1)]
    removed = [(50.0, "m4-0@d0.soak.test")]
    perhaps_removed = []


class Log:
    unwritten = collections.Counter({"01SPOOLFAILED": 1})


def audit_of(records, fate="acknowledged", queued=()):
    sent = {f"m{n}": {"fate": fate, "time": 1.0, "queue_id": "01X", "to": [f"m{n}-0@d0.soak.test"], "told": False}
            for n in range(1, 5)}
    return audit.Audit({"records": sent}, records, Faults, Log, queued).run()


def took(n, time, replied=True, queue_id="01X", opened=None):
    return ["took", time, f"m{n}-0@d0.soak.test", queue_id, opened or time - 1, replied]


ALL_WELL = [took(1, 10), took(2, 11), ["refused", 12, "m3-0@d0.soak.test", "550"],
            ["report", 13, "<a@mx>", "m3-0@d0.soak.test", "failed"]]


def test_the_accounts_close_when_all_is_well():
    a = audit_of(ALL_WELL)
    assert a.problems() == []
    assert (a.result["delivered"], a.result["bounced"], a.result["removed"]) == (2, 1, 1)


@pytest.mark.parametrize("records, problem", [
    (ALL_WELL[1:], "lost"),
    (ALL_WELL + [took(1, 60)], "unexplained duplicates"),
    (ALL_WELL + [took(3, 60)], "unexplained duplicates"),
    ([took(1, 103), took(1, 110), *ALL_WELL[1:]], "unexplained duplicates"),
    ([r for r in ALL_WELL if r[0] != "refused"], "no host had refused it"),
    (ALL_WELL + [["report", 14, "<b@mx>", "m1-0@d0.soak.test", "failed"]], "unexplained duplicates"),
    (ALL_WELL + [["report", 14, "<b@mx>", "m1-0@d0.soak.test", "relayed"]], "notifications of success"),
    (ALL_WELL + [took(9, 60)], "nobody had a 250"),
    (ALL_WELL + [["wrong", 60, "m1 is damaged"]], "m1 is damaged"),
])
def test_the_audit_finds(records, problem):
    assert problem in "\n".join(audit_of(records).problems())


def test_the_audit_finds_what_is_still_queued():
    assert "still queued" in "\n".join(audit_of(ALL_WELL[1:], queued=["m1-0@d0.soak.test"]).problems())


def test_the_audit_finds_what_was_refused_or_broken_off_and_came_all_the_same():
    for fate in ("refused", "broken"):
        assert f"{fate}, and yet" in "\n".join(audit_of(ALL_WELL, fate).problems())


@pytest.mark.parametrize("first, why", [
    (took(1, 10, replied=False), "the host broke off after the dot"),
    (took(1, 99.5), "the router was killed"),
    (took(1, 103, opened=90), "the router was killed"),
    (took(1, 10, queue_id="01SPOOLFAILED"), "the spool could not be written"),
])
def test_duplicates_that_are_explained(first, why):
    a = audit_of([first, took(1, 200, queue_id=first[3]), *ALL_WELL[1:]])
    assert a.problems() == []
    assert a.reasons == {why: 1}


def test_a_damaged_message_is_noticed():
    body = mails.Pool(1).body(random.Random(1))
    content = mails.compose("m7", ["m7-0@d0.soak.test"], body)[:-3]
    received = b"Received: from x\r\n by mx.soak.test\r\n id 01M8P47X9C003NN72QCJ99A9N4\r\n for y;\r\n"
    assert mails.decompose(received + content) == ("m7", True, "01M8P47X9C003NN72QCJ99A9N4")
    assert mails.decompose(received + content[:-100])[1] is False
    assert mails.decompose(received + content.replace(b"a", b"b", 500))[1] is False
