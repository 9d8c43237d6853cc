"""`fairlead ban …`: banned addresses."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from proxy.cli.common import HELP, Json, actor, publish
from proxy.cli.output import print_json, print_rows, say, warn

if TYPE_CHECKING:
    from proxy.events.schema import Event
    from proxy.protection.bans import Ban, Bans
    from proxy.settings import Settings

ban_app = typer.Typer(help="Addresses that are not let in.", **HELP)

_T = TypeVar("_T")
_COLUMNS = ("address", "until", "offences", "actor", "reasons")
Address = Annotated[str, typer.Argument(help="IPv4 or IPv6; of IPv6 its /64 counts.", show_default=False)]


@ban_app.command("list")
def list_bans(context: typer.Context, as_json: Json = False) -> None:
    """List what is banned now, the ban that ends first first."""

    async def act(bans: "Bans") -> "list[Ban]":
        return bans.all()

    print_rows([_row(ban) for ban in _with_bans(context, act)], as_json, _COLUMNS)


@ban_app.command("add")
def add(
    context: typer.Context,
    address: Address,
    for_s: Annotated[
        float | None, typer.Option("--for", help="Seconds; default: until removed.", min=1)
    ] = None,
    reason: Annotated[str, typer.Option(help="For whoever asks why.")] = "",
    as_json: Json = False,
) -> None:
    """Ban an address on every replica, known users behind it too."""
    from proxy.errors.stores import StateRefused
    from proxy.protection.bans import FOR_EVER_S, order
    from proxy.protection.guard import ban_event

    try:
        ban = order(address, for_s or FOR_EVER_S, reason, actor())
    except ValueError as exc:
        raise StateRefused(str(exc)) from None
    _with_bans(context, lambda bans: bans.add(ban), ban_event(ban))
    _tell(ban, as_json, f"{ban.source} is banned until {_row(ban)['until']}")


@ban_app.command("remove")
def remove(context: typer.Context, address: Address, as_json: Json = False) -> None:
    """Let an address in again, and forget the bans that it had."""
    from proxy.addresses import source_of
    from proxy.events.schema import AddressUnbanned

    source = source_of(address)
    ban = _with_bans(
        context, lambda bans: bans.remove(source), AddressUnbanned(address=source, actor=actor())
    )
    _tell(ban, as_json, f"{source} {'was not banned' if ban is None else 'is let in again'}")


@ban_app.command("why")
def why(context: typer.Context, address: Address, as_json: Json = False) -> None:
    """Say whether and why an address is banned, and how often it was; exit 1 when it is not."""
    from proxy.addresses import is_in, source_of

    source = source_of(address)
    settings: Settings = context.obj.settings()

    async def act(bans: "Bans") -> "tuple[Ban | None, int]":
        return bans.find(source), bans.offences(source)

    ban, offences = _with_bans(context, act)
    is_allowed = is_in(address, settings.protection.allowed)
    if as_json:
        answer = {"address": source, "allowed": is_allowed, "offences": offences}
        print_json(answer | {"ban": None if ban is None else _row(ban)})
    elif ban is None:
        say(f"{source} is not banned; it was {offences} times of late")
    else:
        row = _row(ban)
        reasons = " ".join(row["reasons"]) or "no reason given"
        say(f"{source} is banned from {row['since']} until {row['until']} by {ban.actor}: {reasons}")
    if is_allowed:
        warn("fairlead: the address is in protection.allow, so no ban holds")
    if ban is None:
        raise typer.Exit(1)


def _with_bans(
    context: typer.Context, act: "Callable[[Bans], Awaitable[_T]]", event: "Event | None" = None
) -> _T:
    """Run `act` with the bans that replicas share, and publish the event."""
    from proxy import log
    from proxy.errors.stores import StateUnavailable
    from proxy.process.assemble.shared import open_buckets
    from proxy.protection.bans import Bans

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        buckets = open_buckets(settings)
        rules = settings.protection.bans
        bans = Bans(buckets, max_sources=rules.max_sources, memory_s=rules.memory_s)
        buckets.start()
        try:
            async with asyncio.timeout(settings.events.connect_timeout_s * 2):
                await bans.live()
            result = await act(bans)
        except TimeoutError:
            raise StateUnavailable("what replicas share cannot be reached; is NATS there?") from None
        finally:
            await bans.close()
            await buckets.close()
        if event is not None and settings.events.urls:
            await publish(settings, [event])
        return result

    return asyncio.run(main())


def _tell(ban: "Ban | None", as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(None if ban is None else _row(ban))
    else:
        warn(sentence)


def _row(ban: "Ban") -> dict[str, Any]:
    return {
        "address": ban.source,
        "since": ban.since.isoformat(timespec="seconds"),
        "until": ban.until.isoformat(timespec="seconds"),
        "offences": ban.offences,
        "actor": ban.actor,
        "reasons": list(ban.reasons),
    }
