"""The second line: a command of the operator's, which may fail, hang, or not be there."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog

from proxy.protection.bans import Bans, order
from proxy.protection.hook import Hook
from proxy.settings.protection import BanSettings
from proxy.shared.memory import MemoryBuckets

NOTE = "import sys; open(sys.argv[1], 'a').write(' '.join(sys.argv[2:]) + '\\n')"


@pytest.fixture
async def bans() -> AsyncIterator[Bans]:
    buckets = MemoryBuckets()
    bans = Bans(buckets, max_sources=100, memory_s=60)
    yield bans
    await bans.close()
    await buckets.close()


Start = Callable[..., Hook]


@pytest.fixture
async def start(bans: Bans) -> AsyncIterator[Start]:
    hooks: list[Hook] = []

    def make(*command: str, timeout_s: float = 30) -> Hook:
        hooks.append(Hook(BanSettings(command=command, command_timeout_s=timeout_s), bans))
        hooks[-1].start()
        return hooks[-1]

    yield make
    for hook in hooks:
        await hook.close()


async def lines(path: Path, count: int) -> list[str]:
    async with asyncio.timeout(30):
        while not path.exists() or path.read_text().count("\n") < count:
            await asyncio.sleep(0.01)
    return path.read_text().splitlines()


async def test_it_hears_of_every_ban_and_its_end(bans: Bans, start: Start, tmp_path: Path) -> None:
    told = tmp_path / "told"
    await bans.add(order("192.0.2.1", 600, "", "cli:root"))
    start(sys.executable, "-c", NOTE, str(told), "{action}", "{address}", "{family}", "{seconds}")
    assert await lines(told, 1) == ["ban 192.0.2.1 4 600"]
    await bans.add(order("2001:db8::1", 60, "", "cli:root"))
    await lines(told, 2)
    await bans.remove("192.0.2.1")
    assert (await lines(told, 3))[1:] == ["ban 2001:db8::/64 6 60", "unban 192.0.2.1 4 0"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("/nowhere/to/be/found",), "ban command cannot be run"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "ban command failed"),
        ((sys.executable, "-c", "import time; time.sleep(600)"), "ban command took too long"),
    ],
)
async def test_one_that_fails_is_told_and_disturbs_nothing(
    bans: Bans, start: Start, command: tuple[str, ...], said: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        start(*command, timeout_s=0.5)
        await bans.add(order("192.0.2.1", 600, "", "cli:root"))
        async with asyncio.timeout(30):
            while not logs:
                await asyncio.sleep(0.01)
    assert [entry["event"] for entry in logs] == [said]
    assert bans.find("192.0.2.1") is not None
