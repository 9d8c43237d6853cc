"""Parts of open pages that are kept up to date by server-sent events (HTML Standard §9.2).

A stream sends a part of a page when it differs from what it sent last. It ends by itself after `stream_s`,
the browser opens the next, and so the session is looked at anew. A user has at most `streams_per_user`.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from proxy.errors import FairleadError
from proxy.errors.programs import Refused
from proxy.settings.web import PortalSettings
from proxy.web.portal.desk import LIVE, Desk
from proxy.web.portal.forms import check_same_origin
from proxy.web.sessions import Held

Parts = Callable[[web.Request, Held], Awaitable[Mapping[str, str]]]
"""Makes the parts of one page that change, as HTML by name. Raises: FairleadError."""

_RETRY_MS = 1_000
_ALIVE_S = 10.0
"""A line without content goes out so often, so that a browser that left is noticed."""
_WRITE_S = 10.0


@dataclass(slots=True)
class _Sent:
    """The digests of the parts that one stream sent last."""

    digests: dict[str, str]

    def changed(self, parts: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the parts that differ, and remember them."""
        found = []
        for name, html in parts.items():
            digest = hashlib.sha256(html.encode()).hexdigest()
            if self.digests.get(name) != digest:
                self.digests[name] = digest
                found.append((name, html))
        return found


class Live:
    """The streams of one process."""

    def __init__(self, desk: Desk, settings: PortalSettings) -> None:
        self._desk = desk
        self._settings = settings
        self._open: Counter[str] = Counter()
        self._closing = asyncio.Event()

    def __len__(self) -> int:
        """Count the open streams."""
        return self._open.total()

    def serve(self, name: str, parts: Parts) -> None:
        """Offer the parts of a page at `LIVE{name}`."""

        async def stream(request: web.Request, held: Held) -> web.StreamResponse:
            return await self._stream(request, held, parts)

        self._desk.get(f"{LIVE}{name}", stream)

    def close(self) -> None:
        """End every stream: the process shuts down, and another replica serves the next."""
        self._closing.set()

    async def _stream(self, request: web.Request, held: Held, parts: Parts) -> web.StreamResponse:
        check_same_origin(request)
        user = held.user.id
        is_full = len(self) >= self._settings.streams or self._open[user] >= self._settings.streams_per_user
        if is_full or self._closing.is_set():
            return web.Response(status=429, text="too many pages are open\n", headers={"Retry-After": "15"})
        self._open[user] += 1
        try:
            return await self._follow(request, held, parts)
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]

    async def _follow(self, request: web.Request, held: Held, parts: Parts) -> web.StreamResponse:
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        response = web.StreamResponse(headers=headers)
        loop = asyncio.get_running_loop()
        ends_at, quiet_since = loop.time() + self._settings.stream_s, loop.time()
        sent = _Sent({})
        found = await parts(request, held)  # what is not for this user is refused with a page
        with suppress(ConnectionError, TimeoutError, Refused):
            await response.prepare(request)
            await _write(response, f"retry: {_RETRY_MS}\n\n")
            while loop.time() < ends_at and not self._closing.is_set():
                for name, html in sent.changed(found):
                    await _write(response, _part(name, html))
                    quiet_since = loop.time()
                if loop.time() - quiet_since >= _ALIVE_S:
                    await _write(response, ":\n\n")
                    quiet_since = loop.time()
                await self._pause()
                if await self._desk.login.held(request, is_use=False) is not held:
                    break  # signed out, locked, or another session by now
                found = await _again(parts, request, held)
        return response

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.look_s):
                await self._closing.wait()


async def _again(parts: Parts, request: web.Request, held: Held) -> Mapping[str, str]:
    """Return the parts as they are now; none where that cannot be found out. Raises: Refused."""
    try:
        return await parts(request, held)
    except Refused:
        raise
    except FairleadError:
        return {}


def _part(name: str, html: str) -> str:
    return f"event: part\ndata: {json.dumps({'name': name, 'html': html})}\n\n"


async def _write(response: web.StreamResponse, text: str) -> None:
    """Send text. Raises: TimeoutError for a browser that takes nothing, ConnectionError for one that left."""
    async with asyncio.timeout(_WRITE_S):
        await response.write(text.encode())
