"""AUTH against the real binary: swaks, smtplib, a SCRAM client of our own, password files, hooks."""
import base64
import hashlib
import hmac
import os
import re
import smtplib
import ssl
import subprocess
import time

import pytest

from clients import Closed, Raw, swaks
from daemon import tern_binary

# crypt(3) of "secret"; libcrypt made them.
CRYPT = {
    "sha256": "{SHA256-CRYPT}$5$saltstring$C3o4O1TC6aRHF4FI.QSZMXtHbaj2gSXr4sUc/3NcUi.",
    "sha512": "{SHA512-CRYPT}$6$rounds=10000$saltstring$8BTo06G/5FoSytD1T0cp9b6u1/eLMbXRWR32saoSVCPI"
              "8HactmA7e1cC6THh4kpvGWDoPyAxOz2Ig8bq3eay//",
    "bcrypt": "{BLF-CRYPT}$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
    "yescrypt": "$y$j9T$abcdefghijklmnopqrstu/$GOBj9MnQX2XXRYb4Fyz9668D5epsKc/lpFQOxVhyXjA",
}
AUTH = 'auth = { passwords = "users" },'


def entry(password, *args):
    done = subprocess.run([tern_binary(), "password", *args], input=password + "\n", text=True,
                          capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write_users(router, text, mode=0o600):
    path = router.folder / "users"
    fresh = router.folder / "users.new"
    fresh.write_text(text)
    fresh.chmod(mode)
    os.replace(fresh, path)
    return path


@pytest.fixture
def submission(new_tern, certificates, sink):
    """submission(users, auth, more): listens for submission on 587 and 465, for all else on 25."""
    def make(users, auth=AUTH, more="", prelude=""):
        host = sink()
        router = new_tern("", certificates=certificates)
        listen = (f'listen = {{ "{router.address}", {{ "{router.ip}:587", service = "submission" }},'
                  f' {{ "{router.ip}:465", service = "submission", tls = "implicit" }} }},')
        router.configure(listen + auth + f'default_route = route.hosts {{ "{host.address}" }},' + more,
                         prelude)
        if users is not None:
            write_users(router, users)
        router.sink = host
        return router
    return make


def trusting(certificates):
    return ssl.create_default_context(cafile=certificates.ca)


def greeted_in_tls(router, certificates, port=587):
    raw = Raw(router, port=port)
    raw.hello()
    raw.start_tls(trusting(certificates))
    return raw, raw.hello()


# ---- other people's clients --------------------------------------------------------------------

@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_swaks(submission, mechanism):
    router = submission("ana:{PLAIN}se:cret\n").start()
    args = ["--auth", mechanism, "--auth-user", "ana", "--auth-password", "se:cret",
            "--to", "b@elsewhere.test"]
    for more in (["--tls"], ["--tlsc"]):
        done = swaks(router, *args, *more, port=465 if more == ["--tlsc"] else 587)
        assert done.returncode == 0, done.stdout
        assert "235 2.7.0" in done.stdout
    router.sink.wait(2)
    for mail in router.sink.mails:
        assert "with ESMTPSA" in mail.message["Received"]
    router.wait_for("authenticated", 2)
    event = router.log.all("authenticated")[0]
    assert (event["identity"], event["mechanism"]) == ("ana", mechanism)


def test_smtplib(submission, certificates):
    router = submission(f"ana:{entry('pencil')}\n").start()
    context = trusting(certificates)
    context.check_hostname = False
    with smtplib.SMTP(router.ip, 587, local_hostname="c.test", timeout=20) as smtp:
        smtp.starttls(context=context)
        smtp.ehlo()
        assert smtp.esmtp_features["auth"].split() == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            smtp.login("ana", "wrong")
        assert refused.value.smtp_code == 535
    with smtplib.SMTP_SSL(router.ip, 465, local_hostname="c.test", timeout=20,
                          context=context) as smtp:
        smtp.login("ana", "pencil")
        smtp.sendmail("a@sender.test", ["b@elsewhere.test"], b"Subject: x\r\n\r\nhello\r\n")
    router.sink.wait(1)


# ---- SCRAM, by what its RFC says and none of our code --------------------------------------------

def b64(data):
    return base64.b64encode(data).decode()


def scram(raw, user, password, nonce="fyko+d2lbbFgONRv9qkxdawL"):
    """RFC 5802, 7677: the last reply, after the server's signature was checked."""
    first = f"n={user},r={nonce}"
    reply = raw.cmd("AUTH SCRAM-SHA-256 " + b64(f"n,,{first}".encode()))
    if reply.code != 334:
        return reply
    server_first = base64.b64decode(reply.text).decode()
    got, salt, rounds = re.fullmatch(r"r=([^,]+),s=([^,]+),i=(\d+)", server_first).groups()
    assert got.startswith(nonce) and len(got) > len(nonce) + 16
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    final = f"c=biws,r={got}"
    message = f"{first},{server_first},{final}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature))
    reply = raw.cmd(b64(f"{final},p={b64(proof)}".encode()))
    if reply.code != 334:
        return reply
    expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
    assert base64.b64decode(reply.text) == b"v=" + b64(expected).encode()
    return raw.cmd("")


def test_scram(submission, certificates):
    router = submission(f"ana:{entry('pencil')}\nben:{{PLAIN}}pencil\n").start()
    for user in ("ana", "ben"):
        raw, _ = greeted_in_tls(router, certificates)
        assert scram(raw, user, "pen").code == 535
        assert scram(raw, user, "pencil").code == 235
        assert raw.mail("b@elsewhere.test").code == 250
        raw.close()
    router.sink.wait(2)


def salt_of(raw, user):
    reply = raw.expect(334, "AUTH SCRAM-SHA-256 " + b64(f"n,,n={user},r=abcdef".encode()))
    raw.expect(501, "*")
    return re.search("s=([^,]+),i=(.*)", base64.b64decode(reply.text).decode()).groups()


def test_strangers_look_like_users(submission, certificates):
    """The same salt each time, in every worker; and the same words for a wrong password."""
    router = submission(f"ana:{entry('pencil')}\n", more="workers = 4,").start()
    seen = {"ana": set(), "ghost": set(), "spook": set()}
    refusals = set()
    for _ in range(6):
        raw, _ = greeted_in_tls(router, certificates)
        for user, salts in seen.items():
            salts.add(salt_of(raw, user))
        for user in ("ana", "ghost"):
            refusals.add(repr(scram(raw, user, "no")))
        raw.close()
    assert all(len(salts) == 1 for salts in seen.values()), seen
    assert len(set.union(*seen.values())) == 3
    assert {rounds for salts in seen.values() for _, rounds in salts} == {"15000"}
    assert len(refusals) == 1


# ---- password files ------------------------------------------------------------------------------

def login(raw, user, password):
    return raw.cmd("AUTH PLAIN " + b64(f"\0{user}\0{password}".encode())).code


def test_every_kind_of_entry(submission, certificates):
    router = submission("".join(f"{kind}:{text}\n" for kind, text in CRYPT.items())
                        + f"scram:{entry('secret', '--iterations', '4096')}\nplain:{{PLAIN}}secret\n"
                        ).start()
    for user in [*CRYPT, "scram", "plain"]:
        raw, hello = greeted_in_tls(router, certificates)
        assert "AUTH PLAIN LOGIN" in hello.text.split("\n")
        assert login(raw, user, "Secret") == 535, user
        assert login(raw, user, "secret") == 235, user
        raw.close()


def test_many_slow_checks_hold_nobody_up(submission, certificates):
    """One worker: while passwords are checked, other sessions get their replies."""
    router = submission(f"u:{CRYPT['yescrypt']}\n", more="workers = 1,").start()
    slow = []
    for _ in range(20):
        raw, _ = greeted_in_tls(router, certificates)
        raw.send("AUTH PLAIN " + b64(b"\0u\0wrong") + "\r\n")
        slow.append(raw)
    with Raw(router) as other:
        worst = 0
        other.hello()
        for _ in range(50):
            began = time.monotonic()
            other.expect(250, "NOOP")
            worst = max(worst, time.monotonic() - began)
    assert all(raw.reply().code == 535 for raw in slow)
    for raw in slow:
        raw.close()
    assert worst < 1, worst


def test_checks_for_clients_that_left_are_not_made(submission):
    """Else a flood of connections that ask and hang up would keep everybody from logging in."""
    slow = entry("secret", "--iterations", "200000")
    router = submission(f"ana:{slow}\n", auth='auth = { passwords = "users", without_tls = true },'
                        ).start()

    def asked(password):
        raw = Raw(router)
        raw.hello()
        raw.send("AUTH PLAIN " + b64(f"\0ana\0{password}".encode()) + "\r\n")
        return raw

    began = time.monotonic()
    with asked("secret") as raw:
        assert raw.reply().code == 235
    one = time.monotonic() - began
    for _ in range(60):
        asked("wrong").close()
    began = time.monotonic()
    with asked("secret") as raw:
        assert raw.reply().code == 235
    assert time.monotonic() - began < 10 * one


def test_file_is_read_again_when_it_changes(submission, certificates):
    router = submission("ana:{PLAIN}one\n").start()

    def code(user, password):
        raw, _ = greeted_in_tls(router, certificates)
        result = login(raw, user, password)
        raw.close()
        return result

    def becomes(wanted, user, password):
        deadline = time.monotonic() + 15
        while code(user, password) != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    assert code("ana", "one") == 235
    write_users(router, "ana:{PLAIN}two\nben:{PLAIN}three\n")
    becomes(235, "ana", "two")
    assert code("ben", "three") == 235
    assert code("ana", "one") == 535
    router.wait_for("passwords_read", users=2)
    # A file that is wrong changes nothing, and the log says where.
    path = write_users(router, "ana:{PLAIN}four\nben\n")
    deadline = time.monotonic() + 15
    while not router.log.all("passwords_wrong"):
        assert code("ana", "two") == 235
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert router.log.all("passwords_wrong")[0]["error"].startswith(f"{path}:2: not user:entry")
    # Nor does one that is gone.
    path.unlink()
    deadline = time.monotonic() + 15
    while len(router.log.all("passwords_wrong")) < 2:
        assert code("ana", "two") == 235
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "No such file" in router.log.all("passwords_wrong")[1]["error"]
    path = write_users(router, "ana:{PLAIN}four\nben\n")
    # A reload says it, too, and takes a good one over at once.
    done = router.cli("reload")
    assert done.returncode == 78 and ":2: not user:entry" in done.stderr
    write_users(router, "ana:{PLAIN}five\n")
    router.reload()
    assert code("ana", "five") == 235


def test_a_file_that_vanishes_is_told_of(submission, certificates):
    router = submission("ana:{PLAIN}one\n").start()
    (router.folder / "users").unlink()
    deadline = time.monotonic() + 15
    while not router.log.all("passwords_wrong"):
        raw, _ = greeted_in_tls(router, certificates)
        assert login(raw, "ana", "one") == 235
        raw.close()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "No such file" in router.log.all("passwords_wrong")[0]["error"]


@pytest.mark.parametrize("users, mode, code, words", [
    ("ana:{PLAIN}x\n", 0o640, 77, "can be read by others"),
    (None, None, 66, "No such file"),
    ("ana:{PLAIN}x\nben:topsecret\n", 0o600, 78, "users:2: no scheme that is known"),
    ("ana:{SHA512-CRYPT}$6$rounds=9000000$salt$x\n", 0o600, 78, "users:1: more than 200000 rounds"),
])
def test_wrong_files_are_refused(submission, users, mode, code, words):
    router = submission(None)
    if users is not None:
        write_users(router, users, mode)
    done = router.cli("check")
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "topsecret" not in done.stderr


# ---- what is required where ----------------------------------------------------------------------

def test_submission_wants_tls_then_auth(submission, certificates):
    router = submission("ana:{PLAIN}secret\n").start()
    with Raw(router, port=587) as raw:
        assert "AUTH" not in raw.hello().text
        for command in ("MAIL FROM:<a@b.test>", "AUTH PLAIN AGFuYQBzZWNyZXQ="):
            assert raw.expect(530, command).enhanced == "5.7.0"
        raw.start_tls(trusting(certificates))
        assert "AUTH" in raw.hello().text
        assert raw.expect(530, "MAIL FROM:<a@b.test>").enhanced == "5.7.0"
        raw.expect(502, "ETRN example.test")
        assert login(raw, "ana", "secret") == 235
        assert raw.mail("b@elsewhere.test").code == 250
    with Raw(router) as raw:  # port 25: other routers need neither, and may not relay
        raw.hello()
        raw.expect(538, "AUTH PLAIN AGFuYQBzZWNyZXQ=")
        raw.expect(250, "MAIL FROM:<a@b.test>")
        raw.expect(550, "RCPT TO:<b@elsewhere.test>")


def test_three_failures_end_the_session(submission, certificates):
    router = submission("ana:{PLAIN}secret\n").start()
    raw, _ = greeted_in_tls(router, certificates)
    assert login(raw, "ana", "first-secret") == 535
    assert login(raw, "ana", "second-secret") == 535
    assert login(raw, "ghost", "third-secret") == 535
    assert raw.reply().code == 421
    with pytest.raises((Closed, ssl.SSLError, OSError)):
        raw.cmd("NOOP")
    raw.close()
    router.wait_for("auth_failed", 3)
    failed = router.log.all("auth_failed")
    assert [e["user"] for e in failed] == ["ana", "ana", "ghost"]
    assert all(e["client"] and e["mechanism"] == "PLAIN" for e in failed)
    assert "-secret" not in str(router.log.all())


# ---- the hook ------------------------------------------------------------------------------------

def test_hook(submission, certificates):
    router = submission(None, auth="", more='policies = { require "users" },')
    router.write("""
local tern = require "tern"
return { name = "users", auth = function(ctx)
  local c = ctx.credentials
  if c.user == "ana" and c.password == "pencil" then
    return tern.accept { identity = "ana@example.test" }
  elseif c.user == "ben" then
    return tern.accept { password = "%s" }
  end
end }
""" % CRYPT["yescrypt"], name="users.lua")
    router.start()
    for user, password, code in (("ana", "pencil", 235), ("ana", "x", 535), ("ben", "secret", 235),
                                 ("ben", "x", 535), ("carl", "pencil", 535)):
        raw, hello = greeted_in_tls(router, certificates)
        assert "AUTH PLAIN LOGIN" in hello.text.split("\n")
        assert login(raw, user, password) == code, (user, password)
        raw.close()
    router.wait_for("authenticated", 2)
    assert router.log.all("authenticated")[0]["identity"] == "ana@example.test"


# ---- tern password -------------------------------------------------------------------------------

def test_password_command():
    made = entry("pencil", "-u", "ana@example.test", "--iterations", "5000")
    user, text = made.split(":", 1)
    rounds, salt, stored, server = text.removeprefix("{SCRAM-SHA-256}").split(",")
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode(salt), 5000)
    assert (user, rounds) == ("ana@example.test", "5000")
    assert base64.b64decode(server) == hmac.digest(salted, b"Server Key", "sha256")
    assert base64.b64decode(stored) == hashlib.sha256(
        hmac.digest(salted, b"Client Key", "sha256")).digest()
    assert entry("pencil") != entry("pencil")


