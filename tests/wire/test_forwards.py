"""Forwards as plain connections: who speaks first, who falls silent, who leaves, and when."""

import asyncio
import fcntl
import hashlib
import shutil
import socket
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncssh
import pytest

from shelld.aio import LINGER_S
from tests.wire.clients import asyncssh_login
from tests.wire.conftest import MakeFairlead
from tests.wire.harness import Fairlead, free_port
from tests.wire.master import Master
from tests.wire.peers import MIB, Peer, connect, digest, noise, received, until

EVERY = pytest.mark.slow
ANSWER_BYTES = 200_000


@pytest.fixture(scope="module")
def master(fairlead: Fairlead) -> Iterator[Master]:
    with Master(fairlead) as connection:
        yield connection


def answer_the_digest(link: socket.socket) -> None:
    """Read to the end, then answer: works only while the other direction is still open."""
    link.sendall(digest(received(link)).encode())


def send_then_listen(link: socket.socket) -> str:
    """Send, end this direction, and only then read."""
    link.sendall(b"I have spoken")
    link.shutdown(socket.SHUT_WR)
    return digest(received(link))


def answer_early_and_leave(link: socket.socket) -> None:
    """Hear a little, answer, and break the connection while the other end still sends."""
    link.recv(100)
    link.sendall(b"".join(noise(ANSWER_BYTES)))
    # What the kernel has not carried over, a break drops on any road.
    until(lambda: unsent_bytes(link) == 0, "the answer was carried over")


