"""Clients that mean no good: slow, silent, never reading, thousands of them, and bodies made to cost memory. Every limit of
docs/limits.md that a client can reach, its answer, and that the member serves others meanwhile in bounded memory."""
import json
import resource
import socket
import ssl
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from rawhttp import connect, post, read_reply, send
from xpool import Api, Pool, eventually

MIB = 1 << 20
CONNECTIONS_MAX, LOOPS = 800, 2
ALIVE = post('{"method":"system.isAlive:x","params":["x"],"id":1}')
MALFORMED = [  # (bytes, status)
    (b"FLY / HTTP/1.1\r\n\r\n", 400), (b"POST\r\n\r\n", 400), (b"POST  HTTP/1.1\r\n\r\n", 400), (b"POST / HTTP/x.y\r\n\r\n", 400),
    (b"POST / SPDY/1.1\r\n\r\n", 400), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400), (b"\0\0\0\0", 400), (b"POST /\x7f\x01 HTTP/1.1\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nno colon\r\n\r\n", 400), (b"POST / HTTP/1.1\r\nA\0B: x\r\n\r\n", 400), (b"CONNECT x:1 HTTP/1.1\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400), (b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 4194305\r\n\r\n", 413), (b"POST / HTTP/1.1\r\n\r\n", 500),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 500),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", 500),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 4000 + b"\r\n", 431), (b"POST /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", 431),
    (b"POST / HTTP/1.1\r\n" + b"a" * 20000 + b": b\r\n\r\n", 431),
]
LOL = "".join('<!ENTITY l%d "%s">' % (n, "&l%d;" % (n - 1) * 10 if n else "lol") for n in range(10))


def call(value):
    return b"<methodCall><methodName>system.isAlive:x</methodName><params><param>%s</param></params></methodCall>" % value


BODIES = [  # (path, body, status)
    ("/", b'<?xml version="1.0"?><!DOCTYPE x [%s]>' % LOL.encode() + call(b"<value>&l9;</value>"), 500),
    ("/", b'<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd">%p;]>' + call(b"<value/>"), 500),
    ("/", b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + call(b"<value>&e;</value>"), 500),
    ("/", call(b"<value>\xff\xfe</value>"), 500), ("/", call(b"<value>\xc0\xaf</value>"), 500), ("/", call(b"<value>&#0;</value>"), 500),
    ("/", call(b"<value>\xed\xa0\x80</value>"), 500), ("/", call(b"<value><array><data>" * 63 + b"</data></array></value>" * 63), 200),
    ("/", call(b"<value><array><data>" * 65 + b"</data></array></value>" * 65), 500),
    ("/", call(b"<value><array><data>" + b"<value/>" * 50001 + b"</data></array></value>"), 500),
    ("/", call(b"<value><struct><member><value/></member></struct></value>"), 500),
    ("/jsonrpc", b'{"method":"x","params":["\xff"],"id":1}', 500), ("/jsonrpc", b'{"method":"x","params":["\xed\xa0\x80"],"id":1}', 200),  # INVALID_VALUE
    ("/jsonrpc", b'{"method":"x","params":["\\u0000"],"id":1}', 500), ("/jsonrpc", b"[" * 100000, 500),
    ("/jsonrpc", b'{"method":"x","id":1,"params":[' + b"[" * 70 + b"]" * 70 + b"]}", 500),
    ("/jsonrpc", b'{"method":"x","id":1,"params":[' + b"1," * 60000 + b"1]}", 500),
    ("/jsonrpc", b'{"method":"x","id":1,"params":[99999999999999999999]}', 500), ("/jsonrpc", b'{"method":"x","id":1,"params":[NaN]}', 500),
]


def rss(pool):
    with open("%s/member1/xpoold.pid" % pool.dir) as handle, open("/proc/%s/status" % handle.read().split()[0]) as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def serves(pool):
    return send(pool, ALIVE)[0] == 200


def ended(sock, within):
    """Seconds until the member ends the connection, and what it said before."""
    began, said = time.time(), b""
    sock.settimeout(within)
    try:
        while data := sock.recv(65536):
            said += data
    except (ssl.SSLError, ConnectionError):
        pass
    return time.time() - began, said


def drip(sock, data):
    try:
        sock.sendall(data)
    except (ssl.SSLError, ConnectionError, BrokenPipeError):
        pass


def slow_begin(pool):
    """Connections that will be looked at a minute later."""
    silent, handshake = connect(pool), socket.create_connection((pool.address(1), pool.port), timeout=20)
    handshake.sendall(b"\x16\x03\x01")
    headers, body = connect(pool), connect(pool)
    headers.sendall(b"POST / HTTP/1.1\r\nX")
    body.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
    return {"silent": silent, "handshake": handshake, "headers": headers, "body": body, "began": time.time()}


def slow_headers(slow):
    """No first byte, no handshake, no end of headers within 10 s."""
    while time.time() < slow["began"] + 9:
        drip(slow["headers"], b"x")
        drip(slow["body"], b"x")
        time.sleep(0.5)
    for name, says in (("silent", b""), ("handshake", b""), ("headers", b"HTTP/1.1 408")):
        _, said = ended(slow[name], 10)
        assert said.startswith(says) and (says or not said), (name, said)


def slow_body(slow):
    """One byte at a time keeps nobody's place: the whole body within 60 s of its headers."""
    while time.time() < slow["began"] + 58:
        drip(slow["body"], b"x")
        time.sleep(1)
    _, said = ended(slow["body"], 15)
    assert said.startswith(b"HTTP/1.1 408"), said


