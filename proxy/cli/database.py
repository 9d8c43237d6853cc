"""`fairlead database …`: the schema of the database, and the check of its contents."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from proxy.cli.common import HELP, Json, with_directory
from proxy.cli.output import print_json, say, warn

if TYPE_CHECKING:
    from proxy.identity.directory import Census
    from proxy.settings import Settings
    from proxy.storage.database import Database

_T = TypeVar("_T")

database_app = typer.Typer(help="The database of users, keys and sessions.", **HELP)


@database_app.command("upgrade")
def upgrade(context: typer.Context) -> None:
    """Make the tables of a new database, or bring an old one to the schema of this release.

    Proxies of the release before go on with it. No other command changes a schema; a proxy does so when it
    starts.
    """
    from proxy import log
    from proxy.process.assemble.database import expected
    from proxy.storage.database import Database
    from proxy.storage.migrate import HEAD

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> str:
        served = expected(settings.identity.installation, settings.installation_file)
        timeout_s = settings.identity.query_timeout_s
        database = await Database.open(
            settings.database_url, query_timeout_s=timeout_s, upgrade=True, served=served
        )
        await database.close()
        return database.installation

    installation = asyncio.run(main())
    warn(f"the database has schema {HEAD}, and belongs to installation {installation}")


@database_app.command("show")
def show(context: typer.Context, as_json: Json = False) -> None:
    """Show the installation that a database belongs to, and whether users or keys are lost."""

    async def act(database: "Database") -> dict[str, Any]:
        from proxy.identity import census
        from proxy.storage import migrate

        async with database.snapshot() as connection:
            schema = await connection.run_sync(migrate.version)
            return _row(database, schema, await census.take(connection))

    row = _with_database(context, act)
    if as_json:
        print_json(row)
        return
    for label, value in row.items():
        say(f"{label.replace('_', ' ') + ':':16} {value}")


@database_app.command("accept")
def accept(context: typer.Context) -> None:
    """Take users and keys that are lost for removed: connections of theirs end, on every proxy.

    What was lost can be restored before this; afterwards their names are free.
    """
    before = with_directory(context, lambda directory: directory.accept())
    if before.is_whole:
        warn("nothing is lost")
    else:
        warn(f"{before}; they count as removed now")


def _row(database: "Database", schema: str, found: "Census") -> dict[str, Any]:
    return {
        "installation": database.installation,
        "schema": schema,
        "users": found.users,
        "keys": found.keys,
        "expected_users": found.expected_users,
        "expected_keys": found.expected_keys,
        "is_whole": found.is_whole,
    }


def _with_database(context: typer.Context, act: "Callable[[Database], Awaitable[_T]]") -> _T:
    from proxy import log
    from proxy.storage.database import Database

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        database = await Database.open(
            settings.database_url, query_timeout_s=settings.identity.query_timeout_s
        )
        try:
            return await act(database)
        finally:
            await database.close()

    return asyncio.run(main())
