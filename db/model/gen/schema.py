"""Schema versions: what exists since when, in which order it is stored, and the guard that what an older schema stores
never changes. docs/decisions/0011.

Fields, classes, relations, values of enumerations and messages may say "schema": N; without it they exist since "base",
the oldest schema this version still runs. schema.json has one hash for each version from base on, over all that decides
what entries do to rows; "open" instead of a hash: no pool runs it yet, it may still change.
"""
import hashlib
import json

from check import split_type
from load import Refused
from resolve import empty

STORED_TABLES = ("records", "volatile", "internal")


def since(model, *things):
    """The newest schema that any of them waits for."""
    return max([model["schema"]["base"]] + [thing.get("schema", 0) for thing in things])


def stored(field):
    return not field.get("computed") and not field.get("derived")


def in_order(model, cls):
    """Fields of rows first, those of each schema behind those of older ones: so a row of an older schema is a shorter row."""
    return sorted(cls["fields"], key=lambda f: (not stored(f), since(model, cls, f)))


def settle(model):
    """Give everything its schema, and fields their places; records keep the order of the definition."""
    for relation in model["relations"]:
        relation["schema"] = relation_since(model, relation)
    for cls in model["classes"]:
        cls["order"] = [f["name"] for f in cls["fields"]]
        cls["fields"] = [dict(f, schema=since(model, cls, f)) for f in in_order(model, cls)]
        cls["schema"] = since(model, cls)


def relation_since(model, relation):
    sides = [relation]
    for side in (relation["one"], relation["many"]):
        name, _, field = side.partition(".")
        cls = next(c for c in model["classes"] if c["name"] == name)
        sides += [cls] + [f for f in cls["fields"] if f["name"] == field]
    return since(model, *sides)


def facts(model, version):
    """What members must agree on while this schema is active."""
    found = []
    for cls in model["classes"]:
        if cls["table"] in STORED_TABLES and since(model, cls) <= version:
            fields = [f for f in in_order(model, cls) if stored(f) and since(model, cls, f) <= version]
            found.append([cls["name"], [[f["name"], f["type"], f.get("default", empty(model, f["type"])), bool(f.get("owns")),
                                         f.get("from"), enum_values(model, f, version)] for f in fields]])
    return found + sorted([r["one"], r["many"], bool(r.get("cascade"))] for r in model["relations"]
                          if relation_since(model, r) <= version)


def enum_values(model, field, version):
    head, args = split_type(field["type"])
    known = model["enum_schema"].get(args[0], {}) if head == "enum" else {}
    return [v for v in model["enums"][args[0]] if known.get(v, 0) <= version] if head == "enum" else None


def marks(model):
    """Everything that says since when it exists: (what, schema)."""
    for cls in model["classes"]:
        yield cls["name"], cls
        for thing in cls["fields"] + cls["messages"]:
            yield "%s.%s" % (cls["name"], thing["name"]), thing
    for relation in model["relations"]:
        yield "relations.json: " + relation["one"], relation
    for enum, values in model["enum_schema"].items():
        for value, version in values.items():
            if value not in model["enums"].get(enum, []):
                raise Refused("enums.json: %s has no value %s" % (enum, value))
            yield "enums.json: %s %s" % (enum, value), {"schema": version}


def check_source(model, cls, field):
    """"from": where a raise of the schema takes the field's value: another field, or field/key of a map."""
    where = "%s.%s" % (cls["name"], field["name"])
    name, _, key = field["from"].partition("/")
    source = next((f for f in cls["fields"] if f["name"] == name and stored(f)), None)
    if source is None or since(model, cls, source) >= since(model, cls, field):
        raise Refused("%s: takes its value from %s, which no older schema has" % (where, name))
    if source["type"] != ("map<string,%s>" % field["type"] if key else field["type"]):
        raise Refused("%s: takes its value from %s, which is of another type" % (where, field["from"]))


def check_schema(model):
    schema = model["schema"]
    versions = {schema["base"], schema["version"]} | {int(v) for v in schema["hashes"]}
    if min(versions) != schema["base"] or max(versions) != schema["version"]:
        raise Refused("schema.json: hashes are for the versions from base to version")
    for what, thing in marks(model):
        if "schema" in thing and thing["schema"] not in versions - {schema["base"]}:
            raise Refused("%s is new in schema %s: schema.json has version %d" % (what, thing["schema"], schema["version"]))
    for cls in model["classes"]:
        for field in cls["fields"]:
            if "from" in field:
                check_source(model, cls, field)
    for version in sorted(versions):
        found = hashlib.sha256(json.dumps(facts(model, version), sort_keys=True).encode()).hexdigest()[:16]
        known = schema["hashes"].get(str(version))
        if known not in (found, "open"):
            raise Refused("schema.json: what schema %d stores has changed (%s, was %s). If a pool may run it: mark what is new "
                          "with \"schema\": %d and raise version. If none does: set its hash" % (
                              version, found, known, schema["version"] + 1))
