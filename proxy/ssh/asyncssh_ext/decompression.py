"""Bounded decompression: a packet never becomes larger than one that comes without compression.

asyncssh inflates whatever a packet holds, and deflate makes a thousand bytes of one. Compression stays on
offer (`ssh -C` is for thin lines, and `sshd` has it), but only from the login on; see the listener.

Source: RFC 4253 §6.2; the method `zlib@openssh.com` is of draft-miller-secsh-compression-delayed-00.
"""

import zlib
from collections.abc import Callable

import asyncssh
from asyncssh.compression import Decompressor


class BoundedDecompressor(Decompressor):
    """Inflates the payloads of one direction of a connection, in order."""

    def __init__(self, max_bytes: Callable[[], int]) -> None:
        """`max_bytes` is asked for each packet how large it may become."""
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
