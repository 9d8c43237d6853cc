"""A slow reader slows its writer down: nobody in between piles up what is not taken.

Each test offers much more than may be held, to somebody who takes 100 kB/s or nothing at all, waits
until the flow has come to rest, and looks at the memory of the proxy and of every process of shelld.
"""

import asyncio
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.packet import String

from tests.wire.clients import asyncssh_login
from tests.wire.harness import Fairlead, free_port
from tests.wire.master import Master
from tests.wire.peers import GIB, MIB, Peer, connect, until
from tests.wire.processes import resident_bytes, shellds, words

GROWTH_LIMIT_BYTES = 16 * MIB
RATE_BYTES_S = 100_000
REST_S = 1.5
"""Nothing more taken for this long, but for the trickle: everybody in between is full."""

OFFERED = [pytest.param(128 * MIB, id="128M"), pytest.param(2 * GIB, id="2G", marks=pytest.mark.slow)]
offering_much = pytest.mark.parametrize("offered", OFFERED)


@pytest.fixture(scope="module")
def master(fairlead: Fairlead) -> Iterator[Master]:
    with Master(fairlead) as connection:
        # Once at full speed both ways, so that what is kept for reuse is there before anything is measured.
        many = bytes(32 * MIB)
        assert len(connection.ssh("cat", data=many).stdout) == len(many)
        yield connection


class Memory:
    """What the proxy and every process of shelld held when the test began."""

    def __init__(self, fairlead: Fairlead, master: Master) -> None:
        self._fairlead, self._master = fairlead, master
        self._before = self._sizes()

    def _sizes(self) -> dict[int, int]:
        assert self._fairlead.process is not None
        return {pid: resident_bytes(pid) for pid in [self._fairlead.process.pid, *shellds(self._fairlead)]}

    def assert_flat(self) -> None:
        """Call while the flow rests. Every other channel must answer at that moment, too."""
        grown = {pid: size - self._before.get(pid, 0) for pid, size in self._sizes().items()}
        assert self._master.ssh("echo alive").stdout == b"alive\n"
        told = [f"{size / MIB:.1f} MiB: {' '.join(words(pid))[:80]}" for pid, size in grown.items()]
        assert all(size <= GROWTH_LIMIT_BYTES for size in grown.values()), told


@pytest.fixture
def memory(fairlead: Fairlead, master: Master) -> Memory:
    return Memory(fairlead, master)


class Meter:
    """Counts what the offering side got rid of."""

    def __init__(self) -> None:
        self.count = 0

    def rest(self) -> int:
        """Wait until the flow has come to rest; gives how much was taken by then."""
        while True:
            before = self.count
            time.sleep(REST_S)
            if self.count - before <= 2 * RATE_BYTES_S * REST_S + MIB:
                return self.count


