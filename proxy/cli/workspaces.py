"""`fairlead workspace …`: list, start, stop, give and delete workspaces."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from proxy.cli.common import HELP, Json, actor, open_directory, publish, require_user
from proxy.cli.output import event_row, print_fields, print_json, print_rows, say, warn, workspace_row
from proxy.errors import FairleadError
from proxy.errors.programs import Refused
from proxy.errors.stores import IdentityError
from proxy.errors.workspaces import WorkspaceError, WorkspaceNotFound

if TYPE_CHECKING:
    from proxy.events.schema import Event
    from proxy.model import Progress, User, WorkspaceName
    from proxy.settings import Settings
    from proxy.upstream.client import Links
    from proxy.workspaces.backend import Backend, Report, Stop, WorkspaceRecord

_T = TypeVar("_T")

workspace_app = typer.Typer(help="Workspaces, running or not.", **HELP)

_COLUMNS = ("name", "user", "blueprint", "phase", "detail", "started_at", "created_at")
_EVENT_COLUMNS = ("at", "kind", "count", "reason", "message")

Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="As `workspace list` prints them.", show_default=False)
]
OneName = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]


@workspace_app.command("list")
def list_workspaces(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="Only those of this user.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """List workspaces and their states."""
    records = _with_backend(context, lambda backend: backend.list())
    rows = [workspace_row(record) for record in records if user in {"", record.user}]
    if not rows:
        require_user(context, user)
    print_rows(rows, as_json, _COLUMNS)


@workspace_app.command("show")
def show_workspace(context: typer.Context, name: OneName, as_json: Json = False) -> None:
    """Show one workspace: where it is, and why it is not running."""
    row = workspace_row(_with_links(context, lambda backend, links: _examined(backend, links, name)))
    if as_json:
        print_json(row)
        return
    print_fields(row, 12)


@workspace_app.command("start")
def start_workspace(context: typer.Context, names: Names) -> None:
    """Start workspaces that exist, and report their progress until they answer."""

    async def act(backend: "Backend") -> None:
        for name in names:
            record = await _found(backend, name)
            user = await owner_of(context.obj.settings(), record)
            async with telling(record.name) as report:
                await _start(context.obj.settings(), backend, user, record, report)

    _with_backend(context, act)


@workspace_app.command("stop")
def stop_workspace(
    context: typer.Context,
    names: Names,
    reason: Annotated[str, typer.Option(help="A sentence that the person reads.")] = "",
) -> None:
    """End workspaces and everything that runs in them; their homes stay."""
    from proxy.workspaces.backend import Stop

    stop = Stop(by=actor(), at=datetime.now(UTC), reason=reason)
    stopped: list[WorkspaceRecord] = []

    async def end(backend: "Backend", name: "WorkspaceName") -> None:
        record = await _found(backend, name)
        await backend.stop(name, stop)
        stopped.append(record)

    try:
        _each(context, names, end)
    finally:
        _tell_stopped(context, stopped, stop)


@workspace_app.command("give")
def give_workspace(
    context: typer.Context,
    name: OneName,
    user: Annotated[str, typer.Argument(metavar="USER", help="Who gets it.", show_default=False)],
) -> None:
    """Hand a workspace and its home over to a user; its programs are ended, and its name stays.

    It may be of a user who was removed, or a home that a deleted workspace left.
    """
    from proxy.workspaces.backend import Stop

    async def act(backend: "Backend") -> None:
        from proxy.model import WorkspaceName

        to = await _user_called(context.obj.settings(), user)
        stop = Stop(by=actor(), at=datetime.now(UTC), reason=f"it was handed over to {to.name}")
        await backend.give(WorkspaceName(name), to, stop)

    _with_backend(context, act)
    warn(f"workspace {name} belongs to {user} now: ssh {user}+pod={name}@HOST")


@workspace_app.command("delete")
def delete_workspace(
    context: typer.Context,
    names: Names,
    purge: Annotated[bool, typer.Option("--purge", help="Delete the homes too, for good.")] = False,
) -> None:
    """Take workspaces away; their homes stay, and the next login finds them, unless they are purged."""
    _each(context, names, lambda backend, name: backend.delete(name, purge=purge))


@workspace_app.command("logs")
def show_logs(
    context: typer.Context,
    name: OneName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(help="How many lines of the past.", min=0)] = 100,
) -> None:
    """Print the log of the shelld of a workspace."""

    async def act(backend: "Backend") -> None:
        from proxy.model import WorkspaceName

        async for line in backend.logs(WorkspaceName(name), follow=follow, tail=tail):
            say(line, flush=follow)

    _with_backend(context, act)


@workspace_app.command("events")
def show_events(context: typer.Context, name: OneName, as_json: Json = False) -> None:
    """Print the recent events of a workspace at its backend."""
    from proxy.model import WorkspaceName

    events = _with_backend(context, lambda backend: backend.events(WorkspaceName(name)))
    print_rows([event_row(event) for event in events], as_json, _EVENT_COLUMNS)


# --------------------------------------------------------------------------- of a user who is removed


_SETTLE_AT_MOST_S = 5.0
"""Longest wait for proxies to see a removal; proxies that check less often get an event by NATS."""


@dataclass(frozen=True, slots=True)
class _Left:
    """The results for the workspaces of a user."""

    ended: "list[WorkspaceRecord]"
    kept: "list[WorkspaceRecord]"
    """Homes of workspaces that were deleted before."""
    failures: list[BaseException]


def leave_workspaces(context: typer.Context, user: "User", *, delete: bool) -> None:
    """Stop or delete the workspaces of a user who was just removed, and print the result."""
    from proxy.workspaces.backend import Stop

    settings: Settings = context.obj.settings()
    stop = Stop(by=actor(), at=datetime.now(UTC), reason=f"user {user.name} was removed")
    settle_s = min(settings.identity.recheck_s, _SETTLE_AT_MOST_S)
    try:
        left = _with_backend(
            context, lambda backend: _leave_all(backend, user, stop, delete=delete, settle_s=settle_s)
        )
    except FairleadError as exc:
        raise WorkspaceError(f"user {user.name} is removed, but the workspaces were left: {exc}") from exc
    lines = [
        f"workspace {record.name} is "
        + ("deleted; its home stays until it is purged" if delete else "stopped; it stays with its home")
        for record in left.ended
    ]
    lines += [f"the home of workspace {one.name}, which was deleted before, stays" for one in left.kept]
    if lines:
        lines.append(
            "a later user of that name does not get it; to hand it over: fairlead workspace give NAME USER"
        )
    for line in (*lines, *(f"fairlead: {failure}" for failure in left.failures)):
        warn(line)
    _tell_stopped(context, left.ended, stop)
    if left.failures:
        raise typer.Exit(1)


async def _leave_all(
    backend: "Backend", user: "User", stop: "Stop", *, delete: bool, settle_s: float
) -> _Left:
    """End every workspace of a user, `settle_s` after the user was removed if one runs.

    Until proxies have ended the user's connections, one of those could start a workspace again.
    """
    from proxy.workspaces.backend import WorkspacePhase
    from proxy.workspaces.ownership import title_to

    kept = [record for record in await backend.kept() if title_to(record, user)]
    for record in kept:
        await _note_owner(backend, record, user, stop)
    mine = [record for record in await backend.list() if title_to(record, user)]
    if any(record.phase is not WorkspacePhase.STOPPED for record in mine):
        await asyncio.sleep(settle_s)
    ends = (_leave(backend, record, user, stop, delete=delete) for record in mine)
    results = await asyncio.gather(*ends, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    ended = [record for record, result in zip(mine, results, strict=True) if result is None]
    return _Left(ended, kept, failures)


async def _leave(
    backend: "Backend", record: "WorkspaceRecord", user: "User", stop: "Stop", *, delete: bool
) -> None:
    await _note_owner(backend, record, user, stop)
    if delete:
        await backend.delete(record.name, purge=False)
    else:
        await backend.stop(record.name, stop)


async def _note_owner(backend: "Backend", record: "WorkspaceRecord", user: "User", stop: "Stop") -> None:
    """Record the owner of a workspace of an older release while it is known.

    Without a home there is no need.
    """
    if not record.owner:
        with suppress(Refused):
            await backend.give(record.name, user, stop)


def _tell_stopped(context: typer.Context, records: "Sequence[WorkspaceRecord]", stop: "Stop") -> None:
    """Publish that workspaces were stopped, if events are published at all."""
    from proxy.workspaces.start_events import publish_stopped

    events: list[Event] = []
    for record in records:
        publish_stopped(events.append, record, stop)
    settings: Settings = context.obj.settings()
    if events and settings.events.urls:
        asyncio.run(publish(settings, events))


# ------------------------------------------------------------------------------------------ helpers


async def _found(backend: "Backend", name: str) -> "WorkspaceRecord":
    record = await backend.find(name)
    if record is None:
        raise WorkspaceNotFound(f"there is no workspace {name!r}")
    return record


async def owner_of(settings: "Settings", record: "WorkspaceRecord") -> "User":
    """Return the owner of a workspace. Raises: IdentityError for a user who was removed."""
    from proxy.workspaces.ownership import Title, title_to

    user = await _find_user(settings, record.user)
    if user is None or title_to(record, user) is Title.NONE:
        raise IdentityError(
            f"{record.name} belongs to a user {record.user} who was removed; "
            f"to hand it over: fairlead workspace give {record.name} USER"
        )
    return user


async def _user_called(settings: "Settings", name: str) -> "User":
    from proxy.errors.stores import UserNotFound

    user = await _find_user(settings, name)
    if user is None:
        raise UserNotFound(f"there is no user {name}")
    return user


async def _find_user(settings: "Settings", name: str) -> "User | None":
    async with open_directory(settings) as directory:
        return await directory.find(name)


async def _start(
    settings: "Settings", backend: "Backend", user: "User", record: "WorkspaceRecord", report: "Report"
) -> None:
    """Start a workspace as the owner's next login would."""
    from proxy.process.assemble.catalog import open_catalog, open_repositories
    from proxy.userstring import UserString
    from proxy.workspaces.provisioner import Workspaces

    async with open_catalog(settings) as catalog, open_repositories(settings) as repositories:
        workspaces = Workspaces(catalog, backend, settings.blueprint, repositories=repositories)
        await workspaces.start(user, UserString(user.name, pod=record.name), report)


