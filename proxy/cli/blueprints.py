"""`fairlead blueprint …`: list, check and render blueprints."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli.common import HELP, Json, open_directory
from proxy.cli.output import print_json, print_lines, print_rows, warn

if TYPE_CHECKING:
    from proxy.blueprints.reading import BlueprintSet, Definition
    from proxy.blueprints.sources import Snapshot
    from proxy.model import User
    from proxy.settings import Settings
    from proxy.workspaces.backend import WorkspaceRequest

blueprint_app = typer.Typer(help="What workspaces look like.", **HELP)


@blueprint_app.command("list")
def list_blueprints(
    context: typer.Context,
    templates: Annotated[bool, typer.Option("--all", help="Those too that are only inherited from.")] = False,
    as_json: Json = False,
) -> None:
    """List the blueprints that may be asked for."""
    settings: Settings = context.obj.settings()
    blueprints = asyncio.run(_current(settings))
    rows = [
        _row(definition, blueprints, settings.blueprint.default)
        for _, definition in sorted(blueprints.definitions.items())
        if templates or not definition.sample.abstract
    ]
    if blueprints.revision and not as_json:
        warn(f"blueprints of {blueprints.revision}")
    print_rows(rows, as_json, ("name", "default", "description"))


@blueprint_app.command("check")
def check_blueprints(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files; default: all.", show_default=False)
    ] = None,
    as_json: Json = False,
    pod_security: Annotated[
        str, typer.Option(help="What a namespace enforces: baseline or restricted.", show_default=False)
    ] = "",
) -> None:
    """Read blueprints and list their faults; exit 1 when there is any.

    Files are read together with the blueprints in use, which they may inherit from or replace.
    """
    from proxy.blueprints.pod_security import Level, check
    from proxy.blueprints.reading import examine

    levels = [level.value for level in Level]
    if pod_security not in {"", *levels}:
        raise typer.BadParameter(
            f"{pod_security!r} is none of {', '.join(levels)}", param_hint="--pod-security"
        )

    settings: Settings = context.obj.settings()
    snapshot, asked = _to_check(settings, paths or [])
    definitions, problems = examine(snapshot, settings.blueprint.metadata)
    if pod_security:
        problems += check(definitions, Level(pod_security))
    rows: list[dict[str, Any]] = []
    for file in [*snapshot.files, *snapshot.unreadable]:
        if file not in asked:
            continue
        own_problems = [problem for problem in problems if problem.file == file]
        shown = str(asked[file])
        rows += [
            {"file": shown, "ok": False, "where": one.where, "reason": one.reason} for one in own_problems
        ]
        rows += [] if own_problems else [{"file": shown, "ok": True, "where": None, "reason": None}]
    print_rows(rows, as_json, ("file", "ok", "where", "reason"))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


@blueprint_app.command("render")
def render_blueprint(
    context: typer.Context,
    user_string: Annotated[
        str, typer.Argument(metavar="USER-STRING", help="As typed before '@': alice+dev.", show_default=False)
    ],
    groups: Annotated[
        list[str] | None, typer.Option("--group", help="Of a user whom the directory does not know.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the Kubernetes objects that a login would make, or the blueprint with all expressions computed.

    What is secret is left out.
    """
    settings: Settings = context.obj.settings()
    request = asyncio.run(_request(settings, user_string, groups or []))
    documents = (
        _manifests(request, settings)
        if settings.workspace.backend == "kubernetes"
        else [request.blueprint.model_dump(mode="json", exclude_defaults=True)]
    )
    if as_json:
        print_json(documents)
    else:
        import yaml

        print_lines(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True))


async def _current(settings: "Settings") -> "BlueprintSet":
    from proxy.process.assemble.catalog import open_catalog

    async with open_catalog(settings) as catalog:
        return catalog.current()


def _row(definition: "Definition", blueprints: "BlueprintSet", default: str) -> dict[str, Any]:
    blueprint = definition.sample
    return {
        **blueprint.model_dump(mode="json"),
        "default": blueprint.name == default,
        "file": definition.document.file_name,
        "revision": blueprints.revision,
        "computed": sorted(definition.document.where(loc).split(": ", 1)[1] for loc in definition.programs),
    }


def _to_check(settings: "Settings", paths: list[Path]) -> "tuple[Snapshot, dict[str, Path]]":
    """Return the files to check together with the blueprints in use."""
    from proxy.blueprints.sources import Snapshot, blueprint_files, read_directory, read_files

    directory = settings.blueprint_dir
    if not paths:
        return read_directory(directory), {path.name: path for path in blueprint_files(directory)}
    given, there = read_files(paths), read_directory(directory)
    asked = {path.name: path for path in paths}
    # The files to check come last, so that of two with one name their errors are shown.
    files = {name: data for name, data in there.files.items() if name not in asked} | dict(given.files)
    return Snapshot(files, unreadable=given.unreadable), asked


async def _request(settings: "Settings", user_string: str, groups: list[str]) -> "WorkspaceRequest":
    from proxy.blueprints.resolve import default_blueprint, resolve, resolve_name
    from proxy.errors.login import UserStringInvalid
    from proxy.process.assemble.catalog import open_catalog, open_repositories
    from proxy.userstring import parse
    from proxy.workspaces.provisioner import named_request

    value = parse(user_string)
    user = await _user(settings, value.user, groups)
    default = default_blueprint(user, settings.blueprint.rules, settings.blueprint.default)
    async with open_catalog(settings) as catalog, open_repositories(settings) as repositories:
        name = resolve_name(value, default=default, repositories=repositories.are_served, workloads=True)
        if not name:
            raise UserStringInvalid("name the blueprint instead of a workspace", text=user_string, position=0)
        if value.repo:
            blueprint = await repositories.blueprint(catalog.current(), user, value)
            return named_request(value, user, blueprint, repositories.key())
        return named_request(value, user, resolve(catalog.current(wanted=name), name, user, value), name)


def _manifests(request: "WorkspaceRequest", settings: "Settings") -> list[dict[str, Any]]:
    from datetime import UTC, datetime

    from proxy.workspaces.kubernetes.manifest import build

    manifest = build(request, settings.kubernetes, {}, now=datetime.now(UTC))
    return [dict(part) for part in manifest]


async def _user(settings: "Settings", name: str, groups: list[str]) -> "User":
    """Return the user of the directory, or an invented one with a uid as the directory would assign it."""
    from proxy.model import User

    known = await _known(settings, name)
    return known or User(name, uid=settings.identity.first_uid, groups=tuple(groups), id="id-of-a-new-user")


async def _known(settings: "Settings", name: str) -> "User | None":
    """Find a user; None without a database, so that blueprints can be tried without one."""
    from proxy.errors.stores import DatabaseMissing

    try:
        async with open_directory(settings) as directory:
            return await directory.find(name)
    except DatabaseMissing:
        return None
