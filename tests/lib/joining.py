"""Hosts that are to join a pool."""
import json
import os
import ssl
import subprocess
import sys

from xpool import eventually

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
