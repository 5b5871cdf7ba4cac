"""A host that is a pool of its own joins another by `xe pool-join`. What is in the way is refused, one by one and all at once in a
dry run, and so is a server that is none; nothing has changed then. At last it is a member, with what the pool has.

usage: 32_join.py BUILD"""
import os
import socket
import ssl
import subprocess
import sys
import threading

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from joining import CTL, stand_alone
from xpool import PASSWORD, Api, Pool, eventually, vm_record

TARGET = ("127.0.0.11", "root", PASSWORD)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: "
SESSION = b'{"jsonrpc":"2.0","result":"OpaqueRef:1","id":1}'
# what a server answers, call by call; the last one from there on
HOSTILE = (
    [b""], [b"\x00" * 5000], [b"SSH-2.0\r\n"], [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"], [HEAD + b"99999999999\r\n\r\n{"],
    [HEAD + b"3\r\n\r\n{}}"], [HEAD + b"9\r\n\r\n{"], [b"HTTP/1.1 200 OK\r\n\r\n[1,[2,[3"], [HEAD + b"12\r\n\r\n{\"result\":7}"],
    [b"HTTP/1.1 200 OK\r\n\r\n{\"error\":{\"message\":\"NO_SUCH_CODE\",\"data\":[{}]}}"],
    [b"HTTP/1.1 200 OK\r\n\r\n{\"result\":\"a b\\r\\nX: y\"}"],
    [b"HTTP/1.1 200 OK\r\n\r\n" + SESSION, b"HTTP/1.1 200 OK\r\n\r\n{\"result\":{\"OpaqueRef:2\":{\"master\":7}}}"],
    [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n"],
)


def hostile(pool, answers):
    """A server with a certificate that answers so; its address."""
    listener = socket.create_server(("127.0.0.8", 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(pool.dir, "member1", "member.pem"))

    def run():
        served = 0
        while True:
            try:
                with context.wrap_socket(listener.accept()[0], server_side=True) as client:
                    client.recv(65536)
                    client.sendall(answers[min(served, len(answers) - 1)])
                    served += 1
            except OSError:
                if listener.fileno() < 0:
                    return
    threading.Thread(target=run, daemon=True).start()
    return listener, "127.0.0.8:%d" % listener.getsockname()[1]


def by_name(pool):
    """Member 1 under a name of which another address may serve nobody: localhost."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        try:
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def run():
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection((pool.address(1), pool.port))
            for pair in (client, server), (server, client):
                threading.Thread(target=pump, args=pair, daemon=True).start()
    threading.Thread(target=run, daemon=True).start()
    return listener, "localhost:%d" % listener.getsockname()[1]


def dry_run(pool, number, clean, address=TARGET[0]):
    done = subprocess.run([CTL, "join", "--dry-run", "--dir", pool.data(number), "--address", address, "--user", "root"],
                          input=PASSWORD + "\n", text=True, stdout=subprocess.PIPE, timeout=60)
    assert (done.returncode == 0) == clean, done.stdout
    return done.stdout.splitlines()


with Pool(members=1) as pool:
    api = Api(pool, 1).login()
    vm = api("VM.create", vm_record("of the pool"))
    pool.make_sr(api)
    stand_alone(pool, 2)
    host = Api(pool, 2).login()
    host.fails("SESSION_AUTHENTICATION_FAILED", "pool.join", TARGET[0], "root", "wrong")
    for address in "127.0.0.11:8300", "127.0.0.99":
        host.fails("JOINING_HOST_SERVICE_FAILED", "pool.join", address, "root", PASSWORD)
    for answers in HOSTILE:
        listener, address = hostile(pool, answers)
        host.fails("JOINING_HOST_SERVICE_FAILED", "pool.join", address, "root", PASSWORD)
        listener.close()
    for name in "no.such.name.invalid", "a b", "[::1", "10.0.0.1:0", "10.0.0.1:x", "[]", "x" * 300, "":
        assert host.fails("VALUE_NOT_SUPPORTED", "pool.join", name, "root", PASSWORD)[:2] == ["master_address", name]
    # a name: whichever of its addresses serves
    relay, name = by_name(pool)
    host.fails("SESSION_AUTHENTICATION_FAILED", "pool.join", name, "root", "wrong")
    assert "itself" in host.fails("OPERATION_NOT_ALLOWED", "pool.join", pool.address(2), "root", PASSWORD)[0]
    # all that is in the way, by a dry run; the first of it, by the call
    own = host("VM.create", vm_record("its own"))
    network = host("network.create", {"name_label": "its own", "name_description": "", "other_config": {}, "tags": []})
    sr = pool.make_sr(host, "of its own")
    host("VM.start", own, False, False)
    said = dry_run(pool, 2, False)
    assert [line.split(":")[0] for line in said] == [
        "JOINING_HOST_CANNOT_HAVE_RUNNING_VMS", "JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", "OPERATION_NOT_ALLOWED"], said
    assert said[2].endswith("of its own runs"), said  # the pool would not take it either
    host.fails("JOINING_HOST_CANNOT_HAVE_RUNNING_VMS", "pool.join", *TARGET)
    host("VM.hard_shutdown", own)
    host.fails("JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", "pool.join_force", *TARGET)
    for pbd in host("SR.get_PBDs", sr):
        host("PBD.unplug", pbd)
    host("SR.destroy", sr)
    host("VM.destroy", own)
    host("network.destroy", network)
    assert dry_run(pool, 2, True) == ["nothing is in the way"] == dry_run(pool, 2, True, name)
    # each host says which schema the pool runs
    version, newest = (api("host.get_software_version", api("host.get_all")[0])[k] for k in ("db_schema", "db_schema_newest"))
    assert int(version) == int(newest) > 0, (version, newest)
    assert len(api("host.get_all")) == 1 and len(host("host.get_all")) == 1
    done = subprocess.run([os.path.join(sys.argv[1], "xe"), "pool-join", "master-address=" + name, "master-username=root",
                           "master-password=" + PASSWORD, "force=true", "-s", pool.address(2), "-u", "root", "-pw", PASSWORD],
                          env=dict(os.environ, HOME=pool.dir), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0, done.stdout
    eventually("it has what the pool has", lambda: pool.status()[0].get("hash", "0") == pool.status()[1].get("hash"), timeout=60)
    host = Api(pool, 2).login()
    assert host("VM.get_name_label", vm) == "of the pool"
    assert sorted(r["name_label"] for r in host("host.get_all_records").values()) == ["host1", "host2"]
    assert "POOL_HAS_NO_FAULT_TOLERANCE" in [m["name"] for m in host("message.get_all_records").values()]
    eventually("its PBD is plugged", lambda: all(r["currently_attached"] for r in host("PBD.get_all_records").values()))
    assert any(name.startswith("raft.aside") for name in os.listdir(pool.data(2)))
    host.fails("OPERATION_NOT_ALLOWED", "pool.join", *TARGET)
    for name in os.listdir(pool.data(2)):
        assert name not in ("join.json", "members.next.json")
