"""A passive parser of SFTP version 3: packets from pieces of any size, and their fields.

Only the beginning of a packet is kept; file contents are counted and skipped.
Source: https://www.openssh.com/txt/draft-ietf-secsh-filexfer-02.txt; for extensions PROTOCOL of OpenSSH, §4.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

HEAD_BYTES = 16 * 1024
"""Bytes kept of a packet: two paths of Linux and their attributes fit."""

MAX_PACKET_BYTES = 64 * 1024 * 1024
"""Largest length that is taken for a packet; OpenSSH refuses more than 256 KiB."""


class SftpInvalid(Exception):
    """The bytes are not SFTP version 3, or exceed the limit."""


class Type(IntEnum):
    """Packet types that are parsed."""

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
            raise SftpInvalid("an empty packet")
        self.type = head[0]
        self._head = head
        self._at = 1

    def number(self) -> int:
        """Read a uint32. Raises: SftpInvalid."""
        return int(self._unpack(">I", 4))

    def long(self) -> int:
        """Read a uint64. Raises: SftpInvalid."""
        return int(self._unpack(">Q", 8))

    def string(self) -> bytes:
        """Read a string. Raises: SftpInvalid, also for one that is longer than the limit."""
        end = self._at + 4 + self.number()
        if end > len(self._head):
            raise SftpInvalid("a string that is longer than its packet")
        start, self._at = self._at, end
        return self._head[start:end]

    def text(self) -> str:
        """Read a path as text; bytes that are not UTF-8 become `\\xNN`. Raises: SftpInvalid."""
        return self.string().decode(errors="backslashreplace")

    def _unpack(self, shape: str, size: int) -> int:
        try:
            (value,) = struct.unpack_from(shape, self._head, self._at)
        except struct.error:
            raise SftpInvalid("a packet that ends too early") from None
        self._at += size
        return int(value)


class Packets:
    """One direction's bytes, cut into packets; it holds at most HEAD_BYTES."""

    __slots__ = ("_head", "_left", "_length")

    def __init__(self) -> None:
        self._length = bytearray()
        self._head = bytearray()
        self._left = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Packet]:
        """Yield each packet whose beginning is complete, which for a long one is before its end.

        Raises: SftpInvalid.
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
                raise SftpInvalid(f"a packet of {self._left} bytes")
        return at + len(taken)
