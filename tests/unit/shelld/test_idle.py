"""The warning before the stop of an idle workspace, with a clock of the test."""

import asyncio
import os

import pytest

from shelld import activity, idle
from shelld.activity import Activity
from shelld.idle import until_idle
from shelld.programs import registry
from shelld.programs.registry import Registry
from shelld.settings import Limits


class Time:
    """A clock that runs while a task sleeps; stands in for the modules `time` and `asyncio`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.acts: list[float] = []
        """Moments at which a user does something."""
        self.registry = Registry(Limits())

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        if self.acts and self.acts[0] <= self.now:
            del self.acts[0]
            self.registry.touch("a key")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(registry, "time", made)
    monkeypatch.setattr(activity, "time", made)
    monkeypatch.setattr(idle, "asyncio", made)
    # The time of children that tests before this one have reaped in this process is no activity.
    monkeypatch.setattr(activity.os, "times", lambda: os.times_result((0.0, 0.0, 0.0, 0.0, 0.0)))
    made.registry = Registry(Limits())
    return made


async def warned(clock: Time, monkeypatch: pytest.MonkeyPatch, warn_s: float) -> list[tuple[float, str]]:
    """Return when and of what users are warned, until the workspace stops."""
    said: list[tuple[float, str]] = []
    known: set[str] = set()

    def announce(text: str, once: str = "") -> int:
        if once not in known:
            said.append((clock.now - 1000, text))
        known.add(once)
        return 1

    monkeypatch.setattr(clock.registry, "announce", announce)
    looking = Activity(clock.registry, "/", tuple)
    await asyncio.wait_for(until_idle(clock.registry, looking, 600, warn_s), 30)
    return said


async def test_users_are_warned_once_before_the_stop(clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "this workspace did nothing for 5 minutes and stops in 5 minutes unless it is used"
    assert await warned(clock, monkeypatch, 300) == [(300, text)]
    assert clock.now == 1600


async def test_activity_after_the_warning_ends_it_and_the_next_is_warned_of_anew(
    clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.acts = [1550]
    moments = [at for at, _ in await warned(clock, monkeypatch, 100)]
    assert len(moments) == 2
    assert moments[0] == 500
    assert clock.now - 1000 == moments[1] + 100


async def test_without_a_time_nothing_is_said(clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await warned(clock, monkeypatch, 0) == []
