"""The command line: words in, one of our modules called, a table or JSON out. No decisions.

Heavy modules are imported inside the commands that need them, so that the others answer at once.
Exit status: 0, 1 with one sentence on stderr, 2 for a wrong command line, 78 for settings that cannot
be used.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from proxy import __version__
from proxy.errors import EXIT_CONFIG, FairleadError, IdentityError, SettingsError
from proxy.output import count, key_row, print_json, print_rows, user_row

if TYPE_CHECKING:
    from proxy.identity.directory import Directory
    from proxy.identity.keys import PublicKey
    from proxy.settings import Settings
    from proxy.workspaces.backend import WorkspaceRecord
    from proxy.workspaces.local import LocalBackend

_T = TypeVar("_T")

_HELP = {"context_settings": {"help_option_names": ["-h", "--help"]}, "no_args_is_help": True}
app = typer.Typer(
    help="SSH bastion into workspaces: ssh user+blueprint@host with any stock SSH client.",
    pretty_exceptions_enable=False,
    add_completion=False,
    **_HELP,  # type: ignore[arg-type]
)
user_app = typer.Typer(help="People who may log in.", **_HELP)  # type: ignore[arg-type]
key_app = typer.Typer(help="Public keys of a user.", **_HELP)  # type: ignore[arg-type]
blueprint_app = typer.Typer(help="What workspaces look like.", **_HELP)  # type: ignore[arg-type]
workspace_app = typer.Typer(help="Workspaces of this machine.", **_HELP)  # type: ignore[arg-type]
app.add_typer(user_app, name="user")
app.add_typer(key_app, name="key")
app.add_typer(blueprint_app, name="blueprint")
app.add_typer(workspace_app, name="workspace")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="User name, as typed before '+' in ssh.", show_default=False)]
KeyFiles = Annotated[
    list[str], typer.Option("--key", help="File with public keys; '-' for stdin. May be repeated.")
]
Listen = Annotated[str | None, typer.Option(help="host:port of the SSH listener.")]


@dataclass(frozen=True, slots=True)
class _Options:
    """What stands before the command."""

    config: Path | None
    home: Path | None

    def settings(self, **overrides: Any) -> "Settings":
        from proxy.settings import load

        given = {"home": self.home and str(self.home), **overrides}
        return load(
            file=self.config, overrides={key: value for key, value in given.items() if value is not None}
        )


def main() -> None:
    """Run one command; errors of ours become one sentence and an exit status."""
    try:
        app(prog_name="fairlead")
    except FairleadError as exc:
        print(f"fairlead: {exc}", file=sys.stderr)
        sys.exit(EXIT_CONFIG if isinstance(exc, SettingsError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fairlead {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; also FAIRLEAD_CONFIG.")] = None,
    home: Annotated[Path | None, typer.Option(help="Directory of all state; also FAIRLEAD_HOME.")] = None,
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = _Options(config, home)


# ------------------------------------------------------------------------------------------ serving


@app.command()
def run(context: typer.Context, listen: Listen = None) -> None:
    """Try it on this machine: authorise your keys, serve, and print the ssh line to type."""
    settings: Settings = context.obj.settings(listen=listen)
    from proxy import app as application
    from proxy import quickstart

    async def program() -> None:
        prepared = await quickstart.prepare(settings)
        await application.serve(
            settings,
            on_ready=lambda host, port, keys: quickstart.announce(
                prepared, host, port, keys.fingerprints, keys.public_lines
            ),
        )

    # A newcomer looks for the line to type, and finds it when nothing else is said.
    _serve(settings, program, level=None if "level" in settings.log.model_fields_set else "warning")


@app.command()
def serve(context: typer.Context, listen: Listen = None) -> None:
    """Serve with what is configured, and nothing made up."""
    settings: Settings = context.obj.settings(listen=listen)
    from proxy import app as application

    _serve(settings, lambda: application.serve(settings))


def _serve(
    settings: "Settings", program: Callable[[], Coroutine[Any, Any, None]], level: str | None = None
) -> None:
    import uvloop

    from proxy import log

    log.configure(level or settings.log.level, settings.log.format)
    uvloop.run(program())


@app.command("settings")
def show_settings(context: typer.Context, as_json: Json = False) -> None:
    """Print the settings in effect."""
    import yaml

    values = context.obj.settings().model_dump(mode="json")
    if as_json:
        print_json(values)
    else:
        print(yaml.safe_dump(values, sort_keys=False), end="")


# -------------------------------------------------------------------------------------------- users


@user_app.command("add")
def add_user(
    context: typer.Context,
    name: Name,
    key: KeyFiles = [],  # noqa: B006 - typer copies it
    full_name: Annotated[str, typer.Option(help="For people to read.")] = "",
    email: Annotated[str, typer.Option(help="For people to read.")] = "",
) -> None:
    """Record a user who may log in with these keys."""
    keys = _read_keys(key)

    async def act(directory: "Directory") -> None:
        await directory.add_user(name, full_name=full_name, email=email)
        for one in keys:
            await directory.add_key(name, one)

    _with_directory(context, act)
    print(f"user {name} added with {count(len(keys), 'key')}", file=sys.stderr)


@user_app.command("list")
def list_users(context: typer.Context, as_json: Json = False) -> None:
    """List every user."""
    rows = [user_row(record) for record in _with_directory(context, lambda directory: directory.list_users())]
    print_rows(rows, as_json, ("name", "full_name", "email", "keys", "locked", "created_at"))


@user_app.command("show")
def show_user(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show one user with the keys."""

    async def act(directory: "Directory") -> dict[str, Any]:
        row = user_row(await directory.show_user(name))
        return {**row, "keys": [key_row(key) for key in await directory.keys_of(name)]}

    shown = _with_directory(context, act)
    if as_json:
        print_json(shown)
        return
    for label, value in shown.items():
        if label != "keys":
            print(f"{label + ':':12} {value if value is not None else ''}")
    print_rows(shown["keys"], False, _KEY_COLUMNS)


