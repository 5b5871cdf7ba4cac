"""Checkpoints: a snapshot with the memory, of a guest that runs on whatever becomes of it; back to one the VM is suspended."""
import os
import subprocess
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import NULL, PASSWORD, Api, Pool, eventually, guest, vbd_record, vdi_record, vm_record


with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))
    hosts = first("host.get_all")
    member = first.members()
    sr = pool.make_sr(first)
    folder = pool.storage("shared")["location"]

    def write(vdi, text):
        with open(os.path.join(folder, first("VDI.get_location", vdi), "disk"), "r+b") as handle:
            handle.write(text)

    def read(vdi):
        with open(os.path.join(folder, first("VDI.get_location", vdi), "disk"), "rb") as handle:
            return handle.read(7)

    def whole():
        """Every disk in the storage has a record, and the reverse."""
        have = {name for name in os.listdir(folder) if name != "sr.json"}
        return have == {first("VDI.get_location", v) for v in first("SR.get_VDIs", sr)}

    def make(label, **more):
        vm = first("VM.create", vm_record(label, **more))
        first("VBD.create", vbd_record(vm, first("VDI.create", vdi_record(sr))))
        write(disk(vm), b"before.")
        first("VM.start_on", vm, hosts[0], False, True)
        return vm

    disk = lambda vm: first("VBD.get_VDI", first("VM.get_VBDs", vm)[0])
    state = lambda vm: first("VM.get_power_state", vm)

    # of a guest that runs: it is the same guest behind it
    vm = make("vm")
    assert second.fails("VM_NO_SUSPEND_SR", "VM.checkpoint", vm, "no") == [vm]
    first("pool.set_suspend_image_SR", first("pool.get_all")[0], sr)
    domid = first("VM.get_domid", vm)
    point = second("VM.checkpoint", vm, "point")
    record = third("VM.get_record", point)
    assert (record["power_state"], record["snapshot_of"], record["is_a_snapshot"], record["resident_on"]) == ("Suspended", vm, True, NULL), record
    assert record["name_label"] == "point" and record["snapshot_info"]["power-state-at-snapshot"] == "Running", record
    image = third("VDI.get_record", record["suspend_VDI"])
    assert image["type"] == "suspend" and image["SR"] == sr, image
    assert third("VDI.get_snapshot_of", disk(point)) == disk(vm) and read(disk(point)) == b"before." and whole()
    record = third("VM.get_record", vm)
    assert (record["power_state"], record["resident_on"], record["domid"]) == ("Running", hosts[0], domid), record
    assert record["suspend_VDI"] == NULL and record["current_operations"] == {} and record["parent"] == point
    # back: suspended, with memory and disk of then; each time anew
    for turn in ("running", "suspended", "halted"):
        write(disk(vm), b"changed")
        (third, second)[turn == "halted"]("VM.revert", point)
        record = first("VM.get_record", vm)
        assert (record["power_state"], record["resident_on"], int(record["domid"])) == ("Suspended", NULL, -1), (turn, record)
        assert record["suspend_VDI"] not in (NULL, first("VM.get_suspend_VDI", point)) and read(disk(vm)) == b"before.", (turn, record)
        assert not first("VDI.get_is_a_snapshot", record["suspend_VDI"])
        eventually("what it had is gone", whole)
        if turn == "suspended":
            first("VM.resume_on", vm, hosts[1], False, False)
            assert state(vm) == "Running"
            first("VM.hard_shutdown", vm)
    # a checkpoint of a suspended VM; a VM of it is new, without memory
    again = third("VM.checkpoint", vm, "again")
    assert state(again) == state(vm) == "Suspended" and len({first("VM.get_suspend_VDI", v) for v in (vm, again, point)}) == 3
    assert state(first("VM.clone", again, "clone")) == "Halted"
    first("VM.resume", vm, False, False)
    # a snapshot without memory takes that of a suspended VM away
    plain = first("VM.snapshot", vm, "plain")
    first("VM.suspend", vm)
    first("VM.revert", plain)
    assert state(vm) == "Halted" and first("VM.get_suspend_VDI", vm) == NULL
    eventually("the image is gone", whole)
    # the VM is no more: it comes back suspended
    lost = disk(vm)
    first("VM.destroy", vm)
    first("VDI.destroy", lost)
    second("VM.revert", again)
    assert state(vm) == "Suspended" and read(disk(vm)) == b"before." and whole()
    first("VM.resume_on", vm, hosts[2], False, False)
    first("VM.hard_shutdown", vm)
    assert first.fails("VM_BAD_POWER_STATE", "VM.checkpoint", vm, "no")[0] == vm
    assert third.fails("VM_IS_SNAPSHOT", "VM.checkpoint", again, "no") == [again, "checkpoint"]

    # as people write them; a checkpoint that is uninstalled takes its memory along
    def xe(*args):
        command = [os.path.join(sys.argv[1], "xe"), "-s", pool.address(1), "-u", "root", "-pw", PASSWORD, *args]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, HOME=pool.dir))
        assert done.returncode == 0, done.stdout
        return done.stdout

    first("VM.start_on", vm, hosts[0], False, True)
    uuid = xe("vm-checkpoint", "uuid=" + first("VM.get_uuid", vm), "new-name-label=by xe").strip()
    xe("snapshot-revert", "snapshot-uuid=" + uuid)
    assert state(vm) == "Suspended" and xe("snapshot-param-get", "uuid=" + uuid, "param-name=power-state") == "suspended\n"
    image = first("VM.get_suspend_VDI", first("VM.get_by_uuid", uuid))
    xe("snapshot-uninstall", "snapshot-uuid=" + uuid, "force=true")
    assert first.fails("HANDLE_INVALID", "VDI.get_record", image) and state(vm) == "Suspended"
    # its memory is lost, or where its VM runs nobody sees it
    first("VDI.destroy", first("VM.get_suspend_VDI", vm))
    assert first.fails("VM_HAS_NO_SUSPEND_VDI", "VM.checkpoint", vm, "no") == [vm]
    first("VM.power_state_reset", vm)
    far = pool.make_sr(first, "far")
    first("VM.set_suspend_SR", vm, far)
    first("VM.start_on", vm, hosts[0], False, True)
    point = first("VM.checkpoint", vm, "far")
    assert first("VDI.get_SR", first("VM.get_suspend_VDI", point)) == far
    (pbd,) = [p for p in first("SR.get_PBDs", far) if first("PBD.get_host", p) == hosts[0]]
    first("PBD.unplug", pbd)
    assert second.fails("VM_REQUIRES_SR", "VM.revert", point) == [vm, far] and state(vm) == "Running"
    first("PBD.plug", pbd)
    second("VM.revert", point)
    first("VM.resume", vm, False, False)
    first("VM.hard_shutdown", vm)

    # what fails leaves the guest running and nothing else
    disks = len(first("VDI.get_all"))
    for behaviour, code in (({"fail": {"save": "no save"}}, "INTERNAL_ERROR"), ({"suspend": "hang"}, None)):
        bad = make("bad", **guest(**behaviour))
        domid = first("VM.get_domid", bad)
        if code is not None:
            assert first.fails(code, "VM.checkpoint", bad, "no") == ["no save"]
        else:
            task = second("Async.VM.checkpoint", bad, "no")
            time.sleep(0.4)
            third("task.cancel", task)
            assert second.wait_task(task)["status"] == "cancelled"
        assert state(bad) == "Running" and first("VM.get_domid", bad) == domid and first("VM.get_snapshots", bad) == []
        disks += 1
        assert len(first("VDI.get_all")) == disks and first("VM.get_current_operations", bad) == {}
        eventually("nothing is left", whole)
        first("VM.hard_shutdown", bad)
    # of a paused guest, which stays paused, also when it fails
    paused = make("paused", **guest(suspend="ignore"))
    first("VM.pause", paused)
    assert "checkpoint" in first("VM.get_allowed_operations", paused) and "suspend" not in first("VM.get_allowed_operations", paused)
    task = second("Async.VM.checkpoint", paused, "no")
    time.sleep(0.4)
    third("task.cancel", task)
    assert second.wait_task(task)["status"] == "cancelled" and state(paused) == "Paused"
    eventually("nothing is left of it", whole)
    first("VM.remove_from_other_config", paused, "xpool-sim-guest")
    first("VM.hard_shutdown", paused)
    first("VM.start", paused, True, True)
    point = second("VM.checkpoint", paused, "paused")
    assert state(paused) == "Paused" and state(point) == "Suspended"
    first("VM.destroy", point)
    # its agent dies while it runs for that: the next one pauses it again
    task = second("Async.VM.checkpoint", paused, "no")
    eventually("it is under way", lambda: second("VM.get_current_operations", paused) != {})
    pool.kill(member[first("VM.get_resident_on", paused)], "agent")
    pool.quickstart("start", str(member[first("VM.get_resident_on", paused)]))
    second.wait_task(task)
    eventually("it is paused, and on record so", lambda: state(paused) == "Paused" and first("VM.get_current_operations", paused) == {})
    for extra in first("VM.get_snapshots", paused):
        first("VM.destroy", extra)
    first("VM.hard_shutdown", paused)

    # xpoold or the agent dies in between: it runs on; the checkpoint is there, with its image, or nothing is
    vm = make("slow", **guest(shutdown_ms=200, delay_ms={"save": 300, "resume": 300}))
    domid, victim, points = first("VM.get_domid", vm), member[hosts[0]], set()
    first, second = (api for n, api in enumerate((first, second, third), 1) if n != victim)
    for turn, wait in enumerate((0.1, 0.1, 0.4, 0.4, 0.7, 0.7)):
        task = second("Async.VM.checkpoint", vm, "turn %d" % turn)
        time.sleep(wait)
        pool.kill(victim, "xpoold" if turn % 2 else "agent")
        pool.quickstart("start", str(victim))
        eventually("the member is back", lambda: pool.status()[victim - 1].get("ready") == "yes")
        ended = second.wait_task(task)
        if ended["status"] == "success":
            points.add(ended["result"][7:-8])
        eventually("it runs on", lambda: (state(vm), first("VM.get_domid", vm)) == ("Running", domid), 60)
        eventually("no lock stays", lambda: first("VM.get_current_operations", vm) == {}, 60)
        eventually("disks and records agree", whole, 60)
        assert set(first("VM.get_snapshots", vm)) == points, (turn, ended)
    assert points, "xpoold dies, and no checkpoint comes of it"
    for point in points:
        second("VM.revert", point)
        first("VM.resume", vm, False, False)
        assert state(vm) == "Running"
    pool.check()
    pool.agree()
