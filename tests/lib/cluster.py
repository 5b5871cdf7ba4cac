"""A pool whose members have each a network, a disk and a clock of their own, so that one can be cut off, filled, or set wrong.

Run by tests/lib/netns.sh: all of it is in that namespace and ends with it. The members hang on a bridge; this side is there too,
as member 0. A link is cut by giving the sender a wrong hardware address of the receiver, so a cut is silent, in one direction,
and needs no firewall. Standard library only.
"""
import errno
import os
import shutil
import struct
import subprocess
import sys

import power
from xpool import Pool, eventually

NETWORK = "10.77.0"
NOBODY = "02:00:00:00:ff:ff"
DISK_MIB = 512


def run(*command):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, "%s: %s" % (" ".join(command), done.stdout)


class Cluster(Pool):
    def __init__(self, members=3, disk_mib=DISK_MIB, **more):
        super().__init__(members=members, **more)
        self.disk_mib, self.taken = disk_mib, [0, 0, 0, 0]  # by power cuts: see power.py
        self.everybody = list(range(members + 1))
        preload = [os.path.join(sys.argv[1], "tests", "lib%s.so" % name) for name in ("stepped_clock", "faulty_disk")]
        self.env.update(XPOOL_NETWORK=NETWORK, XPOOL_WITHIN="nsenter --net=%s/nets/" % self.dir, LD_PRELOAD=" ".join(preload),
                        XPOOL_CLOCK="clock", XPOOL_DISK="unsynced",
                        XPOOL_DISK_JOURNALS=self.journals())

    def address(self, member):
        return "%s.%d" % (NETWORK, 10 + member)

    def home(self, member):
        return os.path.join(self.dir, "member%d" % member)

    def journals(self):
        return os.path.join(self.dir, "journals")

    def net(self, member):
        return os.path.join(self.dir, "nets", str(member))

    def up(self):
        os.mkdir(os.path.join(self.dir, "nets"))
        os.mkdir(self.journals())
        os.chmod(self.journals(), 0o1777)  # two users
        run("ip", "link", "add", "bridge", "address", self.hardware(0), "type", "bridge")
        run("ip", "addr", "add", self.address(0) + "/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        for member in self.everybody[1:]:
            self.make_net(member)
            os.mkdir(self.home(member))
            run("mount", "-t", "tmpfs", "-o", "size=%dm" % self.disk_mib, "tmpfs", self.home(member))
            self.step(member, 0)
        self.heal()
        return super().up()

    def make_net(self, member):
        net, port = self.net(member), "port%d" % member
        open(net, "w").close()
        run("unshare", "--net=" + net, "true")
        run("ip", "link", "add", port, "type", "veth", "peer", "name", "wire", "address", self.hardware(member), "netns", net)
        run("ip", "link", "set", port, "master", "bridge", "up")
        inside = ["nsenter", "--net=" + net, "ip"]
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "addr", "add", self.address(member) + "/24", "dev", "wire")
        run(*inside, "link", "set", "wire", "up")

    @staticmethod
    def hardware(member):
        return "02:00:00:00:00:%02x" % member

    def link(self, sender, receiver, hardware):
        within = ["nsenter", "--net=" + self.net(sender)] if sender else []
        run(*within, "ip", "neigh", "replace", self.address(receiver), "lladdr", hardware, "dev", "wire" if sender else "bridge",
            "nud", "permanent")

    def cut(self, sender, receiver):
        """Nothing of what this member sends to that one arrives."""
        self.link(sender, receiver, NOBODY)

    def heal(self):
        for sender in self.everybody:
            for receiver in self.everybody:
                if sender != receiver:
                    self.link(sender, receiver, self.hardware(receiver))

    def step(self, member, seconds):
        """The clock of that member, against the true one."""
        path = os.path.join(self.home(member), "clock")
        with open(path, "r+b" if os.path.exists(path) else "wb") as handle:
            handle.write(struct.pack("=q", seconds))

    def free_mib(self, member):
        disk = os.statvfs(self.home(member))
        return disk.f_bavail * disk.f_frsize >> 20

    def fill(self, member, leave_mib):
        """Others write there meanwhile, so it is tried until it has worked."""
        with open(os.path.join(self.home(member), "ballast"), "ab") as handle:
            while self.free_mib(member) > leave_mib:
                try:
                    os.posix_fallocate(handle.fileno(), 0, handle.seek(0, os.SEEK_END) + (self.free_mib(member) - leave_mib << 20))
                except OSError as reason:
                    if reason.errno != errno.ENOSPC:
                        raise

    def empty(self, member):
        path = os.path.join(self.home(member), "ballast")
        if os.path.exists(path):
            os.remove(path)

    def power_off(self, member, rng):
        """What runs there is gone, its domains too, and of what is not on stable storage as much as chance has it."""
        self.quickstart("kill", str(member))
        lost = power.cut(self.home(member), os.path.join(self.home(member), "unsynced"), self.journals(), rng)
        self.taken = [a + b for a, b in zip(self.taken, lost)]
        for name in os.listdir(os.path.join(self.home(member), "agent")):
            if name.startswith("domains.db"):
                os.remove(os.path.join(self.home(member), "agent", name))

    def blackout(self, rng):
        for member in self.everybody[1:]:
            self.quickstart("kill", str(member))
        for member in self.everybody[1:]:
            self.power_off(member, rng)

    def start(self, member):
        """Ended by itself or by us: it is there again when this returns."""
        self.quickstart("start", str(member))

    def ready(self, *members):
        members = members or self.everybody[1:]
        eventually("members %s serve" % (members,), lambda: all(
            line.get("ready") == "yes" for n, line in enumerate(self.status(), 1) if n in members), timeout=90)

    def remove(self):
        subprocess.run(["ip", "link", "del", "bridge"], stderr=subprocess.DEVNULL)
        for member in self.everybody[1:]:
            subprocess.run(["ip", "link", "del", "port%d" % member], stderr=subprocess.DEVNULL)
            for path in (self.home(member), self.net(member)):
                if os.path.ismount(path) or os.path.isfile(path):
                    subprocess.run(["umount", "--lazy", path], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.dir)
