"""Nothing that a client sends costs another client its session: floods of every message beside a victim.

The proxy counts by itself what it does in a turn of its event loop (`tests.wire.counted`); no clock is asked.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_KEXINIT,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_UNIMPLEMENTED,
)
from asyncssh.packet import Boolean, String, UInt32

from proxy.ssh.asyncssh_ext import channels as channel_module
from proxy.ssh.asyncssh_ext.slices import LIMITS
from tests.wire import flooder
from tests.wire.clients import asyncssh_login
from tests.wire.conftest import assert_no_bugs
from tests.wire.flooder import Flooder
from tests.wire.harness import Fairlead
from tests.wire.messages import CHANNEL_REQUEST, GLOBAL_REQUEST, Handler, Row, framed, handlers, rows
from tests.wire.peers import MIB
from tests.wire.processes import resident_bytes

FEW, MANY = 100, 20_000
"""Packets of each row: several turns' worth, and what a soak sends."""
GROWTH_LIMIT_BYTES = 48 * MIB
STRANGER = "127.66.0.7"

counts_of_packets = pytest.mark.parametrize(
    "count", [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])]
)


class Counted(Fairlead):
    """A proxy that counts."""

    async def counts(self) -> dict[str, int]:
        """Give what was counted since the last call."""
        reader, writer = await asyncio.open_unix_connection(self.extra_env["COUNTED_SOCKET"])
        told = json.loads(await reader.read())
        writer.close()
        return dict(told)

    def resident_bytes(self) -> int:
        assert self.process is not None
        return resident_bytes(self.process.pid)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    directory = tmp_path_factory.mktemp("counted")
    server = Counted(directory, module="tests.wire.counted")
    server.extra_env = {
        "COUNTED_SOCKET": str(directory / "counts"),
        "FAIRLEAD_LOGIN__KEY_EXCHANGE_TIMEOUT_S": "3600",  # a flood ends by its last packet, not by time
        "FAIRLEAD_LOGIN__TIMEOUT_S": "3600",
        "FAIRLEAD_PROTECTION__ALLOW": '["127.0.0.0/8"]',
        "FAIRLEAD_RELAY__UNREAD_TIMEOUT_S": "1",
    }
    server.prepare()
    try:
        server.start()
        assert server.ssh("true").returncode == 0
        yield server
    finally:
        server.close()
    assert_no_bugs(server)


