"""Wrong configurations: an exit code of sysexits.h, and one message that says where and how to mend it."""
import os
import re
import shutil
import socket

import pytest

from daemon import tern_binary
from processes import run

EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_CANTCREAT, EX_NOPERM, EX_CONFIG = (
    64, 65, 66, 69, 73, 77, 78)

HEAD = 'local tern, route = require "tern", require "tern.route"\n'

# name: text of tern.lua, where the message must point, what it must say
CASES = {
    "syntax error": (
        'return {\n  hostname = "mx.test"\n  spool = "q",\n}\n', "tern.lua:3:", ["'}' expected"]),
    "file ends too early": ('return {\n  hostname = "mx.test",\n', "tern.lua:3:", ["<eof>"]),
    "no table": ("return 5\n", "tern.lua:1:", ["table"]),
    "returns nothing": ("local x = 1\n", "tern.lua", ["must end with", "return"]),
    "missing key": ("return {\n  spool = \"q\",\n}\n", "tern.lua:1:", ["'hostname' is missing"]),
    "unknown key": (
        'return {\n  hostname = "mx.test",\n  relay_form = { "10.0.0.0/8" },\n}\n', "tern.lua:3:",
        ["unknown key 'relay_form'", "did you mean 'relay_from'?"]),
    "unknown key in a table": (
        'return {\n  hostname = "mx.test",\n  limits = {\n    recipient = 100,\n  },\n}\n',
        "tern.lua:4:", ["unknown key 'recipient'", "did you mean 'recipients'?"]),
    "wrong type": (
        'return {\n  hostname = "mx.test",\n  workers = "many",\n}\n', "tern.lua:3:",
        ["'workers'", "\"many\"", "auto"]),
    "a number out of range": (
        'return {\n  hostname = "mx.test",\n  limits = { recipients = 5 },\n}\n', "tern.lua:3:",
        ["'limits.recipients'", "100", "5"]),
    "wrong address": (
        'return {\n  hostname = "mx.test",\n  listen = { "mx.test:25" },\n}\n', "tern.lua:3:",
        ["listen", "mx.test:25"]),
    "wrong network": (
        'return {\n  hostname = "mx.test",\n  relay_from = { "10.0.0.0/33" },\n}\n', "tern.lua:3:",
        ["relay_from", "10.0.0.0/33"]),
    "wrong duration": (
        'return {\n  hostname = "mx.test",\n  queue = {\n    lifetime = "5 parsecs",\n  },\n}\n',
        "tern.lua:4:", ["queue.lifetime", "5 parsecs", "5d"]),
    "wrong domain": (
        HEAD + 'return {\n  hostname = "mx.test",\n  domains = {\n'
        '    ["not a domain"] = route.mx { domain = "a.test" },\n  },\n}\n', "tern.lua:5:", ["not a domain"]),
    "unknown hook": (
        HEAD + 'return {\n  hostname = "mx.test",\n  policies = {\n    {\n      rcpt_to = function() end,\n'
        "    },\n  },\n}\n", "tern.lua:6", ["unknown hook 'rcpt_to'", "did you mean 'rcpt'?"]),
    "a hook that is no function": (
        'return {\n  hostname = "mx.test",\n  policies = {\n    { rcpt = "reject" },\n  },\n}\n',
        "tern.lua:4:", ["rcpt", "function"]),
    "a policy that was not called": (
        'local backup = require "policies.backup"\nreturn {\n  hostname = "mx.test",\n'
        '  domains = { ["a.test"] = backup },\n}\n', "tern.lua:4:", ["a.test", "call it"]),
    "unknown option of a policy": (
        'local etrn = require "policies.etrn"\nreturn {\n  hostname = "mx.test",\n  domains = {\n'
        '    ["a.test"] = etrn { deliver_too = "192.0.2.1" },\n  },\n}\n', "tern.lua:5:",
        ["deliver_too", "did you mean 'deliver_to'?"]),
    "unknown option of a route": (
        HEAD + 'return {\n  hostname = "mx.test",\n  default_route = route.hosts { "192.0.2.1", tsl = "none" },\n}\n',
        "tern.lua:4:", ["tsl", "did you mean 'tls'?"]),
    "a missing module": (
        'local x = require "policies.nosuch"\nreturn { hostname = "mx.test" }\n', "tern.lua:1:",
        ["policies.nosuch"]),
    "an error in a module": (
        'local x = require "site"\nreturn { hostname = "mx.test" }\n', "site.lua:2:", ["oops"]),
    "half of a certificate": (
        'return {\n  hostname = "mx.test",\n  tls = { cert = "/etc/cert.pem" },\n}\n', "tern.lua:3:",
        ["tls", "key"]),
    "a certificate that is not there": (
        'return {\n  hostname = "mx.test",\n  spool = "q",\n  tls = { cert = "/nonexistent/c.pem", '
        'key = "/nonexistent/k.pem" },\n}\n', "tern.lua", ["/nonexistent/"]),
    "TLS without a certificate": (
        'return {\n  hostname = "mx.test",\n  listen = {\n    { "127.0.0.1:0", tls = "require" },\n  },\n}\n',
        "tern.lua:4:", ["tls", "cert"]),
}


