"""Pings of OpenSSH (`ping@openssh.com`), among which its clients since 9.5 hide the timing of keystrokes."""

import asyncio

import asyncssh
import pytest
from asyncssh.packet import SSHPacket, String

from tests.wire.clients import asyncssh_login
from tests.wire.harness import Fairlead

PING, PONG = 192, 193
PATIENCE_S = 60

pytestmark = pytest.mark.usefixtures("warm")


class Pinger(asyncssh.SSHClient):
    """A client that writes down what the server announces and each pong."""

    def __init__(self) -> None:
        self.announced: dict[bytes, bytes] = {}
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        hear_ext_info = conn._packet_handlers[7]

        def ext_info(_: object, kind: int, number: int, packet: SSHPacket) -> object:
            told = SSHPacket(packet.get_full_payload()[1:])
            for _extension in range(told.get_uint32()):
                name = told.get_string()
                self.announced[name] = told.get_string()
            return hear_ext_info(conn, kind, number, packet)  # type: ignore[arg-type]

        def pong(_: object, kind: int, number: int, packet: SSHPacket) -> None:
            self.pongs.put_nowait(packet.get_string())

        conn._packet_handlers = {**conn._packet_handlers, 7: ext_info, PONG: pong}  # type: ignore[dict-item]


async def test_pings_are_announced_and_each_is_answered_with_what_it_carries(fairlead: Fairlead) -> None:
    async with asyncssh_login(fairlead, client_factory=Pinger) as client:
        pinger = client.get_owner()
        assert isinstance(pinger, Pinger)
        assert pinger.announced[b"ping@openssh.com"] == b"0"
        sent = [b"", b"PING!", bytes(30_000), *(b"%d" % number for number in range(200))]
        for data in sent:
            client.send_packet(PING, String(data))
        async with asyncio.timeout(PATIENCE_S):
            assert [await pinger.pongs.get() for _ in sent] == sent
        assert (await client.run("echo alive")).stdout == "alive\n"
