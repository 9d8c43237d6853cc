"""What others are told of the starts of workspaces: one event a start, however many people waited for it."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from proxy.errors.workspaces import WorkspaceError
from proxy.events import schema
from proxy.model import Endpoint, Phase, Progress, WorkspaceName
from proxy.workspaces.backend import Report, Stop, WorkspaceRecord, WorkspaceRequest

Tell = Callable[[schema.Event], None]
"""Publishes; never waits, never raises."""


def tell_nobody(_: schema.Event) -> None:
    """Publish nothing: of a command, which has no bus."""


def tell_stopped(tell: Tell, record: WorkspaceRecord, stop: Stop) -> None:
    """Tell that a workspace was stopped, and by whom."""
    tell(
        schema.WorkspaceStopped(
            user=record.user, workspace=record.name, blueprint=record.blueprint, actor=stop.by
        )
    )


_REMEMBERED = 10_000


@dataclass(slots=True)
class _Start:
    """Everybody in this process who waits for one workspace at the moment."""

    began_s: float
    waiting: int = 0
    was_needed: bool = False
    is_told: bool = False


class Attempt:
    """One caller's part of a start."""

    def __init__(self, start: _Start, report: Report) -> None:
        self._start = start
        self._report = report
        self.endpoint: Endpoint | None = None
        """What became of it; set by whoever waited."""

    def report(self, progress: Progress) -> None:
        """Pass news on; the first of them says that the workspace was not running."""
        self._start.was_needed |= progress.phase is not Phase.READY
        self._report(progress)


class Told:
    """One per process. A backend need not know of events, nor say who was first."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._starts: dict[WorkspaceName, _Start] = {}
        self._generations: OrderedDict[WorkspaceName, str] = OrderedDict()

    @contextmanager
    def start(self, request: WorkspaceRequest, report: Report) -> Iterator[Attempt]:
        """Tell how an attempt to have a workspace went, unless somebody beside it has."""
        start = self._starts.setdefault(request.name, _Start(time.monotonic()))
        start.waiting += 1
        attempt = Attempt(start, report)
        try:
            yield attempt
            if start.was_needed and attempt.endpoint is not None:
                self._started(request, start, attempt.endpoint)
        except WorkspaceError as exc:
            if start.was_needed and not start.is_told:
                start.is_told = True
                self._tell(
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

    def _started(self, request: WorkspaceRequest, start: _Start, endpoint: Endpoint) -> None:
        if self._generations.get(request.name) == endpoint.generation:
            return
        self._generations[request.name] = endpoint.generation
        self._generations.move_to_end(request.name)
        if len(self._generations) > _REMEMBERED:
            self._generations.popitem(last=False)
        self._tell(
            schema.WorkspaceStarted(
                id=_id_of(endpoint),
                user=request.user.name,
                workspace=request.name,
                blueprint=request.blueprint.name,
                duration_ms=round((time.monotonic() - start.began_s) * 1_000),
            )
        )


def _id_of(endpoint: Endpoint) -> str:
    """Make one id of one start, so that JetStream keeps one event of what several replicas tell."""
    told = f"{endpoint.workspace}\0{endpoint.generation}".encode()
    value = int.from_bytes(hashlib.sha256(told).digest()[:16], "big")
    value = value & ~(0xF << 76) | (0x8 << 76)  # version 8 of RFC 9562: made of something else than time
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(UUID(int=value))
