"""Bans for the web half: open WebSockets of a banned address are closed, with a reason.

Requests are refused by the listener and the gate. A WebSocket that is open has passed both.
"""

import asyncio
from typing import Protocol

from proxy.aio import TaskOwner
from proxy.shared.buckets import Watch
from proxy.web.frames import POLICY_VIOLATION
from proxy.web.front import Front

_AT_ONCE = 500
"""WebSockets that are looked at in one turn of the event loop."""
_PAUSE_S = 0.5
"""Between two looks at all WebSockets, however many bans begin."""
REASON = "your address is banned"


class Bans(Protocol):
    """The bans of addresses, shared with SSH."""

    def refuses(self, address: str) -> bool:
        """Return whether an address is kept out now."""

    def watch(self) -> Watch:
        """Return a watch of every change of a ban."""


class BanEnforcer:
    """A task that closes the WebSockets of banned addresses; one per process."""

    def __init__(self, bans: Bans, front: Front) -> None:
        self._bans = bans
        self._front = front
        self._due = asyncio.Event()
        self._tasks = TaskOwner("web-bans")

    def start(self) -> None:
        """Look after bans until closed."""
        self._tasks.spawn(self._listen(), name="listen")
        self._tasks.spawn(self._enforce(), name="enforce")

    async def close(self) -> None:
        """Close no more WebSockets."""
        await self._tasks.close()

    async def _listen(self) -> None:
        watch = self._bans.watch()
        try:
            async for _ in watch:
                self._due.set()
        finally:
            watch.close()

    async def _enforce(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            for number, exchange in enumerate(self._front.upgraded, start=1):
                if self._bans.refuses(exchange.client_address):
                    exchange.stop(POLICY_VIOLATION, REASON)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(_PAUSE_S)
