"""A pool for a test: real processes by deploy/quickstart in a folder of its own, and a client of the API.

Run by tests/lib/netns.sh in a network namespace of its own, so tests may run side by side and use port 443.
Standard library only.
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
import tempfile
import threading
import time
import urllib.request
import xmlrpc.client

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUICKSTART = os.path.join(ROOT, "deploy", "quickstart")
PASSWORD = "test password: ü"
REPORTS = re.compile(r"AddressSanitizer|LeakSanitizer: detected|runtime error:|ThreadSanitizer|assertion_failed|domain_twice")
MIB = 1 << 20
LAST_WORDS = 8  # seconds
NULL = "OpaqueRef:NULL"


class ApiError(Exception):
    """Code and parameters of a failed call."""

    @property
    def code(self):
        return self.args[0]


def too_long(_number, _frame):
    raise TimeoutError("the test has had its seconds of tests/budget")


class Api:
    """JSON-RPC 2.0 at one member."""

    def __init__(self, pool, member, session=None):
        self.pool, self.member, self.session = pool, member, session
        self.url = "https://%s:%d/jsonrpc" % (pool.address(member), pool.port)

    def post(self, body, timeout=60, path="/jsonrpc"):
        url = self.url.replace("/jsonrpc", path)
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        return urllib.request.urlopen(request, context=self.pool.tls, timeout=timeout)

    def raw(self, method, *args, timeout=60):
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": list(args), "id": 7}).encode()
        reply = json.load(self.post(body, timeout))
        assert reply["id"] == 7, reply
        if "error" in reply:
            raise ApiError(reply["error"]["message"], *reply["error"]["data"])
        return reply["result"]

    def __call__(self, method, *args, timeout=60):
        return self.raw(method, self.session, *args, timeout=timeout)

    def login(self, user="root", password=None):
        self.session = self.raw("session.login_with_password", user, PASSWORD if password is None else password, "1.0", "tests")
        return self

    def wait_task(self, task, timeout=60):
        until = time.time() + timeout
        while self("task.get_status", task) == "pending":
            assert time.time() < until, "task %s does not end" % task
            time.sleep(0.02)
        return self("task.get_record", task)

    def members(self):
        """The number of the member on each host."""
        return {ref: int(h["address"].rsplit(".", 1)[1]) - 10 for ref, h in self("host.get_all_records").items()}

    def free_memory(self):
        """Bytes of each host; 0: full, or not known yet."""
        return {host: int(self("host.compute_free_memory", host)) for host in self("host.get_all")}

    def memory_known(self):
        eventually("memory is known", lambda: all(self.free_memory().values()))
        return self.free_memory()

    def fails(self, code, method, *args):
        """The call must fail with that code; the error's parameters."""
        try:
            result = self(method, *args)
        except ApiError as fault:
            assert fault.code == code, "%s: %s instead of %s" % (method, fault.args, code)
            return list(fault.args[1:])
        raise AssertionError("%s gave %r instead of %s" % (method, result, code))


def everywhere(pool):
    """One session at each member: what one of them has seen the others see."""
    first = Api(pool, 1).login()
    return [first] + [Api(pool, n, first.session) for n in range(2, pool.n + 1)]


class XmlApi:
    """XML-RPC at one member."""

    def __init__(self, pool, member, path="/"):
        url = "https://%s:%d%s" % (pool.address(member), pool.port, path)
        self.proxy = xmlrpc.client.ServerProxy(url, context=pool.tls)

    def __call__(self, method, *args):
        return getattr(self.proxy, method)(*args)


