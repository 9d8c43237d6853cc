"""Bounded threads for calls that may hang for ever; the process can end without them.

The loop's own executor would be filled by a disk that hangs, and would delay the end of the process.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from proxy.recording.store import StorageError

_T = TypeVar("_T")
_Job = tuple["Future[Any]", Callable[[], Any]]


class Threads:
    """A few daemon threads that share one bounded queue; started by the first call."""

    def __init__(self, name: str, *, count: int, queue_size: int) -> None:
        self._name = name
        self._count = count
        self._jobs: queue.Queue[_Job | None] = queue.Queue(queue_size)
        self._started = 0

    async def run(self, call: Callable[[], _T]) -> _T:
        """Run `call` in a thread.

        If cancelled before it begins, it never runs; afterwards its result is dropped.

        Raises: StorageError when too many calls wait; all errors of `call`.
        """
        if self._started < self._count:
            self._started += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        future: Future[_T] = Future()
        try:
            self._jobs.put_nowait((future, call))
        except queue.Full:
            raise StorageError(f"{self._jobs.maxsize} operations wait already") from None
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let idle threads end."""
        for _ in range(self._started):
            try:
                self._jobs.put_nowait(None)
            except queue.Full:
                return

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as exc:  # noqa: BLE001 (raised in the waiting task)
                future.set_exception(exc)
            del job, future, call  # keep nothing of a recording while waiting for the next call
