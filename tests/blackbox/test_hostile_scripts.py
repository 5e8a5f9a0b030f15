"""docs/hostile-input.md, 11: scripts that would take all there is. Each is stopped within its budget, in
each hook; its mail gets 451 or waits; what others notice is measured."""
import pathlib
import statistics
import threading
import time

import pytest

from clients import Raw, message
from daemon import memory_limit, to_hosts
from waiting import until

SCRIPTS = {
    "I1101: bytecode": "assert(load(string.dump(function() return 1 end)))()",
    "I1101: bytecode by hand": "assert(load('\\27Lua\\x54\\0\\x19\\x93\\r\\n\\x1a\\n'))()",
    "I1102: endless loop": "while true do end",
    "I1103: loop of pcall": "while true do pcall(function() while true do end end) end",
    "I1103: loop of pcall of errors": "while true do pcall(error, {}) end",
    "I1104: loop of coroutines": "while true do coroutine.wrap(function() while true do end end)() end",
    "I1104: loop of pcall of coroutines":
        "while true do pcall(coroutine.wrap(function() while true do end end)) end",
    "I1105: gc": "setmetatable({}, { __gc = function() while true do end end })",
    "I1106: pattern": 'for i = 1, 1e9 do (("a"):rep(150)):find(".-.-.-.-b") end',
    "I1106: pattern in pcall": 'while true do pcall(string.find, ("a"):rep(150), ".-.-.-.-b") end',
    "I1107: rep": 'local s = ("x"):rep(1e9)',
    "I1107: rep in steps": 'local s = "x" while true do s = s:rep(1000) end',
    "I1108: table of numbers": "local t = {} for i = 1, math.huge do t[i] = i end",
    "I1108: table of texts": 'local t = {} for i = 1, math.huge do t[i] = ("x"):rep(1000000 - i) end',
    "I1108: tables in tables": "local t = {} while true do t = { t } end",
    "I1108: tables in pcall": "local t = {} while true do pcall(function() while true do t[#t + 1] = { #t } end end) end",
    "I1108: text that doubles": 'local s = "x" while true do s = s .. s end',
    "I1109: recursion": "local function f() return 1 + f() end f()",
    "I1109: recursion through gsub": 'local function f(s) return (s:gsub(".", f)) end f("x")',
    "I1109: recursion through gsub in pcall":
        'local function f(s) return (s:gsub(".", f)) end while true do pcall(f, "x") end',
    "I1109: recursion through metamethods":
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(s, k) return s[k .. k] end local _ = t.x",
    "I1109: recursion through sort": "local function f() table.sort({ 2, 1 }, f) end f()",
}


