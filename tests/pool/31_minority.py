"""Two of three members are away: whatever writes fails within 10 s with the error that says so, at once when that was known; reads go on."""
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, ApiError, Pool, vm_record

BOUND_S = 10.5  # 10 s, and what a busy machine adds
CODE = "HOST_IN_EMERGENCY_MODE"


def timed(call, seen, what):
    began = time.time()
    try:
        seen[what] = ("no error", call(), time.time() - began)
    except ApiError as fault:
        seen[what] = (fault.code, None, time.time() - began)


def writes(pool, alone, sessions, vm):
    """Each kind of write at once: {what: (code, result, seconds)}."""
    here, elsewhere = Api(pool, alone, sessions[alone]), Api(pool, alone, sessions[alone % 3 + 1])
    calls = {
        "a field": lambda: here("VM.set_name_description", vm, "nobody has acknowledged this"),
        "in a session of another member": lambda: elsewhere("VM.set_name_label", vm, "nor this"),
        "a new object": lambda: here("VM.create", vm_record("never")),
        "a new object, with a task": lambda: here("Async.VM.create", vm_record("never")),
        "an operation": lambda: here("VM.start", vm, False, False),
        "an operation, with a task": lambda: here("Async.VM.start", vm, False, False),
        "a login": lambda: Api(pool, alone).login(),
        "an event": lambda: here("event.inject", "VM", vm),
    }
    seen = {}
    threads = [threading.Thread(target=timed, args=(call, seen, what)) for what, call in calls.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == set(calls), seen
    return seen


def minority(pool, alone, away, back):
    sessions = {n: Api(pool, n).login().session for n in (1, 2, 3)}
    api = Api(pool, alone, sessions[alone])
    vm = api("VM.create", vm_record("minority"))
    api("VM.set_name_description", vm, "before")
    others = [n for n in (1, 2, 3) if n != alone]
    for other in others:
        pool.quickstart(away, str(other))
    assert not api("host.is_in_emergency_mode")  # nobody knows yet that it is no election
    seen = writes(pool, alone, sessions, vm)
    for what, (code, result, seconds) in seen.items():
        print("member %d alone: %s: %s after %.2f s" % (alone, what, code, seconds))
    for what, (code, result, seconds) in seen.items():
        assert code == CODE and seconds < BOUND_S, (what, seen[what])
    # by now nobody has led for 10 s: nothing waits for that again
    assert api("host.is_in_emergency_mode")
    for what, (code, result, seconds) in writes(pool, alone, sessions, vm).items():
        assert code == CODE and seconds < 2, (what, code, seconds)
    assert api("VM.get_name_description", vm) == "before"
    for other in others:
        pool.quickstart(back, str(other))
    pool.leader()
    api("VM.set_name_label", vm, "after")
    pool.agree()
    for n in (1, 2, 3):
        there = Api(pool, n, sessions[n])
        assert there("VM.get_name_description", vm) in ("before", "nobody has acknowledged this")
        assert there("VM.get_name_label", vm) == "after" and not there("host.is_in_emergency_mode")


with Pool() as pool:
    coordinator = pool.leader()
    minority(pool, coordinator, "freeze", "thaw")
    minority(pool, pool.leader() % 3 + 1, "kill", "start")
