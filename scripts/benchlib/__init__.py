"""The parts of scripts/bench: machine (what things cost), tools (load and sinks), servers, runs, cases, report."""
