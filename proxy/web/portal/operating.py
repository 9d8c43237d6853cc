"""Pages of operators: workspaces, sessions, users and bans of all, and why a workspace does not start."""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web

from proxy.addresses import source_of
from proxy.errors import FairleadError
from proxy.errors.programs import Refused
from proxy.errors.workspaces import WorkspaceNotFound
from proxy.events import schema
from proxy.events.publisher import Publisher
from proxy.identity.directory import Directory
from proxy.model import WorkspaceName
from proxy.protection import bans
from proxy.protection.bans import Bans
from proxy.protection.guard import ban_event
from proxy.sessions.store import SessionQuery
from proxy.web.login import client_of
from proxy.web.portal.cards import Cards
from proxy.web.portal.desk import Act, Desk, SignedIn
from proxy.web.portal.looks import Looks
from proxy.web.portal.sessions import MAX_SHOWN, Sessions
from proxy.web.sessions import Held
from proxy.workspaces.backend import Backend, Stop, WorkspaceEvent, WorkspaceRecord

_LOG_LINES = 60
_MAX_REASON = 256
_HOUR_S = 3_600.0


class Stopping(Protocol):
    """The stop of any workspace, announced to those who are in it; `workspaces.control` has it."""

    async def stop(self, record: WorkspaceRecord, stop: Stop) -> None:
        """Stop it. Raises: WorkspaceError."""


