"""The road to apps through the gateway: one dial from inside the workspace for each connection with an app.

The only module of the web half that knows the gateway and its Visit.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from typing import Protocol, Self
from weakref import WeakValueDictionary

import structlog

from proxy.access import policy
from proxy.access.apps import until_ready
from proxy.access.gateway import Gateway
from proxy.aio import TaskOwner
from proxy.errors import FairleadError
from proxy.errors.blueprints import BlueprintNotFound
from proxy.errors.programs import OpenFailed, OpenFailedKind, Refused
from proxy.errors.upstream import UpstreamError
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.identity.directory import Directory
from proxy.model import (
    VISITOR,
    Anonymous,
    AppState,
    AppTarget,
    ConnId,
    Peer,
    Principal,
    Target,
    User,
    Visit,
)
from proxy.upstream.client import Link
from proxy.upstream.streams import AppStates
from proxy.userstring import UserString
from proxy.web.road import Address, OwnApp, Receiver, Wire
from proxy.web.stream_wire import Stream, StreamWire
from proxy.workspaces.backend import Backend, Report, WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.ownership import own_record

_log = structlog.get_logger("web")


class Workspaces(Protocol):
    """The rules that turn a user string into a request for a workspace."""

    async def request(self, user: User, value: UserString) -> WorkspaceRequest:
        """Return the request for the workspace that `value` names. Raises: FairleadError."""


class GatewayRoad:
    """One per process."""

    def __init__(
        self,
        gateway: Gateway,
        workspaces: Workspaces,
        backend: Backend,
        directory: Directory,
        *,
        dial_s: float,
        buffer_bytes: int,
    ) -> None:
        self._gateway = gateway
        self._workspaces = workspaces
        self._backend = backend
        self._directory = directory
        self._dial_s = dial_s
        self._buffer_bytes = buffer_bytes
        self._links: WeakValueDictionary[tuple[str, UserString], Frames] = WeakValueDictionary()
        """Of the workspaces that connections lead to."""
        self._tasks = TaskOwner("web-road")

    def __len__(self) -> int:
        """Count connections with apps, tasks of each included."""
        return len(self._tasks)

    async def close(self) -> None:
        """Break every connection off."""
        await self._tasks.close()

    async def open(self, address: Address, receiver: Receiver) -> Wire:
        """Connect to an app of a running workspace; only `touch` reports activity there.

        Raises: FairleadError, WorkspaceNotFound where the workspace does not run, AppNotReady where an app
            that shelld starts does not.
        """
        opened: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
        task = self._tasks.spawn(self._carry(address, receiver, opened), name=str(address.target))
        try:
            async with asyncio.timeout(self._dial_s):
                return await opened
        except TimeoutError:
            task.cancel()
            raise OpenFailed(OpenFailedKind.TIMED_OUT, "no connection in time") from None
        except BaseException:
            task.cancel()
            raise

    async def _carry(self, address: Address, receiver: Receiver, opened: "asyncio.Future[Wire]") -> None:
        """Dial, then carry bytes until both directions have ended or the wire is aborted."""
        wire: StreamWire | None = None
        failure: Exception | None = None
        try:
            visit = await self._visit(address)
            assert not isinstance(address.target, OwnApp)  # those are found on their own road
            record = _Record(f"{visit.principal.client.conn_id}-w{_number()}")
            dialling: AbstractAsyncContextManager[tuple[Stream, Frames]] = self._gateway.open_app(
                visit, address.target, address.share, record, demand=False, quiet=True
            )
            async with dialling as (stream, link):
                self._links[address.owner, address.workspace] = link
                task = asyncio.current_task()
                assert task is not None
                wire = StreamWire(stream, receiver, link.max_frame_bytes, self._buffer_bytes, task.cancel)
                record.wire = wire
                if opened.done():
                    return
                opened.set_result(wire)
                await asyncio.sleep(0)  # the opener has the wire before its first byte comes
                await wire.carry()
        except FairleadError as exc:
            failure = _as_said_to(address, exc)
            if not opened.done():
                opened.set_exception(failure)
        finally:
            opened.cancel()
            if wire is not None:
                wire.is_over = True
                receiver.connection_lost(failure)

    async def _visit(self, address: Address) -> Visit:
        """Return the visit of a connection: its principal, and the owner of the workspace.

        Raises: WorkspaceNotFound for an owner who is not there, may not log in, or is a later user of the
            name; StoreError.
        """
        user = await self._directory.find(address.owner)
        is_other = user is not None and address.owner_id not in ("", user.id)
        if user is None or is_other or not policy.may_login(user, datetime.now(UTC)):
            raise WorkspaceNotFound(f"no user {address.owner} who may log in", user_message=_NOT_THERE)
        peer = Peer(ConnId(f"web-{_number()}"), "", 0, "", 0)
        principal = address.principal or Principal(peer, VISITOR, Anonymous())
        return Visit(principal, user, address.workspace)

    async def look(self, address: Address) -> WorkspaceRecord | None:
        """Return the record of an app's workspace; None before its first start. Raises: FairleadError."""
        try:
            visit = await self._visit(address)
            request = await self._workspaces.request(visit.owner, visit.address)
            found = await self._backend.find(request.name)
            return None if found is None else own_record(found, request.name, visit.owner)
        except FairleadError as exc:
            raise _as_said_to(address, exc) from exc

    async def start(
        self, address: Address, report: Report, heard: Callable[[AppState], None], *, is_asked: bool
    ) -> None:
        """Start the workspace of an app, then the app where shelld does that, and wait until it answers.

        Starts under way are joined. `is_asked`: by a button, so that an app is started that was stopped or
        given up; `heard` gets its states. A cancelled caller leaves a start to itself.

        Raises: FairleadError.
        """
        visit = await self._visit(address)
        decision = policy.may_open(visit, address.share, datetime.now(UTC))
        if not decision or not address.starts:
            raise WorkspaceNotFound(decision.reason or "visitors do not start it", user_message=_NOT_THERE)
        try:
            if policy.may_use_app_controls(visit):
                # Other users respect a stop of the owner, for as long as any connection does.
                await self._gateway.control(visit, "workspace-start", report)
            await self._start_app(visit, address.target, report, heard, is_automatic=not is_asked)
        except FairleadError as exc:
            raise _as_said_to(address, exc) from exc

    async def _start_app(
        self,
        visit: Visit,
        target: Target | OwnApp,
        report: Report,
        heard: Callable[[AppState], None],
        *,
        is_automatic: bool,
    ) -> None:
        """Start the app, where shelld does that, on a link to the workspace. Raises: FairleadError."""
        request = await self._workspaces.request(visit.owner, visit.address)

        async def ensure(link: Link) -> AppStates | None:
            app = request.blueprint.apps.get(target.slug) if isinstance(target, AppTarget) else None
            if app is None or not app.start or not policy.may_demand_app(visit, app.wake):
                return None
            if app.when == "never" and is_automatic:
                return None
            assert isinstance(target, AppTarget)
            return await link.ensure_app(app.spec(target.slug), automatic=is_automatic)

        async with AsyncExitStack() as stack:
            states, _ = await self._gateway.on_link(stack, request, report, ensure)
            if states is not None:
                await until_ready(states, heard)

    def touch(self, address: Address, why: str) -> None:
        """Report an act of a user to a workspace that a connection leads to; `why` is a sentence."""
        link = self._links.get((address.owner, address.workspace))
        if link is not None:
            self._tasks.spawn(_touch(link, why), name="touch")


