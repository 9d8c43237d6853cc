"""WebSockets pass as they come, are ended from outside by a Close frame, and leave nothing behind."""

import asyncio
import socket
import struct

import pytest

from proxy.web.frames import close_frame
from tests.web.fronts import Running, Talk, raw_echo, running, until

_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"


def upgrade(front: Running, more: bytes = b"") -> bytes:
    """Ask for a WebSocket, in the spelling of some clients."""
    return (
        b"GET /ws HTTP/1.1\r\nHost: %b\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n%b%b\r\n"
        % (
            front.host(),
            _KEY,
            more,
        )
    )


async def splices(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Agree to change the protocol, then send back every byte; ends when the client does."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Mine: 1\r\n\r\n"
    )
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def opened(front: Running) -> Talk:
    talk = await front.connect()
    talk.send(upgrade(front))
    head = await talk.head()
    assert head.startswith(b"HTTP/1.1 101 ")
    return talk


def masked(payload: bytes, opcode: int = 2) -> bytes:
    size = len(payload)
    head = bytes((0x80 | opcode, 0x80 | (size if size < 126 else 127)))
    return head + (b"" if size < 126 else struct.pack("!Q", size)) + b"\0\0\0\0" + payload


async def test_the_head_of_an_upgrade_passes_both_ways() -> None:
    async with running() as front:
        seen: list[bytes] = []

        async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: a\r\n\r\n"
                b"first"
            )
            await writer.drain()
            assert await reader.read() == b"from client"

        await front.app(app)
        talk = await front.connect()
        talk.send(
            upgrade(front, b"Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: http://x\r\n") + b"from "
        )
        head = await talk.head()
        assert (
            b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: a\r\n" in head
        )
        assert b"\r\nUpgrade: websocket\r\n" in head
        assert head.count(b"Connection: Upgrade\r\n") == 1
        assert b"Content-Length" not in head
        assert await talk.reader.readexactly(5) == b"first"
        talk.send(b"client")
        talk.writer.write_eof()
        assert await talk.rest() == b""
        assert b"\r\nupgrade: WebSocket\r\n" in seen[0]
        assert _KEY in seen[0]
        assert b"Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: http://x\r\n" in seen[0]


async def test_an_app_may_refuse_an_upgrade_and_the_connection_goes_on() -> None:
    async with running() as front:
        await front.app(raw_echo)
        talk = await front.connect()
        for _ in range(2):
            assert (await talk.ask(upgrade(front))).status == 200
            assert (await talk.ask(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % front.host())).status == 200


async def test_no_other_protocol_is_changed_to() -> None:
    async with running() as front:
        await front.app(raw_echo)
        talk = await front.connect()
        reply = await talk.ask(upgrade(front).replace(b"WebSocket", b"h2c"))
        assert b"pgrade" not in reply.body.partition(b"Sec-")[0]
        reply = await talk.ask(upgrade(front).replace(b"GET", b"PUT"))
        assert b"pgrade" not in reply.body.partition(b"Sec-")[0]


async def test_each_direction_ends_by_itself() -> None:
    async with running() as front:

        async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            size = len(await reader.read())
            writer.write(b"%d bytes" % size)
            await writer.drain()

        await front.app(counts)
        talk = await opened(front)
        talk.send(b"x" * 1_000_000)
        talk.writer.write_eof()
        assert await talk.rest() == b"1000000 bytes"
        await front.idle()


async def test_a_socket_that_is_ended_from_outside_says_why_on_both_sides() -> None:
    async with running() as front:
        ended: list[bytes] = []

        async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi")
            await writer.drain()
            ended.append(await reader.read())

        await front.app(app)
        talk = await opened(front)
        assert await talk.reader.readexactly(4) == b"\x81\x02hi"
        talk.send(masked(b"abc"))
        await until(lambda: any(one.data_frames for one in front.front.upgraded), "the frame passed")
        (exchange,) = front.front.upgraded
        exchange.stop(1008, "signed out")
        assert await talk.rest() == close_frame(1008, "signed out", masked=False)
        await talk.close()
        await until(lambda: bool(ended), "the app has heard of it")
        assert ended == [masked(b"abc") + close_frame(1008, "signed out", masked=True)]
        exchange.stop(1008, "signed out")
        await front.idle()


