"""Messages into files and back: tern queue export, tern queue import."""
import http.client
import json
import os
import signal
import socket
import subprocess

import pytest

from clients import Raw, message, send
from daemon import tern_binary, to_hosts
from waiting import until

SLOW = '  queue = { retry = "1h...", host_retry = "1h", host_retry_max = "1h" },\n'


def stored(router, id_):
    """The message as the router has it."""
    return subprocess.run([tern_binary(), "queue", "show", id_, "--content", "-c", router.config],
                          stdout=subprocess.PIPE, timeout=20, check=True).stdout


@pytest.fixture
def host(sink):
    return sink(up=False)


@pytest.fixture
def router(tern, host):
    return tern(to_hosts(host) + SLOW)


def queue_some(router):
    """A message with all parameters of DSN, one from the null sender, a large one."""
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test> RET=HDRS ENVID=Q+2BQ SIZE=200 BODY=8BITMIME")
        raw.expect(250, "RCPT TO:<one@rcpt.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+2Bone@old.test")
        raw.expect(250, "RCPT TO:<two@rcpt.test> NOTIFY=NEVER")
        raw.expect(250, "RCPT TO:<three@rcpt.test>")
        assert raw.data(message("dsn", body=".dots\n..\n.\n\ngrüße")).code == 250
    send(router, "u@rcpt.test", sender="", test_id="null")
    send(router, "big@rcpt.test", test_id="big", body="\n".join(["x" * 900] * 3000))
    until(lambda: len(router.queued()) == 5, "all is queued")
    until(lambda: all(not q["active"] for q in router.queues()), "its host is down")


def envelopes(folder):
    return {e["id"]: e for e in (json.loads(p.read_text()) for p in folder.glob("*.json"))}


def test_out_and_back_octet_for_octet(router, host, folder):
    queue_some(router)
    before = router.queued()
    out = folder / "out"
    assert router.json("queue", "export", out)["messages"] == 3
    assert router.queued() == before, "export changes nothing"
    files = envelopes(out)
    assert sorted(p.name for p in out.iterdir()) == sorted(
        f"{id_}.{kind}" for id_ in files for kind in ("eml", "json"))
    contents = {id_: (out / f"{id_}.eml").read_bytes() for id_ in files}
    for id_, content in contents.items():
        assert content == stored(router, id_) and len(content) == files[id_]["size"]
        assert (out / f"{id_}.eml").stat().st_mode & 0o777 == 0o600
    dsn = next(e for e in files.values() if e["envid"])
    assert (dsn["sender"], dsn["envid"], dsn["ret"], dsn["eight_bit"]) == (
        "a@sender.test", "Q+Q", "hdrs", True)
    told = {r["address"]: (r["notify"], r["orcpt"], r["state"]) for r in dsn["recipients"]}
    assert told == {"one@rcpt.test": (["success", "delay"], "rfc822;first+one@old.test", "scheduled"),
                    "two@rcpt.test": (["never"], None, "scheduled"),
                    "three@rcpt.test": ([], None, "scheduled")}

    assert router.json("queue", "remove", "--all")["changed"] == 5
    assert router.queued() == []
    done = router.json("queue", "import", out)
    assert (done["accepted"], done["refused"]) == (3, 0)
    assert sorted(p.suffix for p in out.iterdir()) == [".done"] * 6
    assert len(router.queued()) == 5 and not {m["id"] for m in router.queued()} & set(files)
    again = router.json("queue", "import", out)
    assert again["accepted"] == 0, "what is done is not done again"
    second = folder / "second"
    router.ok("queue", "export", second)
    restored = next(e for e in envelopes(second).values() if e["envid"])
    for field in ("sender", "envid", "ret", "eight_bit", "smtputf8", "size", "client", "helo",
                  "identity", "service", "tls", "notification"):
        assert restored[field] == dsn[field], field
    assert {r["address"]: (r["notify"], r["orcpt"], r["state"]) for r in restored["recipients"]} == told

    host.up()
    router.ok("queue", "retry", "--all")
    host.wait_ids({"dsn", "null", "big"})
    until(lambda: not router.queued(), "the queue is empty")
    mails = [m for m in host.mails if b"MAILER-DAEMON" not in m.content]
    assert sorted(m.content for m in mails) == sorted(contents.values())
    assert [m.sender for m in mails if m.id == "null"] == [""]
    assert len(host.mails) == 4, "and the notification of success that was asked for"


