"""From the checked definition to plain lists that emitters print: all messages, types by name, defaults."""
import hashlib

from check import ROLES, shared_field, split_type

WRITES = ("SET_FIELD", "ADD_FIELD", "REMOVE_FIELD", "ADD_TO_FIELD", "REMOVE_FROM_FIELD")
EMPTY = {"string": "", "secret": "", "int": 0, "float": 0.0, "bool": False, "datetime": "19700101T00:00:00Z",
         "ref": "OpaqueRef:NULL", "set": [], "map": {}}


def empty(model, text):
    head, args = split_type(text)
    return model["enums"][args[0]][0] if head == "enum" else EMPTY.get(head, "")


def generated(model, cls):
    """Yield (name, call, field index, params, result, role, extras) by the rules of the API."""
    me = [("self", "ref<%s>" % cls["name"])]
    ref, record = "ref<%s>" % cls["name"], "record<%s>" % cls["name"]
    flags = cls["generated"]
    weak = cls.get("role", "read-only")
    if cls["table"] not in ("records", "volatile", "fixed"):
        return
    if "get_by_uuid" in flags:
        yield "get_by_uuid", "GET_BY_UUID", -1, [("uuid", "string")], ref, weak, {}
        yield "get_record", "GET_RECORD", -1, me, record, weak, {}
    if "get_by_name_label" in flags:
        yield "get_by_name_label", "GET_BY_NAME_LABEL", -1, [("label", "string")], "set<%s>" % ref, weak, {}
    if "create_destroy" in flags:
        yield "create", "CREATE", -1, [("args", record)], ref, cls["create_role"], {"async": True, **cls.get("create", {})}
        yield "destroy", "DESTROY", -1, me, "void", cls["create_role"], {"async": True, **cls.get("destroy", {})}
    if "get_all" in flags:
        records, where = "map<%s,%s>" % (ref, record), [("expr", "string")]
        yield "get_all", "GET_ALL", -1, [], "set<%s>" % ref, weak, {}
        yield "get_all_where", "GET_ALL_WHERE", -1, where, "set<%s>" % ref, weak, {}
        yield "get_all_records", "GET_ALL_RECORDS", -1, [], records, weak, {}
        yield "get_all_records_where", "GET_ALL_RECORDS_WHERE", -1, where, records, weak, {}
    if not cls.get("accessors", True):
        return
    for i, field in enumerate(cls["fields"]):
        if not field.get("internal"):
            yield from accessors(i, field, me)


def accessors(i, field, me):
    name, text = field["name"], field["type"]
    role = field.get("set_role", "pool-admin")
    if field.get("removed"):
        yield "get_" + name, "REMOVED", -1, me, text, "read-only", {}
        return
    yield "get_" + name, "GET_FIELD", i, me, text, field.get("get_role", "read-only"), {}
    if field["qualifier"] != "RW" or field.get("derived"):
        return
    head, args = split_type(text)
    cert = {"client_cert": True} if field.get("set_client_cert") else {}
    keys = {"key_roles": field["key_roles"]} if "key_roles" in field else {}
    yield "set_" + name, "SET_FIELD", i, me + [("value", text)], "void", role, cert
    if head == "set":
        yield "add_" + name, "ADD_FIELD", i, me + [("value", args[0])], "void", role, {}
        yield "remove_" + name, "REMOVE_FIELD", i, me + [("value", args[0])], "void", role, {}
    if head == "map":
        yield ("add_to_" + name, "ADD_TO_FIELD", i, me + [("key", args[0]), ("value", args[1])], "void", role, keys)
        yield "remove_from_" + name, "REMOVE_FROM_FIELD", i, me + [("key", args[0])], "void", role, keys


def permissions(model):
    """Everything a role may be asked for: {name in lower case: (role, also for client certificates)}."""
    found = {}
    for msg in model["messages"]:
        if msg["role"] != "local-root":
            found[msg["name"].lower()] = (msg["role"], msg.get("client_cert", False))
        for key, role in msg.get("key_roles", {}).items():
            found["%s/key:%s" % (msg["name"].lower(), key.lower())] = (role, False)
    for action in model["http"]:
        if action["role"] != "local-root":
            found["http/" + action["name"]] = (action["role"], action.get("client_cert", False))
    for name, role in model["roles"]["permissions"].items():
        found[name.lower()] = (role, False)
    return found


def name_uuid(name):
    """References of roles and permissions follow from their names."""
    text = hashlib.md5(name.encode()).hexdigest()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def removed(cls):
    for name, (n, role) in cls.get("removed_messages", {}).items():
        params = [("p%d" % i, "free") for i in range(n)]
        yield name, "REMOVED", -1, params, "void", role, {}


def waits_for(cls, call, field):
    """The schema that must be active before the message may write; 0: any."""
    return cls["fields"][field]["schema"] if call in WRITES else cls["schema"] if call in ("CREATE", "DESTROY") else 0


def keys_to_fields(cls):
    """Keys of a map with permissions of their own are the field's, also where an accessor is declared."""
    for msg in cls["messages"]:
        if "key_roles" in msg:
            cls["fields"][shared_field(cls, msg)]["key_roles"] = msg["key_roles"]


def resolve(model):
    messages = []
    for cls in model["classes"]:
        keys_to_fields(cls)
    for number, cls in enumerate(model["classes"]):
        for name, call, field, params, result, role, extras in list(generated(model, cls)) + list(removed(cls)):
            messages.append({"name": "%s.%s" % (cls["name"], name), "class": number, "call": call, "field": field,
                             "params": [{"name": p, "type": t} for p, t in params], "result": result, "role": role,
                             "text": "", "custom": -1, "schema": waits_for(cls, call, field), **extras})
        for msg in cls["messages"]:
            messages.append({"schema": 0, **msg, "name": "%s.%s" % (cls["name"], msg["name"]), "class": number,
                             "call": msg.get("as", "custom").upper(), "field": shared_field(cls, msg), "custom": -1})
    messages.sort(key=lambda m: m["name"].encode())
    customs = [m for m in messages if m["call"] == "CUSTOM" or "route" in m]
    for number, msg in enumerate(customs):
        msg["custom"] = number
    assert len({m["name"] for m in messages}) == len(messages)
    model["messages"], model["customs"] = messages, customs
    model["permissions"] = permissions(model)
    model["role_ids"] = {r: "MODEL_ROLE_" + ("ROOT" if r == "local-root" else r.upper().replace("-", "_")) for r in ROLES}
    return model
