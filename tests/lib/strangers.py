"""Frames of the member channel, for who poses as a member."""
import struct

CHANNEL, HELLO, PROTOCOL = 8300, 1, 3


def text(s):
    return struct.pack("<I", len(s)) + s.encode() + b"\0"


def frame(kind, body):
    return struct.pack("<II", len(body), kind) + body


def hello(pool, raft_id, protocol=PROTOCOL, epoch=1, epoch_id=""):
    return frame(HELLO, struct.pack("<I", protocol) + text(pool) + struct.pack("<QQ", raft_id, epoch) + text(epoch_id))
