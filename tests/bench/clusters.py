"""The two systems under measurement: a pool of three members of ours, and three members of etcd beside it.

Everything lies in one temporary folder and listens on loopback, as the user who runs it. Standard library only.
"""
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

import grpc_raw

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MEMBERS = (1, 2, 3)
PASSWORD = "benchmark"
HEARTBEAT_MS, ELECTION_MS = 50, 500
READY_S = 30
MEMORY_MIB = 131072  # of each simulated host


class Failed(Exception):
    """The benchmark cannot go on: one line for the user."""


def wait_until(what, condition, timeout=READY_S, pause=0.02):
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            raise Failed("not within %d s: %s" % (timeout, what))
        time.sleep(pause)


def stat(pid):
    """The fields of /proc/PID/stat behind the name."""
    with open("/proc/%d/stat" % pid, encoding="ascii") as handle:
        return handle.read().rpartition(")")[2].split()


def state(pid):
    return stat(pid)[0]


def cpu_s(pid):
    """User and system time of a process so far."""
    return sum(int(x) for x in stat(pid)[11:13]) / os.sysconf("SC_CLK_TCK")


class Process:
    """A daemon with its log in a file."""

    def __init__(self, command, log, cwd=None):
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          start_new_session=True)
        self.pid = self.popen.pid

    def signal(self, number):
        self.popen.send_signal(number)

    def end(self, number):
        """Signal and wait; a stopped process dies by SIGKILL only."""
        if self.popen.poll() is None:
            self.signal(number)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def check(self):
        if self.popen.poll() is not None:
            with open(self.log, errors="replace", encoding="utf-8") as handle:
                raise Failed("a process has ended: %s" % (handle.read().splitlines() or [self.log])[-1])


