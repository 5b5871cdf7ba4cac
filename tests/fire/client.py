"""One client of a pool under fire: a process that calls, and writes down what it called, when, and what it was told.

It hops between the members with its session; see check.py for what a line says. Told on stdin, as JSON, what to do; ends when the
file `stop` is there. SIGUSR1 makes it say where it is.
"""
import faulthandler
import http.client
import json
import os
import random
import signal
import ssl
import sys
import time

PATIENCE_S = (3, 12)  # one gives up before the pool does, one after
PAUSE_S, FAILED_PAUSE_S = 0.06, 0.5
# an error that says that nothing was done, nor will be
FAILED = {"OTHER_OPERATION_IN_PROGRESS", "TOO_MANY_PENDING_TASKS"}
# a member that has lost the others, or an operation whose host was lost: nobody knows
UNKNOWN = {"HOST_IN_EMERGENCY_MODE", "TASK_CANCELLED", "INTERNAL_ERROR", "HOST_OFFLINE", "HOST_NOT_LIVE", "NO_HOSTS_AVAILABLE",
           "CANNOT_CONTACT_HOST"}


class NotSent(Exception):
    """There was no connection: nobody has been asked."""


class Refused(Exception):
    """The error of a call."""


class Line:
    """A connection to one member."""

    def __init__(self, address, tls):
        self.address, self.tls, self.connection = address, tls, None

    def connect(self, patience):
        self.connection = http.client.HTTPSConnection(self.address, 443, context=self.tls, timeout=patience)
        try:
            self.connection.connect()
        except OSError as reason:
            self.drop()
            raise NotSent() from reason

    def drop(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def call(self, patience, strict, method, *params):
        """(result, is it marked as stale)"""
        if self.connection is None:
            self.connect(patience)
        self.connection.sock.settimeout(patience)
        headers = {"Content-Type": "application/json"}
        if strict:
            headers["X-Pool-Read"] = "linearizable"
        try:
            self.connection.request("POST", "/jsonrpc", json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}), headers)
            answer = self.connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self.drop()
            raise
        if "error" in said:
            raise Refused(said["error"]["message"], *said["error"]["data"])
        return said["result"], answer.getheader("X-Pool-Stale") is not None


class Client:
    """addresses: of the members 1, 2, ...; keys: {key: VM}, see calls()."""

    def __init__(self, number, addresses, ca, keys, session, session_name, path, seed):
        self.number, self.keys, self.session, self.name, self.path = number, keys, session, session_name, path
        tls = ssl.create_default_context(cafile=ca)
        self.lines = {member: Line(address, tls) for member, address in enumerate(addresses, 1)}
        self.rng, self.made = random.Random(seed), 0

    def calls(self, key, op, value):
        """The call of the API, and what its result means: result -> result of the operation."""
        ref = self.keys[key]
        kind = key.split()[0]
        if kind == "register":
            return {"write": (("VM.set_name_description", ref, value), lambda r: {}),
                    "read": (("VM.get_name_description", ref), lambda r: {"result": r or None})}[op]
        if kind in ("slot", "set"):
            name = value if kind == "set" else key.replace(" ", "-")
            return {"add": (("VM.add_to_other_config", ref, name, value or ""), lambda r: {}),
                    "remove": (("VM.remove_from_other_config", ref, name), lambda r: {}),
                    "read": (("VM.get_other_config", ref), lambda r: {"result": r.get(name)}),
                    "elements": (("VM.get_other_config", ref), lambda r: {"result": sorted(k for k in r if k.startswith("e"))})}[op]
        return {"add": (("VM.start", ref, False, False), lambda r: {}),
                "remove": (("VM.hard_shutdown", ref), lambda r: {}),
                "read": (("VM.get_power_state", ref), lambda r: {"result": None if r == "Halted" else "held"})}[op]

    def choose(self):
        key = self.rng.choice(list(self.keys))
        op = self.rng.choice({"register": ["write", "read", "read"], "slot": ["add", "add", "remove", "read"],
                              "set": ["add", "add", "elements"], "lock": ["add", "add", "remove", "remove", "read"]}[key.split()[0]])
        return key, op

    def meant(self, refusal, key, op):
        """What an error says about the operation."""
        code = refusal.args[0]
        if code == "MAP_DUPLICATE_KEY" and op == "add":
            return {"outcome": "ok", "result": "present"}
        if code == "VM_BAD_POWER_STATE" and key.startswith("lock"):
            return {"outcome": "ok", "result": "present" if op == "add" else "absent"}
        if code in FAILED:
            return {"outcome": "failed", "error": code}
        return {"outcome": "unknown", "error": " ".join(map(str, refusal.args)), "odd": code not in UNKNOWN}

    def operate(self, key, op, member, strict):
        self.made += 1
        line = {"client": self.number, "member": member, "session": self.name, "key": key, "op": op, "strict": strict}
        if op in ("write", "add"):
            line["value"] = "e%d-%d" % (self.number, self.made)
        call, meaning = self.calls(key, op, line.get("value"))
        line["begin"] = time.monotonic()
        try:
            result, stale = self.lines[member].call(self.rng.choice(PATIENCE_S), strict and op in ("read", "elements"),
                                                    call[0], self.session, *call[1:])
            line.update(meaning(result), outcome="ok", stale=stale)
        except Refused as refusal:
            line.update(self.meant(refusal, key, op))
        except NotSent:
            line.update(outcome="failed", error="no connection")
        except (OSError, http.client.HTTPException, ValueError) as reason:
            line.update(outcome="unknown", error=type(reason).__name__)
        line["end"] = time.monotonic()
        return line

    def run(self, stop):
        with open(self.path, "w") as out:
            while not os.path.exists(stop):
                key, op = self.choose()
                member = self.rng.choice(list(self.lines))
                strict = op not in ("read", "elements") or self.rng.random() < 0.4
                line = self.operate(key, op, member, strict)
                out.write(json.dumps(line) + "\n")
                out.flush()
                time.sleep(self.rng.random() * (PAUSE_S if line["outcome"] == "ok" else FAILED_PAUSE_S))


def last_looks(client):
    """What each member shows at the end."""
    with open(client.path, "w") as out:
        for key in client.keys:
            for member in client.lines:
                line = client.operate(key, "elements" if key.startswith("set") else "read", member, True)
                assert line["outcome"] == "ok", line
                out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    told = json.load(sys.stdin)
    Client(**told["client"]).run(told["stop"])
