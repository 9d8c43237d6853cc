"""Programs and forwards in workspaces: policy, workspace, link, stream and recording, in this order.

Independent of SSH and gRPC. Logins are in `authentication`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, TypeVar

import structlog

from proxy import metrics
from proxy.access import apps, policy
from proxy.access.lobby import Lobby
from proxy.blueprints.schema import Blueprint
from proxy.blueprints.sharing import Share
from proxy.errors import FairleadError
from proxy.errors.blueprints import BlueprintNotFound
from proxy.errors.programs import Refused
from proxy.errors.upstream import Draining, Unreachable
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import (
    ALLOWED,
    AppState,
    AppTarget,
    Bind,
    Decision,
    Phase,
    ProgramSpec,
    Progress,
    Reserved,
    Target,
    Visit,
)
from proxy.recording.recorder import Recorder
from proxy.recording.service import Recordings
from proxy.sessions.live import Traffic
from proxy.upstream.client import Link, Links
from proxy.upstream.streams import Connection, Listener, Program
from proxy.workspaces.backend import Report, WorkspaceRequest
from proxy.workspaces.control import Control
from proxy.workspaces.provisioner import Workspaces
from proxy.workspaces.reaching import reach

_DRAIN_POLL_S = 0.25

_DENIALS = (Refused, BlueprintNotFound, WorkspaceNotFound)

_T = TypeVar("_T")
_log = structlog.get_logger("gateway")


def _ignore(_: object) -> None:
    """Ignore progress: a forward has no place to show it."""


@contextmanager
def _counted(spec: ProgramSpec) -> Iterator[None]:
    """Count a program by the outcome of its start."""
    outcome = "cancelled"
    try:
        yield
        outcome = "started"
    except FairleadError as exc:
        outcome = exc.code
        raise
    finally:
        metrics.PROGRAMS.labels(type(spec.kind).__name__.lower(), outcome).inc()


class Running(NamedTuple):
    """A program that was started, and its recording."""

    program: Program
    link: Link
    recorder: Recorder | None
    """The recorder of output and input; None: the program is not recorded."""
    splash: str
    """Text of the blueprint to show before the first prompt."""


class ForwardRecord(Protocol):
    """The record of a forward, as far as its recording needs it."""

    @property
    def id(self) -> str:
        """Return the id of the record."""

    @property
    def traffic(self) -> Traffic:
        """Return the counts of bytes."""


class Place(NamedTuple):
    """The place that a connection leads to."""

    workspace: str
    blueprint: str
    accept_env: tuple[str, ...]
    """Patterns of the names of variables that a client may set there."""


class Gateway:
    """The one way to programs and forwards; one for each process, shared by all connections."""

    def __init__(
        self,
        workspaces: Workspaces,
        links: Links,
        recordings: Recordings,
        control: Control,
        *,
        drain_s: float = 0,
    ) -> None:
        """Create it; `drain_s` is the longest wait for a workspace that is being stopped."""
        self._workspaces = workspaces
        self._links = links
        self._recordings = recordings
        self._control = control
        self._drain_s = drain_s
        self._reserved = Reserved()
        self.lobby = Lobby()
        """Answers what is asked of no workspace."""

    def reserve(self, reserved: Reserved) -> None:
        """Refuse, from now on, forwards to the proxy's own addresses and ports."""
        self._reserved = reserved

    async def control(self, visit: Visit, what: str, report: Report) -> str:
        """Run one of policy.CONTROLS, which enter no workspace; return the text for the user.

        Raises: Refused, BlueprintError, WorkspaceError.
        """
        _require(policy.may_control(visit, what))
        return await self._control.run(visit, what, report)

    async def place(self, visit: Visit) -> Place:
        """Return the place that a connection leads to, whether or not the workspace runs.

        Raises: Refused, BlueprintError, WorkspaceError.
        """
        request = await self._workspaces.request_of(visit)
        return Place(request.name, request.blueprint.name, request.blueprint.all_accept_env)

    async def may_remain(self, was: Visit, now: Visit) -> Decision:
        """Decide whether a connection of `was` may go on after the user's groups changed to those of `now`.

        What the old groups did not allow was allowed otherwise, and goes on.

        Raises: FairleadError when it cannot be decided at the moment.
        """
        try:
            blueprint = await self._workspaces.entrance_of(was)
        except _DENIALS:
            return ALLOWED
        except FairleadError:  # unknown what the old groups allowed; the new ones decide below
            blueprint = ""
        try:
            await self._workspaces.entrance_of(now, blueprint)
        except _DENIALS:
            return policy.GROUPS_ENDED
        return ALLOWED

    @asynccontextmanager
    async def program(
        self, visit: Visit, spec: Callable[[], ProgramSpec], program_id: str, report: Report
    ) -> AsyncIterator[Running]:
        """Start the workspace if needed, then the program; the program ends when the context is left.

        `spec` is called when the workspace is ready, because the terminal may have another size by then.

        Raises: Refused, BlueprintError, WorkspaceError, ProgramNotStarted, UpstreamError;
            RecordingUnavailable and, while inside or on leaving, RecordingLost when the program may not
            run unrecorded.
        """
        async with AsyncExitStack() as stack:
            asked = spec()
            with _counted(asked):
                _require(policy.may_run(visit, asked.kind))
                request = await self._workspaces.request_of(visit)
                recording = await self._recordings.program(visit, asked, request.blueprint, program_id)
                recorder = None if recording is None else await stack.enter_async_context(recording)
                program, link = await self.on_link(
                    stack, request, report, lambda link: link.run(spec(), visit, program_id)
                )
            async with program:
                yield Running(program, link, recorder, request.blueprint.splash)

    @asynccontextmanager
    async def dial(
        self, visit: Visit, target: Target, record: ForwardRecord
    ) -> AsyncIterator[tuple[Connection, Link]]:
        """Connect from inside the workspace; leaving breaks the connection off unless both directions ended.

        Raises: Refused, BlueprintError, WorkspaceError, OpenFailed, UpstreamError;
            RecordingUnavailable and, while inside or on leaving, RecordingLost when the connection may not
            be carried unrecorded.
        """
        _require(policy.may_dial(visit, target))
        async with self._dial(visit, target, record) as dialled:
            yield dialled

    @asynccontextmanager
    async def open_app(
        self,
        visit: Visit,
        target: Target,
        share: Share,
        record: ForwardRecord,
        *,
        demand: bool = True,
        quiet: bool = False,
        heard: Callable[[AppState], None] = _ignore,
    ) -> AsyncIterator[tuple[Connection, Link]]:
        """Connect to an app that the blueprint declares at `target`, and that is shared as `share` says.

        The workspace has to run. An app that shelld starts is started for a user who may wake it, unless
        `demand` is false; `heard` gets its states. A quiet connection does not count as activity.

        Raises: as `dial`; WorkspaceNotFound where the workspace does not run; AppNotReady for an app that
            does not run and must not be started.
        """
        _require(policy.may_open(visit, share, datetime.now(UTC)))
        dialling = self._dial(visit, target, record, may_start=False, demand=demand, quiet=quiet, heard=heard)
        async with dialling as dialled:
            yield dialled

    @asynccontextmanager
    async def _dial(
        self,
        visit: Visit,
        target: Target,
        record: ForwardRecord,
        *,
        may_start: bool = True,
        demand: bool = True,
        quiet: bool = False,
        heard: Callable[[AppState], None] = _ignore,
    ) -> AsyncIterator[tuple[Connection, Link]]:
        async with AsyncExitStack() as stack:
            request = replace(await self._workspaces.request_of(visit), may_start=may_start)
            recording = self._recorded(visit, request.blueprint, str(target), record)
            await stack.enter_async_context(recording)

            async def open_(link: Link) -> Connection:
                if isinstance(target, AppTarget):
                    spec = apps.demanded(visit, request.blueprint, target) if demand else None
                    return await apps.dial(link, target, spec, self._reserved, quiet=quiet, heard=heard)
                return await link.dial(target, visit.account, self._reserved, quiet=quiet)

            connection, link = await self.on_link(stack, request, _ignore, open_)
            async with connection:
                yield connection, link

    @asynccontextmanager
    async def listen(
        self, visit: Visit, bind: Bind, listener_id: str, report: Report = _ignore
    ) -> AsyncIterator[tuple[Listener, Link]]:
        """Listen inside the workspace until the context is left.

        Raises: Refused, BlueprintError, WorkspaceError, OpenFailed, UpstreamError.
        """
        _require(policy.may_listen(visit, bind))
        async with AsyncExitStack() as stack:
            request = await self._workspaces.request_of(visit)
            listener, link = await self.on_link(
                stack,
                request,
                report,
                lambda link: link.listen(bind, listener_id, visit.account, self._reserved),
            )
            try:
                yield listener, link
            finally:
                listener.close()

    @asynccontextmanager
    async def accept(
        self, visit: Visit, link: Link, connection_id: str
    ) -> AsyncIterator[tuple[Connection, Link]]:
        """Claim a connection that a listener of this visit announced on `link`, which is held while inside.

        Raises: Refused, OpenFailed, UpstreamError.
        """
        _require(policy.may_accept(visit))
        async with self._links.hold(link), await link.accept(connection_id, visit.account) as connection:
            yield connection, link

    @asynccontextmanager
    async def accept_recorded(
        self, visit: Visit, link: Link, connection_id: str, target: str, record: ForwardRecord
    ) -> AsyncIterator[tuple[Connection, Link]]:
        """Claim a connection, and record it when a rule says so; `target` is the listening address.

        Raises: as `accept`; BlueprintError, WorkspaceError, RecordingUnavailable, RecordingLost.
        """
        blueprint = (await self._workspaces.request_of(visit)).blueprint
        async with (
            self._recorded(visit, blueprint, target, record),
            self.accept(visit, link, connection_id) as accepted,
        ):
            yield accepted

    @asynccontextmanager
    async def _recorded(
        self, visit: Visit, blueprint: Blueprint, target: str, record: ForwardRecord
    ) -> AsyncIterator[None]:
        recorder = await self._recordings.forward(visit, target, blueprint, record.id, record.traffic)
        async with nullcontext() if recorder is None else recorder:
            yield

    async def on_link(
        self,
        stack: AsyncExitStack,
        request: WorkspaceRequest,
        report: Report,
        open_: Callable[[Link], Awaitable[_T]],
    ) -> tuple[_T, Link]:
        """Open something on a link, which `stack` then holds.

        A workspace that is being stopped accepts nothing: wait for its end, then start it again unless it is
        held.
        """
        give_up_at = asyncio.get_running_loop().time() + self._drain_s
        while True:
            async with AsyncExitStack() as attempt:
                link = await attempt.enter_async_context(self._link(request, report))
                try:
                    opened = await open_(link)
                except Draining:
                    if asyncio.get_running_loop().time() >= give_up_at:
                        raise
                else:
                    stack.push_async_exit(attempt.pop_all())
                    return opened, link
            report(Progress(Phase.PREPARING, "waiting for the workspace to have stopped"))
            await asyncio.sleep(_DRAIN_POLL_S)

    @asynccontextmanager
    async def _link(self, request: WorkspaceRequest, report: Report) -> AsyncIterator[Link]:
        """Hold a link to the workspace, which is started if needed.

        A workspace that ended between look-up and connect is looked up once more. It has received no request
        yet, so nothing happens twice.
        """
        async with AsyncExitStack() as stack:
            try:
                link = await self._reach(stack, request, report)
            except Unreachable as exc:
                _log.info("workspace gone, trying again", user=request.user.name, reason=str(exc))
                link = await self._reach(stack, request, report)
            yield link

    async def _reach(self, stack: AsyncExitStack, request: WorkspaceRequest, report: Report) -> Link:
        link = await reach(self._workspaces, self._links, request, report)
        return await stack.enter_async_context(self._links.hold(link))


def _require(decision: Decision) -> None:
    """Raise Refused with the policy's sentence when the policy does not allow it."""
    if not decision:
        raise Refused(decision.reason)