def processor_time(router):
    """Seconds that all threads of the router have run, to the nanosecond."""
    tasks = pathlib.Path(f"/proc/{router.child.pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9


def policy(hook, code):
    """A hook that runs code for the sender "bomb" only (connect: always)."""
    wanted = "true" if hook == "connect" else 'ctx.message.sender == "bomb@sender.test"'
    return f"{{ name = 'hostile', {hook} = function(ctx) if {wanted} then {code} end end }}"


@pytest.mark.parametrize("code", SCRIPTS.values(), ids=SCRIPTS)
def test_each_is_stopped(watched, code):
    """By its budget of processor time and memory; with 451; the session and others go on."""
    w = watched(f"  workers = 1,\n  policies = {{ {policy('rcpt', code)} }},\n")
    with Raw(w.router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<bomb@sender.test>")
        times, memory = [], [w.router.memory()]
        for _ in range(6):
            began = processor_time(w.router)
            reply = raw.expect(451, "RCPT TO:<b@rcpt.test>")
            times.append(processor_time(w.router) - began)
            memory.append(w.router.memory())
            assert reply.enhanced == "4.3.0"
        print([f"{t * 1000:.0f} ms" for t in times], [f"{m / 1e6:.1f} MB" for m in memory])
        assert statistics.median(times) < 0.1, times
        # 16 MiB as Lua counts them, and what malloc needs for small pieces; not six times that
        assert max(memory) - memory[0] < memory_limit(36_000_000), memory
        raw.expect(250, "RSET")
        assert raw.mail("b@rcpt.test", content=message("same session")).code == 250
    w.router.wait_for("policy_error", policy="hostile")
    w.unharmed(grown=40_000_000)



def attack(router):
    """One session that makes the hook run: the code of the reply in which it ends."""
    with Raw(router) as raw:
        raw.hello()
        for line in ("MAIL FROM:<bomb@sender.test>", "RCPT TO:<b@hook.test>", "DATA"):
            reply = raw.cmd(line)
            if reply.code >= 400:
                return reply.code
        raw.send(message("bomb") + ".\r\n")
        return raw.reply().code


@pytest.mark.parametrize("hook", ["mail", "rcpt", "data", "route"])
def test_each_hook(watched, hook):
    """Wherever it stands, the mail is not lost and not taken by mistake."""
    w = watched(f"  workers = 1,\n  policies = {{ {policy(hook, SCRIPTS['I1103: loop of pcall'])} }},\n"
                '  relay_from = { "127.0.0.0/8" },\n')
    assert attack(w.router) == 451
    w.unharmed()
    assert w.others() == []


def percentile(times, part):
    return statistics.quantiles(times, n=100)[part - 1]


def sessions_of_others(router, seconds):
    """Seconds that each of the mails took that somebody sent in that time, one after another."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        with Raw(router) as raw:
            raw.hello()
            assert raw.mail("alive@rcpt.test", content=message("alive")).code == 250
        times.append(time.monotonic() - began)
    return times


def test_I1112_others_go_on(watched):
    """Somebody makes hostile scripts run in each hook all the time; the mail of others is measured."""
    codes = [SCRIPTS[k] for k in ("I1103: loop of pcall", "I1108: table of texts", "I1106: pattern in pcall",
                                  "I1104: loop of coroutines")]
    policies = [policy(hook, code) for hook, code in zip(("mail", "rcpt", "data", "route"), codes)]
    w = watched(f"""
  workers = 1,
  relay_from = {{ "127.0.0.0/8" }},
  policies = {{ {', '.join(p.replace('bomb@', f'bomb{n}@') for n, p in enumerate(policies))},
    {{ name = "hostile-connect", connect = function(ctx)
      if ctx.session.client.address == "127.9.9.9" then while true do end end end }} }},
""")
    alone = sessions_of_others(w.router, 1.5)
    ending, attacks, took = threading.Event(), [], []

    def hostile():
        while not ending.is_set():
            for n in range(5):
                began = time.monotonic()
                with Raw(w.router, source="127.9.9.9" if n == 4 else None) as raw:
                    reply = raw.greeting
                    for line in ("EHLO x.test", f"MAIL FROM:<bomb{n}@sender.test>", "RCPT TO:<b@hook.test>",
                                 "DATA", message("bomb") + "."):
                        if reply.code >= 400:
                            break
                        reply = raw.cmd(line)
                    attacks.append(reply.code)
                took.append(time.monotonic() - began)
    thread = threading.Thread(target=hostile, daemon=True)
    thread.start()
    try:
        times = sessions_of_others(w.router, 4)
    finally:
        ending.set()
        thread.join(20)
    assert len(attacks) >= 5 and set(attacks) <= {451, 421}, attacks
    p99, before = percentile(times, 99), percentile(alone, 99)
    print(f"p50 {statistics.median(times) * 1000:.1f} ms, p99 {p99 * 1000:.0f} ms with {len(attacks)} attacks; "
          f"alone p50 {statistics.median(alone) * 1000:.1f} ms, p99 {before * 1000:.0f} ms")
    # A session is six turns of the one worker; in each it may wait for a script. How long the 50 ms of the
    # processor take that a script has depends on who else uses the machine.
    assert p99 < before + 6 * max(took) and p99 < 5, took
    until(lambda: not w.router.queued(), "the mail of others is out")
    w.unharmed(grown=40_000_000)
