"""Refuse a definition that is wrong. Each refusal has a small bad input under tests/unit/model/."""
import json
import re

from load import Refused

ROLES = ("local-root", "pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator",
         "client-cert", "read-only")
QUALIFIERS = ("RW", "StaticRO", "DynamicRO")
TABLES = ("none", "records", "volatile", "fixed", "internal")
GENERATED = ("get_all", "get_by_uuid", "get_by_name_label", "create_destroy")
# Declared messages may be answered "as" one of the generated ones, if they take the same: {name: types of its parameters}.
SHARED = {"get_all": [], "get_all_records": [], "get_all_records_where": ["string"], "get_by_uuid": ["string"],
          "get_record": ["self"], "destroy": ["self"], "set_field": ["self", "field"], "add_to_field": ["self", "key", "item"],
          "remove_from_field": ["self", "key"]}
KEYS = {
    "class": {"name", "text", "table", "events", "generated", "accessors", "create_role", "role", "deprecated", "prototyped", "removed", "key",
              "operations", "checks", "create", "destroy", "fields", "messages", "removed_messages", "schema", "file"},
    "field": {"name", "type", "qualifier", "column", "default", "derived", "computed", "volatile", "get_role", "set_role",
              "key_roles", "set_client_cert", "internal", "removed", "deprecated", "owns", "copied", "since", "schema", "from", "text"},
    "message": {"name", "as", "params", "result", "role", "client_cert", "key_roles", "async", "pool_internal",
                "session", "route", "locks", "cancels", "since", "schema", "deprecated", "errors", "text"},
    "param": {"name", "type", "default", "null", "since"},
    "relation": {"one", "many", "cascade", "schema"},
    "operation": {"name", "states", "shown", "beside", "beside_but"},
    "check": {"name", "only", "except"},
    "implied": {"route", "locks"},
}
SCALARS = ("string", "secret", "int", "float", "bool", "datetime", "void", "free")
# Where a path may begin besides a parameter, and of which class that is (enum model_root).
ROOTS = {"owner": "host", "pool": "pool"}
# Where an operation runs (pool/place.c). All but the last two are "kind:path".
ROUTES = ("placed", "resident", "host", "sr", "storage", "coordinator", "compound")
# Limits of the tables in model_head.h.
STEPS_MAX, LOCKS_MAX, CANCELS_MAX, OPERATIONS_MAX = 2, 5, 10, 64


