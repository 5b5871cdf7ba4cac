#!/usr/bin/env python3
"""The generator refuses bad definitions: each case changes one thing of a small good model and expects one message."""
import copy
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
GEN = os.path.join(ROOT, "db", "model", "gen", "generate.py")

GOOD = {
    "a.json": {"name": "A", "text": "A class.", "table": "records", "events": True, "generated": ["get_by_uuid"], "fields": [
        {"name": "uuid", "type": "string", "qualifier": "DynamicRO", "since": "x", "text": "t"},
        {"name": "b", "type": "ref<B>", "qualifier": "RW", "default": "OpaqueRef:NULL", "since": "x", "text": "t"},
        {"name": "n", "type": "map<string,int>", "qualifier": "RW", "default": {"k": 1}, "since": "x", "text": "t"}],
        "messages": [{"name": "go", "params": [{"name": "self", "type": "ref<A>"}, {"name": "how", "type": "enum<e>", "default": "u"}],
                      "result": "void", "role": "read-only", "route": "placed:self", "locks": [["self", "go"]], "since": "x",
                      "errors": ["E_ONE"], "text": "t"}]},
    "b.json": {"name": "B", "text": "B class.", "table": "records", "events": True, "generated": [], "fields": [
        {"name": "as", "type": "set<ref<A>>", "qualifier": "DynamicRO", "derived": True, "since": "x", "text": "t"}], "messages": []},
    "enums.json": {"enums": {"e": ["u", "v"]}},
    "errors.json": {"codes": {"E_ONE": ["x"]}},
    "relations.json": {"relations": [{"one": "A.b", "many": "B.as", "cascade": True}]},
    "alerts.json": {"alerts": [{"name": "FIRE", "priority": 1}]},
    "http.json": {"actions": [{"name": "get_it", "method": "GET", "path": "/it", "args": [], "role": "read-only"}]},
    "roles.json": {"roles": [{"name": "read-only", "text": "t"}], "permissions": {"a.b/c": "read-only"}},
    "schema.json": {"version": 1, "hash": ""},
}


def field(model, n=1):
    return model["a.json"]["fields"][n]


def message(model):
    return model["a.json"]["messages"][0]


