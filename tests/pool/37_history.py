"""Who changed what: the same on every member, through kills, restarts and damage; and what it says is what the API says."""
import contextlib
import json
import os
import sqlite3
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record


def log(pool, member, vm, *options):
    return json.loads(pool.ctl(member, "db log", "VM", vm, "--json", *options))


def sql(pool, member, statement):
    return json.loads(pool.ctl(member, "sql", statement, "--json"))


def fails(pool, member, what, command, *args):
    done = pool.ctl_run(member, command, *args)
    assert done.returncode == 1 and what in done.stderr, (done.returncode, done.stdout, done.stderr)


def same_as_api(pool, member, api, cls):
    """Every column of every row, against records of the API."""
    records = api("%s.get_all_records" % cls)
    rows = {row.pop("ref"): row for row in sql(pool, member, 'SELECT * FROM "%s"' % cls)}
    assert rows.keys() == records.keys(), (cls, rows.keys() ^ records.keys())
    compared = 0
    for ref, row in rows.items():
        for column, value in row.items():
            name = column.replace("__", "_")
            if name not in records[ref]:
                continue  # internal
            expected = records[ref][name]
            if isinstance(expected, (list, dict)):
                value = json.loads(value)
            elif isinstance(expected, bool):
                value = bool(value)
            elif isinstance(expected, str) and isinstance(value, int):
                value = str(value)
            assert value == expected, (cls, ref, column, value, expected)
            compared += 1
    assert compared > len(rows), cls


