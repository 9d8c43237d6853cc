"""`fairlead user …` and `fairlead key …`."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli.common import HELP, Json, Name, Tell, actor, administer, read_text, with_directory
from proxy.cli.output import count, import_row, key_row, print_json, print_rows, say, user_row, warn
from proxy.errors.stores import IdentityError

if TYPE_CHECKING:
    from proxy.identity.directory import Directory, ImportResult
    from proxy.identity.keys import PublicKey
    from proxy.model import User
    from proxy.settings import Settings

user_app = typer.Typer(help="People who may log in.", **HELP)
key_app = typer.Typer(help="Public keys of a user.", **HELP)

_USER_COLUMNS = ("name", "full_name", "email", "keys", "locked", "source", "expires_at", "created_at")
_KEY_COLUMNS = ("fingerprint", "algorithm", "comment", "origin", "last_used_at")

KeyFiles = Annotated[
    list[str], typer.Option("--key", help="File with public keys; '-' for stdin. May be repeated.")
]
Expires = Annotated[
    str,
    typer.Option(
        "--expires", help="From then on logins are refused: 2031-12-31, or with a time, UTC unless it says."
    ),
]


# -------------------------------------------------------------------------------------------- users


@user_app.command("add")
def add_user(
    context: typer.Context,
    name: Name,
    key: KeyFiles = [],  # noqa: B006 - typer copies it
    full_name: Annotated[str, typer.Option(help="For people to read.")] = "",
    email: Annotated[str, typer.Option(help="For people to read.")] = "",
    uid: Annotated[
        int | None,
        typer.Option(help="Default: the next free one.", min=1, max=2**31 - 1, show_default=False),
    ] = None,
    expires: Expires = "",
) -> None:
    """Record a user who may log in with these keys."""
    keys, expires_at = _read_keys(key), _moment(expires)
    if problem := _reserved(context.obj.settings(), name):
        raise IdentityError(problem)

    async def act(directory: "Directory", tell: Tell) -> None:
        await directory.add_user(name, full_name=full_name, email=email, uid=uid, expires_at=expires_at)
        await _add_keys(directory, tell, name, keys)

    administer(context, act)
    warn(f"user {name} added with {count(len(keys), 'key')}")


@user_app.command("list")
def list_users(context: typer.Context, as_json: Json = False) -> None:
    """List every user."""
    rows = [user_row(record) for record in with_directory(context, lambda directory: directory.list_users())]
    print_rows(rows, as_json, _USER_COLUMNS)


@user_app.command("show")
def show_user(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show one user with the keys."""

    async def act(directory: "Directory") -> dict[str, Any]:
        row = user_row(await directory.show_user(name))
        return {**row, "public_keys": [key_row(key) for key in await directory.keys_of(name)]}

    shown = with_directory(context, act)
    if as_json:
        print_json(shown)
        return
    for label, value in shown.items():
        if label != "public_keys":
            text = ", ".join(value) if isinstance(value, list) else value
            say(f"{label + ':':20} {'' if text is None else text}")
    print_rows(shown["public_keys"], False, _KEY_COLUMNS)


class Leave(Enum):
    """The fate of the workspaces of a user who is removed."""

    STOP = "stop"
    DELETE = "delete"


@user_app.command("remove")
def remove_user(
    context: typer.Context,
    name: Name,
    workspaces: Annotated[
        Leave,
        typer.Option("--workspaces", help="End their processes, or take them away; homes stay either way."),
    ] = Leave.STOP,
) -> None:
    """Forget a user and the keys, end the connections, and stop the workspaces.

    Says what is left. A later user of that name never gets it; `workspace give` hands it over.
    """
    from proxy.cli.workspaces import leave_workspaces

    async def act(directory: "Directory", tell: Tell) -> "User":
        from proxy.events.schema import KeyRemoved

        user = (await directory.show_user(name)).user
        keys = await directory.keys_of(name)
        await directory.remove_user(name)
        for stored in keys:
            tell(
                KeyRemoved(
                    user=name,
                    actor=actor(),
                    fingerprint=stored.key.fingerprint,
                    key_type=stored.key.algorithm,
                    origin=stored.origin,
                )
            )
        return user

    user = administer(context, act)
    warn(f"user {name} removed")
    leave_workspaces(context, user, delete=workspaces is Leave.DELETE)


@user_app.command("lock")
def lock_user(context: typer.Context, name: Name) -> None:
    """Keep a user out without forgetting anything, and end the connections."""

    async def act(directory: "Directory", tell: Tell) -> None:
        from proxy.events.schema import UserLocked

        await directory.lock(name)
        tell(UserLocked(user=name, actor=actor()))

    administer(context, act)


