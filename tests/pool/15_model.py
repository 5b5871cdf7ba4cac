"""Every class by the published tables: method list, counts, records in both encodings, all generated messages, what is
gone and what nobody has written yet, through different members."""
import os
import sys
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
import model
from model import CLASSES, REMOVED, decode_json, decode_xml, sample
from objects import accessors, records, searches
from xpool import Api, ApiError, Pool, eventually, vm_record

OWN = {"SR.clear_left"}  # between members
CREATED = [c for c in CLASSES.values() if c["in_database"] and c["implicit"]["create_destroy"]]


def lists(api):
    want = set()
    for name, cls in CLASSES.items():
        want |= {"%s.%s" % (name, m["name"]) for m in cls["messages"]}
    have = api.raw("system.listMethods")
    assert len(have) == len(set(have)) == 2258 + len(OWN) and OWN <= set(have), len(have)
    assert want <= set(have), want - set(have)
    gone = {m["method"] for m in REMOVED["methods"]}
    assert gone <= set(have), gone - set(have)
    for method in REMOVED["methods"]:
        if method["answers"] == "MESSAGE_REMOVED":
            assert api.fails("MESSAGE_REMOVED", method["method"], *["x"] * method["params"]) == []


def counts(api):
    """Each declared message refuses a wrong number of arguments before anything else."""
    tried = unwritten = 0
    for name, cls in CLASSES.items():
        for message in cls["messages"]:
            full, need = "%s.%s" % (name, message["name"]), [p for p in message["params"] if "default" not in p]
            tried += 1
            if need and message.get("session", True):
                assert api.fails("MESSAGE_PARAMETER_COUNT_MISMATCH", full) == [full, str(len(need)), "0"]
    return tried


def create(rng, api, cls, refs, turn):
    """One object with a random value for each field a client may give; what it must read back as."""
    given, want, ruled = {}, {}, model.RULED.get(cls, lambda n, refs: {})(turn, refs)
    for name, field in model.fields(cls).items():
        if field["qualifier"] == "DynamicRO" or model.is_removed(cls, name):
            continue
        given[name] = ruled.get(name, sample(rng, field["type"], refs))
        if not field.get("derived"):
            want[name] = given[name]
    given["no such member"] = "passed over"
    if cls == "VM":
        want["power_state"] = "Halted"
        want["other_config"] = given["other_config"] = dict(given["other_config"], mac_seed="seed")
    ref = api(cls + ".create", given)
    record = api(cls + ".get_record", ref)
    for name, value in want.items():
        assert record[name] == value, (cls, name, value, record[name])
    for name, field in model.fields(cls).items():
        if field["qualifier"] != "DynamicRO" and "default" not in field and not model.is_removed(cls, name):
            short = {k: v for k, v in given.items() if k != name}
            assert api.fails("FIELD_TYPE_ERROR", cls + ".create", short) == [name], (cls, name)
    return ref


def by_task(api, cls, given):
    """create and destroy by Async.: the task has ended with the reference as XML-RPC text, or with the error."""
    made = api.wait_task(api("Async.%s.create" % cls, given))
    decode_json("record<task>", made)
    assert made["status"] == "success" and made["progress"] == 1 and made["name_label"] == "Async.%s.create" % cls, made
    ref = decode_xml("ref<%s>" % cls, ElementTree.fromstring(made["result"]))
    assert api(cls + ".get_uuid", ref) == api(cls + ".get_record", ref)["uuid"]
    ended = api.wait_task(api("Async.%s.destroy" % cls, ref))
    assert ended["status"] == "success" and ended["result"] == "" and ended["error_info"] == [], ended
    task = api("Async.%s.destroy" % cls, ref)
    failed = api.wait_task(task)
    assert failed["status"] == "failure" and failed["error_info"] == ["HANDLE_INVALID", cls, ref], failed
    api("task.destroy", task)
    assert api.fails("HANDLE_INVALID", "task.get_record", task) == ["task", task]


