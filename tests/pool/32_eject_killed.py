"""A pool.eject while somebody dies: the coordinator, the host that leaves, or its agent, while its SRs are being detached and once it
is said to leave. It ends wholly in the pool, its SRs attached, or wholly out of it, a pool of its own. Then a host dies at each
change of its files on the way out.

usage: 32_eject_killed.py BUILD"""
import os
import signal
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, gone

OPTIONS = "--election-ms 300"


class Leaving:
    """Member 3 is to leave the pool of three, seen by who stays."""

    def __init__(self, pool):
        self.pool, api = pool, Api(pool, 1).login()
        number = {n: ref for ref, n in api.members().items()}
        self.host = number[3]
        if pool.leader() == 3:
            api("pool.designate_new_master", number[1])
        self.lead = pool.leader(of=[1, 2])
        self.api = Api(pool, 3 - self.lead, api.session)  # of the one that stays and lives

    def ask(self):
        self.task = self.api("Async.pool.eject", self.host)
        return self

    def detaching(self):
        """Its agent does not answer meanwhile."""
        self.pool.signal(3, "agent", signal.SIGSTOP)
        self.ask()
        eventually("it is being detached", lambda: any("unplug" in r["current_operations"].values() for r in self.api("SR.get_all_records").values()))
        return self

    def leaves(self):
        """Its row says so, or is gone already."""
        self.ask()
        eventually("it leaves", lambda: not self.is_in())
        return self

    def is_in(self):
        return self.api("host.get_all_records").get(self.host, {}).get("enabled") is True

    def is_out(self):
        return self.host not in self.api("host.get_all")


def settled(pool, leaving):
    """How it ended, after everybody is back: True when it is out."""
    api = leaving.api
    ended = api.wait_task(leaving.task, 120)
    eventually("it is told", lambda: pool.status()[2].get("ready") == "yes")
    eventually("in or out", lambda: leaving.is_out() or leaving.is_in())
    out = leaving.is_out()
    print("%s %s, it is %s" % (ended["status"], " ".join(ended["error_info"]), "out" if out else "in"))
    assert out == (ended["status"] == "success") or ended["error_info"][0] in ("INTERNAL_ERROR", "HOST_OFFLINE"), ended
    for kind in ("host", "SR", "pool"):
        eventually("no lock is left", lambda: not any(r["current_operations"] for r in api(kind + ".get_all_records").values()))
    if out:
        eventually("it is alone", lambda: len(Api(pool, 3).login()("host.get_all")) == 1)
        return True
    assert len(Api(pool, 3).login()("host.get_all")) == 3
    eventually("its SRs are attached", lambda: {p["currently_attached"] for p in api("PBD.get_all_records").values()
                                                if p["host"] == leaving.host} == {True})
    return False


def leads_its_own(pool, number):
    """By its log: since it is a pool of one, it has led it."""
    with open(os.path.join(pool.dir, "member%d" % number, "xpoold.log"), errors="replace") as handle:
        before, found, since = handle.read().rpartition("event=pool_of_one")
    return found and "role=leader-ready" in since


def until_dead(pool, number):
    """What was started, until it is dead or leads a pool of its own."""
    with open(os.path.join(pool.dir, "member%d" % number, "xpoold.pid")) as handle:
        pid = int(handle.read().split()[0])
    eventually("it dies or leads", lambda: gone(pid) or leads_its_own(pool, number))


def kill(pool):
    """It may be between its two lives, or its fault has come."""
    try:
        pool.kill(3, "xpoold")
    except ProcessLookupError:
        pass


CASES = [
    ("the coordinator while SRs are detached", "detaching", lambda l: (l.lead, "xpoold")),
    ("the host while its SRs are detached", "detaching", lambda l: (3, "xpoold")),
    ("its agent while its SRs are detached", "detaching", lambda l: (3, "agent")),
    ("the coordinator once it is said to leave", "leaves", lambda l: (l.lead, "xpoold")),
]


def case(what, reach, victim):
    with Pool(options=OPTIONS) as pool:
        pool.make_sr(Api(pool, 1).login())
        leaving = getattr(Leaving(pool), reach)()
        number, program = victim(leaving)
        print("dies: %s" % what)
        pool.kill(number, program)
        if reach == "detaching" and program != "agent":
            pool.signal(3, "agent", signal.SIGCONT)
        pool.quickstart("start", str(number))
        if not settled(pool, leaving):
            leaving.ask()  # what could not then can now
            assert settled(pool, leaving)


for one in CASES:
    case(*one)
with Pool(options=OPTIONS) as pool:
    leaving = Leaving(pool).leaves()
    eventually("it is out", leaving.is_out)
    kill(pool)
    pool.env.update(LD_PRELOAD=os.path.join(sys.argv[1], "tests", "libfaulty_disk.so"))
    at = 0
    while not leads_its_own(pool, 3):
        at += 1 if at < 50 else 10  # from there on it fills its projection
        pool.env["XPOOL_DISK_FAULT"] = "xpoold die %d" % at
        pool.quickstart("start", "3")
        until_dead(pool, 3)
    print("died at %d changes of files" % at)
    assert at > 10
    # the log it had in the pool is kept, none that it began and did not end
    assert [name for name in os.listdir(pool.data(3)) if ".aside" in name and name.startswith("raft")] == ["raft.aside-1"]
    pool.env.pop("LD_PRELOAD")
    pool.env.pop("XPOOL_DISK_FAULT")
    kill(pool)
    pool.quickstart("start", "3")
    eventually("it serves", lambda: pool.status()[2].get("ready") == "yes")
    assert len(leaving.api("host.get_all")) == 2
    api = Api(pool, 3).login()
    assert api("pool.get_all_records").popitem()[1]["uuid"] != leaving.api("pool.get_all_records").popitem()[1]["uuid"]
