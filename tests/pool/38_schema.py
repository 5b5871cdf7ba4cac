"""Members are upgraded one by one, in every order, under load: one schema at a time, equal hashes throughout.

The newer programs (tests/schema/overlay) know one more field, VM.notes, which takes its value from other_config:notes when
the schema is raised, and one more value of an enumeration.
"""
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, ApiError, Pool, eventually, gone, vm_record

OLDER, NEWER = sys.argv[1], os.path.join(sys.argv[1], "newer")
UPGRADE = "NOT_SUPPORTED_DURING_UPGRADE"


class Load:
    """A writer at each member; they pause for a moment to compare the members' hashes."""

    def __init__(self, pool):
        self.pool, self.stop, self.run, self.acknowledged = pool, threading.Event(), threading.Event(), {}
        self.run.set()
        api = Api(pool, 1).login()
        self.vms = {n: api("VM.create", vm_record("writer%d" % n, other_config={"notes": "from %d" % n})) for n in (1, 2, 3)}
        self.threads = [threading.Thread(target=self.write, args=(n, Api(pool, n, api.session)), daemon=True) for n in (1, 2, 3)]
        for thread in self.threads:
            thread.start()

    def write(self, n, api):
        k = 0
        while not self.stop.is_set():
            self.run.wait()
            try:
                api("VM.set_name_description", self.vms[n], str(k), timeout=30)
                self.acknowledged[n] = k
            except ApiError as fault:
                assert fault.code != UPGRADE, fault.args  # an old field is never refused
                time.sleep(0.05)
            except OSError:  # of a member that is away: its last write is unknown, not lost
                time.sleep(0.05)
            k += 1

    def goes_on(self):
        self.run.clear()
        self.pool.agree()
        self.run.set()
        mark = dict(self.acknowledged)
        eventually("all members write", lambda: all(self.acknowledged.get(n, -1) > mark.get(n, -1) for n in (1, 2, 3)))

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        self.pool.agree()
        for n in (1, 2, 3):
            api = Api(self.pool, n).login()
            for k in (1, 2, 3):
                assert int(api("VM.get_name_description", self.vms[k])) >= self.acknowledged[k]


def restart(pool, n, build, how="TERM"):
    """Only xpoold: the domains and their agent do not care."""
    with open(os.path.join(pool.dir, "member%d" % n, "xpoold.pid")) as handle:
        pid = int(handle.read().split()[0])
    os.kill(pid, 15 if how == "TERM" else 9)
    eventually("it has left", lambda: gone(pid))
    start(pool, n, build)


def start(pool, n, build, ready=True):
    pool.env["XPOOL_BUILD"] = build
    pool.quickstart("start", str(n))
    pool.env["XPOOL_BUILD"] = OLDER
    if ready:
        eventually("member %d is back" % n, lambda: pool.status()[n - 1].get("ready") == "yes")


def schema(pool, n):
    text = pool.ctl(n, "schema")
    return int(re.search(r"active=(\d+)", text)[1]), [int(v) for v in re.findall(r"newest=(\d+)", text)]


def before(pool, load, n, build):
    """What a member says before the raise."""
    api, vm = Api(pool, n).login(), load.vms[n]
    if build == OLDER:
        assert "notes" not in api("VM.get_record", vm)
        api.fails("MESSAGE_METHOD_UNKNOWN", "VM.set_notes", vm, "x")
        return
    assert api("VM.get_notes", vm) == "" and api("VM.get_record", vm)["notes"] == ""
    api.fails(UPGRADE, "VM.set_notes", vm, "x")
    api.fails(UPGRADE, "VM.set_actions_after_crash", vm, "forget")
    api.fails(UPGRADE, "VM.create", vm_record("too early", notes="x"))
    api("VM.destroy", api("VM.create", vm_record("a record that was read", notes="")))


def after(pool, load):
    """The rule has run everywhere, and what is new is there."""
    vms = dict(load.vms)
    for n in (1, 2, 3):
        eventually("member %d runs it" % n, lambda: schema(pool, n)[0] == 1000)
        api = Api(pool, n).login()
        for k in (1, 2, 3):
            assert api("VM.get_notes", vms[k]) == "from %d" % k, (n, k)
        fresh = api("VM.create", vm_record("made after", other_config={"notes": "late"}))
        assert api("VM.get_notes", fresh) == ""
        api("VM.set_notes", fresh, "set by %d" % n)
        api("VM.set_actions_after_crash", fresh, "forget")
        assert api("VM.get_all_records_where", 'field "notes"="set by %d"' % n)[fresh]["actions_after_crash"] == "forget"
        api("VM.destroy", fresh)


