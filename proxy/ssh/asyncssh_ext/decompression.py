"""Bounded decompression: a packet never becomes larger than an uncompressed one may be.

asyncssh inflates all that a packet holds, which may be a thousand times its size. Compression is still
offered (`ssh -C` helps on slow lines, and `sshd` has it), but only after the login; see the listener.

Source: RFC 4253 §6.2; the method `zlib@openssh.com` is of draft-miller-secsh-compression-delayed-00.
"""

import zlib
from collections.abc import Callable

import asyncssh
from asyncssh.compression import Decompressor


class BoundedDecompressor(Decompressor):
    """A decompressor for the payloads of one direction of a connection, in order."""

    def __init__(self, max_bytes: Callable[[], int]) -> None:
        """Start a stream; `max_bytes` returns the largest payload allowed and is called for each packet."""
        self._max_bytes = max_bytes
        self._inflater = zlib.decompressobj()

    def decompress(self, data: bytes) -> bytes | None:
        """Return the payload; None when it is not deflated.

        Raises: asyncssh.CompressionError when it would become larger than allowed.
        """
        most = self._max_bytes()
        try:
            payload = self._inflater.decompress(data, most + 1)
        except zlib.error:
            return None
        if len(payload) > most:
            raise asyncssh.CompressionError(f"a packet inflates to more than {most} bytes")
        return payload
