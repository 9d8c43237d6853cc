"""Requests faster than they can be answered: each is answered in its order, within bounds, as by `sshd`."""

import asyncio
from pathlib import Path

import asyncssh
import pytest
from asyncssh.constants import MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS
from asyncssh.packet import Boolean, String, UInt32

from tests.wire.conftest import MakeFairlead
from tests.wire.direct import Place, fairlead_place
from tests.wire.harness import Fairlead, free_port
from tests.wire.processes import resident_bytes

MANY = 3_000
FORWARD, KEEPALIVE, UNKNOWN = "streamlocal-forward@openssh.com", "keepalive@openssh.com", "none@example.com"

pytestmark = pytest.mark.usefixtures("warm")


def ask(
    client: asyncssh.SSHClientConnection, requests: "list[tuple[str, bytes]]"
) -> "list[asyncio.Task[bool]]":
    """Send global requests without waiting for any answer; each task ends with its own."""

    async def one(name: str, data: bytes) -> bool:
        kind, _ = await client._make_global_request(name.encode(), data)
        assert kind in (MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE)
        return bool(kind == MSG_REQUEST_SUCCESS)

    return [asyncio.create_task(one(name, data)) for name, data in requests]


async def answers(tasks: "list[asyncio.Task[bool]]") -> list[bool]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*tasks)


class TestGlobalRequests:
    async def test_thousands_behind_a_pending_one_are_answered_in_order(
        self, place: Place, tmp_path: Path
    ) -> None:
        mixed = [(KEEPALIVE, b""), (UNKNOWN, b"")] * (MANY // 2)
        async with place.login() as client:
            asked = ask(client, [(FORWARD, String(str(tmp_path / "socket"))), *mixed])
            first, *rest = await answers(asked)
            assert first
            # `sshd` answers a keepalive as any request that it does not know.
            assert rest == [place.is_ours, False] * (MANY // 2)
            assert (await client.run("echo alive")).stdout == "alive\n"

    async def test_thousands_of_forwards_are_answered_each(self, place: Place, tmp_path: Path) -> None:
        """Each is pending for a while; those that a server has no room for are refused, and nothing ends."""
        paths = [
            (FORWARD, String(str(tmp_path / "no" / "such" / f"directory{number}"))) for number in range(300)
        ]
        async with place.login() as client:
            assert await answers(ask(client, paths)) == [False] * 300
            assert (await client.run("echo alive")).stdout == "alive\n"

    async def test_while_a_workspace_does_not_start_a_flood_of_them_fills_no_memory(
        self, make_fairlead: MakeFairlead, tmp_path: Path
    ) -> None:
        server = make_fairlead()
        assert server.process is not None
        filler = String(b"x" * 30_000)
        with server.start_held():
            async with fairlead_place(server).login() as client, fairlead_place(server).login() as other:
                pending = ask(client, [(FORWARD, String(str(tmp_path / "socket")))])
                ask(client, [(KEEPALIVE, b"")] * 1_000)
                before = resident_bytes(server.process.pid)
                flood = ask(client, [(UNKNOWN, filler)] * 5_000)  # 150 MB, most of which stays at the client
                for _ in range(50):
                    await asyncio.sleep(0.02)
                    assert not pending[0].done()
                assert resident_bytes(server.process.pid) - before < 32 * 1024 * 1024
                assert await answers(ask(other, [(KEEPALIVE, b"")])) == [True]
                client.abort()
                await asyncio.gather(*flood, *pending, return_exceptions=True)

    async def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(
        self, make_fairlead: MakeFairlead, tmp_path: Path
    ) -> None:
        server = make_fairlead()
        with server.start_held():
            async with fairlead_place(server).login() as client:
                asked = ask(client, [(FORWARD, String(str(tmp_path / "socket"))), *[(KEEPALIVE, b"")] * MANY])
                await asyncio.sleep(0.2)
                client.abort()
                await asyncio.gather(*asked, return_exceptions=True)
        assert server.ssh("echo alive").stdout == b"alive\n"
        async with asyncio.timeout(60):
            while "disconnected" not in server.log:
                await asyncio.sleep(0.02)

    async def test_host_keys_are_not_proved_by_the_hundred(self, fairlead: Fairlead) -> None:
        async with fairlead_place(fairlead).login() as client:
            key = client.get_server_host_key()
            assert key is not None
            blob = String(key.public_data)
            once, many = ask(
                client,
                [("hostkeys-prove-00@openssh.com", blob), ("hostkeys-prove-00@openssh.com", blob * 300)],
            )
            assert await answers([once, many]) == [True, False]

    async def test_a_request_in_the_queue_that_cannot_be_read_is_answered_in_its_order(
        self, place: Place, tmp_path: Path
    ) -> None:
        async with place.login() as client:
            good, bad = (KEEPALIVE, b""), (KEEPALIVE, b"x")
            asked = ask(
                client, [(FORWARD, String(str(tmp_path / "socket"))), *[good] * 50, bad, *[good] * 50]
            )
            good_answers = [place.is_ours] * 50
            assert await answers(asked) == [True, *good_answers, False, *good_answers]


class TestChannelRequests:
    async def test_thousands_behind_one_that_asks_for_x11_are_answered_in_order(self, place: Place) -> None:
        async with place.login() as client:
            process = await client.create_process("cat")
            channel = process.channel
            x11 = channel._make_request(
                b"x11-req", Boolean(False), String("MIT-MAGIC-COOKIE-1"), String("00" * 16), UInt32(0)
            )
            known = [channel._make_request(b"no-such-request@example.com") for _ in range(MANY)]
            async with asyncio.timeout(60):
                assert await asyncio.gather(x11, *known) == [False] * (MANY + 1)
            process.stdin.write("still me\n")
            assert await process.stdout.readline() == "still me\n"

    async def test_signals_without_end_cost_the_program_nothing(self, place: Place) -> None:
        async with place.login() as client:
            command = "trap 'got=1' USR1; echo ready; read line; echo ${got:-0} $line"
            process = await client.create_process(command)
            assert await process.stdout.readline() == "ready\n"  # a signal before the trap ends the shell
            for _ in range(MANY):
                process.channel.send_signal("USR1")
            process.stdin.write("still me\n")
            async with asyncio.timeout(60):
                assert (await process.stdout.readline()).endswith("still me\n")


def test_stock_ssh_may_ask_for_many_forwards_at_once(fairlead: Fairlead) -> None:
    """`ssh` sends every `-R` of its configuration in one go."""
    ports = [free_port() for _ in range(50)]
    options = [word for port in dict.fromkeys(ports) for word in ("-R", f"127.0.0.1:{port}:127.0.0.1:1")]
    done = fairlead.ssh("echo alive", "-o", "ExitOnForwardFailure=yes", *options)
    assert (done.stdout, done.stderr) == (b"alive\n", b"")
