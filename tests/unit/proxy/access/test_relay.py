"""Inbound and Outbound alone: what is held, when the channel is stopped, in which pieces it leaves."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from proxy.access.relay import Gate, Inbound, Outbound
from proxy.upstream.frame_codec import Buffer


class FakeChannel:
    """Notes what it is told; bytes fed while paused are a fault of the test."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: Buffer, datatype: int | None = None) -> None:
        self.written.append(bytes(data))

    def write_eof(self) -> None:
        self.calls.append("eof")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def is_closing(self) -> bool:
        return self.closing


async def take(inbound: Inbound, limit: int) -> bytes:
    pieces, size = await inbound.take(limit)
    data = b"".join(pieces)
    assert len(data) == size
    return data


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20), st.lists(st.integers(1, 80), min_size=1))
def test_bytes_leave_in_order_and_within_the_limit(fed: list[bytes], limits: list[int]) -> None:
    async def run() -> None:
        inbound = Inbound(1_000_000)
        for piece in fed:
            inbound.feed(memoryview(piece))
        inbound.feed_eof()
        out, turn = b"", 0
        while data := await take(inbound, limit := limits[turn % len(limits)]):
            assert len(data) <= limit
            out += data
            turn += 1
        assert out == b"".join(fed)

    asyncio.run(run())


async def test_a_full_buffer_stops_the_channel_once_and_an_emptied_one_starts_it() -> None:
    inbound, channel = Inbound(10), FakeChannel()
    inbound.attach(channel)
    inbound.feed(b"12345")
    assert channel.calls == []
    inbound.feed(b"67890")
    inbound.feed(b"more that was on its way")
    assert channel.calls == ["pause"]
    assert await take(inbound, 30) == b"1234567890more that was on its"
    assert channel.calls == ["pause", "resume"]
    assert await take(inbound, 100) == b" way"


async def test_whoever_waits_gets_what_arrives_and_then_the_end() -> None:
    inbound = Inbound(100)
    waiting = asyncio.ensure_future(take(inbound, 100))
    await asyncio.sleep(0)
    inbound.feed(b"late")
    assert await waiting == b"late"
    waiting = asyncio.ensure_future(take(inbound, 100))
    await asyncio.sleep(0)
    inbound.feed_eof()
    assert await waiting == b""
    assert await take(inbound, 100) == b""


async def test_looking_leaves_everything_and_discarding_nothing() -> None:
    inbound, channel = Inbound(4), FakeChannel()
    inbound.attach(channel)
    inbound.feed(b"typed")
    assert inbound.peek() == b"typed"
    assert inbound.peek() == b"typed"
    inbound.discard()
    assert inbound.peek() == b""
    assert channel.calls == ["pause", "resume"]


async def test_a_writer_waits_for_the_channel_and_for_the_connection() -> None:
    connection, channel = Gate(), FakeChannel()
    outbound = Outbound(connection)
    outbound.attach(channel)
    outbound.gate.shut()
    connection.shut()
    writing = asyncio.ensure_future(outbound.write(b"x"))
    await asyncio.sleep(0)
    assert channel.written == [b"x"]
    outbound.gate.open()
    await asyncio.sleep(0)
    assert not writing.done()
    connection.open()
    await writing


async def test_a_closed_channel_swallows_what_is_written() -> None:
    channel = FakeChannel()
    channel.closing = True
    outbound = Outbound(Gate())
    outbound.attach(channel)
    await outbound.write(b"x")
    outbound.write_eof()
    assert channel.written == []
    assert channel.calls == []


async def test_single_bytes_that_nobody_takes_are_held_in_few_pieces() -> None:
    inbound = Inbound(1_000_000)
    fed = bytes(index % 251 for index in range(100_000))
    for index in range(len(fed)):
        inbound.feed(memoryview(fed)[index : index + 1])
    pieces, size = await inbound.take(len(fed))
    assert size == len(fed)
    assert b"".join(pieces) == fed
    assert len(pieces) <= 4
