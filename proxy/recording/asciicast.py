"""A program's output as lines of an asciicast v2. Pure; only split characters are kept between calls.

A program without a terminal may send anything. Of its output, text is kept up to a limit; the rest is
counted, and a marker says how much there was.
"""

import codecs
from collections.abc import Iterator
from typing import Any, Final

from proxy.model import ProgramSpec, WindowSize
from proxy.recording.lines import INPUT, MARKER, OUTPUT, RESIZE, STDERR, event_line, header_line

FORMAT: Final = "asciicast-2"

PIECE_BYTES = 64 * 1024
"""Largest output of one event; invalid UTF-8 costs most, about a millisecond for this size."""


class _Utf8:
    """A decoder of UTF-8 in pieces, uncopied unless one ends inside a character."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def decode(self, data: bytes | bytearray | memoryview, *, final: bool = False) -> str:
        """Return the text so far; bytes that are not UTF-8 become U+FFFD."""
        if self._rest:
            data = self._rest + data
        text, used = codecs.utf_8_decode(data, "replace", final)
        self._rest = bytes(data[used:])
        return text


def header(spec: ProgramSpec, *, timestamp: int, title: str, shell: str, about: dict[str, Any]) -> bytes:
    """Write the header; `about` is ours, under a key that players pass over."""
    window = spec.pty.window if spec.pty is not None else WindowSize(80, 24)
    env = {"TERM": spec.pty.term if spec.pty is not None else "", "SHELL": shell}
    return header_line(
        {
            "version": 2,
            "width": window.columns or 80,
            "height": window.rows or 24,
            "timestamp": timestamp,
            "title": title,
            "env": {name: value for name, value in env.items() if value},
            "fairlead": about,
        }
    )


class AsciicastWriter:
    """A writer of the events of one recording, in the order of the calls.

    Times are seconds and never decrease.
    """

    def __init__(self, *, bulk_limit_bytes: int | None = None) -> None:
        """Create it; `bulk_limit_bytes` limits the text that is kept of a program without a terminal."""
        self._decoders = {code: _Utf8() for code in (OUTPUT, STDERR, INPUT)}
        self._bulk = None if bulk_limit_bytes is None else _TextFilter(bulk_limit_bytes)

    def output(
        self, at_s: float, data: bytes | bytearray | memoryview, *, is_stderr: bool
    ) -> Iterator[bytes]:
        """Yield the lines of output: none while a character is incomplete, several for much output."""
        code = STDERR if is_stderr else OUTPUT
        if self._bulk is not None:
            if not self._bulk.is_kept(data, code):
                return
            yield from self._counted(at_s)
        for start in range(0, len(data), PIECE_BYTES):
            yield from self._text(at_s, code, data[start : start + PIECE_BYTES])

    def input(self, at_s: float, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Yield the lines of input."""
        for start in range(0, len(data), PIECE_BYTES):
            yield from self._text(at_s, INPUT, data[start : start + PIECE_BYTES])

    def resize(self, at_s: float, window: WindowSize) -> bytes:
        """Return the line of the terminal's new size."""
        return event_line(at_s, RESIZE, f"{window.columns or 80}x{window.rows or 24}")

    def marker(self, at_s: float, text: str) -> bytes:
        """Return the line of a marker."""
        return event_line(at_s, MARKER, text)

    def break_off(self, at_s: float) -> Iterator[bytes]:
        """Yield the lines of held back text: at the end, and before a gap."""
        for code, decoder in self._decoders.items():
            if text := decoder.decode(b"", final=True):
                yield event_line(at_s, code, text)
        yield from self._counted(at_s)

    def _text(self, at_s: float, code: str, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        if text := self._decoders[code].decode(data):
            yield event_line(at_s, code, text)

    def _counted(self, at_s: float) -> Iterator[bytes]:
        if self._bulk is not None:
            for note in self._bulk.notes():
                yield event_line(at_s, MARKER, note)


class _TextFilter:
    """A filter that separates text to keep from data that is only counted."""

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._binary = {OUTPUT: 0, STDERR: 0}
        self._beyond = {OUTPUT: 0, STDERR: 0}

    def is_kept(self, data: bytes | bytearray | memoryview, code: str) -> bool:
        """Return whether the data of one write is kept; other data is counted."""
        if len(data) > self._left:
            self._left = 0  # later data is not kept either, however short
            self._beyond[code] += len(data)
            return False
        if b"\0" in bytes(data):
            self._binary[code] += len(data)
            return False
        self._left -= len(data)
        return True

    def notes(self) -> Iterator[str]:
        """Yield sentences about data that was only counted since the last call."""
        for what, counts in (("not text", self._binary), ("beyond the limit", self._beyond)):
            for code, stream in ((OUTPUT, "stdout"), (STDERR, "stderr")):
                if counts[code]:
                    yield f"{counts[code]} bytes of {stream} are left out: {what}"
                    counts[code] = 0
