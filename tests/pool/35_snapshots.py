"""The log is cut by snapshots; a member that was away for longer than the log gets one; a start begins from one. An object
that clients fill has a limit, and a database that gets too large raises an alert."""
import os
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

def alerts(api):
    return [m for m in api("message.get_all_records").values() if m["name"] == "DATABASE_NEARLY_FULL"]


with Pool(options="--snapshot-entries 60 --snapshot-large 1000") as pool:
    api = Api(pool, 1).login()
    vms = [api("VM.create", vm_record("snap%d" % n, tags=["a", "b"], other_config={"k": str(n)})) for n in range(3)]
    api("VM.start", vms[0], False, True)
    leader = pool.leader()
    away = 1 + leader % 3
    api = Api(pool, leader, api.session)
    token = api("event.from", ["*"], "", 0.0)["token"]
    pool.quickstart("kill", str(away))
    for n in range(400):
        api("VM.set_name_description", vms[n % 3], "write %d" % n)
    gone = api("VM.create", vm_record("gone"))
    api("VM.destroy", gone)
    assert pool.counters(leader)["snapshots_taken"] >= 2, pool.counters(leader)
    pool.quickstart("start", str(away))
    eventually("it is back", lambda: pool.status()[away - 1].get("ready") == "yes")
    pool.agree()
    back = pool.counters(away)
    assert back["snapshots_restored"] >= 1, back
    sent = sum(pool.counters(n)["snapshots_sent"] for n in (1, 2, 3) if n != away)
    assert sent >= 1, "nobody sent a snapshot"
    for name, text in pool.logs():
        assert "event=member_connected" not in text or "bulk=apart" in text, name
        assert "event=snapshot_interrupted" not in text and "event=snapshot_unanswered" not in text, name
    pool.check(away)
    there = Api(pool, away, api.session)
    assert there("VM.get_all_records") == api("VM.get_all_records")
    # its events go on where another member's ended
    changed = {(e["class"], e["operation"], e["ref"]) for e in there("event.from", ["vm"], token, 5.0)["events"]}
    assert changed == {("vm", "mod", vm) for vm in vms}, changed
    there("VM.hard_shutdown", vms[0])
    # what is too large here: every snapshot; one alert until somebody destroys it
    eventually("an alert", lambda: len(alerts(api)) == 1)
    (alert,) = alerts(api)
    assert alert["cls"] == "Pool" and alert["priority"] == 2 and "536870912" in alert["body"], alert
    taken = pool.counters(leader)["snapshots_large"]
    for n in range(130):
        api("VM.set_name_description", vms[1 + n % 2], "more %d" % n)
    assert pool.counters(leader)["snapshots_large"] > taken and alerts(api) == [alert]
    # an object that clients fill has a limit, which all members know
    piece = "x" * 1000000
    for n in range(9):
        there("VM.add_to_other_config", vms[1], "piece%d" % n, piece)
    assert there.fails("VALUE_NOT_SUPPORTED", "VM.add_to_other_config", vms[1], "more", piece)[0] == "value"
    there.fails("VALUE_NOT_SUPPORTED", "VM.set_name_description", vms[1], "longer than what it was")
    api("VM.remove_from_other_config", vms[1], "piece0")
    api("VM.add_to_other_config", vms[1], "more", "goes on")
    for n in range(1, 9):
        there("VM.remove_from_other_config", vms[1], "piece%d" % n)
    # everybody starts again, from snapshots and the log behind them
    pool.quickstart("down")
    names = os.listdir(os.path.join(pool.data(away), "raft"))
    assert any(name.startswith("snapshot-") for name in names), names
    assert not any(name.startswith("0000000000000001-") for name in names), names
    pool.up()
    pool.agree()
    for member in (1, 2, 3):
        assert pool.counters(member)["snapshots_restored"] == 1
        again = Api(pool, member, api.session)
        assert again("VM.get_name_description", vms[399 % 3]) == "write 399"
        assert again("VM.get_power_state", vms[0]) == "Halted"
