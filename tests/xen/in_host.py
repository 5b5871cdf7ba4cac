#!/usr/bin/env python3
"""In the control domain of a real Xen host: one agent with --hv xen and its guests.

usage: in_host.py [PART...]

Their life, with the guest's own words on its console; wrong input; children and agents that are killed; a domain of somebody else.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import time

VM = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
MEMORY_KIB = 96 << 10
LESS_KIB = 88 << 10
SR = "44444444-4444-4444-8444-444444444444"
DISK = "55555555-5555-4555-8555-555555555555"
DIR = "/run/agent"
ROOT = "/root/srs"
LOCATION = ROOT + "/one"
MAC = "00:16:3e:00:00:01"


class Refused(Exception):
    """An error of the agent: its name and parameters."""


def sh(command):
    return subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


def until(what, text, seconds=240):
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, "%s: not within %d s" % (text, seconds)
        time.sleep(0.05)


def refused(word, fn, *args, **params):
    try:
        fn(*args, **params)
    except Refused as e:
        assert word in str(e), (word, str(e))
        return str(e)
    raise AssertionError("not refused: %s" % word)


class Agent:
    """The agent of this host, and questions to it."""

    def __init__(self):
        self.jobs = 0
        self.process = None
        self.socket = None

    def start(self, *options):
        with open("/run/agent.log", "ab") as log:
            self.process = subprocess.Popen(["xpool-agent", "--dir", DIR, "--hv", "xen", "--sr-root", ROOT, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self.answers, "the agent's start")

    def answers(self):
        assert self.process.poll() is None, "the agent has ended"
        try:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(60)
            self.socket.connect(DIR + "/agent.sock")
        except OSError:
            return False
        self.lines = self.socket.makefile("rw")
        return True

    def kill(self):
        self.process.kill()
        self.process.wait()
        until(lambda: not children(), "children end with their agent")

    def call(self, method, **params):
        self.lines.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) + "\n")
        self.lines.flush()
        line = self.lines.readline()
        assert line, "the agent has gone: %s" % method
        reply = json.loads(line)
        if "error" in reply:
            raise Refused(json.dumps(reply["error"]))
        return reply["result"]

    def begin(self, method, **params):
        self.jobs += 1
        job = "33333333-3333-4333-8333-%012d" % self.jobs
        self.call(method, job=job, **params)
        return job

    def end(self, job):
        """Of a task; its error is raised."""
        found = until(lambda: done_task(self.call("TASK.stat", job=job)), job)
        if found["state"] == "failed":
            raise Refused("%s %s" % (found["error"], found["data"]))

    def task(self, method, **params):
        self.end(self.begin(method, **params))

    def state(self, vm=VM):
        return self.call("VM.stat", uuid=vm)


def done_task(found):
    return found if found["state"] != "pending" else None


def children():
    """Processes of the agent that work for a domain."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as handle:
                if pid.isdigit() and handle.read().split(b"\0")[1:2] == [b"--xen"]:
                    found.append(int(pid))
        except OSError:
            pass
    return found