with Pool() as pool:
    apis = {n: Api(pool, n).login() for n in (1, 2, 3)}
    vm = apis[1]("VM.create", vm_record("history", other_config={"k": "v"}))
    uuid = apis[1]("VM.get_uuid", vm)
    for n in (1, 2, 3):
        apis[n]("VM.set_name_description", vm, "by %d" % n)
    apis[2]("VM.set_tags", vm, ["b", "a"])
    apis[3]("VM.add_to_xenstore_data", vm, "new key", "tab\there")
    task = apis[2]("Async.VM.start", vm, False, True)
    assert apis[2].wait_task(task)["status"] == "success"
    pool.agree()
    for n in (1, 2, 3):
        story = log(pool, n, uuid)
        assert story[0]["change"] == "created" and story[0]["user"] == "root" and story[0]["method"] == "VM.create", story[0]
        told = [(c["old"], c["new"]) for c in story if c.get("field") == "name_description"]
        assert told == [("", "by 1"), ("by 1", "by 2"), ("by 2", "by 3")], told
        (tags,) = [c for c in story if c.get("field") == "tags"]
        assert tags["new"] == ["b", "a"] and tags["method"] == "VM.set_tags" and tags["user"] == "root", tags
        assert {c["method"] for c in story} <= {"VM.create", "VM.set_name_description", "VM.set_tags", "VM.start",
                                                "VM.add_to_xenstore_data"}, story
        (power,) = log(pool, n, uuid, "--field", "power_state")
        assert (power["old"], power["new"], power["task"], power["user"], power["method"]) == \
            ("Halted", "Running", task, "root", "VM.start"), power
        assert story == log(pool, n, vm), "by reference"
        # somebody or something did everything
        assert sql(pool, n, "SELECT count(*) AS n FROM history WHERE user = '' OR method = ''") == [{"n": 0}]
        users = {row["user"] for row in sql(pool, n, "SELECT DISTINCT user FROM history")}
        assert {"root", "coordinator", "host"} <= users, users
        # as it was
        before = json.loads(pool.ctl(n, "db at", str(power["index"] - 1), "VM", uuid, "--json"))
        assert before["power_state"] == "Halted" and before["name_description"] == "by 3" and before["domid"] == -1, before
        first = json.loads(pool.ctl(n, "db at", str(story[0]["index"]), "VM", uuid, "--json"))
        assert first["name_description"] == "" and first["other_config"]["k"] == "v", first
        fails(pool, n, "did not exist then", "db at", str(story[0]["index"] - 1), "VM", uuid)
        text = pool.ctl(n, "db log", "VM", uuid, "--since", "1h")
        assert '"Halted" -> "Running" task=%s' % task in text, text
        assert pool.ctl(n, "db log", "VM", uuid, "--since", "20990101T00:00:00Z") == ""
        for cls in ("VM", "host", "pool"):
            same_as_api(pool, n, apis[n], cls)
        assert not sql(pool, n, "SELECT name FROM sqlite_master WHERE name = 'session'")
    pool.check()
    table = pool.ctl(1, "sql", "SELECT name__label, json_extract(xenstore_data, '$.\"new key\"') AS k FROM VM WHERE ref = '%s'" % vm)
    assert table == "name__label  k\nhistory      tab\\x09here\n", table

    # errors name their cause and what to do
    fails(pool, 1, "change the pool through the API", "sql", "DELETE FROM VM")
    fails(pool, 1, "tables are named as classes", "sql", "SELECT 1 FROM vms")
    fails(pool, 1, "columns are spelt as in filters", "sql", "SELECT name_label FROM VM")
    fails(pool, 1, "ask one at a time", "sql", "SELECT 1; SELECT 2")
    fails(pool, 1, "no class of the API", "db log", "VMs", uuid)
    fails(pool, 1, "no object of this class", "db log", "VM", "00000000-0000-4000-8000-000000000000")
    fails(pool, 1, "no such field", "db log", "VM", uuid, "--field", "nmae")
    fails(pool, 1, "no time", "db log", "VM", uuid, "--since", "yesterday")
    fails(pool, 1, "no index that history reaches", "db at", "999999", "VM", uuid)

    # a member that was killed has the whole story afterwards, also of when it was away
    away = 1 + pool.leader() % 3
    api = apis[1 + away % 3]
    pool.quickstart("kill", str(away))
    for n in range(30):
        api("VM.set_name_description", vm, "without it %d" % n)
    old = len(log(pool, away, uuid))  # from its file, alone
    fails(pool, away, "xpoold does not run here", "db check")
    pool.quickstart("start", str(away))
    eventually("it is back", lambda: pool.status()[away - 1].get("ready") == "yes")
    pool.agree()
    story = log(pool, away, uuid)
    assert len(story) == old + 30 and [c["new"] for c in story[-30:]] == ["without it %d" % n for n in range(30)], story[-3:]
    pool.check()

    # a deleted object keeps its story
    gone = api("VM.create", vm_record("gone"))
    gone_uuid = api("VM.get_uuid", gone)
    api("VM.destroy", gone)
    pool.agree()
    for n in (1, 2, 3):
        story = log(pool, n, gone_uuid)
        assert [c["change"] for c in story] == ["created", "deleted"] and story[1]["method"] == "VM.destroy", story
        at = json.loads(pool.ctl(n, "db at", str(story[0]["index"]), "VM", gone_uuid, "--json"))
        assert at["name_label"] == "gone"

    # a file of a version that has one field more: it is shown as it is, and said to be unknown
    copied = os.path.join(pool.dir, "copied.db")
    pool.ctl(away, "sql", "SELECT 1")  # the newest is in the file
    with contextlib.closing(sqlite3.connect(os.path.join(pool.data(away), "projection.db"))) as db, \
            contextlib.closing(sqlite3.connect(copied)) as copy:
        db.backup(copy)
        copy.execute("ALTER TABLE VM ADD COLUMN shelf__mark")
        copy.execute("UPDATE VM SET shelf__mark = 'upper' WHERE ref = ?", (vm,))
        copy.execute("INSERT INTO history SELECT idx, time, 'VM', ?, 'shelf__mark', 'lower', 'root', '', 'VM.set_shelf_mark' FROM projection",
                     (vm,))
        copy.commit()
    story = json.loads(pool.ctl(away, "db log", "VM", uuid, "--json", "--file", copied))
    (strange,) = [c for c in story if c.get("field") == "shelf__mark"]
    assert (strange["old"], strange["new"], strange["known"]) == ("lower", "upper", False), strange
    assert [c for c in story if c is not strange] == log(pool, away, uuid)
    text = pool.ctl(away, "db log", "VM", uuid, "--file", copied, "--field", "shelf__mark")
    assert text.endswith('VM.set_shelf_mark shelf__mark (not known to this version): "lower" -> "upper"\n') and text.count("\n") == 1, text
    now = json.loads(pool.ctl(away, "db at", str(strange["index"]), "VM", uuid, "--json", "--file", copied))
    assert now["shelf__mark"] == "upper" and now["name_label"] == "history", now

    # other hands in the file of a running member: db check says so and ends with 1
    with contextlib.closing(sqlite3.connect(os.path.join(pool.data(away), "projection.db"), timeout=30)) as db:
        for statement, what in (("UPDATE VM SET name__label = 'forged' WHERE ref = ?", "VM %s: name__label is not what the state has" % vm),
                                ("DELETE FROM VM WHERE ref = ?", "VM %s: is missing" % vm)):
            db.execute(statement, (vm,))
            db.commit()
            done = pool.ctl_run(away, "db check")
            assert done.returncode == 1 and what in done.stdout and done.stdout.endswith("broken\n"), done
    assert "VM rows: more or fewer than the state has" in done.stdout, done

    # whatever becomes of the file, a new one comes, and the member does not care
    path = os.path.join(pool.data(away), "projection.db")
    pool.quickstart("kill", str(away))
    with contextlib.closing(sqlite3.connect(path)) as db:  # or its log would mend it
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(path, "r+b") as handle:
        handle.write(os.urandom(40000))
    fails(pool, away, "a running xpoold makes it anew", "sql", "SELECT count(*) FROM VM")
    pool.quickstart("start", str(away))
    eventually("it is back", lambda: pool.status()[away - 1].get("ready") == "yes")
    pool.check(away)
    assert os.path.exists(path + ".aside1")
    os.unlink(path)
    api("VM.set_name_description", vm, "after the deletion")
    pool.agree()
    pool.check(away)
    assert sql(pool, away, "SELECT name__description AS d FROM VM WHERE ref = '%s'" % vm) == [{"d": "after the deletion"}]
    counters = pool.counters(away)
    assert counters["projection_aside"] == 1 and counters["projection_failures"] == 0, counters
    apis[1]("VM.hard_shutdown", vm)

    # other hands on the file of a stopped member leave it writable for its owner
    pool.quickstart("down")
    sql(pool, away, "SELECT count(*) AS n FROM VM")
    os.unlink(os.path.join(pool.data(1 + away % 3), "projection.db"))
    fails(pool, 1 + away % 3, "xpoold makes it when it runs", "sql", "SELECT 1")
    pool.up()
    pool.agree()
    pool.check()

    # without
    pool.quickstart("down")
    pool.env["XPOOLD_OPTIONS"] = "--no-projection"
    os.unlink(path)
    pool.up()
    pool.agree()
    assert "switched off" in pool.ctl(away, "db check") and not os.path.exists(path)
