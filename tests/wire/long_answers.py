"""Answers of many records leave while they are made: whole and of one view for each client, however slow; in chunks for HTTP/1.1, up to
the end of the connection for 1.0; in bounded memory; and a client that does not read has no view for ever."""
import json
import subprocess
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from rawhttp import connect, post, read_reply, send
from xpool import Api, Pool, XmlApi, eventually

MIB = 1 << 20
MESSAGES, BODY = 192, "ü" * 32768  # 12 MiB
LONG_MAX, HOLD_MS, HOLD_ENTRIES = 16, 5000, 4000  # pool/pool_priv.h


def counters(pool):
    return pool.counters(1)


def rss(pool):
    with open("%s/member1/xpoold.pid" % pool.dir) as handle, open("/proc/%s/status" % handle.read().split()[0]) as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def request(api, method="message.get_all_records", *args, number=1):
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": [api.session, *args], "id": number})


def whole(body, number=1):
    """The records of an answer."""
    answer = json.loads(body)
    assert answer["id"] == number and "error" not in answer, body[:200]
    assert all(m["body"] == BODY for m in answer["result"].values())
    return answer["result"]


def same_by_all(pool, api):
    """Both encodings, both versions of HTTP, short and long: the same records."""
    began = counters(pool)["answers_long"]
    with connect(pool) as sock:
        sock.sendall(post(request(api)) + post(request(api, "pool.get_all_records", number=2)) + post(request(api, number="\"3")))
        status, headers, body, rest = read_reply(sock)
        assert status == 200 and headers["transfer-encoding"] == "chunked" and "content-length" not in headers, headers
        assert headers["connection"] == "keep-alive" and headers["x-pool-index"].startswith("1-"), headers
        first = whole(body)
        assert len(first) == MESSAGES
        status, headers, body, rest = read_reply(sock, rest)
        assert status == 200 and "transfer-encoding" not in headers and json.loads(body)["id"] == 2
        status, headers, body, rest = read_reply(sock, rest)
        assert whole(body, "\"3") == first and rest == b""
    for more, version in (("", "1.0"), ("Connection: keep-alive\r\n", "1.0"), ("Connection: close\r\n", "1.1")):
        status, headers, body, _ = send(pool, post(request(api), version=version, more=more))
        assert status == 200 and headers["connection"] == "close" and whole(body) == first
        assert headers.get("transfer-encoding") == ("chunked" if version == "1.1" else None), headers
    one = json.dumps({"method": "message.get_all_records", "params": [api.session], "id": 1})
    body = send(pool, post(one))[2]
    assert json.loads(body) == {"result": first, "error": None, "id": 1}
    xml = XmlApi(pool, 1)("message.get_all_records", api.session)
    assert xml["Status"] == "Success" and set(xml["Value"]) == set(first)
    assert all(m["body"] == BODY and m["uuid"] == first[ref]["uuid"] for ref, m in xml["Value"].items())
    assert counters(pool)["answers_long"] == began + 7
    newest = api("message.get_since", "19700101T00:00:00Z")
    assert newest == first and list(newest.values())[0]["timestamp"] >= list(newest.values())[-1]["timestamp"]
    chosen = api("message.get_all_records_where", 'field "name"="big7" or field "name"="big8"')
    assert sorted(m["name"] for m in chosen.values()) == ["big7", "big8"]
    return first


def first_events(pool, api, first):
    """All there is, for who knows nothing yet: in both encodings, messages first, each by index; and what comes after is behind it."""
    began = counters(pool)["answers_long"]
    reply = api("event.from", ["*"], "", 0.0)
    assert counters(pool)["answers_long"] == began + 1
    seen = [e for e in reply["events"] if e["class"] == "message"]
    rest = reply["events"][len(seen):]
    assert reply["events"][:len(seen)] == seen and {e["ref"]: e["snapshot"] for e in seen} == first
    for events in (seen, rest):
        assert [int(e["id"]) for e in events] == sorted(int(e["id"]) for e in events)
    assert {e["operation"] for e in reply["events"]} == {"add"} and len({(e["class"], e["ref"]) for e in rest}) == len(rest)
    told = {}
    for e in reply["events"]:
        told[e["class"]] = told.get(e["class"], 0) + 1
    counted = {name: n for name, n in reply["valid_ref_counts"].items() if n > 0 and name not in ("session", "role")}
    assert counted == told, (counted, told)
    xml = XmlApi(pool, 1)("event.from", api.session, ["message"], "", 0.0)["Value"]
    assert [(e["id"], e["ref"]) for e in xml["events"]] == [(e["id"], e["ref"]) for e in seen]
    assert counters(pool)["answers_long"] == began + 2
    new = api("network.create", {"name_label": "new", "name_description": "", "other_config": {}})
    for token in (reply["token"], xml["token"]):
        later = api("event.from", ["network", "message"], token, 10.0)
        assert [(e["operation"], e["ref"]) for e in later["events"]] == [("add", new)], later
    api("network.destroy", new)


