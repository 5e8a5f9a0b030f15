"""scripts/bench: its whole code runs in CI, with a few messages for each case; figures are not judged."""
import json
import pathlib
import shutil
import subprocess

import pytest

from daemon import tern_binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "scripts/bench"
TOOLS = pathlib.Path(tern_binary()).parents[2] / "tests/bench"

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not (TOOLS / "load").exists(), reason="the tools of tests/bench are not built beside this tern"),
]

RELAY = ["relay", "relay-1", "accept", "relay-1k", "relay-100k", "relay-hosts", "relay-4", "hook-10k", "hook-hosts"]
OTHER = ["hook", "workers", "commit", "backlog", "backlog-large", "idle"]


def bench(*arguments, check=True):
    return subprocess.run([BENCH, "--tern", tern_binary(), *arguments], check=check, capture_output=True, text=True,
                          timeout=150)


def suite(folder, *names):
    output = folder / "results.json"
    bench("--suite", *names, "--quick", "--no-postfix", "-o", output, "--dir", folder)
    return json.loads(output.read_text())


def goals_of(results):
    return [g for case in results["cases"].values() for g in case["goals"]]


def check_shape(results, names):
    assert list(results["cases"]) == names
    assert results["quick"] and results["machine"]["cores"] >= 1 and "tern" in results["machine"]["tern"]
    for name, case in results["cases"].items():
        assert case["title"] and case["goals"], name
        for g in case["goals"]:
            assert set(g) >= {"goal", "value", "limit", "at_most", "met"}, name
            assert g["met"] is None or g["value"] is not None, name
            assert (g["met"] is False) == ("missed_by" in g), name


def test_suite_of_mail_that_flows(folder):
    results = suite(folder, *RELAY)
    check_shape(results, RELAY)
    for name in RELAY:
        median = results["cases"][name]["measured"]["tern"]["median"]
        assert median["cpu_s_per_1000"] > 0 and median["accepted_per_s"] > 0, name
        assert ("delivered_per_s" in median) == (name != "accept"), name
        assert median["spool_bytes_per_message"] > 1024, name
    # against Postfix nothing can be said here; against the bare receiver it can
    assert [g["value"] is not None for g in results["cases"]["accept"]["goals"]] == [True, False]


def test_suite_of_what_waits(folder):
    results = suite(folder, *OTHER)
    check_shape(results, OTHER)
    assert all(g["value"] is not None for g in goals_of(results))
    steps = results["cases"]["backlog"]["steps"]
    assert steps["filled"]["queued"] == 1000 and steps["drained"]["delivered_per_s"] > 0


@pytest.mark.skipif(not shutil.which("strace"), reason="strace counts the flushes")
def test_suite_counts_flushes(folder):
    case = suite(folder, "spool")["cases"]["spool"]
    assert 0 < case["measured"]["tern"]["median"]["syncs_per_message"] <= 1.5


def test_report_goes_between_the_marks_of_a_page(folder):
    suite(folder, "relay", "idle")
    page = folder / "page.md"
    marks = [line for line in (ROOT / "docs/performance.md").read_text().splitlines() if line.startswith("<!--")]
    page.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n")
    bench("--report", folder / "results.json", "--into", page)
    text = page.read_text()
    assert text.startswith(f"before\n{marks[0]}\n") and text.endswith(f"{marks[1]}\nafter\n")
    assert "old" not in text and "| Tern |" in text and "KiB per session" in text
    assert text.split(marks[0])[1].split(marks[1])[0].strip() == bench("--report", folder / "results.json").stdout.strip()
    page.write_text("no marks\n")
    assert "has no marks" in bench("--report", folder / "results.json", "--into", page, check=False).stderr


def test_one_case_prints_rows_and_medians(folder):
    done = bench("--count", "200", "--rounds", "2", "--reuse", "--no-fsyncs", "--down", "--vs", "bare", "--dir", folder)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r.get("server") for r in rows] == ["tern", "bare", "bare", "tern", None]
    assert rows[-1]["tern_over_bare"]["cpu_s_per_1000"] > 0


def test_the_bare_receiver_delivers_nothing():
    done = bench("--vs", "bare", check=False)
    assert done.returncode == 2 and "--down" in done.stderr


def test_load_says_what_was_refused(tern):
    """An exit code, and the first reason in its line."""
    router = tern('  policies = { { name = "no", mail = function() return require("tern").reject() end } },\n')
    done = subprocess.run([TOOLS / "load", "--to", f"{router.ip}:{router.port}", "--messages", "3", "--sessions", "1"],
                          capture_output=True, text=True, timeout=60, check=False)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["accepted"] == 0 and result["errors"] == 3
    assert result["first_error"].startswith("550 5.7.1")


def test_names_that_are_not_there():
    done = bench("--suite", "nothing", check=False)
    assert done.returncode == 2 and "there is no case nothing" in done.stderr
