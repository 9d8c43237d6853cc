"""Parts that groups of commands share: options, the directory, and publishing of changes."""

import asyncio
import os
import pwd
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from proxy.cli.output import warn
from proxy.errors.stores import IdentityError

if TYPE_CHECKING:
    from proxy.events.schema import Event
    from proxy.identity.directory import Directory
    from proxy.identity.store import SqlDirectory
    from proxy.settings import Settings

_T = TypeVar("_T")
Tell = Callable[["Event"], None]
"""Collects an event of a change; it is published when the change is made."""

HELP: dict[str, Any] = {
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "no_args_is_help": True,
}
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="User name, as typed before '+' in ssh.", show_default=False)]


def with_directory(context: typer.Context, act: Callable[["Directory"], Awaitable[_T]]) -> _T:
    """Run `act` with the directory, without changes that proxies must know at once."""

    async def only(directory: "Directory", _tell: Tell) -> _T:
        return await act(directory)

    return administer(context, only)


@asynccontextmanager
async def open_directory(settings: "Settings") -> "AsyncIterator[SqlDirectory]":
    """Hold the directory, which must be there: commands never make or upgrade it. Raises: StoreError."""
    from proxy.identity.store import SqlDirectory

    directory = await SqlDirectory.open(
        settings.database_url,
        query_timeout_s=settings.identity.query_timeout_s,
        uids=settings.identity.uids,
        groups=settings.groups,
    )
    try:
        yield directory
    finally:
        await directory.close()


def administer(context: typer.Context, act: Callable[["Directory", Tell], Awaitable[_T]]) -> _T:
    """Run `act` with the directory, then publish the changes through NATS when it is configured."""
    from proxy import log

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        events: list[Event] = []
        try:
            async with open_directory(settings) as directory:
                return await act(directory, events.append)
        finally:
            if events and settings.events.urls:
                await publish(settings, events)

    return asyncio.run(main())


def require_user(context: typer.Context, name: str) -> None:
    """Check that the directory has a user of whom nothing was found. Raises: UserNotFound."""
    if name:
        with_directory(context, lambda directory: directory.show_user(name))


def tell_if_cut(shown: int, limit: int, *, is_cut: bool) -> None:
    """Say on stderr that a list was cut, so that a program can still read stdout."""
    if is_cut:
        warn(f"fairlead: only the newest {shown} are shown; --limit shows more than {limit}")


def actor() -> str:
    """Return the name of the operator, for events and records."""
    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"


def read_text(name: str) -> str:
    """Read a file, or stdin for `-`. Raises: IdentityError."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).expanduser().read_text(encoding="utf-8")
    except OSError as exc:
        raise IdentityError(f"{name}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise IdentityError(f"{name}: not a text file") from None


async def publish(settings: "Settings", events: "list[Event]") -> None:
    """Publish changes through NATS, and warn the operator when that fails."""
    from proxy.events.natsbus import NatsBus

    bus = NatsBus(settings.events, proxy_id=settings.proxy_id)
    bus.start()
    for event in events:
        bus.publish(event)
    await bus.close(settings.events.close_timeout_s)
    if bus.counters.published < len(events):
        warn(
            "fairlead: the change is made, but NATS did not take word of it; "
            f"proxies find out by themselves within {settings.identity.recheck_s:g} s"
        )
