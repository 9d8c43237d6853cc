"""Looks that pages share: one question for all, and no page that waits for a workspace that hangs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from proxy.errors.workspaces import WorkspaceError
from proxy.model import WorkspaceName
from proxy.upstream.client import Links
from proxy.web.portal.looks import Looks
from proxy.workspaces.backend import Backend, WorkspacePhase, WorkspaceRecord

RUNNING = WorkspaceRecord(
    WorkspaceName("alice-1"), "alice", "dev", datetime(2026, 3, 4, tzinfo=UTC), phase=WorkspacePhase.RUNNING
)


class Slow:
    """A backend and a workspace that answer when a test lets them."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def list(self) -> Sequence[WorkspaceRecord]:
        self.asked += 1
        await self.answers.wait()
        return [RUNNING]

    async def locate(self, name: str) -> object:
        return object()

    @asynccontextmanager
    async def use(self, endpoint: object) -> AsyncIterator["Slow"]:
        yield self

    async def status(self) -> Any:
        self.asked += 1
        await self.answers.wait()
        return "fine"


@pytest.fixture
async def slow() -> Slow:
    return Slow()


@asynccontextmanager
async def looks_at(slow: Slow, timeout_s: float = 60) -> AsyncIterator[Looks]:
    looks = Looks(cast(Backend, slow), cast(Links, slow), every_s=3_600, timeout_s=timeout_s)
    try:
        yield looks
    finally:
        await looks.close()


async def test_the_backend_is_asked_once_for_all_pages_until_something_changed(slow: Slow) -> None:
    async with looks_at(slow) as looks:
        pages = [asyncio.ensure_future(looks.records()) for _ in range(5)]
        await asyncio.sleep(0)
        slow.answers.set()
        assert await asyncio.gather(*pages) == [[RUNNING]] * 5
        assert slow.asked == 1
        await looks.records()
        assert slow.asked == 1
        looks.changed()
        await looks.records()
        assert slow.asked == 2


async def test_a_page_that_is_closed_ends_no_look_of_another(slow: Slow) -> None:
    async with looks_at(slow) as looks:
        first, second = (asyncio.ensure_future(looks.records()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        slow.answers.set()
        assert await second == [RUNNING]


async def test_a_backend_that_hangs_is_an_error_in_words(slow: Slow) -> None:
    async with looks_at(slow, timeout_s=0.05) as looks:
        with pytest.raises(WorkspaceError, match="not listed within"):
            await looks.records()


async def test_a_workspace_that_hangs_holds_no_page_up_and_is_read_on(slow: Slow) -> None:
    async with looks_at(slow) as looks:
        assert await looks.status(RUNNING) is None
        slow.answers.set()
        assert await looks.status(RUNNING) == "fine"
        assert slow.asked == 1
