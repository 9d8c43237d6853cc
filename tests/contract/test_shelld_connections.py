"""Connections of a real shelld: dials, listeners, ssh-agent sockets."""

import asyncio
import fcntl
import os
import socket
import stat
import struct
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from protos.shelld.v1 import shelld_pb2 as pb
from shelld.aio import LINGER_S
from tests.contract.shelldproc import (
    PATIENCE_S,
    Connection,
    Shelld,
    connected,
    refused,
    run,
    shelld,
    start,
    started,
    tcp,
    wait_for,
)

MIB = 1024 * 1024
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def process() -> Iterator[Shelld]:
    with started(accept_timeout_s=1.0) as made:
        yield made


@pytest.fixture
async def served(process: Shelld) -> AsyncIterator[Shelld]:
    async with connected(process) as made:
        yield made


@asynccontextmanager
async def target(handler: Handler) -> AsyncIterator[int]:
    """A TCP server of the workspace; gives its port."""
    tasks = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        with suppress(ConnectionError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


# ------------------------------------------------------------------------------------------ dial


async def test_dial_carries_bytes_both_ways_and_ends_when_both_have(served: Shelld) -> None:
    data = os.urandom(3 * MIB + 1)
    async with target(echo) as port:
        link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
        assert link.local.startswith("127.0.0.1:")

        async def feed() -> None:
            for position in range(0, len(data), MIB):
                await link.send(data[position : position + MIB])
            await link.eof()

        _, kinds = await asyncio.gather(feed(), link.end())
    assert link.received == data
    assert kinds == ["eof"]


async def test_peer_that_closed_its_side_still_receives(served: Shelld) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first words")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    async with target(half) as port:
        link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
        while (frame := await link.next()) is not None and frame.WhichOneof("frame") != "eof":
            pass
        await link.send(b"and still")
        await link.eof()
        assert await link.end() == []
        assert (link.received, await heard) == (b"first words", b"and still")


async def test_client_that_closed_its_side_still_receives(served: Shelld) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        await asyncio.sleep(0.2)
        writer.write(b"answer to " + asked)
        writer.close()

    async with target(half) as port:
        link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
        await link.send(b"question")
        await link.eof()
        assert await link.end() == ["eof"]
    assert link.received == b"answer to question"


async def test_server_that_speaks_first_loses_nothing(served: Shelld) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.close()

    async with target(greet) as port:
        for _ in range(50):
            link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
            await link.eof()
            assert await link.end() == ["eof"]
            assert link.received == b"220 hello\r\n"


async def test_peer_that_breaks_the_connection_is_told(served: Shelld) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with target(breaking) as port:
        link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
        await link.send(b"x")
        assert await link.end() == ["reset"]


async def test_a_client_that_reads_late_still_gets_what_the_peer_sent_before_it_broke(served: Shelld) -> None:
    """The client goes on sending, as it cannot know; sshd keeps a channel until its client has read it."""
    answer = os.urandom(200_000)
    broken = asyncio.Event()

    async def answer_and_break(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(answer)
        writer.write_eof()
        await writer.drain()
        connection = writer.get_extra_info("socket")
        await wait_for(lambda: _unsent_bytes(connection) == 0, what="the peer's last byte")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        broken.set()

    async with target(answer_and_break) as port:
        link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
        await link.send(b"x")
        await broken.wait()
        for _ in range(10):
            await link.send(b"sent in vain")
            await asyncio.sleep(LINGER_S / 5)
        assert (await link.end())[-1] == "reset"
    assert link.received == answer
    await wait_for_no_connection(served)


async def wait_for_no_connection(served: Shelld) -> None:
    """A client that has heard everything leaves, and its connection with it."""
    async with asyncio.timeout(PATIENCE_S):
        while (await served.stub.Status(pb.StatusRequest())).connections:
            await asyncio.sleep(0.01)


def _unsent_bytes(link: socket.socket) -> int:
    """Return how much of what was sent has not arrived in the other end's kernel (tcp(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(link.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


async def test_slow_peer_stops_the_client(served: Shelld) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(600)

    before = served.resident_bytes()
    async with target(deaf) as port:
        link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))

        async def flood() -> None:
            for _ in range(256):
                await link.send(bytes(MIB))

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(1.0)
        assert not flooding.done()
        flooding.cancel()
        assert served.resident_bytes() - before < 16 * MIB
        link.call.cancel()


async def test_dial_failures_have_their_codes(served: Shelld, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed_port = unused.getsockname()[1]
        code, reason = await refused(served.stub.Dial(), dial=tcp("127.0.0.1", closed_port))
    assert (code, "refused" in reason) == ("REFUSED", True)
    assert (await refused(served.stub.Dial(), dial=tcp("no-such-host.invalid", 80)))[0] == "UNREACHABLE"
    assert (await refused(served.stub.Dial(), dial=tcp("", 80)))[0] == "INVALID"
    assert (await refused(served.stub.Dial(), dial=tcp("127.0.0.1", 0)))[0] == "INVALID"
    assert (await refused(served.stub.Dial(), dial=pb.Target()))[0] == "INVALID"
    assert (await refused(served.stub.Dial(), data=b"too early"))[0] == "INVALID"
    for path, expected in (
        (f"{tmp_path}/none", "NOT_FOUND"),
        ("relative", "INVALID"),
        ("/" + "x" * 200, "INVALID"),
    ):
        assert (await refused(served.stub.Dial(), dial=pb.Target(unix_path=path.encode())))[0] == expected


async def test_frame_after_eof_ends_this_connection_alone(served: Shelld) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(600)

    async with target(hold) as port:
        link = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
        await link.eof()
        await link.send(b"late")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await link.end()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_rules_judge_the_address_that_is_connected_to() -> None:
    async with (
        target(echo) as port,
        shelld(forward={"tcp": [f"127.0.0.1:{port}", "10.0.0.0/8:*"], "unix": []}) as served,
    ):
        link = await Connection.open(served.stub.Dial(), dial=tcp("localhost", port))
        link.call.cancel()
        code, reason = await refused(
            served.stub.Dial(), dial=tcp("127.0.0.1", port + 1 if port < 65535 else 1)
        )
        assert (code, "not permitted" in reason) == ("PROHIBITED", True)
        assert (await refused(served.stub.Dial(), dial=tcp("127.0.0.2", port)))[0] == "PROHIBITED"
        code, _ = await refused(served.stub.Dial(), dial=pb.Target(unix_path=b"/run/docker.sock"))
        assert code == "PROHIBITED"


async def test_connection_limit() -> None:
    async with target(echo) as port, shelld(limits={"connections": 1}) as served:
        first = await Connection.open(served.stub.Dial(), dial=tcp("127.0.0.1", port))
        assert (await refused(served.stub.Dial(), dial=tcp("127.0.0.1", port)))[0] == "RESOURCES"
        first.call.cancel()


async def test_dial_of_a_unix_path(served: Shelld, short_dir: Path) -> None:
    server = await asyncio.start_unix_server(echo, short_dir / "s")
    link = await Connection.open(served.stub.Dial(), dial=pb.Target(unix_path=bytes(short_dir / "s")))
    await link.send(b"over a path")
    await link.eof()
    assert await link.end() == ["eof"]
    assert link.received == b"over a path"
    server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_unix_paths_are_dialled_and_bound_as_the_account(short_dir: Path) -> None:
    nobody = {"name": "nobody", "uid": 65534, "gid": 65534, "groups": [65534], "shell": "/bin/sh"}
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def who(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if not seen.done():
            seen.set_result(struct.unpack("iii", raw)[1])
        writer.close()

    short_dir.chmod(0o711)
    server = await asyncio.start_unix_server(who, short_dir / "s")
    async with shelld(account=nobody) as served:
        code, _ = await refused(served.stub.Dial(), dial=pb.Target(unix_path=bytes(short_dir / "s")))
        assert code == "PERMISSION"
        (short_dir / "s").chmod(0o666)
        link = await Connection.open(served.stub.Dial(), dial=pb.Target(unix_path=bytes(short_dir / "s")))
        assert await seen == 65534
        link.call.cancel()

        refusal = served.stub.Listen(pb.ListenRequest(unix_path=bytes(short_dir / "new"), listener_id="l1"))
        assert (await refusal.read()).failed.code == pb.OpenFailed.PERMISSION
        async with _listening(served, unix_path=bytes(served.home / "mine"), listener_id="l2"):
            found = (served.home / "mine").stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (65534, 0o600)
        await wait_for(lambda: not (served.home / "mine").exists(), what="removal of the socket")
    server.close()


# ---------------------------------------------------------------------------------------- listen


class _Listening:
    def __init__(self, served: Shelld, call: Any, bound: pb.Bound) -> None:
        self.served, self.call, self.bound = served, call, bound

    async def accepted(self) -> pb.Accepted:
        frame = await self.call.read()
        assert frame.WhichOneof("frame") == "accepted", frame
        return frame.accepted

    async def accept(self) -> Connection:
        told = await self.accepted()
        return await Connection.open(self.served.stub.Accept(), accept=told.connection_id)


@asynccontextmanager
async def _listening(served: Shelld, **request: Any) -> AsyncIterator[_Listening]:
    call = served.stub.Listen(pb.ListenRequest(**request))
    frame = await call.read()
    assert frame.WhichOneof("frame") == "bound", frame
    try:
        yield _Listening(served, call, frame.bound)
    finally:
        call.cancel()


async def _listen_fails(served: Shelld, **request: Any) -> str:
    call = served.stub.Listen(pb.ListenRequest(**request))
    frame = await call.read()
    assert frame.WhichOneof("frame") == "failed", frame
    assert await call.read() is grpc.aio.EOF
    return pb.OpenFailed.Code.Name(frame.failed.code)


async def test_listen_on_any_port_and_accept(served: Shelld) -> None:
    async with _listening(served, tcp=pb.TcpAddress(host="", port=0), listener_id="t1") as listening:
        assert listening.bound.address == "127.0.0.1"  # nothing but loopback without a rule
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.bound.port)
        told = await listening.accepted()
        assert (told.peer_host, told.peer_port) == writer.get_extra_info("sockname")[:2]
        link = await Connection.open(served.stub.Accept(), accept=told.connection_id)
        writer.write(b"ping")
        while link.received != b"ping":
            await link.next()
        await link.send(b"pong")
        await link.eof()
        assert await reader.read() == b"pong"
        writer.close()
        assert await link.end() == ["eof"]
        port = listening.bound.port
    await wait_for(lambda: _closed(port), what="the end of the listener")


def _closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_listen_refusals(served: Shelld, short_dir: Path) -> None:
    async with _listening(served, tcp=pb.TcpAddress(port=0), listener_id="r1") as listening:
        again = pb.TcpAddress(host="localhost", port=listening.bound.port)
        assert await _listen_fails(served, tcp=again, listener_id="r2") == "ADDRESS_IN_USE"
        assert await _listen_fails(served, tcp=pb.TcpAddress(port=0), listener_id="r1") == "INVALID"
    (short_dir / "taken").touch()
    assert (
        await _listen_fails(served, unix_path=bytes(short_dir / "taken"), listener_id="r3")
        == "ADDRESS_IN_USE"
    )
    assert await _listen_fails(served, unix_path=b"/no/such/dir/s", listener_id="r3") == "NOT_FOUND"
    assert await _listen_fails(served, listener_id="r3") == "INVALID"
    assert await _listen_fails(served, tcp=pb.TcpAddress(port=0)) == "INVALID"
    assert await _listen_fails(served, ssh_agent="../evil", listener_id="r3") == "INVALID"
    assert (short_dir / "taken").exists()


async def test_listen_denied_by_rule() -> None:
    async with shelld(
        forward={"listen_tcp": [], "listen_unix": ["/allowed/*"]}, limits={"listeners": 0}
    ) as served:
        assert await _listen_fails(served, tcp=pb.TcpAddress(port=0), listener_id="d1") == "RESOURCES"
    async with shelld(forward={"listen_tcp": [], "listen_unix": ["/allowed/*"]}) as served:
        assert await _listen_fails(served, tcp=pb.TcpAddress(port=0), listener_id="d1") == "PROHIBITED"
        assert await _listen_fails(served, unix_path=b"/allowed/../tmp/x", listener_id="d1") == "PROHIBITED"


async def test_unclaimed_connection_is_closed(served: Shelld) -> None:
    async with _listening(served, tcp=pb.TcpAddress(port=0), listener_id="u1") as listening:
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.bound.port)
        told = await listening.accepted()
        assert await reader.read() == b""
        assert (await refused(served.stub.Accept(), accept=told.connection_id))[0] == "NOT_FOUND"
        writer.close()


async def test_flood_of_connections_is_bounded_and_all_are_served() -> None:
    async with (
        shelld() as served,
        _listening(served, tcp=pb.TcpAddress(port=0), listener_id="f1") as listening,
    ):
        clients = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", listening.bound.port) for _ in range(200))
        )
        for _ in range(200):
            link = await listening.accept()
            link.call.cancel()
        for _, writer in clients:
            writer.close()


# ------------------------------------------------------------------------------------- ssh-agent


@pytest.mark.parametrize("runtime", ["run", "/proc/no/such/dir"])
async def test_agent_socket_is_private_and_goes_with_its_stream(runtime: str, short_dir: Path) -> None:
    directory = str(short_dir) if runtime == "run" else runtime
    async with shelld(runtime_dir=directory) as served:
        name = "ssh-agent-ux-p1-77-3.sock"
        async with _listening(served, ssh_agent=name, listener_id="a1") as listening:
            path = Path(listening.bound.address)
            assert path.name == name
            assert (path.parent == short_dir) == (runtime == "run")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            script = (
                "import os, socket; s = socket.socket(socket.AF_UNIX);"
                "s.connect(os.environ['SSH_AUTH_SOCK']); s.send(b'who?'); print(s.recv(99).decode())"
            )
            running = await start(served, f'python3 -c "{script}"', ssh_agent="a1")
            link = await listening.accept()
            while link.received != b"who?":
                await link.next()
            await link.send(b"me")
            assert (await running.end()).out == "me\n"
            assert await _listen_fails(served, ssh_agent=name, listener_id="a2") == "ADDRESS_IN_USE"
        await wait_for(lambda: not path.exists(), what="removal of the socket")
        assert (await run(served, "true", ssh_agent="a1")).failed == "INVALID"


async def test_agent_socket_of_a_killed_shelld_is_replaced(short_dir: Path) -> None:
    name = "ssh-agent-ux-p1-77-4.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(short_dir / name))
    dead.close()
    async with (
        shelld(runtime_dir=str(short_dir)) as served,
        _listening(served, ssh_agent=name, listener_id="a1") as listening,
    ):
        assert listening.bound.address == str(short_dir / name)


async def test_agent_socket_goes_when_shelld_stops(short_dir: Path) -> None:
    async with shelld(runtime_dir=str(short_dir)) as served:
        call = served.stub.Listen(pb.ListenRequest(ssh_agent="agent.sock", listener_id="a1"))
        await call.read()
        assert (short_dir / "agent.sock").exists()
    assert not (short_dir / "agent.sock").exists()


# ---------------------------------------------------------------------------------------- status


async def test_status_counts_what_lives(served: Shelld) -> None:
    running = await start(served, "read line")
    async with _listening(served, tcp=pb.TcpAddress(port=0), listener_id="s1"):
        status = await served.stub.Status(pb.StatusRequest())
        assert (status.programs, status.listeners, status.draining) == (1, 1, False)
        assert status.memory_bytes > 10 * MIB
        assert status.disk_free_bytes > 0
    await running.type("\n")
    await running.end()
    assert (await served.stub.Status(pb.StatusRequest())).uptime_ms > 0
