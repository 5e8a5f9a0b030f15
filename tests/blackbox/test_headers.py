"""Header fields that policies read and change: what they do not name arrives octet for octet, whether the message is
small or staged in the spool, and whether it came by DATA or in chunks."""
import hashlib
import json
import re
import subprocess

import pytest

from clients import Raw, message
from daemon import HOSTNAME, tern_binary, to_hosts
from waiting import until

# Every oddity that a header may have: folding, order, blanks at the end, no blank behind the colon.
ODD = (b"Received: from a.test\r\n\tby b.test;\r\n Mon, 1 Jan 2024 00:00:00 +0000\r\n"
       b"X-Test-Id: odd\r\nSUBJECT:no blank\r\nX-Empty:\r\nX-Blanks:  two before, two behind  \r\n"
       b"x-many: 1\r\nX-Fold: a\r\n \t b  \r\n\tc\r\nX-Many :  2\r\nX-Many: 3\r\n"
       b"X-Long: " + b"w" * 900 + b"\r\nX-Eight: \xc3\xbc\xff\r\n")
BODY = b"first line  \r\n.a dot\r\n..\r\n\r\n" + b"octets \xff\xfe\r\n"
OUR_RECEIVED = re.compile(rb"\AReceived: from .*?\+0000\r\n", re.S)


