"""Three hundred clients of event.from on three members see every change once and in order, also across the death of the member
that they talk to; what is parked costs memory only; barriers, logout, and the old interface."""
import asyncio
import os
import re
import sys
import threading

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
import watch
from xpool import Api, ApiError, Pool, XmlApi, eventually, vm_record

CLIENTS, PER_SESSION, CHANGES, KILL_AT = 300, 3, 150, 60
PARKED_BYTES_MAX = 48 << 10
CLASSES = ["task", "vm"]


class Watcher:
    """One client: what it has seen, and the rules that must hold while it sees it."""

    def __init__(self, client, token, end):
        self.client, self.token, self.end = client, token, end
        self.tasks, self.values, self.hops, self.answers = [], {}, 0, 0

    def take(self, answer):
        low, high = (int(t.split(",")[0]) % 10**16 for t in (self.token, answer["token"]))
        assert answer["token"] >= self.token, (self.token, answer["token"])
        kinds = [("add", "mod", "del").index(e["operation"]) for e in answer["events"]]
        assert kinds == sorted(kinds), kinds
        for kind in range(3):
            ids = [int(e["id"]) for e, k in zip(answer["events"], kinds) if k == kind]
            assert ids == sorted(ids) and all(low < i <= high for i in ids), (low, ids, high)
        refs = [(e["class"], e["ref"]) for e in answer["events"]]
        assert len(refs) == len(set(refs)), "two events about one object"
        for e in answer["events"]:
            if e["class"] == "task" and e["operation"] == "add" and e["snapshot"]["name_label"].startswith("change"):
                self.tasks.append(int(e["snapshot"]["name_label"].split()[1]))
            elif e["class"] == "vm" and e["snapshot"]["name_description"].isdigit():
                assert int(e["snapshot"]["name_description"]) > self.values.get(e["ref"], 0), "a VM went back in time"
                self.values[e["ref"]] = int(e["snapshot"]["name_description"])
        self.token = answer["token"]

    async def run(self):
        while not self.tasks or self.tasks[-1] < self.end:
            try:
                self.take(await self.client.events(CLASSES, self.token, 30))
                self.answers += 1
            except watch.Lost as fault:
                assert fault.args[0] == "connection", fault.args
                await self.hop()
        assert self.tasks == list(range(1, self.end + 1)), self.tasks

    async def hop(self):
        """The member has died: go on at another one with the same token."""
        self.hops += 1
        self.client.close()
        await asyncio.sleep(0.05)
        self.client.member = self.client.member % 3 + 1
        try:
            await self.client.open()
        except OSError:
            await self.hop()


def pid_of(pool, member):
    with open(os.path.join(pool.dir, "member%d" % member, "xpoold.pid"), encoding="ascii") as handle:
        return handle.read().split()[0]


def anonymous(pool, member):
    with open("/proc/%s/smaps_rollup" % pid_of(pool, member), encoding="ascii") as handle:
        return int(re.search(r"Anonymous:\s+(\d+)", handle.read())[1]) << 10


def threads(pool, member):
    return len(os.listdir("/proc/%s/task" % pid_of(pool, member)))


def write(apis, vms, kill, killed):
    for n in range(1, CHANGES + 1):
        if n == KILL_AT:
            kill.set()
        if n == CHANGES - 20:  # written before, during and after the member's death
            assert killed.wait(60)
        api = apis[n % 2]  # of members that live
        api("VM.set_name_description", vms[n % len(vms)], str(n))
        api("task.create", "change %d" % n, "")


