"""Connections before the SSH handshake: PROXY header, admission and scheduling.

    accept ── trusted source? ─▶ PROXY header ─┐
                 └── no ───────────────────────┴─▶ Guard ─▶ HandshakeSlot ─▶ ServerConnection

Every step is cheap, because unknown clients cause it. A refused client gets one line of text. Nothing is sent
before the header of a load balancer is read, although an SSH server may send its version first.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import structlog

from proxy.addresses import Network, is_in
from proxy.protection.guard import Guard, PendingConnection
from proxy.proxyprotocol import Addresses, HeaderInvalid, may_be_header, parse
from proxy.settings.protection import ProxyProtocolSettings
from proxy.ssh.asyncssh_ext.connection import Arrival, ServerConnection
from proxy.ssh.handshake_scheduler import HandshakeScheduler, HandshakeSlot

_log = structlog.get_logger("ssh")

_MAX_RECEIVED_BYTES = 64 * 1024
_REFUSALS = {
    "banned": b"Your address is banned for now\r\n",
    "too_fast": b"Too many connections from your address, try again later\r\n",
    "source_full": b"Too many connections from your address are not logged in yet\r\n",
    "full": b"Too many connections are not logged in yet, try again later\r\n",
}
"""Refusals by reason. A server may send lines before its version (RFC 4253 §4.2); OpenSSH shows them with
`-v`.
"""


@dataclass(frozen=True, slots=True)
class PreAuthContext:
    """The parts that all accepted connections of this process share."""

    guard: Guard
    scheduler: HandshakeScheduler
    header: ProxyProtocolSettings
    trusted: tuple[Network, ...]
    make_connection: Callable[[Arrival], ServerConnection]
    """Makes the asyncssh connection that takes over."""


class PreAuthProtocol(asyncio.Protocol):
    """The protocol of one connection from accept until asyncssh takes it over or it is refused."""

    def __init__(self, context: PreAuthContext) -> None:
        self._context = context
        self._transport: asyncio.Transport
        self._host = ""
        self._received = b""
        self._header_due: asyncio.TimerHandle | None = None
        self._visitor: PendingConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the PROXY header when the source is a trusted load balancer, else admit at once."""
        self._transport = cast(asyncio.Transport, transport)
        self._host = transport.get_extra_info("peername")[0]
        if is_in(self._host, self._context.trusted):
            loop = asyncio.get_running_loop()
            self._header_due = loop.call_later(self._context.header.timeout_s, self._header_timed_out)
        else:
            self._admit(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the header timer and release the place at the guard."""
        del exc
        self._stop_header_timer()
        if self._visitor is not None:
            self._visitor.leave()

    def data_received(self, data: bytes) -> None:
        """Read the header, or keep the version that a client such as OpenSSH sends first."""
        self._received += data
        if self._header_due is not None:
            self._read_header()
        elif len(self._received) > _MAX_RECEIVED_BYTES:
            self._transport.pause_reading()

    # ---------------------------------------------------------------------------------- the header

    def _read_header(self) -> None:
        settings = self._context.header
        if settings.header == "optional" and not may_be_header(self._received):
            self._stop_header_timer()
            self._admit(None)
            return
        try:
            header = parse(self._received, settings.max_bytes)
        except HeaderInvalid as exc:
            self._refuse_header(str(exc))
            return
        if header is not None:
            self._received = self._received[header.size :]
            self._stop_header_timer()
            self._admit(header.addresses)

    def _header_timed_out(self) -> None:
        if self._context.header.header == "optional" and not self._received:
            self._stop_header_timer()
            self._admit(None)
        else:
            self._refuse_header("not there in time")

    def _stop_header_timer(self) -> None:
        if self._header_due is not None:
            self._header_due.cancel()
            self._header_due = None

    def _refuse_header(self, reason: str) -> None:
        self._stop_header_timer()
        _log.info("PROXY header refused", source=self._host, reason=reason)
        self._transport.abort()

    # ----------------------------------------------------------------------------------- the door

    def _admit(self, addresses: Addresses | None) -> None:
        host = self._host if addresses is None else addresses.client[0]
        visitor = self._context.guard.accept(host)
        if isinstance(visitor, str):
            _log.debug("connection refused", client=host, reason=visitor)
            self._transport.write(_REFUSALS[visitor])
            self._transport.close()
            return
        self._visitor = visitor
        if visitor.has_credit:
            self._enter(Arrival(visitor, addresses, None))
        else:
            slot = HandshakeSlot(self._context.scheduler, visitor.source)
            slot.run(lambda: self._enter(Arrival(visitor, addresses, slot)))

    def _enter(self, arrival: Arrival) -> None:
        if self._transport.is_closing():
            return
        connection = self._context.make_connection(arrival)
        self._transport.set_protocol(connection)
        self._transport.resume_reading()
        connection.connection_made(self._transport)
        if self._received:
            connection.data_received(self._received)