async def _touch(link: "Frames", why: str) -> None:
    try:
        await link.touch(why)
    except UpstreamError as exc:
        _log.debug("activity not reported", reason=str(exc))


def _as_said_to(address: Address, exc: FairleadError) -> FairleadError:
    """Return the failure as the user who asks may know it.

    Texts of refusals name the owner's blueprints and workspaces, so other users get one sentence for all.
    """
    is_owner = address.principal is not None and address.principal.user.name == address.owner
    is_denial = isinstance(exc, WorkspaceNotFound) or (
        not is_owner and isinstance(exc, Refused | BlueprintNotFound)
    )
    return WorkspaceNotFound(str(exc), user_message=_NOT_THERE) if is_denial else exc


_NOT_THERE = "There is no such app at the moment"
_numbers = iter(range(1, 2**62))


def _number() -> int:
    return next(_numbers)


class Frames(Protocol):
    """The link that a connection is on."""

    max_frame_bytes: int

    async def touch(self, why: str) -> None:
        """Report activity. Raises: UpstreamError."""


class _Record:
    """The record of one connection: its id, and its traffic."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.wire: StreamWire | None = None

    @property
    def traffic(self) -> Self:
        return self

    @property
    def from_client(self) -> int:
        return self.wire.sent if self.wire is not None else 0

    @property
    def to_client(self) -> int:
        return self.wire.received if self.wire is not None else 0