@user_app.command("remove")
def remove_user(context: typer.Context, name: Name) -> None:
    """Forget a user and the keys; workspaces stay."""
    _with_directory(context, lambda directory: directory.remove_user(name))


@user_app.command("lock")
def lock_user(context: typer.Context, name: Name) -> None:
    """Keep a user out without forgetting anything."""
    _with_directory(context, lambda directory: directory.lock(name))


@user_app.command("unlock")
def unlock_user(context: typer.Context, name: Name) -> None:
    """Let a locked user in again."""
    _with_directory(context, lambda directory: directory.unlock(name))


# --------------------------------------------------------------------------------------------- keys

_KEY_COLUMNS = ("fingerprint", "algorithm", "comment", "origin", "last_used_at")


@key_app.command("add")
def add_key(
    context: typer.Context,
    name: Name,
    files: Annotated[
        list[str], typer.Argument(help="Files with public keys; '-' for stdin.", show_default=False)
    ],
) -> None:
    """Let more keys log in as a user."""
    keys = _read_keys(files)

    async def act(directory: "Directory") -> int:
        return sum([await directory.add_key(name, key) for key in keys])

    print(f"{count(_with_directory(context, act), 'new key')} for {name}", file=sys.stderr)


@key_app.command("list")
def list_keys(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """List the keys of a user."""
    keys = _with_directory(context, lambda directory: directory.keys_of(name))
    print_rows([key_row(key) for key in keys], as_json, _KEY_COLUMNS)


@key_app.command("remove")
def remove_key(
    context: typer.Context,
    name: Name,
    fingerprint: Annotated[
        str, typer.Argument(help="SHA256:…, as `key list` prints it.", show_default=False)
    ],
) -> None:
    """Take a key from a user."""
    _with_directory(context, lambda directory: directory.remove_key(name, fingerprint))


def _read_keys(files: Sequence[str]) -> list["PublicKey"]:
    from proxy.identity.keys import parse_public_keys

    keys = []
    for name in files:
        try:
            text = sys.stdin.read() if name == "-" else Path(name).expanduser().read_text(encoding="utf-8")
            keys += parse_public_keys(text)
        except OSError as exc:
            raise IdentityError(f"{name}: {exc.strerror}") from None
        except UnicodeDecodeError:
            raise IdentityError(f"{name}: not a text file") from None
        except IdentityError as exc:
            raise IdentityError(f"{'stdin' if name == '-' else name}: {exc}") from None
    return keys


def _with_directory(context: typer.Context, act: Callable[["Directory"], Awaitable[_T]]) -> _T:
    from proxy.identity.store import SqlDirectory

    settings: Settings = context.obj.settings()

    async def main() -> _T:
        directory = await SqlDirectory.open(
            settings.database_url,
            query_timeout_s=settings.identity.query_timeout_s,
            uids=settings.identity.uids,
        )
        try:
            return await act(directory)
        finally:
            await directory.close()

    return asyncio.run(main())


# --------------------------------------------------------------------------- blueprints, workspaces


@blueprint_app.command("list")
def list_blueprints(context: typer.Context, as_json: Json = False) -> None:
    """List the blueprints that may be asked for."""
    from proxy.blueprints.catalog import Catalog

    settings: Settings = context.obj.settings()
    rows = [blueprint.model_dump(mode="json") for blueprint in Catalog(settings.blueprint_dir).all()]
    for row in rows:
        row["default"] = row["name"] == settings.blueprint.default
    print_rows(rows, as_json, ("name", "default", "description"))


@blueprint_app.command("check")
def check_blueprints(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files; default: all.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Read blueprints and say what is wrong with them; exit 1 when anything is."""
    from proxy.blueprints.catalog import blueprint_files, read_directory
    from proxy.blueprints.schema import load_blueprint

    directory = context.obj.settings().blueprint_dir
    rows = [_checked(path, partial(load_blueprint, path)) for path in paths or blueprint_files(directory)]
    if not paths and all(row["ok"] for row in rows):
        # What only shows when they are taken together, such as one name in two files.
        rows += [row for row in [_checked(directory, partial(read_directory, directory))] if not row["ok"]]
    print_rows(rows, as_json, ("file", "ok", "where", "reason"))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def _checked(path: Path, read: Callable[[], object]) -> dict[str, Any]:
    from proxy.errors import BlueprintInvalid

    try:
        read()
    except BlueprintInvalid as exc:
        return {"file": str(path), "ok": False, "where": exc.where, "reason": exc.reason}
    return {"file": str(path), "ok": True, "where": None, "reason": None}


@workspace_app.command("list")
def list_workspaces(context: typer.Context, as_json: Json = False) -> None:
    """List the workspaces of this machine, running or not."""
    rows = [
        {
            "name": record.name,
            "user": record.user,
            "blueprint": record.blueprint,
            "running": running,
            "created_at": record.created_at.isoformat(timespec="seconds"),
        }
        for record, running in _with_backend(context, _list_workspaces)
    ]
    print_rows(rows, as_json, ("name", "user", "blueprint", "running", "created_at"))


async def _list_workspaces(backend: "LocalBackend") -> list[tuple["WorkspaceRecord", bool]]:
    return backend.list()


@workspace_app.command("stop")
def stop_workspace(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="As `workspace list` prints them.", show_default=False)],
) -> None:
    """End workspaces and everything that runs in them; their homes stay."""
    from proxy.model import WorkspaceName

    async def act(backend: "LocalBackend") -> None:
        await asyncio.gather(*(backend.stop(WorkspaceName(name)) for name in names))

    _with_backend(context, act)


def _with_backend(context: typer.Context, act: Callable[["LocalBackend"], Coroutine[Any, Any, _T]]) -> _T:
    from proxy.workspaces.local import LocalBackend

    settings: Settings = context.obj.settings()

    async def main() -> _T:
        backend = LocalBackend(settings.state_dir, settings.workspace)
        try:
            return await act(backend)
        finally:
            await backend.close()

    return asyncio.run(main())