@contextmanager
def trickle(read: "os.PathLike[str] | int | socket.socket") -> Iterator[None]:
    """Read from a descriptor or socket at 100 kB/s, in the background."""
    stop = threading.Event()

    def run() -> None:
        with suppress(OSError):
            while not stop.wait(0.1):
                _ = (
                    read.recv(RATE_BYTES_S // 10)
                    if isinstance(read, socket.socket)
                    else os.read(read, RATE_BYTES_S // 10)
                )

    reader = threading.Thread(target=run, daemon=True)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join(10)


@contextmanager
def offering(write: "socket.socket | int", offered: int) -> Iterator[Meter]:
    """Write zeros, as fast as they are taken, in the background."""
    meter = Meter()

    def run() -> None:
        with suppress(OSError):
            while meter.count < offered:
                piece = bytes(64 * 1024)
                meter.count += (
                    write.send(piece) if isinstance(write, socket.socket) else os.write(write, piece)
                )

    threading.Thread(target=run, daemon=True).start()
    yield meter


def progress_of(file: Path) -> Meter:
    """Meter a program in the workspace that adds a line to `file` for every MiB it wrote."""

    class FileMeter(Meter):
        @property
        def count(self) -> int:  # type: ignore[override]
            return file.stat().st_size // 2 * MIB if file.exists() else 0

        @count.setter
        def count(self, _: int) -> None: ...

    return FileMeter()


def offer(file: Path, offered: int) -> str:
    """A command that writes zeros and notes each MiB that it got rid of."""
    return f"for i in $(seq {offered // MIB}); do head -c {MIB} /dev/zero; echo x >> {file}; done"


@offering_much
class TestProgram:
    def test_its_output_to_a_slow_client(
        self, fairlead: Fairlead, master: Master, offered: int, memory: Memory, tmp_path: Path
    ) -> None:
        file = tmp_path / "progress"
        command = [*fairlead.command("ssh", *master.options), "fl", offer(file, offered)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            with trickle(client.stdout.fileno()):
                until(file.exists, "the program writes")
                assert progress_of(file).rest() < offered // 2
                memory.assert_flat()
            client.kill()

    def test_its_slow_reading_of_a_client_s_input(
        self, fairlead: Fairlead, master: Master, offered: int, memory: Memory
    ) -> None:
        script = "while sleep 0.1; do dd bs=10000 count=1 of=/dev/null 2>/dev/null; done"
        command = [*fairlead.command("ssh", *master.options), "fl", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as client:
            assert client.stdin is not None
            with offering(client.stdin.fileno(), offered) as meter:
                assert meter.rest() < offered // 2
                memory.assert_flat()
                client.kill()
                client.wait()


@offering_much
class TestForward:
    @pytest.mark.parametrize("option", ["-L", "-R"])
    def test_a_far_end_that_reads_slowly(
        self, master: Master, offered: int, memory: Memory, option: str
    ) -> None:
        done = threading.Event()

        def sip(link: socket.socket) -> None:
            with trickle(link):
                done.wait()

        port = free_port()
        with Peer(sip) as peer:
            master.forward(option, f"127.0.0.1:{port}:{peer.target}")
            with connect(port) as link, offering(link, offered) as meter:
                assert meter.rest() < offered // 2
                memory.assert_flat()
                done.set()

    @pytest.mark.parametrize("option", ["-L", "-R"])
    def test_a_near_end_that_reads_slowly(
        self, master: Master, offered: int, memory: Memory, option: str
    ) -> None:
        meters: list[Meter] = []
        done = threading.Event()

        def pour(link: socket.socket) -> None:
            with offering(link, offered) as meter:
                meters.append(meter)
                done.wait()

        port = free_port()
        with Peer(pour) as peer:
            master.forward(option, f"127.0.0.1:{port}:{peer.target}")
            with connect(port) as link, trickle(link):
                until(lambda: meters, "the far end pours")
                assert meters[0].rest() < offered // 2
                memory.assert_flat()
                done.set()


class TestHostileClient:
    """Its windows promise anything, and then it reads nothing."""

    @offering_much
    async def test_that_reads_no_tcp(
        self, fairlead: Fairlead, offered: int, memory: Memory, tmp_path: Path
    ) -> None:
        file = tmp_path / "progress"
        async with asyncssh_login(fairlead) as client:
            process = await client.create_process(offer(file, offered), encoding=None, window=2**31 - 1)
            client._transport.pause_reading()
            await asyncio.to_thread(until, file.exists, "the program writes")
            assert await asyncio.to_thread(progress_of(file).rest) < offered // 2
            await asyncio.to_thread(memory.assert_flat)
            client._transport.resume_reading()
            process.close()
            client.abort()

    @pytest.mark.slow
    async def test_that_sends_single_bytes(self, fairlead: Fairlead, memory: Memory) -> None:
        """A packet costs more than its payload: what nobody reads must be bounded by both."""
        async with asyncssh_login(fairlead) as client:
            process = await client.create_process("echo ready; exec sleep 300", encoding=None)
            assert await process.stdout.readline() == b"ready\n"
            channel, left = process.channel, 200_000

            def send(size: int) -> None:
                channel._send_window -= size
                channel.send_packet(MSG_CHANNEL_DATA, String(bytes(size)))

            while channel._send_window > left:  # until nobody takes any more
                while channel._send_window > left:
                    send(min(32_768, channel._send_window - left))
                await client.run("true")
            for number in range(min(channel._send_window, left)):
                send(1)
                if number % 1_000 == 0:
                    await asyncio.sleep(0)
            await client.run("true")
            await asyncio.to_thread(memory.assert_flat)
            client.abort()
