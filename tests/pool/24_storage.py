"""Storage repositories, their connections to hosts, and disks: made, copied, resized, forgotten, found again, through several
members; what they refuse; what a death of a member or a boot of a host leaves."""
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from model import decode_json
from xpool import MIB, NULL, Api, Pool, eventually, vdi_record

DEAD = "OpaqueRef:00000000-0000-4000-8000-000000000000"

with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))  # one session: what one member has shown is seen at all
    apis = [first, second, third]
    hosts = first("host.get_all")

    # the driver, and what it can
    assert first("SR.get_supported_types") == ["file"]
    (sm,) = first("SM.get_all_records").values()
    assert sm["type"] == "file" and {"VDI_SNAPSHOT", "VDI_RESIZE"} <= set(sm["features"]) and "VDI_MIRROR" not in sm["features"]
    assert int(sm["features"]["VDI_RESET_ON_BOOT"]) == 2 and "VDI_RESET_ON_BOOT" in sm["capabilities"], sm
    assert first.fails("SR_UNKNOWN_DRIVER", "SR.create", hosts[0], {}, 0, "x", "", "nfs", "", True, {}) == ["nfs"]
    assert first.fails("HANDLE_INVALID", "SR.create", DEAD, {}, 0, "x", "", "file", "", True, {}) == ["host", DEAD]
    outside = {"location": "/tmp/elsewhere"}
    assert first.fails("SR_BACKEND_FAILURE", "SR.create", hosts[0], outside, 0, "x", "", "file", "", True, {})
    assert first("SR.get_all") == [] and first("PBD.get_all") == []

    # shared: every host has it when the call is back
    sr = second("SR.create", hosts[1], pool.storage("one"), 0, "one", "text", "file", "user", True, {})
    record = third("SR.get_record", sr)
    assert record["name_label"] == "one" and record["shared"] and int(record["physical_size"]) > 0, record
    pbds = third("PBD.get_all_records")
    assert {p["host"] for p in pbds.values()} == set(hosts) and all(p["currently_attached"] and p["SR"] == sr for p in pbds.values())
    assert set(third("SR.get_live_hosts", sr)) == set(hosts)
    uuid = record["uuid"]
    assert uuid in first("SR.probe", hosts[0], pool.storage("one"), "file", {})
    assert uuid not in first("SR.probe", hosts[0], pool.storage("none"), "file", {})
    found, = decode_json("set<record<probe_result>>", second("SR.probe_ext", hosts[0], pool.storage("one"), "file", {}))
    stat, = found["sr"]
    assert stat["uuid"] == [uuid] and stat["name_label"] == "one" and stat["health"] == "healthy" and not stat["clustered"], stat
    assert 0 < stat["free_space"] <= stat["total_space"] == int(record["physical_size"]), stat
    assert found["complete"] and found["configuration"] == pool.storage("one"), found
    for place in ("none", "one/deeper"):
        found, = second("SR.probe_ext", hosts[0], pool.storage(place), "file", {})
        assert found["complete"] and found["sr"] == [] and found["configuration"] == pool.storage(place), found
    assert first.fails("SR_UNKNOWN_DRIVER", "SR.probe_ext", hosts[0], {}, "none", {}) == ["none"]
    assert first.fails("SR_BACKEND_FAILURE", "SR.probe_ext", hosts[0], {"location": "/etc"}, "file", {}) is not None
    assert first.fails("SR_DEVICE_IN_USE", "SR.create", hosts[0], pool.storage("one"), 0, "x", "", "file", "", True, {}) is not None
    assert first.fails("PBD_EXISTS", "PBD.create", {"host": hosts[0], "SR": sr, "device_config": {}})[:2] == [sr, hosts[0]]
    assert "vdi_create" in first("SR.get_allowed_operations", sr) and "forget" not in first("SR.get_allowed_operations", sr)

    # of one host alone
    own = first("SR.create", hosts[0], pool.storage("own"), 0, "own", "", "file", "user", False, {})
    assert [first("PBD.get_host", p) for p in first("SR.get_PBDs", own)] == [hosts[0]]
    other = second("PBD.create", {"host": hosts[1], "SR": own, "device_config": pool.storage("own")})
    assert first.fails("SR_NOT_SHARABLE", "PBD.plug", other) == [own, hosts[0]]
    assert first.fails("SR_HAS_MULTIPLE_PBDS", "SR.set_shared", own, False) == [own]
    second("PBD.destroy", other)

    # disks: their file is there, and nothing of them when they are gone
    folder = pool.storage("one")["location"]
    on_disk = lambda: {name for name in os.listdir(folder) if len(name) == 36}
    vdi = first("VDI.create", vdi_record(sr, "a disk", 3 * MIB, name_description="d", other_config={"k": "v"}))
    record = third("VDI.get_record", vdi)
    assert record["virtual_size"] in (3 * MIB, str(3 * MIB)) and record["location"] == record["uuid"] and record["managed"], record
    assert record["name_label"] == "a disk" and record["other_config"] == {"k": "v"} and record["current_operations"] == {}
    assert on_disk() == {record["uuid"]} and os.stat(os.path.join(folder, record["uuid"], "disk")).st_size == 3 * MIB
    eventually("the sum of sizes", lambda: int(third("SR.get_virtual_allocation", sr)) == 3 * MIB)
    assert first.fails("HANDLE_INVALID", "VDI.create", vdi_record(DEAD)) == ["SR", DEAD]
    assert first.fails("HANDLE_INVALID", "VDI.create", vdi_record(NULL)) == ["SR", NULL]
    short = vdi_record(sr)
    del short["type"]
    assert first.fails("FIELD_TYPE_ERROR", "VDI.create", short) == ["type"]
    assert first.fails("SR_BACKEND_FAILURE", "VDI.create", vdi_record(sr, size=MIB + 1))[1] == "VDI Invalid size"
    assert len(first("VDI.get_all")) == 1 == len(on_disk())
    made = second.wait_task(second("Async.VDI.create", vdi_record(sr, "async")))
    assert made["status"] == "success" and made["name_label"] == "Async.VDI.create", made
    (other,) = first("VDI.get_by_name_label", "async")
    assert made["result"] == "<value>%s</value>" % other

    with open(os.path.join(folder, record["uuid"], "disk"), "r+b") as handle:
        handle.write(b"content")
    def content(ref):
        with open(os.path.join(pool.storage(first("SR.get_name_label", first("VDI.get_SR", ref)))["location"], first("VDI.get_location", ref), "disk"), "rb") as handle:
            return handle.read(7)

    second("VDI.resize", vdi, str(4 * MIB))
    assert int(third("VDI.get_virtual_size", vdi)) == 4 * MIB
    assert first.fails("SR_BACKEND_FAILURE", "VDI.resize", vdi, str(MIB))[1] == "VDI Invalid size"
    for method, args in (("create", [vdi_record(sr, size=60 << 40)]), ("resize", [vdi, str(60 << 40)])):
        assert first.fails("SR_BACKEND_FAILURE_44", "VDI." + method, *args)[1] == "There is insufficient space"
    clone, snapshot = second("VDI.clone", vdi), third("VDI.snapshot", vdi)
    copy = first("VDI.copy", vdi, own)
    assert content(clone) == content(snapshot) == b"content" and third("VDI.get_SR", copy) == own
    record = third("VDI.get_record", snapshot)
    assert record["is_a_snapshot"] and record["snapshot_of"] == vdi and record["snapshot_time"] > "2020", record
    assert third("VDI.get_snapshots", vdi) == [snapshot] and int(third("VDI.get_virtual_size", clone)) == 4 * MIB
    assert first.fails("HANDLE_INVALID", "VDI.copy", vdi, DEAD) == ["SR", DEAD]
    # into a disk that is there, which keeps its size
    into, small = (first("VDI.create", vdi_record(own, "into", n * MIB)) for n in (5, 3))
    assert third("VDI.copy", vdi, NULL, NULL, into) == into and content(into) == b"content"
    assert int(first("VDI.get_virtual_size", into)) == 5 * MIB == os.stat(os.path.join(pool.storage("own")["location"], first("VDI.get_uuid", into), "disk")).st_size
    assert first.fails("VDI_TOO_SMALL", "VDI.copy", vdi, NULL, NULL, small) == [small, str(4 * MIB)]
    assert first.fails("VDI_READONLY", "VDI.copy", vdi, NULL, NULL, snapshot) == [snapshot]
    assert first.fails("VDI_IN_USE", "VDI.copy", vdi, NULL, NULL, vdi) == [vdi, "copy"]
    with open(os.path.join(folder, first("VDI.get_location", vdi), "disk"), "r+b") as handle:
        handle.write(b"changed")
    first("VDI.revert", snapshot)
    assert content(vdi) == b"content"
    assert first.fails("OPERATION_NOT_ALLOWED", "VDI.revert", clone) == ["VDI is not a snapshot"]
    second("VDI.set_name_label", vdi, "renamed")
    second("VDI.set_sharable", clone, True)
    assert first.fails("VDI_IS_SHARABLE", "VDI.snapshot", clone) == []

    # many at once through all members: each is made once, the sum is right
    threads = [threading.Thread(target=lambda n=n: apis[n % 3]("VDI.create", vdi_record(sr, "many"))) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(first("VDI.get_by_name_label", "many")) == 24 and on_disk() == {first("VDI.get_uuid", v) for v in first("SR.get_VDIs", sr)}
    eventually("the sum of sizes", lambda: int(third("SR.get_virtual_allocation", sr)) == sum(
        int(first("VDI.get_virtual_size", v)) for v in first("SR.get_VDIs", sr)))
    for ref in first("VDI.get_by_name_label", "many"):
        second("VDI.destroy", ref)
    assert first.fails("HANDLE_INVALID", "VDI.destroy", ref) == ["VDI", ref]

    # forgotten disks lie there still, and a scan or an introduction finds them
    location = first("VDI.get_location", clone)
    first("VDI.forget", clone)
    again = first("VDI.introduce", "", "again", "", sr, "user", False, False, {}, location, {}, {})
    assert first("VDI.get_uuid", again) == location and int(first("VDI.get_virtual_size", again)) == 4 * MIB
    missing = "00000000-0000-4000-8000-00000000000a"
    assert first.fails("VDI_LOCATION_MISSING", "VDI.introduce", "", "x", "", sr, "user", False, False, {}, missing, {}, {}) == [sr, missing]
    names = {first("VDI.get_uuid", v): first("VDI.get_name_label", v) for v in first("SR.get_VDIs", sr)}
    for ref in first("SR.get_VDIs", sr):
        first("VDI.forget", ref)
    second("SR.scan", sr)
    found = {first("VDI.get_uuid", v): first("VDI.get_name_label", v) for v in first("SR.get_VDIs", sr)}
    assert found.keys() == names.keys() and "renamed" in found.values(), (names, found)
    (back,) = [v for v in first("SR.get_VDIs", sr) if first("VDI.get_is_a_snapshot", v)]
    assert first("VDI.get_name_label", first("VDI.get_snapshot_of", back)) == "renamed"

    # unplugged by hand: seen everywhere, stays so over a restart of the programs, not over a boot
    members = {first("host.get_address", h): h for h in hosts}
    away = members[pool.address(3)]
    (pbd,) = [p for p in pbds if pbds[p]["host"] == away]
    first("PBD.unplug", pbd)
    assert not second("PBD.get_currently_attached", pbd) and away not in second("SR.get_live_hosts", sr)
    pool.quickstart("kill", "3")
    pool.quickstart("start", "3")
    eventually("it is back", lambda: pool.status()[2].get("ready") == "yes")
    first("VM.get_all")
    assert not second("PBD.get_currently_attached", pbd)
    pool.quickstart("poweroff", "3")
    pool.quickstart("start", "3")
    eventually("all of a host are plugged after its boot", lambda: second("PBD.get_currently_attached", pbd))
    assert pool.status()[2].get("ready") == "yes"

    # a loss of power while disks are made and copied: wholly there or not at all
    (source,) = first("VDI.get_by_name_label", "renamed")
    tasks = [first("Async.VDI.copy", source, sr) if n % 2 else first("Async.VDI.create", vdi_record(sr, "k")) for n in range(16)]
    leader = pool.leader()
    pool.quickstart("poweroff", str(leader))
    api = apis[leader % 3]
    pool.leader()
    pool.quickstart("start", str(leader))
    ended = [api.wait_task(task) for task in tasks]
    eventually("no lock stays", lambda: api("SR.get_current_operations", sr) == {}, 60)
    have = {api("VDI.get_uuid", v) for v in api("SR.get_VDIs", sr)}
    eventually("disks and records agree", lambda: on_disk() == have)
    good = [task["result"][7:-8] for task in ended if task["status"] == "success"]
    assert set(good) <= set(api("SR.get_VDIs", sr)), ended

    # an end: unplugged everywhere, then forgotten and introduced, or destroyed
    assert api.fails("SR_HAS_PBD", "SR.forget", sr) == [sr]
    for ref in api("SR.get_PBDs", sr):
        api("PBD.unplug", ref)
    assert api.fails("SR_HAS_NO_PBDS", "VDI.create", vdi_record(sr)) == [sr]
    api("SR.forget", sr)
    assert api("SR.get_by_name_label", "one") == [] and api.fails("HANDLE_INVALID", "PBD.get_record", pbd) and on_disk() == have
    sr = api("SR.introduce", uuid, "introduced", "", "file", "user", True, {})
    assert api.fails("SR_UUID_EXISTS", "SR.introduce", uuid, "x", "", "file", "user", True, {}) == [uuid]
    pbd = api("PBD.create", {"host": hosts[0], "SR": sr, "device_config": pool.storage("one")})
    assert api.fails("SR_HAS_NO_PBDS", "SR.scan", sr) == [sr]
    api("PBD.plug", pbd)
    api("SR.scan", sr)
    assert {api("VDI.get_uuid", v) for v in api("SR.get_VDIs", sr)} == have
    api("PBD.unplug", pbd)
    assert api.fails("SR_NOT_EMPTY", "SR.destroy", sr) == []
    api("PBD.plug", pbd)
    for ref in api("SR.get_VDIs", sr):
        api("VDI.destroy", ref)
    api("PBD.unplug", pbd)
    second_pbd = api("PBD.create", {"host": hosts[1], "SR": sr, "device_config": pool.storage("one")})
    assert api.fails("SR_HAS_MULTIPLE_PBDS", "SR.destroy", sr) == [sr]
    api("PBD.destroy", second_pbd)
    api("SR.destroy", sr)
    assert not os.path.exists(folder) and api.fails("HANDLE_INVALID", "SR.get_record", sr) == ["SR", sr]
    pool.check()
    pool.agree()
