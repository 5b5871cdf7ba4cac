"""Tasks that clients make go on and end by the word of any member; nobody writes those of operations; who is left alone goes.
A request that its client has named is one task, whichever member is asked, however often, whatever dies in between."""
import sys
import threading
import time
import urllib.request

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, ApiError, Pool, at_once, eventually, guest, vm_record

EPOCH = "19700101T00:00:00Z"


def by_clients(apis):
    """Made at one member, led to its end at the others."""
    first, second, third = apis
    task = first("task.create", "copy", "by hand")
    record = second("task.get_record", task)
    assert record["status"] == "pending" and record["finished"] == EPOCH and record["progress"] == 0, record
    second("task.set_progress", task, 0.25)
    assert third("task.get_progress", task) == 0.25
    second("task.set_progress", task, 0.2501)  # too little to tell
    assert second("task.get_progress", task) == 0.25
    for wrong in (1.5, -0.1):
        assert second.fails("VALUE_NOT_SUPPORTED", "task.set_progress", task, wrong)[0] == "value"
    third("task.set_status", task, "cancelling")
    assert first("task.get_status", task) == "cancelling" and "cancel" in first("task.get_allowed_operations", task)
    first("task.cancel", task)
    assert list(second("task.get_current_operations", task).values()) == ["cancel"]
    second("task.set_result", task, "<value>7</value>")
    third("task.set_status", task, "success")
    record = first("task.get_record", task)
    assert record["status"] == "success" and record["progress"] == 1 and record["finished"] >= record["created"] > EPOCH, record
    assert record["result"] == "<value>7</value>" and record["current_operations"] == {}, record
    # an end is the last word
    first("task.set_status", task, "failure")
    first("task.set_progress", task, 0.5)
    second("task.set_status", task, "pending")
    after = third("task.get_record", task)
    assert after == record, (record, after)
    first("task.destroy", task)
    assert second.fails("HANDLE_INVALID", "task.set_status", task, "failure") == ["task", task]

    failed = second("task.create", "upload", "")
    third("task.set_error_info", failed, ["SR_FULL", "1", "2"])
    third("task.set_status", failed, "failure")
    record = first("task.get_record", failed)
    assert record["status"] == "failure" and record["error_info"] == ["SR_FULL", "1", "2"], record


def of_operations(apis):
    """Their owners alone say how they go."""
    first, second, third = apis
    vm = first("VM.create", vm_record("v"))
    task = first("Async.VM.start", vm, False, False)
    writes = (("set_status", "failure"), ("set_progress", 0.5), ("set_result", "x"), ("set_error_info", ["X"]))
    for name, value in writes:
        second.fails("OPERATION_NOT_ALLOWED", "task." + name, task, value)
    third.wait_task(task)
    at_once = first("Async.task.add_to_other_config", task, "seen", "yes")  # has ended as it is told
    ended = first("task.get_record", task)
    for name, value in writes:
        for ref in (task, at_once):
            second.fails("OPERATION_NOT_ALLOWED", "task." + name, ref, value)
    assert first("task.get_record", task) == ended and ended["status"] == "success", ended


def left_alone(apis):
    """A client that has gone leaves its task; who goes on with one keeps it."""
    first, second, third = apis
    (pool,) = first("pool.get_all")
    alone, alive = first("task.create", "alone", ""), second("task.create", "alive", "")
    second("pool.add_to_other_config", pool, "xpool-task-timeout", "4")
    steps = iter(range(1, 99))

    def gone():
        third("task.set_progress", alive, next(steps) / 100)
        time.sleep(0.2)
        return alone not in first("task.get_all")

    eventually("the one that is left alone goes", gone, timeout=15)
    assert third("task.get_status", alive) == "pending"
    third("pool.remove_from_other_config", pool, "xpool-task-timeout")