def ip(*words):
    done = subprocess.run(["ip", *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise Failed("ip %s: %s" % (" ".join(words), done.stdout.strip()))


class Loopback:
    """All members at one address. etcd holds a member's certificate against the address that a connection comes from."""

    @staticmethod
    def address(member):
        del member
        return "127.0.0.1"

    @staticmethod
    def prefix(member):
        del member
        return []

    def ports(self, member, n):
        """Ports nobody uses at this moment; held open together so that they differ."""
        held = [socket.socket() for _ in range(n)]
        for s in held:
            s.bind((self.address(member), 0))
        ports = [s.getsockname()[1] for s in held]
        for s in held:
            s.close()
        return ports


class Addresses(Loopback):
    """Each member at an address of its own, as a host has one."""

    @staticmethod
    def address(member):
        return "127.0.0.%d" % (10 + member)


class Links:
    """Each member behind a link of its own, in a network namespace that lives as long as its holder. Root only; xpool-bench
    itself runs in a namespace of its own then, so the bridge is nobody else's."""
    FIRST_PORT = 9000

    def __init__(self):
        self.holders, self.given = {}, self.FIRST_PORT
        ip("link", "add", "hub", "type", "bridge")
        ip("addr", "add", "10.213.0.254/24", "dev", "hub")
        ip("link", "set", "hub", "up")
        for m in MEMBERS:
            holder = self.holders[m] = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
            own = os.readlink("/proc/self/ns/net")
            wait_until("a namespace", lambda h=holder: os.readlink("/proc/%d/ns/net" % h.pid) != own)
            ip("link", "add", "link%d" % m, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            ip("link", "set", "link%d" % m, "master", "hub", "up")
            for words in ("addr add %s/24 dev eth0" % self.address(m), "link set lo up", "link set eth0 up"):
                subprocess.run([*self.prefix(m), "ip", *words.split()], check=True)

    @staticmethod
    def address(member):
        return "10.213.0.%d" % member

    def prefix(self, member):
        return ["nsenter", "--net=/proc/%d/ns/net" % self.holders[member].pid, "--"]

    def ports(self, member, n):
        del member
        self.given += n
        return list(range(self.given - n, self.given))

    @staticmethod
    def cut(member):
        ip("link", "set", "link%d" % member, "down")

    @staticmethod
    def mend(member):
        ip("link", "set", "link%d" % member, "up")

    def close(self):
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
        ip("link", "del", "hub")


class Cluster:
    """What both have: processes by member, killed, frozen and started again."""

    def __init__(self, folder, build, network=None, members=MEMBERS):
        self.dir, self.build, self.network, self.members = folder, build, network or Loopback(), list(members)
        os.makedirs(folder)
        self.processes = {}
        self.ports = {m: self.network.ports(m, 2) for m in self.members}

    def address(self, member):
        return self.network.address(member)

    def endpoint(self, member):
        return "%s:%d" % (self.address(member), self.ports[member][0])

    def signal(self, member, number):
        self.processes[member].signal(number)

    def kill(self, member):
        self.processes[member].end(signal.SIGKILL)

    def others(self, member):
        return [m for m in self.members if m != member]

    def roles(self):
        """(leader, another member)."""
        leader = self.leader()
        return leader, self.others(leader)[0]

    def leader(self):
        """The member that leads, once there is one that serves."""
        raise NotImplementedError

    def cpu_s(self):
        return sum(cpu_s(p.pid) for p in self.processes.values())

    def check(self):
        for p in self.processes.values():
            p.check()

    def close(self):
        for p in self.processes.values():
            p.end(signal.SIGKILL)


class Pool(Cluster):
    """Ours: xpoold and xpool-agent for each member, made by xpoolctl."""
    name = "ours"

    def __init__(self, folder, build, network=None, members=MEMBERS):
        super().__init__(folder, build, network, members)
        self.agents, self.sessions = {}, {}
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def up(self):
        self.make(self.members)
        for m in self.members:
            self.start(m)
        self.wait_ready()

    def run(self, *words, stdin=None):
        done = subprocess.run([os.path.join(self.build, "xpoolctl"), *words], input=stdin, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failed("xpoolctl %s: %s" % (words[0], done.stderr.strip()))
        return done.stdout

    def home(self, member, name=""):
        return os.path.join(self.dir, "member%d" % member, name)

    def make(self, numbers):
        """Hosts that are a pool."""
        members, uuid = [], lambda: self.run("uuid").strip()
        for m in numbers:
            os.makedirs(self.home(m, "agent"))
            pem = self.home(m, "member.pem")
            fingerprint = self.run("certificate", "--address", self.address(m), "--name", "host%d" % m, "--out", pem).strip()
            self.run("passwd", "--file", self.home(m, "passwd"), "--user", "root", stdin=PASSWORD + "\n")
            members.append({"id": m, "host": uuid(), "name": "host%d" % m, "address": self.address(m), "certificate": fingerprint,
                            "channel": "%s:%d" % (self.address(m), self.ports[m][1])})
            with open(pem, encoding="ascii") as handle:
                self.tls.load_verify_locations(cadata=re.search(r"-----BEGIN CERT.*?END CERTIFICATE-----", handle.read(),
                                                                re.S)[0])
        path = os.path.join(self.dir, "members.json")
        with open(path, "w", encoding="ascii") as handle:
            json.dump({"pool": uuid(), "epoch": 1, "members": members}, handle)
        for m in numbers:
            self.run("init", "--dir", self.home(m, "data"), "--members", path, "--id", str(m))

    def join(self, member):
        """A host that is a pool of its own joins by pool.join; seconds from the call until it serves what the pool has."""
        self.ports[member] = self.network.ports(member, 2)
        self.make([member])
        self.start(member)
        wait_until("a host serves", lambda: self.ready(member))
        index, began = int(self.status(self.members[0])["applied"]), time.monotonic()
        self.call(member, "pool.join", self.endpoint(self.members[0]), "root", PASSWORD)
        wait_until("it serves what the pool has", lambda: self.in_pool(member, index), pause=0.01)
        self.members.append(member)
        self.sessions.pop((member, 0))
        return time.monotonic() - began

    def in_pool(self, member, index):
        """It leads its own pool until it has begun anew."""
        status = self.status(member)
        return status.get("ready") == "yes" and status["role"] != "leader-ready" and int(status["applied"]) >= index

    def start(self, member):
        home = self.home(member)
        if member not in self.agents:
            self.agents[member] = Process([os.path.join(self.build, "xpool-agent"), "--dir", "agent", "--memory-mib", str(MEMORY_MIB)], self.home(member, "agent.log"),
                                          home)
        root = ["--allow-root"] if os.geteuid() == 0 else []
        self.processes[member] = Process(
            [*self.network.prefix(member), os.path.join(self.build, "xpoold"), "--dir", "data", "--listen", "%s:%d" % (self.address(member), self.ports[member][0]),
             "--certificate", "member.pem", "--password-file", "passwd", "--agent", "agent/agent.sock", "--election-ms",
             str(ELECTION_MS), "--log", "warn", *root], self.home(member, "xpoold.log"), home)

    def status(self, member):
        """{} while it does not answer."""
        try:
            return dict(re.findall(r"(\w+)=(\S+)", self.run("status", "--dir", self.home(member, "data"))))
        except Failed:
            return {}

    def counters(self, member):
        lines = self.run("counters", "--dir", self.home(member, "data")).splitlines()
        return {line.split()[0]: int(line.split()[1]) for line in lines}

    def ready(self, member):
        self.processes[member].check()
        return self.status(member).get("ready") == "yes"

    def wait_ready(self):
        wait_until("the pool is ready", lambda: all(self.ready(m) for m in self.members))

    def wait_whole(self):
        """All serve, and agree."""
        def agree():
            seen = [self.status(m) for m in self.members]
            return all(s.get("ready") == "yes" for s in seen) and len({(s["applied"], s["hash"], s["leader"]) for s in seen}) == 1
        wait_until("the members agree", agree)
        self.leader()

    def leader(self):
        found = []
        wait_until("there is a coordinator",
                   lambda: found.extend(m for m in self.members if self.status(m).get("role") == "leader-ready") or found)
        return found[0]

    def call(self, member, method, *args, session=True, timeout=60):
        params = ([self.session(member)] if session else []) + list(args)
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
        request = urllib.request.Request("https://%s/jsonrpc" % self.endpoint(member), body)
        with urllib.request.urlopen(request, context=self.tls, timeout=timeout) as reply:
            answer = json.load(reply)
        if "error" in answer:
            raise Failed("%s: %s" % (method, answer["error"]))
        return answer["result"]

    def session(self, member, number=0):
        """One used at this member alone: a session that goes from member to member costs a takeover each time."""
        if (member, number) not in self.sessions:
            self.sessions[member, number] = self.login(member)
        return self.sessions[member, number]

    def sessions_for(self, members, clients, share):
        """One for each client in turn; so many of those at one member share one."""
        return [self.session(members[i % len(members)], i // len(members) // share) for i in range(clients)]

    def login(self, member):
        return self.call(member, "session.login_with_password", "root", PASSWORD, "1.0", "xpool-bench", session=False)

    def agents_cpu_s(self):
        return sum(cpu_s(p.pid) for p in self.agents.values())

    def close(self):
        super().close()
        for p in self.agents.values():
            p.end(signal.SIGKILL)


class Etcd(Cluster):
    """etcd of Debian, TLS to clients and between members, the same timers."""
    name = "etcd"
    KEY = b"bench"

    def __init__(self, folder, build, network=None):
        super().__init__(folder, build, network)
        self.ca = os.path.join(folder, "ca.pem")

    def up(self):
        with open(self.ca, "w", encoding="ascii") as ca:
            for m in self.members:
                subprocess.run([os.path.join(self.build, "xpoolctl"), "certificate", "--address", self.address(m), "--name", "etcd%d" % m,
                                "--out", self.pem(m)], check=True, stdout=subprocess.DEVNULL)
                with open(self.pem(m), encoding="ascii") as handle:
                    ca.write(re.search(r"-----BEGIN CERT.*?END CERTIFICATE-----\n", handle.read(), re.S)[0])
        for m in self.members:
            self.start(m)
        self.leader()

    @staticmethod
    def missing():
        """Which packages are missing."""
        return [package for program, package in (("etcd", "etcd-server"), ("h2load", "nghttp2-client"))
                if shutil.which(program) is None]

    def pem(self, member):
        return os.path.join(self.dir, "etcd%d.pem" % member)

    def start(self, member):
        client, peer = ("https://%s:%d" % (self.address(member), port) for port in self.ports[member])
        cluster = ",".join("etcd%d=https://%s:%d" % (m, self.address(m), self.ports[m][1]) for m in self.members)
        fresh = "existing" if member in self.processes else "new"
        pem = self.pem(member)
        self.processes[member] = Process(
            [*self.network.prefix(member), "etcd", "--name", "etcd%d" % member, "--data-dir", os.path.join(self.dir, "data%d" % member),
             "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
             "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--initial-cluster-state", fresh,
             "--cert-file", pem, "--key-file", pem, "--peer-cert-file", pem, "--peer-key-file", pem, "--peer-trusted-ca-file",
             self.ca, "--peer-client-cert-auth", "--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout",
             str(ELECTION_MS), "--log-level", "error", "--logger", "zap"], os.path.join(self.dir, "etcd%d.log" % member))

    def call(self, member, path, body, timeout=10):
        connection = grpc_raw.Connection(self.address(member), self.ports[member][0], timeout)
        try:
            return grpc_raw.fields(connection.call(path, body, timeout))
        finally:
            connection.close()

    def put(self, member, value):
        return self.call(member, "/etcdserverpb.KV/Put", grpc_raw.put_request(self.KEY, value))

    def revision(self, member):
        """The store's revision: one more with each put."""
        answer = self.call(member, "/etcdserverpb.KV/Range", grpc_raw.range_request(self.KEY, False))
        return grpc_raw.fields(answer[1])[3]

    def leader_of(self, member):
        """What the member thinks: the leader, 0 for none."""
        try:
            answer = self.call(member, "/etcdserverpb.Maintenance/Status", grpc_raw.message(b""), 2)
        except (OSError, grpc_raw.Refused):
            return 0
        leader, own = answer.get(4, 0), grpc_raw.fields(answer[1]).get(2, 0)
        return -1 if leader == own != 0 else leader

    def leader(self):
        found = []

        def look():
            self.check()
            found[:] = [m for m in self.members if self.leader_of(m) == -1]
            return len(found) == 1 and all(self.leader_of(m) for m in self.others(found[0]))
        wait_until("etcd has a leader", look)
        return found[0]

    def wait_whole(self):
        """All know one leader, and take writes."""
        def writes():
            self.leader()
            try:
                return all(self.put(m, b"whole") for m in self.members)
            except (OSError, grpc_raw.Refused):
                return False
        wait_until("etcd takes writes", writes)

    def url(self, member, method):
        return "https://%s/etcdserverpb.KV/%s" % (self.endpoint(member), method)


def warn(text):
    print("xpool-bench: %s" % text, file=sys.stderr, flush=True)
