"""pool.designate_new_master, again and again under load: the lead goes where it is told, and no acknowledged write is lost.

usage: 34_designate.py BUILD [TIMES]
"""
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

TIMES = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
WRITERS = 4

with Pool() as pool:
    apis = [Api(pool, n).login() for n in (1, 2, 3)]
    first = apis[0]
    hosts = {first("host.get_name_label", ref): ref for ref in first("host.get_all")}
    vms = [first("VM.create", vm_record("w%d" % n)) for n in range(WRITERS)]
    done, stop, faults = [0] * WRITERS, threading.Event(), []

    def write(n):
        api = Api(pool, 1 + n % 3, apis[n % 3].session)
        while not stop.is_set():
            try:
                api("VM.add_to_other_config", vms[n], "k%d" % done[n], str(done[n]))
                done[n] += 1
            except Exception as fault:  # any at all: none may fail
                faults.append(repr(fault))
                return

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    slowest, began = 0.0, time.time()
    for turn in range(TIMES):
        name = "host%d" % (1 + (turn + 1) % 3)
        at = time.time()
        api = apis[turn % 3]
        api("pool.designate_new_master", hosts[name])
        slowest = max(slowest, time.time() - at)
        assert not api("pool.is_slave", hosts[name]) and api("pool.is_slave", hosts["host%d" % (1 + turn % 3)]), name
    print("%d changes of the coordinator in %.1f s, slowest %.3f s, beside %d writes" %
          (TIMES, time.time() - began, slowest, sum(done)))
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults, faults
    assert slowest < 5 and all(done), (slowest, done)
    for n in range(WRITERS):
        # through another member: its own session sees what it was told
        config = Api(pool, 1 + (n + 1) % 3, apis[n % 3].session)("VM.get_other_config", vms[n])
        assert all(config.get("k%d" % k) == str(k) for k in range(done[n])), "acknowledged and gone: writer %d" % n
    ref = first("pool.get_all")[0]
    eventually("pool.master names the coordinator",
               lambda: first("pool.get_master", ref) == hosts["host%d" % pool.leader()])

    # the one that leads already; both forms; what refuses
    leader = pool.leader()
    other = 1 + leader % 3
    first("pool.designate_new_master", hosts["host%d" % leader])
    task = first.wait_task(first("Async.pool.designate_new_master", hosts["host%d" % other]))
    assert task["status"] == "success" and pool.leader() == other, task
    assert first("pool.get_current_operations", ref) == {}
    first.fails("HANDLE_INVALID", "pool.designate_new_master", "OpaqueRef:nobody")
    assert "designate_new_master" in first("pool.get_allowed_operations", ref)

    # the calls of the reference for a lost coordinator
    assert first("pool.emergency_transition_to_master") in ("", None)
    assert first("pool.emergency_reset_master", pool.address(2)) in ("", None)
    first.fails("OPERATION_NOT_ALLOWED", "pool.emergency_reset_master", "192.0.2.1")
    assert sorted(first("pool.recover_slaves")) == sorted(h for n, h in hosts.items() if n != "host1")
    third = apis[2]
    pool.quickstart("kill", "1")
    pool.quickstart("kill", "2")
    assert third("pool.recover_slaves") == []
    third.fails("HOST_IN_EMERGENCY_MODE", "pool.emergency_transition_to_master")
    pool.quickstart("start", "1")
    pool.quickstart("start", "2")
    pool.leader()
    assert third("pool.emergency_transition_to_master") in ("", None)
    eventually("they are back", lambda: len(third("pool.recover_slaves")) == 2)
    pool.agree()
