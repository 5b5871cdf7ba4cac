"""Consoles: what is typed comes back, by CONNECT and by WebSocket, at the host of the VM and through another member; who may; what ends one."""
import base64
import ctypes
import hashlib
import os
import socket
import struct
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, Pool, eventually, vm_record

BINARY, TEXT, CLOSE, PING, PONG = 2, 1, 8, 9, 10
MIB = 1 << 20


class Console:
    """One connection; heard: what the guest has said and nobody has asked for yet."""

    def __init__(self, pool, member, query, session=None, method="CONNECT", headers=""):
        raw = socket.create_connection((pool.address(member), pool.port), timeout=20)
        self.tls = pool.tls.wrap_socket(raw, server_hostname=pool.address(member))
        if session is not None:
            headers += "Cookie: session_id=%s\r\n" % session
        self.tls.sendall(("%s /console?%s HTTP/1.%d\r\nHost: x\r\n%s\r\n" % (method, query, method == "GET", headers)).encode())
        self.heard = b""
        self.head = self.until(b"\r\n\r\n").decode()
        self.status = int(self.head.split()[1])

    def more(self):
        got = self.tls.recv(65536)
        self.heard += got
        return got

    def until(self, text):
        while text not in self.heard:
            assert self.more(), "ended before %r: %r" % (text, self.heard[-200:])
        found, self.heard = self.heard[:self.heard.index(text) + len(text)], self.heard[self.heard.index(text) + len(text):]
        return found

    def type(self, text):
        self.tls.sendall(text)
        return self

    def ends(self):
        """And all that came before."""
        while self.more():
            pass
        return self.heard


class WebSocket(Console):
    def __init__(self, pool, member, query, session=None, version=13, headers=""):
        key = base64.b64encode(os.urandom(16)).decode()
        super().__init__(pool, member, query, session, "GET", headers + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %s\r\n"
                         "Sec-WebSocket-Version: %d\r\nSec-WebSocket-Protocol: binary\r\n" % (key, version))
        proof = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        assert self.status != 101 or ("Sec-WebSocket-Accept: %s\r\n" % proof in self.head and "Protocol: binary\r\n" in self.head), self.head

    def exactly(self, n):
        while len(self.heard) < n:
            assert self.more(), "ended"
        found, self.heard = self.heard[:n], self.heard[n:]
        return found

    def frame(self):
        first, n = self.exactly(2)
        assert first & 0x70 == 0 and n < 128, "reserved bits or a mask"
        n = n if n < 126 else int.from_bytes(self.exactly(2 if n == 126 else 8), "big")
        return first & 15, self.exactly(n)

    def says(self, text):
        said = b""
        while text not in said:
            opcode, payload = self.frame()
            assert opcode == BINARY, opcode
            said += payload

    def send(self, opcode, payload=b"", fin=True, mask=b"\x01\x80\xff\x33", length=None):
        n = len(payload) if length is None else length
        head = bytes([fin << 7 | opcode, bool(mask) << 7 | (n if n < 126 else 126 if n < 65536 else 127)])
        head += b"" if n < 126 else struct.pack(">H", n) if n < 65536 else struct.pack(">Q", n)
        self.tls.sendall(head + mask + bytes(b ^ (mask or b"\0" * 4)[i % 4] for i, b in enumerate(payload)))

    def closed_with(self, status):
        while (frame := self.frame())[0] != CLOSE:
            pass
        assert frame[1] == struct.pack(">H", status), frame
        assert self.ends() == b"", "words behind the last"


def memory(pool, member):
    with open("/proc/%d/status" % pool.signal(member, "xpoold", 0)) as status:
        return int(status.read().split("VmRSS:")[1].split()[0]) << 10


