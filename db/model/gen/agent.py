#!/usr/bin/env python3
"""Make the C tables of the agent's interface.

usage: agent.py AGENT_JSON OUT_FOLDER     rewrites only what changed
"""
import os
import sys

from emit import ident, quote
from generate import write_if_changed
from load import Refused, read

KINDS = {"string": "VAL_STRING", "int": "VAL_INT", "bool": "VAL_BOOL", "map": "VAL_MAP", "set": "VAL_SET"}


def check(agent):
    for name, method in agent["methods"].items():
        if not method.get("text"):
            raise Refused("%s: no description" % name)
        for param, kind, _ in method["params"]:
            if kind not in KINDS:
                raise Refused("%s: parameter %s: unknown type %s" % (name, param, kind))


def header(agent):
    out = ["/* The agent's interface. Generated from member/agent.json: do not edit. */", "#pragma once", "",
           "#include \"rpc/base/err.h\"", "#include \"rpc/base/val.h\"", "",
           "enum { AGENT_VERSION = %d, AGENT_PARAMS_MAX = 8 };" % agent["version"], "", "enum agent_method_id {"]
    out += ["\tAGENT_%s, /* %s */" % (ident(name), method["text"]) for name, method in agent["methods"].items()]
    out += ["\tAGENT_METHOD_COUNT", "};", "", "struct agent_param {", "\tconst char *name;", "\tenum val_kind kind;",
            "\tbool required;", "};", "", "struct agent_method {", "\tconst char *name;", "\tunsigned n_params;",
            "\tstruct agent_param params[AGENT_PARAMS_MAX];", "};", "",
            "extern const struct agent_method agent_methods[AGENT_METHOD_COUNT];", ""]
    out += ["extern const struct err_code AGENT_ERR_%s[1];%s" % (ident(name), " /* %s */" % ", ".join(p) if p else "")
            for name, p in agent["errors"].items()]
    out += ["extern const struct err_code *const agent_errors[]; /* ends with NULL */"]
    return "\n".join(out) + "\n"


def source(agent):
    out = ["/* Generated from member/agent.json: do not edit. */", "#include \"agent/agent.h\"", "",
           "const struct agent_method agent_methods[AGENT_METHOD_COUNT] = {"]
    for name, method in agent["methods"].items():
        params = ", ".join("{ %s, %s, %s }" % (quote(p), KINDS[k], "true" if r else "false") for p, k, r in method["params"])
        out.append("\t{ %s, %d, { %s } }," % (quote(name), len(method["params"]), params or "{ NULL, VAL_VOID, false }"))
    out.append("};\n")
    out += ["const struct err_code AGENT_ERR_%s[1] = { { %s, %d } };" % (ident(n), quote(n), len(p)) for n, p in agent["errors"].items()]
    out += ["", "const struct err_code *const agent_errors[] = {"]
    out += ["\tAGENT_ERR_%s," % ident(n) for n in agent["errors"]] + ["\tNULL,", "};"]
    return "\n".join(out) + "\n"


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


if __name__ == "__main__":
    main(sys.argv)
