"""Waiting for a condition, with a deadline."""
import time


def until(condition, what, timeout=15, interval=0.02):
    """Calls condition until it gives something true, and returns that. Fails after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(interval)


def never(condition, what, during):
    """Watches for `during` s that a condition does not become true."""
    deadline = time.monotonic() + during
    while time.monotonic() < deadline:
        assert not condition(), what
        time.sleep(0.02)
