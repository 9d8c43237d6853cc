"""Pending starts of workspaces; all callers that want a workspace join its one start."""

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


class PendingStart:
    """One start for one user, and all callers that wait for it."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.done: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        # When every caller has gone, the failure is never read; that is no bug.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._reports: list[Report] = []
        self._last: Progress | None = None

    @property
    def last(self) -> str:
        """Return the last reported text; empty before the first."""
        return self._last.text if self._last else ""

    def join(self, report: Report) -> None:
        """Report progress to this caller from now on, beginning with the last."""
        self._reports.append(report)
        if self._last:
            report(self._last)

    def leave(self, report: Report) -> None:
        """Stop reporting to this caller."""
        self._reports.remove(report)

    def tell(self, phase: Phase, text: str) -> None:
        """Report progress to all callers; the same report is passed on once."""
        progress = Progress(phase, text)
        if progress == self._last:
            return
        self._last = progress
        for report in tuple(self._reports):
            report(progress)


Carry = Callable[[PendingStart], Awaitable[Endpoint]]
"""Brings one workspace to where it answers, and reports progress to the start."""


class PendingStarts:
    """The starts of one backend in this process; at most one for each workspace."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._owner = TaskOwner("starts")
        self._starts: dict[WorkspaceName, PendingStart] = {}

    async def join(self, request: WorkspaceRequest, report: Report, carry: Carry) -> Endpoint:
        """Wait for the start of a workspace; `carry` begins it when there is none.

        A cancelled caller leaves the start to the others and to its own deadline.

        Raises: ReadyTimeout, and what `carry` raises; WorkspaceNotFound when it is another user's start.
        """
        start = self._starts.get(request.name)
        if start is None:
            start = self._starts[request.name] = PendingStart(request.user.id)
            self._owner.spawn(self._settle(start, request, carry), name=request.name)
        if start.owner != request.user.id:  # the workspace changed owners while it was being started
            raise WorkspaceNotFound(f"there is no workspace {request.name!r} of {request.user.name}")
        start.join(report)
        try:
            return await asyncio.shield(start.done)
        finally:
            start.leave(report)

    async def close(self) -> None:
        """Cancel the starts; the workspaces go on starting by themselves."""
        await self._owner.close()
        for start in self._starts.values():
            start.done.cancel()

    async def _settle(self, start: PendingStart, request: WorkspaceRequest, carry: Carry) -> None:
        """Run a start to its end, and pass the result to all callers."""
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
            start.done.cancel()  # the proxy is closing, or there is a bug, which the task owner logs
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
    """Return the error with the last progress, which shows the cause."""
    late = f"was not ready within {timeout_s:g} s"
    return ReadyTimeout(
        f"workspace {name} {late}; the last progress: {last}",
        user_message=f"workspace {name} {late}" + (f" ({last})" if last else ""),
    )
