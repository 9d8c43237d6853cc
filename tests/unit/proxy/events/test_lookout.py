"""A look is taken after each event that asks for one and in any case in time; no failure ends later looks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from structlog.testing import capture_logs

from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.events import schema, subjects
from proxy.events.inprocess import InProcessBus
from proxy.events.lookout import Lookout
from proxy.events.publisher import Gap, Message

LONG_S = 3_600.0


class Looks:
    """The looks that were taken; each ends as the next of `ends` says."""

    def __init__(self, *ends: Exception | None) -> None:
        self._ends = list(ends)
        self.count = 0
        self._taken = asyncio.Event()

    async def look(self) -> None:
        self.count += 1
        self._taken.set()
        if self._ends and (end := self._ends.pop(0)) is not None:
            raise end

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.count < count:
                self._taken.clear()
                await self._taken.wait()


@asynccontextmanager
async def looking(
    looks: Looks, every_s: float, heard: Callable[[Message | Gap], bool] = lambda _: True
) -> AsyncIterator[tuple[Lookout, InProcessBus]]:
    bus, tasks = InProcessBus(proxy_id="p1"), TaskOwner("looking")
    log = structlog.get_logger("test")
    lookout = Lookout(looks.look, every_s, log, outage="cannot look", heard=heard)
    lookout.start(tasks, bus.subscribe(subjects.ALL_USER))
    yield lookout, bus
    await tasks.close()
    await bus.close(0)


def event() -> schema.Event:
    return schema.UserLocked(user="alice", actor="cli:root")


async def test_looks_are_taken_without_any_event() -> None:
    looks = Looks()
    async with looking(looks, 0.001):
        await looks.reach(3)


async def test_an_event_and_its_owner_hasten_a_look() -> None:
    looks = Looks()
    async with looking(looks, LONG_S) as (lookout, bus):
        bus.publish(event())
        await looks.reach(1)
        lookout.hurry()
        await looks.reach(2)


async def test_an_event_that_asks_for_nothing_hastens_none() -> None:
    looks, heard = Looks(), asyncio.Event()

    def hears(message: Message | Gap) -> bool:
        del message
        heard.set()
        return False

    async with looking(looks, LONG_S, heard=hears) as (_, bus):
        bus.publish(event())
        await heard.wait()
        await asyncio.sleep(0)
        assert looks.count == 0


async def test_an_outage_is_logged_once_and_a_bug_ends_no_later_look() -> None:
    looks = Looks(StoreError("away"), StoreError("away"), ValueError("a bug"), None, StoreError("away"))
    with capture_logs() as said:
        async with looking(looks, 0.001):
            await looks.reach(6)
    assert [entry["event"] for entry in said] == ["cannot look", "look failed", "cannot look"]
