"""Migration inside the pool: one host runs the VM at any time, whoever dies; nothing is left on the other; hosts are emptied."""
import json
import os
import random
import sqlite3
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from twice import Twice
from xpool import MIB, NULL, Pool, eventually, everywhere, guest, vm_record

LIVE = {"live": "true"}
random.seed(7)

with Pool() as pool:
    apis = everywhere(pool)
    first, second, third = apis
    hosts = first("host.get_all")
    member, free = first.members(), first.memory_known()

    def domains(host, vm):
        """(not half made, paused) of each domain of the VM there, whatever the record says."""
        path = os.path.join(pool.dir, "member%d" % member[host], "agent", "domains.db")
        with sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=10) as db:
            return list(db.execute("SELECT domid, moving FROM domain WHERE uuid = ?", (first("VM.get_uuid", vm),)))

    def runs_only(api, vm, host):
        record = api("VM.get_record", vm)
        assert (record["power_state"], record["resident_on"], record["current_operations"]) == ("Running", host, {}), record
        assert record["scheduled_to_be_resident_on"] == "OpaqueRef:NULL", record
        here = domains(host, vm)
        assert here == [(int(record["domid"]), 0)], (here, record["domid"])
        eventually("nothing is left elsewhere", lambda: not any(domains(h, vm) for h in hosts if h != host))

    def alive():
        """An Api at a member that answers and is in contact."""
        for api in apis:
            try:
                api("pool.get_all", timeout=5)
                return api
            except OSError:
                pass
        raise AssertionError("nobody answers")

    twice = Twice(pool.dir)
    twice.start()
    vm = first("VM.create", vm_record("moves"))
    first("VM.start_on", vm, hosts[0], False, True)
    # there and back by each member, plain and Async.; where it is already is fine
    for turn in range(6):
        to = hosts[(turn + 1) % 3]
        if turn % 2:
            apis[turn % 3]("VM.pool_migrate", vm, to, LIVE)
        else:
            task = apis[turn % 3]("Async.VM.pool_migrate", vm, to, LIVE)
            ended = apis[turn % 3].wait_task(task)
            assert ended["status"] == "success" and ended["resident_on"] == to, ended
        runs_only(apis[turn % 3], vm, to)
    second("VM.pool_migrate", vm, hosts[0], LIVE)
    runs_only(second, vm, hosts[0])
    # to and fro as fast as it goes: what has just left a host does not keep it from coming back
    for turn in range(10):
        apis[turn % 3]("VM.pool_migrate", vm, hosts[1 - turn % 2], LIVE)
    runs_only(second, vm, hosts[0])
    # what is refused
    assert first.fails("HANDLE_INVALID", "VM.pool_migrate", vm, "OpaqueRef:none", LIVE) == ["host", "OpaqueRef:none"]
    second("host.disable", hosts[1])
    assert second.fails("HOST_DISABLED", "VM.pool_migrate", vm, hosts[1], LIVE) == [hosts[1]]
    second("host.enable", hosts[1])
    second("VM.pause", vm)
    assert second.fails("VM_BAD_POWER_STATE", "VM.pool_migrate", vm, hosts[1], LIVE) == [vm, "running", "paused"]
    second("VM.unpause", vm)

    # the other side cannot: it runs on, in the same domain
    for call in ("create", "restore"):
        bad = first("VM.create", vm_record("bad " + call, **guest()))
        first("VM.start_on", bad, hosts[0], False, True)
        domid = first("VM.get_domid", bad)
        first("VM.remove_from_other_config", bad, "xpool-sim-guest")
        first("VM.add_to_other_config", bad, "xpool-sim-guest", json.dumps({"fail": {call: "no " + call}}))
        assert first.fails("INTERNAL_ERROR", "VM.pool_migrate", bad, hosts[1], LIVE) == ["no " + call]
        runs_only(first, bad, hosts[0])
        assert first("VM.get_domid", bad) == domid
        first("VM.hard_shutdown", bad)
    # a guest that does not suspend; the task is cancelled, and so by a hard operation
    deaf = first("VM.create", vm_record("deaf", **guest(suspend="hang")))
    first("VM.start_on", deaf, hosts[0], False, True)
    task = second("Async.VM.pool_migrate", deaf, hosts[1], LIVE)
    time.sleep(0.5)
    third("task.cancel", task)
    assert second.wait_task(task)["status"] == "cancelled"
    runs_only(second, deaf, hosts[0])
    task = second("Async.VM.pool_migrate", deaf, hosts[1], LIVE)
    time.sleep(0.3)
    second("VM.hard_shutdown", deaf)
    assert second.wait_task(task)["status"] == "cancelled" and second("VM.get_power_state", deaf) == "Halted"
    second("VM.hard_shutdown", vm)
    eventually("memory is given back", lambda: first.free_memory() == free)

    # with more memory than there is room for: it gives back what it can, or stays where it is
    room = free[hosts[1]] // MIB
    fat = first("VM.create", vm_record("fat"))
    first("VM.set_memory", fat, first("VM.maximise_memory", fat, (room - 256) * MIB, False))
    first("VM.start_on", fat, hosts[1], False, True)
    for balloon in (True, False):
        vm = first("VM.create", vm_record("wide", **guest(balloon=balloon)))
        first("VM.set_memory_limits", vm, *(s * MIB for s in (0, 512, 128, 512)))
        first("VM.start_on", vm, hosts[0], False, True)
        before = first("host.compute_free_memory", hosts[0])
        if balloon:
            first("VM.pool_migrate", vm, hosts[1], LIVE)
            runs_only(first, vm, hosts[1])
            assert int(first("host.compute_free_memory", hosts[1])) == 0
        else:
            assert first.fails("VMS_FAILED_TO_COOPERATE", "VM.pool_migrate", vm, hosts[1], LIVE) == [vm]
            runs_only(first, vm, hosts[0])
            assert first("host.compute_free_memory", hosts[0]) == before
        first("VM.hard_shutdown", vm)
    first("VM.hard_shutdown", fat)

    # a host is emptied, ten at a time, while its VMs are where they are or on their way
    vms = [first("VM.create", vm_record("e%d" % n)) for n in range(12)]
    for v in vms:
        first("VM.start_on", v, hosts[0], False, True)
    first("host.disable", hosts[0])
    task = second("Async.host.evacuate", hosts[0])
    ended = third.wait_task(task)
    assert ended["status"] == "success" and len(ended["subtasks"]) == 12, ended
    assert first("host.get_resident_VMs", hosts[0]) == []
    for v in vms:
        to = third("VM.get_resident_on", v)
        assert to in hosts[1:]
        runs_only(third, v, to)
        third("VM.hard_shutdown", v)
    assert len({e for e in ended["subtasks"]}) == 12
    first("host.enable", hosts[0])
    # one that cannot arrive does not keep the others: they move, it runs on where it is, and is named
    three = [first("VM.create", vm_record("t%d" % n, **(guest() if n == 1 else {}))) for n in range(3)]
    for v in three:
        first("VM.start_on", v, hosts[0], False, True)
    first("host.disable", hosts[0])
    stays = three[1]
    first("VM.remove_from_other_config", stays, "xpool-sim-guest")
    first("VM.add_to_other_config", stays, "xpool-sim-guest", json.dumps({"fail": {"restore": "no restore"}}))
    assert second.fails("CANNOT_EVACUATE_HOST", "host.evacuate", hosts[0]) == ["INTERNAL_ERROR,no restore,%s" % stays]
    runs_only(first, stays, hosts[0])
    assert first("host.get_resident_VMs", hosts[0]) == [stays] and first("host.get_current_operations", hosts[0]) == {}
    for v in three:
        runs_only(third, v, third("VM.get_resident_on", v))
        third("VM.hard_shutdown", v)
    first("host.enable", hosts[0])
    # cancelled while one guest does not suspend: what is under way ends with it, nothing more is begun
    two = [first("VM.create", vm_record("c%d" % n, **guest(suspend="hang"))) for n in range(2)]
    for v in two:
        first("VM.start_on", v, hosts[0], False, True)
    first("host.disable", hosts[0])
    task = second("Async.host.evacuate", hosts[0], NULL, 1)
    eventually("the first is on its way", lambda: len(third("task.get_subtasks", task)) == 1)
    third("task.cancel", task)
    ended = second.wait_task(task)
    assert ended["status"] == "cancelled" and len(ended["subtasks"]) == 1, ended
    assert first("host.get_current_operations", hosts[0]) == {}
    for v in two:
        runs_only(first, v, hosts[0])
        first("VM.hard_shutdown", v)
    first("host.enable", hosts[0])

    # killed at any moment, either side, either program: it runs once, in the end where its record says
    slow = guest(delay_ms={"save": 150, "create": 150, "restore": 150, "unpause": 150, "resume": 100, "destroy": 100})
    vm = first("VM.create", vm_record("slow", **slow))
    first("VM.start_on", vm, hosts[0], False, True)
    outcomes = set()
    for turn in range(6):
        api = alive()
        here = api("VM.get_resident_on", vm)
        to = hosts[(hosts.index(here) + 1) % 3]
        task = api("Async.VM.pool_migrate", vm, to, LIVE)
        time.sleep(random.random())
        victim = member[here if turn % 2 else to]
        if turn % 4 < 2:
            pool.quickstart("kill", str(victim))
        else:
            pool.kill(victim, "agent")
        pool.quickstart("start", str(victim))
        eventually("the member is back", lambda: pool.status()[victim - 1].get("ready") == "yes")
        api = alive()
        ended = api.wait_task(task)
        outcomes.add(ended["status"])
        eventually("unlocked", lambda: api("VM.get_current_operations", vm) == {})
        at = api("VM.get_resident_on", vm)
        assert at == (to if ended["status"] == "success" else at) and at in (here, to), (ended, at)
        runs_only(api, vm, at)
    assert "success" in outcomes, outcomes
    alive()("VM.hard_shutdown", vm)

    # a destination that is gone while the guest is on its way there, or says nothing: the guest stays, long before its 30 s are over
    for stop, back in (("poweroff", "start"), ("freeze", "thaw")):
        slow = alive()("VM.create", vm_record("waits", **guest(delay_ms={"restore": 8000})))
        leader = pool.leader()
        here, to = sorted((h for h in hosts if member[h] != leader), key=member.get)
        api = apis[member[here] - 1]
        api("VM.start_on", slow, here, False, True)
        task = api("Async.VM.pool_migrate", slow, to, LIVE)
        eventually("it arrives", lambda: domains(to, slow))
        pool.quickstart(stop, str(member[to]))
        began = time.time()
        ended = api.wait_task(task)
        assert ended["status"] == "failure", ended
        assert ended["error_info"] == ["VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"], ended
        assert time.time() - began < 20, "%s: %.1f s" % (stop, time.time() - began)
        assert api("VM.get_resident_on", slow) == here and domains(here, slow)
        pool.quickstart(back, str(member[to]))
        eventually("the member is back", lambda: pool.status()[member[to] - 1].get("ready") == "yes")
        eventually("the lock is gone", lambda: api("VM.get_current_operations", slow) == {})
        runs_only(api, slow, here)
        api("VM.hard_shutdown", slow)
    eventually("memory is given back", lambda: alive().free_memory() == free)
    twice.stop = True
    twice.join()
    assert twice.looks > 100 and twice.found == [], twice.found[:3]
    pool.check()
    pool.agree()
