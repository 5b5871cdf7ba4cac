"""The audit log: who called what, allowed or denied, with names of objects and without secrets, at any member; rotated, bounded, never waited for."""
import base64
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, ApiError, Pool, at_once, eventually, refused, vm_record

LINE = re.compile(r"\[(\d{8}T\d\d:\d\d:\d\d\.\d{3}Z)\|info\|([^|]+)\|0 \|(\S+) (\S*)\|audit\] \('trackid=([0-9a-f]{32})' "
                  r"'((?:[^'\\]|\\.)*)' '((?:[^'\\]|\\.)*)' '(ALLOWED|DENIED)' '(OK|ERROR:\w+)' '(API|HTTP)' '([^']+)' \((.*)\)\)")

APPENDED = re.compile(r"\[\d{8}T\d\d:\d\d:\d\d\.\d{3}Z\|info\|[^|]+\|0 \|\|audit\] (.*)")


def fetched(pool, member, query="", user="root", password=PASSWORD):
    request = urllib.request.Request("https://%s/audit_log%s" % (pool.address(member), query))
    request.add_header("Authorization", "Basic " + base64.b64encode(("%s:%s" % (user, password)).encode()).decode())
    with urllib.request.urlopen(request, context=pool.tls, timeout=60) as reply:
        assert reply.headers["Content-Type"] == "text/plain"
        return reply.read().decode()


def log(pool, member, **wanted):
    """What stands there of a method, as dicts; each line must be whole."""
    found = []
    for line in fetched(pool, member).splitlines():
        if APPENDED.fullmatch(line):
            continue
        match = LINE.fullmatch(line)
        assert match, "no line of the audit log: %r" % line
        entry = dict(zip(("time", "host", "method", "task", "track", "sid", "user", "verdict", "result", "kind", "call", "arguments"), match.groups()))
        if all(entry[k] == v for k, v in wanted.items()):
            found.append(entry)
    return found


def path(pool, member, name="audit.log"):
    return os.path.join(pool.data(member), "audit", name)


def attempt(pool, member, api, *call):
    """The result, or the code of the error."""
    try:
        return Api(pool, member, api.session)(*call)
    except ApiError as fault:
        return fault.code


def calls(pool, api):
    """One line for each that may change something, where it was called."""
    vm = api("VM.create", vm_record("it's a \\ VM", template=False))
    uuid = api("VM.get_uuid", vm)
    api("VM.set_name_description", vm, "two\nlines")
    api("VM.add_to_other_config", vm, "token", "Value-Of-A-Map")
    task = api("Async.VM.start", vm, False, False)
    api.wait_task(task)
    api.fails("VM_BAD_POWER_STATE", "VM.start", vm, False, False)
    api("VM.hard_shutdown", vm)
    secret = api("secret.create", {"value": "Hidden-Value", "other_config": {}})
    api("secret.set_value", secret, "Other-Hidden-Value")
    number = "6d1a1f2e-0000-4000-8000-00000000000a"
    made = at_once(*[lambda m=m: attempt(pool, m, api, "secret.introduce", number, "Introduced-Hidden", {"a": "b"}) for m in (1, 2, 3)])
    introduced, = [m for m in made if m.startswith("OpaqueRef:")]
    assert made.count("DB_UNIQUENESS_CONSTRAINT_VIOLATION") == 2, made
    record = api("secret.get_record", introduced)
    assert record == {"uuid": number, "value": "Introduced-Hidden", "other_config": {"a": "b"}}, record
    api.fails("UUID_INVALID", "secret.introduce", "no uuid", "x", {})
    shown = pool.ctl(1, "sql", "SELECT * FROM secret") + pool.ctl(1, "sql", "SELECT * FROM history")
    assert number in shown and "Hidden" not in shown, "the projection shows a secret"
    api("session.set_other_config", api.session, {})
    api("session.change_password", "Old-Hidden", PASSWORD)
    api("VM.destroy", vm)

    created, = [e for e in log(pool, 1, call="VM.create") if "it\\'s" in e["arguments"]]  # others made what the pool shows first
    mine = created["track"]
    assert created["verdict"] == "ALLOWED" and created["result"] == "OK" and created["kind"] == "API" and created["sid"] == "LOCAL_SUPERUSER"
    assert created["user"] == "root" and r"('name_label' 'it\'s a \\ VM' '' '')" in created["arguments"], created
    start, failed = log(pool, 1, call="VM.start", track=mine)
    named = r"('vm' 'it\'s a \\ VM' '%s' '%s')" % (uuid, vm)
    assert named in start["arguments"] and "('start_paused' 'false' '' '')" in start["arguments"], start
    assert start["task"] == "R:" + task.split(":")[1] and start["result"] == "OK"
    assert failed["verdict"] == "ALLOWED" and failed["result"] == "ERROR:VM_BAD_POWER_STATE"
    assert named.replace("'vm'", "'self'") in log(pool, 1, call="VM.destroy", track=mine)[0]["arguments"], "what has gone has a name"
    assert "two lines" not in log(pool, 1, call="VM.set_name_description", track=mine)[0]["arguments"]
    assert "('key' 'token' '' '')" in log(pool, 1, call="VM.add_to_other_config", track=mine)[0]["arguments"]
    assert len(log(pool, 1, call="session.create", track=mine)) == 1
    assert not [e for e in log(pool, 1) if ".get" in e["call"] or e["call"] in ("event.from", "http/post_cli")]
    assert [e["kind"] for e in log(pool, 1, call="http/get_audit_log")][:1] == ["HTTP"]
    assert log(pool, 2, call="VM.destroy", track=mine) == log(pool, 1, call="VM.destroy", track=mine), "any member has them all"


