"""The relay of bytes between one client channel and one upstream stream: bounded, paced and in order.

`Inbound` holds what the client sent, `Outbound` paces what is sent to the client. The relay functions move
bytes between these and a stream, and know no SSH requests.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from proxy.aio import TaskOwner
from proxy.errors.upstream import UpstreamError
from proxy.model import Exit
from proxy.upstream.frame_codec import Buffer
from proxy.upstream.frames import Notice, Output, StdoutEof
from proxy.upstream.streams import Connection

STDERR = 1
"""Data type of a program's second output (RFC 4254 §5.2); normal data has none."""

_SMALL_BYTES = 1_024
_JOINED_BYTES = 32 * 1024


def cut(pieces: deque[Buffer], limit: int) -> tuple[list[Buffer], int]:
    """Take pieces of at most `limit` bytes together, and their size; the last may be parted."""
    taken: list[Buffer] = []
    size = 0
    while pieces and size < limit:
        piece = pieces.popleft()
        if size + len(piece) > limit:
            view = memoryview(piece)
            pieces.appendleft(view[limit - size :])
            piece = view[: limit - size]
        taken.append(piece)
        size += len(piece)
    return taken, size


class Channel(Protocol):
    """The part of a client channel that the relay uses."""

    def write(self, data: Buffer, datatype: int | None = None) -> None:
        """Send payload of a data type; None is the channel's normal data."""

    def write_eof(self) -> None:
        """Send EOF."""

    def pause_reading(self) -> None:
        """Stop reading from the client."""

    def resume_reading(self) -> None:
        """Continue reading."""

    def is_closing(self) -> bool:
        """Return whether the channel is closed or closing."""

    @property
    def unsent_bytes(self) -> int:
        """Return the bytes that were written and did not go out."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the sizes at which writing is paused and resumed."""

    def drop_unsent(self) -> None:
        """Drop normal data that did not go out."""


class Sink(Protocol):
    """A destination for a program's output and for our own text."""

    async def write(self, data: Buffer, datatype: int | None = None) -> None:
        """Send payload, then wait until more may follow."""

    async def say(self, text: bytes, datatype: int | None = None) -> None:
        """Send our own text, which is not counted as payload."""


class ProgramStream(Protocol):
    """The part of a program that the relay uses."""

    async def read(self) -> Output | StdoutEof | Notice | Exit:
        """Wait for the next output or the exit."""

    async def room(self, limit_bytes: int) -> int:
        """Wait until stdin takes bytes; return their number, at most `limit_bytes`."""

    async def write(self, pieces: Sequence[Buffer], size: int) -> None:
        """Write `pieces` of together `size` bytes to stdin."""

    async def write_eof(self) -> None:
        """Close stdin."""


class Gate:
    """A gate that is open or shut; waiting tasks go on when it opens."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._event.set()

    @property
    def is_open(self) -> bool:
        """Return whether the gate is open."""
        return self._event.is_set()

    def shut(self) -> None:
        """Shut the gate."""
        self._event.clear()

    def open(self) -> None:
        """Open the gate."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until the gate is open."""
        await self._event.wait()


class Inbound:
    """A buffer of bytes that the client sent.

    It holds up to `limit_bytes` and one packet, then pauses the channel, whose window (RFC 4254 §5.2) stops
    the client.
    """

    __slots__ = (
        "_available",
        "_channel",
        "_eof",
        "_left",
        "_limit",
        "_paused",
        "_pieces",
        "_size",
        "received",
    )

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._pieces: deque[Buffer] = deque()
        self._size = 0
        self.received = 0
        """Total of bytes from the client."""
        self._eof = False
        self._paused = False
        self._available = asyncio.Event()
        self._left = asyncio.Event()
        self._channel: Channel | None = None

    def attach(self, channel: Channel) -> None:
        """Set the channel that is paused when the buffer is full."""
        self._channel = channel

    def feed(self, data: Buffer) -> None:
        """Add bytes without copying; small pieces are joined, to bound their number."""
        size = len(data)
        last = self._pieces[-1] if self._pieces else None
        if size >= _SMALL_BYTES:
            self._pieces.append(data)
        elif isinstance(last, bytearray) and len(last) < _JOINED_BYTES:
            last += data
        else:
            self._pieces.append(bytearray(data))
        self._size += size
        self.received += size
        self._available.set()
        if self._size >= self._limit and not self._paused and self._channel is not None:
            self._paused = True
            self._channel.pause_reading()

    def feed_eof(self) -> None:
        """Record that the client sends no more."""
        self._eof = True
        self._available.set()

    def leave(self) -> None:
        """Record that the client closed the channel: its bytes are still delivered, without any answer."""
        self._channel = None
        self._left.set()
        self.feed_eof()

    async def left(self) -> None:
        """Wait until the client has closed the channel."""
        await self._left.wait()

    def peek(self) -> bytes:
        """Return everything held, without taking it."""
        return b"".join(self._pieces)

    def discard(self) -> None:
        """Drop everything held."""
        self._pieces.clear()
        self._size = 0
        self._after_take()

    async def wait(self) -> None:
        """Wait until there are bytes to take, or the end."""
        await self._available.wait()

    def forget_wakeup(self) -> None:
        """Let `wait` wait for the next arrival, in spite of the bytes held already."""
        self._available.clear()

    async def take(self, limit_bytes: int) -> tuple[Sequence[Buffer], int]:
        """Wait for bytes and take at most `limit_bytes` of them.

        Return the pieces and their size; no pieces at the end.
        """
        while not self._pieces:
            if self._eof:
                return (), 0
            self._available.clear()
            await self._available.wait()
        pieces, size = self._cut(limit_bytes)
        self._size -= size
        self._after_take()
        return pieces, size

    def _cut(self, limit: int) -> tuple[Sequence[Buffer], int]:
        if self._size <= limit:
            pieces, self._pieces = self._pieces, deque()
            return pieces, self._size
        return cut(self._pieces, limit)

    def _after_take(self) -> None:
        if self._paused and self._size < self._limit // 2 and self._channel is not None:
            self._paused = False
            self._channel.resume_reading()


