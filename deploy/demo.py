#!/usr/bin/env python3
"""The demonstration: a pool under load loses its coordinator twice, once killed and once frozen.

Run by `deploy/quickstart demo` on a running pool. Eight writers go through the two members that stay; each write adds a key to
other_config of a VM of the writer's own, so whatever was acknowledged can be counted again by hand.
"""
import argparse
import http.client
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from content import Api, Failure, record

HERE = os.path.dirname(os.path.abspath(__file__))
WRITERS, STARTS, PAUSE_S = 8, 3, 0.02
BEFORE_S, AFTER_S, TASKS_S, BACK_S = 4, 7, 90, 30
failures = []


def say(text="", **fields):
    print(text % fields if fields else text, flush=True)


def check(good, what):
    if not good:
        failures.append(what)
    return "yes" if good else "NO"


class Pool:
    def __init__(self, opts):
        self.dir, self.build, self.port, self.n = opts.dir, opts.build, opts.port, opts.members
        with open(self.dir + "/password", encoding="utf-8") as handle:
            self.password = handle.read().strip()
        self.session = self.api(1).login(self.password).session

    def address(self, member):
        return "127.0.0.%d" % (10 + member)

    def api(self, member):
        return Api("https://%s:%d" % (self.address(member), self.port), self.dir + "/ca.pem", getattr(self, "session", None))

    def quickstart(self, *args):
        subprocess.run([HERE + "/quickstart", *args, "--dir", self.dir], check=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, XPOOL_BUILD=self.build))

    def status(self, member):
        """Role, indexes and hash of a member; {} when it does not answer."""
        try:
            said = subprocess.run([self.build + "/xpoolctl", "status", "--dir", "%s/member%d/data" % (self.dir, member)], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=1).stdout
        except subprocess.TimeoutExpired:
            return {}
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def coordinator(self, among):
        until = time.time() + 30
        while time.time() < until:
            for member in among:
                if self.status(member).get("role") == "leader-ready":
                    return member
            time.sleep(0.02)
        raise SystemExit("demo: nobody leads within 30 s; look at %s/member*/xpoold.log" % self.dir)

    def xe(self, member, *args):
        env = dict(os.environ, XE_PASSWORD_FILE="", XE_USER="root", XE_PASSWORD=self.password, XE_CAFILE=self.dir + "/ca.pem",
                   XE_PORT=str(self.port), XE_SERVER=self.address(member))
        return subprocess.run([self.build + "/xe", *args], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def domains(self):
        """{uuid of a VM: [members whose simulated hypervisor has a domain of it]}"""
        found = {}
        for member in range(1, self.n + 1):
            path = "%s/member%d/agent/domains.db" % (self.dir, member)
            with sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=10) as db:
                for (uuid,) in db.execute("SELECT uuid FROM domain"):
                    found.setdefault(uuid, []).append(member)
        return found


class Writer(threading.Thread):
    """Adds key after key to other_config of one VM, through one member, and notes what was acknowledged and when."""

    def __init__(self, pool, member, vm, name):
        super().__init__(daemon=True)
        self.pool, self.member, self.vm, self.name = pool, member, vm, name
        self.acked, self.unanswered, self.times, self.stop = set(), set(), [], False

    def connect(self):
        tls = self.pool.api(self.member).tls
        return http.client.HTTPSConnection(self.pool.address(self.member), self.pool.port, context=tls, timeout=20)

    def run(self):
        line, number = self.connect(), 0
        while not self.stop:
            key = "demo-%s-%d" % (self.name, number)
            number += 1
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "VM.add_to_other_config",
                               "params": [self.pool.session, self.vm, key, "written"]})
            try:
                line.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
                answer = json.loads(line.getresponse().read())
                if "error" in answer:
                    raise OSError(answer["error"]["message"])
                self.acked.add(key)
                self.times.append(time.time())
            except (OSError, http.client.HTTPException, ValueError):
                self.unanswered.add(key)
                line.close()
                line = self.connect()
            time.sleep(PAUSE_S)


def longest(times, begin, end):
    """The longest time within which nothing was acknowledged, of what touches [begin, end]."""
    times = sorted(times)
    return max((b - a for a, b in zip(times, times[1:]) if b >= begin and a <= end), default=float("inf"))


def vms_of_demo(pool):
    return {ref: vm for ref, vm in pool.api(1)("VM.get_all_records").items() if vm["name_label"].startswith("demo-")}


def clean(pool):
    """VMs of a demonstration before."""
    api = pool.api(1)
    for ref, vm in vms_of_demo(pool).items():
        if vm["power_state"] != "Halted":
            api("VM.hard_shutdown", ref)
        api("VM.destroy", ref)


def same_list(pool):
    say("The same question to every member: xe vm-list --minimal")
    said = {member: pool.xe(member, "vm-list", "--minimal").strip() for member in range(1, pool.n + 1)}
    for member, text in said.items():
        say("  %-11s %d VMs  %s ..." % (pool.address(member), len(text.split(",")), text[:44]))
    say("  all the same: " + check(len(set(said.values())) == 1 and "," in said[1], "the members' lists of VMs differ"))


def end_of(pool, api, name, task):
    until = time.time() + TASKS_S
    while time.time() < until:
        status = api("task.get_status", task)
        if status != "pending":
            why = " ".join(api("task.get_error_info", task))
            return "  start of %-14s %s%s" % (name, status, ": " + why if why else "")
        time.sleep(0.1)
    check(False, "the start of %s is still pending after %d s" % (name, TASKS_S))
    return "  start of %-14s STILL PENDING" % name


