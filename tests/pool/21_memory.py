"""Memory of hosts: starts at once never promise more than there is; what is set aside goes with the VM; allowed operations follow."""
import sys
import threading

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import ApiError, Pool, eventually, everywhere, vm_record

with Pool() as pool:
    apis = everywhere(pool)
    first = apis[0]
    hosts = first("host.get_all")
    metrics = [first("host.get_metrics", host) for host in hosts]
    eventually("sizes are known", lambda: all(int(first("host_metrics.get_memory_total", m)) > 0 for m in metrics), 20)
    total = min(int(first("host_metrics.get_memory_total", m)) for m in metrics)
    # placement counts on the size in the log, which follows within a reading
    size = str(total // 2 + (64 << 20))
    record = lambda name: vm_record(name, memory_static_max=size, memory_dynamic_max=size, memory_dynamic_min=size)
    probe = first("VM.create", vm_record("probe", memory_static_max=str(1 << 50), memory_dynamic_max=str(1 << 50), memory_dynamic_min=str(1 << 50)))

    def known():
        needed, left = first.fails("HOST_NOT_ENOUGH_FREE_MEMORY", "VM.start", probe, False, True)
        return int(needed) == (1 << 50) + int(first("VM.get_memory_overhead", probe)) and int(left) > total // 2

    eventually("reservations are counted", known, 20)
    # one host takes one of them: of four started at once on one host one runs
    vms = [first("VM.create", record("m%d" % n)) for n in range(4)]
    outcome = []

    def start(n):
        try:
            apis[n % 3]("VM.start_on", vms[n], hosts[0], False, True)
            outcome.append("ok")
        except ApiError as fault:
            outcome.append(fault.code)

    leader = pool.leader()
    before = pool.counters(leader)["commits_start"]
    threads = [threading.Thread(target=start, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["HOST_NOT_ENOUGH_FREE_MEMORY"] * 3 + ["ok"], outcome
    # refused by the reservations: no host has even begun
    assert pool.counters(leader)["commits_start"] - before == 1
    running = [vm for vm in vms if first("VM.get_power_state", vm) == "Running"]
    assert len(running) == 1, running
    others = [vm for vm in vms if vm not in running]
    for vm in others:
        assert first("VM.get_scheduled_to_be_resident_on", vm) == "OpaqueRef:NULL"
        assert first("VM.get_current_operations", vm) == {}
    # the other hosts take one each when the choice is the pool's, the last finds no room
    for vm in others[:2]:
        first("VM.start", vm, False, True)
    assert len({first("VM.get_resident_on", vm) for vm in running + others[:2]}) == 3
    first.fails("HOST_NOT_ENOUGH_FREE_MEMORY", "VM.start", others[2], False, True)
    # what a VM had is free again when it has gone
    first("VM.hard_shutdown", running[0])
    first("VM.start", others[2], False, True)
    assert first("VM.get_resident_on", others[2]) == hosts[0]
    pool.agree()