def large_answers(api):
    """A call whose answer is 12 MiB."""
    host = next(iter(api("host.get_all_records").values()))["uuid"]
    for n in range(16):
        api("message.create", "big", 5, "Host", host, "x" * (3 * MIB // 4))
    return json.dumps({"method": "message.get_all_records", "params": [api.session], "id": 1})


def slow_reading(pool, body):
    """Over UNREAD_MAX on a loop, but all take their answers, if slowly: nobody is dropped."""
    dropped, socks = pool.counters(1)["connections_dropped"], [connect(pool, window=65536) for n in range(14)]
    enough, taken = threading.Event(), [0] * len(socks)

    def take():
        while not enough.wait(0.1):
            for n, sock in enumerate(socks):
                for _ in range(4):  # a record of TLS each
                    taken[n] += len(sock.recv(65536))

    for sock in socks:
        sock.sendall(post(body))
    reader = threading.Thread(target=take)
    reader.start()
    time.sleep(7)
    for n in range(8):
        assert send(pool, post(body))[0] == 200
    enough.set()
    reader.join()
    assert pool.counters(1)["connections_dropped"] == dropped and min(taken) > MIB // 2, taken
    for sock in socks:
        sock.close()


def never_reading(pool, api, body):
    """Answers of 12 MiB that nobody takes: over UNREAD_MAX on a loop the new ones push the old ones out."""
    before, dropped = rss(pool), pool.counters(1)["connections_dropped"]
    socks = []
    for wave in range(3):
        for n in range(20):
            sock = connect(pool, window=4096)
            sock.sendall(post(body, version="1.0" if n % 2 else "1.1"))
            socks.append(sock)
        time.sleep(6)
    grown, gone = rss(pool) - before, pool.counters(1)["connections_dropped"] - dropped
    print("60 clients that do not read an answer of 12 MiB: %d MiB more, %d dropped" % (grown // MIB, gone))
    assert gone >= 15 and grown < 500 * MIB  # 720 MiB of answers were made, a third of it just now
    assert serves(pool)
    api("message.destroy_all", {})
    return socks


def many_bodies(pool):
    """Requests of 4 MiB that are never finished: over 64 MiB on a loop the next byte is refused."""
    answers = []
    socks = [connect(pool) for _ in range(2 * LOOPS * 16)]
    for sock in socks:
        drip(sock, b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (4 * MIB) + b"x" * (4 * MIB - 1))
    for sock in socks:
        sock.settimeout(0.1)
        try:
            answers.append(sock.recv(12))
        except TimeoutError:
            pass
        except (ssl.SSLError, ConnectionError):
            answers.append(b"reset")
        sock.close()
    assert b"HTTP/1.1 503" in answers, answers
    eventually("all are gone", lambda: send(pool, post("x" * 3 * MIB))[0] == 500)


def has_ended(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except ssl.SSLWantReadError:
        return False
    except (ssl.SSLError, ConnectionError):
        return True


def thousands_idle(pool):
    """Beyond the limit of a loop its connection that is idle longest gives way; those that work stay."""
    before, n = rss(pool), LOOPS * CONNECTIONS_MAX + 200
    dropped = pool.counters(1)["connections_dropped"]
    socks = []
    for _ in range(n):
        socks.append(connect(pool))
        socks[-1].sendall(ALIVE)
        assert read_reply(socks[-1])[0] == 200
    now = pool.counters(1)["connections_now"]
    assert now <= LOOPS * CONNECTIONS_MAX and pool.counters(1)["connections_dropped"] >= dropped + n - LOOPS * CONNECTIONS_MAX
    each = (rss(pool) - before) // now
    print("%d idle connections: %d bytes each" % (now, each))
    assert each < 40000, each
    assert serves(pool)
    gone = [k for k, sock in enumerate(socks) if has_ended(sock)]  # a loop has seen all those that are younger
    assert len(gone) >= n - LOOPS * CONNECTIONS_MAX and gone[-1] < n - CONNECTIONS_MAX, gone
    socks[-1].settimeout(60)
    socks[-1].sendall(ALIVE)
    assert read_reply(socks[-1])[0] == 200
    for sock in socks:
        sock.close()
    eventually("they are gone", lambda: pool.counters(1)["connections_now"] < 100)


resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
with Pool(options="--loops %d" % LOOPS) as pool:
    api = Api(pool, 1).login()
    assert serves(pool)
    slow = slow_begin(pool)
    for data, status in MALFORMED:
        got = send(pool, data)
        assert got[0] == status and got[1]["connection"] == "close", (data[:60], got)
    before = rss(pool)
    for path, body, status in BODIES:
        got = send(pool, ("POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (path, len(body))).encode() + body)
        assert got[0] == status, (path, body[:100], got)
    assert rss(pool) - before < 64 * MIB, "%d MiB more" % ((rss(pool) - before) // MIB)
    slow_headers(slow)
    thousands_idle(pool)
    body = large_answers(api)
    slow_reading(pool, body)
    socks = never_reading(pool, api, body)
    many_bodies(pool)
    slow_body(slow)
    assert serves(pool)
    # who does not read for 30 s is given up
    eventually("given up", lambda: pool.counters(1)["connections_now"] < 10, 60)
    for sock in socks:
        sock.close()
    assert pool.counters(1)["connections_refused"] == 0
    pool.agree()
