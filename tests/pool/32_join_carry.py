"""What a host has of its own goes with it when it joins: a halted and a suspended VM with their snapshot, disks, drives and
interfaces, local SR, networks, secrets, appliance. References and uuids stay; of a network that the pool has there is no second
one. What the pool has already is refused, and so is what one entry does not take: nothing has changed then; a dry run tells both
at once, behind what the checks say. The host is killed at the step where it is let in, and has all of it all the same.

usage: 32_join_carry.py BUILD"""
import os
import subprocess
import sys
import threading

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from joining import CTL, LET_IN, RELAY, Relay, stand_alone
from xpool import NULL, PASSWORD, Api, Pool, eventually, vbd_record, vdi_record, vm_record

CLASSES = "VM", "VDI", "VBD", "VIF", "SR", "PBD", "network", "secret", "VM_appliance", "VM_metrics", "VM_guest_metrics"
# of fields that mean something else in the pool: the host is another row there, and operations were of the other pool
ELSEWHERE = {"affinity", "resident_on", "host", "network", "allowed_operations", "current_operations", "currently_attached",
             "bridge"}
TARGET = "%s:%d" % RELAY


def network(label):
    return {"name_label": label, "name_description": "", "other_config": {"of": "the host"}, "tags": []}


def vif(vm, on, device):
    return {"device": device, "network": on, "VM": vm, "MAC": "", "MTU": 1500, "other_config": {}, "qos_algorithm_type": "",
            "qos_algorithm_params": {}}


def local_sr(pool, host, name="local"):
    return host("SR.create", host("host.get_all")[0], pool.storage("of its own " + name), 0, name, "", "file", "user", False, {})


def dry_run(pool):
    done = subprocess.run([CTL, "join", "--dry-run", "--dir", pool.data(2), "--address", TARGET, "--user", "root"],
                          input=PASSWORD + "\n", text=True, stdout=subprocess.PIPE, timeout=60)
    assert done.returncode != 0, done.stdout
    return done.stdout.splitlines()


def of_set(value):
    return sorted(value) if isinstance(value, list) else value


def all_of(api):
    return {c: api(c + ".get_all_records") for c in CLASSES}


def joined(pool):
    eventually("it has what the pool has", lambda: pool.status()[0].get("hash", "0") == pool.status()[1].get("hash"), timeout=60)


def killed_when_let_in(pool, relay):
    """The pool has made the entry, and the host does not know."""
    done, host = threading.Event(), Api(pool, 2).login()

    def act():
        pool.kill(2, "xpoold")
        done.set()

    def call():
        try:
            host("pool.join", TARGET, "root", PASSWORD)
        except OSError:
            pass
    relay.arm(LET_IN, "answered", act)
    thread = threading.Thread(target=call)
    thread.start()
    assert done.wait(60)
    thread.join()
    pool.quickstart("start", "2")


