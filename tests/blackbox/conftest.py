"""Fixtures of the black-box tests. The helper modules beside this file have one purpose each."""
import os
import pathlib
import shutil
import tempfile

import pytest

from certificates import make_certificates
from daemon import Tern, tern_binary, to_hosts
from exim import Exim
from faults import Disk, compile_faults
from hostile import Watched
from nameserver import Nsd, ScriptedDns
from postfix import Postfix
from sinks import ScriptedHost, Sink, SmtpSink


# Run by root, daemons stay root: they read what tests write. test_privileges.py is about other users.
if os.geteuid() == 0:
    os.environ.setdefault("TERN_USER", "root")


def pytest_configure(config):
    config.addinivalue_line("markers", "heavy: takes many seconds; spread over the workers")
    if not pathlib.Path(tern_binary()).exists():
        raise pytest.UsageError(f"there is no {tern_binary()}: build it, or set TERN_BIN")


def pytest_collection_modifyitems(items):
    """Spreads heavy tests evenly: each worker gets runs of neighbours."""
    heavy = [i for i in items if i.get_closest_marker("heavy")]
    light = [i for i in items if not i.get_closest_marker("heavy")]
    mixed = []
    for n, item in enumerate(light):
        mixed.append(item)
        due = (n + 1) * len(heavy) // len(light)
        while due and heavy and len(mixed) - (n + 1) < due:
            mixed.append(heavy.pop(0))
    items[:] = mixed + heavy


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for tern in getattr(item, "terns", []):
            report.sections.append((f"log of {tern.ip}", tern.log.tail(60)))
            if tern.child:
                report.sections.append((f"stderr of {tern.ip}", tern.child.stderr()))


def _folder():
    return pathlib.Path(tempfile.mkdtemp(prefix="tern-bb-"))


@pytest.fixture
def folder():
    """A folder with a short name (a socket's path has at most 107 octets)."""
    path = _folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def session_folder():
    path = _folder()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def certificates(session_folder):
    return make_certificates(session_folder)


@pytest.fixture(scope="session")
def empty_dns(session_folder):
    """The nameserver of tests that need none: it knows nothing, and nobody asks the outside world."""
    server = Nsd(session_folder / "nsd")
    yield server
    server.close()


@pytest.fixture(scope="session")
def postfix(session_folder, certificates):
    path = session_folder / "postfix"
    path.mkdir()
    server = Postfix(path, certificates)
    yield server
    server.close()


@pytest.fixture
def exim(folder, certificates, closing):
    """exim(tls, ...): a real Exim that has not been started."""
    def make(tls=None, **options):
        path = folder / "exim"
        path.mkdir()
        folder.chmod(0o755)  # it is not root that runs
        return closing(Exim(path, certificates, tls, **options))
    return make


@pytest.fixture
def closing():
    """Registers things that have close(); they are closed in reverse order."""
    opened = []

    def register(thing):
        opened.append(thing)
        return thing
    yield register
    for thing in reversed(opened):
        thing.close()


@pytest.fixture
def nsd(folder, closing):
    """nsd(records, broken): a real authoritative server for the whole of the name space."""
    return lambda records, broken=(): closing(Nsd(folder / "nsd", records, broken))


@pytest.fixture
def scripted_dns(closing):
    """scripted_dns(records): a server that keeps a record of questions and can be made to fail."""
    return lambda records="": closing(ScriptedDns(records))


@pytest.fixture
def sink(closing):
    """sink(): a host that takes mail, up already. Arguments as of Sink."""
    def make(up=True, **options):
        made = closing(Sink(**options))
        return made.up() if up else made
    return make


@pytest.fixture
def smtp_sink(folder, closing):
    return closing(SmtpSink(folder))


@pytest.fixture
def scripted_host(closing):
    return lambda talk, **options: closing(ScriptedHost(talk, **options))


@pytest.fixture
def new_tern(request, folder, empty_dns):
    """new_tern(fields, ...): a configured daemon that has not been started. At the end of the test each
    must stop in order, with nothing from the sanitizers."""
    made = request.node.terns = []

    def make(fields="", prelude="", dns=None, certificates=None):
        tern = Tern(folder / f"tern{len(made)}", (dns or empty_dns).server, certificates)
        tern.configure(fields, prelude)
        made.append(tern)
        return tern
    yield make
    failures = []
    for tern in made:
        try:
            tern.close()
        except AssertionError as e:
            failures.append(str(e))
    assert not failures, "\n".join(failures)


@pytest.fixture
def tern(new_tern):
    """tern(fields, ...): a daemon that is ready."""
    return lambda *args, **options: new_tern(*args, **options).start()


@pytest.fixture(scope="session")
def faults_library(session_folder):
    return compile_faults(session_folder)


@pytest.fixture
def on_disk(new_tern, faults_library):
    """on_disk(fields, ...): a daemon that has not been started, with `disk`, which fails at command."""
    def make(fields="", first_map=None, **options):
        router = new_tern(fields, **options)
        router.disk = Disk(router, faults_library, first_map)
        return router
    return make


@pytest.fixture
def watched(tern, sink):
    """watched(fields, ...): a router in its default configuration with one host for rcpt.test behind
    it, and what looks after both: hostile.Watched."""
    def make(fields="", **options):
        host = sink()
        return Watched(tern(to_hosts(host, domain="rcpt.test") + fields, **options), host)
    return make
