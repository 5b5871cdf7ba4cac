"""Clones, copies, templates, snapshots, reverts: what a copy has, what begins anew; asked for while members are killed."""
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import NULL, Pool, eventually, everywhere, vm_record

SAME = ("memory_static_max", "memory_dynamic_min", "VCPUs_max", "platform", "actions_after_crash", "tags", "name_description", "HVM_boot_params")

with Pool() as pool:
    apis = everywhere(pool)
    first, second, third = apis
    network = first("network.get_all")[0]

    def vif(vm, device, **more):
        record = {"device": str(device), "network": network, "VM": vm, "MAC": "", "MTU": "1500", "other_config": {"key": "value"},
                  "qos_algorithm_type": "", "qos_algorithm_params": {}}
        return first("VIF.create", dict(record, **more))

    utc = lambda: time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime())
    began = utc()
    vm = first("VM.create", vm_record("source", name_description="text", platform={"a": "b"}, VCPUs_max="4", tags=["x"]))
    vif(vm, 0)
    vif(vm, 1, MAC="00:16:3e:01:02:03")
    macs = lambda vm: {record["device"]: record["MAC"] for record in (third("VIF.get_record", ref) for ref in third("VM.get_VIFs", vm))}

    # a clone: all that describes the machine; its own name, addresses, metrics
    clone = second("VM.clone", vm, "clone")
    a, b = (third("VM.get_record", ref) for ref in (vm, clone))
    assert all(a[key] == b[key] for key in SAME), [(key, a[key], b[key]) for key in SAME]
    assert b["name_label"] == "clone" and b["uuid"] != a["uuid"] and b["metrics"] not in (a["metrics"], NULL)
    times = [third("VM_metrics.get_install_time", record["metrics"]) for record in (a, b)]
    assert began <= times[0] <= times[1] <= utc(), (began, times)
    assert b["power_state"] == "Halted" and b["parent"] == NULL and not b["is_a_snapshot"] and b["current_operations"] == {}
    assert a["other_config"]["mac_seed"] != b["other_config"]["mac_seed"] and a["current_operations"] == {}
    assert not set(macs(clone).values()) & set(macs(vm).values()) and len(set(macs(clone).values())) == 2  # the given one, too, is not its own
    second("VM.start", clone, False, True)
    assert second.fails("VM_BAD_POWER_STATE", "VM.clone", clone, "x") == [clone, "halted, suspended", "running"]
    # by Async. the result names it
    ended = second.wait_task(second("Async.VM.copy", vm, "copy", NULL))
    assert ended["status"] == "success", ended
    assert ended["result"] == "<value>%s</value>" % third("VM.get_by_name_label", "copy")[0]

    # from a template, as tools install
    template = third("VM.create", vm_record("my template", template=True))
    made = third("VM.clone", template, "made")
    assert third("VM.get_is_a_template", made)
    assert third.fails("VM_IS_TEMPLATE", "VM.start", made, False, True) == [made, "start"]
    third("VM.provision", made)
    assert not third("VM.get_is_a_template", made) and third("VM.get_is_a_template", template)
    assert third.fails("PROVISION_ONLY_ALLOWED_ON_TEMPLATE", "VM.provision", made) == []
    third("VM.start", made, False, True)

    # snapshots: of a running VM too; they form a line of parents
    one = first("VM.snapshot", made, "one")
    two = second("VM.snapshot", made, "two")
    record = third("VM.get_record", one)
    assert record["is_a_snapshot"] and record["is_a_template"] and record["snapshot_of"] == made and record["power_state"] == "Halted"
    assert record["snapshot_info"]["power-state-at-snapshot"] == "Running" and record["snapshot_time"] > "2020"
    assert third("VM.get_parent", made) == two and third("VM.get_parent", two) == one and record["parent"] == NULL
    assert set(third("VM.get_snapshots", made)) == {one, two} and third("VM.get_children", one) == [two]
    assert third("VM.get_power_state", made) == "Running"
    assert first.fails("VM_IS_SNAPSHOT", "VM.start", one, False, True) == [one, "start"]
    assert first.fails("REVERT_ONLY_ALLOWED_ON_SNAPSHOT", "VM.revert", made) == []
    assert "revert" in first("VM.get_allowed_operations", one) and "revert" not in first("VM.get_allowed_operations", made)

    # back: stopped, with what it had; name and devices too
    device = vif(made, 0)
    first("VM.set_name_label", made, "renamed")
    first("VM.set_name_description", made, "changed")
    second("VM.revert", one)
    record = third("VM.get_record", made)
    assert record["power_state"] == "Halted" and record["resident_on"] == NULL and record["parent"] == one
    assert record["name_label"] == "made" and record["name_description"] == "" and record["VIFs"] == []
    assert not record["is_a_template"] and not record["is_a_snapshot"] and record["current_operations"] == {}
    assert first.fails("HANDLE_INVALID", "VIF.get_record", device) == ["VIF", device]
    third("VM.start", made, False, True)
    # a VM from a snapshot comes from it; what came from a destroyed one comes from where that came from
    child = first("VM.clone", two, "child")
    assert first("VM.get_parent", child) == two and first("VM.get_is_a_template", child)
    first("VM.destroy", two)
    assert first("VM.get_parent", child) == one

    # a coordinator that dies meanwhile: each copy is wholly there or not at all, and no lock stays
    tasks = [second("Async.VM.clone", vm, "many %d" % k) for k in range(20)]
    leader = pool.leader()
    pool.quickstart("kill", str(leader))
    api = apis[leader % 3]
    pool.leader()
    ended = [api.wait_task(task) for task in tasks if api("VM.get_all")]
    for k, task in enumerate(ended):
        found = api("VM.get_by_name_label", "many %d" % k)
        assert len(found) == (task["status"] == "success"), (task, found)
        for ref in found:
            assert len(api("VM.get_VIFs", ref)) == 2 and api("VM_metrics.get_record", api("VM.get_metrics", ref))
    pool.quickstart("start", str(leader))
    eventually("no lock stays", lambda: api("VM.get_current_operations", vm) == {}, 60)
    pool.agree()
    pool.check()
