"""Who may not speak on the member channel: no certificate, an unknown one, another member's, one whose time is over,
another pool, another epoch, another protocol, no hello at all. Each is refused with its reason, and the pool goes on."""
import os
import socket
import ssl
import struct
import subprocess
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from strangers import CHANNEL, HELLO, PROTOCOL, hello
from xpool import Api, Pool, eventually, vm_record


def speak(pool, pem, first, timeout=20, tls=ssl.TLSVersion.MAXIMUM_SUPPORTED):
    """Dial member 1 with that certificate, say this; must be hung up on without a word that is not a hello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode, context.maximum_version = False, ssl.CERT_NONE, tls
    if pem is not None:
        context.load_cert_chain(pem)
    heard = b""
    try:
        with socket.create_connection((pool.address(1), CHANNEL), timeout=timeout) as raw:
            with context.wrap_socket(raw) as s:
                s.sendall(first)
                while True:
                    chunk = s.recv(65536)
                    if not chunk:
                        break
                    heard += chunk
                    assert len(heard) < 1024, "a stranger is told more than a hello"
    except (ssl.SSLError, ConnectionError) as fault:
        assert not isinstance(fault, TimeoutError), fault
    return heard


def log_of(pool, member):
    with open(os.path.join(pool.dir, "member%d" % member, "xpoold.log"), errors="replace") as handle:
        return handle.read()


def certificate(pool, out, *more):
    return subprocess.run([os.path.join(sys.argv[1], "xpoolctl"), "certificate", "--address", pool.address(3), "--name", "host3",
                           "--out", out, *more], text=True, check=True, stdout=subprocess.PIPE).stdout.strip()


def refused(pool, what, pem, first):
    before = log_of(pool, 1).count('why="%s' % what)
    speak(pool, pem, first)
    eventually("refused: " + what, lambda: log_of(pool, 1).count('why="%s' % what) > before)


def pin(pool, old, new):
    """Another certificate of member 3, pinned everywhere; by an administrator, while the pool is down."""
    paths = [os.path.join(pool.dir, "members.json")] + [os.path.join(pool.data(n), "members.json") for n in (1, 2, 3)]
    for path in paths:
        with open(path) as handle:
            known = handle.read()
        assert old in known, path
        with open(path, "w") as handle:
            handle.write(known.replace(old, new))


with Pool() as pool:
    api = Api(pool, 1).login()
    vm = api("VM.create", vm_record("witness"))
    pool_uuid = api("pool.get_uuid", api("pool.get_all")[0])
    pems = {n: os.path.join(pool.dir, "member%d" % n, "member.pem") for n in (1, 2, 3)}
    unknown = os.path.join(pool.dir, "unknown.pem")
    certificate(pool, unknown)
    other = "11111111-2222-4333-8444-555555555555"

    assert speak(pool, None, hello(pool_uuid, 3)) == b"", "without a certificate there is no word"
    assert speak(pool, pems[3], hello(pool_uuid, 3), tls=ssl.TLSVersion.TLSv1_2) == b"", "TLS 1.2 is spoken"
    refused(pool, "its certificate is not the one pinned", unknown, hello(pool_uuid, 3))
    refused(pool, "its certificate is not the one pinned", pems[2], hello(pool_uuid, 3))
    refused(pool, "it belongs to another pool", pems[3], hello(other, 3))
    refused(pool, "it is no member", pems[3], hello(pool_uuid, 77))
    refused(pool, "it speaks another protocol", pems[3], hello(pool_uuid, 3, protocol=99))
    refused(pool, "its hello does not parse", pems[3], struct.pack("<IIII", 8, HELLO, PROTOCOL, 1 << 31))
    refused(pool, "it is of a newer epoch", pems[3], hello(pool_uuid, 3, epoch=9))
    refused(pool, "it is of another epoch of the same number", pems[3], hello(pool_uuid, 3, epoch_id=other))
    for first in (b"\xff" * 64, struct.pack("<II", 1 << 30, HELLO), struct.pack("<II", 4, 7) + b"xxxx", b""):
        speak(pool, pems[3], first)
    assert api("VM.get_name_label", vm) == "witness"
    pool.agree()

    # a member whose own certificate has expired: out, with the reason, and the others go on
    pool.quickstart("down")
    old = subprocess.run([os.path.join(sys.argv[1], "xpoolctl"), "fingerprint", pems[3]], text=True, check=True,
                         stdout=subprocess.PIPE).stdout.strip()
    owner = os.stat(pems[3])
    new = certificate(pool, pems[3], "--days", "0")
    os.chown(pems[3], owner.st_uid, owner.st_gid)
    pin(pool, old, new)
    for n in (1, 2, 3):
        pool.quickstart("start", str(n), check=False)
    eventually("refused by both", lambda: all("its certificate has expired" in log_of(pool, n) for n in (1, 2)))
    assert pool.leader() in (1, 2)
    api = Api(pool, 1).login()
    api("VM.set_name_label", vm, "goes on")
    assert Api(pool, 2).login()("VM.get_name_label", vm) == "goes on"

    # with a new one it is back
    pool.quickstart("down")
    fresh = certificate(pool, pems[3])
    os.chown(pems[3], owner.st_uid, owner.st_gid)
    pin(pool, new, fresh)
    for n in (1, 2, 3):
        pool.quickstart("start", str(n))
    pool.agree()
