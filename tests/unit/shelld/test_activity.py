"""What counts as doing something: processor time, and bytes that are no heartbeat."""

import asyncio
import os

import pytest

from shelld import activity
from shelld.activity import Activity
from shelld.launch.proc import Process
from shelld.programs import registry
from shelld.programs.registry import KEEPALIVE_BYTES, KEEPALIVE_WINDOW_S, KeepaliveFilter, Registry
from shelld.settings import Limits


class Time:
    """A clock that a test turns; stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(registry, "time", made)
    monkeypatch.setattr(activity, "time", made)
    return made


class Machine:
    """Processes that use as much as a test says."""

    def __init__(self) -> None:
        self.me = os.getpid()
        self.cpu_s: dict[int, float] = {}
        self.parents: dict[int, int] = {}

    def add(self, pid: int, parent: int) -> None:
        self.parents[pid], self.cpu_s[pid] = parent, 0.0

    def __call__(self) -> list[Process]:
        own = Process(self.me, 0, self.me, "S", 0.0, 0)
        return [own, *(Process(p, q, p, "S", self.cpu_s[p], 0) for p, q in self.parents.items())]


def begun(counted: Registry, machine: Machine, clock: Time) -> Activity:
    """Look once: what this process buried before is nobody's activity."""
    made = Activity(counted, "/", machine)
    clock.now += 10
    made.look()
    counted.touch("a test")
    return made


def test_a_process_below_that_works_is_activity(clock: Time) -> None:
    machine = Machine()
    machine.add(50, machine.me)
    counted = Registry(Limits())
    looking = begun(counted, machine, clock)
    clock.now += 100
    looking.look()
    assert counted.idle_s == 100
    clock.now += 10
    machine.cpu_s[50] += 0.15  # a prompt, a multiplexer's clock
    looking.look()
    assert counted.idle_s == 110
    clock.now += 10
    machine.cpu_s[50] += 5
    looking.look()
    assert counted.idle_s == 0


@pytest.mark.parametrize(("first", "counts"), [(True, True), (False, False)])
def test_where_shelld_is_the_first_process_whatever_can_be_seen_counts(
    clock: Time, monkeypatch: pytest.MonkeyPatch, first: bool, counts: bool
) -> None:
    """`kubectl exec` brings processes in whose parent cannot be seen."""
    machine = Machine()
    if first:
        monkeypatch.setattr(activity.os, "getpid", lambda: 1)
        machine.me = 1
    machine.add(70, 0)
    counted = Registry(Limits())
    looking = begun(counted, machine, clock)
    clock.now += 10
    machine.cpu_s[70] += 5
    looking.look()
    assert (counted.idle_s == 0) is counts


async def test_nobody_needs_to_ask(clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute of work in an hour is less than the share that counts, when it is averaged."""
    monkeypatch.setattr(activity, "LOOK_EVERY_S", 0.001)
    machine = Machine()
    machine.add(50, machine.me)
    counted = Registry(Limits())
    looking = asyncio.create_task(begun(counted, machine, clock).keep_looking())
    for worked in (0.0, 15.0, 15.0, 0.0, 0.0):
        machine.cpu_s[50] += worked
        clock.now += 15
        await asyncio.sleep(0.05)
    assert counted.idle_s == 30
    looking.cancel()


def test_heartbeats_are_told_from_work(clock: Time) -> None:
    counted = Registry(Limits())
    trickle = KeepaliveFilter(lambda: counted.touch("a test"))
    for _ in range(1000):
        clock.now += 5
        trickle.carried(13)
    assert counted.idle_s == 5000
    trickle.carried(KEEPALIVE_BYTES)
    assert counted.idle_s == 0


def test_every_window_begins_anew(clock: Time) -> None:
    counted = Registry(Limits())
    trickle = KeepaliveFilter(lambda: counted.touch("a test"))
    trickle.carried(KEEPALIVE_BYTES)
    clock.now += KEEPALIVE_WINDOW_S
    trickle.carried(KEEPALIVE_BYTES)
    assert counted.idle_s == KEEPALIVE_WINDOW_S
    trickle.carried(1)
    assert counted.idle_s == 0
