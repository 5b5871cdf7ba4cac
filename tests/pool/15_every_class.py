"""All generated messages of classes of which the pool makes no objects yet: rows with a value in every field are proposed by who
poses as a member, then read in both encodings, searched, written and read back through the others, and deleted.

usage: 15_every_class.py BUILD"""
import os
import socket
import ssl
import subprocess
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
import model
from model import CLASSES, decode_json
from objects import accessors, records, searches
from strangers import CHANNEL, frame, hello
from xpool import Api, Pool, eventually

PROPOSAL, POSER = 32, 3
FOLLOW = {"allowed_operations", "virtual_allocation", "cache_storage"}  # from other objects
FOLLOW_IN = {("task", "current_operations")}


def propose(pool, leader, entries):
    """Say them to the coordinator as member 3, which is down."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(os.path.join(pool.dir, "member%d" % POSER, "member.pem"))
    api = Api(pool, leader).login()
    with socket.create_connection((pool.address(leader), CHANNEL), timeout=20) as raw, context.wrap_socket(raw) as s:
        uuid = api("pool.get_uuid", api("pool.get_all")[0])
        s.sendall(hello(uuid, POSER, epoch_id=uuid))
        assert s.recv(4096), "not let in"
        for entry in entries:
            s.sendall(frame(PROPOSAL, entry))
        s.settimeout(0.2)
        for cls, ref in refs.items():
            eventually("a row of " + cls, lambda c=cls, r=ref: drained(s) and is_there(api, c, r))


def drained(s):
    """What it says to its member is of no interest."""
    try:
        return bool(s.recv(65536))
    except TimeoutError:
        return True


def is_there(api, cls, ref):
    try:
        return api(cls + ".get_uuid", ref) == ref[len("OpaqueRef:"):]
    except Exception as fault:  # pylint: disable=broad-except
        assert fault.args[0] == "HANDLE_INVALID", fault.args
        return False


with Pool() as pool:
    first = Api(pool, 1).login()
    empty = [name for name, cls in CLASSES.items()
             if cls["in_database"] and cls["implicit"]["get_all"] and not first(name + ".get_all")]
    assert len(empty) > 30, empty
    made = subprocess.run([os.path.join(sys.argv[1], "tests", "every_row"), str(POSER), *empty], text=True, stdout=subprocess.PIPE,
                          check=True).stdout.split("\n")[:-1]
    lines = [line.split() for line in made]
    refs = {cls: ref for cls, ref, _ in lines}
    if pool.leader() == POSER:
        first("pool.designate_new_master", next(h for h, n in first.members().items() if n == 1))
    pool.quickstart("kill", str(POSER))
    leader = pool.leader(of=[1, 2])
    propose(pool, leader, [bytes.fromhex(entry) for _, _, entry in lines])
    pool.quickstart("start", str(POSER))
    pool.agree()
    apis = [Api(pool, n).login() for n in (1, 2, 3)]
    rng, read, written, bare = model.seeded(3), 0, 0, set()
    for n, (cls, ref) in enumerate(refs.items()):
        api = apis[n % 3]
        record = decode_json("record<%s>" % cls, api(cls + ".get_record", ref))
        bare |= {(cls, name) for name, field in model.fields(cls).items()
                 if record[name] in ("", 0, 0.0, [], {}, model.NULL) and not field["type"].startswith("bool") and
                 not (model.is_removed(cls, name) or name in FOLLOW or field.get("derived") or field.get("many_to_many"))}
        read += records(api, cls)
        searches(api, cls, ref)
        written += accessors(rng, api, cls, ref, {})
    print("%d classes, %d records, %d writes through accessors" % (len(refs), read, written))
    assert bare == FOLLOW_IN, bare ^ FOLLOW_IN  # all others have what was given
    pool.check()
    pool.agree()
