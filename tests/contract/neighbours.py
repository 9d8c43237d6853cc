"""What stands beside our pages: a client of raw bytes, web servers of other parties, and an edge with TLS."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

_DEADLINE_S = 30


@dataclass(frozen=True)
class Answer:
    """What came back, byte for byte."""

    status: int
    fields: list[tuple[str, str]]
    text: str

    @property
    def location(self) -> str:
        return next((value for name, value in self.fields if name == "location"), "")

    @property
    def set_cookies(self) -> dict[str, str]:
        """The cookies that were given, by name, each with its attributes."""
        given = [value for name, value in self.fields if name == "set-cookie"]
        return {line.partition("=")[0]: line.partition("=")[2] for line in given}

    @property
    def hidden(self) -> dict[str, str]:
        """The hidden fields of a form."""
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', self.text))


def value_of(set_cookie: str) -> str:
    """Give a cookie's value without attributes."""
    return set_cookie.partition(";")[0]


def cookie(given: Mapping[str, str]) -> bytes:
    """Send cookies back as a browser does; those that were ended stay away."""
    kept = {name: value_of(line) for name, line in given.items()}
    return "; ".join(f"{name}={value}" for name, value in kept.items() if value.strip('"')).encode()


async def ask(
    url: str,
    cookies: bytes = b"",
    *,
    form: Mapping[str, str] | None = None,
    origin: str = "",
    host: str = "",
) -> Answer:
    """Send one request to loopback, with these very bytes as its Cookie field; a form makes it a POST."""
    parts = urlsplit(url)
    body = b"" if form is None else urlencode(form).encode()
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    head = f"{'GET' if form is None else 'POST'} {path} HTTP/1.1\r\nHost: {host or parts.netloc}\r\n"
    head += "Connection: close\r\n"
    if form is not None:
        head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        head += f"Origin: {origin or f'{parts.scheme}://{parts.netloc}'}\r\n"
    sent = head.encode() + (b"Cookie: " + cookies + b"\r\n" if cookies else b"") + b"\r\n" + body
    async with asyncio.timeout(_DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", parts.port)
        writer.write(sent)
        raw = await reader.read()
        writer.close()
        await writer.wait_closed()
    return _answer(raw)


def _answer(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Answer(int(first.split()[1]), fields, body.decode())


class Neighbour:
    """A web server of another party on this machine: plants cookies, and keeps what browsers send."""

    def __init__(self) -> None:
        self.plants: Sequence[bytes] = ()
        """`Set-Cookie` values of every answer."""
        self.heads: list[bytes] = []
        self.port = 0

    def saw(self, word: str) -> bool:
        return any(word.encode() in head for head in self.heads)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_DEADLINE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        planted = b"".join(b"Set-Cookie: " + line + b"\r\n" for line in self.plants)
        body = b"<!doctype html><title>a neighbour</title><p>welcome</p>"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: "
            + str(len(body)).encode()
            + b"\r\n"
            + planted
            + b"\r\n"
            + body
        )
        await writer.drain()


@asynccontextmanager
async def open_neighbour(context: ssl.SSLContext | None = None) -> AsyncIterator[Neighbour]:
    """Serve on a free port of loopback, with TLS when there is a context."""
    neighbour = Neighbour()
    async with _serving(neighbour.serve, context) as neighbour.port:
        yield neighbour


class Edge:
    """TLS in front of a page that speaks plain http, as a load balancer ends it."""

    def __init__(self) -> None:
        self.port = 0
        self.target = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer), return_exceptions=True)


@asynccontextmanager
async def open_edge(context: ssl.SSLContext) -> AsyncIterator[Edge]:
    """Serve on a free port of loopback; `target` is set when the page is there."""
    edge = Edge()
    async with _serving(edge.carry, context) as edge.port:
        yield edge


@asynccontextmanager
async def _serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None,
) -> AsyncIterator[int]:
    """Serve connections while inside; gives the port. None of them is left when it ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (OSError, EOFError):
            pass  # a browser hangs up when it likes
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