class Pool:
    def __init__(self, members=3, port=443, options="", agent="", content="--halted"):
        self.n, self.port = members, port
        self.dir = tempfile.mkdtemp(prefix="xpool-test-")
        os.chmod(self.dir, 0o755)
        # leaks are for the suites that end in one process: these programs exit with their threads running
        self.env = dict(os.environ, XPOOL_BUILD=sys.argv[1], XPOOL_PASSWORD=PASSWORD, ASAN_OPTIONS="detect_leaks=0",
                        XPOOLD_OPTIONS=options, XPOOL_AGENT_OPTIONS=agent, XPOOL_CONTENT_OPTIONS=content)
        os.environ["ASAN_OPTIONS"] = "detect_leaks=0"

    def address(self, member):
        return "127.0.0.%d" % (10 + member)

    def quickstart(self, *args, check=True, timeout=120):
        done = subprocess.run([QUICKSTART, *args, "--dir", self.dir], env=self.env, text=True, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if check and done.returncode != 0:
            self.dump()
            raise AssertionError("quickstart %s: %s" % (" ".join(args), done.stdout))
        return done

    def up(self):
        self.quickstart("up", "--members", str(self.n), "--port", str(self.port))
        self.tls = ssl.create_default_context(cafile=os.path.join(self.dir, "ca.pem"))
        return self

    def storage(self, name):
        """device_config of an SR that all members see."""
        return {"location": os.path.join(self.dir, "storage", name)}

    def make_sr(self, api, name="shared"):
        return api("SR.create", api("host.get_all")[0], self.storage(name), 0, name, "", "file", "user", True, {})

    def status(self):
        """One dict per member; {} for one that is down."""
        lines = self.quickstart("status").stdout.splitlines()
        return [dict(re.findall(r"(\w+)=(\S+)", line)) if "role=" in line else {} for line in lines]

    def leader(self, timeout=60, of=None):
        """Who leads; of: among these members."""
        until = time.time() + timeout
        while time.time() < until:
            for number, line in enumerate(self.status(), 1):
                if line.get("role") == "leader-ready" and (of is None or number in of):
                    return number
            time.sleep(0.05)
        self.dump()
        raise AssertionError("no coordinator within %d s" % timeout)

    def lose_leader(self, what, leader):
        """It is killed or freezes, and another one leads."""
        self.quickstart(what, str(leader))
        return self.leader(of=[n for n in range(1, self.n + 1) if n != leader])

    def agree(self, timeout=60):
        """Wait until all members are at one index with one hash."""
        until = time.time() + timeout
        while True:
            seen = [(line.get("applied"), line.get("hash")) for line in self.status()]
            if len(set(seen)) == 1 and seen[0][0] is not None:
                return seen[0]
            if time.time() > until:
                self.dump()
                raise AssertionError("the members do not agree: %s" % seen)
            time.sleep(0.1)

    def ctl_run(self, member, command, *args):
        """Whatever comes of it."""
        return subprocess.run([os.path.join(sys.argv[1], "xpoolctl"), *command.split(), *args, "--dir", self.data(member)],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def ctl(self, member, command, *args):
        done = self.ctl_run(member, command, *args)
        assert done.returncode == 0, "xpoolctl %s: %s%s" % (command, done.stdout, done.stderr)
        return done.stdout

    def check(self, *members):
        """State, references and projection of these members (all) are sound."""
        for member in members or range(1, self.n + 1):
            self.ctl(member, "db check")

    def data(self, member):
        return os.path.join(self.dir, "member%d" % member, "data")

    def counters(self, member):
        return {line.split()[0]: int(line.split()[1]) for line in self.ctl(member, "counters").splitlines()}

    def logs(self):
        for n in range(1, self.n + 1):
            for name in ("xpoold.log", "agent.log"):
                path = os.path.join(self.dir, "member%d" % n, name)
                if os.path.exists(path):
                    with open(path, errors="replace") as handle:
                        yield "member%d/%s" % (n, name), handle.read()

    def dump(self):
        for name, text in self.logs():
            found = REPORTS.search(text)
            print("--- %s" % name)
            print(text[max(0, found.start() - 200):found.start() + 6000] if found else "\n".join(text.splitlines()[-15:]))

    def agent_asked(self, member, method, **params):
        """A connection to its agent on which this was asked."""
        agent = socket.socket(socket.AF_UNIX)
        agent.settimeout(30)
        agent.connect(os.path.join(self.dir, "member%d" % member, "agent", "agent.sock"))
        agent.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
        return agent

    def agent_says(self, member, method, **params):
        with self.agent_asked(member, method, **params) as agent, agent.makefile() as lines:
            return json.loads(lines.readline())["result"]

    def signal(self, member, program, number):
        """To xpoold or agent alone; its pid."""
        with open(os.path.join(self.dir, "member%d" % member, program + ".pid")) as handle:
            pid = int(handle.read().split()[0])
        os.kill(pid, number)
        return pid

    def kill(self, member, program):
        """SIGKILL of xpoold or agent alone; it is gone when this returns, so that `start` sees that."""
        pid = self.signal(member, program, signal.SIGKILL)
        eventually("%s is gone" % program, lambda: gone(pid))

    def close(self):
        for n in range(1, self.n + 1):
            self.quickstart("thaw", str(n), check=False)
        self.quickstart("down")
        for name, text in self.logs():
            # at most once: no task is ever run twice by an agent
            tasks = re.findall(r"event=op_ended .* task=(\S+)", text)
            assert len(tasks) == len(set(tasks)), "%s: a task ran twice" % name
            found = REPORTS.search(text)
            if found:
                print("--- %s" % name)
                print(text[max(0, found.start() - 200):found.start() + 6000])
                raise AssertionError("%s: %s" % (name, found.group(0)))
        self.remove()

    def remove(self):
        shutil.rmtree(self.dir)

    def __enter__(self):
        # a test that hangs says where, and what its members said, before ctest ends it without a word
        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(max(int(os.environ.get("XPOOL_TEST_SECONDS", "0")) - LAST_WORDS, 0))
        return self.up()

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.dump()
            self.quickstart("down", check=False)
            self.remove()
            return False
        self.close()
        return False


def gone(pid):
    """Its first thread may be dead before the others, which still hold the port."""
    try:
        with open("/proc/%d/stat" % pid) as handle:
            return handle.read().rsplit(")", 1)[1].split()[0] == "Z" and len(os.listdir("/proc/%d/task" % pid)) == 1
    except OSError:
        return True


def vm_record(label, template=False, **more):
    size = str(64 * MIB)
    record = {
        "name_label": label, "name_description": "", "user_version": "1", "is_a_template": template,
        "affinity": NULL, "memory_static_max": size, "memory_dynamic_max": size, "memory_dynamic_min": size,
        "memory_static_min": size, "VCPUs_params": {}, "VCPUs_max": "1", "VCPUs_at_startup": "1",
        "actions_after_shutdown": "destroy", "actions_after_reboot": "restart", "actions_after_crash": "restart",
        "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "", "PV_args": "", "PV_bootloader_args": "", "PV_legacy_args": "",
        "HVM_boot_policy": "", "HVM_boot_params": {}, "platform": {}, "PCI_bus": "", "other_config": {}, "recommendations": "",
    }
    record.update(more)
    return record


def guest(**behaviour):
    """Of a VM's record: what its simulated guest does."""
    return {"other_config": {"xpool-sim-guest": json.dumps(behaviour)}}


def vdi_record(sr, label="disk", size=MIB, **more):
    record = {"name_label": label, "name_description": "", "SR": sr, "virtual_size": str(size), "type": "user", "sharable": False,
              "read_only": False, "other_config": {}, "xenstore_data": {}, "sm_config": {}, "tags": []}
    record.update(more)
    return record


def vbd_record(vm, vdi, userdevice="autodetect", **more):
    record = {"VM": vm, "VDI": vdi, "userdevice": userdevice, "bootable": False, "mode": "RW", "type": "Disk", "unpluggable": True,
              "empty": vdi == NULL, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    record.update(more)
    return record


def vif_record(vm, network, device, **more):
    record = {"VM": vm, "network": network, "device": device, "MAC": "", "MTU": "1500", "other_config": {},
              "qos_algorithm_type": "", "qos_algorithm_params": {}}
    record.update(more)
    return record


def refused(pool, member, user, password, method="session.login_with_password"):
    """(code, text, seconds) of a login that must fail."""
    began = time.time()
    try:
        Api(pool, member).raw(method, user, password)
    except ApiError as fault:
        return fault.code, fault.args[-1], time.time() - began
    raise AssertionError("%s is let in" % user)


def at_once(*calls):
    """The results of calls that take their time."""
    results = [None] * len(calls)

    def run(i):
        results[i] = calls[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def during(pool, api, vm, operation, call, lose):
    """The result of call, None: it has failed; lose is called while that operation of the VM is under way. The VM runs on the api's
    member, whose agent stands still meanwhile."""
    held = lambda: list(api("VM.get_current_operations", vm).values()) == [operation]
    pool.signal(api.member, "agent", signal.SIGSTOP)

    def disturb():
        try:
            eventually("it is under way", held)
            lose()
            return held()
        finally:
            pool.signal(api.member, "agent", signal.SIGCONT)

    result, still = at_once(call, disturb)
    assert still is not None, "no member could be lost: see the exception above"
    assert still, "the operation was over before"
    return result


def eventually(what, condition, timeout=60):
    until = time.time() + timeout
    while not condition():
        assert time.time() < until, "not within %d s: %s" % (timeout, what)
        time.sleep(0.05)
