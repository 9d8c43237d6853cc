"""Bans beside a NATS that is away: orders of commands in the file of a home, and the copy that they read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.events.schema import AddressBannedEvent, AddressUnbanned, Event
from proxy.protection.bans import Ban, Bans
from proxy.protection.home_bans import Announcer, HeldBans, HomeBans
from proxy.settings.events import EventsSettings
from proxy.shared.memory import MemoryBuckets
from proxy.shared.nats import NatsBuckets
from tests.contract.natsserver import free_port

SOURCE, OTHER = "192.0.2.1", "192.0.2.2"


def ban(source: str = SOURCE, *, length_s: float = 600, since: datetime | None = None) -> Ban:
    since = since or datetime.now(UTC)
    return Ban(source, since, since + timedelta(seconds=length_s), ("scans",), "cli:root")


class Told:
    """A Publisher that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def publish(self, event: Event) -> None:
        self.events.append(event)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
async def away() -> AsyncIterator[Bans]:
    """Bans of a proxy whose NATS server does not listen."""
    buckets = NatsBuckets(EventsSettings(urls=(f"nats://127.0.0.1:{free_port()}",)), proxy_id="p")
    bans = Bans(buckets, max_sources=100, memory_s=60)
    buckets.start()
    yield bans
    await bans.close()
    await buckets.close()


@asynccontextmanager
async def home_of(bans: Bans, file: Path) -> AsyncIterator[Told]:
    told = Told()
    home = HomeBans(file, bans, told, timeout_s=5, max_sources=100)
    home.start()
    try:
        yield told
    finally:
        await home.close()


@asynccontextmanager
async def held_in(file: Path) -> AsyncIterator[HeldBans]:
    held = HeldBans(file, timeout_s=5, max_sources=100)
    await held.open()
    try:
        yield held
    finally:
        await held.close()


async def test_an_order_from_before_the_start_is_taken_and_told(away: Bans, tmp_path: Path) -> None:
    ordered = ban()
    async with held_in(tmp_path / "shared.db") as held:
        await held.add(ordered)
        assert held.all() == [ordered]
    assert away.find(SOURCE) is None
    async with home_of(away, tmp_path / "shared.db") as told:
        await until(lambda: away.find(SOURCE))
        await until(lambda: told.events)
    assert away.find(SOURCE) == ordered
    assert [type(event) for event in told.events] == [AddressBannedEvent]


async def test_a_ban_that_is_not_shared_yet_is_in_the_copy(away: Bans, tmp_path: Path) -> None:
    made = ban()
    async with home_of(away, tmp_path / "shared.db"), held_in(tmp_path / "shared.db") as held:
        away.begin(made)
        await until(lambda: held.find(SOURCE))
        assert held.all() == [made]
        assert held.find(OTHER) is None


async def test_an_order_to_let_in_holds_here_at_once(away: Bans, tmp_path: Path) -> None:
    async with home_of(away, tmp_path / "shared.db") as told, held_in(tmp_path / "shared.db") as held:
        away.begin(ban())
        await until(lambda: held.find(SOURCE))
        assert await held.remove(SOURCE, "cli:root") is not None
        assert held.find(SOURCE) is None
        await until(lambda: away.find(SOURCE) is None)
        await until(lambda: told.events)
        await until(lambda: not held._home_buckets.orders.entries())
        await until(lambda: held.all() == [])
    (event,) = told.events
    assert isinstance(event, AddressUnbanned)
    assert (event.address, event.actor) == (SOURCE, "cli:root")


async def test_an_order_that_nats_got_as_well_holds_here_and_is_told_by_its_command(
    away: Bans, tmp_path: Path
) -> None:
    """NATS took the change and died before it told this proxy."""
    ordered = ban()
    async with home_of(away, tmp_path / "shared.db") as told, held_in(tmp_path / "shared.db") as held:
        await held.add(ordered, Announcer.BY_COMMAND)
        assert held.all() == [ordered]
        await until(lambda: away.find(SOURCE))
        await until(lambda: not held._home_buckets.orders.entries())
        assert held.all() == [ordered]
        await held.remove(SOURCE, "cli:root", Announcer.BY_COMMAND)
        await until(lambda: not held._home_buckets.orders.entries())
        assert away.find(SOURCE) is None
        assert held.all() == []
    assert told.events == []


async def test_a_command_whose_nats_write_failed_leaves_the_event_to_the_proxy(
    away: Bans, tmp_path: Path
) -> None:
    ordered = ban()
    async with home_of(away, tmp_path / "shared.db") as told, held_in(tmp_path / "shared.db") as held:
        await held.add(ordered, Announcer.BY_COMMAND)
        await until(lambda: away.find(SOURCE))
        await held.add(ordered)
        await until(lambda: told.events)
    assert [type(event) for event in told.events] == [AddressBannedEvent]


async def test_a_lift_of_before_does_not_end_a_ban_that_waits_to_be_shared(away: Bans) -> None:
    younger = ban()
    away.begin(younger)
    away.lift(SOURCE, younger.since - timedelta(seconds=1))
    assert away.find(SOURCE) == younger


async def test_a_ban_that_is_over_is_neither_ordered_nor_copied(away: Bans, tmp_path: Path) -> None:
    async with held_in(tmp_path / "shared.db") as held:
        await held.add(ban(since=datetime.now(UTC) - timedelta(hours=1)))
        assert held.all() == []


async def test_the_copy_follows_bans_that_are_shared(tmp_path: Path) -> None:
    bans = Bans(MemoryBuckets(), max_sources=100, memory_s=60)
    await bans.add(ban())
    async with home_of(bans, tmp_path / "shared.db"), held_in(tmp_path / "shared.db") as held:
        await until(lambda: held.find(SOURCE))
        await bans.add(ban(OTHER))
        await until(lambda: held.find(OTHER))
        await bans.remove(SOURCE)
        await until(lambda: held.find(SOURCE) is None)
        assert [one.source for one in held.all()] == [OTHER]
    await bans.close()


async def test_a_lift_does_not_undo_a_younger_ban() -> None:
    bans = Bans(MemoryBuckets(), max_sources=100, memory_s=60)
    await bans.add(ban(since=datetime.now(UTC) - timedelta(seconds=5)))
    bans.lift(SOURCE)
    assert bans.find(SOURCE) is None
    assert bans.all() == []
    younger = ban()
    await bans.add(younger)
    assert bans.find(SOURCE) == younger
    await until(lambda: not bans._lifted)
    assert bans.find(SOURCE) == younger
    await bans.close()


async def test_what_else_stands_in_the_file_is_no_order(away: Bans, tmp_path: Path) -> None:
    async with held_in(tmp_path / "shared.db") as held:
        for number, value in enumerate((b"", b"{}", b"[]", b'{"lift": 1}', b"\xff")):
            await held._home_buckets.orders.put(f"k{number}", value)
        async with home_of(away, tmp_path / "shared.db") as told:
            await until(lambda: not held._home_buckets.orders.entries())
    assert told.events == []