def test_what_a_filter_means(router, host, folder):
    queue_some(router)
    out = folder / "out"
    text = router.ok("queue", "export", out, "--recipient", "t*@rcpt.test")
    assert "1 message for 2 recipients" in text
    (envelope,) = envelopes(out).values()
    assert [r["address"] for r in envelope["recipients"]] == ["two@rcpt.test", "three@rcpt.test"]
    assert router.json("queue", "export", folder / "q", "--queue", host.address, "--larger",
                       "1M")["messages"] == 1
    assert router.json("queue", "export", folder / "r", "--queue", host.address)["recipients"] == 5
    for bad in (["--state", "active"], ["--older", "x"]):
        assert router.cli("queue", "export", folder / "s", *bad).returncode == 64
    assert router.cli("queue", "export").returncode == 64
    assert router.cli("queue", "export", "/proc/nowhere/x").returncode == 73


def test_recipients_that_stand_apart_in_the_index(tern, sink, folder):
    """Along a queue's index the second recipient of a message is found before its first."""
    host = sink()
    host.replies["RCPT"] = lambda a: "451 4.7.1 not now"
    router = tern(to_hosts(host) + '  queue = { retry = "1h, 9h...", host_retry = "1h" },\n')
    send(router, ["one@rcpt.test", "two@rcpt.test"], test_id="apart")
    send(router, "between@rcpt.test", test_id="between")
    until(lambda: len(router.json("queue", "list", "--state", "deferred")["messages"]) == 3,
          "all are deferred")
    router.ok("queue", "retry", "--recipient", "one@rcpt.test")
    router.wait_for("deferred", count=4)
    until(lambda: len(router.json("queue", "list", "--state", "deferred")["messages"]) == 3,
          "all are deferred again")
    out = folder / "out"
    done = router.json("queue", "export", out, "--queue", host.address)
    assert (done["messages"], done["recipients"], done["gone"]) == (2, 3, 0)
    assert sorted([r["address"] for r in e["recipients"]] for e in envelopes(out).values()) == [
        ["between@rcpt.test"], ["one@rcpt.test", "two@rcpt.test"]]


def test_temporaries_are_made_anew(router, folder):
    """What stands under the name of a temporary is neither written into nor followed."""
    queue_some(router)
    out, other = folder / "out", folder / "other"
    out.mkdir()
    other.write_text("as it was")
    names = {m["id"] for m in router.queued()}
    for name in names:
        (out / f".{name}.json.tmp").hardlink_to(other)
        (out / f".{name}.eml.tmp").symlink_to(other)
    assert router.json("queue", "export", out)["messages"] == len(names)
    assert other.read_text() == "as it was"
    assert len(list(out.iterdir())) == 2 * len(names)


def test_import_takes_regular_files_only(router, folder):
    box = folder / "box"
    box.mkdir()
    envelope = json.dumps({"sender": "", "recipients": ["u@rcpt.test"]})
    (folder / "secret").write_text(envelope)
    (box / "link.json").symlink_to(folder / "secret")
    os.mkfifo(box / "pipe.json")
    (box / "body.json").write_text(envelope)
    os.mkfifo(box / "body.eml")
    done = router.cli("queue", "import", box)
    assert done.returncode == 65 and "0 messages accepted" in done.stdout, (done.stdout, done.stderr)
    for words in ("link.json is a symbolic link", "pipe.json is no regular file",
                  "body.eml is no regular file"):
        assert words in done.stderr, done.stderr


def test_a_damaged_record_ends_nothing(router, host, folder):
    """It is named; export and operations go on with the others; it can be removed by its id."""
    queue_some(router)
    (id_,) = {m["id"] for m in router.queued() if m["recipient"] == "two@rcpt.test"}
    router.stop()
    data = router.spool / "data.mdb"
    content, address = data.read_bytes(), b"two@rcpt.test"
    assert bytes([len(address)]) + address in content
    data.write_bytes(content.replace(bytes([len(address)]) + address, b"\xff" + address))
    out = folder / "out"
    done = router.cli("queue", "export", out, "--json")
    assert done.returncode == 65 and f"{id_}: recipient 1 cannot be read" in done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert (told["messages"], told["recipients"], told["damaged"]) == (3, 4, 1)
    assert [r["n"] for r in envelopes(out)[id_]["recipients"]] == [0, 2]
    router.start()
    op = json.loads(router.cli("queue", "edit", "--all", "--to", "new@rcpt.test", "--json").stdout)
    assert (op["state"], op["changed"], op["failed"]) == ("done", 4, 1), op
    until(lambda: all(not q["active"] for q in router.queues()), "its host is down")
    router.ok("queue", "remove", id_)
    assert sorted(m["recipient"] for m in router.queued()) == ["new@rcpt.test"] * 2
    router.stop()
    assert router.json("spool", "check")["ok"]
    router.start()


