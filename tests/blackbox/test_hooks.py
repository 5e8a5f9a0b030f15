"""Lua hooks: each is called with what belongs to it, may wait, may fail, and cannot reach out."""
import time

import pytest

from addresses import fresh_ip
from clients import Raw, message, send
from daemon import to_hosts

# Every hook writes a line of the log with what it sees.
WITNESS = """
local log = require "tern.log"
local function who(ctx)
  local s = ctx.session
  return s and s.client.address or "none"
end
local witness = {
  name = "witness",
  connect = function(ctx)
    log.info { "connect", client = who(ctx), listener = ctx.session.listener,
      at = ctx.session["local"].address, helo = tostring(ctx.session.helo) }
  end,
  helo = function(ctx)
    log.info { "helo", helo = ctx.session.helo, esmtp = ctx.session.esmtp,
      relay = ctx.session.may_relay }
    ctx.session.data.seen = "kept in the session"
  end,
  mail = function(ctx)
    log.info { "mail", sender = ctx.message.sender, domain = ctx.message.sender_domain,
      size = ctx.message.size, body = tostring(ctx.message.params.body),
      data = ctx.session.data.seen, headers = tostring(ctx.message.headers) }
    ctx.message.data.n = 0
  end,
  rcpt = function(ctx)
    ctx.message.data.n = ctx.message.data.n + 1
    log.info { "rcpt", address = ctx.recipient.address, ["local_part"] = ctx.recipient.local_part,
      domain = ctx.recipient.domain, number = ctx.message.data.n }
  end,
  data = function(ctx)
    local m, n = ctx.message, 0
    for chunk in m.body do n = n + #chunk end
    log.info { "data", subject = m.headers:get("subject"), received = #m.headers:all("Received"),
      body = n, start = m.body:text(5), size = m.size, number = m.data.n }
    m.headers:add("X-Seen", "yes")
    m.headers:set("Subject", "changed")
    m.headers:remove("X-Secret")
  end,
  route = function(ctx)
    log.info { "route", address = ctx.recipient.address, sender = ctx.message.sender,
      id = ctx.message.id, client = ctx.message.client.address }
  end,
  result = function(ctx)
    local a = ctx.attempt
    log.info { "result", number = a.number, code = a.reply and a.reply.code or 0,
      enhanced = a.reply and a.reply.enhanced or "", scope = a.scope, stage = a.stage,
      permanent = a.permanent, session = tostring(ctx.session), queued = a.queued_for,
      host = tostring(a.address) }
  end,
  etrn = function(ctx)
    log.info { "etrn", domain = ctx.request.domain, option = tostring(ctx.request.option),
      operator = ctx.request.operator, client = who(ctx) }
  end,
  event = function(ctx)
    if ctx.event.name == "message_accepted" then
      log.info { "event", sender = ctx.event.sender, recipients = ctx.event.recipients,
        severity = ctx.event.level }
    end
  end,
}
"""
FAST = '  queue = { retry = "1s...", host_retry = "1s", host_retry_max = "1s" },\n'


def seen(router, text, **fields):
    return router.wait_for("policy_log", text=text, **fields)