def unwritten(api):
    """Declared messages that nobody has written say so, with their name; the arguments must fit first. They are those of
    tests/data/unwritten.txt: who writes one takes its line away."""
    rng, found = model.seeded(5), set()
    for name, cls in CLASSES.items():
        for message in cls["messages"]:
            full = "%s.%s" % (name, message["name"])
            if full in ("session.logout", "event.from", "event.next"):
                continue
            args = [sample(rng, p["type"]) for p in message["params"] if "default" not in p]
            try:
                (api if message.get("session", True) else api.raw)(full, *args, timeout=90)
            except ApiError as fault:
                if fault.code == "NOT_IMPLEMENTED":
                    assert fault.args[1] == full, fault.args
                    found.add(full)
                assert fault.code not in ("MESSAGE_METHOD_UNKNOWN", "FIELD_TYPE_ERROR", "INTERNAL_ERROR"), (full, fault.args)
    with open(os.path.join(os.path.dirname(model.DATA), "unwritten.txt"), encoding="utf-8") as handle:
        listed = [line.strip() for line in handle if not line.startswith("#")]
    assert listed == sorted(set(listed)), "tests/data/unwritten.txt is not sorted"
    gone, new = sorted(set(listed) - found), sorted(found - set(listed))
    assert not gone, "written by now, take them out of tests/data/unwritten.txt: %s" % " ".join(gone)
    assert not new, "no longer written, or declared and not written: %s" % " ".join(new)
    return len(found)


def filters(api):
    """get_all_where and get_all_records_where: which rows an expression has; what is none is refused with the expression."""
    refs = {}
    for label, text in ("fa", "x"), ("fb", "x"), ("fc", "y"):
        refs[label] = api("VM.create", vm_record(label, name_description=text, user_version="17", HVM_boot_params={"k": "it's", "l": "\\"}))
        api("VM.add_tags", refs[label], "one " + label)
    label, desc = 'field "name__label"="f%s"', 'field "name__description"="%s"'
    a, b, c, x, y = label % "a", label % "b", label % "c", desc % "x", desc % "y"
    for expr, rows in {
            "true": "abc", "false": "", a: "a", " \t( %s )\n" % a.replace("=", " = "): "a", 'field "name_label"="fa"': "a",
            '"fa"=field "name__label"': "a", '"one"="one"': "abc", '"one"="other"': "",
            'field "_ref"="%s"' % refs["fb"]: "b", 'field "uuid"="%s"' % api("VM.get_uuid", refs["fc"]): "c",
            'field "name__label"=field "name__description"': "",
            "not " + a: "bc", "%s or %s" % (a, c): "ac", "%s and %s" % (a, x): "a", "%s and %s" % (a, y): "",
            # and, or: from left to right; not: of all that follows
            "%s or %s and %s" % (a, b, y): "", "%s or (%s and %s)" % (a, b, y): "a", "%s and %s or %s" % (a, y, c): "c",
            "not %s and %s" % (a, x): "bc", "(not %s) and %s" % (a, x): "b", "%s and not %s or %s" % (x, a, b): "",
            "not not " + a: "a", "not (%s or %s)" % (a, b): "c",
            'field "is_a_template"="false"': "abc", 'field "is_a_template"="0"': "", 'field "user_version"="17"': "abc",
            'field "VBDs"="()"': "abc", """field "tags"="('one fb')\"""": "b", 'field "power_state"="Halted"': "abc",
            """field "HVM__boot_params"="(('k' 'it\\'s') ('l' '\\\\'))\"""": "abc",
            'field "affinity"="OpaqueRef:NULL"': "abc", "(" * 20 + a + ")" * 20: "a"}.items():
        found = api("VM.get_all_where", expr)
        assert "".join(k[1] for k in sorted(refs) if refs[k] in found) == rows, (expr, rows)
        records = api("VM.get_all_records_where", expr)
        assert set(records) == set(found) and all(records[r] == api("VM.get_record", r) for r in refs.values() if r in found), expr
    assert api("VM.get_all_where", "false") == [] and set(api("VM.get_all_where", "true")) == set(api("VM.get_all"))
    for expr in ("", " ", "TRUE", "True", "trueand true", "true and", "and true", "not", "(true", "true)", "()", "true true", 'field "name__label"',
                 'field "nothing"="x"', 'field name__label="x"', 'field "name__label"=', 'field "name__label"=="x"', '"a"="a', "'a'='a'",
                 'field "name__label"="a"b"', "1", "(" * 1000 + "true" + ")" * 1000, "not " * 1000 + "true"):
        told = api.fails("INVALID_VALUE", "VM.get_all_where", expr)
        assert told[0] == expr and len(told) == 2, told
        api.fails("INVALID_VALUE", "VM.get_all_records_where", expr)
    api.fails("INVALID_VALUE", "VM.get_all_where", '"%s"="x"' % ("x" * 20000))
    for ref in refs.values():
        api("VM.destroy", ref)


