"""The XenAPI as its published facts say (tests/data/xenapi), and a strict decoder of what a server answers.

Independent of db/model: these tables came from the reference, the model is ours, and the tests compare the two.
"""
import json
import os
import random
import re
import xml.etree.ElementTree as ElementTree

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "xenapi")
NULL = "OpaqueRef:NULL"
REF = re.compile(r"OpaqueRef:(NULL|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\Z")
FLOAT = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]\d+)?\Z")
INT = re.compile(r"(0|-?[1-9]\d*)\Z")
DATETIME = re.compile(r"\d{8}T\d\d:\d\d:\d\dZ\Z")


def load(name):
    with open(os.path.join(DATA, name), encoding="utf-8") as handle:
        return json.load(handle)


CLASSES = {c["name"]: c for c in load("classes.json")["classes"]}
REMOVED = load("removed.json")
ENUMS = {name: e["values"] for name, e in load("enums.json")["enums"].items()}
ROLES = load("roles.json")

# values that a rule of the class asks for: made from the n-th turn and what is there already
RULED = {
    "network": lambda n, refs: {"bridge": "br%d" % n},
    "subject": lambda n, refs: {"subject_identifier": "S-%d" % n},
    "VIF": lambda n, refs: {"device": str(n), "MAC": "02:00:00:00:00:%02x" % n, "MTU": 1500, "VM": refs["VM"][0], "network": refs["network"][0],
                            "currently_attached": False, "ipv4_allowed": ["10.0.0.%d" % n], "ipv6_allowed": [], "trunks": [n]},
    "VDI": lambda n, refs: {"SR": refs["SR"][0], "virtual_size": 1 << 20},
    "VBD": lambda n, refs: {"VM": refs["VM"][0], "VDI": refs["VDI"][0], "userdevice": str(n), "type": "CD", "mode": "RO", "empty": False,
                            "currently_attached": False},
    "PBD": lambda n, refs: {"SR": refs["SR"][1 + n % 5], "host": refs["host"][0]},
}


def ruled_objects(api, make_sr):
    """What the rules above refer to: SRs, the first of which is real; hosts."""
    introduced = [api("SR.introduce", "", "introduced", "", "file", "user", True, {}) for _ in range(5)]
    return {"SR": [make_sr(api)] + introduced, "host": api("host.get_all")}