def test_each_hook_sees_what_belongs_to_it(tern, sink):
    host = sink()
    host.replies["RCPT"] = lambda a: "450 4.2.1 full" if "full" in a else None
    router = tern(f"""
  domains = {{ ["rcpt.test"] = {{ name = "nothing" }} }},
  policies = {{ witness, {{ route = function() return route.hosts {{ "{host.address}" }} end }} }},
{FAST}""", WITNESS)
    content = "X-Secret: 1\r\n" + message("one", subject="original", body="12345678")
    with Raw(router, source="127.3.2.1") as raw:
        raw.hello("helo.test")
        raw.expect(250, "MAIL FROM:<Anna@Sender.TEST> SIZE=500 BODY=8BITMIME")
        raw.expect(250, "RCPT TO:<u@RCPT.test>")
        raw.expect(250, 'RCPT TO:<"full box"@rcpt.test>')
        assert raw.data(content).code == 250
        raw.cmd("ETRN shop.test")

    connect = seen(router, "connect")
    assert (connect["client"], connect["listener"], connect["at"], connect["helo"]) == (
        "127.3.2.1", "smtp", router.ip, "nil")
    helo = seen(router, "helo")
    assert (helo["helo"], helo["esmtp"], helo["relay"]) == ("helo.test", True, False)
    mail = seen(router, "mail")
    assert (mail["sender"], mail["domain"], mail["size"], mail["body"]) == (
        "Anna@Sender.TEST", "sender.test", 500, "8BITMIME")
    assert (mail["data"], mail["headers"]) == ("kept in the session", "nil")
    first, second = seen(router, "rcpt"), router.wait_for("policy_log", count=2, text="rcpt")
    assert (first["address"], first["local_part"], first["domain"], first["number"]) == (
        "u@RCPT.test", "u", "rcpt.test", 1)
    assert (second["local_part"], second["number"]) == ('"full box"', 2)
    data = router.wait_for("policy_log", subject="original")
    assert data["body"] == len("12345678\r\n") and data["number"] == 2
    assert data["size"] > len(content) and data["received"] == 0  # our own one counts in size
    assert data["start"] == "12345"
    assert router.log.all("policy_log", subject="original") == [data], "data runs once"
    accepted = router.wait_for("message_accepted")
    for address in ("u@RCPT.test", '"full box"@rcpt.test'):
        route = seen(router, "route", address=address)
        assert (route["id"], route["client"]) == (accepted["id"], "127.3.2.1")
    result = seen(router, "result")
    assert (result["number"], result["code"], result["enhanced"], result["scope"]) == (
        1, 450, "4.2.1", "recipient")
    assert result["permanent"] is False and result["session"] == "nil" and result["stage"] == "RCPT TO"
    assert result["host"] == host.address and 0 <= result["queued"] < 30
    etrn = seen(router, "etrn")
    assert (etrn["domain"], etrn["option"], etrn["operator"], etrn["client"]) == (
        "shop.test", "nil", False, "127.3.2.1")
    event = seen(router, "event")
    assert (event["sender"], event["recipients"], event["severity"]) == ("Anna@Sender.TEST", 2, "info")

    arrived = host.wait()[0]
    assert arrived.subject == "changed" and arrived.message["X-Seen"] == "yes"
    assert arrived.message["X-Secret"] is None and arrived.id == "one"
    assert arrived.content.count(b"Subject:") == 1


HOOK_TEXT = {
    "connect": (554, "5.7.1"), "helo": (550, "5.7.1"), "mail": (550, "5.7.1"),
    "rcpt": (550, "5.7.1"), "data": (550, "5.7.1")}


def replies(raw):
    """What each step of a mail is answered, up to the first refusal."""
    steps = [("connect", raw.greeting)]
    for hook, line in (("helo", "EHLO client.test"), ("mail", "MAIL FROM:<a@sender.test>"),
                       ("rcpt", "RCPT TO:<b@rcpt.test>"), ("data", "DATA")):
        if steps[-1][1].code >= 400:
            return steps[-1]
        steps.append((hook, raw.cmd(line)))
    if steps[-1][1].code != 354:
        return steps[-1]
    raw.send(message() + ".\r\n")
    return "data", raw.reply()


@pytest.mark.parametrize("hook", HOOK_TEXT)
def test_reject(tern, sink, hook):
    router = tern(to_hosts(sink()) + f"""
  policies = {{ {{ {hook} = function() return tern.reject {{ 550, "5.7.1", "not in this house" }} end }} }},
""")
    with Raw(router) as raw:
        where, reply = replies(raw)
        assert where == hook and reply.code == HOOK_TEXT[hook][0], (where, reply)
        assert "5.7.1" in reply.text and "not in this house" in reply.text


