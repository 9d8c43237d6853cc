"""What every backend promises; `local` is one, Kubernetes another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.blueprints.schema import Blueprint
from proxy.model import Endpoint, Progress, WorkspaceName

Report = Callable[[Progress], None]
"""Called with what is worth telling the person who waits; never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class WorkspaceRequest:
    """One workspace that somebody wants to be in."""

    name: WorkspaceName
    user: str
    blueprint: Blueprint
    may_create: bool = True
    """False for the named form, which only ever finds."""


class Backend(Protocol):
    """Somewhere that workspaces run. Safe to call from many tasks and many proxies at once."""

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """Find the workspace or make it, and wait until shelld answers. Idempotent.

        Callers that overlap join the same start. Cancelling one caller leaves the start to the others
        and to its own deadline.

        Raises: WorkspaceNotFound, WorkspaceStartFailed, ReadyTimeout.
        """

    async def stop(self, name: WorkspaceName) -> None:
        """End the workspace's processes; its home stays. A stopped one is left as it is."""

    async def close(self) -> None:
        """Let go of what this proxy holds; workspaces run on."""
