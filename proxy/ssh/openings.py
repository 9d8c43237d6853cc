"""Rates and limits for the programs, forwards and listeners that one client opens in its workspace.

Each opening costs a stream to the workspace, a task and a record, even if nothing answers at its target.
A client may ask for as many as it may have channels. Openings that come faster than the rate wait here in
order, at no cost but their place in the queue.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.errors.programs import OpenFailed, OpenFailedKind
from proxy.settings.connection import ConnectionSettings


class LeakyBucket:
    """An average rate with bursts after pauses. Pure.

    Source: the virtual scheduling form of the leaky bucket, ITU-T I.371 annex A.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._interval_s = 1 / per_s
        self._slack_s = (burst - 1) / per_s
        self._due_at = 0.0

    def wait_s(self, now: float) -> float:
        """Return the seconds that the next one has to wait."""
        return max(0.0, self._due_at - self._slack_s - now)

    def take(self, now: float) -> None:
        """Count one that begins at `now`."""
        self._due_at = max(self._due_at, now) + self._interval_s


class Openings:
    """The rate and the limit of one connection."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._pace = LeakyBucket(settings.opens_per_s, settings.max_channels)
        self._next = asyncio.Lock()
        self._free = asyncio.Semaphore(settings.max_dials)
        self._max_dials = settings.max_dials
        self._wait_s = settings.open_wait_s

    async def begin(self) -> None:
        """Wait until one more program, forward or listener may begin.

        The wait is bounded by the rate and the openings before this one. A cancelled wait uses nothing up.
        """
        now = asyncio.get_running_loop().time
        async with self._next:
            if (wait_s := self._pace.wait_s(now())) > 0:
                await asyncio.sleep(wait_s)
            self._pace.take(now())

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[None]:
        """Hold one of the places for simultaneous dials.

        Raises: OpenFailed RESOURCES when none is free in time.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self.begin()
                await self._free.acquire()
        except TimeoutError:
            raise OpenFailed(
                OpenFailedKind.RESOURCES,
                f"{self._max_dials} other connections of this client are still being opened",
            ) from None
        try:
            yield
        finally:
            self._free.release()