def unsent_bytes(link: socket.socket) -> int:
    """Return how much of what was sent has not arrived in the other end's kernel (tcp(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(link, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def greet(link: socket.socket) -> None:
    """Speak first, as SMTP and MySQL servers do."""
    link.sendall(b"220 welcome\r\n")
    for _ in received(link):
        pass


@pytest.fixture(params=["-L", "-R", "unix -L", "unix -R"])
def road(request: pytest.FixtureRequest, master: Master) -> Iterator["Road"]:
    road = Road(master, request.param)
    yield road
    road.close()


def _raise_unless_gone(_function: object, _path: str, info: tuple[type, BaseException, object]) -> None:
    """The proxy removes its socket after the answer to the cancelling, perhaps just now."""
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


class Road:
    """A forward of one kind to a peer that serves in a given way."""

    def __init__(self, master: Master, kind: str) -> None:
        self._master = master
        self._unix, self._option = kind.startswith("unix"), kind[-2:]
        self._spec = ""
        self._directory = Path(master.directory, kind.replace(" ", ""))
        self._directory.mkdir(exist_ok=True)

    def to(self, peer: Peer) -> int | Path:
        near: int | Path = self._directory / "near" if self._unix else free_port()
        self._spec = f"{near if self._unix else f'127.0.0.1:{near}'}:{peer.target}"
        self._master.forward(self._option, self._spec)
        return near

    @property
    def far(self) -> Path | None:
        return self._directory / "far" if self._unix else None

    def close(self) -> None:
        done = self._master.control("cancel", self._option, self._spec)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(self._directory, onerror=_raise_unless_gone)


class TestHalfClose:
    def test_the_near_end_falls_silent_and_still_hears(self, road: Road) -> None:
        with Peer(answer_the_digest, road.far) as peer, connect(road.to(peer)) as link:
            for piece in noise(MIB):
                link.sendall(piece)
            link.shutdown(socket.SHUT_WR)
            assert b"".join(received(link)).decode() == digest(noise(MIB))

    def test_the_far_end_falls_silent_and_still_hears(self, road: Road) -> None:
        with Peer(send_then_listen, road.far) as peer, connect(road.to(peer)) as link:
            assert b"".join(received(link)) == b"I have spoken"
            for piece in noise(MIB):
                link.sendall(piece)
            link.shutdown(socket.SHUT_WR)
            assert peer.result() == digest(noise(MIB))

    def test_a_far_end_that_fell_silent_gets_what_is_sent_right_before_leaving(self, road: Road) -> None:
        """OpenSSH closes the channel right behind the last bytes; what is still under way must arrive."""
        with Peer(send_then_listen, road.far) as peer:
            near = road.to(peer)
            for _ in range(5):
                with connect(near) as link:
                    assert b"".join(received(link)) == b"I have spoken"
                    for piece in noise(3 * MIB):
                        link.sendall(piece)
                assert peer.result() == digest(noise(3 * MIB))

    def test_a_near_end_that_leaves_is_gone_at_the_far_end(self, road: Road) -> None:
        with Peer(lambda link: digest(received(link)), road.far) as peer:
            with connect(road.to(peer)) as link:
                link.sendall(b"abc")
            assert peer.result() == hashlib.sha256(b"abc").hexdigest()

    def test_a_far_end_that_leaves_is_gone_at_the_near_end(self, road: Road) -> None:
        with Peer(lambda link: link.sendall(b"bye"), road.far) as peer, connect(road.to(peer)) as link:
            assert b"".join(received(link)) == b"bye"
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                until(lambda: link.sendall(b"x" * 1000), "sending fails")


async def test_a_far_end_that_answers_early_and_leaves_is_heard_to_its_last_byte(fairlead: Fairlead) -> None:
    """Its connection breaks under what is still sent; that must not swallow what it said before."""
    async with asyncssh_login(fairlead) as client:
        with Peer(answer_early_and_leave) as peer:
            for _ in range(3):
                reader, writer = await client.open_connection(
                    "127.0.0.1", peer.port, encoding=None, window=32 * 1024
                )
                sending = asyncio.create_task(_send_in_vain(writer))
                await asyncio.sleep(1.5 * LINGER_S)  # a call of shelld must not end before it was read
                heard = await asyncio.wait_for(reader.read(-1), 60)
                assert (len(heard), digest(iter([heard]))) == (ANSWER_BYTES, digest(noise(ANSWER_BYTES)))
                writer.close()
                await sending


async def _send_in_vain(writer: "asyncssh.SSHWriter[bytes]") -> None:
    with suppress(OSError, asyncssh.Error):
        for piece in noise(64 * MIB):
            writer.write(piece)
            await writer.drain()


@pytest.mark.parametrize("channels", [pytest.param(12, id="12"), pytest.param(200, id="200", marks=EVERY)])
def test_a_server_that_speaks_first_is_heard_from_its_first_byte(road: Road, channels: int) -> None:
    with Peer(greet, road.far) as peer:
        near = road.to(peer)
        for _ in range(channels):
            with connect(near) as link:
                assert link.recv(100) == b"220 welcome\r\n"


@pytest.mark.parametrize("host", ["LocalHost", "localhost", "127.0.0.1", ""])
def test_a_remote_forward_is_known_to_its_client_by_the_address_as_it_was_asked_for(
    master: Master, host: str
) -> None:
    """OpenSSH compares the address byte by byte, and refuses connections of a forward it does not find."""
    with Peer(greet) as peer:
        allocated = master.forward("-R", f"{host}:0:{peer.target}")
        port = free_port()
        spec = f"{host}:{port}:{peer.target}"
        master.forward("-R", spec)
        for each in (int(allocated), port):
            with connect(each) as link:
                assert link.recv(100) == b"220 welcome\r\n"
        assert master.control("cancel", "-R", spec).returncode == 0
        until(lambda: not _listens(port), "the port is free again")


def test_cancelling_a_remote_forward_leaves_its_connections_alone(
    make_fairlead: MakeFairlead,
) -> None:
    """Nor does the link to the workspace go while such a connection is the only one to use it."""
    server = make_fairlead({"FAIRLEAD_UPSTREAM__LINGER_S": "1"})
    with Master(server) as master, Peer(greet) as peer:
        port = free_port()
        spec = f"127.0.0.1:{port}:{peer.target}"
        master.forward("-R", spec)
        with connect(port) as link:
            assert link.recv(100) == b"220 welcome\r\n"
            assert master.control("cancel", "-R", spec).returncode == 0
            until(lambda: not _listens(port), "the port is free again")
            link.settimeout(3)
            with pytest.raises(TimeoutError):
                link.recv(1)
            link.settimeout(20)
            link.shutdown(socket.SHUT_WR)
            assert link.recv(1) == b""
            assert peer.result() is None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
