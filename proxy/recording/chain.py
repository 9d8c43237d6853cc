"""Proof that nothing in a recording was changed, removed or inserted: a chain of hashes.

A block is some lines and, last, its link `[seconds, "h", "NUMBER HASH SIGNATURE"]`. HASH is the SHA-256 of
the hash before it (32 zero bytes at first) and of the block's lines. The signature covers the recording's id,
the time, the number and the hash, so a block of one recording is invalid in another. The manifest repeats
number and hash of the last block, so that a removed end is detected.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from proxy.recording.lines import LINK, Line, event_line, read_line
from proxy.recording.signing import Keyring, SigningKey

_FIRST = bytes(32)


class Chain:
    """The writer of one recording's chain."""

    def __init__(self, recording: str, key: SigningKey) -> None:
        self._recording = recording
        self._key = key
        self._last = _FIRST
        self.blocks = 0
        self.size = 0
        """Bytes of all blocks, links included."""

    @property
    def last(self) -> str:
        """Return the hash of the last block in hex; zeros before the first."""
        return self._last.hex()

    def seal(self, lines: bytes, at_s: float) -> bytes:
        """Return the block of `lines`, with its link. It may run in a thread: one call at a time."""
        self._last = _next(self._last, lines)
        self.blocks += 1
        at_s = round(float(at_s), 6)
        signature = self._key.sign(_signed(self._recording, at_s, self.blocks, self._last))
        block = lines + event_line(at_s, LINK, f"{self.blocks} {self._last.hex()} {signature}")
        self.size += len(block)
        return block


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """The place where a chain is broken."""

    line: int
    """Line number of the invalid link, from 1."""
    block: int
    reason: str


class Verifier:
    """A verifier of a recording's chain, line by line; it holds one hash, for any length."""

    def __init__(self, recording: str, keyring: Keyring, fingerprint: str) -> None:
        """Create it; `fingerprint` is that of the key in the manifest."""
        self._recording = recording
        self._key = keyring.find(fingerprint)
        self._last = _FIRST
        self._hash = hashlib.sha256(_FIRST)
        self._lines = 0
        self.blocks = 0
        self.size = 0
        """Bytes up to the last valid link."""
        self._open = 0
        self.broken: ChainBreak | None = None

    @property
    def last(self) -> str:
        """Return the hash of the last valid link, in hex."""
        return self._last.hex()

    @property
    def open_bytes(self) -> int:
        """Return the bytes after the last link, which no signature covers."""
        return self._open

    def feed(self, raw: bytes) -> None:
        """Take the next line with its line end; lines after a break are ignored."""
        if self.broken is not None:
            return
        self._lines += 1
        self._open += len(raw)
        line = read_line(raw) if b'"h"' in raw[:64] else None
        if line is None or line.code != LINK:
            self._hash.update(raw)
            return
        if reason := self._refuse(raw, line):
            self.broken = ChainBreak(self._lines, self.blocks + 1, reason)
            return
        self.blocks += 1
        self._last = self._hash.digest()
        self._hash = hashlib.sha256(self._last)
        self.size += self._open
        self._open = 0

    def _refuse(self, raw: bytes, line: Line) -> str:
        """Return the fault of an invalid link; empty when it is valid."""
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
        return "" if raw == event_line(*line) else "its link was written by another program"


def line_splitter(take: Callable[[bytes], None], max_bytes: int) -> Callable[[bytes], None]:
    """Return a function that takes pieces of any size and calls `take` with each line, end included.

    A line longer than `max_bytes` is passed on in parts, to bound memory. An empty piece passes on a last
    line without an end.
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
