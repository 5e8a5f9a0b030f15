"""Started by root it becomes an ordinary user, keeps to its sandbox, and all goes on as before."""
import os
import pathlib
import shutil
import signal
import ssl
import stat

import pytest

from certificates import make_certificates
from clients import Raw, send
from daemon import to_hosts
from processes import run
from waiting import until

USER = "nobody"

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def status_of(router):
    """/proc/PID/status as a dict."""
    text = pathlib.Path(f"/proc/{router.child.pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def drops(router, user=USER):
    """Lets it become that user when it starts."""
    router.folder.parent.chmod(0o755)
    router.env = {**router.env, "TERN_USER": user}
    return router


@pytest.fixture
def dropping(new_tern):
    """dropping(fields, ...): a daemon that was started by root and is not root any more."""
    return lambda *args, **options: drops(new_tern(*args, **options)).start()


# ---- who it is ---------------------------------------------------------------------------------

@root_only
def test_it_becomes_its_user_for_good(dropping):
    router = dropping()  # on port 25
    now = status_of(router)
    uid, gid = (os.stat(router.spool).st_uid, os.stat(router.spool).st_gid)
    assert uid != 0 and gid != 0
    assert now["Uid"].split() == [str(uid)] * 4
    assert now["Gid"].split() == [str(gid)] * 4
    assert set(now["Groups"].split()) <= {str(gid)}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"):
        assert int(now[kind], 16) == 0, kind
    assert now["NoNewPrivs"] == "1" and now["Seccomp"] == "2"
    tasks = pathlib.Path(f"/proc/{router.child.pid}/task")
    assert len(list(tasks.iterdir())) > 3
    for task in tasks.iterdir():
        text = (task / "status").read_text()
        assert "\nSeccomp:\t2\n" in text and f"\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in text
    assert (router.spool / "control.sock").stat().st_uid == uid
    assert router.log.all("start")[0]["user"] == USER


@root_only
def test_it_tells_what_it_is(dropping):
    router = dropping()
    said = router.json("status")["privileges"]
    assert said["user"] == USER and said["root"] is False and said["refused"] == 0
    assert said["seccomp"] is True
    assert router.log.all("start")[0]["sandbox"] == said["sandbox"]
    assert f"runs as        {USER}; sandbox: {said['sandbox']}\n" in router.ok("status")
    assert not router.log.all("runs_as_root")


@root_only
def test_no_core_file_holds_mail(dropping):
    router = dropping()
    limits = pathlib.Path(f"/proc/{router.child.pid}/limits").read_text()
    assert next(x for x in limits.splitlines() if x.startswith("Max core")).split()[4] == "0"
    # what is not dumpable belongs to root there, and no process of the same user can look into it
    assert os.stat(f"/proc/{router.child.pid}/mem").st_uid == 0


@root_only
def test_core_files_can_be_wanted(dropping):
    router = dropping("  core_dumps = true,\n")
    assert os.stat(f"/proc/{router.child.pid}/mem").st_uid != 0


@root_only
def test_the_configuration_names_the_user(new_tern):
    router = drops(new_tern(f'  user = "{USER}",\n'), user="").start()
    assert status_of(router)["Uid"].split()[0] != "0"


@root_only
def test_without_a_user_it_says_what_to_do(new_tern):
    router = drops(new_tern(), user="no-such-user")
    done = router.cli("run", env={**os.environ, **router.env})
    assert done.returncode == 78
    assert "no user 'no-such-user'" in done.stderr and "useradd" in done.stderr
    assert not router.spool.exists()


@root_only
def test_staying_root_is_told(new_tern):
    router = drops(new_tern(), user="root").start()
    assert router.log.all("runs_as_root", level="warn")
    assert router.json("status")["privileges"]["root"] is True
    assert "WHO MAY DO EVERYTHING" in router.ok("status")


@root_only
def test_an_ordinary_user_stays_what_it_is(new_tern, sink):
    host = sink()
    router = drops(new_tern(to_hosts(host)), user="")
    router.port = 2525
    router.configure(to_hosts(host))
    shutil.chown(router.folder, USER)
    router.start(user=USER, group="nogroup", extra_groups=[])
    assert status_of(router)["Seccomp"] == "2"
    send(router, test_id="one")
    host.wait_ids({"one"})
    router.stop()
    router.configure('  user = "root",\n')
    router.env = {}
    os.environ["TERN_USER"], before = "", os.environ["TERN_USER"]
    try:
        done = router.cli("run", user=USER, group="nogroup", extra_groups=[])
    finally:
        os.environ["TERN_USER"] = before
    assert done.returncode == 77 and "only root can become another user" in done.stderr


@root_only
def test_the_capability_for_low_ports_is_given_up(new_tern, sink):
    """As in the unit for systemd: an ordinary user with one capability."""
    host = sink()
    router = drops(new_tern(to_hosts(host)), user="")  # on port 25
    shutil.chown(router.folder, USER)
    router.start(wrapper=["setpriv", "--reuid", USER, "--regid", "nogroup", "--clear-groups", "--inh-caps",
                          "-all,+net_bind_service", "--ambient-caps", "+net_bind_service", "--bounding-set",
                          "-all,+net_bind_service"])
    now = status_of(router)
    assert now["Uid"].split()[0] != "0"
    assert all(int(now[kind], 16) == 0 for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")), now
    send(router, test_id="one")
    host.wait_ids({"one"})


@root_only
def test_a_key_for_root_alone_is_told(new_tern, certificates):
    """Not only a year later, when a reload should read the next one."""
    router = drops(new_tern())
    key = router.folder / "key.pem"
    shutil.copy(certificates.key, key)
    key.chmod(0o600)
    router.configure(f'  tls = {{ cert = "{certificates.cert}", key = "{key}" }},\n')
    done = router.cli("run", env={**os.environ, **router.env})
    assert done.returncode == 77, done.stderr
    assert f"cannot read {key} as user {USER}" in done.stderr
    shutil.chown(key, group="nogroup")
    key.chmod(0o640)
    router.start()


@root_only
def test_a_spool_of_roots_is_told(new_tern):
    router = drops(new_tern())
    router.spool.mkdir(mode=0o700)
    done = router.cli("run", env={**os.environ, **router.env})
    assert done.returncode == 77, done.stderr
    assert str(router.spool) in done.stderr


# ---- and all goes on as before -----------------------------------------------------------------

@root_only
def test_mail_flows_and_the_spool_has_its_tools(new_tern, nsd, sink, folder, certificates):
    """DNS by UDP and by TCP, TLS on both sides, and root's tools beside it."""
    host = sink(certificates=certificates)
    names = "\n".join(f"there.test. MX 20 {n:03}.{'x' * 60}.test." for n in range(100))
    zone = nsd(f"{names}\nthere.test. MX 10 best.test.\nbest.test. A {host.ip}")
    router = drops(new_tern(dns=zone))
    key = router.folder / "key.pem"
    shutil.copy(certificates.key, key)
    shutil.chown(key, USER)
    router.configure(f'  tls = {{ cert = "{certificates.cert}", key = "{key}", ca = "{certificates.ca}" }},\n'
                     f'  relay_from = {{ "127.0.0.0/8" }}, dns = {{ servers = {{ "{zone.server}" }}, '
                     "allow_loopback_mx = true },\n")
    router.start()
    with Raw(router) as raw:
        raw.hello()
        raw.start_tls(ssl.create_default_context(cafile=str(certificates.ca)))
        raw.hello()
        assert raw.mail("u@there.test").code == 250
    router.wait_for("delivered", recipient="u@there.test")
    assert len(host.wait(1)) == 1
    assert router.ok("spool", "stats")
    assert router.ok("spool", "check")
    assert router.ok("queue")
    assert all(p.stat().st_uid == router.spool.stat().st_uid for p in router.spool.iterdir())
    router.restart()


CHANGING = """\
local tern, host = require("tern"), require("where")
local refused = tern.map.file("refused.csv", {{ keys = "mail" }})
return {{
  hostname = "mx.test", spool = "{router.spool}", listen = {{ "{router.address}" }},
  dns = {{ servers = {{ "{router.nameserver}" }} }},
  tls = {{ cert = "{folder}/cert.pem", key = "{folder}/key.pem" }},
  policies = {{ {{ rcpt = function(ctx)
    if refused:get(ctx.recipient.address) then return tern.reject {{ 550, "5.7.1", "in the map" }} end
  end }} }},
  domains = {{ ["*"] = require("tern.route").hosts {{ host }} }},
}}
"""


def certificate_of(router):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Raw(router) as raw:
        raw.hello()
        raw.start_tls(context)
        return raw.socket.getpeercert(binary_form=True)


def replace(path, text):
    """As editors and certificate tools do it: a new file takes the name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o644)
    new.rename(path)


@root_only
def test_a_reload_reads_what_is_new(new_tern, sink, folder):
    first, second = sink(), sink()
    router = drops(new_tern())
    conf = router.folder
    for name in ("old", "new"):
        (folder / name).mkdir()
    old, new = make_certificates(folder / "old"), make_certificates(folder / "new")
    replace(conf / "cert.pem", old.cert.read_text())
    replace(conf / "key.pem", old.key.read_text())
    replace(conf / "refused.csv", "nobody@rcpt.test\n")
    replace(conf / "where.lua", f'return "{first.address}"\n')
    router.write(CHANGING.format(router=router, folder=conf))
    router.start()
    before = certificate_of(router)
    send(router, test_id="one")
    first.wait_ids({"one"})
    replace(conf / "cert.pem", new.cert.read_text())
    replace(conf / "key.pem", new.key.read_text())
    replace(conf / "where.lua", f'return "{second.address}"\n')
    router.reload()
    assert certificate_of(router) != before
    send(router, test_id="two")
    second.wait_ids({"two"})
    replace(conf / "refused.csv", "b@rcpt.test\n")
    router.wait_for("map_read", file="refused.csv")
    with Raw(router) as raw:
        raw.hello()
        raw.expect(250, "MAIL FROM:<a@sender.test>")
        assert raw.cmd("RCPT TO:<b@rcpt.test>").code == 550


@root_only
def test_the_log_can_be_rotated(new_tern):
    router = drops(new_tern())
    log = router.folder / "log" / "tern.log"  # its folder is made, and given to the user
    router.configure(f'  log = "{log}",\n')
    router.start(ready=False)
    until(lambda: log.exists() and '"event":"start"' in log.read_text(), "the log says that it runs")
    log.rename(log.with_suffix(".1"))
    router.child.signal(signal.SIGUSR1)
    until(lambda: log.exists() and "log_reopened" in log.read_text(), "a new log file")
    assert log.stat().st_uid == log.parent.stat().st_uid != 0


@root_only
def test_a_reload_cannot_take_a_low_port(dropping, sink):
    host = sink()
    router = dropping(to_hosts(host))
    router.configure(to_hosts(host) + f'  listen = {{ "{router.address}", "{router.ip}:26" }},\n')
    done = router.cli("reload")
    assert done.returncode != 0
    assert f"{router.ip}:26" in done.stderr and "restart it" in done.stderr, done.stderr
    router.configure(to_hosts(host) + f'  listen = {{ "{router.address}", "{router.ip}:2600" }},\n')
    router.reload()
    router.port = 2600
    send(router, test_id="one")
    host.wait_ids({"one"})


# ---- the sandbox -------------------------------------------------------------------------------

def landlock(router):
    if not router.json("status")["privileges"]["landlock"]:
        pytest.skip("this kernel has no Landlock")


def test_a_reload_stays_within_the_sandbox(tern, certificates, folder):
    router = tern()
    landlock(router)
    for fields, name in ((f'  tls = {{ cert = "{certificates.cert}", key = "{certificates.key}" }},\n', "tls.cert"),
                         (f'  log = "{folder}/elsewhere.log",\n', "log")):
        router.configure(fields)
        done = router.cli("reload")
        assert done.returncode == 78, done.stderr
        assert f"'{name}' is " in done.stderr and "restart it" in done.stderr, done.stderr
    router.configure()
    router.reload()


def test_a_policy_outside_of_the_sandbox_is_told(tern, folder):
    router = tern()
    landlock(router)
    (folder / "elsewhere.lua").write_text("return {}\n")
    (router.folder / "linked.lua").symlink_to(folder / "elsewhere.lua")
    router.configure('  policies = { require "linked" },\n')
    done = router.cli("reload")
    assert done.returncode != 0
    assert "linked.lua" in done.stderr and "lies outside of the sandbox" in done.stderr, done.stderr


def test_the_sandbox_can_be_left_out(tern):
    router = tern("  sandbox = false,\n")
    assert router.json("status")["privileges"]["sandbox"] == "off"
    now = status_of(router)
    assert now["Seccomp"] == "0" and now["NoNewPrivs"] == "1"
    router.configure()
    done = router.cli("reload")
    assert done.returncode == 78 and "'sandbox' cannot change while the router runs" in done.stderr


OLD_KERNEL = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>

/* Knows no landlock_create_ruleset. */
long syscall(long number, ...)
{
    long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall"), a[6];
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (number == 444) {
        errno = ENOSYS;
        return -1;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"""


def test_a_kernel_that_cannot_confine_is_told(new_tern, session_folder):
    source, library = session_folder / "old_kernel.c", session_folder / "old_kernel.so"
    source.write_text(OLD_KERNEL)
    done = run(["cc", "-shared", "-fPIC", source, "-o", library, "-ldl"])
    assert done.returncode == 0, done.stderr
    router = new_tern()
    router.env = {"LD_PRELOAD": str(library), "ASAN_OPTIONS": "verify_asan_link_order=0"}
    router.start()
    assert router.log.all("sandbox_weaker", level="warn", missing="landlock")
    assert router.json("status")["privileges"]["sandbox"] == "seccomp"
    assert "weaker than it could be: this kernel has no Landlock" in router.ok("status")


def test_nothing_is_refused_to_honest_work(tern, sink):
    """Traffic, a reload, a map, a rotation: no line of a refused system call."""
    host = sink()
    router = tern(to_hosts(host))
    for n in range(20):
        send(router, test_id=str(n))
    host.wait_ids({str(n) for n in range(20)})
    router.reload()
    assert router.ok("spool", "check")
    assert router.json("status")["privileges"]["refused"] == 0
    assert stat.S_ISSOCK((router.spool / "control.sock").stat().st_mode)
