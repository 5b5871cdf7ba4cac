"""1,000 mixed Async calls through all members while one member at a time is killed, frozen or powered off at random moments: every
task ends, no lock stays without an owner, no acknowledged change is lost, no guest runs twice, records say what is really there."""
import os
import random
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from twice import Twice
from xpool import NULL, Api, ApiError, Pool, eventually, vbd_record, vdi_record, vif_record, vm_record

CALLS, CALLERS, WRITERS, VMS, SEED = 1000, 8, 2, 24, int(os.environ.get("SEED", "1"))
LIVE = {"live": "true"}
LOCKED = ("VM", "host", "pool", "VBD", "VIF", "VDI", "SR", "network", "VM_appliance", "task")  # what has current_operations, and is used here
# what an operation may answer for; anything else is a fault of ours
EXPECTED = {"VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS", "HOST_OFFLINE", "HOST_NOT_LIVE", "TASK_CANCELLED", "OPERATION_NOT_ALLOWED",
            "HOST_NOT_ENOUGH_FREE_MEMORY", "NO_HOSTS_AVAILABLE", "INTERNAL_ERROR", "VM_MIGRATE_FAILED", "VM_SHUTDOWN_TIMEOUT",
            "VM_CRASHED", "VM_HALTED", "VM_REBOOTED", "CANNOT_CONTACT_HOST", "HANDLE_INVALID", "DOMAIN_EXISTS", "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT",
            "HOST_CANNOT_BE_REACHED", "VM_LACKS_FEATURE", "SESSION_INVALID", "VM_HOST_INCOMPATIBLE_VERSION_MIGRATE",
            "SR_NOT_ATTACHED",  # of a host that has just come back
            "DEVICE_ALREADY_ATTACHED", "DEVICE_ALREADY_DETACHED", "VM_MISSING_PV_DRIVERS", "HOST_DISABLED", "CANNOT_EVACUATE_HOST"}
# what is the pool's own word about a host or an agent that went: the only INTERNAL_ERROR that is right here
OF_A_LOSS = ("agent restarted", "the agent", "domain is gone")


def operations(rng, hosts, state):
    """Mostly one that fits the state; now and then any. A method of VM, its first argument left out."""
    host = rng.choice(hosts)
    fit = {"Halted": [("start", False, False), ("start_on", host, False, False), ("snapshot", "s", []), ("revert",), ("clone",)],
           "Running": [("hard_shutdown",), ("clean_shutdown",), ("hard_reboot",), ("clean_reboot",), ("pause",), ("suspend",),
                       ("pool_migrate", host, LIVE), ("pool_migrate", host, LIVE), ("checkpoint", "c"), ("revert",), ("VBD",), ("VIF",)],
           "Paused": [("unpause",), ("unpause",), ("hard_shutdown",)],
           "Suspended": [("resume", False, False), ("resume_on", host, False, False), ("hard_shutdown",), ("revert",)]}
    return rng.choice(fit[state if rng.random() < 0.9 else rng.choice(list(fit))])


def meant(api, rng, vm, name, rest):
    """The call: method, object, arguments. What an operation makes goes again by the next of its kind, so that it stays few."""
    if name in ("VBD", "VIF"):
        device = next(iter(api("VM.get_%ss" % name, vm, timeout=10)), NULL)
        return name + rng.choice([".plug", ".unplug"]), device, []
    if name == "clone":
        label = "clone of " + api("VM.get_uuid", vm, timeout=10)
        there = api("VM.get_by_name_label", label, timeout=10)
        return ("VM.destroy", there[0], []) if there else ("VM.clone", vm, [label])
    if name == "revert":
        of = rng.choice(api("VM.get_snapshots", vm, timeout=10) or [NULL])
        if of == NULL:
            return "VM.snapshot", vm, ["s", []]
        return rng.choice(["VM.revert", "VM.destroy"]), of, []
    return "VM." + name, vm, rest


