"""When a workspace is ended, and above all when it is not."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from proxy.errors.stores import UserNotFound
from proxy.errors.upstream import Unreachable
from proxy.errors.workspaces import ClusterUnavailable
from proxy.model import Endpoint, WorkspaceName
from proxy.settings.workspace import WorkspaceSettings
from proxy.upstream.frames import Status
from proxy.workspaces.backend import Features, Stop, WorkspacePhase, WorkspaceRecord
from proxy.workspaces.idle_reaper import IdleReaper
from proxy.workspaces.lifetimes import Bounds, Due
from proxy.workspaces.start_events import StopWarning

HOUR = 3600.0
NAME = WorkspaceName("alice-0123456789")
RECORD = WorkspaceRecord(
    NAME, "alice", "dev", datetime(2027, 1, 1, tzinfo=UTC), "alice+dev", phase=WorkspacePhase.RUNNING
)
ENDPOINT = Endpoint(NAME, "unix:///s", "g1")
PLAIN = Features()
BOUNDS = Bounds(HOUR, 10 * HOUR, HOUR / 4)


# ------------------------------------------------------------------------------------ what is due


@pytest.mark.parametrize(
    ("idle_s", "age_s", "due"),
    [
        (0, 0, Due.NOTHING),
        (HOUR - 1, HOUR, Due.NOTHING),
        (HOUR, HOUR, Due.STOP_IDLE),
        (0, 9 * HOUR, Due.NOTHING),
        (0, 9.75 * HOUR, Due.WARN),
        (HOUR, 9.75 * HOUR, Due.STOP_IDLE),
        (0, 10 * HOUR, Due.STOP_OLD),
        (HOUR, 10 * HOUR, Due.STOP_OLD),
    ],
)
def test_bounds(idle_s: float, age_s: float, due: Due) -> None:
    assert Bounds(HOUR, 10 * HOUR, HOUR / 4).due(idle_s, age_s) is due


WARNING = Bounds(HOUR, idle_warn_s=300)


@pytest.mark.parametrize(
    ("idle_s", "due"),
    [(0, Due.NOTHING), (HOUR - 301, Due.NOTHING), (HOUR - 300, Due.WARN_IDLE), (HOUR, Due.STOP_IDLE)],
)
def test_users_are_warned_before_an_idle_stop(idle_s: float, due: Due) -> None:
    assert WARNING.due(idle_s, HOUR) is due


@pytest.mark.parametrize(("idle_s", "next_s"), [(0, HOUR - 300), (HOUR - 300, 300), (HOUR - 10, 10)])
def test_the_warning_and_the_stop_are_looked_for_when_they_are_due(idle_s: float, next_s: float) -> None:
    assert WARNING.next_due_s(idle_s, HOUR) == next_s


def test_a_workspace_that_stops_by_itself_is_not_stopped_for_idleness() -> None:
    assert Bounds(HOUR, stops_itself=True).due(2 * HOUR, 3 * HOUR) is Due.NOTHING


def test_no_bounds_are_for_ever() -> None:
    assert Bounds().due(1e9, 1e9) is Due.NOTHING
    assert Bounds().next_due_s(0, 0) is None


@pytest.mark.parametrize(("idle_s", "age_s"), [(0, 0), (HOUR / 2, HOUR), (0, 9.5 * HOUR), (0, 9.8 * HOUR)])
def test_nothing_is_due_before_it_is_said_to_be(idle_s: float, age_s: float) -> None:
    bounds = Bounds(HOUR, 10 * HOUR, HOUR / 4)
    now, next_s = bounds.due(idle_s, age_s), bounds.next_due_s(idle_s, age_s)
    assert next_s is not None
    assert bounds.due(idle_s + next_s - 1, age_s + next_s - 1) is now
    assert bounds.due(idle_s + next_s, age_s + next_s) is not now


# --------------------------------------------------------------------------------------- the rounds


@dataclass
class FakeLink:
    """A workspace that says what a test wants."""

    status_: Status
    drains: bool = True
    log: list[tuple[object, ...]] = field(default_factory=list)
    endpoint: Endpoint = ENDPOINT

    async def status(self) -> Status:
        self.log.append(("status",))
        return self.status_

    async def drain(self, *, if_idle_s: float, reason: str, for_s: float) -> bool:
        self.log.append(("drain", if_idle_s, reason))
        return self.drains

    async def announce(self, text: str, once: str = "") -> None:
        self.log.append(("announce", text, once))


@dataclass
class World:
    """A backend and its links."""

    link: FakeLink
    features: Features = PLAIN
    record: WorkspaceRecord = RECORD
    broken: Exception | None = None
    kept_up: int = 0

    async def upkeep(self) -> None:
        self.kept_up += 1

    async def list(self) -> Sequence[WorkspaceRecord]:
        return [self.record]

    async def locate(self, name: WorkspaceName) -> Endpoint | None:
        return self.link.endpoint

    async def stop(self, name: WorkspaceName, stop: Stop) -> None:
        self.link.log.append(("stop", stop.by))

    @asynccontextmanager
    async def use(self, endpoint: Endpoint) -> AsyncIterator[FakeLink]:
        if self.broken:
            raise self.broken
        yield self.link

    @property
    def did(self) -> Sequence[object]:
        return [entry[0] for entry in self.link.log]


def world(idle_s: float, age_s: float = HOUR, *, draining: bool = False, **fields: object) -> World:
    return World(FakeLink(Status(0, 0, idle_s, age_s, draining)), **fields)  # type: ignore[arg-type]


def reaper(of: World, bounds: Bounds | Exception = BOUNDS) -> IdleReaper:
    async def bounds_of(record: WorkspaceRecord) -> Bounds:
        if isinstance(bounds, Exception):
            raise bounds
        return bounds

    return IdleReaper(
        of,  # type: ignore[arg-type]
        of,  # type: ignore[arg-type]
        bounds_of,
        WorkspaceSettings(),
        lambda record, stop: of.link.log.append(("told", stop.by)),
    )


async def test_an_idle_workspace_is_drained_then_stopped() -> None:
    found = world(HOUR)
    await reaper(found).round()
    assert found.did == ["status", "drain", "stop", "told"]
    assert found.link.log[1][1] == HOUR, "looked at again in the moment of stopping"
    assert "1 hour" in str(found.link.log[1][2]) or "60 minutes" in str(found.link.log[1][2])
    assert found.link.log[2] == ("stop", "idle")


async def test_somebody_who_came_in_between_keeps_it_alive() -> None:
    found = world(HOUR)
    found.link.drains = False
    await reaper(found).round()
    assert found.did == ["status", "drain"]


async def test_an_old_workspace_is_stopped_whatever_it_does() -> None:
    found = world(0, 10 * HOUR)
    await reaper(found).round()
    assert found.did == ["status", "drain", "stop", "told"]
    assert found.link.log[1][1] == 0
    assert found.link.log[2] == ("stop", "lifetime")


async def test_people_are_warned_once_by_however_many_proxies() -> None:
    found = world(0, 9.9 * HOUR)
    await asyncio.gather(*(reaper(found).round() for _ in range(3)))
    told = {entry for entry in found.link.log if entry[0] == "announce"}
    assert len(told) == 1, "one text, and one id by which shelld knows it again"


@pytest.mark.parametrize(
    "case",
    [
        {"broken": Unreachable("silent")},
        {"draining": True},
        {"record": WorkspaceRecord(NAME, "alice", "dev", datetime(2027, 1, 1, tzinfo=UTC))},
        {"features": Features(stops_idle=True)},
    ],
    ids=["silent", "drained by another", "stopped", "stops by itself"],
)
async def test_what_is_left_alone(case: dict[str, object]) -> None:
    found = world(100 * HOUR, **case)  # type: ignore[arg-type]
    await reaper(found).round()
    assert "stop" not in found.did
    assert "drain" not in found.did


async def test_a_workspace_whose_bounds_nobody_knows_is_left_alone() -> None:
    found = world(100 * HOUR)
    await reaper(found, UserNotFound("gone")).round()
    assert found.did == []


async def test_nobody_is_asked_before_anything_can_be_due() -> None:
    found = world(HOUR / 2)
    kept = reaper(found)
    for _ in range(5):
        await kept.round()
    assert found.did == ["status"]
    assert found.kept_up == 5


async def test_one_failure_does_not_end_the_rounds() -> None:
    class Down(World):
        async def upkeep(self) -> None:
            raise ClusterUnavailable("down")

    found = Down(world(HOUR).link)
    await reaper(found).round()
    assert found.did == ["status", "drain", "stop", "told"]


# ------------------------------------------------------------------------------------- the warning


def warning_reaper(of: World, said: list[StopWarning]) -> IdleReaper:
    async def bounds_of(record: WorkspaceRecord) -> Bounds:
        return WARNING

    parts = (of, of, bounds_of, WorkspaceSettings(), lambda *_: None, lambda _, warning: said.append(warning))
    return IdleReaper(*parts)  # type: ignore[arg-type]


async def test_users_of_an_idle_workspace_are_warned_on_terminals_and_by_one_event() -> None:
    found, said = world(HOUR - 100, 2 * HOUR), []
    found.link.status_ = replace(found.link.status_, why="POST /x by alice through lab")
    for one in (warning_reaper(found, said), warning_reaper(found, said)):
        await one.round()
        one._next_check.clear()
        await one.round()
    told = {entry for entry in found.link.log if entry[0] == "announce"}
    assert len(told) == 1
    assert "stops in 2 minutes unless it is used" in str(told.pop()[1])
    assert len(said) == 2, "one of each proxy"
    assert len({warning.id for warning in said}) == 1, "which consumers know again by its id"
    assert (said[0].reason, said[0].left_s, said[0].why) == ("idle", 100, "POST /x by alice through lab")


async def test_a_workspace_that_stops_by_itself_warns_by_itself_and_the_event_comes_too() -> None:
    found, said = world(HOUR - 100, 2 * HOUR, features=Features(stops_idle=True)), []
    await warning_reaper(found, said).round()
    assert "announce" not in found.did
    assert [warning.reason for warning in said] == ["idle"]


async def test_the_next_idle_time_is_warned_of_anew() -> None:
    found, said = world(HOUR - 100, 2 * HOUR), []
    kept = warning_reaper(found, said)
    await kept.round()
    found.link.status_ = replace(found.link.status_, uptime_s=4 * HOUR)
    kept._next_check.clear()
    await kept.round()
    assert len({warning.id for warning in said}) == 2
