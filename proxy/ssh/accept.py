"""A TCP connection before SSH is spoken on it: whose it is, whether it is heard, and when.

    accept ── trusted source? ─▶ PROXY header ─┐
                 └── no ───────────────────────┴─▶ Guard ─▶ turn ─▶ ServerConnection

Everything here is cheap, because all of it is there for strangers. We speak first in SSH, but not before the
header was read: nothing of ours goes to whoever is refused but one line.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import structlog

from proxy.addresses import Network, is_in
from proxy.protection.guard import Guard, PendingConnection
from proxy.settings.protection import ProxyProtocolSettings
from proxy.ssh.asyncssh_ext.connection import Arrival, ServerConnection
from proxy.ssh.handshake_scheduler import Turn, Turns
from proxy.ssh.proxyprotocol import Addresses, HeaderInvalid, may_be_header, parse

_log = structlog.get_logger("ssh")

_MAX_WAITING_BYTES = 64 * 1024
_SENTENCES = {
    "banned": b"Your address is banned for now\r\n",
    "too_fast": b"Too many connections from your address, try again later\r\n",
    "source_full": b"Too many connections from your address are not logged in yet\r\n",
    "full": b"Too many connections are not logged in yet, try again later\r\n",
}
"""Lines that may come before a server's version (RFC 4253 §4.2); OpenSSH shows them with `-v`."""


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """What every doorstep of this process has in common."""

    guard: Guard
    turns: Turns
    header: ProxyProtocolSettings
    trusted: tuple[Network, ...]
    speak: Callable[[Arrival], ServerConnection]
    """Makes what speaks SSH."""


class Doorstep(asyncio.Protocol):
    """One connection from accept until it is handed to asyncssh, or refused."""

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper
        self._transport: asyncio.Transport
        self._host = ""
        self._waiting = b""
        self._header_due: asyncio.TimerHandle | None = None
        self._visitor: PendingConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the header of a load balancer; hear everybody else."""
        self._transport = cast(asyncio.Transport, transport)
        self._host = transport.get_extra_info("peername")[0]
        if is_in(self._host, self._keeper.trusted):
            loop = asyncio.get_running_loop()
            self._header_due = loop.call_later(self._keeper.header.timeout_s, self._header_missing)
        else:
            self._admit(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Be forgotten."""
        del exc
        self._header_read()
        if self._visitor is not None:
            self._visitor.leave()

    def data_received(self, data: bytes) -> None:
        """Read the header, or keep what a client says that speaks first, as OpenSSH does."""
        self._waiting += data
        if self._header_due is not None:
            self._read_header()
        elif len(self._waiting) > _MAX_WAITING_BYTES:
            self._transport.pause_reading()

    # ---------------------------------------------------------------------------------- the header

    def _read_header(self) -> None:
        settings = self._keeper.header
        if settings.header == "optional" and not may_be_header(self._waiting):
            self._header_read()
            self._admit(None)
            return
        try:
            header = parse(self._waiting, settings.max_bytes)
        except HeaderInvalid as exc:
            self._header_refused(str(exc))
            return
        if header is not None:
            self._waiting = self._waiting[header.size :]
            self._header_read()
            self._admit(header.addresses)

    def _header_missing(self) -> None:
        if self._keeper.header.header == "optional" and not self._waiting:
            self._header_read()
            self._admit(None)
        else:
            self._header_refused("not there in time")

    def _header_read(self) -> None:
        if self._header_due is not None:
            self._header_due.cancel()
            self._header_due = None

    def _header_refused(self, reason: str) -> None:
        self._header_read()
        _log.info("PROXY header refused", source=self._host, reason=reason)
        self._transport.abort()

    # ----------------------------------------------------------------------------------- the door

    def _admit(self, addresses: Addresses | None) -> None:
        host = self._host if addresses is None else addresses.client[0]
        visitor = self._keeper.guard.accept(host)
        if isinstance(visitor, str):
            _log.debug("connection refused", client=host, reason=visitor)
            self._transport.write(_SENTENCES[visitor])
            self._transport.close()
            return
        self._visitor = visitor
        if visitor.has_credit:
            self._enter(Arrival(visitor, addresses, None))
        else:
            turn = Turn(self._keeper.turns, visitor.source)
            turn.take(lambda: self._enter(Arrival(visitor, addresses, turn)))

    def _enter(self, arrival: Arrival) -> None:
        if self._transport.is_closing():
            return
        connection = self._keeper.speak(arrival)
        self._transport.set_protocol(connection)
        self._transport.resume_reading()
        connection.connection_made(self._transport)
        if self._waiting:
            connection.data_received(self._waiting)
