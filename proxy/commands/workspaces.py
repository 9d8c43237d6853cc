"""`fairlead workspace …`: what runs, why, and its beginning and end."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from proxy.commands.common import HELP, Json, actor, publish
from proxy.errors.stores import IdentityError
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.output import event_row, print_json, print_rows, workspace_row

if TYPE_CHECKING:
    from proxy.events.schema import Event
    from proxy.model import Progress, User, WorkspaceName
    from proxy.settings import Settings
    from proxy.workspaces.backend import Backend, Report, WorkspaceRecord

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
    """List workspaces and what they are doing."""
    records = _with_backend(context, lambda backend: backend.list())
    print_rows([workspace_row(record) for record in records if user in {"", record.user}], as_json, _COLUMNS)


@workspace_app.command("show")
def show_workspace(context: typer.Context, name: OneName, as_json: Json = False) -> None:
    """Show one workspace: where it is, and why it is not running."""
    row = workspace_row(_with_backend(context, lambda backend: _found(backend, name)))
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        if value:
            print(f"{key.removesuffix('_at').replace('_', ' '):12}{value}")


@workspace_app.command("start")
def start_workspace(context: typer.Context, names: Names) -> None:
    """Start workspaces that exist, and tell what is happening until they answer."""

    async def act(backend: "Backend") -> None:
        for name in names:
            record = await _found(backend, name)
            user = await _user_of(context.obj.settings(), record)
            async with _telling(record.name) as report:
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
    from proxy.workspaces.told import tell_stopped

    stop = Stop(by=actor(), at=datetime.now(UTC), reason=reason)
    events: list[Event] = []

    async def end(backend: "Backend", name: "WorkspaceName") -> None:
        record = await _found(backend, name)
        await backend.stop(name, stop)
        tell_stopped(events.append, record, stop)

    try:
        _each(context, names, end)
    finally:
        settings: Settings = context.obj.settings()
        if events and settings.events.urls:
            asyncio.run(publish(settings, events))


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
    """Print what the shelld of a workspace logged."""

    async def act(backend: "Backend") -> None:
        from proxy.model import WorkspaceName

        async for line in backend.logs(WorkspaceName(name), follow=follow, tail=tail):
            print(line, flush=follow)

    _with_backend(context, act)


@workspace_app.command("events")
def show_events(context: typer.Context, name: OneName, as_json: Json = False) -> None:
    """Print what the backend noted about a workspace lately."""
    from proxy.model import WorkspaceName

    events = _with_backend(context, lambda backend: backend.events(WorkspaceName(name)))
    print_rows([event_row(event) for event in events], as_json, _EVENT_COLUMNS)


# ------------------------------------------------------------------------------------------ helpers


async def _found(backend: "Backend", name: str) -> "WorkspaceRecord":
    record = await backend.find(name)
    if record is None:
        raise WorkspaceNotFound(f"there is no workspace {name!r}")
    return record


async def _user_of(settings: "Settings", record: "WorkspaceRecord") -> "User":
    from proxy.identity.store import SqlDirectory

    directory = await SqlDirectory.open(
        settings.database_url,
        query_timeout_s=settings.identity.query_timeout_s,
        uids=settings.identity.uids,
        groups=settings.groups,
    )
    try:
        user = await directory.find(record.user)
    finally:
        await directory.close()
    if user is None:
        raise IdentityError(f"{record.name} belongs to {record.user}, who is no user any more")
    return user


async def _start(
    settings: "Settings", backend: "Backend", user: "User", record: "WorkspaceRecord", report: "Report"
) -> None:
    """Do what the owner's next login would do."""
    from proxy.userstring import parse
    from proxy.workspaces.provisioner import Workspaces
    from proxy.workspaces.sources import open_catalog, open_repositories

    # A record of an older release does not say what was typed; the named form finds it too.
    typed = parse(record.user_string or f"{record.user}+pod={record.name}")
    async with open_catalog(settings) as catalog, open_repositories(settings) as repositories:
        workspaces = Workspaces(catalog, backend, settings.blueprint, repositories=repositories)
        await workspaces.start(user, typed, report)


@asynccontextmanager
async def _telling(name: str) -> "AsyncIterator[Report]":
    """Show progress on stderr: one redrawn line on a terminal, plain lines elsewhere."""
    begun = time.monotonic()

    def words(progress: "Progress") -> str:
        return f"{progress.text} ({time.monotonic() - begun:.0f} s)"

    if not sys.stderr.isatty():
        yield lambda progress: print(f"fairlead: {words(progress)}", file=sys.stderr)
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
    """Do the same to every name; what fails for one is told after the others are done."""
    from proxy.model import WorkspaceName

    async def act(backend: "Backend") -> list[Any]:
        changes = (change(backend, WorkspaceName(name)) for name in names)
        return await asyncio.gather(*changes, return_exceptions=True)

    failures = [result for result in _with_backend(context, act) if isinstance(result, BaseException)]
    for failure in failures[1:]:
        print(f"fairlead: {failure}", file=sys.stderr)
    if failures:
        raise failures[0]


def _with_backend(context: typer.Context, act: "Callable[[Backend], Awaitable[_T]]") -> _T:
    from proxy import log
    from proxy.workspaces.opening import open_backend

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        async with open_backend(settings) as backend:
            return await act(backend)

    return asyncio.run(main())
