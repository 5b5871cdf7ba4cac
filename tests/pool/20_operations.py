"""VM.start, clean_shutdown, hard_shutdown, hard_reboot: plain and Async, through every member; rules, locks, cancel. Who waits for a lock
gets it in order, also when the coordinator dies meanwhile; only so many wait."""
import sys
import threading

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, ApiError, Pool, eventually, guest, vm_record

WAITING_MAX = 100  # pool/pool_priv.h

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
        assert api.fails("VM_BAD_POWER_STATE", "VM.assert_operation_valid", vm, "clean_shutdown") == [vm, "running", "halted"]
        assert api("VM.assert_operation_valid", vm, "start") == api("VM.update_allowed_operations", vm) == ""
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

    # three wait, asked through three members; the coordinator dies: oldest first all the same
    leader = pool.leader()
    here, there = [apis[n - 1] for n in (1, 2, 3) if n != leader]
    vm = here("VM.create", vm_record("wanted", **guest(shutdown="hang")))
    here("VM.start_on", vm, here("session.get_this_host", here.session), False, True)
    held = lambda: here("VM.get_current_operations", vm)
    waits_for = lambda task: here("task.get_other_config", task).get("waiting_for")
    holder = here("Async.VM.clean_shutdown", vm)
    eventually("it holds the VM", lambda: held() == {holder: "clean_shutdown"})
    waiting = [api("Async.VM." + what, vm) for api, what in ((there, "clean_shutdown"), (apis[leader - 1], "clean_shutdown"), (here, "pause"))]
    assert [waits_for(task) for task in waiting] == [holder] * 3
    pool.quickstart("kill", str(leader))
    pool.leader(of=(here.member, there.member))
    assert held() == {holder: "clean_shutdown"} and [here("task.get_status", task) for task in waiting] == ["pending"] * 3
    for number, task in enumerate(waiting[:2]):
        there("task.cancel", holder)
        assert here.wait_task(holder)["status"] == "cancelled"
        eventually("number %d has it" % number, lambda: held() == {task: "clean_shutdown"})
        younger = waiting[number + 1:]
        eventually("the others wait for it", lambda: [waits_for(task) for task in younger] == [task] * len(younger))
        assert waits_for(task) is None
        holder = task
    there("task.cancel", holder)
    assert here.wait_task(waiting[2])["status"] == "success" and here("VM.get_power_state", vm) == "Paused"
    assert here.wait_task(holder)["status"] == "cancelled" and held() == {}

    # a hundred wait; one more is told so, until one of them has gone
    here("VM.unpause", vm)
    holder = here("Async.VM.clean_shutdown", vm)
    eventually("it holds the VM", lambda: held() == {holder: "clean_shutdown"})
    waiting = [there("Async.VM.clean_shutdown", vm) for _ in range(WAITING_MAX)]
    for call in ("VM.clean_shutdown", "VM.hard_shutdown"):
        assert here.fails("TOO_MANY_PENDING_TASKS", call, vm) == []
    assert here.wait_task(here("Async.VM.clean_shutdown", vm))["error_info"] == ["TOO_MANY_PENDING_TASKS"]
    assert here.fails("VM_IS_TEMPLATE", "VM.start", template, False, True)  # what need not wait is judged as ever
    here("task.cancel", waiting[0])
    assert here.wait_task(waiting[0])["status"] == "cancelled" and waits_for(waiting[0]) is None
    waiting.append(here("Async.VM.clean_shutdown", vm))
    assert here.fails("TOO_MANY_PENDING_TASKS", "VM.clean_shutdown", vm) == []
    for task in waiting[1:] + [holder]:
        here("task.cancel", task)
    for task in waiting[1:] + [holder]:
        assert here.wait_task(task)["status"] == "cancelled"
    assert held() == {} and here("VM.get_power_state", vm) == "Running"
    pool.quickstart("start", str(leader))
    eventually("member %d is back" % leader, lambda: pool.status()[leader - 1].get("ready") == "yes")
    pool.agree()
