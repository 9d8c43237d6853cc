"""`fairlead trust …`: the authority that certifies workspaces and proxies, and its rotation."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from proxy.cli.common import HELP, Json
from proxy.cli.output import print_rows

if TYPE_CHECKING:
    from proxy.settings import Settings
    from proxy.trust.manager import TrustManager

_T = TypeVar("_T")

trust_app = typer.Typer(help="Certificates and keys between proxies and workspaces.", **HELP)

_COLUMNS = ("number", "state", "issues_from", "retires_at", "authority_until", "fingerprint")


@trust_app.command("show")
def show(context: typer.Context, as_json: Json = False) -> None:
    """List generations: the one that signs, one that is announced, one that retires."""

    async def act(keeper: "TrustManager") -> list[dict[str, Any]]:
        return keeper.rows(datetime.now(UTC))

    print_rows(_with_keeper(context, act), as_json, _COLUMNS)


@trust_app.command("rotate")
def rotate(
    context: typer.Context,
    announce_s: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds until the new generation signs; default trust.announce_s. 0 after a leak: "
            "new connections fail until workspaces have read their new Secret.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Announce a new authority and master key; everything else happens by itself, without ending sessions."""

    async def act(keeper: "TrustManager") -> list[dict[str, Any]]:
        await keeper.rotate(None if announce_s is None else timedelta(seconds=announce_s))
        return keeper.rows(datetime.now(UTC))

    print_rows(_with_keeper(context, act), as_json, _COLUMNS)


def _with_keeper(context: typer.Context, act: Callable[["TrustManager"], Awaitable[_T]]) -> _T:
    from proxy import log
    from proxy.process.assemble.trust import open_trust

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        async with open_trust(settings) as keeper:
            await keeper.refresh()
            return await act(keeper)

    return asyncio.run(main())