@user_app.command("unlock")
def unlock_user(context: typer.Context, name: Name) -> None:
    """Let a locked user in again."""

    async def act(directory: "Directory", tell: Tell) -> None:
        from proxy.events.schema import UserUnlocked

        await directory.unlock(name)
        tell(UserUnlocked(user=name, actor=actor()))

    administer(context, act)


@user_app.command("import")
def import_users(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(help="YAML, JSON or CSV by its name; '-' for stdin.", show_default=False)
    ],
    form: Annotated[str, typer.Option("--format", help="yaml, json or csv.", show_default=False)] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add users and keys, and change those that differ from the file; all of it, or nothing.

    Fields: name, full_name, email, uid, expires_at, locked, keys (in CSV `key`, one row each). Nothing is
    ever taken away. Every problem is said at once.
    """
    from proxy.cli.user_file import read_users

    entries, problems = read_users(file, read_text(file), form)
    settings: Settings = context.obj.settings()
    reserved = ((entry, _reserved(settings, entry.name)) for entry in entries)
    problems += [f"{file}: {entry.where}: {problem}" for entry, problem in reserved if problem]
    changes: list[dict[str, Any]] = []
    if not problems:

        async def act(directory: "Directory", tell: Tell) -> "ImportResult":
            result = await directory.import_users(entries, dry_run=dry_run)
            if not dry_run:
                _tell_of_import(result, tell)
            return result

        result = administer(context, act)
        problems = [f"{file}: {problem}" for problem in result.problems]
        changes = [] if problems else [import_row(change) for change in result.changes]
    if as_json:
        print_json({"dry_run": dry_run, "problems": problems, "users": changes})
    else:
        print_rows(changes, False, ("name", "action", "new_keys", "locked"))
        for problem in problems:
            warn(f"fairlead: {problem}")
    if problems:
        raise typer.Exit(1)


def _tell_of_import(result: "ImportResult", tell: Tell) -> None:
    from proxy.events.schema import UserLocked, UserUnlocked

    for change in result.changes:
        for key in change.keys:
            tell(_key_added(change.name, key))
        if change.locked is not None:
            tell((UserLocked if change.locked else UserUnlocked)(user=change.name, actor=actor()))


def _reserved(settings: "Settings", name: str) -> str:
    """Return the reason that a name is reserved in pods, where it would be an account; empty if free."""
    from proxy.identity import reserved_names

    return reserved_names.may_be_account(name).reason if settings.workspace.backend == "kubernetes" else ""


def _moment(text: str) -> datetime | None:
    from proxy.cli.user_file import parse_moment

    try:
        return parse_moment(text) if text else None
    except ValueError as exc:
        raise IdentityError(f"--expires: {exc}") from None


# --------------------------------------------------------------------------------------------- keys


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
    added = administer(context, lambda directory, tell: _add_keys(directory, tell, name, keys))
    warn(f"{count(added, 'new key')} for {name}")


@key_app.command("list")
def list_keys(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """List the keys of a user."""
    keys = with_directory(context, lambda directory: directory.keys_of(name))
    print_rows([key_row(key) for key in keys], as_json, _KEY_COLUMNS)


@key_app.command("remove")
def remove_key(
    context: typer.Context,
    name: Name,
    fingerprint: Annotated[
        str, typer.Argument(help="SHA256:…, as `key list` prints it.", show_default=False)
    ],
) -> None:
    """Take a key from a user, and end the connections that it opened; only `key add` gives it back."""

    async def act(directory: "Directory", tell: Tell) -> None:
        from proxy.events.schema import KeyRemoved

        held = {stored.key.fingerprint: stored for stored in await directory.keys_of(name)}
        await directory.remove_key(name, fingerprint)
        if stored := held.get(fingerprint):
            tell(
                KeyRemoved(
                    user=name,
                    actor=actor(),
                    fingerprint=fingerprint,
                    key_type=stored.key.algorithm,
                    origin=stored.origin,
                )
            )

    administer(context, act)


async def _add_keys(directory: "Directory", tell: Tell, name: str, keys: Sequence["PublicKey"]) -> int:
    added = 0
    for key in keys:
        if await directory.add_key(name, key):
            added += 1
            tell(_key_added(name, key))
    return added


def _key_added(name: str, key: "PublicKey") -> Any:
    from proxy.events.schema import KeyAdded

    return KeyAdded(
        user=name, actor=actor(), fingerprint=key.fingerprint, key_type=key.algorithm, origin="static"
    )


def _read_keys(files: Sequence[str]) -> list["PublicKey"]:
    from proxy.identity.keys import parse_public_keys

    keys = []
    for name in files:
        text = read_text(name)
        try:
            keys += parse_public_keys(text)
        except IdentityError as exc:
            raise IdentityError(f"{'stdin' if name == '-' else name}: {exc}") from None
    return keys
