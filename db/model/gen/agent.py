#!/usr/bin/env python3
"""Make the C tables of the agent's interface, and its description.

usage: agent.py AGENT_JSON OUT_FOLDER     rewrites only what changed

A type is string, int, bool, map or set; string=a|b (one of these), map:X and set:X, X being a type or a shape.
"""
import os
import sys

from emit import ident, quote
from generate import write_if_changed
from load import Refused, read

KINDS = {"string": "VAL_STRING", "int": "VAL_INT", "bool": "VAL_BOOL", "map": "VAL_MAP", "set": "VAL_SET"}
PARAMS_MAX = 10


def split(text):
    """(kind, what the items or keys are, choices)"""
    kind, _, choices = text.partition("=")
    kind, _, of = kind.partition(":")
    return kind, of, choices


def check_key(where, key, shapes):
    if len(key) != 4:
        raise Refused("%s: %s: a parameter is [name, type, required, text]" % (where, key[0]))
    kind, of, choices = split(key[1])
    if kind not in KINDS or (of and (kind not in ("map", "set") or (of not in KINDS and of not in shapes))):
        raise Refused("%s: parameter %s: unknown type %s" % (where, key[0], key[1]))
    if choices and kind != "string":
        raise Refused("%s: parameter %s: only a string has choices" % (where, key[0]))


def check(agent):
    shapes = agent["shapes"]
    for name, shape in shapes.items():
        if not shape.get("text"):
            raise Refused("%s: no description" % name)
        for key in shape["keys"]:
            check_key(name, key, shapes)
    for name, method in agent["methods"].items():
        if not method.get("text"):
            raise Refused("%s: no description" % name)
        if len(method["params"]) > PARAMS_MAX:
            raise Refused("%s: more than %d parameters" % (name, PARAMS_MAX))
        for key in method["params"]:
            check_key(name, key, shapes)
        kind, of, _ = split(method["result"])
        if (of or kind) not in shapes and kind not in ("", "job"):
            raise Refused("%s: result of unknown shape %s" % (name, method["result"]))
        if kind == "job" and not any(key[:3] == ["job", "string", True] for key in method["params"]):
            raise Refused("%s: a task needs a job" % name)


HEAD = """/* The agent's interface. Generated from member/agent.json: do not edit. */
#pragma once

#include "rpc/base/err.h"
#include "rpc/base/val.h"

enum { AGENT_VERSION = %d, AGENT_PARAMS_MAX = %d, AGENT_SHAPE_COUNT = %d };

struct agent_shape;

struct agent_param {
	const char *name;
	enum val_kind kind;
	bool required;
	enum val_kind item; /* of the items of a set, the values of a map; VAL_VOID: any */
	const struct agent_shape *shape; /* of the map, or of the items of the set; NULL: any */
	const char *choices; /* a|b: one of these; NULL: any */
	const char *text;
};

struct agent_shape {
	const char *name, *text;
	unsigned n_keys;
	const struct agent_param *keys;
};

extern const struct agent_shape agent_shapes[AGENT_SHAPE_COUNT];

enum agent_method_id {"""


def header(agent):
    out = [HEAD % (agent["version"], PARAMS_MAX, len(agent["shapes"]))]
    out += ["\tAGENT_%s, /* %s */" % (ident(name), method["text"]) for name, method in agent["methods"].items()]
    out += ["\tAGENT_METHOD_COUNT", "};", "", "struct agent_method {", "\tconst char *name, *text, *result;",
            "\tunsigned n_params;", "\tstruct agent_param params[AGENT_PARAMS_MAX];", "};", "",
            "extern const struct agent_method agent_methods[AGENT_METHOD_COUNT];", ""]
    out += ["extern const struct err_code AGENT_ERR_%s[1];%s" % (ident(name), " /* %s */" % ", ".join(p) if p else "")
            for name, p in agent["errors"].items()]
    out += ["extern const struct err_code *const agent_errors[]; /* ends with NULL */"]
    return "\n".join(out) + "\n"


def param(key, shapes):
    kind, of, choices = split(key[1])
    shape = "&agent_shapes[%d]" % list(shapes).index(of) if of in shapes else "NULL"
    item = KINDS[of] if of in KINDS else "VAL_MAP" if of and kind == "set" else "VAL_VOID"
    return "{ %s, %s, %s, %s, %s, %s, %s }" % (quote(key[0]), KINDS[kind], "true" if key[2] else "false", item, shape,
                                               quote(choices) if choices else "NULL", quote(key[3]))


