"""Machines that reboot, go off and come back: when they may, what the pool shows meanwhile, and who is enabled again."""
import os
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from xpool import Api, Pool, eventually, gone, vm_record


def starts(pool, member, program):
    """Boot ids of the agent, starts of xpoold, or its contacts with the agent, in order."""
    log, event = {"agent": ("agent.log", r"event=agent_started boot_id=(\S+)"), "xpoold": ("xpoold.log", r"event=started (\S+)"),
                  "contact": ("xpoold.log", r"event=agent_connected (\S+)")}[program]
    with open(os.path.join(pool.dir, "member%d" % member, log)) as handle:
        return re.findall(event, handle.read())


def others(number):
    """A signal to the members that are not n."""
    for m in (1, 2, 3):
        if m != n:
            pool.signal(m, "xpoold", number)


with Pool(options="--snapshot-entries 60") as pool:
    n = pool.leader()  # whose machine it is about
    by = 1 + n % 3
    api = Api(pool, by).login()
    third = Api(pool, 1 + by % 3, api.session)
    hosts = {api("host.get_address", h): h for h in api("host.get_all")}
    host = hosts[pool.address(n)]
    vm = api("VM.create", vm_record("guest"))

    assert api.fails("HOST_NOT_DISABLED", "host.reboot", host) == []
    assert api.fails("HOST_NOT_DISABLED", "host.shutdown", host) == []
    api("VM.start_on", vm, host, False, False)
    api("host.disable", host)
    assert third.fails("HOST_HAS_RESIDENT_VMS", "host.reboot", host) == [host]

    # the program that manages the host begins anew; its domains live on
    domid = api("VM.get_domid", vm)
    api("host.restart_agent", host)
    eventually("xpoold is back", lambda: len(starts(pool, n, "xpoold")) == 2 and pool.status()[n - 1].get("ready") == "yes")
    assert len(starts(pool, n, "agent")) == 1
    assert api("VM.get_domid", vm) == domid and api("VM.get_power_state", vm) == "Running"
    assert not api("host.get_enabled", host)
    api("VM.hard_shutdown", vm)

    # the coordinator's own machine: the lead goes elsewhere, the task has ended, the machine comes back with another boot id
    api("pool.designate_new_master", host)
    eventually("it leads", lambda: pool.status()[n - 1].get("role") == "leader-ready")
    assert third.wait_task(third("Async.host.reboot", host))["status"] == "success"
    eventually("it has rebooted", lambda: len(set(starts(pool, n, "agent"))) == 2)
    eventually("it is back", lambda: pool.status()[n - 1].get("ready") == "yes")
    eventually("enabled again", lambda: api("host.get_enabled", host))
    assert api("host.get_current_operations", host) == {}
    api("VM.start_on", vm, host, False, False)
    api("VM.hard_shutdown", vm)

    # disabled to stay so
    api("host.disable", host, False)
    api("host.reboot", host)
    eventually("it has rebooted", lambda: len(set(starts(pool, n, "agent"))) == 3)
    eventually("it is back", lambda: pool.status()[n - 1].get("ready") == "yes")
    eventually("its boot is known", lambda: pool.ctl(by, "sql", "SELECT incarnation FROM _member WHERE host = '%s'" % host).find(
        starts(pool, n, "agent")[-1]) >= 0)
    assert not api("host.get_enabled", host)
    assert api.fails("HOST_DISABLED", "VM.start_on", vm, host, False, False) == [host]

    # off, and on again; the agent is off before the end of the task is on a majority's disks
    api("host.enable", host)
    api("host.disable", host)
    pids = {}
    for program in ("agent", "xpoold"):
        with open(os.path.join(pool.dir, "member%d" % n, program + ".pid")) as handle:
            pids[program] = int(handle.read().split()[0])
    pool.signal(n, "agent", signal.SIGSTOP)
    task = api("Async.host.shutdown", host)
    eventually("it is under way", lambda: api("host.get_current_operations", host) != {})
    time.sleep(0.3)  # the agent is asked
    others(signal.SIGSTOP)
    pool.signal(n, "agent", signal.SIGCONT)
    eventually("agent is off", lambda: gone(pids["agent"]))
    others(signal.SIGCONT)
    eventually("xpoold is off", lambda: gone(pids["xpoold"]))
    assert third.wait_task(task)["status"] == "success"
    pool.quickstart("start", str(n))
    eventually("enabled again", lambda: api("host.get_enabled", host))
    assert len(set(starts(pool, n, "agent"))) == 4
    api("VM.start_on", vm, host, False, False)
    api("VM.hard_shutdown", vm)

    # a snapshot in which it is enabled is all that it knows when its agent is there: that decides nothing
    taken = lambda: pool.counters(n)["snapshots_taken"]
    before = taken()
    while taken() == before:
        api("VM.set_name_description", vm, str(time.time()))
    api("host.disable", host)
    pool.quickstart("poweroff", str(n))
    contacts = starts(pool, n, "contact")
    others(signal.SIGSTOP)
    pool.quickstart("start", str(n))
    eventually("its agent is there", lambda: starts(pool, n, "contact") != contacts)
    time.sleep(0.5)  # for what would be wrong
    others(signal.SIGCONT)
    eventually("enabled again", lambda: api("host.get_enabled", host))
    api("VM.start_on", vm, host, False, False)
    pool.check()
    pool.agree()
