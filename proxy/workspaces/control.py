"""Controls of a workspace that its user runs without entering it: start, stop, status."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from proxy.errors import FairleadError
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.model import Visit
from proxy.settings.workspace import WorkspaceSettings
from proxy.upstream.client import Links
from proxy.workspaces.backend import Backend, Report, Stop, WorkspacePhase, WorkspaceRecord, WorkspaceRequest
from proxy.workspaces.lifetimes import bounds_of, stops_when_idle_at
from proxy.workspaces.ownership import own_record
from proxy.workspaces.provisioner import Workspaces
from proxy.workspaces.reported import as_reported
from proxy.workspaces.stop_holds import ago, duration, held_for, start_command, who_stopped

Stopped = Callable[[WorkspaceRecord, Stop], None]
"""A callback for every workspace that was stopped here."""


class Control:
    """The controls; one for each process."""

    def __init__(
        self,
        workspaces: Workspaces,
        backend: Backend,
        links: Links,
        settings: WorkspaceSettings,
        stopped: Stopped,
    ) -> None:
        self._workspaces = workspaces
        self._backend = backend
        self._links = links
        self._settings = settings
        self._stopped = stopped

    async def run(self, visit: Visit, what: str, report: Report) -> str:
        """Run one of the controls; return text for the user, lines without a final line break.

        Raises: Refused, BlueprintError, WorkspaceError.
        """
        request = await self._workspaces.request(visit.owner, visit.address)
        match what:
            case "workspace-start":
                await self._workspaces.start(visit.owner, visit.address, report)
                return f"workspace {request.name} is running"
            case "workspace-stop":
                return await self._stop(request)
            case _:
                return await self._status(request)

    async def _stop(self, request: WorkspaceRequest) -> str:
        record = await self._own(request)
        if record.phase is WorkspacePhase.STOPPED:
            return f"workspace {request.name} is stopped already\n{self._next_start(request, record.stop)}"
        stop = Stop(request.user.name, datetime.now(UTC))
        await self.stop(record, stop)
        return f"workspace {request.name} is stopped\n{self._next_start(request, stop)}"

    async def stop(self, record: WorkspaceRecord, stop: Stop) -> None:
        """Stop any workspace, and show to those who are in it by whom and why. Raises: WorkspaceError."""
        why = f": {stop.reason}" if stop.reason else ""
        await self._announce(record, f"workspace {record.name} is being stopped by {stop.by}{why}")
        await self._backend.stop(record.name, stop)
        self._stopped(record, stop)

    def _next_start(self, request: WorkspaceRequest, stop: Stop | None) -> str:
        """Describe the next start of a stopped workspace."""
        held = timedelta()
        if stop is not None:
            hold_s = self._workspaces.hold_s(request.blueprint)
            held = held_for(stop.by, stop.at, datetime.now(UTC), hold_s)
        if not held:
            return "starts     with the next connection"
        command = start_command(request.origin)
        return f"starts     with {command}; in {duration(held)} with any connection"

    async def _announce(self, record: WorkspaceRecord, text: str) -> None:
        """Show the stop to all users in the workspace, and stop new work; if that fails, the stop goes on."""
        try:
            if endpoint := await self._backend.locate(record.name):
                async with self._links.use(endpoint) as link:
                    await link.drain(if_idle_s=0, reason=text, for_s=self._settings.drain_s)
        except FairleadError:
            return

    async def _status(self, request: WorkspaceRequest) -> str:
        record = await as_reported(await self._own(request), self._backend, self._links)
        lines = [
            f"workspace  {record.name}",
            f"blueprint  {record.blueprint}",
            f"phase      {record.phase.value}",
        ]
        if record.detail:
            lines.append(f"detail     {record.detail}")
        lines += self._activity(record, request)
        if record.stop is not None:
            who = who_stopped(record.stop, request.user.name)
            lines.append(f"stopped    by {who}, {ago(datetime.now(UTC) - record.stop.at)}")
        if record.phase is WorkspacePhase.STOPPED:
            lines.append(self._next_start(request, record.stop))
        return "\n".join(lines)

    def _activity(self, record: WorkspaceRecord, request: WorkspaceRequest) -> list[str]:
        """Describe the last activity of a running workspace, and the stop that follows from it."""
        if record.active_at is None:
            return []
        now = datetime.now(UTC)
        stops_at = stops_when_idle_at(record, bounds_of(request.blueprint, self._settings))
        lines = [f"active     {ago(now - record.active_at)}" + (f": {record.why}" if record.why else "")]
        if stops_at is not None:
            lines.append(f"stops      in {duration(max(stops_at - now, timedelta()))} unless it is used")
        return lines

    async def _own(self, request: WorkspaceRequest) -> WorkspaceRecord:
        found = await self._backend.find(request.name)
        if found is None:
            raise WorkspaceNotFound(f"there is no workspace {request.name}; the first connection makes it")
        return own_record(found, request.name, request.user)