@pytest.mark.parametrize("hook", HOOK_TEXT)
def test_an_error_in_a_hook(tern, sink, hook):
    """The client gets 451, the log the traceback; the session and the router go on."""
    host = sink()
    router = tern(to_hosts(host) + f"""
  policies = {{ {{ {hook} = function(ctx)
    local nothing
    if ctx.session.client.address == "127.0.0.1" then return nothing.field end
  end }} }},
""")
    with Raw(router) as raw:
        where, reply = replies(raw)
        assert where == hook and reply.code == (421 if hook == "connect" else 451), (where, reply)
        assert "nothing" not in reply.text and "tern.lua" not in reply.text, "it shows its inside"
        if hook != "connect":
            raw.expect(250, "RSET")
    failed = router.wait_for("policy_error")
    line = router.config.read_text().splitlines().index(
        '    if ctx.session.client.address == "127.0.0.1" then return nothing.field end') + 1
    assert failed["message"].startswith(f"tern.lua:{line}: ") and "nothing" in failed["message"]
    assert f"tern.lua:{line}: in function" in failed["traceback"], failed
    assert failed["hook"] == hook and failed["level"] == "error"
    send(router, test_id="other", source="127.5.5.5")
    host.wait_ids({"other"})


@pytest.mark.parametrize("on_error, code", [("reject", 554), ("ignore", 250)])
def test_on_error(tern, sink, on_error, code):
    host = sink()
    router = tern(to_hosts(host) + f"""
  on_error = "{on_error}",
  policies = {{ {{ rcpt = function() error "broken" end }} }},
""")
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(code, "RCPT TO:<b@rcpt.test>")


def test_verdicts(tern, sink):
    host = sink()
    router = tern(to_hosts(host) + """
  policies = { { rcpt = function(ctx)
    local l = ctx.recipient.local_part
    if l == "later" then return tern.defer { 450, "4.7.1", "come again" } end
    if l == "drop" then return tern.discard() end
    if l == "open" then return tern.accept() end
  end } },
  domains = { ["rcpt.test"] = route.hosts { "%s" } },
  default_route = route.hosts { "%s" },
""" % (host.address, host.address))
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        reply = raw.expect(450, "RCPT TO:<later@rcpt.test>")
        assert reply.enhanced == "4.7.1" and "come again" in reply.text
        raw.expect(250, "RCPT TO:<drop@rcpt.test>")
        raw.expect(250, "RCPT TO:<u@rcpt.test>")
        raw.expect(250, "RCPT TO:<open@other.test>")
        assert raw.data(message("one")).code == 250
    router.wait_for("discarded", recipient="drop@rcpt.test")
    router.wait_for("delivered", count=2)
    assert sorted(r for m in host.mails for r in m.recipients) == ["open@other.test", "u@rcpt.test"]


def test_waiting_for_dns(tern, sink, scripted_dns):
    """tern.dns.mx waits; others are served meanwhile; failures are values."""
    host = sink()
    dns = scripted_dns("known.test. MX 5 a.test.\nknown.test. MX 10 b.test.\nnodata.test. A 127.0.0.1")
    dns.fail("broken.test", "servfail")
    router = tern(to_hosts(host) + """
  policies = { { mail = function(ctx)
    local records, failure = tern.dns.mx(ctx.message.sender_domain)
    tern.log.info { "answer", domain = ctx.message.sender_domain,
      first = records and records[1].host, preference = records and records[1].preference,
      n = records and #records or -1, kind = failure and failure.kind }
  end } },
""", dns=dns)
    for domain in ("known.test", "nodata.test", "nosuch.test", "broken.test"):
        send(router, sender=f"a@{domain}", test_id=domain)
    seen(router, "answer", domain="broken.test")
    answer = {e["domain"]: e for e in router.log.all("policy_log", text="answer")}
    assert (answer["known.test"]["first"].rstrip("."), answer["known.test"]["preference"],
            answer["known.test"]["n"]) == ("a.test", 5, 2)
    assert [answer[d]["kind"] for d in ("nodata.test", "nosuch.test", "broken.test")] == [
        "nodata", "nxdomain", "servfail"]


