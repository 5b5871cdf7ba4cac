"""Volatile numbers: seen on all members over the rows, in events, without an entry of the log; gone when their owner is silent."""
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import MIB, Api, Pool, eventually, vm_record


def number(api, metrics):
    return int(api("VM_metrics.get_memory_actual", metrics))


with Pool() as pool:
    apis = [Api(pool, n).login() for n in (1, 2, 3)]
    first = apis[0]
    # each host says how much memory it has
    hosts = {h: first("host.get_record", h)["metrics"] for h in first("host.get_all")}
    for api in apis:
        for metrics in hosts.values():
            eventually("memory of a host", lambda a=api, m=metrics: int(a("host_metrics.get_record", m)["memory_total"]) > 0)
            assert api("host_metrics.get_live", metrics) is True
    vm = first("VM.create", vm_record("measured"))
    metrics = first("VM.get_metrics", vm)
    assert number(first, metrics) == 0
    token = apis[1]("event.from", ["vm_metrics"], "", 0.0)["token"]
    first("VM.start", vm, False, True)
    # no entry is needed for it, and watchers of every member hear of it
    seen = apis[1]("event.from", ["vm_metrics/" + metrics], token, 20.0)
    while not any(int(e["snapshot"]["memory_actual"]) == 64 * MIB for e in seen["events"]):
        seen = apis[1]("event.from", ["vm_metrics/" + metrics], seen["token"], 20.0)
        assert seen["events"], "no event about the memory of the VM"
    for api in apis:
        eventually("memory of a VM", lambda a=api: number(a, metrics) == 64 * MIB)
        record = api("VM_metrics.get_record", metrics)
        assert int(record["memory_actual"]) == 64 * MIB and record["last_updated"] > "2020", record
        everything = api("VM_metrics.get_all_records")[metrics]
        assert int(everything["memory_actual"]) == 64 * MIB
    eventually("the row of the start is swept", lambda: first("task.get_all") == [])
    index = pool.agree()[0]
    time.sleep(6)  # longer than an interval
    assert pool.agree()[0] == index, "numbers went through the log"
    # progress of a task, elsewhere too: a guest that ignores the request keeps its task pending
    deaf = first("VM.create", vm_record("deaf", other_config={"xpool-sim-guest": "deaf"}))
    first("VM.start", deaf, False, True)
    task = first("Async.VM.clean_shutdown", deaf)
    for api in apis:
        eventually("progress", lambda a=api: 0 < float(a("task.get_progress", task)) < 1)
    first("task.cancel", task)
    for api in apis:
        ended = api.wait_task(task)
        assert ended["status"] == "cancelled" and float(ended["progress"]) == 1, ended
    # the owner stands still: its numbers go, those of the others stay; it comes back, and they with it
    owner = first("VM.get_resident_on", vm)
    frozen = next(n for n in (1, 2, 3) if first("host.get_address", owner) == pool.address(n))
    others = [api for api in apis if api.member != frozen]
    pool.quickstart("freeze", str(frozen))
    results = []

    def watch():
        try:
            place = others[1]("event.from", ["vm_metrics"], "", 0.0)["token"]
            while not results:
                answer = others[1]("event.from", ["vm_metrics/" + metrics], place, 30.0)
                results.extend(e for e in answer["events"] if int(e["snapshot"]["memory_actual"]) == 0)
                place = answer["token"]
        except Exception as fault:  # told below
            results.append(fault)

    thread = threading.Thread(target=watch)
    thread.start()
    for api in others:
        eventually("the numbers are dropped", lambda a=api: number(a, metrics) == 0, 60)
    thread.join(60)
    assert results and isinstance(results[0], dict), results
    alive = [m for h, m in hosts.items() if h != owner]
    for api in others:
        for m in alive:
            assert int(api("host_metrics.get_record", m)["memory_total"]) > 0
    pool.quickstart("thaw", str(frozen))
    for api in apis:
        eventually("the numbers are back", lambda a=api: number(a, metrics) == 64 * MIB, 60)
    # halted: nothing runs, nothing is told
    first("VM.hard_shutdown", vm)
    for api in apis:
        eventually("none after the halt", lambda a=api: number(a, metrics) == 0, 30)
    assert all(pool.counters(n)["plane_refused"] == 0 for n in (1, 2, 3))
    pool.agree()
