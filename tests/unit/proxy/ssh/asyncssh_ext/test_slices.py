import asyncio
from collections.abc import Callable

import pytest

from proxy.ssh.asyncssh_ext.slices import Allowance, Limits, Slices

LIMITS = Limits(slice_units=4, new_units=1, slice_s=0.002, turn_units=8, turn_s=0.004, debt_share=0.5)


class Clock:
    """Processor time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Packets:
    """A connection with so many packets, each of which is `work`."""

    def __init__(
        self, name: str, count: int, done: list[str], work: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self.count = count
        self.holds = 0
        self._done = done
        self._work = work

    def process(self, allowance: Allowance) -> bool:
        while self.count and not allowance.is_spent:
            self.count -= 1
            self._work()
            self._done.append(self.name)
            allowance.spend()
        return self.count > 0

    def hold(self) -> None:
        self.holds += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slices(clock: Clock) -> Slices:
    return Slices(LIMITS, clock)


async def turn() -> None:
    await asyncio.sleep(0)


async def test_a_calm_connection_is_served_at_once_and_never_held(slices: Slices) -> None:
    done = list[str]()
    calm = Packets("a", 4, done)
    slices.ready(calm)
    assert done == ["a"] * 4
    assert calm.holds == 0
    assert len(slices) == 0


async def test_a_connection_has_one_slice_in_a_turn(slices: Slices) -> None:
    done = list[str]()
    busy = Packets("a", 10, done)
    slices.ready(busy)
    slices.ready(busy)  # more was read, or a task has ended
    assert len(done) == 4
    await turn()
    assert len(done) == 8
    await turn()
    assert len(done) == 10
    assert len(slices) == 0


async def test_what_arrives_again_in_the_same_turn_waits_for_the_next(slices: Slices) -> None:
    done = list[str]()
    reader = Packets("a", 4, done)
    slices.ready(reader)
    reader.count = 1
    slices.ready(reader)
    assert len(done) == 4
    assert reader.holds == 1
    await turn()
    assert len(done) == 5


class Between:
    """What was processed until the event loop did something else, counted anew from each first packet."""

    def __init__(self, done: list[str]) -> None:
        self.counts: list[int] = []
        self._done = done
        self._begun_at: int | None = None

    def __call__(self) -> None:
        if self._begun_at is None:
            self._begun_at = len(self._done)
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        assert self._begun_at is not None
        self.counts.append(len(self._done) - self._begun_at)
        self._begun_at = None


async def test_the_loop_does_other_things_between_two_slices_of_what_was_just_read(slices: Slices) -> None:
    done = list[str]()
    between = Between(done)
    slices.ready(Packets("x", 0, done))  # the beginning of a packet; the next turn is scheduled
    slices.ready(Packets("a", 12, done, between))
    while len(done) < 12:
        await turn()
    await turn()
    assert between.counts == [4, 4, 4]


async def test_the_loop_does_other_things_between_two_slices_of_what_waited(slices: Slices) -> None:
    done = list[str]()
    between = Between(done)
    for name in "bc":
        slices.ready(Packets(name, 4, done))  # the turn has no room left
    slices.ready(Packets("x", 0, done))
    slices.ready(Packets("a", 13, done, between))
    while len(done) < 8 + 13:
        await turn()
    await turn()
    assert max(between.counts) == 4


async def test_all_together_have_a_budget_and_go_round(slices: Slices) -> None:
    done = list[str]()
    busy = [Packets(name, 40, done) for name in "abcd"]
    for connection in busy:
        slices.ready(connection)
    assert done == ["a"] * 4 + ["b"] * 4
    for _ in range(5):
        before = len(done)
        await turn()
        assert len(done) - before <= LIMITS.turn_units
    assert all(done.count(name) >= 8 for name in "abcd"), done


async def test_a_calm_connection_goes_before_those_that_always_have_input(slices: Slices) -> None:
    done = list[str]()
    for name in "abcd":
        slices.ready(Packets(name, 100, done))
    calm = Packets("x", 1, done)
    slices.ready(calm)
    assert "x" not in done  # this turn has no room left
    await turn()
    assert "x" in done[8:16]


async def test_processor_time_ends_a_slice_too(slices: Slices, clock: Clock) -> None:
    done = list[str]()

    def millisecond() -> None:
        clock.now_s += 0.001

    slices.ready(Packets("a", 10, done, millisecond))
    assert len(done) == 2


async def test_costly_packets_take_their_share_whoever_sends_them(slices: Slices, clock: Clock) -> None:
    loop, done = asyncio.get_running_loop(), list[str]()

    def costly() -> None:
        clock.now_s += 0.024  # twice a slice is forgiven: 20 ms of debt, to be rested for twice as long

    begun = loop.time()
    debtors = [Packets(name, 2, done, costly) for name in "ab"]
    for debtor in debtors:
        slices.ready(debtor)
        await turn()
    assert done == ["a", "b"]
    calm = Packets("x", 1, done)
    slices.ready(calm)
    assert done == ["a", "b", "x"]
    while len(done) < 5:
        await asyncio.sleep(0.001)
    assert done == ["a", "b", "x", "a", "b"]
    assert loop.time() - begun >= 0.079  # never earlier: 40 ms for each of the first two


async def test_a_connection_that_has_gone_is_served_no_more(slices: Slices) -> None:
    done = list[str]()
    gone = Packets("a", 100, done)
    slices.ready(gone)
    slices.forget(gone)
    slices.forget(gone)
    await turn()
    await turn()
    assert len(done) == 4
    assert len(slices) == 0
