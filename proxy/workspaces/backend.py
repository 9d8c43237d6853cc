"""The interface of backends, which run workspaces: `local` is one, Kubernetes another."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from proxy.blueprints.schema import Blueprint
from proxy.model import Endpoint, Progress, User, WorkspaceName
from proxy.userstring import UserString

Report = Callable[[Progress], None]
"""A callback with progress for the waiting user; it never blocks and raises nothing."""


@dataclass(frozen=True, slots=True)
class Features:
    """The parts of a user string that a backend supports."""

    repositories: bool = False
    workloads: bool = False
    account: str = ""
    """The OS account of every workspace; empty when the blueprint or the user decides."""
    stops_idle: bool = False
    """Whether workspaces stop by themselves when idle, so that the reaper need not check."""


@dataclass(frozen=True, slots=True)
class WorkspaceRequest:
    """A request for one workspace."""

    name: WorkspaceName
    user: User
    blueprint: Blueprint
    """Resolved: without inheritance and expressions."""
    origin: UserString
    """The request in the user string: repository, ref and workload."""
    may_create: bool = True
    """False for `pod=`, which only finds existing workspaces."""
    hold_s: float = 0
    """Seconds for which a stop on request is not undone; see `stop_holds`."""
    may_start: bool = True
    """False: a workspace that does not run is not found."""


class WorkspacePhase(Enum):
    """The state of an existing workspace."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Stop:
    """The reason of a stop; it is recorded until the next start."""

    by: str
    """A user's name, `cli:<OS user>`, `idle` or `lifetime`."""
    at: datetime
    reason: str = ""
    """A sentence for the user."""


@dataclass(frozen=True, slots=True)
class WorkspaceRecord:
    """The facts about an existing workspace, running or not."""

    name: WorkspaceName
    user: str
    """Name of the owner; empty where an older release left a home without a record."""
    blueprint: str
    created_at: datetime
    user_string: str = ""
    """A user string that leads to this workspace; without an account."""
    phase: WorkspacePhase = WorkspacePhase.STOPPED
    detail: str = ""
    """The reason of the phase in words, if there is one."""
    started_at: datetime | None = None
    stop: Stop | None = None
    active_at: datetime | None = None
    """Last activity, as the workspace tells where it was asked."""
    why: str = ""
    """A sentence about that activity."""
    location: str = ""
    """Place for operators: namespace and object, or a directory."""
    owner: str = ""
    """Id of the owner; no other user may enter. Empty when an older release made the workspace and its owner
    has not been back: see `ownership`.
    """


@dataclass(frozen=True, slots=True)
class WorkspaceEvent:
    """A message of the backend about a workspace."""

    at: datetime
    kind: str
    """`normal` or `warning`."""
    reason: str
    message: str
    count: int = 1


class Backend(Protocol):
    """A system that runs workspaces. Safe for many tasks and many proxies at once."""

    @property
    def features(self) -> Features:
        """Return the supported parts of user strings."""

    async def find(self, name: str) -> WorkspaceRecord | None:
        """Return an existing workspace; the caller must check its owner."""

    async def holder(self, name: str) -> WorkspaceRecord | None:
        """Return the record of the owner of a name: of a workspace, or of a home that was kept.

        Cached facts of any age suffice: names seldom change hands.
        """

    async def list(self) -> Sequence[WorkspaceRecord]:
        """Return every workspace, by name."""

    async def kept(self) -> Sequence[WorkspaceRecord]:
        """Return the homes that deleted workspaces left, by name, if their owners are known."""

    async def locate(self, name: WorkspaceName) -> Endpoint | None:
        """Return the address of a running workspace; None if it does not run. Starts nothing."""

    async def upkeep(self) -> None:
        """Do regular maintenance of workspaces, such as renewing certificates.

        Every proxy calls it at intervals, at the same time too; it is cheap when nothing is due.
        Raises: FairleadError.
        """

    async def ensure(self, request: WorkspaceRequest, report: Report) -> Endpoint:
        """Return the workspace's address when shelld answers; start or create it if needed. Idempotent.

        Concurrent callers join the same start. A cancelled caller leaves the start to the others and to its
        own deadline. The start deletes the record of a stop.

        A workspace of an older release is recorded as its user's; see `ownership`.

        Raises: WorkspaceNotFound, also for a workspace of another user; OwnerUnknown; NameReserved;
        WorkspaceHeld when
            a stop is not to be undone; WorkspaceStartFailed, ReadyTimeout.
        """

    def check_access(self, request: WorkspaceRequest) -> None:
        """Check the backend's own rules on the user's access. Raises: Refused."""

    async def stop(self, name: WorkspaceName, stop: Stop) -> None:
        """End the workspace's processes and record why; its home stays. A stopped workspace is not changed.

        Raises: WorkspaceNotFound.
        """

    async def give(self, name: WorkspaceName, user: User, stop: Stop) -> None:
        """Change the owner of a workspace or of a kept home; its processes are ended first.

        Its name stays. Raises: WorkspaceNotFound; Refused for a workspace that cannot change owners.
        """

    async def delete(self, name: WorkspaceName, *, purge: bool) -> None:
        """Delete everything but the home, and with `purge` the home too, also a kept one.

        Raises: WorkspaceNotFound.
        """

    def logs(self, name: WorkspaceName, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """Yield lines of shelld's log, beginning with the last `tail` lines.

        Raises: WorkspaceNotFound.
        """

    async def events(self, name: WorkspaceName) -> Sequence[WorkspaceEvent]:
        """Return recent messages of the backend, oldest first. Raises: WorkspaceNotFound."""

    async def close(self) -> None:
        """Release the resources of this proxy; workspaces go on."""
