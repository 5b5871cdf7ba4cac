"""GET /pool/xmldbdump: the reference's form, from any member, whole; who may have it; clients that do not read."""
import base64
import glob
import json
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from dump import Dump, value
from xpool import PASSWORD, ROOT, Api, Pool, eventually, vm_record

# what other columns hold that a record shows otherwise: derived anew by whoever reads the file
COMPUTED = {"allowed_operations"}


def model():
    for path in sorted(glob.glob(os.path.join(ROOT, "db", "model", "*.json"))):
        with open(path, encoding="utf-8") as handle:
            cls = json.load(handle)
        if isinstance(cls, dict) and "table" in cls:
            yield cls


def get(pool, member, query="", timeout=60, **headers):
    url = "https://%s:%d/pool/xmldbdump%s" % (pool.address(member), pool.port, query)
    request = urllib.request.Request(url, headers={name.capitalize(): text for name, text in headers.items()})
    return urllib.request.urlopen(request, context=pool.tls, timeout=timeout)


def refused(status, *args, **more):
    try:
        get(*args, **more)
    except urllib.error.HTTPError as fault:
        assert fault.code == status, (fault.code, fault.read())
        return fault
    raise AssertionError("not refused")


def basic(user, password):
    return "Basic " + base64.b64encode(("%s:%s" % (user, password)).encode()).decode()


def same_as_api(dump, api):
    compared = 0
    for cls in model():
        name = cls["name"]
        if cls["table"] != "records":
            assert (name in dump.tables) == (cls["table"] in ("volatile", "fixed")), name
            assert not dump.tables.get(name), "rows of the volatile class %s" % name
            continue
        rows = dump.tables[name]
        if "get_all" not in cls["generated"]:
            continue
        records = api("%s.get_all_records" % name)
        assert rows.keys() == records.keys(), (name, rows.keys() ^ records.keys())
        fields = {f["name"]: f for f in cls["fields"]}
        for ref, record in records.items():
            for field, shown in record.items():
                if field in COMPUTED or fields[field].get("removed") or fields[field].get("volatile"):
                    continue
                text = rows[ref][fields[field].get("column", field)]
                assert value(text, shown) == shown, (name, ref, field, text, shown)
                compared += 1
    return compared


