"""The road of a program: workspace, link, stream; knows neither SSH nor gRPC. Logins are `logins`'."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import TypeVar

import structlog

from proxy import metrics, policy
from proxy.errors import Draining, FairleadError, Refused, Unreachable
from proxy.model import Bind, Phase, Principal, ProgramSpec, Progress, Target
from proxy.recording.recorder import Recorder, Traffic
from proxy.recording.service import Recordings
from proxy.upstream.client import Link, Links
from proxy.upstream.streams import Connection, Listener, Program
from proxy.workspaces.backend import Report
from proxy.workspaces.control import Control
from proxy.workspaces.provisioner import Workspaces

_DRAIN_POLL_S = 0.25

_T = TypeVar("_T")
_log = structlog.get_logger("gateway")


def _silent(_: object) -> None:
    """Report to nobody: a forward has no place to show progress."""


@contextmanager
def _counted(spec: ProgramSpec, *, success: str) -> Iterator[None]:
    """Count a program by how its start went; a step that only fails or goes on has no success to count."""
    outcome = "cancelled"
    try:
        yield
        outcome = success
    except FairleadError as exc:
        outcome = exc.code
        raise
    finally:
        if outcome:
            metrics.PROGRAMS.labels(type(spec.kind).__name__.lower(), outcome).inc()


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

    async def control(self, principal: Principal, what: str, report: Report) -> str:
        """Do one of policy.CONTROLS, which enter no workspace; gives what the person is told.

        Raises: Refused, BlueprintError, WorkspaceError.
        """
        return await self._control.run(principal, what, report)

    async def place(self, principal: Principal) -> tuple[str, str]:
        """Say where a connection leads: workspace and blueprint, whether or not that runs.

        Raises: Refused, BlueprintError, WorkspaceError.
        """
        request = await self._workspaces.request(principal.user, principal.attempt.user_string)
        return request.name, request.blueprint.name

    async def splash(self, principal: Principal) -> str:
        """Give what the blueprint wants shown before the first prompt.

        Raises: BlueprintError, WorkspaceError.
        """
        return (await self._workspaces.blueprint(principal)).splash

    @asynccontextmanager
    async def program(
        self, principal: Principal, spec: ProgramSpec, program_id: str, report: Report
    ) -> AsyncIterator[tuple[Program, Link]]:
        """Start the workspace where needed, then the program; it is ended on leaving.

        Raises: Refused, BlueprintError, WorkspaceError, ProgramNotStarted, UpstreamError.
        """
        async with AsyncExitStack() as stack:
            with _counted(spec, success="started"):
                if not (decision := policy.may_start(principal, spec.kind)):
                    raise Refused(decision.reason)
                program, link = await self._on_link(
                    stack, principal, report, lambda link: link.run(spec, principal, program_id)
                )
            async with program:
                yield program, link

    @asynccontextmanager
    async def recorded(
        self, principal: Principal, spec: ProgramSpec, program_id: str
    ) -> AsyncIterator[Recorder | None]:
        """Record what runs inside, when a rule or the blueprint says so; None when nothing does.

        Raises: BlueprintError, WorkspaceError; RecordingUnavailable and, on leaving, RecordingLost when the
            program may not run unrecorded.
        """
        with _counted(spec, success=""):
            blueprint = await self._workspaces.blueprint(principal)
            recorder = await self._recordings.program(principal, spec, blueprint, program_id)
        async with nullcontext() if recorder is None else recorder:
            yield recorder

    @asynccontextmanager
    async def recorded_forward(
        self, principal: Principal, target: str, forward_id: str, traffic: Traffic
    ) -> AsyncIterator[Recorder | None]:
        """Record that a connection was forwarded, in the same way. Raises: as `recorded`."""
        blueprint = await self._workspaces.blueprint(principal)
        recorder = await self._recordings.forward(principal, target, blueprint, forward_id, traffic)
        async with nullcontext() if recorder is None else recorder:
            yield recorder

    @asynccontextmanager
    async def dial(self, principal: Principal, target: Target) -> AsyncIterator[tuple[Connection, Link]]:
        """Connect from inside the workspace; broken off on leaving unless both directions ended.

        Raises: Refused, BlueprintError, WorkspaceError, OpenFailed, UpstreamError.
        """
        account = principal.attempt.user_string.account
        async with AsyncExitStack() as stack:
            connection, link = await self._on_link(
                stack, principal, _silent, lambda link: link.dial(target, account)
            )
            async with connection:
                yield connection, link

    @asynccontextmanager
    async def listen(
        self, principal: Principal, bind: Bind, listener_id: str, report: Report = _silent
    ) -> AsyncIterator[tuple[Listener, Link]]:
        """Listen inside the workspace until left.

        Raises: Refused, BlueprintError, WorkspaceError, OpenFailed, UpstreamError.
        """
        account = principal.attempt.user_string.account
        async with AsyncExitStack() as stack:
            listener, link = await self._on_link(
                stack, principal, report, lambda link: link.listen(bind, listener_id, account)
            )
            try:
                yield listener, link
            finally:
                listener.close()

    @asynccontextmanager
    async def accept(self, principal: Principal, link: Link, connection_id: str) -> AsyncIterator[Connection]:
        """Claim a connection that a listener of `principal` announced on `link`, which stays while it lasts.

        Raises: OpenFailed, UpstreamError.
        """
        account = principal.attempt.user_string.account
        async with self._links.hold(link), await link.accept(connection_id, account) as connection:
            yield connection

    @asynccontextmanager
    async def link(self, principal: Principal, report: Report) -> AsyncIterator[Link]:
        """Hold a link to the principal's workspace, which is started where needed.

        A workspace that ended between being found and being reached is looked for once more; nothing
        was asked of it yet, so nothing happens twice.
        """
        async with AsyncExitStack() as stack:
            try:
                link = await self._reach(stack, principal, report)
            except Unreachable as exc:
                _log.info("workspace gone, trying again", user=principal.user.name, reason=str(exc))
                link = await self._reach(stack, principal, report)
            yield link

    async def _on_link(
        self,
        stack: AsyncExitStack,
        principal: Principal,
        report: Report,
        open_: Callable[[Link], Awaitable[_T]],
    ) -> tuple[_T, Link]:
        """Open something on a link, which `stack` then holds.

        A workspace that is being stopped takes nothing: it is waited for, and started anew or held.
        """
        give_up_at = asyncio.get_running_loop().time() + self._drain_s
        while True:
            async with AsyncExitStack() as attempt:
                link = await attempt.enter_async_context(self.link(principal, report))
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

    async def _reach(self, stack: AsyncExitStack, principal: Principal, report: Report) -> Link:
        endpoint = await self._workspaces.ensure(principal, report)
        return await stack.enter_async_context(self._links.use(endpoint))
