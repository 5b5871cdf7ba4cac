"""The wall clock of one member, the coordinator or another, is stepped by an hour, forward and back, and goes on wrong
over a restart: nobody else leads, sessions and the ends of tasks stay, tasks that wait go on waiting, events come once, dumps
and certificates are good."""
import datetime
import os
import struct
import sys
import time
import xml.etree.ElementTree

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

HOUR = 3600


def step(pool, member, seconds):
    """The clock of that member, against the true one."""
    with open(os.path.join(pool.dir, "member%d" % member, "clock"), "r+b") as handle:
        handle.write(struct.pack("=q", seconds))


def ahead(api):
    """By how much a member says that its clock is ahead, in seconds."""
    host = api("session.get_this_host", api.session)
    said = api("host.get_servertime", host)
    return datetime.datetime.strptime(said, "%Y%m%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc).timestamp() - time.time()


def leads(pool):
    """Who leads in which term, as each member says."""
    return {(line.get("leader"), line.get("term")) for line in pool.status()}


def dumps(pool, member):
    try:
        return os.listdir(os.path.join(pool.data(member), "dumps"))
    except FileNotFoundError:
        return []


ended = []  # tasks that have ended, under all these clocks


def works(pool, apis, idle, vm, word):
    """Everything a client does, with every member between."""
    tokens = {n: api("event.from", ["vm"], "", 0.0)["token"] for n, api in apis.items()}
    asked = {n: api("Async.VM.start", vm[n], False, True) for n, api in apis.items()}
    for n, api in apis.items():
        assert api.wait_task(asked[n])["status"] == "success"
        api("VM.set_name_description", vm[n], word)
    for n, api in apis.items():
        seen, token = {}, tokens[n]
        until = time.time() + 20
        while set(seen) != set(vm.values()) and time.time() < until:
            reply = api("event.from", ["vm"], token, 2.0)
            token = reply["token"]
            seen.update((e["ref"], 1) for e in reply["events"] if e["snapshot"]["name_description"] == word)
        assert set(seen) == set(vm.values()), "member %d misses events" % n
        fresh = Api(pool, n).login()
        for other in apis:
            assert Api(pool, other, fresh.session)("VM.get_name_description", vm[n]) == word
        fresh.raw("session.logout", fresh.session)
        with api.post(None, path="/pool/xmldbdump?session_id=" + api.session) as reply:
            tree = xml.etree.ElementTree.parse(reply).getroot()
        assert word in xml.etree.ElementTree.tostring(tree, encoding="unicode")
    time.sleep(3)  # three sweeps
    ended.extend(asked.values())
    for n, api in apis.items():
        for task in ended:
            assert api("task.get_status", task) == "success", "the end of a task is gone"
        for session in idle:
            api("session.get_uuid", session)
        api("VM.hard_shutdown", vm[n])


pool = Pool()
pool.env.update(LD_PRELOAD=os.path.join(sys.argv[1], "tests", "libstepped_clock.so"), XPOOL_CLOCK="clock")
with pool:
    for member in (1, 2, 3):
        with open(os.path.join(pool.dir, "member%d" % member, "clock"), "wb") as made:
            made.write(bytes(8))
    apis = {n: Api(pool, n).login() for n in (1, 2, 3)}
    idle = [Api(pool, n).login().session for n in (1, 2, 3)]  # logged in, never used
    # ten minutes: far less than the step
    apis[1]("pool.add_to_other_config", apis[1]("pool.get_all")[0], "xpool-session-timeout", "600")
    vm = {n: api("VM.create", vm_record("clock%d" % n)) for n, api in apis.items()}
    leader = pool.leader()
    away = 1 + leader % 3
    for victim in (away, leader):
        before = leads(pool)
        for seconds in (HOUR, -HOUR):
            step(pool, victim, seconds)
            assert abs(ahead(apis[victim]) - seconds) < 60, "the test steps nothing"
            works(pool, apis, idle, vm, "%d-by-%d" % (victim, seconds))
            assert leads(pool) == before, "the lead has moved"
        step(pool, victim, 0)
    assert all(len(dumps(pool, n)) <= 2 for n in (1, 2, 3)), "a dump more than its hour has"
    # it is wrong from the start on: certificates, what others told of sessions, what its own log says
    for seconds in (HOUR, -HOUR):
        step(pool, away, seconds)
        pool.quickstart("kill", str(away))
        pool.quickstart("start", str(away))
        eventually("it is back", lambda: pool.status()[away - 1].get("ready") == "yes")
        works(pool, apis, idle, vm, "begun-%d-ahead" % seconds)
    # somebody waits for a lock, for three hours as the coordinator's clock has it
    deaf = apis[leader]("VM.create", vm_record("deaf", other_config={"xpool-sim-guest": "deaf"}))
    apis[leader]("VM.start", deaf, False, True)
    tasks = [apis[away]("Async.VM.clean_shutdown", deaf) for n in (1, 2)]
    holder = pool.leader()
    step(pool, holder, 3 * HOUR)
    time.sleep(3)  # three sweeps
    assert {apis[away]("task.get_status", task) for task in tasks} == {"pending"}, "it has waited for moments"
    for task in reversed(tasks):
        apis[away]("task.cancel", task)
        assert apis[away].wait_task(task)["status"] == "cancelled"
    step(pool, holder, 0)
    # and leads
    step(pool, away, HOUR)
    host = apis[away]("session.get_this_host", apis[away].session)
    apis[away]("pool.designate_new_master", host)
    eventually("it leads", lambda: pool.leader() == away)
    works(pool, apis, idle, vm, "leads-ahead")
    pool.agree()
    pool.check()
