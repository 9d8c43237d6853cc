"""Turns of one client: how many dials are under way, and how fast things begin."""

import asyncio

import pytest

from proxy.errors.programs import OpenFailed, OpenFailedKind
from proxy.settings.connection import ConnectionSettings
from proxy.ssh.openings import LeakyBucket, Openings

LONG_S = 600


def _openings(**settings: float) -> Openings:
    return Openings(ConnectionSettings(**{"opens_per_s": 100_000, **settings}))


class TestPace:
    def test_a_burst_goes_at_once_and_the_next_waits_its_share(self) -> None:
        pace = LeakyBucket(per_s=10, burst=3)
        for _ in range(3):
            assert pace.wait_s(100.0) == 0
            pace.take(100.0)
        assert pace.wait_s(100.0) == pytest.approx(0.1)

    def test_a_pause_gives_the_whole_burst_again_and_no_more(self) -> None:
        pace = LeakyBucket(per_s=10, burst=3)
        for now in (0.0, 1_000.0):
            for _ in range(3):
                assert pace.wait_s(now) == 0
                pace.take(now)
            assert pace.wait_s(now) > 0

    def test_in_the_long_run_it_is_the_rate_that_counts(self) -> None:
        pace, now = LeakyBucket(per_s=10, burst=3), 0.0
        for _ in range(1_003):
            now += pace.wait_s(now)
            pace.take(now)
        assert now == pytest.approx(100, rel=0.01)


class TestDials:
    async def test_no_more_are_under_way_than_allowed_and_the_next_follows_in_order(self) -> None:
        openings, under_way, order = _openings(max_dials=2), 0, []
        most, release = 0, asyncio.Event()

        async def dial(number: int) -> None:
            nonlocal under_way, most
            async with openings.dial():
                under_way += 1
                most = max(most, under_way)
                order.append(number)
                await release.wait()
                under_way -= 1

        dials = [asyncio.create_task(dial(number)) for number in range(10)]
        while len(order) < 2:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert order == [0, 1]
        release.set()
        await asyncio.gather(*dials)
        assert (most, order) == (2, list(range(10)))

    async def test_one_that_waits_too_long_is_refused_and_takes_no_place(self) -> None:
        openings = _openings(max_dials=1, open_wait_s=0.01)
        async with openings.dial():
            with pytest.raises(OpenFailed, match="1 other connections") as refused:
                async with openings.dial():
                    raise AssertionError("there was no room")
            assert refused.value.kind is OpenFailedKind.RESOURCES
        async with openings.dial():
            pass

    @pytest.mark.parametrize("error", [OpenFailed(OpenFailedKind.REFUSED, ""), RuntimeError("a bug")])
    async def test_a_failed_dial_gives_its_place_back(self, error: Exception) -> None:
        openings = _openings(max_dials=1, open_wait_s=LONG_S)
        for _ in range(3):
            with pytest.raises(type(error)):
                async with openings.dial():
                    raise error

    async def test_a_cancelled_dial_gives_its_place_back_whether_it_waited_or_not(self) -> None:
        openings = _openings(max_dials=1, open_wait_s=LONG_S)

        async def hold() -> None:
            async with openings.dial():
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(hold()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in reversed(tasks):
            task.cancel()
        await asyncio.wait(tasks)
        async with openings.dial():
            pass

    async def test_what_is_cancelled_while_it_waits_for_the_pace_takes_none_of_it(self) -> None:
        openings = _openings(opens_per_s=1, max_channels=1)
        await openings.begin()
        waiting = [asyncio.create_task(openings.begin()) for _ in range(1_000)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        async with asyncio.timeout(LONG_S):
            await openings.begin()  # in a second, not in a thousand