def slow_reader(pool, api, first):
    """What it reads is of one moment; its view goes after a while; the answer is whole all the same."""
    before = counters(pool)
    with connect(pool, window=65536) as sock:
        sock.settimeout(60)
        sock.sendall(post(request(api)))
        head = sock.recv(1000)
        api("message.destroy", next(iter(first)))
        api("VM.get_all")  # others are served
        eventually("it is hurried", lambda: counters(pool)["answers_hurried"] == before["answers_hurried"] + 1, 2 * HOLD_MS / 1000)
        assert whole(read_reply(sock, head)[2]) == first
    assert counters(pool)["connections_dropped"] == before["connections_dropped"]


def behind(pool, api):
    """A database that moves fast is waited for less long."""
    before, began = counters(pool)["answers_hurried"], time.time()
    vm = api("network.create", {"name_label": "n", "name_description": "", "other_config": {}})
    body = "%s/body" % pool.dir
    with connect(pool, window=65536) as sock, open(body, "w") as handle:
        handle.write(request(api, "network.set_name_description", vm, "@N@"))
        handle.close()
        sock.sendall(post(request(api)))
        sock.recv(1000)
        subprocess.run(["%s/xpool-load" % sys.argv[1], "--to", "%s:%d" % (pool.address(1), pool.port), "--body", body, "--clients", "64",
                        "--requests", str(HOLD_ENTRIES + 200)], check=True, stdout=subprocess.DEVNULL)
        took = time.time() - began
        eventually("it is hurried", lambda: counters(pool)["answers_hurried"] == before + 1, 1 if took < HOLD_MS / 1000 else 20)
        print("%d entries in %.1f s" % (HOLD_ENTRIES + 200, took))


def many(pool, api, n_records):
    """More than have places: the others wait, none is forgotten, those that go give theirs."""
    before, memory = counters(pool), rss(pool)
    silent = [connect(pool, window=4096) for _ in range(LONG_MAX)]
    for sock in silent:
        sock.sendall(post(request(api)))
    eventually("all have places", lambda: counters(pool)["answers_long"] == before["answers_long"] + LONG_MAX)
    peak = rss(pool) - memory
    began, got = time.time(), []
    readers = [threading.Thread(target=lambda: got.append(len(whole(send(pool, post(request(api)))[2])))) for _ in range(3)]
    waiting = connect(pool)
    waiting.sendall(post(request(api)))
    for thread in readers:
        thread.start()
    time.sleep(0.5)
    assert send(pool, post(request(api, "pool.get_all_records")))[0] == 200  # short ones do not wait
    assert counters(pool)["answers_long"] == before["answers_long"] + LONG_MAX and not got
    waiting.close()
    for sock in silent[:2]:
        sock.close()
    for thread in readers:
        thread.join()
    print("%d that do not read: %d MiB more; waited %.1f s for a place" % (LONG_MAX, peak // MIB, time.time() - began))
    assert got == [n_records] * 3 and time.time() - began < HOLD_MS / 1000 and peak < LONG_MAX * 4 * MIB
    for sock in silent:
        sock.close()
    eventually("their calls have ended", lambda: counters(pool)["connections_now"] == 0)
    assert len(whole(send(pool, post(request(api)))[2])) == n_records


def hopping(pool, api, n_records):
    """A session that is used at another member in the midst of it is answered there and here."""
    other, taken = Api(pool, 2, api.session), counters(pool)["floors_taken"]
    over = threading.Event()

    def use():
        while not over.is_set():
            other("pool.get_all")
    thread = threading.Thread(target=use)
    thread.start()
    for _ in range(15):
        assert len(whole(send(pool, post(request(api)))[2])) == n_records
    over.set()
    thread.join()
    assert counters(pool)["floors_taken"] > taken


with Pool(options="--loops 1") as pool:
    api = Api(pool, 1).login()
    host = next(iter(api("host.get_all_records").values()))["uuid"]
    for n in range(MESSAGES):
        api("message.create", "big%d" % n, 5, "Host", host, BODY)
    first = same_by_all(pool, api)
    first_events(pool, api, first)
    slow_reader(pool, api, first)
    behind(pool, api)
    many(pool, api, MESSAGES - 1)
    hopping(pool, api, MESSAGES - 1)
    # a member that is stopped meanwhile ends in time
    with connect(pool, window=4096) as sock:
        sock.sendall(post(request(api)))
        sock.recv(100)
        api("session.logout")
        pool.quickstart("down")
