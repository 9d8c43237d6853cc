"""Screens of a recording over time, in compressed parts that a page can show from any moment on.

A part begins with a whole screen and holds the changes that follow, so that a seek decodes one part only.
Parts are bounded in size, so a recording of any length needs bounded memory.
"""

import base64
import gzip
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from proxy.recording.lines import MARKER, OUTPUT, RESIZE, STDERR, Line, read_header, read_line
from proxy.recording.replay import parse_size, size_of
from proxy.recording.screen import Screen, Terminal

FRAME_S = 1 / 30
"""Output within this time is one frame: the eye sees no difference, and floods stay small."""
PART_BYTES = 256 * 1024
"""Size of a part's frames as JSON at which the part ends; its first screen comes on top."""
_LEVEL = 6


class Marker(NamedTuple):
    """A note in the recording, such as a gap."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a recording: base64 of gzip of JSON `{"styles": [...], "frames": [...]}`.

    A frame is `[seconds, cursor, rows]` or `[seconds, cursor, rows, [columns, rows]]`; the latter clears the
    screen. `cursor` is `[column, row]` or 0; `rows` maps row numbers to lists of runs `[style, text]`, or
    `[style, text, cells]` when a character does not take one cell each. A style is an index of `styles`.
    """

    begins_s: float
    data: str


class _PartWriter:
    """A collector of the frames of one part."""

    def __init__(self, at_s: float, screen: Screen) -> None:
        self.begins_s = at_s
        self._styles: dict[str, int] = {}
        self._frames: list[bytes] = []
        self.size_bytes = 0
        self._shown: Screen | None = None
        self.add(at_s, screen)

    def add(self, at_s: float, screen: Screen) -> None:
        """Append the changes since the last frame."""
        before = self._shown
        is_new = before is None or (before.columns, len(before.rows)) != (screen.columns, len(screen.rows))
        changed = {
            str(y): [self._run(*run) for run in row]
            for y, row in enumerate(screen.rows)
            if (row if before is None or is_new else row != before.rows[y])
        }
        if not changed and not is_new and before is not None and screen.cursor == before.cursor:
            return
        frame: list[Any] = [math.floor(at_s * 1_000) / 1_000, screen.cursor or 0, changed]
        if is_new:
            frame.append((screen.columns, len(screen.rows)))
        self._shown = screen
        self._frames.append(orjson.dumps(frame))
        self.size_bytes += len(self._frames[-1])

    def finish(self) -> Part:
        """Return the part as it goes into the page."""
        styles = orjson.dumps(list(self._styles))
        content = b'{"styles":' + styles + b',"frames":[' + b",".join(self._frames) + b"]}"
        packed = gzip.compress(content, _LEVEL, mtime=0)
        return Part(self.begins_s, base64.b64encode(packed).decode())

    def _run(self, style: str, text: str, cells: int) -> list[object]:
        number = self._styles.setdefault(style, len(self._styles))
        is_plain = cells == len(text) and text.isascii()
        return [number, text] if is_plain else [number, text, cells]


class _FrameWriter:
    """A converter of a recording's events into parts."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._part = _PartWriter(0.0, terminal.screen())
        self._frame_s: float | None = None
        """Time of the frame that is not written yet."""
        self.last_s = 0.0

    def event(self, at_s: float) -> Iterator[Part]:
        """Prepare for an event at `at_s`; yield a part that is full by then."""
        at_s = self.last_s = max(at_s, self.last_s)
        if self._frame_s is not None and at_s >= self._frame_s + FRAME_S:
            yield from self.flush()
        if self._frame_s is None:
            self._frame_s = at_s

    def flush(self) -> Iterator[Part]:
        """Write the pending frame."""
        if self._frame_s is None:
            return
        at_s, self._frame_s = self._frame_s, None
        screen = self._terminal.screen()
        if self._part.size_bytes > PART_BYTES:
            yield self._part.finish()
            self._part = _PartWriter(at_s, screen)
        else:
            self._part.add(at_s, screen)

    def finish(self) -> Iterator[Part]:
        """Yield the last part."""
        yield from self.flush()
        yield self._part.finish()


class Ending(NamedTuple):
    """The totals that are known after all parts."""

    duration_s: float
    markers: tuple[Marker, ...]


MAX_MARKERS = 1_000
"""Markers in a page; the page says how many more there are."""


async def parts(lines: AsyncIterator[bytes], *, has_terminal: bool) -> AsyncIterator[Part | Ending]:
    """Yield the parts of an asciicast in order, then the Ending; unreadable lines are skipped.

    For a program without a terminal, line ends get the carriage return that a terminal would have added.
    """
    markers: list[Marker] = []
    left_out = 0
    with Terminal(80, 24) as terminal:
        writer: _FrameWriter | None = None
        async for raw in lines:
            if (line := read_line(raw)) is None:
                if writer is None and (size := size_of(read_header(raw))) is not None:
                    terminal.resize(*size)
                continue
            writer = writer or _FrameWriter(terminal)
            if line.code == MARKER:
                writer.last_s = max(writer.last_s, line.at_s)
                if len(markers) < MAX_MARKERS:
                    markers.append(Marker(writer.last_s, str(line.data)))
                else:
                    left_out += 1
            elif _is_shown(line):
                for part in writer.event(line.at_s):
                    yield part
                _show(terminal, line, has_terminal=has_terminal)
        writer = writer or _FrameWriter(terminal)
        for part in writer.finish():
            yield part
        if left_out:
            markers.append(Marker(writer.last_s, f"{left_out} more notes are left out"))
        yield Ending(writer.last_s, tuple(markers))


def _is_shown(line: Line) -> bool:
    return line.code in (OUTPUT, STDERR) or (line.code == RESIZE and parse_size(str(line.data)) is not None)


def _show(terminal: Terminal, line: Line, *, has_terminal: bool) -> None:
    text = str(line.data)
    if line.code == RESIZE:
        if (size := parse_size(text)) is not None:
            terminal.resize(*size)
    else:
        terminal.feed(text if has_terminal else text.replace("\n", "\r\n"))