with Pool() as pool:
    api, other = Api(pool, 1).login(), Api(pool, 2).login()
    at = api.members()
    home = next(host for host, member in at.items() if member == 1)
    vm = api("VM.create", vm_record("seen"))
    api("VM.start_on", vm, home, False, True)
    (console,) = api("VM.get_consoles", vm)
    record = api("console.get_record", console)
    uuid, session = "uuid=" + record["uuid"], api.session
    assert record["location"] == "https://%s/console?%s" % (pool.address(1), uuid) and pool.port == 443

    # the console and the VM by both names, the session in the query and in the cookie; what is sent with the request is not lost
    greeting = b"Simulated guest " + api("VM.get_uuid", vm).encode()
    by_connect = Console(pool, 1, uuid, session)
    assert by_connect.status == 200
    by_connect.until(greeting)
    by_connect.type(b"ls\r").until(b"ls\r")
    for query in ("ref=" + console, "ref=" + vm, "uuid=" + api("VM.get_uuid", vm)):
        assert Console(pool, 1, query + "&session_id=" + session).type(b"x").until(b"x")
    root = base64.b64encode(("root:" + PASSWORD).encode()).decode()
    assert Console(pool, 1, uuid, headers="Authorization: Basic %s\r\n" % root).status == 200
    # a page of another site has no use of what the browser adds by itself; who knows the session may come from anywhere
    basic = "Authorization: Basic %s\r\n" % root
    for origin, query, cookie, headers, status in (("https://x", uuid, session, "", 101), ("https://y", uuid, session, "", 401),
                                                   ("null", uuid, session, "", 401), ("https://x.y", uuid, None, basic, 401),
                                                   ("https://y", uuid + "&session_id=" + session, None, "", 101)):
        came = WebSocket(pool, 1, query, cookie, headers=headers + "Origin: %s\r\n" % origin)
        assert came.status == status, (origin, came.head)
    by_frames = WebSocket(pool, 1, uuid, session)
    assert by_frames.status == 101
    by_frames.says(greeting)
    by_frames.send(BINARY, b"in ", fin=False)
    by_frames.send(PING, b"there?")
    by_frames.send(0, b"pieces")
    heard = [by_frames.frame() for _ in range(3)]
    assert (PONG, b"there?") in heard and b"".join(p for o, p in heard if o == BINARY) == b"in pieces", heard
    by_frames.send(BINARY, bytes(range(256)) * 600)
    by_frames.says(bytes(range(256)))

    # through another member, which only hands on
    through, frames_through = Console(pool, 2, uuid, session), WebSocket(pool, 3, "ref=" + vm, session)
    assert through.status == 200 and frames_through.status == 101
    through.until(greeting)
    through.type(b"far").until(b"far")
    frames_through.says(greeting)
    frames_through.send(BINARY, b"away")
    frames_through.says(b"away")

    # who may not, and what is not there: at both
    for member in (1, 2):
        for query, key, status in ((uuid, "OpaqueRef:none", 401), (uuid, None, 401), ("uuid=" + "0" * 36, session, 404), ("", session, 404)):
            assert Console(pool, member, query, key).status == status, (member, query, status)
            assert WebSocket(pool, member, query, key).status == status, (member, query, status)
    assert Console(pool, 1, uuid, session, "GET").status == 400
    assert WebSocket(pool, 1, uuid, session, version=8).status == 426
    halted = api("VM.create", vm_record("halted"))
    assert Console(pool, 1, "ref=" + halted, session).status == 404
    paused = api("VM.create", vm_record("paused"))
    api("VM.start_on", paused, home, True, True)
    assert Console(pool, 1, "ref=" + paused, session).status == 500

    # a role that may not, and one that may
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    secret = crypt(PASSWORD.encode(), b"$1$abcdefgh$").decode()
    with open(os.path.join(pool.dir, "member1", "agent", "directory.json"), "w", encoding="utf-8") as handle:
        handle.write('{"users": [{"id": "S-1", "name": "reader", "password": "%s", "groups": []}], "groups": []}' % secret)
    api("host.enable_external_auth", home, {}, "example", "file")
    subject = api("subject.create", {"subject_identifier": "S-1", "other_config": {}})
    api("subject.add_to_roles", subject, api("role.get_by_name_label", "read-only")[0])
    reader = Api(pool, 1).login("reader", PASSWORD).session
    for member in (1, 2):
        refusal = Console(pool, member, uuid, reader)
        assert refusal.status == 403 and b"RBAC_PERMISSION_DENIED: [ http/connect_console; " in refusal.ends()
        assert WebSocket(pool, member, uuid, reader).status == 403
    api("subject.add_to_roles", subject, api("role.get_by_name_label", "vm-operator")[0])
    assert Console(pool, 1, uuid, reader).status == 200

    # frames that are none
    for why, opcode, more in ((1002, BINARY, {"mask": b""}), (1009, BINARY, {"length": MIB + 1}), (1002, 3, {}), (1002, 11, {}),
                              (1003, TEXT, {}), (1002, 0, {}), (1002, PING, {"fin": False}), (1002, PING, {"length": 126})):
        hostile = WebSocket(pool, 1, uuid, session)
        hostile.send(opcode, b"no", **more)
        hostile.closed_with(why)
    polite = WebSocket(pool, 1, uuid, session)
    polite.send(CLOSE, struct.pack(">H", 1000))
    polite.closed_with(1000)

    # who types and does not read is stopped, and costs nothing more
    before, slow, sent = memory(pool, 1), Console(pool, 1, uuid, session), 0
    slow.tls.settimeout(1)
    try:
        while sent < 64 * MIB:
            sent += slow.tls.send(b"y" * 16384)
        raise AssertionError("it takes all that is typed")
    except TimeoutError:
        pass
    assert memory(pool, 1) - before < 4 * MIB, "%d bytes of memory for %d typed" % (memory(pool, 1) - before, sent)
    by_connect.type(b"meanwhile").until(b"meanwhile")
    slow.tls.close()

    # one viewer, when the pool wants it so
    (ref,) = api("pool.get_all")
    by_connect.tls.close()
    lonely = api("VM.create", vm_record("lonely"))
    api("VM.start_on", lonely, home, False, True)
    api("pool.set_limit_console_sessions", ref, True)
    first = Console(pool, 1, "ref=" + lonely, session)
    for member in (1, 2):
        second = Console(pool, member, "ref=" + lonely, session)
        assert second.status == 503 and b"Connection Limit Exceeded" in second.ends()
    assert WebSocket(pool, 1, "ref=" + lonely, session).status == 503
    first.tls.close()
    eventually("its place is free", lambda: Console(pool, 2, "ref=" + lonely, session).status == 200)
    api("pool.set_limit_console_sessions", ref, False)
    # and only one that is used
    api("pool.set_vm_console_idle_timeout", ref, 1)
    assert Console(pool, 1, "ref=" + lonely, session).type(b"once").ends().endswith(b"once")
    api("pool.set_vm_console_idle_timeout", ref, 0)

    # it ends with the session that opened it, which ends at another member; others' stay
    for end in ("session.logout", "session.logout_subject_identifier"):
        mine = Api(pool, 1).login("reader", PASSWORD)
        mine_seen = [kind(pool, member, uuid, mine.session) for member in (1, 2) for kind in (Console, WebSocket)]
        assert all(c.status in (200, 101) for c in mine_seen)
        if end == "session.logout":
            there = Api(pool, 3)
            there.session = mine.session
            there("session.logout")
        else:
            other("session.logout_subject_identifier", "S-1")
        for seen in mine_seen:
            seen.tls.settimeout(5)
            seen.ends()
    through.type(b"still").until(b"still")

    # it ends with the domain; with the agent, of which the next serves again
    api("VM.hard_shutdown", vm)
    by_frames.closed_with(1001)
    through.ends()
    frames_through.closed_with(1001)
    orphan = Console(pool, 2, "ref=" + lonely, session)
    orphan.until(b"Simulated guest")
    pool.kill(1, "agent")
    orphan.ends()
    assert Console(pool, 1, "ref=" + lonely, session).status == 500
    pool.quickstart("start", "1")
    eventually("it is served again", lambda: Console(pool, 2, "ref=" + lonely, session).status == 200)