class Outbound:
    """The output to the client, paced by the client's window and its TCP connection."""

    __slots__ = ("_channel", "_connection", "_is_unread", "_written", "gate")

    def __init__(self, connection: Gate) -> None:
        self.gate = Gate()
        """Shut while the channel's own send buffer is full."""
        self._connection = connection
        self._channel: Channel | None = None
        self._written = 0
        self._is_unread = False

    @property
    def sent(self) -> int:
        """Payload bytes that went to the client, without those that its window keeps back."""
        return max(0, self._written - self._channel.unsent_bytes) if self._channel is not None else 0

    def attach(self, channel: Channel) -> None:
        """Set the channel to write to."""
        self._channel = channel

    async def write(self, data: Buffer, datatype: int | None = None) -> None:
        """Send payload, then wait until more may follow. A closed channel drops it."""
        channel = self._channel
        if channel is None or channel.is_closing() or (self._is_unread and datatype is None):
            return
        channel.write(data, datatype)
        self._written += len(data)
        if not (self.gate.is_open and self._connection.is_open):
            await self._ready()

    async def say(self, text: bytes, datatype: int | None = None) -> None:
        """Send our own text, which is not payload, as `write` does."""
        channel = self._channel
        if channel is not None and not channel.is_closing():
            channel.write(text, datatype)
            await self._ready()

    async def _ready(self) -> None:
        while not (self.gate.is_open and self._connection.is_open):
            await self.gate.wait()
            await self._connection.wait()

    async def flush(self) -> None:
        """Wait until everything written has gone into the client's window, or the channel is closed.

        asyncssh sends requests before data that waits for the window, and the exit-status is a request.
        """
        if self._channel is not None and not self._channel.is_closing():
            self._channel.set_write_buffer_limits(0)
            await self.gate.wait()

    def abandon_stdout(self) -> None:
        """Drop stdout from now on, its unsent bytes included; stderr goes on."""
        self._is_unread = True
        if self._channel is not None and not self._channel.is_closing():
            self._channel.drop_unsent()

    def write_eof(self) -> None:
        """Send EOF after all written bytes; the other direction goes on."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()


class ChannelTraffic:
    """The bytes that a channel has carried, counted by its buffers."""

    __slots__ = ("_inbound", "_outbound")

    def __init__(self, inbound: Inbound, outbound: Outbound) -> None:
        self._inbound = inbound
        self._outbound = outbound

    @property
    def from_client(self) -> int:
        """Payload bytes from the client."""
        return self._inbound.received

    @property
    def to_client(self) -> int:
        """Payload bytes to the client."""
        return self._outbound.sent


async def relay_program(
    program: ProgramStream,
    inbound: Inbound,
    outbound: Sink,
    frame_bytes: int,
    warn: Callable[[str], None],
) -> Exit:
    """Carry one program's bytes until it ends.

    `warn` gets texts of the workspace for the user. stdin goes up, stdout and stderr go down; order holds
    within each direction. The call returns after the last output was given to the channel, so that
    exit-status can follow it.

    Raises: UpstreamError when the link breaks before an exit.
    Cancelled: nothing is held back; the caller cancels the program.
    """
    tasks = TaskOwner("program")
    feeding = tasks.spawn(_feed_program(program, inbound, frame_bytes), name="stdin")
    try:
        while True:
            match await program.read():
                case Output(data, is_stderr):
                    await outbound.write(data, STDERR if is_stderr else None)
                case StdoutEof():
                    # RFC 4254 has no EOF of stdout alone: extended data may follow, so nothing is sent.
                    continue
                case Notice(text):
                    warn(text)
                case end:
                    return end
    finally:
        feeding.cancel()


async def _feed_program(program: ProgramStream, inbound: Inbound, frame_bytes: int) -> None:
    try:
        await _feed(program, inbound, frame_bytes)
    except UpstreamError:
        return  # the reader of the same stream gets the same error, and raises it


async def relay_connection(
    connection: Connection, inbound: Inbound, outbound: Outbound, frame_bytes: int
) -> None:
    """Carry one connection's bytes both ways until both directions have ended.

    A client that closes the channel has ended both, and its bytes are delivered first: OpenSSH closes right
    after its last bytes. The call returns when the workspace has taken everything.

    Raises: UpstreamError when the peer or the link breaks the connection.
    """
    tasks = TaskOwner("forward")
    up = tasks.spawn(_feed(connection, inbound, frame_bytes), name="up")
    tasks.spawn(_follow(connection, inbound, up), name="left")
    try:
        while len(data := await connection.read()):
            await outbound.write(data)
        outbound.write_eof()
        tasks.spawn(_end_behind(connection, up), name="end")
        await connection.delivered()
    finally:
        tasks.cancel()


async def _follow(connection: Connection, inbound: Inbound, up: asyncio.Task[None]) -> None:
    await inbound.left()
    await _end_behind(connection, up)


async def _end_behind(connection: Connection, up: asyncio.Task[None]) -> None:
    """End the connection after the last bytes of a client that closed its channel."""
    await asyncio.wait([up])
    await connection.abandon()


async def _feed(stream: ProgramStream | Connection, inbound: Inbound, frame_bytes: int) -> None:
    while True:
        pieces, size = await inbound.take(await stream.room(frame_bytes))
        if not size:
            break
        await stream.write(pieces, size)
    await stream.write_eof()
