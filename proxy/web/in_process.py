"""Connections with apps of this process: no socket is between, the two ends call each other.

    front ── Wire ────────▶ FrontEnd ──▶ protocol of the app (a server of HTTP)
    front ◀── Receiver ──── AppEnd  ◀── transport of the app

What the app writes is delivered by the event loop, never from within its call, and waits while the front is
held up. The app is paused then, as by a full socket.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from proxy.web.road import Address, Buffer, OwnApp, Receiver, Road, Wire

ADDRESS = "fairlead_address"
"""Extra information of the transport by which an app learns whose connection it is: a `road.Address`."""

NewConnection = Callable[[], asyncio.Protocol]
"""Makes the protocol that serves one connection with an app."""


class WithOwnApps:
    """A road to the apps of this process by their names, and by another road to all other apps."""

    def __init__(self, road: Road, apps: Mapping[str, NewConnection], buffer_bytes: int) -> None:
        """Create it; `buffer_bytes` may wait in the direction of the client before an app is paused."""
        self._road = road
        self._apps = apps
        self._buffer_bytes = buffer_bytes

    async def open(self, address: Address, receiver: Receiver) -> Wire:
        """See Road."""
        if not isinstance(address.target, OwnApp):
            return await self._road.open(address, receiver)
        app_end = AppEnd(address, receiver, self._buffer_bytes)
        return app_end.begin(self._apps[address.target.name]())


class AppEnd(asyncio.Transport):
    """The transport of an app's protocol."""

    def __init__(self, address: Address, receiver: Receiver, buffer_bytes: int) -> None:
        super().__init__({ADDRESS: address})
        self._loop = asyncio.get_running_loop()
        self._receiver = receiver
        self._high, self._low = buffer_bytes, buffer_bytes // 4
        self._protocol: asyncio.BaseProtocol | None = None
        self._pieces: deque[Buffer] = deque()
        self._size = 0
        self._is_due = False
        """A delivery is scheduled."""
        self._is_held = False
        """The front takes no more for now."""
        self._is_paused = False
        """The app writes no more for now."""
        self._is_reading = True
        self._is_closing = False
        self._is_over = False

    def begin(self, protocol: asyncio.Protocol) -> "FrontEnd":
        """Give the connection to the app's protocol; return the other end."""
        self._protocol = protocol
        protocol.connection_made(self)
        return FrontEnd(self, protocol)

    # ---------------------------------------------------------------------- as the app's transport

    def write(self, data: Buffer) -> None:
        """See asyncio.WriteTransport."""
        if self._is_closing or not data:
            return
        self._pieces.append(bytes(data))
        self._size += len(data)
        self._schedule()
        if self._size > self._high and not self._is_paused and self._protocol is not None:
            self._is_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """See asyncio.WriteTransport."""
        for piece in list_of_data:
            self.write(piece)

    def can_write_eof(self) -> bool:
        """Return that a direction does not end alone: HTTP/1.1 needs no such end."""
        return False

    def get_write_buffer_size(self) -> int:
        """See asyncio.WriteTransport."""
        return self._size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep the limits: they are those of the front's other connections."""

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._is_closing

    def close(self) -> None:
        """End the connection behind all that was written."""
        self._is_closing = True
        self._schedule()

    def abort(self) -> None:
        """End the connection; undelivered bytes are lost."""
        self._pieces.clear()
        self._size = 0
        self.close()

    def is_reading(self) -> bool:
        """See asyncio.ReadTransport."""
        return self._is_reading

    def pause_reading(self) -> None:
        """Have the front stop its client."""
        if self._is_reading:
            self._is_reading = False
            self._receiver.pause_writing()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if not self._is_reading and not self._is_over:
            self._is_reading = True
            self._receiver.resume_writing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio.BaseTransport."""
        self._protocol = protocol

    def get_protocol(self) -> Any:
        """See asyncio.BaseTransport."""
        return self._protocol

    # ------------------------------------------------------------------------------ the delivery

    def hold(self, *, is_held: bool) -> None:
        """Deliver nothing while held."""
        self._is_held = is_held
        self._schedule()

    def break_off(self) -> None:
        """End the connection from the front's side; bytes that wait may be lost."""
        self._is_held = False
        self.abort()

    def _schedule(self) -> None:
        if not self._is_due and not self._is_over:
            self._is_due = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_due = False
        while self._pieces and not self._is_held:
            piece = self._pieces.popleft()
            self._size -= len(piece)
            self._receiver.data_received(piece)
        if self._is_paused and self._size <= self._low and self._protocol is not None:
            self._is_paused = False
            self._protocol.resume_writing()
        if self._is_closing and not self._pieces and not self._is_over:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(None)
        self._receiver.eof_received()
        self._receiver.connection_lost(None)


class FrontEnd:
    """The `Wire` of the front."""

    def __init__(self, app_end: AppEnd, protocol: asyncio.Protocol) -> None:
        self._app_end = app_end
        self._protocol = protocol

    def write(self, data: Buffer) -> None:
        """See Wire."""
        if not self._app_end.is_closing():
            self._protocol.data_received(bytes(data))

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        """See Wire."""
        for piece in pieces:
            self.write(piece)

    def write_eof(self) -> None:
        """End the connection behind the app's output: a client that ends its direction is gone."""
        if not self._app_end.is_closing():
            self._protocol.eof_received()
            self._app_end.close()

    def pause_reading(self) -> None:
        """See Wire."""
        self._app_end.hold(is_held=True)

    def resume_reading(self) -> None:
        """See Wire."""
        self._app_end.hold(is_held=False)

    def abort(self) -> None:
        """See Wire."""
        self._app_end.break_off()
