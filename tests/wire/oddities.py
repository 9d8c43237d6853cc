"""Messages against the rules, made of those of `tests.wire.messages`, and a client that sends them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncssh
from asyncssh.packet import Boolean, SSHPacket, String, UInt32

from tests.wire.direct import Place
from tests.wire.flooder import PATIENCE_S, Flooder
from tests.wire.messages import CHANNEL_DATA, CHANNEL_OPEN, CHANNEL_REQUEST, GLOBAL_REQUEST, Row, rows

Packets = list[tuple[int, bytes]]

UNTIL_CLOSED = (0, b"")
ANSWERS = {
    3: "unimplemented",
    81: "success",
    82: "failure",
    91: "confirmed",
    92: "refused",
    97: "closed",
    99: "success",
    100: "failure",
}
ENDS, NOTHING = "ends", "nothing"
KEXINIT, EOF, CLOSE = 20, 96, 97
_REQUEST_SUCCESS, _OPEN_CONFIRMATION, _CHANNEL_SUCCESS = 81, 91, 99
_NO_SUCH_MESSAGE = 8
_NEIGHBOUR = 5
_FIRST_TRIED = 1_000
"""Numbers that the client gives to its channels. Each channel that is tried has a number of its own from
`_FIRST_TRIED` on: the CLOSE of an earlier one may come while a later one is tried."""
_WINDOW = 2**31 - 1
_NEVER_OPENED = 7_777
_OF_CHANNELS = range(93, 101)
_TEXTS = {
    "4": b"x",
    "2": b"x",
    "80": b"nothing@example.com",
    "80 tcpip-forward": b"127.0.0.1",
    "80 cancel-tcpip-forward": b"127.0.0.1",
    "80 streamlocal-forward@openssh.com": b"/nowhere/at/all",
    "80 cancel-streamlocal-forward@openssh.com": b"/nowhere/at/all",
    "90": b"nothing",
    "90 direct-tcpip": b"127.0.0.1",
    "90 direct-streamlocal@openssh.com": b"/nowhere/at/all",
    "98": b"nothing",
    "98 pty-req": b"xterm",
    "98 env": b"LANG",
    "98 exec": b"true",
    "98 subsystem": b"sftp",
    "98 signal": b"CONT",
}
"""The text of a message that is to be none in UTF-8."""


class Opened(NamedTuple):
    """A channel as the server confirmed it."""

    number: int
    window_bytes: int


class Oddity(NamedTuple):
    """What is wrong with a message, and how it is sent."""

    name: str
    make: Callable[[Opened], Packets]
    """Gives the packets to be sent; UNTIL_CLOSED among them waits for the server's CLOSE."""
    program: str = "cat"
    """What runs in the channel; nothing yet where empty."""


def oddities(row_of: Callable[[int], Row]) -> Iterator[Oddity]:
    """Give what can be wrong with a message; `row_of` makes it for a channel."""
    handler = row_of(0).handler
    number = handler.number

    def changed(name: str, change: Callable[[bytes], bytes]) -> Oddity:
        program = "" if handler.name else "cat"
        return Oddity(name, lambda at: [(number, change(row_of(at.number).payload))], program)

    yield changed("as it is", lambda payload: payload)
    yield changed("cut short", lambda payload: payload[:-1])
    yield changed("a byte more", lambda payload: payload + b"x")
    if number in (2, 3, 4, 7, 80, 81, 82, 90) and not handler.name:
        yield changed("empty", lambda _: b"")
    if number == 2:
        yield changed("bytes without a length", lambda _: b"abc")
    if text := _TEXTS.get(str(handler)):
        yield changed("not UTF-8", lambda payload: payload.replace(text, text[:-1] + b"\xff", 1))
    if number == CHANNEL_OPEN:
        size_at = 4 + len(handler.name or "nothing") + 8
        without = changed(
            "maximum packet of 0",
            lambda payload: payload[:size_at] + UInt32(0) + payload[size_at + 4 :],
        )
        yield without
        if not handler.name:
            yield changed(
                "type 'channel'", lambda payload: payload.replace(String("nothing"), String("channel"))
            )
    if number in _OF_CHANNELS and not handler.name:
        yield from _of_channels(number, row_of)


