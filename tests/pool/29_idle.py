"""An idle pool writes next to nothing: 1,000 VMs, 300 of them running, sessions in use, clients that wait for events."""
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

VMS, RUNNING, SECONDS, PER_SECOND = 1000, 300, 20, 2  # issue: less than 2 commits a second
SMALL = str(4 << 20)


def make(api, count):
    record = vm_record("idle", memory_static_max=SMALL, memory_dynamic_max=SMALL, memory_dynamic_min=SMALL, memory_static_min=SMALL)
    return [api("VM.create", record) for _ in range(count)]


with Pool() as pool:
    apis = [Api(pool, n).login() for n in (1, 2, 3)]
    made = [[] for _ in apis]
    threads = [threading.Thread(target=lambda n=n: made[n].extend(make(apis[n], VMS // 3 + (n < VMS % 3)))) for n in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    vms = sum(made, [])
    assert len(vms) == VMS
    began = time.time()
    tasks = [apis[n % 3]("Async.VM.start", vm, False, False) for n, vm in enumerate(vms[:RUNNING])]
    eventually("all have started", lambda: all(t["status"] != "pending" for t in apis[1]("task.get_all_records").values()), 120)
    took = time.time() - began
    ended = [t for ref, t in apis[1]("task.get_all_records").items() if ref in tasks]
    assert len(ended) == RUNNING and all(t["status"] == "success" for t in ended), [t["error_info"] for t in ended][:3]
    for task in tasks:
        apis[0]("task.destroy", task)
    time.sleep(5)  # what follows the starts: facts of domains, the memory of hosts

    index = int(pool.agree()[0])
    until, token = time.time() + SECONDS, ["", "", ""]
    while time.time() < until:  # clients poll, and wait for events
        for n, api in enumerate(apis):
            api("VM.get_all_records_where", 'field "power_state" = "Running"')
            token[n] = api("event.from", ["VM", "host"], token[n], 1.0)["token"]
    written = int(pool.agree()[0]) - index
    assert written < PER_SECOND * SECONDS, "%d entries in %d s of idleness" % (written, SECONDS)
    print("%d entries in %d s; %d starts took %.1f s" % (written, SECONDS, RUNNING, took))
