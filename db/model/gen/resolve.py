"""From the checked definition to plain lists that emitters print: all messages, types by name, defaults."""
from check import ROLES, split_type

EMPTY = {"string": "", "secret": "", "int": 0, "float": 0.0, "bool": False, "datetime": "19700101T00:00:00Z",
         "ref": "OpaqueRef:NULL", "set": [], "map": {}}


def empty(model, text):
    head, args = split_type(text)
    return model["enums"][args[0]][0] if head == "enum" else EMPTY.get(head, "")


def generated(model, cls):
    """Yield (name, call, field index, params, result, role, async) by the rules of the API."""
    me = [("self", "ref<%s>" % cls["name"])]
    ref, record = "ref<%s>" % cls["name"], "record<%s>" % cls["name"]
    flags = cls["generated"]
    weak = "read-only"
    if cls["table"] not in ("records", "volatile"):
        return
    if "get_by_uuid" in flags:
        yield "get_by_uuid", "GET_BY_UUID", -1, [("uuid", "string")], ref, weak, False
        yield "get_record", "GET_RECORD", -1, me, record, weak, False
    if "get_by_name_label" in flags:
        yield "get_by_name_label", "GET_BY_NAME_LABEL", -1, [("label", "string")], "set<%s>" % ref, weak, False
    if "create_destroy" in flags:
        yield "create", "CREATE", -1, [("args", record)], ref, cls["create_role"], True
        yield "destroy", "DESTROY", -1, me, "void", cls["create_role"], True
    if "get_all" in flags:
        records, where = "map<%s,%s>" % (ref, record), [("expr", "string")]
        yield "get_all", "GET_ALL", -1, [], "set<%s>" % ref, weak, False
        yield "get_all_where", "GET_ALL_WHERE", -1, where, "set<%s>" % ref, weak, False
        yield "get_all_records", "GET_ALL_RECORDS", -1, [], records, weak, False
        yield "get_all_records_where", "GET_ALL_RECORDS_WHERE", -1, where, records, weak, False
    for i, field in enumerate(cls["fields"]):
        if field.get("internal"):
            continue
        name, text = field["name"], field["type"]
        role = field.get("set_role", "pool-admin")
        yield "get_" + name, "GET_FIELD", i, me, text, weak, False
        if field["qualifier"] != "RW" or field.get("derived"):
            continue
        head, args = split_type(text)
        yield "set_" + name, "SET_FIELD", i, me + [("value", text)], "void", role, False
        if head == "set":
            yield "add_" + name, "ADD_FIELD", i, me + [("value", args[0])], "void", role, False
            yield "remove_" + name, "REMOVE_FIELD", i, me + [("value", args[0])], "void", role, False
        if head == "map":
            yield ("add_to_" + name, "ADD_TO_FIELD", i, me + [("key", args[0]), ("value", args[1])], "void", role, False)
            yield "remove_from_" + name, "REMOVE_FROM_FIELD", i, me + [("key", args[0])], "void", role, False


def resolve(model):
    messages = []
    for number, cls in enumerate(model["classes"]):
        for name, call, field, params, result, role, is_async in generated(model, cls):
            messages.append({"name": "%s.%s" % (cls["name"], name), "class": number, "call": call, "field": field,
                             "params": [{"name": p, "type": t} for p, t in params], "result": result, "role": role,
                             "async": is_async, "text": "", "custom": -1})
        for msg in cls["messages"]:
            messages.append({**msg, "name": "%s.%s" % (cls["name"], msg["name"]), "class": number, "call": "CUSTOM",
                             "field": -1, "custom": 0})
    messages.sort(key=lambda m: m["name"].encode())
    customs = [m for m in messages if m["call"] == "CUSTOM"]
    for number, msg in enumerate(customs):
        msg["custom"] = number
    assert len({m["name"] for m in messages}) == len(messages)
    model["messages"], model["customs"] = messages, customs
    model["role_ids"] = {r: "MODEL_ROLE_" + ("ROOT" if r == "local-root" else r.upper().replace("-", "_")) for r in ROLES}
    return model
