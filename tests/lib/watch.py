"""Many clients of event.from at once: one asyncio loop, a raw TLS connection for each. Standard library only."""
import asyncio
import json


class Lost(Exception):
    """The connection is gone, or the call failed: .args."""


class Client:
    """JSON-RPC over one connection, kept open."""

    def __init__(self, pool, member, session=None):
        self.pool, self.member, self.session = pool, member, session
        self.reader = self.writer = None
        self.bytes = self.calls = 0

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(
            self.pool.address(self.member), self.pool.port, ssl=self.pool.tls, server_hostname=self.pool.address(self.member),
            limit=1 << 16)
        return self

    def send(self, method, *args):
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": list(args), "id": 1}).encode()
        self.writer.write(b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async def receive(self):
        """The bytes of the next reply's body."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError, OSError) as fault:
            raise Lost("connection", repr(fault)) from None
        self.bytes += len(head) + length
        self.calls += 1
        return body

    async def call(self, method, *args):
        self.send(method, *args)
        reply = json.loads(await self.receive())
        if "error" in reply:
            raise Lost(reply["error"]["message"], *reply["error"]["data"])
        return reply["result"]

    async def events(self, classes, token, timeout):
        return await self.call("event.from", self.session, classes, token, float(timeout))

    def close(self):
        if self.writer is not None:
            self.writer.transport.abort()
            self.writer = None


async def clients(pool, sessions, per_session=1):
    """One open client per (member, session), several for each when asked."""
    made = [Client(pool, member, session) for member, session in sessions for _ in range(per_session)]
    for at in range(0, len(made), 50):
        await asyncio.gather(*(c.open() for c in made[at:at + 50]))
    return made
