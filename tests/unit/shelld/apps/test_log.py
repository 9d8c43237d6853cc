"""The log of an app: bounded in the file and in memory for any output."""

import asyncio
import os
from pathlib import Path

import pytest

from shelld.apps import log as module
from shelld.apps.log import KEPT_BYTES, MOST_BYTES, AppLog


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


async def test_a_file_beyond_its_size_loses_its_older_half_at_the_end_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    log = AppLog(opened(tmp_path / "log"))
    for number in range(200):
        await log.say(f"line {number}")
        assert (tmp_path / "log").stat().st_size <= 1000
    kept = (tmp_path / "log").read_text().splitlines()
    assert kept[-1].endswith("line 199")
    assert all(line.startswith("[fairlead ") for line in kept), "no line is cut"
    await log.close()


async def test_memory_keeps_the_tail_and_a_follower_misses_what_it_was_too_slow_for() -> None:
    log = AppLog()
    await log.say("first")
    follower = log.follow(0)
    assert b"first" in await anext(follower)
    for _ in range(20):
        await log._keep(b"x" * (KEPT_BYTES // 10))
    await log.say("last")
    late = await anext(follower)
    assert len(late) == KEPT_BYTES
    assert late.endswith(b"last\n")
    assert len(await log.read(0)) == KEPT_BYTES
    await follower.aclose()
    await log.close()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"one\ntwo\n", ("one", "two")),
        (b"10%\r50%\r100%\n", ("100%",)),
        (b"dos\r\n", ("dos",)),
        (b"\x1b[31mred\x1b[0m\n", (" [31mred [0m",)),
        (b"caf\xe9 \xc3\xa9\n", ("caf  \u00e9",)),
        (b"\n\n  \nend", ("end",)),
    ],
)
async def test_lines_are_shown_as_users_may_see_them(written: bytes, shown: tuple[str, ...]) -> None:
    log = AppLog()
    await log._keep(written)
    assert log.tail(20) == shown
    await log.close()


async def test_a_full_disk_costs_the_file_and_not_the_app() -> None:
    log = AppLog(os.open("/dev/full", os.O_RDWR | os.O_APPEND))
    await log.say("still in memory")
    assert "still in memory" in log.tail(1)[0]
    await log.close()


async def test_a_reader_that_waits_wakes_with_the_next_line() -> None:
    log = AppLog()
    waiting = asyncio.ensure_future(log.grown(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    await log.say("now")
    await waiting
    await log.close()


def test_the_bounds_are_those_of_the_documentation() -> None:
    assert MOST_BYTES == 1024 * 1024
