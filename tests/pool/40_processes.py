"""Processes die and come back in the middle of operations: every task ends, records follow what is really there."""
import os
import signal
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record


def pid(pool, member, name):
    with open(os.path.join(pool.dir, "member%d" % member, name + ".pid")) as handle:
        return int(handle.read().split()[0])


with Pool() as pool:
    api = Api(pool, 1).login()
    member = api.members()

    def where(vm):
        return member[api("VM.get_resident_on", vm)]

    def anyone_but(member):
        return Api(pool, 1 + member % 3, api.session)

    deaf = api("VM.create", vm_record("deaf", other_config={"xpool-sim-guest": "deaf"}))
    api("VM.start", deaf, False, True)
    home = where(deaf)
    api = anyone_but(home)

    # xpoold of the owner is killed and comes back: the agent has gone on, the task is taken up again
    task = api("Async.VM.clean_shutdown", deaf)
    eventually("the owner runs it", lambda: "op=VM.shutdown" in "" or api("VM.get_current_operations", deaf) != {})
    time.sleep(0.3)
    os.kill(pid(pool, home, "xpoold"), signal.SIGKILL)
    time.sleep(0.5)
    assert api("task.get_status", task) == "pending"
    pool.quickstart("start", str(home))
    eventually("the member is back", lambda: pool.status()[home - 1].get("ready") == "yes")
    api("task.cancel", task)
    assert api.wait_task(task)["status"] == "cancelled"
    assert api("VM.get_power_state", deaf) == "Running"

    # the agent is killed: what it ran ends with an error, the domain is as it was
    task = api("Async.VM.clean_shutdown", deaf)
    eventually("locked", lambda: api("VM.get_current_operations", deaf) != {})
    time.sleep(0.3)
    os.kill(pid(pool, home, "agent"), signal.SIGKILL)
    pool.quickstart("start", str(home))
    ended = api.wait_task(task)
    assert ended["status"] == "failure" and ended["error_info"] == ["INTERNAL_ERROR", "agent restarted"], ended
    record = api("VM.get_record", deaf)
    assert record["power_state"] == "Running" and record["current_operations"] == {}, record
    api("VM.hard_reboot", deaf)

    # clients of an agent that go while they wait leave room for others (it has 16)
    now = pool.agent_says(home, "UPDATES.get", **{"from": 0, "timeout_ms": 0})["from"]
    for _ in range(40):
        pool.agent_asked(home, "UPDATES.get", **{"from": now, "timeout_ms": 3600000}).close()
        time.sleep(0.05)  # those at its door at once are clients at once
    assert pool.agent_says(home, "SR.list") is not None

    # both die, the domains live on, and so says the record
    pool.quickstart("kill", str(home))
    eventually("somebody leads", lambda: pool.leader() != home)
    pool.quickstart("start", str(home))
    eventually("the member is back", lambda: pool.status()[home - 1].get("ready") == "yes")
    assert api("VM.get_power_state", deaf) == "Running" and where(deaf) == home
    api("VM.hard_reboot", deaf)

    # the host loses power: its domains are gone, and after its return so says the record
    pool.quickstart("poweroff", str(home))
    pool.leader()
    assert api("VM.get_power_state", deaf) == "Running", "unknown is not halted"
    pool.quickstart("start", str(home))
    eventually("halted", lambda: api("VM.get_power_state", deaf) == "Halted")
    api("VM.start", deaf, False, True)
    api("VM.hard_shutdown", deaf)

    # a frozen coordinator is replaced; thawed, it follows
    leader = pool.leader()
    api = anyone_but(leader)
    pool.quickstart("freeze", str(leader))
    vm = None

    def writes():
        global vm
        try:
            vm = api("VM.create", vm_record("while frozen"), timeout=15)
        except Exception:
            return False
        return True

    eventually("writes without it", writes)
    api("VM.start", vm, False, True)
    assert where(vm) != leader
    pool.quickstart("thaw", str(leader))
    pool.agree()
