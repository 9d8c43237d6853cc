"""Reads of a pipe whose reader leaves."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from shelld.launch.fds import Source


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


async def test_a_read_that_waits_ends_when_the_source_is_abandoned(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0], pipe=True)
    reading = asyncio.create_task(source.read())
    await asyncio.sleep(0)
    assert not reading.done()
    source.abandon()
    assert await asyncio.wait_for(reading, 60) == b""


async def test_an_abandoned_source_has_ended_whatever_waits(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0], pipe=True)
    os.write(pipe[1], b"one")
    assert await source.read() == b"one"
    os.write(pipe[1], b"two")
    source.abandon()
    assert await source.read() == b""
