"""After a forced recovery one member votes. When the others have adopted its epoch and fetched everything they vote again: the
pool goes on without the one that was recovered."""
import fcntl
import os
import subprocess
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

CTL = os.path.join(sys.argv[1], "xpoolctl")


def ctl(*command):
    done = subprocess.run([CTL, *command], text=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, (command, done.stdout)


def kill(pool, member):
    pool.quickstart("kill", str(member))
    with open(os.path.join(pool.data(member), "lock")) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # its last thread has ended


with Pool() as pool:
    api = Api(pool, 3).login()
    vm = api("VM.create", vm_record("before"))
    pool.agree()
    time.sleep(1.5)  # noted once a second
    for member in (1, 2, 3):
        kill(pool, member)
    ctl("recover", "--dir", pool.data(3), "--yes")
    pool.quickstart("start", "3")
    assert pool.leader() == 3
    for member in (1, 2):
        ctl("adopt", "--dir", pool.data(member), "--members", os.path.join(pool.data(3), "members.json"), "--yes")
        pool.quickstart("start", str(member))
    eventually("both have votes again", lambda: pool.counters(3)["raft_changes"] >= 2)
    api("VM.set_name_label", vm, "after")
    pool.agree()
    kill(pool, 3)
    assert pool.leader() in (1, 2)
    other = Api(pool, 1, api.session)
    other("VM.set_name_description", vm, "without the one that was recovered")
    assert other("VM.get_name_label", vm) == "after"
    pool.quickstart("start", "3")
    pool.agree()