def stalled(pool, member, query):
    """A client that asks and never reads."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((pool.address(member), pool.port))
    tls = pool.tls.wrap_socket(raw, server_hostname=pool.address(member))
    tls.sendall(("GET /pool/xmldbdump%s HTTP/1.0\r\n\r\n" % query).encode())
    return tls


with Pool() as pool:
    apis = {n: Api(pool, n).login() for n in (1, 2, 3)}
    api = apis[1]
    session = "?session_id=" + api.session
    odd = "tab\t, line\n, percent % %. %%, quotes ' \" \\, <&>, \u00e9 \u4e2d"
    vm = api("VM.create", vm_record(odd, tags=[odd, ""], platform={"a key": odd, "b": ""}))
    api("VM.set_user_version", vm, "7")
    eventually("hosts say their schema", lambda: all("db_schema" in host["software_version"] for host in api("host.get_all_records").values()))
    pool.agree()
    generation = 0
    for n in (1, 2, 3):
        reply = get(pool, n, session)
        assert reply.headers["Content-Type"] == "text/xml" and reply.headers["Connection"] == "close"
        dump = Dump(reply.read())
        assert dump.manifest["schema_major_vsn"] == "5" and dump.manifest["schema_minor_vsn"] == "909", dump.manifest
        assert int(dump.manifest["generation_count"]) >= generation
        generation = int(dump.manifest["generation_count"])
        assert dump.tables["VM"][vm]["name__label"] == odd and dump.tables["VM"][vm]["user_version"] == "7"
        assert same_as_api(dump, apis[n]) > 500

    # who may
    assert "realm=\"get_pool_xml_db_sync\"" in refused(401, pool, 1).headers["WWW-Authenticate"]
    refused(401, pool, 2, "?session_id=OpaqueRef:00000000-0000-4000-8000-000000000000")
    refused(401, pool, 2, "?session_id=")
    refused(401, pool, 2, authorization="Basic !!!")
    refused(401, pool, 2, authorization="Digest x")
    began = time.time()
    refused(401, pool, 3, authorization=basic("root", "wrong"))
    assert time.time() - began > 4, "a wrong password costs nothing"
    assert get(pool, 3, authorization=basic("root", PASSWORD)).read().endswith(b"</database>\n")
    assert get(pool, 2, cookie="a=b; session_id=%s" % api.session).read().startswith(b"<?xml")
    # the cookie is looked at first
    refused(401, pool, 2, session, cookie="session_id=OpaqueRef:11111111-0000-4000-8000-000000000000")
    assert get(pool, 2, "?x=1&session_id=" + api.session.replace(":", "%3A")).read().startswith(b"<?xml")
    # a session that was made a moment ago elsewhere
    fresh = Api(pool, pool.leader()).login()
    assert get(pool, 1 + pool.leader() % 3, "?session_id=" + fresh.session).status == 200
    fresh("session.logout")
    refused(401, pool, 1, "?session_id=" + fresh.session)
    for path in ("/pool", "/pool/xmldbdump/x", "/poolxmldbdump"):
        try:
            urllib.request.urlopen("https://%s:%d%s" % (pool.address(1), pool.port, path), context=pool.tls)
        except urllib.error.HTTPError as fault:
            assert fault.code == 404, fault.code

    # a task that is given ends with it
    task = api("task.create", "backup", "")
    get(pool, 2, session + "&task_id=" + task).read()
    record = api.wait_task(task)
    assert record["status"] == "success" and float(record["progress"]) == 1, record

    # kept by each member
    for n in (1, 2, 3):
        folder = os.path.join(pool.data(n), "dumps")
        eventually("a dump is kept", lambda: os.path.isdir(folder) and len(os.listdir(folder)) == 2)
        for name in os.listdir(folder):
            assert name.startswith(("hourly-", "daily-")), name
            with open(os.path.join(folder, name), "rb") as handle:
                Dump(handle.read())
            assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0

    # clients that do not read hold a file, no view, and not for ever; others are served
    text = "x" * 200000
    for n in range(60):
        api("VM.set_name_description", api("VM.create", vm_record("large %d" % n)), text)
    pool.agree()
    clients = [stalled(pool, 1, session) for _ in range(4)]

    def full():
        task = api("task.create", "one too many", "")
        try:
            get(pool, 1, session + "&task_id=" + task).read()
        except urllib.error.HTTPError as fault:
            assert fault.code == 503 and b"TOO_MANY_PENDING_TASKS" in fault.read(), fault.code
            return api.wait_task(task)["error_info"] == ["TOO_MANY_PENDING_TASKS"]
        return False

    eventually("no more than four at a time", full)
    began = time.time()
    whole = Dump(get(pool, 2, session).read())
    assert sum(row["name__description"] == text for row in whole.tables["VM"].values()) == 60
    assert time.time() - began < 20
    clients.pop().close()  # one goes: its place is free
    eventually("a place is free", lambda: not full())

    def served():
        return get(pool, 1, session).read().endswith(b"</database>\n")

    for n in range(20):
        api("VM.set_user_version", vm, str(n))
    assert served()
    began = time.time()
    for client in clients:  # the others are given up
        client.settimeout(60)
        time.sleep(max(0, 35 - (time.time() - began)))
        got = b""
        try:
            while chunk := client.recv(1 << 20):
                got += chunk
        except OSError:
            pass
        assert got.startswith(b"HTTP/1.0 200") and not got.endswith(b"</database>\n"), got[-20:]
    threads = [threading.Thread(target=lambda: [served() for _ in range(3)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in (1, 2, 3):
        counters = pool.counters(n)
        assert counters["elections_won"] + counters["elections_early"] <= 1, counters
    pool.check()
