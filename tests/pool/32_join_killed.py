"""Both sides of a pool.join are killed at each of its steps: before this host has a record of it nothing has happened, behind
that it is a member without being asked again, and its VM with it. The steps are seen from a relay between the two, one connection each: the login,
the facts, being let in, the logout. Then this program is killed at each change of its files on the way into the pool.

usage: 32_join_killed.py BUILD"""
import os
import sys
import threading

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from joining import LAST_FACT, LET_IN, LOGIN, NEXT, RELAY, Relay, stand_alone
from xpool import PASSWORD, Api, Pool, eventually, gone, vm_record

OPTIONS = "--election-ms 300"


def alone_with_vm(pool, number):
    stand_alone(pool, number)
    Api(pool, number).login()("VM.create", vm_record("of host %d" % number))


def join(pool, number):
    """Begun; whoever is killed, nobody may hear of its end."""
    def run():
        try:
            host("pool.join", "%s:%d" % RELAY, "root", PASSWORD)
        except OSError:
            pass
    host = Api(pool, number).login()
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def killed(pool, relay, step, side, victim, number):
    """The victim dies at that step of the join of member `number`."""
    done = threading.Event()

    def act():
        pool.kill(victim, "xpoold")
        done.set()
    relay.arm(step, side, act)
    thread = join(pool, number)
    assert done.wait(60)
    return thread


def is_member(pool, number):
    eventually("member %d has what the pool has" % number,
               lambda: pool.status()[0].get("hash", "0") == pool.status()[number - 1].get("hash"), timeout=60)
    labels = [vm["name_label"] for vm in Api(pool, number).login()("VM.get_all_records").values()]
    assert labels.count("of host %d" % number) == 1, labels


def alone(pool, number, of):
    eventually("it serves", lambda: pool.status()[number - 1].get("ready") == "yes")
    assert len(Api(pool, number).login()("host.get_all")) == 1
    assert len(Api(pool, 1).login()("host.get_all")) == of


with Pool(members=1, options=OPTIONS) as pool:
    relay = Relay(pool)
    alone_with_vm(pool, 2)
    for step, side in (LOGIN, "asked"), (LAST_FACT, "answered"):
        killed(pool, relay, step, side, 2, 2).join()
        pool.quickstart("start", "2")
        alone(pool, 2, 1)
    # behind its record, before the pool has heard of it
    killed(pool, relay, LET_IN, "asked", 2, 2).join()
    pool.quickstart("start", "2")
    is_member(pool, 2)
    # let in, and it does not know
    alone_with_vm(pool, 3)
    killed(pool, relay, LET_IN, "answered", 3, 3).join()
    assert len(Api(pool, 1).login()("host.get_all")) == 3
    pool.quickstart("start", "3")
    is_member(pool, 3)
    # the member that lets it in dies before, and behind the entry
    alone_with_vm(pool, 4)
    thread = killed(pool, relay, LET_IN, "asked", 1, 4)
    died = threading.Event()
    relay.arm(NEXT, "answered", lambda: (pool.kill(1, "xpoold"), died.set()))
    pool.quickstart("start", "1")
    assert died.wait(60)
    # and this host at the last step, then at each change of its files on the way
    relay.arm(NEXT, "asked", None)
    said = threading.Event()
    relay.arm(2, "asked", lambda: (pool.kill(4, "xpoold"), said.set()))
    pool.quickstart("start", "1")
    assert said.wait(60)
    thread.join()
    pool.env.update(LD_PRELOAD=os.path.join(sys.argv[1], "tests", "libfaulty_disk.so"))
    log, at = os.path.join(pool.dir, "member4", "xpoold.log"), 0
    while "event=joined" not in open(log).read():
        at += 1
        pool.env["XPOOL_DISK_FAULT"] = "xpoold die %d" % at
        pool.quickstart("start", "4")
        with open(os.path.join(pool.dir, "member4", "xpoold.pid")) as handle:
            pid = int(handle.read().split()[0])
        eventually("it dies", lambda: gone(pid))
    print("died at %d changes of files" % at)
    pool.env.pop("LD_PRELOAD")
    pool.env.pop("XPOOL_DISK_FAULT")
    pool.quickstart("start", "4")
    is_member(pool, 4)
    assert len(Api(pool, 4).login()("host.get_all")) == 4
