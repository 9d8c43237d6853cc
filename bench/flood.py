"""A flood of one kind of message, from a process of its own: `python -m bench.flood --port … KIND COUNT`.

Logs in, makes `COUNT` packets, prints one line when they are ready, sends them at a stroke after a line on
standard input, and ends when the server has processed them all or ended the connection.
"""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from typing import Any

import asyncssh
from asyncssh.constants import MSG_CHANNEL_OPEN, MSG_IGNORE, MSG_UNIMPLEMENTED
from asyncssh.packet import Boolean, SSHPacket, String, UInt32

_NO_SUCH_MESSAGE = 8
_PATIENCE_S = 60

KINDS: dict[str, tuple[int, bytes]] = {
    "ignore": (MSG_IGNORE, String(b"x")),
    "unknown message": (200, b""),
    "global request": (80, String("nothing@example.com") + Boolean(True)),
    "channel open": (MSG_CHANNEL_OPEN, String("nothing") + UInt32(9) * 3),
    "channel request": (98, UInt32(0) + String("nothing") + Boolean(True)),
    "window adjust": (93, UInt32(0) + UInt32(1)),
    "one byte of data": (94, UInt32(0) + String(b"x")),
}
"""Number and payload; channel 0 is the first of either server."""


class _Deaf(asyncssh.SSHClientConnection):
    """Waits for one answer and hears nothing else."""

    answered: asyncio.Event
    asked: int

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype != MSG_IGNORE or args != (String(b""),):  # asyncssh puts one before every packet
            super().send_packet(pkttype, *args, handler=handler)

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        del pktid
        if pkttype == MSG_UNIMPLEMENTED and packet.get_uint32() == self.asked:
            self.answered.set()
        return True


class _Everything(dict[int, Any]):
    """Whatever comes for a channel is the connection's."""

    def __init__(self, connection: _Deaf) -> None:
        super().__init__()
        self._connection = connection

    def __missing__(self, number: int) -> _Deaf:
        return self._connection


async def _flood(arguments: Namespace) -> None:
    plain = await asyncssh.connect(
        "127.0.0.1",
        port=arguments.port,
        username=arguments.login,
        client_keys=[arguments.key],
        known_hosts=None,
        config=None,
        agent_path=None,
        encryption_algs=["aes128-gcm@openssh.com"],
        compression_algs=["none"],
        login_timeout=_PATIENCE_S,
    )
    await plain.create_process("sleep 600", encoding=None)
    connection: Any = plain
    connection.__class__ = _Deaf
    connection.answered, connection.asked = asyncio.Event(), -1
    connection._channels = _Everything(connection)
    number, payload = KINDS[arguments.kind]
    pieces: list[bytes] = []
    connection._send = pieces.append
    for _ in range(arguments.count):
        connection.send_packet(number, payload)
    connection.asked = connection._send_seq
    connection.send_packet(_NO_SUCH_MESSAGE)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    connection._transport.write(b"".join(pieces))
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            ends = [asyncio.ensure_future(end) for end in (connection.answered.wait(), plain.wait_closed())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    connection.abort()


def main() -> None:
    """Flood once."""
    parser = ArgumentParser(prog="python -m bench.flood", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--login", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("count", type=int)
    asyncssh.set_log_level("CRITICAL")
    asyncio.run(_flood(parser.parse_args()))


if __name__ == "__main__":
    main()