def _of_channels(number: int, row_of: Callable[[int], Row]) -> Iterator[Oddity]:
    def message(at: Opened) -> tuple[int, bytes]:
        return number, row_of(at.number).payload

    def close(at: Opened) -> tuple[int, bytes]:
        return CLOSE, UInt32(at.number)

    yield Oddity("twice", lambda at: [message(at)] * 2)
    yield Oddity("after EOF", lambda at: [(EOF, UInt32(at.number)), message(at)])
    yield Oddity("after CLOSE", lambda at: [close(at), message(at)])
    yield Oddity("after both CLOSE", lambda at: [close(at), UNTIL_CLOSED, message(at)])
    yield Oddity("for a channel that never was", lambda at: [message(at._replace(number=_NEVER_OPENED))])
    if number == CHANNEL_DATA:
        yield Oddity("far beyond the window", _beyond_the_window, program="sleep 60")


def _beyond_the_window(at: Opened) -> Packets:
    size = 32_768
    return [(CHANNEL_DATA, UInt32(at.number) + String(bytes(size)))] * (5 * at.window_bytes // size)


def rows_of(handler: object) -> Callable[[int], Row]:
    """Give what makes the message of a handler for a channel."""
    return lambda channel: next(row for row in rows(channel) if row.handler == handler)


class Odd(Flooder):
    """A client that keeps all that it hears, and does nothing about it."""

    _last_tried = _FIRST_TRIED - 1

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        del pktid
        self.hears.put_nowait((pkttype, packet))
        return True

    async def start_next(self, command: str) -> Opened:
        """Open the next channel that is tried, and run a program in it unless there is none."""
        self._last_tried += 1
        return await self.start(self._last_tried, command)

    async def start(self, sender: int, command: str) -> Opened:
        """Open a session channel, and run a program in it unless there is none."""
        self.send_packet(CHANNEL_OPEN, String("session"), UInt32(sender), UInt32(_WINDOW), UInt32(32_768))

        def opened(packet: SSHPacket) -> Opened | None:
            recipient, number, window = (packet.get_uint32() for _ in range(3))
            return Opened(number, window) if recipient == sender else None

        channel = await self.hear(_OPEN_CONFIRMATION, opened)
        assert isinstance(channel, Opened), "the server opens no channel"
        if command:
            asked = String("exec") + Boolean(True) + String(command)
            self.send_packet(CHANNEL_REQUEST, UInt32(channel.number), asked)
            assert await self.hear(_CHANNEL_SUCCESS, lambda packet: channel_of(packet) == sender or None)
        return channel

    async def listen(self) -> int:
        """Have the server listen on a port of 127.0.0.1, and return it."""
        asked = String("tcpip-forward") + Boolean(True) + String("127.0.0.1") + UInt32(0)
        self.send_packet(GLOBAL_REQUEST, asked)
        port = await self.hear(_REQUEST_SUCCESS, lambda packet: packet.get_uint32())
        assert port is not None
        return int(port)

    async def asked_to_open(self) -> int:
        """Wait for the server to open a channel, and return the server's number of it."""

        def number(packet: SSHPacket) -> int:
            packet.get_string()
            return packet.get_uint32()

        found = await self.hear(CHANNEL_OPEN, number)
        assert found is not None
        return int(found)

    async def has_closed(self) -> bool:
        """Wait for the CLOSE of the channel that is tried."""
        return bool(await self.hear(CLOSE, lambda packet: channel_of(packet) == self._last_tried or None))

    async def send(self, packets: Packets) -> None:
        """Send packets in one write, or in two around a wait for a CLOSE."""
        if UNTIL_CLOSED in packets:
            at = packets.index(UNTIL_CLOSED)
            self.send_together(packets[:at])
            await self.has_closed()
            packets = packets[at + 1 :]
        self.send_together(packets)

    async def echoes(self, channel: Opened) -> bool:
        """Whether the program of the neighbouring channel still answers."""
        self.send_packet(CHANNEL_DATA, UInt32(channel.number), String("echo"))
        return bool(await self.hear(CHANNEL_DATA, lambda packet: channel_of(packet) == _NEIGHBOUR or None))

    async def outcome(self, packets: Packets, expected: str) -> str:
        """Send packets at a stroke, and return the first answer, `nothing` or `ends`.

        What is expected is waited for: a workspace answers later than the proxy.
        """
        while not self.hears.empty():
            self.hears.get_nowait()
        await self.send(packets)
        probe = self._send_seq
        self.send_packet(_NO_SUCH_MESSAGE)
        was_probed, first = False, ""
        async with asyncio.timeout(PATIENCE_S):
            while not (was_probed and (first or expected == NOTHING)):
                heard = await self.hear_any()
                if heard is None:
                    return ENDS
                kind, packet = heard
                if kind == 3 and packet.get_uint32() == probe:
                    was_probed = True
                    if expected in (ENDS, "unimplemented"):  # both would have been heard before
                        break
                elif kind in ANSWERS and not self._is_of_another(kind, packet):
                    first = first or ANSWERS[kind]
        return first or NOTHING

    def _is_of_another(self, kind: int, packet: SSHPacket) -> bool:
        """Whether a packet is for the neighbour, or for a channel that was tried earlier."""
        if kind not in _OF_CHANNELS:
            return False
        return channel_of(packet) == _NEIGHBOUR or _FIRST_TRIED <= channel_of(packet) < self._last_tried

    async def hear_any(self) -> tuple[int, SSHPacket] | None:
        """Wait for the next packet; None when the connection has ended."""
        return await next_heard(self, self.hears)


Heard = tuple[int, SSHPacket]


async def next_heard(connection: asyncssh.SSHClientConnection, hears: "asyncio.Queue[Heard]") -> Heard | None:
    """Wait for the next packet that a connection heard; None when the connection has ended."""
    closed = asyncio.create_task(connection.wait_closed())
    heard = asyncio.create_task(hears.get())
    try:
        await asyncio.wait([heard, closed], return_when=asyncio.FIRST_COMPLETED)
        return heard.result() if heard.done() else None
    finally:
        closed.cancel()
        heard.cancel()


def channel_of(packet: SSHPacket) -> int:
    """Return the channel that a packet is for; it is the first field of all messages of channels."""
    return int.from_bytes(packet.get_full_payload()[1:5], "big")


@asynccontextmanager
async def odd_client(place: Place) -> AsyncIterator[tuple[Odd, Opened]]:
    """Give a client that is logged in, and its channel in which `cat` runs."""
    async with place.login(kex_algs=["curve25519-sha256"], login_timeout=PATIENCE_S) as connection:
        client = Odd.of(connection)
        assert isinstance(client, Odd)
        try:
            yield client, await client.start(_NEIGHBOUR, "cat")
        finally:
            client.abort()


async def outcomes(place: Place, makes: Sequence[tuple[Oddity, str]]) -> dict[str, str]:
    """Return what becomes of each oddity, all on one connection for as long as it lives."""
    found: dict[str, str] = {}
    left = list(makes)
    while left:
        async with odd_client(place) as (client, neighbour):
            while left:
                oddity, expected = left.pop(0)
                channel = await client.start_next(oddity.program)
                packets = oddity.make(channel)
                found[oddity.name] = result = await client.outcome(packets, expected)
                if result == ENDS or any(number == KEXINIT for number, _ in packets):
                    break
                if not await client.echoes(neighbour):
                    found[oddity.name] = f"{result}, and the neighbouring channel is dead"
                    break
    return found
