"""Xen Orchestra's library (npm xen-api), unmodified: mirrors every class from each member in both encodings, uses barriers, follows
other clients' writes, runs tasks, and goes on when the member it talks to, or the coordinator, is killed or frozen,
also while a task that it waits for is under way."""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from model import fields, split_type
from xpool import PASSWORD, ROOT, Api, ApiError, Pool, during, eventually, vm_record

MODULES = os.path.join(ROOT, "build", "npm", "node_modules")
VOLATILE = {"last_updated", "memory_free", "memory_total", "memory_actual"}  # no entry of the log tells of them: best effort
GONE = {"VBD_metrics", "VIF_metrics", "VMPP"}  # answer MESSAGE_REMOVED, which the library takes quietly


class Failed(Exception):
    pass


class Library:
    """One instance of the library in a process of its own, driven by tests/clients/xen_api.mjs."""

    def __init__(self, pool, member, transport="auto", auth=None):
        self.process = subprocess.Popen(
            ["node", os.path.join(ROOT, "tests", "clients", "xen_api.mjs"), MODULES], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=dict(os.environ, NODE_EXTRA_CA_CERTS=os.path.join(pool.dir, "ca.pem")))
        self.transport = transport
        self.session = self("connect", url="https://" + pool.address(member), options={"transport": transport},
                            auth=auth or {"user": "root", "password": PASSWORD})["session"]

    def __call__(self, verb, **request):
        print(json.dumps(dict(request, do=verb)), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if "failed" in answer:
            raise Failed(answer["failed"], *answer["params"])
        return answer["ok"]

    def object(self, ref):
        return self("object", ref=ref)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        assert self.process.wait(20) == 0


def as_text(text, value):
    """A value as the library's XML transport gives it: integers are text, dates are its own."""
    head, args = split_type(text)
    if head == "int":
        return str(value)
    if head == "datetime":
        return "%s-%s-%s.000Z" % (value[:4], value[4:6], value[6:-1])
    if head == "set":
        return [as_text(args[0], item) for item in value]
    return {k: as_text(args[1], v) for k, v in value.items()} if head == "map" else value


def everything(api, transport):
    """What our own client gets of every class."""
    found = {}
    for method in api.raw("system.listMethods"):
        cls, _, name = method.partition(".")
        if name != "get_all_records":
            continue
        try:
            found[cls] = api(method)
        except ApiError as fault:
            assert cls in GONE and fault.code == "MESSAGE_REMOVED", fault.args
            continue
        for record in found[cls].values() if transport == "xml-rpc" else ():
            record.update({name: as_text(field["type"], record[name]) for name, field in fields(cls).items()})
    assert len(found) == 60, len(found)
    return {cls: records for cls, records in found.items() if records}


def same(library, api):
    """The mirror has what the pool has, to the last field; it may be a moment late."""
    last = []

    def equal():
        have, want = library("records"), everything(api, library.transport)
        for record in [r for side in (have, want) for records in side.values() for r in records.values()]:
            for name in VOLATILE:
                record.pop(name, None)
        last[:] = [(cls, ref, have.get(cls, {}).get(ref), record) for cls, records in want.items() for ref, record in records.items()
                   if have.get(cls, {}).get(ref) != record]
        return not last and {c: set(r) for c, r in have.items()} == {c: set(r) for c, r in want.items()}

    try:
        eventually("the mirror is equal", equal, 10)
    except AssertionError:
        print("differs: %s" % last[:3])
        raise


def whole_round(library, api, other):
    """Everything a manager does with one connection; api and other are our own client, the second at another member."""
    same(library, api)
    vm = api("VM.create", vm_record("mirrored"))
    uuid = api("VM.get_uuid", vm)
    assert library("barrier", ref=vm)["uuid"] == uuid
    links = library("links", ref=vm)
    assert links["$pool"] == [r["uuid"] for r in api("pool.get_all_records").values()]
    assert links["$metrics"] == [api("VM_metrics.get_uuid", api("VM.get_metrics", vm))] and links["$VBDs"] == []
    # written elsewhere, seen here; written here, seen elsewhere
    other("VM.set_name_description", vm, "elsewhere <&>\u00fc")
    eventually("it hears of it", lambda: library.object(vm)["name_description"] == "elsewhere <&>\u00fc")
    library("set", ref=vm, field="name_label", value="by the library")
    library("update", ref=vm, field="other_config", key="a", value="1")
    library("update", ref=vm, field="other_config", key="a", value="2")
    eventually("all have it", lambda: other("VM.get_other_config", vm).get("a") == "2")
    assert other("VM.get_name_label", vm) == "by the library"
    assert library("barrier", ref=vm)["other_config"]["a"] == "2"
    # tasks
    assert library("task", method="VM.start", args=[vm, False, True]) == ""
    assert library("barrier", ref=vm)["power_state"] == "Running"
    assert library("object", ref=library.object(vm)["resident_on"])["uuid"]
    try:
        library("task", method="VM.start", args=[vm, False, True])
        raise AssertionError("started twice")
    except Failed as fault:
        assert fault.args == ("VM_BAD_POWER_STATE", vm, "halted", "running"), fault.args
    assert library("task", method="VM.hard_shutdown", args=[vm]) == ""
    other_vm = library("task", method="VM.create", args=[vm_record("by a task")])
    assert api("VM.get_name_label", other_vm) == "by a task"
    assert library("task", method="VM.destroy", args=[other_vm]) == ""
    # alerts
    alert = other("message.create", "ALARM", 3, "VM", uuid, "value: 1")
    eventually("it has the alert", lambda: library.object(alert) is not None)
    assert library.object(alert)["body"] == "value: 1"
    library("call", method="message.destroy", args=[alert])
    library("call", method="VM.destroy", args=[vm])
    eventually("both are gone", lambda: library.object(alert) is None and library.object(vm) is None)
    try:
        library("call", method="VM.get_record", args=[vm])
        raise AssertionError("it is still there")
    except Failed as fault:
        assert fault.args == ("HANDLE_INVALID", "VM", vm), fault.args
    same(library, api)
    complaints = library("complaints")
    assert complaints == [], complaints


def killed(pool, library, member, back):
    """The member the library talks to dies. back: it comes again and the library goes on by itself; else it goes to another."""
    others = [n for n in (1, 2, 3) if n != member]
    pool.quickstart("kill", str(member))
    api = Api(pool, others[0], library.session)  # the session is the pool's, not the member's
    vm = api("VM.get_by_name_label", "mail")[0]
    api("VM.set_name_description", vm, "while %d was away" % member)
    eventually("it has noticed", lambda: library("error") is not None)
    if back:
        pool.quickstart("start", str(member))
    else:
        found = library("another")
        assert found["host"] in [pool.address(n) for n in others], found
    eventually("it goes on", lambda: library.object(vm)["name_description"] == "while %d was away" % member)
    assert library("error") is None and library("complaints") != []
    whole_round(library, api, Api(pool, others[1], library.session))
    if not back:
        pool.quickstart("start", str(member))
    eventually("ready again", lambda: pool.status()[member - 1].get("ready") == "yes")


def frozen(pool, library, member, victim):
    """A member freezes: the one the library talks to, which then comes back to it by itself; or the coordinator, and the library
    goes on meanwhile."""
    others = [n for n in (1, 2, 3) if n != victim]
    pool.quickstart("freeze", str(victim))
    api = Api(pool, next(n for n in others if n != member), library.session)
    vm = api("VM.get_by_name_label", "mail")[0]
    text = "while %d stood still" % victim
    api("VM.set_name_description", vm, text)
    if victim == member:
        time.sleep(4)
        pool.quickstart("thaw", str(victim))
    eventually("it goes on", lambda: library.object(vm)["name_description"] == text)
    if victim != member:
        assert library("barrier", ref=vm)["name_description"] == text
        made = library("task", method="VM.create", args=[vm_record("meanwhile")])
        assert library("task", method="VM.destroy", args=[made]) == ""
        pool.quickstart("thaw", str(victim))
    eventually("all are in contact", lambda: all(line.get("ready") == "yes" for line in pool.status()))
    library("complaints")  # whatever it says of the pause
    same(library, api)


def killed_during(pool, at_coordinator):
    """callAsync is under way, for a VM of another member, when the coordinator is killed, or the member that the library talks to, which
    comes back: it hears of the end all the same."""
    leader = pool.leader()
    first, second = [n for n in (1, 2, 3) if n != leader]
    victim = leader if at_coordinator else first
    api = Api(pool, second).login()
    vm = api("VM.create", vm_record("under way"))
    api("VM.start_on", vm, api("session.get_this_host", api.session), False, True)

    def lose():
        if at_coordinator:
            pool.lose_leader("kill", victim)
        else:
            pool.quickstart("kill", str(victim))
        pool.quickstart("start", str(victim))
        eventually("member %d is back" % victim, lambda: pool.status()[victim - 1].get("ready") == "yes")

    with Library(pool, first) as library:
        task = lambda: library("task", method="VM.hard_shutdown", args=[vm])
        assert during(pool, api, vm, "hard_shutdown", task, lose) == "", "it has not heard of the end"
        assert library("barrier", ref=vm)["power_state"] == "Halted" and api("VM.get_power_state", vm) == "Halted"
        same(library, api)
    api("VM.destroy", vm)


def unknown(api):
    try:
        api("pool.get_all")
    except ApiError as fault:
        return fault.code == "SESSION_INVALID"
    return False


assert os.path.isdir(MODULES), "npm packages are missing: run `. deploy/packages.sh && packages_npm build/npm`"
with Pool() as pool:
    for member, transport in ((1, "auto"), (2, "json-rpc"), (3, "xml-rpc")):
        api, other = Api(pool, member).login(), Api(pool, 1 + member % 3).login()
        with Library(pool, member, transport) as library:
            whole_round(library, api, other)
            library("disconnect")
            eventually("logged out", lambda: unknown(Api(pool, member, library.session)))
    for back in (True, False):
        for member in (pool.leader(), 1 + pool.leader() % 3):
            with Library(pool, member) as library:
                killed(pool, library, member, back)
    for at_coordinator in (True, False):
        leader = pool.leader()
        member = leader if at_coordinator else 1 + leader % 3
        with Library(pool, member) as library:
            frozen(pool, library, member, leader)
    for at_coordinator in (True, False):
        killed_during(pool, at_coordinator)
    # a session made at one member serves at another
    with Library(pool, 2, auth={"sessionId": Api(pool, 1).login().session}) as library:
        same(library, Api(pool, 3).login())
    pool.agree()
