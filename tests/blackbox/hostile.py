"""What must hold after somebody was hostile, and where test data of other projects is looked for."""
import itertools
import os
import pathlib
import time

import pytest

from clients import Raw, message
from daemon import memory_limit

_numbers = itertools.count(1)


# The vectors once more as facts, so that nothing depends on the reference data.
FALSE_ENDS = {
    "LF.LF": b"\n.\n", "LF.CR": b"\n.\r", "CR.LF": b"\r.\n", "CR.CR": b"\r.\r",
    "LF.CRLF": b"\n.\r\n", "CR.CRLF": b"\r.\r\n", "CRLF.LF": b"\r\n.\n", "CRLF.CR": b"\r\n.\r",
    "CRLF NUL.CRLF": b"\r\n\0.\r\n", "CRLF.NUL CRLF": b"\r\n.\0\r\n",
    "CRLF.CRCRLF": b"\r\n.\r\r\n", "CRCRLF.CRCRLF": b"\r\r\n.\r\r\n",
}


class Watched:
    """A router and the host behind it, before and after an attack."""

    def __init__(self, router, host):
        self.router = router
        self.host = host
        self.alive()  # what a first message costs is none of the attack
        self._before = router.memory("RssAnon")  # the map of the spool is the system's

    def alive(self):
        """The next session is greeted within a second, and its mail arrives."""
        test_id = f"alive{next(_numbers)}"
        began = time.monotonic()
        with Raw(self.router) as raw:
            took = time.monotonic() - began
            assert raw.greeting.code == 220 and took < 1, (raw.greeting, took)
            raw.hello()
            reply = raw.mail("alive@rcpt.test", content=message(test_id))
            assert reply.code == 250, reply
        self.host.wait_ids({test_id})

    def unharmed(self, grown=16_000_000):
        """The router lives, serves, has its queue in order, and holds at most so much more memory."""
        assert self.router.running, self.router.child.stderr()
        self.alive()
        check = self.router.json("spool", "check")
        assert check["ok"], check
        more = self.router.memory("RssAnon") - self._before
        assert more < memory_limit(grown), f"{more / 1e6:.1f} MB more than before"
        self.router.check_stderr()

    def others(self):
        """What arrived besides the mail of alive()."""
        return [m for m in self.host.mails if not (m.id or "").startswith("alive")]


def shared_data(*names):
    """A file of the reference data beside the project, or the test is skipped."""
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(os.environ.get("TERN_SHARED_DATA") or root / "../shared/data")
    path = folder.joinpath(*names)
    if not path.exists():
        pytest.skip(f"no {path}: see TERN_SHARED_DATA in CONTRIBUTING.md")
    return path
