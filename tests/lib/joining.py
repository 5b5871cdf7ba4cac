"""Hosts that are to join a pool."""
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading

from xpool import eventually

RELAY = ("127.0.0.9", 8443)
# connections of a pool.join: the login, one for each class of facts, being let in
LOGIN, LAST_FACT, LET_IN, NEXT = 1, 11, 12, 0
CTL = os.path.join(sys.argv[1], "xpoolctl")


def ctl(*command, fails=None):
    done = subprocess.run([CTL, *command], text=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode != 0) == (fails is not None) and (fails or "") in done.stdout, (command, done.returncode, done.stdout)
    return done.stdout.strip()


def entry(pool, number):
    """The machine: its folder, certificate and passwords; what it says of itself."""
    home = os.path.join(pool.dir, "member%d" % number)
    os.makedirs(home, exist_ok=True)
    pem = os.path.join(home, "member.pem")
    fingerprint = ctl("certificate", "--address", pool.address(number), "--name", "host%d" % number, "--out", pem)
    with open(pem) as source, open(os.path.join(pool.dir, "ca.pem"), "a") as target:
        text = source.read()
        target.write(text[text.index("-----BEGIN CERT"):text.index("-----END CERT")] + "-----END CERTIFICATE-----\n")
    with open(os.path.join(pool.dir, "member1", "passwd")) as source, open(os.path.join(home, "passwd"), "w") as target:
        target.write(source.read())
    return {"host": ctl("uuid"), "name": "host%d" % number, "address": pool.address(number),
            "channel": pool.address(number) + ":8300", "certificate": fingerprint}


def write(pool, name, value):
    path = os.path.join(pool.dir, name)
    with open(path, "w") as handle:
        json.dump(value, handle)
    return path


def count(pool, number):
    """The folder is as it should be, and quickstart knows of it."""
    subprocess.run(["chown", "-R", "nobody:nogroup", os.path.join(pool.dir, "member%d" % number)], check=True)
    with open(os.path.join(pool.dir, "members"), "w") as handle:
        handle.write("%d\n" % number)
    pool.n = number


def stand_alone(pool, number):
    """A pool of one beside the pool, running."""
    said = dict(entry(pool, number), id=1)
    ctl("init", "--dir", pool.data(number), "--members", write(pool, "own.json", {"pool": ctl("uuid"), "members": [said]}), "--id", "1")
    count(pool, number)
    pool.tls = ssl.create_default_context(cafile=os.path.join(pool.dir, "ca.pem"))
    pool.quickstart("start", str(number))
    eventually("it serves", lambda: pool.status()[number - 1].get("ready") == "yes")
    return said


class Relay:
    """To member 1. At the connection of a number (NEXT: any that is served) `act` is called: before anything is sent ("asked"),
    or when the whole answer is there and nobody has got it ("answered")."""

    def __init__(self, pool):
        self.pool = pool
        self.arm(None, None, None)
        self.listener = socket.create_server(RELAY)
        threading.Thread(target=self.run, daemon=True).start()

    def arm(self, number, side, act):
        self.n, self.number, self.side, self.act = 0, number, side, act

    def run(self):
        while True:
            client = self.listener.accept()[0]
            self.n += 1
            threading.Thread(target=self.relay, args=(client, self.n), daemon=True).start()

    def due(self, number, side):
        return self.act is not None and self.side == side and self.number in (number, NEXT)

    def fire(self):
        act, self.act = self.act, None
        act()

    def relay(self, client, number):
        if self.due(number, "asked"):
            self.fire()
        with client:
            try:
                with socket.create_connection((self.pool.address(1), self.pool.port)) as server:
                    self.pass_on(client, server, number)
            except OSError:
                pass

    def pass_on(self, client, server, number):
        turns = 0  # of the client: what TLS has to say first, then the request
        while True:
            for source in select.select([client, server], [], [])[0]:
                piece = source.recv(65536)
                turns += source is client
                held = source is server and turns > 1 and self.due(number, "answered")
                if not piece:
                    if held:
                        self.fire()
                    return
                if not held:
                    (server if source is client else client).sendall(piece)