def test_a_hook_that_sleeps_stops_nobody_else(tern, sink):
    host = sink()
    router = tern(to_hosts(host) + """
  workers = 1,
  policies = { { rcpt = function(ctx)
    if ctx.recipient.local_part == "slow" then tern.sleep("2s") end
  end } },
""")
    with Raw(router) as slow:
        slow.hello()
        slow.expect(250, "MAIL FROM:<a@sender.test>")
        began = time.monotonic()
        slow.send("RCPT TO:<slow@rcpt.test>\r\n")
        for n in range(5):
            send(router, test_id=f"m{n}")
        assert time.monotonic() - began < 2, "others had to wait"
        assert slow.reply().code == 250
        assert 1.9 < time.monotonic() - began < 5
        assert slow.data(message("slow")).code == 250
    host.wait_ids({f"m{n}" for n in range(5)} | {"slow"})


def test_a_hook_waits_and_the_client_goes_away(tern, sink):
    """Its session ends while it waits: nothing is resumed into a dead session."""
    host = sink()
    router = tern(to_hosts(host) + """
  workers = 1,
  policies = { { rcpt = function(ctx)
    tern.sleep("300ms")
    tern.log.info { "woke up", listener = ctx.session.listener }
  end } },
""")
    for _ in range(20):
        with Raw(router) as raw:
            raw.hello()
            raw.send("MAIL FROM:<a@sender.test>\r\nRCPT TO:<gone@rcpt.test>\r\n")
            raw.reply()
    send(router, test_id="one")
    host.wait_ids({"one"})
    assert router.running


def test_I210_talking_before_the_greeting(tern, sink):
    """Who does not wait for the greeting is no mail server."""
    router = tern(to_hosts(sink()) + """
  policies = { { connect = function() tern.sleep("300ms") end } },
""")
    with Raw(router, greet=False) as raw:
        raw.send("EHLO client.test\r\n")
        assert [r.code for r in raw.until_closed()] == [554]


def test_the_deadline_of_a_hook(tern, sink):
    """timeouts.hook: waiting too long is an error of the hook."""
    router = tern(to_hosts(sink()) + """
  timeouts = { hook = "1s" },
  policies = { { rcpt = function() tern.sleep("1h") end } },
""")
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        began = time.monotonic()
        raw.expect(451, "RCPT TO:<b@rcpt.test>")
        assert time.monotonic() - began < 5
    assert "tern.sleep" in str(router.wait_for("policy_error")), "it says what it waited for"


def test_sandbox(tern, sink):
    """What is not there: the file system, the shell, the inside of the interpreter, bytecode."""
    router = tern(to_hosts(sink()) + """
  policies = { { rcpt = function()
    local function get(f) local ok, v = pcall(f) return ok and v or nil end
    local function missing(name, f)
      tern.log.info { "sandbox", what = name, there = get(f) ~= nil }
    end
    missing("io", function() return io end)
    missing("debug", function() return debug end)
    missing("package", function() return package end)
    missing("dofile", function() return dofile end)
    missing("loadfile", function() return loadfile end)
    missing("os.execute", function() return os.execute end)
    missing("os.getenv", function() return os.getenv end)
    missing("os.remove", function() return os.remove end)
    missing("os.exit", function() return os.exit end)
    missing("io by require", function() return require "io" end)
    missing("debug by require", function() return require "debug" end)
    missing("a file by require", function() return require "/etc/passwd" end)
    missing("a file beside", function() return require "..tern" end)
    missing("bytecode", function()
      return load(string.dump(function() return 1 end)) end)
    missing("text by load", function() return load("return io")() end)
    missing("string's metatable", function() getmetatable("").__index = nil return 1 end)
    missing("a new global", function() leaked = 1 return leaked end)
    missing("a changed module", function() tern.accept = nil return 1 end)
    missing("finalizers", function() return setmetatable({}, { __gc = function() end }) end)
    tern.log.info { "sandbox", what = "time", there = type(os.time()) == "number" }
  end } },
""")
    send(router)
    seen(router, "sandbox", what="time")
    entries = router.log.all("policy_log", text="sandbox")
    assert {e["what"] for e in entries if e["there"]} == {"time"}
    assert len(entries) == 20