def test_export_without_a_router(router, folder):
    queue_some(router)
    router.stop()
    out = folder / "out"
    assert router.json("queue", "export", out)["messages"] == 3
    assert router.cli("queue", "import", out).returncode == 69
    assert len(envelopes(out)) == 3
    router.start()
    assert router.json("queue", "import", out)["accepted"] == 3
    assert len(router.queued()) == 10


def test_hand_written_files(router, host, folder):
    """LF alone, addresses alone; what is wrong with one file is said, and the others are taken."""
    box = folder / "box"
    box.mkdir()

    def put(name, envelope, content=b"Subject: x\n\nhello\n.\n"):
        (box / f"{name}.json").write_text(envelope if isinstance(envelope, str) else json.dumps(envelope))
        if content is not None:
            (box / f"{name}.eml").write_bytes(content)

    put("good", {"sender": "a@sender.test", "recipients": ["b@rcpt.test", {"address": "c@rcpt.test"}]},
        b"Subject: x\nX-Test-Id: good\n\nhello\n.\n")
    put("null", {"sender": "", "recipients": ["b@rcpt.test"]}, b"X-Test-Id: null\r\n\r\nhi\r\n")
    mistakes = {
        "syntax": ('{\n  "sender": "a@b.test",\n  "recipients": [,]\n}', "syntax.json: line 3, column"),
        "list": ("[]", "must be a JSON object"),
        "nobody": ({"sender": "a@b.test", "recipients": []}, "'recipients'"),
        "sender": ({"recipients": ["a@b.test"]}, "'sender' is missing"),
        "badrcpt": ({"sender": "", "recipients": ["not an address"]}, "not an address"),
        "norcpt": ({"sender": "", "recipients": [{"to": "a@b.test"}]}, "'address' is missing"),
        "notify": ({"sender": "", "recipients": [{"address": "a@b.test", "notify": ["maybe"]}]}, "notify"),
        "never": ({"sender": "", "recipients": [{"address": "a@b.test", "notify": ["never", "delay"]}]},
                  "notify"),
        "orcpt": ({"sender": "", "recipients": [{"address": "a@b.test", "orcpt": "a@b.test"}]}, "orcpt"),
        "orcptcrlf": ({"sender": "", "recipients": [
            {"address": "a@b.test", "orcpt": "utf-8;\u00fc@b.test>\r\nRCPT TO:<x@y.test"}]}, "orcpt"),
        "orcpttype": ({"sender": "", "recipients": [
            {"address": "a@b.test", "orcpt": "rfc822 NOTIFY=NEVER\r\nRSET\r\n;a@b.test"}]}, "orcpt"),
        "orcptctrl": ({"sender": "", "recipients": [
            {"address": "a@b.test", "orcpt": "rfc822;a\r\nb@b.test"}]}, "orcpt"),
        "orcptutf8": ({"sender": "", "recipients": [
            {"address": "a@b.test", "orcpt": "rfc822;\u00fc@b.test"}]}, "orcpt"),
        "envid": ({"sender": "", "recipients": ["a@b.test"], "envid": "a\r\nb"}, "'envid'"),
        "envidlong": ({"sender": "", "recipients": ["a@b.test"], "envid": "+" * 40}, "'envid'"),
        "sendercrlf": ({"sender": "a@b.test> X\r\nRSET", "recipients": ["a@b.test"]}, "no address"),
        "rcptcrlf": ({"sender": "", "recipients": ['"a\r\nb"@b.test']}, "no address"),
        "helo": ({"sender": "", "recipients": ["a@b.test"], "helo": "a\nb"}, "'helo'"),
        "identity": ({"sender": "", "recipients": ["a@b.test"], "identity": "a\u001bb"}, "'identity'"),
        "service": ({"sender": "", "recipients": ["a@b.test"], "service": "x" * 1001}, "'service'"),
        "ret": ({"sender": "", "recipients": ["a@b.test"], "ret": "all"}, "'ret'"),
        "client": ({"sender": "", "recipients": ["a@b.test"], "client": "somewhere"}, "'client'"),
    }
    for name, (envelope, _) in mistakes.items():
        put(name, envelope)
    put("lost", {"sender": "", "recipients": ["a@b.test"]}, None)
    put("barecr", {"sender": "", "recipients": ["a@b.test"]}, b"Subject: x\r\n\r\none\rtwo\r\n")
    put("nul", {"sender": "", "recipients": ["a@b.test"]}, b"Subject: x\r\n\r\none\0two\r\n")
    put("empty", {"sender": "", "recipients": ["a@b.test"]}, b"")
    done = router.cli("queue", "import", box)
    assert done.returncode == 65 and "2 messages accepted" in done.stdout, (done.stdout, done.stderr)
    for name, (_, words) in mistakes.items():
        line = next(l for l in done.stderr.splitlines() if f"/{name}.json" in l)
        assert words in line, line
    assert "lost.eml" in done.stderr and "No such file" in done.stderr
    assert "line 3 of the message (octet 18)" in done.stderr, done.stderr
    assert {p.name for p in box.glob("*.done")} == {"good.json.done", "good.eml.done", "null.json.done",
                                                    "null.eml.done"}
    host.up()
    router.ok("queue", "retry", "--all")
    mails = host.wait_ids({"good", "null"})
    assert mails["good"].content == b"Subject: x\r\nX-Test-Id: good\r\n\r\nhello\r\n.\r\n"
    assert sorted(mails["good"].recipients) == ["b@rcpt.test", "c@rcpt.test"]
    assert router.log.all("message_accepted", sender="a@sender.test")


