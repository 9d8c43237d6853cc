"""The task that stops idle and old workspaces and maintains the others; one for each proxy.

Several proxies do the same at the same time without harm: shelld lets the first one drain it, a stopped
workspace is not changed, and a warning is shown once. A workspace that cannot be asked is not touched, since
it may be busy.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.model import WorkspaceName
from proxy.settings.workspace import WorkspaceSettings
from proxy.upstream.client import Link, Links
from proxy.upstream.frames import Status
from proxy.workspaces.backend import Backend, Stop, WorkspacePhase, WorkspaceRecord
from proxy.workspaces.lifetimes import Bounds, Due
from proxy.workspaces.start_events import StopWarning, warn_no_consumer
from proxy.workspaces.stop_holds import duration
from proxy.workspaces.unstarted import Unstarted

_log = structlog.get_logger("workspaces")

_LONGEST_S = 900.0
"""Longest time until the change of a blueprint is noticed."""

BoundsOf = Callable[[WorkspaceRecord], Awaitable[Bounds]]
"""Returns the limits that its blueprint gives a workspace. Raises: FairleadError when they are unknown."""

Stopped = Callable[[WorkspaceRecord, Stop], None]
"""A callback for every workspace that was stopped here."""

Warned = Callable[[WorkspaceRecord, StopWarning], None]
"""A callback for every warning of a stop."""


class IdleReaper:
    """The reaper of one backend's workspaces, unless the backend stops idle ones itself."""

    def __init__(
        self,
        backend: Backend,
        links: Links,
        bounds_of: BoundsOf,
        settings: WorkspaceSettings,
        stopped: Stopped,
        warned: Warned = warn_no_consumer,
    ) -> None:
        self._backend = backend
        self._links = links
        self._bounds_of = bounds_of
        self._settings = settings
        self._stopped = stopped
        self._warned = warned
        self._tasks = TaskOwner("keeper")
        self._next_check: dict[WorkspaceName, float] = {}
        """Time of the next check by the loop's clock; workspaces are not asked before it."""
        self._warnings: dict[WorkspaceName, str] = {}
        """Ids of the last warnings."""
        self._unstarted = Unstarted(settings)

    def start(self) -> None:
        """Start checking, until `close`."""
        self._tasks.spawn(self._keep(), name="rounds")

    async def close(self) -> None:
        """Stop checking; a workspace that is being drained is stopped by another proxy, or goes on."""
        await self._tasks.close()

    async def _keep(self) -> None:
        while True:
            # Proxies that were started together should not ask together.
            await asyncio.sleep(self._settings.keeper_interval_s * random.uniform(0.8, 1.2))  # noqa: S311
            await self.round()

    async def round(self) -> None:
        """Check every workspace that may be due; failures are logged and repeated later."""
        try:
            await self._backend.upkeep()
        except FairleadError as exc:
            _log.warning("upkeep failed", why=str(exc))
        try:
            records = await self._backend.list()
        except FairleadError as exc:
            _log.warning("workspaces not listed", why=str(exc))
            return
        if not self._backend.features.stops_idle:  # there, what failed to start has ended by itself
            await self._give_up(records)
        running = {one.name: one for one in records if one.phase is WorkspacePhase.RUNNING}
        self._next_check = {name: at for name, at in self._next_check.items() if name in running}
        self._warnings = {name: last for name, last in self._warnings.items() if name in running}
        gate = asyncio.Semaphore(self._settings.keeper_parallel)

        async def look(record: WorkspaceRecord) -> None:
            async with gate:
                await self._look(record)

        now = asyncio.get_running_loop().time()
        due = [record for name, record in running.items() if self._next_check.get(name, 0) <= now]
        await asyncio.gather(*(look(record) for record in due))

    async def _give_up(self, records: Sequence[WorkspaceRecord]) -> None:
        """Stop a workspace that failed to start; a failure is logged and tried again."""
        for record in self._unstarted.due(records, asyncio.get_running_loop().time()):
            why = record.detail or "the reason is not known"
            stop = Stop("failed", datetime.now(UTC), f"workspace {record.name} did not start: {why}")
            try:
                await self._backend.stop(record.name, stop)
            except FairleadError as exc:
                _log.warning("workspace not stopped", workspace=record.name, why=str(exc))
                continue
            _log.info("workspace stopped", workspace=record.name, by=stop.by)
            self._stopped(record, stop)

    async def _look(self, record: WorkspaceRecord) -> None:
        """Ask one workspace, and take the action that is due; none without data."""
        try:
            bounds = await self._bounds(record)
            next_s = bounds.next_due_s(0, 0)
            if next_s is not None:
                next_s = await self._ask(record, bounds)
        except FairleadError as exc:
            _log.info("workspace not looked after", workspace=record.name, code=exc.code, why=str(exc))
            return
        if next_s is not None:
            self._next_check[record.name] = asyncio.get_running_loop().time() + min(next_s, _LONGEST_S)

    async def _bounds(self, record: WorkspaceRecord) -> Bounds:
        bounds = await self._bounds_of(record)
        return replace(bounds, stops_itself=self._backend.features.stops_idle)

    async def _ask(self, record: WorkspaceRecord, bounds: Bounds) -> float | None:
        """Return the seconds until an action may be due; None for not before the next round."""
        if (endpoint := await self._backend.locate(record.name)) is None:
            return None
        async with self._links.use(endpoint) as link:
            status = await link.status()
            if status.draining:
                return None  # another proxy drains it
            return await self._act(record, bounds, status, link)

    async def _act(self, record: WorkspaceRecord, bounds: Bounds, status: Status, link: Link) -> float | None:
        match bounds.due(status.idle_s, status.uptime_s):
            case Due.STOP_IDLE:
                what = f"workspace {record.name} did nothing for {_words(bounds.idle_stop_s)}"
                await self._stop(record, link, Stop("idle", datetime.now(UTC), what), bounds.idle_stop_s)
                return None
            case Due.STOP_OLD:
                what = f"workspace {record.name} reached the {_words(bounds.lifetime_s)} that it may run"
                await self._stop(record, link, Stop("lifetime", datetime.now(UTC), what), 0)
                return None
            case Due.WARN:
                left_s = bounds.lifetime_s - status.uptime_s
                may = _words(bounds.lifetime_s)
                text = f"workspace {record.name} stops in {_words(left_s)}: it may run {may}"
                once = f"lifetime {link.endpoint.generation}"
                await link.announce(text, once=once)
                self._warn(record, StopWarning("lifetime", left_s, status.why, once))
            case Due.WARN_IDLE:
                left_s = bounds.idle_stop_s - status.idle_s
                # The same for every proxy, and another one after the next activity.
                once = f"idle {link.endpoint.generation} {round((status.uptime_s - status.idle_s) / 10)}"
                if not bounds.stops_itself:  # else shelld says so
                    idle = f"workspace {record.name} did nothing for {_words(status.idle_s)}"
                    await link.announce(f"{idle} and stops in {_words(left_s)} unless it is used", once=once)
                self._warn(record, StopWarning("idle", left_s, status.why, once))
        return bounds.next_due_s(status.idle_s, status.uptime_s)

    def _warn(self, record: WorkspaceRecord, warning: StopWarning) -> None:
        """Tell of a warning, once."""
        if self._warnings.get(record.name) != warning.id:
            self._warnings[record.name] = warning.id
            self._warned(record, warning)

    async def _stop(self, record: WorkspaceRecord, link: Link, stop: Stop, if_idle_s: float) -> None:
        """Stop a workspace if it is idle at this very moment too."""
        reason = f"{stop.reason} and stops now; the next connection starts it"
        if not await link.drain(if_idle_s=if_idle_s, reason=reason, for_s=self._settings.drain_s):
            return
        await self._backend.stop(record.name, stop)
        _log.info("workspace stopped", workspace=record.name, by=stop.by)
        self._stopped(record, stop)


def _words(seconds: float) -> str:
    return duration(timedelta(seconds=seconds))
