"""The road of a program: workspace, link, stream; knows neither SSH nor gRPC. Logins are `logins`'."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import NamedTuple, Protocol, TypeVar

import structlog

from proxy import metrics
from proxy.access import policy
from proxy.access.lobby import Lobby
from proxy.blueprints.schema import Blueprint
from proxy.errors import FairleadError
from proxy.errors.blueprints import BlueprintNotFound
from proxy.errors.programs import Refused
from proxy.errors.upstream import Draining, Unreachable
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import (
    ALLOWED,
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

_DRAIN_POLL_S = 0.25

_DENIALS = (Refused, BlueprintNotFound, WorkspaceNotFound)

_T = TypeVar("_T")
_log = structlog.get_logger("gateway")


def _silent(_: object) -> None:
    """Report to nobody: a forward has no place to show progress."""


@contextmanager
def _counted(spec: ProgramSpec) -> Iterator[None]:
    """Count a program by how its start went."""
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
    """A program that was started, and what goes with it."""

    program: Program
    link: Link
    recorder: Recorder | None
    """Of what the person sees and types; None: it is not recorded."""
    splash: str
    """What the blueprint wants shown before the first prompt."""


class ForwardRecord(Protocol):
    """The record of a forward, as far as its recording needs it."""

    @property
    def id(self) -> str: ...
    @property
    def traffic(self) -> Traffic: ...


class Gateway:
    """One per process; every connection shares it."""

    def __init__(
        self,
        workspaces: Workspaces,
        links: Links,
        recordings: Recordings,
        control: Control,
        *,
        drain_s: float = 0,
    ) -> None:
        """`drain_s` is how long a workspace that is being stopped is waited for."""
        self._workspaces = workspaces
        self._links = links
        self._recordings = recordings
        self._control = control
        self._drain_s = drain_s
        self._reserved = Reserved()
        self.lobby = Lobby()
        """Answers what is asked of no workspace."""

    def reserve(self, reserved: Reserved) -> None:
        """Let no forward lead to what is the proxy's own, from now on."""
        self._reserved = reserved

    async def control(self, visit: Visit, what: str, report: Report) -> str:
        """Do one of policy.CONTROLS, which enter no workspace; gives what the person is told.

        Raises: Refused, BlueprintError, WorkspaceError.
        """
        _require(policy.may_control(visit, what))
        return await self._control.run(visit, what, report)

    async def place(self, visit: Visit) -> tuple[str, str]:
        """Say where a connection leads: workspace and blueprint, whether or not that runs.

        Raises: Refused, BlueprintError, WorkspaceError.
        """
        request = await self._workspaces.request_of(visit)
        return request.name, request.blueprint.name

    async def may_remain(self, was: Visit, now: Visit) -> Decision:
        """Say whether a connection made as `was` may go on when its user's groups are those of `now`.

        What was not within reach by the groups of before, they did not give; that goes on.

        Raises: FairleadError when it cannot be found out at the moment.
        """
        try:
            blueprint = await self._workspaces.entrance_of(was)
        except _DENIALS:
            return ALLOWED
        except FairleadError:  # what the old groups gave is not known; what the new ones give is asked below
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
        """Start the workspace where needed, then the program; it is ended on leaving.

        `spec` is asked again when the workspace is there: a terminal may have another size by then.

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
                program, link = await self._on_link(
                    stack, request, report, lambda link: link.run(spec(), visit, program_id)
                )
            async with program:
                yield Running(program, link, recorder, request.blueprint.splash)

    @asynccontextmanager
    async def dial(
        self, visit: Visit, target: Target, record: ForwardRecord
    ) -> AsyncIterator[tuple[Connection, Link]]:
        """Connect from inside the workspace; broken off on leaving unless both directions ended.

        Raises: Refused, BlueprintError, WorkspaceError, OpenFailed, UpstreamError;
            RecordingUnavailable and, while inside or on leaving, RecordingLost when the connection may not
            be carried unrecorded.
        """
        _require(policy.may_dial(visit, target))
        async with self._dial(visit, target, record) as dialled:
            yield dialled

    @asynccontextmanager
    async def open_app(
        self, visit: Visit, target: Target, share: str, record: ForwardRecord
    ) -> AsyncIterator[tuple[Connection, Link]]:
        """Connect to an app that the blueprint declares at `target` and shares as `share` says.

        Raises: as `dial`.
        """
        _require(policy.may_open(visit, share))
        async with self._dial(visit, target, record) as dialled:
            yield dialled

    @asynccontextmanager
    async def _dial(
        self, visit: Visit, target: Target, record: ForwardRecord
    ) -> AsyncIterator[tuple[Connection, Link]]:
        async with AsyncExitStack() as stack:
            request = await self._workspaces.request_of(visit)
            recording = self._recorded(visit, request.blueprint, str(target), record)
            await stack.enter_async_context(recording)
            connection, link = await self._on_link(
                stack, request, _silent, lambda link: link.dial(target, visit.account, self._reserved)
            )
            async with connection:
                yield connection, link

    @asynccontextmanager
    async def listen(
        self, visit: Visit, bind: Bind, listener_id: str, report: Report = _silent
    ) -> AsyncIterator[tuple[Listener, Link]]:
        """Listen inside the workspace until left.

        Raises: Refused, BlueprintError, WorkspaceError, OpenFailed, UpstreamError.
        """
        _require(policy.may_listen(visit, bind))
        async with AsyncExitStack() as stack:
            request = await self._workspaces.request_of(visit)
            listener, link = await self._on_link(
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
        """Claim a connection that a listener of this visit announced on `link`, which stays while it lasts.

        Raises: Refused, OpenFailed, UpstreamError.
        """
        _require(policy.may_accept(visit))
        async with self._links.hold(link), await link.accept(connection_id, visit.account) as connection:
            yield connection, link

    @asynccontextmanager
    async def accept_recorded(
        self, visit: Visit, link: Link, connection_id: str, target: str, record: ForwardRecord
    ) -> AsyncIterator[tuple[Connection, Link]]:
        """Claim a connection, and record it when a rule says so; `target` is what was listened at.

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

    async def _on_link(
        self,
        stack: AsyncExitStack,
        request: WorkspaceRequest,
        report: Report,
        open_: Callable[[Link], Awaitable[_T]],
    ) -> tuple[_T, Link]:
        """Open something on a link, which `stack` then holds.

        A workspace that is being stopped takes nothing: it is waited for, and started anew or held.
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
        """Hold a link to the workspace, which is started where needed.

        A workspace that ended between being found and being reached is looked for once more; nothing
        was asked of it yet, so nothing happens twice.
        """
        async with AsyncExitStack() as stack:
            try:
                link = await self._reach(stack, request, report)
            except Unreachable as exc:
                _log.info("workspace gone, trying again", user=request.user.name, reason=str(exc))
                link = await self._reach(stack, request, report)
            yield link

    async def _reach(self, stack: AsyncExitStack, request: WorkspaceRequest, report: Report) -> Link:
        endpoint = await self._workspaces.ensure(request, report)
        return await stack.enter_async_context(self._links.use(endpoint))


def _require(decision: Decision) -> None:
    """Raises: Refused with the sentence of a policy that does not allow it."""
    if not decision:
        raise Refused(decision.reason)
