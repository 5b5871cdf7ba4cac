"""Memory and processors of VMs: limits in order, refused with the documented errors, changed live, counted on the host, kept over a reboot."""
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import MIB, Api, Pool, eventually, guest, vm_record

LIMITS = ["memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max"]
ORDER = ["Memory limits must satisfy: static_min <= dynamic_min <= dynamic_max <= static_max"]


def mib(*sizes):
    return [s * MIB for s in sizes]


with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))
    hosts = first("host.get_all")
    first.memory_known()
    limits = lambda vm: [third("VM.get_" + field, vm) for field in LIMITS]
    free = lambda host: int(first("host.compute_free_memory", host)) // MIB

    # a halted one: by each message, in order always, the target follows
    vm = first("VM.create", vm_record("size", VCPUs_max="4"))
    first("VM.set_memory_limits", vm, *mib(16, 128, 32, 64))  # static ones first
    assert limits(vm) == mib(16, 32, 64, 128) and third("VM.get_memory_target", vm) == 32 * MIB
    for bad in ((65, 128, 64, 64), (16, 128, 65, 64), (16, 128, 64, 129), (-1, 128, 32, 64)):
        assert second.fails("MEMORY_CONSTRAINT_VIOLATION", "VM.set_memory_limits", vm, *mib(*bad)) == ORDER
    second("VM.set_memory_static_range", vm, *mib(8, 256))
    second("VM.set_memory_static_max", vm, *mib(512))
    third("VM.set_memory_static_min", vm, *mib(4))
    third("VM.set_memory_dynamic_range", vm, *mib(40, 80))
    third("VM.set_memory_dynamic_max", vm, *mib(100))
    third("VM.set_memory_dynamic_min", vm, *mib(50))
    assert limits(vm) == mib(4, 50, 100, 512)
    for method, args in (("static_range", (60, 512)), ("static_max", (99,)), ("static_min", (51,)), ("dynamic_range", (3, 100)),
                         ("dynamic_max", (513,)), ("dynamic_min", (101,))):
        assert first.fails("MEMORY_CONSTRAINT_VIOLATION", "VM.set_memory_" + method, vm, *mib(*args)) == ORDER, method
    assert limits(vm) == mib(4, 50, 100, 512)
    first("VM.set_memory", vm, *mib(128))
    assert limits(vm) == mib(4, 128, 128, 128)
    first("VM.set_memory_limits", vm, *mib(16, 256, 64, 256))
    # 256 pages for each of 4 processors and 2 for each MiB, 38 more for each of 4, one page more of MiB
    assert first("VM.compute_memory_overhead", vm) == second("VM.get_memory_overhead", vm) == (6 + 1 + 1) * MIB
    assert first("VM.maximise_memory", vm, (256 + 8) * MIB + 5, False) == 256 * MIB and first("VM.maximise_memory", vm, MIB, False) == 0
    assert first("VM.maximise_memory", vm, 256 * MIB, True) == (256 - 66 - 1 - 10) * MIB  # as for 64 processors
    second("VM.set_VCPUs_max", vm, 8)
    assert third("VM.get_memory_overhead", vm) == (10 + 1 + 2) * MIB
    second("VM.set_VCPUs_max", vm, 4)
    hvm = first("VM.create", vm_record("hvm", HVM_boot_policy="BIOS order", memory_static_max=str(4096 * MIB), VCPUs_max="4"))
    assert third("VM.get_memory_overhead", hvm) == 39 * MIB
    # by its kind, which has two names
    second("VM.set_domain_type", hvm, "pv")
    assert third("VM.get_HVM_boot_policy", hvm) == "" and third("VM.get_memory_overhead", hvm) == 38 * MIB
    second("VM.set_HVM_boot_policy", hvm, "BIOS order")
    assert third("VM.get_domain_type", hvm) == "hvm" and third("VM.get_memory_overhead", hvm) == 39 * MIB
    second("VM.set_HVM_shadow_multiplier", hvm, 2.0)
    assert third("VM.get_memory_overhead", hvm) == 75 * MIB
    assert first.fails("INVALID_VALUE", "VM.set_HVM_shadow_multiplier", hvm, 0.5) == ["multiplier", "0.5"]
    for method, value in (("max", 0), ("max", -3), ("at_startup", 0), ("at_startup", 5)):
        assert second.fails("INVALID_VALUE", "VM.set_VCPUs_" + method, vm, value) == ["VCPUs_" + method, str(value)]
    second("VM.set_VCPUs_at_startup", vm, 2)
    assert second.fails("INVALID_VALUE", "VM.set_VCPUs_max", vm, 1) == ["VCPUs_max", "1"]
    for method, args in (("set_memory_target_live", mib(100)), ("set_VCPUs_number_live", [3]), ("wait_memory_target_live", [])):
        assert second.fails("VM_BAD_POWER_STATE", "VM." + method, vm, *args) == [vm, "running", "halted"]

    # a running one: what may not change does not, what may changes in the domain, on the host and in the record
    before = free(hosts[0])
    first("VM.start_on", vm, hosts[0], False, True)
    assert before - free(hosts[0]) == 256 + 8
    for method, args in (("set_memory_limits", (16, 128, 32, 64)), ("set_memory_static_range", (8, 256)), ("set_memory", (128,)),
                         ("set_memory_static_max", (512,)), ("set_memory_static_min", (8,))):
        assert third.fails("VM_BAD_POWER_STATE", "VM." + method, vm, *mib(*args)) == [vm, "halted", "running"]
    assert third.fails("VM_BAD_POWER_STATE", "VM.set_VCPUs_max", vm, 8) == [vm, "halted", "running"]
    domid = first("VM.get_domid", vm)
    actual = lambda: int(second("VM_metrics.get_memory_actual", second("VM.get_metrics", vm))) // MIB
    second("VM.set_memory_dynamic_range", vm, *mib(64, 96))
    assert before - free(hosts[0]) == 96 + 8 and limits(vm) == mib(16, 64, 96, 256)
    eventually("the guest has given it back", lambda: actual() == 96)
    third.wait_task(third("Async.VM.set_memory_dynamic_range", vm, *mib(64, 200)))
    assert before - free(hosts[0]) == 200 + 8
    eventually("the guest has taken it", lambda: actual() == 200)
    first("VM.set_memory_target_live", vm, *mib(128))
    first("VM.wait_memory_target_live", vm)
    assert limits(vm) == mib(16, 128, 128, 256) and third("VM.get_memory_target", vm) == 128 * MIB
    assert first.fails("INVALID_VALUE", "VM.set_VCPUs_number_live", vm, 5)[1] == "5"
    first("VM.set_VCPUs_number_live", vm, 4)
    assert third("VM.get_VCPUs_at_startup", vm) == 4 and third("VM.get_domid", vm) == domid
    eventually("four processors", lambda: third("VM_metrics.get_VCPUs_number", third("VM.get_metrics", vm)) == 4)
    first("VM.hard_reboot", vm)
    eventually("as it was before the reboot", lambda: actual() == 128)
    assert third("VM_metrics.get_VCPUs_number", third("VM.get_metrics", vm)) == 4
    first("VM.hard_shutdown", vm)
    assert free(hosts[0]) == before

    # more than the host has left; a guest that gives nothing back: all is as it was
    room = free(hosts[0])
    vm = first("VM.create", vm_record("stuck", **guest(balloon=False)))
    first("VM.set_memory_limits", vm, *mib(0, room + 64, 64, 128))
    first("VM.start_on", vm, hosts[0], False, True)
    over = int(first("VM.get_memory_overhead", vm)) // MIB
    left = first.fails("HOST_NOT_ENOUGH_FREE_MEMORY", "VM.set_memory_dynamic_range", vm, *mib(room + 32, room + 64))
    assert left == [str((room + 32 + over) * MIB), str(room * MIB)], left
    assert first.fails("VMS_FAILED_TO_COOPERATE", "VM.set_memory_dynamic_range", vm, *mib(64, 96)) == [vm]
    assert limits(vm) == mib(0, 64, 128, room + 64) and room - free(hosts[0]) == 128 + over
    task = first("Async.VM.set_memory_dynamic_range", vm, *mib(64, 96))
    time.sleep(0.3)
    second("task.cancel", task)
    assert first.wait_task(task)["status"] == "cancelled" and limits(vm)[1:3] == mib(64, 128)
    first("VM.hard_shutdown", vm)
    pool.agree()
