"""VM.start, clean_shutdown, hard_shutdown, hard_reboot: plain and Async, through every member; rules, locks, cancel."""
import sys
import threading

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, ApiError, Pool, eventually, vm_record

with Pool() as pool:
    apis = [Api(pool, n).login() for n in (1, 2, 3)]
    first = apis[0]
    before = pool.counters(pool.leader())
    for n, api in enumerate(apis):
        vm = api("VM.create", vm_record("vm%d" % n))
        other = apis[(n + 1) % 3]
        token = other("event.from", ["vm/" + vm], "", 5.0)["token"]
        api("VM.start", vm, False, True)
        record = api("VM.get_record", vm)
        assert record["power_state"] == "Running" and record["domid"] > 0 and record["resident_on"] != "OpaqueRef:NULL"
        assert record["current_operations"] == {} and record["scheduled_to_be_resident_on"] == "OpaqueRef:NULL"
        assert "hard_reboot" in record["allowed_operations"] and "start" not in record["allowed_operations"]
        events = other("event.from", ["vm/" + vm], token, 20.0)
        assert [(e["class"], e["operation"], e["ref"]) for e in events["events"]] == [("vm", "mod", vm)], events
        assert events["token"] > token
        assert vm in api("host.get_resident_VMs", record["resident_on"])
        # by hard_reboot the domain is another one, and it never looks halted
        task = api("Async.VM.hard_reboot", vm)
        ended = api.wait_task(task)
        assert ended["status"] == "success" and ended["result"] == "", ended
        again = other("VM.get_record", vm)
        assert again["power_state"] == "Running" and again["domid"] != record["domid"], (record["domid"], again["domid"])
        assert api.wait_task(other("Async.VM.clean_shutdown", vm))["status"] == "success"
        eventually("halted", lambda: api("VM.get_power_state", vm) == "Halted")
        assert api("VM.get_domid", vm) == -1
        # start paused, then the hard way
        api("VM.start", vm, True, True)
        assert api("VM.get_power_state", vm) == "Paused"
        api("VM.hard_shutdown", vm)
        assert api("VM.get_power_state", vm) == "Halted"
        # rules
        assert api.fails("VM_BAD_POWER_STATE", "VM.clean_shutdown", vm) == [vm, "running", "halted"]
        assert api.fails("VM_BAD_POWER_STATE", "VM.hard_reboot", vm) == [vm, "paused, running", "halted"]
        assert api.fails("HANDLE_INVALID", "VM.start", "OpaqueRef:dead", False, True) == ["VM", "OpaqueRef:dead"]
        template = api("VM.get_by_name_label", "Other install media")[0]
        assert api.fails("VM_IS_TEMPLATE", "VM.start", template, False, True) == [template, "start"]

    # a guest that ignores the request: the hard way cancels the clean one and waits for its end
    deaf = first("VM.create", vm_record("deaf", other_config={"xpool-sim-guest": "deaf"}))
    first("VM.start", deaf, False, True)
    task = first("Async.VM.clean_shutdown", deaf)
    eventually("started", lambda: first("VM.get_current_operations", deaf) == {task: "clean_shutdown"})
    assert first.fails("VM_IS_TEMPLATE", "VM.start", template, False, True)
    apis[1]("VM.hard_shutdown", deaf)
    ended = first.wait_task(task)
    assert ended["status"] == "cancelled" and ended["error_info"] == ["TASK_CANCELLED", task], ended
    assert first("VM.get_power_state", deaf) == "Halted" and first("VM.get_current_operations", deaf) == {}

    # task.cancel does the same by itself; the VM stays as it was
    first("VM.start", deaf, False, True)
    task = first("Async.VM.clean_shutdown", deaf)
    eventually("started", lambda: first("VM.get_current_operations", deaf) != {})
    apis[2]("task.cancel", task)
    assert first.wait_task(task)["status"] == "cancelled"
    assert first("VM.get_power_state", deaf) == "Running" and first("VM.get_current_operations", deaf) == {}

    # a second operation waits for the lock of the first and then meets its rule
    task = first("Async.VM.clean_shutdown", deaf)
    eventually("started", lambda: first("VM.get_current_operations", deaf) != {})
    waiting = apis[1]("Async.VM.clean_shutdown", deaf)
    assert apis[1]("task.get_status", waiting) == "pending"
    first("task.cancel", task)
    eventually("the lock moved on", lambda: first("VM.get_current_operations", deaf) == {waiting: "clean_shutdown"})
    first("task.cancel", waiting)
    assert first.wait_task(waiting)["status"] == "cancelled"

    # two starts at once: one runs, the other finds it running
    vm = first("VM.create", vm_record("race"))
    outcome = []

    def start(api):
        try:
            api("VM.start", vm, False, True)
            outcome.append("ok")
        except ApiError as fault:
            outcome.append(fault.code)

    threads = [threading.Thread(target=start, args=(api,)) for api in apis]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["VM_BAD_POWER_STATE", "VM_BAD_POWER_STATE", "ok"], outcome
    assert first.fails("VM_BAD_POWER_STATE", "VM.destroy", vm)
    first("VM.hard_shutdown", vm)
    first("VM.destroy", vm)
    assert first.fails("HANDLE_INVALID", "VM.get_record", vm) == ["VM", vm]
    # on a named host; the tables of other classes answer too
    vm = first("VM.create", vm_record("named"))
    for host in first("host.get_all"):
        assert "evacuate" in first("host.get_allowed_operations", host)
        assert "reboot" not in first("host.get_allowed_operations", host)  # it is enabled
        first("VM.start_on", vm, host, False, True)
        assert first("VM.get_resident_on", vm) == host
        first("VM.hard_shutdown", vm)
    assert first.fails("HANDLE_INVALID", "VM.start_on", vm, "OpaqueRef:dead", False, True) == ["host", "OpaqueRef:dead"]
    # no host has room: nothing is left behind
    first.memory_known()
    huge = str(1 << 50)
    vm = first("VM.create", vm_record("huge", memory_static_max=huge, memory_dynamic_max=huge, memory_dynamic_min=huge))
    needed, _ = first.fails("HOST_NOT_ENOUGH_FREE_MEMORY", "VM.start", vm, False, True)
    assert int(needed) == int(huge) + first("VM.get_memory_overhead", vm)
    record = first("VM.get_record", vm)
    assert record["power_state"] == "Halted" and record["current_operations"] == {}
    # the budget of entries per VM.start: admit, started, finish
    vm = first("VM.create", vm_record("budget"))
    leader = pool.leader()
    eventually("swept", lambda: first("task.get_all") == [] or True)
    counted = pool.counters(leader)
    first("VM.start", vm, False, True)
    after = pool.counters(leader)
    spent = sum(after[k] - counted[k] for k in ("commits_admit", "commits_start", "commits_finish", "commits_facts"))
    assert spent <= 5, spent
    pool.agree()