def source(agent):
    shapes = agent["shapes"]
    out = ["/* Generated from member/agent.json: do not edit. */", "#include \"agent/agent.h\"", ""]
    for name, shape in shapes.items():
        out.append("static const struct agent_param keys_of_%s[] = {" % ident(name))
        out += ["\t%s," % param(key, shapes) for key in shape["keys"]] + ["};"]
    out += ["", "const struct agent_shape agent_shapes[AGENT_SHAPE_COUNT] = {"]
    out += ["\t{ %s, %s, %d, keys_of_%s }," % (quote(n), quote(s["text"]), len(s["keys"]), ident(n)) for n, s in shapes.items()]
    out += ["};", "", "const struct agent_method agent_methods[AGENT_METHOD_COUNT] = {"]
    for name, method in agent["methods"].items():
        params = ", ".join(param(key, shapes) for key in method["params"])
        out.append("\t{ %s, %s, %s, %d, { %s } }," % (quote(name), quote(method["text"]), quote(method["result"]),
                                                      len(method["params"]), params or "{ .name = NULL }"))
    out.append("};\n")
    out += ["const struct err_code AGENT_ERR_%s[1] = { { %s, %d } };" % (ident(n), quote(n), len(p)) for n, p in agent["errors"].items()]
    out += ["", "const struct err_code *const agent_errors[] = {"]
    out += ["\tAGENT_ERR_%s," % ident(n) for n in agent["errors"]] + ["\tNULL,", "};"]
    return "\n".join(out) + "\n"


METHODS = """/* What is behind the methods. Generated from member/agent.json: do not edit.
 *
 * Whoever defines a function or a step table of these names has written the method; one that nobody defines answers
 * unimplemented. X_call answers at once: 0 with a result, or ERR_API with an AGENT_ERR. X_op is run as a task.
 */
#pragma once

#include "agent/agent.h"
#include "rpc/base/op.h"

struct agent;

typedef int (*agent_call_fn)(struct agent *agent, struct job *job, const struct val *params, struct val *out, struct err *err);

struct agent_written {
	agent_call_fn call;
	const struct op *op;
};

extern const struct agent_written agent_written[AGENT_METHOD_COUNT];
"""


def base(name):
    return ident(name).lower()


def methods_header(agent):
    out = [METHODS]
    for name, method in agent["methods"].items():
        if method["result"] == "job":
            out.append("extern const struct op %s_op __attribute__((weak));" % base(name))
        else:
            out.append("int %s_call(struct agent *agent, struct job *job, const struct val *params, struct val *out, struct err *err)"
                       " __attribute__((weak));" % base(name))
    return "\n".join(out) + "\n"


def methods_source(agent):
    out = ["/* Generated from member/agent.json: do not edit. */", "#include \"agent/methods.h\"", "",
           "const struct agent_written agent_written[AGENT_METHOD_COUNT] = {"]
    out += ["\t[AGENT_%s] = { %s }," % (ident(n), "NULL, &%s_op" % base(n) if m["result"] == "job" else "%s_call, NULL" % base(n))
            for n, m in agent["methods"].items()]
    return "\n".join(out + ["};"]) + "\n"


def lines(keys):
    return ["* `%s` %s%s%s" % (k[0], k[1], "" if k[2] else ", may be absent", ": " + k[3] if k[3] else "") for k in keys]


def reference(agent):
    out = ["# The agent's interface", "", agent["text"], "", "## Methods"]
    for name, method in agent["methods"].items():
        out += ["", "### %s" % name, method["text"]] + lines(method["params"])
        if method["result"]:
            out.append("* result: %s" % ("the job" if method["result"] == "job" else "`%s`" % method["result"]))
    out += ["", "## Shapes"]
    for name, shape in agent["shapes"].items():
        out += ["", "### %s" % name, shape["text"]] + lines(shape["keys"])
    out += ["", "## Errors", "", "`{\"code\": 1, \"message\": name, \"data\": [parameters]}`", ""]
    return "\n".join(out + ["* `%s` %s" % (n, ", ".join(p)) for n, p in agent["errors"].items()]) + "\n"


def main(argv):
    if len(argv) != 3:
        sys.exit(__doc__)
    try:
        agent = read(argv[1])
        check(agent)
    except Refused as fault:
        sys.exit("agent interface refused: %s" % fault)
    os.makedirs(argv[2], exist_ok=True)
    write_if_changed(os.path.join(argv[2], "agent.h"), header(agent))
    write_if_changed(os.path.join(argv[2], "agent.c"), source(agent))
    write_if_changed(os.path.join(argv[2], "methods.h"), methods_header(agent))
    write_if_changed(os.path.join(argv[2], "methods.c"), methods_source(agent))
    write_if_changed(os.path.join(argv[2], "agent.md"), reference(agent))


if __name__ == "__main__":
    main(sys.argv)
