"""Events of starts and stops of workspaces: one event for each start, for any number of waiting users."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from proxy.errors.workspaces import WorkspaceError
from proxy.events import schema
from proxy.model import Endpoint, Phase, Progress, WorkspaceName
from proxy.workspaces.backend import Report, Stop, WorkspaceRecord, WorkspaceRequest

Publish = Callable[[schema.Event], None]
"""A callback that publishes; it never waits and raises nothing."""


def publish_nothing(_: schema.Event) -> None:
    """Publish nothing: for commands, which have no bus."""


def publish_stopped(publish: Publish, record: WorkspaceRecord, stop: Stop) -> None:
    """Publish that a workspace was stopped, and by whom."""
    publish(
        schema.WorkspaceStopped(
            user=record.user, workspace=record.name, blueprint=record.blueprint, actor=stop.by
        )
    )


@dataclass(frozen=True, slots=True)
class StopWarning:
    """A stop that is near."""

    reason: str
    """`idle` or `lifetime`."""
    left_s: float
    why: str
    """A sentence about the last activity; empty for none."""
    id: str
    """The same in every proxy, and another one for the next such stop of this start."""


def warn_no_consumer(_record: WorkspaceRecord, _warning: StopWarning) -> None:
    """Publish no warning: for tests and commands, which have no bus."""


def publish_warning(publish: Publish, record: WorkspaceRecord, warning: StopWarning) -> None:
    """Publish that a workspace stops soon."""
    stops_at = datetime.now(UTC) + timedelta(seconds=warning.left_s)
    publish(
        schema.WorkspaceStoppingSoon(
            id=_fixed_id(f"{record.name}\0{warning.id}"),
            user=record.user,
            workspace=record.name,
            blueprint=record.blueprint,
            reason=warning.reason,
            stops_at=stops_at.isoformat(timespec="seconds"),
            why=warning.why,
        )
    )


_REMEMBERED = 10_000


@dataclass(slots=True)
class _AnnouncedStart:
    """All callers in this process that wait for one workspace now."""

    began_s: float
    waiting: int = 0
    was_needed: bool = False
    is_announced: bool = False


class StartAttempt:
    """One caller's part of a start."""

    def __init__(self, start: _AnnouncedStart, report: Report) -> None:
        self._start = start
        self._report = report
        self.endpoint: Endpoint | None = None
        """The result, set by the caller."""

    def report(self, progress: Progress) -> None:
        """Pass progress on; the first progress means that the workspace was not running."""
        self._start.was_needed |= progress.phase is not Phase.READY
        self._report(progress)


class StartAnnouncer:
    """The publisher of starts.

    One for each process. A backend need not know of events, nor which caller was first.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._starts: dict[WorkspaceName, _AnnouncedStart] = {}
        self._generations: OrderedDict[WorkspaceName, str] = OrderedDict()

    @contextmanager
    def start(self, request: WorkspaceRequest, report: Report) -> Iterator[StartAttempt]:
        """Publish the outcome of a start, unless another caller of it has."""
        start = self._starts.setdefault(request.name, _AnnouncedStart(time.monotonic()))
        start.waiting += 1
        attempt = StartAttempt(start, report)
        try:
            yield attempt
            if start.was_needed and attempt.endpoint is not None:
                self._started(request, start, attempt.endpoint)
        except WorkspaceError as exc:
            if start.was_needed and not start.is_announced:
                start.is_announced = True
                self._publish(
                    schema.WorkspaceFailed(
                        user=request.user.name,
                        workspace=request.name,
                        blueprint=request.blueprint.name,
                        reasons=(exc.code,),
                    )
                )
            raise
        finally:
            start.waiting -= 1
            if not start.waiting:
                del self._starts[request.name]

    def _started(self, request: WorkspaceRequest, start: _AnnouncedStart, endpoint: Endpoint) -> None:
        if self._generations.get(request.name) == endpoint.generation:
            return
        self._generations[request.name] = endpoint.generation
        self._generations.move_to_end(request.name)
        if len(self._generations) > _REMEMBERED:
            self._generations.popitem(last=False)
        self._publish(
            schema.WorkspaceStarted(
                id=_id_of(endpoint),
                user=request.user.name,
                workspace=request.name,
                blueprint=request.blueprint.name,
                duration_ms=round((time.monotonic() - start.began_s) * 1_000),
            )
        )


def _id_of(endpoint: Endpoint) -> str:
    """Return the same id for one start on every replica, so that JetStream keeps one event of it."""
    return _fixed_id(f"{endpoint.workspace}\0{endpoint.generation}")


def _fixed_id(seed: str) -> str:
    """Return the same UUID for one text."""
    value = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "big")
    value = value & ~(0xF << 76) | (0x8 << 76)  # version 8 of RFC 9562: not made from a time
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(UUID(int=value))