def tells(pool, load):
    """History goes on over it: what was before, and what the rule has done."""
    api = Api(pool, 1).login()
    for n in (1, 2, 3):
        for k, vm in load.vms.items():
            done = subprocess.run([os.path.join(NEWER, "xpoolctl"), "db", "log", "VM", api("VM.get_uuid", vm), "--field", "notes", "--json",
                                   "--dir", pool.data(n)], stdout=subprocess.PIPE, check=True)
            story = json.loads(done.stdout)
            assert [(c["old"], c["new"]) for c in story if c["change"] == "set"] == [("", "from %d" % k)], (n, story)
            made = json.loads(pool.ctl(n, "sql", "SELECT method FROM history WHERE ref = '%s' AND field = '' AND old IS NULL" % vm, "--json"))
            assert made == [{"method": "VM.create"}], (n, made)
        assert pool.counters(n)["projection_aside"] == 0


def refuses(pool, n):
    """An older xpoold ends, and says why."""
    log = os.path.join(pool.dir, "member%d" % n, "xpoold.log")
    size = os.path.getsize(log)
    start(pool, n, OLDER, ready=False)
    eventually("the older one ends", lambda: pool.status()[n - 1] == {} and "install the version" in open(log).read()[size:])
    print("\n".join(line for line in open(log).read()[size:].splitlines() if "schema_foreign" in line or "fail_stop" in line))


def in_turn(pool, load, order, downgrade):
    for i, n in enumerate(order):
        for m in order[i:]:
            before(pool, load, m, OLDER)
        restart(pool, n, NEWER)
        if i < 2:
            for m in order[:i + 1]:
                before(pool, load, m, NEWER)
            assert schema(pool, n)[0] != 1000
        load.goes_on()
        if downgrade and i == 1:
            restart(pool, order[0], OLDER, "KILL")
            before(pool, load, order[0], OLDER)
            load.goes_on()
            restart(pool, order[0], NEWER)


def away(pool, load, order, by_snapshot):
    """One member is away when the schema is raised by hand: it comes back by log or by snapshot, but not as it was."""
    api = Api(pool, 1).login()
    handle = api("pool.get_all")[0]
    api("pool.add_to_other_config", handle, "xpool-schema", "manual")
    in_turn(pool, load, order, False)
    gone = order[0]
    eventually("all have said what they run", lambda: schema(pool, 1)[1] == [1000] * 3)
    time.sleep(1.5)  # a sweep and a half: nothing happens by itself
    before(pool, load, order[1], NEWER)
    pool.quickstart("kill", str(gone))
    assert "raised to 1000" in pool.ctl(order[1], "schema", "raise")
    assert "nothing to raise" in pool.ctl(order[1], "schema", "raise")
    if by_snapshot:
        mark = int(pool.status()[order[1] - 1]["applied"])
        eventually("many more entries", lambda: int(pool.status()[order[1] - 1]["applied"]) > mark + 300, 60)
    refuses(pool, gone)
    start(pool, gone, NEWER)
    if by_snapshot:
        assert pool.counters(gone)["snapshots_restored"] > 0
    load.goes_on()
    refused_again(pool, order[2])


def refused_again(pool, n):
    """Also with its own data, which are of the newer schema now."""
    pool.quickstart("kill", str(n))
    refuses(pool, n)
    start(pool, n, NEWER)


for k, order in enumerate(itertools.permutations((1, 2, 3))):
    began = time.time()
    with Pool(options="--snapshot-entries 100" if k % 2 else "") as pool:
        load = Load(pool)
        if k in (2, 3):
            away(pool, load, order, by_snapshot=k == 3)
        else:
            in_turn(pool, load, order, downgrade=k in (0, 5))
        after(pool, load)
        load.end()
        tells(pool, load)
        for n in (1, 2, 3):
            assert schema(pool, n) == (1000, [1000] * 3)
            pool.check(n)
    print("order %s: %.1f s, %d writes" % (order, time.time() - began, sum(load.acknowledged.values())))
