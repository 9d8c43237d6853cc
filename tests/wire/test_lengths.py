"""What a client may make large: packets, commands, environments, names; beside `sshd` where it has bounds."""

import asyncio
import struct
import zlib

import asyncssh
import pytest
from asyncssh.constants import MSG_IGNORE
from asyncssh.packet import String, UInt32

from tests.wire.clients import asyncssh_login
from tests.wire.conftest import MakeFairlead
from tests.wire.direct import Place, fairlead_place
from tests.wire.harness import Fairlead
from tests.wire.peers import MIB, digest, noise
from tests.wire.processes import resident_bytes

ARGUMENT_BYTES = 131_071
"""MAX_ARG_STRLEN of Linux without the NUL."""

pytestmark = pytest.mark.usefixtures("warm")


class Bomb:
    """Deflates as asyncssh does, but an IGNORE that says `bomb` becomes one of `size` zeros."""

    def __init__(self, size: int) -> None:
        self._deflate = zlib.compressobj(9)
        self._size = size

    def compress(self, data: bytes) -> bytes:
        if data == bytes([MSG_IGNORE]) + String(b"bomb"):
            data = struct.pack(">BI", MSG_IGNORE, self._size) + bytes(self._size)
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


class Listening(asyncssh.SSHClient):
    """Keeps why the connection ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


class TestCompression:
    def test_stock_ssh_gets_the_compression_that_it_asks_for(self, fairlead: Fairlead) -> None:
        done = fairlead.ssh("true", "-C", "-v", "-o", "LogLevel=DEBUG1")
        assert b"compression: zlib@openssh.com" in done.stderr
        assert b"Enabling compression at level 6" in done.stderr

    @pytest.mark.parametrize("kind", ["zeros", "noise"])
    def test_what_is_deflated_arrives_whole_both_ways(self, fairlead: Fairlead, kind: str) -> None:
        data = bytes(8 * MIB) if kind == "zeros" else b"".join(noise(8 * MIB))
        done = fairlead.ssh("cat", "-C", data=data)
        assert digest(iter([done.stdout])) == digest(iter([data]))

    async def test_new_keys_are_taken_in_the_middle_of_it(self, fairlead: Fairlead) -> None:
        data = b"".join(noise(2 * MIB)) + bytes(6 * MIB)
        done = await asyncio.to_thread(fairlead.ssh, "cat", "-C", "-o", "RekeyLimit=1M", data=data)
        assert digest(iter([done.stdout])) == digest(iter([data]))

    @pytest.mark.parametrize("size", [300_000, 30 * MIB])
    async def test_a_packet_that_inflates_beyond_all_bounds_ends_its_connection_in_words(
        self, fairlead: Fairlead, size: int
    ) -> None:
        """`sshd` inflates up to 128 MiB, but in a process that only this client has."""
        heard = Listening()
        async with fairlead_place(fairlead).login(
            compression_algs=["zlib@openssh.com"], client_factory=lambda: heard
        ) as client:
            client._compressor = Bomb(size)  # before anything was deflated: it begins a stream
            assert (await client.run("echo alive")).stdout == "alive\n"
            client.send_packet(MSG_IGNORE, String(b"bomb"))
            async with asyncio.timeout(60):
                error = await heard.ended
        assert isinstance(error, asyncssh.CompressionError)
        assert str(error) == "a packet inflates to more than 263168 bytes"

    async def test_the_largest_packet_is_taken_deflated_as_it_is_plain(self, place: Place) -> None:
        for algorithm in ("zlib@openssh.com", "none"):
            async with place.login(compression_algs=[algorithm]) as client:
                client.send_packet(MSG_IGNORE, String(bytes(200_000)))
                assert (await client.run("echo alive")).stdout == "alive\n"

    async def test_bombs_fill_no_memory(self, make_fairlead: MakeFairlead) -> None:
        server = make_fairlead()
        assert server.process is not None
        async with asyncssh_login(server) as bystander:
            assert (await bystander.run("echo alive")).stdout == "alive\n"
            before = resident_bytes(server.process.pid)
            for _ in range(5):
                heard = Listening()
                async with fairlead_place(server).login(
                    compression_algs=["zlib@openssh.com"], client_factory=lambda heard=heard: heard
                ) as client:
                    client._compressor = Bomb(100 * MIB)
                    client.send_packet(MSG_IGNORE, String(b"bomb"))
                    async with asyncio.timeout(60):
                        await heard.ended
            assert resident_bytes(server.process.pid) - before < 32 * MIB
            assert (await bystander.run("echo alive")).stdout == "alive\n"


class TestCommand:
    @pytest.mark.parametrize("size", [40_000, ARGUMENT_BYTES])
    async def test_one_that_a_program_can_be_given_runs(self, place: Place, size: int) -> None:
        assert await _run(place, _command(size)) == (0, "alive\n", "")

    @pytest.mark.parametrize("size", [ARGUMENT_BYTES + 1, 250_000])
    async def test_a_longer_one_is_refused_in_words(self, place: Place, size: int) -> None:
        status, out, said = await _run(place, _command(size))
        assert out == ""
        if place.is_ours:
            assert status == 254
            assert said.startswith(f"fairlead: the command has {size:,} bytes, and at most 131,071 are taken")
        else:
            assert "too long" in said

    async def test_an_operator_may_take_less(self, make_fairlead: MakeFairlead) -> None:
        here = fairlead_place(make_fairlead({"FAIRLEAD_CONNECTION__MAX_COMMAND_BYTES": "1024"}))
        assert (await _run(here, _command(1_024)))[:2] == (0, "alive\n")
        status, out, said = await _run(here, _command(1_025))
        assert (status, out) == (254, "")
        assert "has 1,025 bytes, and at most 1,024 are taken" in said

    async def test_a_subsystem_of_a_long_name_is_refused_as_any_that_nobody_knows(self, place: Place) -> None:
        async with place.login() as client:
            with pytest.raises(asyncssh.ChannelOpenError):
                await client.create_process(subsystem="x" * 200_000)
            assert (await client.run("echo alive")).stdout == "alive\n"


def _command(size: int) -> str:
    start, end = "echo alive #", "#"
    return start + "x" * (size - len(start) - len(end)) + end


async def _run(place: Place, command: str) -> tuple[int | None, str, str]:
    """Run a command that is too long for a command line of `ssh` itself."""
    async with place.login() as client:
        done = await client.run(command)
    return done.exit_status, str(done.stdout), str(done.stderr)


class TestEnvironment:
    async def test_more_variables_than_sshd_takes_are_left_out_and_the_person_is_told(
        self, fairlead: Fairlead
    ) -> None:
        env = {f"LC_{number}": "x" for number in range(200)}
        async with asyncssh_login(fairlead) as client:
            done = await client.run("env | grep -c '^LC_[0-9]'", env=env)
        assert done.stdout == "128\n"
        assert done.stderr == (
            "fairlead: left out of the environment: 72; at most 128 variables and 65,536 bytes are taken\n"
        )

    async def test_a_value_too_long_is_left_out_and_the_person_is_told(self, fairlead: Fairlead) -> None:
        async with asyncssh_login(fairlead) as client:
            done = await client.run(
                "echo ${#LC_A} ${#LC_B}", env={"LC_A": "a" * 1_000, "LC_B": "b" * 200_000}
            )
        assert done.stdout == "1000 0\n"
        assert "fairlead: left out of the environment: 1; at most" in str(done.stderr)

    async def test_what_fits_is_passed_without_a_word(self, fairlead: Fairlead) -> None:
        async with asyncssh_login(fairlead) as client:
            done = await client.run("echo $LC_A", env={"LC_A": "a"})
        assert (done.stdout, done.stderr) == ("a\n", "")


class TestNames:
    async def test_a_terminal_of_a_long_name_is_refused_and_the_connection_goes_on(
        self, fairlead: Fairlead
    ) -> None:
        async with asyncssh_login(fairlead) as client:
            with pytest.raises(asyncssh.ChannelOpenError):
                await client.create_process("true", term_type="x" * 10_000)
            assert (await client.run("echo alive")).stdout == "alive\n"

    async def test_a_target_of_a_long_name_is_refused_and_not_logged(self, fairlead: Fairlead) -> None:
        async with asyncssh_login(fairlead) as client:
            for opening in (
                client.open_connection("y" * 30_000, 1, encoding=None),
                client.open_unix_connection("/" + "y" * 30_000, encoding=None),
            ):
                with pytest.raises(asyncssh.ChannelOpenError, match="at most 1024 characters"):
                    await opening
            size = UInt32(1)
            kind, _ = await client._make_global_request(b"tcpip-forward", String("y" * 30_000), size)
            assert kind == 82  # REQUEST_FAILURE
            assert (await client.run("echo alive")).stdout == "alive\n"
        assert "y" * 2_000 not in fairlead.log
