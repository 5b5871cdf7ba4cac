"""Hosts are gone for longer than 60 s: their tasks end with HOST_OFFLINE, what had started keeps its lock, nothing hangs. One
comes back. The other is declared dead and destroyed: then its VM's disk is free, for one VM, and what its tasks have left on
the shared SR is gone. A third is ejected, is a pool of one, and joins again. Who was destroyed is told, and stays out."""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, ApiError, Pool, at_once, eventually, vbd_record, vdi_record, vm_record

MEMBERS = 5


def log_of(pool, member):
    with open(os.path.join(pool.dir, "member%d" % member, "xpoold.log"), errors="replace") as handle:
        return handle.read()


def stays_out(pool, member, api, host):
    """It has been told, and says so when it is started again."""
    api.fails("HANDLE_INVALID", "host.get_uuid", host)
    eventually("member %d was told" % member, lambda: "this member has left the pool" in log_of(pool, member))
    eventually("it has ended", lambda: not pool.status()[member - 1])
    done = subprocess.run([os.path.join(sys.argv[1], "xpoold"), "--allow-root", "--dir", pool.data(member),
                           "--listen", pool.address(member) + ":443"], text=True, timeout=30, stderr=subprocess.PIPE)
    assert done.returncode != 0 and "has left its pool" in done.stderr, done.stderr


def alone(pool, member):
    """It leads a pool that has no other host."""
    try:
        return pool.status()[member - 1].get("role") == "leader-ready" and len(Api(pool, member).login()("host.get_all")) == 1
    except (ApiError, OSError):
        return False


def outcome(api, method, *args):
    try:
        return api(method, *args) or "ok"
    except ApiError as fault:
        return fault.code


def changes(pool, members):
    return [pool.counters(n)["raft_changes"] for n in members]


