"""A host is gone for longer than 60 s: its tasks end with HOST_OFFLINE, what had started keeps its lock, nothing hangs."""
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

with Pool() as pool:
    api = Api(pool, 1).login()
    addresses = {ref: h["address"] for ref, h in api("host.get_all_records").items()}
    vm = api("VM.create", vm_record("deaf", other_config={"xpool-sim-guest": "deaf"}))
    idle = api("VM.create", vm_record("idle"))
    api("VM.start", vm, False, True)
    host = api("VM.get_resident_on", vm)
    home = int(addresses[host].rsplit(".", 1)[1]) - 10
    api = Api(pool, 1 + home % 3, api.session)
    started = api("Async.VM.clean_shutdown", vm)
    eventually("it has started", lambda: api("task.get_resident_on", started) == host and
               api("VM.get_current_operations", vm) != {})
    time.sleep(0.5)
    pool.quickstart("kill", str(home))
    began = time.time()
    pool.leader()
    # placed operations go elsewhere at once
    api("VM.start", idle, False, True)
    assert api("VM.get_resident_on", idle) != host and time.time() - began < 15
    ended = api.wait_task(started, timeout=90)
    assert ended["status"] == "failure" and ended["error_info"] == ["HOST_OFFLINE", host], ended
    assert time.time() - began > 50, "ended too early: the host could have come back"
    # unknown is not halted: the VM stays recorded as running and locked, and calls say so at once
    record = api("VM.get_record", vm)
    assert record["power_state"] == "Running" and started in record["current_operations"], record
    assert api.fails("HOST_OFFLINE", "VM.hard_shutdown", vm) == [host]
    metrics = api("host.get_metrics", host)
    eventually("not live", lambda: api("host_metrics.get_live", metrics) is False)
    # the host comes back: what really is replaces what was unknown
    pool.quickstart("start", str(home))
    eventually("the lock is gone", lambda: api("VM.get_current_operations", vm) == {})
    assert api("VM.get_power_state", vm) == "Running"
    eventually("live again", lambda: api("host_metrics.get_live", metrics) is True)
    api("VM.hard_shutdown", vm)
    assert api("VM.get_power_state", vm) == "Halted"
    pool.agree()