def one_host_each(pool, api):
    """Each VM that is said to run has its domain, on the host it is said to be on, and on no other."""
    host_of = {host["address"]: ref for ref, host in api("host.get_all_records").items()}
    domains = pool.domains()
    running = [vm for vm in api("VM.get_all_records").values() if vm["power_state"] == "Running" and not vm["is_control_domain"]]
    twice = [uuid for uuid, members in domains.items() if len(members) > 1]
    lost = [vm["name_label"] for vm in running
            if [host_of[pool.address(m)] for m in domains.get(vm["uuid"], [])] != [vm["resident_on"]]]
    return len(running), sum(map(len, domains.values())), check(not twice and not lost, "VMs %s are not on exactly one host" % (twice + lost))


def same_state(pool, timeout):
    """When all members are at one index with one hash."""
    until = time.time() + timeout
    while time.time() < until:
        seen = [(s.get("applied"), s.get("hash")) for s in map(pool.status, range(1, pool.n + 1))]
        if len(set(seen)) == 1 and seen[0][0] is not None:
            return seen[0]
        time.sleep(0.05)
    check(False, "the members do not agree: %s" % seen)
    return seen[0]


def phase(pool, number, title, take, give_back):
    victim = pool.coordinator(range(1, pool.n + 1))
    stay = [m for m in range(1, pool.n + 1) if m != victim]
    api = pool.api(stay[0])
    say("\n%d. %s" % (number, title.replace("COORDINATOR", "member %d, which leads" % victim)))
    vms = [api("VM.create", record("demo-%d-writer%d" % (number, w), mib=64)) for w in range(WRITERS)]
    writers = [Writer(pool, stay[w % 2], vm, "%d.%d" % (number, w)) for w, vm in enumerate(vms)]
    for writer in writers:
        writer.start()
    time.sleep(BEFORE_S)
    # a second and more of each start is the guest's, so that they are under way
    slow = {"xpool-sim-guest": json.dumps({"delay_ms": {"build": 1500}})}
    names = ["demo-%d-start%d" % (number, s) for s in range(STARTS)]
    starts = {name: api("VM.create", record(name, mib=64, **slow)) for name in names}
    tasks = {name: pool.api(stay[n % 2])("Async.VM.start", vm, False, False) for n, (name, vm) in enumerate(starts.items())}
    say("  under way: %d writers through %s, Async.VM.start of %d VMs" % (WRITERS, " and ".join(map(pool.address, stay)), STARTS))
    gone = time.time()
    take(str(victim))
    leader = pool.coordinator(stay)
    time.sleep(max(0, gone + AFTER_S - time.time()))
    times = [t for w in writers for t in w.times]
    say("  gap without an acknowledged write: %.2f s   (longest before: %.2f s)"
        % (longest(times, gone, time.time()), longest(times, gone - BEFORE_S, gone - 0.1)))
    say("  member %d leads now" % leader)
    back = time.time()
    give_back(str(victim))
    while not pool.status(victim).get("applied") and time.time() < back + BACK_S:
        time.sleep(0.02)
    while time.time() < back + BACK_S:
        ours, theirs = (int(pool.status(m).get("applied", 0)) for m in (victim, leader))
        say("  member %d is back, %.1f s: %d entries behind" % (victim, time.time() - back, max(0, theirs - ours)))
        if theirs - ours < 200 and ours:
            break
        time.sleep(0.2)
    for writer in writers:
        writer.stop = True
    for writer in writers:
        writer.join(30)
    acked, unanswered = set().union(*(w.acked for w in writers)), set().union(*(w.unanswered for w in writers))
    found = {key for vm in vms for key in pool.api(stay[1])("VM.get_other_config", vm) if key.startswith("demo-")}
    say("  acknowledged %d, found %d; without an answer %d, of them found %d"
        % (len(acked), len(found & acked), len(unanswered), len(found & unanswered)))
    say("  every acknowledged write is there: " + check(acked <= found, "%d acknowledged writes are lost" % len(acked - found)))
    for name, task in tasks.items():
        say(end_of(pool, api, name, task))
    index, digest = same_state(pool, BACK_S)
    say("  0 entries behind: all %d members at entry %s with state hash %s" % (pool.n, index, digest))
    say("  %d VMs run, %d domains on all hosts, each on exactly one: %s" % one_host_each(pool, api))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("dir", "build"):
        ap.add_argument("--" + name, required=True)
    for name in ("port", "members"):
        ap.add_argument("--" + name, type=int, required=True)
    pool = Pool(ap.parse_args())
    if pool.n < 3:
        raise SystemExit("demo: needs three members or more, this pool has %d" % pool.n)
    began = time.time()
    clean(pool)
    same_list(pool)
    phase(pool, 1, "SIGKILL of COORDINATOR: xpoold and agent", lambda m: pool.quickstart("kill", m), lambda m: pool.quickstart("start", m))
    phase(pool, 2, "Freeze of COORDINATOR: SIGSTOP, as a host that hangs", lambda m: pool.quickstart("freeze", m),
          lambda m: pool.quickstart("thaw", m))
    say("\n%.0f s. %s" % (time.time() - began, "Nothing was lost, nothing ran twice." if not failures else "BROKEN: " + "; ".join(failures)))
    say("Count again: xe vm-param-get uuid=$(xe vm-list name-label=demo-1-writer0 --minimal) param-name=other-config | tr ';' '\\n' | grep -c demo-")
    say("Now try to break it yourself: deploy/quickstart kill|freeze|poweroff 1..%d while a loop of xe vm-start and vm-shutdown runs;"
        " status shows the members' hashes." % pool.n)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failure, OSError) as reason:
        raise SystemExit("demo: %s" % " ".join(map(str, reason.args)))
