"""A TCP connection before SSH is spoken on it: cheap, and the place where a stranger waits for a turn."""

import asyncio
from collections.abc import Callable
from typing import cast

from proxy.addresses import source_of
from proxy.protection.credit import Credit
from proxy.ssh.transport import TunedConnection
from proxy.ssh.turns import Turn, Turns

_MAX_WAITING_BYTES = 64 * 1024


class Doorstep(asyncio.Protocol):
    """One connection from accept until it is handed to asyncssh, which speaks first."""

    def __init__(self, credit: Credit, turns: Turns, speak: Callable[[Turn | None], TunedConnection]) -> None:
        self._credit = credit
        self._turns = turns
        self._speak = speak
        self._transport: asyncio.Transport
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand it on now, or in turn with other strangers."""
        self._transport = cast(asyncio.Transport, transport)
        source = source_of(transport.get_extra_info("peername")[0])
        if self._credit.has(source, asyncio.get_running_loop().time()):
            self._enter(None)
        else:
            turn = Turn(self._turns, source)
            turn.take(lambda: self._enter(turn))

    def data_received(self, data: bytes) -> None:
        """Keep what a client says that speaks first, as OpenSSH does."""
        self._waiting += data
        if len(self._waiting) > _MAX_WAITING_BYTES:
            self._transport.pause_reading()

    def _enter(self, turn: Turn | None) -> None:
        if self._transport.is_closing():
            return
        connection = self._speak(turn)
        self._transport.set_protocol(connection)
        self._transport.resume_reading()
        connection.connection_made(self._transport)
        if self._waiting:
            connection.data_received(self._waiting)
