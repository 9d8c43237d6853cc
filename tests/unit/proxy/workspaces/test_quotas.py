"""Ceilings are checked before anything is made, and count what was admitted a moment ago."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from proxy.blueprints.schema import Blueprint, Quota
from proxy.errors import EXIT_REFUSED
from proxy.errors.programs import Refused
from proxy.model import User, WorkspaceName
from proxy.settings.blueprints import PersonRule
from proxy.userstring import UserString
from proxy.workspaces.backend import Backend, WorkspacePhase, WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.quotas import Quotas


class Shelf:
    """The part of a backend that quotas look at."""

    def __init__(self, *records: WorkspaceRecord) -> None:
        self.records = {str(record.name): record for record in records}
        self.asked = 0

    async def find(self, name: str) -> WorkspaceRecord | None:
        self.asked += 1
        return self.records.get(name)

    async def list(self) -> Sequence[WorkspaceRecord]:
        return tuple(self.records.values())


def record(name: str, phase: WorkspacePhase, user: str = "alice", blueprint: str = "dev") -> WorkspaceRecord:
    made_at, owner = datetime.now(UTC), f"id-of-{user}"
    return WorkspaceRecord(WorkspaceName(name), user, blueprint, made_at, phase=phase, owner=owner)


def request(name: str, user: str = "alice", **fields: Any) -> WorkspaceRequest:
    blueprint = Blueprint(name="dev", **fields)
    return WorkspaceRequest(WorkspaceName(name), User(user, id=f"id-of-{user}"), blueprint, UserString(user))


def quotas(shelf: Shelf, **ceilings: int) -> Quotas:
    return Quotas(cast(Backend, shelf), [PersonRule(**ceilings)])


async def admit(these: Quotas, asked: WorkspaceRequest) -> None:
    async with these.admitted(asked):
        pass


RUNNING, STOPPED = WorkspacePhase.RUNNING, WorkspacePhase.STOPPED


async def test_without_ceilings_the_backend_is_not_asked() -> None:
    shelf = Shelf()
    await admit(quotas(shelf), request("a"))
    assert shelf.asked == 0


@pytest.mark.parametrize(
    ("ceilings", "name", "phases", "allowed"),
    [
        ({"max_workspaces": 1}, "new", [STOPPED], False),
        ({"max_workspaces": 2}, "new", [STOPPED], True),
        ({"max_workspaces": 1}, "w0", [STOPPED], True),
        ({"max_running": 1}, "new", [STOPPED], True),
        ({"max_running": 1}, "new", [RUNNING], False),
        ({"max_running": 1}, "w0", [RUNNING], True),
        ({"max_running": 1}, "w0", [RUNNING, RUNNING], True),
        ({"max_running": 1}, "w0", [STOPPED, RUNNING], False),
        ({"max_running": 1}, "new", [WorkspacePhase.STOPPING], True),
        ({"max_running": 1}, "new", [WorkspacePhase.FAILED], False),
        ({"max_running": 0}, "new", [], False),
    ],
)
async def test_ceilings_of_a_person(
    ceilings: dict[str, int], name: str, phases: list[WorkspacePhase], allowed: bool
) -> None:
    shelf = Shelf(
        record("hers", RUNNING, user="bob"), *(record(f"w{at}", phase) for at, phase in enumerate(phases))
    )
    these = quotas(shelf, **ceilings)
    if allowed:
        await admit(these, request(name))
        return
    with pytest.raises(Refused) as caught:
        await admit(these, request(name))
    assert caught.value.exit_status == EXIT_REFUSED


async def test_ceilings_of_a_blueprint_count_everybody_s() -> None:
    shelf = Shelf(record("hers", RUNNING, user="bob"), record("other", RUNNING, blueprint="data"))
    await admit(quotas(shelf), request("a", quota=Quota(total=2, running=2)))
    with pytest.raises(Refused, match="blueprint dev has room for 1 workspace running"):
        await admit(quotas(shelf), request("a", quota=Quota(running=1)))


async def test_what_was_admitted_counts_until_it_is_there_or_has_failed() -> None:
    these = quotas(Shelf(), max_workspaces=1)
    async with these.admitted(request("a")):
        async with these.admitted(request("a")):  # another channel joins the start
            pass
        with pytest.raises(Refused, match=r"you may have 1 workspace and have a \(dev\)"):
            await admit(these, request("b"))
        await admit(these, request("c", user="bob"))
    await admit(these, request("b"))
