"""HTTP by the byte, for requests that no library would send."""
import socket


def connect(pool, window=None):
    """A TLS connection to member 1; window: bytes it lets the kernel keep unread."""
    raw = socket.socket()
    raw.settimeout(20)
    if window:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    raw.connect((pool.address(1), pool.port))
    return pool.tls.wrap_socket(raw, server_hostname=pool.address(1))


def read_exactly(sock, data, n):
    """(n bytes, rest)"""
    data = bytearray(data)
    while len(data) < n:
        more = sock.recv(65536)
        assert more, "the answer ends early"
        data += more
    return bytes(data[:n]), bytes(data[n:])


def read_chunks(sock, data):
    """(body, rest)"""
    pieces = []
    while not pieces or pieces[-1]:
        while b"\r\n" not in data:
            data += sock.recv(65536)
        size, data = data.split(b"\r\n", 1)
        piece, data = read_exactly(sock, data, int(size, 16) + 2)
        assert piece.endswith(b"\r\n")
        pieces.append(piece[:-2])
    return b"".join(pieces), data


def read_to_end(sock, data):
    data = bytearray(data)
    while more := sock.recv(65536):
        data += more
    return bytes(data), b""


def read_reply(sock, buffered=b""):
    """(status, headers, body, rest)"""
    data = buffered
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None, {}, b"", b""
        data += more
    head, data = data.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    if "content-length" in headers:
        body, data = read_exactly(sock, data, int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        body, data = read_chunks(sock, data)
    else:
        body, data = read_to_end(sock, data)
    return int(lines[0].split()[1]), headers, body, data


def send(pool, data):
    with connect(pool) as sock:
        sock.sendall(data)
        return read_reply(sock)


def post(body, path="/jsonrpc", version="1.1", more=""):
    body = body.encode()
    return ("POST %s HTTP/%s\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (path, version, more, len(body))).encode() + body
