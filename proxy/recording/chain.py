"""Proof that nothing in a recording was changed, left out or put in: each block names the one before.

A block is some lines and, last, its link `[seconds, "h", "NUMBER HASH SIGNATURE"]`, where HASH is the SHA-256
of the hash before it (32 zero bytes at first) and of the block's lines. The signature covers the recording's
id, the time, the number and the hash, so a block of one recording is worth nothing in another. The manifest
repeats number and hash of the last one: that is what a missing end is told by.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from proxy.recording.lines import LINK, Line, event_line, read_line
from proxy.recording.signing import Keyring, SigningKey

_FIRST = bytes(32)


class Chain:
    """Seals the blocks of one recording."""

    def __init__(self, recording: str, key: SigningKey) -> None:
        self._recording = recording
        self._key = key
        self._last = _FIRST
        self.blocks = 0
        self.size = 0
        """Bytes of all blocks, links included."""

    @property
    def last(self) -> str:
        """The hash of the last block, in hex; of none, zeros."""
        return self._last.hex()

    def seal(self, lines: bytes, at_s: float) -> bytes:
        """Give the block that `lines` make, with its link. May be called in a thread: one call at a time."""
        self._last = _next(self._last, lines)
        self.blocks += 1
        at_s = round(float(at_s), 6)
        signature = self._key.sign(_signed(self._recording, at_s, self.blocks, self._last))
        block = lines + event_line(at_s, LINK, f"{self.blocks} {self._last.hex()} {signature}")
        self.size += len(block)
        return block


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain breaks."""

    line: int
    """Counted from 1; the link that does not hold."""
    block: int
    reason: str


class Verifier:
    """Follows the chain of a recording, line by line; holds one hash, whatever the length."""

    def __init__(self, recording: str, keyring: Keyring, fingerprint: str) -> None:
        """`fingerprint`: of the key that is said to have signed."""
        self._recording = recording
        self._key = keyring.find(fingerprint)
        self._last = _FIRST
        self._hash = hashlib.sha256(_FIRST)
        self._lines = 0
        self.blocks = 0
        self.size = 0
        """Bytes up to the last link that holds."""
        self._open = 0
        self.broken: Break | None = None

    @property
    def last(self) -> str:
        return self._last.hex()

    @property
    def open_bytes(self) -> int:
        """Bytes behind the last link, which nothing vouches for."""
        return self._open

    def feed(self, raw: bytes) -> None:
        """Take the next line with its line end; nothing more is looked at once the chain is broken."""
        if self.broken is not None:
            return
        self._lines += 1
        self._open += len(raw)
        line = read_line(raw) if b'"h"' in raw[:64] else None
        if line is None or line.code != LINK:
            self._hash.update(raw)
            return
        if reason := self._refuse(raw, line):
            self.broken = Break(self._lines, self.blocks + 1, reason)
            return
        self.blocks += 1
        self._last = self._hash.digest()
        self._hash = hashlib.sha256(self._last)
        self.size += self._open
        self._open = 0

    def _refuse(self, raw: bytes, line: Line) -> str:
        """Say why a link does not hold; nothing when it does."""
        number, _, rest = str(line.data).partition(" ")
        claimed, _, signature = rest.partition(" ")
        digest = self._hash.digest()
        signed = _signed(self._recording, line.at_s, self.blocks + 1, digest)
        if claimed != digest.hex():
            return "what it holds was changed"
        if number != str(self.blocks + 1):
            return f"it says to be number {number[:20]}"
        if self._key is not None and not self._key.has_signed(signed, signature):
            return "its signature is not of the key that the manifest names"
        return "" if raw == event_line(*line) else "its link was written by somebody else"


def line_splitter(take: Callable[[bytes], None], max_bytes: int) -> Callable[[bytes], None]:
    """Make a function that is fed pieces of any size, and calls `take` with each line, end included.

    A line longer than `max_bytes` is handed on in parts, so that memory is bounded whatever a file holds;
    an empty piece hands on what has no line end.
    """
    rest = bytearray()

    def feed(piece: bytes) -> None:
        rest.extend(piece)
        start = 0
        while (end := rest.find(b"\n", start)) >= 0:
            take(bytes(rest[start : end + 1]))
            start = end + 1
        del rest[:start]
        if rest and (not piece or len(rest) > max_bytes):
            take(bytes(rest))
            rest.clear()

    return feed


def _next(last: bytes, lines: bytes) -> bytes:
    digest = hashlib.sha256(last)
    digest.update(lines)
    return digest.digest()


def _signed(recording: str, at_s: float, number: int, digest: bytes) -> bytes:
    return f"{recording} {at_s:.6f} {number} {digest.hex()}".encode()
