"""Next hops that do not play by the rules: nothing is lost, nothing is returned by mistake, the router
stays as it was."""
import json

import pytest

from clients import send
from daemon import to_hosts

FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'
TIMES = """\
  timeouts = { connect = "1s", greeting = "1s", helo = "1s", mail = "1s", rcpt = "1s",
               data_command = "1s", body = "1s", final = "1s" },
"""
STEPS = ("greeting", "EHLO", "MAIL", "RCPT", "DATA", "end")


def serve(answers):
    """A host that answers each step with what `answers` has for it: bytes, or a function of the stream;
    None ends the connection. Else it is as it should be."""
    good = {"greeting": b"220 odd.test ESMTP\r\n", "EHLO": b"250 odd.test\r\n",
            "DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"}

    def say(stream, step):
        answer = answers.get(step, good.get(step, b"250 2.0.0 OK\r\n"))
        if callable(answer):
            answer(stream)
        elif answer is not None:
            stream.write(answer)
        return answer is not None

    def talk(stream):
        if not say(stream, "greeting"):
            return
        for line in iter(stream.readline, b""):
            step = line[:4].upper().decode("latin-1")
            if not say(stream, step):
                return
            if step == "DATA" and answers.get("DATA", b"354")[:3] == b"354":
                if not any(text == b".\r\n" for text in iter(stream.readline, b"")):
                    return
                if not say(stream, "end"):
                    return
    return talk


def endless(stream):
    while True:
        stream.write(b"250-and so on\r\n" * 1000)


def forever(text):
    def write(stream):
        while True:
            stream.write(text * 10_000)
    return write


BAD = {
    "endless greeting": {"greeting": forever(b"220-and so on\r\n")},
    "endless EHLO": {"EHLO": endless},
    "a line without end": {"RCPT": forever(b"x")},
    "a megabyte in a line": {"MAIL": b"250 " + b"x" * 1_000_000 + b"\r\n"},
    "code 000": {"MAIL": b"000 what\r\n"}, "code 999": {"RCPT": b"999 what\r\n"},
    "no code": {"MAIL": b"hello there\r\n"}, "not SMTP": {"greeting": b"SSH-2.0-OpenSSH_9.2\r\n"},
    "noise": {"greeting": bytes(range(256)) * 100},
    "closes at once": {"greeting": None}, "closes after EHLO": {"EHLO": None},
    "closes after MAIL": {"MAIL": None}, "closes after DATA": {"DATA": None},
    "closes after the dot": {"end": None},
    "250 instead of 354": {"DATA": b"250 OK\r\n"},
    "replies nobody asked for": {"EHLO": b"250 odd.test\r\n250 2.0.0 OK\r\n250 2.0.0 OK\r\n250 OK\r\n"},
    "silent": {"greeting": lambda stream: stream.read(1)},
    "silent after the dot": {"end": lambda stream: stream.read(1)},
}
BAD.update({f"421 at {step}": {step: b"421 4.3.2 going down\r\n"} for step in STEPS})


@pytest.mark.parametrize("name", BAD)
def test_misbehaviour_is_waited_out(tern, scripted_host, sink, name):
    """The mail stays queued, nobody gets a notification, other mail goes; when the host is itself again
    the mail arrives."""
    answers = dict(BAD[name])
    odd, good = scripted_host(serve(answers)), sink()
    router = tern(FAST + TIMES + f"""
  domains = {{ ["odd.test"] = route.hosts {{ "{odd.address}", tls = "none" }},
              ["*"] = route.hosts {{ "{good.address}" }} }},
""")
    send(router, "u@odd.test", test_id="odd")
    failed = router.wait_for(("host_failed", "deferred"), recipient="u@odd.test")
    assert failed.get("why") or failed.get("reply"), failed
    send(router, "u@good.test", test_id="other")
    good.wait_ids({"other"})
    assert router.peak_memory() < 300e6
    answers.clear()
    router.wait_for("delivered", recipient="u@odd.test")
    assert router.log.all("bounced") == [] and set(good.ids()) == {"other"}


def test_ten_thousand_extensions(tern, scripted_host):
    """It may be refused or borne; what is known of the host must not be."""
    answers = {"EHLO": b"250-XYZ\r\n" * 10_000 + b"250 END\r\n"}
    odd = scripted_host(serve(answers))
    router = tern(to_hosts(odd) + FAST + TIMES)
    send(router, test_id="odd")
    router.wait_for(("host_failed", "deferred", "delivered"))
    answers.clear()
    router.wait_for("delivered")
    assert router.peak_memory() < 300e6


def test_control_bytes_in_a_reply(tern, scripted_host, sink):
    """They reach neither the log, nor the terminal, nor the notification as they are."""
    odd, home = scripted_host(serve({"RCPT": b"550 5.1.1 \x1b[31mred\x07\x00\xff\xfe bell\r\n"})), sink()
    router = tern(FAST + f"""
  domains = {{ ["odd.test"] = route.hosts {{ "{odd.address}" }},
              ["*"] = route.hosts {{ "{home.address}" }} }},
""")
    send(router, "u@odd.test", test_id="odd")
    dsn = home.wait()[0]
    assert b"bell" in dsn.content
    assert not set(dsn.content) & (set(range(32)) - set(b"\r\n\t") | {127})
    bounced = router.wait_for("bounced")
    assert "bell" in bounced["reply"]
    line = next(l for l in router.child.out if '"bounced"' in l)
    assert line.isprintable() and json.loads(line)