@pytest.mark.parametrize("given, args, code", [
    ("", (), 66), ("\n", (), 65), ("x" * 1025 + "\n", (), 65), ("x\n", ("-u", "a:b"), 64),
    ("x\n", ("-u", ""), 64), ("x\n", ("--iterations", "10"), 64),
], ids=str.split("none empty long colon nameless few"))
def test_password_command_refuses(given, args, code):
    done = subprocess.run([tern_binary(), "password", *args], input=given, text=True,
                          capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("tern: ")


def test_I612_I613_exchanges_that_are_broken_off(submission, certificates):
    """Base64 of a bad length, responses that are none, cancelled: 501 each, and AUTH begins anew."""
    router = submission(f"user:{entry('secret')}\n").start()
    raw, _ = greeted_in_tls(router, certificates)
    with raw:
        for response in ("A", "AAA", "AAAAA", "=", "====", "A===", "AA=A", "!!!!", "*"):
            raw.expect(334, "AUTH PLAIN")
            assert raw.cmd(response).code == 501, response
            raw.expect(250, "RSET")
            raw.expect(334, "AUTH LOGIN")
            raw.expect(334, base64.b64encode(b"user").decode())
            raw.expect(501, "*")
        raw.expect(501, "AUTH PLAIN A")
        raw.expect(235, "AUTH PLAIN " + base64.b64encode(b"\0user\0secret").decode())
        raw.expect(503, "AUTH PLAIN " + base64.b64encode(b"\0user\0secret").decode())
