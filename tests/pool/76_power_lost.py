"""All members lose power at once, again and again, and with it whatever is not on stable storage, in any part: every acknowledged
write is there, a task that has ended stays so, and the states agree. A disk that says it has what it has not is noticed by this test,
so the power cuts are real."""
import os
import random
import sys
import threading

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from cluster import Cluster
from xpool import Api, ApiError, eventually, vm_record

CUTS, WRITERS, WRITES, DISK_MIB = 3, 3, 25, 300


class Writer(threading.Thread):
    """Adds keys until its member is gone."""

    def __init__(self, pool, member, session, vm, turn):
        super().__init__(daemon=True)
        self.api, self.vm, self.turn, self.acked, self.enough = Api(pool, member, session), vm, "%d-%d" % (turn, member), set(), threading.Event()
        self.start()

    def run(self):
        for n in range(100000):
            try:
                self.api("VM.add_to_other_config", self.vm, "k%s-%d" % (self.turn, n), "")
            except (ApiError, OSError):
                return
            self.acked.add("k%s-%d" % (self.turn, n))
            if n == WRITES:
                self.enough.set()


def cut(pool, session, turn):
    """Power goes while they write; what was acknowledged: {VM: keys}, {VM: a host}."""
    api = Api(pool, 1 + turn % 3, session)
    vm, task = api("VM.create", vm_record("cut%d" % turn)), None
    writers = [Writer(pool, member, session, vm, turn) for member in range(1, 1 + WRITERS)]
    task = api("Async.VM.start", vm, False, False)
    assert api.wait_task(task)["status"] == "success"
    for writer in writers:
        assert writer.enough.wait(60)
    pool.blackout(random.Random(turn))
    for writer in writers:
        writer.join(60)
    for member in pool.everybody[1:]:
        pool.start(member)
    return vm, set().union(*(w.acked for w in writers)), task


def lost(api, vm, keys):
    return keys - set(api("VM.get_other_config", vm))


with Cluster(disk_mib=DISK_MIB) as pool:
    session, written = Api(pool, 1).login().session, {}
    for turn in range(CUTS):
        vm, keys, task = cut(pool, session, turn)
        written[vm] = keys
        pool.ready()
        pool.agree()
        api = Api(pool, 1 + turn % 3, session)
        assert api("task.get_status", task) == "success"
        for vm, keys in written.items():
            assert not lost(api, vm, keys), (turn, sorted(lost(api, vm, keys))[:5])
    pool.check()
    print("%d writes; taken: %d of %d sectors, %d of %d names" % (sum(map(len, written.values())), *pool.taken))
    assert min(pool.taken) > 0 and pool.taken[0] < pool.taken[1]
    asides = [line for name, text in pool.logs() for line in text.splitlines() if "event=log_set_aside" in line]
    assert not asides, asides

# the same with a disk that lies
pool = Cluster(disk_mib=DISK_MIB)
pool.env["XPOOL_DISK_LIES"] = "1"
with pool:
    session = Api(pool, 1).login().session
    vm, keys, _ = cut(pool, session, 1)

    def noticed():
        for name, text in pool.logs():
            for line in text.splitlines():
                if "event=log_" in line or line.startswith("xpoold: "):
                    return line
        try:
            return lost(Api(pool, 1).login(), vm, keys) and "acknowledged writes are gone"
        except (ApiError, OSError) as reason:
            return isinstance(reason, ApiError) and reason.code == "HANDLE_INVALID" and "the VM is gone"
    eventually("it is noticed", noticed)
    print("a disk that lies: %s" % noticed())
