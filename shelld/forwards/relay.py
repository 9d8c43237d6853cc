"""One byte connection of the workspace, carried to the proxy and back.

Each direction ends by itself. The connection ends when both have ended, or when the peer broke it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from shelld import aio
from shelld.errors import ProtocolError
from shelld.launch.fds import Sink, Source
from shelld.programs.program import Eof

Received = memoryview | Eof


class ConnectionOutput(Protocol):
    """The receiver of the peer's bytes; each call returns when there is room for more."""

    async def data(self, data: bytes) -> None:
        """Send 1 to MAX_FRAME_BYTES."""

    async def eof(self) -> None:
        """Report that the peer will send no more."""

    async def reset(self, reason: str) -> None:
        """Report that the peer broke the connection."""


async def relay(
    connection: socket.socket, receive: Callable[[], Awaitable[Received | None]], output: ConnectionOutput
) -> None:
    """Carry bytes both ways until both directions have ended; the caller closes the socket.

    `receive` returns None when the client's stream has ended: the client reads no more, and the connection
    ends when it has received everything. For a client that has not sent Eof there is no time limit, as sshd
    keeps a channel until its client has read it: gRPC does not report what the client has read, and a call
    that ends during a write of the client loses the frames that it has not read yet. gRPC's keepalive finds a
    client that vanished, and ends the call.

    Raises: ProtocolError for data after Eof; the exceptions of `receive` and `output`.
    """
    upwards = _Upwards(connection, receive)
    up = aio.spawn(upwards.run(), name="connection up")
    down = aio.spawn(_finish(connection, upwards, output), name="connection down")
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            down.result()
            await upwards.silent.wait()
            await asyncio.wait({up}, timeout=aio.LINGER_S)
        if up.done():
            up.result()
    finally:
        await aio.end([up, down])


class _Upwards:
    """The client's bytes to the peer."""

    def __init__(self, connection: socket.socket, receive: Callable[[], Awaitable[Received | None]]) -> None:
        self._connection = connection
        self._receive = receive
        self.settled = asyncio.Event()
        """Set when the peer has received everything, or accepts no more."""
        self.taken = True
        """False once the peer accepted no more."""
        self.silent = asyncio.Event()
        """Set when the client has sent its last byte, or violated the protocol."""

    async def run(self) -> None:
        """Carry everything up to the client's Eof, and drop bytes that the peer does not accept.

        Raises: ProtocolError for a frame after Eof.
        """
        try:
            last = await self._carry()
        finally:
            self.silent.set()
        if last is not None and await self._receive() is not None:
            raise ProtocolError("a frame after eof")

    async def _carry(self) -> Eof | None:
        """Return the end of the client's bytes: its Eof, or None for the end of its stream."""
        sink = Sink(self._connection.fileno())
        while isinstance(item := await self._receive(), memoryview):
            if self.taken and not await sink.write(item):
                self.taken = False
                self.settled.set()
        if self.taken:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
        self.settled.set()
        return item


async def _finish(connection: socket.socket, upwards: _Upwards, output: ConnectionOutput) -> None:
    """Carry the peer's bytes and its end, and report a broken connection."""
    source = Source(connection.fileno())
    try:
        while data := await source.read():
            await output.data(data)
    except OSError as error:
        await output.reset(os.strerror(error.errno or 0))
        return
    await output.eof()
    await upwards.settled.wait()
    if not upwards.taken:
        await output.reset(os.strerror(errno.EPIPE))


def address_text(connection: socket.socket) -> str:
    """Return the local address: `host:port`, `[host]:port`, or a path ("" without one)."""
    address = connection.getsockname()
    if connection.family == socket.AF_UNIX:
        return str(address)
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
