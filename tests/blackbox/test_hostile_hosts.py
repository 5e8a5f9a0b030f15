"""Next hops that do not play by the rules: nothing is lost, nothing is returned by mistake, the router
stays as it was."""
import json
import time

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


def slowly(stream):
    for octet in b"250 2.1.5 as slow as can be\r\n" * 4:
        stream.write(bytes([octet]))
        time.sleep(0.2)  # the pace of this host is the test


BAD = {
    "I801: endless greeting": {"greeting": forever(b"220-and so on\r\n")},
    "I801: endless EHLO": {"EHLO": endless},
    "I802: a line without end": {"RCPT": forever(b"x")},
    "I802: a megabyte in a line": {"MAIL": b"250 " + b"x" * 1_000_000 + b"\r\n"},
    "I804: code 000": {"MAIL": b"000 what\r\n"}, "I804: code 999": {"RCPT": b"999 what\r\n"},
    "I804: no code": {"MAIL": b"hello there\r\n"}, "I804: not SMTP": {"greeting": b"SSH-2.0-OpenSSH_9.2\r\n"},
    "I804: noise": {"greeting": bytes(range(256)) * 100},
    "I807: closes at once": {"greeting": None}, "I807: closes after EHLO": {"EHLO": None},
    "I807: closes after MAIL": {"MAIL": None}, "I807: closes after DATA": {"DATA": None},
    "I807: closes after the dot": {"end": None},
    "I809: 250 instead of 354": {"DATA": b"250 OK\r\n"},
    "I814: replies nobody asked for": {"EHLO": b"250 odd.test\r\n250 2.0.0 OK\r\n250 2.0.0 OK\r\n250 OK\r\n"},
    "I813: silent": {"greeting": lambda stream: stream.read(1)},
    "I813: silent after the dot": {"end": lambda stream: stream.read(1)},
    "I813: silent after EHLO": {"EHLO": lambda stream: stream.read(1)},
    "I806: an octet at a time": {"RCPT": slowly}, "I806: an octet of EHLO at a time": {"EHLO": slowly},
}
BAD.update({f"I808: 421 at {step}": {step: b"421 4.3.2 going down\r\n"} for step in STEPS})


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


def test_I811_ten_thousand_extensions(tern, scripted_host):
    """It may be refused or borne; what is known of the host must not be."""
    answers = {"EHLO": b"250-XYZ\r\n" * 10_000 + b"250 END\r\n"}
    odd = scripted_host(serve(answers))
    router = tern(to_hosts(odd) + FAST + TIMES)
    send(router, test_id="odd")
    router.wait_for(("host_failed", "deferred", "delivered"))
    answers.clear()
    router.wait_for("delivered")
    assert router.peak_memory() < 300e6


def test_I803_lf_only(tern, scripted_host):
    """Replies whose lines end in LF: the mail goes, or waits until the host behaves; it is not lost."""
    answers = {"EHLO": b"250-odd.test\n250 SIZE 1000000\n", "MAIL": b"250 OK\n", "RCPT": b"250 OK\n"}
    odd = scripted_host(serve(answers))
    router = tern(to_hosts(odd) + FAST + TIMES)
    send(router, test_id="odd")
    router.wait_for(("host_failed", "deferred", "delivered"))
    answers.clear()
    router.wait_for("delivered")
    assert router.log.all("bounced") == []


@pytest.mark.parametrize("size, fits", [(b"x", True), (b"-1", True), (b"99999999999999999999999", True), (b"", True),
                                        (b"0", True), (b"10", False)])
def test_I810_size(tern, scripted_host, sink, size, fits):
    """What is no number is no limit; a limit that the message breaks is believed before it is sent."""
    told = []
    answers = {"EHLO": b"250-odd.test\r\n250 SIZE " + size + b"\r\n",
               "MAIL": lambda stream: (told.append(b"MAIL"), stream.write(b"250 OK\r\n"))}
    odd, home = scripted_host(serve(answers)), sink()
    router = tern(FAST + f"""
  domains = {{ ["odd.test"] = route.hosts {{ "{odd.address}" }}, ["*"] = route.hosts {{ "{home.address}" }} }},
""")
    send(router, "u@odd.test", test_id="odd")
    if fits:
        router.wait_for("delivered", recipient="u@odd.test")
        assert told
    else:
        router.wait_for("bounced", recipient="u@odd.test")
        assert told == [] and b"5.3.4" in home.wait()[0].content


def test_I809_no_text_without_354(tern, scripted_host):
    """250 to DATA is no leave to send the message."""
    heard = []

    def talk(stream):
        stream.write(b"220 odd.test\r\n")
        for line in iter(stream.readline, b""):
            heard.append(line)
            stream.write(b"250 OK\r\n")
    odd = scripted_host(talk)
    router = tern(to_hosts(odd) + FAST + TIMES)
    send(router, test_id="secret")
    router.wait_for(("host_failed", "deferred"), count=2)
    assert not any(b"X-Test-Id" in line for line in heard), heard


def test_I814_no_reply_stands_for_another(tern, scripted_host):
    """A host that says 250 for all to come in advance has not taken the message."""
    answers = {"EHLO": b"250 odd.test\r\n" + b"250 OK\r\n" * 2 + b"354 go\r\n250 2.0.0 taken\r\n"}
    odd = scripted_host(serve(answers))
    router = tern(to_hosts(odd) + FAST + TIMES)
    send(router, test_id="odd")
    router.wait_for(("host_failed", "deferred"))
    assert router.log.all("delivered") == []


def test_I805_control_bytes_for_lua(tern, scripted_host):
    """What the hook `result` sees of a reply can be printed."""
    odd = scripted_host(serve({"RCPT": b"450 4.2.0 \x1b[31mred\x07\x00\xff\xfe bell\r\n"}))
    router = tern(to_hosts(odd) + FAST + """
  policies = { { result = function(ctx)
    local text = ctx.attempt.reply.text
    tern.log.info { "seen", bad = text:find("[%c\\127]") ~= nil, bell = text:find("bell", 1, true) ~= nil }
  end } },
""")
    send(router, test_id="odd")
    seen = router.wait_for("policy_log", text="seen")
    assert seen["bell"] and not seen["bad"], seen


def test_I805_control_bytes_in_a_reply(tern, scripted_host, sink):
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
