"""Opens that nobody answers: counted from the request, few at once, records by rate, and given back once."""

import asyncio
import os
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import asyncssh
import psutil
import pytest
from asyncssh.channel import SSHClientChannel

from tests.wire.clients import asyncssh_login
from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead, free_port
from tests.wire.peers import connect, until
from tests.wire.processes import shelld

CHANNELS, DIALS = 40, 10
SETTINGS = {
    "FAIRLEAD_CONNECTION__MAX_CHANNELS": str(CHANNELS),
    "FAIRLEAD_CONNECTION__MAX_DIALS": str(DIALS),
    "FAIRLEAD_CONNECTION__OPENS_PER_S": "10000",
    "FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.05",
    "FAIRLEAD_SESSIONS__KILL_POLL_S": "0.1",
}

PATIENCE_S = 100

pytestmark = pytest.mark.usefixtures("warm")

Open = Callable[[asyncssh.SSHClientConnection], "asyncio.Task[object]"]


class Mute:
    """A target whose backlog is full: a connect to it is neither answered nor refused until it closes."""

    def __init__(self, path: Path | None = None) -> None:
        family = socket.AF_INET if path is None else socket.AF_UNIX
        self.listener = socket.socket(family)
        self.listener.bind(("127.0.0.1", 0) if path is None else str(path))
        self.listener.listen(0)
        self.path = path
        self._kept = ExitStack()
        for _ in range(20):
            filling = self._kept.enter_context(socket.socket(family))
            filling.settimeout(0.3)
            try:
                filling.connect(self.listener.getsockname())
            except (TimeoutError, BlockingIOError):
                return
        raise AssertionError("the backlog is never full")

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def under_way(self) -> int:
        """Connects to it that wait; TCP only."""
        found = psutil.net_connections("tcp4")
        waiting = [one for one in found if one.status == psutil.CONN_SYN_SENT and one.raddr]
        return sum(one.raddr.port == self.port and one.pid != os.getpid() for one in waiting)

    def close(self) -> None:
        """Refuse everybody who waits."""
        self.listener.close()
        self._kept.close()


@pytest.fixture
def mute() -> Iterator[Mute]:
    with closing(Mute()) as target:
        yield target


@pytest.fixture
async def client(fairlead: Fairlead) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with asyncssh_login(fairlead) as connection:
        yield connection


def tcp(connection: asyncssh.SSHClientConnection, port: int) -> "asyncio.Task[object]":
    """Ask for a `direct-tcpip` to a port of loopback."""
    return _begin(connection.open_connection("127.0.0.1", port, encoding=None))


def unix(connection: asyncssh.SSHClientConnection, path: Path) -> "asyncio.Task[object]":
    """Ask for a `direct-streamlocal`."""
    return _begin(connection.open_unix_connection(str(path), encoding=None))


def session(connection: asyncssh.SSHClientConnection) -> "asyncio.Task[object]":
    """Ask for a session, and for no program in it."""
    channel: SSHClientChannel[bytes] = SSHClientChannel(
        connection, asyncio.get_running_loop(), "strict", None, "strict", 65_536, 32_768
    )

    async def wait() -> SSHClientChannel[bytes]:
        await channel._open(b"session")
        return channel

    return _begin(wait())


def _begin(opening: Awaitable[object]) -> "asyncio.Task[object]":
    async def wait() -> object:
        return await opening

    return asyncio.create_task(wait())


async def outcomes(tasks: "list[asyncio.Task[object]]", count: int) -> Counter[int]:
    """Wait for `count` of them to be refused; gives how many by reason (RFC 4254 §5.1)."""
    async with asyncio.timeout(PATIENCE_S):
        while sum(task.done() for task in tasks) < count:
            await asyncio.sleep(0.02)
    return Counter(_code(task) for task in tasks if task.done())


def _code(task: "asyncio.Task[object]") -> int:
    error = task.exception()
    assert isinstance(error, asyncssh.ChannelOpenError)
    return error.code


