"""The pool stands still when a host asks to be let in. Who called pool.join is told after a minute that it is not decided; nothing
is begun on the host meanwhile, also over its restart. When the pool goes on the host is in, without being asked again.

usage: 32_join_frozen.py BUILD"""
import signal
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from joining import LET_IN, RELAY, Relay, stand_alone
from xpool import PASSWORD, Api, ApiError, Pool, eventually, vm_record

TOLD_AFTER = 60  # seconds; LET_IN_MS of pool/join.c

with Pool(members=1) as pool:
    stand_alone(pool, 2)
    relay, asked = Relay(pool), threading.Event()

    def freeze():
        pool.signal(1, "xpoold", signal.SIGSTOP)
        asked.set()
    relay.arm(LET_IN, "asked", freeze)
    host, ends = Api(pool, 2).login(), []

    def join():
        began = time.time()
        try:
            ends.append((host("pool.join", "%s:%d" % RELAY, "root", PASSWORD, timeout=4 * TOLD_AFTER) or "joined", time.time() - began))
        except ApiError as fault:
            ends.append((fault.code, time.time() - began))
    thread = threading.Thread(target=join)
    thread.start()
    assert asked.wait(60)
    nothing_begins = lambda: Api(pool, 2).login().fails("OTHER_OPERATION_IN_PROGRESS", "VM.create", vm_record("too late"))
    nothing_begins()
    thread.join(4 * TOLD_AFTER)
    assert ends and ends[0][0] == "JOINING_HOST_SERVICE_FAILED", ends
    assert TOLD_AFTER <= ends[0][1] < 3 * TOLD_AFTER, ends
    nothing_begins()
    pool.kill(2, "xpoold")
    pool.quickstart("start", "2")
    eventually("it serves", lambda: pool.status()[1].get("ready") == "yes")
    nothing_begins()
    assert len(Api(pool, 2).login()("host.get_all")) == 1
    pool.signal(1, "xpoold", signal.SIGCONT)
    eventually("it has what the pool has", lambda: pool.status()[0].get("hash", "0") == pool.status()[1].get("hash"), timeout=120)
    assert [len(Api(pool, n).login()("host.get_all")) for n in (1, 2)] == [2, 2]
    Api(pool, 2).login()("VM.create", vm_record("after it"))
