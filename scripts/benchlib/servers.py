"""The servers that are measured: Tern, Postfix as Debian ships it and tuned, the bare receiver."""
import os
import shutil
import signal
import subprocess

from benchlib.machine import tree
from benchlib.tools import Control, stays_itself, stop

# What an operator's own rule looks like: tables, a pattern, a few conditions. 20 lines.
HOOK_20_LINES = """\
local heavy = { ["bulk.example"] = true, ["news.example"] = true }
local branch = { north = "192.0.2.1:25", south = "192.0.2.2:25" }
local function decide(ctx)
  local domain = ctx.recipient.domain
  if heavy[domain] then
    return route.mx { queue = "bulk", concurrency = 2 }
  end
  local site = domain:match "^(%a+)%.branch%.example$"
  if site and branch[site] then
    return route.hosts { branch[site] }
  end
  if ctx.message.size > 50 * 1024 * 1024 then
    return route.hold { queue = "huge", reason = "too large for the day" }
  end
  if ctx.message.sender == "root@client.example" then
    return route.mx { queue = "alerts" }
  end
  return nil
end
"""

# The addresses of many destinations: 127.1.0.1, 127.1.0.2 ... 127.40.0.1, all of this machine.
PER_NET = 250


def destination(number):
    block, host = divmod(number, PER_NET)
    return f"127.{1 + block // 256}.{block % 256}.{1 + host}"


def domain(number):
    return f"dest-{number + 1:06}.test"


def stop_innermost(process):
    """The last of the tree is the server itself: under strace, strace is above it and waits for it to end."""
    if process.poll() is None:
        os.kill(tree(process.pid)[-1], signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        stop(process)


class Tern:
    """options: hook (20 lines of Lua), workers, concurrency, destinations (more than one: so many domains with a
    next hop each), tls (folder of a certificate), extra (more lines of the configuration)."""

    def __init__(self, tools, folder, port, sink, hook=False, workers=None, concurrency=None, destinations=1,
                 tls=None, extra=""):
        self.tools, self.folder, self.port = tools, folder, port
        self.config = os.path.join(folder, "tern.lua")
        self.control = os.path.join(folder, "control.sock")
        self.log = open(os.path.join(folder, "tern.log"), "a")
        self.process = None
        limit = f", concurrency = {concurrency}" if concurrency else ""
        lines = ['local tern, route = require "tern", require "tern.route"']
        if hook:
            lines.append(HOOK_20_LINES)
        if destinations > 1:
            self.write_map(sink, destinations)
            value = "map:get(ctx.recipient.domain)" if hook else None
            lines += self.many(hook, value, limit)
        else:
            lines.append(f'local hop = route.hosts {{ "127.0.0.1:{sink}"{limit} }}')
            if hook:
                lines.append("local policy = { name = 'bench', route = function(ctx) return decide(ctx) or hop end }")
            lines.append('local domains = { ["*"] = %s }' % ("policy" if hook else "hop"))
        lines += ["return {", '  hostname = "mta.test",', f'  spool = "{folder}/spool", control = "{self.control}",',
                  f'  listen = {{ "127.0.0.1:{port}" }},', "  domains = domains,"]
        if workers:
            lines.append(f"  workers = {workers},")
        if tls:
            lines.append(f'  tls = {{ cert = "{tls}/cert.pem", key = "{tls}/key.pem" }},')
        with open(self.config, "w") as f:
            f.write("\n".join(lines + [extra, "}", ""]))

    def write_map(self, sink, destinations):
        with open(f"{self.folder}/domains.csv", "w") as f:
            f.writelines(f"{domain(n)}, to, {destination(n)}:{sink}\n" for n in range(destinations))

    def many(self, hook, value, limit):
        """A row of the map is a route by itself, or the hook decides first and then takes the row's host."""
        to = f"function(row) return route.hosts {{ row[1]{limit} }} end"
        if not hook:
            return [f'local domains = tern.map.file("domains.csv", {{ policies = {{ to = {to} }} }})']
        made = ("function(row) local hop = route.hosts { row[1]%s }; "
                "return { name = 'bench', route = function(ctx) return decide(ctx) or hop end } end" % limit)
        return [f'local domains = tern.map.file("domains.csv", {{ policies = {{ to = {made} }} }})']

    def start(self, prefix=()):
        command = [*prefix, self.tools.tern, "run", "-c", self.config]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=stays_itself())
        return self.process.pid

    def status(self):
        control = Control(self.control)
        try:
            return control.ask("GET", "/v1/status")
        finally:
            control.close()

    def stop(self):
        if self.process:
            stop_innermost(self.process)
            self.process = None


