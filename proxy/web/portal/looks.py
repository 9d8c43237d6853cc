"""The observation of workspaces that open pages share: the list of the backend, and each state.

However many pages are open, the backend is asked once every `look_s` seconds, and each workspace as often.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.workspaces import WorkspaceError
from proxy.upstream.client import Links
from proxy.upstream.frames import Status
from proxy.workspaces.backend import Backend, WorkspacePhase, WorkspaceRecord

_T = TypeVar("_T")

_AT_ONCE = 16
"""Workspaces that are asked at the same time."""
_MOST_REMEMBERED = 2_000
_PATIENCE_S = 1.5
"""How long a page waits for the state of a workspace; the next look of the page has a later answer."""


class _Look(Generic[_T]):
    """One value that is read anew when it is older than `every_s`, by one task for all who ask."""

    def __init__(self, read: Callable[[], Awaitable[_T]], every_s: float) -> None:
        self._read = read
        self._every_s = every_s
        self._task: asyncio.Task[_T] | None = None
        self._due_at = float("-inf")

    async def value(self, tasks: TaskOwner, name: str) -> _T:
        """Return the value, at most `every_s` old. Raises: the error of reading it."""
        return await asyncio.shield(self._current(tasks, name))

    async def within(self, tasks: TaskOwner, name: str, patience_s: float) -> _T | None:
        """Return the value when it is there within `patience_s` seconds; None: it is read on."""
        task = self._current(tasks, name)
        done, _ = await asyncio.wait({task}, timeout=patience_s)
        return task.result() if done else None

    def _current(self, tasks: TaskOwner, name: str) -> asyncio.Task[_T]:
        now = asyncio.get_running_loop().time()
        if self._task is None or (self._task.done() and now >= self._due_at):
            self._due_at = now + self._every_s
            self._task = tasks.spawn(self._carry(), name=name)
        return self._task

    async def _carry(self) -> _T:
        return await self._read()

    def forget(self) -> None:
        """Read anew the next time."""
        self._due_at = float("-inf")


class Looks:
    """The looks of one process."""

    def __init__(self, backend: Backend, links: Links, *, every_s: float, timeout_s: float) -> None:
        """`timeout_s` is the longest wait for the backend or for one workspace."""
        self._backend = backend
        self._links = links
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._records = _Look(self._list, every_s)
        self._statuses: dict[tuple[str, object], _Look[Status | None]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._tasks = TaskOwner("portal-looks")

    async def close(self) -> None:
        """Ask no more."""
        await self._tasks.close()

    async def records(self) -> Sequence[WorkspaceRecord]:
        """Return every workspace. Raises: WorkspaceError when the backend does not answer in time."""
        return await self._records.value(self._tasks, "list")

    def changed(self) -> None:
        """Look anew the next time: something was started or stopped here."""
        self._records.forget()

    async def status(self, record: WorkspaceRecord) -> Status | None:
        """Return the state that a workspace reports; None when it does not run or does not answer."""
        if record.phase is not WorkspacePhase.RUNNING:
            return None
        key = (record.name, record.started_at)
        if (look := self._statuses.get(key)) is None:
            if len(self._statuses) >= _MOST_REMEMBERED:
                self._statuses.clear()
            look = self._statuses[key] = _Look(lambda: self._ask(record), self._every_s)
        return await look.within(self._tasks, record.name, _PATIENCE_S)

    async def _list(self) -> Sequence[WorkspaceRecord]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._backend.list()
        except TimeoutError:
            raise WorkspaceError(f"workspaces are not listed within {self._timeout_s:g} s") from None

    async def _ask(self, record: WorkspaceRecord) -> Status | None:
        try:
            async with self._gate, asyncio.timeout(self._timeout_s):
                if (endpoint := await self._backend.locate(record.name)) is None:
                    return None
                async with self._links.use(endpoint) as link:
                    return await link.status()
        except (FairleadError, TimeoutError):
            return None
