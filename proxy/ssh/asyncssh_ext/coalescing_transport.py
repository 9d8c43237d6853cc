"""A transport that joins the packets of one iteration of the event loop into one write."""

import asyncio
from typing import Any

from proxy.proxyprotocol import Addresses
from proxy.upstream.frame_codec import Buffer

_SMALL_BYTES = 1_024  # an echo does not wait for the end of the iteration, since nothing comes with it


class CoalescingTransport:
    """A wrapper of a TCP transport that changes only writing.

    asyncssh writes each packet by itself, and uvloop passes each to the kernel at once: a system call, and
    often a TCP segment, for every 32 KiB. Here pieces wait for the end of the loop's iteration, or for
    `join_bytes`, and leave in order. Nothing waits longer.
    """

    def __init__(
        self, transport: asyncio.Transport, join_bytes: int, addresses: Addresses | None = None
    ) -> None:
        """Wrap `transport`.

        `addresses` are the real ends of the connection when a load balancer sent them.
        """
        self._transport = transport
        self._join_bytes = join_bytes
        self._loop = asyncio.get_running_loop()
        self._pieces: list[Buffer] = []
        self._size = 0
        self._real_ends = {"peername": addresses.client, "sockname": addresses.server} if addresses else {}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the real ends of the connection, and everything else from the socket."""
        return self._real_ends.get(name) or self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Buffer) -> None:
        """Write one piece, which must not change afterwards."""
        if not self._pieces:
            if len(data) < _SMALL_BYTES:
                self._transport.write(data)
                return
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= self._join_bytes:
            self._flush()

    def close(self) -> None:
        """Close after all written bytes."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """End this direction after all written bytes: asyncssh does so after a disconnect message."""
        self._flush()
        self._transport.write_eof()

    def abort(self) -> None:
        """Close at once, after one attempt to send the written bytes: they may be a disconnect message."""
        self._flush()
        self._transport.abort()

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces, self._size = self._pieces, [], 0
            self._transport.writelines(pieces)
