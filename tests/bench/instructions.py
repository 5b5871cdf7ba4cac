#!/usr/bin/env python3
"""Instructions of the paths every call takes, counted by callgrind in the debug build: the same on a busy machine. Each has a budget in
tests/data/instructions; over it, or a fifth below it, is a failure: then find out why, and write the new number there.

usage: instructions.py BUILD BUDGETS"""
import os
import re
import subprocess
import sys
import tempfile

ROWS, TIMES = 500, 100
# functions of micro.c, and how often each does its work for one of TIMES (its enum); pins are made twice
OF = {"apply": ("apply_us", 1), "role": ("role_us", 30), "request": ("request_us", 5), "record": ("record_us", 1), "pin": ("pin_ns", 400)}


def counted(build):
    """Instructions of each, whatever it calls included."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "callgrind")
        subprocess.run(["valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=" + out, os.path.join(build, "xpool-micro"), str(ROWS),
                        str(TIMES)], check=True, stdout=subprocess.DEVNULL, timeout=300)
        text = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--auto=no", "--threshold=100", out], check=True, text=True,
                              stdout=subprocess.PIPE, timeout=60).stdout
    for name, (function, often) in OF.items():
        total = re.search(r"^ *([\d,]+) .*micro\.c:%s\b" % function, text, re.M)
        yield name, int(total.group(1).replace(",", "")) // (TIMES * often)


build, budgets = sys.argv[1:]
with open(budgets) as lines:
    budget = {name: int(most) for name, most in (line.split() for line in lines if not line.startswith("#"))}
found = dict(counted(build))
assert set(found) == set(budget), (set(found), set(budget))
wrong = []
for name, n in found.items():
    print("%-8s %7d of %7d instructions" % (name, n, budget[name]))
    if not budget[name] * 0.8 <= n <= budget[name]:
        wrong.append(name)
assert not wrong, wrong
