"""The verdict on each address of isemail's test sets (docs/hostile-input.md, 6), against isemail.golden.

The addresses are not copied: a verdict stands beside the number of its test and a hash of the address.
TERN_WRITE_GOLDEN=1 writes the file anew, with what stands there about deviations kept.
"""
import hashlib
import os
import pathlib
import xml.etree.ElementTree as ElementTree

import pytest

from clients import Closed, Raw
from hostile import shared_data

GOLDEN = pathlib.Path(__file__).with_name("isemail.golden")
# Diagnoses of isemail that RFC 5321 allows in an envelope.
ALLOWED = {"ISEMAIL_VALID_CATEGORY", "ISEMAIL_VALID", "ISEMAIL_DNSWARN", "ISEMAIL_RFC5321"}


def addresses(name):
    """(number, octets, whether RFC 5321 allows it or None where the set does not say)"""
    for test in ElementTree.parse(shared_data("isemail", name)).getroot().iter("test"):
        text = test.findtext("address") or ""
        # control octets stand there as their symbols
        octets = "".join(chr(ord(c) - 0x2400) if 0x2400 <= ord(c) <= 0x2421 else c for c in text)
        yield int(test.get("id")), octets.encode(), test.findtext("category") in ALLOWED


class Asker:
    """Puts addresses to the router, as the recipient of a client that may relay."""

    def __init__(self, router):
        self.router = router
        self.raw = None

    def _session(self):
        if self.raw is None:
            self.raw = Raw(self.router)
            self.raw.hello()
            self.raw.expect(250, "MAIL FROM:<a@sender.test>")
        return self.raw

    def verdict(self, octets):
        try:
            self._session().send(b"RCPT TO:<" + octets + b">\r\n")
            reply = self.raw.reply()
        except Closed:
            return "closed"
        if reply.code == 500:  # no command at all: what came behind a line end is not looked at
            self.raw.close()
            self.raw = None
        return "ok" if reply.code == 250 else f"{reply.code} {reply.enhanced}"


def read_golden():
    """{(file, number): (hash, verdict, deviation)}"""
    rows = (line.split("\t") for line in GOLDEN.read_text().splitlines() if line and line[0] != "#")
    return {(row[0], int(row[1])): tuple(row[2:]) for row in rows}


def write_golden(found, old):
    head = [line for line in GOLDEN.read_text().splitlines() if line.startswith("#")] if GOLDEN.exists() else []
    rows = ["\t".join([key[0], str(key[1]), *value, old.get(key, ("", "", "-"))[2]])
            for key, value in sorted(found.items())]
    GOLDEN.write_text("\n".join(head + rows) + "\n")


def test_I620_isemail(tern):
    router = tern('  relay_from = { "127.0.0.0/8" },\n  limits = { errors = 100000 },\n')
    asker, found, allowed = Asker(router), {}, {}
    for name in ("tests.xml", "tests-original.xml"):
        for number, octets, fine in addresses(name):
            key = name, number
            found[key] = hashlib.sha256(octets).hexdigest()[:12], asker.verdict(octets)
            allowed[key] = fine
    golden = read_golden() if GOLDEN.exists() else {}
    if os.environ.get("TERN_WRITE_GOLDEN"):
        write_golden(found, golden)
        golden = read_golden()
    assert {k: v[:2] for k, v in golden.items()} == found
    unexplained = [(key, value) for key, value in golden.items()
                   if (value[1] == "ok") != allowed[key] and value[2] == "-"]
    assert unexplained == [], f"{len(unexplained)} deviations without a reason"


@pytest.mark.skipif(not GOLDEN.exists(), reason="no golden file")
def test_I620_reasons_are_explained():
    """Each reason that a row gives is explained at the head of the file, and each one there is used."""
    head = {line.split(":")[0][2:] for line in GOLDEN.read_text().splitlines()
            if line.startswith("# ") and ":" in line and " " not in line.split(":")[0][2:]}
    used = {value[2] for value in read_golden().values()} - {"-"}
    assert used == head
