"""One session on three members: it never goes back, whatever happens to one of them; X-Pool-* headers; wrong references."""
import http.client
import json
import sys
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

TRIES = 10


def ask(pool, member, session, method, *args, headers=None):
    """(result or error, headers) over a connection of its own."""
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": [session, *args], "id": 1}).encode()
    request = urllib.request.Request("https://%s:%d/jsonrpc" % (pool.address(member), pool.port), body, headers or {})
    with urllib.request.urlopen(request, context=pool.tls, timeout=60) as reply:
        answer = json.load(reply)
        return answer.get("result", answer.get("error")), reply.headers


def at_once(pool, member, session, vm, n):
    """So many linearizable reads, all asked for before the first is answered."""
    body = json.dumps({"jsonrpc": "2.0", "method": "VM.get_uuid", "params": [session, vm], "id": 1}).encode()
    connections = [http.client.HTTPSConnection(pool.address(member), pool.port, context=pool.tls, timeout=60) for _ in range(n)]
    for headers in ({}, {"X-Pool-Read": "linearizable"}):  # the first opens the connections
        for c in connections:
            c.request("POST", "/jsonrpc", body, headers)
        for c in connections:
            assert "result" in json.loads(c.getresponse().read())
    for c in connections:
        c.close()


def index_of(headers):
    epoch, index = headers["X-Pool-Index"].split("-")
    assert epoch == "1"
    return int(index)


class Walk:
    """One client that goes from member to member with one session; each call must see all that the earlier ones saw or wrote."""

    def __init__(self, pool, members, session, vm):
        self.pool, self.session, self.vm = pool, session, vm
        self.apis = [Api(pool, m, session) for m in members]
        self.wrote, self.index, self.calls, self.slowest = None, 0, 0, 0

    def step(self):
        api = self.apis[self.calls % len(self.apis)]
        began = time.time()
        if self.calls % 4 == 3:
            self.wrote = "%d" % self.calls
            api("VM.set_name_description", self.vm, self.wrote)
        elif self.wrote is not None:
            got = api("VM.get_name_description", self.vm)
            assert got == self.wrote, "back: %s after %s was written" % (got, self.wrote)
        self.slowest = max(self.slowest, time.time() - began)
        self.calls += 1

    def go(self, seconds):
        until = time.time() + seconds
        self.slowest = 0
        while time.time() < until:
            self.step()
        return self


