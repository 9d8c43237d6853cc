"""Connecting to a workspace that has gone, or that answers late, with a real shelld."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from proxy.blueprints.schema import Blueprint
from proxy.errors.upstream import Unreachable
from proxy.errors.workspaces import WorkspaceStartFailed
from proxy.model import Endpoint, Phase, Progress, User, WorkspaceName
from proxy.settings.upstream import UpstreamSettings
from proxy.upstream.client import Links
from proxy.userstring import UserString
from proxy.workspaces.backend import Report, WorkspaceRequest
from proxy.workspaces.reaching import reach
from tests.contract.shelldproc import Shelld, shelld

NAME = WorkspaceName("ws1")
REQUEST = WorkspaceRequest(NAME, User("alice", id="1"), Blueprint(name="dev"), UserString("alice", "dev"))
FOR_EVER_S = 600.0
"""Longer than any test: whoever waits for the connection alone fails."""


class Found:
    """Workspaces that are found at one address after the other, the last one for good."""

    def __init__(self, *found: Endpoint | Exception) -> None:
        self._found = list(found)
        self.asked = 0

    async def ensure(self, _: WorkspaceRequest, report: Report) -> Endpoint:
        self.asked += 1
        report(Progress(Phase.PREPARING, "its pod was evicted"))
        found = self._found.pop(0) if len(self._found) > 1 else self._found[0]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
async def served() -> AsyncIterator[Shelld]:
    async with shelld() as one:
        yield one


@pytest.fixture
def silence(short_dir: Path) -> Iterator[Endpoint]:
    """An address where a connection is taken and nothing is said."""

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(short_dir / "silent"))
        listening.listen()
        yield Endpoint(NAME, f"unix://{short_dir / 'silent'}", generation="evicted")


def endpoint(served: Shelld) -> Endpoint:
    return Endpoint(NAME, f"unix://{served.directory / 's'}", generation="new")


@asynccontextmanager
async def links(connect_timeout_s: float = FOR_EVER_S) -> AsyncIterator[Links]:
    made = Links(UpstreamSettings(connect_timeout_s=connect_timeout_s, look_again_s=0.1), "p1")
    try:
        yield made
    finally:
        await made.close()


def texts(told: Sequence[Progress]) -> list[str]:
    return [one.text for one in told]


async def test_a_workspace_that_went_is_looked_for_again_while_connecting(
    served: Shelld, silence: Endpoint
) -> None:
    told: list[Progress] = []
    workspaces = Found(silence, silence, endpoint(served))
    async with links() as made, asyncio.timeout(60):
        link = await reach(workspaces, made, REQUEST, told.append)  # type: ignore[arg-type]
        assert link.endpoint == endpoint(served)
    assert workspaces.asked == 3
    assert "workspace ws1 does not answer yet; looking for it again" in texts(told)
    assert all(one != other for one, other in pairwise(told)), "nothing is told twice"


async def test_one_that_answers_late_is_not_given_up(short_dir: Path, served: Shelld) -> None:
    late = Endpoint(NAME, f"unix://{short_dir / 'late'}", generation="same")
    workspaces = Found(late)
    async with links() as made, asyncio.timeout(60):
        reaching = asyncio.ensure_future(reach(workspaces, made, REQUEST, lambda _: None))  # type: ignore[arg-type]
        while workspaces.asked < 3:
            await asyncio.sleep(0.01)
        (short_dir / "late").symlink_to(served.directory / "s")
        assert (await reaching).endpoint == late


async def test_what_became_of_it_is_told_when_it_does_not_come_back(silence: Endpoint) -> None:
    gone = WorkspaceStartFailed("no", user_message="its pod was evicted")
    async with links() as made, asyncio.timeout(60):
        with pytest.raises(WorkspaceStartFailed, match="no"):
            await reach(Found(silence, gone), made, REQUEST, lambda _: None)  # type: ignore[arg-type]


async def test_one_that_never_answers_is_given_up_at_the_deadline(silence: Endpoint) -> None:
    async with links(connect_timeout_s=1) as made, asyncio.timeout(60):
        with pytest.raises(Unreachable):
            await reach(Found(silence), made, REQUEST, lambda _: None)  # type: ignore[arg-type]
