"""What the documentation shows is so: its files are loaded and its commands print what it says."""
import pathlib
import socket

import pytest

from addresses import fresh_ip
from daemon import tern_binary
from pages import Command, File, steps
from processes import Child, run
from waiting import until

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
LISTEN = "127.0.0.1:2525"


class Reader:
    """Follows a page in a folder. Its router listens where nobody else does."""

    def __init__(self, folder, closing):
        self.folder, self.closing, self.ip = folder, closing, fresh_ip()
        self.router = None

    def at_home(self, text):
        return text.replace(LISTEN, f"{self.ip}:2525")

    def write(self, file):
        file.text = self.at_home(file.text)
        file.write(self.folder)

    def answers(self):
        assert self.router.running, self.router.stderr()
        try:
            socket.create_connection((self.ip, 2525), timeout=5).close()
            return True
        except OSError:
            return False

    def start(self, command):
        self.router = Child([tern_binary(), *command.words[1:]], cwd=self.folder)
        self.closing.append(self.router.end)
        until(self.answers, "the router of the page answers")
        until(lambda: command.matches("\n".join(self.router.out)),
              lambda: f"the router says what the page says, not {self.router.out}")

    def do(self, command):
        assert command.words[0] == "tern", command.words
        if command.words[1] == "run":
            self.start(command)
            return
        done = run([tern_binary(), *command.words[1:]], timeout=60, cwd=self.folder)
        command.printed = self.at_home(command.printed)
        assert command.matches(done.stdout + done.stderr), (
            f"$ {' '.join(command.words)}\nsays\n{done.stdout}{done.stderr}\nnot\n{command.printed}")


@pytest.mark.parametrize("page, files, commands", [
    ("tutorial.md", 5, 7), ("policies/writing.md", 3, 2), ("policies/greylisting.md", 2, 1),
    ("policies/headers.md", 2, 1),
    ("explain.md", 1, 4), ("testing.md", 1, 1)])
def test_the_page_is_true(folder, page, files, commands):
    ends = []
    reader = Reader(folder, ends)
    counts = {File: 0, Command: 0}
    try:
        for step in steps(DOCS / page):
            counts[type(step)] += 1
            reader.write(step) if isinstance(step, File) else reader.do(step)
    finally:
        for end in ends:
            end()
    assert counts == {File: files, Command: commands}