async def give_up(tasks: "list[asyncio.Task[object]]") -> None:
    """Forget opens whose answer nobody waits for any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def has_all_its_room(connection: asyncssh.SSHClientConnection) -> None:
    """Fill the connection: exactly as many channels as ever fit, and they go on."""
    async with asyncio.timeout(PATIENCE_S):
        while True:  # what was closed just now counts until both ends have said so
            asked = [session(connection) for _ in range(CHANNELS + 1)]
            await asyncio.wait(asked)
            fit = [task.result() for task in asked if task.exception() is None]
            assert len(fit) <= CHANNELS
            await _close(fit)
            if len(fit) == CHANNELS:
                return


async def _close(channels: list[object]) -> None:
    for channel in channels:
        assert isinstance(channel, SSHClientChannel)
        channel.close()
        await channel.wait_closed()


def records(server: Fairlead, condition: str = "1") -> int:
    """Count the forwards on record."""
    with closing(sqlite3.connect(f"file:{server.home}/fairlead.db?mode=ro", uri=True)) as database:
        query = f"SELECT count(*) FROM programs WHERE kind = 'forward' AND {condition}"
        return int(database.execute(query).fetchone()[0])


class TestCountedFromTheRequest:
    async def test_tcp_opens_that_nobody_answers(
        self, client: asyncssh.SSHClientConnection, mute: Mute
    ) -> None:
        await self._fills_up(client, lambda connection: tcp(connection, mute.port))
        mute.close()

    async def test_unix_opens_that_nobody_answers(
        self, client: asyncssh.SSHClientConnection, tmp_path: Path
    ) -> None:
        with closing(Mute(tmp_path / "mute")):
            await self._fills_up(client, lambda connection: unix(connection, tmp_path / "mute"))

    async def test_sessions_without_a_program(self, client: asyncssh.SSHClientConnection) -> None:
        await self._fills_up(client, session)

    @staticmethod
    async def _fills_up(client: asyncssh.SSHClientConnection, ask: Open) -> None:
        """Ask for three times as many as fit; of any kind, none fits behind them."""
        asked = [ask(client) for _ in range(3 * CHANNELS)]
        async with asyncio.timeout(PATIENCE_S):
            while sum(task.done() and task.exception() is not None for task in asked) < 2 * CHANNELS:
                await asyncio.sleep(0.02)
        refused = [task for task in asked if task.done() and task.exception() is not None]
        assert Counter(map(_code, refused)) == {asyncssh.OPEN_RESOURCE_SHORTAGE: 2 * CHANNELS}
        assert f"more than {CHANNELS} channels" in str(refused[0].exception())
        for other in (session, lambda one: tcp(one, 1), lambda one: unix(one, Path("/nowhere"))):
            with pytest.raises(asyncssh.ChannelOpenError) as no_room:
                await other(client)
            assert no_room.value.code == asyncssh.OPEN_RESOURCE_SHORTAGE
        await give_up(asked)


class TestDialsUnderWay:
    async def test_few_at_once_and_a_record_only_for_those(
        self, fairlead: Fairlead, client: asyncssh.SSHClientConnection, mute: Mute
    ) -> None:
        before = records(fairlead)
        asked = [tcp(client, mute.port) for _ in range(CHANNELS)]
        async with asyncio.timeout(PATIENCE_S):
            while mute.under_way() < DIALS or records(fairlead) < before + DIALS:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)  # more would show by now
        assert mute.under_way() == DIALS
        assert records(fairlead) == before + DIALS
        mute.close()
        assert await outcomes(asked, CHANNELS) == {asyncssh.OPEN_CONNECT_FAILED: CHANNELS}
        await has_all_its_room(client)

    async def test_those_that_wait_get_their_turn(
        self, client: asyncssh.SSHClientConnection, mute: Mute
    ) -> None:
        stuck = [tcp(client, mute.port) for _ in range(DIALS)]
        with socket.create_server(("127.0.0.1", 0)) as open_door:
            waiting = [tcp(client, open_door.getsockname()[1]) for _ in range(DIALS)]
            mute.close()
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*waiting)
        assert await outcomes(stuck, DIALS) == {asyncssh.OPEN_CONNECT_FAILED: DIALS}

    async def test_one_that_waits_too_long_is_refused_in_words(
        self, make_fairlead: MakeFairlead, mute: Mute
    ) -> None:
        server = make_fairlead(
            {"FAIRLEAD_CONNECTION__MAX_DIALS": "1", "FAIRLEAD_CONNECTION__OPEN_WAIT_S": "0.2"}
        )
        async with asyncssh_login(server) as client:
            assert (await client.run("true")).exit_status == 0
            held = tcp(client, mute.port)
            async with asyncio.timeout(PATIENCE_S):
                while not mute.under_way():
                    await asyncio.sleep(0.02)
            with pytest.raises(
                asyncssh.ChannelOpenError, match="1 other connections of this client"
            ) as refused:
                await tcp(client, mute.port)
            assert refused.value.code == asyncssh.OPEN_RESOURCE_SHORTAGE
            await give_up([held])


class TestGivenBackOnce:
    """However an open ends, its place is there again, and there once."""

    async def test_when_it_is_refused(self, client: asyncssh.SSHClientConnection) -> None:
        port = free_port()
        for _ in range(3):
            refused = [tcp(client, port) for _ in range(CHANNELS)]
            assert await outcomes(refused, CHANNELS) == {asyncssh.OPEN_CONNECT_FAILED: CHANNELS}
        await has_all_its_room(client)

    async def test_when_it_is_carried_and_closed(self, client: asyncssh.SSHClientConnection) -> None:
        with socket.create_server(("127.0.0.1", 0)) as open_door:
            port = open_door.getsockname()[1]
            for _ in range(3):
                opened = await asyncio.gather(*(tcp(client, port) for _ in range(CHANNELS // 2)))
                for _, writer in opened:  # type: ignore[misc]
                    writer.channel.abort()
                    await writer.channel.wait_closed()
        await has_all_its_room(client)

    async def test_when_an_order_ends_it_while_it_is_dialled(
        self, fairlead: Fairlead, client: asyncssh.SSHClientConnection, mute: Mute
    ) -> None:
        live = "ended_at IS NULL"
        asked = [tcp(client, mute.port) for _ in range(DIALS)]
        async with asyncio.timeout(PATIENCE_S):
            while records(fairlead, live) < DIALS:
                await asyncio.sleep(0.02)
        with closing(sqlite3.connect(f"file:{fairlead.home}/fairlead.db?mode=ro", uri=True)) as database:
            query = "SELECT id FROM programs WHERE kind = 'forward' AND ended_at IS NULL"
            dialled = [row[0] for row in database.execute(query)]
        await asyncio.to_thread(fairlead.cli, "session", "kill", *dialled)
        assert await outcomes(asked, DIALS) == {asyncssh.OPEN_CONNECT_FAILED: DIALS}
        assert "ended before it was open" in str(asked[0].exception())
        await has_all_its_room(client)

    async def test_when_the_workspace_is_lost(
        self, fairlead: Fairlead, client: asyncssh.SSHClientConnection, mute: Mute
    ) -> None:
        asked = [tcp(client, mute.port) for _ in range(CHANNELS)]
        async with asyncio.timeout(PATIENCE_S):
            while mute.under_way() < DIALS:
                await asyncio.sleep(0.02)
        psutil.Process(shelld(fairlead)).kill()
        mute.close()
        assert (await outcomes(asked, CHANNELS)).total() == CHANNELS
        assert (await client.run("true")).exit_status == 0
        await has_all_its_room(client)

    async def test_when_the_client_leaves(self, fairlead: Fairlead, mute: Mute) -> None:
        async with asyncssh_login(fairlead) as leaving:
            asked = [tcp(leaving, mute.port) for _ in range(CHANNELS)]
            async with asyncio.timeout(PATIENCE_S):
                while mute.under_way() < DIALS:
                    await asyncio.sleep(0.02)
            leaving.abort()
            await give_up(asked)
        await asyncio.to_thread(until, lambda: mute.under_way() == 0, "nothing is dialled any more")
        await asyncio.to_thread(
            until, lambda: records(fairlead, "ended_at IS NULL") == 0, "every record is closed"
        )


async def test_a_connection_to_a_remote_forward_finds_no_room_either_and_costs_nothing(
    fairlead: Fairlead, client: asyncssh.SSHClientConnection
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as here:
        listener = await client.forward_remote_port("127.0.0.1", 0, "127.0.0.1", here.getsockname()[1])
        filling = await asyncio.gather(*(session(client) for _ in range(CHANNELS)))
        words = '"too many channels"'
        earlier = fairlead.log.count(words)  # of other tests: the proxy is the module's
        with connect(listener.get_port()):
            await asyncio.to_thread(
                until, lambda: fairlead.log.count(words) > earlier, "the proxy has said that it is full"
            )
        await _close(filling)
        await has_all_its_room(client)
        with connect(listener.get_port()) as link:
            here.settimeout(PATIENCE_S)
            carried, _ = await asyncio.to_thread(here.accept)
            with carried:
                link.sendall(b"x")
                carried.settimeout(PATIENCE_S)
                assert await asyncio.to_thread(carried.recv, 1) == b"x"


async def test_records_are_begun_by_rate(make_fairlead: MakeFairlead) -> None:
    burst = 5
    server = make_fairlead(
        {
            "FAIRLEAD_CONNECTION__OPENS_PER_S": "2",
            "FAIRLEAD_CONNECTION__MAX_CHANNELS": str(burst),
            "FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.05",
        }
    )
    async with asyncssh_login(server) as client:
        assert (await client.run("true")).exit_status == 0
        began, port = time.monotonic(), free_port()
        for _ in range(burst + 4):
            with suppress(asyncssh.ChannelOpenError):
                await tcp(client, port)
        took_s = time.monotonic() - began
    await asyncio.to_thread(until, lambda: records(server) == burst + 4, "every open is on record")
    assert took_s >= 1.5  # four beyond the burst, two a second; a slow machine only takes longer


async def test_thousands_of_opens_that_nobody_answers_cost_a_bystander_nothing(
    make_fairlead: MakeFairlead, mute: Mute
) -> None:
    """With the settings as they come: 512 channels, 128 dials."""
    server = make_fairlead({"FAIRLEAD_SESSIONS__WRITE_SOON_S": "0.05"})
    async with asyncssh_login(server) as bystander, asyncssh_login(server) as pushing:
        running = await bystander.create_process("cat")
        running.stdin.write("before\n")
        assert await running.stdout.readline() == "before\n"
        before = _descriptors(server)
        asked = [tcp(pushing, mute.port) for _ in range(5_000)]
        refused = await outcomes(asked, 5_000 - 512)
        assert refused == {asyncssh.OPEN_RESOURCE_SHORTAGE: 5_000 - 512}
        async with asyncio.timeout(PATIENCE_S):
            while records(server) < 128:
                await asyncio.sleep(0.02)
        assert records(server) == 128
        assert _descriptors(server) - before < 2 * 128
        running.stdin.write("beside\n")
        assert await running.stdout.readline() == "beside\n"
        pushing.abort()
        await give_up(asked)
        running.stdin.write("after\n")
        assert await running.stdout.readline() == "after\n"


def _descriptors(server: Fairlead) -> int:
    assert server.process is not None
    proxy = psutil.Process(server.process.pid)
    return sum(one.num_fds() for one in (proxy, psutil.Process(shelld(server))))
