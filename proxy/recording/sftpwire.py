"""SFTP version 3 as it passes by: packets out of pieces of any size, and their fields. Nothing is answered.

Of a packet only the beginning is kept; what a file holds is counted and skipped.
Source: https://www.openssh.com/txt/draft-ietf-secsh-filexfer-02.txt; for extensions PROTOCOL of OpenSSH, §4.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

HEAD_BYTES = 16 * 1024
"""Kept of a packet: two paths of Linux and their attributes fit."""

MAX_PACKET_BYTES = 64 * 1024 * 1024
"""A length beyond is no packet; OpenSSH refuses more than 256 KiB."""


class Garbage(Exception):
    """These bytes are not SFTP version 3, or more of it than is followed."""


class Type(IntEnum):
    """Packet types that matter here."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    RENAME = 18
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    EXTENDED = 200


class Packet:
    """The beginning of one packet; fields are read in their order."""

    __slots__ = ("_at", "_head", "type")

    def __init__(self, head: bytes) -> None:
        if not head:
            raise Garbage("an empty packet")
        self.type = head[0]
        self._head = head
        self._at = 1

    def number(self) -> int:
        """Read a uint32. Raises: Garbage."""
        return int(self._unpack(">I", 4))

    def long(self) -> int:
        """Read a uint64. Raises: Garbage."""
        return int(self._unpack(">Q", 8))

    def string(self) -> bytes:
        """Read a string. Raises: Garbage, also for one that is longer than what is kept."""
        end = self._at + 4 + self.number()
        if end > len(self._head):
            raise Garbage("a string that is longer than its packet")
        start, self._at = self._at, end
        return self._head[start:end]

    def text(self) -> str:
        """Read a path as text; bytes that are no UTF-8 are shown as `\\xNN`. Raises: Garbage."""
        return self.string().decode(errors="backslashreplace")

    def _unpack(self, shape: str, size: int) -> int:
        try:
            (value,) = struct.unpack_from(shape, self._head, self._at)
        except struct.error:
            raise Garbage("a packet that ends too early") from None
        self._at += size
        return int(value)


class Packets:
    """One direction's bytes, cut into packets; holds at most HEAD_BYTES."""

    __slots__ = ("_head", "_left", "_length")

    def __init__(self) -> None:
        self._length = bytearray()
        self._head = bytearray()
        self._left = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Packet]:
        """Give each packet whose beginning is complete, which for a long one is before its end.

        Raises: Garbage.
        """
        view, at = memoryview(data), 0
        while at < len(view):
            if not self._left:
                at = self._begin(view, at)
                continue
            piece = view[at : at + self._left]
            at += len(piece)
            was_short = len(self._head) < HEAD_BYTES
            self._left -= len(piece)
            if was_short:
                self._head += piece[: HEAD_BYTES - len(self._head)]
                if not self._left or len(self._head) == HEAD_BYTES:
                    yield Packet(bytes(self._head))

    def _begin(self, view: memoryview, at: int) -> int:
        taken = view[at : at + 4 - len(self._length)]
        self._length += taken
        if len(self._length) == 4:
            self._left = int.from_bytes(self._length, "big")
            self._length.clear()
            self._head.clear()
            if not 1 <= self._left <= MAX_PACKET_BYTES:
                raise Garbage(f"a packet of {self._left} bytes")
        return at + len(taken)
