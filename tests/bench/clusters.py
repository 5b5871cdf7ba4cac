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


class Failed(Exception):
    """The benchmark cannot go on: one line for the user."""


def free_ports(ip, n):
    """Ports nobody uses at this moment; held open together so that they differ."""
    held = [socket.socket() for _ in range(n)]
    for s in held:
        s.bind((ip, 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def wait_until(what, condition, timeout=READY_S, pause=0.02):
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > until:
            raise Failed("not within %d s: %s" % (timeout, what))
        time.sleep(pause)


def cpu_s(pid):
    """User and system time of a process so far."""
    with open("/proc/%d/stat" % pid, encoding="ascii") as handle:
        parts = handle.read().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    with open("/proc/%d/statm" % pid, encoding="ascii") as handle:
        return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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


class Cluster:
    """What both have: processes by member, killed, frozen and started again."""

    def __init__(self, folder, build):
        self.dir, self.build = folder, build
        os.makedirs(folder)
        self.processes = {}
        self.ports = {m: free_ports(self.address(m), 2) for m in MEMBERS}

    @staticmethod
    def address(member):
        raise NotImplementedError

    def endpoint(self, member):
        return "%s:%d" % (self.address(member), self.ports[member][0])

    def signal(self, member, number):
        self.processes[member].signal(number)

    def kill(self, member):
        self.processes[member].end(signal.SIGKILL)

    def others(self, member):
        return [m for m in MEMBERS if m != member]

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

    def __init__(self, folder, build):
        super().__init__(folder, build)
        self.agents, self.session = {}, None
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @staticmethod
    def address(member):
        return "127.0.0.%d" % (20 + member)

    def up(self):
        self.make()
        for m in MEMBERS:
            self.start(m)
        self.wait_ready()
        self.session = self.login(1)

    def run(self, *words, stdin=None):
        done = subprocess.run([os.path.join(self.build, "xpoolctl"), *words], input=stdin, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failed("xpoolctl %s: %s" % (words[0], done.stderr.strip()))
        return done.stdout

    def home(self, member, name=""):
        return os.path.join(self.dir, "member%d" % member, name)

    def make(self):
        members, uuid = [], lambda: self.run("uuid").strip()
        for m in MEMBERS:
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
        for m in MEMBERS:
            self.run("init", "--dir", self.home(m, "data"), "--members", path, "--id", str(m))

    def start(self, member):
        home = self.home(member)
        if member not in self.agents:
            self.agents[member] = Process([os.path.join(self.build, "xpool-agent"), "--dir", "agent"], self.home(member, "agent.log"),
                                          home)
        root = ["--allow-root"] if os.geteuid() == 0 else []
        self.processes[member] = Process(
            [os.path.join(self.build, "xpoold"), "--dir", "data", "--listen", "%s:%d" % (self.address(member), self.ports[member][0]),
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
        wait_until("the pool is ready", lambda: all(self.ready(m) for m in MEMBERS))

    def leader(self):
        found = []
        wait_until("there is a coordinator",
                   lambda: found.extend(m for m in MEMBERS if self.status(m).get("role") == "leader-ready") or found)
        return found[0]

    def call(self, member, method, *args, session=True, timeout=60):
        params = ([self.session] if session else []) + list(args)
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
        request = urllib.request.Request("https://%s/jsonrpc" % self.endpoint(member), body)
        with urllib.request.urlopen(request, context=self.tls, timeout=timeout) as reply:
            answer = json.load(reply)
        if "error" in answer:
            raise Failed("%s: %s" % (method, answer["error"]))
        return answer["result"]

    def login(self, member):
        return self.call(member, "session.login_with_password", "root", PASSWORD, "1.0", "xpool-bench", session=False)

    def close(self):
        super().close()
        for p in self.agents.values():
            p.end(signal.SIGKILL)


class Etcd(Cluster):
    """etcd of Debian, TLS to clients and between members, the same timers."""
    name = "etcd"
    KEY = b"bench"

    def __init__(self, folder, build):
        super().__init__(folder, build)
        self.ca = os.path.join(folder, "ca.pem")

    @staticmethod
    def address(member):
        """One for all: it holds a member's certificate against the address that the connection comes from."""
        del member
        return "127.0.0.1"

    def up(self):
        with open(self.ca, "w", encoding="ascii") as ca:
            for m in MEMBERS:
                subprocess.run([os.path.join(self.build, "xpoolctl"), "certificate", "--address", self.address(m), "--name", "etcd%d" % m,
                                "--out", self.pem(m)], check=True, stdout=subprocess.DEVNULL)
                with open(self.pem(m), encoding="ascii") as handle:
                    ca.write(re.search(r"-----BEGIN CERT.*?END CERTIFICATE-----\n", handle.read(), re.S)[0])
        for m in MEMBERS:
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
        cluster = ",".join("etcd%d=https://%s:%d" % (m, self.address(m), self.ports[m][1]) for m in MEMBERS)
        fresh = "existing" if member in self.processes else "new"
        pem = self.pem(member)
        self.processes[member] = Process(
            ["etcd", "--name", "etcd%d" % member, "--data-dir", os.path.join(self.dir, "data%d" % member),
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
            found[:] = [m for m in MEMBERS if self.leader_of(m) == -1]
            return len(found) == 1 and all(self.leader_of(m) for m in self.others(found[0]))
        wait_until("etcd has a leader", look)
        return found[0]

    def url(self, member, method):
        return "https://%s/etcdserverpb.KV/%s" % (self.endpoint(member), method)


def warn(text):
    print("xpool-bench: %s" % text, file=sys.stderr, flush=True)