class Victim:
    """Somebody who types, and has to get every key back in its order."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self.echoes = 0

    async def type(self) -> None:
        said = b"%d\n" % self.echoes
        self._program.stdin.write(said)
        async with asyncio.timeout(flooder.PATIENCE_S):
            assert await self._program.stdout.readexactly(len(said)) == said
        self.echoes += 1

    async def type_until(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await self.type()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def victim_of(proxy: Counted) -> AsyncIterator[Victim]:
    async with asyncssh_login(proxy) as connection:
        program = await connection.create_process("cat", encoding=None)
        victim = Victim(program)
        await victim.type()
        yield victim
        await victim.type()
        program.stdin.write_eof()
        assert (await program.wait()).exit_status == 0


async def beside(victim: Victim, flood: Any) -> Any:
    """Run a flood while the victim types, and give what it gives."""
    enough = asyncio.Event()
    typing = asyncio.create_task(victim.type_until(enough))
    try:
        return await flood
    finally:
        enough.set()
        await typing


def faults(row: object, counts: dict[str, int], grown_bytes: int) -> list[str]:
    """Say which bound a row broke."""
    if not counts:
        return [f"{row}: nothing was processed"]
    found = []
    if counts["received"] > LIMITS.slice_units:
        found.append(f"{row}: {counts['received']} packets of one connection in a turn")
    if counts["received by all"] > 2 * LIMITS.turn_units:
        found.append(f"{row}: {counts['received by all']} packets of all connections in a turn")
    if grown_bytes > GROWTH_LIMIT_BYTES:
        found.append(f"{row}: {grown_bytes / MIB:.0f} MiB more")
    return found


def test_every_handler_has_a_row() -> None:
    assert handlers() - {row.handler for row in rows()} == set()
    assert {row.handler.number for row in rows()} == set(range(1, 256))


@counts_of_packets
async def test_before_keys_no_message_costs_the_neighbour_anything(proxy: Counted, count: int) -> None:
    async def flood(row: Row) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=64 * MIB)
        writer.write(b"SSH-2.0-flood\r\n" + framed(row) * count + framed(end))
        await reader.read()
        writer.close()

    end = next(row for row in rows() if row.handler == Handler(1))
    await _flood_each(proxy, flood)


@counts_of_packets
@pytest.mark.parametrize("address", ["127.0.0.1", STRANGER])
async def test_before_login_no_message_costs_the_neighbour_anything(
    proxy: Counted, count: int, address: str
) -> None:
    crowd = _Crowd(lambda: flooder.not_logged_in(proxy, address))

    async def flood(row: Row) -> None:
        await (await crowd.one()).flood(row.handler.number, row.payload, count)
        await crowd.settle()

    try:
        await _flood_each(proxy, flood)
    finally:
        await crowd.close()


@counts_of_packets
async def test_after_login_no_message_costs_the_neighbour_anything(proxy: Counted, count: int) -> None:
    crowd = _Crowd(lambda: flooder.logged_in(proxy))

    async def flood(row: Row) -> None:
        client = await crowd.one()
        channel = await client.open_channel()
        payload = next(other.payload for other in rows(channel) if other.handler == row.handler)
        await client.flood(row.handler.number, payload, count)
        await crowd.settle()
        if row.handler.name in ("no-more-sessions@openssh.com", "session"):
            await crowd.close()  # the next message needs a session, and room for one

    try:
        await _flood_each(proxy, flood)
    finally:
        await crowd.close()


UNREAD = "does not read the answers"


async def test_before_keys_a_client_that_reads_the_answers_is_heard_to_the_end(proxy: Counted) -> None:
    """No answer waits for the end of the first key exchange: all go out at once."""
    count, told = 6_000, proxy.log.count(UNREAD)
    unknown, end = (next(row for row in rows() if row.handler == Handler(number)) for number in (8, 1))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"SSH-2.0-flood\r\n" + framed(unknown) * count + framed(end))
    answered = (await reader.read())[-16:]
    writer.close()
    assert answered[5:10] == bytes([MSG_UNIMPLEMENTED]) + UInt32(count - 1)
    assert proxy.log.count(UNREAD) == told
    await proxy.counts()


@pytest.mark.parametrize(
    ("number", "payload"),
    [pytest.param(200, b"", id="unknown"), pytest.param(192, String(bytes(1_000)), id="ping")],
)
async def test_replies_that_a_client_does_not_read_wait_within_a_bound(
    proxy: Counted, number: int, payload: bytes
) -> None:
    """The client is heard no more, and its connection ends by `relay.unread_timeout_s`."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    link.connect(("127.0.0.1", proxy.port))
    link.setblocking(False)
    async with victim_of(proxy) as victim, flooder.logged_in(proxy, host="", port=0, sock=link) as client:
        before, told = proxy.resident_bytes(), proxy.log.count(UNREAD)
        assert client._transport is not None
        client._transport.pause_reading()

        async def flood() -> None:
            async with asyncio.timeout(flooder.PATIENCE_S):
                while client._transport is not None and proxy.log.count(UNREAD) == told:
                    if client._transport.get_write_buffer_size() < MIB // 8:
                        await client.flood(number, payload, 1_000)
                    await asyncio.sleep(0.02)

        await beside(victim, flood())
        assert proxy.resident_bytes() - before < GROWTH_LIMIT_BYTES
        await proxy.counts()


async def test_output_in_packets_of_one_byte_leaves_room_for_others(proxy: Counted) -> None:
    size = 40_000
    async with victim_of(proxy) as victim, flooder.logged_in(proxy) as client:
        channel = await client.open_channel(packet_bytes=1)
        await proxy.counts()
        request = UInt32(channel) + String("exec") + Boolean(False) + String(f"head -c {size} /dev/zero")
        await client.flood(CHANNEL_REQUEST, request, 1)
        await beside(victim, client.hear(MSG_CHANNEL_CLOSE, lambda _: True))
        assert client.data_bytes == size
        # One bounded write of the relay, and one slice of what it left.
        assert (await proxy.counts())["sent"] <= 2 * channel_module._SENT_AT_ONCE


