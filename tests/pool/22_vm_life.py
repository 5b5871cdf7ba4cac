"""Pause and unpause, reboot and shutdown with and without the guest's help, guests that stop by themselves, power_state_reset."""
import os
import subprocess
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Pool, eventually, everywhere, guest, vm_record

with Pool() as pool:
    apis = everywhere(pool)
    first, second, third = apis
    state = lambda vm: third("VM.get_power_state", vm)

    # paused and running again, by any member; the domain stays
    vm = first("VM.create", vm_record("pause"))
    first("VM.start", vm, False, True)
    domid = first("VM.get_domid", vm)
    second("VM.pause", vm)
    assert second("VM.get_power_state", vm) == "Paused" and second("VM.get_domid", vm) == domid
    assert "unpause" in second("VM.get_allowed_operations", vm) and "pause" not in second("VM.get_allowed_operations", vm)
    assert second.fails("VM_BAD_POWER_STATE", "VM.pause", vm) == [vm, "running", "paused"]
    assert second.fails("VM_BAD_POWER_STATE", "VM.clean_shutdown", vm) == [vm, "running", "paused"]
    assert third.wait_task(third("Async.VM.unpause", vm))["status"] == "success"
    assert state(vm) == "Running" and third("VM.get_domid", vm) == domid
    assert first.fails("VM_BAD_POWER_STATE", "VM.unpause", vm) == [vm, "paused", "running"]
    second("VM.pause", vm)
    second("VM.hard_shutdown", vm)
    assert second("VM.get_power_state", vm) == "Halted"
    # a console comes with the domain, stays through pause and reboot, follows the VM to where it is, and goes with the domain
    vm = first("VM.create", vm_record("seen"))
    assert third("VM.get_consoles", vm) == []
    first("VM.start_on", vm, (home := first("host.get_all")[0]), False, True)
    (console,) = third("VM.get_consoles", vm)
    record = second("console.get_record", console)
    at = lambda host: "https://%s/console?uuid=%s" % (first("host.get_address", host), record["uuid"])
    assert (record["VM"], record["protocol"], record["location"]) == (vm, "vt100", at(home)), record
    second("VM.pause", vm)
    second("VM.unpause", vm)
    second("VM.hard_reboot", vm)
    away = next(h for h in first("host.get_all") if h != home)
    first("VM.pool_migrate", vm, away, {"live": "true"})
    assert second("VM.get_consoles", vm) == [console] and second("console.get_location", console) == at(away)
    xe = [os.path.join(sys.argv[1], "xe"), "-s", pool.address(1), "-u", "root", "-pw", PASSWORD, "console-list", "vm-uuid=" + first("VM.get_uuid", vm)]
    listed = subprocess.run(xe, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, HOME=pool.dir)).stdout
    assert record["uuid"] in listed and at(away) in listed, listed
    first("VM.hard_shutdown", vm)
    assert second("VM.get_consoles", vm) == [] and second.fails("HANDLE_INVALID", "console.get_record", console) == ["console", console]
    # its agent cannot: the task says why, the VM is as it was
    vm = first("VM.create", vm_record("stuck", **guest(fail={"pause": "no"})))
    first("VM.start", vm, False, True)
    assert first.fails("INTERNAL_ERROR", "VM.pause", vm) == ["no"]
    assert first("VM.get_power_state", vm) == "Running" and first("VM.get_current_operations", vm) == {}
    # with the guest's help, on the same host in another domain
    host, domid = first("VM.get_resident_on", vm), first("VM.get_domid", vm)
    second("VM.clean_reboot", vm)
    assert second("VM.get_resident_on", vm) == host and second("VM.get_domid", vm) != domid
    # and without: shutdown asks first and then does not
    vm = first("VM.create", vm_record("hangs", shutdown_delay="1", **guest(shutdown="hang")))
    for paused in (False, True):
        first("VM.start", vm, paused, True)
        first("VM.shutdown", vm)
        assert first("VM.get_power_state", vm) == "Halted"
    # a slow start can be stopped
    vm = first("VM.create", vm_record("slow", **guest(delay_ms={"build": 1500})))
    task = second("Async.VM.start", vm, False, True)
    eventually("started", lambda: second("VM.get_current_operations", vm) == {task: "start"})
    third("task.cancel", task)
    assert second.wait_task(task)["status"] == "cancelled" and second("VM.get_power_state", vm) == "Halted"
    assert second("VM.get_scheduled_to_be_resident_on", vm) == "OpaqueRef:NULL"

    # a script of a host's administrator refuses: nothing has happened, no memory stays set aside
    hook = os.path.join(pool.dir, "member2", "agent", "hooks", "vm-pre-start", "10-no")
    os.makedirs(os.path.dirname(hook))
    with open(hook, "w") as script:
        script.write("#!/bin/sh\necho \"no $*\"\nexit 3\n")
    os.chmod(hook, 0o755)
    refuses = next(h for h in first("host.get_all") if first("host.get_address", h) == pool.address(2))
    free = lambda: first("host.compute_free_memory", refuses)
    before, vm = free(), first("VM.create", vm_record("refused"))
    said = "no -vmuuid %s -reason none\n" % first("VM.get_uuid", vm)
    assert first.fails("XAPI_HOOK_FAILED", "VM.start_on", vm, refuses, False, True) == ["vm-pre-start/10-no", "none", said, "3"]
    assert third("VM.get_power_state", vm) == "Halted" and third("VM.get_scheduled_to_be_resident_on", vm) == "OpaqueRef:NULL"
    assert free() == before, (free(), before)
    os.remove(hook)
    first("VM.start_on", vm, refuses, False, True)
    first("VM.hard_shutdown", vm)

    # guests that stop by themselves
    def left_alone(label, end, until, **fields):
        vm = first("VM.create", vm_record(label, **guest(**end), **fields))
        first("VM.start", vm, False, True)
        domid = first("VM.get_domid", vm)
        eventually(label, lambda: until(vm, domid))
        if until is again:  # for ever, else the members never stand still
            first("VM.hard_shutdown", vm)
        return vm

    halted = lambda vm, domid: state(vm) == "Halted" and third("VM.get_resident_on", vm) == "OpaqueRef:NULL"
    again = lambda vm, domid: state(vm) == "Running" and third("VM.get_domid", vm) > domid
    left_alone("powers off", {"poweroff_after_ms": 200}, halted)
    left_alone("powers off and is wanted", {"poweroff_after_ms": 200}, again, actions_after_shutdown="restart")
    left_alone("reboots", {"reboot_after_ms": 200}, again)
    left_alone("reboots and is not wanted", {"reboot_after_ms": 200}, halted, actions_after_reboot="destroy")
    left_alone("crashes at once", {"crash_after_ms": 200}, halted)
    left_alone("crashes later", {"crash_after_ms": 200, "age_s": 200}, again)
    kept = left_alone("is kept", {"crash_after_ms": 200}, lambda vm, domid: state(vm) == "Paused", actions_after_crash="preserve")
    third("VM.hard_shutdown", kept)

    # power_state_reset: never while a host that may have it lives
    vm = first("VM.create", vm_record("reset"))
    first("VM.power_state_reset", vm)
    hosts = {first("host.get_name_label", host): host for host in first("host.get_all")}
    here = first("pool.get_master", first("pool.get_all")[0])
    there = next(host for host in hosts.values() if host != here)
    first("VM.start_on", vm, there, False, True)
    assert first.fails("HOST_IS_LIVE", "VM.power_state_reset", vm) == [there]
    first("VM.hard_shutdown", vm)
    first("VM.start_on", vm, here, False, True)
    assert first.fails("DOMAIN_EXISTS", "VM.power_state_reset", vm) == [vm, str(first("VM.get_domid", vm))]
    assert first("VM.get_power_state", vm) == "Running"
    first("VM.hard_shutdown", vm)
    pool.agree()
