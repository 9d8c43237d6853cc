"""What every backend promises; `local` is one, Kubernetes another."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from proxy.blueprints.schema import Blueprint
from proxy.model import Endpoint, Progress, WorkspaceName

Report = Callable[[Progress], None]
"""Called with what is worth telling the person who waits; never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a backend can serve, as far as a user string can ask for it."""

    repositories: bool = False
    workloads: bool = False
    account: str = ""
    """The OS account of every workspace; empty when the blueprint or the user decides."""


@dataclass(frozen=True, slots=True)
class WorkspaceRequest:
    """One workspace that somebody wants to be in."""

    name: WorkspaceName
    user: str
    blueprint: Blueprint
    may_create: bool = True
    """False for the named form, which only ever finds."""


@dataclass(frozen=True, slots=True)
class WorkspaceRecord:
    """What is known of a workspace that exists, running or not."""

    name: WorkspaceName
    user: str
    """Whom it belongs to; nobody else is ever let in."""
    blueprint: str
    created_at: datetime


class Backend(Protocol):
    """Somewhere that workspaces run. Safe to call from many tasks and many proxies at once."""

    @property
    def features(self) -> Features:
        """Say what can be asked for."""

    async def find(self, name: str) -> WorkspaceRecord | None:
        """Look up a workspace that exists; whose it is, the caller must check."""

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """Find the workspace or make it, and wait until shelld answers. Idempotent.

        Callers that overlap join the same start. Cancelling one caller leaves the start to the others
        and to its own deadline.

        Raises: WorkspaceNotFound, also for a workspace of another user; WorkspaceStartFailed,
            ReadyTimeout.
        """

    async def stop(self, name: WorkspaceName) -> None:
        """End the workspace's processes; its home stays. A stopped one is left as it is.

        Raises: WorkspaceNotFound.
        """

    async def close(self) -> None:
        """Let go of what this proxy holds; workspaces run on."""
