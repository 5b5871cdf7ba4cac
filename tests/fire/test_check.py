"""The checker finds each bad history, takes each good one, and does both in time with a long one. Histories are in histories/, the
first line of each says what happens; a mutation of a good one that must be bad is tried for many places."""
import glob
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check

LEAST, LONG, LONG_S, SEEDS = 20, 600, 20, 30


def made(seed, length):
    """A history that a single copy could have given: each operation takes effect at a moment within its time."""
    rng, state, ops = random.Random(seed), {}, []
    for n in range(length):
        at, kind = n + rng.random(), rng.choice(["register", "slot", "lock"])
        key, value = kind + " 0", "e%d" % n
        now = state.get(key)
        op = {"key": key, "begin": at - rng.random() * 4, "end": at + rng.random() * 4, "session": "s%d" % n, "outcome": "ok", "strict": True}
        what = rng.choice(["write", "read"] if kind == "register" else ["add", "remove", "read"])
        op["op"] = what
        if what in ("write", "add"):
            op["value"] = value
        if what == "read":
            op["result"] = now
        elif what == "write" or (what == "add" and now is None):
            state[key] = "held" if kind == "lock" else value
        elif what == "add":
            op["result"] = "present"
        elif now is None and kind == "lock":
            op["result"] = "absent"
        else:
            state[key] = None
        if rng.random() < 0.04:  # its answer was lost
            op.update(outcome="unknown", end=op["begin"] + 1)
            op.pop("result", None)
        ops.append(op)
    return ops


def spoil(ops, seed):
    """One strict read shows a value that was overwritten long before it was asked."""
    rng = random.Random(seed)
    while True:
        reader = rng.choice([op for op in ops if op["key"] == "register 0" and op["op"] == "read" and op["outcome"] == "ok"])
        old = [op for op in ops if op["key"] == "register 0" and op["op"] == "write" and op["outcome"] == "ok"]
        over = [a for a in old if any(a["end"] < b["begin"] and b["end"] < reader["begin"] for b in old)]
        if over:
            reader["result"] = rng.choice(over)["value"]
            return


files = sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "histories", "*.jsonl")))
assert len(files) >= LEAST, files
for path in files:
    name, wrong = os.path.basename(path), check.check(check.read(path))
    assert bool(wrong) == name.startswith("bad"), (name, wrong)
    assert not any("undecided" in fault for _, fault in wrong), (name, wrong)
for seed in range(SEEDS):
    ops = made(seed, 120)
    assert not check.check(ops), (seed, check.check(ops))
    spoil(ops, seed)
    assert [key for key, _ in check.check(ops)] == ["register 0"], seed
began = time.monotonic()
assert not check.check(made(0, LONG))
took = time.monotonic() - began
assert took < LONG_S, "%d operations took %.1f s" % (LONG, took)
print("%d histories, %d made and spoilt, %d operations checked in %.1f s" % (len(files), SEEDS, LONG, took))
