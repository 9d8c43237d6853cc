"""Following of a log file, as `tail` does: present lines, then new ones."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

_POLL_S = 0.25


async def lines_of(file: Path, *, follow: bool, tail: int) -> AsyncIterator[str]:
    """Yield the last `tail` lines without their ends; with `follow` go on until cancelled.

    When the file is replaced, the new one of its name is followed. A missing file has no lines yet.
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
    """Read the last `most` lines from `position` on, and return them with the position of their end.

    A shorter file is read anew.
    """
    try:
        with file.open("rb") as stream:
            stream.seek(position if os.fstat(stream.fileno()).st_size >= position else 0)
            return deque(stream, maxlen=most), stream.tell()
    except FileNotFoundError:
        return deque(), 0