@dataclass(frozen=True, slots=True)
class Operating:
    """The pages and their forms."""

    desk: Desk
    cards: Cards
    looks: Looks
    sessions: Sessions
    backend: Backend
    stopping: Stopping
    directory: Directory
    bans: Bans
    publisher: Publisher
    read_s: float
    """Time for messages and log of one workspace, in seconds."""

    def serve(self) -> None:
        """Add the routes; each asks first whether the user is an operator."""
        pages: dict[str, SignedIn] = {
            "/operators": self._workspaces,
            "/operators/workspaces/{name}": self._diagnosis,
            "/operators/sessions": self._sessions,
            "/operators/users": self._users,
            "/operators/bans": self._bans,
        }
        for path, page in pages.items():
            self.desk.get(path, self._for_operators(page))
        acts: dict[str, Act] = {
            "/operators/workspaces/stop": self._stop,
            "/operators/sessions/end": self._end,
            "/operators/users/lock": self._lock,
            "/operators/users/unlock": self._unlock,
            "/operators/bans/add": self._ban,
            "/operators/bans/remove": self._unban,
        }
        for path, act in acts.items():
            self.desk.post(path, act)

    def _for_operators(self, page: SignedIn) -> SignedIn:
        async def checked(request: web.Request, held: Held) -> web.StreamResponse:
            self.desk.require(self.desk.rights.may_operate(held.user))
            return await page(request, held)

        return checked

    # ------------------------------------------------------------------------------ workspaces

    async def _workspaces(self, request: web.Request, held: Held) -> web.StreamResponse:
        values = await self.workspace_values(request, held)
        return self.desk.page(request, held, "operators.html", **values)

    async def workspace_values(self, request: web.Request, held: Held) -> dict[str, Any]:
        """Return the values of the list of workspaces. Raises: Refused, WorkspaceError."""
        self.desk.require(self.desk.rights.may_operate(held.user))
        of = _of(request)
        cards, count = await self.cards.all(of, MAX_SHOWN)
        return {"cards": cards, "count": count, "of": of}

    async def _diagnosis(self, request: web.Request, held: Held) -> web.StreamResponse:
        record = await self._record(request.match_info["name"])
        name = WorkspaceName(record.name)
        events, log = await asyncio.gather(self._in_time(self._events(name)), self._in_time(self._log(name)))
        values: dict[str, Any] = {
            "card": await self.cards.one(record),
            "record": record,
            "events": events,
            "log": log,
            "rows": await self.sessions.rows(SessionQuery(workspace=record.name, limit=MAX_SHOWN)),
        }
        return self.desk.page(request, held, "diagnosis.html", **values)

    async def _record(self, name: str) -> WorkspaceRecord:
        record = await self.backend.find(name)
        if record is None:
            raise WorkspaceNotFound(f"there is no workspace {name[:80]!r}")
        return record

    async def _events(self, name: WorkspaceName) -> Sequence[WorkspaceEvent]:
        return list(reversed(await self.backend.events(name)))[:_LOG_LINES]

    async def _log(self, name: WorkspaceName) -> list[str]:
        async with aclosing(self.backend.logs(name, follow=False, tail=_LOG_LINES)) as lines:  # type: ignore[type-var]
            return [line async for line in lines]

    async def _in_time(self, reading: Awaitable[Sequence[Any]]) -> Sequence[Any]:
        """Return the outcome of a reading within `read_s`; nothing where the backend does not answer."""
        with suppress(FairleadError, TimeoutError):
            async with asyncio.timeout(self.read_s):
                return await reading
        return ()

    async def _stop(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        self.desk.require(self.desk.rights.may_operate(held.user))
        record = await self._record(form.get("name", ""))
        stop = Stop(held.user.name, datetime.now(UTC), form.get("reason", "").strip()[:_MAX_REASON])
        await self.stopping.stop(record, stop)
        self.looks.changed()
        self.desk.note(held, "stop", workspace=record.name, of=record.user)
        return self.desk.forms.done(request, "/operators", f"Workspace {record.name} is stopped.")

    # -------------------------------------------------------------------------------- sessions

    async def _sessions(self, request: web.Request, held: Held) -> web.StreamResponse:
        return self.desk.page(
            request, held, "operators_sessions.html", **await self.session_values(request, held)
        )

    async def session_values(self, request: web.Request, held: Held) -> dict[str, Any]:
        """Return the values of the list of sessions. Raises: Refused, StoreError."""
        self.desk.require(self.desk.rights.may_operate(held.user))
        of = _of(request)
        return {"rows": await self.sessions.rows(SessionQuery(user=of, limit=MAX_SHOWN)), "of": of}

    async def _end(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        self.desk.require(self.desk.rights.may_operate(held.user))
        record = await self.sessions.end(held, form.get("id", ""), form.get("reason", "").strip())
        said = f"The session of {record.user} from {record.client_address} is being ended."
        return self.desk.forms.done(request, "/operators/sessions", said)

    # ----------------------------------------------------------------------------------- users

    async def _users(self, request: web.Request, held: Held) -> web.StreamResponse:
        of = _of(request)
        users = [one for one in await self.directory.list_users() if of in one.user.name]
        values: dict[str, Any] = {"users": users[:MAX_SHOWN], "count": len(users), "of": of}
        return self.desk.page(request, held, "operators_users.html", **values)

    async def _lock(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        whom = form.get("user", "")
        self.desk.require(self.desk.rights.may_lock(held.user, whom))
        await self.directory.lock(whom)
        self.publisher.publish(schema.UserLocked(user=whom, actor=held.user.name))
        self.desk.note(held, "lock", of=whom)
        return self.desk.forms.done(
            request, "/operators/users", f"{whom} is locked out; what was open ends now."
        )

    async def _unlock(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        whom = form.get("user", "")
        self.desk.require(self.desk.rights.may_lock(held.user, whom))
        await self.directory.unlock(whom)
        self.publisher.publish(schema.UserUnlocked(user=whom, actor=held.user.name))
        self.desk.note(held, "unlock", of=whom)
        return self.desk.forms.done(request, "/operators/users", f"{whom} may log in again.")

    # ------------------------------------------------------------------------------------ bans

    async def _bans(self, request: web.Request, held: Held) -> web.StreamResponse:
        found = self.bans.all()
        address = request.query.get("address", "")[:64]
        values: dict[str, Any] = {"bans": found[:MAX_SHOWN], "count": len(found), "address": address}
        return self.desk.page(request, held, "operators_bans.html", **values)

    async def _ban(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        length_s = _length_s(form.get("hours", ""))
        try:
            reason = form.get("reason", "").strip()[:_MAX_REASON]
            ban = bans.order(form.get("address", "").strip(), length_s, reason, held.user.name)
        except ValueError as exc:
            raise Refused(str(exc)) from None
        own = source_of(client_of(request))
        self.desk.require(self.desk.rights.may_ban(held.user, ban.source, own))
        await self.bans.add(replace(ban, offences=self.bans.offences(ban.source)))
        self.publisher.publish(ban_event(ban))
        self.desk.note(held, "ban", address=ban.source)
        return self.desk.forms.done(request, "/operators/bans", f"{ban.source} is banned.")

    async def _unban(self, request: web.Request, held: Held, form: dict[str, str]) -> web.StreamResponse:
        self.desk.require(self.desk.rights.may_operate(held.user))
        source = form.get("address", "")
        if self.bans.find(source) is None:
            raise Refused("this address is not banned any more")
        await self.bans.remove(source)
        self.publisher.publish(schema.AddressUnbanned(address=source, actor=held.user.name))
        self.desk.note(held, "unban", address=source)
        return self.desk.forms.done(request, "/operators/bans", f"{source} is let in again.")


def _of(request: web.Request) -> str:
    """Return the name, or the part of one, that a list is narrowed to."""
    return request.query.get("user", "").strip().lower()[:64]


def _length_s(hours: str) -> float:
    """Return the length of a ban, in seconds; of none given, until it is removed. Raises: Refused."""
    if not hours:
        return bans.FOR_EVER_S
    if not hours.isascii() or not hours.isdecimal() or not 0 < int(hours[:6]) <= 87_600 or len(hours) > 5:
        raise Refused("a ban lasts 1 to 87600 hours, or until it is removed")
    return int(hours) * _HOUR_S
