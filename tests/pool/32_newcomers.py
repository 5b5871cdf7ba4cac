"""A pool of one grows: hosts are let in by `xpoolctl add`, begin empty by `xpoolctl enlist`, fetch everything, get votes, and
survive the first one. Killed on the way they go on where they were. Who is let in wrongly changes nothing.

usage: 32_newcomers.py BUILD [MEMBERS]"""
import json
import os
import ssl
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from joining import count, ctl, entry, write
from xpool import Api, Pool, eventually, vm_record

MEMBERS = int(sys.argv[2]) if len(sys.argv) > 2 else 4


def add(pool, at, said, fails=None):
    out = os.path.join(pool.dir, "ticket.json")
    ctl("add", "--dir", pool.data(at), "--members", write(pool, "new.json", said), "--out", out, fails=fails)
    return out


def enlist(pool, number, ticket):
    ctl("enlist", "--dir", pool.data(number), "--members", ticket)
    count(pool, number)


def hash_of(pool, number):
    line = pool.status()[number - 1]
    return line.get("applied"), line.get("hash")


def joined(pool, number):
    return hash_of(pool, number)[0] is not None and hash_of(pool, number) == hash_of(pool, pool.leader())


with Pool(members=1) as pool:
    api = Api(pool, 1).login()
    vm = api("VM.create", vm_record("before"))
    first = entry(pool, 2)
    add(pool, 1, dict(first, certificate="12"), fails="fingerprint")
    add(pool, 1, dict(first, channel="nowhere"), fails="IP:PORT")
    add(pool, 1, dict(first, address=pool.address(1)), fails="that address already")
    assert len(api("host.get_all")) == 1
    began = time.time()
    for number in range(2, MEMBERS + 1):
        said = first if number == 2 else entry(pool, number)
        ticket = add(pool, 1 + number % 2 if number > 3 else 1, said)
        assert json.load(open(add(pool, 1, said)))["self"] == number  # asked again: the same answer
        add(pool, 1, dict(said, channel=pool.address(number) + ":8301"), fails="a member already")
        # it is in from here on, though it has not come yet
        assert len(api("host.get_all")) == number
        if number == 3:
            pool.quickstart("kill", "1")  # alone with a vote, or one of two: it comes back
            pool.quickstart("start", "1")
        enlist(pool, number, ticket)
        ctl("enlist", "--dir", pool.data(number), "--members", ticket, fails="belongs to a pool already")
        pool.quickstart("start", str(number))
        if number == 2:
            pool.quickstart("kill", "2")  # whatever it has by now
            pool.quickstart("start", "2")
        eventually("member %d has what the others have" % number, lambda: joined(pool, number), timeout=60)
        pool.leader()
    print("%d members joined in %.1f s" % (MEMBERS - 1, time.time() - began))
    pool.tls = ssl.create_default_context(cafile=os.path.join(pool.dir, "ca.pem"))
    api = Api(pool, MEMBERS).login()
    assert api("VM.get_name_label", vm) == "before"
    api("VM.set_name_label", vm, "after")
    assert sorted(h["name_label"] for h in api("host.get_all_records").values()) == sorted("host%d" % n for n in range(1, MEMBERS + 1))
    # three vote by now, or five: the first may die
    metrics = {h["name_label"]: h["metrics"] for h in api("host.get_all_records").values()}
    eventually("all are live", lambda: all(api("host_metrics.get_live", m) for m in metrics.values()))
    settled = None
    while settled != (settled := [pool.counters(n)["raft_changes"] for n in range(1, MEMBERS + 1)]):
        time.sleep(1.5)
    pool.quickstart("kill", str(pool.leader()))
    there = pool.leader()
    api = Api(pool, there, api.session)
    assert api("VM.get_name_label", vm) == "after"
    started = api("VM.create", vm_record("elsewhere"))
    api("VM.start", started, False, True)
    api("VM.hard_shutdown", started)