class Run:
    def __init__(self, pool):
        self.pool, self.lock, self.rng = pool, threading.Lock(), random.Random(SEED)
        api = Api(pool, 1).login()
        self.session, self.hosts = api.session, api("host.get_all")
        api("pool.add_to_other_config", api("pool.get_all")[0], "xpool-tasks-max", "20000")  # all ends are looked at, afterwards
        api.memory_known()
        sr = pool.make_sr(api)
        self.vms = [api("VM.create", vm_record("any%d" % n, suspend_SR=sr)) for n in range(VMS)]
        self.written = [api("VM.create", vm_record("written%d" % n)) for n in range(WRITERS)]  # a revert would take it back
        network = api("network.get_all")[0]
        for vm in self.vms[::2]:
            api("VBD.create", vbd_record(vm, api("VDI.create", vdi_record(sr)), "0", bootable=True))
        for vm in self.vms[::3]:
            api("VIF.create", vif_record(vm, network, "0"))
        self.away, self.made, self.tasks, self.acked, self.odd = set(), 0, {}, set(), []
        self.seen, self.calls = {}, {}  # how each task was last; how many there were of each method

    def pick(self):
        """A member that is there, as far as known."""
        with self.lock:
            return self.rng.choice([m for m in range(1, self.pool.n + 1) if m not in self.away])

    def next_call(self):
        with self.lock:
            if self.made == CALLS:
                return None
            self.made += 1
            return self.rng.choice(self.vms), self.rng.getrandbits(32)

    def caller(self):
        while True:
            call = self.next_call()
            if call is None:
                return
            vm, seed = call
            api, name = Api(self.pool, self.pick(), self.session), "get_power_state"
            try:
                rng = random.Random(seed)
                name, *rest = operations(rng, self.hosts, api("VM.get_power_state", vm, timeout=10))
                name, of, rest = meant(api, rng, vm, name, rest)
                if rng.random() < 0.01:
                    name, of, rest = "host.evacuate", rng.choice(self.hosts), []
                elif rng.random() < 0.05:
                    name, of, rest = "host.enable", rng.choice(self.hosts), []
                task = api("Async." + name, of, *rest, timeout=25)
                with self.lock:
                    self.tasks[task] = name, vm
                    self.calls[name] = self.calls.get(name, 0) + 1
                # until it has ended, or for a moment, so that calls meet each other's locks
                until = time.time() + self.rng.random()
                while time.time() < until and api("task.get_status", task, timeout=10) == "pending":
                    time.sleep(0.02)
            except ApiError as fault:
                if fault.code not in EXPECTED and fault.code != "HOST_IN_EMERGENCY_MODE":
                    self.odd.append((name, fault.args))
            except OSError:
                time.sleep(0.1)  # the member is away

    def writer(self, number):
        count = 0
        while self.made < CALLS:
            key, count = "any-%d-%d" % (number, count), count + 1
            try:
                Api(self.pool, self.pick(), self.session)("VM.add_to_other_config", self.written[number], key, "", timeout=25)
                self.acked.add((self.written[number], key))
            except (ApiError, OSError):
                pass
            time.sleep(0.05)

    def look(self):
        """How the tasks are."""
        api = Api(self.pool, self.pick(), self.session)
        self.seen.update({ref: task["status"] for ref, task in api("task.get_all_records", timeout=10).items()})

    def follower(self):
        while self.made < CALLS:
            try:
                self.look()
            except (ApiError, OSError):
                pass
            time.sleep(2)

    def losses(self):
        pool, lost = self.pool, []
        while self.made < CALLS:
            time.sleep(1 + 2 * self.rng.random())
            member, how = self.rng.randint(1, pool.n), self.rng.choice(["kill", "freeze", "poweroff"])
            with self.lock:
                self.away.add(member)
            pool.quickstart(how, str(member))
            time.sleep(0.5 + 3 * self.rng.random())
            pool.quickstart("thaw" if how == "freeze" else "start", str(member))
            eventually("member %d is back after %s" % (member, how), lambda: pool.status()[member - 1].get("ready") == "yes", 60)
            with self.lock:
                self.away.discard(member)
            lost.append(how)
        self.lost = lost


def settled(run, api):
    """Every task ends, and with it its locks."""
    pending = lambda: {t for t, r in api("task.get_all_records").items() if r["status"] == "pending"}
    until = time.time() + 150
    while pending():
        assert time.time() < until, [api("task.get_record", t) for t in pending()]
        time.sleep(0.5)
    run.look()
    locked = lambda: [(c, r["uuid"], r["current_operations"]) for c in LOCKED for r in api(c + ".get_all_records").values()
                      if r["current_operations"]]
    until = time.time() + 60
    while locked():
        assert time.time() < until, "\n".join(["%s %s %s" % (*one, {task: run.tasks.get(task) for task in one[2]}) for one in locked()])
        time.sleep(0.5)


