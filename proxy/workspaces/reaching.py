"""The way to a running workspace: its address, a link to it, and another look while it does not answer.

A workspace may have gone a moment ago without the backend having heard of it: kubelet evicts a pod and says
so a second later. Connecting to its address would be silent until `upstream.connect_timeout_s`.
"""

import asyncio
from typing import Any

import structlog

from proxy.aio import TaskOwner
from proxy.errors.upstream import Unreachable
from proxy.model import Endpoint, Phase, Progress
from proxy.upstream.client import Link, Links
from proxy.workspaces.backend import Report, WorkspaceRequest
from proxy.workspaces.provisioner import Workspaces

_log = structlog.get_logger("workspaces")


async def reach(workspaces: Workspaces, links: Links, request: WorkspaceRequest, report: Report) -> Link:
    """Return a link to a workspace, which is started where needed; the caller holds it at once.

    While it does not answer, the workspace is looked for again every `upstream.look_again_s`, and a newer one
    of its name is used.

    Raises: as `Workspaces.ensure`; Unreachable, Incompatible, TrustError.
    """
    report = _without_repeats(report)
    endpoint = await workspaces.ensure(request, report)
    owner = TaskOwner("reaching")
    try:
        while True:
            connecting = owner.spawn(links.obtain(endpoint), name=request.name)
            newer = await _newer(owner, workspaces, links, connecting, endpoint, request, report)
            if newer is None:
                return await connecting
            _log.info("workspace gone while connecting", workspace=request.name, user=request.user.name)
            connecting.cancel()
            endpoint = newer
    finally:
        await owner.close()


async def _newer(
    owner: TaskOwner,
    workspaces: Workspaces,
    links: Links,
    connecting: "asyncio.Task[Link]",
    endpoint: Endpoint,
    request: WorkspaceRequest,
    report: Report,
) -> Endpoint | None:
    """Wait until connecting has ended, or another endpoint of the workspace is found; None for the former.

    Raises: as `Workspaces.ensure`.
    """
    while True:
        await asyncio.wait({connecting}, timeout=links.look_again_s)
        if connecting.done():
            return None
        report(
            Progress(Phase.STARTING, f"workspace {request.name} does not answer yet; looking for it again")
        )
        looking = owner.spawn(workspaces.ensure(request, report), name=f"again {request.name}")
        both: set[asyncio.Future[Any]] = {connecting, looking}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done() and not _is_unreachable(connecting):
            return None
        found = await looking
        if found.generation != endpoint.generation:
            return found


def _is_unreachable(connecting: "asyncio.Task[Link]") -> bool:
    return not connecting.cancelled() and isinstance(connecting.exception(), Unreachable)


def _without_repeats(report: Report) -> Report:
    """Report progress that differs from the last reported one."""
    last: Progress | None = None

    def tell(progress: Progress) -> None:
        nonlocal last
        if progress != last:
            last = progress
            report(progress)

    return tell
