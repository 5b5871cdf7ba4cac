"""Tasks that clients make go on and end by the word of any member; nobody writes those of operations; who is left alone goes."""
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

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
    assert record["status"] == "success" and record["progress"] == 1 and record["finished"] > record["created"] > EPOCH, record
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


with Pool() as pool:
    apis = [Api(pool, n).login() for n in (1, 2, 3)]
    by_clients(apis)
    of_operations(apis)
    left_alone(apis)
    pool.agree()
    pool.check()