class Postfix:
    """A private instance in a folder; with its own spool. Needs root."""

    TUNED = {
        "default_process_limit": "200",
        "default_destination_concurrency_limit": "50",
        "smtp_destination_concurrency_limit": "50",
        "initial_destination_concurrency": "20",
        "in_flow_delay": "0",
        "smtpd_peername_lookup": "no",
        "smtpd_client_connection_count_limit": "0",
        "smtp_connection_cache_on_demand": "yes",
        "smtp_connection_cache_destinations": "static:all",
        "hash_queue_depth": "1",
    }

    def __init__(self, tools, folder, port, sink, tuned=False, destinations=1, **_):
        self.folder = folder
        for sub in ("conf", "spool", "lib", "log"):
            os.makedirs(os.path.join(folder, sub), exist_ok=True)
        os.chmod(folder, 0o755)
        shutil.chown(os.path.join(folder, "lib"), "postfix")
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": f"{folder}/spool",
            "data_directory": f"{folder}/lib",
            "command_directory": "/usr/sbin",
            "daemon_directory": "/usr/lib/postfix/sbin",
            "meta_directory": "/etc/postfix",
            "maillog_file": f"{folder}/log/maillog",
            "maillog_file_prefixes": f"{folder}/log",
            "myhostname": "mta.test",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "smtp_dns_support_level": "disabled",
            "smtp_host_lookup": "native",
        }
        if destinations > 1:
            settings["transport_maps"] = f"texthash:{folder}/conf/transport"
            with open(f"{folder}/conf/transport", "w") as f:
                f.writelines(f"{domain(n)} smtp:[{destination(n)}]:{sink}\n" for n in range(destinations))
        else:
            settings["relayhost"] = f"[127.0.0.1]:{sink}"
        if tuned:
            settings.update(self.TUNED)
        with open(f"{folder}/conf/main.cf", "w") as f:
            f.writelines(f"{k} = {v}\n" for k, v in settings.items())
        self.write_services(port)
        self.process = self.running = None

    def write_services(self, port):
        """Debian's services, without chroot, smtpd on our port."""
        lines = []
        with open("/usr/share/postfix/master.cf.dist") as f:
            for line in f:
                fields = line.split()
                if line[0] in "#\n" or (line[0].isspace() and not lines):
                    continue
                if not line[0].isspace() and len(fields) >= 8:
                    if fields[0] == "smtp" and fields[1] == "inet":
                        fields[0] = f"127.0.0.1:{port}"
                    fields[4] = "n"
                    line = " ".join(fields) + "\n"
                lines.append(line)
        if not any(x.startswith("postlog ") for x in lines):
            lines.append("postlog unix-dgram n - n - 1 postlogd\n")
        with open(f"{self.folder}/conf/master.cf", "w") as f:
            f.writelines(lines)

    def command(self, *words):
        return ["postfix", "-c", f"{self.folder}/conf", *words]

    def start(self, prefix=()):
        with open(f"{self.folder}/start.log", "w") as out:
            self.running = True
            if prefix:  # strace follows the whole tree from its root
                self.process = subprocess.Popen([*prefix, *self.command("start-fg")], stdout=out, stderr=out)
                return self.process.pid
            subprocess.run(self.command("start"), check=True, stdout=out, stderr=out)
        with open(f"{self.folder}/spool/pid/master.pid") as f:
            return int(f.read())

    def stop(self):
        if not self.running:
            return
        null = subprocess.DEVNULL
        subprocess.run(self.command("stop"), stdout=null, stderr=null, check=False)
        if self.process:
            stop(self.process)
        self.running = None


class Bare:
    """Receives and commits; delivers nothing."""

    def __init__(self, tools, folder, port, sink, **_):
        self.command = [tools.receiver, "--port", str(port), "--spool", f"{folder}/spool"]
        self.process = None

    def start(self, prefix=()):
        self.process = subprocess.Popen([*prefix, *self.command], stdout=subprocess.DEVNULL)
        return self.process.pid

    def stop(self):
        if self.process:
            stop_innermost(self.process)
            self.process = None


def make(kind, tools, folder, port, sink, **options):
    if kind == "tern":
        return Tern(tools, folder, port, sink, **options)
    if kind == "bare":
        return Bare(tools, folder, port, sink, **options)
    return Postfix(tools, folder, port, sink, tuned=kind == "postfix-tuned", **options)