async def test_one_key_exchange_after_another_leaves_room_for_others(proxy: Counted) -> None:
    async with victim_of(proxy) as victim, asyncssh_login(proxy) as connection:

        async def exchange_keys() -> None:
            for _ in range(20):
                done = connection._loop.create_future()
                connection.send_newkeys = _then(connection, done)  # type: ignore[method-assign]
                connection._send_kexinit()
                connection._kexinit_sent = True
                async with asyncio.timeout(flooder.PATIENCE_S):
                    await done

        await beside(victim, exchange_keys())
        assert (await connection.run("echo alive")).stdout == "alive\n"
        await proxy.counts()


async def test_output_waits_in_its_program_during_a_key_exchange(proxy: Counted) -> None:
    """Nothing may be sent between KEXINIT and NEWKEYS (RFC 4253 §7.1), and a client decides when that is."""
    async with victim_of(proxy) as victim, flooder.logged_in(proxy) as client:
        channel = await client.open_channel()
        before = proxy.resident_bytes()
        request = UInt32(channel) + String("exec") + Boolean(False) + String("head -c 300M /dev/zero")
        await client.flood(CHANNEL_REQUEST, request, 1)
        await client.flood(MSG_KEXINIT, client._client_kexinit[1:], 1)
        for _ in range(200):
            await victim.type()
        assert proxy.resident_bytes() - before < GROWTH_LIMIT_BYTES
        await proxy.counts()


async def test_requests_during_a_key_exchange_that_never_ends_end_the_connection(proxy: Counted) -> None:
    request = next(row for row in rows() if row.handler == Handler(GLOBAL_REQUEST))
    async with victim_of(proxy) as victim, flooder.logged_in(proxy) as client:
        await client.flood(MSG_KEXINIT, client._client_kexinit[1:], 1)
        await client.flood(request.handler.number, request.payload, 6_000)
        assert not await beside(victim, client.is_heard())
        await proxy.counts()


async def test_one_request_costs_no_more_signatures_than_there_are_host_keys(proxy: Counted) -> None:
    async with asyncssh_login(proxy) as connection:
        key = connection.get_server_host_key()
        assert key is not None
        asked = String(key.public_data)
        answers = [
            await connection._make_global_request(b"hostkeys-prove-00@openssh.com", asked * count)
            for count in (1, 20)
        ]
        assert [number for number, _ in answers] == [MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE]


def _then(connection: Any, done: "asyncio.Future[None]") -> Callable[[bytes, bytes], None]:
    """Tell when new keys are in use."""

    def send_newkeys(k: bytes, h: bytes) -> None:
        type(connection).send_newkeys(connection, k, h)
        done.set_result(None)

    return send_newkeys


async def _flood_each(proxy: Counted, flood: Callable[[Row], Any]) -> None:
    """Flood with every row in turn beside one victim, and name the rows that broke a bound."""
    async with victim_of(proxy) as victim:
        broken: list[str] = []
        await proxy.counts()
        for row in rows():
            before = proxy.resident_bytes()
            try:
                await beside(victim, flood(row))
            except Exception as exc:
                exc.add_note(f"while {row} was flooded")
                raise
            counts = await proxy.counts()
            broken += faults(row, counts, proxy.resident_bytes() - before)
        assert broken == []


class _Crowd:
    """The flooder at work; another one when the server has ended its connection."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Flooder]]) -> None:
        self._make = make
        self._context: AbstractAsyncContextManager[Flooder] | None = None
        self._client: Flooder | None = None

    async def one(self) -> Flooder:
        await self.settle()
        if self._client is None:
            self._context = self._make()
            self._client = await self._context.__aenter__()
        return self._client

    async def settle(self) -> None:
        """Wait until the server has processed everything, or ended the connection."""
        if self._client is not None and not await self._client.is_heard():
            await self.close()

    async def close(self) -> None:
        if self._context is not None:
            await self._context.__aexit__(None, None, None)
        self._context = self._client = None
