"""A member whose log, snapshot or term is damaged sets it aside, says why, and fetches everything from the others; alone it refuses."""
import glob
import os
import shutil
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

NOTE_S = 1.5  # what was acknowledged is noted once a second; nothing tells when


def flip(path, offset):
    with open(path, "r+b") as handle:
        handle.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        byte = handle.read(1)[0]
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte ^ 0x20]))


def log_of(pool, member):
    with open(os.path.join(pool.dir, "member%d" % member, "xpoold.log"), errors="replace") as handle:
        return handle.read()


def open_segment(raft):
    """What the library drops as a torn write."""
    path = max(glob.glob(raft + "/open-*"), key=lambda p: open(p, "rb").read(8) != bytes(8))
    flip(path, 60)


def closed_segment(raft):
    flip(sorted(glob.glob(raft + "/0*"))[-1], 60)


def snapshot(raft):
    flip([p for p in sorted(glob.glob(raft + "/snapshot-*")) if not p.endswith(".meta")][-1], -100)


def terms(raft):
    for path in glob.glob(raft + "/metadata*"):
        os.remove(path)


def everything(raft):
    shutil.rmtree(raft)


with Pool(options="--snapshot-entries 60") as pool:
    api = Api(pool, 1).login()
    vm = api("VM.create", vm_record("damaged"))
    writes = 0
    for number, damage in enumerate((open_segment, closed_segment, snapshot, terms, everything), 1):
        member = pool.leader() if number % 2 else 1 + pool.leader() % 3
        for _ in range(90):
            writes += 1
            api("VM.set_name_description", vm, "write %d" % writes)
        pool.agree()
        time.sleep(NOTE_S)
        pool.quickstart("kill", str(member))
        damage(os.path.join(pool.data(member), "raft"))
        before = log_of(pool, member).count("event=log_set_aside")
        pool.quickstart("start", str(member))
        api = Api(pool, 1 + member % 3, api.session)
        eventually("it has set its log aside", lambda: log_of(pool, member).count("event=log_set_aside") == before + 1)
        writes += 1
        api("VM.set_name_description", vm, "write %d" % writes)
        eventually("it is whole again", lambda: log_of(pool, member).count("event=log_fetched") == before + 1)
        pool.agree()
        assert Api(pool, member, api.session)("VM.get_name_description", vm) == "write %d" % writes
        assert pool.ctl(member, "db check").endswith("sound\n")
        for old in glob.glob(pool.data(member) + "/raft.aside-*"):
            shutil.rmtree(old)

    # it counts again: with another member gone the two are a majority
    other = 1 + member % 3
    pool.quickstart("kill", str(other))
    pool.leader()
    api = Api(pool, member, api.session)
    api("VM.set_name_description", vm, "after")
    pool.quickstart("start", str(other))
    eventually("all are there", lambda: pool.status()[other - 1].get("ready") == "yes")

with Pool(members=1) as pool:
    Api(pool, 1).login()
    pool.quickstart("kill", "1")
    raft = os.path.join(pool.data(1), "raft")
    kept = raft + ".kept"
    shutil.copytree(raft, kept)
    terms(raft)
    pool.quickstart("start", "1")
    eventually("it refuses", lambda: "event=log_in_doubt" in log_of(pool, 1))
    line = [line for line in log_of(pool, 1).splitlines() if "event=log_in_doubt" in line][0]
    assert "both metadata files are missing" in line and "remedy=" in line and "no other copy" in line, line
    assert sorted(os.listdir(raft)) == sorted(set(os.listdir(kept)) - {"metadata1", "metadata2"}), "it has touched the files"
    shutil.rmtree(raft)
    os.rename(kept, raft)
    for path in [raft] + [os.path.join(raft, name) for name in os.listdir(raft)]:
        shutil.chown(path, "nobody", "nogroup")
    pool.quickstart("start", "1")
    pool.leader()
    Api(pool, 1).login()
