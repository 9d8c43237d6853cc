"""The WebSocket of a terminal as the channel of a program: the page paces both directions.

A program is stopped while `WINDOW_BYTES` are on the way to the terminal and not drawn; a page stops sending
input while the program does not read. Control messages pass in spite of both.
"""

import asyncio
from collections import deque
from typing import Protocol

from proxy.access.relay import Gate, Inbound, Outbound, cut
from proxy.upstream.frame_codec import Buffer
from proxy.web.terminal import messages
from proxy.web.terminal.messages import MessageInvalid

WINDOW_BYTES = 512 * 1024
"""Output that may be on its way: 10 MiB/s at a round trip of 50 ms."""
INPUT_BYTES = 128 * 1024
"""Input that may wait for the program when the page is given more room; twice as much is held at most."""
_WAITING_BYTES = 64 * 1024
"""Output that waits here, at which the program is stopped."""
_FRAME_BYTES = 64 * 1024


class Socket(Protocol):
    """The part of a WebSocket that is used for output."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message, and wait until more may follow."""

    async def send_str(self, data: str) -> None:
        """Send a text message."""


class TerminalChannel:
    """A `Channel` of `access.relay` over one WebSocket; `send` runs beside it until cancelled."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self.inbound = Inbound(INPUT_BYTES)
        self.outbound = Outbound(Gate())
        self._pieces: deque[Buffer] = deque()
        self._waiting = 0
        self._high = _WAITING_BYTES
        self._sent = 0
        self._shown = 0
        self._room = INPUT_BYTES
        """What the page may send in all."""
        self._is_input_held = False
        self._has_news = asyncio.Event()
        self._is_closed = False
        self.inbound.attach(self)
        self.outbound.attach(self)

    # --------------------------------------------------------------------------- from the page

    def received(self, data: bytes) -> None:
        """Take input. Raises: MessageInvalid for more than there is room for."""
        if self.inbound.received + len(data) > self._room:
            raise MessageInvalid("more input than there is room for")
        self.inbound.feed(data)
        if not self._is_input_held:
            self._give_room()

    def shown(self, total: int) -> None:
        """Take the number of bytes that the terminal has drawn. Raises: MessageInvalid."""
        if not self._shown <= total <= self._sent:
            raise MessageInvalid("the terminal has drawn what was not sent")
        self._shown = total
        self._has_news.set()

    def closed(self) -> None:
        """Drop waiting output: the page is gone."""
        self._is_closed = True
        self.drop_unsent()

    def _give_room(self) -> None:
        if self.inbound.received + INPUT_BYTES - self._room >= INPUT_BYTES // 2:
            self._room = self.inbound.received + INPUT_BYTES
            self._has_news.set()

    # ------------------------------------------------------------------------------ as a channel

    def write(self, data: Buffer, datatype: int | None = None) -> None:
        """See Channel; both outputs of a program are drawn alike."""
        del datatype
        self._pieces.append(data)
        self._waiting += len(data)
        self._has_news.set()
        self._set_gate()

    def write_eof(self) -> None:
        """See Channel: a terminal learns of the end by the last message."""

    def pause_reading(self) -> None:
        """See Channel: give the page no more room."""
        self._is_input_held = True

    def resume_reading(self) -> None:
        """See Channel."""
        self._is_input_held = False
        self._give_room()

    def is_closing(self) -> bool:
        """See Channel."""
        return self._is_closed

    @property
    def unsent_bytes(self) -> int:
        """See Channel."""
        return self._waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See Channel; writing is paused above `high` and resumed at it."""
        del low
        self._high = _WAITING_BYTES if high is None else high
        self._set_gate()

    def drop_unsent(self) -> None:
        """See Channel."""
        self._pieces.clear()
        self._waiting = 0
        self._set_gate()

    def _set_gate(self) -> None:
        if self._waiting > self._high:
            self.outbound.gate.shut()
        else:
            self.outbound.gate.open()

    # -------------------------------------------------------------------------------- its sender

    async def send(self) -> None:
        """Send output within the window, and the room for input. Raises: as the socket."""
        room = 0
        while True:
            self._has_news.clear()
            if self._room != room:
                room = self._room
                await self._socket.send_str(messages.room(room))
            while data := self._cut():
                self._sent += len(data)
                await self._socket.send_bytes(data)
                self._set_gate()
            await self._has_news.wait()

    def _cut(self) -> bytes:
        """Take output that waits, as much as the window has room for and one message holds."""
        limit = min(_FRAME_BYTES, WINDOW_BYTES - (self._sent - self._shown))
        taken, size = cut(self._pieces, limit)
        self._waiting -= size
        return b"".join(taken)