def test_I1111_a_handle_after_its_time(tern, sink):
    """A recipient kept from an earlier call: a clear error, no crash."""
    router = tern(to_hosts(sink()) + """
  policies = { { rcpt = function(ctx)
    local kept = ctx.session.data.kept
    ctx.session.data.kept = ctx.recipient
    if kept then return tern.reject { 550, "5.7.1", kept.address } end
  end } },
""")
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(250, "RCPT TO:<b@rcpt.test>")
        raw.expect(451, "RCPT TO:<c@rcpt.test>")
    failed = router.wait_for("policy_error")
    assert "recipient" in str(failed), failed


def test_I1110_header_values_cannot_smuggle(tern, sink):
    """CR and LF in a value or a name: an error of the hook, never two headers."""
    router = tern(to_hosts(sink()) + """
  policies = { { data = function(ctx)
    for i, bad in ipairs { "a\\r\\nBcc: x", "a\\nBcc: x", "a\\rb", "a\\0b", "a\\r\\n\\r\\nbody" } do
      local ok = pcall(ctx.message.headers.add, ctx.message.headers, "X-Test", bad)
      tern.log.info { "value", n = i, taken = ok }
    end
    for i, bad in ipairs { "Bad Name", "Bad:Name", "", "Bad\\r\\nName", "Bäd" } do
      local ok = pcall(ctx.message.headers.add, ctx.message.headers, bad, "x")
      tern.log.info { "name", n = i, taken = ok }
    end
  end } },
""")
    send(router, test_id="one")
    seen(router, "name", n=5)
    entries = router.log.all("policy_log", text="value") + router.log.all("policy_log", text="name")
    assert len(entries) == 10 and not any(e["taken"] for e in entries), entries


def test_route_hook_chooses(tern, sink):
    """Routes of a hook: hosts by recipient, discard, bounce."""
    one, two, home = sink(), sink(), sink()
    router = tern(f"""
  domains = {{ ["rcpt.test"] = {{ route = function(ctx)
      local l = ctx.recipient.local_part
      if l == "one" then return route.hosts {{ "{one.address}" }} end
      if l == "two" then return route.hosts {{ "{two.address}" }} end
      if l == "drop" then return route.discard {{ reason = "not wanted" }} end
      return tern.bounce {{ 550, "5.1.1", "nobody of that name" }}
    end }},
    ["sender.test"] = route.hosts {{ "{home.address}" }},
  }},
""")
    send(router, ["one@rcpt.test", "two@rcpt.test", "drop@rcpt.test", "nobody@rcpt.test"], test_id="x")
    assert one.wait()[0].recipients == ["one@rcpt.test"]
    assert two.wait()[0].recipients == ["two@rcpt.test"]
    router.wait_for("discarded", recipient="drop@rcpt.test")
    dsn = home.wait()[0]
    assert dsn.sender == "" and b"nobody of that name" in dsn.content and b"5.1.1" in dsn.content