def console(name="one"):
    try:
        with open("/var/log/xen/console/guest-%s.log" % name, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except FileNotFoundError:
        return ""


def says(text, seconds=240):
    """Wait until the guest has said it from here on."""
    return until(lambda: text in console()[HEARD[0]:], "the guest says %s" % text, seconds)


HEARD = [0]  # so much of the console was heard before


def memory_seen():
    """KiB that the guest has, by its last word."""
    return int(console().rsplit("memory_kib=", 1)[1].split()[0])


def forget():
    HEARD[0] = len(console())


def leftovers():
    """Trees of domains in xenstore, and domains."""
    trees = (sh("xenstore-list /local/domain; xenstore-list /xpool/domain 2>/dev/null")).split()
    return [n for n in trees if n.isdigit() and n != "0"] + sh("xl list | tail -n +3").splitlines()


def machine(uuid=VM, **other):
    vm = {"uuid": uuid, "name": "one", "domain_type": "pv", "memory_static_max_kib": MEMORY_KIB, "kernel": "/boot/guest/vmlinux",
          "ramdisk": "/boot/guest/initrd", "kernel_args": "console=hvc0 quiet mitigations=off"}
    vm.update(other)
    return {"vm": {k: v for k, v in vm.items() if v is not None}}


def devices():
    """What the host has for devices of guests: drivers, loop devices, ports of the bridge, nodes of xenstore."""
    loops = [n for n in os.listdir("/sys/block") if n.startswith("loop") and os.path.exists("/sys/block/%s/loop/backing_file" % n)]
    nodes = [n for n in sh("xenstore-ls -f /local/domain/0/backend 2>/dev/null").split() if n.endswith("/frontend-id")]
    return os.listdir("/sys/bus/xen-backend/devices") + loops + os.listdir("/sys/class/net/xenbr0/brif") + nodes


def with_devices(disk=DISK, bridge="xenbr0", **other):
    metadata = machine(**other)
    metadata["vbds"] = [{"id": "xvda", "mode": "RW", "sr": SR, "vdi": disk}]
    metadata["vifs"] = [{"device": 0, "mac": MAC, "bridge": bridge}]
    return metadata


def prepare(a):
    """A bridge, and an SR with a disk."""
    sh("ip link add xenbr0 type bridge; ip addr add 10.77.0.1/24 dev xenbr0; ip link set xenbr0 up")
    a.call("SR.create", sr=SR, type="file", config={"location": LOCATION})
    a.call("SR.attach", sr=SR, type="file", config={"location": LOCATION}, host=OTHER)
    a.call("VDI.create", sr=SR, vdi=DISK, size=8 << 20)
    with open("%s/%s/disk" % (LOCATION, DISK), "r+b") as handle:
        handle.write(b"written by the host\n")


def a_guest_lives(a):
    spare = a.call("HOST.stat")["memory_free_kib"]
    a.call("VM.add", metadata=with_devices())
    forget()
    a.task("VM.start", uuid=VM)
    s = a.state()
    assert s["power_state"] == "Running" and MEMORY_KIB <= s["memory_kib"] <= MEMORY_KIB + 1024, s
    says("GUEST-UP")
    says("GUEST-DISK bytes=%d written by the host" % (8 << 20))
    says("GUEST-DISK written")
    says("GUEST-PING " + MAC)
    given_less(a)
    paused(a)
    domid = a.state()["domid"]
    a.kill()
    a.start()
    s = a.state()
    assert (s["power_state"], s["domid"]) == ("Running", domid), s
    drives(a)
    a.task("VM.shutdown", uuid=VM, timeout_s=60)
    assert a.state()["domid"] == -1 and not leftovers() and not devices(), (leftovers(), devices())
    assert a.call("VDI.stat", sr=SR, vdi=DISK)["holders"] == []
    assert a.call("HOST.stat")["memory_free_kib"] >= spare - 1024, "memory is missing"
    with open("%s/%s/disk" % (LOCATION, DISK), "rb") as handle:
        assert handle.read()[512:].startswith(b"written by the guest")
    print("a guest starts, reads and writes its disk, reaches the bridge, pauses, goes on, outlives its agent, shuts down")


def given_less(a):
    before = memory_seen()
    a.task("VM.set_memory_dynamic_range", uuid=VM, min_kib=LESS_KIB, max_kib=LESS_KIB)
    assert a.state()["memory_kib"] == a.state()["memory_target_kib"] == LESS_KIB, a.state()
    until(lambda: memory_seen() == before - (MEMORY_KIB - LESS_KIB), "the guest sees that it has less")
    a.task("VM.set_memory_dynamic_range", uuid=VM, min_kib=MEMORY_KIB, max_kib=MEMORY_KIB)
    until(lambda: memory_seen() == before, "the guest sees that it has more")


def paused(a):
    a.task("VM.pause", uuid=VM)
    assert a.state()["power_state"] == "Paused"
    time.sleep(1)  # what it has said before arrives
    beats = console().count("GUEST-BEAT")
    time.sleep(3)
    assert console().count("GUEST-BEAT") == beats, "a paused guest goes on"
    a.task("VM.unpause", uuid=VM)
    until(lambda: console().count("GUEST-BEAT") > beats, "it goes on")


def drives(a):
    """A disk is for one guest; it is unplugged and plugged while the guest runs."""
    refused("disk_in_use", a.call, "VDI.destroy", sr=SR, vdi=DISK)
    a.call("VM.add", metadata=dict(with_devices(uuid=OTHER), vifs=[]))
    refused("disk_in_use", a.task, "VM.start", uuid=OTHER)
    assert a.call("VDI.stat", sr=SR, vdi=DISK)["holders"][0]["vm"] == VM
    a.task("VBD.unplug", uuid=VM, id="xvda")
    assert a.call("VDI.stat", sr=SR, vdi=DISK)["holders"] == []
    a.task("VBD.plug", uuid=VM, vbd={"id": "xvda", "mode": "RO", "sr": SR, "vdi": DISK})
    state = "/local/domain/0/backend/vbd/%d/51712/state" % a.state()["domid"]
    until(lambda: sh("xenstore-read %s" % state).strip() == "4", "the guest takes it")


def an_agent_dies_with_devices(a):
    """The start of a guest with devices: whole or nothing; destroyed without its consent, nothing stays."""
    a.call("VM.add", metadata=with_devices())
    job = a.begin("VM.start", uuid=VM)
    until(lambda: devices() or a.call("TASK.stat", job=job)["state"] != "pending", "a device")
    a.kill()
    a.start()
    until(lambda: not leftovers() or a.state()["power_state"] == "Running", "nothing half made")
    if not leftovers():
        until(lambda: not devices(), "no device without a domain")
        a.task("VM.start", uuid=VM)
    assert len([d for d in devices() if d.startswith("loop")]) == 1, devices()
    a.task("VM.shutdown", uuid=VM)
    assert not leftovers() and not devices(), (leftovers(), devices())
    assert a.call("VDI.stat", sr=SR, vdi=DISK)["holders"] == []
    print("an agent that dies leaves no device behind")


def a_pvh_guest_lives(a):
    a.call("VM.add", metadata=machine(domain_type="pvh", memory_static_max_kib=128 << 10, vcpus_max=2, vcpus=2,
                                         kernel_args="console=hvc0 quiet mitigations=off maxcpus=1"))  # its init starts the second
    forget()
    a.task("VM.start", uuid=VM)
    says("cpus=0-1")
    says("GUEST-BEAT 2 ")
    a.task("VM.shutdown", uuid=VM, timeout_s=60)
    assert a.state()["domid"] == -1 and not leftovers(), leftovers()
    print("a PVH guest has two processors, counts, shuts down")


def an_agent_dies_in_a_start(a):
    """At several moments of it: then there is a whole guest or nothing."""
    a.call("VM.add", metadata=machine())
    for moment in ("begun", "child", "built"):
        a.begin("VM.start", uuid=VM)
        if moment == "child":
            until(children, "the builder")
        elif moment == "built":
            until(children, "the builder")
            until(lambda: not children(), "its end")
        a.kill()
        left = leftovers()
        a.start()
        until(lambda: not leftovers() or a.state()["power_state"] == "Running", "nothing half made")
        if leftovers():
            a.task("VM.shutdown", uuid=VM)
        assert a.state()["domid"] == -1 and not leftovers()
        print("agent killed, %s: %d there" % (moment, len(left)))
    with open("/run/agent.log", encoding="utf-8") as log:
        assert "event=half_made" in log.read(), "no start was hit in its middle"


def a_child_dies(a):
    """Killed, crashed or hanging it is an error of its start; the agent is not concerned."""
    a.call("VM.add", metadata=machine())
    for number, word in ((signal.SIGSEGV, "signal 11"), (signal.SIGKILL, "signal 9"), (signal.SIGSTOP, "did not end within 12 s")):
        if number == signal.SIGSTOP:
            a.kill()
            a.start("--xen-limit", "12")
        job = a.begin("VM.start", uuid=VM)
        child = until(children, "the builder")[0]
        if number == signal.SIGSTOP:
            until(lambda: status(child)["NoNewPrivs"] == "1", "privileges are given up")
        os.kill(child, number)
        if number == signal.SIGSTOP:
            privileges(child)
        assert "domain_failed" in refused(word, a.end, job)
        assert not children() and not leftovers() and a.state()["domid"] == -1
        assert a.process.poll() is None
    a.kill()
    a.start()
    print("a builder that crashes, is killed or hangs is an error of its start")


def status(child):
    with open("/proc/%d/status" % child, encoding="ascii") as handle:
        return dict(line.rstrip("\n").split(":\t", 1) for line in handle if ":\t" in line)


def privileges(child):
    """What it has of them once it works."""
    found = status(child)
    assert found["Uid"].split() == found["Gid"].split() == ["65534"] * 4, found
    assert found["Groups"].strip() == "" and int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0, found
    assert os.readlink("/proc/%d/ns/net" % child) != os.readlink("/proc/self/ns/net")


def a_stranger_is_left_alone(a):
    """A domain made by xl, even with the uuid of a VM of ours."""
    with open("/root/xl.cfg", "w", encoding="ascii") as handle:
        handle.write('name="stranger"\ntype="pv"\nuuid="%s"\nmemory=96\nkernel="/boot/guest/vmlinux"\n' % OTHER)
    sh("xl create -q -p /root/xl.cfg")
    a.call("VM.add", metadata=machine(OTHER))
    a.kill()
    a.start()
    assert a.call("HOST.stat")["domains"] == 0 and a.state(OTHER)["power_state"] == "Halted"
    refused("somebody else", a.task, "VM.start", uuid=OTHER)
    a.task("VM.shutdown", uuid=OTHER)
    time.sleep(2)  # the agent looks twice a second
    assert "--p---" in sh("xl list stranger"), "it is not as it was"
    sh("xl destroy stranger")
    until(lambda: not leftovers(), "the stranger is gone")
    print("a domain of somebody else is left alone")


def wrong_input(a):
    for word, change in (("no kernel", {"kernel": None}), ("no file", {"kernel": "/boot/guest/none"}), ("below", {"kernel": "/etc/passwd"}),
                         ("no kernel of a PV guest", {"kernel": "/boot/guest/initrd"}), ("unimplemented", {"domain_type": "hvm"}),
                         ("no kernel of a PVH guest", {"kernel": "/boot/guest/initrd", "domain_type": "pvh"}),
                         ("no_free_memory", {"memory_static_max_kib": 4 << 20}), ("fit", {"memory_static_max_kib": 16 << 10})):
        a.call("VM.add", metadata=machine(OTHER, **change))
        refused(word, a.task, "VM.start", uuid=OTHER)
        assert not leftovers(), word
    for bad, word in (({"bridge": "nobridge"}, "nobridge"), ({"disk": OTHER}, "does_not_exist")):
        a.call("VM.add", metadata=with_devices(uuid=OTHER, **bad))
        refused(word, a.task, "VM.start", uuid=OTHER)
        assert not leftovers() and not devices(), devices()
    refused("unimplemented", a.call, "HOST.shutdown")
    print("what is wrong or cannot be is refused, and nothing stays")


PARTS = (a_guest_lives, an_agent_dies_with_devices, an_agent_dies_in_a_start, a_child_dies, wrong_input,
         a_stranger_is_left_alone, a_pvh_guest_lives)


def main():
    a = Agent()
    os.makedirs(DIR, exist_ok=True)
    os.makedirs(ROOT, exist_ok=True)
    try:
        a.start()
        stat = a.call("HOST.stat")
        assert stat["hypervisor"] == "xen" and stat["cpu"]["cpus"] == 1 and "-" in stat["cpu"]["features"], stat
        prepare(a)
        for part in PARTS:
            if len(sys.argv) > 1 and part.__name__ not in sys.argv[1:]:
                continue
            began = time.monotonic()
            part(a)
            print("  %.1f s" % (time.monotonic() - began))
    except BaseException:
        print(sh("tail -n 40 /run/agent.log; xl list; xenstore-ls -f /local/domain | grep -v ^/local/domain/0 | head -60; dmesg | tail -n 20"),
              "\n".join([line for line in console().splitlines() if "GUEST-BEAT" not in line][-40:]))
        raise
    return 0


sys.exit(main())
