"""Mixed load through all members for minutes: logins, life of VMs, their disks and snapshots, writes, records of everything, events,
backups, `xe`. When the clients have gone, each process has the memory, descriptors and threads that it had after a third of the time,
when they had gone as well.

usage: 80_soak.py BUILD [--seconds N]   (tests/run --soak [MINUTES | --long])"""
import argparse
import itertools
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import MIB, PASSWORD, Api, Pool, XmlApi, vbd_record, vdi_record, vm_record

parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("--seconds", type=float, default=300)
arguments = parser.parse_args()
# what may come on top in the other two thirds. Memory is that without SQLite's, whose cache of 32 MiB fills; rows that were deleted are
# remembered (100,000 of each class). Threads come when many jobs run at once, up to the width of their lanes.
MORE = {"memory": 6 * MIB, "descriptors": 0, "threads": 12}
QUIET_S = 90  # at most, until those who have gone are forgotten
WORKERS = ("life", "life", "copies", "sessions", "writes", "reads", "events", "backups", "commands")


def look(pool, member, program):
    """What a process has now."""
    pid = pool.signal(member, program, 0)
    with open("/proc/%d/status" % pid) as handle:
        status = dict(line.split(":", 1) for line in handle)
    cache = pool.counters(member)["sqlite_bytes_max"] if program == "xpoold" else 0
    return {"pid": pid, "memory": int(status["VmRSS"].split()[0]) * 1024 - cache, "threads": int(status["Threads"]),
            "descriptors": len(os.listdir("/proc/%d/fd" % pid))}


class Load:
    def __init__(self, pool):
        self.pool, self.done, self.stop, self.failed = pool, {}, False, []
        api = self.api = Api(pool, 1).login()
        api.memory_known()
        self.hosts = api("host.get_all")
        self.sr = pool.make_sr(api)
        self.vms = [api("VM.create", vm_record("soak%d" % n)) for n in range(len(WORKERS))]
        for vm in self.vms:
            api("VBD.create", vbd_record(vm, api("VDI.create", vdi_record(self.sr)), "0", bootable=True))

    def at(self, turn):
        return Api(self.pool, 1 + turn % self.pool.n, self.api.session)

    def life(self, vm, turn):
        api, host = self.at(turn), self.hosts[turn % len(self.hosts)]
        api("VM.start_on", vm, host, False, False)
        api("VM.pool_migrate", vm, self.hosts[(turn + 1) % len(self.hosts)], {"live": "true"})
        api("VM.pause", vm)
        api("VM.unpause", vm)
        api("VM.hard_shutdown", vm)

    def copies(self, vm, turn):
        api = self.at(turn)
        for copy in (api("VM.clone", vm, "copy"), api("VM.snapshot", vm, "s", [])):
            disks = [api("VBD.get_VDI", vbd) for vbd in api("VM.get_VBDs", copy)]
            api("VM.destroy", copy)
            for disk in disks:
                api("VDI.destroy", disk)

    def sessions(self, vm, turn):
        api = Api(self.pool, 1 + turn % self.pool.n).login()
        api("VM.get_record", vm)
        api("session.logout")

    def writes(self, vm, turn):
        api = self.at(turn)
        api("VM.set_name_description", vm, "turn %d " % turn + "x" * 200)
        api("VM.add_to_other_config", vm, "key%d" % turn, "value")
        api("VM.remove_from_other_config", vm, "key%d" % turn)

    def reads(self, vm, turn):
        api = self.at(turn)
        for kind in ("VM", "VBD", "VDI", "host", "task", "SR", "pool"):
            api(kind + ".get_all_records")
        XmlApi(self.pool, 1 + turn % self.pool.n)("VM.get_all_records", self.api.session)

    def events(self, vm, turn):
        api = self.at(turn)
        got = api("event.from", ["*"], "", 1.0)
        for _ in range(10):
            got = api("event.from", ["*"], got["token"], 1.0)

    def backups(self, vm, turn):
        api = self.at(turn)
        with api.post(None, path="/pool/xmldbdump?session_id=" + api.session) as answer:
            assert b"</database>" in answer.read()[-100:]
        time.sleep(1)

    def commands(self, vm, turn):
        subprocess.run([os.path.join(arguments.build, "xe"), "-s", self.pool.address(1 + turn % self.pool.n), "-u", "root", "-pw", PASSWORD,
                        "vm-list", "params=all"], check=True, stdout=subprocess.DEVNULL, timeout=60, env=dict(os.environ, HOME=self.pool.dir))

    def run(self, number, kind):
        turn = number
        while not self.stop:
            try:
                getattr(self, kind)(self.vms[number], turn)
            except Exception as fault:  # with its worker, at the end
                self.failed.append((kind, turn, repr(fault)))
                return
            turn += 1
            self.done[kind] = self.done.get(kind, 0) + 1


def quiet(pool):
    """What each has, once that does not change for a while."""
    now, since, until = {}, time.time(), time.time() + QUIET_S
    while not now or time.time() - since < 10 and time.time() < until:
        time.sleep(1)
        was = now
        now = {who: look(pool, *who) for who in itertools.product(range(1, pool.n + 1), ("xpoold", "agent"))}
        if not was or any(was[who][what] != now[who][what] for who in now for what in ("descriptors", "threads")):
            since = time.time()
    return now


def loaded(load, seconds):
    load.stop = False
    threads = [threading.Thread(target=load.run, args=(n, kind), daemon=True) for n, kind in enumerate(WORKERS)]
    for thread in threads:
        thread.start()
    until = time.time() + seconds
    while time.time() < until and not load.failed:
        time.sleep(1)
    load.stop = True
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a client hangs"
    assert not load.failed, load.failed


with Pool(options="--snapshot-entries 500") as pool:  # else the log kept in memory grows for as long
    load = Load(pool)
    loaded(load, arguments.seconds / 3)
    first = quiet(pool)
    loaded(load, arguments.seconds * 2 / 3)
    last = quiet(pool)
    print(load.done)
    for who in first:
        print("member %d, %-6s" % who, "; ".join("%s %d, %d" % (what, first[who][what], last[who][what]) for what in MORE))
        assert first[who]["pid"] == last[who]["pid"], "it has died"
    grown = [(who, what) for who in first for what, most in MORE.items() if last[who][what] > first[who][what] + most]
    assert not grown, grown
