"""Messages (alerts): made, listed newest first, filtered, in events, gone; the newest 10,000 are kept, on every member the same."""
import http.client
import json
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
import model
from xpool import Pool, everywhere

KEPT = 10000
CONNECTIONS = 16


def fill(pool, session, uuid, first, last):
    """Make messages named by numbers over several connections; the reference of each."""
    refs = {}

    def make(numbers):
        link = http.client.HTTPSConnection(pool.address(pool.leader()), pool.port, context=pool.tls, timeout=60)
        for number in numbers:
            call = {"jsonrpc": "2.0", "method": "message.create", "id": number,
                    "params": [session, "fill %d" % number, 5, "VM", uuid, ""]}
            link.request("POST", "/jsonrpc", json.dumps(call))
            refs[number] = json.load(link.getresponse())["result"]

    threads = [threading.Thread(target=make, args=(range(first + n, last, CONNECTIONS),)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refs) == last - first
    return refs


with Pool() as pool:
    apis = everywhere(pool)
    api = apis[0]
    vm = api("VM.get_by_name_label", "web")[0]
    uuid, host = api("VM.get_uuid", vm), api("host.get_all_records")
    token = apis[1]("event.from", ["message"], "", 0.0)["token"]
    made = [apis[n % 3]("message.create", "ALARM %d" % n, 1 + n % 5, "VM", uuid, "value: %d\n<&>\u00fc" % n) for n in range(6)]
    on_host = api("message.create", "HOST", 3, "Host", next(iter(host.values()))["uuid"], "")
    pool.agree()
    for each in apis:
        records = each("message.get_all_records")
        assert set(records) == set(made) | {on_host} == set(each("message.get_all"))
        for ref, record in records.items():
            model.decode_json("record<message>", record, ref)
            assert each("message.get_record", ref) == record and each("message.get_by_uuid", record["uuid"]) == ref
    record = records[made[2]]
    assert (record["name"], record["priority"], record["cls"], record["obj_uuid"]) == ("ALARM 2", 3, "VM", uuid), record
    assert record["body"] == "value: 2\n<&>\u00fc"
    now = int(time.time())
    stamp = lambda seconds: time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime(seconds))
    assert abs(now - time.mktime(time.strptime(record["timestamp"], "%Y%m%dT%H:%M:%SZ")) + time.timezone) < 60
    # newest first; only that object's; since is strict
    assert list(api("message.get", "VM", uuid, stamp(now - 3600))) == made[::-1]
    assert list(apis[2]("message.get_since", "19700101T00:00:00Z")) == [on_host] + made[::-1]
    assert apis[2]("message.get_since", stamp(now + 3600)) == {}
    assert apis[1]("message.get_all_records_where", 'field "name"="ALARM 4"') == {made[4]: records[made[4]]}
    # events, on another member than wrote
    news = apis[1]("event.from", ["message"], token, 5.0)
    assert [(e["operation"], e["ref"], e["snapshot"]) for e in news["events"]] == [("add", r, records[r]) for r in made + [on_host]]
    assert news["valid_ref_counts"]["message"] == 7
    # what is wrong
    assert api.fails("UUID_INVALID", "message.create", "x", 1, "VM", "no uuid", "") == ["VM", "no uuid"]
    assert api.fails("UUID_INVALID", "message.create", "x", 1, "SR", uuid, "") == ["SR", uuid]
    assert api.fails("UUID_INVALID", "message.create", "x", 1, "VMPP", uuid, "") == ["VMPP", uuid]
    assert api.fails("UUID_INVALID", "message.get", "Pool", uuid, stamp(0)) == ["Pool", uuid]
    assert api.fails("INVALID_VALUE", "message.create", "x", 1, "Disk", uuid, "") == ["Disk"]
    assert api.fails("INVALID_VALUE", "message.create", "x", 1, "VM", uuid, "\x02")
    assert api.fails("HANDLE_INVALID", "message.get_record", vm) == ["message", vm]
    assert api.fails("UUID_INVALID", "message.get_by_uuid", uuid) == ["message", uuid]
    assert api.fails("INVALID_VALUE", "message.destroy_all", {"colour": "red"}) == ["colour", "red"]
    assert api.fails("INVALID_VALUE", "message.destroy_all", {"before": "yesterday"}) == ["before", "yesterday"]
    assert api.fails("INVALID_VALUE", "message.destroy_all", {"priority": "high"}) == ["priority", "high"]
    assert api.fails("MESSAGE_METHOD_UNKNOWN", "message.get_name", made[0]) == ["message.get_name"]
    # gone: one, several (all of them or none), by filter
    apis[1]("message.destroy", made[0])
    assert apis[1].fails("HANDLE_INVALID", "message.destroy", made[0]) == ["message", made[0]]
    assert api.fails("HANDLE_INVALID", "message.destroy_many", [made[1], made[0]]) == ["message", made[0]]
    api("message.destroy_many", [made[1], made[2]])
    assert api("message.get_all") == sorted(made[3:] + [on_host])
    api("message.destroy_all", {"priority": "5", "before": stamp(now + 3600), "after": stamp(now - 3600)})
    api("message.destroy_all", {"after": stamp(now + 3600)})
    assert set(api("message.get_all")) == {made[3], made[5], on_host}
    pool.agree()
    gone = apis[1]("event.from", ["message"], news["token"], 5.0)["events"]
    # the two of one entry come by reference
    wanted = [made[0]] + sorted(made[1:3]) + [made[4]]
    assert [(e["operation"], e["ref"]) for e in gone] == [("del", ref) for ref in wanted], gone
    # the newest are kept
    refs = fill(pool, api.session, uuid, 0, KEPT)
    pool.agree()
    left = set(apis[1]("message.get_all"))
    assert KEPT <= len(left) < KEPT + CONNECTIONS, len(left)
    assert left <= set(refs.values()) | {made[5], on_host} and made[3] not in left
    last = apis[2]("message.create", "last", 5, "VM", uuid, "")
    assert len(apis[2]("message.get_all")) == KEPT and last == next(iter(apis[2]("message.get_since", stamp(0))))
    apis[2]("message.destroy_all", {})
    pool.agree()
    assert [each("message.get_all") for each in apis] == [[], [], []]
