"""Starts under way: whoever wants a workspace that is being started joins that start."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from proxy import metrics
from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.workspaces import ReadyTimeout, WorkspaceNotFound
from proxy.model import Endpoint, Phase, Progress, WorkspaceName
from proxy.workspaces.backend import Report, WorkspaceRequest

_log = structlog.get_logger("workspaces")


class Start:
    """One start for one user, and everybody who waits for it."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.done: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        # When every caller has gone, nobody is left to read the failure; that is no bug.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._reports: list[Report] = []
        self._last: Progress | None = None

    @property
    def last(self) -> str:
        """What was told last; empty for nothing."""
        return self._last.text if self._last else ""

    def join(self, report: Report) -> None:
        """Be told from now on, and what was told last."""
        self._reports.append(report)
        if self._last:
            report(self._last)

    def leave(self, report: Report) -> None:
        """Be told no more."""
        self._reports.remove(report)

    def tell(self, phase: Phase, text: str) -> None:
        """Tell everybody who waits; the same twice is told once."""
        told = Progress(phase, text)
        if told == self._last:
            return
        self._last = told
        for report in tuple(self._reports):
            report(told)


Carry = Callable[[Start], Awaitable[Endpoint]]
"""Brings one workspace to where it answers, telling the start how it goes."""


class Starts:
    """The starts of one backend in this process; at most one a workspace."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._owner = TaskOwner("starts")
        self._starts: dict[WorkspaceName, Start] = {}

    async def join(self, request: WorkspaceRequest, report: Report, carry: Carry) -> Endpoint:
        """Wait for the start of a workspace; `carry` begins it when there is none.

        A caller that is cancelled leaves the start to the others and to its own deadline.

        Raises: ReadyTimeout, and what `carry` raises; WorkspaceNotFound when it is another user's start.
        """
        start = self._starts.get(request.name)
        if start is None:
            start = self._starts[request.name] = Start(request.user.id)
            self._owner.spawn(self._settle(start, request, carry), name=request.name)
        if start.owner != request.user.id:  # the name changed hands while it was being started
            raise WorkspaceNotFound(f"there is no workspace {request.name!r} of {request.user.name}")
        start.join(report)
        try:
            return await asyncio.shield(start.done)
        finally:
            start.leave(report)

    async def close(self) -> None:
        """Give up what is under way; workspaces that were told to start go on by themselves."""
        await self._owner.close()
        for start in self._starts.values():
            start.done.cancel()

    async def _settle(self, start: Start, request: WorkspaceRequest, carry: Carry) -> None:
        """Carry a start to its end, whatever that is, and tell everybody who waits."""
        failure: FairleadError
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                endpoint = await carry(start)
        except TimeoutError:
            failure = _too_late(request.name, self._timeout_s, start.last)
        except FairleadError as exc:
            failure = exc
        except BaseException:
            start.done.cancel()  # this proxy is closing, or there is a bug, which the owner logs
            raise
        else:
            _measure(begun, "ready")
            start.tell(Phase.READY, f"workspace {request.name} is ready")
            start.done.set_result(endpoint)
            return
        finally:
            del self._starts[request.name]
        _log.warning(
            "workspace not started", workspace=request.name, user=request.user.name, why=str(failure)
        )
        start.done.set_exception(failure)


def _measure(begun: float, outcome: str) -> None:
    metrics.STARTS.labels(outcome).observe(time.monotonic() - begun)


def _too_late(name: WorkspaceName, timeout_s: float, last: str) -> ReadyTimeout:
    """Say how far it came: that is what the person would ask next."""
    late = f"was not ready within {timeout_s:g} s"
    return ReadyTimeout(
        f"workspace {name} {late}; the last that was told: {last}",
        user_message=f"workspace {name} {late}" + (f" ({last})" if last else ""),
    )
