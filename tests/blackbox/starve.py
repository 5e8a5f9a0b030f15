"""Memory that runs out at a test's command: starve.c, compiled once for a session."""
import contextlib
import mmap
import pathlib
import struct
import subprocess

SOURCE = pathlib.Path(__file__).with_name("starve.c")
PROGRAM, OPENSSL, CARES, LMDB, OTHERS = 1, 2, 4, 8, 16
ALL = PROGRAM | OPENSSL | CARES | LMDB | OTHERS
FIELDS = ("who", "at", "more", "asked", "failed")


def compile_starve(folder):
    library = folder / "starve.so"
    subprocess.run(["cc", "-std=gnu17", "-O1", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", SOURCE, "-o",
                    library, "-ldl"], check=True)
    return library


class Memory:
    """What a daemon gets. Nothing fails at first."""

    def __init__(self, router, library):
        self.file = router.folder / "starve"
        self.file.write_bytes(bytes(8 * len(FIELDS)))
        with self.file.open("r+b") as f:
            self._map = mmap.mmap(f.fileno(), 8 * len(FIELDS))
        # the sanitizers want to be the first library, and need not be
        router.env = {"LD_PRELOAD": str(library), "TERN_STARVE": str(self.file),
                      "ASAN_OPTIONS": "verify_asan_link_order=0:quarantine_size_mb=16"}

    def _get(self, name):
        return struct.unpack_from("<Q", self._map, 8 * FIELDS.index(name))[0]

    def _set(self, name, value):
        struct.pack_into("<Q", self._map, 8 * FIELDS.index(name), value)

    def fails(self, at, more=0, who=ALL):
        """The at-th allocation from now on fails, and so many after it."""
        self._set("who", 0)
        self._set("asked", 0)
        self._set("failed", 0)
        self._set("at", at)
        self._set("more", more)
        self._set("who", who)

    def heal(self):
        """How many were asked for since `fails`."""
        self._set("who", 0)
        return self._get("asked")

    @property
    def failed(self):
        return self._get("failed")

    @contextlib.contextmanager
    def failing(self, at, more=0, who=ALL):
        self.fails(at, more, who)
        try:
            yield self
        finally:
            self.heal()