with Pool() as pool:
    apis = [Api(pool, n).login() for n in (1, 2, 3)]
    lists(apis[1])
    tried = counts(apis[2])
    filters(apis[2])
    rng, refs, made = model.seeded(1), model.ruled_objects(apis[0], pool.make_sr), []
    for turn in range(3):
        for cls in CREATED:
            api = apis[turn]
            ref = create(rng, api, cls["name"], refs, turn)
            made.append((cls["name"], ref))
            refs.setdefault(cls["name"], []).append(ref)
    for n, (cls, ref) in enumerate(made[:len(CREATED)]):
        by_task(apis[n % 3], cls, dict(apis[n % 3](cls + ".get_record", ref), **model.RULED.get(cls, lambda n, refs: {})(9, refs)))
    written = sum(accessors(rng, apis[n % 3], cls, ref, refs) for n, (cls, ref) in enumerate(made))
    written += accessors(rng, apis[0], "task", apis[0]("task.create", "by a client", ""), refs)
    for cls in ("host", "pool"):
        ref = apis[0](cls + ".get_all")[0]
        written += accessors(rng, apis[0], cls, ref, refs)
        searches(apis[2], cls, ref)
    for n, (cls, ref) in enumerate(made):
        searches(apis[n % 3], cls, ref)
    plain = lambda task: "." in task["name_label"] and not task["name_label"].startswith("Async.")
    eventually("tasks of plain calls go once they have been seen", lambda: not [t for t in apis[0]("task.get_all_records").values() if plain(t)])
    seen = sum(records(apis[n % 3], cls) for n, cls in enumerate(CLASSES) if CLASSES[cls]["in_database"])
    for cls in CLASSES:
        if CLASSES[cls]["in_database"]:
            assert apis[0].fails("HANDLE_INVALID", cls + ".get_record", "OpaqueRef:none") == [cls, "OpaqueRef:none"]
            if CLASSES[cls]["implicit"]["get_all"]:
                for ref, record in apis[1](cls + ".get_all_records").items():
                    decode_json("record<%s>" % cls, record, ref)

    # one VM with what hangs on it: gone together
    vm = next(ref for cls, ref in made if cls == "VM")
    before = {cls: set(apis[0](cls + ".get_all")) for cls in ("VBD", "VIF", "console", "VM_metrics")}
    hanging = {cls: {r for r in before[cls] if cls != "VM_metrics" and apis[0](cls + ".get_VM", r) == vm} for cls in before}
    hanging["VM_metrics"] = {apis[0]("VM.get_metrics", vm)}
    apis[0]("VM.destroy", vm)
    hops = Api(pool, 2, apis[0].session)  # what a session has done it sees everywhere
    for cls in before:
        assert set(hops(cls + ".get_all")) == before[cls] - hanging[cls], cls
    for n, (cls, ref) in enumerate(made):
        api = apis[n % 3]
        if ref != vm and not (cls in hanging and ref in hanging[cls]):
            try:
                api(cls + ".destroy", ref)
            except ApiError as fault:
                assert fault.code == "HANDLE_INVALID" and fault.args[2] == ref, fault.args  # went with another one
        assert api.fails("HANDLE_INVALID", cls + ".destroy", ref) == [cls, ref]

    # roles are rows from a table
    admin = apis[0]("role.get_by_name_label", "pool-admin")
    assert admin == ["OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba"], admin
    assert len(apis[1]("role.get_all")) == 2291
    reader = apis[2]("role.get_by_name_label", "read-only")[0]
    assert len(apis[2]("role.get_subroles", reader)) >= 1363
    missing = unwritten(apis[0])
    eventually("parts of operations go with them", lambda: "task.subtask_of" not in pool.ctl(1, "db check"))
    for n in (1, 2, 3):
        print("member %d: %s" % (n, pool.ctl(n, "db check").strip()))
    pool.agree()
    print("declared %d, unwritten %d; %d objects made, %d writes through accessors, %d records decoded" % (
        tried, missing, len(made), written, seen))
