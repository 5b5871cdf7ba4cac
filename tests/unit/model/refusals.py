#!/usr/bin/env python3
"""The generator refuses bad definitions: each case changes one thing of a small good model and expects one message. And it
rewrites only what changed."""
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
GEN = os.path.join(ROOT, "db", "model", "gen", "generate.py")

GOOD = {
    "a.json": {"name": "A", "text": "A class.", "table": "records", "events": True, "generated": ["get_by_uuid"],
               "operations": [{"name": "u"}, {"name": "v", "beside": ["u"]}], "checks": [{"name": "c", "only": ["u"]}], "fields": [
        {"name": "uuid", "type": "string", "qualifier": "DynamicRO", "since": "x", "text": "t"},
        {"name": "b", "type": "ref<B>", "qualifier": "RW", "default": "OpaqueRef:NULL", "since": "x", "text": "t"},
        {"name": "n", "type": "map<string,int>", "qualifier": "RW", "default": {"k": 1}, "since": "x", "text": "t"},
        {"name": "current_operations", "type": "map<string,enum<e>>", "qualifier": "DynamicRO", "default": {}, "since": "x", "text": "t"}],
        "messages": [{"name": "go", "params": [{"name": "self", "type": "ref<A>"}, {"name": "how", "type": "enum<e>", "default": "u"}],
                      "result": "void", "role": "read-only", "route": "placed:self", "locks": [["self", "u"]], "since": "x",
                      "errors": ["E_ONE"], "text": "t"}]},
    "b.json": {"name": "B", "text": "B class.", "table": "records", "events": True, "generated": [], "fields": [
        {"name": "as", "type": "set<ref<A>>", "qualifier": "DynamicRO", "derived": True, "since": "x", "text": "t"}], "messages": []},
    "enums.json": {"enums": {"e": ["u", "v"]}},
    "errors.json": {"codes": {"E_ONE": ["x"]}},
    "relations.json": {"relations": [{"one": "A.b", "many": "B.as", "cascade": True}]},
    "http.json": {"actions": [{"name": "get_it", "method": "GET", "path": "/it", "args": [], "role": "read-only"}]},
    "roles.json": {"roles": [{"name": "read-only", "text": "t"}], "permissions": {"a.b/c": "read-only"}},
    "schema.json": {"base": 1, "version": 1, "hashes": {"1": ""}},
}


def field(model, n=1):
    return model["a.json"]["fields"][n]


def message(model):
    return model["a.json"]["messages"][0]


def newer(model, **more):
    """A field of schema 2, and schema.json as the messages ask for it."""
    model["a.json"]["fields"].append({"name": "z", "type": "int", "qualifier": "RW", "schema": 2, "since": "x", "text": "t", **more})
    model["schema.json"].update(version=2)
    model["schema.json"]["hashes"]["2"] = "open"


def values(model, schema):
    field(model, 2).update(type="enum<e>", default="u")
    model["schema.json"].update(base=1, version=2, hashes={"1": "open", "2": "open"})
    model["enums.json"]["schema"] = schema


