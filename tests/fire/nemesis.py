"""What goes wrong while clients call: faults of links, processes, power, disks and clocks, chosen by a seed.

Each fault is one generator: it does its harm, yields for how long it lasts, and makes good what does not heal by itself.
"""
import glob
import random
import shutil
import threading
import time

HOUR = 3600
LOW_MIB, STOP_MIB = 40, 15  # below these a member hands the lead over, or ends itself (docs/limits.md)
FLIPPED = ("data/raft/open-", "data/raft/snapshot-", "data/raft/metadata", "data/projection.db")
WRITTEN = FLIPPED + ("data/acknowledged", "data/", "agent/agent.db")


class Nemesis(threading.Thread):
    def __init__(self, pool, seed, seconds, lost):
        """lost(member): its domains may be gone from now on."""
        super().__init__(daemon=True)
        self.pool, self.rng, self.seconds, self.lost = pool, random.Random(seed), seconds, lost
        self.did, self.failure, self.flipped = [], None, 1 + seed % pool.n

    def member(self):
        return self.rng.randint(1, self.pool.n)

    def isolate(self):
        """From some or all, in one direction or both."""
        victim = self.member()
        others = [m for m in self.pool.everybody if m != victim]
        some = self.rng.sample(others, self.rng.randint(1, len(others)))
        into, out = self.rng.choice([(True, False), (False, True), (True, True)])
        for other in some:
            if out:
                self.pool.cut(victim, other)
            if into:
                self.pool.cut(other, victim)
        yield "%d %s%s%s" % (victim, "<" if into else "", ">" if out else "", ",".join(map(str, some)))
        self.pool.heal()

    def ring(self):
        """Everybody hears one other only, in a circle."""
        order = self.rng.sample(range(1, self.pool.n + 1), self.pool.n)
        for n, sender in enumerate(order):
            for receiver in order:
                if receiver not in (sender, order[(n + 1) % len(order)]):
                    self.pool.cut(sender, receiver)
        yield ">".join(map(str, order))
        self.pool.heal()

    def kill(self):
        victim = self.member()
        self.pool.quickstart("kill", str(victim))
        yield str(victim)
        self.pool.start(victim)

    def freeze(self):
        victim = self.member()
        self.pool.quickstart("freeze", str(victim))
        yield str(victim)
        self.pool.quickstart("thaw", str(victim))

    def power_off(self):
        victim = self.member()
        self.lost(victim)
        self.pool.power_off(victim, random.Random(self.rng.random()))
        yield str(victim)
        self.pool.start(victim)

    def blackout(self):
        """Everything at once."""
        for victim in self.pool.everybody[1:]:
            self.lost(victim)
        self.pool.blackout(random.Random(self.rng.random()))
        yield "all"
        for victim in self.pool.everybody[1:]:
            self.pool.start(victim)

    def fill(self):
        victim, left = self.member(), self.rng.choice([LOW_MIB, STOP_MIB, 0])
        self.pool.fill(victim, left)
        yield "%d to %d MiB" % (victim, left)
        self.pool.empty(victim)
        self.pool.start(victim)

    def bad_disk(self):
        """Killed and started with a disk that does one thing wrong, then killed again and started with a good one. Bits are flipped at
        one member only, in what has a checksum or is compared: two others have it as it was. Logs set aside are removed: they are kept
        in small numbers."""
        kind = self.rng.choice(["die", "tear", "fail", "flip"])
        part = self.rng.choice(FLIPPED if kind == "flip" else WRITTEN)
        victim = self.flipped if kind == "flip" else self.member()
        program = "xpool-agent" if part.startswith("agent") else "xpoold"
        self.pool.quickstart("kill", str(victim))
        self.pool.env["XPOOL_DISK_FAULT"] = fault = "%s %s %d %s" % (program, kind, 1 + int(30 * self.rng.random() ** 3), part)
        try:
            self.pool.start(victim)
        finally:
            del self.pool.env["XPOOL_DISK_FAULT"]
        yield "%d %s" % (victim, fault)
        self.pool.quickstart("kill", str(victim))
        self.pool.start(victim)
        for path in glob.glob(self.pool.data(victim) + "/raft.aside-*"):
            shutil.rmtree(path, ignore_errors=True)

    def step(self):
        """Left wrong, until the next step of it."""
        victim, seconds = self.member(), self.rng.choice([-HOUR, -5, 5, HOUR])
        self.pool.step(victim, seconds)
        yield "%d by %d s" % (victim, seconds)

    FAULTS = (isolate, isolate, isolate, isolate, ring, ring, kill, kill, freeze, freeze, power_off, power_off, blackout, fill, bad_disk, bad_disk, step, step)

    def one(self):
        choice = self.rng.choice(self.FAULTS)
        fault, began = choice(self), time.monotonic()
        what = next(fault)
        time.sleep(0.3 + 4 * self.rng.random() ** 2)  # how long it lasts is part of the fault
        for _ in fault:
            pass
        self.did.append((began, time.monotonic(), choice.__name__, what))
        time.sleep(1.5 * self.rng.random())

    def run(self):
        until = time.monotonic() + self.seconds
        try:
            while time.monotonic() < until:
                self.one()
        except Exception as reason:  # told by whoever waits for this thread
            self.failure = reason
        finally:
            self.pool.heal()
