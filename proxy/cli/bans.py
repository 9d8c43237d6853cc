"""`fairlead ban …`: banned addresses."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from proxy.cli.common import HELP, Json, actor, publish
from proxy.cli.output import print_json, print_rows, say, warn

if TYPE_CHECKING:
    from proxy.events.schema import Event
    from proxy.protection.bans import Ban, Bans
    from proxy.protection.home_bans import HeldBans
    from proxy.settings import Settings

ban_app = typer.Typer(help="Addresses that are not let in.", **HELP)

_T = TypeVar("_T")
_COLUMNS = ("address", "until", "offences", "actor", "reasons")
Address = Annotated[str, typer.Argument(help="IPv4 or IPv6; of IPv6 its /64 counts.", show_default=False)]


@ban_app.command("list")
def list_bans(context: typer.Context, as_json: Json = False) -> None:
    """List the bans in force, the one that ends first first."""

    async def act(bans: "Bans | HeldBans") -> "list[Ban]":
        return bans.all()

    print_rows([_row(ban) for ban in _with_bans(context, act)], as_json, _COLUMNS)


@ban_app.command("add")
def add(
    context: typer.Context,
    address: Address,
    for_s: Annotated[
        float | None, typer.Option("--for", help="Seconds; default: until removed.", min=1)
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept with the ban, and shown by `ban list`.")] = "",
    as_json: Json = False,
) -> None:
    """Ban an address on every replica, known users behind it too."""
    from proxy.errors.stores import StateRefused
    from proxy.protection.bans import FOR_EVER_S, order
    from proxy.protection.guard import ban_event
    from proxy.protection.home_bans import Announcer

    try:
        ban = order(address, for_s or FOR_EVER_S, reason, actor())
    except ValueError as exc:
        raise StateRefused(str(exc)) from None
    _with_bans(
        context,
        lambda bans: bans.add(ban),
        ban_event(ban),
        note=lambda held: held.add(ban, Announcer.BY_COMMAND),
    )
    _tell(ban, as_json, f"{ban.source} is banned until {_row(ban)['until']}")


@ban_app.command("remove")
def remove(context: typer.Context, address: Address, as_json: Json = False) -> None:
    """Let an address in again, and forget the bans that it had; exit 1 when it was not banned."""
    from proxy.events.schema import AddressUnbanned
    from proxy.protection.bans import Bans
    from proxy.protection.home_bans import Announcer

    source, who = _source(address), actor()

    async def act(bans: "Bans | HeldBans") -> "Ban | None":
        if isinstance(bans, Bans):
            return await bans.remove(source)
        return await bans.remove(source, who)

    ban = _with_bans(
        context,
        act,
        AddressUnbanned(address=source, actor=who),
        note=lambda held: held.remove(source, who, Announcer.BY_COMMAND),
    )
    _tell(ban, as_json, f"{source} {'was not banned' if ban is None else 'is let in again'}")
    if ban is None:
        raise typer.Exit(1)


@ban_app.command("why")
def why(context: typer.Context, address: Address, as_json: Json = False) -> None:
    """Say whether and why an address is banned, and how often it was; exit 1 when it is not."""
    from proxy.addresses import is_in

    source = _source(address)
    settings: Settings = context.obj.settings()

    async def act(bans: "Bans | HeldBans") -> "tuple[Ban | None, int]":
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


def _source(address: str) -> str:
    """Return the source that an address counts to. Raises: StateRefused for text that is none."""
    from proxy.addresses import source_of
    from proxy.errors.stores import StateRefused

    bare = address.removesuffix("/64")  # as a source is printed
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        raise StateRefused(f"{address!r} is not an IPv4 or IPv6 address") from None
    return source_of(bare)


def _with_bans(
    context: typer.Context,
    act: "Callable[[Bans | HeldBans], Awaitable[_T]]",
    event: "Event | None" = None,
    note: "Callable[[HeldBans], Awaitable[object]] | None" = None,
) -> _T:
    """Run `act` with the bans that replicas share, or, while NATS is away, with those of this home.

    A change has the `event` that reports it, and `note`, which leaves it in this home too, once NATS has it:
    a NATS that dies after its answer may have reached no proxy.
    """
    from proxy import log
    from proxy.errors.stores import StateUnavailable

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        try:
            result = await _shared(settings, act)
        except StateUnavailable as exc:
            if not settings.events.urls:
                raise
            return await _held(settings, act, str(exc), changes=event is not None)
        if note is not None and settings.events.urls:
            await _noted(settings, note)
        if event is not None and settings.events.urls:
            await publish(settings, [event])
        return result

    return asyncio.run(main())


async def _shared(settings: "Settings", act: "Callable[[Bans | HeldBans], Awaitable[_T]]") -> _T:
    """Act on the bans of all replicas. Raises: StateError; StateUnavailable after `events.command_wait_s`."""
    from proxy.errors.stores import StateUnavailable
    from proxy.process.assemble.shared import open_buckets
    from proxy.process.parts import closing
    from proxy.protection.bans import Bans

    rules, events = settings.protection.bans, settings.events
    where = f"NATS ({', '.join(events.urls)})" if events.urls else str(settings.shared_file)
    wait_s = events.command_wait_s if events.urls else 2 * events.ack_timeout_s
    async with (
        open_buckets(settings) as buckets,
        closing(Bans(buckets, max_sources=rules.max_sources, memory_s=rules.memory_s)) as bans,
    ):
        try:
            async with asyncio.timeout(wait_s):
                await bans.live()
            return await act(bans)
        except TimeoutError:
            raise StateUnavailable(f"{where} gives no bans within {wait_s:g} s") from None


async def _noted(settings: "Settings", note: "Callable[[HeldBans], Awaitable[object]]") -> None:
    """Leave a change in the file of this home; where that cannot be written, NATS alone has the change."""
    from proxy.errors.stores import StateError

    with suppress(StateError, TimeoutError):
        async with _home(settings) as bans:
            await note(bans)


@asynccontextmanager
async def _home(settings: "Settings") -> "AsyncIterator[HeldBans]":
    """Open the file of this home. Raises: StateError; TimeoutError where it cannot be read."""
    from proxy.protection.home_bans import HeldBans

    timeout_s, max_sources = settings.events.ack_timeout_s, settings.protection.bans.max_sources
    bans = HeldBans(settings.shared_file, timeout_s=timeout_s, max_sources=max_sources)
    try:
        async with asyncio.timeout(2 * timeout_s):
            await bans.open()
        yield bans
    finally:
        await bans.close()


async def _held(
    settings: "Settings", act: "Callable[[Bans | HeldBans], Awaitable[_T]]", reason: str, *, changes: bool
) -> _T:
    """Act on the file of this home, and warn of the consequence. Raises: StateError."""
    from proxy.errors.stores import StateUnavailable

    try:
        async with _home(settings) as bans:
            result = await act(bans)
    except TimeoutError:
        raise StateUnavailable(f"{reason}, and {settings.shared_file} cannot be read either") from None
    whose = f"the proxy of {settings.state_dir}"
    means = (
        f"{whose} takes this up within a second, or at its start, and shares it when NATS is back"
        if changes
        else f"this is what {whose} knows; what other replicas changed meanwhile is missing"
    )
    warn(f"fairlead: {reason}: {means}")
    return result


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
