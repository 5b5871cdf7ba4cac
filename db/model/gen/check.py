"""Refuse a definition that is wrong. Each refusal has a small bad input under tests/unit/model/."""
import hashlib
import json
import re

from load import Refused

ROLES = ("local-root", "pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator",
         "client-cert", "read-only")
QUALIFIERS = ("RW", "StaticRO", "DynamicRO")
TABLES = ("none", "records", "volatile", "internal")
GENERATED = ("get_all", "get_by_uuid", "get_by_name_label", "create_destroy")
SCALARS = ("string", "secret", "int", "float", "bool", "datetime", "void", "free")
ROUTES = ("placed", "resident")


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
    described(where, field)
    one_of(where, "qualifier", field["qualifier"], QUALIFIERS)
    check_type(model, where, field["type"])
    if "set_role" in field:
        one_of(where, "role", field["set_role"], ROLES)
    if "default" in field:
        check_value(model, where, field["type"], field["default"])


def check_message(model, cls, message):
    need(cls["file"], message, "name")
    where = "%s.%s" % (cls["name"], message["name"])
    need(where, message, "params", "result", "role", "errors", "since")
    described(where, message)
    one_of(where, "role", message["role"], ROLES)
    check_type(model, where, message["result"])
    names = [p["name"] for p in message["params"]]
    unique(where, names)
    optional = False
    for param in message["params"]:
        check_type(model, where, param["type"])
        if "default" in param:
            optional = True
            check_value(model, where, param["type"], param["default"])
        elif optional:
            raise Refused("%s: parameter %s without default follows one with" % (where, param["name"]))
    for code in message["errors"]:
        if code not in model["errors"]:
            raise Refused("%s: unknown error %s" % (where, code))
    if "route" in message:
        kind, _, param = message["route"].partition(":")
        one_of(where, "route", kind, ROUTES)
        one_of(where, "parameter of the route", param, names)
        for target, _ in message.get("locks", []):
            one_of(where, "object of a lock", target, names + ["owner"])


def check_class(model, cls):
    need(cls["file"], cls, "name", "table", "generated", "fields", "messages")
    described(cls["name"], cls)
    one_of(cls["name"], "table", cls["table"], TABLES)
    for flag in cls["generated"]:
        one_of(cls["name"], "generated message", flag, GENERATED)
    for field in cls["fields"]:
        check_field(model, cls, field)
    for message in cls["messages"]:
        check_message(model, cls, message)
    unique(cls["name"], [f["name"] for f in cls["fields"]])
    unique(cls["name"], [m["name"] for m in cls["messages"]])
    if "get_by_uuid" in cls["generated"] and "uuid" not in [f["name"] for f in cls["fields"]]:
        raise Refused("%s: get_by_uuid without a field uuid" % cls["name"])


def check_relations(model):
    fields = {"%s.%s" % (c["name"], f["name"]): (c, f) for c in model["classes"] for f in c["fields"]}
    derived = {b for _, b in model["relations"]}
    for one, many in model["relations"]:
        where = "relations.json: %s" % one
        for side in (one, many):
            if side not in fields:
                raise Refused("%s: no field %s" % (where, side))
        if fields[one][1]["type"] != "ref<%s>" % many.split(".")[0]:
            raise Refused("%s: is no reference to %s" % (where, many.split(".")[0]))
        if fields[many][1]["type"] != "set<ref<%s>>" % one.split(".")[0]:
            raise Refused("%s: the other side %s is no set of %s" % (where, many, one.split(".")[0]))
        if not fields[many][1].get("derived"):
            raise Refused("%s: the other side %s is not marked derived" % (where, many))
    for name, (_, field) in fields.items():
        if field.get("derived") and name not in derived:
            raise Refused("%s: derived without a relation" % name)


def schema_hash(model):
    """Over what is stored: classes, fields, types, defaults. Texts, roles and messages may change freely."""
    facts = [[c["name"], c["table"], [[f["name"], f["type"], f.get("default"), bool(f.get("derived"))]
                                      for f in c["fields"] if not f.get("computed")]] for c in model["classes"]]
    facts.append(model["relations"])
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def check(model):
    for name, values in model["enums"].items():
        if not values:
            raise Refused("enums.json: %s has no values" % name)
        unique("enums.json: " + name, values)
    unique("classes", [str(c.get("name")).lower() for c in model["classes"]])
    for cls in model["classes"]:
        check_class(model, cls)
    check_relations(model)
    found, known = schema_hash(model), model["schema"]["hash"]
    if found != known:
        raise Refused("schema.json: what is stored has changed (%s, was %s): raise version and set hash" % (found, known))