def story(run, api, vm):
    """What happened to a VM, by all tasks and all logs."""
    uuid = api("VM.get_uuid", vm)
    lines = ["%s (%s)" % (line, name) for name, text in run.pool.logs() for line in text.splitlines() if uuid in line]
    return "\n".join([""] + sorted(lines)[-60:] + [""])


def ends(run, api):
    """How many of each end; an end that is none of the pool's words is a fault, and so is a task that goes before its end."""
    ended, gone = {}, 0
    for task, (name, vm) in run.tasks.items():
        try:
            status, info = api("task.get_status", task), api("task.get_error_info", task)
        except ApiError:
            assert run.seen.get(task) not in (None, "pending"), "a task that was answered is gone: %s %s" % (name, story(run, api, vm))
            gone += 1
            continue
        ended[status] = ended.get(status, 0) + 1
        if status == "failure" and (info[0] not in EXPECTED or (info[0] == "INTERNAL_ERROR" and not any(w in " ".join(info) for w in OF_A_LOSS))):
            run.odd.append((name, info, story(run, api, vm)))
    return ended, gone


def reality(pool, api, twice):
    """Each record says what the hypervisors have."""
    host = {h["address"]: ref for ref, h in api("host.get_all_records").items()}
    there = {}
    for path in twice.paths:
        member = int(path.split("/member")[-1].split("/")[0])
        for uuid in twice.all(path):
            assert uuid not in there, "%s has domains on members %s" % (uuid, (there[uuid], member))
            there[uuid] = member
    for vm in api("VM.get_all_records").values():
        has = there.get(vm["uuid"])
        if vm["power_state"] in ("Running", "Paused"):
            assert has and host[pool.address(has)] == vm["resident_on"], (vm["name_label"], vm["power_state"], has)
        elif not vm["is_a_template"]:
            assert not has, (vm["name_label"], vm["power_state"], has)


def disks(pool, api):
    """Each record has its disk, and each VM or snapshot that is suspended its image."""
    records = {v["uuid"]: v for v in api("VDI.get_all_records").values()}
    there = {name for name in os.listdir(pool.storage("shared")["location"]) if len(name) == 36}
    assert set(records) <= there, [records[uuid] for uuid in set(records) - there]
    for vm in api("VM.get_all_records").values():
        assert vm["power_state"] != "Suspended" or api("VDI.get_type", vm["suspend_VDI"]) == "suspend", vm
    return len(there - set(records))


with Pool() as pool:
    run = Run(pool)
    twice = Twice(pool.dir)
    twice.start()
    threads = [threading.Thread(target=run.caller, daemon=True) for _ in range(CALLERS)]
    threads += [threading.Thread(target=run.writer, args=(n,), daemon=True) for n in range(WRITERS)]
    threads.append(threading.Thread(target=run.follower, daemon=True))
    loser = threading.Thread(target=run.losses, daemon=True)
    began = time.time()
    for thread in threads + [loser]:
        thread.start()
    for thread in threads + [loser]:
        thread.join(400)
        assert not thread.is_alive(), "a client hangs: %d calls made" % run.made
    api = Api(pool, 1, run.session)
    settled(run, api)
    ended, gone = ends(run, api)
    print("%d calls in %.0f s, %d tasks: %s, %d rows gone; %d members lost: %s; %d writes acknowledged; %d looks"
          % (run.made, time.time() - began, len(run.tasks), ended, gone, len(run.lost), sorted(run.lost), len(run.acked), twice.looks))
    lost = [(vm, key) for vm, key in run.acked if key not in api("VM.get_other_config", vm)]
    assert not lost, lost
    eventually("records follow", lambda: all(r["power_state"] in ("Halted", "Running", "Paused", "Suspended") for r in api("VM.get_all_records").values()))
    twice.stop = True
    assert not twice.found, twice.found
    reality(pool, api, twice)
    left = disks(pool, api)
    print("%d disks, %d without a record; %s" % (len(api("VDI.get_all")), left, run.calls))
    assert len(run.lost) >= 3 and ended.get("success", 0) > 100, (run.lost, ended)
    assert not run.odd, "\n".join(" ".join(map(str, odd)) for odd in run.odd[:3])
    pool.agree()
    pool.check()