def one_message(done):
    """stderr holds one message; a traceback may follow, indented or under its title."""
    lines = done.stderr.strip().splitlines()
    assert lines, "nothing on stderr"
    assert lines[0].startswith("tern: "), done.stderr
    assert sum(1 for line in lines if line.startswith("tern: ")) == 1, done.stderr
    assert done.stdout.strip() == "", done.stdout
    return lines[0]


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize("text, where, words", CASES.values(), ids=CASES)
def test_what_is_wrong(folder, verb, text, where, words):
    config = folder / "tern.lua"
    config.write_text(text)
    (folder / "site.lua").write_text('local x\nerror("oops")\n')
    done = run([tern_binary(), verb, "-c", config], cwd=folder)
    expected = EX_NOINPUT if "nonexistent" in text else EX_CONFIG
    assert done.returncode == expected, (done.returncode, done.stderr)
    said = one_message(done)
    assert where in said, said
    for word in words:
        assert word in said, said


@pytest.mark.heavy
def test_a_loop_without_an_end(folder):
    """Loading has a budget of processor time."""
    config = folder / "tern.lua"
    config.write_text("local x = 1\nwhile true do x = x + 1 end\n")
    done = run([tern_binary(), "check", "-c", config], timeout=120)
    assert done.returncode == EX_CONFIG
    said = one_message(done)
    assert "tern.lua:2:" in said and "time" in said


@pytest.mark.parametrize("verb", ["check", "run", "status", "reload"])
def test_no_such_file(folder, verb):
    done = run([tern_binary(), verb, "-c", folder / "none.lua"])
    assert done.returncode == EX_NOINPUT
    assert "none.lua" in one_message(done)


def test_a_folder_instead_of_a_file(folder):
    done = run([tern_binary(), "check", "-c", folder])
    assert done.returncode in (EX_NOINPUT, EX_CONFIG)
    assert str(folder) in one_message(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_file_that_may_not_be_read(folder):
    folder.chmod(0o755)
    config = folder / "tern.lua"
    config.write_text('return { hostname = "mx.test" }\n')
    config.chmod(0o600)
    os.chown(config, 0, 0)
    # The checkout may stand where only root gets to (/root).
    binary = shutil.copy(tern_binary(), folder / "tern")
    done = run([binary, "check", "-c", config], user="nobody", group="nogroup", extra_groups=[])
    assert done.returncode in (EX_NOPERM, EX_NOINPUT)
    said = one_message(done)
    assert "tern.lua" in said and "ermission" in said


def test_bytecode_is_refused(folder):
    config = folder / "tern.lua"
    config.write_bytes(b"\x1bLua\x54\x00\x19\x93\r\n\x1a\n" + bytes(100))
    done = run([tern_binary(), "check", "-c", config])
    assert done.returncode == EX_CONFIG
    assert "tern.lua" in one_message(done)


def test_check_says_that_all_is_well(new_tern):
    router = new_tern()
    done = router.cli("check")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert not router.spool.exists(), "check has made a spool"


def test_port_in_use(new_tern):
    router = new_tern()
    with socket.create_server((router.ip, router.port)):
        done = router.cli("run")
    assert done.returncode == EX_UNAVAILABLE, done.stderr
    said = one_message(done)
    assert router.address in said and "use" in said, said


def test_an_address_that_is_not_ours(new_tern):
    router = new_tern()
    router.configure('  listen = { "192.0.2.1:25" },\n')
    done = router.cli("run")
    assert done.returncode in (EX_UNAVAILABLE, EX_CONFIG, 71), done.returncode
    assert "192.0.2.1:25" in one_message(done)


def test_a_second_router_on_the_same_spool(tern, new_tern):
    first = tern()
    second = new_tern()
    second.configure(f'  spool = "{first.spool}",\n')
    done = second.cli("run")
    assert done.returncode == 75, (done.returncode, done.stderr)
    said = one_message(done)
    assert str(first.spool) in said, said
    assert first.json("status")  # and the first one did not lose its socket


def test_a_spool_that_cannot_be_made(new_tern):
    router = new_tern()
    (router.folder / "file").write_text("")
    router.configure(f'  spool = "{router.folder}/file/spool",\n')
    done = router.cli("run")
    assert done.returncode == EX_CANTCREAT, (done.returncode, done.stderr)
    assert "file/spool" in one_message(done)


def test_a_spool_of_a_newer_version(tern):
    """The format's number stands in the table `meta`; a newer one is refused, and nothing is touched."""
    router = tern()
    router.stop()
    data = router.spool / "data.mdb"
    files = [p for p in router.spool.iterdir() if p.suffix == ".mdb" and "lock" not in p.name]
    assert files, list(router.spool.iterdir())
    data = files[0]
    content = data.read_bytes()
    mark = re.search(rb"format\x00\x00\x00[\x01-\x09]", content).group()
    data.write_bytes(content.replace(mark, b"format\x00\x00\x00\x63"))
    done = router.cli("run")
    assert done.returncode == EX_DATAERR, (done.returncode, done.stderr)
    said = one_message(done)
    assert str(router.spool) in said and "newer" in said, said
    data.write_bytes(content)
    router.start()


def test_a_file_that_is_no_spool(new_tern):
    router = new_tern()
    router.spool.mkdir()
    (router.spool / "data.mdb").write_bytes(b"not a database" * 1000)
    done = router.cli("run")
    assert done.returncode in (EX_DATAERR, EX_CANTCREAT), (done.returncode, done.stderr)
    assert str(router.spool) in one_message(done)


def test_a_path_of_the_socket_that_is_too_long(new_tern):
    router = new_tern()
    router.configure(f'  control = "/tmp/{"x" * 120}/control",\n')
    done = router.cli("run")
    assert done.returncode == EX_CONFIG
    assert "control" in one_message(done)