CHANGED = "schema.json: what schema 1 stores has changed ("
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
    ("no reference may be null", lambda m: message(m)["params"][1].update(null=True), "A.go: parameter how: null is for references, and true"),
    ("parameter twice", lambda m: message(m)["params"].append({"name": "self", "type": "int", "default": 0}), "A.go: self stands there twice"),
    ("unknown error", lambda m: message(m).update(errors=["E_TWO"]), "A.go: unknown error E_TWO"),
    ("unknown route", lambda m: message(m).update(route="moon:self"), "A.go: unknown route moon"),
    ("route by an unknown parameter", lambda m: message(m).update(route="placed:vm"), "A.go: unknown parameter of the route vm"),
    ("operation that is none", lambda m: m["a.json"]["operations"].append({"name": "w"}), "A: unknown operation w"),
    ("operation twice", lambda m: m["a.json"]["operations"].append({"name": "u"}), "A: operations: u stands there twice"),
    ("state that is none", lambda m: m["a.json"]["operations"][0].update(states=["dead"]), "A: operation u: unknown state dead"),
    ("operation beside nothing", lambda m: m["a.json"]["operations"][0].update(beside=["w"]), "A: operation u: unknown operation beside it w"),
    ("check of nothing", lambda m: m["a.json"]["checks"][0].update(only=["w"]), "A: check c: unknown operation w"),
    ("misspelt key of a check", lambda m: m["a.json"]["checks"][0].update(onyl=[]), "A: check c: unknown key onyl"),
    ("lock of what is no operation", lambda m: message(m).update(locks=[["self", "w"]]), "A.go: unknown operation of a lock on A w"),
    ("lock along no reference", lambda m: message(m).update(locks=[["self.n", "u"]]), "A.go: object of a lock self.n: n refers to nothing"),
    ("route to no object", lambda m: message(m).update(route="placed:how"), "A.go: parameter of the route how leads to no object"),
    ("too many locks", lambda m: message(m).update(locks=[["self", "u"]] * 6), "A.go: too many locks"),
    ("lock on nothing", lambda m: message(m).update(locks=[["vm", "go"]]), "A.go: unknown object of a lock vm"),
    ("unknown table", lambda m: m["a.json"].update(table="wood"), "A: unknown table wood"),
    ("unknown generated message", lambda m: m["a.json"].update(generated=["get_nothing"]), "A: unknown generated message get_nothing"),
    ("get_by_uuid without uuid", lambda m: m["b.json"].update(generated=["get_by_uuid"]), "B: get_by_uuid without a field uuid"),
    ("relation to no field", lambda m: m["relations.json"].update(relations=[{"one": "A.c", "many": "B.as"}]), "relations.json: A.c: no field A.c"),
    ("relation to another class", lambda m: m["b.json"]["fields"][0].update(type="set<ref<B>>"), "relations.json: A.b: the other side B.as is no set of A"),
    ("relation side not derived", lambda m: m["b.json"]["fields"][0].pop("derived"), "relations.json: A.b: the other side B.as is not marked derived"),
    ("derived without relation", lambda m: m["relations.json"].update(relations=[]), "B.as: derived without a relation"),
    ("default changed", lambda m: field(m, 2).update(default={}), CHANGED),
    ("new field not marked", lambda m: (newer(m), m["a.json"]["fields"][-1].pop("schema")), CHANGED),
    ("order changed", lambda m: m["a.json"]["fields"].reverse(), CHANGED),
    ("cascade changed", lambda m: m["relations.json"]["relations"][0].pop("cascade"), CHANGED),
    ("mark above the version", lambda m: (newer(m), m["schema.json"].update(version=1), m["schema.json"]["hashes"].pop("2")),
     "A.z is new in schema 2: schema.json has version 1"),
    ("version without hash", lambda m: (newer(m), m["schema.json"]["hashes"].pop("2")), "schema.json: what schema 2 stores has changed"),
    ("hash of a version to come", lambda m: m["schema.json"]["hashes"].update({"3": "open"}), "schema.json: hashes are for the versions"),
    ("value from nothing", lambda m: newer(m, **{"from": "y"}), "A.z: takes its value from y, which no older schema has"),
    ("value from itself", lambda m: newer(m, **{"from": "z"}), "A.z: takes its value from z, which no older schema has"),
    ("value of another type", lambda m: newer(m, **{"from": "uuid"}), "A.z: takes its value from uuid, which is of another type"),
    ("key of another type", lambda m: newer(m, **{"from": "n/k", "type": "string"}), "A.z: takes its value from n/k, which is of"),
    ("schema of no value", lambda m: values(m, {"e": {"w": 2}}), "enums.json: e has no value w"),
    ("value marked above the version", lambda m: values(m, {"e": {"v": 3}}), "enums.json: e v is new in schema 3"),
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
    ("a star inside a key", lambda m: field(m, 2).update(key_roles={"k*x": "read-only"}),
     "A.n: key k*x: * stands for the end of a key only"),
    ("roles of keys without a key", lambda m: message(m).update(key_roles={"k": "read-only"}), "A.go: roles of keys, but it takes no key"),
    ("create without a role", lambda m: m["a.json"].update(generated=["create_destroy", "get_by_uuid"]), "A: no create_role"),
    ("create that is not generated", lambda m: m["a.json"].update(create={"route": "coordinator"}), "A.create: it is not generated"),
    ("create that runs nowhere", lambda m: m["a.json"].update(generated=["create_destroy", "get_by_uuid"], create_role="pool-admin", create={"route": "host:args.n"}),
     "A.create: parameter of the route args.n: n refers to nothing"),
    ("removed message of unknown form", lambda m: m["a.json"].update(removed_messages={"old": 1}), "A.old: a removed message is"),
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


def written(model, out, since=0):
    """Generate into the folder; what it wrote there of what was there before, by the files' times, which are set back."""
    subprocess.run([sys.executable, "-B", GEN, model, out], check=True)
    paths = {name: os.path.join(out, name) for name in os.listdir(out)}
    new = {name for name, path in paths.items() if os.stat(path).st_mtime_ns != since}
    for path in paths.values():
        os.utime(path, ns=(since, since))
    return new


def contents(folder):
    result = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="utf-8") as handle:
            result[name] = handle.read()
    return result


def rewrites():
    """Of the project's own model: nothing the second time; after an edit what it is about, and that is what a fresh run makes."""
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        model, out, fresh = (os.path.join(folder, name) for name in ("model", "out", "fresh"))
        shutil.copytree(os.path.join(ROOT, "db", "model"), model, ignore=shutil.ignore_patterns("gen", "__pycache__"))
        everything = written(model, out)
        again = written(model, out)
        path = os.path.join(model, "vm.json")
        with open(path, encoding="utf-8") as handle:
            vm = json.load(handle)
        next(m for m in vm["messages"] if m["name"] == "start")["role"] = "pool-admin"
        with open(path, "w", encoding="utf-8") as handle:
            json.dump(vm, handle)
        before = contents(out)
        edited = written(model, out)
        written(model, fresh)
        after = contents(out)
        if len(everything) < 5 or again:
            faults.append("of %s the second run writes %s" % (sorted(everything), sorted(again)))
        if not edited or edited != {name for name in after if after[name] != before[name]} or edited == everything:
            faults.append("after one edit it writes %s" % sorted(edited))
        if after != contents(fresh):
            faults.append("what is there after an edit is not what a fresh run makes")
    for fault in faults:
        print(fault)
    return len(faults)


def main():
    good = copy.deepcopy(GOOD)
    _, text = run(good)
    good["schema.json"]["hashes"]["1"] = text.split("changed (")[1].split(",")[0]
    failed = 0
    newest = copy.deepcopy(good)
    newer(newest, **{"from": "n/k"})
    marked = copy.deepcopy(good)
    values(marked, {"e": {"v": 2}})
    for model in (good, newest, marked):
        if run(model) != (0, ""):
            print("a good model is refused: %s" % run(model)[1])
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
    failed += rewrites() > 0
    print("%d passed, %d failed" % (len(cases) + 4 - failed, failed))
    return failed > 0


sys.exit(main())
