"""Following a log file, as `tail` does: lines that are there, then those to come."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

_POLL_S = 0.25


async def lines_of(file: Path, *, follow: bool, tail: int) -> AsyncIterator[str]:
    """Give the last `tail` lines without their ends; with `follow` go on until cancelled.

    A file that is put aside is followed by the new one of its name. One that is not there has no lines yet.
    """
    lines, position = _read(file, 0, tail)
    while True:
        for line in lines:
            yield line.decode(errors="replace").rstrip("\n")
        if not follow:
            return
        await asyncio.sleep(_POLL_S)
        lines, position = _read(file, position, None)


def _read(file: Path, position: int, most: int | None) -> tuple[deque[bytes], int]:
    """Read the last `most` lines from `position` on, and say where they end; a shorter file begins anew."""
    try:
        with file.open("rb") as stream:
            stream.seek(position if os.fstat(stream.fileno()).st_size >= position else 0)
            return deque(stream, maxlen=most), stream.tell()
    except FileNotFoundError:
        return deque(), 0