async def crowd(pool, apis, vms):
    sessions = [(n % 3 + 1, Api(pool, n % 3 + 1).login().session) for n in range(CLIENTS // PER_SESSION)]
    token = apis[0]("event.from", CLASSES, "", 0.0)["token"]
    before = anonymous(pool, 1)
    made = await watch.clients(pool, sessions, PER_SESSION)
    # readers of everything that never read, and one that sends no more than it has to
    deaf = await watch.clients(pool, [(n, apis[0].session) for n in (1, 2, 3)])
    for client in deaf:
        client.send("event.from", client.session, ["*"], "", 30.0)
    watchers = [Watcher(c, token, CHANGES) for c in made]
    tasks = [asyncio.create_task(w.run()) for w in watchers]
    while pool.counters(1)["events_parked_now"] < CLIENTS // 3:
        await asyncio.sleep(0.1)
    each = (anonymous(pool, 1) - before) // (CLIENTS // 3)
    print("bytes of a parked client: %d" % each)
    assert threads(pool, 1) < CLIENTS // 3, threads(pool, 1)  # those of its lanes
    assert each < PARKED_BYTES_MAX or "dev" not in sys.argv[1], each
    counted = pool.counters(1)
    kill, killed = threading.Event(), threading.Event()
    writer = asyncio.create_task(asyncio.to_thread(write, apis, vms, kill, killed))
    while not kill.is_set():
        await asyncio.sleep(0.01)
    await asyncio.to_thread(pool.quickstart, "kill", "3")
    killed.set()
    await writer
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert sum(w.hops for w in watchers) >= CLIENTS // 4
    last = {vm: max(n for n in range(1, CHANGES + 1) if vms[n % len(vms)] == vm) for vm in vms}
    for w in watchers:  # the task that ends the run was created after the last of these
        assert w.values == last, (w.values, last)
    # made once for all that ask the same
    now = pool.counters(1)
    answered, made_once = now["calls"] - counted["calls"], now["events_answers"] - counted["events_answers"]
    print("answers of member 1: %d, made: %d" % (answered, made_once))
    assert made_once * 5 < answered, (answered, made_once)
    for client in made + deaf:
        client.close()


def barrier(apis):
    pool_ref = apis[0]("pool.get_all")[0]
    for api, other in ((apis[0], apis[1]), (apis[1], apis[0])):
        token = other("event.from", ["pool"], "", 0.0)["token"]
        api("pool.add_to_other_config", pool_ref, "key %d" % api.member, "x")
        injected = api("event.inject", "pool", pool_ref)
        seen, place = {}, token
        while place <= injected:
            answer = other("event.from", ["pool"], place, 10.0)
            place = answer["token"]
            for e in answer["events"]:
                seen = e["snapshot"]["other_config"]
        assert seen.get("key %d" % api.member) == "x", seen
    assert apis[0].fails("HANDLE_INVALID", "event.inject", "VM", pool_ref) == ["VM", pool_ref]
    assert apis[0].fails("HANDLE_INVALID", "event.inject", "_config", "session_key") == ["_config", "session_key"]


async def endings(pool):
    """Logout ends parked calls, a time-out gives an empty answer; how many calls one session has does not matter."""
    api = Api(pool, 1).login()
    token = api("event.from", CLASSES, "", 0.0)["token"]
    made = await watch.clients(pool, [(1, api.session)], 9)
    for client in made[1:]:
        client.send("event.from", client.session, ["vm"], token, 20.0)
    empty = await made[0].events(["vm"], token, 0.5)
    assert empty["events"] == [] and empty["token"] >= token and empty["valid_ref_counts"]["vm"] >= 10, empty
    assert pool.counters(1)["events_parked_now"] == 8
    api("session.logout")
    for reply in await asyncio.wait_for(asyncio.gather(*(c.receive() for c in made[1:])), 10):
        assert b"SESSION_INVALID" in reply, reply
    for client in made:
        client.close()


def old_interface(pool, apis):
    api = Api(pool, 1).login()
    vm = apis[0]("VM.create", vm_record("old"))
    assert api.fails("SESSION_NOT_REGISTERED", "event.next") == [api.session]
    assert api.fails("EVENT_SUBSCRIPTION_PARSE_FAILURE", "event.register", ["a/b/c"]) == ["a/b/c"]
    api("event.register", ["network"])  # of hosts there may be news of their own
    api("event.register", ["vm"])
    first = int(api("event.get_current_id"))
    results = []
    thread = threading.Thread(target=lambda: results.append(XmlApi(pool, 1)("event.next", api.session)))
    thread.start()
    eventually("parked", lambda: pool.counters(1)["events_parked_now"] == 1)
    apis[1]("VM.set_name_description", vm, "for the old one")
    thread.join(20)
    events = results[0]["Value"]
    assert [(e["class"], e["operation"], e["ref"]) for e in events] == [("vm", "mod", vm)], events
    assert int(events[0]["id"]) >= first and float(events[0]["timestamp"]) > 1e9
    assert events[0]["snapshot"]["name_description"] == "for the old one"
    # told once; what comes in between two calls is not missed
    apis[1]("VM.set_name_description", vm, "in between")
    assert [e["snapshot"]["name_description"] for e in api("event.next")] == ["in between"]
    # ending the subscription ends who waits
    thread = threading.Thread(target=lambda: results.append(XmlApi(pool, 1)("event.next", api.session)))
    thread.start()
    eventually("parked", lambda: pool.counters(1)["events_parked_now"] == 1)
    api("event.unregister", ["VM"])
    api("event.unregister", ["network"])
    apis[0]("VM.destroy", vm)
    thread.join(20)
    assert results[1]["ErrorDescription"] == ["SESSION_NOT_REGISTERED", api.session], results[1]


def long_answer(apis):
    """After an absence there is much: an answer that is made in pieces, here and there, waited for or not."""
    vms = [apis[0]("VM.create", vm_record("much%d" % n)) for n in range(300)]
    token = apis[1]("event.from", ["vm"], "", 0)["token"]
    for vm in vms:
        apis[0]("VM.set_name_description", vm, vm[-36:] + "x" * 5000)
    apis[0]("VM.destroy", vms.pop())
    for api in apis:
        for wait in (0, 10):
            answer = api("event.from", ["vm"], token, wait)
            told = {e["ref"]: e["snapshot"]["name_description"][:36] for e in answer["events"] if e["operation"] == "mod"}
            assert told == {vm: vm[-36:] for vm in vms}, (len(told), len(vms))
            assert answer["valid_ref_counts"]["vm"] == len(api("VM.get_all_records"))
            assert api("event.from", ["vm"], answer["token"], 0)["events"] == []
    for vm in vms:
        apis[0]("VM.destroy", vm)


with Pool() as pool:
    apis = [Api(pool, n).login() for n in (1, 2)]
    vms = [apis[0]("VM.create", vm_record("counter%d" % n)) for n in range(10)]
    asyncio.run(crowd(pool, apis, vms))
    pool.quickstart("start", "3")
    barrier(apis)
    asyncio.run(endings(pool))
    eventually("nobody waits", lambda: pool.counters(1)["events_parked_now"] == 0)
    old_interface(pool, apis)
    long_answer(apis)
    # a token that is ahead of what this member knows: the time passes, and it is given back as it was
    ahead = "%020d,%020d" % (10**16 + 10**15, 10**20 - 1)
    answer = apis[0]("event.from", ["vm"], ahead, 0.1)
    assert answer["events"] == [] and answer["token"] == ahead, answer
    try:
        apis[0]("event.from", ["vm"], "%020d,%020d" % (10**16 + 1, 0), 0.0)
        raise AssertionError("a token of another epoch was taken")
    except ApiError as fault:
        assert fault.code == "EVENTS_LOST", fault.args
    pool.agree()
