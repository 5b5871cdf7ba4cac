"""Drives of VMs: what may be made, plugged, inserted; what a start attaches and an end gives back; one disk never has two
writers, whoever asks where and whatever dies."""
import json
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from xpool import MIB, NULL, Api, ApiError, Pool, eventually, vbd_record, vdi_record, vm_record


with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))  # one session: what one member has shown is seen at all
    apis = [first, second, third]
    hosts = {first("host.get_address", h): h for h in first("host.get_all")}
    members = {h: n for n in (1, 2, 3) for a, h in hosts.items() if a == pool.address(n)}
    sr = pool.make_sr(first)
    folder = pool.storage("shared")["location"]

    locations = {}

    def holders(vdi):
        """Who has the disk active, as the storage says: [(uuid of the VM, mode)]. Any member may be dead by now."""
        if vdi not in locations:
            locations[vdi] = first("VDI.get_location", vdi)
        path = os.path.join(folder, locations[vdi], "holders.json")
        if not os.path.exists(path):
            return []
        with open(path) as handle:
            return [(h["vm"], h["mode"]) for h in json.load(handle)]

    # what may be made
    vm = first("VM.create", vm_record("vm", other_config={"xpool-sim-guest": '{"unplug": "refuse"}'}))
    uuid = first("VM.get_uuid", vm)
    disks = [second("VDI.create", vdi_record(sr, "d%d" % n)) for n in range(3)]
    iso = second("VDI.create", vdi_record(sr, "cd", read_only=True))
    root = first("VBD.create", vbd_record(vm, disks[0], "0", bootable=True))
    data = second("VBD.create", vbd_record(vm, disks[1]))
    drive = third("VBD.create", vbd_record(vm, NULL, type="CD", mode="RO"))
    assert [first("VBD.get_userdevice", v) for v in (root, data, drive)] == ["0", "1", "2"]
    assert first("VM.get_allowed_VBD_devices", vm)[:2] == ["3", "4"] and first("VBD.get_empty", drive)
    assert first.fails("DEVICE_ALREADY_EXISTS", "VBD.create", vbd_record(vm, disks[2], "xvdb")) == ["xvdb"]
    assert first.fails("INVALID_DEVICE", "VBD.create", vbd_record(vm, disks[2], "256")) == ["256"]
    assert first.fails("VBD_CDS_MUST_BE_READONLY", "VBD.create", vbd_record(vm, iso, type="CD")) == []
    assert first.fails("VBD_NOT_REMOVABLE_MEDIA", "VBD.create", vbd_record(vm, NULL)) == ["in constructor"]
    assert first.fails("VDI_READONLY", "VBD.create", vbd_record(vm, iso)) == [iso]
    assert first.fails("HANDLE_INVALID", "VBD.create", vbd_record(vm, NULL, empty=False)) == ["VDI", NULL]
    made = []
    threads = [threading.Thread(target=lambda n=n: made.append(apis[n % 3]("VBD.create", vbd_record(vm, NULL, type="CD", mode="RO"))))
               for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({first("VBD.get_userdevice", v) for v in made}) == 6
    for vbd in made:
        second("VBD.destroy", vbd)

    # a start attaches them, and the record says what the domain has
    attached = lambda: [third("VBD.get_currently_attached", v) for v in (root, data, drive)]
    assert first.fails("VM_BAD_POWER_STATE", "VBD.plug", data) == [vm, "running", "halted"]
    first("VM.start", vm, False, False)
    assert attached() == [True, True, True] and first("VBD.get_device", root) == "xvda"
    assert holders(disks[0]) == [(uuid, "RW")] and first("VBD.get_current_operations", root) == {}
    assert third.fails("VDI_IN_USE", "VDI.destroy", disks[0]) == [disks[0], "destroy"]
    assert third.fails("VDI_IN_USE", "VDI.resize", disks[0], str(2 * MIB)) == [disks[0], "resize"]
    third("VDI.resize_online", disks[0], str(2 * MIB))
    assert int(second("VDI.get_virtual_size", disks[0])) == 2 * MIB and holders(disks[0]) == [(uuid, "RW")]
    assert third.fails("VDI_IN_USE", "VDI.copy", iso, NULL, NULL, disks[0]) == [disks[0], "copy"]
    assert first.fails("OPERATION_NOT_ALLOWED", "VBD.destroy", root)[0].startswith("VBD '")
    assert {"unplug", "unplug_force"} <= set(first("VBD.get_allowed_operations", data)) and "plug" not in first("VBD.get_allowed_operations", data)
    (pbd,) = [p for p, r in first("PBD.get_all_records").items() if r["host"] == first("VM.get_resident_on", vm)]
    assert set(first.fails("VDI_IN_USE", "PBD.unplug", pbd)) == set(disks[:2])

    # plugged and unplugged while it runs
    assert first.fails("DEVICE_ALREADY_ATTACHED", "VBD.plug", data) == [data]
    assert first.fails("DEVICE_DETACH_REJECTED", "VBD.unplug", data)[0] == "VBD"
    assert attached() == [True, True, True]
    second("VBD.unplug_force", data)
    assert attached() == [True, False, True] and holders(disks[1]) == []
    assert first.fails("DEVICE_ALREADY_DETACHED", "VBD.unplug", data) == [data]
    first("VBD.plug", data)
    late = second("VBD.create", vbd_record(vm, disks[2]))
    assert not third("VBD.get_currently_attached", late)
    second("VBD.plug", late)
    assert attached() == [True, True, True] and holders(disks[2]) == [(uuid, "RW")]
    # CDs
    assert first.fails("VBD_IS_EMPTY", "VBD.eject", drive) == [drive]
    assert first.fails("VBD_NOT_REMOVABLE_MEDIA", "VBD.insert", data, iso) == [data]
    second("VBD.insert", drive, iso)
    assert third("VBD.get_VDI", drive) == iso and not third("VBD.get_empty", drive) and holders(iso) == [(uuid, "RO")]
    assert first.fails("VBD_NOT_EMPTY", "VBD.insert", drive, iso) == [drive]
    first("VM.hard_reboot", vm)
    assert attached() == [True, True, True] and holders(iso) == [(uuid, "RO")]
    first("VBD.eject", drive)
    assert third("VBD.get_VDI", drive) == NULL and third("VBD.get_empty", drive) and attached()[2] and holders(iso) == []
    second("VBD.unplug_force", drive)
    assert not attached()[2]
    second("VBD.plug", drive)
    assert attached()[2]
    # the other VM may not, and is told so; read-only beside read-only it may
    other = first("VM.create", vm_record("other"))
    shared = second("VBD.create", vbd_record(other, disks[1]))
    assert second.fails("VDI_IN_USE", "VM.start", other, False, False) == [disks[1]]
    assert second.fails("VDI_IN_USE", "VBD.assert_attachable", shared) == [disks[1]]
    assert third("VM.get_power_state", other) == "Halted"
    first("VM.hard_shutdown", vm)
    assert attached() == [False, False, False] and all(holders(d) == [] for d in disks)
    first("VBD.insert", drive, iso)
    assert third("VBD.get_VDI", drive) == iso
    assert first.fails("VBD_CDS_MUST_BE_READONLY", "VBD.set_mode", drive, "RW") == []
    second("VM.start", other, False, False)
    assert first.fails("VDI_IN_USE", "VM.start", vm, False, False) == [disks[1]]
    second("VM.hard_shutdown", other)
    for vbd, mode in ((shared, "RO"), (data, "RO")):
        second("VBD.set_mode", vbd, mode)
    for one in (vm, other):
        first("VM.start", one, False, False)
    assert sorted(mode for _, mode in holders(disks[1])) == ["RO", "RO"]
    for one in (vm, other):
        first("VM.hard_shutdown", one)
    for vbd in (shared, data):
        second("VBD.set_mode", vbd, "RW")

    # starts at once through all members: one of them gets the disk, each time
    racers = [first("VM.create", vm_record("racer%d" % n)) for n in range(3)]
    for racer in racers:
        second("VBD.create", vbd_record(racer, disks[0], "0"))
    for turn in range(5):
        outcome = {}

        def start(n):
            try:
                apis[n]("VM.start", racers[n], False, False)
                outcome[n] = "ok"
            except ApiError as fault:
                outcome[n] = fault.code

        threads = [threading.Thread(target=start, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [n for n in outcome if outcome[n] == "ok"]
        assert len(winners) <= 1 and set(outcome.values()) <= {"ok", "VDI_IN_USE"}, outcome
        for n in winners:
            assert holders(disks[0]) == [(first("VM.get_uuid", racers[n]), "RW")]
            first("VM.hard_shutdown", racers[n])
        assert holders(disks[0]) == []

    # the agent and its member die while the domain lives: it keeps its disk, nobody else gets it, and its record is true again
    first("VM.start", racers[0], False, False)
    host = first("VM.get_resident_on", racers[0])
    n = members[host]
    api = apis[n % 3]
    pool.quickstart("kill", str(n))
    pool.leader()
    assert api.fails("VDI_IN_USE", "VM.start", racers[1], False, False) == [disks[0]]
    assert holders(disks[0]) == [(api("VM.get_uuid", racers[0]), "RW")]
    pool.quickstart("start", str(n))
    eventually("it is back", lambda: pool.status()[n - 1].get("ready") == "yes")
    assert api.fails("VDI_IN_USE", "VM.start", racers[1], False, False) == [disks[0]]
    assert api.fails("VDI_IN_USE", "VDI.force_unlock", disks[0])[0] == disks[0]
    assert api("VM.get_power_state", racers[0]) == "Running" and holders(disks[0]) == [(api("VM.get_uuid", racers[0]), "RW")]
    # its machine loses power: the lock holds until it is back and says that the domain is gone
    pool.quickstart("poweroff", str(n))
    pool.leader()
    assert api.fails("VDI_IN_USE", "VM.start", racers[1], False, False) == [disks[0]]
    assert api.fails("HOST_IS_LIVE", "VM.power_state_reset", racers[0]) == [host]
    pool.quickstart("start", str(n))
    eventually("its VM is seen to be gone", lambda: api("VM.get_power_state", racers[0]) == "Halted", 60)
    (vbd,) = api("VM.get_VBDs", racers[0])
    eventually("and its disk to be free", lambda: not api("VBD.get_currently_attached", vbd) and holders(disks[0]) == [])
    api("VM.start", racers[1], False, False)
    assert holders(disks[0]) == [(api("VM.get_uuid", racers[1]), "RW")]
    api("VM.hard_shutdown", racers[1])
    # a VM goes with its drives, the disks stay; a disk goes with its drives
    api("VM.destroy", racers[1])
    api("VDI.destroy", disks[0])
    assert api("VM.get_VBDs", racers[0]) == [] and api.fails("HANDLE_INVALID", "VBD.get_record", root)
    pool.check()
    pool.agree()
