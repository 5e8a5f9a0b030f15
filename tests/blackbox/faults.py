"""A disk that fails at a test's command: faults.c, compiled once for a session."""
import contextlib
import pathlib
import subprocess

SOURCE = pathlib.Path(__file__).with_name("faults.c")


def compile_faults(folder):
    library = folder / "faults.so"
    subprocess.run(["cc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", SOURCE, "-o",
                    library, "-ldl"], check=True)
    return library


class Disk:
    """What a daemon's disk does. The lines are those that faults.c explains."""

    def __init__(self, router, library, first_map=None):
        self.control = router.folder / "faults"
        self.hits = router.folder / "faults.log"
        self.heal()
        # the sanitizers want to be the first library, and need not be
        router.env = {"LD_PRELOAD": str(library), "TERN_FAULTS": str(self.control),
                      "ASAN_OPTIONS": "verify_asan_link_order=0:quarantine_size_mb=16"}
        if first_map:
            router.env["TERN_FAULTS_MAP"] = str(first_map)

    def does(self, *lines):
        """From now on, instead of what it did before."""
        new = self.control.with_suffix(".new")
        new.write_text("".join(line + "\n" for line in lines))
        new.rename(self.control)

    def heal(self):
        self.does()

    @contextlib.contextmanager
    def doing(self, *lines):
        self.does(*lines)
        try:
            yield self
        finally:
            self.heal()

    def count(self, kind=None):
        """Calls (of a kind) that suffered so far."""
        text = self.hits.read_text().split() if self.hits.exists() else []
        return sum(1 for k in text if kind in (None, k))
