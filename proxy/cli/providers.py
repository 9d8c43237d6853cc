"""`fairlead provider …`: checks of the configured identity providers."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli.common import HELP, Json, open_directory
from proxy.cli.output import print_rows
from proxy.errors.stores import IdentityError, StoreError

if TYPE_CHECKING:
    from proxy.identity.directory import Account
    from proxy.settings import Settings
    from proxy.settings.onboarding import ProviderSettings

provider_app = typer.Typer(help="Identity providers that people approve at.", **HELP)

_IN_WORDS = {True: "right", False: "wrong", None: "skipped"}


@provider_app.callback()
def _group() -> None:
    """Keep `check` a command of its own while it is the only one."""


@provider_app.command("check")
def check(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all.", show_default=False)
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Ask each for one device code.")] = False,
    account: Annotated[
        str, typer.Option(help="Id of an account whose key list is asked for; default: any known user's.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Try each use of each provider and print the results; exit 1 when any of them fails."""
    from proxy import log

    settings: Settings = context.obj.settings()
    log.configure("error", "text")
    rows = asyncio.run(_check(settings, _chosen(settings, names or []), start, account))
    shown = rows if as_json else [{**row, "ok": _IN_WORDS[row["ok"]]} for row in rows]
    print_rows(shown, as_json, ("provider", "what", "ok", "says"))
    if any(row["ok"] is False for row in rows):
        raise typer.Exit(1)


def _chosen(settings: "Settings", names: list[str]) -> "list[ProviderSettings]":
    configured = {provider.title: provider for provider in settings.front_door_in_effect.providers}
    if strange := [name for name in names if name not in configured]:
        raise IdentityError(
            f"there is no provider {', '.join(strange)}; there is {', '.join(configured) or 'none'}"
        )
    if not configured:
        raise IdentityError(
            "no provider is configured: front_door.providers is empty, and no new user can be registered"
        )
    return [configured[name] for name in names] or list(configured.values())


async def _check(
    settings: "Settings", chosen: "list[ProviderSettings]", start: bool, account: str
) -> list[dict[str, Any]]:
    from proxy.identity.directory import Account
    from proxy.onboarding.checkup import Checkup

    named = {provider.title: Account(provider.title, "", account, account) for provider in chosen}
    accounts = named if account else await _known_accounts(settings)
    checkup = Checkup(settings.front_door_in_effect, accounts, start=start)
    try:
        return [
            {"provider": found.provider, "what": found.what, "ok": found.ok, "says": found.says}
            for provider in chosen
            async for found in checkup.look(provider)
        ]
    finally:
        await checkup.close()


async def _known_accounts(settings: "Settings") -> "dict[str, Account]":
    """Return a known account of each provider; none without the directory."""
    async with AsyncExitStack() as stack:
        try:
            directory = await stack.enter_async_context(open_directory(settings))
        except StoreError:
            return {}
        records = await directory.list_users()
    return {record.account.provider: record.account for record in records if record.account is not None}
