"""`fairlead app …`: list, start and stop the apps of a workspace, read their logs, print their addresses."""

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from proxy.cli.common import HELP, Json, actor
from proxy.cli.output import print_json, print_lines, print_rows, say, warn
from proxy.cli.workspaces import owner_of, telling
from proxy.errors.workspaces import WorkspaceNotFound

if TYPE_CHECKING:
    from proxy.access.app_controls import AppControls
    from proxy.model import AppState, Visit
    from proxy.settings import Settings
    from proxy.workspaces.backend import WorkspaceRecord

_T = TypeVar("_T")

app_app = typer.Typer(help="Web apps of a workspace that shelld starts.", **HELP)

_COLUMNS = ("app", "phase", "restarts", "reason")

Workspace = Annotated[
    str,
    typer.Argument(metavar="WORKSPACE", help="As `workspace list` prints it.", show_default=False),
]
Slug = Annotated[str, typer.Argument(metavar="APP", help="As its blueprint names it.", show_default=False)]


@dataclass(frozen=True, slots=True)
class _There:
    """A workspace, as its owner would enter it."""

    settings: "Settings"
    controls: "AppControls"
    record: "WorkspaceRecord"
    visit: "Visit"


@app_app.command("list")
def list_apps(context: typer.Context, workspace: Workspace, as_json: Json = False) -> None:
    """List the apps of a workspace and their states."""
    from proxy.access.app_commands import document

    states = _with_apps(context, workspace, lambda there: there.controls.states(there.visit))
    print_rows([dict(document(state)) for state in states], as_json, _COLUMNS)


@app_app.command("start")
def start_app(context: typer.Context, workspace: Workspace, app: Slug, as_json: Json = False) -> None:
    """Start an app, and its workspace if needed, and report until it is ready or has failed."""
    from proxy.access.apps import not_ready
    from proxy.model import AppPhase

    async def act(there: _There) -> "AppState":
        async with telling(there.record.name) as report:
            return [state async for state in there.controls.ensure(there.visit, app, report)][-1]

    state = _with_apps(context, workspace, act)
    if state.phase is not AppPhase.READY:
        for line in state.log_lines:
            warn(line)
        raise not_ready(state)
    _print(state, as_json)


@app_app.command("stop")
def stop_app(context: typer.Context, workspace: Workspace, app: Slug, as_json: Json = False) -> None:
    """End the processes of an app; only `app start` starts it again."""
    by = actor()
    _print(
        _with_apps(context, workspace, lambda there: there.controls.stop(there.visit, app, by=by)), as_json
    )


@app_app.command("logs")
def show_log(
    context: typer.Context,
    workspace: Workspace,
    app: Slug,
    tail: Annotated[int, typer.Option(min=0, help="Lines from the end to begin with; 0: all.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
) -> None:
    """Print the output of an app, and the steps of shelld with it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a piece may end inside a character

    async def act(there: _There) -> None:
        async for piece in there.controls.log(there.visit, app, tail, follow=follow):
            print_lines(decoder.decode(piece), flush=True)

    _with_apps(context, workspace, act)


@app_app.command("open")
def show_address(context: typer.Context, workspace: Workspace, app: Slug) -> None:
    """Print the address of an app, to be opened in a browser by a user who may."""
    from proxy.access.app_commands import address_of
    from proxy.web.origins import Origins, Place

    async def act(there: _There) -> str:
        web = there.settings.web
        if not web.listen:
            return address_of(await there.controls.request(there.visit), app, None)
        port = int(web.listen.rpartition(":")[2])
        origins = Origins(web.scheme, web.apps_domain, web.port(port))
        request = await there.controls.request(there.visit)
        return address_of(request, app, lambda slug, place: origins.url(Place(slug, place)))

    say(_with_apps(context, workspace, act))


def _print(state: "AppState", as_json: bool) -> None:
    from proxy.access.app_commands import document, sentence

    if as_json:
        print_json(dict(document(state)))
    else:
        say(sentence(state))


def _with_apps(context: typer.Context, workspace: str, act: "Callable[[_There], Awaitable[_T]]") -> _T:
    """Do something with the apps of a workspace, as its owner would."""
    from proxy import log

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        async with _there(settings, workspace) as there:
            return await act(there)

    return asyncio.run(main())


@asynccontextmanager
async def _there(settings: "Settings", workspace: str) -> AsyncIterator[_There]:
    from proxy.access.app_controls import AppControls
    from proxy.model import Anonymous, ConnId, Peer, Principal, Visit
    from proxy.process.assemble.backend import open_backend
    from proxy.process.assemble.catalog import open_catalog, open_repositories
    from proxy.process.assemble.trust import open_trust, uses_tcp
    from proxy.process.parts import closing
    from proxy.upstream.client import Links
    from proxy.userstring import UserString
    from proxy.workspaces.provisioner import Workspaces

    async with (
        open_trust(settings) as trust,
        open_backend(settings, trust) as backend,
        open_catalog(settings) as catalog,
        open_repositories(settings) as repositories,
    ):
        if uses_tcp(settings):
            await trust.open()
        record = await backend.find(workspace)
        if record is None:
            raise WorkspaceNotFound(f"there is no workspace {workspace!r}")
        owner = await owner_of(settings, record)
        workspaces = Workspaces(catalog, backend, settings.blueprint, repositories=repositories)
        links = Links(settings.upstream, settings.proxy_id, trust if uses_tcp(settings) else None)
        async with closing(links):
            principal = Principal(Peer(ConnId("cli"), "", 0, "", 0), owner, Anonymous())
            visit = Visit(principal, owner, UserString(owner.name, pod=record.name))
            yield _There(settings, AppControls(workspaces, backend, links), record, visit)
