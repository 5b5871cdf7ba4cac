#!/usr/bin/env python3
"""Make the C tables of the data model.

usage: generate.py MODEL_FOLDER OUT_FOLDER [OVERLAY]     rewrites only what changed
       generate.py --check MODEL_FOLDER [OVERLAY]        only refuse or accept

OVERLAY is a folder of more JSON, merged over the model: a newer schema for tests.
"""
import os
import sys

from check import check
from emit import OUTPUTS
from load import Refused, load
from resolve import resolve
from schema import check_schema, settle


def write_if_changed(path, text):
    try:
        with open(path, encoding="utf-8") as handle:
            if handle.read() == text:
                return
    except FileNotFoundError:
        pass
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(text)


def main(argv):
    only_check = argv[1:2] == ["--check"]
    if len(argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        model = load(argv[2] if only_check else argv[1], argv[3] if len(argv) == 4 else None)
        check(model)
        check_schema(model)
    except Refused as fault:
        sys.exit("model refused: %s" % fault)
    if only_check:
        return
    os.makedirs(argv[2], exist_ok=True)
    settle(model)
    resolve(model)
    for name, emitter in OUTPUTS.items():
        write_if_changed(os.path.join(argv[2], name), emitter(model))


if __name__ == "__main__":
    main(sys.argv)
