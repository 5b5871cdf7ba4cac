"""Just enough HTTP/2 for single gRPC calls to etcd, by hand: checks of what h2load wrote, and probes at a failover.

One call at a time on one connection. Standard library only.
"""
import socket
import ssl
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW_MAX = 0x7fffffff


def varint(n):
    out = b""
    while n > 0x7f:
        out += bytes([n & 0x7f | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    """A protobuf field: bytes, or an int or bool as varint."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(int(value))


def message(body):
    """gRPC's length prefix, not compressed."""
    return struct.pack(">BI", 0, len(body)) + body


def put_request(key, value):
    return message(field(1, key) + field(2, value))


def range_request(key, serializable):
    return message(field(1, key) + (field(7, True) if serializable else b""))


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7f) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """The fields of one protobuf message as {number: last value}."""
    out, at = {}, 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            out[tag >> 3], at = read_varint(data, at)
        elif tag & 7 == 2:
            n, at = read_varint(data, at)
            out[tag >> 3], at = data[at:at + n], at + n
        else:
            raise ValueError("protobuf wire type %d" % (tag & 7))
    return out


class Refused(Exception):
    """The server answered with an error, or not at all."""


class Connection:
    def __init__(self, address, port, timeout=10):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((address, port), timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain)
        self.authority, self.stream, self.buffer = ("%s:%d" % (address, port)).encode(), -1, b""
        self.socket.sendall(PREFACE + self.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, WINDOW_MAX)) +
                            self.frame(WINDOW, 0, 0, struct.pack(">I", WINDOW_MAX - 65535)))

    @staticmethod
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def close(self):
        self.socket.close()

    def headers(self, path):
        """Literal fields, never indexed, nothing compressed: no state between calls."""
        out = b""
        for name, value in ((b":method", b"POST"), (b":scheme", b"https"), (b":path", path.encode()),
                            (b":authority", self.authority), (b"content-type", b"application/grpc"), (b"te", b"trailers")):
            out += b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value
        return out

    def read_frame(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            more = self.socket.recv(65536)
            if not more:
                raise Refused("the connection has ended")
            self.buffer += more
        n = int.from_bytes(self.buffer[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
        payload, self.buffer = self.buffer[9:9 + n], self.buffer[9 + n:]
        return kind, flags, stream, payload

    def call(self, path, body, timeout=10):
        """The answer's protobuf message. An error shows as an answer without one."""
        self.stream += 2
        self.socket.settimeout(timeout)
        self.socket.sendall(self.frame(HEADERS, END_HEADERS, self.stream, self.headers(path)) +
                            self.frame(DATA, END_STREAM, self.stream, body))
        data = b""
        while True:
            kind, flags, stream, payload = self.read_frame()
            if kind == SETTINGS and not flags & ACK:
                self.socket.sendall(self.frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(self.frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                raise Refused("the server goes away")
            elif stream == self.stream and kind == RST:
                raise Refused("the call was reset")
            elif stream == self.stream and kind == DATA:
                data += payload
            if stream == self.stream and flags & END_STREAM and kind in (DATA, HEADERS):
                break
        if len(data) < 5:
            raise Refused("an error in the trailers")
        return data[5:5 + int.from_bytes(data[1:5], "big")]