async def test_a_socket_that_is_ended_inside_a_frame_is_broken_off() -> None:
    async with running() as front:

        async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x82\x7dhalf of it"
            )
            await writer.drain()
            await reader.read()

        await front.app(app)
        talk = await opened(front)
        assert await talk.reader.readexactly(12) == b"\x82\x7dhalf of it"
        front.front.upgraded[0].stop(1008, "signed out")
        assert await talk.rest() == b""
        await front.idle()


async def test_a_shutdown_closes_200_sockets_with_a_reason() -> None:
    async with running() as front:
        await front.app(splices)
        talks = [await opened(front) for _ in range(200)]
        await until(lambda: len(front.front.upgraded) == 200, "all are open")
        closing = asyncio.ensure_future(front.front.close(30))
        for talk in talks:
            assert await talk.rest() == close_frame(1001, "the server is shutting down", masked=False)
            await talk.close()
        await closing
        assert len(front.front) == 0


async def test_a_splice_whose_one_end_has_gone_quiet_does_not_stay_for_ever() -> None:
    async with running(half_closed_s=1) as front:
        hold = asyncio.Event()

        async def keeps(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            await writer.drain()
            await hold.wait()

        await front.app(keeps)
        talk = await opened(front)
        talk.writer.write_eof()
        assert await talk.rest() == b""
        hold.set()
        await front.idle()


WAYS = ["client resets", "client closes", "client half-closes", "app resets", "app closes", "both at once"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before the answer", "in the answer", "in a splice"])
async def test_sockets_that_are_dropped_leave_nothing_behind(way: str, when: str) -> None:
    """60 of each kind; 20,000 in the slow run."""
    await drop(way, when, 60)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
async def test_20_000_sockets_dropped_in_six_ways_leave_nothing_behind() -> None:
    for way in WAYS:
        for when in ("before the answer", "in the answer", "in a splice"):
            await drop(way, when, 1_120)


async def drop(way: str, when: str, count: int) -> None:
    async with running(half_closed_s=2, linger_s=1, idle_s=1) as front:
        apps: list[asyncio.StreamWriter] = []

        async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            apps.append(writer)
            if when == "in the answer":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
            elif when == "in a splice":
                assert b"pgrade" in head
                writer.write(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nsome")
            await reader.read()

        await front.app(app)
        for _ in range(0, count, 20):
            apps.clear()
            talks = [await front.connect() for _ in range(20)]
            for talk in talks:
                talk.send(
                    upgrade(front)
                    if when == "in a splice"
                    else b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % front.host()
                )
            await until(lambda: len(apps) == 20, "the app has them all")
            if when != "before the answer":
                for talk in talks:
                    await talk.reader.readuntil(b"some")
            for talk, writer in zip(talks, apps, strict=True):
                _end(way, talk, writer)
            for talk in talks:
                await talk.rest()
                await talk.close()
            front.talks.clear()
        await front.idle()
        await until(lambda: not front.serving, "connections with the app are gone")
        assert len(front.pool) == 0
        await until(lambda: len(front.front.tasks) == 1, "only the task of deadlines is left")


def _end(way: str, talk: Talk, app: asyncio.StreamWriter) -> None:
    if way in ("client resets", "both at once"):
        _reset(talk.writer)
    if way in ("app resets", "both at once"):
        _reset(app)
    if way == "client closes":
        talk.writer.close()
    if way == "client half-closes":
        talk.writer.write_eof()
    if way == "app closes":
        app.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break off by a RST rather than a FIN (SO_LINGER of socket(7) with a time of 0)."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
