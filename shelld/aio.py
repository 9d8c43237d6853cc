"""Tasks with a name and an owner: the only module that creates tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from shelld.errors import ShelldError
from shelld.log import Log

_log = Log("shelld.aio")
LINGER_S = 1.0
"""Seconds for a client to receive the last frames of its call before the call ends."""

_T = TypeVar("_T")
_alive: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
    """Start a task that is kept alive until it ends, and whose failure is always reported.

    The caller owns the task: it awaits it, or cancels it with `end`. An exception that no caller awaits is
    logged unless it is a ShelldError.
    """
    task = asyncio.create_task(coroutine, name=name)
    _alive.add(task)
    task.add_done_callback(_settle)
    return task


def _settle(task: asyncio.Task[Any]) -> None:
    _alive.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None and not isinstance(error, ShelldError):
        _log.bug("task failed", error, task=task.get_name())


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` and wait until they have ended; their exceptions are ignored."""
    waiting = [task for task in tasks if not task.done()]
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.gather(*waiting, return_exceptions=True)