def test_policies_decide_on_what_is_imported(tern, folder):
    """`route` refuses one for good (it stays where it is), and another for now (the import ends there)."""
    box = folder / "box"
    box.mkdir()
    router = tern(f"""
  policies = {{ {{ name = "p",
    data = function() error "not asked" end,
    route = function(ctx)
      if ctx.message.sender == "bad@sender.test" then return tern.bounce {{ 550, "5.7.1", "not this one" }} end
      if ctx.message.sender == "later@sender.test" then return tern.defer {{ 451, "4.7.1", "not now" }} end
      if ctx.message.sender == "gone@sender.test" then return tern.discard() end
      return route.hold {{ queue = "q-" .. ctx.message.client.address }}
    end }} }},
""")

    def put(name, sender, **fields):
        (box / f"{name}.eml").write_bytes(b"Subject: x\r\n\r\nhello\r\n")
        (box / f"{name}.json").write_text(json.dumps(
            {"sender": sender, "recipients": ["u@rcpt.test"], **fields}))

    put("a", "good@sender.test", service="submission", identity="alice", client="192.0.2.7:4711")
    put("b", "bad@sender.test")
    put("c", "gone@sender.test")
    done = router.cli("queue", "import", box)
    assert done.returncode == 65 and "550 5.7.1 not this one" in done.stderr
    (entry,) = router.queued()
    assert entry["state"] == "waiting" and entry["queue"] == "q-192.0.2.7"
    shown = router.json("queue", "show", entry["id"])
    assert (shown["identity"], shown["client"]) == ("alice", "192.0.2.7:4711")
    assert sorted(p.name for p in box.glob("*.json")) == ["b.json"]
    put("d", "later@sender.test")
    (box / "b.json").unlink()
    done = router.cli("queue", "import", box)
    assert done.returncode == 75 and "d.json" in done.stderr and "451 4.7.1 not now" in done.stderr


def test_a_broken_off_import_goes_on(router, host, folder):
    """Ctrl-C between two messages, a router that is killed: each message is there once in the end."""
    box = folder / "box"
    box.mkdir()
    ids = {f"i{n}" for n in range(300)}
    for n, id_ in enumerate(sorted(ids)):
        (box / f"{n}.eml").write_bytes(message(id_, body="\n".join(["y" * 70] * 100)).encode())
        (box / f"{n}.json").write_text(json.dumps({"sender": "a@sender.test", "recipients": ["u@rcpt.test"]}))
    child = subprocess.Popen([tern_binary(), "queue", "import", box, "-c", router.config],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: len(list(box.glob("*.json.done"))) > 10, "some are done", interval=0.001)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert child.returncode in (0, 130) and "accepted" in out, err
    left = len(list(box.glob("*.json")))
    assert len(router.json("queue", "list", "-n", "1000")["messages"]) == 300 - left
    router.restart()
    assert router.json("queue", "import", box, timeout=60)["accepted"] == left
    host.up()
    router.ok("queue", "retry", "--all")
    host.wait_ids(ids)
    until(lambda: not router.queued(), "the queue is empty")
    assert max(host.ids().values()) == 1


