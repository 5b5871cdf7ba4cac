"""Suspend and resume: the memory of a guest on a disk of the pool, on any host that sees it, whoever dies; nothing of it is left."""
import json
import os
import re
import signal
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from twice import Twice
from xpool import MIB, NULL, Api, Pool, eventually, guest, vbd_record, vdi_record, vm_record


with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))
    hosts = first("host.get_all")
    member, free = first.members(), first.memory_known()

    vm = first("VM.create", vm_record("sleeps"))
    first("VM.start_on", vm, hosts[0], False, True)
    assert first.fails("VM_NO_SUSPEND_SR", "VM.suspend", vm) == [vm]
    sr = pool.make_sr(first)
    third("VM.set_suspend_SR", vm, sr)
    folder = pool.storage("shared")["location"]
    images = lambda: {name for name in os.listdir(folder) if len(name) >= 36}

    # suspended: no domain, no memory, a disk; resumed elsewhere, and the disk is gone
    second("VM.suspend", vm)
    record = third("VM.get_record", vm)
    assert (record["power_state"], record["resident_on"], int(record["domid"])) == ("Suspended", NULL, -1), record
    image = third("VDI.get_record", record["suspend_VDI"])
    assert (image["type"], image["SR"]) == ("suspend", sr) and int(image["virtual_size"]) > 64 * MIB, image
    assert images() == {image["uuid"]}
    assert first.free_memory() == free
    assert {"resume", "resume_on", "hard_shutdown", "destroy"} <= set(record["allowed_operations"]) and "start" not in record["allowed_operations"]
    assert second.fails("VM_BAD_POWER_STATE", "VM.start", vm, False, True) == [vm, "halted", "suspended"]
    assert second.fails("VM_BAD_POWER_STATE", "VM.suspend", vm) == [vm, "running", "suspended"]
    third("VM.resume_on", vm, hosts[1], False, True)
    record = first("VM.get_record", vm)
    assert (record["power_state"], record["resident_on"], record["suspend_VDI"]) == ("Running", hosts[1], NULL), record
    assert first("VDI.get_all") == []
    eventually("no image", lambda: images() == set())
    # where the pool says; resumed paused, where there is room
    first("VM.set_suspend_SR", vm, NULL)
    first("pool.set_suspend_image_SR", first("pool.get_all")[0], sr)
    task = third("Async.VM.suspend", vm)
    assert third.wait_task(task)["status"] == "success"
    second("VM.resume", vm, True, False)
    assert second("VM.get_power_state", vm) == "Paused"
    second("VM.unpause", vm)
    # copied while it is suspended, where the pool permits that: suspended too, with a memory of its own
    second("VM.suspend", vm)
    for method, more in (("clone", ("twin",)), ("copy", ("twin", NULL))):
        assert third.fails("VM_BAD_POWER_STATE", "VM." + method, vm, *more) == [vm, "halted", "suspended"]
    the_pool = first("pool.get_all")[0]
    first("pool.add_to_other_config", the_pool, "allow_clone_suspended_vm", "true")
    twins = [third("VM.clone", vm, "twin"), second("VM.copy", vm, "twin", sr), first("VM.csvm", vm)]
    first("pool.remove_from_other_config", the_pool, "allow_clone_suspended_vm")
    assert first("VM.get_name_label", twins[2]) == "sleeps-cloned-suspended"
    for twin in twins:
        record = second("VM.get_record", twin)
        assert record["power_state"] == "Suspended" and record["suspend_VDI"] not in (NULL, second("VM.get_suspend_VDI", vm)), record
    assert len(images()) == 4
    second("VM.resume", vm, False, False)
    third.fails("VM_BAD_POWER_STATE", "VM.csvm", vm)
    for twin in twins:  # each goes on beside the others
        first("VM.resume", twin, False, False)
    assert {first("VM.get_power_state", v) for v in twins + [vm]} == {"Running"}
    eventually("no image", lambda: images() == set())
    for twin in twins:
        first("VM.hard_shutdown", twin)
        first("VM.destroy", twin)
    # one that lost its image has no copy
    second("VM.suspend", vm)
    # a suspended VM that is stopped only loses its image
    third("VM.hard_shutdown", vm)
    assert first("VM.get_power_state", vm) == "Halted" and images() == set() and first("VDI.get_all") == []

    # its disk and its locks go where it goes: suspended nobody has it, resumed or moved the VM alone
    disk = first("VDI.create", vdi_record(sr))
    vm, other = (first("VM.create", vm_record(label)) for label in ("disk", "other"))
    for v in (vm, other):
        first("VBD.create", vbd_record(v, disk))
    first("VM.start_on", vm, hosts[0], False, True)
    second("VM.suspend", vm)
    third("VM.resume_on", vm, hosts[1], False, True)
    first.fails("VDI_IN_USE", "VM.start_on", other, hosts[0], False, True)
    third("VM.pool_migrate", vm, hosts[2], {"live": "true"})
    assert [first("VBD.get_currently_attached", v) for v in first("VM.get_VBDs", vm)] == [True]
    first.fails("VDI_IN_USE", "VM.start_on", other, hosts[1], False, True)
    first("VM.hard_shutdown", vm)
    first("VM.start_on", other, hosts[1], False, True)
    first("VM.hard_shutdown", other)
    first("VDI.destroy", disk)
    vm = first("VM.create", vm_record("fails"))

    # what fails leaves the guest running and nothing else
    bad = first("VM.create", vm_record("no save", **guest(fail={"save": "no save"})))
    first("VM.start_on", bad, hosts[0], False, True)
    domid = first("VM.get_domid", bad)
    assert first.fails("INTERNAL_ERROR", "VM.suspend", bad) == ["no save"]
    assert first("VM.get_power_state", bad) == "Running" and first("VM.get_domid", bad) == domid
    assert images() == set() and first("VM.get_current_operations", bad) == {}
    first("VM.hard_shutdown", bad)
    bad = first("VM.create", vm_record("bad", **guest(suspend="hang")))
    first("VM.start_on", bad, hosts[0], False, True)
    task = second("Async.VM.suspend", bad)
    time.sleep(0.4)
    third("task.cancel", task)
    assert second.wait_task(task)["status"] == "cancelled" and second("VM.get_power_state", bad) == "Running" and images() == set()
    first("VM.hard_shutdown", bad)
    # a host that cannot restore it: it stays suspended, with its image
    first("VM.start", vm, False, False)
    first("VM.suspend", vm)
    first("VM.add_to_other_config", vm, "xpool-sim-guest", json.dumps({"fail": {"restore": "no restore"}}))
    assert first.fails("INTERNAL_ERROR", "VM.resume", vm, False, False) == ["no restore"]
    record = first("VM.get_record", vm)
    assert record["power_state"] == "Suspended" and record["scheduled_to_be_resident_on"] == NULL and len(images()) == 1
    first("VM.remove_from_other_config", vm, "xpool-sim-guest")
    first("VM.resume", vm, False, False)
    first("VM.hard_shutdown", vm)

    # xpoold or the agent dies in between: suspended with its image, running or halted without
    slow = guest(delay_ms={"save": 300, "destroy": 300, "restore": 300})
    vm = first("VM.create", vm_record("slow", **slow))
    for turn, wait in enumerate((0.15, 0.45, 0.7, 0.3)):
        if first("VM.get_power_state", vm) == "Halted":
            first("VM.start_on", vm, hosts[2], False, True)
        victim = member[hosts[2]]
        task = first("Async.VM.suspend", vm)
        time.sleep(wait)
        program = "xpoold" if turn % 2 else "agent"
        pool.kill(victim, program)
        pool.quickstart("start", str(victim))
        eventually("the member is back", lambda: pool.status()[victim - 1].get("ready") == "yes")
        status = first.wait_task(task)["status"]
        state = first("VM.get_power_state", vm)
        assert (status == "success") == (state == "Suspended"), (turn, status, state)
        eventually("an image when it is suspended", lambda: len(images()) == (state == "Suspended"))
        if state == "Suspended":
            first("VM.resume_on", vm, hosts[2], False, False)
            assert first("VM.get_power_state", vm) == "Running"
            eventually("no image", lambda: images() == set())  # it goes behind the end of its task
    # stopped while it is resumed, asked of another member: the resume ends first
    if first("VM.get_power_state", vm) == "Halted":
        first("VM.start_on", vm, hosts[2], False, True)
    first("VM.suspend", vm)
    task = first("Async.VM.resume_on", vm, hosts[2], False, False)
    second("VM.hard_shutdown", vm)
    assert first("task.get_status", task) in ("cancelled", "success")
    record = first("VM.get_record", vm)
    assert (record["power_state"], record["suspend_VDI"], record["current_operations"]) == ("Halted", NULL, {}), record
    eventually("no image", lambda: images() == set() and first("VDI.get_all") == [])

    # a host dies when the guest has gone on, before the pool hears of it: it is lost as by any crash, and never goes back
    victim = member[hosts[2]]
    first = Api(pool, 1 + victim % 3, first.session)
    if first("VM.get_power_state", vm) == "Halted":
        first("VM.start_on", vm, hosts[2], False, True)
    first("VM.suspend", vm)
    task = first("Async.VM.resume_on", vm, hosts[2], False, False)
    uuid = first("VM.get_uuid", vm)
    eventually("it is under way", lambda: uuid in Twice(pool.dir).all(os.path.join(pool.dir, "member%d" % victim, "agent", "domains.db")))
    pool.signal(victim, "xpoold", signal.SIGSTOP)
    eventually("it has gone on", lambda: re.search(r"event=op_ended op=VM.resume vm=%s task=%s result=ok" % (uuid, first("task.get_uuid", task)),
                                                   dict(pool.logs())["member%d/agent.log" % victim]))
    assert first("VM.get_power_state", vm) == "Suspended" and len(images()) == 1
    pool.kill(victim, "xpoold")
    pool.quickstart("poweroff", str(victim))
    pool.quickstart("start", str(victim))
    assert first.wait_task(task)["status"] == "failure"
    record = first("VM.get_record", vm)
    assert (record["power_state"], record["suspend_VDI"], record["resident_on"], record["current_operations"]) == ("Halted", NULL, NULL, {}), record
    eventually("no image", lambda: images() == set() and first("VDI.get_all") == [])

    # frozen for longer than the pool waits: its task has another end, the guest is suspended all the same and can be resumed
    victim = member[hosts[2]]
    first = Api(pool, 1 + victim % 3, first.session)
    if first("VM.get_power_state", vm) == "Halted":
        first("VM.start_on", vm, hosts[2], False, True)
    task = first("Async.VM.suspend", vm)
    eventually("it is under way", images)
    pool.quickstart("freeze", str(victim))
    assert first.wait_task(task, timeout=120)["error_info"] == ["HOST_OFFLINE", hosts[2]]
    pool.quickstart("thaw", str(victim))
    eventually("its lock is gone", lambda: first("VM.get_current_operations", vm) == {})
    assert first("VM.get_power_state", vm) == "Suspended" and len(images()) == 1
    first("VM.resume", vm, False, False)
    first("VM.hard_shutdown", vm)

    # copied where no host sees its disks, its memory and the place to go: refused before anything begins
    local = [first("SR.create", host, pool.storage("of " + host[-4:]), 0, "local", "", "file", "user", False, {}) for host in hosts[:2]]
    between = first("VM.create", vm_record("between"))
    first("VBD.create", vbd_record(between, first("VDI.create", vdi_record(sr))))
    first("VM.set_suspend_SR", between, local[0])
    first("VM.start_on", between, hosts[0], False, True)
    first("VM.suspend", between)
    first("pool.add_to_other_config", the_pool, "allow_clone_suspended_vm", "true")
    assert first.fails("NO_HOSTS_AVAILABLE", "VM.copy", between, "no", local[1]) == []
    first("VM.copy", between, "yes", sr)
    pool.check()
    pool.agree()
