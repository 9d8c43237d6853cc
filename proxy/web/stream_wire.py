"""A stream that tasks read and write, as the transport that the front calls; it knows no gateway."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from proxy.access.relay import cut
from proxy.aio import TaskOwner
from proxy.errors.upstream import UpstreamError
from proxy.web.road import Buffer, Receiver


class Stream(Protocol):
    """A dialled connection, as the upstream gives it."""

    async def read(self) -> memoryview:
        """Wait for bytes; empty at their end."""

    async def write(self, pieces: Sequence[Buffer], size: int) -> None:
        """Write `pieces` of together `size` bytes."""

    async def write_eof(self) -> None:
        """End this direction."""

    async def abandon(self) -> None:
        """Let the app's side close once everything is delivered; called after `write_eof`."""

    async def delivered(self) -> None:
        """Wait until the last byte of our direction is delivered; called after `read` returned the end."""


class StreamWire:
    """The wire of one stream."""

    def __init__(
        self,
        stream: Stream,
        receiver: Receiver,
        frame_bytes: int,
        buffer_bytes: int,
        cancel: Callable[[], object],
    ) -> None:
        self._stream = stream
        self._receiver = receiver
        self._frame_bytes = frame_bytes
        self._high, self._low = buffer_bytes, buffer_bytes // 4
        self._cancel = cancel
        self._pieces: deque[Buffer] = deque()
        self._size = 0
        self._has_eof = False
        self._is_full = False
        self._waiting = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        self.is_over = False
        self.sent = 0
        """Bytes that were handed to the stream."""
        self.received = 0

    # ------------------------------------------------------------------------- as a transport

    def write(self, data: Buffer) -> None:
        """See Wire."""
        self.writelines((data,))

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        """See Wire."""
        if self.is_over or self._has_eof:
            return
        for piece in pieces:
            self._pieces.append(piece)
            self._size += len(piece)
        self._waiting.set()
        if self._size > self._high and not self._is_full:
            self._is_full = True
            self._receiver.pause_writing()

    def write_eof(self) -> None:
        """See Wire."""
        self._has_eof = True
        self._waiting.set()

    def pause_reading(self) -> None:
        """See Wire."""
        self._reading.clear()

    def resume_reading(self) -> None:
        """See Wire."""
        self._reading.set()

    def abort(self) -> None:
        """See Wire."""
        if not self.is_over:
            self.is_over = True
            self._cancel()

    # -------------------------------------------------------------------------------- its tasks

    async def carry(self) -> None:
        """Move bytes until both directions have ended. Raises: UpstreamError when one breaks."""
        tasks = TaskOwner("web-wire")
        up = tasks.spawn(self._send_all(), name="up")
        try:
            while len(data := await self._stream.read()):
                self.received += len(data)
                self._receiver.data_received(data)
                if not self._reading.is_set():
                    await self._reading.wait()
            self._receiver.eof_received()
            await asyncio.wait([up])
            await self._stream.abandon()
            await self._stream.delivered()
        finally:
            tasks.cancel()

    async def _send_all(self) -> None:
        try:
            while True:
                while self._pieces:
                    pieces, size = cut(self._pieces, self._frame_bytes)
                    self._size -= size
                    await self._stream.write(pieces, size)
                    self.sent += size
                    self._relieve()
                if self._has_eof:
                    await self._stream.write_eof()
                    return
                self._waiting.clear()
                await self._waiting.wait()
        except UpstreamError:
            return  # the reader of the same stream sees the same end, and tells it

    def _relieve(self) -> None:
        if self._is_full and self._size <= self._low:
            self._is_full = False
            self._receiver.resume_writing()
