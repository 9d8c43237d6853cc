"""A transport that joins the packets of one turn of the event loop into one write."""

import asyncio
from typing import Any

from proxy.ssh.proxyprotocol import Addresses
from proxy.upstream.frame_codec import Buffer

_SMALL_BYTES = 1_024  # an echo does not wait for the end of a turn, since nothing comes with it


class JoinedTransport:
    """Stand before a TCP transport; what is not about writing goes straight through.

    asyncssh writes each packet by itself and uvloop hands each to the kernel at once: a system call, and
    often a TCP segment, for every 32 KiB. Here pieces wait for the end of the turn, or for `join_bytes`,
    and leave in order. Nothing waits for more to come.
    """

    def __init__(
        self, transport: asyncio.Transport, join_bytes: int, addresses: Addresses | None = None
    ) -> None:
        """`addresses` are those of the real connection, where a load balancer told them."""
        self._transport = transport
        self._join_bytes = join_bytes
        self._loop = asyncio.get_running_loop()
        self._pieces: list[Buffer] = []
        self._size = 0
        self._told = {"peername": addresses.client, "sockname": addresses.server} if addresses else {}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give the real connection's ends, and everything else of the socket."""
        return self._told.get(name) or self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Buffer) -> None:
        """Take one piece, which must not change afterwards."""
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
        """Close behind what was written."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """End this direction behind what was written: asyncssh does so after a goodbye."""
        self._flush()
        self._transport.write_eof()

    def abort(self) -> None:
        """Close at once; what was written and has not left yet may still be a goodbye."""
        self._flush()
        self._transport.abort()

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces, self._size = self._pieces, [], 0
            self._transport.writelines(pieces)