with Pool(members=1) as pool:
    api, relay = Api(pool, 1).login(), Relay(pool)
    theirs = [api("network.create", network(name)) for name in ("of the pool", "of both")]
    stand_alone(pool, 2)
    host = Api(pool, 2).login()
    host.memory_known()
    ref = host("host.get_all")[0]
    sr = local_sr(pool, host)
    ours = [host("network.create", network(name)) for name in ("of its own", "of both")]
    halted, guest = (host("VM.create", vm_record(name, affinity=ref)) for name in ("halted", "suspended"))
    disks = [host("VDI.create", vdi_record(sr, "disk of " + name)) for name in ("halted", "suspended")]
    for vm, disk in zip((halted, guest), disks):
        host("VBD.create", vbd_record(vm, disk))
    for device, on in enumerate(ours + [host("PIF.get_network", host("PIF.get_all")[0])]):
        host("VIF.create", vif(halted, on, str(device)))
    snapshot = host("VM.snapshot", halted, "snapshot")
    host("VM.set_suspend_SR", guest, sr)
    host("VM.start", guest, False, False)
    host("VM.suspend", guest)
    spare = local_sr(pool, host, "spare")
    secret = host("secret.create", {"value": "a secret: ü\"\\", "other_config": {}})
    appliance = host("VM_appliance.create", {"name_label": "both", "name_description": ""})
    host("VM.set_appliance", halted, appliance)
    host("host.set_suspend_image_sr", ref, sr)
    host("host.add_to_other_config", ref, "rack", "7")
    before, had = all_of(host), all_of(api)

    # in the way: the pool has a VM of this uuid, or an SR
    twin = api("SR.introduce", host("SR.get_uuid", sr), "twin", "", "file", "user", False, {})
    why = host.fails("OPERATION_NOT_ALLOWED", "pool.join", TARGET, "root", PASSWORD)[0]
    assert why.startswith("SR ") and "is in the pool already" in why, why
    # more than one entry takes
    big = host("VM.create", vm_record("big"))
    for key in "12":
        host("VM.add_to_other_config", big, key, "x" * (600 << 10))
    # all at once, by a dry run: a check's, two of these, and what is too much
    second = api("SR.introduce", host("SR.get_uuid", spare), "second", "", "file", "user", False, {})
    host("VM.start", big, False, False)
    said = dry_run(pool)
    assert said[0].startswith("JOINING_HOST_CANNOT_HAVE_RUNNING_VMS"), said
    for word, n in ("SR ", 2), ("VM %s of its own runs" % big[10:], 1), ("what this host has", 1):
        assert sum(line.startswith("OPERATION_NOT_ALLOWED: " + word) for line in said) == n, (word, said)
    host("VM.hard_shutdown", big)
    for each in twin, second:
        api("SR.forget", each)
    assert len(dry_run(pool)) == 1
    assert "1 MiB" in host.fails("OPERATION_NOT_ALLOWED", "pool.join", TARGET, "root", PASSWORD)[0]
    host("VM.destroy", big)
    assert all_of(api) == had and all_of(host) == before
    assert len(api("host.get_all")) == 1

    killed_when_let_in(pool, relay)
    joined(pool)
    api = Api(pool, 2).login()
    after = all_of(api)
    new = [h for h, n in api.members().items() if n == 2][0]
    managed = next(r for r, n in before["network"].items() if r not in ours)
    merged = {ours[1]: theirs[1], managed: api("PIF.get_network", api("PIF.get_all")[0])}
    for name, rows in before.items():
        for row, record in rows.items():
            if row in merged:
                assert row not in after[name], (name, record)
                continue
            for field, value in record.items():
                if field not in ELSEWHERE:
                    assert of_set(after[name][row][field]) == of_set(value), (name, field, value, after[name][row][field])
    assert {r["affinity"] for r in after["VM"].values() if r["name_label"] in ("halted", "suspended")} == {new}
    assert [after["VIF"][v]["network"] for v in sorted(after["VM"][halted]["VIFs"], key=lambda v: after["VIF"][v]["device"])] == [
        ours[0], theirs[1], merged[managed]]
    bridges = [n["bridge"] for n in after["network"].values()]
    assert len(bridges) == len(set(bridges)) == 4, bridges
    assert api("secret.get_value", secret) == "a secret: ü\"\\"
    assert api("host.get_suspend_image_sr", new) == sr and api("host.get_other_config", new)["rack"] == "7"
    assert [r["host"] for r in after["PBD"].values() if r["SR"] == sr] == [new]
    # and they live on
    eventually("its SR is plugged", lambda: all(r["currently_attached"] for r in api("PBD.get_all_records").values()))
    api.memory_known()
    api("VM.resume", guest, False, False)
    api("VM.start", halted, False, False)
    assert [api("VM.get_resident_on", vm) for vm in (guest, halted)] == [new, new]
    api("VM.hard_shutdown", halted)
    api("VM.revert", snapshot)
    api("SR.scan", sr)
    assert api("VDI.get_managed", disks[1])