# ---- the API below it ----

def hand_in(router, body, length=None):
    c = http.client.HTTPConnection("tern", timeout=20)
    c.sock = socket.socket(socket.AF_UNIX)
    c.sock.settimeout(20)
    c.sock.connect(str(router.spool / "control.sock"))
    c.putrequest("POST", "/v1/messages")
    c.putheader("Content-Length", str(len(body) if length is None else length))
    c.endheaders()
    c.send(body)
    return c


def answer(c):
    r = c.getresponse()
    return r.status, json.loads(r.read())


def test_a_message_over_the_api(router):
    envelope = json.dumps({"sender": "a@sender.test", "recipients": [{"address": "u@rcpt.test"}]}).encode()
    text = b"Subject: x\r\n\r\n" + b"line\r\n" * 100000
    status, told = answer(hand_in(router, envelope + b"\n" + text))
    assert status == 201 and told["recipients"] == 1
    assert stored(router, told["id"]) == text
    for body, status, code in [(b"", 400, "bad_body"), (envelope, 400, "bad_body"),
                               (envelope + b"\n", 400, "bad_body"), (b"{}\n" + text, 400, "bad_envelope"),
                               (b"x\n" + text, 400, "bad_envelope"),
                               (envelope + b"\n" + text + b"bare\n", 400, "bad_content"),
                               (envelope + b"\n" + text + b"\r", 400, "bad_content"),
                               (envelope + b"\n" + text + b"x" * 999 + b"\r\n", 400, "bad_content"),
                               (b"x" * 5000000, 413, "too_large")]:
        got, told = answer(hand_in(router, body))
        assert (got, told["error"]) == (status, code), told
    assert len(router.queued()) == 1


def test_a_client_that_goes_away(router):
    """In the middle of a message: nothing of it is left, and what is being received ends with the router."""
    envelope = json.dumps({"sender": "a@sender.test", "recipients": [{"address": "u@rcpt.test"}]}).encode()
    for size in (10, 100000, 5000000):
        body = envelope + b"\nSubject: x\r\n\r\n" + b"line\r\n" * (size // 6)
        hand_in(router, body, length=len(body) + 10).close()
    waiting = [hand_in(router, envelope + b"\nSubject: x\r\n\r\n", length=10000) for _ in range(16)]
    until(lambda: answer(hand_in(router, envelope + b"\nx: y\r\n\r\n"))[0] == 409, "no more at once")
    waiting.pop().close()
    until(lambda: answer(hand_in(router, envelope + b"\nx: y\r\n\r\n"))[0] == 201, "there is room again")
    assert len(router.queued()) == 1
    assert router.stop() < 9
    for c in waiting:
        c.close()
    router.start()
    assert len(router.queued()) == 1


def test_what_follows_a_refusal_is_dropped(router):
    """Room is made between two pieces of a message that was refused for want of it."""
    envelope = json.dumps({"sender": "a@sender.test", "recipients": [{"address": "u@rcpt.test"}]}).encode()
    head = envelope + b"\nSubject: x\r\n\r\n"
    waiting = [hand_in(router, head, length=100000) for _ in range(16)]
    until(lambda: answer(hand_in(router, head + b"x\r\n"))[0] == 409, "no more at once")
    refused = hand_in(router, head, length=len(head) + 6)
    for _ in range(3):  # by then its piece has been looked at, too
        assert answer(hand_in(router, head + b"x\r\n"))[0] == 409
    waiting.pop().close()
    until(lambda: answer(hand_in(router, head + b"x\r\n"))[0] == 201, "there is room again")
    refused.send(b"line\r\n")
    assert answer(refused)[0] == 409
    for c in waiting:
        c.close()
    until(lambda: answer(hand_in(router, head + b"x\r\n"))[0] == 201, "it still runs")