def test_result_hook_decides(tern, sink):
    """defer{retry}, bounce, another route."""
    primary, other, home = sink(), sink(), sink()
    primary.replies["RCPT"] = lambda a: "450 4.2.0 grey" if a.startswith("quick") else (
        "550 5.1.1 gone" if a.startswith("moved") else "450 4.2.2 full")
    router = tern(f"""
  queue = {{ retry = "1h..." }},
  domains = {{
    ["rcpt.test"] = {{
      route = function() return route.hosts {{ "{primary.address}" }} end,
      result = function(ctx)
        local l = ctx.recipient.local_part
        if l == "moved" then return route.hosts {{ "{other.address}" }} end
        if l == "full" then return tern.bounce {{ 552, "5.2.2", "still full" }} end
        if ctx.attempt.number == 1 then return tern.defer {{ retry = "1s" }} end
      end,
    }},
    ["sender.test"] = route.hosts {{ "{home.address}" }},
  }},
""")
    send(router, ["quick@rcpt.test", "moved@rcpt.test", "full@rcpt.test"], test_id="one")
    assert other.wait()[0].recipients == ["moved@rcpt.test"]
    dsn = home.wait()[0]
    assert b"still full" in dsn.content and b"full@rcpt.test" in dsn.content
    router.wait_for("deferred", recipient="quick@rcpt.test", attempt=1)
    primary.replies.clear()
    assert primary.wait()[0].recipients == ["quick@rcpt.test"]


def test_etrn_hook_decides(tern, sink):
    """A policy of one's own: by the address that asks, to a host of its choice."""
    host, client = sink(), fresh_ip()
    router = tern(f"""
  domains = {{ ["shop.test"] = {{
    route = function() return route.hold {{ queue = "shop", reason = "night" }} end,
    etrn = function(ctx)
      if ctx.session.client.address == "{client}" then
        return tern.release {{ queue = "shop", deliver_to = "{host.address}" }}
      end
      return tern.reject {{ 459, "4.7.1", "not you" }}
    end,
  }} }},
""")
    send(router, "u@shop.test", test_id="one")
    for source, code in (("127.0.0.1", 459), (client, 253)):
        with Raw(router, source=source) as raw:
            raw.hello()
            raw.expect(code, "ETRN shop.test")
    host.wait_ids({"one"})


def test_domains_as_a_function(tern, sink):
    host = sink()
    router = tern("""
  domains = function(name)
    if name:find("^customer%d+%.test$") then return route.hosts { "HOST" } end
  end,
""".replace("HOST", host.address))
    send(router, "u@customer17.test", test_id="one")
    host.wait_ids({"one"})
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        raw.expect(550, "RCPT TO:<u@customer.test>")


def test_order_of_policies(tern, sink):
    """The domain's policy, then `policies` in order, then the sender's; the first answer wins."""
    host = sink()
    router = tern(f"""
  relay_from = {{ "127.0.0.0/8" }},
  domains = {{ ["rcpt.test"] = {{
    rcpt = function(ctx)
      tern.log.info {{ "asked", who = "domain", address = ctx.recipient.address }}
      if ctx.recipient.local_part == "domain" then return tern.accept() end
    end,
    route = function() return route.hosts {{ "{host.address}" }} end }} }},
  policies = {{
    {{ rcpt = function(ctx)
      tern.log.info {{ "asked", who = "first", address = ctx.recipient.address }}
      if ctx.recipient.local_part == "first" then return tern.accept() end
    end }},
    {{ rcpt = function(ctx)
      tern.log.info {{ "asked", who = "second", address = ctx.recipient.address }}
    end }},
  }},
  senders = {{ ["sender.test"] = {{
    rcpt = function(ctx)
      tern.log.info {{ "asked", who = "sender", address = ctx.recipient.address }}
    end }} }},
""")
    expected = {"domain": ["domain"], "first": ["domain", "first"],
                "all": ["domain", "first", "second", "sender"]}
    for n, (local, who) in enumerate(expected.items()):
        send(router, f"{local}@rcpt.test")
        router.wait_for("message_accepted", count=n + 1)
        asked = router.log.all("policy_log", text="asked", address=f"{local}@rcpt.test")
        assert [e["who"] for e in asked] == who
