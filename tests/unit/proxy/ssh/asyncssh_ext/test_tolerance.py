"""Windows that a client exceeds, and log lines about what it should not have sent."""

import asyncio

import asyncssh
import pytest
from asyncssh.constants import MSG_CHANNEL_CLOSE
from structlog.testing import capture_logs

from proxy.ssh.asyncssh_ext.channels import FastPathChannel
from proxy.ssh.asyncssh_ext.tolerance import TolerantConnection
from tests.fakes.asyncssh_parts import NoTransport, server_options

_WINDOW = 1_000


class _Connection(TolerantConnection):
    """A connection that keeps the numbers of what it sends."""

    def __init__(self, options: asyncssh.SSHServerConnectionOptions) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self._transport = NoTransport()
        self.sent: list[int] = []

    def send_packet(self, pkttype: int, *args: bytes, handler: object = None) -> None:
        self.sent.append(pkttype)


class _Session(asyncssh.SSHTCPSession[bytes]):
    """A session that keeps how much it got."""

    def __init__(self) -> None:
        self.received = 0

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.received += len(data)


@pytest.fixture
async def connection() -> _Connection:
    return _Connection(await server_options())


@pytest.fixture
async def channel(connection: _Connection) -> FastPathChannel:
    """A channel that is open and not read from."""
    made = FastPathChannel(connection, asyncio.get_running_loop(), None, "strict", _WINDOW, 32_768)
    made._session = _Session()
    made._send_chan, made._send_state, made._recv_state = 0, "open", "open"
    made._recv_paused = True
    return made


async def test_a_window_may_be_exceeded_by_a_tenth(connection: _Connection, channel: FastPathChannel) -> None:
    channel.receive(memoryview(bytes(_WINDOW)))
    channel.receive(memoryview(bytes(_WINDOW // 10)))
    assert connection.sent == []
    channel.resume_reading()
    session = channel._session
    assert isinstance(session, _Session)
    assert session.received == _WINDOW + _WINDOW // 10


async def test_what_exceeds_it_by_more_closes_the_channel(
    connection: _Connection, channel: FastPathChannel
) -> None:
    channel.receive(memoryview(bytes(_WINDOW)))
    for _ in range(_WINDOW // 10 + 1):
        assert connection.sent == []
        channel.receive(memoryview(b"x"))
    assert connection.sent == [MSG_CHANNEL_CLOSE]
    channel.receive(memoryview(bytes(2 * _WINDOW)))
    assert connection.sent == [MSG_CHANNEL_CLOSE]
    assert channel._recv_buf == []


async def test_data_after_eof_is_ignored(connection: _Connection, channel: FastPathChannel) -> None:
    channel._recv_state = "eof_pending"
    channel.receive(memoryview(b"x"))
    assert channel._recv_buf == []
    assert connection.sent == []


async def test_a_connection_logs_a_few_lines_whatever_it_is_sent(connection: _Connection) -> None:
    with capture_logs() as lines:
        for number in [5, 5, *range(256)]:
            connection.tolerate(number, "not expected now")
    assert 1 < len(lines) < 10
    assert [line["message"] for line in lines].count(5) == 1
