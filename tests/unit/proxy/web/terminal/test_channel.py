"""The channel of a terminal: a program is stopped by what the page has not drawn, a page by unread input."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.web.terminal.channel import INPUT_BYTES, WINDOW_BYTES, TerminalChannel
from proxy.web.terminal.messages import MessageInvalid


class Page:
    """A page that draws nothing by itself."""

    def __init__(self) -> None:
        self.got = b""
        self.messages = 0
        self.room = INPUT_BYTES
        self.largest = 0

    async def send_bytes(self, data: bytes) -> None:
        self.got += data
        self.largest = max(self.largest, len(data))

    async def send_str(self, data: str) -> None:
        self.messages += 1
        self.room = json.loads(data)["room"]


@pytest.fixture
def page() -> Page:
    return Page()


@pytest_asyncio.fixture
async def channel(page: Page) -> AsyncIterator[TerminalChannel]:
    channel = TerminalChannel(page)
    sending = asyncio.ensure_future(channel.send())
    yield channel
    sending.cancel()
    await asyncio.wait([sending])


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_program_is_stopped_until_the_page_has_drawn(channel: TerminalChannel, page: Page) -> None:
    piece = bytes(range(256)) * 128
    written = 0

    async def program() -> None:
        nonlocal written
        while True:
            await channel.outbound.write(piece)
            written += len(piece)

    running = asyncio.ensure_future(program())
    await turns()
    assert len(page.got) == WINDOW_BYTES
    assert written <= WINDOW_BYTES + 3 * len(piece)
    channel.shown(100_000)
    await turns()
    assert len(page.got) == WINDOW_BYTES + 100_000
    running.cancel()
    assert page.got == (piece * 100)[: len(page.got)]
    assert page.largest <= 64 * 1024


async def test_all_that_was_written_is_sent_before_a_flush_returns(
    channel: TerminalChannel, page: Page
) -> None:
    channel.write(bytes(WINDOW_BYTES + 10))
    flushing = asyncio.ensure_future(channel.outbound.flush())
    await turns()
    assert not flushing.done()
    channel.shown(WINDOW_BYTES)
    await turns()
    assert flushing.done()
    assert len(page.got) == WINDOW_BYTES + 10


async def test_a_page_gets_room_as_the_program_reads_and_no_more(
    channel: TerminalChannel, page: Page
) -> None:
    taken = sent = 0
    for _ in range(100):  # nothing is read: the page must come to a stop
        size = min(16 * 1024, page.room - sent)
        channel.received(bytes(size))
        sent += size
        await turns()
    assert INPUT_BYTES <= sent <= 2 * INPUT_BYTES
    assert page.room == sent
    while taken < sent:
        _, size = await channel.inbound.take(10_000)
        taken += size
    await turns()
    assert page.room >= sent + INPUT_BYTES // 2


async def test_input_without_room_is_refused(channel: TerminalChannel) -> None:
    with pytest.raises(MessageInvalid, match="more input than there is room for"):
        channel.received(bytes(INPUT_BYTES + 1))


@pytest.mark.parametrize("total", [-1, 6, 10**30])
async def test_a_page_cannot_have_drawn_what_was_not_sent(channel: TerminalChannel, total: int) -> None:
    channel.write(b"hello")
    await turns()
    with pytest.raises(MessageInvalid, match="what was not sent"):
        channel.shown(total)


async def test_what_a_page_has_drawn_never_becomes_less(channel: TerminalChannel) -> None:
    channel.write(b"hello")
    await turns()
    channel.shown(5)
    with pytest.raises(MessageInvalid):
        channel.shown(4)


async def test_a_program_is_not_held_up_by_a_page_that_is_gone(channel: TerminalChannel, page: Page) -> None:
    channel.write(bytes(WINDOW_BYTES * 2))
    await turns()
    assert not channel.outbound.gate.is_open
    channel.closed()
    async with asyncio.timeout(10):
        await channel.outbound.write(b"more")
        await channel.outbound.flush()
    assert len(page.got) == WINDOW_BYTES
