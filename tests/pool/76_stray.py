"""A bit flips in the memory of a member, in the hash of its state. Nobody notices until the members compare, every 1,000
entries; then this one stops, and its next start sets its log aside and fetches everything anew. An alert tells of it."""
import os
import struct
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, at_once, eventually, gone, vm_record

EVERY = 1000  # DB_HASH_EVERY


def flip(pid, wanted):
    """One bit of each word of its memory that has this value; how many there were."""
    found = 0
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "r+b", buffering=0) as mem:
        for line in maps:
            span, rights, *rest = line.split()
            if not rights.startswith("rw") or rest[-1] in ("[vvar]", "[vsyscall]"):
                continue
            begin, end = (int(text, 16) for text in span.split("-"))
            mem.seek(begin)
            try:
                content = mem.read(end - begin)
            except OSError:
                continue
            at = content.find(wanted)
            while at >= 0:
                if (begin + at) % 8 == 0:
                    mem.seek(begin + at)
                    mem.write(bytes([wanted[0] ^ 1]) + wanted[1:])
                    found += 1
                at = content.find(wanted, at + 1)
    return found


def alerts(api):
    return [m for m in api("message.get_all_records").values() if m["name"] == "MEMBER_STATE_DIFFERS"]


def write(apis, vms, n):
    """So many entries."""
    def some(k):
        for i in range(k, n, len(apis)):
            apis[k]("VM.set_name_description", vms[k], "write %d" % i)

    at_once(*[lambda k=k: some(k) for k in range(len(apis))])


with Pool() as pool:
    stray = pool.leader()
    others = [n for n in (1, 2, 3) if n != stray]
    api = Api(pool, others[0]).login()
    apis = [api] + [Api(pool, others[n % 2]).login() for n in range(1, 4)]
    vms = [api("VM.create", vm_record("vm%d" % n)) for n in range(4)]
    pid = pool.signal(stray, "xpoold", 0)

    def differs():
        _, state = pool.agree()
        assert flip(pid, struct.pack("<Q", int(state, 16))) > 0
        api("VM.set_name_label", vms[0], "on it goes")
        seen = {line["hash"] for n, line in enumerate(pool.status(), 1) if n != stray}
        return pool.status()[stray - 1]["hash"] not in seen

    eventually("another state", differs)
    begin = int(pool.status()[stray - 1]["applied"])
    compared = begin - begin % EVERY + EVERY
    write(apis, vms, compared - begin - 50)
    assert not gone(pid) and pool.leader() == stray and pool.counters(stray)["hashes_differ"] == 0
    write(apis, vms, 100)
    eventually("it has stopped", lambda: gone(pid))
    text = dict(pool.logs())["member%d/xpoold.log" % stray]
    assert "at index %d the state of this member has another hash than that of 2 others" % compared in text, text[-2000:]
    eventually("an alert", lambda: len(alerts(api)) == 1)
    (alert,) = alerts(api)
    assert alert["cls"] == "Pool" and alert["priority"] == 1 and "fetches everything anew" in alert["body"], alert
    pool.quickstart("start", str(stray))
    eventually("it is back", lambda: pool.status()[stray - 1].get("ready") == "yes")
    aside = [n for n in (1, 2, 3) if os.path.exists(os.path.join(pool.data(n), "raft.aside-1"))]
    assert aside == [stray], aside
    assert "the state that this member made of it was not that of the others" in dict(pool.logs())["member%d/xpoold.log" % stray]
    pool.agree()
    pool.check()
