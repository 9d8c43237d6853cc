"""Recordings that a user may see, and the player.

A recording holds what a program chose to print, so its page gets an origin of its own by `sandbox`: it can
neither read this origin nor act on it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from aiohttp import web

from proxy.errors.programs import Refused
from proxy.errors.stores import RecordingError
from proxy.recording import page
from proxy.recording.archive import Archive, Listing
from proxy.recording.manifest import Manifest, Signed
from proxy.recording.rendering import rendered
from proxy.web.portal.desk import Desk
from proxy.web.sessions import Held

MAX_SHOWN = 100

_FRAMELESS = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox allow-scripts allow-forms"
"""Of the player besides its own policy; it never sends its form, which finds text in the page."""


@dataclass(frozen=True, slots=True)
class RecordingPages:
    """The list, and the player of one recording."""

    desk: Desk
    archive: Archive
    read_s: float
    """Time for the store to list recordings, in seconds."""
    players: int
    """Recordings that are prepared at the same time."""
    _playing: set[str] = field(default_factory=set)

    def serve(self) -> None:
        """Add the routes."""
        self.desk.get("/recordings", self._list)
        self.desk.get("/recordings/{id}", self._play)

    async def _list(self, request: web.Request, held: Held) -> web.StreamResponse:
        sees_all = bool(self.desk.rights.may_list_recordings(held.user, ""))
        user = request.query.get("user", "").strip() if sees_all else held.user.name
        self.desk.require(self.desk.rights.may_list_recordings(held.user, user))
        day = _day(request.query.get("day", ""))
        listing = await self._newest(day, user)
        found = [
            one
            for one in (signed.manifest for signed in listing.found)
            if self.desk.rights.may_view(held.user, one.user, one.started_at)
        ]
        values: dict[str, Any] = {
            "found": found,
            "sees_all": sees_all,
            "of": user,
            "day": day,
            "most": MAX_SHOWN,
        }
        return self.desk.page(request, held, "recordings.html", **values)

    async def _newest(self, day: str, user: str) -> Listing:
        try:
            async with asyncio.timeout(self.read_s):
                return await self.archive.newest(day=day, user=user, limit=MAX_SHOWN)
        except TimeoutError:
            raise RecordingError(
                f"recordings are not listed within {self.read_s:g} s",
                user_message="the recordings are not found in time; choose a day",
            ) from None

    async def _play(self, request: web.Request, held: Held) -> web.StreamResponse:
        signed = await self._find(held, request.match_info["id"])
        if held.user.id in self._playing or len(self._playing) >= self.players:
            raise Refused("too many recordings are being prepared at the moment; try again soon")
        self._playing.add(held.user.id)
        try:
            self.desk.note(held, "play recording", recording=signed.manifest.id, of=signed.manifest.user)
            result = await self.archive.verify(signed)
            pieces = rendered(signed.manifest, result, self.archive.lines(signed.manifest))
            return await self._send(request, pieces)
        finally:
            self._playing.discard(held.user.id)

    async def _find(self, held: Held, id_: str) -> Signed:
        """Return a recording by its whole id. Raises: Refused, alike for none and for another user's."""
        refused = Refused("there is no such recording, or it is not for you")
        try:
            signed = await self.archive.find(id_)
        except RecordingError as exc:
            raise refused from exc
        manifest: Manifest = signed.manifest
        if manifest.id != id_ or not self.desk.rights.may_view(held.user, manifest.user, manifest.started_at):
            raise refused
        return signed

    async def _send(self, request: web.Request, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
        headers = self.desk.login.site.page_headers(f"{page.policy()}; {_FRAMELESS}")
        # A sandboxed document with this field is refused by browsers (HTML Standard §7.1.3).
        del headers["Cross-Origin-Opener-Policy"]
        response = web.StreamResponse(headers={**headers, "Content-Type": "text/html; charset=utf-8"})
        await response.prepare(request)
        async with aclosing(pieces) as sent:  # type: ignore[type-var]  # an async generator, which has aclose
            async for piece in sent:
                await response.write(piece)
        return response


def _day(text: str) -> str:
    """Return a day of the query; empty for none. Raises: Refused for text that is no day."""
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise Refused(f"{text[:20]!r} is no day; write it as 2026-02-03") from None
