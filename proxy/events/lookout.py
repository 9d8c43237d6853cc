"""The loop that looks at state which other replicas change too.

    an event that concerns this process ─▶ at once        no event ─▶ every `every_s` seconds

An event may be lost, and its sender is not believed: it only asks for a look, and the state decides.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from proxy.aio import TaskOwner
from proxy.errors.stores import StoreError
from proxy.events.publisher import Gap, Message, Subscription


def _always(message: Message | Gap) -> bool:
    del message
    return True


class Lookout:
    """The loop of one part; its owner holds the tasks."""

    def __init__(
        self,
        look: Callable[[], Awaitable[None]],
        every_s: float,
        log: Any,
        *,
        outage: str,
        heard: Callable[[Message | Gap], bool] = _always,
    ) -> None:
        """Create it; nothing happens before `start`.

        A StoreError of `look` is logged as a warning `outage`, once an outage; a bug is logged, and ends
        no later look. `heard` takes each message and returns whether it asks for a look.
        """
        self._look = look
        self._every_s = every_s
        self._log = log
        self._outage = outage
        self._heard = heard
        self._due = asyncio.Event()

    def hurry(self) -> None:
        """Look as soon as the event loop gets there."""
        self._due.set()

    def start(self, tasks: TaskOwner, subscription: Subscription) -> None:
        """Look until `tasks` ends; the subscription is closed then."""
        tasks.spawn(self._listen(subscription), name="events")
        tasks.spawn(self._run(), name="look")

    async def _run(self) -> None:
        is_blind = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._due.wait()
            self._due.clear()
            try:
                await self._look()
                is_blind = False
            except StoreError as exc:
                if not is_blind:
                    self._log.warning(self._outage, reason=str(exc))
                is_blind = True
            except Exception:  # noqa: BLE001 (a bug in one look must not end all later ones)
                self._log.exception("look failed")

    async def _listen(self, subscription: Subscription) -> None:
        try:
            async for message in subscription:
                if self._heard(message):
                    self._due.set()
        finally:
            subscription.close()
