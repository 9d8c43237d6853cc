"""The queue of global requests, with handlers that answer at once, later, or never."""

import asyncio
from collections.abc import Awaitable

import asyncssh
import pytest
from asyncssh.constants import MSG_GLOBAL_REQUEST, MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS
from asyncssh.packet import Boolean, SSHPacket, String

from proxy.ssh.asyncssh_ext.requests import MAX_WAITING, OrderedRequests
from tests.fakes.asyncssh_parts import NoTransport, server_options


class _Connection(OrderedRequests):
    """Stands where a client is logged in; keeps what is answered and how deep asyncssh is in itself."""

    def __init__(self, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self._transport = NoTransport()
        self.answered: list[int] = []
        self.depth = self.deepest = 0

    def ask(self, name: str, data: bytes = b"") -> Awaitable[None] | None:
        packet = SSHPacket(String(name) + Boolean(True) + data)
        return self._process_global_request(MSG_GLOBAL_REQUEST, 0, packet)

    def send_packet(self, pkttype: int, *args: bytes, handler: object = None) -> None:
        self.answered.append(pkttype)

    def _service_next_global_request(self) -> None:
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        super()._service_next_global_request()
        self.depth -= 1

    def _process_later_global_request(self, packet: SSHPacket) -> None:
        """Answer when the test says so."""


@pytest.fixture
async def connection() -> _Connection:
    return _Connection(await server_options())


async def _until(connection: _Connection, answers: int) -> None:
    async with asyncio.timeout(60):
        while len(connection.answered) < answers:
            await asyncio.sleep(0)


async def test_what_waits_is_served_by_a_loop_that_gives_way_to_others(connection: _Connection) -> None:
    connection.ask("later")
    for _ in range(100):
        assert connection.ask("none@example.com") is None
    assert connection.answered == []
    connection._report_global_response(True)
    in_one_turn = len(connection.answered)
    assert 1 < in_one_turn < 50
    await _until(connection, 101)
    assert connection.answered == [MSG_REQUEST_SUCCESS, *[MSG_REQUEST_FAILURE] * 100]
    assert connection.deepest <= 2


async def test_one_that_is_pending_is_not_begun_twice(connection: _Connection) -> None:
    begun = []
    connection._process_later_global_request = begun.append  # type: ignore[method-assign]
    connection.ask("later")
    for _ in range(16):  # as many as one turn serves, so that the loop comes back
        connection.ask("none@example.com")
    connection.ask("later")
    connection._report_global_response(True)
    await _until(connection, 17)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(begun) == 2


async def test_a_full_queue_keeps_the_next_packet_waiting_until_there_is_space(
    connection: _Connection,
) -> None:
    connection.ask("later")
    waits = [connection.ask("none@example.com") for _ in range(MAX_WAITING)]
    assert waits[:-1] == [None] * (MAX_WAITING - 1)
    assert waits[-1] is not None
    full = asyncio.ensure_future(waits[-1])
    await asyncio.sleep(0)
    assert not full.done()
    connection._report_global_response(True)
    async with asyncio.timeout(60):
        await full
    await _until(connection, MAX_WAITING + 1)


@pytest.mark.parametrize("has_begun", [True, False])
async def test_the_end_of_the_connection_ends_the_wait_for_space(
    connection: _Connection, has_begun: bool
) -> None:
    connection.ask("later")
    waits = [connection.ask("none@example.com") for _ in range(MAX_WAITING)]
    assert waits[-1] is not None
    full = asyncio.ensure_future(waits[-1])
    if has_begun:
        await asyncio.sleep(0)
    connection.connection_lost(None)
    async with asyncio.timeout(60):
        await full
    assert connection.answered == []
