"""The generated messages of an object: records in both encodings, accessors, searches."""
import xml.etree.ElementTree as ElementTree

import model
from model import CLASSES, NULL, decode_json, decode_xml, sample, split_type

# declared accessors of fields that clients may not write by the field's own qualifier
DECLARED = {("VM", "other_config"), ("VM", "platform"), ("VM", "blocked_operations"), ("VM", "actions_after_crash"),
            ("task", "other_config")}


def xml(api, method, *args):
    """The <value> of an answer in XML."""
    body = "<methodCall><methodName>%s</methodName><params>%s</params></methodCall>" % (
        method, "".join("<param><value>%s</value></param>" % a for a in (api.session,) + args))
    root = ElementTree.fromstring(api.post(body.encode(), path="/").read())
    members = {m.find("name").text: m.find("value") for m in root.find("params/param/value/struct")}
    assert model.xml_text(members["Status"], None) == "Success", ElementTree.tostring(root)
    return members["Value"]


def records(api, cls):
    """All rows of a class in both encodings, decoded member by member, equal."""
    refs = api(cls + ".get_all") if CLASSES[cls]["implicit"]["get_all"] else []
    if cls == "role":
        refs = refs[:20]
    for ref in refs:
        by_json = decode_json("record<%s>" % cls, api(cls + ".get_record", ref))
        by_xml = decode_xml("record<%s>" % cls, xml(api, cls + ".get_record", ref))
        volatile = {"last_updated", "last_active", "progress"}
        assert all(by_json[k] == by_xml[k] for k in by_json if k not in volatile), (cls, by_json, by_xml)
        for name in model.fields(cls):
            if model.is_removed(cls, name):
                assert api.fails("MESSAGE_REMOVED", "%s.get_%s" % (cls, name), ref) == []
            elif name not in volatile:
                assert api("%s.get_%s" % (cls, name), ref) == by_json[name], (cls, name)
    return len(refs)


def accessors(rng, api, cls, ref, refs):
    """Setters, adders and removers of one object, written and read back."""
    done = 0
    for name, field in model.fields(cls).items():
        head, args = split_type(field["type"])
        if field["qualifier"] != "RW" and (cls, name) not in DECLARED or model.is_removed(cls, name) or field.get("derived"):
            continue
        if cls == "VM" and name == "is_a_template":
            continue
        call = lambda verb, *a: api("%s.%s_%s" % (cls, verb, name), ref, *a)
        read = lambda: api("%s.get_%s" % (cls, name), ref)
        value = sample(rng, field["type"], refs)
        call("set", value)
        assert read() == value, (cls, name, value, read())
        done += 1
        if head == "set":
            item = sample(rng, args[0], refs)
            if item == NULL:
                continue
            call("set", [])
            call("add", item)
            call("add", item)
            assert read() == [item], (cls, name)
            call("remove", item)
            call("remove", item)
            assert read() == []
            done += 2
        if head == "map":
            item = sample(rng, args[1], refs)
            call("set", {})
            key = model.sample_key(rng, args[0], 7)
            call("add_to", key, item)
            fault = api.fails("MAP_DUPLICATE_KEY", "%s.add_to_%s" % (cls, name), ref, key, item)
            assert fault == [cls, field.get("db_name", name), ref, key], fault
            assert read() == {key: item}, (cls, name, read())
            call("remove_from", key)
            call("remove_from", key)
            assert read() == {}
            done += 2
    return done


def searches(api, cls, ref):
    uuid = api(cls + ".get_uuid", ref)
    assert api(cls + ".get_by_uuid", uuid) == ref
    assert api.fails("UUID_INVALID", cls + ".get_by_uuid", "no uuid") == [cls, "no uuid"]
    if CLASSES[cls]["implicit"]["get_all"]:
        expr = 'field "uuid" = "%s"' % uuid
        assert api(cls + ".get_all_where", expr) == [ref]
        assert list(api(cls + ".get_all_records_where", expr)) == [ref]
        assert ref in api(cls + ".get_all_records")
    if CLASSES[cls]["implicit"]["get_by_name_label"]:
        assert ref in api(cls + ".get_by_name_label", api(cls + ".get_name_label", ref))