CASES = [
    ("unknown class", lambda m: field(m).update(type="ref<C>"), "A.b: unknown class C"),
    ("unknown type", lambda m: field(m).update(type="word"), "A.b: unknown type word"),
    ("unknown enumeration", lambda m: field(m).update(type="enum<f>"), "A.b: unknown enumeration f"),
    ("bad nested type", lambda m: field(m, 2).update(type="map<string>"), "A.n: unknown type map<string>"),
    ("default of the wrong type", lambda m: field(m, 2).update(default=[]), "A.n: default [] is no map<string,int>"),
    ("default inside of the wrong type", lambda m: field(m, 2).update(default={"k": "1"}), 'A.n: default "1" is no int'),
    ("bool is no int", lambda m: field(m, 2).update(default={"k": True}), "A.n: default true is no int"),
    ("default is no reference", lambda m: field(m).update(default=""), "A.b: default  is no reference"),
    ("field without text", lambda m: field(m).update(text=" "), "A.b: no description"),
    ("class without text", lambda m: m["a.json"].update(text=""), "A: no description"),
    ("message without text", lambda m: message(m).pop("text"), "A.go: no description"),
    ("field without type", lambda m: field(m).pop("type"), "A.b: no type"),
    ("unknown qualifier", lambda m: field(m).update(qualifier="WO"), "A.b: unknown qualifier WO"),
    ("unknown role of a field", lambda m: field(m).update(set_role="king"), "A.b: unknown role king"),
    ("unknown role of a message", lambda m: message(m).update(role="king"), "A.go: unknown role king"),
    ("answered as what is not generated", lambda m: message(m).update({"as": "go"}), "A.go: unknown generated message go"),
    ("answered as what takes others", lambda m: message(m).update({"as": "get_all"}), "A.go: get_all takes nothing"),
    ("answered as an accessor of no field", lambda m: message(m).update({"as": "set_field"}), "A.go: set_field without such a field"),
    ("answered as an accessor of another type", lambda m: message(m).update({"as": "set_field", "name": "set_b"}),
     "A.set_b: set_field takes ref<A>, ref<B>"),
    ("field twice", lambda m: m["a.json"]["fields"].append(copy.deepcopy(field(m))), "A: b stands there twice"),
    ("message twice", lambda m: m["a.json"]["messages"].append(copy.deepcopy(message(m))), "A: go stands there twice"),
    ("class twice", lambda m: m["b.json"].update(name="a"), "classes: a stands there twice"),
    ("enumeration value twice", lambda m: m["enums.json"]["enums"].update(e=["u", "u"]), "enums.json: e: u stands there twice"),
    ("enumeration without values", lambda m: m["enums.json"]["enums"].update(f=[]), "enums.json: f has no values"),
    ("default outside the enumeration", lambda m: message(m)["params"][1].update(default="w"), "A.go: default w is not in enumeration e"),
    ("optional before required", lambda m: message(m)["params"].append({"name": "z", "type": "int"}), "A.go: parameter z without default follows one with"),
    ("parameter twice", lambda m: message(m)["params"].append({"name": "self", "type": "int", "default": 0}), "A.go: self stands there twice"),
    ("unknown error", lambda m: message(m).update(errors=["E_TWO"]), "A.go: unknown error E_TWO"),
    ("unknown route", lambda m: message(m).update(route="moon:self"), "A.go: unknown route moon"),
    ("route by an unknown parameter", lambda m: message(m).update(route="placed:vm"), "A.go: unknown parameter of the route vm"),
    ("lock on nothing", lambda m: message(m).update(locks=[["vm", "go"]]), "A.go: unknown object of a lock vm"),
    ("unknown table", lambda m: m["a.json"].update(table="wood"), "A: unknown table wood"),
    ("unknown generated message", lambda m: m["a.json"].update(generated=["get_nothing"]), "A: unknown generated message get_nothing"),
    ("get_by_uuid without uuid", lambda m: m["b.json"].update(generated=["get_by_uuid"]), "B: get_by_uuid without a field uuid"),
    ("relation to no field", lambda m: m["relations.json"].update(relations=[{"one": "A.c", "many": "B.as"}]), "relations.json: A.c: no field A.c"),
    ("relation to another class", lambda m: m["b.json"]["fields"][0].update(type="set<ref<B>>"), "relations.json: A.b: the other side B.as is no set of A"),
    ("relation side not derived", lambda m: m["b.json"]["fields"][0].pop("derived"), "relations.json: A.b: the other side B.as is not marked derived"),
    ("derived without relation", lambda m: m["relations.json"].update(relations=[]), "B.as: derived without a relation"),
    ("stored form changed", lambda m: field(m, 2).update(default={}), "schema.json: what is stored has changed"),
    ("relation of nothing known", lambda m: m["relations.json"]["relations"][0].update(on="x"), "relations.json: A.b: unknown key on"),
    ("relation without its other side", lambda m: m["relations.json"].update(relations=[{"one": "A.b"}]), "relations.json: no many"),
    ("relation twice", lambda m: m["relations.json"]["relations"].append({"one": "A.b", "many": "B"}), "relations.json: A.b stands there twice"),
    ("deletion without end", lambda m: field(m).update(owns=True),
     "relations.json: deleting a"),
    ("owner of text", lambda m: field(m, 2).update(owns=True), "A.n: owns what is no reference"),
    ("misspelt key of a field", lambda m: field(m).update(defualt=1), "A.b: unknown key defualt"),
    ("misspelt key of a message", lambda m: message(m).update(rout="x"), "A.go: unknown key rout"),
    ("misspelt key of a class", lambda m: m["a.json"].update(evnets=True), "A: unknown key evnets"),
    ("unknown role of a key", lambda m: field(m, 2).update(key_roles={"k": "king"}), "A.n: unknown role king"),
    ("create without a role", lambda m: m["a.json"].update(generated=["create_destroy", "get_by_uuid"]), "A: no create_role"),
    ("removed message of unknown form", lambda m: m["a.json"].update(removed_messages={"old": 1}), "A.old: a removed message is"),
    ("priority of an alert", lambda m: m["alerts.json"]["alerts"][0].update(priority=6), "alerts.json: FIRE: priority 6 is not 1 to 5"),
    ("alert twice", lambda m: m["alerts.json"]["alerts"].append({"name": "FIRE", "priority": 1}), "alerts.json: FIRE stands there twice"),
    ("role of an action", lambda m: m["http.json"]["actions"][0].update(role="king"), "http.json: get_it: unknown role king"),
    ("role without text", lambda m: m["roles.json"]["roles"][0].pop("text"), "roles.json: read-only: no description"),
    ("role of a permission", lambda m: m["roles.json"]["permissions"].update(x="king"), "roles.json: x: unknown role king"),
    ("no messages", lambda m: m["a.json"].pop("messages"), "a.json: no messages"),
]


def run(model, extra=None):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in model.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as handle:
                json.dump(content, handle)
        for name, text in (extra or {}).items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as handle:
                handle.write(text)
        done = subprocess.run([sys.executable, "-B", GEN, "--check", folder], text=True, stderr=subprocess.PIPE)
        return done.returncode, done.stderr.strip()


def main():
    good = copy.deepcopy(GOOD)
    _, text = run(good)
    good["schema.json"]["hash"] = text.split("changed (")[1].split(",")[0]
    failed = 0
    if run(good) != (0, ""):
        print("the good model is refused: %s" % run(good)[1])
        failed += 1
    cases = [(what, lambda m, c=change: c(m), expected, None) for what, change, expected in CASES]
    cases += [("no JSON", lambda m: None, "c.json: not JSON", {"c.json": "{"})]
    for what, change, expected, extra in cases:
        model = copy.deepcopy(good)
        change(model)
        code, text = run(model, extra)
        if code == 0 or expected not in text:
            print("%s: expected %r, got %d %r" % (what, expected, code, text))
            failed += 1
    print("%d passed, %d failed" % (len(cases) + 1 - failed, failed))
    return failed > 0


sys.exit(main())
