"""Is there an order of all operations that explains what every client was told?

usage: check.py HISTORY...

A history has one operation a line, as JSON:
    key         what it is about: the first word is its kind (KINDS)
    op, value   write v, read; add v, remove, read; add v, elements; add, remove, read
    begin, end  when it was called and answered, of one clock for all clients
    outcome     ok; failed: it has certainly done nothing; unknown: it may happen at any time from `begin` on, or never
    result      of a read; of an add that found something: "present"; of a remove that found nothing: "absent"
    session     that it was called in
    strict      false: a read that may show any state from the past, but nothing older than what its session has written or seen
    stale       true: a read that was answered with the mark that it may show any state from the past

Each key is searched for itself (linearizability is local): one operation after the other takes effect, each within its time and in
an order that its session allows, until none is left, or none can be next: then that is the fault. After Wing and Gong, with
Lowe's memory of what was tried. Standard library only.
"""
import json
import sys

STATES_MAX = 300000  # tried for one key before it is given up as undecided
FOREVER = float("inf")


def register(state, op):
    """(may it be next, state behind it)"""
    if op["op"] == "write":
        return True, op["value"]
    return op["result"] == state, state


def slot(state, op):
    """Takes a value when it has none; removing nothing is fine."""
    if op["op"] == "add":
        return (state is not None, state) if op.get("result") == "present" else (state is None, op["value"])
    if op["op"] == "remove":
        return True, None
    return op["result"] == state, state


def lock(state, op):
    """A VM: who starts it has it, shutting down what does not run fails."""
    if op["op"] == "add":
        return (state is not None, state) if op.get("result") == "present" else (state is None, "held")
    if op["op"] == "remove":
        return (state is None, state) if op.get("result") == "absent" else (state is not None, None)
    return op["result"] == state, state


KINDS = {"register": register, "slot": slot, "lock": lock}


def looks(op):
    """It changes nothing."""
    return op["op"] == "read" or op.get("result") in ("present", "absent")


def settle(ops):
    """Unknown ones whose value was seen have happened, before it was seen; a write that nobody saw is as good as none, for nothing
    depends on it. What is left may happen."""
    seen = {}
    for op in ops:
        if op["op"] == "read" and op["outcome"] == "ok":
            seen[op["result"]] = min(op["end"], seen.get(op["result"], FOREVER))
    kept = []
    for op in ops:
        if op["outcome"] == "ok":
            kept.append(dict(op, must=True))
        elif op["outcome"] == "unknown" and not op["op"] == "read":
            value = op.get("value")
            if value is not None and value in seen:
                kept.append(dict(op, must=True, end=seen[value]))
            elif op["key"].split()[0] != "register":
                kept.append(dict(op, must=False, end=FOREVER))
    return sorted(kept, key=lambda op: op["begin"])


def before(ops):
    """For each operation the set, as bits, of those that come before it."""
    sets = []
    for op in ops:
        bits = 0
        if not op.get("stale"):
            strict = op.get("strict", True)
            for n, other in enumerate(ops):
                if other["end"] < op["begin"] and (strict or (other.get("session") == op.get("session") and not other.get("stale"))):
                    bits |= 1 << n
        sets.append(bits)
    return sets


class Search:
    def __init__(self, kind, ops):
        self.step, self.ops, self.sets = KINDS[kind], settle(ops), before(settle(ops))
        self.must = sum(1 << n for n, op in enumerate(self.ops) if op["must"])
        self.best, self.tried = 0, set()

    def ready(self, done):
        return [n for n, bits in enumerate(self.sets) if not done >> n & 1 and not bits & ~done]

    def look(self, done, state):
        """Whatever can be seen now is seen now: that never stands in the way of anything."""
        found = True
        while found:
            found = [n for n in self.ready(done) if looks(self.ops[n]) and self.step(state, self.ops[n])[0]]
            for n in found:
                done |= 1 << n
        return done

    def run(self):
        """None when there is an order, else what is wrong."""
        todo = [(0, None)]
        while todo:
            done, state = todo.pop()
            done = self.look(done, state)
            if not self.must & ~done:
                return None
            if (done, state) in self.tried:
                continue
            self.tried.add((done, state))
            if len(self.tried) > STATES_MAX:
                return "undecided after %d states" % STATES_MAX
            if bin(done & self.must).count("1") > bin(self.best & self.must).count("1"):
                self.best, self.stuck = done, state
            next_ones = [n for n in self.ready(done) if not looks(self.ops[n])]
            # what must happen is tried first, the one that ended first before the others
            for n in sorted(next_ones, key=lambda n: (self.ops[n]["must"], -self.ops[n]["end"])):
                can, after = self.step(state, self.ops[n])
                if can:
                    todo.append((done | 1 << n, after))
        left = [self.ops[n] for n in self.ready(self.best) if self.ops[n]["must"]]
        return "with %r there, none of these can be next: %s" % (getattr(self, "stuck", None), "; ".join(map(words, left[:4])))


def words(op):
    return "%s %s%s [%.3f, %.3f] by client %s in session %s at member %s" % (
        op["op"], op.get("value", ""), " -> %r" % op["result"] if "result" in op else "", op["begin"], op["end"],
        op.get("client"), op.get("session"), op.get("member"))


def check_set(ops):
    """Whatever was acknowledged is there from then on, and nothing that nobody added."""
    added = {op["value"]: op for op in ops if op["op"] == "add" and op["outcome"] != "failed"}
    known = {}  # of each session
    for op in sorted((op for op in ops if op["outcome"] == "ok"), key=lambda op: op["end"]):
        mine = known.setdefault(op.get("session"), {})
        if op["op"] == "add":
            mine[op["value"]] = op["end"]
            continue
        there = set(op["result"])
        due = {v for v, end in mine.items() if end < op["begin"]}
        if op.get("strict", True):
            due |= {v for v, a in added.items() if a["outcome"] == "ok" and a["end"] < op["begin"]}
        if op.get("stale"):
            due = set()
        else:
            mine.update({v: op["end"] for v in there if v not in mine})
        if due - there:
            return "%s misses %s" % (words(dict(op, result=len(there))), sorted(due - there)[:3])
        odd = {v for v in there if v not in added or added[v]["begin"] > op["end"]}
        if odd:
            return "%s shows %s, which nobody has added by then" % (words(dict(op, result=len(there))), sorted(odd)[:3])
    return None


def check(history):
    """[(key, what is wrong)]"""
    keys, wrong = {}, []
    for op in history:
        keys.setdefault(op["key"], []).append(op)
    for key, ops in sorted(keys.items()):
        kind = key.split()[0]
        fault = check_set(ops) if kind == "set" else Search(kind, ops).run()
        if fault is not None:
            wrong.append((key, fault))
    return wrong


def read(path):
    with open(path) as handle:
        return [json.loads(line) for line in handle if line.strip() and not line.startswith("#")]


if __name__ == "__main__":
    rc = 0
    for name in sys.argv[1:]:
        for key, fault in check(read(name)):
            print("%s: %s: %s" % (name, key, fault))
            rc = 1
    sys.exit(rc)
