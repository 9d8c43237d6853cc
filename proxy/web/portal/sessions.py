"""Live sessions and signed-in browsers of a user, and their ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from proxy.errors.programs import Refused
from proxy.events import schema
from proxy.events.publisher import Publisher
from proxy.sessions.records import ConnectionRecord, ProgramRecord
from proxy.sessions.store import SessionQuery, SessionStore
from proxy.web.portal.desk import Desk
from proxy.web.session_records import CLIENT_TYPE
from proxy.web.session_store import SessionRecord
from proxy.web.sessions import Held

MAX_SHOWN = 200
_MAX_REASON = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One live session on a page."""

    record: ConnectionRecord
    programs: tuple[ProgramRecord, ...]

    @property
    def is_browser(self) -> bool:
        """Return whether it is a browser at a web app, and no SSH connection."""
        return self.record.client_type == CLIENT_TYPE

    @property
    def size(self) -> str:
        """Return the payload in both directions, in words."""
        return size_of(self.record.bytes_from_client + self.record.bytes_to_client)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """One browser that is signed in, on a page."""

    record: SessionRecord
    apps: tuple[str, ...]
    """Host names of the apps that it has a session for."""
    is_this: bool


def size_of(size: int) -> str:
    """Return a number of bytes in words."""
    if size < 1024:
        return f"{size} bytes"
    shown = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        shown /= 1024
        if shown < 1024:
            return f"{shown:.1f} {unit}"
    return f"{shown / 1024:.1f} TiB"


@dataclass(frozen=True, slots=True)
class Sessions:
    """The page of sessions and its forms."""

    desk: Desk
    store: SessionStore
    publisher: Publisher

    def serve(self) -> None:
        """Add the routes."""
        self.desk.get("/sessions", self._page)
        self.desk.post("/sessions/end", self._end)
        self.desk.post("/browsers/sign-out", self._sign_out)

    async def _page(self, request: web.Request, held: Held) -> web.StreamResponse:
        return self.desk.page(request, held, "sessions.html", **await self.values(request, held))

    async def values(self, request: web.Request, held: Held) -> dict[str, Any]:
        """Return the values of the template. Raises: StoreError."""
        del request
        return {
            "rows": await self.rows(SessionQuery(user=held.user.name, limit=MAX_SHOWN)),
            "browsers": await self._browsers(held),
        }

    async def rows(self, query: SessionQuery) -> list[Row]:
        """Return live sessions with their programs, the newest first. Raises: StoreError."""
        records = await self.store.select(query)
        programs: dict[str, list[ProgramRecord]] = {}
        for program in await self.store.programs_of([record.id for record in records]):
            if program.ended_at is None:
                programs.setdefault(program.connection, []).append(program)
        return [Row(record, tuple(programs.get(record.id, ()))) for record in records]

    async def _browsers(self, held: Held) -> list[SignedIn]:
        found = [one for one in await self._signed_in(held) if not one.parent]
        hosts: dict[str, list[str]] = {}
        for one in await self._signed_in(held):
            if one.parent:
                hosts.setdefault(one.parent, []).append(one.host)
        return [
            SignedIn(one, tuple(sorted(set(hosts.get(one.id, ())))), one.id == held.record.id)
            for one in found[:MAX_SHOWN]
        ]

    async def _signed_in(self, held: Held) -> Sequence[SessionRecord]:
        return await self.desk.login.sessions.store.of_user(held.user.name)

    # ------------------------------------------------------------------------------- the ends

    async def _end(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        record = await self.end(held, form.get("id", ""), "")
        return self.desk.forms.done(
            request, "/sessions", f"The session from {record.client_address} is being ended."
        )

    async def end(self, held: Held, id_: str, reason: str) -> ConnectionRecord:
        """Order the end of a live session, wherever it is; return it. Raises: Refused, StoreError."""
        found = [one for one in await self.store.find([id_]) if isinstance(one, ConnectionRecord)]
        if not found:
            raise Refused("there is no such session")
        record = found[0]
        self.desk.require(self.desk.rights.may_end(held.user, record.user))
        if record.ended_at is not None:
            raise Refused("this session has ended already")
        actor = held.user.name
        await self.store.order_kills([record.id], actor, reason[:_MAX_REASON], datetime.now(UTC))
        self.publisher.publish(schema.SessionKillOrdered(session_id=record.id, actor=actor, user=record.user))
        self.desk.note(held, "end session", of=record.user, ended=record.id)
        return record

    async def _sign_out(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        wanted = form.get("id", "")
        record = next((one for one in await self._signed_in(held) if one.id == wanted), None)
        if record is None:
            raise Refused("this browser is not signed in any more")
        self.desk.require(self.desk.rights.may_end(held.user, record.user))
        await self.desk.login.sessions.sign_out(record)
        self.desk.note(held, "sign out browser", ended=record.id)
        response = self.desk.forms.done(
            request, "/sessions", "That browser is signed out, and its apps with it."
        )
        if record.id == held.record.id:
            self.desk.login.site.end_cookie(response)
        return response
