"""A pool of real processes under fire: clients call while links are cut, members killed, frozen and powered off, disks filled and
clocks stepped; then what every client was told must have an explanation (check.py).

usage: fire.py BUILD [--seconds N] [--seed N] [--members N] [--keep DIR]

It goes in rounds of a minute or less, each with objects of its own and a seed that is one higher. A round that fails leaves its
history and the members' logs in DIR/SEED and says how to run it again. Needs tests/lib/netns.sh.
"""
import argparse
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE) + "/lib"]
import check
from client import Client, last_looks
from cluster import Cluster
from nemesis import Nemesis
from twice import Twice
from xpool import Api, ApiError, eventually, guest, vm_record

ALL_S, ROUND_S, CLIENTS, SESSIONS = 60, 45, 6, 4
KEYS = {"register": 3, "slot": 3, "set": 1, "lock": 2}
DUE_S = 90  # by when everything has ended behind the last fault


class Round:
    def __init__(self, pool, seed, seconds, folder):
        self.pool, self.seed, self.seconds, self.folder = pool, seed, seconds, folder
        self.api = Api(pool, 1).login()
        self.lost_at = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def prepare(self):
        """{key: the VM it is about}"""
        make = lambda what: self.api("VM.create", vm_record("fire %s" % what, **guest()))
        one = {kind: make(kind) for kind in ("slot", "set")}
        self.keys = {"%s %d" % (kind, n): one.get(kind) or make("%s %d" % (kind, n)) for kind, count in KEYS.items() for n in range(count)}
        self.sessions = [Api(self.pool, 1 + n % self.pool.n).login().session for n in range(SESSIONS)]

    def lost(self, member):
        self.lost_at.append(time.monotonic())

    def client(self, number, session, name, path):
        """What makes a Client."""
        addresses = [self.pool.address(member) for member in self.pool.everybody[1:]]
        return dict(number=number, addresses=addresses, ca=os.path.join(self.pool.dir, "ca.pem"), keys=self.keys, session=session,
                    session_name=name, path=self.path(path), seed="%d %d" % (self.seed, number))

    def start_client(self, number):
        """More than one in some sessions."""
        n = number % SESSIONS
        with open(self.path("client%d.err" % number), "w") as err:
            process = subprocess.Popen([sys.executable, "-B", os.path.join(HERE, "client.py")], text=True, stdin=subprocess.PIPE, stderr=err)
        with process.stdin:
            json.dump({"client": self.client(number, self.sessions[n], "s%d" % n, "client%d" % number), "stop": self.path("stop")}, process.stdin)
        return process

    def stop_clients(self):
        open(self.path("stop"), "w").close()
        until = time.monotonic() + DUE_S
        for process in self.processes:
            try:
                process.wait(max(0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGUSR1)
        for process in self.processes:
            assert process.poll() == 0, "a client hangs, or has failed: see client*.err"

    def run(self):
        self.prepare()
        twice = Twice(self.pool.dir)
        twice.start()
        self.processes = [self.start_client(number) for number in range(1, CLIENTS + 1)]
        self.nemesis = Nemesis(self.pool, self.seed, self.seconds, self.lost)
        self.nemesis.start()
        self.nemesis.join(self.seconds + 2 * DUE_S)
        assert not self.nemesis.is_alive(), "a fault does not end: %s" % self.nemesis.did[-1:]
        self.stop_clients()
        if self.nemesis.failure is not None:
            raise self.nemesis.failure
        self.quiet()
        last_looks(Client(**self.client(0, self.api.session, "last", "last")))
        twice.stop = True
        twice.join()
        assert not twice.found, "a VM has run on two hosts: %s" % twice.found[:3]

    def quiet(self):
        """Everybody is back, everything has ended, and all agree."""
        pool = self.pool
        pool.ready()
        pending = lambda: [t for t, r in self.api("task.get_all_records").items() if r["status"] == "pending"]
        eventually("every task ends", lambda: not pending(), timeout=DUE_S)
        eventually("no VM is locked", lambda: not any(r["current_operations"] for r in self.api("VM.get_all_records").values()), timeout=DUE_S)
        pool.agree()
        pool.check()

    def history(self):
        ops = []
        for name in ["client%d" % (n + 1) for n in range(CLIENTS)] + ["last"]:
            if os.path.exists(self.path(name)):
                ops += check.read(self.path(name))
        for at in self.lost_at:  # a VM ends with its host
            ops += [{"key": key, "op": "remove", "begin": at, "end": at, "outcome": "unknown", "session": None, "client": "power"}
                    for key in self.keys if key.startswith("lock")]
        with open(self.path("history"), "w") as out:
            for op in sorted(ops, key=lambda op: op["begin"]):
                out.write(json.dumps(op) + "\n")
        return ops

    def judge(self):
        ops = self.history()
        odd = sorted({op["error"] for op in ops if op.get("odd")})
        assert not odd, "errors that nothing explains: %s" % odd[:5]
        wrong = check.check(ops)
        assert not wrong, "\n".join("%s: %s" % fault for fault in wrong)
        told = {}
        for op in ops:
            told[op["outcome"]] = told.get(op["outcome"], 0) + 1
        faults = {}
        for _, _, name, _ in self.nemesis.did:
            faults[name] = faults.get(name, 0) + 1
        print("seed %d: %s; faults %s" % (self.seed, told, faults), flush=True)
        assert told.get("ok", 0) > 2 * self.seconds and len(self.nemesis.did) > self.seconds / 15, "too little has happened"

    def clean(self):
        for ref in set(self.keys.values()):
            if self.api("VM.get_power_state", ref) != "Halted":
                self.api("VM.hard_shutdown", ref)
            self.api("VM.destroy", ref)
        for session in self.sessions:
            self.api.raw("session.logout", session)


def keep(round, pool, opts, reason):
    folder = os.path.join(opts.keep, str(round.seed))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(round.folder, folder)
    with open(os.path.join(folder, "faults"), "w") as out:
        for began, ended, name, what in round.nemesis.did if hasattr(round, "nemesis") else []:
            out.write("%.3f-%.3f %s %s\n" % (began, ended, name, what))
    for name, text in pool.logs():
        with open(os.path.join(folder, name.replace("/", "-")), "w") as out:
            out.write(text)
    print("seed %d FAILED: %s" % (round.seed, reason))
    print("history and logs: %s" % folder)
    print("again: tests/run --fire %.2f --seed %d" % (round.seconds / 60, round.seed), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--seconds", type=float, default=ALL_S)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 10**6))
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--keep", default=None)
    opts = parser.parse_args()
    opts.keep = opts.keep or os.path.join(os.path.dirname(opts.build), "fire")
    until, seed = time.monotonic() + opts.seconds, opts.seed
    with Cluster(members=opts.members) as pool:
        while seed == opts.seed or time.monotonic() < until - 10:
            folder = os.path.join(pool.dir, "round%d" % seed)
            os.mkdir(folder)
            round = Round(pool, seed, max(10, min(ROUND_S, until - time.monotonic())), folder)
            try:
                round.run()
                round.judge()
                round.clean()
            except (AssertionError, ApiError, OSError, http.client.HTTPException) as reason:
                if not os.path.exists(round.path("history")) and hasattr(round, "keys"):
                    round.history()
                keep(round, pool, opts, reason)
                raise
            shutil.rmtree(folder)
            seed += 1


if __name__ == "__main__":
    main()
