"""One event a start, however many waited for it and however it went."""

import asyncio

import pytest

from proxy.blueprints.schema import Blueprint
from proxy.errors.workspaces import WorkspaceStartFailed
from proxy.events import schema
from proxy.model import Endpoint, Phase, Progress, User, WorkspaceName
from proxy.userstring import parse
from proxy.workspaces.backend import WorkspaceRequest
from proxy.workspaces.start_events import StartAnnouncer

NAME = WorkspaceName("alice-0123456789")
REQUEST = WorkspaceRequest(NAME, User("alice"), Blueprint(name="dev"), parse("alice+dev"))
STARTING = Progress(Phase.STARTING, "starting")


@pytest.fixture
def events() -> list[schema.Event]:
    return []


async def attempt(
    told: StartAnnouncer, gate: asyncio.Event, endpoint: Endpoint | None, *, was_needed: bool = True
) -> None:
    heard: list[Progress] = []
    with told.start(REQUEST, heard.append) as one:
        if was_needed:
            one.report(STARTING)
        await gate.wait()
        if endpoint is None:
            raise WorkspaceStartFailed("no")
        one.endpoint = endpoint
    assert heard == ([STARTING] if was_needed else [])


async def at_once(told: StartAnnouncer, endpoint: Endpoint | None) -> None:
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, gate.set)
    await asyncio.gather(*(attempt(told, gate, endpoint) for _ in range(5)), return_exceptions=True)


async def test_a_start_that_many_waited_for_is_told_once(events: list[schema.Event]) -> None:
    told = StartAnnouncer(events.append)
    await at_once(told, Endpoint(NAME, "unix:///x", "1"))
    await at_once(told, Endpoint(NAME, "unix:///x", "1"))
    (event,) = events
    assert isinstance(event, schema.WorkspaceStarted)
    assert (event.user, event.workspace, event.blueprint) == ("alice", NAME, "dev")
    await at_once(told, Endpoint(NAME, "unix:///x", "2"))
    assert len(events) == 2


async def test_replicas_tell_the_same_start_with_one_id(events: list[schema.Event]) -> None:
    for generation in ("1", "1", "2"):
        await at_once(StartAnnouncer(events.append), Endpoint(NAME, "unix:///x", generation))
    first, second, other = (event.id for event in events)
    assert first == second != other


async def test_a_failure_is_told_once_and_the_next_one_again(events: list[schema.Event]) -> None:
    told = StartAnnouncer(events.append)
    await at_once(told, None)
    (event,) = events
    assert isinstance(event, schema.WorkspaceFailed)
    assert event.reasons == ("workspace.start_failed",)
    await at_once(told, None)
    assert len(events) == 2


async def test_one_that_runs_already_is_no_event(events: list[schema.Event]) -> None:
    gate = asyncio.Event()
    gate.set()
    await attempt(StartAnnouncer(events.append), gate, Endpoint(NAME, "unix:///x", "1"), was_needed=False)
    assert events == []


async def test_who_gives_up_leaves_the_telling_to_the_others(events: list[schema.Event]) -> None:
    told, gate = StartAnnouncer(events.append), asyncio.Event()
    callers = [asyncio.ensure_future(attempt(told, gate, Endpoint(NAME, "unix:///x", "1"))) for _ in range(2)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.wait([callers[0]])
    gate.set()
    await callers[1]
    assert len(events) == 1
