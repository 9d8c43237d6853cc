"""A front over plain TCP in this process, real apps for it, and a client that sends and reads raw bytes."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from bench.webfront import TcpRoad
from proxy.model import TcpTarget
from proxy.settings.web import WebSettings
from proxy.userstring import UserString
from proxy.web.front import Front
from proxy.web.gate import NOT_PUBLIC, Asked, Pass, Verdict
from proxy.web.listening import IsBanned, Listener, bind
from proxy.web.opening import DirectOpener
from proxy.web.origins import Origins
from proxy.web.road import Address
from proxy.web.upstream import Pool

DEADLINE_S = 60

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Gatekeeper:
    """A gate with apps by label; notes what it was asked."""

    def __init__(self) -> None:
        self.apps: dict[str, Pass] = {}
        self.asked: list[Asked] = []
        self.waits = False
        """Whether a decision takes a turn of the event loop."""

    def add(self, label: str, port: int, **more: Any) -> None:
        address = Address("alice", UserString("alice", "dev"), TcpTarget("127.0.0.1", port))
        self.apps[label] = Pass(address, **{"is_public": True, **more})

    def at_once(self, asked: Asked) -> Verdict | None:
        return None if self.waits else self._decide(asked)

    async def decide(self, asked: Asked) -> Verdict:
        await asyncio.sleep(0)
        return self._decide(asked)

    def _decide(self, asked: Asked) -> Verdict:
        self.asked.append(asked)
        return self.apps.get(asked.host.label, NOT_PUBLIC)


@dataclass
class Running:
    """A front that listens."""

    front: Front
    gate: Gatekeeper
    pool: Pool
    road: TcpRoad
    port: int
    servers: list[asyncio.Server] = field(default_factory=list)
    talks: "list[Talk]" = field(default_factory=list)
    serving: set[asyncio.Task[None]] = field(default_factory=set)
    """One for each connection of an app."""

    def host(self, label: str = "app") -> bytes:
        return f"{label}.localhost:{self.port}".encode()

    async def app(self, handler: Handler, label: str = "app", **more: Any) -> int:
        """Start an app and show it; gives its port."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.serving.add(task)
            try:
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    await handler(reader, writer)
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
                self.serving.discard(task)

        server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1024 * 1024)
        self.servers.append(server)
        port = int(server.sockets[0].getsockname()[1])
        self.gate.add(label, port, **more)
        return port

    async def connect(self) -> "Talk":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=64 * 1024 * 1024)
        talk = Talk(reader, writer)
        self.talks.append(talk)
        return talk

    async def close(self) -> None:
        """Let go of every socket of clients and apps."""
        for talk in self.talks:
            talk.reset()
            await talk.close()
        for server in self.servers:
            server.close()
        for task in tuple(self.serving):
            task.cancel()
        if self.serving:
            await asyncio.wait(self.serving, timeout=DEADLINE_S)

    async def idle(self) -> None:
        """Wait until nobody is connected and nothing is under way; the pool may keep what it wants."""
        await until(lambda: len(self.front) == 0, "client connections are gone")


async def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that is bound to come."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.01)
    assert holds(), what


@asynccontextmanager
async def running(
    is_banned: IsBanned = lambda address: False,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Run a front for `app.localhost` and what else the gate is given."""
    chosen = WebSettings(**{"listen": "127.0.0.1:0", **settings})
    sockets = await bind(chosen)
    port = int(sockets[0].getsockname()[1])
    gate, road = Gatekeeper(), TcpRoad(chosen.buffer_bytes)
    pool = Pool(road, chosen)
    front = Front(
        chosen, Origins(chosen.scheme, chosen.apps_domain, chosen.port(port)), gate, DirectOpener(pool)
    )
    listener = Listener(chosen, front, is_banned)
    front.start()
    listener.start(sockets)
    one = Running(front, gate, pool, road, port)
    try:
        yield one
    finally:
        await listener.close()
        await front.close(0)
        await one.close()
        await asyncio.sleep(0.01)  # what was aborted is closed in the next turn of the loop


@dataclass
class Reply:
    """One answer, read as RFC 9112 says."""

    status: int
    head: bytes
    body: bytes

    def all(self, name: str) -> list[str]:
        found = re.findall(rb"(?im)^" + name.encode() + rb":[ \t]*(.*?)\r$", self.head)
        return [value.decode("latin-1") for value in found]

    def one(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, (name, values)
        return values[0]


class Talk:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def reply(self, *, of_head: bool = False) -> Reply:
        """Read one whole answer."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ")[1])
            reply = Reply(status, head, b"")
            if of_head or status < 200 or status in (204, 304):
                return reply
            if reply.all("transfer-encoding"):
                reply.body = await read_chunked(self.reader)
            elif lengths := reply.all("content-length"):
                reply.body = await self.reader.readexactly(int(lengths[0]))
            else:
                reply.body = await self.reader.read()
            return reply

    async def ask(self, data: bytes) -> Reply:
        self.send(data)
        return await self.reply(of_head=data.startswith(b"HEAD "))

    async def rest(self) -> bytes:
        """Read to the end, whichever way it comes."""
        async with asyncio.timeout(DEADLINE_S):
            with suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Break the connection off with a RST."""
        self.writer.transport.abort()


async def read_chunked(reader: asyncio.StreamReader) -> bytes:
    """Read a chunked body; trailers come behind it, after a NUL."""
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    trailers = b""
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        trailers += line
    return body + (b"\0" + trailers if trailers else b"")


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request as an app that believes every head; gives head and body, both raw."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(
        (name.strip().lower(), value.strip())
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:-2])
    )
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            body += line
            if (size := int(line, 16)) == 0:
                break
            body += await reader.readexactly(size + 2)
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            body += line
        return head, body + b"\r\n"
    return head, await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def raw_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with its own raw bytes."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head, body = await read_request(reader)
            raw = head + body
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(raw))
            if not head.startswith(b"HEAD "):
                writer.write(raw)
            await writer.drain()
    writer.close()


def says(answer: bytes, *, keeps: bool = False) -> Handler:
    """Make an app that answers every request with these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await read_request(reader)
                writer.write(answer)
                await writer.drain()
                if not keeps:
                    break
        writer.close()

    return handle
