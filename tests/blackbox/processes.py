"""Child processes: started, read line by line, ended by their id."""
import subprocess
import threading
import time


class Child:
    """A program whose output is read as it comes. on_line is called for each line of stdout, in a
    thread of its own."""

    def __init__(self, args, on_line=None, **options):
        self.args = [str(a) for a in args]
        self.err = []
        self.out = []
        self._on_line = on_line
        self.process = subprocess.Popen(
            self.args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            **options)
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._take), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err.append),
                             daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(pipe, take):
        with pipe:
            for line in pipe:
                take(line.decode("utf-8", "replace").rstrip("\n"))

    def _take(self, line):
        self.out.append(line)
        if self._on_line:
            self._on_line(line)

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout):
        """The exit status, after all output has been read."""
        status = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return status

    def end(self, timeout=10):
        """SIGTERM, then SIGKILL. The exit status."""
        if self.running:
            self.process.terminate()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.wait(timeout)

    def stderr(self):
        return "\n".join(self.err)


def run(args, timeout=30, **options):
    """Runs a program to its end: a CompletedProcess with text, and `seconds`."""
    began = time.monotonic()
    done = subprocess.run([str(a) for a in args], stdin=options.pop("stdin", subprocess.DEVNULL),
                          capture_output=True, text=True, errors="replace", timeout=timeout,
                          **options)
    done.seconds = time.monotonic() - began
    return done
