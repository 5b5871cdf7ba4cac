"""HTTP and calls as no client should send them: the API's codes, the right status, and no crash."""
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.error

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from rawhttp import connect, post, read_reply, send
from xpool import PASSWORD, Api, ApiError, Pool, XmlApi, eventually

LOGIN = '{"jsonrpc":"2.0","method":"session.login_with_password","params":["root",%s],"id":0}' % json.dumps(PASSWORD)


def pool_uuid(pool):
    with open(pool.dir + "/members.json") as handle:
        return json.load(handle)["pool"].encode()


def channel_refuses(pool, certificate, frame):
    """Talk to member 3's channel as somebody who should not; True when it ends the connection without an answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate == "stranger":
        path = pool.dir + "/stranger.pem"
        subprocess.run([sys.argv[1] + "/xpoolctl", "certificate", "--address", "127.0.0.99", "--name", "x", "--out", path],
                       check=True, stdout=subprocess.DEVNULL)
        context.load_cert_chain(path)
    elif certificate:
        context.load_cert_chain("%s/%s/member.pem" % (pool.dir, certificate))
    try:
        with socket.create_connection((pool.address(3), 8300), timeout=10) as raw, context.wrap_socket(raw) as sock:
            sock.sendall(struct.pack("<II", len(frame), 1) + frame)
            return sock.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def half_closed(pool, request):
    """(status, answer) for a client that will send no more."""
    with connect(pool) as sock:
        sock.sendall(request)
        with socket.socket(fileno=os.dup(sock.fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)
        status, _, body, _ = read_reply(sock)
        return status, json.loads(body)


with Pool() as pool:
    # statuses of the transport
    assert send(pool, b"GET / HTTP/1.1\r\n\r\n")[0] == 404
    assert send(pool, b"DELETE / HTTP/1.1\r\n\r\n")[0] == 501
    assert send(pool, b"nonsense\r\n\r\n")[0] == 400
    assert send(pool, b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")[0] == 500
    assert send(pool, b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n")[0] == 413
    assert send(pool, b"POST / HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n")[0] == 431
    status, headers, _, _ = send(pool, b"OPTIONS /jsonrpc HTTP/1.1\r\nAccess-Control-Request-Headers: X-Mine\r\n\r\n")
    assert status == 200 and headers["access-control-allow-headers"] == "X-Mine, X-Requested-With"
    assert headers["access-control-allow-origin"] == "*" and headers["access-control-allow-methods"] == "PUT"
    # content types are compared with equality by clients
    for path, kind in (("/jsonrpc", "application/json"), ("/json", "application/json")):
        status, headers, body, _ = send(pool, post(LOGIN, path))
        assert status == 200 and headers["content-type"] == kind and json.loads(body)["id"] == 0, (status, headers, body)
    for path in ("/", "/RPC2", "/xmlrpc", "/anything", "/json"):
        call = "<methodCall><methodName>system.listMethods</methodName></methodCall>"
        status, headers, body, _ = send(pool, post(call, path))
        assert status == 200 and headers["content-type"] == "text/xml" and b"VM.start" in body and b"> <" not in body
    # keep-alive as the version says; requests sent ahead are answered in order
    for version, more, kept in (("1.1", "", True), ("1.0", "", False), ("1.0", "Connection: keep-alive\r\n", True),
                                ("1.1", "Connection: close\r\n", False)):
        _, headers, _, _ = send(pool, post(LOGIN, version=version, more=more))
        assert headers["connection"] == ("keep-alive" if kept else "close"), (version, more)
    with connect(pool) as sock:
        calls = [post('{"method":"system.isAlive:%d","params":["%d"],"id":%d}' % (n, n, n)) for n in range(20)]
        sock.sendall(b"".join(calls))
        rest = b""
        for n in range(20):
            status, _, body, rest = read_reply(sock, rest)
            assert json.loads(body) == {"result": str(n), "error": None, "id": n}, body
        for piece in (calls[0][:10], calls[0][10:40], calls[0][40:]):
            sock.sendall(piece)
            time.sleep(0.05)
        assert read_reply(sock, rest)[0] == 200
    # a client that sends and never reads is stopped, and gets everything once it reads
    with connect(pool) as sock:
        one = post('{"method":"system.isAlive:x","params":["x"],"id":1}')
        sock.settimeout(2)
        sent = 0
        try:
            while sent < 64 << 20:
                sock.sendall(one * 500)
                sent += len(one) * 500
        except TimeoutError:
            pass
        assert sent < 64 << 20, "it takes in without end"
    # a whole body over the limit: the answer arrives although the body was still on its way
    status, _, _, _ = send(pool, b"POST / HTTP/1.1\r\nContent-Length: 5242880\r\n\r\n" + b"x" * 5242880)
    assert status == 413, status
    # a client that sends no more still gets its answer, also one that takes a while, or is long
    status, session = half_closed(pool, post(LOGIN))
    assert status == 200, (status, session)
    for method, params in (("event.from", [["vm"], "", 1.0]), ("role.get_all_records", [])):
        call = json.dumps({"jsonrpc": "2.0", "method": method, "params": [session["result"], *params], "id": 1})
        status, answer = half_closed(pool, post(call))
        assert status == 200 and len(answer["result"]) > 1, (method, status)
    # and one that has not said all is gone
    with connect(pool) as sock:
        there = pool.counters(1)["connections_now"]
        sock.sendall(b"POST /jsonrpc HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        with socket.socket(fileno=os.dup(sock.fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)
        eventually("it is given up", lambda: pool.counters(1)["connections_now"] < there)
    # bodies that would take a gigabyte to decode
    assert send(pool, post('{"method":"x","params":[' + ",".join(["{}"] * 1000000) + '],"id":1}'))[0] == 500
    deep = "<value><array><data>" * 100 + "</data></array></value>" * 100
    assert send(pool, post("<methodCall><methodName>a</methodName><params><param>" + deep + "</param></params></methodCall>",
                           "/"))[0] == 500
    # malformed bodies: 500, in the encoding of the path
    for path, body in (("/jsonrpc", "{"), ("/jsonrpc", "[]"), ("/jsonrpc", '{"method":"x","params":[]}'), ("/jsonrpc", ""),
                       ("/", "<x/>"), ("/", "not xml"), ("/", "<methodCall><methodName>a</methodName>")):
        status, headers, reply, _ = send(pool, post(body, path))
        assert status == 500 and headers["connection"] == "close", (path, body, status)
        assert headers["content-type"] == ("application/json" if path == "/jsonrpc" else "text/xml")
    # junk below TLS, and connections that say nothing
    for junk in (b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.0\r\n\r\n", b""):
        with socket.create_connection((pool.address(1), pool.port), timeout=5) as raw:
            raw.sendall(junk)

    # the member channel: no certificate, a certificate nobody pinned, a pinned one under another id, junk
    hello = struct.pack("<I", 1) + struct.pack("<I", 36) + pool_uuid(pool) + b"\0" + struct.pack("<QQ", 2, 1)
    for certificate, frame in ((None, b""), ("stranger", hello), ("stranger", b"x" * 100), ("member1", hello)):
        assert channel_refuses(pool, certificate, frame), certificate
    refused = sum(pool.counters(n)["channel_refused"] for n in (1, 2, 3))
    assert refused >= 3, refused

    api = Api(pool, 1).login()
    vm = api("VM.get_by_name_label", "web")[0]
    assert api.fails("MESSAGE_METHOD_UNKNOWN", "VM.fly", "x") == ["VM.fly"]
    assert api.fails("MESSAGE_METHOD_UNKNOWN", "nonsense") == ["nonsense"]
    assert api.fails("MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", vm) == ["VM.start", "3", "1"]
    assert api.fails("MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_all", "x") == ["VM.get_all", "0", "1"]
    assert api.fails("FIELD_TYPE_ERROR", "VM.start", vm, "true", True) == ["start_paused"]
    assert api.fails("FIELD_TYPE_ERROR", "VM.get_record", 5) == ["self"]
    assert api.fails("FIELD_TYPE_ERROR", "VM.create", {}) == ["user_version"]
    assert api.fails("INVALID_VALUE", "VM.set_actions_after_shutdown", vm, "explode") == ["explode"]
    assert api.fails("INVALID_VALUE", "VM.set_name_label", vm, "\x01")
    assert api.fails("INVALID_VALUE", "VM.get_all_where", 'field "x"="y"')
    assert api.fails("HANDLE_INVALID", "VM.set_affinity", vm, "OpaqueRef:none") == ["host", "OpaqueRef:none"]
    assert api.fails("HANDLE_INVALID", "VM.set_affinity", vm, "x" * 100) == ["host", "x" * 100]
    assert api.fails("INVALID_VALUE", "VM.set_xenstore_data", vm, {"": "x"}) == ["key", ""]
    assert api.fails("UUID_INVALID", "VM.get_by_uuid", "none") == ["VM", "none"]
    assert api.fails("Fault", "Async.VM.get_record", vm)
    assert api.fails("VALUE_NOT_SUPPORTED", "VM.set_name_description", vm, "x" * (1 << 20))
    assert api("VM.get_all_where", 'field "name__label"="web"') == [vm]
    assert api("VM.get_all_where", 'not field "name_label"="web" and true') != [vm]
    for bad in ("", "nonsense", "OpaqueRef:NULL", "OpaqueRef:11111111-2222-3333-4444-555555555555"):
        stranger = Api(pool, 1, bad)
        assert stranger.fails("SESSION_INVALID", "VM.get_all") == [bad]
    began = time.time()
    try:
        Api(pool, 1).raw("session.login_with_password", "root", "wrong")
        raise AssertionError("a wrong password was taken")
    except ApiError as fault:
        assert fault.code == "SESSION_AUTHENTICATION_FAILED" and fault.args[1] == "root"
        assert time.time() - began > 4, "no penalty"
    # tokens
    assert api.fails("EVENT_FROM_TOKEN_PARSE_FAILURE", "event.from", ["vm"], "x", 0.0) == ["x"]
    assert api.fails("EVENT_SUBSCRIPTION_PARSE_FAILURE", "event.from", ["a/b/c"], "", 0.0) == ["a/b/c"]
    assert api.fails("EVENTS_LOST", "event.from", ["vm"], "%020d,%020d" % (7 * 10**16, 0), 0.0) == []
    all_events = api("event.from", ["*"], "", 0.0)
    assert {e["class"] for e in all_events["events"]} >= {"vm", "host", "pool"}
    quiet = api("event.from", ["nothing"], all_events["token"], 0.2)
    assert quiet["events"] == [] and quiet["token"] >= all_events["token"]
    token = api("event.inject", "VM", vm)
    assert token < api("event.from", ["VM"], token, 5.0)["token"]
    # integers beyond 2^53 survive both encodings
    api("VM.set_user_version", vm, 9007199254740993)
    assert api("VM.get_user_version", vm) == 9007199254740993
    assert XmlApi(pool, 1)("VM.get_user_version", api.session)["Status"] == "Failure"
    assert XmlApi(pool, 1)("VM.get_user_version", api.session, vm)["Value"] == "9007199254740993"
    try:
        api.post(b"{")
        raise AssertionError("malformed and 200")
    except urllib.error.HTTPError as fault:
        assert fault.code == 500
    assert api("VM.get_all"), "it still answers"
