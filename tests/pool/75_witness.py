"""A pool of two hosts with a witness, a member without a host: either host may die, freeze or stop, whichever coordinates, and the
other goes on; the witness may die too. It never coordinates. Added and removed by hand, killed on the way; or there from the beginning, by `xpoolctl init`."""
import os
import re
import signal
import ssl
import subprocess
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from joining import CTL, count, ctl, entry, write
from xpool import Api, Pool, eventually, vm_record

XPOOLD = os.path.join(sys.argv[1], "xpoold")
ADDRESS = "127.0.0.9"


class Witness:
    def __init__(self, pool):
        self.home, self.process = os.path.join(pool.dir, "witness"), None
        self.data = os.path.join(self.home, "data")
        os.mkdir(self.home)
        self.fingerprint = ctl("certificate", "--address", ADDRESS, "--name", "witness", "--out", os.path.join(self.home, "member.pem"))

    def command(self, *options):
        return [XPOOLD, "--dir", self.data, "--certificate", os.path.join(self.home, "member.pem"), "--allow-root", *options]

    def start(self):
        with open(os.path.join(self.home, "log"), "ab") as log:
            self.process = subprocess.Popen(self.command("--witness"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(20)

    def log(self):
        with open(os.path.join(self.home, "log"), encoding="utf-8", errors="replace") as handle:
            return handle.read()


def members(directory):
    """By name, and the line about all."""
    done = subprocess.run([CTL, "members", "--dir", directory], text=True, stdout=subprocess.PIPE, timeout=30)
    lines = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in done.stdout.splitlines()]
    return {m["name"]: m for m in lines if "name" in m}, lines[-1] if lines else {}


def may_be_lost(pool, member):
    return members(pool.data(member))[1].get("may_be_lost")


def wrong_start(witness, *options):
    done = subprocess.run(witness.command(*options), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    assert done.returncode == 2, done.stdout
    return done.stdout


def goes_on(api, vm, lost):
    """The other host acknowledges writes, runs operations, and is the pool's master."""
    began = time.time()
    text = "without %s %f" % (lost, began)
    eventually("a write is acknowledged", lambda: tried(api, vm, text), timeout=30)
    print("%s lost: a write after %.2f s" % (lost, time.time() - began))
    api("VM.start", vm, False, False)
    api("VM.hard_shutdown", vm)
    own = next(ref for ref, n in api.members().items() if n == api.member)
    eventually("it is the master", lambda: list(api("pool.get_all_records").values())[0]["master"] == own)


def tried(api, vm, text):
    try:
        api("VM.set_name_description", vm, text)
    except Exception as fault:  # pylint: disable=broad-except  # whatever it is: the next one counts
        print("a write: %r" % fault)
        return False
    return api("VM.get_name_description", vm) == text


with Pool(members=2) as pool:
    apis = [Api(pool, n).login() for n in (1, 2)]
    vm = apis[0]("VM.create", vm_record("here and there"))
    assert may_be_lost(pool, 1) == "0"
    witness = Witness(pool)
    ticket = os.path.join(pool.dir, "witness.json")
    said = ("witness", "add", "--dir", pool.data(2), "--out", ticket, "--fingerprint")
    ctl(*said, "12", "--address", ADDRESS + ":8300", fails="fingerprint")
    ctl(*said, witness.fingerprint, "--address", ADDRESS, fails="IP:PORT")
    ctl("witness", "remove", "--dir", pool.data(1), fails="no witness")
    for _ in range(2):  # asked again: the same answer
        ctl(*said, witness.fingerprint, "--address", ADDRESS + ":8300")
    ctl(*said, witness.fingerprint, "--address", ADDRESS + ":8301", fails="a witness already")
    ctl("enlist", "--dir", witness.data, "--members", ticket)
    assert "start it with --witness" in wrong_start(witness, "--listen", ADDRESS + ":443")
    assert "usage" in wrong_start(witness) and "usage" in wrong_start(witness, "--witness", "--listen", ADDRESS + ":443")
    witness.start()
    time.sleep(0.3)
    witness.end()  # whatever it has by now
    witness.start()
    eventually("three vote", lambda: may_be_lost(pool, 1) == "1", timeout=60)
    seen, _ = members(witness.data)
    assert seen["witness"]["kind"] == "witness" and seen["witness"]["votes"] == "yes" and "self" in str(
        subprocess.run([CTL, "members", "--dir", witness.data], text=True, stdout=subprocess.PIPE).stdout), seen
    # it is nobody's host
    assert len(apis[0]("host.get_all")) == 2 and len(apis[1]("PIF.get_all")) == 2
    for turn, (harm, mend) in enumerate((("kill", "start"), ("freeze", "thaw"), ("kill", "start"))):
        lost = pool.leader()
        api = apis[2 - lost]
        pool.quickstart(harm, str(lost))
        goes_on(api, vm, "%s by %s" % (lost, harm))
        pool.quickstart(mend, str(lost))
        eventually("it is back", lambda: may_be_lost(pool, 3 - lost) == "1", timeout=60)
        pool.agree()
    # the one that does not coordinate, and the witness
    leader = pool.leader()
    pool.quickstart("kill", str(3 - leader))
    goes_on(apis[leader - 1], vm, "the other")
    pool.quickstart("start", str(3 - leader))
    eventually("it is back", lambda: may_be_lost(pool, leader) == "1", timeout=60)
    pool.agree()
    witness.end()
    leader = pool.leader()
    goes_on(apis[leader - 1], vm, "the witness")
    witness.start()
    eventually("the witness is back", lambda: may_be_lost(pool, 1) == "1", timeout=60)
    # a planned stop never hands over to it
    leader = pool.leader()
    api = apis[2 - leader]
    with open(os.path.join(pool.dir, "member%d" % leader, "xpoold.pid"), encoding="ascii") as handle:
        os.kill(int(handle.read().split()[0]), signal.SIGTERM)
    goes_on(api, vm, "%d by a planned stop" % leader)
    assert pool.leader(of=[3 - leader]) == 3 - leader
    pool.quickstart("start", str(leader))
    eventually("it is back", lambda: may_be_lost(pool, 3 - leader) == "1", timeout=60)
    assert "event=request" not in witness.log() and "assert" not in witness.log(), witness.log()
    # removed, it ends and does not start again; two hosts lose nothing by it but what it was for
    assert ctl("witness", "remove", "--dir", pool.data(1)) == "removed"
    witness.process.wait(60)
    assert "has left" in witness.log(), witness.log()
    assert "has left" in subprocess.run(witness.command("--witness"), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        timeout=30).stdout
    eventually("one votes", lambda: members(pool.data(1))[1].get("voters") == "1", timeout=60)
    apis[pool.leader() - 1]("VM.set_name_description", vm, "two again")
    pool.agree()

# a pool that begins with it: the same list for all three
with Pool(members=1) as pool:
    witness = Witness(pool)
    said = [dict(entry(pool, n), id=n - 1) for n in (2, 3)]
    said.append({"id": 3, "host": ctl("uuid"), "name": "witness", "witness": True, "channel": ADDRESS + ":8300",
                 "certificate": witness.fingerprint})
    listed = write(pool, "founded.json", {"pool": ctl("uuid"), "members": said})
    for number, directory in (1, pool.data(2)), (2, pool.data(3)), (3, witness.data):
        ctl("init", "--dir", directory, "--members", listed, "--id", str(number))
    for number in (2, 3):
        count(pool, number)
    pool.tls = ssl.create_default_context(cafile=os.path.join(pool.dir, "ca.pem"))
    witness.start()
    for number in (2, 3):
        pool.quickstart("start", str(number))
    eventually("they serve", lambda: all(line.get("ready") == "yes" for line in pool.status()[1:]))
    apis = {n: Api(pool, n).login() for n in (2, 3)}
    assert len(apis[2]("host.get_all")) == 2 and len(apis[3]("PIF.get_all")) == 2
    eventually("one may be lost", lambda: may_be_lost(pool, 2) == "1", timeout=60)
    apis[2].memory_known()
    vm = apis[2]("VM.create", vm_record("founded"))
    lost = pool.leader(of=[2, 3])
    pool.quickstart("kill", str(lost))
    goes_on(apis[5 - lost], vm, "%d of a founded pool" % lost)
    witness.end()
