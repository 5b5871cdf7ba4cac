"""A majority is lost for good: one copy goes on as a new epoch. Who was left out is refused until it adopts it; two recoveries never mix."""
import fcntl
import os
import subprocess
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, ApiError, Pool, eventually, vm_record

CTL = os.path.join(sys.argv[1], "xpoolctl")
NOTE_S = 1.5  # what was acknowledged is noted once a second; nothing tells when


def ctl(*command, fails=None):
    done = subprocess.run([CTL, *command], text=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode != 0) == (fails is not None) and (fails or "") in done.stdout, (command, done.returncode, done.stdout)
    return done.stdout


def kill(pool, member):
    """The last thread of a killed process lets go of its lock a moment after the first has ended."""
    pool.quickstart("kill", str(member))
    with open(os.path.join(pool.data(member), "lock")) as handle:
        def free():
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                return False
        eventually("its directory is free", free)


def log_of(pool, member):
    with open(os.path.join(pool.dir, "member%d" % member, "xpoold.log"), errors="replace") as handle:
        return handle.read()


def tree(folder):
    return {(top, name): os.stat(os.path.join(top, name)).st_mtime_ns for top, _, names in os.walk(folder) for name in names}


with Pool() as pool:
    api = Api(pool, 3).login()
    vm = api("VM.create", vm_record("before"))
    pool.agree()
    token = api("event.from", ["vm"], "", 0.0)["token"]
    time.sleep(NOTE_S)
    kill(pool, 1)
    kill(pool, 2)
    data = pool.data(3)
    ctl("recover", "--dir", data, "--yes", fails="stop it first")
    kill(pool, 3)
    before = tree(data)
    said = ctl("recover", "--dir", data)
    for words in ("epoch    1, becomes 2", "only member 3 votes", "1 (host1) 2 (host2)", "given up", "say --yes"):
        assert words in said, (words, said)
    assert tree(data) == before, "a dry run has changed something"
    assert "Done: epoch 2" in ctl("recover", "--dir", data, "--yes")
    pool.quickstart("start", "3")
    pool.leader()
    api = Api(pool, 3, api.session)
    assert api("VM.get_name_label", vm) == "before"
    api("VM.set_name_description", vm, "new epoch")
    new = api("VM.create", vm_record("after"))
    try:
        api("event.from", ["vm"], token, 0.5)
        raise AssertionError("a token of the old epoch was taken")
    except ApiError as fault:
        assert fault.code == "EVENTS_LOST", fault.args

    # the old majority comes back: it is kept out, whatever it does among itself
    pool.quickstart("start", "1")
    pool.quickstart("start", "2")
    eventually("the new epoch refuses the old one", lambda: "it is of an older epoch" in log_of(pool, 3))
    eventually("and the old one hears why", lambda: "it is of a newer epoch" in log_of(pool, 1) and
               "it is of a newer epoch" in log_of(pool, 2))
    eventually("it has a leader", lambda: any(line.get("role") == "leader-ready" for line in pool.status()[:2]))
    old = Api(pool, 1).login()
    old("VM.set_name_description", vm, "old epoch")
    assert api("VM.get_name_description", vm) == "new epoch"

    # one of them adopts
    kill(pool, 1)
    members = os.path.join(pool.dir, "adopted.json")
    with open(os.path.join(data, "members.json")) as source, open(members, "w") as target:
        target.write(source.read())
    ctl("adopt", "--dir", pool.data(1), "--members", os.path.join(pool.data(2), "members.json"), "--yes", fails="no newer epoch")
    assert "say --yes" in ctl("adopt", "--dir", pool.data(1), "--members", members)
    ctl("adopt", "--dir", pool.data(1), "--members", members, "--yes")
    pool.quickstart("start", "1")
    eventually("it has fetched everything", lambda: "event=log_fetched" in log_of(pool, 1))
    eventually("it has what the new epoch has", lambda: pool.status()[0].get("hash") == pool.status()[2].get("hash"))
    there = Api(pool, 1, api.session)
    assert there("VM.get_name_description", vm) == "new epoch" and there("VM.get_name_label", new) == "after"
    there("VM.set_name_description", vm, "through the one that adopted")
    assert os.path.isdir(pool.data(1) + "/raft.aside-1")

    # the other one is recovered too: two epochs of one number, which refuse each other and cannot be mixed
    kill(pool, 2)
    ctl("recover", "--dir", pool.data(2), "--yes")
    pool.quickstart("start", "2")
    eventually("both say it", lambda: "the pool was recovered twice" in log_of(pool, 2) and
               "the pool was recovered twice" in log_of(pool, 3))
    kill(pool, 2)
    ctl("recover", "--dir", pool.data(2), "--yes")
    ctl("adopt", "--dir", pool.data(1), "--members", os.path.join(pool.data(2), "members.json"), fails="xpoold runs")
    kill(pool, 1)
    ctl("adopt", "--dir", pool.data(1), "--members", os.path.join(pool.data(2), "members.json"), "--yes", fails="recovered twice")
    pool.quickstart("start", "1")
    assert api("VM.get_name_description", vm) == "through the one that adopted"
