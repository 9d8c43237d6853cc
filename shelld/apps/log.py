"""The log of an app: its output and shelld's own sentences, in a bounded file and in memory.

The file is in the account's home and opened as the account, since its user may put anything in its place.
Beyond MOST_BYTES the older half is dropped.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shelld.launch.fds import readable
from shelld.log import Log
from shelld.octets import text_of

_log = Log("shelld.apps.log")
_T = TypeVar("_T")
MOST_BYTES = 1024 * 1024
"""Largest file."""
KEPT_BYTES = 128 * 1024
"""Bytes in memory: the tail of states and of readers that follow."""
PER_SECOND_BYTES = 1024 * 1024
"""Bytes of output a second that are kept; an app that writes more is also read slower, so that it waits."""
_READ_BYTES = 64 * 1024
_FLOOD_PAUSE_S = 0.01
_LINE_BYTES = 500


class AppLog:
    """One log; a file descriptor of -1 keeps it in memory only."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd
        self._kept = bytearray()
        self._total = 0
        self._grown = asyncio.Event()
        self._second, self._in_second, self._left_out = 0, 0, 0
        # Own thread: a hung home must fill no pool that others share.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="app-log")

    async def carry(self, source: int) -> None:
        """Keep everything that a non-blocking descriptor delivers, up to its end."""
        while True:
            try:
                data = os.read(source, _READ_BYTES)
            except BlockingIOError:
                await readable(source)
                continue
            if not data:
                return
            await self._take(data)

    async def say(self, sentence: str) -> None:
        """Add a line of shelld's own."""
        start = b"" if not self._kept or self._kept.endswith(b"\n") else b"\n"
        at = time.strftime("%H:%M:%SZ", time.gmtime())
        await self._keep(start + f"[fairlead {at}] {sentence}\n".encode(errors="replace"))

    def tail(self, lines: int) -> tuple[str, ...]:
        """Return the last lines in memory, each at most 500 bytes, without control characters."""
        found = bytes(self._kept[-lines * _LINE_BYTES :]).split(b"\n")
        shown = [_line(raw) for raw in found if raw.strip()]
        return tuple(shown[-lines:])

    @property
    def total(self) -> int:
        """Return the number of bytes that were kept since this shelld started."""
        return self._total

    async def read(self, lines: int) -> bytes:
        """Return the last lines of the file, or of memory without one; 0: all of them."""
        whole = bytes(self._kept) if self._fd < 0 else await self._in_thread(_whole, self._fd)
        if lines == 0:
            return whole
        parts = whole.splitlines(keepends=True)
        return b"".join(parts[-lines:])

    async def follow(self, at: int) -> AsyncIterator[bytes]:
        """Yield the bytes after the first `at` that are kept; a slow reader misses some. Endless."""
        while True:
            await self.grown(at)
            first = max(0, len(self._kept) - (self._total - at))
            at = self._total
            yield bytes(self._kept[first:])

    async def grown(self, at: int) -> None:
        """Wait until more than the first `at` bytes were kept."""
        while at >= self._total:
            self._grown.clear()
            await self._grown.wait()

    async def _take(self, data: bytes) -> None:
        """Keep output within PER_SECOND_BYTES."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
            await self._report_left_out()
        self._in_second += len(data)
        if self._in_second > PER_SECOND_BYTES:
            self._left_out += len(data)
            await asyncio.sleep(_FLOOD_PAUSE_S)
            return
        await self._keep(data)

    async def _report_left_out(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            limit = f"more than {PER_SECOND_BYTES} bytes a second"
            await self.say(f"{count} bytes left out: the app writes {limit}")

    async def _keep(self, data: bytes) -> None:
        self._kept += data
        del self._kept[:-KEPT_BYTES]
        self._total += len(data)
        self._grown.set()
        if self._fd >= 0:
            try:
                await self._in_thread(_append, self._fd, data)
            except OSError as error:
                _log.info("log of an app not written", reason=error.strerror)

    async def _in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, function, *arguments)

    async def close(self) -> None:
        """Report the bytes left out, and release the file."""
        await self._report_left_out()
        self._writer.shutdown(wait=False)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _whole(fd: int) -> bytes:
    return os.pread(fd, 2 * MOST_BYTES, 0)


def _append(fd: int, data: bytes) -> None:
    """Append to a file opened with O_APPEND; drop its older half first where it would grow too large."""
    size = os.fstat(fd).st_size
    if size + len(data) > MOST_BYTES:
        kept = os.pread(fd, MOST_BYTES // 2, max(0, size - MOST_BYTES // 2))
        os.ftruncate(fd, 0)
        _write(fd, kept[kept.find(b"\n") + 1 :])
    _write(fd, data[-MOST_BYTES // 2 :])


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _line(raw: bytes) -> str:
    """Return a line of output as a terminal leaves it: the text after its last carriage return."""
    text = text_of(raw.rstrip(b"\r").rpartition(b"\r")[2])[:_LINE_BYTES]
    return "".join(one if one.isprintable() else " " for one in text)
