"""Tasks with a name, an owner and an end. The only module that creates tasks."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from proxy.errors import FairleadError

_log = structlog.get_logger("aio")
_T = TypeVar("_T")


class TaskOwner:
    """An owner of tasks: keeps each alive until it ends, logs exceptions, cancels the rest at the end.

    A task that fails does not affect the others. Its exception goes to the task that awaits it. A bug, which
    is any exception but a FairleadError, is also logged with its traceback.
    """

    __slots__ = ("_name", "_tasks")

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coro: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
        """Run `coro` until it ends or the owner is closed."""
        task = asyncio.create_task(coro, name=f"{self._name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    def _reap(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (exc := task.exception()) is None:
            return
        if not isinstance(exc, FairleadError):  # a FairleadError is reported by the task that awaits this one
            _log.error("task failed", task=task.get_name(), exc_info=exc)

    def cancel(self) -> None:
        """Ask every task to end, without waiting."""
        for task in tuple(self._tasks):
            task.cancel()

    async def wait(self, timeout_s: float) -> None:
        """Return when every task has ended, or after `timeout_s` seconds."""
        if self._tasks and timeout_s > 0:
            await asyncio.wait(tuple(self._tasks), timeout=timeout_s)

    async def close(self, *, grace_s: float = 0.0) -> None:
        """Let tasks end by themselves for `grace_s` seconds, then cancel and await the rest."""
        me = asyncio.current_task()
        if waiting := [task for task in self._tasks if task is not me]:
            if grace_s > 0:
                await asyncio.wait(waiting, timeout=grace_s)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)


async def settle(task: asyncio.Task[Any]) -> None:
    """Cancel `task` and wait until it has ended; its owner handles its exception."""
    task.cancel()
    await asyncio.wait([task])
