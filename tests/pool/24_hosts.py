"""Hosts: enabled and disabled, where VMs may run, what keeps a host from being emptied; through several members."""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from xpool import MIB, Api, Pool, at_once, eventually, vm_record

with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))  # one session: what one member has shown is seen at all
    hosts = first("host.get_all")
    away, *rest = hosts

    # what clients ask at login
    clock = first("host.get_servertime", away).replace("Z", "")
    assert abs(time.mktime(time.strptime(clock, "%Y%m%dT%H:%M:%S")) - time.timezone - time.time()) < 5, clock
    assert first.fails("HANDLE_INVALID", "host.get_servertime", "OpaqueRef:none") == ["host", "OpaqueRef:none"]
    assert "VM.start" in first("host.list_methods") and not third("host.is_in_emergency_mode")
    assert first.fails("XENAPI_MISSING_PLUGIN", "host.call_plugin", away, "updater.py", "check", {}) == ["updater.py"]
    assert first.fails("HOST_IS_LIVE", "host.power_on", away) == [away]
    second.memory_known()

    # disabled: nothing starts there, by the right error; what is told of it is an event everywhere
    vm = first("VM.create", vm_record("one"))
    token = third("event.from", ["host"], "", 0.0)["token"]
    second("host.disable", away)
    events = third("event.from", ["host"], token, 20.0)["events"]
    assert [(e["ref"], e["snapshot"]["enabled"]) for e in events] == [(away, False)], events
    assert {"reboot", "shutdown"} <= set(first("host.get_allowed_operations", away))
    assert first.fails("HOST_DISABLED", "VM.start_on", vm, away, False, False) == [away]
    assert second.fails("HOST_DISABLED", "VM.assert_can_boot_here", vm, away) == [away]
    assert set(third("VM.get_possible_hosts", vm)) == set(rest)
    for turn in range(6):
        first("VM.start", vm, False, False)
        assert first("VM.get_resident_on", vm) in rest
        first("VM.hard_shutdown", vm)
    for host in rest:
        first("host.disable", host)
    assert first.fails("NO_HOSTS_AVAILABLE", "VM.start", vm, False, False) == []
    assert first("VM.get_possible_hosts", vm) == []
    for host in hosts:
        third("host.enable", host)
    assert set(first("VM.get_possible_hosts", vm)) == set(hosts)
    second("VM.start_on", vm, away, False, False)

    # what keeps a host from being emptied, for each VM
    assert first("host.get_vms_which_prevent_evacuation", away) == {}
    first("host.assert_can_evacuate", away)
    stuck = first("VM.create", vm_record("stuck", platform={"nomigrate": "true"}))
    first("VM.start_on", stuck, away, False, False)
    assert second("host.get_vms_which_prevent_evacuation", away) == {stuck: ["VM_IS_IMMOBILE", stuck]}
    assert second.fails("CANNOT_EVACUATE_HOST", "host.assert_can_evacuate", away) == ["VM_IS_IMMOBILE,%s" % stuck]
    assert second.fails("VM_IS_IMMOBILE", "host.evacuate", away) == [stuck]  # nothing is begun
    assert first("VM.get_resident_on", vm) == away and first("host.get_current_operations", away) == {}
    first("VM.hard_shutdown", stuck)
    room = int(first("host.compute_free_memory", rest[0])) // MIB
    assert room > 4096, room
    big = str((room - 1024) * MIB)
    fat = [first("VM.create", vm_record("fat%d" % n, memory_static_max=big, memory_dynamic_max=big, memory_dynamic_min=big)) for n in (1, 2)]
    first("VM.start_on", fat[0], away, False, False)
    assert third("host.get_vms_which_prevent_evacuation", away) == {}
    first("VM.start_on", fat[1], rest[0], False, False)
    second("host.disable", rest[1])
    prevents, over = third("host.get_vms_which_prevent_evacuation", away), int(first("VM.get_memory_overhead", fat[0]))
    needed, left = str(int(big) + over), str(1024 * MIB - over)
    assert prevents == {fat[0]: ["HOST_NOT_ENOUGH_FREE_MEMORY", needed, left]}, prevents
    first("VM.hard_shutdown", fat[1])
    assert third("host.get_vms_which_prevent_evacuation", away) == {}
    second("host.disable", rest[0])
    assert third("host.get_vms_which_prevent_evacuation", away) == {fat[0]: ["NO_HOSTS_AVAILABLE"], vm: ["NO_HOSTS_AVAILABLE"]}
    assert third.fails("NO_HOSTS_AVAILABLE", "host.evacuate", away) == []

    # emptied: each VM by a migration of its own, what fails is told for each; where nothing is there is nothing to do
    for host in rest:
        first("host.enable", host)
    second("host.evacuate", rest[0])
    task = second("Async.host.evacuate", away)
    ended = third.wait_task(task)
    parts = [third("task.get_record", t) for t in ended["subtasks"]]
    assert ended["status"] == "success" and len(parts) == 2, ended
    assert first("host.get_resident_VMs", away) == []
    assert {first("VM.get_power_state", v) for v in (vm, fat[0])} == {"Running"}
    assert third("host.get_current_operations", away) == {}

    # members of an anti-affinity group go where fewest of them are, whatever else speaks for a host
    for v in (vm, fat[0]):
        first("VM.hard_shutdown", v)
    for host in hosts:
        first("host.enable", host)
    group = first("VM_group.create", {"name_label": "spread", "name_description": "", "placement": "anti_affinity"})
    spread = [first("VM.create", vm_record("spread%d" % n)) for n in range(6)]
    for v in spread:
        second("VM.set_groups", v, [group])
    assert set(third("VM_group.get_VMs", group)) == set(spread)
    assert first.fails("OPERATION_NOT_ALLOWED", "VM.set_groups", spread[0], [group, "OpaqueRef:other"])
    assert first.fails("HANDLE_INVALID", "VM.set_groups", spread[0], ["OpaqueRef:other"]) == ["VM_group", "OpaqueRef:other"]
    for n, v in enumerate(spread):
        first("VM.start", v, False, False)
        there = [first("VM.get_resident_on", w) for w in spread[:n + 1]]
        counts = [there.count(h) for h in hosts]
        assert max(counts) - min(counts) <= 1, (n, counts)

    # two hosts are emptied at once: neither waits for the other, nor is anything moved to one of them
    one, two, left = sorted(hosts, key=lambda host: third("host.get_address", host))
    for v in [third("VM.create", vm_record("moved%d" % n)) for n in range(6)]:
        third("VM.start_on", v, one if len(third("host.get_resident_VMs", one)) < len(third("host.get_resident_VMs", two)) else two, False, False)
    at_once(lambda: first("host.evacuate", one, timeout=40), lambda: second("host.evacuate", two, timeout=40))
    assert {len(third("host.get_resident_VMs", host)) for host in (one, two)} == {0} and len(third("host.get_resident_VMs", left)) == 12

    # processors: what each host has, the level that all have, and what a VM has seen of it
    whole, less = "1789c3f5-f6f83203-2991cbf5-00000023", "1789c3f5-76f80203"
    level = lambda: next(iter(third("pool.get_all_records").values()))["cpu_info"]
    eventually("the pool has a level", lambda: level().get("features_hvm") == whole)
    assert level()["cpu_count"] == "24" and level()["vendor"] == second("host.get_cpu_info", away)["vendor"] == "GenuineXpool"
    assert third("VM.get_last_boot_CPU_flags", spread[0]) == {"vendor": "GenuineXpool", "features": whole}
    pool.quickstart("kill", "1")
    pool.env["XPOOL_AGENT_OPTIONS"] = "--cpus 2 --cpu-features " + less
    pool.quickstart("start", "1")
    poor = next(ref for ref, host in third("host.get_all_records").items() if host["address"] == pool.address(1))
    eventually("the level goes down", lambda: level().get("features_hvm") == less + "-00000000-00000000")
    assert third("host.get_cpu_info", poor)["cpu_count"] == "2" and level()["cpu_count"] == "18"
    third("VM.clean_shutdown", spread[0])
    third("VM.start", spread[0], False, False)
    assert third("VM.get_last_boot_CPU_flags", spread[0])["features"] == level()["features_hvm"]
    # what has seen more than a host has does not go there, nor go on there
    rich = [v for v in spread[1:] if third("VM.get_resident_on", v) != poor][:2]
    sr = pool.make_sr(third)
    third("VM.set_suspend_SR", rich[1], sr)
    third("VM.suspend", rich[1])
    for v, method, rest in (rich[0], "VM.pool_migrate", [poor, {"live": "true"}]), (rich[1], "VM.resume_on", [poor, False, False]):
        told = third.fails("VM_INCOMPATIBLE_WITH_THIS_HOST", method, v, *rest)
        assert told == [v, poor, "VM last booted on a CPU with features this host's CPU does not have."], told
        assert poor not in third("VM.get_possible_hosts", v)
    for host in hosts:
        if host != poor:
            third("host.disable", host)
    assert third.fails("NO_HOSTS_AVAILABLE", "VM.resume", rich[1], False, False) == []
    for host in hosts:
        third("host.enable", host)
    third("VM.resume", rich[1], False, False)
    assert third("VM.get_resident_on", rich[1]) != poor
    wide = third("VM.create", vm_record("wide", VCPUs_max="4", VCPUs_at_startup="4"))
    assert third.fails("HOST_NOT_ENOUGH_PCPUS", "VM.start_on", wide, poor, False, False) == ["4", "2"]
    pool.check()
    pool.agree()