def split_type(text):
    """'map<string,set<int>>' -> ('map', ['string', 'set<int>'])"""
    m = re.fullmatch(r"(\w+)<(.*)>", text)
    if not m:
        return text, []
    parts, depth, start = [], 0, 0
    for pos, char in enumerate(m.group(2)):
        depth += {"<": 1, ">": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(m.group(2)[start:pos])
            start = pos + 1
    return m.group(1), parts + [m.group(2)[start:]]


def fields(cls):
    """Public fields of a class, those that are gone included: {name: fact}."""
    found = {f["name"]: f for f in CLASSES[cls]["fields"] if not f.get("internal")}
    for field in REMOVED["fields"].get(cls, []):
        if not field.get("internal"):
            found.setdefault(field["name"], field)
    return found


def is_removed(cls, name):
    return name in {f["name"] for f in REMOVED["fields"].get(cls, [])}


class Mismatch(Exception):
    pass


def fit(ok, where, text, value):
    if not ok:
        raise Mismatch("%s: %r is no %s" % (where, value, text))


def decode_json(text, value, where=""):
    """A value of an answer in JSON, checked against its type to the last member."""
    head, args = split_type(text)
    if head in ("string", "secret"):
        fit(isinstance(value, str), where, text, value)
    elif head == "int":
        fit(type(value) is int and -2**63 <= value < 2**63, where, text, value)
    elif head == "float":
        fit(type(value) is float, where, text, value)
    elif head == "bool":
        fit(type(value) is bool, where, text, value)
    elif head == "datetime":
        fit(isinstance(value, str) and DATETIME.match(value), where, text, value)
    elif head == "enum":
        fit(value in ENUMS[args[0]], where, text, value)
    elif head == "ref":
        fit(isinstance(value, str) and REF.match(value), where, text, value)
    elif head == "set":
        fit(isinstance(value, list), where, text, value)
        for item in value:
            decode_json(args[0], item, where)
    elif head == "option":
        fit(isinstance(value, list) and len(value) < 2, where, text, value)
        for item in value:
            decode_json(args[0], item, where)
    elif head == "map":
        fit(isinstance(value, dict), where, text, value)
        for key, item in value.items():
            decode_json(args[0], int(key) if args[0] == "int" else key, where)
            decode_json(args[1], item, where)
    elif head == "record":
        decode_record(args[0], value, decode_json)
    else:
        fit(head == "void" and value == "", where, text, value)
    return value


def decode_record(cls, value, decode):
    want = fields(cls)
    if not isinstance(value, dict) or list(value) != list(want):
        raise Mismatch("%s: members %s" % (cls, sorted(set(value) ^ set(want))))
    for name, field in want.items():
        decode(field["type"], value[name], "%s.%s" % (cls, name))


def xml_text(value, tag):
    """The text of <value>, which stands bare (tag None) or in one element."""
    if tag is None:
        if len(value):
            raise Mismatch("bare text expected, not <%s>" % value[0].tag)
        return value.text or ""
    if len(value) != 1 or value[0].tag != tag:
        raise Mismatch("<%s> expected in %s" % (tag, ElementTree.tostring(value)))
    return value[0].text or ""


def decode_xml(text, value, where=""):
    """A <value> of an answer in XML; the same as decode_json returns for the same object."""
    head, args = split_type(text)
    if head in ("string", "secret", "enum", "ref", "void"):
        return decode_json(text, xml_text(value, None), where)
    if head == "int":
        fit(INT.match(xml_text(value, None)), where, text, value)
        return decode_json(text, int(xml_text(value, None)), where)
    if head == "float":
        fit(FLOAT.match(xml_text(value, "double")), where, text, value)
        return float(xml_text(value, "double"))
    if head == "bool":
        return {"0": False, "1": True}[xml_text(value, "boolean")]
    if head == "datetime":
        return decode_json(text, xml_text(value, "dateTime.iso8601"), where)
    if head == "set":
        xml_text(value, "array")
        return [decode_xml(args[0], item, where) for item in value.find("array/data")]
    xml_text(value, "struct")
    members = {m.find("name").text: m.find("value") for m in value.find("struct")}
    if head == "map":
        for key in members:
            decode_json(args[0], int(key) if args[0] == "int" else key, where)
        return {key: decode_xml(args[1], item, where) for key, item in members.items()}
    fit(head == "record", where, text, value)
    want = fields(args[0])
    if list(members) != list(want):
        raise Mismatch("%s: members %s" % (args[0], sorted(set(members) ^ set(want))))
    return {name: decode_xml(f["type"], members[name], "%s.%s" % (args[0], name)) for name, f in want.items()}


def sample(rng, text, refs=()):
    """A random value of a type, as JSON takes it; references from refs {class: [ref]}."""
    head, args = split_type(text)
    if head in ("string", "secret"):
        return rng.choice(["", "plain", "<&>\"' \u00fc\u4e2d", "x" * rng.randrange(1, 200)])
    if head == "int":
        return rng.choice([0, 1, -1, 2**63 - 1, -2**63, rng.randrange(10**6)])
    if head == "float":
        return rng.choice([0.0, 1.5, -2.25, 1e300, 0.1])
    if head == "bool":
        return rng.random() < 0.5
    if head == "datetime":
        return "%04d%02d%02dT%02d:%02d:%02dZ" % (rng.randrange(1971, 2099), rng.randrange(1, 13), rng.randrange(1, 29),
                                                rng.randrange(24), rng.randrange(60), rng.randrange(60))
    if head == "enum":
        return rng.choice(ENUMS[args[0]])
    if head == "ref":
        return rng.choice([NULL] + list(dict(refs).get(args[0], [])))
    if head == "set":
        values = []
        for _ in range(rng.randrange(4)):
            item = sample(rng, args[0], refs)
            if item not in values and item != NULL:
                values.append(item)
        return values
    assert head == "map", text
    return {sample_key(rng, args[0], i): sample(rng, args[1], refs) for i in range(rng.randrange(4))}


def sample_key(rng, text, i):
    """Text for strings and numbers; else a value of the type, which is text too."""
    return {"string": "key %d" % i, "int": str(i)}.get(text) or sample(rng, text)


def seeded(number):
    return random.Random(number)
