"""A proxy that counts what it does in a turn of its event loop: `python -m tests.wire.counted serve`.

It counts by itself, wherever asyncssh or the proxy process a packet, and knows nothing of the scheduler that
is to bound the number. A connection to the Unix socket that COUNTED_SOCKET names reads one line of JSON, and
the counting begins anew.
"""

import asyncio
import json
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from asyncssh.packet import SSHPacketHandler

from proxy.__main__ import main
from proxy.ssh.asyncssh_ext.fast_path import FastPathConnection
from proxy.ssh.asyncssh_ext.tolerance import TolerantChannel, TolerantConnection
from proxy.ssh.listener import Listener


class Counts:
    """Units of the turn under way, and the most there ever were in one."""

    def __init__(self) -> None:
        self._turn: Counter[int] = Counter()
        self._sent: Counter[int] = Counter()
        self.found: Counter[str] = Counter()

    def received(self, connection: object) -> None:
        self._add(self._turn, connection)
        self.found["packets"] += 1

    def sent(self, connection: object) -> None:
        self._add(self._sent, connection)

    def _add(self, counter: Counter[int], connection: object) -> None:
        if not self._turn and not self._sent:
            asyncio.get_running_loop().call_soon(self._end)
        counter[id(connection)] += 1

    def _end(self) -> None:
        for name, counter in (("received", self._turn), ("sent", self._sent)):
            if counter:
                self.found[name] = max(self.found[name], *counter.values())
                self.found[f"{name} by all"] = max(self.found[f"{name} by all"], counter.total())
            counter.clear()

    async def tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(self.found).encode())
        writer.close()
        self.found = Counter()


def count(counts: Counts) -> None:
    """Count from now on."""

    def wrapped(owner: type, method: str, then: Callable[[Any, Any], None]) -> None:
        plain = getattr(owner, method)

        def counting(self: Any, *arguments: Any, **named: Any) -> Any:
            result = plain(self, *arguments, **named)
            then(self, result)
            return result

        setattr(owner, method, counting)

    def received(handler: Any, _: object) -> None:
        counts.received(getattr(handler, "_conn", None) or handler)

    def received_by_asyncssh(handler: Any, _: object) -> None:
        if not isinstance(handler, TolerantConnection | TolerantChannel):  # counted already
            received(handler, _)

    wrapped(TolerantConnection, "process_packet", received)
    wrapped(TolerantChannel, "process_packet", received)
    wrapped(SSHPacketHandler, "process_packet", received_by_asyncssh)
    wrapped(
        FastPathConnection, "_take_channel_data", lambda it, taken: counts.received(it) if taken else None
    )
    wrapped(FastPathConnection, "send_channel_data", lambda it, _: counts.sent(it))
    plain_open = Listener.open

    async def opened(self: Listener) -> None:
        await plain_open(self)
        assert self._server is not None
        with socket.socket(fileno=os.dup(self._server.sockets[0].fileno())) as listening:
            # What is accepted inherits it: the kernel takes little, and our own bounds are met early.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        self.counting = await asyncio.start_unix_server(counts.tell, os.environ["COUNTED_SOCKET"])

    Listener.open = opened


if __name__ == "__main__":
    count(Counts())
    main()
