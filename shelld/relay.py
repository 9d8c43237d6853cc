"""One byte connection of the workspace, carried to the proxy and back.

Each direction ends by itself. The connection is over when both have ended, or when the peer broke it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from shelld import aio
from shelld.errors import ProtocolError
from shelld.fds import Sink, Source
from shelld.program import Eof

Received = memoryview | Eof


class ConnectionOutput(Protocol):
    """Where the peer's bytes go; each call returns when there is room for more."""

    async def data(self, data: bytes) -> None:
        """Carry 1 to MAX_FRAME_BYTES."""

    async def eof(self) -> None:
        """Say that the peer will send no more."""

    async def reset(self, reason: str) -> None:
        """Say that the peer broke the connection."""


async def relay(
    connection: socket.socket, receive: Callable[[], Awaitable[Received | None]], output: ConnectionOutput
) -> None:
    """Carry bytes both ways until both directions have ended; the caller closes the socket.

    `receive` returns None when the client's stream is over: nobody listens any more, and the connection
    is over once it has everything.

    Raises: ProtocolError for data after Eof; whatever `receive` and `output` raise.
    """
    down = aio.spawn(_down(connection, output), name="connection down")
    up = aio.spawn(_up(connection, receive), name="connection up")
    tasks: list[asyncio.Task[Any]] = [down, up]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if down.done() and not down.result():
            # A call that ends under a write loses frames that were not read yet, the Reset among them.
            tasks.append(dropping := aio.spawn(_drop(up, receive), name="connection broken"))
            await asyncio.wait({dropping}, timeout=aio.LINGER_S)
            return
        await up
        if not down.done():
            tasks.append(rest := aio.spawn(_rest(receive, ended=up.result()), name="connection rest"))
            await asyncio.wait({down, rest}, return_when=asyncio.FIRST_COMPLETED)
            if rest.done():
                rest.result()
                return
        await down
    finally:
        await aio.end(tasks)


async def _down(connection: socket.socket, output: ConnectionOutput) -> bool:
    """Carry the peer's bytes; False when it broke the connection."""
    source = Source(connection.fileno())
    try:
        while data := await source.read():
            await output.data(data)
    except OSError as error:
        await output.reset(os.strerror(error.errno or 0))
        return False
    await output.eof()
    return True


async def _up(connection: socket.socket, receive: Callable[[], Awaitable[Received | None]]) -> bool:
    """Carry the client's bytes up to its Eof; False, and early, when the peer takes no more."""
    sink = Sink(connection.fileno())
    while isinstance(item := await receive(), memoryview):
        if not await sink.write(item):
            return False
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    return True


async def _drop(up: asyncio.Task[bool], receive: Callable[[], Awaitable[Received | None]]) -> None:
    """Let `up` find out that nobody takes its bytes, then drop the rest until the client's stream is over."""
    await up
    while await receive() is not None:
        pass


async def _rest(receive: Callable[[], Awaitable[Received | None]], *, ended: bool) -> None:
    """Drop what the peer does not take, until the client's stream is over."""
    while (item := await receive()) is not None:
        if ended:
            raise ProtocolError("a frame after eof")
        ended = isinstance(item, Eof)


def address_text(connection: socket.socket) -> str:
    """Return the local address: `host:port`, `[host]:port`, or a path ("" without one)."""
    address = connection.getsockname()
    if connection.family == socket.AF_UNIX:
        return str(address)
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
