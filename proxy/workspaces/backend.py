"""What every backend promises; `local` is one, Kubernetes another."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from proxy.blueprints.schema import Blueprint
from proxy.model import Endpoint, Progress, User, WorkspaceName
from proxy.userstring import UserString

Report = Callable[[Progress], None]
"""Called with what is worth telling the person who waits; never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a backend can serve, as far as a user string can ask for it."""

    repositories: bool = False
    workloads: bool = False
    account: str = ""
    """The OS account of every workspace; empty when the blueprint or the user decides."""
    stops_idle: bool = False
    """Workspaces end by themselves when idle, and note it; nobody else need look."""


@dataclass(frozen=True, slots=True)
class WorkspaceRequest:
    """One workspace that somebody wants to be in."""

    name: WorkspaceName
    user: User
    blueprint: Blueprint
    """Resolved: nothing is left to inherit or to evaluate."""
    origin: UserString
    """What was asked for: repository, ref and workload are read from here."""
    may_create: bool = True
    """False for the named form, which only ever finds."""
    hold_s: float = 0
    """A stop that somebody asked for and that is younger than this is not undone; see `holding`."""


class WorkspacePhase(Enum):
    """What a workspace that exists is doing."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a workspace is stopped; it stays on record until the next start."""

    by: str
    """A user's name, `cli:<OS user>`, `idle` or `lifetime`."""
    at: datetime
    reason: str = ""
    """A sentence for the person."""


@dataclass(frozen=True, slots=True)
class WorkspaceRecord:
    """What is known of a workspace that exists, running or not."""

    name: WorkspaceName
    user: str
    """Name of the user whom it belongs to; empty where an older release left a home and no record."""
    blueprint: str
    created_at: datetime
    user_string: str = ""
    """Means this workspace again when parsed; without an account."""
    phase: WorkspacePhase = WorkspacePhase.STOPPED
    detail: str = ""
    """Why it is in this phase, in words, when that is worth telling."""
    started_at: datetime | None = None
    stop: Stop | None = None
    location: str = ""
    """Where it runs, for operators: namespace and object, or a directory."""
    owner: str = ""
    """Id of the user whom it belongs to; no other user is let in. Empty when an older release made it and
    its user has not been back: see `ownership`."""


@dataclass(frozen=True, slots=True)
class WorkspaceEvent:
    """Something that the backend noted about a workspace."""

    at: datetime
    kind: str
    """`normal` or `warning`."""
    reason: str
    message: str
    count: int = 1


class Backend(Protocol):
    """Somewhere that workspaces run. Safe to call from many tasks and many proxies at once."""

    @property
    def features(self) -> Features:
        """Say what can be asked for."""

    async def find(self, name: str) -> WorkspaceRecord | None:
        """Look up a workspace that exists; whose it is, the caller must check."""

    async def holder(self, name: str) -> WorkspaceRecord | None:
        """Return the record that says whose a name is: a workspace's, or that of a home which was kept.

        What is known without asking is enough, however old: a name seldom changes hands.
        """

    async def list(self) -> Sequence[WorkspaceRecord]:
        """Give every workspace, by name."""

    async def kept(self) -> Sequence[WorkspaceRecord]:
        """Return the homes that deleted workspaces left, by name, as far as it is known whose they are."""

    async def locate(self, name: WorkspaceName) -> Endpoint | None:
        """Say where a running workspace answers; None for one that does not. Starts nothing."""

    async def upkeep(self) -> None:
        """Do what time makes due for workspaces, such as renewing what they prove themselves with.

        Called now and then by every proxy, at the same time too; cheap when nothing is due.
        Raises: FairleadError.
        """

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """Find the workspace or make it, and wait until shelld answers. Idempotent.

        Callers that overlap join the same start. Cancelling one caller leaves the start to the others
        and to its own deadline. The record of a stop is gone afterwards.

        A workspace that an older release made is recorded as its user's; see `ownership`.

        Raises: WorkspaceNotFound, also for a workspace of another user; OwnerUnknown; NameReserved;
            WorkspaceHeld when it is stopped and that is not to be undone; WorkspaceStartFailed, ReadyTimeout.
        """

    def check_access(self, request: WorkspaceRequest) -> None:
        """Make sure that the user may enter, by rules of the backend's own. Raises: Refused."""

    async def stop(self, name: WorkspaceName, stop: Stop) -> None:
        """End the workspace's processes and note why; its home stays. A stopped one is left as it is.

        Raises: WorkspaceNotFound.
        """

    async def give(self, name: WorkspaceName, user: User, stop: Stop) -> None:
        """Make a workspace, or a home that was kept, a user's; what runs in it is ended first.

        Its name stays. Raises: WorkspaceNotFound; Refused for what cannot be handed over.
        """

    async def delete(self, name: WorkspaceName, *, purge: bool) -> None:
        """Take away everything but the home, and with `purge` the home too; also one that was kept.

        Raises: WorkspaceNotFound.
        """

    def logs(self, name: WorkspaceName, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """Give lines that shelld logged, the last `tail` of them first.

        Raises: WorkspaceNotFound.
        """

    async def events(self, name: WorkspaceName) -> Sequence[WorkspaceEvent]:
        """Give what the backend noted lately, oldest first. Raises: WorkspaceNotFound."""

    async def close(self) -> None:
        """Let go of what this proxy holds; workspaces run on."""
