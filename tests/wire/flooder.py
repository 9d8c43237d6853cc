"""A client of asyncssh that sends one message many times, at a stroke, and asks whether it is still heard."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_IGNORE,
    MSG_UNIMPLEMENTED,
)
from asyncssh.packet import SSHPacket, String, UInt32

from tests.wire.clients import USER
from tests.wire.harness import Fairlead

PATIENCE_S = 100
_NO_SUCH_MESSAGE = 8


class Flooder(asyncssh.SSHClientConnection):
    """A connection that has become deaf to everything but what its owner waits for."""

    data_bytes: int
    """Of the channels, received so far."""
    packets: int
    """Received so far, each a sign of life: 20,000 requests that a workspace answers take minutes."""
    hears: "asyncio.Queue[tuple[int, SSHPacket]]"

    @classmethod
    def of(cls, connection: asyncssh.SSHClientConnection) -> "Flooder":
        """Make one of a connection in whatever state it is."""
        connection.__class__ = cls
        assert isinstance(connection, Flooder)
        connection.data_bytes = connection.packets = 0
        connection.hears = asyncio.Queue()
        connection._channels = _Everything(connection)
        return connection

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype != MSG_IGNORE or args != (String(b""),):  # asyncssh puts one before every packet
            super().send_packet(pkttype, *args, handler=handler)

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        del pktid
        self.packets += 1
        if pkttype == MSG_CHANNEL_DATA:
            self.data_bytes += len(packet.get_string())
        if pkttype in (MSG_UNIMPLEMENTED, MSG_CHANNEL_OPEN_CONFIRMATION, MSG_CHANNEL_CLOSE):
            self.hears.put_nowait((pkttype, packet))
        return True

    async def hear(self, kind: int, wanted: Callable[[SSHPacket], Any]) -> Any:
        """Wait for a packet of a kind of which `wanted` gives something; None when the connection ends.

        Raises: TimeoutError when the server sends nothing at all for `PATIENCE_S`.
        """
        closed = asyncio.create_task(self.wait_closed())
        try:
            while True:
                before = self.packets
                heard = asyncio.create_task(self.hears.get())
                await asyncio.wait([heard, closed], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
                if heard.done():
                    number, packet = heard.result()
                    if number == kind and (found := wanted(packet)) is not None:
                        return found
                    continue
                heard.cancel()
                if closed.done():
                    return None
                if self.packets == before:
                    raise TimeoutError(f"the server sent nothing for {PATIENCE_S} s")
        finally:
            closed.cancel()

    async def open_channel(self, packet_bytes: int = 32_768) -> int:
        """Open a session that runs nothing; gives the server's number."""
        self.send_packet(
            MSG_CHANNEL_OPEN, String("session"), UInt32(7), UInt32(2**31 - 1), UInt32(packet_bytes)
        )

        def number(packet: SSHPacket) -> int | None:
            return packet.get_uint32() if packet.get_uint32() == 7 else None

        found = await self.hear(MSG_CHANNEL_OPEN_CONFIRMATION, number)
        assert found is not None
        return int(found)

    async def flood(self, number: int, payload: bytes, count: int) -> None:
        """Send `count` packets at a stroke."""
        self.send_together([(number, payload)] * count)

    def send_together(self, packets: Iterable[tuple[int, bytes]]) -> None:
        """Send packets in one write."""
        transport = self._transport
        if transport is None:
            return
        gathered = _Gathered(transport)
        self._transport = gathered
        for number, payload in packets:
            self.send_packet(number, payload)
        self._transport = transport
        transport.write(b"".join(gathered.pieces))

    async def is_heard(self) -> bool:
        """Wait until everything sent was processed; False when the server ended the connection instead."""
        if self._transport is None:
            return False
        asked = self._send_seq
        self.send_packet(_NO_SUCH_MESSAGE)

        def is_answer(packet: SSHPacket) -> bool | None:
            return True if packet.get_uint32() == asked else None

        return await self.hear(MSG_UNIMPLEMENTED, is_answer) is not None


class _Everything(dict):  # type: ignore[type-arg]
    """Whatever comes for a channel is the connection's."""

    def __init__(self, connection: Flooder) -> None:
        super().__init__()
        self._connection = connection

    def __missing__(self, number: int) -> Flooder:
        return self._connection


class _Gathered:
    """Stands for a transport while packets are made."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.pieces: list[bytes] = []
        self._transport = transport

    def write(self, data: bytes) -> None:
        self.pieces.append(bytes(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Undecided(asyncssh.SSHClient):
    """Gets as far as the first question for a key, and never answers it."""

    def __init__(self) -> None:
        self.connection: asyncssh.SSHClientConnection
        self.is_asked = asyncio.Event()

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.connection = conn

    async def public_key_auth_requested(self) -> None:
        self.is_asked.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def logged_in(fairlead: Fairlead, **options: Any) -> AsyncIterator[Flooder]:
    """Give a flooder that is logged in; `options` are asyncssh's."""
    options = {"host": "127.0.0.1", "client_keys": [str(fairlead.key)], **_options(fairlead), **options}
    connection = await asyncssh.connect(**options)
    try:
        yield Flooder.of(connection)
    finally:
        connection.abort()


@asynccontextmanager
async def not_logged_in(fairlead: Fairlead, address: str = "127.0.0.1") -> AsyncIterator[Flooder]:
    """Give a flooder that has keys and said a user's name, and proved nothing."""
    owner = _Undecided()

    async def log_in() -> None:
        options = {"local_addr": (address, 0), **_options(fairlead)}
        await asyncssh.connect("127.0.0.1", client_factory=lambda: owner, **options)

    login, asked = asyncio.create_task(log_in()), asyncio.create_task(owner.is_asked.wait())
    try:
        await asyncio.wait([login, asked], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if login.done():
            login.result()  # raises what the server ended it with
        assert asked.done(), f"no key was asked for within {PATIENCE_S} s"
        yield Flooder.of(owner.connection)
    finally:
        if hasattr(owner, "connection"):
            owner.connection.abort()
        asked.cancel()
        login.cancel()
        with suppress(asyncio.CancelledError, asyncssh.Error, OSError):
            await login


def _options(fairlead: Fairlead) -> dict[str, Any]:
    return {
        "port": fairlead.port,
        "username": USER,
        "known_hosts": None,
        "config": None,
        "agent_path": None,
        "preferred_auth": "publickey",
        "kex_algs": ["curve25519-sha256"],
        "login_timeout": PATIENCE_S,
    }