def refusals(pool, api):
    """Who was not let in, and who may not."""
    at_once(lambda: refused(pool, 1, "root", "Wrong-Hidden"))
    wrong, = log(pool, 1, verdict="DENIED")
    assert wrong["call"] == "session.login_with_password" and wrong["result"] == "ERROR:SESSION_AUTHENTICATION_FAILED"
    assert "('uname' 'root' '' '')" in wrong["arguments"] and "('address' '127.0.0.1' '' '')" in wrong["arguments"]
    (ref,) = api("pool.get_all")
    with open(os.path.join(pool.dir, "member1", "agent", "directory.json"), "w", encoding="utf-8") as handle:
        handle.write('{"users": [{"id": "S-1", "name": "alice", "password": "%s", "groups": []}], "groups": []}' % HASH)
    api("pool.enable_external_auth", ref, {"pass": "Joining-Hidden"}, "example", "file")
    subject = api("subject.create", {"subject_identifier": "S-1", "other_config": {}})
    api("subject.add_to_roles", subject, api("role.get_by_name_label", "read-only")[0])
    alice = Api(pool, 1).login("alice", PASSWORD)
    alice.fails("RBAC_PERMISSION_DENIED", "pool.set_name_label", ref, "hers")
    alice.fails("RBAC_PERMISSION_DENIED", "secret.get_all")
    denied = [e for e in log(pool, 1, user="alice") if e["verdict"] == "DENIED"]
    assert [(e["call"], e["result"], e["sid"]) for e in denied] == [
        ("pool.set_name_label", "ERROR:RBAC_PERMISSION_DENIED", "S-1"), ("secret.get_all", "ERROR:RBAC_PERMISSION_DENIED", "S-1")], denied
    assert "'%s'" % ref in denied[0]["arguments"]
    added, = log(pool, 1, call="subject.add_to_roles")
    assert "('self' 'alice'" in added["arguments"] and "('role' 'read-only'" in added["arguments"], added
    assert "('auth_type' 'file' '' '')" in log(pool, 1, call="pool.enable_external_auth")[0]["arguments"]
    assert "Wrong-Hidden" not in fetched(pool, 1, user="alice"), "a role that may read it"
    alice.fails("RBAC_PERMISSION_DENIED", "pool.audit_log_append", "hers")


