"""VMs with disks: cloned, copied, snapshotted, reverted, provisioned from templates, while agents and members die: disks and
records are wholly there or not at all."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from xpool import MIB, NULL, Api, Pool, eventually, vbd_record, vdi_record, vm_record


with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))
    apis = [first, second, third]
    sr, other_sr = pool.make_sr(first, "one"), pool.make_sr(first, "two")
    (pool_ref,) = first("pool.get_all")
    where = {sr: pool.storage("one")["location"], other_sr: pool.storage("two")["location"]}
    path = lambda vdi: os.path.join(where[third("VDI.get_SR", vdi)], third("VDI.get_location", vdi), "disk")

    def write(vdi, text):
        with open(path(vdi), "r+b") as handle:
            handle.write(text)

    def read(vdi):
        with open(path(vdi), "rb") as handle:
            return handle.read(7)

    def disks(vm):
        """By place: the disks of a VM."""
        drives = [third("VBD.get_record", v) for v in third("VM.get_VBDs", vm)]
        return {d["userdevice"]: d["VDI"] for d in drives if d["type"] == "Disk"}

    def whole(api=third):
        """Every disk in the storage has a record, and the reverse; nothing is half made."""
        for ref, folder in where.items():
            have = {name for name in os.listdir(folder) if name != "sr.json"}
            want = {api("VDI.get_location", v) for v in api("SR.get_VDIs", ref)}
            if have != want:
                return False
        return True

    vm = first("VM.create", vm_record("vm"))
    for n, text in ((0, b"system."), (1, b"data...")):
        vdi = first("VDI.create", vdi_record(sr, "disk %d" % n))
        first("VBD.create", vbd_record(vm, vdi, str(n), other_config={"owner": ""}))
        write(vdi, text)
    iso = first("VDI.create", vdi_record(sr, "cd", read_only=True))
    first("VBD.create", vbd_record(vm, iso, "3", type="CD", mode="RO"))
    original = disks(vm)

    # a clone has disks of its own; a CD is anybody's
    clone = second("VM.clone", vm, "clone")
    mine = disks(clone)
    assert set(mine) == {"0", "1"} and not set(mine.values()) & set(original.values()), mine
    assert [read(mine[k]) for k in "01"] == [b"system.", b"data..."] and third("VDI.get_SR", mine["0"]) == sr
    assert [third("VBD.get_VDI", v) for v in third("VM.get_VBDs", clone) if third("VBD.get_type", v) == "CD"] == [iso]
    assert third("VDI.get_name_label", mine["0"]) == "disk 0" and third("VDI.get_current_operations", original["0"]) == {}
    first("VM.start", clone, False, False)
    first("VM.start", vm, False, False)
    copy_of = lambda ref: second.wait_task(second("Async.VM.copy", ref, "copy", other_sr))
    first("VM.hard_shutdown", clone)
    ended = copy_of(clone)
    assert ended["status"] == "success", ended
    (copy,) = third("VM.get_by_name_label", "copy")
    assert {third("VDI.get_SR", v) for v in disks(copy).values()} == {other_sr} and read(disks(copy)["1"]) == b"data..."
    sizes = sum(int(third("VDI.get_virtual_size", v)) for v in third("SR.get_VDIs", other_sr))
    eventually("the sum of sizes", lambda: int(third("SR.get_virtual_allocation", other_sr)) == sizes == 2 * MIB)

    # a VM too large for the one entry that would make its copy: refused as a whole, and nothing of it stays
    large = first("VM.create", vm_record("large"))
    first("VBD.create", vbd_record(large, first("VDI.create", vdi_record(sr, "of large")), "0"))
    for n in range(2):
        first("VM.add_to_other_config", large, "half%d" % n, "x" * 600000)
    before = (first("VM.get_all"), first("VDI.get_all"))
    assert second.fails("VALUE_NOT_SUPPORTED", "VM.clone", large, "copy of large")[2] == "larger than 1 MiB"
    assert (first("VM.get_all"), first("VDI.get_all")) == before and first("VM.get_current_operations", large) == {}
    eventually("the disk that was copied has gone", whole)
    first("VM.remove_from_other_config", large, "half0")
    first("VM.destroy", second("VM.clone", large, "copy of what fits"))

    # snapshots of a running VM, one of them without a disk
    snapshot = first("VM.snapshot", vm, "snapshot")
    kept = disks(snapshot)
    assert all(third("VDI.get_is_a_snapshot", v) and third("VDI.get_snapshot_of", v) == original[k] for k, v in kept.items()), kept
    partial = first("VM.snapshot", vm, "partial", [original["1"]])
    assert set(disks(partial)) == {"0"}
    for k, text in (("0", b"changed"), ("1", b"changed")):
        write(original[k], text)
    # back: the VM stops and has what it had
    second("VM.revert", snapshot)
    assert third("VM.get_power_state", vm) == "Halted"
    now = disks(vm)
    assert [read(now[k]) for k in "01"] == [b"system.", b"data..."] and not set(now.values()) & set(original.values())
    assert third.fails("HANDLE_INVALID", "VDI.get_record", original["0"]) and third("VDI.get_snapshot_of", kept["0"]) == now["0"]
    assert set(third("VDI.get_snapshots", now["0"])) == {kept["0"], disks(partial)["0"]}
    eventually("no disk is left", whole)
    first("VM.start", vm, False, False)
    first("VM.hard_shutdown", vm)
    # also when the VM is no more: the same VM again, asked for by two snapshots at once
    gone = first("VM.create", vm_record("gone"))
    first("VBD.create", vbd_record(gone, first("VDI.create", vdi_record(sr, "of gone")), "0"))
    write(disks(gone)["0"], b"content")
    lost, uuid = disks(gone)["0"], first("VM.get_uuid", gone)
    points = [first("VM.snapshot", gone, "point %d" % n) for n in range(2)]
    first("VM.destroy", gone)
    first("VDI.destroy", lost)
    for task in [apis[n]("Async.VM.revert", points[n]) for n in range(2)]:
        assert second.wait_task(task)["status"] == "success", third("task.get_record", task)
    assert third("VM.get_by_uuid", uuid) == gone and third("VM.get_name_label", gone) == "gone" and not third("VM.get_is_a_template", gone)
    assert set(third("VM.get_snapshots", gone)) == set(points) and read(disks(gone)["0"]) == b"content"
    first("VM.start", gone, False, False)
    first("VM.hard_shutdown", gone)
    # a VM from a snapshot writes its own disks
    child = second("VM.clone", snapshot, "child")
    assert not third("VDI.get_is_a_snapshot", disks(child)["0"]) and read(disks(child)["0"]) == b"system."
    assert first.fails("VDI_IS_SHARABLE", "VM.snapshot", (lambda v: (first("VDI.set_sharable", disks(v)["1"], True), v)[1])(copy), "no") == []

    # a disk that goes back when a life of its VM begins, on any member, to what it held when that was set
    desk = first("VM.create", vm_record("desk"))
    vdi = first("VDI.create", vdi_record(sr, "of desk"))
    first("VBD.create", vbd_record(desk, vdi, "0"))
    write(vdi, b"golden.")
    assert {"set_on_boot", "snapshot", "copy"} <= set(first("VDI.get_allowed_operations", vdi))
    second("VDI.set_on_boot", vdi, "reset")
    assert third("VDI.get_on_boot", vdi) == "reset"
    assert "set_on_boot" in first("VDI.get_allowed_operations", vdi) and not {"snapshot", "copy"} & set(first("VDI.get_allowed_operations", vdi))
    mode = "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"
    assert first.fails(mode, "VDI.snapshot", vdi) == first.fails(mode, "VDI.copy", vdi, other_sr) == first.fails(mode, "VM.snapshot", desk, "no") == []
    assert first.fails(mode, "VM.copy", desk, "no", other_sr) == []
    for n, host in enumerate(first("host.get_all")):
        write(vdi, b"waste.%d" % n)
        apis[n]("VM.start_on", desk, host, False, False)
        assert read(vdi) == b"golden.", read(vdi)
        write(vdi, b"waste..")
        if n == 0:
            assert third.fails("VDI_IN_USE", "VDI.set_on_boot", vdi, "persist") == [vdi, "set_on_boot"]
            assert "set_on_boot" not in third("VDI.get_allowed_operations", vdi)
            for args in (("VM.snapshot", desk, "no"), ("VM.checkpoint", desk, "no"), ("VM.suspend", desk)):
                assert third.fails(mode, *args) == []
            assert not {"snapshot", "checkpoint", "suspend"} & set(third("VM.get_allowed_operations", desk))
            there = [h for h in first("host.get_all") if h != host][0]
            second("VM.pool_migrate", desk, there, {})  # goes on with its life
            assert read(vdi) == b"waste.."
            first("VDI.set_allow_caching", vdi, True)
            assert third.fails(mode, "VM.pool_migrate", desk, host, {}) == []
            first("VDI.set_allow_caching", vdi, False)
            first("VM.hard_reboot", desk)
            assert read(vdi) == b"golden."
            write(vdi, b"waste..")
        first("VM.hard_shutdown", desk)
        assert read(vdi) == b"waste.."  # until the next one begins
    # a clone goes back to what it was cloned from
    twin = second("VM.clone", desk, "twin")
    assert third("VDI.get_on_boot", disks(twin)["0"]) == "reset" and read(disks(twin)["0"]) == b"waste.."
    write(disks(twin)["0"], b"changed")
    first("VM.start", twin, False, False)
    assert read(disks(twin)["0"]) == b"waste.."
    first("VM.hard_shutdown", twin)
    # the agents die, and the members
    for turn, word in enumerate(("persist", "reset", "persist", "reset")):
        before, victim = third("VDI.get_on_boot", vdi), 1 + turn % 3
        write(vdi, b"turn..%d" % turn)
        task = apis[(victim + 1) % 3]("Async.VDI.set_on_boot", vdi, word)
        pool.quickstart("kill", str(victim))
        api = apis[victim % 3]
        pool.leader()
        pool.quickstart("start", str(victim))
        ended = api.wait_task(task, 90)
        eventually("it is back", lambda: pool.status()[victim - 1].get("ready") == "yes")
        is_now = api("VDI.get_on_boot", vdi)
        assert is_now == word if ended["status"] == "success" else is_now in (before, word), (ended, is_now)
        base = os.path.join(os.path.dirname(path(vdi)), "base")
        eventually("no lock stays", lambda: api("VDI.get_current_operations", vdi) == {}, 60)
        assert is_now == "persist" or os.path.exists(base), "it has nothing to go back to"
    third("VDI.set_on_boot", vdi, "reset")
    third("VDI.set_on_boot", vdi, "persist")
    assert not os.path.exists(os.path.join(os.path.dirname(path(vdi)), "base"))
    write(vdi, b"kept...")
    first("VM.start", desk, False, False)
    assert read(vdi) == b"kept..."
    first("VM.hard_shutdown", desk)
    eventually("disks and records agree", whole)

    # from a template that asks for disks
    xml = '<provision><disk device="0" size="%d" sr="%s" bootable="true" type="system"/><disk type=\'user\' size="%d" device="1" sr=""/></provision>'
    template = first("VM.create", vm_record("template", template=True, other_config={"disks": xml % (2 * MIB, third("SR.get_uuid", other_sr), MIB)}))
    made = second("VM.clone", template, "made")
    assert second.fails("DEFAULT_SR_NOT_FOUND", "VM.provision", made) == [NULL] and disks(made) == {}
    first("pool.set_default_SR", pool_ref, sr)
    second("VM.provision", made)
    given = disks(made)
    assert [third("VDI.get_SR", given[k]) for k in "01"] == [other_sr, sr] and int(third("VDI.get_virtual_size", given["0"])) == 2 * MIB
    assert "disks" not in third("VM.get_other_config", made) and not third("VM.get_is_a_template", made)
    first("VM.start", made, False, False)
    for bad in ("<provision><disk size='1048576'/></provision>", '<provision><disk device="0" size="x" sr=""', '<disk device="0" size="1" type="no"/>'):
        broken = first("VM.create", vm_record("broken", template=True, other_config={"disks": bad}))
        assert first.fails("INVALID_VALUE", "VM.provision", broken)[0] == "other_config:disks"
    # the second disk cannot be made: nor is the first
    odd = first("VM.create", vm_record("odd", template=True, other_config={"disks": xml % (2 * MIB, "", MIB + 1)}))
    before = set(third("VDI.get_all"))
    assert first.fails("SR_BACKEND_FAILURE", "VM.provision", odd)
    assert set(third("VDI.get_all")) == before and third("VM.get_is_a_template", odd) and disks(odd) == {}
    eventually("nor is anything in the storage", whole)

    # killed meanwhile: the coordinator, then the owner with its agent
    for turn in range(3):
        tasks = [first("Async.VM.clone", vm, "many %d" % k) for k in range(4)] + [first("Async.VM.snapshot", clone, "s%d" % k) for k in range(2)]
        victim = pool.leader() if turn == 0 else 2 + turn % 2
        pool.quickstart("kill", str(victim))
        api = apis[victim % 3]
        pool.leader()
        pool.quickstart("start", str(victim))
        ended = [api.wait_task(task, 90) for task in tasks]
        eventually("it is back", lambda: pool.status()[victim - 1].get("ready") == "yes")
        first, second, third = apis
        eventually("no lock stays", lambda: api("SR.get_current_operations", sr) == {} and api("VM.get_current_operations", vm) == {}, 60)
        eventually("disks and records agree", lambda: whole(api), 60)
        for task in ended:
            if task["status"] == "success":
                assert set(disks(task["result"][7:-8])) == {"0", "1"}, task
    pool.check()
    pool.agree()
