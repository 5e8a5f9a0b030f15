"""Authentication to smart hosts: a real Exim, and Tern itself, ask who we are."""
import pytest

from clients import send
from waiting import until

PRELUDE = 'local smart_host = require "policies.smart_host"\n'
FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
PASSWORD = 'corr"ect horse é'


def fields(host, auth, more="", group=""):
    return f"""  relay_from = {{ "127.0.0.0/8" }},
{FAST}  senders = {{ ["branch.test"] = smart_host {{ "{host}", auth = {auth} {group} }} }},
{more}"""


def write_secret(router, name, text):
    folder = router.folder / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(text + "\n")


def one(router, name="one"):
    send(router, "u@elsewhere.test", sender="a@branch.test", test_id=name)


@pytest.mark.parametrize("mechanism, tls", [("PLAIN", True), ("LOGIN", True), ("CRAM-MD5", True),
                                            ("CRAM-MD5", False)])
def test_S7_exim_knows_us(mechanism, tls, new_tern, exim, certificates):
    host = exim("good" if tls else None, users={"me": "hunter2", "you": "other"},
                mechanisms=[mechanism]).up()
    router = new_tern(certificates=certificates)
    write_secret(router, "isp", "hunter2")
    router.configure(fields(host.address, '{ user = "me", password = secret "isp" }',
                            group=', tls = "require"' if tls else ""), PRELUDE)
    router.start()
    one(router)
    mail = host.wait_mail(b"X-Test-Id: one")
    assert b"with esmtpsa" in mail if tls else b"with esmtpa" in mail
    until(lambda: "A=" in host.log(), lambda: host.log())
    driver = {"PLAIN": "plain", "LOGIN": "login", "CRAM-MD5": "cram"}[mechanism]
    assert f"A={driver}:me" in host.log()


def test_S6_S7_exim_refuses_until_the_password_is_right(new_tern, exim):
    """It waits with an alarm; the password is corrected in its file, and a reload rescues what waits."""
    host = exim(users={"me": "hunter2"}, mechanisms=["CRAM-MD5"]).up()
    router = new_tern()
    write_secret(router, "isp", "a mistake")
    router.configure(fields(host.address, '{ user = "me", password = secret "isp" }'), PRELUDE)
    router.start()
    one(router)
    router.wait_for("auth_failed", count=2)
    assert len(router.queued()) == 1
    assert host.mails() == []
    write_secret(router, "isp", "hunter2")
    router.reload()
    host.wait_mail(b"X-Test-Id: one")
    assert not router.log.all("bounced")


def test_S6_exim_wants_what_the_policy_does_not_say(new_tern, exim):
    """530 is no fault of the message's."""
    host = exim(users={"me": "hunter2"}, mechanisms=["CRAM-MD5"]).up()
    router = new_tern(f"""  relay_from = {{ "127.0.0.0/8" }},
{FAST}  default_route = smart_host {{ "{host.address}" }},
""", PRELUDE).start()
    one(router)
    router.wait_for("auth_failed", code=530)
    assert len(router.queued()) == 1
    assert not router.log.all("bounced")


def test_S7_in_clear_nothing_is_told(new_tern, exim):
    """Exim offers nothing in clear but PLAIN in TLS: the mail waits, and no password was sent."""
    host = exim(users={"me": "hunter2"}, mechanisms=["PLAIN"]).up()
    router = new_tern(fields(host.address, '{ user = "me", password = "hunter2" }'), PRELUDE).start()
    one(router)
    event = router.wait_for("auth_failed")
    assert "no way to authenticate" in event["why"]
    assert len(router.queued()) == 1


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])
def test_S7_tern_knows_tern_also_after_a_restart(mechanism, new_tern, sink, certificates):
    """Queued mail finds its credentials again, though the name they had is gone with the process; and no
    word of them is written anywhere."""
    behind = sink()
    host = new_tern("", certificates=certificates)
    host.configure(f"""  hostname = "host.test",
  listen = {{ {{ "{host.ip}:587", service = "submission" }} }},
  auth = {{ passwords = "users" }},
  default_route = route.hosts {{ "{behind.address}" }},
""")
    users = host.folder / "users"
    users.touch(mode=0o600)
    users.write_text(f"me:{{PLAIN}}{PASSWORD}\n")
    router = new_tern(certificates=certificates)
    write_secret(router, "isp", PASSWORD)
    auth = f'{{ user = "me", password = secret "isp", mechanisms = "{mechanism}" }}'
    router.configure(fields(f"{host.ip}:587", auth, group=', tls = "require"'), PRELUDE)
    router.start()
    one(router)
    router.wait_for("queue_backoff")
    router.kill9()
    router.start()
    host.start()
    behind.wait_ids({"one"})
    for file in router.folder.rglob("*"):
        if file.is_file() and file.name != "isp":
            assert PASSWORD.encode() not in file.read_bytes(), file