class Named(Api):
    """Calls with a name of the request, and another word for the task."""

    def __init__(self, api, name, member=None):
        super().__init__(api.pool, member or api.member, api.session)
        self.name = name

    def post(self, body, timeout=60, path="/jsonrpc"):
        headers = {"Content-Type": "application/json", "X-Http-Other-Config-Request-ID": self.name, "x-http-other-config-Why": "tests"}
        request = urllib.request.Request(self.url, body, headers)
        return urllib.request.urlopen(request, context=self.pool.tls, timeout=timeout)


def named_tasks(api, name):
    return {ref: r for ref, r in api("task.get_all_records").items() if r["other_config"].get("http:request-id") == name}


def one_task(apis):
    """However often, from wherever: also at once."""
    first, second, third = apis
    vm = first("VM.create", vm_record("named"))
    tasks = at_once(*[lambda api=api: Named(api, "start-1")("Async.VM.start", vm, False, False) for api in apis * 3])
    (task,) = set(tasks)
    assert third.wait_task(task)["status"] == "success"
    config = second("task.get_other_config", task)
    assert config["http:request-id"] == "start-1" and config["http:why"] == "tests", config
    assert Named(third, "start-1")("VM.start", vm, False, False) == ""  # not VM_BAD_POWER_STATE: that was done
    assert Named(first, "start-1")("Async.VM.start", vm, False, False) == task
    assert list(named_tasks(second, "start-1")) == [task]
    # a name is not for two things
    for other, args in (("VM.start", (vm, True, False)), ("VM.clean_reboot", (vm,))):
        why = Named(second, "start-1").fails("INVALID_VALUE", other, *args)
        assert why[0] == "X-Http-Other-Config-Request-Id" and task in why[1], why
    second.fails("VM_BAD_POWER_STATE", "VM.start", vm, False, False)
    for wrong in ("", "x" * 101):
        Named(second, wrong).fails("INVALID_VALUE", "VM.clean_reboot", vm)
    # a call that is refused has no task, and may be made again
    Named(second, "start-2").fails("VM_BAD_POWER_STATE", "VM.start", vm, False, False)
    first("VM.hard_shutdown", vm)
    assert Named(third, "start-2")("VM.start", vm, False, False) == "" and len(named_tasks(first, "start-2")) == 1


def member_dies(pool, apis):
    """The member that has the call is killed when it is decided: the next one has the same task."""
    leader = pool.leader()
    away, stays = [m for m in (1, 2, 3) if m != leader]
    api = Api(pool, stays, apis[0].session)
    (host,) = [ref for ref, m in api.members().items() if m == stays]
    for call, name in (("Async.VM.start_on", "async"), ("VM.start_on", "plain")):
        vm = api("VM.create", vm_record(name, **guest(delay_ms={"build": 2000})))
        args, lost = (vm, host, False, False), []

        def ask():
            try:
                lost.append(Named(api, name, away)(call, *args))
            except (OSError, ValueError, ApiError) as fault:
                lost.append(fault)

        asking = threading.Thread(target=ask)
        asking.start()
        eventually("it is decided", lambda: named_tasks(api, name))
        pool.kill(away, "xpoold")
        asking.join(60)
        again = Named(api, name)(call, *args)
        (task,) = named_tasks(api, name)
        assert again == (task if call.startswith("Async.") else ""), again
        assert call.startswith("Async.") or isinstance(lost[0], OSError), lost
        assert api.wait_task(task)["status"] == "success" and api("VM.get_power_state", vm) == "Running"
        assert len(named_tasks(api, name)) == 1
        pool.quickstart("start", str(away))
        eventually("the member is back", lambda: pool.status()[away - 1].get("ready") == "yes")
        assert Named(api, name, away)(call, *args) == again  # nor does it start anything when it is back


with Pool() as pool:
    apis = [Api(pool, n).login() for n in (1, 2, 3)]
    by_clients(apis)
    of_operations(apis)
    one_task(apis)
    member_dies(pool, apis)
    left_alone(apis)
    pool.agree()
    pool.check()
