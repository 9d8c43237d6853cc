"""`fairlead session …`: connected users, their programs, and the means to end them."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from proxy.cli.common import HELP, Json, actor, publish, require_user, tell_if_cut
from proxy.cli.output import (
    count,
    print_fields,
    print_json,
    print_rows,
    program_row,
    session_row,
    table_of,
    warn,
)
from proxy.errors.stores import IdentityError

if TYPE_CHECKING:
    from proxy.sessions.records import ConnectionRecord, ProgramRecord
    from proxy.sessions.store import SessionQuery, SessionStore
    from proxy.settings import Settings
    from proxy.shared.buckets import Bucket

_T = TypeVar("_T")

session_app = typer.Typer(help="Connections and what runs on them, on every proxy.", **HELP)

_LIVE = (
    *("id", "user", "owner", "workspace", "client_type", "client_address", "doing", "started_at"),
    *("bytes_from_client", "bytes_to_client"),
)
_ALL = (*_LIVE[:-2], "ended_at", "end_reason", *_LIVE[-2:])
_PROGRAMS = (
    *("id", "kind", "command", "target", "started_at", "ended_at", "end_reason"),
    *("exit", "bytes_from_client", "bytes_to_client"),
)

_VIEW_TIMEOUT_S = 3.0
_MAX_WATCHED = 100_000
_SPANS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_MOMENTS = "2031-12-31T18:00 (UTC unless it says), or 90m, 12h or 7d ago."

User = Annotated[str, typer.Option(help="Only those of this user.", show_default=False)]
Workspace = Annotated[str, typer.Option(help="Only those in this workspace.", show_default=False)]
Id = Annotated[str, typer.Argument(metavar="ID", help="Of a session or one program.", show_default=False)]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Of sessions or single programs.", show_default=False),
]


@session_app.command("list")
def list_sessions(  # noqa: PLR0913, PLR0917 - each is an option
    context: typer.Context,
    user: User = "",
    workspace: Workspace = "",
    all_: Annotated[bool, typer.Option("--all", help="Those that ended, too.")] = False,
    days: Annotated[float, typer.Option(help="With --all: how far to look back.", min=0, max=36_500)] = 7,
    since: Annotated[str, typer.Option(help=f"All that lasted until then or longer: {_MOMENTS}")] = "",
    until: Annotated[str, typer.Option(help=f"All that began before: {_MOMENTS}")] = "",
    limit: Annotated[int, typer.Option(help="At most this many, the newest.", min=1, max=100_000)] = 1_000,
    as_json: Json = False,
) -> None:
    """List who is connected, or was."""
    from proxy.sessions.store import SessionQuery

    is_past = all_ or bool(since) or bool(until)
    begin = _moment("--since", since) if since else datetime.now(UTC) - timedelta(days=days)
    end = _moment("--until", until) if until else None
    if since and end is not None and end <= begin:
        raise IdentityError(f"--until {until} is not after --since {since}")
    if until and not since:
        begin = datetime.fromtimestamp(0, UTC)
    asked = SessionQuery(
        user, workspace, live_only=not is_past, since=begin if is_past else None, until=end, limit=limit + 1
    )

    async def act(store: "SessionStore", settings: "Settings") -> list[dict[str, Any]]:
        if not is_past:
            async with _open_view(settings) as view:
                if view is not None:
                    return _seen(view, asked)
        return await _rows(store, asked)

    rows = _with_store(context, act)
    if not rows:
        require_user(context, user)
    print_rows(rows[:limit], as_json, _ALL if is_past else _LIVE)
    tell_if_cut(limit, limit, is_cut=len(rows) > limit)


@session_app.command("show")
def show_session(context: typer.Context, id_: Id, as_json: Json = False) -> None:
    """Show one session with everything that ran on it, or one program."""

    async def act(store: "SessionStore", _: "Settings") -> dict[str, Any]:
        for record in await store.find([id_]):
            if record.id == id_:
                return await _whole(store, record)
        raise IdentityError(f"there is no session {id_} on record")

    shown = _with_store(context, act)
    if as_json:
        print_json(shown)
        return
    print_fields(shown, 18, without=("programs",))
    if shown.get("programs"):
        print_rows(shown["programs"], False, _PROGRAMS)


@session_app.command("watch")
def watch_sessions(
    context: typer.Context,
    user: User = "",
    workspace: Workspace = "",
    every_s: Annotated[float, typer.Option("--every", help="Seconds between looks.", min=0.2)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a change.")] = False,
) -> None:
    """Show the connected users until interrupted."""
    from proxy.sessions.store import SessionQuery

    asked = SessionQuery(user, workspace, limit=_MAX_WATCHED)
    require_user(context, user)

    async def act(store: "SessionStore", settings: "Settings") -> None:
        async with _open_view(settings) as view:

            async def look() -> list[dict[str, Any]]:
                return await _rows(store, asked) if view is None else _seen(view, asked)

            await (_watch_lines(look, every_s) if as_json else _watch_table(look, every_s))

    _with_store(context, act)


@session_app.command("kill")
def kill_sessions(
    context: typer.Context,
    ids: Ids = None,
    user: Annotated[str, typer.Option(help="Every session of this user.", show_default=False)] = "",
    workspace: Annotated[str, typer.Option(help="Every session in this workspace.", show_default=False)] = "",
    reason: Annotated[str, typer.Option(help="A sentence that the person reads.")] = "",
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds to wait for the end.", min=0)] = 15,
) -> None:
    """End sessions or single programs, wherever they are, with a sentence to the person."""
    if not (ids or user or workspace):
        raise typer.BadParameter("name sessions, a --user or a --workspace")

    async def act(store: "SessionStore", settings: "Settings") -> tuple[int, set[str]]:
        wanted = await _chosen(store, ids or [], user, workspace)
        return len(wanted), await _kill(store, settings, wanted, reason, wait_s)

    ordered, left = _with_store(context, act)
    if not ordered:
        require_user(context, user)
    warn(f"{count(ordered - len(left), 'session')} ended")
    if left:
        raise IdentityError(
            f"not ended within {wait_s:g} s: {', '.join(sorted(left))}; the order stays for an hour, "
            "and a proxy that is gone is noticed by the others"
        )


# --------------------------------------------------------------------------------------------- reading


def _moment(option: str, text: str) -> datetime:
    """Read a moment, or a span that ends now. Raises: IdentityError naming the option."""
    from proxy.cli.user_file import parse_moment

    if span := re.fullmatch(r"(\d{1,5})([smhd])", text.strip(), re.ASCII):
        return datetime.now(UTC) - timedelta(seconds=int(span[1]) * _SPANS_S[span[2]])
    try:
        return parse_moment(text)
    except ValueError as exc:
        raise IdentityError(f"{option}: {exc}, nor a span such as 12h") from None


async def _rows(store: "SessionStore", asked: "SessionQuery") -> list[dict[str, Any]]:
    """Return sessions with the kinds of their programs."""
    records = await store.select(asked)
    doing: dict[str, list[str]] = {}
    for program in await store.programs_of([record.id for record in records]):
        if program.ended_at is None or not asked.live_only:
            doing.setdefault(program.connection, []).append(program.kind)
    return [session_row(record) | {"doing": _summary(doing.get(record.id, []))} for record in records]


def _summary(kinds: Sequence[str]) -> str:
    """Return a summary such as `shell, 3 forward`."""
    counted = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return ", ".join(kind if number == 1 else f"{number} {kind}" for kind, number in counted.items())


async def _whole(store: "SessionStore", record: "ConnectionRecord | ProgramRecord") -> dict[str, Any]:
    from proxy.sessions.records import ProgramRecord

    if isinstance(record, ProgramRecord):
        return program_row(record)
    programs = [program_row(program) for program in await store.programs_of([record.id])]
    return session_row(record) | {"programs": programs}


def _seen(view: "Bucket", asked: "SessionQuery") -> list[dict[str, Any]]:
    """Return the connections that the proxies show now."""
    from proxy.sessions.view import read_entry

    rows = []
    for shown in filter(None, (read_entry(entry.value) for entry in view.entries())):
        record, kinds = shown
        if asked.user in ("", record.user) and asked.workspace in ("", record.workspace):
            rows.append(session_row(record) | {"doing": _summary(kinds)})
    return sorted(rows, key=lambda row: row["started_at"], reverse=True)[: asked.limit]


Look = Callable[[], Awaitable[list[dict[str, Any]]]]


async def _watch_lines(look: Look, every_s: float) -> None:
    known: dict[str, dict[str, Any]] = {}
    while True:
        now = {row["id"]: row for row in await look()}
        for id_, row in now.items():
            if known.get(id_) != row:
                change = "updated" if id_ in known else "opened"
                print_json({"change": change, **row}, indent=None, flush=True)
        for id_ in known.keys() - now.keys():
            print_json({"change": "closed", **known[id_]}, indent=None, flush=True)
        known = now
        await asyncio.sleep(every_s)


async def _watch_table(look: Look, every_s: float) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, screen=sys.stdout.isatty()) as live:
        while True:
            live.update(table_of(await look(), _LIVE), refresh=True)
            await asyncio.sleep(every_s)


@asynccontextmanager
async def _open_view(settings: "Settings") -> AsyncIterator["Bucket | None"]:
    """Return the live view that replicas share; None without NATS, or when it does not answer."""
    if not settings.events.urls:
        yield None
        return
    from proxy.process.assemble.shared import open_buckets
    from proxy.sessions.view import open_view

    async with AsyncExitStack() as stack:
        view = open_view(await stack.enter_async_context(open_buckets(settings)), settings.sessions)
        try:
            async with asyncio.timeout(_VIEW_TIMEOUT_S):
                await view.live()
        except TimeoutError:
            warn("fairlead: NATS does not answer; this is what the database knows")
            await stack.aclose()
            yield None
        else:
            yield view


# --------------------------------------------------------------------------------------------- killing


async def _chosen(store: "SessionStore", ids: Sequence[str], user: str, workspace: str) -> list[str]:
    """Return the ids of the chosen live sessions. Raises: IdentityError for an unknown id."""
    from proxy.sessions.store import SessionQuery

    found = {record.id: record for record in await store.find(ids)}
    if missing := [id_ for id_ in ids if id_ not in found]:
        raise IdentityError(f"there is no session {', '.join(missing)} on record")
    wanted = [id_ for id_ in ids if found[id_].ended_at is None]
    if user or workspace:
        wanted += [record.id for record in await store.select(SessionQuery(user, workspace, limit=100_000))]
    return list(dict.fromkeys(wanted))


async def _kill(
    store: "SessionStore", settings: "Settings", ids: Sequence[str], reason: str, wait_s: float
) -> set[str]:
    """Order the end of sessions and wait for it; return those that are still there."""
    from proxy.events.schema import SessionKillOrdered

    if not ids:
        return set()
    who = actor()
    await store.order_kills(ids, who, reason[:256], datetime.now(UTC))
    if settings.events.urls:
        # One event makes every proxy read all orders; the others are for the audit.
        await publish(settings, [SessionKillOrdered(session_id=id_, actor=who) for id_ in ids])
    deadline = time.monotonic() + wait_s
    while True:
        left = {record.id for record in await store.find(ids) if record.ended_at is None}
        if not left or time.monotonic() >= deadline:
            return left
        await asyncio.sleep(0.1)


def _with_store(context: typer.Context, act: Callable[["SessionStore", "Settings"], Awaitable[_T]]) -> _T:
    from proxy import log

    settings: Settings = context.obj.settings()
    log.configure("error", "text")

    async def main() -> _T:
        async with _open_store(settings) as store:
            return await act(store, settings)

    return asyncio.run(main())


@asynccontextmanager
async def _open_store(settings: "Settings") -> AsyncIterator["SessionStore"]:
    from proxy.sessions.store import SessionStore
    from proxy.storage.database import Database

    timeout_s = settings.identity.query_timeout_s
    database = await Database.open(settings.database_url, query_timeout_s=timeout_s)
    try:
        yield SessionStore(database)
    finally:
        await database.close()
