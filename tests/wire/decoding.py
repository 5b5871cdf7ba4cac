"""Every class, whole, in XML-RPC, JSON-RPC 1.0 and 2.0, by a strict decoder: the same values in the published order; the shapes of
answers and errors; numbers, dates and text at their extremes, there and back."""
import json
import sys
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
import model
from model import CLASSES, decode_json, decode_xml, sample
from xpool import Api, ApiError, Pool, vm_record

VOLATILE = {"last_updated", "memory_free"}  # change without an entry, all the time
HEAD, TAIL = b'<?xml version="1.0"?><methodResponse><params><param>', b"</param></params></methodResponse>"


def by_xml(api, method, *args):
    """The <value> of an answer, or the list of a failure."""
    params = "".join("<param><value>%s</value></param>" % escape(str(a)) for a in (api.session,) + args)
    text = api.post(("<methodCall><methodName>%s</methodName><params>%s</params></methodCall>" % (method, params)).encode(), path="/").read()
    assert text.startswith(HEAD) and text.endswith(TAIL), text[:200]
    struct = ElementTree.fromstring(text).find("params/param/value/struct")
    members = [(m.find("name").text, m.find("value")) for m in struct]
    assert [[e.tag for e in m] for m in struct] == [["name", "value"]] * 2
    (first, status), (second, value) = members
    if (first, second) == ("Status", "Value") and model.xml_text(status, None) == "Success":
        return value
    assert (first, second) == ("Status", "ErrorDescription") and model.xml_text(status, None) == "Failure", members
    raise ApiError(*decode_xml("set<string>", value))


def by_json1(api, method, *args, call_id=3):
    reply = json.load(api.post(json.dumps({"method": method, "params": [api.session, *args], "id": call_id}).encode()))
    assert list(reply) == ["result", "error", "id"] and reply["id"] == call_id and type(reply["id"]) is type(call_id), reply
    if reply["error"] is not None:
        assert reply["result"] is None
        raise ApiError(*decode_json("set<string>", reply["error"]))
    return reply["result"]


def by_json2(api, method, *args, call_id=3):
    body = {"jsonrpc": "2.0", "method": method, "params": [api.session, *args], "id": call_id}
    reply = json.load(api.post(json.dumps(body).encode()))
    assert reply["jsonrpc"] == "2.0" and reply["id"] == call_id and type(reply["id"]) is type(call_id), reply
    if "error" in reply:
        assert list(reply) == ["jsonrpc", "error", "id"] and list(reply["error"]) == ["code", "message", "data"], reply
        assert reply["error"]["code"] == 1
        raise ApiError(*decode_json("set<string>", [reply["error"]["message"]] + reply["error"]["data"]))
    assert list(reply) == ["jsonrpc", "result", "id"], reply
    return reply["result"]


WAYS = (by_xml, by_json1, by_json2)


def failure(way, api, method, *args):
    try:
        way(api, method, *args)
    except ApiError as fault:
        return fault.args
    raise AssertionError("%s did not fail" % method)


def whole_class(api, cls):
    """Four answers, one after the other: again when a row has changed meanwhile (a host that is busy is not heard of for a moment)."""
    text = "map<ref<%s>,record<%s>>" % (cls, cls)
    for _ in range(5):
        one, two = (decode_json(text, way(api, cls + ".get_all_records")) for way in (by_json1, by_json2))
        xml = decode_xml(text, by_xml(api, cls + ".get_all_records"))
        where = decode_json(text, by_json2(api, cls + ".get_all_records_where", "true"))
        for record in [r for side in (one, two, xml, where) for r in side.values()]:
            for name in VOLATILE:
                record.pop(name, None)
        if one == two == xml == where:
            return len(two)
    raise AssertionError("%s: %s" % (cls, [(ref, [side.get(ref) for side in (one, two, xml, where)]) for ref in two
                                           if not all(side.get(ref) == two[ref] for side in (one, xml, where))]))


def extremes(api):
    vm = api("VM.create", vm_record("extreme"))
    for n in (0, -1, 2**31, 2**53 + 1, 2**63 - 1, -2**63):
        for given in (n, str(n)):
            api("VM.set_user_version", vm, given)
            assert by_json1(api, "VM.get_user_version", vm) == by_json2(api, "VM.get_user_version", vm) == n
            assert decode_xml("int", by_xml(api, "VM.get_user_version", vm)) == n
    for bad in (2.0, "1x", "", " 1", "0x10", True, None, "+1", "9223372036854775808"):
        assert api.fails("FIELD_TYPE_ERROR", "VM.set_user_version", vm, bad) == ["value"], bad
    for text in ("", " ", "\t\n\r", "<&>\"'", "]]>", "\u00fc\u4e2d\U0001f600", "\ud7ff\ue000\ufffd", "a" * 100000):
        api("VM.set_name_label", vm, text)
        assert by_json1(api, "VM.get_name_label", vm) == by_json2(api, "VM.get_name_label", vm) == text
        # XML parsers make one line end of CR and CR LF
        assert decode_xml("string", by_xml(api, "VM.get_name_label", vm)) == text.replace("\r", "\n"), text
    for given, want in ((0.1, 0.1), (-0.0, 0.0), (1e300, 1e300), (5e-324, 5e-324), (1.7976931348623157e308,) * 2, (3, 3.0), ("1e3", 1000.0)):
        one = api("VM.create", vm_record("float", HVM_shadow_multiplier=given))
        assert by_json1(api, "VM.get_HVM_shadow_multiplier", one) == by_json2(api, "VM.get_HVM_shadow_multiplier", one) == want
        assert abs(decode_xml("float", by_xml(api, "VM.get_HVM_shadow_multiplier", one)) - want) == 0
        api("VM.destroy", one)
    for bad in ("nan", "inf", "1e999", "", "x", True, None):
        assert api.fails("FIELD_TYPE_ERROR", "VM.create", vm_record("float", HVM_shadow_multiplier=bad)) == ["HVM_shadow_multiplier"], bad
    return vm