def appended(pool, api):
    """Lines of others, one each whatever is in them."""
    for text in ("a line", "two\nlines\x7f|'", "x" * 8192):
        api("pool.audit_log_append", text)
    assert api.fails("VALUE_NOT_SUPPORTED", "pool.audit_log_append", "x" * 8193)[0] == "line"
    lines = [match.group(1) for match in map(APPENDED.fullmatch, fetched(pool, 1).splitlines()) if match]
    assert lines == ["a line", "two lines |'", "x" * 8192], lines


def merged(pool, api):
    """Each line of each member once, by time, from any of them; a log of many pages; who does not answer is named."""
    (ref,) = api("pool.get_all")
    for round in range(3):
        for m in (1, 2, 3):
            Api(pool, m, api.session)("pool.add_to_other_config", ref, "key-%d-%d" % (round, m), "")
    texts = [fetched(pool, m, "?since=2026").splitlines() for m in (1, 2, 3)]
    keys = [re.findall(r"key-\d-\d", text) for text in map("\n".join, texts)]
    assert keys[0] == keys[1] == keys[2] and len(keys[0]) == len(set(keys[0])) == 9, keys
    assert all([line[:22] for line in text] == sorted(line[:22] for line in text) for text in texts)
    lines = ["[20200101T%02d:%02d:%02d.000Z|info|old|0 ||audit] %07d %s\n" % (n // 3600, n // 60 % 60, n % 60, n, "x" * 80) for n in range(40000)]
    for m in (2, 3):
        with open(path(pool, m, "audit.log.1"), "w", encoding="utf-8") as handle:
            handle.writelines(lines[m::2])
    old = [line for line in fetched(pool, 1).splitlines(True) if "|old|" in line]
    assert old == lines[2:], (len(old), old[:2])
    assert not [line for line in fetched(pool, 1, "?since=20200102").splitlines() if "|old|" in line]
    for m in (2, 3):
        os.unlink(path(pool, m, "audit.log.1"))
    request = urllib.request.Request("https://%s/audit_log" % pool.address(2), b"OpaqueRef:3a1d3b6c-0000-4000-8000-00000000000a")
    try:
        urllib.request.urlopen(request, context=pool.tls, timeout=60)
        raise AssertionError("a page for anybody")
    except urllib.error.HTTPError as fault:
        assert fault.code == 401, fault
    pool.quickstart("kill", "3")
    whole = fetched(pool, 1).splitlines()
    assert re.search(r"\|warn\|\S+\|0 \|\|audit\] more of its audit log is not here: .+", whole[-1]), whole[-1]
    assert "key-0-2" in "\n".join(whole) and "key-0-3" not in "\n".join(whole)
    pool.quickstart("start", "3")
    eventually("member 3 has the pool again", lambda: pool.status()[2].get("ready") == "yes")


def failures(pool, api):
    """Refused logins are told of by one alert of the member, with the worst three."""
    told = lambda: [m for m in api("message.get_all_records").values() if m["name"] == "FAILED_LOGIN_ATTEMPTS"]
    assert told() == [], "after an hour"
    users = ["worst"] * 4 + ["<b>ad"] * 3 + ["root"] * 2 + ["least", "other"]
    at_once(*(lambda user=user: refused(pool, 2, user, "Wrong-Hidden") for user in users))
    api("pool.add_to_other_config", api("pool.get_all")[0], "xpool-failed-logins-interval", "1")
    of_second = lambda: [m for m in told() if m["obj_uuid"] == second]
    second = next(h["uuid"] for h in api("host.get_all_records").values() if h["address"] == pool.address(2))
    eventually("it is told", of_second)
    alert, = of_second()
    body = ElementTree.fromstring(alert["body"])
    assert alert["cls"] == "Host" and (body.findtext("total"), body.findtext("unknown")) == ("11", "2"), alert
    assert [(k.findtext("username"), k.findtext("ip"), k.findtext("number")) for k in body.findall("known")] == [
        ("worst", "127.0.0.1", "4"), ("<b>ad", "127.0.0.1", "3"), ("root", "127.0.0.1", "2")], alert["body"]
    assert "Hidden" not in alert["body"]
    at_once(lambda: refused(pool, 2, "again", "Wrong-Hidden"))
    eventually("those after it are told apart", lambda: len(of_second()) == 2)
    assert ["<total>1<" in m["body"] and "again" in m["body"] for m in of_second()].count(True) == 1


def by_xe(pool):
    target = os.path.join(pool.dir, "audit.txt")
    xe = [os.path.join(sys.argv[1], "xe"), "-s", pool.address(1), "-u", "root", "-pw", PASSWORD]
    done = subprocess.run(xe + ["audit-log-get", "filename=" + target], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, HOME=pool.dir))
    assert done.returncode == 0, done.stdout
    with open(target, encoding="utf-8") as handle:
        assert "'VM.start'" in handle.read()


def restarted(pool):
    pool.quickstart("kill", "1")
    pool.quickstart("start", "1")
    eventually("member 1 has the pool again", lambda: pool.status()[0].get("role") in ("follower", "leader-ready"))
    pool.agree()
    return Api(pool, 1).login()


def bounded(pool):
    """Files are rotated, the oldest goes; since counts across them; a disk that takes nothing costs lines and no call."""
    whole = fetched(pool, 1)
    for n in range(1, 8):
        with open(path(pool, 1, "audit.log.%d" % n), "w", encoding="utf-8") as handle:
            handle.write(whole.splitlines()[0].replace("[2", "[1", 1) + " file %d\n" % n)
    with open(path(pool, 1), "ab") as handle:
        handle.truncate((8 << 20) - 200)  # zeros, as after a power cut: no line
        handle.seek(0, 2)
        handle.write(b"\n")
    again = restarted(pool)
    again("pool.set_name_label", again("pool.get_all")[0], "behind the rotation")
    again("pool.set_name_label", again("pool.get_all")[0], "and once more")
    eventually("the file is rotated", lambda: os.path.getsize(path(pool, 1)) < 4 << 20)
    assert not [n for n in range(8, 12) if os.path.exists(path(pool, 1, "audit.log.%d" % n))]
    for n in range(1, 8):
        assert oct(os.stat(path(pool, 1)).st_mode & 0o777) == "0o600"
    text = fetched(pool, 1)
    assert "file 7\n" not in text and text.index("file 6\n") < text.index("file 1\n") < text.index("'VM.start'")
    late = fetched(pool, 1, "?since=2020-01-01T00:00:00Z")
    assert "file 1\n" not in late and "'VM.start'" in late
    assert fetched(pool, 1, "?since=29990101") == ""

    os.rename(os.path.join(pool.data(1), "audit"), os.path.join(pool.data(1), "audit.away"))
    with open(os.path.join(pool.data(1), "audit"), "w", encoding="utf-8"):
        pass  # nothing can be made below it
    again = restarted(pool)
    for n in range(20):
        again("pool.set_name_label", again("pool.get_all")[0], "not written %d" % n)
    assert pool.counters(1)["audit_dropped"] > 0 and "event=audit_not_written" in dict(pool.logs())["member1/xpoold.log"]
    os.unlink(os.path.join(pool.data(1), "audit"))
    again("pool.set_name_label", again("pool.get_all")[0], "written again")
    eventually("it goes on, and says what is missing", lambda: os.path.exists(path(pool, 1)) and "lines were dropped" in open(path(pool, 1)).read())


import ctypes  # the product's own hash is dear, and this one is not about it
import ctypes.util

LIBCRYPT = ctypes.CDLL(ctypes.util.find_library("crypt"))
LIBCRYPT.crypt.restype = ctypes.c_char_p
HASH = LIBCRYPT.crypt(PASSWORD.encode(), b"$1$abcdefgh$").decode()

with Pool() as pool:
    api = Api(pool, 1).login()
    calls(pool, api)
    refusals(pool, api)
    appended(pool, api)
    merged(pool, api)
    failures(pool, api)
    by_xe(pool)
    try:
        fetched(pool, 1, password="Wrong-Hidden")
        raise AssertionError("anybody may read it")
    except urllib.error.HTTPError as fault:
        assert fault.code == 401, fault
    for hidden in ("Hidden-Value", "Value-Of-A-Map", "Hidden", PASSWORD, HASH, api.session):
        assert hidden not in fetched(pool, 1), "the audit log shows a secret: %s" % hidden
    bounded(pool)
    pool.agree()