def large(n):
    line = b"%07d the quick brown fox jumps over the lazy dog, and a line has an end\r\n"
    return b"".join(line % i for i in range(n // 75 + 1))


BODIES = {"small": BODY, "staged": BODY + large(3_000_000), "empty": b""}


def below(mail):
    """What arrived below our Received."""
    found = OUR_RECEIVED.match(mail.content)
    assert found, mail.content[:300]
    return mail.content[found.end():]


def by_data(raw, content):
    raw.expect(250, "MAIL FROM:<a@sender.test> BODY=8BITMIME")
    raw.expect(250, "RCPT TO:<b@rcpt.test>")
    raw.expect(354, "DATA")
    raw.send(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
    return raw.reply()


def by_bdat(raw, content):
    raw.expect(250, "MAIL FROM:<a@sender.test> BODY=8BITMIME")
    raw.expect(250, "RCPT TO:<b@rcpt.test>")
    for at in range(0, len(content), 700_001):
        chunk = content[at:at + 700_001]
        last = " LAST" if at + len(chunk) == len(content) else ""
        raw.send(b"BDAT %d%s\r\n" % (len(chunk), last.encode()) + chunk)
        reply = raw.reply()
    return reply


WAYS = {"DATA": by_data, "BDAT": by_bdat}


def pass_on(router, host, way, content, count=1):
    with Raw(router, timeout=60) as raw:
        raw.hello()
        reply = WAYS[way](raw, content)
        assert reply.code == 250, reply
    return below(host.wait(count, timeout=60)[-1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", BODIES)
def test_what_is_not_changed_is_the_same(tern, sink, way, body):
    host = sink()
    router = tern(to_hosts(host) + """
  policies = { { data = function(ctx)
    local h, n = ctx.message.headers, 0
    for name, value, raw in h:each() do n = n + #name + #value + #raw + #(h:decoded(name) or "") end
    for chunk in ctx.message.body:chunks() do n = n + #chunk end
    tern.log.info { "read", n = n, size = ctx.message.body.size, digest = ctx.message.body:sha256() }
  end } },
""")
    content = ODD + b"\r\n" + BODIES[body]
    assert pass_on(router, host, way, content) == content
    read = router.wait_for("policy_log", text="read")
    assert read["size"] == len(BODIES[body])
    assert read["digest"] == hashlib.sha256(BODIES[body]).hexdigest()
    assert not router.log.all("headers_changed")


CHANGES = """
  policies = {
    { name = "first", data = function(ctx)
      local h = ctx.message.headers
      h:prepend("X-Top", "1")
      h:add("X-Last", ("word "):rep(40))
      h:remove("X-Many", 2)
      h:replace("subject", "grüße", 1)
      h:remove "Received"
    end },
    { name = "second", data = function(ctx)
      local h = ctx.message.headers
      assert(h:get "X-Top" == "1" and h:count "X-Many" == 2 and h:decoded "Subject" == "grüße")
      h:set("X-Empty", "")
    end },
  },
"""


# Folded to 78 columns: the blank at its end stays.
LAST = (b"X-Last: " + b" ".join([b"word"] * 14) + b"\r\n " + b" ".join([b"word"] * 15) + b"\r\n "
        + b" ".join([b"word"] * 11) + b" \r\n")


def changed(head):
    """What becomes of ODD."""
    for old, new in ((re.search(rb"\AReceived: .*?\+0000\r\n", head, re.S).group(), b"X-Top: 1\r\n"),
                     (b"X-Many :  2\r\n", b""), (b"SUBJECT:no blank\r\n", b"subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"),
                     (b"X-Empty:\r\n", b"X-Empty: \r\n")):
        assert head.count(old) == 1
        head = head.replace(old, new)
    return head + LAST


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", BODIES)
def test_what_is_changed_and_what_stays(tern, sink, way, body):
    host = sink()
    router = tern(to_hosts(host) + CHANGES)
    content = ODD + b"\r\n" + BODIES[body]
    assert pass_on(router, host, way, content) == changed(ODD) + b"\r\n" + BODIES[body]
    event = router.wait_for("headers_changed")
    assert event["changes"] == 6
    assert event["what"].startswith("prepended X-Top at tern.lua:") and "removed Received at" in event["what"]


def test_a_large_header_block_is_seen_whole(tern, sink):
    """More than a piece of the spool, of a message that is staged."""
    host = sink()
    router = tern(to_hosts(host) + """
  policies = { { data = function(ctx)
    local h = ctx.message.headers
    assert(h:remove "X-Secret" == 2)
    h:add("X-Fields", tostring(h:count "X-Field"))
  end } },
""")
    fields = b"".join(b"X-Field: %d\r\n %s\r\n" % (i, b"v" * 90) for i in range(2 * 900))
    head = b"X-Secret: 1\r\n" + fields + b"x-secret: 2\r\n"
    assert len(head) > 150_000
    body = large(1_500_000)
    assert pass_on(router, host, "DATA", head + b"\r\n" + body) == \
        fields + b"X-Fields: 1800\r\n\r\n" + body


def test_binary_bodies_stay_binary(tern, scripted_host):
    """Fields are added to the header block; behind it any octets pass."""
    mails = []

    def talk(stream):
        stream.write(b"220 binary.test ESMTP\r\n")
        while line := stream.readline():
            if line.upper().startswith(b"EHLO"):
                stream.write(b"250-binary.test\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 BINARYMIME\r\n")
                mail = b""
                continue
            if line.upper().startswith(b"BDAT"):
                mail += stream.read(int(line.split()[1]))
                if b"LAST" in line.upper():
                    mails.append(mail)
            stream.write(b"250 2.0.0 ok\r\n")

    host = scripted_host(talk)
    router = tern(to_hosts(host) + """
  policies = { { data = function(ctx)
    local n = 0
    for line in ctx.message.body:lines() do n = n + 1 end
    ctx.message.headers:add("X-Lines", tostring(n))
  end } },
""")
    head = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n"
    body = b"\0\r\n\r\r\n\n.\r\n\xff" + bytes(range(256)) * 3 + b"no end"
    content = head + b"\r\n" + body
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test> BODY=BINARYMIME")
        raw.expect(250, "RCPT TO:<b@rcpt.test>")
        raw.send(b"BDAT %d LAST\r\n" % len(content) + content)
        assert raw.reply().code == 250
    until(lambda: mails, "it arrives")
    found = OUR_RECEIVED.match(mails[0])
    lines = body.count(b"\n") + 1
    assert mails[0][found.end():] == head + b"X-Lines: %d\r\n\r\n" % lines + body


def test_loops_are_found_though_received_is_removed(tern):
    """Those that this router wrote stay, whatever a hook says, and are counted when the mail comes again."""
    router = tern("""
  limits = { received_headers = 5 },
  domains = { ["rcpt.test"] = { route = function() return route.hosts { "127.0.0.1:9" } end } },
  policies = { { data = function(ctx)
    ctx.message.headers:remove "Received"
    ctx.message.headers:remove("Received", 1)
    local ok, why = pcall(function() ctx.message.headers:set("Received", "none") end)
    tern.log.info { "set", ok = ok, why = tostring(why), n = ctx.message.headers:count "Received" }
  end } },
""")
    with Raw(router) as raw:
        raw.hello()
        ours = [f"Received: from x by {HOSTNAME} with SMTP; Mon, 1 Jan 2024 0{i}:00:00 +0000\r\n"
                for i in range(5)]
        alien = "Received: from y by z.test; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
        raw.envelope("a@sender.test", "b@rcpt.test")
        assert raw.data("".join(ours[:3]) + alien + message()).code == 250
        said = router.wait_for("policy_log", text="set")
        assert said["n"] == 3 and said["ok"] is False and "goes in circles" in said["why"]
        raw.envelope("a@sender.test", "b@rcpt.test")
        reply = raw.data("".join(ours) + alien + message())
        assert reply.code == 554 and "5.4.6" in reply.text


def test_changes_are_told(tern, sink):
    """In why, in export and import, and by explain, before there is a message."""
    host = sink(up=False)
    router = tern(to_hosts(host) + CHANGES)
    with Raw(router) as raw:
        raw.hello()
        assert by_data(raw, ODD + b"\r\n" + BODY).code == 250
    ident = router.queued()[0]["id"]
    text = router.ok("why", ident)
    assert re.search(r"^  changed    prepended X-Top  \(tern\.lua:\d+\)$", text, re.M), text
    assert re.search(r"^             removed X-Many  \(tern\.lua:\d+\)$", text, re.M)
    changes = router.json("why", ident)["changes"]
    assert [(c["op"], c["name"], c["count"]) for c in changes] == [
        ("prepended", "X-Top", 1), ("added", "X-Last", 1), ("removed", "X-Many", 1), ("replaced", "subject", 1),
        ("removed", "Received", 1), ("replaced", "X-Empty", 1)]

    folder = router.folder / "export"
    router.ok("queue", "export", str(folder))
    assert json.loads((folder / f"{ident}.json").read_text())["changes"] == changes
    content = (folder / f"{ident}.eml").read_bytes()
    assert content[OUR_RECEIVED.match(content).end():] == changed(ODD) + b"\r\n" + BODY
    router.ok("queue", "remove", ident)
    router.ok("queue", "import", str(folder))
    other = until(router.queued, "it is queued again")[0]["id"]
    assert other != ident
    assert router.json("why", other)["changes"] == changes

    letter = router.folder / "letter.eml"
    letter.write_bytes((ODD + b"\r\n" + BODY).replace(b"\r\n", b"\n"))
    args = ["explain", "--from", "a@sender.test", "--to", "b@rcpt.test", "--message"]
    said = router.ok(*args, str(letter))
    assert re.search(r"^data +first .*\n +prepended X-Top  \(tern\.lua:\d+\)$", said, re.M), said
    told = next(h for h in router.json(*args, str(letter))["hooks"] if h["hook"] == "data")
    assert [c for p in told["policies"] for c in p["changes"]] == changes
    assert told["asked"] and told["reply"]["code"] == 250
    piped = subprocess.run([tern_binary(), *args, "-", "-c", router.config, "--json"], timeout=30,
                           input=letter.read_bytes(), capture_output=True)
    assert [h for h in json.loads(piped.stdout)["hooks"] if h["hook"] == "data"] == [told]
    missing = router.cli(*args, "/nonexistent")
    assert missing.returncode == 66 and "/nonexistent" in missing.stderr


def signed_octets(mail, names):
    """What a DKIM signature with simple/simple covers of a mail (RFC 6376 section 3.4): of each name the last field
    as it stands, and the body."""
    head, body = mail.split(b"\r\n\r\n", 1)
    fields = re.findall(rb"[^\r\n]+(?:\r\n[ \t][^\r\n]*)*\r\n", head + b"\r\n")
    return [next(f for f in reversed(fields) if f.lower().startswith(name + b":")) for name in names], body


@pytest.mark.parametrize("breaks", (False, True))
def test_what_a_signature_covers_stays(tern, sink, breaks):
    """Unless a field that it covers is changed."""
    host = sink()
    router = tern(to_hosts(host) + """
  policies = { { data = function(ctx)
    local h = ctx.message.headers
    h:add("X-Added", "yes") h:prepend("X-Top", "yes") h:remove "X-Mailer"
    if h:get "X-Break" then h:replace("Subject", "other") end
  end } },
""")
    mail = (b"DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple;\r\n\th=from:to:subject\r\n"
            b"From: <a@sender.test>\r\nTo:  b@rcpt.test\r\nSubject: odd\r\n  folding \r\nX-Mailer: m\r\n"
            + (b"X-Break: yes\r\n" if breaks else b"") + b"\r\nSome text  \r\nand more\r\n")
    names = (b"dkim-signature", b"from", b"to", b"subject")
    arrived = pass_on(router, host, "DATA", mail)
    assert b"X-Mailer" not in arrived and arrived.startswith(b"X-Top: yes\r\n")
    before, after = signed_octets(mail, names), signed_octets(arrived, names)
    assert (before == after) is not breaks
    assert before[1] == after[1] and before[0][:3] == after[0][:3]