with Pool(options="--election-ms 500") as pool:
    first = Api(pool, 1).login()
    vm = first("VM.create", vm_record("walk"))
    # others write, so that members are at different indexes all the time
    busy = threading.Event()

    def write(member):
        api = Api(pool, member).login()
        other = api("VM.create", vm_record("busy%d" % member))
        while not busy.is_set():
            api("VM.set_name_label", other, "x")

    writers = [threading.Thread(target=write, args=(m,)) for m in (1, 2, 3)]
    for thread in writers:
        thread.start()
    before = [pool.counters(m)["floors_taken"] for m in (1, 2, 3)]
    walk = Walk(pool, (1, 2, 3), first.session, vm).go(12)
    hops = sum(pool.counters(m)["floors_taken"] - before[m - 1] for m in (1, 2, 3))
    print("calls %d takeovers %d slowest %.3f s" % (walk.calls, hops, walk.slowest))
    assert hops > 0.9 * walk.calls and walk.calls > 100
    # the same session at once from three clients: each sees what it wrote itself before
    crowd = [Walk(pool, (m, m % 3 + 1), first.session, first("VM.create", vm_record("c%d" % m))) for m in (1, 2, 3)]
    threads = [threading.Thread(target=w.go, args=(4,)) for w in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(w.calls > 20 for w in crowd), [w.calls for w in crowd]
    # a call that waits while its session goes elsewhere takes it back and answers what it found
    for k in range(10):
        api, elsewhere, got = Api(pool, 1, first.session), Api(pool, 2, first.session), []
        token = api("event.from", ["vm/" + vm], "", 5.0)["token"]
        parked = threading.Thread(target=lambda: got.append(api("event.from", ["vm/" + vm], token, 20.0)))
        parked.start()
        elsewhere("VM.set_name_description", vm, "event %d" % k)
        parked.join()
        assert [e["snapshot"]["name_description"] for e in got[0]["events"]] == ["event %d" % k], got
    walk.wrote = None
    busy.set()
    for thread in writers:
        thread.join()

    # a frozen member: what it showed before and what the others wrote since; back again it must not show what it still has
    leader = pool.leader()
    frozen, here = [m for m in (1, 2, 3) if m != leader]
    Api(pool, frozen, first.session)("VM.get_name_description", vm)
    pool.quickstart("freeze", str(frozen))
    api = Api(pool, here, first.session)
    began = time.time()
    api("VM.set_name_description", vm, "while it was frozen")
    print("takeover from a frozen member %.2f s" % (time.time() - began))
    assert time.time() - began < 6
    pool.quickstart("thaw", str(frozen))
    assert Api(pool, frozen, first.session)("VM.get_name_description", vm) == "while it was frozen"

    # a killed coordinator: the session goes on elsewhere
    Api(pool, leader, first.session)("VM.set_name_description", vm, "by the old coordinator")
    pool.quickstart("kill", str(leader))
    began = time.time()
    assert Api(pool, here, first.session)("VM.get_name_description", vm) == "by the old coordinator"
    print("takeover from a killed coordinator %.2f s" % (time.time() - began))
    assert time.time() - began < 8
    pool.quickstart("start", str(leader))
    eventually("it is back", lambda: pool.status()[leader - 1].get("role") is not None)
    Walk(pool, (1, 2, 3), first.session, vm).go(1)

    # headers: an index that a member has to reach first; an answer always says where it was
    _, headers = ask(pool, 1, first.session, "VM.set_name_description", vm, "mark")
    mark = headers["X-Pool-Index"]
    for member in (2, 3):
        other = Api(pool, member).login()
        got, headers = ask(pool, member, other.session, "VM.get_name_description", vm, headers={"X-Pool-Index": mark})
        assert got == "mark" and index_of(headers) >= int(mark[2:]) and "X-Pool-Stale" not in headers
        got, headers = ask(pool, member, other.session, "VM.get_name_description", vm, headers={"X-Pool-Read": "linearizable"})
        assert got == "mark"
    # one that nobody will reach: 10 s, then the answer says that it may be old
    began = time.time()
    got, headers = ask(pool, 1, first.session, "VM.get_name_description", vm, headers={"X-Pool-Index": "1-999999999"})
    assert got == "mark" and 9 < time.time() - began < 15 and int(headers["X-Pool-Stale"]) < 5, headers.items()
    for bad in ({"X-Pool-Index": "1"}, {"X-Pool-Index": "x-1"}, {"X-Pool-Index": "1-2x"}, {"X-Pool-Read": "maybe"}):
        try:
            ask(pool, 1, first.session, "VM.get_name_description", vm, headers=bad)
            raise AssertionError("%s is taken" % bad)
        except urllib.error.HTTPError as fault:
            assert fault.code == 400

    # references that are none: refused at once, without a word to the others
    rounds = sum(pool.counters(m)["read_rounds"] for m in (1, 2, 3))
    taken = sum(pool.counters(m)["floors_taken"] for m in (1, 2, 3))
    for junk in ("", "OpaqueRef:NULL", "OpaqueRef:00000000-0000-4000-8000-000000000000", "x" * 1000,
                 first.session[:-1] + ("0" if first.session[-1] != "0" else "1")):
        for _ in range(20):
            assert Api(pool, 2, junk).fails("SESSION_INVALID", "VM.get_all") == [junk]
    assert sum(pool.counters(m)["floors_taken"] for m in (1, 2, 3)) == taken
    assert sum(pool.counters(m)["read_rounds"] for m in (1, 2, 3)) - rounds < 20, "junk costs read indexes"
    # many at once share the words of the others, if clients are quick enough to be many at once
    grown = []
    for _ in range(TRIES):
        rounds = sum(pool.counters(m)["read_rounds"] for m in (1, 2, 3))
        at_once(pool, 2, first.session, vm, 64)
        grown.append(sum(pool.counters(m)["read_rounds"] for m in (1, 2, 3)) - rounds)
        if grown[-1] < 40:
            break
    assert 0 < grown[-1] < 40, "%s read indexes for 64 reads" % grown
    # logged out at one member: it is out at all of them, at once
    for member in (1, 2, 3):
        session = Api(pool, member).login().session
        Api(pool, member % 3 + 1, session)("VM.get_all")
        Api(pool, member, session)("session.logout")
        for everywhere in (1, 2, 3):
            Api(pool, everywhere, session).fails("SESSION_INVALID", "VM.get_all")

    # without a leader: reads go on and say how old they are, writes and logins say what is wrong
    alone = 1
    for other in (2, 3):
        pool.quickstart("kill", str(other))
    time.sleep(11)
    began = time.time()
    got, headers = ask(pool, alone, first.session, "VM.get_name_description", vm)
    assert got == "mark" and int(headers["X-Pool-Stale"]) >= 9 and time.time() - began < 2, (got, headers.items())
    assert Api(pool, alone, first.session).fails("HOST_IN_EMERGENCY_MODE", "VM.set_name_description", vm, "no") == []
    error, _ = ask(pool, alone, first.session, "VM.get_name_description", vm, headers={"X-Pool-Read": "linearizable"})
    assert error["message"] == "HOST_IN_EMERGENCY_MODE", error
    for other in (2, 3):
        pool.quickstart("start", str(other))
    pool.leader()
    assert Api(pool, alone, first.session)("VM.get_name_description", vm) == "mark"
    pool.agree()