def split_type(text):
    """'map<string,set<int>>' -> ('map', ['string', 'set<int>'])"""
    m = re.fullmatch(r"(\w+)<(.*)>", text)
    if not m:
        return text, []
    parts, depth, start = [], 0, 0
    inner = m.group(2)
    for pos, char in enumerate(inner):
        depth += {"<": 1, ">": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(inner[start:pos])
            start = pos + 1
    return m.group(1), parts + [inner[start:]]


def check_type(model, where, text):
    head, args = split_type(text)
    classes = {c["name"] for c in model["classes"]}
    if head in SCALARS and not args:
        return
    if head == "enum" and len(args) == 1:
        if args[0] not in model["enums"]:
            raise Refused("%s: unknown enumeration %s" % (where, args[0]))
    elif head == "option" and len(args) == 1:
        check_type(model, where, args[0])
    elif head in ("ref", "record") and len(args) == 1:
        if args[0] not in classes:
            raise Refused("%s: unknown class %s" % (where, args[0]))
    elif head == "set" and len(args) == 1 or head == "map" and len(args) == 2:
        for arg in args:
            check_type(model, where, arg)
    else:
        raise Refused("%s: unknown type %s" % (where, text))


def check_value(model, where, text, value):
    head, args = split_type(text)
    fits = {"string": str, "secret": str, "datetime": str, "ref": str, "enum": str, "int": int, "float": (int, float),
            "bool": bool, "set": list, "map": dict}.get(head)
    if fits is None or not isinstance(value, fits) or (head in ("int", "float") and isinstance(value, bool)):
        raise Refused("%s: default %s is no %s" % (where, json.dumps(value), text))
    if head == "enum" and value not in model["enums"][args[0]]:
        raise Refused("%s: default %s is not in enumeration %s" % (where, value, args[0]))
    if head == "ref" and not value.startswith("OpaqueRef:"):
        raise Refused("%s: default %s is no reference" % (where, value))
    if head == "set":
        for item in value:
            check_value(model, where, args[0], item)
    if head == "map":
        for item in value.values():
            check_value(model, where, args[1], item)


def unique(where, names):
    seen = set()
    for name in names:
        if name in seen:
            raise Refused("%s: %s stands there twice" % (where, name))
        seen.add(name)


def need(where, thing, *keys):
    for key in keys:
        if key not in thing:
            raise Refused("%s: no %s" % (where, key))


def known_keys(kind, where, thing):
    for key in thing:
        if key not in KEYS[kind]:
            raise Refused("%s: unknown key %s" % (where, key))


def check_key_roles(where, thing):
    for key, role in thing.get("key_roles", {}).items():
        one_of(where, "role", role, ROLES)
        if "*" in key[:-1] or not key:
            raise Refused("%s: key %s: * stands for the end of a key only" % (where, key))


def described(where, thing):
    if not str(thing.get("text", "")).strip():
        raise Refused("%s: no description" % where)


def one_of(where, what, value, allowed):
    if value not in allowed:
        raise Refused("%s: unknown %s %s" % (where, what, value))


def check_field(model, cls, field):
    need(cls["file"], field, "name")
    where = "%s.%s" % (cls["name"], field["name"])
    need(where, field, "type", "qualifier", "since")
    known_keys("field", where, field)
    described(where, field)
    check_key_roles(where, field)
    one_of(where, "qualifier", field["qualifier"], QUALIFIERS)
    check_type(model, where, field["type"])
    for key in ("set_role", "get_role"):
        if key in field:
            one_of(where, "role", field[key], ROLES)
    if field.get("owns") and not field["type"].startswith("ref<"):
        raise Refused("%s: owns what is no reference" % where)
    if "default" in field:
        check_value(model, where, field["type"], field["default"])


def shared_field(cls, message):
    """The place of the field that a message answered as an accessor is about, else -1."""
    if not message.get("as", "").endswith("_field"):
        return -1
    name = message["name"][len(message["as"]) - len("field"):]
    return [f["name"] for f in cls["fields"]].index(name)


def check_shared(cls, where, message):
    types = {"string": "string", "self": "ref<%s>" % cls["name"]}
    if message["as"].endswith("_field"):
        try:
            types["field"] = cls["fields"][shared_field(cls, message)]["type"]
        except ValueError:
            raise Refused("%s: %s without such a field" % (where, message["as"]))
        types.update(zip(("key", "item"), split_type(types["field"])[1]))
    want, have = [types.get(t) for t in SHARED[message["as"]]], [p["type"] for p in message["params"]]
    if want != have:
        raise Refused("%s: %s takes %s" % (where, message["as"], ", ".join(map(str, want)) or "nothing"))


def check_path(model, where, what, path, params):
    """'vm.VBDs.VDI': a parameter (or the owner, or the pool), then fields that refer to others. Returns the class it ends at."""
    param, *fields = path.split(".")
    one_of(where, what, param, list(params) + list(ROOTS))
    at = ROOTS.get(param) or split_type(params[param])[1][:1]
    kind = "ref" if isinstance(at, str) else split_type(params[param])[0]
    at = at if isinstance(at, str) else at[0] if at and (kind == "ref" or kind == "record" and fields) else None
    for step, name in enumerate(fields):
        cls = next((c for c in model["classes"] if c["name"] == at), {"fields": []})
        text = next((f["type"] for f in cls["fields"] if f["name"] == name), "")
        m = re.fullmatch(r"(?:ref|set<ref)<(\w+)>+", text)
        if m is None or kind == "record" and step == 0 and text.startswith("set"):
            raise Refused("%s: %s %s: %s refers to nothing" % (where, what, path, name))
        at = m.group(1)
    if at is None or len(fields) > STEPS_MAX:
        raise Refused("%s: %s %s leads to no object" % (where, what, path))
    return at


def check_operation(model, where, message, params):
    """Route and locks of a message that is an operation."""
    kind, _, path = message["route"].partition(":")
    one_of(where, "route", kind, ROUTES)
    if kind not in ("coordinator", "compound"):
        check_path(model, where, "parameter of the route", path, params)
    if len(message.get("locks", [])) > LOCKS_MAX or len(message.get("cancels", [])) > CANCELS_MAX:
        raise Refused("%s: too many locks or cancels" % where)
    for path, op in message.get("locks", []):
        target = check_path(model, where, "object of a lock", path, params)
        known = next(c for c in model["classes"] if c["name"] == target).get("operations", [])
        one_of(where, "operation of a lock on %s" % target, op, [o["name"] for o in known])
    for op in message.get("cancels", []):
        one_of(where, "operation to cancel", op, [o["name"] for o in next(
            c for c in model["classes"] if c["name"] == check_path(model, where, "lock", message["locks"][0][0], params))["operations"]])


def check_operations(model, cls):
    """The table of a class from which come both refusals and allowed_operations."""
    names = [o.get("name") for o in cls.get("operations", [])]
    current = next((f["type"] for f in cls["fields"] if f["name"] == "current_operations"), "map<string,enum<>>")
    values = model["enums"].get(split_type(split_type(current)[1][1])[1][0], [])
    unique(cls["name"] + ": operations", names)
    if len(names) > OPERATIONS_MAX:
        raise Refused("%s: more than %d operations" % (cls["name"], OPERATIONS_MAX))
    for op in cls.get("operations", []):
        where = "%s: operation %s" % (cls["name"], op.get("name"))
        known_keys("operation", where, op)
        one_of(cls["name"], "operation", op.get("name"), values)
        for state in op.get("states", []):
            one_of(where, "state", state, model["enums"].get("vm_power_state", []))
        for other in op.get("beside", []) + op.get("beside_but", []):
            one_of(where, "operation beside it", other, names)
    for check in cls.get("checks", []):
        where = "%s: check %s" % (cls["name"], check.get("name"))
        known_keys("check", where, check)
        need(where, check, "name")
        for op in check.get("only", []) + check.get("except", []):
            one_of(where, "operation", op, names)


def check_message(model, cls, message):
    need(cls["file"], message, "name")
    where = "%s.%s" % (cls["name"], message["name"])
    need(where, message, "params", "result", "role", "errors", "since")
    known_keys("message", where, message)
    described(where, message)
    check_key_roles(where, message)
    one_of(where, "role", message["role"], ROLES)
    check_type(model, where, message["result"])
    names = [p["name"] for p in message["params"]]
    unique(where, names)
    optional = False
    for param in message["params"]:
        known_keys("param", where, param)
        check_type(model, where, param["type"])
        if "null" in param and not (param["null"] is True and param["type"].startswith("ref<")):
            raise Refused("%s: parameter %s: null is for references, and true" % (where, param["name"]))
        if "default" in param:
            optional = True
            check_value(model, where, param["type"], param["default"])
        elif optional:
            raise Refused("%s: parameter %s without default follows one with" % (where, param["name"]))
    for code in message["errors"]:
        if code not in model["errors"]:
            raise Refused("%s: unknown error %s" % (where, code))
    if "key_roles" in message and message.get("as") not in ("add_to_field", "remove_from_field"):
        raise Refused("%s: roles of keys, but it takes no key" % where)
    if "as" in message:
        one_of(where, "generated message", message["as"], SHARED)
        check_shared(cls, where, message)
    if "route" in message:
        check_operation(model, where, message, {p["name"]: p["type"] for p in message["params"]})


def check_implied(model, cls):
    """Where the generated create and destroy run, if they are operations."""
    for name, params in (("create", {"args": "record<%s>" % cls["name"]}), ("destroy", {"self": "ref<%s>" % cls["name"]})):
        where = "%s.%s" % (cls["name"], name)
        if name not in cls:
            continue
        if "create_destroy" not in cls["generated"]:
            raise Refused("%s: it is not generated" % where)
        known_keys("implied", where, cls[name])
        need(where, cls[name], "route")
        check_operation(model, where, cls[name], params)


def check_class(model, cls):
    need(cls["file"], cls, "name", "table", "generated", "fields", "messages")
    known_keys("class", cls["name"], cls)
    described(cls["name"], cls)
    one_of(cls["name"], "table", cls["table"], TABLES)
    for flag in cls["generated"]:
        one_of(cls["name"], "generated message", flag, GENERATED)
    if "create_destroy" in cls["generated"]:
        need(cls["name"], cls, "create_role")
    for name, gone in cls.get("removed_messages", {}).items():
        if not isinstance(gone, list) or len(gone) != 2 or not isinstance(gone[0], int):
            raise Refused("%s.%s: a removed message is [number of parameters, role]" % (cls["name"], name))
        one_of("%s.%s" % (cls["name"], name), "role", gone[1], ROLES)
    for field in cls["fields"]:
        check_field(model, cls, field)
    for message in cls["messages"]:
        check_message(model, cls, message)
    check_operations(model, cls)
    check_implied(model, cls)
    unique(cls["name"], [f["name"] for f in cls["fields"]])
    unique(cls["name"], [m["name"] for m in cls["messages"]])
    if "get_by_uuid" in cls["generated"] and "uuid" not in [f["name"] for f in cls["fields"]]:
        raise Refused("%s: get_by_uuid without a field uuid" % cls["name"])


def check_relation(model, fields, row):
    need("relations.json", row, "one", "many")
    where = "relations.json: %s" % row["one"]
    known_keys("relation", where, row)
    target, _, many = row["many"].partition(".")
    for side in [row["one"]] + ([row["many"]] if many else []):
        if side not in fields:
            raise Refused("%s: no field %s" % (where, side))
    if fields[row["one"]]["type"] not in ("ref<%s>" % target, "set<ref<%s>>" % target):
        raise Refused("%s: is no reference to %s" % (where, target))
    if not many:
        return
    if fields[row["many"]]["type"] != "set<ref<%s>>" % row["one"].split(".")[0]:
        raise Refused("%s: the other side %s is no set of %s" % (where, row["many"], row["one"].split(".")[0]))
    if not fields[row["many"]].get("derived"):
        raise Refused("%s: the other side %s is not marked derived" % (where, row["many"]))


def check_no_cycle(model):
    """Deleting an object takes others with it; that must come to an end whatever the rows are."""
    edges = [(r["many"].split(".")[0], r["one"].split(".")[0]) for r in model["relations"] if r.get("cascade")]
    edges += [(c["name"], f["type"][4:-1]) for c in model["classes"] for f in c["fields"] if f.get("owns")]

    def visit(cls, above):
        if cls in above:
            raise Refused("relations.json: deleting a %s would delete a %s" % (cls, " and so a ".join(above[above.index(cls) + 1:] + [cls])))
        for source, target in edges:
            if source == cls:
                visit(target, above + [cls])

    for source, _ in edges:
        visit(source, [])


def check_relations(model):
    fields = {"%s.%s" % (c["name"], f["name"]): f for c in model["classes"] for f in c["fields"]}
    for row in model["relations"]:
        check_relation(model, fields, row)
    unique("relations.json", [r["one"] for r in model["relations"]])
    check_no_cycle(model)
    derived = {r["many"] for r in model["relations"]}
    for name, field in fields.items():
        if field.get("derived") and name not in derived:
            raise Refused("%s: derived without a relation" % name)


def check_lists(model):
    unique("http.json", [a["name"] for a in model["http"]])
    for action in model["http"]:
        one_of("http.json: " + action["name"], "role", action["role"], ROLES)
    for name, role in model["roles"]["permissions"].items():
        one_of("roles.json: " + name, "role", role, ROLES)
    for role in model["roles"]["roles"]:
        one_of("roles.json", "role", role["name"], ROLES)
        described("roles.json: " + role["name"], role)


def check(model):
    for name, values in model["enums"].items():
        if not values:
            raise Refused("enums.json: %s has no values" % name)
        unique("enums.json: " + name, values)
    unique("classes", [str(c.get("name")).lower() for c in model["classes"]])
    for cls in model["classes"]:
        check_class(model, cls)
    check_relations(model)
    check_lists(model)
