"""A full disk: the member leads no more, then ends itself; the others go on; with room it is back. Two full disks: no write is lost."""
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

SIZE_MIB, LOW_MIB, STOP_MIB = 112, 50, 20
if "XPOOL_MOUNTS" not in os.environ:  # a mount namespace of its own, so that nothing stays behind
    os.environ["XPOOL_MOUNTS"] = "private"
    os.execvp("unshare", ["unshare", "--mount", sys.executable, "-B"] + sys.argv)


class Disks(Pool):
    """Each member's data on a small file system of its own."""

    def up(self):
        super().up()
        self.quickstart("down")
        for member in range(1, self.n + 1):
            data = self.data(member)
            os.rename(data, data + ".first")
            os.mkdir(data)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % SIZE_MIB, "tmpfs", data], check=True)
            subprocess.run(["cp", "-a", data + ".first/.", data], check=True)
            shutil.chown(data, "nobody", "nogroup")
        return super().up()

    def free_mib(self, member):
        disk = os.statvfs(self.data(member))
        return disk.f_bavail * disk.f_frsize >> 20

    def fill(self, member, leave_mib):
        with open(os.path.join(self.data(member), "ballast"), "ab") as handle:
            os.posix_fallocate(handle.fileno(), 0, handle.tell() + (self.free_mib(member) - leave_mib << 20))

    def empty(self, member):
        os.remove(os.path.join(self.data(member), "ballast"))

    def log(self, member):
        with open(os.path.join(self.dir, "member%d" % member, "xpoold.log"), errors="replace") as handle:
            return handle.read()

    def running(self, member):
        return self.status()[member - 1] != {}

    def close(self):
        for member in range(1, self.n + 1):
            self.quickstart("kill", str(member))
            # a killed process lets go of its files a moment later
            eventually("unmounted", lambda: subprocess.run(["umount", self.data(member)], stderr=subprocess.DEVNULL).returncode == 0)
        super().close()


def write(api, vm, text):
    api("VM.set_name_description", vm, text)
    return text


with Disks() as pool:
    first = pool.leader()
    api = Api(pool, first).login()
    vm = api("VM.create", vm_record("full"))
    pool.fill(first, LOW_MIB)
    eventually("another one leads", lambda: pool.leader() != first)
    assert "event=disk_space level=low" in pool.log(first)
    written = write(api, vm, "through the full one")
    pool.agree()  # it follows as before
    pool.fill(first, STOP_MIB)
    eventually("it ends itself", lambda: not pool.running(first))
    assert "make room there: no space left on the disk" in pool.log(first), pool.log(first)[-600:]
    second = pool.leader()
    third = 6 - first - second
    api = Api(pool, second, api.session)
    written = write(api, vm, "without it")

    # it does not start as it is
    pool.quickstart("start", str(first))
    eventually("it says why", lambda: "event=disk_full" in pool.log(first))
    assert "remedy=" in pool.log(first).split("event=disk_full")[1].splitlines()[0]

    # a second one: nothing can be written any more, what was written is read, and nothing is lost
    pool.fill(second, STOP_MIB)
    eventually("the second one ends itself", lambda: not pool.running(second))
    api = Api(pool, third, api.session)
    began = time.time()
    api.fails("HOST_IN_EMERGENCY_MODE", "VM.set_name_description", vm, "nobody has acknowledged this")
    assert time.time() - began < 10.5
    pool.empty(first)
    pool.empty(second)
    pool.quickstart("start", str(first))
    pool.quickstart("start", str(second))
    pool.leader()
    pool.agree()
    for member in (1, 2, 3):
        seen = Api(pool, member, api.session)("VM.get_name_description", vm)
        assert seen in (written, "nobody has acknowledged this"), seen