@asynccontextmanager
async def telling(name: str) -> "AsyncIterator[Report]":
    """Show progress on stderr: one redrawn line on a terminal, plain lines elsewhere."""
    begun = time.monotonic()

    def words(progress: "Progress") -> str:
        return f"{progress.text} ({time.monotonic() - begun:.0f} s)"

    if not sys.stderr.isatty():
        yield lambda progress: warn(f"fairlead: {words(progress)}")
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        line = bar.add_task(f"starting {name}", total=None)
        yield lambda progress: bar.update(line, description=progress.text)


def _each(
    context: typer.Context,
    names: Sequence[str],
    change: "Callable[[Backend, WorkspaceName], Awaitable[None]]",
) -> None:
    """Apply `change` to every name; the failure of one is printed after the others are done."""
    from proxy.model import WorkspaceName

    async def act(backend: "Backend") -> list[Any]:
        changes = (change(backend, WorkspaceName(name)) for name in names)
        return await asyncio.gather(*changes, return_exceptions=True)

    failures = [result for result in _with_backend(context, act) if isinstance(result, BaseException)]
    for failure in failures[1:]:
        warn(f"fairlead: {failure}")
    if failures:
        raise failures[0]


async def _examined(backend: "Backend", links: "Links", name: str) -> "WorkspaceRecord":
    """Find a workspace, and ask it for the results of its init scripts where it runs."""
    from proxy.workspaces.reported import as_reported

    return await as_reported(await _found(backend, name), backend, links)


def _with_links(context: typer.Context, act: "Callable[[Backend, Links], Awaitable[_T]]") -> _T:
    """Do something with the backend and with links to its workspaces."""
    from proxy import log
    from proxy.process.assemble.backend import open_backend
    from proxy.process.assemble.trust import open_trust, uses_tcp
    from proxy.upstream.client import Links

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        async with open_trust(settings) as trust:
            if uses_tcp(settings):
                await trust.open()
            links = Links(settings.upstream, settings.proxy_id, trust if uses_tcp(settings) else None)
            async with open_backend(settings, trust) as backend:
                try:
                    return await act(backend, links)
                finally:
                    await links.close()

    return asyncio.run(main())


def _with_backend(context: typer.Context, act: "Callable[[Backend], Awaitable[_T]]") -> _T:
    from proxy import log
    from proxy.process.assemble.backend import open_backend

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        async with open_backend(settings) as backend:
            return await act(backend)

    return asyncio.run(main())
