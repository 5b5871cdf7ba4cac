"""Appliances: groups in order, a group at once, delays, what fails is named, cancelling, and another coordinator going on
with it."""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from xpool import Api, Pool, eventually, vm_record


def stamps(api, parent):
    """{VM: (created, finished)} of the parts of a task, by their arguments: seconds of the pool's clock."""
    found = {}
    for ref in api("task.get_subtasks", parent):
        part = api("task.get_record", ref)
        assert part["subtask_of"] == parent and part["status"] == "success", part
        found[part["uuid"]] = (part["name_label"], part["created"], part["finished"])
    return sorted(found.values(), key=lambda s: s[1:])


with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))
    deaf = {"xpool-sim-guest": "deaf"}
    app = first("VM_appliance.create", {"name_label": "shop", "name_description": ""})
    assert first.fails("OPERATION_NOT_ALLOWED", "VM_appliance.start", app, False) == ["Appliance has no VMs."]
    vms = {}
    for name, order, delay in (("db1", 1, 2), ("db2", 1, 0), ("web", 2, 0)):
        vm = vms[name] = first("VM.create", vm_record(name))
        second("VM.set_appliance", vm, app)
        second("VM.set_order", vm, str(order))
        second("VM.set_start_delay", vm, str(delay))
        second("VM.set_shutdown_delay", vm, "1")
    assert set(third("VM_appliance.get_VMs", app)) == set(vms.values())
    assert first.fails("INVALID_VALUE", "VM.set_start_delay", vm, "-1") == ["start_delay", "-1"]
    assert first.fails("HANDLE_INVALID", "VM.set_appliance", vm, "OpaqueRef:none") == ["VM_appliance", "OpaqueRef:none"]
    assert third("VM_appliance.get_allowed_operations", app) == ["start"]
    state = lambda api, name: api("VM.get_power_state", vms[name])

    # the databases at once, then two seconds, then the web server; one task with three parts, seen everywhere
    began = time.time()
    task = second("Async.VM_appliance.start", app, False)
    eventually("databases run", lambda: state(third, "db1") == state(third, "db2") == "Running")
    assert state(third, "web") == "Halted"
    assert third("VM_appliance.get_current_operations", app) == {task: "start"}
    assert third("VM_appliance.get_allowed_operations", app) == []
    assert len(third("task.get_subtasks", task)) == 2
    eventually("progress is told", lambda: 0.6 < third("task.get_progress", task) < 0.7)
    assert third.wait_task(task)["status"] == "success"
    assert time.time() - began >= 1 and state(third, "web") == "Running"
    parts = stamps(third, task)
    assert [p[0] for p in parts] == ["Async.VM.start"] * 3 and parts[2][1] > parts[1][2], parts
    assert set(third("VM_appliance.get_allowed_operations", app)) == {"clean_shutdown", "hard_shutdown", "shutdown"}
    assert first("VM_appliance.get_current_operations", app) == {}

    # one of them is stopped already: it is passed over; the others in reverse order
    first("VM.hard_shutdown", vms["db2"])
    task = second("Async.VM_appliance.clean_shutdown", app)
    assert third.wait_task(task)["status"] == "success"
    parts = stamps(third, task)
    assert len(parts) == 2 and parts[1][1] > parts[0][2], parts
    assert {state(first, name) for name in vms} == {"Halted"}

    # what fails is named, and stops no other
    huge = str(1 << 50)
    fat = first("VM.create", vm_record("fat", memory_static_max=huge, memory_dynamic_max=huge, memory_dynamic_min=huge))
    first("VM.set_appliance", fat, app)
    first("VM.set_start_delay", vms["db1"], "0")
    assert second.fails("OPERATION_PARTIALLY_FAILED", "VM_appliance.start", app, True) == ["VM_appliance.start", fat]
    assert {state(first, name) for name in vms} == {"Paused"}
    second("VM_appliance.hard_shutdown", app)
    first("VM.set_appliance", fat, "OpaqueRef:NULL")

    # stopped by who asked for it: so are its parts
    for name in vms:
        first("VM.set_other_config", vms[name], deaf)
    first("VM_appliance.start", app, False)
    task = second("Async.VM_appliance.clean_shutdown", app)
    eventually("web is asked", lambda: "clean_shutdown" in third("VM.get_current_operations", vms["web"]).values())
    assert third.fails("OTHER_OPERATION_IN_PROGRESS", "VM_appliance.destroy", app) == ["VM_appliance", app, "clean_shutdown", task]
    third("task.cancel", task)
    ended = third.wait_task(task)
    assert ended["status"] == "cancelled" and ended["error_info"] == ["TASK_CANCELLED", task], ended
    assert [third("task.get_status", t) for t in ended["subtasks"]] == ["cancelled"], ended
    assert {state(third, name) for name in vms} == {"Running"}
    second("VM_appliance.hard_shutdown", app)
    assert {state(second, name) for name in vms} == {"Halted"}

    # its coordinator stops answering between two groups: the next one goes on; awake again, the old one leaves it alone
    leader = pool.leader()
    other = next(api for api in (first, second, third) if api.member != leader)
    hosts = {pool.address(n): n for n in (1, 2, 3)}
    elsewhere = [h for h in first("host.get_all") if hosts[first("host.get_address", h)] != leader]
    for name in vms:
        other("VM.set_affinity", vms[name], elsewhere[0])
    other("VM.set_start_delay", vms["db1"], "5")
    task = other("Async.VM_appliance.start", app, False)
    eventually("databases run", lambda: state(other, "db1") == state(other, "db2") == "Running")
    owner = other("task.get_resident_on", task)
    pool.quickstart("freeze", str(leader))
    threading.Timer(8, pool.quickstart, ("thaw", str(leader))).start()
    ended = other.wait_task(task)
    assert ended["status"] == "success" and ended["resident_on"] != owner and len(ended["subtasks"]) == 3, ended
    assert {state(other, name) for name in vms} == {"Running"}
    eventually("all answer", lambda: all("applied" in line for line in pool.status()))
    other("VM_appliance.hard_shutdown", app)
    other("VM_appliance.destroy", app)
    assert other("VM.get_appliance", vms["web"]) == "OpaqueRef:NULL"
    pool.check()
    pool.agree()
