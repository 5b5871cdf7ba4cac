"""State models, searched exhaustively by spin: each holds, reaches all it says, and fails without each of its rules.

usage: run.py"""
import os
import re
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = ("session_floor", "task_ownership")
DEPTH, HASH_BITS, MEMORY_MIB, LIMIT_S = 1000000, 24, 2048, 300


def search(model, folder, *defines):
    """What spin's verifier says at the end of its search, or at the first violation."""
    run = lambda *words: subprocess.run(words, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True,
                                        timeout=LIMIT_S).stdout
    run("spin", "-a", *defines, os.path.join(HERE, model + ".pml"))
    run(os.environ.get("CC", "cc"), "-O2", "-w", "-DSAFETY", "-DNOREDUCE", "-DCOLLAPSE", "-DMEMLIM=%d" % MEMORY_MIB, "-o", "pan", "pan.c")
    # -E: where a step cannot go on nothing is said; its alternatives are searched all the same
    return run("./pan", "-E", "-m%d" % DEPTH, "-w%d" % HASH_BITS)


def fact(pattern, text):
    found = re.search(pattern, text)
    assert found, text[-3000:]
    return int(found[1])


for model in MODELS:
    with open(os.path.join(HERE, model + ".pml"), encoding="ascii") as handle:
        rules = sorted(set(re.findall(r"\bWITHOUT_\w+", handle.read())) - {"WITHOUT_x"})
    with tempfile.TemporaryDirectory(prefix="xpool-model-") as folder:
        whole = search(model, folder)
        assert "not completed" not in whole and "max search depth too small" not in whole, whole
        assert fact(r"errors: (\d+)", whole) == 0, whole
        left = [line.strip() for line in re.findall(r"^\s+\S+\.pml:\d+, state .*$", whole, re.M) if "-end-" not in line]
        assert not left, "never reached: %s" % "\n".join(left)
        print("%s: %d states, nothing is wrong" % (model, fact(r"(\d+) states, stored", whole)))
        assert rules, model
        for rule in rules:
            found = search(model, folder, "-D" + rule)
            assert fact(r"errors: (\d+)", found) == 1 and "assertion violated" in found, "%s: %s is not needed?" % (model, rule)
            print("  %s: found after %d states" % (rule, fact(r"(\d+) states, stored", found)))