with Pool(members=MEMBERS) as pool:
    api = Api(pool, 1).login()
    member = api.members()
    hosts = {number: ref for ref, number in member.items()}
    vm = api("VM.create", vm_record("deaf", other_config={"xpool-sim-guest": "deaf"}))
    idle = api("VM.create", vm_record("idle"))
    doomed = api("VM.create", vm_record("doomed", other_config={"xpool-sim-guest": json.dumps({"delay_ms": {"save": 5000}})}))
    sr = pool.make_sr(api)
    rivals = [doomed, api("VM.create", vm_record("rival"))]
    disk = api("VDI.create", vdi_record(sr))
    for rival in rivals:
        api("VBD.create", vbd_record(rival, disk))
    far = pool.make_sr(api, "far")  # which one host of those that live has attached
    far_disk = api("VDI.create", vdi_record(far))
    api("VBD.create", vbd_record(doomed, far_disk))
    disk, far_disk = api("VDI.get_location", disk), api("VDI.get_location", far_disk)
    folder, far_folder = pool.storage("shared")["location"], pool.storage("far")["location"]

    def lying(where=folder):
        return {name for name in os.listdir(where) if len(name) == 36}

    def writers(path=os.path.join(folder, disk)):
        with open(os.path.join(path, "holders.json")) as handle:
            return [holder["vm"] for holder in json.load(handle)]

    api("VM.start", vm, False, True)
    host = api("VM.get_resident_on", vm)
    home = member[host]
    lost = 1 + (home + 1) % MEMBERS
    api = Api(pool, 1 + home % MEMBERS, api.session)
    seer = next(number for number in hosts if number not in (home, lost))
    for pbd in api("SR.get_PBDs", far):
        if member[api("PBD.get_host", pbd)] not in (lost, seer):
            api("PBD.unplug", pbd)
    api("VM.start_on", doomed, hosts[lost], False, True)
    # who may be alive is not dead; who has VMs does not leave, nor does the coordinator
    assert api.fails("HOST_IS_LIVE", "host.declare_dead", hosts[lost]) == [hosts[lost]]
    assert api.fails("HOST_IS_LIVE", "host.destroy", hosts[lost]) == [hosts[lost]]
    leader = pool.leader()
    api.fails("OPERATION_NOT_ALLOWED", "pool.eject", hosts[leader])
    if lost != leader:
        assert api.fails("OPERATION_NOT_ALLOWED", "pool.eject", hosts[lost]) == ["VM resident on host"]
    started = api("Async.VM.clean_shutdown", vm)
    eventually("it has started", lambda: api("task.get_resident_on", started) == host and
               api("VM.get_current_operations", vm) != {})
    time.sleep(0.5)
    # a checkpoint is made, and lies there before the pool hears of it
    api("pool.set_suspend_image_SR", api("pool.get_all")[0], sr)
    api("Async.VM.checkpoint", doomed, "c")
    eventually("it is under way", lambda: len(lying()) == 2 and any(name.endswith(".new") for name in os.listdir(folder)))
    pool.kill(lost, "xpoold")
    eventually("its disks are there", lambda: len(lying()) == 3 and len(lying(far_folder)) == 2)
    pool.quickstart("kill", str(home))
    pool.quickstart("poweroff", str(lost))
    began = time.time()
    pool.leader()
    # placed operations go elsewhere at once
    api("VM.start", idle, False, True)
    assert api("VM.get_resident_on", idle) not in (host, hosts[lost]) and time.time() - began < 40
    ended = api.wait_task(started, timeout=90)
    assert ended["status"] == "failure" and ended["error_info"] == ["HOST_OFFLINE", host], ended
    assert time.time() - began > 50, "ended too early: the host could have come back"
    # unknown is not halted: the VM stays recorded as running and locked, and calls say so at once
    record = api("VM.get_record", vm)
    assert record["power_state"] == "Running" and started in record["current_operations"], record
    assert api.fails("HOST_OFFLINE", "VM.hard_shutdown", vm) == [host]
    metrics = {number: api("host.get_metrics", ref) for number, ref in hosts.items()}
    eventually("not live", lambda: not any(api("host_metrics.get_live", metrics[n]) for n in (home, lost)))

    assert api.fails("HOST_POWER_ON_MODE_DISABLED", "host.power_on", hosts[lost]) == []
    # one is said to be dead: what it had is free, and it leaves
    assert api.fails("HOST_OFFLINE", "pool.eject", hosts[lost]) == [hosts[lost]]
    assert api.fails("HOST_HAS_RESIDENT_VMS", "host.destroy", hosts[lost]) == [hosts[lost]]
    assert api("VM.get_power_state", doomed) == "Running"
    assert api.fails("HOST_OFFLINE", "VM.start", rivals[1], False, True) == [hosts[lost]] and writers() == [api("VM.get_uuid", doomed)]
    if pool.leader() == seer:
        api("pool.designate_new_master", next(ref for number, ref in hosts.items() if number not in (home, lost, seer)))
    assert pool.leader() != seer
    assert writers(os.path.join(far_folder, far_disk)) == [api("VM.get_uuid", doomed)] and len(lying(far_folder)) == 2
    api("host.declare_dead", hosts[lost])
    assert writers() == [] and lying() == {disk} and api("SR.get_current_operations", sr) == {}
    # also where the coordinator sees nothing
    assert writers(os.path.join(far_folder, far_disk)) == [] and lying(far_folder) == {far_disk}
    assert api("SR.get_current_operations", far) == {}
    record = api("VM.get_record", doomed)
    assert (record["power_state"], record["resident_on"], record["domid"]) == ("Halted", "OpaqueRef:NULL", -1), record
    assert record["consoles"] == [] and len(api("VM.get_consoles", vm)) == 1
    assert api("host.get_enabled", hosts[lost]) is False
    for turn in range(3):
        ends = at_once(*(lambda rival=rival: outcome(api, "VM.start", rival, False, True) for rival in rivals))
        assert sorted(ends) in (["VDI_IN_USE", "ok"], ["VDI_IN_USE", "VDI_IN_USE"]), ends
        runs = [rival for rival, end in zip(rivals, ends) if end == "ok"]
        assert writers() == [api("VM.get_uuid", rival) for rival in runs], (writers(), ends)
        for rival in runs:
            assert api("VM.get_resident_on", rival) != hosts[lost]
            api("VM.hard_shutdown", rival)
    api("host.destroy", hosts[lost])
    assert hosts[lost] not in api("host.get_all")
    pool.quickstart("start", str(lost))
    stays_out(pool, lost, api, hosts[lost])

    # the other one comes back: what really is replaces what was unknown
    pool.quickstart("start", str(home))
    eventually("the lock is gone", lambda: api("VM.get_current_operations", vm) == {})
    assert api("VM.get_power_state", vm) == "Running"
    eventually("live again", lambda: api("host_metrics.get_live", metrics[home]) is True)
    api("VM.hard_shutdown", vm)
    assert api("VM.get_power_state", vm) == "Halted"
    api("VM.hard_shutdown", idle)

    # a third is ejected
    for pbd in api("SR.get_PBDs", far):
        if api("PBD.get_currently_attached", pbd):
            api("PBD.unplug", pbd)
    leader = pool.leader()
    third = next(n for n in hosts if n not in (home, lost, leader) and pool.address(n) + ":" not in api.url)
    there = [n for n in hosts if n not in (lost, third)]
    # not while a guest there has a disk of an SR: it stays, with its SRs attached
    api("VM.start_on", rivals[1], hosts[third], False, True)
    assert api.fails("OPERATION_NOT_ALLOWED", "pool.eject", hosts[third]) == ["VM resident on host"]
    api("VM.hard_shutdown", rivals[1])
    pbd = next(p for p in api("SR.get_PBDs", sr) if api("PBD.get_host", p) == hosts[third])
    assert api("PBD.get_currently_attached", pbd)
    known = lambda: pool.agent_says(third, "SR.list")
    attached = lambda: [one for one in known() if one["attached"]]
    assert len(attached()) == 1
    # one that comes while its SR is being detached: it stays, and the SR is attached again
    pool.signal(third, "agent", signal.SIGSTOP)
    leaves = api("Async.pool.eject", hosts[third])
    eventually("it is being detached", lambda: "unplug" in api("SR.get_current_operations", sr).values())
    comes = api("Async.VM.start_on", idle, hosts[third], False, True)
    eventually("a VM comes", lambda: api("VM.get_scheduled_to_be_resident_on", idle) == hosts[third])
    pool.signal(third, "agent", signal.SIGCONT)
    assert api.wait_task(leaves)["error_info"] == ["OPERATION_NOT_ALLOWED", "VM resident on host"]
    assert len(attached()) == 1 and api("PBD.get_currently_attached", pbd)
    assert api.wait_task(comes)["status"] == "success"
    api("VM.hard_shutdown", idle)
    # what only this host had is forgotten with it, and stays on its storage
    local = api("SR.create", hosts[third], pool.storage("local"), 0, "local", "", "file", "user", False, {})
    drive = api("VBD.create", vbd_record(idle, api("VDI.create", vdi_record(local)), "7"))
    api("pool.eject", hosts[third])
    for gone, what in (local, "SR"), (drive, "VBD"):
        api.fails("HANDLE_INVALID", what + ".get_uuid", gone)
    assert all(d["SR"] != local for d in api("VDI.get_all_records").values()) and sr in api("SR.get_all")
    assert [name for name in os.listdir(pool.storage("local")["location"]) if len(name) == 36]
    assert sorted(api("host.get_all")) == sorted(hosts[n] for n in there)
    api.fails("HANDLE_INVALID", "host.get_uuid", hosts[third])
    # it is a pool of one at once, with nothing of what it was in
    assert attached() == []
    eventually("it is alone", lambda: alone(pool, third))
    eventually("its agent has forgotten the SR", lambda: known() == [])
    own = Api(pool, third).login()
    assert own("pool.get_all_records").popitem()[1]["uuid"] != api("pool.get_all_records").popitem()[1]["uuid"]
    assert own("VM.get_all") == [] and own("SR.get_all") == [] and len(own("PIF.get_all")) == 1
    own("VM.create", vm_record("of its own"))
    pool.kill(third, "xpoold")
    pool.quickstart("start", str(third))
    eventually("it is alone still", lambda: alone(pool, third))
    own = Api(pool, third).login()
    own("VM.destroy", own("VM.get_by_name_label", "of its own")[0])
    settled = None
    while settled != (settled := changes(pool, there)):
        time.sleep(1.5)
    api("VM.set_name_label", vm, "three are left")
    eventually("they agree", lambda: len({(line.get("applied"), line.get("hash")) for line in
                                          (pool.status()[n - 1] for n in there)}) == 1)
    # three vote: one may die
    dead = pool.leader(of=there)
    pool.quickstart("kill", str(dead))
    there.remove(dead)
    pool.leader(of=there)
    assert Api(pool, there[0], api.session)("VM.get_name_label", vm) == "three are left"
    # and the third may come back
    own("pool.join", pool.address(there[0]), "root", PASSWORD)
    eventually("it has what the pool has", lambda: pool.status()[third - 1].get("hash", "0") == pool.status()[there[0] - 1].get("hash"))
    own = Api(pool, third, api.session)
    assert own("VM.get_name_label", vm) == "three are left"
    eventually("its PBD is plugged", lambda: all(own("PBD.get_currently_attached", p) for h in own("host.get_by_name_label", "host%d" % third)
                                                 for p in own("host.get_PBDs", h) if own("PBD.get_SR", p) == sr))
