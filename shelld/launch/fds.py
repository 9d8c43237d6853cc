"""Reads and writes of non-blocking descriptors: pipes, pseudo-terminals and sockets.

The hot path. A read takes all waiting bytes, up to one frame. A write goes directly to the kernel and waits
for room only when there is none. Nothing is buffered here, so a slow side stops the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios

MAX_FRAME_BYTES = 1024 * 1024
_FIRST_READ_BYTES = 64 * 1024
_BULK_BYTES = 32 * 1024
_TURNS_PER_FRAME = 12
_FULL_ENOUGH_BYTES = 768 * 1024
_INT = struct.Struct("i")
_TTY_BATCH_BYTES = 256 * 1024
_TTY_READ_BYTES = 16 * 1024
_BULK_TTY_BYTES = 2048
_ENDINGS = frozenset({errno.EIO, errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN, errno.ESHUTDOWN})


def keep_from_children() -> None:
    """Close to programs the descriptors above 2 that shelld inherited, such as a lock of its parent."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
            if int(name) > 2:
                os.set_inheritable(int(name), False)


async def readable(fd: int, ready: asyncio.Future[None] | None = None) -> None:
    """Wait until `fd` has something to read, an end included. One waiter a descriptor.

    A caller that passes `ready` may end the wait by setting its result.
    """
    loop = asyncio.get_running_loop()
    ready = ready or loop.create_future()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Wait until `fd` accepts bytes or is broken. One waiter a descriptor."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def grow_pipe(fd: int) -> None:
    """Enlarge a pipe to a whole frame, if the kernel permits it.

    Call it only for a pipe that was found full: each account has a quota of pipe memory (pipe(7),
    pipe-user-pages-soft), and memory of idle pipes would be missing for its user's pipelines.
    """
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, MAX_FRAME_BYTES)


def _waiting(fd: int) -> int:
    """Return the number of bytes that a pipe or socket holds for its reader."""
    return _INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, bytes(_INT.size)))[0]  # type: ignore[no-any-return]


class Source:
    """A reader of a pipe or socket, 1 to MAX_FRAME_BYTES at a time."""

    def __init__(self, fd: int, *, pipe: bool = False) -> None:
        """Take a non-blocking descriptor, which the caller closes."""
        self._fd = fd
        self._size = _FIRST_READ_BYTES
        self._pipe = pipe
        self._bulk = False
        self._abandoned = False
        self._waiting: asyncio.Future[None] | None = None

    def abandon(self) -> None:
        """Make this and every later read return the end, even if bytes wait; `fd` stays open."""
        self._abandoned = True
        if self._waiting is not None:
            _settle(self._waiting)

    async def read(self) -> bytes:
        """Return the waiting bytes, or wait for the first one; b"" is the end.

        Raises: ConnectionResetError when the peer of a socket broke the connection.
        """
        while not self._abandoned:
            if self._bulk:
                await self._gather()
            try:
                data = os.read(self._fd, self._size)
            except BlockingIOError:
                self._waiting = asyncio.get_running_loop().create_future()
                await readable(self._fd, self._waiting)
                continue
            self._bulk = len(data) >= _BULK_BYTES
            if len(data) == self._size:
                self._swell()
            elif len(data) * 8 < self._size > _FIRST_READ_BYTES:
                self._size //= 2  # a large buffer costs page faults that a small answer can avoid
            return data
        return b""

    async def _gather(self) -> None:
        """Wait for a fast writer to fill the frame, while each turn of the loop brings more than it costs.

        The cost of a frame hardly depends on its size: it is about a dozen turns of the loop. Without this, a
        program that writes 8 KiB at a time would get a frame for each write. Other work continues during
        these turns, and bytes of a writer that pauses are returned at once.
        """
        waiting = _waiting(self._fd)
        while 0 < waiting < _FULL_ENOUGH_BYTES:
            await asyncio.sleep(0)
            before, waiting = waiting, _waiting(self._fd)
            if (waiting - before) * _TURNS_PER_FRAME < waiting:
                return

    def _swell(self) -> None:
        if self._pipe:
            grow_pipe(self._fd)
            self._pipe = False
        self._size = min(self._size * 2, MAX_FRAME_BYTES)


class TtySource:
    """A reader of a pseudo-terminal's master, whose kernel buffer returns 4 KiB at a time."""

    def __init__(self, fd: int) -> None:
        """Take a non-blocking descriptor, which the caller closes."""
        self._fd = fd

    async def read(self) -> bytes:
        """Return the waiting bytes, joined; b"" once no process has the terminal open any more.

        A short first read is an echo or a prompt and is returned at once.
        """
        while True:
            data = self._once()
            if data is None:
                await readable(self._fd)
                continue
            if len(data) < _BULK_TTY_BYTES:
                return data
            return self._more(data)

    def _more(self, first: bytes) -> bytes:
        pieces, total = [first], len(first)
        while total < _TTY_BATCH_BYTES and (piece := self._once()):
            pieces.append(piece)
            total += len(piece)
        return b"".join(pieces)

    def _once(self) -> bytes | None:
        """Read once; None when nothing waits."""
        try:
            return os.read(self._fd, _TTY_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:  # Linux returns this when the last slave descriptor is closed
                return b""
            raise


class Sink:
    """A writer of a pipe, pseudo-terminal or socket."""

    def __init__(self, fd: int, *, pipe: bool = False) -> None:
        """Take a non-blocking descriptor, which the caller closes."""
        self._fd = fd
        self._pipe = pipe

    async def write(self, data: memoryview) -> bool:
        """Write all of `data`, waiting for room; return False when it can never be read."""
        while data:
            written = self.offer(data)
            if written is None:
                return False
            data = data[written:]
            if not written:
                await writable(self._fd)
        return True

    def offer(self, data: memoryview) -> int | None:
        """Write as much as there is room for, 0 bytes or more; None when it can never be read."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            if self._pipe:
                grow_pipe(self._fd)
                self._pipe = False
            return 0
        except OSError as error:
            if error.errno in _ENDINGS:
                return None
            raise
