"""What a guest says of itself is in VM_guest_metrics, on every member, and decides what may be done with it."""
import json
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import NULL, Api, Pool, eventually, guest, vm_record

SAYS = {"data/os_name": "Debian GNU/Linux 12", "data/os_distro": "debian", "data/os_majorver": "12", "attr/PVAddons/MajorVersion": "8",
        "attr/PVAddons/MinorVersion": "2", "attr/vif/0/ipv4/0": "192.0.2.7", "attr/vif/0/ipv6/0": "2001:db8::7", "control/feature-suspend": "1",
        "control/feature-balloon": "1", "data/service/web/port": "80", "feature/hotplug/vif": "1", "feature/hotplug/vbd": "0", "data/ts": "1"}

with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))
    silent = first("VM.create", vm_record("silent"))
    first("VM.start", silent, False, True)
    assert first("VM.get_guest_metrics", silent) == NULL

    vm = first("VM.create", vm_record("says", **guest(guest=SAYS)))
    first("VM.start", vm, True, True)
    assert first("VM.get_guest_metrics", vm) == NULL  # it has not run yet
    first("VM.unpause", vm)
    eventually("it has said so", lambda: third("VM.get_guest_metrics", vm) != NULL)
    ref = third("VM.get_guest_metrics", vm)
    record = third("VM_guest_metrics.get_record", ref)
    assert record["live"] and record["PV_drivers_detected"], record
    assert record["os_version"] == {"name": "Debian GNU/Linux 12", "distro": "debian", "major": "12"}, record
    assert record["PV_drivers_version"] == {"major": "8", "minor": "2"}, record
    assert record["networks"] == {"0/ipv4/0": "192.0.2.7", "0/ipv6/0": "2001:db8::7", "0/ip": "192.0.2.7"}, record
    assert record["other"] == {"feature-suspend": "1", "feature-balloon": "1", "data-ts": "1"}, record
    assert record["services"] == {"web/port": "80"}, record
    assert (record["can_use_hotplug_vif"], record["can_use_hotplug_vbd"]) == ("yes", "no"), record
    assert "suspend" in second("VM.get_allowed_operations", vm)
    # what it has said goes along
    here = first("VM.get_resident_on", vm)
    first("VM.pool_migrate", vm, next(h for h in first("host.get_all") if h != here), {})
    assert third("VM_guest_metrics.get_record", third("VM.get_guest_metrics", vm)) == record
    # another system, the same object; one that cannot be moved says why
    first("VM.hard_shutdown", vm)
    first("VM.remove_from_other_config", vm, "xpool-sim-guest")
    says = {"data/os_name": "other", "data/cant_suspend_reason": "no swap", "control/feature-suspend": "1"}
    first("VM.add_to_other_config", vm, "xpool-sim-guest", json.dumps({"guest": says}))
    first("VM.start", vm, False, True)
    record = third("VM_guest_metrics.get_record", ref)
    assert record["os_version"] == {"name": "other"} and record["other"] == {"data-cant-suspend-reason": "no swap"} and record["networks"] == {}, record
    assert "suspend" not in second("VM.get_allowed_operations", vm) and "pool_migrate" not in second("VM.get_allowed_operations", vm)
    assert second.fails("VM_NON_SUSPENDABLE", "VM.pool_migrate", vm, here, {})[0] == vm
    # and one that says nothing is not there
    first("VM.hard_shutdown", vm)
    first("VM.remove_from_other_config", vm, "xpool-sim-guest")
    first("VM.start", vm, False, True)
    record = third("VM_guest_metrics.get_record", ref)
    assert not record["live"] and record["os_version"] == record["other"] == {}, record
    assert "suspend" in second("VM.get_allowed_operations", vm)
    first("VM.hard_shutdown", vm)
    first("VM.destroy", vm)
    assert ref not in third("VM_guest_metrics.get_all")
    pool.agree()