def dates(api):
    """Any date that parses comes back as itself in UTC; message.destroy_all reads dates, get_since takes them."""
    for given in ("00010101T00:00:00Z", "99991231T23:59:59Z", "19691231T23:59:59Z", "20240229T12:00:00+02:00", "2024-02-29T12:00:00.5Z", "20240229T120000Z"):
        try:
            assert by_json2(api, "message.get_since", given) == {}
        except ApiError as fault:
            assert fault.args == ("INVALID_VALUE", given) and given == "20240229T120000Z", fault.args
    for bad in ("20230229T00:00:00Z", "20231301T00:00:00Z", "20230101T24:00:00Z", "20230101", "", "now", "20230101T00:00:00ZZ",
                "99991231T23:59:59-01:00", "20230101T00:00:00+24:00", "20230431T00:00:00Z", "19000229T00:00:00Z"):
        assert api.fails("INVALID_VALUE", "message.get_since", bad) == [bad], bad


def counts(api):
    """valid_ref_counts of event.from: the only <i4>."""
    params = ("<value>%s</value>" % api.session, "<value><array><data><value>vm</value></data></array></value>", "<value></value>",
              "<value><double>0</double></value>")
    body = "<methodCall><methodName>event.from</methodName><params>%s</params></methodCall>" % "".join("<param>%s</param>" % p for p in params)
    text = api.post(body.encode(), path="/").read()
    by_name = lambda struct: {m.find("name").text: m.find("value") for m in struct}
    answer = by_name(by_name(ElementTree.fromstring(text).find("params/param/value/struct"))["Value"].find("struct"))
    live = {cls: int(model.xml_text(value, "i4")) for cls, value in by_name(answer["valid_ref_counts"].find("struct")).items()}
    assert live["vm"] == len(api("VM.get_all")) and live["host"] == 3 and live["task"] == len(api("task.get_all")), live
    for event in answer["events"].find("array/data"):
        event = by_name(event.find("struct"))
        assert model.xml_text(event["class"], None) == "vm" and model.xml_text(event["operation"], None) == "add"
        decode_xml("record<VM>", event["snapshot"])


with Pool() as pool:
    api = Api(pool, 1).login()
    rng, refs = model.seeded(11), model.ruled_objects(api, pool.make_sr)
    for cls in [c for c in CLASSES.values() if c["in_database"] and c["implicit"]["create_destroy"]] * 2:
        given = {name: sample(rng, field["type"], refs) for name, field in model.fields(cls["name"]).items()
                 if field["qualifier"] != "DynamicRO" and not model.is_removed(cls["name"], name)}
        made = refs.setdefault(cls["name"], [])
        given.update(model.RULED.get(cls["name"], lambda n, refs: {})(1 + len(made), refs))
        made.append(api(cls["name"] + ".create", given))
    vm = extremes(api)
    seen = 0
    for number, (name, cls) in enumerate(CLASSES.items()):
        if (cls["in_database"] and cls["implicit"]["get_all"]) or name == "message":
            pool.agree()
            seen += whole_class(Api(pool, 1 + number % 3, api.session), name)
    # failures say the same in the three shapes
    for call in (("VM.get_record", "OpaqueRef:<&>"), ("VM.get_by_uuid", "no"), ("VM.fly", "x"), ("VM.start", vm), ("VMPP.get_all_records",),
                 ("Async.VM.get_record", vm), ("DR_task.destroy", "OpaqueRef:NULL")):
        one, two, three = (failure(way, api, *call) for way in WAYS)
        assert one == two == three and all(isinstance(p, str) for p in one), (call, one, two, three)
    for call_id in (0, -7, 2**53 + 1, "", "a \u00fc\"", "3"):
        assert by_json1(api, "pool.get_all", call_id=call_id) == by_json2(api, "pool.get_all", call_id=call_id)
    names = by_json2(api, "system.listMethods")
    assert names == by_json1(api, "system.listMethods") == decode_json("set<string>", names)
    bare = ElementTree.fromstring(api.post(b"<methodCall><methodName>system.listMethods</methodName></methodCall>", path="/").read())
    assert decode_xml("set<string>", bare.find("params/param/value")) == names
    dates(api)
    counts(api)
    print("%d records in three encodings" % seen)
