"""Print the C files. One function per output; each returns text."""
import calendar
import json
import os
import time

from check import ROOTS, split_type
from resolve import empty, name_uuid
from schema import stored

HERE = os.path.dirname(os.path.abspath(__file__))
C_TYPES = {"string": "const char *", "secret": "const char *", "enum": "const char *", "ref": "const char *",
           "int": "int64_t ", "datetime": "int64_t ", "float": "double ", "bool": "bool "}
KINDS = ("void", "string", "secret", "int", "float", "bool", "datetime", "enum", "ref", "set", "map", "record", "option", "free")


def part(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as handle:
        return handle.read()


def quote(text):
    return json.dumps(text, ensure_ascii=True)


def ident(text):
    return "".join(ch if ch.isalnum() else "_" for ch in text)


def class_id(name):
    return "MODEL_CLASS_%s" % ident(name.lstrip("_") if not name.startswith("_") else "_" + name[1:])


class Tables:
    """Types and defaults that several rows share, named by what they are."""

    def __init__(self, model):
        self.model, self.types, self.lines, self.count = model, {}, [], 0
        self.enum_ids = {name: i for i, name in enumerate(model["enums"])}

    def type(self, text):
        if text in self.types:
            return self.types[text]
        head, args = split_type(text)
        cls, enum, key, item = "-1", "-1", "NULL", "NULL"
        if head in ("ref", "record"):
            cls = class_id(args[0])
        elif head == "enum":
            enum = str(self.enum_ids[args[0]])
        elif head in ("set", "option"):
            item = "&" + self.type(args[0])
        elif head == "map":
            key, item = "&" + self.type(args[0]), "&" + self.type(args[1])
        name = "type_" + ident(text)
        self.lines.append("static const struct model_type %s = { MODEL_%s, %s, %s, %s, %s };" % (
            name, head.upper(), cls, enum, key, item))
        self.types[text] = name
        return name

    def value(self, text, value):
        """An initializer of struct val."""
        head, args = split_type(text)
        if head in ("int",):
            return "{ .kind = VAL_INT, .i = %d }" % value
        if head == "float":
            return "{ .kind = VAL_FLOAT, .f = %r }" % float(value)
        if head == "bool":
            return "{ .kind = VAL_BOOL, .b = %s }" % ("true" if value else "false")
        if head == "datetime":
            seconds = calendar.timegm(time.strptime(value, "%Y%m%dT%H:%M:%SZ"))
            return "{ .kind = VAL_DATETIME, .i = %d }" % seconds
        if head == "set":
            if not value:
                return "{ .kind = VAL_SET }"
            name = self.array("struct val", [self.value(args[0], v) for v in value])
            return "{ .kind = VAL_SET, .items = (struct val *)%s, .n = %d, .cap = %d }" % (name, len(value), len(value))
        if head == "map":
            if not value:
                return "{ .kind = VAL_MAP }"
            name = self.array("struct val_pair", ["{ %s, %s }" % (quote(k), self.value(args[1], v))
                                                  for k, v in value.items()])
            return "{ .kind = VAL_MAP, .pairs = (struct val_pair *)%s, .n = %d, .cap = %d }" % (name, len(value), len(value))
        if head in ("record", "void", "free", "option"):
            return "{ .kind = VAL_VOID }"
        return "{ .kind = VAL_STRING, .s = %s }" % quote(value)

    def array(self, ctype, rows):
        name = "initial_%d" % self.count
        self.count += 1
        self.lines.append("static const %s %s[] = { %s };" % (ctype, name, ", ".join(rows)))
        return name

    def keys(self, roles):
        """Keys of a map with their roles; a * at the end stands for anything."""
        if not roles:
            return "NULL"
        return self.array("struct model_key", ["{ %s, %s, %s }" % (
            quote(key.rstrip("*")), "true" if key.endswith("*") else "false", self.model["role_ids"][role])
            for key, role in roles.items()] + ["{ NULL, false, MODEL_ROLE_ROOT }"])

    def initial(self, thing):
        value = thing["default"] if "default" in thing else empty(self.model, thing["type"])
        return self.value(thing["type"], value)


def header(model):
    out = [part("model_head.h")]
    out.append("/* The oldest schema this version runs, and its own. */")
    out.append("enum { MODEL_SCHEMA_BASE = %d, MODEL_SCHEMA_VERSION = %d };\n" % (model["schema"]["base"], model["schema"]["version"]))
    out.append("enum model_class_id {")
    out += ["\t%s," % class_id(c["name"]) for c in model["classes"]]
    out.append("\tMODEL_CLASS_COUNT\n};\n")
    out.append("enum { MODEL_FIELDS_MAX = %d };\n" % max(len(c["fields"]) for c in model["classes"]))
    out.append("/* Places of fields in their class. */")
    for cls in model["classes"]:
        if cls["fields"]:
            out.append("enum {")
            out += ["\t%s_%s," % (ident(cls["name"]).upper(), ident(f["name"])) for f in cls["fields"]]
            out.append("\t%s_FIELD_COUNT\n};" % ident(cls["name"]).upper())
    out.append("\nenum model_enum_id {")
    out += ["\tMODEL_ENUM_%s," % name for name in model["enums"]]
    out.append("};\n\n/* Relations, by their stored side. */\nenum model_relation_id {")
    out += ["\tMODEL_RELATION_%s," % ident(r["one"]) for r in model["relations"]]
    out.append("\tMODEL_RELATION_COUNT\n};\n")
    out.append("/* Error codes; arrays of one, so that the name alone is the pointer err_set() wants. */")
    out += ["extern const struct err_code ERR_%s[1];%s" % (
        ident(code), " /* %s */" % ", ".join(params) if params else "") for code, params in model["errors"].items()]
    return "\n".join(out) + "\n"


def args_name(msg):
    return ident(msg["name"]).lower() + "_args"


def args_header(model):
    out = ["/* Arguments and functions of the declared messages. Generated: do not edit.",
           " *",
           " * A message answered where it arrives is one function, in pool/<class>.c. An operation is two: _admit on the",
           " * coordinator (pure) and _run, the owner's job; what _run returns ends the task. A missing one answers",
           " * NOT_IMPLEMENTED. Strings and values are borrowed from the call or the job.",
           " */", "#pragma once", "", "#include \"model/model.h\"", "", "struct call;", "struct admit;", "struct job;", ""]
    for msg in model["customs"]:
        out.append("struct %s {" % args_name(msg))
        for p in msg["params"]:
            ctype = C_TYPES.get(split_type(p["type"])[0], "const struct val *")
            out.append("\t%s%s;" % (ctype, c_name(p["name"])))
        if not msg["params"]:
            out.append("\tchar none;")
        out.append("};")
        base = ident(msg["name"]).lower()
        if "route" in msg:
            out.append("int %s_admit(struct admit *admit, const struct %s *args, struct err *err) __attribute__((weak));" % (
                base, args_name(msg)))
            out.append("int %s_run(struct job *job, void *task, const struct %s *args, struct err *err) __attribute__((weak));" % (
                base, args_name(msg)))
        else:
            out.append("int %s(struct call *call, const struct %s *args, struct err *err) __attribute__((weak));" % (
                base, args_name(msg)))
        out.append("")
    return "\n".join(out)


RESERVED = {"class", "default", "new", "register"}


def c_name(name):
    return name + "_" if name in RESERVED else ident(name)


def calls(model):
    """Compiled into pool: the table from messages to functions."""
    out = ["/* Generated: do not edit. The functions behind the declared messages, NULL where nobody has written one. */",
           "#include \"model/args.h\"", "#include \"model/calls.h\"", ""]
    rows = []
    for msg in model["customs"]:
        base, args = ident(msg["name"]).lower(), args_name(msg)
        if "route" in msg:
            out.append("static int admit_%s(struct admit *a, const void *p, struct err *e)\n{\n\treturn %s_admit(a, (const struct %s *)p, e);\n}\n" % (base, base, args))
            out.append("static int run_%s(struct job *j, void *t, const void *p, struct err *e)\n{\n\treturn %s_run(j, t, (const struct %s *)p, e);\n}\n" % (base, base, args))
            rows.append("\tcase %d:\n\t\treturn (struct model_functions){ NULL, %s_admit ? admit_%s : NULL, %s_run ? run_%s : NULL };" % (
                msg["custom"], base, base, base, base))
        else:
            out.append("static int call_%s(struct call *c, const void *p, struct err *e)\n{\n\treturn %s(c, (const struct %s *)p, e);\n}\n" % (base, base, args))
            rows.append("\tcase %d:\n\t\treturn (struct model_functions){ %s ? call_%s : NULL, NULL, NULL };" % (msg["custom"], base, base))
    out.append("struct model_functions model_functions(const struct model_message *message)\n{\n\tswitch (message->custom) {")
    out += rows
    out.append("\tdefault:\n\t\treturn (struct model_functions){ NULL, NULL, NULL };\n\t}\n}")
    return "\n".join(out) + "\n"


CALLS_HEADER = """/* Generated: do not edit. */
#pragma once

#include "model/model.h"

struct call;
struct admit;
struct job;

struct model_functions {
	int (*call)(struct call *call, const void *args, struct err *err);
	int (*admit)(struct admit *admit, const void *args, struct err *err);
	int (*run)(struct job *job, void *task, const void *args, struct err *err);
};

/* What is behind a declared message; all NULL: NOT_IMPLEMENTED. */
struct model_functions model_functions(const struct model_message *message);
"""


def calls_header(model):
    return CALLS_HEADER


def field_row(t, model, cls, field):
    full = "%s.%s" % (cls["name"], field["name"])
    ones = [r["one"] for r in model["relations"]]
    manys = [r["many"] for r in model["relations"]]
    flags = ", ".join("true" if field.get(key) else "false" for key in ("internal", "computed", "removed", "volatile", "owns"))
    flags += ", " + ("true" if field.get("copied", True) else "false")
    return "\t{ %s, %s, &%s, MODEL_%s, %s, %d, %d, %s, %s, %d, %s, %s }," % (
        quote(field["name"]), quote(field.get("column", field["name"])), t.type(field["type"]),
        {"RW": "RW", "StaticRO": "STATIC_RO", "DynamicRO": "DYNAMIC_RO"}[field["qualifier"]],
        flags, ones.index(full) if full in ones else -1, manys.index(full) if full in manys else -1,
        "true" if "default" in field else "false", t.initial(field), field["schema"], t.keys(field.get("key_roles")), quote(field["text"]))


def spellings(cls):
    """Both spellings of each field, sorted: [(text, place)]."""
    return sorted({(text, i) for i, f in enumerate(cls["fields"]) for text in (f["name"], f.get("column", f["name"]))})


def field_names(name, cls):
    return ["static const struct model_spelling %s[] = {" % name] + [
        "\t{ %s, %d }," % (quote(text), i) for text, i in spellings(cls)] + ["};\n"]


def role_rows(model):
    """The objects of class role: roles first, strongest first, then every permission by name."""
    out = ["const struct model_permission model_permissions[] = {"]
    for role in model["roles"]["roles"]:
        out.append("\t{ %s, %s, %s, %s, true, %s, false }," % (quote(role["name"]), quote(name_uuid(role["name"])), quote(role["text"]),
                   model["role_ids"][role["name"]], "true" if role.get("internal") else "false"))
    for name, (role, cert) in sorted(model["permissions"].items()):
        out.append("\t{ %s, %s, %s, %s, false, false, %s }," % (quote(name), quote(name_uuid(name)), quote(""),
                   model["role_ids"][role], "true" if cert else "false"))
    return out + ["\t{ NULL, NULL, NULL, MODEL_ROLE_ROOT, false, false, false },\n};\n",
                  "const unsigned model_n_permissions = %d;\n" % (len(model["roles"]["roles"]) + len(model["permissions"]))]


def rule_rows(model):
    out = ["const struct model_rule model_rules[] = {"]
    for cls in model["classes"]:
        for field in cls["fields"]:
            source, _, key = field.get("from", "").partition("/")
            if source:
                place = "%s_%s" % (ident(cls["name"]).upper(), "%s")
                out.append("\t{ %d, %s, %s, %s, %s }," % (field["schema"], class_id(cls["name"]), place % ident(field["name"]),
                           place % ident(source), quote(key) if key else "NULL"))
    return out + ["\t{ 0, 0, 0, 0, NULL },\n};\n"]


def path_row(model, msg, path):
    """'vm.VBDs' as an initializer of struct model_path."""
    param, *names = path.split(".")
    places, at = [p["name"] for p in msg["params"]], ROOTS.get(param)
    if param in places:
        at = split_type(msg["params"][places.index(param)]["type"])[1][0]
    steps = []
    for name in names:
        cls = next(c for c in model["classes"] if c["name"] == at)
        steps.append("%s_%s" % (ident(at).upper(), ident(name)))
        at = next(f["type"] for f in cls["fields"] if f["name"] == name).strip(">").split("<")[-1]
    return "{ %d, %d, { %s } }" % (places.index(param) if param in places else -1 - list(ROOTS).index(param), len(steps), ", ".join(steps) or "0")


def mask(names, chosen):
    return "0x%xull" % sum(1 << names.index(n) for n in chosen)


def checks_header(model):
    """What the checks of rules are: compiled into pool, which has the functions."""
    out = ["/* Generated: do not edit. The checks that the tables of operations name, in pool/rules_*.c. */", "#pragma once", "",
           "#include \"model/model.h\"", "", "struct rule;", ""]
    names = sorted({c["name"] for cls in model["classes"] for c in cls.get("checks", [])})
    out += ["int rule_%s(struct rule *rule, struct err *err);" % name for name in names]
    return "\n".join(out + ["", "extern const struct model_operations model_operations[]; /* by class */"]) + "\n"


def checks(model):
    out = ["/* Generated: do not edit. When operations are allowed: db/model/<class>.json. */", "#include \"model/checks.h\"", "", "#include <stddef.h>", ""]
    rows = []
    for cls in model["classes"]:
        ops, name = cls.get("operations", []), ident(cls["name"])
        if not ops:
            rows.append("\t{ NULL, 0, NULL, 0 },")
            continue
        names, states = [o["name"] for o in ops], model["enums"].get("vm_power_state", [])
        out.append("static const struct model_operation operations_%s[] = {" % name)
        for op in ops:
            beside = [n for n in names if n not in op["beside_but"]] if "beside_but" in op else op.get("beside", [])
            out.append("\t{ %s, %s, %s, %s }," % (quote(op["name"]), mask(states, op.get("states", states)),
                       "true" if op.get("shown", True) else "false", mask(names, beside)))
        out.append("};\n\nstatic const struct model_check checks_%s[] = {" % name)
        for check in cls.get("checks", []):
            held = check["only"] if "only" in check else [n for n in names if n not in check.get("except", [])]
            out.append("\t{ %s, rule_%s, %s }," % (quote(check["name"]), check["name"], mask(names, held)))
        out.append("\t{ NULL, NULL, 0 },\n};\n")
        rows.append("\t{ operations_%s, %d, checks_%s, %d }," % (name, len(ops), name, len(cls.get("checks", []))))
    return "\n".join(out + ["const struct model_operations model_operations[] = {"] + rows) + "\n};\n"


def source(model):
    t = Tables(model)
    fields, rows, params = [], [], []
    for cls in model["classes"]:
        names = [f["name"] for f in cls["fields"]]
        fields_name = order = shown = "NULL"
        if names:
            fields_name, order = "fields_%s" % ident(cls["name"]), "names_%s" % ident(cls["name"])
            fields.append("static const struct model_field %s[] = {" % fields_name)
            fields += [field_row(t, model, cls, f) for f in cls["fields"]]
            fields.append("};\n")
            fields += field_names(order, cls)
            shown = "shown_%s" % ident(cls["name"])
            fields.append("static const uint16_t %s[] = { %s };\n" % (shown, ", ".join(str(names.index(n)) for n in cls["order"])))
        find = lambda name: names.index(name) if name in names else -1
        rows.append("\t{ %s, %s, MODEL_TABLE_%s, %s, %s, %s, %d, %d, %d, %s, %s, %d, %d, %d, %d, %s }," % (
            quote(cls["name"]), quote(cls["name"].lower()), cls["table"].upper(), "true" if cls.get("events") else "false",
            "true" if any(f.get("volatile") for f in cls["fields"]) else "false",
            fields_name, len(names), len([f for f in cls["fields"] if stored(f)]), cls["schema"], shown, order, len(spellings(cls)), find("uuid"), find("name_label") if "get_by_name_label" in cls["generated"] else -1,
            find("current_operations"), quote(cls["text"])))
    messages = []
    shared = {}
    for msg in model["messages"]:
        custom = msg["custom"] >= 0
        prow = []
        for p in msg["params"]:
            offset = "offsetof(struct %s, %s)" % (args_name(msg), c_name(p["name"])) if custom else "0"
            null = p.get("null", p.get("default") == "OpaqueRef:NULL")
            prow.append("{ %s, &%s, %s, %s, %s, %s }" % (quote(p["name"]), t.type(p["type"]),
                        "true" if "default" in p else "false", "true" if null else "false", t.initial(p), offset))
        text = ", ".join(prow)
        if text and text not in shared:
            shared[text] = "params_%d" % len(shared)
            params.append("static const struct model_param %s[] = { %s };" % (shared[text], text))
        kind, _, path = msg.get("route", "local").partition(":")
        locks = ", ".join("{ %s, %s }" % (path_row(model, msg, where), quote(op)) for where, op in msg.get("locks", []))
        cancels = ", ".join(quote(c) for c in msg.get("cancels", []))
        messages.append("\t{ %s, %s, MODEL_%s, %d, %s, %d, %d, &%s, %s, %s, %s, %s, %s, MODEL_%s, %s, { %s }, %d, { %s }, %s, %d, %d, %s }," % (
            quote(msg["name"]), class_id(model["classes"][msg["class"]]["name"]), msg["call"], msg["field"],
            shared.get(text, "NULL"), len(prow), len([p for p in msg["params"] if "default" not in p]),
            t.type(msg["result"]), model["role_ids"][msg["role"]], "true" if msg.get("async") else "false",
            "false" if msg.get("session") is False else "true",
            "true" if msg.get("client_cert") else "false", "true" if msg.get("pool_internal") else "false", kind.upper(),
            path_row(model, msg, path) if path else "{ -1, 0, { 0 } }", locks or "{ { -1, 0, { 0 } }, NULL }", len(msg.get("locks", [])), cancels or "NULL",
            "sizeof(struct %s)" % args_name(msg) if custom else "0", msg["custom"], msg["schema"], quote(msg["text"])))
    out = ["/* Generated from db/model/: do not edit. */", "#include \"model/args.h\"", "", "#include <stddef.h>",
           "#include <string.h>", "#include <strings.h>", ""]
    for code, names in model["errors"].items():
        out.append("const struct err_code ERR_%s[1] = { { %s, %d } };" % (ident(code), quote(code), len(names)))
    out.append("\nconst struct err_code *const model_errors[] = {")
    out += ["\tERR_%s," % ident(code) for code in model["errors"]] + ["\tNULL,\n};\n"]
    out.append("const char *const *const model_error_params[] = {")
    out += ["\t(const char *const[]){ %s }," % ", ".join([quote(n) for n in names] + ["NULL"]) for names in model["errors"].values()] + ["};\n"]
    for name, values in model["enums"].items():
        out.append("static const char *const values_%s[] = { %s, NULL };" % (name, ", ".join(quote(v) for v in values)))
        known = model["enum_schema"].get(name, {})
        out.append("static const unsigned schemas_%s[] = { %s };" % (name, ", ".join(str(known.get(v, 0)) for v in values)))
    out.append("\nconst struct model_enum model_enums[] = {")
    out += ["\t{ %s, values_%s, schemas_%s }," % (quote(name), name, name) for name in model["enums"]] + ["};\n"]
    out += t.lines + [""] + fields
    out.append("const struct model_class model_classes[] = {")
    out += rows + ["};\n", "const struct model_relation model_relations[] = {"]
    for relation in model["relations"]:
        row = []
        for side in (relation["one"], relation["many"]):
            cls, _, field = side.partition(".")
            row += [class_id(cls), "%s_%s" % (ident(cls).upper(), ident(field)) if field else "-1"]
        out.append("\t{ %s, %s, %d }," % (", ".join(row), "true" if relation.get("cascade") else "false", relation["schema"]))
    out += ["};\n"] + rule_rows(model) + role_rows(model) + params
    out += ["", "const struct model_message model_messages[] = {"] + messages
    out += ["};\n", "const unsigned model_n_messages = %d;\n" % len(messages), part("model_find.c")]
    return "\n".join(out)


OUTPUTS = {"model.h": header, "args.h": args_header, "model.c": source, "calls.h": calls_header, "calls.c": calls,
           "checks.h": checks_header, "checks.c": checks}
