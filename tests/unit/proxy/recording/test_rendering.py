"""The page of a recording, made by a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from proxy.errors.stores import RecordingError
from proxy.recording.archive import VerificationResult
from proxy.recording.lines import event_line, header_line
from proxy.recording.manifest import Manifest
from proxy.recording.page import page, policy
from proxy.recording.rendering import rendered

MANIFEST = Manifest(
    id="0123456789abcdef-1",
    kind="exec",
    format="asciicast-2",
    user="alice",
    user_string="alice+dev",
    blueprint="dev",
    connection="0123456789abcdef",
    client_address="192.0.2.1",
    fingerprint="SHA256:x",
    command="<script>alert(1)</script>",
    proxy_id="p",
    started_at=datetime(2026, 3, 4, tzinfo=UTC),
)
INTACT = VerificationResult("intact", "1 blocks", 1, 100)


async def lines(count: int = 3) -> AsyncIterator[bytes]:
    yield header_line({"version": 2, "width": 80, "height": 24})
    for number in range(count):
        yield event_line(number / 10, "o", f"line {number}\n")


async def collected(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_the_page_is_the_one_that_the_command_exports() -> None:
    own = "".join([text async for text in page(MANIFEST, INTACT, lines())])
    made = (await collected(rendered(MANIFEST, INTACT, lines()))).decode()
    assert made == own
    assert f'content="{policy()}"' in made
    assert "<script>alert" not in made


async def test_a_store_that_fails_on_the_way_is_an_error_and_leaves_no_process() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield header_line({"version": 2, "width": 80, "height": 24})
        raise RecordingError("the store of recordings cannot be read")

    with pytest.raises(RecordingError, match="cannot be read"):
        await collected(rendered(MANIFEST, INTACT, broken()))


async def test_a_reader_that_leaves_ends_the_child() -> None:
    gone = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            async for line in lines(1):
                yield line
            for number in range(10_000_000):
                yield event_line(number, "o", "x" * 1_000)
        finally:
            gone.set()

    pieces = rendered(MANIFEST, INTACT, endless())
    async for _ in pieces:
        break
    await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
    async with asyncio.timeout(30):
        await gone.wait()
