"""Forms with files (RFC 7578), read as they come: no part is held in memory or on disk.

Names are bytes, as browsers write them (HTML, multipart/form-data encoding algorithm): `%22`, `%0D` and `%0A`
stand for the three characters that end a quoted name or a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_HEAD_BYTES = 16 * 1024
MAX_PARTS = 10_000
_BOUNDARY = re.compile(
    r'multipart/form-data\s*;.*?\bboundary=(?:"([^"\r\n]{1,70})"|([^\s";]{1,70}))', re.IGNORECASE
)
_DISPOSITION = re.compile(rb"(?:^|\r\n)content-disposition:\s*form-data\s*;([^\r\n]*)", re.IGNORECASE)
_PARAMETER = re.compile(rb';?\s*(name|filename)="(.*?)"(?=\s*(?:;|$))', re.IGNORECASE | re.DOTALL)
_ESCAPED = re.compile(rb'%22|%0D|%0A|\\"')
_MEANINGS = {b"%22": b'"', b"%0D": b"\r", b"%0A": b"\n", b'\\"': b'"'}


class FormInvalid(Exception):
    """A body that is no such form; the text is a sentence without full stop."""


class FormCut(FormInvalid):
    """A form whose sender went away."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field. `content` has to be read before the next part is."""

    name: bytes
    filename: bytes | None
    """None for a field that is no file."""
    content: Iterator[bytes]

    def text(self, limit_bytes: int) -> bytes:
        """Return the content of a short field. Raises: FormInvalid."""
        taken = b""
        for piece in self.content:
            taken += piece
            if len(taken) > limit_bytes:
                raise FormInvalid("a field of the form is too long")
        return taken


def boundary_of(content_type: str) -> bytes:
    """Return the boundary of a form. Raises: FormInvalid."""
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise FormInvalid("this is no form with files")
    return (found[1] or found[2]).encode("latin-1")


class Form:
    """The parts of one form; `read` returns the next bytes of the body, none at its end."""

    def __init__(self, boundary: bytes, read: Callable[[], bytes]) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._read = read
        self._buffer = b"\r\n"  # so that the first boundary is like all others

    def parts(self) -> Iterator[Part]:
        """Yield the parts in order. Raises: FormInvalid."""
        for _ in self._content():  # what is before the first boundary has no meaning
            pass
        for _ in range(MAX_PARTS):
            if self._take(2) == b"--":
                return
            name, filename = _names(self._head())
            content = self._content()
            yield Part(name, filename, content)
            for _ in content:
                pass
        raise FormInvalid("the form has too many parts")

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _more(self) -> None:
        piece = self._read()
        if not piece:
            raise FormCut("the form ended before its last boundary")
        self._buffer += piece

    def _head(self) -> bytes:
        """Take the head of a part, whose first line end was taken."""
        while (at := self._buffer.find(b"\r\n\r\n")) < 0 and len(self._buffer) <= MAX_HEAD_BYTES:
            self._more()
        if not 0 <= at <= MAX_HEAD_BYTES:
            raise FormInvalid("the head of a part is too long")
        head, self._buffer = self._buffer[:at], self._buffer[at + 4 :]
        return head

    def _content(self) -> Iterator[bytes]:
        """Yield bytes up to the next boundary, and take that."""
        keep = len(self._delimiter) - 1
        while (at := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) > keep:
                piece, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
                yield piece
            self._more()
        piece, self._buffer = self._buffer[:at], self._buffer[at + len(self._delimiter) :]
        if piece:
            yield piece


def _names(head: bytes) -> tuple[bytes, bytes | None]:
    found = _DISPOSITION.search(head)
    given = {} if found is None else {key.lower(): value for key, value in _PARAMETER.findall(found[1])}
    if b"name" not in given:
        raise FormInvalid("a part of the form has no name")
    filename = given.get(b"filename")
    return _unescaped(given[b"name"]), None if filename is None else _unescaped(filename)


def _unescaped(value: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: _MEANINGS[found[0]], value)
